"""
Look at your data: audit.md shows some documents that passed all rules, and some that were dropped
for each reason. The data card in report.md says what the corpus is made of, and what a model makes
of it.

    python clean.py --source=FOLDER --audit=20

    genre('ROMEO:\\nBut soft!\\n\\nJULIET:\\nAy me!\\n')     # 'dialogue'

Every rule also drops good documents, so read what it dropped. A model shares the defects of its
data: BookCorpus is heavy with romance (arXiv:2105.05241), WebText reads like a blog, C4's word list
removed texts of minorities.
"""
import collections, functools, re
import numpy as np
from extras import text_quality


# --- samples --------------------------------------------------------------------------------------
def watched(stages, n, hash64):
    """Return the same stages, {name: check(document, notes)}, but the notes also keep samples: n of
    the documents that are dropped for each reason, and n of those that pass all stages. What a rule
    drops has not come to the last stage, which hides personal data, so it is hidden here."""
    hide = stages.get('personal data', lambda document, notes: None)

    def watch(check, is_last, document, notes):
        reason = check(document, notes)
        if reason:
            hide(document, collections.defaultdict(collections.Counter))
        if reason or is_last:
            sample(notes, reason or 'passed all rules', document, n, hash64)
        return reason

    return {name: functools.partial(watch, check, name == [*stages][-1])
            for name, check in stages.items()}


def sample(notes, reason, document, n, hash64):
    """Add a document to the samples of a reason. Those n stay whose hashes are lowest: a random
    choice, but the same in every run."""
    samples = notes[f'sample of {reason}']
    text = document['text'][:2000]
    digest = hash64(text.encode('utf-8', 'surrogatepass'))
    samples[f'{digest:020} {document["path"]}'.replace('\n', ' ') + '\n' + text] = 1
    for one in sorted(samples)[n:]:
        del samples[one]


def write(folder, notes, copied, document, n, hash64):
    """Write FOLDER/audit.md: samples of all documents, also of copies, {reason: their numbers}.
    document(i) reads one. The samples leave the notes."""
    for reason, numbers in copied.items():
        for i in numbers:
            sample(notes, reason, document(i), n, hash64)
    chapters = []
    for title in sorted(title for title in notes if title.startswith('sample of ')):
        texts = []
        for one in sorted(notes.pop(title))[:n]:
            line, _, text = one.partition('\n')
            texts.append(f'## {line[21:]}\n\n````\n{text}\n````\n')     # without the hash
        chapters.append(f'# {title.removeprefix("sample of ")}\n' + '\n'.join(texts))
    (folder / 'audit.md').write_text('\n'.join(chapters), 'utf-8', 'backslashreplace')


# --- the card -------------------------------------------------------------------------------------
# a genre, the beginning of its lines, and more than how many of them have it
GENRES = (('questions', re.compile(r'(?:Q|Question|User|Human)\b.{0,20}:'), 1 / 20),
          ('dialogue', re.compile(r"[A-Z][\w.' -]{0,30}:(?:\s|$)"), 1 / 8),
          ('list', re.compile(r'\s*(?:[-*•|]|\d+[.)])\s'), 1 / 2))
# what most of a corpus makes of a model
SKEW = {'languages': '{:.0%} of the prose: {}; a model will hardly write any other language',
        'genres': '{:.0%} of the bytes: {}; a model will write this kind of text, '
                  'whatever it is asked for',
        'sources': '{:.0%} of the bytes: {}; the model will sound like this source'}


def spread(weights, n):
    """Return the numbers of n documents, evenly spread over the weights of all of them, such as the
    tokens that a run reads of each: spread([100, 300, 0], 4) is [0, 1, 1, 1]."""
    ends = np.cumsum(weights)
    return np.searchsorted(ends, (np.arange(n) + 0.5) / n * ends[-1], 'right')


def genre(text):
    """Return the kind of a prose text, by its lines: questions, dialogue, list or running text."""
    lines = [line for line in text[:20_000].split('\n') if line.strip()]
    for name, beginning, fraction in GENRES:
        if len([line for line in lines if beginning.match(line)]) > fraction * len(lines):
            return name
    return 'running text'


def card(documents, sources, mode_of):
    """Return the card: {'languages': {'en': 0.667, 'de': 0.333}, ...}. documents: evenly spread
    over their bytes; sources: {name: {'path', 'bytes'}}; mode_of(text, path):
    'code', 'other code', 'prose' ..."""
    counts = {name: collections.Counter() for name in ('languages', 'genres', 'licenses')}
    for document in documents:
        text = document['text']
        # a table of codes in a .py file is code, too
        is_code = mode_of(text, document['path']) != 'prose'
        counts['genres']['code' if is_code else genre(text)] += 1
        counts['licenses'][document.get('license', 'unknown')] += 1
        if not is_code:
            counts['languages'][text_quality.language_of(text)] += 1
    if len(sources) > 1:
        counts['sources'] = collections.Counter(
            {name: s['bytes'] for name, s in sources.items()})
    parts = {name: {item: round(n / counter.total(), 3) for item, n in counter.most_common()}
             for name, counter in counts.items()}

    skew = [SKEW[name].format(part, item) for name in SKEW if name in parts
             for item, part in parts[name].items() if part >= 0.8 and item != 'unknown']
    unknown = parts['licenses'].get('unknown', 0)
    if unknown >= 0.5:
        skew.append(f'{unknown:.0%} of the bytes name no license: find out whether you '
                    'may use them')
    return {**parts, 'skew': '; '.join(skew)}
