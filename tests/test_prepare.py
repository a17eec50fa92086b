"""prepare.py loses nothing and uses nothing twice: its bins, however the work is shared or
interrupted; what people bring; what is dropped and why; what it refuses."""
import base64
import codecs
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
from accidents import KILLED_WHILE_DELETING, before, killed_after
from conftest import ROOT, contents, mistake, ok, read_rows, run, shared
from preparing import DOCUMENTS, RAW, WORDS, documents, dropped, kept, line_of, prepare, prose, read
from preparing import records, report, write, write_records

from extras.records import read as read_records
from tokenizer import SPECIAL_TOKENS, Tokenizer

TEXTS = [prose(i) for i in range(12)]


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """Some files of text, as bins."""
    out = tmp_path_factory.mktemp('prepared')
    prepare(out / 'out', write(out / 'in', DOCUMENTS), *RAW, '--tokenizer=bpe', '--vocab_size=400',
            '--val_fraction=0.3')
    return out / 'out'


# --- split and bins -------------------------------------------------------------------------------
def test_tiny_shakespeare_has_the_published_sizes(tmp_path):
    prepare(tmp_path, shared('tinyshakespeare.txt'), '--tokenizer=char')
    meta = read(tmp_path)[0]
    assert meta['tokens'] == {'train': 1_003_854, 'val': 111_540} and meta['vocab_size'] == 65


def test_the_bytes_of_a_lone_file_are_its_tokens_but_for_personal_data(tmp_path):
    text = 'Call (415) 555-2671, ann@uni.edu: naïve 漢字\r\n' * 50
    (tmp_path / 'one.dat').write_bytes(text.encode())
    hidden = text.replace('(415) 555-2671', '<PHONE>').replace('ann@uni.edu', '<EMAIL>')
    for pii, expected in (False, text), (True, hidden):
        prepare(tmp_path / 'out', tmp_path / 'one.dat', '--mode=raw', f'--pii={pii}')
        bins = read(tmp_path / 'out')[2]
        assert bytes([*bins['train'], *bins['val']]).decode() == expected


def test_the_bins_hold_every_document_once_as_report_and_meta_say(prepared):
    r, (meta, tok, bins), sides = report(prepared), read(prepared), documents(prepared)
    assert kept(prepared) == sorted(DOCUMENTS)
    assert 6 <= len(sides['val']) <= 30             # 18 of 60 on average, 3.5 sigma
    for side, ids in bins.items():
        assert r['tokens'][side] == meta['tokens'][side] == len(ids)
        assert r['documents'][side] == len(sides[side])
        assert r['bytes'][side] == sum(len(text.encode()) for text in sides[side])
        assert meta['sha256'][side] == hashlib.sha256(ids).hexdigest()
    # the tokenizer has seen training documents only
    own, of_all = (Tokenizer.train(texts, 400).hash for texts in (sides['train'], DOCUMENTS))
    assert tok.hash == own != of_all


def test_the_split_follows_from_the_document_alone_and_of_two_one_is_held_out(prepared, tmp_path):
    copies = DOCUMENTS + DOCUMENTS[::3] + TEXTS
    source = write(tmp_path / 'renamed', copies[::-1], 'z{}.md')
    # with so many tokens that an id needs four bytes: each text ends with the largest
    tok = Tokenizer.byte([*(f'<|{i}|>' for i in range(2 ** 16)), '<|endoftext|>'])
    tok.save(tmp_path / 'big.json')
    prepare(tmp_path / 'out', source, *RAW, '--val_fraction=0.3',
            f'--tokenizer={tmp_path}/big.json')
    before, after = documents(prepared), documents(tmp_path / 'out')
    for side in ('train', 'val'):
        assert set(before[side]) == set(after[side]) & set(DOCUMENTS)
    assert kept(tmp_path / 'out') == sorted(copies)
    assert not set(after['train']) & set(after['val'])
    prepare(tmp_path / 'few', write(tmp_path / 'two', TEXTS[:2]))
    assert all(len(texts) == 1 for texts in documents(tmp_path / 'few').values())


# --- shared and interrupted work ------------------------------------------------------------------
SHARDS = 12


def flags(source, out, *more):
    return [f'--source={source}', f'--out_dir={out}', '--vocab_size=340', '--max_gibberish=0',
            '--dedup=exact', '--num_workers=2', '--overwrite=True', *more]


def results(out):
    return [(out / name).read_bytes()
            for name in ('train.bin', 'val.bin', 'tokenizer.json', 'report.json')]


def is_clean(out):
    """The names of the shards that are done."""
    return sorted(path.name for path in out.glob('.prepare_py/*/?????'))


def shards(folder, seed):
    """Shards of prose of 30 kB, all the same size whatever the seed, and of the same time."""
    dice = random.Random(seed)
    for i in range(SHARDS):
        texts = [' '.join(dice.choices(WORDS, k=300))[:1000].ljust(1000, 'x') for _ in range(30)]
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


def start(*arguments):
    return subprocess.Popen([sys.executable, ROOT / 'prepare.py', *arguments], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_however_processes_or_machines_share_the_work_the_bytes_are_the_same(
        folders, source, tmp_path):
    """What comes after cleaning needs its settings only in the last command."""
    parts, spawned, one = (tmp_path / name for name in ('parts', 'spawned', 'one'))
    jobs = [start(*flags(source, parts, f'--part={i}/2', '--val_fraction=0.3'))     # at once
            for i in (1, 2)]
    said = [job.communicate(timeout=120)[0] for job in jobs]
    assert 'part 1/2: 6 shards are clean' in said[0] and not (parts / 'meta.json').exists()
    assert len(is_clean(parts)) == SHARDS
    for path in source.iterdir():       # other texts, same size and time: nobody reads them again
        shutil.copy2(folders[1] / path.name, source)
    ok(run('prepare.py', *flags(source, parts)))
    ok(run('prepare.py', *flags(folders[0], one, '--num_workers=1')))
    macos = "import sys; sys.platform = 'darwin'"                   # where processes don't fork
    ok(run('prepare.py', *flags(folders[0], spawned), before=macos))
    assert results(spawned) == results(one) == results(folders[2])
    assert results(parts)[:3] == results(one)[:3]       # its report names another folder


def test_the_pieces_of_a_large_file_are_together_the_file(tmp_path):
    """What is larger than 16 MB is shared: here by a too long record. The file is cut off."""
    noise = base64.b64encode(random.Random(0).randbytes(16_500_000)).decode()
    lines = [json.dumps({'text': f'line {i} ' * (i % 7 + 1)}) for i in range(500)]
    lines[17:19] = ['', '{broken']
    data = '\n'.join([json.dumps({'text': noise}), *lines]).encode()
    path = tmp_path / 'a.jsonl.gz'
    path.write_bytes(gzip.compress(data, 1)[:-400])
    errors = []
    texts = [record['text'] for _, record in read_records(str(path), lambda *e: errors.append(e))]
    prepare(tmp_path / 'out', path, *RAW, '--num_workers=2')
    assert 99 < len(texts) < 499 and kept(tmp_path / 'out') == sorted(texts[1:])
    assert report(tmp_path / 'out')['malformed'] == len(errors) == 2


def test_shards_of_text_say_what_they_are_and_where_each_document_is_from(folders, tmp_path):
    prepare(tmp_path, folders[0], '--write=text', '--dedup=exact', '--max_gibberish=0')
    lines = [json.loads(line) for path in sorted(tmp_path.glob('shards/*'))
             for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert [line['text'] for line in lines] == documents(folders[2])['train']
    for line in lines:
        assert line['license'] == 'MIT' and line['source'] == str(folders[0]) and line['path']


def test_after_a_kill_at_any_moment_no_shard_is_cleaned_twice_and_none_is_lost(
        folders, source, tmp_path):
    out = tmp_path / 'out'
    process = start(*flags(source, out))
    while len(is_clean(out)) < 3 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGSTOP)
    mistake(run('prepare.py', *flags(source, out)), 'another prepare.py works')
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)                     # until the workers, who hold the pipe, end
    assert process.returncode == -signal.SIGKILL and not (out / 'meta.json').exists()
    assert 3 <= len(is_clean(out)) < SHARDS
    for name in is_clean(out):      # other texts, same size and time: only who reads them notices
        shutil.copy2(folders[1] / f'{name}.jsonl', source)
    ok(run('prepare.py', *flags(source, out)))
    assert results(out)[:3] == results(folders[2])[:3] and not (out / '.prepare_py').exists()


def test_a_kill_while_clean_shards_are_deleted_leaves_none_that_looks_whole(folders, source,
                                                                            tmp_path):
    out, command = tmp_path / 'out', lambda *more: flags(source, tmp_path / 'out', *more)
    for more in (), ('--min_words=9',):         # after the work, and before that of other settings
        run('prepare.py', *command(), before=killed_after('clean a shard', 2))
        result = run('prepare.py', *command(*more, '--num_workers=1'), before=KILLED_WHILE_DELETING)
        assert result.returncode == -signal.SIGKILL
        ok(run('prepare.py', *command()))
        assert results(out)[:3] == results(folders[2])[:3] and not (out / '.prepare_py').exists()
        shutil.rmtree(out)


def test_what_was_cleaned_otherwise_is_never_used(folders, source, tmp_path):
    words, killed = tmp_path / 'words.txt', tmp_path / 'killed'

    def command(out, change=''):
        """Make one change to what was there before the kill. The list has always one time."""
        words.write_text(f'{WORDS[600]}\n' if change == 'list' else WORDS[500])
        os.utime(words, (1e9, 1e9))
        if change == 'texts':
            shutil.copy(folders[1] / '00000.jsonl', source)
        more = [f'--toxic_words={words}', '--num_workers=1']
        more += ['--min_words=200'] * (change == 'setting')
        return ['prepare.py', *flags(source, out, *more)]

    result = run(*command(killed), before=killed_after('clean a shard', 3))
    assert result.returncode == -signal.SIGKILL and len(is_clean(killed)) == 3
    for change in 'list', 'setting', 'texts':
        resumed, fresh = shutil.copytree(killed, tmp_path / change), tmp_path / f'fresh {change}'
        for out in resumed, fresh:
            ok(run(*command(out, change)))
        assert results(resumed) == results(fresh) != results(folders[2]), change


def test_a_full_disk_or_a_failure_leaves_the_old_data_and_then_the_run_resumes(
        folders, prepared, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    before = contents(tmp_path)
    command = [sys.executable, ROOT / 'prepare.py', *flags(folders[0], tmp_path)]
    for kilobytes in (10, 100):             # too few for a shard, and for train.bin
        # not run(), because in a fork no `.tmp` would go
        limit = ['bash', '-c', f'ulimit -f {kilobytes}; exec "$@"', 'bash']
        result = subprocess.run([*limit, *command], capture_output=True, text=True)
        assert result.returncode == 1 and 'File too large' in result.stderr
        assert {name: (tmp_path / name).read_bytes() for name in before} == before
    result = run('prepare.py', *flags(folders[0], tmp_path, '--min_words=9999'))
    mistake(result, 'no documents are left')
    assert contents(tmp_path) == before
    ok(run('prepare.py', *flags(folders[0], tmp_path)))
    assert results(tmp_path) == results(folders[2])
    one = write_records(tmp_path / 'one.jsonl', [{'text': prose(1, 40)}])
    mistake(run('prepare.py', *flags(one, tmp_path / 'one')), 'no documents are left')
    assert is_clean(tmp_path / 'one')       # other settings may do, for which this is done


def test_a_worker_that_dies_is_one_line_and_costs_nothing(folders, source, tmp_path):
    command = ['prepare.py', *flags(source, tmp_path / 'out')]
    # as if memory were full
    result = run(*command, before=killed_after('clean a shard', 2), timeout=100)
    mistake(result, 'memory', '--num_workers=1')
    assert is_clean(tmp_path / 'out')                   # whichever shard was done first
    ok(run(*command))
    assert results(tmp_path / 'out')[:3] == results(folders[2])[:3]
    changes = before('clean a shard', f"open({str(source / '00000.jsonl')!r}, 'a').write(' ')")
    late = run('prepare.py', *flags(source, tmp_path / 'late', '--num_workers=1'), before=changes)
    mistake(late, 'changed while it was read')


def test_memory_does_not_grow_with_the_input(tmp_path):
    for i in range(6):
        rows = [{'text': random.randbytes(5000).hex()} for _ in range(250)]
        write_records(tmp_path / f'{i}.jsonl', rows)
    measure = 'import resource, subprocess as s, sys; s.run(sys.argv[1:], check=True, stdout=2)\n' \
              'print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)'
    peaks = []
    for pattern in '0.jsonl', '*.jsonl':                # 2.5 MB, 15 MB
        command = flags(f'{tmp_path}/{pattern}', tmp_path / 'out', *RAW, '--tokenizer=byte')
        command = [sys.executable, '-c', measure, sys.executable, ROOT / 'prepare.py', *command]
        peaks.append(int(ok(subprocess.run(command, capture_output=True, text=True))))
    assert abs(peaks[1] - peaks[0]) < 8_000, peaks      # kB


@pytest.mark.parametrize('n', [1, 2])
def test_max_docs_and_max_files_take_the_first_documents_with_any_number_of_processes(
        folders, tmp_path, n):
    texts = [row['text'] for path in sorted(folders[0].iterdir()) for row in read_rows(path)]
    for some, expected in ('--max_docs=170', texts[:170]), ('--max_files=2', texts[:60]):
        ok(run('prepare.py', *flags(folders[0], tmp_path, some, f'--num_workers={n}')))
        assert kept(tmp_path) == sorted(map(str.strip, expected))


# --- what people bring ----------------------------------------------------------------------------
def test_the_reader_of_records_is_the_same_text_in_extras():
    texts = [(ROOT / name).read_text('utf-8') for name in ('prepare.py', 'extras/records.py')]
    one, other = (re.search('# --- records: same text.*?# --- end records', text, re.S)[0]
                  for text in texts)
    assert one == other


NAIVE = 'Der Müller sah den Fluß, naïve Träume, „früh“ – für 5 €.\n' * 5
ROWS = [{'text': NAIVE, 'n': 1}, 'a string', {'text': ' ', 'content': 'half \ud800'},
        {'code': 'x = 1'}]
LINES = '\n\n'.join(map(json.dumps, ROWS)).encode()                 # with blank lines between
READ = [NAIVE, 'a string', 'half \ufffd', 'x = 1']
MIXED = rb"""{"text": "a"}
{"text": "cut o
{"text": "b"}
{"text": "a raw ? byte"}
{"text": "na! byte"}
null

{"title": "x"}
{"text": null}
"c"
""".replace(b'?', b'\0').replace(b'!', b'\xef') + b'[' * 100_000
ARCHIVE = gzip.compress(json.dumps(random.Random(0).randbytes(60_000).hex()).encode())
GOOD = {
    'a.jsonl': LINES, 'a.ndjson': codecs.BOM_UTF8 + LINES, 'a.jsonl.gz': gzip.compress(LINES),
    'windows.jsonl': LINES.decode().encode('utf-16'),
    'a.json': b'\n ' + json.dumps(ROWS, indent=1).encode()}
UNREADABLE = {
    'koi8.txt': 'наивный текст'.encode('koi8-r'), 'bare.txt': 'plain text'.encode('utf-16-le'),
    'undefined.txt': b'a word \x81', '\udce9.txt': b'\xff', 'none.txt.gz': b'x',
    'cut.txt.gz': ARCHIVE[:-100], 'odd.txt.gz': ARCHIVE[:10] + b'\xff' * 100,
    'cut.jsonl.gz': ARCHIVE[:9999], 'open.json': b'[{"text": "a"},'}


def test_what_is_good_arrives_and_garbage_is_counted_and_named_with_its_line(tmp_path):
    book = ''.join(f'{i} ' + 'word ' * 90 + '\n\n' for i in range(10_000))
    write(tmp_path / 'in', [book], 'book.txt')
    (tmp_path / 'in/line.txt').write_text(line := '你好，' * 500_000, encoding='utf-8')
    encoded = {f'{name}.txt': NAIVE.encode(name)
               for name in ('utf-8', 'utf-8-sig', 'utf-16', 'cp1252')}
    for name, data in {**GOOD, **encoded, **UNREADABLE, 'mixed.jsonl': MIXED}.items():
        (tmp_path / 'in' / name).write_bytes(data)
    out = tmp_path / 'out'
    prepare(out, tmp_path / 'in', *RAW, '--num_workers=2')
    *rest, rest_of_line, end, part_of_line, beginning = sorted(kept(out), key=len)
    assert sorted(rest) == sorted([*READ * len(GOOD), *[NAIVE] * len(encoded), *'abc'])
    assert part_of_line + rest_of_line == line      # no letter is cut in two
    assert beginning + end == book and len(beginning) < 4_000_000 and beginning.endswith('\n\n')
    page = (out / 'report.md').read_text(encoding='utf-8')
    assert report(out)['malformed'] == len(UNREADABLE) + 7 and 'iconv -f utf-16' in page
    for place in 'mixed.jsonl:2', *(f'{name}:1' for name in UNREADABLE):
        assert f'/{place}: '.encode('utf-8', 'backslashreplace').decode() in page
    assert not [name for name in (*GOOD, *encoded) if f'/{name}:' in page]


def test_mode_code_does_not_ask_c_to_be_python(tmp_path):
    program = 'int f(void) {\n\treturn  1;\n}\n'
    source = write(tmp_path / 'c', [f'{program}// {i}\n' for i in range(6)], '{:03}.c')
    prepare(tmp_path / 'out', source, '--mode=code', '--dedup=none')
    assert len(kept(tmp_path / 'out')) == 6


def test_files_of_any_ending_are_read_links_to_folders_are_not_and_others_are_named(tmp_path):
    source = write(tmp_path / 'in', TEXTS)
    names = 'A.PY b.markdown c.HTML c.rst d.tex d.org d.adoc x.c a.png b.png f a.pdf sub/y.py'
    names += ' .hidden/x.py node_modules/x.js env/pyvenv.cfg env/z.py ../far/f.py'
    for name in names.split():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(f'def f():\n\treturn  "{name}"\n', encoding='utf-8')
    for name, to in (('a', '.'), ('sub/up', '..'), ('far', '../far'), ('link.py', '../far/f.py')):
        (source / name).symlink_to(to)
    for _ in range(2):                      # the second time, there are data of ours in the source
        said = prepare(source / 'out', source, *RAW)
        assert len(kept(source / 'out')) == 12 + 8 + 2
        others = report(source / 'out')['sources'][str(source)]['passed_over']
        assert others.startswith('2 .png, ') and f'passed over: {others}' in said
        assert others in (source / 'out/report.md').read_text(encoding='utf-8')
        for other in '1 .pdf', '1 without ending', '1 node_modules/', '1 .hidden/', '1 env/':
            assert other in others
    prepare(tmp_path / 'out', f'{source}/sub/../**/*.py', *RAW)
    assert {text[19:-2] for text in kept(tmp_path / 'out')} == {'sub/y.py', '../far/f.py'}


def test_the_text_is_found_in_a_named_or_the_only_long_column_and_in_parts_of_a_file(tmp_path):
    two = [{'title': text, 'article': text} for text in TEXTS]
    one = [{'url': 'https://a.org/' + 'a' * 250, 'body': text} for text in [*TEXTS, prose(99, 20)]]
    for rows, name, *more in (two, 'article', '--text_field=article'), (one, 'body'):
        said = prepare(tmp_path / 'out', write_records(tmp_path / 'a.jsonl', rows), *more)
        assert kept(tmp_path / 'out') == sorted(row[name].strip() for row in rows)
    assert 'the text is in the column body: 13' in said
    (tmp_path / 'a.txt').write_text('<|endoftext|>\n'.join(f'{text}\n' for text in TEXTS))
    prepare(tmp_path / 'out', tmp_path / 'a.txt')
    assert kept(tmp_path / 'out') == sorted(TEXTS)
    (tmp_path / 'a.txt').write_text('long ' * 900_000 + '\n<|endoftext|> \n<|endoftext|>\nshort\n')
    prepare(tmp_path / 'out', tmp_path / 'a.txt', '--mode=raw')
    assert 'short\n' in kept(tmp_path / 'out')


# --- what each stage drops ------------------------------------------------------------------------
def test_personal_data_are_masked_in_records_and_chats_and_counted(tmp_path):
    rows = [line_of(f'user: Is ann{i}@uni.edu {i}? | assistant: Ask bob{i}@uni.edu.')
            for i in range(12)]
    prepare(tmp_path / 'out', write_records(tmp_path / 'a.jsonl', rows), '--kind=sft')
    assert report(tmp_path / 'out')['counts']['personal data'] == {'email': 24}
    found = str(records(tmp_path / 'out'))
    assert found.count('<EMAIL>') == 24 and '@' not in found
    rows = [{'text': f'{text} Ask ann@uni.edu.'} for text in TEXTS]
    prepare(tmp_path / 'text', write_records(tmp_path / 'b.ndjson', rows))
    found = ''.join(kept(tmp_path / 'text'))
    assert found.count('<EMAIL>') == len(TEXTS) and '@' not in found


def test_every_document_is_dropped_for_its_reason_and_the_figures_add_up(tmp_path):
    code = [''.join(f'def {word}(x={i}):\n    return x\n' for word in WORDS[i * 9:i * 9 + 9])
            for i in range(20)]
    near = [f'{prose(i + 100, 400)}\n' for i in range(3)]
    good = TEXTS + near + code
    rubbish = {
        'empty': ['', ' ', '\n'], 'too long': ['word ' * 200_001],
        'short': [f'too short {w}' for w in WORDS[:12]],
        'does not parse': [text.replace(':', '', 1) for text in code[:8]],
        'exact duplicate': [text.replace('.', '.\n\n') for text in TEXTS[:9]],
        'near duplicate': [f'{text}one more\n' for text in near]}
    texts = good + sum(rubbish.values(), [])
    rows = [{'text': text, 'path': 'x.py' if text.startswith('def') else 'x.txt'} for text in texts]
    out = tmp_path / 'out'
    printed = prepare(out, write_records(tmp_path / 'x.jsonl', rows), '--audit=5')
    assert dropped(out) == {reason: len(some) for reason, some in rubbish.items()}
    assert len(kept(out)) == len(good)
    assert f'short: 12 ({12 / (len(texts) - 4):.1%})' in printed        # of what came to this stage
    sizes = [(len(texts), len(''.join(texts)))]                         # documents, bytes
    for stage in report(out)['stages']:
        n_dropped = sum(stage['dropped'].values())
        assert (stage['docs_in'], stage['bytes_in']) == sizes[-1]
        assert stage['docs_out'] == stage['docs_in'] - n_dropped
        sizes.append((stage['docs_out'], stage['bytes_out']))
    assert sizes[-1] == tuple(sum(report(out)[name].values()) for name in ('documents', 'bytes'))
    n_samples = (out / 'audit.md').read_text(encoding='utf-8').count('\n## ')
    # of what was kept, too
    assert n_samples == 5 + sum(min(5, n) for n in dropped(out).values())


def test_planted_copies_are_dropped_and_nothing_else(tmp_path):
    def edited(text, n):
        """A copy with n words changed: each takes about five 5-grams away and brings five."""
        words = text.split()
        for i in dice.sample(range(len(words)), n):
            words[i] = f'new{dice.randrange(10 ** 6)}'
        return ' '.join(words)

    texts, dice = [prose(i, 400) for i in range(100)], random.Random(0)
    family = {text: i for i, text in enumerate(texts)}      # text: number of what it is a copy of
    family |= {edited(text, 4): i for i, text in enumerate(texts[:60])}             # J of about 0.9
    family |= {f'{text} more': i for i, text in enumerate(texts[:20])}
    family |= {edited(text, 25): i for i, text in enumerate(texts[60:80], 100)}     # 0.5: another
    family |= {text.replace(' ', '\n\n'): family[text] for text in texts[40:80]}
    everything = dice.sample(sorted(family), len(family))
    source = write(tmp_path / 'files', everything)
    firsts = {next(text for text in everything if family[text] == i) for i in range(120)}
    # of 80, of which SimHash can't see 60
    for dedup, least in ('minhash', 77), ('simhash', 15):
        prepare(tmp_path / 'out', source, *RAW, f'--dedup={dedup}', '--min_similarity=0.8')
        reasons = dropped(tmp_path / 'out')
        assert reasons['exact duplicate'] == 40 and least <= reasons['near duplicate'] <= 80
        assert firsts <= {*kept(tmp_path / 'out')}, dedup


# --- mistakes -------------------------------------------------------------------------------------
def test_nothing_of_others_is_replaced(tmp_path):
    a, b = (write(tmp_path / name, texts) for name, texts in (('a', TEXTS), ('b', TEXTS[:6])))
    out = tmp_path / 'out'
    prepare(out, a)
    inside = write_records(tmp_path / 'link/val.jsonl', TEXTS)
    shutil.copytree(out, tmp_path / 'link', dirs_exist_ok=True)
    (tmp_path / 'link.jsonl').symlink_to(inside)
    write(tmp_path / 'mine', ['{}'], 'meta.json')
    write(tmp_path / 'thesis/.work', ['mine'])
    for name, source, flag, words in [
            ('out', b, '--overwrite=False', f'has data of --source={a}; --overwrite'),
            ('out', inside, '--kind=sft', 'has data of --kind=text'),
            ('link', tmp_path / 'link.jsonl', '--overwrite=True', 'link.jsonl is read'),
            ('mine', a, '--overwrite=True', 'has meta.json, which was not prepared there'),
            ('thesis', a, '--overwrite=True', 'has .work, which was not prepared there')]:
        files = [path for path in (tmp_path / name).rglob('*.*') if path.is_file()]
        before = [path.read_bytes() for path in files]
        result = run('prepare.py', f'--source={source}', f'--out_dir={tmp_path / name}', flag)
        mistake(result, words)
        assert [path.read_bytes() for path in files] == before
    # the same again
    ok(run('prepare.py', f'--source={a}', f'--out_dir={out}', '--tokenizer=byte'))
    prepare(out, b)
    assert kept(out) == sorted(TEXTS[:6])


@pytest.fixture(scope='module')
def odd(tmp_path_factory):
    """What can't be prepared."""
    home = write(tmp_path_factory.mktemp('odd') / 'home', [prose(0), prose(1)])
    write(home / 'pictures', ['x', 'y'], '{}.png')
    write(home / 'short', ['Page not found\n', 'Moved\n'])
    write_records(home / 'chats.jsonl', [{'messages': [{'role': 'user'}]}] * 9)
    answer = {'task_id': 1, 'prompt': 'a', 'completion': 'b', 'outcome': 'wrong'}
    write_records(home / 'samples.jsonl', [answer] * 2)
    write_records(home / 'null.jsonl', [{'text': None}] * 2)
    write_records(home / 'article.jsonl', [{'title': text, 'article': text} for text in TEXTS])
    for name, data in {'list.jsonl': b'[\n{"text": "a"}\n]\n', 'comma.jsonl': b'{"text": "a"},\n',
                       'b.dat': b'x,y\n' * 20, 'zero.txt': b'a\0' * 99, 'empty.txt': b'',
                       'rows.txt': b'{"text": "a"}\n',
                       'bomb.txt.gz': gzip.compress(bytes(20_000_000)),
                       'cut.txt.gz': gzip.compress(b'x' * 99)[:-5]}.items():
        (home / name).write_bytes(data)
    os.mkfifo(home / 'pipe.txt')
    Tokenizer.byte().save(home / 'byte.json')
    Tokenizer.char('abc', SPECIAL_TOKENS).save(home / 'abc.json')
    return home


# flags, or a line of a config file | words of the sentence
MISTAKES = """
--source=b.dat | no text at | --mode=raw
--source=pictures | no text at | .jsonl | it has 2 .png
--source=zero.txt | zero.txt | iconv
--source=empty.txt | 0 characters
--source=bomb.txt.gz | bomb.txt.gz
--source=cut.txt.gz | cut.txt.gz
--source=pipe.txt | pipe.txt
--source=list.jsonl | JSON over several lines
--source=comma.jsonl | a comma at its end
--source=chats.jsonl | could not be read: 9 | chats.jsonl:1: it has messages | --kind=sft
--source=article.jsonl | could not be read: 12 | it has title | --text_field=NAME
--source=short | no documents are left | short: 2
--source=short --dedup=simhash | no documents are left
--source=shakespeare --download_dir=raw | https:// | raw/shakespeare.txt
--source=null.jsonl | text is None, not a text
--source=rows.txt | its lines are records; rename it: .jsonl
--source=samples.jsonl --kind=sft | none of 2 samples | better than another
--source=. --tokenizer=nowhere.json | nowhere.json | no such file
--source=. --tokenizer=byte.json | byte.json | <|endoftext|>
--source=short --min_words=1 --tokenizer=abc.json | no character of this char tokenizer
--source=. --tokenizer=wordpiece | wordpiece | bpe
--vocab_size=100 | vocab_size | 320
--source=. --part=5/4 | part | 3/16
--source=. --url_block=no | no can't be read | No such file
--source=000.txt --mode=prose | mode=prose needs documents
--source=000.txt --languages=en | languages=en | .jsonl
--source=. --kind=sft | sft needs records
--source=. --n_examples=9 | no --source
--source=. --kind=sft --temperature=2 | need --kind=text
--source=. --temperature=2 | needs several sources
--kind=preference | --kind=preference needs --source=FILE
--kind=sft --min_score=5 | min_score | --source=FILE
sources = {} | sources={} | must name a source
sources = {'a': 'path'} | weight
sources = {'a': ('x', -1)} | weight
sources = {'a b': ('x', 1)} | a b
sources = {5: ('x', 1)} | sources[5]
sources = {'a': ('x', 1), 'b': ('y', None)} | weight
sources = {'a': ('x', 1)}; source = 'mine.jsonl' | source=mine.jsonl | 'a'
sources = {'a': ('x', 1)}; write = 'text' | --write=bins"""


@pytest.mark.parametrize('line', MISTAKES.strip().split('\n'))
def test_what_cannot_be_is_one_sentence_and_leaves_nothing(odd, tmp_path, line):
    said, *words = line.split(' | ')
    settings = said.split() if said.startswith('--') else [tmp_path / 'c.py']
    (tmp_path / 'c.py').write_text(said, encoding='utf-8')
    offline = dict.fromkeys(('HTTPS_PROXY', 'https_proxy'), 'http://127.0.0.1:9')   # nobody listens
    mistake(run('prepare.py', *settings, f'--out_dir={tmp_path}/out', cwd=odd,
                env={**offline, 'NO_PROXY': '', 'no_proxy': ''}), *words)
    assert not [path for path in tmp_path.glob('out/*') if path.name != '.prepare_py']
