"""
Results: two models compared on the same problems, and tables.

    a, b = read('out/sft/samples.jsonl'), read('out/dpo/samples.jsonl')     # {problem: its rows}
    result = compare(a, b, interval)            # interval: the function of eval.py
    result['gained'], result['gain']            # ['problems cell-0/3'], {kind: [0.05, -0.01, 0.11]}
    print_table('loss', {'trained': {'nats': 1.25}, 'untrained': {'nats': 5.5}})
"""
import collections, os
import numpy as np
from parts import Mistake
from extras import problems
from parts.prepare import reading

FIELDS = 'task', 'task_id', 'prompt', 'completion', 'outcome'
OF_A_RUN = 'config.json', 'data.json', 'tokenizer.json'


# --- files ----------------------------------------------------------------------------------------
def path_of(path):
    """Return the samples.jsonl in a folder, or path itself."""
    return path if path.endswith('.jsonl') else os.path.join(path, 'samples.jsonl')


def check_out(out, read):
    """Refuse an eval.json that, or the samples.jsonl next to it, would replace something else.
    read: paths of what eval.py reads, or None."""
    if not out.endswith('.json') or os.path.basename(out) in OF_A_RUN:
        raise Mistake(f'{out=} must end with .json and must not be a file of a run; try '
                      '--out=eval.json')
    written = out, path_of(os.path.dirname(out))
    if {*map(os.path.realpath, written)} & {*map(os.path.realpath, filter(None, read))}:
        raise Mistake(f'{out=} would replace a file that is read; choose another --out')


# --- two models, problem by problem ---------------------------------------------------------------
def answers_in(path, keys, hint):
    """Return the rows of a file of answers, each with these keys. hint: what to do if one has not.
    ValueError if they are not of one checkpoint."""
    def checked(row):
        row |= {key: row[key] for key in keys}
        hash(row['task_id'])            # TypeError if no dict can hold it
        if not isinstance(row['completion'], str):
            raise Mistake('"completion" must be a text')
        return row

    rows = reading.read_jsonl(path, checked, hint)
    ckpts = {str(row.get('ckpt')) for row in rows}
    if len(ckpts) > 1:
        raise Mistake(f'{path} has answers of several checkpoints, {sorted(ckpts)}; run eval.py '
                      'for one of them, with an --out of its own')
    return rows


def are_replies(path):
    """Does a file have replies to messages, as eval.py writes those of a model that can chat?"""
    return any(reading.read_jsonl(path, lambda row: row.get('messages'), 'each line is an answer'))


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
    as a fraction of that scale."""
    return (row['score'] - 1) / 9 if 'score' in row else int(row['outcome'] == 'passed')


def bootstrap(scores, interval):
    """Return the 95% interval of the mean of scores from 0 to 1: of n scores, n are drawn, putting
    each back, 2,000 times, and 95% of the means lie in the interval. interval: the function of
    eval.py, for scores that are all alike or all 0 or 1."""
    if set(scores) <= {0, 1} or len(set(scores)) == 1:
        return interval(scores)
    n = len(scores)
    drawn = np.random.default_rng(0).integers(n, size=(2000, n))
    return np.percentile(np.array(scores)[drawn].mean(1), [2.5, 97.5]).tolist()


def difference(before, after, interval):
    """Return [difference, low, high]: how much higher the mean of `after` is, and its interval.
    before, after: what the answers to each problem are worth, 0 to 1."""
    mean = sum(after) / len(after) - sum(before) / len(before)
    # bootstrap() takes numbers from 0 to 1, so a difference of -1 goes in as 0, and 1 as 1.
    changes = [(1 + y - x) / 2 for x, y in zip(before, after)]
    low, high = [2 * end - 1 for end in bootstrap(changes, interval)]
    if before == after:         # no problem differs: how many could, all to one side?
        high = interval([0] * len(before))[1]
        low = -high
    return [mean, low, high]


def compare(a, b, interval):
    """Return what a second model gained and lost, of the rows of both. ValueError if they have no
    problem in common. 'gain': {kind of problem: its difference}."""
    # In files without ids, one id may stand for another question.
    shared = [key for key in a if key in b and a[key][0]['prompt'] == b[key][0]['prompt']]
    if not shared:
        raise Mistake('the two samples.jsonl have no problem in common; give both models the same '
                      '--tasks')
    before, after = [{key: sum(map(worth, rows[key])) / len(rows[key]) for key in shared}
                     for rows in (a, b)]
    of_kind = collections.defaultdict(list)
    for key in shared:
        of_kind[problems.KINDS.get(a[key][0].get('split'))].append(key)

    def gain(keys):
        return difference([before[key] for key in keys], [after[key] for key in keys], interval)

    return {'n': len(shared), 'a': sum(before.values()) / len(shared),
            'b': sum(after.values()) / len(shared), 'interval': gain(shared)[1:],
            'gained': [key for key in shared if before[key] < after[key]],
            'lost': [key for key in shared if before[key] > after[key]],
            'gain': {kind: gain(keys) for kind, keys in of_kind.items() if kind}}


def print_comparison(result):
    """Print what compare() returned."""
    low, high = result['interval']
    print(f'\nproblems: {result["n"]}, {result["a"]:.3f} -> {result["b"]:.3f}, 95% interval of the '
          f'difference {low:.3f} to {high:.3f}')
    for name in 'gained', 'lost':
        print(f'{name}: {", ".join(result[name]) or "none"}')
    for kind, (mean, low, high) in result['gain'].items():
        print(f'gain in {kind}: {mean:.3f}, 95% interval {low:.3f} to {high:.3f}')


# --- tables ---------------------------------------------------------------------------------------
def print_table(title, rows):
    """Print rows {name: {head of the column: cell}}, all with the same columns."""
    columns = next(iter(rows.values()))
    width = max(26, *map(len, rows))
    print()
    for name, cells in [(title, columns), *((name, row.values()) for name, row in rows.items())]:
        texts = [f'{cell:.4f}' if isinstance(cell, float) else str(cell) for cell in cells]
        print(f'{name:<{width}}' + ''.join(f' {text:>11}' for text in texts))


def print_scores(task, series):
    """Print the results of a task, one for each checkpoint, and of the splits in them."""
    rows = {}
    for result in series:
        where = f'{result["ckpt"]}, step {result["step"]}, ' if len(series) > 1 else ''
        for split, of_split in result.get('by_split', {}).items():
            rows[f'{where}{problems.KINDS[split]}: {split}'] = shown(of_split)
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
