"""
Layouts of conversations and preference pairs that chats.py doesn't know become some that it knows.

    in_known_form({'system_prompt': 'Be kind.', 'question': 'Hi!', 'answer': 'Hello.'})
    -> {'question': [{'role': 'system', 'content': 'Be kind.'},
                     {'role': 'user', 'content': 'Hi!'}], 'answer': 'Hello.'}

    {"conversation": [{"role": "user", "content": "Hi!"}, ...]}         LMSYS
    {"messages": "[{'role': 'user', ...}]"}     in a table: JSON, or a list as Python writes it

More columns, and what they add:

    "system", "system_prompt" (OpenOrca), "system_message"      a system message
    "context" (Dolly)                                   below the question, after an empty line
    "history": [["Hi!", "Hello."], ...]                 questions and answers before it
    "score_chosen", "score_rejected" (UltraFeedback)    the margin of a pair

Each of these becomes {"prompt": "Hi!", "chosen": "Hey.", "rejected": "Go!"}

    {"chosen": "\\n\\nHuman: Hi!\\n\\nAssistant: Hey.", "rejected": ...}    hh-rlhf: all as a text
    {"chosen": [{"role": "user", "content": "Hi!"}, ...], "rejected": [...]}

text_of() reads a message whose content is no text. chats.py leaves a record out, and counts it, for
which this raises a UserError; of columns that neither file reads, it asks.
"""
import ast, contextlib, json, re
from configurator import require

MESSAGES = 'messages', 'conversations'
QUESTION = 'instruction', 'prompt', 'question', 'query', 'input'
PAIR = 'chosen', 'rejected'
TEXTS = 'input', 'output', 'response', 'answer'      # a list of messages may be what was asked for
NEW_NAMES = {'system_prompt': 'system', 'system_message': 'system', 'conversation': 'messages'}


def in_known_form(record, names):
    """Return a record in a form of chats.py. record: its columns that have a value, by plain
    names. names: of all its columns, also of those without a value."""
    require(not {'outcome', 'task_id', 'completion'} <= record.keys(), 'an answer that eval.py '
            'judged: --prefer=passed, taste or both says what is better')
    record = {name: value if name in TEXTS else from_text(name, value)
              for name, value in record.items()}
    for old, new in NEW_NAMES.items():
        is_id = old == 'conversation' and not isinstance(record.get(old), list)
        if old in record and new not in record and not is_id:
            record[new] = record.pop(old)
    for form in 'score_{}', '{}_score', '{}_rating':
        scores = [form.format(side) for side in PAIR]
        if names >= {*scores} and record.get('margin') is None:
            # if one of them is null, this pair has no margin
            found = [float(str(record.pop(name))) for name in scores if name in record]
            record['margin'] = found[0] - found[1] if len(found) == 2 else None
    if record.keys() >= {*PAIR}:
        with_prompt_of_the_answers(record)
    if record.keys().isdisjoint(MESSAGES):
        with_more_of_the_question(record)
    with_system(record)
    return {name: value for name, value in record.items() if value not in (None, '', [], {})}


def from_text(name, value):
    """Return messages that a table holds as a text; any other value as it is."""
    if isinstance(value, str) and re.match(r'(?s)[\s\w(]*\[\s*{.*["\'](role|from)["\']\s*:', value):
        # numpy writes a list without commas; inside of a text, a new line is written as \n
        text = re.sub('}\\s*\n\\s*{', '}, {', value)
        for parse in json.loads, ast.literal_eval:
            with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                return parse(text)
        require(name not in MESSAGES, f'{name} is a text, and neither JSON nor a list of Python: '
                f'{value:.40}')
    return value


def with_more_of_the_question(record):
    """Put the context of a question below it, and what was said earlier before it."""
    name = next((name for name in QUESTION if name in record), None)
    if not isinstance(record.get(name), str):
        return
    texts = [record.pop(part) for part in (name, 'input', 'context') if part in record]
    history = record.pop('history', [])
    require(all(isinstance(text, str) for text in texts), f'a question is not text: {texts}')
    require(isinstance(history, list) and all(
        isinstance(pair, list) and len(pair) == 2 for pair in history),
        '"history" must be a list of pairs, [question, answer]')
    turns = [{'role': 'user', 'content': '\n\n'.join(texts)}]
    if re.fullmatch(r'\s*Human:.*\n\nAssistant:\s*', turns[0]['content'], re.S):    # hh-rlhf
        turns = turns_of(texts[0])[:-1]
    record[name] = [
        {'role': role, 'content': text} for pair in history
        for role, text in zip(('user', 'assistant'), pair)] + turns


def with_prompt_of_the_answers(record):
    """Take the prompt out of chosen and rejected, if both are whole conversations."""
    both = [turns_of(value) if isinstance(value, str) and re.match(r'\s*Human:', value) else value
            for value in map(record.get, PAIR)]
    if all(isinstance(turns, list) and len(turns) > 1 for turns in both):
        prompt, other = (turns[:-1] for turns in both)
        require(prompt == other, 'chosen and rejected answer different prompts')
        require(record.get('messages', prompt) in (prompt, *both),
                'chosen and messages are different conversations')
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


def text_of(content, unread):
    """Return the text of a message, [{'type': 'text', 'text': 'Hi!'}] or ['Hi!']. unread, {name:
    values}, gets what else a part has."""
    parts = []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, dict) and part.get('type', 'text') == 'text':
            for name, value in part.items():
                if name not in ('type', 'text') and value not in (None, '', [], {}):
                    unread[f'messages.content.{name}'].append(value)
            part = part.get('text')
        require(isinstance(part, str), f'a message is not text: {part!r:.40}')
        parts.append(part)
    return '\n'.join(parts)
