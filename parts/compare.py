"""
Comparing two models on the same problems: what one gained and the other lost, and blind votes.

    result, differences = compare({'q 1': [row, row]}, {'q 1': [row]})      # rows as in samples.jsonl
    result['gained'], result['p']           # ['q 1'], 1.0: McNemar's exact test
    agreement({0: 'a', 1: 'tie'}, {0: 'a', 1: 'b'})         # {'n': 2, 'agree': 0.5, 'kappa': 0.33...}

A row has task, task_id, prompt, completion and an outcome ('passed' or not), or a score from 1 to 10.
Copy this file alone: it needs the standard library.
"""
import collections, csv, io, itertools, json, math, os, random


def read(path, read_jsonl):
    """{'task task_id': rows} of samples.jsonl, given itself, its folder, or a checkpoint beside it."""
    if path.endswith('.pt'):
        path = os.path.dirname(path) or '.'
    if os.path.isdir(path):
        path = os.path.join(path, 'samples.jsonl')
    found = collections.defaultdict(list)
    for row in read_jsonl(path, dict, 'eval.py writes it'):
        found[f'{row["task"]} {row["task_id"]}'].append(row)
    return found


def mean_grade(rows):
    """0 to 1: the share that passed, or a tenth of the mean score."""
    grades = []
    for row in rows:
        if 'score' in row:
            grades.append((row['score'] or 0) / 10)
        else:
            grades.append(1 if row['outcome'] == 'passed' else 0)
    return sum(grades) / len(grades)


def compare(a, b):
    """a, b: {problem: rows}. Returns the means, the problems that b gained and lost, and p: how likely so
    unequal numbers of them are if neither is better (McNemar 1947, exact); and b - a for each problem."""
    shared = [key for key in a if key in b]
    if not shared:
        raise ValueError('the two samples.jsonl have no problem in common; give both models the same --tasks')
    before = [mean_grade(a[key]) for key in shared]
    after = [mean_grade(b[key]) for key in shared]
    gained = [key for key, x, y in zip(shared, before, after) if x < y]
    lost = [key for key, x, y in zip(shared, before, after) if x > y]
    n = len(gained) + len(lost)
    rarer = range(min(len(gained), len(lost)) + 1)
    p = min(1.0, 2 * sum(math.comb(n, i) for i in rarer) / 2 ** n)
    result = {'n': len(shared), 'a': sum(before) / len(before), 'b': sum(after) / len(after)}
    result |= {'gained': gained, 'lost': lost, 'p': p}
    return result, [y - x for x, y in zip(before, after)]


def describe(result):
    """The result, with its interval and votes, as text."""
    said = ['\n{n} problems: {a:.3f} -> {b:.3f}, 95 % interval of the difference {interval[0]:.3f} to '
            '{interval[1]:.3f}, p = {p:.3f}'.format(**result)]
    for name in ('gained', 'lost'):
        said.append(f'{name} {len(result[name])}: {", ".join(result[name][:9])}')
    for names, row in result['agreement'].items():
        said.append('{} agree on {agree:.0%} of {n}, kappa {kappa}'.format(names, **row))
    return '\n'.join(said)


# --- votes --------------------------------------------------------------------------------------------------


def blind(a, b, seed):
    """The first answers of both where they differ, in random order: pairs (row of a, row of b), and for each
    pair whether b stands on the left. Who votes must not know which is which."""
    pairs = [(a[key][0], b[key][0]) for key in a if key in b]
    pairs = [(x, y) for x, y in pairs if x['completion'] != y['completion']]
    dice = random.Random(seed)
    dice.shuffle(pairs)
    return pairs, [dice.random() < 0.5 for _ in pairs]


def write_sheet(folder, pairs, swapped):
    """folder/sheet.csv, to vote in, and folder/key.json, which says who is who."""
    rows, key = [], []
    for i, ((x, y), swap) in enumerate(zip(pairs, swapped)):
        left, right = (y, x) if swap else (x, y)
        rows.append([i, x['prompt'], left['completion'], right['completion'], ''])
        key.append({'left': 'b', 'right': 'a'} if swap else {'left': 'a', 'right': 'b'})
    with open(f'{folder}/sheet.csv', 'w', encoding='utf-8', newline='') as f:
        csv.writer(f).writerows([['id', 'prompt', 'left', 'right', 'vote'], *rows])
    with open(f'{folder}/key.json', 'w', encoding='utf-8') as f:
        json.dump(key, f)


def read_votes(path, swapped):
    """{number of the pair: 'a', 'b' or 'tie'} from a copy of sheet.csv with someone's votes."""
    votes = {}
    try:
        with open(path, encoding='utf-8', newline='') as f:
            text = f.read().removeprefix('\ufeff')          # Excel's
        for row in csv.DictReader(io.StringIO(text, newline='')):
            i, vote = range(len(swapped)).index(int(row['id'])), row['vote'].strip().lower()
            if vote == 'tie':
                votes[i] = 'tie'
            elif vote in ('left', 'right'):
                votes[i] = 'b' if (vote == 'left') == swapped[i] else 'a'
    except (LookupError, TypeError, AttributeError, ValueError, csv.Error) as e:
        raise ValueError(f'{path} must be a copy of sheet.csv, with the columns id (0 to {len(swapped) - 1}) '
                         f'and vote (left, right or tie), not: {e!r}') from e
    return votes


def count_votes(pairs, swapped, paths):
    """The votes of the tests and of people, in copies of sheet.csv, and how far each two of them agree."""
    raters = {'tests': {}}
    for i, (x, y) in enumerate(pairs):
        raters['tests'][i] = 'tie'
        if (x['outcome'] == 'passed') != (y['outcome'] == 'passed'):
            raters['tests'][i] = 'a' if x['outcome'] == 'passed' else 'b'
    for path in paths:
        raters[path] = read_votes(path, swapped)
    return {'votes': {name: collections.Counter(votes.values()) for name, votes in raters.items()},
            'agreement': {f'{x}, {y}': agreement(raters[x], raters[y])
                          for x, y in itertools.combinations(raters, 2)}}


def agreement(x, y):
    """Two raters {number: vote}: how many pairs both voted on, how often they agree, and Cohen's kappa
    (1960): agreement beyond chance, None if chance alone agrees always."""
    both = [(x[i], y[i]) for i in x if i in y]
    n = max(1, len(both))
    agree = sum(u == v for u, v in both) / n
    chance = sum(u == v for u, _ in both for _, v in both) / n ** 2
    return {'n': len(both), 'agree': agree, 'kappa': (agree - chance) / (1 - chance) if chance < 1 else None}
