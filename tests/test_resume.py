"""An interrupted run, resumed, is the straight run: bit for bit, whatever interrupted it."""
import json
import shutil
import signal

import pytest
from accidents import accident, before
from conftest import PAID, ROOT, TIMES, TINY, contents, metrics, mistake, ok, read_json, read_rows, run
from conftest import same, series, state

from model import load_checkpoint, save_checkpoint
from parts.train.records import digest

# dropout, so that lost random state would show; saves and evaluations at different steps
STEPS = ['--max_steps=18', '--save_interval=4', '--eval_interval=6', '--warmup_steps=4', '--log_interval=1',
         '--learning_rate=1e-2', '--device=cpu', '--dtype=float32']
POST = [*STEPS, '--batch_size=4', '--sample_tokens=4']
RL = [*STEPS, '--batch_size=4', '--num_samples=4', '--max_new_tokens=8', '--eval_prompts=4']
CASES = {'train': ['--dropout=0.1', '--warmup_steps=0.2'],
         'train, with Muon': ['--dropout=0.1', '--optimizer=muon', '--schedule=wsd', '--decay_steps=6',
                              '--dtype=bfloat16'],
         'sft': ['--lora=4', '--micro_batch_size=2', '--warmup_steps=0.2'],
         'dpo': ['--loss_type=kto', '--warmup_steps=0.2'],
         'rl': ['--updates=2', '--kl_coef=0.1', '--warmup_steps=0.2']}


@pytest.fixture(scope='module')
def start(data_dir, conversations, pairs, sft_model, tmp_path_factory):
    """The flags of each script but out_dir: data, a model to begin from, sizes."""
    model, state = load_checkpoint(sft_model)
    folder = shutil.copytree(sft_model, tmp_path_factory.mktemp('start') / 'dropout')
    save_checkpoint(folder / 'best.pt', model.like(dropout=0.1), **state)
    (folder / 'paid.py').write_text(PAID, encoding='utf-8')
    base = f'--init_from={folder}'
    return {'train': [f'--data_dir={data_dir}', *TINY, *STEPS],
            'sft': [base, f'--data_dir={conversations}', *POST],
            'dpo': [base, f'--data_dir={pairs}', *POST],
            'rl': [base, f'--reward={folder}/paid.py', *RL]}


@pytest.fixture(scope='module')
def straight(start, tmp_path_factory):
    """A run of train.py that nothing disturbs."""
    out = tmp_path_factory.mktemp('straight') / 'run'
    ok(run('train.py', *start['train'], *CASES['train'], f'--out_dir={out}'))
    return out


def step_of(out):
    return load_checkpoint(out / 'last.pt')[1]['step']


# the power fails when half of a checkpoint is written
WHILE_SAVING = before('save', """
    state, file = arguments
    if state['step'] == 12 and 'optimizers' in state:
        file.write(b'half')
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)""")


@pytest.mark.parametrize('case', CASES)
def test_a_run_stopped_killed_and_killed_while_saving_is_the_straight_run(start, case, tmp_path):
    script = case.split(',')[0]
    out, straight = tmp_path / 'run', tmp_path / 'straight'
    flags = [*start[script], *CASES[case]]
    ok(run(f'{script}.py', *flags, f'--out_dir={straight}'))
    first = lambda **more: run(f'{script}.py', *flags, f'--out_dir={out}', **more)
    again = lambda **more: run(f'{script}.py', *flags, f'--out_dir={out}', '--init_from=resume', **more)

    printed = ok(first(before=accident('sigusr1' if script == 'sft' else 'sigterm', 5)))
    assert 'stopped at step 6; ' in printed and '--init_from=resume' in printed
    assert step_of(out) == metrics(out)[-1]['step'] == 6                    # no step is lost
    mistake(again(before=accident('out of memory', 4)), 'out of memory; try --')
    assert step_of(out) == 8
    assert again(before=WHILE_SAVING).returncode == -signal.SIGKILL
    assert step_of(out) == 8
    assert again(before=accident('kill', 6)).returncode == -signal.SIGKILL
    assert step_of(out) == 12
    with open(out / 'metrics.jsonl', 'a', encoding='utf-8') as f:
        f.write('{"step": 17, "loss": 1.0}\n{"step": 3, "lo')             # what was logged later is dropped
    printed = ok(again())
    assert 'resumed at step 12' in printed and '  changed  ' not in printed
    for file in ('last.pt', 'best.pt'):
        a, b = state(out, file), state(straight, file)
        assert a.keys() == b.keys() and [k for k in a if not same(a[k], b[k])] == []
    assert metrics(out) == metrics(straight)
    assert {p.name for p in out.iterdir()} == {p.name for p in straight.iterdir()}      # no leftovers
    assert series(out, 'lr')[:4] == pytest.approx([2.5e-3, 5e-3, 7.5e-3, 1e-2])     # a fifth of 18: 4 steps


def test_the_best_model_is_the_best_of_all_parts_of_a_run(start, tmp_path):
    flags = ['train.py', *start['train'], f'--out_dir={tmp_path}', '--eval_interval=2']
    ok(run(*flags, before=accident('sigterm', 7)))
    best = min(series(tmp_path, 'val_loss'))
    ok(run(*flags, '--init_from=resume', '--learning_rate=3', '--spike_z=0'))           # far too high
    assert all(later > best for later in series(tmp_path, 'val_loss')[5:])
    assert load_checkpoint(tmp_path)[1]['best_val'] == state(tmp_path)['best_val'] == best


def test_a_stop_before_the_first_step_saves_what_a_start_needs(start, tmp_path):
    """SIGTERM comes while the untrained model writes its sample."""
    early = before('sample text', 'os.kill(os.getpid(), signal.SIGTERM)')
    flags = ['train.py', *start['train']]
    ok(run(*flags, f'--out_dir={tmp_path}', before=early))
    assert step_of(tmp_path) == 1
    mistake(run(*flags, f'--out_dir={tmp_path}/new', before=accident('out of memory', 0)), 'out of memory')
    assert not list(tmp_path.glob('new/*.pt'))


def test_a_step_that_was_refused_is_told_once(start, tmp_path):
    flags = [*start['train'], '--max_steps=12']
    ok(run('train.py', *flags, f'--out_dir={tmp_path}/one', before=accident('nan', 9)))
    ok(run('train.py', *flags, f'--out_dir={tmp_path}/two', before=accident('sigterm', 7)))
    ok(run('train.py', *flags, f'--out_dir={tmp_path}/two', '--init_from=resume', before=accident('nan', 1)))
    one, two = (metrics(tmp_path / name) for name in ('one', 'two'))
    assert one == two and [row['step'] for row in one if row.get('event') == 'skip'] == [9]


# --- what was changed counts, and is said -------------------------------------------------------------------
def test_a_finished_run_stays_as_it_is_and_a_changed_setting_is_refused_or_said_and_used(
        start, straight, data_dir, python_files, tmp_path):
    out, other = shutil.copytree(straight, tmp_path / 'run'), tmp_path / 'other'
    ok(run('prepare.py', f'--source={python_files}/asyncio', f'--tokenizer={data_dir}/tokenizer.json',
           f'--out_dir={other}'))
    flags = [*start['train'], *CASES['train'], f'--out_dir={out}', '--init_from=resume']
    exam, meta = shutil.copytree(data_dir, tmp_path / 'exam'), read_json(data_dir / 'meta.json')
    ids = (exam / 'val.bin').read_bytes()
    (exam / 'val.bin').write_bytes(ids[2:] + ids[:2])       # other text
    meta['sha256']['val'] = digest(exam / 'val.bin')
    (exam / 'meta.json').write_text(json.dumps(meta), encoding='utf-8')
    for processes in (1, 2):
        printed = ok(run('train.py', *flags, processes=processes))
        assert printed == f'{out} is finished, at step 18; to continue, raise --max_steps\n'
    for flag, word in {'--embedding_lr=10': 'embedding_lr', '--tie_embeddings=False': 'tie_embeddings',
                       '--batch_size=4': 'batch_size', '--optimizer=muon': 'optimizer', '--seed=2': 'seed',
                       '--max_steps=8': 'max_steps', f'--data_dir={other}': 'data_sha256',
                       f'--data_dir={exam}': 'val_sha256'}.items():
        mistake(run('train.py', *flags, flag), word)
    assert contents(out) == contents(straight)

    more = '--max_steps=20', '--weight_decay=9', '--beta1=0.5', '--log_interval=3'
    printed = ok(run('train.py', *flags, *more))
    changed = {line.split()[1].rstrip(':') for line in printed.splitlines() if line.startswith('  changed  ')}
    assert changed == {'weight_decay', 'beta1', 'log_interval', 'max_steps', 'out_dir'}, printed
    assert 'changed  weight_decay: 0.1 before, 9.0 now' in printed
    groups = state(out)['optimizers'][0]['param_groups']
    assert [group['weight_decay'] for group in groups] == [9.0, 0.0] and groups[0]['betas'] == (0.5, 0.95)
    weight = lambda folder: state(folder)['model']['embedding.weight']
    assert weight(out).norm() < weight(straight).norm()


def test_a_fine_tuned_run_knows_where_it_began_and_on_what(start, tmp_path):
    """data.json is the base's: one that lies in the current folder by chance is not taken."""
    flags = [*start['sft'], f'--out_dir={tmp_path}/run']
    base = next(flag for flag in flags if flag.startswith('--init_from=')).split('=')[1]
    (tmp_path / 'data.json').write_text('of others', encoding='utf-8')
    ok(run('sft.py', *flags, before=accident('sigterm', 5)))
    again = [*flags, '--init_from=resume', '--max_steps=8']
    printed = ok(run('sft.py', *again, '--sample_tokens=3', '--micro_batch_size=2', cwd=tmp_path))
    assert 'changed  sample_tokens: 4 before, 3 now' in printed
    assert (tmp_path / 'run/data.json').read_text(encoding='utf-8') == '{}'
    config = read_json(tmp_path / 'run/config.json')
    assert config['init_from'] == state(tmp_path / 'run')['config'].get('init_from', base) == base
    mistake(run('sft.py', *again, '--optimizer=muon'), 'optimizer', 'muon')
    mistake(run('train.py', *start['train'], f'--out_dir={tmp_path}/run', '--init_from=resume'),
            "stage='sft', this run has None")


# --- what must not go on ------------------------------------------------------------------------------------
def test_three_skipped_updates_in_a_row_keep_the_weights_before_them(start, tmp_path):
    flags = ['train.py', *start['train'], f'--out_dir={tmp_path}']
    mistake(run(*flags, before=accident('nan', 5, 6, 7)),
            '3 updates in a row were skipped', 'not finite', '--learning_rate', 'last.pt')
    model, saved = load_checkpoint(tmp_path / 'last.pt')
    assert saved['step'] == 8 and all(p.isfinite().all() for p in model.parameters())
    assert series(tmp_path, 'grad_norm')[5:] == [None] * 3
    text = (tmp_path / 'metrics.jsonl').read_text(encoding='utf-8')
    assert 'NaN' not in text and 'Infinity' not in text                                 # which are not JSON


def test_nothing_that_lies_there_is_overwritten_unasked_and_then_all_of_it(start, straight, tmp_path):
    out = shutil.copytree(straight, tmp_path / 'run')
    flags = ['train.py', *start['train'], *CASES['train'], f'--out_dir={out}']
    mistake(run(*flags, '--overwrite=True', '--vocab_size=9'), 'vocab_size=9')
    for name in ('last.pt', 'last-1.pt'):           # killed between two renames; before the first save
        (out / name).unlink()
        mistake(run(*flags), 'already holds a run', '--init_from=resume', '--overwrite=True')
    mistake(run(*flags, '--init_from=resume'), 'no run here was saved', '--overwrite=True')
    assert (out / 'best.pt').exists()

    for name in ('last.pt.new', 'best.pt.tmp', 'eval-17.json', 'eval.json.tmp'):
        (out / name).write_text('old', encoding='utf-8')
    ok(run(*flags, '--overwrite=True'))
    assert {p.name for p in out.iterdir()} == {p.name for p in straight.iterdir()}


# --- the folder of an older commit --------------------------------------------------------------------------
FLAGS = ('--n_layer=2 --n_head=2 --n_kv_head=1 --n_embd=16 --n_ffn=32 --tie_embeddings=True '
         '--block_size=32 --batch_size=8 --max_steps=12 --warmup_steps=4 --eval_interval=6 --save_interval=6 '
         '--log_interval=1 --eval_tokens=1024 --sample_tokens=8 --num_samples=2 '
         '--learning_rate=1e-2 --device=cpu --dtype=float32').split()


def test_a_run_of_an_older_commit_is_resumed_evaluated_and_fine_tuned(conversations, tmp_path):
    """As if killed at step 7. straight.jsonl has the losses of the same run unharmed, at that commit."""
    shutil.copytree(ROOT / 'tests/old_run', tmp_path, dirs_exist_ok=True)
    here = {'cwd': tmp_path}
    assert step_of(tmp_path / 'run') == 6
    ok(run('train.py', '--data_dir=data', '--out_dir=run', *FLAGS, '--init_from=resume', **here))
    wanted = read_rows(tmp_path / 'straight.jsonl')
    rows = metrics(tmp_path / 'run')
    assert [row['step'] for row in rows] == [row['step'] for row in wanted]
    for row, old in zip(rows, wanted):
        for key in old.keys() - {*TIMES, 'comm_share'}:         # other CPUs sum in another order
            assert row[key] == pytest.approx(old[key], rel=1e-4, abs=1e-6), (row['step'], key)

    ok(run('eval.py', '--ckpt=run', '--data_dir=data', '--device=cpu', **here))
    loss = read_json(tmp_path / 'run/eval.json')['tasks']['loss']
    assert loss['trained']['nats'] < loss['untrained']['nats'] - 0.5
    assert 'def' in ok(run('sample.py', '--ckpt=run', '--prompt=def f', '--max_new_tokens=4', **here))
    ok(run('sft.py', '--init_from=run', f'--data_dir={conversations}', '--out_dir=sft', '--max_steps=2',
           '--batch_size=2', '--device=cpu', **here))
