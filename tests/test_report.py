"""The funnel and the data card: each loss has its reason, figures add up, shares are those of tokens."""
import re

from preparing import WORDS, dropped, kept, prepare, prose, report, write_records

from parts.prepare import report as pages


def planted():
    """Good documents, and {(stage, reason): rubbish that it must hit}."""
    code = [f'"""{prose(i)}"""\n' + ''.join(f'def {w}(x):\n    y = x + {i}\n    return y\n'
                                            for w in WORDS[i * 9:i * 9 + 9]) for i in range(40)]
    good = [prose(i) for i in range(60)]
    near = [f'{prose(i + 100, 400)}\n' for i in range(3)]
    return good + near + code, {
        ('read', 'empty'): ['', ' ', '\n'],
        ('rules', 'short'): [f'too short {w}' for w in WORDS[:12]],
        ('rules', 'symbols'): [f'{w} ' + '@#$% ' * 30 for w in WORDS[:7]],
        ('rules', 'does not parse'): [text.replace('(x):', '(x:', 1) for text in code[:8]],
        ('rules', 'long line'): [f'{code[1]}# {"long " * 250}\n'],
        ('exact duplicates', 'exact duplicate'): [text.replace('.', '.\n\n') for text in good[:9]],
        ('near duplicates', 'near duplicate'): [f'{text}one more\n' for text in near]}


def test_every_document_is_dropped_for_its_reason_and_the_figures_add_up(tmp_path):
    good, rubbish = planted()
    texts = good + sum(rubbish.values(), [])
    paths = ['x.py' if text.startswith('"') else 'x.txt' for text in texts]
    write_records(tmp_path / 'x.jsonl', [{'text': text, 'path': path} for text, path in zip(texts, paths)])
    out = tmp_path / 'out'
    printed = prepare(out, tmp_path / 'x.jsonl', '--audit=5')
    r = report(out)
    stages = r['stages']
    reasons = {(stage['name'], reason): n for stage in stages for reason, n in stage['dropped'].items()}
    assert reasons == {key: len(texts) for key, texts in rubbish.items()}
    assert stages[0]['docs_in'] == len(texts)
    assert stages[0]['bytes_in'] == sum(len(text.encode()) for text in texts)
    share = f'short: 12 ({12 / (len(texts) - 3):.1%})'          # of what came to this stage
    assert share in printed and share in (out / 'report.md').read_text(encoding='utf-8')
    left = {'docs_in': len(kept(out)), 'bytes_in': sum(r['bytes'].values())}
    for stage, after in zip(stages, [*stages[1:], left]):
        assert stage['docs_in'] - sum(stage['dropped'].values()) == stage['docs_out'] == after['docs_in']
        assert stage['bytes_out'] == after['bytes_in'], stage['name']
    assert left['docs_in'] == len(good) == sum(r['documents'].values())
    assert left['bytes_in'] == sum(len(text.encode()) for text in kept(out))

    audit = (out / 'audit.md').read_text(encoding='utf-8')
    outside = re.sub('````\n.*?\n````\n', '', audit, flags=re.S)        # the headings, not the samples
    samples = {part.split('\n')[0]: part.count('\n## ') for part in re.split('^# ', outside, flags=re.M)[1:]}
    assert samples == {'kept': 5, **{reason: min(5, n) for reason, n in dropped(out).items()}}


# --- the data card ------------------------------------------------------------------------------------------
def test_a_text_has_the_genre_of_its_lines():
    for text, genre in [
            ('ROMEO:\nBut soft!\n\nJULIET:\nAy me!\n', 'dialogue'), ('Q: Why?\nBecause.\n' * 4, 'questions'),
            ('Buy\n- milk\n- bread\n- salt\n', 'list'), (prose(1), 'running text')]:
        assert pages.genre(text) == genre, text


def test_the_card_has_the_shares_of_tokens_and_names_what_dominates():
    sources = {'web': {'path': 'x', 'tokens': 300, 'passes': 3.0},
               'books': {'path': 'shakespeare', 'tokens': 200, 'passes': 0.5}}
    german = '- die alte Mühle stand und ist nicht mit dem Fluss, der in das Tal und zu den Wiesen\n'
    english = '- the old mill is not with the river that was in the valley and on to the meadows\n'
    texts = [('x = 1\nprint(x)\n', 'unknown'), *[(english, 'unknown')] * 8, *[(german, 'mit')] * 4]
    sample = [{'text': text, 'path': 'x', 'licence': licence} for text, licence in texts]
    card = pages.card(sample, sources, 1000)
    skew = '; '.join(card['skew'])
    assert card['languages'] == {'en': 0.667, 'de': 0.333}
    assert card['licences'] == {'unknown': 0.692, 'mit': 0.308}
    assert '90% of the training tokens: web' in skew and '92% of the training tokens: list' in skew
    assert '69% of the training tokens name no licence' in skew and 'books: plays by one author' in skew
    assert card['sources'] == {'web': 0.9, 'books': 0.1} and 'the prose' not in skew
    unknown = [{'text': '17 ' * 99, 'path': 'x', 'licence': 'mit'}]
    assert 'unknown' not in str(pages.card(unknown, {}, 10 ** 9)['skew'])
    assert pages.licence('stdlib', {'licence': 'GPL'}) == 'psf' and pages.licence('x.jsonl', {}) == 'unknown'
    assert card['size'].startswith('1,000 training tokens; a corpus for pretraining has 10,000')
