"""bench/records.py: when a record counts, and that the table in docs/training.md is that of the folders."""
import importlib.util
import shutil
import subprocess

import pytest
from conftest import ROOT

spec = importlib.util.spec_from_file_location('loss_records', ROOT / 'bench/records.py')
loss_records = importlib.util.module_from_spec(spec)
spec.loader.exec_module(loss_records)


def record(*bits, **more):
    return {'track': 'llama', 'what': 'a change', 'bits_per_byte': dict(enumerate(bits)), **more}


PATCHES = sorted(loss_records.RECORDS.glob('*/change.diff'))
FIRST = 2.0, 2.01, 1.99, 2.0, 2.0


def rows_of(capsys, records):
    loss_records.table(records)
    return [row.removeprefix('| ').split(' | ') for row in capsys.readouterr().out.splitlines()[2:]]


@pytest.mark.parametrize('bits, verdict', [
    ([1.9, 1.91, 1.89, 1.9, 1.9], 'counts'), ([1.9, 1.91, 1.89, 1.9], 'too few seeds'),
    ([1.9, 1.8, 2.1, 2.0, 1.95], 'does not count'), ([1.0], 'too few seeds'),
    ([1.998, 2.009, 1.987, 1.999, 1.997], 'counts'),            # by little, but with every seed
    ([2.1, 2.11, 2.09, 2.1, 2.1], 'does not count')])
def test_a_record_counts_with_five_seeds_and_two_standard_errors(capsys, bits, verdict):
    rows = rows_of(capsys, {'first': record(*FIRST), 'second': record(*bits, on='first')})
    rows = {row[0]: row for row in rows}
    assert rows['first'][2:5] == ['2.0000 ± 0.0032', '5', '']
    assert rows['second'][4].endswith(f': {verdict}')
    assert 'nan' not in str(rows) and 'inf' not in str(rows)


def test_each_is_compared_seed_by_seed_with_the_record_that_it_changes(capsys):
    rows = rows_of(capsys, {'first': record(*FIRST), 'worse': record(1.95, 1.96, 1.94, 1.95, 1.95, on='last'),
                            'last': record(1.9, 1.9, 1.9, 1.9, 1.9, on='first')})
    assert [row[0] for row in rows] == ['first', 'worse', 'last']           # the lowest comes last
    assert rows[1][4] == '+0.0500 ± 0.0032: does not count'
    assert rows[2][4] == '-0.1000 ± 0.0032: counts'


def test_the_table_in_the_docs_is_that_of_the_folders(capsys):
    found = {folder.name: loss_records.read(folder.name) for folder in sorted(loss_records.RECORDS.iterdir())}
    loss_records.table(found)
    docs = (ROOT / 'docs/training.md').read_text(encoding='utf-8')
    for row in capsys.readouterr().out.splitlines()[2:]:
        bits, seeds, against = [cell.strip() for cell in row.split('|')[3:6]]
        assert seeds == '5' and f'| {bits} | {against} |' in docs, row


@pytest.mark.skipif(shutil.which('patch') is None, reason='patch is not installed')
@pytest.mark.parametrize('change', PATCHES, ids=lambda path: path.parent.name)
def test_its_patch_still_fits_the_code(change):
    command = ['patch', '-p1', '--dry-run', '-i', change]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and 'fuzz' not in done.stdout, done.stdout
