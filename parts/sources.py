"""
Sources: what files hold, as documents: texts, records, conversations, preferences.

    for doc in read_documents(['a.py', 'b.jsonl.gz'], reject=print):
        doc['texts'], doc['path']                           # its texts: one, or those of a conversation
    messages_of({'instruction': 'Add 1 and 2.', 'input': '', 'output': '3'})

Of .py .txt .md, a file is a document; of .jsonl .json, a record is one, its text under `text` or `content`.
Any of them may be gzipped. What cannot be read is counted, never fatal: of a thousand shards, one is damaged.

Copy this file alone: it needs the standard library.
"""
import gzip, itertools, json, re, zlib

RECORDS = ('.jsonl', '.json')   # also with .gz
LONGEST = 100_000               # characters: no model's context is longer, by far
# names that datasets give to where a record comes from
LABELS = 'source', 'pile_set_name', 'domain', 'language', 'lang', 'repo_name', 'max_stars_repo_name'
SAMPLE = {'outcome', 'task_id', 'completion'}       # what a record of eval.py has
# not UTF-8 or JSON, cut off, not allowed, not an archive, nested too deep
UNREADABLE = ValueError, EOFError, OSError, zlib.error, RecursionError


def is_kind(path, endings):
    return path.removesuffix('.gz').endswith(endings)


def open_file(path, mode='rb', **settings):
    return (gzip.open if path.endswith('.gz') else open)(path, mode, **settings)


def strings_in(value):
    """Every text in a JSON value, but not the roles in a conversation."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from strings_in(inner)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key not in ('role', 'from'):
                yield from strings_in(inner)


# --- documents ----------------------------------------------------------------------------------------------
def read_documents(paths, reject, kind='text', max_chars=1_000_000, per_prompt=4, prefer='passed'):
    """Yield the documents of files: dicts of `texts` (one, or a conversation's), `path`, perhaps `url` and
    `licence`; with kind='sft' or 'preference' also `roles`. What cannot be read, or has more than max_chars,
    is passed over: reject(path, line, why) hears of it. For per_prompt and prefer see from_samples."""
    for path in paths:
        try:
            if is_kind(path, RECORDS):
                yield from documents_of(path, reject, kind, max_chars, per_prompt, prefer)
            elif kind == 'text':
                for text in texts_of(path, max_chars):
                    yield {'texts': [text], 'path': path}
            else:
                raise ValueError(f'{kind} needs records, in .jsonl or .json')
        except UNREADABLE as e:
            reject(path, 1, f'{type(e).__name__}: {e}')


def texts_of(path, max_chars):
    """Yield the text of a file: a program whole, other text in pieces of whole lines."""
    with open_file(path, 'rt', encoding='utf-8', newline='') as f:
        if is_kind(path, '.py'):
            text = f.read(max_chars + 1)
            if len(text) > max_chars:
                raise ValueError(f'longer than {max_chars:,} characters')
            yield text
            return
        rest = f.read(LONGEST + 1)
        while len(rest) > LONGEST:
            cut = rest.rfind('\n', 0, LONGEST) + 1 or LONGEST
            yield rest[:cut]
            rest = rest[cut:]
            rest += f.read(LONGEST + 1 - len(rest))
        yield rest


def documents_of(path, reject, kind, max_chars, per_prompt, prefer):
    """Yield the documents of a file of records."""
    samples = []
    for line, record, why in read_records(path, 8 * max_chars):     # bytes: a character may be \\u20ac
        keys = record.keys() if isinstance(record, dict) else set()
        if kind != 'text' and SAMPLE <= keys and (record.get('messages') or record.get('prompt')):
            samples.append(record)
            continue
        try:
            doc = None if why else from_record(record, f'{path}:{line}', kind, max_chars)
        except (ValueError, RecursionError) as e:
            why = f'{type(e).__name__}: {e}'
        if why:
            reject(path, line, why)
        else:
            yield doc
    for record in from_samples(samples, kind, per_prompt, prefer):
        yield from_record(record, path, kind, max_chars)


def read_records(path, longest=1 << 30):
    """Yield (line, record, None) for each record of a file, or (line, None, why) if it cannot be read or has
    more than `longest` bytes."""
    line = 0
    try:
        with open_file(path) as f:
            is_list = is_kind(path, '.json') and re.match(rb'(?:\xef\xbb\xbf)?\s*\[', f.read(99))
            f.seek(0)
            if is_list:
                for line, record in enumerate(json.loads(f.read().decode('utf-8-sig')), 1):
                    yield line, record, None
                return
            while data := f.readline(longest):          # a record a line
                line += 1
                if len(data) == longest and not data.endswith(b'\n'):
                    while data and not data.endswith(b'\n'):
                        data = f.readline(longest)
                    yield line, None, f'longer than {longest:,} bytes'
                elif data.strip():
                    try:
                        yield line, json.loads(data.decode('utf-8-sig')), None
                    except (ValueError, RecursionError) as e:
                        yield line, None, f'{type(e).__name__}: {e}'
    except UNREADABLE as e:
        yield line + 1, None, f'{type(e).__name__}: {e}'


def read_problems(path):
    """The records of a benchmark; ValueError if one cannot be read."""
    found = list(read_records(path))
    for line, _, why in found:
        if why:
            raise ValueError(f'{path}, line {line}, cannot be read as JSON or JSON lines ({why})')
    return [problem for _, problem, _ in found]


def from_record(record, path, kind, max_chars):
    """A record in any of the usual forms as a document, or ValueError."""
    if kind == 'text':
        record = record if isinstance(record, dict) else {'text': record}
        text = record.get('text', record.get('content'))
        if not isinstance(text, str):
            raise ValueError('no text or content in it')
        doc = {'texts': [text]}
    elif kind == 'sft':
        messages = messages_of(record)
        doc = {'texts': [m['content'] for m in messages], 'roles': [m['role'] for m in messages]}
    else:
        pair = preference_of(record)
        prompt = pair.pop('prompt')
        messages = prompt if isinstance(prompt, list) else [{'role': 'user', 'content': prompt}]
        answers = [pair.pop(key) for key in ('chosen', 'rejected', 'completion') if key in pair]
        doc = {'texts': [m['content'] for m in messages] + answers,
               'roles': [m['role'] for m in messages], 'scores': pair}
    if sum(map(len, doc['texts'])) > max_chars:
        raise ValueError(f'longer than {max_chars:,} characters')

    names = [record[key] for key in ('repo_name', 'path') if isinstance(record.get(key), str)]
    doc['path'] = f'{path} {"/".join(names)}'.strip()
    named = {**record['meta'], **record} if isinstance(record.get('meta'), dict) else record
    labels = {key: named[key] for key in LABELS if isinstance(named.get(key), str)}
    if labels:
        doc['labels'] = labels
    for key, other in (('url', 'url'), ('licence', 'license')):
        value = record.get(key, record.get(other))
        if isinstance(value, str):
            doc[key] = value
    return doc


def to_record(doc, chat_format='messages'):
    """The inverse of from_record; a conversation as messages, alpaca or vicuna."""
    if 'roles' not in doc:
        return {'text': doc['texts'][0]}
    messages = [{'role': role, 'content': text} for role, text in zip(doc['roles'], doc['texts'])]
    if 'scores' in doc:
        prompt = messages[0]['content'] if len(messages) == 1 else messages
        names = ('completion',) if 'label' in doc['scores'] else ('chosen', 'rejected')
        return {'prompt': prompt, **dict(zip(names, doc['texts'][len(messages):])), **doc['scores']}
    if chat_format == 'alpaca':
        return to_alpaca(messages)
    return to_vicuna(messages) if chat_format == 'vicuna' else {'messages': messages}


def size_of(doc):
    return sum(len(text.encode('utf-8', 'surrogatepass')) for text in doc['texts'])


def from_samples(samples, kind, per_prompt=4, prefer='passed'):
    """Samples that eval.py has judged -> records to train on, at most per_prompt of a prompt. 'preference':
    an answer that passed over one that failed; with prefer='taste', of those that passed, a preferred one
    over another; with 'both', both. 'sft': what passed (with 'taste': and is preferred)."""
    problem = lambda sample: (str(sample.get('task')), str(sample['task_id']))
    for _, group in itertools.groupby(sorted(samples, key=problem), problem):
        by_text = {s['completion']: s for s in group if s['outcome'] != 'infrastructure'}
        asked = next((s.get('messages') or s.get('prompt') for s in by_text.values()), None)
        passed = [text for text, s in by_text.items() if s['outcome'] == 'passed']
        failed = [text for text in by_text if text not in passed]
        liked = [text for text in passed if by_text[text].get('preferred')]
        others = [text for text in passed if text not in liked]
        if kind == 'sft':
            asked = [{'role': 'user', 'content': asked}] if isinstance(asked, str) else asked
            for text in (liked if prefer == 'taste' else passed)[:per_prompt]:
                yield {'messages': [*asked, {'role': 'assistant', 'content': text}]}
            continue
        for way, better, worse in (('passed', passed, failed), ('taste', liked, others)):
            if prefer in (way, 'both') and better and worse:
                for i in range(min(max(len(better), len(worse)), per_prompt)):      # each about as often
                    yield {'prompt': asked, 'chosen': better[i % len(better)],
                           'rejected': worse[i % len(worse)]}


# --- conversations and preferences --------------------------------------------------------------------------
ROLES = {'system': 'system', 'user': 'user', 'human': 'user', 'assistant': 'assistant', 'gpt': 'assistant',
         'chatgpt': 'assistant', 'bot': 'assistant', 'model': 'assistant', 'tool': 'tool', 'function': 'tool',
         'observation': 'tool'}


def first_of(record, *names):
    """The value of the first of these names that a record has, or None."""
    return next((record[name] for name in names if name in record), None)


def messages_of(record):
    """[{'role': 'system' | 'user' | 'assistant' | 'tool', 'content'}] of a record, or ValueError. Its form:

    messages or conversation: [{'role', 'content'}]
    ShareGPT, Vicuna: conversations: [{'from', 'value'}]
    Alpaca: instruction, perhaps input, output, and history: [[question, answer]]
    prompt or question, with completion, response or answer. Each may have a system, a text."""
    if not isinstance(record, dict):
        raise ValueError(f'a record is {type(record).__name__}, not an object')
    turns = first_of(record, 'messages', 'conversations', 'conversation')
    if turns is None:
        turns = turns_of(record)

    messages = []
    for turn in turns if isinstance(turns, list) else [turns]:
        if not isinstance(turn, dict):
            raise ValueError(f'a message is {type(turn).__name__}, not an object')
        role = str(turn.get('role', turn.get('from'))).lower()
        content = turn.get('content', turn.get('value'))
        if role not in ROLES or not isinstance(content, str):
            raise ValueError(f'a message needs a role of {", ".join(ROLES)} and a text, not {role!r} and '
                             f'{type(content).__name__}')
        messages.append({'role': ROLES[role], 'content': content})

    while messages and messages[0]['role'] == 'assistant':      # ShareGPT often starts in the middle
        messages.pop(0)
    while messages and messages[-1]['role'] != 'assistant':     # an unanswered question teaches nothing
        messages.pop()
    system = record.get('system')
    if messages and system and all(m['role'] != 'system' for m in messages):
        if not isinstance(system, str):
            raise ValueError('system must be text')
        messages.insert(0, {'role': 'system', 'content': system})
    return messages


def turns_of(record):
    """messages_of for a question and its answer, perhaps with a history."""
    question = first_of(record, 'instruction', 'prompt', 'question')
    answer = first_of(record, 'output', 'completion', 'response', 'answer')
    context = record.get('input') or ''
    if not all(isinstance(text, str) for text in (question, answer, context)):
        raise ValueError('neither messages, nor conversations, nor instruction and output, all text')
    history = record.get('history') or []
    if not isinstance(history, list) or not all(isinstance(h, list) and len(h) == 2 for h in history):
        raise ValueError('history must be a list of [question, answer]')

    turns = []
    for asked, answered in [*history, ['\n\n'.join(filter(None, (question, context))), answer]]:
        turns += [{'role': 'user', 'content': asked}, {'role': 'assistant', 'content': answered}]
    return turns


def fits_alpaca(roles):
    """Whether questions and answers take turns; there may be a system."""
    turns = [role for role in roles if role != 'system']
    return bool(turns) and turns == ['user', 'assistant'] * (len(turns) // 2)


def to_alpaca(messages):
    """The last exchange is instruction and output, the earlier ones are history."""
    if not fits_alpaca([m['role'] for m in messages]):
        raise ValueError('the Alpaca form holds only questions and answers in turn')
    system = [m['content'] for m in messages if m['role'] == 'system']
    turns = [m['content'] for m in messages if m['role'] != 'system']
    record = {'instruction': turns[-2], 'input': '', 'output': turns[-1]}
    if system:
        record['system'] = '\n'.join(system)
    if turns[2:]:
        record['history'] = [turns[i:i + 2] for i in range(0, len(turns) - 2, 2)]
    return record


def to_vicuna(messages):
    """{'conversations': [{'from': 'human' | 'gpt' | ..., 'value'}]}"""
    names = {'user': 'human', 'assistant': 'gpt'}
    turns = [{'from': names.get(m['role'], m['role']), 'value': m['content']} for m in messages]
    return {'conversations': turns}


def preference_of(record):
    """{'prompt', 'chosen', 'rejected'}, all text (the prompt of a longer conversation is its messages),
    perhaps 'margin' and 'agreement', or ValueError. In the record, chosen and rejected may be conversations
    that share all but the last message. For kto, 'completion' and 'label' take their place."""
    keys = record.keys() if isinstance(record, dict) else ()
    thumb = {'completion', 'label'} <= {*keys} and 'chosen' not in keys
    names = ('completion',) if thumb else ('chosen', 'rejected')
    if not {*names} <= {*keys}:
        raise ValueError('a preference needs prompt, chosen and rejected')
    if thumb and record['label'] not in (True, False):
        raise ValueError('a label is true or false')

    prompts, pair = [], {}
    for name in names:
        messages = answered(record, record[name])
        if not messages:
            raise ValueError(f'{" and ".join(names)} need a prompt and an answer')
        prompts.append(messages[:-1])
        pair[name] = messages[-1]['content']
    if prompts[0] != prompts[-1]:
        raise ValueError('chosen and rejected answer different prompts')
    prompt = prompts[0]
    if len(prompt) == 1:
        prompt = prompt[0]['content']
    pair = {'prompt': prompt, **pair}
    if thumb:
        pair['label'] = bool(record['label'])
    scores = [first_of(record, f'score_{side}', f'{side}_score') for side in ('chosen', 'rejected')]
    try:
        if record.get('margin') is not None:
            pair['margin'] = float(record['margin'])
        elif None not in scores:
            pair['margin'] = float(scores[0]) - float(scores[1])
        if record.get('agreement') is not None:
            pair['agreement'] = float(record['agreement'])
    except (TypeError, ValueError, OverflowError):
        raise ValueError('scores, margin and agreement must be numbers') from None
    return pair


def answered(record, answer):
    """The messages of a preference's prompt and an answer, which may hold the prompt, too."""
    prompt = first_of(record, 'prompt', 'question', 'instruction')
    if not isinstance(prompt, list):
        prompt = [{'role': 'user', 'content': prompt}] if prompt else []
    if isinstance(answer, str):
        answer = {'role': 'assistant', 'content': answer}
    turns = answer if isinstance(answer, list) else [answer]
    if len(turns) == 1:
        turns = prompt + turns
    return messages_of({'messages': turns, 'system': record.get('system')})
