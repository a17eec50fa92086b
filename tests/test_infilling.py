"""Filling in the middle: prepare.py rearranges training documents; sample.py --suffix fills a known gap."""
import pytest
import torch
from conftest import mistake, ok, run, save_run
from preparing import RAW, prepare, read, report, write

from model import GPT, GPTConfig
from parts.prepare import infilling
from tokenizer import SPECIAL_TOKENS, Tokenizer


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
