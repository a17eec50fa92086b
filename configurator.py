"""
Config files and command-line flags replace a script's settings, the lines `name = value` above its
call of configure(). They apply from left to right, so the last one wins.

    min_lr: float | None = None                         # a type other than the default's
    optimizer: Literal['adamw', 'muon'] = 'adamw'       # choices
    config = configure(globals(), {'batch_size': (1, 1e6)})     # other numbers: at least 0

A config file is Python. Unknown names are an error, so a typo can't silently train for days with a
default. Prefix helper variables with _. Functions, classes and modules need no prefix.

    find_paths('out/lr[1e-3], wd=0')    # a folder of this name, or else: 'out/lr[1e-3]' and 'wd=0'
"""
import ast, atexit, contextlib, difflib, glob, os, pathlib, re, sys, time, traceback, typing


# what a script does when it ends, also after an error: at_exit.callback(function)
at_exit = contextlib.ExitStack()


class UserError(ValueError):
    """What a user can put right: it ends a script with one sentence and exit code 2."""


def require(condition, sentence):
    """Raise UserError(sentence) unless the condition holds."""
    if not condition:
        raise UserError(sentence)


def configure(script, bounds=(), explicit=None):
    """Replace the settings in script, the globals() of a script, by what the command line says.
    Return {setting: value}, and as 'preset' the name of the last config file. bounds: {setting:
    (least, most)}. explicit: a dict that gets what config files and flags set, {setting: the value
    that was replaced}."""
    sys.excepthook = report_error       # scripts are flat, without a main() that could catch errors
    atexit.register(at_exit.close)
    if hasattr(sys.stdout, 'reconfigure'):          # not in a notebook
        sys.stdout.reconfigure(errors='replace')    # what a terminal can't show becomes a ?
    if {'-h', '--help'} & {*sys.argv}:
        above = pathlib.Path(script['__file__']).read_text('utf-8').split('configure(globals')[0]
        print(script['__doc__'], *re.findall(r'^[a-z]\w*(?:: .+?)? = .+', above, re.M), sep='\n')
        sys.exit()
    explicit = {} if explicit is None else explicit
    config = {name: value for name, value in script.items()
              if name.islower() and name[0] != '_' and value is not explicit
              and isinstance(value, int | float | str | tuple | dict | None)}
    preset = 'defaults'
    for argument in sys.argv[1:]:
        if argument.startswith('--'):
            name, equals, text = argument[2:].partition('=')
            where, new = '--', {name: text if equals else True}         # --overwrite is True
        else:
            where, new = f'{argument}: ', settings_in(argument, config)
            preset = os.path.basename(argument)
        for name, value in new.items():
            [closest] = difflib.get_close_matches(name.lower(), config, 1) or ['none, see --help']
            require(name in config, f'{where}{name}: no setting has this name; closest: {closest}')
            explicit[name] = config[name]
            config[name] = convert(script, bounds, where, name, value)
    script.update(config)
    return {**config, 'preset': preset}


def settings_in(path, config):
    """Return {name: value} of a config file. A function, a class or a module helps, unless it has
    the name of a setting in config: then convert() refuses it."""
    require(path.endswith('.py') and os.path.isfile(path),
            f'{path} is no config file; a flag looks like --name=value')
    names = {'__file__': path}
    try:
        exec(compile(pathlib.Path(path).read_bytes(), path, 'exec'), names)
    except (Exception, SystemExit) as error:
        inside = error.__traceback__.tb_next        # None: a SyntaxError, which says itself where
        where = f'{path}, line {inside.tb_lineno}' if inside else path
        raise UserError(f'{where}: {type(error).__name__}: {error}') from None
    return {name: value for name, value in names.items()
            if name[0] != '_' and (name in config or not hasattr(value, '__name__'))}


def convert(script, bounds, where, name, given):
    """Return the value of a setting in the type of the setting: for int | None, '1e3' is 1000 and
    'None' is None. given: the text of a flag, True for a flag without one, or a value of a config
    file. where: how an error begins, with '--' or 'my.py: '."""
    annotations = sys.modules[script['__name__']].__annotations__
    types = typing.get_args(annotations.get(name)) or [type(script[name])]
    value = os.fspath(given) if isinstance(given, os.PathLike) else given
    # a number of numpy
    value = value.tolist() if isinstance(getattr(value, 'shape', None), tuple) else value
    if isinstance(value, str) and (str not in types or value == 'None' and type(None) in types):
        with contextlib.suppress(Exception):            # '3' -> 3, '1,2' -> (1, 2)
            value = ast.literal_eval(value.title() if bool in types else value)     # true -> True
    # The shell leaves --ckpt=~/a,~/b as it is, and people type 'a, b'. Texts stay as they are.
    if isinstance(value, str) and not re.search('prompt|system|stop_at|text_field', name):
        # out and out_dir are one path, which need not exist
        value = os.path.expanduser(value) if name[:3] == 'out' else ','.join(split_paths(value))
    if type(value) in (int, float):
        low, high = dict(bounds).get(name, (0, 1e18))           # nan is refused: nan >= 0 is false
        require(low <= value <= high, f'{where}{name}={value} must be from {low:g} to {high:g}')
        # 1e3 is 1000 for an int, and 1 is 1.0 for a float
        kinds = [kind for kind in (int, float) if kind in types and kind(value) == value]
        value = kinds[0](value) if kinds else value
    allowed = ' or '.join(str(getattr(each, '__name__', each)) or "''" for each in types)
    fault = ' needs a value:' if (where, given) == ('--', True) else f'={given!r:.80} must be'
    is_empty = value == '' and (script[name] or given)      # of a list of blanks and commas, too
    require(value in types or type(value) in types and not is_empty,
            f'{where}{name}{fault} {allowed}, such as {script[name]!r}')
    return value


def split_paths(text):
    """Return the paths in the text of a setting: all of it if a file or folder has this name, or
    else the parts between commas, without blanks around them, and with ~ as the home folder."""
    parts = [text] if os.path.exists(os.path.expanduser(text)) else map(str.strip, text.split(','))
    return [os.path.expanduser(part) for part in parts if part]


def find_paths(text, inside=''):
    """Return split_paths(text), and in place of a part that does not exist the paths that it
    matches as a glob, sorted. A part that matches nothing stays, so you can say what is missing.
    inside: a file in each folder, such as '/metrics.jsonl'."""
    return [path for part in split_paths(text) for path in
            not os.path.exists(part) and sorted(glob.glob(part + inside)) or [part + inside]]


def require_writable(path):
    """Refuse a file that can't be written, before the work for it begins. Its folder is made."""
    try:
        os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
        open(path, 'ab').close()
        os.path.getsize(path) or os.unlink(path)        # nothing stays if the work fails
    except OSError as error:
        raise UserError(f"can't write to {path}: {error.strerror}; choose another --out") from None


def report_error(error_type, error, trace):
    """Python calls this for an error that nothing caught: a UserError is one sentence, exit code 2.
    Others are bugs, or the machine's: they keep their traceback, exit code 1."""
    sys.stderr = sys.__stderr__     # torch.distributed holds back what is printed
    if os.environ.get('RANK', '0') != '0':
        time.sleep(3)               # rank 0 may say the same first; then torchrun ends this process
    # model.py and tokenizer.py import nothing of ours: each has a UserError of its own
    is_user_error = error_type.__name__ == 'UserError'
    if issubclass(error_type, ImportError) and re.match(r'extras\b', error.name or '') and (
            os.path.basename(error.path or '__init__.py') == '__init__.py'):
        # Python names a folder, and the line of the import the file that is missing in it. Where
        # the file is there, error.path names it: what is missing in a file is a bug.
        line = traceback.extract_tb(trace)[-1].line             # from extras.training import muon
        is_user_error, error = True, f'{error}; copy extras, too: {line}'
    if is_user_error:
        print('error:', *str(error).split(), file=sys.stderr)   # in one line
    else:
        sys.__excepthook__(error_type, error, trace)
        if re.search('out of memory|allocate|MemoryError', f'{error_type.__name__}: {error}'):
            print('error: out of memory; lower --micro_batch_size, or what docs/trouble.md names; '
                  'does another process use it?', file=sys.stderr)
    sys.stdout.flush()
    at_exit.close()
    if is_user_error or 'RANK' in os.environ:   # without torch.distributed's threads, which go on
        os._exit(2 if is_user_error else 1)

