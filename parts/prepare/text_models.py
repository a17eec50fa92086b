"""
Two small models over byte n-grams: how surprising a text is, and which kind of text it is.

    model = NgramModel(['some megabytes of good text ...'])
    model.bits_per_byte('more of it')               # 2 to 3 for text like it, above 5 for noise
    Classifier.train([(text, 'good'), (text, 'bad'), ...]).predict(text)['good']        # 0.93
    language_of('Wie geht es dir und deiner Mutter?')       # 'de', or 'unknown'
"""
import functools
import numpy as np
from parts import Mistake


def byte_ngrams(text, n, buckets):
    """The byte n-grams of a text, hashed into range(buckets), int64 (len - n + 1,)."""
    data = np.frombuffer(text.encode('utf-8', 'surrogatepass'), np.uint8).astype(np.uint64)
    h = np.full(max(0, len(data) - n + 1), np.uint64(n))
    for i in range(n):
        h = (h ^ data[i:i + len(h)]) * np.uint64(0x9E3779B97F4A7C15)
        h ^= h >> np.uint64(29)
    return (h % np.uint64(buckets)).astype(np.int64)


class NgramModel:
    """Bits per byte of a text under counts of byte n-grams of a reference. Few mean boilerplate and
    stock phrases, many mean noise or another language. An n-gram's probability is mixed with the
    (n-1)-gram's: p_n = (count + a p_(n-1)) / (context count + a), a Dirichlet prior (MacKay & Peto
    1995); p_0 is 1/256."""

    def __init__(self, texts, order=6, buckets=1 << 21):
        self.counts = np.zeros((order + 1, buckets), np.uint32)
        for text in texts:
            for n in range(1, order + 1):
                np.add.at(self.counts[n], byte_ngrams(text, n, buckets), np.uint32(1))
        self.counts[0, 0] = self.counts[1].sum()
        if not self.counts[0, 0]:
            raise Mistake('the reference has no text that can be read')

    def bits_per_byte(self, text, a=4.0):
        """Mean bits of a text's bytes, each predicted from the order - 1 before it."""
        n_bytes = len(text.encode('utf-8', 'surrogatepass'))
        p = np.full(n_bytes, 1 / 256)
        context = np.full(n_bytes, self.counts[0, 0])
        for n in range(1, len(self.counts)):
            count = self.counts[n][byte_ngrams(text, n, self.counts.shape[1])]
            p[n - 1:] = (count + a * p[n - 1:]) / (np.maximum(context[:len(count)], count) + a)
            context = count             # of the n bytes before the next one
        return float(-np.log2(p).mean()) if len(p) else 0.0


class Classifier:
    """Logistic regression on a text's byte 1- to 4-grams, hashed, like fastText's (Joulin et al.
    2016)."""

    def __init__(self, labels, weights):
        self.labels = labels
        self.weights = weights        # weights (labels, buckets)

    @staticmethod
    def features(text, buckets):
        """Ids of the n-grams of the first 4,000 characters; the roots of their counts as a unit
        vector."""
        text = ' ' + text[:4000].lower() + ' '
        ids = np.concatenate([byte_ngrams(text, n, buckets) for n in (1, 2, 3, 4)])
        ids, counts = np.unique(ids, return_counts=True)
        values = np.sqrt(counts)
        return ids, values / np.linalg.norm(values)

    @classmethod
    def train(cls, examples, epochs=5, learning_rate=2.0, buckets=1 << 17):
        """Stochastic gradient descent over (text, label) pairs; a Mistake with fewer than two
        labels."""
        examples = list(examples)
        labels = sorted({label for _, label in examples})
        if len(labels) < 2:
            raise Mistake('a quality classifier needs both kinds of examples: --quality_good and '
                          '--quality_bad')
        data = [(cls.features(text, buckets), labels.index(label)) for text, label in examples]
        model = cls(labels, np.zeros((len(labels), buckets), np.float32))
        # rare labels count as much
        share = np.bincount([y for _, y in data]) / len(data) * len(labels)
        rng = np.random.default_rng(0)
        for epoch in range(epochs):
            for i in rng.permutation(len(data)):
                (ids, values), y = data[i]
                error = model.probabilities(ids, values)
                error[y] -= 1
                step = learning_rate * (1 - epoch / epochs) / share[y]
                model.weights[:, ids] -= step * error[:, None] * values
        return model

    def probabilities(self, ids, values):
        scores = self.weights[:, ids] @ values
        p = np.exp(scores - scores.max())
        return p / p.sum()

    def predict(self, text):
        """{label: probability}"""
        ids, values = self.features(text, self.weights.shape[1])
        p = self.probabilities(ids, values)
        return dict(zip(self.labels, p.tolist()))


@functools.lru_cache(1)
def language_model():
    """A classifier of the languages in WORDS, trained on random sentences of their words: a
    second."""
    rng = np.random.default_rng(0)
    examples = []
    for language, words in WORDS.items():
        words = words.split()
        p = 1 / (np.arange(len(words)) + 30)
        for _ in range(30):
            sentence = ' '.join(rng.choice(words, 12, p=p / p.sum()))
            examples.append((sentence, language))
    return Classifier.train(examples, epochs=4, buckets=1 << 15)


# language_of and is_foreign ask about the same text, one after the other
@functools.lru_cache(1)
def languages_in(text):
    """{language: probability} of the languages in WORDS; {} if there is too little to tell by:
    fewer than 20 letters in all its distinct words."""
    n_letters = sum(map(str.isalpha, ''.join({*text[:4000].lower().split()})))
    return language_model().predict(text) if n_letters >= 20 else {}


def language_of(text):
    """'en', 'de' ...: the most probable language in WORDS, or 'unknown' if its probability is below
    0.25. In 600 characters a language in WORDS has more, and others (Czech, Greek) seldom do."""
    chances = languages_in(text)
    language = max(chances, key=chances.get, default='unknown')
    return language if chances.get(language, 0) >= 0.25 else 'unknown'


def is_foreign(text, languages):
    """Whether another language in WORDS is more than twice as probable as each of these. So nearly
    all texts of 200 characters go that are in another language, also in one that WORDS does not
    have."""
    chances = languages_in(text)
    return bool(chances) and max(chances.values()) > 2 * max(map(chances.get, languages))


class Judges:
    """The models of a corpus: n-grams of reference texts, and a classifier of good and bad ones."""

    def __init__(self, texts_of, reference, good, bad):
        """texts_of(path) yields the texts at a path. reference, good, bad: such paths, or '' for
        none."""
        self.reference = NgramModel(texts_of(reference)) if reference else None
        examples = [(text, label) for label, path in (('good', good), ('bad', bad)) if path
                    for text in texts_of(path)]
        self.quality = Classifier.train(examples) if good or bad else None

    def reason(self, text, notes, min_bits, max_bits, min_quality):
        """Why a text is dropped, or None, by bits per byte, which notes count, and the chance to be
        good."""
        if self.reference:
            bits = self.reference.bits_per_byte(text)
            notes['documents by bits per byte'][f'{bits:.1f}'] += 1
            if bits < min_bits:
                return 'too predictable'
            if max_bits and bits > max_bits:
                return 'too surprising'
        if self.quality and self.quality.predict(text)['good'] < min_quality:
            return 'low quality'


def languages_of(text):
    """The set of a comma-separated list of languages; a Mistake if one is not known."""
    languages = {*text.lower().split(',')} - {''}
    if not languages <= WORDS.keys():
        raise Mistake(f'languages={text} must be among {",".join(WORDS)}')
    return languages


# A language shows in its smallest words. By frequency, most frequent first. A text in another
# language is unknown or taken for a neighbour: Danish for Swedish.
WORDS = {
    'ar': 'في من على إلى أن عن التي الذي مع هذا هذه كان ما لا كل بين بعد قد ذلك لم أو هو هي كما وقد حيث',
    'de': 'der die und in zu den das nicht von sie ist des sich mit dem dass er es ein ich auf so eine '
          'auch als an nach wie im für man aber aus durch wenn nur war noch werden bei hat wir was wird',
    'en': 'the of and to in a is that for it was on with as be he by at this not are from or have an '
          'they but which you we his had were her she there been has their would what will if who so can',
    'es': 'de la que el en y a los se del las un por con no una su para es al lo como más o pero sus le '
          'ha todo entre cuando muy desde nos durante uno ni contra otros ese eso había ser son dos',
    'fr': 'de la le et les des en un une du que est dans qui par pour au ne sur se pas plus à ce il sont '
          'nous vous mais elle on ont leur cette ces même avec tout comme être fait aussi son sa ses',
    'hi': 'के का में की है और से को पर इस यह कि जो एक भी ने तो किया नहीं या हैं करने लिए अपने हो था',
    'id': 'yang dan di dengan untuk dari ini tidak itu dalam pada adalah akan atau oleh atas ke juga '
          'saya kami kita mereka dia anda sudah telah bisa ada seperti karena lebih tetapi ketika belum',
    'it': 'di e che la il un a per in una non sono del si è le con i da come dei nel alla più o anche ma '
          'ha nella delle dal gli questo stato essere ed tra suo loro degli hanno cui tutti lo sua',
    'ja': 'の は を に が と で て いる する こと れ この その です ます ない から も へ よう した 人 という',
    'ko': '이 그 및 의 에 를 은 는 가 있다 또는 하는 것 수 한 그리고 나는 에서 으로 대한 입니다',
    'nl': 'de van het een en in is dat op te zijn met voor niet die aan er om ook als dan maar bij uit '
          'nog heeft hebben had was werd wordt zich hij ze wij we ik je deze dit geen wel kan zou meer',
    'pl': 'i w na z do się nie jest to że a o jak od po za co dla przez ale oraz są lub jego tego być '
          'może już tylko tak był była było kiedy mnie go ich jej ten ta tym nas czy sobie',
    'pt': 'de a o que e do da em um para é com não uma os no se na por mais as dos como mas foi ao ele '
          'das entre quando muito desde nos uno nem contra outros esse isso havia ser são também até há',
    'ru': 'и в не на что я он с как это по но к из за у от его все она так же о бы для мы только был или '
          'быть чтобы которые вы были этот эти их также уже если когда во со них чем этого может была',
    'sv': 'och i att det som en på är av för med till den har de inte om ett han var jag men sig från vi '
          'så vad bli någon hans något mellan själv ut nu mycket mot efter bara denna vara vid deras',
    'tr': 've bir bu da de için ile çok ne o her olarak var gibi olan en daha veya ya kadar sonra ben sen '
          'biz mi ki ama değil şey bunu diye içinde önce ise böyle nasıl kendi iyi zaman oldu şu hiç yok',
    'vi': 'và của là có trong cho không được với các một người những đã này để khi về từ như đều hay tôi',
    'zh': '的 一 是 在 不 了 有 人 和 我 这 中 大 为 上 个 国 以 要 他 时 来 们 或 我们 可以 没有'}
