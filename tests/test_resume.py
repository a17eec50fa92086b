"""An interrupted run, resumed, is the straight run: bit for bit, whatever interrupted it."""
import functools
import random
import shutil
import signal

import pytest
from accidents import KILLED_WHILE_RENAMING, accident, before, killed_while_saving
from conftest import ROOT, TINY, contents, expect_same_run, metrics, mistake, ok, read_json, run, same
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


@pytest.mark.parametrize('case, processes, seed', [('plain', 1, 1), ('stream', 1, 2), ('stream', 2, 3)])
def test_a_run_killed_at_random_steps_is_the_straight_run(begin, straight, tmp_path, case, processes, seed):
    """init_from=auto begins, and then goes on. At most six steps are done between two kills, so some are
    repeated twice."""
    dice = random.Random(seed)
    out = tmp_path / 'run'
    codes = []
    for _ in range(4):
        kill = accident('kill', dice.randint(2, 6))
        codes.append(begin(case, out, '--init_from=auto', before=kill, processes=processes).returncode)
    ok(begin(case, out, '--init_from=auto', processes=processes))
    assert codes.count(-signal.SIGKILL) >= 3
    expect_same_run(out, straight(case, processes))


@pytest.mark.parametrize('damage', ['cut off', 'empty', 'gone', 'noise'])
def test_where_the_last_checkpoint_is_damaged_the_one_before_serves(resume, straight, tmp_path, damage):
    out = shutil.copytree(straight('plain'), tmp_path / 'run')
    whole = (out / 'last.pt').read_bytes()
    texts = {'cut off': whole[:len(whole) // 2], 'empty': b'', 'noise': b'half a file'}
    (out / 'last.pt').unlink()
    if damage in texts:
        (out / 'last.pt').write_bytes(texts[damage])
    ok(resume(out))
    assert step_of(out, 'last.pt') == 18
    assert metrics(out) == metrics(straight('plain')) and same(state(out), state(straight('plain')))


def test_where_both_are_damaged_it_is_one_sentence_and_nothing_is_touched(resume, straight, tmp_path):
    out = shutil.copytree(straight('plain'), tmp_path / 'run')
    for name in 'last.pt', 'last-1.pt':
        (out / name).write_bytes(b'half a file')
    before = contents(out)
    mistake(resume(out, '--max_steps=20'), str(out))
    assert contents(out) == before


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


def test_a_stop_before_the_first_step_saves_what_a_start_needs(begin, tmp_path):
    """SIGTERM comes while the untrained model writes its sample."""
    early = before('sample', 'os.kill(os.getpid(), signal.SIGTERM)')
    ok(begin('plain', tmp_path, before=early))
    assert step_of(tmp_path) == 1


# --- a run goes on as itself or not at all ------------------------------------------------------------------
OTHERS = {'n_layer': 3, 'n_kv_head': 1, 'n_embd': 64, 'tie_embeddings': False, 'vocab_multiple': 64,
          'optimizer': 'muon', 'objective': 'mlm', 'document_mask': True, 'batch_size': 4, 'seed': 1}


def test_a_run_is_not_resumed_as_another(resume, straight):
    """A flag that would make another run of it is refused, and so are other data."""
    out = straight('plain')
    before = contents(out)
    for name, value in OTHERS.items():
        mistake(resume(out, '--max_steps=20', f'--{name}={value}'), name)
    assert contents(out) == before


def test_the_flags_of_its_first_command_may_be_typed_again(begin, straight, tmp_path):
    """With the other settings that such a command has, for instance in a script of a cluster."""
    out = shutil.copytree(straight('muon'), tmp_path / 'run')
    ok(begin('muon', out, '--init_from=resume', '--max_steps=20', '--seed=1337', '--batch_size=8'))
    assert step_of(out) == 20


@pytest.mark.parametrize('file', ['meta.json', 'train.bin', 'val.bin'])
def test_a_run_goes_on_with_its_data_only_wherever_they_are(resume, straight, place, tmp_path, file):
    out = shutil.copytree(straight('plain'), tmp_path / 'run')
    data = shutil.copytree(place / 'data', tmp_path / 'data')
    text = (data / file).read_bytes()
    (data / file).write_bytes(text[2:] + text[:2] if file.endswith('.bin') else text + b'\n')
    before = contents(out)
    mistake(resume(out, '--max_steps=20', f'--data_dir={data}'), str(data), 'data')
    assert contents(out) == before
    (data / file).write_bytes(text)
    ok(resume(out, '--max_steps=20', f'--data_dir={data}'))


def test_a_stream_goes_on_with_its_shards_and_processes_only(resume, straight, place, tmp_path):
    out = shutil.copytree(straight('stream'), tmp_path / 'run')
    before = contents(out)
    shards = shutil.copytree(place / 'shards', tmp_path / 'shards')
    write(shards / '4.jsonl', [{'text': 'more'}])
    mistake(resume(out, '--max_steps=20', f'--streaming={shards}'), 'data')
    result = resume(out, '--max_steps=20', processes=2)
    assert result.returncode == 2 and 'resume it with as many processes, not with 2' in result.stderr
    mistake(resume(out, '--max_steps=20', '--streaming='))
    mistake(resume(straight('plain'), '--max_steps=20', '--streaming=shards'))
    assert contents(out) == before


def test_a_run_that_has_reached_its_steps_is_told_to_raise_them(resume, straight):
    before = contents(straight('plain'))
    mistake(resume(straight('plain')), 'max_steps', '18')
    assert contents(straight('plain')) == before


def test_a_setting_that_may_change_is_used(resume, straight, tmp_path):
    out = shutil.copytree(straight('plain'), tmp_path / 'run')
    new = {'max_steps': 30, 'weight_decay': 9.0, 'learning_rate': 0.02, 'log_interval': 3, 'dropout': 0.0}
    ok(resume(out, *(f'--{name}={value}' for name, value in new.items())))
    config = read_json(out / 'config.json')
    assert new == {name: config[name] for name in new}
    assert state(out)['config'] == {**config, 'out_dir': ''}
    rows = [row for row in metrics(out) if row['step'] > 18 and 'loss' in row]
    assert [row['step'] for row in rows] == [21, 24, 27, 30]
    assert rows[0]['lr'] > 5e-3                 # the old schedule has ended near 0
    a, b = (state(folder)['model']['blocks.0.mlp.w_up.weight'] for folder in (out, straight('plain')))
    assert a.norm() < 0.75 * b.norm()           # 12 steps, each 0.02 * 9 of a decay


def test_a_run_goes_back_to_the_checkpoint_before_with_a_lower_rate(resume, straight, tmp_path):
    """cp last-1.pt last.pt: the way back for a run that exploded later than it was noticed."""
    out = shutil.copytree(straight('plain'), tmp_path / 'run')
    shutil.copy(out / 'last-1.pt', out / 'last.pt')
    ok(resume(out, '--learning_rate=1e-4'))
    assert [row['step'] for row in metrics(out) if 'loss' in row] == [*range(1, 19)]
    assert series(out, 'lr')[17] < series(straight('plain'), 'lr')[17]
    assert series(out, 'loss')[:17] == series(straight('plain'), 'loss')[:17]


# --- init_from=auto -----------------------------------------------------------------------------------------
def test_auto_begins_resumes_last_pt_and_resumes_last_1_pt(begin, straight, tmp_path):
    out = tmp_path / 'run'
    assert begin('plain', out, '--init_from=auto', before=accident('kill', 1)).returncode == -9
    assert begin('plain', out, '--init_from=auto', before=accident('kill', 6)).returncode == -9
    assert step_of(out) == 4 and step_of(out, 'last-1.pt') == 0
    (out / 'last.pt').unlink()
    ok(begin('plain', out, '--init_from=auto'))
    expect_same_run(out, straight('plain'))


# --- the folder of an older commit --------------------------------------------------------------------------
def test_the_weights_of_an_older_commit_are_measured_sampled_and_fine_tuned(conversations, tmp_path):
    """Such a run is not resumed."""
    shutil.copytree(ROOT / 'tests/old_run', tmp_path, dirs_exist_ok=True)
    here = {'cwd': tmp_path}
    shutil.copy(tmp_path / 'data/val.bin', tmp_path / 'data/train.bin')
    meta = read_json(tmp_path / 'data/meta.json')
    meta['tokens']['train'] = meta['tokens']['val']
    write(tmp_path / 'data/meta.json', [meta])
    begin = lambda *flags: run('train.py', '--data_dir=data', '--block_size=32', *flags, **here)
    before = contents(tmp_path / 'run')
    mistake(begin('--out_dir=run', '--init_from=resume', '--max_steps=999'), 'run')
    assert contents(tmp_path / 'run') == before
    for start in 'run', 'scratch':
        ok(begin(f'--init_from={start}', f'--out_dir=from_{start}', '--max_steps=1', '--batch_size=2',
                 '--device=cpu'))
    first = [series(tmp_path / f'from_{start}', 'val_loss')[0] for start in ('run', 'scratch')]
    assert first[0] < first[1] - 0.5
    ok(run('eval.py', '--ckpt=run', '--data_dir=data', '--device=cpu', **here))
    loss = read_json(tmp_path / 'run/eval.json')['tasks']['loss']
    assert loss['trained']['nats'] < loss['untrained']['nats'] - 0.5
    assert 'def' in ok(run('sample.py', '--ckpt=run', '--prompt=def f', '--max_new_tokens=4', **here))
    ok(run('sft.py', '--init_from=run', f'--data_dir={conversations}', '--out_dir=sft', '--max_steps=2',
           '--batch_size=2', '--device=cpu', **here))
