"""
Two ways to train, compared seed by seed: which one ends with the lower loss? And: is yours a record?

    python bench/arms.py --b='--min_lr=0'               # config/quickstart.py, 150 steps, five seeds
    python bench/arms.py config/exercise.py --a='--dropout=0.1' --b='--dropout=0.2' --steps=600
    git diff > my.diff                                  # other code: what you changed since the last commit
    python bench/arms.py --patch=my.diff
    python bench/arms.py --record=shakespeare_1 --b='--learning_rate=5e-3'
    python bench/arms.py --record=full_1 --patch=my.diff                    # two hours

bench/records.md has the records, their rules and more commands. Variant a is the record of that name; b has
your flags after the record's own, and your patch in place of its own. Each run is train.py of the last commit
with the patch. Runs of one shape with the same seed begin with the same weights and read the same batches, so
the difference is taken seed by seed.
"""
import argparse, collections, contextlib, datetime, json, math, os, pathlib, runpy, shlex
import shutil, statistics, subprocess, sys, tempfile, time
import numpy as np
from peers import ROOT
from extras import chain_report

ENOUGH = 5          # seeds
MORE_TIME = 1.1     # the most seconds of a challenger, over the record's
GOES = 'anything goes'
RECORDS = pathlib.Path(ROOT, 'bench/records.md')
SPLIT = 'feedback_variation'        # practice tasks
# config file and flags; a git diff, or ''; whether the patched eval.py measures it or the last commit's
Arm = collections.namedtuple('Arm', 'words patch own')


# --- one run ------------------------------------------------------------------------------------------------
def stop(mistake):
    print(f'error: {mistake}', file=sys.stderr)
    sys.exit(2)


def call(*command, hint=''):
    """What a command prints. If it fails, its last line is the mistake."""
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ['it printed nothing'])[-1]
        stop(f'{last.removeprefix("error: ")} (from {shlex.join(command[:4])}){hint}')
    return done.stdout.strip()


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


def choosing(data, folder):
    """Prepared data: the first nine tenths of the training tokens of `data` to train on, the last tenth to
    measure. So settings can be chosen before a validation token of `data` is ever read."""
    meta = json.loads(pathlib.Path(data, 'meta.json').read_bytes())
    ids = np.memmap(f'{data}/train.bin', meta['dtype'], 'r')
    meta['sources'] = meta['sha256'] = {}
    meta['mixed'] = True                # train.bin is what it is: no source has passes of its own
    cut = len(ids) * 9 // 10
    for side, part in ('train', ids[:cut]), ('val', ids[cut:]):
        part.tofile(f'{folder}/{side}.bin')
        meta['tokens'][side] = len(part)
    shutil.copy(f'{data}/tokenizer.json', folder)
    pathlib.Path(folder, 'meta.json').write_text(json.dumps(meta), encoding='utf-8')


def one_run(code, judge, words, data, seed, problems_seed):
    """Train with the code in one folder, measure with the eval.py in another. A script in place of a config
    is the full run: what counts is the percentage of practice tasks that its last model solves."""
    full = words[0].endswith('.sh')
    with tempfile.TemporaryDirectory() as folder:
        run = f'{folder}/run'
        began = time.time()
        if full:
            call('bash', f'{code}/{words[0]}', sys.executable, data, run, str(seed), *words[1:])
            what = ['--tasks=problems', f'--splits={SPLIT}', '--n_problems=500',
                    f'--problems_seed={problems_seed}', '--allow_code_execution=True']
        else:
            call(sys.executable, f'{code}/train.py', os.path.join(code, words[0]), *words[1:],
                 f'--data_dir={data}', f'--seed={seed}', f'--out_dir={run}', '--eval_tokens=1',
                 '--sample_tokens=1')
            what = [f'--data_dir={data}']
        seconds = time.time() - began
        call(sys.executable, f'{judge}/eval.py', f'--ckpt={run}/last.pt', f'--out={run}/eval.json', *what,
             '--random_init=False', hint='' if code == judge else '; another layout needs --anything_goes')
        tasks = json.loads(pathlib.Path(run, 'eval.json').read_bytes())['tasks']
        if full:
            return {'solved': 100 * tasks['problems']['by_split'][SPLIT]['pass@1'], 'seconds': seconds}
        config = json.loads(pathlib.Path(run, 'config.json').read_bytes())
    measured = tasks['loss']['trained']
    tokens = config['max_steps'] * config['batch_size'] * config['block_size']
    return {'nats': measured['nats'], 'bits': measured['bits_per_byte'], 'seconds': seconds, 'tokens': tokens,
            'context': config['block_size']}


def all_runs(arms, data, seeds, problems_seed):
    """{name of an arm: [one_run of each seed]}, in turn; yielded after each seed."""
    runs = {name: [] for name in arms}
    with contextlib.ExitStack() as stack:
        patches = {'', *(arm.patch for arm in arms.values())}
        code = {patch: stack.enter_context(checkout(patch)) for patch in patches}
        for seed in range(seeds):
            for name, arm in arms.items():
                judge = code[arm.patch if arm.own else '']
                runs[name].append(one_run(code[arm.patch], judge, arm.words, data, seed, problems_seed))
            yield runs


# --- what the runs say --------------------------------------------------------------------------------------
def difference(a, b):
    """Mean and standard error of b - a, seed by seed, and the verdict. a, b: the loss of each seed."""
    differences = [after - before for before, after in zip(a, b, strict=True)]
    mean = statistics.mean(differences)
    if len(differences) < ENOUGH:
        return mean, math.nan, 'too few seeds'
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return mean, error, 'counts' if abs(mean) >= 2 * error else 'does not count'


def against(record, challenger, unit):
    """Yields what keeps a challenger from being a record. Both: the one_run of each seed."""
    mean, _, verdict = difference(*([run[unit] for run in runs] for runs in (record, challenger)))
    if verdict != 'counts':
        yield verdict
    elif (mean > 0) != (unit == 'solved'):
        yield 'the loss is higher' if mean > 0 else 'it solves less'
    limits = {'seconds': MORE_TIME} if unit == 'solved' else {'tokens': 1, 'context': 1, 'seconds': MORE_TIME}
    for what, times in limits.items():
        used, most = (statistics.mean(run[what] for run in runs) for runs in (challenger, record))
        if used > times * most:
            yield f'{used:,.0f} {what}, and the record has {most:,.0f}'


def row_for(name, arm, runs, unit, where):
    """A row of bench/records.md. runs: the one_run of each seed; those of the record beside it, if any."""
    losses = [[run[unit] for run in some] for some in runs]
    error = statistics.stdev(losses[0]) / math.sqrt(len(losses[0])) if len(losses[0]) > 1 else math.nan
    form = '.1f' if unit == 'solved' else '.4f'
    each = ', '.join(f'{x:{form}}' for x in losses[0])
    loss = f'{statistics.mean(losses[0]):{form}} ± {error:{form}}: {each}'
    beside = ', '.join(f'{statistics.mean(some):{form}}' for some in losses[1:]) or '-'
    seconds = ', '.join(f'{statistics.mean(run["seconds"] for run in some):.0f}' for some in runs)
    how = f'[patch](records/{name}.diff), ' if arm.patch else ''
    cells = [name, GOES if arm.own else 'Llama layout kept', loss, beside, seconds, where]
    return f'| {" | ".join(cells)} | {how}`{shlex.join(arm.words)}` |'


# --- the arms -----------------------------------------------------------------------------------------------
def row_of(name):
    """The row of a record, and its command: the last words between backticks."""
    lines = RECORDS.read_text(encoding='utf-8').splitlines()
    rows = {line.split('|')[1].strip(): line for line in lines if line.startswith('|') and '`' in line}
    if name not in rows:
        stop(f'--record={name}: {RECORDS} has no such row; it has {", ".join(rows)}')
    return rows[name], shlex.split(rows[name].rsplit('`', 2)[1])


def arms_of(args):
    """{'a': Arm, 'b': Arm}; of a record alone only a."""
    if not args.record:
        words = [args.config, f'--max_steps={args.steps}', f'--warmup_steps={max(1, args.steps // 10)}',
                 f'--eval_interval={args.steps}', f'--save_interval={args.steps}']
        return {'a': Arm(words + shlex.split(args.a), '', True),
                'b': Arm(words + shlex.split(args.b), args.patch, True)}
    if args.a:
        stop(f'--a={args.a} does not go with --record={args.record}, which is variant a; use --b')
    row, words = row_of(args.record)
    patch = RECORDS.with_name('records') / f'{args.record}.diff'
    arms = {'a': Arm(words, str(patch) if patch.exists() else '', GOES in row)}
    if args.b or args.patch:
        arms['b'] = Arm(words + shlex.split(args.b), args.patch or arms['a'].patch, args.anything_goes)
    return arms


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('config', nargs='?', default='config/quickstart.py')
    parser.add_argument('--a', default='', help='settings of the first variant')
    parser.add_argument('--b', default='', help='settings of the second variant')
    parser.add_argument('--patch', default='', help='a git diff: code of the second variant')
    parser.add_argument('--record', default='', help='a row of bench/records.md, which is the first variant')
    parser.add_argument('--anything_goes', action='store_true', help='eval.py of your patch measures b')
    parser.add_argument('--choose', action='store_true',
                        help='measure the last tenth of the training tokens, or other problems')
    parser.add_argument('--data_dir', default='', help="prepared data; without it the config's")
    parser.add_argument('--seeds', type=int, default=ENOUGH, help='number of seeds, from 0 on')
    parser.add_argument('--steps', type=int, default=150, help='steps of a run; a record has its own number')
    args = parser.parse_args()
    if args.seeds < 1:
        stop(f'--seeds={args.seeds} must be at least 1')

    arms = arms_of(args)
    full = arms['a'].words[0].endswith('.sh')
    preset = runpy.run_path(os.path.join(ROOT, 'config/quickstart.py' if full else arms['a'].words[0]))
    if not args.data_dir and 'data_dir' not in preset:
        stop(f'{args.config} names no data; give --data_dir')
    data = os.path.abspath(args.data_dir or os.path.join(ROOT, preset['data_dir']))
    if not os.path.exists(f'{data}/meta.json'):
        stop(f'{data} has no prepared data; give --data_dir, or run: {preset.get("_data_from")}')
    is_char = json.loads(pathlib.Path(data, 'tokenizer.json').read_bytes())['kind'] == 'char'
    unit, meaning = ('nats', 'nats per character') if is_char else ('bits', 'bits per byte')
    if full:
        unit, meaning = 'solved', '% solved'
    where = f'{chain_report.machine()}, commit {chain_report.commit()}'

    with tempfile.TemporaryDirectory() as folder:
        if args.choose:
            choosing(data, folder)
            data = folder
        for runs in all_runs(arms, data, args.seeds, int(args.choose)):
            last = ' and '.join(f'{its[-1][unit]:.4f}' for its in runs.values())
            print(f'seed {len(runs["a"]) - 1}: {last} {meaning}', flush=True)

    losses = {name: [run[unit] for run in its] for name, its in runs.items()}
    if 'b' in arms:
        mean, error, verdict = difference(losses['a'], losses['b'])
        print(f'b - a: {mean:+.4f} ± {error:.4f}: {verdict}')
    print(json.dumps({'command': shlex.join(sys.argv), 'machine': where, **losses}))
    if args.record and not args.choose:
        where = f'{where}, {datetime.date.today()}'
        if 'b' in arms:
            reasons = '; '.join(against(runs['a'], runs['b'], unit))
            print(f'no record: {reasons}' if reasons else f'a record; this is its row for {RECORDS}:')
        name = 'my_record' if 'b' in arms else args.record
        print(row_for(name, [*arms.values()][-1], [*runs.values()][::-1], unit, where))


if __name__ == '__main__':
    main()
