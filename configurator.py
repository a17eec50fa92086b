"""
Config files and command-line flags over a script's plain globals.

A script states its settings as ordinary assignments, then calls configure once:

    learning_rate = 6e-4        # >= 0: peak, reached after warmup_steps
    optimizer = 'adamw'         # adamw | muon
    config = configure(globals())

    python train.py config/shakespeare_cpu.py --max_steps=500 --device cpu

Config files are Python that assigns the same names. Files and flags apply from left to right; `--help` prints
every setting. A comment may begin with a rule: a bound, an interval like [0, 1), or the choices; None always
passes. A setting keeps the type of its default or annotation; an int passes for a float, 1e3 for an int.
A mistake prints one line on stderr and exits with code 2. After configure(), these do the same: an OSError
(disk full), a lack of memory, a ValueError that a file of ours raises. Other errors keep their traceback.
"""
import ast, difflib, io, operator, os, re, signal, sys, time, tokenize, traceback, types, typing

OPERATORS = {'>=': operator.ge, '[': operator.ge, '>': operator.gt, '(': operator.gt,
             '<=': operator.le, ']': operator.le, '<': operator.lt, ')': operator.lt}
defaults = {}       # of the script that called configure: show() marks each setting that differs


def configure(namespace):
    """Apply sys.argv to namespace, a script's globals(); return {setting: value}. Values are JSON-able."""
    script = namespace['__file__']
    sys.excepthook = one_line_for_mistakes
    settings = read_settings(script, namespace)         # name -> (types, comment)
    values = {name: namespace[name] for name in settings}
    defaults.update(values)
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
            if not equals and name in settings:         # the form "--key value"
                if not arguments or arguments[0].startswith('--'):
                    raise ValueError(f'--{name} has no value; its default is {values[name]!r}')
                text = arguments.pop(0)
            kinds = settings[name][0] if name in settings else ()
            new = {name: text if str in kinds else literal(text)}       # 'None' stays text here: see coerce
        for name, value in new.items():
            if name not in settings:
                hint = closest(name, settings) or f'; see: {os.path.basename(script)} --help'
                raise ValueError(f'{source}: unknown setting {name}{hint}')
            values[name] = coerce(name, value, settings[name][0], source)
            check(name, values[name], settings[name][1], source)
    namespace.update(values)
    return values


def show(config, say=print):
    """Print all settings. Call it after all checks, so that a mistake prints one line and nothing else."""
    if os.environ.get('RANK', '0') == '0':      # torchrun starts a process per device: only the first talks
        star = lambda name: '*' if config[name] != defaults.get(name, config[name]) else ''
        words = [f'{star(name)}{name}={value!r}' for name, value in config.items()]
        say('settings (* = not the default): ' + '  '.join(words))


def read_settings(script, namespace):
    """{name: (types, comment)} of the public names assigned at top level above the configure() call."""
    with tokenize.open(script) as f:
        source = f.read()
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string.lstrip('# ') for t in tokens if t.type == tokenize.COMMENT}
    settings = {}
    for node in ast.parse(source).body:
        if re.match(r'(.+ = )?([\w.]+\.)?configure\(', ast.unparse(node)):
            break
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        name = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
        if name.isidentifier() and not name.startswith('_'):
            annotation = getattr(node, 'annotation', None)
            kind = eval(ast.unparse(annotation), namespace) if annotation else type(namespace[name])
            kinds = typing.get_args(kind) or (kind,)        # int | None -> (int, NoneType)
            settings[name] = kinds, comments.get(node.end_lineno, '')
            check(name, namespace[name], settings[name][1], script)
    return settings


def check(name, value, comment, source):
    """Refuse a value that breaks the rule at the head of its comment, such as '>= 1', '[0, 1)', 'a | b'."""
    rule = comment.split(':')[0].strip()
    number = r'(-?[\d.e*-]+)'           # also 1e-3 and 2**32
    good = True
    if ' | ' in rule:
        choices = rule.split(' | ')
        good = value is None or str(value) in choices
        expected = f'one of: {", ".join(choices)}{closest(str(value), choices)}'
    elif m := re.fullmatch(rf'(>=|>|<=|<) {number}', rule):
        good = value is None or OPERATORS[m[1]](value, eval(m[2]))
        expected = rule
    elif m := re.fullmatch(rf'([\[(]){number}, {number}([\])])', rule):
        good = value is None or (OPERATORS[m[1]](value, eval(m[2])) and OPERATORS[m[4]](value, eval(m[3])))
        expected = f'in {rule}'
    elif rule.startswith(('<', '>', '[', '(')):
        raise ValueError(f'{source}: {name}: the rule {rule!r} is not like ">= 1", "[0, 1)" or "this | that"')
    if not good:
        raise ValueError(f'{source}: {name}={value!r} must be {expected}')


def run_config_file(path, values):
    """Execute a config file, which sees the values so far; return the public names that it assigned."""
    if not path.endswith('.py'):
        raise ValueError(f'{path}: flags begin with --, config files end with .py')
    scope = dict(values)
    try:
        with tokenize.open(path) as f:
            source = f.read()
        exec(compile(source, path, 'exec'), scope)
    except OSError:
        raise
    except (Exception, SystemExit) as e:
        inside = [frame.lineno for frame in traceback.extract_tb(e.__traceback__) if frame.filename == path]
        line = inside[-1] if inside else getattr(e, 'lineno', 1)
        raise ValueError(f'{path}, line {line}: {type(e).__name__}: {e}') from e
    assigned = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)
                and isinstance(node.ctx, ast.Store)}
    changed = {name for name in values if scope.get(name) is not values[name]}      # by import, del, ...
    return {name: scope.get(name) for name in sorted(assigned & scope.keys() | changed) if name[0] != '_'}


def closest(word, choices):
    found = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f'; did you mean {found[0]}?' if found else ''


def literal(text):
    """The Python value of a text: '3' -> 3, '1e-3' -> 0.001, 'true' -> True, 'gpt2' -> 'gpt2'"""
    try:
        return ast.literal_eval({'true': 'True', 'false': 'False', 'none': 'None'}.get(text, text))
    except (ValueError, SyntaxError, TypeError):
        return text


def coerce(name, value, kinds, source):
    """value as one of kinds, if that loses nothing. The text 'None' means None where None is allowed."""
    if value == 'None' and types.NoneType in kinds:
        return None
    if str not in kinds and str(value).lstrip('+-').lower() in ('nan', 'inf', 'infinity'):
        raise ValueError(f'{source}: {name}={value} must be a finite number')
    if type(value) in kinds:
        return value
    if type(value) is int and float in kinds and abs(value) < 2 ** 1023:  # a larger one overflows
        return float(value)
    if type(value) is float and int in kinds and value.is_integer():      # False for inf
        return int(value)
    expected = ' or '.join(kind.__name__.replace('NoneType', 'None') for kind in kinds)
    raise ValueError(f'{source}: {name}={value!r} is of type {type(value).__name__}, expected {expected}')


def one_line_for_mistakes(kind, error, tb):
    """sys.excepthook: a mistake that the user can mend becomes one line and exit code 2."""
    last = traceback.extract_tb(tb)[-1]          # a `raise` of ours, not an operation that failed in our code
    here, folder = (os.path.dirname(os.path.abspath(path)) for path in (__file__, last.filename))
    in_parts = folder.startswith(os.path.join(here, 'parts'))
    ours = (folder == here or in_parts) and re.search(r'(^|: )raise ', last.line)
    memory = not issubclass(kind, ValueError) and re.search('MemoryError|(of|allocate) memory', repr(error))
    if memory or issubclass(kind, OSError) or (issubclass(kind, ValueError) and ours):
        rank = os.environ.get('RANK', '0')
        if rank != '0':             # wait: torchrun ends this process if the first one has the error, too
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(3)
        message = f'{error.filename}: {error.strerror}' if getattr(error, 'filename', None) else str(error)
        word = 'error: out of memory; try a smaller batch:' if memory else 'error:'
        print(word if rank == '0' else f'process {rank}: {word}', ' '.join(message.split()),
              file=sys.__stderr__, flush=True)      # torch.distributed puts a buffer in place of sys.stderr
        sys.exit(2)
    sys.__excepthook__(kind, error, tb)
