"""
Two small models over byte n-grams: how surprising a text is, and which kind of text it is.

    model = NgramModel(['some megabytes of good text ...'])
    model.bits_per_byte('more of it')               # 2 to 3 for text like it, above 5 for noise
    Classifier.train([(text, 'good'), (text, 'bad'), ...]).predict(text)['good']        # 0.93
    Classifier.languages().predict('Wie geht es dir heute?')    # {'de': 0.31, 'nl': 0.17, 'en': 0.09, ...}

Copy this file alone: it needs numpy.
"""
import functools
import numpy as np

EXAMPLES = 50_000_000           # characters of the texts that a model is trained on


def byte_ngrams(text, n, buckets):
    """The byte n-grams of a text, hashed into range(buckets), int64 (len - n + 1,)."""
    data = np.frombuffer(text.encode('utf-8', 'surrogatepass'), np.uint8).astype(np.uint64)
    h = np.full(max(0, len(data) - n + 1), np.uint64(n))
    for i in range(n):
        h = (h ^ data[i:i + len(h)]) * np.uint64(0x9E3779B97F4A7C15)
        h ^= h >> np.uint64(29)
    return (h % np.uint64(buckets)).astype(np.int64)


class NgramModel:
    """Bits per byte of a text under counts of byte n-grams of a reference. Few mean boilerplate and stock
    phrases, many mean noise or another language. An n-gram's probability is mixed with the (n-1)-gram's:
    p_n = (count + a p_(n-1)) / (context count + a), a Dirichlet prior (MacKay & Peto 1995); p_0 is 1/256."""

    def __init__(self, texts, order=6, buckets=1 << 21):
        self.order = order
        self.buckets = buckets
        self.counts = np.zeros((order + 1, buckets), np.uint32)
        for text in texts:
            for n in range(1, order + 1):
                np.add.at(self.counts[n], byte_ngrams(text, n, buckets), np.uint32(1))
        self.counts[0, 0] = self.counts[1].sum()
        if not self.counts[0, 0]:
            raise ValueError('the reference holds no text that can be read')

    def bits_per_byte(self, text, a=4.0):
        """Mean bits of a text's bytes, each predicted from the order - 1 before it."""
        p = np.full(len(byte_ngrams(text, 1, self.buckets)), 1 / 256)
        for n in range(1, self.order + 1):
            count = self.counts[n][byte_ngrams(text, n, self.buckets)]
            before = byte_ngrams(text, n - 1, self.buckets)[:len(count)] if n > 1 else 0
            context = self.counts[n - 1][before]
            p[n - 1:] = (count + a * p[n - 1:]) / (np.maximum(context, count) + a)
        return float(-np.log2(p).mean()) if len(p) else 0.0


class Classifier:
    """Multinomial logistic regression on the byte 1- to 4-grams of a text, hashed, like fastText's on words
    (Joulin et al. 2016)."""

    def __init__(self, labels, weights):
        self.labels = labels
        self.weights = weights        # weights (labels, buckets)

    @staticmethod
    def features(text, buckets):
        """Ids of the n-grams of the first 4,000 characters; the roots of their counts as a unit vector."""
        text = ' ' + text[:4000].lower() + ' '
        ids = np.concatenate([byte_ngrams(text, n, buckets) for n in (1, 2, 3, 4)])
        ids, counts = np.unique(ids, return_counts=True)
        values = np.sqrt(counts)
        return ids, values / np.linalg.norm(values)

    @classmethod
    def train(cls, examples, epochs=5, learning_rate=2.0, buckets=1 << 17):
        """Stochastic gradient descent over (text, label) pairs; ValueError with fewer than two labels."""
        examples = list(examples)
        labels = sorted({label for _, label in examples})
        if len(labels) < 2:
            raise ValueError(f'a classifier needs examples of at least two labels, not of {labels}')
        data = [(cls.features(text, buckets), labels.index(label)) for text, label in examples]
        model = cls(labels, np.zeros((len(labels), buckets), np.float32))
        share = np.bincount([y for _, y in data]) / len(data) * len(labels)     # rare labels count as much
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

    def best(self, text):
        """The most probable label."""
        chances = self.predict(text)
        return max(chances, key=chances.get)

    @classmethod
    def languages(cls):
        """A classifier of the languages in WORDS, trained on random sentences of their words: a second."""
        rng = np.random.default_rng(0)
        examples = []
        for label, words in WORDS.items():
            words = words.split()
            p = 1 / (np.arange(len(words)) + 30)
            for _ in range(30):
                sentence = ' '.join(rng.choice(words, 12, p=p / p.sum()))
                examples.append((sentence, label))
        return cls.train(examples, epochs=4, buckets=1 << 15)


@functools.lru_cache(1)
def language_model():
    return Classifier.languages()


def language_of(text):
    """'en', 'de' ...: the most probable language. Its model is trained at the first call."""
    return language_model().best(text)


def beginning(texts):
    """Yield the first texts, of less than EXAMPLES characters together."""
    size = 0
    for text in texts:
        size += len(text)
        if size >= EXAMPLES:
            return
        yield text


class Judges:
    """The models of a corpus: n-grams of reference texts, and a classifier of good and bad ones."""

    def __init__(self, texts_of, reference, good, bad):
        """texts_of: a function of each of the others, which are names of texts or None. Of each, the first
        EXAMPLES characters are read."""
        self.reference = NgramModel(beginning(texts_of(reference))) if reference else None
        self.quality = None
        if good:
            examples = [(text, 'good') for text in beginning(texts_of(good))]
            self.quality = Classifier.train(examples + [(text, 'bad') for text in beginning(texts_of(bad))])

    def reason(self, text, tally, min_bits, max_bits, min_quality):
        """Why a text is dropped, or None. The limits: bits per byte under the reference, probability of being
        good. The bits are counted in tally."""
        if self.reference:
            bits = self.reference.bits_per_byte(text)
            tally['documents by bits per byte'][f'{bits:.1f}'] += 1
            if bits < min_bits:
                return 'too predictable'
            if max_bits and bits > max_bits:
                return 'too surprising'
        if self.quality and self.quality.predict(text)['good'] < min_quality:
            return 'low quality'


def languages_of(text):
    """The set of a comma-separated list of languages; ValueError if one is not known."""
    languages = {*text.lower().split(',')} - {''}
    if not languages <= WORDS.keys():
        raise ValueError(f'languages={text} must be among {",".join(WORDS)}')
    return languages


# A language shows in its smallest words. By frequency, most frequent first.
WORDS = {
    'ar': 'في من على إلى أن عن التي الذي مع هذا هذه كان ما لا كل بين بعد قد ذلك لم أو هو هي كما وقد حيث '
          'غير',
    'bg': 'на и в се да за от е не са с по че като до към при или който която което има може бъде този '
          'тази със където ще си му ги вече така още само които това тези няма след през защото',
    'bn': 'এবং এই করে থেকে হয় না যে জন্য একটি তার কোন করা আছে বা সাথে তাদের হবে ও কি আমি',
    'cs': 'a v se na je že s z do o k i jako po za by pro ale jsou má být nebo které který aby jeho při '
          'však jejich může před než tím proti není jsem jsme byl byla ještě tak když velmi mezi své',
    'da': 'og i at det er en til af på for der de med ikke den som har et eller han var fra ved sin skal '
          'hvad blive nogen hans noget mellem selv ud nu meget mod efter også jeg deres kun denne vi hun '
          'os være været havde blev når hvor skulle kunne alle over vores mig',
    'de': 'der die und in zu den das nicht von sie ist des sich mit dem dass er es ein ich auf so eine '
          'auch als an nach wie im für man aber aus durch wenn nur war noch werden bei hat wir was wird '
          'sein einen über einer haben oder um vor dir mir uns sind kann',
    'el': 'και το να του η της με που την από για είναι ο οι στο τα σε δεν των θα ή στην αυτό όπως μια '
          'ένα',
    'en': 'the of and to in a is that for it was on with as be he by at this not are from or have an they '
          'but which you we his had were her she there been has their would what will if who so can more '
          'about out them then some when up no do my than into could our',
    'es': 'de la que el en y a los se del las un por con no una su para es al lo como más o pero sus le '
          'ha todo entre cuando muy desde nos durante uno ni contra otros ese eso había ser son dos '
          'también fue hasta hay donde',
    'fa': 'و در به از که این را با است برای آن یک خود تا کرد بر هم نیز شد می باشد یا های ما شود اند او',
    'fi': 'ja on ei että se hän oli ovat kun mutta niin kuin tai myös joka sen mukaan hänen olla minä ole '
          'me te he sitä tämä jos vain nyt mitä olen siitä kuinka mikä tässä ollut olisi niitä',
    'fr': 'de la le et les des en un une du que est dans qui par pour au ne sur se pas plus à ce il sont '
          'nous vous mais elle on ont leur cette ces même avec tout comme être fait aussi son sa ses sans '
          'où été avait était je si quand deux',
    'he': 'של את על לא כל הוא זה עם או גם אל בין כי היא אם יש אשר לו היה כדי ללא אני מה רק הם אך',
    'hi': 'के का में की है और से को पर इस यह कि जो एक भी ने तो किया नहीं या हैं करने लिए अपने हो था',
    'hu': 'a az és hogy nem is egy ez vagy meg de volt csak már mint kell azt ha akár még sem el olyan kik '
          'ki mi én ő lehet után ilyen más minden most így akkor vagyok nagyon mert amikor ott',
    'hy': 'և է որ են ու ի իր մեջ համար այդ ոչ կամ մի այս չի նա եմ ինչ բայց մենք պետք',
    'id': 'yang dan di dengan untuk dari ini tidak itu dalam pada adalah akan atau oleh atas ke juga saya '
          'kami kita mereka dia anda sudah telah bisa ada seperti karena lebih tetapi ketika belum',
    'it': 'di e che la il un a per in una non sono del si è le con i da come dei nel alla più o anche ma '
          'ha nella delle dal gli questo stato essere ed tra suo loro degli hanno cui tutti lo sua',
    'ja': 'の は を に が と で て いる する こと れ この その です ます ない から も へ よう した 人 という',
    'ka': 'და არის რომ არ ეს ის თუ ან მისი მათ იყო როგორც უნდა მე რა მაგრამ ამ ყველა',
    'ko': '이 그 및 의 에 를 은 는 가 있다 또는 하는 것 수 한 그리고 나는 에서 으로 대한 입니다',
    'nl': 'de van het een en in is dat op te zijn met voor niet die aan er om ook als dan maar bij uit nog '
          'heeft hebben had was werd wordt zich hij ze wij we ik je deze dit geen wel kan zou meer naar '
          'over tot nu hun mijn',
    'no': 'og i det er en til av på for som de med ikke at den har et eller han var fra ved sin skal kan '
          'hva bli noen hans noe mellom selv ut nå mot etter også jeg deres bare denne være seg vi hun oss '
          'vært hadde ble når hvor skulle kunne alle over våre meg',
    'pl': 'i w na z do się nie jest to że a o jak od po za co dla przez ale oraz są lub jego tego być może '
          'już tylko tak był była było kiedy mnie go ich jej ten ta tym nas czy sobie',
    'pt': 'de a o que e do da em um para é com não uma os no se na por mais as dos como mas foi ao ele '
          'das entre quando muito desde nos uno nem contra outros esse isso havia ser são também até há '
          'onde pelo pela',
    'ro': 'de și în a la cu nu că o din pe este sau care un se mai al fi pentru ce are ca sa prin dar le '
          'între când foarte sunt ei ele acest această asupra către fără după toate ori lui său',
    'ru': 'и в не на что я он с как это по но к из за у от его все она так же о бы для мы только был или '
          'быть чтобы которые вы были этот эти их также уже если когда во со них чем этого может была ещё',
    'sk': 'a v sa na je že s z do o k aj ako po za by pre ale sú má byť alebo ktoré ktorý aby jeho pri '
          'však jej iba môže ich tým proti všetky ktorá nie bol bola tak keď veľmi medzi svoje',
    'sv': 'och i att det som en på är av för med till den har de inte om ett han var jag men sig från vi '
          'så vad bli någon hans något mellan själv ut nu mycket mot efter bara denna vara vid deras sina',
    'ta': 'மற்றும் ஒரு இந்த என்று அல்லது எல்லா அவர் அது என்ன இல்லை உள்ள இருந்து அந்த',
    'te': 'మరియు ఒక ఈ లేదా ఆ అని కాదు ఉంది వారి కలిగి తన నేను యొక్క కొరకు',
    'th': 'และ ใน ที่ การ ของ เป็น ได้ ให้ มี จะ ไม่ ความ คน หรือ ตาม โดย ต่อ กับ จาก นี้ ซึ่ง อะไร',
    'tr': 've bir bu da de için ile çok ne o her olarak var gibi olan en daha veya ya kadar sonra ben ama',
    'uk': 'і в на не що з та до як за це для від або його він у про є при бути які але ми якщо всі також '
          'тільки вже коли вона був була були їх її цього може щоб вони ще',
    'vi': 'và của là có trong cho không được với các một người những đã này để khi về từ như đều hay tôi',
    'zh': '的 一 是 在 不 了 有 人 和 我 这 中 大 为 上 个 国 以 要 他 时 来 们 或 我们 可以 没有'}
