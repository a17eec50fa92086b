"""A page that holds models answers as they do: in Node, which runs its JavaScript, and in Chromium."""
import html
import json
import math
import re
import shutil
import subprocess
import urllib.parse

import pytest
import torch
from conftest import ROOT, lift, like, mistake, ok, refused, run, save_run
from test_model import lively
from test_sample import TOKENIZER, chain

from extras import sandbox
from model import sample
from extras import export as exports
from tokenizer import PATTERN, SMALL_PATTERN, Tokenizer

encode = lift('sample.py', 'encode')

SOURCE = open(__file__, encoding='utf-8').read()
NASTY = '''"quotes' and \\" <b>bold</b> </script><!-- <script> \u2028 😀👩‍👩‍👧 中文字,
ключ = 'é'\r\n\r\n\t\tif x:\n'''
SPACES = 'a\u0085b\ufeffc\x1cd\u00a0\u3000 e  \n\n  f\r\rg\t\t\t12345 ١٢٣٤ x²  \n'
CONTEXT = 64
MESSAGE = f'assert {NASTY!r}'

# Asks the models of a page, one after the other: [[request, is_chat], ...] -> ids, texts, probabilities
ASK = '''
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
'''
# Reads a page, what to compute, and what it is computed from; prints it as JSON.
IN_NODE = '''{
  const { page, script, given } = JSON.parse(require('fs').readFileSync(0, 'utf8'))
  const element = id => page.match(RegExp(`<script id="${id}".*?>(.*?)</script>`, 's'))[1]
  const [json, code] = [element('models'), element('source')]
  globalThis.document = { getElementById: () => ({ textContent: json }) }
  globalThis.given = given
  require('vm').runInThisContext(code)
  Promise.resolve(require('vm').runInThisContext(script)).then(value => console.log(JSON.stringify(value)))
}'''


def in_node(page, script, given=None):
    """The value of a script of JavaScript that can use all functions of a page, and `given`."""
    if not shutil.which('node'):
        pytest.skip('node is not installed')
    job = json.dumps({'page': page, 'script': script, 'given': given})
    done = subprocess.run(['node', '-e', IN_NODE], input=job, capture_output=True, encoding='utf-8',
                          timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def in_chromium(folder, page, script, hash=''):
    """The document after Chromium has run a page from the disk, and a script after it."""
    chromium = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if not chromium:
        pytest.skip('Chromium is not installed')
    (folder / 'in a browser.html').write_text(page.replace('</body>', f'<script>{script}</script></body>'),
                                              encoding='utf-8')
    command = [chromium, '--headless', '--no-sandbox', '--disable-gpu', '--virtual-time-budget=60000',
               f'--user-data-dir={folder}/profile', '--dump-dom',
               (folder / 'in a browser.html').as_uri() + hash]
    return subprocess.run(command, capture_output=True, encoding='utf-8', timeout=240, check=True).stdout


# --- two models in a page -----------------------------------------------------------------------------------
def problem(number, prompt):
    asked = f'Complete:\n{prompt}'
    return {'task_id': f'odd/{number}', 'prompt': prompt, 'asked': asked, 'tests': MESSAGE, 'test': 'pass',
            'messages': [{'role': 'user', 'content': asked}], 'entry_point': 'f', 'rules': [],
            'solution': '', 'ends': r'(?<=\n)(?=[^\s)\]}])'}


PROBLEMS = [problem(i, f'def f{i}(x):\n    """Return </script> & "{NASTY[-i - 9:].strip()}"."""\n')
            for i in range(6)]


@pytest.fixture(scope='module')
def shown(tmp_path_factory):
    """(the page, {name: (model, tokenizer, can it chat?)}): grouped heads, a tied matrix, one says ok."""
    tokenizer = Tokenizer.train(SOURCE, 700)
    small = dict(vocab_size=tokenizer.vocab_size, block_size=CONTEXT, n_ffn=44, vocab_multiple=64)
    models = {'a "base"': (lively(0.3, **small, n_kv_head=2, tie_embeddings=False), tokenizer, {}),
              'chat': (lively(0.3, **small, n_layer=1, n_head=2, rope_theta=500.0), tokenizer,
                       {'stage': 'sft'}),
              'knows': (like(chain('\nok', '<|im_end|>'), block_size=256), TOKENIZER, {'stage': 'dpo'})}
    path = tmp_path_factory.mktemp('page') / 'demo.html'
    judge = lambda *job: sandbox.Result('wrong', MESSAGE)
    said = exports.write_page(path, models, PROBLEMS, judge)
    assert str(path) in said and '3 models' in said
    return path.read_text(encoding='utf-8'), models


def prompts(n):
    """Pieces of this file and of hard texts, cut anywhere."""
    text = NASTY + SOURCE + SPACES
    return [text[(i * 97) % (len(text) - 40):][:5 + i % 21] for i in range(n)]


def asked_of(models, temperature=0, **more):
    """50 requests: a text or a message for each model in turn."""
    requests = []
    for i, text in enumerate(prompts(50)):
        name, (_, _, trained) = [*models.items()][i % 2]            # not the one that knows its answer
        can_chat = 'stage' in trained
        content = {'messages': [{'role': 'user', 'content': text}]} if can_chat else {'prompt': text}
        requests.append([{'model': name, 'max_tokens': 20, 'temperature': temperature, 'top_k': 0, 'seed': i,
                          **content, **more}, can_chat])
    return requests


def check_answers(models, requests, rows):
    """Each id is torch's most probable one after the ids before it, unless the two best are closer than 1e-4.
    The probabilities of the id and of its rivals are torch's, too."""
    n_tokens = 0
    for (request, can_chat), row in zip(requests, rows, strict=True):
        model, tokenizer, _ = models[request['model']]
        prompt, allowed, n_again = encode(tokenizer, request['messages' if can_chat else 'prompt'])
        ids = row['ids']
        n_tokens += len(ids)
        assert len(ids) == 20 + (n_again > 0) or ids[-1] in tokenizer.stop
        with torch.no_grad():
            logits = model(torch.tensor([prompt + ids[:-1]]))[0][0, len(prompt) - 1:]  # (n, V)
        logits[:, tokenizer.never_in_answers(model.config.vocab_size)] = -math.inf
        healed = torch.full_like(logits[0], -math.inf)
        healed[allowed] = 0
        logits[0] += healed
        for id, token, log_p in zip(ids, row['tokens'], logits.log_softmax(-1), strict=True):
            best = log_p.topk(4)
            assert best.values[0] - log_p[id] < 1e-4, (request, ids)
            assert token['logprob'] == pytest.approx(log_p[id].item(), abs=1e-3)
            rivals = [rival['logprob'] for rival in token['top_logprobs']]
            possible = best.values[best.values > -math.inf].tolist()
            assert rivals == pytest.approx(possible, abs=1e-3), request
        data = tokenizer.decode_bytes([id for id in ids if id not in tokenizer.stop])[n_again:]
        assert row['text'] == data.decode('utf-8', 'replace')
    assert n_tokens > 500


def test_greedy_ids_and_probabilities_are_torchs_in_node(shown):
    page, models = shown
    requests = asked_of(models)
    check_answers(models, requests, in_node(page, f'{ASK}; ask_all(given)', requests))


def test_greedy_ids_are_torchs_in_chromium_and_texts_are_shown_as_text(shown, tmp_path):
    page, models = shown
    requests = asked_of(models)
    script = f'''{ASK}; ask_all({json.dumps(requests)}).then(rows => {{
      const output = document.createElement('output')
      output.textContent = encodeURIComponent(JSON.stringify(rows))
      document.body.append(output)
    }})
    setTimeout(() => $('send').click())'''.replace('</', '<\\/')
    document = in_chromium(tmp_path, page, script, '#odd/3')
    rows = json.loads(urllib.parse.unquote(html.unescape(re.search('<output>(.*?)</output>', document)[1])))
    check_answers(models, requests, rows)

    # The address named a problem, so a click asked all models, and the verdict of one of them is in the file.
    text = document[document.index('id="columns"'):document.index('<p id="token">')]
    assert text.count('<section') == 3 and f'wrong: {html.escape(MESSAGE, quote=False)}' in text
    assert '<b>' not in text and '<script' not in text and '中文字' in text and '😀' in text


def test_ids_are_those_of_python_whatever_the_pattern(shown):
    page, _ = shown
    texts = [NASTY, SPACES, SOURCE, '', 'I\'ll', *prompts(100)]
    # one of those that llama.cpp has uses ++
    for pattern in (PATTERN, SMALL_PATTERN, *exports.NAMES):
        tokenizer = Tokenizer.train(SOURCE + NASTY * 9 + SPACES * 9, 900, pattern=pattern)
        tokens = [token.decode('latin-1') for token in tokenizer.vocab]
        ids = in_node(page, '''{
            const ranks = new Map(given.tokens.map((token, id) => [token, id]))
            const tokenizer = { ranks, pattern: javascript(given.pattern) }
            given.texts.map(text => encode(tokenizer, text))
        }''', {'tokens': tokens, 'pattern': tokenizer.pattern, 'texts': texts})
        for text, mine in zip(texts, ids, strict=True):
            assert mine == tokenizer.encode(text), (pattern, text)


def test_tokens_are_drawn_by_their_probabilities(shown):
    """Temperature and top k as in model.sample; the same seed draws the same."""
    page, models = shown
    logits = [0.0, 2.0, -math.inf, 1.0, 0.5, 3.0]
    torch.manual_seed(0)
    for temperature, k in (1.0, 0), (0.5, 3), (2.0, 50):
        n = 20_000
        ids = in_node(page, '''{
            const random = dice(7), [logits, temperature, k, n] = given
            Array.from({ length: n }, () => draw(logits.map(z => z ?? -Infinity), temperature, k, random))
        }''', [[None if math.isinf(z) else z for z in logits], temperature, k, n])
        theirs = sample(torch.tensor([logits] * n), temperature, k)
        for id in range(len(logits)):
            assert ids.count(id) / n == pytest.approx((theirs == id).float().mean().item(), abs=0.015)
    warm = asked_of(models, temperature=1.0)[:6]
    first, again, other = in_node(page, f'{ASK}; Promise.all([given[0], given[0], given[1]].map(ask_all))',
                                  [warm, [[{**request, 'seed': 99}, chat] for request, chat in warm]])
    assert first == again != other


def test_an_answer_ends_with_the_context_and_a_long_question_is_refused(shown):
    page, models = shown
    long = [[{**request, 'max_tokens': 9999}, can_chat] for request, can_chat in asked_of(models)[:8]]
    for (request, can_chat), row in zip(long, in_node(page, f'{ASK}; ask_all(given)', long), strict=True):
        model, tokenizer, _ = models[request['model']]
        prompt, *_ = encode(tokenizer, request['messages' if can_chat else 'prompt'])
        stopped = row['ids'][-1] in tokenizer.stop
        assert stopped or len(prompt) + len(row['ids']) == CONTEXT + 1
    much = [[{**long[0][0], 'prompt': SOURCE}, False]]
    said = in_node(page, f'{ASK}; ask_all(given).catch(e => e.message)', much)
    assert f'context of {CONTEXT} tokens' in said


def test_a_verdict_belongs_to_the_answer_that_was_tested(shown):
    """To a problem at temperature 0, asked as when the file was written. A text ends before column 0."""
    page, _ = shown
    request = {'model': 'knows', 'task_id': 'odd/2', 'temperature': 0, 'top_k': 0, 'max_tokens': 99}
    chat, text, warm, short = in_node(page, f'{ASK}; ask_all(given)', [
        [request, True], [request, False], [{**request, 'temperature': 1e3}, True],
        [{**request, 'max_tokens': 1}, True]])
    assert chat['text'] == 'ok' and chat['verdict'] == {'outcome': 'wrong', 'message': MESSAGE, 'text': 'ok'}
    assert text['text'] == '' and len(text['ids']) == 2     # the healed newline, then a letter in column 0
    assert short['text'] == 'o' and warm['text'] != 'ok'
    assert [row['verdict']['outcome'] for row in (text, warm, short)] == ['', '', '']


# --- the file -----------------------------------------------------------------------------------------------
def test_the_file_needs_nothing_else(shown):
    page, _ = shown
    assert not re.search('https?:', page)
    code = re.sub('(?s)<script id="models".*?</script>', '', page)
    assert not re.search('fetch|XMLHttpRequest|WebSocket|import|Worker|/v1/', code)
    assert re.findall(r'(?:src|href)="(.*?)"', page) == ['data:,'] and "default-src 'none'" in page
    assert page.count('</script>') == page.count('<script') == 3
    data = json.loads(re.search('<script id="models".*?>(.*?)</script>', page, re.S)[1])
    assert [each['prompt'] for each in data['problems']] == [each['prompt'] for each in PROBLEMS]
    assert data['problems'][0]['tests'] == MESSAGE and 'solution' not in data['problems'][0]
    lines = (ROOT / 'extras/demo.js').read_text(encoding='utf-8').splitlines()
    assert len(lines) <= 400


def test_weights_are_rounded_to_8_bits_and_a_scale():
    torch.manual_seed(0)
    before = torch.randn(5, 300)
    before[3] = 0
    after = before.clone()
    exports.rounded(after)
    step = before.abs().amax(dim=1, keepdim=True) / 127
    assert ((after - before).abs() <= step * 0.5001).all() and (after[3] == 0).all()
    gain = torch.randn(300)
    rounded = gain.clone()
    exports.rounded(rounded)
    assert torch.equal(rounded, gain.bfloat16().float())


def test_the_command_writes_it_and_what_a_page_cannot_hold_is_one_sentence(tmp_path, monkeypatch):
    for name, more in ('base', {}), ('chat', {'config': {'stage': 'sft'}}):
        save_run(tmp_path / name, chain('\nok', '<|im_end|>'), TOKENIZER, **more)
    export = lambda *flags: run('sample.py', '--export=html', *flags, cwd=tmp_path)
    assert ok(export('--ckpt=base,chat', '--out=a.html')).startswith('a.html: 2 models in ')
    ok(export('--ckpt=chat', '--allow_code_execution=True'))
    models = []
    for name in 'a.html', 'demo.html':
        page = (tmp_path / name).read_text(encoding='utf-8')
        models += json.loads(re.search('<script id="models".*?>(.*?)</script>', page, re.S)[1])['models']
    assert [(model['id'], model['chat'], len(model['judged'])) for model in models] == [
        ('base', False, 0), ('chat', True, 0), ('chat', True, 100)]
    answers = models[2]['judged'].values()
    assert {(answer['text'], answer['outcome']) for answer in answers} == {('ok', 'exception')}
    mistake(export('--ckpt=chat', '--out=gone/a.html'), 'gone/a.html', '--out')

    path = tmp_path / 'no.html'
    write = lambda model, its=TOKENIZER: exports.publish_html(path, {'odd': (model, its, {})})
    for how in {'rope_scaling': (2.0,)}, {'qkv_bias': True}, {'qk_norm': True}:
        refused('our own bpe', write, lively(**how))
    for odd in Tokenizer.char('ab'), Tokenizer('bpe', TOKENIZER.vocab, pattern="(?i:'s)|[\\s\\S]"):
        refused('our own bpe', write, lively(), odd)
    monkeypatch.setattr(exports, 'LARGEST', 1000)
    refused('odd has 19,168 parameters, more than the 1,000 .*--serve', write, lively())
    assert not path.exists()
