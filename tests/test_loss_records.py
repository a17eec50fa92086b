"""bench/records.py: when a record counts, and that the table in docs/training.md is that of the folders."""
import importlib.util

import pytest
from conftest import ROOT

spec = importlib.util.spec_from_file_location('loss_records', ROOT / 'bench/records.py')
loss_records = importlib.util.module_from_spec(spec)
spec.loader.exec_module(loss_records)


def record(*bits, track='llama'):
    return {'track': track, 'what': 'a change', 'bits_per_byte': {str(i): b for i, b in enumerate(bits)}}


@pytest.mark.parametrize('bits, verdict', [
    ([1.9, 1.91, 1.89, 1.9, 1.9], 'counts'), ([1.9, 1.91, 1.89, 1.9], 'does not count'),      # four seeds
    ([1.9, 1.8, 2.1, 2.0, 1.95], 'does not count'), ([1.0], 'does not count')])
def test_a_record_counts_with_five_seeds_and_two_standard_errors(capsys, bits, verdict):
    loss_records.table({'first': record(2.0, 2.01, 1.99, 2.0, 2.0), 'second': record(*bits)})
    rows = capsys.readouterr().out.splitlines()
    assert rows[2].startswith('| first | llama | 2.0000 ± 0.0032 | 5 |  |')
    assert rows[3].split(' | ')[4].endswith(f': {verdict}')


def test_what_does_not_count_is_no_bar_for_the_next_and_tracks_are_apart(capsys):
    first, last = record(2.0, 2.01, 1.99, 2.0, 2.0), record(1.99, 1.98, 1.97, 1.98, 1.98)
    loss_records.table({'first': first, 'close': record(1.99, 2.0, 1.98, 1.99), 'last': last,
                        'free': record(1.9, 1.9, 1.9, 1.9, 1.9, track='free')})
    rows = {row.split(' | ')[0][2:]: row.split(' | ') for row in capsys.readouterr().out.splitlines()[2:]}
    assert rows['last'][4].startswith('-0.0200') and rows['last'][4].endswith(': counts')
    assert rows['free'][4] == ''


def test_the_table_in_the_docs_is_that_of_the_folders(capsys):
    found = {folder.name: loss_records.read(folder.name) for folder in sorted(loss_records.RECORDS.iterdir())}
    loss_records.table(found)
    docs = (ROOT / 'docs/training.md').read_text(encoding='utf-8')
    for row in capsys.readouterr().out.splitlines()[2:]:
        bits, seeds, against = [cell.strip() for cell in row.split('|')[3:6]]
        assert seeds == '5' and f'| {bits} | {against} |' in docs, row
