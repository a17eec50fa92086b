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
A model copies the length, tone and faults of these answers. So chats.py uses each column that would
change them, or refuses it by name, and it counts the columns that it does not use.
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
# options: features that are implemented in extras/, and imported only when they are switched on
n_examples = 2000               # without a source: conversations to write; more teach more
prefer: Literal['', 'passed', 'taste', 'both'] = ''     # what is better of what eval.py judged
BOUNDS = {'val_fraction': (1e-9, 0.999), 'min_score': (-1e18, 1e18), 'min_margin': (-1e18, 1e18)}

# --- a record becomes an example ------------------------------------------------------------------
# of several columns for one thing, the first one is read
MESSAGES = 'messages', 'conversations'
QUESTION = 'instruction', 'prompt', 'question', 'query'
ANSWER = 'output', 'completion', 'response', 'answer'
PAIR = 'chosen', 'rejected'
LABELS = {'true': True, '1': True, '1.0': True, 'false': False, '0': False, '0.0': False}
ROLES = {name: role for role, names in {
    'user': 'user human prompter', 'system': 'system developer',
    'assistant': 'assistant gpt chatgpt bing bard bot chatbot ai model',
    'tool': 'tool function observation ipython'}.items() for name in names.split()}
# these change what is learned, too: extras/text/chat_schemas.py reads or refuses them
MORE_COLUMNS = set('context history conversation system system_prompt system_message score_chosen '
                   'score_rejected chosen_score rejected_score chosen_rating rejected_rating '
                   'outcome image images video videos audio audios weight attachments tool_calls '
                   'function_call train trainable learn loss loss_mask masked ignore'.split())


def without_empty(record):
    """Return what has a value in a record or a message, by plain names: {'Question': 'Hi!',
    'Input': ''} becomes {'question': 'Hi!'}."""
    return {name.lower().replace('-', '_'): value for name, value in record.items()
            if value not in (None, '', [], {})}


def in_known_form(record):
    """Return the columns of a record in one of the forms above. extras/text/chat_schemas.py reads
    other columns, and messages or whole conversations that are written as one text."""
    columns = without_empty(record)
    is_text = any(re.match(r'\s*(Human:|\[\s*{\s*")', str(columns.get(name)))
                  for name in MESSAGES + QUESTION + PAIR)
    if is_text or isinstance(columns.get('chosen'), list) or columns.keys() & MORE_COLUMNS:
        from extras.text import chat_schemas
        columns = chat_schemas.in_known_form(columns)
    return columns


def shape_of(columns, kind):
    """Return what a record is: 'conversation', 'preference pair' or 'unpaired label'. kind: of the
    records before it, or ''."""
    label = str(columns.get('label')).lower()
    if kind != 'sft' and columns.keys() >= {*PAIR}:
        return 'preference pair'
    if kind == 'preference' or not kind and 'completion' in columns and label in ('true', 'false'):
        require(label in LABELS, 'no chosen and rejected, and no label that is true or false')
        return 'unpaired label'
    require(kind or label not in LABELS, 'a label that may judge the answer (--kind=preference) or '
            f'be a class (--kind=sft): {label}')
    require(label != 'false', 'a label that calls the answer bad, and --kind=sft learns it')
    return 'conversation'


def read_record(columns, shape, changed):
    """Return the messages of a record, the answers that a pair or a label judges, facts, and the
    names of what is not used. changed, {what: n}, counts what is changed in texts.

        {'prompt': 'Hi!', 'completion': 'Go!', 'label': 0, 'id': 7}, 'unpaired label'
        -> [{'role': 'user', 'content': 'Hi!'}], {'completion': 'Go!'}, {'label': False}, {'id'}"""
    first = lambda names: [name for name in names if name in columns][:1]
    listed = [name for name in MESSAGES if isinstance(columns.get(name), list | dict)][:1]
    question = listed or first(QUESTION) + first(['input'])
    answer = PAIR if shape == 'preference pair' else [] if listed else first(ANSWER)
    names = ', '.join(columns)
    require(question, f'no list of messages, and no {", ".join(QUESTION)} or input: {names}')
    require(answer or listed, f'no {", ".join(ANSWER)}: {names}')
    scores = ['margin', 'agreement'] if answer == PAIR else ['score'] * (min_score is not None)
    facts = {name: float(str(columns[name])) for name in scores if name in columns}
    facts |= {'label': LABELS[str(columns['label']).lower()]} if shape == 'unpaired label' else {}
    unused = columns.keys() - {*question, *answer, *facts}

    messages = messages_of('user', [columns[name] for name in question], unused, changed)
    said = {name: messages_of('assistant', [columns[name]], unused, changed) for name in answer}
    messages += next(iter(said.values()), [])           # of a pair: the chosen answer
    judged = said if answer == PAIR else {'completion': messages[-1:]} if 'label' in facts else {}
    for name, some in judged.items():
        require([m['role'] for m in some] == ['assistant'], f'the {name} is not one answer')

    # ShareGPT begins in the middle of a conversation, and some end with a question.
    roles = [m['role'] for m in messages]
    begin = [*roles, 'user'].index('user')
    end = len(roles) - [*roles[::-1], 'assistant'].index('assistant')
    messages = [m for m in messages[:begin] if m['role'] != 'assistant'] + messages[begin:end]
    if len(messages) < len(roles):
        unused.add('messages before the first question or after the last answer')
    turns = [m['role'] for m in messages if m['role'] != 'system']
    repeated = [one for one, two in zip(turns, turns[1:]) if one == two != 'tool']
    require(turns[:1] == ['user'] and not repeated, 'questions and answers do not alternate')
    answers = {name: some[0]['content'] for name, some in judged.items()}
    return messages[:-1] if answers else messages, answers, facts, unused


def messages_of(role, values, unused, changed):
    """Return the values of columns as messages: texts, which this role says, or a lone message or
    list of messages. An empty system message is left out.

        ['Add.', '1 2'] -> [{'role': 'user', 'content': 'Add.\\n\\n1 2'}]
        [[{'from': 'human', 'value': 'Hi!'}]] -> [{'role': 'user', 'content': 'Hi!'}]"""
    if all(isinstance(value, str) for value in values):
        values = [{'role': role, 'content': '\n\n'.join(values)}]
    messages = []
    for turn in values[0] if isinstance(values[0], list) and len(values) == 1 else values:
        require(isinstance(turn, dict), f'neither a text nor messages: {turn!r:.40}')
        others = without_empty(turn)
        name = str(others.pop('role', others.pop('from', None))).lower()
        require(name in ROLES, f'a message has an unknown role: {name}')
        role, content = ROLES[name], others.pop('content', others.pop('value', ''))
        if others or not isinstance(content, str):
            from extras.text import chat_schemas
            content = chat_schemas.text_of(content, others, unused)
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
    moves. At least one text is for validation, and not all."""
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
explicit = set()        # the settings that config files and flags set
config = configure(globals(), BOUNDS, explicit)     # config files and flags replace settings
useless = explicit - {'out_dir', 'overwrite', 'n_examples'}
require(source or not useless, f'{", ".join(useless)}: only with --source=FILE')
meta = {**config, 'format': 'nanoparrot-chats-1'}
out = pathlib.Path(out_dir)
paths, skipped = find_files(source, LINES + TABLES, out) if source else ([], {})
work, lock = open_results(out, meta['format'], RESULTS, lambda meta: False, overwrite)

# 1. read
left_out, changed, unused = (collections.Counter() for _ in range(3))
# examples: {line: the two texts of split_texts()}; first: {name in a counter: its first place}
examples, first, n_labels, bytes_left_out = {}, {}, 0, 0
asked = {name for name in ('score', 'margin', 'agreement') if f'min_{name}' in explicit}
records = (entry[:2] for path in paths for entry in entries(path))
if prefer:
    from extras.text import preference_pairs
    records = preference_pairs.with_records(records, kind != 'sft', prefer)
for place, row in tqdm(records, 'read', unit=' records', disable=None):
    text = ''
    try:
        require(not isinstance(row, Exception), row)
        text = json.dumps(row, ensure_ascii=False, default=str)
        mended, n_odd = replace_invalid_bytes(text)
        require(mended, 'not UTF-8 (iconv -f ENCODING -t utf-8 makes it so)')
        changed['undecodable bytes'] += n_odd
        columns = in_known_form(json.loads(mended) if n_odd else row)
        shape = shape_of(columns, kind)
        messages, answers, facts, names = read_record(columns, shape, changed)
        kind = kind or ('sft' if shape == 'conversation' else 'preference')    # as the first record
        unused.update(names | {f'--min_{name}, for want of a {name}' for name in asked - {*facts}})
        check_rules(messages, answers, facts)
        line = line_of(messages, answers, facts)
        require(line not in examples, 'exact duplicate')
        examples[line] = split_texts(messages, answers, line)
        n_labels += shape == 'unpaired label'
    except (ValueError, RecursionError) as error:
        why, _, words = str(error).partition(': ')
        first.setdefault(why, f'{place} ({words:.80})' if words else place)
        left_out[why] += 1
        bytes_left_out += len(text.encode('utf-8', 'replace'))
    first = dict.fromkeys([*+changed, *unused], place) | first      # an earlier place wins

counted = {'passed_over': skipped, 'changed': +changed, 'unused_columns': unused,
           'left_out': left_out}
notes = [f'{title.replace("_", " ")}, {name}: {n:,}, first {first.get(name, source)}'
         for title, some in counted.items() for name, n in some.items()]

# 2. split: a text decides for its examples, so they stay in their split in every run
if source:
    n, n_all = collections.Counter(text for text, _ in examples.values()), len(examples)
    most = min(n_all / 2, max(10, n_all / 100))     # more would move the fraction that is held out
    examples = {line: text if n[text] <= most else whole
                for line, (text, whole) in examples.items()}
    n = len({*examples.values()})
    require(n > 1, '; '.join([*notes, f'{source} has {n} different questions to learn from, and '
                              'at least two are needed, because one is held out: add some']))
    in_val = validation_texts(examples.values(), val_fraction)
else:
    from extras.tasks import problems
    for split, n in ('train', n_examples), ('validation', 300):
        text = problems.to_jsonl(problems.problems(n, 0, split, with_tests=False))
        examples |= dict.fromkeys(text.splitlines(True), split)
    in_val = {'validation'}
train = [line for line, text in examples.items() if text not in in_val]
val = [line for line, text in examples.items() if text in in_val]

# 3. report
report = {'read': len(examples) + left_out.total(), 'kept': len(examples), **counted,
          'left_out': {why: [n, first[why]] for why, n in left_out.items()},
          'bytes_left_out': bytes_left_out, 'first': first}
meta |= {'kind': kind or 'sft'}
for name, text in {'train.jsonl': ''.join(train), 'report.json': json.dumps(report, indent=1),
                   'val.jsonl': ''.join(val), 'meta.json': json.dumps(meta, indent=1)}.items():
    (work / 'new' / name).write_text(text, 'utf-8')
publish(out, RESULTS)
script = 'dpo.py --loss_type=kto' if n_labels else 'dpo.py' if kind == 'preference' else 'sft.py'
print(f'{report["read"]:,} records, {left_out.total():,} left out ({bytes_left_out:,} bytes); '
      f'{len(train):,} to train on, {len(val):,} held out', *notes,
      f'next: python {script} --data_dir={shlex.quote(out_dir)}', sep='\n')
