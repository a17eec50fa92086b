"""
OpenAI's API: requests and answers as JSON, for models that write in a batch.

    api = Api({'out/sft': writer}, asking)                  # a Writer of writer.py; the part asking.py
    for part in api.answer({'prompt': 'def f(x):'}, False): # a request to /v1/completions; True: a chat
        print(part)                                         # None: nothing new yet; at last the answer

With {'stream': True} the parts are the chunks of the answer. The first model is the default.
Log-probabilities are those of the model itself, at temperature 1. An answer ends at the latest where
the context does. top_k is ours, everything else is a subset of OpenAI's API; the rest is refused by name.
Copy this file alone: it needs the standard library.
"""
import json, queue, secrets, time

# settings of OpenAI's that would change an answer and that we lack: refused, unless they ask for nothing
LACKING = {'best_of': 1, 'echo': False, 'logit_bias': {}, 'presence_penalty': 0, 'frequency_penalty': 0,
           'tools': [], 'functions': [], 'response_format': {'type': 'text'}}


class Refusal(Exception):
    """A request that gets a status and a sentence in place of an answer. param: the field that is wrong."""

    def __init__(self, status, sentence, param=None):
        super().__init__(sentence)
        self.status = status
        self.param = param


# --- reading a request --------------------------------------------------------------------------------------
def shown(value):
    """A value for a sentence, briefly."""
    text = f'a {type(value).__name__}' if isinstance(value, list | dict) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + '...'


def number(fields, name, kind, low, high, default):
    """fields[name] as an int or float within [low, high]; default if it is missing or null."""
    value = fields.get(name)
    if value is None:
        return default
    if type(value) not in (int, kind) or not low <= value <= high:      # refuses NaN, too
        a_number = 'a whole number' if kind is int else 'a number'
        raise Refusal(400, f'{name}={shown(value)} must be {a_number} from {low} to {high}', name)
    return kind(value)


def texts(fields, name):
    """fields[name] as a list of texts: a text alone is a list of one."""
    value = fields.get(name)
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise Refusal(400, f'{name}={shown(value)} must be a text or a list of texts', name)
    return value


def flag(fields, name):
    """fields[name] as True or False; False if it is missing or null."""
    if not isinstance(fields.get(name) or False, bool):
        raise Refusal(400, f'{name}={shown(fields[name])} must be true or false', name)
    return bool(fields.get(name))


def messages_of(fields):
    """[{'role', 'content'}], each content a text. Clients may send a list of parts in its place."""
    messages = fields.get('messages')
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise Refusal(400, 'messages must be a list of objects with role and content', 'messages')
    checked = []
    for message in messages:
        content = message.get('content')
        parts = content if isinstance(content, list) else [{'type': 'text', 'text': content}]
        if not all(isinstance(part, dict) and isinstance(part.get('text'), str) for part in parts):
            raise Refusal(400, 'the content of a message must be text: this model reads nothing else',
                          'messages')
        checked.append({'role': message.get('role'), 'content': ''.join(part['text'] for part in parts)})
    return checked


def draw_of(fields, chat):
    """How the answers are written: for begin() of asking.py, and Answer of decoding.py."""
    for name, harmless in LACKING.items():
        if fields.get(name) not in (None, harmless):
            raise Refusal(400, f'{name} is not supported here; leave it out', name)
    n_top = number(fields, 'top_logprobs' if chat else 'logprobs', int, 0, 20, 0)
    stop = texts(fields, 'stop')
    if len(stop) > 16 or not all(1 <= len(text) <= 256 for text in stop):
        raise Refusal(400, 'stop must be at most 16 texts of 1 to 256 characters', 'stop')
    return {'temperature': number(fields, 'temperature', float, 0, 2, 1.0),
            'top_p': number(fields, 'top_p', float, 0, 1, 1.0),
            'top_k': number(fields, 'top_k', int, 0, 2 ** 31, 0),
            'n_top': n_top, 'stop': stop}


# --- OpenAI's forms -----------------------------------------------------------------------------------------
def as_text(data):
    """Bytes of a token as JSON has them. A part of a character is written as OpenAI does: bytes:\\xe6."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return 'bytes:' + ''.join(f'\\x{byte:02x}' for byte in data)


def log_probs(tokens, chat):
    """The log-probabilities of Tokens, in the form of a chat or of a completion."""
    if not chat:
        return {'tokens': [as_text(token.data) for token in tokens],
                'token_logprobs': [token.log_p for token in tokens],
                'top_logprobs': [{as_text(data): log_p for data, log_p in token.top} for token in tokens],
                'text_offset': [token.offset for token in tokens]}
    entry = lambda data, log_p: {'token': as_text(data), 'logprob': log_p, 'bytes': list(data)}
    return {'content': [{**entry(token.data, token.log_p), 'top_logprobs': [entry(*p) for p in token.top]}
                        for token in tokens]}


def as_choice(pieces, chat, scored, first=None):
    """Pieces of one answer as a member of `choices`. first: in a stream, whether this is its first part."""
    text = ''.join(piece.text for piece in pieces)
    content = {'text': text}
    if chat:
        role = {} if first is False else {'role': 'assistant'}
        content = {'message' if first is None else 'delta': {**role, 'content': text}}
    tokens = [token for piece in pieces for token in piece.tokens]
    return {'index': pieces[0].index, **content, 'finish_reason': pieces[-1].finish,
            'logprobs': log_probs(tokens, chat) if scored else None}


# --- answering ----------------------------------------------------------------------------------------------
class Api:
    """writers: {name of the model: Writer}. asking: the part of that name."""
    Refusal = Refusal

    def __init__(self, writers, asking):
        self.writers = writers
        self.asking = asking
        self.began = int(time.time())

    def listing(self):
        """The models, as /v1/models has them."""
        return [{'id': name, 'object': 'model', 'created': self.began, 'owned_by': 'nanoparrot'}
                for name in self.writers]

    def prompts_of(self, writer, fields, chat, max_tokens):
        """The prompts as the model reads them, one for each answer; how many answers each has; max_tokens."""
        context, slots = writer.batch.context, writer.batch.slots
        asked = [messages_of(fields)] if chat else texts(fields, 'prompt') or ['']
        if chat and len(asked[0]) > context:        # said before the work of encoding them
            raise Refusal(400, f'{len(asked[0])} messages exceed a context of {context}', 'messages')
        n = number(fields, 'n', int, 1, slots, 1)
        if n * len(asked) > slots:
            raise Refusal(400, f'{len(asked)} prompts with n={n} are more than {slots} answers', 'n')
        suffix, *others = texts(fields, 'suffix') or ['']
        if others:
            raise Refusal(400, f'suffix must be one text, not {1 + len(others)}', 'suffix')
        if not suffix:
            prompts = [self.asking.encode(writer.tokenizer, prompt) for prompt in asked]
        elif chat or '<|fim_middle|>' not in writer.tokenizer.special:
            raise Refusal(400, 'this model cannot fill a gap: leave suffix out', 'suffix')
        else:
            prompts = []
            for prompt in asked:
                gap, max_tokens = self.asking.between(writer.tokenizer, prompt, suffix, context, max_tokens)
                prompts.append(gap)
        return [prompt for prompt in prompts for _ in range(n)], n, max_tokens

    def answer(self, fields, chat):
        """Yields the parts of an answer as they come, None when there is nothing new. Whoever closes this
        generator early frees its rows. Refusal if there is no answer."""
        name = fields.get('model') or next(iter(self.writers))
        if not isinstance(name, str) or name not in self.writers:
            raise Refusal(404, f'there is no model {shown(name)}; see /v1/models', 'model')
        writer = self.writers[name]
        how = draw_of(fields, chat)
        limit = 'max_tokens' if fields.get('max_completion_tokens') is None else 'max_completion_tokens'
        max_tokens = number(fields, limit, int, 1, 2 ** 31, writer.batch.context if chat else 16)
        seed = number(fields, 'seed', int, -2 ** 63, 2 ** 63, secrets.randbits(32))
        streams = flag(fields, 'stream')
        scored = flag(fields, 'logprobs') if chat else fields.get('logprobs') is not None
        try:
            prompts, n, max_tokens = self.prompts_of(writer, fields, chat, max_tokens)
            choices, pieces = writer.add(prompts, max_tokens, seed, scored_at=1.0 if scored else None, **how)
        except ValueError as e:
            raise Refusal(400, str(e)[:300], 'messages' if chat else 'prompt') from None
        except queue.Full:
            raise Refusal(429, 'too many requests wait; ask again soon') from None

        kind = 'text_completion'
        if chat:
            kind = 'chat.completion.chunk' if streams else 'chat.completion'
        head = {'id': f'{"chatcmpl" if chat else "cmpl"}-{secrets.token_hex(12)}', 'object': kind,
                'created': int(time.time()), 'model': name}
        parts = [[] for _ in choices]       # the pieces of each
        unfinished = len(choices)
        try:
            while unfinished:
                try:
                    piece = pieces.get(timeout=0.1)
                except queue.Empty:
                    yield None
                    continue
                if piece.finish == 'error':
                    raise Refusal(500, "the model could not write this answer; the server's log says why")
                if not (piece.text or piece.tokens or piece.finish):
                    continue
                if piece.finish:
                    unfinished -= 1
                parts[piece.index].append(piece)
                first = len(parts[piece.index]) == 1
                yield {**head, 'choices': [as_choice([piece], chat, scored, first)]} if streams else None
        finally:
            writer.end(choices)

        n_prompt = sum(len(prompt.ids) + min(1, prompt.repeated) for prompt in prompts[::n])
        n_new = sum(len(piece.tokens) for some in parts for piece in some)
        usage = {'prompt_tokens': n_prompt, 'completion_tokens': n_new, 'total_tokens': n_prompt + n_new}
        options = fields.get('stream_options')
        if not streams:
            yield {**head, 'choices': [as_choice(some, chat, scored) for some in parts], 'usage': usage}
        elif isinstance(options, dict) and options.get('include_usage'):
            yield {**head, 'choices': [], 'usage': usage}
