"""An interrupted run, resumed, is the straight run: bit for bit, whatever interrupted it."""
import functools
import random
import shutil
import signal

import pytest
from accidents import KILLED_WHILE_RENAMING, accident, before, killed_while_saving
from conftest import TINY, contents, expect_same_run, metrics, mistake, ok, read_json, run, same
from conftest import series, state, write
from feedback import attempt, expect

# dropout, so that lost random state would show; saves and evaluations at different steps
FLAGS = [*TINY, '--max_steps=18', '--save_interval=4', '--eval_interval=6', '--warmup_steps=0.2',
         '--log_interval=1', '--learning_rate=1e-2', '--device=cpu', '--dtype=float32', '--dropout=0.1']
CASES = {'plain': [], 'stream': ['--streaming=shards'],
         'muon': ['--optimizer=muon', '--schedule=wsd', '--decay_steps=6', '--dtype=bfloat16',
                  '--tie_embeddings=False', '--embedding_lr=10', '--document_mask=True']}


@pytest.fixture(scope='module')
def place(numbers, tmp_path_factory):
    """A folder with data, also as shards of text; their first line has none."""
    folder = tmp_path_factory.mktemp('place')
    shutil.copytree(numbers, folder / 'data')
    for i in range(4):
        texts = [{'text': f'{n} times {n} is {n * n}.\n'} for n in range(i, 400, 4)]
        write(folder / f'shards/{i}.jsonl', [3, *texts])
    return folder


@pytest.fixture(scope='module')
def begin(place):
    def begin(case, out, *more, **how):
        """A run with the flags of a case. out is a path, perhaps relative to that folder."""
        return run('train.py', '--data_dir=data', *FLAGS, *CASES[case], f'--out_dir={out}', *more, cwd=place,
                   **how)
    return begin


@pytest.fixture(scope='module')
def straight(begin, tmp_path_factory):
    """straight(case) is the folder of a run that nothing disturbs."""
    @functools.cache
    def straight(case, processes=1):
        out = tmp_path_factory.mktemp('straight') / 'run'
        ok(begin(case, out, processes=processes))
        return out
    return straight


@pytest.fixture(scope='module')
def resume(place):
    """The folder is enough. Relative paths are those of the first command."""
    return lambda out, *more, **how: run('train.py', f'--out_dir={out}', '--init_from=resume', *more,
                                         cwd=place, **how)


def step_of(out, file='last.pt'):
    return state(out, file)['step']


@pytest.mark.parametrize('case', CASES)
def test_a_run_stopped_killed_and_killed_while_saving_is_the_straight_run(begin, resume, straight, case,
                                                                          tmp_path):
    out = tmp_path / 'run'
    straight = attempt('a run of 18 steps that nothing disturbs', 'it ends', straight, case)

    def end_of(result):
        return 'killed' if result.returncode == -signal.SIGKILL else ok(result) and 'finished'

    printed = ok(begin(case, out, before=accident('sigusr1' if case == 'muon' else 'sigterm', 5)))
    assert 'stopped at step 6' in printed and '--init_from=resume' in printed
    saved = 'the last.pt of a run that a signal stopped after step 6:'
    expect(f'{saved} its step', 6, step_of, out)                            # no step is lost
    assert metrics(out)[-1]['step'] == 6
    expect(f"{saved} has it the optimizer's moments?", True, lambda: bool(state(out)['optimizer']))
    expect('resumed at step 6, it is killed while it saves step 12', 'killed',
           lambda: end_of(resume(out, before=killed_while_saving(12))))
    expect('killed while it saved step 12: the step in last.pt', 8, step_of, out)
    expect('resumed at step 8, it is killed while it renames last.pt', 'killed',
           lambda: end_of(resume(out, before=KILLED_WHILE_RENAMING)))
    assert not (out / 'last.pt').exists() and step_of(out, 'last-1.pt') == 8
    expect('resumed from last-1.pt at step 8, it is killed at step 14', 'killed',
           lambda: end_of(resume(out, before=accident('kill', 6))))
    assert step_of(out) == 12 and metrics(out)[-1]['step'] == 14
    attempt('resumed at step 12', 'it ends', ok, resume(out))
    expect_same_run(out, straight)


def test_a_run_killed_at_random_steps_is_the_straight_run(begin, straight, tmp_path):
    """Two processes. init_from=auto begins, and then goes on: its first command is typed again. At most six
    steps are done between two kills, so some are repeated twice."""
    dice = random.Random(3)
    out = tmp_path / 'run'
    again = lambda **how: begin('stream', out, '--init_from=auto', processes=2, **how)
    codes = [again(before=accident('kill', dice.randint(2, 6))).returncode for _ in range(4)]
    ok(again())
    assert codes.count(-signal.SIGKILL) >= 3
    expect_same_run(out, straight('stream', 2))


@pytest.mark.parametrize('function, calls', [('sample', 0), ('save', 0), ('rename', 0), ('rename', 1)])
def test_where_a_run_was_killed_as_it_began_the_same_command_goes_on(begin, straight, tmp_path, function,
                                                                     calls):
    kill = before(function, f'if n == {calls}: os.kill(os.getpid(), 9)')
    assert begin('plain', tmp_path / 'run', '--init_from=auto', before=kill).returncode == -9
    ok(begin('plain', tmp_path / 'run', '--init_from=auto'))
    assert metrics(tmp_path / 'run') == metrics(straight('plain'))


def test_where_the_last_checkpoint_is_damaged_the_one_before_serves(resume, straight, tmp_path):
    """Where both are, it is one sentence, and nothing is touched."""
    out = shutil.copytree(straight('plain'), tmp_path / 'run')
    whole = (out / 'last.pt').read_bytes()
    for damaged in whole[:len(whole) // 2], b'', b'half a file':
        (out / 'last.pt').write_bytes(damaged)
        ok(resume(out))
        assert metrics(out) == metrics(straight('plain')) and same(state(out), state(straight('plain')))
    for name in 'last.pt', 'last-1.pt':
        (out / name).write_bytes(b'half a file')
    run_before = contents(out)
    mistake(resume(out, '--max_steps=20'), str(out))
    assert contents(out) == run_before


def test_ctrl_c_saves_and_a_second_one_ends_at_once(begin, tmp_path):
    once = before('clip', 'if n == 5: os.kill(os.getpid(), signal.SIGINT)')
    assert 'stopped at step 6' in ok(begin('plain', tmp_path / 'once', before=once))
    assert step_of(tmp_path / 'once') == 6
    twice = before('clip', """
        if n == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            import time
            time.sleep(100)""")
    result = begin('plain', tmp_path / 'twice', before=twice, timeout=60)
    assert result.returncode in (-signal.SIGINT, 130), result.stderr
    assert 'Traceback' not in result.stderr and step_of(tmp_path / 'twice') == 4


def test_the_best_model_is_the_best_of_all_parts_of_a_run(begin, resume, tmp_path):
    ok(begin('plain', tmp_path, '--eval_interval=2', before=accident('sigterm', 7)))
    best = min(series(tmp_path, 'val_loss'))
    ok(resume(tmp_path, '--learning_rate=3', '--spike_z=0'))                            # far too high
    assert all(later > best for later in series(tmp_path, 'val_loss')[5:])
    assert state(tmp_path, 'best.pt')['best_val'] == state(tmp_path)['best_val'] == best


# --- a run goes on as itself or not at all ------------------------------------------------------------------
OTHERS = {'n_layer': 3, 'n_kv_head': 1, 'n_embd': 64, 'tie_embeddings': False, 'vocab_multiple': 64,
          'optimizer': 'muon', 'objective': 'mlm', 'document_mask': True, 'batch_size': 4, 'seed': 1}


def test_a_run_is_not_resumed_as_another_nor_with_other_data(resume, straight, place, tmp_path):
    out = straight('plain')
    run_before = contents(out)
    more = lambda *flags, **how: resume(out, '--max_steps=20', *flags, **how)
    mistake(resume(out), 'max_steps', '18')
    for name, value in OTHERS.items():
        mistake(more(f'--{name}={value}'), name)
    for file in 'meta.json', 'train.bin', 'val.bin':
        data = shutil.copytree(place / 'data', tmp_path / file)
        text = (data / file).read_bytes()
        (data / file).write_bytes(text[2:] + text[:2] if file.endswith('.bin') else text + b'\n')
        mistake(more(f'--data_dir={data}'), str(data), 'data')
    mistake(more('--streaming=shards'), 'data')
    assert contents(out) == run_before


def test_a_stream_goes_on_with_its_shards_and_processes_only(resume, straight, place, tmp_path):
    out = straight('stream')
    run_before = contents(out)
    shards = shutil.copytree(place / 'shards', tmp_path / 'shards')
    write(shards / '4.jsonl', [{'text': 'more'}])
    mistake(resume(out, '--max_steps=20', f'--streaming={shards}'), 'data')
    mistake(resume(out, '--max_steps=20', '--streaming='), 'data')
    result = resume(out, '--max_steps=20', processes=2)
    assert result.returncode == 2 and 'resume it with as many processes, not with 2' in result.stderr
    assert contents(out) == run_before


def test_a_setting_that_may_change_is_used_and_data_may_move(resume, straight, place, tmp_path):
    out = shutil.copytree(straight('plain'), tmp_path / 'run')
    new = {'max_steps': 30, 'weight_decay': 9.0, 'learning_rate': 0.02, 'log_interval': 3, 'dropout': 0.0,
           'data_dir': str(shutil.copytree(place / 'data', tmp_path / 'moved'))}
    ok(resume(out, *(f'--{name}={value}' for name, value in new.items())))
    config = read_json(out / 'config.json')
    assert new == {name: config[name] for name in new}
    assert state(out)['config'] == {**config, 'out_dir': ''}
    rows = [row for row in metrics(out) if row['step'] > 18 and 'loss' in row]
    assert [row['step'] for row in rows] == [21, 24, 27, 30]
    assert rows[0]['lr'] > 5e-3                 # the old schedule has ended near 0
    a, b = (state(folder)['model']['blocks.0.mlp.w_up.weight'] for folder in (out, straight('plain')))
    assert a.norm() < 0.75 * b.norm()           # 12 steps, each 0.02 * 9 of a decay
