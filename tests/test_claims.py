"""docs/claims.md is complete, its arithmetic is computed again, and what it names exists."""
import re
import sys

import pytest
from conftest import ROOT, SHARED, ok, run

sys.path.insert(0, str(ROOT / 'bench'))
import claims  # noqa: E402  bench/claims.py

PAGE = (ROOT / 'docs' / 'claims.md').read_text(encoding='utf-8')
ROWS = claims.table_rows(PAGE)


def test_every_mistake_and_every_figure_of_the_sources_has_its_row():
    assert list(ROWS) == [*range(1, 59 + 26 + 1)]
    first_figure = PAGE.index('| 60 |')
    assert PAGE.index('| 59 |') < PAGE.index('## The figures that they promise') < first_figure
    for number, (claim, arithmetic, measured, check) in ROWS.items():
        assert claim and check and (arithmetic or measured), number


@pytest.mark.parametrize('number', ROWS)
def test_every_row_names_a_test_a_command_or_a_file_that_exists(number):
    names = re.findall(r'`([^`]+)`', ROWS[number][-1])
    assert names
    for name in names:
        words = name.split()
        if words[0] in ('python', 'bash'):
            assert all((ROOT / word).exists() for word in words[1:] if word.endswith(('.py', '.sh'))), name
        else:
            path, _, test = name.partition('::')
            assert (ROOT / path).is_file(), name
            assert not test or f'\ndef {test}(' in (ROOT / path).read_text(encoding='utf-8'), name


def test_the_script_computes_what_the_page_says(capsys):
    folder = [SHARED] if (SHARED / 'tinyshakespeare.txt').exists() else []
    said = ok(run('bench/claims.py', *folder))
    agrees = {int(n) for n in re.findall(r'^ *(\d+) agrees', said, re.M)}
    not_run = {int(n) for n in re.findall(r'^ *(\d+) not run', said, re.M)}
    assert agrees | not_run == ROWS.keys() and 'DIFFERS' not in said
    assert not_run <= ({17} if folder else claims.WITH_FOLDER)      # 17 is about Python 3.11.7
    assert claims.report({10: ROWS[10]}) == 0 and '10 not run' in capsys.readouterr().out
    assert claims.report({30: ['', '22 / 6 = 3.68', '', '']}) == 1 and 'DIFFERS' in capsys.readouterr().out


def test_an_equation_is_held_to_its_last_digit():
    for right in ('22 / 6 = 3.67', 'so 2 x 3 + 4 = 10, and', 'ln 256 = 5.545', '0.01 x 10,000 = 100 steps',
                  '(1 + cos(pi x 10 / 100)) / 2 = 97.6 %', '1 - (1 - 0.8^8)^32 = 0.997', 'e^0.934 = 2.54',
                  '$50,000 / 365 = $137', 'in float32, 30 x 2 = 60', 'n_ffn = 768', 'of x 1,024 = 26.2B'):
        assert claims.wrong_equations(right) == [], right
        assert ('=' in right and len(claims.equations(right)) == 1) == (right[0] not in 'no'), right
    for wrong in ('22 / 6 = 3.66', '2 x 3 + 4 = 11', 'ln 256 = 5.546', '1,000 / 10,000 = 11 %'):
        assert len(claims.wrong_equations(wrong)) == 1, wrong


def test_a_figure_that_changes_on_the_page_is_noticed():
    """Each digit of a result, one after the other, becomes another one."""
    claims.merges(), claims.chats(), claims.plans()
    noticed = 0
    for number, (claim, arithmetic, _, _) in ROWS.items():
        phrases = claims.computed.get(number, [])
        if claims.differences(claim, arithmetic, phrases):      # what is computed only by the whole script
            continue
        blank = lambda m: m[0].replace(m[1], ' ' * len(m[1]))
        results = re.sub(r'(arXiv:[\d.]+|\b[A-Za-z]+-?\d+|\b\d+[BM]\b)', blank,      # names such as T5
                         claims.EQUATION.sub(blank, arithmetic))
        for m in re.finditer(r'\d', results):
            changed = arithmetic[:m.start()] + str((int(m[0]) + 1) % 10) + arithmetic[m.end():]
            assert claims.differences(claim, changed, phrases), changed
            noticed += 1
    assert noticed > 200


def test_the_break_even_of_a_model_against_an_api():
    said = ok(run('bench/claims.py', '--cost=10500', '--price=30', '--tokens=1e6'))
    assert '$30.00 a day' in said and '350.00 days' in said
