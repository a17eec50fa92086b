"""
Results of models: the interval of a score, two models compared on the same problems, and tables.

    interval([1] * 8 + [0] * 2)             # [0.49, 0.94]: 95 % of the mean
    result = compare({'q 1': [row, row]}, {'q 1': [row]})       # rows as in samples.jsonl
    result['gained'], result['p']           # ['q 1'], 1.0: McNemar's exact test
    print_table('loss', {'trained': {'nats': 1.25}, 'untrained': {'nats': 5.5}})

The result of a set of answers, as print_results() takes it: n problems, samples, score or pass@1 with its
95 % interval, perhaps pass@k for larger k, parse_rate, step, caution; failures, by reason.
"""
import collections, math
import numpy as np

def by_problem(rows, path):
    """{'task task_id': its rows}, of those that were graded. ValueError if they are not of one checkpoint."""
    by_key = collections.defaultdict(list)
    for row in rows:
        if missing := {'task', 'task_id', 'prompt', 'completion', 'outcome'} - row.keys():
            raise ValueError(f'{path} has a line without {sorted(missing)}; take a samples.jsonl of eval.py')
        if row['outcome'] not in ('infrastructure', 'ungraded'):
            by_key[f'{row["task"]} {row["task_id"]}'].append(row)
    ckpts = {str(row.get('ckpt')) for row in rows}
    if len(ckpts) > 1:
        raise ValueError(f'{path} has answers of several checkpoints, {sorted(ckpts)}; '
                         'run eval.py for one of them, with an --out of its own')
    return by_key


def grade(row):
    """0 to 1: whether an answer passed, or where the judge's score is between 1 and 10."""
    return (row['score'] - 1) / 9 if 'score' in row else float(row['outcome'] == 'passed')


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


def in_both(a, b):
    """The problems of both. In files without ids, one id may stand for another question."""
    return [key for key in a if key in b and a[key][0]['prompt'] == b[key][0]['prompt']]


def compare(a, b):
    """{problem: rows} of both -> the means, the interval of their difference, the problems that b gained and
    lost, p (McNemar 1947, exact). ValueError if they share none."""
    shared = in_both(a, b)
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
    for key in in_both(a, b):
        if (split := a[key][0].get('split')) in kind_of:
            keys_of[kind_of[split]].append(key)
    results = {kind: compare({key: a[key] for key in keys}, b) for kind, keys in keys_of.items()}
    return {kind: [result['b'] - result['a'], *result['interval']] for kind, result in results.items()}


def describe(result):
    """A comparison as lines for the terminal. result: that of compare(), and of gains() as 'gain'."""
    low, high = result['interval']
    lines = ['', f'problems: {result["n"]}, {result["a"]:.3f} -> {result["b"]:.3f}, 95% interval of the '
                 f'difference {low:.3f} to {high:.3f}, p = {result["p"]:.3f}',
             f'gained: {", ".join(result["gained"]) or "none"}',
             f'lost: {", ".join(result["lost"]) or "none"}']
    for kind, (difference, low, high) in result['gain'].items():
        lines.append(f'gain in {kind}: {difference:.3f}, 95% interval {low:.3f} to {high:.3f}')
    return '\n'.join(lines)


# --- tables ---------------------------------------------------------------------------------------
def print_row(name, *cells, width=26):
    texts = [f'{cell:.4f}' if isinstance(cell, float) else str(cell) for cell in cells]
    print(f'{name:<{width}}' + ''.join(f' {text:>11}' for text in texts))


def print_table(title, rows):
    """rows: {name: {head of the column: cell}}, all with the same columns."""
    columns = next(iter(rows.values()))
    width = max(map(len, [*rows, ' ' * 26]))
    print()
    print_row(title, *columns, width=width)
    for name, row in rows.items():
        print_row(name, *row.values(), width=width)


def print_results(title, result, labels):
    """A table of a result, and above it of each split of the problems. labels: {split: what kind it is}."""
    by_split = result.get('by_split', {})
    rows = {f'{labels.get(name, "split")}: {name}': shown(group) for name, group in by_split.items()}
    print_table(title, rows | {'all': shown(result)})
    if 'caution' in result:
        print('caution:', result['caution'])


def shown(result):
    """What is shown of a result: {head of the column: cell}."""
    first, *others = [key for key in result if key == 'score' or key.startswith('pass@')]
    low, high = result['interval']
    cells = {'step': result['step']} if 'step' in result else {}
    cells |= {'n': result['n'], 'samples': result['samples'], first: result[first]}
    cells |= {'95 % from': low, 'to': high} | {key: result[key] for key in others}
    if 'parse_rate' in result:
        cells['parses'] = result['parse_rate']
    why = ', '.join(f'{name} {n}' for name, n in result['failures'].items())
    return cells | {'failed by': why or 'none'}
