"""python -m extras.new_vocabulary: a model gets another tokenizer, and train.py goes on from the folder."""
from types import SimpleNamespace

import torch
from conftest import mistake, ok, run, series, train

from extras.new_vocabulary import carried_over, carry_over
from model import GPT, GPTConfig
from tokenizer import SPECIAL_TOKENS, Tokenizer

carry = lambda *flags: run('extras.new_vocabulary', *flags)


def test_another_vocabulary_starts_near_where_the_old_one_was(data_dir, python_files, tmp_path):
    base = tmp_path / 'a'
    ok(train(data_dir, base, '--max_steps=60', '--learning_rate=3e-3', '--eval_interval=60',
             '--save_interval=60'))
    ok(run('prepare.py', f'--source={python_files}', f'--out_dir={tmp_path}/data', '--vocab_size=640'))
    data, flags = tmp_path / 'data', ['--max_steps=1', '--warmup_steps=0', '--eval_interval=1']
    asked = [f'--init_from={base}', f'--data_dir={data}']
    said = ok(carry(*asked, f'--out_dir={tmp_path}/carried'))
    assert 'of 640 tokens keep' in said and f'--init_from={tmp_path}/carried --data_dir={data}' in said
    ok(train(data, tmp_path / 'b', *flags, f'--init_from={tmp_path}/carried'))
    ok(train(data, tmp_path / 'c', *flags))
    old, extended, untrained = (series(out, 'val_bpb') for out in (base, tmp_path / 'b', tmp_path / 'c'))
    assert extended[0] < (old[-1] + untrained[0]) / 2

    mistake(carry(*asked, f'--out_dir={base}'), f'--out_dir={base}', 'already')
    mistake(carry(f'--init_from={tmp_path}', f'--out_dir={tmp_path}/x'), '--init_from', 'no best.pt')
    mistake(carry(asked[0], f'--data_dir={tmp_path}', f'--out_dir={tmp_path}/x'), 'tokenizer.json')
    assert not (tmp_path / 'x').exists()


def test_rows_are_kept_or_means_of_what_spells_them():
    old = Tokenizer.train(['low lower lowest'] * 9, 256 + 3, [])
    new = Tokenizer.train(['low lower lowest slow'] * 9, 256 + 6 + len(SPECIAL_TOKENS))
    weight = torch.randn(old.vocab_size, 5)
    rows = carry_over(weight, old, new)
    assert rows.shape == (new.vocab_size, 5) and (rows[:256] == weight[:256]).all()
    for i, token in enumerate(new.vocab[256:], 256):
        assert torch.allclose(rows[i], weight[old.encode(token.decode())].mean(0))
    assert torch.allclose(rows[new.special['<|mask|>']], weight.mean(0))

    new = Tokenizer.train(['éèéè'] * 9, 256 + 1, [])
    assert new.vocab[256] == b'\xa9\xc3'                # no text: by its bytes
    assert torch.allclose(carry_over(weight, old, new)[256], weight[[0xa9, 0xc3]].mean(0))

    new = SimpleNamespace(all_bytes=[b'l', b''], special={})        # Hugging Face's ids may have no token
    assert torch.allclose(carry_over(weight, old, new)[1], weight.mean(0))


def test_both_matrices_are_carried_over_and_rows_that_belong_to_no_token_are_in_no_mean():
    old, new = Tokenizer.byte(), Tokenizer.train(['low lower lowest'] * 9, 256 + 3, ['<|mask|>'])
    for tied in True, False:
        model = GPT(GPTConfig(old.vocab_size, 8, 1, 2, 0, 16, tie_embeddings=tied, vocab_multiple=96))
        model.embedding.weight.data[old.vocab_size:] = 1000.0
        copy = carried_over(model, old, new)
        assert copy.config.vocab_size == 259 and len(copy.head.weight) == 288
        for name in 'embedding.weight', 'head.weight':
            rows, before = copy.state_dict()[name], model.state_dict()[name]
            assert torch.equal(rows[:256], before[:256]) and rows[256:].abs().max() < 1, name
        assert (copy.head.weight is copy.embedding.weight) == tied
