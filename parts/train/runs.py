"""
A run and its folder: how it begins or resumes, what it saves, what it writes down.

    config.json                 the settings, with `format` first: it marks the folder as ours
    last.pt, last-1.pt          all that resuming needs, and the one before
    best.pt                     the weights with the lowest validation loss
    metrics.jsonl               a JSON object a line: a step, an evaluation, or an event
    train.log samples.txt       for people
    tokenizer.json data.json    so that the folder can be used anywhere

A checkpoint holds the settings of its run and what identifies its data. So `--init_from=resume` and
the folder are enough to resume, and nothing else has to remember them.
"""
import contextlib, datetime, errno, glob, json, math, os, pathlib, re, shlex, shutil, sys, textwrap
import time
import torch
from model import GPT, GPTConfig
from parts.model import copies, planner
from tokenizer import Tokenizer

try:
    import fcntl, resource
except ImportError:             # Windows
    fcntl = resource = None

FORMAT = 'nanoparrot-checkpoint-1'
SHAPE = 'n_layer', 'n_head', 'n_kv_head', 'n_embd', 'n_ffn', 'tie_embeddings'
# Settings that decide what a run computes: it would not be the same run with another value.
FIXED = {*SHAPE, 'vocab_multiple', 'rope_theta', 'rope_scaling', 'objective', 'optimizer',
         'batch_size', 'block_size', 'seed', 'shuffle', 'embedding_lr', 'dropout', 'document_mask',
         'replay', 'loss_type', 'beta', 'gamma', 'label_smoothing', 'eval_pairs', 'lora',
         'num_samples', 'max_new_tokens', 'updates'}
# Settings of a command, which a resumed run does not take over.
OF_THE_COMMAND = {'out_dir', 'overwrite', 'show_batch', 'plan'}
# Settings that change no result by more than another seed does.
HARMLESS = {*OF_THE_COMMAND, 'seed', 'device', 'compile', 'micro_batch_size', 'grad_checkpoint',
            'log_interval', 'eval_interval', 'save_interval', 'keep', 'sample_prompt',
            'sample_tokens', 'data_from', 'allow_code_execution'}


# --- checkpoints ----------------------------------------------------------------------------------
def write(path, keep, state):
    """Write a checkpoint beside path, flush it, then rename it: a crash or a full disk leaves the
    old one. A last.pt that was there becomes last-1.pt, last-1.pt becomes last-2.pt, ... and `keep`
    of them stay."""
    try:
        with open(f'{path}.tmp', 'wb') as f:
            torch.save({'format': FORMAT, **state}, f)
            f.flush()
            os.fsync(f.fileno())
    except (OSError, RuntimeError) as e:        # torch wraps a failed write in a RuntimeError
        pathlib.Path(f'{path}.tmp').unlink(missing_ok=True)
        raise OSError(f'cannot write {path} ({e}); the file that was there before is '
                      'unchanged') from e
    # A crash in here leaves no last.pt for a moment, but then newest() finds last-1.pt.
    if os.path.basename(path) == 'last.pt':
        names = names_of(os.path.dirname(path))[:keep]
        for newer, older in reversed([*zip(names, names[1:])]):
            if os.path.exists(newer):
                os.replace(newer, older)
    os.replace(f'{path}.tmp', path)


def read(path, device='cpu'):
    """Return the dict that write() wrote. ValueError if the file is damaged or not ours, or a
    weight is nan."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        if state['format'] != FORMAT:
            raise ValueError(f'format={state["format"]}')
    except Exception as e:
        # A disk that does not answer or a full memory is no damage. EINVAL: of some files that were
        # cut off.
        if isinstance(e, OSError) and e.errno != errno.EINVAL or 'memory' in repr(e).lower():
            raise
        # The first sentence only: in the next ones torch advises to let the file run code.
        raise ValueError(f'{path} is not a readable checkpoint ({type(e).__name__}: '
                         f'{str(e).split(". ")[0]:.100}); use another') from e
    for name, p in state['model'].items():
        if not p.isfinite().all():
            raise ValueError(f'{path}: the weights {name} are not finite; start from another '
                             'checkpoint')
    return state


def names_of(out_dir):
    """The checkpoints that a run may have written, the newest first."""
    names = ['last.pt', *(f'last-{i}.pt' for i in range(1, 100))]
    return [os.path.join(out_dir, name) for name in names]


def newest(out_dir):
    """Return the newest checkpoint in out_dir that can be read, to resume from it. A damaged one is
    put aside."""
    for path in filter(os.path.exists, names_of(out_dir)):
        try:
            state = read(path)
        except ValueError as e:
            print(f'{e}\nlooking for an older checkpoint', flush=True)
            with contextlib.suppress(OSError):   # otherwise the next save would push out a good one
                os.replace(path, f'{path}.damaged')
            continue
        if not state.get('moments'):
            raise ValueError(f'{path} holds a model but no run that could be resumed; start a new '
                             f'run from its weights: --init_from={path} and another --out_dir')
        return state
    raise FileNotFoundError(f'{out_dir} holds no checkpoint of a run; start one without '
                            '--init_from=resume')


def find(path):
    """Return the best checkpoint of a folder, or path itself if it is a file or a folder of Hugging
    Face."""
    if not os.path.exists(path):
        raise FileNotFoundError(f'{path} does not exist; give a checkpoint or a folder of a run: '
                                'bash run.sh makes out/quickstart and out/quickstart_sft')
    if os.path.isdir(path):
        for file in (os.path.join(path, 'best.pt'), *names_of(path)):
            if os.path.exists(file):
                return file
        if not glob.glob(os.path.join(glob.escape(path), '*.safetensors')):
            raise FileNotFoundError(f'{path} holds no best.pt, last.pt or *.safetensors; run '
                                    'train.py first')
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
    """Return the GPT of a checkpoint, a run's folder or a folder of Hugging Face, and the rest of
    what was saved."""
    path = find(path)
    if os.path.isdir(path):
        return GPT.from_hf(path).to(device), {}
    state = read(path, device)
    rest = state.keys() - {'model', 'unmerged', 'moments'}
    return model_of(state, device), {name: state[name] for name in rest}


# --- how a run begins -----------------------------------------------------------------------------
def begin(config, set_by):
    """Return the checkpoint that a run resumes, or {} for a new run. With --init_from=resume config
    takes over the settings of the run: the user may change any but those in FIXED. set_by:
    {setting: who gave it}."""
    out_dir, init_from = config['out_dir'], config['init_from']
    if init_from != 'resume':
        if not config.get('plan') and config.get('show_batch') is None:     # these write nothing
            check_out_dir(out_dir, init_from, config['overwrite'])
        return {}
    state = newest(out_dir)
    saved = state['config']
    if saved.get('stage') != config.get('stage'):
        raise ValueError(f'{out_dir} holds a run of {saved.get("stage", "train")}.py; resume it '
                         'with that script')
    for name in (saved.keys() & config.keys()) - OF_THE_COMMAND - {'init_from'}:
        if name not in set_by:
            config[name] = saved[name]
        elif name in FIXED and config[name] != saved[name]:
            raise ValueError(f'{set_by[name]}: {name}={config[name]!r:.80}, but the run in '
                             f'{out_dir} has {saved[name]!r:.80}; leave {name} out, or start a new '
                             f'run from its weights: --init_from={out_dir} and another --out_dir')
    config['init_from'] = saved['init_from']            # where the run began
    return state


def check_out_dir(out_dir, init_from, overwrite):
    """Refuse to write where a run, a model or something else of the user is."""
    folder = pathlib.Path(out_dir)
    files = [*folder.iterdir()] if folder.is_dir() else []
    settings = folder / 'config.json'
    if files and not (settings.exists() and FORMAT.encode() in settings.read_bytes()):
        raise ValueError(f'{out_dir} holds {min(files).name}, which no run wrote there; choose '
                         'another --out_dir, or move it away')
    origin = os.path.realpath(folder_of(init_from))
    if os.path.exists(init_from) and origin == os.path.realpath(out_dir):
        raise ValueError(f'out_dir={out_dir} holds the model that this run starts from; choose '
                         'another')
    if [*folder.glob('*.pt')] and not overwrite:
        raise ValueError(f'{out_dir} already holds a run; resume it with --init_from=resume, or '
                         'choose another --out_dir, or start over with --overwrite=True')


# --- from the weights of another run --------------------------------------------------------------
def same_tokenizer(one, its_hash, other, other_hash, remedy):
    """Refuse what is at the paths `one` and `other` if their tokenizers differ. A hash of None is
    not known."""
    if None not in (its_hash, other_hash) and its_hash != other_hash:
        raise ValueError(f'{one} was made with the tokenizer of hash {its_hash}, {other} has '
                         f'{other_hash}: the same ids mean different text; {remedy}')


def tokenizer_beside(ckpt, state):
    """Return the tokenizer in a checkpoint's folder. ValueError if the model was trained with
    another one."""
    beside = os.path.join(folder_of(ckpt), 'tokenizer.json')
    tokenizer = Tokenizer.load(beside)
    same_tokenizer(ckpt, state.get('tokenizer_hash'), beside, tokenizer.hash,
                   f"copy the run's own tokenizer.json back into {folder_of(ckpt)}")
    return tokenizer


def from_weights(config, set_by, tokenizer):
    """Return config['init_from'] for pretraining on data of this tokenizer, as a checkpoint with
    model_config and model: with the dropout, the mask and the context of config. Its shape goes
    into config."""
    init_from, data_dir = config['init_from'], config['data_dir']
    model, state = open_model(init_from)
    beside = os.path.join(folder_of(init_from), 'tokenizer.json')
    its_hash = state.get('tokenizer_hash')
    # Without a state it is a folder of Hugging Face's, whose model may lack the tokens for chat.
    if config['extend_vocab'] or (not state and os.path.exists(beside)):
        its = Tokenizer.load(beside)
        its_hash = its.hash
        model = model.grown(its.vocab_size)
    if config['extend_vocab']:
        model, its_hash = copies.carried_over(model, its, tokenizer), tokenizer.hash
    # the same tokenizer is enough: a model of Hugging Face's may have more rows than tokens
    if its_hash != tokenizer.hash and model.config.vocab_size != tokenizer.vocab_size:
        raise ValueError(f'{init_from} has vocab_size={model.config.vocab_size}, {data_dir} has '
                         f'{tokenizer.vocab_size}; prepare it with --tokenizer={beside}, '
                         'or take the weights over with --extend_vocab=True')
    same_tokenizer(init_from, its_hash, data_dir, tokenizer.hash,
                   f'prepare it with --tokenizer={beside}')
    for name in SHAPE:
        value = getattr(model.config, name)
        is_0 = config[name] == 0 and name in ('n_kv_head', 'n_ffn')     # it follows from the others
        if name in set_by and config[name] != value and not is_0:
            raise ValueError(f'{set_by[name]}: {name}={config[name]}, but {init_from} has '
                             f'{name}={value}; leave {name} out, or set it to {value}')
        config[name] = value
    model = model.like(dropout=config['dropout'], causal=config['objective'] != 'mlm',
                       vocab_multiple=config['vocab_multiple'],
                       **context(config, vars(model.config)))
    return {'model_config': vars(model.config), 'model': model.state_dict()}


def context(config, before):
    """Return the fields of GPTConfig that change if a model reads block_size tokens at a time.
    before: its fields now. rope_scaling: linear or llama3, by block_size / the first context (see
    model.rope_table)."""
    block_size, rope_theta, rope_scaling = (
        config[name] for name in ('block_size', 'rope_theta', 'rope_scaling'))
    old = before['rope_scaling']
    # the context of the first training: an earlier extension has kept it, or the factor
    first = old[3] if len(old) == 4 else before['block_size'] / (old or [1])[0]
    factor = block_size / first
    if rope_scaling == 'none' and not rope_theta:
        check_context(config['init_from'], before['block_size'], block_size)
    if rope_scaling != 'none' and block_size <= before['block_size']:
        raise ValueError(f'rope_scaling={rope_scaling} makes a context longer; set --block_size '
                         f'above the {before["block_size"]} tokens of {config["init_from"]}, or '
                         'leave --rope_scaling=none')
    scaling = {'none': old, 'linear': (factor,), 'llama3': (factor, 1.0, 4.0, first)}
    return {'rope_theta': rope_theta or before['rope_theta'], 'rope_scaling': scaling[rope_scaling],
            'block_size': max(before['block_size'], block_size)}


def check_context(init_from, context, block_size):
    """Refuse sequences that are longer than a model's context."""
    if block_size > context:
        raise ValueError(f'{init_from} has a context of {context} tokens, less than '
                         f'block_size={block_size}; set --block_size={context}, or extend it: '
                         'train.py --rope_scaling=llama3')


def open_to_sample(ckpt, device='cpu', continues=False):
    """Return a model to sample from, its tokenizer and the rest of the checkpoint. continues: no
    model for gaps."""
    model, state = open_model(ckpt, device)
    if continues and (objective := state.get('config', {}).get('objective', 'clm')) != 'clm':
        raise ValueError(f'{ckpt}: a model of --objective={objective} fills gaps; --serve and '
                         "--export need one that continues texts; use --prompt='a <|mask|>'")
    if 'reward_head' in state:
        raise ValueError(f'{ckpt} is a reward model: it scores answers and writes none')
    tokenizer = tokenizer_beside(ckpt, state)
    # One of Hugging Face's may lack the tokens for chat.
    return model.grown(tokenizer.vocab_size), tokenizer, state


def open_to_tune(config, state):
    """Return the model to fine-tune and the tokenizer beside it: of the checkpoint `state`, or of
    config['init_from']."""
    origin = config['out_dir'] if state else config['init_from']
    model, saved = (model_of(state), state) if state else open_model(origin)
    if 'reward_head' in saved and not state:
        raise ValueError(f'{origin} is a reward model: it scores answers and writes none; start '
                         'from the model of sft.py')
    if not model.config.causal:
        raise ValueError(f'{origin} was trained with --objective=mlm and cannot answer; use a '
                         'model of clm')
    tokenizer = tokenizer_beside(origin, saved)
    if not {'<|im_start|>', '<|im_end|>'} <= tokenizer.special.keys():
        raise ValueError(f'the tokenizer of {origin} has no <|im_start|> and <|im_end|>, which '
                         'frame each message; pretrain with one that has: python prepare.py '
                         '--tokenizer=bpe')
    if config.get('lora') and tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(f'lora={config["lora"]} cannot train the new rows of <|im_start|> and '
                         '<|im_end|>; set --lora=0')
    check_context(origin, model.config.block_size, config.get('block_size', 0))
    return model, tokenizer


# --- the log --------------------------------------------------------------------------------------
class Log:
    """train.log, metrics.jsonl and samples.txt. Only the first process writes; in the others every
    call does nothing.

    Making a Log begins the run: it refuses to resume on other data, and processes that differ; it
    locks the folder; a new run removes what an older one left there, a resumed one drops the
    metrics behind its checkpoint, because these steps come again. identity: {name: what identifies
    these data}. meta: meta.json of token bins."""

    def __init__(self, config, set_by, state, here, model, identity, meta=None, max_steps=None):
        self.out_dir = config['out_dir']
        self.here = here
        self.max_steps = max_steps or config['max_steps']
        # Of the next token. The val_loss of dpo.py is about pairs: that is no such loss.
        is_about_pairs = 'loss_type' in config
        self.untrained_loss = math.inf if is_about_pairs else math.log(model.config.vocab_size)
        T = config.get('block_size') or model.config.block_size
        self.flops_per_token = planner.flops_per_token(vars(model.config), T)
        saved = state.get('config', config)
        changed = sorted(name for name in config.keys() & saved.keys() - OF_THE_COMMAND
                         if config[name] != saved[name])
        others = {name for name, file in set_by.items() if file != set_by.get('expect')}
        others = {*changed} if state else others
        self.expect = config['expect'] = expected(config, set_by, others, meta)
        step = state.get('step', 0)
        self.last = step, state.get('tokens', 0)        # when the last line of a step was written
        self.seconds = dict.fromkeys(('data', 'eval', 'save'), 0.0)    # spent so far in timed(name)
        self.measured = {}                                                  # by the last evaluation
        read = state.get('data', identity)
        for name in read | identity:
            if read.get(name) != identity.get(name):
                raise ValueError(f'{name} is not the one that the run in {self.out_dir} has read; '
                                 'resume with its own data, or start a new run from its weights: '
                                 '--init_from=FOLDER and another --out_dir')
        here.same(step=step, **(config | identity))
        if step >= self.max_steps:
            raise ValueError(f'{self.out_dir} is at step {step} of max_steps={self.max_steps}; to '
                             f'continue, set --max_steps above {step}')
        if here.is_main:
            os.makedirs(self.out_dir, exist_ok=True)
            self.take_folder(config, state, meta)
        self.restarts = self.cut(step) if state else 0
        self.began = self.since = time.time()
        self.note(step, 'resumed', f'resumed {self.out_dir}') if state else self.say(
            f'starting from {config["init_from"]}')
        self.facts(changed=[f'{name}: {saved[name]!r} before, {config[name]!r} now'
                            for name in changed],
                   model=[planner.described(vars(model.config))],
                   machine=[f'processes: {here.world}, on {here.device}, in {here.dtype}; torch '
                            f'{torch.__version__}'])

    def take_folder(self, config, state, meta):
        """Lock the folder for this run; write down its settings, and remove what belongs to another
        run."""
        self.lock = open(os.path.join(self.out_dir, 'train.log'), 'a', encoding='utf-8')
        try:                    # the system lifts the lock when this process ends, however it ends
            if fcntl:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f'another run is writing to {self.out_dir}; wait, or set '
                             '--out_dir') from None
        except OSError:         # some network disks have no locks
            pass
        if not state:
            self.lock.truncate(0)
            for name in ('last.pt*', 'last-*.pt*', 'best.pt*', 'metrics.jsonl', 'samples.txt',
                         'samples.jsonl', 'data.json', 'eval*.json', 'compare.json'):
                for path in glob.glob(os.path.join(glob.escape(self.out_dir), name)):
                    os.remove(path)
        path = pathlib.Path(self.out_dir, 'config.json')
        settings = config | {'max_steps': self.max_steps}       # perhaps from epochs, for plot.py
        text = json.dumps({'format': FORMAT, **settings}, indent=1)
        path.write_text(text, encoding='utf-8', newline='\n')
        if meta:
            self.copy_in(f'{config["data_dir"]}/tokenizer.json', f'{config["data_dir"]}/meta.json')
        else:           # a fine-tuned model: what its base was trained on stays with it
            self.copy_in(f'{folder_of(config["init_from"])}/data.json')

    def copy_in(self, *paths):
        """Copy files into the folder, so that it can be used anywhere. meta.json of data becomes
        data.json."""
        for path in filter(os.path.exists, paths if self.here.is_main else ()):
            name = os.path.basename(path).replace('meta.json', 'data.json')
            with contextlib.suppress(shutil.SameFileError):
                shutil.copyfile(path, os.path.join(self.out_dir, name))

    def cut(self, step):
        """Drop the metrics behind a step. Return how often the run had been resumed before."""
        path = pathlib.Path(self.out_dir, 'metrics.jsonl')
        if not self.here.is_main or not path.exists():
            return 1
        # The last line may be half written.
        lines = path.read_text(encoding='utf-8').split('\n')[:-1]
        rows = [row for row in map(json.loads, lines) if row['step'] <= step]
        # Written beside it and renamed: a full disk leaves the old file.
        beside = path.with_suffix('.tmp')
        text = ''.join(json.dumps(row) + '\n' for row in rows)
        beside.write_text(text, encoding='utf-8', newline='\n')
        os.replace(beside, path)
        return 1 + sum(row.get('event') == 'resumed' for row in rows)

    def rewind(self, then):
        """Go back to the checkpoint `then`, in the same run."""
        self.cut(then['step'])
        self.last, self.since = (then['step'], then['tokens']), time.time()

    def say(self, text, file='train.log'):
        if self.here.is_main:
            if file == 'train.log':
                print(text, flush=True)
            with open(os.path.join(self.out_dir, file), 'a', encoding='utf-8', newline='\n') as f:
                f.write(text + '\n')

    def facts(self, **facts):
        """Say facts about the run: name = a list of texts."""
        for name, texts in facts.items():
            for text in texts:
                self.say(textwrap.fill(text, 110, initial_indent=f'  {name:<8} ',
                                       subsequent_indent=' ' * 11, break_on_hyphens=False))

    def metrics(self, **row):
        """Write a row of metrics.jsonl. JSON has no nan and no inf: they become null."""
        row = {name: None if isinstance(value, float) and not math.isfinite(value) else value
               for name, value in row.items()}
        self.say(json.dumps(row), 'metrics.jsonl')

    def note(self, step, event, text):
        """Write down an event on the way to a step: a resumed run that has this step behind it
        keeps the note."""
        self.say(f'step {step}: {text}')
        self.metrics(step=step, event=event, text=text)

    @contextlib.contextmanager
    def timed(self, name):
        """Measure the seconds of loading data, or of a pause, which the clock of the steps does not
        count."""
        began = time.time()
        yield
        self.seconds[name] += time.time() - began
        if name != 'data':
            self.since += time.time() - began

    def step(self, shown=(), **row):
        """The line and the metrics of a step, with its seconds and its speed since the last call.
        shown: further names for the line. mfu: the fraction of a GPU's peak that its products
        reach."""
        now = time.time()
        n_steps, n_tokens = row['step'] - self.last[0], row['tokens'] - self.last[1]
        dt, speed = (now - self.since) / n_steps, n_tokens / (now - self.since)
        gpu = torch.cuda.get_device_name() if self.here.kind == 'cuda' else ''
        peak = planner.peak_flops(gpu)
        row |= {'dt': dt, 'tok_s': speed, 'tok_s_device': speed / self.here.world,
                'mfu': self.flops_per_token * speed / self.here.world / peak if peak else None,
                'data_s': self.seconds['data'] / n_steps, 'save_s': self.seconds['save'],
                'eval_share': self.seconds['eval'] / (now - self.began),
                'uptime_s': now - self.began, 'restarts': self.restarts,
                'memory_mb': memory_mb(self.here.kind)}
        more = ''.join(f'{name}: {row[name]:.3g} | ' for name in shown)
        self.say(f'step {row["step"]:>6}/{self.max_steps} | loss: {row["loss"]:.4f} | {more}lr: '
                 f'{row["lr"]:.2e} | gnorm: {row["grad_norm"]:.2f} | {dt * 1000:.0f} ms | '
                 f'{speed:,.0f} tok/s | eta '
                 f'{datetime.timedelta(seconds=int(dt * (self.max_steps - row["step"])))}')
        self.metrics(**row)
        self.last, self.since, self.seconds['data'] = (row['step'], row['tokens']), now, 0.0

    def evaluation(self, step, **row):
        """The line and the metrics of an evaluation."""
        if 'val_loss' in row and self.untrained_loss < math.inf:
            perplexity = math.exp(min(row['val_loss'], 700))
            row = {'val_loss': row['val_loss'], 'val_ppl': perplexity, **row}
        self.measured = {name: value for name, value in row.items() if isinstance(value, float)}
        columns = [f'{name}: {value:.4f}' for name, value in self.measured.items()]
        self.say(' | '.join([f'step {step:>6}/{self.max_steps}', *columns]))
        self.metrics(step=step, **row)
        if step >= 1000 and row.get('val_loss', 0) > self.untrained_loss - 0.5:
            self.note(step, 'stuck', 'val_loss is near ln(vocab_size), as if untrained: see '
                      'docs/trouble.md')

    def end(self, step, best_val, command, what='lowest val_loss'):
        """The last lines of a run. command: the words to type next. what: the name of best_val."""
        if step < self.max_steps:
            self.say(f'stopped at step {step}; {self.out_dir}/last.pt is saved; resume: the same '
                     'command with --init_from=resume')
            return
        minutes = (time.time() - self.began) / 60
        self.say(f'done in {minutes:.1f} minutes, {what} {best_val:.4f}; see {self.out_dir}')
        if command:
            self.say(f'next: {shlex.join(["python", *command])}')
        for line in compared(self.measured, self.expect or {}):
            self.say(line)


def expected(config, set_by, others, meta):
    """Return config['expect'], or None if this run is not the one that the ranges were measured on:
    a config file states them for its own settings and for the data that its data_from makes. With
    --max_steps=10, or on your own text, the same loss would be a false alarm. others: the settings
    that the file did not set."""
    for name, ends in (config['expect'] or {}).items():
        if not (isinstance(ends, tuple | list) and len(ends) == 2 and ends[0] <= ends[1]):
            raise ValueError(f'expect: {name}={ends!r} must be (lowest, highest), such as (4.05, '
                             '4.13)')
    if set_by.get('expect') == 'command line':
        return config['expect']
    others = others - HARMLESS
    command = dict(re.findall(r'--(\w+)=(\S+)', config.get('data_from', '')))
    if meta and command:        # then the folder's name does not count, only what is in it
        others.discard('data_dir')
        command.pop('out_dir', None)
        others |= {*meta.get('set', ())} - {*command, 'out_dir', 'num_workers'}
        others |= {name for name in command if str(meta['config'].get(name)) != command[name]}
    return None if others else config['expect']


def compared(measured, expect):
    """Yield a line for each range of expect, {name: (low, high)}: is the number that was measured
    in it?"""
    for name, (low, high) in expect.items():
        value = measured.get(name)
        if value is None:
            yield (f'{name}: expected {low} to {high}, but not measured; measured: '
                   f'{", ".join(measured)}')
        elif low <= value <= high:
            yield f'{name} {value:.4g}: as expected ({low} to {high})'
        else:
            off = f'{low - value:.2g} too low' if value < low else f'{value - high:.2g} too high'
            off = off if math.isfinite(value) else 'not a number'
            yield f'{name} {value:.4g}: {off}, expected {low} to {high}; see docs/trouble.md'


def memory_mb(kind):
    """Return the largest amount of memory so far, MiB: of the GPU, or of this process; None on
    Windows."""
    if kind == 'cuda':
        return torch.cuda.max_memory_allocated() / 2 ** 20
    if resource:
        unit = 1 if sys.platform == 'darwin' else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2 ** 20
