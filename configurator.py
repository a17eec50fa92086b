"""
Config files and command-line flags change a script's settings: its plain globals above its call of configure.

    min_lr: float | None = None         # >= 0: where the learning rate ends
    optimizer = 'adamw'                 # adamw | muon
    config = configure(globals())

    python train.py config/shakespeare_cpu.py --max_steps=500 --device cpu

Files and flags apply from left to right. A config file is Python, so it may loop and import. A name that it
assigns outside a loop or function must be a setting or begin with _. A comment's text before its first colon
is a rule if it is a bound (>= 1), an interval ([0, 1)), or words with | between them: the default or None.
"""
import ast, contextlib, difflib, dis, json, os, pathlib, re, sys, textwrap, time

PLAIN = bool | int | float | str | list | tuple | dict | None        # types of settings
defaults = {}       # {setting: its value in the script}, filled by configure
set_by = {}         # {setting: the config file, or 'command line', that set it}
in_use = {}         # the script's globals: its settings as they are now, among others


def configure(namespace):
    """Apply sys.argv to namespace, a script's globals(); return {setting: value}."""
    global in_use
    in_use = namespace
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
        argument = arguments.pop(0)
        if not argument.startswith('--'):
            source = argument
            new = run_config_file(argument, values)
        else:
            source = 'command line'
            name, equals, text = argument[2:].partition('=')
            if name in settings and not equals:         # the form "--key value"
                if not arguments or arguments[0].startswith('--'):
                    raise ValueError(f'--{name} has no value; its default is {values[name]!r}')
                text = arguments.pop(0)
            new = {name: text}
        for name, value in new.items():
            if name not in settings:
                raise ValueError(f'{source}: unknown setting {name}{nearest(name, settings)}; see --help')
            kinds, comment = settings[name]
            values[name] = coerce(name, value, kinds, source)
            check(name, values[name], comment, defaults[name], source)
            set_by[name] = source
    namespace.update(values)
    return values


def show(config, say=print):
    """Say what differs from the defaults. Call it after all checks, so that a mistake prints one line."""
    by = ' and '.join(dict.fromkeys(set_by.values())) or 'the script'
    text = '  '.join(f'{k}={v!r}' for k, v in config.items() if v != defaults.get(k)) or 'the defaults'
    say(textwrap.fill(f'settings of {by}: {text}', 110, subsequent_indent='  ', break_on_hyphens=False))


def read_settings(script, namespace):
    """Return {name: (names of its types, comment)} of what the script assigns above its call of configure."""
    lines = pathlib.Path(script).read_bytes().splitlines()          # ast counts columns in bytes
    settings = {}
    for statement in ast.parse(b'\n'.join(lines)).body:
        if ast.unparse(statement).endswith('configure(globals())'):
            break
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            is_typed = isinstance(statement, ast.AnnAssign)
            name = ast.unparse(statement.target if is_typed else statement.targets[0])
            if name in namespace.keys() - settings and name[0] != '_' and isinstance(namespace[name], PLAIN):
                kinds = ast.unparse(statement.annotation) if is_typed else type(namespace[name]).__name__
                comment = lines[statement.end_lineno - 1][statement.end_col_offset:].decode().lstrip(' #')
                settings[name] = re.findall(r'\w+', kinds.replace('typing.Optional', 'None')), comment
                check(name, namespace[name], comment, namespace[name], script)
    return settings


def run_config_file(path, values):
    """Run a config file. Return the settings that it sets, and the unknown names that it assigns."""
    if not path.endswith('.py'):
        raise ValueError(f'{path}: flags begin with --, config files end with .py')
    if not os.path.exists(path):
        there = [str(file) for folder in {os.path.dirname(path), 'config'}
                 for file in pathlib.Path(folder).glob('*.py')]
        raise ValueError(f'{path} does not exist{nearest(path, there) or "; see the folder config"}')
    source = pathlib.Path(path).read_bytes()
    scope = dict(values)
    names = set()
    line = 1
    try:        # one statement at a time: an error gets its line, and we see the names it adds
        for statement in ast.parse(source).body:
            line = statement.lineno
            code = compile(ast.Module([statement], []), path, 'exec')
            exec(code, scope)
            stored = {step.argval for step in dis.get_instructions(code) if step.opname == 'STORE_NAME'}
            is_plain = isinstance(statement, ast.Assign | ast.AnnAssign)        # no loop, def, import
            names |= {name for name in stored if name in values or is_plain and name[0] != '_'}
    except (Exception, SystemExit) as e:
        line = e.lineno if isinstance(e, SyntaxError) else line
        raise ValueError(f'{path}, line {line}: {type(e).__name__}: {e}') from e
    names |= {name for name in values if scope.get(name) is not values[name]}   # from x import *
    return {name: scope.get(name) for name in sorted(names)}


def coerce(name, value, kinds, source):
    """Return value in one of the allowed types. 3 may become 3.0, and 3.0 may become 3."""
    if source == 'command line' and 'str' not in kinds:     # text: '3' -> 3, '1e-3' -> 0.001, 'true' -> True
        with contextlib.suppress(ValueError, SyntaxError, TypeError):
            value = ast.literal_eval({'true': 'True', 'false': 'False', 'none': 'None'}.get(value, value))
    kind = type(value).__name__
    if value in (None, 'None') and 'None' in kinds:         # a flag of type str | None is still a text
        return None
    # A text of more than 4,300 digits is still a text here. Written with `not` to refuse nan, too.
    no_number = 'str' not in kinds and re.fullmatch(r'[+-]?(nan|inf|infinity|\d{19,})', str(value).lower())
    if no_number or kind in ('int', 'float') and not abs(value) < 1e18:
        raise ValueError(f'{source}: {name}={value!s:.40} must be a finite number of at most 18 digits')
    if kind in kinds:
        return value
    if kind == 'int' and 'float' in kinds:
        return float(value)
    if kind == 'float' and 'int' in kinds and value.is_integer():
        return int(value)
    raise ValueError(f'{source}: {name}={value!r} is of type {kind}, expected {" or ".join(kinds)}')


def check(name, value, comment, default, source):
    """Refuse a value that breaks the rule before the first colon of its comment, if that is a rule."""
    rule = '' if value is None else comment.split(':')[0].strip()
    words = rule.split(' | ')
    number = r'(-?\d+(?:\.\d+)?(?:e-?\d+)?(?:\*\*\d\d?)?)'          # 1, -0.5, 1e-3, 2**20
    interval = re.fullmatch(rf'[\[(]{number}, {number}[\])]', rule)
    good = True
    if re.fullmatch(f'(>=|>|<=|<) {number}', rule):
        good = eval(f'value {rule}')
    elif interval:
        low, high = map(eval, interval.groups())
        good = low < value < high or (value == low and rule[0] == '[') or (value == high and rule[-1] == ']')
        rule = f'in {rule}'
    elif len(words) > 1 and str(default) in ['None', *words] and ' ' not in ''.join(words):     # else prose
        good = str(value) in words
        rule = f'one of: {", ".join(words)}{nearest(str(value), words)}'
    elif value == '' and default:       # no error could name it
        good, rule = False, f'a text, such as {default!r}'
    if not good:
        raise ValueError(f'{source}: {name}={value!r} must be {rule}')


def nearest(word, choices):
    matches = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f'; did you mean {matches[0]}?' if matches else ''


def ways_to_save_memory():
    """Yield what to try, in this order: '--micro_batch_size=16: the result is equal up to rounding', if it
    is 32."""
    settings = {name: in_use[name] for name in defaults}
    batch = [name for name in ('micro_batch_size', 'batch_size', 'num_samples') if name in settings]
    for name in [*batch[:1], 'slots', 'grad_checkpoint', 'block_size', 'n_layer', 'n_embd']:
        size = settings.get(name)
        if size is False:
            yield f'--{name}=True'
        elif size and size > 1:
            # a divisor, because micro-batches must fill the batch
            smaller = max(n for n in range(1, size // 2 + 1) if size % n == 0)
            keeps = name == 'micro_batch_size' and not settings.get('dropout')
            yield f'--{name}={smaller}' + (': the result is equal up to rounding' if keeps else '')
    yield 'ending other programs: nvidia-smi and top show how much memory each one holds'


def advice_on(path):
    """Say which setting named a path, or the folder that it is in, or one that could not be made in it."""
    def below(folder, inner):
        return f'{os.path.abspath(inner)}/'.startswith(f'{os.path.abspath(folder)}/')

    texts = {name: in_use[name] for name in defaults if in_use[name] and isinstance(in_use[name], str)}
    named = [name for name, text in texts.items() if below(path, text) or below(text, path)]
    if not named:
        return 'put it right'
    name = max(named, key=lambda name: len(texts[name]))        # the closest to it
    return f'it comes from --{name}={texts[name]}: choose another path'


def one_line_for_mistakes(kind, error, tb):
    """Print one line for an OSError, for full memory, and for a ValueError that a raise of ours made. Any
    other error keeps its traceback: that of int('x') is a bug."""
    while tb.tb_next:
        tb = tb.tb_next
    code = tb.tb_frame.f_code
    home = pathlib.Path(__file__).resolve().parent
    folders = pathlib.Path(code.co_filename).resolve().parents
    is_ours = folders[0] == home or home / 'parts' in folders
    is_raise = dis.opname[code.co_code[tb.tb_lasti]] == 'RAISE_VARARGS'
    message = str(error)
    if issubclass(kind, OSError):
        if error.errno:
            path = str(error.filename or 'a file').removesuffix('.tmp')     # written before it is renamed
            message = f'{path}: {error.strerror}; {advice_on(path)}'
    elif not issubclass(kind, ValueError) and re.search('MemoryError|(of|allocate) memory', repr(error)):
        remedies = '; then '.join(ways_to_save_memory())
        message = f'out of memory; try {remedies} ({message or kind.__name__})'
    elif not (issubclass(kind, ValueError) and is_ours and is_raise):
        return sys.__excepthook__(kind, error, error.__traceback__)
    message = ' '.join(message.split())
    # torchrun prints a traceback of its own under our line. Its last lines are what we write into this file.
    if 'TORCHELASTIC_ERROR_FILE' in os.environ:
        said = {'message': message, 'extraInfo': {'timestamp': int(time.time())}}
        with open(os.environ['TORCHELASTIC_ERROR_FILE'], 'w', encoding='utf-8') as f:
            json.dump({'message': said}, f)
    rank = os.environ.get('RANK', '0')
    time.sleep(0 if rank == '0' else 3)     # rank 0 prints this error; then torchrun stops us
    print('error:' if rank == '0' else f'process {rank}: error:', message, file=sys.__stderr__,
          flush=True)       # torch.distributed replaces sys.stderr
    sys.exit(2)
