"""clean.py: what its functions do to a text; its shards, however the work is shared or interrupted;
what people bring; what is dropped and why; what it refuses."""
import codecs
import functools
import gzip
import itertools
import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import pytest
from accidents import before, full_disk, killed_after
from conftest import (ROOT, each_line, fill, mistake, ok, python, read_json, run, shared,
                      shared_fixture, table, with_each)
from preparing import RAW, WORDS, clean, dropped, kept, lines, prose, report, write
from preparing import write_records

import clean as program
import files
from clean import code_reason, compiles, hash64, mode_of, normalize, prose_reason
from extras.text.markup import fix_mojibake
from tokenizer import SPECIAL_TOKENS, Tokenizer

TEXTS = [prose(i) for i in range(12)]


# --- normalization --------------------------------------------------------------------------------
# a text, and what it becomes, as JSON strings
NORMALIZED = r'''
"cafe\u0301" -> "caf\u00e9"
"caf\u00e9" -> "caf\u00e9"
"e\u200b\u0301 \u212b" -> "\u00e9 \u00c5"
"x\u00b2 \u00bd \ufb01 \u2122 \u2026" -> "x\u00b2 \u00bd \ufb01 \u2122 \u2026"
"a\u0000b\u0007\u007f\u00adc\u200bd\ufeff" -> "abcd"
"a\u3000b\u00a0c" -> "a b c"
"one\u2028two\ffour\u000bfive" -> "one\ntwo\nfour\nfive"
"\ufeff \n  a \t b  \r\n\r\n\r\n\r\nc\rd " -> "  a b\n\nc\nd"
"\u001b[1;32mOK\u001b[0m \u001b]8;;http://a.org\u001b\\a link\u001b]0;title\u0007\u001b(B!" -> "OK a link!"
"N\bNA\bAM\bME\bE _\bx \u6f22\b\u6f22" -> "NAME x \u6f22"
"abc\b\b\bxyz" -> "xyz"
"so\n10%\b\b\b\b20%\b\b\bdone" -> "so\ndone"
"\u009b31mred\u009b0m \u00932\u0094" -> "red \u201c2\u201d"
"\u001bP1;2q#0data\u001b\\a" -> "a"
"\u001b_app\nb\u001b\\c\u001b^x\u0007 d\u001bPe" -> "c de"
"one\u001ftwo" -> "one\ntwo"
"\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645" -> "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
"\u0915\u094d\u200d\u0937 \ud83d\udc69\u200d\ud83d\udcbb" -> "\u0915\u094d\u200d\u0937 \ud83d\udc69\u200d\ud83d\udcbb"
"\u1797\u17b6\u179f\u17b6\u200b\u1781\u17d2\u1798\u17c2\u179a" -> "\u1797\u17b6\u179f\u17b6\u200b\u1781\u17d2\u1798\u17c2\u179a"
"\u0e01\u0e34\u200b\u0e02 \u0e81\u200b\u0e82 \u1000\u103a\u200b\u1001" -> "\u0e01\u0e34\u200b\u0e02 \u0e81\u200b\u0e82 \u1000\u103a\u200b\u1001"
"\u0e01\u200b\u200b\u0e02\u200b a\u200b\u0e01\u200b, \u200b\u4e2d\u200b\u6587" -> "\u0e01\u200b\u0e02 a\u0e01, \u4e2d\u6587"
'''


@each_line(NORMALIZED)
def test_prose_is_normalized_and_again_changes_nothing(line):
    text, wanted = map(json.loads, line.split(' -> '))
    once = normalize(fix_mojibake(text), 'prose')
    assert once == wanted == normalize(fix_mojibake(once), 'prose')


# --- code or prose ------------------------------------------------------------------------------------------
CLASS = 'class A:\n    def f(self, x):\n        if x:\n            return  1\n'
FORMS = {
    'code': [CLASS, 'x = 1\n', 'print(1)\n', '@a\nasync def f():\n    await g()\n'],
    'prose': ['Yes\n', '    return 3\n', 'a, b, c\n', 'note: this\n', '# Title\n\n# Another\n', '', '3\n', '"Yes."\n',
              'Dear Ann,\n    how are you?\n\nYours\n',
              'Select the items\nfrom the list that\nwhere they stand, and\nset them on the table.\n',
              'To be or not to be: that is the question;\n  whether it is nobler in the mind\n' * 3]}


# paths without an ending, and with such as nobody has written down
NO_ENDING = ['', *'''
a.jsonl:3
a.jsonl.gz:3 a/Makefile
notes.gz
v1.d/README
a.jsonl:3 ann/discord.py/
a.parquet:9 ann/x.zig/b'''.split('\n')]
OTHER_CODE = ('a.jsonl:3 repo/X.C,a.jsonl:3 B.CBL,a/b.zig,x.mjs,y.ps1,z.nim,w.c++,v.proto,u.f77,'
              'src/a.zig.gz,my.notes/a.v').split(',')


def test_code_is_known_by_its_path_and_python_also_by_itself():
    for path in NO_ENDING:
        for form, texts in FORMS.items():
            assert {mode_of(text, path) for text in texts} == {form}, path
    foreign = ['int f(void) {\n\treturn  1;\n}\n', 'one     two\n']
    for path, form in ('', 'prose'), *((path, 'other code') for path in OTHER_CODE):
        assert {mode_of(text, path) for text in foreign} == {form}, path
    for text, form in itertools.product(foreign + FORMS['code'], ('code', 'other code')):
        assert normalize('\ufeff' + text.replace('\n', '\r\n'), form) == text
    for path, text, form in ('a.jsonl:3 repo/x.py', 'Just prose.', 'code'), ('B.PY.gz', '', 'code'), (
            'a.html', '<p>\nx = 1\ny = 2\n', 'prose'), ('a.jsonl:3 repo/x.PDF', 'x = 1\n', 'prose'), (
            'film.srt.gz', '1\n', 'prose'), ('a/b.LOG', 'x = 1\n', 'prose'), ('a.jsonl:3 ann/x.pdf/', 'x = 1\n', 'code'):
        assert mode_of(text, path) == form, path


# how code begins and ends; / stands for a newline
FENCES = """
``` => ```
> ``` => > ```
- ```python =>   ```
1. ``` =>    ```
```` => ````
~~~ => ~~~
> ~~~ {.py `a`} => > ~~~~
~~~/``` => ~~~"""


def test_code_within_prose_stays_and_the_prose_around_it_is_tidied():
    for begin, end in table(FENCES):
        begin = begin.replace('/', '\n')
        code = f'{begin}\nif  x <b>50%</b> &amp; \\emph{{x}}:\n    y\n{end}'
        fenced = f'A <b>bold</b>   word:\n\n{code}\n\n\n\nand  so\n  on.\n'
        assert mode_of(fenced, '') == 'prose'
        assert normalize(fenced, 'prose') == f'A <b>bold</b> word:\n\n{code}\n\nand so\n  on.'
    for indent in '   ', '\t', '        ':
        code = f'{indent}x   = 1\n\n\n\n{indent}  y  = 2'
        assert normalize(f'So  it is::\n\n\n{code}\n\n\n \nand  so', 'prose') == (
            f'So it is::\n\n{code}\n\nand so')
    assert normalize('a\n\n     \n\n\t\nb', 'prose') == 'a\n\nb'
    # within a line, three backticks are no fence, and hide nothing that follows; nor does a heading
    for heading in 'Title\n~~~~~', '[1.0.0]\n-------', 'See [this]\n----------':
        assert normalize(f'{heading}\n\nand  so  on\n', 'prose') == f'{heading}\n\nand so on'
    assert normalize('Type ```  twice.\nIt  ends.\n', 'prose') == 'Type ``` twice.\nIt ends.'


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
            ('$ 5 % # @ ! ' * 9, 'symbols'), ('★ \ufffd ▓ 5 ' * 9, 'symbols'), ('buy now ' * 50, 'repetitive'),
            (f'{ENGLISH}\n' * 5, 'repetitive'), (' '.join(f'q{i}x{i}z' for i in range(30)), 'gibberish')]:
        assert prose_reason(text) == reason, text
        assert prose_reason(text, 0, 0, 0, 0) is None, 'each rule is switched off by zero'


@pytest.mark.filterwarnings('error')
def test_each_reason_of_code_at_its_threshold(monkeypatch):
    """Two rules drop only a text whose chance is below seven tenths."""
    for text, reason, *other_languages in [
            (CODE, None), (CODE.replace('=', ' '), 'few assignments'),
            (CODE * 2 + '#' + 'a' * 999, None), (CODE * 2 + '#' + 'a' * 1000, 'long line'),
            ('\n' * 4 + '# AUTO-GENERATED\n' + CODE, 'autogenerated'),
            ('\n' * 5 + '# auto-generated\n' + CODE, None),
            ('a' * 100, None, True), ('a' * 101, 'long lines', True),
            ('a' * 25 + '-' * 75, None, True), ('a' * 24 + '-' * 76, 'few letters', True)]:
        assert code_reason(text, not other_languages) == reason, text
    for chance in 0.69, 0.7:
        monkeypatch.setattr(program, 'hash64', lambda data: int(chance * 2 ** 64))
        for text, reason in [
                ('# Unit tests of f\n' + CODE, 'config or test'), (CODE + 'test\n' + '\n' * 11, None),
                (CODE + 'test\n' + '\n' * 10, 'config or test'),              # 1 in 20: not over 5%
                ('a = b = c = d = e = 1\n', 'no keywords')]:
            assert code_reason(text) == (reason if chance < 0.7 else None), text
    monkeypatch.undo()
    # the chance is not the hash of the split: of what stays, some is below seven tenths there
    texts = [f'# Unit tests\n{CODE}{i}\n' for i in range(99)]
    stays = [text for text in texts if code_reason(text) is None]
    assert {hash64(text.encode()) < 0.7 * 2 ** 64 for text in stays} == {True, False}
    assert compiles('') and compiles('x = "\\d"')                         # without a warning
    for text in 'return 1', 'x = \0', '(' * 5000, '-' * 100_000 + '1', '\ud800':
        assert not compiles(text), text[:9]


def test_what_begins_as_a_sentence_is_no_program():
    dice, parts = random.Random(0), [*'aeiouybcdfgxz019 \n\t_-×÷éßÿÀœ中\u0301\xa0\x0c\ud800²ª']
    parts += 'It is A not X x = True for match if or and print in # \n ( ) : é _ f"x" yes'.split(' ')
    texts = [dice.choice([' ', '']).join(dice.choices(parts, k=dice.randrange(1, 60))) for _ in range(8000)]
    sentences = [text for text in texts if program.SENTENCE.match(text)]
    assert len(sentences) > 200 and not any(map(compiles, sentences))


# --- shared and interrupted work ------------------------------------------------------------------
SHARDS = 12
WORK = '.nanoparrot'


def results(out=Path('out'), is_done=True):
    """All files, and the report, which names no other folder."""
    assert (out / WORK).exists() != is_done
    files = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob('*.*')
             if path.is_file() and WORK not in path.parts}
    del files['report.md']
    return files


@shared_fixture
def begin(tmp_path_factory):
    """begin(*flags) cleans a source of as many files into out."""
    source = tmp_path_factory.mktemp('source')
    for i in range(SHARDS):
        rows = [{'text': prose(30 * i + j), 'license': 'MIT', 'path': f'{j}'} for j in range(30)]
        write_records(source / f'{i:05}.jsonl', rows)
    return functools.partial(run, f'clean.py --source={source} --out_dir=out --max_gibberish=0 '
                             '--num_workers=2 --overwrite=True')


@shared_fixture
def done(begin, tmp_path_factory):
    """What clean.py makes of it."""
    folder = tmp_path_factory.mktemp('done')
    ok(begin(cwd=folder))
    return folder / 'out'


def test_however_many_processes_share_the_work_the_bytes_are_the_same(begin, done):
    for n, macos in (1, ''), (4, ''), (2, "import sys; sys.platform = 'darwin'"):   # which can't fork
        ok(begin(f'--num_workers={n}', before=macos))
        assert results() == results(done), n


def test_the_workers_of_a_cluster_write_the_same_bytes(begin, done):
    distributed = pytest.importorskip('distributed', reason='needs dask.distributed')
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as two:
        ok(begin(f'--cluster={two.scheduler_address}'))
    assert results() == results(done)


def test_shards_say_what_they_are_and_where_each_document_is_from(done):
    for i, line in enumerate(lines(done)):
        assert line['license'] == 'MIT'
        assert line['path'] == f'{line["source"]}/{i // 30:05}.jsonl:{i % 30 + 1} {i % 30}'


def test_after_a_kill_at_any_moment_no_shard_is_cleaned_twice_and_none_is_lost(begin, done):
    power_fails = before('clean a shard', 'if n == 2: os.killpg(0, signal.SIGKILL)')
    workers_count = before('clean a shard', """
        import multiprocessing
        if multiprocessing.parent_process():
            open('counted', 'a').write('.')""")
    result = begin(before=f'import os\nos.setsid(){power_fails}')
    assert result.returncode == -9 and os.listdir('out') == [WORK]
    n_done = len([*Path('out', WORK).glob('?' * 16 + '-?????')])
    assert 2 <= n_done < SHARDS
    ok(begin(before=workers_count))
    assert len(Path('counted').read_text()) == SHARDS - n_done
    assert results() == results(done)


def test_shards_are_known_by_their_settings_files_and_programs(monkeypatch):
    """What was cleaned otherwise is never used."""
    text, words, used, ours, other = (write_records(name, []) for name in
                                      'a.txt words extras/text/used.py clean.py docs/other.md'.split())
    monkeypatch.setattr(program, '__file__', str(ours))
    state = lambda settings='': program.fingerprint(settings, [text, words])
    first = state()
    other.write_text('an edit')
    assert state() == first != state('min_words=9')
    for path in used, ours, words, text:
        path.write_text('an edit')
        assert state() != first
        first = state()


def test_a_worker_that_dies_ends_the_run(begin):
    result = begin(before=killed_after('clean a shard', 2), timeout=100)
    assert result.returncode == 1 and 'process pool was terminated' in result.stderr


@with_each('script, more', [('clean.py', [*RAW, '--num_workers=2']),
           ('prepare.py', ['--tokenizer=byte'])])
def test_memory_does_not_grow_with_the_input(script, more):
    for i in range(6):
        rows = [{'text': random.randbytes(5000).hex()} for _ in range(250)]
        write_records(f'{i}.jsonl', rows)
    measure = 'import resource, subprocess as s, sys; s.run(sys.argv[1:], check=True, stdout=2)\n' \
              'print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)'
    peaks = []
    for name in '0.jsonl', '*.jsonl':                   # 2.5 MB, 15 MB
        command = sys.executable, ROOT / script, f'--source={name}', f'--out_dir={name[0]}out', *more
        peaks.append(int(ok(python('-c', measure, *command))))
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
?SECRET words

{"title": "x"}
{"text": null}
{"text": "c", "license": {"a": 1, "a": 2}}
""".replace(b'?', b'\0').replace(b'!', b'\xef') + b'[' * 100_000
ARCHIVE = gzip.compress(json.dumps(random.Random(0).randbytes(60_000).hex()).encode())
GOOD = {'a.jsonl': LINES, 'a.ndjson': codecs.BOM_UTF8 + LINES, 'a.jsonl.gz': gzip.compress(LINES),
        'windows.jsonl': LINES.decode().encode('utf-16')}
NOT_UTF8 = '''
koi8.txt koi8-r наивный текст
bare.txt utf-16-le plain text
mail.txt iso2022_jp こんにちは
turk.md cp1254 ağaç şu
cp1252.txt cp1252 It’s an old man’s hat.'''
NOT_UTF8 = {name: text.encode(code) for name, code, text in (
    line.split(' ', 2) for line in NOT_UTF8.strip().split('\n'))}
NOT_UTF8 |= {'undefined.txt': b'a word \x81', 'a.c': b'\x7fELF' + bytes(range(256)) * 9, '\udce9.txt': b'\xff'}
DAMAGED = {'none.txt.gz': b'x', 'cut.txt.gz': ARCHIVE[:-100],
           'odd.txt.gz': ARCHIVE[:10] + b'\xff' * 100, 'cut.jsonl.gz': ARCHIVE[:9999]}
POINTER = b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n'
FOREIGN = {'lfs.csv': POINTER, 'lfs.jsonl.gz': POINTER, 'lines.md': LINES, 'list.txt': b'[{"text": "a"}]',
          'b.txt': b'%PDF-1.7\n', 'c.md': b'{\\rtf1 a}', 'd.csv': b'PK\3\4 a', 'e.txt': b'WARC/1.0\r\n',
          'f.jsonl': ARCHIVE}


# the first place of each reason, and words of the reason
FIRST = """
mixed.jsonl:2 ~ not a JSON object {...} (a list of them must be a .json file)
mixed.jsonl:9 it has title ~ no text in a usual field: name the field with clean.py --text_field=NAME
mixed.jsonl:10 it has text ~ no text in text (NoneType): name the field with clean.py --text_field=NAME
cut.jsonl.gz ~ (Compressed file ended before the end-of-stream marker was reached)
none.txt.gz ~ (Not a gzipped file (
odd.txt.gz ~ (Error -3 while decompressing
lfs.csv ~ git lfs pull
lines.md ~ .jsonl or .json
b.txt ~ the content looks like a .pdf
c.md ~ .rtf
d.csv ~ .docx
e.txt ~ .warc
f.jsonl ~ .gz
"""


def test_what_is_good_arrives_and_garbage_is_counted_and_named_with_its_line():
    encoded = {f'{name}.txt': NAIVE.encode(name) for name in ('utf-8', 'utf-8-sig', 'utf-16', 'utf-32')}
    fill({**GOOD, **encoded, **NOT_UTF8, **DAMAGED, **FOREIGN, 'mixed.jsonl': MIXED}, 'in')
    Path('in/gone').symlink_to('nowhere')
    said = clean('in/*', *RAW, '--num_workers=2')
    assert 'skipped: broken links: 1\n' in said
    assert kept() == sorted([*READ * len(GOOD), *[NAIVE] * len(encoded), *'abc', 'a raw \0 byte'])
    reasons = report()['dropped']
    n_bytes = sum(map(len, NOT_UTF8.values())) + len('na! byte')
    n_utf8 = reasons.pop(files.NOT_UTF8)
    assert (n_utf8['documents'], n_utf8['bytes']) == (len(NOT_UTF8) + 1, n_bytes)
    named = {place['example'].split('/')[-1]: reason for reason, place in reasons.items()}
    for place, words in table(FIRST, ' ~ '):
        assert words in named.pop(place), place
    assert not named
    for page in said, Path('out/report.md').read_text():
        assert '--encoding=NAME' in page and '--text_field=NAME' in page
    assert said.splitlines()[-1] == 'next: python prepare.py --source=out'


def test_a_reason_that_costs_more_than_half_of_a_source_is_a_warning_above_the_last_line():
    """Of its documents, or of its bytes."""
    good, lost = prose(1).encode(), 'é'.encode('cp1252') * 9
    for name, n_good, n_lost, is_most in ('a', 2, 3, 1), ('b', 9, 1, 1), ('c', 3, 2, 0), ('d', 2, 0, 0):
        texts = {f'{i}.txt': good + b'%d' % i for i in range(n_good)}
        texts |= {f'x{i}.txt': lost * (900 if name == 'b' else 1) for i in range(n_lost)}
        *_, said, last = clean(fill(texts, name), '--dedup=none').splitlines()
        assert last.startswith('next: ')
        warning = f'WARNING: most of the text is dropped, first {name}/x0.txt: not UTF-8'
        assert said.startswith(warning) == is_most, said


def test_markup_is_what_a_file_or_a_flag_says_and_what_changes_is_counted():
    page = 'Use the `<table>` element, close each `<p>`. Write `&lt;` for <.'
    paper = 'A cup costs $3 and a plate $4. The % operator gives {1, 2}, see ~/data and \\emph{this}.'
    source = write_records('in/c.jsonl', [{'text': page, 'path': 'web/x.htm'}]).parent
    write_records(source / 'd.jsonl', [{'text': 'Ask ann@uni.edu, bob@uni.edu.'}])
    fill({'a.md': f'{page}\r\n', 'b.txt': f'{paper}\xad', 'a.html': f'<p>{page}</p>',
                  'b.tex': paper}, source)
    rules = '--min_words=0 --max_symbols=0 --max_gibberish=0 --dedup=none'
    clean(source, rules)
    texts = {line['path'].split('/')[-1]: line['text'] for line in lines()}
    assert texts['a.md'] == page and texts['b.txt'] == paper
    assert texts['d.jsonl:1'] == 'Ask <EMAIL>, <EMAIL>.'
    assert '<table>' not in texts['a.html'] + texts['x.htm'] and '\\emph' not in texts['b.tex']
    changed = {what: ' '.join(map(str, found.values())).replace('in/', '')
               for what, found in report()['changed'].items()}
    assert changed == {'html': '2 25 a.html', 'control characters': '1 2 b.txt',
                       'latex': '1 52 b.tex', 'email': '1 None d.jsonl:1'}
    clean(source, rules, '--markup=none')
    assert '<table>' in lines()[0]['text']
    assert report()['changed'].keys() == {'control characters', 'email'}
    clean(source / 'a.md', rules, '--markup=html')
    assert '<table>' not in kept()[0]


def test_only_a_path_has_an_ending_and_a_repository_has_none():
    """Of a record, its path says what its text is, and the name of a repository says nothing."""
    text = 'A cup costs $3 and a plate costs $5 more.\n<b>Both</b>  are \\emph{blue} and one     two.'
    tidy = text.replace('   ', ' ').replace('  ', ' ').replace('  ', ' ')
    rows = [{name: f'ann/{repo}', 'content': f'{text} {name} {repo}', **more}
            for name in ('repo', 'repo_name', 'max_stars_repo_name', 'repository_name')
            for repo in ('discord.py', 'thesis.tex', 'site.html', 'notes.zig')
            for more in ({}, {'path': ''}, {'path': 'docs/Makefile'})]
    rows += [{'repo': 'ann/a.py', 'path': path, 'content': f'{text} {path}'} for path in ('a.cbl', 'b/c.txt')]
    clean(write_records('a.jsonl', rows), '--dedup=none --min_words=0')
    found = [(line['path'].partition(' ')[2], line['text']) for line in lines()]
    assert len(found) == len(rows)
    for row, (_, read) in zip(rows, found):
        is_code = row.get('path') == 'a.cbl'
        assert read.startswith(text if is_code else tidy), (row, read)
    assert found[0][0] == 'ann/discord.py/' and found[2][0] == 'ann/discord.py/docs/Makefile'


def test_a_text_is_taken_from_the_field_that_somebody_names_and_c_need_not_be_python():
    rows = [{'text': 'no', 'article': f'return  {i};\n', 'path': f'{i}.c'} for i in range(9)]
    clean(write_records('a.jsonl', rows), '--text_field=article --mode=code --dedup=none')
    assert kept() == [row['article'] for row in rows]


def test_a_long_text_comes_in_pieces_and_lines_of_endoftext_divide_it():
    """It is cut before an empty line, or where there is none, before another one."""
    for paragraph, begin in ('word ' * 90 + '\n\n', '\n'), ('and so on, for ever\n', 'a'):
        book = paragraph * (5_000_000 // len(paragraph))
        text = f'{book}<|endoftext|> \n<|endoftext|>\nshort\n'
        *pieces, empty, short = files.texts_in(text.splitlines(True))
        assert ''.join(pieces) == book and len(pieces) > 20 and pieces[1][0] == begin
        assert max(map(len, pieces)) < 2.01 * files.PIECE
        assert (empty, short) == ('', 'short\n')
    # a record is as long as it likes
    path = str(write_records('a.jsonl', [{'text': book}]))
    assert [document['text'] for document in files.read(path)] == pieces


def test_odd_bytes_zeros_and_data_go_or_are_replaced_and_are_counted():
    """One byte in a thousand; above, a text is left out. Of lines of JSON, each is a text."""
    line = prose(1, 20) + '\n'
    book = line.encode() * 60_000                               # 8 MB: it comes in pieces
    row = json.dumps({'text': line * 12}).encode() + b'\n'
    picture = f'![x](data:image/png;base64,{"iVBORw0KGgo" * 400})'
    odd = {
        'a.txt': book[:4_000_000] + b'\x92' + book[4_000_000:],
        'b.jsonl': row + row.replace(b'.', b'\xe9', 1) + row.replace(b'a', b'\xe9', 4) + b'\0' + row,
        'c.txt': line.encode() * 9 + bytes(512) + line.encode(), 'd.c': b'int  a;\n' + bytes(99),
        'e.md': f'{line}{picture} a \x1b[1mbold\x1b[0m end'.encode(), 'f.py': b'x = 1 # \x92',
        'g.md': '{0}<|endoftext|> {0}<|endoftext|>\n{0}<|endoftext|>, {0}'.format(prose(2, 20))}
    clean(fill(odd, 'in'), '--dedup=none --min_words=0 --max_repetition=0 --max_gibberish=0')
    texts = {row['path'].removeprefix('in/'): row['text'] for row in lines()}
    assert texts['b.jsonl:2'].count('\ufffd') == 1 and {*texts} >= {'b.jsonl:1', 'b.jsonl:4'}
    assert texts['c.txt'].strip() == (line * 10).strip()
    assert texts['d.c'] == 'int  a;\n' and texts['e.md'].endswith('![x]() a bold end')
    place = f'in/a.txt:{4_000_000 // len(line) + 1}'            # its line
    for what, *wanted in [('undecodable bytes', 2, 2, place),
                          ('embedded data', 1, len(picture) - 6, 'in/e.md'),
                          ('control characters', 3, 512 + 99 + 8, 'in/c.txt'),
                          ('<|endoftext|> to plain text', 2, 26, 'in/g.md'),
                          (files.NOT_UTF8, 2, len(line) * 12 + len(odd['f.py']), 'in/b.jsonl:3')]:
        assert [*(report()['changed'] | report()['dropped'])[what].values()] == wanted, what


# --- what each stage drops ------------------------------------------------------------------------
def test_every_document_is_dropped_for_its_reason_and_the_figures_add_up():
    code = [''.join(f'def {word}(x={i}):\n    return x\n' for word in WORDS[i * 9:i * 9 + 9])
            for i in range(20)]
    near = [f'{prose(i + 100, 400)}\n' for i in range(3)]
    good = TEXTS + near + code
    rubbish = {
        'empty': ['', ' ', '\n'],
        'short': [f'too short {w}' for w in WORDS[:12]],
        'does not parse': [text.replace(':', '', 1) for text in code[:8]],
        'exact duplicate': [text.replace('.', '.\n\n') for text in TEXTS[:9]],
        'near duplicate': [f'{text}one more\n' for text in near]}
    texts = good + sum(rubbish.values(), [])
    rows = [{'text': text, 'path': 'x.py' if text.startswith('def') else 'x.txt'} for text in texts]
    printed = clean(write_records('x.jsonl', rows))
    assert dropped() == {reason: len(some) for reason, some in rubbish.items()}
    assert report()['dropped'].keys() == rubbish.keys() and len(kept()) == len(good)
    # of what came to this stage
    assert f'short: 12 ({12 / (len(texts) - 3):.1%})' in printed
    assert f'dropped: short: documents: 12, bytes: {len("".join(rubbish["short"]))}, ' in printed
    n = len(texts)
    for stage in report()['stages']:
        assert stage['docs_in'] == n
        n -= sum(stage['dropped'].values())
        assert stage['docs_out'] == n
    [source] = report()['sources'].values()
    assert report()['documents'] == source['documents'] == n
    assert stage['bytes_out'] == source['bytes'] == len(''.join(kept()))


def test_a_copy_in_another_source_is_found_and_weights_go_into_meta():
    for name, texts in ('web', TEXTS[:8]), ('books', TEXTS[6:]):
        write_records(f'{name}.jsonl', [{'text': text} for text in texts])
    fill({'mix.py': "sources = {'web': ('web.jsonl', 50), 'books': 'books.jsonl'}"})
    ok(run('clean.py', 'mix.py', '--out_dir=out'))
    sources = report()['sources']
    assert [(s['weight'], s['documents']) for s in sources.values()] == [(50, 8), (1, 4)]


# --- mistakes -------------------------------------------------------------------------------------
def test_a_full_disk_or_a_failure_leaves_the_old_data(begin, done):
    shutil.copytree(done, 'out')
    # other settings, so it is cleaned anew
    full = begin('--num_workers=1 --min_words=1', before=full_disk(10_000))
    assert full.returncode == 1 and 'File too large' in full.stderr
    assert results(is_done=False) == results(done)
    mistake(begin('--min_words=9999'), 'no documents of & are left: short')
    assert results(is_done=False) == results(done)


@shared_fixture
def odd(tmp_path_factory):
    """What can't be cleaned or prepared."""
    home = write(tmp_path_factory.mktemp('odd') / 'home', [prose(0), prose(1)])
    write(home / 'pictures', ['x', 'y'], '{}.png')
    write(home / 'short', ['Page not found\n', 'Moved\n'])
    write_records(home / 'null.jsonl', [{'text': None}] * 2)
    write_records(home / 'odd.jsonl', [{'title': text} for text in TEXTS])
    Tokenizer.byte().save(home / 'byte.json')
    Tokenizer.char('abc', SPECIAL_TOKENS).save(home / 'abc.json')
    return fill({
        'lists/a.json': '[]', 'koi8.txt': 'наивный'.encode('koi8-r'), 'list.jsonl': '[\n{"text": "a"}\n]\n', 'empty.txt': '',
        'cut.txt.gz': gzip.compress(b'x' * 99)[:-5]}, home)


# a script and its flags, or a line of a config file | words of the sentence
MISTAKES = """
clean.py --source=pictures | no text at | .jsonl | which has .png: 2
clean.py --source=nowhere | nowhere does not exist
clean.py --source=empty.txt | are left: empty
clean.py --source=cut.txt.gz | can't be read (Compressed file ended | ): cut.txt.gz
clean.py --source=list.jsonl | not a JSON object {...} (a list of them must be a .json file): list.jsonl:1
clean.py --source=00*.txt --encoding=cp12500 | --encoding=cp12500
clean.py --source=short | no documents of short are left: short: short/000.txt
clean.py --source=shakespeare | https:// | data/raw/shakespeare.txt
clean.py --source=null.jsonl | --text_field=NAME
clean.py --source=. --url_block=no | no does not exist
clean.py --source=. --decontaminate=short | short is not a benchmark file: can't be read (Is a directory)
clean.py --source=. --mode=chat | mode
clean.py --source=. --licences=mit | licenses
clean.py --source=. --bands=0 | bands
clean.py sources = {} | sources={} | must name a source
clean.py sources = {'a': ('x', -1)} | weight
clean.py sources = {'a b': ('x', 1)} | a b
clean.py from pathlib import Path; sources = {'a': Path('x')} | must look like
clean.py sources = {5: ('x', 1)} | sources[5]
clean.py sources = {'a': ('000.txt', 1), 'b': ('001.txt', None)} | weight
prepare.py  | no text at data/clean | python clean.py
prepare.py --source=pictures | no text at pictures
prepare.py --source=lists | which has .json: 1; a folder is searched for .adoc .htm | .xhtml; name others with a glob
prepare.py --source=koi8.txt | koi8.txt: not UTF-8 | clean.py
prepare.py --source=list.jsonl | list.jsonl:1 | clean.py
prepare.py --source=null.jsonl | null.jsonl:1 | clean.py
prepare.py --source=odd.jsonl | odd.jsonl:1 | no text in a usual field | clean.py
prepare.py --source=empty.txt | empty.txt has no text
prepare.py --source=00*.txt --tokenizer=nowhere.json | nowhere.json | path of a tokenizer.json
prepare.py --source=00*.txt --tokenizer=byte.json | byte.json | <|endoftext|>
prepare.py --source=00*.txt --tokenizer=abc.json | not in the vocabulary of this char tokenizer
prepare.py --source=00*.txt --tokenizer=wordpiece | wordpiece | bpe
prepare.py --source=00*.txt --vocab_size=100 | vocab_size | 320
prepare.py --source=00*.txt --temperature=2 | need several sources
prepare.py --source=00*.txt --kind=sft | --kind: no setting has this name
prepare.py --source=shakespeare | https:// | data/raw/shakespeare.txt
prepare.py --source=cut.txt.gz | cut.txt.gz | clean.py
prepare.py weights = {'a': 1}; source = '00*.txt' | need several sources"""


@each_line(MISTAKES)
def test_what_cannot_be_is_one_sentence_and_leaves_nothing(odd, out, tmp_path, line):
    said, *words = line.split(' | ')
    script, _, said = said.partition(' ')
    settings = [fill({'c.py': said}, tmp_path) / 'c.py'] if ' = ' in said else said.split()
    offline = dict.fromkeys(('HTTPS_PROXY', 'https_proxy'), 'http://127.0.0.1:9')   # nobody listens
    mistake(run(script, *settings, f'--out_dir={out}', cwd=odd,
                env={**offline, 'NO_PROXY': '', 'no_proxy': ''}), *words)
    assert not [*out.glob('[!.]*')]


# --- what a run leaves alone ----------------------------------------------------------------------
@with_each('script', ['clean.py', 'prepare.py'])
def test_a_folder_of_yours_beside_the_results_stays_and_earlier_results_are_no_source(script):
    source = write('a', TEXTS)
    fill({'out.work/mine.txt': prose(50), 'out/.DS_Store': 'x'}, source)
    for path in f'{source}', f'{source}/', f'{source}/../a':        # one folder
        ok(run(script, f'--source={path} --out_dir={source}/out'))
        [found] = read_json(source / 'out/meta.json')['sources'].values()
        assert found['files'] == 13
    assert (source / 'out.work/mine.txt').exists() and not [*source.glob('.*')]


def test_ctrl_c_ends_the_processes_at_once(begin):
    """It goes to the whole group of processes, whatever they do."""
    ctrl_c = 'import os\nos.setsid()' + before('clean a shard', """
        if os.path.exists('once'):
            threading.Event().wait(200)
        os.mkdir('once')
        os.killpg(0, signal.SIGINT)""")
    result = begin(before=ctrl_c, timeout=100)
    assert result.returncode in (1, 130, -signal.SIGINT)
    assert os.listdir('out') == [WORK]
