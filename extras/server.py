"""
The server: a page, and OpenAI's API, for the programs of this machine.

    run(8000, {'out/sft': (model, tokenizer, {'stage': 'sft'})}, encode, write)     # until Ctrl-C

    GET /                               the page, page.html
    GET /v1/models, /problems           what can answer, and what it can be asked
    POST /v1/completions                {"prompt": "def f("} -> a text that goes on
    POST /v1/chat/completions           {"messages": [{"role": "user", "content": "hi"}]} -> a reply

encode and write are sample.py's. A model writes one answer at a time, so whoever asks next waits.
An answer ends where the context ends, or earlier. Its first token may be the prompt's last one,
written again. Log probabilities are of temperature 1, over the tokens that may come. top_k is ours,
and so is task_id in place of a prompt: a problem, whose tests judge the answer. The rest is a
subset of OpenAI's API: see api_fields.py.

Other machines cannot connect. But a page of another site, open in a browser here, could ask in its
user's name. So Origin must be ours; and Host must name this machine, because a foreign name may
lead here (DNS rebinding).
"""
import contextlib, http.server, json, math, pathlib, random, secrets, signal, socket, threading
import time, traceback
import regex
from configurator import Mistake
from extras import api_fields, grading, questions, sandbox
from model import sample

GRACE = 5                       # seconds for the requests that run when the server ends
NO_TESTS = ('no tests: this server may not run programs; read extras/sandbox.py, then start it '
            'with --allow_code_execution=True')


# --- a request is answered ------------------------------------------------------------------------
# Whatever is wrong with a request is a Mistake of two arguments: a sentence and, if it is not 400,
# a status of HTTP.
def found(known, name, path):
    """Return what has this name."""
    if name not in known:
        raise Mistake(f'{name!r:.60} is not known here; see {path}', 404)
    return known[name]


def drawing(tokenizer, seed, how, log, n_rivals):
    """Return a function for write(), logits (1, V) -> token (1,). It appends to log each token and
    its rivals with their log probabilities, in OpenAI's form of a chat."""
    dice = random.Random(seed)

    def draw(logits):
        token = sample(logits, **how, u=logits.new_tensor([dice.random()]))
        log_p = logits.log_softmax(dim=-1)[0]  # (V,)
        rivals = log_p.topk(min(n_rivals, len(log_p))).indices.tolist()
        drawn, *others = [{'token': tokenizer.decode([id]), 'logprob': max(-9999.0, p)} for id, p
                          in zip([token.item(), *rivals], log_p[[token.item(), *rivals]].tolist())]
        log.append(drawn | {'top_logprobs': others})
        return token
    return draw


class Handler(http.server.BaseHTTPRequestHandler):
    """One request, in a thread of its own. HTTP/1.0: each answer ends with its connection."""
    timeout = 10.0      # seconds to send a request, and to take what is left when the model is done
    server_version, sys_version = 'nanoparrot', ''
    log_message = lambda self, *_: None     # prompts are nobody's business
    is_streaming = False

    def respond(self):
        """Answer a request, or refuse it with a sentence."""
        path, pages = self.path.split('?')[0], self.server.pages
        self.unsent = bytearray()
        try:
            is_post = self.command == 'POST'
            request = api_fields.read_body(self.headers, self.rfile) if is_post else {}
            self.server.waits_since[self.connection] = math.inf     # now we do not wait for it
            host = self.headers.get('Host', '')
            if (host.partition(':')[0].lower() not in ('127.0.0.1', 'localhost')
                    or self.headers.get('Origin', f'http://{host}') != f'http://{host}'):
                raise Mistake('only programs and pages of this machine may ask: Host must be '
                              'localhost or 127.0.0.1, and Origin the same', 403)
            if self.command == 'GET' and path in pages:
                self.send(200, *pages[path])
            elif is_post and path in ('/v1/completions', '/v1/chat/completions'):
                self.answer('chat' in path, **api_fields.read(request))
            else:
                raise Mistake(f'nothing to {self.command} at {path[:100]}; see /v1/models', 404)
        except Mistake as e:
            self.refuse(*e.args)
        except ValueError as e:                 # of the tokenizer
            self.refuse(str(e)[:300])
        except OSError:                         # the client went away, or does not read
            pass
        except Exception:
            traceback.print_exc()
            self.refuse('the server made a mistake; its log says which', 500)
        self.server.waits_since[self.connection] = time.monotonic()
        self.wfile.write(self.unsent)

    do_GET = do_POST = respond

    def answer(self, is_chat, model, prompt, messages, task_id, stop, stream, n, seed, max_tokens,
               max_completion_tokens, top_p, stream_options, logprobs, top_logprobs, **how):
        """Answer a prompt or messages, whole or as a stream of server-sent events."""
        # Who is asked, and what?
        server = self.server
        name = model or next(iter(server.models))
        model, tokenizer, _ = found(server.models, name, '/v1/models')
        source, asked = ('messages', api_fields.plain(messages)) if is_chat else ('prompt', prompt)
        ends = '|'.join(regex.escape(text) for text in stop if text)
        item = task_id and found(server.items, task_id, '/problems')
        if item:        # no text of the client's: the answer that is judged is the model's own
            asked, ends = item[source], '' if is_chat else item['ends']
        if is_chat and not asked:
            raise Mistake('messages must be a list of objects with role and content')
        ids, _, n_again = server.encode(tokenizer, asked)
        n_left = model.config.block_size - len(ids)
        if n_left < 1:
            raise Mistake(f'{source}: {len(ids)} tokens do not fit the context of '
                          f'{model.config.block_size}')
        limit = min(n_left, max_completion_tokens or max_tokens or (n_left if is_chat else 16))
        log = []            # a row for each token
        draw = drawing(tokenizer, seed, how | {'top_p': max(1e-9, top_p)}, log, logprobs or 0)

        # What is the form of the answer, or of a piece of it?
        head = {'id': secrets.token_hex(12), 'created': int(time.time()), 'model': name,
                'object': 'chat.completion' + '.chunk' * stream if is_chat else 'text_completion'}

        def reply(text, why, rows, role):
            choice = {'index': 0, 'finish_reason': why or None}
            said = {'delta' if stream else 'message': role | {'content': text}}
            choice |= said if is_chat else {'text': text}
            if logprobs is not None:        # 0 asks for them, too
                choice['logprobs'] = {'content': rows}
                if not is_chat:             # in OpenAI's older form, too
                    choice['logprobs'] |= {
                        'tokens': [row['token'] for row in rows],
                        'token_logprobs': [row['logprob'] for row in rows],
                        'top_logprobs': [{rival['token']: rival['logprob']
                                          for rival in row['top_logprobs']} for row in rows]}
            return head | {'choices': [choice]}

        # The model writes, and a stream has a piece for each token.
        role, text = {'role': 'assistant'}, ''
        if stream:
            self.send(200, b'', 'text/event-stream')
            self.is_streaming = True
            if with_usage := stream_options.get('include_usage'):
                head['usage'] = None        # OpenAI's pieces have it, too; the last has the numbers
        with server.locks[name]:
            server.check_end()
            for piece, why in server.write(model, tokenizer, asked, limit, draw, ends):
                server.check_end()
                text += piece
                if stream:
                    self.event(reply(piece, why, log[-1:], role if len(log) == 1 else {}))
        # A prompt's last token counts as the prompt's, though the model may have written it again.
        n, n_asked = len(ids) + len(log), len(ids) + (n_again > 0)
        usage = {'prompt_tokens': n_asked, 'completion_tokens': n - n_asked, 'total_tokens': n}
        if item:
            head['verdict'] = {'outcome': '', 'message': NO_TESTS}
            if server.run_code:
                with server.one_by_one:
                    server.check_end()
                    job = grading.job(item, text, is_chat)
                    result = server.run_code(*job) if job else None
                    head['verdict'] = grading.outcome(item, text, result)
        if not stream:
            self.send(200, reply(text, why, log, role) | {'usage': usage})
            return
        if item:
            self.event(head)
        if with_usage:
            self.event(head | {'choices': [], 'usage': usage})
        self.put(b'data: [DONE]\n\n')

    def put(self, data):
        """Send what the connection takes at once. The rest waits for the next call, and finally for
        respond(), because no model should wait for a client that reads slowly."""
        self.unsent += data
        self.connection.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            del self.unsent[:self.connection.send(self.unsent)]
        self.connection.settimeout(self.timeout)

    def event(self, value):
        """Send a server-sent event."""
        self.put(f'data: {json.dumps(value)}\n\n'.encode())

    def send(self, status, value, kind='application/json'):
        self.send_response(status)
        self.send_header('Content-Type', kind)
        self.send_header('X-Content-Type-Options', 'nosniff')
        self.send_header('X-Frame-Options', 'DENY')     # a page of another site may not frame ours
        self.end_headers()
        self.put(value if isinstance(value, bytes) else json.dumps(value).encode())

    def refuse(self, sentence, status=400):
        """Answer with a sentence, in OpenAI's form."""
        error = {'error': {'message': sentence, 'type': 'invalid_request_error'}}
        if self.is_streaming:
            self.event(error)
        else:
            self.send(status, error)


# --- the server -----------------------------------------------------------------------------------
class Server(http.server.ThreadingHTTPServer):
    """Listens on a port of this machine's own address; on 0, a free one. models: {name: (model,
    tokenizer, the settings of its run)}. items: the problems, of questions.py. run_code: that of
    sandbox.py; without it no program may run."""
    daemon_threads = False                      # so server_close() waits for the requests that run
    handle_error = lambda self, *_: None        # a client may send anything, and leave at any time

    def __init__(self, port, models, encode, write, items=(), run_code=None):
        self.models, self.encode, self.write, self.run_code = models, encode, write, run_code
        self.items = {item['task_id']: item for item in items}
        self.locks = {name: threading.Lock() for name in models}
        self.one_by_one = threading.Lock()                      # programs that run
        self.waits_since = {}       # {connection: when we began to wait for its client, or inf}
        self.ends_at = math.inf
        page = pathlib.Path(__file__).with_name('page.html').read_bytes()
        rows = [{'id': name, 'object': 'model', 'chat': 'stage' in trained}
                for name, (_, _, trained) in models.items()]
        self.pages = {'/': [page, 'text/html; charset=utf-8'], '/problems': [{'data': items}],
                      '/v1/models': [{'object': 'list', 'data': rows}]}
        try:
            super().__init__(('127.0.0.1', port), Handler)
        except OSError as e:
            raise Mistake(f'cannot listen on port {port}: {e.strerror}; try another port') from e

    def process_request(self, connection, address):
        self.waits_since[connection] = time.monotonic()
        super().process_request(connection, address)        # in a thread

    def shutdown_request(self, connection):
        super().shutdown_request(connection)
        del self.waits_since[connection]

    def service_actions(self):
        """Let slow clients go. serve_forever() calls this ten times a second. The timeout of a
        connection alone would not do, since it begins again with each byte."""
        for connection, since in list(self.waits_since.items()):
            if time.monotonic() > min(since + Handler.timeout, self.ends_at):
                with contextlib.suppress(OSError):          # it may have ended just now
                    connection.shutdown(socket.SHUT_RDWR)

    def check_end(self):
        """End an answer that takes too long for a server that ends."""
        if time.monotonic() > self.ends_at:
            raise Mistake('the server is ending', 503)


def run(port, models, encode, write, allow_code_execution=False):
    """Serve until SIGTERM or Ctrl-C, then give the requests that run GRACE seconds. A second signal
    ends the process at once. The page offers 100 new variations of the example tasks."""
    items = questions.from_problems(100, 0, ['variation'])
    run_code = sandbox.run_code if allow_code_execution else None
    with Server(port, models, encode, write, items, run_code) as server:
        # If a signal raised KeyboardInterrupt here, while a request is accepted, socketserver would
        # cut the answer to it. shutdown() waits for serve_forever(), so it has its own thread.
        def stop(*_):
            for number in signal.SIGTERM, signal.SIGINT:
                signal.signal(number, signal.SIG_DFL)
            threading.Thread(target=server.shutdown).start()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        print(f'http://127.0.0.1:{server.server_port} answers; Ctrl-C ends it', flush=True)
        server.serve_forever(poll_interval=0.1)
        print(f'whoever asked has {GRACE} more seconds; Ctrl-C again ends it now', flush=True)
        server.ends_at = time.monotonic() + GRACE
        while server.waits_since:
            server.service_actions()
            time.sleep(0.1)
