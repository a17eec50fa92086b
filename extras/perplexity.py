"""
Perplexity: drop what is too predictable or too surprising to somebody who has read a good text.

    python prepare.py --source=WEB --perplexity_reference=GOOD_TEXT --max_bits=4.5

    model = NgramModel(['some megabytes of good text ...'])
    model.bits_per_byte('more of it')           # 2 to 3 for text like it, above 5 for noise

Few bits mean boilerplate and stock phrases; many mean noise or another language.
"""
import numpy as np
from configurator import require


def stage(texts, min_bits, max_bits):
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
