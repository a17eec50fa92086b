"""
Conversations for sft.py: records in the usual forms become lines of train.jsonl and val.jsonl.

    python prepare.py --kind=sft                            # 2,000 conversations of problems.py
    python prepare.py --kind=sft --source=chats.json --min_score=3 --out_dir=data/chats

    messages_of({'instruction': 'Add 1 and 2.', 'input': '', 'output': '3'})
        # [{'role': 'user', 'content': 'Add 1 and 2.'}, {'role': 'assistant', 'content': '3'}]

In prepare.py a conversation is a document of several texts, {'texts': ['Hi!', 'Hello.'], 'roles':
['user', 'assistant']}. It passes the same stages as a text, with rules of its own. Pairs of answers
(--kind=preference) are documents, too: pairs.py has their forms and rules.
"""
import itertools, json, math, re, textwrap
from extras import judged_answers

# What a record may call a thing. The first name that has a value counts.
ALIASES = {
    'messages': ('messages', 'conversations', 'conversation'),
    'role': ('role', 'from'),
    'words': ('content', 'value'),
    'question': ('instruction', 'prompt', 'question'),
    'answer': ('output', 'completion', 'response', 'answer'),
    'score': ('score', 'rating', 'judge_score'),
    'score of chosen': ('score_chosen', 'chosen_score'),
    'score of rejected': ('score_rejected', 'rejected_score')}
ROLES = {'system': 'system', 'developer': 'system', 'user': 'user', 'human': 'user',
         'assistant': 'assistant', 'gpt': 'assistant', 'chatgpt': 'assistant', 'bot': 'assistant',
         'model': 'assistant', 'tool': 'tool', 'function': 'tool', 'observation': 'tool'}
# what a record raises that has another form than the one it is read as
MALFORMED = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
# Two rules for you to edit: an answer of another length is dropped, and so is one with such a
# phrase.
LENGTHS = 0, math.inf               # characters of an answer
UNWANTED = ()                       # in lower case: 'as an ai language model', ...


# --- what prepare.py asks for ---------------------------------------------------------------------
def documents(entries, reject, kind, prefer='passed'):
    """Yield the documents of entries, tuples (path, line, record). A record that has another form
    is skipped, after reject(place, error). Answers that eval.py judged become records first."""
    for _, of_file in itertools.groupby(entries, lambda entry: entry[0]):
        for path, line, record in judged_answers.with_records(of_file, reject, kind, prefer):
            try:
                if line == 0:
                    raise ValueError(f'{kind} needs records, in .jsonl or .json')
                fields = fields_of(record, kind)
            except MALFORMED as error:
                reject(f'{path}:{line or 1}', error)
                continue
            # A record of judged answers comes from several lines, and line is None.
            yield {**fields, 'record': record, 'path': f'{path}:{line}' if line else path,
                   'line': line or 1}


def fields_of(record, kind):
    """Return the texts and roles of a record, and perhaps its score."""
    if kind == 'preference':
        from extras import pairs
        return pairs.fields_of(record)
    messages = messages_of(record)
    fields = {'texts': [m['content'] for m in messages], 'roles': [m['role'] for m in messages]}
    score = find(record, 'score')
    return fields if score is None else {**fields, 'score': number(score)}


def stage(kind, compiles, min_score=None, min_margin=0.0, min_agreement=0.0):
    """Return the rules for a kind of documents, as a stage of prepare.py. compiles(program):
    whether it is Python; None keeps all programs."""
    def check_rules(document, notes):
        if document['mode'] == 'raw':
            return None
        if kind == 'preference':
            from extras import pairs
            return pairs.reason_of(document, min_margin, min_agreement)
        return reason_of(document, compiles, min_score)

    return check_rules


def to_line(document):
    """Return a document as a line of train.jsonl, without its end."""
    texts, roles = document['texts'], document['roles']
    record = {'messages': [{'role': role, 'content': text} for role, text in zip(roles, texts)]}
    if roles[-1] in ('rejected', 'good', 'bad'):
        from extras import pairs
        record = pairs.to_record(document)
    return json.dumps(record, ensure_ascii=False)


def examples(n):
    """Return the texts of train.jsonl and val.jsonl: conversations about n small Python problems,
    and about 300 others."""
    from extras import problems
    return {'train': problems.to_jsonl(problems.problems(n, with_tests=False)),
            'val': problems.to_jsonl(problems.problems(300, 0, 'validation', with_tests=False))}


# --- the forms of records -------------------------------------------------------------------------
def find(record, name):
    """Return the first value that is not None under the names of a thing in a record, or None."""
    return next((record[key] for key in ALIASES[name] if record.get(key) is not None), None)


def number(value):
    """Return a score as a float. What is no number becomes nan, which reaches no limit."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def messages_of(record):
    """Return [{'role': 'system' | 'user' | 'assistant' | 'tool', 'content'}] of a record. Its form
    is one of

        messages or conversation: [{'role', 'content'}]
        ShareGPT, Vicuna: conversations: [{'from', 'value'}]
        Alpaca: instruction, perhaps input, output, and history: [[question, answer]]
        prompt or question, with completion, response or answer

    Each may have a system, a text."""
    turns = find(record, 'messages')
    if turns is None:
        question, context = find(record, 'question'), record.get('input')
        if question is None:
            raise ValueError('neither messages, nor conversations, nor instruction and output in '
                             f'it, only: {", ".join(record)}')
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


# --- rules ----------------------------------------------------------------------------------------
def reason_of(document, compiles=None, min_score=None, lengths=LENGTHS, unwanted=UNWANTED):
    """Return why a conversation is dropped, or None. min_score holds for the score that a judge
    gave; without a score a conversation stays."""
    texts, roles = document['texts'], document['roles']
    answers = [text for text, role in zip(texts, roles) if role == 'assistant']
    turns = [role for role in roles if role != 'system']
    if not answers:
        return 'no answer'
    if turns[0] != 'user' or any(a == b and b != 'tool' for a, b in zip(turns, turns[1:])):
        return 'roles do not alternate'
    if not all(map(str.strip, answers)):
        return 'empty answer'
    if not all(map(str.strip, texts)):
        return 'empty message'
    if min_score is not None and not document.get('score', math.inf) >= min_score:  # nan is not
        return 'low score'
    if min(map(len, answers)) < lengths[0]:
        return 'short answer'
    if max(map(len, answers)) > lengths[1]:
        return 'long answer'
    words = '\n'.join(answers).lower()
    if any(phrase in words for phrase in unwanted):
        return 'unwanted phrase'
    if compiles and not all(map(compiles, programs(answers))):
        return 'code does not parse'


PYTHON_BLOCK = re.compile(r'```(?:python|py)\n(.*?)```', re.S)        # may be indented, in a list


def programs(answers):
    """Return the ```python blocks in answers, but not sessions of the interpreter (>>>)."""
    blocks = PYTHON_BLOCK.findall('\n'.join(answers))
    return [textwrap.dedent(block) for block in blocks if '>>>' not in block]
