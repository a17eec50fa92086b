"""
The forms in which people keep conversations and pairs, and what they become.

    messages_of({'instruction': 'Add.', 'input': '1 2', 'output': '3'})
    -> [{'role': 'user', 'content': 'Add.\\n\\n1 2'}, {'role': 'assistant', 'content': '3'}]

Each of these becomes a user's "Hi!" and the answer "Hello."

    {"messages": [{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Hello."}]}
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi!"}]}, ...]}     parts
    {"conversations": [{"from": "human", "value": "Hi!"}, ...]}             ShareGPT, Vicuna
    {"conversation": [{"human": "Hi!", "assistant": "Hello."}]}, {"data": ["Hi!", "Hello."]}
    {"instruction": "Hi!", "output": "Hello."}, {"question": "Hi!", "response": "Hello."}
    {"prompt": "Hi!", "completion": "Hello."}           texts, or lists of messages as in TRL
    {"title": ..., "mapping": {...}, "current_node": ...}      ChatGPT's export: what was shown last

More columns, and what they add:

    "system", "system_prompt" (OpenOrca)                a system message, unless there is one
    "input" (Alpaca), "context" (Dolly, SQuAD)          below the question, after an empty line
    "history": [["Hi!", "Hello."], ...]                 questions and answers before it
    "answers": {"text": ["A", "B"]}, "answer": ["A", "B"]       the first answer counts

Each of these becomes {"prompt": "Hi!", "chosen": "Hey.", "rejected": "Go!"}:

    {"prompt": "Hi!", "chosen": "Hey.", "rejected": "Go!", "margin": 2}     texts or messages
    {"chosen": "\\n\\nHuman: Hi!\\n\\nAssistant: Hey.", "rejected": ...}    whole talks, hh-rlhf
    {"conversations": [...], "chosen": {"from": "gpt", ...}, "rejected": {...}}     LLaMA-Factory
    {"instruction": "Hi!", "completions": [{"response": "Hey.", "overall_score": 8},
                                           {"response": "Go!", "overall_score": 2}]}
                UltraFeedback: the best and the worst, here with the margin 6

and {"messages": [...], "label": false} or {"prompt": "Hi!", "completion": "Go!", "label": false} is
a thumb down on the last answer, for kto.

A column that would change what is learned is read or refused, never left out in silence; the report
counts all other columns that were not used.
"""
import math, re

# What a record may call a thing. The first name that has a value counts.
ALIASES = {
    'messages': ('messages', 'conversations', 'conversation', 'dialog', 'dialogue'),
    'system': ('system', 'system_prompt', 'system_message'),
    'question': ('instruction', 'prompt', 'question', 'query'),
    'more of the question': ('input', 'context'),
    'answer': ('output', 'completion', 'response', 'answer', 'answers'),
    'score': ('score', 'rating', 'judge_score'),
    'score of chosen': ('score_chosen', 'chosen_score', 'chosen_rating', 'rating_chosen'),
    'score of rejected': ('score_rejected', 'rejected_score', 'rejected_rating', 'rating_rejected'),
    'score of a completion': ('overall_score', 'fine-grained_score', 'score')}
ROLES = {name: role for role, names in {
    'user': 'user human prompter', 'system': 'system developer',
    'assistant': 'assistant gpt chatgpt bing bard bot chatbot ai model',
    'tool': 'tool function observation ipython'}.items() for name in names.split()}
LABELS = {'true': True, '1': True, 'good': True, 'desirable': True, '1.0': True,
          'false': False, '0': False, 'bad': False, 'undesirable': False, '0.0': False}


class Record:
    """A record that knows which of its columns were asked for."""

    def __init__(self, columns):
        if not isinstance(columns, dict):
            raise ValueError(f'it is {columns!r:.40}, not an object with named columns')
        self.columns, self.used = columns, set()
        self.others = set()             # columns of its messages that nobody uses: messages.NAME

    def get(self, thing):
        """Return the first value under the names of a thing that is not empty, or else an empty
        text, or None. That column and the empty ones count as used."""
        names = ALIASES.get(thing, (thing,))
        values = [self.columns.get(name) for name in names]
        full = [name for name, value in zip(names, values) if value not in (None, '', [])]
        self.used |= {*names} - {*full[1:]}
        return self.columns[full[0]] if full else '' if '' in values else None

    def unused(self):
        """Return the names of the columns that have a value and were not used."""
        names = {name for name, value in self.columns.items() if value not in (None, '', [], {})}
        return sorted(names - self.used | self.others)


# --- messages -------------------------------------------------------------------------------------
def messages_of(record):
    """Return [{'role': 'system' | 'user' | 'assistant' | 'tool', 'content'}] of a record, from its
    first question to its last answer. ValueError if it has another form."""
    record = record if isinstance(record, Record) else Record(record)
    turns = turns_of(record)
    if turns is None and 'mapping' in record.columns:
        turns = shown_branch(record)
    if turns is None:
        answer = record.get('answer')
        if isinstance(answer, dict):                    # SQuAD's {'text': ['In 1932.'], ...}
            answer = answer.get('text')
        if isinstance(answer, list) and all(isinstance(text, str) for text in answer):
            answer = (answer or [None])[0]              # other words for the same answer
        answer = answer if isinstance(answer, list) else [('assistant', answer)]
        turns = prompt_of(record) + answer
    messages = joined(read_turns(record, turns))
    # ShareGPT often starts in the middle
    head = next((i for i, m in enumerate(messages) if m['role'] != 'system'), 0)
    while messages[head:] and messages[head]['role'] == 'assistant':
        messages.pop(head)
    # an unanswered question teaches nothing
    while messages and messages[-1]['role'] != 'assistant':
        messages.pop()
    return with_system(record, messages)


def turns_of(record):
    """Return the turns that a record lists, or None. "data" may be anything else."""
    turns = record.get('messages')
    if turns is None and isinstance(record.columns.get('data'), list):
        turns = record.get('data')
    return turns


def prompt_of(record):
    """Return the turns before the answer of a record without messages."""
    question, history = record.get('question'), record.get('history') or []
    if question is None:
        raise ValueError('it has no messages, conversations, or instruction and output, only: '
                         f'{", ".join(record.columns)}')
    if isinstance(question, list):
        return question
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2
                                                for pair in history):
        raise ValueError('"history" must be a list of pairs, [question, answer]')
    more = [record.columns.get(name) for name in ALIASES['more of the question']]
    record.used |= {*ALIASES['more of the question']}
    if not all(isinstance(text, str) for text in [question, *filter(None, more)]):
        raise ValueError(f'its question is no text: {question!r:.40}, {more!r:.40}')
    asked = '\n\n'.join(filter(None, [question, *more]))
    turns = [turn for pair in history for turn in zip(('user', 'assistant'), pair)]
    if re.fullmatch(r'\s*Human:.*\n\nAssistant:\s*', asked, re.S):     # hh-rlhf without the answer
        return turns + talk_of(asked)[:-1]
    return [*turns, ('user', asked)]


def with_system(record, messages):
    """Return messages with the system message that stands beside them, unless they have one."""
    system = record.get('system') or ''
    if not isinstance(system, str):
        raise ValueError(f'its system message is no text: {system!r:.40}')
    if messages and system.strip() and all(m['role'] != 'system' for m in messages):
        return [{'role': 'system', 'content': system}, *messages]
    return messages


def read_turns(record, turns):
    """Yield the messages of turns: of one with a role, of {"human": ..., "assistant": ...}, of
    texts in turn. A column of a message that was not used is noted as messages.NAME."""
    if not isinstance(turns, list):
        raise ValueError(f'its messages are no list: {turns!r:.40}')
    for i, turn in enumerate(turns):
        if isinstance(turn, str):
            turn = ('user', 'assistant')[i % 2], turn
        if isinstance(turn, tuple):
            yield {'role': turn[0], 'content': text_of(turn[1], turn[0])}
            continue
        if not isinstance(turn, dict):
            raise ValueError(f'a message is {turn!r:.40}')
        name = next((name for name in ('role', 'from', 'speaker') if turn.get(name)), None)
        known = {name, 'content', 'value', 'weight', 'tool_calls', 'function_call'}
        if name is None and {*turn} & {'human', 'user'} and {*turn} <= {*ROLES}:
            for role, words in turn.items():
                if words:
                    yield {'role': ROLES[role], 'content': text_of(words, role)}
            continue
        role = str(turn.get(name)).lower()
        if turn.get('tool_calls') or turn.get('function_call') or role == 'function_call':
            raise ValueError('a message calls a tool, and only texts are learned: write the call '
                             'as text, or leave such conversations out')
        if turn.get('weight') == 0 or False in (turn.get('train'), turn.get('loss')):
            raise ValueError('a message has "weight": 0, "train": false or "loss": false, and '
                             'every answer is learned: leave out what should not be')
        if role not in ROLES:
            raise ValueError(f'a message has the role {turn.get(name)!r:.40}; known are '
                             f'{", ".join(ROLES)}')
        record.others |= {f'messages.{column}' for column in turn.keys() - known
                          if turn[column] not in (None, '', [], {})}
        words = turn.get('content')
        yield {'role': ROLES[role],
               'content': text_of(turn.get('value') if words is None else words, role)}


def text_of(words, role):
    """Return the text of a message: a text, or a list of parts that are texts."""
    parts = words if isinstance(words, list) else [words]
    texts = [part.get('text') if isinstance(part, dict) else part for part in parts]
    if not parts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f'a message of {role} is not text: {words!r:.60}')
    return '\n'.join(texts)


def joined(messages):
    """Return messages in which two of a user in a row are one, and no system message is empty."""
    result = []
    for message in messages:
        if message['role'] == 'system' and not message['content'].strip():
            continue
        if result and message['role'] == result[-1]['role'] == 'user':
            result[-1]['content'] += f'\n\n{message["content"]}'
        else:
            result.append(message)
    return result


def shown_branch(record):
    """Return the turns of a conversation of ChatGPT's export, a tree in which each edit and each
    new answer is a branch: those from its current node up to the root, in order."""
    nodes, at, turns = record.get('mapping'), record.get('current_node'), []
    if not isinstance(nodes, dict):
        raise ValueError(f'its mapping is {nodes!r:.40}, not the tree of ChatGPT\'s export')
    record.used |= {'title', 'id', 'conversation_id', 'create_time', 'update_time'}
    seen = set()
    while at in nodes and at not in seen:
        seen.add(at)
        message = nodes[at].get('message') or {}
        role, content = (message.get('author') or {}).get('role'), message.get('content') or {}
        is_said = role in ('user', 'assistant') and message.get('recipient', 'all') == 'all'
        parts = [part for part in content.get('parts') or () if part]
        if is_said and parts:
            turns.append((role, parts))
        at = nodes[at].get('parent')
    return turns[::-1]


# --- pairs ----------------------------------------------------------------------------------------
def pair_of(record):
    """Return the texts and roles of a record, and its margin and agreement, if it has them."""
    record = record if isinstance(record, Record) else Record(record)
    if record.columns.get('completions'):
        roles, answers, scores = best_and_worst(record)
    elif 'label' in record.columns and 'chosen' not in record.columns:
        label = record.get('label')
        if str(label).lower() not in LABELS:
            raise ValueError(f'its label is {label!r:.40}, and must be true or false')
        roles, answers = ['good' if LABELS[str(label).lower()] else 'bad'], [record.get('answer')]
        scores = {}
    else:
        roles, answers = ['chosen', 'rejected'], [record.get('chosen'), record.get('rejected')]
        scores = {name: record.get(f'score of {name}') for name in roles}
        if None in answers:
            raise ValueError('it has no chosen and rejected, and no completion and label, only: '
                             f'{", ".join(record.columns)}')
    talks = [whole_talk(record, answer) for answer in answers]
    prompt = talks[0][:-1]
    if prompt != talks[-1][:-1]:
        raise ValueError('chosen and rejected answer different prompts')
    if not prompt or prompt[-1]['role'] not in ('user', 'tool'):
        raise ValueError('a preference needs a question and an answer, and its prompt ends with '
                         f'{prompt[-1]["role"] if prompt else "nothing"}')

    facts = {name: record.get(name) for name in ('margin', 'agreement')}
    is_scored = scores and all(score not in (None, '') for score in scores.values())
    if facts['margin'] in (None, '') and is_scored:
        facts['margin'] = number(scores['chosen']) - number(scores['rejected'])
    facts = {name: number(value) for name, value in facts.items() if value not in (None, '')}
    return {'texts': [m['content'] for m in prompt] + [talk[-1]['content'] for talk in talks],
            'roles': [m['role'] for m in prompt] + roles, **facts}


def number(value):
    """Return a score as a number."""
    try:
        value = float(value)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError('scores, margin and agreement must be numbers')
    return value


def best_and_worst(record):
    """Return roles, answers and scores of the best and the worst of many completions."""
    completions = record.get('completions')
    some = [Record(one) for one in completions] if isinstance(completions, list) else []
    some = [(number(one.get('score of a completion')), one.get('answer')) for one in some]
    if len({score for score, _ in some}) < 2:
        raise ValueError('its completions have no two different scores, so none is better')
    best, worst = (find(some, key=lambda one: one[0]) for find in (max, min))
    return ['chosen', 'rejected'], [best[1], worst[1]], {'chosen': best[0], 'rejected': worst[0]}


def talk_of(text):
    """Return the turns of a talk of hh-rlhf, '\\n\\nHuman: Hi!\\n\\nAssistant: Hey.'"""
    parts = re.split(r'(?:^|\n\n)(Human|Assistant):', text.lstrip())[1:]
    return [({'Human': 'user'}.get(name, 'assistant'), words.strip())
            for name, words in zip(parts[::2], parts[1::2])]


def whole_talk(record, answer):
    """Return the messages of a prompt and an answer, which may have the prompt in it."""
    if isinstance(answer, str) and re.match(r'\s*Human:', answer):          # hh-rlhf
        turns = talk_of(answer)
    elif isinstance(answer, list) and len(answer) > 1 and (
            any(m['role'] == 'user' for m in read_turns(record, answer))):
        turns = answer
        record.get('question')          # it is in the talk
    else:
        turns = turns_of(record)
        if turns is None:
            turns = prompt_of(record)
        elif answer is None:            # the last message is what the label is about
            turns, answer = turns[:-1], turns[-1:]
        turns = turns + ([('assistant', answer)] if isinstance(answer, str) else
                         answer if isinstance(answer, list) else [answer])
    messages = joined(read_turns(record, turns))
    if not messages or messages[-1]['role'] != 'assistant':
        raise ValueError('a preference needs a question and an answer')
    return with_system(record, messages)
