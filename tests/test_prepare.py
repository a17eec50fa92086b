"""prepare.py: exact splits, nothing lost, mixtures to the token, what each stage drops, mistakes."""
import gzip
import hashlib
import json
import os
import pathlib
import random
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, contents, mistake, ok, read_json, refused, run, shared
from preparing import DOCUMENTS, FOX, PROSE, RAW, WORDS, prose, write, write_records
from preparing import documents, dropped, kept, prepare, read, report

from extras import chats
from prepare import check_out_dir, hashes_of
from tokenizer import Tokenizer

BPE = [*RAW, '--tokenizer=bpe', '--vocab_size=400']
OFF = [f'--{name}=0'
       for name in ('min_words', 'max_symbols', 'max_repetition', 'max_gibberish')]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp('source') / 'files', DOCUMENTS)


@pytest.fixture(scope='module')
def prepared(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp('prepared')
    prepare(out, folder, *BPE, '--val_fraction=0.3')
    return out


# --- split and bins -----------------------------------------------------------------------------------------
def test_tiny_shakespeare_has_the_published_sizes_and_decodes_to_itself(tmp_path):
    source = shared('tinyshakespeare.txt')
    prepare(tmp_path, source, '--tokenizer=char')
    _, tok, bins = read(tmp_path)
    assert (len(bins['train']), len(bins['val']), tok.vocab_size) == (1_003_854, 111_540, 65)
    assert (tok.decode(bins['train']) + tok.decode(bins['val'])).encode() == source.read_bytes()


def test_the_bytes_of_a_single_text_are_its_tokens_and_there_is_nothing_to_report(folder, tmp_path):
    text = (FOX * 20 + 'naïve 漢字\r\n').encode()
    (tmp_path / 'one.txt').write_bytes(text)
    prepare(tmp_path / 'out', folder, *RAW, '--write=text', '--audit=1')        # its files go
    prepare(tmp_path / 'out', tmp_path / 'one.txt', '--vocab_size=256')         # that is for bpe
    meta, tok, bins = read(tmp_path / 'out')
    assert meta['vocab_size'] == tok.vocab_size == 256 and bytes([*bins['train'], *bins['val']]) == text
    assert sorted(contents(tmp_path / 'out')) == ['meta.json', 'tokenizer.json', 'train.bin', 'val.bin']
    (tmp_path / 'mine').mkdir()
    flags = [f'--source={tmp_path}/one.txt', '--out_dir=.', '--tokenizer=byte']
    assert ok(run('prepare.py', *flags, cwd=tmp_path / 'mine')).endswith('--out_dir=out/mine\n')


def test_the_bins_give_back_every_document_once(prepared):
    assert kept(prepared) == sorted(DOCUMENTS)
    assert 6 <= len(documents(prepared)['val']) <= 30    # 18 of 60 on average, 3.5 sigma


def test_the_split_follows_from_the_document_alone(prepared, tmp_path):
    copies = DOCUMENTS + DOCUMENTS[::3] + [f'{FOX}{i}' for i in range(40)]
    source = write(tmp_path / 'renamed', copies[::-1], 'z{}.md')
    prepare(tmp_path / 'out', source, *RAW, '--val_fraction=0.3')
    before, after = documents(prepared), documents(tmp_path / 'out')
    for side in ('train', 'val'):
        assert set(before[side]) == set(after[side]) & set(DOCUMENTS)
    assert kept(tmp_path / 'out') == sorted(copies)
    assert not set(after['train']) & set(after['val'])


def test_what_a_rule_keeps_by_chance_can_be_held_out(tmp_path):
    files = [f'# Unit tests\ndef f():\n    a = b = c = d = e = {i}\n' for i in range(60)]
    prepare(tmp_path / 'out', write(tmp_path / 'in', files, '{}.py'), '--val_fraction=0.5', '--dedup=none')
    assert min(map(len, documents(tmp_path / 'out').values())) >= 3


def test_the_tokenizer_is_trained_on_training_documents_only(prepared):
    tok = read(prepared)[1]
    assert tok.hash == Tokenizer.train(documents(prepared)['train'], 400).hash
    assert tok.hash != Tokenizer.train(DOCUMENTS, 400).hash


def test_the_same_input_gives_the_same_bytes_and_a_run_that_fails_leaves_them(prepared, folder, tmp_path):
    printed = prepare(tmp_path / 'out', folder, *BPE, '--val_fraction=0.3', '--num_workers=1')
    texts, ids = documents(prepared), read(prepared)[2]
    for side in 'train', 'val':
        assert f'\n- {side}: documents: {len(texts[side]):,}, tokens: {len(ids[side]):,}, ' in printed
    before = contents(tmp_path / 'out')
    assert {name for name, data in contents(prepared).items() if data != before[name]} == {'report.md'}
    source = write(tmp_path / 'one', [FOX, 'not json\n'], '{}.jsonl')
    mistake(run('prepare.py', f'--source={source}', '--mode=raw', f'--out_dir={tmp_path}/out',
                '--overwrite=True'), 'no documents are left')
    assert contents(tmp_path / 'out') == before


def test_report_and_meta_say_what_is_on_the_disk(prepared):
    r, (meta, _, bins), sides = report(prepared), read(prepared), documents(prepared)
    for side, ids in bins.items():
        assert r['tokens'][side] == meta['tokens'][side] == len(ids)
        assert r['documents'][side] == len(sides[side])
        assert r['bytes'][side] == sum(len(text.encode()) for text in sides[side])
        assert meta['sha256'][side] == hashlib.sha256((prepared / f'{side}.bin').read_bytes()).hexdigest()


def test_ids_are_as_wide_as_the_vocabulary_asks(folder, tmp_path):
    for dtype, size in (('uint16', 2 ** 16), ('uint32', 2 ** 16 + 1)):
        special = [f'<|{i}|>' for i in range(size - 257)]
        Tokenizer.byte([*special, '<|endoftext|>']).save(tmp_path / 'big.json')      # the largest id is used
        prepare(tmp_path / 'out', folder, *RAW, f'--tokenizer={tmp_path}/big.json')
        meta, _, bins = read(tmp_path / 'out')
        assert (meta['dtype'], meta['vocab_size'], bins['train'].max()) == (dtype, size, size - 1)
        assert kept(tmp_path / 'out') == sorted(DOCUMENTS)


# --- several machines, and shards of text ------------------------------------------------------------------
ALONE = ['--tokenizer=bpe', '--vocab_size=330', '--num_workers=1']


@pytest.fixture(scope='module')
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shards')
    for i in range(5):
        write_records(folder / f'{i}.jsonl', [
            {'text': prose(i * 30 + j, 60 if j else 9), 'license': 'MIT', 'url': f'https://a.org/{j}',
             'repo_name': 'r', 'path': f'{j}'} for j in range(30)])
    return folder


def test_parts_together_give_what_one_process_gives(shards, tmp_path):
    prepare(tmp_path / 'one', shards, *ALONE)
    many = [f'--source={shards}', f'--out_dir={tmp_path}/many', *ALONE]
    command = [sys.executable, ROOT / 'prepare.py', *many]
    some = [subprocess.Popen([*command, f'--part={i}/2'], stdout=subprocess.PIPE, text=True) for i in (1, 2)]
    printed = [process.communicate(timeout=120)[0] for process in some]         # both began at once
    assert 'part 1/2: 3 shards are clean' in printed[0] and 'part 2/2: 2 shards are clean' in printed[1]
    assert not (tmp_path / 'many/meta.json').exists()
    prepare(tmp_path / 'many', shards, *ALONE)
    for name in ('train.bin', 'val.bin', 'tokenizer.json', 'report.json'):
        assert (tmp_path / 'many' / name).read_bytes() == (tmp_path / 'one' / name).read_bytes(), name


def test_shards_of_text_say_what_they_are_and_where_each_document_is_from(shards, tmp_path):
    prepare(tmp_path, shards, '--write=text')
    meta = read_json(tmp_path / 'meta.json')
    n = 0
    for i in range(5):
        data = (tmp_path / f'shards/{i:05}.jsonl.gz').read_bytes()
        lines = gzip.decompress(data).splitlines()
        assert meta['sha256'][f'{i:05}'] == hashlib.sha256(data).hexdigest()
        for line in map(json.loads, lines):
            assert line['license'] == 'MIT' and line['url'].startswith('https://a.org/') and line['text']
            assert line['source'] == str(shards) and ' r/' in line['path']
        n += len(lines)
    assert n == meta['documents']['train']
    s = report(tmp_path)['sources'][str(shards)]
    assert s['read'] == 150 == 5 + sum(meta['documents'].values())


# --- several sources ----------------------------------------------------------------------------------------
SIZES = {'web': 400, 'code': 120, 'stdlib': 40}         # documents of 50 to 100 bytes; a name is no path


@pytest.fixture(scope='module')
def corpora(tmp_path_factory):
    """A file of records for each source; each text begins with the name of its source."""
    folder = tmp_path_factory.mktemp('mix')
    for name, n in SIZES.items():
        words = [' '.join(f'word{i * 7 + j * 13}' for j in range(5 + n // 60)) for i in range(n)]
        rows = [{'text': f'{name} {i}: {words[i]}\n', 'licence': f'{name}-1'} for i in range(n)]
        write_records(folder / f'{name}.jsonl', rows)
    return folder


def mix(corpora, tmp_path, weights, *flags):
    """(meta.json, what is printed) of a mixture with these weights"""
    sources = {name: (str(corpora / f'{name}.jsonl'), weight) for name, weight in weights.items()}
    (tmp_path / 'mix.py').write_text(f'sources = {sources!r}\n', encoding='utf-8')
    flags = [f'--out_dir={tmp_path}/data', '--tokenizer=byte', *RAW, *flags]
    printed = ok(run('prepare.py', tmp_path / 'mix.py', '--overwrite=True', *flags))
    return read_json(tmp_path / 'data/meta.json'), printed


def test_weights_become_passes_over_sources_that_train_bin_holds_once(corpora, tmp_path):
    meta, printed = mix(corpora, tmp_path, {'web': 50, 'code': 15, 'stdlib': 35}, '--audit=1')
    assert meta['mixed'] is False and 'train.bin alone is unweighted' in printed
    _, tok, bins = read(tmp_path / 'data')
    end, n = 0, meta['tokens']['train']
    for name, weight in zip(SIZES, (0.5, 0.15, 0.35)):
        s = meta['sources'][name]
        texts = tok.decode(bins['train'][end:end + s['tokens']]).split('<|endoftext|>')[:-1]
        assert len(texts) == s['documents'] and all(text.startswith(name) for text in texts)
        assert s['tokens'] * s['passes'] == pytest.approx(weight * n, rel=1e-4)
        end += s['tokens']
    assert end == n == len(bins['train'])
    # the card is that of what a model reads; `stdlib` has not the licence of the real one
    licences = report(tmp_path / 'data')['card']['licences']
    assert licences == pytest.approx({'web-1': 0.5, 'code-1': 0.15, 'stdlib-1': 0.35}, abs=0.01)
    assert 'more than 4 passes' in (tmp_path / 'data/report.md').read_text(encoding='utf-8')

    # each source has a validation file of its own
    n = meta['documents']
    assert [*n] == [*meta['tokens']] == [*meta['bytes']] == ['train', 'val']    # other scripts add them up
    assert n['train'] == sum(s['documents'] for s in meta['sources'].values())
    parts = [np.fromfile(tmp_path / f'data/val_{name}.bin', meta['dtype']) for name in SIZES]
    assert (np.concatenate(parts) == bins['val']).all()
    for name, part in zip(SIZES, parts):
        texts = tok.decode(part).split('<|endoftext|>')[:-1]
        assert {text.split()[0] for text in texts} == {name}
        assert f'\n- val_{name}: documents: {len(texts)}, ' in printed
    mix(corpora, tmp_path, {'stdlib': 1})                                   # stale files go
    assert not list(tmp_path.glob('data/val_*.bin'))


def test_temperature_flattens_the_shares(corpora, tmp_path):
    meta, _ = mix(corpora, tmp_path, dict.fromkeys(SIZES), '--temperature=5')
    powers = {name: s['tokens'] ** (1 / 5) for name, s in meta['sources'].items()}
    for name, s in meta['sources'].items():
        share = s['tokens'] * s['passes'] / meta['tokens']['train']
        assert share == pytest.approx(powers[name] / sum(powers.values()), rel=1e-4), name


def test_the_seeds_preset_is_a_valid_mix():
    scope = {}
    exec((ROOT / 'config/mix.py').read_text(encoding='utf-8'), scope)
    weights = [weight for _, weight in scope['sources'].values()]
    assert weights == [50, 15, 10, 25] and list(scope['sources'])[:3] == ['web', 'code', 'academic']


def test_a_copy_in_a_later_source_is_dropped_and_a_source_of_copies_is_named(corpora, tmp_path):
    old = (corpora / 'web.jsonl').read_text(encoding='utf-8')
    (corpora / 'again.jsonl').write_text(old + json.dumps({'text': 'something new\n' * 3}), encoding='utf-8')
    meta, _ = mix(corpora, tmp_path, {'web': None, 'again': None}, '--dedup=exact', '--val_fraction=0.2')
    assert sum(meta['documents'].values()) == 401 and meta['sources']['again']['documents'] == 1
    (corpora / 'again.jsonl').write_text(old, encoding='utf-8')
    mistake(run('prepare.py', tmp_path / 'mix.py', f'--out_dir={tmp_path}/x', *RAW, '--dedup=exact'),
            'left to train on from the source again (400 in all; could not be read: 0; '
            'dropped: exact duplicate: 400; of copies, the first one stays)')


def test_of_several_sources_of_conversations_one_may_have_nothing_left(corpora, tmp_path):
    rows = [{'prompt': prose(i, 5), 'completion': prose(-i, 5), 'score': 1} for i in range(40)]
    write_records(corpora / 'chats.jsonl', rows)
    write_records(corpora / 'none.jsonl', [{'prompt': 'no answer'}])
    Tokenizer.byte().save(tmp_path / 'byte.json')           # what has no <|endoftext|> is of no matter here
    mix(corpora, tmp_path, {'none': None, 'chats': None}, '--kind=sft', f'--tokenizer={tmp_path}/byte.json')
    assert sum(report(tmp_path / 'data')['documents'].values()) == 40
    flags = [f'--out_dir={tmp_path}/x', '--kind=sft', '--min_score=9']
    mistake(run('prepare.py', tmp_path / 'mix.py', *flags),
            'left to train on from the source none and chats (0 in all', 'dropped: low score: 40;')


# --- what each stage drops ----------------------------------------------------------------------------------
OWN = ['--dedup=none', '--val_fraction=0.3']


def test_rules_are_switched_off_by_zero(tmp_path):
    odd = ['short', '= ' * 200 + 'x', 'buy ' * 300, 'xkcdvbnm ' * 30]
    source = write(tmp_path / 'files', PROSE + odd)
    for flags, reasons in ([], {'short': 1, 'symbols': 1, 'repetitive': 2}), (OFF, {}):
        prepare(tmp_path / 'out', source, *OWN, *flags)
        assert dropped(tmp_path / 'out') == reasons


def planted():
    """Good documents, and {(stage, reason): rubbish that it must hit}."""
    code = [f'"""{prose(i)}"""\n' + ''.join(f'def {w}(x):\n    y = x + {i}\n    return y\n'
                                            for w in WORDS[i * 9:i * 9 + 9]) for i in range(40)]
    good = [prose(i) for i in range(60)]
    near = [f'{prose(i + 100, 400)}\n' for i in range(3)]
    return good + near + code, {
        ('read', 'empty'): ['', ' ', '\n'],
        ('rules', 'short'): [f'too short {w}' for w in WORDS[:12]],
        ('rules', 'symbols'): [f'{w} ' + '@#$% ' * 30 for w in WORDS[:7]],
        ('rules', 'does not parse'): [text.replace('(x):', '(x:', 1) for text in code[:8]],
        ('rules', 'long line'): [f'{code[1]}# {"long " * 250}\n'],
        ('exact duplicates', 'exact duplicate'): [text.replace('.', '.\n\n') for text in good[:9]],
        ('near duplicates', 'near duplicate'): [f'{text}one more\n' for text in near]}


def test_every_document_is_dropped_for_its_reason_and_the_figures_add_up(tmp_path):
    good, rubbish = planted()
    texts = good + sum(rubbish.values(), [])
    paths = ['x.py' if text.startswith('"') else 'x.txt' for text in texts]
    write_records(tmp_path / 'x.jsonl', [{'text': text, 'path': path} for text, path in zip(texts, paths)])
    out = tmp_path / 'out'
    printed = prepare(out, tmp_path / 'x.jsonl', '--audit=5')
    r = report(out)
    stages = r['stages']
    reasons = {(stage['name'], reason): n for stage in stages for reason, n in stage['dropped'].items()}
    assert reasons == {key: len(texts) for key, texts in rubbish.items()}
    assert stages[0]['docs_in'] == len(texts)
    assert stages[0]['bytes_in'] == sum(len(text.encode()) for text in texts)
    share = f'short: 12 ({12 / (len(texts) - 3):.1%})'          # of what came to this stage
    assert share in printed and share in (out / 'report.md').read_text(encoding='utf-8')
    left = {'docs_in': len(kept(out)), 'bytes_in': sum(r['bytes'].values())}
    for stage, after in zip(stages, [*stages[1:], left]):
        assert stage['docs_in'] - sum(stage['dropped'].values()) == stage['docs_out'] == after['docs_in']
        assert stage['bytes_out'] == after['bytes_in'], stage['name']
    assert left['docs_in'] == len(good) == sum(r['documents'].values())
    assert left['bytes_in'] == sum(len(text.encode()) for text in kept(out))

    audit = (out / 'audit.md').read_text(encoding='utf-8')
    outside = re.sub('````\n.*?\n````\n', '', audit, flags=re.S)        # the headings, not the samples
    samples = {part.split('\n')[0]: part.count('\n## ') for part in re.split('^# ', outside, flags=re.M)[1:]}
    assert samples == {'kept': 5, **{reason: min(5, n) for reason, n in dropped(out).items()}}


# --- copies -----------------------------------------------------------------------------------------------
def edited(text, n, rng):
    """A copy with n single words changed: each takes about five 5-grams away and brings five new ones."""
    words = text.split()
    for i in rng.sample(range(len(words)), n):
        words[i] = f'new{rng.randrange(10 ** 6)}'
    return ' '.join(words)


def test_prepare_drops_planted_copies_and_nothing_else(tmp_path):
    texts = [prose(i, 400) for i in range(100)]
    rng = random.Random(0)
    family = {text: i for i, text in enumerate(texts)}      # text: number of what it is a copy of
    family |= {edited(text, 4, rng): i for i, text in enumerate(texts[:60])}        # J of about 0.9
    family |= {edited(text, 25, rng): i for i, text in enumerate(texts[60:80], 100)}    # of 0.5: another text
    family |= {text.replace(' ', '\n\n'): family[text] for text in texts[40:80]}
    everything = rng.sample(sorted(family), len(family))
    source = write(tmp_path / 'files', everything)
    prepare(tmp_path / 'out', source, *RAW, '--dedup=minhash', '--min_similarity=0.8', '--val_fraction=0.4')
    first = {i: next(text for text in everything if family[text] == i) for i in range(120)}
    assert len({*kept(tmp_path / 'out')} ^ {*first.values()}) <= 3      # recall 0.95 of 60
    assert dropped(tmp_path / 'out')['exact duplicate'] == 40


def test_pairs_are_copies_only_if_every_field_and_the_label_are():
    rows = [{'prompt': 'q', 'completion': 'q', 'label': label} for label in (0, 1)]
    rows += [{'prompt': 'q', 'chosen': a, 'rejected': b} for a, b in (('2', '22'), ('22', '2'), ('q', 'q'))]
    key_of = lambda row: hashes_of(**chats.pair_of(row))[0]
    assert len({*map(key_of, rows)}) == len(rows)
    assert key_of({'prompt': ' q', 'chosen': '2\n', 'rejected': '2 2'}) == key_of(rows[2])


# --- mistakes ---------------------------------------------------------------------------------------------
def test_sources_without_text_are_one_sentence(tmp_path):
    for i, (files, words) in enumerate([
            ({'a.png': b'x', 'b.png': b'x'}, ['no text at', '.jsonl', 'it has 2 .png']),
            ({'a.txt': b''}, ['0 characters']),
            ({'a.jsonl': b'{"messages": [{"role": "user"}]}\n' * 9},
             ['could not be read: 9, the first', 'a.jsonl:1: it has messages', '--kind=sft', ': none']),
            ({'a.txt.gz': gzip.compress(b'x' * 99)[:-5]}, ['a.txt.gz'])]):
        folder = tmp_path / str(i)
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        source = folder / name if len(files) == 1 else folder
        mistake(run('prepare.py', f'--source={source}', f'--out_dir={tmp_path}/out'), *words)
        assert not list(tmp_path.glob('out/[!.]*'))


HERE = {'kind': 'text', 'sources': None, 'source': 'x'}
OURS, CHATS = (json.dumps({'format': 'nanoparrot-data-1', 'config': {**HERE, 'kind': kind}})
               for kind in ('text', 'sft'))
OUT_DIRS = [        # files that are there, what is read, a part of what is said, or None
    ({'meta.json': OURS, 'train.bin': ''}, ['a.txt', 'out.txt'], None),
    ({'.prepare_py': '', 'train.jsonl': ''}, ['a.txt'], None),
    ({'meta.json': '{}'}, [], 'has meta.json'), ({'notes.txt': '', 'z.pt': ''}, [], 'has notes.txt'),
    ({'meta.json': CHATS}, ['a.txt'], 'has data of --kind=sft'),
    ({'meta.json': OURS, 'val.jsonl': ''}, ['link.jsonl'], 'link.jsonl is read')]       # it points to that


def test_nothing_of_others_is_replaced(tmp_path, monkeypatch):
    for i, (files, inputs, words) in enumerate(OUT_DIRS):
        (tmp_path / f'{i}').mkdir()
        monkeypatch.chdir(tmp_path / f'{i}')
        os.mkdir('out')
        os.symlink('out/val.jsonl', 'link.jsonl')
        for name, content in files.items():
            pathlib.Path('out', name).write_text(content, encoding='utf-8')
        check = lambda: check_out_dir(pathlib.Path('out'), {**HERE, 'overwrite': False}, inputs)
        refused(words, check) if words else check()


MISTAKES = [        # lines of a config file, words of the sentence
    ("kind = 'preference'", ['--kind=preference needs --source=FILE']),
    ('sources = {}', ['sources={}', 'must name a source']), ("sources = {'a': 'path'}", ['weight']),
    ("sources = {'a': ('x', -1)}", ['weight']),
    ("sources = {'a b': ('x', 1)}", ['a b']), ("sources = {5: ('x', 1)}", ['sources[5]']),
    ("sources = {'a': ('x', 1), 'b': ('y', None)}", ['weight']),
    ("sources = {'a': ('x', 1)}\nsource = 'mine.jsonl'", ['source=mine.jsonl', "'a'"]),
    ("kind = 'sft'\nmin_score = 5.0", ['min_score', '--source=FILE']),
    ("source = 'x'\npart = '5/4'", ['part', '3/16']),
    ("source = 'x'\ntokenizer = 'wordpiece'", ['wordpiece', 'bpe']),
    ('vocab_size = 100', ['vocab_size', '320']),
    ("source = 'x'\nkind = 'sft'", ['sft needs records']),
    ("source = 'x'\ntokenizer = 'byte.json'", ['byte.json', '<|endoftext|>']),
    ("source = 'x/000.txt'\nlanguages = 'en'", ['000.txt', 'languages=en', '.jsonl']),
    ("sources = {'a': ('x', 1)}\nwrite = 'text'", ['--write=bins']),
    ("source = 'x'\nkind = 'sft'\ntemperature = 2", ['need --kind=text']),
    ("source = 'x'\nn_examples = 9", ['no --source']),
    ("source = 'x'\nurl_block = 'nowhere'",
     ["nowhere can't be read", 'No such file']),
    ("source = 'x/000.txt'\nmode = 'prose'", ['mode=prose needs documents'])]


def test_settings_that_cannot_be_are_one_sentence(tmp_path):
    write(tmp_path / 'x', [prose(i) for i in range(3)])
    (tmp_path / 'adblock.txt').write_text('[Adblock Plus 2.0]\nbad.com\n', encoding='utf-8')
    write_records(tmp_path / 'short.jsonl', [{'prompt': 'too short'}])
    write_records(tmp_path / 'long.jsonl', [{'prompt': prose(0)}])
    Tokenizer.byte().save(tmp_path / 'byte.json')
    (tmp_path / 'empty.jsonl').touch()
    for lines, words in MISTAKES:
        (tmp_path / 'c.py').write_text(f"out_dir = 'out'\n{lines}\n", encoding='utf-8')
        mistake(run('prepare.py', 'c.py', cwd=tmp_path), *words)
        assert not (tmp_path / 'out/meta.json').exists()
