"""
Comparing two models on the same problems: those that the second gained and lost, and blind votes.

    interval([1] * 8 + [0] * 2)             # [0.49, 0.94]: 95 % of the mean
    result = compare({'q 1': [row, row]}, {'q 1': [row]})       # rows as in samples.jsonl
    result['gained'], result['p']           # ['q 1'], 1.0: McNemar's exact test

Copy this file alone: it needs numpy.
"""
import collections, contextlib, csv, itertools, math, random
import numpy as np


def by_problem(rows, path):
    """{'task task_id': its rows}, of those that were graded. ValueError if they are not of one checkpoint."""
    by_key = collections.defaultdict(list)
    for row in rows:
        if missing := {'task', 'task_id', 'prompt', 'completion', 'outcome'} - row.keys():
            raise ValueError(f'{path} has a line without {sorted(missing)}; take a samples.jsonl of eval.py')
        if row['outcome'] not in ('infrastructure', 'ungraded'):
            by_key[f'{row["task"]} {row["task_id"]}'].append(row)
    ckpts = {row.get('ckpt') for row in rows}
    if len(ckpts) > 1:
        raise ValueError(f'{path} has answers of several checkpoints, {sorted(ckpts, key=str)}; '
                         'run eval.py for one of them, with an --out of its own')
    return by_key


def grade(row):
    """0 to 1: whether an answer passed, or a tenth of the judge's score."""
    return row['score'] / 10 if 'score' in row else float(row['outcome'] == 'passed')


def interval(scores):
    """95 % interval of the mean of scores from 0 to 1, one for each problem."""
    n = max(1, len(scores))
    p = sum(scores) / n
    z = 1.96
    if set(scores) <= {0, 1} or len(set(scores)) == 1:      # Wilson 1927: it has a width at 0 and 1, too
        middle = p + z * z / (2 * n)
        half = z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
        whole = 1 + z * z / n
        return [max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)]
    drawn = np.random.default_rng(0).integers(n, size=(2000, n))        # the bootstrap, over problems
    return np.percentile(np.array(scores)[drawn].mean(1), [2.5, 97.5]).tolist()


def compare(a, b):
    """{problem: rows} of both -> the means, the interval of their difference, the problems that b gained and
    lost, p (McNemar 1947, exact). ValueError if they share none."""
    shared = [key for key in a if key in b]
    if not shared:
        raise ValueError('the two samples.jsonl have no problem in common; give both models the same --tasks')
    before = [np.mean([grade(row) for row in a[key]]).item() for key in shared]
    after = [np.mean([grade(row) for row in b[key]]).item() for key in shared]
    gained = [key for key, x, y in zip(shared, before, after) if x < y]
    lost = [key for key, x, y in zip(shared, before, after) if x > y]

    n = len(gained) + len(lost)
    fewer = min(len(gained), len(lost))
    p = min(1.0, 2 * sum(math.comb(n, i) for i in range(fewer + 1)) / 2 ** n)
    low, high = interval([(1 + y - x) / 2 for x, y in zip(before, after)])
    low, high = 2 * low - 1, 2 * high - 1
    if not n:                           # no problem differs: how many could, all to one side?
        high = interval([0] * len(shared))[1]
        low = -high
    return {'n': len(shared), 'a': sum(before) / len(before), 'b': sum(after) / len(after),
            'gained': gained, 'lost': lost, 'p': p, 'interval': [low, high]}


def gains(a, b, kind_of):
    """{kind: [difference of the means, low, high]} of the problems of each kind. kind_of: {split: kind}."""
    keys_of = collections.defaultdict(list)
    for key, rows in a.items():
        if key in b and rows[0].get('split') in kind_of:
            keys_of[kind_of[rows[0]['split']]].append(key)
    results = {kind: compare({key: a[key] for key in keys}, b) for kind, keys in keys_of.items()}
    return {kind: [result['b'] - result['a'], *result['interval']] for kind, result in results.items()}


# --- blind votes --------------------------------------------------------------------------------------------
def blind(a, b, seed):
    """Pairs of first answers that differ, ('a' or 'b', its row), in random order and on random sides."""
    pairs = [[('a', a[key][0]), ('b', b[key][0])] for key in a if key in b]
    pairs = [pair for pair in pairs if pair[0][1]['completion'] != pair[1][1]['completion']]
    dice = random.Random(seed)
    dice.shuffle(pairs)
    for pair in pairs:
        dice.shuffle(pair)
    return pairs


def write_sheet(path, pairs):
    """A table, of which each voter fills in a copy: left, right or tie under `vote`."""
    with contextlib.suppress(FileNotFoundError), open(path, encoding='utf-8-sig', newline='') as f:
        if any(row.get('vote') for row in csv.DictReader(f)):
            raise ValueError(f'{path} holds votes, which a new sheet would replace; count them with '
                             f'--votes={path}, or move it away')
    with open(path, 'w', encoding='utf-8', newline='') as f:
        sheet = csv.writer(f)
        sheet.writerow(['id', 'prompt', 'left', 'right', 'vote'])
        for i, ((_, left), (_, right)) in enumerate(pairs):
            sheet.writerow([i, left['prompt'], left['completion'], right['completion'], ''])
    print(f'{path}: vote left, right or tie in copies; then add --votes=A.csv,B.csv')


def read_votes(path, pairs):
    """{number of the pair: 'a', 'b' or 'tie'} of a filled-in sheet. ValueError if it is another sheet."""
    votes = {}
    try:
        with open(path, encoding='utf-8-sig', newline='') as f:     # Excel writes a byte order mark
            for row in csv.DictReader(f):
                (a_or_b, left), (other, _) = pairs[int(row['id'])]
                if row['left'].splitlines() != left['completion'].splitlines():     # Excel changes their ends
                    raise ValueError('it has other answers; give the --ckpt, --compare and --seed of then')
                words = {'left': a_or_b, 'right': other, 'tie': 'tie', '': None}
                votes[int(row['id'])] = words[row['vote'].strip().lower()]
    except (LookupError, AttributeError, ValueError) as e:
        raise ValueError(f'{path} must be a copy of sheet.csv, with left, right or tie under vote: '
                         f'{e!r}') from e
    return {i: vote for i, vote in votes.items() if vote}


def count_votes(pairs, paths):
    """The votes of the tests (or the judge) and of the sheets at paths, and how far each two agree."""
    raters = {'tests': {}}
    for i, pair in enumerate(pairs):
        grades = {a_or_b: grade(row) for a_or_b, row in pair}
        better = max(grades, key=grades.get)
        raters['tests'][i] = 'tie' if grades['a'] == grades['b'] else better
    raters |= {path: read_votes(path, pairs) for path in paths}
    agreement = {}
    for (x, its), (y, others) in itertools.combinations(raters.items(), 2):
        same = [its[i] == others[i] for i in its if i in others]        # on the pairs that both voted on
        agreement[f'{x}, {y}'] = {'n': len(same), 'agree': sum(same) / max(1, len(same))}
    return {'votes': {name: collections.Counter(votes.values()) for name, votes in raters.items()},
            'agreement': agreement}


def describe(result):
    return ('\n{n} problems: {a:.3f} -> {b:.3f}, 95 % interval of the difference {interval[0]:.3f} to '
            '{interval[1]:.3f}, p = {p:.3f}\ngained: {gained}   lost: {lost}\nvotes: {votes}   agreement: '
            '{agreement}\ngain by kind of problem: {gain}').format(**result)
