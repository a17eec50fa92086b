"""
The server: a page, and OpenAI's API, for the programs of this machine.

    python -m extras.models.server --ckpt=out/base,out/sft --port=8000         # until Ctrl-C

    GET /                               the page, page.html
    GET /v1/models, /problems           what can answer, and what it can be asked
    POST /v1/completions                {"prompt": "def f("} -> a text that goes on
    POST /v1/chat/completions           {"messages": [{"role": "user", "content": "hi"}]} -> a reply

A model writes one answer at a time, so whoever asks next waits. An answer ends where the context
ends, or earlier. Log probabilities are of temperature 1, over the tokens that may come, and always
in the form of a chat. top_k is ours, and so is task_id in place of a prompt: a problem, whose tests
judge the answer. A field of OpenAI's that would change an answer is read or refused.

Other machines cannot connect. But a page of another site, open in a browser here, could ask in its
user's name. So Origin must be ours; and Host must name this machine, because a foreign name may
lead here (DNS rebinding).
"""
import contextlib, http.server, json, pathlib, secrets, threading, time, traceback
from typing import Literal
import regex
import torch
from configurator import Mistake, configure, require
from extras.tasks import answers, grading, questions, sandbox
from model import sample

# --- settings -------------------------------------------------------------------------------------
ckpt = 'out/base'           # a run's folder or a .pt file in it; several: A,B
port = 8000                 # port on which to answer; 0 = any that is free
allow_code_execution = False    # True: answers to problems run; first read extras/tasks/sandbox.py
device: Literal['auto', 'cpu', 'cuda', 'mps'] = 'auto'      # auto: the fastest one that is here

MOST_BYTES = 1_000_000      # of a request
MOST_RIVALS = 20            # of a token, in log probabilities
NO_TESTS = ('no tests: this server may not run programs; read extras/tasks/sandbox.py, then '
            'start it with --allow_code_execution=True')
# The fields of a request: the type, the default, and of a number the lowest and the highest value.
FIELDS = {
    'model': (str, ''), 'prompt': (str, ''), 'messages': (list, []), 'task_id': (str, ''),
    'stop': (list, []), 'stream': (bool, False), 'n': (int, 1, 1, 1),
    'max_tokens': (int, None, 1, 10**9), 'max_completion_tokens': (int, None, 1, 10**9),
    'temperature': (float, 1.0, 0, 2), 'top_p': (float, 1.0, 0, 1), 'top_k': (int, 0, 0, 10**9),
    'seed': (int, None, -2**63, 2**63 - 1), 'logprobs': (int, None, 0, MOST_RIVALS)}
# OpenAI's fields that would change an answer, but that we lack, and values that ask for nothing.
LACKING = ('response_format', 'suffix', 'tools', 'tool_choice', 'functions', 'function_call',
           'echo', 'logit_bias', 'presence_penalty', 'frequency_penalty', 'best_of', 'audio',
           'reasoning_effort')
NOTHING = [None, '', 0, 'none', 'auto', [], {}, {'type': 'text'}]


# --- a request ------------------------------------------------------------------------------------
# A Mistake has a sentence and, if it is not 400, a status of HTTP.
def fields_of(request):
    """Return the value of each of FIELDS: what a request says, or the default. null is nothing."""
    if isinstance(request.get('stop'), str):
        request['stop'] = [request['stop']]
    if isinstance(request.get('logprobs'), bool):       # as a chat asks for them
        request['logprobs'] = (request.get('top_logprobs') or 0) if request['logprobs'] else None
    fields = {}
    for name, (kind, default, *limits) in FIELDS.items():
        fields[name] = value = default if request.get(name) is None else request[name]
        # A whole number may be a float, but True is no number. A comparison with nan is false.
        is_good = type(value) in ((int, kind) if limits else (kind,)) and (
            not limits or limits[0] <= value <= limits[1])
        require(value is default or is_good, f'{name}={value!r:.60} must be {kind.__name__}'
                f'{" from {} to {}".format(*limits) if limits else ""}')
    require(all(isinstance(text, str) and len(text) <= 64 for text in fields['stop']),
            f'stop={fields["stop"]!r:.60} must be texts of at most 64 characters')
    for name in LACKING:
        require(request.get(name) in NOTHING, f'{name}={request.get(name)!r:.60} asks for what '
                f'this server lacks; leave {name} out')
    return fields


class Handler(http.server.BaseHTTPRequestHandler):
    """One request, in a thread of its own. HTTP/1.0: each answer ends with its connection."""
    timeout = 10.0      # seconds in which a client must send, or take, some bytes
    log_message = lambda self, *_: None     # prompts are nobody's business
    is_streaming = False

    def body(self):
        """Return the JSON object in the body of a request."""
        length = self.headers.get('Content-Length', '')
        require(length.isdecimal() and int(length) <= MOST_BYTES,
                f'a body needs its Content-Length, at most {MOST_BYTES} bytes, and no chunks')
        try:
            return dict(**json.loads(self.rfile.read(int(length))))
        except (ValueError, TypeError, RecursionError) as e:
            raise Mistake(f'the body must be a JSON object in UTF-8: {str(e)[:200]}') from None

    def respond(self):
        """Answer a request, or refuse it with a sentence."""
        path, pages = self.path.split('?')[0], self.server.pages
        try:
            host = self.headers.get('Host', '')
            if (host.partition(':')[0].lower() not in ('127.0.0.1', 'localhost')
                    or self.headers.get('Origin', f'http://{host}') != f'http://{host}'):
                raise Mistake('only programs and pages of this machine may ask: Host must be '
                              'localhost or 127.0.0.1, and Origin the same', 403)
            if self.command == 'GET' and path in pages:
                self.send(200, *pages[path])
            elif self.command == 'POST' and path in ('/v1/completions', '/v1/chat/completions'):
                self.answer('chat' in path, **fields_of(self.body()))
            else:
                raise Mistake(f'nothing to {self.command} at {path[:100]}; see /v1/models', 404)
        except OSError:                         # the client went away, or does not read
            pass
        except ValueError as e:                 # a Mistake, or the tokenizer's
            sentence, *status = e.args
            self.refuse(str(sentence)[:300], *status)
        except Exception:
            traceback.print_exc()
            self.refuse('the server made a mistake; its log says which', 500)

    do_GET = do_POST = respond

    def answer(self, is_chat, model, prompt, messages, task_id, stop, stream, seed, max_tokens,
               max_completion_tokens, logprobs, temperature, top_k, top_p, **_):
        """Answer a prompt or messages, whole or as a stream of server-sent events."""
        server = self.server
        name = model or next(iter(server.models))
        for wanted, known in (name, server.models), (task_id, server.items | {'': None}):
            if wanted not in known:
                raise Mistake(f'{wanted!r:.60} is not known here; see /v1/models, /problems', 404)
        model, tokenizer, _ = server.models[name]
        source, asked = ('messages', messages) if is_chat else ('prompt', prompt)
        require(asked or not is_chat or task_id, 'messages must not be empty')
        ends = '|'.join(regex.escape(text) for text in stop if text)
        item = server.items.get(task_id)
        if item:        # no text of the client's: the answer that is judged is the model's own
            asked, ends = item[source], '' if is_chat else item['ends']
        ids, _, n_again, _ = answers.read(tokenizer, asked)
        n_left = model.config.block_size - len(ids)
        require(n_left > 0, f'{source}: {len(ids)} tokens do not fit the context of '
                f'{model.config.block_size}')
        limit = min(n_left, max_completion_tokens or max_tokens or (n_left if is_chat else 16))
        answer = answers.Answer(tokenizer, asked, limit, ends, seed)
        log = []            # of each token, it and its rivals with their log probabilities

        def draw(logits, _):        # (1, V) -> (1,)
            token = sample(logits, temperature, top_k, max(1e-9, top_p),
                           u=logits.new_tensor([answer.dice.random()]))
            log_p = logits.log_softmax(dim=-1)[0]  # (V,)
            ids = [token.item(), *log_p.topk(min(logprobs or 0, len(log_p))).indices.tolist()]
            row, *rivals = [{'token': tokenizer.decode([id]), 'logprob': max(-9999.0, p)}
                            for id, p in zip(ids, log_p[ids].tolist())]
            log.append(row | {'top_logprobs': rivals})
            return token

        role = {'role': 'assistant'}
        head = {'id': secrets.token_hex(12), 'created': int(time.time()), 'model': name,
                'object': 'chat.completion' + '.chunk' * stream if is_chat else 'text_completion'}

        def reply(text, why, rows, role):       # an answer, or a piece of it
            said = {'text': text}
            if is_chat:
                said = {'delta' if stream else 'message': role | {'content': text}}
            if logprobs is not None:        # 0 asks for them, too
                said['logprobs'] = {'content': rows}
            return head | {'choices': [{'index': 0, 'finish_reason': why or None} | said]}

        if stream:                              # it has a piece for each token
            self.send(200, b'', 'text/event-stream')
            self.is_streaming = True
        with server.locks[name]:
            for _ in answers.stream(model, [answer], draw):
                if stream:
                    self.event(reply(answer.piece, answer.why, log[-1:],
                                     role if len(log) == 1 else {}))
        # A prompt's last token counts as the prompt's, though the model may have written it again.
        n, n_asked = len(ids) + len(log), len(ids) + (n_again > 0)
        usage = {'prompt_tokens': n_asked, 'completion_tokens': n - n_asked, 'total_tokens': n}
        if item:
            head['verdict'] = {'outcome': '', 'message': NO_TESTS}
            if server.run:
                [head['verdict']] = grading.verdicts([(item, answer.text, is_chat)], server.run)
        if not stream:
            self.send(200, reply(answer.text, answer.why, log, role) | {'usage': usage})
            return
        if item:
            self.event(head)
        self.wfile.write(b'data: [DONE]\n\n')

    def event(self, value):
        """Send a server-sent event."""
        self.wfile.write(f'data: {json.dumps(value)}\n\n'.encode())

    def send(self, status, value, kind='application/json'):
        self.send_response(status)
        self.send_header('Content-Type', kind)
        self.send_header('X-Frame-Options', 'DENY')     # a page of another site may not frame ours
        self.end_headers()
        self.wfile.write(value if isinstance(value, bytes) else json.dumps(value).encode())

    def refuse(self, sentence, status=400):
        """Answer with a sentence, in OpenAI's form."""
        error = {'error': {'message': sentence, 'type': 'invalid_request_error'}}
        with contextlib.suppress(OSError):      # the client went away
            if self.is_streaming:
                self.event(error)
            else:
                self.send(status, error)


# --- the server -----------------------------------------------------------------------------------
class Server(http.server.ThreadingHTTPServer):
    """models: of open_models(). items: problems of questions.py. run: sandbox.py's run_many();
    without it no program may run."""
    handle_error = lambda self, *_: None        # a client may send anything, and leave at any time

    def __init__(self, port, models, items=(), run=None):
        self.models, self.run = models, run
        self.items = {item['task_id']: item for item in items}
        self.locks = {name: threading.Lock() for name in models}
        page = pathlib.Path(__file__).with_name('page.html').read_bytes()
        rows = [{'id': name, 'object': 'model', 'chat': 'stage' in trained}
                for name, (_, _, trained) in models.items()]
        self.pages = {'/': [page, 'text/html; charset=utf-8'], '/problems': [{'data': items}],
                      '/v1/models': [{'object': 'list', 'data': rows}]}
        try:
            super().__init__(('127.0.0.1', port), Handler)
        except OSError as e:
            raise Mistake(f'cannot listen on port {port}: {e.strerror}; try another --port') from e


if __name__ == '__main__':
    configure(globals(), {'port': (0, 65535)})
    torch.backends.cuda.enable_cudnn_sdp(False)         # it plans anew for each length of a prompt
    models = answers.open_models(ckpt, device)
    items = questions.from_problems(100, 0, ['variation'])      # the page offers them
    run = sandbox.run_many if allow_code_execution else None
    with Server(port, models, items, run) as server:
        print(f'http://127.0.0.1:{server.server_port} answers; Ctrl-C ends it', flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.1)
