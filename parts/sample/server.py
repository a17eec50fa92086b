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
import contextlib, http.server, json, pathlib, re, secrets, signal, sys, threading, time, traceback
import regex, torch
from parts import Mistake
from parts.eval import questions
from parts.sample import asking

# types, default, lowest and highest value of each field that is read
FIELDS = {
    'model': ([str], ''), 'task_id': ([str], ''), 'prompt': ([str], ''), 'messages': ([list], []),
    'max_tokens': ([int], None, 1, 2 ** 31), 'max_completion_tokens': ([int], None, 1, 2 ** 31),
    'temperature': ([int, float], 1.0, 0, 2), 'top_p': ([int, float], 1.0, 0, 1),
    'top_k': ([int], 0, 0, 2 ** 31), 'seed': ([int], None, -2 ** 63, 2 ** 63),
    'logprobs': ([bool, int], None, 0, 20), 'top_logprobs': ([int], 0, 0, 20),
    'stop': ([str, list], []), 'stream': ([bool], False)}
# settings of OpenAI's that would change an answer and that we lack; each with what asks for nothing
LACKING = {'n': 1, 'best_of': 1, 'echo': False, 'suffix': '', 'logit_bias': {}, 'tools': [],
           'presence_penalty': 0, 'frequency_penalty': 0, 'response_format': {'type': 'text'}}


class Refusal(Exception):
    """A request without an answer. Its arguments: a status, a sentence, the field that is wrong."""


def checked(fields):
    """Return the fields of a request that are read, with their defaults."""
    for name, harmless in LACKING.items():
        if fields.get(name) not in (None, harmless):
            raise Refusal(400, f'{name} is not supported here; leave it out', name)
    values = {}
    for name, (types, default, *limits) in FIELDS.items():
        value = fields.get(name)
        values[name] = default if value is None else value
        # written with `not` because every comparison with nan is false: this refuses nan as well
        if value is not None and (type(value) not in types
                                  or limits and not limits[0] <= value <= limits[1]):
            words = ' or '.join(kind.__name__ for kind in types)
            words += ' from {} to {}'.format(*limits) if limits else ''
            raise Refusal(400, f'{name}={value!r:.60} must be {words}', name)
    if isinstance(values['stop'], str):
        values['stop'] = [values['stop']]
    if not all(isinstance(text, str) and text for text in values['stop']):
        raise Refusal(400, f'stop={values["stop"]!r:.60} must be texts, none of them empty', 'stop')
    return values


# --- an answer ------------------------------------------------------------------------------------
def pieces(model, answer, n_top, **how):
    """Write an Answer of asking.py. Yield its new characters and, in OpenAI's form of a chat, the
    newest token with its n_top rivals."""
    def draw(logits):
        id = answer.draw(logits, **how)  # (1,)
        log_p = logits.log_softmax(dim=-1)[0]  # (V,)
        top = [*id.tolist(), *log_p.topk(n_top).indices.tolist()]
        entries[:] = [{'token': answer.tokenizer.decode([id]),
                       'logprob': max(-9999.0, log_p[id].item())} for id in top]
        return id

    entries = []
    idx = torch.tensor([answer.prompt.ids], device=model.embedding.weight.device)  # (1, T)
    for token in model.stream(idx, len(answer.noise), draw):
        answer.append(token.item(), answer.tokenizer.stop)
        yield answer.take(), entries[0] | {'top_logprobs': entries[1:]}
        if answer.finish:
            return


class Handler(http.server.BaseHTTPRequestHandler):
    """One request, in a thread of its own. HTTP/1.0: each answer ends with its connection."""
    server_version, sys_version = 'nanoparrot', ''
    timeout = property(lambda self: self.server.client_seconds)
    log_message = lambda self, *_: None         # prompts are nobody's business
    is_streaming = False

    def route(self):
        path = self.path.split('?')[0]
        try:
            fields = self.fields() if self.command == 'POST' else {}
            host = self.headers.get('Host', '')
            if re.sub(r':\d*$', '', host).lower() not in ('127.0.0.1', 'localhost'):
                raise Refusal(403, 'the Host header must name this machine: localhost or 127.0.0.1')
            if self.headers.get('Origin', f'http://{host}') != f'http://{host}':
                raise Refusal(403, 'the page of another site may not ask here')
            if self.command == 'POST' and path in ('/v1/completions', '/v1/chat/completions'):
                self.write(fields, 'chat' in path)
            elif self.command == 'GET' and path in self.server.lists:
                self.send(200, {'object': 'list', 'data': self.server.lists[path]})
            elif self.command == 'GET' and path == '/':
                page = pathlib.Path(__file__).with_name('page.html').read_bytes()
                self.send(200, page, 'text/html; charset=utf-8')
            else:
                raise Refusal(404, f'there is nothing to {self.command} at {path[:100]}; see '
                                   '/v1/models')
        except Refusal as e:
            self.refuse(*e.args)
        except OSError:                         # the client went away, or does not read
            pass
        except Exception:
            traceback.print_exc()
            self.refuse(500, 'the server made a mistake; its log says which')

    do_GET = do_POST = route

    def fields(self):
        try:
            length = int(self.headers.get('Content-Length', 0))
            if not 0 <= length <= self.server.body_bytes:
                raise Refusal(413, f'Content-Length={length} must be from 0 to '
                                   f'{self.server.body_bytes}')
            fields = json.loads(self.rfile.read(length))
        except (ValueError, RecursionError) as e:
            raise Refusal(400, f'the body must be JSON in UTF-8: {str(e)[:200]}') from None
        if not isinstance(fields, dict):
            raise Refusal(400, 'the body must be a JSON object')
        return fields

    def write(self, fields, is_chat):
        """Answer a prompt or messages, whole or as a stream of server-sent events."""
        server, asked = self.server, checked(fields)
        name, task_id = asked['model'] or next(iter(server.models)), asked['task_id']
        if name not in server.models:
            raise Refusal(404, f'there is no model {name!r:.60}; see /v1/models', 'model')
        if task_id and task_id not in server.items:
            raise Refusal(404, f'there is no problem {task_id!r:.60}; see /problems', 'task_id')
        model, tokenizer, _ = server.models[name]
        context = model.config.block_size
        source = 'messages' if is_chat else 'prompt'
        prompt, ends = asked[source], '|'.join(map(regex.escape, asked['stop']))
        item = server.items.get(task_id)
        if item:        # no text of the client's: the answer that is judged is the model's own
            prompt, ends = item[source], '' if is_chat else item['ends']
        try:
            if is_chat and not prompt:
                raise ValueError('messages must be a list of objects with role and content')
            for message in prompt if is_chat else ():
                if isinstance(message, dict) and message.get('role') == 'developer':
                    message['role'] = 'system'          # OpenAI's newer name
            prompt = asking.encode(tokenizer, prompt)
            n_prompt = len(prompt.ids) + min(1, prompt.repeated)
            if n_prompt > context:
                raise ValueError(f'the prompt has {n_prompt} tokens, more than the context of '
                                 f'{context}')
        except ValueError as e:
            raise Refusal(400, str(e)[:300], source) from None
        limit = asked['max_completion_tokens'] or asked['max_tokens']
        limit = min(limit or (context if is_chat else 16), context + 1 - n_prompt)
        seed = secrets.randbits(32) if asked['seed'] is None else asked['seed']
        # a text, because a number would lose its sign
        answer = asking.begin(tokenizer, prompt, limit, str(seed), ends)

        streams = asked['stream']
        kind = 'chat.completion' + '.chunk' * streams if is_chat else 'text_completion'
        head = {'id': secrets.token_hex(12), 'object': kind, 'created': int(time.time()),
                'model': name}

        def choices(text, tokens, role):
            content = {'text': text}
            if is_chat:
                content = {'delta' if streams else 'message': role | {'content': text}}
            logprobs = None if asked['logprobs'] is None else {'content': tokens}
            return {'choices': [{'index': 0, **content, 'finish_reason': answer.finish,
                                 'logprobs': logprobs}]}

        if streams:
            self.send(200, b'', 'text/event-stream')
            self.is_streaming = True
        tokens, role = [], {'role': 'assistant'}
        n_top = asked['top_logprobs'] if is_chat else asked['logprobs'] or 0
        how = {key: asked[key] for key in ('temperature', 'top_k')}
        with server.locks[name]:
            for new, token in pieces(model, answer, n_top, top_p=max(1e-9, asked['top_p']), **how):
                tokens.append(token)
                if streams:
                    self.event(head | choices(new, [token], {} if answer.ids[1:] else role))
        head |= {'verdict': self.verdict(item, answer.text, is_chat)} if item else {}
        if streams and item:
            self.event(head)
        if streams:
            self.wfile.write(b'data: [DONE]\n\n')
            return
        n, n_new = len(prompt.ids), len(answer.ids)
        usage = {'prompt_tokens': n, 'completion_tokens': n_new, 'total_tokens': n + n_new}
        self.send(200, head | choices(answer.text, tokens, role) | {'usage': usage})

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
        for header in (('Content-Type', kind), ('X-Content-Type-Options', 'nosniff'),
                       ('X-Frame-Options', 'DENY'), ('Cache-Control', 'no-store')):
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(value if isinstance(value, bytes) else json.dumps(value).encode())

    def refuse(self, status, sentence, param=None):
        """Answer with a status and a sentence, in OpenAI's form."""
        error = {'message': sentence, 'type': 'invalid_request_error', 'code': None, 'param': param}
        with contextlib.suppress(OSError):
            if self.is_streaming:
                self.event({'error': error})
            else:
                self.send(status, {'error': error})


class Server(http.server.ThreadingHTTPServer):
    """Listens on a port of this machine's own address; on 0, a free one. models: {name: (model,
    tokenizer, can it chat?)}. items: the problems, of questions.py. run_code: that of sandbox.py;
    without it no program may run."""
    body_bytes = 1_000_000          # the most in a request
    client_seconds = 10.0           # in which a client sends, or takes, some bytes
    daemon_threads = False          # so server_close() waits for the requests that run

    def __init__(self, port, models, items=(), run_code=None):
        self.models = models
        self.locks = {name: threading.Lock() for name in models}
        self.items = {item['task_id']: item for item in items}
        self.run_code = run_code
        self.one_by_one = threading.Lock()                      # programs that run
        about = {'object': 'model', 'created': 0, 'owned_by': 'nanoparrot'}
        self.lists = {
            '/v1/models': [{'id': name, 'chat': can_chat, **about}
                           for name, (_, _, can_chat) in models.items()],
            '/problems': [{key: item[key] for key in ('task_id', 'prompt', 'asked')}
                          for item in items]}
        try:
            super().__init__(('127.0.0.1', port), Handler)
        except OSError as e:
            raise Mistake(f'cannot listen on port {port}: {e.strerror}; try another port') from e

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):      # a client may go away at any time
            super().handle_error(request, client_address)


def run(port, models, items=(), run_code=None):
    """Serve until SIGTERM or Ctrl-C, then finish the requests that run."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)       # as Ctrl-C
    with Server(port, models, items, run_code) as server, contextlib.suppress(KeyboardInterrupt):
        print(f'http://127.0.0.1:{server.server_port} answers; Ctrl-C ends it', flush=True)
        server.serve_forever(poll_interval=0.1)
