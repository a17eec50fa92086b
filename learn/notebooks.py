"""
The notebooks of docs/: write tour.ipynb from tour.md, exercises.ipynb from the list in exercise.py, and
chain.ipynb, which runs everything.

    python learn/notebooks.py       # after a change of the tour, of an exercise or of a function in one

The tour's notebook has the text, the code and the outputs of the page, and a test compares them. In the
other, each exercise is a cell with a function to write, and running the cell grades it. Don't edit a
notebook here: change what it is written from.
"""
import json
import pathlib
import sys

import exercise
import tour

DOCS = pathlib.Path(__file__).resolve().parent.parent / 'docs'
BEGIN = """# This cell finds your copy of nanoparrot, or gets one, and installs what is missing: also on the machine of a
# notebook service. Where there is no copy, write the address of the repository here:
REPOSITORY = '<this repository>'
import importlib.util, os, pathlib, subprocess, sys

here = pathlib.Path.cwd()
folders = [folder for folder in (here, *here.parents, here / 'nanoparrot')
           if (folder / 'learn/tour.py').exists()]
if not folders:
    address = os.environ.get('NANOPARROT', REPOSITORY)
    if address.startswith('<'):
        sys.exit(f'There is no nanoparrot in {here} or above it. Write the address of the repository into '
                 'the line REPOSITORY = ... and run this cell again, or open THIS in your clone.')
    folders = [here / 'nanoparrot']
    subprocess.run(['git', 'clone', '-q', '--depth=1', address, folders[0]], check=True)
os.chdir(folders[0])
sys.path.insert(0, str(folders[0]))
if not all(map(importlib.util.find_spec, PACKAGES)):
    subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', *'REQUIREMENTS'.split()], check=True)
    importlib.invalidate_caches()
"""
EXERCISES = """# Functions of nanoparrot that you write yourself

Each cell below has a part of this project with a hole. Fill the hole and run the cell: the project's own
tests grade your function, and they say what was expected and what was found. The exercises go from easy to
hard, and you can do them in any order. The numbers in the tasks are papers on arXiv.
[The page](exercises.md) says which mistake is the usual one.
"""
CHAIN = """# The whole chain in a notebook

Run the cells from top to bottom. In a quarter of an hour (on two CPU cores that multiply in bfloat16; with a GPU in four
minutes, without either in half an hour) you have a language model of 5 million parameters that answers small programming
problems, a report of what each stage added, and a page on which you can ask three of its versions."""
RUN = """# some services have no module venv
!test -x .venv/bin/python || python3 -m venv .venv || (pip install -q virtualenv && virtualenv -q .venv)
!bash run.sh"""
REPORT = """from IPython.display import Image, Markdown, display

display(Markdown(filename='out/quickstart/REPORT.md'), Image('out/quickstart/dashboard.png'))"""
ASK = """!.venv/bin/python sample.py --ckpt=out/quickstart_rejection --chat=True --temperature=0 \\
    --prompt='Write solve(numbers). Return the sum of the squares of the odd numbers in numbers.'
print('the page:', pathlib.Path('out/quickstart/demo.html').resolve())"""


def markdown(text):
    return {'cell_type': 'markdown', 'metadata': {}, 'source': text.strip('\n').splitlines(keepends=True)}


def code(text, output=''):
    shown = [{'name': 'stdout', 'output_type': 'stream', 'text': output.splitlines(keepends=True)}]
    return {'cell_type': 'code', 'execution_count': None, 'metadata': {}, 'outputs': shown if output else [],
            'source': text.strip('\n').splitlines(keepends=True)}


def begin(this, requirements, *packages):
    """Return the cell that finds the project and says what is missing."""
    text = BEGIN.replace('THIS', f'docs/{this}').replace('PACKAGES', str(packages))
    return code(text.replace('REQUIREMENTS', requirements))


def tour_cells():
    """Return the cells of the tour. The cell that finds the project is behind the introduction."""
    page = tour.PAGE.read_text(encoding='utf-8')
    introduction, heading, page = page.partition('\n## ')
    cells = [markdown(introduction), begin('tour.ipynb', '-r requirements.txt', 'torch', 'regex', 'tiktoken')]
    page = heading + page
    end = 0
    for block in tour.BLOCK.finditer(page):
        cells += [markdown(page[end:block.start()]), code(block[2], block[4])]
        end = block.end() + len('```\n')
    return [*cells, markdown(page[end:])]


def exercise_cells():
    cells = [markdown(EXERCISES),
             begin('exercises.ipynb', '-r requirements.txt -r tests/requirements.txt', 'torch', 'regex',
                   'tiktoken', 'pytest', 'hypothesis')]
    cells[1]['source'] += ['\n', '%load_ext learn.exercise']
    for number, e in enumerate(exercise.EXERCISES, 1):
        source = (exercise.ROOT / e.file).read_text(encoding='utf-8')
        where = f'[{e.file}](../{e.file}), {f"`{e.where}`" if e.where else "a part of the loop"}'
        cells += [markdown(f'## {number}. {e.name}\n\n{where}. {e.task}'),
                  code(f'%%exercise {e.name}\n{exercise.part_to_write(e, source)}')]
    return cells


def chain_cells():
    return [markdown(CHAIN), begin('chain.ipynb', ''),
            markdown('Each line that begins with `==` is a command that you could type.'), code(RUN),
            markdown('What each stage can do, and how its training went:'), code(REPORT),
            markdown('Ask a model; then open the page, or download it: it works without Python.'), code(ASK)]


def notebook(cells):
    """Return the text of a notebook, as Jupyter saves it."""
    python = {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'}
    whole = {'cells': cells, 'metadata': {'kernelspec': python, 'language_info': {'name': 'python'}},
             'nbformat': 4, 'nbformat_minor': 4}
    return json.dumps(whole, indent=1, ensure_ascii=False) + '\n'


NOTEBOOKS = {'tour.ipynb': tour_cells, 'exercises.ipynb': exercise_cells, 'chain.ipynb': chain_cells}


if __name__ == '__main__':
    if {'-h', '--help'} & {*sys.argv}:
        sys.exit(print(__doc__))
    for name, cells in NOTEBOOKS.items():
        (DOCS / name).write_text(notebook(cells()), encoding='utf-8')
