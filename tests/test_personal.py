"""What of a text is personal, in the scripts of twelve languages, and what only looks like it."""
import collections
import pathlib
import sysconfig

import pytest
from conftest import read_rows, table

from extras.text.personal import hide

TABLE = read_rows(pathlib.Path(__file__).with_name('personal.jsonl'))
FRAMES = '{}', 'Write to {}, please.', '({})', '"{}"', 'x\n{}\ny', 'It is {}.', '请{}。', '_{}_'
BODY = 'MIIEpAIBAAKCAQEA0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKL\n' * 3
PEM = f'-----BEGIN RSA PRIVATE KEY-----\n{BODY}-----END RSA PRIVATE KEY-----'
PERSONAL = """
email: ann@uni.edu | first.last+tag@sub.domain.co.uk | JOHN@COMPANY.COM | x%y@physics.ox.ac.uk
phone: +1 415 555 2671 | +1-415-555-2671 | +1 (415) 555-2671 | (415)555-2671 | 1-415-555-2671
phone: 415.555.2671 | +49 (0)30 901820 | +33 1 23 45 67 89 | +4915112345678
ssn: 123-45-6789 | 899-99-9999 | 001-01-0001
key: AKIAIOSFODNN7EXAMPLE | ghp_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3 | glpat-abcdefghij0123456789
key: AIzaSy_-xSy_-xSy_-xSy_-xSy_-xSy_-xSy_-x | hf_abcdeFGHIJabcdeFGHIJabcdeFGHIJ
key: sk-abCD12_-abCD12_-abCD12_-abCD12_-abCD12_-a | xoxb-123456789012-abcdefghijkl
key: eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"""
PERSONAL = [(kind, text) for kind, texts in table(PERSONAL, ': ') for text in texts.split(' | ')]
PERSONAL += [('key', PEM), ('key', PEM.replace('KEY-----\nM', 'KEY-----\nDEK-Info: AES,AB12\n\nM'))]


def hidden(text, is_code=False):
    """What hide makes of a text, and what it counts."""
    found = collections.Counter()
    return hide(text, found, is_code), dict(+found)


@pytest.mark.parametrize('row', TABLE, ids=[row['text'] for row in TABLE])
def test_what_is_personal_goes_and_every_other_letter_stays(row):
    counts = {kind: n for kind in ('email', 'phone', 'ssn', 'key')
              if (n := row['hidden'].count(f'<{kind.upper()}>'))}
    assert hidden(row['text'], row.get('is_code', False)) == (row['hidden'], counts)


@pytest.mark.parametrize('frame', FRAMES)
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
