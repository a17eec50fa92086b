"""What the tests of the server share: a model that can be held, a server in this process, raw requests."""
import contextlib
import http.client
import json
import socket
import threading
import time
import types

import torch

from model import GPT, GPTConfig
from parts.sample import asking, http_server, openai_api
from parts.sample.decoding import Batch
from parts.sample.writer import Writer
from tokenizer import SPECIAL_TOKENS, Tokenizer


class Held(GPT):
    """A GPT that writes only while `gate` is open. Steps: how many forward passes it made."""

    def __init__(self, config):
        super().__init__(config)
        self.gate = threading.Event()
        self.gate.set()
        self.passes = 0

    def backbone(self, *arguments, **more):
        assert self.gate.wait(60)
        self.passes += 1
        return super().backbone(*arguments, **more)


def small(block_size=128, seed=0):
    """A model with sharp probabilities, and its tokenizer of bytes."""
    tokenizer = Tokenizer.byte(SPECIAL_TOKENS)
    torch.manual_seed(seed)
    model = Held(GPTConfig(tokenizer.vocab_size, block_size, 2, 4, 2, 32))
    for p in model.parameters():
        p.data *= 6 if p.dim() == 2 else 1
    return model, tokenizer


def writer_of(pair, slots, most):
    return Writer(Batch(pair[0], pair[1].stop, slots, pair[1].vocab_size), pair[1], asking.begin, most)


@contextlib.contextmanager
def serving(models, key='', slots=4, waiting=8, between=None, **limits):
    """A server for {name: (model, tokenizer)}, in threads of this process."""
    writers = {name: writer_of(pair, slots, waiting) for name, pair in models.items()}
    parts = types.SimpleNamespace(encode=asking.encode, begin=asking.begin, between=between)
    api = openai_api.Api(writers, parts)
    server = http_server.Server(('127.0.0.1', 0), api, key, http_server.Limits(**limits))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        for model, _ in models.values():
            model.gate.set()
        server.shutdown()
        server.server_close()
        thread.join(30)


def ask(server, path, fields=None, body=None, method=None, **headers):
    """(status, JSON) of one request over a connection of its own. fields: the JSON to send; or body."""
    body = json.dumps(fields) if fields is not None else body
    headers = {name.replace('_', '-'): text for name, text in headers.items()}
    connection = http.client.HTTPConnection(*server.server_address, timeout=60)
    with contextlib.closing(connection):
        method = method or ('GET' if body is None else 'POST')
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
    is_json = answer.headers['Content-Type'] == 'application/json'
    return answer.status, json.loads(data) if is_json and data else data.decode()


def refused(status, answer, *words):
    """It is OpenAI's form of an error, with these words in its sentence."""
    assert answer[0] == status, answer
    error = answer[1]['error']
    assert error.keys() == {'message', 'type', 'param', 'code'} and 'Traceback' not in error['message']
    for word in words:
        assert word in error['message'], error


def raw(server, data, answers=True):
    """The bytes that come back for these bytes."""
    with socket.create_connection(server.server_address, timeout=60) as s:
        s.sendall(data)
        back = b''
        while answers and (new := s.recv(65536)):
            back += new
    return back


def until(condition, seconds=60):
    """Wait until condition() holds. The bound is only for a test that fails."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
