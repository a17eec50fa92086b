"""Normalisation: what is damaged is repaired, what is not stays, and code keeps its meaning."""
import ast
import pathlib, sysconfig
import unicodedata
import warnings

import pytest
from conftest import SHARED
from hypothesis import example, given, settings
from hypothesis import strategies as st

from parts.prepare.clean import basic_clean, fix_mojibake, normalise, strip_html, strip_latex
from parts.prepare.filters import prose_reason

STDLIB = pathlib.Path(sysconfig.get_paths()['stdlib'])
SENTENCES = '''“Yes,” she said — it’s 5 o’clock… | Le café déjà vu où naît l’été, à Noël. | “そう”
NÃO — AÇÃO, não é “São Paulo” | Größe – „Fuß“ und ähnlich | Привет — мир | 你好,“世界” | 5 € – or “£4”
• 20 °C • Word™ | 👍 – 😀 | Καλημέρα — κόσμε | नमस्ते — दुनिया | “안녕” | שלום — כן | Zażółć — gęślą jaźń'''
INNOCENT = '''Le café déjà vu où naît l’été, à Noël : «\xa0ÇA\xa0!\xa0» | L’ÉCOLE™, SOCIÉTÉ® et BEAUTÉ® “É” À°
GRÖßE, Ü² | NÃO HÁ RAZÃO. «AÇÃO» É SÓ — IRMÃ… “NÃO” IRMÃ” | L’ÂGE D’OR, PÂTÉ™ | SEÑOR® ¿QUÉ? ¡ÁGIL! | ĐÃ”…
Καλημέρα κόσμε «Α» — Β’ Λυκείου, Γ΄ τάξη, 5 € | Ο ΈΛΛΗΝΑΣ ΊΣΩΣ ΤΈΛΟΣ | Україна — «це» є | Россия № 5 «да»
Å® Ø° ×² ß² ¼ € | İstanbul’da ışık | Příliš žluťoučký kůň | à € 5, â – ô | ÞÓR’S ÐÁ» | 日本語。한국어! | 👍'''
SENTENCES, INNOCENT = (table.replace('\n', ' | ').split(' | ') for table in (SENTENCES, INNOCENT))


def damage(text, encoding):
    """UTF-8 read as an 8-bit encoding, bytes it does not define as control characters, as browsers do."""
    return ''.join(bytes([b]).decode(encoding, 'ignore') or chr(b) for b in text.encode())


@pytest.mark.parametrize('times', [1, 2])
@pytest.mark.parametrize('encoding', ['cp1252', 'latin-1', 'cp1253'])
@pytest.mark.parametrize('text', SENTENCES)
def test_utf8_read_wrongly_is_repaired(text, encoding, times):
    wrong = damage(damage(text, encoding), encoding) if times == 2 else damage(text, encoding)
    assert wrong != text and fix_mojibake(wrong) == text


def test_only_the_damaged_parts_of_a_page_are_repaired():
    for text in SENTENCES[:4]:
        for encoding in ('cp1252', 'latin-1'):
            assert fix_mojibake(f'{text}\n{damage(text, encoding)}\n{text}') == f'{text}\n{text}\n{text}'


@pytest.mark.parametrize('text', INNOCENT + SENTENCES)
def test_what_is_not_damaged_stays_as_it_is(text):
    assert fix_mojibake(text) == text and fix_mojibake(text * 20) == text * 20


def test_cp1252_read_as_latin_1_is_repaired():
    assert fix_mojibake('\x93It\x92s\x94 \x96 5 \x80') == '“It’s” – 5 €'


ENCODINGS = st.sampled_from(['', 'cp1252', 'latin-1', 'cp1253'])
PIECES = st.tuples(st.sampled_from(SENTENCES + INNOCENT), ENCODINGS, st.integers(0, 20), st.integers(1, 20))


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=4), st.text(max_size=20))
@example([], 'Â\x1b\x80')       # a control character parts the two bytes of one character
@example([], 'A\u0302€')       # and here the first of them is a letter and its accent
def test_normalising_twice_is_normalising_once(pieces, noise):
    text = ''.join(damage(t[a:a + n], e) if e else t[a:a + n] for t, e, a, n in pieces) + noise
    once = normalise(text, 'prose', markup=False)
    assert normalise(once, 'prose', markup=False) == once
    assert unicodedata.is_normalized('NFC', once) and once.encode('utf-8') is not None


def shared(path):
    path = SHARED.parent / path
    if not path.exists():
        pytest.skip('this file is not part of the project')
    return path.read_text(encoding='utf-8')


def test_a_real_page_is_repaired_exactly():
    text = shared('seeds/000_8458b0347cdd5ba1.txt')
    assert fix_mojibake(text) == text.encode('cp1252').decode('utf-8') != text


def test_of_a_real_page_that_lost_bytes_the_rest_is_repaired():
    lines = fix_mojibake(shared('seeds/004_e57ba34b3fdb3b0d.txt')).split('\n')
    assert '的日與' in lines[0] and lines[4] == '· ·'
    assert lines[2] == '🧑πŸΏβ€💻 Train A Language Model From Scratch'      # 8F and 8D do not exist in cp1253
    assert 'nn.Embedding → N Γ— Block → RMSNorm → tied' in lines[172]       # Γ— may be writing
    assert lines[176].startswith('Pretraining is conceptually simple — next-token prediction over')
    assert '~32k–128k' in lines[103] and '€' not in ''.join(lines[3:])


def test_composed_and_decomposed_letters_become_the_same_text():
    assert normalise('cafe\u0301', 'prose') == normalise('caf\xe9', 'prose') == 'caf\xe9'
    assert normalise('e\u200b\u0301 \u212b', 'prose') == '\xe9 \xc5'
    assert normalise('x² ½ ﬁ ™ …', 'prose') == 'x² ½ ﬁ ™ …'         # NFKC would make x2 and (tm) of it


@pytest.mark.parametrize('text, expected', [
    ('<p>a<br/>b</p>', '\na\nb\n'), ('<A HREF="x">k</A> &amp; &lt;i&gt; &#228; &euro;', 'k & <i> ä €'),
    ('<div>x<script src="s">if (a<b) {}</script><style>p{}</style><!-- no -->y</div>', '\nx   y\n'),
    *[(t, t) for t in ('a < b and c > d', '#include <stdio.h>', '<EMAIL>', '<|im_start|>', 'vector<int>',
                       'AT&T; x && y', '<http://a.org>', '?a=1&copy=2&lt=3', 'no tag: <!-- kept -->',
                       'i<b && c>d', 'while a <b holds.\n\nThis stays.\n\n> A quote', 'x <p and y> z')],
    ('<hr noshade><td nowrap class=a>b</td ><p/>', '\nb\n')])
def test_html_goes_and_what_only_looks_like_it_stays(text, expected):
    assert strip_html(text) == expected


def test_the_indentation_of_a_page_goes_but_within_pre():
    page = '<ul>\n    <li>one</li>\n</ul>\n<pre>\n    x = 1\n</pre>\n  <p>two</p>'
    assert normalise(page, 'prose') == 'one\n\n    x = 1\n\ntwo'
    few = 'A <b>word</b>:\n\n    x = 1\n    y = 2\n\nand\nso\non\n\nto\nthe\nend.'
    assert normalise(few, 'prose') == few.replace('<b>', '').replace('</b>', '')


def test_what_html_opens_and_never_closes_stays():
    assert strip_html('<p>Use <script> and <!-- here') == '\nUse <script> and <!-- here'


@pytest.mark.parametrize('text, expected', [
    (r'\section{A} The \emph{big \textbf{word}} costs 5\% of \$3.', 'A The big word costs 5% of $3.'),
    (r'\begin{figure}[h]x\end{figure}a\cite[p. 3]{b} $$z$$ c\ref{d}~e % note', ' a   c e '),
    ('\\documentclass[a4]{x}\\begin{document}\nHi\n\\item one\\end{document}', '\nHi\n- one'),
    (r'Only 50% or 50 % know \emph{LaTeX}.', 'Only 50% or 50 % know LaTeX.'),
    *[(t, t) for t in (r'C:\new\users', '$5 and $6', '100 % of {x}', r'\alpha is a letter', 'a_b ~ 5')]])
def test_latex_goes_and_what_only_looks_like_it_stays(text, expected):
    assert strip_latex(text) == expected


@pytest.mark.parametrize('text, expected', [
    ('a\x00b\x07\x7f\xadc\u200bd\ufeff', 'abcd'), ('one\u2028two\ffour\x0bfive', 'one\ntwo\nfour\nfive'),
    ('\ufeff  a \t b  \r\n\r\n\r\n\r\nc\rd ', '  a b\n\nc\nd'), (' \n\n\n  a', '  a'),
    ('می\u200cخواهم', 'می\u200cخواهم'),
    ('a\u3000b\xa0c', 'a b c'), ('\udc80x', '\ufffdx'), ('```\n\n```', '```\n\n```'),
    ('x  y\n```\ndef f():\n    return  1\n```\n  z', 'x y\n```\ndef f():\n    return  1\n```\n  z')])
def test_prose_has_one_form(text, expected):
    assert normalise(text, 'prose') == expected


def test_code_between_fences_keeps_its_markup():
    code = '```c\nprintf("<b>50%</b> &amp; \\emph{x}  {$y}");\n```'
    text = normalise(f'A <b>bold</b>  word:\n\n{code}\n\n<i>Done</i>.', 'prose')
    assert text == f'A bold word:\n\n{code}\n\nDone.'


def test_code_keeps_its_meaning():
    skip = {'test', 'tests', 'idle_test', 'lib2to3', 'site-packages'}
    files = [p for p in STDLIB.rglob('*.py') if not skip & set(p.relative_to(STDLIB).parts)]
    assert len(files) > 500
    for path in files:
        source = path.read_bytes().decode('utf-8')
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            for text in (source, '\ufeff' + source.replace('\n', '\r\n')):
                assert normalise(text, 'code') == source.replace('\r\n', '\n').replace('\r', '\n'), path
            assert ast.dump(ast.parse(normalise(source, 'code'))) == ast.dump(ast.parse(source)), path


def test_basic_clean_has_the_rules_of_the_source_document():
    fill = ' '.join(f'word{chr(97 + i)}' for i in range(26)) + ' '          # 156 characters, all words differ
    assert len(basic_clean(fill + 'x' * 44)) == 200 and basic_clean(fill + 'x' * 43) is None
    assert basic_clean('  ' + fill.replace(' ', ' \n\n\t') + 'x' * 44) == fill + 'x' * 44
    other = [f'no{chr(97 + i)}' for i in range(26)] + ['one', 'two', 'six']
    assert basic_clean(' '.join(['same'] * 71 + other)) is not None          # 30 different words in 100
    assert basic_clean(' '.join(['same'] * 72 + other)) is None
    letters = 'abcdefghij' * 12                                              # 120 letters of 200
    assert basic_clean(letters + '1' * 80) is not None and basic_clean(letters + '1' * 81) is None


def test_basic_clean_drops_shakespeare_and_prose_reason_keeps_it():
    text = shared('data/tinyshakespeare.txt')
    assert len(text) == 1_115_394
    assert basic_clean(text) is None and prose_reason(text) is None
