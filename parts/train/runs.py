"""
A run and its folder: how it begins or resumes, what it saves, what it writes down.

    config.json                 the settings, with `format` first: it marks the folder as ours
    last.pt, last-1.pt          all that resuming needs, and the one before
    best.pt                     the weights with the lowest validation loss
    metrics.jsonl               a JSON object a line: a step, an evaluation, or an event
    train.log samples.txt       for people
    tokenizer.json data.json    so that the folder can be used anywhere

A checkpoint holds the settings of its run and what identifies its data. So `--init_from=resume` and the folder are
enough to resume, and nothing else has to remember them.
"""
import contextlib, datetime, glob, json, math, os, pathlib, platform, re, shlex, shutil, sys, textwrap, time
import torch
from model import GPT, GPTConfig
from tokenizer import Tokenizer

try:
    import fcntl, resource
except ImportError:             # Windows
    fcntl = resource = None

FORMAT = 'nanoparrot-checkpoint-1'
SHAPE = 'n_layer', 'n_head', 'n_kv_head', 'n_embd', 'n_ffn', 'tie_embeddings'       # what weights have fixed
# Settings that decide what a run computes: it would not be the same run with another value.
FIXED = {*SHAPE, 'vocab_multiple', 'objective', 'optimizer', 'batch_size', 'block_size', 'seed', 'shuffle', 'embedding_lr',
         'dropout', 'document_mask', 'replay', 'loss_type', 'beta', 'gamma', 'label_smoothing', 'eval_pairs', 'lora',
         'num_samples', 'max_new_tokens', 'updates'}
# Settings of a command, which a resumed run does not take over.
OF_THE_COMMAND = {'out_dir', 'init_from', 'overwrite', 'show_batch', 'plan'}
# Settings that change no result by more than another seed does.
HARMLESS = {*OF_THE_COMMAND, 'seed', 'device', 'compile', 'micro_batch_size', 'grad_checkpoint', 'log_interval',
            'eval_interval', 'save_interval', 'keep', 'sample_prompt', 'sample_tokens', 'data_from',
            'allow_code_execution'} - {'init_from'}


# --- checkpoints --------------------------------------------------------------------------------------------
def write(path, state, keep=1):
    """Write a checkpoint beside path, flush it, then rename it: a crash or a full disk leaves the old one. Before
    that, path becomes path-1, path-1 becomes path-2, ... and `keep` of them stay."""
    try:
        with open(f'{path}.tmp', 'wb') as f:
            torch.save({'format': FORMAT, **state}, f)
            f.flush()
            os.fsync(f.fileno())
    except (OSError, RuntimeError) as e:        # torch wraps a failed write in a RuntimeError
        pathlib.Path(f'{path}.tmp').unlink(missing_ok=True)
        raise OSError(f'cannot write {path} ({e}); the file that was there before is unchanged') from e
    names = [path, *(f'{path.removesuffix(".pt")}-{i}.pt' for i in range(1, keep))]
    # A crash in here leaves no last.pt for a moment, but then newest() finds last-1.pt.
    for newer, older in reversed([*zip(names, names[1:])]):
        if os.path.exists(newer):
            os.replace(newer, older)
    os.replace(f'{path}.tmp', path)


def read(path, device='cpu'):
    """Return the dict that write() wrote. ValueError if the file is damaged or not ours, or a weight is nan."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        if state['format'] != FORMAT:
            raise ValueError(f'format={state["format"]}')
    except (OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as e:
        raise ValueError(f'{path} is not a readable checkpoint ({type(e).__name__}: {e!s:.100}); use another') from e
    for name, p in state['model'].items():
        if not p.isfinite().all():
            raise ValueError(f'{path}: the weights {name} are not finite; start from another checkpoint')
    return state


def names_of(out_dir):
    """The checkpoints that a run may have written, the newest first."""
    return [os.path.join(out_dir, name) for name in ('last.pt', *(f'last-{i}.pt' for i in range(1, 100)))]


def newest(out_dir):
    """Return the newest checkpoint in out_dir that can be read, to resume from it. A damaged one is put aside."""
    for path in filter(os.path.exists, names_of(out_dir)):
        try:
            state = read(path)
        except ValueError as e:
            print(f'{e}\nlooking for an older checkpoint', flush=True)
            with contextlib.suppress(OSError):      # otherwise the next save would push out a good one
                os.replace(path, f'{path}.damaged')
            continue
        if 'moments' not in state:
            raise ValueError(f'{path} holds a model but no run that could be resumed; start a new run from its '
                             f'weights: --init_from={path} and another --out_dir')
        return state
    raise FileNotFoundError(f'{out_dir} holds no checkpoint of a run; start one without --init_from=resume')


def find(path):
    """Return the best checkpoint of a folder, or path itself if it is a file or a folder of Hugging Face."""
    if not os.path.exists(path):
        raise FileNotFoundError(f'{path} does not exist; give a checkpoint or a folder of a run: bash run.sh '
                                'makes out/quickstart and out/quickstart_sft')
    if os.path.isdir(path):
        for file in (os.path.join(path, 'best.pt'), *names_of(path)):
            if os.path.exists(file):
                return file
        if not glob.glob(os.path.join(glob.escape(path), '*.safetensors')):
            raise FileNotFoundError(f'{path} holds no best.pt, last.pt or *.safetensors; run train.py first')
    return path


def folder_of(path):
    """Return the folder of a run, given itself or a checkpoint in it."""
    return path if os.path.isdir(path) else os.path.dirname(path)


def model_of(state, device='cpu'):
    """Return the GPT whose weights a checkpoint holds."""
    model = GPT(GPTConfig(**state['model_config'])).to(device)
    model.load_state_dict(state['model'])
    return model


def open_model(path, device='cpu'):
    """Return the GPT of a checkpoint, a run's folder or a folder of Hugging Face, and the rest of what was saved."""
    path = find(path)
    if os.path.isdir(path):
        return GPT.from_hf(path).to(device), {}
    state = read(path, device)
    return model_of(state, device), {name: state[name] for name in state if name not in ('model', 'moments')}


# --- how a run begins ---------------------------------------------------------------------------------------
def take_over_settings(config, state, set_by):
    """Give config the settings of the checkpoint `state`, so that a resumed run keeps its own. Return what the user
    changed, {setting: text}: that may be any but those in FIXED. set_by: {setting: who gave it}."""
    saved = state.get('config', {})
    out_dir = config['out_dir']
    changed = {}
    if state and saved.get('stage') != config.get('stage'):
        raise ValueError(f'{out_dir} holds a run of {saved.get("stage", "train")}.py; resume it with that script')
    for name, value in saved.items():
        if name in OF_THE_COMMAND or name not in config or config[name] == value:
            continue
        if name not in set_by:
            config[name] = value
        elif name in FIXED:
            raise ValueError(f'{set_by[name]}: {name}={config[name]!r:.80}, but the run in {out_dir} has {value!r:.80}; '
                             f'leave {name} out, or start a new run from its weights: --init_from={out_dir} and '
                             'another --out_dir')
        else:
            changed[name] = f'{value!r} before, {config[name]!r} now'
    if state:
        config['init_from'] = saved['init_from']        # where the run began
    if changed.keys() - HARMLESS:
        config['expect'] = None                         # it was measured with other settings
    return changed


def check_start(config, state, data, here):
    """Refuse a folder that holds something else, other data than those that a resumed run has read, and processes
    that differ. data: {name: what identifies these data}."""
    for name, value in data.items():
        if state and state['data'].get(name) != value:
            raise ValueError(f'{name} is not the one that the run in {config["out_dir"]} has read; resume with its data, '
                             'or start a new run from its weights: --init_from=FOLDER and another --out_dir')
    here.same(step=state.get('step'), **data, **config)
    # Only the first process looks, because it will write there before the others have looked.
    trouble = here.gather('' if state or not here.is_main else trouble_with(**config))[0]
    if trouble:
        raise ValueError(trouble)


def trouble_with(out_dir, init_from, overwrite, **_):
    """Say why a new run can't write to out_dir, or ''."""
    folder = pathlib.Path(out_dir)
    files = [*folder.iterdir()] if folder.is_dir() else []
    settings = folder / 'config.json'
    if files and not (settings.exists() and FORMAT in settings.read_text(encoding='utf-8')):
        return (f'{out_dir} holds {min(files).name}, which no run wrote there; choose another --out_dir, or '
                'move it away')
    if files and os.path.realpath(folder_of(init_from)) == os.path.realpath(out_dir):
        return f'out_dir={out_dir} holds the model that this run starts from; choose another'
    if [*folder.glob('*.pt')] and not overwrite:
        return (f'{out_dir} already holds a run; resume it with --init_from=resume, or choose another '
                '--out_dir, or start over with --overwrite=True')
    return ''


# --- from the weights of another run ------------------------------------------------------------------------
def same_tokenizer(one, its_hash, other, other_hash, remedy):
    """Refuse what is at the paths `one` and `other` if their tokenizers differ. A hash of None is not known."""
    if None not in (its_hash, other_hash) and its_hash != other_hash:
        raise ValueError(f'{one} was made with the tokenizer of hash {its_hash}, {other} has {other_hash}: '
                         f'the same ids mean different text; {remedy}')


def tokenizer_beside(ckpt, state):
    """Return the tokenizer in a checkpoint's folder. ValueError if the model was trained with another one."""
    beside = os.path.join(folder_of(ckpt), 'tokenizer.json')
    tokenizer = Tokenizer.load(beside)
    same_tokenizer(ckpt, state.get('tokenizer_hash'), beside, tokenizer.hash,
                   f"copy the run's own tokenizer.json back into {folder_of(ckpt)}")
    return tokenizer


def from_weights(config, tokenizer):
    """Return the model of config['init_from'] for pretraining on data of this tokenizer: with the dropout, the mask
    and the context of config. extend_vocab: the model may have another tokenizer."""
    init_from, data_dir = config['init_from'], config['data_dir']
    model, state = open_model(init_from)
    beside = os.path.join(folder_of(init_from), 'tokenizer.json')
    its_hash = state.get('tokenizer_hash')
    if config['extend_vocab'] or (not state and os.path.exists(beside)):    # no state: a folder of Hugging Face's
        its = Tokenizer.load(beside)
        its_hash = its.hash
        model = model.grown(its.vocab_size)             # it may lack the tokens for chat
    if config['extend_vocab']:
        from parts.model import copies
        model, its_hash = copies.carried_over(model, its, tokenizer), tokenizer.hash
    # the same tokenizer is enough: a model of Hugging Face's may have more rows than tokens
    if its_hash != tokenizer.hash and model.config.vocab_size != tokenizer.vocab_size:
        raise ValueError(f'{init_from} has vocab_size={model.config.vocab_size}, {data_dir} has '
                         f'{tokenizer.vocab_size}; prepare it with --tokenizer={init_from}/tokenizer.json, '
                         'or take the weights over with --extend_vocab=True')
    same_tokenizer(init_from, its_hash, data_dir, tokenizer.hash, f'prepare it with --tokenizer={beside}')
    return model.like(dropout=config['dropout'], causal=config['objective'] != 'mlm',
                      vocab_multiple=config['vocab_multiple'], **context(config, vars(model.config)))


def context(config, before):
    """Return the fields of GPTConfig that change if a model reads block_size tokens at a time. before: its fields now.
    rope_scaling: linear or llama3, by block_size / the first context (see model.rope_table)."""
    block_size, rope_theta, rope_scaling = (config[name] for name in ('block_size', 'rope_theta', 'rope_scaling'))
    old = before['rope_scaling']
    first = old[3] if len(old) == 4 else before['block_size'] / (old or [1])[0]         # tokens of the first training
    factor = block_size / first
    if rope_scaling == 'none' and not rope_theta:
        check_context(config['init_from'], before['block_size'], block_size)
    if rope_scaling != 'none' and block_size <= before['block_size']:
        raise ValueError(f'rope_scaling={rope_scaling} makes a context longer; set --block_size above the '
                         f'{before["block_size"]} tokens of {config["init_from"]}, or leave --rope_scaling=none')
    scaling = {'none': old, 'linear': (factor,), 'llama3': (factor, 1.0, 4.0, first)}
    return {'rope_theta': rope_theta or before['rope_theta'], 'block_size': max(before['block_size'], block_size),
            'rope_scaling': scaling[rope_scaling]}


def check_context(init_from, context, block_size):
    """Refuse sequences that are longer than a model's context."""
    if block_size > context:
        raise ValueError(f'{init_from} has a context of {context} tokens, less than block_size={block_size}; '
                         f'set --block_size={context}, or extend it: train.py --rope_scaling=llama3')


def keep_shape(model, config, set_by):
    """Write the model's shape into config. ValueError if a setting that the user gave says otherwise."""
    for name in SHAPE:
        value = getattr(model.config, name)
        is_0 = config[name] == 0 and name in ('n_kv_head', 'n_ffn')         # it follows from the others
        if name in set_by and config[name] != value and not is_0:
            raise ValueError(f'{set_by[name]}: {name}={config[name]}, but {config["init_from"]} has {name}={value}; '
                             f'leave {name} out, or set it to {value}')
        config[name] = value


def open_to_sample(ckpt, device='cpu', continues=False):
    """Return a model to sample from, its tokenizer and the rest of the checkpoint. continues: no model for gaps."""
    model, state = open_model(ckpt, device)
    if continues and (objective := state.get('config', {}).get('objective', 'clm')) != 'clm':
        raise ValueError(f'{ckpt}: a model of --objective={objective} fills gaps; --serve and --export need '
                         "one that continues texts; use --prompt='a <|mask|>'")
    if 'reward_head' in state:
        raise ValueError(f'{ckpt} is a reward model: it scores answers and writes none')
    tokenizer = tokenizer_beside(ckpt, state)
    return model.grown(tokenizer.vocab_size), tokenizer, state      # Hugging Face's may lack chat's tokens


def open_to_tune(config, state):
    """Return the model to fine-tune, that of a checkpoint or of config['init_from'], and the tokenizer beside it."""
    origin = config['out_dir'] if state else config['init_from']
    model, saved = (model_of(state), state) if state else open_model(origin)
    if 'reward_head' in saved and not state:
        raise ValueError(f'{origin} is a reward model: it scores answers and writes none; start from the '
                         'model of sft.py')
    if not model.config.causal:
        raise ValueError(f'{origin} was trained with --objective=mlm and cannot answer; use a model of clm')
    tokenizer = tokenizer_beside(origin, saved)
    if not {'<|im_start|>', '<|im_end|>'} <= tokenizer.special.keys():
        raise ValueError(f'the tokenizer of {origin} has no <|im_start|> and <|im_end|>, which frame each '
                         'message; pretrain with one that has: python prepare.py --tokenizer=bpe')
    return model, tokenizer


# --- the log ------------------------------------------------------------------------------------------------
class Log:
    """train.log, metrics.jsonl and samples.txt. Only the first process writes; in the others every call does
    nothing. Making a Log begins the run: a new one removes what an older run left in the folder, a resumed one
    drops the metrics behind its checkpoint, because these steps come again."""

    def __init__(self, config, state, here, max_steps, copies=()):
        self.config = config
        self.here = here
        self.max_steps = max_steps
        self.last = state.get('step', 0), state.get('tokens', 0)        # steps and tokens at the last log.step()
        self.restarts = state.get('restarts', -1) + 1
        self.seconds = dict.fromkeys(('data', 'eval', 'save'), 0.0)     # spent so far in timed(name)
        self.measured = {}              # the numbers of the last evaluation
        step, out_dir = self.last[0], config['out_dir']
        if step >= max_steps:
            raise ValueError(f'{out_dir} is at step {step} of max_steps={max_steps}; to continue, set '
                             f'--max_steps above {step}')
        if here.is_main:
            os.makedirs(out_dir, exist_ok=True)
            self.take_folder(state, copies)
        self.began = self.since = time.time()
        self.say(f'resumed at step {step}' if state else f'starting from {config["init_from"]}')

    def take_folder(self, state, copies):
        """Lock the folder for this run, and bring its files to the beginning or to the checkpoint."""
        out_dir = self.config['out_dir']
        self.lock = open(os.path.join(out_dir, 'train.log'), 'a', encoding='utf-8')
        try:                    # the system lifts the lock when this process ends, however it ends
            if fcntl:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f'another run is writing to {out_dir}; wait, or set --out_dir') from None
        if state:
            self.cut(state['step'])
        else:
            self.lock.truncate(0)
            for name in ('last*.pt*', 'best.pt*', 'metrics.jsonl', 'samples.txt', 'data.json', 'eval*.json*',
                         'samples.jsonl', 'compare.json'):
                for path in glob.glob(os.path.join(glob.escape(out_dir), name)):
                    os.remove(path)
        with open(os.path.join(out_dir, 'config.json'), 'w', encoding='utf-8', newline='\n') as f:
            json.dump({'format': FORMAT, **self.config}, f, indent=1)
        for path in filter(os.path.exists, copies):         # meta.json of the data becomes data.json
            name = os.path.basename(path).replace('meta.json', 'data.json')
            with contextlib.suppress(shutil.SameFileError):
                shutil.copyfile(path, os.path.join(out_dir, name))

    def cut(self, step):
        """Drop the metrics behind a checkpoint."""
        path = pathlib.Path(self.config['out_dir'], 'metrics.jsonl')
        lines = path.read_text(encoding='utf-8').split('\n')[:-1]       # the last may be half written
        kept = [line + '\n' for line in lines if json.loads(line)['step'] <= step]
        path.write_text(''.join(kept), encoding='utf-8', newline='\n')

    def say(self, text, file='train.log'):
        if self.here.is_main:
            if file == 'train.log':
                print(text, flush=True)
            with open(os.path.join(self.config['out_dir'], file), 'a', encoding='utf-8', newline='\n') as f:
                f.write(text + '\n')

    def rows(self, facts):
        """Say facts about the run: {name: a text, or a list of texts}."""
        for name, texts in facts.items():
            for text in [texts] if isinstance(texts, str) else texts:
                self.say(textwrap.fill(text, 110, initial_indent=f'  {name:<8} ', subsequent_indent=' ' * 11,
                                       break_on_hyphens=False))

    def metrics(self, **row):
        self.say(json.dumps(finite(row), allow_nan=False), 'metrics.jsonl')

    def note(self, step, event, text):
        """Write down an event on the way to a step: a resumed run that has this step behind it keeps the note."""
        self.say(f'step {step}: {text}')
        self.metrics(step=step, event=event, text=text)

    @contextlib.contextmanager
    def timed(self, name):
        """Measure the seconds of loading data, or of a pause, which the clock of the steps does not count."""
        began = time.time()
        yield
        self.seconds[name] += time.time() - began
        if name != 'data':
            self.since += time.time() - began

    def step(self, shown=(), **row):
        """The line and the metrics of a step: with the time since the last call. shown: further names for the line."""
        now = time.time()
        n_steps, n_tokens = row['step'] - self.last[0], row['tokens'] - self.last[1]
        dt, speed = (now - self.since) / n_steps, n_tokens / (now - self.since)
        row |= {'dt': dt, 'tok_s': speed, 'tok_s_device': speed / self.here.world,
                'data_s': self.seconds['data'] / n_steps, 'save_s': self.seconds['save'],
                'eval_share': self.seconds['eval'] / (now - self.began), 'uptime_s': now - self.began,
                'restarts': self.restarts, 'memory_mb': memory_mb(self.here.kind)}
        more = ''.join(f'{name}: {row[name]:.3g} | ' for name in shown)
        self.say(f'step {row["step"]:>6}/{self.max_steps} | loss: {row["loss"]:.4f} | {more}lr: {row["lr"]:.2e} | '
                 f'gnorm: {row["grad_norm"]:.2f} | {dt * 1000:.0f} ms | {speed:,.0f} tok/s | eta '
                 f'{datetime.timedelta(seconds=int(dt * (self.max_steps - row["step"])))}')
        self.metrics(**row)
        self.go_on(row['step'], row['tokens'])

    def go_on(self, step, tokens):
        """Restart the clock of the steps here."""
        self.last, self.since, self.seconds['data'] = (step, tokens), time.time(), 0.0

    def evaluation(self, step, **row):
        """The line and the metrics of an evaluation."""
        self.measured = {name: value for name, value in row.items() if isinstance(value, float)}
        columns = [f'{name}: {value:.4f}' for name, value in self.measured.items()]
        self.say(' | '.join([f'step {step:>6}/{self.max_steps}', *columns]))
        self.metrics(step=step, **row)

    def end(self, step, best_val, command, what='lowest val_loss'):
        """The last lines of a run. command: the words to type next. what: the name of best_val."""
        out_dir = self.config['out_dir']
        if step < self.max_steps:
            self.say(f'stopped at step {step}; {out_dir}/last.pt is saved; resume: the same command with '
                     '--init_from=resume')
            return
        self.say(f'done in {(time.time() - self.began) / 60:.1f} minutes, {what} {best_val:.4f}; see {out_dir}')
        if command:
            self.say(f'next: {shlex.join(["python", *command])}')
        for line in compared(self.measured, self.config['expect'] or {}):
            self.say(line)


def expected(config, set_by, meta=None):
    """Return config['expect'], or None if this run is not the one that the ranges were measured on.

    A config file states them for its own settings and for the data that its data_from makes. With
    --max_steps=10, or on your own text, the same loss would be a false alarm.
    set_by: {setting: the file, or 'command line', that set it}. meta: meta.json, which says how prepare.py
    was called."""
    source = set_by.get('expect')
    if source in (None, 'command line'):
        return config['expect']
    others = {name for name, file in set_by.items() if file != source} - HARMLESS
    command = dict(re.findall(r'--(\w+)=(\S+)', config.get('data_from', '')))
    if meta and command:        # then the folder's name does not count, only what is in it
        others.discard('data_dir')
        command.pop('out_dir', None)
        others |= {*meta.get('set', ())} - {*command, 'out_dir', 'num_workers'}
        others |= {name for name, value in command.items() if str(meta['config'].get(name)) != value}
    return None if others else config['expect']


def compared(measured, expect):
    """Yield a line for each range of expect, {name: (low, high)}: is the number that was measured in it?"""
    for name, (low, high) in expect.items():
        value = measured.get(name)
        if value is None:
            yield f'{name}: expected {low} to {high}, but not measured; measured: {", ".join(measured)}'
        elif low <= value <= high:
            yield f'{name} {value:.4g}: as expected ({low} to {high})'
        else:
            off = f'{low - value:.2g} too low' if value < low else f'{value - high:.2g} too high'
            off = off if math.isfinite(value) else 'not a number'
            yield f'{name} {value:.4g}: {off}, expected {low} to {high}; see docs/trouble.md'


def finite(value):
    """Return value with None in place of nan and inf, which JSON does not have; also in dicts within dicts."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def memory_mb(kind):
    """Return the largest amount of memory so far, MiB: of the GPU, or of this process; None on Windows."""
    if kind == 'cuda':
        return torch.cuda.max_memory_allocated() / 2 ** 20
    if resource:
        unit = 1 if sys.platform == 'darwin' else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2 ** 20


def machine_and_versions():
    """The names of the devices and the version of torch, as one line."""
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f'{", ".join(devices) or platform.machine()}; torch {torch.__version__}'
