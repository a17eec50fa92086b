"""
What small models say of a text: which language it is in, how well a good text predicts its bytes,
whether it is more like your good examples or like your bad ones.

    python prepare.py --source=WEB --languages=en,de
    python prepare.py --source=WEB --perplexity_reference=GOOD_TEXT --max_bits=4.5
    python prepare.py --source=WEB --quality_good=GOOD --quality_bad=BAD --min_quality=0.5

    language_of('Wie geht es dir und deiner Mutter?')       # 'de', or 'unknown'
    is_foreign('Wie geht es dir und deiner Mutter?', {'en'})            # True
    NgramModel(['some megabytes of good text ...']).bits_per_byte('more of it')
        # 2 to 3 for text like it, above 5 for noise
    Classifier.train([(text, 'good'), (text, 'bad'), ...]).predict(text)
        # {'bad': 0.07, 'good': 0.93}

Few bits mean boilerplate and stock phrases; many mean noise or another language. For the
classifier, a few dozen examples of each kind are a beginning. It learns what tells your examples
apart, which may be their topic.

Prose and chat go that are clearly in another language than you want. A text that is too short to
tell stays, and so does a table. If we have no words of its language, the reason to drop it is
'language unknown'.
"""
import functools
import numpy as np
from configurator import require


# --- perplexity -----------------------------------------------------------------------------------
def perplexity(texts, min_bits, max_bits):
    """Return a stage of prepare.py that judges by these texts. max_bits: 0 = no limit."""
    model = NgramModel(texts)

    def check_bits(document, notes):
        bits = model.bits_per_byte('\n'.join(document['texts']))
        notes['documents by bits per byte'][f'{bits:.1f}'] += 1
        if bits < min_bits:
            return 'too predictable'
        if max_bits and bits > max_bits:
            return 'too surprising'

    return check_bits


def byte_ngrams(text, n, buckets):
    """Return the hash of each n bytes in a row, from 0 to buckets - 1, int64 (bytes - n + 1,). Two
    n-grams seldom have one hash: there are 2 million of them by default."""
    data = np.frombuffer(text.encode('utf-8', 'surrogatepass'), np.uint8).astype(np.uint64)
    h = np.full(max(0, len(data) - n + 1), np.uint64(n))
    for i in range(n):
        h = (h ^ data[i:i + len(h)]) * np.uint64(0x9E3779B97F4A7C15)
        h ^= h >> np.uint64(29)
    return (h % np.uint64(buckets)).astype(np.int64)


class NgramModel:
    """Counts of the byte n-grams of a reference, for n from 1 to 6. The longest n-gram knows most
    and was seen least, so its estimate leans on that of the next shorter one as if it had seen that
    one a = 4 times (a Dirichlet prior; MacKay & Peto 1995):

        p_n = (count of the n bytes + a p_(n-1)) / (count of the n - 1 bytes before the last + a)

    Let the reference be 'aab', and ask for b after a: p_0 is 1 / 256 for every byte. b is 1 of 3
    bytes, so p_1 = (1 + 4 / 256) / (3 + 4) = 0.145. ab is there once, a twice, so p_2 =
    (1 + 4 x 0.145) / (2 + 4) = 0.263: 1.9 bits."""

    def __init__(self, texts, order=6, buckets=1 << 21):
        self.counts = np.zeros((order + 1, buckets), np.uint32)
        for text in texts:
            for n in range(1, order + 1):
                np.add.at(self.counts[n], byte_ngrams(text, n, buckets), np.uint32(1))
        self.counts[0, 0] = self.counts[1].sum()
        require(self.counts[0, 0], 'perplexity_reference has no text that can be read; name a file '
                                   'or folder of good text')

    def bits_per_byte(self, text, a=4.0):
        """Return the mean bits of a text's bytes, each predicted from the five before it."""
        n_bytes = len(text.encode('utf-8', 'surrogatepass'))
        p = np.full(n_bytes, 1 / 256)
        context = np.full(n_bytes, self.counts[0, 0])
        for n in range(1, len(self.counts)):
            count = self.counts[n][byte_ngrams(text, n, self.counts.shape[1])]
            p[n - 1:] = (count + a * p[n - 1:]) / (np.maximum(context[:len(count)], count) + a)
            context = count             # of the n bytes before the next one
        return float(-np.log2(p).mean()) if len(p) else 0.0


# --- quality --------------------------------------------------------------------------------------
def quality(good, bad, min_quality):
    """Return a stage of prepare.py that is trained on good and bad texts, two iterators."""
    examples = [(text, label) for label, texts in (('good', good), ('bad', bad)) for text in texts]
    require(len({label for _, label in examples}) == 2,
            'a quality classifier needs both kinds of examples: --quality_good=FILE with texts as '
            'you want them and --quality_bad=FILE with others')
    model = Classifier.train(examples)

    def check_quality(document, notes):
        if model.predict('\n'.join(document['texts']))['good'] < min_quality:
            return 'low quality'

    return check_quality


class Classifier:
    """Logistic regression on the byte n-grams of a text, 1 to 4 bytes long, hashed: what fastText
    does with those of characters (Joulin et al. 2016)."""

    def __init__(self, labels, weights):
        self.labels = labels
        self.weights = weights                                          # (labels, buckets)

    @staticmethod
    def features(text, buckets):
        """Return the n-grams of the first 4,000 characters, int64 (n,), and how much each counts,
        float64 (n,): the root of how often it is there, all of them as a vector of length 1."""
        text = ' ' + text[:4000].lower() + ' '
        ids = np.concatenate([byte_ngrams(text, n, buckets) for n in (1, 2, 3, 4)])
        ids, counts = np.unique(ids, return_counts=True)
        values = np.sqrt(counts)
        return ids, values / np.linalg.norm(values)

    @classmethod
    def train(cls, examples, epochs=5, learning_rate=2.0, buckets=1 << 17):
        """Return a classifier of (text, label) pairs, trained by stochastic gradient descent."""
        labels = sorted({label for _, label in examples})
        data = [(cls.features(text, buckets), labels.index(label)) for text, label in examples]
        model = cls(labels, np.zeros((len(labels), buckets), np.float32))
        # A label with half as many examples as the average has steps twice as long.
        commonness = np.bincount([y for _, y in data]) / len(data) * len(labels)
        rng = np.random.default_rng(0)
        for epoch in range(epochs):
            for i in rng.permutation(len(data)):
                (ids, values), y = data[i]
                error = model.probabilities(ids, values)                # (labels,)
                error[y] -= 1
                step = learning_rate * (1 - epoch / epochs) / commonness[y]
                model.weights[:, ids] -= step * error[:, None] * values
        return model

    def probabilities(self, ids, values):
        """Return the softmax of the labels' scores, float64 (labels,)."""
        scores = self.weights[:, ids] @ values
        p = np.exp(scores - scores.max())
        return p / p.sum()

    def predict(self, text):
        """Return {label: probability}."""
        p = self.probabilities(*self.features(text, self.weights.shape[1]))
        return dict(zip(self.labels, p.tolist()))


# --- languages ------------------------------------------------------------------------------------
def language(languages):
    """Return a stage of prepare.py that keeps texts of these languages, such as 'en,de'."""
    wanted = {*languages.lower().split(',')} - {''}
    require(wanted and wanted <= WORDS.keys(),
            f'languages={languages} must be among {",".join(WORDS)}')

    def check_language(document, notes):
        text = '\n'.join(document['texts'])
        if document['mode'] in ('prose', 'chat') and is_foreign(text, wanted):
            return f'language {language_of(text)}'

    return check_language


@functools.lru_cache(1)
def language_model():
    """Return a classifier of the languages in WORDS. It is trained on random sentences of their
    words, which takes a second."""
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
    """Return {language: probability} of the languages in WORDS; {} if there is too little to tell
    by: fewer than 20 letters in all its distinct words."""
    n_letters = sum(map(str.isalpha, ''.join({*text[:4000].lower().split()})))
    return language_model().predict(text) if n_letters >= 20 else {}


def language_of(text):
    """Return the most probable language in WORDS, or 'unknown' if its probability is below 0.25. In
    600 characters a language in WORDS has more, and others (Czech, Greek) seldom do."""
    chances = languages_in(text)
    language = max(chances, key=chances.get, default='unknown')
    return language if chances.get(language, 0) >= 0.25 else 'unknown'


def is_foreign(text, languages):
    """Whether another language in WORDS is more than twice as probable as each of these. So nearly
    all texts of 200 characters go that are in another language, also in one that WORDS does not
    have."""
    chances = languages_in(text)
    return bool(chances) and max(chances.values()) > 2 * max(map(chances.get, languages))


# A language shows in its smallest words, the most frequent first. A text in another language is
# unknown or taken for a neighbor: Danish for Swedish.
WORDS = {
    'ar': 'في من على إلى أن عن التي الذي مع هذا هذه كان ما لا كل بين بعد قد ذلك لم أو هو هي كما '
          'وقد حيث',
    'de': 'der die und in zu den das nicht von sie ist des sich mit dem dass er es ein ich auf '
          'so eine auch als an nach wie im für man aber aus durch wenn nur war noch werden bei '
          'hat wir was wird',
    'en': 'the of and to in a is that for it was on with as be he by at this not are from or '
          'have an they but which you we his had were her she there been has their would what '
          'will if who so can',
    'es': 'de la que el en y a los se del las un por con no una su para es al lo como más o pero '
          'sus le ha todo entre cuando muy desde nos durante uno ni contra otros ese eso había '
          'ser son dos',
    'fr': 'de la le et les des en un une du que est dans qui par pour au ne sur se pas plus à ce '
          'il sont nous vous mais elle on ont leur cette ces même avec tout comme être fait '
          'aussi son sa ses',
    'hi': 'के का में की है और से को पर इस यह कि जो एक भी ने तो किया नहीं या हैं करने लिए अपने हो '
          'था',
    'id': 'yang dan di dengan untuk dari ini tidak itu dalam pada adalah akan atau oleh atas ke '
          'juga saya kami kita mereka dia anda sudah telah bisa ada seperti karena lebih tetapi '
          'ketika belum',
    'it': 'di e che la il un a per in una non sono del si è le con i da come dei nel alla più o '
          'anche ma ha nella delle dal gli questo stato essere ed tra suo loro degli hanno cui '
          'tutti lo sua',
    'ja': 'の は を に が と で て いる する こと れ この その です ます ない から も '
          'へ よう した 人 という',
    'ko': '이 그 및 의 에 를 은 는 가 있다 또는 하는 것 수 한 그리고 나는 에서 으로 대한 입니다',
    'nl': 'de van het een en in is dat op te zijn met voor niet die aan er om ook als dan maar '
          'bij uit nog heeft hebben had was werd wordt zich hij ze wij we ik je deze dit geen '
          'wel kan zou meer',
    'pl': 'i w na z do się nie jest to że a o jak od po za co dla przez ale oraz są lub jego '
          'tego być może już tylko tak był była było kiedy mnie go ich jej ten ta tym nas czy '
          'sobie',
    'pt': 'de a o que e do da em um para é com não uma os no se na por mais as dos como mas foi '
          'ao ele das entre quando muito desde nos uno nem contra outros esse isso havia ser são '
          'também até há',
    'ru': 'и в не на что я он с как это по но к из за у от его все она так же о бы для мы только '
          'был или быть чтобы которые вы были этот эти их также уже если когда во со них чем '
          'этого может была',
    'sv': 'och i att det som en på är av för med till den har de inte om ett han var jag men sig '
          'från vi så vad bli någon hans något mellan själv ut nu mycket mot efter bara denna '
          'vara vid deras',
    'tr': 've bir bu da de için ile çok ne o her olarak var gibi olan en daha veya ya kadar '
          'sonra ben sen biz mi ki ama değil şey bunu diye içinde önce ise böyle nasıl kendi iyi '
          'zaman oldu şu hiç yok',
    'vi': 'và của là có trong cho không được với các một người những đã này để khi về từ như đều '
          'hay tôi',
    'zh': '的 一 是 在 不 了 有 人 和 我 这 中 大 为 上 个 国 以 要 他 时 来 们 或 我们 可以 没有',
}
