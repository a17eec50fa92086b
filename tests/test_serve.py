"""The server: OpenAI's API, whole and as a stream; what it refuses; hostile clients; sample.py --serve."""
import contextlib
import http.client
import json
import os
import re
import socket
import threading
import time

import pytest
import torch
from accidents import replaced
from conftest import ROOT, mistake, run, save_run, sharpen

from model import GPT, GPTConfig
from parts.eval import benchmarks, grading, problems, sandbox
from parts.sample import asking, http_server, openai_api
from parts.sample.decoding import Batch
from parts.sample.writer import Writer
from tokenizer import SPECIAL_TOKENS, Tokenizer

COMPLETE, CHAT = '/v1/completions', '/v1/chat/completions'
MESSAGES = [{'role': 'system', 'content': 'be brief'}, {'role': 'user', 'content': 'hi'}]
ITEMS = [benchmarks.to_item('problems', problem, None) for problem in problems.problems(4)]


# --- a model that can be held, a server in a thread, requests -----------------------------------------------
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
    return sharpen(Held(GPTConfig(tokenizer.vocab_size, 128, 2, 4, 2, 32))), tokenizer


def writer_of(model, tokenizer, slots, most):
    batch = Batch(model, tokenizer.stop, slots)
    return Writer(batch, tokenizer, asking.begin, fills=True, most=most)


@contextlib.contextmanager
def serving(models, slots=4, waiting=8, **limits):
    """A server for {name: (model, tokenizer)}, in threads of this process. limits: of http_server.Server."""
    writers = {name: writer_of(*pair, slots, waiting) for name, pair in models.items()}
    api = openai_api.Api(writers, asking, benchmarks, grading, ITEMS, sandbox.run_code)
    server = http_server.Server(0, api)
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


@pytest.fixture(scope='module')
def models():
    return {'out/a': small(), 'b': small(seed=1)}


@pytest.fixture
def server(models):
    with serving(models, body_bytes=5000, client_seconds=1.0) as server:
        yield server
        assert ask(server, COMPLETE, {'prompt': 'a', 'max_tokens': 2})[0] == 200        # whatever came before
        until(lambda: not server.api.writers['out/a'].batch.live)


def refused(answer, status, *words):
    """It is OpenAI's form of an error, with these words in its sentence."""
    assert answer[0] == status, answer
    error = answer[1]['error']
    assert error.keys() == {'message', 'type', 'param', 'code'} and len(error['message']) < 350
    for word in words:
        assert word in error['message'], error


# --- what it answers ----------------------------------------------------------------------------------------
@torch.no_grad()
def greedy(pair, prompt, n):
    """The model's own greedy ids, and their text. No healing: in this tokenizer each token is a byte."""
    model, tokenizer = pair
    ids = model.generate(torch.tensor([prompt]), n, 0, stop=tokenizer.stop)[0, len(prompt):].tolist()
    return ids, tokenizer.decode([id for id in ids if id not in tokenizer.stop])


def test_a_completion_is_the_models_own_text(server, models):
    assert [model['id'] for model in ask(server, '/v1/models')[1]['data']] == ['out/a', 'b']
    for name in ('out/a', 'b', None):
        model, tokenizer = models[name or 'out/a']
        prompt = tokenizer.begin + tokenizer.encode('def f(')
        ids, text = greedy((model, tokenizer), prompt, 9)
        fields = {'model': name, 'prompt': 'def f(', 'max_tokens': 9, 'temperature': 0, 'logprobs': 2}
        status, answer = ask(server, COMPLETE, fields)
        choice = answer['choices'][0]
        assert (status, answer['object'], choice['text']) == (200, 'text_completion', text)
        assert answer['usage']['prompt_tokens'] == 7 and answer['model'] == (name or 'out/a')

        tokens = choice['logprobs']['content']
        assert len(tokens) == answer['usage']['completion_tokens'] == 9
        best = model(torch.tensor([prompt + ids]))[0][0, -10:-1].log_softmax(-1).amax(-1).tolist()
        assert [token['logprob'] for token in tokens] == pytest.approx(best, abs=1e-4)
        assert [token['top_logprobs'][0]['logprob'] for token in tokens] == pytest.approx(best, abs=1e-4)


def test_a_chat_is_what_the_model_says_behind_the_template(server, models):
    tokenizer = models['out/a'][1]
    text = greedy(models['out/a'], tokenizer.render(MESSAGES, True)[0], 8)[1]
    newer = [MESSAGES[0] | {'role': 'developer'}, MESSAGES[1]]      # OpenAI's name of system today
    fields = {'messages': newer, 'temperature': 0, 'max_completion_tokens': 8, 'max_tokens': 3,
              'logprobs': True, 'top_logprobs': 3, 'frequency_penalty': 0, 'user': 'unknown: ignored'}
    status, answer = ask(server, CHAT, fields)
    choice, = answer['choices']
    assert (status, answer['object']) == (200, 'chat.completion')
    assert choice['message'] == {'role': 'assistant', 'content': text}
    tokens = choice['logprobs']['content']
    assert [len(token['top_logprobs']) for token in tokens] == [3] * 8
    assert b''.join(bytes(token['bytes']) for token in tokens).decode('utf-8', 'replace') == text


def test_a_stream_adds_up_to_the_whole_answer(server):
    for path, more in ((CHAT, {'messages': MESSAGES, 'logprobs': True}),
                       (COMPLETE, {'prompt': 'one', 'logprobs': 0})):
        for stop in ([], ['e', '\n']):
            fields = {'seed': 5, 'max_tokens': 40, 'stop': stop, **more}
            whole = ask(server, path, fields)[1]['choices'][0]
            status, text = ask(server, path, fields | {'stream': True})
            *lines, done, end = text.split('\n\n')
            assert (status, done, end) == (200, 'data: [DONE]', '')
            parts = [json.loads(line.removeprefix('data: '))['choices'][0] for line in lines]
            ends = [part['finish_reason'] for part in parts]
            assert ends == [None] * (len(parts) - 1) + [whole['finish_reason']] and len(ends) > 1
            if path == CHAT:
                assert ''.join(part['delta']['content'] for part in parts) == whole['message']['content']
                roles = [part['delta'].get('role') for part in parts]
                assert roles == ['assistant'] + [None] * (len(parts) - 1)
            else:
                assert ''.join(part['text'] for part in parts) == whole['text']
            tokens = [token for part in parts for token in part['logprobs']['content']]
            assert tokens == whole['logprobs']['content']


def test_a_gap_is_filled_by_a_model_that_learned_to(server, models, monkeypatch):
    prompt, n = asking.between(models['b'][1], 'begin', 'end', 128, 90)
    fields = {'model': 'b', 'prompt': 'begin', 'suffix': 'end', 'max_tokens': 90, 'temperature': 0}
    answer = ask(server, COMPLETE, fields)[1]
    assert answer['choices'][0]['text'] == greedy(models['b'], prompt.ids, n)[1] and n == 32
    monkeypatch.setattr(server.api.writers['b'], 'fills', False)
    assert ask(server, COMPLETE, fields)[0] == 400


def test_a_problem_is_asked_and_judged_as_by_eval_py(server, models):
    model, tokenizer = models['out/a']
    item = ITEMS[3]
    for path, chat, n in ((COMPLETE, False, 30), (CHAT, True, 4)):
        batch = Batch(model, tokenizer.stop, 1)
        ends = None if chat else benchmarks.ENDS['problems']
        prompts = [benchmarks.question(item, chat)]
        [[(text, _)]], _ = asking.generate(batch, tokenizer, prompts, 1, n, temperature=0, ends=ends)
        fields = {'task_id': item['task_id'], 'prompt': 'x', 'suffix': 'y', 'messages': MESSAGES}
        answer = ask(server, path, fields | {'temperature': 0, 'max_tokens': n})[1]
        choice = answer['choices'][0]
        assert (choice['message']['content'] if chat else choice['text']) == text and text
        job = grading.job(item, text, chat)
        expected = grading.outcome(item, text, job and sandbox.run_code(*job), chat)
        assert ask(server, '/run', {'id': answer['id']})[1]['outcome'] == expected['outcome']
    whole = f'So:\n```\n{item["reference"]}```'
    for text, chat, outcome in ((item['body'], False, 'passed'), (whole, True, 'passed'),
                                ('    return 10 ** 9', False, 'wrong'), ('    return (', False, 'syntax')):
        server.api.answers.append((text, item, text, chat))
        assert ask(server, '/run', {'id': text})[1]['outcome'] == outcome, text


def test_no_other_program_runs_and_none_where_it_is_not_allowed(server):
    server.api.answers.append(('mine', ITEMS[0], ITEMS[0]['body'], False))
    for id in 'x', ['mine'], None:
        refused(ask(server, '/run', {'id': id, 'text': 'pass'}), 404, '/problems')
    refused(ask(server, COMPLETE, {'task_id': 'train-0/99'}), 404, 'train-0/99', '/problems')
    refused(ask(server, '/run', {'id': 'mine'}, Origin='http://localhost:1'), 403, 'another site')
    server.api.run = None
    refused(ask(server, '/run', {'id': 'mine'}), 403, '--allow_code_execution=True')


def test_the_client_of_openai_reads_it(server):
    openai = pytest.importorskip('openai', reason='pip install openai: the client that this test is about')
    host, port = server.server_address
    client = openai.OpenAI(base_url=f'http://{host}:{port}/v1', api_key='none', max_retries=0)
    assert [model.id for model in client.models.list()] == ['out/a', 'b']
    fields = {'model': 'b', 'messages': MESSAGES, 'seed': 1, 'max_tokens': 20, 'logprobs': True}
    whole = client.chat.completions.create(**fields)
    chunks = list(client.chat.completions.create(**fields, stream=True))
    assert ''.join(c.choices[0].delta.content for c in chunks) == whole.choices[0].message.content
    assert len(whole.choices[0].logprobs.content) == whole.usage.completion_tokens
    with pytest.raises(openai.BadRequestError, match='temperature=7'):
        client.completions.create(model='b', prompt='x', temperature=7)
    with pytest.raises(openai.NotFoundError, match='no model'):
        client.completions.create(model='c', prompt='x')


def test_the_page_needs_nothing_from_elsewhere_and_shows_text_as_text(server):
    page = (ROOT / 'parts' / 'sample' / 'page.html').read_text(encoding='utf-8')
    assert set(re.findall(r"\$\('(\w+)'\)", page)) <= set(re.findall(r'\bid="(\w+)"', page))
    assert "default-src 'none'" in page and '://' not in page and '@import' not in page
    assert not re.search('innerHTML|outerHTML|insertAdjacentHTML|document.write|eval', page)
    assert ask(server, '/') == ask(server, '/?x=1') == (200, page)


# --- what it refuses ----------------------------------------------------------------------------------------
def test_a_wrong_value_is_named(server):
    wrong = {'temperature': (-1, 3, '1', [], True, 10 ** 400), 'top_p': (1.1,), 'top_k': (-1, 1.5),
             'max_tokens': (0, {}), 'seed': ('x', 2 ** 70), 'logprobs': (21,), 'stream': ('yes', 1),
             'stop': (5, [''], [['x']]), 'prompt': (5, ['a'], 'x' * 200), 'suffix': (4,), 'n': (2,),
             'echo': (True,), 'logit_bias': ({'5': 1},)}
    for name, values in wrong.items():
        for value in values:
            answer = ask(server, COMPLETE, {'prompt': 'a', name: value})
            refused(answer, 400)
            error = answer[1]['error']
            assert name in error['message'] and error['param'] == name, (name, value, error)
    for messages in (None, [], 'hi', [5], [{'role': 'user'}], [{'role': 'king', 'content': 'x'}],
                     [{'role': ['user'], 'content': 'x'}], [{'role': 'user', 'content': 'x' * 200}]):
        refused(ask(server, CHAT, {'messages': messages}), 400)


def test_each_refusal_has_its_status(server):
    for body, word in ((b'', 'JSON'), (b'[]', 'object'), (b'{"n": "\xff"}', 'UTF-8'), (b'[' * 4000, 'JSON'),
                       (b'{"temperature": NaN}', 'temperature=nan'), (b'{"top_p": 1e999}', 'top_p=inf'),
                       (b'{"seed": ' + b'9' * 4900 + b'}', 'JSON')):
        refused(ask(server, COMPLETE, body=body), 400, word)
    for status, how in ((413, {'body': b'x' * 5001}), (413, {'body': b'x' * 3_000_000}),
                        (404, {'path': '/v1/nothing'}), (404, {'path': '/%2e%2e/etc/passwd'}),
                        (404, {'path': '/'}), (404, {'method': 'GET'}), (404, {'body': b'{"model": "gpt"}'}),
                        (400, {'Content_Length': '-5'}),
                        (400, {'Transfer_Encoding': 'chunked', 'body': None, 'method': 'POST'})):
        how = {'path': COMPLETE, 'body': b'{"prompt": "a"}', **how}
        refused(ask(server, how.pop('path'), **how), status)


def test_neither_the_page_of_another_site_nor_a_foreign_name_of_this_machine_may_ask(server):
    for headers in ({'Host': 'evil.example:8000'}, {'Host': ''}, {'Host': 'localhost.evil.example'},
                    {'Origin': 'https://evil.example'}, {'Origin': 'null'}, {'Origin': 'http://localhost:1'}):
        refused(ask(server, COMPLETE, {'prompt': 'a'}, **headers), 403)
    preflight = b'OPTIONS /v1/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: http://x.example\r\n\r\n'
    head = raw(server, preflight)
    assert b' 501 ' in head and b'access-control' not in head.lower()
    assert server.server_address[0] == '127.0.0.1'          # no other machine can connect


def test_too_many_that_wait_and_too_long_a_wait_are_refused(models):
    for stream in (False, True):
        with serving({'m': models['b']}, slots=1, waiting=1, answer_seconds=0.4) as server:
            models['b'][0].gate.clear()
            results = []
            send = lambda: results.append(ask(server, COMPLETE, {'prompt': 'a', 'stream': stream}))
            threads = [threading.Thread(target=send) for _ in range(2)]
            for thread in threads:
                thread.start()
            until(lambda: len(server.api.writers['m'].reader_of) == 2)          # one is written, one waits
            refused(ask(server, COMPLETE, {'prompt': 'a'}), 429, 'wait')
            for thread in threads:
                thread.join(60)
            assert len(results) == 2
            for answer in results:
                refused(answer, 504, '0.4 s')


# --- hostile and hasty clients ------------------------------------------------------------------------------
def post(body, head=b''):
    return b'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%s\r\n%s' % (
        len(body), head, body)


GOOD = post(b'{"prompt": "a", "max_tokens": 90, "stream": true, "stop": []}')
HOSTILE = [b'\0' * 3000, b'GET / HTTP/9.9\r\n\r\n', b'GET ' + b'/' * 70000, b'\x16\x03\x01 TLS' * 20,
           GOOD[:-5],
           b'GET / HTTP/1.1\r\nHost: localhost\r\n' + b'A: b\r\n' * 5000 + b'\r\n', post(b'\xff\xfe{'),
           post(b'{}', b'Content-Length: 900000\r\n'), post(b'{"a":' * 900 + b'1' + b'}' * 900),
           post(b'{"stop": "\\ud800", "prompt": "\\ud800", "logprobs": 3}'), GOOD + GOOD]


def test_no_bytes_stop_the_server(server, capfd):
    for data in HOSTILE:
        with contextlib.suppress(OSError):
            raw(server, data)               # it gets an answer, or the server gives up after a second
    assert 'Traceback' not in capfd.readouterr().err


def test_a_client_that_stops_sending_does_not_keep_its_thread(models):
    with serving(models, client_seconds=0.3) as server:
        assert raw(server, GOOD[:-9]) == raw(server, GOOD[:30]) == b''


def test_a_client_that_goes_away_frees_its_row(server):
    batch = server.api.writers['out/a'].batch
    step = batch.step

    def slow_step():
        time.sleep(0.1)
        return step()

    batch.step = slow_step
    with socket.create_connection(server.server_address) as s:
        s.sendall(GOOD)
        until(lambda: batch.live)
        answer = batch.live[0]
    until(lambda: answer.finish)
    assert answer.finish == 'gone' and len(answer.ids) < 60         # of 90
    batch.step = step


# --- sample.py --serve --------------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def folder(models, tmp_path_factory):
    model, tokenizer = models['out/a']
    folder = tmp_path_factory.mktemp('model')
    save_run(folder, model, tokenizer)
    merged = Tokenizer.train(['def aaaa(aa):'] * 9, 330)
    save_run(folder / 'sft', model.like(vocab_size=330), merged, config={'stage': 'sft'})
    return folder


CLIENT = """
import http.client, json, os, signal

def ask(server, path, **fields):
    connection = http.client.HTTPConnection(*server.server_address, timeout=60)
    connection.request('POST' if fields else 'GET', path, json.dumps(fields) if fields else None)
    return connection.getresponse()

def client(server):
    models = json.load(ask(server, '/v1/models'))['data']
    answers = [json.load(ask(server, '/v1/completions', model=m['id'], prompt='aaaaaaaa')) for m in models]
    sizes = [answer['usage']['prompt_tokens'] for answer in answers]
    task_id = json.load(ask(server, '/problems'))['data'][9]['task_id']
    verdict = json.load(ask(server, '/run', **json.load(ask(server, '/v1/completions', task_id=task_id))))
    answer = ask(server, '/v1/completions', prompt='a', seed=3, max_tokens=120, stream=True)
    first = answer.readline().decode()
    os.kill(os.getpid(), signal.SIGTERM)
    with open('answers.json', 'w', encoding='utf-8') as f:
        json.dump([models, sizes, task_id, verdict, first + answer.read().decode()], f)
""" + replaced('listen', """
    real(*arguments)            # it listens: from now on it can be asked
    threading.Thread(target=client, args=arguments).start()""")


@pytest.mark.skipif(os.name == 'nt', reason='Windows has no SIGTERM to send')
def test_sigterm_finishes_what_runs_and_exits_with_0(folder, tmp_path):
    """The answer is long: the signal comes while it is being written, and it is whole all the same."""
    result = run('sample.py', f'--ckpt={folder},{folder}/sft', '--serve=0', '--device=cpu',
                 '--allow_code_execution=True', cwd=tmp_path, before=CLIENT)
    assert (result.returncode, result.stderr) == (0, ''), result.stderr
    assert 'Ctrl-C ends it' in result.stdout
    until(lambda: (tmp_path / 'answers.json').exists())
    models, sizes, task_id, verdict, text = json.loads((tmp_path / 'answers.json').read_text('utf-8'))
    assert text.startswith('data: {') and text.endswith('data: [DONE]\n\n') and '"finish_reason": "' in text
    assert [(m['id'], m['chat']) for m in models] == [(str(folder), False), (f'{folder}/sft', True)]
    assert sizes[0] == 9 > sizes[1]         # each reads with its own tokenizer
    assert task_id == 'variation-0/9' and verdict['outcome'] in ('syntax', 'empty', 'exception'), verdict


def test_the_script_says_one_sentence(folder):
    with socket.create_server(('127.0.0.1', 0)) as other:
        port = other.getsockname()[1]
        for flags, words in ((['--serve=70000'], ['serve=70000', '[0, 65535]']),
                             ([f'--serve={port}'], ['cannot listen', f'{port}', 'another port']),
                             (['--serve=0', f'--ckpt={folder},nowhere'], ['nowhere']),
                             ([f'--ckpt={folder},{folder}'], ['--serve=8000'])):
            result = run('sample.py', f'--ckpt={folder}', '--device=cpu', *flags)
            mistake(result, *words)
            assert result.stdout == ''      # no settings: the sentence stands alone
