"""
Config files and command-line flags replace a script's settings, the lines `name = value` above its
call of configure(). Files and flags apply from left to right, so the last one wins.

    min_lr: float | None = None                         # a type other than the default's
    optimizer: Literal['adamw', 'muon'] = 'adamw'       # choices
    config = configure(globals(), {'batch_size': (1, 1e6)})     # other numbers: at least 0

A config file is Python. A misspelled setting in it is refused, because a run of days would use the
default. Other names begin with _, or are those of functions, classes and modules.
"""
import ast, contextlib, difflib, glob, json, os, pathlib, re, signal, sys, time, traceback, typing

set_by = {}         # {setting: the config file, or 'command line', that set it}
# A run that resumes takes over its config.json, perhaps a stranger's, which can't set these.
TYPED = 'out_dir init_from overwrite allow_code_execution plan'.split()
# A run with other values of these is still that of its config file.
HARMLESS = TYPED + 'seed device compile micro_batch_size grad_checkpoint log_interval'.split()


class Mistake(ValueError):
    """What a user can put right: it ends a script with one sentence and exit code 2."""


def require(condition, sentence):
    """Refuse what a user typed, with this sentence, unless the condition holds."""
    if not condition:
        raise Mistake(sentence)


def configure(script, bounds=()):
    """Apply sys.argv to script, a script's globals(). Return {setting: value}."""
    if hasattr(sys.stdout, 'reconfigure'):      # not in a notebook
        sys.stdout.reconfigure(errors='replace')        # what a terminal can't show becomes a ?
    above = pathlib.Path(script['__file__']).read_text('utf-8').partition('configure(globals()')[0]
    settings = re.findall(r'^([a-z]\w*)(: .+?)? = (.+)', above, re.M)
    if {'-h', '--help'} & {*sys.argv}:
        lines = [f'  --{name}={rest}{kind}' for name, kind, rest in settings]
        sys.exit(print(script['__doc__'], *lines, sep='\n'))
    config = {name: script[name] for name, _, _ in settings}
    arguments = iter(sys.argv[1:])
    for source in arguments:
        if source.startswith('--'):
            name, equals, text = source[2:].partition('=')
            text = text if equals else next(arguments, '--')        # --name value
            require(equals or not text.startswith('--'),
                    f'{source} needs a value, such as {source}={config.get(name) or True}')
            new, source = {name: text}, 'command line'
        else:
            require(os.path.isfile(source), f'{source} is no file; a flag begins with --')
            text = pathlib.Path(source).read_bytes()
            require(b'\0' not in text, f'{source} is no Python; a setting is --name=value')
            scope = {}
            exec(compile(text, source, 'exec'), scope)
            new = {name: value for name, value in scope.items()
                   if name[0] != '_' and not hasattr(value, '__name__')}
        for name, value in new.items():
            [near] = [name] if name in config else difflib.get_close_matches(name, config, 1, 0)
            require(near == name, f'{source}: there is no setting {name}; the closest is {near}')
            config[name] = convert(script, bounds, source, name, value)
            set_by[name] = source

    # auto goes on if it can; so does a run with --overwrite that torchrun restarts after a crash.
    is_auto = config.get('init_from') == 'auto'
    is_restart = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') > '0'
    if is_auto or is_restart and config.get('overwrite'):
        if glob.glob('last*.pt', root_dir=config['out_dir']):
            config['init_from'] = 'resume'
        elif is_auto:
            config['init_from'] = script['init_from']           # the default
    path = pathlib.Path(config.get('out_dir', ''), 'config.json')
    goes_on = config.get('init_from') == 'resume' and path.exists()
    for link in filter(os.path.islink, path.parent.glob('*') if goes_on else ()):
        require(link.suffix == '.pt', f'{link} is a link: a run would write elsewhere; remove it')
    try:
        saved = json.loads(path.read_text('utf-8')) if goes_on else {}
    except ValueError as error:
        raise Mistake(f'{path} is damaged ({error}); remove it, and type its settings') from None
    for name in (saved.keys() & config.keys()) - {*TYPED} - set_by.keys():
        if name not in ('reward', 'held_out') or not str(saved[name]).endswith('.py'):  # programs
            config[name] = convert(script, bounds, path, name, saved[name])
    script.update(config)
    sources = {os.path.basename(set_by[name]) for name in set_by.keys() - HARMLESS}
    sources = sorted({*sources, str(saved.get('preset', ''))} - {''})
    return {**config, 'preset': ', '.join(sources) or 'defaults'}


def convert(script, bounds, source, name, value):
    """Return a value in the type of its setting: for int | None, '1e3' is 1000, 'None' is None."""
    # From Python 3.14 on, a module makes its annotations when it is asked for them.
    notes = script.get('__annotations__') or getattr(
        sys.modules.get(script['__name__']), '__annotations__', {})
    kinds = typing.get_args(notes.get(name)) or [type(script[name])]
    if type(value) is str and (str not in kinds or value == 'None' and type(None) in kinds):
        with contextlib.suppress(Exception):            # '3' -> 3, '1,2' -> (1, 2)
            value = ast.literal_eval(value.title() if bool in kinds else value)
    value = tuple(value) if type(value) is list else value      # JSON has no tuples
    if type(value) in (int, float):
        low, high = dict(bounds).get(name, (0, 1e18))
        require(low <= value <= high,                   # with nan, every comparison is false
                f'{source}: {name}={value} must be from {low:g} to {high:g}')
        value = next((n(value) for n in (int, float) if n in kinds and n(value) == value), value)
    allowed = ' or '.join(str(getattr(kind, '__name__', kind)) for kind in kinds)
    require(value in kinds or type(value) in kinds and (value != '' or not script[name]),
            f'{source}: {name}={value!r:.80} must be {allowed}, such as {script[name]!r}')
    return value


def end(kind, error, trace):
    """Python calls this for an error that nothing caught. Exit code 1 is a bug, 2 a Mistake or the
    machine (disk, memory), 130 Ctrl-C. A Mistake has no traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)    # a second Ctrl-C ends the process at once
    sys.stderr = sys.__stderr__                     # torch.distributed holds sys.stderr back
    frames = traceback.extract_tb(trace)            # the lines that led to the error
    places = [f'{f.filename}, line {f.lineno}: ' for f in frames if f.filename in sys.argv[1:]]
    code, sentence, text = 2, f'error: {error}', repr(error)
    if kind is BrokenPipeError:                     # X.py --help | head
        os._exit(141)
    elif kind is KeyboardInterrupt:
        code, sentence = 130, 'stopped by Ctrl-C'
    elif places or getattr(error, 'filename', None) in sys.argv[1:]:    # an error in a config file
        sentence = f'error: {"".join(places)}{kind.__name__}: {error}'
    elif re.search("named 'extras|from 'extras'", text):
        sentence += f'; copy extras, too, or leave out the flag that needs it: {frames[-1].line}'
    elif kind.__name__ != 'Mistake':
        sys.__excepthook__(kind, error, trace)
        if re.search('MemoryError|(of|allocate) memory|bad_alloc', text):
            sentence = ('error: out of memory; try a smaller batch, in training '
                        '--micro_batch_size=1, on several GPUs also --shard=zero2 or fsdp')
        elif re.search('No space|File too large|requested and|unexpected pos|Writer fail', text):
            sentence = f'error: the disk is full; make room; what was saved stays ({error})'
        elif not isinstance(error, OSError):
            code = 1
    time.sleep(3 * (os.environ.get('RANK', '0') > '0'))     # rank 0 says the same, and ends us
    if code != 1:
        print(*sentence.split(), file=sys.stderr)
    leave = os._exit if 'RANK' in os.environ else sys.exit      # os._exit waits for no thread
    sys.stdout.flush()
    leave(code)


sys.excepthook = end        # scripts are flat, without a main() that could catch errors
