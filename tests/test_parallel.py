"""Several processes do what one does. batch_size is global, so sharing a step out is a matter of rounding."""
import re
import shutil
import socket
import subprocess
import sys

import pytest
import torch
from accidents import accident, before
from conftest import PAID, ROOT, TINY, base_text, metrics, mistake, ok, read_rows, run, series, state
from conftest import thumbs_of, write

from parts.train import processes

# norms are about 0.6, so clipping acts: done before the processes' gradients are added, the runs would part.
# An odd width, so that FSDP cannot halve each matrix
BASE = ['--dtype=float32', '--grad_clip=0.3', '--learning_rate=1e-2']
TRAIN = [*TINY, *BASE, '--n_embd=36', '--n_ffn=50', '--num_samples=2']
POST = [*BASE, '--batch_size=8', '--max_steps=4', '--eval_interval=2', '--save_interval=2',
        '--log_interval=1', '--warmup_steps=2', '--device=cpu']
# nothing but the losses counts: a spike is one after 30 of them
SHORT = ['--n_layer=1', '--n_embd=16', '--n_ffn=32', '--max_steps=3', '--warmup_steps=1', '--eval_tokens=256',
         '--eval_interval=40', '--sample_tokens=1', '--num_samples=1']
SPIKED = [*SHORT, '--max_steps=36', '--save_interval=16', '--spike_action=rollback', '--spike_window=30']
# only every fourth prompt has answers whose rewards differ: often one of three processes has none of them
SELDOM = PAID.replace('return sum', 'return int(prompt.split()[0]) % 4 == 0 and sum')


def assert_equal_but_for_rounding(a, b, tolerance=1e-5):
    """The same float32 sums in another order: 1e-5 is about 100 roundings at 1."""
    for key in ('loss', 'val_loss', 'val_accuracy', 'base_bpb', 'grad_norm', 'update_ratio', 'chosen_reward',
                'reward', 'informative', 'trained', 'tokens', 'step'):
        assert series(a, key) == pytest.approx(series(b, key), abs=tolerance), key
    assert len(series(a, 'loss')) > 3
    one, two = state(a), state(b)
    assert one.get('kto_kl') == pytest.approx(two.get('kto_kl'), abs=tolerance)
    assert one['model'].keys() == two['model'].keys()       # no prefix of DDP's
    for key, value in one['model'].items():
        torch.testing.assert_close(value, two['model'][key], atol=tolerance, rtol=0)
    mine, its = one['moments']['state'], two['moments']['state']
    assert mine.keys() == its.keys()
    for parameter, moments in mine.items():
        for name, value in moments.items():
            torch.testing.assert_close(value, its[parameter][name], atol=tolerance, rtol=0)
    assert {p.name for p in a.iterdir()} == {p.name for p in b.iterdir()}


def train(data_dir, out, *more, **how):
    return run('train.py', f'--data_dir={data_dir}', f'--out_dir={out}', *TRAIN, *more, **how)


@pytest.fixture(scope='module')
def flags_of(data_dir, conversations, pairs, sft_model, tmp_path_factory):
    """{case: what is clipped, and the flags of a run but for its folder and micro-batch}."""
    folder = tmp_path_factory.mktemp('shared')
    (folder / 'paid.py').write_text(SELDOM, encoding='utf-8')
    base_text(folder, 300)
    for side in ('train', 'val'):               # every second pair is a thumb
        rows = read_rows(pairs / f'{side}.jsonl')
        rows[1::2] = thumbs_of(rows)[1::2]
        write(folder / f'{side}.jsonl', rows)
    post = [f'--init_from={sft_model}', *POST]
    rl = ['--kl_coef=0.1', '--batch_size=6', '--num_samples=4', '--updates=2', '--max_new_tokens=8',
          '--eval_prompts=4', '--grad_clip=0.03']
    return {'train': (0.3, f'--data_dir={data_dir}', *TRAIN),
            'sft': (0.3, *post, f'--data_dir={conversations}', f'--base_dir={folder}', '--replay=2'),
            'sft lora': (0.3, *post, f'--data_dir={conversations}', '--lora=4'),
            'dpo kto': (0.3, *post, f'--data_dir={folder}', '--loss_type=kto'),
            'dpo rm': (0.3, *post, f'--data_dir={pairs}', '--loss_type=rm'),
            'rl': (0.03, *post, f'--reward={folder}/paid.py', *rl)}


@pytest.mark.parametrize('case', ['train', 'sft', 'sft lora', 'dpo kto', 'dpo rm', 'rl'])
def test_one_process_accumulating_4_equals_two_accumulating_2(flags_of, case, tmp_path):
    """Clipping and kto's KL are of the whole batch. Of three processes of rl.py one has nothing to learn."""
    clip, *flags = flags_of[case]
    n, size = (3, 1) if case == 'rl' else (2, 2)
    four, shared, at_once = (tmp_path / name for name in ('four', 'shared', 'at_once'))
    begin = lambda out, size, n: ok(run(f'{case.split()[0]}.py', *flags, f'--out_dir={out}',
                                        f'--micro_batch_size={size}', processes=n))
    begin(four, size, 1)
    printed = begin(shared, size, n)
    assert f'processes: {n}, ' in printed
    assert printed.count('step      1/') == 1                   # only the first process speaks
    assert max(series(four, 'grad_norm')) > clip
    assert_equal_but_for_rounding(four, shared, 1e-5 if case in ('train', 'sft') else 2e-5)
    if case in ('train', 'sft'):
        begin(at_once, 0, 1)
        assert_equal_but_for_rounding(four, at_once)
    waits = [row['comm_share'] for row in read_rows(shared / 'metrics.jsonl') if 'comm_share' in row]
    assert all(0 < share < 1 for share in waits) and bool(waits) == (case == 'train')     # for gradients


def test_a_run_killed_thrice_goes_on_in_other_processes_that_share_its_state(data_dir, tmp_path):
    """Each way to share loads the moments that another one saved, and is killed after it saved its own."""
    one, out = tmp_path / 'one', tmp_path / 'run'
    ok(train(data_dir, one))
    parts = (1, '--shard=ddp'), (2, '--shard=zero1'), (2, '--shard=fsdp --grad_checkpoint=True'), (1, '')
    for i, (n, flags) in enumerate(parts):
        origin = 'resume' if i else 'scratch'
        result = train(data_dir, out, '--save_interval=3', f'--init_from={origin}', *flags.split(),
                       processes=n, before=accident('kill', 4) if i < 3 else '')
        assert i == 0 or f'resumed at step {3 * i}' in result.stdout, result.stderr
    ok(result)
    assert_equal_but_for_rounding(one, out, 2e-5)


def test_with_muon_too(data_dir, tmp_path):
    """It iterates in bfloat16, which rounds by 4e-3."""
    flags = ['--optimizer=muon', '--max_steps=6', '--n_layer=1']
    ok(train(data_dir, tmp_path / 'one', *flags))
    ok(train(data_dir, tmp_path / 'two', *flags, '--shard=fsdp', processes=2))
    assert_equal_but_for_rounding(tmp_path / 'one', tmp_path / 'two', 5e-3)


def test_each_seed_step_and_process_has_its_own_dropout(monkeypatch):
    seeds = set()
    for rank in range(64):
        monkeypatch.setenv('WORLD_SIZE', '64')
        monkeypatch.setenv('RANK', str(rank))
        seeds |= {processes.noise_seed(seed, step) for seed in (0, 1, 1337) for step in range(100)}
    assert len(seeds) == 64 * 3 * 100


# SIGTERM comes to the second process alone, when it knows already who was to stop in this step
LATE = before('guard', """
    if arguments[1] == 5 and os.environ['RANK'] == '1':
        os.kill(os.getpid(), signal.SIGTERM)""")


def test_processes_stop_together_when_one_of_them_is_asked_to(data_dir, tmp_path):
    printed = ok(train(data_dir, tmp_path, processes=2, before=LATE, timeout=60))       # else one waits
    assert 'stopped at step 7; ' in printed and state(tmp_path)['step'] == 7


def test_fsdp_rolls_back_and_its_folder_samples_in_one_process(data_dir, tmp_path):
    ok(train(data_dir, tmp_path, *SPIKED, '--shard=fsdp', processes=2, before=accident('spike', 34)))
    events = [(m['step'], m['event']) for m in metrics(tmp_path) if m.get('event') in ('skip', 'rollback')]
    assert events == [(34, 'skip'), (34, 'rollback'), (34, 'skip')]
    assert state(tmp_path)['lr_scale'] == 0.5 and state(tmp_path)['step'] == 36
    ok(run('sample.py', f'--ckpt={tmp_path}', '--max_new_tokens=5'))


def test_what_cannot_be_shared_or_torchrun_did_not_set_is_refused(data_dir, tmp_path):
    for n, flags, words in (
            (2, ['--batch_size=7', '--micro_batch_size=0'], ['2 processes', '--batch_size=8']),
            (2, ['--shard=fsdp', '--dtype=float16'], ['shard=fsdp', 'bfloat16']),
            (1, ['--shard=zero3'], ["shard='zero3'", 'ddp, zero1, fsdp'])):
        mistake(train(data_dir, tmp_path / 'run', *flags, processes=n), *words)
        assert not (tmp_path / 'run').exists()

    for env in {'RANK': '3'}, {'WORLD_SIZE': 'x'}, {'RANK': '0', 'WORLD_SIZE': '2'}, {'LOCAL_RANK': '-1'}:
        result = train(data_dir, tmp_path / 'run', env=env)
        assert result.returncode == 2 and 'with torchrun' in result.stderr.splitlines()[-1], env


def test_a_process_that_dies_is_one_sentence_of_the_others(data_dir, tmp_path):
    dies = f'import os\nif os.environ["RANK"] == "1":\n    exec({accident("kill", 7)!r})'
    result = train(data_dir, tmp_path, processes=2, before=dies)
    assert 'Traceback' not in result.stderr
    assert 'error: another process of this run cannot be reached' in result.stderr
    assert 'step      7/' in result.stdout and state(tmp_path)['step'] > 0


# --- torchrun itself ----------------------------------------------------------------------------------------
def test_a_mistake_is_also_what_torchrun_s_own_traceback_ends_with(tmp_path):
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', ROOT / 'train.py', '--n_layr=2']
    printed = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, timeout=300).stderr
    assert printed.startswith('error: command line: unknown setting n_layr')
    assert 'unknown setting n_layr; did you mean n_layer?' in printed.splitlines()[-2]


def test_the_command_of_the_page_trains_on_two_machines(data_dir, tmp_path):
    """Two agents of torchrun. That their weights stay the same is what the equality above shows."""
    with socket.create_server(('127.0.0.1', 0)) as s:
        port = s.getsockname()[1]
    page = (ROOT / 'docs/training.md').read_text(encoding='utf-8')
    flags = re.search(r'torchrun (--nnodes=2 .*) train\.py', page)[1]
    flags = re.sub(r'--nproc_per_node=\d+', '--nproc_per_node=1', flags)
    flags = re.sub(r'--rdzv_endpoint=\S+', f'--rdzv_endpoint=127.0.0.1:{port}', flags)
    command = [sys.executable, '-m', 'torch.distributed.run', *flags.split(), ROOT / 'train.py',
               f'--data_dir={data_dir}', '--out_dir=two', *TINY]
    agents = [subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT) for _ in range(2)]
    try:
        printed = ''.join(agent.communicate(timeout=300)[0] for agent in agents)
    finally:
        for agent in agents:
            agent.kill()
    assert [agent.returncode for agent in agents] == [0, 0], printed
    assert 'processes: 2, micro-batches of each: 1, sequences in one: 4' in printed
    assert series(tmp_path / 'two', 'val_loss')[-1] < series(tmp_path / 'two', 'val_loss')[0] - 0.05


# --- what only several machines or GPUs meet ----------------------------------------------------------------
APART = "os.chdir('disk' + os.environ['RANK'])\n"           # each process has a disk of its own


def test_disks_with_different_checkpoints_refuse_to_resume(data_dir, base_run, tmp_path):
    for rank in range(2):
        shutil.copytree(base_run, tmp_path / f'disk{rank}/out')
    shutil.copy(base_run / 'last-1.pt', tmp_path / 'disk0/out/last.pt')
    result = run('train.py', f'--data_dir={data_dir}', '--out_dir=out', *TINY, '--init_from=resume',
                 processes=2, before=APART, cwd=tmp_path)
    mistake(result, 'step is 8 on one machine, 12 on another', 'out/last.pt')
    other = 'sys.argv += ["--seed=" + os.environ["RANK"]]'
    result = run('train.py', f'--data_dir={data_dir}', '--out_dir=new', *TINY, processes=2, before=other)
    mistake(result, 'seed is 0 on one machine, 1 on another')
