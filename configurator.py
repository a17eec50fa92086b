"""
Config files and command-line flags replace a script's settings, the plain variables above its call
of configure(). Files and flags apply from left to right, so the last one wins.

    batch_size = 32                                     # sequences per step
    min_lr: float | None = None                         # where the learning rate ends
    optimizer: Literal['adamw', 'muon'] = 'adamw'       # what updates the weights
    config = configure(globals(), {'batch_size': (1, 1e6)})     # other numbers: at least 0

    python train.py config/shakespeare_cpu.py --max_steps=500 --device cpu

A value has the type of the default, or of its annotation. A config file is Python. Each name in it
must be a setting, begin with _, or be a function, a class or a module. Otherwise a misspelled
setting would be ignored, and a run of days would use the default. You can copy this file alone.
"""
import ast, contextlib, difflib, glob, json, os, re, signal, sys, time, traceback, typing

set_by = {}         # {setting: the config file, or 'command line', that set it}
# A run that resumes takes over its config.json, perhaps a stranger's, which can't set these.
TYPED = {'out_dir', 'init_from', 'overwrite', 'allow_code_execution', 'plan'}
# A run with other values of these is still the run of its config file.
HARMLESS = {*('out_dir overwrite seed device compile micro_batch_size grad_checkpoint log_interval '
              'eval_interval save_interval sample_prompt sample_tokens '
              'allow_code_execution').split()}
LESS_MEMORY = ('--micro_batch_size=1', '--grad_checkpoint=True', '--shard=fsdp', '--lora=8',
               '--num_workers=1')


class Mistake(ValueError):
    """What a user can put right: it ends a script with one sentence and exit code 2."""


def require(condition, sentence):
    """Refuse what a user typed, with this sentence, unless the condition holds."""
    if not condition:
        raise Mistake(sentence)


def configure(script, bounds=()):
    """Apply sys.argv to script, a script's globals(). Return {setting: value}. bounds: {setting:
    (lowest, highest)}."""
    config = {name: value for name, value in script.items() if name.islower() and name[0] != '_'
              and isinstance(value, int | float | str | tuple | dict | None) and value is not set_by}
    arguments = iter(sys.argv[1:])
    for source in arguments:
        if source in ('-h', '--help'):
            sys.exit(print_help(script))
        if source.startswith('--'):
            name, equals, text = source[2:].partition('=')
            if not equals:                                  # --name value
                text = next(arguments, '--')
                if text.startswith('--'):
                    default = config.get(name)
                    raise Mistake(f'{source} needs a value, such as {source}='
                                  f'{default is False or default}')
            new, source = {name: text}, 'command line'
        else:
            new = read_file(source, config)
        for name, value in new.items():
            if name not in config:
                [near] = difflib.get_close_matches(name, config, 1, cutoff=0)
                raise Mistake(f'{source}: there is no setting {name}; the closest is {near}')
            config[name] = convert(script, bounds, source, name, value)
            set_by[name] = source
    path = path_to_resume(script, config)
    origins = {os.path.basename(set_by[name]) for name in set_by.keys() - HARMLESS}
    if path:
        saved = read_file(path, config)
        origins.add(saved.get('preset', 'command line'))
        for name in saved.keys() & config.keys() - set_by.keys() - TYPED:
            if not str(saved[name]).endswith('.py'):        # a program, such as a reward
                config[name] = convert(script, bounds, path, name, saved[name])
    script.update(config)
    if len(origins) == 1 and 'command line' not in origins:
        config['preset'] = origins.pop()
    return config


def path_to_resume(script, config):
    """Return the config.json of the run that goes on, or None. auto becomes resume or the default."""
    folder, start = config.get('out_dir'), config.get('init_from')
    restarts = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') > '0'      # torchrun, after a crash
    if start in ('auto', 'resume'):
        set_by.pop('init_from', None)           # it is no choice of another model
    if start == 'auto' or restarts and config.get('overwrite'):
        if glob.glob(f'{glob.escape(folder)}/last*.pt'):
            start = 'resume'
        elif start == 'auto':
            start = script['init_from']
        config['init_from'] = start
    if start == 'resume' and os.path.exists(f'{folder}/config.json'):
        return f'{folder}/config.json'


def read_file(path, settings):
    """Return {name: value} of a config file or a config.json, without a config file's helpers."""
    scope = {}
    try:
        with open(path, 'rb') as f:
            if path.endswith('.json'):
                return json.load(f)
            exec(compile(f.read(), path, 'exec'), scope)
    except (Exception, SystemExit) as error:
        lines = [f', line {frame.lineno}' for frame in traceback.extract_tb(error.__traceback__)
                 if frame.filename == path]
        raise Mistake(f'{path}{"".join(lines)}: {type(error).__name__}: {error}; a config file is '
                      'Python, and flags begin with --') from error
    return {name: value for name, value in scope.items()        # what is defined has a __name__
            if name in settings or name[0] != '_' and not hasattr(value, '__name__')}


def convert(script, bounds, source, name, value):
    """Return a value in the type of its setting."""
    kind = script.get('__annotations__', {}).get(name, type(script[name]))
    kinds = typing.get_args(kind) or [kind]         # int | None: int, NoneType; Literal: its choices
    if source == 'command line' and value not in kinds and (str not in kinds or value == 'None'):
        with contextlib.suppress(Exception):        # '3' -> 3, '1,2' -> (1, 2)
            value = ast.literal_eval(value.title() if value in ('true', 'false') else value)
    if type(value) is list:                         # JSON has no tuples
        value = tuple(value)
    if type(value) in (int, float):
        low, high = dict(bounds).get(name, (0, 1e18))
        if not low <= value <= high:                # with nan, every comparison is false
            raise Mistake(f'{source}: {name}={value} must be from {low:g} to {high:g}')
        if int in kinds and value % 1 == 0:
            value = int(value)
        elif float in kinds:
            value = float(value)
    is_missing = value == '' and script[name]
    if is_missing or value not in kinds and type(value) not in kinds:
        raise Mistake(f'{source}: {name}={value!r:.80} must be '
                      f'{" or ".join(getattr(k, "__name__", k) for k in kinds)}, such as '
                      f'{script[name]!r}')
    return value


def print_help(script):
    """Print a script's docstring, and the lines of its settings."""
    with open(script['__file__'], encoding='utf-8') as f:
        head = f.read().partition('configure(globals()')[0]
    print(script['__doc__'], *re.findall(r'^[a-z]\w*.* = .+', head, re.M), sep='\n', flush=True)


def end(kind, error, trace):
    """Python calls this for an error that nothing caught. Exit code 1 is a bug, 2 a Mistake or the
    machine (disk, memory), 130 Ctrl-C. A Mistake has no traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)    # a second Ctrl-C ends the process at once
    sys.stderr = sys.__stderr__                     # torch.distributed holds sys.stderr back
    code, sentence = 2, f'error: {error}'
    line = f'{traceback.extract_tb(trace)[-1].line}'
    if kind.__name__ == 'Mistake':                  # tokenizer.py has a class of its own
        time.sleep(3 * (os.environ.get('RANK', '0') > '0'))     # rank 0 says the same, and ends us
    elif kind is ModuleNotFoundError and (door := re.search(r'extras\.(\w+)', line)):
        sentence += f'; this needs extras/{door[1]}.py'
    elif kind is KeyboardInterrupt:
        code, sentence = 130, 'stopped by Ctrl-C'
    elif kind is BrokenPipeError:                   # X.py --help | head
        os._exit(141)
    else:
        sys.__excepthook__(kind, error, trace)
        if re.search('MemoryError|(of|allocate) memory|bad_alloc', repr(error)):
            ways = [f'{way}, ' for way in LESS_MEMORY if way not in sys.argv
                    and re.search(r'\w+', way)[0] in trace.tb_frame.f_globals]
            sentence = f'error: out of memory; try {"".join(ways)}a smaller batch ({error!r})'
        elif re.search('No space|File too large|quota|requested and|unexpected pos|Writer fail',
                       repr(error)):
            sentence = f'error: the disk is full; make room; what was saved stays ({error})'
        elif not isinstance(error, OSError):
            code, sentence = 1, ''
    if sentence:
        print(*sentence.split(), file=sys.stderr)
    if 'RANK' in os.environ:        # Python's usual end may wait for processes that wait for us
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


sys.excepthook = end
