"""prepare.py killed, without room, with much to do: the same command goes on, but never from stale work."""
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, mistake, ok, run
from test_mistakes import limited
from test_prepare import RAW

from parts.prepare import corpus

SHARDS, CLEANED, ENCODED = 16, '*/?????.json', f'*/?????.{"?" * 12}.npy'
WORDS = [''.join(random.Random(i).choices('aeinorst', k=2 + i % 8)) for i in range(999)]


def flags(source, out, *more):
    return [f'--source={source}', f'--out_dir={out}', '--vocab_size=340', '--max_gibberish=0',
            '--dedup=exact', '--processes=2', *more]


def write(folder, seed):
    """Shards of prose of 100 kB, all the same size whatever the seed, and of the same time."""
    r = random.Random(seed)
    folder.mkdir()
    for i in range(SHARDS):
        texts = [' '.join(r.choices(WORDS, k=300))[:1000].ljust(1000, 'x') for _ in range(100)]
        path = folder / f'{i:05}.jsonl'
        path.write_text(''.join(json.dumps({'text': t}) + '\n' for t in texts), encoding='utf-8')
        os.utime(path, (1e9, 1e9))
    return folder


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """A source, one that differs from it in nothing but the texts, and the first one prepared."""
    base = tmp_path_factory.mktemp('restart')
    first, second = write(base / 'first', 1), write(base / 'second', 2)
    ok(run('prepare.py', *flags(first, base / 'out')))
    return first, second, base / 'out'


@pytest.fixture
def source(folders, tmp_path):
    return shutil.copytree(folders[0], tmp_path / 'source')             # with its times


def results(out):
    files = 'train.bin', 'val.bin', 'tokenizer.json', 'report.json'
    return [(out / name).read_bytes() for name in files]


def killed(out, pattern, arguments, least=3):
    """Start prepare.py, kill -9 it when .work has that many such files, and tell which it has at last."""
    process = subprocess.Popen([sys.executable, ROOT / 'prepare.py', *arguments], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
    while len(list(out.glob(f'.work/{pattern}'))) < least and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    printed = process.communicate(timeout=10)[0]        # until the workers, who hold the pipe, end
    assert process.returncode == -signal.SIGKILL and not (out / 'meta.json').exists(), printed
    return sorted(p.name for p in out.glob(f'.work/{pattern}'))


@pytest.mark.parametrize('pattern, more', [
    (CLEANED, []), (ENCODED, []), (ENCODED, ['--vocab_size=360', '--val_fraction=0.2'])])   # are used later
def test_after_a_kill_no_shard_is_cleaned_twice_and_none_is_lost(pattern, more, folders, source, tmp_path):
    out, same = tmp_path / 'out', folders[2]
    killed(out, pattern, flags(source, out))
    done = sorted(p.name for p in out.glob(f'.work/{CLEANED}'))
    assert 3 <= len(done) < SHARDS if pattern == CLEANED else len(done) == SHARDS
    for name in done:       # other texts of the same size and time: only who reads them again will notice
        shutil.copy2(folders[1] / f'{name}l', source)
    ok(run('prepare.py', *flags(source, out, *more)))
    if more:
        ok(run('prepare.py', *flags(folders[0], same := tmp_path / 'same', *more)))
    assert results(out)[:3] == results(same)[:3] and not (out / '.work').exists()


@pytest.mark.parametrize('change', ['setting', 'source', 'list', 'half of .work'])
def test_what_was_cleaned_otherwise_is_never_used(change, folders, source, tmp_path):
    out, words, more = tmp_path / 'out', tmp_path / 'words.txt', [f'--toxic_words={tmp_path}/words.txt']
    words.write_text(WORDS[500], encoding='utf-8')
    assert '00000.json' in killed(out, CLEANED, flags(source, out, *more))
    if change == 'source':
        shutil.copy(folders[1] / '00000.jsonl', source)
    elif change == 'list':
        words.write_text(f'{WORDS[600]}\n', encoding='utf-8')
    elif change == 'setting':
        more += ['--min_words=155']
    if change == 'half of .work':       # killed while it was deleted
        folder, = (out / '.work').iterdir()
        folder.rename(f'{folder}.old')
    for folder in (out, tmp_path / 'fresh'):
        ok(run('prepare.py', *flags(source, folder, *more)))
    assert results(out) == results(tmp_path / 'fresh') != results(folders[2])


def test_the_state_of_the_work_differs_with_every_setting_and_file(tmp_path):
    (tmp_path / 'part.py').write_text('x = 1', encoding='utf-8')
    file, state = {'path': str(tmp_path / 'part.py')}, corpus.state_of
    before = state({'a': 1}, [file])
    assert state({'a': 1}, [file]) == before != state({'a': 2}, [file])
    (tmp_path / 'part.py').write_text('x = 10', encoding='utf-8')
    assert state({'a': 1}, [file]) != before
    same = [state({}, [{**file, 'sha256': sha}]) for sha in 'aab']      # of a hub: may not be there
    assert same[0] == same[1] != same[2]


def test_after_a_kill_while_shards_get_their_names_all_are_written(folders, source, tmp_path):
    out, text = tmp_path / 'out', '--write=text'
    base = killed(out, ENCODED, flags(source, out, text))[0]
    path, = out.glob(f'.work/*/{base}')
    os.remove(str(path).replace('.npy', '.jsonl.gz'))       # as if it had been moved
    for folder in (out, tmp_path / 'fresh'):
        ok(run('prepare.py', *flags(source, folder, text)))
    shards, same = ([p.read_bytes() for p in sorted(folder.glob('shards/*'))] for folder in
                    (out, tmp_path / 'fresh'))
    assert shards == same and len(shards) == SHARDS


def test_the_number_of_processes_changes_nothing(folders, tmp_path):
    ok(run('prepare.py', *flags(folders[0], tmp_path, '--processes=1')))
    assert results(tmp_path) == results(folders[2])


@pytest.mark.parametrize('kilobytes', [32, 500])       # too few for a shard, and for train.bin
def test_a_full_disk_leaves_the_old_data_and_then_the_run_goes_on(kilobytes, folders, data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path, dirs_exist_ok=True)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    mistake(limited(kilobytes, 'prepare.py', *flags(folders[0], tmp_path)), 'File too large')
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.name != '.work'} == before
    ok(run('prepare.py', *flags(folders[0], tmp_path)))
    assert results(tmp_path) == results(folders[2])


def test_memory_does_not_grow_with_the_input(tmp_path):
    r, peaks = random.Random(3), []
    for i in range(12):
        (tmp_path / f'{i:02}.jsonl').write_bytes(b''.join(
            b'{"text": "%s"}\n' % r.randbytes(1250).hex().encode() for _ in range(2000)))
    measure = 'import resource, subprocess as s, sys; s.run(sys.argv[1:], check=True, stdout=2)\n' \
              'print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)'
    for pattern in '0[0-2].jsonl', '*.jsonl':           # 15 MB, 60 MB
        peaks.append(int(ok(subprocess.run(
            [sys.executable, '-c', measure, sys.executable, ROOT / 'prepare.py', f'--out_dir={tmp_path}/out',
             *RAW, '--tokenizer=byte', '--dedup=exact', '--processes=2', f'--source={tmp_path}/{pattern}'],
            capture_output=True, text=True))))
    assert (tmp_path / 'out/train.bin').stat().st_size > 100_000_000
    assert abs(peaks[1] - peaks[0]) < 30_000, peaks     # kB


def test_thousands_of_shards_need_few_open_files(tmp_path):
    for i in range(200):
        (tmp_path / f'{i:03}.jsonl').write_text(json.dumps(f'{i} is a number'), encoding='utf-8')
    ok(subprocess.run(['bash', '-c', 'ulimit -n 150; exec "$@"', 'bash', sys.executable, ROOT / 'prepare.py',
                       f'--source={tmp_path}', f'--out_dir={tmp_path}/out', '--mode=raw', '--tokenizer=byte',
                       '--processes=2'], capture_output=True, text=True))
