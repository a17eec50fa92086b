"""A script stays as short as it is, unless a longer one gives a user something."""
import ast
import io
import re
import tokenize

from conftest import ROOT

# Lines of code of each script. Comments, docstrings and blank lines are free, so explain as much as
# a reader needs. A script that needs more lines may have them: raising a number is a commit of its
# own that says what a user gets for it.
BUDGET = {'chats.py': 210, 'clean.py': 399, 'common.py': 121, 'configurator.py': 102,
          'dedup.py': 140, 'dpo.py': 267, 'eval.py': 191, 'files.py': 267, 'model.py': 275,
          'plot.py': 150, 'prepare.py': 172, 'rl.py': 251, 'sample.py': 103, 'sft.py': 219,
          'tokenizer.py': 280, 'train.py': 344}
HAS_DOCSTRING = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
           tokenize.ENDMARKER}


def lines_of_code(text):
    """Return the number of lines that have more than white space, a comment or a docstring."""
    code, docstrings = set(), set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            code |= {*range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, HAS_DOCSTRING) and ast.get_docstring(node) is not None:
            docstrings |= {*range(node.body[0].lineno, node.body[0].end_lineno + 1)}
    return len(code - docstrings)


def advice(sizes, budget):
    """Return a sentence for each script whose size is not its budget."""
    said = []
    for name in sorted({*sizes, *budget}):
        size, most = sizes.get(name), budget.get(name)
        if most is None:
            said.append(f'{name} has no budget: add {size}, in a commit of its own that says what a '
                        'user gets for the script')
        elif size is None:
            said.append(f'{name} does not exist: remove its budget')
        elif size > most:
            said.append(f'{name} has {size} lines of code, and its budget is {most}: remove '
                        'something, or raise the number; raising a number is a commit of its own '
                        'that says what a user gets for it')
        elif size < most:
            said.append(f'{name} has only {size} lines of code: lower its budget of {most} to {size}')
    return said


def test_no_script_is_longer_than_its_budget_and_no_budget_has_slack():
    wrong = advice({path.name: lines_of_code(path.read_text('utf-8'))
                    for path in ROOT.glob('*.py')}, BUDGET)
    assert not wrong, '\n'.join(wrong)


def test_only_code_counts_and_the_advice_fits_what_changed():
    assert lines_of_code('''"""Top.

More."""
import os       # one

# a comment
def f(x):
    """Return x."""

    return """a

b""", (x,
       os)
''') == 6
    sizes, budget = {'a': 3, 'b': 2, 'c': 1, 'new': 5}, {'a': 3, 'b': 1, 'c': 2, 'gone': 4}
    longer, shorter, gone, new = advice(sizes, budget)
    assert 'b has 2 lines of code' in longer and 'what a user gets for it' in longer
    assert 'lower its budget of 2 to 1' in shorter
    assert gone.startswith('gone does not exist') and new.startswith('new has no budget')


def test_short_lines_of_scripts_are_not_bought_with_long_or_packed_ones():
    """The linter holds it: E501 is a line of more than 100 columns, E701 to E703 are two statements
    in one line."""
    text = (ROOT / 'ruff.toml').read_text('utf-8')
    chosen, ignored = (re.search(rf'^{key} = \[(.*)\]$', text, re.M)[1] for key in ('select', 'ignore'))
    assert '"E"' in chosen and not re.search('"E(5|50|501|7|70|70[123])?"', ignored)
    assert re.search('^line-length = 100\\b', text, re.M)
    exceptions = text.split('[lint.per-file-ignores]')[1].split('\n', 1)[1]
    assert exceptions.strip() == '"{bench,config,learn,tests}/*" = ["E501"]'
