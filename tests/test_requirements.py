"""requirements.md is true: each row's tests, headings and sentences exist. Its commands: test_readme.py."""
import ast
import functools
import re

from conftest import ROOT

TABLE = (ROOT / 'tests/requirements.md').read_text(encoding='utf-8')
ROWS = re.findall(r'^\| (S00\d-\d\d) \| (MUST|SHOULD) \| (.+) \| (.+) \|$', TABLE, re.M)
NOT_HELD = re.findall(r'^- (S00\d-\d\d) \(SHOULD\): .+\.$', TABLE, re.M)
KINDS = {'test': r'`(test_\w+\.py)::(test_\w+)`', 'heading': r'([\w/]+\.md)#([\w-]+)',
         'sentence': r'([\w/]+\.md) "(.+)"', 'command': r'`((?:python|torchrun --nproc_per_node=8) .+)`'}
HELD = [(id, entry) for id, _, _, cell in ROWS for entry in cell.split('; ')]


def of_kind(kind):
    """[(id, what its pattern finds)] of all entries of a kind."""
    found = [(id, re.fullmatch(KINDS[kind], entry)) for id, entry in HELD]
    return [(id, match.groups()) for id, match in found if match]


@functools.cache
def text_of(file):
    return (ROOT / file).read_text(encoding='utf-8')


def anchors(page):
    """As GitHub makes them of headings: `## A run's folder` is #a-runs-folder."""
    headings = re.findall(r'^#+ (.+)$', re.sub(r'```.*?```', '', text_of(page), flags=re.S), re.M)
    return {re.sub(r'[^\w -]', '', heading.lower()).strip().replace(' ', '-') for heading in headings}


def test_no_row_is_lost_twice_there_or_misspelled():
    priorities = [priority for _, priority, _, _ in ROWS]
    assert priorities.count('MUST') == 158
    assert priorities.count('SHOULD') + len(NOT_HELD) == 83
    ids = [id for id, *_ in ROWS] + NOT_HELD
    assert len(ids) == len(set(ids)) == len(re.findall(r'^(?:\| |- )S00', TABLE, re.M))
    odd = [entry for entry in HELD if not any(re.fullmatch(kind, entry[1]) for kind in KINDS.values())]
    assert not odd, odd


def test_the_tests_exist():
    functions = {path.name: {node.name for node in ast.parse(text_of(f'tests/{path.name}')).body
                             if isinstance(node, ast.FunctionDef)}
                 for path in (ROOT / 'tests').glob('test_*.py')}
    missing = [(id, file, name) for id, (file, name) in of_kind('test')
               if name not in functions.get(file, ())]
    assert not missing, missing


def test_the_headings_and_sentences_stand_on_their_pages():
    plain = lambda text: ' '.join(text.split())
    missing = [(id, page, name) for id, (page, name) in of_kind('heading') if name not in anchors(page)]
    missing += [(id, page, words) for id, (page, words) in of_kind('sentence')
                if plain(words) not in plain(text_of(page))]
    assert not missing, missing
