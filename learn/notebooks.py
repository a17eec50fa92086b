"""
The notebooks of docs/: write tour.ipynb from tour.md, and exercises.ipynb from the list in exercise.py.

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
BEGIN = """# This cell finds your copy of nanoparrot, because the cells below import from it.
import importlib.util, os, pathlib, sys

here = pathlib.Path.cwd()
folders = [folder for folder in (here, *here.parents, here / 'nanoparrot')
           if (folder / 'learn/tour.py').exists()]
if not folders:
    sys.exit(f'There is no nanoparrot in {here} or above it. Its page begins with the command that '
             'clones it. Type it here, after an exclamation mark, and run this cell again; or open THIS in '
             'your clone.')
os.chdir(folders[0])
sys.path.insert(0, str(folders[0]))
missing = [name for name in PACKAGES if not importlib.util.find_spec(name)]
if missing:
    sys.exit(f'This Python has no {" and no ".join(missing)}. Run %pip install -r {folders[0]}/REQUIREMENTS '
             'in a cell of its own, and then this cell again.')
"""
EXERCISES = """# Functions of nanoparrot that you write yourself

Each cell below has a part of this project with a hole. Fill the hole and run the cell: the project's own
tests grade your function, and they say what was expected and what was found. The exercises go from easy to
hard, and you can do them in any order. The numbers in the tasks are papers on arXiv.
[The page](exercises.md) says which mistake is the usual one.
"""


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
    cells = [markdown(introduction), begin('tour.ipynb', 'requirements.txt', 'torch', 'regex')]
    page = heading + page
    end = 0
    for block in tour.BLOCK.finditer(page):
        cells += [markdown(page[end:block.start()]), code(block[2], block[4])]
        end = block.end() + len('```\n')
    return [*cells, markdown(page[end:])]


def exercise_cells():
    cells = [markdown(EXERCISES),
             begin('exercises.ipynb', 'tests/requirements.txt', 'torch', 'regex', 'pytest', 'hypothesis')]
    cells[1]['source'] += ['\n', '%load_ext learn.exercise']
    for number, e in enumerate(exercise.EXERCISES, 1):
        source = (exercise.ROOT / e.file).read_text(encoding='utf-8')
        where = f'[{e.file}](../{e.file}), {f"`{e.where}`" if e.where else "a part of the loop"}'
        cells += [markdown(f'## {number}. {e.name}\n\n{where}. {e.task}'),
                  code(f'%%exercise {e.name}\n{exercise.part_to_write(e, source)}')]
    return cells


def notebook(cells):
    """Return the text of a notebook, as Jupyter saves it."""
    python = {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'}
    whole = {'cells': cells, 'metadata': {'kernelspec': python, 'language_info': {'name': 'python'}},
             'nbformat': 4, 'nbformat_minor': 4}
    return json.dumps(whole, indent=1, ensure_ascii=False) + '\n'


NOTEBOOKS = {'tour.ipynb': tour_cells, 'exercises.ipynb': exercise_cells}


if __name__ == '__main__':
    if {'-h', '--help'} & {*sys.argv}:
        sys.exit(print(__doc__))
    for name, cells in NOTEBOOKS.items():
        (DOCS / name).write_text(notebook(cells()), encoding='utf-8')
