"""The server: OpenAI's API, whole and as a stream; what it refuses; hostile clients; sample.py --serve."""
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest
import torch
from accidents import before, replaced
from conftest import ROOT, lift, mistake, run, save_run, sharpen

from model import GPT, GPTConfig
from extras import api_fields, server as serve
from tokenizer import SPECIAL_TOKENS, Tokenizer

COMPLETE, CHAT = '/v1/completions', '/v1/chat/completions'
MESSAGES = [{'role': 'system', 'content': 'be brief'}, {'role': 'user', 'content': 'hi'}]
CONTEXT = 128
encode, write = lift('sample.py', 'encode', 'write')


# --- a model that can be slow, a server in a thread, requests -----------------------------------------------
class Slow(GPT):
    """A GPT that takes `pause` seconds for each of its `steps`. most: steps at the same time."""
    pause, steps, inside, most = 0, 0, 0, 0

    def backbone(self, *arguments, **more):
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(self.pause)
        self.inside -= 1
        self.steps += 1
        return super().backbone(*arguments, **more)


@contextlib.contextmanager
def serving(models, items=()):
    """A server for {name: (model, tokenizer)}, in threads of this process."""
    server = serve.Server(0, {name: (*pair, {}) for name, pair in models.items()}, encode, write, items)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
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


@pytest.fixture(scope='module')
def models():
    """Two models with sharp probabilities, and their tokenizer of bytes."""
    tokenizer = Tokenizer.byte(SPECIAL_TOKENS)
    pairs = {}
    for name in 'out/a', 'b':
        torch.manual_seed(len(pairs))
        pairs[name] = sharpen(Slow(GPTConfig(tokenizer.vocab_size, CONTEXT, 2, 4, 2, 32))), tokenizer
    return pairs


@pytest.fixture
def server(models, monkeypatch):
    monkeypatch.setattr(api_fields, 'MOST_BYTES', 5000)
    monkeypatch.setattr(serve.Handler, 'timeout', 1.0)
    with serving(models) as server:
        yield server
        assert ask(server, COMPLETE, {'prompt': 'a', 'max_tokens': 2})[0] == 200        # whatever came before


def refused(answer, status, *words):
    """It is OpenAI's form of an error, with these words in its sentence."""
    assert answer[0] == status, answer
    error = answer[1]['error']
    assert error['type'] == 'invalid_request_error' and len(error['message']) < 350
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
    for name in ('b', None):
        model, tokenizer = models[name or 'out/a']
        prompt = tokenizer.begin + tokenizer.encode('def f(')
        ids, text = greedy((model, tokenizer), prompt, 9)
        fields = {'model': name, 'prompt': 'def f(', 'max_tokens': 9, 'temperature': 0, 'logprobs': 2}
        status, answer = ask(server, COMPLETE, fields)
        assert (status, answer['object'], answer['choices'][0]['text']) == (200, 'text_completion', text)
    logits = model(torch.tensor([prompt + ids]))[0][0, -10:-1]
    logits[:, tokenizer.never_in_answers(model.config.vocab_size)] = -torch.inf
    best = logits.log_softmax(-1).amax(-1).tolist()
    _, *tokens = answer['choices'][0]['logprobs']['content']        # the first is the prompt's last again
    for found in tokens, [token['top_logprobs'][0] for token in tokens]:
        assert [token['logprob'] for token in found] == pytest.approx(best, abs=1e-4)
    assert all(len(token['top_logprobs']) == 4 for token in tokens)
    near_the_end = {'prompt': 'x' * (CONTEXT - 3), 'max_tokens': 9, 'temperature': 0, 'logprobs': 0}
    choice = ask(server, COMPLETE, near_the_end)[1]['choices'][0]
    n_asked = len(tokenizer.begin) + CONTEXT - 4                    # the prompt's last token is written again
    assert n_asked + len(choice['logprobs']['content']) == CONTEXT + 1
    assert choice['finish_reason'] == 'length'


def test_a_chat_is_what_the_model_says_behind_the_template(server, models):
    text = greedy(models['out/a'], models['out/a'][1].render(MESSAGES, True)[0], 8)[1]
    fields = {'messages': MESSAGES, 'temperature': 0, 'max_completion_tokens': 8, 'max_tokens': 3,
              'n': 1, 'user': 'unknown: ignored'}
    status, answer = ask(server, CHAT, fields)
    assert (status, answer['object']) == (200, 'chat.completion')
    message = {'role': 'assistant', 'content': text}
    assert answer['choices'] == [{'index': 0, 'finish_reason': 'length', 'message': message}]


def test_a_stream_adds_up_to_the_whole_answer(server):
    for path, more, text_of in (
            (CHAT, {'messages': MESSAGES, 'logprobs': True}, lambda choice, kind: choice[kind]['content']),
            (COMPLETE, {'prompt': 'one', 'logprobs': 0}, lambda choice, kind: choice['text'])):
        for stop in ([], ['e', '\n']):
            fields = {'seed': 5, 'max_tokens': 40, 'stop': stop, **more}
            whole = ask(server, path, fields)[1]['choices'][0]
            status, text = ask(server, path, fields | {'stream': True})
            *lines, done, end = text.split('\n\n')
            assert (status, done, end) == (200, 'data: [DONE]', '')
            parts = [json.loads(line.removeprefix('data: '))['choices'][0] for line in lines]
            ends = [part['finish_reason'] for part in parts]
            assert ends == [None] * (len(parts) - 1) + [whole['finish_reason']] and len(ends) > 1
            assert ''.join(text_of(part, 'delta') for part in parts) == text_of(whole, 'message')
            tokens = [token for part in parts for token in part['logprobs']['content']]
            assert tokens == whole['logprobs']['content']
            if path == CHAT:
                assert [part['delta'].get('role') for part in parts[:2]] == ['assistant', None]


def test_the_client_of_openai_reads_it(server):
    openai = pytest.importorskip('openai', reason='pip install openai: the client that this test is about')
    host, port = server.server_address
    client = openai.OpenAI(base_url=f'http://{host}:{port}/v1', api_key='none', max_retries=0)
    assert [model.id for model in client.models.list()] == ['out/a', 'b']
    fields = {'model': 'b', 'messages': MESSAGES, 'seed': 1, 'max_tokens': 20}
    whole = client.chat.completions.create(**fields)
    chunks = list(client.chat.completions.create(**fields, stream=True))
    assert ''.join(c.choices[0].delta.content for c in chunks) == whole.choices[0].message.content
    with pytest.raises(openai.BadRequestError, match='temperature=7'):
        client.completions.create(model='b', prompt='x', temperature=7)
    with pytest.raises(openai.BadRequestError, match='response_format'):
        client.chat.completions.parse(**fields, response_format={'type': 'json_object'})

    options = {'stream': True, 'stream_options': {'include_usage': True}}
    for create, asked in ((client.chat.completions.create, fields),
                          (client.completions.create, {'model': 'b', 'prompt': 'one', 'seed': 1})):
        whole = create(**asked)
        *chunks, last = create(**asked, **options)
        assert last.usage == whole.usage and last.choices == []
        assert all(chunk.usage is None and len(chunk.choices) == 1 for chunk in chunks)
        assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


def test_usage_counts_the_tokens_of_the_prompt_and_of_the_answer(server, models):
    """Each is a byte here. A prompt's last token that the model writes again counts once."""
    tokenizer = models['out/a'][1]
    for path, asked, ids in ((COMPLETE, {'prompt': 'é is'}, tokenizer.begin + tokenizer.encode('é is')),
                             (CHAT, {'messages': MESSAGES}, tokenizer.render(MESSAGES, True)[0])):
        for seed in range(6):
            asked |= {'max_tokens': 9, 'seed': seed, 'temperature': 2}
            answer = ask(server, path, asked | {'logprobs': True})[1]
            choice, usage = answer['choices'][0], answer['usage']
            n = len(choice['logprobs']['content']) - (path == COMPLETE)
            assert (n == 9) == (choice['finish_reason'] == 'length')
            assert usage == {'prompt_tokens': len(ids), 'completion_tokens': n, 'total_tokens': len(ids) + n}
            for options in None, {}, {'include_usage': False}:
                pieces = ask(server, path, asked | {'stream': True, 'stream_options': options})[1]
                assert 'usage' not in pieces


def test_messages_are_read_in_every_form_that_has_the_same_meaning(server):
    """The role developer is system; a content may come in parts. What else a part may be is refused."""
    answer = lambda *messages: ask(server, CHAT, {'messages': messages, 'seed': 1, 'max_tokens': 9})
    part = lambda text: {'type': 'text', 'text': text}
    expected = answer(*MESSAGES)[1]['choices']
    for system, user in (
            ({'role': 'developer', 'content': 'be brief'}, {'role': 'user', 'content': [part('hi')]}),
            ({'role': 'developer', 'content': [part('be '), part('brief')], 'tool_calls': []},
             {'role': 'user', 'content': [part('h'), part(''), part('i')], 'name': 'Ann'})):
        assert answer(system, user)[1].get('choices') == expected
    call = {'id': '1', 'type': 'function', 'function': {'name': 'f', 'arguments': '{}'}}
    image = {'type': 'image_url', 'image_url': {'url': 'x'}}
    for parts, words in (([part('hi'), image], 'image_url'), ([{'type': 'input_audio'}], 'input_audio'),
                         (['text'], '"text"'), ([part(5)], '"text"')):
        refused(answer(*MESSAGES, {'role': 'user', 'content': parts}), 400, 'messages[2]', words)
    for said in ({'content': None, 'tool_calls': [call]}, {'content': 'I look.', 'tool_calls': [call]},
                 {'content': None, 'function_call': call['function']}):
        refused(answer(*MESSAGES, {'role': 'assistant', **said}), 400, 'messages[2]', 'calls a tool')


SCHEMA = {'type': 'json_schema', 'json_schema': {'name': 'x', 'schema': {}}}
TOOL = {'type': 'function', 'function': {'name': 'f'}}
UNMET = {           # values that ask for more than this server can do; values that ask for nothing
    'response_format': ([{'type': 'json_object'}, SCHEMA, 'json'], [{'type': 'text'}]),
    'tool_choice': (['required', TOOL], ['none', 'auto']), 'tools': ([[TOOL]], [[]]),
    'functions': ([[TOOL['function']]], [[]]), 'function_call': ([{'name': 'f'}], ['none', 'auto']),
    'modalities': ([['text', 'audio']], [['text']]), 'audio': ([{'voice': 'x', 'format': 'wav'}], []),
    'suffix': (['x'], ['']), 'echo': ([True], [False]), 'best_of': ([2], [1]), 'n': ([2], [1]),
    'logit_bias': ([{'5': 1}], [{}]), 'presence_penalty': ([0.5, -1], [0, 0.0]),
    'frequency_penalty': ([2], [0]), 'web_search_options': ([{}], []), 'moderation': ([{'model': 'x'}], []),
    'reasoning_effort': (['high'], ['none']), 'verbosity': (['low'], ['medium'])}
HARMLESS = {'user', 'metadata', 'store', 'service_tier', 'safety_identifier', 'parallel_tool_calls',
            'prediction', 'prompt_cache_key', 'prompt_cache_options', 'prompt_cache_retention'}


def test_a_field_that_would_change_the_answer_is_refused_unless_its_value_changes_nothing(server):
    for path, asked in (COMPLETE, {'prompt': 'a'}), (CHAT, {'messages': MESSAGES}):
        asked |= {'seed': 1, 'max_tokens': 5}
        expected = ask(server, path, asked)[1]['choices']
        harmless = {name: 'x' for name in HARMLESS}
        for name, (unmet, empty) in UNMET.items():
            for value in unmet:
                refused(ask(server, path, asked | {name: value}), 400, name)
            for value in [None, *empty]:
                status, answer = ask(server, path, asked | harmless | {name: value})
                assert (status, answer.get('choices')) == (200, expected), (name, value)


def test_each_field_of_openais_client_is_read_refused_or_changes_nothing():
    pytest.importorskip('openai', reason='pip install openai: the client that this test is about')
    from openai.types import chat, completion_create_params as text
    known = {name for params in (chat.completion_create_params, text)
             for name in params.CompletionCreateParamsBase.__annotations__} | {'stream'}
    assert len(known) > 30
    assert known <= api_fields.FIELDS.keys() | api_fields.LACKING.keys() | HARMLESS
    assert api_fields.LACKING.keys() <= UNMET.keys()


# --- what it refuses ----------------------------------------------------------------------------------------
WRONG = {'temperature': (-1, 3, '1', True, 10 ** 400), 'top_k': (1.5,), 'max_tokens': (0, {}), 'seed': ('x',),
         'stream': (0,), 'stop': (0, [['x']], 'x' * 65, ['a', 'y' * 2000], [*'abcde'], [''] * 900),
         'prompt': (0, 'x' * 200), 'n': (2,), 'stream_options': (True, []), 'logprobs': (5, 'x', -1),
         'top_logprobs': (5, True)}
WRONG_MESSAGES = (None, 'hi', [5], [{'role': 'user'}], [{'role': 'king', 'content': 'x'}],
                  [{'role': 'user', 'content': 'x' * 200}], [{'role': 'user', 'content': None}])
REFUSED = [         # status, words of the sentence, what differs from a request that is answered
    (400, 'object', {'body': b'[]'}), (400, 'JSON', {'body': b'[' * 4000}),
    (400, 'UTF-8', {'body': b'"\xff"'}), (400, 'nan', {'body': b'{"temperature": NaN}'}),
    (413, 'Content-Length', {'Content_Length': '-5'}), (413, 'abc', {'Content_Length': 'abc'}),
    (413, '5001', {'body': b'x' * 5001}),
    (404, '/v1/models', {'path': '/v1/nothing'}), (404, '', {'method': 'GET'}),
    (404, "'gpt'", {'body': b'{"model": "gpt"}'}), (404, '/problems', {'body': b'{"task_id": "train-0/99"}'}),
    *[(403, 'this machine', {name: text}) for name, texts in (
        ('Host', ('evil.example:8000', '', 'localhost.evil.example')),
        ('Origin', ('https://evil.example', 'null', 'http://localhost:1'))) for text in texts]]


def test_each_refusal_has_its_status_and_names_the_field(server):
    for name, values in WRONG.items():
        for value in values:
            refused(ask(server, COMPLETE, {'prompt': 'a', name: value}), 400, name)
    for messages in WRONG_MESSAGES:
        refused(ask(server, CHAT, {'messages': messages}), 400)
    for status, words, how in REFUSED:
        how = {'path': COMPLETE, 'body': b'{"prompt": "a"}', **how}
        refused(ask(server, how.pop('path'), **how), status, words)


def test_no_other_machine_and_no_page_of_another_site_is_let_in(server):
    preflight = b'OPTIONS /v1/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: http://x.example\r\n\r\n'
    assert b' 501 ' in raw(server, preflight)
    assert server.server_address[0] == '127.0.0.1'          # no other machine can connect
    page = (ROOT / 'extras/page.html').read_text(encoding='utf-8')
    assert ask(server, '/') == (200, page) and "default-src 'none'" in page


def test_a_model_that_fails_has_a_status(server, models, monkeypatch):
    def broken(*arguments, **more):
        raise RuntimeError('planted')
    with monkeypatch.context() as m:
        m.setattr(models['out/a'][0], 'backbone', broken)
        refused(ask(server, COMPLETE, {'prompt': 'aa'}), 500, 'log')


# --- hostile and hasty clients ------------------------------------------------------------------------------
def post(body, head=b''):
    return b'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%s\r\n%s' % (
        len(body), head, body)


GOOD = post(b'{"prompt": "a", "max_tokens": 90, "temperature": 0, "stream": true}')
HOSTILE = [b'\0' * 3000, b'GET / HTTP/9.9\r\n\r\n', b'GET ' + b'/' * 70000, b'\x16\x03\x01 TLS' * 20,
           b'GET / HTTP/1.1\r\nHost: localhost\r\n' + b'A: b\r\n' * 5000 + b'\r\n',
           post(b'{}', b'Content-Length: 900000\r\n'),
           post(b'{"stop": "\\ud800", "prompt": "\\ud800", "logprobs": 3}'), GOOD + GOOD]


def test_no_bytes_stop_the_server_and_none_keep_its_thread(server, capfd):
    for data in HOSTILE:
        with contextlib.suppress(OSError):
            raw(server, data)               # it gets an answer, or the server gives up after a second
    assert raw(server, GOOD[:-9]) == raw(server, GOOD[:30]) == b''
    assert 'Traceback' not in capfd.readouterr().err


def test_a_request_waits_for_the_one_before_unless_that_client_goes_away(models):
    model = models['b'][0]
    with serving({'m': models['b'], 'other': models['out/a']}) as server:
        model.pause, model.steps = 0.1, 0
        with socket.create_connection(server.server_address) as s:
            s.sendall(GOOD)
            assert s.recv(9)                # its answer has begun
            began = time.monotonic()
            assert ask(server, COMPLETE, {'model': 'other', 'prompt': 'a', 'max_tokens': 1})[0] == 200
            assert time.monotonic() - began < 5 and model.steps < 50        # of 90: nobody waits for it
        assert ask(server, COMPLETE, {'prompt': 'a', 'max_tokens': 1})[0] == 200
        model.pause = 0
    assert model.steps < 60 and model.most == 1


SMUGGLED = b'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}'


def test_a_body_whose_end_is_not_certain_is_refused_and_hides_no_second_request(server):
    """A proxy that looks at another header than we do would see a second request where we see a body."""
    heads = [b'Content-Length: 15\r\n', b'content-length: 2\r\n', b'Transfer-Encoding: chunked\r\n',
             b'transfer-encoding:\r\n', b'Transfer-Encoding: identity\r\n']
    for head in heads:
        answer = raw(server, post(b'{"prompt": "a"}', head) + SMUGGLED)
        assert b' 400 ' in answer.split(b'\r\n')[0] and answer.count(b'HTTP/1.') == 1, (head, answer)
        assert b'one Content-Length' in answer and b'invalid_request_error' in answer
    alone = b'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'
    assert b'one Content-Length' in raw(server, alone + SMUGGLED)
    for length in b'9' * 5000, b'5001':
        assert b' 413 ' in raw(server, GOOD.replace(b'Length: ', b'Length: ' + length)).split(b'\r\n')[0]


def drip(connection, data, pause, end):
    """Send a byte now and then until the other side closes. -> whether it did"""
    connection.settimeout(pause)
    for byte in data:
        if time.monotonic() > end:
            return False
        try:
            connection.sendall(bytes([byte]))
            if connection.recv(1) == b'':
                return True
        except TimeoutError:
            pass
        except OSError:
            return True
    return False


def test_a_client_that_sends_a_byte_now_and_then_is_let_go(server):
    """In the head and in a body: no byte is late, but the whole takes longer than the second."""
    many = b'{"prompt": "%s"}' % (b'a' * 900)
    pairs = [       # what comes at once, and what comes slowly
        (b'', GOOD), (b'POST / HTTP/1.1\r\nHost: localhost\r\n', b'A: b\r\n' * 90),
        (post(many).partition(b'{')[0], many)]
    results = []

    def client(head, rest):
        with socket.create_connection(server.server_address) as s:
            s.sendall(head)
            results.append(drip(s, rest, 0.3, time.monotonic() + 20))

    threads = [threading.Thread(target=client, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * len(threads)


def test_a_client_that_reads_slowly_is_let_go_and_the_model_does_not_wait_for_it(server):
    """It takes 7 kB/s of about 60 kB, so no piece waits for a second, but all of them for eight."""
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)         # of its connections, too
    taken = bytearray()
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(server.server_address)
        s.sendall(post(b'{"prompt": "a", "max_tokens": 120, "temperature": 0, "stream": true, '
                       b'"logprobs": 1}'))
        taken += s.recv(500)                # its answer has begun

        def read():
            with contextlib.suppress(ConnectionError):
                while piece := s.recv(1500):
                    taken.extend(piece)
                    time.sleep(0.2)

        reader = threading.Thread(target=read)
        reader.start()
        assert ask(server, COMPLETE, {'prompt': 'a', 'max_tokens': 1})[0] == 200
        n_taken = len(taken)
        reader.join()
    assert n_taken < 30_000 and len(taken) < 50_000 and b'[DONE]' not in taken, (n_taken, len(taken))


# The page, in Node: enough of a document that its scripts run. Prints what is asked of the server.
IN_NODE = """
const { page, address, hash } = JSON.parse(require('fs').readFileSync(0, 'utf8'))
const made = {}, posts = [], real = fetch
const element = () => ({ dataset: {}, style: {}, children: [], heard: {}, value: '', firstChild: {},
  append(...more) { this.children.push(...more) }, prepend() {}, replaceChildren() {}, querySelector: element,
  addEventListener(kind, f) { this.heard[kind] = f } })
Object.assign(globalThis, {
  document: { getElementById: id => made[id] ??= element(), createElement: element }, location: { hash },
  Option: class { constructor(text, value) { Object.assign(this, { text, value }) } },
  fetch(path, options) {
    if (options) posts.push(JSON.parse(options.body))
    return real(address + path, options)
  } })
for (const [, script] of page.matchAll(/<script.*?>(.*?)<\\/script>/gs))
  require('vm').runInThisContext(script)
const wait = () => new Promise(done => setTimeout(done, 1500))
wait().then(async () => {
  const before = [made.prompt.value, posts.length]
  made.form.heard.submit({ preventDefault() {} })
  await wait()
  console.log(JSON.stringify([...before, posts]))
})
"""


def test_a_link_to_a_problem_fills_in_the_question_and_asks_only_after_a_click(models):
    """Any page of the web may open the address, and with --allow_code_execution=True an answer is run."""
    if not shutil.which('node'):
        pytest.skip('node is not installed')
    items = [{'task_id': f'variation-0/{i}', 'prompt': f'def f{i}(x):\n    """Return {i}."""\n', 'ends': '',
              'asked': f'Complete f{i}', 'messages': [{'role': 'user', 'content': 'f'}], 'tests': 'pass'}
             for i in range(5)]
    with serving(models, items) as server:
        page = ask(server, '/')[1]
        for hash in '#variation-0/3', '#nothing', '':
            job = {'page': page, 'address': f'http://127.0.0.1:{server.server_port}', 'hash': hash}
            done = subprocess.run(['node', '-e', IN_NODE], input=json.dumps(job), capture_output=True,
                                  encoding='utf-8', timeout=120)
            assert done.returncode == 0, done.stderr
            question, n_before, posts = json.loads(done.stdout)
            number = 3 if '3' in hash else 0
            assert question == items[number]['prompt'].rstrip() and n_before == 0
            assert [(post['model'], post['task_id']) for post in posts] == [
                (name, f'variation-0/{number}') for name in models]


# --- sample.py --serve --------------------------------------------------------------------------------------
CLIENT = """
import http.client, json, os, signal, socketserver, time

def slowly(server, *arguments):         # so the signal comes while the main thread still accepts the request
    process_request(server, *arguments)
    time.sleep(0.3)

process_request = socketserver.ThreadingMixIn.process_request
socketserver.ThreadingMixIn.process_request = slowly

def ask(server, path, **fields):
    connection = http.client.HTTPConnection(*server.server_address, timeout=60)
    connection.request('POST' if fields else 'GET', path, json.dumps(fields) if fields else None)
    return connection.getresponse()

def client(server):
    models = json.load(ask(server, '/v1/models'))['data']
    task_id = json.load(ask(server, '/problems'))['data'][9]['task_id']
    verdict = json.load(ask(server, '/v1/completions', task_id=task_id))['verdict']
    answer = ask(server, '/v1/completions', prompt='a', seed=3, max_tokens=120, stream=True)
    first = answer.readline().decode()
    os.kill(os.getpid(), signal.SIGTERM)
    with open('answers.json', 'w', encoding='utf-8') as f:
        json.dump([models, verdict, first + answer.read().decode()], f)
""" + replaced('listen', """
    real(*arguments)            # it listens: from now on it can be asked
    threading.Thread(target=client, args=arguments).start()""")


@pytest.mark.skipif(os.name == 'nt', reason='Windows has no SIGTERM to send')
def test_sigterm_finishes_what_runs_and_exits_with_0(models, tmp_path):
    """The answer is long: the signal comes while it is being written, and it is whole all the same."""
    save_run(tmp_path / 'base', *models['out/a'])
    save_run(tmp_path / 'sft', *models['b'], config={'stage': 'sft'})
    result = run('sample.py', '--ckpt=base,sft', '--serve=0', '--device=cpu', '--allow_code_execution=True',
                 cwd=tmp_path, before=CLIENT)
    assert (result.returncode, result.stderr) == (0, ''), result.stderr
    assert 'Ctrl-C ends it' in result.stdout
    models, verdict, text = json.loads((tmp_path / 'answers.json').read_text('utf-8'))
    assert text.startswith('data: {') and text.endswith('data: [DONE]\n\n') and '"finish_reason": "' in text
    assert [(m['id'], m['chat']) for m in models] == [('base', False), ('sft', True)]
    assert verdict['outcome'] in ('syntax', 'empty', 'exception'), verdict

    with socket.create_server(('127.0.0.1', 0)) as other:
        port = other.getsockname()[1]
        result = run('sample.py', '--ckpt=base', '--device=cpu', f'--serve={port}', cwd=tmp_path)
        mistake(result, 'cannot listen', f'{port}', 'another port')


# 20 clients hang: a third in the head, a third in a body, a third before an answer that they don't read.
HANGING = """
import itertools, os, signal, socket, threading, time

def hang(server, kind):
    with socket.create_connection(server.server_address) as s:
        head = b'POST /v1/completions HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: '
        body = b'{"prompt": "a", "stream": true, "max_tokens": 120, "logprobs": 1}'
        s.sendall([head, head + b'900\\r\\n\\r\\n', head + b'%d\\r\\n\\r\\n' % len(body) + body][kind])
        while True:
            time.sleep(0.5)
            if kind < 2:
                s.sendall(b' ' if kind else b'1')

def client(server):
    for number in range(20):
        threading.Thread(target=hang, args=(server, number % 3), daemon=True).start()
    time.sleep(2)
    for _ in range(SIGNALS):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
""" + replaced('listen', """
    real(*arguments)
    threading.Thread(target=client, args=arguments, daemon=True).start()""")


@pytest.mark.skipif(os.name == 'nt', reason='Windows has no SIGINT to send')
def test_ctrl_c_ends_the_server_though_clients_hang_and_a_second_one_at_once(models, tmp_path):
    save_run(tmp_path / 'base', *models['out/a'])
    run_server = lambda first: run('sample.py', '--ckpt=base', '--serve=0', '--device=cpu', cwd=tmp_path,
                                   before=first, timeout=90)
    result = run_server('SIGNALS = 1' + HANGING)
    assert (result.returncode, result.stderr) == (0, '')
    # The server would give the clients minutes, and a model that is slow needs as many.
    slow = before('hidden states', 'import time; time.sleep(5)')
    patient = 'import extras.server\nextras.server.GRACE = 900\nSIGNALS = 2'
    assert run_server(slow + patient + HANGING).returncode == -signal.SIGINT
