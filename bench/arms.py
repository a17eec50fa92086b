"""
Two ways to train, compared seed by seed: which one ends with the lower loss? And: is yours a record?

    python bench/arms.py --b='--min_lr=0'               # config/quickstart.py, 150 steps, five seeds
    python bench/arms.py config/exercise.py --a='--dropout=0.1' --b='--dropout=0.2' --steps=600
    git diff > my.diff                                  # other code: what you changed since the last commit
    python bench/arms.py --patch=my.diff
    python bench/arms.py --record=quickstart_1 --b='--learning_rate=5e-3'

bench/records.md has the records, their rules, and how to search for one. Variant a is the
record of that name; b has your flags after the record's own, and your patch. Each run is train.py and then
eval.py of the last commit, b's with the patch. Runs of one shape with the same seed begin with the same weights
and read the same batches, so the difference is taken seed by seed. The two run at the same time, with half of
the cores each, so other work on the machine slows both down. With --record and fewer than five seeds it ends
after the first seed with which b is not better. The last line that this prints is JSON.
"""
import argparse, concurrent.futures, contextlib, datetime, json, math, os, pathlib, runpy, shlex, signal
import statistics, subprocess, sys, tempfile, time
import torch
from peers import ROOT
from configurator import Mistake
from extras import chain_report

SEEDS = '0,1,2,3,4'                         # with fewer than five, no difference counts
LIMITS = {'seconds': 1.1, 'tokens': 1, 'context': 1}    # of a challenger, as multiples of the record's
RECORDS = pathlib.Path(ROOT, 'bench/records.md')
running = set()     # the ids of processes
# As in run.sh: Linux keeps the memory that was freed, which is an eighth of a step.
MEMORY = {'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': '2147483647'}
# Run beside the model's code, which a patch may have changed: eval.py believes the loss that a model returns.
HONEST = """
import sys, torch
from model import GPT
model = GPT.load(sys.argv[1]).eval()
T = model.config.block_size
x, y = torch.randint(model.config.vocab_size, (2, 2, T), generator=torch.Generator().manual_seed(0))
later = torch.cat((x[:, :T // 2], y[:, T // 2:]), 1)
with torch.no_grad():
    logits, loss = model(x, y)
    if not logits.isfinite().all():
        sys.exit('error: the logits of the trained model are not finite')
    true_loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), y.flatten())
    for what, a, b in (('sees later tokens', model(later)[0][:, :T // 2], logits[:, :T // 2]),
                       ('sees the targets', model(x)[0], logits),
                       ('returns a loss that is not the cross-entropy of its logits', true_loss, loss)):
        if not torch.allclose(a, b, atol=1e-3):
            sys.exit(f'error: the model {what}')
"""


# --- one run ------------------------------------------------------------------------------------------------
def call(*command, threads=1):
    """Run a command and return its seconds of the processor. If it fails, its last line is the mistake."""
    with tempfile.TemporaryFile('w+') as said:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=said,
                                   env=os.environ | MEMORY | {'OMP_NUM_THREADS': str(threads)})
        running.add(process.pid)
        _, status, used = os.wait4(process.pid, 0)
        running.discard(process.pid)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        last = (said.read().strip().splitlines() or [f'it ended with {process.returncode}'])[-1]
    if process.returncode:
        raise Mistake(f'{last.removeprefix("error: ")} (from {shlex.join(command[:4]).splitlines()[0][:90]})')
    return used.ru_utime + used.ru_stime


@contextlib.contextmanager
def checkout(patch):
    """A folder with the last commit and the patch."""
    with tempfile.TemporaryDirectory() as folder:
        call('git', 'worktree', 'add', '--quiet', '--detach', folder)
        try:
            if patch:
                call('git', '-C', folder, 'apply', os.path.abspath(patch))
            yield folder
        finally:
            call('git', 'worktree', 'remove', '--force', folder)


def one_run(code, words, data, seed, threads):
    """Train and measure with the code in one folder. words: a config file and flags."""
    with tempfile.TemporaryDirectory() as run:
        began = time.time()
        call(sys.executable, f'{code}/train.py', os.path.join(code, words[0]), *words[1:],
             f'--data_dir={data}', f'--seed={seed}', f'--out_dir={run}', '--eval_tokens=1',
             threads=threads)
        seconds = time.time() - began
        config = json.loads(pathlib.Path(run, 'config.json').read_bytes())
        if config['init_from'] != 'scratch' or config['streaming']:
            raise Mistake(f'a run starts from scratch and reads {data}, so no --init_from and no --streaming')
        call(sys.executable, f'{code}/eval.py', f'--ckpt={run}/last.pt', f'--out={run}/eval.json',
             f'--data_dir={data}', '--random_init=False', threads=threads)
        call(sys.executable, '-c', f'import sys; sys.path.insert(0, {str(code)!r}){HONEST}', f'{run}/last.pt')
        measured = json.loads(pathlib.Path(run, 'eval.json').read_bytes())['tasks']['loss']['trained']
    return {'bits': measured['bits_per_byte'], 'seconds': seconds, 'context': config['block_size'],
            'tokens': config['max_steps'] * config['batch_size'] * config['block_size']}


# --- what the runs say --------------------------------------------------------------------------------------
def difference(a, b):
    """Mean and standard error of b - a, seed by seed, and the verdict. a, b: the loss of each seed."""
    differences = [after - before for before, after in zip(a, b, strict=True)]
    mean = statistics.mean(differences)
    if len(differences) < 5:
        return mean, math.nan, 'too few seeds'
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return mean, error, 'counts' if abs(mean) >= 2 * error else 'does not count'


def against(record, challenger):
    """Yield what keeps a challenger from being a record. Both: the one_run of each seed."""
    mean, _, verdict = difference(*([run['bits'] for run in runs] for runs in (record, challenger)))
    if verdict != 'counts':
        yield verdict
    elif mean > 0:
        yield 'the loss is higher'
    for what, times in LIMITS.items():
        used, most = (statistics.mean(run[what] for run in runs) for runs in (challenger, record))
        if used > times * most:
            yield f'{used:,.0f} {what}, and the record has {most:,.0f}'


def row_for(name, words, patch, runs, where):
    """A row of bench/records.md. runs: the one_run of each seed; those of the record next to it, if any."""
    losses = [[run['bits'] for run in some] for some in runs]
    error = statistics.stdev(losses[0]) / math.sqrt(len(losses[0])) if len(losses[0]) > 1 else math.nan
    each = ', '.join(f'{x:.4f}' for x in losses[0])
    loss = f'{statistics.mean(losses[0]):.4f} ± {error:.4f}: {each}'
    other = ', '.join(f'{statistics.mean(some):.4f}' for some in losses[1:]) or '-'
    seconds = ', '.join(f'{statistics.mean(run["seconds"] for run in some):.0f}' for some in runs)
    how = f'[patch](records/{name}.diff), ' if patch else ''
    return f'| {" | ".join([name, loss, other, seconds, where])} | {how}`{shlex.join(words)}` |'


def words_of(name):
    """The command of a record: the last words between backticks in its row."""
    lines = RECORDS.read_text(encoding='utf-8').splitlines()
    rows = {line.split('|')[1].strip(): line for line in lines if line.startswith('|') and '`' in line}
    if name not in rows:
        raise Mistake(f'--record={name}: {RECORDS} has no such row; it has {", ".join(rows)}')
    return shlex.split(rows[name].rsplit('`', 2)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('config', nargs='?', default='config/quickstart.py')
    parser.add_argument('--a', default='', help='settings of the first variant')
    parser.add_argument('--b', default='', help='settings of the second variant')
    parser.add_argument('--patch', default='', help='a git diff: code of the second variant')
    parser.add_argument('--record', default='', help='a row of bench/records.md, which is the first variant')
    parser.add_argument('--data_dir', default='', help="prepared data; without it the config's")
    parser.add_argument('--seeds', default=SEEDS, help='of the runs of each variant')
    parser.add_argument('--steps', type=int, default=150, help='steps of a run; a record has its own number')
    args = parser.parse_args()

    if args.a and args.record:
        raise Mistake(f'--a={args.a} does not go with --record={args.record}, which is variant a; use --b')
    words = [args.config, f'--max_steps={args.steps}', f'--warmup_steps={max(1, args.steps // 10)}',
             f'--eval_interval={args.steps}', f'--save_interval={args.steps}', *shlex.split(args.a)]
    old_patch = ''
    if args.record:
        words = words_of(args.record)
        path = RECORDS.with_name('records') / f'{args.record}.diff'
        old_patch = str(path) if path.exists() else ''
    variants = {'a': (words, old_patch)}        # of a record alone only a
    if args.b or args.patch or not args.record:
        variants['b'] = (words + shlex.split(args.b), args.patch or old_patch)
    preset = runpy.run_path(os.path.join(ROOT, words[0]))
    data = os.path.join(ROOT, args.data_dir or preset.get('data_dir', ''))
    if not os.path.exists(f'{data}/meta.json'):
        raise Mistake(f'{data} has no prepared data; give --data_dir, or run: {preset.get("_data_from")}')

    runs = {name: [] for name in variants}
    threads = int(os.environ.get('OMP_NUM_THREADS') or max(1, os.cpu_count() // len(variants)))
    torch.set_num_threads(threads)      # of the runs, for the next line
    where = f'{chain_report.machine()}, commit {chain_report.commit()}'
    with contextlib.ExitStack() as stack:
        code = {name: stack.enter_context(checkout(patch)) for name, (_, patch) in variants.items()}
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(len(variants)))
        for seed in args.seeds.split(','):
            now = {name: pool.submit(one_run, code[name], flags, data, seed, threads)
                   for name, (flags, _) in variants.items()}
            done, _ = concurrent.futures.wait(now.values(), return_when=concurrent.futures.FIRST_EXCEPTION)
            if any(run.exception() for run in done):
                for pid in [*running]:                  # nobody waits for the other run
                    os.kill(pid, signal.SIGTERM)
            for run in done:
                run.result()                            # raises the first mistake
            for name, run in now.items():
                runs[name].append(run.result())
            last = ' and '.join(f'{its[-1]["bits"]:.4f}' for its in runs.values())
            print(f'seed {seed}: {last} bits per byte', flush=True)
            is_first_try = args.record and 'b' in runs and args.seeds.count(',') < 4
            if is_first_try and runs['b'][-1]['bits'] >= runs['a'][-1]['bits']:
                break

    losses = {name: [run['bits'] for run in its] for name, its in runs.items()}
    result = {'command': shlex.join(sys.argv), 'machine': where, **losses}
    if 'b' in variants:
        mean, error, verdict = difference(losses['a'], losses['b'])
        print(f'b - a: {mean:+.4f} ± {error:.4f}: {verdict}')
        result |= {'difference': mean, 'error': None if math.isnan(error) else error, 'verdict': verdict}
    if args.record:
        name = args.record
        if 'b' in variants:
            name = 'my_record'
            reasons = [*against(runs['a'], runs['b'])]
            result |= {'record': not reasons, 'why_not': reasons}
            print(f'no record: {"; ".join(reasons)}' if reasons else f'a record; this is its row for {RECORDS}:')
        *_, last = variants
        print(row_for(name, *variants[last], [*runs.values()][::-1], f'{where}, {datetime.date.today()}'))
    print(json.dumps(result))


if __name__ == '__main__':
    main()
