"""
What a client of server.py sends, in the forms of OpenAI's API: a body, its fields, its messages.

    read({'prompt': 'def f(', 'temperature': 0})    # -> the value of each of FIELDS
    read({'prompt': 'def f(', 'n': 2})              # a Mistake, as for what is in LACKING

A field that would change an answer is read or refused, because a client that is given something
else than it asked for does not notice. Other fields, such as `user`, are ignored. A Mistake may
have a second argument, a status of HTTP other than 400.
"""
import json
import regex
from configurator import Mistake

MOST_BYTES = 1_000_000                  # of a body
MOST_STOPS, LONGEST_STOP = 4, 64        # texts in `stop`, and characters in one of them
MOST_RIVALS = 20                        # of a token, in log probabilities
# The fields of a request: the type, the default, and of a number the lowest and the highest value.
FIELDS = {
    'model': (str, ''), 'prompt': (str, ''), 'messages': (list, []), 'task_id': (str, ''),
    'stop': (list, []), 'stream': (bool, False), 'n': (int, 1, 1, 1),
    'max_tokens': (int, None, 1, 10**9), 'max_completion_tokens': (int, None, 1, 10**9),
    'temperature': (float, 1.0, 0, 2), 'top_p': (float, 1.0, 0, 1), 'top_k': (int, 0, 0, 10**9),
    'seed': (int, None, -2**63, 2**63 - 1), 'stream_options': (dict, {}),
    'top_logprobs': (int, None, 0, MOST_RIVALS), 'logprobs': (int, None, 0, MOST_RIVALS)}
# OpenAI's fields that would change an answer, but that we lack, and their values that would not.
LACKING = {
    'response_format': [{'type': 'text'}], 'modalities': [['text']], 'audio': [], 'suffix': [''],
    'tools': [[]], 'tool_choice': ['none', 'auto'], 'web_search_options': [], 'moderation': [],
    'functions': [[]], 'function_call': ['none', 'auto'], 'reasoning_effort': ['none'],
    'verbosity': ['medium'], 'logit_bias': [{}], 'presence_penalty': [0], 'frequency_penalty': [0],
    'best_of': [1], 'echo': [False]}


def read(request):
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
        if value is not default and not is_good:
            raise Mistake(f'{name}={value!r:.60} must be {kind.__name__}'
                          f'{" from {} to {}".format(*limits) if limits else ""}')
    stop = fields['stop']
    if len(stop) > MOST_STOPS or not all(
            isinstance(text, str) and len(text) <= LONGEST_STOP for text in stop):
        raise Mistake(f'stop={stop!r:.60} must be a text or a list of at most {MOST_STOPS} texts, '
                      f'each of at most {LONGEST_STOP} characters')
    for name, harmless in LACKING.items():
        if request.get(name) is not None and request[name] not in harmless:
            raise Mistake(f'{name}={request[name]!r:.60} asks for what this server lacks; leave '
                          f'{name} out')
    return fields


def plain(messages):
    """Return messages in the forms of OpenAI's API as Tokenizer.render() reads them. `developer` is
    a newer name of the role `system`. A content may be a list of parts; texts are joined."""
    rows = []
    for i, message in enumerate(messages):
        message = dict(message) if isinstance(message, dict) else {'content': message}
        if message.get('tool_calls') or message.get('function_call'):
            raise Mistake(f'messages[{i}] calls a tool, which no model here can; leave it out, or '
                          'write the call into its content')
        if isinstance(message.get('content'), list):
            parts = [part if isinstance(part, dict) else {} for part in message['content']]
            for part in parts:
                if part.get('type') != 'text' or not isinstance(part.get('text'), str):
                    raise Mistake(f'messages[{i}] has a part of the type {part.get("type")!r:.60}; '
                                  'it must be {"type": "text", "text": ...}')
            message['content'] = ''.join(part['text'] for part in parts)
        if message.get('role') == 'developer':
            message['role'] = 'system'
        rows.append(message)
    return rows


def read_body(headers, file):
    """Return the JSON object in the body of a request: as many bytes as Content-Length says, or
    chunks, each behind its length in hex, up to one of 0 bytes. Both at once are refused, because a
    proxy that looks at the other header than we do would see a request where we see a body."""
    lengths, codings = (headers.get_all(name, [])
                        for name in ('Content-Length', 'Transfer-Encoding'))
    if len(lengths + codings) > 1 or codings and codings[0].strip().lower() != 'chunked':
        raise Mistake('a request needs one Content-Length, or Transfer-Encoding: chunked')
    body, size = bytearray(), 1             # of the chunk before
    if not codings:
        length = ''.join(lengths).strip() or '0'
        if not regex.fullmatch('[0-9]{1,9}', length) or int(length) > MOST_BYTES:
            raise Mistake(f'Content-Length={length:.60} must be from 0 to {MOST_BYTES}', 413)
        body, size = file.read(int(length)), 0
    while size:
        head = regex.fullmatch(rb'([0-9a-fA-F]{1,8})[ \t]*(;.*)?\r\n', file.readline(200))
        size = int(head[1], 16) if head else 0
        if len(body) + size > MOST_BYTES:
            raise Mistake(f'the body must have at most {MOST_BYTES} bytes', 413)
        body += file.read(size)
        if not head or file.read(2) != b'\r\n':
            raise Mistake('the chunks of the body are cut off, malformed or end in trailers')
    try:
        return dict(**json.loads(body))
    except (ValueError, TypeError, RecursionError) as e:
        raise Mistake(f'the body must be a JSON object in UTF-8: {str(e)[:200]}') from None
