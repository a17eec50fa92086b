"""
Config files and command-line flags replace a script's settings, the lines `name = value` above its
call of configure(). They apply from left to right, so the last one wins.

    min_lr: float | None = None                         # a type other than the default's
    optimizer: Literal['adamw', 'muon'] = 'adamw'       # choices
    config = configure(globals(), {'batch_size': (1, 1e6)})     # other numbers: at least 0

A config file is Python. A misspelled setting in it is refused, because a run of days would use the
default. Other names begin with _, or are those of functions, classes and modules.
"""
import ast, contextlib, difflib, os, pathlib, re, runpy, sys, time, traceback, typing

typed = set()       # the settings that config files and flags have set
advice = []         # (words of an error, what to do then), from the script


class Mistake(ValueError):
    """What a user can put right: it ends a script with one sentence and exit code 2."""


def require(condition, sentence):
    """Refuse what a user typed, with this sentence, unless the condition holds."""
    if not condition:
        raise Mistake(sentence)


def configure(script, bounds=()):
    """Apply sys.argv to script, a script's globals(). Return {setting: value}."""
    if hasattr(sys.stdout, 'reconfigure'):              # not in a notebook
        sys.stdout.reconfigure(errors='replace')        # what a terminal can't show becomes a ?
    if {'-h', '--help'} & {*sys.argv}:
        above = pathlib.Path(script['__file__']).read_text('utf-8').split('configure(globals')[0]
        lines = re.findall(r'^[a-z]\w*(?:: .+?)? = .+', above, re.M)
        sys.exit(print(script['__doc__'], *lines, sep='\n'))
    config = {name: value for name, value in script.items() if name.islower() and name[0] != '_'
              and isinstance(value, bool | int | float | str | tuple | dict | None)}
    preset = 'defaults'                                 # the last config file
    for argument in sys.argv[1:]:
        if argument.startswith('--'):
            name, equals, text = argument[2:].partition('=')
            require(equals or isinstance(config.get(name, True), bool),
                    f'{argument} needs a value, such as {argument}={config.get(name)}')
            new, where = {name: text if equals else 'True'}, '--'
        else:
            require(argument.endswith('.py') and os.path.isfile(argument),
                    f'{argument} is no config file; a flag looks like --name=value')
            new = {name: value for name, value in runpy.run_path(argument).items()
                   if name[0] != '_' and not hasattr(value, '__name__')}
            where, preset = f'{argument}: ', os.path.basename(argument)
        for name, value in new.items():
            closest = difflib.get_close_matches(name, config, 1, 0)[0]
            require(name in config, f'{where}{name}: no setting has this name; closest: {closest}')
            config[name] = convert(script, bounds, where, name, value)
            typed.add(name)
    script.update(config)
    return {**config, 'preset': preset}


def convert(script, bounds, where, name, value):
    """Return a value in the type of its setting: for int | None, '1e3' is 1000, 'None' is None."""
    notes = sys.modules[script['__name__']].__annotations__
    kinds = typing.get_args(notes.get(name)) or [type(script[name])]
    if isinstance(value, str) and (str not in kinds or value == 'None' and type(None) in kinds):
        with contextlib.suppress(Exception):            # '3' -> 3, '1,2' -> (1, 2)
            value = ast.literal_eval(value.title() if bool in kinds else value)
    if type(value) in (int, float):
        low, high = dict(bounds).get(name, (0, 1e18))
        require(low <= value <= high,                   # with nan, every comparison is false
                f'{where}{name}={value} must be from {low:g} to {high:g}')
        value = next((n(value) for n in (int, float) if n in kinds and n(value) == value), value)
    allowed = ' or '.join(str(getattr(kind, '__name__', kind)) or "''" for kind in kinds)
    require(value in kinds or type(value) in kinds and (value != '' or not script[name]),
            f'{where}{name}={value!r:.80} must be {allowed}, such as {script[name]!r}')
    return value


def end(kind, error, trace):
    """Python calls this for an error that nothing caught: a Mistake is one sentence, exit code 2.
    Others are bugs, or the machine's: they keep their traceback, exit code 1."""
    sys.stderr = sys.__stderr__     # torch.distributed holds back what is printed
    time.sleep(3 * (os.environ.get('RANK', '0') > '0'))     # rank 0 says it, and torchrun ends us
    raised = traceback.extract_tb(trace)[-1]                # the line that did
    is_leaf = raised.filename.endswith(('model.py', 'tokenizer.py'))    # they know no Mistake
    is_mistake = issubclass(kind, Mistake) or is_leaf and kind is ValueError
    if re.search("named 'extras|from 'extras'", str(error)):        # a closed door
        is_mistake, error = True, f'{error}; copy extras, too; they are needed by: {raised.line}'
    if is_mistake:
        print('error:', *str(error).split(), file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
        for words, sentence in advice:
            if re.search(words, f'{kind.__name__}: {error}'):
                print('error:', sentence, file=sys.stderr)
    sys.stdout.flush()
    if is_mistake or 'RANK' in os.environ:      # without torch.distributed's threads, which go on
        os._exit(2 if is_mistake else 1)


sys.excepthook = end        # scripts are flat, without a main() that could catch errors
