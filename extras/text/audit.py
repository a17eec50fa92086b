"""
clean.py --audit shows you samples of your data. It writes audit.md, with documents that passed all
rules and documents that were dropped for each reason, and a data card in report.md: the languages,
genres and licenses of the corpus.

    python clean.py --source=FOLDER --audit=20

    card([{'text': 'x = 1\\n', 'path': 'a.py'}], [6], mode_of)['genres']    # {'code': 1.0}

Every rule also drops good documents, so read what each rule dropped. A model has the biases of its
data: a large part of BookCorpus is romance (arXiv:2105.05241), WebText reads like a blog, C4's word
list removed texts of minorities.
"""
import collections, functools
import numpy as np
from dedup import hash64, jaccard, shingles
from extras.text import text_quality


# --- samples --------------------------------------------------------------------------------------
def with_samples(stages, n):
    """Return stages, {name: check(document, stats)}, that also keep samples in stats: n documents
    dropped for each reason, and n documents that passed all stages. Personal data in dropped
    documents are masked here, because these documents don't reach the stage that masks them."""
    hide = stages.get('personal data', lambda document, stats: None)

    def sampled(check, is_last, document, stats):
        reason = check(document, stats)
        if reason:
            hide(document, collections.defaultdict(collections.Counter))
        if reason or is_last:
            sample(stats, reason or 'passed all rules', document, n)
        return reason

    return {name: functools.partial(sampled, check, name == [*stages][-1])
            for name, check in stages.items()}


def sample(stats, reason, document, n, note=''):
    """Add a document to the samples of a reason. Keep the n documents with the lowest hashes: a
    random sample that is the same in every run."""
    samples = stats[f'sample of {reason}']
    text = document['text'][:2000]
    digest = hash64(text.encode('utf-8', 'surrogatepass'))
    path = document['path'].replace('\n', ' ')
    samples[f'{digest:020} {path}\n\n````\n{text}\n````\n{note}'] = 1
    for entry in sorted(samples)[n:]:
        del samples[entry]


def write(folder, stats, duplicates, parent, document, n):
    """Write FOLDER/audit.md: the samples, which are removed from stats, and n duplicates for each
    reason, next to the documents kept in their place. duplicates: {reason: indices of documents};
    parent[i]: the index of the document kept in place of i; document(i) reads document i."""
    for reason, numbers in duplicates.items():
        for i in np.random.default_rng(0).permutation(numbers)[:n]:
            dropped, kept = document(i), document(parent[i])
            similarity = jaccard(*(shingles(one['text'].encode('utf-8', 'surrogatepass'))
                                   for one in (dropped, kept)))
            sample(stats, reason, dropped, n, f'\nkept, {similarity:.2f} alike: {kept["path"]}\n\n'
                   f'````\n{kept["text"][:2000]}\n````\n')
    chapters = []
    for title in sorted(title for title in stats if title.startswith('sample of ')):
        # without the hash
        texts = [f'## {entry[21:]}' for entry in sorted(stats.pop(title))[:n]]
        chapters.append('\n'.join([f'# {title.removeprefix("sample of ")}', *texts]))
    (folder / 'audit.md').write_text('\n'.join(chapters), 'utf-8', 'backslashreplace')


# --- the card -------------------------------------------------------------------------------------
# warnings, if one language or genre is most of the corpus
SKEW = {'languages': '{:.0%} of the prose: {}; a model will hardly write any other language',
        'genres': '{:.0%} of the bytes: {}; a model will write this kind of text, '
                  'whatever it is asked for'}


def card(documents, sizes, mode_of):
    """Return the data card: {'languages': {'en': 0.667, 'de': 0.333}, ...}, fractions of the bytes.
    documents: an even sample; sizes: the bytes of each; mode_of(text, path) returns the genre:
    'code', 'other code' or 'prose'."""
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
