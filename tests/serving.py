"""What test_serve.py and test_writer.py share: a model that can be held, a server in a thread, requests."""
import contextlib
import http.client
import json
import socket
import threading
import time

import torch

from model import GPT, GPTConfig
from parts.sample import asking, http_server, openai_api
from parts.sample.decoding import Batch
from parts.sample.writer import Writer
from tokenizer import SPECIAL_TOKENS, Tokenizer


class Held(GPT):
    """A GPT that writes only while `gate` is open."""

    def __init__(self, config):
        super().__init__(config)
        self.gate = threading.Event()
        self.gate.set()

    def backbone(self, *arguments, **more):
        assert self.gate.wait(60)
        return super().backbone(*arguments, **more)


def small(seed=0):
    """A model with sharp probabilities, and its tokenizer of bytes."""
    tokenizer = Tokenizer.byte(SPECIAL_TOKENS)
    torch.manual_seed(seed)
    model = Held(GPTConfig(tokenizer.vocab_size, 128, 2, 4, 2, 32))
    for p in model.parameters():
        p.data *= 6 if p.dim() == 2 else 1
    return model, tokenizer


def writer_of(model, tokenizer, slots, most):
    return Writer(Batch(model, tokenizer.stop, slots, tokenizer.vocab_size), tokenizer, asking.begin, most)


@contextlib.contextmanager
def serving(models, slots=4, waiting=8, **limits):
    """A server for {name: (model, tokenizer)}, in threads of this process. limits: of http_server.Server."""
    writers = {name: writer_of(*pair, slots, waiting) for name, pair in models.items()}
    server = http_server.Server(0, openai_api.Api(writers, asking))
    vars(server).update(limits)
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
    """(status, JSON or text) of one request over its own connection. fields: the JSON to send; or body."""
    body = json.dumps(fields) if fields is not None else body
    headers = {name.replace('_', '-'): text for name, text in headers.items()}
    connection = http.client.HTTPConnection(*server.server_address, timeout=60)
    with contextlib.closing(connection):
        connection.request(method or ('GET' if body is None else 'POST'), path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
    is_json = answer.headers['Content-Type'] == 'application/json'
    return answer.status, json.loads(data) if is_json else data.decode()


def raw(server, data):
    """The bytes that come back for these bytes."""
    with socket.create_connection(server.server_address, timeout=60) as s:
        s.sendall(data)
        return b''.join(iter(lambda: s.recv(65536), b''))


def until(condition):
    """Wait until condition() holds. The bound is only for a test that fails."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
