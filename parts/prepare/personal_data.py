"""
Personal data and keys: replaced by placeholders, because a model may recite what it has seen once.

    hide('mail to ann@uni.edu')             # ('mail to <EMAIL>', {'email': 1})

Versions, dates, IP addresses, hashes and example domains stay. So do names: to find those takes a model.
A key is known by its beginning: `password = "x8..."` stays.

Copy this file alone: it needs the standard library.
"""
import collections, re

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
NUMBERS = re.compile(r'[+\d](?:(?<=\+)[1-9]|(?<=\d)\d\d[-.)])[\d ().-]{6}')    # in each phone, SSN; fast
KEY_SIGNS = ('AKIA', 'ASIA', 'ghp_', 'gho_', 'ghs_', 'ghr_', 'ghu_', 'github_pat_', 'xox', 'AIza', 'hf_',
             'sk-', 'sk_live_', 'rk_live_', 'eyJ', 'PRIVATE KEY', 'glpat-', 'npm_', 'pypi-')
KEY = re.compile(
    r'-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----(?:\s|\\[nr]|["\'+,]|[\w-]+: [^\n]*\n)*'
    r'[A-Za-z0-9+/]{40}[^-]*(?:-----END (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----)?|'
    r'\b(?:A[KS]IA[0-9A-Z]{16}|gh[oprsu]_[A-Za-z0-9]{36}|github_pat_\w{60,90}|hf_[A-Za-z]{30,40}|'
    r'xox[abeprs]-[A-Za-z0-9-]{20,250}|AIza[\w-]{35}|sk-(?=[A-Za-z_-]{0,60}\d)[A-Za-z0-9_-]{32,250}|'
    r'[rs]k_live_[A-Za-z0-9]{20,}|glpat-[\w-]{20}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,}|'
    r'eyJ[\w-]{10,500}\.eyJ[\w-]{10,}\.[\w-]{10,})(?![\w-])')


def hide(text):
    """A text with <EMAIL>, <PHONE>, <SSN>, <KEY> in place of such data, and {kind: how many}."""
    hits = collections.Counter()

    def replace(kind, pattern, is_harmless=lambda value: False):
        def placeholder(match):
            if is_harmless(match[0]):
                return match[0]
            hits[kind] += 1
            return f'<{kind.upper()}>'
        return pattern.sub(placeholder, text)

    # each test is fast, and most texts hold nothing
    if any(sign in text for sign in KEY_SIGNS):
        text = replace('key', KEY)
    if '@' in text:
        text = replace('email', EMAIL, NOBODY.search)
    if NUMBERS.search(text):
        text = replace('ssn', SSN)
        text = replace('phone', PHONE, lambda value: not 8 <= sum(map(str.isdigit, value)) <= 15)
    return text, dict(hits)
