"""
Checkpoints: files that are never half written, and the ways in which a run begins.

    write('last.pt', {'model': model.state_dict(), 'step': 3})
    state = read('last.pt')                     # tensors, numbers, strings, lists and dicts: weights_only
    rotate('out/base/last.pt', keep=2)          # last.pt.new -> last.pt -> last-1.pt

`load` stands for model.load_checkpoint, a function path -> (model, the rest of the checkpoint).
Copy this file alone: it needs torch.
"""
import contextlib, glob, os, pathlib
import torch

# --- one file -----------------------------------------------------------------------------------------------
def write(path, state):
    """Write state beside path, flush it, then rename it: a crash or a full disk leaves the old file."""
    try:
        with open(f'{path}.tmp', 'wb') as f:
            torch.save(state, f)
            f.flush()
            os.fsync(f.fileno())
        torch.load(f'{path}.tmp', 'meta', weights_only=True)        # can it be read?
        os.replace(f'{path}.tmp', path)
    except Exception as e:                              # torch wraps a failed write in a RuntimeError
        pathlib.Path(f'{path}.tmp').unlink(missing_ok=True)
        if not isinstance(e, OSError | RuntimeError):
            e = ValueError('a value is not a tensor, number, text, list or dict, and could not be read again')
        raise OSError(f'cannot write {path} ({e}); the file that was there before is unchanged') from e


def find(path):
    """A file or a Hugging Face folder: itself. A run's folder: best.pt, else last.pt, else last-1.pt..."""
    if os.path.isdir(path):
        for name in ('best.pt', 'last.pt', *(f'last-{i}.pt' for i in range(1, 100))):
            if os.path.exists(os.path.join(path, name)):
                return os.path.join(path, name)
        if any(name.endswith('.safetensors') for name in os.listdir(path)):
            return path
        raise FileNotFoundError(f'{path} holds no best.pt, last.pt or *.safetensors; run train.py first')
    if not os.path.exists(path):
        raise FileNotFoundError(f'{path} does not exist; expected a checkpoint file or the out_dir of a run')
    return path


def read(path, device='cpu'):
    """The state that write() wrote. ValueError if the file is damaged or not a checkpoint."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as e:                          # torch raises many kinds for a damaged or foreign file
        raise unreadable(path, e) from e


def unreadable(path, e):
    """The error that says why path is not a checkpoint of ours."""
    reason = (str(e).strip().splitlines() or [''])[0].split('. ')[0]    # not torch's advice to run it
    if 'memory' in reason:
        return MemoryError(f'{path}: {reason}')
    return ValueError(f'{path} is not a readable checkpoint ({type(e).__name__}: {reason}); use another')


def rotate(path, keep):
    """path.new becomes path, the old path becomes path-1, and so on; `keep` files stay."""
    stem = path.removesuffix('.pt')
    names = [path, *(f'{stem}-{i}.pt' for i in range(1, keep))]
    for i in range(len(names) - 1, 1, -1):          # last-2.pt -> last-3.pt, then last-1.pt -> last-2.pt
        if os.path.exists(names[i - 1]):
            os.replace(names[i - 1], names[i])
    if keep > 1 and os.path.exists(path):
        pathlib.Path(names[1]).unlink(missing_ok=True)
        try:            # a second name for the same file: at no moment is there no last.pt
            os.link(path, names[1])
        except OSError:                             # a file system without hard links
            os.replace(path, names[1])
    os.replace(f'{path}.new', path)


# --- how a run begins ---------------------------------------------------------------------------------------
def folder_of(path):
    """The folder of a run, given itself or a checkpoint in it."""
    return path if os.path.isdir(path) else os.path.dirname(path)


def check_out_dir(out_dir, init_from, overwrite):
    """Refuse to overwrite a run, and the model that this run starts from. Returns the path of last.pt."""
    if not out_dir:
        raise ValueError('out_dir is empty; expected a folder to write into, as in --out_dir=out/mine')
    if init_from not in ('scratch', 'resume') and \
            os.path.realpath(folder_of(init_from)) == os.path.realpath(out_dir):
        raise ValueError(f'out_dir={out_dir} holds the model that this run starts from; choose another')
    if init_from != 'resume' and glob.glob(os.path.join(glob.escape(out_dir), '*.pt')) and not overwrite:
        raise ValueError(f'{out_dir} already holds a run; resume it with --init_from=resume, or choose '
                         'another --out_dir, or start over with --overwrite=True')
    return os.path.join(out_dir, 'last.pt')


def load_finite(path, load):
    """The model and the state at path. ValueError if weights are nan or inf: every loss would be, too."""
    model, state = load(path)
    for name, p in model.state_dict().items():
        if not p.isfinite().all():
            raise ValueError(f'{path}: the weights {name} are not finite; start from another checkpoint')
    return model, state


def newest(last_path, load):
    """The model and the state of last.pt, or, if it is damaged, of the newest older checkpoint."""
    stem = last_path.removesuffix('.pt')
    paths = [last_path, *filter(os.path.exists, (f'{stem}-{i}.pt' for i in range(1, 100)))]
    if not os.path.exists(paths[-1]):
        raise FileNotFoundError(f'{last_path} does not exist: no run here was saved; start one without '
                                '--init_from=resume, with --overwrite=True if its folder is not empty')
    for path in paths:
        try:
            return load_finite(path, load)
        except (ValueError, FileNotFoundError) as e:
            if path == paths[-1]:
                raise
            print(f'{e}\nresuming from an older checkpoint')
            with contextlib.suppress(OSError):      # else rotate() would push a good one out
                os.replace(path, f'{path}.damaged')


def must_agree(last_path, before, now, names):
    """Refuse to resume with another value of a setting that the weights or the optimizer depend on."""
    for name in names:
        if now[name] != before.get(name, now[name]):
            raise ValueError(f'{last_path} has {name}={before[name]}, this run has {now[name]}; resume with '
                             "the run's own settings, or choose another --out_dir")


def same_tokenizer(one, its_hash, other, other_hash):
    """Refuse a model and data, at the paths `one` and `other`, with different tokenizers. None: not known."""
    if None not in (its_hash, other_hash) and its_hash != other_hash:
        raise ValueError(f'{one} was made with the tokenizer of hash {its_hash}, {other} has {other_hash}: '
                         'the same ids mean different text; prepare with --tokenizer=FOLDER/tokenizer.json')


def same_data(last_path, its_digest, path, digest, out_dir):
    """Refuse to resume on other data."""
    if its_digest != digest:
        raise ValueError(f'{path} is not the data that {last_path} was trained on; resume with those, or '
                         f'start from its weights: --init_from={out_dir} and another --out_dir')


def check_context(init_from, context, block_size):
    """Refuse sequences that are longer than a model's context."""
    if block_size > context:
        raise ValueError(f'{init_from} has a context of {context} tokens, less than block_size={block_size}; '
                         f'set --block_size={context}, or extend it: train.py --rope_scaling=llama3')


def longer_context(init_from, config, block_size, rope_theta, rope_scaling):
    """The fields of GPTConfig, `config`, that change if the model of init_from reads block_size tokens at a
    time. rope_scaling: linear or llama3 (see rope_table in model.py), by block_size / the first context."""
    context, before = config['block_size'], config['rope_scaling']
    first = before[3] if len(before) == 4 else context / (before or [1])[0]     # tokens of the first training
    factor = block_size / first
    changes = {'rope_theta': rope_theta or config['rope_theta'], 'block_size': max(context, block_size)}
    if rope_scaling == 'none' and not rope_theta:
        check_context(init_from, context, block_size)
    if rope_scaling != 'none' and block_size <= context:
        raise ValueError(f'rope_scaling={rope_scaling} makes a context longer; set --block_size above the '
                         f'{context} tokens of {init_from}, or leave --rope_scaling=none')
    scaling = {'none': before, 'linear': (factor,), 'llama3': (factor, 1.0, 4.0, first)}
    return changes | {'rope_scaling': scaling[rope_scaling]}


def check_pretraining(last_path, state, config, meta, shards, world):
    """Refuse to resume train.py's run as another model or on other data. shards: [{name: SHA-256}]."""
    if 'data_sha256' not in state:
        raise ValueError(f'{last_path} was not written by train.py; resume with the script that wrote it')
    fixed = ('n_layer', 'n_head', 'n_kv_head', 'n_embd', 'n_ffn', 'block_size', 'tie_embeddings', 'dropout',
             'objective', 'batch_size', 'optimizer', 'embedding_lr', 'rope_theta', 'rope_scaling',
             'vocab_multiple')
    must_agree(last_path, state['config'], config, fixed)
    train = config['streaming'] or f'{config["data_dir"]}/train.bin'
    same_data(last_path, state['data_sha256'], train, meta['sha256']['train'], config['out_dir'])
    names = sorted(name for hashes in shards for name in hashes)
    if state['shards'] != names or len(state['stream']) not in (0, world):
        raise ValueError(f'{last_path} comes from {len(state["shards"])} shards and {len(state["stream"])} '
                         f'processes, this run has {len(names)} and {world}: resume with the same')
    same_data(last_path, state.get('shard_sha256', shards), config['streaming'], shards, config['out_dir'])


# --- from the weights of another run ------------------------------------------------------------------------
def pretrained(init_from, load, load_tokenizer, tokenizer, data_dir, extend_vocab):
    """The model of init_from, to be trained on data of `tokenizer`. That must be the model's own one, unless
    extend_vocab carries the embeddings over."""
    model, state = load_finite(init_from, load)
    beside = os.path.join(folder_of(init_from), 'tokenizer.json')
    its_hash = state.get('tokenizer_hash')
    if extend_vocab or (not state and os.path.exists(beside)):      # no state: a folder of Hugging Face's
        its = load_tokenizer(beside)
        its_hash = its.hash
        model = model.grown(its.vocab_size)             # it may lack the tokens for chat
        if extend_vocab:
            weights = model.state_dict()
            for name in 'embedding.weight', 'head.weight':      # the same rows, if they are tied
                weights[name] = carry_over(weights[name][:model.config.vocab_size], its, tokenizer)
            return model.like(weights, vocab_size=tokenizer.vocab_size)
    # the same tokenizer is enough: a model of Hugging Face's may have more rows than tokens
    if its_hash != tokenizer.hash and model.config.vocab_size != tokenizer.vocab_size:
        raise ValueError(f'{init_from} has vocab_size={model.config.vocab_size}, {data_dir} has '
                         f'{tokenizer.vocab_size}; prepare it with --tokenizer={init_from}/tokenizer.json, '
                         'or take the weights over with --extend_vocab=True')
    same_tokenizer(init_from, its_hash, data_dir, tokenizer.hash)
    return model


def carry_over(weight, old, new):
    """Embeddings for another tokenizer's vocabulary, (V_new, C). A token that both have keeps its row; a new
    one starts as the mean of the old tokens that spell it, a new special one as the mean of all rows."""
    ids = {token: i for i, token in enumerate(old.all_bytes)}
    rows = []
    for token in new.all_bytes:
        text = token.decode('utf-8', 'replace')
        if token in ids:
            spelled = [ids[token]]
        elif text not in new.special and ('\ufffd' in text or old.kind == 'char'):      # by its bytes
            spelled = [ids[bytes([b])] for b in token if bytes([b]) in ids]
        else:
            spelled = [] if text in new.special else old.encode(text)
        rows.append(weight[spelled or slice(None)].mean(0))
    return torch.stack(rows)


def tokenizer_beside(ckpt, state, load_tokenizer):
    """The tokenizer in a checkpoint's folder. ValueError if the model was trained with another one."""
    beside = os.path.join(folder_of(ckpt), 'tokenizer.json')
    tokenizer = load_tokenizer(beside)
    same_tokenizer(ckpt, state.get('tokenizer_hash'), beside, tokenizer.hash)
    return tokenizer


def to_sample(ckpt, load, load_tokenizer, continues=False):
    """The model to sample from, its tokenizer, the rest of the checkpoint. continues: no model for gaps."""
    model, state = load(ckpt)
    if continues and (objective := state.get('config', {}).get('objective', 'clm')) != 'clm':
        raise ValueError(f'{ckpt}: a model of --objective={objective} fills gaps; --serve and --export need '
                         "one that continues texts; use --prompt='a <|mask|>'")
    if 'reward_head' in state:
        raise ValueError(f'{ckpt} is a reward model: it scores answers and writes none')
    tokenizer = tokenizer_beside(ckpt, state, load_tokenizer)
    return model.grown(tokenizer.vocab_size), tokenizer, state      # Hugging Face's may lack chat's tokens


def to_fine_tune(init_from, last_path, load, load_tokenizer, writes=False):
    """The model to fine-tune, the rest of its checkpoint ({} for a new run) and the tokenizer beside it: of
    last_path if init_from is 'resume', else of init_from. writes: refuse a reward model."""
    resuming = init_from == 'resume'
    origin = last_path if resuming else init_from
    model, state = newest(last_path, load) if resuming else load_finite(init_from, load)
    if writes and 'reward_head' in state:
        raise ValueError(f'{origin} is a reward model: it scores answers and writes none; start from the '
                         'model of sft.py')
    tokenizer = tokenizer_beside(origin, state, load_tokenizer)
    if not model.config.causal:
        raise ValueError(f'{origin} was trained with --objective=mlm and cannot answer; use a model of clm')
    if not {'<|im_start|>', '<|im_end|>'} <= tokenizer.special.keys():
        raise ValueError(f'the tokenizer of {origin} has no <|im_start|> and <|im_end|>, which frame each '
                         'message; pretrain with one that has: python prepare.py --tokenizer=bpe')
    return model, state if resuming else {}, tokenizer
