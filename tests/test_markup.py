"""What HTML, LaTeX and wrong decoding leave of a text, and that nothing of it is lost; what of a text is
personal, in the scripts of twelve languages, and what only looks like it."""
import collections
import pathlib
import random
import sysconfig
import time

from conftest import read_rows, table, with_each

from clean import normalize, prose_reason
from extras.text.markup import fix_mojibake, strip_html, strip_latex, without_data
from extras.text.pii import hide

TABLE = read_rows(pathlib.Path(__file__).with_name('markup.jsonl'))
FORMS = {'html': strip_html, 'latex': strip_latex, 'data': without_data}


@with_each('row', TABLE, ids=[row['text'][:60] for row in TABLE])
def test_markup_goes_and_the_text_stays(row):
    assert FORMS[row['form']](row['text']).strip() == row['expected']


def test_no_word_is_lost_in_damaged_markup():
    """Pieces of markup in any order: words that are no part of a tag or command are still there."""
    pieces = {'html': '<p> <b </pre> <pre> " \' > <a\xa0href="x"> &amp; &# <br /> <sup> </table> <![',
              'latex': r'\begin{ {verbatim} \end{document} $ $$ { } \emph{ \[ \verb| \" \c [ ] & ~ \\'}
    for form, strip in [*FORMS.items()][:2]:
        for seed in range(300):
            dice = random.Random(seed)
            parts = dice.choices(pieces[form].split(' '), k=12)
            text = ''.join(f'{part.replace(chr(160), " ")}\nWord{i} \n' for i, part in enumerate(parts))
            kept = strip(text)
            # what stands behind < or a quote may be an attribute
            lost = [i for i in range(12) if f'Word{i} ' not in kept.replace('\n', ' ') + ' ']
            assert not lost or form == 'html' and {'<b', '<![', '"', "'"} & {*parts}, (text, kept)


# --- letters that were decoded wrongly ------------------------------------------------------------
SENTENCES = '''“Yes,” she said — it’s 5 o’clock… | Le café déjà vu où naît l’été, à Noël. | “そう”
NÃO — AÇÃO, não é “São Paulo” | Größe – „Fuß“ und ähnlich | Привет — мир | 你好,“世界” | 5 € – or “£4”
• 20 °C • Word™ | 👍 – 😀 | Καλημέρα — κόσμε | नमस्ते — दुनिया | “안녕” | שלום — כן | Zażółć — gęślą jaźń'''
INNOCENT = '''Le café déjà vu où naît l’été, à Noël : «\xa0ÇA\xa0!\xa0» | L’ÉCOLE™, SOCIÉTÉ® et BEAUTÉ® “É” À°
GRÖßE, Ü² | NÃO HÁ RAZÃO. «AÇÃO» É SÓ — IRMÃ… “NÃO” IRMÃ” | L’ÂGE D’OR, PÂTÉ™ | SEÑOR® ¿QUÉ? ¡ÁGIL! | ĐÃ”…
Καλημέρα κόσμε «Α» — Β’ Λυκείου, Γ΄ τάξη, 5 € | Ο ΈΛΛΗΝΑΣ ΊΣΩΣ ΤΈΛΟΣ | Україна — «це» є | Россия № 5 «да»
Å® Ø° ×² ß² ¼ € | İstanbul’da ışık | Příliš žluťoučký kůň | Õhtu, ŠÕŽ, MÄŽU | ÇÖŠ, ŽÄŠ ÀŠ
„Víš…“ „Ano, víš“, znáš“, máš… VÝŠKA, VÝŽIVA | 4×½ a 6×¾, 2×£10, 3×€5, 2×¥9 | på ½, på\xa0¼
liberté¹ », égalité¹… | à € 5, â – ô | ÞÓR’S ÐÁ» | 日本語。한국어! | 👍'''
SENTENCES, INNOCENT = (table.replace('\n', ' | ').split(' | ') for table in (SENTENCES, INNOCENT))


def damage(text, encoding):
    """UTF-8 read as an 8-bit encoding, undefined bytes as control characters, as browsers do."""
    return ''.join(bytes([b]).decode(encoding, 'ignore') or chr(b) for b in text.encode())


@with_each('text', INNOCENT + SENTENCES)
def test_right_letters_stay(text):
    assert fix_mojibake(text) == text and fix_mojibake(text * 20) == text * 20


@with_each('encoding', ['cp1252', 'latin-1', 'cp1253'])
@with_each('text', SENTENCES)
def test_utf8_that_was_read_wrongly_is_repaired_also_twice_and_in_parts(text, encoding):
    wrong = damage(text, encoding)
    assert wrong != text and fix_mojibake(wrong) == text
    assert fix_mojibake(damage(wrong, encoding)) == text
    page = f'{SENTENCES[0]}\n{{}}\n{SENTENCES[0]}'
    assert fix_mojibake(page.format(damage(SENTENCES[1], 'cp1252'))) == page.format(SENTENCES[1])


def test_what_lost_bytes_is_repaired_as_far_as_it_can_be():
    assert fix_mojibake('πŸ§‘πŸΏβ€πŸ’» Train β†’ N Γ— Block') == '🧑πŸΏβ€💻 Train → N Γ— Block'
    assert fix_mojibake('\x93It\x92s\x94 \x96 5 \x80') == '“It’s” – 5 €'


# --- personal data ------------------------------------------------------------------------------
HIDDEN = read_rows(pathlib.Path(__file__).with_name('personal.jsonl'))
FRAMES = '{}', 'Write to {}, please.', '({})', '"{}"', 'x\n{}\ny', 'It is {}.', '请{}。', '_{}_'
BODY = 'MIIEpAIBAAKCAQEA0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKL\n' * 3
PEM = f'-----BEGIN RSA PRIVATE KEY-----\n{BODY}-----END RSA PRIVATE KEY-----'
PERSONAL = """
email: ann@uni.edu | first.last+tag@sub.domain.co.uk | JOHN@COMPANY.COM | x%y@physics.ox.ac.uk
phone: +1 415 555 2671 | +1-415-555-2671 | +1 (415) 555-2671 | (415)555-2671 | 1-415-555-2671
phone: 0171 1234567 | (0)44 123 45 67 | 01 42 34 56 78 | 01.42.34.56.78 | (030) 901820 | 020 7946 0958
phone: 415.555.2671 | +49 (0)30 901820 | +33 1 23 45 67 89 | +4915112345678
ssn: 123-45-6789 | 899-99-9999 | 001-01-0001
key: AKIAIOSFODNN7EXAMPLE | ghp_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3 | glpat-abcdefghij0123456789
key: AIzaSy_-xSy_-xSy_-xSy_-xSy_-xSy_-xSy_-x | hf_abcdeFGHIJabcdeFGHIJabcdeFGHIJ
key: sk-abCD12_-abCD12_-abCD12_-abCD12_-abCD12_-a | xoxb-123456789012-abcdefghijkl
key: eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"""
PERSONAL = [(kind, text) for kind, texts in table(PERSONAL, ': ') for text in texts.split(' | ')]
PERSONAL += [('key', PEM), ('key', PEM.replace('KEY-----\nM', 'KEY-----\nDEK-Info: AES,AB12\n\nM'))]


def hidden(text, is_code=False):
    """What hide makes of a text, and what it counts of what it hides."""
    found = collections.Counter()
    return hide(text, found, is_code), dict(+found)


@with_each('row', HIDDEN, ids=[row['text'] for row in HIDDEN])
def test_what_is_personal_goes_and_every_other_letter_stays(row):
    counts = {kind: n for kind in ('email', 'phone', 'ssn', 'key')
              if (n := row['hidden'].count(f'<{kind.upper()}>'))}
    assert hidden(row['text'], row.get('is_code', False)) == (row['hidden'], counts)


@with_each('frame', FRAMES)
def test_each_kind_goes_whatever_stands_around_it(frame):
    for kind, text in PERSONAL:
        # a long key may end with the _ of Markdown
        if not (frame == '_{}_' and text.startswith(('sk-', 'eyJ'))):
            assert hidden(frame.format(text)) == (frame.format(f'<{kind.upper()}>'), {kind: 1})


def test_code_stays_a_program_and_only_its_authors_addresses_go():
    kinds = set()
    for path in sorted(pathlib.Path(sysconfig.get_paths()['stdlib']).glob('*.py'))[::4]:
        text, found = hidden(path.read_text(), True)
        assert text == hidden(path.read_text())[0]
        kinds.update(found)
        compile(text, path, 'exec', dont_inherit=True)
    assert kinds <= {'email'}


# --- time -----------------------------------------------------------------------------------------
PARTS = r"""a @ 1- < $ $$ - { \ % & &#1 \begin{ \begin{equation} \begin{verbatim} \[ \( \cite[ \emph{ \verb|
<!-- <script> <pre> <math> <ruby> <rt> <rp> <? <a" <a\nb=" a. a@ a@a. a%40 +4/ 555- eyJ- xoxb- sk- Ã β€ Ãƒ ðŸ
data: data:;base64, data:,<svg ;a=b ~~~ \begin{picture} \iffalse <math><span>
``` /* a, =x; f(""".split()
PARTS += (' |\n|1 |+1 |(555) |<p |<p a=\'|\\emph{a |-----BEGIN |{{ |\\label{{|$a\n|%\n|\\c |'
          '\\SI{|\\def\\a{|\\def\\a{\\a\\a}|\\newcommand{\\a}[2][b]{\\a[#1]{#2#2}}\\a{|\n |'
          '-----BEGIN A|\n=a|(\n|\u0301\u0323|\x1b[|\x1b]|\x1bP|x\b|\b|\n\n   |\n\n   a|'
          '\n#+begin_src|]\n----\n|\n   \n\ta|\n~~~|"""|\'\n|\u200b|\u0e01\u200b|'
          '<math><span aria-hidden="true">|<span aria-hidden="true"><math></span>').split('|')
N = 12_000


def seconds(function, text):
    """CPU time of this process, so others on the machine do not count."""
    start = time.process_time()
    function(text)
    return time.process_time() - start


FUNCTIONS = [strip_html, strip_latex, fix_mojibake, without_data, prose_reason,
             lambda text: hide(text, collections.Counter()), lambda text: normalize(text, 'prose'),
             lambda text: hide(text, collections.Counter(), True)]


@with_each('function', FUNCTIONS)
def test_no_text_takes_more_than_its_share_of_time(function):
    """Of markup, masks, rules and the normalization of prose. At 4 N over that at N, or over a plain
    text's: linear work grows by 4, quadratic by 16."""
    plain = min(seconds(function, 'Ab c. ' * (N // 6)) for _ in range(5))
    for part in PARTS:
        texts = [r'_é<p>\cite{a}' + part * (k * N // len(part)) + '}' * (k * N // 7) for k in (1, 4)]
        assert any(seconds(function, texts[1]) < 8 * max(plain, seconds(function, texts[0]), 1e-3)
                   for _ in range(5)), part
