"""From another run's weights: new data, a share of the old, another vocabulary."""
from types import SimpleNamespace

import torch
from conftest import ok, run, series, train

from parts.model import copies
from tokenizer import SPECIAL_TOKENS, Tokenizer


def test_another_vocabulary_starts_near_where_the_old_one_was(data_dir, python_files, tmp_path):
    base = tmp_path / 'a'
    ok(train(data_dir, base, '--max_steps=60', '--learning_rate=3e-3', '--eval_interval=60',
             '--save_interval=60'))
    ok(run('prepare.py', f'--source={python_files}', f'--out_dir={tmp_path}/data', '--vocab_size=640'))
    data, flags = tmp_path / 'data', ['--max_steps=1', '--warmup_steps=0', '--eval_interval=1']
    ok(train(data, tmp_path / 'b', *flags, f'--init_from={base}', '--extend_vocab=True'))
    ok(train(data, tmp_path / 'c', *flags))
    old, extended, untrained = (series(out, 'val_bpb') for out in (base, tmp_path / 'b', tmp_path / 'c'))
    assert extended[0] < (old[-1] + untrained[0]) / 2


def test_rows_are_kept_or_means_of_what_spells_them():
    old = Tokenizer.train(['low lower lowest'] * 9, 256 + 3, [])
    new = Tokenizer.train(['low lower lowest slow'] * 9, 256 + 6 + len(SPECIAL_TOKENS))
    weight = torch.randn(old.vocab_size, 5)
    rows = copies.carry_over(weight, old, new)
    assert rows.shape == (new.vocab_size, 5) and (rows[:256] == weight[:256]).all()
    for i, token in enumerate(new.vocab[256:], 256):
        assert torch.allclose(rows[i], weight[old.encode(token.decode())].mean(0))
    assert torch.allclose(rows[new.special['<|mask|>']], weight.mean(0))

    new = Tokenizer.train(['éèéè'] * 9, 256 + 1, [])
    assert new.vocab[256] == b'\xa9\xc3'                # no text: by its bytes
    assert torch.allclose(copies.carry_over(weight, old, new)[256], weight[[0xa9, 0xc3]].mean(0))

    new = SimpleNamespace(all_bytes=[b'l', b''], special={})        # Hugging Face's ids may have no token
    assert torch.allclose(copies.carry_over(weight, old, new)[1], weight.mean(0))
