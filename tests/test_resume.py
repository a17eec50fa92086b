"""An interrupted run, resumed, is the straight run: bit for bit, whatever interrupted it."""
import functools
import os
import shutil

from accidents import KILLED_WHILE_RENAMING, SHORT_SAMPLES, accident, before, killed_while_saving
from conftest import TINY, contents, expect_same_run, metrics, mistake, ok, run, same
from conftest import shared_fixture, slow, state, with_each, write

# dropout, so that lost random state would show; saves and evaluations at different steps
FLAGS = (f'{TINY} --max_steps=18 --save_interval=4 --eval_interval=6 --warmup_steps=0.2 '
         '--log_interval=1 --learning_rate=1e-2 --dtype=float32 --dropout=0.1')
CASES = {'plain': '', 'stream': '--streaming=shards',
         'muon': '--optimizer=muon --dtype=bfloat16 '
                 '--tie_embeddings=False --embedding_lr=10 --document_mask=True'}
SIGNALS = {'plain': 'SIGINT', 'stream': 'SIGTERM', 'muon': 'SIGINT'}


@shared_fixture
def place(numbers, tmp_path_factory):
    """A folder with data, also as shards of text."""
    folder = tmp_path_factory.mktemp('place')
    shutil.copytree(numbers, folder / 'data')
    for i in range(4):
        texts = [{'text': f'{n} times {n} is {n * n}.\n'} for n in range(i, 400, 4)]
        write(folder / f'shards/{i}.jsonl', texts)
    return folder


@shared_fixture
def begin(place):
    """begin(case, its folder, *flags)"""
    return lambda case, out, *more, before='', **how: run(
        'train.py', f'--data_dir=data --out_dir={out}', FLAGS, CASES[case], *more,
        cwd=place, before=SHORT_SAMPLES + before, **how)


@shared_fixture
def straight(begin, tmp_path_factory):
    """straight(case) is the folder of a run that nothing disturbs."""
    @functools.cache
    def straight(case, processes=1):
        out = tmp_path_factory.mktemp('straight') / 'run'
        ok(begin(case, out, processes=processes))
        return out
    return straight


@shared_fixture
def resume(place):
    """The folder is enough. Relative paths are those of the first command."""
    return lambda out, *more, before='': run(f'train.py --out_dir={out} --init_from=resume',
                                             *more, cwd=place, before=SHORT_SAMPLES + before)


def step_of(out, file='last.pt'):
    return state(out, file)['step']


@with_each('case', CASES)
def test_a_run_stopped_killed_and_killed_while_saving_is_the_straight_run(begin, resume, straight,
                                                                          case,
                                                                          tmp_path):
    out = tmp_path / 'run'
    straight = straight(case)
    stopped = begin(case, out, before=before('clip', f"""
        if n == 5:
            os.kill(os.getpid(), signal.{SIGNALS[case]})"""))
    printed = ok(stopped) + stopped.stderr
    assert 'stopped at step 6' in printed and '--init_from=resume' in printed
    assert step_of(out) == 6
    killed = [resume(out, before=killed_while_saving(12))]
    assert step_of(out) == 8
    killed += [resume(out, before=KILLED_WHILE_RENAMING)]
    assert not (out / 'last.pt').exists() and step_of(out, 'last-1.pt') == 8
    killed += [resume(out, '--init_from=auto', before=accident('kill', 6))]     # from last-1.pt
    assert [result.returncode for result in killed] == [-9] * 3, killed
    assert step_of(out) == 12 and metrics(out)[-1]['step'] == 14
    ok(resume(out))
    expect_same_run(out, straight)


@slow
def test_a_stream_of_two_processes_killed_three_times_is_the_straight_run(begin, straight, tmp_path):
    """As many as any part of it needs. init_from=auto begins, and then goes on: its first command
    is typed again."""
    again = functools.partial(begin, 'stream', tmp_path / 'run', '--init_from=auto')
    for n in 2, 6, 5:
        assert again(processes=2, before=accident('kill', n)).returncode == -9
    mistake(again(), 'processes, not with 1')
    assert 'other data' in again('--streaming=shards/[12].jsonl', processes=2).stderr
    ok(again(processes=2))
    expect_same_run('run', straight('stream', 2))


def test_where_the_last_checkpoint_is_damaged_the_one_before_serves(resume, straight, tmp_path):
    """Where both are, it is one sentence, and nothing is touched."""
    straight = straight('plain')
    out = shutil.copytree(straight, tmp_path / 'run')
    os.truncate(out / 'last.pt', 9999)
    killed = resume(out, before=KILLED_WHILE_RENAMING)          # the good one is not lost by a save
    assert killed.returncode == -9 and step_of(out, 'last-1.pt') == 16
    assert f'{out}/last.pt cannot be read' in killed.stdout
    ok(resume(out))
    assert metrics(out) == metrics(straight) and same(state(out), state(straight))
    for name in 'last.pt', 'last-1.pt':
        os.truncate(out / name, 9)
    kept = contents(out)
    mistake(resume(out, '--max_steps=20'), str(out))
    assert contents(out) == kept
