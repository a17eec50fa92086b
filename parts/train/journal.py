"""
The journal of a run: train.log, metrics.jsonl, samples.txt, config.json, and one run at a time in a folder.

    log = Journal('out/base', main_process=True)
    log.begin(config, state={}, step=0, max_steps=100)
    log.say('hello')                            # to the terminal and to train.log
    log.metrics(step=1, loss=9.01)              # a line of metrics.jsonl
    log.note(7, 'skip', 'loss nan: ...')        # a line in each of the two
"""
import contextlib, datetime, glob, json, math, os, platform, re, shlex, shutil, subprocess, sys, textwrap
import time
import torch

try:
    import fcntl, resource
except ImportError:             # Windows
    fcntl = resource = None


class Journal:
    """Only the first process writes; in the others every call does nothing."""

    def __init__(self, out_dir, main_process):
        self.out_dir = out_dir
        self.main_process = main_process
        self.restarts = 0               # how often the run was resumed
        self.measured = {}              # the figures of the last evaluation

    def path(self, name):
        return os.path.join(self.out_dir, name)

    def begin(self, config, state, step, max_steps, n_bytes=0):
        """Lock the folder, then begin new files, or cut the old ones back to `step`. Say what differs from
        state, the checkpoint that the run resumes ({} for a new run). n_bytes: the room that it needs."""
        if step > max_steps:
            raise ValueError(f'{self.out_dir} is at step {step}, past max_steps={max_steps}; to resume it, '
                             f'set --max_steps above {step}')
        if step == max_steps:
            if self.main_process:
                print(f'{self.out_dir} is finished, at step {step}; to continue, raise --max_steps')
            sys.exit()
        self.expect = config.get('expect') or {}
        for name, ends in self.expect.items():
            kinds = [type(end) for end in ends] if isinstance(ends, tuple | list) else []
            if len(kinds) != 2 or not {*kinds} <= {int, float} or ends[0] > ends[1]:
                raise ValueError(f'expect: {name}={ends!r} must be (lowest, highest), such as (4.05, 4.13)')
        if not self.main_process:
            return
        os.makedirs(self.out_dir, exist_ok=True)
        self.need_space(n_bytes)
        self.lock = open(self.path('train.log'), 'a', encoding='utf-8')
        try:                    # the system lifts the lock when this process ends, however it ends
            if fcntl:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f'another run is writing to {self.out_dir}; wait, or set --out_dir') from None
        if state:
            self.cut_back(step, state.get('bad_steps', ()))
            with open(self.path('train.log'), encoding='utf-8') as f:
                self.restarts = 1 + f.read().count('\nresumed at step ')
            config['init_from'] = state.get('config', config).get('init_from', 'resume')    # where it began
        else:
            old = ['last*.pt*', 'best.pt*', 'metrics.jsonl', 'samples.txt']
            if os.path.getsize(self.path('train.log')):     # a run was here: what is known of it goes, too
                old += ['data.json', 'eval*.json*', 'samples.jsonl', 'compare.json', 'sheet.csv', 'key.json']
            self.lock.truncate(0)
            for name in old:
                for path in glob.glob(os.path.join(glob.escape(self.out_dir), name)):
                    os.remove(path)
        with open(self.path('config.json'), 'w', encoding='utf-8', newline='\n') as f:
            json.dump(config, f, indent=1)
        self.say(f'resumed at step {step}' if state else f'starting from {config["init_from"]}')
        self.row('output', self.out_dir)
        self.row('on', machine_and_versions())
        for name, value in state.get('config', {}).items():
            if config.get(name, value) != value:
                self.row('changed', f'{name}: {value!r} before, {config[name]!r} now')

    def cut_back(self, step, rolled_back=()):
        """Drop the metrics that come after a checkpoint: those steps will happen again. rolled_back: steps
        whose rollback the checkpoint knows already; these rows stay."""
        path = self.path('metrics.jsonl')
        if not os.path.exists(path):
            return
        with open(path, encoding='utf-8') as f:
            rows = [json.loads(line) for line in f if re.match(r'{"step": \d+(,.*)?}\n', line)]  # whole
        with open(f'{path}.tmp', 'w', encoding='utf-8', newline='\n') as f:
            for row in rows:
                again = row.get('event') in ('spike', 'skip', 'rollback', 'silent')      # they come again
                past = row.get('event') == 'rollback' and row['step'] in rolled_back
                if row['step'] < step or (row['step'] == step and not again) or past:
                    f.write(json.dumps(row) + '\n')
        os.replace(f'{path}.tmp', path)

    def say(self, text, file='train.log'):
        if self.main_process:
            if file == 'train.log':
                print(text, flush=True)
            try:
                with open(self.path(file), 'a', encoding='utf-8', newline='\n') as f:
                    f.write(text + '\n')
            except OSError as e:                        # a write's own error does not name the file
                raise OSError(f'cannot write {self.path(file)} ({e})') from e

    def metrics(self, **values):
        self.say(json.dumps(finite(values), allow_nan=False), 'metrics.jsonl')

    def step(self, max_steps, shown=(), **row):
        """The line and the metrics of a step. shown: names of further figures for the line."""
        more = ''.join(f'{name}: {row[name]:.3g} | ' for name in shown)
        self.say(f'step {row["step"]:>6}/{max_steps} | loss: {row["loss"]:.4f} | {more}lr: {row["lr"]:.2e} | '
                 f'gnorm: {row["grad_norm"]:.2f} | {row["dt"] * 1000:.0f} ms | {row["tok_s"]:,.0f} tok/s | '
                 f'eta {datetime.timedelta(seconds=int(row["dt"] * (max_steps - row["step"])))}')
        self.metrics(**row)

    def note(self, step, event, text):
        self.say(f'step {step}: {text}')
        self.metrics(step=step, event=event, text=text)

    def row(self, name, text):
        """A fact about the run, in lines of at most 110 characters."""
        lines = textwrap.wrap(text, 99, break_on_hyphens=False)
        self.say('\n'.join(f'  {head:<8} {line}' for head, line in zip([name, *[''] * len(lines)], lines)))

    def notes(self, texts):
        for text in texts:
            self.row('note', text)

    def copy_in(self, *paths):
        """Copy files into the folder, so that the folder is complete. meta.json of data becomes data.json."""
        for path in filter(os.path.exists, paths if self.main_process else ()):
            name = os.path.basename(path).replace('meta.json', 'data.json')
            with contextlib.suppress(shutil.SameFileError):
                shutil.copyfile(path, self.path(name))

    def need_space(self, n_bytes):
        """Refuse to begin where the checkpoints will not fit. Those that are there will be replaced."""
        ours = glob.glob(os.path.join(glob.escape(self.out_dir), '*.pt'))
        free = shutil.disk_usage(self.out_dir).free + sum(map(os.path.getsize, ours))
        if free < n_bytes:
            raise ValueError(f'{self.out_dir} has {free / 1e6:,.1f} MB free, the checkpoints need '
                             f'{n_bytes / 1e6:,.1f}; make room, choose another --out_dir, or --keep=1')

    def evaluation(self, step, max_steps, figures, **more):
        """The line of an evaluation, and with `more` the row of metrics.jsonl."""
        columns = [f'{name}: {value:.4f}' for name, value in figures.items()]
        self.say(' | '.join([f'step {step:>6}/{max_steps}', *columns]))
        self.metrics(step=step, **figures, **more)
        self.measured = {name: x for name, x in (figures | more).items() if not isinstance(x, dict)}

    def end(self, step, max_steps, minutes, best_val, command, what='lowest val_loss'):
        """The last lines of a run; command: the words to type next. what: the name of best_val."""
        if step >= max_steps:
            self.say(f'done in {minutes:.1f} minutes, {what} {best_val:.4f}; see {self.out_dir}')
            self.say(f'next: {shlex.join(["python", *command])}' if command else '')
            for line in compared(self.measured, self.expect):
                self.say(line)
        elif os.path.exists(self.path('last.pt')):
            self.say(f'stopped at step {step}; {self.path("last.pt")} is saved; resume: the same command '
                     'with --init_from=resume')


class Timer:
    """Seconds per step since the last restart(), and where the time goes. loading() belongs to a step; a
    pause('eval') or pause('save') does not: after it, the clock of the steps restarts."""

    def __init__(self):
        self.start = time.time()
        self.total = {'eval': 0.0, 'save': 0.0}         # seconds since the start; of data, since restart()
        self.restart()

    def restart(self):
        self.restarted = time.time()
        self.steps = self.tokens = 0
        self.total['data'] = 0.0

    def step(self, n_tokens):
        self.steps += 1
        self.tokens += n_tokens

    @contextlib.contextmanager
    def loading(self, name='data'):
        began = time.time()
        yield
        self.total[name] += time.time() - began

    @contextlib.contextmanager
    def pause(self, name):
        with self.loading(name):
            yield
        self.restart()

    def minutes(self):
        return (time.time() - self.start) / 60

    def figures(self, world):
        """dt, data_s: seconds a step; tok_s: tokens a second; save_s: in all; eval_share: of the uptime."""
        seconds = time.time() - self.restarted
        uptime = time.time() - self.start
        row = {'dt': seconds / self.steps, 'tok_s': self.tokens / seconds,
               'tok_s_device': self.tokens / seconds / world, 'data_s': self.total['data'] / self.steps,
               'save_s': self.total['save'], 'eval_share': self.total['eval'] / uptime, 'uptime_s': uptime}
        self.restart()
        return row


# settings that change no result by more than another seed does
HARMLESS = {'out_dir', 'overwrite', 'seed', 'device', 'compile', 'micro_batch_size', 'grad_checkpoint',
            'log_interval', 'eval_interval', 'save_interval', 'keep', 'sample_prompt', 'sample_tokens',
            'data_from', 'allow_code_execution'}


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
    if config.get('init_from') == 'resume':
        others.discard('init_from')
    command = dict(re.findall(r'--(\w+)=(\S+)', config.get('data_from', '')))
    if meta and command:        # then the folder's name does not count, only what is in it
        others.discard('data_dir')
        command.pop('out_dir', None)
        others |= {*meta.get('set', ())} - {*command, 'out_dir', 'num_workers'}
        others |= {name for name, value in command.items() if str(meta['config'].get(name)) != value}
    return None if others else config['expect']


def compared(measured, expect):
    """Yields a line for each range of expect, {name: (low, high)}: is the figure that was measured in it?"""
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
    """value with None in place of nan and inf, which JSON does not have; also in dicts within dicts."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def machine_and_versions():
    """The commit of this copy, the version of torch and the names of the devices, as one line."""
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    commit = ''
    if shutil.which('git') and os.path.exists(os.path.join(here, '.git')):
        command = ['git', '-C', here, 'describe', '--always', '--dirty']
        commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    names = ', '.join(devices) or platform.machine()
    return f'{names}; torch {torch.__version__}; commit {commit or "unknown"}'


def memory_mb(device):
    """The largest amount of memory so far, MiB: of the GPU, or of this process; None on Windows."""
    if device.startswith('cuda'):
        return torch.cuda.max_memory_allocated() / 2 ** 20
    if resource:
        unit = 1 if sys.platform == 'darwin' else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2 ** 20
