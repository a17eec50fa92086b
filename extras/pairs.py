"""
Pairs for dpo.py: two answers to one prompt, of which people or a judge like one better. For
--loss_type=kto, single answers with a thumb up or down.

    python prepare.py --kind=preference --source=pairs.jsonl --min_margin=0.5 --out_dir=data/pairs

    fields_of({'prompt': 'Hi!', 'chosen': 'Hey.', 'rejected': 'Go!', 'margin': 2})
        # {'texts': ['Hi!', 'Hey.', 'Go!'], 'roles': ['user', 'chosen', 'rejected'], 'margin': 2.0}
    fields_of({'prompt': 'Hi!', 'completion': 'Go!', 'label': 0})
        # {'texts': ['Hi!', 'Go!'], 'roles': ['user', 'bad']}

The prompt may be messages, and an answer may be a whole conversation that has the prompt in it.
Two pairs may differ in the one word that they teach, so near-copies of pairs stay.
"""
import math
from extras.messages import find, messages_of

SCORES = 'margin', 'agreement'      # score of chosen - score of rejected; fraction of annotators


def fields_of(record):
    """Return the texts and roles of a record, and its margin and agreement, if it has them."""
    is_kto = 'label' in record and 'chosen' not in record
    names = ['completion'] if is_kto else ['chosen', 'rejected']
    roles = [{0: 'bad', 1: 'good'}[record['label']]] if is_kto else names
    talks = [conversation_of(record, record[name]) for name in names]
    prompt = talks[0][:-1]
    if prompt != talks[-1][:-1]:
        raise ValueError('chosen and rejected answer different prompts')
    if all(m['role'] == 'system' for m in prompt):
        raise ValueError('a preference needs a question and an answer')

    better, worse = (find(record, f'score of {name}') for name in ('chosen', 'rejected'))
    scores = {name: record.get(name) for name in SCORES}
    if scores['margin'] is None and None not in (better, worse):
        scores['margin'] = float(better) - float(worse)
    scores = {name: float(value) for name, value in scores.items() if value is not None}
    if not all(map(math.isfinite, scores.values())):
        raise ValueError('scores, margin and agreement must be numbers')
    return {'texts': [m['content'] for m in prompt] + [talk[-1]['content'] for talk in talks],
            'roles': [m['role'] for m in prompt] + roles, **scores}


def conversation_of(record, answer):
    """Return the messages of a prompt and an answer, which may have the prompt in it."""
    prompt = find(record, 'question') or []
    if isinstance(prompt, str):
        prompt = [{'role': 'user', 'content': prompt}]
    if isinstance(answer, str):
        answer = {'role': 'assistant', 'content': answer}
    turns = answer if isinstance(answer, list) else [answer]
    if len(turns) == 1:
        turns = prompt + turns
    return messages_of({'messages': turns, 'system': record.get('system')})


def to_record(document):
    """Return {'prompt', 'chosen', 'rejected'} or {'prompt', 'completion', 'label'} of a document,
    and its margin and agreement."""
    texts, roles = document['texts'], document['roles']
    scores = {name: document[name] for name in SCORES if name in document}
    if roles[-1] == 'rejected':
        n = 2
        answers = {'chosen': texts[-2], 'rejected': texts[-1]}
    else:
        n = 1
        answers = {'completion': texts[-1], 'label': roles[-1] == 'good'}
    messages = [{'role': role, 'content': text} for role, text in zip(roles[:-n], texts[:-n])]
    return {'prompt': texts[0] if len(messages) == 1 else messages, **answers, **scores}


def reason_of(document, min_margin=0.0, min_agreement=0.0):
    """Return why a pair is dropped, or None. One without margin or agreement stays."""
    *_, better, worse = map(str.strip, document['texts'])
    if document['roles'][-1] != 'rejected':             # for kto there is one answer
        return None if worse else 'empty answer'
    if not better or not worse:
        return 'empty answer'
    if better == worse:
        return 'equal answers'
    if document.get('margin', math.inf) < min_margin:
        return 'small margin'
    if document.get('agreement', math.inf) < min_agreement:
        return 'little agreement'
