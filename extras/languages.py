"""
Languages: drop prose and chat that is clearly in another language than you want.

    python prepare.py --source=WEB --languages=en,de

    language_of('Wie geht es dir und deiner Mutter?')       # 'de', or 'unknown'
    is_foreign('Wie geht es dir und deiner Mutter?', {'en'})            # True

A text that is too short to tell stays, and so does a table. If we have no words of its language,
the reason to drop it is 'language unknown'.
"""
import functools
import numpy as np
from configurator import require
from extras.quality import Classifier


def stage(languages):
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
    'ja': 'の は を に が と で て いる する こと れ この その です ます ない から も へ よう した 人 という',
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
