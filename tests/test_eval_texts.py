"""What eval.py asks and how it compares: batches against one at a time, healing, votes."""
import csv
import json
import shutil

import pytest
import torch
from conftest import TINY, ok, run

from model import load_checkpoint
from tokenizer import Tokenizer


@pytest.fixture(scope='module')
def ckpt(data_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp('out')
    ok(run('train.py', f'--data_dir={data_dir}', f'--out_dir={out}', *TINY, '--dtype=float32'))
    return out


def write(path, rows):
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    return path


def evaluate(out, *flags):
    ok(run('eval.py', '--device=cpu', f'--out={out}/eval.json', '--allow_code_execution=True', *flags))
    path = out / 'samples.jsonl'
    rows = path.read_text(encoding='utf-8').splitlines() if path.exists() else []
    return json.loads((out / 'eval.json').read_text(encoding='utf-8'))['tasks'], [json.loads(r) for r in rows]


def slow(model, tok, prompt, n):
    """One row, no cache, and every token of the vocabulary asked whether it may come first."""
    *ids, last = tok.special['<|endoftext|>'], *tok.encode(prompt)
    begins = [i < len(tok.vocab) and tok.vocab[i].startswith(tok.vocab[last]) for i in range(tok.vocab_size)]
    new = []
    for i in range(n + 1):
        logits = model(torch.tensor([(ids + new)[-32:]]))[0][0, -1]
        new.append(logits.masked_fill(~torch.tensor(begins), -1e9).argmax().item() if i == 0
                   else logits.argmax().item())
        if new[-1] in (tok.special['<|endoftext|>'], tok.special['<|im_end|>']):
            new.pop()
            break
    return tok.decode_bytes(new)[len(tok.vocab[last]):].decode('utf-8', 'replace')


@torch.no_grad()
def test_batches_write_what_one_row_at_a_time_would(ckpt, tmp_path):
    prompts = ['def f(x):', 'import os', 'a', 'for i in ran', 'x = (1, ', '"""Ä', 'return', 'self.'] * 2
    prompts += ['b' * 60]
    file = write(tmp_path / 'own.jsonl', [{'prompt': prompt, 'regex': 'a'} for prompt in prompts])
    _, rows = evaluate(tmp_path, f'--ckpt={ckpt}', '--tasks=own', f'--data={file}', '--max_new_tokens=12')
    model, tok = load_checkpoint(ckpt)[0].eval(), Tokenizer.load(ckpt / 'tokenizer.json')
    assert [row['completion'] for row in rows] == [slow(model, tok, prompt, 12) for prompt in prompts]


def test_healing_lets_the_last_token_become_a_longer_one():
    tok = Tokenizer.train(['def f(x):\n    return x\n'] * 9, 340)
    ids = tok.encode('def f(x):')
    start, allowed = tok.heal(ids)
    assert start == ids[:-1] and ids[-1] in allowed
    assert allowed == [i for i, t in enumerate(tok.vocab) if t.startswith(tok.vocab[ids[-1]])]
    assert tok.encode('def f(x):\n    return x')[len(start)] in allowed and len(allowed) > 1
    for ids in ([], [5, tok.special['<|im_end|>']]):
        assert tok.heal(ids) == (ids, None)


def test_paths_are_what_they_say(ckpt, data_dir, tmp_path):
    """A folder named like a pattern, without a tokenizer; two data folders d, without train.bin."""
    for name in 'ab':
        shutil.copytree(data_dir, tmp_path / name / 'd', ignore=shutil.ignore_patterns('train.bin'))
    (tmp_path / '[z]').mkdir()
    shutil.copy(ckpt / 'best.pt', tmp_path / '[z]')
    write(tmp_path / '[z]' / 'data.json', [{'decontaminated': {'ngram': 13, 'problems': ['Q']}}])
    flags = ['--loss_tokens=99', '--random_init=False', '--device=cpu']
    ok(run('eval.py', '--ckpt=[z]', '--data_dir=a/d/,b/d/', *flags, cwd=tmp_path))
    results = json.loads((tmp_path / '[z]' / 'eval.json').read_text(encoding='utf-8'))
    assert list(results['tasks']['loss']) == ['trained_a/d val', 'trained_b/d val']
    said = ok(run('eval.py', '--ckpt=best.pt', '--data_dir=../a/d', *flags, cwd=tmp_path / '[z]'))
    results = json.loads((tmp_path / '[z]' / 'eval.json').read_text(encoding='utf-8'))
    assert results['decontaminated'] == {'ngram': 13, 'problems': ['Q']} and 'contamination' not in said
    write(tmp_path / 'own.jsonl', [{'prompt': 'x', 'regex': 'a'}])
    said = ok(run('eval.py', '--ckpt=best.pt', '--data_dir=../a/d', '--tasks=own', '--data=../own.jsonl',
                  '--max_new_tokens=2', '--device=cpu', cwd=tmp_path / '[z]'))
    assert '13-gram of words with Q' in said and 'parses' not in said       # no program was written


def test_two_models_are_compared_and_blind_votes_counted(tmp_path):
    """10 problems: 7 gained, 1 lost, 2 alike. McNemar by hand: 2 (C(8,0) + C(8,1)) / 2^8."""
    for side, good in ('a', '0001110000'), ('b', '1110111111'):
        (tmp_path / side).mkdir()
        write(tmp_path / side / 'samples.jsonl', [
            {'task': 't', 'task_id': str(i), 'prompt': 'p', 'completion': f'{side} {i}',
             'outcome': 'passed' if c == '1' else 'wrong'} for i, c in enumerate(good)])
    flags = ['--tasks=compare', f'--ckpt={tmp_path}/a/best.pt', f'--compare={tmp_path}/b']
    result = evaluate(tmp_path / 'out', *flags)[0]['compare']
    assert (len(result['gained']), len(result['lost'])) == (7, 1) and result['lost'] == ['t 3']
    assert result['p'] == pytest.approx(2 * (1 + 8) / 2 ** 8)
    assert result['interval'][0] < 0.6 < result['interval'][1]
    assert result['b'] - result['a'] == pytest.approx(0.6)
    with open(tmp_path / 'out' / 'sheet.csv', encoding='utf-8', newline='') as f:
        rows = list(csv.DictReader(f))
    key = json.loads((tmp_path / 'out' / 'key.json').read_text(encoding='utf-8'))
    assert {row['left'][0] for row in rows} == {'a', 'b'} and len(rows) == 10       # each is left at times
    for row, sides in zip(rows, key):
        assert (row['left'][0], row['right'][0]) == (sides['left'], sides['right'])
    for name, last in ('ann', 10), ('ben', 5):      # Ann likes b always, Ben in the first 5 rows, then a
        with open(tmp_path / f'{name}.csv', 'w', encoding='utf-8', newline='') as f:
            f.write('\ufeff' * (name == 'ben'))         # as Excel saves it
            sheet = csv.DictWriter(f, rows[0])
            sheet.writeheader()
            for i, row in enumerate(rows):
                left = (row['left'][0] == 'b') == (i < last)
                sheet.writerow({**row, 'vote': 'Left' if left else 'right'})
    ann, ben = f'{tmp_path}/ann.csv', f'{tmp_path}/ben.csv'
    result = evaluate(tmp_path / 'out', *flags, f'--votes={ann},{ben}')[0]['compare']
    assert result['votes'][ann] == {'b': 10} and result['votes'][ben] == {'b': 5, 'a': 5}
    assert result['agreement'][f'{ann}, {ben}'] == {'n': 10, 'agree': 0.5, 'kappa': 0.0}
    assert result['agreement'][f'tests, {ann}']['agree'] == 0.7
