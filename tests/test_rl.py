"""rl.py: its loss, real runs in which the reward rises, and whoever gives rewards: programs, lines with
answers or tests, a reward model. What it promises like sft.py and dpo.py is in test_alike.py."""
import contextlib
import json
import math
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import PAID, ROOT, lift, make_sft, metrics, mistake, ok, read_rows, refused, run, same, save_run
from conftest import series, sharpen, state, write
from pytest import approx
from test_records import BYTES

from extras import questions, sandbox
from extras.rewards import open_scores, open_tests
from model import GPT, IGNORE, GPTConfig
from tokenizer import Tokenizer

advantages, policy_loss, collate, is_right = lift('rl.py', 'advantages', 'policy_loss', 'collate', 'is_right')
FLAGS = ('--device=cpu --dtype=float32 --batch_size=4 --num_samples=6 --max_new_tokens=8 '
         '--max_steps=12 --warmup_steps=0 --learning_rate=1e-2 --eval_interval=12 --eval_prompts=4').split()


# --- the loss -----------------------------------------------------------------------------------------------
def slow(log_p, old, advantage, low, high, ref, kl_coef):
    """One token, in float64: its loss, its ratio, its KL."""
    ratio = math.exp(log_p - old)
    clipped = min(max(ratio, 1 - low), 1 + high)
    kl = math.exp(ref - log_p) - 1 - (ref - log_p)
    return -min(ratio * advantage, clipped * advantage) + kl_coef * kl, ratio, kl


def test_the_loss_and_its_gradient_are_the_formulas_token_by_token():
    """So no update gains by leaving the bounds, and any may return."""
    dice = np.random.default_rng(0)
    log_p, old, ref = (torch.tensor(-dice.exponential(2, 54)).float() for _ in range(3))
    log_p[0], old[0] = -60, -0.001                    # nearly forgotten
    log_p[1], old[1] = -0.001, -60                    # e^60 times as likely
    A = torch.tensor([1.0, -1.0, 0.5, -0.25, 0.0, 3.0]).repeat(9)
    numbers = [*zip(*(x.double().tolist() for x in (log_p, old, A, ref)))]
    for low, high, kl_coef in ((0.2, 0.2, 0), (0.2, 0.28, 0.1), (0, 0, 0), (1.0, 5.0, 2.0)):
        log_p.requires_grad_().grad = None
        found = policy_loss(log_p, old, A, low, high, ref, kl_coef)
        found[0].sum().backward()
        for i, (p, o, a, r) in enumerate(numbers):
            got = [each[i].item() for each in found]                    # loss, ratio, KL
            assert got == approx(slow(p, o, a, low, high, r, kl_coef), rel=2e-5, abs=1e-5), (low, high, i)
            up, down = (slow(p + h, o, a, low, high, r, kl_coef)[0] for h in (1e-6, -1e-6))
            assert log_p.grad[i].item() == approx((up - down) / 2e-6, rel=1e-4, abs=1e-4), (low, high, i)
    loss, _, kl = policy_loss(log_p, old, A)
    assert kl.tolist() == [0] * 54 and loss[4].item() == 0

    log_p = torch.zeros(2, requires_grad=True)              # 500 nats above: a ratio that no float32 holds
    found, *_ = policy_loss(log_p, log_p.detach() - 500, torch.tensor([-1.0, 0.0]))
    found.sum().backward()
    assert found.isfinite().all() and log_p.grad.isfinite().all() and found[1] == log_p.grad[1] == 0


def test_advantages_and_the_numbers_of_the_docstring_by_hand():
    """Also of rewards that float32 cannot tell apart."""
    assert advantages(torch.tensor([[1e9, 1e9 + 1]], dtype=torch.float64)).tolist() == [[-.5, .5]]
    groups = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 4]])
    assert advantages(groups).tolist() == [[.5, -.5, -.5, .5], [-1, -1, -1, 3]]
    scaled = advantages(torch.tensor([[1.0, 0, 0, 0], [.1] * 4]), scale=True)
    assert scaled[0].tolist() == approx([math.sqrt(3), *[-1 / math.sqrt(3)] * 3], rel=1e-6)
    assert scaled[1].tolist() == [0] * 4        # equal rewards: exactly none
    loss, ratio, _ = policy_loss(torch.log(torch.tensor([0.3, 0.3])), torch.log(torch.tensor([0.2, 0.2])),
                                 torch.tensor([1.0, -1.0]))
    assert ratio.tolist() == approx([1.5, 1.5]) and loss.tolist() == approx([-1.2, 1.5])
    p = torch.tensor([0.5, 0.5]).log().requires_grad_()
    loss, _, kl = policy_loss(p, p.detach(), torch.zeros(2), ref_log_p=torch.tensor([0.8, 0.2]).log(),
                              kl_coef=1.0)
    loss.sum().backward()
    assert kl.tolist() == approx([0.13, 0.32], abs=5e-3) and p.grad.tolist() == approx([-0.6, 0.6])


def test_what_sampling_and_training_say_of_a_token_differs_by_rounding_only():
    torch.manual_seed(0)
    model = sharpen(GPT(GPTConfig(97, 64, 2, 4, 2, 32)))
    dice = np.random.default_rng(0)
    prompts = [dice.integers(1, 97, dice.integers(1, 44)).tolist() for _ in range(40)]
    idx = torch.nn.utils.rnn.pad_sequence([torch.tensor(p) for p in prompts], True, IGNORE, 'left')
    new, log_p = model.generate(idx, 20, 0.7, stop=[0, 3], seeds=range(40), with_log_p=True)
    rows = []
    for prompt, ids, values in zip(prompts, new[:, idx.shape[1]:].tolist(), log_p.tolist()):
        n = min([ids.index(id) for id in (0, 3) if id in ids], default=len(ids) - 1) + 1
        rows.append((prompt, ids[:n], values[:n], len(rows)))
    x, y, old, A = collate(rows)
    assert len({len(ids) for prompt, ids, values, i in rows}) > 5
    assert (model.log_p(x, y, 0.7) - old).abs().max() < 1e-4
    assert y[y != IGNORE].tolist() == [id for prompt, ids, values, i in rows for id in ids]
    assert A.tolist() == [i for prompt, ids, values, i in rows for _ in ids]


# --- what is learned ----------------------------------------------------------------------------------------
@pytest.fixture
def rl(sft_model, tmp_path):
    """rl(its folder, *flags, paid=the text of its reward file)"""
    def rl(out, *more, paid=PAID, **how):
        (tmp_path / 'paid.py').write_text(paid, encoding='utf-8')
        return run('rl.py', f'--init_from={sft_model}', f'--reward={tmp_path}/paid.py', f'--out_dir={out}',
                   *FLAGS, *more, **how)
    return rl


@pytest.mark.parametrize('more', [[], ['--scale=True', '--updates=2', '--optimizer=muon', '--max_steps=36',
                                       '--eval_interval=18', '--learning_rate=2e-2']])
def test_the_reward_rises(rl, tmp_path, more):
    out = tmp_path / 'run'
    said = ok(rl(out, '--max_steps=24', *more))
    paid = series(out, 'reward')
    assert len(paid) == (36 if more else 24) and sum(paid[-4:]) > sum(paid[:4]) + 4 * 0.1, paid
    assert series(out, 'val_reward')[-1] > 0.9 and len(series(out, 'val_reward')) == 3
    last = [m for m in metrics(out) if 'reward' in m][-1]
    assert last['kl'] is None and 0 < last['entropy'] < 6 and last['length'] <= 8
    assert (series(out, 'clip_fraction')[0] > 0) == bool(more)      # the first ratio of fresh answers is 1
    assert all(0 <= last[name] <= 1 for name in ('clip_fraction', 'truncated', 'informative', 'used'))
    assert 'highest val_reward ' in said and '[reward ' in (out / 'samples.txt').read_text('utf-8')


def test_the_kl_holds_the_model_near_its_start(rl, tmp_path):
    model = make_sft(tmp_path / 'sft', dropout=0.3)
    for coef in (1e-6, 3.0):        # the reference has no dropout, or the first KL would not be 0
        ok(rl(tmp_path / f'{coef}', f'--kl_coef={coef}', f'--init_from={model}'))
    free, held = series(tmp_path / '1e-06', 'kl'), series(tmp_path / '3.0', 'kl')
    assert abs(free[0]) < 1e-6 > abs(held[0]) and free[-1] > 3 * held[-1] > 0


def test_equal_rewards_leave_the_weights_exactly_as_they_were(rl, sft_model, tmp_path):
    ok(rl(tmp_path / 'run', '--max_steps=3', paid=PAID.replace('return sum', 'return 0.3 or sum')))
    for name in 'grad_norm', 'informative', 'used':
        assert series(tmp_path / 'run', name) == [0.0] * 3
    assert same(GPT.load(sft_model).state_dict(), state(tmp_path / 'run')['model'])


def test_a_letter_is_learned_from_lines_with_answers(rl, tmp_path):
    lines = write(tmp_path / 'lines.jsonl', [{'prompt': f'{i}', 'answer': 'B'} for i in range(20)])
    model = make_sft(tmp_path / 'sft')
    net = GPT.load(model)
    net.embedding.weight.data[ord('B')] *= 4        # it writes some of them, or it could never learn
    net.embedding.weight.data[ord('B')] += net.embedding.weight.data[10] * 3    # behind a line break
    save_run(model, net, BYTES, config={'stage': 'sft'})
    ok(rl(tmp_path / 'run', f'--reward={lines}', f'--init_from={model}', '--max_new_tokens=1',
          '--num_samples=32', '--max_steps=20'))
    rewards = series(tmp_path / 'run', 'reward')
    assert series(tmp_path / 'run', 'val_reward')[-1] == 1 and rewards[-1] > rewards[0] + 0.5, rewards


def test_a_reward_model_of_dpo_is_what_the_answers_earn(rl, sft_model, tmp_path):
    """It likes digits. Its scores are those of the run that made it. PAID judges the held-out answers."""
    dice = random.Random(0)
    for side, n in (('train', 64), ('val', 16)):
        write(tmp_path / f'pairs/{side}.jsonl',
              [{'prompt': f'{i}', 'chosen': ''.join(dice.choices('0123456789', k=8)),
                'rejected': ''.join(dice.choices('abcdefghij', k=8))} for i in range(n)])
    ok(run('dpo.py', f'--init_from={sft_model}', f'--data_dir={tmp_path}/pairs', '--loss_type=rm',
           f'--out_dir={tmp_path}/reward', '--device=cpu', '--max_steps=24', '--learning_rate=1e-2'))
    assert series(tmp_path / 'reward', 'val_accuracy')[-1] > 0.9
    val, plain = tmp_path / 'pairs/val.jsonl', contextlib.nullcontext()
    judge = open_scores(str(tmp_path / 'reward'), str(val), BYTES, 'cpu', plain)[1]
    rows = read_rows(val)
    good, bad = ([*judge([row['prompt'] for row in rows], [row[side] for row in rows])]
                 for side in ('chosen', 'rejected'))
    assert np.subtract(good, bad).mean() == approx(series(tmp_path / 'reward', 'val_margin')[-1], abs=1e-5)
    asked = write(tmp_path / 'prompts.jsonl', [{'prompt': f'{i}!'} for i in range(20)])
    said = ok(rl(tmp_path / 'run', f'--prompts={asked}', f'--held_out={tmp_path}/paid.py',
                 '--kl_coef=0.01', '--max_steps=24', f'--reward={tmp_path}/reward'))
    scores = series(tmp_path / 'run', 'reward')
    assert sum(scores[-4:]) > sum(scores[:4]) + 1, scores
    assert all(value * 32 % 1 == 0 for value in series(tmp_path / 'run', 'val_reward'))    # 4 in eighths
    assert 'prompts: 20, held out: 4' in said and series(tmp_path / 'run', 'kl')[-1] > 0
    mistake(rl(tmp_path / 'no', f'--reward={sft_model}'), 'is not a reward', 'dpo.py --loss_type=rm')
    mistake(rl(tmp_path / 'no', f'--reward={tmp_path}/reward', '--prompts=gone'), 'prompts=gone', '"prompt"')


# --- prompts ------------------------------------------------------------------------------------------------
def test_no_prompt_is_both_trained_on_and_held_out_and_long_ones_are_counted(rl, tmp_path):
    thrice = PAID.replace("""f'{i} and {"x" * (i % 7)}'""", 'str(i % 3)')
    line = write(tmp_path / 'two.jsonl', [{'prompt': '2', 'answer': '3', 'score': 1}])      # one of the three
    for i, more in enumerate(([], [f'--held_out={line}'])):
        assert 'prompts: 2, held out: 1' in ok(rl(tmp_path / f'{i}', '--max_steps=1', *more, paid=thrice))
    mistake(rl(tmp_path / 'no', f'--held_out={tmp_path}/paid.py', paid=thrice),
            '3 to evaluate on, 0 others to train on')
    long = PAID.replace("for i in range(40)", "for i in range(40)] + ['a' * 99, 'b' * 99, 'c' * 99")
    said = ok(rl(tmp_path / 'run', '--max_steps=1', paid=long))
    assert 'paid.py: prompts: 43, left out, because they come twice or have more than 88 tokens: 3' in said
    mistake(rl(tmp_path / 'no', '--max_new_tokens=90'), '0 to evaluate on', '--max_new_tokens')


def test_a_file_whose_kinds_take_turns_has_each_kind_among_what_is_held_out(rl, tmp_path):
    turns = PAID.replace('return sum', 'return int(prompt.split()[0]) % 10; sum')
    turns = turns.replace('range(40)', 'range(400)')
    ok(rl(tmp_path / 'run', '--max_steps=1', '--eval_prompts=40', paid=turns))
    assert 3 < series(tmp_path / 'run', 'val_reward')[0] < 6


# --- programs that give rewards -----------------------------------------------------------------------------
def test_the_reward_file_of_the_docs_works_and_one_may_import_what_is_beside_it_also_late(rl, tmp_path):
    blocks = re.findall(r'```python\n(.*?)```', (ROOT / 'docs/chat.md').read_text(encoding='utf-8'), re.S)
    code, = [block for block in blocks if 'def reward' in block]
    ok(rl(tmp_path / 'docs', '--max_steps=1', paid=code))
    assert all(0 <= value <= 1 for value in series(tmp_path / 'docs', 'reward'))
    (tmp_path / 'late_rule.py').write_text('rule = len', encoding='utf-8')
    (tmp_path / 'torch.py').write_text('1 / 0', encoding='utf-8')           # it hides no module of ours
    ok(rl(tmp_path / 'run', '--max_steps=1', paid=PAID.replace(
        'return sum', 'import late_rule, torch\n    return late_rule.rule(completion) or sum')))


def test_a_reward_is_a_number_or_a_sentence_that_names_the_prompt(rl, tmp_path):
    bodies = {'raise KeyError("a")': "KeyError('a')", 'return float("nan")': 'is nan', 'return 1e13': '1000',
              'return None': 'None', 'return "1"': 'str', 'exit()': 'SystemExit', 'return [1]': 'list'}
    for body, why in bodies.items():
        result = rl(tmp_path / 'run', '--overwrite=True', paid=PAID.replace('return sum', f'{body}; sum'))
        mistake(result, "reward('", ' and ', 'must return a number up to 1e12', why)
    assert state(tmp_path / 'run')['step'] == 0
    for text in 'import numpyy', 'def prompts(:', 'def prompts(): pass', 'import sys; sys.exit()', '':
        mistake(rl(tmp_path / 'no', paid=f'{text}\nreward = len'), 'paid.py must define prompts()')
    for made in '[1]', '[None]', '[[1]]', '[[{"role": "user"}]]':
        mistake(rl(tmp_path / 'no', paid=f'prompts, reward = lambda: {made}, len'), 'a message is a role')
    assert not (tmp_path / 'no').exists()


def test_one_ctrl_c_ends_a_run_whose_reward_hangs_and_catches_everything(rl, sft_model, tmp_path):
    (tmp_path / 'paid.py').write_text(PAID.replace('return sum', """
    print('hangs', flush=True)
    while True:
        try:
            while True: pass
        except BaseException: pass
    sum"""), encoding='utf-8')
    process = subprocess.Popen([sys.executable, ROOT / 'rl.py', f'--init_from={sft_model}', *FLAGS,
                                f'--reward={tmp_path}/paid.py', f'--out_dir={tmp_path}/run'],
                               stdout=subprocess.PIPE, text=True)
    while 'hangs' not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130 and 'last.pt has step 0' in process.stdout.read()


def test_a_reward_that_fails_in_one_process_ends_the_other_which_judges(rl, tmp_path):
    paid = 'import os, time\n' + PAID.replace('return sum', """
    if os.environ['RANK'] == '1':
        1 / 0
    time.sleep(0.05)
    return sum""")
    result = rl(tmp_path / 'run', processes=2, timeout=60, paid=paid)
    assert result.returncode == 2 and "reward('" in result.stderr and 'ZeroDivisionError' in result.stderr


def test_what_executes_must_be_typed_again_on_resume_and_the_model_of_the_kl_is_the_same(rl, tmp_path):
    model, paid, held = make_sft(tmp_path / 'model'), tmp_path / 'paid.py', tmp_path / 'held.py'
    held.write_text(PAID.replace('range(40)', 'range(9)').replace('} and', '} or'), encoding='utf-8')
    ok(rl(tmp_path / 'run', '--max_steps=1', '--kl_coef=0.1', f'--init_from={model}', f'--held_out={held}'))
    again = 'rl.py', f'--out_dir={tmp_path}/run', '--init_from=resume', '--max_steps=2'
    mistake(run(*again), '--reward= does not exist', 'FILE.py (typed again on resume)')
    mistake(run(*again, f'--reward={paid}'), "held_out=''", 'other prompts')
    weights = (model / 'best.pt').read_bytes()
    net = GPT.load(model)
    net.norm.weight.data += 1
    save_run(model, net, BYTES)
    typed = *again, f'--reward={paid}', f'--held_out={held}'
    mistake(run(*typed), 'first model')
    (model / 'best.pt').unlink()
    mistake(run(*typed), f'{model} cannot be loaded')
    (model / 'best.pt').write_bytes(weights)
    ok(run(*typed))


def test_a_model_whose_probabilities_are_no_numbers_ends_the_run(rl, tmp_path):
    """Then all answers earn the same, so the loss and the gradient are 0."""
    model = make_sft(tmp_path / 'sft')
    net = GPT.load(model)
    net.norm.weight.data[:] = 3e38
    save_run(model, net, BYTES, config={'stage': 'sft'})
    mistake(rl(tmp_path / 'run', f'--init_from={model}', paid=PAID.replace('return sum', 'return 0; sum')),
            'step 1', "'entropy': nan", '--learning_rate')
    assert state(tmp_path / 'run')['step'] == 0


# --- lines with answers or tests, and a reward model --------------------------------------------------------
def test_an_answer_is_right_as_a_number_or_as_a_text():
    for answer, right, wrong in (
            (18, ['18', 'It is 18.', '7, no, 18'], ['-18', '18 or 19', 'Which?', '', 'None']),
            ('5 apples', ['five? 5'], ['5 or 6', 'apples']), ('-$5', ['\u22125', '-$5.0'], ['5']),
            ('So: 3 + 4.\n#### 7', ['7', '#### 7', '#### 7, as 3 + 4'], ['3 + 4', '####']),
            ('Yes', ['yes', ' YES\n'], ['no', '', 'It is yes', 'None']), ('None', ['none'], ['', 'no']),
            ('Apollo 11', ['apollo 11'], ['11', 'Apollo 13']), ('1/2', ['1/2'], ['2', '3/2'])):
        assert [is_right(text, answer) for text in right] == [True] * len(right), answer
        assert [is_right(text, answer) for text in wrong] == [False] * len(wrong), answer
    assert is_right.__globals__['NUMBER'] == questions.NUMBER           # as eval.py reads it


def judge_of(*lines):
    content = '\n'.join(map(json.dumps, lines)).encode()
    prompts, judge, identity = open_tests('mine.jsonl', content, 0, True, 2.0, rank=1, world=1)
    assert identity == content
    return prompts, lambda *case: [*judge(*case)]           # an iterator, which waits for programs


def test_what_each_kind_of_line_pays_and_which_are_refused(monkeypatch):
    prompts, judge = judge_of(
        {'prompt': 'Write f.', 'tests': 'assert f(2) == 4'}, {'question': '2 + 2?', 'answer': 'so #### 4'},
        {'prompt': 'Say it.', 'regex': '^it'}, {'prompt': 'Say no.', 'must_not_contain': 'yes'})
    assert [p[0]['content'] for p in prompts] == ['Write f.', '2 + 2?', 'Say it.', 'Say no.']
    right = ['```python\ndef f(x):\n    return 2 * x\n```', 'It is 4', 'it is', 'no']
    wrong = ['def f(x): return x', 'It is 5', 'is it', 'yes']
    assert judge(prompts * 3, right + wrong + [''] * 4) == [1.0] * 4 + [0.0] * 8
    assert judge(prompts[::-1], right[::-1]) == [1.0] * 4
    assert judge([], []) == []                                      # a process without answers
    line = b'{"prompt": "a"}'
    refused('mine.jsonl, line 1: .*nothing is checked', open_tests, 'mine.jsonl', line, 0, True, 1.0, 1, 1)
    for one, two in (({'tests': 'assert f()'}, {'tests': 'assert g()'}), ({'answer': 1}, {'answer': 2})):
        assert len(judge_of(*[{'prompt': 'Write f.', **one}] * 2)[0]) == 2      # one prompt, judged alike
        refused('line 2: .*earlier line', judge_of, {'question': 'Write f.', **one},
                {'question': 'Write f.', **two})
    # tests that cannot run are no verdict
    broken = sandbox.Result('infrastructure', 'no space')
    monkeypatch.setattr(sandbox, 'run_code', lambda *job: broken)
    refused("no verdict on 'Write f.': .*no space", judge, prompts[:1], ['def f(): return 1'])


def test_programs_run_only_if_that_is_typed_and_tests_that_judge_nothing_are_refused(rl, tmp_path):
    idle = write(tmp_path / 'idle.jsonl', [{'prompt': 'a' * i, 'tests': 'assert True'} for i in range(1, 13)])
    for source in 'problems', idle:
        mistake(rl(tmp_path / 'run', f'--reward={source}'), '--allow_code_execution=True',
                'extras/sandbox.py')
    mistake(rl(tmp_path / 'run', '--allow_code_execution=True', '--timeout=0.5', f'--reward={idle}'),
            "'a' pass without an answer")
    assert not (tmp_path / 'run').exists()
    fine = write(tmp_path / 'fine.jsonl', [{'prompt': 'a' * i, 'tests': f'assert f() == {i}'}
                                           for i in range(1, 13)])
    ok(rl(tmp_path / 'run', '--allow_code_execution=True', f'--reward={fine}', '--max_steps=1'))
    again = f'--out_dir={tmp_path}/run', '--init_from=resume', '--max_steps=2'
    mistake(run('rl.py', *again), '--allow_code_execution=True')
    ok(run('rl.py', *again, '--allow_code_execution=True'))
    assert series(tmp_path / 'run', 'reward') == [0, 0]
    asked = open_tests('mine.jsonl', b'{"prompt": "a", "regex": "b"}', 0, False, 1.0, 0, 1)[0]
    assert len(asked) == 1                                          # no program, so nothing to allow
    open_tests('idle.jsonl', b'{"prompt": "a", "tests": "assert True"}', 0, True, 0.5, 1, 2)    # rank 0 tries


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


def test_a_reward_model_scores_the_whole_answer_with_its_end_whatever_is_next_to_it(tmp_path):
    torch.manual_seed(0)
    model = sharpen(GPT(GPTConfig(BYTES.vocab_size, 48, 2, 2, 0, 32))).eval()
    head, texts = torch.randn(1, 32), ['yo', '', 'a longer one', 'é' * 30]
    chat = [{'role': 'user', 'content': 'ho'}]
    asked = write(tmp_path / 'asked.jsonl', [{'prompt': 'hi'}, {'prompt': chat}])
    scores = lambda tokenizer=BYTES: open_scores(str(tmp_path / 'reward'), str(asked), tokenizer, 'cpu',
                                                 contextlib.nullcontext())
    save_run(tmp_path / 'reward', model, BYTES, reward_head=head)
    prompts, judge, identity = scores()
    assert prompts[0] == 'hi' and len(prompts) == 2
    begin = BYTES.render([{'role': 'user', 'content': 'hi'}], add_generation_prompt=True)[0]
    found = judge(['hi'] * 74, texts + ['yo'] * 70)
    for text, value in zip(texts + ['yo'] * 70, found, strict=True):
        answer = [*text.encode(), BYTES.special['<|im_end|>']]
        ids = [*begin[-max(48 - len(answer), 12):], *answer][:48]           # its context is short
        wanted = model.backbone(torch.tensor([ids]))[0, -1] @ head[0]
        assert value == approx(wanted.item(), rel=1e-4)
    refused('another tokenizer', scores, Tokenizer.byte(['<|im_start|>', '<|im_end|>']))
    save_run(tmp_path / 'reward', model, BYTES, reward_head=torch.randn(1, 32))
    assert scores()[2] != identity
