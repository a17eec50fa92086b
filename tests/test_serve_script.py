"""sample.py --serve as its user runs it: SIGTERM finishes what runs, a mistake is one sentence."""
import json
import os
import socket

import pytest
from conftest import mistake, run
from serving import small

from model import save_checkpoint


@pytest.fixture(scope='module')
def pair():
    return small()


@pytest.fixture(scope='module')
def folder(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp('model')
    pair[1].save(folder / 'tokenizer.json')
    save_checkpoint(folder / 'best.pt', pair[0], tokenizer_hash=pair[1].hash, config={'objective': 'clm'})
    save_checkpoint(folder / 'mlm.pt', pair[0], tokenizer_hash=pair[1].hash, config={'objective': 'mlm'})
    return folder


CLIENT = """
import http.client, json, os, signal, threading
import parts.sample.http_server

def client(server):
    first = http.client.HTTPConnection(*server.server_address, timeout=60)
    first.request('GET', '/v1/models')
    found = {'models': json.loads(first.getresponse().read())['data']}
    running = http.client.HTTPConnection(*server.server_address, timeout=60)
    fields = {'prompt': 'a', 'seed': 3, 'max_tokens': 120, 'stream': True, 'n': 16}
    running.request('POST', '/v1/completions', json.dumps(fields))
    answer = running.getresponse()
    found['first'] = answer.readline().decode()
    os.kill(os.getpid(), signal.SIGTERM)
    found['rest'] = answer.read().decode()
    with open('found.json', 'w', encoding='utf-8') as f:
        json.dump(found, f)

activate, serve = parts.sample.http_server.Server.server_activate, parts.sample.http_server.run
threads = []
def server_activate(server):            # it listens: from now on it can be asked
    activate(server)
    threads.append(threading.Thread(target=client, args=(server,)))
    threads[0].start()
def until_the_client_has_written(*arguments):
    serve(*arguments)
    threads[0].join(60)
parts.sample.http_server.Server.server_activate = server_activate
parts.sample.http_server.run = until_the_client_has_written
"""


@pytest.mark.skipif(os.name == 'nt', reason='Windows has no SIGTERM to send')
def test_sigterm_finishes_what_runs_and_exits_with_0(folder, tmp_path):
    """The answer is long: the signal comes while it is being written, and it is whole all the same."""
    result = run('sample.py', f'--ckpt={folder}', '--serve=0', '--device=cpu', cwd=tmp_path, before=CLIENT)
    found = json.loads((tmp_path / 'found.json').read_text(encoding='utf-8'))
    assert [model['id'] for model in found['models']] == [str(folder)]
    assert found['first'].startswith('data: {') and found['rest'].endswith('data: [DONE]\n\n')
    ends = found['rest'].count('"finish_reason": "length"') + found['rest'].count('"finish_reason": "stop"')
    assert ends == 16 and (result.returncode, result.stderr) == (0, ''), result.stderr
    assert 'Ctrl-C ends it' in result.stdout


@pytest.mark.parametrize('flags, words', [
    (['--serve=70000'], ['serve=70000', '[0, 65535]']),
    (['--serve=0', '--host=0.0.0.0'], ['host=0.0.0.0', 'NANOPARROT_API_KEY']),
    (['--serve=0', '--ckpt={}/mlm.pt'], ['fills gaps; --serve']),
    (['--serve=0', '--compare=nowhere'], ['nowhere']),
    (['--serve=0', '--compare={}/mlm.pt'], ['fills gaps']),
    (['--serve={port}'], ['cannot listen', '{port}', '--serve=8001'])])
def test_the_script_says_one_sentence(folder, flags, words):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        check(folder, taken.getsockname()[1], flags, words)


def check(folder, port, flags, words):
    flags = [flag.replace('{port}', str(port)).replace('{}', str(folder)) for flag in flags]
    words = [word.replace('{port}', str(port)) for word in words]
    result = run('sample.py', f'--ckpt={folder}', '--device=cpu', *flags)
    mistake(result, *words)
    assert result.stdout == ''      # no settings: the sentence stands alone
