"""prepare.py loses nothing and uses nothing twice: its bins, however the work is shared or interrupted; what
people bring; what is dropped and why; what it refuses."""
import gzip
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from accidents import before, killed_after
from conftest import ROOT, contents, machine, mistake, ok, read_json, run, shared
from preparing import DOCUMENTS, FOX, RAW, WORDS, documents, dropped, kept, prepare, prose, read, records
from preparing import report, write, write_records

from tokenizer import SPECIAL_TOKENS, Tokenizer

BPE = [*RAW, '--tokenizer=bpe', '--vocab_size=400', '--val_fraction=0.3']
TEXTS = [prose(i) for i in range(12)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp('source') / 'files', DOCUMENTS)


@pytest.fixture(scope='module')
def prepared(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp('prepared')
    prepare(out, folder, *BPE)
    return out


# --- split and bins -----------------------------------------------------------------------------------------
def test_tiny_shakespeare_has_the_published_sizes_and_decodes_to_itself(tmp_path):
    source = shared('tinyshakespeare.txt')
    prepare(tmp_path, source, '--tokenizer=char')
    _, tok, bins = read(tmp_path)
    assert (len(bins['train']), len(bins['val']), tok.vocab_size) == (1_003_854, 111_540, 65)
    assert (tok.decode(bins['train']) + tok.decode(bins['val'])).encode() == source.read_bytes()


def test_the_bytes_of_a_lone_text_are_its_tokens_but_for_personal_data(folder, tmp_path):
    text = 'Call (415) 555-2671, ann@uni.edu: naïve 漢字\r\n' * 50
    (tmp_path / 'one.txt').write_bytes(text.encode())
    out = tmp_path / 'mine'
    prepare(out, folder, *RAW, '--write=text', '--audit=1')             # its files go
    for pii in True, False:
        said = ok(run('prepare.py', f'--source={tmp_path}/one.txt', '--out_dir=.', '--tokenizer=byte',
                      '--overwrite=True', '--vocab_size=256', f'--pii={pii}', cwd=out))
        assert said.endswith('--out_dir=out/mine\n')
        meta, tok, bins = read(out)
        found = bytes([*bins['train'], *bins['val']]).decode()
        assert meta['vocab_size'] == tok.vocab_size == 256
        assert sorted(contents(out)) == ['meta.json', 'tokenizer.json', 'train.bin', 'val.bin']
        if pii:
            assert 'email: 50' in said and 'phone: 50' in said and '@' not in found
            found = found.replace('<PHONE>', '(415) 555-2671').replace('<EMAIL>', 'ann@uni.edu')
        assert found == text


def test_the_bins_hold_every_document_once_as_report_and_meta_say(prepared):
    r, (meta, tok, bins), sides = report(prepared), read(prepared), documents(prepared)
    assert kept(prepared) == sorted(DOCUMENTS)
    assert 6 <= len(sides['val']) <= 30             # 18 of 60 on average, 3.5 sigma
    for side, ids in bins.items():
        assert r['tokens'][side] == meta['tokens'][side] == len(ids)
        assert r['documents'][side] == len(sides[side])
        assert r['bytes'][side] == sum(len(text.encode()) for text in sides[side])
        assert meta['sha256'][side] == hashlib.sha256((prepared / f'{side}.bin').read_bytes()).hexdigest()
    # the tokenizer has seen training documents only
    assert tok.hash == Tokenizer.train(sides['train'], 400).hash != Tokenizer.train(DOCUMENTS, 400).hash


def test_the_split_follows_from_the_document_alone(prepared, tmp_path):
    copies = DOCUMENTS + DOCUMENTS[::3] + [f'{FOX}{i}' for i in range(40)]
    prepare(tmp_path / 'out', write(tmp_path / 'renamed', copies[::-1], 'z{}.md'), *RAW, '--val_fraction=0.3')
    before, after = documents(prepared), documents(tmp_path / 'out')
    for side in ('train', 'val'):
        assert set(before[side]) == set(after[side]) & set(DOCUMENTS)
    assert kept(tmp_path / 'out') == sorted(copies)
    assert not set(after['train']) & set(after['val'])


def test_of_few_documents_some_are_held_out_and_so_is_what_a_rule_keeps_by_chance(tmp_path):
    for n in 2, 3:
        prepare(tmp_path / 'out', write(tmp_path / f'{n}', TEXTS[:n]))
        assert min(map(len, documents(tmp_path / 'out').values())) >= 1 and len(kept(tmp_path / 'out')) == n
    files = [f'# Unit tests\ndef f():\n    a = b = c = d = e = {i}\n' for i in range(60)]
    prepare(tmp_path / 'out', write(tmp_path / 'in', files, '{}.py'), '--val_fraction=0.5', '--dedup=none')
    assert min(map(len, documents(tmp_path / 'out').values())) >= 3


def test_ids_are_as_wide_as_the_vocabulary_asks(prepared, folder, tmp_path):
    special = [f'<|{i}|>' for i in range(2 ** 16 - 256)]
    Tokenizer.byte([*special, '<|endoftext|>']).save(tmp_path / 'big.json')         # the largest id is used
    prepare(tmp_path / 'out', folder, *RAW, f'--tokenizer={tmp_path}/big.json')
    meta, _, bins = read(tmp_path / 'out')
    assert (meta['dtype'], meta['vocab_size'], bins['train'].max()) == ('uint32', 2 ** 16 + 1, 2 ** 16)
    assert kept(tmp_path / 'out') == sorted(DOCUMENTS) and read(prepared)[0]['dtype'] == 'uint16'


# --- shared and interrupted work ----------------------------------------------------------------------------
SHARDS = 12
CLEANED = '.prepare_py/*/?????'


def flags(source, out, *more):
    return [f'--source={source}', f'--out_dir={out}', '--vocab_size=340', '--max_gibberish=0',
            '--dedup=exact', '--num_workers=2', '--overwrite=True', *more]


def results(out):
    return [(out / name).read_bytes() for name in ('train.bin', 'val.bin', 'tokenizer.json', 'report.json')]


def shards(folder, seed):
    """Shards of prose of 30 kB, all the same size whatever the seed, and of the same time."""
    r = random.Random(seed)
    for i in range(SHARDS):
        texts = [' '.join(r.choices(WORDS, k=300))[:1000].ljust(1000, 'x') for _ in range(30)]
        rows = [{'text': text, 'license': 'MIT', 'path': f'{j}'} for j, text in enumerate(texts)]
        os.utime(write_records(folder / f'{i:05}.jsonl', rows), (1e9, 1e9))
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


def start(program, *arguments):
    return subprocess.Popen([sys.executable, program, *arguments], stdout=subprocess.PIPE, text=True,
                            stderr=subprocess.STDOUT, env={**os.environ, 'PYTHONPATH': str(ROOT)})


def changed(path, old, new):
    """A copy of prepare.py with that change."""
    text = (ROOT / 'prepare.py').read_text('utf-8')
    assert old in text
    path.write_text(text.replace(old, new), encoding='utf-8')
    return path


def test_however_processes_or_machines_share_the_work_the_bytes_are_the_same(folders, tmp_path):
    parts, spawned, one = (tmp_path / name for name in ('parts', 'spawned', 'one'))
    spawning = changed(tmp_path / 'spawning.py', "sys.platform == 'linux'", 'False')    # as macOS does
    jobs = [start(ROOT / 'prepare.py', *flags(folders[0], parts, f'--part={i}/2')) for i in (1, 2)]
    jobs += [start(spawning, *flags(folders[0], spawned))]
    said = [job.communicate(timeout=120)[0] for job in jobs]                    # all began at once
    assert 'part 1/2: 6 shards are clean' in said[0] and not (parts / 'meta.json').exists()
    for out, *more in (parts,), (one, '--num_workers=1'):
        ok(run('prepare.py', *flags(folders[0], out, *more)))
    assert results(parts) == results(spawned) == results(one) == results(folders[2])


def test_the_pieces_of_a_large_file_are_together_the_file(tmp_path):
    """What is large is said by a number of prepare.py: here 100 bytes."""
    small = changed(tmp_path / 'small.py', 'SHARD = 16_000_000', 'SHARD = 100')
    lines = [json.dumps({'text': f'line {i} ' * (i % 7)}) for i in range(500)]
    lines[17:19] = ['', '{broken']
    packed = gzip.compress('\n'.join(lines).encode())
    (tmp_path / 'in').mkdir()
    for name, data in {'a.jsonl': gzip.decompress(packed), 'b.jsonl.gz': packed,
                       'c.jsonl.gz': packed[:-400]}.items():
        (tmp_path / 'in' / name).write_bytes(data)
    prepare(tmp_path / 'whole', tmp_path / 'in', *RAW)
    several = [f'--source={tmp_path}/in', f'--out_dir={tmp_path}/several', *RAW, '--tokenizer=byte']
    job = start(small, *several, '--num_workers=2')
    assert job.wait(120) == 0, job.stdout.read()
    for side, texts in documents(tmp_path / 'whole').items():
        assert sorted(texts) == sorted(documents(tmp_path / 'several')[side])
    assert report(tmp_path / 'whole')['malformed'] == report(tmp_path / 'several')['malformed'] == 4

    # judged answers to one problem stay together, because they become pairs
    answers = [{'task': 'problems', 'task_id': i, 'messages': [{'role': 'user', 'content': f'do {i}'}],
                'completion': f'{i} {outcome}', 'outcome': outcome, 'preferred': False}
               for outcome in ('passed', 'wrong') for i in range(30)]
    source = write_records(tmp_path / 'samples.jsonl', answers)
    job = start(small, '--kind=preference', f'--source={source}', f'--out_dir={tmp_path}/pairs')
    assert job.wait(120) == 0, job.stdout.read()
    assert len(records(tmp_path / 'pairs')) == 30


def test_shards_of_text_say_what_they_are_and_where_each_document_is_from(folders, tmp_path):
    meta = read(folders[2])[0]
    prepare(tmp_path, folders[0], '--write=text', '--dedup=exact', '--max_gibberish=0')
    texts = []
    for path in sorted(tmp_path.glob('shards/*')):
        data = path.read_bytes()
        name = path.name.removesuffix('.jsonl.gz')
        assert read_json(tmp_path / 'meta.json')['sha256'][name] == hashlib.sha256(data).hexdigest()
        for line in map(json.loads, gzip.decompress(data).splitlines()):
            assert line['license'] == 'MIT' and line['source'] == str(folders[0]) and line['path']
            texts.append(line['text'])
    assert texts == documents(folders[2])['train'] and len(texts) == meta['documents']['train']


def test_after_a_kill_at_any_moment_no_shard_is_cleaned_twice_and_none_is_lost(folders, source, tmp_path):
    out = tmp_path / 'out'
    process = start(ROOT / 'prepare.py', *flags(source, out))
    while len(list(out.glob(CLEANED))) < 3 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGSTOP)
    mistake(run('prepare.py', *flags(source, out)), 'another prepare.py works')
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)                     # until the workers, who hold the pipe, end
    assert process.returncode == -signal.SIGKILL and not (out / 'meta.json').exists()
    names = sorted(path.stem for path in out.glob(CLEANED))
    assert 3 <= len(names) < SHARDS
    for name in names:      # other texts of the same size and time: only who reads them again will notice
        shutil.copy2(folders[1] / f'{name}.jsonl', source)
    ok(run('prepare.py', *flags(source, out)))
    assert results(out)[:3] == results(folders[2])[:3] and not (out / '.prepare_py').exists()


@pytest.mark.parametrize('change', ['list', 'setting', 'texts'])
def test_what_was_cleaned_otherwise_is_never_used(folders, source, tmp_path, change):
    out, fresh, words = (tmp_path / name for name in ('out', 'fresh', 'words.txt'))
    words.write_text(WORDS[500], encoding='utf-8')
    more = [f'--toxic_words={words}']
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
    assert results(out) == results(fresh) != results(folders[2])


def test_a_full_disk_or_a_failure_leaves_the_old_data_and_then_the_run_resumes(folders, data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path, dirs_exist_ok=True)
    before = contents(tmp_path)
    for kilobytes in (10, 100):             # too few for a shard, and for train.bin
        limit = ['bash', '-c', f'ulimit -f {kilobytes}; exec "$@"', 'bash']     # in a fork no `.tmp` would go
        command = [*limit, sys.executable, ROOT / 'prepare.py', *flags(folders[0], tmp_path)]
        machine(subprocess.run(command, capture_output=True, text=True), 'File too large', 'the disk is full')
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.name != '.prepare_py'} == before
    mistake(run('prepare.py', *flags(folders[0], tmp_path, '--min_words=9999')), 'no documents are left')
    assert contents(tmp_path) == before
    ok(run('prepare.py', *flags(folders[0], tmp_path)))
    assert results(tmp_path) == results(folders[2])


def test_a_worker_that_fails_or_dies_is_one_line_and_costs_nothing(folders, source, tmp_path):
    Tokenizer.char('abc', SPECIAL_TOKENS).save(tmp_path / 'small.json')
    result = run('prepare.py', *flags(source, tmp_path / 'no', f'--tokenizer={tmp_path}/small.json'))
    mistake(result, 'no character of this char tokenizer')
    command = ['prepare.py', *flags(source, tmp_path / 'out')]
    result = run(*command, before=killed_after('clean a shard', 2), timeout=100)    # as if memory were full
    mistake(result, 'memory', '--num_workers=1')
    assert list(tmp_path.glob(f'out/{CLEANED}/notes.json'))             # whichever shard was done first
    ok(run(*command))
    assert results(tmp_path / 'out')[:3] == results(folders[2])[:3]
    changes = before('clean a shard', f"open({str(source / '00000.jsonl')!r}, 'a').write(' ')")
    late = run('prepare.py', *flags(source, tmp_path / 'late', '--num_workers=1'), before=changes)
    mistake(late, 'changed while it was read')


def test_memory_does_not_grow_with_the_input(tmp_path):
    r = random.Random(3)
    for i in range(9):
        rows = [b'{"text": "%s"}\n' % r.randbytes(5000).hex().encode() for _ in range(300)]
        (tmp_path / f'{i:02}.jsonl').write_bytes(b''.join(rows))
    measure = 'import resource, subprocess as s, sys; s.run(sys.argv[1:], check=True, stdout=2)\n' \
              'print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)'
    peaks = []
    for pattern in '0[0-2].jsonl', '*.jsonl':           # 9 MB, 27 MB
        peaks.append(int(ok(subprocess.run(
            [sys.executable, '-c', measure, sys.executable, ROOT / 'prepare.py', '--tokenizer=byte',
             *flags(f'{tmp_path}/{pattern}', tmp_path / 'out', *RAW, '--dedup=exact')],
            capture_output=True, text=True))))
    assert (tmp_path / 'out/train.bin').stat().st_size > 45_000_000
    assert abs(peaks[1] - peaks[0]) < 12_000, peaks     # kB


# --- what people bring --------------------------------------------------------------------------------------
def test_the_reader_of_records_is_the_same_text_in_extras():
    texts = [(ROOT / name).read_text('utf-8') for name in ('prepare.py', 'extras/records.py')]
    fences = [re.search('# --- records: same text.*?# --- end records', text, re.S)[0] for text in texts]
    assert fences[0] == fences[1]


NAIVE = 'Der Müller sah den Fluß, naïve Träume, „früh“ – für 5 €.\n' * 5
ROWS = [{'text': NAIVE, 'n': 1}, 'a string', {'text': ' ', 'content': 'lone \ud800 surrogate'},
        {'code': 'x = 1'}]
LINES = '\n\n'.join(map(json.dumps, ROWS)).encode()                 # with blank lines between
READ = [NAIVE, 'a string', 'lone \ufffd surrogate', 'x = 1']
LONG = '\n\n'.join(f'{i} ' + 'word ' * 90 for i in range(10_000))             # 4.5 MB
MIXED = [b'{"text": "a"}', b'{"text": "cut o', b'{"text": "b"}', b'{"text": "a raw \0 byte"}',
         b'{"text": "na\xefve"}', b'[' * 100_000, b'null', b'', b'{"title": "x"}', b'{"text": null}', b'"c"']
NOISE = json.dumps({'text': random.Random(0).randbytes(60_000).hex()}).encode()
ARCHIVE = gzip.compress(MIXED[0] + b'\n' + NOISE)
FILES = [       # name, bytes, texts that arrive, how many can't be read, and the line of the first
    *((f'a.jsonl{end}', pack(mark + LINES), READ, 0, 0) for mark in (b'', '\ufeff'.encode())
      for end, pack in (('', bytes), ('.gz', gzip.compress))),
    ('a.jsonl', LINES.decode().encode('utf-16'), READ, 0, 0),
    ('a.json', f'\n {json.dumps(ROWS, indent=1)}'.encode(), READ, 0, 0), ('a.ndjson', LINES, READ, 0, 0),
    *((name, pack(NAIVE.encode(encoding)), [NAIVE], 0, 0)
      for name, pack in (('a.txt', bytes), ('a.md.gz', gzip.compress))
      for encoding in ('utf-8', 'utf-8-sig', 'utf-16', 'cp1252')),
    *(('a.txt', data, [], 1, 1) for data in (
        'наивный текст'.encode('koi8-r'), b'\x89PNG\r\n\0\0', 'plain text'.encode('utf-16-le'), b'a\0b' * 9,
        b'one word and a byte that is none: \x81')),
    ('a.jsonl', b'\n'.join(MIXED), ['a', 'b', 'c'], 7, 2),
    ('a.json', b'{"text": "cut o\n{"text": "b"}\n', ['b'], 1, 1),
    ('a.json', b'\n \n[{"text": "a"}, 17,\n["b"], {"content": "c"}]', ['a', 'c'], 2, 2),
    ('a.json', b'[]', [], 0, 0), ('a.json', b'[{"text": "a"},', [], 1, 1),
    ('a.jsonl.gz', ARCHIVE[:len(ARCHIVE) // 2], ['a'], 1, 2), ('a.jsonl.gz', b'', [], 0, 0),
    ('a.txt.gz', b'x', [], 1, 1), ('a.txt.gz', ARCHIVE[:-100], [], 1, 1),
    ('a.txt.gz', ARCHIVE[:10] + b'\xff' * 100, [], 1, 1), ('\udce9.txt', b'\xff', [], 1, 1),
    ('a.txt', b'', [], 0, 0),
    ('a.jsonl', json.dumps({'text': LONG}).encode(), [], 0, 0)]             # dropped: a record is no book


def test_what_is_good_arrives_and_garbage_is_counted_and_named_with_its_line(tmp_path):
    for i, (name, data, *_) in enumerate(FILES):
        write(tmp_path / f'in/{i}', [])
        (tmp_path / f'in/{i}' / name).write_bytes(data)
    (tmp_path / 'in/long.txt').write_text(LONG, encoding='utf-8')
    prepare(tmp_path / 'out', tmp_path / 'in', *RAW, '--num_workers=2')
    found = kept(tmp_path / 'out')
    cut = [text for text in found if len(text) > 100_000]       # a book comes in parts, at paragraphs
    assert sorted(map(len, cut))[-1] <= 4_000_000 and len(cut) == 2 and sum(map(len, cut)) == len(LONG)
    assert sum(text.endswith('\n\n') for text in cut) == len(cut) - 1
    rest = [text for text in found if text not in cut]
    assert rest == sorted(sum((texts for _, _, texts, *_ in FILES), []))
    r, page = report(tmp_path / 'out'), (tmp_path / 'out/report.md').read_text(encoding='utf-8')
    assert r['malformed'] == sum(n for *_, n, _ in FILES)
    assert r['stages'][0]['dropped'] == {'empty': 1, 'too long': 1}
    for i, (name, *_, n, first) in enumerate(FILES):
        place = f'/{i}/{name}:{first}: '.encode('utf-8', 'backslashreplace').decode()
        assert (place in page) == bool(n), (place, page)
    assert 'iconv -f utf-16' in page


def test_files_of_any_ending_are_read_links_to_folders_are_not_and_what_is_passed_over_is_said(tmp_path):
    source = write(tmp_path / 'in', TEXTS)
    names = 'A.PY b.markdown c.HTML c.rst d.tex d.org d.adoc x.c a.png b.png f a.pdf'.split()
    names += 'sub/y.py .hidden/x.py node_modules/x.js env/pyvenv.cfg env/z.py ../far/f.py'.split()
    for name in names:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(f'def f():\n\treturn  "{name}"\n', encoding='utf-8')
    for name, to in (('a', '.'), ('sub/up', '..'), ('far', '../far'), ('link.py', '../far/f.py')):
        (source / name).symlink_to(to)
    for _ in range(2):                          # the second time, there are data of ours in the source
        said = prepare(source / 'out', source, *RAW)
        assert 'tokenizer: byte, 320' in said and len(kept(source / 'out')) == 12 + 8 + 2
        for text in said, (source / 'out/report.md').read_text(encoding='utf-8'):
            others, = re.findall('passed[ _]over: (.*2 .png, .*)', text)
            for other in '1 .pdf', '1 without ending', '1 node_modules/', '1 .hidden/', '1 env/':
                assert other in others, text
    for pattern in '/**/*.py', '/sub/../**/*.py':
        prepare(tmp_path / 'out', f'{source}{pattern}', *RAW)
        found = {re.findall('"(.*)"', text)[0] for text in kept(tmp_path / 'out')}
        assert found == {'sub/y.py', '../far/f.py'}


def test_one_file_can_be_many_documents_or_raw_and_its_field_can_be_named(tmp_path):
    (tmp_path / 'a.txt').write_text('<|endoftext|>\n'.join(f'{text}\n' for text in TEXTS), encoding='utf-8')
    write_records(tmp_path / 'b.jsonl', [{'title': 'x', 'article': text} for text in TEXTS])
    for name, *more in ('a.txt',), ('b.jsonl', '--text_field=article'):
        prepare(tmp_path / 'out', tmp_path / name, *more)
        assert kept(tmp_path / 'out') == sorted(TEXTS)
    (tmp_path / 'c.dat').write_text('x,y\n' * 20, encoding='utf-8')
    prepare(tmp_path / 'out', tmp_path / 'c.dat', '--mode=raw')


# --- what each stage drops ----------------------------------------------------------------------------------
def test_personal_data_are_masked_in_records_and_in_chats_and_counted(tmp_path):
    rows = [{'text': f'{text} Write to ann{i}@uni.edu.'} for i, text in enumerate(TEXTS)]
    talks = [{'prompt': f'Is ann{i}@uni.edu {i}?', 'completion': f'Ask bob{i}@uni.edu.'} for i in range(12)]
    for name, some, n, *more in (('a.ndjson', rows, 12), ('b.jsonlines', rows, 12),
                                 ('c.jsonl', talks, 24, '--kind=sft', '--dedup=none')):
        out = tmp_path / name[0]
        prepare(out, write_records(tmp_path / name, some), *more)
        assert report(out)['counts']['personal data'] == {'email': n}, name
        found = str(records(out)) if more else ''.join(kept(out))
        assert found.count('<EMAIL>') == n and '@' not in found, name


def planted():
    """Good documents, and {(stage, reason): rubbish that it must hit}."""
    code = [f'"""{prose(i)}"""\n' + ''.join(f'def {w}(x):\n    y = x + {i}\n    return y\n'
                                            for w in WORDS[i * 9:i * 9 + 9]) for i in range(40)]
    good = [prose(i) for i in range(60)]
    near = [f'{prose(i + 100, 400)}\n' for i in range(3)]
    return good + near + code, {
        ('read', 'empty'): ['', ' ', '\n'],
        ('rules', 'short'): [f'too short {w}' for w in WORDS[:12]],
        ('rules', 'symbols'): [f'{w} ' + '@#$% ' * 30 for w in WORDS[:7]],
        ('rules', 'does not parse'): [text.replace('(x):', '(x:', 1) for text in code[:8]],
        ('rules', 'long line'): [f'{code[1]}# {"long " * 250}\n'],
        ('exact duplicates', 'exact duplicate'): [text.replace('.', '.\n\n') for text in good[:9]],
        ('near duplicates', 'near duplicate'): [f'{text}one more\n' for text in near]}


def test_every_document_is_dropped_for_its_reason_and_the_figures_add_up(tmp_path):
    good, rubbish = planted()
    texts = good + sum(rubbish.values(), [])
    paths = ['x.py' if text.startswith('"') else 'x.txt' for text in texts]
    rows = [{'text': text, 'path': path} for text, path in zip(texts, paths)]
    out, source = tmp_path / 'out', write_records(tmp_path / 'x.jsonl', rows)
    printed = prepare(out, source, '--audit=5')
    r, found = report(out), kept(out)
    stages = r['stages']
    reasons = {(stage['name'], reason): n for stage in stages for reason, n in stage['dropped'].items()}
    assert reasons == {key: len(texts) for key, texts in rubbish.items()}
    share = f'short: 12 ({12 / (len(texts) - 3):.1%})'          # of what came to this stage
    assert share in printed and share in (out / 'report.md').read_text(encoding='utf-8')
    sizes = [[len(some), sum(len(text.encode()) for text in some)] for some in (texts, found)]
    assert [stages[0]['docs_in'], stages[0]['bytes_in']] == sizes[0] and len(found) == len(good)
    assert sizes[1] == [sum(r['documents'].values()), sum(r['bytes'].values())]
    last = dict(zip(('docs_in', 'bytes_in'), sizes[1]))
    for stage, after in zip(stages, [*stages[1:], last]):
        assert stage['docs_in'] - sum(stage['dropped'].values()) == stage['docs_out'] == after['docs_in']
        assert stage['bytes_out'] == after['bytes_in'], stage['name']

    audit = (out / 'audit.md').read_text(encoding='utf-8')
    outside = re.sub('````\n.*?\n````\n', '', audit, flags=re.S)        # the headings, not the samples
    samples = {part.split('\n')[0]: part.count('\n## ') for part in re.split('^# ', outside, flags=re.M)[1:]}
    assert samples == {'kept': 5, **{reason: min(5, n) for reason, n in dropped(out).items()}}


def edited(text, n, rng):
    """A copy with n single words changed: each takes about five 5-grams away and brings five new ones."""
    words = text.split()
    for i in rng.sample(range(len(words)), n):
        words[i] = f'new{rng.randrange(10 ** 6)}'
    return ' '.join(words)


def test_planted_copies_are_dropped_and_nothing_else(tmp_path):
    texts = [prose(i, 400) for i in range(100)]
    rng = random.Random(0)
    family = {text: i for i, text in enumerate(texts)}      # text: number of what it is a copy of
    family |= {edited(text, 4, rng): i for i, text in enumerate(texts[:60])}        # J of about 0.9
    family |= {edited(text, 25, rng): i for i, text in enumerate(texts[60:80], 100)}    # of 0.5: another text
    family |= {text.replace(' ', '\n\n'): family[text] for text in texts[40:80]}
    everything = rng.sample(sorted(family), len(family))
    source = write(tmp_path / 'files', everything)
    prepare(tmp_path / 'out', source, *RAW, '--dedup=minhash', '--min_similarity=0.8', '--val_fraction=0.4')
    first = {i: next(text for text in everything if family[text] == i) for i in range(120)}
    assert len({*kept(tmp_path / 'out')} ^ {*first.values()}) <= 3      # recall 0.95 of 60
    assert dropped(tmp_path / 'out')['exact duplicate'] == 40


# --- mistakes -----------------------------------------------------------------------------------------------
def test_nothing_of_others_is_replaced(tmp_path):
    a, b = (write(tmp_path / name, texts) for name, texts in (('a', TEXTS), ('b', TEXTS[:6])))
    out = tmp_path / 'out'
    prepare(out, a)
    chats = write_records(tmp_path / 'chats.jsonl', [{'prompt': text, 'completion': text} for text in TEXTS])
    inside = write_records(tmp_path / 'link/val.jsonl', TEXTS)
    shutil.copytree(out, tmp_path / 'link', dirs_exist_ok=True)
    (tmp_path / 'link.jsonl').symlink_to(inside)
    write(tmp_path / 'mine', ['{}'], 'meta.json')
    write(tmp_path / 'thesis/.work', ['mine'])
    for folder, source, more, words in [
            (out, b, [], [f'has data of --source={a}', '--overwrite']),
            (out, chats, ['--kind=sft'], ['has data of --kind=text']),
            (tmp_path / 'link', tmp_path / 'link.jsonl', ['--overwrite=True'], ['link.jsonl is read']),
            (tmp_path / 'mine', a, ['--overwrite=True'], ['has meta.json', 'not prepared there']),
            (tmp_path / 'thesis', a, [], ['has .work', 'not prepared there'])]:
        before = {path: path.read_bytes() for path in folder.rglob('*.*') if path.is_file()}
        mistake(run('prepare.py', f'--source={source}', f'--out_dir={folder}', *more), *words)
        assert {path: path.read_bytes() for path in folder.rglob('*.*') if path.is_file()} == before
    ok(run('prepare.py', f'--source={a}', f'--out_dir={out}', '--tokenizer=byte'))      # the same again
    prepare(out, b)
    assert read(out)[0]['config']['source'] == str(b)


@pytest.fixture(scope='module')
def odd(tmp_path_factory):
    """What can't be prepared."""
    home = write(tmp_path_factory.mktemp('odd') / 'home', [prose(0), prose(1)])
    for name in 'b.dat', 'b.tar.gz', 'b', 'pictures/a.png', 'pictures/b.png':
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text('x,y\n' * 20, encoding='utf-8')
    for name, text in {'list': '[\n{"text": "a"},\n{"text": "b"}\n]\n', 'lines': '{\n "text": "a"\n}\n',
                       'comma': '{"text": "a"},\n', 'open': '[{"text": "a"}, 1\n'}.items():
        (home / f'{name}.jsonl').write_text(text, encoding='utf-8')
    write_records(home / 'chats.jsonl', [{'messages': [{'role': 'user'}]}] * 9)
    write_records(home / 'article.jsonl', [{'title': text, 'article': text} for text in TEXTS])
    write(home / 'short', ['Page not found\n'] * 2)
    for name, data in {'zero.txt': b'a\0' * 99, 'empty.txt': b'',
                       'bomb.txt.gz': gzip.compress(bytes(20_000_000)),
                       'cut.txt.gz': gzip.compress(b'x' * 99)[:-5]}.items():
        (home / name).write_bytes(data)
    os.mkfifo(home / 'pipe.txt')
    Tokenizer.byte().save(home / 'byte.json')
    return home


MISTAKES = [        # lines of a config file, or flags, and words of the sentence
    *((f'--source={name}', ['no text at', '--mode=raw']) for name in ('b.dat', 'b.tar.gz', 'b')),
    ('--source=pictures', ['no text at', '.jsonl', 'it has 2 .png']),
    ('--source=zero.txt', ['zero.txt', 'iconv']), ('--source=empty.txt', ['0 characters']),
    *((f'--source={name}', [name]) for name in ('bomb.txt.gz', 'cut.txt.gz', 'pipe.txt')),
    *((f'--source={name}.jsonl', [words]) for name, words in {
        'list': 'JSON over several lines', 'lines': 'JSON over several lines',
        'comma': 'a comma at its end', 'open': 'a list'}.items()),
    ('--source=chats.jsonl', ['could not be read: 9, the first', 'chats.jsonl:1: it has messages',
                              '--kind=sft', ': none']),
    ('--source=article.jsonl', ['could not be read: 12', 'it has title, article', '--text_field=NAME']),
    *((f'--source=short --dedup={dedup}', ['no documents are left', 'short: 2'])
      for dedup in ('none', 'exact', 'minhash', 'simhash')),
    ('--source=. --tokenizer=nowhere.json', ['nowhere.json', 'no such file']),
    ('--source=. --tokenizer=byte.json', ['byte.json', '<|endoftext|>']),
    ('--source=. --tokenizer=wordpiece', ['wordpiece', 'bpe']), ('--vocab_size=100', ['vocab_size', '320']),
    ('--source=. --part=5/4', ['part', '3/16']),
    ('--source=. --url_block=no', ["no can't be read", 'No such file']),
    ('--source=000.txt --mode=prose', ['mode=prose needs documents']),
    ('--source=000.txt --languages=en', ['000.txt', 'languages=en', '.jsonl']),
    ('--source=. --kind=sft', ['sft needs records']), ('--source=. --n_examples=9', ['no --source']),
    ('--source=. --kind=sft --temperature=2', ['need --kind=text']),
    ('--kind=preference', ['--kind=preference needs --source=FILE']),
    ('--kind=sft --min_score=5', ['min_score', '--source=FILE']),
    ('sources = {}', ['sources={}', 'must name a source']), ("sources = {'a': 'path'}", ['weight']),
    ("sources = {'a': ('x', -1)}", ['weight']), ("sources = {'a b': ('x', 1)}", ['a b']),
    ("sources = {5: ('x', 1)}", ['sources[5]']), ("sources = {'a': ('x', 1), 'b': ('y', None)}", ['weight']),
    ("sources = {'a': ('x', 1)}\nsource = 'mine.jsonl'", ['source=mine.jsonl', "'a'"]),
    ("sources = {'a': ('x', 1)}\nwrite = 'text'", ['--write=bins'])]


@pytest.mark.parametrize('said, words', MISTAKES)
def test_what_cannot_be_is_one_sentence_and_leaves_nothing(odd, tmp_path, said, words):
    settings = said.split() if said.startswith('--') else [tmp_path / 'c.py']
    (tmp_path / 'c.py').write_text(said, encoding='utf-8')
    mistake(run('prepare.py', *settings, f'--out_dir={tmp_path}/out', cwd=odd), *words)
    assert not [path for path in tmp_path.glob('out/*') if path.name != '.prepare_py']
