"""
clean.py --audit opens this file, to let you look at your data. It writes audit.md, with documents
that passed all rules and documents that were dropped for each reason, and the data card in
report.md, which says what the corpus is made of.

    python clean.py --source=FOLDER --audit=20

    card([{'text': 'x = 1\\n', 'path': 'a.py'}], [6], mode_of)['genres']    # {'code': 1.0}

Every rule also drops good documents, so read what it dropped. A model shares the defects of its
data: BookCorpus is heavy with romance (arXiv:2105.05241), WebText reads like a blog, C4's word list
removed texts of minorities.
"""
import collections, functools
import numpy as np
from dedup import hash64, jaccard, shingles
from extras.text import text_quality


# --- samples --------------------------------------------------------------------------------------
def watched(stages, n):
    """Return stages, {name: check(document, stats)}, that also keep samples in the stats: for each
    reason n of the documents that are dropped, and n of those that pass all stages. A dropped
    document never reaches the last stage, which hides personal data, so they are hidden here."""
    hide = stages.get('personal data', lambda document, stats: None)

    def watch(check, is_last, document, stats):
        reason = check(document, stats)
        if reason:
            hide(document, collections.defaultdict(collections.Counter))
        if reason or is_last:
            sample(stats, reason or 'passed all rules', document, n)
        return reason

    return {name: functools.partial(watch, check, name == [*stages][-1])
            for name, check in stages.items()}


def sample(stats, reason, document, n, note=''):
    """Add a document to the samples of a reason. The n with the lowest hashes stay: a random choice
    that is the same in every run."""
    samples = stats[f'sample of {reason}']
    text = document['text'][:2000]
    digest = hash64(text.encode('utf-8', 'surrogatepass'))
    path = document['path'].replace('\n', ' ')
    samples[f'{digest:020} {path}\n\n````\n{text}\n````\n{note}'] = 1
    for one in sorted(samples)[n:]:
        del samples[one]


def write(folder, stats, duplicates, kept_for, document, n):
    """Write FOLDER/audit.md: the samples, which leave the stats, and n duplicates of each kind next
    to the documents that are kept in their place. duplicates: {reason: numbers of documents};
    kept_for[i]: the number of what is kept in place of i; document(i) reads one."""
    for reason, numbers in duplicates.items():
        for i in np.random.default_rng(0).permutation(numbers)[:n]:
            gone, kept = document(i), document(kept_for[i])
            alike = jaccard(*(shingles(one['text'].encode('utf-8', 'surrogatepass'))
                              for one in (gone, kept)))
            sample(stats, reason, gone, n, f'\nkept, {alike:.2f} alike: {kept["path"]}\n\n'
                   f'````\n{kept["text"][:2000]}\n````\n')
    chapters = []
    for title in sorted(title for title in stats if title.startswith('sample of ')):
        texts = [f'## {one[21:]}' for one in sorted(stats.pop(title))[:n]]      # without the hash
        chapters.append('\n'.join([f'# {title.removeprefix("sample of ")}', *texts]))
    (folder / 'audit.md').write_text('\n'.join(chapters), 'utf-8', 'backslashreplace')


# --- the card -------------------------------------------------------------------------------------
# what a model will be like if this is most of its corpus
SKEW = {'languages': '{:.0%} of the prose: {}; a model will hardly write any other language',
        'genres': '{:.0%} of the bytes: {}; a model will write this kind of text, '
                  'whatever it is asked for'}


def card(documents, sizes, mode_of):
    """Return the card: {'languages': {'en': 0.667, 'de': 0.333}, ...}, as parts of the bytes.
    documents: some, drawn evenly; sizes: the bytes of each; mode_of(text, path): 'code', 'other
    code' or 'prose', which are the genres."""
    counts = {name: collections.Counter() for name in ('languages', 'genres', 'licenses')}
    for document, n_bytes in zip(documents, sizes):
        mode = mode_of(document['text'], document['path'])
        counts['genres'][mode] += n_bytes
        counts['licenses'][document.get('license', 'unknown')] += n_bytes
        if mode == 'prose':
            counts['languages'][text_quality.language_of(document['text'])] += n_bytes
    parts = {name: {item: round(n / counter.total(), 3) for item, n in counter.most_common()}
             for name, counter in counts.items()}

    skew = [SKEW[name].format(part, item) for name in SKEW
             for item, part in parts[name].items() if part >= 0.8 and item != 'unknown']
    return {**parts, 'skew': '; '.join(skew)}
