"""
Config files and command-line flags replace a script's settings, the plain variables above its call
of configure(). Files and flags apply from left to right, so the last one wins.

    batch_size = 32                                     # sequences per step
    min_lr: float | None = None                         # where the rate ends
    optimizer: Literal['adamw', 'muon'] = 'adamw'       # what updates the weights
    config = configure(globals())

A value has the type of the default, or of its annotation. A config file is Python: each plain value
that it leaves is a setting, and the names of its helpers begin with _. A misspelled one is refused,
because a run of days would otherwise use the default. Copy this file alone.
"""
import ast, contextlib, difflib, json, os, re, sys, typing

PLAIN = bool, int, float, str, type(None), tuple, dict
# A run that resumes takes its settings from out_dir/config.json, but not these: they are typed.
TYPED = 'out_dir', 'init_from', 'overwrite', 'allow_code_execution', 'plan'
set_by = {}         # {setting: the config file, or 'command line', that set it}


class Mistake(Exception):
    """What a user can put right: it ends a script with one sentence and exit code 2."""


def require(condition, sentence):
    if not condition:
        raise Mistake(sentence)


def end(kind, error, trace):
    """Python calls this for an exception that nothing caught. Exit code 1 is a bug, 2 a mistake or
    the machine (disk, memory), 130 Ctrl-C. A mistake has no traceback."""
    is_door = isinstance(error, ImportError) and (error.name or '').startswith('extras')
    is_mistake = kind.__name__ == 'Mistake' or is_door      # tokenizer.py has its own Mistake
    is_machine = isinstance(error, (OSError, MemoryError)) or 'out of memory' in str(error)
    with contextlib.redirect_stderr(sys.__stderr__):        # torch.distributed holds sys.stderr back
        if not is_mistake and kind is not KeyboardInterrupt:
            sys.__excepthook__(kind, error, trace)
        if is_mistake or is_machine:
            print(f'error: {error}{", which needs the folder extras" * is_door}', file=sys.stderr)
    code = 130 if kind is KeyboardInterrupt else 2 if is_mistake or is_machine else 1
    if 'RANK' in os.environ:    # Python's usual end may wait for processes that wait for this one
        sys.stdout.flush()
        sys.__stderr__.flush()
        os._exit(code)
    sys.exit(code)


def configure(script, bounds={}):
    """Apply sys.argv to script, a script's globals(). Return {setting: value}."""
    sys.excepthook = end
    config = plain_values(script)
    types = sys.modules[script['__name__']].__annotations__
    given = {}          # {setting: (its value, what set it)}
    arguments = iter(sys.argv[1:])
    for argument in arguments:
        if argument in ('-h', '--help'):
            sys.exit(print_help(script, config))
        if argument.startswith('--'):                   # --key=value or --key value
            name, equals, text = argument[2:].partition('=')
            text = text if equals else next(arguments, '--')
            if not equals and text.startswith('--') and name in config:     # --chat alone
                example = config[name] or True
                raise Mistake(f'{argument} needs a value, such as {argument}={example}')
            given[name] = text, 'command line'
        else:
            given |= {name: (value, argument) for name, value in run_config_file(argument).items()}
    given = {**saved_settings(config, given), **given}
    for name, (value, source) in given.items():
        if name not in config:
            [near] = difflib.get_close_matches(name, config, 1, cutoff=0)
            raise Mistake(f'{source}: there is no setting {name}; the closest is {near}')
        config[name] = convert(name, value, types.get(name, type(script[name])), source)
        set_by[name] = source
    script.update(config)
    return config


def saved_settings(config, given):
    """Return the settings of the run in out_dir if it goes on, else {}. init_from=auto becomes
    resume if there is a checkpoint, else scratch."""
    out_dir, start = [given.get(name, (config.get(name),))[0] for name in ('out_dir', 'init_from')]
    if start == 'auto':
        is_there = any(os.path.exists(f'{out_dir}/{name}') for name in ('last.pt', 'last-1.pt'))
        start = 'resume' if is_there else 'scratch'
        given['init_from'] = start, 'auto'
    path = f'{out_dir}/config.json'
    if start != 'resume' or not os.path.exists(path):
        return {}
    with open(path, encoding='utf-8') as f:
        saved = json.load(f)
    return {name: (value, path) for name, value in saved.items()        # FILE.py is a reward
            if name in config and name not in TYPED and not str(value).endswith('.py')}


def plain_values(scope):
    """Return the settings among some variables. IGNORE, a constant, and _helper are none."""
    return {name: value for name, value in scope.items()
            if name.islower() and name[0] != '_' and isinstance(value, PLAIN) and value is not set_by}


def run_config_file(path):
    """Return the settings in a config file."""
    scope = {}
    try:
        with open(path, encoding='utf-8') as f:
            exec(compile(f.read(), path, 'exec'), scope)
    except (FileNotFoundError, IsADirectoryError):
        raise Mistake(f"{path} isn't a config file, and flags begin with --") from None
    return plain_values(scope)


def convert(name, value, kind, source):
    """Return value as this kind: a type, a union of types, or a Literal of choices."""
    kinds = typing.get_args(kind) or [kind]
    is_choice = typing.get_origin(kind) is typing.Literal
    if source == 'command line' and not is_choice and not {str, dict} & {*kinds}:
        with contextlib.suppress(ValueError, SyntaxError):      # '3' -> 3, '1,2' -> (1, 2)
            value = ast.literal_eval(value.title() if value in ('true', 'false', 'none') else value)
    if type(value) is list:             # JSON has no tuples
        value = tuple(value)
    if type(value) is int and int not in kinds and float in kinds:
        value = float(value)
    if type(value) is float and float not in kinds and int in kinds and value.is_integer():
        value = int(value)              # --max_steps=1e6
    if value not in kinds if is_choice else type(value) not in kinds:
        wanted = ' or '.join(getattr(k, '__name__', str(k)) for k in kinds)
        raise Mistake(f'{source}: {name}={value!r:.80} must be {wanted}')
    return value


def print_help(script, config):
    """Print a script's docstring, and each setting with its comment."""
    print(script['__doc__'])
    with open(script['__file__'], encoding='utf-8') as f:
        for line in f.read().partition('configure(globals()')[0].split('\n'):
            found = re.match(r'(\w+)(?:: (.+?))? = .*?(?:# (.*))?$', line)
            if found and found[1] in config:
                name, kind, comment = found.groups('')
                print(f'  {f"--{name}={config[name]!r}":<35} {comment}  {kind}'.rstrip())
