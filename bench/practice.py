"""
Does practice beat more examples? A race over several bases: a base is a seed of its own for the tokenizer, the
base model, SFT, and all that follows.

    python bench/practice.py                            # the tables of what ran already; runs nothing
    python clean.py && python prepare.py --vocab_size=4096
    python bench/practice.py --seeds=5,6 --examples=2000

SFT comes first. The others go on from it, for about as many seconds as it took on 2,000 examples or fewer:

    more            SFT on the same examples again, at a third of its rate: what do the seconds alone give?
    rl              rl.py, 60 steps with Muon, on problems that have tests and no answers
    rejection       two rounds of SFT on its own answers that passed, beside up to 2,000 of the examples

What has a line in --rows is not run again. Bases are run one after the other; for several at a
time, start several commands with other --seeds. The settings were chosen on validation problems: 2,000 examples, and
EPOCHS for 15,000. A run takes one thread; seconds are those of the processor.
One greedy answer to each of 1,000 practice tasks, 500 example tasks and 500 unseen combinations; pass@8 is of eight
answers at temperature 0.8 to 200 practice tasks, and pass@1 the mean of these eight. An interval is Student's t over
the bases, 95%, for these problems. Older forms of this file ran DPO and the bugs in SFT (commit b8a4b560), and the
older tokenizer, whose rows have the pattern `symbol` (c4ee48bb).
"""
import argparse, json, pathlib, shutil
import numpy as np
import torch
from arms import ROOT, python
from extras.tasks import chain_report
from extras.tasks.problems import problems, to_messages
from tokenizer import SMALL_PATTERN, SPECIAL_TOKENS, Tokenizer

RUNS = 'sft', 'more', 'rl', 'rejection'
EPOCHS = {500: 24, 1500: 8, 2000: 6, 5000: 4, 15_000: 2}        # of SFT
ROWS = pathlib.Path(ROOT, 'bench/practice.jsonl')
ROUNDS, PROMPTS = 2, 2400       # rejection: an answer to each of so many prompts in a round
KINDS = {'practice tasks': ('feedback_variation', 1000), 'example tasks': ('variation', 500),
         'unseen combinations': ('cell', 500)}
# Student's t of a 95% interval, by degrees of freedom
T_95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 8: 2.31, 12: 2.18, 30: 2.04, 1e9: 1.96}


# --- files --------------------------------------------------------------------------------------------------
def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines), encoding='utf-8')


def read(path):
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()] if path.exists() else []


def asked(p):
    """A line for rl.py and for eval.py --tasks=own."""
    return {'prompt': to_messages(p)[0]['content'], 'tests': f'{p["test"]}\ncheck({p["entry_point"]})\n'}


# --- the models of one base and one number of examples: each is made when it is asked for -------------------
def make_base(folder, seed):
    """The tokenizer is trained on nine tenths of the documents, which the seed draws."""
    tokenizer = Tokenizer.load(f'{ROOT}/data/quickstart/tokenizer.json')
    ids = np.fromfile(f'{ROOT}/data/quickstart/train.bin', np.uint16)
    documents = np.split(ids, np.flatnonzero(ids == tokenizer.begin))
    drawn = np.random.default_rng(seed).random(len(documents)) < 0.9
    some = [tokenizer.decode(ids[1:].tolist()) for ids, kept in zip(documents, drawn) if kept and len(ids)]
    folder.mkdir(parents=True, exist_ok=True)
    Tokenizer.train(some, 4096, SPECIAL_TOKENS, SMALL_PATTERN, 1).save(folder / 'tokenizer.json')
    python('prepare.py', f'--tokenizer={folder}/tokenizer.json', f'--out_dir={folder}/data', '--overwrite=True')
    python('train.py', 'config/quickstart.py', f'--data_dir={folder}/data', f'--seed={seed}',
           f'--out_dir={folder}/model', '--overwrite=True', '--eval_interval=500')
    (folder / 'model/done').touch()


def of_both(n, seed, *splits):
    """n problems of each split, in turn."""
    return [p for two in zip(*(problems(n, seed, each) for each in splits)) for p in two]


def make_data(folder, examples, seed):
    exam = of_both(100, seed, 'validation', 'feedback_validation')
    for side, some in ('train', problems(examples, seed)), ('val', exam):
        write(folder / f'examples/{side}.jsonl', [{'messages': to_messages(p)} for p in some])
    prompts = [*map(asked, of_both(ROUNDS * PROMPTS // 2, seed, 'review', 'feedback'))]
    for i in range(ROUNDS):
        write(folder / f'prompts_{i}.jsonl', prompts[i * PROMPTS:(i + 1) * PROMPTS])
    write(folder / 'rl_prompts.jsonl', prompts[:2000])      # rl.py first tries the tests of all
    write(folder / 'test.jsonl', [asked(p) for split, n in KINDS.values() for p in problems(n, 0, split)])
    write(folder / 'test_8.jsonl', read(folder / 'test.jsonl')[:200])


def sft(start, data, out, seed, *flags):
    return python('sft.py', 'config/quickstart_sft.py', '--base_dir=', '--overwrite=True', f'--init_from={start}',
                  f'--data_dir={data}', f'--out_dir={out}', f'--seed={seed}', '--eval_interval=2000',
                  '--micro_batch_size=8', *flags)


def answer(model, prompts, out, *flags):
    """Return the seconds, and the rows of answers that are judged."""
    seconds = python('eval.py', '--tasks=own', f'--ckpt={model}', f'--data={prompts}', f'--out={out}/eval.json',
                     '--overwrite=True', '--allow_code_execution=True', '--batch_size=128', '--max_new_tokens=64',
                     *flags)
    return seconds, read(out / 'samples.jsonl')


def passed_in(rows):
    """Conversations for sft.py: the answers that passed their tests."""
    return [{'messages': [*row['messages'], {'role': 'assistant', 'content': row['completion']}]}
            for row in rows if row['outcome'] == 'passed']


def make(folder, run, examples, seed):
    """Make a model, and what it starts from. Return the seconds, without those of its start."""
    out, start, data = folder / run, folder / 'sft', folder / 'examples'
    if (out / 'seconds').exists():
        return float((out / 'seconds').read_text())
    if run == 'sft':
        start = folder.parent / 'model'
        if not (start / 'done').exists():
            make_base(start.parent, seed)
        make_data(folder, examples, seed)
        seconds = sft(start, data, out, seed, f'--epochs={EPOCHS[examples]}')
    else:
        make(folder, 'sft', examples, seed)
    if run == 'more':           # as many steps as SFT on 2,000 examples, whatever their number
        seconds = sft(start, data, out, seed, '--learning_rate=1e-3', '--max_steps=372')
    if run == 'rl':
        seconds = python('rl.py', 'config/quickstart_rl.py', '--allow_code_execution=True', '--overwrite=True',
                         f'--init_from={start}', f'--reward={folder}/rl_prompts.jsonl', f'--out_dir={out}',
                         f'--seed={seed}', '--eval_interval=100', '--save_interval=100')
    if run == 'rejection':
        seconds = 0
        for i in range(ROUNDS):
            mined = folder / f'rejection_mined_{i}'
            took, rows = answer(start, folder / f'prompts_{i}.jsonl', mined, '--num_samples=1',
                                '--temperature=1.0', f'--seed={seed + i}')
            write(mined / 'data/train.jsonl', passed_in(rows) + read(data / 'train.jsonl')[:2000])
            shutil.copy(data / 'val.jsonl', mined / 'data')
            before, start = start, out if i == ROUNDS - 1 else mined / 'model'
            seconds += took + sft(before, mined / 'data', start, seed, '--learning_rate=1e-3', '--epochs=1')
    (out / 'seconds').write_text(f'{seconds:.0f}')
    return seconds


def measure(examples, run, seed):
    """Return a line of ROWS: a model's pass rates in percent."""
    folder = pathlib.Path(ROOT, f'out/practice/{seed}/{examples}')
    seconds = make(folder, run, examples, seed)
    _, rows = answer(folder / run, folder / 'test.jsonl', folder / run / 'greedy')
    passed = [row['outcome'] == 'passed' for row in rows]
    rates = dict(zip(KINDS, [100 * np.mean(some) for some in np.split(passed, [1000, 1500])]))
    _, rows = answer(folder / run, folder / 'test_8.jsonl', folder / run / 'eight', '--num_samples=8',
                     '--temperature=0.8')
    eight = np.reshape([row['outcome'] == 'passed' for row in rows], (200, 8))
    rates |= {'pass@1': 100 * eight.mean(), 'pass@8': 100 * eight.any(1).mean()}
    return {'seed': seed, 'pattern': 'space', 'examples': examples, 'run': run, 'seconds': round(seconds),
            **{kind: round(float(rate), 2) for kind, rate in rates.items()},
            'machine': f'{chain_report.machine()}, commit {chain_report.commit()}'}


# --- what the runs say --------------------------------------------------------------------------------------
def found(path):
    """Return the lines of a file, each with its key."""
    return {(row['pattern'], row['examples'], row['run'], row['seed']): row for row in read(path)}


def mean_and_half(x):
    """Return the mean of x and half of its 95% interval (Student's t). x: (bases,), for other bases and these
    problems; or (seeds, problems), for other seeds and other problems, where all seeds answered the same ones.
    Then a number is its seed's part, its problem's part and a rest, whose variances are at least 0, and the
    degrees of freedom are Satterthwaite's, at least those of the seeds."""
    n, m = np.shape(x)[0], np.size(x[0])
    x = np.reshape(x, (n, m))
    freedom = np.array([n - 1, max(1, m - 1), (n - 1) * max(1, m - 1)])
    mean, of_seeds, of_problems = x.mean(), x.mean(1, keepdims=True), x.mean(0)
    rest = x - of_seeds - of_problems + mean
    squares = m * ((of_seeds - mean) ** 2).sum(), n * ((of_problems - mean) ** 2).sum(), (rest ** 2).sum()
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


def tell(path):
    """Print a table for each pattern and number of examples: what SFT solves, and the gains over it, base by base."""
    rows, names = found(path), [*KINDS, 'pass@1', 'pass@8']
    heads = 'run', 'bases', 'seconds', *names, 'practice tasks, minus more'
    seeds = sorted({key[-1] for key in rows})
    for here in sorted({key[:2] for key in rows}):
        print('\n{}, {:,} examples: SFT, and gains over it\n'.format(*here))
        print('| ' + ' | '.join(heads) + ' |\n' + '|---' * len(heads) + '|')
        for run in dict.fromkeys([*RUNS, *(key[2] for key in rows if key[:2] == here)]):
            of = lambda run, name: np.array([rows.get((*here, run, seed), {}).get(name, np.nan) for seed in seeds])
            cells = [of(run, 'seconds')] + [of(run, name) - (run != 'sft') * of('sft', name) for name in names]
            cells += [of(run, names[0]) - of('more', names[0])]
            print(f'| {run} | {np.isfinite(cells[0]).sum()} | {" | ".join(map(interval, cells))} |')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--seeds', default='', help='of the bases to run; none: only the tables')
    parser.add_argument('--examples', type=int, choices=EPOCHS, default=2000, help='of SFT')
    parser.add_argument('--rows', type=pathlib.Path, default=ROWS, help='results')
    args = parser.parse_args()
    torch.set_num_threads(1)        # as the runs have: a row says so

    for seed in map(int, filter(None, args.seeds.split(','))):
        for run in RUNS:
            if ('space', args.examples, run, seed) not in found(args.rows):
                row = json.dumps(measure(args.examples, run, seed))
                with open(args.rows, 'a', encoding='utf-8') as f:
                    f.write(row + '\n')
                print(row, flush=True)
    tell(args.rows)


if __name__ == '__main__':
    main()
