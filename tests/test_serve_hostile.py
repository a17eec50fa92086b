"""Hostile and hasty clients: none stops the server, none sees another's text, who goes away frees a row."""
import json
import random
import socket
import threading

import pytest
from serving import ask, raw, refused, serving, small, until

COMPLETE = '/v1/completions'


@pytest.fixture(scope='module')
def pair():
    return small()


@pytest.fixture
def server(pair):
    with serving({'m': pair}, client=1.0, slots=4, waiting=60) as server:
        yield server


def post(body, head=b''):
    return b'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%s\r\n%s' % (
        len(body), head, body)


GOOD = post(b'{"prompt": "a", "max_tokens": 90, "stream": true, "stop": []}')
HOSTILE = [b'\0' * 3000, b'GET\r\n\r\n', b'\r\n' * 500, b'GET / HTTP/9.9\r\n\r\n', b'GET ' + b'/' * 70000,
           b'GET / HTTP/1.1\r\nHost: localhost\r\n' + b'A: b\r\n' * 5000 + b'\r\n',
           b'GET / HTTP/1.1\r\nHost: localhost\r\nA: ' + b'b' * 200000 + b'\r\n\r\n',
           b'GET / HTTP/1.1\r\n' + b'Host: localhost\r\n' * 90 + b'\r\n', b'\x16\x03\x01 TLS' * 20,
           b'GET / HTTP/1.1\nno colon\n\n', b'POST /v1/completions HTTP/1.1\r\n\r\n', GOOD[:60], GOOD[:-5],
           post(b'{}', b'Content-Length: 900000\r\n'), post(b'{}', b'Host: evil.example\r\n'),
           post(b'{"a":' * 900 + b'1' + b'}' * 900), post(b'\xff\xfe{'), post(b'{"prompt": "\\ud800"}'),
           post(b'{"prompt": "\\u0000\\u202e"}'), post(b'{"stop": "\\ud800", "prompt": "a", "logprobs": 3}'),
           post(b'{}', b'Expect: 100-continue\r\n'), post(b'{}', b'Content-Type: text/\xff\r\n'), GOOD + GOOD]


@pytest.mark.parametrize('seed', range(3))
def test_no_bytes_stop_the_server(server, seed, capfd):
    expected = ask(server, COMPLETE, {'prompt': 'mine', 'seed': 1, 'max_tokens': 9})[1]['choices']
    dice = random.Random(seed)
    attacks = dice.sample(HOSTILE, len(HOSTILE)) if seed == 0 else [
        bytes(dice.choice([byte, byte, byte, dice.randrange(256)]) for byte in GOOD) for _ in range(30)]
    threads = [threading.Thread(target=attack, args=(server, data, dice.random() < 0.5)) for data in attacks]
    for thread in threads:
        thread.start()
    again = ask(server, COMPLETE, {'prompt': 'mine', 'seed': 1, 'max_tokens': 9})
    assert again[0] == 200 and again[1]['choices'] == expected
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    until(lambda: not server.api.writers['m'].batch.live)
    assert ask(server, COMPLETE, {'prompt': 'mine', 'seed': 1, 'max_tokens': 9})[1]['choices'] == expected
    assert 'Traceback' not in capfd.readouterr().err


def attack(server, data, early):
    """Send it; close at once, or read what comes."""
    try:
        back = raw(server, data, answers=not early)
        assert early or not back or back.startswith((b'HTTP/1.', b'{"error"'))
    except OSError:
        pass


def test_a_header_flood_gets_a_status(server):
    assert b' 431 ' in raw(server, HOSTILE[5])[:20] and b' 431 ' in raw(server, HOSTILE[6])[:20]
    assert b' 414 ' in raw(server, HOSTILE[4] + b' HTTP/1.1\r\n\r\n')[:20]


@pytest.mark.parametrize('stream', [False, True])
def test_a_client_that_goes_away_frees_its_row(server, pair, stream):
    batch = server.api.writers['m'].batch
    fields = {'prompt': 'a', 'max_tokens': 10 ** 6, 'stream': stream, 'n': 4, 'temperature': 0}
    pair[0].gate.clear()
    with socket.create_connection(server.server_address) as s:
        s.sendall(post(json.dumps(fields).encode()))
        until(lambda: len(batch.live) == 4)
        answers = list(batch.live)
    until(lambda: all(answer.finish == 'gone' for answer in answers))
    pair[0].gate.set()
    until(lambda: not batch.live)
    assert all(len(answer.ids) < answer.limit - 10 for answer in answers)


def test_fifty_clients_at_once_each_get_their_own_text(server):
    fields = [{'prompt': f'client {i}: ', 'seed': i, 'max_tokens': 5 + i % 9, 'stream': i % 2 == 0}
              for i in range(50)]
    alone = [text_of(ask(server, COMPLETE, f)) for f in fields]
    found = [None] * 50
    start = threading.Barrier(50)

    def client(i):
        start.wait(60)
        found[i] = text_of(ask(server, COMPLETE, fields[i]))
    threads = [threading.Thread(target=client, args=(i,)) for i in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == alone and len(set(alone)) > 45


def text_of(answer):
    assert answer[0] == 200, answer
    if isinstance(answer[1], dict):
        return answer[1]['choices'][0]['text']
    events = [json.loads(line[6:]) for line in answer[1].split('\n\n')[:-2]]
    return ''.join(event['choices'][0]['text'] for event in events)


def test_too_many_messages_are_refused_before_they_are_encoded(server, monkeypatch):
    monkeypatch.setattr(server.api.asking, 'encode', None)
    many = [{'role': 'user', 'content': 'a' * 90}] * 5000
    refused(400, ask(server, '/v1/chat/completions', {'messages': many}), '5000 messages', 'context of 128')
