"""
The journal of a run: train.log, metrics.jsonl, samples.txt, config.json, and one run at a time in a folder.

    log = Journal('out/base', main_process=True)
    log.begin(config, resumed=False, step=0)
    log.say('hello')                            # to the terminal and to train.log
    log.metrics(step=1, loss=9.01)              # a line of metrics.jsonl
    log.note(7, 'skip', 'loss nan: ...')        # both

Copy this file alone: it needs torch, for the memory of a GPU.
"""
import contextlib, glob, json, os, shutil, sys, time
import torch

try:
    import fcntl, resource
except ImportError:             # Windows
    fcntl = resource = None


class Journal:
    """Only the first process writes; in the others every call does nothing."""

    def __init__(self, out_dir, main_process):
        self.out_dir, self.main_process = out_dir, main_process

    def path(self, name):
        return os.path.join(self.out_dir, name)

    def begin(self, config, resumed, step):
        """Take the folder: lock it, then begin new files, or cut the old ones back to `step`."""
        if not self.main_process:
            return
        os.makedirs(self.out_dir, exist_ok=True)
        self.lock = open(self.path('train.log'), 'a', encoding='utf-8')
        try:                    # the system lifts the lock when this process ends, however it ends
            if fcntl:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f'another run is writing to {self.out_dir}; wait, or choose another '
                             '--out_dir') from None
        if resumed:
            self.cut_back(step)
        else:
            self.lock.truncate(0)
            for name in ('last*.pt', 'best.pt', 'metrics.jsonl', 'samples.txt'):
                for path in glob.glob(os.path.join(glob.escape(self.out_dir), name)):
                    os.remove(path)
        with open(self.path('config.json'), 'w', encoding='utf-8', newline='\n') as f:
            json.dump(config, f, indent=1)

    def cut_back(self, step):
        """Drop the metrics that come after a checkpoint: those steps will happen again."""
        path = self.path('metrics.jsonl')
        if not os.path.exists(path):
            return
        kept = []
        with open(path, encoding='utf-8') as f:
            for line in f:
                if not line.endswith('}\n'):                            # cut off by a crash
                    continue
                row = json.loads(line)
                again = row.get('event') in ('spike', 'skip', 'rollback')       # of the step that runs again
                if row['step'] < step or (row['step'] == step and not again):
                    kept.append(line)
        with open(f'{path}.tmp', 'w', encoding='utf-8', newline='\n') as f:
            f.writelines(kept)
        os.replace(f'{path}.tmp', path)

    def say(self, text, file='train.log'):
        if self.main_process:
            if file == 'train.log':
                print(text, flush=True)
            with open(self.path(file), 'a', encoding='utf-8', newline='\n') as f:
                f.write(text + '\n')

    def metrics(self, **values):
        self.say(json.dumps(values), 'metrics.jsonl')

    def note(self, step, event, text):
        self.say(f'step {step}: {text}')
        self.metrics(step=step, event=event, text=text)

    def changes(self, before, now):
        """Say every setting that is not what it was when the checkpoint was written."""
        for name, value in before.items():
            if name != 'init_from' and now.get(name, value) != value:
                self.say(f'  changed  {name}: {value!r} before, {now[name]!r} now')

    def keep(self, path, name=None):
        """Copy a file into the folder, so that the folder is complete."""
        if self.main_process and os.path.exists(path):
            target = self.path(name or os.path.basename(path))
            if os.path.realpath(path) != os.path.realpath(target):
                shutil.copyfile(path, target)

    def need_space(self, n_bytes):
        """Refuse to begin where the checkpoints will not fit."""
        folder = os.path.abspath(self.out_dir)
        while not os.path.exists(folder):
            folder = os.path.dirname(folder)
        if self.main_process and (free := shutil.disk_usage(folder).free) < n_bytes:
            raise ValueError(f'{self.out_dir} has {free / 1e9:.2f} GB free, the checkpoints need '
                             f'{n_bytes / 1e9:.2f}; make room, choose another --out_dir, or --keep=1')

    def evaluation(self, step, max_steps, figures, **more):
        """The line of an evaluation, and with `more` the row of metrics.jsonl."""
        columns = [f'{name}: {value:.4f}' for name, value in figures.items()]
        self.say(' | '.join([f'step {step:>6}/{max_steps}', *columns]))
        self.metrics(step=step, **figures, **more)

    def end(self, step, max_steps, minutes, best_val, command):
        """The last lines of a run; command: what to type next."""
        if step < max_steps:
            self.say(f'stopped at step {step}, as asked; {self.path("last.pt")} is saved; resume: the same '
                     'command with --init_from=resume')
        else:
            self.say(f'done in {minutes:.1f} minutes, lowest val_loss {best_val:.4f}; see {self.out_dir}')
            self.say(f'next: {command}' if command else '')


class Timer:
    """Seconds per step, and where the time goes.

    timer = Timer()
    with timer.part('data'): ...                # belongs to a step
    with timer.pause('eval'): ...               # does not: afterwards the clock of the steps starts again
    timer.step(n_tokens)
    timer.per_step()                            # seconds, since the last restart()
    """

    def __init__(self):
        self.start = self.saved = time.time()
        self.total = {'data': 0.0, 'eval': 0.0, 'save': 0.0}            # seconds since the start
        self.restart()

    def restart(self):
        self.restarted = time.time()
        self.steps = 0
        self.tokens = 0
        self.data_before = self.total['data']

    def step(self, n_tokens):
        self.steps += 1
        self.tokens += n_tokens

    @contextlib.contextmanager
    def part(self, name):
        began = time.time()
        yield
        self.total[name] += time.time() - began

    @contextlib.contextmanager
    def pause(self, name):
        with self.part(name):
            yield
        self.restart()
        if name == 'save':
            self.saved = time.time()

    def since_save(self):
        return time.time() - self.saved

    def per_step(self):
        return (time.time() - self.restarted) / self.steps

    def tok_s(self):
        return self.tokens / (time.time() - self.restarted)

    def minutes(self):
        return (time.time() - self.start) / 60

    def shares(self):
        """For metrics.jsonl: seconds of data loading per step, seconds of all saving so far, and the share of
        the run that was spent on evaluation."""
        return {'data_s': (self.total['data'] - self.data_before) / self.steps, 'save_s': self.total['save'],
                'eval_share': self.total['eval'] / (time.time() - self.start)}


def clock(seconds):
    """62.5 -> '1m02s'"""
    return f'{int(seconds // 60)}m{int(seconds % 60):02d}s'


def memory_mb(device):
    """The largest amount of memory so far: of the GPU, or of this process; None on Windows."""
    if device.startswith('cuda'):
        return torch.cuda.max_memory_allocated() / 2 ** 20
    if resource:
        unit = 1 if sys.platform == 'darwin' else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2 ** 20
