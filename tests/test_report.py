"""The report at the end of run.sh, from runs made up by hand; and run.sh itself is a list of commands."""
import json
import re

import pytest
from conftest import ROOT, ok, run

SPLIT = {'parse_rate': 0.9, 'pass@1': 0.5, 'pass@8': 0.75, 'interval': [0.4, 0.6], 'preferred_rate': 0.25}


@pytest.fixture
def home(tmp_path):
    for n, name in enumerate(('quickstart', 'quickstart_sft', 'quickstart_dpo', 'quickstart_rl')):
        folder = tmp_path / 'out' / name
        folder.mkdir(parents=True)
        tasks = {'loss': {'trained': {'bits_per_byte': 1.5 + n, 'nats': 4.0},
                          'untrained': {'bits_per_byte': 3.05}},
                 'problems': {'by_split': {split: SPLIT for split in ('variation', 'cell', 'family')}}}
        (folder / 'eval.json').write_text(json.dumps({'tasks': tasks}), encoding='utf-8')
        (folder / 'train.log').write_text(f'step 1\ndone in {n + 1}.5 minutes, lowest\n', encoding='utf-8')
        rows = [{'task_id': f'variation-{i}', 'split': 'variation', 'prompt': f'def f{i}():',
                 'outcome': 'wrong', 'completion': f'{name} {i} {k}'} for i in range(6) for k in 'ab']
        (folder / 'samples.jsonl').write_text('\n'.join(map(json.dumps, rows)) + '\n', encoding='utf-8')
    both = {'n': 120, 'a': 0.5, 'b': 0.7, 'interval': [0.11, 0.29],
            'gain': {'demonstrated': [0.25, 0.1, 0.4], 'never shown': [0.1, 0.0, 0.2]}}
    (folder / 'compare.json').write_text(json.dumps({'tasks': {'compare': both}}), encoding='utf-8')
    folder = tmp_path / 'out' / 'quickstart_dpo'
    both = {'n': 120, 'a': 0.5, 'b': 0.55, 'interval': [-0.01, 0.11],
            'gain': {'demonstrated': [0.05, -0.1, 0.2]}}
    (folder / 'compare.json').write_text(json.dumps({'tasks': {'compare': both}}), encoding='utf-8')
    return tmp_path


def test_the_report_has_a_row_a_stage_and_three_answers_side_by_side(home):
    said = ok(run('parts/eval/report.py', '--minutes=9.5', cwd=home))
    text = (home / 'out/quickstart/REPORT.md').read_text(encoding='utf-8')
    assert said.strip() == text.strip()
    assert '| base | 1.500 | 90% | 50.0% (40% to 60%) | 75.0% | 50.0% | 50.0% | 25% | 1.5 |' in text
    assert '| dpo | 3.500' in text and 'all +5.0% (-1.0% to +11.0%)' in text
    assert '| rl | 4.500' in text and 'RL over SFT, pass@1 of the same 120 problems' in text
    assert 'never shown +10.0% (+0.0% to +20.0%)' in text
    assert text.count('### variation-') == 3 and 'dashboard.png' in text
    for name in ('quickstart', 'quickstart_sft', 'quickstart_dpo', 'quickstart_rl'):
        assert f'{name} 0 a' in text and f'{name} 0 b' not in text      # the first answer of each
    found = json.loads((home / 'out/quickstart/report.json').read_text(encoding='utf-8'))
    assert [row['name'] for row in found['stages']] == ['base', 'sft', 'dpo', 'rl']
    assert found['minutes'] == 9.5 and 'gain' not in found['stages'][1]
    assert found['stages'][3]['gain'] == {'demonstrated': [0.25, 0.1, 0.4], 'never_shown': [0.1, 0.0, 0.2]}


def test_run_sh_is_at_most_60_lines_of_commands_that_exist():
    text = (ROOT / 'run.sh').read_text(encoding='utf-8')
    assert len(text.splitlines()) <= 60
    commands = re.findall(r'^python ((?:parts/)?\w+\.py)', text, re.M)
    assert len(commands) >= 12 and all((ROOT / script).exists() for script in commands)
