"""What a run of rl.py starts from: the reference of its KL, models of others, models that cannot answer."""
import math
import shutil
import signal

import pytest
import torch
from conftest import metrics, mistake, ok, run
from test_dpo_mistakes import make_sft
from test_dpo_runs import KILL
from test_resume import assert_is_the_straight_run
from test_rl_runs import FLAGS, REWARD, rl, series

from model import GPT, GPTConfig
from parts.train.journal import Journal
from tokenizer import Tokenizer


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp('start')
    make_sft(folder / 'dropout', dropout=0.3)
    (folder / 'paid.py').write_text(REWARD, encoding='utf-8')
    return folder


def test_the_reference_of_the_kl_has_no_dropout(home, tmp_path):
    ok(rl(home, '--max_steps=2', '--kl_coef=0.1', init='dropout', out=tmp_path / 'run'))
    first, second = series(tmp_path / 'run', 'kl')
    assert abs(first) < 1e-6 < second


def test_the_reference_has_the_rows_that_a_model_of_others_lacks(home, tmp_path):
    pytest.importorskip('safetensors')
    tokenizer = Tokenizer.byte(['<|endoftext|>'])       # a Hugging Face folder without the tokens for chat
    torch.manual_seed(0)
    GPT(GPTConfig(tokenizer.vocab_size, 96, 2, 2, 0, 32)).save_hf(home / 'hf', tokenizer)
    ok(rl(home, '--max_steps=2', '--kl_coef=0.1', init='hf', out=tmp_path / 'run'))
    first, second = series(tmp_path / 'run', 'kl')
    assert abs(first) < 1e-6 < second


def test_a_killed_run_with_kl_and_dropout_equals_the_straight_run(home, tmp_path):
    flags = '--kl_coef=1', '--max_steps=6', '--save_interval=2'
    ok(rl(home, *flags, init='dropout', out=tmp_path / 'straight'))
    killed = rl(home, *flags, init='dropout', out=tmp_path / 'killed', before=KILL.replace('WHEN', '3'))
    assert killed.returncode == -signal.SIGKILL
    assert 'resumed at step 4' in ok(rl(home, *flags, init='resume', out=tmp_path / 'killed'))
    assert_is_the_straight_run(tmp_path / 'killed', tmp_path / 'straight')


def test_the_rates_that_are_recommended_are_accepted(home, tmp_path):
    """--learning_rate=1e-5 alone ends at a tenth of it, as in train.py, and resumes so."""
    flags = [*[flag for flag in FLAGS if 'lr=' not in flag and 'rate=' not in flag], '--learning_rate=1e-5',
             f'--reward={home}/paid.py', f'--out_dir={tmp_path}/run', '--save_interval=2']
    ok(run('rl.py', f'--init_from={home}/dropout', *flags, '--max_steps=2', '--plan=2xcpu'))
    ok(run('rl.py', f'--init_from={home}/dropout', *flags, '--max_steps=2'))
    rates = [m['lr'] for m in metrics(tmp_path / 'run') if 'lr' in m]
    assert rates == pytest.approx([1e-5, (1e-5 + 1e-6) / 2])
    said = ok(run('rl.py', '--init_from=resume', *flags, '--max_steps=4'))
    assert 'resumed at step 2' in said and 'changed  min_lr' not in said
    last = [m['lr'] for m in metrics(tmp_path / 'run') if 'lr' in m][-1]
    assert last == pytest.approx(1e-6 + 9e-6 * (1 + math.cos(math.pi * 3 / 4)) / 2)


def test_no_prompt_is_both_trained_on_and_held_out(home, tmp_path):
    text = REWARD.replace("f'{i} and {\"x\" * (i % 7)}' for i in range(40)", "str(i % 3) for i in range(30)")
    (home / 'thrice.py').write_text(text, encoding='utf-8')
    said = ok(rl(home, '--max_steps=1', init='dropout', reward='thrice.py', out=tmp_path / 'run'))
    assert '20 prompts, 1 held out' in said
    mistake(rl(home, f'--held_out={home}/thrice.py', init='dropout', reward='thrice.py', out=tmp_path / 'no'),
            '4 prompts to evaluate on and 0 others to train on')
    line = '{"prompt": "2", "answer": "3"}\n'       # one of the three
    (home / 'two.jsonl').write_text(line, encoding='utf-8')
    said = ok(rl(home, '--max_steps=1', f'--held_out={home}/two.jsonl', init='dropout', reward='thrice.py',
                 out=tmp_path / 'two'))
    assert '20 prompts, 1 held out' in said


def test_the_silent_event_of_a_step_that_runs_again_is_not_written_twice(tmp_path):
    log = Journal(str(tmp_path), True)
    log.metrics(step=9, reward=0.0)         # of the step before
    log.note(9, 'silent', 'for 10 batches')
    log.cut_back(9)
    assert metrics(tmp_path) == [{'step': 9, 'reward': 0.0}]


def test_rewards_that_float32_cannot_tell_apart_teach(home, tmp_path):
    text = REWARD.replace('return sum', 'return 1e9 + sum')
    assert text != REWARD
    (home / 'large.py').write_text(text, encoding='utf-8')
    ok(rl(home, '--max_steps=2', init='dropout', reward='large.py', out=tmp_path / 'run'))
    assert min(series(tmp_path / 'run', 'grad_norm')) > 0


def test_a_reward_model_is_not_trained_to_answer(home, tmp_path):
    rest = torch.load(home / 'dropout' / 'best.pt', weights_only=True)
    (home / 'rm').mkdir()
    torch.save(rest | {'reward_head': torch.zeros(1, 32)}, home / 'rm' / 'best.pt')
    shutil.copy(home / 'dropout' / 'tokenizer.json', home / 'rm')
    mistake(rl(home, init='rm', out=tmp_path / 'run'), 'rm is a reward model', 'writes none')


def test_what_counts_as_0_stands_in_the_log(home, tmp_path):
    text = REWARD.replace('return sum', 'raise ValueError("\\ud800 bad\\nsecond line") or sum')
    (home / 'odd.py').write_text(text, encoding='utf-8')
    flags = '--max_steps=1', '--bad_reward=zero'
    said = ok(rl(home, *flags, init='dropout', reward='odd.py', out=tmp_path / 'run'))
    log = (tmp_path / 'run' / 'train.log').read_text(encoding='utf-8')
    lines = [line for line in said.splitlines() if line.startswith("counted as 0: reward('")]
    assert len(lines) == 32 and all(line in log.splitlines() for line in lines)     # 4 x 6, 2 x 4 held out
    assert r'\ud800 bad\nsecond line' in lines[0]
    mistake(rl(home, init='dropout', reward='odd.py', out=tmp_path / 'no'), 'second line', '--bad_reward')


def test_a_reward_that_does_not_exist_names_those_that_do(home, tmp_path):
    mistake(run('rl.py', f'--init_from={home}/dropout', '--reward=problem', f'--out_dir={tmp_path}/run'),
            'problem does not exist', 'problems, random, FILE.py')
