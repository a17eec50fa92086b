"""The report at the end of run.sh, from runs made up by hand."""
import re

from conftest import ok, read_json, run, write

SPLITS = {'variation': 0.5, 'feedback_variation': 0.4, 'cell': 0.3, 'family': 0.01}
GAINS = {'example tasks': [0.05, -0.1, 0.2], 'practice tasks': [0.182, 0.141, 0.223],
         'unseen combinations': [0.1, 0, 0.2]}


def test_the_report_has_a_row_a_stage_the_gains_and_a_problem_of_each_kind(tmp_path):
    by_split = {split: {'parse_rate': 0.9, 'pass@1': share, 'interval': [share - 0.1, share + 0.1],
                        'pass@8': 0.7} for split, share in SPLITS.items()}
    series = []
    stages = 'quickstart', 'quickstart_sft', 'quickstart_dpo', 'quickstart_rl', 'quickstart_rejection'
    for n, name in enumerate(stages):
        folder = tmp_path / 'out' / name
        tasks = {'loss': {'trained': {'bits_per_byte': 1.5 + n}},
                 'problems': {'by_split': by_split, 'failures': {'name': 7, 'syntax': n}},
                 'compare': {'gain': GAINS}}
        for file in 'eval.json', 'compare.json':
            write(folder / file, [{'tasks': tasks}])
        write(folder / 'metrics.jsonl', [{'step': 1, 'uptime_s': 60 * n + 90}, {'step': 2, 'val_loss': 4.0}])
        write(folder / 'samples.jsonl', [
            {'split': split, 'prompt': f'def {split}_{i}():\n    """Do {i}."""', 'preferred': i == 2,
             'outcome': 'passed' if n == 3 and i > 0 else 'wrong',
             'completion': f'{name} {i}' + '\n# the quick parrot' * (i == 10)}
            for split in SPLITS for i in (0, 2, 10)])
        series.append({'ckpt': f'out/{name}', 'by_split': by_split})
    write(tmp_path / 'data/sft/train.jsonl', [{}] * 2000)
    write(tmp_path / 'out/quickstart/eight/eval.json', [{'tasks': {'problems': {'series': series}}}])

    said = ok(run('parts.eval.chain_report', '--minutes=9.5', cwd=tmp_path))
    text = (tmp_path / 'out/quickstart/REPORT.md').read_text(encoding='utf-8')
    assert said.strip() == text.strip()
    row = '| base | 50.0% (40% to 60%) | 40.0% (30% to 50%) | 30.0% (20% to 40%) | 0% | 1.500 | 1.5 |'
    assert row in text
    assert '| 30.0% (20% to 40%) | 50% | 4.500 |' in text       # rl: one of its two passing answers
    assert '- RL, why answers fail: name 7, syntax 3' in text
    assert '- RL over SFT, practice tasks: +18.2 (+14.1 to +22.3)' in text
    for split in 'variation', 'feedback_variation', 'cell':     # the first one on which SFT and RL differ: 2
        assert f'def {split}_2():' in text and f'def {split}_10():' not in text
    assert text.count('🟢 RL: passed\n\n```python\nquickstart_rl 2\n') == 3
    first, machine, *last = text.splitlines()[-5:]
    assert first.startswith('nanoparrot learned to write Python in 9.5 minutes (commit ')
    assert re.search(r'.+, \d+ threads on \d+ cores, \w+, Python 3\.', machine)
    assert last == ['practice tasks solved: 40.0% after SFT, 40.0% after RL, '
                    '40.0% after rejection sampling',
                    'I asked the base model: Do 10.', 'It answered: the quick parrot']
    report = read_json(tmp_path / 'out/quickstart/report.json')
    *_, rl, control = report['stages']
    assert (rl['name'], rl['pass@8'], rl['pass@1_families']) == ('rl', 0.7, 0.01)
    assert (control['name'], report['setting']) == ('control rejection sampling', 'scarce')
    keys = {'demonstrated': 'example tasks', 'feedback_only': 'practice tasks',
            'never_shown': 'unseen combinations'}
    assert report['names'] == keys and report['machine'] == machine
    assert rl['gain'] == control['gain'] == {key: GAINS[kind] for key, kind in keys.items()}
