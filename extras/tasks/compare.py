"""
Compare two models on the same problems: the gain of the second model, with a 95% interval.

    python -m extras.tasks.compare out/sft out/dpo                    # after eval.py on both
    python -m extras.tasks.compare a/samples.jsonl b/samples.jsonl --out=compare.json

The command reads two samples.jsonl with answers that eval.py has scored. It prints both means, the
gain over all problems and over each kind, and the problems that the second model gained and lost.
Problems that only one of the models answered are skipped. The score of a problem is the fraction of
its answers that passed.
"""
import argparse, json, pathlib, sys
import numpy as np
from configurator import report_error, require, require_writable
from extras.tasks import grading
from extras.tasks.grading import mean


def bootstrap(scores):
    """Return the 95% bootstrap interval of the mean of n scores from 0 to 1: n scores are sampled
    with replacement, 2,000 times, and the interval contains 95% of the means. If all scores are
    equal, this interval would have no width, so its width is that of Wilson's interval, w / (n + w)
    with w = 1.96^2, which interval() in eval.py explains."""
    n, w = len(scores), 1.96 ** 2
    if len({*scores}) == 1:
        return [scores[0] * n / (n + w), (scores[0] * n + w) / (n + w)]
    samples = np.random.default_rng(0).integers(n, size=(2000, n))
    return np.percentile(np.array(scores)[samples].mean(1), [2.5, 97.5]).tolist()


def paired_difference(before, after):
    """Return [difference, low, high]: mean(after) - mean(before) and its 95% interval. Two models
    answered the same problems, and a problem that is hard for one is often hard for the other. The
    scores vary widely, so each mean has a wide interval, but the paired differences vary little:

        before      0.9     0.5     0.1
        after       1.0     0.7     0.2
        gained      0.1     0.2     0.1"""
    # bootstrap() needs scores from 0 to 1, so scale the differences, which are from -1 to 1.
    changes = [(1 + b - a) / 2 for a, b in zip(before, after)]
    return [mean(after) - mean(before), *[2 * end - 1 for end in bootstrap(changes)]]


def read(path):
    """Return {problem: its rows} of a samples.jsonl or of the samples.jsonl in a folder, without
    answers that have no verdict."""
    path = path if path.endswith('.jsonl') else f'{path}/samples.jsonl'
    return grading.by_problem(grading.read_answers(path, 'outcome'))


def compare(before, after):
    """Return the comparison of two models. before, after: their {problem: rows}, from read()."""
    shared = [problem for problem in before if problem in after]
    require(shared, 'the two samples.jsonl have no problem in common: give both the same --tasks')
    a, b = [[mean([row['outcome'] == 'passed' for row in rows[problem]]) for problem in shared]
            for rows in (before, after)]
    # such as 'practice tasks'; rows of questions from a file have no kind
    kinds = [before[problem][0].get('kind') for problem in shared]
    gain = {'all': paired_difference(a, b)}
    for kind in dict.fromkeys(filter(None, kinds)):
        indices = [i for i, own in enumerate(kinds) if own == kind]
        gain[kind] = paired_difference([a[i] for i in indices], [b[i] for i in indices])
    return {'n': len(shared), 'a': mean(a), 'b': mean(b), 'interval': gain['all'][1:],
            'gained': [name for (name, _), x, y in zip(shared, a, b) if x < y],
            'lost': [name for (name, _), x, y in zip(shared, a, b) if x > y], 'gain': gain}


if __name__ == '__main__':
    sys.excepthook = report_error
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('samples', nargs=2, help='a samples.jsonl or its folder')
    parser.add_argument('--out', help='JSON file for the result')
    args = parser.parse_args()
    out = args.out and pathlib.Path(args.out).expanduser()
    if out:
        require_writable(out)
    result = compare(*map(read, args.samples))
    for name, value in zip(args.samples, (result['a'], result['b'])):
        print(f'{name}: {value:.4f} on {result["n"]} shared problems')
    for kind, (gain, low, high) in result['gain'].items():
        print(f'gain, {kind}: {gain:+.4f} ({low:+.4f} to {high:+.4f})')
    for name in 'gained', 'lost':
        print(f'{name}: {", ".join(result[name]) or "none"}')
    if out:
        out.write_text(json.dumps(result, indent=1), encoding='utf-8')
