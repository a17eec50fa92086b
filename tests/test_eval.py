"""eval.py and rescore: the exact loss, pass@k from answers to a table, several checkpoints, what is refused."""
import functools
import itertools
import json
import math
import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accidents import before, killed_after
from common import load_model
from conftest import contents, each_is_a_mistake, fill, lift, mistake, numbered, ok, read_json, read_rows, run
from conftest import save_run, with_each, write, write_bins
from test_model import lively
from test_streaming import BYTES, say
from test_sample import alone

from extras.tasks import answers, compare, rescore as rescored
from extras.tasks.problems import problems
from model import GPT, sample

pass_at_k, interval = lift('eval.py', 'pass_at_k', 'interval')


def evaluate(out, *flags, **how):
    """The tasks in eval.json."""
    ok(run(f'eval.py --device=cpu --out={out}/eval.json', *flags, **how))
    return read_json(f'{out}/eval.json')['tasks']


# --- the numbers ----------------------------------------------------------------------------------
def test_pass_at_k_is_the_share_of_all_draws_that_hold_a_passing_sample():
    for n in range(1, 7):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
            wanted = pytest.approx(sum(map(any, draws)) / len(draws))
            assert pass_at_k(n, c, k) == wanted, f'pass_at_k({n=}, {c=}, {k=})'
            assert rescored.pass_at_k(n, c, k) == wanted
    # no rounding of large numbers
    assert pass_at_k(200, 1, 100) == pytest.approx(0.5, abs=1e-12)


def test_intervals_hold_the_truth_19_times_in_20():
    """Of 300 worlds each; and none is a point where all or no problems pass. Wilson's interval of several
    answers may be too wide. The bootstrap's would be too narrow where few pass."""
    rng = np.random.default_rng(0)
    for method, n_samples, a, b, most in (
            (interval, 1, 2, 3, 0.99), (compare.bootstrap, 5, 2, 3, 0.99), (interval, 8, 0.1, 9.9, 1)):
        hits = 0
        for _ in range(300):
            chances = rng.beta(a, b, size=60)           # of the problems; their mean is a / (a + b)
            low, high = method((rng.binomial(n_samples, chances) / n_samples).tolist())
            hits += low <= a / (a + b) <= high
        assert 0.90 < hits / 300 <= most, (method, n_samples, hits)
    wilson = pytest.approx([0.4902, 0.9433], abs=1e-4)              # by hand
    assert interval([1] * 8 + [0] * 2) == rescored.interval([1] * 8 + [0] * 2) == wilson
    # 0 of 40 problems differ, and up to z^2 / (40 + z^2) of all may.
    assert compare.paired_difference([1] * 40, [1] * 40) == pytest.approx([0, -0.0876, 0.0876], abs=1e-4)


# --- the loss -------------------------------------------------------------------------------------
def test_loss_is_that_of_every_token_but_the_first_once(base_run, data_dir):
    """Of the first 300 tokens, in blocks of 32; the last block is a short one."""
    n = 299
    val = torch.from_numpy(np.fromfile(data_dir / 'val.bin', 'uint16').astype(np.int64)[:n + 1])
    model, tok = load_model(base_run)
    n_bytes = sum(len(tok.all_bytes[i]) for i in val[1:] if i not in tok.special.values())
    nats = -sum(model.eval().log_p(x[None], y[None]).sum().item()
                for x, y in zip(val[:-1].split(32), val[1:].split(32)))
    rows = evaluate('out', f'--ckpt={base_run} --data_dir={data_dir} --loss_tokens={n}')['loss']
    assert rows['trained'] == pytest.approx(        # sums in float32
        {'nats': nats / n, 'perplexity': math.exp(nats / n), 'tokens': n, 'bytes': n_bytes,
         'bits_per_byte': nats / n_bytes / math.log(2)}, rel=2e-6)
    assert abs(rows['untrained']['nats'] - math.log(512)) < 0.05


def test_without_data_dir_the_text_of_the_base_is_measured(base_run, data_dir):
    """train.py names it in data.json, which later stages copy (test_alone.py runs them). Where no data.json
    names it, eval.py asks. Other data are refused."""
    for name in 'sft', 'found':
        save_run(name, *load_model(base_run))
    shutil.copy(base_run / 'data.json', 'sft')
    write('sft/config.json', [{'stage': 'sft', 'base_dir': '', 'data_dir': 'chats'}])
    for ckpt in base_run, 'sft':
        said = ok(run(f'eval.py --ckpt={ckpt} --out=x.json --loss_tokens=9'))
        assert f'the loss is measured on {data_dir}; choose other text with --data_dir=FOLDER' in said
        assert read_json('x.json')['settings']['data_dir'] == str(data_dir)
    mistake(run('eval.py --ckpt=found'), 'found has no data.json that names & --data_dir=FOLDER')
    made = write_bins('other', np.arange(100, dtype=np.uint16), BYTES)
    command = f'eval.py --ckpt={base_run} --data_dir={made}'
    mistake(run(command), f'{made} has another tokenizer & {base_run}/tokenizer.json')
    os.truncate(made / 'val.bin', 50)
    mistake(run(command), 'val.bin has too few tokens')


# --- answers that are there: each outcome is told and kept ----------------------------------------
# In the layout of HumanEval, the second with the answers of CodeParrot in its article
FUNCTIONS = r'''[
{"task_id": "broken", "prompt": "def f():\n", "canonical_solution": "    return 0\n",
 "test": "def check(f):\n    assert f() == 1\n", "entry_point": "f"},
{"task_id": "area", "entry_point": "area_of_rectangle", "canonical_solution": "    return a * b\n",
 "prompt": "def area_of_rectangle(a, b):\n    \"\"\"Return the area of the rectangle.\"\"\"\n",
 "test": "assert area_of_rectangle(2, 3) == 6\nassert area_of_rectangle(4.0, 4.0) == 16"}]'''
# Answers; "" is the problem's own solution.
GIVEN = r'''
{"example-0/0": ["", "    return None\n", "    return (\n", " \n"],
 "example-0/1": ["", "", "    raise ValueError\n", "    __import__('time').sleep(99)\n"],
 "area": ["    return a * b", "    return math.sqrt(a * b)",
          "    return a * b / 2.0", "    return a * b / a"]}'''


def rescore(given, *flags):
    """The tasks in eval.json, whose numbers are printed, too."""
    said = ok(run(f'extras.tasks.rescore --completions={given}', *flags))
    tasks = read_json(Path(given).parent / 'scored/eval.json')['tasks']
    assert all(f'{name}, all: ' in said and f'"pass@1": {task["pass@1"]:.4f}' in said
               for name, task in tasks.items())
    return tasks


def test_all_tasks_are_scored_from_answers_that_are_there():
    """Each outcome is told and kept. A problem whose own solution fails is left out. A file may begin
    with a byte order mark. A score says what was searched in the training data. What was scored once gives
    the same result when it is only counted."""
    fill({'functions.json': FUNCTIONS.encode('utf-8-sig')})
    solution_of = {p['task_id']: p['canonical_solution'] for p in problems(2, 0, 'example')}
    given = write('given.jsonl', [
        {'task_id': id, 'completion': text or solution_of[id]}
        for id, texts in json.loads(GIVEN).items() for text in texts])
    found = {'ngram': 13, 'problems': ['Q']}
    write('data.json', [{'cleaned': {'hash': '0', 'decontaminated': found}}])
    flags = ('--tasks=problems,humaneval --splits=example --n_problems=2 --k=1,2,4 --timeout=10 '
             '--allow_code_execution --data=functions.json')
    tasks = rescore(given, flags)
    ours = tasks['problems']
    assert ours['by_split']['example']['pass@2'] == pytest.approx((1 / 2 + 5 / 6) / 2)
    assert ours['pass@4'] == 1 and (ours['n'], ours['samples']) == (2, 8)
    assert ours['failures'] == dict.fromkeys(
        ('wrong value', 'other exception', 'syntax', 'empty', 'time'), 1)
    assert tasks['humaneval']['pass@1'] == 1 / 4
    assert tasks['humaneval']['failures'] == {'wrong value': 2, 'name': 1}      # math is not imported
    report = read_json('scored/eval.json')
    assert (report['left_out'], report['decontaminated']) == (['broken'], found)
    samples = read_rows('scored/samples.jsonl')      # all were kept
    assert len(samples) == 12 and {row.get('kind') for row in samples} == {'example tasks', None}
    assert rescore('scored/samples.jsonl', '--k=1,2,4') == tasks
    assert read_rows('scored/scored/samples.jsonl') == samples
    for row in samples:                             # scored again, as if they were those of a chat
        row['messages'] = [say('user', 'q')]
        code = row['completion'].replace('sleep(99)', 'sleep(0)')
        row['completion'] = f'Sure!\n```python\n{row["prompt"]}{code}\n```\nIt works.'
    again = rescore(write('b/chat.jsonl', samples), flags)
    assert [again[name]['pass@1'] for name in tasks] == [task['pass@1'] for task in tasks.values()]


# --- answers of a model ---------------------------------------------------------------------------
def test_several_checkpoints_give_a_series_over_the_steps_of_a_run(base_run, data_dir):
    """Each number is that of the checkpoint alone, asked as it was taught. The loss of each is
    measured on each data. Names of checkpoints do not tell their order."""
    model, tokenizer = load_model(base_run)
    tokenizer.save('tokenizer.json')
    late, first, tuned = names = 'a_late.pt', 'b_first.pt', 'sft.pt'
    GPT(model.config).save(late, step=9)
    model.save(first, step=1)
    model.save(tuned, step=7, config={'stage': 'sft'})
    zeros = write_bins('zeros', np.zeros(100, 'uint16'), tokenizer)
    data = write('own.jsonl', [{'prompt': word, 'regex': '[a-m]'} for word in 'def x self for'.split()])
    flags = (f'--tasks=loss,own --data={data} --max_new_tokens=5 --loss_tokens=99 --random_init=False '
             f'--data_dir={data_dir}, {zeros}')
    together = evaluate('all', f'--ckpt={tuned}, *_*.pt', flags)
    series, rows = together['own']['series'], together['loss']
    assert [result['ckpt'] for result in series] == [first, tuned, late]
    assert series[2] == evaluate('alone', f'--ckpt={late}', flags)['own']
    asked = read_rows('all/samples.jsonl')
    assert {row['ckpt'] for row in asked if row['messages']} == {tuned}
    assert {*rows} == {f'{name} {data}' for name in names for data in (data_dir, zeros)}
    assert len({row['nats'] for row in rows.values()}) == 4         # the tuned one is the first one


ASKED = ('--tasks=own, gsm8k --data=own.jsonl, gsm8k.jsonl --ckpt=model --num_samples=2 --k=1, 2 --batch_size=3 '
         '--max_new_tokens=6 --out=scores/eval.json --device=cpu')
OTHERS = """
--seed=2 => settings
--tasks=own --data=own.jsonl => questions
--data=other.jsonl,gsm8k.jsonl => questions
--ckpt=model/best.pt => weights
--overwrite --ckpt=gone => gone
--overwrite --tasks=own,gsm8k,loss --data_dir=NUMBERS => another tokenizer
"""


@pytest.fixture
def asking(babbler):
    """Make models and questions. Return a function that evaluates into the folder scores."""
    save_run('model', *load_model(babbler), step=1)
    save_run('reward', *load_model(babbler), reward_head=torch.zeros(1, 32))
    for name, words in ('own', 'def x self for in'), ('other', 'def x self for if'), ('gsm8k', 'a bc d'):
        write(f'{name}.jsonl', [{'prompt': word, 'answer': 1} for word in words.split()])
    return functools.partial(run, 'eval.py', ASKED)


def test_a_base_model_that_is_asked_in_chats_is_said(asking, base_run):
    """One of others, of which nothing is known, is not called a base model."""
    for flags, is_said in (f'{base_run} --chat=True', True), (base_run, False), ('model --chat=True', False):
        printed = ok(asking(f'--overwrite --ckpt={flags}'))
        assert (f'note: {base_run} is a base model, which has not learned to answer' in printed) == is_said


def test_a_killed_evaluation_goes_on_and_equals_one_that_was_never_ended(asking):
    """It is killed in the middle of either task, and also while it writes a line."""
    ok(asking())
    straight = contents('scores')
    assert straight['samples.jsonl'].count(b'"ungraded"') == 0 and len(straight['samples.jsonl'].splitlines()) == 16
    ok(asking('--overwrite --seed=2'))
    assert contents('scores')['samples.jsonl'] != straight['samples.jsonl']
    counted, samples = before('answer a batch', 'print("a batch")'), Path('scores/samples.jsonl')
    for n, more in (3, '--overwrite'), (2, ''), (3, ''):
        assert asking(more, before=killed_after('answer a batch', n)).returncode == -9
        text = samples.read_text()
        samples.write_text(text[:-20] if more else f'{text}{{"task_id": "own/')  # a batch, or a line, less
    assert ok(asking(before=counted)).count('a batch') == 6 - 4
    assert contents('scores') == straight
    assert ok(asking('--k=1', before=counted)).count('a batch') == 0


def test_answers_of_another_evaluation_are_replaced_only_if_that_is_typed(asking, numbers):
    """And if it is not refused. What was measured of a model is kept when the next one is refused."""
    mistake(asking('--ckpt=model,reward'), 'reward & is a reward model')
    kept = contents('scores')['samples.jsonl']
    results = read_json('scores/eval.json')['tasks']
    assert {*results} == {'own', 'gsm8k'} and results['own']['n'] == 5
    ok(asking())
    assert read_json('scores/eval.json')['tasks'] == results
    each_is_a_mistake(OTHERS.replace('NUMBERS', str(numbers)), asking)
    changed = GPT.load('model')
    changed.norm.weight.data[3] += 1e-6
    changed.save('model/best.pt', **changed.saved)
    mistake(asking(), 'scores/samples.jsonl has answers of other weights, questions or settings; choose')
    assert contents('scores')['samples.jsonl'] == kept
    ok(asking('--overwrite'))


# Three questions with tests, and what a sandbox does at the second program of an answer
PROGRAMS = numbered('{"prompt": "Write fN.", "tests": "assert fN() == 1"}', 3)
BREAKS = """
import extras.tasks.sandbox as sandbox
def run_many(jobs, **_):
    for i, (code, *_) in enumerate(jobs):
        if code.startswith('def _') or i == 0: yield sandbox.Result('wrong', 'known')
        else: BREAK
sandbox.run_many = run_many
"""


@with_each('what, code', [
    ("raise OSError('the sandbox broke')", 1), ('raise KeyboardInterrupt', 1),
    ("yield sandbox.Result('infrastructure', 'no process')", 2)])
def test_a_sandbox_that_breaks_loses_no_verdict_and_no_answer(babbler, what, code):
    """The outcomes that are known stay in samples.jsonl, and the same command goes on from its answers."""
    write('own.jsonl', PROGRAMS)
    evaluate = functools.partial(
        run, 'eval.py', f'--ckpt={babbler} --tasks=own --data=own.jsonl --max_new_tokens=3 '
        '--out=s/eval.json --device=cpu --allow_code_execution')
    assert evaluate(before=BREAKS.replace('BREAK', what)).returncode
    rows = read_rows('s/samples.jsonl')
    later = 'infrastructure' if code == 2 else 'ungraded'
    assert [row['outcome'] for row in rows] == ['wrong', later, later] and rows[0]['message'] == 'known'
    ok(evaluate())
    again = read_rows('s/samples.jsonl')
    assert [row['completion'] for row in again] == [row['completion'] for row in rows]
    assert not {'ungraded', 'infrastructure'} & {row['outcome'] for row in again}


# A body ends where a line begins in column 0; and two more ends
ENDS = r'(?<=\n)(?=[^\s)\]}])|[q-z]|E.D'


def test_each_answer_of_a_batch_is_the_answer_alone_also_past_the_context():
    """Greedy, and sampled with the same numbers, to texts and to messages of any length. That to a
    text ends at a pattern, which may look back at the prompt's last character."""
    model = lively(vocab_size=BYTES.vocab_size, block_size=48, n_kv_head=2).eval()
    prompts = [*('def f(x):'[:i] for i in range(0, 10, 3)), 'x' * 60, 'naïve 漢\n', [say('user', 'f?')],
               [say('user', 'x' * 60)]]

    def expected(i, prompt, j, temperature, **how):
        dice = random.Random(f'7 {i} {j}')
        draw = lambda logits: sample(logits[None], temperature,
                                     u=torch.tensor([dice.random()]), **how)
        text = alone(model, BYTES, prompt, 16, draw)
        if isinstance(prompt, list):
            return text
        last = prompt[-1:]
        found = re.compile(ENDS).search(last + text, len(last))
        return text[:found.start() - len(last)] if found else text

    for how in {'temperature': 0}, {'temperature': 1.6, 'top_k': 60, 'top_p': 0.5}:
        wanted = [[expected(i, prompt, j, **how) for j in (0, 1)]
                  for i, prompt in enumerate(prompts)]
        assert answers.write(model, BYTES, prompts, 2, ENDS, 16, 7, 5, **how) == wanted


# --- two models on the same problems --------------------------------------------------------------
# Of each problem the kind, both prompts, and what became of both answers
BOTH = """[
["example tasks", "pp", "wrong", "passed"], ["example tasks", "pp", "timeout", "passed"],
["unseen combinations", "pp", "wrong", "passed"], ["unseen combinations", "pp", "passed", "wrong"],
["practice tasks", "pp", "wrong", "syntax"], ["practice tasks", "pp", "wrong", "empty"],
["practice tasks", "pp", "passed", "wrong"], [null, "pp", "wrong", "wrong"],
[null, "pp", "wrong", "passed"], [null, "ab", "passed", "passed"],
[null, "pp", "passed", "infrastructure"], [null, "pp", "passed", "ungraded"]]"""


def test_two_runs_are_compared_problem_by_problem_and_by_kind():
    """An answer that was not graded is not wrong, and one name may mean two questions."""
    for side, folder in enumerate('ab'):
        rows = [{'task': 't', 'task_id': i, 'prompt': prompts[side], 'outcome': outcomes[side], 'kind': kind}
                for i, (kind, prompts, *outcomes) in enumerate(json.loads(BOTH))]
        write(f'{folder}/samples.jsonl', rows)
    typed = functools.partial(run, 'extras.tasks.compare', 'a', 'b')
    ok(typed('--out=compare.json'))
    result = read_json('compare.json')
    assert (result['n'], result['a'], result['b']) == (9, 2 / 9, 4 / 9)
    assert result['gained'] == ['t 0', 't 1', 't 2', 't 8'] and result['lost'] == ['t 3', 't 6']
    gain = {kind: difference for kind, (difference, *_) in result['gain'].items()}
    assert gain == pytest.approx({'all': 2 / 9, 'example tasks': 1, 'unseen combinations': 0,
                                  'practice tasks': -1 / 3})
    assert all(low < difference <= high for difference, low, high in result['gain'].values())
    write('b/samples.jsonl', [row | {'ckpt': row['task_id']} for row in rows])
    mistake(typed(), 'b/samples.jsonl must have answers of one checkpoint')
    assert typed('c').returncode == 2


# --- mistakes -------------------------------------------------------------------------------------
REFUSED = """
--tasks=problem => lm_eval
--tasks=own,own => in this order: own
--ckpt=mind => mind does not exist & python train.py
--tasks=scored => the tasks are loss, problems
--compare=x => no setting has this name; closest
--tasks=problems => --allow_code_execution=True
--tasks=problems --splits=unseen,unseen --allow_code_execution=True => 'unseen-0/0' twice
--tasks=problems --splits=variation --allow_code_execution=True => 'variation' is not a split
--tasks=problems --num_samples=4 --k=1,8 => --num_samples=8
--k=a => --k=a must be whole numbers from 1, separated by commas
--k=1,0 => --k=1,0 must be
--out=scores => must end with .json
--tasks=own --data=samples.jsonl --out=eval.json => would replace a file
--data=samples.jsonl => --data and --num_samples need --tasks
--num_samples=8 => --data and --num_samples need --tasks
"""
REFUSED_BY_RESCORE = """
--tasks=own --data=own.jsonl --completions=gone.jsonl => gone.jsonl & each line must be a JSON object & No such file
--tasks=humaneval --completions=answers.jsonl => must name a .jsonl file for each
--completions=notes.txt => notes.txt: & each line must be a JSON object
--completions=given.jsonl => given.jsonl:1: KeyError & each line must be a JSON object with outcome, prompt, task_id
--completions=two.jsonl => two.jsonl must have answers of one checkpoint
--completions=null.jsonl --tasks=own --data=own.jsonl => null.jsonl:3: "completion" must be text, not None
--completions=number.jsonl --tasks=own --data=own.jsonl => number.jsonl:3: "completion" must be text, not 18
--completions=given.jsonl --k=a => --k=a must be whole numbers
--tasks=problems --completions=answers.jsonl => --allow_code_execution=True
"""


SCORED = '{"task_id": 1, "prompt": "?", "outcome": "passed", "completion": ""}\n'


def test_mistakes_are_one_sentence():
    fill({'given.jsonl': '{"task_id": 1}\n', 'samples.jsonl': '', 'notes.txt': 'What is missing?', 'answers.jsonl': SCORED,
          'null.jsonl': SCORED * 2 + SCORED.replace('""', 'null'), 'number.jsonl': SCORED * 2 + SCORED.replace('""', '18'),
          'two.jsonl': SCORED.replace('""', '"", "ckpt": "a"') + SCORED.replace('""', '"", "ckpt": "b"')})
    each_is_a_mistake(REFUSED, 'eval.py --ckpt=.')
    # each of several processes would write the same files
    second = {'RANK': '1', 'WORLD_SIZE': '2', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': '29500'}
    for env, words in (second, 'single process'), ({'SLURM_STEP_NUM_TASKS': '2'}, 'independent runs, unset'):
        mistake(run('eval.py --ckpt=.', env=env), words)
    each_is_a_mistake(REFUSED_BY_RESCORE, 'extras.tasks.rescore')
