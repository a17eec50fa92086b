"""The page of the server needs nothing from elsewhere, and shows text as text."""
import html.parser
import re

from conftest import ROOT
from serving import ask, serving, small

PAGE = (ROOT / 'parts' / 'sample' / 'page.html').read_text(encoding='utf-8')


class Tags(html.parser.HTMLParser):
    """The tags that are open, all ids, all attributes that lead somewhere."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links = [], [], []

    def handle_starttag(self, tag, attributes):
        self.open += [] if tag in ('meta', 'link', 'input', 'br') else [tag]
        self.ids += [value for name, value in attributes if name == 'id']
        self.links += [value for name, value in attributes if name in ('src', 'href', 'action')]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_nothing_from_elsewhere():
    tags = Tags()
    tags.feed(PAGE)
    assert not tags.open and tags.links == ['data:,'] and len(set(tags.ids)) == len(tags.ids)
    assert set(re.findall(r"\$\('(\w+)'\)", PAGE)) <= set(tags.ids)
    assert "default-src 'none'" in PAGE and '://' not in PAGE and '@import' not in PAGE
    assert not re.search('innerHTML|outerHTML|insertAdjacentHTML|document.write|eval', PAGE)    # text is text
    with serving({'m': small()}) as server:
        assert ask(server, '/') == (200, PAGE)
