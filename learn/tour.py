"""
The tour: docs/tour.md, executed. Each block of Python runs, and its output takes the place of the page's.

    bash run.sh tour                    # with out/quickstart and out/quickstart_sft, if they are there
    bash run.sh tour out/a out/a_sft    # with a base model of yours, and one that answers

Without models the page trains its own. What this prints is a page again, and can take the old one's place.
"""
import ast
import contextlib
import io
import os
import pathlib
import re
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / 'docs/tour.md'
QUICKSTART = ['out/quickstart', 'out/quickstart_sft']
BLOCK = re.compile(r'(```python\n)(.*?)(```\n+```\n)(.*?)(?=```\n)', re.S)      # code, and its output


def lift(script, *names):
    """Functions of a flat script, compiled without running it: its imports, then those."""
    tree = ast.parse((ROOT / script).read_text(encoding='utf-8'))
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    assert {f.name for f in functions} == set(names), f'{script} does not define all of {names}'
    scope = {}
    exec(compile(ast.Module(imports + functions, []), script, 'exec'), scope)
    return scope[names[0]] if len(names) == 1 else [scope[name] for name in names]


def pieces(page, base=None, chat=None):
    """Yield the page in pieces, with the outputs of today. base, chat: the folders of models, or None."""
    end = 0
    with tempfile.TemporaryDirectory() as work:
        scope = {'lift': lift, 'work': work, 'base': base, 'chat': chat, 'allow_code_execution': True}
        for block in BLOCK.finditer(page):
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(block[2], 'docs/tour.md', 'exec'), scope)
            yield page[end:block.start(4)] + output.getvalue()
            end = block.end(4)
    yield page[end:]


def main():
    """Print the page. The arguments: a flag that allows programs to run, and the folders of two models."""
    flag, *folders = sys.argv[1:] or ['']
    if flag != '--allow_code_execution=True' or len(folders) not in (0, 2):
        raise ValueError("it runs a model's code: read parts/eval/sandbox.py, then type bash run.sh tour")
    if not folders and all(map(os.path.exists, QUICKSTART)):
        folders = QUICKSTART
    for piece in pieces(PAGE.read_text(encoding='utf-8'), *folders):
        print(piece, end='', flush=True)


if __name__ == '__main__':
    if {'-h', '--help'} & {*sys.argv}:
        sys.exit(print(__doc__))
    sys.path.insert(0, str(ROOT))
    try:
        main()
    except (ArithmeticError, LookupError, OSError, RuntimeError, ValueError) as e:
        print(f'error: {e}; the tour takes no folder, or those of two runs with one tokenizer: a base model, '
              'and one that answers', file=sys.stderr)
        sys.exit(2)
