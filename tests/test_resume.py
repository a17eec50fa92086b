"""An interrupted run, resumed, is the straight run: bit for bit, whatever interrupted it."""
import functools
import shutil
import signal

import pytest
from accidents import accident, before
from conftest import PAID, ROOT, TINY, contents, make_sft, metrics, mistake, ok, read_json, run, same, series
from conftest import state
from feedback import attempt, expect

from model import GPT

# dropout, so that lost random state would show; saves and evaluations at different steps
STEPS = ['--max_steps=18', '--save_interval=4', '--eval_interval=6', '--warmup_steps=0.2', '--log_interval=1',
         '--learning_rate=1e-2', '--device=cpu', '--dtype=float32']
POST = [*STEPS, '--batch_size=4', '--sample_tokens=4']
RL = [*STEPS, '--batch_size=4', '--num_samples=4', '--max_new_tokens=8', '--eval_prompts=4']
CASES = {'train': ['--dropout=0.1'],
         'train, with Muon': ['--dropout=0.1', '--optimizer=muon', '--schedule=wsd', '--decay_steps=6',
                              '--dtype=bfloat16', '--tie_embeddings=False', '--embedding_lr=10'],
         'dpo': ['--loss_type=kto'],
         'dpo, a reward model': ['--loss_type=rm'], 'rl': ['--updates=2', '--kl_coef=0.1']}


@pytest.fixture(scope='module')
def start(data_dir, pairs, tmp_path_factory):
    """The flags of each script but out_dir: data, a model to begin from, sizes."""
    folder = make_sft(tmp_path_factory.mktemp('start') / 'dropout', dropout=0.1)
    (folder / 'paid.py').write_text(PAID, encoding='utf-8')
    base = f'--init_from={folder}'
    return {'train': [f'--data_dir={data_dir}', *TINY, *STEPS],
            'dpo': [base, f'--data_dir={pairs}', *POST],
            'rl': [base, f'--reward={folder}/paid.py', *RL]}


@pytest.fixture(scope='module')
def straight(start, tmp_path_factory):
    """straight(case) is the folder of a run that nothing disturbs."""
    @functools.cache
    def straight(case):
        out = tmp_path_factory.mktemp('straight') / 'run'
        script = case.split(',')[0]
        ok(run(f'{script}.py', *start[script], *CASES[case], f'--out_dir={out}'))
        return out
    return straight


def data_of(flags):
    return next(flag.removeprefix('--data_dir=') for flag in flags if flag.startswith('--data_dir='))


def step_of(out, file='last.pt'):
    return state(out, file)['step']


# the power fails when half of a checkpoint is written, and when the old last.pt has become last-1.pt
WHILE_SAVING = before('save', """
    state, file = arguments
    if state['step'] == 12 and state['moments']:
        file.write(b'half')
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)""")
WHILE_RENAMING = before('rename', """
    if str(arguments[0]).endswith('last.pt.tmp'):
        os.kill(os.getpid(), signal.SIGKILL)""")


@pytest.mark.parametrize('case', CASES)
def test_a_run_stopped_killed_and_killed_while_saving_is_the_straight_run(start, straight, case, tmp_path):
    script = case.split(',')[0]
    out = tmp_path / 'run'
    straight = attempt('a run of 18 steps that nothing disturbs', 'it ends', straight, case)
    # The folder is enough. Relative paths are those of the first command.
    again = lambda **more: run(f'{script}.py', f'--out_dir={out}', '--init_from=resume', **more)

    def end_of(result):
        return 'killed' if result.returncode == -signal.SIGKILL else ok(result) and 'finished'

    printed = ok(run(f'{script}.py', *start[script], *CASES[case], f'--out_dir={out}',
                     before=accident('sigusr1' if script == 'dpo' else 'sigterm', 5)))
    assert 'stopped at step 6; ' in printed and '--init_from=resume' in printed
    saved = 'the last.pt of a run that a signal stopped after step 6:'
    expect(f'{saved} its step', 6, step_of, out)                            # no step is lost
    assert metrics(out)[-1]['step'] == 6
    expect(f"{saved} has it the optimizer's moments?", True, lambda: bool(state(out)['moments']))
    expect('resumed at step 6, it is killed while it saves step 12', 'killed',
           lambda: end_of(again(before=WHILE_SAVING)))
    expect('killed while it saved step 12: the step in last.pt', 8, step_of, out)
    expect('resumed at step 8, it is killed while it renames last.pt', 'killed',
           lambda: end_of(again(before=WHILE_RENAMING)))
    assert not (out / 'last.pt').exists() and step_of(out, 'last-1.pt') == 8
    expect('resumed from last-1.pt at step 8, it is killed at step 14', 'killed',
           lambda: end_of(again(before=accident('kill', 6))))
    assert step_of(out) == 12 and metrics(out)[-1]['step'] == 14            # what comes again is dropped
    last = again()
    printed = attempt('resumed at step 12', 'it ends', ok, last)
    assert 'step 12: resumed' in printed and '  changed  ' not in printed
    assert 'under the reference' not in last.stderr             # its model may have changed since
    compared = 'a run that was stopped once and killed three times, next to one that nothing disturbed:'
    expect(f'{compared} the rows of metrics.jsonl', metrics(straight), metrics, out)
    for file in ('last.pt', 'best.pt'):
        a, b = state(out, file), state(straight, file)
        assert a.keys() == b.keys()
        expect(f'{compared} what differs in {file}', [], lambda: [k for k in a if not same(a[k], b[k])])
    assert contents(out).keys() == contents(straight).keys()                        # no leftovers
    config = {**read_json(straight / 'config.json'), 'out_dir': str(out)}           # also where it began
    assert read_json(out / 'config.json') == config


def test_the_best_model_is_the_best_of_all_parts_of_a_run(start, tmp_path):
    flags = ['train.py', *start['train'], f'--out_dir={tmp_path}', '--eval_interval=2']
    ok(run(*flags, before=accident('sigterm', 7)))
    best = min(series(tmp_path, 'val_loss'))
    ok(run(*flags, '--init_from=resume', '--learning_rate=3', '--spike_z=0'))           # far too high
    assert all(later > best for later in series(tmp_path, 'val_loss')[5:])
    assert GPT.load(tmp_path).saved['best_val'] == state(tmp_path)['best_val'] == best


def test_a_stop_before_the_first_step_saves_what_a_start_needs(start, tmp_path):
    """SIGTERM comes while the untrained model writes its sample."""
    early = before('sample text', 'os.kill(os.getpid(), signal.SIGTERM)')
    ok(run('train.py', *start['train'], f'--out_dir={tmp_path}', before=early))
    assert step_of(tmp_path) == 1


# --- a run goes on as itself or not at all ------------------------------------------------------------------
# {script: (flags that would make another run of it, files of its data)}; test_runs.py has all fixed settings
OTHERS = {'train': (['--batch_size=4', '--max_steps=18'], ['meta.json', 'train.bin', 'val.bin']),
          'dpo': (['--loss_type=simpo'], ['train.jsonl', 'val.jsonl']),
          'rl': (['--max_new_tokens=4', '--reward=other.py'], [])}


@pytest.mark.parametrize('script', OTHERS)
def test_a_run_is_not_overwritten_and_not_resumed_as_another(start, straight, script, tmp_path):
    out = straight(script)
    before = contents(out)
    begin = lambda *flags: run(f'{script}.py', f'--out_dir={out}', *flags, cwd=tmp_path)
    flags = *start[script], *CASES[script]
    (tmp_path / 'other.py').write_text(PAID.replace('/ 8', '/ 4'), encoding='utf-8')
    mistake(begin(*flags), 'already has a run', '--init_from=resume', '--overwrite=True')
    mistake(begin(*flags, '--overwrite=True', '--warmup_steps=99'), 'warmup_steps')     # and nothing is lost
    settings, files = OTHERS[script]
    for flag in settings:
        mistake(begin('--init_from=resume', '--max_steps=20', flag), flag[2:].split('=')[0])
    for file in files:
        data = shutil.copytree(data_of(flags), tmp_path / file)
        text = (data / file).read_bytes()
        (data / file).write_bytes(text[2:] + text[:2] if file.endswith('.bin') else text + b'\n')
        mistake(begin('--init_from=resume', '--max_steps=20', f'--data_dir={data}'), file)
    assert contents(out) == before


@pytest.mark.parametrize('script', OTHERS)
def test_a_setting_that_may_change_is_said_and_used_and_data_may_move(start, straight, script, tmp_path):
    out = shutil.copytree(straight(script), tmp_path / 'run')
    new = {'max_steps': 30, 'weight_decay': 9.0, 'learning_rate': 0.02, 'log_interval': 3}
    if script != 'rl':
        shutil.copytree(data_of(start[script]), tmp_path / 'moved')
        new['data_dir'] = 'moved'
    flags = [f'--{name}={value}' for name, value in new.items()]
    printed = ok(run(f'{script}.py', f'--out_dir={out}', '--init_from=resume', *flags, cwd=tmp_path))
    changed = {line.split()[1].rstrip(':') for line in printed.splitlines() if line.startswith('  changed  ')}
    assert changed == new.keys() and 'before, 9.0 now' in printed
    assert series(out, 'lr')[18] > 5e-3         # the old schedule has ended near 0
    groups = state(out)['moments']['param_groups']
    assert {group['weight_decay'] for group in groups} == {9.0, 0.0}


# --- the folder of an older commit --------------------------------------------------------------------------
def test_the_weights_of_an_older_commit_are_measured_sampled_and_fine_tuned(conversations, tmp_path):
    """Such a run is not resumed."""
    shutil.copytree(ROOT / 'tests/old_run', tmp_path, dirs_exist_ok=True)
    here = {'cwd': tmp_path}
    mistake(run('train.py', '--out_dir=run', '--init_from=resume', **here), 'run/last.pt', 'no run to resume')
    ok(run('eval.py', '--ckpt=run', '--data_dir=data', '--device=cpu', **here))
    loss = read_json(tmp_path / 'run/eval.json')['tasks']['loss']
    assert loss['trained']['nats'] < loss['untrained']['nats'] - 0.5
    assert 'def' in ok(run('sample.py', '--ckpt=run', '--prompt=def f', '--max_new_tokens=4', **here))
    ok(run('sft.py', '--init_from=run', f'--data_dir={conversations}', '--out_dir=sft', '--max_steps=2',
           '--batch_size=2', '--device=cpu', **here))
