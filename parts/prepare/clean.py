"""
Cleaning a text: whatever its source, it arrives in one form, without personal data.

    normalise('caf\\u0065\\u0301  \\u00e2\\u20ac\\u201dA&amp;B', 'prose')   # 'café —A&B'
    fix_mojibake('it\\u00e2\\u20ac\\u2122s')         # 'it’s': UTF-8 that was read as cp1252
    strip_latex('An \\\\emph{old} mill')              # 'An old mill'
    hide_pii('mail to ann@uni.edu')                 # ('mail to <EMAIL>', {'email': 1})
    form_of('def f(x):\\n    return x\\n')           # 'code': Python; 'other code', or 'prose'

A tokenizer spends its vocabulary on such differences, a model learns to write them, and it may recite a key
that it has seen once.

Copy this file alone: it needs the standard library.
"""
import ast, collections, functools, html, math, re, textwrap, unicodedata, warnings

# --- mojibake -----------------------------------------------------------------------------------------------
# A lead byte (C2-F4) and one to three continuation bytes (80-BF) became characters that seldom meet in texts.
CLOSING = set('\u00a0 ’‘”“…–—»«›‹΄')    # these do follow letters, so alone they prove nothing
MARKS = CLOSING | set('®™°²³´')         # nor do these, after letters that end words more often than Â and Ã


def byte_images(*encodings):
    """{character: byte} for bytes 80-FF, as these encodings show them, the first one first; 80-9F may also
    have become control characters."""
    images = {bytes([b]).decode(encoding, 'ignore'): b for encoding in reversed(encodings)
              for b in range(0x80, 0x100)}
    images.pop('', None)
    return images | {chr(b): b for b in range(0x80, 0xA0)}


def utf8_pattern(images):
    """Matches two to four characters that look like the bytes of one."""
    lead = [''.join(re.escape(c) for c, b in images.items() if low <= b < high)
            for low, high in ((0xC2, 0xE0), (0xE0, 0xF0), (0xF0, 0xF5))]
    tail = ''.join(re.escape(c) for c, b in images.items() if b < 0xC0)
    return re.compile('|'.join(f'[{letters}][{tail}]{{{n}}}' for n, letters in enumerate(lead, 1)))


WESTERN = byte_images('cp1252', 'latin-1')
GREEK = byte_images('cp1253', 'iso8859_7', 'cp1252')
UTF8_AS = [(images, utf8_pattern(images)) for images in (WESTERN, GREEK)]
USUAL = set('ÂÃâðΒΓ') | {c for c, b in GREEK.items() if b >= 0xE0 and 'α' <= c <= 'ώ'}
C1_CONTROLS = {b: bytes([b]).decode('cp1252', 'ignore') or chr(b) for b in range(0x80, 0xA0)}


def fix_mojibake(text):
    """Undo UTF-8 that was read as cp1252, Latin-1 or cp1253, also twice, also in parts, and cp1252 that was
    read as Latin-1. Some such sequences may be real writing. One of these is changed only if the document has
    a sure one with the same first letter, or some evidence and nothing else outside ASCII."""
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
    return text.translate(C1_CONTROLS)


def undo(text, images, pattern):
    meant = {old: bytes(map(images.get, old)).decode('utf-8', 'ignore') for old in {*pattern.findall(text)}}
    found = {old: new for old, new in meant.items() if new}         # else it is not UTF-8
    harmless = lambda old: CLOSING if old[0] in USUAL else MARKS
    # sequences that nobody writes, by their first letter
    sure = collections.Counter(old[0] for old in found if {*old[1:]} - harmless(old))
    # é, ·, quotes and emoji begin with a usual letter; others need more evidence, or all of it
    evidence = USUAL & set(sure) or sure.total() > 1
    everything = evidence and pattern.sub(lambda m: '' if m[0] in found else m[0], text).isascii()

    def repaired(m):
        enough = 1 if m[0][0] in USUAL else 2
        if everything or sure[m[0][0]] >= enough:
            return found.get(m[0], m[0])
        return m[0]
    return pattern.sub(repaired, text)


# --- markup -------------------------------------------------------------------------------------------------
TAG_NAMES = ('a|abbr|article|aside|b|blockquote|body|br|button|center|cite|code|col|dd|div|dl|dt|em|figure|'
             'font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|label|li|link|main|meta|nav|ol|'
             'option|p|pre|s|section|select|small|span|strong|sub|sup|svg|table|tbody|td|textarea|tfoot|th|'
             'thead|title|tr|tt|u|ul|video')
# A start without an end stays. It is matched up to the text's end, so that no end is looked for twice.
HIDDEN = [re.compile(f'{start}(?:.*?{end}|(.*))', re.S | re.I) for start, end in [('<!--', '-->')] + [
    (rf'<{name}\b[^<>]*>', rf'</{name}\s*>') for name in ('script', 'style', 'noscript')]]
# Attributes or nothing follow the name of a tag. In prose, `a <b` may mean less than, with a > much later.
AFTER = (r'(?:\s+(?:[\w:.@-]+\s*=|(?:hidden|disabled|checked|selected|controls|nowrap|noshade|open)\b)[^<>]*|'
         r'\s*/?)>')
BLOCK = re.compile('</?(?:br|p|div|h[1-6]|li|ul|ol|tr|table|section|article|blockquote|pre|hr)' + AFTER, re.I)
TAG = re.compile(f'</?(?:{TAG_NAMES}){AFTER}|<!doctype[^<>]*>', re.I)
ENTITY = re.compile(r'&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});')


def strip_html(text):
    """Remove HTML tags, comments, scripts, styles, and decode entities. `a < b`, `<stdio.h>` stay."""
    if TAG.search(text):
        for pattern in HIDDEN:
            text = pattern.sub(lambda m: ' ' if m[1] is None else m[0], text)
        text = TAG.sub('', BLOCK.sub('\n', text))
    return ENTITY.sub(lambda m: html.unescape(m[0]), text)


LATEX_SIGN = re.compile(r'\\(?:begin\{|documentclass|(?:sub)*section\*?\{|usepackage|cite\w*\{|emph\{|'
                        r'textbf\{)')
LATEX_RULES = [(re.compile(pattern, re.S), new) for pattern, new in (
    (r'(?<![\\\d])(?<!\d )%[^\n]*', ''),                                            # comments; 50% is none
    (r'\\begin\{thebibliography\}.*?(?:\\end\{thebibliography\}|\Z)', ' '),
    (r'\\begin\{(equation|align|gather|eqnarray|figure|table|tabular|tikzpicture)(\*?)\}'
     r'.{0,10000}?\\end\{\1\2\}', ' '),                 # bounded: where many ends are missing, it takes long
    (r'\$\$.*?\$\$|\\\[.{0,2000}?\\\]', ' '),                                       # displayed formulas
    (r'\\(?:documentclass|usepackage|begin|end|label|ref|eqref|cite\w*|input|bibliography\w*|'
     r'includegraphics|[vh]space)\*?(?:\[[^][]*\])?(?:\{[^{}]*\})?', ''),
    (r'\\item\b ?', '- '))]
LATEX_COMMAND = re.compile(r'\\[A-Za-z]+\*?(?:\[[^][]*\])?\{([^{}]*)\}')       # \emph{word} -> word


def strip_latex(text):
    """The words of a LaTeX document: commands unwrapped, displayed mathematics, tables, comments removed."""
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


# --- code or prose ------------------------------------------------------------------------------------------
FENCED = re.compile(r'^ {0,3}(```+|~~~+).*?(?:^ {0,3}\1[`~]* *$|\Z)', re.M | re.S)
COMMENT_LINES = re.compile(r'^[^\S\n]*(?:/\*(?s:.*?)(?:\*/|\Z)|//.*|\#(?!include|define|if|endif).*|'
                           r'=\w+\b(?s:.*?)(?:\n=cut\b|\Z))', re.M)
# What a line of code looks like, in Python and elsewhere. The white space within a line does not matter, so a
# text is judged alike before and after its blanks are taken away.
CODE_LINE = re.compile(r"""(?:async\s+)?(?:def|class)\s+\w+\s*(?:\(.*|:)$
    | (?:if|elif|else|for|while|try|except|with|finally)\b.*:\s*(?:\#.*)?$
    | import\s+[\w.]+(?:\s+as\s+\w+)?(?:\s*,\s*[\w.]+)*;?$ | from\s+[\w.]+\s+import\b
    | (?:print|raise|assert|yield|del|global|return|exec)\s+["'\w]+(?:\s*[-+%.,(\[)\]].*)?$
    | (?:return|pass|break|continue|then|do|done|else|fi|esac|end)\s*;?$ | @\w+(?:\.\w+)*(?:\(.*)?$
    | >>>\s | \.\.\.\s\S | (?:if|while)\s+\[ | \$\w+\s*= | <\?php
    | [\w.*&]+(?:\[[^]]*\]|->\w+)*(?:\s*,\s*[\w.]+)*\s*(?:[-+*/|&%:^]|\*\*|//|<<|>>)?=.*\S      # x, y = 1, 2
    | (?:const|let|var|int|float|char|auto|val|my|local|export)\s+[\w*<>\s,.:]+=[^=]
    | [\w.]+\((?:[^()]|\([^()]*\))*\)[;,]?$ | ["'][^"']*["'],$                                # f(x), a list
    | \#\s*(?:include|define|ifn?def|endif|pragma|undef)\b | (?:package|using|namespace)\s+[\w.:]+;?$
    | (?:func|fn|function|sub|interface|struct|impl|enum|template|public|private|protected|static|extern)\b
      .*[{(<;]
    | (?:-\s+)?[a-z_][\w.-]*:(?:\s|$) | \S+\s+=>.*                                            # key: value
    | (?:SELECT|FROM|WHERE|GROUP\s+BY|ORDER\s+BY|HAVING|LIMIT|VALUES|UPDATE|CREATE)\b | .*\sAS\s+\w+,?$  # SQL
    | (?i:select\s+(?:\*|[\w.]+\s*(?:[,(]|$|from\b))|insert\s+into\b|delete\s+from\s+\w+\s*(?:;|$)
      |create\s+table\b|(?:(?:inner|outer|left|right|full|cross)\s+)*join\s+[\w.]+(?:\s+\w+)?$
      |(?:group|order)\s+by\s+[\w.]+
      |(?:where|and|or|on|set)\s+[\w.]+\s*(?:[=<>]|(?:is|in|like)\b\s+(?:[(']|not\b|null\b)))
    | [^\w\s]{1,4}$ | .*[()=\[\]{}<>&$*@].*;$ | \S+(?:\s+\S+)?;$
    | .*(?:[{}]|\)\s*:|\\|[&|]{2}|=>|->)\s*(?://.*|/\*.*)?$""", re.X)


@functools.lru_cache(16)                # it is called several times with the same text
def code_share(text):
    """The share of a text's lines that look like code in some language, without comments and empty lines."""
    lines = [line.strip() for line in COMMENT_LINES.sub('', text).split('\n')]
    n_code = sum(len(line) < 1000 and bool(CODE_LINE.match(line)) for line in lines)
    return n_code / max(1, sum(map(bool, lines)))


def is_python(text):
    """Whether a text, or the body of a function, is Python that does something: `yes` and `a: b` do not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')                         # of odd escapes in strings
            body = ast.parse(textwrap.dedent(text)).body
    except Exception:                   # deep nesting: MemoryError, RecursionError
        return False
    for node in body:
        value = node.value if isinstance(node, ast.Expr) else None
        docstring = isinstance(value, ast.Constant) and '\n' in str(value.value)
        if docstring or isinstance(value, ast.Call) or not isinstance(node, ast.Expr | ast.AnnAssign):
            return True
    return False


def form_of(text, path=''):
    """How to treat a text, by the end of its path, or else by itself: 'code' is Python; 'other code' is any
    other language, Python 2 or Python that is damaged; 'prose' may hold code between fences and in
    paragraphs, which stay."""
    ending = path.lower().removesuffix('.gz')
    if ending.endswith('.py'):
        return 'code'
    if ending.endswith(('.html', '.htm')):
        return 'prose'
    head = text[:200_000]
    share = code_share(FENCED.sub('', head))
    if (share or head.lstrip()[:1] in ('"', "'", '#')) and is_python(text):
        return 'code'
    several = '\n' in text.strip()
    if share < 0.3 or not several or len(TAG.findall(head)) > head.count('\n') / 4:
        return 'prose'
    return 'other code'


# --- one form -----------------------------------------------------------------------------------------------
LINE_END = re.compile('[\x0b\x0c\x1c-\x1e\u2028\u2029]')      # vertical tab, new page, separators
CONTROL = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u2060\ufeff\ufff9-\ufffb]')
PILE = re.compile('([\u0300-\u036f]{30})[\u0300-\u036f]+')      # accents on a letter, which NFC sorts slowly
SURROGATE = re.compile('[\ud800-\udfff]')


def normalise(text, mode, markup=True):
    """A document in one form. Code: no byte order mark, a newline ends a line. Prose: mojibake repaired, HTML
    and LaTeX stripped if markup, Unicode composed (NFC), no control characters, one blank or empty line in
    place of several. Code between fences keeps markup and blanks, a paragraph that may be code keeps blanks.
    Chat: prose whose markup and blanks stay. Raw: as it is."""
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
        plain = CONTROL.sub('', LINE_END.sub('\n', text))
        plain = unicodedata.normalize('NFC', PILE.sub(r'\1', plain))
        if plain == text:
            break
        text = fix_mojibake(plain)      # a removed character may have parted the bytes of another
    if mode == 'chat':
        return text
    text = re.sub(r'\A(?:[^\S\n]*\n)+', '', outside_fences(text, one_blank)).rstrip()
    return text if may_be_code(text.split('\n\n')[0]) else text.lstrip()


def outside_fences(text, change):
    pieces = text.split('```')          # every second one is code; ~~~ may be a line under a heading
    pieces[::2] = map(change, pieces[::2])
    return '```'.join(pieces)


def may_be_code(paragraph):
    return code_share(paragraph) >= 0.4


def one_blank(text):
    """Put one blank or empty line in place of several; a paragraph that may be code stays as it is."""
    parts = re.split(r'(\n\s*\n)', text)           # paragraphs, and what stands between them
    last = len(parts) - 1
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = '\n\n'
        elif not may_be_code(part):
            part = re.sub(r' ?\n ?', '\n', re.sub(r'[^\S\n]+', ' ', part))
            part = part.lstrip(' ') if i else part
            parts[i] = part.rstrip(' ') if i < last else part
    return ''.join(parts)


def basic_clean(text):
    """The filter chain of the source document, to compare with ours: the text or None. It joins all lines, so
    no program survives it; the share of different words falls with length, so it drops Shakespeare."""
    text = re.sub(r'\s+', ' ', fix_mojibake(text)).strip()
    words = text.split()
    if len(text) < 200 or len(set(words)) / len(words) < 0.3:
        return None
    letters = sum(c.isalpha() for c in text)
    return text if letters / len(text) >= 0.6 else None


NOTICE = re.compile(r'copyright|licen[cs]e|all rights reserved', re.I)
FIRST_LINES = re.compile(r'#!.*\n(?:#.*coding[:=].*\n)?|#.*coding[:=].*\n')       # they must stay first
COMMENT = re.compile(r'\s*(?:#[^\n]*(?:\n|$)[^\S\n]*)+')


def without_licence(text):
    """Python without the comment at its top, if that is a licence or copyright notice."""
    first = FIRST_LINES.match(text)
    start = first.end() if first else 0
    comment = COMMENT.match(text, start)
    if not comment or not NOTICE.search(comment[0]):
        return text
    return text[:start] + text[comment.end():].lstrip('\n')


# --- personal data ------------------------------------------------------------------------------------------
TLD = ('com|org|net|edu|gov|mil|int|info|biz|name|dev|app|io|ai|co|me|tv|eu|uk|us|ca|au|nz|de|at|ch|fr|be|nl|'
       'lu|it|es|pt|ie|dk|se|no|fi|is|pl|cz|sk|hu|ro|bg|gr|tr|ru|ua|by|lt|lv|ee|hr|si|rs|il|ir|in|pk|bd|lk|'
       'cn|hk|tw|jp|kr|sg|my|th|vn|id|ph|za|ng|ke|eg|ma|br|ar|cl|mx|pe|uy')
EMAIL = re.compile(r'(?<![\w.%+-])[\w%+-][\w.%+-]{0,63}@(?!self\.)(?:[A-Za-z0-9-]{1,63}\.){1,5}'
                   rf'(?:{TLD}|COM|ORG|NET|EDU)\b(?![\w(-]|\.\w)')
NOBODY = re.compile(        # RFC 2606's, and the user of all repositories
    r'@(?:[\w-]+\.)*(?:example\.(?:com|org|net|edu)|test|invalid|localhost)$|^git@', re.I)
PHONE = re.compile(         # international, in groups; of North America; international, all digits together
    r'(?<![\w.+/=#-])(?!\+\d{4}-\d\d-\d\d\b)(?:'
    r'\+[1-9]\d{0,2}[ .-]?(?:\(0?\d{1,4}\)[ .-]?)?\d{1,5}(?:(?:[ -]\d{2,8}){1,4}|(?:\.\d{2,8}){2,4})|'
    r'(?:1[ -])?(?:\([2-9]\d\d\) ?|[2-9]\d\d-)[2-9]\d\d-\d{4}|[2-9]\d\d\.[2-9]\d\d\.\d{4}|'
    r'\+[1-9]\d{9,13})(?![\w=-]|\.\d)')
SSN = re.compile(r'(?<![\w.+-])(?!000|666|9\d\d)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\w-]|\.\d)')
KEY_SIGNS = ('AKIA', 'ASIA', 'ghp_', 'gho_', 'ghs_', 'ghr_', 'ghu_', 'github_pat_', 'xox', 'AIza', 'hf_',
             'sk-', 'sk_live_', 'rk_live_', 'eyJ', 'PRIVATE KEY', 'glpat-', 'npm_', 'pypi-')
KEY = re.compile(
    r'-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----(?:\s|\\[nr]|["\'+,]|[\w-]+: [^\n]*\n)*'
    r'[A-Za-z0-9+/]{40}[^-]*(?:-----END (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----)?|'
    r'\b(?:A[KS]IA[0-9A-Z]{16}|gh[oprsu]_[A-Za-z0-9]{36}|github_pat_\w{60,90}|hf_[A-Za-z]{30,40}|'
    r'xox[abeprs]-[A-Za-z0-9-]{20,250}|AIza[\w-]{35}|sk-(?=[A-Za-z_-]{0,60}\d)[A-Za-z0-9_-]{32,250}|'
    r'[rs]k_live_[A-Za-z0-9]{20,}|glpat-[\w-]{20}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,}|'
    r'eyJ[\w-]{10,500}\.eyJ[\w-]{10,}\.[\w-]{10,})(?![\w-])')
NUMBERS = re.compile(r'[+(\d][\d ().-]{6,}\d')      # fast to look for, and without it no phone, no SSN
ASSIGNED = re.compile(r'(?i)(?:api_?key|secret(?:_?key)?|access_?token|auth_?token|password|passwd)["\']?'
                      r'\s*[:=]\s*["\']([A-Za-z0-9+/=_\-.!@#$%^&*]{16,200})["\']')


def hide_pii(text):
    """Replace personal data and keys by <EMAIL>, <PHONE>, <SSN>, <KEY>. -> the text and {kind: how many}.
    Versions, dates, IP addresses, hashes, example domains stay, and names: to find those takes a model."""
    hits = collections.Counter()

    def hide(kind, pattern, stays=lambda value: False):
        def placeholder(m):
            value = m[m.lastindex or 0]         # of a pattern with a group, only the group
            if stays(value):
                return m[0]
            hits[kind] += 1
            return m[0].replace(value, f'<{kind.upper()}>')
        return pattern.sub(placeholder, text)
    if any(sign in text for sign in KEY_SIGNS):         # fast, and most texts hold nothing
        text = hide('key', KEY)
    lower = text.lower()
    if any(word in lower for word in ('api', 'secret', 'token', 'passw')):
        text = hide('key', ASSIGNED, not_random)
    if '@' in text:
        text = hide('email', EMAIL, NOBODY.search)
    if NUMBERS.search(text):
        text = hide('ssn', SSN)
        text = hide('phone', PHONE, lambda value: not 8 <= sum(c.isdigit() for c in value) <= 15)
    return text, dict(hits)


def not_random(value):
    """password = 'correct horse' is prose; a key has digits and 3.5 bits a character or more."""
    shares = [n / len(value) for n in collections.Counter(value).values()]
    return -sum(p * math.log2(p) for p in shares) < 3.5 or not re.search(r'\d', value)


def forms(texts):
    """Yield each text as it is, and in the forms that cleaning may give it within a document."""
    for text in texts:
        within_latex = r'\emph{} ' + text        # within LaTeX, every text loses its commands
        found = {text, normalise(text, 'chat'), normalise(text, 'prose'), normalise(within_latex, 'prose')}
        yield from found | {hide_pii(form)[0] for form in found}
