"""
The start of a run: from nothing, from where it stopped, or from the weights of another run.

    last_path = check_out_dir('out/base', 'scratch', overwrite=False)
    model, state = newest(last_path, load)
    same_run(last_path, state['config'], config, ['n_layer', 'optimizer'])

`load` stands for model.load_checkpoint, a function path -> (model, the rest of the checkpoint), and
`load_tokenizer` for Tokenizer.load.
"""
import contextlib, json, os

# what a run writes
FILES = 'train.log', 'config.json', 'tokenizer.json', 'data.json', 'metrics.jsonl', 'samples.txt'


def folder_of(path):
    """The folder of a run, given itself or a checkpoint in it."""
    return path if os.path.isdir(path) else os.path.dirname(path)


def is_ours(folder):
    """Did a run write this folder, or prepare.py? Others have a train.log or a meta.json, too."""
    with contextlib.suppress(OSError), open(os.path.join(folder, 'train.log'), 'rb') as f:
        return f.read(13) in (b'starting from', b'resumed at st', b'')      # empty: the disk was full
    with contextlib.suppress(OSError), open(os.path.join(folder, 'meta.json'), 'rb') as f:
        return b'"nanoparrot-data-' in f.read(100)
    return False


def check_out_dir(out_dir, init_from, overwrite, only_reads=False):
    """The path of last.pt. Refuses to overwrite a run, what others wrote, and the model of init_from.
    only_reads: the command writes nothing, so nothing is refused."""
    if only_reads:
        return os.path.join(out_dir, 'last.pt')
    if init_from not in ('scratch', 'resume') and \
            os.path.realpath(folder_of(init_from)) == os.path.realpath(out_dir):
        raise ValueError(f'out_dir={out_dir} holds the model that this run starts from; choose another')
    there = os.listdir(out_dir) if os.path.isdir(out_dir) and init_from != 'resume' else []
    theirs = [name for name in there if name in FILES or name.endswith(('.pt', '.safetensors'))]
    if theirs and not is_ours(out_dir):
        raise ValueError(f'{out_dir} holds {min(theirs)}, which no run wrote there; choose another --out_dir')
    if not overwrite and any(name.endswith('.pt') for name in there):
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
            model, state = load_finite(path, load)
            break
        except (ValueError, FileNotFoundError) as e:
            if path == paths[-1]:
                raise
            print(f'{e}\nresuming from an older checkpoint')
    for damaged in paths[:paths.index(path)]:       # else rotate() would push a good one out
        with contextlib.suppress(OSError):
            os.replace(damaged, f'{damaged}.damaged')
    if not {'config', 'optimizers', 'scaler'} <= state.keys() or not str(state.get('step')).isdecimal():
        raise ValueError(f'{path} holds a model but no run that could be resumed; start a new run from its '
                         f'weights: --init_from={path} and another --out_dir')
    return model, state


def same_run(last_path, before, now, names):
    """Refuse to resume with other values of `names`. before, now: {name: value}, of the checkpoint and of
    this process. What an older checkpoint does not hold is not compared."""
    for name in names:
        value = now.get(name)
        if before.get(name, value) != value:
            raise ValueError(f'{last_path} has {name}={before[name]!r:.80}, this run has {value!r:.80}; '
                             "resume with the run's own settings and data, or start a new run from its "
                             f'weights: --init_from={folder_of(last_path)} and another --out_dir')


def same_tokenizer(one, its_hash, other, other_hash, remedy):
    """Refuse what is at the paths `one` and `other` if their tokenizers differ. A hash of None is not known.
    remedy: what to do about it."""
    if None not in (its_hash, other_hash) and its_hash != other_hash:
        raise ValueError(f'{one} was made with the tokenizer of hash {its_hash}, {other} has {other_hash}: '
                         f'the same ids mean different text; {remedy}')


def tokenizer_of_data(data_dir, its_hash, vocab_size, load_tokenizer):
    """The tokenizer beside token bins, which must be theirs and have vocab_size tokens (0: any)."""
    tokenizer = load_tokenizer(os.path.join(data_dir, 'tokenizer.json'))
    same_tokenizer(f'{data_dir}/meta.json', its_hash, 'tokenizer.json', tokenizer.hash,
                   'run prepare.py again')
    if vocab_size not in (0, tokenizer.vocab_size):
        raise ValueError(f'vocab_size={vocab_size}, but the data in {data_dir} have {tokenizer.vocab_size}; '
                         'take theirs: --vocab_size=0')
    return tokenizer


def check_context(init_from, context, block_size):
    """Refuse sequences that are longer than a model's context."""
    if block_size > context:
        raise ValueError(f'{init_from} has a context of {context} tokens, less than block_size={block_size}; '
                         f'set --block_size={context}, or extend it: train.py --rope_scaling=llama3')


def longer_context(init_from, config, block_size, rope_theta, rope_scaling):
    """The fields of GPTConfig, `config`, that change if the model of init_from reads block_size tokens at a
    time. rope_scaling: linear or llama3, by block_size / the first context (see model.rope_table)."""
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


SHAPE = 'n_layer', 'n_head', 'n_kv_head', 'n_embd', 'n_ffn', 'tie_embeddings'       # what weights have fixed


def keep_shape(path, shape, config, set_by):
    """Put the shape of the model at path into config, the settings of a run. ValueError if a setting that the
    user gave says otherwise; set_by: {setting: who gave it}. shape: a dict of GPTConfig's fields."""
    for name in SHAPE:
        is_0 = config[name] == 0 and name in ('n_kv_head', 'n_ffn')         # it follows from the others
        if name in set_by and config[name] != shape[name] and not is_0:
            raise ValueError(f'{set_by[name]}: {name}={config[name]}, but {path} has {name}={shape[name]}; '
                             f'leave {name} out, or set it to {shape[name]}')
        config[name] = shape[name]


# --- from the weights of another run ------------------------------------------------------------------------
def open_pretrained(init_from, load, load_tokenizer, tokenizer, data_dir, carry_over=None):
    """The model of init_from, for data of its own tokenizer, or with carry_over (copies.py) of another."""
    model, state = load_finite(init_from, load)
    beside = os.path.join(folder_of(init_from), 'tokenizer.json')
    its_hash = state.get('tokenizer_hash')
    if carry_over or (not state and os.path.exists(beside)):      # no state: a folder of Hugging Face's
        its = load_tokenizer(beside)
        its_hash = its.hash
        model = model.grown(its.vocab_size)             # it may lack the tokens for chat
        if carry_over:
            copy = model.like(vocab_size=tokenizer.vocab_size)
            old, new = model.state_dict(), copy.state_dict()
            for name in 'embedding.weight', 'head.weight':      # the same rows, if they are tied
                rows = carry_over(old[name][:model.config.vocab_size], its, tokenizer)
                new[name][:len(rows)] = rows
            return copy
    # the same tokenizer is enough: a model of Hugging Face's may have more rows than tokens
    if its_hash != tokenizer.hash and model.config.vocab_size != tokenizer.vocab_size:
        raise ValueError(f'{init_from} has vocab_size={model.config.vocab_size}, {data_dir} has '
                         f'{tokenizer.vocab_size}; prepare it with --tokenizer={init_from}/tokenizer.json, '
                         'or take the weights over with --extend_vocab=True')
    same_tokenizer(init_from, its_hash, data_dir, tokenizer.hash, f'prepare it with --tokenizer={beside}')
    return model


def tokenizer_beside(ckpt, state, load_tokenizer):
    """The tokenizer in a checkpoint's folder. ValueError if the model was trained with another one."""
    beside = os.path.join(folder_of(ckpt), 'tokenizer.json')
    tokenizer = load_tokenizer(beside)
    same_tokenizer(ckpt, state.get('tokenizer_hash'), beside, tokenizer.hash,
                   f"copy the run's own tokenizer.json back into {folder_of(ckpt)}")
    return tokenizer


def rearranged(ckpt):
    """Has the model of ckpt seen documents that were rearranged, so that it can fill the middle?"""
    path = os.path.join(folder_of(ckpt), 'data.json')
    with contextlib.suppress(OSError, ValueError, AttributeError), open(path, encoding='utf-8') as f:
        return json.load(f).get('config', {}).get('fim', 0) > 0


def open_to_sample(ckpt, load, load_tokenizer, continues=False):
    """The model to sample from, its tokenizer, the rest of the checkpoint. continues: no model for gaps."""
    model, state = load_finite(ckpt, load)
    if continues and (objective := state.get('config', {}).get('objective', 'clm')) != 'clm':
        raise ValueError(f'{ckpt}: a model of --objective={objective} fills gaps; --serve and --export need '
                         "one that continues texts; use --prompt='a <|mask|>'")
    if 'reward_head' in state:
        raise ValueError(f'{ckpt} is a reward model: it scores answers and writes none')
    tokenizer = tokenizer_beside(ckpt, state, load_tokenizer)
    return model.grown(tokenizer.vocab_size), tokenizer, state      # Hugging Face's may lack chat's tokens


def open_to_tune(init_from, last_path, load, load_tokenizer):
    """The model to fine-tune, the rest of its checkpoint ({} for a new run) and the tokenizer beside it."""
    resuming = init_from == 'resume'
    origin = last_path if resuming else init_from
    model, state = newest(last_path, load) if resuming else load_finite(init_from, load)
    if 'reward_head' in state and not resuming:
        raise ValueError(f'{origin} is a reward model: it scores answers and writes none; start from the '
                         'model of sft.py')
    tokenizer = tokenizer_beside(origin, state, load_tokenizer)
    if not model.config.causal:
        raise ValueError(f'{origin} was trained with --objective=mlm and cannot answer; use a model of clm')
    if not {'<|im_start|>', '<|im_end|>'} <= tokenizer.special.keys():
        raise ValueError(f'the tokenizer of {origin} has no <|im_start|> and <|im_end|>, which frame each '
                         'message; pretrain with one that has: python prepare.py --tokenizer=bpe')
    return model, state if resuming else {}, tokenizer
