"""
Comparing two models on the same problems: those that the second gained and lost, and blind votes.

    interval([1] * 8 + [0] * 2)             # [0.49, 0.94]: 95 % of the mean
    result = compare({'q 1': [row, row]}, {'q 1': [row]})       # rows as in samples.jsonl
    result['gained'], result['p']           # ['q 1'], 1.0: McNemar's exact test
    agreement({0: 'a', 1: 'tie'}, {0: 'a', 1: 'b'})         # {'n': 2, 'agree': 0.5, 'kappa': 0.33...}

Copy this file alone: it needs numpy.
"""
import collections, csv, itertools, json, math, random
import numpy as np


def by_problem(rows, path='samples.jsonl'):
    """{'task task_id': its rows}, of those that were graded. ValueError if one lacks what eval.py writes,
    or if there are answers of several checkpoints."""
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
    return (row['score'] or 0) / 10 if 'score' in row else float(row['outcome'] == 'passed')


def mean_grade(rows):
    return sum(map(grade, rows)) / len(rows)


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
    before = [mean_grade(a[key]) for key in shared]
    after = [mean_grade(b[key]) for key in shared]
    gained = [key for key, x, y in zip(shared, before, after) if x < y]
    lost = [key for key, x, y in zip(shared, before, after) if x > y]

    n = len(gained) + len(lost)
    fewer = min(len(gained), len(lost))
    p = min(1.0, 2 * sum(math.comb(n, i) for i in range(fewer + 1)) / 2 ** n)
    result = {'n': len(shared), 'a': sum(before) / len(before), 'b': sum(after) / len(after)}
    low, high = interval([(1 + y - x) / 2 for x, y in zip(before, after)])
    low, high = 2 * low - 1, 2 * high - 1
    if not n:                           # no problem differs: how many could, all to one side?
        high = interval([0] * len(shared))[1]
        low = -high
    return result | {'gained': gained, 'lost': lost, 'p': p, 'interval': [low, high]}


def gains(a, b, kind_of):
    """{kind: [difference of the means, low, high]} of the problems of each kind. kind_of: {split: kind}."""
    keys_of = collections.defaultdict(list)
    for key, rows in a.items():
        if key in b and rows[0].get('split') in kind_of:
            keys_of[kind_of[rows[0]['split']]].append(key)
    results = {kind: compare({key: a[key] for key in keys}, b) for kind, keys in keys_of.items()}
    return {kind: [result['b'] - result['a'], *result['interval']] for kind, result in results.items()}


def warn_of_specialists(bits):
    """Print a warning for each checkpoint that is better than the first on one set of data and more than 2 %
    worse on another. bits: {checkpoint: {name of the data: bits per byte}}."""
    first, *others = bits
    for ckpt in others:
        gain = {data: 1 - bits[ckpt][data] / bits[first][data] for data in bits[ckpt]}
        best, worst = max(gain, key=gain.get), min(gain, key=gain.get)
        if gain[best] > 0 and gain[worst] < -0.02:
            print(f'warning: over-specialised? {ckpt} has {gain[best]:.1%} fewer bits/byte than {first} on '
                  f'{best}, {-gain[worst]:.1%} more on {worst}; train with some of that, too')


# --- votes --------------------------------------------------------------------------------------------------
def blind(a, b, seed):
    """Pairs (row of a, row of b): the first answers where they differ, in random order; and for each pair
    {'left': 'a' or 'b', 'right': the other}, which voters must not see."""
    pairs = [(a[key][0], b[key][0]) for key in a if key in b]
    pairs = [(x, y) for x, y in pairs if x['completion'] != y['completion']]
    dice = random.Random(seed)
    dice.shuffle(pairs)
    sides = []
    for _ in pairs:
        left, right = 'ba' if dice.random() < 0.5 else 'ab'
        sides.append({'left': left, 'right': right})
    return pairs, sides


def write_sheet(folder, pairs, sides):
    """Write sheet.csv, of which each voter fills in a copy, and key.json, the sides, for later."""
    rows = [['id', 'prompt', 'left', 'right', 'vote']]
    for i, (x, y) in enumerate(pairs):
        texts = {'a': x['completion'], 'b': y['completion']}
        rows.append([i, x['prompt'], texts[sides[i]['left']], texts[sides[i]['right']], ''])
    with open(f'{folder}/sheet.csv', 'w', encoding='utf-8', newline='') as f:
        csv.writer(f).writerows(rows)
    with open(f'{folder}/key.json', 'w', encoding='utf-8') as f:
        json.dump(sides, f)


def read_votes(path, pairs, sides):
    """{number of the pair: 'a', 'b' or 'tie'} of a filled-in sheet.csv. ValueError if it is not such a sheet,
    or has another word as a vote, other answers, or the same on other sides."""
    votes = {}
    try:
        with open(path, encoding='utf-8-sig', newline='') as f:     # Excel writes a byte order mark
            for row in csv.DictReader(f):
                i = int(row['id'])
                meant = sides[i] | {'tie': 'tie', '': None}
                texts = dict(zip('ab', (answer['completion'] for answer in pairs[i])))
                for side in 'left', 'right':        # office programs change the ends of lines
                    if row[side].splitlines() != texts[meant[side]].splitlines():
                        raise ValueError('it has other answers; count it with the --ckpt, --compare and '
                                         '--seed that wrote it')
                votes[i] = meant[row['vote'].strip().lower()]
    except (LookupError, TypeError, AttributeError, ValueError, csv.Error) as e:
        raise ValueError(f'{path} must be a copy of sheet.csv, with the columns id (0 to {len(sides) - 1}) '
                         f'and vote (left, right or tie), not: {e!r}') from e
    return {i: vote for i, vote in votes.items() if vote}


def vote(a, b, seed, paths, folder):
    """The votes of the tests (or the judge) and of people, and how far each two of them agree. paths: the
    sheets that people filled in; without any, an empty one is written into the folder."""
    pairs, sides = blind(a, b, seed)
    if not paths:
        write_sheet(folder, pairs, sides)
        print(f'{folder}/sheet.csv: vote left, right or tie in copies; then add --votes=A.csv,B.csv')
    return count_votes(pairs, sides, paths)


def count_votes(pairs, sides, paths):
    """The votes of the tests and of people, and how far each two of them agree."""
    raters = {'tests': {}}
    for i, (x, y) in enumerate(pairs):
        better = 'a' if grade(x) > grade(y) else 'b'
        raters['tests'][i] = 'tie' if grade(x) == grade(y) else better
    raters |= {path: read_votes(path, pairs, sides) for path in paths}
    return {'votes': {name: collections.Counter(votes.values()) for name, votes in raters.items()},
            'agreement': {f'{x}, {y}': agreement(raters[x], raters[y])
                          for x, y in itertools.combinations(raters, 2)}}


def agreement(x, y):
    """Two raters {number: vote}: n, the pairs both voted on; the share on which they agree; Cohen's kappa
    (1960), agreement beyond chance, None if chance alone agrees always."""
    both = [(x[i], y[i]) for i in x if i in y]
    n = max(1, len(both))
    agree = sum(u == v for u, v in both) / n
    chance = sum(u == v for u, _ in both for _, v in both) / n ** 2
    kappa = (agree - chance) / (1 - chance) if chance < 1 else None
    return {'n': len(both), 'agree': agree, 'kappa': kappa}


def describe(result):
    """The results of compare(), gains() and vote() in a few lines."""
    return ('\n{n} problems: {a:.3f} -> {b:.3f}, 95 % interval of the difference {interval[0]:.3f} to '
            '{interval[1]:.3f}, p = {p:.3f}\ngained: {gained}   lost: {lost}\nvotes: {votes}   agreement: '
            '{agreement}\ngain by kind of problem: {gain}').format(**result)
