"""Blocks of bins: each once an epoch. A stream is the bin of its documents, and goes on where it stopped."""
import collections
import gzip
import json
import os
import re
import types

import numpy as np
import pytest
from accidents import before
from conftest import TINY, metrics, mistake, ok, refused, run, same, state, write, write_bins
from feedback import attempt, expect, told

from parts.train import data
from parts.train.data import Blocks, Stream
from tokenizer import SPECIAL_TOKENS, Tokenizer

BYTES = Tokenizer.byte(SPECIAL_TOKENS)
END = BYTES.special['<|endoftext|>']


# --- blocks -------------------------------------------------------------------------------------------------
def blocks(n_tokens, T, seed=0, **more):
    return Blocks({'train': np.arange(n_tokens)}, T, **{'batch_size': 1, 'seed': seed, **more})


def epoch(number, source):
    """Where the blocks of an epoch begin, in its order."""
    return [int(source.start(i)) for i in range(number * source.n_blocks, (number + 1) * source.n_blocks)]


def test_an_epoch_visits_every_block_once_in_an_order_and_with_a_shift_of_its_own():
    """A block and its targets stay inside the data. Without shuffling, the blocks are in the file's order."""
    for n_tokens, T in (1009, 10), (12, 10), (2, 1):
        in_order = [k * T for k in range(max(1, n_tokens // T - 1))]
        for number, seed in (0, 0), (1, 1337), (10 ** 6, 2 ** 31):
            asked = f'{n_tokens} tokens, {T=}, {seed=}: where the sequences of epoch {number} begin'
            starts = attempt(asked, in_order, lambda: sorted(epoch(number, blocks(n_tokens, T, seed))))
            expect(f'{asked}, sorted, without the shift {starts[0]}', in_order,
                   lambda: [start - starts[0] for start in starts])
            end = starts[-1] + T
            assert end < n_tokens, told(f'{asked}: where the last one ends', end, f'before {n_tokens}')
        expect(f'{n_tokens} tokens, {T=}, shuffle=False: where the sequences of epoch 1 begin', in_order,
               lambda: epoch(1, blocks(n_tokens, T, shuffle=False)))
    epochs = [epoch(e, blocks(10_001, 50, seed)) for seed in (0, 1, 2) for e in range(10)]
    asked = '10,001 tokens, T=50, the epochs 0 to 9 of the seeds 0, 1 and 2:'
    expect(f'{asked} how many of the 30 orders are different', 30,
           lambda: len({tuple(start - min(starts) for start in starts) for starts in epochs}))
    n_shifts = len({min(starts) for starts in epochs})                  # of 101; 26 on average
    assert n_shifts > 20, told(f'{asked} how many of the 30 shifts are different', n_shifts, 'more than 20')


def test_a_source_of_a_mixture_is_read_as_often_as_its_passes_say():
    """Sources of 12, 42 and 82 tokens have 2, 9 and 19 blocks of 4. A part of a pass is another one in each
    epoch. A folder that is mixed on the disk is one source."""
    ends = 0, 12, 54, 136
    sources = {name: {'tokens': end - begin, 'passes': passes}
               for name, begin, end, passes in zip('abc', ends, ends[1:], (2.5, 1, 0.5))}
    meta = {'mixed': False, 'sources': sources}
    source = blocks(136, 4, meta=meta)
    assert source.n_blocks == 5 + 9 + 10
    halves = set()
    for number in range(6):
        starts = epoch(number, source)
        times = [collections.Counter(start for start in starts if begin <= start <= end - 5)
                 for begin, end in zip(ends, ends[1:])]                 # with a target, inside the source
        assert [sorted(counter.values()) for counter in times] == [[2, 3], [1] * 9, [1] * 10]
        halves.add(tuple(sorted(times[2])))
    assert len(halves) == 6
    assert epoch(0, blocks(136, 4, meta=meta, shuffle=False))[:8] == [0, 4, 0, 4, 0, 12, 16, 20]
    assert blocks(136, 4, meta={'sources': sources}).n_blocks == 33


def test_a_step_depends_on_nothing_but_its_number_and_a_large_batch_is_two_small_ones():
    eight, four = (blocks(5001, 16, seed=1, batch_size=size) for size in (8, 4))
    for step in 70, 3, 38, 39:                                          # 38 ends the first epoch
        whole = eight.take(step, range(8))
        rows = [eight.take(step, rows) for rows in (range(3), range(3, 8))]
        small = [four.take(2 * step + half, range(4)) for half in (0, 1)]
        assert np.array_equal(whole, np.concatenate(rows, 1))
        assert np.array_equal(whole, np.concatenate(small, 1))


def test_an_evaluation_reads_blocks_from_all_over_the_bin_or_with_0_every_block():
    alone = types.SimpleNamespace(rank=0, world=1)

    def starts(n_tokens):
        return [int(row[0]) for x, _ in data.evaluation(np.arange(103), 10, n_tokens, 4, alone) for row in x]

    assert starts(30) == [0, 40, 90] and starts(5) == [0]
    assert starts(0) == starts(1000) == [*range(0, 100, 10)]


def test_the_cat_sat_on_the_mat():
    """The lesson's own example: six words in, six targets out, the last of them the end of the text. The
    loss is test_model.py's, and that no word sees those after it test_generation.py's."""
    words = 'The cat sat on the mat <EOS>'.split()
    ids = np.array([sorted(set(words)).index(word) for word in words], dtype=np.uint16)
    x, y = data.sequences(ids, [0], 6)
    said = [' '.join(sorted(set(words))[i] for i in row) for row in (*x, *y)]
    assert said == ['The cat sat on the mat', 'cat sat on the mat <EOS>']


@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='memory is read from Linux')
def test_reading_a_file_of_4_GB_keeps_no_memory(tmp_path):
    def held():                                                         # kB that no file backs
        with open('/proc/self/status') as f:
            return int(re.search(r'RssAnon:\s+(\d+)', f.read())[1])
    n = 2 * 10 ** 9
    write_bins(tmp_path, np.zeros(2000, np.uint16), BYTES, tokens={'train': n, 'val': 2000})
    os.truncate(tmp_path / 'train.bin', 2 * n)                          # sparse: it takes no disk
    _, bins, _ = data.open_bins(tmp_path, 1024)
    source = Blocks(bins, 1024, 4, 1337)
    for step in range(12):                                              # blocks of all parts of the file
        source.take(step, range(4))
        if step == 2:
            before = held()
    assert held() - before < 4_000


# --- the folder ---------------------------------------------------------------------------------------------
def test_a_folder_that_does_not_fit_is_refused_and_other_shards_are_another_stream(tmp_path):
    made = write_bins(tmp_path, np.arange(100, dtype=np.uint16), BYTES)
    assert all(isinstance(bin, np.memmap) for bin in data.open_bins(made, 8)[1].values())  # of any size
    assert isinstance(Blocks(data.open_bins(made, 8)[1], 8, 1, 0).ids, np.memmap)       # and no copy
    known = []
    for name, text in ('a', 'a'), ('b', 'b'), ('b', 'bb'):
        write(tmp_path / f'shards/{name}.jsonl', [{'text': text}])
        known.append(data.open_bins(made, 8, {'streaming': str(tmp_path / 'shards')})[2]['shards'])
    by_glob = data.open_bins(made, 8, {'streaming': f'{tmp_path}/shards/*'})[2]['shards']
    assert known[0] != known[1] != known[2] == by_glob

    write(made / 'meta.json', [{'config': {'kind': 'sft'}}])
    refused('has sft data, .*--kind=text', data.open_bins, made, 8)
    refused('--streaming=', Blocks, {}, 8, 1, 0)
    assert data.command_for('data/pairs', kind='sft').endswith('sft --source=FILE --out_dir=data/pairs')
    assert data.command_for('data/mine').endswith('prepare.py --source=FILE --out_dir=data/mine')


# --- streams ------------------------------------------------------------------------------------------------
def stream_of(pattern, T, rank=0, world=1, tokenizer=BYTES):
    return Stream(str(pattern), types.SimpleNamespace(rank=rank, world=world), tokenizer, T)


@pytest.mark.parametrize('cut', range(7))
def test_a_stream_is_the_bin_of_its_documents_wherever_it_is_resumed(tmp_path, cut):
    """Empty texts, lines that are no records, and several passes."""
    texts, T, sizes = ['ab', '', 'é\nb', 'a' * 23, 'b a', ''], 3, [1, 4, 2, 1, 3, 4]
    for i in (0, 1):
        lines = ''.join(json.dumps({('text', 'content')[i]: text}) + '\n\nnot json\n' for text in texts[i::2])
        (tmp_path / f'{i}.jsonl').write_text(lines, encoding='utf-8')
    ids = [b for i in (0, 1) for text in texts[i::2] for b in [*text.encode(), END]]
    bins = Blocks({'train': np.array(ids * 3)}, T, 1, 0, shuffle=False)
    stream, at = stream_of(tmp_path, T), 0
    for i, n in enumerate(sizes):
        if i == cut:                                                    # through JSON, as a checkpoint
            stream, position = stream_of(tmp_path, T), stream.position
            stream.go_to(json.loads(json.dumps([position])))
        expected = np.concatenate([bins.take(at + row, [0]) for row in range(n)], 1)
        assert np.array_equal(stream.take(i, range(n)), expected)
        at += n


@pytest.mark.parametrize('processes', [1, 2])
def test_a_stream_that_was_killed_goes_on_bit_for_bit(tmp_path, processes):
    """Its four shards begin with lines without text."""
    texts = [f'{i} times {i} is {i * i}.\n' for i in range(400)]
    write_bins(tmp_path, np.array([*''.join(texts).encode()], np.uint16), BYTES)
    for i in range(4):
        write(tmp_path / f'shards/{i}.jsonl', [3, *({'text': text} for text in texts[i::4])])
    flags = [f'--data_dir={tmp_path}', f'--streaming={tmp_path}/shards', *TINY, '--max_steps=9']
    begin = lambda name, *more, **how: run('train.py', *flags, f'--out_dir={tmp_path}/{name}', *more,
                                           '--dtype=float32', processes=processes, **how)
    kill = before('guard', 'if arguments[1] == 6: os.kill(os.getpid(), signal.SIGKILL)')
    ok(begin('straight'))
    assert begin('killed', before=kill).returncode == -9
    straight, killed = tmp_path / 'straight', tmp_path / 'killed'
    assert state(killed)['step'] == 4 and len(state(killed)['positions']) == processes
    ok(begin('killed', '--init_from=resume'))
    assert metrics(killed) == metrics(straight) and same(state(killed), state(straight))
    mistake(run('train.py', f'--out_dir={killed}', '--init_from=resume', '--max_steps=10',
                processes=3 - processes), f'reads {processes} streams', f'not with {3 - processes}')


def test_damaged_shards_cost_what_is_damaged_and_what_cannot_be_a_stream_is_refused(tmp_path):
    (tmp_path / 'a.jsonl.gz').write_bytes(gzip.compress(b'{"text": "kept"}\n')[:-4])
    (tmp_path / 'b.jsonl').write_bytes(b'{"text": 3}\n\xff\xfe\n{"text": "good"}\n[1]\n')
    stream = stream_of(tmp_path, 10)
    for _ in range(2):                                                  # two passes
        assert stream.take(0, [0])[0].tolist() == [[*b'kept', END, *b'good', END]]
    (tmp_path / 'c.jsonl').write_text('\n[1]\n', encoding='utf-8')
    refused('c.jsonl.* no line has a text', stream_of(tmp_path / 'c.jsonl', 8).take, 0, [0])
    refused('resume it without --streaming', stream.go_to, [None])      # the position in train.bin
    for name, more, words in (('nowhere', {}, '--write=text'), ('*', {'world': 4}, 'has 3 shards .*4 in all'),
                              ('*', {'tokenizer': Tokenizer.byte([])}, '<.endoftext.>.*--tokenizer=bpe')):
        refused(words, stream_of, tmp_path / name, 8, **more)
