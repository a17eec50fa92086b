"""The page that export.py writes: what its models answer in Chromium, and what it shows."""
import functools
import html
import json
import math
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from conftest import mistake, ok, refused, run, save_run, shared_fixture
from test_model import lively
from test_sample import TOKENIZER, alone, chain

from extras.models import export as exports
from extras.tasks import sandbox
from extras.training import tokenizer_report
from tokenizer import PATTERN, Answer, Tokenizer

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


def written(model, tokenizer, asked, n):
    """The answer at temperature 0, by the slow version, and the best log probabilities of its
    tokens."""
    best = []

    def draw(logits):
        best.extend(p for p in logits.log_softmax(-1).topk(4).values.tolist() if p > -math.inf)
        return logits.argmax(-1)

    return alone(model, tokenizer, asked, n, draw), best


# Appended to a page, it asks one request after the other, and tells all answers.
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


@shared_fixture
def shown(tmp_path_factory):
    """(ask(requests), {name: (model, tokenizer)}, the page of these models): grouped
    heads, a tied matrix, and one that says ok. A pattern of llama.cpp has ++, which JavaScript
    lacks."""
    ours, other = (Tokenizer.train(SOURCE + NASTY + SPACES, 700, pattern=pattern)
                   for pattern in (PATTERN, tokenizer_report.PATTERNS['cl100k']))
    small = dict(vocab_size=700, block_size=64, n_ffn=44)
    models = {'a "base"': (lively(0.3, **small, n_kv_head=2, tie_embeddings=False), ours),
              'chat': (lively(0.3, **small, n_head=2, rope_theta=500.0), other),
              'knows': (chain('\nok', '<|im_end|>', 256), TOKENIZER)}
    for name in 'chat', 'knows':
        models[name][0].saved = {'config': {'stage': 'sft'}}
    path = tmp_path_factory.mktemp('page') / 'demo.html'
    exports.publish_html(path, models, PROBLEMS, lambda jobs: [sandbox.Result('wrong', MESSAGE)] * len(jobs))
    page = path.read_text()

    def ask_page(*requests):
        asked = json.dumps(requests).replace('<', r'\u003c')
        path.write_text(page + ASK_ALL.replace('ASKED', asked))
        dom = visited(f'file://{path}')
        return json.loads(html.unescape(re.search('data-rows="(.*?)"', dom)[1]))

    return ask_page, models, page


# Appended to a page, it types and presses ask; then it tells errors, and how much wider all is than the
# window.
VISITOR = """<script>
onerror = onunhandledrejection = () => document.body.dataset.error = 'yes'
$('max_tokens').value = 24
$('prompt').value = 'def naïve(x):'
$('prompt').dispatchEvent(new Event('input'))
$('mode').value = 'text'
$('form').requestSubmit()
setInterval(() => document.body.dataset.wider = document.documentElement.scrollWidth - innerWidth, 1000)
</script>"""


@in_chromium
def test_a_link_to_a_problem_fills_in_the_question_and_nothing_is_asked_before_a_click(shown, tmp_path):
    """Any page of the web may open the address. Who clicks reads the answers of all models, also in a
    narrow window."""
    _, models, page = shown
    path = tmp_path / 'page.html'
    path.write_text(page)
    for link, number in ('#odd/3', 3), ('#nothing', 0):
        dom = visited(f'file://{path}{link}')
        tests, = re.findall('<section id="tests".*?>(.*?)</section>', dom, re.S)
        assert html.unescape(tests) == f'{MESSAGE} {number}'
        assert dom.count('data-model="') == 3 and 'class="answer"' not in dom
    path.write_text(page + VISITOR)
    dom = visited(f'file://{path}')
    texts = [html.unescape(re.sub('<.*?>', '', text))
             for text in re.findall('<span class="answer">(.*?)</span></div>', dom, re.S)]
    wanted = [written(*its[:2], 'def naïve(x):', 24)[0] for its in models.values()]
    # HTML writes no carriage returns and zero bytes as they are
    plain = lambda text: re.sub('[\0-\x20\x7f\ufffd]', '', text)
    assert [*map(plain, texts)] == [*map(plain, wanted)] and any(wanted)
    assert 'data-error' not in dom and int(re.search('data-wider="(.*?)"', dom)[1]) <= 0
    exports.publish_html(path, {'knows': models['knows']}, [], None)
    path.write_text(path.read_text() + '<script>document.body.dataset.seen = document.body.innerText</script>')
    seen = re.search('data-seen="(.*?)"', visited(f'file://{path}'), re.S)[1]
    assert 'write a question' in seen and not re.search('problem|Python|test|verdict', seen)


@in_chromium
def test_ids_probabilities_and_texts_of_the_page_are_torchs(shown):
    """Of pieces of hard texts, cut anywhere. The answers to the last end with the context."""
    ask_page, models, _ = shown
    text, requests, wanted = NASTY + SOURCE + SPACES, [], []
    for i in range(30):
        name, source = ('chat', 'messages') if i % 2 else ('a "base"', 'prompt')
        piece = text[i * 397 % 9000:][:5 + i % 21]
        asked = [{'role': 'user', 'content': piece}] if i % 2 else piece
        begun = Answer(models[name][1], asked, 1)
        n = 20 if i < 28 else 65 - len(begun.ids) - bool(begun.prefix)
        wanted.append(written(*models[name], asked, n))
        requests.append([{'model': name, source: asked, 'max_tokens': n if i < 28 else 99,
                          'temperature': 0, 'top_k': 0}, bool(i % 2)])
    for row, (text, best) in zip(ask_page(*requests), wanted, strict=True):
        assert row['text'] == text
        rivals = [rival['logprob'] for token in row['tokens'] for rival in token['top_logprobs']]
        assert rivals == pytest.approx(best, abs=1e-3)
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


def test_the_command_writes_the_page_and_what_it_cannot_hold_is_one_sentence(monkeypatch):
    save_run('chat', chain('\nok', '<|im_end|>'), TOKENIZER, config={'stage': 'sft'})
    save_run('odd', lively(vocab_size=2), Tokenizer.char('ab'))
    export = functools.partial(run, 'extras.models.export')
    ok(export('--to=html --ckpt=chat --out=a.html'))
    page = in_page(Path('a.html').read_text())
    assert page['models'][0]['chat'] and not page['models'][0]['judged']
    assert page['problems'] == []               # problems, and programs, only if that is typed
    mistake(export('--to=html --ckpt=odd'), "odd can't be in a page, because its tokenizer (char) is not of "
            'prepare.py --tokenizer=bpe; use sample.py')
    mistake(export('--ckpt=odd,chat'), 'takes one --ckpt')
    monkeypatch.setattr(exports, 'LARGEST', 99_999)
    for how, reason in (({'rope_scaling': (2.0,)}, 'context was extended'), ({'qkv_bias': True}, 'is a Qwen'),
                        ({'qk_norm': True}, 'is a Qwen'), ({'n_embd': 96}, 'parameters, more than 99,999;')):
        refused(f'because it.* {reason}', exports.publish_html, Path('no.html'),
                {'odd': (lively(**how), TOKENIZER)}, PROBLEMS, None)
