"""The classifier: learns what is good from examples, and languages from nothing but their frequent words."""
import math
import random

import numpy as np
import pytest

from parts.prepare.text_models import WORDS, Classifier


def shuffled(text, rng):
    letters = list(text)
    rng.shuffle(letters)
    return ''.join(letters)


@pytest.fixture(scope='module')
def quality(python_files):
    """Pieces of real code, and the same with their characters shuffled: (examples to learn, to test)."""
    rng = random.Random(0)
    code = ''.join(path.read_text(encoding='utf-8') for path in sorted(python_files.rglob('*.py')))
    pieces = [code[i:i + 500] for i in range(0, 500 * 800, 500)]
    rng.shuffle(pieces)
    examples = [(piece, 'good') for piece in pieces] + [(shuffled(piece, rng), 'bad') for piece in pieces]
    return examples[:600] + examples[800:1400], examples[600:800] + examples[1400:]


def accuracy(model, examples, label=None):
    right = [max(found, key=found.get) == y for text, y in examples if label in (None, y)
             for found in [model.predict(text)]]
    return sum(right) / len(right)


def test_the_classifier_tells_code_from_shuffled_code_it_has_not_seen(quality):
    train, test = quality
    model = Classifier.train(train)
    assert accuracy(model, test) >= 0.99
    again = Classifier.train(iter(train))
    assert np.array_equal(model.weights, again.weights) and model.labels == again.labels == ['bad', 'good']


@pytest.mark.parametrize('rare', ['good', 'bad'])
def test_a_label_that_is_fifty_times_rarer_is_still_found(quality, rare):
    train, test = quality
    few = [example for example in train if example[1] == rare][:12]
    model = Classifier.train([example for example in train if example[1] != rare] + few)
    assert min(accuracy(model, test, label) for label in ('good', 'bad')) >= 0.9


def test_probabilities_are_the_softmax_of_the_scores(quality):
    examples = quality[0][:3] + quality[0][-3:] + [('', 'none'), ('漢字', 'none')]
    model = Classifier.train(examples, epochs=3, buckets=1 << 12)
    for text in [*(text for text, _ in quality[1][::40]), '', '\ud800', '漢' * 9000]:
        found = model.predict(text)
        assert list(found) == ['bad', 'good', 'none'] and sum(found.values()) == pytest.approx(1, abs=1e-6)
        ids, values = Classifier.features(text, 1 << 12)
        assert len(set(ids.tolist())) == len(ids) and (values ** 2).sum() == pytest.approx(1)
        powers = [math.exp(sum(float(row[i]) * v for i, v in zip(ids, values))) for row in model.weights]
        assert list(found.values()) == pytest.approx([p / sum(powers) for p in powers], rel=1e-4)


def test_a_step_is_the_gradient_of_the_log_loss():
    pair = [('aaaa', 'x'), ('bbbb', 'y')]
    model, untrained = (Classifier.train(pair, 1, rate, buckets=1 << 12) for rate in (1e-3, 0))
    assert untrained.predict('aaaa') == {'x': 0.5, 'y': 0.5}
    (ids, values), other = Classifier.features('aaaa', 1 << 12), Classifier.features('bbbb', 1 << 12)[0]
    own = ~np.isin(ids, other)                      # this text's alone: 0.5 too little of x, too much of y
    assert model.weights[:, ids[own]] == pytest.approx(np.outer([1, -1], 0.5e-3 * values[own]), rel=1e-3)


def test_one_label_is_refused():
    for examples in ([], [('a', 'good'), ('b', 'good')]):
        with pytest.raises(ValueError, match='two labels'):
            Classifier.train(examples)


# the same sentence, written for this test and not used to choose anything
SENTENCES = {
    'en': 'They have never been to the mountains, but their friends told them how beautiful it is in winter.',
    'de': 'Wir waren noch nie in den Bergen, aber unsere Freunde sagen, dass es im Winter dort schön ist.',
    'fr': "Nous ne sommes jamais allés à la montagne, mais nos amis disent que c'est très beau en hiver.",
    'es': 'Nunca hemos estado en las montañas, pero nuestros amigos nos contaron lo bonito que es todo.',
    'it': "Non siamo mai stati in montagna, ma i nostri amici ci hanno raccontato quanto è bello d'inverno.",
    'pt': 'Nunca estivemos nas montanhas, mas os nossos amigos contaram-nos como tudo é bonito no inverno.',
    'nl': 'Wij zijn nog nooit in de bergen geweest, maar onze vrienden vertelden hoe mooi het daar is.',
    'sv': 'Vi har aldrig varit i bergen, men våra vänner berättade för oss hur vackert det är på vintern.',
    'da': 'Vi har aldrig været i bjergene, men vores venner fortalte os, hvor smukt der er om vinteren.',
    'no': 'Vi har aldri vært på fjellet, men vennene våre fortalte oss hvor vakkert det er der om vinteren.',
    'fi': 'Emme ole koskaan käyneet vuorilla, mutta ystävämme kertoivat, kuinka kaunista siellä on.',
    'pl': 'Nigdy nie byliśmy w górach, ale nasi przyjaciele opowiadali nam, jak tam jest pięknie zimą.',
    'cs': 'Nikdy jsme nebyli na horách, ale naši přátelé nám vyprávěli, jak je tam v zimě krásně.',
    'hu': 'Még soha nem voltunk a hegyekben, de a barátaink elmesélték, hogy milyen szép ott télen.',
    'ro': 'Nu am fost niciodată la munte, dar prietenii ne-au povestit cât de frumos este iarna acolo.',
    'tr': 'Dağlara hiç gitmedik ama arkadaşlarımız bize kışın oranın ne kadar güzel olduğunu anlattı.',
    'id': 'Kami belum pernah pergi ke gunung, tetapi teman-teman kami bercerita betapa indahnya di sana.',
    'vi': 'Chúng tôi chưa bao giờ lên núi, nhưng bạn bè đã kể cho chúng tôi nghe ở đó đẹp như thế nào.',
    'ru': 'Мы никогда не были в горах, но наши друзья рассказывали нам, как там красиво зимой.',
    'uk': 'Ми ніколи не були в горах, але наші друзі розповідали нам, як там гарно взимку.',
    'bg': 'Никога не сме били в планината, но нашите приятели ни разказаха колко е красиво там през зимата.',
    'el': 'Δεν έχουμε πάει ποτέ στα βουνά, αλλά οι φίλοι μας μας είπαν πόσο όμορφα είναι εκεί τον χειμώνα.',
    'he': 'אף פעם לא היינו בהרים, אבל החברים שלנו סיפרו לנו כמה יפה שם בחורף.',
    'ar': 'لم نذهب إلى الجبال من قبل، لكن أصدقاءنا أخبرونا كم هي جميلة في الشتاء.',
    'fa': 'ما هرگز به کوهستان نرفته‌ایم، اما دوستانمان به ما گفتند که آنجا در زمستان چقدر زیبا است.',
    'hi': 'हम कभी पहाड़ों पर नहीं गए, लेकिन हमारे दोस्तों ने बताया कि सर्दियों में वहाँ कितना सुंदर होता है।',
    'zh': '我们从来没有去过山里，但是朋友们告诉我们那里的冬天非常美丽。',
    'ja': '私たちは山に行ったことがありませんが、友達は冬がとても美しいと言っていました。',
    'ko': '우리는 산에 가 본 적이 없지만 친구들은 겨울에 그곳이 아주 아름답다고 말했다.',
    'th': 'เราไม่เคยไปภูเขา แต่เพื่อน ๆ บอกเราว่าที่นั่นสวยงามมากในฤดูหนาว'}


def test_sentences_of_thirty_languages_are_recognised():
    model, again = Classifier.languages(), Classifier.languages()
    found = {language: model.predict(text) for language, text in SENTENCES.items()}
    wrong = {language: max(p, key=p.get) for language, p in found.items() if max(p, key=p.get) != language}
    print(wrong, sorted(round(p[language], 2) for language, p in found.items()))
    assert len(SENTENCES) - len(wrong) >= 0.9 * len(SENTENCES), wrong
    assert (model.weights == again.weights).all() and model.labels == sorted(WORDS)


def test_no_word_is_listed_twice_and_none_is_capitalised():
    for language, words in WORDS.items():
        words = words.split()
        assert len(set(words)) == len(words) >= 10 and words == [w.lower() for w in words], language
