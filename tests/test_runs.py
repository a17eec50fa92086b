"""A run's folder: where a new run may begin, what it removes, and what it never writes to."""
import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from accidents import before
from conftest import ROOT, RUN_FILES, TINY, contents, metrics, mistake, ok, read_json, run, same, series
from conftest import state, train, write, write_bins

from tokenizer import SPECIAL_TOKENS, Tokenizer

SHORT = ['--max_steps=2', '--warmup_steps=1', '--dtype=float32']
OURS = RUN_FILES | {'last.pt.tmp', 'best.pt.tmp', 'config.json.tmp', 'samples.jsonl', 'eval.json'}
OF_OTHERS = {'best.pt.backup', 'last-good.pt', 'eval_notes.json', 'notes.txt', 'mine.pt', 'last.pt.old',
             'samples.md', 'config.json.bak', 'model.safetensors'}


@pytest.fixture(scope='module')
def made(numbers, tmp_path_factory):
    """A run of four steps, which no test changes."""
    out = tmp_path_factory.mktemp('made') / 'run'
    ok(train(numbers, out, '--max_steps=4', '--dtype=float32'))
    return out


# --- a folder for a new run ---------------------------------------------------------------------------------
@pytest.mark.parametrize('files', [RUN_FILES, ['config.json'], ['best.pt'], ['last.pt'], ['last-1.pt']])
def test_no_run_is_written_over_another(made, numbers, tmp_path, files):
    """Also where a run has left one file only. The sentence names what to type."""
    for name in files:
        shutil.copy(made / name, tmp_path)
    before = contents(tmp_path)
    for more in [], [f'--init_from={made}']:
        mistake(train(numbers, tmp_path, *SHORT, *more), str(tmp_path), '--init_from=resume',
                '--overwrite=True')
    assert contents(tmp_path) == before


def test_overwrite_removes_what_a_run_writes_and_no_file_of_others(numbers, tmp_path):
    for name in OURS | OF_OTHERS:
        (tmp_path / name).write_bytes(b'old')
    (tmp_path / 'folder').mkdir()
    ok(train(numbers, tmp_path, '--overwrite=True', '--max_steps=4'))
    left = {name for name in os.listdir(tmp_path) if (tmp_path / name).is_file()
            and b'old' in (tmp_path / name).read_bytes()[:3]}
    assert left == OF_OTHERS and (tmp_path / 'folder').is_dir()
    assert {*os.listdir(tmp_path)} <= OF_OTHERS | RUN_FILES | {'folder', '.lock'}


def test_a_mistake_costs_no_run_even_with_overwrite(made, numbers, tmp_path):
    """Nothing is removed before all that can be wrong was looked at."""
    out = shutil.copytree(made, tmp_path / 'run')
    before = contents(out)
    for flag in '--warmup_steps=99', '--n_head=5', '--data_dir=nowhere', '--objective=span', '--seed=-1':
        short = ['--block_size=3'] if 'span' in flag else []
        mistake(train(numbers, out, '--overwrite=True', flag, *short))
    assert contents(out) == before


def test_a_folder_with_files_of_others_is_free(numbers, tmp_path):
    out = tmp_path / 'a[1] b'
    out.mkdir()
    theirs = {name for name in OF_OTHERS if not name.endswith('.pt')}
    for name in theirs:
        (out / name).write_bytes(b'old')
    ok(train(numbers, out, *SHORT))
    assert all((out / name).read_bytes() == b'old' for name in theirs)


def test_overwrite_never_removes_the_model_that_a_run_starts_from(made, numbers, tmp_path):
    out = shutil.copytree(made, tmp_path / 'run')
    (tmp_path / 'link').symlink_to(out)
    (out / 'best').mkdir()
    shutil.copy(out / 'best.pt', out / 'best/best.pt')
    before = contents_of_files(out)
    for start in out, out / 'best.pt', out / 'best', tmp_path / 'link', '.':
        result = train(numbers, out, *SHORT, '--overwrite=True', f'--init_from={start}', cwd=out)
        mistake(result, str(out))
    assert contents_of_files(out) == before


def contents_of_files(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file() and path.name != '.lock'}


def test_overwrite_knows_a_folder_whose_name_begins_alike(made, numbers, tmp_path):
    out = shutil.copytree(made, tmp_path / 'run')
    start = shutil.copytree(made, tmp_path / 'run_2')
    ok(train(numbers, out, *SHORT, '--overwrite=True', f'--init_from={start}'))


@pytest.mark.xfail(strict=True, reason="'scratch' is looked up as a file in out_dir")
def test_overwrite_in_the_folder_where_one_is(made, numbers, tmp_path):
    """scratch is no file in it."""
    out = shutil.copytree(made, tmp_path / 'run')
    ok(train(numbers, '.', *SHORT, '--overwrite=True', cwd=out))
    assert state(out)['step'] == 2


@pytest.mark.parametrize('place, calls', [('sample', 0), ('save', 0), ('rename', 0), ('rename', 1)])
def test_where_a_run_was_killed_as_it_began_the_same_command_goes_on(made, numbers, tmp_path, place, calls):
    kill = before(place, f'if n == {calls}: os.kill(os.getpid(), 9)')
    command = numbers, tmp_path / 'run', '--max_steps=4', '--dtype=float32', '--init_from=auto'
    assert train(*command, before=kill).returncode == -9
    ok(train(*command))
    assert metrics(tmp_path / 'run') == metrics(made) and same(state(tmp_path / 'run'), state(made))


# --- links --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('name', sorted((OURS | {'tokenizer.json.tmp', '.lock'}) - {'last.pt'}))
def test_a_link_in_a_folder_leads_no_write_anywhere(made, numbers, tmp_path, name):
    """A folder of strangers may have links. Neither a resumed run nor a new one writes where they lead."""
    victim = tmp_path / 'victim'
    for how in ['--init_from=resume', '--max_steps=8'], ['--overwrite=True', '--max_steps=2']:
        resumes = how[0] == '--init_from=resume'
        out = shutil.copytree(made, tmp_path / how[0].strip('-'))
        victim.write_bytes((out / name).read_bytes() if name == 'config.json' else b'precious')
        before = victim.read_bytes()
        (out / name).unlink(missing_ok=True)
        (out / name).symlink_to('../victim')
        result = train(numbers, out, '--dtype=float32', '--warmup_steps=1', *how)
        if resumes and not name.endswith('.pt'):
            mistake(result, f'{name} is a link')
        else:
            ok(result)
            assert name not in RUN_FILES or not (out / name).is_symlink()
        assert victim.read_bytes() == before, how


# --- one run at a time --------------------------------------------------------------------------------------
def test_of_two_runs_in_a_folder_the_second_is_told_and_the_first_goes_on(made, numbers, tmp_path):
    out = tmp_path / 'run'
    flags = [f'--data_dir={numbers}', f'--out_dir={out}', *TINY, '--dtype=float32', '--max_steps=100000',
             '--eval_interval=100000', '--save_interval=100000']
    first = subprocess.Popen([sys.executable, ROOT / 'train.py', *flags], stdout=subprocess.PIPE, text=True)
    try:
        until = time.time() + 100
        while not (out / 'last.pt').exists() and time.time() < until:
            time.sleep(0.1)
        for more in ['--init_from=resume'], ['--init_from=auto'], ['--overwrite=True']:
            mistake(run('train.py', *flags, *more, timeout=60), 'another run', str(out))
        assert first.poll() is None
        first.terminate()
        printed = first.communicate(timeout=60)[0]
    finally:
        first.kill()
    assert first.returncode == 0 and 'stopped at step' in printed
    losses = series(out, 'loss')
    assert losses[:1] == series(made, 'loss')[:1] and len(losses) == state(out)['step']
    ok(run('train.py', f'--out_dir={out}', '--init_from=resume', f'--max_steps={len(losses) + 1}'))


def test_the_plan_reads_a_folder_and_leaves_it(made):
    before = contents(made)
    assert '8 x H100' in ok(run('train.py', *TINY, f'--out_dir={made}', '--plan=8xH100'))
    assert contents(made) == before


# --- what a run begins with ---------------------------------------------------------------------------------
def test_a_context_above_the_model_s_is_one_sentence(made, numbers, tmp_path):
    mistake(train(numbers, tmp_path / 'x', f'--init_from={made}', '--block_size=64'), 'block_size=64', '32',
            'extras.longer_context')
    assert not (tmp_path / 'x').exists()


def test_another_tokenizer_of_the_same_size_is_refused(made, numbers, tmp_path):
    """The ids are the same, the text is not: no loss would tell."""
    data = shutil.copytree(numbers, tmp_path / 'data')
    tokenizer = read_json(data / 'tokenizer.json')
    vocab = tokenizer['vocab']
    vocab[97], vocab[98] = vocab[98], vocab[97]
    (data / 'tokenizer.json').write_text(json.dumps(tokenizer), encoding='utf-8')
    mistake(train(data, tmp_path / 'x'), str(data), 'tokenizer.json', 'prepare.py')
    meta = {**read_json(data / 'meta.json'), 'tokenizer_hash': Tokenizer.load(data / 'tokenizer.json').hash}
    write(data / 'meta.json', [meta])
    for start in made, made / 'best.pt':
        mistake(train(data, tmp_path / 'x', f'--init_from={start}'), str(start), str(data), 'tokenizer',
                'extras.new_vocabulary')
    assert not (tmp_path / 'x').exists()


def test_a_folder_of_data_that_cannot_serve_is_one_sentence(numbers, tmp_path):
    begin = lambda *flags: train(tmp_path / 'data', tmp_path / 'x', *flags)
    mistake(begin(), f'{tmp_path}/data', 'python prepare.py')
    ids = np.fromfile(numbers / 'train.bin', np.uint16)
    tokenizer = Tokenizer.byte(SPECIAL_TOKENS)
    V = tokenizer.vocab_size
    for side in 'train', 'val':                                 # ids above the vocabulary index past the end
        write_bins(tmp_path / 'data', ids, tokenizer)
        for at in 0, 3000, -1:
            wrong = ids.copy()
            wrong[at] = V
            wrong.tofile(tmp_path / f'data/{side}.bin')
            mistake(begin(), f'{side}.bin', str(V))
    write_bins(tmp_path / 'data', ids, tokenizer)
    ids[:32].tofile(tmp_path / 'data/val.bin')                  # no target for the last token of a sequence
    mistake(begin(), 'val.bin', '32')
    (tmp_path / 'data/train.bin').unlink()
    shutil.copy(numbers / 'val.bin', tmp_path / 'data')
    mistake(begin(), 'train.bin', '--streaming')
    assert not (tmp_path / 'x').exists()


def test_conversations_are_no_text(tmp_path):
    write(tmp_path / 'data/meta.json', [{'config': {'kind': 'sft'}}])
    mistake(train(tmp_path / 'data', tmp_path / 'x'), f'{tmp_path}/data', 'prepare.py')


@pytest.mark.parametrize('n_bytes', [4000, 4001])
def test_a_bin_that_was_cut_off_is_one_sentence(numbers, tmp_path, n_bytes):
    """A copy that broke off: meta.json says how many tokens a bin has."""
    data = shutil.copytree(numbers, tmp_path / 'data')
    os.truncate(data / 'train.bin', n_bytes)
    mistake(train(data, tmp_path / 'x'), 'train.bin')
