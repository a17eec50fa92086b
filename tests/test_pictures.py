"""bench/pictures.py: those on the pages are small and up to date."""
import re
import sys

from conftest import ROOT

sys.path.append(str(ROOT / 'bench'))
import pictures  # noqa: E402


def test_each_picture_stands_on_a_page_is_below_40_kb_and_shows_today_s_figures():
    shown = {}
    for page in [ROOT / 'README.md', *ROOT.glob('docs/*.md')]:
        for words, path in re.findall(r'!\[([^]]*)\]\(([^)\s]+)\)', page.read_text(encoding='utf-8')):
            shown[(page.parent / path).resolve()] = words
    for path, words in shown.items():
        assert words and path.stat().st_size < 40_000, path
    assert {path.name for path in shown} == {path.name for path in ROOT.glob('docs/img/*g')}
    for name in ('rl', 'depth', 'memory'):                   # those that need no run
        assert pictures.CARDS[name]() == (ROOT / f'docs/img/{name}.svg').read_text(encoding='utf-8'), name
