"""A wrong file where a script wants another one: a sentence with its name and what is expected."""
import gzip
import json

import pytest
from conftest import ROOT, mistake, run

from parts.eval.benchmarks import to_task
from parts.train.checkpoint import read
from parts.train.records import read_jsonl
from tokenizer import Tokenizer

LINES = ''.join(json.dumps({'prompt': f'Say {i}.', 'answer': str(i)}) + '\n' for i in range(40))
WRONG = {'cut.jsonl.gz': gzip.compress(LINES.encode())[:-40], 'none.jsonl.gz': b'he', 'number.jsonl': b'5\n',
         'damaged.jsonl.gz': gzip.compress(b'x' * 99)[:10] + b'\xff' * 99, 'list.jsonl': b'[1, 2]\n',
         'half.jsonl': b'{"prompt": "a",\n', 'bytes.jsonl': b'\xff\xfe\0', 'deep.jsonl': b'[' * 100_000,
         'text.jsonl': b'{"prompt": 5, "test": "x", "entry_point": "f"}\n', 'folder.jsonl': None}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('wrong')
    for name, data in WRONG.items():
        if data is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize('name', WRONG)
def test_a_file_of_records_that_is_none_is_one_sentence(folder, name):
    with pytest.raises(ValueError, match=rf'{name}, line \d+: \w+: .*; a line is like this') as e:
        read_jsonl(str(folder / name), to_task, 'a line is like this')
    assert e.type is ValueError and '\n' not in str(e.value)


def test_what_stands_before_the_cut_does_not_pass_for_the_whole(folder, tmp_path):
    (tmp_path / 'whole.jsonl.gz').write_bytes(gzip.compress(LINES.encode()))
    assert len(read_jsonl(str(tmp_path / 'whole.jsonl.gz'), to_task, '')) == 40


def test_the_scripts_say_it_too(folder, tmp_path):
    cut = folder / 'cut.jsonl.gz'
    own = tmp_path / 'own.jsonl'
    own.write_text('{"prompt": "a", "regex": "b"}\n', encoding='utf-8')
    yes = '--allow_code_execution=True'
    result = run('eval.py', '--tasks=gsm8k', f'--data={cut}', '--completions=x')
    mistake(result, 'cut.jsonl.gz', 'see the top of eval.py')
    result = run('eval.py', '--tasks=own', f'--data={own}', f'--completions={cut}', yes)
    mistake(result, 'cut.jsonl.gz', '"task_id"')
    mistake(run('prepare.py', f'--source={ROOT}/parts', f'--out_dir={tmp_path}/out',
                f'--decontaminate={folder}/none.json'), 'none.json', 'expected the file of a benchmark')


@pytest.mark.parametrize('text, says', [
    ('x = \n', 'line 1: SyntaxError'), ('\n\nimport nosuch\n', 'line 3: ModuleNotFoundError'),
    ('import sys\nsys.exit(3)\n', 'line 2: SystemExit'), ('def prompts(:\n', 'SyntaxError'),
    ('def prompts():\n    return 5\ndef reward(p, c):\n    return 1\n', 'TypeError'),
    ('def prompts():\n    return "Write a poem"\ndef reward(p, c):\n    return 1\n', 'prompts() is a text'),
    ('def prompts():\n    return [5]\ndef reward(p, c):\n    return 1\n', 'a text or messages'),
    ('def prompts():\n    return {}["a"]\ndef reward(p, c):\n    return 1\n', "line 2: KeyError: 'a'")])
def test_a_reward_file_with_a_mistake_is_a_sentence_with_its_line(tmp_path, text, says):
    from parts.sample.rewards import tasks_of_file
    (tmp_path / 'mine.py').write_text(text, encoding='utf-8')
    with pytest.raises(ValueError, match='mine.py') as e:
        tasks_of_file(str(tmp_path / 'mine.py'), 1.0, False)
    assert says in str(e.value)


def test_what_is_no_checkpoint_is_said_without_advice_to_run_it(folder, tmp_path):
    for name in 'number.jsonl', 'half.jsonl':
        with pytest.raises(ValueError, match=f'{name} is not a readable checkpoint') as e:
            read(str(folder / name))
        assert len(str(e.value)) < 300 and 'weights_only' not in str(e.value)


def test_a_checkpoint_that_memory_does_not_hold_is_not_called_unreadable(folder, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    monkeypatch.setattr('torch.load', full)
    with pytest.raises(MemoryError, match='number.jsonl: .*allocate 9 bytes'):
        read(str(folder / 'number.jsonl'))


@pytest.mark.parametrize('change', [
    {'vocab': ['a', 'b']}, {'vocab': [*'abc'] * 99}, {'special_tokens': [1]}, {'special_tokens': 5},
    {'vocab': [5]}, {'vocab': None}, {'pattern': '('}, {'kind': 'word'}, None])
def test_a_damaged_tokenizer_is_one_sentence(change, tmp_path):
    whole = Tokenizer.byte(['<|endoftext|>']).to_json()
    text = '[' * 100_000 if change is None else json.dumps({**whole, **change})
    (tmp_path / 'tokenizer.json').write_text(text, encoding='utf-8')
    with pytest.raises(ValueError, match='tokenizer.json is not a tokenizer of ours'):
        Tokenizer.load(tmp_path / 'tokenizer.json')
    (tmp_path / 'tokenizer.json').write_text(json.dumps(whole), encoding='utf-8')
    assert Tokenizer.load(tmp_path / 'tokenizer.json').encode('ab') == [97, 98]


def test_tokenizer_py_needs_a_name_for_its_file(tmp_path):
    result = run('tokenizer.py', '--input=stdlib', '--out=', cwd=tmp_path)
    assert result.returncode == 2 and '--out= is a folder or empty' in result.stderr


def test_a_vocabulary_of_gpt_2_that_is_another_is_one_sentence(tmp_path):
    (tmp_path / 'vocab.bpe').write_text('#version: 0.2\nx y\n', encoding='utf-8')
    (tmp_path / 'encoder.json').write_text('{"x": 0}', encoding='utf-8')
    mistake(run('prepare.py', '--tokenizer=gpt2', f'--gpt2_dir={tmp_path}'), 'vocab.bpe', 'gpt2')


def test_a_reference_without_text_is_one_sentence(folder, tmp_path):
    mistake(run('prepare.py', f'--source={folder}', f'--perplexity_reference={folder}/bytes.jsonl',
                f'--out_dir={tmp_path}/out'), 'reference', 'no text')
