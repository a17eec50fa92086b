"""The server and the page: what they answer, and whom they refuse."""
import contextlib
import html
import http.client
import json
import math
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

import pytest
import torch
from accidents import replaced
from conftest import mistake, ok, run, save_run, sharpen
from conftest import refused as is_mistake
from test_model import lively
from test_sample import TOKENIZER, alone, chain

from extras.models import server as serve
from extras.tasks import answers, sandbox
from extras.training import fit
from extras.models import export as exports
from model import GPT, GPTConfig
from tokenizer import PATTERN, Tokenizer

COMPLETE, CHAT = '/v1/completions', '/v1/chat/completions'
ASKS = b'{"prompt": "a"}'
MESSAGES = [{'role': 'system', 'content': 'be brief'}, {'role': 'user', 'content': 'hi'}]
CONTEXT = 128


# --- a model that can be slow, a server in a thread, requests -------------------------------------
class Slow(GPT):
    """A GPT that takes `pause` seconds for each of its `steps`."""
    pause, steps = 0, 0

    def backbone(self, *arguments, **more):
        time.sleep(self.pause)
        self.steps += 1
        return super().backbone(*arguments, **more)


@contextlib.contextmanager
def serving(models, items=()):
    """A server for {name: (model, tokenizer, perhaps the settings of its run)}, in threads."""
    models = {name: (*its, {})[:3] for name, its in models.items()}
    with serve.Server(0, models, items) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,)).start()
        try:
            yield server
        finally:
            server.shutdown()


def ask(server, path, body=None, method=None, **headers):
    """(status, JSON or text) of one request over its own connection. body: bytes, or for JSON."""
    body = json.dumps(body) if isinstance(body, dict) else body         # a str goes as Latin-1
    headers = {name.replace('_', '-'): text for name, text in headers.items()}
    connection = http.client.HTTPConnection(*server.server_address, timeout=60)
    with contextlib.closing(connection):
        connection.request(method or ('POST' if body else 'GET'), path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
    is_json = answer.headers['Content-Type'] == 'application/json'
    return answer.status, json.loads(data) if is_json else data.decode()


@pytest.fixture(scope='module')
def models():
    """Two models with sharp probabilities, and their tokenizer of bytes."""
    torch.manual_seed(0)
    config = GPTConfig(TOKENIZER.vocab_size, CONTEXT, 2, 4, 2, 32)
    return {name: (sharpen(Slow(config)), TOKENIZER) for name in ('out/a', 'b')}


@pytest.fixture
def server(models, monkeypatch):
    """It still answers after each test."""
    monkeypatch.setattr(serve, 'MOST_BYTES', 5000)
    with serving(models) as server:
        yield server
        assert ask(server, COMPLETE, {'prompt': 'a', 'max_tokens': 2})[0] == 200


# --- what it answers ------------------------------------------------------------------------------
def written(model, tokenizer, asked, n):
    """The answer at temperature 0, by the slow version, and the best log probabilities of its
    tokens."""
    best = []

    def draw(logits):
        best.extend(p for p in logits.log_softmax(-1).topk(4).values.tolist() if p > -math.inf)
        return logits.argmax(-1)

    return alone(model, tokenizer, asked, n, draw), best


def log_p_in(tokens):
    rivals = [rival['logprob'] for token in tokens for rival in token['top_logprobs']]
    return [log_p for log_p in rivals if log_p > -9999]         # stands for -infinity


def test_an_answer_is_the_models_own_text_with_its_probabilities_up_to_the_context(server, models):
    for path, name, key, source in ((COMPLETE, 'b', 'prompt', 'def f('),
                                    (COMPLETE, 'out/a', 'prompt', 'x' * 120),
                                    (CHAT, 'out/a', 'messages', MESSAGES)):
        ids, _, n_again, _ = answers.read(TOKENIZER, source)
        text, best = written(*models[name], source, min(9, CONTEXT - len(ids)))
        answer = ask(server, path, {'model': name, key: source, 'temperature': 0, 'logprobs': 4,
                                    'max_tokens': 9})[1]
        choice, usage = answer['choices'][0], answer['usage']
        assert choice.get('text', choice.get('message')) in (
            text, {'role': 'assistant', 'content': text})
        tokens = choice['logprobs']['content']
        assert log_p_in(tokens) == pytest.approx(best, abs=1e-4)
        # A prompt's last token is written again, and counts once.
        n, n_new = len(ids) + (n_again > 0), len(tokens) - (n_again > 0)
        assert [*usage.values()] == [n, n_new, n + n_new]


def test_a_stream_has_the_pieces_of_the_whole_answer(server):
    asked = {'model': 'b', 'messages': MESSAGES, 'stop': ['e', '\n'], 'seed': -5, 'max_tokens': 40,
             'logprobs': True, 'top_logprobs': 2}
    whole = ask(server, CHAT, asked)[1]['choices'][0]
    *lines, last, empty = ask(server, CHAT, asked | {'stream': True})[1].split('\n\n')
    parts = [json.loads(line.removeprefix('data: '))['choices'][0] for line in lines]
    assert (last, empty) == ('data: [DONE]', '')
    ends = [part['finish_reason'] for part in parts]
    assert ends == [None] * (len(parts) - 1) + [whole['finish_reason']] and len(ends) > 1
    assert ''.join(part['delta']['content'] for part in parts) == whole['message']['content']
    assert sum((part['logprobs']['content'] for part in parts), []) == whole['logprobs']['content']


WRONG = {'temperature': (-1, '1', True, 10 ** 400), 'top_k': (1.5,), 'max_tokens': (0,), 'n': (2,),
         'stop': ([['x']], 'x' * 65), 'echo': (True,), 'tools': ([{}],)}


def test_a_field_that_would_change_the_answer_is_read_or_refused():
    for name, values in WRONG.items():
        for value in values:
            is_mistake(f'{name}=', serve.fields_of, {name: value})
    assert serve.fields_of({'tools': [], 'user': 'me', 'max_tokens': None})['max_tokens'] is None


# --- whom and what it refuses ---------------------------------------------------------------------
# status, words of the sentence, what differs from a request that is answered
REFUSED = r"""
[400, "object", {"body": "[]"}]
[400, "UTF-8", {"body": "\"\u00ff\""}]
[400, "king", {"path": "/v1/chat/completions", "body": {"messages": [{"role": "king", "content": "x"}]}}]
[404, "", {"method": "GET"}]
[404, "'gpt'", {"body": {"model": "gpt"}}]
[404, "'gpt'", {"body": {"task_id": "gpt"}}]
[403, "this machine", {"Host": "evil.example:8000"}]
[403, "this machine", {"Host": ""}]
[403, "this machine", {"Host": "localhost.evil.example"}]
[403, "this machine", {"Origin": "https://evil.example"}]
[403, "this machine", {"Origin": "null"}]
[403, "this machine", {"Origin": "http://localhost:1"}]
"""
REFUSED = [json.loads(line) for line in REFUSED.strip().split('\n')]
REFUSED += [(400, 'JSON', {'body': '[' * 4000}), (400, '5000', {'body': 'x' * 5001}),
            (400, '128', {'body': {'prompt': 'x' * 200}})]


def test_each_refusal_has_its_status_and_no_other_machine_or_site_is_let_in(
        server, models, monkeypatch):
    def is_refused(status, words, path=COMPLETE, body=ASKS, **how):
        """In OpenAI's form of an error."""
        found, answer = ask(server, path, body, **how)
        assert (found, answer['error']['type']) == (status, 'invalid_request_error'), answer
        assert words in answer['error']['message']

    for status, words, how in REFUSED:
        is_refused(status, words, **how)
    assert server.server_address[0] == '127.0.0.1'          # no other machine can connect
    assert ask(server, '/', method='OPTIONS')[0] == 501     # a preflight
    with urllib.request.urlopen(f'http://localhost:{server.server_port}') as page:
        assert "default-src 'none'" in page.read().decode()
        assert page.headers['X-Frame-Options'] == 'DENY'
    monkeypatch.setattr(models['b'][0], 'backbone', None)
    is_refused(500, 'log', body={'model': 'b', 'prompt': 'aa'})         # a bug has a status, too


# --- clients that wait -----------------------------------------------------------------------------
LONG = '{"prompt": "a", "max_tokens": 120, "temperature": 0, "stream": true, "logprobs": 1}'


def test_a_request_waits_for_the_one_before_unless_that_client_goes_away(models):
    model = models['b'][0]
    with serving({'m': models['b'], 'other': models['out/a']}) as server:
        model.pause, model.steps = 0.1, 0
        client = http.client.HTTPConnection(*server.server_address)
        client.request('POST', COMPLETE, LONG)
        with contextlib.closing(client), client.getresponse() as answer:
            answer.read(99)         # it has begun, and nobody waits for another model
            other = {'model': 'other', 'prompt': 'a', 'max_tokens': 1}
            assert ask(server, COMPLETE, other)[0] == 200 and model.steps < 50      # of 120
        model.pause = 0
        assert ask(server, COMPLETE, {'prompt': 'a', 'max_tokens': 1})[0] == 200
        assert model.steps < 60


# --- the command ----------------------------------------------------------------------------------
# It listens: from now on a client asks it, and then types Ctrl-C.
CLIENT = replaced('listen', """
    import http.client, time

    def ask(path, **fields):
        connection = http.client.HTTPConnection(*arguments[0].server_address, timeout=60)
        body = json.dumps(fields) if fields else None
        connection.request('POST' if fields else 'GET', path, body)
        return json.load(connection.getresponse())

    def client():
        time.sleep(0.3)
        task_id = ask('/problems')['data'][9]['task_id']
        verdict = ask('/v1/completions', task_id=task_id)['verdict']
        with open('verdict.json', 'w') as f:
            json.dump(verdict, f)
        os.kill(os.getpid(), signal.SIGINT)

    real(*arguments)
    threading.Thread(target=client, daemon=True).start()""")


def test_the_command_answers_judges_and_ends_well_with_ctrl_c(models, tmp_path):
    save_run(tmp_path / 'base', *models['out/a'])
    serve_base = lambda *flags: run('extras.models.server', '--ckpt=base', '--device=cpu', *flags,
                                    cwd=tmp_path, timeout=90, before=CLIENT)
    assert 'http://127.0.0.1:' in ok(serve_base('--port=0', '--allow_code_execution=True'))
    verdict = json.loads((tmp_path / 'verdict.json').read_text('utf-8'))
    assert verdict['outcome'] in ('syntax', 'empty', 'exception'), verdict
    with socket.create_server(('127.0.0.1', 0)) as other:
        port = other.getsockname()[1]
        mistake(serve_base(f'--port={port}'), 'cannot listen', f'{port}', 'another --port')
    mistake(serve_base('--ckpt=nothing'), 'nothing does not exist')


# --- the page, in Chromium ------------------------------------------------------------------------
CHROMIUM = next(filter(shutil.which, ['chromium', 'chromium-browser', 'google-chrome']), None)
in_chromium = pytest.mark.skipif(
    not CHROMIUM, reason='no Chromium to open the page in: apt-get install chromium')
SOURCE = open(__file__).read()
NASTY = """'quotes' and \\" <b>bold</b> </script><!-- <script> \u2028 😀👩‍👩‍👧 中文字,
ключ = 'é'\r\n\r\n\t\tif x:\n"""
SPACES = 'a\u0085b\ufeffc\x1cd\u00a0\u3000 e  \n\n  f\r\rg\t\t\t12345 ١٢٣٤ x²  \n'
MESSAGE = f'assert {NASTY!r}'
PROBLEMS = []
for number in range(6):
    prompt = f'def f{number}(x):\n    """Return </script> & "{NASTY[-number - 9:].strip()}"."""\n'
    PROBLEMS.append({
        'task_id': f'odd/{number}', 'prompt': prompt, 'asked': f'Complete:\n{prompt}',
        'tests': f'{MESSAGE} {number}', 'test': 'pass', 'entry_point': 'f', 'rules': [], 'solution': '',
        'messages': [{'role': 'user', 'content': f'Complete:\n{prompt}'}],
        'ends': r'(?<=\n)(?=[^\s)\]}])'})


def visited(address):
    """What Chromium shows in a narrow window when all scripts have ended, as HTML."""
    flags = ('--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --window-size=500,800 '
             '--dump-dom --virtual-time-budget=60000').split()
    with tempfile.TemporaryDirectory() as profile:
        return subprocess.run([CHROMIUM, *flags, f'--user-data-dir={profile}', address], timeout=240,
                              capture_output=True, encoding='utf-8').stdout


# Appended to a page, it types and presses ask; then it tells errors, and how much wider all is than
# the window. Chromium's time is faster than ours: a request that blocks gives the server some.
VISITOR = """<script>
onerror = onunhandledrejection = () => document.body.dataset.error = 'yes'
setTimeout(() => {
  document.getElementById('max_tokens').value = 24
  document.getElementById('prompt').value = 'def naïve(x):'
  document.getElementById('prompt').dispatchEvent(new Event('input'))
  document.getElementById('form').requestSubmit()
}, 1000)
setInterval(() => {
  document.body.dataset.wider = document.documentElement.scrollWidth - innerWidth
  if (!document.getElementById('send').disabled) return
  const wait = new XMLHttpRequest()
  wait.open('GET', '/v1/models', false)
  wait.send()
}, 20)
</script>"""


@in_chromium
def test_a_link_to_a_problem_fills_in_the_question_and_nothing_is_asked_before_a_click(models):
    """Any page of the web may open the address, and an answer may be run as code. Who clicks reads the
    answers, also in a narrow window."""
    with serving(models, PROBLEMS) as server:
        models['b'][0].steps = 0
        for link, number in ('#odd/3', 3), ('#nothing', 0):
            shown = visited(f'http://127.0.0.1:{server.server_port}/{link}')
            tests, = re.findall('<section id="tests".*?>(.*?)</section>', shown, re.S)
            assert html.unescape(tests) == f'{MESSAGE} {number}'
            assert shown.count('data-model="') == 2
        assert models['b'][0].steps == 0
        server.pages['/'][0] += VISITOR.encode()
        dom = visited(f'http://127.0.0.1:{server.server_port}/')
    texts = [html.unescape(re.sub('<.*?>', '', text))
             for text in re.findall('<span class="answer">(.*?)</span></div>', dom, re.S)]
    wanted = [written(*its, 'def naïve(x):', 24)[0] for its in models.values()]
    # HTML writes no carriage returns and zero bytes as they are
    plain = lambda text: re.sub('[\0-\x20\x7f\ufffd]', '', text)
    assert [*map(plain, texts)] == [*map(plain, wanted)] and any(wanted)
    assert 'data-error' not in dom and int(re.search('data-wider="(.*?)"', dom)[1]) <= 0


# --- a page that holds models ---------------------------------------------------------------------
# What is appended to such a page: it asks one request after the other, and tells all answers.
ASK_ALL = r"""<script>
async function ask_all(asked) {
  const rows = []
  for (const [request, is_chat] of asked) {
    const row = { ids: [], text: '', tokens: [], verdict: null }
    for await (const piece of answer(request, is_chat, new AbortController().signal)) {
      if (piece.verdict) { row.verdict = piece.verdict; continue }
      row.ids.push(piece.id)
      row.text += piece.text
      row.tokens.push(piece.tokens[0])
    }
    rows.push(row)
  }
  return rows
}
ask_all(ASKED).catch(e => e.message).then(value => document.body.dataset.rows = JSON.stringify(value))
</script>"""


@pytest.fixture(scope='module')
def shown(tmp_path_factory):
    """(ask(requests), {name: (model, tokenizer, its settings)}, the page of these models): grouped
    heads, a tied matrix, and one that says ok. A pattern of llama.cpp has ++, which JavaScript
    lacks."""
    ours, other = (Tokenizer.train(SOURCE + NASTY + SPACES, 700, pattern=pattern)
                   for pattern in (PATTERN, fit.PATTERNS['cl100k']))
    small = dict(vocab_size=700, block_size=64, n_ffn=44)
    models = {'a "base"': (lively(0.3, **small, n_kv_head=2, tie_embeddings=False), ours, {}),
              'chat': (lively(0.3, **small, n_head=2, rope_theta=500.0), other, {'stage': 'sft'}),
              'knows': (chain('\nok', '<|im_end|>', 256), TOKENIZER, {'stage': 'dpo'})}
    path = tmp_path_factory.mktemp('page') / 'demo.html'
    exports.publish_html(path, models, PROBLEMS, lambda jobs: [sandbox.Result('wrong', MESSAGE)] * len(jobs))
    page = path.read_text()

    def ask_page(*requests):
        asked = json.dumps(requests).replace('<', r'\u003c')
        path.write_text(page + ASK_ALL.replace('ASKED', asked))
        dom = visited(f'file://{path}')
        return json.loads(html.unescape(re.search('data-rows="(.*?)"', dom)[1]))

    return ask_page, models, page


@in_chromium
def test_ids_probabilities_and_texts_of_the_page_are_torchs(shown):
    """Of pieces of hard texts, cut anywhere. The answers to the last end with the context."""
    ask_page, models, _ = shown
    text, requests, wanted = NASTY + SOURCE + SPACES, [], []
    for i in range(30):
        name, source = ('chat', 'messages') if i % 2 else ('a "base"', 'prompt')
        piece = text[i * 397 % 9000:][:5 + i % 21]
        asked = [{'role': 'user', 'content': piece}] if i % 2 else piece
        ids, _, n_again, _ = answers.read(models[name][1], asked)
        n = 20 if i < 28 else 65 - len(ids) - (n_again > 0)
        wanted.append(written(*models[name][:2], asked, n))
        requests.append([{'model': name, source: asked, 'max_tokens': n if i < 28 else 99,
                          'temperature': 0, 'top_k': 0}, bool(i % 2)])
    for row, (text, best) in zip(ask_page(*requests), wanted, strict=True):
        assert row['text'] == text
        assert log_p_in(row['tokens']) == pytest.approx(best, abs=1e-3)
    assert 'context of 64 tokens' in ask_page([{'model': 'a "base"', 'prompt': SOURCE}, False])


@in_chromium
def test_a_verdict_of_the_page_is_of_the_tested_answer_and_a_text_ends_before_column_0(shown):
    """It belongs to a problem at temperature 0, asked as when the file was written."""
    asked = {'model': 'knows', 'task_id': 'odd/2', 'temperature': 0, 'top_k': 0, 'max_tokens': 99}
    chat, text, warm = shown[0]([asked, True], [asked, False], [asked | {'temperature': 1e3}, True])
    assert chat['verdict'] == {'outcome': 'wrong', 'message': MESSAGE, 'text': 'ok'}
    assert text['text'] == '' and len(text['ids']) == 2     # the healed newline, then column 0
    assert chat['text'] == 'ok' != warm['text']
    assert text['verdict']['outcome'] == warm['verdict']['outcome'] == ''


def in_page(page):
    return json.loads(re.search('<script id="models".*?>(.*?)</script>', page, re.S)[1])


def test_the_file_needs_nothing_else_and_shows_texts_only_as_text(shown):
    page = shown[2]
    assert not re.search('https?:', page)
    code = re.sub('(?s)<script id="models".*?</script>', '', page)
    assert not re.search('fetch|XMLHttpRequest|WebSocket|import|Worker|/v1/', code)
    assert not re.search('innerHTML|outerHTML|insertAdjacent|document.write|srcdoc|eval', code)
    assert re.findall(r'(?:src|href)="(.*?)"', page) == ['data:,'] and "default-src 'none'" in page
    assert page.count('</script>') == page.count('<script') == 3 and '"solution"' not in page
    assert in_page(page)['problems'][2]['prompt'] == PROBLEMS[2]['prompt']


def test_the_command_writes_the_page_and_what_it_cannot_hold_is_one_sentence(tmp_path):
    save_run(tmp_path / 'chat', chain('\nok', '<|im_end|>'), TOKENIZER, config={'stage': 'sft'})
    save_run(tmp_path / 'odd', lively(vocab_size=2), Tokenizer.char('ab'))
    export = lambda *flags: run('extras.models.export', *flags, cwd=tmp_path)
    ok(export('--to=html', '--ckpt=chat', '--out=a.html'))
    model, = in_page((tmp_path / 'a.html').read_text())['models']
    assert (model['chat'], model['judged']) == (True, {})       # programs run only if that is typed
    mistake(export('--to=html', '--ckpt=odd'), 'our own bpe', 'extras.models.server')
    mistake(export('--ckpt=odd,chat'), 'takes one --ckpt')
    for how in {'rope_scaling': (2.0,)}, {'qkv_bias': True}, {'qk_norm': True}:
        is_mistake('our own bpe', exports.publish_html, tmp_path / 'no.html',
                   {'odd': (lively(**how), TOKENIZER, {})}, PROBLEMS, None)
