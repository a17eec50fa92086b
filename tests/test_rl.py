"""rl.py: real runs in which the reward rises; controls, equalities, and a user's mistakes."""
import random
import re

import pytest
from conftest import PAID, ROOT, make_sft, metrics, mistake, ok, run, same, series
from conftest import state, write

from model import GPT

FLAGS = ('--device=cpu --dtype=float32 --batch_size=4 --num_samples=6 --max_new_tokens=8 --slots=7 '
         '--max_steps=12 --warmup_steps=0 --learning_rate=1e-2 --min_lr=1e-2 --eval_interval=6 '
         '--save_interval=4 --eval_prompts=4').split()


@pytest.fixture
def rl(sft_model, tmp_path):
    """rl(its folder, *flags, paid=the text of its reward file)"""
    def rl(out, *more, paid=PAID):
        (tmp_path / 'paid.py').write_text(paid, encoding='utf-8')
        return run('rl.py', f'--init_from={sft_model}', f'--reward={tmp_path}/paid.py', f'--out_dir={out}',
                   *FLAGS, *more)
    return rl


# --- what is learned ----------------------------------------------------------------------------------------
@pytest.mark.parametrize('more', [[], ['--scale=True', '--updates=2', '--optimizer=muon']])
def test_the_reward_rises(rl, tmp_path, more):
    out = tmp_path / 'run'
    said = ok(rl(out, '--max_steps=24', '--eval_interval=12', *more))
    paid = series(out, 'reward')
    assert len(paid) == 24 and sum(paid[-4:]) > sum(paid[:4]) + 4 * 0.15, paid
    assert series(out, 'val_reward')[-1] > 0.9 and len(series(out, 'val_reward')) == 3
    last = [m for m in metrics(out) if 'reward' in m][-1]
    assert last['kl'] is None and 0 < last['entropy'] < 6 and last['length'] <= 8
    assert series(out, 'clip_fraction')[0] == 0                 # the first ratio of fresh answers is 1
    assert all(0 <= last[name] <= 1 for name in ('clip_fraction', 'truncated', 'informative', 'used'))
    assert 'highest val_reward ' in said and '[reward ' in (out / 'samples.txt').read_text('utf-8')


def test_the_kl_holds_the_model_near_its_start(rl, tmp_path):
    model = make_sft(tmp_path / 'sft', dropout=0.3)
    for coef in (1e-6, 3.0):        # the reference has no dropout, or the first KL would not be 0
        ok(rl(tmp_path / f'{coef}', '--max_steps=6', f'--kl_coef={coef}', f'--init_from={model}'))
    free, held = series(tmp_path / '1e-06', 'kl'), series(tmp_path / '3.0', 'kl')
    assert abs(free[0]) < 1e-6 > abs(held[0]) and free[-1] > 3 * held[-1] > 0


def test_equal_rewards_leave_the_weights_exactly_as_they_were(rl, sft_model, tmp_path):
    out = tmp_path / 'run'
    ok(rl(out, paid=PAID.replace('return sum', 'return 0.3 or sum')))
    assert series(out, 'grad_norm') == [0.0] * 12
    (step, text), = [(m['step'], m['text']) for m in metrics(out) if m.get('event') == 'silent']
    assert step == 9 and '10 batches taught' in text and 'earned the same, 0.3 on average' in text
    assert same(GPT.load(sft_model).state_dict(), state(out)['model'])


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
    prompts = write(tmp_path / 'prompts.jsonl', [{'prompt': f'{i}!'} for i in range(20)])
    said = ok(rl(tmp_path / 'run', f'--prompts={prompts}', f'--held_out={tmp_path}/paid.py',
                 '--kl_coef=0.01', '--max_steps=24', f'--reward={tmp_path}/reward'))
    scores = series(tmp_path / 'run', 'reward')
    assert sum(scores[-4:]) > sum(scores[:4]) + 1, scores
    assert all(value * 32 % 1 == 0 for value in series(tmp_path / 'run', 'val_reward'))    # 4 in eighths
    assert 'prompts: 20, held out: 4' in said and series(tmp_path / 'run', 'kl')[-1] > 0
    mistake(rl(tmp_path / 'no', f'--reward={sft_model}'), 'is not a reward', 'dpo.py --loss_type=rm')


# --- prompts and rewards ------------------------------------------------------------------------------------
def test_no_prompt_is_both_trained_on_and_held_out(rl, tmp_path):
    thrice = PAID.replace("""f'{i} and {"x" * (i % 7)}'""", 'str(i % 3)')
    line = write(tmp_path / 'two.jsonl', [{'prompt': '2', 'answer': '3', 'score': 1}])      # one of the three
    for i, more in enumerate(([], [f'--held_out={line}'])):
        assert 'prompts: 2, held out: 1' in ok(rl(tmp_path / f'{i}', '--max_steps=1', *more, paid=thrice))
    mistake(rl(tmp_path / 'no', f'--held_out={tmp_path}/paid.py', paid=thrice),
            '3 to evaluate on, 0 others to train on')


def test_the_reward_file_of_the_docs_can_be_learned_from(rl, tmp_path):
    blocks = re.findall(r'```python\n(.*?)```', (ROOT / 'docs/chat.md').read_text(encoding='utf-8'), re.S)
    code, = [block for block in blocks if 'def reward' in block]
    ok(rl(tmp_path / 'run', '--max_steps=1', paid=code))
    assert all(0 <= value <= 1 for value in series(tmp_path / 'run', 'reward'))


# --- mistakes -----------------------------------------------------------------------------------------------
def test_other_mistakes_are_one_line(rl, tmp_path):
    (tmp_path / 'empty.py').write_text('def prompts():\n    return []\n', encoding='utf-8')
    (tmp_path / 'unpaid.jsonl').write_text('{"prompt": "a"}', encoding='utf-8')
    for flags, words in (
            ('--reward=problems --n_problems=100', ['--allow_code_execution=True']),
            ('--updates=5', ['multiples of updates=5']), ('--max_new_tokens=90', ['0 to evaluate on']),
            (f'--reward={tmp_path}/empty.py',
             ['empty.py must define prompts()', 'reward(prompt, completion)']),
            ('--reward=none', ['none does not exist', 'problems, FILE.py']),
            (f'--reward={tmp_path}/unpaid.jsonl', ['line 1', 'nothing is checked'])):
        mistake(rl(tmp_path / 'run', *flags.split()), *words)
    idle = write(tmp_path / 'idle.jsonl', [{'prompt': 'a' * i, 'tests': 'assert True'} for i in range(1, 13)])
    mistake(rl(tmp_path / 'run', '--allow_code_execution=True', '--timeout=0.5', f'--reward={idle}'),
            "'aa' pass without an answer")
    assert not (tmp_path / 'run').exists()
    failing = PAID.replace('return sum', 'return 1 / 0 * sum')          # reward() fails after it began
    mistake(rl(tmp_path / 'run', paid=failing), "reward('", 'ZeroDivisionError', '--bad_reward=zero')
