"""
Cleaning: a text arrives in one form, whatever its source.

    normalise('caf\\u0065\\u0301  \\u00e2\\u20ac\\u201dA&amp;B', 'prose')   # 'café —A&B'
    fix_mojibake('it\\u00e2\\u20ac\\u2122s')         # 'it’s': UTF-8 that was read as cp1252
    strip_latex('An \\\\emph{old} mill')              # 'An old mill'
    form_of('def f(x):\\n    return x\\n')           # 'code': Python; or 'other code', or 'prose'

Otherwise a tokenizer spends its vocabulary on such differences, and a model learns to write them.
"""
import ast, collections, html, re, textwrap, unicodedata, warnings

# --- mojibake -------------------------------------------------------------------------------------
# A lead byte (C2-F4) and one to three continuation bytes (80-BF) became characters that seldom meet
# in texts.
CLOSING = set('\u00a0 ’‘”“…–—»«›‹΄')    # these do follow letters, so alone they prove nothing
# Letters that end words more often than Â and Ã may have these after them, so they prove nothing,
# either.
MARKS = CLOSING | set('®™°²³´')


def byte_images(*encodings):
    """{character: byte} of bytes 80-FF in these encodings, the first one first; 80-9F as controls,
    too."""
    images = {bytes([b]).decode(encoding, 'ignore'): b for encoding in reversed(encodings)
              for b in range(0x80, 0x100)}
    images.pop('', None)
    return images | {chr(b): b for b in range(0x80, 0xA0)}


def utf8_pattern(images):
    """Matches two to four characters that look like the bytes of one. It begins with a set of
    characters, because re looks for such a pattern five times as fast as for alternatives."""
    lead = [''.join(re.escape(c) for c, b in images.items() if low <= b < high)
            for low, high in ((0xC2, 0xE0), (0xE0, 0xF0), (0xF0, 0xF5))]
    tail = ''.join(re.escape(c) for c, b in images.items() if b < 0xC0)
    rest = '|'.join(f'(?<=[{letters}])[{tail}]{{{n}}}' for n, letters in enumerate(lead, 1))
    return re.compile(f'[{"".join(lead)}](?:{rest})')


WESTERN = byte_images('cp1252', 'latin-1')
GREEK = byte_images('cp1253', 'iso8859_7', 'cp1252')
UTF8_AS = [(images, utf8_pattern(images)) for images in (WESTERN, GREEK)]
USUAL = set('ÂÃâðΒΓ') | {c for c, b in GREEK.items() if b >= 0xE0 and 'α' <= c <= 'ώ'}
C1_CONTROL = re.compile('[\x80-\x9f]')


def fix_mojibake(text):
    """Undo UTF-8 that was read as cp1252, Latin-1 or cp1253, also twice, also in parts, and cp1252
    that was read as Latin-1. Some such sequences may be real writing. One of these is changed only
    if the document has a sure one with the same first letter, or some evidence and nothing else
    outside ASCII."""
    if text.isascii():
        return text
    for _ in range(4):
        before = text
        for images, pattern in UTF8_AS:
            # without a damaged quote or dash it may be Greek
            if images is WESTERN or any(sign in text for sign in ('β€', 'β\x80', 'Ξ²β‚¬')):
                text = undo(text, images, pattern)
        if text == before:
            break
    return C1_CONTROL.sub(lambda m: m[0].encode('latin-1').decode('cp1252', 'ignore') or m[0], text)


def undo(text, images, pattern):
    """Replace what pattern matches by the characters that its bytes mean, where that is surely
    meant."""
    meant = {old: bytes(map(images.get, old)).decode('utf-8', 'ignore')
             for old in {*pattern.findall(text)}}
    meant = {old: new for old, new in meant.items() if new}         # the others are not UTF-8
    # sequences that nobody writes, by their first letter
    harmless = {old: CLOSING if old[0] in USUAL else MARKS for old in meant}
    sure = collections.Counter(old[0] for old in meant if {*old[1:]} - harmless[old])
    # é, ·, quotes and emoji begin with a usual letter; others need more evidence, or all of it
    evidence = USUAL & set(sure) or sure.total() > 1
    everything = evidence and pattern.sub(lambda m: '' if m[0] in meant else m[0], text).isascii()

    def repaired(match):
        old = match[0]
        enough = 1 if old[0] in USUAL else 2
        return meant.get(old, old) if everything or sure[old[0]] >= enough else old
    return pattern.sub(repaired, text)


# --- markup ---------------------------------------------------------------------------------------
TAG_NAMES = ('a|abbr|article|aside|b|blockquote|body|br|button|center|cite|code|col|dd|div|dl|dt|em|figure|'
             'font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|label|li|link|main|meta|nav|ol|'
             'option|p|pre|s|section|select|small|span|strong|sub|sup|svg|table|tbody|td|textarea|tfoot|th|'
             'thead|title|tr|tt|u|ul|video')
# A start without an end stays. It is matched up to the text's end, so that no end is looked for
# twice.
HIDDEN = [re.compile(f'{start}(?:.*?{end}|(.*))', re.S | re.I)
          for start, end in [('<!--', '-->')] + [
    (rf'<{name}\b[^<>]*>', rf'</{name}\s*>') for name in ('script', 'style', 'noscript')]]
# Attributes or nothing follow the name of a tag. In prose, `a <b` may mean less than, with a > much
# later.
AFTER = (r'(?:\s+(?:[\w:.@-]+\s*=|(?:hidden|disabled|checked|selected|controls|nowrap|noshade|open)\b)[^<>]*|'
         r'\s*/?)>')
BLOCK = re.compile('</?(?:br|p|div|h[1-6]|li|ul|ol|d[dt]|t[dhr]|table|section|article|blockquote|pre|hr|'
                   'option|title)' + AFTER, re.I)
TAG = re.compile(f'</?(?:{TAG_NAMES}){AFTER}|<!doctype[^<>]*>', re.I)
ENTITY = re.compile(r'&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});')


def strip_html(text):
    """Remove HTML tags, comments, scripts, styles, and decode entities. `a < b`, `<stdio.h>`
    stay."""
    if TAG.search(text):
        for pattern in HIDDEN:
            text = pattern.sub(lambda m: ' ' if m[1] is None else m[0], text)
        text = TAG.sub('', BLOCK.sub('\n', text))
    return ENTITY.sub(lambda m: html.unescape(m[0]), text)


LATEX_SIGN = re.compile(r'\\(?:begin\{|documentclass|(?:sub)*section\*?\{|usepackage|cite\w*\{|emph\{|'
                        r'textbf\{)')
LATEX_RULES = [(re.compile(pattern, re.S), new) for pattern, new in (
    # comments; 50% is none
    (r'(?<![\\\d])(?<!\d )%[^\n]*', ''),
    (r'\\begin\{thebibliography\}.*?(?:\\end\{thebibliography\}|\Z)', ' '),
    (r'\\begin\{(equation|align|gather|eqnarray|figure|table|tabular|tikzpicture)(\*?)\}'
     # bounded: where many ends are missing, it takes long
     r'.{0,10000}?\\end\{\1\2\}', ' '),
    # displayed formulas
    (r'\$\$.*?\$\$|\\\[.{0,2000}?\\\]', ' '),
    (r'\\(?:documentclass|usepackage|begin|end|label|ref|eqref|cite\w*|input|bibliography\w*|'
     r'includegraphics|[vh]space)\*?(?:\[[^][]*\])?(?:\{[^{}]*\})?', ''),
    (r'\\item\b ?', '- '))]
LATEX_COMMAND = re.compile(r'\\[A-Za-z]+\*?(?:\[[^][]*\])?\{([^{}]*)\}')       # \emph{word} -> word


def strip_latex(text):
    """The words of a LaTeX document: commands unwrapped, displayed mathematics, tables, comments
    removed."""
    if not LATEX_SIGN.search(text):
        return text
    for pattern, new in LATEX_RULES:
        text = pattern.sub(new, text)
    for _ in range(10):         # commands in commands
        text = LATEX_COMMAND.sub(r'\1', text)
    text = re.sub(r'\\[A-Za-z]+\s?', '', text)
    text = re.sub(r'(?<!\\)\$|(?<!\\)[{}]', '', text)
    text = re.sub(r'\\([%&$#_{}])', r'\1', text)       # \% -> %
    return text.replace('~', ' ')


# --- code or prose --------------------------------------------------------------------------------
# endings of a record's path; the white space of such a text stays
OTHER_CODE = ('.c .h .cc .cpp .cxx .hpp .cs .java .kt .scala .swift .js .jsx .ts .tsx .go .rs .rb .php '
              '.pl .pm .lua .r .jl .hs .ml .sh .bash .sql .css .scss .vue .dart .ex .erl .clj .lisp '
              '.f90 .pas .asm .s .yaml .yml .toml .ini .cmake')


def is_python(text):
    """Whether a text, or the body of a function, is Python that does something: `yes` and `a: b` do
    not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')                         # of odd escapes in strings
            # dedent takes longer than parse, and only the body of a function needs it
            body = ast.parse(textwrap.dedent(text) if text[:1].isspace() else text).body
    except Exception:                   # deep nesting: MemoryError, RecursionError
        return False
    words = [node for node in body if isinstance(node, ast.Expr | ast.AnnAssign)
             and not isinstance(node.value, ast.Call)]
    return len(words) < len(body)


def form_of(text, path=''):
    """How to treat a text, by the end of its path: 'code' is Python, 'other code' any other
    language, 'prose' may hold code, which stays. Without such an ending, what parses as Python is
    code."""
    path = path.lower().removesuffix('.gz')
    if path.endswith(tuple(OTHER_CODE.split())):
        return 'other code'
    if path.endswith('.py') or not path.endswith(('.html', '.htm')) and is_python(text):
        return 'code'
    return 'prose'


# --- one form -------------------------------------------------------------------------------------
LINE_ENDS = '\x0b\x0c\x1c\x1d\x1e\u2028\u2029'      # vertical tab, new page, separators
CONTROL = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200b\u2028\u2029\u2060\ufeff\ufff9-\ufffb]')
# accents on a letter, which NFC sorts slowly
PILE = re.compile('([\u0300-\u036f]{30})[\u0300-\u036f]+')
SURROGATE = re.compile('[\ud800-\udfff]')


def normalise(text, mode, markup=True):
    """A document in one form. Code: no byte order mark, a newline ends a line. Prose: mojibake
    repaired, HTML and LaTeX stripped if markup, Unicode composed (NFC), no control characters, one
    blank or empty line in place of several; indentation stays, for it may be code, and so does all
    that is between fences. Chat: prose whose markup and blanks stay. Raw: as it is."""
    text = SURROGATE.sub('\ufffd', text)        # half of a pair, from JSON: no encoding has it
    if mode == 'raw':
        return text
    text = text.removeprefix('\ufeff').replace('\r\n', '\n').replace('\r', '\n')
    if mode in ('code', 'other code'):
        return text

    text = fix_mojibake(text)
    if markup and mode == 'prose':
        text = outside_fences(text, lambda piece: strip_latex(strip_html(piece)))
    while True:
        plain = CONTROL.sub(lambda m: '\n' if m[0] in LINE_ENDS else '', text)
        if not plain.isascii():
            plain = unicodedata.normalize('NFC', PILE.sub(r'\1', plain))
        if plain == text:
            break
        text = fix_mojibake(plain)      # a removed character may have parted the bytes of another
    if mode == 'chat':
        return text
    return re.sub(r'\A\s*\n', '', outside_fences(text, one_blank)).rstrip()


def outside_fences(text, change):
    # A fence is a line of its own, perhaps in a quote (>) or a list (-, 1.), as in Markdown. ~~~ is
    # none, because it may be a line under a heading.
    pieces = re.split(r'^((?:[ \t>*+-]|\d+[.)])*`{3,}[^`\n]*)$', text, flags=re.M)
    pieces[::4] = map(change, pieces[::4])      # text, fence, code, fence, text, ...
    return ''.join(pieces)


def one_blank(text):
    """Put one blank or empty line in place of several, but leave the indentation of lines."""
    # (?<=\S.) means: not at the beginning of a line. A lone space, (?<! ), needs no change.
    text = re.sub(r'[^\S\n](?<=\S.)(?:[^\S\n]+|(?<! ))', ' ', text).replace(' \n', '\n')
    return re.sub(r'\n\s*\n', '\n\n', text)


def variants(text):
    """The set of forms that cleaning may give to a text within a document."""
    within_latex = r'\emph{} ' + text        # within LaTeX, every text loses its commands
    return {text, normalise(text, 'chat'), normalise(text, 'prose'),
            normalise(within_latex, 'prose')}
