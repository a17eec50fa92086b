"""
Serving: a small HTTP server for OpenAI's API and a page, with limits on what a client may cost.

    run(('127.0.0.1', 8000), api)               # until SIGTERM or Ctrl-C; api: as in openai_api.py

api.listing() gives the models. api.answer(fields, chat) yields the parts of an answer, None when there is
nothing new; closing it frees what it holds. api.Refusal(status, sentence) is an exception that becomes an
answer with that status.

On this machine's own address a key may be left out. Then the Host header must name this machine, so that a
foreign page cannot reach us by a name of its own that leads here (DNS rebinding). Origin must be ours.
Copy this file alone: it needs the standard library, and page.html beside it for the page at /.
"""
import contextlib, dataclasses, hashlib, hmac, http.server, json, os, pathlib, re, signal, socket, sys
import threading, time, traceback, urllib.parse

LOCAL = '127.0.0.1', 'localhost'


@dataclasses.dataclass
class Limits:
    body: int = 1_000_000       # bytes of a request
    client: float = 30.0        # seconds in which a client sends, or takes, some bytes
    answer: float = 300.0       # seconds for an answer, waiting included
    connections: int = 256      # a thread each


class Handler(http.server.BaseHTTPRequestHandler):
    """One request, in a thread of its own. It speaks HTTP/1.0: each answer ends with its connection."""
    server_version, sys_version = 'nanoparrot', ''
    streaming = False
    log_message = lambda self, *_: None         # prompts and addresses are nobody's business

    def setup(self):
        self.timeout = self.server.limits.client
        self.refusal = self.server.api.Refusal
        super().setup()

    def finish(self):
        """Close, but first read the rest of the request: else the kernel resets, and our answer is lost."""
        super().finish()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(min(1.0, self.timeout))
            for _ in range(1000):
                if not self.connection.recv(65536):
                    break

    def route(self):
        try:
            self.check_sender()
            self.answer()
        except self.refusal as e:
            self.refuse(e)
        except OSError:                         # the client went away, or does not read
            pass
        except Exception:
            traceback.print_exc()
            self.refuse(self.refusal(500, 'the server made a mistake; its log says which'))

    do_GET = do_POST = route

    def check_sender(self):
        host = self.headers.get('Host', '')
        if self.server.local and not self.server.key and re.sub(r':\d*$', '', host).lower() not in LOCAL:
            raise self.refusal(403, 'the Host header must name this machine: localhost or 127.0.0.1')
        if self.headers.get('Origin', f'http://{host}') not in (f'http://{host}', f'https://{host}'):
            raise self.refusal(403, 'the page of another site may not ask here')
        digest = lambda text: hashlib.sha256(text.encode('latin-1', 'replace')).digest()    # equal lengths
        key = self.headers.get('Authorization', '')
        right = hmac.compare_digest(digest(key), digest(f'Bearer {self.server.key}'))
        if self.server.key and not right and self.path.split('?')[0] != '/':    # the page is no secret
            raise self.refusal(401, 'send the key of this server: Authorization: Bearer KEY')

    def answer(self):
        path = urllib.parse.unquote(self.path.split('?')[0])
        models = self.server.api.listing()
        pages = {'/v1/models': {'object': 'list', 'data': models}}
        pages |= {f'/v1/models/{model["id"]}': model for model in models}
        if self.command == 'POST' and path in ('/v1/completions', '/v1/chat/completions'):
            self.write(self.fields(), 'chat' in path)
        elif self.command == 'GET' and path == '/':
            self.send(200, self.server.page, 'text/html; charset=utf-8')
        elif self.command == 'GET' and path in pages:
            self.send(200, json.dumps(pages[path]).encode())
        else:
            raise self.refusal(404, f'there is nothing to {self.command} at {path[:100]}; see /v1/models')

    def fields(self):
        """The JSON object of the body."""
        length = self.headers.get('Content-Length', '0')
        if not re.fullmatch('[0-9]{1,18}', length):
            raise self.refusal(400, 'Content-Length must be a whole number')
        if int(length) > self.server.limits.body:
            raise self.refusal(413, f'the request has {length} bytes, more than {self.server.limits.body}')
        try:
            body = self.rfile.read(int(length))
            fields = json.loads(body.decode())
        except TimeoutError:
            raise self.refusal(408, f'nothing came for {self.timeout:g} s') from None
        except (ValueError, RecursionError) as e:
            raise self.refusal(400, f'the body must be JSON in UTF-8: {str(e)[:200]}') from None
        if not isinstance(fields, dict):
            raise self.refusal(400, 'the body must be a JSON object')
        return fields

    def write(self, fields, chat):
        """Pass on what the model writes, as long as the client is there and the time is not over."""
        until = time.monotonic() + self.server.limits.answer
        with contextlib.closing(self.server.api.answer(fields, chat)) as parts:     # closing frees the rows
            for part in parts:
                if self.has_gone():
                    return
                if time.monotonic() > until:
                    raise self.refusal(504, f'the answer took more than {self.server.limits.answer:g} s')
                if part is not None and fields.get('stream'):
                    self.event(json.dumps(part))
                elif part is not None:
                    self.send(200, json.dumps(part).encode())
        if self.streaming:
            self.event('[DONE]')

    def has_gone(self):
        """Did the client close the connection?"""
        self.connection.settimeout(0)
        try:
            return self.connection.recv(1, socket.MSG_PEEK) == b''
        except BlockingIOError:
            return False
        finally:
            self.connection.settimeout(self.timeout)

    def event(self, text):
        """One server-sent event; before the first, the headers."""
        if not self.streaming:
            self.start(200, 'text/event-stream')
            self.streaming = True
        self.wfile.write(f'data: {text}\n\n'.encode())

    def send(self, status, data, kind='application/json'):
        self.start(status, kind)
        self.wfile.write(data)

    def start(self, status, kind):
        self.send_response(status)
        self.send_header('Content-Type', kind)
        self.send_header('X-Content-Type-Options', 'nosniff')
        self.send_header('X-Frame-Options', 'DENY')
        self.send_header('Cache-Control', 'no-store')
        self.end_headers()

    def refuse(self, refusal):
        """Answer with a status and a sentence, in OpenAI's form."""
        kind = 'server_error' if refusal.status >= 500 else 'invalid_request_error'
        error = {'message': str(refusal), 'type': kind, 'code': None, 'param': refusal.param}
        text = json.dumps({'error': error})
        with contextlib.suppress(OSError):
            if self.streaming:
                self.event(text)
            else:
                self.send(refusal.status, text.encode())

    def send_error(self, code, message=None, explain=None):     # the library found a mistake in the request
        self.refuse(self.refusal(code, message or 'this is not an HTTP request that we understand'))


class Server(http.server.ThreadingHTTPServer):
    """Listens on (host, port). ValueError for a bad key or port; only LOCAL hosts may do without a key."""
    daemon_threads = False          # so server_close() waits for the requests that run
    request_queue_size = 128
    allow_reuse_address = os.name == 'posix'

    def __init__(self, address, api, key='', limits=None):
        self.api = api
        self.key = key
        self.limits = limits or Limits()
        self.local = address[0] in LOCAL
        if not self.local and not key:
            raise ValueError(f'host={address[0]} lets other machines ask, which needs a key; type first: '
                             'export NANOPARROT_API_KEY=$(openssl rand -hex 16)')
        if key and not re.fullmatch('[!-~]{16,}', key):
            raise ValueError('the key must have at least 16 visible ASCII characters, without spaces')
        self.page = pathlib.Path(__file__).with_name('page.html').read_bytes()
        try:
            super().__init__(address, Handler)
        except OSError as e:
            raise ValueError(f'cannot listen on {address[0]}, port {address[1]}: {e.strerror}; try another '
                             'port, such as --serve=8001') from e

    def verify_request(self, request, client_address):
        return threading.active_count() <= self.limits.connections      # else it is closed

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):      # a client may go away at any time
            super().handle_error(request, client_address)


def run(address, api):
    """Serve until SIGTERM or Ctrl-C, then finish the requests that run. A second signal ends at once."""
    def end(*_):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        threading.Thread(target=server.shutdown).start()    # it waits for serve_forever(), which we interrupt

    with Server(address, api, os.environ.get('NANOPARROT_API_KEY', '')) as server:
        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)
        print(f'http://{address[0]}:{server.server_address[1]} answers; Ctrl-C ends it', flush=True)
        server.serve_forever(poll_interval=0.1)
