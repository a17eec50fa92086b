"""
How a script that needs a model begins: the model, the machine, and for trainers the settings of a
run that goes on, and its folder. Each function is called once; none holds a run or calls you back.

    source, state, changed = resume_or_start(config, explicit, fixed='batch_size seed')
    globals().update(config)                # a run that goes on has its saved settings
    model, tokenizer = load_model(source)
    device_type, device, dtype, rank, world = init_device(device, dtype)
    init_out_dir(config, source)            # when nothing can be wrong any more

A trainer that is never resumed needs no resume_or_start: source, state, changed = init_from, {}, []
"""
import atexit, json, os, pathlib, shutil
import torch
import torch.distributed as dist
from configurator import UserError, require
from model import GPT
from tokenizer import Tokenizer


def folder_of(path):
    """Return the folder of a run, given that folder or a file in it."""
    return pathlib.Path(path) if os.path.isdir(path) else pathlib.Path(path).parent


def load_model(path, scores=False, **changes):
    """Return a model that continues texts, and the tokenizer next to it. scores: it may also be a
    reward model. changes: of its config, such as dropout=0.1."""
    torch.backends.cuda.enable_cudnn_sdp(False)     # it plans anew for each length of a text
    require(os.path.exists(path), f'{path} does not exist; give the folder of a run or a file in '
            'it; for a first one, run: python clean.py && python prepare.py && python train.py, '
            'and for one that answers: python chats.py && python sft.py')
    model = GPT.load(path, **changes)
    saved = model.saved
    tokenizer = Tokenizer.load(folder_of(path) / 'tokenizer.json', saved.get('tokenizer_hash'))
    is_clm = model.config.causal and saved.get('config', {}).get('objective', 'clm') == 'clm'
    require(is_clm and (scores or 'reward_head' not in saved), f'{path} continues no text: it is a '
            'reward model, which scores answers, or fills gaps (--objective=mlm or span: python -m '
            'extras.models.fill)')
    return model, tokenizer


def init_device(device, dtype):
    """Return what this process computes with, such as 'cuda', 'cuda:1' and 'bfloat16', its rank,
    and the number of processes. torchrun starts one for each device, and tells each its rank: then
    they meet here. On a GPU also choose the device, and TF32 for products that stay float32."""
    world = int(os.environ.get('WORLD_SIZE', 1))
    rank, local_rank = (int(os.environ[name]) if world > 1 else 0
                        for name in ('RANK', 'LOCAL_RANK'))
    mps = torch.backends.mps.is_available() and world == 1      # no backend joins several
    here = ['cpu'] + ['mps'] * mps + ['cuda'] * torch.cuda.is_available()
    device_type = here[-1] if device == 'auto' else device
    require(device_type in here, f'{device=} is not here; try --device=auto')
    is_native = device_type == 'cpu' and torch.cpu._is_avx512_bf16_supported()
    if device_type == 'cuda':
        torch.cuda.set_device(local_rank)
        torch.set_float32_matmul_precision('high')
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


def resume_or_start(config, explicit, fixed, again=''):
    """Return where a run gets its weights, a path or 'scratch'; the checkpoint from which it goes
    on, or {} for a new run; and what the command changes in it, such as ['seed 1 -> 2'].

    A run that goes on has its saved settings, except those that are typed now. Those in `fixed` may
    not change. Those in `again` permit or execute something: they are never taken over."""
    out, source = pathlib.Path(config['out_dir']), config['init_from']
    checkpoints = [path for path in (out / 'last.pt', out / 'last-1.pt') if path.exists()]
    if source == 'auto':
        source = config['init_from'] = 'resume' if checkpoints else 'scratch'
    if source != 'resume':
        check_folder(out, source, config['overwrite'])
        return source, {}, []

    for source in checkpoints:
        try:
            state = torch.load(source, map_location='cpu', weights_only=True)
            break
        except Exception as error:      # a crash or a full disk may have damaged last.pt
            print(f'{source} cannot be read ({error!r:.80})')
    else:
        raise UserError(f'{out} has no last.pt that can be read, so leave --init_from=resume out; '
                        'if best.pt is there and may go, type --overwrite')
    saved = state['config']
    whose, ours = (settings.get('stage', 'train') for settings in (saved, config))
    require(whose == ours, f'{source} is a run of {whose}.py, which resumes it; to begin with its '
            f'model: --init_from={out}, and another --out_dir')
    require(saved.keys() <= config.keys(), f'{source} has settings that this {ours}.py has not: '
            f'{sorted(saved.keys() - config.keys())}; resume it with the version that wrote it')
    require(not config['overwrite'], f'leave --overwrite out: it deletes {out}, which you resume')
    changed = []
    for name in saved.keys() - {'out_dir', 'overwrite'}:
        if name not in {*explicit, *again.split()} or name == 'init_from':     # where it once began
            config[name] = saved[name]
        elif config[name] != saved[name]:
            require(name not in fixed.split(), f'leave {name} out: the run has {saved[name]!r}')
            changed.append(f'{name} {saved[name]} -> {config[name]}')
    return source, state, sorted(changed)


def check_folder(out, source, overwrite):
    """Refuse a folder for a new run that holds text, tokens or a model of others, the model that
    the run begins with, or another run, unless --overwrite is given."""
    others = [path.name for mark in ('meta.json', 'train.jsonl', '*.bin', '*.safetensors')
              for path in out.glob(mark)]
    require(not others and not out.is_file(),
            f'{out} is no folder for a run: it has {others[:1]}; choose another --out_dir')
    require(source == 'scratch' or out.resolve() != folder_of(source).resolve(),
            f'{out} has the model that this run begins with; choose another --out_dir')
    has_run = any((out / name).exists() for name in ('last.pt', 'last-1.pt', 'best.pt'))
    require(overwrite or not has_run,
            f'{out} has a run: either --init_from=resume goes on, or --overwrite deletes it')
    require(not overwrite or os.environ.get('TORCHELASTIC_MAX_RESTARTS', '0') == '0',
            'leave --overwrite out: after a crash, torchrun would begin anew and delete this run')


def init_out_dir(config, source):
    """Make out_dir, without the run that --overwrite deletes. Write config.json, for people, and
    copy data.json, what the model that the run begins with has read, for eval.py."""
    out, data = pathlib.Path(config['out_dir']), folder_of(source) / 'data.json'
    out.mkdir(parents=True, exist_ok=True)
    if config['overwrite']:
        for name in RESULTS:
            (out / name).unlink(missing_ok=True)
    (out / 'config.json').write_text(json.dumps(config, indent=1), 'utf-8')
    if data.exists() and data.parent.resolve() != out.resolve():
        shutil.copy(data, out)
