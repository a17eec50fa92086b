"""
Point chats.py at conversations or pairs and you get train.jsonl and val.jsonl for sft.py or dpo.py.

    python chats.py                                         # small Python problems and answers
    python chats.py --source=chats.json --out_dir=data/chats
    python chats.py --source=out/sft/samples.jsonl --prefer=both --out_dir=data/pairs
    python chats.py --source=out/sft/samples.jsonl --prefer=passed --kind=sft --out_dir=data/good

It reads .jsonl (.json, .gz; tables by extras/text/formats.py) in these forms, and in more of them
by extras/text/forms.py:

    {"messages": [{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Hello."}]}
    {"conversations": [{"from": "human", "value": "Hi!"}, ...]}         ShareGPT, Vicuna
    {"instruction": "Hi!", "input": "", "output": "Hello."}             Alpaca
    {"prompt": "Hi!", "completion": "Hello."}           also question, query; response, answer
    {"prompt": "Hi!", "chosen": "Hello.", "rejected": "Go!", "margin": 2}           a pair
    {"prompt": "Hi!", "completion": "Go!", "label": false}          a thumb down, for kto

It writes lines of messages, or of the last two forms, report.json and meta.json. You should see how
many records stayed, and why others did not. The decision made here is what a model will sound like:
it copies the length, tone and faults of these answers. So what would change them is read, or
refused by name, and what is not used is counted.
"""
import collections, glob, hashlib, itertools, json, math, os, pathlib, re, shlex
import unicodedata, zlib
from typing import Literal
from configurator import Mistake, configure, require, typed
from tqdm import tqdm

# --- settings -------------------------------------------------------------------------------------
source = ''                     # file, folder or glob; '' = we write n_examples
out_dir = 'data/sft'            # folder of results
overwrite = False               # True: replace the results in out_dir
kind: Literal['', 'sft', 'preference'] = ''     # conversations or pairs; '' = as the first record
val_fraction = 0.1              # fraction of the questions that is held out
pii = True                      # e-mail, phone, SSN, keys become <EMAIL>, <PHONE>, <SSN>, <KEY>
min_score: float | None = None  # of a conversation: what a judge gave it
min_margin = 0.0                # of a pair: score of chosen - score of rejected; 0 keeps ties
min_agreement = 0.0             # of a pair: fraction of annotators who agree
# options: a line that imports extras/ asks for what not everybody needs
n_examples = 2000               # without a source: conversations to write; more teach more
prefer: Literal['', 'passed', 'taste', 'both'] = ''     # what is better of what eval.py judged
BOUNDS = {'val_fraction': (1e-9, 0.999), 'min_score': (-1e18, 1e18), 'min_margin': (-1e18, 1e18)}

# --- names of columns and roles -------------------------------------------------------------------
MESSAGES = 'messages', 'conversations'
QUESTION = 'instruction', 'prompt', 'question', 'query'
ANSWER = 'output', 'completion', 'response', 'answer'
PAIR = 'chosen', 'rejected'
ANSWERS_OF_PAIRS = *PAIR, 'completion'      # roles
# extras/text/forms.py reads these, which change what is learned, too
MORE_COLUMNS = set('context history conversation system_prompt system_message score_chosen '
                   'score_rejected chosen_score rejected_score chosen_rating '
                   'rejected_rating'.split())
NO_TEXT = set('image images video videos audio audios attachments tool_calls function_call'.split())
ROLES = {name: role for role, names in {
    'user': 'user human prompter', 'system': 'system developer',
    'assistant': 'assistant gpt chatgpt bing bard bot chatbot ai model',
    'tool': 'tool function observation ipython'}.items() for name in names.split()}
LABELS = {'true': True, '1': True, '1.0': True, 'false': False, '0': False, '0.0': False}


# --- a record becomes an example ------------------------------------------------------------------
# An example is messages, whose roles are these, and facts:
#     conversation    user, assistant, user, assistant        {'score': 8.0}
#     pair            user, chosen, rejected                  {'margin': 2.0, 'agreement': 1.0}
#     thumb           user, completion                        {'label': False}
# Each function takes what it uses out of the record. What remains, or is put there, is counted as
# not used.
def without_empty(record):
    """Return what has a value in a record or a message, by plain names, and refuse what is no text:
    {'Question': 'Hi!', 'Input': ''} becomes {'question': 'Hi!'}."""
    columns = {name.lower().replace('-', '_'): value for name, value in record.items()
               if value not in (None, '', [], {})}
    others = ', '.join(sorted(columns.keys() & NO_TEXT))
    require(not others, f'only texts are learned, and this has {others}')
    return columns


def in_known_form(record):
    """Return a record in one of the forms above. extras/text/forms.py reads other columns, and
    lists of JSON or whole talks that are written as one text."""
    record = without_empty(record)
    is_talk = any(re.match(r'\s*(Human:|\[\s*{\s*")', record[name])
                  for name in MESSAGES + QUESTION + PAIR if isinstance(record.get(name), str))
    if is_talk or isinstance(record.get('chosen'), list) or record.keys() & MORE_COLUMNS:
        from extras.text import forms
        record = forms.in_known_form(record)
    return record


def take(record, names):
    """Take a column out of a record: the first of these names that it has, or else None."""
    return next((record.pop(name) for name in names if name in record), None)


def messages_of(role, turns, record):
    """Return turns, which are a text, a message or a list of these, as messages. A text is said by
    this role, and [{'from': 'human', 'value': 'Hi!'}] is [{'role': 'user', 'content': 'Hi!'}]. An
    empty system message is left out. What is not used of a message goes into the record, to be
    counted as messages.NAME."""
    messages = []
    if not isinstance(turns, list | dict):
        turns = {'role': role, 'content': turns}
    for turn in turns if isinstance(turns, list) else [turns]:
        require(isinstance(turn, dict), 'a message is no object with a role')
        turn = without_empty(turn)
        name = str(take(turn, ['role', 'from'])).lower()
        require(name in ROLES, f'a message has an unknown role: {name}')
        require(all(turn.pop(flag, 1) == 1 for flag in ('weight', 'train', 'loss')),    # True == 1
                'a message has weight 0, or train or loss false, and all are learned')
        content = take(turn, ['content', 'value']) or ''
        parts = [part.get('text') if isinstance(part, dict) and part.get('type', 'text') == 'text'
                 else part for part in (content if isinstance(content, list) else [content])]
        require(all(isinstance(part, str) for part in parts), 'a message is not text')
        record |= {f'messages.{rest}': value for rest, value in turn.items()}
        message = {'role': ROLES[name], 'content': normalise('\n'.join(parts))}
        if message['role'] != 'system' or message['content'].strip():
            messages.append(message)
    return messages


def prompt_of(record):
    """Return the messages of a record, or its question: {'instruction': 'Add.', 'input': '1 2'}
    asks 'Add.\\n\\n1 2', and {'input': 'Hi!'} asks 'Hi!'."""
    is_listed, turns = record.keys() & {*MESSAGES}, take(record, MESSAGES + QUESTION)
    if isinstance(turns, list | dict):
        return messages_of('user', turns, record)
    texts = [text for text in (turns, record.pop('input', None)) if text is not None]
    # {"id": 7}, {"messages": "no JSON"} and {"prompt": 5} end here
    require(texts and not is_listed and all(isinstance(text, str) for text in texts),
            f'no list of messages, and no {", ".join(QUESTION)} or input that is text')
    return messages_of('user', '\n\n'.join(texts), record)


def talk_of(record):
    """Return the messages of a record, or those of its prompt and its answer."""
    if record.keys() & {*MESSAGES}:
        return prompt_of(record)
    prompt, answer = prompt_of(record), take(record, ANSWER)
    require(answer is not None, f'no {", ".join(ANSWER)}')
    return prompt + messages_of('assistant', answer, record)


def answer_as(name, turns, record):
    """Return an answer as messages: one, whose role is this name, such as chosen."""
    messages = messages_of('assistant', turns, record)
    require([m['role'] for m in messages] == ['assistant'], f'the {name} is not one answer')
    return [{**messages[0], 'role': name}]


def label_of(record):
    return str(record.get('label')).lower()


def kind_of(record):
    """Return what a record is, 'sft' or 'preference', or '' where a label may be a thumb, or the
    number of a class."""
    label = label_of(record)
    if record.keys() >= {*PAIR} or ('completion' in record and label in ('true', 'false')):
        return 'preference'
    return '' if label in LABELS else 'sft'


def example_of(record, kind):
    """Return the messages and the facts of a record."""
    label, facts, scores = label_of(record), {}, []
    if kind == 'sft':
        require(label != 'false', 'a label that is false is a thumb down, and answers are learned')
        talk = talk_of(record)
        if min_score is not None:
            scores = ['score']
    elif record.keys() >= {*PAIR}:
        better, worse = (answer_as(name, record.pop(name), record) for name in PAIR)
        talk = prompt_of(record) + better + worse
        scores = ['margin', 'agreement']
    else:
        require(label in LABELS, 'no chosen and rejected, and no label that is true or false')
        facts['label'] = LABELS[label]
        talk = talk_of(record)
        talk[-1:] = answer_as('completion', talk[-1:], record)
        del record['label']
    try:
        facts |= {name: float(record.pop(name)) for name in scores if name in record}
    except (TypeError, ValueError, OverflowError):
        raise Mistake('score, margin and agreement must be numbers') from None
    start = next((i for i, m in enumerate(talk) if m['role'] != 'system'), 0)
    while talk[start:] and talk[start]['role'] == 'assistant':      # ShareGPT begins in the middle
        record['answers before the first question'] = talk.pop(start)
    while talk and talk[-1]['role'] in ('system', 'user', 'tool'):  # a question teaches nothing
        record['messages behind the last answer'] = talk.pop()
    if 'system' in record and all(m['role'] != 'system' for m in talk):
        talk = messages_of('system', record.pop('system'), record) + talk
    return talk, facts


# --- rules ----------------------------------------------------------------------------------------
def normalise(text):
    """Return a text without control characters and invisible ones. A newline ends a line, and e
    with its accent is one character (NFC)."""
    text = re.sub('[\ud800-\udfff]', '\ufffd', text)            # half of a pair, from JSON
    text = re.sub('\r\n?|[\x0b\x0c\x1c-\x1e\u2028\u2029]', '\n', text)
    text = re.sub('[\0-\x08\x0e-\x1f\x7f-\x9f\xad\u200b\u2060\ufeff\ufff9-\ufffb]', '', text)
    return unicodedata.normalize('NFC', text)


def reason_of(messages, facts):
    """Return why an example is left out, or None. A rule of yours is two lines here. A rejected
    answer is no turn: it stands beside the chosen one."""
    turns = ['assistant' if m['role'] in ANSWERS_OF_PAIRS else m['role'] for m in messages
             if m['role'] not in ('system', 'rejected')]
    texts = [m['content'].strip() for m in messages]
    if turns[:1] != ['user'] or any(
            a == b and a != 'tool' for a, b in itertools.pairwise(turns)):
        return 'roles do not alternate, from a question to an answer'
    if not all(texts):
        return 'empty message'
    if messages[-1]['role'] == 'rejected' and texts[-1] == texts[-2]:
        return 'equal answers'
    for name, low in ('score', min_score), ('margin', min_margin), ('agreement', min_agreement):
        if name in facts and not low <= facts[name] < math.inf:     # also nan
            return f'low {name}'


def line_of(messages, facts):
    """Return a line of train.jsonl. A prompt of one message is its text."""
    prompt = [m for m in messages if m['role'] not in ANSWERS_OF_PAIRS]
    answers = {m['role']: m['content'] for m in messages[len(prompt):]}
    record = {'messages': messages}
    if answers:
        prompt = prompt[0]['content'] if len(prompt) == 1 else prompt
        record = {'prompt': prompt, **answers, **facts}
    return json.dumps(record, ensure_ascii=False).encode() + b'\n'


# --- files become records -------------------------------------------------------------------------
NOT_UTF8 = 'not UTF-8 (iconv -f ENCODING -t utf-8 makes it so)'
RECORDS = re.compile(r'\.(jsonl|ndjson|json|csv|tsv|parquet)(\.(gz|zst|bz2|xz))?$', re.I)


def reject(place, why):
    left_out.setdefault(why, [0, place])[0] += 1


def records_in(path):
    """Yield (place, record) for each line of a .jsonl, or each record of another file."""
    if not RECORDS.search(path):
        return reject(path, 'no .jsonl, .json, .csv, .tsv or .parquet')
    line = 0
    try:
        is_table = re.search(r'\.(csv|tsv|parquet)', path.lower())
        if path.lower().endswith(('.jsonl', '.ndjson')):
            file = open(path, 'rb')
        else:
            from extras.text import formats
            file = formats.open_file(path)              # its records as lines of JSON
        for line, data in enumerate(file, 1):       # bytes: a line that is damaged is one line
            record, why = None, 'no JSON object (a list is a .json)'
            try:
                record = json.loads(data.decode('utf-8-sig'))
            except (ValueError, RecursionError) as error:
                why = NOT_UTF8 if isinstance(error, UnicodeError) else why
                if data[:1] == b'\0' and is_table:   # extras/text/formats.py says why
                    why = data[1:].decode().strip()
            if isinstance(record, dict):
                yield f'{path}:{line}', record
            elif data.strip():
                reject(f'{path}:{line}', why)
    except Mistake:             # a package that is missing
        raise
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        reject(f'{path}:{line + 1} ({error!s:.80})',
               NOT_UTF8 if isinstance(error, UnicodeError) else 'damaged from here on')


# --- the job --------------------------------------------------------------------------------------
config = configure(globals(), BOUNDS)       # config files and flags replace settings
useless = typed & ({'n_examples'} if source else {*config} - {'out_dir', 'overwrite', 'n_examples'})
require(not useless, f'{", ".join(useless)}: only {"without" if source else "with"} --source=FILE')
out = pathlib.Path(out_dir)
results = [out / name for name in ('train.jsonl', 'val.jsonl', 'report.json', 'meta.json')]
for path in results:
    require(overwrite or not path.exists(), f'{path} exists; add --overwrite=True')
of_earlier = {os.path.realpath(path) for path in results}
found = {source} if os.path.exists(source) else {*glob.glob(source, recursive=True)}
for folder, inner, names in os.walk(source):        # no links, which may lead in circles
    inner[:] = [name for name in inner if name[0] != '.']
    found.update(os.path.join(folder, name) for name in names if name[0] != '.')
paths = sorted(path for path in found if os.path.isfile(path)
               and os.path.realpath(path) not in of_earlier)
require(paths or not source, f'no file at {source!r}; --source is a file, a folder or a glob')
out.mkdir(parents=True, exist_ok=True)

# 1. read
left_out = {}                           # {why: [records, the first place]}
changed, unused = collections.Counter(), collections.Counter()
examples, has_thumbs = {}, False        # {line of train.jsonl: its number}
entries = itertools.chain.from_iterable(map(records_in, paths))
if not source:
    from extras.tasks import problems
    # What has the lowest numbers is held out, below. A record's number is a hash.
    for split, n, number in ('train', n_examples, 2 ** 64 - 1), ('validation', 300, 0):
        text = problems.to_jsonl(problems.problems(n, 0, split, with_tests=False))
        examples |= dict.fromkeys(text.encode().splitlines(True), number)
if source and pii:
    from extras.text import personal         # masks personal data; --pii=False goes on without
if prefer:
    from extras.text import judged_answers
    kind = kind or 'preference'
    entries = judged_answers.with_records(entries, reject, kind == 'preference', prefer)
for place, row in tqdm(entries, 'read', unit=' records', disable=None):
    require(prefer or not {'outcome', 'task_id', 'completion'} <= row.keys(), f'{place} is an '
            'answer that eval.py judged: --prefer=passed, taste or both says what is better')
    try:
        record = in_known_form(row)
        its_kind = kind or kind_of(record)
        messages, facts = example_of(record, its_kind or 'sft')
    except Mistake as error:
        why, _, detail = str(error).partition(': ')         # 'a message has an unknown role: bob'
        reject(f'{place} ({detail or ", ".join(row):.80})', why)
        continue
    require(its_kind, f'{place} has the label {label_of(record)}: is it a thumb '
            '(--kind=preference), or a class (--kind=sft)?')
    kind = its_kind         # as the first record
    unused.update(record.keys())
    unused.update(f'--min_{name}, for want of a {name}' for name in ('score', 'margin', 'agreement')
                  if f'min_{name}' in typed and name not in facts)
    for m in messages if pii else []:       # first: answers may differ in an address alone
        m['content'] = personal.hide(m['content'], changed)
    if reason := reason_of(messages, facts):
        reject(place, reason)
        continue
    line = line_of(messages, facts)
    if line in examples:
        reject(place, 'exact duplicate')
        continue
    question = next(m['content'] for m in messages if m['role'] == 'user').strip()
    digest = hashlib.blake2b(question.encode(), digest_size=8).digest()
    examples[line] = int.from_bytes(digest, 'big')
    has_thumbs |= 'label' in facts
report = [f'left out, {why}: {n:,}, first {place}' for why, (n, place) in left_out.items()]
report += [f'changed, {what}: {n:,}' for what, n in changed.items() if n]
report += [f'not used, {name}: {n:,}' for name, n in unused.items()]

# 2. split: by a hash of the first question, so all answers to it are on one side, in every run
different = sorted({*examples.values()})
require(len(different) > 1, f'{source} has {len(different)} different questions to learn from, too '
        f'few to hold some out; {"; ".join(report)}')
limit = min(max(different[0], val_fraction * 2 ** 64), different[-2])    # each side has one
sides = {'train': [], 'val': []}
for line, number in examples.items():
    sides['val' if number <= limit else 'train'].append(line)
for name, lines in sides.items():
    (out / f'{name}.tmp').write_bytes(b''.join(lines))
for name in sides:                      # a kill leaves no half of a file
    os.replace(out / f'{name}.tmp', out / f'{name}.jsonl')

# 3. report
n_read = len(examples) + sum(n for n, _ in left_out.values())
(out / 'report.json').write_text(json.dumps({
    'read': n_read, 'kept': len(examples), 'left_out': left_out, 'changed': changed,
    'unused_columns': unused}, indent=1))
(out / 'meta.json').write_text(json.dumps({**config, 'kind': kind or 'sft'}, indent=1))
script = 'dpo.py --loss_type=kto' if has_thumbs else 'dpo.py' if kind == 'preference' else 'sft.py'
print(f'{n_read:,} records, {len(examples):,} kept: {len(sides["train"]):,} to train on, '
      f'{len(sides["val"]):,} held out', *report,
      f'next: python {script} --data_dir={shlex.quote(out_dir)}', sep='\n')
