"""plot.py: the picture of finished, running and old runs, and the verdict on histories that we made up."""
import json
import math
import random

import pytest
from conftest import mistake, ok, run

from parts.eval.verdict import diagnose, read_run, verdict

CONFIG = {'max_steps': 1000, 'warmup_steps': 100, 'vocab_size': 4096, 'learning_rate': 1e-3}
LN_V = math.log(4096)
NAN = math.nan


def falling(step):
    return 3 + (LN_V - 3) * math.exp(-step / 300)


def history(steps=1000, events=(), seed=1, **figures):
    """The lines of a run that logs everything and is well; figures: {key: another function of the step}."""
    noise, rows = random.Random(seed), []
    for step in range(0, steps + 1, 10):
        tok_s = figures.get('tok_s', lambda _: 20_000)(step) * (1 + 0.03 * noise.gauss(0, 1))
        loss, val = (figures.get(key, falling)(step) for key in ('loss', 'val_loss'))
        dt, cosine = 4096 / tok_s, 0.55 + 0.45 * math.cos(math.pi * step / 1000)
        line = {'step': step, 'tokens': step * 4096, 'loss': loss + noise.gauss(0, 0.05), 'dt': dt,
                'tok_s': tok_s, 'lr': 1e-3 * min(1, step / 100) * cosine, 'mfu': None, 'skipped': 0,
                'grad_norm': 0.8 + 3 * math.exp(-step / 60) + abs(noise.gauss(0, 0.1)),
                'data_s': 0.03 * dt, 'memory_mb': 1800 + step / 50,
                'update_ratio': 1e-3 * (0.3 + math.exp(-step / 300))}
        evaluation = {'step': step, 'tokens': step * 4096, 'val_loss': val, 'val_ppl': math.exp(val),
                      'val_bpb': val / 2.5, 'shares': {'web': 0.7, 'code': 0.3},
                      'val_bpb_by_source': {'web': val / 2.4, 'code': val / 3.1}, 'repetition': 0.15,
                      'parse_rate': step / 1500, 'eval_share': 0.04, 'save_s': 0.8}
        for row in [line] * (step > 0) + [evaluation] * (step % 100 == 0):
            own = row.keys() & figures.keys() - {'loss', 'tok_s'}
            rows.append(row | {key: figures[key](step) for key in own})
    return rows + [{'step': step, 'event': kind, 'text': kind} for step, kind in events]


def old(rows):
    """What the first version of train.py logged of them."""
    keys = 'step tokens loss lr grad_norm dt tok_s skipped val_loss val_ppl val_bpb'.split()
    return [{k: row[k] for k in keys if k in row} for row in rows if 'event' not in row]


def write(folder, rows, config=CONFIG, half=''):
    folder.mkdir()
    text = ''.join(json.dumps(row) + '\n' for row in rows) + half
    (folder / 'metrics.jsonl').write_text(text, encoding='utf-8')
    (folder / 'config.json').write_text(json.dumps(config), encoding='utf-8')
    (folder / 'samples.txt').write_text('--- step 0, val_loss 8\nx\n\n--- step 9, val_loss 3\n'
                                        'def f(x):\n\treturn "$\\frac{" + "\u6f22" * 99\n', encoding='utf-8')
    return folder


EVENTS = [(220, 'spike'), (230, 'skip'), (300, 'rollback'), (640, 'resume'), (700, 'something new')]


@pytest.mark.parametrize('rows, config, half', [
    (history(events=EVENTS), CONFIG, ''), (history(400), CONFIG, '{"step": 410, "lo'),
    (old(history()), CONFIG, ''), (old(history(10)), CONFIG, ''), (history(30)[:1], CONFIG, ''),
    (history(), {}, ''),
    (history(loss=lambda step: NAN, grad_norm=lambda step: NAN, val_loss=lambda step: NAN), CONFIG, '')],
    ids='rich running old begun untrained no_config nan'.split())
def test_the_picture_is_drawn(tmp_path, rows, config, half):
    write(tmp_path / 'a', rows, config, half)
    result = run('plot.py', '--runs=a', '--out=a.png', cwd=tmp_path)
    assert 'operationally' in ok(result) or len(rows) == 1
    assert not result.stderr and not list(tmp_path.glob('*.tmp'))
    image = pytest.importorskip('matplotlib.image').imread(tmp_path / 'a.png')[..., :3]
    ink = (image.max(axis=2) < 0.9).mean()              # neither white nor the grey of the cards
    assert image.shape[:2] == (1000, 1600) and 0.01 < ink < 0.3


def test_several_runs_share_a_picture_and_each_gets_a_verdict(tmp_path):
    runs = [write(tmp_path / 'a', history()), write(tmp_path / 'b', old(history(500, seed=2))),
            write(tmp_path / 'c', []), write(tmp_path / 'd', history(300), {**CONFIG, 'max_steps': 0})]
    said = ok(run('plot.py', f'--runs={",".join(map(str, runs))}', '--out=all.svg', cwd=tmp_path))
    assert f'{runs[0]} (step 1,000 of 1,000): operationally healthy' in said
    assert f'{runs[1]} (step 500 of 1,000, 0 min ago): operationally healthy' in said
    assert f'{runs[2]} (step 0 of 1,000, 0 min ago): too early' in said
    assert f'{runs[3]} (step 300): ' in said            # by epochs: nobody knows the last step
    assert (tmp_path / 'all.svg').read_text(encoding='utf-8').startswith('<?xml')


def test_mistakes_are_one_sentence(tmp_path):
    write(tmp_path / 'a', [], half='{"step": 1')
    mistake(run('plot.py', '--runs=nothing', cwd=tmp_path), 'nothing', 'metrics.jsonl', '--out_dir=nothing')
    mistake(run('plot.py', '--runs=a', cwd=tmp_path), 'no complete line yet', 'again')
    mistake(run('plot.py', '--runs=a', '--out=a.doc', cwd=tmp_path), 'a.doc', '.png')
    mistake(run('plot.py', '--runs=a,a,a,a,a,a,a', cwd=tmp_path), 'more than 6 folders', '--out')
    write(tmp_path / 'b', history(20))
    (tmp_path / 'matplotlib.py').write_text('raise ImportError("absent")', encoding='utf-8')
    result = run('plot.py', '--runs=b', cwd=tmp_path, env={'PYTHONPATH': str(tmp_path)}, fresh=True)
    mistake(result, 'pip install matplotlib')
    assert 'operationally healthy' in result.stdout         # the verdict needs no picture


def test_a_run_that_went_back_counts_as_it_went_on(tmp_path):
    back = [row for row in history() if row['step'] > 300]
    folder = write(tmp_path / 'a', [*history()[:34], *history(700, seed=2)[34:], *back], half='{}\n')
    rows = read_run(str(folder))['rows']
    assert [(row['step'], row.get('loss')) for row in rows] == \
        [(row['step'], row.get('loss')) for row in history()]
    assert rows[-2]['data_share'] == pytest.approx(0.03) and rows[-1]['val_bpb web'] > 1


HEALTHY, BOTH = ('healthy', 'healthy'), ('unhealthy', 'unhealthy')
SYSTEMS, MODEL = ('unhealthy', 'healthy'), ('healthy', 'unhealthy')         # ... is what is unhealthy
slower = {'tok_s': lambda step: 20_000 if step < 700 else 12_000}
flat = {'val_loss': lambda step: max(6.5, falling(step))}
burst = {'skipped': lambda step: max(0, step - 950) // 10}
TABLE = {
    'healthy': (HEALTHY, history(), 'measure it'),
    'healthy, running': (HEALTHY, history(600), 'let it run'),
    'healthy, old schema': (HEALTHY, old(history()), 'eval.py'),
    'fast and flat': (MODEL, history(**flat), 'validation loss is flat'),
    'slower and slower': (SYSTEMS, history(**slower), 'throughput fell from 19,'),
    'gradually slower': (SYSTEMS, history(tok_s=lambda step: 20_000 - 10 * step), 'throughput fell'),
    'slow and flat': (BOTH, history(**slower, **flat), 'validation loss is flat'),
    'jumpy': (SYSTEMS, history(dt=lambda step: 2 if step % 50 == 0 else 0.2), 'one step in ten'),
    'hungry': (SYSTEMS, history(data_s=lambda step: 0.1), 'waiting for data takes '),
    'evaluates all day': (SYSTEMS, history(eval_share=lambda step: 0.5), 'raise eval_interval'),
    'skips in a row': (SYSTEMS, history(**burst), 'close together'),
    'one skip': (HEALTHY, history(skipped=lambda step: step // 900), ''),
    'nan': (MODEL, history(50, loss=lambda step: NAN), 'lower learning_rate'),
    'nan and skips': (BOTH, history(loss=lambda step: NAN if step > 950 else 4, **burst), 'grad_clip'),
    'memorising': (MODEL, history(loss=lambda step: falling(step) - step / 500, val_loss=lambda step:
                                  falling(step) + max(0, step - 400) / 400), 'memorising'),
    'drifting': (MODEL, history(**dict.fromkeys(['loss', 'val_loss'], lambda step: 5 + step / 2e3)), 'drift'),
    'stuck': (MODEL, history(loss=lambda step: 8.2, val_loss=lambda step: 8.2), 'still near ln V = 8.32'),
    'never evaluated': (MODEL, [m for m in history(loss=lambda step: 5) if 'loss' in m], 'loss is flat'),
    'growing gradients': (MODEL, history(grad_norm=lambda step: math.exp(step / 300)), 'gradient norms grew'),
    'repetitive': (MODEL, history(repetition=lambda step: 0.97), 'repeat themselves (97%)'),
    'tiny updates': (MODEL, history(update_ratio=lambda step: 1e-6), 'raise learning_rate'),
    'huge updates': (MODEL, history(update_ratio=lambda step: 0.05), 'lower learning_rate'),
    'rolled back': (MODEL, history(events=[(800, 'rollback'), (900, 'rollback')]), 'rolled back 2 times'),
    'warming up': (('healthy', 'unknown'), history(150, loss=lambda step: LN_V), 'too early to tell'),
    'empty': (('unknown', 'unknown'), [], 'too early to tell'),
    'one line': (('healthy', 'unknown'), history(10)[:2], 'let it run')}


@pytest.mark.parametrize('name', TABLE)
def test_the_verdict(name):
    expected, rows, words = TABLE[name]
    systems, model, sentence = verdict(rows, CONFIG)
    assert (systems, model) == expected and words in sentence, sentence
    assert 'unknown' in expected or sentence.startswith(f'operationally {systems}, scientifically {model}: ')
    assert '. To do: ' in sentence and 'nan' not in sentence, sentence


SLOW = [[i, 4 + i / 1000] for i in range(0, 400, 100)]
NOISY = [[i, v] for i, v in zip(range(0, 800, 100), (6.2, 5, 4, 3.5, 3.6, 3.58, 3.7, 3.65))]
HALF = [[i, 2 * (i + 1) ** -0.02] for i in range(100, 1000, 100)]          # so many steps again bring 1.4 %


@pytest.mark.parametrize('vals, loss, event', [
    ([[300, 6.2]], 6.2, 'stuck'), ([[300, 4.0]], 3.9, None), ([[100, 6.2]], 6.2, None),
    ([[0, 6.2], [100, 5], [200, 4], [300, 3.9]], 3.5, None), (HALF, 1.6, None),
    (SLOW, 3.0, 'memorising'), (SLOW, 4.6, 'drift'), (NOISY, 3.0, 'memorising'), (NOISY, 3.6, 'drift'),
    (NOISY[:5], 3.0, None), ([[i, 4 - i / 1e6] for i in range(0, 400, 100)], 3.9, 'plateau'),
    ([[i, NAN] for i in range(0, 400, 100)], NAN, None)])
def test_one_diagnosis_names_what_ails_a_loss(vals, loss, event):
    illness = diagnose(vals, loss, vocab_size=512, warmup=10)
    assert (illness and illness[0]) == event
    assert not illness or all(isinstance(text, str) for text in illness) and len(illness) == 3
