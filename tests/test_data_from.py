"""A config file says where its data come from: the error names that command."""
import os
import re
import shlex

import pytest
from conftest import ROOT, mistake, ok, run

from model import GPT, GPTConfig, save_checkpoint
from tokenizer import SPECIAL_TOKENS, Tokenizer

PRESETS = sorted(path for path in (ROOT / 'config').glob('*.py')
                 if '\ndata_from = ' in path.read_text(encoding='utf-8'))


def script_of(path):
    """The script that a config's own comment runs it with."""
    return re.search(r'(\w+\.py) config/' + path.name, path.read_text(encoding='utf-8'))[1]


def settings(path):
    scope = {}
    exec(path.read_text(encoding='utf-8'), scope)
    return scope


def commands_of(text):
    """A shell line -> [(script, {flag: value})]"""
    found = []
    for part in text.split(' && '):
        words = shlex.split(part)
        if words[0] == 'python':
            found.append((words[1], dict(word[2:].split('=', 1) for word in words[2:])))
    return found


@pytest.mark.parametrize('path', PRESETS, ids=lambda p: p.stem)
def test_the_command_of_a_preset_leads_to_its_data(path):
    script, preset = script_of(path), settings(path)
    *_, (program, flags) = commands_of(preset['data_from'])
    writes = flags.get('out_dir') or os.path.dirname(flags['out'])
    assert (ROOT / program).exists() and writes == preset['data_dir']
    if 'vocab_size' in preset and 'vocab_size' in flags:
        assert int(flags['vocab_size']) == preset['vocab_size']
    kind = {'train.py': 'text', 'sft.py': 'sft', 'dpo.py': 'preference'}[script]
    assert flags.get('kind', 'text') == kind or program == 'parts/eval/problems.py'
    if program == 'prepare.py':
        assert flags['source']              # it never falls back on the standard library unsaid


@pytest.mark.parametrize('flags', [[], ['--tokenizer=byte'], ['--write=text', '--out_dir=a \n b']])
def test_the_command_that_prepare_prints_takes_its_data(flags, python_files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = ok(run('prepare.py', f'--source={python_files}/email', '--vocab_size=400', *flags, cwd=tmp_path))
    _, script, *words = shlex.split(said.rpartition('next: ')[2])
    assert (ROOT / words.pop(0)).exists()
    flags = dict(word[2:].split('=', 1) for word in words)
    assert script == 'train.py' and flags['sample_prompt'] == ''
    assert (tmp_path / flags['data_dir'] / 'meta.json').exists()


def test_the_trainers_name_the_command(tmp_path):
    config = ROOT / 'config/shakespeare_cpu.py'
    mistake(run('train.py', config, cwd=tmp_path), '--source=shakespeare --tokenizer=char')
    assert not (tmp_path / 'out').exists()
    os.makedirs(tmp_path / 'model')
    tok = Tokenizer.byte(SPECIAL_TOKENS[:4])
    tok.save(tmp_path / 'model/tokenizer.json')
    save_checkpoint(tmp_path / 'model/best.pt', GPT(GPTConfig(tok.vocab_size, 64, 1, 2, 0, 16)), step=1)
    for script in ('sft', 'dpo'):
        config = ROOT / f'config/quickstart_{script}.py'
        result = run(f'{script}.py', config, '--init_from=model', '--device=cpu', cwd=tmp_path)
        mistake(result, settings(config)['data_from'])
    mistake(run('train.py', '--data_dir=a b', cwd=tmp_path), "prepare.py --source=", "--out_dir='a b'")


def test_each_stage_says_which_decision_it_locks_in():
    for name in ('prepare', 'tokenizer', 'model', 'train', 'sft', 'dpo', 'eval'):
        doc = (ROOT / f'{name}.py').read_text(encoding='utf-8').split('"""')[1]
        assert re.search(r'[Tt]he decisions? made here (is|are) \w+', doc), name
    page = (ROOT / 'docs/decide.md').read_text(encoding='utf-8')
    for decision in ('corpus', 'tokenizer', 'objective', 'architecture', 'infrastructure'):
        assert f'\n| {decision} |' in page
