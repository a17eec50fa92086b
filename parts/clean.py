"""
Cleaning text: what is done to a document, and what speaks against keeping it.

    normalise('caf\\u0065\\u0301  \\u00e2\\u20ac\\u201dA&amp;B', 'prose')   # 'café —A&B'
    code_reason('import os\\n' * 9)                  # 'no keywords': a reason to drop it, or None
    prose_reason('buy buy buy buy buy ...')         # 'repetitive'
    hide_pii('mail to ann@uni.edu')                 # ('mail to <EMAIL>', {'email': 1})
    Classifier.languages().predict('Wie geht es dir heute?')    # {'de': 0.31, 'nl': 0.17, 'en': 0.09, ...}

Pure functions and two small models (an n-gram model for perplexity, a linear classifier for quality and for
languages), in the order in which prepare.py applies them. A rule that fits in a sentence belongs here; what
takes a paragraph belongs in the evaluation, where it can be argued about.

Every filter also removes good documents, and it removes some people's documents more often than others'.
So none is silent: each returns its reason, and prepare.py reports examples and the words that vanished.

Copy this file alone: it needs numpy.
"""
import collections, html, math, re, unicodedata, urllib.parse, warnings
import numpy as np

# --- normalisation ------------------------------------------------------------------------------------------
# Mojibake: UTF-8 read as if it were an 8-bit encoding, so that every character beyond ASCII became two to
# four. A lead byte (C2-F4) is followed by one to three continuation bytes (80-BF), and what these look like
# in the wrong encoding is rare in writing: letters are not followed by ¼ or €.
CLOSING = set('\u00a0 ’‘”“…–—»«›‹΄')    # but these follow letters, so alone they prove nothing
MARKS = CLOSING | set('®™°²³´')         # nor do these, after letters that end words more often than Â and Ã


def byte_images(*encodings):
    """{character: byte} for bytes 80-FF, as these encodings show them; 80-9F may also have become control
    characters. If two encodings disagree about a character, the first one counts."""
    images = {bytes([b]).decode(encoding, 'ignore'): b for encoding in reversed(encodings)
              for b in range(0x80, 0x100)}
    images.pop('', None)
    return images | {chr(b): b for b in range(0x80, 0xA0)}


def utf8_pattern(images):
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
    """Undo UTF-8 that was read as cp1252, Latin-1 or cp1253, also twice, also if only parts are damaged, and
    cp1252 that was read as Latin-1. Where bytes were lost the damage stays, and what was never damaged stays
    as it is: a sequence that could be writing is changed only if the same document holds one with the same
    first letter that could not, or if then nothing outside ASCII is left unexplained."""
    if text.isascii():
        return text
    for _ in range(4):
        before = text
        for images, pattern in UTF8_AS:
            if images is GREEK and not any(sign in text for sign in ('β€', 'β\x80', 'Ξ²β‚¬')):
                continue                # no damaged quote or dash, so it may be Greek
            found = {old: new for old in set(pattern.findall(text))     # new is '' where it is no UTF-8
                     if (new := bytes(images[c] for c in old).decode('utf-8', 'ignore'))}
            sure = collections.Counter(old[0] for old in found
                                       if set(old[1:]) - (CLOSING if old[0] in USUAL else MARKS))
            # é, ·, quotes and emoji begin with a usual letter; others need more evidence, or all of it
            everything = (USUAL & set(sure) or sum(sure.values()) > 1) and pattern.sub(
                lambda m: '' if m[0] in found else m[0], text).isascii()
            change = {old: new for old, new in found.items()
                      if everything or sure[old[0]] >= (1 if old[0] in USUAL else 2)}
            if change:
                text = pattern.sub(lambda m: change.get(m[0], m[0]), text)
        if text == before:
            break
    return text.translate(C1_CONTROLS)


TAG_NAMES = ('a|abbr|article|aside|b|blockquote|body|br|button|center|cite|code|col|dd|div|dl|dt|em|figure|'
             'font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|label|li|link|main|meta|nav|ol|'
             'option|p|pre|s|section|select|small|span|strong|sub|sup|svg|table|tbody|td|textarea|tfoot|th|'
             'thead|title|tr|tt|u|ul|video')
# what has no end stays, and is matched to the text's end, so that nobody looks for its end again and again
HIDDEN = [re.compile(f'{start}(?:.*?{end}|(.*))', re.S | re.I) for start, end in [('<!--', '-->')] + [
    (rf'<{name}\b[^<>]*>', rf'</{name}\s*>') for name in ('script', 'style', 'noscript')]]
BLOCK = re.compile(r'</?(?:br|p|div|h[1-6]|li|ul|ol|tr|table|section|article|blockquote|pre|hr)\b[^<>]*>',
                   re.I)
TAG = re.compile(rf'</?(?:{TAG_NAMES})(?:\s[^<>]*)?/?>|<!doctype[^<>]*>', re.I)
ENTITY = re.compile(r'&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});')


def strip_html(text):
    """Without HTML tags, comments, scripts and styles, entities decoded. Only real tag names count: `a < b`,
    `<stdio.h>` and `<EMAIL>` stay."""
    if TAG.search(text):
        for pattern in HIDDEN:
            text = pattern.sub(lambda m: ' ' if m[1] is None else m[0], text)
        text = TAG.sub('', BLOCK.sub('\n', text))
    return ENTITY.sub(lambda m: html.unescape(m[0]), text)


LATEX_SIGN = re.compile(r'\\(?:begin\{|documentclass|(?:sub)*section\*?\{|usepackage|cite\w*\{|emph\{|'
                        r'textbf\{)')
LATEX_RULES = [(re.compile(pattern, re.S), new) for pattern, new in (
    (r'(?<!\\)%[^\n]*', ''),                                                        # comments
    (r'\\begin\{thebibliography\}.*?(?:\\end\{thebibliography\}|\Z)', ' '),
    (r'\\begin\{(equation|align|gather|eqnarray|figure|table|tabular|tikzpicture)(\*?)\}'
     r'.{0,10000}?\\end\{\1\2\}', ' '),                 # bounded: where many ends are missing, it takes long
    (r'\$\$.*?\$\$|\\\[.{0,2000}?\\\]', ' '),                                       # displayed formulas
    (r'\\(?:documentclass|usepackage|begin|end|label|ref|eqref|cite\w*|input|bibliography\w*|'
     r'includegraphics|[vh]space)\*?(?:\[[^][]*\])?(?:\{[^{}]*\})?', ''),
    (r'\\item\b ?', '- '))]
LATEX_COMMAND = re.compile(r'\\[A-Za-z]+\*?(?:\[[^][]*\])?\{([^{}]*)\}')       # \emph{word} -> word


def strip_latex(text):
    """The words of a LaTeX document: commands unwrapped, displayed mathematics, tables and comments removed.
    Text without LaTeX commands stays as it is."""
    if not LATEX_SIGN.search(text):
        return text
    for pattern, new in LATEX_RULES:
        text = pattern.sub(new, text)
    for _ in range(10):         # commands in commands
        text = LATEX_COMMAND.sub(r'\1', text)
    text = re.sub(r'\\[A-Za-z]+\s?', '', text)
    return re.sub(r'\\([%&$#_{}])', r'\1', re.sub(r'(?<!\\)\$|(?<!\\)[{}]', '', text)).replace('~', ' ')


LINE_END = re.compile('[\x0b\x0c\x1c-\x1e\u2028\u2029]')      # vertical tab, new page, separators
CONTROL = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u2060\ufeff\ufff9-\ufffb]')
PILE = re.compile('([\u0300-\u036f]{30})[\u0300-\u036f]+')      # accents on a letter, which NFC sorts slowly
SURROGATE = re.compile('[\ud800-\udfff]')


def normalise(text, mode, markup=True):
    """A document in one form. Code is touched only where Python sees no difference: its byte order mark goes
    and its lines end in a newline. Prose: mojibake repaired, HTML and LaTeX stripped unless markup is False,
    Unicode composed (NFC), control characters gone, runs of blanks become one, of empty lines one. Between
    ``` fences of Markdown, blanks stay. Chat: as prose, but markup and blanks stay. Raw: nothing."""
    text = SURROGATE.sub('\ufffd', text)        # half of a pair, from JSON: no encoding has it
    if mode == 'raw':
        return text
    text = text.removeprefix('\ufeff').replace('\r\n', '\n').replace('\r', '\n')
    if mode == 'code':
        return text
    text = fix_mojibake(text)
    if markup and mode == 'prose':
        text = strip_latex(strip_html(text))
    while (plain := unicodedata.normalize(
            'NFC', PILE.sub(r'\1', CONTROL.sub('', LINE_END.sub('\n', text))))) != text:
        text = fix_mojibake(plain)      # what went may have parted the bytes of a character
    if mode == 'chat':
        return text
    parts = text.split('```')
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r'[^\S\n]+', ' ', parts[i])
        parts[i] = re.sub(r' ?\n ?', '\n', parts[i])
        parts[i] = re.sub(r'\n{3,}', '\n\n', parts[i])
    return '```'.join(parts).strip()


def basic_clean(text):
    """The filter chain of the source document, rule for rule, to compare with: the text or None. It joins all
    lines, so no program survives it, and as a text grows its share of different words falls: it drops
    Shakespeare. normalise and prose_reason are what to use."""
    text = re.sub(r'\s+', ' ', fix_mojibake(text)).strip()
    words = text.split()
    good = len(text) >= 200 and len(set(words)) / len(words) >= 0.3 and \
        sum(c.isalpha() for c in text) / len(text) >= 0.6
    return text if good else None


# --- rules for prose ----------------------------------------------------------------------------------------
ODD_WORD = re.compile(r'\w*[^aeiouyàáâãäåæèéêëìíîïòóôõöøùúûüýœ\W\d_]{6}|\w*[^\W\d_]\d+[^\W\d_]\w*\d|\w{31}',
                      re.I)


def symbol_share(text):
    """Share of the visible characters that are neither letters nor digits nor marks of a script (vowel signs
    are part of writing in Devanagari or Thai)."""
    visible = [c for c in text if not c.isspace()]
    plain = sum(c.isalnum() or (c > '\u02ff' and unicodedata.category(c)[0] == 'M') for c in visible)
    return 1 - plain / max(1, len(visible))


def repetition(text, window=200):
    """How much of a text repeats itself, 0 to 1, whatever its length: the larger of the share of its lines
    that stand elsewhere in it too, and of the words repeated within windows of 200 words, averaged. The plain
    share of repeated words grows with length: 0.87 for all of Tiny Shakespeare, 0.3 for 200 words of it."""
    words = text.lower().split()
    windows = [words[i:i + window] for i in range(0, max(1, len(words) - window // 2), window)]
    in_windows = sum(1 - len(set(w)) / max(1, len(w)) for w in windows) / len(windows)
    lines = [line.strip() for line in text.split('\n') if line.strip()]
    in_lines = 1 - len(set(lines)) / max(1, len(lines)) if len(lines) >= 5 else 0.0
    return max(in_windows, in_lines)


def gibberish(text):
    """Share of the words in Latin script that no language would spell: six consonants in a row, letters and
    digits by turns, more than 30 letters."""
    words = re.findall(r'[A-Za-z0-9À-ÿ]{2,}', text)
    return sum(bool(ODD_WORD.match(w)) for w in words) / max(1, len(words))


def prose_reason(text, min_words=20, max_words=1_000_000, max_symbols=0.3, max_repetition=0.7,
                 max_gibberish=0.2):
    """Why a text is not worth learning from, or None."""
    words = len(text.split())
    if not text.isascii():              # scripts without spaces: about two characters make a word
        words = max(words, sum(c > '\u0e00' for c in text) // 2)
    head = text[:100_000]               # enough to judge by
    return ('short' if words < min_words else
            'long' if words > max_words else
            'symbols' if symbol_share(head) > max_symbols else
            'repetitive' if repetition(head) > max_repetition else
            'gibberish' if gibberish(head) > max_gibberish else None)


# --- rules for code: CodeParrot's, with its numbers ---------------------------------------------------------
GENERATED = re.compile(r'auto-?generated|automatically generated|generated (?:from|by|with|using)\b|'
                       r'do not edit\b', re.I)
CONFIG_OR_TEST = re.compile(r'unit tests?|test file|configuration file', re.I)
KEYWORD = re.compile(r'\b(?:def|class|for|while)\b')
ALNUM = np.array([chr(b).isalnum() or b >= 128 for b in range(256)])


def code_reason(text, chance=0.0, max_line=1000, mean_line=100, min_alphanumeric=0.25, autogenerated=True,
                config_test=0.7, no_keywords=0.7, min_assignments=5, parse=True):
    """Why a Python file is not worth learning from, or None. config_test and no_keywords are probabilities:
    such files are dropped often, not always; chance, in [0, 1), decides, and should come from the text."""
    lines = text.split('\n')
    head = '\n'.join(lines[:5])
    often = max(text.count('config'), text.count('test')) > 0.05 * len(lines)
    data = np.frombuffer(text.encode('utf-8', 'surrogatepass'), np.uint8)
    return ('binary' if '\0' in text else
            'long line' if max(map(len, lines)) > max_line else
            'long lines' if sum(map(len, lines)) / len(lines) > mean_line else
            'few letters' if ALNUM[data].mean() < min_alphanumeric else
            'autogenerated' if autogenerated and GENERATED.search(head) else
            'config or test' if chance < config_test and (often or CONFIG_OR_TEST.search(head)) else
            'no keywords' if chance < no_keywords and not KEYWORD.search(text) else
            'few assignments' if text.count('=') < min_assignments else
            'does not parse' if parse and not parses(text) else None)


def parses(text):
    """Whether Python can compile a text. (ast.parse accepts a `return` outside a function, and is slower.)"""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            compile(text, '<document>', 'exec', dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
            return False
    return True


LICENCES = [(name, re.compile(pattern, re.I)) for name, pattern in (
    ('agpl', r'GNU Affero General Public|\bAGPL'), ('lgpl', r'GNU (?:Lesser|Library) General Public|\bLGPL'),
    ('gpl', r'GNU General Public|\bGPL'), ('apache-2.0', r'Apache License|\bApache-2\.0'),
    ('mpl-2.0', r'Mozilla Public Licen[cs]e|\bMPL-2'),
    ('psf', r'PSF License|Python Software Foundation License'),
    ('bsd', r'\bBSD\b|Redistribution and use in source and binary'),
    ('mit', r'\bMIT\b|Permission is hereby granted, free of charge'),
    ('cc', r'Creative Commons|\bCC[- ]BY'), ('public domain', r'public domain|\bCC0\b|Unlicense'))]
NOTICE = re.compile(r'copyright|licen[cs]e|all rights reserved', re.I)


def licence(text):
    """The licence that the first 50 lines name, or 'unknown'."""
    head = '\n'.join(text.split('\n', 50)[:50])
    return next((name for name, pattern in LICENCES if pattern.search(head)), 'unknown')


def strip_licence(text):
    """Without the comment at the top if that is a licence or copyright notice: models love to recite them."""
    shebang = re.match(r'#!.*\n(?:#.*coding[:=].*\n)?|#.*coding[:=].*\n', text)
    start = shebang.end() if shebang else 0
    comment = re.compile(r'\s*(?:#[^\n]*(?:\n|$)[^\S\n]*)+').match(text, start)
    return text[:start] + text[comment.end():].lstrip('\n') if comment and NOTICE.search(comment[0]) else text


# --- addresses and words ------------------------------------------------------------------------------------
SPAM_WORDS = re.compile(r'(?:^|[.\-])(?:xxx|sex|escort|casino|poker|betting|viagra|cialis|pills|payday|'
                        r'torrent|warez|crack|keygen)s?(?=$|[.\-])|porn')


def url_reason(url, blocked=(), allowed=()):
    """Why an address is not worth reading, or None. blocked and allowed are sets of domains, which cover
    their subdomains; allowed wins. Words count only as whole parts of a name: essex.ac.uk is a university."""
    try:
        host = urllib.parse.urlsplit(url if '//' in url else f'//{url}').hostname or ''
    except ValueError:                  # '[' without ']'
        return 'no address'
    host = host.rstrip('.').removeprefix('www.')
    parts = host.split('.')
    domains = {'.'.join(parts[i:]) for i in range(len(parts))}
    return (None if domains & set(allowed) else
            'blocked domain' if domains & set(blocked) else
            'spam domain' if SPAM_WORDS.search(host) else None)


def toxic_words(text, words):
    """{word: count} of the given lower-case words in a text. A list knows no context: look at what it
    removes."""
    found = re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", text.lower())
    return collections.Counter(word for word in found if word in words)


# --- personal data ------------------------------------------------------------------------------------------
TLD = ('com|org|net|edu|gov|mil|int|info|biz|name|dev|app|io|ai|co|me|tv|eu|uk|us|ca|au|nz|de|at|ch|fr|be|nl|'
       'lu|it|es|pt|ie|dk|se|no|fi|is|pl|cz|sk|hu|ro|bg|gr|tr|ru|ua|by|lt|lv|ee|hr|si|rs|il|ir|in|pk|bd|lk|cn|'
       'hk|tw|jp|kr|sg|my|th|vn|id|ph|za|ng|ke|eg|ma|br|ar|cl|mx|pe|uy')
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


def entropy(text):
    """Bits per character of a string's own characters: 'aaaa' 0, random base64 about 4.5 or more."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in collections.Counter(text).values())


def hide_pii(text):
    """Personal data and keys replaced by <EMAIL>, <PHONE>, <SSN>, <KEY>; returns the text and {kind: how
    many}. Versions, dates, IP addresses, hashes and the domains reserved for examples stay."""
    hits, lower = collections.Counter(), text.lower()

    def hide(kind, keep=lambda value: False):
        def replace(m):
            value = m[m.lastindex or 0]         # of a pattern with a group, only that
            if keep(value):
                return m[0]
            hits[kind] += 1
            return m[0].replace(value, f'<{kind.upper()}>')
        return replace

    if any(sign in text for sign in KEY_SIGNS):
        text = KEY.sub(hide('key'), text)
    if any(word in lower for word in ('api', 'secret', 'token', 'passw')):
        # password = 'correct horse' is prose; a value without order in it is a key
        text = ASSIGNED.sub(hide('key', lambda s: entropy(s) < 3.5 or not re.search(r'\d', s)), text)
    if '@' in text:
        text = EMAIL.sub(hide('email', NOBODY.search), text)
    if NUMBERS.search(text):
        text = SSN.sub(hide('ssn'), text)
        text = PHONE.sub(hide('phone', lambda s: not 8 <= sum(c.isdigit() for c in s) <= 15), text)
    return text, dict(hits)


# --- rules for conversations and preferences ----------------------------------------------------------------


def messages_reason(messages, parse=True, min_answer=1):
    """Why a conversation is not worth learning from, or None."""
    roles = [m['role'] for m in messages if m['role'] != 'system']
    answers = [m['content'] for m in messages if m['role'] == 'assistant']
    in_turn = roles[:1] == ['user'] and all(a != b or b == 'tool' for a, b in zip(roles, roles[1:]))
    programs = [code for code in re.findall(r'```(?:python|py)\n(.*?)```', '\n'.join(answers), re.S)
                if '>>>' not in code]
    return ('no answer' if not answers else
            'roles do not alternate' if not in_turn else
            'empty answer' if any(len(answer.strip()) < min_answer for answer in answers) else
            'empty message' if not all(m['content'].strip() for m in messages) else
            'code does not parse' if parse and not all(map(parses, programs)) else None)


def preference_reason(pair, min_margin=0.0, min_agreement=0.0):
    """Why a preference is not worth learning from, or None. Pairs that say nothing about margin or agreement
    are kept."""
    chosen, rejected = pair['chosen'].strip(), pair['rejected'].strip()
    return ('empty answer' if not chosen or not rejected else
            'equal answers' if chosen == rejected else
            'small margin' if pair.get('margin', math.inf) < min_margin else
            'little agreement' if pair.get('agreement', math.inf) < min_agreement else None)


# --- two small models over byte n-grams ---------------------------------------------------------------------


def byte_ngrams(text, n, buckets):
    """The byte n-grams of a text, hashed into range(buckets), int64 (len - n + 1,)."""
    data = np.frombuffer(text.encode('utf-8', 'surrogatepass'), np.uint8).astype(np.uint64)
    h = np.full(max(0, len(data) - n + 1), np.uint64(n))
    for i in range(n):
        h = (h ^ data[i:i + len(h)]) * np.uint64(0x9E3779B97F4A7C15)
        h ^= h >> np.uint64(29)
    return (h % np.uint64(buckets)).astype(np.int64)


class NgramModel:
    """How surprising a text is: bits per byte under counts of byte n-grams of a reference text. Few bits are
    boilerplate and stock phrases, many are noise or another language; both ends are worth cutting. (What only
    the text itself repeats is no less surprising for it: that is for repetition() to find.)

    An n-gram's probability is mixed with that of the (n-1)-gram, weighted by how often its context was seen:
    p_n = (count + a p_(n-1)) / (context count + a), a Dirichlet prior (MacKay & Peto 1995); p_0 is 1/256."""

    def __init__(self, order=6, buckets=1 << 21):
        self.order, self.buckets = order, buckets
        self.counts = np.zeros((order + 1, buckets), np.uint32)

    def add(self, text):
        for n in range(1, self.order + 1):
            np.add.at(self.counts[n], byte_ngrams(text, n, self.buckets), np.uint32(1))
        self.counts[0, 0] += len(text.encode('utf-8', 'surrogatepass'))

    def bits_per_byte(self, text, a=4.0):
        """Mean bits of a text's bytes, each predicted from the order - 1 before it."""
        size = len(text.encode('utf-8', 'surrogatepass'))
        p = np.full(size, 1 / 256)
        for n in range(1, self.order + 1):
            count = self.counts[n][byte_ngrams(text, n, self.buckets)]
            context = self.counts[n - 1][byte_ngrams(text, n - 1, self.buckets)[:len(count)] if n > 1 else 0]
            p[n - 1:] = (count + a * p[n - 1:]) / (np.maximum(context, count) + a)
        return float(-np.log2(p).mean()) if size else 0.0


class Classifier:
    """A linear classifier over the byte 1- to 4-grams of a text, as fastText's (Joulin et al. 2016) is over
    words: multinomial logistic regression on hashed n-grams. For quality, train it on texts like those you
    want and texts like those you do not.

    model = Classifier.train([(text, 'good'), (text, 'bad'), ...]); model.predict(text)['good']"""

    def __init__(self, labels, weights):
        self.labels, self.weights = labels, weights         # weights (labels, buckets)

    @staticmethod
    def features(text, buckets):
        """The ids of the n-grams of the text's first 4,000 characters and their values; the values' squares
        add up to 1, and a frequent n-gram counts with the root of its count."""
        text = ' ' + text[:4000].lower() + ' '
        ids = np.concatenate([byte_ngrams(text, n, buckets) for n in (1, 2, 3, 4)])
        ids, counts = np.unique(ids, return_counts=True)
        values = np.sqrt(counts)
        return ids, values / np.linalg.norm(values)

    @classmethod
    def train(cls, examples, epochs=5, learning_rate=2.0, buckets=1 << 17):
        """Stochastic gradient descent over (text, label) pairs, in an order that depends on nothing else."""
        examples = list(examples)
        labels = sorted({label for _, label in examples})
        if len(labels) < 2:
            raise ValueError(f'a classifier needs examples of at least two labels, not of {labels}')
        data = [(cls.features(text, buckets), labels.index(label)) for text, label in examples]
        model = cls(labels, np.zeros((len(labels), buckets), np.float32))
        share = np.bincount([y for _, y in data]) / len(data) * len(labels)     # rare labels count as much
        rng = np.random.default_rng(0)
        for epoch in range(epochs):
            for i in rng.permutation(len(data)):
                (ids, values), y = data[i]
                error = model.probabilities(ids, values)
                error[y] -= 1
                step = learning_rate * (1 - epoch / epochs) / share[y]
                model.weights[:, ids] -= step * error[:, None] * values
        return model

    def probabilities(self, ids, values):
        scores = self.weights[:, ids] @ values
        p = np.exp(scores - scores.max())
        return p / p.sum()

    def predict(self, text):
        """{label: probability}"""
        ids, values = self.features(text, self.weights.shape[1])
        return dict(zip(self.labels, self.probabilities(ids, values).tolist()))

    @classmethod
    def languages(cls):
        """A classifier of the languages in WORDS, trained here, in a second, from nothing but those words:
        sentences that never were, with frequent words in them frequent."""
        rng = np.random.default_rng(0)
        examples = []
        for label, words in WORDS.items():
            words = words.split()
            p = 1 / (np.arange(len(words)) + 30)
            examples += [(' '.join(rng.choice(words, 12, p=p / p.sum())), label) for _ in range(30)]
        return cls.train(examples, epochs=4, buckets=1 << 15)


# A language shows in its smallest words. By frequency, most frequent first.
WORDS = {
    'ar': 'في من على إلى أن عن التي الذي مع هذا هذه كان ما لا كل بين بعد قد ذلك لم أو هو هي كما وقد حيث '
          'غير',
    'bg': 'на и в се да за от е не са с по че като до към при или който която което има може бъде този '
          'тази със където ще си му ги вече така още само които това тези няма след през защото',
    'bn': 'এবং এই করে থেকে হয় না যে জন্য একটি তার কোন করা আছে বা সাথে তাদের হবে ও কি আমি',
    'cs': 'a v se na je že s z do o k i jako po za by pro ale jsou má být nebo které který aby jeho při '
          'však jejich může před než tím proti není jsem jsme byl byla ještě tak když velmi mezi své',
    'da': 'og i at det er en til af på for der de med ikke den som har et eller han var fra ved sin skal '
          'hvad blive nogen hans noget mellem selv ud nu meget mod efter også jeg deres kun denne vi hun '
          'os være været havde blev når hvor skulle kunne alle over vores mig',
    'de': 'der die und in zu den das nicht von sie ist des sich mit dem dass er es ein ich auf so eine '
          'auch als an nach wie im für man aber aus durch wenn nur war noch werden bei hat wir was wird '
          'sein einen über einer haben oder um vor dir mir uns sind kann',
    'el': 'και το να του η της με που την από για είναι ο οι στο τα σε δεν των θα ή στην αυτό όπως μια '
          'ένα',
    'en': 'the of and to in a is that for it was on with as be he by at this not are from or have an they '
          'but which you we his had were her she there been has their would what will if who so can more '
          'about out them then some when up no do my than into could our',
    'es': 'de la que el en y a los se del las un por con no una su para es al lo como más o pero sus le '
          'ha todo entre cuando muy desde nos durante uno ni contra otros ese eso había ser son dos '
          'también fue hasta hay donde',
    'fa': 'و در به از که این را با است برای آن یک خود تا کرد بر هم نیز شد می باشد یا های ما شود اند او',
    'fi': 'ja on ei että se hän oli ovat kun mutta niin kuin tai myös joka sen mukaan hänen olla minä ole '
          'me te he sitä tämä jos vain nyt mitä olen siitä kuinka mikä tässä ollut olisi niitä',
    'fr': 'de la le et les des en un une du que est dans qui par pour au ne sur se pas plus à ce il sont '
          'nous vous mais elle on ont leur cette ces même avec tout comme être fait aussi son sa ses sans '
          'où été avait était je si quand deux',
    'he': 'של את על לא כל הוא זה עם או גם אל בין כי היא אם יש אשר לו היה כדי ללא אני מה רק הם אך',
    'hi': 'के का में की है और से को पर इस यह कि जो एक भी ने तो किया नहीं या हैं करने लिए अपने हो था',
    'hu': 'a az és hogy nem is egy ez vagy meg de volt csak már mint kell azt ha akár még sem el olyan kik '
          'ki mi én ő lehet után ilyen más minden most így akkor vagyok nagyon mert amikor ott',
    'hy': 'և է որ են ու ի իր մեջ համար այդ ոչ կամ մի այս չի նա եմ ինչ բայց մենք պետք',
    'id': 'yang dan di dengan untuk dari ini tidak itu dalam pada adalah akan atau oleh atas ke juga saya '
          'kami kita mereka dia anda sudah telah bisa ada seperti karena lebih tetapi ketika belum',
    'it': 'di e che la il un a per in una non sono del si è le con i da come dei nel alla più o anche ma '
          'ha nella delle dal gli questo stato essere ed tra suo loro degli hanno cui tutti lo sua',
    'ja': 'の は を に が と で て いる する こと れ この その です ます ない から も へ よう した 人 という',
    'ka': 'და არის რომ არ ეს ის თუ ან მისი მათ იყო როგორც უნდა მე რა მაგრამ ამ ყველა',
    'ko': '이 그 및 의 에 를 은 는 가 있다 또는 하는 것 수 한 그리고 나는 에서 으로 대한 입니다',
    'nl': 'de van het een en in is dat op te zijn met voor niet die aan er om ook als dan maar bij uit nog '
          'heeft hebben had was werd wordt zich hij ze wij we ik je deze dit geen wel kan zou meer naar '
          'over tot nu hun mijn',
    'no': 'og i det er en til av på for som de med ikke at den har et eller han var fra ved sin skal kan '
          'hva bli noen hans noe mellom selv ut nå mot etter også jeg deres bare denne være seg vi hun oss '
          'vært hadde ble når hvor skulle kunne alle over våre meg',
    'pl': 'i w na z do się nie jest to że a o jak od po za co dla przez ale oraz są lub jego tego być może '
          'już tylko tak był była było kiedy mnie go ich jej ten ta tym nas czy sobie',
    'pt': 'de a o que e do da em um para é com não uma os no se na por mais as dos como mas foi ao ele '
          'das entre quando muito desde nos uno nem contra outros esse isso havia ser são também até há '
          'onde pelo pela',
    'ro': 'de și în a la cu nu că o din pe este sau care un se mai al fi pentru ce are ca sa prin dar le '
          'între când foarte sunt ei ele acest această asupra către fără după toate ori lui său',
    'ru': 'и в не на что я он с как это по но к из за у от его все она так же о бы для мы только был или '
          'быть чтобы которые вы были этот эти их также уже если когда во со них чем этого может была ещё',
    'sk': 'a v sa na je že s z do o k aj ako po za by pre ale sú má byť alebo ktoré ktorý aby jeho pri '
          'však jej iba môže ich tým proti všetky ktorá nie bol bola tak keď veľmi medzi svoje',
    'sv': 'och i att det som en på är av för med till den har de inte om ett han var jag men sig från vi '
          'så vad bli någon hans något mellan själv ut nu mycket mot efter bara denna vara vid deras sina',
    'ta': 'மற்றும் ஒரு இந்த என்று அல்லது எல்லா அவர் அது என்ன இல்லை உள்ள இருந்து அந்த',
    'te': 'మరియు ఒక ఈ లేదా ఆ అని కాదు ఉంది వారి కలిగి తన నేను యొక్క కొరకు',
    'th': 'และ ใน ที่ การ ของ เป็น ได้ ให้ มี จะ ไม่ ความ คน หรือ ตาม โดย ต่อ กับ จาก นี้ ซึ่ง อะไร',
    'tr': 've bir bu da de için ile çok ne o her olarak var gibi olan en daha veya ya kadar sonra ben ama',
    'uk': 'і в на не що з та до як за це для від або його він у про є при бути які але ми якщо всі також '
          'тільки вже коли вона був була були їх її цього може щоб вони ще',
    'vi': 'và của là có trong cho không được với các một người những đã này để khi về từ như đều hay tôi',
    'zh': '的 一 是 在 不 了 有 人 和 我 这 中 大 为 上 个 国 以 要 他 时 来 们 或 我们 可以 没有'}
