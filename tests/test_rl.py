"""rl.py: real runs in which the reward rises; controls, equalities, and a user's mistakes."""
import os
import random
import re
import shutil

import pytest
from conftest import PAID, ROOT, make_sft, metrics, mistake, ok, run, same, series
from conftest import state, write

from model import load_checkpoint

FLAGS = ('--device=cpu --dtype=float32 --batch_size=4 --num_samples=6 --max_new_tokens=8 --slots=7 '
         '--max_steps=12 --warmup_steps=0 --learning_rate=1e-2 --min_lr=1e-2 --eval_interval=6 '
         '--save_interval=4 --eval_prompts=4').split()


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp('rl')
    make_sft(folder / 'sft')
    make_sft(folder / 'dropout', dropout=0.3)
    (folder / 'paid.py').write_text(PAID, encoding='utf-8')
    return folder


def rl(home, *arguments, init='sft', reward='paid.py', out='out', **more):
    init, out = (name if name == 'resume' else os.path.join(home, name) for name in (init, out))
    return run('rl.py', f'--init_from={init}', f'--reward={home / reward}', f'--out_dir={out}', *FLAGS,
               *arguments, **more)


def paying(home, name, before, after):
    """A copy of PAID in which a part is replaced."""
    assert before in PAID
    (home / name).write_text(PAID.replace(before, after), encoding='utf-8')
    return name


def test_recomputing_activations_changes_no_answer_and_no_update(home, tmp_path):
    flags = ['--max_steps=2', '--eval_interval=2', '--save_interval=2']
    for name in 'plain', 'again':
        ok(rl(home, *flags, f'--grad_checkpoint={name == "again"}', out=tmp_path / name))
    plain, again = tmp_path / 'plain', tmp_path / 'again'
    assert same(state(plain)['model'], state(again)['model'])
    assert (plain / 'samples.txt').read_text('utf-8') == (again / 'samples.txt').read_text('utf-8')


# --- what is learned ----------------------------------------------------------------------------------------
@pytest.mark.parametrize('more', [[], ['--scale=True', '--updates=2', '--optimizer=muon']])
def test_the_reward_rises(home, tmp_path, more):
    said = ok(rl(home, '--max_steps=24', '--eval_interval=12', *more, out=tmp_path))
    paid = series(tmp_path, 'reward')
    assert len(paid) == 24 and sum(paid[-4:]) > sum(paid[:4]) + 4 * 0.15, paid
    assert series(tmp_path, 'val_reward')[-1] > 0.9 and len(series(tmp_path, 'val_reward')) == 3
    last = [m for m in metrics(tmp_path) if 'reward' in m][-1]
    assert last['kl'] is None and 0 < last['entropy'] < 6 and last['length'] <= 8
    assert series(tmp_path, 'clip_fraction')[0] == 0            # the first ratio of fresh answers is 1
    assert all(0 <= last[name] <= 1 for name in ('clip_fraction', 'truncated', 'informative', 'used'))
    assert 'highest val_reward ' in said and '[reward ' in (tmp_path / 'samples.txt').read_text('utf-8')


def test_the_kl_holds_the_model_near_its_start(home, tmp_path):
    for coef in (1e-6, 3.0):        # the reference has no dropout, or the first KL would not be 0
        ok(rl(home, '--max_steps=6', f'--kl_coef={coef}', init='dropout', out=tmp_path / f'{coef}'))
    free, held = series(tmp_path / '1e-06', 'kl'), series(tmp_path / '3.0', 'kl')
    assert abs(free[0]) < 1e-6 > abs(held[0]) and free[-1] > 3 * held[-1] > 0


def test_equal_rewards_leave_the_weights_exactly_as_they_were(home, tmp_path):
    ok(rl(home, reward=paying(home, 'same.py', 'return sum', 'return 0.3 or sum'), out=tmp_path))
    assert series(tmp_path, 'grad_norm') == [0.0] * 12
    (step, text), = [(m['step'], m['text']) for m in metrics(tmp_path) if m.get('event') == 'silent']
    assert step == 9 and '10 batches taught' in text and 'earned the same, 0.3 on average' in text
    assert same(load_checkpoint(home / 'sft')[0].state_dict(), state(tmp_path)['model'])


def test_a_reward_model_of_dpo_is_what_the_answers_earn(home, tmp_path):
    """It likes digits. PAID judges the held-out answers."""
    dice = random.Random(0)
    for side, n in (('train', 64), ('val', 16)):
        write(tmp_path / f'pairs/{side}.jsonl',
              [{'prompt': f'{i}', 'chosen': ''.join(dice.choices('0123456789', k=8)),
                'rejected': ''.join(dice.choices('abcdefghij', k=8))} for i in range(n)])
    ok(run('dpo.py', f'--init_from={home}/sft', f'--data_dir={tmp_path}/pairs', '--loss_type=rm',
           f'--out_dir={tmp_path}/reward', '--device=cpu', '--max_steps=24', '--learning_rate=1e-2'))
    assert series(tmp_path / 'reward', 'val_accuracy')[-1] > 0.9
    prompts = write(tmp_path / 'prompts.jsonl', [{'prompt': f'{i}!'} for i in range(20)])
    said = ok(rl(home, f'--prompts={prompts}', f'--held_out={home}/paid.py', '--kl_coef=0.01',
                 '--max_steps=24', reward=tmp_path / 'reward', out=tmp_path / 'run'))
    scores = series(tmp_path / 'run', 'reward')
    assert sum(scores[-4:]) > sum(scores[:4]) + 1, scores
    assert all(value * 32 % 1 == 0 for value in series(tmp_path / 'run', 'val_reward'))    # 4 in eighths
    assert 'prompts: 20, held out: 4' in said and series(tmp_path / 'run', 'kl')[-1] > 0
    mistake(rl(home, reward=home / 'sft', out=tmp_path / 'no'), 'is not a reward', 'dpo.py --loss_type=rm')


# --- prompts and rewards ------------------------------------------------------------------------------------
def test_no_prompt_is_both_trained_on_and_held_out(home, tmp_path):
    thrice = paying(home, 'thrice.py', """f'{i} and {"x" * (i % 7)}' for i in range(40)""",
                    'str(i % 3) for i in range(30)')
    line = write(home / 'two.jsonl', [{'prompt': '2', 'answer': '3', 'score': 1}])          # one of the three
    for i, more in enumerate(([], [f'--held_out={line}'])):
        said = ok(rl(home, '--max_steps=1', *more, reward=thrice, out=tmp_path / f'{i}'))
        assert 'prompts: 2, held out: 1' in said
    mistake(rl(home, f'--held_out={home}/{thrice}', reward=thrice, out=tmp_path / 'no'),
            '3 to evaluate on, 0 others to train on')


def test_the_reward_file_of_the_docs_can_be_learned_from(home, tmp_path):
    blocks = re.findall(r'```python\n(.*?)```', (ROOT / 'docs/chat.md').read_text(encoding='utf-8'), re.S)
    code, = [block for block in blocks if 'def reward' in block]
    (home / 'docs.py').write_text(code, encoding='utf-8')
    ok(rl(home, '--max_steps=1', reward='docs.py', out=tmp_path / 'run'))
    assert all(0 <= value <= 1 for value in series(tmp_path / 'run', 'reward'))


# --- mistakes -----------------------------------------------------------------------------------------------
def test_other_mistakes_are_one_line(home, tmp_path):
    (home / 'empty.py').write_text('def prompts():\n    return []\n', encoding='utf-8')
    failing = paying(home, 'failing.py', 'return sum', 'return 1 / 0 * sum')
    (home / 'unpaid.jsonl').write_text('{"prompt": "a"}', encoding='utf-8')
    for flags, words in (
            ('--reward=problems --n_problems=100', ['--allow_code_execution=True']),
            ('--updates=5', ['multiples of updates=5']), ('--max_new_tokens=90', ['0 to evaluate on']),
            (f'--reward={home}/empty.py', ['empty.py must define prompts()', 'reward(prompt, completion)']),
            (f'--reward={home}/{failing}', ["reward('", 'ZeroDivisionError', '--bad_reward=zero']),
            ('--reward=none', ['none does not exist', 'problems, FILE.py']),
            (f'--reward={home}/unpaid.jsonl', ['line 1', 'nothing is checked'])):
        mistake(rl(home, *flags.split(), out=tmp_path / 'run'), *words)
        shutil.rmtree(tmp_path / 'run', ignore_errors=True)         # reward() fails after it began
    write(home / 'idle.jsonl', [{'prompt': 'a' * i, 'tests': 'assert True'} for i in range(1, 13)])
    mistake(rl(home, '--allow_code_execution=True', '--timeout=0.5', reward='idle.jsonl',
               out=tmp_path / 'run'), "'aa' pass without an answer")
    assert not (tmp_path / 'run').exists()
