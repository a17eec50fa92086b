"""
What decides whether practice beats more examples? Three experiments, each over several bases: a base is a
seed of its own for the tokenizer, the base model, SFT, and all that follows.

    python clean.py && python prepare.py --vocab_size=4096
    python bench/practice.py patterns       # one line of a regular expression: what may join a word?
    python bench/practice.py examples       # from 250 examples to 30,000: where does a method stop paying?
    python bench/practice.py bugs           # two bugs in SFT, which once held down the baseline of papers
    python bench/practice.py patterns --seeds=     # runs nothing: the tables again; bench/pictures.py draws them

SFT comes first. The others go on from it, for about as many seconds as it took on 2,000 examples or fewer:

    more            SFT on the same examples again, at a third of its rate: what do the seconds alone give?
    rl              rl.py, 60 steps with Muon, on problems that have tests and no answers
    rejection       two rounds of SFT on its own answers that passed, beside up to 2,000 of the examples
    dpo             dpo.py with an SFT term, on pairs of its own answers
    sft_BUG         SFT with a bug; more_BUG is more SFT with it, from the right SFT

What has a line in --rows is not run again. The settings were chosen on validation problems: the pattern `space`,
2,000 examples, and EPOCHS for 1,000 and from 5,000 on. A run takes one thread; seconds are those of the processor.
One greedy answer to each of 1,000 practice tasks, 500 example tasks and 500 unseen combinations; pass@8 is of eight
answers at temperature 0.8 to 200 practice tasks, and pass@1 the mean of these eight. An interval is Student's t over
the bases, 95%, for these problems.
"""
import argparse, collections, concurrent.futures, json, os, pathlib, shutil, subprocess, sys
import numpy as np
import torch
from arms import MEMORY, ROOT
from extras import chain_report, fit
from extras.problems import problems, to_messages
from tokenizer import PATTERN, SMALL_PATTERN, SPECIAL_TOKENS, Tokenizer

PATTERNS = {'space': SMALL_PATTERN, 'symbol': PATTERN, 'cl100k': fit.PATTERNS['cl100k']}
ARMS = 'more', 'rl', 'rejection', 'dpo'
EPOCHS = {250: 24, 500: 24, 1000: 12, 1500: 8, 2000: 6, 5000: 4, 15_000: 2, 30_000: 1}     # of SFT
BUGS = {        # a line of sft.py, and the same with a bug: only the first and the last micro-batch count; a mean
    # of means, which is nearly right here, because sft.py puts answers of about the same length into a batch
    'middle': ('part.backward()', 'if i == 0 or i + micro_batch_size >= len(mine): part.backward()'),
    'means': ('part = mean * count(few) / n_targets', 'part = mean * len(few) / sum(map(len, groups))')}
ROWS = pathlib.Path(ROOT, 'bench/practice.jsonl')
BUGGY = tuple(f'{run}_{bug}' for run in ('sft', 'more') for bug in BUGS)
# For each base, (pattern, examples, runs). With 1,500 examples: is the better pattern only a better start?
EXPERIMENTS = {
    'patterns': [('space', 2000, ARMS), ('symbol', 2000, ARMS), ('space', 1500, ARMS[:3]), ('cl100k', 2000, ARMS)],
    'examples': [('space', n, ARMS) for n in (2000, 500, 5000, 30_000, 250, 1000, 15_000)],
    'bugs': [('space', 2000, ('more', 'rl', 'rejection', *BUGGY))]}
ROUNDS, PROMPTS = 2, 2400       # rejection: an answer to each of so many prompts in a round
KINDS = {'practice tasks': ('feedback_variation', 1000), 'example tasks': ('variation', 500),
         'unseen combinations': ('cell', 500)}
T_95 = 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26       # of 2 bases, 3 ...


def call(*command):
    """Run a script of ours with one thread. Return its seconds of the processor."""
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, cwd=ROOT,
                               env=os.environ | MEMORY | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': ROOT})
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return used.ru_utime + used.ru_stime


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines), encoding='utf-8')


def read(path):
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


def asked(p):
    """A line for rl.py and for eval.py --tasks=own."""
    return {'prompt': to_messages(p)[0]['content'], 'tests': f'{p["test"]}\ncheck({p["entry_point"]})\n'}


class Race:
    """The models of one base and one number of examples: each is made when it is asked for."""
    def __init__(self, pattern, seed, examples):
        self.base = pathlib.Path(ROOT, 'out/practice', pattern, str(seed))
        self.folder = self.base / str(examples)
        self.pattern, self.seed, self.examples = pattern, seed, examples

    def make_base(self):
        """The tokenizer is trained on nine tenths of the documents, which the seed draws."""
        tokenizer = Tokenizer.load(f'{ROOT}/data/quickstart/tokenizer.json')
        ids = np.fromfile(f'{ROOT}/data/quickstart/train.bin', np.uint16)
        documents = np.split(ids, np.flatnonzero(ids == tokenizer.begin))
        drawn = np.random.default_rng(self.seed).random(len(documents)) < 0.9
        some = [tokenizer.decode(ids[1:].tolist()) for ids, kept in zip(documents, drawn) if kept and len(ids)]
        self.base.mkdir(parents=True, exist_ok=True)
        Tokenizer.train(some, 4096, SPECIAL_TOKENS, PATTERNS[self.pattern], 1).save(self.base / 'tokenizer.json')
        call('prepare.py', f'--tokenizer={self.base}/tokenizer.json', f'--out_dir={self.base}/data',
             '--overwrite=True')
        seconds = call('train.py', 'config/quickstart.py', f'--data_dir={self.base}/data', f'--seed={self.seed}',
                       f'--out_dir={self.base}/model', '--overwrite=True', '--eval_interval=500')
        (self.base / 'model/seconds').write_text(f'{seconds:.0f}')

    def make_data(self):
        of_both = lambda n, *splits: [p for two in zip(*(problems(n, self.seed, each) for each in splits)) for p in two]
        exam = of_both(100, 'validation', 'feedback_validation')
        for side, some in ('train', problems(self.examples, self.seed)), ('val', exam):
            write(self.folder / f'examples/{side}.jsonl', [{'messages': to_messages(p)} for p in some])
        write(self.folder / 'exam.jsonl', map(asked, exam))
        prompts = [*map(asked, of_both(ROUNDS * PROMPTS // 2, 'review', 'feedback'))]
        for i in range(ROUNDS):
            write(self.folder / f'prompts_{i}.jsonl', prompts[i * PROMPTS:(i + 1) * PROMPTS])
        write(self.folder / 'rl_prompts.jsonl', prompts[:2000])     # rl.py first tries the tests of all
        write(self.folder / 'test.jsonl', [asked(p) for split, n in KINDS.values() for p in problems(n, 0, split)])
        write(self.folder / 'test_8.jsonl', read(self.folder / 'test.jsonl')[:200])

    def sft(self, start, data, out, *flags, bug=''):
        """Run sft.py, or a copy in which one line is wrong."""
        code = pathlib.Path(ROOT, 'sft.py').read_text(encoding='utf-8')
        script = self.folder / f'{bug}_sft.py'
        script.write_text(code.replace(*BUGS[bug]) if bug else code, encoding='utf-8')
        return call(script, 'config/quickstart_sft.py', '--base_dir=', '--overwrite=True', f'--init_from={start}',
                    f'--data_dir={data}', f'--out_dir={out}', f'--seed={self.seed}', '--eval_interval=2000',
                    '--micro_batch_size=8', *flags)

    def answer(self, model, prompts, out, *flags):
        return call('eval.py', '--tasks=own', f'--ckpt={model}', f'--data={prompts}', f'--out={out}/eval.json',
                    '--allow_code_execution=True', '--batch_size=128', '--max_new_tokens=64', *flags)

    def make(self, run):
        """Make a model, and what it starts from. Return the seconds, without those of its start."""
        out, start = self.folder / run, self.folder / 'sft'
        examples = self.folder / 'examples'
        if (out / 'seconds').exists():
            return float((out / 'seconds').read_text())
        name, _, bug = run.partition('_')
        if name != 'sft':
            self.make('sft')
        if name == 'sft':
            start = self.base / 'model'
            if not (start / 'seconds').exists():
                self.make_base()
            self.make_data()
            seconds = self.sft(start, examples, out, f'--epochs={EPOCHS[self.examples]}', bug=bug)
        elif name == 'more':        # as many steps as SFT on 2,000 examples, whatever their number
            seconds = self.sft(start, examples, out, '--learning_rate=1e-3', '--max_steps=372', bug=bug)
        elif name == 'rl':
            seconds = call('rl.py', 'config/quickstart_rl.py', '--allow_code_execution=True', '--overwrite=True',
                           f'--init_from={start}', f'--reward={self.folder}/rl_prompts.jsonl',
                           f'--out_dir={out}', f'--seed={self.seed}', '--eval_interval=100',
                           '--save_interval=100')
        elif name == 'dpo':
            seconds = self.answer(start, self.folder / 'prompts_0.jsonl', f'{out}_mined', '--num_samples=3',
                                  '--temperature=1.0', f'--seed={self.seed}')
            seconds += call('chats.py', f'--source={out}_mined/samples.jsonl', '--prefer=both',
                            f'--out_dir={out}_mined/pairs', '--overwrite=True')
            seconds += call('dpo.py', 'config/quickstart_dpo.py', '--overwrite=True', f'--init_from={start}',
                            f'--data_dir={out}_mined/pairs', f'--out_dir={out}', f'--seed={self.seed}')
        else:
            seconds = 0
            for i in range(ROUNDS):
                mined = pathlib.Path(f'{out}_mined_{i}')
                seconds += self.answer(start, self.folder / f'prompts_{i}.jsonl', mined, '--num_samples=1',
                                       '--temperature=1.0', f'--seed={self.seed + i}')
                passed = [{'messages': [*row['messages'], {'role': 'assistant', 'content': row['completion']}]}
                          for row in read(mined / 'samples.jsonl') if row['outcome'] == 'passed']
                write(mined / 'data/train.jsonl', passed + read(examples / 'train.jsonl')[:2000])
                shutil.copy(examples / 'val.jsonl', mined / 'data')
                start, before = (out if i == ROUNDS - 1 else mined / 'model'), start
                seconds += self.sft(before, mined / 'data', start, '--learning_rate=1e-3', '--epochs=1')
        (out / 'seconds').write_text(f'{seconds:.0f}')
        return seconds

    def measure(self, run):
        """Return a line of ROWS: a model's pass rates in percent."""
        seconds, out = self.make(run), self.folder / run
        self.answer(out, self.folder / 'test.jsonl', out / 'greedy')
        passed = [row['outcome'] == 'passed' for row in read(out / 'greedy/samples.jsonl')]
        shares = dict(zip(KINDS, [100 * np.mean(some) for some in np.split(passed, [1000, 1500])]))
        self.answer(out, self.folder / 'test_8.jsonl', out / 'eight', '--num_samples=8', '--temperature=0.8')
        eight = np.reshape([row['outcome'] == 'passed' for row in read(out / 'eight/samples.jsonl')], (200, 8))
        shares |= {'pass@1': 100 * eight.mean(), 'pass@8': 100 * eight.any(1).mean()}
        return {'seed': self.seed, 'pattern': self.pattern, 'examples': self.examples, 'run': run,
                'seconds': round(seconds), **{kind: round(float(share), 2) for kind, share in shares.items()},
                'machine': f'{chain_report.machine()}, commit {chain_report.commit()}'}


def run_base(path, pattern, seed, conditions):
    """Run what has no line yet of one base. Return whether all went well."""
    for examples, runs in conditions:
        for run in ('sft', *runs):
            if (pattern, examples, run, seed) not in found(path):
                try:
                    row = json.dumps(Race(pattern, seed, examples).measure(run))
                except subprocess.CalledProcessError as error:      # its script has said why
                    print(f'{pattern}, seed {seed}, {examples} examples, {run}: {error}', file=sys.stderr)
                    return False
                with open(path, 'a', encoding='utf-8') as f:
                    f.write(row + '\n')
                print(row, flush=True)
    return True


def found(path):
    """Return the lines of a file, each with its key."""
    rows = read(path) if path.exists() else []
    return {(row['pattern'], row['examples'], row['run'], row['seed']): row for row in rows}


def interval(values):
    """Return '+5.5 (2.9 to 8.1)', the mean over bases and its interval; of one base '+5.5'. NaN: not run."""
    values = values[~np.isnan(values)]
    mean, n = values.sum() / max(1, len(values)), len(values)
    half = T_95[n - 2] * np.std(values, ddof=1) / n ** 0.5 if n > 1 else 0
    return (n > 0) * f'{mean:+.1f}' + (n > 1) * f' ({mean - half:.1f} to {mean + half:.1f})'


def tell(experiment, path):
    """Print a table for each pattern and number of examples. The last two columns: the first table minus this one."""
    rows, names, task = found(path), [*KINDS, 'pass@1', 'pass@8'], 'practice tasks'
    seeds, first = sorted({key[-1] for key in rows}), EXPERIMENTS[experiment][0]
    heads = 'run', 'bases', 'seconds', *names, f'{task}, minus more', f'first table: {task}', 'its minus more'
    for here in EXPERIMENTS[experiment]:
        print('\n{}, {:,} examples: SFT, gains over it, and the first table minus this one\n'.format(*here))
        print('| ' + ' | '.join(heads) + ' |\n' + '|---' * len(heads) + '|')
        for run in ('sft', *here[2]):
            of = lambda run, name, where=here: np.array(
                [rows.get((*where[:2], run, seed), {}).get(name, np.nan) for seed in seeds])
            cells = [of(run, 'seconds')] + [of(run, name) - (run != 'sft') * of('sft', name) for name in names]
            beside, there = of(run, task) - of('more', task), of(run, task, first) - of('more', task, first)
            cells += beside, of(run, task, first) - of(run, task), there - beside
            print(f'| {run} | {np.isfinite(cells[0]).sum()} | {" | ".join(map(interval, cells))} |')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('experiment', choices=EXPERIMENTS)
    parser.add_argument('--seeds', default='0,1,2,3,4', help='of the bases')
    parser.add_argument('--rows', type=pathlib.Path, default=ROWS, help='results')
    parser.add_argument('--workers', type=int, default=2, help='runs at a time')
    args = parser.parse_args()
    torch.set_num_threads(1)        # as the runs have: a row says so
    bases = collections.defaultdict(list)
    for seed in filter(None, args.seeds.split(',')):
        for pattern, examples, runs in EXPERIMENTS[args.experiment]:
            bases[pattern, int(seed)].append((examples, runs))
    with concurrent.futures.ThreadPoolExecutor(args.workers) as pool:
        well = list(pool.map(lambda base: run_base(args.rows, *base, bases[base]), bases))
    tell(args.experiment, args.rows)
    sys.exit(not all(well))


if __name__ == '__main__':
    main()
