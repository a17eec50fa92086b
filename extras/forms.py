"""
Forms of conversations and pairs that chats.py doesn't know by itself become those that it knows.

    in_known_form({'system_prompt': 'Be kind.', 'question': 'Hi!', 'answer': 'Hello.'})
    -> {'system': 'Be kind.', 'question': [{'role': 'user', 'content': 'Hi!'}], 'answer': 'Hello.'}

Each of these becomes a user's "Hi!" and the answer "Hello."

    {"conversation": [{"human": "Hi!", "assistant": "Hello."}]}, {"data": ["Hi!", "Hello."]}
    {"messages": "[{\\"role\\": \\"user\\", ...}]"}           JSON as a text, in a table

More columns, and what they add:

    "system_prompt" (OpenOrca), "system_message"        a system message
    "context" (Dolly)                                   below the question, after an empty line
    "history": [["Hi!", "Hello."], ...]                 questions and answers before it

Each of these becomes {"prompt": "Hi!", "chosen": "Hey.", "rejected": "Go!"}

    {"chosen": "\\n\\nHuman: Hi!\\n\\nAssistant: Hey.", "rejected": ...}    whole talks, hh-rlhf
    {"chosen": [{"role": "user", "content": "Hi!"}, ...], "rejected": [...]}
    {"input": {"messages": [...]}, "preferred_output": [...], "non_preferred_output": [...]}  OpenAI

chats.py leaves a record out, and counts it, for which this raises a Mistake.
"""
import contextlib, json, re
from configurator import Mistake, require

MESSAGES = {'messages', 'conversations'}
LISTS = {'conversation', 'dialog', 'dialogue', 'data'}
QUESTION = 'instruction', 'prompt', 'question', 'query'
PAIR = 'chosen', 'rejected'
NEW_NAMES = {'system_prompt': 'system', 'system_message': 'system', 'rating': 'score',
             'judge_score': 'score', 'preferred_output': 'chosen',
             'non_preferred_output': 'rejected', **{
                 old: f'score_{side}' for side in PAIR
                 for old in (f'{side}_score', f'{side}_rating', f'rating_{side}')}}


def in_known_form(record):
    """Return a record in a form of chats.py. record: its columns that have a value, by plain
    names."""
    record = {name: from_json(value) for name, value in record.items()}
    for old, new in NEW_NAMES.items():
        if old in record and new not in record:
            record[new] = record.pop(old)
    if isinstance(record.get('input'), dict):               # OpenAI's pairs
        record['messages'] = record['input'].get('messages')
    for name in LISTS & record.keys():
        if not MESSAGES & record.keys() and isinstance(record[name], list):     # "data": "2024"
            record['messages'] = turns_of(record.pop(name))
    if record.keys() >= {'score_chosen', 'score_rejected'} and 'margin' not in record:
        better, worse = (number(record.pop(f'score_{side}')) for side in PAIR)
        record['margin'] = better - worse
    if not MESSAGES & record.keys():
        with_more_of_the_question(record)
    if record.keys() >= {*PAIR}:
        with_prompt_of_the_answers(record)
    return {name: value for name, value in record.items() if value not in (None, '', [], {})}


def from_json(value):
    """Return messages that a table holds as a text of JSON; any other value as it is."""
    if isinstance(value, str) and re.match(r'\s*\[\s*{\s*"(role|content|from|value|human)"', value):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


def with_more_of_the_question(record):
    """Put the context of a question below it, and what was said earlier before it."""
    name = next((name for name in (*QUESTION, 'input') if name in record), None)
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
        turns = talk_of(texts[0])[:-1]
    record['prompt' if name == 'input' else name] = turns_of(sum(history, [])) + turns


def with_prompt_of_the_answers(record):
    """Take the prompt out of chosen and rejected, if both are whole talks."""
    talks = [talk_of(talk) if isinstance(talk, str) and re.match(r'\s*Human:', talk) else talk
             for talk in map(record.get, PAIR)]
    if all(isinstance(talk, list) and any(is_asked(turn) for turn in talk) for talk in talks):
        prompt, other = (talk[:-1] for talk in talks)
        require(prompt == other, 'chosen and rejected answer different prompts')
        record |= {'messages': prompt, 'chosen': talks[0][-1], 'rejected': talks[1][-1]}


def is_asked(turn):
    role = turn.get('role', turn.get('from')) if isinstance(turn, dict) else ''
    return str(role).lower() in ('user', 'human', 'prompter')


def turns_of(texts):
    """Return a list of texts, which a user and an assistant said in turn, or of {"human": ...,
    "assistant": ...}, as turns with roles."""
    turns = []
    for i, turn in enumerate(texts):
        if isinstance(turn, str):
            turns.append({'role': ('user', 'assistant')[i % 2], 'content': turn})
        elif not isinstance(turn, dict) or {'role', 'from'} & turn.keys():
            turns.append(turn)
        else:
            turns += [{'role': role, 'content': words} for role, words in turn.items() if words]
    return turns


def talk_of(text):
    """Return the turns of a talk of hh-rlhf, '\\n\\nHuman: Hi!\\n\\nAssistant: Hey.'"""
    parts = re.split(r'(?:^|\n\n)(Human|Assistant):', text.lstrip())[1:]
    return [{'role': {'Human': 'user'}.get(name, 'assistant'), 'content': words.strip()}
            for name, words in zip(parts[::2], parts[1::2])]


def number(score):
    try:
        return float(score)
    except (TypeError, ValueError, OverflowError):
        raise Mistake('score, margin and agreement must be numbers') from None
