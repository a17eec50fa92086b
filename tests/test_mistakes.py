"""Mistakes that several scripts share end in one line with what to do, and destroy nothing."""
import ast
import gzip
import json
import os
import re
import shutil
import subprocess

import pytest
from accidents import before, full_disk
from conftest import ROOT, contents, machine, mistake, ok, refused, run, train

from extras import questions


# all that a user can start: the scripts, and the programs of the folders; trial.py is sandbox.py's
PROGRAMS = [path for folder in ('*.py', 'extras/*.py', 'bench/*.py', 'learn/*.py')
            for path in sorted(ROOT.glob(folder)) if path.stem != 'trial'
            if re.search(r"^(if __name__ == '__main__'|config = configure\()", path.read_text('utf-8'), re.M)]


def test_help_says_what_each_program_does_and_does_nothing(tmp_path):
    assert len(PROGRAMS) > 15
    for path in PROGRAMS:
        name = path.relative_to(ROOT).as_posix()
        if name.startswith('extras/'):
            name = name[:-3].replace('/', '.')
        result = run(name, '--help', cwd=tmp_path)
        about = ast.get_docstring(ast.parse(path.read_text('utf-8'))).splitlines()[0]
        assert ok(result).startswith('usage: ') or about in result.stdout, (path, result)
        assert not result.stderr and not any(tmp_path.iterdir()), (path, result.stderr)


def test_data_that_are_missing_or_damaged(data_dir, base_run, tmp_path):
    result = train(tmp_path / 'nowhere', tmp_path / 'out')
    mistake(result, 'nowhere', 'python prepare.py --source=FILE --out_dir=')

    damaged = shutil.copytree(data_dir, tmp_path / 'damaged')
    (damaged / 'val.bin').rename(damaged / 'away')
    mistake(train(damaged, tmp_path / 'out'), 'val.bin')
    (damaged / 'away').rename(damaged / 'val.bin')
    os.truncate(damaged / 'train.bin', 1000)
    for out, *more in ((tmp_path / 'out',), (base_run, '--init_from=resume', '--max_steps=16')):
        mistake(train(damaged, out, *more), 'train.bin', ' 500 ', 'prepare.py')
    assert not (tmp_path / 'out').exists()


def test_settings_that_cannot_be(data_dir, tmp_path):
    for flag, words in [
            ('--vocab_size=300', 'vocab_size=300 512'), ('--n_embd=33', 'n_embd=33 n_head=2'),
            ('--block_size=1000000', 'block_size=1000000 train.bin'),
            ('--out_dir=', "out_dir='' 'out/base'"), ('--batch_size=0', 'batch_size=0'),
            ('--init_from=gone', 'gone'), ('--warmup_steps=13', '=13 max_steps=12 --warmup_steps=0.1'),
            ('--device=tpu', 'tpu --device=auto'), ('--device=cpu:x', 'cpu:x --device=auto'),
            ('--decay_steps=3', 'decay_steps=3 wsd'),
            ('--learning_rate=1e999', 'learning_rate=inf')]:
        mistake(train(data_dir, tmp_path / 'out', flag, cwd=tmp_path), *words.split())


def test_an_out_dir_that_cannot_be_made(data_dir, base_run, tmp_path):
    (tmp_path / 'file').write_text('', encoding='utf-8')
    for out, words in (('/proc/no/x', "'/proc/no'"), (tmp_path / 'file', f'{tmp_path}/file')):
        machine(train(data_dir, out), words)
    result = run('eval.py', f'--ckpt={base_run}', f'--data_dir={data_dir}', '--out=/proc/no/eval.json')
    machine(result, '/proc/no')
    assert 'nats' not in result.stdout          # refused before anything is measured


def test_a_full_disk_leaves_the_last_checkpoint(data_dir, base_run, tmp_path):
    out = shutil.copytree(base_run, tmp_path / 'run')
    before = contents(out)
    more = '--init_from=resume', '--max_steps=16'
    machine(train(data_dir, out, *more, before=full_disk(100_000)), 'the disk is full')
    after = contents(out)
    assert {name for name in after if not name.endswith(('.tmp', '.lock'))} == before.keys() - {'.lock'}
    assert all(after[name] == before[name] for name in after if name.endswith('.pt'))


def test_out_of_memory_says_what_to_change(data_dir, tmp_path):
    result = train(data_dir, tmp_path / 'out', before=before('hidden states', """
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")"""))
    machine(result, 'error: out of memory; try a smaller batch, in training --micro_batch_size=1')
    assert 'CUDA out of memory. Tried to allocate 3 GiB' in result.stderr


def test_run_sh_takes_three_words():
    done = subprocess.run(['bash', ROOT / 'run.sh', 'tuor'], capture_output=True, text=True)
    assert done.returncode == 2 and 'no tuor here' in done.stderr and not done.stdout


def test_sampling_from_what_is_not_there(base_run, tmp_path):
    mistake(run('sample.py', f'--ckpt={tmp_path}/nowhere'), 'nowhere')
    mistake(run('sample.py', f'--ckpt={tmp_path}'), 'best.pt', 'train.py')
    shutil.copy(base_run / 'best.pt', tmp_path)
    mistake(run('sample.py', f'--ckpt={tmp_path}'), 'tokenizer.json')


# --- a file of the wrong kind -------------------------------------------------------------------------------
LINES = ''.join(json.dumps({'prompt': f'Say {i}.', 'answer': str(i)}) + '\n' for i in range(40))
WRONG = {'cut.jsonl.gz': gzip.compress(LINES.encode())[:-40], 'none.jsonl.gz': b'he', 'number.jsonl': b'5\n',
         'half.jsonl': b'{"prompt": "a",\n', 'bytes.jsonl': b'\xff\xfe\0', 'deep.jsonl': b'[' * 100_000}


@pytest.fixture
def wrong(tmp_path):
    for name, data in WRONG.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / 'folder.jsonl').mkdir()
    return tmp_path


def test_a_file_of_records_that_is_none_is_one_sentence(wrong):
    for name in WRONG:
        words = rf'{name}, line \d+: \w+: .*; each line is a problem of own; see the top of eval.py'
        refused(words, questions.read, 'own', str(wrong / name))
    refused("folder.jsonl can't be read", questions.read, 'own', str(wrong / 'folder.jsonl'))
    (wrong / 'whole.jsonl.gz').write_bytes(gzip.compress(LINES.encode()))
    assert len(questions.read('own', str(wrong / 'whole.jsonl.gz'))) == 40


def test_the_scripts_say_it_too(wrong):
    cut = wrong / 'cut.jsonl.gz'
    result = run('eval.py', '--tasks=gsm8k', f'--data={cut}', '--completions=x')
    mistake(result, 'cut.jsonl.gz', 'see the top of eval.py')
    out = f'--out_dir={wrong}/out'
    mistake(run('prepare.py', f'--source={ROOT}/extras', out, f'--decontaminate={wrong}/half.jsonl'),
            'half.jsonl', 'must be the file of a benchmark')
    mistake(run('prepare.py', f'--source={ROOT}/extras', out, f'--decontaminate={wrong}/none.json'),
            'none.json does not exist', '--decontaminate needs')
    mistake(run('prepare.py', f'--source={ROOT}/extras', out, f'--perplexity_reference={wrong}/bytes.jsonl'),
            'reference', 'no text')
