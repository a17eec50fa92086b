"""
Config files and command-line flags replace a script's settings, the plain variables above its call
of configure(). Files and flags apply from left to right, so the last one wins.

    min_lr: float | None = None                         # a type other than the default's
    optimizer: Literal['adamw', 'muon'] = 'adamw'       # choices
    config = configure(globals(), {'batch_size': (1, 1e6)})     # other numbers: at least 0

    python train.py config/shakespeare_cpu.py --max_steps=500 --device cpu

A config file is Python. Each name in it must be a setting, begin with _, or be a function, a class
or a module: a misspelled setting would otherwise be ignored, and a run of days use the default.
"""
import ast, contextlib, difflib, glob, json, os, pathlib, re, signal, sys, time, traceback, typing

set_by = {}         # {setting: the config file, or 'command line', that set it}
# A run that resumes takes over its config.json, perhaps a stranger's, which can't set these.
TYPED = 'out_dir init_from overwrite allow_code_execution plan'.split()
# A run with other values of these is still the run of its config file.
HARMLESS = TYPED + ('seed device compile micro_batch_size grad_checkpoint log_interval '
                    'eval_interval save_interval sample_prompt sample_tokens').split()
LESS_MEMORY = ('micro_batch_size=1 shard=fsdp grad_checkpoint=True lora=8 block_size=LESS '
               'n_layer=LESS num_workers=1').split()      # first what costs only time


class Mistake(ValueError):
    """What a user can put right: it ends a script with one sentence and exit code 2."""


def require(condition, sentence):
    """Refuse what a user typed, with this sentence, unless the condition holds."""
    if not condition:
        raise Mistake(sentence)


def configure(script, bounds=()):
    """Apply sys.argv to script, a script's globals(). Return {setting: value}. bounds: {setting:
    (lowest, highest)}."""
    defaults = {name: value for name, value in script.items() if name.islower() and name[0] != '_'
                and not hasattr(value, '__name__') and value is not set_by}
    config = {**defaults}
    arguments = iter(sys.argv[1:])
    for source in arguments:
        if source in ('-h', '--help'):
            sys.exit(print_help(script))
        if source.startswith('--'):
            name, equals, text = source[2:].partition('=')
            if not equals:                              # --name value
                text = next(arguments, '--')
            require(equals or not text.startswith('--'),
                    f'{source} needs a value, such as {source}={defaults.get(name) or True}')
            new, source = {name: text}, 'command line'
        else:
            new = read_file(source, defaults)
        config.update(new)
        set_by.update(dict.fromkeys(new, source))
    path = path_to_resume(config, defaults)
    sources = {os.path.basename(set_by[name]) for name in set_by.keys() - HARMLESS}
    if path:
        saved = read_file(path, defaults)
        sources.add(saved.get('preset'))
        for name in saved.keys() & defaults.keys() - TYPED - set_by.keys():
            if not str(saved[name]).endswith('.py'):    # a program, such as a reward
                config[name] = saved[name]
    for name, value in config.items():
        source = set_by.get(name, path)
        if name not in defaults:
            [near] = difflib.get_close_matches(name, defaults, 1, cutoff=0)
            raise Mistake(f'{source}: there is no setting {name}; the closest is {near}')
        config[name] = convert(script, bounds, source, name, value)
    script.update(config)
    if len(sources) == 1 and '.py' in str(sources):
        [config['preset']] = sources
    return config


def path_to_resume(config, defaults):
    """Return the config.json of a run that goes on, or None. auto becomes resume or the default."""
    folder, start = config.get('out_dir'), config.get('init_from')
    restarts = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') > '0'     # torchrun, after a crash
    if start == 'auto' or restarts and config.get('overwrite'):
        if glob.glob('last*.pt', root_dir=folder):
            start = 'resume'
        elif start == 'auto':
            start = defaults['init_from']
        config['init_from'] = start
    if start in ('resume', defaults.get('init_from')):
        set_by.pop('init_from', None)           # it is no choice of another model
    if start == 'resume' and os.path.exists(f'{folder}/config.json'):
        return f'{folder}/config.json'


def read_file(path, settings):
    """Return {name: value} of a config file or a config.json, without a config file's helpers."""
    require(os.path.isfile(path), f'{path} is no file; a flag begins with --')
    text = pathlib.Path(path).read_bytes()
    scope = {}
    try:
        if path.endswith('.json'):
            return json.loads(text)
        exec(compile(text, path, 'exec'), scope)
    except Exception as error:
        lines = [f', line {frame.lineno}' for frame in traceback.extract_tb(error.__traceback__)
                 if frame.filename == path]
        raise Mistake(f'{path}{"".join(lines)}: {type(error).__name__}: {error}') from error
    return {name: value for name, value in scope.items()        # what is defined has a __name__
            if name in settings or name[0] != '_' and not hasattr(value, '__name__')}


def convert(script, bounds, source, name, value):
    """Return a value in the type of its setting."""
    # int | None becomes int and NoneType, a Literal its choices.
    kinds = typing.get_args(script.get('__annotations__', {}).get(name)) or [type(script[name])]
    if source == 'command line' and (str not in kinds or value == 'None'):
        with contextlib.suppress(Exception):        # '3' -> 3, '1,2' -> (1, 2)
            value = ast.literal_eval(value.title() if bool in kinds else value)
    if type(value) is list:                         # JSON has no tuples
        value = tuple(value)
    if type(value) in (int, float):
        low, high = dict(bounds).get(name, (0, 1e18))
        require(low <= value <= high,               # with nan, every comparison is false
                f'{source}: {name}={value} must be from {low:g} to {high:g}')
        for number in float, int:
            if number in kinds and number(value) == value:
                value = number(value)
    require(value in kinds or type(value) in kinds and (value != '' or not script[name]),
            f'{source}: {name}={value!r:.80} must be '
            f'{" or ".join(getattr(k, "__name__", k) for k in kinds)}, such as {script[name]!r}')
    return value


def print_help(script):
    """Print a script's docstring, and its settings with their comments."""
    text = pathlib.Path(script['__file__']).read_text('utf-8').partition('configure(globals()')[0]
    print(script['__doc__'])
    setting = r'^([a-z]\w*)(?:: (.+?))? = (.+?) *(?:# (.*))?$'
    for name, kind, value, comment in re.findall(setting, text, re.M):
        print(f'  {f"--{name}={value}":<35} {comment}  {kind}'.rstrip())


def end(kind, error, trace):
    """Python calls this for an error that nothing caught. Exit code 1 is a bug, 2 a Mistake or the
    machine (disk, memory), 130 Ctrl-C. A Mistake has no traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)    # a second Ctrl-C ends the process at once
    sys.stderr = sys.__stderr__                     # torch.distributed holds sys.stderr back
    code, sentence = 2, f'error: {error}'
    text = repr(error)
    door = re.search(r"(named 'extras|from 'extras').* extras(\.| import )(\w+)",
                     f'{text}, {traceback.extract_tb(trace)[-1].line}')
    if kind is BrokenPipeError:                     # X.py --help | head
        os._exit(141)
    elif kind is KeyboardInterrupt:
        code, sentence = 130, 'stopped by Ctrl-C'
    elif door:
        sentence += f'; this needs extras/{door[3]}.py'
    elif kind.__name__ != 'Mistake':                # tokenizer.py has a class of its own
        sys.__excepthook__(kind, error, trace)
        if re.search('MemoryError|(of|allocate) memory|bad_alloc', text):
            ways = [f'--{way}, ' for way in LESS_MEMORY
                    if way.partition('=')[0] in trace.tb_frame.f_globals
                    and f'--{way}' not in sys.argv
                    and (way != 'shard=fsdp' or 'RANK' in os.environ)]
            sentence = f'error: out of memory; try {"".join(ways)}a smaller batch ({error!r})'
        elif re.search('No space|File too large|quota|requested and|unexpected pos|Writer fail',
                       text):
            sentence = f'error: the disk is full; make room; what was saved stays ({error})'
        elif not isinstance(error, OSError):
            code = 1
    time.sleep(3 * (os.environ.get('RANK', '0') > '0'))     # rank 0 says the same, and ends us
    if code != 1:
        print(*sentence.split(), file=sys.stderr)
    if 'RANK' in os.environ:        # Python's usual end may wait for processes that wait for us
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


sys.excepthook = end
