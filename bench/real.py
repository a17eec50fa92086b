"""
What does practice add to a model that others have published? From SmolLM2-135M-Instruct, on a
laptop.

    python bench/real.py                        # the table of what ran already; runs nothing
    python bench/real.py --model=smollm2 --data=FOLDER --runs=unaided,sft,more,rejection,rl

    unaided         the published model (docs/real.md says where to get it)
    sft             STEPS steps of SFT on the built-in examples, 8 of them in each
    more            as many steps again on the same 400, at a third of the rate
    rejection       SFT on those of its answers to PROMPTS new problems that passed the tests, and
                    on 200 examples
    rl              RL_STEPS steps of rl.py on such problems
    mbpp_rejection  from the published model: its answers to the first 300 problems of MBPP
    mbpp_rl         from there, too

more, rejection and rl go on from sft, for about as many seconds of one core as it took. One greedy
answer to each of 60 problems in README's three kinds, to HumanEval, and to the last 127 of MBPP,
which are in no training. FOLDER has HumanEval.jsonl.gz and mbpp_sanitized.jsonl. Learning rates
were not searched for. A run takes half an hour of one core.
"""
import json, pathlib
import torch
from arms import ROOT
from configurator import configure, require
from extras.tasks import chain_report
from extras.tasks.problems import problems, to_messages
from practice import KINDS, answer, asked, of_both, passed_in, python, read, write

# --- settings -------------------------------------------------------------------------------------
model = 'smollm2'       # folder of the published model
data = '.'              # folder with HumanEval.jsonl.gz and mbpp_sanitized.jsonl
runs = ''               # names from above; what has a row in real.jsonl is not run again
seed = 0                # of problems, order and answers
configure(globals(), {})

RUNS = 'unaided', 'sft', 'more', 'rejection', 'rl', 'mbpp_rejection', 'mbpp_rl'
runs = [*filter(None, runs.split(','))]
require({*runs} <= {*RUNS}, f'--runs={",".join(runs)}: the runs are {", ".join(RUNS)}')
STEPS, PROMPTS, RL_STEPS = 50, 240, 6
ROWS = pathlib.Path(ROOT, 'bench/real.jsonl')
here = pathlib.Path(ROOT, 'out/real', str(seed))
data = pathlib.Path(data).resolve()     # the runs have another working folder
model = pathlib.Path(model).resolve()
torch.set_num_threads(1)                # as the runs have: a row says so


# --- data -----------------------------------------------------------------------------------------
def make_data():
    mbpp = read(data / 'mbpp_sanitized.jsonl')
    write(here / 'mbpp_test.jsonl', mbpp[300:])
    # a chat is asked for these; rl.py gets tests, and no answers
    write(here / 'mbpp.jsonl', [
        {'prompt': f'Complete:\n{row["prompt"].rstrip()}',
         'tests': f'import math\n{row["test"]}\ncheck({row["entry_point"]})\n'}
        for row in mbpp[:300]])
    write(here / 'prompts.jsonl', [*map(asked, of_both(1000, seed, 'review', 'feedback'))])
    write(here / 'test.jsonl', [
        asked(p) for split, _ in KINDS.values() for p in problems(60, 0, split)])
    for side, some in (('train', problems(2000, seed)),
                       ('val', of_both(20, seed, 'validation', 'feedback_validation'))):
        write(here / f'examples/{side}.jsonl', [{'messages': to_messages(p)} for p in some])


# --- models: each is made when it is asked for ----------------------------------------------------
def made(run):
    """Return where a model is, and the seconds that it took, without those of its start."""
    out, is_mbpp, seconds = here / run, run.startswith('mbpp'), 0
    if run == 'unaided':
        return model, 0
    if (out / 'seconds').exists():
        return out, float((out / 'seconds').read_text())
    start = model if is_mbpp or run == 'sft' else made('sft')[0]
    prompts = here / ('mbpp.jsonl' if is_mbpp else 'prompts.jsonl')
    length = '--max_new_tokens=128' if is_mbpp else '--max_new_tokens=96'
    flags = [f'--init_from={start}', f'--out_dir={out}', f'--seed={seed}', '--overwrite=True',
             '--eval_interval=1000']
    if run.endswith('rl'):
        seconds = python('rl.py', *flags, f'--reward={prompts}', '--allow_code_execution=True',
                         '--batch_size=8', '--num_samples=8', '--micro_batch_size=4', length,
                         f'--max_steps={RL_STEPS}', '--eval_prompts=16', '--learning_rate=1e-5')
    else:
        learned, how = here / 'examples', f'--max_steps={STEPS}'
        if run.endswith('rejection'):
            learned, how = here / f'{run}_data', '--epochs=1'
            n = 300 if is_mbpp else PROMPTS
            seconds, rows = answer(start, prompts, here / f'{run}_answers', '--batch_size=32',
                                   length, f'--n_problems={n}', '--temperature=0.8',
                                   f'--seed={seed}')
            examples = [] if is_mbpp else read(here / 'examples/train.jsonl')[:200]
            write(learned / 'train.jsonl', passed_in(rows) + examples)
            write(learned / 'val.jsonl', read(here / 'examples/val.jsonl'))
        seconds += python('sft.py', *flags, how, f'--data_dir={learned}', '--batch_size=8',
                          f'--learning_rate={1e-4 if run == "sft" else 3e-5}')
    (out / 'seconds').write_text(f'{seconds:.0f}')
    return out, seconds


# --- what they can do -----------------------------------------------------------------------------
def measured(run):
    """Return a row: of each kind, how many answers of how many passed."""
    ckpt, seconds = made(run)
    passed = {}
    for kind, asked_for, n_tokens in (('own', here / 'test.jsonl', 96),
                                      ('humaneval', data / 'HumanEval.jsonl.gz', 128),
                                      ('mbpp', here / 'mbpp_test.jsonl', 128)):
        rows = answer(ckpt, asked_for, here / run / kind, f'--tasks={kind}', '--batch_size=32',
                      f'--max_new_tokens={n_tokens}')[1]
        passed[kind] = [row['outcome'] == 'passed' for row in rows]
    own = passed.pop('own')
    passed = {name: own[60 * i:60 * i + 60] for i, name in enumerate(KINDS)} | passed
    return {'run': run, 'seed': seed, 'seconds': round(seconds), 'steps': STEPS,
            **{kind: [sum(some), len(some)] for kind, some in passed.items()},
            'machine': f'{chain_report.machine()}, commit {chain_report.commit()}'}


if runs and not (here / 'examples/val.jsonl').exists():
    make_data()
for run in runs:
    if not any((row['run'], row['seed']) == (run, seed) for row in read(ROWS)):
        row = json.dumps(measured(run))
        with open(ROWS, 'a', encoding='utf-8') as f:
            f.write(row + '\n')
kinds = [*KINDS, 'humaneval', 'mbpp']
print('| run | seed | seconds |', ' | '.join(kinds), '|\n' + '|---' * (3 + len(kinds)) + '|')
for row in read(ROWS):
    cells = [f'{row[kind][0]} of {row[kind][1]}' for kind in kinds]
    print(f'| {row["run"]} | {row["seed"]} | {row["seconds"]} |', ' | '.join(cells), '|')
