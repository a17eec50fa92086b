"""What judges the answers of rl.py in extras/: tests and rules of a line, and a reward model."""
import contextlib
import json
import time

import pytest
import torch
from conftest import refused, save_run, sharpen, write
from test_records import BYTES

from extras import sandbox
from extras.rewards import open_scores, open_tests
from model import GPT, GPTConfig
from tokenizer import Tokenizer


def judge_of(*lines):
    content = '\n'.join(map(json.dumps, lines)).encode()
    prompts, judge, identity = open_tests('mine.jsonl', content, 0, True, 2.0, rank=1, world=1)
    assert identity == content
    return prompts, lambda *case: [*judge(*case)]           # an iterator, which waits for programs


def test_what_each_kind_of_line_pays():
    prompts, judge = judge_of(
        {'prompt': 'Write f.', 'tests': 'assert f(2) == 4'}, {'question': '2 + 2?', 'answer': 'so #### 4'},
        {'prompt': 'Say it.', 'regex': '^it'}, {'prompt': 'Say no.', 'must_not_contain': 'yes'})
    assert [p[0]['content'] for p in prompts] == ['Write f.', '2 + 2?', 'Say it.', 'Say no.']
    right = ['```python\ndef f(x):\n    return 2 * x\n```', 'It is 4', 'it is', 'no']
    wrong = ['def f(x): return x', 'It is 5', 'is it', 'yes']
    assert judge(prompts * 3, right + wrong + [''] * 4) == [1.0] * 4 + [0.0] * 8
    assert judge(prompts[::-1], right[::-1]) == [1.0] * 4
    assert judge([], []) == []                                      # a process without answers


def test_tests_that_cannot_run_are_no_verdict_and_name_the_prompt(monkeypatch):
    prompts, judge = judge_of({'prompt': 'Write f.', 'tests': 'assert f() == 1'})
    broken = sandbox.Result('infrastructure', 'no space')
    monkeypatch.setattr(sandbox, 'run_code', lambda *job: broken)
    refused("no verdict on 'Write f.': .*no space", judge, prompts, ['def f(): return 1'])


def test_the_tests_are_tried_first_by_one_process():
    idle = json.dumps({'prompt': 'a', 'tests': 'assert True'}).encode()
    for rank in 0, 1:
        expected = pytest.raises(ValueError, match='pass without an answer')
        with contextlib.nullcontext() if rank else expected:
            open_tests('idle.jsonl', idle, 0, True, 0.5, rank, 2)
    refused('idle.jsonl: .*--allow_code_execution=True', open_tests, 'idle.jsonl', idle, 0, False, 0.5, 1, 2)
    asked = open_tests('mine.jsonl', b'{"prompt": "a", "regex": "b"}', 0, False, 1.0, 0, 1)[0]
    assert len(asked) == 1                                          # no program, so nothing to allow
    for line, words in ((b'{"prompt": "a"}', 'nothing is checked'), (b'[1]', 'AttributeError'),
                        (b'{"prompt": "a", "tests": "("}', 'Syntax'),
                        (b'{"prompt": "a", "regex": "("}', 'error')):
        refused(f'mine.jsonl, line 1: .*{words}', open_tests, 'mine.jsonl', line, 0, True, 1.0, 1, 1)


def test_two_lines_that_judge_the_same_prompt_differently_are_refused():
    for one, two in (({'tests': 'assert f()'}, {'tests': 'assert g()'}), ({'answer': 1}, {'answer': 2}),
                     ({'regex': 'a'}, {'must_contain': 'a'})):
        prompts, judge = judge_of(*[{'prompt': 'Write f.', 'must_not_contain': 'x', **one}] * 2)
        assert len(prompts) == 2                            # the same line twice
        with pytest.raises(ValueError, match='line 2: .*earlier line'):
            judge_of({'question': 'Write f.', **one}, {'question': 'Write f.', **two})


def test_a_reward_model_scores_the_whole_answer_with_its_end_whatever_is_next_to_it(tmp_path):
    torch.manual_seed(0)
    model = sharpen(GPT(GPTConfig(BYTES.vocab_size, 48, 2, 2, 0, 32))).eval()
    save_run(tmp_path / 'reward', model, BYTES, reward_head=torch.randn(1, 32))
    chat = [{'role': 'user', 'content': 'ho'}]
    asked = write(tmp_path / 'asked.jsonl', [{'prompt': 'hi'}, {'prompt': chat}])
    path, plain = str(tmp_path / 'reward'), contextlib.nullcontext()
    prompts, judge, identity = open_scores(path, str(asked), BYTES, 'cpu', plain)
    assert prompts[0] == 'hi' and len(prompts) == 2
    head = GPT.load(tmp_path / 'reward').saved['reward_head']
    begin = BYTES.render([{'role': 'user', 'content': 'hi'}], add_generation_prompt=True)[0]
    texts = ['yo', '', 'a longer one', 'é' * 30]
    found = judge(['hi'] * 4, texts)
    for text, value in zip(texts, found):
        answer = [*text.encode(), BYTES.special['<|im_end|>']]
        ids = [*begin[-max(48 - len(answer), 12):], *answer][:48]           # its context is short
        wanted = model.backbone(torch.tensor([ids]))[0, -1] @ head[0]
        assert value == pytest.approx(wanted.item(), rel=1e-4)
    assert len({*found}) == 4
    assert judge(['hi'] * 70, ['yo'] * 70) == pytest.approx([found[0]] * 70, rel=1e-4)
    other = Tokenizer.byte(['<|im_start|>', '<|im_end|>'])
    refused('another tokenizer', open_scores, path, 'problems', other, 'cpu', plain)
    save_run(tmp_path / 'reward', model, BYTES, reward_head=torch.randn(1, 32))
    assert open_scores(path, str(asked), BYTES, 'cpu', plain)[2] != identity


def test_programs_run_while_the_model_writes_on():
    """What judge() returns need not be read for them to begin."""
    line = b'{"prompt": "a", "tests": "assert f()"}'
    prompts, judge, _ = open_tests('mine.jsonl', line, 0, True, 9.0, 1, 1)
    begun = []
    run_code = sandbox.run_code
    sandbox.run_code = lambda *job: begun.append(job) or run_code(*job)
    try:
        parts = [judge(prompts * 2, ['def f(): return 1', text]) for text in ('x', 'y')]
        while len(begun) < 4:
            time.sleep(0.01)
    finally:
        sandbox.run_code = run_code
    assert [[*part] for part in parts] == [[1.0, 0.0]] * 2
