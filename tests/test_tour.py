"""docs/tour.md is true: its blocks run in order and print what is below them; what it names exists."""
import ast
import codeop
import json
import math
import re
import subprocess
import sys

import pytest
from conftest import ROOT, mistake, ok, run, save_run
from notebooks import begin, notebook, tour_cells
from tour import BLOCK, NOTHING, OURS, PAGE, YOURS, pieces

from model import GPT, GPTConfig
from tokenizer import SPECIAL_TOKENS, Tokenizer

TEXT = PAGE.read_text(encoding='utf-8')
NUMBER = re.compile(r'-?\d+\.\d+(?:e-?\d+)?')       # whole numbers are compared as text


def outputs_of(page):
    """[(words, numbers)] of each output, without the bars, which say the same as the numbers before them."""
    outputs = [re.sub(r' =+$', '', block[4], flags=re.M) for block in BLOCK.finditer(page)]
    return [(NUMBER.sub('?', text).split(), [float(n) for n in NUMBER.findall(text)]) for text in outputs]


def test_the_page_prints_what_is_below_its_blocks(tmp_path):
    page = ''.join(pieces(TEXT))
    (tmp_path / 'tour.md').write_text(page, encoding='utf-8')       # to be copied, if the page has to change
    now, before = outputs_of(page), outputs_of(TEXT)
    assert len(now) == len(before) == TEXT.count('```python') > 9
    for (words, numbers), (old_words, old_numbers) in zip(now, before):
        assert words == old_words, f'now: {tmp_path}/tour.md'
        for a, b in zip(numbers, old_numbers):
            assert abs(a - b) <= max(0.02, 0.05 * abs(b)), (numbers, old_numbers, f'now: {tmp_path}/tour.md')


ALLOW = '--allow_code_execution=True'


@pytest.fixture(scope='module')
def theirs(tmp_path_factory):
    """A folder with another model than ours: of bytes, and untrained. It is a base model and a chat model."""
    tokenizer = Tokenizer.byte(SPECIAL_TOKENS[:4])
    folder = tmp_path_factory.mktemp('theirs')
    save_run(folder, GPT(GPTConfig(tokenizer.vocab_size, 256, 1, 2, 0, 32)), tokenizer)
    return folder


@pytest.fixture(scope='module')
def their_page(theirs):
    return ok(run('learn/tour.py', ALLOW, theirs, theirs))


def test_it_prints_the_values_of_two_models_of_the_reader(theirs, their_page):
    page = their_page
    n_parameters = sum(p.numel() for p in GPT.load(theirs).parameters())
    assert f'parameters: {n_parameters}\n' in page and 'ln V: 5.5' in page
    assert 'pass at 1: 0.0000' in page and page.splitlines()[0] == TEXT.splitlines()[0]
    for arguments, words in (([], 'bash run.sh tour'), ([ALLOW, theirs], 'two runs'),
                             ([ALLOW, 'none', 'none'], 'none does not exist')):
        mistake(run('learn/tour.py', *arguments), words)


def test_what_the_page_says_of_the_small_models_is_below_their_output_also_for_models_of_a_reader(their_page):
    """Without what the reader's models print and the labels, it is our page, letter by letter: each
    sentence has the output above it that it is about."""
    theirs = rf'(?:{YOURS}\n\n```\n(.+?)```|{re.escape(NOTHING)})\n\n'
    added = re.compile(rf'```\n\n{theirs}{OURS}\n\n(?=```\n)', re.S)
    outputs = added.findall(their_page)
    assert added.sub('```\n', their_page) == TEXT
    assert len(outputs) > 8 and outputs.count('') == 2                 # both trainings are skipped
    assert f'ln V: {math.log(260):.4f}\n' in ''.join(outputs) and '```' not in ''.join(outputs)


def test_a_question_tells_no_value_of_a_model():
    """It comes before the output, so no label says whose value it is."""
    questions = re.findall(r'^\*\*(.+?)\*\*$', TEXT, re.S | re.M)
    assert len(questions) == TEXT.count('```python')
    assert not [question for question in questions if NUMBER.search(question)]


def test_a_block_can_be_pasted_line_by_line():
    """At a prompt, an empty line ends a function, and what follows a loop needs one before it."""
    for block in BLOCK.finditer(TEXT):
        typed = []
        for line in [*block[2].splitlines(), '']:
            typed.append(line)
            if codeop.compile_command('\n'.join(typed)):
                typed = []
        assert not typed, block[2]


def test_the_notebook_is_the_page_of_today_with_its_blocks_and_their_outputs():
    written = (ROOT / 'docs/tour.ipynb').read_text(encoding='utf-8')
    assert written == notebook(tour_cells()), 'docs/tour.ipynb is out of date: python learn/notebooks.py'
    introduction, _, *cells = json.loads(written)['cells']          # the second one finds the project
    shown = []
    for cell in introduction, *cells:
        shown += cell['source'] + sum((output['text'] for output in cell.get('outputs', ())), ['\n'])
    assert ''.join(shown).split() == re.sub(BLOCK.pattern + '```\n', r'\2\4', TEXT, flags=re.S).split()


def test_the_first_cell_finds_the_project_or_says_how_to_get_it(tmp_path):
    def after(folder, package='torch'):
        text = ''.join(begin('tour.ipynb', 'requirements.txt', package)['source'])
        text += '\nimport learn.tour, os\nprint(os.getcwd())'
        return subprocess.run([sys.executable, '-I', '-c', text], cwd=folder, capture_output=True, text=True)
    assert 'command that clones it' in after(tmp_path).stderr
    (tmp_path / 'nanoparrot').symlink_to(ROOT)
    assert after(ROOT / 'docs').stdout.strip() == str(ROOT) and after(tmp_path).returncode == 0
    assert 'has no absent. Run %pip install' in after(ROOT, 'absent').stderr


def test_each_function_that_a_page_names_is_there():
    pages = ''.join(path.read_text(encoding='utf-8') for path in ROOT.glob('docs/*.md'))
    named = re.findall(r'`([\w/]+\.py):([\w.]+)`', pages)
    assert len(named) > 10
    for file, names in named:
        nodes = ast.parse((ROOT / file).read_text(encoding='utf-8')).body
        for name in names.split('.'):           # a class, and its method
            nodes = [child for node in nodes if getattr(node, 'name', '') == name for child in node.body]
        assert nodes, (file, names)
