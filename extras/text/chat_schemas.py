"""
Convert other schemas of conversations and preference pairs to the schemas of chats.py.

    in_known_form({'system_prompt': 'Be kind.', 'question': 'Hi!', 'answer': 'Hello.'})
    -> {'question': [{'role': 'system', 'content': 'Be kind.'},
                     {'role': 'user', 'content': 'Hi!'}], 'answer': 'Hello.'}

    {"conversation": [{"role": "user", "content": "Hi!"}, ...]}         LMSYS
    {"messages": "[{'role': 'user', ...}]"}     in a table: JSON, or the repr of a Python list

Further columns, and how they change a record:

    "system", "system_prompt" (OpenOrca), "system_message"      become a system message
    "context" (Dolly)                                   is appended to the question
    "history": [["Hi!", "Hello."], ...]                 becomes turns before the question
    "score_chosen", "score_rejected" (UltraFeedback)    become the margin of a pair

Each of these pairs becomes {"prompt": "Hi!", "chosen": "Hey.", "rejected": "Go!"}

    {"chosen": "\\n\\nHuman: Hi!\\n\\nAssistant: Hey.", "rejected": ...}    hh-rlhf: one string
    {"chosen": [{"role": "user", "content": "Hi!"}, ...], "rejected": [...]}

text_of() reads a message whose content is a list of parts. If a function raises a UserError,
chats.py skips and counts the record. For columns that neither file reads, chats.py asks the user.
"""
import ast, contextlib, json, re
from configurator import require

MESSAGES = 'messages', 'conversations'
QUESTION = 'instruction', 'prompt', 'question', 'query', 'input'
PAIR = 'chosen', 'rejected'
# Never parsed as messages: an answer may be a list of messages because the question asked for one.
TEXTS = 'input', 'output', 'response', 'answer'
NEW_NAMES = {'system_prompt': 'system', 'system_message': 'system', 'conversation': 'messages'}


def in_known_form(record, names):
    """Return a record in a schema of chats.py. record: {plain name: value} of its non-empty
    columns. names: the plain names of all its columns, including empty ones."""
    require(not {'outcome', 'task_id', 'completion'} <= record.keys(), 'an answer that eval.py '
            'graded: --prefer must be passed, taste or both')
    record = {name: value if name in TEXTS else parse_messages(name, value)
              for name, value in record.items()}
    for old, new in NEW_NAMES.items():
        is_id = old == 'conversation' and not isinstance(record.get(old), list)
        if old in record and new not in record and not is_id:
            record[new] = record.pop(old)
    for pattern in 'score_{}', '{}_score', '{}_rating':
        scores = [pattern.format(answer) for answer in PAIR]
        if names >= {*scores} and record.get('margin') is None:
            # if one score is null, the pair has no margin
            values = [float(str(record.pop(name))) for name in scores if name in record]
            record['margin'] = values[0] - values[1] if len(values) == 2 else None
    if record.keys() >= {*PAIR}:
        extract_prompt(record)
    if record.keys().isdisjoint(MESSAGES):
        add_context(record)
    add_system_message(record)
    return {name: value for name, value in record.items() if value not in (None, '', [], {})}


def parse_messages(name, value):
    """Return the list of messages that a string contains. Any other value is returned unchanged."""
    if isinstance(value, str) and re.match(r'(?s)[\s\w(]*\[\s*{.*["\'](role|from)["\']\s*:', value):
        # numpy writes no commas between messages. A newline within a message is an escaped \n.
        text = re.sub('}\\s*\n\\s*{', '}, {', value)
        for parse in json.loads, ast.literal_eval:
            with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                return parse(text)
        require(name not in MESSAGES, f'{name} is a string, but neither JSON nor a Python list: '
                f'{value:.40}')
    return value


def add_context(record):
    """Append the context to the question, and insert the history before it, in place."""
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
        turns = parse_hh_rlhf(texts[0])[:-1]
    record[name] = [
        {'role': role, 'content': text} for pair in history
        for role, text in zip(('user', 'assistant'), pair)] + turns


def extract_prompt(record):
    """Move the prompt out of chosen and rejected, in place, if both are complete conversations."""
    both = [parse_hh_rlhf(text) if isinstance(text, str) and re.match(r'\s*Human:', text) else text
            for text in map(record.get, PAIR)]
    if all(isinstance(turns, list) and len(turns) > 1 for turns in both):
        prompt, other_prompt = (turns[:-1] for turns in both)
        require(prompt == other_prompt, 'chosen and rejected answer different prompts')
        require(record.get('messages', prompt) in (prompt, *both),
                'chosen and messages are different conversations')
        record |= {'messages': prompt, 'chosen': both[0][-1], 'rejected': both[1][-1]}


def add_system_message(record):
    """Insert the system message first, in place, unless the messages already have one."""
    name = next((name for name in MESSAGES + QUESTION if isinstance(record.get(name), list)), None)
    turns = [turn for turn in record.get(name, []) if isinstance(turn, dict)]
    roles = {str(turn.get('role', turn.get('from'))).lower() for turn in turns
             if turn.get('content', turn.get('value'))}
    if name and 'system' in record and roles.isdisjoint(['system', 'developer']):
        record[name] = [{'role': 'system', 'content': record.pop('system')}, *record[name]]


def parse_hh_rlhf(text):
    """Return the messages of an hh-rlhf string, '\\n\\nHuman: Hi!\\n\\nAssistant: Hey.'"""
    parts = re.split(r'(?:^|\n\n)(Human|Assistant):', text.lstrip())[1:]
    return [{'role': {'Human': 'user'}.get(name, 'assistant'), 'content': words.strip()}
            for name, words in zip(parts[::2], parts[1::2])]


def text_of(content, unread):
    """Return the text of a content such as [{'type': 'text', 'text': 'Hi!'}] or ['Hi!']. Other
    fields of a part are added to unread, {name: values}."""
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
