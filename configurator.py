"""
Config files and command-line flags change a script's settings, the plain variables above its call
of configure(). Files and flags apply from left to right, so the last one wins.
A comment next to a setting is a rule if it begins with a bound, an interval or words joined by |:

    min_lr: float | None = None         # >= 0: where the learning rate ends
    dropout = 0.0                       # [0, 1): the fraction of activations that become 0
    optimizer = 'adamw'                 # adamw | muon
    config = configure(globals())

    python train.py config/shakespeare_cpu.py --max_steps=500 --device cpu

A rule ends at the first colon. Any other comment is prose and stops nothing.

A config file is Python, so it may loop, import and define functions. Apart from these, each name
that it assigns must be a setting or begin with _. Otherwise a misspelled setting would be ignored,
and a run of days would use the default.

If a script raises Mistake, it ends with this one line and exit code 2. A file that is missing and a
memory that is full also end it with one line. Any other error is a bug and prints a traceback. You
can copy this file alone into a project of your own.
"""
import ast, difflib, os, pathlib, re, sys, time, traceback

KINDS = 'bool int float str list tuple dict NoneType'.split()       # types of settings
defaults = {}       # {setting: its value in the script}, filled by configure
set_by = {}         # {setting: the config file, or 'command line', that set it}
in_use = {}         # the script's globals: its settings as they are now, among others


class Mistake(ValueError):
    """What a user can put right: it ends a script with one line instead of a traceback. A class of
    the same name in another file counts, too: files that can be copied alone have their own."""


def configure(namespace):
    """Apply sys.argv to namespace, a script's globals(). Return {setting: value}."""
    global in_use
    in_use = namespace
    sys.excepthook = one_line_for_mistakes
    settings = read_settings(namespace)
    values = {name: namespace[name] for name in settings}
    defaults.update(values)
    arguments = sys.argv[1:]
    if '--help' in arguments or '-h' in arguments:
        print(namespace['__doc__'] or '', *[line for *_, line in settings.values()],
              sep='\n', flush=True)
        sys.exit()
    while arguments:
        source = arguments.pop(0)
        if source.startswith('--'):
            name, equals, text = source[2:].partition('=')
            if name in settings and not equals:         # the form "--key value"
                if not arguments or arguments[0].startswith('--'):
                    raise Mistake(f'--{name} has no value; its default is {defaults[name]!r}')
                text = arguments.pop(0)
            source = 'command line'
            new = {name: text}
        else:
            new = run_config_file(source, values)
        for name, value in new.items():
            if name not in settings:
                raise Mistake(f'{source}: unknown setting {name}; --help prints all of them'
                              f'{nearest(name, settings)}')
            values[name] = convert(name, value, settings[name][0], source)
            set_by[name] = source
    for name, value in values.items():
        rule = settings[name][1]
        # The condition of '>= 1' is the text 'value >= 1', so eval needs the name `value`.
        keeps_rule = value is None or eval(condition_of(rule))
        # An empty text, for example in place of a folder, would later fail without a name. Only a
        # setting that is empty by default may have it.
        is_missing = value == '' and defaults[name]
        if is_missing or not keeps_rule:
            raise Mistake(f'{set_by.get(name, "the script")}: {name}={value!r} must be '
                          f'{"in " * rule.startswith(("[", "("))}'
                          f'{rule or f"a text, such as {defaults[name]!r}"}'
                          f'{nearest(str(value), rule.split(" | ") if "|" in rule else [])}')
    namespace.update(values)
    return values


def show(config, say=print):
    """Say which settings differ from the defaults, and where they were set. Call it after all
    checks, so that a mistake prints one line and nothing else."""
    by = ' and '.join(dict.fromkeys(set_by.values()))
    changed = [f'{name}={config[name]!r}' for name in set_by if config[name] != defaults[name]]
    say('\n  '.join([f'settings of {by or "the script"}:', *(changed or ['the defaults'])]))


def read_settings(namespace):
    """Return {name: (names of its types, rule, line of --help)} of a script's settings. A comment
    on the line above a setting is the heading of a group."""
    settings = {}
    above = ''
    for line in pathlib.Path(namespace['__file__']).read_text(encoding='utf-8').split('\n'):
        if line.endswith('configure(globals())'):
            break
        found = re.match(r'(?!_)(\w+)(: .+?)? = .*?(?: # *(.*))?$', line)
        # A line of a docstring may look like a setting, but its name is no variable.
        name = found and found[1]
        if name in namespace and (kind := type(namespace[name]).__name__) in KINDS:
            # 'min_lr', ': float | None', '>= 0: where the learning rate ends'
            name, types, comment = found.groups('')
            rule, _, meaning = comment.partition(':')
            if condition_of(rule) == 'True':        # prose
                rule, meaning = '', comment
            heading = f'\n{above.strip("# -")}\n' if above.startswith('#') else ''
            flag = f'--{name}={namespace[name]!r}'
            line = f'{heading}  {flag:<35} {meaning.strip()}  [{rule}]'.removesuffix('  []')
            settings[name] = re.findall(r'\w+', types or kind), rule, line.rstrip()
        above = line
    return settings


def condition_of(rule):
    """Return what a rule asks of `value`, as an expression of Python that eval() can judge:

        >= 1            value >= 1
        [0, 1)          0 <= value < 1
        adamw | muon    str(value) in ['adamw', 'muon']
        prose           True"""
    number = r'(-?\d+(?:\.\d+)?(?:e-?\d+|\*\*\d\d?)?)'               # 1, -0.5, 1e-3, 2**20
    if re.fullmatch(f'(>=|>|<=|<) {number}', rule):
        return f'value {rule}'
    if interval := re.fullmatch(rf'([\[(]){number}, {number}([\])])', rule):
        left, low, high, right = interval.groups()
        return f'{low} <{"=" * (left == "[")} value <{"=" * (right == "]")} {high}'
    if re.fullmatch(r'\S+( \| \S+)+', rule):
        return f'str(value) in {rule.split(" | ")}'
    return 'True'


def run_config_file(path, values):
    """Run a config file. Return what it sets: settings, and unknown names that it assigns."""
    if not os.path.isfile(path):
        raise Mistake(f"{path} isn't a file; config files are in config/, and flags begin with --")
    source = pathlib.Path(path).read_bytes()
    scope = dict(values)
    try:
        exec(compile(source, path, 'exec'), scope)
    except (Exception, SystemExit) as e:
        frame = e.__traceback__.tb_next     # of the config file; a SyntaxError names its line
        raise Mistake(f'{path}, {f"line {frame.tb_lineno}: " if frame else ""}{type(e).__name__}: '
                      f'{e}') from e
    changed = {name for name in values if scope.get(name) is not values[name]}  # from x import *
    changed |= assigned_names(ast.parse(source))
    return {name: scope.get(name) for name in sorted(changed) if name[0] != '_'}


def assigned_names(code):
    """Return the names that code assigns outside of functions. x = 1 may be a misspelled setting.
    But the i of a loop or a comprehension and the f of `with open(path) as f` are helpers of the
    file, so they are left out. What import or except binds is no ast.Name, so it needs no case."""
    names = set()
    if isinstance(code, ast.Name) and isinstance(code.ctx, ast.Store):
        names = {code.id}
    elif not isinstance(code, ast.FunctionDef | ast.ClassDef | ast.comprehension | ast.withitem):
        names = names.union(*map(assigned_names, ast.iter_child_nodes(code)))
    if isinstance(code, ast.For):
        names -= assigned_names(code.target)
    return names


def convert(name, value, types, source):
    """Return value as one of these types. 3 may become 3.0, and 3.0 may become 3."""
    if source == 'command line' and 'str' not in types:     # '3' -> 3, '1e-3' -> 0.001
        try:
            value = ast.literal_eval(
                value.title() if value in ('true', 'false', 'none') else value)
        except Exception:       # it stays a text, which is not among the types
            pass
    if value in (None, 'None') and 'None' in types:
        return None
    kind = type(value).__name__
    is_number = kind in ('int', 'float')
    if is_number and not abs(value) < 1e18:
        kind = 'number that is not finite, or above 1e18'
    elif is_number and 'int' in types and value % 1 == 0:
        return int(value)
    elif is_number and 'float' in types:
        return float(value)
    if kind not in types:
        raise Mistake(f'{source}: {name}={value!r:.80} must be {" or ".join(types)}, not {kind}')
    return value


def nearest(word, choices):
    """Return '; did you mean batch_size?' for batch_sise, or '' if no choice is similar."""
    matches = difflib.get_close_matches(word, choices)
    return f'; did you mean {matches[0]}?' if matches else ''


# --- what a user can put right becomes one line ---------------------------------------------------
def one_line_for_mistakes(kind, error, tb):
    """Python calls this in place of its own excepthook. Print one line for what a user can put
    right, and exit with 2. Any other error is a bug and keeps its traceback."""
    if kind is BrokenPipeError:         # as in `X.py --help | head`: nobody reads on
        os._exit(141)
    sentence = sentence_for(error, tb)
    if not sentence:
        return sys.__excepthook__(kind, error, tb)
    if os.environ.get('RANK', '0') != '0':
        time.sleep(3)           # rank 0 prints this error; then torchrun stops the other processes
    print('error:', *sentence.split(), file=sys.__stderr__, flush=True)  # torch replaces sys.stderr
    sys.exit(2)


def sentence_for(error, tb):
    """Return what to tell the user, or None if the error is a bug."""
    # A Mistake has its sentence, and so has an OSError that a script raised: only the system's have
    # a number. model.py has no Mistake; if n_embd and n_head don't fit together, the __post_init__
    # of its dataclass GPTConfig raises a ValueError.
    if (type(error).__name__ == 'Mistake'
            or isinstance(error, OSError) and not error.errno
            or isinstance(error, ValueError)
            and traceback.extract_tb(tb)[-1].name == '__post_init__'):
        return str(error)

    # 'data/x: No such file or directory; choose another --data_dir than data/x'. A flag names the
    # path, a folder that it is in, or one that could not be made in it.
    if isinstance(error, OSError):
        path = str(error.filename or 'a file')
        flags = [f'--{name} than {text}' for name in defaults if (text := str(in_use[name] or ' '))
                 and (path.startswith(text) or text.startswith(path))]
        return f'{path}: {error.strerror}; choose another {" or ".join(flags) or "path"}'
    # 'out of memory; try --batch_size=16; then ending other programs (MemoryError)'
    if re.search('MemoryError|bad_alloc|(of|allocate) memory', repr(error)):
        ways = []
        for name in ('micro_batch_size', 'grad_checkpoint', 'slots', 'block_size', 'n_layer',
                     'batch_size', 'num_samples'):
            if name in defaults:
                value = in_use[name]
                if value is False:          # grad_checkpoint is off
                    ways.append(f'--{name}=True')
                elif value and value > 1:   # a number that can be halved
                    ways.append(f'--{name}={value // 2}')
        return (f'out of memory; try {"; then ".join([*ways, "ending other programs"])} '
                f'({str(error) or type(error).__name__})')
