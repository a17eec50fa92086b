"""rl.py: its loss, real runs in which the reward rises, and whoever gives rewards: programs, lines
with answers or tests, a reward model. What it promises like sft.py and dpo.py is in test_alike.py;
that sampling and training agree about log p, in test_model.py."""
import contextlib
import re

import numpy as np
import pytest
import torch
from conftest import PAID, ROOT, lift, make_sft, mistake, ok, read_rows, refused, run, save_run
from conftest import series, write
from pytest import approx
from test_records import BYTES

from extras import questions, sandbox
from extras.rewards import open_scores, open_tests
from model import GPT
from tokenizer import Tokenizer

advantages, policy_loss, collate, is_right = lift('rl.py', 'advantages', 'policy_loss', 'collate',
                                                  'is_right')
FLAGS = ('--device=cpu --dtype=float32 --batch_size=4 --num_samples=6 --max_new_tokens=8 '
         '--max_steps=12 --warmup_steps=0 --learning_rate=1e-2 --eval_interval=12 '
         '--eval_prompts=4').split()


# --- the loss -------------------------------------------------------------------------------------
def test_the_loss_and_its_gradient_are_the_formulas_in_float64():
    """So no update gains by leaving the bounds, and any may return. A ratio that no float32 holds
    is finite."""
    dice = np.random.default_rng(0)
    log_p, old, ref = (torch.tensor(-dice.exponential(2, 54)).float() for _ in range(3))
    log_p[0] = old[1] = -60                             # nearly forgotten; e^60 times as likely
    log_p[1] = old[0] = -0.001
    A = torch.tensor([1.0, -1.0, 0.5, -0.25, 0.0, 3.0]).repeat(9)
    p, p_old, p_ref, a = (x.double().numpy() for x in (log_p, old, ref, A))
    ratio, kl = np.exp(p - p_old), np.exp(p_ref - p) - 1 - (p_ref - p)
    for low, high, kl_coef in ((0.2, 0.2, 0), (0.2, 0.28, 0.1), (0, 0, 0), (1.0, 5.0, 2.0)):
        q = log_p.clone().requires_grad_()
        found = policy_loss(q, old, A, low, high, ref, kl_coef)
        found[0].sum().backward()
        clipped = np.clip(ratio, 1 - low, 1 + high) * a
        loss = -np.minimum(ratio * a, clipped) + kl_coef * kl
        slope = -ratio * a * (ratio * a <= clipped) + kl_coef * (1 - np.exp(p_ref - p))
        for got, wanted in zip((*found, q.grad), (loss, ratio, kl, slope)):
            assert got.detach().numpy() == approx(wanted, rel=2e-5, abs=1e-5), (low, high)
    assert not policy_loss(log_p, old, A)[2].any()          # without a reference, no KL
    assert policy_loss(log_p, log_p - 500, A)[0].isfinite().all()


def test_advantages_by_hand():
    """Also of rewards that float32 cannot tell apart. Of equal rewards they are exactly 0."""
    assert advantages(torch.tensor([[1, 0, 0, 0], [.1] * 4])).tolist() == [[.75, -.25, -.25, -.25],
                                                                           [0] * 4]
    assert advantages(torch.tensor([[1e9, 1e9 + 1]], dtype=torch.float64)).tolist() == [[-.5, .5]]
    one, none = advantages(torch.tensor([[1, 0, 0, 0], [.1] * 4]), scale=True)
    assert one.tolist() == approx([3 ** 0.5, *[-3 ** -0.5] * 3]) and not none.any()


def test_a_batch_has_of_each_token_of_an_answer_its_log_p_and_advantage():
    """That a token is the target of the one before it: no ratio leaves 1 when the reward rises."""
    *_, old, A = collate([((5,), [4], [-1.0], -0.25), ((5, 6, 7), [8, 9], [-0.5, -2.0], 0.75)])
    assert [*zip(old.tolist(), A.tolist())] == [(-1, -0.25), (-0.5, 0.75), (-2, 0.75)]


# --- what is learned ------------------------------------------------------------------------------
@pytest.fixture
def out(tmp_path):
    return tmp_path / 'run'


@pytest.fixture
def rl(sft_model, out, tmp_path):
    """rl(*flags, paid=the text of its reward file)"""
    def rl(*more, paid=PAID, **how):
        (tmp_path / 'paid.py').write_text(paid, encoding='utf-8')
        return run('rl.py', f'--init_from={sft_model}', f'--reward={tmp_path}/paid.py',
                   f'--out_dir={out}',
                   *FLAGS, *more, **how)
    return rl


@pytest.mark.parametrize('more', [
    '--max_steps=24 --temperature=0.7 --clip_low=1e-4 --clip_high=1e-4',
    '--scale=True --updates=2 --optimizer=muon --max_steps=36 --learning_rate=2e-2'])
def test_the_reward_rises(rl, out, more):
    """Of fresh answers, sampling and training say the same log p, so no ratio leaves 1 by 1e-4."""
    ok(rl(*more.split()))
    paid = series(out, 'reward')
    assert sum(paid[-4:]) > sum(paid[:4]) + 4 * 0.1 and series(out, 'val_reward')[-1] > 0.9, paid
    assert any(series(out, 'clip_fraction')) == ('updates=2' in more)
    assert '[reward ' in (out / 'samples.txt').read_text('utf-8')


def test_the_kl_holds_the_model_near_its_start(rl, tmp_path):
    model = make_sft(tmp_path / 'sft', dropout=0.3)
    for coef in '1e-6', '3':        # the reference has no dropout, or the first KL would not be 0
        ok(rl(f'--kl_coef={coef}', f'--init_from={model}', f'--out_dir={tmp_path}/{coef}'))
    free, held = series(tmp_path / '1e-6', 'kl'), series(tmp_path / '3', 'kl')
    assert abs(free[0]) < 1e-6 and free[-1] > 3 * held[-1] > 0


def test_a_number_is_learned_from_lines_with_answers(rl, out, tmp_path):
    lines = write(tmp_path / 'lines.jsonl', [{'prompt': f'{i}', 'answer': 7} for i in range(20)])
    ok(rl(f'--reward={lines}', '--num_samples=32', '--max_steps=26'))
    first, *_, last = series(out, 'reward')
    assert last > first + 0.5


def test_a_reward_model_of_dpo_is_what_the_answers_earn(rl, sft_model, pairs, out, tmp_path):
    """Its scores are those of the run that made it, whatever is next to an answer. PAID judges what
    is held out."""
    folder, asked = tmp_path / 'reward', pairs / 'val.jsonl'
    ok(run('dpo.py', f'--init_from={sft_model}', f'--data_dir={pairs}', '--loss_type=rm',
           '--device=cpu',
           f'--out_dir={folder}', '--max_steps=24', '--learning_rate=1e-2', '--dtype=float32'))
    scores = lambda tokenizer: open_scores(str(folder), str(asked), tokenizer, 'cpu',
                                           contextlib.nullcontext())
    prompts, judge, _ = scores(BYTES)
    good, bad = ([*judge(prompts, [row[side] for row in read_rows(asked)])]
                 for side in ('chosen', 'rejected'))
    assert np.subtract(good, bad).mean() == approx(series(folder, 'val_margin')[-1], abs=1e-5)
    # in a context of 96, of a long prompt the end is read, and of a long answer the beginning
    one, same, other = judge(['b' * 70 + 'q' * 30, 'q' * 30, 'q' * 30],
                             ['a' * 200, 'a' * 90, 'z' * 90])
    assert one == approx(same, rel=1e-4) and abs(one - other) > 1e-3
    refused('another tokenizer', scores, Tokenizer.byte(['<|im_start|>', '<|im_end|>']))

    ok(rl(f'--reward={folder}', f'--prompts={asked}', f'--held_out={tmp_path}/paid.py',
          '--max_steps=24'))
    earned = series(out, 'reward')
    assert sum(earned[-4:]) > sum(earned[:4]) + 1, earned
    assert all(value * 32 % 1 == 0 for value in series(out, 'val_reward'))      # 4 in eighths
    net = GPT.load(folder)                              # another reward model, another run
    net.norm.weight.data += 1
    save_run(folder, net, BYTES, reward_head=net.saved['reward_head'])
    mistake(run('rl.py', f'--out_dir={out}', '--init_from=resume', '--max_steps=25',
                f'--held_out={tmp_path}/paid.py'), 'other prompts')


def test_no_prompt_is_both_trained_on_and_held_out(rl, tmp_path):
    thrice = PAID.replace("""f'{i} and {"x" * (i % 7)}'""", 'str(i % 3)')
    # one of the three
    line = write(tmp_path / 'one.jsonl', [{'prompt': '2', 'answer': '3'}])
    for held_out in '', line:
        printed = ok(rl('--max_steps=1', '--overwrite=True', f'--held_out={held_out}', paid=thrice))
        assert 'prompts: 2, held out: 1' in printed
        assert 'left out, because they come twice or have more than 88 tokens: 37' in printed


# --- programs that give rewards -------------------------------------------------------------------
def test_the_reward_file_of_the_docs_works_and_one_may_import_what_is_beside_it_also_late(rl,
                                                                                          tmp_path):
    blocks = re.findall(r'```python\n(.*?)```', (ROOT / 'docs/chat.md').read_text(encoding='utf-8'),
                        re.S)
    code, = [block for block in blocks if 'def reward' in block]
    (tmp_path / 'late_rule.py').write_text('rule = len', encoding='utf-8')
    # it hides no module of ours
    (tmp_path / 'torch.py').write_text('1 / 0', encoding='utf-8')
    late = re.sub('(def reward.*\n)', r'\1    import late_rule, torch\n', code)
    ok(rl('--max_steps=1', paid=late))


def test_a_reward_is_a_number_or_a_sentence_that_names_the_prompt(rl, out):
    for body, why in {'raise KeyError("a")': "KeyError('a')", 'return float("nan")': 'is nan',
                      'return None': 'None', 'exit()': 'SystemExit'}.items():
        result = rl('--overwrite=True', paid=PAID.replace('return sum', f'{body}; sum'))
        mistake(result, "reward('", ' and ', 'must return a number up to 1e12', why)
    mistake(rl('--overwrite=True', paid='import sys; sys.exit()'), 'paid.py must define prompts()')


def test_one_ctrl_c_ends_a_run_whose_reward_hangs_and_catches_everything(rl):
    result = rl(timeout=60, paid=PAID.replace('return sum', """
    import os, signal, threading
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    while True:
        try:
            while True: pass
        except BaseException: pass
    sum"""))
    assert result.returncode == 130 and 'last.pt has step 0' in result.stdout


def test_what_executes_must_be_typed_again_on_resume_and_the_model_of_the_kl_is_the_same(rl, out,
                                                                                         tmp_path):
    model = make_sft(tmp_path / 'model')
    ok(rl('--max_steps=1', '--kl_coef=0.1', f'--init_from={model}'))
    again = 'rl.py', f'--out_dir={out}', '--init_from=resume', '--max_steps=2'
    mistake(run(*again), '--reward= does not exist', 'FILE.py (typed again on resume)')
    weights = (model / 'best.pt').read_bytes()
    net = GPT.load(model)
    net.norm.weight.data += 1
    save_run(model, net, BYTES)
    mistake(run(*again, f'--reward={tmp_path}/paid.py'), 'first model')
    (model / 'best.pt').write_bytes(weights)
    ok(run(*again, f'--reward={tmp_path}/paid.py'))


# --- lines with answers or tests ------------------------------------------------------------------
def test_an_answer_is_right_as_a_number_or_as_a_text():
    for answer, right, wrong in (
            (18, ['18', '7, no, 18'], ['-18', '18 or 19', 'Which?', '']),
            ('5 apples', ['five? 5'], ['5 or 6', 'apples']), ('-$5', ['\u22125', '-$5.0'], ['5']),
            ('So: 3 + 4.\n#### 7', ['7', '#### 7, as 3 + 4'], ['3 + 4', '####']),
            ('1/2', ['1/2'], ['2', '3/2']),
            (2 ** 53, ['9,007,199,254,740,992.0'], ['9007199254740993', '1e9999999999999999999']),
            ('Yes', [' YES\n'], ['no', '', 'It is yes']), ('Apollo 11', ['apollo 11'], ['11'])):
        found = [is_right(text, answer) for text in right + wrong]
        assert found == [True] * len(right) + [False] * len(wrong), answer
    assert is_right.__globals__['NUMBER'] == questions.NUMBER           # as eval.py reads it


LINES = b'''{"prompt": "Write f.", "tests": "assert f(2) == 4"}
{"question": "2 + 2?", "answer": "so #### 4"}
{"prompt": "Say it.", "regex": "^it"}
{"prompt": "Say no.", "must_not_contain": "yes"}'''


def test_what_each_kind_of_line_pays_and_which_are_refused(monkeypatch):
    opened = lambda content: open_tests('mine.jsonl', content, 0, True, 2.0, 1, 1)
    prompts, judge, _ = opened(LINES)
    right = ['```python\ndef f(x):\n    return 2 * x\n```', 'It is 4', 'it is', 'no']
    wrong = ['def f(x): return x', 'It is 5', 'is it', 'yes']
    assert [*judge(prompts * 3, right + wrong + [''] * 4)] == [1.0] * 4 + [0.0] * 8
    refused('line 1: .*nothing is checked', opened, b'{"prompt": "a"}')
    twice = b'{"prompt": "a", "tests": "assert f()"}\n{"prompt": "a", "tests": "assert g()"}'
    refused('line 2: .*earlier line', opened, twice)
    # tests that cannot run are no verdict
    monkeypatch.setattr(sandbox, 'run_code', lambda *job: sandbox.Result('infrastructure',
                                                                         'no space'))
    refused("no verdict on 'Write f.': .*no space", lambda: [*judge(prompts[:1],
                                                                    ['def f(): return 1'])])


def test_programs_run_only_if_that_is_typed_and_tests_that_judge_nothing_are_refused(rl, out,
                                                                                     tmp_path):
    idle, fine = (write(tmp_path / f'{code}.jsonl', [{'prompt': 'a' * i, 'tests': f'assert {code}'}
                                                     for i in range(1, 5)])
                  for code in ('True', 'f()'))
    allowed = '--allow_code_execution=True'
    mistake(rl(f'--reward={idle}'), allowed, 'extras/sandbox.py')
    mistake(rl(f'--reward={idle}', allowed), "'a' pass without an answer")
    ok(rl(f'--reward={fine}', allowed, '--max_steps=1', '--num_samples=2', '--batch_size=1'))
    again = 'rl.py', f'--out_dir={out}', '--init_from=resume', '--max_steps=2'
    mistake(run(*again), allowed)
    ok(run(*again, allowed))
    assert series(out, 'reward') == [0, 0]
