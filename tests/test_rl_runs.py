"""Real runs of rl.py: what is learned, two processes as one, resuming bit for bit; its user's mistakes."""
import json
import os
import re
import signal

import pytest
import torch
from conftest import ROOT, metrics, mistake, ok, run
from test_dpo_mistakes import make_sft
from test_dpo_runs import KILL, TWO
from test_resume import assert_is_the_straight_run, state

from parts.eval import benchmarks, grading
from parts.eval.sandbox import run_code

# more is paid for signs of the lower half of ASCII: an untrained byte model writes them a quarter of the time
REWARD = """
def prompts():
    return [f'{i} and {"x" * (i % 7)}' for i in range(40)]

def reward(prompt, completion):
    return sum(c < '@' for c in completion) / 8
"""
FLAGS = ['--device=cpu', '--dtype=float32', '--batch_size=4', '--num_samples=6', '--max_new_tokens=8',
         '--slots=7', '--max_steps=12', '--warmup_steps=0', '--learning_rate=1e-2', '--min_lr=1e-2',
         '--eval_interval=6', '--save_interval=4', '--eval_prompts=4']


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp('rl')
    make_sft(folder / 'sft')
    (folder / 'paid.py').write_text(REWARD, encoding='utf-8')
    return folder


def rl(home, *arguments, init='sft', reward='paid.py', out='out', before=''):
    init, out = (name if name == 'resume' else os.path.join(home, name) for name in (init, out))
    reward = reward if reward in ('problems', 'random') else home / reward
    return run('rl.py', f'--init_from={init}', f'--reward={reward}', f'--out_dir={out}', *FLAGS, *arguments,
               before=before)


def series(out, key):
    return [m[key] for m in metrics(out) if key in m]


@pytest.mark.parametrize('more', [[], ['--scale=True', '--updates=2', '--optimizer=muon']])
def test_the_reward_rises(home, tmp_path, more):
    out = tmp_path / 'run'
    said = ok(rl(home, '--max_steps=24', '--eval_interval=12', *more, out=out))
    paid = series(out, 'reward')
    assert len(paid) == 24 and sum(paid[-4:]) > sum(paid[:4]) + 4 * 0.15, paid
    assert series(out, 'val_reward')[-1] > 0.9 and len(series(out, 'val_reward')) == 3
    last = [m for m in metrics(out) if 'reward' in m][-1]
    assert last['kl'] is None and 0 < last['entropy'] < 6 and 0 <= last['clip_fraction'] <= 1
    assert series(out, 'clip_fraction')[0] == 0             # the first ratio of fresh answers is 1
    assert last['length'] <= 8 and 0 <= last['truncated'] <= 1 and 0 < last['informative'] <= 1
    assert 'next: python sample.py' in said and 'highest val_reward ' in said
    assert '[reward ' in (out / 'samples.txt').read_text(encoding='utf-8')
    assert state(out)['config']['stage'] == 'rl'


def test_the_kl_holds_the_model_near_its_start(home, tmp_path):
    kl = {}
    for coef in (1e-6, 3.0):
        ok(rl(home, '--max_steps=6', f'--kl_coef={coef}', out=tmp_path / str(coef)))
        kl[coef] = series(tmp_path / str(coef), 'kl')
        assert abs(kl[coef][0]) < 1e-6
    assert kl[1e-6][-1] > 3 * kl[3.0][-1] > 0


def test_equal_rewards_leave_the_weights_exactly_as_they_were(home, tmp_path):
    (home / 'same.py').write_text(REWARD.replace('return sum', 'return 0.3 or sum'), encoding='utf-8')
    said = ok(rl(home, reward='same.py', out=tmp_path / 'run'))
    assert series(tmp_path / 'run', 'grad_norm') == [0.0] * 12
    told = [(m['step'], m['text']) for m in metrics(tmp_path / 'run') if m.get('event') == 'silent']
    assert len(told) == 1 and told[0][0] == 9 and '10 batches taught' in told[0][1]     # the tenth, from 0
    assert 'earned the same, 0.3 on average (low: easier prompts, more SFT; high: harder ones)' in said
    before = torch.load(home / 'sft' / 'best.pt', weights_only=True)['model']
    after = state(tmp_path / 'run')['model']
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize('more', [[], ['--updates=2', '--kl_coef=0.1']])
def test_one_process_equals_two(home, tmp_path, more):
    """1e-5: the same float32 sums in another order; the answers themselves are the same."""
    one, two = tmp_path / 'one', tmp_path / 'two'
    flags = ['--max_steps=4', '--micro_batch_size=2', '--learning_rate=1e-3', '--min_lr=1e-3', *more]
    ok(rl(home, *flags, out=one))
    said = ok(rl(home, *flags, out=two, before=TWO))
    assert '2 processes' in said and said.count('step      1/4 | loss') == 1
    for key in ('reward', 'loss', 'grad_norm', 'entropy', 'length', 'informative', 'val_reward'):
        assert series(one, key) and series(one, key) == pytest.approx(series(two, key), abs=1e-5), key
    a, b = state(one)['model'], state(two)['model']
    assert max((a[k] - b[k]).abs().max().item() for k in a) < 1e-5


def test_a_killed_run_equals_the_straight_run_bit_for_bit(home, tmp_path):
    straight = tmp_path / 'straight'
    ok(rl(home, '--updates=2', out=straight))
    killed = rl(home, '--updates=2', out=tmp_path / 'killed', before=KILL.replace('WHEN', '3'))
    assert killed.returncode == -signal.SIGKILL
    assert 'resumed at step 4' in ok(rl(home, '--updates=2', init='resume', out=tmp_path / 'killed'))
    assert_is_the_straight_run(tmp_path / 'killed', straight)


def test_an_answer_or_tests_can_decide(home, tmp_path):
    lines = [{'prompt': f'{i} + 1?', 'answer': f'so #### {i + 1}'} for i in range(20)]
    lines += [{'prompt': 'add', 'tests': 'assert add(1, 2) == 3'}]
    (home / 'mixed.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines), encoding='utf-8')
    mistake(rl(home, reward='mixed.jsonl', out=tmp_path / 'run'), '--allow_code_execution=True')
    said = ok(rl(home, '--max_steps=1', '--allow_code_execution=True', reward='mixed.jsonl',
                 out=tmp_path / 'run'))
    assert '18 prompts, 3 held out' in said


@pytest.mark.parametrize('body, words', [
    ('return 1 / 0', ['ZeroDivisionError', '--bad_reward=zero']), ('return "much"', ['ValueError', 'much']),
    ('return float("nan")', ['returned nan']), ('return None', ['TypeError']),
    ('exit()', ['SystemExit']), ('while True: pass', ['no reward after 0.2 s'])])
def test_a_bad_reward_stops_the_run_or_counts_as_0_and_is_said(home, tmp_path, body, words):
    text = f'{REWARD}\n\ndef reward(prompt, completion):\n    {body}\n'
    (home / 'bad.py').write_text(text, encoding='utf-8')
    mistake(rl(home, '--timeout=0.2', reward='bad.py', out=tmp_path / 'run'), "reward('", *words)
    if 'while' not in body:
        said = ok(rl(home, '--max_steps=1', '--bad_reward=zero', reward='bad.py', out=tmp_path / 'run'))
        assert 'counted as 0' in said and series(tmp_path / 'run', 'reward') == [0.0]


@pytest.mark.parametrize('line, words', [
    ('{"prompt": "a"}', ['line 1', 'neither tests nor an answer']),
    ('{"prompt": "a", "answer": "b"}', ['line 1']), ('{"prompt": "a", "tests": " "}', ['line 1']),
    ('{"answer": "3"}', ['line 1', 'prompt']), ('', ['0 prompts']),
    ('{"prompt": 5, "answer": "3"}', ['line 1', 'a text or messages']),
    ('{"prompt": [{"role": "user"}], "answer": "3"}', ['bad.jsonl, line 1', 'a message is a role']),
    ('\n{"prompt": "a", "tests": "assert add(1, 2 == 3"}', ['line 2', 'tests', 'was never closed']),
    ('{"prompt": "a", "tests": ["assert True"]}', ['line 1', 'tests must be a text']),
    ('{"prompt": "a", "entry_point": "f", "test": "def check(f):"}', ['line 1', 'test'])])
def test_a_file_that_pays_for_nothing_is_refused(home, tmp_path, line, words):
    (home / 'bad.jsonl').write_text(line, encoding='utf-8')
    mistake(rl(home, reward='bad.jsonl', out=tmp_path / 'run'), *words)
    assert not (tmp_path / 'run').exists()


def test_other_mistakes_are_one_line(home, tmp_path):
    (home / 'half.py').write_text('def prompts():\n    return []\n', encoding='utf-8')
    for more, words in ((['--reward=problems', '--n_problems=20'], '--allow_code_execution=True'),
                        (['--reward=random', '--n_problems=20'], 'held-out prompts'),
                        (['--num_samples=1'], '>= 2'), (['--updates=5'], 'multiples of updates=5'),
                        (['--reward=none.jsonl'], 'does not exist'), (['--max_new_tokens=90'], '0 prompts'),
                        ([f'--reward={home}/half.py'], 'reward(prompt')):
        mistake(rl(home, *more, out=tmp_path / 'run'), words)


def test_the_reward_file_of_the_docs_can_be_learned_from(home, tmp_path):
    page = (ROOT / 'docs/chat.md').read_text(encoding='utf-8')
    code, = re.findall(r'```python\n(.*?)```', page, re.S)
    (home / 'docs.py').write_text(code, encoding='utf-8')
    ok(rl(home, '--max_steps=1', reward='docs.py', out=tmp_path / 'run'))
    assert all(0 <= value <= 1 for value in series(tmp_path / 'run', 'reward'))
    scope = {}
    exec(code, scope)
    assert scope['reward']('Write 4 words about the sea.', 'it is very blue') == 1


def test_what_keeps_the_sandbox_from_a_verdict_is_one_sentence(home, tmp_path):
    lines = [{'prompt': f'add {i}', 'tests': 'assert add(lambda: 1, 2) == 3'} for i in range(20)]
    (home / 'tests.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines), encoding='utf-8')
    bad = 'from parts.eval import sandbox; sandbox.TRIAL = "/nowhere/trial.py"'
    mistake(rl(home, '--allow_code_execution=True', reward='tests.jsonl', out=tmp_path / 'run', before=bad),
            "no verdict on 'add 0', by a fault of its tests or of the machine", 'nowhere')
    wrote = 'from tokenizer import Tokenizer; Tokenizer.decode = lambda *_: "def add(f, x):\\n    return 3"'
    mistake(rl(home, '--allow_code_execution=True', reward='tests.jsonl', out=tmp_path / 'run', before=wrote),
            "no verdict on 'add 0'", 'function is not plain data')


def test_benchmark_files_are_rewards_as_they_are_published():
    human = {'prompt': 'import math\n\ndef root(x):\n    """The root."""\n', 'entry_point': 'root',
             'test': 'def check(candidate):\n    assert candidate(9) == 3\n'}
    task = benchmarks.to_task(human)
    assert task['messages'][0]['content'].startswith('Complete:\nimport math')
    answer = '```python\ndef root(x):\n    return math.sqrt(x)\n```'
    program = grading.program(task, answer, chat=True)
    assert run_code(program, task['tests'], task['entry_point']).outcome == 'passed'
    assert run_code(program.replace('math.sqrt', 'abs'), task['tests'], 'root').outcome == 'wrong'
    assert benchmarks.to_task({'question': '2 and 2?', 'answer': '2 + 2 = 4\n#### 4'})['answer'].endswith('4')
    sums = {'question': '2?', 'answer': '2'}
    for name, record in (('humaneval', human | {'canonical_solution': ''}), ('gsm8k', sums)):
        told, = benchmarks.to_task(record)['messages']          # what is trained is what eval.py asks
        assert benchmarks.to_item(name, record)['asked'] == [told['content']]
