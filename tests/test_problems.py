"""Problems: every reference passes its tests and wrong programs do not, splits never meet, and the same n,
seed and split give the same list."""
import collections
import hashlib
import re

from conftest import ROOT, ok, read_rows, run, shared_fixture, slow

from extras.tasks import grading, problems as P, rewards

PLAIN = {family[0] for family in P.plain(P.SHOWN)}
UNSEEN = {family[0] for family in P.plain(P.UNSEEN)}


# --- the tests judge right ------------------------------------------------------------------------
# One change that most solutions do not survive: the other sign, the other comparison, off by one,
# the other function.
SWAPS = ('+ -, - +, * +, // /, % //, > >=, < <=, == !=, min max, max min, any all, all any, '
         'sum len, sorted list, startswith endswith, endswith startswith')


def wrong_bodies(problem):
    """Those, and the laziest ones."""
    short = problem['solutions'][0]
    arguments = problem['prompt'].split('(')[1].split(')')[0].split(', ')
    changed = [re.sub(rf'(?<=[ .(]){re.escape(right)}(?=[ (])', wrong, short, count=1)
               for right, wrong in map(str.split, SWAPS.split(', '))]
    lazy = [f'    return {value}\n' for value in [*arguments, *"None True False 0 1 [] ''".split()]]
    return [body for body in changed + lazy if body != short]


def passes(problem, program):
    try:
        exec(f'{program}\n\n{problem["test"]}\ncheck({problem["entry_point"]})\n', {})
        return True
    except Exception:
        return False


@slow
def test_every_reference_of_either_taste_passes_its_tests_and_wrong_programs_fail():
    """Not all: 2 * x and x * 2 differ in the text only, and a slice may end behind the end."""
    verdicts = collections.Counter()
    for p in [p for split in P.SPLITS for p in P.problems(60, 0, split)]:
        assert p['test'].count('    assert ') >= 5 and p['canonical_solution'] in p['solutions']
        assert [*map(P.preferred, p['solutions'])] == [True, False]
        for body in p['solutions']:
            assert passes(p, grading.program(p | {'tests': p['test']}, p['prompt'] + body, chat=True)), p
            assert passes(p, grading.program(p, body, chat=False)), p
        for body in wrong_bodies(p):
            verdicts[passes(p, p['prompt'] + body)] += 1
    assert verdicts[False] > 3500 and verdicts[True] < 0.01 * verdicts[False]


# --- the splits -----------------------------------------------------------------------------------
@shared_fixture
def sets():
    """{split: the first problems of it}"""
    return {split: P.problems(1600 if split == 'train' else 100, 0, split, with_tests=False)
            for split in P.SPLITS}


def test_every_family_occurs_and_held_out_compositions_are_practised(sets):
    families = lambda split: {p['family'] for p in sets[split]}
    assert PLAIN <= families('train') and families('other') == UNSEEN and not PLAIN & UNSEEN
    practised = {p['composition'] for p in P.problems(2500, 0, 'practice_train', with_tests=False)}
    assert practised >= {p['composition'] for p in sets['practice_validation'] + sets['practice']}


def test_no_prompt_is_there_twice_in_a_split_or_in_two_whatever_the_seed(sets):
    """Hashes decide. Those of the split `other` may be anything: it differs from the others in its tasks."""
    for split, (_, fifths, tenths) in P.SPLITS.items():
        some = sets[split]
        assert len({p['prompt'] for p in some}) == len(some)
        assert P.problems(40, 0, split, with_tests=False) == some[:40]
        for p in some + P.problems(40, 5, split, with_tests=False):
            assert P.bucket(p['prompt'], 10) in tenths
            assert P.bucket(p['composition'], 5) in fifths or p['family'] in (UNSEEN if split == 'other' else PLAIN)
        for other, (_, *sides) in P.SPLITS.items():
            if 'other' not in (split, other) and split != other:
                assert {*fifths}.isdisjoint(sides[0]) or {*tenths}.isdisjoint(sides[1]), other


def test_each_stage_reads_the_splits_that_are_its_own(monkeypatch):
    """DPO and rejection sampling read answers that run.sh's command writes, and the preset repeats
    it. RL asks those, and holds out two others."""
    ok(run('chats.py --n_examples=20 --out_dir=out'))
    for side, split, n in ('train', 'train', 20), ('val', 'validation', 300):
        assert [row['split'] for row in read_rows(f'out/{side}.jsonl')] == [split] * n
    for path in 'run.sh', 'config/quickstart_dpo.py':
        assert '--splits=example_train,practice_train' in (ROOT / path).read_text('utf-8')
    monkeypatch.setattr(rewards, 'N_PROBLEMS', 40)
    monkeypatch.setenv('RANK', '1')         # only the first process tries the tests
    asked, held_out, _ = rewards.open_reward('problems', 20, True, None, 'cpu', None)
    ask = lambda n, seed, *splits: [P.to_messages(p)[:1] for split in splits
                                    for p in P.problems(n, seed, split)]
    assert asked == ask(20, 1, 'example_train', 'practice_train')
    assert held_out == ask(10, 0, 'validation', 'practice_validation')


# --- always the same ------------------------------------------------------------------------------
def test_the_list_is_the_same_on_every_machine():
    """And the same as when published scores were measured: a new name of a split changes no problem."""
    lists = [[(p['prompt'], p['canonical_solution'], p['solutions'], p['test'])
              for p in P.problems(20, 7, split)] for split in P.SPLITS]
    assert hashlib.md5(repr(lists).encode()).hexdigest() == '88a08b1691dcb40d0126809a47673980'
