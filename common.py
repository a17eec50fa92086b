"""
Shared setup: load a checkpoint, choose the device, resume a run, create its output directory.
A script calls each function once, at its start. None of them holds a run or calls you back.

    source, state, changed = resume_or_start(config, explicit, fixed='batch_size seed')
    globals().update(config)                # a resumed run has the settings of its checkpoint
    model, tokenizer = load_model(source)
    device_type, device, dtype, rank, world = init_device(device, dtype)
    init_out_dir(config, source, tokenizer)     # last, when nothing can be wrong any more

A trainer that is never resumed needs no resume_or_start: source, state, changed = init_from, {}, []
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
    """Return the model of a run, which must be one that continues texts, and its tokenizer.

    trained_by: the script that trains the kind of model that you need. Where path does not exist,
    the error says to run it. With 'sft.py', a base model is loaded, too, but a note says that it
    has not learned to answer. changes: of the model's config, such as dropout=0.1."""
    require(os.path.exists(path), f'{path} does not exist; give the folder of a run or a file in '
            f'it, or make one: python {trained_by}')
    model = GPT.load(path, **changes)
    run_config = model.saved.get('config', {})
    saved_hash = model.saved.get('tokenizer_hash')
    tokenizer = Tokenizer.load(folder_of(path) / 'tokenizer.json', saved_hash)
    is_clm = model.config.causal and run_config.get('objective', 'clm') == 'clm'
    require(is_clm and (allow_reward_model or 'reward_head' not in model.saved),
            f'{path} continues no text: it is a reward model, which scores answers, or fills gaps '
            '(mlm, span: python -m extras.models.fill)')
    if trained_by == 'sft.py' and 'objective' in run_config and is_main_process():
        print(f'note: {path} is a base model, which has not learned to answer; sft.py teaches it')
    return model, tokenizer


# where torchrun, Slurm's srun and mpirun tell a process how many there are
PROCESS_COUNTS = 'WORLD_SIZE', 'SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE', 'PMI_SIZE'


def is_main_process():
    """Whether this process has rank 0, as a single one has. Several processes that have not been
    told how to meet are refused, because each would train a model of its own."""
    n = max(int(os.environ.get(name, 1)) for name in PROCESS_COUNTS)
    can_meet = {'RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'} <= os.environ.keys()
    require(can_meet or n == 1 and 'RANK' not in os.environ, f'one of {n} processes, which meet by '
            'RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT: set them, or let srun start a torchrun '
            'on each node (docs/training.md); for independent runs, unset SLURM_STEP_NUM_TASKS')
    return os.environ.get('RANK', '0') == '0'


def init_device(device, dtype, one_length=False):
    """Return what this process computes with, such as 'cuda', 'cuda:1' and 'bfloat16', its rank,
    and the number of processes. torchrun starts one for each device, and tells each its rank: then
    they meet here. Without LOCAL_RANK, process 9 takes device 1 of 8. On a GPU also choose TF32 for
    products that stay float32, and cuDNN's attention only if all texts have one length, because it
    plans anew for each length."""
    world = int(os.environ.get('WORLD_SIZE', 1))
    rank = int(os.environ.get('RANK', 0))
    local_rank = int(os.environ.get('LOCAL_RANK', rank % max(1, torch.cuda.device_count())))
    mps = torch.backends.mps.is_available() and world == 1      # no backend joins several
    here = ['cpu'] + ['mps'] * mps + ['cuda'] * torch.cuda.is_available()
    device_type = here[-1] if device == 'auto' else device
    require(device_type in here, f'{device=} is not here; try --device=auto')
    is_native = device_type == 'cpu' and torch.cpu._is_avx512_bf16_supported()
    if device_type == 'cuda':
        torch.cuda.set_device(local_rank)
        torch.set_float32_matmul_precision('high')
        torch.backends.cuda.enable_cudnn_sdp(one_length)
        is_native = torch.cuda.get_device_capability()[0] >= 8
    if dtype == 'auto':         # older GPUs and many CPUs only emulate bfloat16, slowly
        dtype = 'bfloat16' if is_native else 'float32'
    if 'RANK' in os.environ:            # of torchrun, also for one process
        dist.init_process_group('nccl' if device_type == 'cuda' else 'gloo')
        atexit.register(dist.destroy_process_group)
    device = f'cuda:{local_rank}' if device_type == 'cuda' else device_type
    return device_type, device, dtype, rank, world


# --- a trainer's run ------------------------------------------------------------------------------
# What it and its evaluation leave in out_dir: --overwrite removes these, and no other files.
RESULTS = ('last.pt last-1.pt best.pt metrics.jsonl train.log samples.txt data.json eval.json '
           'samples.jsonl compare.json').split()


def resume_or_start(config, explicit, fixed, not_restored=''):
    """Return where a run gets its weights, a path or 'scratch'; the checkpoint that it resumes, or
    {} for a new run; and what the command changes in it, such as ['seed 1 -> 2'].

    init_from=auto resumes the run in out_dir, or if there is none, starts from what auto replaces:
    the init_from of a preset, or the default. On resume, config gets the settings of the
    checkpoint, except those in `explicit`, which config files and flags have set, and those in
    `not_restored`, which enable code execution: pass them every time. Settings in `fixed` cannot
    change."""
    out, source = pathlib.Path(config['out_dir']), config['init_from']
    # A trainer that was copied without files.py runs unlocked: then only one may write to out_dir.
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
    whose, ours = (settings.get('stage', 'train') for settings in (saved, config))
    require(whose == ours, f'{source} is a run of {whose}.py, which resumes it; to begin with its '
            f'model: --init_from={out}, and another --out_dir')
    require(saved.keys() <= config.keys(), f'{source} has settings that this {ours}.py lacks: '
            f'{sorted(saved.keys() - config.keys())}; resume it with the version that wrote it')
    require(not config['overwrite'], f'--init_from=resume resumes {out}, and overwrite=True '
            'deletes it: end the command with --overwrite=False, or name another --init_from')
    changed = []
    for name in saved.keys() - {'out_dir', 'overwrite'}:
        if name not in {*explicit, *not_restored.split()} or name == 'init_from':
            config[name] = saved[name]          # init_from is that of the first command
        elif config[name] != saved[name]:
            require(name not in fixed.split(),
                    f'{name} cannot change on resume (this run uses {saved[name]!r})')
            changed.append(f'{name.replace("_hash", " edited:")} {saved[name]} -> {config[name]}')
    return source, state, sorted(changed)


def lock_out_dir(out):
    """Refuse a folder that cannot be written, or that another process writes to. The lock lasts
    until this process ends, also by kill -9. Otherwise nothing of the lock stays behind."""
    from files import WORK, lock_folder
    new = [folder for folder in (out, *out.parents) if not folder.exists()]
    lock = lock_folder(out)

    def unlock():
        with contextlib.suppress(OSError):      # a folder with other files in it stays
            os.unlink(lock.lock_file)           # while it is held, so that nobody can get it
            for folder in (out / WORK, *new):
                folder.rmdir()
        lock.release()

    at_exit.callback(unlock)


def check_out_dir(out, source, overwrite):
    """Refuse a folder for a new run that holds text, tokens or a model of others, the model that
    the run begins with, or another run, unless --overwrite is given."""
    for mark in 'meta.json', 'train.jsonl', '*.bin', '*.safetensors':
        require(not [*out.glob(mark)], f'{out} has {mark}, not a run; choose another --out_dir')
    require(source == 'scratch' or out.resolve() != folder_of(source).resolve(),
            f'{out} has the model that this run begins with; choose another --out_dir')
    require(overwrite or not any((out / name).exists() for name in RESULTS[:3]),    # its weights
            f'{out} has a run: --init_from=resume resumes it, or --overwrite deletes it')
    require(not overwrite or os.environ.get('TORCHELASTIC_MAX_RESTARTS', '0') == '0',
            'leave --overwrite out: after a crash, torchrun would begin anew and delete this run')


def init_out_dir(config, source, tokenizer):
    """Make out_dir, without the run that --overwrite deletes. Write config.json, for people, and
    tokenizer.json, and copy data.json, what the model that the run begins with has read, for
    eval.py."""
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
