"""
Everything that needs a GPU, in twenty minutes, most important first. Each result is a line of JSON on stdout
and in FOLDER/results.jsonl as soon as it is known, so a run that is cut keeps what it has. A measurement that
fails is a line with its error, and the next begins. Please send us results.jsonl in an issue. Needs no network.

    python bench/gpu.py --out=FOLDER                    # on a machine with an NVIDIA GPU
    python bench/gpu.py --out=FOLDER --only=generate    # some of them, such as one that failed
    python bench/gpu.py --out=FOLDER --tiny=True        # all at toy sizes, on a CPU too: is it whole?

    machine         the GPU's own rate, measured: a matrix product
    generate        batch 1, 16, 256, next to transformers
    train           110M by train.py: a step, MFU, memory next to the plan's
    large           1.5B by train.py: fsdp with checkpoints, whose blocks are compiled, and ddp
    shard           fsdp, zero2, float16 and resuming with real runs of train.py, one process over NCCL
    llama           transformers' LlamaForCausalLM, same size, dtype, optimizer and compiler

Each measurement is a process of its own with a limit of time. FOLDER/log.txt has what they said. It needs
torch with CUDA, a C compiler and Python's headers for Triton, and transformers for the comparisons.
"""
import collections, contextlib, glob, json, math, os, pathlib, re, shutil, signal, subprocess, sys, tempfile, time
import traceback
import numpy as np
import torch
from peers import ROOT, work_of
from configurator import configure, require
from model import GPTConfig
from extras.tasks import chain_report
from extras.training import planner
from tokenizer import SPECIAL_TOKENS, Tokenizer

out = 'out/gpu'             # the folder of results.jsonl and log.txt
only = ''                   # names of measurements, with commas; '' = all
tiny: bool | None = None    # True: toy sizes; None = where there is no CUDA
work = ''                   # set by the script itself: a temporary folder for runs
measure = ''                # set by the script itself: the measurement that this process makes
config = configure(globals())

on_gpu = torch.cuda.is_available()      # then also with torch.compile
device = 'cuda' if on_gpu else 'cpu'
tiny = not on_gpu if tiny is None else tiny
REPEATS = 2 if tiny else 10     # of a call, of which the median counts
V, T = (1024, 32) if tiny else (32768, 1024)
SMALL = GPTConfig(V, T, 2, 2, 0, 32) if tiny else GPTConfig(V, T, 12, 12, 0, 768)         # 110M
MICRO = 2 if tiny else 32       # sequences at once of 110M
TORCHRUN = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=1']


# --- results ------------------------------------------------------------------------------------------------
def tell(what, **figures):
    """One line of JSON, on stdout and in results.jsonl, at once."""
    short = {name: float(f'{x:.4g}') if isinstance(x, float) else x for name, x in figures.items()}
    line = json.dumps({'what': what, **short})
    print(line, flush=True)
    with open(f'{out}/results.jsonl', 'a', encoding='utf-8') as f:
        f.write(line + '\n')


def attempt(what, make, *args, **how):
    """Tell the figures that make(...) returns, a dict, or its error. Returns the figures, {} if none."""
    try:
        figures = make(*args, **how)
    except Exception as e:
        traceback.print_exc()
        tell(what, error=(str(e).strip().splitlines() or [''])[-1][:300])
        figures = {}
    else:
        tell(what, **figures)
    if on_gpu:
        torch.cuda.empty_cache()
    return figures


def end(pid):
    """Kill a process and those that it started, at any depth."""
    children = collections.defaultdict(list)
    for path in glob.glob('/proc/[0-9]*/stat'):
        with contextlib.suppress(OSError):
            with open(path, encoding='utf-8', errors='replace') as f:
                parent = f.read().rpartition(')')[2].split()[1]
            children[int(parent)].append(int(path.split('/')[2]))
    doomed = [pid]
    for parent in doomed:
        doomed += children[parent]
    for one in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def start(name, *command):
    """A script of this checkout in a process of its own; what it says goes to work/name.txt."""
    with open(f'{work}/{name}.txt', 'w') as said:
        return subprocess.Popen([sys.executable, *command], stdout=said, stderr=subprocess.STDOUT, cwd=ROOT)


def finish(name, process, limit, expected=(0,)):
    """Wait for a process, at most limit seconds. Return what it said. RuntimeError: it failed."""
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        end(process.pid)
        process.wait()
        code = 'none'
    with open(f'{work}/{name}.txt', encoding='utf-8', errors='replace') as f:
        said = f.read().strip()
    print(f'--- {name}: exit code {code}', said[-4000:], sep='\n', file=sys.stderr, flush=True)
    if code not in expected:
        last = [line for line in said.splitlines() if re.match(r'error: |[\w.]*(Error|Exception)', line)]
        last = (last or said.splitlines() or ['it said nothing'])[-1]
        late = f'ended after its limit of {limit} s' if code == 'none' else f'exit code {code}'
        raise RuntimeError(f'{name}: {late}; {last}')
    return said


def rows_of(folder):
    lines = pathlib.Path(folder, 'metrics.jsonl').read_bytes().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith(b'}\n')]


def kill_at(step, process, folder, limit):
    """Kill a run once it has logged this step, so that no time goes into its save."""
    metrics = f'{folder}/metrics.jsonl'
    stop = time.time() + limit
    while process.poll() is None and time.time() < stop:
        if os.path.exists(metrics) and any(row.get('step', 0) >= step for row in rows_of(folder)):
            end(process.pid)
            return
        time.sleep(0.1)


def synthetic(n_vocab):
    """A folder of bins for train.py: random ids, so nothing can be learned. Times do not depend on that."""
    folder = f'{work}/data{n_vocab}'
    if not os.path.exists(folder):
        os.makedirs(folder)
        n_pairs = n_vocab - 256 - len(SPECIAL_TOKENS)
        pairs = [bytes([i // 256, i % 256]) for i in range(n_pairs)]
        tokenizer = Tokenizer('bpe', [bytes([b]) for b in range(256)] + pairs, SPECIAL_TOKENS)
        tokenizer.save(f'{folder}/tokenizer.json')
        sizes = {'train': 4_000_000, 'val': 200_000}
        for i, (side, n) in enumerate(sizes.items()):
            ids = np.random.default_rng(i).integers(n_vocab, size=n, dtype=np.uint16)
            ids.tofile(f'{folder}/{side}.bin')
        meta = {'dtype': 'uint16', 'vocab_size': n_vocab, 'tokens': sizes, 'sources': {}, 'config': {},
                'tokenizer_hash': tokenizer.hash}
        pathlib.Path(folder, 'meta.json').write_text(json.dumps(meta))
    return folder


# --- time ---------------------------------------------------------------------------------------------------
def wait():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ms(call, most=math.inf, warm=2):
    """The median of REPEATS calls, at most `most`, in ms; before them, `warm` calls that do not count."""
    seconds = []
    for _ in range(warm + min(REPEATS, most)):
        wait()
        began = time.perf_counter()
        call()
        wait()
        seconds.append(time.perf_counter() - began)
    return 1000 * float(np.median(seconds[warm:]))


# --- the machine --------------------------------------------------------------------------------------------
def the_machine():
    n = 256 if tiny else 8192
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in 'ab')
    return {'machine': chain_report.machine(), 'cuda': torch.version.cuda,
            'commit': chain_report.commit(), 'tflops_bf16': 2 * n ** 3 / ms(lambda: a @ b) / 1e9}


# --- train.py -----------------------------------------------------------------------------------------------
def train_py(name, preset, micro, limit, compiled, *flags, torchrun=()):
    """A run of two micro-batches a step that is killed once there are enough rows."""
    every, steps = (2, 6) if tiny else (5, 20)
    size = ['--n_layer=2', '--n_head=2', '--n_embd=32', f'--block_size={T}', '--vocab_size=0'] if tiny else []
    folder = f'{work}/{name}'
    process = start(name, *torchrun, 'train.py', f'config/{preset}.py', f'--data_dir={synthetic(V)}', *size,
                    f'--out_dir={folder}', f'--micro_batch_size={micro}', f'--batch_size={2 * micro}',
                    f'--log_interval={every}', f'--eval_tokens={micro * T}',
                    f'--device={device}', f'--compile={compiled}', *flags)
    kill_at(steps, process, folder, limit)
    said = finish(name, process, limit, expected=(-9,))
    rows = [row for row in rows_of(folder) if row.get('step', 0) >= 2 * every and 'tok_s' in row]
    c = json.loads(pathlib.Path(folder, 'config.json').read_bytes())
    model = planner.sketch(GPTConfig(V, c['block_size'], c['n_layer'], c['n_head'], 0, c['n_embd']))
    figures = 'tok_s', 'mfu', 'dt'
    found = {key: float(np.median([row[key] or 0 for row in rows])) for key in figures}
    peak = max(row['memory_mb'] or 0 for row in rows) * 2 ** 20 / 1e9       # of the GPU
    stage = 3 if c['shard'] == 'fsdp' else 0
    planned = planner.device_bytes(model, 1, stage, micro, 2, c['grad_checkpoint']) / 1e9
    return found | {'memory_gb': peak, 'planned_gb': planned, 'memory_over_plan': peak / planned,
                    'recompiles': said.count('Recompiling function'), 'loss': rows[-1]['loss']}


def train():
    for compiled in dict.fromkeys([on_gpu, False]):
        attempt(f'train.py, 110M, micro {MICRO}, compiled {compiled}', train_py, f'small{compiled}',
                'codeparrot_small', MICRO, 130, compiled)


def large():
    micro = 2 if tiny else 8
    ways = {'ddp': [], 'fsdp, checkpoints': ['--shard=fsdp', '--grad_checkpoint=True']}
    for way, flags in ways.items():
        attempt(f'train.py, 1.5B, {way}, micro {micro}', train_py, 'large', 'codeparrot', micro, 200,
                on_gpu, *flags, torchrun=TORCHRUN if flags else ())
        shutil.rmtree(f'{work}/large', ignore_errors=True)      # 18 GB


# --- several processes, other dtypes, resuming --------------------------------------------------------------
def shard():
    """The same small run in several ways, all at once, because none of them is timed."""
    os.environ['TORCHINDUCTOR_COMPILE_THREADS'] = '3'       # of each: they compile at the same time
    os.environ['NVIDIA_TF32_OVERRIDE'] = '0'                # float32 is compared to 1e-3
    steps, half_way = (8, 4) if tiny else (20, 10)
    flags = [f'--data_dir={synthetic(1024)}', '--n_layer=2', '--n_head=2', '--n_embd=64', '--block_size=64',
             '--batch_size=8', f'--max_steps={steps}', '--warmup_steps=2', f'--save_interval={half_way}',
             f'--eval_interval={steps}', '--log_interval=1', '--eval_tokens=512',
             f'--device={device}', '--learning_rate=3e-3',
             f'--compile={on_gpu}']
    f32 = '--dtype=float32'
    runs = {'alone': ['train.py', f32], 'ddp': [*TORCHRUN, 'train.py', f32],
            'zero2': [*TORCHRUN, 'train.py', f32, '--shard=zero2'],
            'fsdp': [*TORCHRUN, 'train.py', f32, '--shard=fsdp', '--grad_checkpoint=True']}
    if on_gpu:
        runs['float16'] = ['train.py', '--dtype=float16']
    started = {name: start(name, *command, *flags, f'--out_dir={work}/{name}')
               for name, command in runs.items()}

    def losses(name):
        path = f'{work}/{name}/metrics.jsonl'
        rows = rows_of(f'{work}/{name}') if os.path.exists(path) else []
        return [*{row['step']: row['loss'] for row in rows if 'loss' in row}.values()]  # the last of a step

    def compared(name, process):
        finish(name, process, 75)
        found, straight = losses(name), losses('alone')
        if len(found) != steps:
            raise RuntimeError(f'{len(found)} of {steps} steps in metrics.jsonl')
        far = max((abs(a - b) for a, b in zip(found, straight)), default=float('nan'))
        return {'first': found[0], 'last': found[-1], 'apart_from_alone': far,
                'ok': far < (0.1 if name == 'float16' else 1e-3)}

    for name, process in started.items():
        attempt(f'shard, {name}', compared, name, process)

    def resumed():
        os.makedirs(f'{work}/resumed')
        shutil.copy(f'{work}/alone/metrics.jsonl', f'{work}/resumed')
        shutil.copy(f'{work}/alone/last-1.pt', f'{work}/resumed/last.pt')
        return compared('resumed', start('resumed', 'train.py', *flags, f32, f'--out_dir={work}/resumed',
                                         '--init_from=resume'))
    attempt('shard, resumed half-way', resumed)


# --- beside transformers ------------------------------------------------------------------------------------
def beside(name, what, batch, most, **how):
    """Tell the speed of our model and of theirs, and the ratio. most: how many calls are timed."""
    def speed(who):
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        work, n_tokens = work_of(what, who, SMALL, device, batch, **how)
        took = ms(work, most, warm=1)
        memory = torch.cuda.max_memory_allocated() / 1e9 if on_gpu else None
        return {'tok_s': n_tokens / took * 1000, 'ms': took, 'memory_gb': memory}

    a, b = (attempt(f'{name}: {who}', speed, who) for who in ('ours', 'theirs'))
    if a and b:
        tell(name, ours_over_theirs=a['tok_s'] / b['tok_s'])


def llama():
    for compiled in dict.fromkeys([on_gpu, False]):
        how = 'compiled' if compiled else 'not compiled'
        beside(f'llama, 110M, {how}', 'train', MICRO, 10, compiled=compiled)


def generate():
    for batch in (1, 16, 256):
        beside(f'generate, 110M, batch {batch}', 'generate', batch, 2, new=8 if tiny else 128,
               prompt=8 if tiny else 32)


# --- one process for each measurement -----------------------------------------------------------------------
ALL = {     # the call, and the seconds that it gets at most
    'machine': (lambda: attempt('machine', the_machine), 60), 'generate': (generate, 180),
    'train': (train, 300), 'large': (large, 420), 'shard': (shard, 150), 'llama': (llama, 150)}


def main():
    global work
    names = [*filter(None, only.split(','))] or [*ALL]
    require({*names} <= {*ALL}, f'--only={only}: the measurements are {", ".join(ALL)}')
    os.makedirs(out, exist_ok=True)
    work = tempfile.mkdtemp(prefix='gpu-bench-')
    env = {**os.environ, 'OMP_NUM_THREADS': os.environ.get('OMP_NUM_THREADS', '1' if tiny else '8'),
           'TORCH_LOGS': 'recompiles'}
    with open(f'{out}/log.txt', 'ab') as log:
        for name in names:
            most = ALL[name][1] * (4 if tiny else 1)        # other work may share a CPU
            flags = {**config, 'measure': name, 'work': work, 'tiny': tiny, 'only': ''}
            flags = [f'--{key}={value}' for key, value in flags.items() if key != 'preset']
            command = [sys.executable, os.path.abspath(__file__), *flags]
            # The compiler's cache does not know which attention was allowed, so each one has its own.
            own = {**env, 'TORCHINDUCTOR_CACHE_DIR': f'{work}/compiled_{name}'}
            process = subprocess.Popen(command, stderr=log, env=own)
            try:
                code = process.wait(most + 2)
            except subprocess.TimeoutExpired:
                end(process.pid)
                code = f'{process.wait()}, after its limit of {most} s'
            if code != 0:
                tell(name, error=f'exit code {code}; see log.txt')
    shutil.rmtree(work, ignore_errors=True)
    print(f'next: please send us {out}/results.jsonl, as an issue "bench/gpu.py on ..." of nanoparrot')


if measure:
    ALL[measure][0]()
else:
    main()
