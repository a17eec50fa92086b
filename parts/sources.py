"""
Sources: where text comes from, as documents: files, folders, archives, datasets on a hub, conversations.

    files = find_files('stdlib')                            # [{'path': ...}, ...], sorted
    for doc in read_documents(['a.py', 'b.jsonl.gz'], reject=print):
        doc['parts'], doc['path']                           # its texts: one, or those of a conversation
    to_messages({'instruction': 'Add 1 and 2.', 'input': '', 'output': '3'})
    to_alpaca(messages), to_vicuna(messages)                # and back

Of .py .txt .md, a file is a document; of .jsonl .json, a record is one, its text under `text` or `content`.
Any of them may be gzipped. What cannot be read is counted, with file and line, and never fatal: in a
thousand shards, one is always damaged.

Copy this file alone: it needs requests.
"""
import glob, gzip, hashlib, io, itertools, json, os, re, sysconfig, zlib
import requests, urllib3

TEXT, RECORDS = ('.py', '.txt', '.md'), ('.jsonl', '.json')     # each also with .gz
LONGEST = 100_000               # characters: no model's context is longer, by far
PIECE = 16_000_000              # characters held in memory at once
SHAKESPEARE = ('https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt',
               '86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed')

# --- downloads ----------------------------------------------------------------------------------------------
# A server that is busy is asked again, later and later, or when its Retry-After says.
session = requests.Session()
for _scheme in ('https://', 'http://'):
    session.mount(_scheme, requests.adapters.HTTPAdapter(max_retries=urllib3.Retry(
        8, connect=1, backoff_factor=1, status_forcelist=(429, 500, 502, 503, 504))))


def download(url, sha256, path):
    """Fetch a file, unless it is there. A transfer that broke off is continued; the file gets its name only
    when its checksum is right. Returns path."""
    if os.path.exists(path):
        return path
    os.makedirs(os.path.dirname(path), exist_ok=True)
    part, have, problem = f'{path}.part', -1, 'nothing came'
    while (size := os.path.getsize(part) if os.path.exists(part) else 0) > have:    # as long as more comes
        have = size
        try:
            with session.get(url, headers={'Range': f'bytes={have}-', 'Accept-Encoding': 'identity'},
                             stream=True, timeout=30) as r:
                if r.status_code != 416:                # 416: there is nothing after what we have
                    r.raise_for_status()
                    with open(part, 'ab' if r.status_code == 206 else 'wb') as f:
                        for chunk in r.iter_content(1 << 16):
                            f.write(chunk)
            break
        except requests.RequestException as e:
            problem = type(e).__name__
    else:
        raise OSError(f'cannot download {url} ({problem}); run the same command again, or fetch it by '
                      f'other means and put it at {path}')
    digest = hashlib.sha256()
    with open(part, 'rb') as f:
        for chunk in iter(lambda: f.read(1 << 20), b''):
            digest.update(chunk)
    if digest.hexdigest() != sha256:
        os.remove(part)
        raise OSError(f'{url} has the checksum {digest.hexdigest()[:16]}..., expected {sha256[:16]}...; '
                      'run the same command again')
    os.replace(part, path)
    return path


def hub_files(hub, dataset, folder):
    """The .json.gz and .jsonl.gz files of a dataset: [{path, url, sha256, size}], path being where it belongs
    under folder. The list is kept there, for work without network."""
    folder = os.path.join(folder, dataset.replace('/', '--'))
    listing, found = os.path.join(folder, 'files.json'), []
    if not os.path.exists(listing):
        url = f'{hub}/api/datasets/{dataset}/tree/main?recursive=true'
        try:
            while url:
                answer = session.get(url, timeout=30)
                answer.raise_for_status()
                found += answer.json()
                url = answer.links.get('next', {}).get('url')
        except requests.RequestException as e:
            raise ValueError(f'cannot list {url} ({type(e).__name__}); without network, put the .json.gz '
                             f'files of {dataset} into a folder and use --source=FOLDER') from e
        found = [{'path': os.path.join(folder, *f['path'].split('/')), 'size': f['size'],
                  'sha256': f['lfs']['oid'], 'url': f'{hub}/datasets/{dataset}/resolve/main/{f["path"]}'}
                 for f in found if f.get('lfs') and is_kind(f['path'], RECORDS) and '..' not in f['path']]
        session.close()         # or processes forked from this one would talk over the same connection
        if not found:
            raise ValueError(f'{hub}/datasets/{dataset} has no .json.gz or .jsonl.gz files')
        os.makedirs(folder, exist_ok=True)
        with open(f'{listing}.tmp', 'w', encoding='utf-8') as f:
            json.dump(sorted(found, key=lambda f: f['path']), f, indent=1)
        os.replace(f'{listing}.tmp', listing)
    with open(listing, encoding='utf-8') as f:
        return json.load(f)


# --- files --------------------------------------------------------------------------------------------------


def is_kind(path, endings):
    return path.removesuffix('.gz').endswith(endings)


def find_files(source, download_dir='data/raw', hub='https://huggingface.co',
               dataset='codeparrot/codeparrot-clean'):
    """The files of a source, [{'path', ...}], sorted, so that one folder gives the same bins everywhere.
    Those of a hub also have url, sha256 and size and need not be there yet: download(url, sha256, path)."""
    if source == 'codeparrot':
        return hub_files(hub, dataset, download_dir)
    if source == 'shakespeare':
        return [{'path': download(*SHAKESPEARE, os.path.join(download_dir, 'shakespeare.txt'))}]
    if os.path.isfile(source):
        return [{'path': source}]
    if source == 'stdlib':      # 12 MB of Python in every interpreter; with its tests it would be 30 MB
        root = sysconfig.get_paths()['stdlib']
        skip = {'site-packages', 'dist-packages', 'test', 'tests', 'idle_test', '__pycache__'}
        found = [path for path in glob.iglob(os.path.join(root, '**', '*.py'), recursive=True)
                 if not skip & set(os.path.relpath(path, root).split(os.sep))]
    else:
        pattern = os.path.join(source, '**') if os.path.isdir(source) else source
        found = [path for path in glob.iglob(pattern, recursive=True)
                 if os.path.isfile(path) and is_kind(path, TEXT + RECORDS)]
    if not found:
        raise ValueError(f'source={source!r} is neither stdlib, shakespeare nor codeparrot, nor a file, '
                         f'folder or glob with {" ".join(TEXT + RECORDS)} (.gz) files')
    return [{'path': path} for path in sorted(found)]


def open_bytes(path):
    """A file, decompressed."""
    return (gzip.open if path.endswith('.gz') else open)(path, 'rb')


def open_text(path):
    """A file as text, its line ends untouched."""
    return io.TextIOWrapper(open_bytes(path), encoding='utf-8', newline='')


def pieces(path, start, end):
    """Characters start..end of a text file, at most PIECE at a time."""
    with open_text(path) as f:
        for position in range(0, end, PIECE):
            block = f.read(PIECE)
            if position + len(block) > start:
                yield block[max(start - position, 0):end - position]


def lines_of(path):
    """A list in a file, one entry a line; # begins a comment."""
    if not path:
        return set()
    with open(path, encoding='utf-8') as f:
        return {line.split('#')[0].strip().lower() for line in f} - {''}


def strings_in(value):
    """Every text in a JSON value, but not the roles in a conversation."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from strings_in(inner) if key not in ('role', 'from') else ()


# --- documents ----------------------------------------------------------------------------------------------


def read_documents(paths, reject, kind='text', max_chars=1_000_000, per_prompt=4, prefer='passed'):
    """Yield the documents of files: dicts of `parts`, the texts (one, or a conversation's), `path`, and `url`
    and `licence` if the record has them; with kind='sft' or 'preference' also `roles`. What cannot be read is
    passed over: reject(path, line, why) hears of it. A record or .py file of more than max_chars is too long
    to be read; other long text is cut, at a line's end, into documents of up to 100,000 characters. For
    per_prompt and prefer see from_samples."""
    longest = 8 * max_chars                     # bytes of a line: a character may be escaped, as \\u20ac
    for path in paths:
        line, samples = 0, []
        try:
            if not is_kind(path, RECORDS):
                if kind != 'text':
                    raise ValueError(f'{kind} needs records, in .jsonl or .json')
                with open_text(path) as f:
                    rest, limit = '', max_chars if is_kind(path, '.py') else LONGEST
                    while len(rest := rest + f.read(limit + 1 - len(rest))) > limit:
                        if is_kind(path, '.py'):
                            raise ValueError(f'longer than {max_chars:,} characters')
                        cut = rest.rfind('\n', 0, limit) + 1 or limit
                        yield {'parts': [rest[:cut]], 'path': path}
                        rest = rest[cut:]
                    yield {'parts': [rest], 'path': path}
                continue
            with open_bytes(path) as f:
                is_list = is_kind(path, '.json') and re.match(rb'(?:\xef\xbb\xbf)?\s*\[', f.read(99))
                f.seek(0)
                records = json.loads(f.read().decode('utf-8-sig')) if is_list else \
                    iter(lambda: f.readline(longest), b'')              # a record a line
                for line, record in enumerate(records, 1):
                    try:
                        if isinstance(record, bytes):
                            if len(record) == longest and not record.endswith(b'\n'):
                                while (more := f.readline(longest)) and not more.endswith(b'\n'):
                                    pass
                                reject(path, line, f'longer than {longest:,} bytes')
                                continue
                            if not record.strip():
                                continue
                            record = json.loads(record.decode('utf-8-sig'))
                        if kind != 'text' and isinstance(record, dict) \
                                and {'outcome', 'task_id', 'completion'} <= record.keys() \
                                and (record.get('messages') or record.get('prompt')):
                            samples.append(record)
                            continue
                        doc = from_record(record, f'{path}:{line}', kind, max_chars)
                    except (ValueError, RecursionError) as e:       # not UTF-8, no JSON, nested too deep
                        reject(path, line, f'{type(e).__name__}: {e}')
                    else:
                        yield doc
            for record in from_samples(samples, kind, per_prompt, prefer):
                yield from_record(record, path, kind, max_chars)
        except (ValueError, EOFError, OSError, zlib.error, RecursionError) as e:    # cut off, no UTF-8, ...
            reject(path, line + 1, f'{type(e).__name__}: {e}')


def from_record(record, path, kind, max_chars):
    """A record in any of the usual forms as a document; ValueError says what is wrong with it."""
    if kind == 'text':
        record = record if isinstance(record, dict) else {'text': record}
        text = record.get('text', record.get('content'))
        if not isinstance(text, str):
            raise ValueError('no text or content in it')
        doc = {'parts': [text]}
    elif kind == 'sft':
        messages = to_messages(record)
        doc = {'parts': [m['content'] for m in messages], 'roles': [m['role'] for m in messages]}
    else:
        pair = to_preference(record)
        prompt = pair.pop('prompt')
        messages = prompt if isinstance(prompt, list) else [{'role': 'user', 'content': prompt}]
        answers = [pair.pop(key) for key in ('chosen', 'rejected', 'completion') if key in pair]
        doc = {'parts': [m['content'] for m in messages] + answers,
               'roles': [m['role'] for m in messages], 'scores': pair}
    if sum(map(len, doc['parts'])) > max_chars:
        raise ValueError(f'longer than {max_chars:,} characters')
    name = '/'.join(record[key] for key in ('repo_name', 'path') if isinstance(record.get(key), str))
    doc['path'] = f'{path} {name}'.strip()
    for key, other in (('url', 'url'), ('licence', 'license')):
        value = record.get(key, record.get(other))
        if isinstance(value, str):
            doc[key] = value
    return doc


def from_samples(samples, kind, per_prompt=4, prefer='passed'):
    """Answers that eval.py has sampled and judged, records with `task_id`, `messages` or `prompt`,
    `completion`, `outcome` and `preferred` -> records to train on, at most per_prompt of a prompt.

    kind='preference': an answer that passed its tests over one that failed; with prefer='taste', of those
    that passed, a preferred one over another; with 'both', both. kind='sft': what passed (with 'taste': and
    is preferred). The same answer counts once; what the harness itself failed at proves nothing."""
    key = lambda s: (str(s.get('task')), str(s['task_id']))
    for _, group in itertools.groupby(sorted(samples, key=key), key):
        of_one = {s['completion']: s for s in group if s['outcome'] != 'infrastructure'}
        asked = next((s.get('messages') or s.get('prompt') for s in of_one.values()), None)
        passed = [text for text, s in of_one.items() if s['outcome'] == 'passed']
        failed = [text for text in of_one if text not in passed]
        liked = [text for text in passed if of_one[text].get('preferred')]
        if kind == 'sft':
            asked = [{'role': 'user', 'content': asked}] if isinstance(asked, str) else asked
            for text in (liked if prefer == 'taste' else passed)[:per_prompt]:
                yield {'messages': [*asked, {'role': 'assistant', 'content': text}]}
            continue
        ways = [(passed, failed)] * (prefer != 'taste')
        ways += [(liked, [text for text in passed if text not in liked])] * (prefer != 'passed')
        for better, worse in ways:          # each answer about as often as any other
            n = max(len(better), len(worse)) if better and worse else 0
            for i in range(min(n, per_prompt)):
                yield {'prompt': asked, 'chosen': better[i % len(better)],
                       'rejected': worse[i % len(worse)]}


# --- conversations and preferences --------------------------------------------------------------------------
# One form inside: [{'role': 'system' | 'user' | 'assistant' | 'tool', 'content': str}, ...].
ROLES = {'system': 'system', 'user': 'user', 'human': 'user', 'assistant': 'assistant', 'gpt': 'assistant',
         'chatgpt': 'assistant', 'bot': 'assistant', 'model': 'assistant', 'tool': 'tool', 'function': 'tool',
         'observation': 'tool'}


def to_messages(record):
    """Messages of a record in any of the usual forms. ValueError says what is wrong with it.

    messages or conversation: [{'role', 'content'}]
    ShareGPT, Vicuna: conversations: [{'from', 'value'}]
    Alpaca: instruction, input (may be empty or missing), output; and history: [[question, answer]]
    prompt or question, with completion, response or answer
    Each may have a system, a text that comes first."""
    if not isinstance(record, dict):
        raise ValueError(f'a record is {type(record).__name__}, not an object')
    turns = next((record[k] for k in ('messages', 'conversations', 'conversation') if k in record), None)
    if turns is None:
        ask = next((record[k] for k in ('instruction', 'prompt', 'question') if k in record), None)
        replies = ('output', 'completion', 'response', 'answer')
        answer = next((record[k] for k in replies if k in record), None)
        if ask is None or answer is None:
            raise ValueError('neither messages, nor conversations, nor instruction and output')
        if not all(isinstance(t, str) for t in (ask, answer, record.get('input') or '')):
            raise ValueError('instruction, input and output must be text')
        turns, history = [], record.get('history') or []
        if not isinstance(history, list) or not all(isinstance(h, list) and len(h) == 2 for h in history):
            raise ValueError('history must be a list of [question, answer]')
        for question, reply in history:
            turns += [{'role': 'user', 'content': question}, {'role': 'assistant', 'content': reply}]
        turns += [{'role': 'user', 'content': '\n\n'.join(t for t in (ask, record.get('input')) if t)},
                  {'role': 'assistant', 'content': answer}]
    messages = []
    for turn in turns if isinstance(turns, list) else [turns]:
        if not isinstance(turn, dict):
            raise ValueError(f'a message is {type(turn).__name__}, not an object')
        role, content = turn.get('role', turn.get('from')), turn.get('content', turn.get('value'))
        if not isinstance(role, str) or role.lower() not in ROLES or not isinstance(content, str):
            raise ValueError(f'a message needs a role of {", ".join(ROLES)} and a text, not {role!r} and '
                             f'{type(content).__name__}')
        messages.append({'role': ROLES[role.lower()], 'content': content})
    while messages and messages[0]['role'] == 'assistant':      # ShareGPT often starts in the middle
        messages.pop(0)
    while messages and messages[-1]['role'] != 'assistant':     # an unanswered question teaches nothing
        messages.pop()
    if messages and (system := record.get('system')) and all(m['role'] != 'system' for m in messages):
        if not isinstance(system, str):
            raise ValueError('system must be text')
        messages.insert(0, {'role': 'system', 'content': system})
    return messages


def to_alpaca(messages):
    """The inverse, for a conversation of any length: the last exchange is instruction and output, the earlier
    ones are history. (The source document's converter looked for keys that messages do not have, and returned
    the text 'None' for all of them.)"""
    system = [m['content'] for m in messages if m['role'] == 'system']
    turns = [m['content'] for m in messages if m['role'] != 'system']
    roles = [m['role'] for m in messages if m['role'] != 'system']
    if not roles or roles != ['user', 'assistant'] * (len(roles) // 2):
        raise ValueError('the Alpaca form holds only questions and answers in turn')
    record = {'instruction': turns[-2], 'input': '', 'output': turns[-1]}
    if system:
        record['system'] = '\n'.join(system)
    if turns[2:]:
        record['history'] = [turns[i:i + 2] for i in range(0, len(turns) - 2, 2)]
    return record


def to_vicuna(messages):
    """The ShareGPT and Vicuna form: {'conversations': [{'from': 'human' | 'gpt' | ..., 'value'}]}"""
    names = {'user': 'human', 'assistant': 'gpt'}
    return {'conversations': [{'from': names.get(m['role'], m['role']), 'value': m['content']}
                              for m in messages]}


def to_preference(record):
    """{'prompt', 'chosen', 'rejected'}, all text (the prompt of a longer conversation is its messages), and
    'margin' and 'agreement' where the record tells them. chosen and rejected may be whole conversations,
    which then share all but the last message. For kto, a thumb up or down: 'completion' and 'label' in place
    of chosen and rejected. ValueError says what is wrong."""
    def split(answer):
        answer = {'role': 'assistant', 'content': answer} if isinstance(answer, str) else answer
        turns = answer if isinstance(answer, list) else [answer]
        messages = to_messages({'messages': asked + turns if len(turns) == 1 else turns,
                                'system': record.get('system')})
        if not messages:
            raise ValueError(f'{" and ".join(names)} need a prompt and an answer')
        return messages[:-1], messages[-1]['content']

    thumb = isinstance(record, dict) and {'completion', 'label'} <= record.keys() and 'chosen' not in record
    names = ('completion',) if thumb else ('chosen', 'rejected')
    if not isinstance(record, dict) or not {*names} <= record.keys():
        raise ValueError('a preference needs prompt, chosen and rejected')
    if thumb and record['label'] not in (True, False):
        raise ValueError('a label is true or false')
    prompt = next((record[k] for k in ('prompt', 'question', 'instruction') if k in record), None)
    asked = prompt if isinstance(prompt, list) else [{'role': 'user', 'content': prompt}] if prompt else []
    (prompt, *others), answers = zip(*(split(record[name]) for name in names))
    if others not in ([], [prompt]):
        raise ValueError('chosen and rejected answer different prompts')
    if len(prompt) == 1:
        prompt = prompt[0]['content']
    pair = {'prompt': prompt, **dict(zip(names, answers))}
    if thumb:
        pair['label'] = bool(record['label'])
    scores = [next((record[k] for k in (f'score_{side}', f'{side}_score') if k in record), None)
              for side in ('chosen', 'rejected')]
    try:
        if record.get('margin') is not None or None not in scores:
            margin = record.get('margin')
            pair['margin'] = float(scores[0]) - float(scores[1]) if margin is None else float(margin)
        if record.get('agreement') is not None:
            pair['agreement'] = float(record['agreement'])
    except (TypeError, ValueError, OverflowError):
        raise ValueError('scores, margin and agreement must be numbers') from None
    return pair
