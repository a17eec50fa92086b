"""
Toxic words: drop texts that have many words of a list.

    python prepare.py --source=FOLDER --toxic_words=words.txt --max_toxic=2

    toxic_words('Damn! A damned classic.', {'damn', 'ass'})         # {'damn': 1}

A list does not know the context: a doctor's page goes as well. The report counts the words of what
was dropped, so that you see what your list costs.
"""
import collections, re
from extras.records import lines_of


def stage(path, max_toxic):
    """Return a stage of prepare.py that drops texts with more than max_toxic words of a list in
    1,000; with 0, not one may be in it. path: a file with a word on each line; # begins a
    comment."""
    listed = lines_of(path)

    def check_words(document, notes):
        text = '\n'.join(document['texts'])
        hits = toxic_words(text, listed)
        if hits.total() * 1000 > max_toxic * len(text.split()):
            notes['toxic words in what was dropped'].update(hits)
            return 'toxic'

    return check_words


def toxic_words(text, listed):
    """Return {word: count} of the listed words in a text. don't and well-known are single words."""
    words = re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", text.lower())
    return collections.Counter(word for word in words if word in listed)
