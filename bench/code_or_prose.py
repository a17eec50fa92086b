"""
Code or prose: how often parts/prepare/clean.py takes one for the other, over the files of this machine.

    python bench/code_or_prose.py

Prints for each kind of file what it was taken for, and how many indented lines lost their indentation.
"""
import collections
import pathlib
import random
import site
import sys
import sysconfig

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from parts.prepare.clean import form_of, normalise  # noqa: E402

STDLIB = pathlib.Path(sysconfig.get_paths()['stdlib'])
PACKAGES = pathlib.Path(site.getsitepackages()[0])
CODE = {'Python': '*.py', 'C': '*.[ch]', 'C++': '*.[ch]pp', 'JavaScript': '*.js', 'Perl': '*.pm',
        'PHP': '*.php', 'shell': '*.sh', 'CSS': '*.css'}
PROSE = {'licences': '*LICENSE*', 'packages': 'METADATA', 'READMEs': 'README*', 'Markdown': '*.md',
         'reST': '*.rst'}


def indented(text):
    return sum(line[:1] in ' \t' and bool(line.strip()) for line in text.split('\n'))


for kind, pattern in (CODE | PROSE).items():
    folders = [STDLIB] if kind == 'Python' else [PACKAGES, pathlib.Path('/usr')]
    paths = sorted(p for folder in folders for p in folder.rglob(pattern) if p.is_file())
    if kind == 'Python':
        paths = [p for p in paths if not {'site-packages', 'dist-packages'} & {*p.parts}]
    elif len(paths) > 300:
        paths = random.Random(0).sample(paths, 300)
    forms, total, lost = collections.Counter(), 0, 0
    for path in paths:
        try:
            text = path.read_text(encoding='utf-8')[:100_000 if kind in PROSE else None]
        except (UnicodeDecodeError, OSError):
            continue
        form = form_of(text)
        forms[form] += 1
        total += indented(text)
        lost += indented(text) - indented(normalise(text, form))
    print(f'{kind}: {dict(forms)}, {lost:,} of {total:,} indented lines lost their indentation')
