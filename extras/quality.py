"""
Quality: drop what a classifier, trained on your own examples of good and bad texts, takes for bad.

    python prepare.py --source=WEB --quality_good=GOOD --quality_bad=BAD --min_quality=0.5

    model = Classifier.train([(text, 'good'), (text, 'bad'), ...])
    model.predict(text)                         # {'bad': 0.07, 'good': 0.93}

A few dozen examples of each kind are a beginning. It learns what tells your examples apart, which
may be their topic.
"""
import numpy as np
from configurator import require
from extras.perplexity import byte_ngrams


def stage(good, bad, min_quality):
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
