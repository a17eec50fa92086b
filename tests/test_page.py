"""The page in Chromium: somebody types a prompt, and reads what sample.py prints."""
import contextlib
import fcntl
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time

import pytest
from conftest import ROOT, ok, run, save_run
from test_model import lively

from extras import export
from tokenizer import SPECIAL_TOKENS, Tokenizer

CHROMIUM = next(filter(shutil.which, ['chromium', 'chromium-browser', 'google-chrome']), None)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason='no Chromium to open the page in: apt-get install chromium')
SOURCE = open(__file__, encoding='utf-8').read()
PROMPT = 'def test_naïve(x):'
WIDTHS = 400, 1280                  # a phone, a laptop


class Browser:
    """Chromium without a window. It reads commands from its descriptor 3 and answers on 4: JSON, and a
    zero byte behind each (Chrome DevTools Protocol)."""

    def __init__(self, folder):
        theirs_in, self.commands = os.pipe()
        self.answers, theirs_out = os.pipe()
        # above 9, so that neither is overwritten before it is 3 or 4
        pair = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (theirs_in, theirs_out)]

        def connect():
            for fd, copy in zip((3, 4), pair):
                os.dup2(copy, fd)

        self.process = subprocess.Popen(
            [CHROMIUM, '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
             '--remote-debugging-pipe', f'--user-data-dir={folder}', 'about:blank'],
            preexec_fn=connect, pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for fd in theirs_in, theirs_out, *pair:
            os.close(fd)
        self.numbers, self.rest, self.faults = itertools.count(), b'', []

    def call(self, method, session=None, **params):
        """The result of a command. What the page reports in between is kept if it is a fault."""
        number = next(self.numbers)
        command = {'id': number, 'method': method, 'params': params}
        command |= {'sessionId': session} if session else {}
        os.write(self.commands, json.dumps(command).encode() + b'\0')
        while True:
            while b'\0' not in self.rest:
                piece = os.read(self.answers, 1 << 16)
                assert piece, 'Chromium has ended'
                self.rest += piece
            message, _, self.rest = self.rest.partition(b'\0')
            message = json.loads(message)
            if message.get('method') in ('Runtime.exceptionThrown', 'Log.entryAdded'):
                self.faults.append(message['params'])
            if message.get('id') == number:
                assert 'error' not in message, message
                return message['result']

    def page(self, address, width):
        """A function that computes an expression of JavaScript in this page."""
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        session = self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in 'Runtime', 'Log', 'Page':
            self.call(f'{domain}.enable', session)
        self.call('Emulation.setDeviceMetricsOverride', session, width=width, height=800,
                  deviceScaleFactor=1, mobile=width < 600)
        self.call('Page.navigate', session, url=address)

        def compute(expression):
            found = self.call('Runtime.evaluate', session, expression=expression, returnByValue=True)
            assert 'exceptionDetails' not in found, found
            return found['result'].get('value')

        def wait(expression):
            end = time.monotonic() + 60
            while not compute(expression):
                assert time.monotonic() < end, (expression, compute('document.body.innerText'))
                time.sleep(0.05)

        def type_in(text):
            """Type a text with the keyboard, and press Enter."""
            compute('document.getElementById("prompt").focus()')
            compute('document.getElementById("prompt").select()')
            self.call('Input.insertText', session, text=text)
            key = dict(key='Enter', code='Enter', windowsVirtualKeyCode=13, text='\r')
            self.call('Input.dispatchKeyEvent', session, type='keyDown', **key)
            self.call('Input.dispatchKeyEvent', session, type='keyUp', **key)
            wait('document.querySelector(".answer") && !document.getElementById("send").disabled')

        wait('document.querySelector("#columns section") !== null')         # it has the models
        compute.type_in = type_in
        return compute

    def end(self):
        with contextlib.suppress(OSError):
            self.call('Browser.close')
        self.process.wait(20)
        os.close(self.commands)
        os.close(self.answers)


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp('chromium'))
    yield browser
    browser.end()


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """A model that continues texts and one that chats, whose weights an export need not round."""
    home, tok = tmp_path_factory.mktemp('runs'), Tokenizer.train(SOURCE, 400, SPECIAL_TOKENS)
    small = dict(vocab_size=tok.vocab_size, block_size=128, n_ffn=44)
    for name, more in ('base', {}), ('chat', {'n_head': 2}):
        model = lively(0.3, **small, **more)
        for weight in model.state_dict().values():
            export.rounded(weight)
        save_run(home / name, model, tok, config={'stage': 'sft'} if name == 'chat' else {})
    return home


def sampled(folders):
    """What sample.py prints for the two, without the prompt."""
    how = [f'--prompt={PROMPT}', '--temperature=0', '--max_new_tokens=24']
    base = ok(run('sample.py', f'--ckpt={folders}/base', *how))
    chat = ok(run('sample.py', f'--ckpt={folders}/chat', '--chat', *how))
    return base, chat


@pytest.fixture(scope='module')
def addresses(folders):
    """Where the page is: a file, and a server."""
    both = f'--ckpt={folders}/base,{folders}/chat'
    ok(run('extras.export', both, '--to=html', f'--out={folders}/demo.html'))
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, '-m', 'extras.server', both, f'--port={port}'],
                              cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert re.search(str(port), server.stdout.readline())
    yield {'file': f'file://{folders}/demo.html', 'server': f'http://127.0.0.1:{port}/'}
    server.terminate()
    server.wait(20)


@pytest.mark.parametrize('where', ['file', 'server'])
@pytest.mark.parametrize('width', WIDTHS)
def test_who_types_a_prompt_reads_what_sample_py_prints(browser, folders, addresses, where, width):
    page = browser.page(addresses[where], width)
    page('document.getElementById("max_tokens").value = 24')
    page.type_in(PROMPT)
    answers = page('[...document.querySelectorAll(".answer")].map(answer => answer.textContent)')
    base, chat = sampled(folders)
    assert answers[0].strip() and answers[0] in base and answers[1].strip() in chat
    assert page('document.documentElement.scrollWidth') <= width, 'it is wider than the window'
    assert browser.faults == []
