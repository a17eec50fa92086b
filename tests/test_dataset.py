"""Data sets of a hub: what of them is fetched, through broken transfers; what a hub can't do."""
import gzip
import hashlib
import json
import pathlib
import random
import re
import threading
import wsgiref.simple_server

import pytest
from conftest import mistake, ok, refused, run
from preparing import RAW, kept

from extras.text import hub

SMALL = ['README.md', 'data/test-0.jsonl.gz', 'data/train-0.jsonl.gz', 'data/train-1.jsonl.gz',
         'extra/a b.jsonl.gz']


def packed(texts):
    return gzip.compress(''.join(json.dumps({'text': text}) + '\n' for text in texts).encode())


@pytest.fixture
def server(monkeypatch):
    """A hub on this machine, which lists what it has on two pages. answer(path, token) may give
    (status, headers, body) in place of that, or a number: after so many bytes it breaks off.
    asked: (path, first byte, token) of each request."""
    def respond(request, start):
        path, token = request['PATH_INFO'], request.get('HTTP_AUTHORIZATION')
        begin = int(re.search(r'\d+', request.get('HTTP_RANGE', '0'))[0])
        here.asked.append((path, begin, token))
        kind, _, name = re.sub('.*/(tree|resolve)/[^/]+/?', r'\1 ', path).partition(' ')
        status, headers, body = 206 if begin else 200, {}, here.files.get(name, b'')[begin:]
        if kind == 'tree':                  # a second page has what is left
            entries = [{'path': path, 'type': 'file', **here.entry(data)}
                       for path, data in here.files.items()]
            pages = [{'path': 'data', 'type': 'directory', 'oid': '0' * 40}, *entries[:1]], entries[1:]
            body = json.dumps(pages['cursor' in request['QUERY_STRING']]).encode()
            if 'recursive=true' in request['QUERY_STRING']:
                headers = {'Link': f'<{here.address}{path}?cursor=2>; rel="next"'}
        odd = here.answer(path, token)
        if isinstance(odd, tuple):
            status, headers, body = odd
        start(f'{status} it', [*{'Content-Length': str(len(body)), **headers}.items()])
        return [body[:odd] if isinstance(odd, int) else body]

    here = wsgiref.simple_server.make_server('127.0.0.1', 0, respond)
    here.address = f'http://127.0.0.1:{here.server_port}'
    here.asked = []
    here.answer = lambda path, token: None
    # as git does it
    here.entry = lambda data: {'oid': hashlib.sha1(b'blob %d\0' % len(data) + data).hexdigest()}
    here.files = {name: packed([name]) for name in SMALL}
    for name, value in (('HF_ENDPOINT', here.address), ('NO_PROXY', '127.0.0.1'), ('HF_TOKEN', '')):
        monkeypatch.setenv(name, value)
    threading.Thread(target=here.serve_forever, args=(0.05,), daemon=True).start()
    yield here
    here.shutdown()
    here.server_close()


def names(source):
    """What of a data set is asked for, in order."""
    return [path.removeprefix('raw/') for *_, path in hub.find_files(f'hf:{source}', 'raw')]


def test_a_data_set_arrives_from_a_busy_server_with_broken_transfers_then_without_network(server):
    dice = random.Random(1)             # of the last file, which will break off, there is more
    noise = [[dice.randbytes(n).hex() for _ in range(60)] for n in (10, 10, 2500)]
    server.files = {f'data/{i}.jsonl.gz': packed(texts) for i, texts in enumerate(noise)}
    # a large file's own oid is that of a pointer
    server.entry = lambda data: {'oid': '0' * 40,
                                 'lfs': {'oid': hashlib.sha256(data).hexdigest()}}
    busy = [(status, {'Retry-After': '1'}, b'') for status in (503, 429)]
    faults = {'main': busy[:1], '1.jsonl.gz': busy, '2.jsonl.gz': [70_000, 70_000]}
    server.answer = lambda path, _: (faults.get(path.split('/')[-1]) or [None]).pop()

    def from_hub(*flags):
        direct = dict.fromkeys(('NO_PROXY', 'no_proxy'), '127.0.0.1')
        return run('clean.py --source=codeparrot --out_dir=out', *RAW,
                   '--num_workers=2', *flags, env={'HF_ENDPOINT': server.address, **direct})

    ok(from_hub('--max_files=2'))
    there = lambda: [path.read_bytes() for path in sorted(pathlib.Path('data/raw').rglob('*.gz'))]
    assert len(there()) == 2                            # what is not asked for is not fetched
    ok(from_hub())
    assert there() == [*server.files.values()]
    begins = [begin for path, begin, _ in server.asked if '2.jsonl' in path]
    assert 0 == begins[0] < begins[1] <= 70_000 and 0 < begins[2] - begins[1] <= 70_000
    assert kept(pathlib.Path('out')) == sorted(sum(noise, []))

    server.shutdown()
    server.server_close()
    mistake(from_hub(), f"can't list & {server.address} & --source=FOLDER & codeparrot--codeparrot-clean already")


def test_what_has_another_checksum_is_refused_and_the_next_try_begins_anew(server):
    data, part = server.files[SMALL[1]], pathlib.Path('a.part')
    wanted = f'{server.address}/resolve/main/{SMALL[1]}', hashlib.sha256(data).hexdigest(), 'a'
    part.write_bytes(data + b'of another file')
    refused('checksum', hub.fetch, *wanted)
    assert not [*pathlib.Path().glob('a*')]
    part.write_bytes(data)              # a kill before it got its name
    for _ in range(2):
        assert pathlib.Path(hub.fetch(*wanted)).read_bytes() == data


def test_a_folder_a_glob_a_file_and_a_revision_are_all_that_is_fetched(server):
    for line in 'o/n 1 5', 'o/n/data 1 4', 'o/n/data/train-* 2 4', 'o/n/*/train-1* 3 4', 'o/n/data/train-0.jsonl.gz 2 3':
        part, begin, end = line.split()
        assert names(part) == [f'o--n/{name}' for name in SMALL[int(begin):int(end)]], part
    refused('no files of records at', names, 'o/n/nothing')
    refused('must look like hf:OWNER/NAME', names, 'alone')
    server.asked.clear()
    [file] = hub.find_files('hf:o/n@v1/extra', 'raw')
    there = hub.fetch(*file)
    assert there == 'raw/o--n@v1/extra/a b.jsonl.gz' and b'extra/a b' in gzip.open(there).read()
    assert server.asked == [('/api/datasets/o/n/tree/v1', 0, None)] * 2 + [
        ('/datasets/o/n/resolve/v1/extra/a b.jsonl.gz', 0, None)]


def test_a_closed_data_set_asks_for_a_token(server, monkeypatch):
    server.answer = lambda path, token: None if token == 'Bearer hf_secret' else (401, {}, b'')
    for token in '', 'hf_wrong':
        monkeypatch.setenv('HF_TOKEN', token)
        refused('export HF_TOKEN=', names, 'o/n/extra')
    monkeypatch.setenv('HF_TOKEN', 'hf_secret')
    assert names('o/n/extra')


def test_no_path_that_a_hub_names_leaves_its_folder(server):
    server.files = dict.fromkeys(['../a.jsonl', '/etc/a.jsonl', 'x/../../a.jsonl', 'c:\\a.jsonl',
                                  'a.jsonl'], b'')
    assert names('o/n') == ['o--n/a.jsonl']
