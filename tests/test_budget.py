"""A script stays as short as it is, unless a longer one gives a user something."""
import ast
import io
import tokenize

from conftest import ROOT

# Lines of code of each script. Comments, docstrings and blank lines are free, so explain as much as
# a reader needs. A script that needs more lines may have them: raising a number is a commit of its
# own that says what a user gets for it.
BUDGET = {'chats.py': 215, 'clean.py': 401, 'common.py': 123, 'configurator.py': 90,
          'dedup.py': 141, 'dpo.py': 266, 'eval.py': 190, 'files.py': 257, 'model.py': 277,
          'plot.py': 142, 'prepare.py': 175, 'rl.py': 250, 'sample.py': 104, 'sft.py': 219,
          'tokenizer.py': 279, 'train.py': 347}
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


def test_no_script_is_longer_than_its_budget_and_no_budget_has_slack():
    sizes = {path.name: lines_of_code(path.read_text('utf-8')) for path in ROOT.glob('*.py')}
    assert sizes == BUDGET, (
        'a script is shorter: lower its number; longer: remove something, or raise the number in a '
        'commit of its own that says what a user gets for it')


def test_only_code_counts():
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


RULES = """
select = ["E", "F", "W", "B", "UP"]
ignore = ["E401", "E731", "E741", "B905", "UP015", "B023"]
"""
EXCEPTIONS = """ new ones have 100
"{bench,config,learn,tests}/*" = ["E501"]
"""


def test_short_lines_of_scripts_are_not_bought_with_long_or_packed_ones():
    """The linter holds it: E501 is a line of more than 100 columns, E701 to E703 are two statements
    in one line."""
    text = (ROOT / 'ruff.toml').read_text('utf-8')
    assert text.startswith('line-length = 100\n') and RULES in text and text.endswith(EXCEPTIONS)
