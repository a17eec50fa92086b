"""
Print the places of README and docs that are hard to read. They are warnings: nothing fails.

    python tests/prose.py       # docs/use.md:61: 4 numbers in 31 words
"""
import pathlib, re

ROOT = pathlib.Path(__file__).resolve().parents[1]
TEACH_BY_NUMBERS = 'tour.md', 'exercises.md', 'myths.md', 'numbers.md', 'log.md'
LOG, MACHINE = r'\(docs/log\.md,', r'\([A-E], \d|\bon [B-E]\b'
COMMIT = r'\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{7}\b'
NUMBER = r'(?<![\w.-])(?!\d\. )\d[\d.,]*'        # 1. begins an item of a list


def lines_of(match):
    return '\n' * match[0].count('\n')


for path in [ROOT / 'README.md', *sorted(ROOT.glob('docs/*.md'))]:
    text = re.sub(r'```.*?```', lines_of, path.read_text(encoding='utf-8'), flags=re.S)     # without code
    text = re.sub(r'\]\([^)]*\)', ']', re.sub(r'`[^`\n]*`', 'code', text))      # nor where links lead
    found = [(m.start(), f'a cell of {len(m[0])} characters')
             for m in re.finditer(r'(?<=\|)[^|\n]{121,}(?=\|)', text)]
    if path.name not in ('numbers.md', 'log.md'):
        found += [(m.start(), f'{m[0]} helps no reader here')
                  for m in re.finditer('|'.join([LOG, COMMIT, MACHINE]), text)]
    if path.name not in TEACH_BY_NUMBERS:       # running text: no table, heading or picture
        counts = [(m.start(), len(re.findall(NUMBER, m[0])), len(m[0].split()))
                  for m in re.finditer(r'(?:^[^|#!<\n].*\n?)+', text, re.M)]
        found += [(at, f'{n} numbers in {words} words') for at, n, words in counts
                  if n > max(3, 0.06 * words)]
    for at, warning in sorted(found):
        print(f'{path.relative_to(ROOT)}:{text.count(chr(10), 0, at) + 1}: {warning}')
