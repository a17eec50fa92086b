"""Out of memory in earnest: the system refuses it, and the user sees one sentence and keeps the weights."""
import sys

import pytest
from conftest import metrics, mistake, ok, run

from model import load_checkpoint

# what happens in the n-th forward pass of training; the rehearsal of train.py makes two of them
PATCH = '''
import model
calls, forward = [], model.GPT.backbone
def spoiled(self, *a, **k):
    calls.append(self.training)
    n = sum(calls)
    if self.training and ({when}):
        {what}
    return forward(self, *a, **k)
model.GPT.backbone = spoiled
'''
pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc, and needs a limit on addresses')
# from now on, no more memory than the process has; what glibc has kept is taken, but for pieces of less than
# 16 MB. The scores need 34 MB
NO_MORE = """import resource, sys; pages = int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + 2 ** 22, -1)); sys.taken = []
        try:
            while True: sys.taken.append(bytearray(2 ** 24))
        except MemoryError: pass"""
FLAGS = ['--n_layer=1', '--n_head=1', '--n_embd=16', '--block_size=256', '--batch_size=64', '--max_steps=6',
         '--warmup_steps=1', '--eval_interval=50', '--save_interval=50', '--log_interval=1',
         '--eval_tokens=2048', '--sample_tokens=2', '--device=cpu', '--dtype=float32']


def train(data_dir, out, *more, when=None):
    before = PATCH.format(when=when, what=NO_MORE) if when else ''
    return run('train.py', f'--data_dir={data_dir}', f'--out_dir={out}', *FLAGS, *more, before=before)


def test_a_run_that_gets_no_more_memory_keeps_what_was_saved_and_resumes(data_dir, tmp_path):
    result = train(data_dir, tmp_path / 'run', '--save_interval=2', when='n == 5')      # the fourth step
    mistake(result, 'out of memory; try a smaller')
    assert load_checkpoint(tmp_path / 'run/last.pt')[1]['step'] == 2
    smaller = ['--micro_batch_size=8', '--init_from=resume']
    ok(train(data_dir, tmp_path / 'run', *smaller, when='n == 99'))
    assert [m['step'] for m in metrics(tmp_path / 'run') if 'loss' in m] == [1, 2, 3, 4, 5, 6]


def test_a_batch_that_never_fits_is_said_before_anything_is_written(data_dir, tmp_path):
    mistake(train(data_dir, tmp_path / 'run', when='n == 1'), 'out of memory; try a smaller')
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('script', ['sample.py', 'eval.py'])
def test_a_batch_that_does_not_fit_is_one_sentence_in_generation_and_evaluation(data_dir, tmp_path, script):
    ok(train(data_dir, tmp_path / 'run', '--max_steps=1'))
    flags = {'sample.py': ['--num_samples=10000', '--prompt=def', '--max_new_tokens=2'],
             'eval.py': ['--batch_size=4000', f'--data_dir={data_dir}']}[script]
    before = NO_MORE.replace('pages * 4096', 'pages * 4096 + 2 ** 23').replace('\n        ', '\n')
    mistake(run(script, f'--ckpt={tmp_path}/run', '--device=cpu', *flags, before=before),
            'out of memory; try a smaller batch')
