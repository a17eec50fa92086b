"""
Point chats.py at conversations or preferences, and you get train.jsonl and val.jsonl for sft.py or
dpo.py.

    python chats.py                                         # small Python problems and answers
    python chats.py --source=chats.json,more.jsonl --out_dir=data/chats
    python chats.py --source=out/sft/samples.jsonl --prefer=both --out_dir=data/pairs
    python chats.py --source=out/sft/samples.jsonl --prefer=passed --kind=sft --out_dir=data/good

It reads .jsonl(.gz) with files.py and configurator.py beside it, and tables by
extras/text/formats.py, if the records look like these; extras/text/chat_schemas.py knows more:

    {"messages": [{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Hello."}]}
    {"conversations": [{"from": "human", "value": "Hi!"}, ...]}         ShareGPT, Vicuna
    {"instruction": "Hi!", "input": "", "output": "Hello."}             Alpaca
    {"prompt": "Hi!", "completion": "Hello."}           also question, query; response, answer
    {"prompt": "Hi!", "chosen": "Hello.", "rejected": "Go!", "margin": 2}       a preference pair
    {"prompt": "Hi!", "completion": "Go!", "label": false}      an unpaired label (bad), for kto

It writes one example a line: messages, a preference pair, or an answer with its label. report.json
and meta.json say what it did. You should see how many records it kept, and why it left out others.

A model copies the length, tone and faults of these answers, and a column that is not read may be a
verdict on them, or half of the question. So chats.py reads everything, then shows each such column
with two of its values and ends. If the answers are good without it, add --unused=COLUMN:

    error: these columns are not read: kto_tag: false, true (60 records) ... add --unused=kto_tag

The decision made here is what a good answer is.
"""
import collections, hashlib, json, math, pathlib, re, shlex, unicodedata
from typing import Literal
from configurator import configure, require
from files import (LINES, TABLES, entries, find_files, open_results, publish,
                   replace_invalid_bytes, without_controls)
from tqdm import tqdm

# --- settings -------------------------------------------------------------------------------------
source = ''                     # file, folder or glob, several with commas; '' = n_examples of ours
out_dir = 'data/sft'            # folder of results
overwrite = False               # True: replace the results in out_dir
kind: Literal['', 'sft', 'preference'] = ''     # what the records are; '' = as the first one
val_fraction = 0.1              # fraction of the questions that is held out
pii = True                      # e-mail, phone, SSN, keys become <EMAIL>, <PHONE>, <SSN>, <KEY>
min_score: float | None = None  # of a conversation: what a judge gave it
min_margin = 0.0                # of a pair: score of chosen - score of rejected; 0 keeps ties
min_agreement = 0.0             # of a pair: fraction of annotators who agree
unused = ''                     # columns to do without, with commas; all = all that are not read
# optional features: implemented in extras/ and imported only when switched on
n_examples = 2000               # without a source: conversations to write; more teach more
prefer: Literal['', 'passed', 'taste', 'both'] = ''     # what is better of what eval.py judged
BOUNDS = {'val_fraction': (1e-9, 0.999), 'min_score': (-1e18, 1e18), 'min_margin': (-1e18, 1e18)}

# --- a record becomes an example ------------------------------------------------------------------
# of several columns for one thing, the first one is read
MESSAGES = 'messages', 'conversations'
QUESTION = 'instruction', 'prompt', 'question', 'query'
ANSWER = 'output', 'completion', 'response', 'answer'
PAIR = 'chosen', 'rejected'
LABELS = {'true': True, '1': True, 'false': False, '0': False, '-1': False}
ROLES = {'user': 'user human prompter', 'system': 'system developer',
         'assistant': 'assistant gpt chatgpt bing bard bot chatbot ai model',
         'tool': 'tool function observation ipython'}
# Columns, and keys of messages, that may stay unread: no text or number in them can change what
# should be learned. A user is asked for any other one, so this list need not grow, and for a value
# here that is true, false or {...}, which may be a verdict: metadata: {"is_correct": false}.
HARMLESS = ('(.*_)?id|idx|index|uuid|hash|source|dataset|origin|subset|split|category|topic|task|'
            'title|tags|language|lang|model|model_name|generator|author|user|username|url|license|'
            'date|created_at|updated_at|timestamp|metadata|num_tokens|length')


def plain_name(name):
    """Return the name of a column as --unused has it: 'Is good, 1-5' is 'is good_1_5'."""
    return re.sub('[-,] *', '_', name.strip().lower()) or 'unnamed'


def is_harmless(name, value):
    """Whether a column or 'messages.KEY' may stay unread: 'tags', ['a'], but not 'tags', [True]."""
    parts = value if isinstance(value, list) else [value]
    return re.fullmatch(HARMLESS, name.removeprefix('messages.')) and not any(
        re.match(r'[\s\[]*({|(true|false)[\s\]]*$)', str(part), re.I) for part in parts)


def without_empty(record):
    """Return what has a value in a record or a message, by plain names: {'Question': 'Hi!',
    'Input': ''} becomes {'question': 'Hi!'}."""
    # pandas writes NaN for nothing, which is not equal to itself
    full = [name for name, v in record.items() if v not in (None, '', [], {}) and v == v]
    require(len({*map(plain_name, full)}) == len(full), f'columns of one name: {", ".join(full)}')
    return {plain_name(name): record[name] for name in full}


def needs_schemas(columns):
    """Whether a record has more than the forms above: other columns, or messages or whole
    conversations that are written as one text."""
    known = {*MESSAGES, *QUESTION, 'input', *ANSWER, *PAIR, 'label', 'score', 'margin', 'agreement'}
    return isinstance(columns.get('chosen'), list) or any(
        name not in known and not re.fullmatch(HARMLESS, name)
        or isinstance(value, str) and name not in ('input', *ANSWER)
        and re.match(r'\s*(Human:|[\w(]*\[\s*{\s*["\'])', value) for name, value in columns.items())


def read_record(columns, kind, changed, unread):
    """Return the messages of a record, the answers that a pair or a label judges, and facts. kind:
    of the records before it, or ''. changed, {what: n}, counts what is changed in texts. unread,
    {name: values}, gets the columns and keys of messages that are not read.

        {'prompt': 'Hi!', 'completion': 'Go!', 'label': 0, 'tone': 'rude'}, 'preference'
        -> [{'role': 'user', 'content': 'Hi!'}], {'completion': 'Go!'}, {'label': False}
        unread: {'tone': ['rude']}"""
    label = str(columns.get('label')).lower().removesuffix('.0')
    is_pair = kind != 'sft' and columns.keys() >= {*PAIR}
    is_labeled = not is_pair and label in LABELS and (
        kind == 'preference' or not kind and 'completion' in columns and label in ('true', 'false'))
    require(is_pair or is_labeled or kind != 'preference', f'no pair, no true/false label: {label}')
    first = lambda names: [name for name in names if name in columns][:1]
    listed = [name for name in MESSAGES if isinstance(columns.get(name), list | dict)][:1]
    question = listed or first(QUESTION) + first(['input'])
    answer = PAIR if is_pair else [] if listed else first(ANSWER)
    require(question and (answer or listed), 'no list of messages, and no '
            f'{", ".join(QUESTION)} or input with {", ".join(ANSWER)}: {", ".join(columns)}')
    scores = ['margin', 'agreement'] if is_pair else ['score'] * (min_score is not None)
    facts = {name: float(str(columns[name])) for name in scores if name in columns}
    facts |= {'label': LABELS[label]} if is_labeled else {}

    said = {name: messages_of('assistant', columns, [name], changed, unread) for name in answer}
    # of a pair, with the chosen answer
    messages = messages_of('user', columns, question, changed, unread) + [*said.values(), []][0]
    # many data sets repeat the first question in a column of its own
    repeats = [name for name in (*QUESTION, *ANSWER, 'system') if name in columns and tidy(
        str(columns[name]), collections.Counter()) in [m['content'] for m in messages]]
    unread |= {name: [value] for name, value in columns.items()
               if name not in {*question, *answer, *facts, *repeats}}

    # ShareGPT begins in the middle of a conversation, and some end with a question.
    initials = ''.join(m['role'][0] for m in messages)          # such as 'suaua'
    talk = re.fullmatch('(s*)[sa]*?(u.*a)[^a]*', initials)
    require(talk and not re.search('us*u|as*a', talk[2]), 'questions and answers do not alternate')
    messages = messages[:talk.end(1)] + messages[talk.start(2):talk.end(2)]
    changed['messages outside of questions and answers'] += len(initials) - len(messages)
    judged = {'completion': messages} if is_labeled else said if is_pair else {}
    require(not is_pair or {*map(len, said.values())} == {1}, f'{answer} are not one message each')
    answers = {name: some[-1]['content'] for name, some in judged.items()}
    return messages[:-1] if answers else messages, answers, facts


def messages_of(role, columns, names, changed, unread):
    """Return the columns of these names as messages: texts, which this role says, or a lone message
    or list of messages. An empty system message is left out.

        {'prompt': 'Add.', 'input': '1 2'} -> [{'role': 'user', 'content': 'Add.\\n\\n1 2'}]
        {'prompt': [{'from': 'human', 'value': 'Hi!'}]} -> [{'role': 'user', 'content': 'Hi!'}]"""
    # what is no text comes first, so that it is shown
    values = sorted((columns[name] for name in names), key=lambda value: isinstance(value, str))
    if all(isinstance(value, str) for value in values):
        values = [{'role': role, 'content': '\n\n'.join(values)}]
    messages = []
    for turn in values[0] if isinstance(values[0], list) and len(values) == 1 else values:
        require(isinstance(turn, dict), f'neither text nor messages: {names}: {turn!r:.40}')
        keys = without_empty(turn)
        take = lambda *names: next((keys.pop(name) for name in names if name in keys), '')
        name, content = str(take('role', 'from')).lower(), take('content', 'value', 'text')
        role = next((role for role, names in ROLES.items() if name in names.split()), None)
        require(role, f'a message has an unknown role: {name or f"none: {turn!r:.60}"}')
        for key, value in keys.items():
            # Questions are never learned, and answers are: these flags say only that.
            flag = LABELS.get(str(value).lower().removesuffix('.0'))
            if flag is not (role == 'assistant') or flag and key not in ('train', 'weight'):
                unread[f'messages.{key}'].append(value)
        if not isinstance(content, str):
            from extras.text import chat_schemas
            content = chat_schemas.text_of(content, unread)
        if content.strip() or role != 'system':
            messages.append({'role': role, 'content': tidy(content, changed)})
    return messages


# --- rules ----------------------------------------------------------------------------------------
DATA_URI = re.compile(r'data:[\w.+/-]+(?:;[\w.=+-]+)*;base64,[A-Z0-9+/=%_-]{100,}', re.I)


def tidy(text, changed):
    """Return a text without control characters, images in base64 and personal data, which changed,
    {what: n}, counts. A newline ends a line, and e with its accent is one character (NFC)."""
    text, n_images = DATA_URI.subn('', text)
    plain = without_controls(text)
    changed.update({'control characters': plain != text, 'data: addresses': n_images})
    text = unicodedata.normalize('NFC', re.sub('\r\n?', '\n', plain))
    if pii:
        from extras.text.pii import hide
        text = hide(text, changed)
    return text


def check_rules(messages, answers, facts):
    """Refuse an example that is not worth learning from. A rule of yours is a line here."""
    require(all(m['content'].strip() for m in messages), 'empty message')
    require(len({'', *map(str.strip, answers.values())}) > len(answers), 'equal or empty answers')
    for name, low in ('score', min_score), ('margin', min_margin), ('agreement', min_agreement):
        require(name not in facts or low <= facts[name] < math.inf, f'low {name}')      # also nan


def line_of(messages, answers, facts):
    """Return a line of train.jsonl. A prompt of one message is its text."""
    prompt = messages[0]['content'] if len(messages) == 1 else messages
    record = {'prompt': prompt, **answers, **facts} if answers else {'messages': messages}
    return json.dumps(record, ensure_ascii=False) + '\n'


# --- split: a hash of a text decides whether an example is for training or validation -------------
def validation_texts(texts, val_fraction):
    """Return which texts are for validation, a set. texts: of each example. They are those whose
    hash, as a number in [0, 1), is below val_fraction, so that most texts stay in their split when
    you add examples. A text that more examples share than are wanted is for training. At least one
    text is for validation, and not all, unless there is only one."""
    n = collections.Counter(texts)
    hash_of = lambda text: int(hashlib.blake2b(text.encode(), digest_size=8).hexdigest(), 16)
    chosen = {text for text in sorted(n, key=hash_of)[:-1] if n[text] <= len(texts) * val_fraction
              and hash_of(text) / 2 ** 64 < val_fraction}
    return chosen or {*sorted(n, key=lambda text: (n[text], hash_of(text)))[:1]}


# --- the job --------------------------------------------------------------------------------------
RESULTS = r'(train|val)\.jsonl|(meta|report)\.json'
explicit = dict()       # what config files and flags set: {setting: the value it replaced}
config = configure(globals(), BOUNDS, explicit)     # config files and flags replace settings
require(source or explicit.keys() <= {'out_dir', 'overwrite', 'n_examples'}, 'without --source='
        f'FILE there is only --n_examples, --out_dir and --overwrite, not {", ".join(explicit)}')
out = pathlib.Path(out_dir)
paths, skipped = find_files(source, LINES + TABLES) if source else ([], {})
work, lock = open_results(out, 'nanoparrot-chats-1', RESULTS, lambda meta: False, overwrite)

# 1. read
left_out, changed, n_unread = (collections.Counter() for _ in range(3))
# examples: {line: its questions}; first: {name in a counter: its first place}
# values: {what is asked about: two different values of it, as JSON}; given: what may be unread
examples, first, values, bytes_left_out = {}, {}, {}, 0
given = {plain_name(name) for name in unused.split(',') if name}
as_json = lambda value: json.dumps(value, ensure_ascii=False, default=str)
records = (entry for path in paths for entry in entries(path))
if prefer:
    from extras.text import preference_pairs
    records = preference_pairs.with_records(records, kind != 'sft', prefer)
for place, row, lost in tqdm(records, 'read', unit=' records', disable=None):
    text, unread = '', collections.defaultdict(list)
    try:
        require(isinstance(row, dict), row if isinstance(row, Exception) else 'no record of JSON')
        text, n_odd = replace_invalid_bytes(as_json(row))
        require(text, 'not UTF-8 (iconv -f ENCODING -t utf-8 makes it so)')
        changed['undecodable bytes'] += n_odd
        columns = without_empty(json.loads(text) if n_odd else row)
        unread |= {name: [columns.pop(name)] for name in [*columns] if name in given}
        if needs_schemas(columns):
            from extras.text import chat_schemas
            columns = chat_schemas.in_known_form(columns, {*map(plain_name, row)})
        messages, answers, facts = read_record(columns, kind, changed, unread)
        kind = kind or ('preference' if answers else 'sft')         # as the first record
        check_rules(messages, answers, facts)
        line = line_of(messages, answers, facts)
        require(line not in examples, 'exact duplicate')
        examples[line] = [m['content'].strip() for m in messages if m['role'] == 'user']
        # a record without the number that --min_score and the like compare is kept and counted
        n_unread.update(f'--{key}' for key in explicit if 'min_' in key and key[4:] not in facts)
    except (ValueError, RecursionError) as error:
        why, _, words = str(error).partition(': ')
        first.setdefault(why, f'{place} ({words:.80})' if words else place)
        left_out[why] += 1
        bytes_left_out += lost or len(text or '')
    for name, some in unread.items():
        n_unread[name] += 1
        asked = [as_json(value)[:80] for value in some if not is_harmless(name, value)]
        values[name] = [*dict.fromkeys(values.get(name, []) + asked)][:2]
    first = dict.fromkeys([*+changed, *n_unread], place) | first      # an earlier place wins

require(given <= {'all', *values}, f'--unused={unused} names more than the columns that are not '
        f'read: {", ".join(values) or "none"}')
asked = {name: f'{name}: {", ".join(some)} ({n_unread[name]:,} records)'
         for name, some in values.items() if some and not given & {name, 'all'}}
flag = shlex.quote(f'--unused={",".join([*sorted(given), *asked])}')
require(not asked, f'these columns are not read: {"; ".join(asked.values())}. If the answers are '
        f'good without them, add {flag} (or --unused=all). If not, rename them as chats.py --help '
        'says, or join them to another; --kind=preference reads a label, --min_score a score')
idle = [name for name, n in n_unread.items() if '--min_' in name and n == len(examples)]
require(not idle, f'no record has a number for {", ".join(idle)}; not read: {", ".join(values)}')
counts = {'skipped': skipped, 'changed': +changed, 'unused_columns': n_unread, 'left_out': left_out}
notes = [f'{title.replace("_", " ")}, {name}: {n:,}, first {first.get(name, source)}'
         for title, some in counts.items() for name, n in some.items()]

# 2. split: the first question decides, so that all answers to it are in one split; or all questions
# if too many examples begin with this one, such as "Hi!"
if source:
    n = collections.Counter(asked[0] for asked in examples.values())
    texts = {line: asked[0] if n[asked[0]] <= len(examples) ** 0.5 else '\n'.join(asked)
             for line, asked in examples.items()}
    # a prompt with a bad answer is split among its like: kto needs both kinds in both splits
    bad = {text for line, text in texts.items() if line.endswith(' false}\n')}
    in_val = {text for some in (bad, {*texts.values()} - bad) for text in validation_texts(
        [text for text in texts.values() if text in some], val_fraction)}
    train = [line for line, text in texts.items() if text not in in_val]
    val = [line for line, text in texts.items() if text in in_val]
else:
    from extras.tasks import problems
    train, val = (
        problems.to_jsonl(problems.problems(n, 0, split, with_tests=False)).splitlines(True)
        for split, n in (('train', n_examples), ('validation', 300)))
require(train, '; '.join([f'{len(examples)} records of {source} can be used, and two questions are '
                          'needed (two of each label), because one is held out', *notes]))

# 3. report
# first: where each thing that is counted was first seen
report = {'read': left_out.total() + len(train + val), 'kept': len(train + val), **counts,
          'left_out': {why: [n, first[why]] for why, n in left_out.items()},
          'bytes_left_out': bytes_left_out, 'first': first}
meta = {**config, 'format': 'nanoparrot-chats-1', 'kind': kind or 'sft'}
for name, text in {'train.jsonl': ''.join(train), 'report.json': json.dumps(report, indent=1),
                   'val.jsonl': ''.join(val), 'meta.json': json.dumps(meta, indent=1)}.items():
    (work / 'new' / name).write_text(text, 'utf-8')
publish(out, RESULTS)
script = 'dpo.py --init_from=out/sft' if kind == 'preference' else 'sft.py --init_from=out/base'
script += ' --loss_type=kto' * any(line.endswith((' true}\n', ' false}\n')) for line in train)
print(f'{report["read"]:,} records, {left_out.total():,} left out ({bytes_left_out:,} bytes); '
      f'{len(train):,} to train on, {len(val):,} held out', *notes,
      f'next: python {script} --data_dir={shlex.quote(out_dir)}', sep='\n')
