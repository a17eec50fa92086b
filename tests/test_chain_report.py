"""The report at the end of run.sh, from runs made up by hand."""
import os

from conftest import ok, read_json, run, write

BY_SPLIT = {split: {'pass@1': share, 'interval': [share - 0.1, share + 0.1]}
            for split, share in (('variation', 0.5), ('feedback_variation', 0.4), ('cell', 0.3))}
GAINS = {'example tasks': [0.05, -0.1, 0.2], 'practice tasks': [0.182, 0.141, 0.223],
         'unseen combinations': [0.1, 0, 0.2]}
STAGES = 'quickstart', 'quickstart_sft', 'quickstart_dpo', 'quickstart_rl', 'quickstart_rejection'


def test_the_report_has_a_row_a_stage_and_the_gains(tmp_path):
    for n, name in enumerate(STAGES):
        folder = tmp_path / 'out' / name
        tasks = {'loss': {'trained': {'bits_per_byte': 1.5 + n}},
                 'problems': {'by_split': BY_SPLIT, 'failures': {'name': 7, 'syntax': n}}}
        write(folder / 'eval.json', [{'tasks': tasks}])
        write(folder / 'compare.json', [{'gain': GAINS}])
        write(folder / 'metrics.jsonl', [{'step': 2, 'val_loss': 4.0, 'val_reward': 0.4}])
        write(folder / 'config.json', [{'max_steps': 2, 'preset': f'{name}.py'}])
        for file, seconds in ('tokenizer.json', 0), ('last.pt', 60 * n + 90):
            os.utime(write(folder / file, []), (1e9 + seconds, 1e9 + seconds))
        write(folder / 'samples.jsonl', [
            {'split': split, 'preferred': n == 3, 'outcome': 'passed'} for split in BY_SPLIT])

    ok(run('extras.chain_report', '--minutes=9.5', cwd=tmp_path))
    text = (tmp_path / 'out/quickstart/REPORT.md').read_text(encoding='utf-8')
    for row in ('| base | 50.0% (40% to 60%) | 40.0% (30% to 50%) | 30.0% (20% to 40%) | 0% '
                '| 1.500 | 1.5 |', '- RL, why answers fail: name 7, syntax 3',
                '- RL over SFT, practice tasks: +18.2 (+14.1 to +22.3)',
                '- base: val_loss 4 is in the usual range, 3.85 to 4.2\n',
                '- SFT: val_loss 4 is outside the usual range, 0.18 to 0.32; see',
                '\n9.5 minutes on '):
        assert row in text, row
    *_, rl, _ = read_json(tmp_path / 'out/quickstart/report.json')['stages']
    assert (rl['name'], rl['pass@1_feedback'], rl['minutes']) == ('rl', 0.4, 4.5)
    assert rl['expect'] == {'val_reward': [0.4, 0.5, 0.81]}
