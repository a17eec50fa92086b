"""The report at the end of run.sh, from runs made up by hand."""
import os
import re

from conftest import ok, read_json, run, write

SPLITS = {'variation': 0.5, 'feedback_variation': 0.4, 'cell': 0.3, 'family': 0.01}
GAINS = {'example tasks': [0.05, -0.1, 0.2], 'practice tasks': [0.182, 0.141, 0.223],
         'unseen combinations': [0.1, 0, 0.2]}


PROBLEMS = 0, 2, 10, 30, 31      # base answered the first three


def outcome(split, i, n):
    """On example tasks SFT (1) and RL (3) differ in 2. On practice tasks they do in 31, which base was not
    asked; before it they differ in why they fail. On unseen combinations both solve the same ones."""
    if split == 'feedback_variation':
        return 'passed' if i == 31 and n == 1 else ('name' if n == 3 else 'wrong')
    return 'passed' if i > 0 and n == 3 or split == 'cell' and i > 0 and n > 0 else 'wrong'


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
        write(folder / 'metrics.jsonl', [{'step': 2, 'loss': 4.0},
                                         {'step': 2, 'val_loss': 4.0, 'val_reward': 0.5}])
        write(folder / 'config.json', [{'max_steps': 2, 'preset': f'{name}.py' if n != 2 else None}])
        for file in 'tokenizer.json', 'last.pt':
            write(folder / file, [])
        os.utime(folder / 'tokenizer.json', (1e9, 1e9))
        os.utime(folder / 'last.pt', (1e9 + 60 * n + 90, 1e9 + 60 * n + 90))
        write(folder / 'samples.jsonl', [
            {'split': split, 'prompt': f'def {split}_{i}():\n    """Do {i}."""', 'preferred': i == 2,
             'outcome': outcome(split, i, n),
             'completion': f'{name} {i}' + '\n# the quick parrot' * (i == 10)}
            for split in SPLITS for i in PROBLEMS if n > 0 or i < 11])
        series.append({'ckpt': f'out/{name}', 'by_split': by_split})
    write(tmp_path / 'data/sft/train.jsonl', [{}] * 2000)
    write(tmp_path / 'out/quickstart/eight/eval.json', [{'tasks': {'problems': {'series': series}}}])

    said = ok(run('extras.chain_report', '--minutes=9.5', cwd=tmp_path))
    text = (tmp_path / 'out/quickstart/REPORT.md').read_text(encoding='utf-8')
    assert said.strip() == text.strip()
    row = '| base | 50.0% (40% to 60%) | 40.0% (30% to 50%) | 30.0% (20% to 40%) | 0% | 1.500 | 1.5 |'
    assert row in text
    assert '| 30.0% (20% to 40%) | 25% | 4.500 |' in text       # rl: one of its four passing answers
    assert '- RL, why answers fail: name 7, syntax 3' in text
    assert '- RL over SFT, practice tasks: +18.2 (+14.1 to +22.3)' in text
    assert '- base: val_loss 4 is in the usual range, 3.85 to 4.2\n' in text
    assert '- SFT: val_loss 4 is 3.7 too high: the usual range is 0.18 to 0.3; see' in text
    assert '- RL: val_reward 0.5 is 0.11 too low' in text and '- rejection sampling: val_loss 4 is' in text
    assert 'DPO with an SFT term: val' not in text              # that run had settings of its own
    assert 'first that only one of SFT and RL solves' in text
    kinds = dict(part.split('\n', 1) for part in text.split('\n### ')[1:])
    assert [re.findall(r'def (\w+)\(', part) for part in kinds.values()] == [
        ['variation_2'], ['feedback_variation_31'], ['cell_0']]
    assert '🔴 base' in kinds['example tasks'] and '🟢 RL: passed\n\n```python\nquickstart_rl 2\n' in text
    assert '🟢 SFT' in kinds['practice tasks'] and '🔴 RL: name' in kinds['practice tasks']
    assert 'base model was not asked' in kinds['practice tasks'] and text.count('was not asked') == 1
    assert 'solve the same ones of these 5 problems' in kinds['unseen combinations']
    assert text.count('solve the same ones') == 1
    machine = re.fullmatch(r'9\.5 minutes on (.+, \d+ threads on \d+ cores, \w+, Python 3\..+), commit \w+',
                           text.splitlines()[-1])[1]
    report = read_json(tmp_path / 'out/quickstart/report.json')
    *_, rl, control = report['stages']
    assert (rl['name'], rl['pass@8'], rl['pass@1_families']) == ('rl', 0.7, 0.01)
    assert rl['expect'] == {'val_reward': [0.5, 0.61, 0.81]} and rl['minutes'] == 4.5
    assert (control['name'], report['setting']) == ('control rejection sampling', 'scarce')
    assert rl['gain'] == control['gain'] == {key: GAINS[kind] for key, kind in report['names'].items()}
    assert len(report['names']) == 3 and report['machine'] == machine
