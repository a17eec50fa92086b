"""What prepare.py's functions do to a text: one form, rules, personal data; and how copies are found."""
import collections
import pathlib
import random
import re
import textwrap
import time

import numpy as np
import pytest
from conftest import shared
from feedback import expect, told

from extras.repair import fix_mojibake, strip_latex
from prepare import band_keys, code_reason, compiles, find_files, hash64, hide, minhash, mode_of
from prepare import ngrams, normalise, prose_reason, shingles, strip_html, words_of


# --- mojibake -----------------------------------------------------------------------------------------------
SENTENCES = '''“Yes,” she said — it’s 5 o’clock… | Le café déjà vu où naît l’été, à Noël. | “そう”
NÃO — AÇÃO, não é “São Paulo” | Größe – „Fuß“ und ähnlich | Привет — мир | 你好,“世界” | 5 € – or “£4”
• 20 °C • Word™ | 👍 – 😀 | Καλημέρα — κόσμε | नमस्ते — दुनिया | “안녕” | שלום — כן | Zażółć — gęślą jaźń'''
INNOCENT = '''Le café déjà vu où naît l’été, à Noël : «\xa0ÇA\xa0!\xa0» | L’ÉCOLE™, SOCIÉTÉ® et BEAUTÉ® “É” À°
GRÖßE, Ü² | NÃO HÁ RAZÃO. «AÇÃO» É SÓ — IRMÃ… “NÃO” IRMÃ” | L’ÂGE D’OR, PÂTÉ™ | SEÑOR® ¿QUÉ? ¡ÁGIL! | ĐÃ”…
Καλημέρα κόσμε «Α» — Β’ Λυκείου, Γ΄ τάξη, 5 € | Ο ΈΛΛΗΝΑΣ ΊΣΩΣ ΤΈΛΟΣ | Україна — «це» є | Россия № 5 «да»
Å® Ø° ×² ß² ¼ € | İstanbul’da ışık | Příliš žluťoučký kůň
„Víš…“ „Ano, víš“, znáš“, máš… VÝŠKA, VÝŽIVA | 4×½ a 6×¾, 2×£10, 3×€5, 2×¥9 | på ½, på\xa0¼
liberté¹ », égalité¹… | à € 5, â – ô | ÞÓR’S ÐÁ» | 日本語。한국어! | 👍'''
SENTENCES, INNOCENT = (table.replace('\n', ' | ').split(' | ') for table in (SENTENCES, INNOCENT))


def damage(text, encoding):
    """UTF-8 read as an 8-bit encoding, bytes it does not define as control characters, as browsers do."""
    return ''.join(bytes([b]).decode(encoding, 'ignore') or chr(b) for b in text.encode())


def test_utf8_read_wrongly_is_repaired_and_what_is_not_damaged_stays():
    for text in INNOCENT + SENTENCES:
        assert fix_mojibake(text) == text and fix_mojibake(text * 20) == text * 20, text
    for text in SENTENCES:
        for encoding in ('cp1252', 'latin-1', 'cp1253'):
            wrong = damage(text, encoding)
            assert wrong != text and fix_mojibake(wrong) == text, (text, encoding)
            assert fix_mojibake(damage(wrong, encoding)) == text, ('twice', text, encoding)
    page = f'{SENTENCES[0]}\n{{}}\n{SENTENCES[0]}'           # of a page, only the damaged parts
    assert fix_mojibake(page.format(damage(SENTENCES[1], 'cp1252'))) == page.format(SENTENCES[1])
    # bytes are lost; and cp1252 that was read as Latin-1
    assert fix_mojibake('πŸ§‘πŸΏβ€πŸ’» Train β†’ N Γ— Block') == '🧑πŸΏβ€💻 Train → N Γ— Block'
    assert fix_mojibake('\x93It\x92s\x94 \x96 5 \x80') == '“It’s” – 5 €'


# --- one form -------------------------------------------------------------------------------------
def test_prose_has_one_form():
    for text, expected in [
            ('cafe\u0301', 'caf\xe9'), ('caf\xe9', 'caf\xe9'), ('e\u200b\u0301 \u212b', '\xe9 \xc5'),
            ('x² ½ ﬁ ™ …', 'x² ½ ﬁ ™ …'),                       # NFKC would make x2 and (tm) of it
            ('a\x00b\x07\x7f\xadc\u200bd\ufeff', 'abcd'), ('a\u3000b\xa0c', 'a b c'),
            ('one\u2028two\ffour\x0bfive', 'one\ntwo\nfour\nfive'),
            ('\ufeff \n  a \t b  \r\n\r\n\r\n\r\nc\rd ', '  a b\n\nc\nd'), ('\udc80x', '\ufffdx'),
            ('می\u200cخواهم', 'می\u200cخواهم'), ('Â\x1b\x80', '€'), ('A\u0302€', '€')]:
        assert normalise(text, 'prose') == expected, text
    for text in SENTENCES:
        for broken in text[1:], damage(text, 'cp1252')[1:], damage(text, 'cp1253')[:-1]:
            once = normalise(broken, 'prose')
            assert normalise(once, 'prose') == once


def test_html_and_latex_go_and_what_only_looks_like_them_stays():
    for text, expected in [
            ('<p>a<br/>b</p>', '\na\nb\n'), ('<hr noshade><td class=a>b</td ><p/>', '\n\nb\n\n'),
            ('<A HREF="x">k</A> &amp; &lt;i&gt; &#228; &euro;', 'k & <i> ä €'),
            ('<div>x<script src="s">if (a<b) {}</script><!-- no -->y</div>', '\nx  y\n'),
            ('<p>Use <script> and <!-- here', '\nUse <script> and <!-- here')]:     # never closed
        assert strip_html(text) == expected, text
    for text, expected in [
            (r'\section{A} The \emph{big \textbf{word}} costs 5\%.', 'A The big word costs 5%.'),
            (r'\begin{figure}[h]x\end{figure}a\cite[p. 3]{b} $$z$$ c\ref{d}~e % note', ' a   c e '),
            ('\\documentclass[a4]{x}\\begin{document}\nHi\n\\item one\\end{document}', '\nHi\n- one'),
            (r'Only 50% or 50 % know \emph{LaTeX}.', 'Only 50% or 50 % know LaTeX.')]:
        assert strip_latex(text) == expected, text
    for text in ('a < b and c > d | #include <stdio.h> | <EMAIL> | <|im_start|> | vector<int> | '
                 'AT&T; x && y | <http://a.org> | ?a=1&copy=2&lt=3 | no tag: <!-- kept --> | '
                 'i<b && c>d | while a <b holds.\n\n> A quote | x <p and y> z | C:\\new\\users | '
                 '$5 and $6 | 100 % of {x} | \\alpha is a letter | a_b ~ 5').split(' | '):
        assert strip_html(text) == strip_latex(text) == text


# --- code or prose ------------------------------------------------------------------------------------------
CLASS = 'class A:\n    def f(self, x):\n        if x:\n            return  1\n'
FORMS = {
    'code': [CLASS, '    for i in range(3):\n        yield i\n    return 3\n', 'x = 1\n', 'print(1)\n',
             '@a\nasync def f():\n    await g()\n'],
    'prose': ['Yes\n', 'a, b, c\n', 'note: this\n', '# Title\n\n# Another\n', '', '3\n', '"Yes."\n',
              'Dear Ann,\n    how are you?\n\nYours\n',
              'Select the items\nfrom the list that\nwhere they stand, and\nset them on the table.\n',
              'To be or not to be: that is the question;\n  whether it is nobler in the mind\n' * 3]}


def test_the_standard_library_stays_as_it_is_but_for_addresses():
    kinds = set()
    for path in find_files('stdlib')[0][::2]:
        text = pathlib.Path(path).read_bytes().decode('utf-8')
        unix = text.replace('\r\n', '\n').replace('\r', '\n')
        assert normalise('\ufeff' + text, mode_of(text, path)) == unix, path
        masked, hits = hidden(text)
        kinds.update(hits)
        assert not hits or compiles(masked), path
    assert kinds == {'email'}           # its authors'; nothing else is in it


def test_code_is_known_by_its_path_and_python_also_by_itself():
    program = 'int f(void) {\n\treturn  1;\n}\n'
    for form, path, texts in [
            *((form, '', texts) for form, texts in FORMS.items()), ('prose', '', [program]),
            ('code', 'a.jsonl:3 repo/x.py', ['Just prose.']), ('code', 'B.PY.gz', ['']),
            ('other code', 'a.jsonl:3 repo/X.C', [program]), ('prose', 'a.html', ['<p>\nx = 1\ny = 2\n'])]:
        for text in texts:
            assert mode_of(text, path) == form, text
            assert form == 'prose' or normalise(text, form) == text, text


def test_code_within_prose_stays_and_the_prose_around_it_is_tidied():
    for begin, end in (('```', '```'), ('> ```', '> ```'), ('- ```python', '  ```'), ('1. ```', '   ```'),
                       ('````', '````')):                       # in a quote, in a list, a longer one
        code = f'{begin}\nif  x <b>50%</b> &amp; \\emph{{x}}:\n    y\n{end}'
        fenced = f'A <b>bold</b>   word:\n\n{code}\n\n\n\nand  so\n  on.\n'
        assert mode_of(fenced, '') == 'prose'
        assert normalise(fenced, 'prose') == f'A bold word:\n\n{code}\n\nand so\n  on.'
    # within a line, three backticks are no fence, and hide nothing that follows
    assert normalise('<p>Type ```  twice.\n<b>It</b>  ends.\n', 'prose') == 'Type ``` twice.\nIt ends.'
    code = textwrap.indent(CLASS, '    ')
    page = 'Some  words about  it.\n\n' + code + '\nThe  end.\n' + 'A   day.\n' * 9
    tidy = normalise(page, 'prose')
    assert mode_of(page, '') == 'prose' and normalise(tidy, 'prose') == tidy
    assert tidy.startswith('Some words about it.\n\n' + code.replace('  1', ' 1') + '\nThe end.\nA d')


# --- personal data ------------------------------------------------------------------------------------------
BODY = 'MIIEpAIBAAKCAQEA0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKL\n' * 3
PEM = f'-----BEGIN RSA PRIVATE KEY-----\n{BODY}-----END RSA PRIVATE KEY-----'
PERSONAL = """
email: ann@uni.edu | first.last+tag@sub.domain.co.uk | JOHN@COMPANY.COM | jürgen@firma.de
email: 123@qq.com | x%y@physics.ox.ac.uk
phone: +1 415 555 2671 | +1-415-555-2671 | +1 (415) 555-2671 | (415)555-2671 | 1-415-555-2671
phone: 415.555.2671 | +49 (0)30 901820 | +33 1 23 45 67 89 | +4915112345678
ssn: 123-45-6789 | 899-99-9999 | 001-01-0001
key: AKIAIOSFODNN7EXAMPLE | ghp_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3 | glpat-abcdefghij0123456789
key: AIzaSy_-xSy_-xSy_-xSy_-xSy_-xSy_-xSy_-x | hf_abcdeFGHIJabcdeFGHIJabcdeFGHIJ
key: sk-abCD12_-abCD12_-abCD12_-abCD12_-abCD12_- | xoxb-123456789012-abcdefghijkl
key: eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n"""
PERSONAL = [(kind, text) for line in PERSONAL.strip().split('\n')
            for kind, texts in [line.split(': ')] for text in texts.split(' | ')]
PERSONAL += [('key', PEM), ('key', PEM.replace('KEY-----\nM', 'KEY-----\nDEK-Info: AES,AB12\n\nM'))]
HARMLESS = """1.2.3-4567 | 192.168.100.200 | 10.0.0.1:8080 | 2024-01-31T12:34:56+00:00
20240131-123456 | +2024-01-31 in a diff | 31 Jan 2024 12:00:00 +0200 | 1990-1999 | 1706700000
0123456789012345678901234567890123456789 | @app.route("/x") | x@self.weight | a@b.T
x@model.fc.weight + b | 1,234,567,890 | -1.7976931348623157e+308 | [+12.50 -13.25 +11.75]
[[555 123 4567] [415 555 2671]] | ISBN 978-3-16-148410-0 | 10.1103/PhysRevLett.116.061102
550e8400-e29b-41d4-a716-446655440000 | user@example.com | ann@mail.EXAMPLE.org | root@localhost
git@github.com:user/repo.git | npm install @angular/core@12.0.0 | %d@%s.com | https://a.org/@ann.b/c
000-12-3456 | 666-12-3456 | 900-12-3456 | 123-00-4567 | 123-45-0000 | 123-45-67890 | 2123-45-6789
A-123-45-6789 | x = 555-1234 | f(200)-300-4000 | 100-200-3000 | +48.137154 +11.576124
415-555-2671-1 | api_key = "a8F3kL9xQ2mZ7pR4tY6w" | sk-learn | -----BEGIN PRIVATE KEY-----
sk-toggleable-content-container-of-a-long-label"""


def hidden(text):
    """What hide makes of a text, and what it counts."""
    found = collections.Counter()
    return hide(text, found), dict(+found)


def test_personal_data_is_replaced_and_counted_and_what_only_looks_like_it_stays():
    for frame in '{}', 'Write to {}, please.', '({})', '"{}"', 'x\n{}\ny', 'It is {}.':
        for kind, text in PERSONAL:
            masked = frame.format(f'<{kind.upper()}>')
            assert hidden(frame.format(text)) == (masked, {kind: 1}), (frame, text)
        for text in HARMLESS.replace('\n', ' | ').split(' | '):
            assert hidden(frame.format(text)) == (frame.format(text), {}), (frame, text)
    text = 'Ann <ann@uni.edu>, bob@uni.edu; +1 415 555 2671'
    assert hidden(text) == ('Ann <<EMAIL>>, <EMAIL>; <PHONE>', {'email': 2, 'phone': 1})


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
                 shared('tinyshakespeare.txt').read_text(encoding='utf-8'),
                 *(f'{ENGLISH}\n{ruler}\n' * 2 for ruler in rulers)):
        assert prose_reason(text) is None, text
    for text, reason in [
            (' '.join(ENGLISH.split()[:19]), 'short'), ('中文字' * 13, 'short'), ('', 'short'),
            ('$ 5 % # @ ! ' * 9, 'symbols'), ('buy now ' * 50, 'repetitive'),
            (f'{ENGLISH}\n' * 5, 'repetitive'), (' '.join(f'q{i}x{i}z' for i in range(30)), 'gibberish')]:
        assert prose_reason(text) == reason, text
        assert prose_reason(text, 0, 0, 0, 0) is None, 'each rule is switched off by zero'


@pytest.mark.filterwarnings('error')
def test_each_reason_of_code_at_its_threshold():
    """Two rules drop only a text whose chance is below seven tenths."""
    for text, reason, *other_languages in [
            (CODE, None), (CODE + '\0', 'binary'), (CODE.replace('=', ' '), 'few assignments'),
            (CODE * 2 + '#' + 'a' * 999, None), (CODE * 2 + '#' + 'a' * 1000, 'long line'),
            ('\n' * 4 + '# AUTO-GENERATED\n' + CODE, 'autogenerated'),
            ('\n' * 5 + '# auto-generated\n' + CODE, None),
            ('a' * 100, None, True), ('a' * 101, 'long lines', True),
            ('a' * 25 + '-' * 75, None, True), ('a' * 24 + '-' * 76, 'few letters', True)]:
        assert code_reason(text, not other_languages, chance=0.99) == reason, text
    for text, reason in [
            ('# Unit tests of f\n' + CODE, 'config or test'), (CODE + 'test\n' + '\n' * 11, None),
            (CODE + 'test\n' + '\n' * 10, 'config or test'),                # 1 in 20: not over 5%
            ('a = b = c = d = e = 1\n', 'no keywords')]:
        assert code_reason(text, chance=0.69) == reason and code_reason(text, chance=0.7) is None, text
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
    texts = [''.join(random.Random(i).choices(alphabet, k=i % 50)) for i in range(500)]
    for n in 1, 2, 5:
        hashes, naive = [], []
        for text in texts:
            words = re.findall('[a-z0-9_\x80-\u07ff]+|[\u0800-\U0010ffff]', text.lower())
            assert [word.decode('utf-8', 'surrogatepass') for word in words_of(text)] == words
            naive += [tuple(words[i:i + n]) for i in range(len(words) - n + 1)]
            hashes += ngrams(words_of(text), n).tolist()
            if len(words) >= n:
                assert shingles(text, n).tolist() == sorted({*ngrams(words_of(text), n).tolist()})
        # two hashes are equal where, and only where, the n-grams are
        assert len(set(zip(hashes, naive, strict=True))) == len(set(hashes)) == len(set(naive))


# --- signatures ---------------------------------------------------------------------------------------------
def random_pair(rng, size, shared):
    """Two sets of that many random shingles, some of them shared, and their Jaccard similarity."""
    pool = rng.integers(0, 2 ** 64 - 1, 2 * size - shared, np.uint64, endpoint=True)
    return np.sort(pool[:size]), np.sort(pool[size - shared:]), shared / (2 * size - shared)


def test_a_signature_of_a_union_is_the_smaller_of_two():
    # for all time: other people keep such numbers, and a run is resumed with another numpy
    expect("minhash(shingles('the cat sat on the mat'), 4)",
           np.array([2336241653, 392179490, 1402237318, 518363992], np.uint32),
           lambda: minhash(shingles('the cat sat on the mat'), 4))
    a, b, _ = random_pair(np.random.default_rng(0), 2500, 0)
    expect('minhash of an empty set, 4 functions', np.full(4, 2 ** 32 - 1, np.uint32), minhash, a[:0], 4)
    wanted = np.minimum(minhash(a), minhash(b))
    expect('minhash of the union of two sets of 2,500, 256 functions; the smaller of their two signatures is '
           'expected', wanted, minhash, np.append(a, b))


def test_documents_share_a_band_as_often_as_the_formula_says():
    n = 200
    for bands, rows, size in ((32, 8, 1000), (64, 4, 5)):
        rng = np.random.default_rng(bands)
        for share in (0.5, 0.8, 0.9, 1):
            agree, hits = [], []
            for _ in range(n):
                *sets, j = random_pair(rng, size, int(share * size))
                a, b = map(minhash, sets)
                agree.append((a == b).mean())
                hits.append((band_keys(a, bands) == band_keys(b, bands)).any())
            p = 1 - (1 - j ** rows) ** bands
            for what, found, expected, most in (
                    ('the mean fraction of the 256 numbers of minhash that agree', np.mean(agree), j,
                     4 * np.std(agree) / n ** 0.5),
                    (f'the fraction of pairs that share one of {bands} bands of {rows}', np.mean(hits), p,
                     4 * (p * (1 - p) / n) ** 0.5 + 1 / n)):
                case = f'{n} pairs of sets of {size} shingles with the Jaccard similarity {j:.4f}: {what}'
                assert abs(found - expected) <= most, told(case, found, expected)


# --- time -----------------------------------------------------------------------------------------
PARTS = r"""a @ 1- < $$ - { \ % & &#1 ``` \begin{ \begin{equation} \[ \cite[ \emph{ <!-- <script> a. a@
a@a. 555- eyJ- xoxb- sk- Ã β€ Ãƒ ðŸ /* a, =x; f(""".split()
PARTS += [' ', '\n', '\n ', '1 ', '+1 ', '(555) ', '<p ', r'\emph{a ', '-----BEGIN ', '-----BEGIN A', '\n=a',
          '\u0301\u0323', '(\n']
N = 12_000                      # characters; what a pattern bounds, it bounds by 10,000 or less


def seconds(function, part, n):
    """CPU time of a text that is a part again and again, behind markup and before what may end it."""
    text = r'_é<p>\cite{a}' * (part != 'Ab c. ') + part * (n // len(part)) + '}' * (n // 7)
    start = time.process_time()         # of this process: others on the machine do not count
    function(text)
    return time.process_time() - start


def test_no_text_takes_more_than_its_share_of_time():
    """At 4 N over that at N, or over a plain text's, if that is longer. Linear work grows by 4, by 5
    with the bound of 10,000; quadratic by 16. 8 lies between, and one try of five is enough."""
    for function in hidden, lambda text: normalise(text, 'prose'):
        plain = min(seconds(function, 'Ab c. ', N) for _ in range(5))
        for part in PARTS:
            assert any(seconds(function, part, 4 * N) < 8 * max(plain, seconds(function, part, N))
                       for _ in range(5)), part
