"""
Forms of conversations and pairs that chats.py doesn't know by itself become those that it knows.

    in_known_form({'system_prompt': 'Be kind.', 'question': 'Hi!', 'answer': 'Hello.'})
    -> {'system': 'Be kind.', 'question': [{'role': 'user', 'content': 'Hi!'}], 'answer': 'Hello.'}

    {"conversation": [{"role": "user", "content": "Hi!"}, ...]}         LMSYS
    {"messages": "[{\\"role\\": \\"user\\", ...}]"}                     JSON as a text, in a table

More columns, and what they add:

    "system_prompt" (OpenOrca), "system_message"        a system message
    "context" (Dolly)                                   below the question, after an empty line
    "history": [["Hi!", "Hello."], ...]                 questions and answers before it
    "score_chosen", "score_rejected" (UltraFeedback)    the margin of a pair

Each of these becomes {"prompt": "Hi!", "chosen": "Hey.", "rejected": "Go!"}

    {"chosen": "\\n\\nHuman: Hi!\\n\\nAssistant: Hey.", "rejected": ...}    whole talks, hh-rlhf
    {"chosen": [{"role": "user", "content": "Hi!"}, ...], "rejected": [...]}

chats.py leaves a record out, and counts it, for which this raises a Mistake.
"""
import contextlib, json, re
from configurator import Mistake, require

QUESTION = 'instruction', 'prompt', 'question', 'query'
PAIR = 'chosen', 'rejected'
NEW_NAMES = {'system_prompt': 'system', 'system_message': 'system', 'conversation': 'messages',
             **{f'{side}_{score}': f'score_{side}'
                for side in PAIR for score in ('score', 'rating')}}


def in_known_form(record):
    """Return a record in a form of chats.py. record: its columns that have a value, by plain
    names."""
    record = {name: from_json(value) for name, value in record.items()}
    for old, new in NEW_NAMES.items():
        is_id = old == 'conversation' and not isinstance(record.get(old), list)
        if old in record and new not in record and not is_id:
            record[new] = record.pop(old)
    if record.keys() >= {'score_chosen', 'score_rejected'} and 'margin' not in record:
        try:
            better, worse = (float(record.pop(f'score_{side}')) for side in PAIR)
        except (TypeError, ValueError, OverflowError):
            raise Mistake('score, margin and agreement must be numbers') from None
        record['margin'] = better - worse
    if not {'messages', 'conversations'} & record.keys():
        with_more_of_the_question(record)
    if record.keys() >= {*PAIR}:
        with_prompt_of_the_answers(record)
    return {name: value for name, value in record.items() if value not in (None, '', [], {})}


def from_json(value):
    """Return messages that a table holds as a text of JSON; any other value as it is."""
    if isinstance(value, str) and re.match(r'\s*\[\s*{\s*"(role|content|from|value)"', value):
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
    record['prompt' if name == 'input' else name] = [
        {'role': role, 'content': text} for pair in history
        for role, text in zip(('user', 'assistant'), pair)] + turns


def with_prompt_of_the_answers(record):
    """Take the prompt out of chosen and rejected, if both are whole talks."""
    talks = [talk_of(talk) if isinstance(talk, str) and re.match(r'\s*Human:', talk) else talk
             for talk in map(record.get, PAIR)]
    if all(isinstance(talk, list) and len(talk) > 1 for talk in talks):
        prompt, other = (talk[:-1] for talk in talks)
        require(prompt == other, 'chosen and rejected answer different prompts')
        record |= {'messages': prompt, 'chosen': talks[0][-1], 'rejected': talks[1][-1]}


def talk_of(text):
    """Return the turns of a talk of hh-rlhf, '\\n\\nHuman: Hi!\\n\\nAssistant: Hey.'"""
    parts = re.split(r'(?:^|\n\n)(Human|Assistant):', text.lstrip())[1:]
    return [{'role': {'Human': 'user'}.get(name, 'assistant'), 'content': words.strip()}
            for name, words in zip(parts[::2], parts[1::2])]
