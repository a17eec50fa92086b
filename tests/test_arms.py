"""bench/arms.py: when a difference counts, when it is a record, and runs at their smallest."""
import json
import pathlib
import re
import subprocess
import sys

import pytest
from conftest import ROOT, mistake, ok, run

sys.path.append(str(ROOT / 'bench'))
import arms  # noqa: E402

FIRST = [2.0, 2.01, 1.99, 2.0, 2.0]
HEAD = 'nn.Linear(c.n_embd, rows, bias=False)'
IN_GIT = (ROOT / '.git').exists()


def diff(path, changed):
    """What git says of a worktree in which model.py's HEAD was changed."""
    with arms.checkout('') as folder:
        model = pathlib.Path(folder, 'model.py')
        model.write_text(model.read_text(encoding='utf-8').replace(HEAD, changed), encoding='utf-8')
        path.write_bytes(subprocess.check_output(['git', '-C', folder, 'diff']))
    return path


def test_a_difference_counts_with_five_seeds_and_two_standard_errors():
    for second, verdict in (
            ([2.1, 2.11, 2.09, 2.1, 2.1], 'counts'), ([1.9, 1.8, 2.1, 2.0, 1.95], 'does not count'),
            ([1.998, 2.009, 1.987, 1.999, 1.997], 'counts')):           # by little, but with every seed
        mean, error, says = arms.difference(FIRST, second)
        assert says == verdict and abs(mean - (sum(second) - 10) / 5) < 1e-12 and 0 <= error < 0.1, second
        assert arms.difference(FIRST[:4], second[:4])[2] == 'too few seeds'


def test_what_keeps_a_challenger_from_a_record():
    def made(losses, tokens=100, context=8, seconds=60):
        return [{'bits': loss, 'tokens': tokens, 'context': context, 'seconds': seconds} for loss in losses]

    lower = [loss - 0.1 for loss in FIRST]
    for challenger, reasons in (
            (made(lower), []), (made(lower, seconds=65), []), (made(lower, 90, 4, 30), []),
            (made([loss + 0.1 for loss in FIRST]), ['the loss is higher']),
            (made([1.9, 1.8, 2.1, 2.0, 1.95]), ['does not count']),
            (made(lower[:4], 101), ['too few seeds', '101 tokens, and the record has 100']),
            (made(lower, context=9), ['9 context, and the record has 8']),
            (made(lower, seconds=67), ['67 seconds, and the record has 60'])):
        assert [*arms.against(made(FIRST[:len(challenger)]), challenger)] == reasons


def test_each_row_of_the_records_names_a_config_and_its_data():
    rows = re.findall(r'^\| (\w+_\d+) \|', (ROOT / 'bench/records.md').read_text(encoding='utf-8'), re.M)
    assert {'shakespeare_1', 'quickstart_1'} <= set(rows)
    for name in rows:
        row, words = arms.row_of(name, ROOT / 'bench/records.md')
        assert 'data_from = ' in (ROOT / words[0]).read_text(encoding='utf-8') and row.count('|') == 8


@pytest.fixture(scope='module')
def track(tmp_path_factory):
    """A folder with a table of one record, whose config is tiny and whose text is made up."""
    folder = tmp_path_factory.mktemp('track')
    (folder / 'text.txt').write_text('The cat sat on the mat. A dog ran.\n' * 200, encoding='utf-8')
    ok(run('prepare.py', '--source=text.txt', '--tokenizer=char', '--out_dir=data', cwd=folder))
    lines = [*'n_layer=1 n_head=1 n_embd=16 block_size=16 batch_size=2 max_steps=3 warmup_steps=1'.split(),
             'compile = False', 'dtype = "float32"', f'data_dir = {str(folder / "data")!r}']
    (folder / 'tiny.py').write_text('\n'.join(lines), encoding='utf-8')
    row = f'| tiny_1 | Llama layout kept | 3 | - | 1 | - | `{folder}/tiny.py --learning_rate=1e-3` |'
    (folder / 'records.md').write_text(f'| name |\n|---|\n{row}\n', encoding='utf-8')
    return folder


def enter(track, *flags):
    """arms.py, with one seed and the record of that folder."""
    return run('bench/arms.py', '--record=tiny_1', f'--records={track}/records.md', '--seeds=1',
               f'--out={track}/kept', *flags)


@pytest.mark.skipif(not IN_GIT, reason='an arm is a commit')
def test_a_challenger_of_another_layout_gets_its_row_and_the_same_command_resumes(track, capsys):
    other = diff(track / 'other.diff', HEAD.replace(', bias=False', ''))
    flags = f'--patch={other}', '--b=--learning_rate=1e-2', '--anything_goes'
    lines = ok(enter(track, *flags)).splitlines()
    [a], [b] = (json.loads(lines[2])[name] for name in 'ab')
    assert a != b and lines[0] == f'seed 0: {a:.4f} and {b:.4f} nats per character'
    assert lines[1].endswith('too few seeds') and lines[3].startswith('no record: too few seeds')
    cells = [cell.strip() for cell in lines[4].split('|')]
    assert cells[1:5] == ['my_record', 'anything goes', f'{b:.4f} ± nan: {b:.4f}', f'{a:.4f}']
    flags_of_both = f'`{track}/tiny.py --learning_rate=1e-3 --learning_rate=1e-2`'
    assert cells[7] == f'[patch](records/my_record.diff), {flags_of_both}'

    kept, = track.glob('kept/*/a0.json')
    kept.write_text(json.dumps(json.loads(kept.read_bytes()) | {'nats': 1.25}), encoding='utf-8')
    assert ok(enter(track, *flags)).startswith(f'seed 0: 1.2500 and {b:.4f} ')

    with arms.checkout('') as clean, arms.checkout(other) as changed, pytest.raises(SystemExit) as stopped:
        arms.one_run(changed, clean, [f'{track}/tiny.py'], track / 'data', 0)
    assert stopped.value.code == 2 and '--anything_goes' in capsys.readouterr().err


@pytest.mark.skipif(not IN_GIT, reason='an arm is a commit')
def test_equal_arms_end_equal_bit_for_bit(track):
    same = diff(track / 'same.diff', f'{HEAD}     # as before')
    lines = ok(run('bench/arms.py', track / 'tiny.py', '--steps=2', '--seeds=1', f'--patch={same}',
                   f'--out={track}')).splitlines()
    assert lines[1] == 'b - a: +0.0000 ± nan: too few seeds'
    figures = json.loads(lines[2])
    assert figures['a'] == figures['b'] and 'torch' in figures['machine']


def test_mistakes(track, tmp_path):
    mistake(enter(track, '--record=tiny_2'), '--record=tiny_2', 'it has tiny_1')
    mistake(enter(track, '--a=--seed=3'), '--a=--seed=3', 'expected --b')
    mistake(run('bench/arms.py', f'--data_dir={tmp_path}'), str(tmp_path), 'prepare.py --source=stdlib')
