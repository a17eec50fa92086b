"""
The server: a page, and OpenAI's API, for the programs of this machine.

    run(8000, {'out/sft': (model, tokenizer, True)})    # until SIGTERM or Ctrl-C; True: it can chat

A model writes one answer at a time: whoever asks next waits. The first model is the default. The
log probabilities are the model's own, at temperature 1. An answer ends where the context ends, or
earlier. top_k is ours, and so is task_id in place of a prompt: a problem, asked as eval.py asks it.
After its answer comes a verdict. The first token may be the prompt's last one, written again.
Everything else is a subset of OpenAI's API. What LACKING names is refused, and fields that this
file doesn't name are not read.

Other machines cannot connect. But a page of another site, open in a browser here, could ask in its
user's name. So Origin must be ours; and Host must name this machine, because a foreign name may
lead here (DNS rebinding).
"""
import contextlib, functools, http.server, json, pathlib, secrets, signal, threading, time
import traceback
import regex, torch
from parts import Mistake
from parts.eval import questions
from parts.sample import asking

# settings of OpenAI's that would change an answer and that we lack; each with what asks for nothing
LACKING = {'n': 1, 'best_of': 1, 'echo': False, 'suffix': '', 'logit_bias': {}, 'tools': [],
           'presence_penalty': 0, 'frequency_penalty': 0, 'response_format': {'type': 'text'}}
MOST_BYTES = 1_000_000          # of a request


class Refusal(Exception):
    """A request without an answer. Its arguments: a sentence and, if it is not 400, a status."""


# --- the fields of a request ----------------------------------------------------------------------
def number(fields, name, default, highest, lowest=0):
    """Return a field from lowest to highest, or its default if it is missing. If the default is a
    float, it need not be whole."""
    value = fields.get(name)
    if value is None:
        return default
    # written with `not` because every comparison with nan is false: this refuses nan as well
    if not (type(value) in (int, type(default)) and lowest <= value <= highest):
        raise Refusal(f'{name}={value!r:.60} must be {type(default).__name__} from {lowest} to '
                      f'{highest}')
    return value


def of_kind(fields, name, kind):
    """Return a text, a list or a bool, empty or False if it is missing."""
    value = kind() if fields.get(name) is None else fields[name]
    if not isinstance(value, kind):
        raise Refusal(f'{name}={value!r:.60} must be {kind.__name__}')
    return value


def stops(fields):
    """Return the pattern in front of which an answer ends. An empty text stops nothing."""
    stop = fields.get('stop')
    texts = [stop] if isinstance(stop, str) else of_kind(fields, 'stop', list)
    if not all(isinstance(text, str) for text in texts):
        raise Refusal(f'stop={stop!r:.60} must be a text, or a list of texts')
    return '|'.join(map(regex.escape, filter(None, texts)))


def found(known, name, path):
    """Return what has this name."""
    if name not in known:
        raise Refusal(f'{name!r:.60} is not known here; see {path}', 404)
    return known[name]


# --- an answer ------------------------------------------------------------------------------------
def score(n_top, logits, ids):
    """logits (1, V), ids (1,) -> the ids of a token and its n_top rivals, each with its log p: (1,
    1 + n_top, 2). All are float32, which is exact for ids below 2**24."""
    log_p = logits.log_softmax(dim=-1)  # (1, V)
    top = torch.cat((ids[:, None], log_p.topk(n_top).indices), dim=1)  # (1, 1 + n_top)
    return torch.stack((top, log_p.gather(1, top)), dim=2)


def named(tokenizer, scores):
    """Return the scores of a token in OpenAI's form of a chat."""
    token, *rivals = [{'token': tokenizer.decode([int(id)]), 'logprob': max(-9999.0, log_p)}
                      for id, log_p in scores]
    return token | {'top_logprobs': rivals}


class Handler(http.server.BaseHTTPRequestHandler):
    """One request, in a thread of its own. HTTP/1.0: each answer ends with its connection."""
    server_version, sys_version = 'nanoparrot', ''
    timeout = 10.0                          # seconds in which a client sends, or takes, some bytes
    log_message = lambda self, *_: None     # prompts are nobody's business
    is_streaming = False

    def route(self):
        path = self.path.split('?')[0]
        try:
            fields = self.fields() if self.command == 'POST' else {}
            host = self.headers.get('Host', '')
            if host.partition(':')[0].lower() not in ('127.0.0.1', 'localhost'):
                raise Refusal('the Host header must name this machine: localhost or 127.0.0.1', 403)
            if self.headers.get('Origin', f'http://{host}') != f'http://{host}':
                raise Refusal('the page of another site may not ask here', 403)
            if self.command == 'POST' and path in ('/v1/completions', '/v1/chat/completions'):
                self.write(fields, 'chat' in path)
            elif self.command == 'GET' and path in self.server.pages:
                self.send(200, *self.server.pages[path])
            else:
                raise Refusal(f'there is nothing to {self.command} at {path[:100]}; see /v1/models',
                              404)
        except Refusal as e:
            self.refuse(*e.args)
        except OSError:                         # the client went away, or does not read
            pass
        except Exception:
            traceback.print_exc()
            self.refuse('the server made a mistake; its log says which', 500)

    do_GET = do_POST = route

    def fields(self):
        """Return the JSON object that a client sends."""
        try:
            length = int(self.headers.get('Content-Length', 0))
            if not 0 <= length <= MOST_BYTES:
                raise Refusal(f'Content-Length={length} must be from 0 to {MOST_BYTES}', 413)
            return dict(**json.loads(self.rfile.read(length)))
        except (ValueError, TypeError, RecursionError) as e:
            raise Refusal(f'the body must be a JSON object in UTF-8: {str(e)[:200]}') from None

    def write(self, fields, is_chat):
        """Answer a prompt or messages, whole or as a stream of server-sent events."""
        for name, harmless in LACKING.items():
            if fields.get(name) not in (None, harmless):
                raise Refusal(f'{name} is not supported here; leave it out')
        server = self.server
        name = of_kind(fields, 'model', str) or next(iter(server.models))
        model, tokenizer, _ = found(server.models, name, '/v1/models')
        task_id = of_kind(fields, 'task_id', str)
        item = task_id and found(server.items, task_id, '/problems')
        source = 'messages' if is_chat else 'prompt'
        prompt, ends = of_kind(fields, source, list if is_chat else str), stops(fields)
        if item:        # no text of the client's: the answer that is judged is the model's own
            prompt, ends = item[source], '' if is_chat else item['ends']
        if is_chat and not prompt:
            raise Refusal('messages must be a list of objects with role and content')
        try:
            prompt = asking.encode(tokenizer, prompt)
        except ValueError as e:
            raise Refusal(str(e)[:300]) from None
        context = model.config.block_size
        n_left = context + 1 - len(prompt.ids) - min(1, prompt.repeated)
        if n_left < 1:
            raise Refusal(f'{source}: {len(prompt.ids)} tokens do not fit the context of {context}')
        limit = number(fields, 'max_tokens', context if is_chat else 16, 10 ** 9, lowest=1)
        limit = number(fields, 'max_completion_tokens', limit, 10 ** 9, lowest=1)
        how = {'temperature': number(fields, 'temperature', 1.0, 2),
               'top_p': max(1e-9, number(fields, 'top_p', 1.0, 1)),
               'top_k': number(fields, 'top_k', 0, 10 ** 9)}
        n_top = number(fields, 'top_logprobs' if is_chat else 'logprobs', 0, 20)
        seed = number(fields, 'seed', secrets.randbits(32), 10 ** 18)
        answer = asking.begin(tokenizer, prompt, min(limit, n_left), seed, ends)

        streams = of_kind(fields, 'stream', bool)
        kind = 'chat.completion' + '.chunk' * streams if is_chat else 'text_completion'
        head = {'id': secrets.token_hex(12), 'object': kind, 'created': int(time.time()),
                'model': name}

        def choices(text, scores, role):
            content = {'text': text}
            if is_chat:
                content = {'delta' if streams else 'message': role | {'content': text}}
            logprobs = None
            if fields.get('logprobs') is not None:
                logprobs = {'content': [named(tokenizer, token) for token in scores]}
            return {'choices': [{'index': 0, **content, 'finish_reason': answer.finish,
                                 'logprobs': logprobs}]}

        if streams:
            self.send(200, b'', 'text/event-stream')
            self.is_streaming = True
        role = {'role': 'assistant'}
        never = tokenizer.never_in_answers(model.config.vocab_size)
        with server.locks[name]:
            for _ in asking.write(model, [answer], tokenizer.stop, never=never,
                                  score=functools.partial(score, n_top), **how):
                new = answer.take()
                if streams:
                    self.event(head | choices(new, answer.scores[-1:], role))
                    role = {}
        if item:
            head['verdict'] = self.verdict(item, answer.text, is_chat)
        if not streams:
            n, n_new = len(prompt.ids), len(answer.ids)
            usage = {'prompt_tokens': n, 'completion_tokens': n_new, 'total_tokens': n + n_new}
            self.send(200, head | choices(answer.text, answer.scores, role) | {'usage': usage})
            return
        if item:
            self.event(head)
        self.wfile.write(b'data: [DONE]\n\n')

    def verdict(self, item, text, is_chat):
        """Run the tests of an answer to a problem. Return its outcome as in questions.py."""
        if not self.server.run_code:
            return {'outcome': '', 'message': 'no tests: this server may not run programs; read '
                    'parts/eval/sandbox.py, then start it with --allow_code_execution=True'}
        job = questions.job(item, text, is_chat)
        with self.server.one_by_one:
            result = self.server.run_code(*job) if job else None
        return questions.outcome(item, text, result)

    def event(self, value):
        """Send a server-sent event."""
        self.wfile.write(f'data: {json.dumps(value)}\n\n'.encode())

    def send(self, status, value, kind='application/json'):
        self.send_response(status)
        self.send_header('Content-Type', kind)
        self.send_header('X-Content-Type-Options', 'nosniff')
        self.send_header('X-Frame-Options', 'DENY')     # a page of another site may not frame ours
        self.end_headers()
        self.wfile.write(value if isinstance(value, bytes) else json.dumps(value).encode())

    def refuse(self, sentence, status=400):
        """Answer with a sentence, in OpenAI's form."""
        error = {'error': {'message': sentence, 'type': 'invalid_request_error'}}
        with contextlib.suppress(OSError):
            if self.is_streaming:
                self.event(error)
            else:
                self.send(status, error)


class Server(http.server.ThreadingHTTPServer):
    """Listens on a port of this machine's own address; on 0, a free one. models: {name: (model,
    tokenizer, can it chat?)}. items: the problems, of questions.py. run_code: that of sandbox.py;
    without it no program may run."""
    daemon_threads = False                      # so server_close() waits for the requests that run
    handle_error = lambda self, *_: None        # a client may send anything, and leave at any time

    def __init__(self, port, models, items=(), run_code=None):
        self.models, self.run_code = models, run_code
        self.items = {item['task_id']: item for item in items}
        self.locks = {name: threading.Lock() for name in models}
        self.one_by_one = threading.Lock()                      # programs that run
        lists = {'/v1/models': [{'id': name, 'object': 'model', 'chat': can_chat}
                                for name, (_, _, can_chat) in models.items()],
                 '/problems': [{key: item[key] for key in ('task_id', 'prompt', 'asked', 'tests')}
                               for item in items]}
        page = pathlib.Path(__file__).with_name('page.html').read_bytes()
        self.pages = {path: [{'object': 'list', 'data': rows}] for path, rows in lists.items()}
        self.pages['/'] = page, 'text/html; charset=utf-8'
        try:
            super().__init__(('127.0.0.1', port), Handler)
        except OSError as e:
            raise Mistake(f'cannot listen on port {port}: {e.strerror}; try another port') from e


def run(port, models, items=(), run_code=None):
    """Serve until SIGTERM or Ctrl-C, then finish the requests that run."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)       # as Ctrl-C
    with Server(port, models, items, run_code) as server, contextlib.suppress(KeyboardInterrupt):
        print(f'http://127.0.0.1:{server.server_port} answers; Ctrl-C ends it', flush=True)
        server.serve_forever(poll_interval=0.1)
