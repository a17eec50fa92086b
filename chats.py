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
from configurator import UserError, configure, require
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
LABELS = {**dict.fromkeys(('true', '1', '1.0'), True),
          **dict.fromkeys(('false', '0', '0.0', '-1', '-1.0'), False)}
ROLES = {'user': 'user human prompter', 'system': 'system developer',
         'assistant': 'assistant gpt chatgpt bing bard bot chatbot ai model',
         'tool': 'tool function observation ipython'}
# Columns, and keys of messages, that may stay unread: no value of them can change what should be
# learned. A user is asked for any other one, so this list need not grow.
HARMLESS = ('(.*_)?id|idx|index|uuid|hash|source|dataset|origin|subset|split|category|topic|task|'
            'title|tags|language|lang|model|model_name|generator|author|user|username|url|license|'
            'date|created_at|updated_at|timestamp|metadata|num_tokens|length')


def plain_name(name):
    """Return the name of a column as --unused has it: 'Is good, 1-5' is 'is good_1_5'."""
    return re.sub('[-,] *', '_', name.strip().lower()) or 'unnamed'


def without_empty(record):
    """Return what has a value in a record or a message, by plain names: {'Question': 'Hi!',
    'Input': ''} becomes {'question': 'Hi!'}."""
    full = [name for name, value in record.items() if value not in (None, '', [], {})]
    require(len({*map(plain_name, full)}) == len(full), f'columns of one name: {", ".join(full)}')
    return {plain_name(name): record[name] for name in full}


def in_known_form(columns):
    """Return the columns of a record in one of the forms above. extras/text/chat_schemas.py reads
    other columns, and messages or whole conversations that are written as one text."""
    known = {*MESSAGES, *QUESTION, 'input', *ANSWER, *PAIR, 'label', 'score', 'margin', 'agreement'}
    more = [name for name, value in columns.items()
            if name not in known and not re.fullmatch(HARMLESS, name)
            or isinstance(value, str) and name not in ('input', *ANSWER)
            and re.match(r'\s*(Human:|\[\s*{\s*["\'])', value)]
    if more or isinstance(columns.get('chosen'), list):
        from extras.text import chat_schemas
        columns = chat_schemas.in_known_form(columns)
    return columns


def read_record(columns, kind, changed, unread):
    """Return the messages of a record, the answers that a pair or a label judges, and facts. kind:
    of the records before it, or ''. changed, {what: n}, counts what is changed in texts. unread,
    {name: values}, gets the columns and keys of messages that are not read.

        {'prompt': 'Hi!', 'completion': 'Go!', 'label': 0, 'tone': 'rude'}, 'preference'
        -> [{'role': 'user', 'content': 'Hi!'}], {'completion': 'Go!'}, {'label': False}
        unread: {'tone': ['rude']}"""
    label = str(columns.get('label')).lower()
    is_pair = kind != 'sft' and columns.keys() >= {*PAIR}
    is_labeled = not is_pair and label in LABELS and (
        kind == 'preference' or not kind and 'completion' in columns and label in ('true', 'false'))
    require(is_pair or is_labeled or kind != 'preference',
            'no chosen and rejected, and no label that is true or false')
    first = lambda names: [name for name in names if name in columns][:1]
    listed = [name for name in MESSAGES if isinstance(columns.get(name), list | dict)][:1]
    question = listed or first(QUESTION) + first(['input'])
    answer = PAIR if is_pair else [] if listed else first(ANSWER)
    require(question and (answer or listed), 'no list of messages, and no '
            f'{", ".join(QUESTION)} or input with {", ".join(ANSWER)}: {", ".join(columns)}')
    scores = ['margin', 'agreement'] if is_pair else ['score'] * (min_score is not None)
    facts = {name: float(str(columns[name])) for name in scores if name in columns}
    facts |= {'label': LABELS[label]} if is_labeled else {}

    messages = messages_of('user', [columns[name] for name in question], changed, unread)
    said = {name: messages_of('assistant', [columns[name]], changed, unread) for name in answer}
    messages += next(iter(said.values()), [])           # of a pair: the chosen answer
    texts = [m['content'] for m in messages]
    for name in [name for name in columns if name not in {*question, *answer, *facts}]:
        # many data sets repeat the first question in a column of its own
        may_repeat = name in (*QUESTION, *ANSWER, 'system')
        if not may_repeat or tidy(str(columns[name]), collections.Counter()) not in texts:
            unread[name].append(columns[name])
    judged = said if is_pair else {'completion': messages[-1:]} if is_labeled else {}
    for name, some in judged.items():
        require([m['role'] for m in some] == ['assistant'], f'the {name} is not one answer')

    # ShareGPT begins in the middle of a conversation, and some end with a question.
    initials = ''.join(m['role'][0] for m in messages)          # such as 'suaua'
    talk = re.fullmatch('[sa]*(u.*a)[^a]*', initials)
    require(talk and not re.search('us*u|as*a', talk[1]), 'questions and answers do not alternate')
    begin, end = talk.span(1)
    messages = [m for m in messages[:begin] if m['role'] == 'system'] + messages[begin:end]
    changed['messages outside of questions and answers'] += len(initials) - len(messages)
    answers = {name: some[0]['content'] for name, some in judged.items()}
    return messages[:-1] if answers else messages, answers, facts


def messages_of(role, values, changed, unread):
    """Return the values of columns as messages: texts, which this role says, or a lone message or
    list of messages. An empty system message is left out.

        ['Add.', '1 2'] -> [{'role': 'user', 'content': 'Add.\\n\\n1 2'}]
        [[{'from': 'human', 'value': 'Hi!'}]] -> [{'role': 'user', 'content': 'Hi!'}]"""
    if all(isinstance(value, str) for value in values):
        values = [{'role': role, 'content': '\n\n'.join(values)}]
    messages = []
    for turn in values[0] if isinstance(values[0], list) and len(values) == 1 else values:
        require(isinstance(turn, dict), f'neither a text nor messages: {turn!r:.40}')
        keys = without_empty(turn)
        take = lambda *names: next((keys.pop(name) for name in names if name in keys), '')
        name, content = str(take('role', 'from')).lower(), take('content', 'value', 'text')
        role = next((role for role, names in ROLES.items() if name in names.split()), None)
        require(role, f'a message has an unknown role: {name or "none"}')
        for key, value in keys.items():
            # Questions are never learned, and answers are: these flags say only that.
            flag = LABELS.get(str(value).lower())
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
    plain = without_controls(text)
    changed['control characters'] += plain != text
    text, n_images = DATA_URI.subn('', plain)
    changed['data: addresses'] += n_images
    text = unicodedata.normalize('NFC', re.sub('\r\n?', '\n', text))
    if pii:
        from extras.text.pii import hide
        text = hide(text, changed)
    return text


def check_rules(messages, answers, facts):
    """Refuse an example that is not worth learning from. A rule of yours is a line here."""
    texts = [m['content'] for m in messages] + [*answers.values()]
    require(all(map(str.strip, texts)), 'empty message')
    require(len({*map(str.strip, answers.values())}) == len(answers), 'equal answers')
    for name, low in ('score', min_score), ('margin', min_margin), ('agreement', min_agreement):
        require(name not in facts or low <= facts[name] < math.inf, f'low {name}')      # also nan


def line_of(messages, answers, facts):
    """Return a line of train.jsonl. A prompt of one message is its text."""
    prompt = messages[0]['content'] if len(messages) == 1 else messages
    record = {'prompt': prompt, **answers, **facts} if answers else {'messages': messages}
    return json.dumps(record, ensure_ascii=False) + '\n'


# --- split: a hash of a text decides whether an example is for training or validation -------------
def split_texts(messages, answers, line):
    """Return the text that decides for an example, and the one that does if too many share the
    first. Of a pair or a label both are the prompt, so that no prompt is in both splits. Of a
    conversation they are the first question and all but the last answer, so that all answers to it
    are in one split. But "Hi!", which has fewer than three words, begins many: then both are the
    whole line."""
    said = [m['content'].strip() for m in messages if m['role'] != 'system']
    if answers:
        return ('\n'.join(said),) * 2
    # two characters of a script without spaces make about a word
    is_short = len(re.findall('[\u0e01-\U0010ffff]{1,2}|\\S+', said[0])) < 3
    return (line, line) if is_short else (said[0], '\n'.join(said[:-1]))


def validation_texts(texts, val_fraction):
    """Return which texts are for validation, a set. texts: of each example. They are those whose
    hash, as a number in [0, 1), is below val_fraction. If that makes too few or too many examples,
    by more than three standard deviations (of 200, fewer than 8 or more than 32), the border
    moves. At least one text is for validation, and not all, unless there is only one."""
    n = collections.Counter(texts)
    wanted = len(texts) * val_fraction
    slack = 3 * (wanted * (1 - val_fraction)) ** 0.5
    hash_of = lambda text: int(hashlib.blake2b(text.encode(), digest_size=8).hexdigest(), 16)
    order, chosen, n_chosen = sorted(n, key=hash_of), set(), 0
    for text in order[:-1]:
        is_next = hash_of(text) / 2 ** 64 < val_fraction or n_chosen < wanted - slack
        if is_next and n_chosen + n[text] <= wanted + slack:
            chosen.add(text)
            n_chosen += n[text]
    return chosen or {min(order, key=n.get)}


# --- the job --------------------------------------------------------------------------------------
RESULTS = r'(train|val)\.jsonl|(meta|report)\.json'
explicit = dict()       # what config files and flags set: {setting: the value it replaced}
config = configure(globals(), BOUNDS, explicit)     # config files and flags replace settings
useless = explicit.keys() - {'out_dir', 'overwrite', 'n_examples'}
require(source or not useless, f'{", ".join(useless)}: only with --source=FILE')
out = pathlib.Path(out_dir)
paths, skipped = find_files(source, LINES + TABLES, out) if source else ([], {})
work, lock = open_results(out, 'nanoparrot-chats-1', RESULTS, lambda meta: False, overwrite)

# 1. read
left_out, changed, n_unread = (collections.Counter() for _ in range(3))
# examples: {line: the two texts of split_texts()}; first: {name in a counter: its first place}
examples, first, bytes_left_out = {}, {}, 0
# values: {what is not read: two different values of it, as JSON}; given: what may be unread
values = collections.defaultdict(list)
given = {plain_name(name) for name in unused.split(',') if name}
as_json = lambda value: json.dumps(value, ensure_ascii=False, default=str)
# filters: numbers that flags ask about; a record without the number is kept and counted
filters = {name for name in ('score', 'margin', 'agreement') if f'min_{name}' in explicit}
seen = set()
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
        unread |= {name: [columns.pop(name)] for name in given & columns.keys()}
        columns = in_known_form(columns)
        messages, answers, facts = read_record(columns, kind, changed, unread)
        kind = kind or ('preference' if answers else 'sft')         # as the first record
        check_rules(messages, answers, facts)
        unread |= {f'--min_{name}': [''] for name in filters if name not in facts}
        seen |= facts.keys()
        line = line_of(messages, answers, facts)
        require(line not in examples, 'exact duplicate')
        examples[line] = split_texts(messages, answers, line)
    except (ValueError, RecursionError) as error:
        why, _, words = str(error).partition(': ')
        first.setdefault(why, f'{place} ({words:.80})' if words else place)
        left_out[why] += 1
        bytes_left_out += lost or len(text or '')
    for name, some in unread.items():
        n_unread[name] += 1
        values[name] = [*dict.fromkeys([*values[name], *map(as_json, some)])][:2]
    first = dict.fromkeys([*+changed, *n_unread], place) | first      # an earlier place wins

require(given <= {'all', *n_unread}, f'--unused={unused} names more than the columns that are not '
        f'read: {", ".join(n_unread) or "none"}')
asked = [name for name in n_unread if not given & {name, 'all'} and name[:2] != '--'
         and not re.fullmatch(HARMLESS, name.removeprefix('messages.'))]
shown = [f'{name}: {", ".join(value[:500 // len(asked) + 9] for value in values[name])} '
         f'({n_unread[name]:,} records)' for name in asked]
require(not asked, f'these columns are not read: {"; ".join(shown)}. If the answers are good '
        f'without them, add {shlex.quote("--unused=" + ",".join(asked))} (or --unused=all). --kind='
        'preference reads a label, --min_score a score; chats.py --help has the other names')
for name in filters - seen if examples else ():
    raise UserError(f'no record has a {name} for --min_{name}; not read: {", ".join(n_unread)}')
counts = {'skipped': skipped, 'changed': +changed, 'unused_columns': n_unread, 'left_out': left_out}
notes = [f'{title.replace("_", " ")}, {name}: {n:,}, first {first.get(name, source)}'
         for title, some in counts.items() for name, n in some.items()]

# 2. split: a text decides for its examples, so they stay in their split in every run
if source:
    n, n_all = collections.Counter(text for text, _ in examples.values()), len(examples)
    most = min(n_all / 2, max(10, n_all / 100))     # more would move the fraction that is held out
    texts = {line: whole if n[text] > most else text for line, (text, whole) in examples.items()}
    # a prompt with a bad answer is split among its like: kto needs both kinds in both splits
    bad = {text for line, text in texts.items() if line.endswith(' false}\n')}
    good = [text for text in texts.values() if text not in bad]
    kinds = good, [text for text in texts.values() if text in bad]
    in_val = set().union(*(validation_texts(some, val_fraction) for some in kinds if some))
else:
    from extras.tasks import problems
    texts = {line: split for split, n in (('train', n_examples), ('validation', 300)) for line in
             problems.to_jsonl(problems.problems(n, 0, split, with_tests=False)).splitlines(True)}
    in_val = {'validation'}
train = [line for line, text in texts.items() if text not in in_val]
val = [line for line, text in texts.items() if text in in_val]
require(train, '; '.join([*notes, f'{source} has {len({*texts.values()})} different questions to '
        'learn from, and at least two (of a label) are needed, because one is held out: add some']))

# 3. report
# first: where each thing that is counted was first seen
report = {'read': len(texts) + left_out.total(), 'kept': len(texts), **counts,
          'left_out': {why: [n, first[why]] for why, n in left_out.items()},
          'bytes_left_out': bytes_left_out, 'first': first}
meta = {**config, 'format': 'nanoparrot-chats-1', 'kind': kind or 'sft'}
for name, text in {'train.jsonl': ''.join(train), 'report.json': json.dumps(report, indent=1),
                   'val.jsonl': ''.join(val), 'meta.json': json.dumps(meta, indent=1)}.items():
    (work / 'new' / name).write_text(text, 'utf-8')
publish(out, RESULTS)
script = 'dpo.py' if kind == 'preference' else 'sft.py'
script += ' --loss_type=kto' * any(line.endswith((' true}\n', ' false}\n')) for line in train)
print(f'{report["read"]:,} records, {left_out.total():,} left out ({bytes_left_out:,} bytes); '
      f'{len(train):,} to train on, {len(val):,} held out', *notes,
      f'next: python {script} --data_dir={shlex.quote(out_dir)}', sep='\n')
