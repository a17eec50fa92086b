"""
Override a script's settings by config files and command-line flags. The settings are the lines
`name = value` above the script's call of configure(). If two arguments set the same name, the later
one wins.

    min_lr: float | None = None                         # a type other than the default's
    optimizer: Literal['adamw', 'muon'] = 'adamw'       # choices
    config = configure(globals(), {'batch_size': (1, 1e6)})     # (minimum, maximum)

A config file is Python. An unknown name is an error, because with a misspelled setting a run would
silently use the default. The names of helper variables must begin with _. Functions, classes and
modules need no prefix.

    find_paths('out/a, out/b*')         # ['out/a', 'out/b1', 'out/b2']: comma-separated, with globs
"""
import ast, atexit, contextlib, difflib, glob, os, re, runpy, sys, tempfile, time, traceback, typing


# callbacks that run when the script exits, also after an error: at_exit.callback(function)
at_exit = contextlib.ExitStack()


class UserError(ValueError):
    """An error that the user can fix: the script prints one line and exits with code 2."""


def require(condition, message):
    """Raise UserError(message) unless the condition is true."""
    if not condition:
        raise UserError(message)


def configure(script, bounds=(), explicit=None, preset='defaults'):
    """Apply the command line to the settings in `script`, the globals() of a script. Return
    {setting: value}, plus 'preset', the name of the last config file (preset without one). bounds:
    {setting: (minimum, maximum)}; any other number must be at least 0. explicit: a dict that is
    filled with {setting: previous value} for each setting that a config file or flag sets. A value
    that is set again leaves the previous value."""
    sys.excepthook = report_error       # because scripts have no main() with a try statement
    atexit.register(at_exit.close)
    sys.stdout.reconfigure(errors='replace')        # print ? if it can't encode a character
    source = open(script['__file__'], encoding='utf-8').read().split('configure(globals')[0]
    lines = dict(re.findall(r'^([a-z]\w*)((?:: .+?)? = .+)', source, re.M))    # {setting: rest}
    if {'-h', '--help'} & {*sys.argv}:
        print(script['__doc__'], *map(''.join, lines.items()), sep='\n')
        sys.exit()
    explicit = {} if explicit is None else explicit
    config = {name: script[name] for name in lines if name in script}
    for argument in sys.argv[1:]:
        if argument.startswith('--'):
            name, equals, text = argument[2:].partition('=')
            prefix, new = '--', {name: text if equals else True}    # --overwrite means True
        else:
            prefix, new, preset = f'{argument}: ', settings_in(argument, config), argument
        for name, value in new.items():
            require(name in config, f'{prefix}{name}: no setting has this name; closest: '
                    f'{closest_settings(name.lower(), config, lines)}; see --help')
            old, config[name] = config[name], convert(script, bounds, prefix, name, value)
            explicit[name] = explicit.get(name, old) if config[name] == old else old
    script.update(config)
    return {**config, 'preset': os.path.basename(preset)}


def closest_settings(name, names, rest):
    """Return up to three settings that an unknown name may mean: lerning_rate is a misspelled
    learning_rate, lr has its initials, and for num_epochs the line of max_steps has the word epochs
    in its comment. The longest word of the name counts, and five letters of it, so that accumulate
    finds accumulation. rest: {setting: the rest of its line}."""
    word = ' ' + max(re.split('[_-]', name), key=len)[:5]
    near = difflib.get_close_matches(name, names, 1)
    near += [k for k in names if word in f' {k}{rest[k]}' or re.sub('_?(.)[^_]*', r'\1', k) == name]
    return ', '.join([*dict.fromkeys(near)][:3]) or 'none'


def settings_in(path, config):
    """Return {name: value} of a config file, without the functions, classes and modules that the
    file defines or imports. One with the name of a setting is returned, so convert() rejects it."""
    require(path.endswith('.py') and os.path.isfile(path),
            f'{path} is not a config file; a flag looks like --name=value')
    return {name: value for name, value in runpy.run_path(path).items()
            if name[0] != '_' and (name in config or not hasattr(value, '__name__'))}


def convert(script, bounds, prefix, name, given):
    """Convert a value to the type of its setting: for int | None, '1e3' becomes 1000 and 'None'
    becomes None. given: the string after a flag's =, True for a flag without =, or the value from a
    config file. prefix: the start of an error message, '--' or 'my.py: '."""
    annotations = sys.modules[script['__name__']].__annotations__
    types = typing.get_args(annotations.get(name)) or [type(script[name])]
    # a path, or a number of NumPy, which has a shape
    value = str(given) if isinstance(given, os.PathLike) or hasattr(given, 'shape') else given
    if isinstance(value, str) and (str not in types or value == 'None' and type(None) in types):
        with contextlib.suppress(Exception):            # '3' -> 3, '1,2' -> (1, 2)
            value = ast.literal_eval(value.title() if bool in types else value)     # true -> True
    # Normalize lists of paths: the shell doesn't expand ~ in --ckpt=~/a,~/b, and users type 'a, b'.
    # Settings that are free text are excluded.
    if isinstance(value, str) and not re.search('prompt|system|stop_at|text_field', name):
        # out and out_dir are a single path, which may not exist yet and may contain commas
        value = os.path.expanduser(value) if name[:3] == 'out' else ','.join(split_paths(value))
    if type(value) in (int, float):
        low, high = dict(bounds).get(name, (0, 1e18))           # refuses nan: nan >= 0 is false
        require(low <= value <= high, f'{prefix}{name}={value} must be from {low:g} to {high:g}')
        # an int setting accepts 1e3 as 1000, a float setting accepts 1 as 1.0
        exact = [each for each in (int, float) if each in types and each(value) == value]
        value = exact[0](value) if exact else value
    allowed = ' or '.join(str(getattr(each, '__name__', each)) or "''" for each in types)
    problem = ' needs a value:' if (prefix, given) == ('--', True) else f'={given!r:.80} must be'
    # '' is valid if the default is empty, too; --languages=, is not valid
    require(value in types or type(value) in types and (value != '' or not (given or script[name])),
            f'{prefix}{name}{problem} {allowed}, such as {script[name]!r}')
    return value


def split_paths(text):
    """Split a comma-separated list of paths, strip spaces and expand ~. An existing path is not
    split: with a folder 'lr, wd=0', this name is one path."""
    parts = [text] if os.path.exists(os.path.expanduser(text)) else map(str.strip, text.split(','))
    return [os.path.expanduser(part) for part in parts if part]


def find_paths(text, inside=''):
    """Return split_paths(text) with globs replaced by their sorted matches. A path without a match
    is returned unchanged, so that the caller can name it in an error. inside: a file to append to
    each path, such as '/metrics.jsonl'."""
    return [path for part in split_paths(text) for path in
            not os.path.exists(part) and sorted(glob.glob(part + inside)) or [part + inside]]


def require_writable(path):
    """Raise UserError if a file can't be written. Scripts call this before their work begins. It
    creates the file's folder."""
    folder = os.path.dirname(path) or '.'
    try:        # a new file isn't left behind, and one that exists, such as /dev/null, stays
        os.makedirs(folder, exist_ok=True)
        (open(path, 'ab') if os.path.exists(path) else tempfile.TemporaryFile(dir=folder)).close()
    except OSError as error:
        raise UserError(f"can't write to {path}: {error.strerror}; choose another --out") from None


def report_error(error_type, error, trace):
    """Report an uncaught exception, as sys.excepthook: a UserError in one line, with exit code 2;
    any other exception, a bug or a failure of the machine, with its traceback and exit code 1."""
    sys.stderr = sys.__stderr__     # torch.distributed replaces and buffers it
    if os.environ.get('RANK', '0') != '0':
        time.sleep(3)               # rank 0 may report the same error and end this process first
    if issubclass(error_type, ImportError) and re.match(r'extras\b', error.name or ''):
        # A file of extras/ is missing, or older than the script. The error may name only its
        # folder, so the message also shows the import statement: from extras.training import muon
        error = UserError(f'{error}; copy extras/, used by: {traceback.extract_tb(trace)[-1].line}')
    # UserError by name, because model.py and tokenizer.py define their own to be standalone. A
    # SyntaxError is in a file of the user, such as 'invalid syntax (my_config.py, line 3)'.
    is_user_error = type(error).__name__ == 'UserError' or isinstance(error, SyntaxError)
    if is_user_error:
        print('error:', *str(error).split(), file=sys.stderr)   # on one line
    else:
        sys.__excepthook__(error_type, error, trace)
        if re.search('out of memory|allocate|MemoryError', f'{error_type.__name__}: {error}'):
            print('error: out of memory; lower --micro_batch_size or see docs/trouble.md; are '
                  'other processes using the memory?', file=sys.stderr)
    sys.stdout.flush()
    at_exit.close()
    if is_user_error or 'RANK' in os.environ:   # don't wait for torch.distributed's threads
        os._exit(2 if is_user_error else 1)

