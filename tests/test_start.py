"""How a run may begin: its folder, checkpoint, tokenizer and data fit, or one sentence says what to do."""
import errno
import json
import math
import os
import shutil
from unittest.mock import Mock

import torch
from conftest import TINY, contents, mistake, ok, read_json, refused, run, train

from model import GPT, GPTConfig, load_checkpoint, save_checkpoint
from parts.train import checkpoint, start
from tokenizer import SPECIAL_TOKENS, Tokenizer


OURS = 'meta.json: {"format": "nanoparrot-data-1"'
RUN = {'config': {}, 'optimizers': [], 'scaler': {}}


def small(**changes):
    torch.manual_seed(0)
    return GPT(GPTConfig(**{'vocab_size': 300, 'block_size': 8, 'n_layer': 1, 'n_head': 2, 'n_kv_head': 0,
                            'n_embd': 16, **changes}))


def test_a_run_never_writes_over_another_one(tmp_path):
    check = lambda init_from='scratch', overwrite=False, out=tmp_path / 'a[1]': start.check_out_dir(
        str(out), str(init_from), overwrite)
    assert check() == check('resume') == f'{tmp_path}/a[1]/last.pt'
    (tmp_path / 'a[1]').mkdir()
    (tmp_path / 'a[1]/best.pt').write_bytes(b'')
    refused(['holds best.pt', 'no run wrote'], check, overwrite=True)
    (tmp_path / 'a[1]/train.log').write_text('starting from scratch', encoding='utf-8')
    (tmp_path / 'b').mkdir()
    refused(['already holds a run', '--init_from=resume', '--overwrite=True'], check)
    assert check('resume') == check(overwrite=True)
    for origin in (tmp_path / 'a[1]', tmp_path / 'a[1]/best.pt', tmp_path / 'b/../a[1]'):
        refused(['the model that this run starts from'], check, origin, overwrite=True)
    assert check(tmp_path / 'a[1]/best.pt', out=tmp_path)           # its parent is another folder
    # {files of a folder: the words of the refusal, if it is refused}
    for there, words in ((['config.json'], ['holds config.json', 'no run wrote']), ([OURS], None),
                         (['x.safetensors'], ['x.safetensors']), (['samples.txt', 'train.log'], None),
                         (['train.log: epoch 1'], ['holds train.log', 'no run wrote']),
                         (['meta.json: {"author": 1}', 'tokenizer.json'], ['holds tokenizer.json']),
                         (['notes.md', 'train.jsonl'], None)):
        out = tmp_path / '+'.join(there).replace('/', '')
        out.mkdir()
        for name, _, text in (name.partition(': ') for name in there):
            (out / name).write_text(text, encoding='utf-8')
        for overwrite in False, True:
            refused(words, check, overwrite=overwrite, out=out) if words else check(out=out)


def test_commands_that_only_read_work_where_a_run_is(data_dir, base_run, sft_model, conversations, pairs):
    tuned = f'--init_from={sft_model}'
    before = contents(base_run)
    for script, *flags in (('train.py', f'--data_dir={data_dir}', *TINY),
                           ('sft.py', tuned, f'--data_dir={conversations}'),
                           ('dpo.py', tuned, f'--data_dir={pairs}')):
        assert '--- step 7' in ok(run(script, *flags, f'--out_dir={base_run}', '--show_batch=7')), script
    assert '8 x H100' in ok(run('train.py', *TINY, f'--out_dir={base_run}', '--plan=8xH100'))
    assert contents(base_run) == before


def test_the_newest_readable_checkpoint_is_taken_and_only_damage_puts_one_aside(tmp_path, monkeypatch):
    """A damaged one is put aside: else the next save would push a good one out."""
    last = str(tmp_path / 'last.pt')
    refused(['no run here was saved', '--overwrite=True'], start.newest, last, load_checkpoint)
    save_checkpoint(tmp_path / 'last-1.pt', small(), step=4, **RUN)
    (tmp_path / 'last.pt').write_bytes(b'half a file')
    assert start.newest(last, load_checkpoint)[1]['step'] == 4
    save_checkpoint(f'{last}.new', small(), step=8, **RUN)
    checkpoint.rotate(last, keep=2)
    names = ('last.pt', 'last-1.pt')
    assert [checkpoint.read(tmp_path / name)['step'] for name in names] == [8, 4]
    assert (tmp_path / 'last.pt.damaged').read_bytes() == b'half a file'
    for name in names:
        (tmp_path / name).write_bytes(b'no checkpoint')
    refused(['last-1.pt', 'not a readable checkpoint'], start.newest, last, load_checkpoint)
    assert (tmp_path / 'last.pt').exists()      # perhaps it is this program that cannot read them

    for lacks in {}, {'step': -5, **RUN}, {'step': 'x', **RUN}, {'step': 1, 'config': {}}:
        save_checkpoint(last, small(), **lacks)
        save_checkpoint(tmp_path / 'last-1.pt', small(), step=4, **RUN)
        refused(['last.pt', 'no run that could be resumed'], start.newest, last, load_checkpoint)
    save_checkpoint(last, small(), step=8, **RUN)
    with monkeypatch.context() as m:            # a disk that does not answer now is no damage
        m.setattr(torch, 'load', Mock(side_effect=OSError(errno.EIO, os.strerror(errno.EIO))))
        refused([last, 'cannot be read now'], start.newest, last, load_checkpoint)
    assert start.newest(last, load_checkpoint)[1]['step'] == 8


def test_weights_that_are_not_finite_are_refused(tmp_path):
    for value in (math.nan, math.inf, -math.inf):
        model = small()
        with torch.no_grad():
            model.blocks[0].mlp.w_down.weight[3, 4] = value
        save_checkpoint(tmp_path / 'a.pt', model)
        refused(['blocks.0.mlp.w_down.weight', 'not finite'], start.load_finite, tmp_path / 'a.pt',
                load_checkpoint)


def test_another_tokenizer_of_the_same_size_is_refused(data_dir, base_run, tmp_path):
    """The ids are the same, the text is not: no loss would tell."""
    other = shutil.copytree(base_run, tmp_path / 'other')
    tokenizer = read_json(other / 'tokenizer.json')
    vocab = tokenizer['vocab']
    vocab[300], vocab[301] = vocab[301], vocab[300]
    (other / 'tokenizer.json').write_text(json.dumps(tokenizer), encoding='utf-8')
    ours = 'hash', 'the same ids mean different text', f"copy the run's own tokenizer.json back into {other}"
    mistake(run('sample.py', f'--ckpt={other}', '--prompt=def'), *ours)
    mistake(run('eval.py', f'--ckpt={other}', f'--data_dir={data_dir}'), *ours)
    data = shutil.copytree(data_dir, tmp_path / 'data')
    shutil.copy(other / 'tokenizer.json', data)
    mistake(train(data, tmp_path / 'x'), 'hash', 'tokenizer.json', 'prepare.py again')
    meta = read_json(data / 'meta.json')
    meta['tokenizer_hash'] = Tokenizer.load(data / 'tokenizer.json').hash
    (data / 'meta.json').write_text(json.dumps(meta), encoding='utf-8')
    prepare_it = f'--tokenizer={base_run}/tokenizer.json'
    mistake(train(data, tmp_path / 'x', f'--init_from={base_run}'), 'hash', str(data), prepare_it)
    mistake(run('eval.py', f'--ckpt={base_run}', f'--data_dir={data}'), prepare_it)


def test_a_model_that_cannot_do_it_is_refused(tmp_path):
    tokenizer = Tokenizer.byte(SPECIAL_TOKENS[:4])
    tokenizer.save(tmp_path / 'tokenizer.json')
    path = tmp_path / 'best.pt'
    last = str(tmp_path / 'last.pt')
    tune = lambda: start.open_to_tune(str(tmp_path), last, load_checkpoint, Tokenizer.load)
    sample = lambda: start.open_to_sample(str(tmp_path), load_checkpoint, Tokenizer.load, continues=True)
    for config, more, command, words in (
            ({'causal': False}, {'config': {'objective': 'mlm'}}, tune, 'objective=mlm.* use a model of clm'),
            ({'causal': False}, {'config': {'objective': 'mlm'}}, sample, 'objective=mlm fills gaps'),
            ({}, {'reward_head': torch.zeros(16)}, tune, 'is a reward model'),
            ({}, {'reward_head': torch.zeros(16)}, sample, 'is a reward model')):
        save_checkpoint(path, small(vocab_size=tokenizer.vocab_size, **config), **more)
        refused(words, command)
    Tokenizer.byte(['<|endoftext|>']).save(tmp_path / 'tokenizer.json')
    save_checkpoint(path, small(vocab_size=257))
    refused(['<|im_start|>', 'frame each message'], tune)
    refused(['block_size=9', 'context of 8 tokens', '--rope_scaling'], start.check_context, 'out', 8, 9)
