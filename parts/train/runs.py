"""
A run and its folder: how it begins or resumes, what it saves, what it writes down.

    config.json                 the settings, with `format` first: it marks the folder as ours
    last.pt, last-1.pt          all that resuming needs, and the one before
    best.pt                     the weights with the lowest val_loss; rl.py: the best val_reward
    metrics.jsonl               a JSON object a line: a step, an evaluation, or an event
    train.log samples.txt       for people
    tokenizer.json data.json    so that the folder can be used anywhere

A checkpoint has the settings of its run and what identifies its data. So `--init_from=resume` and
the folder are enough to resume: you need not type the other settings again.
"""
import collections, contextlib, datetime, json, math, os, pathlib, shlex, shutil, sys, time
import torch
from extras import lora, planner
from parts import Mistake
from parts.model import checkpoints
from parts.train import processes

try:
    import fcntl, resource
except ImportError:             # Windows
    fcntl = resource = None

# Settings that decide what a run computes. With another value it would not be the same run.
FIXED = {*checkpoints.SHAPE, 'vocab_multiple', 'rope_theta', 'rope_scaling', 'objective',
         'optimizer', 'batch_size', 'block_size', 'seed', 'shuffle', 'embedding_lr', 'dropout',
         'document_mask', 'replay', 'loss_type', 'beta', 'gamma', 'label_smoothing', 'eval_pairs',
         'lora', 'max_new_tokens', 'updates', 'prompts', 'n_problems', 'problems_seed'}
# Settings of one command, which a resumed run does not take over.
OF_THE_COMMAND = {'out_dir', 'overwrite', 'show_batch', 'plan'}


# --- how a run begins -----------------------------------------------------------------------------
def take_over_settings(config, set_by):
    """Return {} for a new run, after a look at its folder. For a run that resumes, return its
    checkpoint, and put the settings in it into config. The user may change all of them but those in
    FIXED. set_by: {setting: the config file, or 'command line', that set it}."""
    out_dir = config['out_dir']
    if config['init_from'] != 'resume':
        if not config.get('plan') and config.get('show_batch') is None:     # these write nothing
            check_out_dir(out_dir, config['init_from'], config['overwrite'])
        return {}
    state = checkpoints.newest(out_dir)
    saved = state['config']
    if saved.get('stage') != config.get('stage'):
        raise Mistake(f'{out_dir} has a run of {saved.get("stage", "train")}.py; resume it '
                      'with that script')
    for name in (saved.keys() & config.keys()) - OF_THE_COMMAND:
        if name not in set_by or name == 'init_from':
            config[name] = saved[name]
        elif name in FIXED and config[name] != saved[name]:
            raise Mistake(f'{set_by[name]}: {name}={config[name]!r:.80}, but the run in '
                          f'{out_dir} has {saved[name]!r:.80}; leave {name} out, or start a new '
                          f'run from its weights: --init_from={out_dir} and another --out_dir')
    return state


def check_out_dir(out_dir, init_from, overwrite):
    """Refuse to write into a folder that has a run, a model or other files of the user."""
    folder = pathlib.Path(out_dir)
    # A run that was killed as it began leaves an empty train.log and perhaps a .tmp.
    files = [f for f in folder.glob('*') if f.suffix != '.tmp' and f.stat().st_size]
    settings = folder / 'config.json'
    if files and not (settings.exists() and checkpoints.FORMAT.encode() in settings.read_bytes()):
        raise Mistake(f'{out_dir} has {min(files).name}, which no run wrote there; choose '
                      'another --out_dir, or move it away')
    origin = os.path.realpath(checkpoints.folder_of(init_from))
    if os.path.exists(init_from) and origin == os.path.realpath(out_dir):
        raise Mistake(f'out_dir={out_dir} has the model that this run starts from; choose '
                      'another')
    if [*folder.glob('*.pt')] and not overwrite:
        raise Mistake(f'{out_dir} already has a run; resume it with --init_from=resume, or '
                      'choose another --out_dir, or start over with --overwrite=True')


# --- the log --------------------------------------------------------------------------------------
class Log:
    """train.log, metrics.jsonl and samples.txt. Only the first process writes; in the others every
    call does nothing.

    Making a Log begins the run. It refuses other data than the checkpoint's, and processes that
    differ, and it locks the folder. A new run removes what an older one left there. A resumed run
    drops the metrics after its checkpoint, because it will take these steps again. identity: what
    identifies the data, by names."""

    def __init__(self, config, set_by, state, here, model, tokenizer, identity, max_steps=None):
        self.config = config
        self.model_config = vars(model.config)
        self.tokenizer = tokenizer
        self.identity = identity
        self.out_dir = pathlib.Path(config['out_dir'])
        self.here = here
        self.max_steps = max_steps or config['max_steps']
        T = config.get('block_size') or model.config.block_size
        self.flops_per_token = planner.flops_per_token(model, T)
        saved = state.get('config', config)
        changed = sorted(name for name in config.keys() & saved.keys() - OF_THE_COMMAND
                         if config[name] != saved[name])
        step = state.get('step', 0)
        self.last = step, state.get('tokens', 0)        # at the last line of a step
        self.paused = {'eval': 0.0, 'save': 0.0}        # seconds of the run in timed(name)
        self.seconds = collections.Counter()    # of other names, since the last line of a step
        read = state.get('data', identity)
        for name in read | identity:
            if read.get(name) != identity.get(name):
                raise Mistake(f'{name} is not the one that the run in {self.out_dir} has read; '
                              'resume with its own data, or start a new run from its weights: '
                              '--init_from=FOLDER and another --out_dir')
        here.same(step=step, **identity)
        if step >= self.max_steps:
            raise Mistake(f'{self.out_dir} is at step {step} of max_steps={self.max_steps}; to '
                          f'continue, set --max_steps above {step}')
        if here.is_main:
            self.out_dir.mkdir(parents=True, exist_ok=True)
            self.take_folder(config, state)
            if state:
                self.cut(step)
        self.began = self.since = time.time()
        if state:
            self.note(step, 'resumed', f'resumed {self.out_dir}')
        else:
            self.say(f'starting from {config["init_from"]}')
        given = [f'{name}={config[name]!r}' for name in set_by]
        self.say('\n  '.join(['settings that were given:', *(given or ['none'])]))
        for name in changed:
            self.say(f'  changed  {name}: {saved[name]!r} before, {config[name]!r} now')
        self.say(f'  model    {planner.described(model)}\n  machine  processes: {here.world}, on '
                 f'{here.device}, in {here.dtype}; torch {torch.__version__}')

    def take_folder(self, config, state):
        """Lock the folder for this run, remove what an older run left in it, and write down the
        settings."""
        self.lock = open(self.out_dir / 'train.log', 'a', encoding='utf-8')
        try:                    # the system lifts the lock when this process ends, however it ends
            if fcntl:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Mistake(f'another run is writing to {self.out_dir}; wait, or set '
                          '--out_dir') from None
        except OSError:         # some network disks have no locks
            pass
        if not state:
            self.lock.truncate(0)
            for name in ('last.pt*', 'last-*.pt*', 'best.pt*', 'metrics.jsonl', 'samples.txt',
                         'samples.jsonl', 'data.json', 'eval*.json', 'compare.json'):
                for old in self.out_dir.glob(name):
                    old.unlink()
        # plot.py needs the number max_steps, also if the user gave epochs.
        settings = {'format': checkpoints.FORMAT, **config, 'max_steps': self.max_steps}
        write_whole(self.out_dir / 'config.json', json.dumps(settings, indent=1))
        self.tokenizer.save(self.out_dir / 'tokenizer.json')
        # A fine-tuned model keeps what its base was trained on.
        origin = checkpoints.folder_of(config['init_from'])
        path = f'{origin}/data.json' if 'stage' in config else f'{config["data_dir"]}/meta.json'
        if os.path.exists(path):
            shutil.copyfile(path, self.out_dir / 'data.json')

    def save(self, name, net, opt, scaler, guard, **more):
        """Write a checkpoint of fine-tuning; save() in train.py says what is in one. `unmerged` are
        the weights that train, to resume with. `model` are those of a GPT, as in every checkpoint:
        adapters are merged into them, and a reward head has an entry of its own. best.pt has no
        moments. All processes must call this."""
        with self.timed('save'):
            weights, moments = processes.state_of(net, [opt] if name == 'last.pt' else [])
            if self.here.is_main:
                plain = lora.merged({k.removeprefix('model.'): w for k, w in weights.items()})
                if 'score.weight' in plain:
                    more['reward_head'] = plain.pop('score.weight')
                checkpoints.write(f'{self.out_dir}/{name}', 2, {
                    'model': plain, 'unmerged': weights, 'model_config': self.model_config,
                    'moments': moments, 'scaler': scaler.state_dict(), 'config': self.config,
                    'tokenizer_hash': self.tokenizer.hash, 'data': self.identity, **guard.state(),
                    **more})

    def cut(self, step):
        """Drop the metrics after a step, because the run goes on from this step."""
        path = self.out_dir / 'metrics.jsonl'
        if path.exists():
            # The last line may be half written.
            lines = path.read_text(encoding='utf-8').split('\n')[:-1]
            kept = [line for line in lines if json.loads(line)['step'] <= step]
            write_whole(path, ''.join(line + '\n' for line in kept))

    def say(self, text, file='train.log'):
        if self.here.is_main:
            if file == 'train.log':
                print(text, flush=True)
            with open(self.out_dir / file, 'a', encoding='utf-8', newline='\n') as f:
                f.write(text + '\n')

    def metrics(self, **row):
        """Write a row of metrics.jsonl. JSON has no nan and no inf: they become null."""
        row = {name: None if isinstance(value, float) and not math.isfinite(value) else value
               for name, value in row.items()}
        self.say(json.dumps(row), 'metrics.jsonl')

    def note(self, step, event, text):
        """Write down an event on the way to a step. A run that resumes at this step or later keeps
        the note."""
        self.say(f'step {step}: {text}')
        self.metrics(step=step, event=event, text=text)

    @contextlib.contextmanager
    def timed(self, name):
        """Measure the seconds of a block. 'eval' and 'save' are pauses, which do not count as time
        of a step. Any other NAME is a part of the steps, whose lines report it as NAME_s, in
        seconds per step."""
        began, seconds = time.time(), self.seconds.copy()
        yield
        spent = time.time() - began
        if name in self.paused:
            self.paused[name] += spent
            self.since += spent
            self.seconds = seconds      # what was timed inside the pause is no part of a step
        else:
            self.seconds[name] += spent

    def step(self, shown=(), **row):
        """Write the line and the metrics of a step, with its seconds and its speed since the last
        call. shown: further names for the line. mfu: the fraction of a GPU's peak that the matrix
        products reach."""
        now = time.time()
        n_steps, n_tokens = row['step'] - self.last[0], row['tokens'] - self.last[1]
        dt, speed = (now - self.since) / n_steps, n_tokens / (now - self.since)
        gpu = torch.cuda.get_device_name() if self.here.kind == 'cuda' else ''
        peak = planner.peak_flops(gpu)
        row |= {'dt': dt, 'tok_s': speed, 'tok_s_device': speed / self.here.world,
                'mfu': self.flops_per_token * speed / self.here.world / peak if peak else None,
                **{f'{name}_s': spent / n_steps for name, spent in self.seconds.items()},
                'save_s': self.paused['save'],
                'eval_share': self.paused['eval'] / (now - self.began),
                'uptime_s': now - self.began, 'memory_mb': memory_mb(self.here.kind)}
        more = ''.join(f'{name}: {row[name]:.3g} | ' for name in shown)
        self.say(f'step {row["step"]:>6}/{self.max_steps} | loss: {row["loss"]:.4f} | {more}lr: '
                 f'{row["lr"]:.2e} | gnorm: {row["grad_norm"]:.2f} | {dt * 1000:.0f} ms | '
                 f'{speed:,.0f} tok/s | eta '
                 f'{datetime.timedelta(seconds=int(dt * (self.max_steps - row["step"])))}')
        self.metrics(**row)
        self.last, self.since = (row['step'], row['tokens']), now
        self.seconds.clear()

    def evaluation(self, step, **row):
        """Write the line and the metrics of an evaluation."""
        # A perplexity belongs to a loss per token. The val_loss of dpo.py is a loss per pair.
        if 'val_loss' in row and 'loss_type' not in self.config:
            perplexity = math.exp(min(row['val_loss'], 700))
            row = {'val_loss': row['val_loss'], 'val_ppl': perplexity, **row}
        columns = [f'{name}: {value:.4f}' for name, value in row.items() if isinstance(value, float)]
        self.say(' | '.join([f'step {step:>6}/{self.max_steps}', *columns]))
        self.metrics(step=step, **row)

    def end(self, step, best_val, command, what='lowest val_loss'):
        """Write the last lines of a run. command: the words to type next. what: the name of
        best_val."""
        if step < self.max_steps:
            script = self.config.get('stage', 'train')
            self.say(f'stopped at step {step}; {self.out_dir}/last.pt is saved; resume: python '
                     f'{script}.py --out_dir={shlex.quote(str(self.out_dir))} --init_from=resume')
            return
        minutes = (time.time() - self.began) / 60
        self.say(f'done in {minutes:.1f} minutes, {what} {best_val:.4f}; see {self.out_dir}')
        if command:
            self.say(f'next: {shlex.join(["python", *command])}')


def write_whole(path, text):
    """Write a text next to path, then rename it: a crash or a full disk leaves the old file."""
    with checkpoints.replacing(path) as new:
        pathlib.Path(new).write_text(text, encoding='utf-8', newline='\n')


def memory_mb(kind):
    """Return the largest amount of memory so far, MiB: of the GPU, or of this process; None on
    Windows."""
    if kind == 'cuda':
        return torch.cuda.max_memory_allocated() / 2 ** 20
    if resource:
        unit = 1 if sys.platform == 'darwin' else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2 ** 20
