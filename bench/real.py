"""
What is SmolLM2 worth after more examples that somebody wrote, and after answers that nobody wrote?

    python bench/real.py                        # the tables of what ran already; runs nothing
    python bench/real.py --model=smollm2 --data=FOLDER --seed=30 --runs=sft,more,rejection,rl,fresh

    unaided     SmolLM2-135M-Instruct as published (docs/real.md says where to get it)
    sft         50 steps of SFT, each on 8 of 400 built-in examples
    more        from sft, 50 * times steps on the same 400, at a third of the rate
    rejection   as more, with those of its answers to 240 * times problems that passed the tests
    rl          from sft, 6 * times steps of rl.py, each with 8 answers to 8 of these problems
    fresh       as more, on 400 * times new examples instead

One greedy answer to each of 300 problems of README's three kinds, to HumanEval, and to the last 127
of MBPP, which are in no training. FOLDER has HumanEval.jsonl.gz and mbpp_sanitized.jsonl. Learning
rates were not searched for. What has a row in real.jsonl is not run again. Its rows with times = 1
are from a laptop, with 60 problems of each kind, by an older form of this file
(git show 07e38d58:bench/real.py).

A range behind a rate is Student's 95% interval over seeds, for these problems. A range behind a
difference, which is taken seed by seed and problem by problem, is also for other problems like them.
"""
import collections, itertools, json, pathlib
import numpy as np
import torch
from arms import ROOT
from configurator import configure, require
from extras.tasks import chain_report
from extras.tasks.problems import problems, to_messages
from practice import (KINDS, answer, asked, interval, of_both, passed_in, python, read, write)

# --- settings -------------------------------------------------------------------------------------
model = 'smollm2'       # folder of the published model
data = '.'              # folder with HumanEval.jsonl.gz and mbpp_sanitized.jsonl
runs = ''               # names from above, with commas between them
times = 4               # how long all but sft are; with 1, a seed takes two hours of one core
seed = 0                # of problems, order and answers
configure(globals(), {'times': (1, 40)})

NAMES = {'unaided': 'no training', 'sft': 'SFT', 'rl': 'RL', 'more': 'more SFT',
         'rejection': 'rejection sampling', 'fresh': 'new examples'}
ALL_KINDS = *KINDS, 'HumanEval', 'MBPP'
runs = [*filter(None, runs.split(','))]
require({*runs} <= {*NAMES}, f'--runs={",".join(runs)}: the runs are {", ".join(NAMES)}')
ROWS = pathlib.Path(ROOT, 'bench/real.jsonl')
here = pathlib.Path(ROOT, f'out/real/{times}/{seed}')
data = pathlib.Path(data).resolve()     # the runs have another working folder
model = pathlib.Path(model).resolve()
torch.set_num_threads(1)                # as the runs have: a row says so


# --- data -----------------------------------------------------------------------------------------
def make_data():
    some = [{'messages': to_messages(p)} for p in problems(400 + 400 * times, seed)]
    exam = of_both(10, seed, 'validation', 'practice_validation')
    for name, lines in ('examples', some[:400]), ('fresh', some[400:]):
        write(here / name / 'train.jsonl', lines)
        write(here / name / 'val.jsonl', [{'messages': to_messages(p)} for p in exam])
    practiced = of_both(150 * times, seed, 'example_train', 'practice_train')
    write(here / 'prompts.jsonl', [*map(asked, practiced)])
    write(here / 'test.jsonl', [
        asked(p) for split, _ in KINDS.values() for p in problems(300, 0, split)])
    write(here / 'mbpp.jsonl', read(data / 'mbpp_sanitized.jsonl')[300:])


# --- models: each is made when it is asked for ----------------------------------------------------
def made(run):
    """Return the folder of a model."""
    out, learned = here / run, here / ('fresh' if run == 'fresh' else 'examples')
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
            _, rows = answer(start, here / 'prompts.jsonl', here / 'answers', '--batch_size=32',
                             '--max_new_tokens=96', f'--n_problems={240 * times}',
                             '--temperature=0.8', f'--seed={seed}')
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
    """Return a row: of each kind a 1 or 0 for each problem, behind a first 1, in base 16."""
    tests = f'{here}/test.jsonl,{data}/HumanEval.jsonl.gz,{here}/mbpp.jsonl'
    _, rows = answer(made(run), tests, here / run / 'answers', '--tasks=own,humaneval,mbpp',
                     '--batch_size=32', '--max_new_tokens=96')
    digits = ''.join('01'[row['outcome'] == 'passed'] for row in rows)
    ends = 0, 300, 600, 900, 1064, 1191
    return {'run': run, 'seed': seed, 'times': times,
            **{kind: f'{int("1" + digits[a:b], 2):x}'
               for kind, a, b in zip(ALL_KINDS, ends, ends[1:])},
            'machine': f'{chain_report.machine()}, commit {chain_report.commit()}'}


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
for row in read(ROWS):
    groups[row['times']].append(row)
for rows in groups.values():
    tell(rows)
