"""
The console: prompts from files or the keyboard, and answers side by side.

    read_prompts('prompts.txt')                     # ['def f(x):', 'import ']
    question()                                      # the line that the user types
    print(side_by_side(['a', 'b'], ['one', 'two'], 20))

Copy this file alone: it needs the standard library.
"""
import itertools, json, re, shutil


def check(s):
    """ValueError if sample.py's settings s exclude each other: none is ignored."""
    if s['chat'] and (s['suffix'] or s['stop_at'] or s['num_samples'] > 1):
        given = ', '.join(f'{name}={s[name]!r}' for name in ('suffix', 'stop_at', 'num_samples'))
        raise ValueError(f'a chat has one answer, which ends by itself: --chat=True excludes {given}')
    if s['system'] and not s['chat']:
        raise ValueError('--system is an instruction before a chat: it needs --chat=True')
    if [s['prompt'] != '', s['prompt_file'] is not None, s['prompts'] is not None].count(True) > 1:
        raise ValueError('give one of --prompt, --prompt_file and --prompts')
    if s['serve'] is None and (s['compare'] or s['host'] != '127.0.0.1'):
        raise ValueError('--compare and --host belong to a server: add --serve=8000')
    if s['compare'] and s['compare'] == s['ckpt']:
        raise ValueError(f'--compare={s["compare"]} is --ckpt itself; give another folder')
    if s['export'] and s['random_init']:
        raise ValueError('--export writes what was trained: leave out --random_init=True')
    if s['export'] and s['dtype'] != 'float32':
        raise ValueError(f'dtype={s["dtype"]} is for writing text here; for a file of 16 or 8 bits use '
                         '--export=gguf-f16 or --export=gguf-q8_0')
    texts = 'prompt', 'prompt_file', 'prompts', 'suffix', 'sweep', 'stop_at', 'chat'
    ignored = [f'--{name}' for name in texts if s[name]]
    if s['serve'] is not None and ignored:
        raise ValueError(f'with --serve each request brings its own text: leave out {" and ".join(ignored)}')
    if s['export'] and (ignored or s['serve'] is not None):
        raise ValueError(f'--export only writes files: leave out {" and ".join(ignored) or "--serve"}')


def file_text(path):
    """The text of a file, exactly as it is."""
    try:
        with open(path, encoding='utf-8', newline='') as f:
            return f.read()
    except UnicodeDecodeError as e:
        raise ValueError(f'{path} is not UTF-8 text: {e}') from e


def read_prompts(path):
    """The prompts of a file: its lines that are not blank; of a .jsonl, the field `prompt` of each."""
    lines = [line for line in re.split('\r?\n', file_text(path).removeprefix('\ufeff')) if line.strip()]
    try:
        found = [json.loads(line)['prompt'] for line in lines] if path.endswith('.jsonl') else lines
    except (ValueError, KeyError, TypeError):
        found = []
    if not found or not all(isinstance(prompt, str) for prompt in found):
        raise ValueError(f'{path} must hold prompts: one a line, or in a .jsonl {{"prompt": "..."}} in each')
    return found


def temperatures(text):
    """'0,0.5,1' -> [0.0, 0.5, 1.0]"""
    try:
        found = [float(part) for part in text.split(',')]
    except ValueError:
        found = [-1.0]
    if not all(0 <= t < float('inf') for t in found):
        raise ValueError(f'sweep={text!r} must be temperatures >= 0, such as 0,0.5,1.0')
    return found


def side_by_side(heads, texts, width):
    """Texts as columns of `width` characters, each below its head."""
    columns = []
    for head, text in zip(heads, texts):
        column = [head]
        for line in text.expandtabs(4).splitlines():
            column += [line[i:i + width] for i in range(0, max(1, len(line)), width)]
        columns.append(column)
    rows = itertools.zip_longest(*columns, fillvalue='')
    return '\n'.join(' | '.join(cell.ljust(width) for cell in row).rstrip() for row in rows)


def show_sweep(prompts, sweep, columns):
    """Print the answers to each prompt, one column for each temperature of sweep. columns: for each
    temperature and prompt, a list of pairs (text, whether it ended)."""
    heads = [f'temperature {t:g}' for t in sweep]
    width = max(24, shutil.get_terminal_size().columns // len(sweep) - 3)
    for i, prompt in enumerate(prompts):
        for answers in zip(*(column[i] for column in columns)):
            print('-' * 80, prompt, side_by_side(heads, [text for text, _ in answers], width), sep='\n')


def question():
    """The next message that the user types; '' for an empty one, Ctrl-C and Ctrl-D."""
    try:
        return input('you> ').strip()
    except (EOFError, KeyboardInterrupt):
        print()
        return ''
