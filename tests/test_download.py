"""Downloads: fetched once, continued after a break, checked, and never half a file under its name."""
import functools
import hashlib
import http.server
import os
import re
import threading

import pytest
from conftest import mistake, run

from parts.prepare import files

CONTENT = os.urandom(3_000_000)


@pytest.fixture
def server(monkeypatch):
    """Serves CONTENT with ranges. server.break_after: bytes after which the next answer breaks off."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            begin = int(re.search(r'bytes=(\d+)-', self.headers.get('Range', 'bytes=0-'))[1])
            here.asked.append(begin)
            if begin >= len(CONTENT):
                self.send_response(416)
                self.end_headers()
                return
            self.send_response(206 if begin else 200)
            self.send_header('Content-Length', str(len(CONTENT) - begin))
            self.end_headers()
            self.wfile.write(CONTENT[begin:here.break_after])
            here.break_after = None

        def log_message(self, *_):
            pass
    here = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    here.asked, here.break_after = [], None
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    threading.Thread(target=here.serve_forever, daemon=True).start()
    yield here
    here.shutdown()
    here.server_close()


@pytest.fixture
def download(server):
    return functools.partial(files.fetch, f'http://127.0.0.1:{server.server_port}/input.txt',
                             hashlib.sha256(CONTENT).hexdigest())


def test_a_file_is_downloaded_once(download, server, tmp_path):
    for _ in range(2):
        with open(download(tmp_path / 'raw/corpus.txt'), 'rb') as f:
            assert f.read() == CONTENT
    assert server.asked == [0] and [p.name for p in (tmp_path / 'raw').iterdir()] == ['corpus.txt']


def test_a_download_that_broke_off_is_continued(download, server, tmp_path):
    server.break_after = 2_500_000
    with open(download(tmp_path / 'raw/corpus.txt'), 'rb') as f:
        assert f.read() == CONTENT
    assert len(server.asked) == 2 and 0 < server.asked[1] <= 2_500_000


def test_a_complete_part_gets_its_name(download, server, tmp_path):
    (tmp_path / 'raw').mkdir()
    (tmp_path / 'raw/corpus.txt.part').write_bytes(CONTENT)
    with open(download(tmp_path / 'raw/corpus.txt'), 'rb') as f:
        assert f.read() == CONTENT


def test_a_wrong_checksum_is_refused_and_the_next_try_starts_afresh(download, server, tmp_path):
    (tmp_path / 'raw').mkdir()
    (tmp_path / 'raw/corpus.txt.part').write_bytes(b'of another file')
    with pytest.raises(OSError, match='checksum'):
        download(tmp_path / 'raw/corpus.txt')
    assert list((tmp_path / 'raw').iterdir()) == []
    with open(download(tmp_path / 'raw/corpus.txt'), 'rb') as f:
        assert f.read() == CONTENT


def test_offline_the_message_says_which_file_to_put_where(tmp_path):
    dead = dict.fromkeys(('HTTPS_PROXY', 'https_proxy'), 'http://127.0.0.1:9')          # nobody listens there
    mistake(run('prepare.py', '--source=shakespeare', f'--download_dir={tmp_path}/raw',
                f'--out_dir={tmp_path}/out', env={**dead, 'NO_PROXY': '', 'no_proxy': ''}),
            'https://', f'{tmp_path}/raw/shakespeare.txt')
