"""A web crawl as it is stored: WARC files of pages, WET files of their text, gzipped by record, damaged."""
import gzip

import pytest
from conftest import ok, run
from test_prepare import documents, report

from parts.prepare.reading import entries

PAGE = """<html><head><title>Mills {i}</title><style>p {{ color: red }}</style></head><body>
<script>var x = {{a: 1}};\nif (x) {{ f(x); }}\nfor (;;) {{ }}</script>
<h1>Old mills</h1><p>The miller of Ä{i} has <b>three</b> sons &amp; a cat.</p>
<ul><li>one</li><li>two</li></ul></body></html>"""


def record(kind, body, *more, version='WARC/1.0', uri='http://host/a'):
    head = [version, f'WARC-Type: {kind}', f'WARC-Target-URI: {uri}', *more, f'Content-Length: {len(body)}']
    return '\r\n'.join(head).encode() + b'\r\n\r\n' + body + b'\r\n\r\n'


def response(body, mime='text/html; charset=utf-8', status='200 OK', *more):
    head = [f'HTTP/1.1 {status}', *([f'Content-Type: {mime}'] if mime else []), *more]
    return '\r\n'.join(head).encode() + b'\r\n\r\n' + body


def crawl(n=40):
    """Pages, and what a crawl holds beside them."""
    found = [record('warcinfo', b'software: x')]
    for i in range(n):
        found += [record('request', b'GET / HTTP/1.1\r\n\r\n'),
                  record('response', response(PAGE.format(i=i).encode()), uri=f'http://host{i}/a'),
                  record('metadata', b'fetchTimeMs: 1')]
    found.append(record('response', response(b'\x89PNG\r\n', 'image/png')))
    found.append(record('response', response(b'<p>Gone.', status='404 Not Found')))
    return found


@pytest.mark.parametrize('name, pack', [('a.warc', bytes), ('A.WARC.GZ', gzip.compress)])
def test_the_pages_of_a_crawl_become_documents_without_their_scripts(tmp_path, name, pack):
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in' / name).write_bytes(b''.join(map(pack, crawl())))
    ok(run('prepare.py', f'--source={tmp_path}/in', f'--out_dir={tmp_path}/out', '--tokenizer=byte',
           '--min_words=0', '--dedup=exact', '--list_documents=True'))
    found = documents(tmp_path / 'out')
    texts = found['train'] + found['val']
    assert len(texts) == 40 and report(tmp_path / 'out')['malformed'] == 0
    for text in texts:
        assert 'has three sons & a cat.' in text and 'Old mills' in text and 'Ä' in text
        assert not any(word in text for word in ('<', 'var x', 'color', 'HTTP', 'GET', 'PNG', 'Gone'))
    listing = (tmp_path / 'out/documents.jsonl').read_text(encoding='utf-8')
    assert '"http://host7/a"' in listing
    assert report(tmp_path / 'out')['counts']['documents taken as'] == {'prose': 40}


def test_the_texts_of_a_wet_file_are_taken_as_they_are(tmp_path):
    texts = [f'Plain words of page {i}.\nAnd a < b.\n' for i in range(5)]
    data = record('warcinfo', b'x') + b''.join(record('conversion', text.encode(), uri=f'http://h/{i}')
                                               for i, text in enumerate(texts))
    (tmp_path / 'a.warc.wet.gz').write_bytes(gzip.compress(data))
    found = list(entries([{'path': str(tmp_path / 'a.warc.wet.gz')}]))
    assert [r['text'] for _, _, r, _, _ in found] == texts and not any(why for *_, why, _ in found)
    assert [r['url'] for _, _, r, _, _ in found] == [f'http://h/{i}' for i in range(5)]
    assert [line for _, line, *_ in found] == [2, 3, 4, 5, 6]           # the number of the record


@pytest.mark.parametrize('body, mime, more, text', [
    ('früh'.encode('cp1252'), 'text/html', (), 'früh'), ('früh'.encode(), 'text/html', (), 'früh'),
    ('früh'.encode(), None, (), None), ('да'.encode('koi8-r'), 'text/html; charset=koi8-r', (), 'да'),
    ('früh'.encode(), 'text/html; charset=nonsense', (), 'früh'),
    ('да'.encode('cp1251'), 'text/html', ('<meta charset="windows-1251">',), 'да'),
    (gzip.compress(b'packed', mtime=0), 'text/html', ('Content-Encoding: gzip',), 'packed'),
    (b'4\r\nin p\r\n4\r\narts\r\n0\r\n\r\n', 'text/html', ('Transfer-Encoding: chunked',), 'in parts'),
    (b'said plainly', 'text/plain', (), 'said plainly'),
    (b'cut', 'text/html', ('Content-Length: 99',), 'cut')])
def test_a_page_is_decoded_as_it_was_sent(tmp_path, body, mime, more, text):
    if more and more[0].startswith('<'):
        body, text, more = more[0].encode() + body, more[0] + text, ()
    (tmp_path / 'a.warc').write_bytes(record('response', response(body, mime, '200 OK', *more)))
    found = [r and r['text'] for _, _, r, _, _ in entries([{'path': str(tmp_path / 'a.warc')}])]
    assert found == ([text] if text else [])


@pytest.mark.parametrize('damage, n, says', [
    (lambda d: d[:len(d) // 2 + 130], 4, 'is cut off'), (lambda d: b'nonsense\r\n\r\n' + d, 0, 'not WARC'),
    (lambda d: d.replace(b'Content-Length: ', b'Content-Length: x', 1), 0, 'ValueError'),
    (lambda d: d.replace(b'\r\nContent-Length:', b'\r\nContent-Size:'), 0, 'Content-Length'),
    (lambda d: gzip.compress(d)[:-30], None, '')])
def test_a_damaged_crawl_gives_what_came_before_the_damage(tmp_path, damage, n, says):
    data = damage(b''.join(record('conversion', f'{i} text'.encode() * 30) for i in range(8)))
    path = tmp_path / ('a.wet.gz' if data[:1] == b'\x1f' else 'a.wet')
    path.write_bytes(data)
    *good, (_, line, bad, why, _) = entries([{'path': str(path)}])
    assert bad is None and says in why and line == len(good) + 1
    assert n is None or len(good) == n


def test_a_record_that_is_too_long_is_passed_over(tmp_path):
    data = b''.join(record('conversion', text) for text in (b'one', b'x' * 2_000_000, b'three'))
    (tmp_path / 'a.wet').write_bytes(data)
    one, two, three = entries([{'path': str(tmp_path / 'a.wet')}], max_chars=1000)
    assert (one[2]['text'], three[2]['text']) == ('one', 'three')
    assert two[2] is None and 'longer than' in two[3] and two[4] == 2_000_000
