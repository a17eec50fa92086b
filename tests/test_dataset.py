"""A part of a data set of a hub: a folder, a glob, a revision, behind a token; odd lists."""

import gzip
import hashlib
import http.server
import json
import os
import threading
import urllib.parse

import pytest
from conftest import mistake, refused, run
from preparing import kept, prepare, prose, report, write_records

from extras import hub

FILES = {
    name: gzip.compress(f'{{"text": "{name}"}}\n'.encode())
    for name in (
        'data/train-0.jsonl.gz',
        'data/train-1.jsonl.gz',
        'data/test-0.jsonl.gz',
        'extra/a b.jsonl.gz',
        'README.md',
        'dataset_infos.json',
    )
}


@pytest.fixture
def server(monkeypatch, tmp_path):
    """here.answer(path, token) may give (status, headers, body) in place of the list and the files."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = urllib.parse.unquote(self.path.partition('?')[0])
            token = self.headers.get('Authorization')
            here.asked.append((path, token))
            odd = here.answer(path, token)
            name = path.partition('/resolve/main/')[2] or path.partition('/resolve/v1/')[2]
            top = (path.partition('/tree/')[2] + '/').partition('/')[2].strip('/')
            entries = [{'type': 'directory', 'path': 'data', 'oid': '0' * 40}] + [
                {'type': 'file', 'path': name, 'size': len(data), 'oid': git_hash(data)}
                for name, data in FILES.items()
                if name.startswith(top)
            ]
            status, headers, body = odd or (
                200,
                {},
                FILES[name] if name else json.dumps(entries).encode(),
            )
            self.send_response(status)
            for header, value in {'Content-Length': len(body), **headers}.items():
                self.send_header(header, str(value))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    here = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    here.address, here.asked, here.answer = (
        f'http://127.0.0.1:{here.server_port}',
        [],
        lambda path, token: None,
    )
    for name, value in (('HF_ENDPOINT', here.address), ('NO_PROXY', '127.0.0.1'), ('HF_TOKEN', '')):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    threading.Thread(target=here.serve_forever, args=(0.05,), daemon=True).start()
    yield here
    here.shutdown()
    here.server_close()


def git_hash(data):
    return hashlib.sha1(b'blob %d\0' % len(data) + data).hexdigest()


def names(source):
    """What of a data set is asked for, in order."""
    return [
        path.split(' ', 2)[2].removeprefix('raw/o--n/')
        for path in hub.find_files(f'hf:{source}', 'raw')
    ]


def test_a_folder_a_glob_and_a_file_of_a_data_set_are_all_that_is_fetched(server):
    train = ['data/train-0.jsonl.gz', 'data/train-1.jsonl.gz']
    all_of_data = sorted(FILES)[1:4]
    for source, found in (
        ('o/n/data', all_of_data),
        ('o/n/data/train-*', train),
        ('o/n/*/train-1*', train[1:]),
        ('o/n/data/train-0.jsonl.gz', train[:1]),
        ('o/n', [*all_of_data, 'extra/a b.jsonl.gz']),
    ):
        assert names(source) == found, source
    [path] = hub.find_files('hf:o/n/extra', 'raw')
    assert (
        gzip.open(hub.fetched(path)).read() == b'{"text": "extra/a b.jsonl.gz"}\n'
    )  # checked by git's hash
    refused('no files of records at', names, 'o/n/nothing')
    refused('must look like hf:OWNER/NAME', names, 'alone')
    assert not any(token for _, token in server.asked)


def test_a_revision_is_asked_for_and_kept_apart(server):
    [path] = hub.find_files('hf:o/n@v1/extra', 'raw')
    assert '/resolve/v1/' in path and hub.fetched(path) == os.path.join(
        'raw', 'o--n@v1', 'extra', 'a b.jsonl.gz'
    )
    assert server.asked[0][0] == '/api/datasets/o/n/tree/v1/extra'


def test_a_closed_data_set_asks_for_a_token_which_goes_to_the_hub_alone(server, monkeypatch):
    other = server.address.replace('127.0.0.1', 'localhost')
    monkeypatch.setenv('NO_PROXY', '127.0.0.1,localhost')

    def answer(path, token):
        if path.startswith('/cdn'):
            return 200, {}, FILES['extra/a b.jsonl.gz']
        if token != 'Bearer hf_secret':
            return 401, {}, b''
        return (302, {'Location': f'{other}/cdn'}, b'') if 'resolve' in path else None

    server.answer = answer
    refused('export HF_TOKEN=', names, 'o/n/extra')
    monkeypatch.setenv('HF_TOKEN', 'hf_wrong')
    refused('HF_TOKEN that is set does not open it', names, 'o/n/extra')
    monkeypatch.setenv('HF_TOKEN', 'hf_secret')
    [path] = hub.find_files('hf:o/n/extra', 'raw')
    assert 'hf_secret' not in path and os.path.exists(hub.fetched(path))
    assert server.asked[-1] == ('/cdn', None)


ENTRY = {'path': 'a.jsonl', 'oid': '0' * 40}


@pytest.mark.parametrize(
    'body',
    [
        b'',
        b'no',
        b'{}',
        b'{"error": "x"}',
        b'[3]',
        b'[{"oid": 1}]',
        b'[{"path": 3}]',
        b'null',
        b'[[]]',
    ],
)
def test_a_list_of_another_shape_is_one_sentence(server, body):
    server.answer = lambda path, token: (200, {}, body)
    refused("sent no list of files|can't list", names, 'o/n')


def test_a_list_without_an_end_and_paths_that_leave_the_folder_are_refused(server, monkeypatch):
    monkeypatch.setattr(hub, 'MOST_PAGES', 5)
    server.answer = lambda path, token: (
        200,
        {'Link': f'<{server.address}{path}>; rel="next"'},
        b'[]',
    )
    refused('there is no end', names, 'o/n')
    odd = ['../a.jsonl', '/etc/a.jsonl', 'x/../../a.jsonl', 'c:\\a.jsonl', 'a.jsonl']
    server.answer = lambda path, token: (
        200,
        {},
        json.dumps([{**ENTRY, 'path': path} for path in odd]).encode(),
    )
    assert names('o/n') == ['a.jsonl']


def test_a_hub_that_is_busy_is_asked_again_when_it_says(server):
    busy = [429, 503]
    server.answer = lambda path, token: (busy.pop(), {'Retry-After': 1}, b'') if busy else None
    assert names('o/n/extra') == ['extra/a b.jsonl.gz'] and len(server.asked) == 3


# --- a part of what is there, and which column is the text ----------------------------------------
def shards_of_words(folder, column):
    """Six files of 50 texts of 60 words, in a column."""
    for i in range(6):
        rows = [{column: prose(100 * i + j), 'id': f'{i} {j}'} for j in range(50)]
        write_records(folder / f'{i}.jsonl', rows)
    return folder


def test_max_docs_and_max_files_take_the_first_documents_with_any_number_of_processes(tmp_path):
    folder = tmp_path / 'a'
    folder.mkdir()
    source = shards_of_words(folder, 'text')
    first = sorted(prose(100 * i + j) for i in range(6) for j in range(50) if 50 * i + j < 170)
    for n in (1, 2):
        out = tmp_path / f'o{n}'
        prepare(out, source, '--max_docs=170', f'--num_workers={n}')
        assert [text.strip() for text in kept(out)] == first
        stage = next(stage for stage in report(out)['stages'] if stage['name'] == 'max_docs')
        assert stage['docs_out'] == 170 and stage['dropped'] == {'enough': stage['docs_in'] - 170}
    for name in 'train.bin', 'val.bin', 'report.json':
        assert (tmp_path / 'o1' / name).read_bytes() == (tmp_path / 'o2' / name).read_bytes()
    prepare(tmp_path / 'few', source, '--max_files=2')
    assert len(kept(tmp_path / 'few')) == 100


def test_the_only_long_column_is_the_text_but_not_of_a_conversation(tmp_path):
    folder = tmp_path / 'a'
    folder.mkdir()
    said = prepare(tmp_path / 'out', shards_of_words(folder, 'body'))
    assert 'the text is in the column body: 300' in said and len(kept(tmp_path / 'out')) == 300
    url = 'https://a.org/' + 'a' * 250
    some = [{'url': url, 'body': prose(i, 60 if i % 2 == 0 else 25)} for i in range(40)]
    prepare(tmp_path / 'short', write_records(tmp_path / 'c.jsonl', some))
    assert sorted(text.strip() for text in kept(tmp_path / 'short')) == sorted(r['body'] for r in some)
    source = write_records(tmp_path / 'b.jsonl', [{'title': 't', 'output': 'long ' * 90}] * 9)
    mistake(run('prepare.py', f'--source={source}', f'--out_dir={tmp_path}/no'),
            'title, output', '--text_field=NAME')
