"""The report at the end of run.sh, from runs made up by hand."""
import os
import re

from conftest import ok, read_json, run, write

SPLITS = {'variation': 0.5, 'feedback_variation': 0.4, 'cell': 0.3, 'family': 0.01}
GAINS = {'example tasks': [0.05, -0.1, 0.2], 'practice tasks': [0.182, 0.141, 0.223],
         'unseen combinations': [0.1, 0, 0.2]}
BY_SPLIT = {split: {'parse_rate': 0.9, 'pass@1': share, 'interval': [share - 0.1, share + 0.1],
                    'pass@8': 0.7} for split, share in SPLITS.items()}
STAGES = 'quickstart', 'quickstart_sft', 'quickstart_dpo', 'quickstart_rl', 'quickstart_rejection'


def outcome(split, i, n):
    """SFT (1) and RL (3) differ in example task 2, and in practice task 3, which base was not
    asked. They solve the same unseen combinations."""
    solved = {'variation': i == 2 and n == 3, 'feedback_variation': i == 3 and n == 1}
    return 'passed' if solved.get(split, i > 0) else 'wrong'


def test_the_report_has_a_row_a_stage_the_gains_and_a_problem_of_each_kind(tmp_path):
    for n, name in enumerate(STAGES):
        folder = tmp_path / 'out' / name
        tasks = {'loss': {'trained': {'bits_per_byte': 1.5 + n}}, 'compare': {'gain': GAINS},
                 'problems': {'by_split': BY_SPLIT, 'failures': {'name': 7, 'syntax': n}}}
        for file in 'eval.json', 'compare.json':
            write(folder / file, [{'tasks': tasks}])
        write(folder / 'metrics.jsonl', [{'step': 2, 'val_loss': 4.0, 'val_reward': 0.5}])
        write(folder / 'config.json', [{'max_steps': 2, 'preset': f'{name}.py'}])
        for file, seconds in ('tokenizer.json', 0), ('last.pt', 60 * n + 90):
            os.utime(write(folder / file, []), (1e9 + seconds, 1e9 + seconds))
        write(folder / 'samples.jsonl', [
            {'split': split, 'prompt': f'def {split}_{i}():', 'preferred': i == 2,
             'outcome': outcome(split, i, n), 'completion': f'{name} {i}'}
            for split in SPLITS for i in range(4 if n > 0 else 3)])
    write(tmp_path / 'data/sft/train.jsonl', [{}] * 2000)
    write(tmp_path / 'out/quickstart/eight/eval.json', [{'tasks': {'problems': {'series': [
        {'ckpt': f'out/{name}', 'by_split': BY_SPLIT} for name in STAGES]}}}])

    ok(run('extras.chain_report', '--minutes=9.5', cwd=tmp_path))
    text = (tmp_path / 'out/quickstart/REPORT.md').read_text(encoding='utf-8')
    for row in ('| base | 50.0% (40% to 60%) | 40.0% (30% to 50%) | 30.0% (20% to 40%) | 0% '
                '| 1.500 | 1.5 |', '- RL, why answers fail: name 7, syntax 3',
                '- RL over SFT, practice tasks: +18.2 (+14.1 to +22.3)',
                '- base: val_loss 4 is in the usual range, 3.85 to 4.2\n',
                '- SFT: val_loss 4 is 3.7 too high: the usual range is 0.18 to 0.3',
                '- RL: val_reward 0.5 is 0.11 too low', '\n9.5 minutes on '):
        assert row in text, row
    kinds = text.split('\n### ')[1:]
    assert [re.findall(r'def (\w+)\(', kind) for kind in kinds] == [
        ['variation_2'], ['feedback_variation_3'], ['cell_0']]
    assert '🔴 base' in kinds[0] and '🟢 RL: passed\n\n```python\nquickstart_rl 2\n' in kinds[0]
    assert 'base model was not asked' in kinds[1] and 'solve the same ones' in kinds[2]
    *_, rl, control = read_json(tmp_path / 'out/quickstart/report.json')['stages']
    assert (rl['name'], rl['pass@8'], rl['minutes']) == ('rl', 0.7, 4.5)
    assert rl['expect'] == {'val_reward': [0.5, 0.61, 0.81]}
    assert [*rl['gain'].values()] == [*control['gain'].values()] == [*GAINS.values()]
