"""
Config files and command-line flags over a script's plain globals.

A script states its settings as ordinary assignments, then calls configure once:

    learning_rate = 6e-4        # peak, reached after warmup_steps
    seed: int | None = None     # None = take the clock
    config = configure(globals())

    python train.py config/shakespeare_cpu.py --max_steps=500 --device cpu

Config files are Python that assigns the same names. Files and flags apply from left to right: what stands
last wins. `--help` prints the script's docstring and every setting with its default and comment.

A setting keeps the type of its default, or of its annotation; an int passes for a float, and 1e3 for an int.
An unknown name, a wrong type or a broken config file is one line on stderr and exit code 2. So is, from then
on, each OSError (no such file, disk full) and each ValueError that a file of ours raises: those are how our
code says that an input is wrong. Any other exception is a bug and keeps its traceback.
"""
import ast, difflib, io, os, signal, sys, textwrap, time, tokenize, traceback, types, typing


def configure(namespace):
    """Apply sys.argv to namespace, a script's globals(); return {setting: value}. Values are JSON-able."""
    script = namespace['__file__']
    sys.excepthook = one_line_for_mistakes
    settings = read_settings(script, namespace)         # name -> (type, comment)
    values = {name: namespace[name] for name in settings}
    changed = {}                                        # name -> who set it last

    arguments = sys.argv[1:]
    if '--help' in arguments or '-h' in arguments:
        print((namespace['__doc__'] or '').strip(), '\n\nSettings, with their defaults:', sep='')
        for name, (_, comment) in settings.items():
            print(f'  --{f"{name}={values[name]!r}":<34} {comment}'.rstrip())
        sys.exit(0)
    while arguments:
        argument = arguments.pop(0)
        if not argument.startswith('--'):
            source, new = argument, run_config_file(argument, values)
        else:
            source, (name, equals, text) = 'command line', argument[2:].partition('=')
            if not equals and name in settings:         # the form "--key value"
                if not arguments or arguments[0].startswith('--'):
                    raise ValueError(f'--{name} has no value; write --{name}=VALUE (its default is '
                                     f'{values[name]!r})')
                text = arguments.pop(0)
            new = {name: text if name in settings and accepts(settings[name][0], str) else literal(text)}
        for name, value in new.items():
            if name not in settings:
                close = difflib.get_close_matches(name, settings, n=1, cutoff=0.5)
                see = f'see: python {os.path.basename(script)} --help'
                hint = f'did you mean {close[0]}?' if close else see
                raise ValueError(f'{source}: unknown setting {name}; {hint}')
            values[name] = coerce(name, value, settings[name][0], source)
            changed[name] = source

    namespace.update(values)
    if os.environ.get('RANK', '0') == '0':        # torchrun starts a process per device: only the first talks
        print(f'{os.path.basename(script)} settings (* = not the default):')
        line = '  '.join(f'{"*" * (name in changed)}{name}={value!r}' for name, value in values.items())
        print(textwrap.fill(line, 118, initial_indent='  ', subsequent_indent='  ', break_on_hyphens=False))
    return values


def read_settings(script, namespace):
    """{name: (type, comment)} of the public names assigned at top level above the configure() call."""
    with tokenize.open(script) as f:
        source = f.read()
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string.lstrip('# ') for t in tokens if t.type == tokenize.COMMENT}
    settings = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        if isinstance(node.value, ast.Call) and getattr(node.value.func, 'id', '') == 'configure':
            break
        for target in getattr(node, 'targets', None) or [node.target]:
            if isinstance(target, ast.Name) and not target.id.startswith('_'):
                annotation = getattr(node, 'annotation', None)
                kind = eval(ast.unparse(annotation)) if annotation else type(namespace[target.id])
                settings[target.id] = (kind, comments.get(node.end_lineno, ''))
    return settings


def run_config_file(path, values):
    """Execute a config file, which sees the values so far; return the public names that it assigned."""
    try:
        with tokenize.open(path) as f:
            source = f.read()
    except (OSError, SyntaxError, UnicodeDecodeError) as e:
        hint = '' if path.endswith('.py') else '; flags begin with --, config files end with .py'
        raise ValueError(f'cannot read the config file {path} '
                         f'({getattr(e, "strerror", None) or e}){hint}') from e
    scope = dict(values)
    try:
        exec(compile(source, path, 'exec'), scope)
    except Exception as e:
        inside = [frame.lineno for frame in traceback.extract_tb(e.__traceback__) if frame.filename == path]
        line = inside[-1] if inside else getattr(e, 'lineno', 1)
        raise ValueError(f'{path}, line {line}: {type(e).__name__}: {e}') from e
    assigned = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)
                and isinstance(node.ctx, ast.Store)}
    return {name: scope[name] for name in scope if name in assigned and not name.startswith('_')}


def accepts(kind, value_type):
    return value_type in (typing.get_args(kind) or (kind,))


def literal(text):
    """'3' -> 3, '1e-3' -> 0.001, 'true' -> True, 'None' -> None, 'gpt2' -> 'gpt2'"""
    try:
        return ast.literal_eval({'true': 'True', 'false': 'False', 'none': 'None'}.get(text, text))
    except (ValueError, SyntaxError):
        return text


def coerce(name, value, kind, source):
    """value as kind, where nothing is lost by it. The text None means None where None is allowed."""
    if value == 'None' and accepts(kind, types.NoneType):
        return None
    if type(value) is float and value != value:
        raise ValueError(f'{source}: {name} is nan, which is no number')
    if accepts(kind, type(value)):
        return value
    if type(value) is int and accepts(kind, float) and abs(value) < 2 ** 1023:  # a larger one overflows
        return float(value)
    if type(value) is float and accepts(kind, int) and value.is_integer():      # False for inf
        return int(value)
    expected = ' or '.join(t.__name__.replace('NoneType', 'None') for t in typing.get_args(kind) or (kind,))
    raise ValueError(f'{source}: {name}={value!r} is of type {type(value).__name__}, expected {expected}')


def one_line_for_mistakes(kind, error, tb):
    """sys.excepthook: what the user can mend becomes one line and exit code 2."""
    last = traceback.extract_tb(tb)[-1]          # a `raise` of ours, not an operation that failed in our code
    ours = os.path.dirname(os.path.abspath(last.filename)) == os.path.dirname(os.path.abspath(__file__)) \
        and (last.line.startswith('raise ') or ': raise ' in last.line)
    if issubclass(kind, OSError) or (issubclass(kind, ValueError) and ours):
        rank = os.environ.get('RANK', '0')
        if rank != '0':             # the first process speaks, unless it has nothing to say
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(3)
        known = isinstance(error, OSError) and error.strerror and error.filename
        message = f'{error.filename}: {error.strerror}' if known else str(error)
        print('error:' if rank == '0' else f'process {rank}: error:', ' '.join(message.split()),
              file=sys.__stderr__, flush=True)      # torch.distributed puts a buffer in place of sys.stderr
        sys.exit(2)
    sys.__excepthook__(kind, error, tb)
