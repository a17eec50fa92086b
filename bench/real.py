"""
How good is SmolLM2 after more training on examples that people wrote, and on its own answers?

    python bench/real.py                        # prints the tables of earlier runs; runs nothing
    python bench/real.py --model=smollm2 --data=FOLDER --seed=30 --runs=sft,more,rejection,rl,fresh

    unaided     SmolLM2-135M-Instruct as published (docs/real.md says where to get it)
    sft         50 steps of SFT, each on 8 of 400 built-in examples
    more        from sft, 50 * times steps on the same 400, at a third of the rate
    rejection   as more, plus its answers to 240 * times problems that passed their tests
    rl          from sft, 6 * times steps of rl.py, each with 8 answers to 8 of these problems
    fresh       as more, on 400 * times new examples instead

Each run is scored by one greedy answer to each of 300 problems of README's three kinds, to HumanEval,
and to the last 127 problems of MBPP, on which no run trains. FOLDER has HumanEval.jsonl.gz and
mbpp_sanitized.jsonl. Learning rates were not tuned. A run with a row in real.jsonl is not repeated. The rows with
times = 1 are from a laptop, with 60 problems of each kind, by an older version of this file
(git show 07e38d58:bench/real.py).

The range after a rate is Student's 95% interval over seeds, for these problems. Differences are
paired by seed and problem, and the range after a difference also covers similar problems.
"""
import collections, itertools, json, pathlib
import numpy as np
import torch
from arms import ROOT, python
from configurator import configure, require
from extras.tasks import chain_report
from extras.tasks.problems import problems, to_messages

# --- settings -------------------------------------------------------------------------------------
model = 'smollm2'       # folder of the published model
data = '.'              # folder with HumanEval.jsonl.gz and mbpp_sanitized.jsonl
runs = ''               # comma-separated names from above
times = 4               # length of all runs but sft; with 1, a seed takes two hours of one core
seed = 0                # for problems, order and answers
configure(globals(), {'times': (1, 40)})

NAMES = {'unaided': 'no training', 'sft': 'SFT', 'rl': 'RL', 'more': 'more SFT',
         'rejection': 'rejection sampling', 'fresh': 'new examples'}
KINDS = 'practice tasks', 'example tasks', 'unseen combinations'
ALL_KINDS = *KINDS, 'HumanEval', 'MBPP'
# Student's t of a 95% interval, by degrees of freedom
T_95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 8: 2.31, 12: 2.18, 30: 2.04,
        1e9: 1.96}
runs = [*filter(None, runs.split(','))]
require({*runs} <= {*NAMES}, f'--runs={",".join(runs)}: the runs are {", ".join(NAMES)}')
ROWS = pathlib.Path(ROOT, 'bench/real.jsonl')
here = pathlib.Path(ROOT, f'out/real/{times}/{seed}')
data = pathlib.Path(data).resolve()     # the runs have another working folder
model = pathlib.Path(model).resolve()
torch.set_num_threads(1)                # as the runs have: a row says so


# --- files ----------------------------------------------------------------------------------------
def read(path):
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines), encoding='utf-8')


# --- data -----------------------------------------------------------------------------------------
def in_turn(n, *splits):
    """Return n problems of each split, one of each in turn."""
    return [p for some in zip(*(problems(n, seed, split) for split in splits)) for p in some]


def with_tests(problem):
    """Return a line for rl.py and for eval.py --tasks=own."""
    return {'prompt': to_messages(problem)[0]['content'],
            'tests': f'{problem["test"]}\ncheck({problem["entry_point"]})\n'}


def make_data():
    some = [{'messages': to_messages(p)} for p in problems(400 + 400 * times, seed)]
    exam = in_turn(10, 'validation', 'practice_validation')
    for name, lines in ('examples', some[:400]), ('new_examples', some[400:]):
        write(here / name / 'train.jsonl', lines)
        write(here / name / 'val.jsonl', [{'messages': to_messages(p)} for p in exam])
    prompts = in_turn(150 * times, 'example_train', 'practice_train')
    write(here / 'prompts.jsonl', [*map(with_tests, prompts)])
    test = [p for kind in KINDS for p in problems(300, 0, chain_report.KINDS[kind])]
    write(here / 'test.jsonl', [*map(with_tests, test)])
    write(here / 'mbpp.jsonl', read(data / 'mbpp_sanitized.jsonl')[300:])


# --- models: each is made when it is asked for ----------------------------------------------------
def answer(model, questions, out, *flags):
    """Return the rows of the model's answers, with their outcomes."""
    python('eval.py', f'--ckpt={model}', f'--data={questions}', f'--out={out}/eval.json',
           '--overwrite=True', '--allow_code_execution=True', '--batch_size=32',
           '--max_new_tokens=96', *flags)
    return read(out / 'samples.jsonl')


def passed_in(rows):
    """Return conversations for sft.py: the answers that passed their tests."""
    return [{'messages': [*row['messages'], {'role': 'assistant', 'content': row['completion']}]}
            for row in rows if row['outcome'] == 'passed']


def made(run):
    """Return the folder of a model."""
    out, learned = here / run, here / ('new_examples' if run == 'fresh' else 'examples')
    if run == 'unaided' or (out / 'done').exists():
        return model if run == 'unaided' else out
    start = model if run == 'sft' else made('sft')
    flags = [f'--init_from={start}', f'--out_dir={out}', f'--seed={seed}', '--overwrite=True',
             '--eval_interval=1000', '--batch_size=8']
    if run == 'rl':
        python('rl.py', *flags, f'--reward={here}/prompts.jsonl', '--allow_code_execution=True',
               '--num_samples=8', '--micro_batch_size=4', '--max_new_tokens=96',
               f'--max_steps={6 * times}', '--eval_prompts=16', '--learning_rate=1e-5')
    else:
        if run == 'rejection':
            rows = answer(start, here / 'prompts.jsonl', here / 'answers', '--tasks=own',
                          f'--n_problems={240 * times}', '--temperature=0.8', f'--seed={seed}')
            write(here / 'mined/train.jsonl', passed_in(rows) + read(learned / 'train.jsonl'))
            write(here / 'mined/val.jsonl', read(learned / 'val.jsonl'))
            learned = here / 'mined'
        steps, rate = (50, 1e-4) if run == 'sft' else (50 * times, 3e-5)
        python('sft.py', *flags, f'--data_dir={learned}', f'--max_steps={steps}',
               f'--learning_rate={rate}')
    (out / 'done').touch()
    return out


# --- what they can do -----------------------------------------------------------------------------
def measured(run):
    """Return a row: of each kind a 1 or 0 for each problem, after a leading 1, in base 16."""
    tests = f'{here}/test.jsonl,{data}/HumanEval.jsonl.gz,{here}/mbpp.jsonl'
    rows = answer(made(run), tests, here / run / 'answers', '--tasks=own,humaneval,mbpp')
    digits = ''.join('01'[row['outcome'] == 'passed'] for row in rows)
    ends = 0, 300, 600, 900, 1064, 1191
    return {'run': run, 'seed': seed, 'times': times,
            **{kind: f'{int("1" + digits[a:b], 2):x}'
               for kind, a, b in zip(ALL_KINDS, ends, ends[1:])},
            'machine': f'{chain_report.machine()}, commit {chain_report.commit()}'}


# --- intervals ------------------------------------------------------------------------------------
def mean_and_half(x):
    """Return the mean of x and half of its 95% interval (Student's t). x: (seeds,), for other seeds
    and these problems; or (seeds, problems), where all seeds answered the same problems, for other
    seeds and other problems. Then each number is the sum of its seed's part, its problem's part and
    a rest. Their variances are at least 0, and the degrees of freedom are Satterthwaite's, at least
    those of the seeds."""
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
    """Return '+5.5 (2.9 to 8.1)', the mean and its interval; of a single row '+5.5'. A row
    that has a NaN is left out."""
    x = [row for row in x if np.isfinite(row).all()]
    if len(x) < 2:
        return ''.join(f'{np.mean(row):+.1f}' for row in x)
    mean, half = mean_and_half(x)
    return f'{mean:+.1f} ({mean - half:.1f} to {mean + half:.1f})'


# --- tables ---------------------------------------------------------------------------------------
def verdicts(row, kind):
    """Return 100 for each problem that is solved, else 0; of the laptop, whose verdicts nobody
    kept, only the mean."""
    digits = f'{int(row[kind], 16):b}'[1:] if isinstance(row[kind], str) else ''
    return np.array([100.0 * int(digit) for digit in digits] or [row[kind]])


def tell(rows):
    """Print what each way solves, and the difference of each two of them."""
    of = {run: {row['seed']: row for row in rows if row['run'] == run} for run in NAMES}
    print('', *sorted({f'times = {row["times"]}, {row["machine"]}' for row in rows}), '', sep='\n')
    print('| percent |', ' | '.join(ALL_KINDS), '|\n' + '|---' * (1 + len(ALL_KINDS)) + '|')
    for run, name in NAMES.items():
        rates = [interval([verdicts(row, kind).mean() for row in of[run].values()])[1:]
                 for kind in ALL_KINDS]
        print(f'| {name} |', ' | '.join(rates), '|')
    for b, a in itertools.combinations(NAMES, 2):
        seeds = sorted({*of[a]} & {*of[b]})
        more = [interval([verdicts(of[a][i], kind) - verdicts(of[b][i], kind) for i in seeds])
                for kind in ALL_KINDS]
        if len(seeds) > 1:
            print(f'| {NAMES[a]} minus {NAMES[b]} |', ' | '.join(more), '|')


if runs and not (here / 'mbpp.jsonl').exists():
    make_data()
for run in runs:
    if not any((row['run'], row['seed'], row['times']) == (run, seed, times) for row in read(ROWS)):
        row = json.dumps(measured(run))
        with open(ROWS, 'a', encoding='utf-8') as f:
            f.write(row + '\n')
groups = collections.defaultdict(list)
for row in read(ROWS):          # means cannot be compared problem by problem: a table of their own
    groups[row['times'], isinstance(row['MBPP'], str)].append(row)
for rows in groups.values():
    tell(rows)
