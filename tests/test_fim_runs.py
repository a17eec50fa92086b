"""sample.py --suffix: a model that has seen documents rearranged fills the gap, and knows where it ends."""
import pytest
import torch
from conftest import mistake, ok, run

from parts.prepare import infilling
from parts.sample import asking
from parts.sample.decoding import Batch
from model import GPT, GPTConfig, save_checkpoint
from tokenizer import SPECIAL_TOKENS, Tokenizer

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
    tokenizer.save(folder / 'tokenizer.json')
    save_checkpoint(folder / 'best.pt', model, tokenizer_hash=tokenizer.hash)
    (folder / 'data.json').write_text('{"config": {"fim": 1.0}}', encoding='utf-8')
    gaps = []
    suffix_follows, middle_follows = tokenizer.special['<|fim_suffix|>'], tokenizer.special['<|fim_middle|>']
    for row in rows:
        a, b = row.index(suffix_follows), row.index(middle_follows)
        if a > 1 and len(row) - b - 2 <= 30:    # PSM, and short enough for an answer
            gaps.append([tokenizer.decode(part) for part in (row[1:a], row[b + 1:-1], row[a + 1:b])])
    return model.eval(), tokenizer, gaps, folder


def test_a_model_that_knows_a_document_fills_its_middle_and_stops(filler):
    model, tokenizer, gaps, _ = filler
    assert len(gaps) >= 3 and len({prefix for prefix, _, _ in gaps}) == len(gaps)
    for prefix, middle, suffix in gaps:
        batch = Batch(model, tokenizer.stop)
        prompt, most = asking.between(tokenizer, prefix, suffix, 128, 200)
        assert most == 32 and len(prompt.ids) + most <= 128
        [[answer]], _ = asking.generate(batch, tokenizer, [prompt], 1, most, temperature=0.0)
        assert answer == (middle, True)
        [[control]], _ = asking.generate(batch, tokenizer, [prefix], 1, most, temperature=0.0)
        assert control != (middle, True)        # nothing tells it where to stop


def test_sample_prints_the_whole_with_the_middle(filler):
    _, _, gaps, folder = filler
    prefix, middle, suffix = gaps[0]
    flags = f'--ckpt={folder}', f'--prompt={prefix}', '--temperature=0', '--device=cpu'
    line = '-' * 80
    said = ok(run('sample.py', *flags, f'--suffix={suffix}'))
    assert f'{line}\n{prefix}{middle}{suffix}\n{line}\n' in said
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
