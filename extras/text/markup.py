"""
What a text was before it was written as HTML or LaTeX, or decoded wrongly. clean.py opens this
file for what says that it is such a text (.html, .htm, .tex, --markup), and for damaged letters.

    strip_html('<p>10<sup>6</sup> cells &amp; <b>more</b>')     # '10^6 cells & more'
    strip_latex('An \\emph{old} mill in Stra{\\ss}e')           # 'An old mill in Straße'
    fix_mojibake('it\u00e2\u20ac\u2122s')                       # 'it’s': UTF-8 read as cp1252

Text in all elements and commands stays, and so do mathematics and addresses as they are written.
Listings become blocks between lines of ```, which clean.py leaves alone.
"""
import collections, html, re, unicodedata


def block(listing):
    """Return a listing between lines of ```, but one line, or one with such lines, as it is."""
    listing = listing.strip('\n')
    return f'```\n{listing}\n```' if '\n' in listing and '```' not in listing else listing


# --- HTML -----------------------------------------------------------------------------------------
# Why regular expressions and not html.parser: that one reads unclosed scripts and comments in
# another way in each version of Python, so the corpus would depend on it.
# What has no end stays; it is matched up to the end of the text, to look for that only once.
HIDDEN = [re.compile(rf'{begin}(?:(?P<inner>.*?){end}|.*)', re.S | re.I) for begin, end in (
    ('<!--', '--!?>'), (r'<\?', r'\?>'),
    (r'<(script|style|noscript|template)\b[^<>]*>', r'</\1\s*>'))]
MATH = re.compile(r'<math\b(?:(?P<inner>.*?)</math\s*>|.*)', re.S | re.I)
LISTING = re.compile(r'<pre\b[^<>]*>(.*?)(?:</pre\s*>|\Z)', re.S | re.I)
# A quoted value may have a > in it if its second quote ends a value; else a > ends the tag.
VALUE = '|'.join(rf'{q}[^{q}]*{q}(?=[\s/>])|{q}(?![^{q}]*{q}[\s/>])' for q in '"\'')
TAG = re.compile(r'<(/?)([a-z][a-z0-9-]*(?::[a-z][a-z0-9-]*)?)(?=[\s/>])'
                 rf'(?:[^"<\'>]|{VALUE}){{0,3000}}>|<![^<>]*>', re.I)
PARAGRAPHS = set('p div h1 h2 h3 h4 h5 h6 ul ol dl table section article aside header footer nav '
                 'main blockquote figure figcaption form fieldset hr title address details '
                 'summary legend caption center menu dir dialog search hgroup select'.split())
LINES = set('br li dt dd tr option optgroup button textarea'.split())
# \1 and \2 wait for their letters
SIGNS = {'td': '\t', 'th': '\t', 'sup': '\1', 'sub': '\2'}
ENTITY = re.compile(r'&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});')
TEX = re.compile(r'<annotation\b[^<>]*\b(?:la)?tex\b[^<>]*>([^<>]*)<|\balttext="([^"]*)"', re.I)


def strip_html(text):
    """Return the text of a page: elements end lines as in a browser, and blanks are one except in
    <pre>. 10<sup>6</sup> becomes 10^6, not 106, H<sub>2</sub>O becomes H2O."""
    for pattern in HIDDEN:
        text = pattern.sub(lambda m: m[0] if m['inner'] is None else '', text)
    text = MATH.sub(formula, text)
    pieces = LISTING.split(text)                                # text, listing, text, ...
    for i, piece in enumerate(pieces):
        if i % 2:
            pieces[i] = block(TAG.sub(lambda m: sign_of(m, in_listing=True), piece))
        else:
            piece = TAG.sub(sign_of, re.sub(r'[ \t\r\n\f]+', ' ', piece))
            piece = re.sub(r'[ \t]*\n[ \t]*', '\n', re.sub(' +', ' ', piece))
            pieces[i] = re.sub(r'\n{3,}', '\n\n', piece).strip('\n')
    text = ENTITY.sub(lambda m: html.unescape(m[0]), '\n\n'.join(filter(None, pieces)))
    return with_powers(text)


def with_powers(text):
    """Write what is raised (\\1 stands before it) or lowered (\\2) in a line."""
    text = re.sub('(?<=\\d)\1(?=[a-z]{2}\\b)|(?<=[^\\s\\d])\2(?=\\d)', '', text)    # 1st, H2O
    text = re.sub('(?<=\\S)\1(?=[-+\u2212]?\\w)', '^', text)                        # 10^6
    text = re.sub('(?<=[\\w)])\2(?=\\w)', '_', text)                                   # 10_2, x_i
    return re.sub('[\1\2]', '', text)


def sign_of(tag, in_listing=False):
    """Return what stands for a tag in the text."""
    closes, name = tag[1], (tag[2] or '').lower()
    if in_listing and name in PARAGRAPHS | LINES:
        return '\n' if closes or name == 'br' else ''
    if name in PARAGRAPHS:
        return '\n\n'
    if name in LINES:
        return '\n' if not closes or name == 'br' else ''
    return '' if closes else SIGNS.get(name, '')


def formula(match):
    """Return a formula in TeX if it is there as TeX, too; else parted: 10 6 is wrong, 106 worse."""
    tex = TEX.search(match[0])
    if match['inner'] is None:          # it has no end
        return match[0]
    return tex and (tex[1] or tex[2]) or match[0].replace('<', ' <')


# --- LaTeX ----------------------------------------------------------------------------------------
ARGUMENT = r'\{(?:[^{}]|\{(?:[^{}]|\{[^{}]{0,2000}\}){0,2000}\}){0,5000}\}'     # three levels of {}
OPTION = r'(?:\[[^][\n]{0,1000}\])?'
ACCENTS = dict(zip('`\'^"~=.uvHcdbrk', '\u0300\u0301\u0302\u0308\u0303\u0304\u0307\u0306'
                   '\u030c\u030b\u0327\u0323\u0331\u030a\u0328'))
LETTERS = dict(ss='ß', AA='Å', aa='å', O='Ø', o='ø', L='Ł', l='ł', AE='Æ', ae='æ', OE='Œ', oe='œ',
               DH='Ð', dh='ð', TH='Þ', th='þ', DJ='Đ', dj='đ', NG='Ŋ', ng='ŋ', i='ı', j='ȷ', S='§',
               P='¶', copyright='©', pounds='£', euro='€', ldots='…', dots='…', LaTeX='LaTeX',
               TeX='TeX', textbackslash='\\', textasciitilde='~', item='- ', par='\n\n', quad=' ',
               newline='\n', footnote=' ', thanks=' ', textsuperscript='\1', textsubscript='\2')
# a sign, and its commands
SIGNS_OF_TEXT = '''
° textdegree degree, µ textmu micro, – textendash, — textemdash, < textless, > textgreater,
| textbar, ^ textasciicircum, _ textunderscore, $ textdollar, “ textquotedblleft, ”
textquotedblright, ‘ textquoteleft lq, ’ textquoteright rq, " textquotedbl, '
textquotesingle, « guillemotleft, » guillemotright, „ quotedblbase, … textellipsis, •
textbullet, · textperiodcentered, ® textregistered, ™ texttrademark, © textcopyright, €
texteuro, £ textsterling, ¥ textyen, ¢ textcent, × texttimes, ± textpm, ÷ textdiv, ½
textonehalf, § textsection, ¶ textparagraph, † textdagger dag, ‡ textdaggerdbl ddag, ª
textordfeminine, º textordmasculine, { textbraceleft, } textbraceright'''
LETTERS |= {name: entry[0] for entry in ' '.join(SIGNS_OF_TEXT.split()).split(', ')
            for name in entry[2:].split()}
SYMBOLS = {**dict.fromkeys(',;: ', ' '), **dict.fromkeys('-/@!', '')}
# \newcommand{\ours}{NanoNet}, \def\ours{NanoNet}: a name in braces or without, and a body
MACRO = re.compile(r'\\(?:(?:(?:re)?new|provide)command|def)\*?(?:\{\\([A-Za-z]+)\}|\\([A-Za-z]+))'
                   rf'\s*(?:\[0\])?({ARGUMENT})')
LONGEST_MACRO = 200     # characters; \def\b{\a\a}\def\c{\b\b}... would grow without an end
# What stands first wins: the % in a listing begins no comment. What would be glued, such as the
# arguments of \SI{5}{\metre} and \nicefrac{1}{2}, stays as it is written, like a formula.
LATEX = re.compile(rf"""
    \\begin\{{(?P<kind>verbatim\*?|Verbatim|lstlisting|minted)\}}{OPTION}(?:\{{[\w+-]+\}}(?=\s))?
        (?P<listing>.*?)(?:\\end\{{(?P=kind)\}}|\Z)
  | \\(?:verb\*?|lstinline{OPTION}|mintinline\{{\w+\}})(?P<quote>[^\w\s*{{])
        (?P<verb>[^\n]*?)(?P=quote)
  | (?P<math>\\(?:SI|si|qty|unit|ang|numrange|SIrange|qtyrange|SIlist|qtylist|s?frac|nicefrac)
        (?=[{{\[]){OPTION}(?:{ARGUMENT})+
    | \$\$(?:\\.|[^\\$])+\$\$|\$(?:\\.|[^\\$\n]|\n(?!\s*\n))+\$
    | \\\((?:\\[^()]|[^\\])+\\\)|\\\[(?:\\[^][]|[^\\])+\\\]
    | \\begin\{{(?P<env>(?:equation|align|alignat|gather|multline|eqnarray|flalign|math)\*?)\}}
        (?:[^\\]|\\(?!(?:begin|end)\{{(?P=env)\}}))+\\end\{{(?P=env)\}})
  | \\(?:url|nolinkurl|path|href)\s*\{{(?P<url>[^{{}}\n]*)\}}
  | \\(?P<accent>[`'^"~=.]|[uvHcdbrk](?![A-Za-z]))[ ]*(?:\{{\s*\\?(?P<base>[A-Za-z]?)\s*\}}
    | \\(?P<dotless>[ij])(?![A-Za-z])[ ]?|(?P<letter>[A-Za-z]))
  | (?P<comment>^[ \t]*%[^\n]*\n|(?<=\S)%[^\n]*\n[ \t]*(?=\S)|%[^\n]*
    | \\begin\{{comment\}}.*?\\end\{{comment\}}|\\iffalse\b.*?\\fi\b)
  | (?P<newline>\\\\\*?(?:\[[^][\n]{{0,20}}\])?)
  | \\(?P<symbol>[^A-Za-z\n])
  | (?P<dropped>\\(?:begin\{{(?:tabular[*xy]?|longtable|array|minipage|thebibliography|multicols
            |columns?|sub(?:figure|table)|wrap(?:figure|table)|adjustbox|spacing)\}}
        {OPTION}(?:{ARGUMENT})*
    | begin\{{(?:frame|itemize|enumerate|description|figure\*?|table\*?|tikzpicture)\}}{OPTION}
    | (?:begin|end)\{{[^{{}}\n]*\}}(?:\[[htbpH!]+\])?
    | (?:multicolumn|multirow|resizebox\*?|setlength|addtolength|setcounter|fontsize|rule)
        {OPTION}{ARGUMENT}{ARGUMENT}
    | (?:label|(?:eq|page|auto|[cC])?ref|[cC]ite\w*|input|include|includegraphics|bibliography\w*
        |bibitem|[vh]space|(?:this)?pagestyle|(?:text)?color(?=\{{)|colorbox|parbox
        |raisebox|scalebox|cline|hypersetup|graphicspath|lstset)\*?
        {OPTION}{OPTION}{ARGUMENT}
    | (?:documentclass|usepackage|(?:(?:re)?new|provide)command|newtheorem|def)(?![A-Za-z])\*?
        (?:\\[A-Za-z]+)?[#\d]*(?:{OPTION}{OPTION}{ARGUMENT})*))
  | \\(?P<name>[A-Za-z@]+)\*?(?:\[[^][\n]*\](?=\{{))?(?:\{{\}}|[ \t]*)
  | (?P<other>[{{}}~&])""", re.X | re.S | re.M)


def strip_latex(text):
    """Return the words of a LaTeX document: without commands, comments, and what names only files,
    labels and sizes. Of the preamble, the title, the authors and the date are text. \\ours is
    'NanoNet' after \\newcommand{\\ours}{NanoNet}. A macro with arguments is a command like others:
    its name goes, and what the braces hold stays."""
    macros = {}

    def words(text):
        return LATEX.sub(lambda command: words_of(command, macros), text)

    for macro in MACRO.finditer(re.sub(r'(?<!\\)%[^\n]*', '', text)):
        name, body = macro[1] or macro[2], words(macro[3])
        macros[name] = body if len(body) <= LONGEST_MACRO else f'\\{name}'
    body = re.match(r'(?:\s|%[^\n]*\n)*\\documentclass.*?\\begin\{document\}(.*)\\end\{document\}',
                    text, re.S)
    if body:
        titles = re.findall(rf'\\(?:title|author|date){OPTION}({ARGUMENT})', text[:body.start(1)])
        text = '\n\n'.join(titles) + '\n\n' * bool(titles) + body[1]
    return with_powers(words(text))


def words_of(command, macros):
    """Return what a command, a formula or a sign puts into the text."""
    kind = command.lastgroup
    value = command[kind]
    if kind == 'listing':
        return f'\n\n{block(value)}\n\n'
    if kind in ('verb', 'math', 'url'):
        return value + ' ' * command[0].startswith('\\href')
    if kind in ('base', 'dotless', 'letter'):               # \"o is o with two dots, \~{} a tilde
        accent = command['accent']
        return unicodedata.normalize('NFC', value + ACCENTS[accent]) if value else accent
    if kind == 'symbol':
        return SYMBOLS.get(value, value)
    if kind == 'name' and value in macros:
        return macros[value] + ' ' * command[0][-1].isspace()
    if kind == 'name':
        return LETTERS.get(value, '')
    return {'~': ' ', '&': '\t'}.get(value, '\n' if kind == 'newline' else '')


# --- mojibake -------------------------------------------------------------------------------------
# A lead byte (C2-F4) and one to three continuation bytes (80-BF) became characters that seldom meet
# in texts.
CLOSING = set('\u00a0 ’‘”“…–—»«›‹΄')    # these do follow letters, so alone they prove nothing
# Letters that end words more often than Â and Ã may have these after them, so they prove nothing,
# either.
MARKS = CLOSING | set('®™°²³´')
# Nor does what people write after some letters: VÝŠKA, „víš…“, liberté¹, på ½, 4×½, 2×£5. So a few
# damaged words of Arabic, Hebrew or Chinese stay damaged if nothing else proves it.
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
