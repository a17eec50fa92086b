"""
Point chats.py at conversations or preferences, and you get train.jsonl and val.jsonl for sft.py or
dpo.py.

    python chats.py                                         # small Python problems and answers
    python chats.py --source=chats.json,more.jsonl --out_dir=data/chats
    python chats.py --source=out/sft/samples.jsonl --prefer=both --out_dir=data/pairs
    python chats.py --source=out/sft/samples.jsonl --prefer=passed --kind=sft --out_dir=data/good

It reads .jsonl and .jsonl.gz files with the columns below, tables with extras/text/formats.py, and
other columns with extras/text/chat_schemas.py:

    {"messages": [{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Hello."}]}
    {"conversations": [{"from": "human", "value": "Hi!"}, ...]}         ShareGPT, Vicuna
    {"instruction": "Hi!", "input": "", "output": "Hello."}             Alpaca
    {"prompt": "Hi!", "completion": "Hello."}           also question, query; response, answer
    {"prompt": "Hi!", "chosen": "Hello.", "rejected": "Go!", "margin": 2}       a preference pair
    {"prompt": "Hi!", "completion": "Go!", "label": false}      an unpaired label (bad), for kto

It writes one example a line: messages, a preference pair, or an answer with its label. report.json
and meta.json say what it did. You should see how many records it kept, and why it left out others.

A model copies the length, tone and faults of these answers, and a column that is not read may say
that an answer is bad, or have half of the question. So chats.py lists each such column with two of
its values, and stops. If the answers are good without the column, add --unused=COLUMN:

    error: these columns are not read: kto_tag: false, true (60 records) ... add --unused=kto_tag

This stage decides what counts as a good answer.
"""
import collections, hashlib, json, math, pathlib, re, shlex, unicodedata
from typing import Literal
from configurator import configure, require
from files import (LINES, TABLES, entries, find_files, open_results, publish,
                   replace_invalid_bytes, without_controls)
from tqdm import tqdm

# --- settings -------------------------------------------------------------------------------------
source = ''                     # files, folders, globs, with commas; '' = generate problems
out_dir = 'data/sft'            # folder of results
overwrite = False               # True: replace the results in out_dir
kind: Literal['', 'sft', 'preference'] = ''     # type of the records; '' = that of the first
val_fraction = 0.1              # fraction of the questions that is held out
pii = True                      # e-mail, phone, SSN, keys become <EMAIL>, <PHONE>, <SSN>, <KEY>
min_score: float | None = None  # minimum score of a conversation; None = scores are not read
min_margin = 0.0                # minimum of chosen score - rejected score of a pair; 0 keeps ties
min_agreement = 0.0             # minimum fraction of annotators who agree on a pair
unused = ''                     # columns to ignore, with commas; all = all that are not read
# optional features: implemented in extras/ and imported only when switched on
n_examples = 2000               # number of conversations to generate without a source
prefer: Literal['', 'passed', 'taste', 'both'] = ''     # how to rank eval.py's samples
BOUNDS = {'val_fraction': (1e-9, 0.999), 'min_score': (-1e18, 1e18), 'min_margin': (-1e18, 1e18)}

# --- a record becomes an example ------------------------------------------------------------------
# Of several columns in MESSAGES, QUESTION or ANSWER, the first that a record has is read.
MESSAGES = 'messages', 'conversations'
QUESTION = 'instruction', 'prompt', 'question', 'query'
ANSWER = 'output', 'completion', 'response', 'answer'
PAIR = 'chosen', 'rejected'
LABELS = {'true': True, '1': True, 'false': False, '0': False, '-1': False}
ROLES = {'user': 'user human prompter', 'system': 'system developer',
         'assistant': 'assistant gpt chatgpt bing bard bot chatbot ai model',
         'tool': 'tool function observation ipython'}
# Columns, and keys of messages, that are ignored without --unused, because no text or number in
# them can change what should be learned. A value of true, false or {...} is not ignored, because it
# may say that an answer is bad: metadata: {"is_correct": false}.
HARMLESS = ('(.*_)?id|idx|index|uuid|hash|source|dataset|origin|subset|split|category|topic|task|'
            'title|tags|language|lang|model|model_name|generator|author|user|username|url|license|'
            'date|created_at|updated_at|timestamp|metadata|num_tokens|length')


def plain_name(name):
    """Return the normalized name of a column, for --unused: 'Is good, 1-5' -> 'is good_1_5'."""
    return re.sub('[-,] *', '_', name.strip().lower()) or 'unnamed'


def is_harmless(name, value):
    """Return whether a column or 'messages.KEY' can be ignored: 'tags' with ['a'] can, but
    not with [True]."""
    return re.fullmatch(HARMLESS, name.removeprefix('messages.')) and not re.match(
        r'\s*(\[.*,)?[\s\[]*({|(true|false)\s*($|[],]))', str(value), re.I | re.S)


def without_empty(record):
    """Return a record or a message without its empty values, and with normalized names:
    {'Question': 'Hi!', 'Input': ''} -> {'question': 'Hi!'}."""
    # v == v is false for NaN, which pandas writes for a missing value
    full = [name for name, v in record.items() if v not in (None, '', [], {}) and v == v]
    require(len({*map(plain_name, full)}) == len(full), f'columns with one name: {", ".join(full)}')
    return {plain_name(name): record[name] for name in full}


def needs_schemas(columns):
    """Return whether chat_schemas.py must read a record: one with other columns than those above,
    or with messages or a whole conversation in a single text."""
    known = {*MESSAGES, *QUESTION, 'input', *ANSWER, *PAIR, 'label', 'score', 'margin', 'agreement'}
    return isinstance(columns.get('chosen'), list) or any(
        name not in known and not re.fullmatch(HARMLESS, name)
        or isinstance(value, str) and name not in ('input', *ANSWER)
        and re.match(r'\s*(Human:|[\w(]*\[\s*{\s*["\'])', value) for name, value in columns.items())


def read_record(columns, kind, changed, unread):
    """Return the messages of a record, the answers of a preference record, and the ratings: label,
    score, margin or agreement. kind: that of the first record, or ''. changed, {change: n}, counts
    changes of texts. unread, {name: values}, gets the columns and keys of messages that are not
    read.

        {'prompt': 'Hi!', 'completion': 'Go!', 'label': 0, 'tone': 'rude'}, 'preference'
        -> [{'role': 'user', 'content': 'Hi!'}], {'completion': 'Go!'}, {'label': False}
        unread: {'tone': ['rude']}"""
    label = str(columns.get('label')).lower().removesuffix('.0')
    is_pair = kind != 'sft' and columns.keys() >= {*PAIR}
    is_labeled = not is_pair and label in LABELS and (
        kind == 'preference' or not kind and 'completion' in columns and label in ('true', 'false'))
    # A label of 2 shows that the labels are ratings: it is not read, so chats.py asks about all.
    require(is_pair or is_labeled or kind != 'preference' or label != 'none', 'no pair or label')
    first = lambda names: [name for name in names if name in columns][:1]
    listed = [name for name in MESSAGES if isinstance(columns.get(name), list | dict)][:1]
    question = listed or first(QUESTION) + first(['input'])
    answer = PAIR if is_pair else [] if listed else first(ANSWER)
    require(question and (answer or listed), f'no list of messages, and no {", ".join(QUESTION)} '
            f'or input with {", ".join(ANSWER)} (cells None, N/A are empty): {", ".join(columns)}')
    scores = ['margin', 'agreement'] if is_pair else ['score'] * (min_score is not None)
    ratings = {name: float(str(columns[name])) for name in scores if name in columns}
    ratings |= {'label': LABELS[label]} if is_labeled else {}

    turns = {name: messages_of('assistant', columns, [name], changed, unread) for name in answer}
    # in a pair, the chosen answer is the last message
    messages = messages_of('user', columns, question, changed, unread) + [*turns.values(), []][0]
    # many data sets repeat the first question in a column of its own
    used = {*question, *answer, *ratings}
    repeats = [name for name in {*QUESTION, *ANSWER, 'system'} & columns.keys() - used if tidy(
        str(columns[name]), collections.Counter()) in [m['content'] for m in messages]]
    unread |= {name: [value] for name, value in columns.items() if name not in {*used, *repeats}}

    # ShareGPT's conversations may begin with an answer, and others end with a question.
    initials = ''.join(m['role'][0] for m in messages)          # such as 'suaua'
    span = re.fullmatch('(s*)[sa]*?(u.*a)[^a]*', initials)
    require(span and not re.search('us*u|as*a', span[2]), 'questions and answers do not alternate')
    messages = messages[:span.end(1)] + messages[span.start(2):span.end(2)]
    changed['messages outside of questions and answers'] += len(initials) - len(messages)
    asked, answered = (m['content'] for m in messages[-2:])
    changed['answers that begin with their question, kept'] += answered.startswith(asked)
    rated = {'completion': messages} if is_labeled else turns if is_pair else {}
    require(not is_pair or {*map(len, turns.values())} == {1}, f'{answer} are not one message each')
    answers = {name: some[-1]['content'] for name, some in rated.items()}
    return messages[:-1] if answers else messages, answers, ratings


def messages_of(role, columns, names, changed, unread):
    """Return the columns with these names as messages. A column has a message, a list of messages,
    or a text, which becomes a message of this role. Empty system messages are removed.

        {'prompt': 'Add.', 'input': '1 2'} -> [{'role': 'user', 'content': 'Add.\\n\\n1 2'}]
        {'prompt': [{'from': 'human', 'value': 'Hi!'}]} -> [{'role': 'user', 'content': 'Hi!'}]"""
    # A value that is not text comes first, so that the error message shows it.
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
            # Only answers are trained, so a flag is ignored if it is false in a question, or if it
            # is `train` or `weight` and true in an answer.
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
def tidy(text, changed):
    """Return a text without control characters, base64 images and personal data, with Unix newlines
    and in NFC (e with its accent is one character). changed, {change: n}, counts the removals, and
    HTML, which stays: it may be what the question is about, or left over from a web page."""
    text, n_images = re.subn(r'(?i)data:[\w.+/;=-]+;base64,[a-z0-9+/=%_-]{100,}', '', text)
    plain = without_controls(text)
    changed.update({'control characters': plain != text, 'data: addresses': n_images,
                    'special tokens to plain text': len(re.findall(r'<\|\w+\|>', text)),
                    'HTML, kept': len(re.findall(r'&(?:quot|amp|[lg]t|#\d+);|</(?:p|div)>', text))})
    text = unicodedata.normalize('NFC', re.sub('\r\n?', '\n', plain))
    if pii:
        from extras.text.pii import hide
        text = hide(text, changed)
    return text


def check_rules(messages, answers, ratings):
    """Refuse an example that is not worth learning from. Add your own rules as lines."""
    require(all(m['content'].strip() for m in messages), 'empty message')
    require(len({'', *map(str.strip, answers.values())}) > len(answers), 'equal or empty answers')
    # A comparison with nan is false, so nan is refused, too.
    for name, low in ('score', min_score), ('margin', min_margin), ('agreement', min_agreement):
        require(name not in ratings or low <= ratings[name] < math.inf, f'low {name}')


def line_of(messages, answers, ratings):
    """Return a line of train.jsonl. A preference prompt of one message is written as a string."""
    prompt = messages[0]['content'] if len(messages) == 1 else messages
    record = {'prompt': prompt, **answers, **ratings} if answers else {'messages': messages}
    return json.dumps(record, ensure_ascii=False) + '\n'


# --- split: a hash of a text decides whether an example is for training or validation -------------
def validation_texts(texts, val_fraction):
    """Return the set of texts for validation. texts: one of each example. A text is for validation
    if its hash, as a number in [0, 1), is below val_fraction, so most texts stay in their split
    when you add examples. A text of more than val_fraction of the examples is for training.
    Validation gets at least one text, but not all, unless there is only one."""
    n = collections.Counter(texts)
    hash_of = lambda text: int(hashlib.blake2b(text.encode(), digest_size=8).hexdigest(), 16)
    chosen = {text for text in sorted(n, key=hash_of)[:-1] if n[text] <= len(texts) * val_fraction
              and hash_of(text) / 2 ** 64 < val_fraction}
    return chosen or {*sorted(n, key=lambda text: (n[text], hash_of(text)))[:1]}


# --- the job --------------------------------------------------------------------------------------
RESULTS = r'(train|val)\.jsonl|(meta|report)\.json'
# Config files and flags override the settings. explicit: {overridden setting: its previous value}
config = configure(globals(), BOUNDS, explicit := {})
require(source or explicit.keys() <= {'out_dir', 'overwrite', 'n_examples'}, 'only --n_examples, '
        f'--out_dir and --overwrite work without --source=FILE, not {", ".join(explicit)}')
out = pathlib.Path(out_dir)
paths, skipped = find_files(source, LINES + TABLES) if source else ([], {})
work, lock = open_results(out, 'nanoparrot-chats-1', RESULTS, lambda meta: False, overwrite)

# 1. read
left_out, changed, n_unread = (collections.Counter() for _ in range(3))
# examples: {line: its questions}; first: {name in a counter: the place of its first record}
# values: {unread column: two of its values, as JSON}; ignored: the columns in --unused
examples, first, values, bytes_left_out = {}, {}, {}, 0
ignored = {plain_name(name) for name in unused.split(',') if name}
as_json = lambda value: json.dumps(value, ensure_ascii=False, default=str)
records = (entry for path in paths for entry in entries(path))
if prefer:
    from extras.text import preference_pairs
    records = preference_pairs.with_records(records, kind != 'sft', prefer)
for place, row, lost in tqdm(records, 'read', unit=' records', disable=None):
    unread = collections.defaultdict(list)
    try:
        require(isinstance(row, dict), row if isinstance(row, Exception) else 'not a JSON object')
        text, n_invalid = replace_invalid_bytes(as_json(row))
        require(text, 'not UTF-8 (convert it with iconv -f ENCODING -t utf-8)')
        changed['undecodable bytes'] += n_invalid
        columns = without_empty(json.loads(text) if n_invalid else row)
        unread |= {name: [columns.pop(name)] for name in [*columns] if name in ignored}
        if needs_schemas(columns):
            from extras.text import chat_schemas
            columns = chat_schemas.in_known_form(columns, {*map(plain_name, row)})
        messages, answers, ratings = read_record(columns, kind, changed, unread)
        kind = kind or ('preference' if answers else 'sft')         # as the first record
        check_rules(messages, answers, ratings)
        line = line_of(messages, answers, ratings)
        require(line not in examples, 'exact duplicate')
        examples[line] = [m['content'].strip() for m in messages if m['role'] == 'user']
        # A record without the number for --min_score, min_margin or min_agreement is kept.
        n_unread.update(f'--{key}' for key in explicit if 'min_' in key and key[4:] not in ratings)
    except (ValueError, RecursionError) as error:
        reason, _, details = str(error).partition(': ')
        first.setdefault(reason, f'{place} ({details:.80})' if details else place)
        left_out[reason] += 1
        bytes_left_out += lost or isinstance(row, dict) and len(as_json(row))
    for name, found in unread.items():
        n_unread[name] += 1
        shown = [as_json(value)[:80] for value in found if not is_harmless(name, value)]
        values[name] = [*dict.fromkeys(values.get(name, []) + shown)][:2]
    first = dict.fromkeys([*+changed, *n_unread], place) | first      # an earlier place wins

require(ignored <= {'all', *values}, f'--unused={unused} must name columns that are not read: '
        f'{", ".join(values) or "none"}')
refused = {name: f'{name}: {", ".join(shown)} ({n_unread[name]:,} records)'
           for name, shown in values.items() if shown and not ignored & {name, 'all'}}
flag = shlex.quote(f'--unused={",".join([*sorted(ignored), *refused])}')
require(not refused, f'these columns are not read: {"; ".join(refused.values())}. If the answers '
        f'are good without them, add {flag} (or --unused=all). If not, rename or join them to the '
        'columns of chats.py --help; --kind=preference reads `label`: 1, 0; --min_score `score`')
idle = [name for name, n in n_unread.items() if '--min_' in name and n == len(examples)]
require(not idle, f'no record has a number for {", ".join(idle)}; not read: {", ".join(values)}')
counts = {'skipped': skipped, 'changed': +changed, 'unused_columns': n_unread, 'left_out': left_out}
notes = [f'{"WARNING: " * (some is left_out and n >= len(examples))}{title.replace("_", " ")}, '
         f'{"kept without " * (name[:2] == "--")}{name}: {n:,}, first {first.get(name, source)}'
         for title, some in counts.items() for name, n in some.items()]

# 2. split by the first question, so that all answers to it are in one split. If too many examples
# begin with it, such as "Hi!", split by all their questions.
if source:
    n = collections.Counter(questions[0] for questions in examples.values())
    texts = {line: questions[0] if n[questions[0]] <= len(examples) ** 0.5 else '\n'.join(questions)
             for line, questions in examples.items()}
    # Prompts with and without a bad answer are split separately: kto needs both in each split.
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
labels = [{line[-7:] for line in some} & {' true}\n', 'false}\n'} for some in (train, val)]
require(train and all(len(found) != 1 for found in labels), '; '.join([
    f'{len(examples)} records of {source} can be used, but the splits need two questions (of each '
    'label)', *notes, "add records, or rename a table's columns: sed '1s/MINE/question/' a.csv"]))

# 3. report
# first: the place of the first record of each counted name
report = {'read': left_out.total() + len(train + val), 'kept': len(train + val), **counts,
          'left_out': {reason: [n, first[reason]] for reason, n in left_out.items()},
          'bytes_left_out': bytes_left_out, 'first': first}
meta = {**config, 'format': 'nanoparrot-chats-1', 'kind': kind or 'sft'}
for name, text in {'train.jsonl': ''.join(train), 'report.json': json.dumps(report, indent=1),
                   'val.jsonl': ''.join(val), 'meta.json': json.dumps(meta, indent=1)}.items():
    (work / 'new' / name).write_text(text, 'utf-8')
publish(out, RESULTS)
script = 'dpo.py --init_from=out/sft' if kind == 'preference' else 'sft.py --init_from=out/base'
script += ' --loss_type=kto' * any(labels)
print(f'{report["read"]:,} records, {left_out.total():,} left out ({bytes_left_out:,} bytes); '
      f'{len(train):,} for training, {len(val):,} for validation', *notes,
      'in this command, --init_from is an example: set the folder of your model',
      f'next: python {script} --data_dir={shlex.quote(out_dir)}', sep='\n')
