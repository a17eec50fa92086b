"""Code, prose or chat: what a text is taken for, and that code keeps its white space whatever it came in."""
import json
import pathlib
import re
import sysconfig
import textwrap

import pytest
from conftest import SHARED, ok, run
from test_prepare import documents, report

from parts.prepare.clean import form_of, normalise

STDLIB = pathlib.Path(sysconfig.get_paths()['stdlib'])
PYTHON = 'class A:\n    def f(self, x):\n        if x:\n            return  1\n'
OTHER = {
    'c': '#include <stdio.h>\n\nint main(void) {\n    for (int i = 0; i < 3; i++) {\n\tprintf("%d\\n",  i);\n'
         '    }\n    return 0;\n}\n',
    'javascript': 'const add = (a, b) => {\n  return a + b;\n};\n\n\nfunction f(x) {\n    if (x) {\n        '
                  'return add(x, 1);\n    }\n}\n',
    'go': 'package main\n\nimport "fmt"\n\nfunc main() {\n\tif x := f(); x > 0 {\n\t\tg(x)\n\t}\n}\n',
    'java': 'public class A {\n    // the sum\n    int sum(int a) {\n        return a + b;\n    }\n}\n',
    'python 2': 'def f(x):\n    for i in range(3):\n        print "a", i\n    print\n    raise E, "x"\n',
    'sql': 'SELECT d.name,\n       SUM(e.salary) AS total\n  FROM dept d\n  LEFT JOIN emp e\n'
           '         ON e.dept = d.id\n GROUP BY d.name;\n',
    'sql that changes one': 'UPDATE t\n   SET x = 1\n WHERE y IS NULL;\n',
    'broken python': 'def f(x):\n    if x:\n        return (1\n    y =  2\n\nclass B:\n    pass\n'}
SNIPPETS = ['    for i in range(3):\n        yield i\n    return 3\n', '"""A module.\n\n    Indented.\n"""\n',
            'x = 1\n', '@a\nasync def f():\n    await g()\n', 'print(1)\n']
PROSE = ['Yes\n', 'a, b, c\n', 'note: this\n', '# Title\n\n# Another\n',
         'Dear Ann,\n    how are you?\n\nYours\n',
         'Select the items\nfrom the list that\nwhere they stand, and\nset them on the table.\n',
         'FROM THE AUTHOR\n\nWHERE I BEGIN\n\nI was born in a house\nby the sea,\nand\nleft it.\nWhy?\n',
         'To be or not to be: that is the question;\n  whether it is nobler in the mind, to suffer\n' * 3,
         'ROMEO:\nBut soft! what light through yonder window?\n\nJULIET:\nAy me!\n', '', '3\n', '"Yes."\n']


def indented(text):
    return sum(line[:1] in ' \t' and bool(line.strip()) for line in text.split('\n'))


def test_no_file_of_the_standard_library_loses_an_indentation():
    files = [p for p in STDLIB.rglob('*.py') if p.stat().st_size < 8_000
             and not {'site-packages', 'test'} & {*p.relative_to(STDLIB).parts}]
    assert len(files) > 300
    total = n_code = 0
    for path in files:
        text = path.read_bytes().decode('utf-8')
        form = form_of(text)
        assert indented(normalise(text, form)) == indented(text), path
        total, n_code = total + indented(text), n_code + (form == 'code')
    assert total > 5_000 and n_code > 0.95 * len(files)


@pytest.mark.parametrize('text', [PYTHON, *SNIPPETS])
def test_python_is_known_without_a_path(text):
    assert form_of(text) == 'code' and normalise(text, 'code') == text


@pytest.mark.parametrize('name', OTHER)
def test_other_languages_keep_braces_and_indentation(name):
    assert form_of(OTHER[name]) == 'other code' and normalise(OTHER[name], 'other code') == OTHER[name]


@pytest.mark.parametrize('text', PROSE)
def test_prose_is_known(text):
    assert form_of(text) == 'prose'


def test_the_end_of_a_path_decides_first():
    assert form_of('Just prose.', 'a.jsonl:3 repo/x.py') == 'code' == form_of('', 'B.PY.gz')
    assert form_of('<p>\nx = 1\ny = 2\n', 'a.html') == 'prose'


def test_code_within_prose_stays_and_the_prose_around_it_is_tidied():
    fenced = 'Use   it:\n\n```\nif  x:\n    y\n```\n\n\n\nand  so\n  on.\n'
    assert form_of(fenced) == 'prose'
    assert normalise(fenced, 'prose') == 'Use it:\n\n```\nif  x:\n    y\n```\n\nand so\n  on.'
    page = 'Some  words about  it.\n\n' + textwrap.indent(PYTHON, '    ') + '\nThe  end.\n' + 'A   day.\n' * 9
    assert form_of(page) == 'prose'
    tidy = normalise(page, 'prose')
    code = textwrap.indent(PYTHON, '    ').replace('return  1', 'return 1')
    assert tidy.startswith(f'Some words about it.\n\n{code}\nThe end.\nA d')
    assert normalise(tidy, 'prose') == tidy


def test_real_prose_is_still_normalised():
    texts = [p.read_text(encoding='utf-8', errors='ignore') for folder in (STDLIB.parent, STDLIB)
             for p in sorted(folder.glob('**/*LICENSE*.txt'))[:9] + sorted(folder.glob('**/METADATA'))[:9]]
    if (SHARED / 'tinyshakespeare.txt').exists():
        texts.append((SHARED / 'tinyshakespeare.txt').read_text(encoding='utf-8')[:50_000])
    texts = [text[:20_000] for text in texts]
    prose = [text for text in texts if form_of(text) == 'prose']
    assert len(prose) >= 0.9 * len(texts)
    if len(texts) < 5:
        pytest.skip('hardly any prose on this machine')
    for text in prose:
        for block in normalise(text, 'prose', markup=False).split('```')[::2]:
            assert '\n\n\n' not in block and not re.search(r'\S[^\S\n]{2}|[^\S\n]\n', block), text[:99]


@pytest.mark.parametrize('record', [
    lambda t: {'content': t}, lambda t: {'content': t, 'max_stars_repo_path': 'a/b', 'lang': 'Python'},
    lambda t: {'code': t, 'docstring': 'Says so.'}, lambda t: {'func_code_string': t},
    lambda t: {'whole_func_string': t, 'func_code_string': 'x'},
    lambda t: {'task_id': 'H/0', 'prompt': t, 'canonical_solution': '        x = 1\n        return x\n'}])
def test_records_of_the_known_sets_of_code_work_without_a_flag(tmp_path, record):
    texts = [PYTHON.replace('A', f'A{i}') for i in range(40)]
    (tmp_path / 'x.jsonl').write_text('\n'.join(json.dumps(record(t)) for t in texts + ['Only words.  Yes.']),
                                      encoding='utf-8')
    ok(run('prepare.py', f'--source={tmp_path}/x.jsonl', f'--out_dir={tmp_path}/out', '--tokenizer=byte',
           '--dedup=none', '--min_assignments=0', '--config_test=0', '--min_words=0', '--max_repetition=0'))
    found = documents(tmp_path / 'out')
    found = sorted(text[:len(texts[-1]) - (text[9:10] == '(')] for text in found['train'] + found['val'])
    kept = [text for text in found if text.startswith('class')]
    assert len(kept) == 40 and all(indented(text) == 3 for text in kept)
    taken = report(tmp_path / 'out')['counts']['documents taken as']
    assert taken['code'] >= 40
    assert 'documents taken as: code: 4' in (tmp_path / 'out/report.md').read_text(encoding='utf-8')


def test_judging_a_text_takes_time_in_proportion_to_its_length():
    for text in ('/*' * 40_000, '\n' * 80_000, ' ' * 80_000 + 'x', 'a,' * 40_000, '```' * 30_000,
                 ';x' * 40_000, '=x;' * 300, '\n=a' * 30_000, 'f(' * 40_000, '(\n' * 300):
        form_of(text)
        normalise(text, 'prose')        # a quadratic step would take minutes here
