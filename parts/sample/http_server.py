"""
Serving: a small HTTP server for OpenAI's API and a page, for the programs of this machine.

    run(8000, api)              # until SIGTERM or Ctrl-C; api: as in openai_api.py

api.lists: {path: what a GET finds there}. api.answer(fields, chat) yields the parts of an answer, None when
there is nothing new; closing it frees what it holds. api.verdict(fields) judges one. api.Refusal(status,
sentence) is an exception that becomes an answer with that status.

Other machines cannot connect. But a page of another site, open in a browser here, could ask in its user's
name. So Origin must be ours; and Host must name this machine, because a foreign name may lead here (DNS
rebinding).
"""
import contextlib, http.server, json, os, pathlib, re, signal, socket, sys, time, traceback


class Handler(http.server.BaseHTTPRequestHandler):
    """One request, in a thread of its own. It speaks HTTP/1.0: each answer ends with its connection."""
    server_version, sys_version = 'nanoparrot', ''
    streaming = False
    log_message = lambda self, *_: None         # prompts are nobody's business

    def setup(self):
        self.timeout = self.server.client_seconds
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
        path = self.path.split('?')[0]
        try:
            host = self.headers.get('Host', '')
            if re.sub(r':\d*$', '', host).lower() not in ('127.0.0.1', 'localhost'):
                raise self.refusal(403, 'the Host header must name this machine: localhost or 127.0.0.1')
            if self.headers.get('Origin', f'http://{host}') != f'http://{host}':
                raise self.refusal(403, 'the page of another site may not ask here')
            if self.command == 'POST' and path in ('/v1/completions', '/v1/chat/completions'):
                self.write(self.fields(), 'chat' in path)
            elif self.command == 'POST' and path == '/run':
                self.send(200, json.dumps(self.server.api.verdict(self.fields())).encode())
            elif self.command == 'GET' and path in self.server.api.lists:
                found = {'object': 'list', 'data': self.server.api.lists[path]}
                self.send(200, json.dumps(found).encode())
            elif self.command == 'GET' and path == '/':
                page = pathlib.Path(__file__).with_name('page.html').read_bytes()
                self.send(200, page, 'text/html; charset=utf-8')
            else:
                raise self.refusal(404, f'there is nothing to {self.command} at {path[:100]}; see /v1/models')
        except self.refusal as e:
            self.refuse(e)
        except OSError:                         # the client went away, or does not read
            pass
        except Exception:
            traceback.print_exc()
            self.refuse(self.refusal(500, 'the server made a mistake; its log says which'))

    do_GET = do_POST = route

    def fields(self):
        length = self.headers.get('Content-Length', '0')
        if not re.fullmatch('[0-9]{1,18}', length):
            raise self.refusal(400, 'Content-Length must be a whole number')
        if int(length) > self.server.body_bytes:
            raise self.refusal(413, f'the request has {length} bytes, more than {self.server.body_bytes}')
        try:
            fields = json.loads(self.rfile.read(int(length)).decode())
        except (ValueError, RecursionError) as e:
            raise self.refusal(400, f'the body must be JSON in UTF-8: {str(e)[:200]}') from None
        if not isinstance(fields, dict):
            raise self.refusal(400, 'the body must be a JSON object')
        return fields

    def write(self, fields, chat):
        """Pass on what the model writes, until the time is over or a part can no longer be sent."""
        until = time.monotonic() + self.server.answer_seconds
        with contextlib.closing(self.server.api.answer(fields, chat)) as parts:     # closing frees the rows
            for part in parts:
                if time.monotonic() > until:
                    raise self.refusal(504, f'the answer took more than {self.server.answer_seconds:g} s')
                if part is not None and fields.get('stream'):
                    self.event(json.dumps(part))
                elif part is not None:
                    self.send(200, json.dumps(part).encode())
        if self.streaming:
            self.event('[DONE]')

    def event(self, text):
        """One server-sent event; before the first, the headers."""
        if not self.streaming:
            self.send(200, b'', 'text/event-stream')
            self.streaming = True
        self.wfile.write(f'data: {text}\n\n'.encode())

    def send(self, status, data, kind='application/json'):
        self.send_response(status)
        self.send_header('Content-Type', kind)
        self.send_header('X-Content-Type-Options', 'nosniff')
        self.send_header('X-Frame-Options', 'DENY')
        self.send_header('Cache-Control', 'no-store')
        self.end_headers()
        self.wfile.write(data)

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


class Server(http.server.ThreadingHTTPServer):
    """Listens on a port of this machine's own address; on 0, a free one. ValueError if it is taken."""
    body_bytes = 1_000_000          # the most in a request
    client_seconds = 10.0           # in which a client sends, or takes, some bytes
    answer_seconds = 300.0          # for an answer, waiting included
    daemon_threads = False          # so server_close() waits for the requests that run
    request_queue_size = 128
    allow_reuse_address = os.name == 'posix'

    def __init__(self, port, api):
        self.api = api
        try:
            super().__init__(('127.0.0.1', port), Handler)
        except OSError as e:
            raise ValueError(f'cannot listen on port {port}: {e.strerror}; try another port') from e

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):      # a client may go away at any time
            super().handle_error(request, client_address)


def run(port, api):
    """Serve until SIGTERM or Ctrl-C, then finish the requests that run."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)       # as Ctrl-C
    with Server(port, api) as server, contextlib.suppress(KeyboardInterrupt):
        print(f'http://127.0.0.1:{server.server_port} answers; Ctrl-C ends it', flush=True)
        server.serve_forever(poll_interval=0.1)
