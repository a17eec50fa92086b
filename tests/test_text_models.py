"""Texts judged by their bytes: bits as plain dictionaries count them, good from bad, and languages."""
import collections
import math
import random

import numpy as np
import pytest
from preparing import FOX

from parts.prepare.text_models import WORDS, Classifier, NgramModel, is_foreign, language_of


# --- bits per byte ------------------------------------------------------------------------------------------
def naive_bits(reference, text, order, a):
    """The same mean from counts in a dictionary of byte strings, one byte after the other."""
    counts = collections.Counter()
    for document in reference:
        data = document.encode('utf-8', 'surrogatepass')
        counts[b''] += len(data)
        counts.update(data[i:i + n] for n in range(1, order + 1) for i in range(len(data) - n + 1))

    data = text.encode('utf-8', 'surrogatepass')
    bits = 0.0
    for i in range(len(data)):
        p = 1 / 256
        for n in range(1, min(order, i + 1) + 1):
            gram = data[i - n + 1:i + 1]
            p = (counts[gram] + a * p) / (counts[gram[:-1]] + a)
        bits -= math.log2(p)
    return bits / len(data) if data else 0.0


TEXTS = ['', 'a', 'ab ab', 'naïve 漢字\n' * 3, 'e\ud800e', 'one two one three one two', FOX * 9]


def test_bits_per_byte_are_those_of_plain_dictionaries():
    for order, a in ((1, 4), (3, 0.1), (6, 50)):
        for reference in TEXTS[4:], TEXTS[1:2]:
            model = NgramModel(reference, order)
            for text in TEXTS:
                naive = naive_bits(reference, text, order, a)
                assert model.bits_per_byte(text, a) == pytest.approx(naive, abs=1e-6), (text, order)


# --- good or bad --------------------------------------------------------------------------------------------
def test_the_classifier_tells_code_from_shuffled_code_it_has_not_seen(python_files):
    rng = random.Random(0)
    code = ''.join(path.read_text(encoding='utf-8') for path in sorted(python_files.rglob('*.py')))
    pieces = [code[i:i + 500] for i in range(0, 500 * 800, 500)]
    rng.shuffle(pieces)
    good = [(piece, 'good') for piece in pieces]
    bad = [(''.join(rng.sample(piece, len(piece))), 'bad') for piece in pieces]
    for n_good, n_bad, least in ((600, 600, 0.99), (600, 12, 0.9)):         # one is rarer
        model = Classifier.train(good[:n_good] + bad[:n_bad])
        for examples in (good[600:], bad[600:]):
            right = [model.predict(text)[label] > 0.5 for text, label in examples]
            assert sum(right) >= least * len(right), (n_good, n_bad)
    assert np.array_equal(model.weights, Classifier.train(good[:600] + bad[:12]).weights)


# --- languages: the same sentence, written for this test and not used to choose anything --------------------
SENTENCES = {
    'ar': 'لم نذهب إلى الجبال من قبل، لكن أصدقاءنا أخبرونا كم هي جميلة في الشتاء.',
    'de': 'Wir waren noch nie in den Bergen, aber unsere Freunde sagen, dass es im Winter dort schön ist.',
    'en': 'They have never been to the mountains, but their friends told them how beautiful it is in winter.',
    'es': 'Nunca hemos estado en las montañas, pero nuestros amigos nos contaron lo bonito que es todo.',
    'fr': "Nous ne sommes jamais allés à la montagne, mais nos amis disent que c'est très beau en hiver.",
    'hi': 'हम कभी पहाड़ों पर नहीं गए, लेकिन हमारे दोस्तों ने बताया कि सर्दियों में वहाँ कितना सुंदर होता है।',
    'id': 'Kami belum pernah pergi ke gunung, tetapi teman-teman kami bercerita betapa indahnya di sana.',
    'it': "Non siamo mai stati in montagna, ma i nostri amici ci hanno raccontato quanto è bello d'inverno.",
    'ja': '私たちは山に行ったことがありませんが、友達は冬がとても美しいと言っていました。',
    'ko': '우리는 산에 가 본 적이 없지만 친구들은 겨울에 그곳이 아주 아름답다고 말했다.',
    'nl': 'Wij zijn nog nooit in de bergen geweest, maar onze vrienden vertelden hoe mooi het daar is.',
    'pl': 'Nigdy nie byliśmy w górach, ale nasi przyjaciele opowiadali nam, jak tam jest pięknie zimą.',
    'pt': 'Nunca estivemos nas montanhas, mas os nossos amigos contaram-nos como tudo é bonito no inverno.',
    'ru': 'Мы никогда не были в горах, но наши друзья рассказывали нам, как там красиво зимой.',
    'sv': 'Vi har aldrig varit i bergen, men våra vänner berättade för oss hur vackert det är på vintern.',
    'tr': 'Dağlara hiç gitmedik ama arkadaşlarımız bize kışın oranın ne kadar güzel olduğunu anlattı.',
    'vi': 'Chúng tôi chưa bao giờ lên núi, nhưng bạn bè đã kể cho chúng tôi nghe ở đó đẹp như thế nào.',
    'zh': '我们从来没有去过山里，但是朋友们告诉我们那里的冬天非常美丽。'}


def test_sentences_of_all_languages_are_recognised_and_no_word_is_listed_twice():
    wrong = {language: language_of(text) for language, text in SENTENCES.items()
             if language_of(text) != language}
    assert SENTENCES.keys() == WORDS.keys() and not wrong

    for language, text in SENTENCES.items():
        assert not is_foreign(text, {'en', language})
        assert is_foreign(text, WORDS.keys() - {language}), language
    for words in map(str.split, WORDS.values()):
        assert len(set(words)) == len(words) >= 10 and words == [w.lower() for w in words], words


def test_a_text_of_too_few_letters_or_of_no_language_in_the_list_is_of_an_unknown_one():
    tables = ' '.join(f"{i}: '\\u{i:04x}', # LATIN SMALL LETTER" for i in range(300))
    nothing = ['', 'ok', 'buy now cheap pills ' * 30, '@#$% ' * 30]
    for text in [*nothing, tables]:
        assert language_of(text) == 'unknown', text[:40]
    for text in nothing:                # none is dropped for its language, whatever is wanted
        assert not any(is_foreign(text, {language}) for language in WORDS), text
    czech = 'Nikdy jsme nebyli v horách, ale přátelé nám vyprávěli, jak je tam v zimě krásně.'
    assert is_foreign(czech, {'en'}) and not is_foreign('We went there once, and saw it.', {'en', 'de'})
