"""
Samples: answers that were run and judged become records to train on.

    for path, line, record, why, size in with_records(entries, 'preference', per_prompt=4, prefer='passed'):
        print(record)                               # {'prompt', 'chosen', 'rejected'}

A sample is a record of eval.py: task_id, the prompt or the messages, completion, outcome, perhaps preferred.

Copy this file alone: it needs the standard library.
"""
import itertools

FIELDS = {'outcome', 'task_id', 'completion'}       # by which a sample is known


def with_records(entries, kind, per_prompt=4, prefer='passed'):
    """The entries (path, line, record, why, size), after which the records of from_samples take the place of
    those that are samples, of one file. Such a record comes from several lines: its line is None."""
    samples = []
    for path, line, record, why, size in entries:
        names = record.keys() if isinstance(record, dict) else set()
        if FIELDS <= names and (record.get('messages') or record.get('prompt')):
            samples.append(record)
            where = path
        else:
            yield path, line, record, why, size

    records = list(from_samples(samples, kind, per_prompt, prefer))
    if samples and not records:
        wanted = 'that passed' if kind == 'sft' else f'that is better than another of its prompt ({prefer=})'
        yield where, None, None, f'none of {len(samples)} samples has an answer {wanted}', 0
    for record in records:
        yield where, None, record, None, 0


def from_samples(samples, kind, per_prompt=4, prefer='passed'):
    """Yield at most per_prompt records of each prompt. kind='preference': pairs; chosen passed, rejected
    failed. prefer='taste': both passed, and only chosen is `preferred`. 'both': so many pairs of each way.
    kind='sft': conversations whose answer passed; with 'taste' it is `preferred`, too."""
    problem_of = lambda sample: (str(sample.get('task')), str(sample['task_id']))
    for _, group in itertools.groupby(sorted(samples, key=problem_of), problem_of):
        by_text = {s['completion']: s for s in group if s['outcome'] != 'infrastructure'}
        prompt = next((s.get('messages') or s.get('prompt') for s in by_text.values()), None)
        passed = [text for text, s in by_text.items() if s['outcome'] == 'passed']
        failed = [text for text in by_text if text not in passed]
        liked = [text for text in passed if by_text[text].get('preferred')]
        others = [text for text in passed if text not in liked]
        if kind == 'sft':
            question = [{'role': 'user', 'content': prompt}] if isinstance(prompt, str) else prompt
            for text in (liked if prefer == 'taste' else passed)[:per_prompt]:
                yield {'messages': [*question, {'role': 'assistant', 'content': text}]}
            continue

        for way, better, worse in (('passed', passed, failed), ('taste', liked, others)):
            if prefer in (way, 'both') and better and worse:
                for i in range(min(max(len(better), len(worse)), per_prompt)):      # each about as often
                    yield {'prompt': prompt, 'chosen': better[i % len(better)],
                           'rejected': worse[i % len(worse)]}
