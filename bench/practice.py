"""
Does practice beat more examples? The tables of docs/practice.md, from the rows of all runs.

    python bench/practice.py

practice.jsonl has five bases of our own: each has a seed of its own for the tokenizer, the base
model, SFT, and all that follows. real.jsonl has six seeds of SmolLM2, with every verdict, and with
times = 1 three from a laptop, with 60 problems of each kind. A row names its machine and commit.
The programs that ran are practice.py and real.py of commit 5159f5c5. After `git switch --detach
5159f5c5`, bench/practice.py also adds a base of your own, which takes hours of a core.

A range is Student's 95% interval over bases, or seeds. A range behind a difference of SmolLM2's
rates, which is taken seed by seed and problem by problem, is also for other problems like them.
"""
import collections, itertools, json, pathlib
import numpy as np

KINDS = 'practice tasks', 'example tasks', 'unseen combinations'
# Student's t of a 95% interval, by degrees of freedom
T_95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 8: 2.31, 12: 2.18, 30: 2.04,
        1e9: 1.96}
WAYS = {'unaided': 'no training', 'sft': 'SFT', 'rl': 'RL', 'more': 'more SFT',
        'rejection': 'rejection sampling', 'fresh': 'new examples'}


def read(name):
    text = pathlib.Path(__file__).with_name(name).read_text(encoding='utf-8')
    return [json.loads(line) for line in text.splitlines()]


def print_row(*cells):
    print('|', ' | '.join(map(str, cells)), '|')


# --- intervals ------------------------------------------------------------------------------------
def mean_and_half(x):
    """Return the mean of x and half of its 95% interval (Student's t). x: (bases,), for other bases
    and these problems; or (seeds, problems), for other seeds and other problems, where all seeds
    answered the same ones. Then a number is its seed's part, its problem's part and a rest, whose
    variances are at least 0, and the degrees of freedom are Satterthwaite's, at least those of the
    seeds."""
    n, m = np.shape(x)[0], np.size(x[0])
    x = np.reshape(x, (n, m))
    freedom = np.array([n - 1, max(1, m - 1), (n - 1) * max(1, m - 1)])
    mean, of_seeds, of_problems = x.mean(), x.mean(1, keepdims=True), x.mean(0)
    rest = x - of_seeds - of_problems + mean
    squares = np.array([m * ((of_seeds - mean) ** 2).sum(), n * ((of_problems - mean) ** 2).sum(),
                        (rest ** 2).sum()])
    seed, problem, alone = parts = squares / freedom / x.size
    variance = max(seed, alone) + max(problem, alone) - alone
    free = max(n - 1, variance ** 2 / ((parts ** 2 / freedom).sum() or 1))
    # between two rows of T_95, t is nearly linear in 1 / freedom
    t = np.interp(1 / free, sorted(1 / n for n in T_95), sorted(T_95.values()))
    return mean, t * variance ** 0.5


def interval(x):
    """Return '+5.5 (2.9 to 8.1)', the mean and its interval; of one base '+5.5'. NaN: not run."""
    x = [row for row in x if np.isfinite(row).all()]
    if len(x) < 2:
        return ''.join(f'{np.mean(row):+.1f}' for row in x)
    mean, half = mean_and_half(x)
    return f'{mean:+.1f} ({mean - half:.1f} to {mean + half:.1f})'


# --- our own models -------------------------------------------------------------------------------
def tell_ours(rows):
    """Print a table for each pattern and number of examples: what SFT solves, and the gains over
    it, base by base."""
    rows = {(row['pattern'], row['examples'], row['run'], row['seed']): row for row in rows}
    names = *KINDS, 'pass@1', 'pass@8'
    heads = 'run', 'bases', 'seconds', *names, 'practice tasks, minus more'
    seeds = sorted({key[-1] for key in rows})
    for here in sorted({key[:2] for key in rows}):
        print('\n{}, {:,} examples: SFT, and gains over it\n'.format(*here))
        print_row(*heads)
        print('|---' * len(heads) + '|')
        of = lambda run, name: np.array(
            [rows.get((*here, run, seed), {}).get(name, np.nan) for seed in seeds])
        others = [key[2] for key in rows if key[:2] == here]
        for run in dict.fromkeys(['sft', 'more', 'rl', 'rejection', *others]):
            gains = [of(run, name) - (run != 'sft') * of('sft', name) for name in names]
            cells = [of(run, 'seconds'), *gains, of(run, KINDS[0]) - of('more', KINDS[0])]
            print_row(run, np.isfinite(cells[0]).sum(), *map(interval, cells))


# --- SmolLM2 --------------------------------------------------------------------------------------
def verdicts(row, kind):
    """Return 100 for each problem that is solved, else 0; of the laptop, whose verdicts nobody
    kept, only the mean. A row has them as 1 or 0 behind a first 1, in base 16."""
    digits = f'{int(row[kind], 16):b}'[1:] if isinstance(row[kind], str) else ''
    return np.array([100.0 * int(digit) for digit in digits] or [row[kind]])


def tell_smollm2(rows):
    """Print what each way solves, and the difference of each two of them."""
    kinds = *KINDS, 'HumanEval', 'MBPP'
    of = {way: {row['seed']: row for row in rows if row['run'] == way} for way in WAYS}
    print('', *sorted({f'times = {row["times"]}, {row["machine"]}' for row in rows}), '', sep='\n')
    print_row('percent', *kinds)
    print('|---' * (1 + len(kinds)) + '|')
    for way, name in WAYS.items():
        print_row(name, *(interval([verdicts(row, kind).mean() for row in of[way].values()])[1:]
                          for kind in kinds))
    for b, a in itertools.combinations(WAYS, 2):
        seeds = sorted({*of[a]} & {*of[b]})
        if len(seeds) > 1:
            print_row(f'{WAYS[a]} minus {WAYS[b]}', *(
                interval([verdicts(of[a][i], kind) - verdicts(of[b][i], kind) for i in seeds])
                for kind in kinds))


if __name__ == '__main__':
    tell_ours(read('practice.jsonl'))
    groups = collections.defaultdict(list)
    for row in read('real.jsonl'):
        groups[row['times']].append(row)
    for rows in groups.values():
        tell_smollm2(rows)
