"""bench/arms.py: when a difference counts."""
import subprocess
import sys

from conftest import ROOT

sys.path.append(str(ROOT / 'bench'))
import arms  # noqa: E402


def test_a_challenger_needs_a_lower_loss_in_hardly_more_time():
    def runs(losses, seconds=500, tokens=8):
        return [{'bits': x, 'seconds': seconds, 'tokens': tokens, 'context': 7} for x in losses]

    record = runs([2.0, 2.01, 1.99, 2.0, 2.0])
    assert [*arms.against(record[:2], runs([1.9, 1.9]))] == ['too few seeds']
    lower = [1.9, 1.91, 1.89, 1.9, 1.9]
    for challenger, reasons in (
            (runs(lower, 540), []), (runs([2.1, 2.11, 2.09, 2.1, 2.1]), ['the loss is higher']),
            (runs(lower, 560), ['560 seconds, and the record has 500']),
            (runs(lower, tokens=9), ['9 tokens, and the record has 8']),
            (runs([1.9, 2.1, 1.8, 2.2, 2.0]), ['does not count']),
            # seed by seed it is lower, by less than seeds differ
            (runs([1.998, 2.009, 1.987, 1.999, 1.997]), [])):
        assert [*arms.against(record, challenger)] == reasons, challenger


def test_each_row_of_the_board_is_a_command_and_its_patch_applies_to_the_code_of_today():
    assert arms.words_of('quickstart_1') == ['config/quickstart.py']
    words = ['config/quickstart.py', '--beta2=0.9']
    row = arms.row_for('mine', words, '', [[{'bits': 2, 'seconds': 9}]], 'here')
    assert row == '| mine | 2.0000 ± nan: 2.0000 | - | 9 | here | `config/quickstart.py --beta2=0.9` |'
    for path in (ROOT / 'bench/records').glob('*.diff'):
        done = subprocess.run(['git', 'apply', '--check', path], cwd=ROOT, capture_output=True, text=True)
        assert not done.returncode, done.stderr
