"""
All measurements that need a GPU, in twenty minutes, most important first. Each result is printed as
a line of JSON and appended to FOLDER/results.jsonl at once, so an interrupted run keeps its results.
A measurement that fails writes a line with its error, and the next one begins. Please send us
results.jsonl in an issue. No network is needed.

    python bench/gpu.py --out=FOLDER                    # on a machine with an NVIDIA GPU
    python bench/gpu.py --out=FOLDER --only=generate    # only some measurements
    python bench/gpu.py --out=FOLDER --tiny=True        # toy sizes, also on a CPU

    machine         the GPU's measured rate of matrix products
    generate        batch 1, 16, 256, compared with transformers; CUDA graph against eager
    train           110M by train.py: step time, MFU, memory against the plan's
    large           1.5B by train.py: ddp, and fsdp with grad_checkpoint and compiled blocks
    shard           fsdp, zero2, float16 and resuming in runs of train.py over NCCL
    llama           transformers' LlamaForCausalLM, same size, dtype, optimizer and compiler

Each run of train.py is a process with a time limit, and FOLDER/NAME.txt has its output. You need
torch with CUDA, a C compiler and Python's headers for Triton, and transformers.
"""
import contextlib, json, os, pathlib, re, shutil, subprocess, sys, tempfile, time, traceback
import numpy as np
import torch
from peers import ROOT, work_of
from configurator import configure, require
from model import IGNORE, GPT, GPTConfig
from extras.tasks import chain_report
from extras.training import planner
from tokenizer import SPECIAL_TOKENS, Tokenizer

out = 'out/gpu'             # the folder of results.jsonl
only = ''                   # names of measurements, with commas; '' = all
tiny: bool | None = None    # True: toy sizes; None = where there is no CUDA
configure(globals())

on_gpu = torch.cuda.is_available()      # then also with torch.compile
device = 'cuda' if on_gpu else 'cpu'
tiny = not on_gpu if tiny is None else tiny
V, T = (1024, 32) if tiny else (32768, 1024)
SMALL = GPTConfig(V, T, 2, 2, 0, 32) if tiny else GPTConfig(V, T, 12, 12, 0, 768)         # 110M
MICRO = 2 if tiny else 32       # sequences at once of 110M
LIMIT = 800 if tiny else 200    # seconds for a run of train.py; other work may share a CPU
# What torchrun tells the one process that it starts: so train.py joins a group, over NCCL.
GROUP = {'RANK': '0', 'WORLD_SIZE': '1', 'MASTER_ADDR': '127.0.0.1'}


# --- results --------------------------------------------------------------------------------------
def tell(what, **figures):
    """Print a line of JSON, and append it to results.jsonl."""
    line = json.dumps({'what': what, **figures})
    print(line, flush=True)
    with open(f'{out}/results.jsonl', 'a', encoding='utf-8') as f:
        f.write(line + '\n')


def attempt(what, make, *args, **how):
    """Report the dict of results that make(...) returns, or its error. Return the results, or {}."""
    figures = {}
    try:
        figures = make(*args, **how)
        tell(what, **figures)
    except Exception as error:
        traceback.print_exc()
        tell(what, error=f'{error!r:.300}')
    with contextlib.suppress(RuntimeError):     # after some errors, CUDA refuses everything
        torch.cuda.empty_cache()
    return figures


def ms(call, n=2 if tiny else 10):
    """Return the median time of n calls in ms, after a warmup call."""
    seconds = []
    for _ in range(n + 1):
        if on_gpu:
            torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return 1000 * float(np.median(seconds[1:]))


def the_machine():
    n = 256 if tiny else 8192
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in 'ab')
    return {'machine': chain_report.machine(), 'commit': chain_report.commit(),
            'tflops_bf16': 2 * n ** 3 / ms(lambda: a @ b) / 1e9}


# --- runs of train.py -----------------------------------------------------------------------------
def start(name, *flags, port=0, **env):
    """Start a run in its own process. port: if set, the run is a process group of size one."""
    env |= GROUP | {'MASTER_PORT': str(port)} if port else {}
    with open(f'{out}/{name}.txt', 'w') as said:
        return subprocess.Popen(
            [sys.executable, 'train.py', *flags, f'--out_dir={work}/{name}', f'--device={device}'],
            stdout=said, stderr=subprocess.STDOUT, cwd=ROOT, env=os.environ | env)


def rows_of(name):
    """Return the rows that a run has logged so far, without an incomplete last line."""
    path = pathlib.Path(work, name, 'metrics.jsonl')
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b'}\n')]


def failed(name):
    """Return the error of a run: the last line of its output that names an error."""
    said = pathlib.Path(out, f'{name}.txt').read_text('utf-8', 'replace').splitlines()
    errors = [line for line in said if re.match(r'error: |[\w.]*(Error|Exception)', line)]
    return RuntimeError(f'{name}: {(errors or said or ["it said nothing"])[-1]}')


def synthetic(n_vocab):
    """Return a folder of bins for train.py, with random ids. Nothing can be learned from them, but
    the times are the same."""
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
        meta = {'dtype': 'uint16', 'vocab_size': n_vocab, 'tokens': sizes, 'sources': {},
                'config': {}, 'tokenizer_hash': tokenizer.hash}
        pathlib.Path(folder, 'meta.json').write_text(json.dumps(meta))
    return folder


def train_py(name, preset, micro, *flags, port=0):
    """Run train.py with two micro-batches a step, and return its metrics. The run is killed once it
    has logged enough rows, because its save would take time."""
    every, steps = (2, 6) if tiny else (5, 20)
    size = ['--n_layer=2', '--n_head=2', '--n_embd=32', f'--block_size={T}', '--vocab_size=0']
    process = start(name, f'config/{preset}.py', f'--data_dir={synthetic(V)}',
                    *(size if tiny else ()), f'--micro_batch_size={micro}',
                    f'--batch_size={2 * micro}', f'--log_interval={every}',
                    f'--eval_tokens={micro * T}', f'--compile={on_gpu}', *flags, port=port)
    end = time.time() + LIMIT
    while process.poll() is None and time.time() < end:
        if any(row.get('step', 0) >= steps for row in rows_of(name)):
            break
        time.sleep(0.1)
    process.kill()
    process.wait()
    rows = [row for row in rows_of(name) if row.get('step', 0) >= 2 * every and 'tok_s' in row]
    if not rows or rows[-1]['step'] < steps:
        raise failed(name)
    c = json.loads(pathlib.Path(work, name, 'config.json').read_bytes())
    shutil.rmtree(f'{work}/{name}')         # of 1.5B, 18 GB
    model = planner.sketch(GPTConfig(V, c['block_size'], c['n_layer'], c['n_head'], 0, c['n_embd']))
    stage = 3 if c['shard'] == 'fsdp' else 0
    planned = planner.device_bytes(model, 1, stage, micro, 2, c['grad_checkpoint'])
    return {key: float(np.median([row[key] or 0 for row in rows])) for key in ('tok_s', 'mfu', 'dt')
            } | {'memory_gb': max(row['memory_mb'] or 0 for row in rows) * 2 ** 20 / 1e9,
                 'planned_gb': planned / 1e9}


def train():
    attempt(f'train.py, 110M, micro {MICRO}', train_py, 'small', 'codeparrot_small', MICRO)


def large():
    micro = 2 if tiny else 8
    attempt(f'train.py, 1.5B, ddp, micro {micro}', train_py, 'ddp_large', 'codeparrot', micro)
    attempt(f'train.py, 1.5B, fsdp, checkpoints, micro {micro}', train_py, 'fsdp_large',
            'codeparrot', micro, '--shard=fsdp', '--grad_checkpoint=True', port=29500)


def shard():
    """Compare a small run in several modes. They run at the same time, because none is timed."""
    steps, half_way = (8, 4) if tiny else (20, 10)
    env = {'TORCHINDUCTOR_COMPILE_THREADS': '3',    # of each: they compile at the same time
           'NVIDIA_TF32_OVERRIDE': '0'}             # float32 is compared to 1e-3
    flags = [f'--data_dir={synthetic(1024)}', '--n_layer=2', '--n_head=2', '--n_embd=64',
             '--block_size=64', '--batch_size=8', f'--max_steps={steps}', '--warmup_steps=2',
             f'--save_interval={half_way}', f'--eval_interval={steps}', '--log_interval=1',
             '--eval_tokens=512', '--learning_rate=3e-3', f'--compile={on_gpu}']
    runs = {'alone': (0, []), 'ddp': (29501, []), 'zero2': (29502, ['--shard=zero2']),
            'fsdp': (29503, ['--shard=fsdp', '--grad_checkpoint=True'])}
    if on_gpu:
        runs['float16'] = 0, ['--dtype=float16']

    def begin(name, port=0, more=()):
        return start(name, *flags, '--dtype=float32', *more, port=port, **env)

    def compared(name, process):
        try:
            process.wait(LIMIT)
        finally:
            process.kill()          # if it is late
        if process.returncode:
            raise failed(name)
        # the last loss of each step: a run that was resumed has some twice
        found, straight = ({row['step']: row['loss'] for row in rows_of(run) if 'loss' in row}
                           for run in (name, 'alone'))
        far = max(abs(found[step] - straight[step]) for step in range(1, steps + 1))
        return {'apart_from_alone': far, 'ok': far < (0.1 if name == 'float16' else 1e-3)}

    started = {name: begin(name, *how) for name, how in runs.items()}
    for name, process in started.items():
        attempt(f'shard, {name}', compared, name, process)

    def resumed():
        os.makedirs(f'{work}/resumed')
        for file in 'metrics.jsonl', 'tokenizer.json':
            shutil.copy(f'{work}/alone/{file}', f'{work}/resumed')
        shutil.copy(f'{work}/alone/last-1.pt', f'{work}/resumed/last.pt')
        return compared('resumed', begin('resumed', more=['--init_from=resume']))

    attempt('shard, resumed half-way', resumed)


# --- next to transformers -------------------------------------------------------------------------
def beside(name, what, batch, n, **how):
    """Report the speed of our model and of transformers', over n calls, and their ratio."""
    def speed(who):
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        work, n_tokens = work_of(what, who, SMALL, device, batch, **how)
        tok_s = n_tokens / ms(work, n) * 1000
        return {'tok_s': tok_s, 'memory_gb': torch.cuda.max_memory_allocated() / 1e9}

    a, b = (attempt(f'{name}: {who}', speed, who) for who in ('ours', 'theirs'))
    if a and b:
        tell(name, ours_over_theirs=a['tok_s'] / b['tok_s'])


def llama():
    for compiled in dict.fromkeys([on_gpu, False]):
        how = 'compiled' if compiled else 'not compiled'
        beside(f'llama, 110M, {how}', 'train', MICRO, 2 if tiny else 10, compiled=compiled)


def generate():
    new, prompt = (8, 8) if tiny else (128, 32)
    for batch in (1, 16, 256):
        beside(f'generate, 110M, batch {batch}', 'generate', batch, 2, new=new, prompt=prompt)
    attempt('generate, with a CUDA graph and without', graph_and_eager, new, prompt)


def graph_and_eager(new, prompt):
    """Return the fraction of equal tokens with and without extras/models/graph.py, the largest
    difference of log p, and the times, for 16 prompts of different lengths, of which some stop."""
    torch.manual_seed(0)
    model = GPT(SMALL).to(device)
    idx = torch.randint(V, (16, prompt), device=device)
    for i, row in enumerate(idx):
        row[:i % prompt] = IGNORE
    rows, figures = [], {}
    for model.use_graph in True, False:
        write = lambda: model.generate(idx, new, stop=range(V // 100), seeds=range(16), with_log_p=True)
        figures['graph_ms' if model.use_graph else 'eager_ms'] = ms(write, 2)
        rows.append(write())
    n = min(len(tokens[0]) for tokens, _ in rows)
    (a, p), (b, q) = ((tokens[:, prompt:n], log_p[:, :n - prompt]) for tokens, log_p in rows)
    return figures | {'same_tokens': (a == b).float().mean().item(),
                      'log_p_apart': (p - q)[a == b].abs().max().item()}


ALL = {'machine': lambda: attempt('machine', the_machine), 'generate': generate, 'train': train,
       'large': large, 'shard': shard, 'llama': llama}
names = [*filter(None, only.split(','))] or [*ALL]
require({*names} <= {*ALL}, f'--only={only}: the measurements are {", ".join(ALL)}')
os.makedirs(out, exist_ok=True)
os.environ.setdefault('OMP_NUM_THREADS', '1' if tiny else '8')
with tempfile.TemporaryDirectory(prefix='gpu-bench-') as work:
    for name in names:
        # The compiler's cache does not know which attention was allowed, so each has its own.
        os.environ['TORCHINDUCTOR_CACHE_DIR'] = f'{work}/compiled_{name}'
        ALL[name]()
print(f'next: please send us {out}/results.jsonl, as an issue "bench/gpu.py on ..." of nanoparrot')
