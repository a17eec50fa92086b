"""Several processes do what one does, however they share it; what they cannot do is one sentence."""
import contextlib
import copy
import functools
import itertools
import re
import shutil
import socket
import subprocess
import sys
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from accidents import before, replaced
from conftest import PAID, ROOT, base_text, metrics, mistake, ok, read_json, read_rows, refused, run
from conftest import same, series, state, thumbs_of, write, write_bins
from feedback import attempt, expect, told

from model import GPT, GPTConfig
from parts.train import optim, processes
from tokenizer import SPECIAL_TOKENS, Tokenizer

# Norms are about 0.8, so clipping acts: done before the processes' gradients are added, the runs would part.
# Odd sizes, so that FSDP cannot halve each matrix. An evaluation has 5 blocks, so of two processes one runs
# out.
FLAGS = ('--n_layer=2 --n_head=2 --n_kv_head=1 --n_embd=12 --n_ffn=25 --block_size=32 --batch_size=8 '
         '--micro_batch_size=2 --max_steps=8 --warmup_steps=2 --learning_rate=1e-2 --grad_clip=0.3 '
         '--eval_interval=4 --save_interval=4 --log_interval=1 --eval_tokens=160 --sample_tokens=8 '
         '--num_samples=1 --device=cpu --dtype=float32').split()
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


def killed_at(step):
    return before('guard', f'if arguments[1] == {step}: os.kill(os.getpid(), signal.SIGKILL)')


@pytest.fixture(scope='module')
def numbers(tmp_path_factory):
    """Token bins that are the same on every machine."""
    tok = Tokenizer.byte(SPECIAL_TOKENS)
    ids = [id for n in range(300)
           for id in [*tok.encode(f'{n} times {n} is {n * n}.\n'), tok.special['<|endoftext|>']]]
    return write_bins(tmp_path_factory.mktemp('numbers'), np.array(ids, np.uint16), tok)


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


def equal(a, b, bound=1e-6):
    """The same sums in another order: in float32 they measure 6e-8 to 5e-7."""
    for key in ('step', 'tokens', 'loss', 'val_loss', 'grad_norm', 'update_ratio'):
        assert series(a, key) == pytest.approx(series(b, key), abs=bound), key
    one, two = state(a)['model'], state(b)['model']
    assert one.keys() == two.keys()                         # no prefix of DDP's
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], atol=bound, rtol=0)
    assert {path.name for path in a.iterdir()} == {path.name for path in b.iterdir()}


@pytest.mark.parametrize('case', CASES)
def test_a_run_has_the_losses_of_the_golden_one(made, case):
    asked = f'the losses of 8 steps, {CASES[case]}, one process, 4 micro-batches of 2 sequences'
    losses = attempt(asked, GOLDEN[case], lambda: series(made(case), 'loss'))
    rounded = [round(loss, 5) for loss in losses], [round(loss, 5) for loss in GOLDEN[case]]
    assert losses == pytest.approx(GOLDEN[case], abs=2e-6), f'{told(asked, *rounded)}\n  now: {losses}'
    assert max(series(made(case), 'grad_norm')) > 0.3


@pytest.mark.parametrize('case, shard, n', [
    *itertools.product(('adamw', 'muon'), ('ddp', 'zero2', 'fsdp'), (2,)),
    *itertools.product(('mlm', 'span', 'document_mask'), ('ddp',), (2,)), ('adamw', 'fsdp', 1)])
def test_one_process_accumulating_4_equals_two_accumulating_2(made, case, shard, n):
    """Also if one process of torchrun tries out FSDP."""
    one = made(case)
    asked = f'8 steps in {n} processes with {4 // n} micro-batches each (expected: as in one with 4)'
    two = attempt(asked, 'it ends', made, case, n, shard)
    for key in ('loss', 'grad_norm'):
        expect(f'{key} of {asked}', pytest.approx(series(one, key), abs=1e-6), series, two, key)
    equal(one, two)
    samples = [out / 'samples.txt' for out in (one, two) if case in ('adamw', 'muon')]
    assert len({path.read_text(encoding='utf-8') for path in samples}) < 2


@pytest.mark.parametrize('dtype, least, most', [('float32', 0, 2e-6), ('bfloat16', 2e-6, 5e-3)])
def test_other_micro_batches_and_processes_change_a_loss_by_rounding(numbers, tmp_path, dtype, least, most):
    """Measured: 5e-7 and, in bfloat16, 2e-7 in the first step and 8e-4 in one of 40. There the products have
    other shapes, so other kernels; and each difference moves the weights of the next step."""
    losses = []
    for n, micro in (1, 8), (2, 1):
        flags = [f'--dtype={dtype}', f'--micro_batch_size={micro}', '--max_steps=20', '--eval_interval=20']
        ok(run('train.py', f'--data_dir={numbers}', f'--out_dir={tmp_path}/{n}', *FLAGS, *flags, processes=n))
        losses.append(np.array(series(tmp_path / str(n), 'loss')))
    assert least <= abs(losses[0] - losses[1]).max() < most


@pytest.mark.parametrize('n, shard', [(1, 'ddp'), (2, 'ddp'), (2, 'zero2'), (2, 'fsdp')])
def test_a_run_that_was_killed_is_the_straight_one_bit_for_bit(made, train, tmp_path, n, shard):
    straight, out, flags = made('muon', n, shard), tmp_path / 'run', ['--optimizer=muon', f'--shard={shard}']
    assert train(out, *flags, processes=n, before=killed_at(5)).returncode == -9
    ok(train(out, *flags, '--init_from=resume', processes=n))
    assert metrics(out) == metrics(straight) and same(state(out), state(straight))
    assert series(out, 'loss') == pytest.approx(GOLDEN['muon'], abs=2e-6)


def test_a_run_killed_thrice_goes_on_in_other_processes_that_share_its_state(made, train, tmp_path):
    """Each way to share loads the moments that another one saved, and is killed after it saved its own."""
    parts = (1, 'ddp', 3), (2, 'fsdp', 5), (2, 'zero2', 7), (1, 'ddp', 9)
    for i, (n, shard, kill) in enumerate(parts):
        flags = ['--save_interval=2', f'--shard={shard}', f'--grad_checkpoint={shard == "fsdp"}']
        flags += ['--init_from=resume'] * (i > 0)
        result = train(tmp_path / 'run', *flags, processes=n, before=killed_at(kill))
        assert result.returncode == (-9 if kill < 8 else 0), result.stderr
    equal(made('adamw'), tmp_path / 'run')


# --- the trainers after it ----------------------------------------------------------------------------------
POST = ['--dtype=float32', '--grad_clip=0.3', '--learning_rate=1e-2', '--batch_size=8', '--max_steps=4',
        '--eval_interval=2', '--save_interval=2', '--log_interval=1', '--warmup_steps=2', '--device=cpu']
# Only every fourth prompt has answers whose rewards differ: often one of three processes has none of them.
SELDOM = PAID.replace('return sum', 'return int(prompt.split()[0]) % 4 == 0 and sum')


@pytest.fixture(scope='module')
def flags_of(conversations, pairs, sft_model, tmp_path_factory):
    """{case: the flags of a run but for its folder and micro-batch}."""
    folder = tmp_path_factory.mktemp('shared')
    (folder / 'paid.py').write_text(SELDOM, encoding='utf-8')
    base_text(folder, 300)
    for side in ('train', 'val'):               # every second pair is a thumb
        rows = read_rows(pairs / f'{side}.jsonl')
        rows[1::2] = thumbs_of(rows)[1::2]
        write(folder / f'{side}.jsonl', rows)
    post = [f'--init_from={sft_model}', *POST]
    # At 1e-2 the reward model leaps (its loss is 0.52, then 0.69), and rounding grows with it.
    rl = ['--kl_coef=0.1', '--batch_size=6', '--num_samples=4', '--updates=2', '--max_new_tokens=8',
          '--eval_prompts=4', '--grad_clip=0.03']
    return {'sft': [*post, f'--data_dir={conversations}', f'--base_dir={folder}', '--replay=3'],
            'sft lora': [*post, f'--data_dir={conversations}', '--lora=4', '--optimizer=muon'],
            'dpo kto': [*post, f'--data_dir={folder}', '--loss_type=kto'],
            'dpo rm': [*post, f'--data_dir={pairs}', '--loss_type=rm', '--learning_rate=3e-3'],
            'rl': [*post, f'--reward={folder}/paid.py', *rl]}


@pytest.mark.parametrize('case', ['sft', 'sft lora', 'dpo kto', 'dpo rm', 'rl'])
def test_the_trainers_after_it_share_their_batches_too(flags_of, case, tmp_path):
    """A batch at once, and in micro-batches of two processes. Clipping and kto's KL are of the whole batch.
    Of three replayed sequences one process has two. Of three processes of rl.py one has nothing to learn.
    One of the runs computes its blocks twice, which changes nothing, and no answer of rl.py either."""
    for name, n, size in ('one', 1, 0), ('shared', *((3, 1) if case == 'rl' else (2, 2))):
        ok(run(f'{case.split()[0]}.py', *flags_of[case], f'--out_dir={tmp_path}/{name}',
               f'--micro_batch_size={size}', f'--grad_checkpoint={n > 1}', processes=n,
               before=MUON_IN_FLOAT32))
    equal(tmp_path / 'one', tmp_path / 'shared', 2e-5)
    for key in ('val_accuracy', 'base_bpb', 'chosen_reward', 'reward', 'informative', 'trained'):
        one, two = (series(tmp_path / name, key) for name in ('one', 'shared'))
        assert one == pytest.approx(two, abs=2e-5), key


# --- together, or not at all --------------------------------------------------------------------------------
def test_processes_stop_together_when_one_of_them_is_asked_to(train, tmp_path):
    """SIGTERM comes to the second process alone, when it knows already who was to stop in this step."""
    late = before('guard', """
        if arguments[1] == 4 and os.environ['RANK'] == '1':
            os.kill(os.getpid(), signal.SIGTERM)""")
    printed = ok(train(tmp_path, processes=2, before=late, timeout=60))                 # else one waits
    assert 'stopped at step 6; ' in printed and state(tmp_path)['step'] == 6


def test_what_cannot_be_shared_or_torchrun_did_not_set_is_refused(train, tmp_path):
    for n, env, flags, words in (
            (2, {}, ['--batch_size=7', '--micro_batch_size=0'], ['batch_size=7', '2 processes']),
            (2, {}, ['--shard=fsdp', '--dtype=float16'], ['shard=fsdp', 'bfloat16']),
            (1, {}, ['--device=mps'], ['device=mps', '--device=auto']),
            (1, {'RANK': '3', 'LOCAL_RANK': '0'}, [], ['RANK=3 WORLD_SIZE= MASTER_ADDR= MASTER_PORT=: ']),
            (1, {**ONE_OF_TORCHRUN, 'RANK': '3'}, [], ['RANK=3 WORLD_SIZE=1', 'unset RANK and WORLD']),
            (1, {**ONE_OF_TORCHRUN, 'RANK': 'x'}, [], ['RANK=x WORLD_SIZE=1', 'torchrun'])):
        result = train(tmp_path / 'run', *flags, processes=n, env=env)
        assert all(word in result.stderr for word in words) and result.returncode == 2
    assert not (tmp_path / 'run').exists()


def test_processes_with_other_settings_or_files_refuse(made, numbers, tmp_path):
    """Each process has a disk of its own."""
    apart = "os.chdir('disk' + os.environ['RANK'])\n"
    for rank in range(2):
        shutil.copytree(made('adamw'), tmp_path / f'disk{rank}/out')
        shutil.copytree(numbers, tmp_path / f'disk{rank}/data')
    shutil.copy(made('adamw') / 'last-1.pt', tmp_path / 'disk0/out/last.pt')
    with open(tmp_path / 'disk1/data/train.bin', 'r+b') as f:
        f.write(b'xx')
    for data, out, more, words in ((numbers, 'out', '"--init_from=resume"', 'step is 4 in one process, 8 in'),
                                   (numbers, 'new', '"--n_layer=1" + os.environ["RANK"]', 'n_layer is 10 in'),
                                   ('data', 'new', '"--keep=1"', 'train.bin is .* start all of them with')):
        result = run('train.py', f'--data_dir={data}', f'--out_dir={out}', *FLAGS, '--max_steps=10',
                     processes=2, before=f'{apart}sys.argv.append({more})', cwd=tmp_path)
        mistake(result)
        assert re.search(words, result.stderr) and not (tmp_path / 'disk0/new').exists()


# --- torchrun itself ----------------------------------------------------------------------------------------


def test_the_command_of_the_page_trains_on_two_machines(numbers, made, tmp_path):
    """Two agents of torchrun."""
    with socket.create_server(('127.0.0.1', 0)) as s:
        port = s.getsockname()[1]
    page = (ROOT / 'docs/training.md').read_text(encoding='utf-8')
    flags = re.search(r'torchrun (--nnodes=2 .*) train\.py', page)[1]
    flags = re.sub(r'--nproc_per_node=\d+', '--nproc_per_node=1', flags)
    flags = re.sub(r'--rdzv_endpoint=\S+', f'--rdzv_endpoint=127.0.0.1:{port}', flags)
    command = [sys.executable, '-m', 'torch.distributed.run', *flags.split(), ROOT / 'train.py',
               f'--data_dir={numbers}', '--out_dir=two', *FLAGS]
    agents = [subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT) for _ in range(2)]
    try:
        printed = ''.join(agent.communicate(timeout=300)[0] for agent in agents)
    finally:
        for agent in agents:
            agent.kill()
    assert [agent.returncode for agent in agents] == [0, 0], printed
    equal(made('adamw'), tmp_path / 'two')


# --- what one process can show of them ----------------------------------------------------------------------


# Of two steps, an evaluation and a generation: the matrix products of each compiled graph; and of the bytes
# that autograd keeps for the backward pass, those of weights in bfloat16
GRAPHS = replaced('compile', """
    def backend(graph, inputs):
        nodes = [node for part in graph.modules() for node in getattr(part, 'graph', graph.graph).nodes]
        print('products:', sum('linear' in str(node.target) for node in nodes), flush=True)
        return graph.forward
    torch.counting = getattr(torch, 'counting', backend)      # one for all, as there is one Inductor
    return real(*arguments, backend=torch.counting, **more)""")
KEPT = replaced('rehearse', """
    net, model, _, batch, autocast, _ = arguments
    kept = {}
    def pack(t):
        storage = t.untyped_storage()
        if t.dtype == torch.bfloat16 and {*t.shape} <= {192, 512}:
            kept[storage._cdata] = storage              # alive, so that no other one has this address
        return t
    for _ in range(2):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), autocast:
            loss = net(*batch, with_logits=False)[1]
        print('kept:', sum(storage.nbytes() for storage in kept.values()), flush=True)
        kept.clear()
        loss.backward()
    part = lambda t: t.to_local() if hasattr(t, 'to_local') else t
    print('gradients:', sum(part(p.grad).nbytes for p in model.parameters()), flush=True)
    with torch.no_grad(), autocast:
        model(*batch, with_logits=False)
        model.generate(batch[0][:, :3], 4)
    os._exit(0)""")
BLOCKS = 2 * (4 * 192 * 192 + 3 * 192 * 512)            # weights of the matrices in two blocks
ALL = BLOCKS + 2048 * 192 + 5 * 192                     # those of embedding and norms, too


@pytest.mark.parametrize('shard, checkpoint, copies', [
    ('ddp', False, BLOCKS), ('zero2', False, BLOCKS), ('fsdp', False, 0), ('fsdp', True, 0)])
def test_two_processes_compile_whole_blocks_once_and_keep_no_more_than_they_must(
        numbers, tmp_path, shard, checkpoint, copies):
    """A bucket of DDP ends where a block does. Under FSDP one graph serves all blocks, and another one
    evaluations; samples are not compiled."""
    flags = '--n_embd=192 --n_head=3 --n_kv_head=3 --n_ffn=512 --vocab_multiple=2048 --compile=True'.split()
    printed = ok(run('train.py', f'--data_dir={numbers}', f'--out_dir={tmp_path}/run', *FLAGS, *flags,
                     '--dtype=bfloat16', f'--shard={shard}', f'--grad_checkpoint={checkpoint}',
                     before=GRAPHS + KEPT, processes=2))
    all_of = lambda name: [int(n) for n in re.findall(rf'{name}: (\d+)', printed)]
    assert sorted(filter(None, all_of('products'))) == [1, 1, 7, 7, 7, 7]
    assert all_of('kept') == [2 * copies] * 4
    assert all_of('gradients') == [4 * ALL // (1 if shard == 'ddp' else 2)] * 2


def test_a_rehearsal_holds_the_moments_changes_nothing_and_names_the_flag_against_the_compiler():
    model, held = GPT(GPTConfig(64, 16, 2, 2, 1, 16)), []
    opt, weights = optim.build(model, 'adamw', 1e-2, 0.1), copy.deepcopy(model.state_dict())
    moments = lambda: [value for values in opt.state.values() for value in values.values()]
    model.register_forward_pre_hook(lambda *_: held.append(sum(value.nbytes for value in moments())))
    rehearse = lambda: processes.rehearse(model, model, opt, [torch.zeros(2, 16).long()] * 2,
                                          contextlib.nullcontext(), compiled=True)
    rehearse()
    assert held[0] > 2 * sum(p.nbytes for p in model.parameters())
    assert same(weights, model.state_dict())
    assert not any(value.any() for value in [*moments(), *(p.grad for p in model.parameters())])
    model.forward = Mock(side_effect=RuntimeError('no g++'))
    refused('torch.compile failed .*--compile=False', rehearse)
