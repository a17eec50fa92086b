"""What the server refuses: each with its status and a sentence in OpenAI's form, and it answers the next."""
import socket
import threading

import pytest
from serving import ask, raw, refused, serving, small, until

from parts.sample import http_server

COMPLETE, CHAT = '/v1/completions', '/v1/chat/completions'
KEY = 'k' * 16


@pytest.fixture(scope='module')
def pair():
    return small()


@pytest.fixture(scope='module')
def server(pair):
    with serving({'m': pair}, body=5000) as server:
        yield server


@pytest.fixture(autouse=True)
def answers_the_next(server):
    yield
    assert ask(server, COMPLETE, {'prompt': 'a', 'max_tokens': 2})[0] == 200
    until(lambda: not server.api.writers['m'].batch.live)


MISTAKES = [('temperature', value) for value in (-1, 3, '1', [], True, 10 ** 400)] + [
    ('top_p', -0.1), ('top_p', 1.1), ('top_k', -1), ('top_k', 1.5), ('n', 0), ('n', 5), ('n', -1), ('n', 1.0),
    ('n', True), ('n', '2'), ('n', 10 ** 30), ('max_tokens', 0), ('max_tokens', -5), ('max_tokens', {}),
    ('seed', 'x'), ('seed', 2 ** 70), ('logprobs', 21), ('logprobs', -1), ('stream', 'yes'), ('stream', 1),
    ('stop', 5), ('stop', ['']), ('stop', ['x' * 300]), ('stop', ['x'] * 17), ('stop', [['x']]),
    ('prompt', 5), ('prompt', [1, 2]), ('prompt', {'a': 1}), ('prompt', ['a'] * 5), ('prompt', 'x' * 200),
    ('suffix', 4), ('echo', True), ('best_of', 3), ('logit_bias', {'5': 1}),
    ('presence_penalty', 0.5)]


@pytest.mark.parametrize('name, value', MISTAKES)
def test_a_wrong_value_is_named(server, name, value):
    answer = ask(server, COMPLETE, {'prompt': 'a', name: value})
    refused(400, answer)
    assert name in answer[1]['error']['message'] + str(answer[1]['error']['param'])
    assert len(answer[1]['error']['message']) < 200


@pytest.mark.parametrize('messages', [None, [], {}, 'hi', [5], [{'role': 'user'}], [{'content': 'x'}],
    [{'role': 'king', 'content': 'x'}], [{'role': 'user', 'content': [{'type': 'image_url'}]}],
    [{'role': 'user', 'content': 'x' * 200}], [{'role': ['user'], 'content': 'x'}]])
def test_messages_that_are_none(server, messages):
    refused(400, ask(server, CHAT, {'messages': messages}))


@pytest.mark.parametrize('body, words', [
    (b'', 'JSON'), (b'{', 'JSON'), (b'[]', 'object'), (b'null', 'object'), (b'{"prompt": "\xff"}', 'UTF-8'),
    ('{"prompt": "a"}'.encode('utf-16'), 'UTF-8'), (b'[' * 4000, 'JSON'), (b'{"n": 1e999}', 'n='),
    (b'{"n": NaN}', 'n='), (b'{"temperature": NaN}', 'temperature='), (b'{"top_p": Infinity}', 'top_p='),
    (b'{"n": ' + b'9' * 4900 + b'}', ''), (b'{"temperature": -Infinity}', 'temperature=')])
def test_a_body_that_is_no_request(server, body, words):
    refused(400, ask(server, COMPLETE, body=body), words)


@pytest.mark.parametrize('status, how', [
    (413, {'body': b'x' * 5001}), (413, {'body': b'x' * 3_000_000}), (404, {'path': '/v1/nothing'}),
    (404, {'path': '/%2e%2e/etc/passwd'}), (404, {'method': 'GET'}), (404, {'path': '/'}),
    *((501, {'method': method}) for method in ('PUT', 'DELETE', 'OPTIONS', 'BREW')),
    (400, {'body': b'\x1f\x8b\x08', 'Content_Encoding': 'gzip'}),
    (400, {'Transfer_Encoding': 'chunked', 'body': None, 'method': 'POST'}),
    (403, {'Host': 'evil.example:8000'}), (403, {'Host': ''}), (403, {'Origin': 'https://evil.example'}),
    (403, {'Origin': 'null'}), (404, {'body': b'{"model": "gpt"}'}), (404, {'body': b'{"model": ["m"]}'}),
    (400, {'Content_Length': '-5'}), (400, {'Content_Length': '1_0'}), (400, {'Content_Length': 'x'})])
def test_each_refusal_has_its_status(server, status, how):
    how = {'path': COMPLETE, 'body': b'{"prompt": "a"}', **how}
    refused(status, ask(server, how.pop('path'), **how))


def test_a_foreign_page_gets_no_permission(server):
    head = raw(server, b'OPTIONS /v1/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: http://x.example\r\n\r\n')
    assert b' 501 ' in head and b'access-control' not in head.lower()


def test_a_key_is_asked_of_all_but_the_page(pair):
    with serving({'m': pair}, key=KEY) as server:
        for wrong in ('', f'Bearer {KEY}x', 'Bearer', KEY, f'bearer {KEY}', 'Bearer \xe9'):
            refused(401, ask(server, '/v1/models', Authorization=wrong), 'key')
            refused(401, ask(server, COMPLETE, {'prompt': 'a'}, Authorization=wrong), 'key')
        assert ask(server, '/')[0] == ask(server, '/?x=1')[0] == 200
        for host in ('localhost', 'parrot.example'):        # the second: TLS in front of us passes it on
            origin = {'Host': host, 'Origin': f'https://{host}'}
            assert ask(server, COMPLETE, {'prompt': 'a'}, Authorization=f'Bearer {KEY}', **origin)[0] == 200
            refused(401, ask(server, COMPLETE, {'prompt': 'a'}, **origin), 'key')


@pytest.mark.parametrize('key', ['', 'short', 'with a space in it!', 'ü' * 20])
def test_without_a_good_key_it_does_not_listen_to_others(key):
    with pytest.raises(ValueError, match='key'):
        http_server.Server(('0.0.0.0', 0), None, key)


def test_too_many_that_wait(pair):
    with serving({'m': pair}, slots=1, waiting=0) as server:
        pair[0].gate.clear()
        running = threading.Thread(target=ask, args=(server, COMPLETE, {'prompt': 'a'}))
        running.start()
        until(lambda: server.api.writers['m'].batch.live)
        refused(429, ask(server, COMPLETE, {'prompt': 'a'}), 'wait')
        pair[0].gate.set()
        running.join(60)


@pytest.mark.parametrize('stream', [False, True])
def test_too_long_an_answer_or_wait(pair, stream):
    with serving({'m': pair}, slots=1, waiting=1, answer=0.3) as server:
        pair[0].gate.clear()
        found = []
        fields = {'prompt': 'a', 'stream': stream}
        client = lambda: found.append(ask(server, COMPLETE, fields))
        both = [threading.Thread(target=client) for _ in range(2)]
        for thread in both:             # one is being written, one waits
            thread.start()
        for thread in both:
            thread.join(60)
        for answer in found:
            refused(504, answer, '0.3 s')
        assert len(found) == 2


@pytest.mark.parametrize('sent, status', [
    (b'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{"prompt"', 408),
    (b'POST /v1/completions HTTP/1.1\r\nHost: local', None), (b'', None)])
def test_a_client_that_stops_sending_does_not_keep_its_thread(pair, sent, status):
    with serving({'m': pair}, client=0.4) as server, socket.create_connection(server.server_address) as s:
        s.sendall(sent)
        s.settimeout(60)
        back = b''
        while new := s.recv(4096):
            back += new
        assert back == b'' if status is None else f' {status} '.encode() in back, back
