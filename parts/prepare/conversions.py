"""
Records of many forms become documents: texts, conversations, preferences.

    for doc in documents([('b.jsonl', 1, {'text': 'One.'})], reject=print):
        doc['texts'], doc['path']                   # its texts: one, or those of a conversation
    messages_of({'instruction': 'Add 1 and 2.', 'input': '', 'output': '3'})
    for record in from_samples(samples, 'preference', prefer='passed'):
        print(record)                                       # {'prompt', 'chosen', 'rejected'}

A record is what a line of .jsonl holds, its text under one of the names in ALIASES, or {'text'} of
a file. A sample is a record of eval.py, an answer that was run and judged: task_id, the prompt or
the messages, completion, outcome, perhaps preferred.
"""
import itertools, json, math

# What a record may call a thing. The first name that has a value counts.
ALIASES = {
    # also The Stack's and CodeSearchNet's
    'text': ('text', 'content', 'whole_func_string', 'func_code_string', 'original_string', 'code'),
    'url': ('url', 'func_code_url'),
    'licence': ('licence', 'license', 'max_stars_repo_licenses'),
    'messages': ('messages', 'conversations', 'conversation'),
    'role': ('role', 'from'),
    'words': ('content', 'value'),
    'question': ('instruction', 'prompt', 'question'),
    'answer': ('output', 'completion', 'response', 'answer'),
    'score': ('score', 'rating', 'judge_score'),
    'score of chosen': ('score_chosen', 'chosen_score'),
    'score of rejected': ('score_rejected', 'rejected_score')}
# CodeParrot, The Stack, ...
PLACE = ('repo_name', 'max_stars_repo_name', 'repository_name', 'repo',
         'path', 'max_stars_repo_path', 'func_path_in_repository')
LABELS = 'source', 'pile_set_name', 'domain', 'language', 'lang', 'repo_name', 'max_stars_repo_name'
ROLES = {'system': 'system', 'developer': 'system', 'user': 'user', 'human': 'user',
         'assistant': 'assistant', 'gpt': 'assistant', 'chatgpt': 'assistant', 'bot': 'assistant',
         'model': 'assistant', 'tool': 'tool', 'function': 'tool', 'observation': 'tool'}
# what a record raises that has another form than the one it is read as
MALFORMED = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)


def find(record, name):
    """The first value that is not None under the names of a thing in a record, or None."""
    return next((record[key] for key in ALIASES[name] if record.get(key) is not None), None)


def strings_in(value):
    """Every text in a JSON value, but not the roles in a conversation."""
    if isinstance(value, str):
        yield value
    if isinstance(value, dict):
        value = [inner for key, inner in value.items() if key not in ('role', 'from')]
    if isinstance(value, list):
        for inner in value:
            yield from strings_in(inner)


# --- documents ------------------------------------------------------------------------------------
def documents(entries, reject, kind='text', prefer='passed'):
    """Yield the documents of entries, tuples (path, line, record) of reading.entries: dicts of
    `texts` (one, or a conversation's), `path`, perhaps `url`, `licence` and `encoding`; with
    kind='sft' or 'preference' also `roles`, and samples of eval.py become records as `prefer` says.
    A record that has another form is skipped, after reject(path, line, why)."""
    if kind != 'text':
        entries = with_records(entries, reject, kind, prefer)
    for path, line, record in entries:
        try:
            if line == 0 and kind != 'text':
                raise ValueError(f'{kind} needs records, in .jsonl or .json')
            doc = from_record(record, f'{path}:{line}' if line else path, kind)
        except MALFORMED as e:
            reject(path, line or 1, f'{type(e).__name__}: {e}')
            continue
        if line == 0:
            doc['encoding'] = record['encoding']
        yield doc


def from_record(record, path, kind):
    """A record in any of the usual forms as a document; one of MALFORMED is raised if it has
    none."""
    if kind == 'text':
        record = record if isinstance(record, dict) else {'text': record}
        texts = [record[name] for name in ALIASES['text'] if isinstance(record.get(name), str)]
        if not texts:
            raise ValueError('no text or content in it; conversations need --kind=sft, pairs '
                             'preference')
        # an empty column hides no other
        doc = {'texts': [next(filter(str.strip, texts), texts[0])]}
    elif kind == 'sft':
        doc = with_roles(messages_of(record))
        score = find(record, 'score')
        if score is not None:
            doc['score'] = number(score)
    else:
        doc = preference_of(record)

    names = [record[key] for key in PLACE if isinstance(record.get(key), str)]
    doc['path'] = f'{path} {"/".join(names)}'.strip()
    named = {**record['meta'], **record} if isinstance(record.get('meta'), dict) else record
    doc['labels'] = {key: named[key] for key in LABELS if isinstance(named.get(key), str)}
    licence = find(record, 'licence')
    if isinstance(licence, list):
        licence = ', '.join(map(str, licence))
    doc |= {key: value for key, value in (('url', find(record, 'url')), ('licence', licence))
            if value and isinstance(value, str)}
    return doc


def with_roles(messages, answers=()):
    return {'texts': [m['content'] for m in messages] + [*answers],
            'roles': [m['role'] for m in messages]}


def to_text(doc):
    """The text of a document; of conversations and pairs, a line of JSON."""
    return json.dumps(to_record(doc), ensure_ascii=False) if 'roles' in doc else doc['texts'][0]


def to_record(doc):
    """The inverse of from_record for conversations, as messages, and pairs."""
    messages = [{'role': role, 'content': text} for role, text in zip(doc['roles'], doc['texts'])]
    if 'scores' in doc:
        prompt = messages[0]['content'] if len(messages) == 1 else messages
        names = ('completion',) if 'label' in doc['scores'] else ('chosen', 'rejected')
        return {'prompt': prompt, **dict(zip(names, doc['texts'][len(messages):])), **doc['scores']}
    return {'messages': messages}


def identity(doc):
    """Two keys, bytes. Copies share the first: the texts without white space, roles and a label.
    The second decides between training and validation: conversations that begin alike share it."""
    data = [text.encode('utf-8', 'surrogatepass') for text in doc['texts']]
    fields = [text.translate(None, b' \t\n\r\f\v') for text in data]
    if 'roles' not in doc:
        return fields[0], data[0]
    label = doc.get('scores', {}).get('label')
    return repr([fields, doc['roles'], label]).encode(), data[doc['roles'][0] == 'system']


def size_of(doc):
    return sum(len(text.encode('utf-8', 'surrogatepass')) for text in doc['texts'])


# --- conversations and preferences ----------------------------------------------------------------
def number(value):
    """A score as a float; nan, which reaches no limit, if it is no number."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def messages_of(record):
    """[{'role': 'system' | 'user' | 'assistant' | 'tool', 'content'}] of a record. Its form is one
    of

    messages or conversation: [{'role', 'content'}]
    ShareGPT, Vicuna: conversations: [{'from', 'value'}]
    Alpaca: instruction, perhaps input, output, and history: [[question, answer]]
    prompt or question, with completion, response or answer. Each may have a system, a text."""
    turns = find(record, 'messages')
    if turns is None:
        question, context = find(record, 'question'), record.get('input')
        if question is None:
            raise ValueError('neither messages, nor conversations, nor instruction and output in '
                             'it')
        last = ['\n\n'.join(filter(None, (question, context))), find(record, 'answer')]
        turns = [{'role': role, 'content': text} for pair in [*(record.get('history') or ()), last]
                 for role, text in zip(('user', 'assistant'), pair, strict=True)]
    messages = [{'role': ROLES[find(turn, 'role').lower()], 'content': find(turn, 'words')}
                for turn in turns]
    system = record.get('system') or ''
    if not all(isinstance(text, str) for text in [system, *(m['content'] for m in messages)]):
        raise TypeError('a message is not text')

    # ShareGPT often starts in the middle
    while messages and messages[0]['role'] == 'assistant':
        messages.pop(0)
    # an unanswered question teaches nothing
    while messages and messages[-1]['role'] != 'assistant':
        messages.pop()
    if messages and system and all(m['role'] != 'system' for m in messages):
        messages.insert(0, {'role': 'system', 'content': system})
    return messages


def preference_of(record):
    """A document of a prompt's messages and its two answers: a chosen and a rejected one, with
    perhaps 'margin' and 'agreement' as scores. In the record, both may be conversations that share
    all but the last message. For kto it has one answer, a 'completion' and its 'label'."""
    is_kto = 'label' in record and 'chosen' not in record
    names = ['completion'] if is_kto else ['chosen', 'rejected']
    talks = [conversation_of(record, record[name]) for name in names]
    prompt = talks[0][:-1]
    if prompt != talks[-1][:-1]:
        raise ValueError('chosen and rejected answer different prompts')
    if all(m['role'] == 'system' for m in prompt):
        raise ValueError('a preference needs a question and an answer')

    better, worse = (find(record, f'score of {name}') for name in ('chosen', 'rejected'))
    scores = {name: record.get(name) for name in ('margin', 'agreement')}
    if scores['margin'] is None and None not in (better, worse):
        scores['margin'] = float(better) - float(worse)
    scores = {name: float(value) for name, value in scores.items() if value is not None}
    if not all(map(math.isfinite, scores.values())):
        raise ValueError('scores, margin and agreement must be numbers')
    label = {'label': {0: False, 1: True}[record['label']]} if is_kto else {}
    return {**with_roles(prompt, [talk[-1]['content'] for talk in talks]), 'scores': label | scores}


def conversation_of(record, answer):
    """The messages of a preference's prompt and an answer, which may hold the prompt, too."""
    prompt = find(record, 'question') or []
    if isinstance(prompt, str):
        prompt = [{'role': 'user', 'content': prompt}]
    if isinstance(answer, str):
        answer = {'role': 'assistant', 'content': answer}
    turns = answer if isinstance(answer, list) else [answer]
    if len(turns) == 1:
        turns = prompt + turns
    return messages_of({'messages': turns, 'system': record.get('system')})


# --- samples of eval.py ---------------------------------------------------------------------------
FIELDS = {'outcome', 'task_id', 'completion'}       # by which a sample is known
PER_PROMPT = 4                                      # records that the samples of a prompt become


def with_records(entries, reject, kind, prefer='passed'):
    """The entries (path, line, record), after which the records of from_samples take the place of
    those that are samples, of one file. Such a record comes from several lines: its line is
    None."""
    samples = []
    for path, line, record in entries:
        names = record.keys() if isinstance(record, dict) else set()
        if FIELDS <= names and (record.get('messages') or record.get('prompt')):
            if isinstance(record['completion'], str):
                samples.append(record)
                where = path
            else:
                reject(path, line, 'the completion of a sample must be a text')
        else:
            yield path, line, record

    records = list(from_samples(samples, kind, prefer))
    if samples and not records:
        reject(where, 1, f'none of {len(samples)} samples passed (sft), or is better than another '
               f'of its prompt (preference, {prefer=})')
    for record in records:
        yield where, None, record


def from_samples(samples, kind, prefer='passed'):
    """Yield at most PER_PROMPT records of each prompt. kind='preference': pairs; chosen passed,
    rejected failed. prefer='taste': both passed, and only chosen is `preferred`. 'both': as many
    pairs of each of the two ways. kind='sft': conversations whose answer passed; with 'taste' it is
    `preferred`, too."""
    problem_of = lambda sample: (str(sample.get('task')), str(sample['task_id']))
    for _, group in itertools.groupby(sorted(samples, key=problem_of), problem_of):
        by_text = {s['completion']: s for s in group if s['outcome'] != 'infrastructure'}
        prompt = next((s.get('messages') or s.get('prompt') for s in by_text.values()), None)
        passed = [text for text, s in by_text.items() if s['outcome'] == 'passed']
        failed = [text for text in by_text if text not in passed]
        liked = [text for text in passed if by_text[text].get('preferred')]
        others = [text for text in passed if text not in liked]
        if kind == 'sft':
            for text in (liked if prefer == 'taste' else passed)[:PER_PROMPT]:
                turns = [{'role': 'user', 'content': prompt}] if isinstance(prompt, str) else prompt
                yield {'messages': [*turns, {'role': 'assistant', 'content': text}]}
            continue

        for way, better, worse in (('passed', passed, failed), ('taste', liked, others)):
            if prefer in (way, 'both') and better and worse:
                # each about as often
                for i in range(min(max(len(better), len(worse)), PER_PROMPT)):
                    yield {'prompt': prompt, 'chosen': better[i % len(better)],
                           'rejected': worse[i % len(worse)]}
