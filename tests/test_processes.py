"""Several processes do what one does, however they share it; what they cannot do is one sentence."""
import functools
import itertools
import re
import runpy
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from accidents import accident, before, full_disk, replaced
from conftest import ROOT, assert_same_sums, metrics, mistake, ok, read_json, read_rows, run, same
from conftest import series, state, torchrun
from feedback import attempt, expect, told

# Norms are about 0.8, so clipping acts: done before the processes' gradients are added, the runs would part.
# Odd sizes, so that FSDP cannot halve each matrix. An evaluation has 5 blocks, so of two processes one runs
# out.
FLAGS = ('--n_layer=2 --n_head=2 --n_kv_head=1 --n_embd=12 --n_ffn=25 --block_size=32 --batch_size=8 '
         '--micro_batch_size=2 --max_steps=8 --warmup_steps=2 --learning_rate=1e-2 --grad_clip=0.3 '
         '--eval_interval=4 --save_interval=4 --log_interval=1 --eval_tokens=160 --sample_tokens=8 '
         '--device=cpu --dtype=float32').split()
CASES = {'adamw': '--optimizer=adamw', 'muon': '--optimizer=muon', 'mlm': '--objective=mlm',
         'span': '--objective=span', 'document_mask': '--document_mask=True'}
# {case: the losses of its 8 steps}. Another machine's kernels add in another order, which moves a loss of 5
# by a few roundings of 5e-7. More than 2e-6 is a change of what is computed: if it is meant, copy the row
# that the test prints.
GOLDEN = read_json(ROOT / 'tests/golden.json')
MUON_IN_FLOAT32 = replaced('native bfloat16', 'return False')
# train.py asks for no logits, which would be kept for the backward pass.
WATCHED = MUON_IN_FLOAT32 + before('build a model', 'print("a model is built")')
WATCHED += before('shard', 'print("it is sharded")')
WATCHED += before('seed', 'print("a seed:", arguments[0])') + replaced('forward', """
    found = real(*arguments, **more)
    assert found[0] is None
    return found""")


ONE_OF_TORCHRUN = {'TORCHELASTIC_RUN_ID': 'one', 'RANK': '0', 'WORLD_SIZE': '1', 'MASTER_ADDR': '127.0.0.1',
                   'MASTER_PORT': '0'}


@pytest.fixture(scope='module')
def train(numbers):
    def train(out, *more, before='', **how):
        flags = [f'--data_dir={numbers}', f'--out_dir={out}', *FLAGS, *more]
        return run('train.py', *flags, before=WATCHED + before, **how)
    return train


@pytest.fixture(scope='module')
def made(train, tmp_path_factory):
    """made(case, processes, shard) is the folder of such a run."""
    @functools.cache
    def made(case, n=1, shard='ddp'):
        out = tmp_path_factory.mktemp('made') / 'run'
        env = ONE_OF_TORCHRUN if n == 1 and shard != 'ddp' else {}
        printed = ok(train(out, CASES[case], f'--shard={shard}', processes=n, env=env))
        assert printed.count('it is sharded') == n * (shard != 'ddp')
        assert printed.count('a model is built') == n       # none for an evaluation or a save
        assert printed.count('step      1/') == 1           # only the first process speaks
        # Each step of each process has a dropout of its own; model and samples have another seed.
        assert len({*re.findall(r'a seed: (\d+)', printed)}) == 8 * n + 1
        return out
    return made


@pytest.mark.parametrize('case', CASES)
def test_a_run_has_the_losses_of_the_golden_one(made, case):
    asked = f'the losses of 8 steps, {CASES[case]}, one process, 4 micro-batches of 2 sequences'
    losses = attempt(asked, GOLDEN[case], lambda: series(made(case), 'loss'))
    rounded = [round(loss, 5) for loss in losses], [round(loss, 5) for loss in GOLDEN[case]]
    assert losses == pytest.approx(GOLDEN[case], abs=2e-6), f'{told(asked, *rounded)}\n  now: {losses}'
    assert max(series(made(case), 'grad_norm')) > 0.3


@pytest.mark.parametrize('case, shard, n', [
    *itertools.product(('adamw', 'muon'), ('ddp', 'zero2', 'fsdp'), (2,)), ('mlm', 'ddp', 2),
    ('span', 'fsdp', 2), ('document_mask', 'ddp', 2), ('adamw', 'fsdp', 1), ('adamw', 'ddp', 4)])
def test_one_process_accumulating_4_equals_two_accumulating_2(made, case, shard, n):
    """Also if one process of torchrun tries out FSDP."""
    one = made(case)
    asked = f'8 steps in {n} processes with {4 // n} micro-batches each (expected: as in one with 4)'
    two = attempt(asked, 'it ends', made, case, n, shard)
    for key in ('loss', 'grad_norm'):
        expect(f'{key} of {asked}', pytest.approx(series(one, key), abs=1e-6), series, two, key)
    assert_same_sums(one, two)
    samples = [out / 'samples.txt' for out in (one, two) if case in ('adamw', 'muon')]
    assert len({path.read_text(encoding='utf-8') for path in samples}) < 2


def test_other_micro_batches_and_processes_change_a_loss_by_rounding(made, train, tmp_path):
    """Measured: 5e-7 and, in bfloat16, 2e-7 in the first step and 8e-4 in one of 40. There the products have
    other shapes, so other kernels; and each difference moves the weights of the next step."""
    def losses(name, n, *flags):
        ok(train(tmp_path / name, *flags, processes=n))
        return np.array(series(tmp_path / name, 'loss'))
    one = np.array(series(made('adamw'), 'loss'))
    assert abs(losses('two', 2, '--micro_batch_size=1') - one).max() < 2e-6
    one, two = (losses(f'bfloat16_{n}', n, '--dtype=bfloat16', f'--micro_batch_size={micro}')
                for n, micro in ((1, 8), (2, 1)))
    assert 2e-6 <= abs(one - two).max() < 5e-3


@pytest.mark.parametrize('shard', ['ddp', 'zero2', 'fsdp'])
def test_two_processes_that_were_killed_are_the_straight_ones_bit_for_bit(made, train, tmp_path, shard):
    straight, out, flags = made('muon', 2, shard), tmp_path / 'run', ['--optimizer=muon', f'--shard={shard}']
    assert train(out, *flags, processes=2, before=accident('kill', 5)).returncode == -9
    ok(train(out, *flags, '--init_from=resume', processes=2))
    assert metrics(out) == metrics(straight) and same(state(out), state(straight))


def test_a_run_killed_thrice_goes_on_in_other_processes_that_share_its_state(made, train, tmp_path):
    """Each way to share loads the moments that another one saved, and is killed after it saved its own."""
    parts = (1, 'ddp', 3), (2, 'fsdp', 5), (2, 'zero2', 7), (1, 'ddp', 9)
    for i, (n, shard, kill) in enumerate(parts):
        done = (0, 2, 4, 6)[i]                  # the step that it goes on from
        flags = ['--save_interval=2', f'--shard={shard}', f'--grad_checkpoint={shard == "fsdp"}']
        flags += ['--init_from=resume'] * (i > 0)
        result = train(tmp_path / 'run', *flags, processes=n, before=accident('kill', kill - done))
        assert result.returncode == (-9 if kill < 8 else 0), result.stderr
    assert_same_sums(made('adamw'), tmp_path / 'run')


# --- the batch ----------------------------------------------------------------------------------------------
def test_the_batch_of_a_preset_is_shared_by_2_4_and_8_devices():
    """That of a laptop is not; it is refused in one sentence."""
    presets = {path.stem: runpy.run_path(str(path)) for path in (ROOT / 'config').glob('*.py')
               if 'train.py config/' in path.read_text(encoding='utf-8')}
    odd = [name for name, preset in presets.items() if preset.get('batch_size', 32) % 8]
    assert len(presets) > 5 and odd == ['shakespeare_cpu']


def test_a_micro_batch_is_at_most_what_was_asked_and_the_next_divisor(train, tmp_path):
    for n, batch, micro, made_of_it in ((1, 8, 3, '4 x 2'), (1, 7, 3, '7 x 1'), (2, 8, 0, '1 x 4'),
                                        (2, 12, 5, '2 x 3'), (1, 1, 100, '1 x 1')):
        flags = f'--batch_size={batch}', f'--micro_batch_size={micro}', '--max_steps=1', '--warmup_steps=0'
        printed = ok(train(tmp_path, '--overwrite=True', *flags, processes=n))
        assert f'micro-batches: {made_of_it}\n' in printed


# --- together, or not at all --------------------------------------------------------------------------------
def test_processes_stop_together_when_one_of_them_is_asked_to(train, tmp_path):
    """The signal comes to the second process alone, in its fifth update."""
    one = before('clip', "if n == 4 and os.environ['RANK'] == '1': os.kill(os.getpid(), signal.SIGTERM)")
    printed = ok(train(tmp_path, processes=2, before=one, timeout=60))                  # else one waits
    assert 'stopped at step 5' in printed and state(tmp_path)['step'] == 5


def test_what_cannot_be_shared_is_refused(train, tmp_path):
    for n, flags, words in (
            (2, ['--batch_size=7', '--micro_batch_size=0'], ['batch_size=7', '2 processes']),
            (2, ['--shard=fsdp', '--dtype=float16'], ['shard=fsdp', 'bfloat16']),
            (1, ['--shard=fsdp'], ['shard=fsdp', 'torchrun']),
            (1, ['--device=mps'], ['mps', '--device=auto'])):
        result = train(tmp_path / 'run', *flags, processes=n)
        assert all(word in result.stderr for word in words) and result.returncode == 2
        assert 'Traceback' not in result.stderr
    assert not (tmp_path / 'run').exists()


def test_variables_that_no_torchrun_set_are_one_sentence_or_change_nothing(train, tmp_path):
    """Some clusters set them for programs of their own. A run must not train for days and save nothing."""
    for i, env in enumerate(({'RANK': '3', 'LOCAL_RANK': '0'}, {'WORLD_SIZE': '2'})):
        ok(train(tmp_path / str(i), '--max_steps=2', env=env, timeout=60))
        assert state(tmp_path / str(i))['step'] == 2
    mistake(train(tmp_path / 'run', env={**ONE_OF_TORCHRUN, 'RANK': '3'}, timeout=60), 'rank=3', 'torchrun')


@pytest.mark.parametrize('shard, place, deed, code, words', [
    ('ddp', 'clip', "raise KeyError('planted')", 1, "KeyError: 'planted'"),
    ('fsdp', 'clip', "raise KeyError('planted')", 1, "KeyError: 'planted'"),
    # a shard of a stream without a document, for instance: only its process reads it
    ('ddp', 'clip', "import configurator; raise configurator.Mistake('planted')", 2, 'error: planted'),
    ('ddp', 'clip', 'os.kill(os.getpid(), signal.SIGKILL)', -9, ''),
    ('ddp', 'save', full_disk(2000), 2, 'error: the disk is full')], ids=str)
def test_an_error_in_one_process_ends_all_and_is_the_one_that_is_shown(train, tmp_path, shard, place, deed,
                                                                       code, words):
    """Nobody kills the other process, which must end by itself within a minute. What was saved before
    serves. The second process meets the error; only the first one saves, step 4 after step 0."""
    who = "n == 3 and os.environ['RANK'] == '1'" if place == 'clip' else 'n == 2'
    began = time.time()
    result = train(tmp_path, f'--shard={shard}', processes=2, before=before(place, f'if {who}: {deed}'),
                   grace=100, timeout=200)
    assert time.time() - began < 60 and words in result.stderr
    assert result.returncode == code and state(tmp_path)['step'] == 0
    if place == 'save':
        ok(run('train.py', f'--out_dir={tmp_path}', '--init_from=resume'))


def test_processes_that_differ_refuse(made, numbers, tmp_path):
    """In settings, data, weights or step. Each process has a disk of its own."""
    for rank in range(2):
        shutil.copytree(made('adamw'), tmp_path / f'disk{rank}/out')
        shutil.copytree(numbers, tmp_path / f'disk{rank}/data')

    def differ(*flags, more=''):
        apart = "os.chdir('disk' + os.environ['RANK'])\n" + more
        result = run('train.py', '--data_dir=data', *FLAGS, '--max_steps=10', *flags, processes=2,
                     before=apart, cwd=tmp_path)
        mistake(result, 'differ')
        assert not (tmp_path / 'disk0/new').exists() and not (tmp_path / 'disk1/new').exists()
    differ('--out_dir=new', more='sys.argv.append("--learning_rate=1e-" + os.environ["RANK"])')
    shutil.copy(made('adamw') / 'last-1.pt', tmp_path / 'disk1/out/best.pt')
    differ('--out_dir=new', '--init_from=out')
    shutil.copy(made('adamw') / 'last-1.pt', tmp_path / 'disk0/out/last.pt')
    differ('--out_dir=out', '--init_from=resume')
    with open(tmp_path / 'disk1/data/train.bin', 'r+b') as f:
        f.write(b'x\0')                         # another text, of the same length
    differ('--out_dir=new')


# --- torchrun itself ----------------------------------------------------------------------------------------
def test_torchrun_starts_a_run_again_that_lost_a_process(train, made, numbers, tmp_path):
    """Once, from the last checkpoint, with the same command: init_from=auto. torchrun needs this variable:
    its processes would find the addresses of those that ended."""
    deed = before('clip', """
        if n == 5 and os.environ['RANK'] == '1' and os.environ['TORCHELASTIC_RESTART_COUNT'] == '0':
            os.kill(os.getpid(), signal.SIGKILL)""")
    result = torchrun(2, 'train.py', f'--data_dir={numbers}', *FLAGS, f'--out_dir={tmp_path}/run',
                      '--init_from=auto', agent=['--max_restarts=1'], before=deed, timeout=400,
                      env={'TORCH_DISABLE_SHARE_RDZV_TCP_STORE': '1'})
    ok(result)
    rows = [row['step'] for row in read_rows(tmp_path / 'run/metrics.jsonl') if 'loss' in row]
    assert rows == [1, 2, 3, 4, 5, 5, 6, 7, 8]              # it goes on from step 4
    assert_same_sums(made('adamw'), tmp_path / 'run')


def test_the_command_of_the_page_trains_on_two_machines(numbers, made, tmp_path):
    """Two agents of torchrun."""
    with socket.create_server(('127.0.0.1', 0)) as s:
        port = s.getsockname()[1]
    page = (ROOT / 'docs/training.md').read_text(encoding='utf-8')
    flags = re.search(r'torchrun (--nnodes=2 .*) train\.py', page)[1]
    flags = re.sub(r'nproc_per_node=\d+', 'nproc_per_node=1', flags)
    flags = re.sub(r'endpoint=\S+', f'endpoint=127.0.0.1:{port}', flags)
    command = [sys.executable, '-m', 'torch.distributed.run', *flags.split(), ROOT / 'train.py',
               f'--data_dir={numbers}', f'--out_dir={tmp_path}/two', *FLAGS]
    agents = [subprocess.Popen(command) for _ in range(2)]
    try:
        assert [agent.wait(timeout=300) for agent in agents] == [0, 0]
    finally:
        for agent in agents:
            agent.kill()
    assert_same_sums(made('adamw'), tmp_path / 'two')


# Of two steps, an evaluation and a generation: the matrix products of each compiled graph; and of the bytes
# that autograd keeps for the backward pass, those of weights in bfloat16
GRAPHS = replaced('compile', """
    def backend(graph, inputs):
        nodes = [node for part in graph.modules() for node in getattr(part, 'graph', graph.graph).nodes]
        print('products:', sum('linear' in str(node.target) for node in nodes), flush=True)
        return graph.forward
    torch.counting = getattr(torch, 'counting', backend)      # one for all, as there is one Inductor
    return real(*arguments, backend=torch.counting, **more)""")
KEPT = """
import torch
torch.kept = {}
def pack(t):
    storage = t.untyped_storage()
    if t.dtype == torch.bfloat16 and {*t.shape} <= {192, 512}:
        torch.kept[storage._cdata] = storage            # alive, so that no other one has this address
    return t
torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t).__enter__()
""" + before('backward', """
    print('kept:', sum(storage.nbytes() for storage in torch.kept.values()), flush=True)
    torch.kept.clear()""") + before('clip', """
    arguments = [*arguments[0]], *arguments[1:]
    part = lambda t: t.to_local() if hasattr(t, 'to_local') else t
    print('gradients:', sum(part(p.grad).nbytes for p in arguments[0]), flush=True)""")
BLOCKS = 2 * (4 * 192 * 192 + 3 * 192 * 512)            # weights of the matrices in two blocks
ALL = BLOCKS + 2048 * 192 + 5 * 192                     # those of embedding and norms, too


@pytest.mark.parametrize('shard, checkpoint, copies', [
    ('ddp', False, BLOCKS), ('zero2', False, BLOCKS), ('fsdp', True, 0)])
def test_two_processes_compile_whole_blocks_once_and_keep_no_more_than_they_must(
        numbers, tmp_path, shard, checkpoint, copies):
    """One graph serves all blocks, and another one evaluations. Samples are not compiled. Kept are, of
    each of two micro-batches, the weights in bfloat16."""
    flags = '--n_embd=192 --n_head=3 --n_kv_head=3 --n_ffn=512 --vocab_multiple=2048 --compile=True'.split()
    printed = ok(run('train.py', f'--data_dir={numbers}', f'--out_dir={tmp_path}/run', *FLAGS, *flags,
                     '--dtype=bfloat16', f'--shard={shard}', f'--grad_checkpoint={checkpoint}',
                     '--max_steps=2', before=GRAPHS + KEPT, processes=2))
    all_of = lambda name: [int(n) for n in re.findall(rf'{name}: (\d+)', printed)]
    assert sorted(filter(None, all_of('products'))) == [1, 1, 1, 1, 7, 7, 7, 7]
    assert all_of('kept') == [2 * copies] * 8
    assert all_of('gradients') == [4 * ALL // (1 if shard == 'ddp' else 2)] * 4
