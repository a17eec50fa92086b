"""Filling in the middle: documents can be put back; sample.py --suffix fills the gap of a known one."""
import numpy as np
import pytest
import torch
from conftest import mistake, ok, run, save_run
from hypothesis import given, settings, strategies as st
from preparing import RAW, prepare, read, report, write

from model import GPT, GPTConfig
from parts.prepare import infilling
from parts.sample import asking
from tokenizer import SPECIAL_TOKENS, Tokenizer

TEXT = 'def größe(x):\n    return x + 1  # 漢字 🙂\n\n' * 3
TOKENIZER = Tokenizer.train([TEXT * 3 + 'while True:\n    print("hello")\n'], 374, processes=1)


def put_back(ids):
    """The pieces of a document: bytes as they were, and whether each was rearranged, and how. Written apart
    from parts/prepare/infilling.py."""
    begin, suffix_follows, middle_follows, end = [TOKENIZER.special[f'<|{name}|>'] for name in (
        'fim_prefix', 'fim_suffix', 'fim_middle', 'endoftext')]
    ids = list(ids)
    assert ids[-1] == end
    pieces = []
    while ids:
        if ids[0] != begin:
            stop = min(ids.index(mark) for mark in (begin, end) if mark in ids)
            pieces.append((TOKENIZER.decode_bytes(ids[:stop]), ''))
            ids = ids[stop + (ids[stop] == end):]
            continue
        a, b, c = ids.index(suffix_follows), ids.index(middle_follows), ids.index(end)
        prefix, suffix, middle = ids[1:a], ids[a + 1:b], ids[b + 1:c]       # SPM: the prefix is in the middle
        assert not {begin, suffix_follows, middle_follows, end} & {*prefix, *suffix, *middle}
        text = b''.join(map(TOKENIZER.decode_bytes, (prefix, middle, suffix)))
        pieces.append((text, 'PSM' if prefix else 'SPM'))
        ids = ids[c + 1:]
    return pieces


@settings(max_examples=300)
@given(st.text(max_size=60) | st.text('añ漢🙂 (:\n', min_size=20, max_size=60), st.integers(0, 2 ** 64))
def test_random_documents_are_rearranged_and_put_back(text, seed):
    text = text.encode('utf-8', 'replace').decode()
    ids = infilling.rearrange(TOKENIZER.encode(text), 1.0, 10_000, TOKENIZER, seed)
    assert b''.join(piece for piece, _ in put_back(ids)).decode() == text


def test_a_long_document_is_rearranged_piece_by_piece_and_at_most_a_cut_character_is_lost():
    ids = TOKENIZER.encode(TEXT * 30)
    for share in (0.0, 0.5, 1.0):
        for seed in range(10):
            pieces = put_back(infilling.rearrange(ids, share, 16, TOKENIZER, seed))
            assert any(how for _, how in pieces) == (share > 0)
            text = b''.join(piece for piece, _ in pieces)
            n_lost = len((TEXT * 30).encode()) - len(text)
            assert 0 <= n_lost <= (3 * len(ids) // 16 if share else 0)
            assert text.decode('utf-8', 'ignore').count('return') == (TEXT * 30).count('return')


def test_the_share_is_that_of_the_pieces_half_are_spm_and_cuts_fall_anywhere_between_characters():
    ids = TOKENIZER.encode('while x:\n    print(x)\n' * 4)
    n = 1000
    for share in (0.1, 0.5, 1.0):
        rows = [infilling.rearrange(ids, share, 10_000, TOKENIZER, seed) for seed in range(n)]
        hows = [put_back(row)[0][1] for row in rows]
        assert abs(sum(map(bool, hows)) / n - share) <= 4 * (share * (1 - share) / n) ** 0.5
    assert abs(hows.count('SPM') / n - 0.5) < 0.07

    assert infilling.split('abcdef', 0.8, 0.2) == ('a', 'bcde', 'f')
    ends = {infilling.split('abc', *np.random.default_rng(i).random(2)) for i in range(500)}
    assert len(ends) == 4 * 5 // 2 and ('', 'abc', '') in ends and ('a', '', 'bc') in ends


def test_prepare_rearranges_training_documents_and_no_others(tmp_path):
    bodies = [''.join(f'    x = x + {i * j}\n' for j in range(i)) for i in range(60)]
    texts = [f'def f{i}(x):\n{body}    return x\n' for i, body in enumerate(bodies)]
    source = write(tmp_path / 'files', texts)
    fim = ['--fim=0.5', '--fim_length=64']
    bins = {}
    bpe = [*RAW, '--tokenizer=bpe', '--vocab_size=400']
    for name, flags in (('plain', []), ('one', fim), ('two', [*fim, '--num_workers=2'])):
        prepare(tmp_path / name, source, *bpe, '--num_workers=1', *flags)
        _, tok, bins[name] = read(tmp_path / name)
    assert (bins['one']['val'] == bins['plain']['val']).all()
    assert (bins['one']['train'] == bins['two']['train']).all()
    plain, rearranged = [tok.decode_bytes(ids[ids < tok.special['<|endoftext|>']].tolist())
                         for ids in (bins['plain']['train'], bins['one']['train'])]
    assert len(plain) == len(rearranged) and plain != rearranged
    n_middle = (bins['one']['train'] == tok.special['<|fim_middle|>']).sum()
    assert 20 < n_middle == (bins['one']['train'] == tok.special['<|fim_suffix|>']).sum()
    assert report(tmp_path / 'one')['tokens']['train'] == len(bins['one']['train'])


# --- sample.py --suffix -------------------------------------------------------------------------------------
DOCUMENT = 'def größe(x):\n    return x + 1  # grey or green\n'


@pytest.fixture(scope='module')
def filler(tmp_path_factory):
    """A tiny model that knows 12 rearrangements of one document by heart, and these."""
    tokenizer = Tokenizer.byte(SPECIAL_TOKENS)
    text = tokenizer.encode(DOCUMENT)
    rows = [infilling.rearrange(text, 1.0, 1000, tokenizer, seed) for seed in range(12)]      # of one length
    ids = torch.tensor(rows)
    torch.manual_seed(0)
    model = GPT(GPTConfig(tokenizer.vocab_size, 128, 2, 2, 2, 64, 128))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.99), weight_decay=0)
    for _ in range(100):
        model(ids[:, :-1], ids[:, 1:])[1].backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp('filler')
    save_run(folder, model, tokenizer)
    (folder / 'data.json').write_text('{"config": {"fim": 1.0}}', encoding='utf-8')
    gaps = []
    suffix_follows, middle_follows = tokenizer.special['<|fim_suffix|>'], tokenizer.special['<|fim_middle|>']
    for row in rows:
        a, b = row.index(suffix_follows), row.index(middle_follows)
        if a > 1 and len(row) - b - 2 <= 30:    # PSM, and short enough for an answer
            gaps.append([tokenizer.decode(part) for part in (row[1:a], row[b + 1:-1], row[a + 1:b])])
    return gaps, folder


def test_sample_fills_the_middle_of_a_known_document_and_stops(filler):
    gaps, folder = filler
    assert len(gaps) >= 3 and len({prefix for prefix, _, _ in gaps}) == len(gaps)
    line = '-' * 80
    for prefix, middle, suffix in gaps:
        flags = f'--ckpt={folder}', f'--prompt={prefix}', '--temperature=0', '--device=cpu'
        said = ok(run('sample.py', *flags, f'--suffix={suffix}'))
        assert f'{line}\n{prefix}{middle}{suffix}\n{line}\n' in said
        said = ok(run('sample.py', *flags))                 # nothing tells it where to stop
        assert f'\n{prefix}{middle}\n{line}\n' not in said
    said = ok(run('sample.py', *flags, f'--suffix={suffix}', '--num_samples=2'))
    assert said.count(f'{prefix}{middle}{suffix}\n{line}\n') == 2
    (folder / 'data.json').write_text('{}', encoding='utf-8')
    mistake(run('sample.py', *flags, f'--suffix={suffix}'), '--fim', '--suffix')


def test_a_question_that_is_too_long_loses_its_far_ends():
    tokenizer = Tokenizer.byte(SPECIAL_TOKENS)
    for before, after in ((10, 90), (90, 10), (90, 90), (0, 90), (30, 30)):
        text = ''.join(map(chr, range(33, 123)))
        prompt, most = asking.between(tokenizer, text[:before], text[:after], 100, 20)
        begin, suffix, middle = (prompt.ids.index(tokenizer.special[f'<|fim_{name}|>'])
                                 for name in ('prefix', 'suffix', 'middle'))
        assert len(prompt.ids) <= 80 and most == 20 and begin == 0 and middle == len(prompt.ids) - 1
        kept = [tokenizer.decode(prompt.ids[1:suffix]), tokenizer.decode(prompt.ids[suffix + 1:middle])]
        assert text[:before].endswith(kept[0]) and text[:after].startswith(kept[1])
        assert len(prompt.ids) == min(80, before + after + 3)
        assert min(map(len, kept)) >= min(before, after, 38)
