"""A dataset on a hub, served by this machine: busy servers, broken transfers, wrong files, no network."""
import collections
import gzip
import hashlib
import http.server
import json
import os
import re
import threading

import pytest
from conftest import mistake, ok, run
from test_prepare import RAW, documents, report

LICENCES = 'mit', 'apache-2.0', 'gpl-3.0'
RECORDS = [[{'content': f'# {shard} {i}\nvalue = {i * 17 + shard}\n', 'path': f'{i}.py', 'repo_name': 'r/one',
             'license': LICENCES[i % 3], 'noise': os.urandom(4000 * (shard == 3)).hex()} for i in range(60)]
           for shard in range(4)]
LIST = '/api/datasets/codeparrot/codeparrot-clean/tree/main'


@pytest.fixture
def hub():
    """Two pages of listing, four shards. hub.faults: {path: [status or bytes to break off after, ...]}, one
    for each request; hub.asked: (path, first byte) of each request; hub.files may be changed."""
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'           # connections stay open, as on the real hub

        def answer(self, status, body=b'', cut=None, **headers):
            self.send_response(status)
            for name, value in {'Content-Length': len(body), **headers}.items():
                self.send_header(name.replace('_', '-'), str(value))
            self.end_headers()
            self.wfile.write(body[:cut])
            self.close_connection = cut is not None

        def do_GET(self):
            path, _, query = self.path.partition('?')
            begin = int(re.search(r'\d+', self.headers.get('Range', '0'))[0])
            here.asked.append((path.removeprefix(here.prefix), begin))
            fault = (here.faults.get(here.asked[-1][0]) or [None]).pop(0)
            if fault in (429, 503):
                self.answer(fault, **({'Retry_After': 1} if fault == 429 else {}))
            elif path == LIST and 'recursive=true' in query:
                entries = [{'type': 'directory', 'path': 'data', 'size': 0}, *(
                    {'type': 'file', 'path': name, 'size': len(data), 'lfs': {
                        'oid': here.sums.get(name) or hashlib.sha256(data).hexdigest(), 'size': len(data)}}
                    for name, data in here.files.items())]
                page, link = (entries[:3], {'Link': f'<{here.address}{self.path}&cursor=2>; rel="next"'}) \
                    if 'cursor=' not in query else (entries[3:], {})
                self.answer(200, json.dumps(page).encode(), **link)
            elif (name := path.removeprefix(here.prefix)) in here.files:
                self.answer(206 if begin else 200, here.files[name][begin:], fault)
            else:
                self.answer(404)

        log_message = lambda *_: None
    here = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    here.daemon_threads, here.address = True, f'http://127.0.0.1:{here.server_port}'
    here.prefix, here.asked = '/datasets/codeparrot/codeparrot-clean/resolve/main/', []
    here.sums, here.faults = {}, {}
    here.files = {f'data/{i}.json.gz': gzip.compress(''.join(json.dumps(r) + '\n' for r in shard).encode())
                  for i, shard in enumerate(RECORDS)}
    threading.Thread(target=here.serve_forever, args=(0.05,), daemon=True).start()
    here.close = lambda: (here.shutdown(), here.server_close())
    yield here
    here.close()


def prepare(hub, folder, *flags, check=ok):
    return check(run('prepare.py', '--source=codeparrot', *RAW, f'--download_dir={folder}/raw',
                     f'--out_dir={folder}/out', '--tokenizer=byte', '--processes=2', *flags, timeout=100,
                     env={'NO_PROXY': '127.0.0.1', 'no_proxy': '127.0.0.1', 'HF_ENDPOINT': hub.address}))


def shards(folder):
    return sorted(p.name for p in (folder / 'raw').rglob('*') if p.is_file() and p.name != 'files.json')


def right(folder):
    """All documents are in the bins."""
    found = documents(folder / 'out')
    return sorted(found['train'] + found['val']) == sorted(r['content'] for shard in RECORDS for r in shard)


def test_all_pages_of_the_listing_arrive_each_shard_once_with_its_licences(hub, tmp_path):
    prepare(hub, tmp_path)
    assert right(tmp_path) and sorted(hub.asked[2:]) == [(name, 0) for name in sorted(hub.files)]
    assert report(tmp_path / 'out')['sources']['codeparrot']['licences'] == dict.fromkeys(LICENCES, 80)
    kept = [p.read_bytes() for p in sorted((tmp_path / 'raw').rglob('*.gz'))]
    assert kept == list(hub.files.values())


def test_only_the_wanted_licences_stay(hub, tmp_path):
    prepare(hub, tmp_path, '--licences=mit,apache-2.0')
    stage, = [s for s in report(tmp_path / 'out')['stages'] if s['name'] == 'source']
    assert (stage['docs_out'], stage['dropped']) == (160, {'licence gpl-3.0': 80})


def test_a_busy_server_is_asked_again_when_it_says(hub, tmp_path):
    hub.faults = {LIST: [503], 'data/1.json.gz': [429, 503], 'data/2.json.gz': [429]}
    prepare(hub, tmp_path)
    assert right(tmp_path)
    asked = collections.Counter(name for name, _ in hub.asked)
    assert asked == {LIST: 3, **{f'data/{i}.json.gz': n for i, n in enumerate([1, 3, 2, 1])}}


def test_a_transfer_that_breaks_off_is_continued_where_it_broke(hub, tmp_path):
    size = len(hub.files['data/3.json.gz'])
    hub.faults = {'data/3.json.gz': [size // 2, size // 3]}
    prepare(hub, tmp_path)
    begins = [begin for name, begin in hub.asked if name == 'data/3.json.gz']
    assert right(tmp_path) and len(begins) == 3
    assert begins[0] == 0 < begins[1] <= size // 2 and 0 < begins[2] - begins[1] <= size // 3


def test_another_file_than_the_listing_promises_is_refused(hub, tmp_path):
    hub.sums['data/2.json.gz'] = 'ab' * 32
    prepare(hub, tmp_path, check=lambda result: mistake(result, 'data/2.json.gz', 'checksum', 'abababab'))
    assert '2.json.gz' not in shards(tmp_path) and not (tmp_path / 'out/meta.json').exists()


def test_shards_are_removed_once_they_are_cleaned_and_asked_for_again(hub, tmp_path):
    prepare(hub, tmp_path, '--keep_downloads=False')
    assert right(tmp_path) and shards(tmp_path) == []
    prepare(hub, tmp_path)
    assert right(tmp_path) and len(shards(tmp_path)) == 4


def test_what_was_downloaded_needs_no_network(hub, tmp_path):
    prepare(hub, tmp_path)
    hub.close()
    prepare(hub, tmp_path, f'--out_dir={tmp_path}/other')
    assert (tmp_path / 'other/train.bin').read_bytes() == (tmp_path / 'out/train.bin').read_bytes()


def test_without_network_the_message_says_what_to_put_where(hub, tmp_path):
    hub.close()
    prepare(hub, tmp_path, check=lambda result: mistake(
        result, 'cannot list', hub.address, 'codeparrot/codeparrot-clean', '--source=FOLDER'))


@pytest.mark.parametrize('source, words', [('hf:nobody/nothing', ['nobody/nothing']),
                                           ('codeparrot', ['.json.gz'])])
def test_a_dataset_that_is_not_there_or_holds_no_records(hub, tmp_path, source, words):
    hub.files = {'model.bin': b'x', 'README.md': b'y'}
    prepare(hub, tmp_path, f'--source={source}',
            check=lambda result: mistake(result, *words))
    assert not list(tmp_path.rglob('files.json'))
