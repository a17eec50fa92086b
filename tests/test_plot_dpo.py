"""plot.py on runs of dpo.py, whose loss is of pairs: the verdict, and panels of their own."""
import pytest
from conftest import ok, run
from test_plot import CONFIG, NAN, write

from parts.eval.verdict import verdict

DPO = CONFIG | {'stage': 'dpo', 'warmup_steps': 10, 'max_steps': 100}


def pairs(first=0.69, nll=0.5, fall=0.9, val_fall=0.9):
    """The lines of a run of dpo.py, whose preference losses fall to these shares of the first."""
    rows = []
    for step in range(0, 101, 5):
        loss, val = (first * (1 - (1 - end) * step / 100) for end in (fall, val_fall))
        margin = {'accuracy': 0.5 + step / 300, 'margin': step / 100}
        if step:
            rows.append({'step': step, 'loss': loss + nll, 'preference_loss': loss, 'kl': 0.4, 'lr': 1e-5,
                         'grad_norm': 1, 'dt': 1, 'tok_s': 700, 'skipped': 0, 'data_s': 0, **margin})
        if step % 20 == 0:
            rows.append({'step': step, 'val_loss': val, **{f'val_{key}': x for key, x in margin.items()}})
    return rows


@pytest.mark.parametrize('rows, expected, words', [
    (pairs(), 'healthy', 'validation loss 0.62'),
    (pairs(first=25.0), 'healthy', 'validation loss 22.5'),             # ipo begins at 1 / (2 beta)^2
    (pairs(fall=1.0, val_fall=1.0), 'unhealthy', 'loss is flat: 0.69'),
    (pairs(fall=0.2, val_fall=1.5), 'unhealthy', '(memorising). To do: more data or fewer epochs; best.pt'),
    ([row | {'loss': NAN, 'preference_loss': NAN} if 'loss' in row else row for row in pairs()], 'unhealthy',
     'not a number')])
def test_the_verdict_judges_the_preference_loss_which_has_no_ln_v(rows, expected, words):
    systems, model, sentence = verdict(rows, DPO)
    assert (systems, model) == ('healthy', expected) and words in sentence, sentence
    assert 'ln V' not in sentence and 'dropout' not in sentence


def test_a_run_of_dpo_has_panels_of_its_own_and_none_of_a_token(tmp_path):
    write(tmp_path / 'a', pairs(), DPO)
    ok(run('plot.py', '--runs=a', '--out=a.svg', cwd=tmp_path))
    drawn = (tmp_path / 'a.svg').read_text(encoding='utf-8')
    for title in 'preference loss (circles: held out)', 'pairs in the right order', 'margin of the rewards':
        assert f'<!-- {title}' in drawn, title
    for other in 'nats per token', 'KL of a token', 'guessing':
        assert other not in drawn, other
