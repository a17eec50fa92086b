"""
Config files and command-line flags replace a script's settings, the lines `name = value` above its
call of configure(). They apply from left to right, so the last one wins.

    min_lr: float | None = None                         # a type other than the default's
    optimizer: Literal['adamw', 'muon'] = 'adamw'       # choices
    config = configure(globals(), {'batch_size': (1, 1e6)})     # other numbers: at least 0

A config file is Python. A misspelled setting in it is refused, because a run of days would use the
default. Other names begin with _, or are those of functions, classes and modules.

The functions below configure() are for trainers: go_on, check_folder, write_folder and machine.
"""
import ast, contextlib, difflib, glob, json, os, pathlib, re, runpy, sys, time, traceback, typing

# What a run and its evaluation leave in out_dir: --overwrite removes these, and no other files.
RESULTS = ('last.pt last-1.pt best.pt metrics.jsonl train.log samples.txt data.json eval.json '
           'samples.jsonl compare.json').split()

typed = set()       # the settings that config files and flags have set


class Mistake(ValueError):
    """What a user can put right: it ends a script with one sentence and exit code 2."""


def require(condition, sentence):
    """Raise Mistake(sentence) unless the condition holds."""
    if not condition:
        raise Mistake(sentence)


def configure(script, bounds=()):
    """Apply sys.argv to script, a script's globals(). Return {setting: value}, and as 'preset' the
    name of the last config file. bounds: {setting: (least, most)}."""
    if hasattr(sys.stdout, 'reconfigure'):          # not in a notebook
        sys.stdout.reconfigure(errors='replace')    # what a terminal can't show becomes a ?
    if {'-h', '--help'} & {*sys.argv}:
        above = pathlib.Path(script['__file__']).read_text('utf-8').split('configure(globals')[0]
        lines = re.findall(r'^[a-z]\w*(?:: .+?)? = .+', above, re.M)
        print(script['__doc__'], *lines, sep='\n')
        sys.exit()
    config = {name: value for name, value in script.items() if name.islower() and name[0] != '_'
              and isinstance(value, bool | int | float | str | tuple | dict | None)}
    preset = 'defaults'
    for argument in sys.argv[1:]:
        if argument.startswith('--'):
            name, equals, text = argument[2:].partition('=')
            require(equals or isinstance(config.get(name, True), bool),
                    f'{argument} needs a value, such as {argument}={config.get(name)}')
            new, where = {name: text if equals else 'True'}, '--'
        else:
            require(argument.endswith('.py') and os.path.isfile(argument),
                    f'{argument} is no config file; a flag looks like --name=value')
            where, preset = f'{argument}: ', os.path.basename(argument)
            try:
                new = runpy.run_path(argument)
            except (Exception, SystemExit) as error:
                frames = traceback.extract_tb(error.__traceback__)
                lines = [getattr(error, 'lineno', None) or 1,       # of a SyntaxError
                         *(frame.lineno for frame in frames if frame.filename == argument)]
                raise Mistake(f'{where}line {lines[-1]}: {type(error).__name__}: {error}') from None
            new = {name: value for name, value in new.items()
                   if name[0] != '_' and not hasattr(value, '__name__')}
        for name, value in new.items():
            [closest] = difflib.get_close_matches(name.lower(), config, 1) or ['none, see --help']
            require(name in config, f'{where}{name}: no setting has this name; closest: {closest}')
            config[name] = convert(script, bounds, where, name, value)
            typed.add(name)
    script.update(config)
    return {**config, 'preset': preset}


def convert(script, bounds, where, name, given):
    """Return the value that was given in the type of its setting: for int | None, '1e3' is 1000 and
    'None' is None. where: 'my.py: ' or '--', for what is said of a wrong one."""
    annotations = sys.modules[script['__name__']].__annotations__
    types, value = typing.get_args(annotations.get(name)) or [type(script[name])], given
    if isinstance(value, str) and (str not in types or value == 'None' and type(None) in types):
        with contextlib.suppress(Exception):            # '3' -> 3, '1,2' -> (1, 2)
            value = ast.literal_eval(value.title() if bool in types else value)     # true -> True
    if isinstance(value, str) and not re.search('prompt|system|stop_at|judge', name):
        value = ','.join(map(os.path.expanduser, value.split(',')))     # the shell leaves --out=~/a
        if ', ' in value and not name.startswith('out') and not glob.glob(value):
            value = re.sub(', +', ',', value)       # 'en, de' is a list, 'a, b.txt' may be a file
    if type(value) in (int, float):
        low, high = dict(bounds).get(name, (0, 1e18))
        limits = f'from {low:g} to {high:g}' if high < 1e18 else f'at least {low:g}'
        # with nan, every comparison is false
        require(low <= value <= high, f'{where}{name}={value} must be {limits}')
        if int in types and value == int(value):        # 1e3 is 1000
            value = int(value)
        elif float in types:
            value = float(value)
    allowed = ' or '.join(str(getattr(each, '__name__', each)) or "''" for each in types)
    require(value in types or type(value) in types and (value != '' or not script[name]),
            f'{where}{name}={given!r:.80} must be {allowed}, such as {script[name]!r}')
    return value


def go_on(config, path, saved, fixed=(), again=()):
    """Give config the settings that a run has saved in the file `path`, except those that are typed
    now. Return what these change, such as ['seed 1 -> 2']. Those in `fixed` may not change. Those
    in `again` permit or execute something: they are never taken over. A new run has saved={}."""
    if not saved:
        return []
    whose, ours = (settings.get('stage', 'train') for settings in (saved, config))
    require(whose == ours, f'{path} is a run of {whose}.py, which resumes it; to begin with its '
            f'model: --init_from={os.path.dirname(path)}, and another --out_dir')
    require(saved.keys() <= config.keys(), f'{path} has settings that this {ours}.py has not: '
            f'{sorted(saved.keys() - config.keys())}; resume it with the version that wrote it')
    changed = []
    for name in saved.keys() - {'out_dir', 'overwrite'}:
        if name not in {*typed, *again} or name == 'init_from':     # where the run once began
            config[name] = saved[name]
        elif name in typed and config[name] != saved[name]:
            require(name not in fixed, f'leave {name} out: the run has {saved[name]!r}')
            changed.append(f'{name} {saved[name]} -> {config[name]}')
    return sorted(changed)


def check_folder(config, begins_with=None, goes_on=False):
    """Refuse an out_dir that holds text, tokens or a model of others; the model that the run begins
    with (a path); or a run, unless this one goes on there or --overwrite is given."""
    out = pathlib.Path(config['out_dir'])
    others = [path.name for mark in ('meta.json', 'train.jsonl', '*.bin', '*.safetensors')
              for path in out.glob(mark)]
    require(goes_on or not others and not out.is_file(),
            f'{out} is no folder for a run: it has {others[:1]}; choose another --out_dir')
    if begins_with and not goes_on:
        origin = pathlib.Path(begins_with)              # a folder, or a file in it
        folder = origin if origin.is_dir() else origin.parent
        require(out.resolve() != folder.resolve(),
                f'{out} has the model that this run begins with; choose another --out_dir')
    require(not config['overwrite'] or os.environ.get('TORCHELASTIC_MAX_RESTARTS', '0') == '0',
            'leave --overwrite out: after a crash, torchrun would begin anew and delete this run')
    has_run = any((out / name).exists() for name in ('last.pt', 'last-1.pt', 'best.pt'))
    require(not has_run or goes_on != config['overwrite'], f'{out} has a run: either '
            '--init_from=resume goes on, or --overwrite deletes it')


def write_folder(config):
    """Make out_dir, without the run that --overwrite deletes, and write config.json, for people."""
    out = pathlib.Path(config['out_dir'])
    out.mkdir(parents=True, exist_ok=True)
    if config['overwrite']:
        for name in RESULTS:
            (out / name).unlink(missing_ok=True)
    (out / 'config.json').write_text(json.dumps(config, indent=1), 'utf-8')


def machine(device, dtype):
    """Return what this process computes with, such as 'cuda', 'cuda:1' and 'bfloat16', its rank,
    and the number of processes. torchrun starts one for each device, and tells each its rank. On a
    GPU also choose the device, and TF32 for products that stay float32."""
    import torch                # not at the top: clean.py and chats.py need none
    world = int(os.environ.get('WORLD_SIZE', 1))
    rank, local_rank = (int(os.environ[name]) if world > 1 else 0
                        for name in ('RANK', 'LOCAL_RANK'))
    mps = torch.backends.mps.is_available() and world == 1      # no backend joins several
    here = ['cpu'] + ['mps'] * mps + ['cuda'] * torch.cuda.is_available()
    device_type = here[-1] if device == 'auto' else device
    require(device_type in here, f'{device=} is not here; try --device=auto')
    is_native = device_type == 'cpu' and torch.cpu._is_avx512_bf16_supported()
    if device_type == 'cuda':
        torch.cuda.set_device(local_rank)
        torch.set_float32_matmul_precision('high')
        is_native = torch.cuda.get_device_capability()[0] >= 8
    if dtype == 'auto':         # older GPUs and many CPUs only emulate bfloat16, slowly
        dtype = 'bfloat16' if is_native else 'float32'
    device = f'cuda:{local_rank}' if device_type == 'cuda' else device_type
    return device_type, device, dtype, rank, world


def report_error(error_type, error, trace):
    """Python calls this for an error that nothing caught: a Mistake is one sentence, exit code 2.
    Others are bugs, or the machine's: they keep their traceback, exit code 1."""
    sys.stderr = sys.__stderr__     # torch.distributed holds back what is printed
    if os.environ.get('RANK', '0') != '0':
        time.sleep(3)               # rank 0 may say the same first; then torchrun ends this process
    # model.py and tokenizer.py know no Mistake: what they refuse is one, a slip in them is a bug,
    # and so is what a forward pass raises.
    frames = traceback.format_tb(trace)                     # File ".../model.py", line 9, in load
    raised, in_forward = ''.join(frames[-1:]), ', in forward\n' in ''.join(frames)
    is_refusal = re.search(r'\b(model|tokenizer)\.py", .*\n +raise ValueError', raised)
    no_extras = re.search(r"named 'extras|from 'extras\.\w+'", str(error))
    is_mistake = bool(error_type is Mistake or no_extras or is_refusal and not in_forward)
    if is_mistake:
        if no_extras:
            error = f'{error}; copy extras, too: ' + raised.split('\n')[1]     # its line of code
        print('error:', *str(error).split(), file=sys.stderr)       # in one line
    else:
        sys.__excepthook__(error_type, error, trace)
        if re.search('out of memory|allocate|MemoryError', f'{error_type.__name__}: {error}'):
            print('error: out of memory; lower --micro_batch_size, or what docs/trouble.md names; '
                  'does another process use it?', file=sys.stderr)
    sys.stdout.flush()
    if is_mistake or 'RANK' in os.environ:      # without torch.distributed's threads, which go on
        os._exit(2 if is_mistake else 1)


sys.excepthook = report_error       # scripts are flat, without a main() that could catch errors
