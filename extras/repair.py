"""
Prose as it was meant: letters that were decoded wrongly, and LaTeX. prepare.py opens this file when
it is there; without it, such texts stay as they are.

    fix_mojibake('it\\u00e2\\u20ac\\u2122s')         # 'it’s': UTF-8 that was read as cp1252
    strip_latex('An \\\\emph{old} mill')              # 'An old mill'
"""
import collections, re

# --- mojibake -------------------------------------------------------------------------------------
# A lead byte (C2-F4) and one to three continuation bytes (80-BF) became characters that seldom meet
# in texts.
CLOSING = set('\u00a0 ’‘”“…–—»«›‹΄')    # these do follow letters, so alone they prove nothing
# Letters that end words more often than Â and Ã may have these after them, so they prove nothing,
# either.
MARKS = CLOSING | set('®™°²³´')
# nor does what people write after some letters: VÝŠKA, „víš…“, liberté¹, på ½, 4×½, 2×£5
NATURAL = {**dict.fromkeys('ÉÍÓÔÚÝàáäåæçèéêëìíîï', set('ŠŽšž¹¼½¾')),
           **dict.fromkeys('×Ø', set('¼½¾£¥'))}


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
    harmless = {old: CLOSING if old[0] in USUAL else MARKS | NATURAL.get(old[0], set())
                for old in meant}
    sure = collections.Counter(old[0] for old in meant if {*old[1:]} - harmless[old])
    # é, ·, quotes and emoji begin with a usual letter; others need more evidence, or all of it
    evidence = USUAL & set(sure) or sure.total() > 1
    everything = evidence and pattern.sub(lambda m: '' if m[0] in meant else m[0], text).isascii()

    def repaired(match):
        old = match[0]
        enough = 1 if old[0] in USUAL else 2
        return meant.get(old, old) if everything or sure[old[0]] >= enough else old
    return pattern.sub(repaired, text)


# --- LaTeX ----------------------------------------------------------------------------------------
LATEX_SIGN = re.compile(r'\\(?:begin\{|documentclass|(?:sub)*section\*?\{|usepackage|cite\w*\{|'
                        r'emph\{|textbf\{)')
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
    text = re.sub(r'(?<!\\)[${}]', '', text)
    text = re.sub(r'\\([%&$#_{}])', r'\1', text)       # \% -> %
    return text.replace('~', ' ')
