"""prepare.py killed, without room, with much to do: it resumes, never from stale work; and its workers."""
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from accidents import killed_after
from conftest import ROOT, contents, machine, mistake, ok, run, write
from preparing import RAW, WORDS

from tokenizer import SPECIAL_TOKENS, Tokenizer

SHARDS = 12
CLEANED = '*/?????'


def flags(source, out, *more):
    return [f'--source={source}', f'--out_dir={out}', '--vocab_size=340', '--max_gibberish=0',
            '--dedup=exact', '--num_workers=2', '--overwrite=True', *more]


def shards(folder, seed):
    """Shards of prose of 30 kB, all the same size whatever the seed, and of the same time."""
    r = random.Random(seed)
    for i in range(SHARDS):
        texts = [' '.join(r.choices(WORDS, k=300))[:1000].ljust(1000, 'x') for _ in range(30)]
        os.utime(write(folder / f'{i:05}.jsonl', [{'text': text} for text in texts]), (1e9, 1e9))
    return folder


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """A source, one that differs from it in nothing but the texts, and the first one prepared."""
    base = tmp_path_factory.mktemp('restart')
    first, second = shards(base / 'first', 1), shards(base / 'second', 2)
    ok(run('prepare.py', *flags(first, base / 'out')))
    return first, second, base / 'out'


@pytest.fixture
def source(folders, tmp_path):
    return shutil.copytree(folders[0], tmp_path / 'source')             # with its times


def results(out):
    names = 'train.bin', 'val.bin', 'tokenizer.json', 'report.json'
    return [(out / name).read_bytes() for name in names]


def test_after_a_kill_at_any_moment_no_shard_is_cleaned_twice_and_none_is_lost(folders, source, tmp_path):
    out = tmp_path / 'out'
    process = subprocess.Popen([sys.executable, ROOT / 'prepare.py', *flags(source, out)],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while len(list(out.glob(f'.prepare_py/{CLEANED}'))) < 3 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)                     # until the workers, who hold the pipe, end
    assert process.returncode == -signal.SIGKILL and not (out / 'meta.json').exists()
    names = sorted(p.stem for p in out.glob(f'.prepare_py/{CLEANED}'))
    assert 3 <= len(names) < SHARDS
    for name in names:      # other texts of the same size and time: only who reads them again will notice
        shutil.copy2(folders[1] / f'{name}.jsonl', source)
    ok(run('prepare.py', *flags(source, out)))
    assert results(out)[:3] == results(folders[2])[:3] and not (out / '.prepare_py').exists()


def test_what_was_cleaned_otherwise_is_never_used(folders, source, tmp_path):
    words = tmp_path / 'words.txt'
    more = [f'--toxic_words={words}']
    for change in ('list', 'setting', 'texts'):
        out, fresh = tmp_path / change / 'out', tmp_path / change / 'fresh'
        words.write_text(WORDS[500], encoding='utf-8')
        killed = run('prepare.py', *flags(source, out, *more), '--num_workers=1',
                     before=killed_after('clean a shard', 3))
        assert killed.returncode == -signal.SIGKILL
        if change == 'list':
            words.write_text(f'{WORDS[600]}\n', encoding='utf-8')
        elif change == 'setting':
            more += ['--min_words=200']
        else:
            shutil.copy(folders[1] / '00000.jsonl', source)
        for folder in (out, fresh):
            ok(run('prepare.py', *flags(source, folder, *more)))
        assert results(out) == results(fresh) != results(folders[2]), change


def test_a_full_disk_leaves_the_old_data_and_then_the_run_resumes(folders, data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path, dirs_exist_ok=True)
    before = contents(tmp_path)
    for kilobytes in (10, 100):             # too few for a shard, and for train.bin
        limit = ['bash', '-c', f'ulimit -f {kilobytes}; exec "$@"', 'bash']     # in a fork no `.tmp` would go
        command = [*limit, sys.executable, ROOT / 'prepare.py', *flags(folders[0], tmp_path)]
        machine(subprocess.run(command, capture_output=True, text=True), 'File too large', 'the disk is full')
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.name != '.prepare_py'} == before
    ok(run('prepare.py', *flags(folders[0], tmp_path)))
    assert results(tmp_path) == results(folders[2])


def test_a_mistake_of_a_worker_is_one_line_and_so_is_its_death_which_costs_nothing(folders, source, tmp_path):
    Tokenizer.char('abc', SPECIAL_TOKENS).save(tmp_path / 'small.json')
    result = run('prepare.py', *flags(source, tmp_path / 'no', f'--tokenizer={tmp_path}/small.json'))
    mistake(result, 'no character of this char tokenizer')

    command = ['prepare.py', *flags(source, tmp_path / 'out')]
    result = run(*command, before=killed_after('clean a shard', 2), timeout=100)    # as if memory were full
    mistake(result, 'memory', '--num_workers=1')
    assert list(tmp_path.glob('out/.prepare_py/*/?????/notes.json'))        # whichever shard was done first
    ok(run(*command))
    assert results(tmp_path / 'out')[:3] == results(folders[2])[:3]


def test_memory_does_not_grow_with_the_input(tmp_path):
    r = random.Random(3)
    for i in range(12):
        rows = [b'{"text": "%s"}\n' % r.randbytes(5000).hex().encode() for _ in range(500)]
        (tmp_path / f'{i:02}.jsonl').write_bytes(b''.join(rows))
    measure = 'import resource, subprocess as s, sys; s.run(sys.argv[1:], check=True, stdout=2)\n' \
              'print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)'
    peaks = []
    for pattern in '0[0-2].jsonl', '*.jsonl':           # 15 MB, 60 MB
        peaks.append(int(ok(subprocess.run(
            [sys.executable, '-c', measure, sys.executable, ROOT / 'prepare.py', f'--out_dir={tmp_path}/out',
             *RAW, '--tokenizer=byte', '--dedup=exact', '--num_workers=2', '--overwrite=True',
             f'--source={tmp_path}/{pattern}'],
            capture_output=True, text=True))))
    assert (tmp_path / 'out/train.bin').stat().st_size > 100_000_000
    assert abs(peaks[1] - peaks[0]) < 30_000, peaks     # kB
