"""
Messages: the usual forms of conversations become one.

    messages_of({'instruction': 'Add 1 and 2.', 'input': '', 'output': '3'})
        # [{'role': 'user', 'content': 'Add 1 and 2.'}, {'role': 'assistant', 'content': '3'}]

    {"messages": [{"role": "user", "content": "Hi!"}, ...]}         also under "conversation"
    {"conversations": [{"from": "human", "value": "Hi!"}, ...]}     ShareGPT, Vicuna
    {"instruction": "Add.", "input": "1 2", "output": "3"}          Alpaca; perhaps a "history"
    {"prompt": "Hi!", "completion": "Hello."}                       or question, response, answer

Each may have a "system", a text.
"""
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


def find(record, name):
    """Return the first value that is not None under the names of a thing in a record, or None."""
    return next((record[key] for key in ALIASES[name] if record.get(key) is not None), None)


def messages_of(record):
    """Return [{'role': 'system' | 'user' | 'assistant' | 'tool', 'content'}] of a record. One in
    another form raises ValueError, LookupError, TypeError or AttributeError."""
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
