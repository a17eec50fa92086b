"""Prepared data: exact splits, nothing lost, nothing on both sides, figures that add up."""
import collections
import hashlib
import json

import numpy as np
import pytest
from conftest import SHARED, ok, run

from tokenizer import Tokenizer

FOX = 'The quick brown fox jumps over the lazy dog.\n'
# 60 documents; among them what encoders stumble over
DOCUMENTS = [f'# {i}\n' + ''.join(f'def f{i}_{j}(x):\n    return x + {i * j}\n' for j in range(i % 7 + 1))
             for i in range(54)]
DOCUMENTS += ['a\r\nb\r\n', 'no newline', '<|endoftext|> typed by a user\n', 'naïve 漢字 🦜\n',
              '\ttab and trailing blank \n\n\n', '\ufeffbyte order mark\n']


RAW = ['--mode=raw', '--dedup=none', '--pii=False']          # nothing is cleaned


def prepare(out, source, *flags):
    return ok(run('prepare.py', f'--source={source}', f'--out_dir={out}', '--vocab_size=400', *RAW, *flags))


def read(out):
    """meta, tokenizer, {'train', 'val'}: token ids"""
    meta = json.loads((out / 'meta.json').read_text(encoding='utf-8'))
    bins = {side: np.fromfile(out / f'{side}.bin', meta['dtype']) for side in ('train', 'val')}
    return meta, Tokenizer.load(out / 'tokenizer.json'), bins


def documents(out):
    """{'train', 'val'}: the documents that the bins hold, in order"""
    _, tok, bins = read(out)
    found = {}
    for side, ids in bins.items():
        ends = np.flatnonzero(ids == tok.special['<|endoftext|>'])
        assert ends[-1] == len(ids) - 1             # every document ends, the last one too
        found[side] = [tok.decode(part[:-1]) for part in np.split(ids, ends + 1)[:-1]]
    return found


def write(folder, texts, name='{:03}.txt'):
    folder.mkdir(parents=True)
    for i, text in enumerate(texts):
        (folder / name.format(i)).write_bytes(text.encode())
    return folder


def report(out):
    return json.loads((out / 'report.json').read_text(encoding='utf-8'))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp('source') / 'files', DOCUMENTS)


@pytest.fixture(scope='module')
def prepared(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp('prepared')
    prepare(out, folder, '--val_fraction=0.3')
    return out


def test_tiny_shakespeare_has_the_published_sizes_and_decodes_to_itself(tmp_path):
    source = SHARED / 'tinyshakespeare.txt'
    if not source.exists():
        pytest.skip(f'{source} is not here')
    prepare(tmp_path, source, '--tokenizer=char')
    meta, tok, bins = read(tmp_path)
    assert (len(bins['train']), len(bins['val']), tok.vocab_size) == (1_003_854, 111_540, 65)
    assert (tok.decode(bins['train']) + tok.decode(bins['val'])).encode() == source.read_bytes()


def test_the_byte_tokenizer_has_256_ids_and_they_are_the_file(tmp_path):
    text = (FOX * 20 + 'naïve 漢字\r\n').encode()
    (tmp_path / 'one.txt').write_bytes(text)
    prepare(tmp_path, tmp_path / 'one.txt', '--tokenizer=byte')
    meta, tok, bins = read(tmp_path)
    assert meta['vocab_size'] == tok.vocab_size == 256 and bytes([*bins['train'], *bins['val']]) == text


def test_the_bins_give_back_every_document_once(prepared):
    found = documents(prepared)
    assert collections.Counter(found['train'] + found['val']) == collections.Counter(DOCUMENTS)
    assert 6 <= len(found['val']) <= 30                                 # 18 of 60 on average, 3.5 sigma


def test_the_split_follows_from_the_document_alone(prepared, tmp_path):
    copies = DOCUMENTS + DOCUMENTS[::3] + [f'{FOX}{i}' for i in range(40)]
    source = write(tmp_path / 'renamed', copies[::-1], 'z{}.md')
    prepare(tmp_path / 'out', source, '--val_fraction=0.3', '--tokenizer=byte')
    before, after = documents(prepared), documents(tmp_path / 'out')
    for side in ('train', 'val'):
        assert set(before[side]) == set(after[side]) & set(DOCUMENTS)
    assert collections.Counter(after['train'] + after['val']) == collections.Counter(copies)
    assert not set(after['train']) & set(after['val'])                  # no text on both sides


def test_the_tokenizer_is_trained_on_training_documents_only(prepared):
    tok = read(prepared)[1]
    assert tok.hash == Tokenizer.train(documents(prepared)['train'], 400).hash
    assert tok.hash != Tokenizer.train(DOCUMENTS, 400).hash


def test_the_same_input_gives_the_same_bytes(prepared, folder, tmp_path):
    prepare(tmp_path, folder, '--val_fraction=0.3')
    names = 'train.bin', 'val.bin', 'tokenizer.json', 'report.json'
    assert [(tmp_path / n).read_bytes() for n in names] == [(prepared / n).read_bytes() for n in names]


def test_report_and_meta_add_up_to_what_is_on_disk(tmp_path):
    source = write(tmp_path / 'files', [*DOCUMENTS, '', ' \n\t\n', ''])
    prepare(tmp_path / 'out', source)
    r, (meta, _, bins), found = report(tmp_path / 'out'), read(tmp_path / 'out'), documents(tmp_path / 'out')
    size = sum(len(text.encode()) for text in DOCUMENTS)
    first = r['stages'][0]
    assert (first['docs_in'], first['bytes_in'], first['dropped']) == (63, size + 4, {'empty': 3})
    for stage in r['stages']:
        assert stage['docs_in'] == stage['docs_out'] + sum(stage['dropped'].values())
    chain = [*((s['docs_in'], s['bytes_in']) for s in r['stages'][1:]), (60, size)]
    assert [(s['docs_out'], s['bytes_out']) for s in r['stages']] == chain
    assert (sum(r['documents'].values()), sum(r['bytes'].values())) == (60, size)
    for side, ids in bins.items():
        data = (tmp_path / 'out' / f'{side}.bin').read_bytes()
        assert r['tokens'][side] == meta['tokens'][side] == len(ids) == len(data) / 2
        assert r['documents'][side] == len(found[side])
        assert r['bytes'][side] == sum(len(text.encode()) for text in found[side])
        assert meta['sha256'][side] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize('name', ['uint16', 'uint32', 'gpt2'])
def test_ids_are_as_wide_as_the_vocabulary_asks(folder, tmp_path, name):
    flags, size = [f'--tokenizer={tmp_path}/big.json'], 2 ** 16 + (name == 'uint32')
    if name == 'gpt2':
        if not (SHARED / 'gpt2_vocab.bpe').exists():
            pytest.skip('the files of GPT-2 are not here')
        flags, size = ['--tokenizer=gpt2', f'--gpt2_dir={SHARED}'], 50304
    else:   # pairs of bytes; the last one, `og`, is in the texts: so the largest ids are really used
        pairs = [bytes([a, b]) for a in range(256) for b in range(256) if (a, b) != (ord('o'), ord('g'))]
        vocab = [bytes([b]) for b in range(256)] + pairs[:size - 256 - 2] + [b'og']
        Tokenizer('bpe', vocab, ['<|endoftext|>']).save(tmp_path / 'big.json')
    prepare(tmp_path / 'out', folder, *flags)
    meta, tok, bins = read(tmp_path / 'out')
    assert meta['vocab_size'] == tok.vocab_size == size
    assert meta['dtype'] == name.replace('gpt2', 'uint16')
    assert name == 'gpt2' or bins['train'].max() == size - 1
    found = documents(tmp_path / 'out')
    assert collections.Counter(found['train'] + found['val']) == collections.Counter(DOCUMENTS)
