"""bench/pictures.py: each picture is drawn from a small run; those on the pages are small and up to date."""
import json
import re
import sys
from xml.etree import ElementTree

from conftest import ROOT

from parts.eval import problems
from tokenizer import SPECIAL_TOKENS, Tokenizer

sys.path.append(str(ROOT / 'bench'))
import pictures  # noqa: E402


def test_each_picture_is_drawn_from_a_small_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pictures, 'SPLIT', 'variation')
    p, = problems.problems(1, 0, 'variation')
    tests = p['test'].strip().split('\n')[1:]
    first = tests[0].split(' == ')[1]
    texts = {'': ('', 'empty'), '_sft': (f'def {p["entry_point"]}(*_): return {first}', 'wrong'),
             '_rl': (p['prompt'] + p['canonical_solution'], 'passed')}
    for stage, (text, outcome) in texts.items():
        row = {'task_id': p['task_id'], 'split': 'variation', 'completion': text, 'outcome': outcome}
        folder = tmp_path / f'out/quickstart{stage}'
        folder.mkdir(parents=True)
        (folder / 'samples.jsonl').write_text(json.dumps(row | {'messages': []} if stage else row) + '\n')
    Tokenizer.byte(SPECIAL_TOKENS).save('out/quickstart/tokenizer.json')
    (tmp_path / 'out/quickstart/config.json').write_text('{"n_layer": 2, "n_embd": 16}')
    (tmp_path / 'data/quickstart').mkdir(parents=True)
    stages = [{'name': 'rules', 'docs_in': 9, 'docs_out': 7, 'dropped': {'too <short>': 2}}]
    report = {'stages': stages, 'tokens': {'train': 5000, 'val': 10}}
    (tmp_path / 'data/quickstart/report.json').write_text(json.dumps(report))

    n, some = len(tests), sum(test.split(' == ')[1] == first for test in tests)
    expected = {'rl': '+19.7', 'turning_green': f'0 of {n} tests|{some} of {n} tests|{n} of {n} tests',
                'masks': 'document mask', 'kv_cache': '256 bytes', 'chat_mask': '33 tokens count',
                'memory': '47 GB', 'funnel': 'too <short>'}
    assert expected.keys() == pictures.CARDS.keys()
    for name, words in expected.items():
        drawn = ' '.join(ElementTree.fromstring(pictures.CARDS[name]()).itertext())
        assert all(text in drawn for text in words.split('|')), (name, drawn)

    rows = [{'step': step, 'loss': 5.0 - step, 'dt': 0.1, 'tok_s': 50.0} for step in (1, 2, 3)]
    metrics = ''.join(json.dumps(row) + '\n' for row in rows)
    (tmp_path / 'out/quickstart/metrics.jsonl').write_text(metrics)
    pictures.dashboard('dashboard.png')
    assert 1000 < (tmp_path / 'dashboard.png').stat().st_size < 40_000

def test_each_picture_stands_on_a_page_is_below_40_kb_and_shows_today_s_figures():
    shown = {}
    for page in [ROOT / 'README.md', *ROOT.glob('docs/*.md')]:
        for words, path in re.findall(r'!\[([^]]*)\]\(([^)\s]+)\)', page.read_text(encoding='utf-8')):
            shown[(page.parent / path).resolve()] = words
    for path, words in shown.items():
        assert words and path.stat().st_size < 40_000, path
    assert {path.name for path in shown} == {path.name for path in ROOT.glob('docs/img/*g')}
    for name in ('rl', 'memory'):                   # those that need no run
        assert pictures.CARDS[name]() == (ROOT / f'docs/img/{name}.svg').read_text(encoding='utf-8'), name
