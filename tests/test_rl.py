"""rl.py: real runs in which the reward rises; rewards and whoever gives them; exact resume, processes."""
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from accidents import accident, before, killed_while_saving
from alike import FILES, TORCHRUN, copied, each_death, expect_a_full_disk_leaves_the_last_checkpoint
from alike import expect_a_signal_names_the_save, expect_all_end, expect_links_lead_nowhere
from alike import expect_nan_stays_out, expect_no_run_is_replaced, expect_straight, resumed
from conftest import PAID, ROOT, contents, lift, make_sft, metrics, mistake, ok
from conftest import read_rows, run, same, save_run, series, sharpen, state, write
from test_records import BYTES

from extras import questions
from model import GPT, GPTConfig, IGNORE
from tokenizer import SPECIAL_TOKENS, Tokenizer

collate, is_right = lift('rl.py', 'collate', 'is_right')
FLAGS = ('--device=cpu --dtype=float32 --batch_size=4 --num_samples=6 --max_new_tokens=8 '
         '--max_steps=12 --warmup_steps=0 --learning_rate=1e-2 --eval_interval=6 '
         '--save_interval=4 --eval_prompts=4').split()


@pytest.fixture
def rl(sft_model, tmp_path):
    """rl(its folder, *flags, paid=the text of its reward file)"""
    def rl(out, *more, paid=PAID, **how):
        (tmp_path / 'paid.py').write_text(paid, encoding='utf-8')
        return run('rl.py', f'--init_from={sft_model}', f'--reward={tmp_path}/paid.py', f'--out_dir={out}',
                   *FLAGS, *more, **how)
    return rl


# --- what is learned ----------------------------------------------------------------------------------------
@pytest.mark.parametrize('more', [[], ['--scale=True', '--updates=2', '--optimizer=muon',
                                       '--max_steps=36', '--eval_interval=18', '--learning_rate=2e-2']])
def test_the_reward_rises(rl, tmp_path, more):
    out = tmp_path / 'run'
    said = ok(rl(out, '--max_steps=24', '--eval_interval=12', *more))
    paid = series(out, 'reward')
    assert len(paid) == (36 if more else 24) and sum(paid[-4:]) > sum(paid[:4]) + 4 * 0.1, paid
    assert series(out, 'val_reward')[-1] > 0.9 and len(series(out, 'val_reward')) == 3
    last = [m for m in metrics(out) if 'reward' in m][-1]
    assert last['kl'] is None and 0 < last['entropy'] < 6 and last['length'] <= 8
    assert (series(out, 'clip_fraction')[0] > 0) == bool(more)      # the first ratio of fresh answers is 1
    assert all(0 <= last[name] <= 1 for name in ('clip_fraction', 'truncated', 'informative', 'used'))
    row = read_rows(out / 'metrics.jsonl')[-2]
    assert {'loss', 'lr', 'grad_norm', 'sample_s', 'score_s', 'train_s', 'dt', 'tok_s'} < row.keys()
    assert 'highest val_reward ' in said and '[reward ' in (out / 'samples.txt').read_text('utf-8')
    assert contents(out).keys() == FILES


def test_the_kl_holds_the_model_near_its_start(rl, tmp_path):
    model = make_sft(tmp_path / 'sft', dropout=0.3)
    for coef in (1e-6, 3.0):        # the reference has no dropout, or the first KL would not be 0
        ok(rl(tmp_path / f'{coef}', f'--kl_coef={coef}', f'--init_from={model}'))
    free, held = series(tmp_path / '1e-06', 'kl'), series(tmp_path / '3.0', 'kl')
    assert abs(free[0]) < 1e-6 > abs(held[0]) and free[-1] > 3 * held[-1] > 0


def test_equal_rewards_leave_the_weights_exactly_as_they_were(rl, sft_model, tmp_path):
    out = tmp_path / 'run'
    ok(rl(out, paid=PAID.replace('return sum', 'return 0.3 or sum')))
    assert series(out, 'grad_norm') == [0.0] * 12 == series(out, 'informative') == series(out, 'used')
    assert same(GPT.load(sft_model).state_dict(), state(out)['model'])


def test_a_random_reward_teaches_nothing(rl, tmp_path):
    """What PAID says of the held-out answers stays near its start."""
    (tmp_path / 'held.py').write_text(PAID.replace('{i} and', '{i} or'), encoding='utf-8')
    dice = PAID.replace('return sum', 'return dice.random() < 0.5; sum')
    ok(rl(tmp_path / 'run', '--max_steps=48', f'--held_out={tmp_path}/held.py', '--learning_rate=1e-3',
          '--eval_interval=12', paid=f'import random\ndice = random.Random(0)\n{dice}'))
    rewards = series(tmp_path / 'run', 'reward')
    assert abs(np.mean(rewards[:24]) - 0.5) < 0.1 > abs(np.mean(rewards[24:]) - 0.5)


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
    """It likes digits. PAID judges the held-out answers."""
    dice = random.Random(0)
    for side, n in (('train', 64), ('val', 16)):
        write(tmp_path / f'pairs/{side}.jsonl',
              [{'prompt': f'{i}', 'chosen': ''.join(dice.choices('0123456789', k=8)),
                'rejected': ''.join(dice.choices('abcdefghij', k=8))} for i in range(n)])
    ok(run('dpo.py', f'--init_from={sft_model}', f'--data_dir={tmp_path}/pairs', '--loss_type=rm',
           f'--out_dir={tmp_path}/reward', '--device=cpu', '--max_steps=24', '--learning_rate=1e-2'))
    assert series(tmp_path / 'reward', 'val_accuracy')[-1] > 0.9
    asked = write(tmp_path / 'prompts.jsonl', [{'prompt': f'{i}!'} for i in range(20)])
    said = ok(rl(tmp_path / 'run', f'--prompts={asked}', f'--held_out={tmp_path}/paid.py',
                 '--kl_coef=0.01', '--max_steps=24', f'--reward={tmp_path}/reward'))
    scores = series(tmp_path / 'run', 'reward')
    assert sum(scores[-4:]) > sum(scores[:4]) + 1, scores
    assert all(value * 32 % 1 == 0 for value in series(tmp_path / 'run', 'val_reward'))    # 4 in eighths
    assert 'prompts: 20, held out: 4' in said and series(tmp_path / 'run', 'kl')[-1] > 0
    mistake(rl(tmp_path / 'no', f'--reward={sft_model}'), 'is not a reward', 'dpo.py --loss_type=rm')
    mistake(rl(tmp_path / 'no', f'--reward={tmp_path}/reward', '--prompts=gone'), 'prompts=gone', '"prompt"')


# --- what is drawn, and what the loss reads -----------------------------------------------------------------
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


def test_an_answer_is_right_as_a_number_or_as_a_text():
    for answer, right, wrong in (
            (18, ['18', 'It is 18.', '$18.0', '7, no, 18'], ['-18', '18 or 19', 'Which?', '', 'None']),
            (-2.5, ['It is -2.50'], ['2.5', '']), ('$1,200', ['1200'], ['1,201', '1,2']),
            ('5 apples', ['five? 5'], ['5 or 6', 'apples']), ('1e3', ['1,000'], ['13', '1']),
            ('So: 3 + 4.\n#### 7', ['7', '#### 7', '#### 7, as 3 + 4'], ['3 + 4', '####']),
            ('.5', ['0.5'], ['5']),
            ('\u22125', ['-5'], ['5']), ('-$5', ['\u22125', '-$5.0'], ['5']),
            ('Yes', ['yes', ' YES\n'], ['no', '', 'It is yes', 'None']), ('None', ['none'], ['', 'no']),
            ('Apollo 11', ['apollo 11'], ['11', 'Apollo 13']), ('1/2', ['1/2'], ['2', '3/2'])):
        assert [is_right(text, answer) for text in right] == [True] * len(right), answer
        assert [is_right(text, answer) for text in wrong] == [False] * len(wrong), answer
    assert is_right.__globals__['NUMBER'] == questions.NUMBER           # as eval.py reads it


# --- prompts and rewards ------------------------------------------------------------------------------------
def test_no_prompt_is_both_trained_on_and_held_out(rl, tmp_path):
    thrice = PAID.replace("""f'{i} and {"x" * (i % 7)}'""", 'str(i % 3)')
    line = write(tmp_path / 'two.jsonl', [{'prompt': '2', 'answer': '3', 'score': 1}])      # one of the three
    for i, more in enumerate(([], [f'--held_out={line}'])):
        assert 'prompts: 2, held out: 1' in ok(rl(tmp_path / f'{i}', '--max_steps=1', *more, paid=thrice))
    mistake(rl(tmp_path / 'no', f'--held_out={tmp_path}/paid.py', paid=thrice),
            '3 to evaluate on, 0 others to train on')


def test_a_file_whose_kinds_take_turns_has_each_kind_among_what_is_held_out(rl, tmp_path):
    turns = PAID.replace('return sum', 'return int(prompt.split()[0]) % 10; sum')
    turns = turns.replace('range(40)', 'range(400)')
    ok(rl(tmp_path / 'run', '--max_steps=1', '--eval_prompts=40', paid=turns))
    assert 3 < series(tmp_path / 'run', 'val_reward')[0] < 6


def test_prompts_that_are_too_long_are_counted(rl, tmp_path):
    long = PAID.replace("for i in range(40)", "for i in range(40)] + ['a' * 99, 'b' * 99, 'c' * 99")
    said = ok(rl(tmp_path / 'run', '--max_steps=1', paid=long))
    assert 'paid.py: prompts: 43, left out, because they come twice or have more than 88 tokens: 3' in said
    mistake(rl(tmp_path / 'no', '--max_new_tokens=90'), '0 to evaluate on', '--max_new_tokens')


def test_the_reward_file_of_the_docs_can_be_learned_from(rl, tmp_path):
    blocks = re.findall(r'```python\n(.*?)```', (ROOT / 'docs/chat.md').read_text(encoding='utf-8'), re.S)
    code, = [block for block in blocks if 'def reward' in block]
    ok(rl(tmp_path / 'run', '--max_steps=1', paid=code))
    assert all(0 <= value <= 1 for value in series(tmp_path / 'run', 'reward'))


def test_a_reward_file_may_import_what_is_beside_it_also_late(rl, tmp_path):
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


def test_a_line_that_cannot_be_used_is_named_by_its_number(rl, tmp_path):
    good = '{"prompt": "a", "answer": 1}\n'
    for bad, word in (('{"a": 1}', 'prompt'), ('[1]', 'TypeError'), ('{"prompt": "a"}', 'answer'),
                      ('{', 'JSON'),
                      ('{"prompt": null, "answer": 1}', "'prompt': None"), ('[' * 100_000, 'Recursion'),
                      ('{"prompt": "a", "answer": null}', 'None'),
                      ('{"prompt": "b", "answer": ""}', "'answer': ''"),
                      ('{"prompt": "a", "answer": 2}', 'not as above'),
                      ('{"prompt": "a", "answer": true}', 'True'),
                      ('{"prompt": "a", "answer": "####"}', '####'),
                      (b'\xff\xfe', 'Decode')):
        bad = bad if isinstance(bad, bytes) else bad.encode()
        (tmp_path / 'lines.jsonl').write_bytes(good.encode() + bad)
        mistake(rl(tmp_path / 'run', f'--reward={tmp_path}/lines.jsonl'), 'lines.jsonl, line 2', word)
    (tmp_path / 'lines.jsonl').write_text('\n \n', encoding='utf-8')
    mistake(rl(tmp_path / 'run', f'--reward={tmp_path}/lines.jsonl'), '0 others to train on')
    assert not (tmp_path / 'run').exists()


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


# --- it goes on where it was --------------------------------------------------------------------------------
@pytest.fixture
def goes_on(tmp_path):
    """Resume a run of rl(); a program must be typed again."""
    return resumed('rl.py', f'--reward={tmp_path}/paid.py')


@pytest.fixture
def done(rl, tmp_path):
    """The folder of a run of one step."""
    ok(rl(tmp_path / 'done', '--max_steps=1'))
    return tmp_path / 'done'


@pytest.mark.parametrize('updates, more', [(2, ['--updates=2', '--kl_coef=0.1']),
                                           (1, ['--optimizer=muon', '--micro_batch_size=1'])])
def test_a_run_that_was_killed_three_times_is_the_straight_one_bit_for_bit(rl, goes_on, updates, more,
                                                                           tmp_path):
    ok(rl(tmp_path / 'straight', *more))
    out = tmp_path / 'run'
    killed = [rl(out, *more, before=accident('kill', 5 * updates)),
              goes_on(out, before=killed_while_saving(8)),
              goes_on(out, before=accident('kill', 6 * updates))]
    expect_straight(out, tmp_path / 'straight', killed, goes_on, 8, 12)
    assert contents(out).keys() == FILES


def test_another_run_is_not_resumed_as_this_one_and_a_program_must_be_typed_again(rl, goes_on, sft_model,
                                                                                  tmp_path):
    out, paid = tmp_path / 'run', tmp_path / 'paid.py'
    model = shutil.copytree(sft_model, tmp_path / 'model')
    ok(rl(out, '--max_steps=4', '--kl_coef=0.1', f'--init_from={model}'))
    before = contents(out)
    mistake(run('rl.py', f'--out_dir={out}', '--init_from=resume', '--max_steps=8'),
            '--reward= does not exist', 'FILE.py (typed again on resume)')
    again = lambda *flags, paid=paid: resumed('rl.py', f'--reward={paid}')(out, '--max_steps=8', *flags)
    (tmp_path / 'other.py').write_text(PAID.replace('/ 8', '/ 4'), encoding='utf-8')
    mistake(again(paid=tmp_path / 'other.py'), 'of other prompts, rewards')
    mistake(again('--optimizer=muon'), 'optimizer')
    net = GPT.load(model)
    net.norm.weight.data += 1
    save_run(model, net, BYTES)
    mistake(again(), 'first model')
    shutil.rmtree(model)
    mistake(again(), f'{model} cannot be loaded')
    shutil.copytree(sft_model, model)
    damaged = shutil.copytree(out, tmp_path / 'damaged')
    (damaged / 'last.pt').write_bytes((damaged / 'last.pt').read_bytes()[:999])
    mistake(goes_on(damaged), 'last.pt', 'start from another model')
    shutil.copy(damaged / 'best.pt', damaged / 'last.pt')
    mistake(goes_on(damaged, '--max_steps=8'), 'is not of rl.py')
    assert contents(out) == before
    moved = shutil.copy(paid, tmp_path / 'moved.py')                # the same program
    ok(again('--learning_rate=1e-3', paid=moved))
    assert len(series(out, 'loss')) == 8


def test_a_program_that_judges_held_out_answers_must_be_typed_again_too(rl, tmp_path):
    (tmp_path / 'held.py').write_text(PAID.replace('range(40)', "range(9)").replace('} and', '} or'))
    line = write(tmp_path / 'lines.jsonl', [{'prompt': f'{i}', 'answer': 1} for i in range(20)])
    ok(rl(tmp_path / 'run', f'--reward={line}', f'--held_out={tmp_path}/held.py', '--max_steps=1'))
    again = 'rl.py', f'--out_dir={tmp_path}/run', '--init_from=resume', '--max_steps=2'
    mistake(run(*again), "held_out=''", 'other prompts')
    ok(run(*again, f'--held_out={tmp_path}/held.py'))


def test_a_run_is_not_replaced_by_accident_nor_what_it_starts_from_at_all(rl, done, tmp_path):
    expect_no_run_is_replaced(rl, done, tmp_path / 'run')


def test_links_in_a_folder_of_a_stranger_lead_nowhere(done, goes_on, tmp_path):
    expect_links_lead_nowhere(done, tmp_path, goes_on)


# --- it ends early ------------------------------------------------------------------------------------------
@pytest.mark.parametrize('name, code', [('SIGINT', 130), ('SIGTERM', 143)])
def test_a_signal_ends_it_with_the_step_that_was_saved_and_what_resumes_it(rl, name, code, tmp_path):
    assert not expect_a_signal_names_the_save(rl, tmp_path / 'run', 'rl.py', name, code, 6, 4, 12).stderr


def test_what_is_not_finite_ends_it_before_the_weights_and_the_advice_works(rl, tmp_path):
    expect_nan_stays_out(rl, tmp_path / 'run', 6, 4, '0.0025', 12)


def test_a_model_whose_probabilities_are_no_numbers_ends_it_too(rl, tmp_path):
    """Then all answers earn the same, so the loss and the gradient are 0."""
    model = make_sft(tmp_path / 'sft')
    net = GPT.load(model)
    net.norm.weight.data[:] = 3e38
    save_run(model, net, BYTES, config={'stage': 'sft'})
    mistake(rl(tmp_path / 'run', f'--init_from={model}', paid=PAID.replace('return sum', 'return 0; sum')),
            'step 1', "'entropy': nan", '--learning_rate')
    assert state(tmp_path / 'run')['step'] == 0


def test_the_first_save_comes_before_the_first_step(rl, goes_on, tmp_path):
    assert rl(tmp_path / 'run', before=accident('kill', 0)).returncode == -signal.SIGKILL
    assert state(tmp_path / 'run')['step'] == 0
    ok(goes_on(tmp_path / 'run'))


def test_a_full_disk_leaves_the_last_checkpoint(done, goes_on, tmp_path):
    expect_a_full_disk_leaves_the_last_checkpoint(done, tmp_path / 'run', goes_on)


# --- several processes --------------------------------------------------------------------------------------
# Only every fourth prompt has answers whose rewards differ: often one of three processes has none of them.
SELDOM = PAID.replace('return sum', 'return int(prompt.split()[0]) % 4 == 0 and sum')


@pytest.mark.parametrize('n, batch_size', [(2, 5), (3, 6), (4, 3)])
def test_any_batch_is_shared_by_any_number_of_processes(rl, n, batch_size, tmp_path):
    """Of 4 processes and 3 prompts, one has nothing to answer."""
    flags = [f'--batch_size={batch_size}', '--updates=2', '--kl_coef=0.1', '--max_steps=2',
             '--eval_interval=1', '--learning_rate=1e-3']
    for processes in 1, n:
        ok(rl(tmp_path / str(processes), *flags, f'--micro_batch_size={int(processes > 1)}',
              f'--grad_checkpoint={processes > 1}', paid=SELDOM, processes=processes))
    one, more = tmp_path / '1', tmp_path / str(n)
    for key in ('reward', 'informative', 'used', 'length', 'val_reward', 'entropy', 'kl', 'loss',
                'grad_norm'):
        assert series(one, key) == pytest.approx(series(more, key), abs=2e-6), key
    for name, weight in state(one)['model'].items():
        torch.testing.assert_close(weight, state(more)['model'][name], atol=1e-5, rtol=0)


def test_the_gradient_of_two_processes_is_that_of_one(rl, tmp_path):
    spy = before('clip', f"""
        name = os.environ.get('RANK', 'alone')
        torch.save([p.grad for p in arguments[0]], f'{tmp_path}/{{name}}')""")
    for processes in 1, 2:
        ok(rl(tmp_path / f'run{processes}', '--max_steps=1', processes=processes, before=spy))
    one, two = (torch.load(tmp_path / name) for name in ('alone', '0'))
    largest = max(grad.abs().max() for grad in one)
    assert largest > 1e-3 and max((a - b).abs().max() for a, b in zip(one, two)) < 1e-6 * max(1, largest)


@each_death
def test_when_a_process_ends_the_others_do_not_wait(rl, deed, rank, tmp_path):
    expect_all_end(rl, tmp_path / 'run', deed, rank)


def test_a_reward_that_fails_in_one_process_ends_the_other_which_judges(rl, tmp_path):
    paid = 'import os, time\n' + PAID.replace('return sum', """
    if os.environ['RANK'] == '1':
        1 / 0
    time.sleep(0.05)
    return sum""")
    began = time.time()
    result = rl(tmp_path / 'run', processes=2, timeout=60, paid=paid)
    assert result.returncode == 2 and "reward('" in result.stderr and 'ZeroDivisionError' in result.stderr
    assert time.time() - began < 60


# --- copied -------------------------------------------------------------------------------------------------
def test_with_its_three_leaves_alone_it_learns_in_one_and_in_two_processes(sft_model, tmp_path):
    """From a FILE.py and from lines with answers; a flag whose file is not there is told by name."""
    call = copied('rl.py', tmp_path)
    (tmp_path / 'mine.py').write_text(PAID, encoding='utf-8')
    lines = write(tmp_path / 'lines.jsonl', [{'prompt': f'{i}', 'answer': 1} for i in range(20)])
    flags = ['rl.py', f'--init_from={sft_model}', *FLAGS, '--max_steps=3']
    for command, out in (([sys.executable], 'one'), (TORCHRUN, 'two')):
        ok(call(*command, *flags, f'--out_dir={out}', '--reward=mine.py'))
        ok(call(*command, 'rl.py', f'--out_dir={out}', '--init_from=resume', '--max_steps=5',
                '--reward=mine.py'))
        assert len(series(tmp_path / out, 'loss')) == 5
        ok(call(*command, *flags, f'--out_dir={out}_lines', f'--reward={lines}'))
        ok(call(*command, 'rl.py', f'--out_dir={out}_lines', '--init_from=resume', '--max_steps=5'))
    for flag, file in (('--optimizer=muon', 'muon'), ('--reward=problems', 'rewards'),
                       (f'--reward={sft_model}', 'rewards')):
        mistake(call(sys.executable, *flags, '--reward=mine.py', '--out_dir=three', flag), 'copy extras, too',
                file)


# --- mistakes -----------------------------------------------------------------------------------------------
def test_settings_that_cannot_be(rl, tmp_path):
    for flag, words in (
            ('--reward=', ['--reward= does not', 'FILE.py', 'FILE.jsonl', 'FOLDER', '--help']),
            ('--reward=none', ['none does not exist', 'problems', 'FILE.py']), ('--updates=0', ['updates=0']),
            ('--num_samples=1', ['num_samples=1']), ('--temperature=0', ['temperature']),
            ('--warmup_steps=13', ['warmup_steps=13', 'max_steps=12']),
            ('--device=tpu', ['tpu', '--device=auto']),
            ('--init_from=gone', ['gone', 'run: python sft.py']),
            ('--slots=3', ['no setting slots'])):
        mistake(rl(tmp_path / 'run', flag, cwd=tmp_path), *words)
    assert not (tmp_path / 'run').exists()


def test_a_model_that_cannot_answer_is_no_start(rl, tmp_path):
    def start(special=SPECIAL_TOKENS[:4], saved=(), **config):
        tokenizer = Tokenizer.byte(special)
        model = GPT(GPTConfig(tokenizer.vocab_size, 96, 1, 2, 0, 32, **config))
        shutil.rmtree(tmp_path / 'start', ignore_errors=True)
        save_run(tmp_path / 'start', model, tokenizer, **dict(saved))
        return f'--init_from={tmp_path}/start'
    for how, word in (({'special': SPECIAL_TOKENS[:1]}, '<|im_start|>'), ({'causal': False}, 'mlm'),
                      ({'saved': {'reward_head': torch.zeros(2)}}, 'reward model'),
                      ({'saved': {'tokenizer_hash': 'x'}}, 'tokenizer.json is not')):
        mistake(rl(tmp_path / 'run', start(**how)), word)
    assert not (tmp_path / 'run').exists()
