"""
Serving: a small HTTP server for OpenAI's API and a page, with limits on what a client may cost.

    run(('127.0.0.1', 8000), api)               # until SIGTERM or Ctrl-C; api: as in completions.py

api.listing() gives the models. api.answer(fields, chat) yields the parts of an answer, None when there is
nothing new; closing it frees what it holds. An exception with .status becomes an answer with that status.

On this machine's own address a key may be left out. Then the Host header must name this machine, so that a
foreign page cannot reach us by a name of its own that leads here (DNS rebinding). Origin must be ours.
Copy this file alone: it needs the standard library, and page.html beside it for the page at /.
"""
import contextlib, dataclasses, hashlib, hmac, http.server, io, json, os, pathlib, re, signal, socket
import socketserver, sys, threading, time, traceback, urllib.parse

LOCAL = '127.0.0.1', 'localhost'


@dataclasses.dataclass
class Limits:
    body: int = 1_000_000       # bytes of a request
    client: float = 30.0        # seconds for a client to send a request, or to accept a part of the answer
    answer: float = 300.0       # seconds for an answer, waiting included
    connections: int = 256      # a thread each


class Refusal(Exception):
    """A request that gets a status and a sentence in place of an answer."""

    def __init__(self, status, sentence):
        super().__init__(sentence)
        self.status = status


class Reader(io.RawIOBase):
    """Reads a socket until the moment `until`, however slowly the bytes come; then TimeoutError."""

    def __init__(self, connection):
        self.connection, self.until = connection, 0.0

    readable = lambda self: True

    def readinto(self, buffer):
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.connection.settimeout(left)
        return self.connection.recv_into(buffer)


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection, in a thread of its own."""
    protocol_version = 'HTTP/1.1'
    server_version, sys_version = 'nanoparrot', ''
    disable_nagle_algorithm = True              # else the body waits 40 ms for the headers to be confirmed
    log_message = lambda self, *_: None         # prompts and addresses are nobody's business

    def setup(self):
        super().setup()
        self.rfile = io.BufferedReader(Reader(self.connection))

    def handle_one_request(self):
        self.rfile.raw.until = time.monotonic() + self.server.limits.client
        self.streaming = False
        super().handle_one_request()

    def parse_request(self):
        try:
            return super().parse_request()
        except TimeoutError:
            self.refuse(Refusal(408, 'the headers did not arrive in time'))
            return False

    def send_error(self, code, message=None, explain=None):     # the library found a mistake in the headers
        self.refuse(Refusal(code, message or 'this is not an HTTP request that we understand'))

    def finish(self):
        """Close, but first read the rest of the request: else the kernel resets, and our answer is lost."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.rfile.raw.until = time.monotonic() + min(2.0, self.server.limits.client)
            while self.rfile.raw.readinto(bytearray(65536)):
                pass

    def route(self):
        try:
            self.read_body()
            self.check_sender()
            self.answer()
        except OSError:                         # the client went away, or does not read
            self.close_connection = True
        except Exception as e:
            if not hasattr(e, 'status'):
                traceback.print_exc()
                e = Refusal(500, 'the server made a mistake; its log says which')
            self.refuse(e)
        finally:
            self.server.active.discard(self)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = route

    def read_body(self):
        length = self.headers.get_all('Content-Length', ['0'])
        if 'Transfer-Encoding' in self.headers:
            raise Refusal(411, 'send Content-Length: chunked requests are not read here')
        if len(length) > 1 or not re.fullmatch('[0-9]{1,18}', length[0]):
            raise Refusal(400, 'Content-Length must be one whole number')
        if int(length[0]) > self.server.limits.body:
            raise Refusal(413, f'the request has {length[0]} bytes, more than {self.server.limits.body}')
        try:
            self.body = self.rfile.read(int(length[0]))
        except TimeoutError:
            raise Refusal(408, f'the request did not arrive within {self.server.limits.client:g} s') from None
        if len(self.body) < int(length[0]):
            raise ConnectionResetError

    def check_sender(self):
        host = self.headers.get('Host', '')
        if self.server.local and not self.server.key and re.sub(r':\d*$', '', host).lower() not in LOCAL:
            raise Refusal(403, 'the Host header must name this machine: localhost or 127.0.0.1')
        if self.headers.get('Origin', f'http://{host}') not in (f'http://{host}', f'https://{host}'):
            raise Refusal(403, 'the page of another site may not ask here')
        digest = lambda text: hashlib.sha256(text.encode('latin-1', 'replace')).digest()    # equal lengths
        given = self.headers.get('Authorization', '')
        right = hmac.compare_digest(digest(given), digest(f'Bearer {self.server.key}'))
        if self.server.key and not right and self.path.split('?')[0] != '/':    # the page is no secret
            raise Refusal(401, 'send the key of this server: Authorization: Bearer KEY')

    def answer(self):
        path = urllib.parse.unquote(self.path.split('?')[0])
        models = self.server.api.listing()
        found = {'/': self.server.page, '/v1/models': {'object': 'list', 'data': models},
                 **{f'/v1/models/{model["id"]}': model for model in models}}
        asks = path in ('/v1/completions', '/v1/chat/completions')
        if path not in found and not asks:
            raise Refusal(404, f'there is nothing at {path[:100]}; see /v1/models')
        if self.command != ('POST' if asks else 'GET'):
            raise Refusal(405, f'{path} takes {"POST" if asks else "GET"} only')
        if asks:
            self.write(self.fields(), 'chat' in path)
        else:
            self.send(200, found[path], 'text/html; charset=utf-8' if path == '/' else 'application/json')

    def fields(self):
        """The JSON object of the body."""
        try:
            fields = json.loads(self.body.decode())
        except (ValueError, RecursionError) as e:
            raise Refusal(400, f'the body must be JSON in UTF-8: {str(e)[:200]}') from None
        if not isinstance(fields, dict):
            raise Refusal(400, 'the body must be a JSON object')
        return fields

    def write(self, fields, chat):
        """Pass on what the model writes, as long as the client is there and the time is not over."""
        self.server.active.add(self)
        if self.server.draining:
            raise Refusal(503, 'this server is about to end; ask again later')
        until = time.monotonic() + self.server.limits.answer
        with contextlib.closing(self.server.api.answer(fields, chat)) as parts:     # closing frees the rows
            for part in parts:
                if self.has_gone():
                    raise ConnectionResetError
                if time.monotonic() > until:
                    raise Refusal(504, f'the answer took more than {self.server.limits.answer:g} s')
                if part is not None and fields.get('stream'):
                    self.event(part)
                elif part is not None:
                    self.send(200, part)
        if self.streaming:
            self.event('[DONE]')

    def has_gone(self):
        """Did the client close the connection?"""
        self.connection.setblocking(False)
        try:
            return self.connection.recv(1, socket.MSG_PEEK) == b''
        except BlockingIOError:
            return False

    def event(self, part):
        """One server-sent event; before the first of an answer, the headers."""
        if not self.streaming:
            self.start(200, {'Content-Type': 'text/event-stream', 'Connection': 'close'})
            self.streaming = self.close_connection = True
        self.connection.settimeout(self.server.limits.client)
        text = part if isinstance(part, str) else json.dumps(part)
        self.wfile.write(f'data: {text}\n\n'.encode())

    def send(self, status, body, kind='application/json', **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.start(status, {'Content-Type': kind, 'Content-Length': str(len(data)), **headers})
        self.wfile.write(b'' if self.command == 'HEAD' else data)

    def start(self, status, headers):
        self.connection.settimeout(self.server.limits.client)
        self.send_response(status)
        safe = {'X-Content-Type-Options': 'nosniff', 'X-Frame-Options': 'DENY', 'Cache-Control': 'no-store'}
        for name, value in {**safe, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def refuse(self, refusal):
        """Answer with a status and a sentence, then close."""
        kind = 'server_error' if refusal.status >= 500 else 'invalid_request_error'
        error = {'error': {'message': str(refusal), 'type': kind, 'code': None,
                           'param': getattr(refusal, 'param', None)}}
        self.close_connection = True
        with contextlib.suppress(OSError):
            if self.streaming:
                self.event(error)
            else:
                self.send(refusal.status, error, Connection='close')


class Server(socketserver.ThreadingTCPServer):
    """Listens on (host, port). ValueError for a bad key or port; only LOCAL hosts may do without a key."""
    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = os.name == 'posix'
    timeout = 0.1

    def __init__(self, address, api, key='', limits=None):
        self.api, self.key, self.limits = api, key, limits or Limits()
        self.local = address[0] in LOCAL
        if not self.local and not key:
            raise ValueError(f'host={address[0]} lets other machines ask, which needs a key; type first: '
                             'export NANOPARROT_API_KEY=$(openssl rand -hex 16)')
        if key and not re.fullmatch('[!-~]{16,}', key):
            raise ValueError('the key must have at least 16 visible ASCII characters, without spaces')
        self.page = pathlib.Path(__file__).with_name('page.html').read_bytes()
        self.active = set()             # the handlers of running answers: their end is waited for
        self.draining = False
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
    server = Server(address, api, os.environ.get('NANOPARROT_API_KEY', ''))

    def end(*_):
        server.draining = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    print(f'http://{address[0]}:{server.server_address[1]} answers; Ctrl-C ends it', flush=True)
    with server:
        while server.active or not server.draining:
            server.handle_request()         # of one connection; or 0.1 s pass
