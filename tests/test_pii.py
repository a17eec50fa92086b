"""Personal data: what must go, what only looks like it, and no text takes more than its share of time."""
import ast
import pathlib
import subprocess
import sys
import sysconfig
import warnings

import pytest
from conftest import ROOT

from parts.prepare.personal_data import hide as hide_pii

STDLIB = pathlib.Path(sysconfig.get_paths()['stdlib'])
BODY = 'MIIEpAIBAAKCAQEA0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKL\n' * 3
PEM = f'-----BEGIN RSA PRIVATE KEY-----\n{BODY}-----END RSA PRIVATE KEY-----'
TRUE = {
    'email': ['ann@uni.edu', 'first.last+tag@sub.domain.co.uk', 'JOHN@COMPANY.COM', 'jürgen@firma.de',
        '123@qq.com', 'bob_smith@company-x.de', 'a.b@startup.io', 'x%y@physics.ox.ac.uk'],
    'phone': ['+1 415 555 2671', '+1-415-555-2671', '+1 (415) 555-2671', '(415) 555-2671', '(415)555-2671',
        '415-555-2671', '1-415-555-2671', '415.555.2671', '+49 30 901820', '+49 (0)30 901820',
        '+33 1 23 45 67 89', '+44 20 7946 0958', '+4915112345678', '+86 138 1234 5678', '+91-98765-43210',
        '+41.22.767.61.11'],
    'ssn': ['123-45-6789', '899-99-9999', '001-01-0001'],
    'key': ['AKIAIOSFODNN7EXAMPLE', 'ghp_' + 'aB3' * 12, 'AIza' + 'Sy_-x' * 7, 'hf_' + 'abcdeFGHIJ' * 3,
        'sk-' + 'abCD12_-' * 5, 'xoxb-123456789012-abcdefghijkl', 'glpat-abcdefghij0123456789',
        'npm_' + 'x1Y' * 12, 'sk_live_' + 'a1b2' * 6,
        'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n', PEM,
        PEM.replace('KEY-----\nM', 'KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,AB12\n\nM')]}
FALSE = [
    '1.2.3-4567', '1.10.2.dev0+g1234567', 'v2024.1.31', '192.168.100.200', '10.0.0.1:8080',
    '255.255.255.255', '::1', '2024-01-31', '2024-01-31T12:34:56+00:00', '2024-01-31 12:34:56.789012',
    '20240131-123456', '31.12.2024', '+2024-01-31 in a diff', 'Wed, 31 Jan 2024 12:00:00 +0200',
    '1990-1999', '12:00 UTC+01:00', '1706700000', '@app.route("/x")', '@pytest.mark.parametrize',
    'x@self.weight', 'x@self.info', 'a@b.T', 'a @ b.T', 'q@k.mT', 'x@W.to(y)', 'x@model.fc.weight + b',
    'h@self.name', '1234567890abcdef1234567890abcdef12345678', '0123456789' * 4, 'deadbeef-1234',
    '3.141592653589793', '-1.7976931348623157e+308', '+0.25 +0.50', '[+12.50 -13.25 +11.75]',
    '+100.00 200.00 300.00', 'array([123, 456, 7890])', '[ 1 22 333 4444 55555]',
    '[[555 123 4567]\n [415 555 2671]]', '1_000_000_000', '1,234,567,890', 'ISBN 978-3-16-148410-0',
    'ISBN 0-306-40615-2', 'ISBN-13: 978-0-596-52068-7', 'ISSN 2049-3630', 'arXiv:1706.03762',
    '10.1103/PhysRevLett.116.061102', 'CVE-2021-44228', 'ISO 8601-1:2019',
    '550e8400-e29b-41d4-a716-446655440000', 'user@example.com', 'ann@mail.example.org', 'root@localhost',
    'me@host.test', 'x@y.invalid', 'ann@EXAMPLE.COM', 'git@github.com:user/repo.git',
    'npm install @angular/core@12.0.0', '%d@%s.com', 'lambda x@y', 'https://a.org/@ann.b/c', '000-12-3456',
    '666-12-3456', '900-12-3456', '123-00-4567', '123-45-0000', '123-45-67890', '2123-45-6789',
    'A-123-45-6789', 'x = 555-1234', 'f(200)-300-4000', '100-200-3000', '+48.137154 +11.576124',
    '415-555-2671-1', 'pages 200-300', '4111-1111', 'password = getpass.getpass()',
    'password = "correct horse battery"', 'api_key = "a8F3kL9xQ2mZ7pR4tY6w"',
    'password = "your_password_here"', 'hf_hub_download',
    'password = "aaaaaaaaaaaaaaa1"', 'api_key = "YOUR_API_KEY_HERE_PLEASE"',
    'api_key = os.environ["API_KEY_OF_SERVICE_1"]', 'sk-toggleable-content-container-of-a-long-label',
    'sk-learn', 'npm_config_registry', 'eyJ', '-----BEGIN PRIVATE KEY-----',
    'A -----BEGIN PRIVATE KEY----- is followed by lines of base64, and these by something that ends it.']
FRAMES = ['{}', 'Write to {}, please.', '({})', '"{}"', 'x\n{}\ny', 'It is {}.']


@pytest.mark.parametrize('kind, text', [(kind, text) for kind, texts in TRUE.items() for text in texts])
def test_personal_data_is_replaced_and_counted(kind, text):
    for frame in FRAMES:
        assert hide_pii(frame.format(text)) == (frame.format(f'<{kind.upper()}>'), {kind: 1}), frame
    assert hide_pii(f'{text}\n{text}') == (f'<{kind.upper()}>\n<{kind.upper()}>', {kind: 2})


@pytest.mark.parametrize('text', FALSE)
def test_what_only_looks_like_personal_data_stays(text):
    for frame in FRAMES:
        assert hide_pii(frame.format(text)) == (frame.format(text), {}), frame


def test_several_kinds_in_one_text_are_counted_apart():
    text = 'Ann <ann@uni.edu>, bob@uni.edu; +1 415 555 2671; 123-45-6789; AKIAIOSFODNN7EXAMPLE'
    hidden = 'Ann <<EMAIL>>, <EMAIL>; <PHONE>; <SSN>; <KEY>'
    assert hide_pii(text) == (hidden, {'key': 1, 'email': 2, 'ssn': 1, 'phone': 1})
    assert hide_pii(hidden) == (hidden, {})


def test_the_standard_library_still_compiles_and_keeps_its_numbers():
    files = [p for p in STDLIB.rglob('*.py') if not {'test', 'tests', 'idle_test', 'lib2to3', 'site-packages'}
             & set(p.relative_to(STDLIB).parts)]
    found = {}
    for path in files:
        text, hits = hide_pii(path.read_text(encoding='utf-8'))
        found.update(hits)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            if hits:                                                # the rest is as it was
                ast.parse(text)
    assert len(files) > 500 and found.keys() == {'email'}           # its authors'; nothing else is in it


LONG = r"""
import time
from parts.prepare.clean import normalise, strip_html, strip_latex
from parts.prepare.personal_data import hide as hide_pii
PARTS = ['a', '@', '1-', '<', '$$', '-', '{', '\\', '%', '&', '&#1', ' ', '\n ', '```', '1 ', r'\begin{',
         r'\begin{equation}', r'\[', r'\cite[', r'\a[', r'\emph{', r'\emph{a ', '<!--', '<script>',
         '<script ', '<p ', 'a.', 'a@', 'a@a.', '+1 ', '555-', '(555) ', '-----BEGIN ', '-----BEGIN A',
         'eyJ-', 'xoxb-', 'sk-', 'password ', 'password="', 'api_key=',
         'Ã', 'â€', 'β€', 'Ãƒ', 'ðŸ', 'Â', '\u0301\u0323']
N = 20_000                      # characters; what a pattern bounds, it bounds by 10,000 or less

def seconds(function, part, around, n):
    before, after, closing = around
    text = before + part * (n // len(part)) + after + closing * (n // 7)
    start = time.process_time()         # of this process: others on the machine do not count
    function(text)
    return time.process_time() - start

def grows(function, part, around):
    '''CPU time at 4 N over CPU time at N. What takes less than a plain text of N characters is too little to
    matter, and to measure.'''
    short = max(seconds(function, part, around, N), seconds(function, 'Ab c. ', ('', '¢', ''), N))
    return seconds(function, part, around, 4 * N) / short

for function in (hide_pii, strip_html, strip_latex, lambda text: normalise(text, 'prose')):
    for part in PARTS:
        for around in (('', '¢', ''), (r'<p>\cite{a}', '_é', '}')):
            # Linear work grows by 4, by 5 with the bound of 10,000; quadratic by 16. 8 lies between. The
            # machine may slow down within one try, but not in the same place of five.
            assert any(grows(function, part, around) < 8 for _ in range(5)), (function, part, around)
print('done')"""


def test_no_text_takes_more_than_its_share_of_time():
    command = [sys.executable, '-X', 'utf8', '-c', LONG]    # regular expressions cannot be ended from inside
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == 'done\n', result.stderr[-500:]
