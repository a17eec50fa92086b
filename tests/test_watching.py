"""What a run says of itself beside its loss, and what models that fill gaps are good for."""
import json
import random
import subprocess
import sys

import pytest
from conftest import ROOT, TINY, metrics, mistake, ok, run

from parts.train.texts import parse_rate, repetition


def test_repetition_counts_the_grams_a_text_has_had_before():
    assert repetition(['a b c d a b c d']) == pytest.approx(1 / 5)
    assert repetition(['a b c d', 'a b c d']) == 0 and repetition(['a b', '']) == 0
    assert repetition(['x ' * 104]) == pytest.approx(100 / 101)
    assert repetition(['1 2 3 4 5 6 7 8 9 ' * 20]) > 0.9


@pytest.mark.parametrize('text,parses', [
    ('def f(x):\n    return x\n\ndef g(', 1), ('def f(x:\n    return x\n\ndef', 0), ('x = 1', 0),
    ('import os\nx = [\n    1,\n]\ny', 1), ('', 0),
    ('    return 1\nx\n', 0), ("s = '\\d'\nx", 1), ('\0\nx', 0),
    ('x = ' + '(' * 5000 + '\ny', 0)])
def test_parse_rate_judges_whole_statements(text, parses):
    assert parse_rate([text]) == parses and parse_rate([text, 'x = 1\ny']) == (parses + 1) / 2


def test_update_ratio_is_the_change_of_the_weights_and_follows_the_rate(data_dir, tmp_path):
    ratios = []
    for rate in (1e-3, 2e-3):
        out = tmp_path / str(rate)
        ok(run('train.py', f'--data_dir={data_dir}', f'--out_dir={out}', *TINY, '--max_steps=1',
               '--warmup_steps=0', '--weight_decay=0', f'--learning_rate={rate}', '--dtype=float32'))
        ratios.append(next(m['update_ratio'] for m in metrics(out) if 'update_ratio' in m))
    # Adam's first step moves every weight by the rate; w_down begins at 0.02 / sqrt(2 * 2 layers)
    assert ratios[0] == pytest.approx(1e-3 / 0.01, rel=0.05)
    assert ratios[1] == pytest.approx(2 * ratios[0], rel=0.01)


def test_a_mixture_is_watched_source_by_source(tmp_path):
    for name, words in (('a', 'red green blue'), ('b', 'one two three four')):
        (tmp_path / name).mkdir()
        dice = random.Random(name)
        for i in range(60):
            text = ' '.join(dice.choices(words.split(), k=200))
            (tmp_path / name / f'{i}.md').write_text(f'{text} {i}\n', encoding='utf-8')
    sources = {name: (f'{tmp_path}/{name}', 0.5) for name in 'ab'}
    (tmp_path / 'mix.py').write_text(f'sources = {sources}\n', encoding='utf-8')
    data, out = tmp_path / 'data', tmp_path / 'out'
    ok(run('prepare.py', tmp_path / 'mix.py', f'--out_dir={data}', '--tokenizer=byte', '--mode=raw',
           '--dedup=none', '--val_fraction=0.3'))
    ok(run('train.py', f'--data_dir={data}', f'--out_dir={out}', *TINY))
    rows = [m for m in metrics(out) if 'val_loss' in m]
    assert all(set(m['val_bpb_by_source']) == {'a', 'b'} for m in rows)
    first, last = rows[0]['val_bpb_by_source'], rows[-1]['val_bpb_by_source']
    assert all(last[k] < first[k] for k in 'ab') and 'parse_rate' not in rows[0] and 'repetition' in rows[0]


def test_two_runs_do_not_write_to_one_folder(data_dir, tmp_path):
    command = [sys.executable, ROOT / 'train.py', f'--data_dir={data_dir}', f'--out_dir={tmp_path}', *TINY,
               '--max_steps=100000']
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        next(line for line in first.stdout if 'step ' in line and 'loss' in line)
        log = (tmp_path / 'train.log').read_text(encoding='utf-8')
        mistake(run('train.py', *command[2:], '--overwrite=True'), 'another run', str(tmp_path), '--out_dir')
        assert (tmp_path / 'train.log').read_text(encoding='utf-8').startswith(log)
    finally:
        first.kill()
        first.wait()
    ok(run('train.py', *command[2:-1], '--max_steps=4', '--overwrite=True'))        # the lock died with it


@pytest.fixture(scope='module')
def alphabet(tmp_path_factory):
    """Data of which a small model learns in seconds what stands in a gap."""
    folder = tmp_path_factory.mktemp('alphabet')
    rows = [{'text': ('abcdefgh ' * 200)[i % 9:1700 + i]} for i in range(60)]
    (folder / 'x.jsonl').write_text('\n'.join(map(json.dumps, rows)), encoding='utf-8')
    ok(run('prepare.py', f'--source={folder}/x.jsonl', f'--out_dir={folder}/data', '--tokenizer=byte',
           '--mode=raw', '--dedup=none'))
    return folder / 'data'


@pytest.mark.parametrize('objective', ['mlm', 'span'])
def test_a_model_that_fills_gaps_fills_them(alphabet, tmp_path, objective):
    ok(run('train.py', f'--data_dir={alphabet}', f'--out_dir={tmp_path}', *TINY, f'--objective={objective}',
           '--max_steps=150', '--n_embd=64', '--batch_size=16', '--optimizer=muon', '--learning_rate=4e-3',
           '--eval_interval=150', '--save_interval=150', '--log_interval=50'))
    # at T = 32, a span hides 4 of 30
    gap = 'c<|mask|>e<|mask|>' if objective == 'mlm' else '<|mask|>'
    said = ok(run('sample.py', f'--ckpt={tmp_path}', f'--prompt=fgh ab{gap}gh abcdefgh abcdefgh',
                  '--temperature=0'))
    assert said.splitlines()[-1] == 'fgh abcdefgh abcdefgh abcdefgh'
    mistake(run('sample.py', f'--ckpt={tmp_path}', '--prompt=aaa'), objective, '<|mask|>')
    mistake(run('sample.py', f'--ckpt={tmp_path}', f'--prompt={"abc " * 40}<|mask|>'), '161', '32')
    mistake(run('eval.py', f'--ckpt={tmp_path}', f'--data_dir={alphabet}'), objective, 'sample.py')
