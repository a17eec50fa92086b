"""Token bins: each block once an epoch, in an order computed from (seed, step) alone, never out of range."""
import json
import os
import re

import numpy as np
import pytest
from conftest import refused

from parts.train import token_bins
from parts.train.token_bins import Blocks, open_bins, permute, repeats, sequence_starts, sequences


def permutation(n, key):
    return permute(np.arange(n, dtype=np.uint64), np.uint64(n), np.full(n, key, dtype=np.uint64))


def epoch(number, n_tokens, block_size, seed=0):
    """The starts of one epoch: as a batch of one block a step, so that batch and epoch end together."""
    n = (n_tokens - 1) // block_size
    return np.concatenate([sequence_starts(step, 1, n_tokens, block_size, seed)
                           for step in range(number * n, (number + 1) * n)])


def test_permute_is_a_bijection_another_for_each_key():
    for key in (0, 1, 0xD6E8FEB86659FD93, 2 ** 64 - 1):
        for n in [*range(1, 301), 1023, 1024, 1025, 4097, 10 ** 6]:
            assert np.array_equal(np.sort(permutation(n, key)), np.arange(n)), (key, n)
    assert len({permutation(50, key).tobytes() for key in range(1000)}) == 1000


def test_every_epoch_visits_every_block_once_also_in_batches_across_its_end():
    """A block and its targets stay inside the data: no start is n_tokens - block_size or more."""
    for n_tokens, block_size in ((1001, 10), (1009, 10), (1010, 10), (12, 10), (33, 32), (5000, 7), (9, 1),
                                 (2, 1), (1025, 1024), (11_031, 1024)):
        n = (n_tokens - 1) // block_size
        whole = [sorted((k * block_size + offset) % (n_tokens - block_size) for k in range(n))
                 for offset in range(block_size)]
        for number, seed in ((0, 0), (1, 0), (2, 1337), (10 ** 6, 2 ** 31)):
            starts = sorted(epoch(number, n_tokens, block_size, seed))
            assert starts in whole and len(set(starts)) == n, (n_tokens, block_size, number)

    n_tokens, block_size = 1001, 10                                     # 100 blocks; 7 does not divide 100
    stream = np.concatenate([sequence_starts(step, 7, n_tokens, block_size, 3) for step in range(43)])
    assert np.array_equal(stream[:300], np.concatenate([epoch(e, n_tokens, block_size, 3) for e in range(3)]))


def test_a_step_depends_on_nothing_but_its_number_and_a_large_batch_is_two_small_ones():
    forward = [sequence_starts(step, 8, 5001, 16, 1) for step in range(100)]
    backward = [sequence_starts(step, 8, 5001, 16, 1) for step in reversed(range(100))]
    halves = [[sequence_starts(2 * step + half, 4, 5001, 16, 1) for half in (0, 1)] for step in range(100)]
    assert np.array_equal(forward, backward[::-1]) and np.array_equal(forward, np.reshape(halves, (100, 8)))


def test_epochs_and_seeds_differ_in_order_and_in_where_blocks_are_cut():
    epochs = [epoch(e, 10_001, 50, seed) for seed in (0, 1, 2) for e in range(10)]
    assert len({e.tobytes() for e in epochs}) == 30
    assert len({(e // 50).tobytes() for e in epochs}) == 30             # not only by the offset
    assert len({int(e[0]) % 50 for e in epochs}) > 10                   # of 50; 23 on average


@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='memory is read from Linux')
def test_reading_a_file_of_4_GB_keeps_no_memory(tmp_path):
    def held():                                                         # kB that no file backs
        with open('/proc/self/status') as f:
            return int(re.search(r'RssAnon:\s+(\d+)', f.read())[1])
    n = 2 * 10 ** 9
    with open(tmp_path / 'train.bin', 'wb') as f:
        f.truncate(2 * n)                                               # sparse: it takes no disk
    (tmp_path / 'meta.json').write_text(json.dumps({'dtype': 'uint16', 'tokens': {'train': n}}))
    data = open_bins(tmp_path, 1024, ['train'])[1]['train']
    read = set()
    for step in range(12):
        starts = sequence_starts(step, 4, n, 1024, 1337)
        sequences(data, starts, 1024)
        read |= set((starts // 10 ** 8).tolist())
        if step == 2:
            before = held()
    assert len(read) > 12                                               # of all parts of the file
    assert held() - before < 4_000


def test_a_bin_that_was_changed_is_refused_and_of_a_large_one_samples_are_hashed(tmp_path):
    path = tmp_path / 'train.bin'

    def changed(n_bytes, at):
        path.write_bytes(b'ab')
        os.truncate(path, n_bytes)                                      # sparse: it takes no disk
        meta = {'dtype': 'uint16', 'sha256': {'train': token_bins.sha256(path)},
                'sampled_sha256': {'train': token_bins.sha256(path, True)}}
        assert len(token_bins.open_bin(path, meta, 'train')) == n_bytes // 2
        with open(path, 'r+b') as f:
            f.seek(at)
            f.write(b'x')
        token_bins.open_bin(path, {'dtype': 'uint16'}, 'train')         # of a meta.json without hashes
        token_bins.open_bin(path, meta, 'train')
    for n_bytes, at in ((1 << 22, 3 << 20), (1 << 20, 0), (1 << 29, 0), (1 << 29, (1 << 28) + 5)):
        refused('train.bin is not the file', changed, n_bytes, at)
    changed(1 << 29, 3 << 20)                                           # between two samples


def test_the_cat_sat_on_the_mat():
    """The lesson's own example: six words in, six targets out, the last of them the end of the text. The
    loss is test_model.py's, and that no word sees those after it test_generation.py's."""
    words = 'The cat sat on the mat <EOS>'.split()
    ids = np.array([sorted(set(words)).index(word) for word in words], dtype=np.uint16)
    x, y = sequences(ids, [0], 6)
    said = [' '.join(sorted(set(words))[i] for i in row) for row in (*x, *y)]
    assert said == ['The cat sat on the mat', 'cat sat on the mat <EOS>']


def test_the_shares_of_a_mixture_are_counted_and_how_often_each_source_is_read():
    source = Blocks(np.arange(1001), 10, batch_size=5, seed=3)
    sources = {'a': {'begins': 0}, 'b': {'begins': 250}}
    assert source.shares(sources, 0) == {'a': 0, 'b': 0}
    starts = np.concatenate([source.starts(step) for step in range(7)])
    assert source.shares(sources, 7)['a'] == pytest.approx((starts < 250).mean(), abs=1e-4)
    assert source.shares(sources, 20)['b'] == pytest.approx(0.75, abs=0.03)     # one epoch: all of it

    one = {'tokens': {'train': 9}}
    assert ['are read' in line for n in (4, 5) for line in repeats(one, n, '')] == [True]
    sources = {'a': {'epochs': 1, 'mixed': 900}, 'b': {'epochs': 3, 'mixed': 300}}
    meta = {'tokens': {'train': 1200}, 'sources': sources}
    assert list(repeats(meta, 1, 'ab')) == ['a: 75.0% of the tokens, read 1.00 times',
                                            'b: 25.0% of the tokens, read 3.00 times']
    assert ['beyond 4' in line for line in repeats(meta, 1.5, 'ab')] == [False, True]
    assert ['no figure measures' in line for line in repeats(meta, 1, {'b'})] == [True, False]
