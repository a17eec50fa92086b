"""
Layouts of conversations and preference pairs that chats.py doesn't know become some that it knows.

    in_known_form({'system_prompt': 'Be kind.', 'question': 'Hi!', 'answer': 'Hello.'})
    -> {'question': [{'role': 'system', 'content': 'Be kind.'},
                     {'role': 'user', 'content': 'Hi!'}], 'answer': 'Hello.'}

    {"conversation": [{"role": "user", "content": "Hi!"}, ...]}         LMSYS
    {"messages": "[{\\"role\\": \\"user\\", ...}]"}                     JSON as a text, in a table

More columns, and what they add:

    "system", "system_prompt" (OpenOrca), "system_message"      a system message
    "context" (Dolly)                                   below the question, after an empty line
    "history": [["Hi!", "Hello."], ...]                 questions and answers before it
    "score_chosen", "score_rejected" (UltraFeedback)    the margin of a pair

Each of these becomes {"prompt": "Hi!", "chosen": "Hey.", "rejected": "Go!"}

    {"chosen": "\\n\\nHuman: Hi!\\n\\nAssistant: Hey.", "rejected": ...}    hh-rlhf: all as a text
    {"chosen": [{"role": "user", "content": "Hi!"}, ...], "rejected": [...]}

text_of() reads messages with more than a role and a text. chats.py leaves a record out, and counts
it, for which this raises a UserError.
"""
import contextlib, json, re
from configurator import require

MESSAGES = 'messages', 'conversations'
QUESTION = 'instruction', 'prompt', 'question', 'query', 'input'
PAIR = 'chosen', 'rejected'
NEW_NAMES = {'system_prompt': 'system', 'system_message': 'system', 'conversation': 'messages',
             **{f'{side}_{score}': f'score_{side}'
                for side in PAIR for score in ('score', 'rating')}}
NO_TEXT = set('image images image_url video videos audio audios attachments tool_calls '
              'function_call'.split())
# flags of a message or a record, as they are where it is learned; and names of what is no flag, but
# may be 1, true or no
FLAGS = {**dict.fromkeys('train trainable learn loss loss_mask weight'.split(), True),
         'masked': False, 'ignore': False}
NO_FLAGS = set('id name index turn turn_identifier round rank toxic redacted lang language'.split())
VALUES = {**dict.fromkeys('true yes on 1 1.0'.split(), True),
          **dict.fromkeys('false no off 0 0.0'.split(), False)}


def in_known_form(record):
    """Return a record in a form of chats.py. record: its columns that have a value, by plain
    names."""
    require(not {'outcome', 'task_id', 'completion'} <= record.keys(), 'an answer that eval.py '
            'judged: --prefer=passed, taste or both says what is better')
    check_names(record)
    record = {name: from_json(value) for name, value in record.items()}
    for old, new in NEW_NAMES.items():
        is_id = old == 'conversation' and not isinstance(record.get(old), list)
        if old in record and new not in record and not is_id:
            record[new] = record.pop(old)
    if record.keys() >= {'score_chosen', 'score_rejected'} and 'margin' not in record:
        better, worse = (float(str(record.pop(f'score_{side}'))) for side in PAIR)
        record['margin'] = better - worse
    if record.keys().isdisjoint(MESSAGES):
        with_more_of_the_question(record)
    if record.keys() >= {*PAIR}:
        with_prompt_of_the_answers(record)
    with_system(record)
    return {name: value for name, value in record.items() if value not in (None, '', [], {})}


def check_names(record):
    """Refuse a record or a message that is more than a text, or that a flag takes out."""
    others = ', '.join(sorted(record.keys() & NO_TEXT))
    require(not others, f'only texts are learned, and this has {others}')
    for name, flag in ((name, str(record[name]).lower()) for name in FLAGS if name in record):
        require(VALUES.get(flag) in (None, FLAGS[name]), f'{name} {flag}, and all is learned')


def from_json(value):
    """Return messages that a table holds as a text of JSON; any other value as it is."""
    if isinstance(value, str) and re.match(r'\s*\[\s*{\s*"(role|content|from|value)"', value):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


def with_more_of_the_question(record):
    """Put the context of a question below it, and what was said earlier before it."""
    name = next((name for name in QUESTION if name in record), None)
    if not isinstance(record.get(name), str):
        return
    texts = [record.pop(part) for part in (name, 'input', 'context') if part in record]
    history = record.pop('history', [])
    require(all(isinstance(text, str) for text in texts), 'a question is not text')
    require(isinstance(history, list) and all(
        isinstance(pair, list) and len(pair) == 2 for pair in history),
        '"history" must be a list of pairs, [question, answer]')
    turns = [{'role': 'user', 'content': '\n\n'.join(texts)}]
    if re.fullmatch(r'\s*Human:.*\n\nAssistant:\s*', turns[0]['content'], re.S):    # hh-rlhf
        turns = turns_of(texts[0])[:-1]
    record['prompt' if name == 'input' else name] = [
        {'role': role, 'content': text} for pair in history
        for role, text in zip(('user', 'assistant'), pair)] + turns


def with_prompt_of_the_answers(record):
    """Take the prompt out of chosen and rejected, if both are whole conversations."""
    both = [turns_of(value) if isinstance(value, str) and re.match(r'\s*Human:', value) else value
            for value in map(record.get, PAIR)]
    if all(isinstance(turns, list) and len(turns) > 1 for turns in both):
        prompt, other = (turns[:-1] for turns in both)
        require(prompt == other, 'chosen and rejected answer different prompts')
        record |= {'messages': prompt, 'chosen': both[0][-1], 'rejected': both[1][-1]}


def with_system(record):
    """Put the system message of a record first, unless its messages have one."""
    name = next((name for name in MESSAGES + QUESTION if isinstance(record.get(name), list)), None)
    turns = [turn for turn in record.get(name, []) if isinstance(turn, dict)]
    roles = {str(turn.get('role', turn.get('from'))).lower() for turn in turns
             if turn.get('content', turn.get('value'))}
    if name and 'system' in record and roles.isdisjoint(['system', 'developer']):
        record[name] = [{'role': 'system', 'content': record.pop('system')}, *record[name]]


def turns_of(text):
    """Return the turns of a conversation of hh-rlhf, '\\n\\nHuman: Hi!\\n\\nAssistant: Hey.'"""
    parts = re.split(r'(?:^|\n\n)(Human|Assistant):', text.lstrip())[1:]
    return [{'role': {'Human': 'user'}.get(name, 'assistant'), 'content': words.strip()}
            for name, words in zip(parts[::2], parts[1::2])]


def text_of(content, others, unused):
    """Return the text of a message, [{'type': 'text', 'text': 'Hi!'}] or ['Hi!']. others, its
    further names and values, must not say that it isn't learned; the set `unused` gets the names
    of those that say nothing of that."""
    check_names(others)
    for name, value in others.items():
        flag = VALUES.get(str(value).lower())           # None: it is no flag
        require(name in NO_FLAGS or flag is FLAGS.get(name),
                f'a message has {name} {str(value).lower()}, and all messages are learned')
    unused |= {f'messages.{name}' for name in others.keys() - FLAGS.keys()}
    parts = [part.get('text') if isinstance(part, dict) and part.get('type', 'text') == 'text'
             else part for part in (content if isinstance(content, list) else [content])]
    require(all(isinstance(part, str) for part in parts), 'a message is not text')
    return '\n'.join(parts)
