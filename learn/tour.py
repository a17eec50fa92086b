"""
The tour: run each block of Python in docs/tour.md, and print the page with the new outputs.

    bash run.sh tour                    # with out/quickstart and out/quickstart_sft, if they exist
    bash run.sh tour out/a out/a_sft    # with your base model and your chat model

Without models, the page trains two small ones, and the new outputs replace the page's outputs. If a
block prints something else for your models, it gets two outputs: your models' and the page's, because
the text after a block is about the small models. You can also paste the blocks into Python in the
project's folder, because the first block imports everything that the blocks need from this file.
"""
import ast
import contextlib
import io
import os
import pathlib
import re
import sys
import tempfile

os.environ.setdefault('OMP_NUM_THREADS', '1')     # the models are tiny: a second thread only waits
ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / 'docs/tour.md'
QUICKSTART = ['out/quickstart', 'out/quickstart_sft']
BLOCK = re.compile(r'(```python\n)(.*?)(```\n+```\n)(.*?)(?=```\n)', re.S)      # code, and its output
YOURS = 'Your models print this:'
NOTHING = 'Your models print nothing here.'
OURS = 'The small models print this, and the text below is about them:'
FUNCTIONS = {'mean': ('mean of the numbers', 'sum(X) / len(X)'),
             'total': ('sum of the numbers', 'sum(X)'),
             'largest': ('largest number', 'max(X)'),
             'smallest': ('smallest number', 'min(X)'),
             'count': ('count of the numbers', 'len(X)'),
             'spread': ('spread of the numbers', 'max(X) - min(X)'),
             'last': ('last number', 'X[-1]'),
             'middle': ('middle number', 'sorted(X)[len(X) // 2]')}

# --- for the page's blocks -----------------------------------------------------------------------
base = chat = None          # the folders of two trained models; None: the page trains its own
scratch = tempfile.TemporaryDirectory(prefix='tour-')
work = pathlib.Path(scratch.name)       # deleted when Python ends


def lift(script, *names):
    """Return functions of a flat script without running the script: compile its imports, these
    functions, and the constants in capitals that the functions use, such as IGNORE."""
    tree = ast.parse((ROOT / script).read_text(encoding='utf-8'))
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    functions = [node for node in tree.body
                 if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names]
    assert {f.name for f in functions} == set(names), f'{script} does not define all of {names}'
    # Skip single letters: T, for instance, is a size, and most functions have their own T.
    used = {node.id for function in functions for node in ast.walk(function)
            if isinstance(node, ast.Name) and node.id.isupper() and len(node.id) > 1}
    constants = []
    for node in reversed(tree.body):        # because a constant may use constants above it
        if isinstance(node, ast.Assign) and used & {ast.unparse(target) for target in node.targets}:
            constants.insert(0, node)
            used |= {name.id for name in ast.walk(node.value) if isinstance(name, ast.Name)}
    scope = {}
    exec(compile(ast.Module(imports + constants + functions, []), script, 'exec'), scope)
    return scope[names[0]] if len(names) == 1 else [scope[name] for name in names]


def written(value):
    """Return a value as the page shows it: 1.5 as 1.5000, and a list or a tensor as its items."""
    value = value.tolist() if hasattr(value, 'tolist') else value
    if isinstance(value, list | tuple):
        return ' '.join(map(written, value))
    return f'{value:.4f}' if isinstance(value, float) else repr(value)


def show(**values):
    """Print named values on one line: show(loss=0.5, n=3) prints `loss: 0.5000, n: 3`."""
    print(', '.join(f'{name.replace("_", " ")}: {written(value)}' for name, value in values.items()))


def row(label, *cells, bar=0.0):
    """Print a line of a table, and a bar of ten '=' for each 1.0 of `bar`."""
    print(f'{label:15}', *(f'{written(cell):15}' for cell in cells), '=' * round(10 * bar))


def other_files():
    """Return 47 small files, and 48 conversations that ask for these functions: eight functions, each
    with six names for its argument. The 48th file is missing, because it is the tour's example."""
    files, conversations = [], []
    for name, (what, value) in FUNCTIONS.items():
        for x in ('values', 'numbers', 'items', 'data', 'scores', 'prices'):
            doc = f'Return the {what} in {x}.'
            body = f'    return {value.replace("X", x)}'
            files.append(f'def {name}({x}):\n    """{doc}"""\n{body}\n')
            conversations.append([{'role': 'user', 'content': f'Write {name}({x}). {doc}'},
                                  {'role': 'assistant', 'content': f'def {name}({x}):\n{body}'}])
    return files[1:], conversations


# --- the page ------------------------------------------------------------------------------------
def pieces(page, base=None, chat=None):
    """Yield the page in pieces, with new outputs. base, chat: folders of models, or None.

    The text after a block describes the page's output. So if the reader's models print something else,
    the page's output is kept right above the text, and the models' output is added."""
    end = 0
    scope = {}
    for block in BLOCK.finditer(page):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(block[2], 'docs/tour.md', 'exec'), scope)
        scope |= {'base': base, 'chat': chat}       # the first block has imported None for both
        printed = ''.join(line.rstrip() + '\n' for line in output.getvalue().splitlines())
        yield page[end:block.end(2)]
        if base and printed != block[4]:
            theirs = f'{YOURS}\n\n```\n{printed}```' if printed else NOTHING
            yield f'```\n\n{theirs}\n\n{OURS}\n\n```\n{block[4]}'
        else:
            yield block[3] + printed
        end = block.end(4)
    yield page[end:]


def main():
    """Print the page. Arguments: the flag that allows code execution, and the folders of two models."""
    flag, *folders = sys.argv[1:] or ['']
    if flag != '--allow_code_execution=True':
        raise ValueError('the tour runs code that a model wrote: read extras/tasks/sandbox.py, then type '
                         'bash run.sh tour')
    if len(folders) not in (0, 2):
        raise ValueError(f'{len(folders)} folders: {" ".join(folders)}')
    for folder in folders:
        if not os.path.exists(folder):
            raise ValueError(f'{folder} does not exist')
    if not folders and all(map(os.path.exists, QUICKSTART)):
        folders = QUICKSTART
    if not folders:
        print(f'{" and ".join(QUICKSTART)} do not exist: the outputs are from two small models, which '
              'the page trains', file=sys.stderr)
    for piece in pieces(PAGE.read_text(encoding='utf-8'), *folders):
        print(piece, end='', flush=True)


if __name__ == '__main__':
    if {'-h', '--help'} & {*sys.argv}:
        sys.exit(print(__doc__))
    sys.path.insert(0, str(ROOT))
    try:
        main()
    except (ArithmeticError, LookupError, OSError, RuntimeError, ValueError) as e:
        print(f'error: {e}; the tour takes no folder, or the folders of two runs with the same tokenizer: '
              'of a base model and of a model that answers', file=sys.stderr)
        sys.exit(2)
