"""plot.py on runs of rl.py: the verdict, and panels of their own."""
import numpy as np
import pytest
from conftest import ok, run
from test_plot import CONFIG, write

from parts.eval.verdict import course_of_rl, verdict


def policy(steps=100, **figures):
    """The lines of a run of rl.py; figures: {key: a function of the step}."""
    usual = {'reward': lambda step: 0.5 + step / 500, 'entropy': lambda step: 0.3 - step / 1000,
             'informative': lambda _: 0.5, 'val_reward': lambda step: 0.5 + step / 500} | figures
    rows = []
    for step in range(steps + 1):
        row = {key: function(step) for key, function in usual.items()}
        if step % 20 == 0:
            rows.append({'step': step, 'val_reward': row['val_reward'], 'val_pass_rate': row['val_reward']})
        del row['val_reward']
        if step:
            rows.append({'step': step, 'loss': 0.001, 'lr': 2e-4, 'grad_norm': 0.1, 'dt': 9, 'tok_s': 700,
                         'kl': None, 'clip_fraction': 0, 'length': 25, 'skipped': 0, 'data_s': 0, **row})
    return rows


POLICIES = {'healthy': ('healthy', {}, 'reward 0.70'),
            'a collapse': ('unhealthy', {'entropy': lambda step: 0.3 * 0.95 ** step,
                                         'informative': lambda step: 0.5 * 0.95 ** step}, 'collapse'),
            'silent': ('unhealthy', {'informative': lambda _: 0}, 'all answers to a prompt earn the same'),
            'flat': ('unhealthy', {'val_reward': lambda step: 0.5 - step / 1e4}, 'has not risen above 0.50'),
            'destroyed': ('unhealthy', {'val_reward': lambda step: 0.64 if step < 80 else 0.05},
                          'fell from 0.64 to 0.05. To do: use best.pt; lower'),
            'dips': ('healthy', {'val_reward': lambda step: 0.5 + (step % 80) / 500}, 'reward 0.70')}


@pytest.mark.parametrize('name', POLICIES)
def test_the_verdict_on_reinforcement_learning(name):
    expected, figures, words = POLICIES[name]
    config = CONFIG | {'stage': 'rl', 'warmup_steps': 5, 'max_steps': 100}
    systems, model, sentence = verdict(policy(**figures), config)
    assert (systems, model) == ('healthy', expected) and words in sentence and 'nan' not in sentence, sentence


def test_a_run_of_rl_has_panels_of_its_own_and_none_of_its_loss(tmp_path):
    write(tmp_path / 'a', policy())
    ok(run('plot.py', '--runs=a', '--out=a.svg', cwd=tmp_path))
    drawn = (tmp_path / 'a.svg').read_text(encoding='utf-8')
    for title in ('reward (circles: held out)', 'entropy, KL', 'tokens of an answer', 'informative prompts'):
        assert f'<!-- {title}' in drawn, title
    assert '<!-- loss' not in drawn


@pytest.mark.parametrize('values, says', [
    ((0.6, 0.64, 0.05), 'fell from 0.64 to 0.05. To do: use best.pt'),
    ((0.6, 0.05), 'fell from 0.60 to 0.05. To do: lower'),
    ((-1.0, -0.2, -0.9), 'fell from -0.20 to -0.90. To do: use best.pt'), ((0.6, 0.5), ''), ((0.6, 0.64), ''),
    ((-1.0, 0.0, -0.01), ''), ((0.6,), ''), ((), '')])
def test_a_fall_of_the_held_out_reward_is_seen_from_the_second_evaluation_on(values, says):
    course = course_of_rl(policy(steps=100)[1:], np.array(values))
    found = [f'{why}. To do: {do}' for wrong, why, do in course if wrong]
    assert says in ''.join(found) and len(found) == bool(says), found
