"""eval.py: the exact loss, pass@k from answers to a table, several checkpoints, what is refused."""
import concurrent.futures
import itertools
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import (ROOT, lift, mistake, ok, read_json, read_rows, refused, run, save_run, sharpen,
                      write, write_bins)
from feedback import expect
from test_alike import FORGET
from test_records import BYTES

from model import GPT, GPTConfig
from extras import answers
from extras.learned import levels
from extras.problems import KINDS, problems
from model import sample as draw_one
from tokenizer import Tokenizer

YES = '--allow_code_execution=True'
pass_at_k, summarise, interval, bootstrap, compare_samples, *_ = lift(
    'eval.py', 'pass_at_k', 'summarise', 'interval', 'bootstrap', 'compare_samples', 'paired_difference',
    'by_problem', 'worth', 'mean')


def evaluate(out, *flags):
    """What eval.py says, the tasks in eval.json, the rows of samples.jsonl."""
    said = ok(run('eval.py', '--device=cpu', f'--out={out}/eval.json', *flags))
    rows = read_rows(out / 'samples.jsonl') if (out / 'samples.jsonl').exists() else []
    return said, read_json(out / 'eval.json')['tasks'], rows


# --- the numbers --------------------------------------------------------------------------------------------
def test_pass_at_k_is_the_share_of_all_draws_that_hold_a_passing_sample():
    for n in range(1, 7):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
            wanted = pytest.approx(sum(map(any, draws)) / len(draws))
            expect(f'pass_at_k({n=}, {c=}, {k=})', wanted, pass_at_k, n, c, k)
    wanted = pytest.approx(0.5, abs=1e-12)              # no rounding of large numbers
    expect('pass_at_k(n=200, c=1, k=100)', wanted, pass_at_k, 200, 1, 100)


def test_a_summary_is_the_mean_over_problems_and_leaves_out_what_the_machine_failed():
    outcomes = {'a': ['passed', 'wrong'], 'b': ['syntax', 'empty'], 'c': ['passed', 'infrastructure'],
                'd': ['infrastructure', 'infrastructure']}
    rows = [{'task_id': id, 'outcome': outcome, 'preferred': True}
            for id, row in outcomes.items() for outcome in row]
    result = summarise(rows, [1, 2])
    assert (result['n'], result['samples']) == (3, 5)
    assert result['pass@1'] == pytest.approx((1 / 2 + 0 + 1) / 3)
    assert result['pass@2'] == pytest.approx((1 + 0) / 2)           # of c, there are no two samples
    assert result['parse_rate'] == pytest.approx(3 / 5)

    rows = [{'task_id': i, 'outcome': 'judged', 'score': score} for i, score in enumerate([1.0, 4.0] * 9)]
    result = summarise(rows, [1])
    low, high = result['interval']      # on the scale of the grades, and it does not leave it
    assert result['score'] == pytest.approx(2.5) and 1 <= low < 2.5 < high < 4


# --- the loss -----------------------------------------------------------------------------------------------
@torch.no_grad()
def slow_loss(model, ids):
    """The nats of ids[1:], one by one: token i, from the tokens before it in its block of 32."""
    nats = 0.0
    for i in range(1, len(ids)):
        context = torch.from_numpy(ids[(i - 1) // 32 * 32:i])[None]
        nats -= model(context)[0][0, -1].double().log_softmax(-1)[ids[i]].item()
    return nats


def test_loss_is_that_of_every_token_but_the_first_once(base_run, data_dir, tmp_path):
    """Of the first 500 tokens; the last block is a short one. Of the model, and of an untrained one."""
    n = 499
    val = np.fromfile(data_dir / 'val.bin', 'uint16').astype(np.int64)[:n + 1]
    model = GPT.load(base_run)
    tok = Tokenizer.load(data_dir / 'tokenizer.json')
    torch.manual_seed(1337)
    models = {'trained': model.eval(), 'untrained': GPT(model.config).eval()}
    n_bytes = sum(len(tok.decode_bytes([i])) for i in val[1:] if i not in tok.special.values())
    rows = evaluate(tmp_path, f'--ckpt={base_run}', f'--data_dir={data_dir}', f'--loss_tokens={n}')[1]['loss']
    assert rows.keys() == models.keys() and abs(rows['untrained']['nats'] - math.log(512)) < 0.05
    for name, row in rows.items():
        assert row['tokens'] == n and row['bytes'] == n_bytes
        assert row['nats'] == pytest.approx(slow_loss(models[name], val) / n, abs=1e-5)     # sums in float32
        assert row['perplexity'] == pytest.approx(math.exp(row['nats']), rel=1e-9)
        assert row['bits_per_byte'] == pytest.approx(row['nats'] * n / n_bytes / math.log(2), rel=1e-9)


def test_text_that_does_not_fit_is_refused(base_run, tmp_path):
    made = write_bins(tmp_path, np.arange(100, dtype=np.uint16), BYTES)
    flags = f'--ckpt={base_run}', f'--data_dir={made}'
    mistake(run('eval.py', *flags), str(made), 'another tokenizer', f'{base_run}/tokenizer.json')
    os.truncate(made / 'val.bin', 50)
    mistake(run('eval.py', *flags), 'val.bin has too few tokens, or not as many as meta.json says')
    (made / 'val.bin').unlink()
    mistake(run('eval.py', *flags), 'no prepared text, meta.json and val.bin; run: python prepare.py')


def test_a_score_says_what_was_searched_in_the_training_data(base_run, tmp_path):
    """A folder named like a pattern."""
    (tmp_path / '[z]').mkdir()
    for name in 'best.pt', 'tokenizer.json':
        shutil.copy(base_run / name, tmp_path / '[z]')
    write(tmp_path / '[z]/data.json', [{'decontaminated': {'ngram': 13, 'problems': ['Q']}}])
    write(tmp_path / 'own.jsonl', [{'prompt': 'x', 'regex': 'a'}])
    said = ok(run('eval.py', '--ckpt=[z]', '--tasks=own', '--data=own.jsonl', '--max_new_tokens=2',
                  '--device=cpu', cwd=tmp_path))
    result = read_json(tmp_path / '[z]/eval.json')
    assert result['decontaminated'] == {'ngram': 13, 'problems': ['Q']} and '13-gram of words with Q' in said
    assert result['tokenizer_hash'] == Tokenizer.load(base_run / 'tokenizer.json').hash
    assert said.endswith("next: python sample.py --ckpt='[z]'\n") and 'parse_rate' not in said


# --- answers that are there: each outcome is told and kept --------------------------------------------------
BROKEN = {'task_id': 'broken', 'prompt': 'def f():\n', 'canonical_solution': '    return 0\n',
          'test': 'def check(f):\n    assert f() == 1\n', 'entry_point': 'f'}
AREA = {'task_id': 'area', 'entry_point': 'area_of_rectangle', 'canonical_solution': '    return a * b\n',
        'prompt': 'def area_of_rectangle(a: float, b: float):\n    """Return the area of the rectangle."""\n',
        'test': 'assert area_of_rectangle(2, 3) == 6\nassert area_of_rectangle(4.0, 4.0) == 16'}
AREAS = 'a * b', 'math.sqrt(a * b)', 'a * b / 2.0', 'a * b / a'     # that CodeParrot wrote, in its article


def test_all_tasks_are_scored_from_answers_that_are_there(tmp_path):
    """Each outcome is told and kept. A problem whose own solution fails is left out. A file may begin with a
    byte order mark."""
    files = {'humaneval': [BROKEN, AREA], 'gsm8k': [{'question': 'Eggs?', 'answer': '<<3+4=7>>\n#### 1,201'}],
             'own': [{'prompt': '# 4\n', 'tests': 'assert f() == 4'}, {'prompt': 'x', 'regex': 'a'}]}
    for name, rows in files.items():
        text = '\ufeff' + ''.join(json.dumps(row) + '\n' for row in rows)
        (tmp_path / name).write_text(text, encoding='utf-8')
    good, twin = (p['canonical_solution'] for p in problems(2, 0, 'variation'))
    answers = {
        'variation-0/0': [good, '    return None\n', '    return (\n', ' \n'],
        'variation-0/1': [twin, twin, '    raise ValueError\n', '    while True: pass\n'],
        'area': [f'    return {area}\n' for area in AREAS], 'own/1': ['b'] * 4,
        'own/0': ['def f(): return 4', 'def f(): return 5', 'def g(): return 4', 'f'],
        'gsm8k/0': [' #### 1201', ' so 1,201.', 'I do not know', '7']}
    given = write(tmp_path / 'given.jsonl', [{'task_id': id, 'completion': text}
                                             for id, texts in answers.items() for text in texts])
    flags = ['--tasks=problems,humaneval,own,gsm8k', '--splits=variation', '--n_problems=2', YES,
             f'--data={tmp_path}/humaneval,{tmp_path}/own,{tmp_path}/gsm8k', '--k=1,2,4', '--memory_mb=4000',
             '--timeout=4']
    said, tasks, _ = evaluate(tmp_path / 'a', *flags, f'--completions={given}')
    ours = tasks['problems']
    assert ours['by_split']['variation']['pass@2'] == pytest.approx((1 / 2 + 5 / 6) / 2)
    assert ours['pass@4'] == 1 and (ours['n'], ours['samples']) == (2, 8)
    assert ours['outcomes'] == {'passed': 3, 'wrong': 1, 'exception': 1, 'syntax': 1, 'empty': 1,
                                'timeout': 1}
    assert ours['failures'] == {'wrong value': 1, 'syntax': 1, 'empty': 1, 'other exception': 1, 'time': 1}
    assert all(f'{reason} {n}' in said for reason, n in ours['failures'].items())
    assert tasks['humaneval']['pass@1'] == 1 / 4
    assert tasks['humaneval']['failures'] == {'wrong value': 2, 'name': 1}      # math is not imported
    assert read_json(tmp_path / 'a/eval.json')['left_out'] == ['broken']
    assert tasks['own']['outcomes'] == {'passed': 1, 'wrong': 5, 'exception': 2}
    assert tasks['gsm8k']['outcomes'] == {'passed': 2, 'wrong': 2}
    again = evaluate(tmp_path / 'b', *flags, f'--completions={tmp_path}/a/samples.jsonl')[1]
    assert again == tasks                               # all samples were kept, and are scored again


def test_ready_answers_are_those_of_a_chat_if_they_or_a_flag_say_so(tmp_path):
    data = write(tmp_path / 'q.jsonl', [{'task_id': 'q', 'prompt': 'x = 4\n', 'tests': 'assert f() == 4'}])
    text = {'task_id': 'q', 'completion': 'def f(): return x'}          # alone, it lacks the prompt's x
    reply = text | {'messages': [{'role': 'user', 'content': 'f?'}]}
    for row, flags, outcome in ((text, [], 'passed'), (text, ['--chat=True'], 'exception'),
                                (reply, [], 'exception'), (reply, ['--chat=False'], 'passed')):
        given = write(tmp_path / 'given.jsonl', [row])
        tasks = evaluate(tmp_path, '--tasks=own', f'--data={data}', f'--completions={given}', YES, *flags)[1]
        assert tasks['own']['outcomes'] == {outcome: 1}, (row, flags)


def test_a_judge_that_gives_no_grade_gives_no_score_and_the_answers_are_kept(tmp_path):
    data = write(tmp_path / 'q.jsonl', [{'question_id': i, 'turns': ['a?', 'b?']} for i in range(3)])
    given = write(tmp_path / 'c.jsonl', [{'task_id': i, 'completion': 'x'} for i in range(3)])
    flags = ['--tasks=judge', f'--data={data}', f'--completions={given}']
    assert evaluate(tmp_path, *flags, '--judge=echo 6')[1]['judge']['score'] == 6
    said = run('eval.py', *flags, '--judge=cat', f'--out={tmp_path}/2/eval.json')
    mistake(said, 'no score', '3/3', 'from 1 to 10')
    assert (tmp_path / '2/samples.jsonl').read_text(encoding='utf-8').count('"completion": "x"') == 3


# --- answers of a model -------------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def shelf(base_run, tmp_path_factory):
    """Two checkpoints of a run, whose names do not tell their order, and one that was taught to answer."""
    folder = tmp_path_factory.mktemp('shelf')
    shutil.copy(base_run / 'tokenizer.json', folder)
    model = GPT.load(base_run)
    torch.manual_seed(5)
    late = GPT(GPTConfig(**vars(model.config)))
    for name, weights, more in (('a_late', late, {'step': 9}), ('b_first', model, {'step': 1}),
                                ('sft', model, {'step': 7, 'config': {'stage': 'sft'}})):
        weights.save(folder / f'{name}.pt', tokenizer_hash=model.saved['tokenizer_hash'], **more)
    return folder


def test_several_checkpoints_give_a_series_over_the_steps_of_a_run(shelf, data_dir, tmp_path):
    """Each number is that of the checkpoint alone, asked as it was taught, with its own tokenizer. The loss
    of each is measured on each data."""
    words = 'def f(', 'import ', 'x', 'return', 'self.', 'for i'
    data = write(tmp_path / 'own.jsonl', [{'prompt': word, 'regex': '[a-m]'} for word in words])
    flags = ['--tasks=own', f'--data={data}', '--max_new_tokens=5']
    first, late, tuned = (f'{shelf}/{name}.pt' for name in ('b_first', 'a_late', 'sft'))
    of_bytes = f'{tmp_path}/b'
    save_run(tmp_path / 'b', GPT(GPTConfig(BYTES.vocab_size, 32, 1, 2, 2, 32)), BYTES)
    said, several, rows = evaluate(tmp_path / 'all', f'--ckpt={tuned},{shelf}/*_*.pt,{of_bytes}', *flags)
    series = {result['ckpt']: result for result in several['own']['series']}
    assert [result['step'] for result in series.values()] == [None, 1, 7, 9]
    assert series[late] == evaluate(tmp_path / 'alone', f'--ckpt={late}', *flags)[1]['own']
    said_by = {path: [row['completion'] for row in rows if row['ckpt'] == path] for path in series}
    assert len(rows) == 24 and said_by[first] != said_by[late]
    assert {row['ckpt'] for row in rows if row['messages']} == {tuned}
    assert said.index('b_first.pt') < said.rindex('a_late.pt')
    assert said.endswith(f'next: python sample.py --ckpt={tuned} --chat=True\n')
    other = shutil.copytree(data_dir, tmp_path / 'other')
    np.zeros(read_json(data_dir / 'meta.json')['tokens']['val'], 'uint16').tofile(other / 'val.bin')
    (other / 'train.bin').unlink()                                  # nobody reads it
    rows = evaluate(tmp_path, f'--ckpt={first},{late}', f'--data_dir={data_dir},{other}', '--loss_tokens=99',
                    '--random_init=False')[1]['loss']
    assert len({row['nats'] for row in rows.values()}) == 4
    assert {*rows} == {f'{name}_{data} val' for name in (first, late) for data in (data_dir, other)}


# --- many answers at a time ---------------------------------------------------------------------------------
STOP = BYTES.special['<|im_end|>']


def sharp():
    torch.manual_seed(0)
    return sharpen(GPT(GPTConfig(BYTES.vocab_size, 48, 2, 4, 2, 32))).eval()


def alone(model, prompt, n, seed, **how):
    """Independent: one row, no cache, the whole window afresh for each id. -> its text"""
    ids, allowed, n_repeated, _ = answers.read(BYTES, prompt)
    new, dice = [], random.Random(seed)
    with torch.no_grad():
        while len(new) < n + (n_repeated > 0) and not (new and new[-1] in BYTES.stop):
            logits = model(torch.tensor([(ids + new)[-48:]]))[0][:, -1]
            logits[:, BYTES.never_in_answers(BYTES.vocab_size)] = -math.inf
            if allowed and not new:
                others = [id for id in range(BYTES.vocab_size) if id not in allowed]
                logits[:, others] = -math.inf
            new += draw_one(logits, u=torch.tensor([dice.random()]), **how).tolist()
    written = BYTES.decode_bytes([id for id in new if id not in BYTES.stop])
    return written[n_repeated:].decode(errors='replace')


def test_each_answer_of_a_batch_is_the_answer_alone_also_past_the_context():
    """Greedy, and sampled with the same numbers, to texts and to messages of any length."""
    model = sharp()
    prompts = [*('def f(x):'[:i] for i in range(9)), 'x' * 60, 'na\u00efve \u6f22', 'def f(x):', 'def f(x):',
               [{'role': 'user', 'content': 'f?'}], [{'role': 'user', 'content': 'x' * 60}]]
    for how in {'temperature': 0}, {'temperature': 1.6, 'top_k': 60, 'top_p': 0.5}:
        expected = [[alone(model, prompt, 20, f'7 {i} {j}', **how) for j in (0, 1)]
                    for i, prompt in enumerate(prompts)]
        for batch_size in 1, 5, 99:
            found = answers.write(model, BYTES, prompts, 2, '', 20, 7, batch_size, **how)
            assert found == expected, (how, batch_size)


def test_where_the_answer_to_a_text_ends():
    """At a pattern, which may look back at the prompt's last character; one to messages goes on."""
    for prompt, ends, text, expected in [
            ('x:', r'(?<=\n)(?=[^\s)\]}])', '  a\n\n\ndef g', '  a\n\n\n'),
            ('x\n', r'(?<=\n)(?=[^\s)\]}])', 'def', ''), ('x:', '', 'a\nb', 'a\nb'),
            ('x:', 'E.D', 'ab\u6f22E.DcE.D', 'ab\u6f22'),
            ([{'role': 'user', 'content': 'x'}], 'E', 'abE', 'abE')]:
        answer = answers.Answer(BYTES, prompt, 50, 0, ends)
        for id in [*b'x'[:answer.n_repeated], *text.encode()]:
            if not answer.is_done:
                answer.append(id)
        assert (answer.text, answer.is_done) == (expected, text != expected), (prompt, text)
    answer.append(STOP)
    assert answer.is_done and answer.text == 'abE'


# --- what has been learned ----------------------------------------------------------------------------------
def test_four_levels_by_hand():
    row = levels(['Speak, we\nza za'], {'Speak', 'we'}, {'First', 'Speak'})     # the last word may be cut
    assert row['speeches'] is None          # of words: Speak, we, za; of lines: Speak
    found = [row[name] for name in ('space', 'punctuation', 'words', 'lines')]
    assert found == pytest.approx([3 / 15, 1 / 15, 2 / 3, 1])
    assert set(levels([''], set(), set()).values()) == {None}
    assert levels(['all:\nSpeak.\n\nAll No:\n\nRest'], set(), set())['speeches'] == 1 / 2


def test_what_was_learned_stands_between_untrained_and_corpus(base_run, data_dir):
    said = ok(run('extras.learned', f'--ckpt={base_run}', f'--data_dir={data_dir}', '--max_new_tokens=60'))
    heads, *rows = [line.split() for line in said.splitlines()]
    table = {name: dict(zip(heads, shares)) for name, *shares in rows}
    assert list(table) == [str(base_run), 'untrained', 'corpus'] and heads[-1] == 'speeches'
    assert float(table['corpus']['words']) > 0.95 > float(table['untrained']['words']) + 0.2


# --- two models beside each other: intervals, gains and losses ----------------------------------------------
def rows_of(name, outcomes, **more):
    return [{'task': 't', 'task_id': i, 'prompt': 'p', 'completion': f'{name} {i}', 'outcome': outcome} | more
            for i, outcome in enumerate(outcomes)]


def graded(name, passes):
    """The rows of a string of 0 and 1."""
    return rows_of(name, ['passed' if c == '1' else 'wrong' for c in passes])


def test_intervals_hold_the_truth_19_times_in_20():
    """Of 300 worlds each; and none is a point where all or no problems pass. Wilson's interval of several
    answers may be too wide. The bootstrap's would be too narrow where few pass."""
    rng = np.random.default_rng(0)
    for method, n_samples, a, b, most in (
            (interval, 1, 2, 3, 0.99), (bootstrap, 5, 2, 3, 0.99), (interval, 5, 2, 3, 1),
            (interval, 8, 0.1, 9.9, 1)):
        hits = 0
        for _ in range(300):
            chances = rng.beta(a, b, size=60)           # of the problems; their mean is a / (a + b)
            low, high = method((rng.binomial(n_samples, chances) / n_samples).tolist())
            hits += low <= a / (a + b) <= high
        assert 0.90 < hits / 300 <= most, (method, n_samples, hits)
    assert interval([0.0] * 29 + [1 / 8])[1] > interval([0.0] * 30)[1] > 0.1
    assert interval([1] * 8 + [0] * 2) == pytest.approx([0.4902, 0.9433], abs=1e-4)     # Wilson by hand
    assert interval([0.5] * 200) == pytest.approx(interval([0, 1] * 100))       # as if of one sample each
    same = graded('a', '10' * 20)           # 0 of 40 problems differ, and up to z^2 / (40 + z^2) of all may
    share = 1.96 ** 2 / (40 + 1.96 ** 2)
    assert compare_samples(same, same)['interval'] == pytest.approx([-share, share])


def test_two_models_are_compared_problem_by_problem_and_by_kind():
    """10 problems: 7 gained, 1 lost, 2 alike. An answer that was not graded is not wrong. Gains are told by
    kind, and pool the splits of one."""
    result = compare_samples(graded('a', '0001110000'), graded('b', '1110111111'))
    assert (result['n'], len(result['gained']), result['lost']) == (10, 7, ['t 3'])
    assert 0 < result['interval'][0] < result['b'] - result['a'] == pytest.approx(0.6)
    refused('no problem in common', compare_samples, graded('a', '1'), [])
    lost = rows_of('b', ['passed', 'infrastructure', 'ungraded', 'empty'])
    result = compare_samples(graded('a', '1110'), lost)
    assert (result['n'], result['a'], result['b'], result['lost']) == (2, 0.5, 0.5, [])
    splits = 'variation', 'cell', 'feedback', 'feedback_variation', None
    both = [[row | {'kind': KINDS.get(splits[i // 2])} for i, row in enumerate(graded(*side))]
            for side in (('a', '0' * 9), ('b', '111000001'))]
    result = compare_samples(*both)
    gain = {kind: difference for kind, (difference, *_) in result['gain'].items()}
    assert gain == {'all': 4 / 9, 'example tasks': 1.0, 'unseen combinations': 0.5, 'practice tasks': 0.0}
    assert all(low <= difference <= high for difference, low, high in result['gain'].values())


def test_two_runs_are_compared_on_the_questions_that_are_the_same(tmp_path):
    for side, outcome in ('a', 'wrong'), ('b', 'passed'):
        write(tmp_path / side / 'samples.jsonl', [
            {'task': 't', 'task_id': i, 'prompt': prompt, 'completion': f'{side} {i}', 'outcome': outcome}
            for i, prompt in enumerate(('p', 'p', side, 'p'))])
    (tmp_path / 'a/best.pt').touch()
    flags = ['--tasks=compare', f'--ckpt={tmp_path}/a/best.pt', f'--compare={tmp_path}/b']
    # As in run.sh, the result is beside the answers that are read.
    said, tasks, _ = evaluate(tmp_path / 'b', *flags)
    assert tasks['compare']['gained'] == ['t 0', 't 1', 't 3']
    for words in (f'{tmp_path}/a .* 0.0000 .*wrong 4', f'{tmp_path}/b .* 1.0000 .*none',
                  'all .* 1.0000 +-0.1230, 1.0000', 'gained: t 0, t 1, t 3', 'lost: none'):
        assert re.search(words, said), said
    several = rows_of('a', ['passed'], ckpt='x.pt') + rows_of('b', ['wrong'], ckpt='y.pt')
    for rows, words in ((several, 'ValueError'), ([{'task': 't', 'task_id': 1}], "KeyError('outcome')"),
                        ([7], 'TypeError')):
        write(tmp_path / 'b/samples.jsonl', rows)
        mistake(run('eval.py', *flags), 'b/samples.jsonl must have judged answers of one checkpoint', words)


# --- alone --------------------------------------------------------------------------------------------------
def test_with_three_files_beside_it_the_loss_and_judged_answers_are_measured(base_run, data_dir, tmp_path):
    """And a task that needs extras/ ends in a sentence."""
    (tmp_path / 'alone').mkdir()
    for name in 'eval.py', 'model.py', 'tokenizer.py', 'configurator.py':
        shutil.copy(ROOT / name, tmp_path / 'alone')
    for name, passes in ('a', '0101'), ('b', '1101'):
        write(tmp_path / name / 'samples.jsonl', graded(name, passes))
    flags = {'loss': [f'--ckpt={base_run}', f'--data_dir={data_dir}', '--loss_tokens=500'],
             'compare': ['--tasks=compare', f'--ckpt={tmp_path}/a', f'--compare={tmp_path}/b']}
    for name, some in flags.items():
        ok(run(tmp_path / 'alone/eval.py', '--device=cpu', *some, f'--out={tmp_path}/{name}/eval.json',
               before=FORGET))
        assert read_json(tmp_path / f'{name}/eval.json')['tasks'] == evaluate(tmp_path / 'here', *some)[1]
    mistake(run(tmp_path / 'alone/eval.py', f'--ckpt={base_run}', '--tasks=gsm8k', before=FORGET),
            'copy extras, too')


# --- mistakes -----------------------------------------------------------------------------------------------
REFUSED = {
    '--tasks=problem': '--tasks=problem:|problems|humaneval|lm_eval|docs/measuring.md',
    '--tasks=compare': '--compare=out/dpo', '--tasks=own,own': '.jsonl|in this order: own',
    '--tasks=compare --compare=x --ckpt=a,b': 'one --ckpt', '--k=0': '--k=0',
    '--tasks=compare --compare=x --completions=y': 'leave --completions out',
    '--tasks=compare --compare=x --ckpt=mind': 'mind does not exist', '--tasks=problems': f'{YES}|sandbox.py',
    f'--tasks=problems {YES} --splits=cell,cell': "'cell-0/0' twice",
    f'--tasks=problems {YES} --num_samples=4 --k=1,8': 'pass@8|--num_samples=8',
    '--out=tokenizer.json': 'must end with .json|a file of a run',
    '--tasks=own --data=samples.jsonl --completions=x --out=eval.json': 'would replace a file that is read'}


def test_mistakes_are_one_sentence(tmp_path):
    data = write(tmp_path / 'samples.jsonl', [{'prompt': 'x', 'regex': 'a'}])
    before = data.read_bytes()
    for flags, words in REFUSED.items():
        mistake(run('eval.py', *flags.split(), cwd=tmp_path), *words.split('|'))
    for k in '9' * 5000, '-1', '1,,2', '1.5', '\u00b2', 'None':
        mistake(run('eval.py', '--tasks=own', f'--data={data}', '--completions=x', f'--k={k}'), 'k=')
    assert data.read_bytes() == before
    bad = write(tmp_path / 'bad.jsonl', [{'prompt': 'x', 'answer': 'Paris'}])
    mistake(run('eval.py', '--tasks=own', f'--data={bad}'), 'bad.jsonl, line 1: "answer" must be a number')


@pytest.mark.skipif(not hasattr(os, 'symlink'), reason='needs links')
def test_two_calls_with_one_out_leave_whole_files_and_no_link_is_followed(base_run, data_dir, tmp_path):
    """Each writes under a name of its own."""
    write_file = lift('eval.py', 'write')
    victim = write(tmp_path / 'victim', [{}])
    path = tmp_path / 'eval.json'
    (tmp_path / f'eval.json.{os.getpid()}.tmp').symlink_to(victim)
    path.symlink_to(victim)
    write_file(path, '[1]')
    assert read_json(path) == [1] and read_rows(victim) == [{}] and not path.is_symlink()
    flags = [f'--ckpt={base_run}', f'--data_dir={data_dir}', '--loss_tokens=2000', f'--out={path}']
    with concurrent.futures.ThreadPoolExecutor() as pool:
        both = [pool.submit(subprocess.run, [sys.executable, ROOT / 'eval.py', *flags], capture_output=True)
                for _ in range(2)]
        assert [call.result().returncode for call in both] == [0, 0]
    assert read_json(path)['tasks']['loss']['trained']['tokens'] == 2000
    assert not [*tmp_path.glob('*.tmp')]


def test_ctrl_c_is_one_line(base_run, data_dir, tmp_path):
    hit = 'import signal, model\nloss = model.GPT.forward\n' \
          'model.GPT.forward = lambda *a, **k: signal.raise_signal(signal.SIGINT) or loss(*a, **k)'
    done = run('eval.py', f'--ckpt={base_run}', f'--data_dir={data_dir}', f'--out={tmp_path}/eval.json',
               before=hit)
    assert done.returncode == 130 and done.stderr.splitlines()[-1] == 'stopped by Ctrl-C'
    assert 'Traceback' not in done.stderr and not (tmp_path / 'eval.json').exists()
