"""Problems: every reference passes its tests, splits never meet, (n, seed, split) is always one list."""
import ast
import collections
import hashlib
import json
import subprocess
import sys

import pytest
from conftest import ROOT, mistake, ok, run

from parts.eval import grading, problems as P

N = {'train': 1600, 'validation': 80, 'variation': 80, 'names': 100, 'cell': 100, 'family': 100}
SETS = {split: P.problems(n, 0, split) for split, n in N.items()}
ALL = [p for found in SETS.values() for p in found]
PLAIN = {family[0] for family in P.plain(P.SHOWN)}
UNSEEN = {family[0] for family in P.plain(P.NEVER_SHOWN)}


def arguments(problem):
    return [a.arg for a in ast.parse(problem['prompt']).body[0].args.args]


def run_with_tests(problem, program):
    exec(f'{program}\n\n{problem["test"]}\ncheck({problem["entry_point"]})\n', {})


def test_every_reference_of_either_taste_passes_its_tests():
    assert len(ALL) >= 2000
    for p in ALL:
        for body in p['solutions']:
            run_with_tests(p, grading.program(p, p['prompt'] + body, chat=True))
            run_with_tests(p, grading.program(p, body, chat=False))
        assert p['test'].count('    assert ') >= 5, p['test']
        assert p['canonical_solution'] in p['solutions']


def test_there_are_sixty_families_and_each_occurs_in_about_equal_numbers():
    assert len(PLAIN) + len(UNSEEN) >= 60 and len(UNSEEN) >= 10 and not PLAIN & UNSEEN
    counts = collections.Counter(p['family'] for p in SETS['train'])
    assert set(counts) - PLAIN == {'composed_ints', 'composed_int', 'composed_text'}
    assert PLAIN <= set(counts) and {p['family'] for p in SETS['family']} == UNSEEN
    assert max(counts[f] for f in PLAIN) < 0.05 * sum(counts[f] for f in PLAIN)
    assert 0.35 < sum(counts[f] for f in set(counts) - PLAIN) / N['train'] < 0.45


def test_no_two_splits_share_a_prompt_whatever_the_seed():
    shared = lambda some, others: {p['prompt'] for p in some} & {p['prompt'] for p in others}
    train = SETS['train'] + P.problems(800, 1)
    for split in P.SPLITS[1:]:
        assert not shared(train, SETS[split] + P.problems(40, 5, split)), split
    for i, a in enumerate(P.SPLITS):
        for b in P.SPLITS[i + 1:]:
            assert not shared(SETS[a], SETS[b]), (a, b)
    assert len(shared(SETS['train'], train[1600:])) < 0.05 * 800      # of other seeds, few


def test_prompts_are_distinct_and_fewer_are_the_first_of_more():
    for split, found in SETS.items():
        assert len({p['prompt'] for p in found}) == len(found) == N[split]
        assert P.problems(40, 0, split) == found[:40]


def test_what_is_held_out_does_not_occur_in_training():
    cells, names = {p['cell'] for p in SETS['train']}, {a for p in SETS['train'] for a in arguments(p)}
    assert not cells & {p['cell'] for p in SETS['cell']}
    assert not cells & {p['cell'] for p in SETS['family']}
    for p in SETS['names']:
        assert not names & set(arguments(p)), p['prompt']
    for split in 'validation', 'variation', 'names':        # ... and nothing else is held out there
        assert {p['family'] for p in SETS[split]} <= {p['family'] for p in SETS['train']}
    parts = {part for cell in cells for part in cell.split(' / ')}
    assert {part for p in SETS['cell'] for part in p['cell'].split(' / ')} <= parts


def test_a_fifth_of_the_compositions_is_held_out():
    cells = [f'ints / {f} / {m} / {r}' for f in P.FILTERS for m in P.MAPS for r in P.REDUCES]
    assert 0.15 < sum(P.bucket(cell, 5) == 0 for cell in cells) / len(cells) < 0.25


def test_made_up_argument_names_have_their_share(monkeypatch):
    pools = {w for pool in P.NAMES.values() for w in pool.split()} | {
        kind.partition(':')[2] for f in P.plain(P.SHOWN) for kind in f[3]}
    for share in 0, 0.5, 1:
        monkeypatch.setattr(P, 'MADE_UP', share)
        found = P.problems(300, 3)
        made_up = sum(not set(arguments(p)) <= pools for p in found) / 300
        assert abs(made_up - share) < 0.12, (share, made_up)        # a letter may be in both


def test_the_seeds_own_two_problems_are_in_training(monkeypatch):
    monkeypatch.setattr(P, 'MADE_UP', 0)
    heads = {p['prompt'].split('\n')[0] for s in (0, 1, 2) for p in P.problems(600, s)}
    assert {'def area_of_rectangle(length, width):', 'def mean(numbers):'} <= heads


def test_the_list_is_the_same_in_every_process():
    code = ("import hashlib; from parts.eval import problems; "
            "found = [problems.problems(60, 7, s) for s in problems.SPLITS]; "
            "print(hashlib.md5(repr(found).encode()).hexdigest())")
    here = hashlib.md5(repr([P.problems(60, 7, s) for s in P.SPLITS]).encode()).hexdigest()
    for seed in '0', '99':
        there = subprocess.run([sys.executable, '-c', code], cwd=ROOT, text=True, capture_output=True,
                               env={'PYTHONHASHSEED': seed}).stdout
        assert there.strip() == here


def test_both_tastes_occur_and_are_told_apart():
    for p in ALL:
        short, spelled = p['solutions']
        assert P.preferred(short) and not P.preferred(spelled), p['solutions']
        assert P.preferred(p['prompt'] + short) and not P.preferred(p['prompt'] + spelled)
    both = collections.Counter(P.preferred(p['canonical_solution']) for p in SETS['train'])
    assert 0.45 < both[True] / N['train'] < 0.55
    loops = {p['family'] for p in ALL if 'for ' in p['solutions'][1] or 'if ' in p['solutions'][1]}
    assert len(loops) >= 25, len(loops)
    assert not any(map(P.preferred, ('', 'return', 'x = 1', 'def f(a):\n    pass', 'a\nreturn a')))


def test_conversations_can_be_run_with_a_fence_and_without():
    for p in SETS['train'][:300]:
        user, assistant = P.to_messages(p)
        assert (user['role'], assistant['role']) == ('user', 'assistant')
        assert p['prompt'].split('"""')[1] in user['content'] and p['entry_point'] in user['content']
        assert '"""' not in assistant['content']
        code = assistant['content']
        for answer in code, f'Here:\n```python\n{code}\n```\nDone.', f'```\n{code}':
            run_with_tests(p, grading.program(p, answer, chat=True))
        with pytest.raises(Exception):      # noqa: B017
            run_with_tests(p, grading.program(p, 'I do not know', chat=True))
    assert {P.to_messages(p)[0]['content'].split()[0] for p in SETS['train']} == {'Complete:', 'Write'}


def test_the_command_line_writes_what_the_function_returns(tmp_path):
    ok(run('parts/eval/problems.py', '--n=20', '--seed=3', '--split=cell', '--out=p.jsonl', cwd=tmp_path))
    lines = [json.loads(line) for line in open(tmp_path / 'p.jsonl', encoding='utf-8')]
    assert lines == [{**p, 'messages': P.to_messages(p)} for p in P.problems(20, 3, 'cell')]
    assert {'task_id', 'prompt', 'canonical_solution', 'test', 'entry_point'} <= set(lines[0])
    assert all(split in ok(run('parts/eval/problems.py', '--n=20')) for split in P.SPLITS)


@pytest.mark.parametrize('flags, words', [
    (['--split=nonsense'], ['nonsense', 'variation']), (['--n=x'], ['--n']), (['--m=3'], ['--m']),
    (['--n=3', '--out=no/such/p.jsonl'], ['p.jsonl'])])
def test_mistakes_are_one_sentence(flags, words):
    mistake(run('parts/eval/problems.py', *flags), *words)
