"""
The server: a page, and OpenAI's API, for the programs of this machine.

    run(8000, {'out/sft': (model, tokenizer, True)})    # until SIGTERM or Ctrl-C; True: it can chat

A model writes one answer at a time: whoever asks next waits. The first model is the default. The log
probabilities are the model's own, at temperature 1. An answer ends where the context ends, or earlier.
top_k is ours, and so is task_id in place of a prompt: a problem, asked as eval.py asks it, whose answer
can be judged. Everything else is a subset of OpenAI's API. What LACKING names is refused, and fields
that this file doesn't name are not read.

Other machines cannot connect. But a page of another site, open in a browser here, could ask in its user's
name. So Origin must be ours; and Host must name this machine, because a foreign name may lead here (DNS
rebinding).
"""
import collections, contextlib, http.server, json, os, pathlib, random, re, secrets, signal, socket, sys
import threading, time, traceback
import torch
from parts.eval import questions
from parts.sample import asking

# settings of OpenAI's that would change an answer and that we lack: refused, unless they ask for nothing
LACKING = {'n': 1, 'best_of': 1, 'echo': False, 'logit_bias': {}, 'presence_penalty': 0, 'suffix': '',
           'frequency_penalty': 0, 'tools': [], 'functions': [], 'response_format': {'type': 'text'}}
EXPECTED = {str: 'a text', bool: 'true or false', list: 'a list', int: 'a whole number', float: 'a number'}


class Refusal(Exception):
    """A request that gets no answer. Its arguments: a status, a sentence, and the field that is wrong."""


def field(fields, name, default, kind, low=None, high=None):
    """Return fields[name], or the default if it is missing or null. Refusal if it is of another kind, or a
    number outside [low, high], which NaN is, too."""
    value = fields.get(name)
    if value is None:
        return default
    kinds = (int, float) if kind is float else (kind,)
    if type(value) in kinds and (low is None or low <= value <= high):
        return value
    limits = '' if low is None else f' from {low} to {high}'
    raise Refusal(400, f'{name}={value!r:.60} must be {EXPECTED[kind]}{limits}', name)


def stops_of(fields):
    stops = fields.get('stop') or []
    stops = [stops] if isinstance(stops, str) else stops
    if not isinstance(stops, list) or len(stops) > 16 or not all(
            isinstance(text, str) and 0 < len(text) <= 1000 for text in stops):
        raise Refusal(400, f'stop={stops!r:.60} must be a text or up to 16, of 1 to 1,000 characters', 'stop')
    return stops


# --- an answer ----------------------------------------------------------------------------------------------
def entry(data, log_p):
    """A token in OpenAI's form of a chat. A part of a character becomes a \ufffd."""
    return {'token': data.decode('utf-8', 'replace'), 'logprob': log_p, 'bytes': list(data)}


def pieces(model, tokenizer, text, n_top, **how):
    """Write a Text of asking.py. Yield its new characters and their tokens, each with its n_top rivals."""
    repeated = text.to_drop         # bytes of the prompt that the first id writes again
    tokens = []

    def score(logits, ids):
        log_p = logits.log_softmax(-1)
        best = log_p.topk(n_top)
        return torch.cat((ids[:, None], best.indices, log_p.gather(1, ids[:, None]), best.values), 1)

    for new in asking.pieces(model, text, score=score, **how):
        scores = text.answer.scores[-1]             # ids, and log p of each
        found = [entry(tokenizer.decode_bytes([int(id)])[repeated:], log_p)
                 for id, log_p in zip(scores[:n_top + 1], scores[n_top + 1:]) if log_p > -torch.inf]
        repeated = 0
        if found[0]['bytes'] and text.answer.ids[-1] not in tokenizer.stop:
            tokens.append(found[0] | {'top_logprobs': found[1:]})
        if new or text.answer.finish:
            yield new, tokens
            tokens = []


def choice(text, tokens, finish, message):
    """The choices of an answer. message: of a chat {'message' or 'delta': {...}}, still without its text."""
    content = {kind: fields | {'content': text} for kind, fields in message.items()} or {'text': text}
    logprobs = None if tokens is None else {'content': tokens}
    return {'choices': [{'index': 0, **content, 'finish_reason': finish, 'logprobs': logprobs}]}


class Handler(http.server.BaseHTTPRequestHandler):
    """One request, in a thread of its own. It speaks HTTP/1.0: each answer ends with its connection."""
    server_version, sys_version = 'nanoparrot', ''
    is_streaming = False
    log_message = lambda self, *_: None         # prompts are nobody's business

    def setup(self):
        self.timeout = self.server.client_seconds
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
                raise Refusal(403, 'the Host header must name this machine: localhost or 127.0.0.1')
            if self.headers.get('Origin', f'http://{host}') != f'http://{host}':
                raise Refusal(403, 'the page of another site may not ask here')
            if self.command == 'POST' and path in ('/v1/completions', '/v1/chat/completions'):
                self.write(self.fields(), 'chat' in path)
            elif self.command == 'POST' and path == '/run':
                self.send(200, self.verdict(self.fields()))
            elif self.command == 'GET' and path in self.server.lists:
                self.send(200, {'object': 'list', 'data': self.server.lists[path]})
            elif self.command == 'GET' and path == '/':
                page = pathlib.Path(__file__).with_name('page.html').read_bytes()
                self.send(200, page, 'text/html; charset=utf-8')
            else:
                raise Refusal(404, f'there is nothing to {self.command} at {path[:100]}; see /v1/models')
        except Refusal as e:
            self.refuse(*e.args)
        except OSError:                         # the client went away, or does not read
            pass
        except Exception:
            traceback.print_exc()
            self.refuse(500, 'the server made a mistake; its log says which')

    do_GET = do_POST = route

    def fields(self):
        length = self.headers.get('Content-Length', '0')
        if not re.fullmatch('[0-9]{1,18}', length):
            raise Refusal(400, 'Content-Length must be a whole number')
        if int(length) > self.server.body_bytes:
            raise Refusal(413, f'the request has {length} bytes, more than {self.server.body_bytes}')
        try:
            fields = json.loads(self.rfile.read(int(length)).decode())
        except (ValueError, RecursionError) as e:
            raise Refusal(400, f'the body must be JSON in UTF-8: {str(e)[:200]}') from None
        if not isinstance(fields, dict):
            raise Refusal(400, 'the body must be a JSON object')
        return fields

    def write(self, fields, is_chat):
        """Answer a prompt or messages, whole or as a stream of server-sent events."""
        server = self.server
        name = field(fields, 'model', '', str) or next(iter(server.models))
        task_id = field(fields, 'task_id', '', str)
        if name not in server.models:
            raise Refusal(404, f'there is no model {name!r:.60}; see /v1/models', 'model')
        if task_id and task_id not in server.items:
            raise Refusal(404, f'there is no problem {task_id!r:.60}; see /problems', 'task_id')
        for lacking, harmless in LACKING.items():
            if fields.get(lacking) not in (None, harmless):
                raise Refusal(400, f'{lacking} is not supported here; leave it out', lacking)
        model, tokenizer, _ = server.models[name]
        context = model.config.block_size
        limit = 'max_completion_tokens' if fields.get('max_completion_tokens') else 'max_tokens'
        max_tokens = field(fields, limit, context if is_chat else 16, int, 1, 2 ** 31)
        n_top = field(fields, 'top_logprobs' if is_chat else 'logprobs', 0, int, 0, 20)
        has_scores = (field(fields, 'logprobs', False, bool) if is_chat
                      else fields.get('logprobs') is not None)
        how = {'temperature': field(fields, 'temperature', 1.0, float, 0, 2),
               'top_p': max(1e-9, field(fields, 'top_p', 1.0, float, 0, 1)),
               'top_k': field(fields, 'top_k', 0, int, 0, 2 ** 31)}
        seed = field(fields, 'seed', secrets.randbits(32), int, -2 ** 63, 2 ** 63)
        streams = field(fields, 'stream', False, bool)
        prompt = field(fields, 'messages', [], list) if is_chat else field(fields, 'prompt', '', str)
        stops, ends = stops_of(fields), None
        item = server.items.get(task_id)
        if item:                # nothing else that a client writes is read: the answer is the model's own
            prompt = item['messages'] if is_chat else item['prompt']
            ends = None if is_chat else item['ends']
        elif is_chat:           # developer is OpenAI's newer name of system
            prompt = [m | {'role': 'system'} if isinstance(m, dict) and m.get('role') == 'developer' else m
                      for m in prompt]
        if is_chat and not prompt:
            raise Refusal(400, 'messages must be a list of objects with role and content', 'messages')
        try:
            prompt = asking.encode(tokenizer, prompt)
            n_prompt = len(prompt.ids) + min(1, prompt.repeated)
            if n_prompt > context:
                raise ValueError(f'the prompt has {n_prompt} tokens, more than the context of {context}')
        except ValueError as e:
            raise Refusal(400, str(e)[:300], 'messages' if is_chat else 'prompt') from None
        max_tokens = min(max_tokens, context + 1 - n_prompt)
        dice = random.Random(str(seed)).random      # a number would lose its sign
        text = asking.begin(tokenizer, prompt, max_tokens, dice, ends, stops)

        kind = ('chat.completion' if is_chat else 'text_completion') + '.chunk' * (is_chat and streams)
        head = {'id': secrets.token_hex(12), 'object': kind, 'created': int(time.time()), 'model': name}
        until = time.monotonic() + server.answer_seconds
        tokens = []
        with server.locks[name], contextlib.closing(pieces(model, tokenizer, text, n_top, **how)) as parts:
            for new, its_tokens in parts:
                if time.monotonic() > until:
                    raise Refusal(504, f'the answer took more than {server.answer_seconds:g} s')
                tokens += its_tokens
                if streams:
                    role = {} if self.is_streaming else {'role': 'assistant'}
                    self.event(head | choice(new, its_tokens if has_scores else None, text.answer.finish,
                                             {'delta': role} if is_chat else {}))
        if item:
            server.answers.append((head['id'], item, text.text, is_chat))
        if streams:
            self.event('[DONE]')
            return
        n_new = min(max_tokens, len(tokens))
        usage = {'prompt_tokens': n_prompt, 'completion_tokens': n_new, 'total_tokens': n_prompt + n_new}
        self.send(200, head | {'usage': usage} | choice(
            text.text, tokens if has_scores else None, text.answer.finish,
            {'message': {'role': 'assistant'}} if is_chat else {}))

    def verdict(self, fields):
        """Run the tests of an answer, {'id'} -> its outcome as in questions.py. Nothing else can be run."""
        server = self.server
        if not server.run_code:
            raise Refusal(403, "no tests: this server may not run a model's programs; first read "
                          'parts/eval/sandbox.py, then start it with --allow_code_execution=True')
        known = [answer for answer in list(server.answers) if answer[0] == fields.get('id')]
        if not known:
            raise Refusal(404, 'no answer to a problem has this id; ask with a task_id of /problems', 'id')
        _, item, text, is_chat = known[0]
        job = questions.job(item, text, is_chat)
        try:
            with server.one_by_one:
                result = server.run_code(*job) if job else None
        except ValueError as e:         # no program can run on this machine, or none any more
            raise Refusal(500, str(e)) from None
        return questions.outcome(item, text, result)

    def event(self, value):
        """One server-sent event; before the first, the headers."""
        if not self.is_streaming:
            self.send(200, b'', 'text/event-stream')
            self.is_streaming = True
        text = value if isinstance(value, str) else json.dumps(value)
        self.wfile.write(f'data: {text}\n\n'.encode())

    def send(self, status, value, kind='application/json'):
        self.send_response(status)
        for header in (('Content-Type', kind), ('X-Content-Type-Options', 'nosniff'),
                       ('X-Frame-Options', 'DENY'), ('Cache-Control', 'no-store')):
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(value if isinstance(value, bytes) else json.dumps(value).encode())

    def refuse(self, status, sentence, param=None):
        """Answer with a status and a sentence, in OpenAI's form."""
        kind = 'server_error' if status >= 500 else 'invalid_request_error'
        error = {'error': {'message': sentence, 'type': kind, 'code': None, 'param': param}}
        with contextlib.suppress(OSError):
            if self.is_streaming:
                self.event(error)
            else:
                self.send(status, error)


class Server(http.server.ThreadingHTTPServer):
    """Listens on a port of this machine's own address; on 0, a free one. ValueError if it is taken. models:
    {name: (model, tokenizer, can it chat?)}. items: the problems, of questions.py. run_code: that of
    sandbox.py; without it no program may run."""
    body_bytes = 1_000_000          # the most in a request
    client_seconds = 10.0           # in which a client sends, or takes, some bytes
    answer_seconds = 300.0          # for an answer, waiting included
    daemon_threads = False          # so server_close() waits for the requests that run
    request_queue_size = 128
    allow_reuse_address = os.name == 'posix'

    def __init__(self, port, models, items=(), run_code=None):
        self.models = models
        self.locks = {name: threading.Lock() for name in models}
        self.items = {item['task_id']: item for item in items}
        self.run_code = run_code
        self.one_by_one = threading.Lock()                      # programs that run
        self.answers = collections.deque(maxlen=1000)           # (id, item, text, is_chat), the latest ones
        about = {'object': 'model', 'created': 0, 'owned_by': 'nanoparrot'}
        self.lists = {
            '/v1/models': [{'id': name, 'chat': can_chat, **about}
                           for name, (_, _, can_chat) in models.items()],
            '/problems': [{key: item[key] for key in ('task_id', 'prompt', 'asked')} for item in items]}
        try:
            super().__init__(('127.0.0.1', port), Handler)
        except OSError as e:
            raise ValueError(f'cannot listen on port {port}: {e.strerror}; try another port') from e

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):      # a client may go away at any time
            super().handle_error(request, client_address)


def run(port, models, items=(), run_code=None):
    """Serve until SIGTERM or Ctrl-C, then finish the requests that run."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)       # as Ctrl-C
    with Server(port, models, items, run_code) as server, contextlib.suppress(KeyboardInterrupt):
        print(f'http://127.0.0.1:{server.server_port} answers; Ctrl-C ends it', flush=True)
        server.serve_forever(poll_interval=0.1)
