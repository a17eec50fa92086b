"""
Everything that needs a GPU, in one command of at most nine minutes, most important first. Each result is a
line of JSON on stdout and in FOLDER/results.jsonl as soon as it is known, so a run that is cut keeps what it
has. A measurement that fails is a line with its error, and the next begins. Needs no network.

    python bench/gpu.py --out=FOLDER --shakespeare=FILE         # on a machine with an NVIDIA GPU
    python bench/gpu.py --out=FOLDER --only=generate,rollouts   # some of them: those that had no time left
    python bench/gpu.py --out=FOLDER --tiny=True                # all at toy sizes, on a CPU too: is it whole?

    machine         the GPU's own rates, measured: a matrix product, a copy
    equal           does it compute what the CPU computes? In float32 without TF32; how far is bfloat16?
    train           tokens a second, MFU and memory of train.py at 110M and 1.5B, beside the plan's numbers
    where           where a step's time goes
    shard           fsdp, zero2, float16 and resuming with real runs of train.py, one process over NCCL
    llama           transformers' LlamaForCausalLM, same size, dtype, optimizer and compiler
    shakespeare     config/shakespeare_gpu.py: seconds and the lowest loss; needs --shakespeare=FILE
    generate        batch 1, 16, 256, beside transformers
    rollouts        rl.py's sampling, quickstart's size, at 64, 256 and 1,024 slots

Each measurement is a process of its own with a limit of time. FOLDER/log.txt has what they said. It needs
torch with CUDA, transformers for the comparisons, and 50 GB of room for 1.5B.
"""
import collections, contextlib, copy, glob, json, os, re, shutil, signal, subprocess, sys, tempfile
import time, traceback
import numpy as np
import torch
from peers import ROOT
import gpu_calls
from configurator import configure
from gpu_calls import greedy, loss_of, ms, on_device, step_of
from model import GPT, GPTConfig
from parts.model import planner
from parts.train import objectives, processes, rollouts
from tokenizer import SPECIAL_TOKENS, Tokenizer

out = 'out/gpu'             # the folder of results.jsonl and log.txt
minutes = 9.0               # > 0: for all measurements; those that do not fit are skipped, with a line
only = ''                   # names of measurements, with commas; '' = all
tiny: bool | None = None    # True: toy sizes; None = where there is no CUDA
compiling: bool | None = None       # also with torch.compile; None = on CUDA
device = 'auto'             # auto, cpu, cuda
shakespeare = ''            # the file of Tiny Shakespeare; '' = another text: its loss compares with nothing
work = ''                   # a folder for runs, set by the script itself; '' = where there is most room
measure = ''                # set by the script itself: the measurement that this process makes
config = configure(globals())

DEADLINE = time.time() + 60 * minutes
device, dtype = processes.choose(device, 'auto')
on_gpu = device.startswith('cuda')
tiny = not on_gpu if tiny is None else tiny
compiling = on_gpu if compiling is None else compiling
gpu_calls.REPEATS = 2 if tiny else 10
V, T = (1024, 32) if tiny else (32768, 1024)
SMALL = GPTConfig(V, T, 2, 2, 0, 32) if tiny else GPTConfig(V, T, 12, 12, 0, 768)         # 110M
LARGE = GPTConfig(V, T, 3, 2, 0, 32) if tiny else GPTConfig(V, T, 48, 25, 0, 1600)        # 1.5B
MICRO = 2 if tiny else 32   # sequences at once, of the smaller


# --- results ------------------------------------------------------------------------------------------------
def tell(what, **figures):
    """One line of JSON, on stdout and in results.jsonl, at once."""
    short = {name: float(f'{x:.4g}') if isinstance(x, float) else x for name, x in figures.items()}
    line = json.dumps({'what': what, **short, 'at': time.strftime('%H:%M:%S')})
    print(line, flush=True)
    with open(f'{out}/results.jsonl', 'a', encoding='utf-8') as f:
        f.write(line + '\n')


def attempt(what, make, *args, **how):
    """Tell the figures that make(...) returns, a dict, or its error. Returns the figures, {} if none."""
    try:
        figures = make(*args, **how)
    except Exception as e:
        traceback.print_exc()
        tell(what, error=(str(e).strip().splitlines() or [''])[-1][:300], kind=type(e).__name__)
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
    """Wait for a process, at most limit seconds. RuntimeError with its last line if it failed."""
    limit = max(1, min(limit, DEADLINE - time.time() - 3))
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
        late = f'ended after its limit of {limit:.0f} s' if code == 'none' else f'exit code {code}'
        raise RuntimeError(f'{name}: {late}; {last}')


def rows_of(folder):
    with open(f'{folder}/metrics.jsonl', encoding='utf-8') as f:
        return [json.loads(line) for line in f if line.endswith('}\n')]


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
        os.makedirs(f'{folder}.new')
        n_pairs = n_vocab - 256 - len(SPECIAL_TOKENS)
        pairs = [bytes([i // 256, i % 256]) for i in range(n_pairs)]
        tokenizer = Tokenizer('bpe', [bytes([b]) for b in range(256)] + pairs, SPECIAL_TOKENS)
        tokenizer.save(f'{folder}.new/tokenizer.json')
        sizes = {'train': 4_000_000, 'val': 200_000}
        for i, (side, n) in enumerate(sizes.items()):
            ids = np.random.default_rng(i).integers(n_vocab, size=n, dtype=np.uint16)
            ids.tofile(f'{folder}.new/{side}.bin')
        with open(f'{folder}.new/meta.json', 'w', encoding='utf-8') as f:
            json.dump({'dtype': 'uint16', 'vocab_size': n_vocab, 'tokens': sizes, 'sources': {}, 'config': {},
                       'tokenizer_hash': tokenizer.hash}, f)
        os.rename(f'{folder}.new', folder)
    return folder


# --- the machine, and whether it is right -------------------------------------------------------------------
def copied():
    return gpu_calls.copy_rate(device, 2 ** (20 if tiny else 30))


def the_machine():
    n = 256 if tiny else 8192
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in 'ab')
    name = torch.cuda.get_device_name() if on_gpu else 'cpu'
    return {'device': name, 'torch': torch.__version__, 'cuda': torch.version.cuda, 'dtype': dtype,
            'python': sys.version.split()[0], 'cores': os.cpu_count(),
            'tflops_bf16': 2 * n ** 3 / ms(lambda: a @ b) / 1e9, 'copy_gb_s': copied() / 1e9,
            'tflops_datasheet': (planner.peak_flops(name) or 0) / 1e12}


def equal():
    torch.set_float32_matmul_precision('highest')           # no TF32
    torch.manual_seed(0)
    bf16 = gpu_calls.autocast(device, gpu_calls.HALF)
    for name, heads in (('all heads', 0), ('grouped heads', 2)):
        c = GPTConfig(512, 64, 2, 4, heads, 64 if tiny else 256)
        model = GPT(c)
        pair = model, copy.deepcopy(model).to(device)
        x = torch.randint(c.vocab_size, (4, 65))
        x, y = x[:, :-1].contiguous(), x[:, 1:].contiguous()
        mask, at = map(torch.from_numpy, objectives.document_mask(x.numpy() % 16, 0))
        attempt(f'equal, {name}: a pass', gpu_calls.same_pass, pair, (x, y))
        attempt(f'equal, {name}: a pass with document masks', gpu_calls.same_pass, pair, (x, y, mask, at))
        attempt(f'equal, {name}: 20 greedy tokens', gpu_calls.same_greedy, pair, x[:2, :9])
        attempt(f'equal, {name}: rollouts', gpu_calls.same_rollouts, pair, c)
        attempt(f'equal, {name}: a pass in bfloat16', gpu_calls.same_pass, pair, (x, y), autocast=bf16)
    for kind, exact in (('adamw', True), ('muon', True), ('muon', False)):
        what = f'equal: 3 steps of {kind}' + ('' if exact else ', its iteration in bfloat16')
        attempt(what, gpu_calls.same_steps, pair, kind, (x, y), exact)
    if compiling:
        net = torch.compile(pair[1])
        attempt('equal: a pass, compiled', gpu_calls.same_pass, pair, (x, y), net=net)
        what = 'equal: a pass, compiled, in bfloat16'
        attempt(what, gpu_calls.same_pass, pair, (x, y), net=net, autocast=bf16)


# --- train.py -----------------------------------------------------------------------------------------------
def train_py(name, config_file, micro, batch, limit, *flags):
    """A run that is killed once there are enough rows of metrics: nothing is saved."""
    every, steps = (2, 6) if tiny else (5, 20)
    size = ['--n_layer=2', '--n_head=2', '--n_embd=32', f'--block_size={T}', '--vocab_size=0'] if tiny else []
    folder = f'{work}/{name}'
    process = start(name, 'train.py', config_file, f'--data_dir={synthetic(V)}', f'--out_dir={folder}', *size,
                    f'--micro_batch_size={micro}', f'--batch_size={batch}', f'--log_interval={every}',
                    f'--eval_tokens={micro * T}', '--num_samples=1', '--keep=1', '--sample_tokens=1',
                    f'--device={device}', *flags)
    began = time.time()
    kill_at(steps, process, folder, limit)
    finish(name, process, limit, expected=(-9,))
    rows = [row for row in rows_of(folder) if row.get('step', 0) >= 2 * every and 'tok_s' in row]
    with open(f'{folder}/config.json', encoding='utf-8') as f:
        c = json.load(f)
    shape = vars(GPTConfig(V, c['block_size'], c['n_layer'], c['n_head'], 0, c['n_embd']).filled())
    figures = 'tok_s', 'mfu', 'dt', 'data_s'
    found = {key: float(np.median([row[key] or 0 for row in rows])) for key in figures}
    peak = max(row['memory_mb'] for row in rows) * 2 ** 20 / 1e9       # of the GPU; else of the process
    planned = planner.device_bytes(shape, 1, 0, micro, 2, c['grad_checkpoint']) / 1e9
    return found | {'memory_gb': peak, 'planned_gb': planned, 'memory_over_plan': peak / planned,
                    'flops_per_token': planner.flops_per_token(shape, c['block_size']), 'micro': micro,
                    'batch': batch, 'loss': rows[-1]['loss'], 'whole_run_s': time.time() - began}


def train():
    small, large = 'config/codeparrot_small.py', 'config/codeparrot.py'
    few = 2 if tiny else 8
    for size, config_file, micro, limit in (('110M', small, MICRO, 60), ('1.5B', large, few, 90)):
        for way in [True] * compiling + [False]:
            what = f'train.py, {size}, {"" if way else "not "}compiled'
            attempt(what, train_py, f'{size}_{way}', config_file, micro, 2 * micro, limit * (1 + way),
                    f'--compile={way}')


# --- where the time goes ------------------------------------------------------------------------------------
def where():
    model = on_device(SMALL, device)
    ways = {'compiled': torch.compile(model)} if compiling else {}
    for name, net in (ways | {'not compiled': model}).items():
        for kind in 'adamw', 'muon':
            step = step_of(model, loss_of(net, True), SMALL, MICRO, kind)
            attempt(f'where, 110M, {name}, {kind}', gpu_calls.profiled, step, on_gpu)
    model = net = step = ways = None    # room for the larger one
    large = on_device(LARGE, device)
    step = step_of(large, loss_of(large, True), LARGE, 2 if tiny else 8)
    attempt('where, 1.5B, not compiled', gpu_calls.profiled, step, on_gpu)


# --- several processes, other dtypes, resuming --------------------------------------------------------------
def shard():
    """The same small run in several ways, all at once, because none of them is timed."""
    os.environ['TORCHINDUCTOR_COMPILE_THREADS'] = '3'       # of each: they compile at the same time
    steps, half_way = (8, 4) if tiny else (20, 10)
    flags = [f'--data_dir={synthetic(1024)}', '--n_layer=2', '--n_head=2', '--n_embd=64', '--block_size=64',
             '--batch_size=8', f'--max_steps={steps}', '--warmup_steps=2', f'--save_interval={half_way}',
             f'--eval_interval={steps}', '--log_interval=1', '--eval_tokens=512', '--sample_tokens=2',
             '--num_samples=1', f'--device={device.split(":")[0]}', '--learning_rate=3e-3',
             f'--compile={compiling}']
    torchrun = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=1']
    f32 = '--dtype=float32'
    runs = {'alone': ['train.py', f32], 'alone again': ['train.py', f32],
            'ddp': [*torchrun, 'train.py', f32], 'zero2': [*torchrun, 'train.py', f32, '--shard=zero2'],
            'fsdp': [*torchrun, 'train.py', f32, '--shard=fsdp']}
    if on_gpu:
        runs['float16'] = ['train.py', '--dtype=float16']
    started = {name: start(name, *command, *flags, f'--out_dir={work}/{name}')
               for name, command in runs.items()}

    def losses(name):
        rows = rows_of(f'{work}/{name}') if os.path.exists(f'{work}/{name}/metrics.jsonl') else []
        return [row['loss'] for row in rows if 'loss' in row]

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
        for name, as_name in (('last-1.pt', 'last.pt'), ('metrics.jsonl', 'metrics.jsonl')):
            shutil.copy(f'{work}/alone/{name}', f'{work}/resumed/{as_name}')
        return compared('resumed', start('resumed', 'train.py', *flags, f32, f'--out_dir={work}/resumed',
                                         '--init_from=resume'))
    attempt('shard, resumed half-way', resumed)


# --- beside transformers ------------------------------------------------------------------------------------
def llama():
    def speed(who, compiled):
        model = on_device(SMALL, device) if who == 'ours' else gpu_calls.llama_of(SMALL, device)
        net = torch.compile(model) if compiled else model
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        took = ms(step_of(model, loss_of(net, who == 'ours'), SMALL, MICRO))
        peak = torch.cuda.max_memory_allocated() / 1e9 if on_gpu else None
        return {'tok_s': MICRO * T / took * 1000, 'step_ms': took, 'memory_gb': peak}

    for compiled in ([True] if compiling else []) + [False]:
        how = 'compiled' if compiled else 'not compiled'
        a, b = (attempt(f'llama, 110M, {how}: {who}', speed, who, compiled) for who in ('ours', 'theirs'))
        if a and b:
            tell(f'llama, 110M, {how}', ours_over_theirs=a['tok_s'] / b['tok_s'])


def shakespeare_run():
    source, data, folder = f'{ROOT}/docs/data.md', f'{work}/characters', f'{work}/shakespeare'
    if shakespeare:             # where prepare.py would put it, had it fetched the file
        source = 'shakespeare'
        os.makedirs(f'{work}/raw')
        shutil.copy(shakespeare, f'{work}/raw/shakespeare.txt')
    finish('prepare', start('prepare', 'prepare.py', f'--source={source}', '--tokenizer=char',
                            f'--out_dir={data}', f'--download_dir={work}/raw'), 60)
    size = ['--n_layer=1', '--n_head=2', '--n_embd=32', '--block_size=64', '--batch_size=4', '--max_steps=6',
            '--warmup_steps=2', '--eval_interval=3', '--eval_tokens=1000', '--log_interval=2'] if tiny else []
    began = time.time()
    process = start('shakespeare', 'train.py', 'config/shakespeare_gpu.py', f'--data_dir={data}', *size,
                    f'--out_dir={folder}', f'--device={device}', '--num_samples=1', '--sample_tokens=2')
    finish('shakespeare', process, 400, expected=(0, 'none'))       # also a part of the run has figures
    rows = rows_of(folder)
    vals = [(row['val_loss'], row['step']) for row in rows if 'val_loss' in row]
    return {'text': source, 'lowest_val_loss': min(vals)[0], 'at_step': min(vals)[1],
            'steps': rows[-1]['step'], 'seconds': time.time() - began,
            'tok_s': [row['tok_s'] for row in rows if 'tok_s' in row][-1]}


def generate():
    prompt, new = (8, 8) if tiny else (32, 128)
    model = on_device(SMALL, device).bfloat16().eval()
    rate, weights = copied(), sum(p.nbytes for p in model.parameters())

    def speed(who, batch):
        idx = torch.randint(V, (batch, prompt), device=device)
        is_ours = who == 'ours'
        net = model if is_ours else gpu_calls.llama_of(SMALL, device).bfloat16().eval()
        write = greedy(net, is_ours, idx)
        took = ms(lambda: write(new), 3 if is_ours else 1, warm=1)
        return {'tok_s': batch * new / took * 1000, 'ms_a_step': took / new,
                'share_of_copy_rate': weights * new / took * 1000 / rate}

    for batch in (1, 16, 256):
        a, b = (attempt(f'generate, 110M, batch {batch}: {who}', speed, who, batch)
                for who in ('ours', 'theirs'))
        if a and b:
            tell(f'generate, 110M, batch {batch}', ours_over_theirs=a['tok_s'] / b['tok_s'])


def rollouts_speed():
    model = GPT(GPTConfig(4096, 256, 4, 4, 0, 256)).to(device)
    dice = np.random.default_rng(0)
    stop = set(range(4096 // 40))           # the weights are random: an answer has about 40 tokens

    def speed(slots, n):
        prompts = [dice.integers(4096, size=size).tolist() for size in dice.integers(20, 60, n)]
        noise = rollouts.noise_of(1, 0, range(n), 64)
        with gpu_calls.autocast(device, dtype):
            gpu_calls.written(model, prompts[:8], noise[:8], stop, slots)
            gpu_calls.wait()
            began = time.perf_counter()
            answers = gpu_calls.written(model, prompts, noise, stop, slots)
        took = time.perf_counter() - began
        return {'tok_s': sum(len(a.ids) for a in answers) / took, 'answers': n, 'seconds': took}

    for slots in (64, 256, 1024):
        attempt(f'rollouts, quickstart, {slots} slots', speed, slots, 16 if tiny else 2048)


# --- one process for each measurement -----------------------------------------------------------------------
ALL = {     # the call, the seconds that it needs at least, and those that it gets at most
    'machine': (lambda: attempt('machine', the_machine), 15, 40), 'equal': (equal, 20, 90),
    'train': (train, 40, 330), 'where': (where, 40, 150), 'shard': (shard, 40, 110),
    'llama': (llama, 40, 120),
    'shakespeare': (lambda: attempt('shakespeare_gpu', shakespeare_run), 40, 480),
    'generate': (generate, 25, 120), 'rollouts': (rollouts_speed, 20, 60)}


def main():
    global work
    os.makedirs(out, exist_ok=True)
    open(f'{out}/results.jsonl', 'w').close()
    if unknown := set(filter(None, only.split(','))) - set(ALL):
        raise ValueError(f'only={only}: there is no {", ".join(sorted(unknown))}; there are {", ".join(ALL)}')
    room = lambda folder: shutil.disk_usage(folder).free if os.path.isdir(folder) else 0
    places = tempfile.gettempdir(), os.path.abspath(out), '/dev/shm'
    work = tempfile.mkdtemp(prefix='gpu-bench-', dir=max(places, key=room))
    env = {**os.environ, 'OMP_NUM_THREADS': os.environ.get('OMP_NUM_THREADS', '1' if tiny else '8')}
    with open(f'{out}/log.txt', 'wb') as log:
        for name in filter(None, only.split(',')) if only else ALL:
            _, least, most = ALL[name]
            left = DEADLINE - time.time()
            if left < (2 if tiny else least):
                tell(name, skipped=f'{left:.0f} s are left, and it needs {least} at least')
                continue
            limit = min(most, left)
            flags = {**config, 'measure': name, 'work': work, 'tiny': tiny, 'minutes': limit / 60, 'only': ''}
            flags = [f'--{key}={value}' for key, value in flags.items()]
            command = [sys.executable, os.path.abspath(__file__), *flags]
            process = subprocess.Popen(command, stderr=log, env=env)
            try:
                code = process.wait(limit + 2)
            except subprocess.TimeoutExpired:
                end(process.pid)
                code = f'{process.wait()}, after its limit of {limit:.0f} s'
            if code != 0:
                tell(name, error=f'exit code {code}; see log.txt')
    shutil.rmtree(work, ignore_errors=True)
    with open(f'{out}/results.jsonl', encoding='utf-8') as f:
        rows = [json.loads(line) for line in f]
    count = lambda key: sum(key in row for row in rows)
    wrong = [row['what'] for row in rows if row.get('ok') is False]
    tell('all', results=len(rows), errors=count('error'), skipped_ones=count('skipped'), not_equal=wrong,
         minutes=minutes - (DEADLINE - time.time()) / 60)


if measure:
    ALL[measure][0]()
else:
    main()
