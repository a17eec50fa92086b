"""
Is the second of two models better? On the same problems, with a 95% interval.

    python -m extras.tasks.compare out/sft out/dpo                    # after eval.py on both
    python -m extras.tasks.compare a/samples.jsonl b/samples.jsonl --out=compare.json

It reads two samples.jsonl, whose answers eval.py has scored, and prints the mean of each, the gain
on all problems and on each kind of them, and the problems that the second model gained and lost. A
problem that only one of the models answered is left out. A score is the fraction of the answers
that passed, or a judge's grades, 1 to 10, as fractions of that scale.
"""
import argparse, json, pathlib, sys
import numpy as np
from configurator import report_error, require, require_writable
from extras.tasks import grading


def mean(numbers):
    return sum(numbers) / max(1, len(numbers))


def bootstrap(scores):
    """Return the 95% interval of the mean of scores from 0 to 1: of n scores, n are drawn, putting
    each back, 2,000 times, and 95% of the means lie in the interval. Scores that are all alike
    would get an interval without a width. But of n others, up to the fraction w / (n + w) may be 0,
    or 1: that is the end of Wilson's interval, which interval() in eval.py explains."""
    n, w = len(scores), 1.96 ** 2
    if len({*scores}) == 1:
        return [scores[0] * n / (n + w), (scores[0] * n + w) / (n + w)]
    drawn = np.random.default_rng(0).integers(n, size=(2000, n))
    return np.percentile(np.array(scores)[drawn].mean(1), [2.5, 97.5]).tolist()


def paired_difference(before, after):
    """Return [difference, low, high]: how much higher the mean of `after` is, and its 95% interval.
    Two models answered the same problems, and what is hard for one is hard for the other. The
    scores of each lie far apart, so both have wide intervals; the differences lie close together:

        before      0.9     0.5     0.1
        after       1.0     0.7     0.2
        gained      0.1     0.2     0.1"""
    # bootstrap() takes numbers from 0 to 1, so a difference of -1 goes in as 0, and 1 as 1.
    changes = [(1 + b - a) / 2 for a, b in zip(before, after)]
    return [mean(after) - mean(before), *[2 * end - 1 for end in bootstrap(changes)]]


def worth(row):
    """Return what an answer is worth, 0 to 1."""
    return (row['score'] - 1) / 9 if 'score' in row else int(row['outcome'] == 'passed')


def read(path):
    """Return {problem: its rows} of a samples.jsonl, or of the one in a folder, without answers
    that have no verdict."""
    path = path if path.endswith('.jsonl') else f'{path}/samples.jsonl'
    return grading.by_problem(grading.read_answers(path, 'outcome'))


def compare(before, after):
    """Return what the second model gained and lost. before, after: what read() returns."""
    shared = [problem for problem in before if problem in after]
    require(shared, 'the two samples.jsonl have no problem in common: give both the same --tasks')
    a, b = [[mean([*map(worth, rows[problem])]) for problem in shared] for rows in (before, after)]
    # such as practice tasks; rows of questions from a file have no kind
    kinds = [before[problem][0].get('kind') for problem in shared]
    gain = {'all': paired_difference(a, b)}
    for kind in dict.fromkeys(filter(None, kinds)):
        some = [i for i, own in enumerate(kinds) if own == kind]
        gain[kind] = paired_difference([a[i] for i in some], [b[i] for i in some])
    return {'n': len(shared), 'a': mean(a), 'b': mean(b), 'interval': gain['all'][1:],
            'gained': [name for (name, _), x, y in zip(shared, a, b) if x < y],
            'lost': [name for (name, _), x, y in zip(shared, a, b) if x > y], 'gain': gain}


if __name__ == '__main__':
    sys.excepthook = report_error
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('samples', nargs=2, help='a samples.jsonl, or its folder')
    parser.add_argument('--out', help='file for the result, JSON')
    typed = parser.parse_args()
    out = typed.out and pathlib.Path(typed.out).expanduser()
    if out:
        require_writable(out)
    result = compare(*map(read, typed.samples))
    for name, score in zip(typed.samples, (result['a'], result['b'])):
        print(f'{name}: {score:.4f} on the {result["n"]} problems of both')
    for kind, (gain, low, high) in result['gain'].items():
        print(f'gain, {kind}: {gain:+.4f} ({low:+.4f} to {high:+.4f})')
    for name in 'gained', 'lost':
        print(f'{name}: {", ".join(result[name]) or "none"}')
    if out:
        out.write_text(json.dumps(result, indent=1), encoding='utf-8')
