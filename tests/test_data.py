"""Blocks of bins: each once an epoch. A stream is the bin of its documents, and goes on where it stopped."""
import collections
import gzip
import json
import os
import re

import numpy as np
import pytest
import torch
from conftest import lift, refused, write
from feedback import attempt, expect, told

from extras.mixture import described, weighted
from extras.records import Stream
from tokenizer import SPECIAL_TOKENS, Tokenizer

BYTES = Tokenizer.byte(SPECIAL_TOKENS)
END = BYTES.special['<|endoftext|>']
starts_of = lift('train.py', 'starts_of')


# --- blocks -------------------------------------------------------------------------------------------------
def in_epoch(number, n_tokens, T, seed=0, starts_of=starts_of):
    """Where the sequences of an epoch begin, in its order."""
    return [int(start) for start in starts_of(number, n_tokens, T, seed)]


def get_batch(**settings):
    """train.py's function, with the variables that it finds there."""
    function = lift('train.py', 'get_batch')
    usual = {'stream': None, 'hide': None, 'kind': 'cpu', 'device': 'cpu', 'starts_of': starts_of, 'seed': 0}
    function.__globals__.update(usual | settings)
    return function


def test_an_epoch_visits_every_block_once_in_an_order_and_with_a_shift_of_its_own():
    """A block and its targets stay inside the data."""
    for n_tokens, T in (1009, 10), (12, 10), (2, 1):
        in_order = [k * T for k in range(max(1, n_tokens // T - 1))]
        for number, seed in (0, 0), (1, 1337), (10 ** 6, 2 ** 31):
            asked = f'{n_tokens} tokens, {T=}, {seed=}: where the sequences of epoch {number} begin'
            starts = attempt(asked, in_order, lambda: sorted(in_epoch(number, n_tokens, T, seed)))
            expect(f'{asked}, sorted, without the shift {starts[0]}', in_order,
                   lambda: [start - starts[0] for start in starts])
            end = starts[-1] + T
            assert end < n_tokens, told(f'{asked}: where the last one ends', end, f'before {n_tokens}')
    epochs = [in_epoch(e, 10_001, 50, seed) for seed in (0, 1, 2) for e in range(10)]
    asked = '10,001 tokens, T=50, the epochs 0 to 9 of the seeds 0, 1 and 2:'
    expect(f'{asked} how many of the 30 orders are different', 30,
           lambda: len({tuple(start - min(starts) for start in starts) for starts in epochs}))
    n_shifts = len({min(starts) for starts in epochs})                  # of 101; 26 on average
    assert n_shifts > 20, told(f'{asked} how many of the 30 shifts are different', n_shifts, 'more than 20')


def test_a_source_of_a_mixture_is_read_as_often_as_its_passes_say():
    """Sources of 12, 42 and 82 tokens have 2, 9 and 19 blocks of 4. A part of a pass is another one in each
    epoch. A source that is read once is read as train.py reads a bin."""
    ends = 0, 12, 54, 136
    sources = {name: {'tokens': end - begin, 'passes': passes}
               for name, begin, end, passes in zip('abc', ends, ends[1:], (2.5, 1, 0.5))}
    halves = set()
    for number in range(6):
        starts = in_epoch(number, 136, 4, starts_of=weighted(sources))
        assert len(starts) == 5 + 9 + 10
        times = [collections.Counter(start for start in starts if begin <= start <= end - 5)
                 for begin, end in zip(ends, ends[1:])]                 # with a target, inside the source
        assert [sorted(counter.values()) for counter in times] == [[2, 3], [1] * 9, [1] * 10]
        halves.add(tuple(sorted(times[2])))
    assert len(halves) == 6
    one = weighted({'a': {'tokens': 1009, 'passes': 1}})
    for number in 0, 5:
        assert sorted(in_epoch(number, 1009, 10, starts_of=one)) == sorted(in_epoch(number, 1009, 10))


def test_a_mixture_says_how_often_it_reads_each_source():
    sources = {'a': {'tokens': 900, 'passes': 1}, 'b': {'tokens': 100, 'passes': 3}}
    assert described(sources, 2).splitlines() == ['a: 75.0% of the tokens, read 2.00 times',
                                                  'b: 25.0% of the tokens, read 6.00 times, '
                                                  'more than 4: it may be learned by heart']


def test_a_step_depends_on_nothing_but_its_number_and_a_large_batch_is_two_small_ones():
    """However its rows are shared out."""
    ids = np.arange(1009, dtype=np.uint16)
    eight, four = (get_batch(T=3, batch_size=n, seed=7) for n in (8, 4))
    for step in 70, 3, 41, 42:                                          # 335 blocks: 41 ends the first epoch
        whole = eight(ids, np.arange(8), step)
        rows = [eight(ids, np.arange(*rows), step) for rows in ((0, 3), (3, 8))]
        small = [four(ids, np.arange(4), 2 * step + half) for half in (0, 1)]
        for side in 0, 1:
            assert torch.equal(whole[side], torch.cat([part[side] for part in rows]))
            assert torch.equal(whole[side], torch.cat([part[side] for part in small]))
        assert torch.equal(whole[0][:, 1:], whole[1][:, :-1])


def test_the_cat_sat_on_the_mat():
    """The lesson's own example: six words in, six targets out, the last of them the end of the text. The
    loss is test_model.py's, and that no word sees those after it test_generation.py's."""
    words = 'The cat sat on the mat <EOS>'.split()
    ids = np.array([sorted(set(words)).index(word) for word in words], dtype=np.uint16)
    x, y = get_batch(T=6, batch_size=1)(ids, np.arange(1), 0)
    said = [' '.join(sorted(set(words))[i] for i in row) for row in (*x, *y)]
    assert said == ['The cat sat on the mat', 'cat sat on the mat <EOS>']


@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='memory is read from Linux')
def test_reading_a_file_of_4_GB_keeps_no_memory(tmp_path):
    def held():                                                         # kB that no file backs
        with open('/proc/self/status') as f:
            return int(re.search(r'RssAnon:\s+(\d+)', f.read())[1])
    n = 2 * 10 ** 9
    (tmp_path / 'train.bin').touch()
    os.truncate(tmp_path / 'train.bin', 2 * n)                          # sparse: it takes no disk
    ids = np.memmap(tmp_path / 'train.bin', np.uint16, 'r')
    take = get_batch(T=1024, batch_size=4, seed=1337)
    for step in range(12):                                              # blocks of all parts of the file
        take(ids, np.arange(4), step)
        if step == 2:
            before = held()
    assert held() - before < 4_000


# --- streams ------------------------------------------------------------------------------------------------
def stream_of(pattern, rank=0, world=1, tokenizer=BYTES):
    return Stream(str(pattern), rank, world, tokenizer)


@pytest.mark.parametrize('cut', range(7))
def test_a_stream_is_the_bin_of_its_documents_wherever_it_is_resumed(tmp_path, cut):
    """Empty texts, lines that are no records, and several passes."""
    texts, T, sizes = ['ab', '', 'é\nb', 'a' * 23, 'b a', ''], 3, [1, 4, 2, 1, 3, 4]
    for i in (0, 1):
        lines = ''.join(json.dumps({('text', 'content')[i]: text}) + '\n\nnot json\n' for text in texts[i::2])
        (tmp_path / f'{i}.jsonl').write_text(lines, encoding='utf-8')
    ids = np.array([b for i in (0, 1) for text in texts[i::2] for b in [*text.encode(), END]] * 3)
    stream, at = stream_of(tmp_path), 0
    for i, n in enumerate(sizes):
        if i == cut:                                                    # through JSON, as a checkpoint
            stream, position = stream_of(tmp_path), stream.positions()
            stream.go_to(json.loads(json.dumps(position)))
        expected = [ids[(at + row) * T:(at + row + 1) * T + 1] for row in range(n)]
        assert np.array_equal(stream.take(n, T), expected)
        at += n


def test_other_shards_are_another_stream_and_a_glob_of_them_is_none(tmp_path):
    known = []
    for name, text in ('a', 'a'), ('b', 'b'), ('b', 'bb'):
        write(tmp_path / f'{name}.jsonl', [{'text': text}])
        known.append(stream_of(tmp_path).identity)
    assert known[0] != known[1] != known[2] == stream_of(f'{tmp_path}/*').identity


def test_two_processes_read_shards_of_their_own(tmp_path):
    for i in range(3):
        write(tmp_path / f'{i}.jsonl', [{'text': str(i)}])
    assert [stream_of(tmp_path, rank, 2).take(2, 2)[:, 0].tolist() for rank in (0, 1)] == [
        [ord('0'), ord('2')], [ord('1'), ord('1')]]


def test_damaged_shards_cost_what_is_damaged_and_what_cannot_be_a_stream_is_refused(tmp_path):
    (tmp_path / 'a.jsonl.gz').write_bytes(gzip.compress(b'{"text": "kept"}\n')[:-4])
    (tmp_path / 'b.jsonl').write_bytes(b'{"text": 3}\n\xff\xfe\n{"text": "good"}\n[1]\n')
    stream = stream_of(tmp_path)
    for _ in range(2):                                                  # two passes
        assert stream.take(1, 10)[0].tolist()[:-1] == [*b'kept', END, *b'good', END]
    (tmp_path / 'c.jsonl').write_text('\n[1]\n', encoding='utf-8')
    refused('c.jsonl.* no line has a text', stream_of(tmp_path / 'c.jsonl').take, 1, 8)
    refused('reads 2 streams.* not with 1', stream.go_to, [None, None])
    for name, more, words in (('nowhere', {}, '--write=text'), ('*', {'world': 4}, 'has 3 shards .*4 in all'),
                              ('*', {'tokenizer': Tokenizer.byte([])}, '<.endoftext.>.*--tokenizer=bpe')):
        refused(words, stream_of, tmp_path / name, **more)
