"""
Two ways to train, compared seed by seed: which one ends with the lower loss?

    python bench/arms.py --b='--min_lr=0'           # config/quickstart.py, 150 steps, five seeds
    python bench/arms.py config/exercise.py --a='--dropout=0.1' --b='--dropout=0.2' --steps=600
    python bench/arms.py --steps=500                # without --b: how good is a, and how steady?

Variant b has the flags of a, followed by its own, which take precedence. Each run is train.py and
then eval.py on all validation text. Runs of the same shape and seed have the same initial weights
and batches, so differences are paired by seed. A difference counts if it is at least two standard
errors, over five seeds or more; by chance, this happens once in nine times. Choose settings on
other seeds than those that you report.

Both variants run at the same time, with half of the cores each, so other work on the machine slows
both down. Don't edit the code before they end. To compare code, put the new code behind a setting
of train.py, and switch it on with --b.
"""
import argparse, concurrent.futures, json, math, os, pathlib, shlex, statistics, subprocess, sys
import tempfile
import torch
from peers import ROOT
from configurator import UserError, report_error
from extras.tasks import chain_report

# As in run.sh: malloc keeps freed memory, which saves an eighth of a step on Linux.
MEMORY = {'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': '2147483647'}


# --- one run --------------------------------------------------------------------------------------
def python(*command, threads=1):
    """Run a script and return its CPU seconds. If the script fails, raise its last line."""
    with tempfile.TemporaryFile('w+') as said:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=said,
            env=os.environ | MEMORY | {'OMP_NUM_THREADS': str(threads)})
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        last = (said.read().strip().splitlines() or [f'it ended with {process.returncode}'])[-1]
    if process.returncode:
        raise UserError(f'{last.removeprefix("error: ")} (from {shlex.join(command[:3])[:90]})')
    return used.ru_utime + used.ru_stime


def one_run(words, seed, threads):
    """Train and evaluate. words: a config file and flags. Return bits per byte and CPU seconds."""
    with tempfile.TemporaryDirectory() as run:
        seconds = python('train.py', *words, f'--seed={seed}', f'--out_dir={run}',
                         '--eval_tokens=1', threads=threads)
        config = json.loads(pathlib.Path(run, 'config.json').read_bytes())
        python('eval.py', f'--ckpt={run}/last.pt', f'--data_dir={config["data_dir"]}',
               '--random_init=False', threads=threads)
        measured = json.loads(pathlib.Path(run, 'eval.json').read_bytes())
    return measured['tasks']['loss']['trained']['bits_per_byte'], seconds


# --- what the runs say ----------------------------------------------------------------------------
def mean_and_error(values):
    """Return the mean of values, one per seed, and its standard error."""
    error = math.nan
    if len(values) > 1:
        error = statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values), error


def verdict(a, b):
    """Return the mean of b - a, such as '-0.0250 ± 0.0040: counts'. a, b: the loss of each seed."""
    mean, error = mean_and_error([after - before for before, after in zip(a, b, strict=True)])
    counts = 'counts' if mean and abs(mean) >= 2 * error else 'does not count'
    return f'{mean:+.4f} ± {error:.4f}: {counts if len(a) > 4 else "too few seeds"}'


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('config', nargs='?', default='config/quickstart.py')
    parser.add_argument('--a', default='', help='flags of train.py for both variants')
    parser.add_argument('--b', default='', help='flags for variant b only')
    parser.add_argument('--seeds', default='0,1,2,3,4', help='of the runs of each variant')
    parser.add_argument('--steps', type=int, default=150, help='steps of a run')
    args = parser.parse_args()

    words = [args.config, f'--max_steps={args.steps}', '--warmup_steps=0.1',
             f'--eval_interval={args.steps}', f'--save_interval={args.steps}']
    variants = {'a': words + shlex.split(args.a)}
    if args.b:
        variants['b'] = variants['a'] + shlex.split(args.b)
    losses = {name: [] for name in variants}
    threads = int(os.environ.get('OMP_NUM_THREADS') or max(1, os.cpu_count() // len(variants)))
    torch.set_num_threads(threads)      # of the runs, for the next line
    print(f'{chain_report.machine()}, commit {chain_report.commit()}', flush=True)
    with concurrent.futures.ThreadPoolExecutor(len(variants)) as pool:
        for seed in args.seeds.split(','):
            now = {name: pool.submit(one_run, flags, seed, threads)
                   for name, flags in variants.items()}
            for name, run in now.items():
                loss, seconds = run.result()
                losses[name].append(loss)
                print(f'seed {seed}, {name}: {loss:.4f} bits per byte in {seconds:.0f} CPU seconds',
                      flush=True)
    for name, some in losses.items():
        print('{}: {:.4f} ± {:.4f}'.format(name, *mean_and_error(some)))
    if 'b' in losses:
        print(f'b - a: {verdict(**losses)}')


if __name__ == '__main__':
    sys.excepthook = report_error
    main()
