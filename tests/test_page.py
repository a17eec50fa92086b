"""The page in Chromium: somebody types a prompt, and reads what sample.py prints."""
import html
import json
import re
import shutil
import subprocess

import pytest
from conftest import ok, run, save_run
from test_model import lively
from test_serve import serving

from extras import answers, export
from tokenizer import SPECIAL_TOKENS, Tokenizer

CHROMIUM = next(filter(shutil.which, ['chromium', 'chromium-browser', 'google-chrome']), None)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason='no Chromium to open the page in: apt-get install chromium')
PROMPT = 'def test_naïve(x):'
# What is appended to the page: it types and presses ask, then tells errors, and how wide all is.
VISITOR = f'''<script>
onerror = onunhandledrejection = error => document.body.dataset.error = error.message ?? error.reason
setTimeout(() => {{
  document.getElementById('max_tokens').value = 24
  document.getElementById('prompt').value = {json.dumps(PROMPT)}
  document.getElementById('prompt').dispatchEvent(new Event('input'))
  document.getElementById('form').requestSubmit()
}}, 1000)
setInterval(() => document.body.dataset.width = document.documentElement.scrollWidth - innerWidth, 500)
</script>'''


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """A model that continues texts and one that chats, whose weights an export need not round."""
    home = tmp_path_factory.mktemp('runs')
    tokenizer = Tokenizer.train([open(__file__, encoding='utf-8').read()], 400, SPECIAL_TOKENS)
    for name, more in ('base', {}), ('chat', {'stage': 'sft'}):
        model = lively(0.3, vocab_size=tokenizer.vocab_size, block_size=128, n_ffn=44)
        for weight in model.state_dict().values():
            export.rounded(weight)
        save_run(home / name, model, tokenizer, config=more)
    return home


@pytest.mark.parametrize('where, width', [('file', 500), ('server', 1280)])
def test_who_types_a_prompt_reads_what_sample_py_prints(folders, tmp_path, where, width):
    def dom(address):
        return subprocess.run(
            [CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
             f'--user-data-dir={tmp_path}/profile', f'--window-size={width},800', '--dump-dom',
             '--virtual-time-budget=60000', address],
            capture_output=True, encoding='utf-8', timeout=240).stdout

    both = f'{folders}/base,{folders}/chat'
    if where == 'file':
        page = tmp_path / 'demo.html'
        ok(run('extras.export', f'--ckpt={both}', '--to=html', f'--out={page}'))
        page.write_text(page.read_text('utf-8') + VISITOR, encoding='utf-8')
        found = dom(f'file://{page}')
    else:
        with serving(answers.open_models(both)) as server:
            server.pages['/'][0] += VISITOR.encode()
            found = dom(f'http://127.0.0.1:{server.server_port}/')
    shown = [html.unescape(re.sub('<.*?>', '', text))
             for text in re.findall('<span class="answer">(.*?)</span></div>', found, re.S)]
    assert len(shown) == 2 and 'data-error' not in found, found
    assert int(re.search('data-width="(.*?)"', found)[1]) <= 0, 'it is wider than the window'
    for name, text, more in zip(('base', 'chat'), shown, ([], ['--chat'])):
        said = ok(run('sample.py', f'--ckpt={folders}/{name}', f'--prompt={PROMPT}',
                      '--temperature=0', '--max_new_tokens=24', *more))
        assert text.strip() and text in said, (text, said)
