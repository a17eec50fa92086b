"""Problems: every reference passes its tests and wrong programs do not, splits never meet, and the same n,
seed and split give the same list."""
import ast
import collections
import hashlib
import itertools
import json
import re

from conftest import ROOT

from extras import grading, problems as P, rewards

N = {'train': 1600, 'validation': 80, 'variation': 80, 'cell': 100, 'family': 100,
     'review': 200, 'feedback': 400, 'feedback_validation': 80, 'feedback_variation': 80}
SETS = {split: P.problems(n, 0, split) for split, n in N.items()}
ALL = [p for some in SETS.values() for p in some]
PLAIN = {family[0] for family in P.plain(P.SHOWN)}
UNSEEN = {family[0] for family in P.plain(P.UNSEEN)}


def arguments(problem):
    return [a.arg for a in ast.parse(problem['prompt']).body[0].args.args]


def run_with_tests(problem, program):
    exec(f'{program}\n\n{problem["test"]}\ncheck({problem["entry_point"]})\n', {})


# --- the tests judge right ----------------------------------------------------------------------------------
def test_every_reference_of_either_taste_passes_its_tests():
    assert len(ALL) >= 2000
    for p in ALL:
        for body in p['solutions']:
            run_with_tests(p, grading.program(p, p['prompt'] + body, chat=True))
            run_with_tests(p, grading.program(p, body, chat=False))
        assert p['test'].count('    assert ') >= 5, p['test']
        assert p['canonical_solution'] in p['solutions']


# one change that most solutions do not survive: the other sign, the other comparison, off by one, the other
# function; and the laziest programs
SWAPS = {' + ': ' - ', ' - ': ' + ', ' * ': ' + ', ' // ': ' / ', ' % ': ' // ', ' > ': ' >= ', ' < ': ' <= ',
         ' == ': ' != ', 'min(': 'max(', 'max(': 'min(', 'any(': 'all(', 'all(': 'any(', 'sum(': 'len(',
         'sorted(': 'list(', 'startswith': 'endswith', 'endswith': 'startswith'}


def wrong_programs(problem):
    short = problem['solutions'][0]
    for right, wrong in SWAPS.items():
        if right in short:
            yield short.replace(right, wrong, 1)
    for value in [*arguments(problem), 'None', 'True', 'False', '0', '1', "''", '[]']:
        yield f'    return {value}\n'


def test_wrong_programs_fail():
    """Not all: 2 * x and x * 2 differ in the text only, and a slice may end behind the end."""
    rejected, survivors = 0, []
    for p in SETS['train'][:300] + SETS['family'] + SETS['cell']:
        for body in wrong_programs(p):
            try:
                run_with_tests(p, p['prompt'] + body)
                survivors.append(p['prompt'] + body)
            except Exception:
                rejected += 1
    assert rejected > 3000 and len(survivors) < 0.01 * rejected, (rejected, '\n'.join(survivors))


def test_a_conversation_asks_in_two_ways_and_both_tastes_occur():
    asked = collections.Counter()
    for p in SETS['train']:
        user, assistant = P.to_messages(p)
        assert p['prompt'].split('"""')[1] in user['content'] and p['entry_point'] in user['content']
        asked[user['content'].split()[0], P.preferred(assistant['content'])] += 1
        short, spelled = p['solutions']
        assert P.preferred(short) and not P.preferred(spelled)
    run_with_tests(p, grading.program(p, assistant['content'], chat=True))
    assert asked.keys() == {*itertools.product(('Complete:', 'Write'), (True, False))}
    assert min(asked.values()) > 0.22 * N['train']
    first, *_ = P.to_jsonl(SETS['cell']).splitlines()
    assert json.loads(first) == {**SETS['cell'][0], 'messages': P.to_messages(SETS['cell'][0])}


# --- the splits ---------------------------------------------------------------------------------------------
def test_every_family_occurs_two_in_five_problems_are_composed_and_held_out_ones_are_practised():
    counts = collections.Counter(p['family'] for p in SETS['train'])
    assert PLAIN <= set(counts) and {p['family'] for p in SETS['family']} == UNSEEN and not PLAIN & UNSEEN
    assert 0.35 < sum(counts[f] for f in set(counts) - PLAIN) / N['train'] < 0.45
    practised = {p['cell'] for p in P.problems(2500, 0, 'feedback')}
    assert practised >= {p['cell'] for split in ('feedback_validation', 'feedback_variation')
                         for p in SETS[split]}


def test_no_prompt_is_there_twice_in_a_split_or_in_two_whatever_the_seed():
    """Hashes decide. Those of the split family may be anything: it differs from the others in its tasks."""
    for split, some in SETS.items():
        assert len({p['prompt'] for p in some}) == N[split] and P.problems(40, 0, split) == some[:40]
        _, fifths, tenths = P.SPLITS[split]
        for p in some + P.problems(40, 5, split):
            assert P.bucket(p['prompt'], 10) in tenths
            assert P.bucket(p['cell'], 5) in fifths or p['family'] in (UNSEEN if split == 'family' else PLAIN)
    hashed = [split for split in P.SPLITS if split != 'family']
    for a, b in itertools.combinations(hashed, 2):
        (_, fifths, tenths), (_, other_fifths, other_tenths) = P.SPLITS[a], P.SPLITS[b]
        assert not {*fifths} & {*other_fifths} or not {*tenths} & {*other_tenths}, (a, b)
    again = {p['prompt'] for p in SETS['train']} & {p['prompt'] for p in P.problems(800, 1)}
    assert len(again) < 0.05 * 800          # of other seeds, few


def test_each_stage_reads_the_splits_that_are_its_own(monkeypatch):
    """SFT's examples, the prompts of DPO and RL, and what is tested."""
    # SFT reads train: test_train.py. DPO and rejection sampling read answers that run.sh's command
    # writes, and the preset repeats it.
    run_sh, preset = ((ROOT / path).read_text('utf-8') for path in ('run.sh', 'config/quickstart_dpo.py'))
    mined = re.findall(r'mined/eval.json.*--splits=(\S+)', run_sh.replace('\\\n', ' '))
    assert mined == re.findall(r'--splits=(\S+)', preset) == ['review,feedback']
    # RL
    monkeypatch.setattr(rewards, 'N_PROBLEMS', 40)
    for n_held_out, n, seed, splits in ((0, 20, 1, ('review', 'feedback')),
                                        (20, 10, 0, ('validation', 'feedback_validation'))):
        asked, *_ = rewards.open_tests('problems', b'', n_held_out, True, 3.0, rank=1, world=2)
        assert asked == [P.to_messages(p)[:1] for split in splits for p in P.problems(n, seed, split)]


# --- always the same ----------------------------------------------------------------------------------------
def test_the_list_is_the_same_on_every_machine():
    lists = [P.problems(20, 7, split) for split in P.SPLITS]
    assert hashlib.md5(repr(lists).encode()).hexdigest() == '97cf08d8971b971e184e47388396e216'
