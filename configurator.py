"""
Config files and command-line flags over a script's plain globals. The script calls configure once:

    learning_rate = 6e-4        # >= 0: peak, reached after warmup_steps
    optimizer = 'adamw'         # adamw | muon
    config = configure(globals())

    python train.py config/shakespeare_cpu.py --max_steps=500 --device cpu

Files and flags apply from left to right. A config file is Python: it may loop and import; a name that its
top level assigns must be a setting or begin with _. The text before the first colon of a comment is a rule
if it is a bound (>= 1), an interval ([0, 1)) or words with | between them, one of which is the default.
A setting keeps its type; an int passes for a float, 1e3 for an int, and None passes every rule.
A mistake prints one line and ends with exit code 2.
"""
import ast, difflib, dis, os, pathlib, re, sys, textwrap, time

defaults = {}       # of the script that called configure


def configure(namespace):
    """Apply sys.argv to namespace, a script's globals(); return {setting: value}. Values are JSON-able."""
    sys.excepthook = one_line_for_mistakes
    settings = read_settings(namespace['__file__'], namespace)      # {name: (kinds, comment)}
    defaults.update({name: namespace[name] for name in settings})
    values = dict(defaults)
    arguments = sys.argv[1:]
    if '--help' in arguments or '-h' in arguments:
        print((namespace['__doc__'] or '').strip(), '\n\nSettings, with their defaults:', sep='')
        for name, (_, comment) in settings.items():
            print(f'  --{f"{name}={values[name]!r}":<34} {comment}'.rstrip())
        sys.exit()

    while arguments:
        source = arguments.pop(0)
        if not source.startswith('--'):
            new = run_config_file(source, values)
        else:
            name, equals, text = source[2:].partition('=')
            source = 'command line'
            if name in settings and not equals:         # the form "--key value"
                if not arguments or arguments[0].startswith('--'):
                    raise ValueError(f'--{name} has no value; its default is {values[name]!r}')
                text = arguments.pop(0)
            is_text = name in settings and 'str' in settings[name][0]
            new = {name: text if is_text else literal(text)}
        for name, value in new.items():
            if name not in settings:
                hint = closest(name, settings) or f'; see: {os.path.basename(namespace["__file__"])} --help'
                raise ValueError(f'{source}: unknown setting {name}{hint}')
            kinds, comment = settings[name]
            values[name] = coerce(name, value, kinds, source)
            check(name, values[name], comment, defaults[name], source)
    namespace.update(values)
    return values


def show(config, say=print):
    """Say what differs from the defaults. Call it after all checks, so that a mistake prints one line."""
    text = '  '.join(f'{name}={value!r}' for name, value in config.items() if value != defaults.get(name))
    if os.environ.get('RANK', '0') == '0':      # torchrun starts a process per device: only the first talks
        say(textwrap.fill(f'settings: {text or "the defaults"}', 110, subsequent_indent='  '))


def read_settings(script, namespace):
    """{name: (names of its types, comment)} of what the script assigns above its call of configure."""
    lines = pathlib.Path(script).read_bytes().splitlines()
    settings = {}
    for statement in ast.parse(b'\n'.join(lines)).body:
        name, _, annotation = ast.unparse(statement).partition(' = ')[0].partition(': ')
        if name in namespace and name not in settings and name[0] != '_':       # below: not assigned yet
            kinds = annotation.split(' | ') if annotation else [type(namespace[name]).__name__]
            comment = lines[statement.end_lineno - 1][statement.end_col_offset:].decode().lstrip(' #')
            settings[name] = kinds, comment
            check(name, namespace[name], comment, namespace[name], script)
    return settings


def run_config_file(path, values):
    """Execute a config file, which sees the values so far; return {name: value} of what it assigns."""
    if not path.endswith('.py'):
        raise ValueError(f'{path}: flags begin with --, config files end with .py')
    source = pathlib.Path(path).read_bytes()
    scope = dict(values)
    names = set(values)
    line = 1
    try:
        for statement in ast.parse(source).body:
            line = statement.lineno
            before = set(scope)
            exec(compile(ast.Module([statement], []), path, 'exec'), scope)
            if isinstance(statement, ast.Assign | ast.AnnAssign):       # no loop, with, def, class, import
                names |= {name for name in scope.keys() - before if name[0] != '_'}
    except (Exception, SystemExit) as e:
        line = e.lineno if isinstance(e, SyntaxError) else line
        raise ValueError(f'{path}, line {line}: {type(e).__name__}: {e}') from e
    return {name: scope.get(name) for name in sorted(names)}


def literal(text):
    """The Python value of a text: '3' -> 3, '1e-3' -> 0.001, 'true' -> True, 'gpt2' -> 'gpt2'"""
    try:
        return ast.literal_eval({'true': 'True', 'false': 'False', 'none': 'None'}.get(text, text))
    except (ValueError, SyntaxError, TypeError):
        return text


def coerce(name, value, kinds, source):
    """value as one of kinds, if that loses nothing. The text 'None' means None where None is allowed."""
    kind = type(value).__name__
    if value in (None, 'None') and 'None' in kinds:
        return None
    if 'str' not in kinds and str(value).lstrip('+-').lower() in ('nan', 'inf', 'infinity'):
        raise ValueError(f'{source}: {name}={value} must be a finite number')
    if kind in kinds:
        return value
    if kind == 'int' and 'float' in kinds and abs(value) < 2 ** 1023:       # a larger one overflows
        return float(value)
    if kind == 'float' and 'int' in kinds and value.is_integer():
        return int(value)
    raise ValueError(f'{source}: {name}={value!r} is of type {kind}, expected {" or ".join(kinds)}')


def check(name, value, comment, default, source):
    """Refuse a value that breaks the rule before the first colon of its comment, if that is a rule."""
    rule = comment.split(':')[0].strip()
    words = rule.split(' | ')
    number = r'(-?\d+(?:\.\d+)?(?:e-?\d+)?(?:\*\*\d\d?)?)'          # 1, -0.5, 1e-3, 2**20
    interval = re.fullmatch(rf'[\[(]{number}, {number}[\])]', rule)
    good = True
    if value is None:
        return
    if re.fullmatch(f'(>=|>|<=|<) {number}', rule):
        good = eval(f'value {rule}')
    elif interval:
        low, high = map(eval, interval.groups())
        good = low < value < high or (value == low and rule[0] == '[') or (value == high and rule[-1] == ']')
        rule = f'in {rule}'
    elif len(words) > 1 and (default is None or str(default) in words) and ' ' not in ''.join(words):
        good = str(value) in words
        rule = f'one of: {", ".join(words)}{closest(str(value), words)}'
    if not good:
        raise ValueError(f'{source}: {name}={value!r} must be {rule}')


def closest(word, choices):
    matches = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f'; did you mean {matches[0]}?' if matches else ''


def one_line_for_mistakes(kind, error, tb):
    """sys.excepthook: what the user can mend becomes one line and exit code 2; a bug keeps its traceback."""
    while tb.tb_next:
        tb = tb.tb_next
    code = tb.tb_frame.f_code
    home = pathlib.Path(__file__).resolve().parent
    folders = pathlib.Path(code.co_filename).resolve().parents
    is_ours = folders[0] == home or home / 'parts' in folders
    is_raise = dis.opname[code.co_code[tb.tb_lasti]] == 'RAISE_VARARGS'     # int('x') is a call: a bug
    message = str(error)
    if issubclass(kind, OSError):
        message = f'{error.filename}: {error.strerror}' if error.filename else message
    elif not issubclass(kind, ValueError) and re.search('MemoryError|(of|allocate) memory', repr(error)):
        message = f'out of memory; try a smaller batch (--micro_batch_size changes no result): {message}'
    elif not (issubclass(kind, ValueError) and is_ours and is_raise):
        return sys.__excepthook__(kind, error, error.__traceback__)

    rank = os.environ.get('RANK', '0')
    if rank != '0':     # wait: torchrun ends this process as soon as the first one has told the same
        time.sleep(3)
    print('error:' if rank == '0' else f'process {rank}: error:', ' '.join(message.split()),
          file=sys.__stderr__, flush=True)      # torch.distributed puts a buffer in place of sys.stderr
    sys.exit(2)
