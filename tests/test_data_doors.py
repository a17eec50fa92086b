"""The doors of clean.py: files of other forms, downloads' neighbors, models of text, lists and
benchmarks, samples to look at; and what each must and must not drop."""
import ast
import bz2
import collections
import gzip
import importlib
import json
import lzma
import math
import os
import shutil
import sys
from pathlib import Path

import preparing
import pytest
from conftest import (ROOT, each_is_a_mistake, each_line, fill, mistake, numbered, ok, python,
                      read_json, read_rows, refused, run, table, with_each)
from preparing import PROSE, dropped, prose, write, write_records

import clean
from extras.text import formats, text_quality


def cleaned(source, *flags):
    """Run clean.py; return the texts of its shards, sorted."""
    preparing.clean(source, '--dedup=none --pii=False --num_workers=1', *flags)
    return preparing.kept()


# --- files of other forms -------------------------------------------------------------------------
ROWS = [{'text': f'row {i}: ' + 'ä漢\n"x", y; ' * (i % 4), 'id': f'{i}'} for i in range(900)]
LINES = ''.join(json.dumps(row) + '\n' for row in ROWS).encode()


def arrived(path, data=None, **how):
    """The documents of a file, which is written first if there are data, and the reasons of what is
    left out."""
    if data is not None:
        fill({path: data})
    found, told = [], []
    for document in clean.read(str(path), **how):
        why = clean.check_text(document, collections.defaultdict(collections.Counter))
        (told if why else found).append(why or document)
    return found, told


def test_packed_files_are_records_and_a_damaged_one_is_said():
    """In the words of the library that found it."""
    zstd = formats.package('a.zst', 'compression.zstd', 'backports.zstd')
    half = LINES.index(b'\n', len(LINES) // 2) - 3          # two frames; the cut is within a line
    level = zstd.CompressionParameter
    wide = {level.window_log: 31, level.enable_long_distance_matching: 1}       # zstd --long=31
    frames = zstd.compress(LINES[:half]), zstd.compress(LINES[half:], options=wide)
    for name, packed, words in zip(
            ('a.jsonl.gz', 'a.jsonl.bz2', 'a.jsonl.xz', 'a.jsonl.zst'),
            (gzip.compress(LINES), bz2.compress(LINES), lzma.compress(LINES), b''.join(frames)),
            'Not a gzipped|Invalid data|Input format not|Unknown frame'.split('|')):
        documents, told = arrived(name, packed)
        assert ([document['record'] for document in documents], told) == (ROWS, []), name
        documents, told = arrived(name, packed[:-9])
        assert [document['record'] for document in documents] == ROWS[:len(documents)]
        assert 'Compressed file ended before the end-of-stream marker' in told[-1], told
        assert words in arrived(name, LINES)[1][0]


# files, the texts that arrive, and the reasons of what does not
TABLES = read_rows(Path(__file__).with_name('tables.jsonl'))
TABLES += [{'file': 'a.json', 'data': '[' * 100_000, 'texts': [], 'left_out': ['neither a list']}]


@with_each('row', TABLES, ids=[f"{row['file']} {row['data'][:50]}" for row in TABLES])
def test_a_table_a_list_or_a_notebook_arrives_and_what_is_no_row_or_no_record_is_counted(row):
    """A cell of a .tsv may be quoted, as in a .csv, if that adds up. What isn't UTF-8 costs its row,
    and no other one; one object over many lines is never half read; a page says its charset."""
    documents, told = arrived(row['file'], row['data'].encode(
        row.get('encoding', 'utf-8')), encoding=row.get('named', ''))
    assert [document['text'] for document in documents] == row['texts']
    assert len(told) == len(row['left_out']) and all(map(str.__contains__, told, row['left_out']))


def test_a_missing_cell_of_any_column_is_no_text():
    path = fill({'a.csv': 'question,input,answer\nIs it?,nan,NA\n"None, or all?",,"N/A, sir"\n'}) / 'a.csv'
    assert [*formats.records_of(str(path))] == [
        {'question': 'Is it?', 'input': None, 'answer': None}, {'question': 'None, or all?', 'input': '', 'answer': 'N/A, sir'}]


def parquet(rows=(), **columns):
    """A file of these rows, or of columns and their names."""
    arrow = pytest.importorskip('pyarrow')
    table = arrow.table(**columns) if columns else arrow.Table.from_pylist(rows)
    importlib.import_module('pyarrow.parquet').write_table(table, 'a.parquet')
    return Path('a.parquet')


# columns of a row, as Python, and its text; without one: why it is left out
COLUMNS = r"""
{'title': 'A', 'content': 'b', 'n': 1} -> b
{'title': 'A', 'text': None, 'content': 'b'} -> b
{'code': 'b', 'picture': {'bytes': b'\xff'}, 'vector': [0.5]} -> b
{'title': 'A', 'text': b'\xc3\xa9'} -> é
{'text': b'\xff', 'content': 'another', 'path': 'a'} -> not UTF-8
{'title': 'A', 'n': 1} -> no text in"""


@each_line(COLUMNS)
def test_the_text_of_parquet_is_in_a_usual_column_whatever_its_type_and_in_no_other(line):
    row, wanted = line.split(' -> ')
    path = parquet([ast.literal_eval(row) | {'url': 'a.org'}] * 150)
    documents, told = arrived(path)
    assert len(documents + told) == 150
    if told:
        assert wanted in told[0]
    else:
        assert documents[-1]['text'] == wanted and documents[-1]['url'] == 'a.org'
    path.write_bytes(path.read_bytes()[:-9])
    assert 'corrupted' in arrived(path)[1][0]


def test_parquet_with_two_columns_of_one_name_or_a_date_that_python_lacks():
    """Of the first, no column is chosen. The second is empty where nobody reads it."""
    arrow, texts = pytest.importorskip('pyarrow'), ['a', 'b']
    [why] = arrived(parquet(data=[texts] * 3, names=['id', 'text', 'text']))[1]
    assert 'two columns have the name text' in why
    year_12000 = (12000 - 1970) * 365 * 86400
    for form, scale in (arrow.timestamp('s'), 1), (arrow.timestamp('us'), 10 ** 6), (arrow.date64(), 1000):
        when = arrow.array([0, year_12000 * scale], arrow.int64()).cast(form)
        path = parquet(data=[when, texts], names=['when', 'text'])
        documents, why = arrived(path)
        assert [document['text'] for document in documents] == texts and not why, form
        rows = [*formats.records_of(str(path))]
        assert [row['text'] for row in rows] == texts and rows[0]['when'] and not rows[1]['when']
        _, why = arrived(path, text_field='when')
        assert len(why) == 2 and 'no text in when' in why[1]


def test_a_package_that_is_missing_is_named_with_its_command(monkeypatch):
    for name in 'pyarrow.parquet', 'compression.zstd', 'backports.zstd':
        monkeypatch.setitem(sys.modules, name, None)
    fill({'a.parquet': b'PAR1'})
    refused('pip install pyarrow', next, formats.records_of('a.parquet'))
    refused('pip install backports.zstd', formats.open_zst, 'a.txt.zst')


# --- models of text -------------------------------------------------------------------------------
GERMAN = ['Die alte Mühle stand am Fluss, und in jedem Frühling stieg das Wasser, bis es die '
          f'zweite Stufe der Treppe erreichte; im Jahre {1800 + i} kam es bis zur Tür, und niemand '
          'schlief\n'
          for i in range(0, 60, 3)]


def test_bits_per_byte_are_those_of_a_calculation_by_hand():
    """After `aab`, each probability is smoothed by that of the next shorter n-gram."""
    p_a = (2 + 4 / 256) / (3 + 4)           # a is 2 of 3 bytes
    p_b = (1 + 4 / 256) / (3 + 4)
    p_ab = (1 + 4 * p_b) / (2 + 4)          # and after one of two a comes b
    model = text_quality.NgramModel(['aab'], order=2)
    assert model.bits_per_byte('ab') == pytest.approx(-math.log2(p_a * p_ab) / 2, abs=1e-6)


# the same sentence, written for this test and not used to choose anything
SENTENCES = """
ar لم نذهب إلى الجبال من قبل، لكن أصدقاءنا أخبرونا كم هي جميلة في الشتاء.
de Wir waren noch nie in den Bergen, aber unsere Freunde sagen, dass es im Winter dort schön ist.
en They have never been to the mountains, but their friends told them how beautiful it is in winter.
es Nunca hemos estado en las montañas, pero nuestros amigos nos contaron lo bonito que es todo.
fr Nous ne sommes jamais allés à la montagne, mais nos amis disent que c'est très beau en hiver.
hi हम कभी पहाड़ों पर नहीं गए, लेकिन हमारे दोस्तों ने बताया कि सर्दियों में वहाँ कितना सुंदर होता है।
id Kami belum pernah pergi ke gunung, tetapi teman-teman kami bercerita betapa indahnya di sana.
it Non siamo mai stati in montagna, ma i nostri amici ci hanno raccontato quanto è bello d'inverno.
ja 私たちは山に行ったことがありませんが、友達は冬がとても美しいと言っていました。
ko 우리는 산에 가 본 적이 없지만 친구들은 겨울에 그곳이 아주 아름답다고 말했다.
nl Wij zijn nog nooit in de bergen geweest, maar onze vrienden vertelden hoe mooi het daar is.
pl Nigdy nie byliśmy w górach, ale nasi przyjaciele opowiadali nam, jak tam jest pięknie zimą.
pt Nunca estivemos nas montanhas, mas os nossos amigos contaram-nos como tudo é bonito no inverno.
ru Мы никогда не были в горах, но наши друзья рассказывали нам, как там красиво зимой.
sv Vi har aldrig varit i bergen, men våra vänner berättade för oss hur vackert det är på vintern.
tr Dağlara hiç gitmedik ama arkadaşlarımız bize kışın oranın ne kadar güzel olduğunu anlattı.
vi Chúng tôi chưa bao giờ lên núi, nhưng bạn bè đã kể cho chúng tôi nghe ở đó đẹp như thế nào.
zh 我们从来没有去过山里，但是朋友们告诉我们那里的冬天非常美丽。"""
SENTENCES = dict(line.split(' ', 1) for line in SENTENCES.strip().split('\n'))


def test_languages_are_recognized_and_what_is_too_short_or_of_none_stays():
    table = ' '.join(f"{i}: '\\u{i:04x}', # LATIN SMALL LETTER" for i in range(300))
    assert text_quality.language_of(table) == 'unknown'
    for language, text in SENTENCES.items():
        assert text_quality.language_of(text) == language
        assert text_quality.is_foreign(text, SENTENCES.keys() - {language})
        assert not text_quality.is_foreign(text, {'en', language})
    for text in '', 'ok', 'buy now cheap pills ' * 30, '@#$% ' * 30:
        assert not text_quality.is_foreign(text, {'en', 'de'})
    refused('must be among ar,de', text_quality.language, 'en,klingon')
    for names in 'en;de', 'En de', 'en, de,':
        check = text_quality.language(names)
        stats = collections.defaultdict(collections.Counter)
        assert check({'mode': 'prose', 'text': SENTENCES['fr']}, stats) == 'language fr'
        assert not check({'mode': 'prose', 'text': SENTENCES['de']}, stats)


def test_models_of_good_and_bad_text_are_stages():
    noise = ['qx7 zvk jwq xkz 4kq wjx qqz vkx zzj kwq xjq zkv 9qx jzk wvq kxz qjw zxk vqj xkw'] * 5
    stale = ['python train.py config/quickstart.py ' * 30] * 3      # the reference is full of it
    spam = [f'Buy cheap watches and loans now, this offer number {i} ends today, click here for '
            'the best price and for pills that your doctor would never dare to tell you about.'
            for i in range(20)]
    for name, texts in ('good', PROSE), ('bad', spam):
        write_records(f'{name}.jsonl', [{'text': text} for text in texts[::2]])
    source = write('files', PROSE[1::2] + noise + stale + GERMAN + spam[1::2])
    left = cleaned(source, f'--max_gibberish=0 --max_repetition=0 --perplexity_reference={ROOT}/*.md '
                   '--min_bits=1.5 --quality_good=good.jsonl --quality_bad=bad.jsonl')
    assert dropped() == {'too surprising': 25, 'too predictable': 3, 'low quality': 10}
    assert left == sorted(text.strip() for text in PROSE[1::2])


# --- lists ----------------------------------------------------------------------------------------
# as they are in a page, with markup and addresses that the cleaning takes away
PROBLEMS = [
    r'Let $x$ and $y$ be real numbers with $\frac{x}{y} + \frac{y}{x} = \sqrt{7}$ and '
    r'$\binom{x}{2} \leq y$. Find the value of $\frac{x^2}{y^2} + \frac{y^2}{x^2}$ and $\cos x$.',
    'Is <b>a</b> and <i>b</i> if <b>c</b> is <i>x</i> times <b>d</b> and <i>e</i> is <b>six</b>',
    'Write to ann@firm.com, bob@firm.com or eve@firm.com before noon, and ask joe@firm.com what '
    'ida@firm.com and max@firm.com and tim@firm.com sold to sue@firm.com and una@firm.com today.']


def test_planted_benchmark_problems_are_all_found_and_nothing_else():
    """In whatever form cleaning has left them: with or without LaTeX, HTML, addresses, capitals. How
    many problems are too short for that is said once."""
    prompts = [*PROBLEMS, *(prose(1000 + i, 40) for i in range(20))]
    rows = [{'id': 1, 'tests': {'prompt': [prompt]}} for prompt in [*prompts, 'What is 2 + 2?']]
    path = write_records('own.jsonl', rows)
    # some share twelve words, one too few
    innocent = [f'{prose(i)} {" ".join(prompt.split()[7:19])} {prose(i)}'
                for i, prompt in enumerate(prompts[3:])]
    guilty = [f'{prose(i)}\n\n{prompt}\n\n{prose(i + 99)}' for i, prompt in enumerate(prompts)]
    guilty += [text.upper().replace(' ', '  ') for text in guilty[3:]]
    source = write('files', innocent + guilty)
    fill({'a.tex': rf'\emph{{One}} {guilty[0]}', 'b.html': f'<p>{guilty[1]}</p>'}, source)
    for mode in 'auto', 'raw':
        said = preparing.clean(source, f'--decontaminate={path} --mode={mode} --dedup=none --num_workers=2')
        assert said.count(f"1 of 24 problems in {path} have fewer than 13 words and can't be") == 1
        assert preparing.kept() == sorted(innocent), mode
    meta = read_json('out/meta.json')
    assert meta['decontaminated'] == {'problems': [str(path)], 'ngram': 13}
    fill({'other.jsonl': '{"q": ["a"]}\n{oops\n'})
    mistake(run(f'clean.py --source={source} --decontaminate={path}, other.jsonl --out_dir=no'), 'other.jsonl:2 ')


# a record, and what the lists say of it
LISTED = """
{"url": "https://spam.com/x"} -> blocked domain
{"url": "//a.b.spam.com:80"} -> blocked domain
{"url": "SPAM.COM"} -> blocked domain
{"url": "//a@spam.com"} -> blocked domain
{"url": "free-casino.net"} -> spam domain
{"url": "https://sex.com"} -> spam domain
{"url": "http://a@pornhub.xy/"} -> spam domain
{"url": "https://xn--bcher-kva.example/a"} -> blocked domain
{"url": "a..spam.com"} -> blocked domain
{"url": 7}
{"url": "http://[x"}
{"url": "notspam.com"}
{"url": "spam.com.org"}
{"url": "https://a.org/spam.com"}
{"url": "x.good.spam.com"}
{"url": "both.com"}
{"url": "ok.casino.net"}
{"url": "https://www.essex.ac.uk/a"}
{"url": "popcorn.com"}
{"metadata": {"url": "https://spam.com/a"}} -> blocked domain
{"warc_headers": {"warc-record-id": "7", "WARC-Target-URI": "http://b.spam.com"}} -> blocked domain
{"page_url": "spam.com", "meta": {"image_url": "a.org"}} -> blocked domain
{"image_url": "spam.com", "meta": {"pageURL": "a.org"}}
{"url": 7, "meta": {"url": "sex.com"}} -> spam domain
{"url": "https://www.Index.com/Index.html?a=b#c"} -> blocked domain
{"url": "index.com/"}
{"url": "index.com/index.htm"}
{"url": "https://sites.host.org/bad/page"} -> blocked domain
{"url": "http://sites.host.org:80/bad/page/more?x#y"} -> blocked domain
{"url": "a.sites.host.org/bad/page/"} -> blocked domain
{"url": "sites.host.org/bad/pages"}
{"url": "sites.host.org/bad"}
{"url": "host.org/bad/page"}
{"url": "sites.host.org/bad/page/of/ann"}
{"url": "sites.host.org/q?id=3&x"}
{"url": "sites.host.org/q?id=3"} -> blocked domain
{"url": "ask.org/all"} -> blocked domain
{"license": ["MIT", "BSD"], "licence": ["MIT"]}
{"license": null, "max_stars_repo_licenses": ["BSD"]}
{"license": ["MIT", "GPL"]} -> license mit, gpl
{"license": []} -> license unknown
{"license": null, "meta": {"licence": "MIT"}}
{"license": null, "repo": {"license": "GPL"}} -> license gpl
"""
LISTS = {'block': '\ufeffhttps://www.Spam.com\nboth.com # and a comment\nxn--bcher-kva.example\n'
                  'http://index.com/index.html\nsites.host.org/Bad/page/\nsites.host.org/q?id=3\nask.org/all?\n',
         'allow': 'good.spam.com\nok.casino.net\nboth.com\nsites.host.org/bad/page/of/ann\n',
         'adblock': 'bad.com\n||ads.example^\n', 'star': 'bad.com/a/*\n', 'foreign': 'bücher.de\n', 'empty': '# nothing yet\n\n'}


BAD_LISTS = """
--url_block=empty => no entries
--url_block=adblock => must have a domain & ||ads.example^
--url_block=star => must have a domain & bad.com/a/*
--url_block=foreign => must have a domain & bücher.de
"""


def test_lists_and_languages_drop_what_they_name_and_say_what_they_did():
    """Domains are whole domains, where allow wins."""
    fill(LISTS)
    rows = [({'license': 'mit', 'text': GERMAN[0]}, 'language de')]
    for line in LISTED.strip().split('\n'):
        record, _, reason = line.partition(' -> ')
        row = {'license': 'mit', 'more': '', **json.loads(record)}
        rows.append(({**row, 'text': f'{PROSE[0]} {len(rows)} {row["more"]}'}, reason))
    source = write_records('x.jsonl', [row for row, _ in rows])
    left = cleaned(source, '--languages=en --max_repetition=0 --licenses=mit; BSD --audit=1 '
                   '--url_allow=allow --url_block=block, block')
    assert dropped() == collections.Counter(reason for _, reason in rows if reason)
    assert left == sorted(row['text'].strip() for row, reason in rows if not reason)
    licenses = read_json('out/meta.json')['licenses']
    assert licenses.keys() == {'mit', 'mit, bsd', 'bsd'}
    # --audit=1: of each reason one, and one of what stays
    page = Path('out/audit.md').read_text()
    assert page.count('\n## ') == 1 + len(dropped())
    each_is_a_mistake(BAD_LISTS, f'clean.py --source={source} --out_dir=no')


# flags => what of it is said, without a document that the filter could judge
BLIND = """
--url_block=block --source=none.jsonl => --url_block or url_allow could judge no document & columns of the first document: text, link, meta, id, site
--url_allow=block --source=none.jsonl => needs an address & leave it out
--url_block=block --source=a.txt => columns of the first document: none
--licenses=mit --source=none.jsonl => --licenses could judge no document & license, licence or & text, link
--licenses=unknown,mit --source=a.txt => --licenses could judge no document
--languages=en --source=none.jsonl --mode=raw => --languages could judge no document & prose
--languages=en --source=short.jsonl => --languages could judge no document & 20 letters
--decontaminate=problems.csv --source=short.jsonl => --decontaminate could judge no document & 13 words
--languages=en --url_block=block --source=none.jsonl => --url_block
"""


def test_a_filter_that_was_asked_for_and_could_judge_nothing_is_an_error_with_the_columns():
    """One document is enough, and the report counts those that it could judge."""
    fill({'block': 'spam.com', 'a.txt': PROSE[0], 'problems.csv': f'q\n{prose(1, 20)}\n'})
    blind = [{'text': text, 'link': 'https://a.org', 'meta': {'id': 3, 'site': 'a.org'}} for text in PROSE[:3]]
    write_records('none.jsonl', blind)
    write_records('short.jsonl', [{'text': '1 2 3'}])
    each_is_a_mistake(BLIND, 'clean.py --out_dir=no --num_workers=1 --min_words=0')
    assert not Path('no/report.md').exists()
    one = {'text': PROSE[4], 'meta': {'url': 'a.org', 'license': 'mit'}}
    deep = [{'text': PROSE[5], 'meta': {'page': {'url': 'spam.com'}}}, {'text': PROSE[6], 'meta': '{"url": "spam.com"}'}]
    source = write_records('one.jsonl', [*blind, one, *deep])
    preparing.clean(source, '--url_block=block --languages=en --licenses=mit,unknown')
    judged = preparing.report()['counts']['documents judged']
    assert judged == {'licenses': 1, 'url_block or url_allow': 1, 'languages': 6}


def test_an_address_in_a_struct_of_parquet_is_seen():
    fill({'block': 'spam.com'})
    rows = [{'text': text, 'meta': {'url': url, 'bytes': b'\xff'}} for text, url in zip(PROSE, ('spam.com/x', 'a.org'))]
    assert cleaned(parquet(rows), '--url_block=block') == [PROSE[1].strip()]


@with_each('head', ['', 'question,answer\n'])
def test_the_first_line_of_a_table_of_problems_counts_with_and_without_a_header(head):
    problems = [prose(1000 + i, 20) for i in range(3)]
    table = head + ''.join(f'"{problem}",{i}\n' for i, problem in enumerate(problems))
    fill({'b/p.csv': table, 'b/p.tsv': table.replace('"', '').replace(',', '\t').replace('\t ', ', ')})
    source = write('files', [*(f'{PROSE[i]} {problem}' for i, problem in enumerate(problems)), PROSE[9]])
    for name in 'p.csv', 'p.tsv', '*':          # a pattern, too
        assert cleaned(source, f'--decontaminate=b/{name}') == [PROSE[9].strip()], name


# --- samples --------------------------------------------------------------------------------------
def test_samples_of_what_was_dropped_show_no_personal_data():
    """Of each rule, of copies, and of what passed."""
    secret = 'Write to ann@uni.edu or call 212-555-0123.'
    texts = [f'{secret} Too short.', f'{prose(1)} {secret}', f'{prose(1)} {secret}',
             f'{secret} {"*** >>> " * 90} and so on', f'{prose(2)} {secret}', f'{secret}{" " * 1990}x']
    source = write('files', [*texts, ''])      # an empty one has no form yet
    cleaned(source, '--audit=9 --dedup=exact --pii=True')
    page = Path('out/audit.md').read_text()
    assert page.count('## ') == 8 and page.count('# exact duplicate') == 1     # next to what stays
    assert page.count('<EMAIL>') == 8 and 'ann@' not in page and '0123' not in page


SEEDED = """
clean.py --source=in --out_dir=out/text --audit=2
prepare.py --source=out/text --out_dir=out/tokens --tokenizer=byte
chats.py --source=chats.jsonl --out_dir=out/chats --unused=five,one,two,three,four
"""


def test_results_and_reports_are_the_same_for_every_hash_seed():
    """Python's sets of texts have another order in each process. Files of several kinds, some of which
    are dropped; columns that nobody reads."""
    texts = [*PROSE[:9], *map(prose, range(9)), 'short', 'a@uni.edu \x00' + prose(20), *['x ' * 500] * 3]
    write('in', texts)
    fill({'a.py': 'x = 1\n' * 20, 'b.html': f'<p>{prose(21)}</p>', 'c.pdf': 'no'}, 'in')
    write_records('chats.jsonl', numbered('{"question": "N?", "answer": "N!", "one": N, "two": N, "three": N, '
                                          '"four": N, "five": N}', 30))
    found = []
    for seed in '1', '2':
        printed = [ok(python(ROOT / script, *flags, env=os.environ | {'PYTHONHASHSEED': seed}))
                   for script, *flags in table(SEEDED, None)]
        found.append((printed, [path.read_bytes() for path in sorted(Path('out').rglob('*')) if path.is_file()]))
        shutil.rmtree('out')
    assert len(found[0][1]) > 12
    assert found[0] == found[1]
