"""The page of the server in a real browser: it works, and its console stays empty, on a narrow screen too."""
import os
import re
import shutil
import threading

import pytest
from serving import serving, small


@pytest.fixture(scope='module')
def pairs():
    return {'out/sft': small(), 'out/base': small(seed=1)}


@pytest.fixture(scope='module')
def browser():
    """A Chromium: $NANOPARROT_CHROMIUM, one on the PATH, or that of `playwright install chromium`."""
    playwright = pytest.importorskip('playwright.sync_api', reason='pip install playwright: drives a browser')
    names = ('chromium', 'chromium-browser', 'google-chrome')
    path = os.environ.get('NANOPARROT_CHROMIUM') or next(filter(None, map(shutil.which, names)), None)
    with playwright.sync_playwright() as p:
        if not os.path.exists(path or p.chromium.executable_path):
            pytest.skip('there is no Chromium here: playwright install chromium')
        flags = ['--no-sandbox', '--single-process', '--no-zygote']     # as in a container
        browser = p.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope='module', params=[(1200, 800), (320, 640)], ids=['wide', 'narrow'])
def page(request, browser, pairs):
    """An open page, in a window of this size; at the end, there were no messages on its console."""
    with serving(pairs, slots=4) as server:
        page = browser.new_page(viewport=dict(zip(('width', 'height'), request.param)))
        said = []
        page.on('console', lambda message: said.append(message.text))
        page.on('pageerror', lambda error: said.append(str(error)))
        page.goto('http://{}:{}/'.format(*server.server_address))
        page.wait_for_selector('section')
        yield page
        assert said == [] or said == [m for m in said if '400 (Bad Request)' in m], said


def send(page, text):
    page.fill('#prompt', text)
    page.press('#prompt', 'Enter')
    page.wait_for_selector('#send:enabled')


def test_both_models_answer_with_the_probability_of_each_token(page):
    page.fill('#max_tokens', '12')
    send(page, 'hi <img src=x onerror=alert(1)>')
    assert page.locator('section h2').all_inner_texts() == ['out/sft', 'out/base']
    for i in range(2):
        section = page.locator('section').nth(i)
        assert section.locator('.user').inner_text() == 'hi <img src=x onerror=alert(1)>'
        spans = section.locator('.answer span')
        assert 3 <= spans.count() <= 12
        tips = spans.evaluate_all('spans => spans.map(span => span.dataset.tip)')
        assert all(re.search(r'^".*"  [\d.e+-]+ %$', tip.splitlines()[0]) for tip in tips)
        spans.filter(has_text=re.compile(r'\S')).first.hover()
        assert '%' in page.locator('#tip').inner_text() and page.locator('#tip').is_visible()
        box = page.locator('#tip').bounding_box()
        assert box['x'] >= 0 and box['x'] + box['width'] <= page.viewport_size['width']
    assert page.locator('img').count() == 0
    assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')


def test_a_second_message_continues_the_dialogue_and_clear_forgets_it(page):
    asked = []
    page.on('request', lambda request: asked.append(request.post_data_json) if request.post_data else None)
    send(page, 'more')
    assert [m['role'] for m in asked[0]['messages']] == ['user', 'assistant', 'user']
    page.click('#clear')
    assert page.locator('.said').count() == 0
    send(page, 'anew')
    assert [m['role'] for m in asked[2]['messages']] == ['user']


def test_a_text_is_continued_and_a_mistake_is_told(page):
    page.select_option('#mode', 'text')
    page.select_option('#beside', '')
    send(page, 'def f(')
    assert page.locator('section').count() == 1 and page.locator('.answer span').count() >= 1
    page.fill('#temperature', '7')
    send(page, 'x')
    assert page.locator('.error').inner_text() == 'temperature=7 must be a number from 0 to 2'


def test_stop_ends_an_answer(browser, pairs):
    model = pairs['out/sft'][0]
    with serving({'m': pairs['out/sft']}) as server:
        page = browser.new_page()
        page.goto('http://{}:{}/'.format(*server.server_address))
        page.wait_for_selector('section')
        model.gate.clear()
        page.fill('#prompt', 'x')
        page.click('#send')
        page.click('#stop')
        page.wait_for_selector('#send:enabled')
        threading.Timer(0.5, model.gate.set).start()
        assert page.locator('.error').count() == 0 and page.locator('#send').is_enabled()


def test_a_page_asks_for_the_key(browser, pairs):
    with serving(pairs, key='k' * 16) as server:
        page = browser.new_page()
        page.goto('http://{}:{}/'.format(*server.server_address))
        page.wait_for_selector('#key', state='visible')
        page.fill('#key', 'k' * 16)
        page.press('#key', 'Tab')
        page.wait_for_selector('section')
        assert page.locator('#state').inner_text() == ''
