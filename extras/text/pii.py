"""
Replace personal data and keys by placeholders, because a model may recite text that it saw once.
clean.py and chats.py import this file unless --pii=False.

    hide('Ask ann@uni.edu or +49 30 901820.', found)    # 'Ask <EMAIL> or <PHONE>.'
    found                                               # Counter({'email': 1, 'phone': 1})

Not masked: names (finding them needs a model), streets, passwords, card numbers, `ann at uni`, and
phone numbers without + in formats other than (212) 555-0123, 010-1234-5678 and, outside of code,
0171 1234567. Example domains, versions, dates, amounts and hashes are kept, too.
"""
import pathlib, re

# --- edges ----------------------------------------------------------------------------------------
# In Chinese, Japanese, Thai and Korean, letters may touch an address, and in Markdown, _ may. So
# only Latin letters and digits extend a word: \w and \b would also match the adjacent letters.
LATIN = 'A-Za-z0-9À-ÖØ-öø-ɏḀ-ỿ'
CYRILLIC = 'Ѐ-ԯ'
DASH = r'\u2010-\u2015\u2212\u30fc\ufe63\uff0d\-'   # ‐ ‑ ‒ – — ― − ー ﹣ － -
BLANK = ' \xa0\u2000-\u200a\u202f\u205f\u3000'
# In code, \n or \u003c may precede an address: print("To:\nann@uni.edu").
BEGIN = (rf'(?:(?<![{LATIN}])(?<![{LATIN}]_)(?<!\\(?=[nrtxu]))|(?<=\\[nrt])|'
         r'(?<=\\x[\da-fA-F]{2})|(?<=\\u[\da-fA-F]{4}))')
END = rf'(?!_?[{LATIN}])'

# --- keys and addresses ---------------------------------------------------------------------------
KEYS = '|'.join([
    r'A[KS]IA[0-9A-Z]{16}',                             # AKIA...: Amazon
    r'gh[oprsu]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,90}',    # ghp_...: GitHub
    r'glpat-[A-Za-z0-9_-]{20}',                         # GitLab
    r'hf_[A-Za-z]{30,40}',                              # Hugging Face
    r'xox[abeprs]-[A-Za-z0-9-]{20,250}',                # xoxb-...: Slack
    r'AIza[A-Za-z0-9_-]{35}',                           # Google
    r'npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,}',
    r'sk-(?=[A-Za-z_-]{0,60}\d)[A-Za-z0-9_-]{32,250}',  # sk-...: OpenAI, Anthropic
    r'[rs]k_live_[A-Za-z0-9]{20,}',                     # sk_live_...: Stripe
    r'eyJ[A-Za-z0-9_-]{10,500}(?:\.[A-Za-z0-9_-]{10,}){2}'])    # eyJhbG...: a JSON web token
PRIVATE_KEY = (r'-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----'
               r'(?:\s|\\[nr]|["\'+,]|[\w-]+: [^\n]*\n)*[A-Za-z0-9+/]{40}[^-]*'
               r'(?:-----END (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----)?')
# URLs, HTML and programs may escape @: ann%40uni.edu, "ann\u0040uni.edu".
AT_SIGNS = ('@', '＠', '%40', '%2540', '&#64;', '&#064;', '&#x40;', '&#X40;', '&#x0040;',
            '&commat;', '\\u0040', '\\x40')
AT = f'(?:{"|".join(map(re.escape, AT_SIGNS))})'
# IANA's top-level domains of 2026-10-23. With them, x@y.mean, backup@home.mount and logo@2x.png are
# not addresses. Letter case doesn't matter, Ann@Web.De, but q@k.mT is a matrix product.
TLDS = {*pathlib.Path(__file__).with_name('tlds.txt').read_text('utf-8').split()}
TLD = rf'(?!m[TH]\b)(?i:{"|".join(sorted(filter(str.isascii, TLDS)))})'
# A word without a space, .Then, or Perl's E<gt> may follow an address, but not further attributes,
# .a.T, or a call, x@layer.to(
EMAIL = (rf'(?:{BEGIN}[{LATIN}][{LATIN}_.%+-]{{0,63}}|'
         rf'(?<![{CYRILLIC}])[{CYRILLIC}][{CYRILLIC}.-]{{0,63}}){AT}(?:[\w-]{{1,63}}\.){{1,5}}'
         rf'(?:{TLD}(?!(?!E<)[{LATIN}]|\([ -~])|[{CYRILLIC}]{{2,24}})'
         rf'(?!\.(?:[a-z\d]|[A-Z](?![a-z])))')
# In R and Python, x@meta.group is not an address. Addresses are in a string, a comment or < >.
QUOTED = re.compile(r'(\"{3}|\'{3}).*?(?:\1|\Z)|"(?:[^"\\\n]|\\.)*"?|\'(?:[^\'\\\n]|\\.)*\'?|'
                    r'#[^\n]*|<[^<>\s]*>', re.S)
# Not addresses either: examples, and matrices and attributes in code that look like domains.
NOBODY = re.compile(r'^(git|this|super)@|@(self|\dx|\d+\.\d+)\.|\.data$|[%+-]@.*\.name$|'
                    r'@(.*\.)?example\.(com|org|net|edu)$', re.I)


def is_nobody(address):
    address = re.sub(AT, '@', address)
    return address.rpartition('.')[2].lower() not in TLDS or NOBODY.search(address)


# --- numbers --------------------------------------------------------------------------------------
NUMBER = rf'(?=[+＋(（\d]){BEGIN}(?<![+＋=#$€£¥-])(?<!\d\.)(?<!\D/)'
SSN = rf'(?!000|666|9\d\d)\d{{3}}[{DASH}](?!00)\d\d[{DASH}](?!0000)\d{{4}}'
# E.164: + and 8 to 15 digits in groups, +49 (0)30 / 901820-0, but not a decimal or fraction, +12.50
GROUP = (rf'(?:[{BLANK}{DASH}.]|[{BLANK}]?/[{BLANK}]?|[{BLANK}]?[(（]\d{{1,4}}[)）]'
         rf'[{BLANK}{DASH}/]?)\d{{1,8}}')
PHONES = '|'.join([
    rf'[+＋](?!0)\d{{1,3}}[{BLANK}](?:\(0\))?(?!0)\d{{2,5}}[{BLANK}][{DASH}][{BLANK}]\d{{5,8}}',
    rf'[+＋](?!0|\d+\.\d+(?!\.?\d)|\d+/\d{{1,4}}(?!\d|/\d{{5}}))\d{{1,4}}(?:{GROUP}){{1,6}}',
    r'[+＋](?!0)\d{10,14}',
    rf'(?:1[{BLANK}{DASH}])?(?:[(（][2-9２-９]\d\d[)）][{BLANK}]?|[2-9２-９]\d\d[{DASH}])'
    rf'[2-9２-９]\d\d[{DASH}]\d{{4}}',                                      # (212) 555-0123
    r'[2-9]\d\d\.[2-9]\d\d\.\d{4}',                                         # 212.555.0123
    rf'[0０]\d{{1,3}}[{DASH}]\d{{3,4}}[{DASH}]\d{{4}}'])                    # 010-1234-5678
# National numbers begin with 0: 0171 1234567, (0)44 123 45 67, 020 7946 0958, 01 42 34 56 78. They
# are kept in code, where they may be bytes, as are 3f 01 42 34 56 78 and 012 / 345678 = 0.04.
NATIONAL = (rf'(?<!\d[{BLANK}])(?<!\d[a-f][{BLANK}])'
            rf'(?:[(（]0[)）][{BLANK}]?\d{{1,4}}|[(（]0[1-9]\d{{0,3}}[)）]|0[1-9]\d{{0,4}})'
            rf'(?:(?:[{BLANK}{DASH}/]|[{BLANK}]/[{BLANK}])\d{{5,8}}(?:[{DASH}]\d{{1,3}})?|(?:\.\d\d){{4}}|'
            rf'(?P<sign>[{BLANK}{DASH}])\d{{2,4}}(?:(?P=sign)\d{{2,4}}){{1,3}})(?![{BLANK}]?[\d=])')
NUMBER_END = rf'{END}(?!=|[{DASH}.]\d)'
UNIT = rf'(?![{BLANK}]?(?:[€$£¥₽₩₹%]|EUR|USD|[Ee]uro|[Dd]ollar|units?\b))'
# +12 345 678 is an amount, +48 601 234 567 a phone number; 300-400-5000 are three amounts
AMOUNT = re.compile(rf'[+＋]\d{{1,3}}(?:[{BLANK}.]\d{{3}}){{2}}|[+＋]\d(?:[{BLANK}.]\d{{3}}){{3}}|'
                    rf'\d\d0[{DASH}]\d\d0[{DASH}]\d\d\d0')
DATE = re.compile(rf'(?<!\d)(?:19|20)\d\d[{DASH}./]\d\d?[{DASH}./]\d\d?')


def is_amount(number):
    return (AMOUNT.fullmatch(number) or DATE.search(number)
            or not 8 + (number[0] in '(（0') <= sum(map(str.isdigit, number)) <= 15)


# {kind: (pattern, function that returns whether a match is kept, or None)}
PERSONAL = {kind: (re.compile(pattern), is_kept) for kind, pattern, is_kept in (
    ('key', rf'{PRIVATE_KEY}|(?=[AaghxnpsreE]){BEGIN}(?:{KEYS}){END}(?!-[A-Za-z0-9])', None),
    ('email', EMAIL, is_nobody),
    ('ssn', NUMBER + SSN + NUMBER_END, None),
    ('phone', rf'{NUMBER}(?:{PHONES}){NUMBER_END}{UNIT}', is_amount),
    ('national phone', rf'{NUMBER}{NATIONAL}{NUMBER_END}{UNIT}', is_amount))}
# Most texts contain none of these substrings, and searching them is faster than the patterns.
KEY_SIGNS = ('AKIA ASIA ghp_ gho_ ghr_ ghs_ ghu_ github_pat_ xox AIza hf_ sk- k_live_ eyJ glpat- '
             'npm_ pypi- -----BEGIN').split()
ADDRESS_SIGN = re.compile('|'.join(       # an @ inside a word, unlike the @ of a decorator
    rf'{sign}(?<=[\w{CYRILLIC}.%+-]{sign})[\w-]{{1,63}}\.' for sign in map(re.escape, AT_SIGNS)))
# eight digits, with at most four separators between two of them, as in (044) / 1234567
NUMBER_SIGN = re.compile(rf'\d(?:[{BLANK}{DASH}()（）./]{{0,4}}\d){{7}}')
LINE = re.compile(r'\n?.+')          # with the \n before it, which NUMBER looks at


def hide(text, found, is_code=False):
    """Return a text with personal data replaced by <EMAIL>, <PHONE>, <SSN> or <KEY>. The Counter
    found, {kind: n}, is updated with these kinds. is_code: whether the text is a program in R or
    Python."""
    before = text

    def hidden(text, kinds):
        for kind in kinds:
            pattern, is_kept = PERSONAL[kind]
            label = f'<{kind.split()[-1].upper()}>'
            text = pattern.sub(lambda m: m[0] if is_kept and is_kept(m[0]) else label, text)
        return text

    if any(sign in text for sign in KEY_SIGNS):
        text = hidden(text, ['key'])
    numbers = ['ssn', 'phone'] if is_code else ['ssn', 'phone', 'national phone']
    for sign, kinds, parts in ((ADDRESS_SIGN, ['email'], QUOTED if is_code else LINE),
                               (NUMBER_SIGN, numbers, LINE)):
        if sign.search(text):       # only in the lines, or the strings of a program, with a sign
            hide_in = lambda part: hidden(part[0], kinds) if sign.search(part[0]) else part[0]
            text = parts.sub(hide_in, text)
    for kind in ('key', 'email', 'ssn', 'phone') if text != before else ():
        label = f'<{kind.upper()}>'
        found.update([kind] * (text.count(label) - before.count(label)))
    return text
