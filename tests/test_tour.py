"""docs/tour.md is true: its blocks run in order and print what is below them; what it names exists."""
import ast
import codeop
import json
import re
import subprocess
import sys

from conftest import ROOT, mistake, ok, run, save_run
from notebooks import begin, notebook, tour_cells
from tour import BLOCK, PAGE, pieces

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


def test_it_prints_the_values_of_two_models_of_the_reader(tmp_path):
    tokenizer = Tokenizer.byte(SPECIAL_TOKENS[:4])
    model = GPT(GPTConfig(tokenizer.vocab_size, 256, 1, 2, 0, 32))
    save_run(tmp_path, model, tokenizer)
    allow = '--allow_code_execution=True'
    page = ok(run('learn/tour.py', allow, tmp_path, tmp_path))
    assert f'parameters: {sum(p.numel() for p in model.parameters())}\n' in page and 'ln V: 5.5' in page
    after, by_hand = re.search(r'after: (\S+)\nby hand: (\S+),', page).groups()
    assert abs(float(after) - float(by_hand)) < 2e-4
    assert 'pass at 1: 0.0000' in page and page.splitlines()[0] == TEXT.splitlines()[0]
    for arguments, words in (([], 'bash run.sh tour'), ([allow, tmp_path], 'two runs'),
                             ([allow, 'none', 'none'], 'none does not exist')):
        mistake(run('learn/tour.py', *arguments), words)


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
    assert len(named) > 20
    for file, names in named:
        nodes = ast.parse((ROOT / file).read_text(encoding='utf-8')).body
        for name in names.split('.'):           # a class, and its method
            nodes = [child for node in nodes if getattr(node, 'name', '') == name for child in node.body]
        assert nodes, (file, names)
