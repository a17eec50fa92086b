"""The report at the end of run.sh, from runs made up by hand."""
import os

from conftest import ok, read_json, run, write

SPLITS = 'variation', 'feedback_variation', 'cell'
GAIN = dict.fromkeys(['example tasks', 'practice tasks', 'unseen combinations'], [0.182, 0.141, 0.223])
STAGES = 'quickstart', 'quickstart_sft', 'quickstart_dpo', 'quickstart_rl', 'quickstart_rejection'
ROWS = """
| base | 50.0% (40% to 60%) | 50.0% (40% to 60%) | 50.0% (40% to 60%) | 0% | 1.500 | 1.5 |
- RL, why answers fail: name 7, syntax 3
- RL over SFT, practice tasks: +18.2 (+14.1 to +22.3)
- base: val_loss 4 is in the usual range, 3.85 to 4.2
- SFT: val_loss 4 is outside the usual range, 0.18 to 0.32; see
9.5 minutes on """


def test_the_report_has_a_row_a_stage_and_the_gains(tmp_path):
    score = {'pass@1': 0.5, 'interval': [0.4, 0.6]}
    for n, name in enumerate(STAGES):
        folder = tmp_path / 'out' / name
        tasks = {'loss': {'trained': {'bits_per_byte': 1.5}},
                 'problems': {'by_split': dict.fromkeys(SPLITS, score), 'failures': {'name': 7, 'syntax': n}}}
        for file, row in (('eval.json', {'tasks': tasks}), ('compare.json', {'gain': GAIN}),
                          ('metrics.jsonl', {'step': 2, 'val_loss': 4.0, 'val_reward': 0.4}),
                          ('config.json', {'preset': f'{name}.py'}), ('tokenizer.json', {}), ('last.pt', {}),
                          ('samples.jsonl', {'split': 'variation', 'preferred': n, 'outcome': 'passed'})):
            seconds = 1e9 + 90 * (file == 'last.pt')
            os.utime(write(folder / file, [row]), (seconds, seconds))
    ok(run('extras.tasks.chain_report', '--minutes=9.5', cwd=tmp_path))
    text = (tmp_path / 'out/quickstart/REPORT.md').read_text()
    assert not [row for row in ROWS.strip().split('\n') if row not in text]
    *_, rl, _ = read_json(tmp_path / 'out/quickstart/report.json')['stages']
    assert (rl['name'], rl['pass@1_feedback'], rl['minutes']) == ('rl', 0.5, 1.5)
    assert rl['expect'] == {'val_reward': [0.4, 0.5, 0.81]}
