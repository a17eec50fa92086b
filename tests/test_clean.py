"""clean.py: what its functions do to a text; its shards, however the work is shared or interrupted;
what people bring; what is dropped and why; what it refuses."""
import codecs
import functools
import gzip
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
from accidents import before, full_disk, killed_after
from conftest import ROOT, mistake, ok, run, shared
from preparing import RAW, WORDS, clean, dropped, kept, lines, prose, report, write
from preparing import write_records

import clean as program
from clean import band_keys, code_reason, compiles, find_files, hash64, minhash, mode_of, ngrams
from clean import normalise, prose_reason, shingles, words_of
from extras.markup import fix_mojibake
from tokenizer import SPECIAL_TOKENS, Tokenizer

TEXTS = [prose(i) for i in range(12)]


# --- one form -------------------------------------------------------------------------------------
# a text and its form, as JSON strings
ONE_FORM = r'''
"cafe\u0301" -> "caf\u00e9"
"caf\u00e9" -> "caf\u00e9"
"e\u200b\u0301 \u212b" -> "\u00e9 \u00c5"
"x\u00b2 \u00bd \ufb01 \u2122 \u2026" -> "x\u00b2 \u00bd \ufb01 \u2122 \u2026"
"a\u0000b\u0007\u007f\u00adc\u200bd\ufeff" -> "abcd"
"a\u3000b\u00a0c" -> "a b c"
"one\u2028two\ffour\u000bfive" -> "one\ntwo\nfour\nfive"
"\ufeff \n  a \t b  \r\n\r\n\r\n\r\nc\rd " -> "  a b\n\nc\nd"
"\udc80x" -> "\ufffdx"
"\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645" -> "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
'''


@pytest.mark.parametrize('line', ONE_FORM.strip().split('\n'))
def test_prose_has_one_form(line):
    text, wanted = map(json.loads, line.split(' -> '))
    once = normalise(fix_mojibake(text), 'prose')
    assert once == wanted == normalise(fix_mojibake(once), 'prose')


# --- code or prose ------------------------------------------------------------------------------------------
def test_the_standard_library_stays_as_it_is():
    for path in find_files('stdlib')[0][::2]:
        text = pathlib.Path(path).read_bytes().decode('utf-8')
        unix = text.replace('\r\n', '\n').replace('\r', '\n')
        assert normalise('\ufeff' + text, mode_of(path)) == unix, path


def test_code_is_known_by_its_path_and_stays_as_it_is():
    program = 'int f(void) {\n\treturn  1;\n}\n'
    for form, path in [('code', 'a.jsonl:3 repo/x.py'), ('code', 'B.PY.gz'), ('other code', 'a.jsonl:3 repo/X.C'),
                       ('prose', 'a.html'), ('prose', 'a.jsonl:3'), ('prose', '')]:
        assert mode_of(path) == form, path
        assert (normalise(program, form) == program) == (form != 'prose'), path


def test_code_within_prose_stays_and_the_prose_around_it_is_tidied():
    for begin, end in (('```', '```'), ('> ```', '> ```'), ('- ```python', '  ```'), ('1. ```', '   ```'),
                       ('````', '````')):                       # in a quote, in a list, a longer one
        code = f'{begin}\nif  x <b>50%</b> &amp; \\emph{{x}}:\n    y\n{end}'
        fenced = f'A <b>bold</b>   word:\n\n{code}\n\n\n\nand  so\n  on.\n'
        assert normalise(fenced, 'prose') == f'A <b>bold</b> word:\n\n{code}\n\nand so\n  on.'
    # within a line, three backticks are no fence, and hide nothing that follows
    assert normalise('Type ```  twice.\nIt  ends.\n', 'prose') == 'Type ``` twice.\nIt ends.'


# --- rules ------------------------------------------------------------------------------------------------
ENGLISH = 'The old man walked through the wood every morning to sit by the river and hear the birds ' \
          'that lived among the reeds. Sometimes he brought bread, and then the ducks came too.'
OTHERS = [
    'Der alte Mann ging jeden Morgen durch den Wald, um am Ufer zu sitzen und den Vögeln zuzuhören, die im '
    'Schilf lebten. Manchmal brachte er Brot mit, und dann kamen auch die Enten.',
    '从前有一个小村庄,坐落在大山脚下。村里的人们每天清晨起来,到田里去劳动,晚上回家和家人一起吃饭。',
    'กาลครั้งหนึ่งนานมาแล้ว มีหมู่บ้านเล็กๆ แห่งหนึ่งตั้งอยู่ที่เชิงเขา ชาวบ้านตื่นแต่เช้าเพื่อไปทำงาน']
CODE = 'def f(a):\n    b = a\n    c = b * b\n    d = c - a\n    e = d ** 2\n    g = e // 3\n    return g\n'


def test_each_reason_of_prose():
    rulers = '====', '=====  ==', '|---|----|', '+-----+-+'                 # of headings and tables
    for text in (ENGLISH, *OTHERS, 'xkcdqwrt a1b2c3 zzkrtpls ' + ENGLISH,
                 shared('tinyshakespeare.txt').read_text(),
                 *(f'{ENGLISH}\n{ruler}\n' * 2 for ruler in rulers)):
        assert prose_reason(text) is None, text
    for text, reason in [
            (' '.join(ENGLISH.split()[:19]), 'short'), ('中文字' * 13, 'short'), ('', 'short'),
            ('$ 5 % # @ ! ' * 9, 'symbols'), ('buy now ' * 50, 'repetitive'),
            (f'{ENGLISH}\n' * 5, 'repetitive'), (' '.join(f'q{i}x{i}z' for i in range(30)), 'gibberish')]:
        assert prose_reason(text) == reason, text
        assert prose_reason(text, 0, 0, 0, 0) is None, 'each rule is switched off by zero'


@pytest.mark.filterwarnings('error')
def test_each_reason_of_code_at_its_threshold(monkeypatch):
    """Two rules drop only a text whose chance is below seven tenths."""
    def reason_at(chance, text, is_python=True):
        with monkeypatch.context() as patch:
            patch.setattr(program, 'hash64', lambda data: int(chance * 2 ** 64))
            return code_reason(text, is_python)

    for text, reason, *other_languages in [
            (CODE, None), (CODE + '\0', 'binary'), (CODE.replace('=', ' '), 'few assignments'),
            (CODE * 2 + '#' + 'a' * 999, None), (CODE * 2 + '#' + 'a' * 1000, 'long line'),
            ('\n' * 4 + '# AUTO-GENERATED\n' + CODE, 'autogenerated'),
            ('\n' * 5 + '# auto-generated\n' + CODE, None),
            ('a' * 100, None, True), ('a' * 101, 'long lines', True),
            ('a' * 25 + '-' * 75, None, True), ('a' * 24 + '-' * 76, 'few letters', True)]:
        assert reason_at(0.99, text, not other_languages) == reason, text
    for text, reason in [
            ('# Unit tests of f\n' + CODE, 'config or test'), (CODE + 'test\n' + '\n' * 11, None),
            (CODE + 'test\n' + '\n' * 10, 'config or test'),                # 1 in 20: not over 5%
            ('a = b = c = d = e = 1\n', 'no keywords')]:
        assert reason_at(0.69, text) == reason and reason_at(0.7, text) is None, text
    # the chance is not the hash of the split: of what stays, some is below seven tenths there
    texts = [f'# Unit tests\n{CODE}{i}\n' for i in range(99)]
    stays = [text for text in texts if code_reason(text) is None]
    assert {hash64(text.encode()) < 0.7 * 2 ** 64 for text in stays} == {True, False}
    for text in '', 'async def f(): await g()', 'x = "\\d"', '1 is 1':      # without a warning
        assert compiles(text), text
    for text in 'return 1', 'x = \0', '(' * 5000, '-' * 100_000 + '1', 'x = 9' + '9' * 9999, '\ud800':
        assert not compiles(text), text[:9]


# --- copies ---------------------------------------------------------------------------------------
def test_words_and_ngrams_are_those_of_a_regular_expression():
    """Runs of letters, digits, _ and two-byte characters; a character of three or four bytes by itself."""
    alphabet = 'aAbB_1 .\né×\u07ff\u0800漢字😀\ud800'
    hashes, naive = [], []
    for i in range(500):
        text = ''.join(random.Random(i).choices(alphabet, k=i % 50))
        words = re.findall('[a-z0-9_\x80-\u07ff]+|[\u0800-\U0010ffff]', text.lower())
        found = words_of(text.encode('utf-8', 'surrogatepass'))
        assert [word.decode('utf-8', 'surrogatepass') for word in found] == words
        naive += zip(words, words[1:])
        hashes += ngrams(found, 2).tolist()
    # two hashes are equal where, and only where, the n-grams are
    assert len(set(zip(hashes, naive, strict=True))) == len(set(hashes)) == len(set(naive))


# --- signatures ---------------------------------------------------------------------------------------------
def random_pair(rng, size, shared):
    """Two sets of that many random shingles, some of them shared, and their Jaccard similarity."""
    pool = rng.integers(0, 2 ** 64 - 1, 2 * size - shared, np.uint64, endpoint=True)
    return np.sort(pool[:size]), np.sort(pool[size - shared:]), shared / (2 * size - shared)


def test_a_signature_of_a_union_is_the_smaller_of_two():
    equal = functools.partial(np.testing.assert_array_equal, strict=True)       # also their type
    # for all time: other people keep such numbers, and a run is resumed with another numpy
    wanted = np.array([2336241653, 392179490, 1402237318, 518363992], np.uint32)
    equal(minhash(shingles(b'the cat sat on the mat'), 4), wanted)
    a, b, _ = random_pair(np.random.default_rng(0), 2500, 0)
    equal(minhash(a[:0], 4), np.full(4, 2 ** 32 - 1, np.uint32))
    equal(minhash(np.append(a, b)), np.minimum(minhash(a), minhash(b)))


@pytest.mark.parametrize('bands, rows, size', [(32, 8, 1000), (64, 4, 5)])
def test_documents_share_a_band_as_often_as_the_formula_says(bands, rows, size):
    """And as many numbers of two signatures agree as shingles of their sets. Four sigma of 200 pairs."""
    rng = np.random.default_rng(bands)
    for share in (0.5, 0.8, 0.9, 1):
        agree, hits = [], []
        for _ in range(200):
            *sets, j = random_pair(rng, size, int(share * size))
            a, b = map(minhash, sets)
            agree.append((a == b).mean())
            hits.append((band_keys(a, bands) == band_keys(b, bands)).any())
        p = 1 - (1 - j ** rows) ** bands
        assert np.mean(agree) == pytest.approx(j, abs=4 * np.std(agree) / 200 ** 0.5), j
        assert np.mean(hits) == pytest.approx(p, abs=4 * (p * (1 - p) / 200) ** 0.5 + 1 / 200), j


# --- shared and interrupted work ------------------------------------------------------------------
SHARDS = 12


def flags(source, out, *more):
    return [f'--source={source}', f'--out_dir={out}', '--max_gibberish=0', '--dedup=exact',
            '--num_workers=2', '--overwrite=True', *more]


def work_of(out):
    return out.with_name(f'.{out.name}.nanoparrot-clean')


def results(out, is_done=True):
    """All files, and the report, which names no other folder."""
    assert work_of(out).exists() != is_done
    files = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob('*.*')}
    del files['report.md'], files['meta.json']
    return files


def is_clean(out):
    """The shards that are done, as the names of their files."""
    return [re.search(rb'\d+\.jsonl', path.read_bytes())[0].decode()
            for path in work_of(out).glob('*/documents.jsonl')
            if len(path.parent.name) == 16]


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
    """A source, one that differs from it in nothing but the texts, and the first one clean."""
    base = tmp_path_factory.mktemp('restart')
    first, second = shards(base / 'first', 1), shards(base / 'second', 2)
    ok(run('clean.py', *flags('.', base / 'out'), cwd=first))
    return first, second, base / 'out'


@pytest.fixture
def source(folders, tmp_path):
    return shutil.copytree(folders[0], tmp_path / 'source')             # with its times


def start(source, *arguments):
    return subprocess.Popen([sys.executable, ROOT / 'clean.py', *arguments], text=True, cwd=source,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)


def test_however_many_processes_share_the_work_the_bytes_are_the_same(folders, tmp_path):
    macos = "import sys; sys.platform = 'darwin'"                   # where processes don't fork
    for n, how in (1, {}), (4, {}), (2, {'before': macos}):
        ok(run('clean.py', *flags('.', tmp_path / 'out', f'--num_workers={n}'), cwd=folders[0], **how))
        assert results(tmp_path / 'out') == results(folders[2]), n


def test_the_workers_of_a_cluster_write_the_same_bytes(folders, tmp_path):
    distributed = pytest.importorskip('distributed', reason='needs dask.distributed')
    ok(run('clean.py', *flags(folders[0], tmp_path / 'here')))
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as two:
        ok(run('clean.py', *flags(folders[0], tmp_path / 'out'), f'--cluster={two.scheduler_address}'))
    assert results(tmp_path / 'out') == results(tmp_path / 'here')


def test_the_pieces_of_a_large_file_are_together_the_file(tmp_path):
    """What is larger than 16 MB is shared: here by a too long record. The file is cut off."""
    lines_ = [json.dumps({'text': f'line {i} ' * (i % 7 + 1)}) for i in range(500)]
    lines_[17:19] = ['', '{broken']
    noise = json.dumps({'text': random.Random(0).randbytes(16_500_000).hex()[:24_000_000]})
    path = tmp_path / 'a.jsonl.gz'
    path.write_bytes(gzip.compress('\n'.join([noise, *lines_]).encode(), 1)[:-400])
    clean(tmp_path / 'out', path, *RAW, '--num_workers=2')
    texts = [text for _, text, _, why in program.read(str(path)) if not why]
    assert 99 < len(texts) < 499 and kept(tmp_path / 'out') == sorted(texts[1:])
    assert dropped(tmp_path / 'out') == {'too long': 1, 'no JSON record': 1, 'damaged file': 1}


def test_shards_say_what_they_are_and_where_each_document_is_from(folders):
    for i, line in enumerate(lines(folders[2])):
        assert line['license'] == 'MIT' and line['source'] == '.'
        assert line['path'] == f'./{i // 30:05}.jsonl:{i % 30 + 1} {i % 30}'


def test_after_a_kill_at_any_moment_no_shard_is_cleaned_twice_and_none_is_lost(
        folders, source, tmp_path):
    out = tmp_path / 'out'
    process = start(source, *flags('.', out))
    while len(is_clean(out)) < 3 and process.poll() is None:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=10)
    assert process.returncode == -signal.SIGKILL and not out.exists()
    done = is_clean(out)
    assert 3 <= len(done) < SHARDS
    for name in done:               # other texts, same size and time: only who reads them notices
        shutil.copy2(folders[1] / name, source)
    ok(run('clean.py', *flags('.', out), cwd=source))
    assert results(out) == results(folders[2])


@pytest.mark.parametrize('n', [0, 1, 2])
def test_a_kill_while_results_are_published_leaves_no_half_of_them(folders, tmp_path, n):
    """n: the folders that have got their names, or lost them. Old results are there, too."""
    out = shutil.copytree(folders[2], tmp_path / 'out')
    dies = before('clean a shard', """
        import multiprocessing
        if multiprocessing.parent_process() is None:
            spoiled.calls = getattr(spoiled, 'calls', 0) + 1
            if spoiled.calls > """ + f'{n}:' + """
                os.kill(os.getpid(), signal.SIGKILL)""")
    result = run('clean.py', *flags('.', out), cwd=folders[0], before=dies)
    assert result.returncode == -signal.SIGKILL
    if out.exists():
        names = {path.name for path in out.iterdir()}
        assert names == {'shards', 'meta.json', 'report.md', 'report.json'}
    ok(run('clean.py', *flags('.', out), cwd=folders[0]))
    assert results(out) == results(folders[2])


def test_a_shard_is_known_by_its_own_settings_files_and_programs(tmp_path, monkeypatch):
    """What was cleaned otherwise is never used."""
    words = tmp_path / 'words'
    fields = {**dict.fromkeys(program.LISTS, ''), 'sources': {'a': 'b'}, 'toxic_words': str(words)}
    config = types.SimpleNamespace(**fields)
    used, ours, other = (tmp_path / name for name in ('used.py', 'clean.py', 'other.py'))
    for path in used, ours, other, words, tmp_path / 'a.txt':
        path.write_text('x')
    monkeypatch.setattr(program, '__file__', str(ours))
    monkeypatch.setitem(sys.modules, 'extras.used', types.SimpleNamespace(__file__=str(used)))
    state = lambda **more: program.state_of(
        config, json.dumps({**fields, **more}), 'a', [(str(tmp_path / 'a.txt'), None)])
    first = state()
    other.write_text('an edit')
    assert state() == first != state(min_words=9)
    for path in used, ours, words, tmp_path / 'a.txt':
        path.write_text('an edit')
        assert state() != first
        first = state()


def test_a_worker_that_dies_ends_the_run(source, tmp_path):
    result = run('clean.py', *flags('.', tmp_path / 'out'), before=killed_after('clean a shard', 2),
                 cwd=source, timeout=100)
    assert result.returncode == 1 and 'process pool was terminated' in result.stderr


@pytest.mark.parametrize('script', ['clean.py', 'prepare.py'])
def test_memory_does_not_grow_with_the_input(tmp_path, script):
    for i in range(6):
        rows = [{'text': random.randbytes(5000).hex()} for _ in range(250)]
        write_records(tmp_path / f'{i}.jsonl', rows)
    measure = 'import resource, subprocess as s, sys; s.run(sys.argv[1:], check=True, stdout=2)\n' \
              'print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)'
    peaks = []
    for pattern in '0.jsonl', '*.jsonl':                # 2.5 MB, 15 MB
        command = flags(f'{tmp_path}/{pattern}', tmp_path / 'out', *RAW)
        if script == 'prepare.py':
            command = [command[0], command[1], '--overwrite=True', '--tokenizer=byte']
        command = [sys.executable, '-c', measure, sys.executable, ROOT / script, *command]
        peaks.append(int(ok(subprocess.run(command, capture_output=True, text=True))))
    assert abs(peaks[1] - peaks[0]) < 8_000, peaks      # kB


# --- what people bring ----------------------------------------------------------------------------
NAIVE = 'Der Müller sah den Fluß, naïve Träume, „früh“ – für 5 €.\n' * 5
ROWS = [{'text': NAIVE, 'n': 1}, {'text': ' ', 'content': 'half \ud800'}, {'code': 'x = 1'},
        {'title': 'not this', 'abstract': 'nor this', 'content': 'but this', 'text': ''}]
LINES = '\n\n'.join(map(json.dumps, ROWS)).encode()                 # with blank lines between
READ = [NAIVE, 'half \ufffd', 'x = 1', 'but this']
MIXED = rb"""{"text": "a"}
{"text": "cut o
{"text": "b"}
{"text": "a raw ? byte"}
{"text": "na! byte"}
null

{"title": "x"}
{"text": null}
{"text": "c"}
""".replace(b'?', b'\0').replace(b'!', b'\xef') + b'[' * 100_000
ARCHIVE = gzip.compress(json.dumps(random.Random(0).randbytes(60_000).hex()).encode())
GOOD = {'a.jsonl': LINES, 'a.ndjson': codecs.BOM_UTF8 + LINES, 'a.jsonl.gz': gzip.compress(LINES),
        'windows.jsonl': LINES.decode().encode('utf-16')}
NOT_UTF8 = {'koi8.txt': 'наивный текст'.encode('koi8-r'), 'undefined.txt': b'a word \x81',
            'bare.txt': 'plain text'.encode('utf-16-le'), 'turk.md': 'ağaç şu'.encode('cp1254'),
            '\udce9.txt': b'\xff'}
DAMAGED = {'none.txt.gz': b'x', 'cut.txt.gz': ARCHIVE[:-100],
           'odd.txt.gz': ARCHIVE[:10] + b'\xff' * 100, 'cut.jsonl.gz': ARCHIVE[:9999]}


def test_what_is_good_arrives_and_garbage_is_counted_and_named_with_its_line(tmp_path):
    book = ''.join(f'{i} ' + 'word ' * 90 + '\n\n' for i in range(10_000))
    write(tmp_path / 'in', [book], 'book.txt')
    (tmp_path / 'in/line.txt').write_text(line := '你好，' * 500_000)
    encoded = {f'{name}.txt': NAIVE.encode(name) for name in ('utf-8', 'utf-8-sig', 'utf-16')}
    for name, data in {**GOOD, **encoded, **NOT_UTF8, **DAMAGED, 'mixed.jsonl': MIXED}.items():
        (tmp_path / 'in' / name).write_bytes(data)
    out = tmp_path / 'out'
    said = clean(out, tmp_path / 'in', *RAW, '--num_workers=2')
    texts = [line['text'] for line in lines(out)]
    assert sorted(texts) == sorted(
        [book, line, *READ * len(GOOD), *[NAIVE] * len(encoded), *'abc'])
    assert dropped(out) == {program.NOT_UTF8: len(NOT_UTF8) + 1, 'damaged file': len(DAMAGED),
                            'no JSON record': 4, program.NO_TEXT: 2}
    first = report(out)['first']
    assert {reason: place.split('/')[-1] for reason, place in first.items()} == {
        program.NOT_UTF8: 'bare.txt', 'damaged file': 'cut.jsonl.gz:1', 'no JSON record': 'mixed.jsonl:2',
        program.NO_TEXT: 'mixed.jsonl:8'}
    for flag in '--encoding=NAME', '--text_field=NAME':
        assert flag in said and flag in (out / 'report.md').read_text()
    assert said.splitlines()[-1] == f'next: python prepare.py --source={os.path.relpath(out)}'


def test_markup_is_what_a_file_or_a_flag_says_and_what_changes_is_counted(tmp_path):
    page = 'Use the `<table>` element, close each `<p>`. Write `&lt;` for <.'
    paper = 'A cup costs $3 and a plate $4. The % operator gives {1, 2}, see ~/data and \\emph{this}.'
    names = {'a.md': f'{page}\r\n', 'b.txt': f'{paper}\xad', 'a.html': f'<p>{page}</p>', 'b.tex': paper,
             'c.jsonl': json.dumps({'text': page, 'path': 'web/x.htm'}) + '\n'}
    source = write(tmp_path / 'in', [])
    for name, text in names.items():
        (source / name).write_text(text)
    rules = ['--min_words=0', '--max_symbols=0', '--max_gibberish=0', '--dedup=none']
    clean(tmp_path / 'out', tmp_path / 'in', *rules)
    texts = {line['path'].split('/')[-1]: line['text'] for line in lines(tmp_path / 'out')}
    assert texts['a.md'] == page and texts['b.txt'] == paper
    assert '<table>' not in texts['a.html'] + texts['x.htm'] and '\\emph' not in texts['b.tex']
    assert report(tmp_path / 'out')['changed'] == {
        'html': {'documents': 2, 'example': f'{tmp_path}/in/a.html'},
        'control characters': {'documents': 1, 'example': f'{tmp_path}/in/b.txt'},
        'latex': {'documents': 1, 'example': f'{tmp_path}/in/b.tex'}}
    clean(tmp_path / 'out', tmp_path / 'in', *rules, '--markup=none')
    assert '<table>' in lines(tmp_path / 'out')[0]['text'] and report(
        tmp_path / 'out')['changed'].keys() == {'control characters'}
    clean(tmp_path / 'out', tmp_path / 'in/a.md', *rules, '--markup=html')
    assert '<table>' not in kept(tmp_path / 'out')[0]


def test_files_of_any_ending_are_found_also_by_globs_and_links_to_folders_are_not(
        tmp_path, monkeypatch):
    monkeypatch.chdir(write(tmp_path / 'in', TEXTS[:2]))
    names = 'A.PY b.markdown c.HTML c.rst d.tex d.org d.adoc x.c a.png b.png f a.pdf sub/y.py ' \
            'sub/far/z.md .hidden/x.py node_modules/x.js ../far/f.py'
    for path in map(pathlib.Path, names.split()):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('x')
    for pattern, n in ('sub', 2), ('sub/**', 2), ('sub/*', 1), ('**/*.py', 1), ('*', 10):
        assert len(find_files(pattern)[0]) == n, pattern
    assert find_files('./sub/../**/y.py')[0] == ['./sub/../sub/y.py']
    for name, to in ('a', '.'), ('sub/up', '..'), ('far', '../far'), ('link.py', '../far/f.py'):
        pathlib.Path(name).symlink_to(to)
    paths, others = find_files('.')
    assert len(paths) == 13 and find_files('.', 2)[0] == ['./000.txt', './001.txt']
    assert others == {'.pdf': 1, '.png': 2, 'no ending': 1}


def test_a_text_is_taken_from_the_field_that_somebody_names(tmp_path):
    path = write_records(tmp_path / 'a.jsonl', [{'text': 'no', 'article': text} for text in TEXTS])
    clean(tmp_path / 'out', path, '--text_field=article')
    assert kept(tmp_path / 'out') == sorted(TEXTS)
    clean(tmp_path / 'c', write(tmp_path / 'in', ['return  1;\n'], '{}.c'), '--mode=code')
    assert kept(tmp_path / 'c') == ['return  1;\n']        # C need not be Python


def test_lines_of_endoftext_divide_a_text(tmp_path):
    (tmp_path / 'a.txt').write_text('<|endoftext|>\n'.join(f'{text}\n' for text in TEXTS))
    clean(tmp_path / 'out', tmp_path / 'a.txt')
    assert kept(tmp_path / 'out') == sorted(TEXTS)
    (tmp_path / 'a.txt').write_text('long ' * 900_000 + '\n<|endoftext|> \n<|endoftext|>\nshort\n')
    clean(tmp_path / 'out', tmp_path / 'a.txt', '--mode=raw')
    assert sorted(map(len, kept(tmp_path / 'out'))) == [6, 4_500_001]


# --- what each stage drops ------------------------------------------------------------------------
def test_personal_data_are_masked_in_texts_and_records_and_counted(tmp_path):
    rows = [{'text': f'{text} Ask ann@uni.edu, bob@uni.edu.'} for text in TEXTS]
    clean(tmp_path / 'out', write_records(tmp_path / 'b.ndjson', rows))
    found = ''.join(kept(tmp_path / 'out'))
    assert found.count('<EMAIL>') == 2 * len(TEXTS) and '@' not in found
    assert report(tmp_path / 'out')['changed'] == {
        'email': {'documents': len(TEXTS), 'example': f'{tmp_path}/b.ndjson:1'}}


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
    printed = clean(out, write_records(tmp_path / 'x.jsonl', rows), '--audit=5')
    assert dropped(out) == {reason: len(some) for reason, some in rubbish.items()}
    assert {*report(out)['first']} == {*rubbish} and len(kept(out)) == len(good)
    assert f'short: 12 ({12 / (len(texts) - 4):.1%})' in printed        # of what came to this stage
    n = len(texts)
    for stage in report(out)['stages']:
        assert stage['docs_in'] == n
        n -= sum(stage['dropped'].values())
        assert stage['docs_out'] == n
    [source] = report(out)['sources'].values()
    assert report(out)['documents'] == source['documents'] == n
    assert stage['bytes_out'] == source['bytes'] == len(''.join(kept(out)))
    n_samples = (out / 'audit.md').read_text().count('\n## ')
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
        clean(tmp_path / 'out', source, *RAW, f'--dedup={dedup}', '--min_similarity=0.8')
        reasons = dropped(tmp_path / 'out')
        assert reasons['exact duplicate'] == 40 and least <= reasons['near duplicate'] <= 80
        assert firsts <= {*kept(tmp_path / 'out')}, dedup


def test_a_copy_in_another_source_is_found_and_weights_go_into_meta(tmp_path):
    for name, texts in ('web', TEXTS[:8]), ('books', TEXTS[6:]):
        write_records(tmp_path / f'{name}.jsonl', [{'text': text} for text in texts])
    (tmp_path / 'mix.py').write_text("sources = {'web': ('web.jsonl', 50), 'books': 'books.jsonl'}")
    ok(run('clean.py', 'mix.py', '--out_dir=out', cwd=tmp_path))
    sources = report(tmp_path / 'out')['sources']
    assert [(s['weight'], s['documents']) for s in sources.values()] == [(50, 8), (1, 4)]


# --- mistakes -------------------------------------------------------------------------------------
def test_nothing_of_others_is_replaced(tmp_path):
    a, b = (write(tmp_path / name, texts) for name, texts in (('a', TEXTS), ('b', TEXTS[:6])))
    out = tmp_path / 'out'
    clean(out, a)
    write(tmp_path / 'mine', ['{}'], 'meta.json')
    write(tmp_path / 'thesis/shards', ['mine'])
    shutil.copytree(out, tmp_path / 'more')
    (tmp_path / 'more/notes.txt').write_text('mine')
    shutil.copytree(out, tmp_path / 'text')             # of clean.py, in the way of prepare.py
    mistake(run('clean.py', f'--source={b}', f'--out_dir={out}'), f'has data of {a}; --overwrite')
    assert kept(out) == sorted(TEXTS)
    for name, script, theirs in [
            ('more', 'clean.py', 'notes.txt'), ('mine', 'clean.py', 'meta.json'),
            ('thesis', 'clean.py', 'shards'), ('text', 'prepare.py', ''),
            ('mine', 'prepare.py', 'meta.json'), ('more', 'prepare.py', '')]:
        files = [path for path in (tmp_path / name).rglob('*.*') if path.is_file()]
        before_ = [path.read_bytes() for path in files]
        result = run(script, f'--source={a}', f'--out_dir={tmp_path / name}', '--overwrite=True')
        mistake(result, f'{theirs}, which {script} did not write there')
        assert [path.read_bytes() for path in files] == before_
    clean(out, b)
    assert kept(out) == sorted(TEXTS[:6])


def test_a_full_disk_or_a_failure_leaves_the_old_data(folders, tmp_path):
    out = shutil.copytree(folders[2], tmp_path / 'out')
    more = '--num_workers=1', '--min_words=1'       # other settings, so it is cleaned anew
    full = run('clean.py', *flags('.', out, *more), cwd=folders[0], before=full_disk(10_000))
    assert full.returncode == 1 and 'File too large' in full.stderr
    assert results(out, is_done=False) == results(folders[2])
    result = run('clean.py', *flags('.', out, '--min_words=9999'), cwd=folders[0])
    mistake(result, 'no documents are left of .: ', 'short')
    assert results(out, is_done=False) == results(folders[2])
    ok(run('clean.py', *flags('.', out, *more), cwd=folders[0]))        # when there is room again
    assert kept(out) == kept(folders[2])


@pytest.fixture(scope='module')
def odd(tmp_path_factory):
    """What can't be cleaned or prepared."""
    home = write(tmp_path_factory.mktemp('odd') / 'home', [prose(0), prose(1)])
    write(home / 'pictures', ['x', 'y'], '{}.png')
    write(home / 'short', ['Page not found\n', 'Moved\n'])
    write_records(home / 'null.jsonl', [{'text': None}] * 2)
    write_records(home / 'content.jsonl', [{'content': text} for text in TEXTS])
    Tokenizer.byte().save(home / 'byte.json')
    Tokenizer.char('abc', SPECIAL_TOKENS).save(home / 'abc.json')
    for name, data in {'koi8.txt': 'наивный'.encode('koi8-r'), 'list.jsonl': b'[\n{"text": "a"}\n]\n', 'one.jsonl': b'{\n"text": "a"\n}\n',
                       'comma.jsonl': b'{"text": "a"},\n', 'empty.txt': b'',
                       'cut.txt.gz': gzip.compress(b'x' * 99)[:-5]}.items():
        (home / name).write_bytes(data)
    return home


# a script and its flags, or a line of a config file | words of the sentence
MISTAKES = """
clean.py --source=pictures | no text at | .jsonl | which has .png: 2
clean.py --source=nowhere | no text at 'nowhere', which has nothing
clean.py --source=empty.txt | no documents are left | empty
clean.py --source=cut.txt.gz | damaged file: cut.txt.gz
clean.py --source=list.jsonl | no JSON record: list.jsonl:1
clean.py --source=one.jsonl | no JSON record: one.jsonl:1
clean.py --source=00*.txt --encoding=cp12500 | unknown encoding: cp12500
clean.py --source=00*.txt --encoding=base64 | 'base64' is not a text encoding
clean.py --source=comma.jsonl | no JSON record: comma.jsonl:1
clean.py --source=short | no documents are left | short: short/000.txt
clean.py --source=short --dedup=simhash | no documents are left
clean.py --source=shakespeare --download_dir=raw | https:// | raw/shakespeare.txt
clean.py --source=null.jsonl | --text_field=NAME
clean.py --source=. --url_block=no | no can't be read | No such file
clean.py --source=. --mode=chat | mode
clean.py --source=. --licences=mit | licenses
clean.py --source=. --bands=0 | bands
clean.py sources = {} | sources={} | must name a source
clean.py sources = {'a': ('x', -1)} | weight
clean.py sources = {'a b': ('x', 1)} | a b
clean.py sources = {5: ('x', 1)} | sources[5]
clean.py sources = {'a': ('000.txt', 1), 'b': ('001.txt', None)} | weight
prepare.py  | no text at data/clean | python clean.py
prepare.py --source=pictures | no text at pictures
prepare.py --source=koi8.txt | koi8.txt:1 | clean.py
prepare.py --source=list.jsonl | list.jsonl:1 | clean.py
prepare.py --source=comma.jsonl | comma.jsonl:1 | clean.py
prepare.py --source=null.jsonl | null.jsonl:1 | clean.py
prepare.py --source=content.jsonl | content.jsonl:1 | {"text": ...} | clean.py
prepare.py --source=empty.txt | empty.txt has no text
prepare.py --source=00*.txt --tokenizer=nowhere.json | nowhere.json | path of a tokenizer.json
prepare.py --source=00*.txt --tokenizer=byte.json | byte.json | <|endoftext|>
prepare.py --source=00*.txt --tokenizer=abc.json | no character of this char tokenizer
prepare.py --source=00*.txt --tokenizer=wordpiece | wordpiece | bpe
prepare.py --source=00*.txt --vocab_size=100 | vocab_size | 320
prepare.py --source=00*.txt --temperature=2 | need several sources
prepare.py --source=00*.txt --kind=sft | --kind: no setting has this name
prepare.py --source=shakespeare | https:// | data/raw/shakespeare.txt
prepare.py --source=cut.txt.gz | cut.txt.gz | clean.py
prepare.py weights = {'a': 1}; source = '00*.txt' | need several sources"""


@pytest.mark.parametrize('line', MISTAKES.strip().split('\n'))
def test_what_cannot_be_is_one_sentence_and_leaves_nothing(odd, tmp_path, line):
    said, *words = line.split(' | ')
    script, _, said = said.partition(' ')
    settings = [tmp_path / 'c.py'] if ' = ' in said else said.split()
    (tmp_path / 'c.py').write_text(said)
    offline = dict.fromkeys(('HTTPS_PROXY', 'https_proxy'), 'http://127.0.0.1:9')   # nobody listens
    mistake(run(script, *settings, f'--out_dir={tmp_path}/out', cwd=odd,
                env={**offline, 'NO_PROXY': '', 'no_proxy': ''}), *words)
    assert not (tmp_path / 'out').exists()


# --- what a run leaves alone ----------------------------------------------------------------------
@pytest.mark.parametrize('script', ['clean.py', 'prepare.py'])
def test_a_folder_of_yours_beside_the_results_stays_and_earlier_results_are_no_source(tmp_path, script):
    source = write(tmp_path / 'a', TEXTS)
    mine = write(tmp_path / 'a/out.work', ['mine ' + prose(50)])
    (source / 'out').mkdir()
    (source / 'out/.DS_Store').write_text('x')
    for path in f'{source}', f'{source}/', f'{source}/../a':        # one folder
        ok(run(script, f'--source={path}', f'--out_dir={source}/out'))
        found = report(source / 'out') if script == 'clean.py' else json.loads(
            (source / 'out/meta.json').read_text())
        n = found['documents']
        assert (n if script == 'clean.py' else sum(n.values())) == 13
    assert (mine / '000.txt').exists() and {path.name for path in source.glob('.*')} == set()


def test_ctrl_c_ends_the_processes_at_once(tmp_path):
    rows = [{'text': prose(i, 300)} for i in range(40_000)]
    write_records(tmp_path / 'in/a.jsonl', rows)
    process = subprocess.Popen(
        [sys.executable, ROOT / 'clean.py', f'--source={tmp_path}/in', f'--out_dir={tmp_path}/out'],
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not [*tmp_path.glob('.out*/*/documents.jsonl')] and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(5)
    assert process.returncode in (1, 130, -signal.SIGINT) and not (tmp_path / 'out').exists()


def test_no_line_becomes_a_reason_and_marks_are_seen(tmp_path):
    """A zero byte is no sign of a reason in lines of JSON; a mark beats --encoding."""
    folder = write(tmp_path / 'in', [])
    (folder / 'zero.jsonl').write_bytes(b'\0SECRET words\n' + json.dumps({'text': TEXTS[0]}).encode())
    (folder / 'mark.txt').write_bytes('Zażółć'.encode('utf-8-sig'))
    (folder / 'polish.txt').write_bytes('Zażółć gęślą'.encode('cp1250'))
    clean(tmp_path / 'out', folder, *RAW, '--encoding=cp1250')
    assert dropped(tmp_path / 'out') == {'no JSON record': 1}
    assert kept(tmp_path / 'out') == sorted(['Zażółć', 'Zażółć gęślą', TEXTS[0]])
