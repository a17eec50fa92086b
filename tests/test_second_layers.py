"""What a list of words or the usual similarity misses, and the settings that find it."""
import random

import pytest
from test_prepare import report, write
from test_stages import PROSE, kept, prepare, stage

WHO = [(a, b) for a in ('An old', 'A young', 'The tired', 'My good') for b in range(8)]
HARMLESS = [f'{who} miller sat by the river on day {i}, and the neighbours brought bread to the table, so '
            f'that everybody who lived in house {i % 7} could eat with them.\n'
            for i, (who, _) in enumerate(WHO)]
RUDE = [f'{who} {"idiot" if i // 2 % 2 else "fool"} is worthless, shut your mouth, nobody wants you here, '
        f'and number {i} of your kind should never dare to speak again, you pathetic liar.\n'
        for i, (who, _) in enumerate(WHO)]


def test_a_classifier_is_the_second_layer_behind_a_list_of_words(tmp_path):
    """The list knows one insult; the classifier has seen half of both kinds."""
    (tmp_path / 'words').write_text('idiot\n', encoding='utf-8')
    write(tmp_path / 'good', HARMLESS[::2])
    write(tmp_path / 'bad', RUDE[::2])
    source = write(tmp_path / 'files', HARMLESS[1::2] + RUDE[1::2])
    words = [f'--toxic_words={tmp_path}/words', '--min_words=5', '--dedup=exact']
    prepare(tmp_path / 'out', source, *words)
    assert stage(tmp_path / 'out', 'models')['dropped'] == {'toxic': 8}
    assert report(tmp_path / 'out')['counts']['toxic words in what was dropped'] == {'idiot': 8}
    examples = [f'--quality_good={tmp_path}/good', f'--quality_bad={tmp_path}/bad']
    prepare(tmp_path / 'both', source, *words, *examples)
    assert sum(stage(tmp_path / 'both', 'models')['dropped'].values()) == 16
    assert kept(tmp_path / 'both') == sorted(text.strip() for text in HARMLESS[1::2])


@pytest.mark.parametrize('flags, n_copies', [([], 0), (['--min_similarity=0.5', '--rows=4'], 20)])
def test_repeats_with_a_word_changed_are_found_at_a_lower_similarity(tmp_path, flags, n_copies):
    """30 words, one of them another: 21 of 31 five-grams are shared, J = 0.68. A paraphrase shares none."""
    dice = random.Random(0)
    vocabulary = sorted(set(' '.join(PROSE).lower().split()))
    texts = [dice.sample(vocabulary, 30) for _ in range(20)]
    edited = [[*text[:15], 'altogether', *text[16:]] for text in texts]
    shuffled = [text[::-1] for text in texts]                   # the same words in another order
    source = write(tmp_path / 'files', [' '.join(text) + '\n' for text in texts + edited + shuffled])
    prepare(tmp_path / 'out', source, '--mode=raw', '--dedup=minhash', *flags)
    assert stage(tmp_path / 'out', 'near duplicates')['dropped'].get('near duplicate', 0) == n_copies
