"""What the dashboard reads beside the usual lines: nulls, and the pass rates that eval.py found."""
import json
import math

from conftest import ok, run
from test_plot import NAN, history, write

from parts.eval.verdict import read_run


def test_the_pass_rate_of_the_checkpoints_joins_the_run(tmp_path):
    folder = write(tmp_path / 'a', history(50))
    several = {'series': [{'step': step, 'pass@1': step / 100, 'ckpt': 'x'} for step in (50, 20)]}
    one = {'step': 40, 'pass@1': 0.4}
    for name, task in (('eval', several), ('eval-7', one), ('eval-8', {'pass@1': 1})):
        (folder / f'{name}.json').write_text(json.dumps({'tasks': {'problems': task}}), encoding='utf-8')
    (folder / 'eval-10.json').write_text(json.dumps({'tasks': {'problems': {'step': None, 'pass@1': 0.5}}}),
                                        encoding='utf-8')       # of completions that no model wrote
    (folder / 'eval-9.json').write_text('{"tasks": {}}', encoding='utf-8')
    found = read_run(str(folder))['rows']
    passed = [(m['step'], m['pass_rate']) for m in found if 'pass_rate' in m]
    assert passed == [(20, 0.2), (40, 0.4), (50, 0.5)]
    steps = [m['step'] for m in found]
    assert steps == sorted(steps) and len(steps) == 3 + len(history(50))
    assert 'healthy' in ok(run('plot.py', '--runs=a', cwd=tmp_path))


def test_null_is_a_loss_that_was_not_a_number_and_else_nothing(tmp_path):
    rows = history(50, loss=lambda step: NAN, mfu=lambda step: NAN)
    rows = json.loads(json.dumps(rows).replace('NaN', 'null'))
    found = read_run(str(write(tmp_path / 'a', rows)))['rows']
    logged = [row for row in found if 'loss' in row]
    assert len(logged) == sum('loss' in row for row in rows) > 3
    assert all(math.isnan(row['loss']) and 'mfu' not in row for row in logged)
    assert 'lower learning_rate' in ok(run('plot.py', '--runs=a', cwd=tmp_path))


def test_files_that_are_half_written_or_of_others_are_passed_over(tmp_path):
    odd = '{"step": 30, "loss": "abc", "lr": 1}\n{"step": "x"}\n{"step": 40, "loss": [1]}\n[1]\n'
    folder = write(tmp_path / 'a', history(50), half=odd)
    for i, text in enumerate(('{}', '[]', '{"tasks": {"prob', '', '3', '{"tasks": []}',
                              '{"tasks": {"problems": 3}}',
                              '{"tasks": {"problems": {"pass@1": 0.5, "step": "x"}}}')):
        (folder / f'eval-{i}.json').write_text(text, encoding='utf-8')
    assert 'healthy' in ok(run('plot.py', '--runs=a', cwd=tmp_path))
    (folder / 'config.json').write_text('{"max_steps": 10', encoding='utf-8')
    assert 'healthy' in ok(run('plot.py', '--runs=a', cwd=tmp_path))
