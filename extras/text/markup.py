"""
Strip HTML and LaTeX markup and repair mojibake. clean.py applies this file to .html, .htm and .tex
files, or as --markup says, and repairs mojibake in all prose.

    strip_html('<p>10<sup>6</sup> cells &amp; <b>more</b>')     # '10^6 cells & more'
    strip_latex('An \\emph{old} mill in Stra{\\ss}e')           # 'An old mill in Straße'
    fix_mojibake('it\u00e2\u20ac\u2122s')                       # 'it’s': UTF-8 read as cp1252

The text inside all elements and commands is kept; formulas and URLs are kept as written. Code
listings become blocks between lines of ```, which clean.py does not change.
"""
import collections, html, re, unicodedata
import regex


def block(listing):
    """Return a listing between lines of ```. A single line, or a listing with ```, is unchanged."""
    listing = listing.strip('\n')
    return f'```\n{listing}\n```' if '\n' in listing and '```' not in listing else listing


# --- data -----------------------------------------------------------------------------------------
# a file embedded as a data URL, perhaps over several lines: ![](data:image/png;base64,iVBORw0K...)
# the last line ends with =, or has a multiple of four base64 characters with a digit
DATA = re.compile(r'data:[\w.+/-]*(?:;[\w.+-]+(?:=[\w."+-]+)?)*,(?:(?<=;base64,)'
                  r'[\w+/=%-]{40,}(?:\s+[\w+/=%-]{60,})*'
                  r'(?:\s+[\w+/%-]*={1,2}|\n[ \t]*(?=\S*\d)(?:[\w+/-]{4}){2,}(?![^\s)"\'>]))?|'
                  r'[^\s"\'<>()]{200,}|<svg\b(?:(?!data:).)*?</svg>)', re.I | re.S)


# the base64 lines of an attachment to a mail
ATTACHMENT = re.compile(r'^(?:[A-Za-z0-9+/]{60,76}\r?\n){3,}[A-Za-z0-9+/]*={0,2}(?=\r?$)', re.M)
# the header, numbers, times and tags of .srt and .vtt subtitles
CUES = re.compile(r'\AWEBVTT.*|^(?:\d+\r?\n)?[\d:.,]{9,} --> .*|</?(?:[biucv]|font)\b[^<>]*>', re.M)


def without_data(text):
    """Return a text without data URLs, such as embedded pictures, without base64 attachments of
    mail, and without the numbers, times and tags of subtitles."""
    text = DATA.sub('', text) if 'data:' in text.lower() else text
    text = ATTACHMENT.sub('', text) if 'base64' in text else text
    return CUES.sub('', text) if re.search(r':\d\d[,.]\d{3} --> ', text) else text


# --- HTML -----------------------------------------------------------------------------------------
# Regular expressions instead of html.parser, because each version of Python parses unclosed scripts
# and comments differently, so the corpus would depend on the version.
# An unclosed element is kept. It matches to the end of the text, so its end is searched only once.
HIDDEN = [re.compile(rf'{begin}(?:(?P<inner>.*?){end}|.*)', re.S | re.I) for begin, end in (
    ('<!--', '--!?>'), (r'<\?', r'\?>'),
    (r'<(script|style|noscript|template)\b[^<>]*>', r'</\1\s*>'))]
MATH = re.compile(r'<math\b(?:(?P<inner>.*?)</math\s*>|.*)', re.S | re.I)
# KaTeX and MathJax write a formula as MathML, and again for display as nested spans in a span with
# aria-hidden="true", which is removed. (?1) matches a nested span; an unclosed span is kept.
COPY = regex.compile(r'(?=<(?:span|nobr)\b[^<>]*\baria-hidden="true")(<(?:span|nobr)\b[^<>]*+>'
                     r'(?:[^<]++|<(?!/?(?:span|nobr)\b)|(?1))*+'
                     r'(?:</(?:span|nobr)\b[^<>]*+>?+|(?P<no_end>\Z)))', regex.I)
LISTING = re.compile(r'<pre\b[^<>]*>(.*?)(?:</pre\s*>|\Z)', re.S | re.I)
# A quoted value may contain > if its second quote ends the value; otherwise > ends the tag.
VALUE = '|'.join(rf'{q}[^{q}]*{q}(?=[\s/>])|{q}(?![^{q}]*{q}[\s/>])' for q in '"\'')
TAG = re.compile(r'<(/?)([a-z][a-z0-9-]*(?::[a-z][a-z0-9-]*)?)(?=[\s/>])'
                 rf'(?:[^"<\'>]|{VALUE}){{0,3000}}>|<![^<>]*>', re.I)
PARAGRAPHS = set('p div h1 h2 h3 h4 h5 h6 ul ol dl table section article aside header footer nav '
                 'main blockquote figure figcaption form fieldset hr title address details '
                 'summary legend caption center menu dir dialog search hgroup select'.split())
LINES = set('br li dt dd tr option optgroup button textarea'.split())
# with_powers() replaces \1 and \2 later
TAG_TEXT = {'td': '\t', 'th': '\t', 'sup': '\1', 'sub': '\2', 'wbr': '\u200b'}
# the pronunciation in <ruby>: 漢<rt>かん</rt> becomes 漢(かん)
RUBY = re.compile(r'<rp\b[^<>]*>[^<]*(?:</rp\s*>)?|<rt\b[^<>]*>((?:(?!</?r[tp]\b|</ruby)[^\0])*)'
                  r'(?:</rt\s*>)?', re.I)
ENTITY = re.compile(r'&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});')
TEX = re.compile(r'<annotation\b[^<>]*\b(?:la)?tex\b[^<>]*>([^<>]*)<|\balttext="([^"]*)"', re.I)


def strip_html(text):
    """Return the text of a page. Block elements break lines as in a browser, and white space is
    collapsed except in <pre>. 10<sup>6</sup> becomes 10^6, not 106, H<sub>2</sub>O becomes H2O."""
    for pattern in HIDDEN:
        text = pattern.sub(lambda m: m[0] if m['inner'] is None else '', text)
    if '<math' in text:
        text = COPY.sub(lambda m: '' if m['no_end'] is None else m[0], text)
    text = MATH.sub(formula, text)
    text = RUBY.sub(lambda m: f'({m[1]})' if m[1] else '', text)
    pieces = LISTING.split(text)                                # text, listing, text, ...
    for i, piece in enumerate(pieces):
        if i % 2:
            pieces[i] = block(TAG.sub(lambda m: text_of_tag(m, in_listing=True), piece))
        else:
            piece = TAG.sub(text_of_tag, re.sub(r'[ \t\r\n\f]+', ' ', piece))
            piece = re.sub(r'[ \t]*\n[ \t]*', '\n', re.sub(' +', ' ', piece))
            pieces[i] = re.sub(r'\n{3,}', '\n\n', piece).strip('\n')
    text = ENTITY.sub(lambda m: html.unescape(m[0]), '\n\n'.join(filter(None, pieces)))
    return with_powers(text)


def with_powers(text):
    """Replace \\1, the mark of a superscript, by ^, and \\2, of a subscript, by _, or remove it."""
    text = re.sub('(?<=\\d)\1(?=[a-z]{2}\\b)|(?<=[^\\s\\d])\2(?=\\d)', '', text)    # 1st, H2O
    text = re.sub('(?<=\\S)\1(?=[-+\u2212]?\\w)', '^', text)                        # 10^6
    text = re.sub('(?<=[\\w)])\2(?=\\w)', '_', text)                                   # 10_2, x_i
    return re.sub('[\1\2]', '', text)


def text_of_tag(tag, in_listing=False):
    """Return the replacement of a tag in the text."""
    closes, name = tag[1], (tag[2] or '').lower()
    if in_listing and name in PARAGRAPHS | LINES:
        return '\n' if closes or name == 'br' else ''
    if name in PARAGRAPHS:
        return '\n\n'
    if name in LINES:
        return '\n' if not closes or name == 'br' else ''
    return '' if closes else TAG_TEXT.get(name, '')


def formula(match):
    """Return the TeX annotation of a MathML formula, or else the formula with spaces between its
    elements, because 10 6 is wrong, but 106 is worse."""
    tex = TEX.search(match[0])
    if match['inner'] is None:          # unclosed
        return match[0]
    return tex and (tex[1] or tex[2]) or match[0].replace('<', ' <')


# --- LaTeX ----------------------------------------------------------------------------------------
# Remove commands, comments, labels and pictures. Keep words in braces, and formulas and listings as
# written. Your macros are not expanded; docs/data.md has a command for that.
ARGUMENT = r'\{(?:[^{}]|\{(?:[^{}]|\{[^{}]{0,2000}\}){0,2000}\}){0,5000}\}'     # three levels of {}
OPTION = r'(?:\[[^][\n]{0,1000}\])?'
ACCENTS = dict(zip('`\'^"~=.uvHcdbrk', '\u0300\u0301\u0302\u0308\u0303\u0304\u0307\u0306'
                   '\u030c\u030b\u0327\u0323\u0331\u030a\u0328'))
# LaTeX's names of characters, each followed by its character; with_powers() replaces \1 and \2
LETTERS = r'''ss ß AA Å aa å O Ø o ø L Ł l ł AE Æ ae æ OE Œ oe œ DH Ð dh ð TH Þ th þ i ı j ȷ S § P
¶ copyright © pounds £ euro € texteuro € ldots … dots … LaTeX LaTeX TeX TeX textdegree ° textmu µ
textendash – textemdash — textless < textgreater > textbackslash \ textasciitilde ~ texttimes ×
textquotedblleft “ textquotedblright ” textquoteleft ‘ textquoteright ’ guillemotleft « textpm ±
guillemotright » quotedblbase „ textbullet • textregistered ® texttrademark ™'''.split()
NAMES = {**dict(zip(LETTERS[::2], LETTERS[1::2])), **dict.fromkeys('-/@!', ''), 'item': '- ',
         **dict.fromkeys([*',;: ', 'quad', 'footnote', 'thanks'], ' '), 'par': '\n\n',
         'newline': '\n', 'textsuperscript': '\1', 'textsubscript': '\2'}
# The first alternative that matches wins: a % in a listing is not a comment.
LATEX = re.compile(rf"""
    \\begin\{{(?P<kind>verbatim\*?|Verbatim|lstlisting|minted)\}}{OPTION}(?:\{{[\w+-]+\}}(?=\s))?
        (?P<listing>.*?)(?:\\end\{{(?P=kind)\}}|\Z)
  | \\(?:verb\*?|lstinline{OPTION}|mintinline\{{\w+\}})(?P<q>[^\w\s*{{])(?P<verb>[^\n]*?)(?P=q)
  | (?P<math>\\(?:SI|si|qty|unit|ang|num\w*|s?frac|nicefrac)(?=[{{\[]){OPTION}(?:{ARGUMENT})+
    | \$\$(?:\\.|[^\\$])+\$\$|\$(?:\\.|[^\\$\n]|\n(?!\s*\n))+\$
    | \\\((?:\\[^()]|[^\\])+\\\)|\\\[(?:\\[^][]|[^\\])+\\\]
    | \\begin\{{(?P<env>(?:equation|align|alignat|gather|multline|eqnarray|flalign|math)\*?)\}}
        (?:[^\\]|\\(?!(?:begin|end)\{{(?P=env)\}}))+\\end\{{(?P=env)\}})
  | \\(?:url|nolinkurl|path|href)\s*\{{(?P<url>[^{{}}\n]*)\}}
  | \\(?P<accent>[`'^"~=.]|[uvHcdbrk](?![A-Za-z]))[ ]*(?:\{{\s*\\?(?P<base>[A-Za-z]?)\s*\}}
    | \\(?P<dotless>[ij])(?![A-Za-z])[ ]?|(?P<letter>[A-Za-z]))
  | (?P<gone>^[ \t]*%[^\n]*\n|(?<=\S)%[^\n]*\n[ \t]*(?=\S)|%[^\n]*
    | \\iffalse\b(?:[^\\]|\\(?!iffalse\b|fi\b))*\\fi\b
    | \\begin\{{(?P<no>comment|(?:tikz|pgf)?picture|filecontents\*?)\}}
        (?:[^\\]|\\(?!(?:begin|end)\{{(?P=no)\}}))*\\end\{{(?P=no)\}}
    | \\begin\{{(?:tabular[*xy]?|longtable|array|minipage|multicols)\}}{OPTION}(?:{ARGUMENT})*
    | \\(?:begin|end)\{{[^{{}}\n]*\}}{OPTION}
    | \\(?:multi(?:column|row)|resizebox|setlength|setcounter|fontsize)\*?{ARGUMENT}{ARGUMENT}
    | \\(?:label|\w{{0,5}}ref|[cC]ite\w*|input|include\w*|bib\w+|[vh]space|\w*style|(?:text)?color
        |parbox|\w+set(?:up)?)\*?{OPTION}{OPTION}{ARGUMENT}
    | \\(?:documentclass|usepackage|(?:(?:re)?new|provide)command|newtheorem|def)(?![A-Za-z])\*?
        (?:\\[A-Za-z]+)?[#\d]*(?:{OPTION}{OPTION}{ARGUMENT})*)
  | \\(?P<name>[A-Za-z@]+)\*?(?:\[[^][\n]*\](?=\{{))?(?:\{{\}}|[ \t]*)
  | (?P<newline>\\\\\*?(?:\[[^][\n]{{0,20}}\])?)|\\(?P<sign>[^\n])|(?P<other>[{{}}~&])""",
                   re.X | re.S | re.M)


def strip_latex(text):
    """Return the text of a LaTeX document. Of its preamble, keep title, authors and date."""
    body = re.match(r'(?:\s|%[^\n]*\n)*\\documentclass.*?\\begin\{document\}(.*)\\end\{document\}',
                    text, re.S)
    if body:
        titles = re.findall(rf'\\(?:title|author|date){OPTION}({ARGUMENT})', text[:body.start(1)])
        text = '\n\n'.join([*titles, body[1]])
    return with_powers(LATEX.sub(text_of_command, text))


def text_of_command(command):
    """Return the replacement of a command, a formula or a special character."""
    kind, value, accent = command.lastgroup, command[command.lastgroup], command['accent']
    if accent:                          # \"o is o with two dots, \~{} a tilde
        return unicodedata.normalize('NFC', value + ACCENTS[accent]) if value else accent
    if kind in ('name', 'sign'):
        return NAMES.get(value, '' if kind == 'name' else value)
    return {'listing': f'\n\n{block(value)}\n\n', 'verb': value, 'math': value, 'newline': '\n',
            'url': value + ' ' * command[0].startswith('\\href'),
            'other': {'~': ' ', '&': '\t'}.get(value, '')}.get(kind, '')


# --- mojibake -------------------------------------------------------------------------------------
# In mojibake, a UTF-8 lead byte (C2-F4) and its one to three continuation bytes (80-BF) have become
# characters that are seldom adjacent in real text.
CLOSING = set('\u00a0 ’‘”“…–—»«›‹΄')    # real text has these after letters: no evidence of mojibake
# Also no evidence after letters that end words more often than Â and Ã do:
SYMBOLS = CLOSING | set('®™°²³´')
# Also no evidence after these letters: VÝŠKA, „víš…“, liberté¹, på ½, 4×½, 2×£5. So a few damaged
# words of Arabic, Hebrew or Chinese are not repaired if the document has no other evidence.
NATURAL = {**dict.fromkeys('ÉÍÓÔÚÝàáäåæçèéêëìíîï', set('ŠŽšž¹¼½¾')),
           **dict.fromkeys('×Ø', set('¼½¾£¥'))}


def byte_images(*encodings):
    """Return {character: byte} for the bytes 80-FF in these encodings; earlier encodings win. Also
    map the C1 controls to 80-9F."""
    images = {bytes([b]).decode(encoding, 'ignore'): b for encoding in reversed(encodings)
              for b in range(0x80, 0x100)}
    images.pop('', None)
    return images | {chr(b): b for b in range(0x80, 0xA0)}


def utf8_pattern(images):
    """Return a regex for two to four characters that look like the bytes of one. It begins with a
    character set, because re finds a set five times as fast as alternatives."""
    lead = [''.join(re.escape(c) for c, b in images.items() if low <= b < high)
            for low, high in ((0xC2, 0xE0), (0xE0, 0xF0), (0xF0, 0xF5))]
    tail = ''.join(re.escape(c) for c, b in images.items() if b < 0xC0)
    rest = '|'.join(f'(?<=[{letters}])[{tail}]{{{n}}}' for n, letters in enumerate(lead, 1))
    return re.compile(f'[{"".join(lead)}](?:{rest})')


WESTERN = byte_images('cp1252', 'latin-1')
GREEK = byte_images('cp1253', 'iso8859_7', 'cp1252')
UTF8_AS = [(images, utf8_pattern(images)) for images in (WESTERN, GREEK)]
USUAL = set('ÂÃâðΒΓ') | {c for c, b in GREEK.items() if b >= 0xE0 and 'α' <= c <= 'ώ'}
C1_CONTROL = re.compile(r'(?!\x9b\d[\d;]*m)[\x80-\x9f]')     # \x9b31m is a color


def fix_mojibake(text):
    """Repair UTF-8 that was decoded as cp1252, Latin-1 or cp1253, also repeatedly or in parts of a
    text, and cp1252 that was decoded as Latin-1. A sequence that may be real text is replaced only
    if the document has a certain one with the same first letter, or has evidence and no other
    non-ASCII characters."""
    if text.isascii():
        return text
    for _ in range(4):
        before = text
        for images, pattern in UTF8_AS:
            # without a damaged quote or dash, the text may be real Greek
            if images is WESTERN or any(sign in text for sign in ('β€', 'β\x80', 'Ξ²β‚¬')):
                text = repair(text, images, pattern)
        if text == before:
            break
    return C1_CONTROL.sub(lambda m: m[0].encode('latin-1').decode('cp1252', 'ignore') or m[0], text)


def repair(text, images, pattern):
    """Replace the matches of pattern by the characters that their bytes encode, where the evidence
    is sufficient."""
    decoded = {old: bytes(map(images.get, old)).decode('utf-8', 'ignore')
             for old in {*pattern.findall(text)}}
    decoded = {old: new for old, new in decoded.items() if new}         # drop invalid UTF-8
    # certain sequences, which real text does not have, counted by first letter
    harmless = {old: CLOSING if old[0] in USUAL else SYMBOLS | NATURAL.get(old[0], set())
                for old in decoded}
    certain = collections.Counter(old[0] for old in decoded if {*old[1:]} - harmless[old])
    # mojibake of é, ·, quotes and emoji begins with a letter of USUAL; others need more evidence
    evidence = USUAL & set(certain) or certain.total() > 1
    everything = evidence and pattern.sub(lambda m: '' if m[0] in decoded else m[0], text).isascii()

    def repaired(match):
        old = match[0]
        enough = 1 if old[0] in USUAL else 2
        return decoded.get(old, old) if everything or certain[old[0]] >= enough else old
    return pattern.sub(repaired, text)
