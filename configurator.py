"""
Config files and command-line flags over a script's plain globals.

A script states its settings as ordinary assignments, then calls configure once:

    learning_rate = 6e-4        # >= 0: peak, reached after warmup_steps
    dropout = 0.0               # [0, 1): 0.1 to 0.2 when the data are repeated many times
    optimizer = 'adamw'         # adamw | muon
    seed: int | None = None     # None = take the clock
    config = configure(globals())

    python train.py config/shakespeare_cpu.py --max_steps=500 --device cpu

Config files are Python that assigns the same names. Files and flags apply from left to right, so the last one
wins. `--help` prints the script's docstring and every setting with its default and comment.

A comment may begin with a rule, as above: a bound, an interval or the choices. None always passes. A setting
keeps the type of its default, or of its annotation; an int passes for a float, and 1e3 for an int.

A mistake is one line on stderr and exit code 2. So is, from then on, each OSError (no such file, disk full)
and each ValueError that a file of ours raises: that is how our code says that an input is wrong. Any other
exception is a bug and keeps its traceback. """
import ast, difflib, io, operator, os, re, signal, sys, textwrap, time, tokenize, traceback, types, typing

OPERATORS = {'>=': operator.ge, '[': operator.ge, '>': operator.gt, '(': operator.gt,
             '<=': operator.le, ']': operator.le, '<': operator.lt, ')': operator.lt}
defaults = {}       # of the script that called configure: show() marks what differs


def configure(namespace):
    """Apply sys.argv to namespace, a script's globals(); return {setting: value}. Values are JSON-able."""
    script = namespace['__file__']
    sys.excepthook = one_line_for_mistakes
    settings = read_settings(script, namespace)         # name -> (type, comment)
    values = {name: namespace[name] for name in settings}
    defaults.update(values)
    for name, (_, comment) in settings.items():
        check(name, values[name], comment, script)

    arguments = sys.argv[1:]
    if '--help' in arguments or '-h' in arguments:
        print((namespace['__doc__'] or '').strip(), '\n\nSettings, with their defaults:', sep='')
        for name, (_, comment) in settings.items():
            print(f'  --{f"{name}={values[name]!r}":<34} {comment}'.rstrip())
        sys.exit(0)

    while arguments:
        argument = arguments.pop(0)
        if not argument.startswith('--'):
            source = argument
            new = run_config_file(argument, values)
        else:
            source = 'command line'
            name, equals, text = argument[2:].partition('=')
            if not equals and name in settings:         # the form "--key value"
                if not arguments or arguments[0].startswith('--'):
                    raise ValueError(f'--{name} has no value; write --{name}=VALUE (default: {values[name]!r})')
                text = arguments.pop(0)
            is_text = name in settings and accepts(settings[name][0], str)
            new = {name: text if is_text else literal(text)}
        for name, value in new.items():
            if name not in settings:
                hint = closest(name, settings) or f'; see: python {os.path.basename(script)} --help'
                raise ValueError(f'{source}: unknown setting {name}{hint}')
            kind, comment = settings[name]
            values[name] = coerce(name, value, kind, source)
            check(name, values[name], comment, source)

    namespace.update(values)
    return values


def show(config, say=print):
    """Say all settings. Call it when all are known to be valid: then a mistake is one line and nothing
    else."""
    if os.environ.get('RANK', '0') == '0':          # torchrun starts a process per device: only the first talks
        stars = {name: '*' if value != defaults.get(name, value) else '' for name, value in config.items()}
        line = '  '.join(f'{stars[name]}{name}={value!r}' for name, value in config.items())
        say('settings (* = not the default): ' + textwrap.fill(line, 118, break_on_hyphens=False))


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
        if isinstance(node.value, ast.Call) and ast.unparse(node.value.func).split('.')[-1] == 'configure':
            break
        for target in getattr(node, 'targets', None) or [node.target]:
            if isinstance(target, ast.Name) and not target.id.startswith('_'):
                annotation = getattr(node, 'annotation', None)
                kind = eval(ast.unparse(annotation)) if annotation else type(namespace[target.id])
                settings[target.id] = (kind, comments.get(node.end_lineno, ''))
    return settings


def check(name, value, comment, source):
    """Refuse a value that breaks the rule at the head of its comment: '>= 1: steps', '[0, 1)', 'adamw |
    muon'."""
    rule = comment.split(':')[0].strip()
    number = r'(-?[\d.e*-]+)'
    if ' | ' in rule:
        choices = rule.split(' | ')
        good = value in choices
        expected = f'one of: {", ".join(choices)}{closest(str(value), choices)}'
    elif m := re.fullmatch(rf'(>=|>|<=|<) {number}', rule):
        good = value is None or OPERATORS[m[1]](value, eval(m[2]))
        expected = rule
    elif m := re.fullmatch(rf'([\[(]){number}, {number}([\])])', rule):
        good = value is None or OPERATORS[m[1]](value, eval(m[2])) and OPERATORS[m[4]](value, eval(m[3]))
        expected = f'in {rule}'
    elif rule.startswith(('<', '>', '[', '(')):
        raise ValueError(f'{source}: {name}: the rule {rule!r} is not like ">= 1", "[0, 1)" or "this | that"')
    else:
        return
    if not good and value is not None:
        raise ValueError(f'{source}: {name}={value!r} must be {expected}')


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


def closest(word, choices):
    found = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f'; did you mean {found[0]}?' if found else ''


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
        raise ValueError(f'{source}: {name} is nan, which is not a number')
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
    here, file = (os.path.dirname(os.path.abspath(path)) for path in (__file__, last.filename))
    ours = file in (here, os.path.join(here, 'parts')) and re.search(r'(^|: )raise ', last.line)
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
