"""rl.py: its loss, real runs in which the reward rises, and whoever gives rewards: programs, lines
with answers or tests, a reward model. What it promises like sft.py and dpo.py is in test_alike.py;
that rows are drawn alone is in test_model.py."""
import contextlib
import functools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PAID, ROOT, fill, lift, make_sft, mistake, ok, read_rows, refused, run, series, state
from conftest import table, with_each, write
from pytest import approx
from test_streaming import BYTES

from extras.tasks import rewards, sandbox
from model import GPT
from tokenizer import Tokenizer

advantages, policy_loss = lift('rl.py', 'advantages', 'policy_loss')
FLAGS = ('--device=cpu --dtype=float32 --batch_size=4 --num_samples=6 --max_new_tokens=8 '
         '--max_steps=12 --warmup_steps=0 --learning_rate=1e-2 --eval_interval=12 '
         '--eval_prompts=4')


# --- the loss -------------------------------------------------------------------------------------
def test_the_loss_and_its_gradient_are_the_formulas_in_float64():
    """So no update gains by leaving the bounds, and any may return."""
    dice = np.random.default_rng(0)
    log_p, old, ref = (torch.tensor(-dice.exponential(2, 54)).float() for _ in range(3))
    log_p[0] = old[1] = -60                             # nearly forgotten; e^60 times as likely
    log_p[1] = old[0] = -0.001
    A = torch.tensor([1.0, -1.0, 0.5, -0.25, 0.0, 3.0]).repeat(9)
    p, q = log_p.double().requires_grad_(), log_p.clone().requires_grad_()
    ratio, kl = (p - old).exp(), (ref - p).exp() - 1 - (ref - p)
    loss = -torch.minimum(ratio * A, ratio.clamp(0.72, 1.28) * A) + 0.1 * kl
    found = policy_loss(q, old, A, 0.28, ref, 0.1)
    for its in loss, found[0]:
        its.sum().backward()
    torch.testing.assert_close((*found, q.grad), (loss, ratio, kl, p.grad), rtol=2e-5, atol=1e-5,
                               check_dtype=False)
    assert not policy_loss(log_p, old, A)[2].any()          # without a reference, no KL


def test_advantages_by_hand():
    """Also of rewards that float32 cannot tell apart. Of equal rewards they are exactly 0."""
    assert advantages(torch.tensor([[1, 0, 0, 0], [.1] * 4])).tolist() == [[.75, -.25, -.25, -.25],
                                                                           [0] * 4]
    assert advantages(torch.tensor([[1e9, 1e9 + 1]], dtype=torch.float64)).tolist() == [[-.5, .5]]


# --- what is learned ------------------------------------------------------------------------------
@pytest.fixture
def rl(sft_model):
    """rl(*flags, paid=the text of its reward file)"""
    def rl(*more, paid=PAID, **how):
        fill({'paid.py': paid})
        return run(f'rl.py --init_from={sft_model} --reward=paid.py --out_dir=out', FLAGS, *more, **how)
    return rl


@with_each('more', [
    '--max_steps=24 --temperature=0.7 --clip=1e-4',
    '--updates=2 --optimizer=muon --max_steps=36 --learning_rate=2e-2'])
def test_the_reward_rises(rl, more):
    """Of fresh answers, sampling and training say the same log p, so no ratio leaves 1 by 1e-4."""
    ok(rl(more))
    paid = series('out', 'reward')
    assert sum(paid[-4:]) > sum(paid[:4]) + 4 * 0.1 and series('out', 'val_reward')[-1] > 0.9, paid
    assert any(series('out', 'clip_fraction')) == ('updates=2' in more)
    assert '[reward ' in Path('out/samples.txt').read_text('utf-8')


def test_no_answer_has_a_token_that_only_prompts_have(rl):
    """As in sample.py and eval.py; sampling and training agree about that, so no ratio leaves 1."""
    model = GPT.load(make_sft('sft'))
    model.embedding.weight.data[BYTES.special['<|im_start|>']] *= 50     # now the likeliest id, or the least
    model.save('sft/best.pt', **model.saved)
    ok(rl('--init_from=sft --max_steps=2 --clip=1e-4 --learning_rate=0'))
    text = Path('out/samples.txt').read_text('utf-8')
    assert not re.search(r'<\|im_start\|>(?!user|assistant)', text)
    assert not any(series('out', 'clip_fraction'))


def test_a_reward_that_was_edited_is_said(rl):
    ok(rl('--max_steps=2'))
    again = 'rl.py --out_dir=out --init_from=resume --reward=paid.py --max_steps='
    assert 'reward edited' not in ok(run(f'{again}3'))
    fill({'paid.py': f'{PAID}# an edit\n'})
    assert re.search('reward edited: .* -> ', ok(run(f'{again}4')))


def test_the_kl_holds_the_model_near_its_start(rl):
    """best.pt, which is for use, has no reference."""
    model = make_sft('sft', dropout=0.3)
    for coef in '1e-6', '3':        # the reference has no dropout, or the first KL would not be 0
        ok(rl(f'--kl_coef={coef} --init_from={model} --out_dir={coef}'))
    free, held = series('1e-6', 'kl'), series('3', 'kl')
    assert abs(free[0]) < 1e-6 and free[-1] > 3 * held[-1] > 0
    assert 'reference' in state('3') and 'reference' not in state('3', 'best.pt')


def test_a_reward_model_of_dpo_is_what_the_answers_earn(rl, sft_model, pairs):
    """Its scores are those of the run that made it, whatever is next to an answer."""
    said = ok(run(f'dpo.py --init_from={sft_model} --data_dir={pairs} --out_dir=made --loss_type=rm --device=cpu '
                  '--max_steps=24 --learning_rate=1e-2 --dtype=float32'))
    assert 'next: python rl.py --kl_coef=0.05 --reward=made' in said
    scores = lambda tokenizer: rewards.open_scores('made', tokenizer, 'cpu', contextlib.nullcontext())
    prompts, held_out, judge = scores(BYTES)
    asked, good, bad = zip(*map(dict.values, read_rows(pairs / 'val.jsonl')))
    assert (len(prompts), held_out) == (64, [*asked])
    margin = np.subtract([*judge(held_out, good)], [*judge(held_out, bad)]).mean()
    assert margin == approx(series('made', 'val_margin')[-1], abs=1e-5)
    # in a context of 96, the end is read
    one, same, other = judge(['b' * 70 + 'q' * 30, 'q' * 30, 'q' * 30],
                             ['a' * 200, 'c' * 70 + 'a' * 95, 'z' * 90])
    assert one == approx(same, rel=1e-4) and abs(one - other) > 1e-3
    refused('another tokenizer', scores, Tokenizer.byte(['<|im_start|>', '<|im_end|>']))
    ok(rl('--reward=made --max_steps=36'))
    paid = series('out', 'reward')
    assert np.mean(paid[-12:]) > paid[0] + 1
    mistake(rl(f'--reward={sft_model} --overwrite'), 'not a reward model & --loss_type=rm')


def test_no_prompt_is_both_trained_on_and_held_out(rl):
    thrice = PAID.replace("""f'{i} and {"x" * (i % 7)}'""", "'x' * 99 if i == 9 else str(i % 3)")
    for own in '', "def held_out(): return ['2', '2']":
        printed = ok(rl('--max_steps=1 --overwrite', paid=f'{thrice}\n{own}'))
        assert 'prompts: 2 train, 1 validation' in printed
        assert f'skipped (duplicates, > 88 tokens): {39 if own else 37}\n' in printed


# --- programs that give rewards -------------------------------------------------------------------
def test_the_reward_file_of_the_docs_works_and_one_may_import_what_is_beside_it(rl):
    blocks = re.findall(r'```python\n(.*?)```', (ROOT / 'docs/chat.md').read_text(), re.S)
    code, = [block for block in blocks if 'def reward' in block]
    fill({'rule.py': '', 'torch.py': '1 / 0'})        # the last one hides no module of ours
    ok(rl('--max_steps=1', paid=f'import rule, torch\n{code}'))


# Functions and a class of its own cross to processes that are forks, and to such as are not. Both
# are named after the file, and one has a name that Python's library has, too.
POOL = PAID.replace('return sum', 'return [*pool.map(points, [Text(completion)])][0]; sum') + """
import concurrent.futures, dataclasses, multiprocessing, pathlib
assert pathlib.Path(__file__).name in ('paid.py', 'json.py') and __name__ != '__main__'

@dataclasses.dataclass
class Text:
    text: 'str'

def points(text):
    return float(text.text.count('e'))
"""


@with_each('pool', ["multiprocessing.Pool(2)", "multiprocessing.get_context('spawn').Pool(1)",
           "concurrent.futures.ProcessPoolExecutor(2)"])
def test_a_reward_may_use_processes_of_its_own(rl, pool):
    """A process that is no fork must not run rl.py again."""
    start = f"""
def prompts_and_pool():
    global pool
    pool = {pool}
    return real()
real, prompts = prompts, prompts_and_pool
"""
    printed = ok(rl('--max_steps=1 --batch_size=2', paid=POOL + start))
    assert printed.count('parameters: ') == 1 and series('out', 'step')[-1] == 1


WRONG_PROMPTS = """
prompts => 'What is 2 + 2?'
held_out => 'What is 2 + 2?'
prompts => None
prompts => {'a'}
held_out => {'prompt': ['a', 'b']}
prompts => [{'prompt': 'a', 'answer': '4'}]
held_out => [{'role': 'user', 'content': 'a'}]
prompts => [5]
held_out => [('a', 'b')]"""


def test_prompts_are_texts_or_lists_of_messages_and_others_are_shown(rl):
    """Of a text, each letter would be a prompt. A generator is fine, and so are names of modules."""
    for name, wrong in table(WRONG_PROMPTS):
        mistake(rl(paid=f'{PAID}\ndef {name}(): return {wrong}'), 'prompts() and held_out() must return',
                'texts', 'lists of messages', wrong.strip('[]'))
    mistake(rl(paid=PAID + "\ndef prompts(): return [[{'role': 'user', 'content': 5}]]"), "'content': 5")
    asked = "def prompts(): yield from (['a', 'b', [{'role': 'user', 'content': 'c'}]])"
    fill({'json.py': f'{PAID}\n{asked}'})
    assert 'prompts: 2 train, 1 validation' in ok(rl('--max_steps=1 --reward=json.py'))


def test_a_reward_is_a_number_and_an_error_of_its_file_keeps_its_traceback(rl):
    for value in 'nan', '1e30', '-1e9', 'inf':
        mistake(rl(paid=PAID.replace('return sum', f'return float("{value}"); sum')),
                f'reward= & below 1e9, not {float(value)}')
    mistake(rl(paid=PAID.replace('return sum', 'sum')), 'below 1e9, not None')
    mistake(rl(paid='def prompts(): return []'), 'paid.py & does not define & reward()')
    result = rl('--overwrite', paid=PAID.replace('return sum', 'raise KeyError("a"); sum'))
    assert result.returncode == 1 and "KeyError: 'a'" in result.stderr


# --- lines with answers or tests ------------------------------------------------------------------
def lines_of(lines):
    """What rl.py gets from a file of these lines: prompts, and judge."""
    fill({'mine.jsonl': lines})
    prompts, held_out, judge = rewards.open_reward('mine.jsonl', 4, True, None, 'cpu', None)
    assert held_out == []           # rl.py takes a tenth
    return prompts, judge


LINES = """{"prompt": "Write f.", "tests": "assert f(2) == 4"}
{"question": "2 + 2?", "answer": "so #### 4"}
{"prompt": "Say it.", "regex": "^it"}
{"prompt": "Say no.", "must_not_contain": "yes"}"""


def test_what_each_kind_of_line_pays_and_which_are_refused(monkeypatch):
    monkeypatch.setattr(rewards, 'TIMEOUT', 60)         # the machine may be busy
    prompts, judge = lines_of(LINES)
    right = ['def f(x): return 2 * x', 'It is 4', 'it is', 'no']
    wrong = ['def f(x): return x', 'It is 5', 'is it', 'yes']
    assert [*judge(prompts * 3, right + wrong + [''] * 4)] == [1.0] * 4 + [0.0] * 8
    refused(':1: every answer would pass', lines_of, '{"prompt": "a"}')
    refused('two lines ask', lines_of, LINES.replace('Say no', 'Say it'))
    # tests that cannot run are no verdict
    monkeypatch.setattr(sandbox, 'run_code', lambda *job: sandbox.Result('infrastructure', 'no space'))
    refused("no verdict on 'Write f.': .*no space", lambda: [*judge(prompts[:1], right)])


def test_lines_are_a_run_and_programs_of_it_run_only_if_that_is_typed_also_on_resume(rl):
    """Tests that pass without an answer judge nothing."""
    kinds = {'tests': 'assert True'}, {'tests': 'assert f()'}, {'answer': 4}
    for name, kind in zip(('idle', 'fine', 'sums'), kinds):
        write(f'{name}.jsonl', [{'prompt': 'a' * n} | kind for n in range(1, 5)])
    allowed = '--allow_code_execution=True'
    short = '--max_steps=1 --num_samples=2 --batch_size=1'
    mistake(rl('--reward=idle.jsonl'), f'{allowed} & extras/tasks/sandbox.py')
    mistake(rl('--reward=idle.jsonl', allowed), "'a' pass without an answer")
    ok(rl('--reward=sums.jsonl', short))
    ok(rl('--reward=fine.jsonl --overwrite', allowed, short))
    again = functools.partial(run, 'rl.py --out_dir=out --init_from=resume --max_steps=2')
    mistake(again(), '--reward & pass it on resume')
    mistake(again('--reward=fine.jsonl'), allowed)
    ok(again('--reward=fine.jsonl', allowed))
    assert series('out', 'reward') == [0, 0]
