"""
Shared setup: load a checkpoint, choose the device, resume a run, create its output directory.
A script calls each function once, when it starts. There is no Trainer class and no callback.

    source, state, changed = resume_or_start(config, explicit, fixed='batch_size seed')
    globals().update(config)                # a resumed run has the settings of its checkpoint
    model, tokenizer = load_model(source)
    device_type, device, dtype, rank, world = init_device(device, dtype)
    init_out_dir(config, source, tokenizer)     # last, after all settings have been checked

A trainer that can't be resumed sets source, state, changed = init_from, {}, [] instead.
"""
import atexit, contextlib, importlib.util, json, os, pathlib, shutil
import torch
import torch.distributed as dist
from configurator import UserError, at_exit, require
from model import GPT
from tokenizer import Tokenizer


def folder_of(path):
    """Return the folder of a run, given that folder or a file in it."""
    return pathlib.Path(path) if os.path.isdir(path) else pathlib.Path(path).parent


def load_model(path, trained_by='train.py', allow_reward_model=False, **changes):
    """Return the causal language model of a run, and its tokenizer.

    trained_by: the script to run if path does not exist, named in the error. With 'sft.py', loading
    a base model prints a note. allow_reward_model: accept a reward model, too. changes: overrides
    of the model's config, such as dropout=0.1."""
    require(os.path.exists(path), f'{path} does not exist; give the folder of a run, a file in it '
            f'or a downloaded Hugging Face folder, or make one: python {trained_by}')
    model = GPT.load(path, **changes)
    run_config = model.saved.get('config', {})
    saved_hash = model.saved.get('tokenizer_hash')
    tokenizer = Tokenizer.load(folder_of(path) / 'tokenizer.json', saved_hash)
    is_clm = model.config.causal and run_config.get('objective', 'clm') == 'clm'
    require(is_clm and (allow_reward_model or 'reward_head' not in model.saved),
            f'{path} is not a causal language model: it is a reward model, or fills in masked text '
            '(mlm, span: python -m extras.models.fill)')
    if trained_by == 'sft.py' and 'objective' in run_config and is_main_process():
        print(f'note: {path} is a base model, which has not learned to answer; run sft.py first')
    return model, tokenizer


# environment variables with the number of processes, of torchrun, Slurm's srun and mpirun
PROCESS_COUNTS = 'WORLD_SIZE', 'SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE', 'PMI_SIZE'


def is_main_process():
    """Return whether this process has rank 0, as a single process does. Refuse several processes
    without torch.distributed's environment variables: each would train a model of its own."""
    rank, n, *address = map(os.environ.get, 'RANK WORLD_SIZE MASTER_ADDR MASTER_PORT'.split())
    has_rendezvous = all((n, *address)) and n.isdecimal() and rank in map(str, range(int(n)))
    found = {name: os.environ[name] for name in ('RANK', *PROCESS_COUNTS) if name in os.environ}
    require(has_rendezvous or rank is None and {*found.values()} <= {'', '1'}, f'{found} is set: '
            'each process needs MASTER_ADDR, MASTER_PORT, RANK below WORLD_SIZE; run torchrun on '
            'each node with srun (docs/training.md); for independent runs, unset these variables')
    return rank in (None, '0')


def init_device(device, dtype, one_length=False):
    """Return device type, device, dtype, rank and number of processes, such as 'cuda', 'cuda:1',
    'bfloat16', 1, 8. With torchrun, also initialize the process group. Without LOCAL_RANK, rank 9
    uses device 1 of 8. On a GPU, also enable TF32 for float32 matrix products. one_length: whether
    all texts have one length. If not, cuDNN's attention is disabled, because it makes a new plan
    for each length."""
    world = int(os.environ.get('WORLD_SIZE') or 1)
    rank = int(os.environ.get('RANK', 0))
    local_rank = int(os.environ.get('LOCAL_RANK', rank % max(1, torch.cuda.device_count())))
    mps = torch.backends.mps.is_available() and world == 1      # no distributed backend supports it
    available = ['cpu'] + ['mps'] * mps + ['cuda'] * torch.cuda.is_available()
    device_type = available[-1] if device == 'auto' else device
    require(device_type in available, f'{device=} is not available; try --device=auto')
    has_bfloat16 = device_type == 'cpu' and torch.cpu._is_avx512_bf16_supported()
    if device_type == 'cuda':
        torch.cuda.set_device(local_rank)
        torch.set_float32_matmul_precision('high')
        torch.backends.cuda.enable_cudnn_sdp(one_length)
        has_bfloat16 = torch.cuda.get_device_capability()[0] >= 8
    if dtype == 'auto':         # older GPUs and many CPUs only emulate bfloat16, slowly
        dtype = 'bfloat16' if has_bfloat16 else 'float32'
    if 'RANK' in os.environ:            # set by torchrun, also for one process
        dist.init_process_group('nccl' if device_type == 'cuda' else 'gloo')
        atexit.register(dist.destroy_process_group)
    device = f'cuda:{local_rank}' if device_type == 'cuda' else device_type
    return device_type, device, dtype, rank, world


# --- a trainer's run ------------------------------------------------------------------------------
# The files that a run and its evaluation write: --overwrite deletes these, and no other files.
RESULTS = ('last.pt last-1.pt best.pt metrics.jsonl train.log samples.txt data.json eval.json '
           'samples.jsonl compare.json').split()


def resume_or_start(config, explicit, fixed, not_restored=''):
    """Return the path of the initial weights, or 'scratch'; the checkpoint to resume, or {} for a
    new run; and the settings that the command changes on resume, such as ['dropout 0.0 -> 0.1'].

    init_from=auto resumes the run in out_dir. If there is none, it starts from the init_from that
    auto has replaced: that of a config file, or the default. On resume, settings are restored from
    the checkpoint, except those in `explicit`, which config files and flags have set, and those in
    `not_restored`, such as settings that enable code execution: pass them every time. Settings in
    `fixed` cannot change."""
    out, source = pathlib.Path(config['out_dir']), config['init_from']
    # Without files.py (in a copy of a trainer), nothing prevents two runs in one out_dir.
    if is_main_process() and importlib.util.find_spec('files'):
        lock_out_dir(out)
    checkpoints = [path for path in (out / 'last.pt', out / 'last-1.pt') if path.exists()]
    if source == 'auto':
        start = explicit.get('init_from', 'scratch')
        source = config['init_from'] = 'resume' if checkpoints else start
    if source != 'resume':
        check_out_dir(out, source, config['overwrite'])
        return source, {}, []

    for source in checkpoints:
        try:
            state = torch.load(source, map_location='cpu', weights_only=True, mmap=True)
            break
        except Exception as error:      # a crash or a full disk may have damaged last.pt
            print(f'{source} cannot be read ({error!r:.80})')
    else:
        raise UserError(f'{out} has no last.pt that can be read, so it cannot be resumed; begin a '
                        'new run without --init_from=resume, in another --out_dir')
    saved = state['config']
    saved_stage, stage = (settings.get('stage', 'train') for settings in (saved, config))
    require(saved_stage == stage, f'{source} is a run of {saved_stage}.py, not {stage}.py; to '
            f'start from its model, use --init_from={out} and another --out_dir')
    require(saved.keys() <= config.keys(), f'{source} has settings that this {stage}.py lacks: '
            f'{sorted(saved.keys() - config.keys())}; resume it with the version that wrote it')
    require(not config['overwrite'], f'--init_from=resume resumes {out}, but overwrite=True '
            'deletes it: add --overwrite=False at the end, or use another --init_from')
    changed = []
    for name in saved.keys() - {'out_dir', 'overwrite'}:
        if name not in {*explicit, *not_restored.split()} or name == 'init_from':
            config[name] = saved[name]          # init_from keeps its original value
        elif config[name] != saved[name]:
            require(name not in fixed.split(),
                    f'{name} cannot change on resume (this run uses {saved[name]!r})')
            changed.append(f'{name.replace("_hash", " edited:")} {saved[name]} -> {config[name]}')
    require(state['step'] <= (config['max_steps'] or state['step']), f'{source} is at step '
            f'{state["step"]}, beyond max_steps={config["max_steps"]}; set a larger --max_steps')
    return source, state, sorted(changed)


def lock_out_dir(out):
    """Refuse a folder that is not writable, or that another process writes to. The lock is released
    when this process ends, even by kill -9. Any other exit also deletes the lock file."""
    from files import WORK, lock_folder
    new_folders = [folder for folder in (out, *out.parents) if not os.path.exists(folder)]
    lock = lock_folder(out)

    def unlock():
        with contextlib.suppress(OSError):      # a folder that is not empty is kept
            os.unlink(lock.lock_file)           # while it is held, so that nobody else takes it
            for folder in (out / WORK, *new_folders):
                folder.rmdir()

    at_exit.callback(unlock)


def check_out_dir(out, source, overwrite):
    """Refuse an out_dir for a new run if it contains data or exported models, the model that the
    run starts from, or, without --overwrite, another run."""
    for glob in 'meta.json', 'train.jsonl', '*.bin', '*.safetensors':
        require(not [*out.glob(glob)], f'{out} has {glob}, not a run; choose another --out_dir')
    require(source == 'scratch' or out.resolve() != folder_of(source).resolve(),
            f'{out} has the model that this run starts from; choose another --out_dir')
    require(overwrite or not any((out / name).exists() for name in RESULTS[:3]),    # checkpoints
            f'{out} has a run: --init_from=resume resumes it, or --overwrite deletes it')
    require(not overwrite or os.environ.get('TORCHELASTIC_MAX_RESTARTS', '0') == '0',
            'remove --overwrite: after a crash, torchrun would restart with it and delete this run')


def init_out_dir(config, source, tokenizer):
    """Create out_dir. With --overwrite, delete the run in it. Write config.json, for people, and
    tokenizer.json. Copy data.json, the record of the initial model's training data, for eval.py."""
    out, data = pathlib.Path(config['out_dir']), folder_of(source) / 'data.json'
    out.mkdir(parents=True, exist_ok=True)
    for name in RESULTS if config['overwrite'] else []:
        (out / name).unlink(missing_ok=True)
    if source == out / 'last-1.pt':     # the damaged last.pt must not become last-1.pt
        (out / 'last.pt').unlink(missing_ok=True)
    (out / 'config.json').write_text(json.dumps(config, indent=1), 'utf-8')
    tokenizer.save(out / 'tokenizer.json')
    if data.exists() and data.parent.resolve() != out.resolve():
        shutil.copy(data, out)
