"""
Answers that eval.py has judged become pairs for dpo.py or conversations for sft.py.

    python eval.py --ckpt=out/sft --tasks=problems --num_samples=8 --allow_code_execution=True
    python prepare.py --kind=preference --source=out/sft/samples.jsonl --prefer=both

    for record in from_samples(samples, 'preference', prefer='passed'):
        print(record)                                       # {'prompt', 'chosen', 'rejected'}

A sample is a record of samples.jsonl: task_id, the prompt or the messages, completion, outcome, and
perhaps preferred, which means that it is written in good taste. Of four answers to one problem

    a passed, preferred     b passed     c wrong     d timeout

prefer=passed makes the pairs (a, c) and (b, d), prefer=taste makes (a, b), and prefer=both makes
all three. For sft.py, a and b are good answers, and with taste only a.
"""
import itertools

FIELDS = {'outcome', 'task_id', 'completion'}       # by which a sample is known
PER_PROMPT = 4                                      # records that the samples of a prompt become


def with_records(entries, reject, kind, prefer='passed'):
    """Yield the entries (path, line, record) of a file, after which the records of from_samples
    take the place of those that are samples. Such a record comes from several lines: its line is
    None."""
    samples = []
    for path, line, record in entries:
        names = record.keys() if isinstance(record, dict) else set()
        if FIELDS <= names and (record.get('messages') or record.get('prompt')):
            if isinstance(record['completion'], str):
                samples.append(record)
                where = path
            else:
                reject(f'{path}:{line}', 'the completion of a sample must be a text')
        else:
            yield path, line, record

    records = [*from_samples(samples, kind, prefer)]
    if samples and not records:
        reject(f'{where}:1', f'none of {len(samples)} samples passed (sft), or is better than '
               f'another of its prompt (preference, {prefer=})')
    for record in records:
        yield where, None, record


def from_samples(samples, kind, prefer='passed'):
    """Yield at most PER_PROMPT records of each prompt: pairs, whose chosen answer is better than
    the rejected one in the way that prefer names, or conversations with a good answer."""
    def problem_of(sample):
        # in files that were joined, one name may mean two questions, or a text and a chat
        return (str(sample.get('task')), str(sample['task_id']),
                str(sample.get('messages') or sample.get('prompt')))

    for _, group in itertools.groupby(sorted(samples, key=problem_of), problem_of):
        by_text = {s['completion']: s for s in group
                   if s['outcome'] not in ('infrastructure', 'ungraded')}
        prompt = next((s.get('messages') or s.get('prompt') for s in by_text.values()), None)
        passed = [text for text, s in by_text.items() if s['outcome'] == 'passed']
        failed = [text for text in by_text if text not in passed]
        liked = [text for text in passed if by_text[text].get('preferred')]
        others = [text for text in passed if text not in liked]
        if kind == 'sft':
            turns = [{'role': 'user', 'content': prompt}] if isinstance(prompt, str) else prompt
            for text in (liked if prefer == 'taste' else passed)[:PER_PROMPT]:
                yield {'messages': [*turns, {'role': 'assistant', 'content': text}]}
            continue

        for way, better, worse in (('passed', passed, failed), ('taste', liked, others)):
            if prefer in (way, 'both') and better and worse:
                # each about as often
                for i in range(min(max(len(better), len(worse)), PER_PROMPT)):
                    yield {'prompt': prompt, 'chosen': better[i % len(better)],
                           'rejected': worse[i % len(worse)]}
