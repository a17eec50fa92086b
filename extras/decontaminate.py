"""
Benchmarks: drop what shares 13 words in a row with a problem, else a model knows the answers.

    python prepare.py --source=MY_CODE --decontaminate=HumanEval.jsonl.gz,mbpp.jsonl

Any text in a record of such a file counts: questions, solutions, tests. Nothing here finds a
paraphrase. eval.py prints beside its scores which benchmarks were looked for.
"""
import os
import numpy as np
from configurator import Mistake, require

NGRAM = 13                      # words in a row, as for GPT-3 (arXiv:2005.14165)


def stage(paths, read, normalise, words_of, ngrams):
    """Return a stage of prepare.py. paths: files of records, 'a,b'. read(path, reject) yields
    (line, record) of a file; normalise(text, mode) is what happens to a document; ngrams(words, n)
    returns the hash of each n words in a row, uint64 (words - n + 1,)."""
    known = np.zeros(0, np.uint64)
    for path in filter(None, paths.split(',')):
        require(os.path.exists(path), f'{path} does not exist; --decontaminate needs the files of '
                                      'benchmarks')
        errors = []
        records = [record for _, record in read(path, lambda *error: errors.append(error))]
        for place, error in errors[:1]:
            raise Mistake(f"{place} can't be read ({error}); it must be the file of a benchmark")
        grams = [ngrams(words_of(form), NGRAM) for text in strings_in(records)
                 for form in variants(text, normalise)]
        grams = np.concatenate([known[:0], *grams])
        require(len(grams), f'{path} has no text of {NGRAM} words, so it could find nothing')
        known = np.union1d(known, grams)

    def check_benchmarks(document, notes):
        if any(has_one_of(known, ngrams(words_of(text), NGRAM)) for text in document['texts']):
            return 'in a benchmark'

    return check_benchmarks


def about(paths):
    """Return what meta.json says about the benchmarks."""
    return {'problems': [*filter(None, paths.split(','))], 'ngram': NGRAM}


def has_one_of(known, grams):
    """Whether one of these numbers is known. known: sorted, at least one."""
    grams = np.sort(grams)              # in order: the search stays in one corner of the memory
    places = np.searchsorted(known, grams).clip(max=len(known) - 1)
    return bool((known[places] == grams).any())


def strings_in(value):
    """Yield every text in a JSON value, but not the roles in a conversation."""
    if isinstance(value, str):
        yield value
    if isinstance(value, dict):
        value = [inner for key, inner in value.items() if key not in ('role', 'from')]
    if isinstance(value, list):
        for inner in value:
            yield from strings_in(inner)


def variants(text, normalise):
    """Return the forms that a problem may have in a document: as it was published, or as cleaning
    leaves it. Within LaTeX, every text loses its commands."""
    return {text, normalise(text, 'chat'), normalise(text, 'prose'),
            normalise(r'\emph{} ' + text, 'prose')}
