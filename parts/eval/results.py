"""
Results: two models compared on the same problems, and tables.

    a, b = read('out/sft/samples.jsonl'), read('out/dpo/samples.jsonl')     # {problem: its rows}
    result = compare(a, b, interval)            # interval: the function of eval.py
    result['gained'], result['p']               # ['problems cell-0/3'], 1.0: McNemar's exact test
    print_table('loss', {'trained': {'nats': 1.25}, 'untrained': {'nats': 5.5}})
"""
import collections, math, os
from parts import Mistake
from parts.train import records

FIELDS = 'task', 'task_id', 'prompt', 'completion', 'outcome'
OF_A_RUN = 'config.json', 'data.json', 'tokenizer.json'


# --- files ----------------------------------------------------------------------------------------
def path_of(path):
    """Return the samples.jsonl in a folder, or path itself."""
    return path if path.endswith('.jsonl') else os.path.join(path, 'samples.jsonl')


def claim(out, read):
    """Make the folder of an eval.json, try to write there, and return it. Refuse if the file, or
    the samples.jsonl next to it, would replace something else. read: paths of what eval.py reads,
    or None."""
    folder = os.path.dirname(os.path.abspath(out))
    if not out.endswith('.json') or os.path.basename(out) in OF_A_RUN:
        raise Mistake(f'{out=} must end with .json and must not be a file of a run; try '
                      '--out=eval.json')
    written = out, path_of(folder)
    if {*map(os.path.realpath, written)} & {*map(os.path.realpath, filter(None, read))}:
        raise Mistake(f'{out=} would replace a file that is read; choose another --out')
    os.makedirs(folder, exist_ok=True)
    open(f'{out}.tmp', 'w', encoding='utf-8').close()
    return folder


# --- two models, problem by problem ---------------------------------------------------------------
def answers_in(path, keys, hint):
    """Return the rows of a file of answers, each with these keys. hint: what to do if one has not.
    ValueError if they are not of one checkpoint."""
    rows = records.read_jsonl(path, lambda row: row | {key: row[key] for key in keys}, hint)
    ckpts = {str(row.get('ckpt')) for row in rows}
    if len(ckpts) > 1:
        raise Mistake(f'{path} has answers of several checkpoints, {sorted(ckpts)}; run eval.py '
                         'for one of them, with an --out of its own')
    return rows


def read(path):
    """Return {'task task_id': its rows} of a samples.jsonl, or of the one in a folder: the answers
    that were graded."""
    by_problem = collections.defaultdict(list)
    for row in answers_in(path_of(path), FIELDS, 'take a samples.jsonl that eval.py wrote'):
        if row['outcome'] not in ('infrastructure', 'ungraded'):
            by_problem[f'{row["task"]} {row["task_id"]}'].append(row)
    return by_problem


def worth(row):
    """Return what an answer is worth, 0 to 1: whether it passed, or a judge's grade from 1 to 10
    as a share of that scale."""
    return (row['score'] - 1) / 9 if 'score' in row else int(row['outcome'] == 'passed')


def in_both(a, b):
    """Return the problems of both. In files without ids, one id may stand for another question."""
    return [key for key in a if key in b and a[key][0]['prompt'] == b[key][0]['prompt']]


def compare(a, b, interval):
    """Return what a second model gained and lost, of the rows of both: the means, the interval of
    their difference, the problems, and p (McNemar 1947, exact). ValueError if they share none."""
    shared = in_both(a, b)
    if not shared:
        raise Mistake('the two samples.jsonl have no problem in common; give both models the '
                         'same --tasks')
    before, after = [[sum(map(worth, rows[key])) / len(rows[key]) for key in shared]
                     for rows in (a, b)]
    gained = [key for key, x, y in zip(shared, before, after) if x < y]
    lost = [key for key, x, y in zip(shared, before, after) if x > y]

    n = len(gained) + len(lost)
    fewer = min(len(gained), len(lost))
    p = min(1.0, 2 * sum(math.comb(n, i) for i in range(fewer + 1)) / 2 ** n)
    low, high = [2 * end - 1 for end in interval([(1 + y - x) / 2 for x, y in zip(before, after)])]
    if not n:       # no problem differs: how many could, all to one side?
        high = interval([0] * len(shared))[1]
        low = -high
    return {'n': len(shared), 'a': sum(before) / len(before), 'b': sum(after) / len(after),
            'gained': gained, 'lost': lost, 'p': p, 'interval': [low, high]}


def gains(a, b, interval, kind_of):
    """Return {kind: [difference of the means, low, high]} of the problems of each kind that both
    have. kind_of: {split: its kind}."""
    found = {}
    for kind in dict.fromkeys(kind_of.values()):
        some = {key: rows for key, rows in a.items() if kind_of.get(rows[0].get('split')) == kind}
        if in_both(some, b):
            result = compare(some, b, interval)
            found[kind] = [result['b'] - result['a'], *result['interval']]
    return found


def describe(result):
    """Return a comparison as lines for the terminal. result: that of compare(), and of gains() as
    'gain'."""
    low, high = result['interval']
    p = f'p = {result["p"]:.3f}' if result['p'] >= 0.001 else 'p < 0.001'
    lines = ['', f'problems: {result["n"]}, {result["a"]:.3f} -> {result["b"]:.3f}, 95% interval '
                 f'of the difference {low:.3f} to {high:.3f}, {p}',
             f'gained: {", ".join(result["gained"]) or "none"}',
             f'lost: {", ".join(result["lost"]) or "none"}']
    for kind, (difference, low, high) in result['gain'].items():
        lines.append(f'gain in {kind}: {difference:.3f}, 95% interval {low:.3f} to {high:.3f}')
    return '\n'.join(lines)


# --- tables ---------------------------------------------------------------------------------------
def print_table(title, rows):
    """Print rows {name: {head of the column: cell}}, all with the same columns."""
    columns = next(iter(rows.values()))
    width = max(26, *map(len, rows))
    print()
    for name, cells in [(title, columns), *((name, row.values()) for name, row in rows.items())]:
        texts = [f'{cell:.4f}' if isinstance(cell, float) else str(cell) for cell in cells]
        print(f'{name:<{width}}' + ''.join(f' {text:>11}' for text in texts))


def print_scores(task, series, kind_of):
    """Print the results of a task, one for each checkpoint, and of the splits in them. kind_of:
    {split: its kind}."""
    rows = {}
    for result in series:
        where = f'{result["ckpt"]}, step {result["step"]}, ' if len(series) > 1 else ''
        for split, of_split in result.get('by_split', {}).items():
            rows[f'{where}{kind_of.get(split, "split")}: {split}'] = shown(of_split)
        rows[f'{where}all'] = shown(result)
    print_table(task, rows)


def shown(result):
    """Return what a table shows of a result: {head of the column: cell}."""
    first, *others = [key for key in result if key == 'score' or key.startswith('pass@')]
    low, high = result['interval']
    cells = {'n': result['n'], 'samples': result['samples'], first: result[first],
             '95% from': low, 'to': high} | {key: result[key] for key in others}
    if 'parse_rate' in result:
        cells['parses'] = result['parse_rate']
    why = ', '.join(f'{name} {n}' for name, n in result['failures'].items())
    return cells | {'failed by': why or 'none'}
