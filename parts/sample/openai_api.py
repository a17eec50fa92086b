"""
OpenAI's API: requests and answers as JSON, for models that write in a batch.

    api = Api({'out/sft': writer}, asking)                  # a Writer of writer.py; the part asking.py
    for part in api.answer({'prompt': 'def f(x):'}, False): # a request to /v1/completions; True: a chat
        print(part)                                         # None: nothing new yet; at last the answer

With {'stream': True} the parts are the chunks of the answer. The first model is the default.
Log-probabilities are those of the model itself, at temperature 1. An answer ends at the latest where the
context does. top_k is ours, and so is task_id in place of a prompt: a problem, asked as in questions.py; its
answer can be judged. Everything else is a subset of OpenAI's API. What LACKING names is refused, and other
fields are not read.
"""
import collections, queue, secrets, threading, time

# settings of OpenAI's that would change an answer and that we lack: refused, unless they ask for nothing
LACKING = {'n': 1, 'best_of': 1, 'echo': False, 'logit_bias': {}, 'presence_penalty': 0,
           'frequency_penalty': 0, 'tools': [], 'functions': [], 'response_format': {'type': 'text'}}


class Refusal(Exception):
    """A request that gets a status and a sentence in place of an answer. param: the field that is wrong."""

    def __init__(self, status, sentence, param=None):
        super().__init__(sentence)
        self.status = status
        self.param = param


# --- reading a request --------------------------------------------------------------------------------------
def field(fields, name, is_right, expectation, default=None):
    """fields[name] or, if it is missing or null, the default. Refusal if that is None, or not is_right."""
    value = fields.get(name)
    if value is None and default is not None:
        return default
    if not is_right(value):
        raise Refusal(400, f'{name}={value!r:.60} must be {expectation}', name)
    return value


def text_of(fields, name):
    return field(fields, name, lambda value: isinstance(value, str), 'a text', '')


def flag(fields, name):
    return field(fields, name, lambda value: isinstance(value, bool), 'true or false', False)


def number(fields, name, kind, low, high, default):
    """An int or a float within [low, high], which NaN is not."""
    is_right = lambda value: type(value) in (int, kind) and low <= value <= high
    a_number = 'a whole number' if kind is int else 'a number'
    return kind(field(fields, name, is_right, f'{a_number} from {low} to {high}', default))


def draw_of(fields, chat):
    """How the answers are written: for begin() of asking.py, and Answer of decoding.py."""
    for name, harmless in LACKING.items():
        if fields.get(name) not in (None, harmless):
            raise Refusal(400, f'{name} is not supported here; leave it out', name)
    scored = flag(fields, 'logprobs') if chat else fields.get('logprobs') is not None
    stop = fields.get('stop')
    stops = {'stop': [stop] if isinstance(stop, str) else stop}
    are_texts = lambda value: isinstance(value, list) and len(value) <= 16 and all(
        isinstance(text, str) and 0 < len(text) <= 1000 for text in value)
    return {'temperature': number(fields, 'temperature', float, 0, 2, 1.0),
            'top_p': number(fields, 'top_p', float, 0, 1, 1.0),
            'top_k': number(fields, 'top_k', int, 0, 2 ** 31, 0),
            'n_top': number(fields, 'top_logprobs' if chat else 'logprobs', int, 0, 20, 0),
            'scored_at': 1.0 if scored else None,
            'stop': field(stops, 'stop', are_texts, 'a text or up to 16, of 1 to 1,000 characters', [])}


# --- OpenAI's forms -----------------------------------------------------------------------------------------
def entry(data, log_p):
    """A token, for completions in the form of a chat, too. A part of a character becomes a \ufffd."""
    return {'token': data.decode('utf-8', 'replace'), 'logprob': log_p, 'bytes': list(data)}


def as_choice(pieces, chat, scored, is_chunk, is_first):
    """Pieces of an answer as the member of `choices`. is_first: are they its first ones?"""
    text = ''.join(piece.text for piece in pieces)
    content = {'text': text}
    if chat:
        role = {'role': 'assistant'} if is_first else {}
        content = {'delta' if is_chunk else 'message': {**role, 'content': text}}
    tokens = [{**entry(token.data, token.log_p), 'top_logprobs': [entry(*pair) for pair in token.top]}
              for piece in pieces for token in piece.tokens]
    return {'index': 0, **content, 'finish_reason': pieces[-1].finish,
            'logprobs': {'content': tokens} if scored else None}


# --- answering ----------------------------------------------------------------------------------------------
class Api:
    """writers: {name of the model: Writer}. asking, questions: the parts of these names. items: the
    problems, of questions.py. run: sandbox.run_code, or None: no program may run."""
    Refusal = Refusal

    def __init__(self, writers, asking, questions=None, items=(), run=None):
        self.writers = writers
        self.asking = asking
        self.questions = questions
        self.items = {item['task_id']: item for item in items}
        self.run = run
        self.one_by_one = threading.Lock()      # programs that run
        self.answers = collections.deque(maxlen=1000)       # (id, item, text, chat): the latest to problems
        models = [{'id': name, 'object': 'model', 'created': 0, 'owned_by': 'nanoparrot', 'chat': writer.chat}
                  for name, writer in writers.items()]
        examples = [{key: item[key] for key in ('task_id', 'prompt', 'asked')} for item in items]
        self.lists = {'/v1/models': models, '/problems': examples}

    def verdict(self, fields):
        """Run the tests of an answer, {'id'} -> its outcome as in questions.py. Nothing else can be run."""
        if not self.run:
            raise Refusal(403, "no tests: this server may not run a model's programs; first read "
                          'parts/eval/sandbox.py, then start it with --allow_code_execution=True')
        known = [answer for answer in list(self.answers) if answer[0] == fields.get('id')]
        if not known:
            raise Refusal(404, 'no answer to a problem has this id; ask with a task_id of /problems', 'id')
        _, item, text, chat = known[0]
        job = self.questions.job(item, text, chat)
        try:
            with self.one_by_one:
                result = self.run(*job) if job else None
        except ValueError as e:         # no program can run on this machine, or none any more
            raise Refusal(500, str(e)) from None
        return self.questions.outcome(item, text, result, chat)

    def prompt_of(self, writer, fields, chat, max_tokens):
        """The prompt as the model reads it, and max_tokens: between two texts, it may be less."""
        if chat:
            is_right = lambda value: value and isinstance(value, list)      # render() looks at the members
            messages = field(fields, 'messages', is_right, 'a list of objects with role and content')
            is_newer = lambda m: isinstance(m, dict) and m.get('role') == 'developer'   # OpenAI's, for system
            messages = [m | {'role': 'system'} if is_newer(m) else m for m in messages]
            return self.asking.encode(writer.tokenizer, messages), max_tokens
        prompt, suffix = text_of(fields, 'prompt'), text_of(fields, 'suffix')
        if not suffix:
            return self.asking.encode(writer.tokenizer, prompt), max_tokens
        if not writer.fills:
            raise Refusal(400, 'this model cannot fill a gap: leave suffix out', 'suffix')
        return self.asking.between(writer.tokenizer, prompt, suffix, writer.batch.context, max_tokens)

    def answer(self, fields, chat):
        """Yields the parts of an answer as they come, None when there is nothing new. Whoever closes this
        generator early frees its rows. Refusal if there is no answer."""
        name = text_of(fields, 'model') or next(iter(self.writers))
        if name not in self.writers:
            raise Refusal(404, f'there is no model {name!r:.60}; see /v1/models', 'model')
        writer = self.writers[name]
        how = draw_of(fields, chat)
        task_id = text_of(fields, 'task_id')
        if task_id and task_id not in self.items:
            raise Refusal(404, f'there is no problem {task_id!r:.60}; see /problems', 'task_id')
        item = self.items.get(task_id)
        if item:                # nothing else that a client writes is read: the answer is the model's own
            question = self.questions.question(item, chat)
            fields = fields | {'messages': question, 'prompt': question, 'suffix': None}
            how['ends'] = None if chat else self.questions.ENDS[item['task']]
        limit = 'max_tokens' if fields.get('max_completion_tokens') is None else 'max_completion_tokens'
        max_tokens = number(fields, limit, int, 1, 2 ** 31, writer.batch.context if chat else 16)
        seed = number(fields, 'seed', int, -2 ** 63, 2 ** 63, secrets.randbits(32))
        streams = flag(fields, 'stream')
        try:
            prompt, max_tokens = self.prompt_of(writer, fields, chat, max_tokens)
            reader = writer.add(prompt, max_tokens, seed, **how)
        except ValueError as e:
            raise Refusal(400, str(e)[:300], 'messages' if chat else 'prompt') from None
        except queue.Full:
            raise Refusal(429, 'too many requests wait; ask again soon') from None

        kind = 'chat.completion' if chat else 'text_completion'
        if chat and streams:
            kind += '.chunk'
        head = {'id': secrets.token_hex(12), 'object': kind, 'created': int(time.time()), 'model': name}
        scored = how['scored_at'] is not None
        pieces = []
        try:
            while not (pieces and pieces[-1].finish):
                try:
                    pieces.append(reader.pieces.get(timeout=0.1))
                except queue.Empty:
                    yield None
                    continue
                if pieces[-1].finish == 'error':
                    raise Refusal(500, "the model could not write this answer; the server's log says why")
                chunk = {**head, 'choices': [as_choice(pieces[-1:], chat, scored, True, len(pieces) == 1)]}
                yield chunk if streams else None
        finally:
            writer.end(reader)
        if item:
            self.answers.append((head['id'], item, ''.join(piece.text for piece in pieces), chat))
        if streams:
            return

        n_prompt = len(prompt.ids) + min(1, prompt.repeated)
        n_new = min(max_tokens, sum(len(piece.tokens) for piece in pieces))
        usage = {'prompt_tokens': n_prompt, 'completion_tokens': n_new, 'total_tokens': n_prompt + n_new}
        yield {**head, 'choices': [as_choice(pieces, chat, scored, False, True)], 'usage': usage}
