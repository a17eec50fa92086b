"""Files of a hub: downloaded once, continued after a break, and checked; packed ones are unpacked."""
import collections
import gzip
import hashlib
import http.server
import json
import random
import re
import threading

import pytest
from conftest import mistake, ok, refused, run
from preparing import RAW, kept, prepare, report

from extras import hub as downloads

# --- a server of this machine, as a hub of datasets ---------------------------------------------------------
LICENCES = 'mit', 'apache-2.0', 'gpl-3.0'
NOISE = random.Random(1).randbytes(240_000).hex()           # makes the last file longer: it will break off
RECORDS = [[{'content': f'# {shard} {i}\nvalue = {i * 17 + shard}\n', 'path': f'{i}.py', 'repo_name': 'r/one',
             'license': LICENCES[i % 3], 'noise': NOISE[i * 8000:(i + 1) * 8000] if shard == 3 else ''}
            for i in range(60)] for shard in range(4)]
CONTENTS = sorted(record['content'] for shard in RECORDS for record in shard)
LIST = '/api/datasets/codeparrot/codeparrot-clean/tree/main'
FOLDER = '/datasets/codeparrot/codeparrot-clean/resolve/main/'


@pytest.fixture
def hub(monkeypatch):
    """Two pages of listing, four files. faults: {path: [status or bytes to break off after, ...]}, one for
    each request; asked: (path, first byte) of each; has_ranges: can it continue?"""
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'           # connections stay open, as on the real hub

        def do_GET(self):
            path, _, query = self.path.partition('?')
            name = path.removeprefix(FOLDER)
            begin = int(re.search(r'\d+', self.headers.get('Range', '0'))[0])
            here.asked.append((name, begin))
            fault = (here.faults.get(name) or [None]).pop(0)
            headers = {}
            if path == LIST:
                entries = [{'path': name, 'size': len(data), 'lfs': {'oid': hashlib.sha256(data).hexdigest()}}
                           for name, data in here.files.items()] + [{'path': 'data', 'size': 0}]
                is_first = 'recursive=true' in query and 'cursor=' not in query
                headers = {'Link': f'<{here.address}{self.path}&cursor=2>; rel="next"'} if is_first else {}
                status, body = 200, json.dumps(entries[:2] if is_first else entries[2:]).encode()
            elif begin and here.has_ranges:
                body = here.files[name][begin:]
                status = 206 if body else 416
            else:
                status, body = 200, here.files[name]
            if fault in (429, 503):
                status, body, headers = fault, b'', {'Retry-After': '1'}
            self.send_response(status)
            for header, value in {'Content-Length': str(len(body)), **headers}.items():
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(body[:fault])
            self.close_connection = fault is not None

        def log_message(self, *_):
            pass

    here = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    here.daemon_threads = True
    here.address = f'http://127.0.0.1:{here.server_port}'
    here.asked = []
    here.faults = {}
    here.has_ranges = True
    here.files = {f'data/{i}.json.gz': gzip.compress(''.join(json.dumps(r) + '\n' for r in shard).encode())
                  for i, shard in enumerate(RECORDS)}
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    threading.Thread(target=here.serve_forever, args=(0.05,), daemon=True).start()
    yield here
    here.shutdown()
    here.server_close()


# --- one file -----------------------------------------------------------------------------------------------
def download(hub, path):
    """Fetch the largest file; returns whether the path then has its content."""
    content = hub.files['data/3.json.gz']
    downloads.fetch(f'{hub.address}{FOLDER}data/3.json.gz', hashlib.sha256(content).hexdigest(), str(path))
    return path.read_bytes() == content


def test_a_server_that_cannot_continue_begins_anew(hub, tmp_path):
    hub.has_ranges = False
    (tmp_path / 'a.gz.part').write_bytes(hub.files['data/3.json.gz'][:1000])
    assert download(hub, tmp_path / 'a.gz')
    assert hub.asked == [('data/3.json.gz', 1000)]
    downloads.delete(str(tmp_path / 'a.gz'))            # only what is named as a file of a hub goes
    assert (tmp_path / 'a.gz').exists()


def test_a_complete_part_gets_its_name_and_one_of_another_file_is_refused(hub, tmp_path):
    (tmp_path / 'a.gz.part').write_bytes(hub.files['data/3.json.gz'])
    assert download(hub, tmp_path / 'a.gz')
    (tmp_path / 'b.gz.part').write_bytes(b'of another file')
    refused('checksum', download, hub, tmp_path / 'b.gz')
    assert not list(tmp_path.glob('b*'))
    assert download(hub, tmp_path / 'b.gz')


def test_offline_the_message_says_which_file_to_put_where(tmp_path):
    dead = dict.fromkeys(('HTTPS_PROXY', 'https_proxy'), 'http://127.0.0.1:9')          # nobody listens there
    mistake(run('prepare.py', '--source=shakespeare', f'--download_dir={tmp_path}/raw',
                f'--out_dir={tmp_path}/out', env={**dead, 'NO_PROXY': '', 'no_proxy': ''}),
            'https://', f'{tmp_path}/raw/shakespeare.txt')


# --- a dataset ----------------------------------------------------------------------------------------------
def from_hub(hub, folder, *flags, check=ok):
    """The documents of the dataset must arrive, unless another check is asked for."""
    check(run('prepare.py', '--source=codeparrot', *RAW, f'--download_dir={folder}/raw', '--tokenizer=byte',
              f'--out_dir={folder}/out', '--num_workers=2', *flags, timeout=100,
              env={'NO_PROXY': '127.0.0.1', 'no_proxy': '127.0.0.1', 'HF_ENDPOINT': hub.address}))
    if check == ok:
        assert kept(folder / 'out') == CONTENTS


def test_a_dataset_arrives_from_a_busy_server_with_broken_transfers_and_then_without_network(hub, tmp_path):
    size = len(hub.files['data/3.json.gz'])
    hub.faults = {LIST: [503], 'data/1.json.gz': [429, 503], 'data/3.json.gz': [size // 2, size // 3]}
    from_hub(hub, tmp_path, f'--licences={",".join(LICENCES)}')
    requests = collections.Counter(name for name, _ in hub.asked)
    assert requests == {LIST: 3, **{f'data/{i}.json.gz': n for i, n in enumerate([1, 3, 1, 3])}}
    begins = [begin for name, begin in hub.asked if name == 'data/3.json.gz']
    assert 0 == begins[0] < begins[1] <= size // 2 and 0 < begins[2] - begins[1] <= size // 3
    assert report(tmp_path / 'out')['counts']['licenses of codeparrot'] == dict.fromkeys(LICENCES, 80)
    assert [p.read_bytes() for p in sorted((tmp_path / 'raw').rglob('*.gz'))] == list(hub.files.values())

    hub.shutdown()
    hub.server_close()
    from_hub(hub, tmp_path, check=lambda result: mistake(
        result, "can't list", hub.address, 'codeparrot--codeparrot-clean already', '--source=FOLDER'))
    prepare(tmp_path / 'new', tmp_path / 'raw', *RAW)
    assert kept(tmp_path / 'new') == CONTENTS


def test_shards_are_removed_once_they_are_cleaned_and_asked_for_again(hub, tmp_path):
    from_hub(hub, tmp_path, '--keep_downloads=False')
    assert not [*(tmp_path / 'raw').rglob('*.gz')]
    from_hub(hub, tmp_path)
    assert len([*(tmp_path / 'raw').rglob('*.gz')]) == 4
