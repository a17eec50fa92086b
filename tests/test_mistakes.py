"""What a user gets wrong ends in one line that says what is wrong and what to do, and destroys nothing."""
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, TINY, mistake, ok, run

from model import load_checkpoint
from tokenizer import Tokenizer


def train(data_dir, out, *more):
    return run('train.py', f'--data_dir={data_dir}', f'--out_dir={out}', *TINY, '--max_steps=4', *more)


@pytest.fixture(scope='module')
def trained(data_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp('trained') / 'run'
    ok(train(data_dir, out))
    return out


@pytest.fixture
def damaged(data_dir, tmp_path):
    return shutil.copytree(data_dir, tmp_path / 'damaged')


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_data_that_are_not_there(tmp_path):
    result = train(tmp_path / 'nowhere', tmp_path / 'out')
    mistake(result, 'nowhere', 'python prepare.py --source=', '--out_dir=')
    assert not (tmp_path / 'out').exists()


def test_meta_without_its_bins(damaged, tmp_path):
    (damaged / 'val.bin').unlink()
    mistake(train(damaged, tmp_path / 'out'), 'val.bin')


def test_a_bin_that_is_cut_off(damaged, tmp_path):
    os.truncate(damaged / 'train.bin', 1000)
    mistake(train(damaged, tmp_path / 'out'), 'train.bin', '1,000', 'prepare.py')


@pytest.mark.parametrize('text', ['{"dtype": "uint16", "tok', '{}', '[]', '{"dtype": "float99"}'])
def test_meta_that_is_damaged(damaged, text):
    (damaged / 'meta.json').write_text(text, encoding='utf-8')
    mistake(train(damaged, damaged / 'out'), 'meta.json')


def test_a_tokenizer_that_is_not_the_data_s(damaged, tmp_path):
    Tokenizer.train(['another text ' * 9], 400).save(damaged / 'tokenizer.json')
    mistake(train(damaged, tmp_path / 'out'), 'tokenizer.json', 'hash')


@pytest.mark.parametrize('flag, words', [
    ('--vocab_size=300', ['vocab_size=300', '512']), ('--n_embd=33', ['n_embd=33', 'n_head=2', '32']),
    ('--n_kv_head=3', ['n_kv_head=3']), ('--block_size=1000000', ['block_size=1000000', '--block_size']),
    ('--dtype=float8', ['float8', 'bfloat16']), ('--device=tpu', ['tpu', '--device=auto']),
    ('--micro_batch_size=3', ['=3', ' 8 ', '--micro_batch_size=2']), ('--dropout=1', ['dropout']),
    ('--warmup_steps=5', ['max_steps=4']), ('--min_lr=1', ['min_lr']),
    ('--init_from=nowhere', ['nowhere']), ('--show_batch=-1', ['show_batch=-1']),
    ('--batch_size=99999999999', ['=99999999999', '[1, 2**20]']), ('--out_dir=', ['out_dir is empty']),
    ('--show_batch=99999999999999999999', ['[0, 2**40)']), ('--learning_rate=inf', ['=inf', 'finite'])])
def test_settings_that_cannot_be(data_dir, tmp_path, flag, words):
    mistake(train(data_dir, tmp_path / 'out', flag), *words)


def test_the_largest_seed_works_and_a_larger_one_is_one_line(data_dir, tmp_path):
    ok(train(data_dir, tmp_path, f'--seed={2 ** 32 - 1}', '--max_steps=5'))
    mistake(train(data_dir, tmp_path / 'out', f'--seed={2 ** 32}'), 'seed=4294967296')


def test_scratch_over_a_run_touches_nothing(data_dir, trained):
    before = contents(trained)
    mistake(train(data_dir, trained, '--seed=1'), '--init_from=resume', '--overwrite=True')
    assert contents(trained) == before


def test_resume_with_another_shape_touches_nothing(data_dir, trained):
    before = contents(trained)
    mistake(train(data_dir, trained, '--init_from=resume', '--n_layer=3'), 'n_layer=2', '3')
    assert contents(trained) == before


def test_resume_without_a_run(data_dir, tmp_path):
    mistake(train(data_dir, tmp_path / 'out', '--init_from=resume'), 'last.pt')


def test_resume_of_a_checkpoint_that_is_cut_off(data_dir, trained, tmp_path):
    shutil.copytree(trained, tmp_path / 'run')
    os.truncate(tmp_path / 'run/last.pt', 1000)
    mistake(train(data_dir, tmp_path / 'run', '--init_from=resume'), 'last.pt')


def test_an_out_dir_that_cannot_be_made(data_dir, tmp_path):
    (tmp_path / 'file').write_text('', encoding='utf-8')
    mistake(train(data_dir, tmp_path / 'file/out'), 'file')
    mistake(run('prepare.py', f'--source={ROOT}/model.py', f'--out_dir={tmp_path}/file/out'), 'file')


def limited(kilobytes, script, *arguments):
    """Run with a limit on the size of files: what a full disk does, as far as a program can see."""
    limit = ['bash', '-c', f'ulimit -f {kilobytes}; exec "$@"', 'bash']
    return subprocess.run([*limit, sys.executable, ROOT / script, *arguments], capture_output=True, text=True)


def test_a_full_disk_leaves_the_last_checkpoint(data_dir, trained, tmp_path):
    out = shutil.copytree(trained, tmp_path / 'run')
    before = contents(out)
    result = limited(100, 'train.py', f'--data_dir={data_dir}', f'--out_dir={out}', *TINY,
                     '--init_from=resume', '--max_steps=8')
    mistake(result, '.pt', 'unchanged')
    assert (out / 'last.pt').read_bytes() == before['last.pt'] and not list(out.glob('*.tmp'))
    assert load_checkpoint(out / 'last.pt')[1]['step'] == 4
    ok(train(data_dir, out, '--init_from=resume', '--max_steps=8'))                     # there is room again


def test_a_full_disk_leaves_no_half_prepared_data(python_files, tmp_path):
    mistake(limited(64, 'prepare.py', f'--source={python_files}', f'--out_dir={tmp_path}'))
    assert {p.name for p in tmp_path.iterdir()} <= {'.work'}        # what is done, for the next try


def test_a_loss_that_is_not_finite_stops_the_run_with_finite_weights(data_dir, tmp_path):
    result = train(data_dir, tmp_path, '--learning_rate=1e30', '--grad_clip=0', '--save_interval=1')
    mistake(result, 'not finite', '--learning_rate', 'last.pt')
    assert all(w.isfinite().all() for w in load_checkpoint(tmp_path / 'last.pt')[0].parameters())


def test_sampling_from_what_is_not_there(trained, tmp_path):
    mistake(run('sample.py', f'--ckpt={tmp_path}/nowhere'), 'nowhere')
    mistake(run('sample.py', f'--ckpt={tmp_path}'), 'best.pt', 'train.py')
    shutil.copy(trained / 'best.pt', tmp_path)
    mistake(run('sample.py', f'--ckpt={tmp_path}'), 'tokenizer.json')


def test_a_prompt_file_that_is_no_text(trained, tmp_path):
    (tmp_path / 'photo.txt').write_bytes(b'\xff\xd8\xff')
    mistake(run('sample.py', f'--ckpt={trained}', f'--prompt_file={tmp_path}/photo.txt'), 'photo.txt')


def test_evaluating_on_the_data_of_another_tokenizer(trained, python_files, tmp_path):
    ok(run('prepare.py', f'--source={python_files}', f'--out_dir={tmp_path}', '--tokenizer=byte'))
    result = run('eval.py', f'--ckpt={trained}', f'--data_dir={tmp_path}')
    mistake(result, f'--tokenizer={trained}/tokenizer.json')
    assert not result.stdout    # the settings are printed when all is known to be valid
    assert not (trained / 'eval.json').exists()
