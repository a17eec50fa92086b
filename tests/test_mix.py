"""Several sources: the shares that the weights ask for, and what is known of each source afterwards."""
import json

import numpy as np
import pytest
from conftest import ROOT, mistake, ok, run
from test_prepare import RAW

SIZES = {'web': 400, 'code': 120, 'papers': 40}         # documents of about 100 bytes


def sentence(name, i):
    return f'{name} {i}: ' + ' '.join(f'word{i * 7 + j * 13}' for j in range(10)) + '\n'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('mix')
    for name, n in SIZES.items():
        with open(folder / f'{name}.jsonl', 'w', encoding='utf-8') as f:
            f.writelines(json.dumps({'text': sentence(name, i), 'licence': 'MIT'}) + '\n' for i in range(n))
    return folder


def mix(folder, out, weights, *flags):
    sources = {name: (str(folder / f'{name}.jsonl'), w) for name, w in weights.items()}
    (out / 'mix.py').write_text(f'sources = {sources!r}\n', encoding='utf-8')
    printed = ok(run('prepare.py', out / 'mix.py', f'--out_dir={out}/data', '--tokenizer=byte', *RAW, *flags))
    return json.loads((out / 'data/meta.json').read_text(encoding='utf-8')), printed


def shares(out, meta):
    """Of the tokens of train.bin, by what the documents say of themselves."""
    ids = np.fromfile(out / 'data/train.bin', meta['dtype'])
    end = np.flatnonzero(ids == 256)                    # after the 256 bytes, <|endoftext|>
    found = dict.fromkeys(SIZES, 0)
    for begin, stop in zip([0, *end[:-1] + 1], end):
        name = bytes(ids[begin:stop].tolist()).decode().split()[0][:3]
        owner = next((n for n in SIZES if n.startswith(name)), None)
        if owner:
            found[owner] += stop + 1 - begin
    return {name: n / len(ids) for name, n in found.items()}, len(ids)


def test_weights_become_shares_to_the_token(folder, tmp_path):
    meta, _ = mix(folder, tmp_path, {'web': 50, 'code': 15, 'papers': 35})
    found, n = shares(tmp_path, meta)
    for name, share in zip(SIZES, (0.5, 0.15, 0.35)):
        assert abs(found[name] - share) < 100 / n + 2 / n, name     # what was cut may have lost its name
        s = meta['sources'][name]
        assert abs(s['mixed'] - share * n) <= 1 and s['epochs'] == s['mixed'] / s['tokens']
    assert n == meta['tokens']['train'] and abs(n - sum(s['tokens'] for s in meta['sources'].values())) <= 2
    assert meta['sources']['papers']['epochs'] > 4 and meta['sources']['web']['epochs'] < 1
    assert 'more than 4 passes' in (tmp_path / 'data/report.md').read_text(encoding='utf-8')


def test_the_seeds_preset_is_a_valid_mix():
    scope = {}
    exec((ROOT / 'config/mix.py').read_text(encoding='utf-8'), scope)
    weights = [weight for _, weight in scope['sources'].values()]
    assert weights == [50, 15, 10, 25] and list(scope['sources'])[:3] == ['web', 'code', 'academic']


@pytest.mark.parametrize('temperature', [1.0, 2.0, 5.0])
def test_temperature_flattens_the_shares(folder, tmp_path, temperature):
    meta, _ = mix(folder, tmp_path, dict.fromkeys(SIZES), f'--temperature={temperature}')
    tokens = {name: s['tokens'] for name, s in meta['sources'].items()}
    total = sum(n ** (1 / temperature) for n in tokens.values())
    found, n = shares(tmp_path, meta)
    for name in SIZES:
        assert abs(found[name] - tokens[name] ** (1 / temperature) / total) < 102 / n


def test_a_mixture_has_the_size_that_was_asked_for(folder, tmp_path):
    meta, _ = mix(folder, tmp_path, {'web': 1, 'code': 1}, '--mix_tokens=30000')
    assert abs(meta['tokens']['train'] - 30_000) <= 2
    assert [s['mixed'] for s in meta['sources'].values()] == [15_000, 15_000]


def test_each_source_has_a_validation_file_of_its_own(folder, tmp_path):
    meta, _ = mix(folder, tmp_path, {'web': 1, 'code': 9})
    parts = [np.fromfile(tmp_path / f'data/val_{name}.bin', meta['dtype']) for name in ('web', 'code')]
    whole = np.fromfile(tmp_path / 'data/val.bin', meta['dtype'])
    assert all(len(p) for p in parts) and (np.concatenate(parts) == whole).all()
    assert {'web'} == set(bytes(parts[0][parts[0] < 256].tolist()).decode().split()) & set(SIZES)
    assert meta['sources']['web']['licences'] == {'mit': 400}
    mix(folder, tmp_path, {'papers': 1})                                    # stale files go
    assert not list(tmp_path.glob('data/val_*.bin'))


def test_the_last_line_can_be_typed_and_what_an_earlier_run_left_is_gone(folder, tmp_path):
    out = tmp_path / 'data'
    _, said = mix(folder, tmp_path, {'web': None}, '--write=text', '--audit=1')
    assert f'--data_dir={out} --streaming={out}/shards' in said and 'train.bin' not in said
    assert (out / 'audit.md').exists() and f'| {out}/shards |' in said
    assert 'train.bin' not in (out / 'report.md').read_text(encoding='utf-8')
    (tmp_path / 'mix.py').write_text(f'source = {str(out / "shards")!r}\n', encoding='utf-8')
    again = ['prepare.py', tmp_path / 'mix.py', f'--out_dir={out}', *RAW, '--tokenizer=char',
             '--val_fraction=.5']
    assert f'--data_dir={out} --sample_prompt=\n' in ok(run(*again))
    assert not (out / 'audit.md').exists() and (out / 'train.bin').exists()
    assert list(out.glob('shards/*'))                       # which it has read


def test_a_copy_in_a_later_source_is_dropped(folder, tmp_path):
    new = json.dumps({'text': 'something new\n' * 3})
    old = (folder / 'web.jsonl').read_text(encoding='utf-8')
    (folder / 'again.jsonl').write_text(old + new, encoding='utf-8')
    meta, _ = mix(folder, tmp_path, {'web': None, 'again': None}, '--dedup=exact', '--val_fraction=0.2')
    assert meta['sources']['web']['documents'] == 400 and meta['sources']['again']['documents'] == 1


@pytest.mark.parametrize('sources, words', [
    ("{'a': 'path'}", ['weight']), ("{'a': ('x', -1)}", ['weight']), ('3', ['sources']),
    ("{'a b': ('x', 1), 'c': ('x', 1)}", ['a b']), ("{'a': ('x', 1), 'b': ('y', None)}", ['weight']),
    ("{'a': ('nowhere', 1)}", ['nowhere']),
    ("{'a': ('x', 1), 'b': ('x', 1)}\nsource = 'mine.jsonl'", ['source=mine.jsonl', "'a', 'b'"])])
def test_sources_that_cannot_be(tmp_path, sources, words):
    (tmp_path / 'mix.py').write_text(f'sources = {sources}\n', encoding='utf-8')
    mistake(run('prepare.py', tmp_path / 'mix.py', f'--out_dir={tmp_path}/out'), *words)


def test_licences_and_rules_follow_from_what_a_source_is_not_from_its_name(tmp_path):
    rows = [{'text': sentence('web', i) * 3, 'license': 'GPL' if i < 30 else 'MIT'} for i in range(40)]
    path = tmp_path / 'x.jsonl'
    path.write_text('\n'.join(map(json.dumps, rows)), encoding='utf-8')
    sources = {'stdlib': (str(path), 1), 'codeparrot': (str(path), 1), 'code': ('stdlib', 1)}
    (tmp_path / 'mix.py').write_text(f'sources = {sources!r}\n', encoding='utf-8')
    before = """
import parts.prepare.files as files
some = files.find_files
files.find_files = lambda *given: some(*given)[:40]"""
    ok(run('prepare.py', tmp_path / 'mix.py', f'--out_dir={tmp_path}/out', '--tokenizer=byte', '--dedup=none',
           '--licences=gpl, psf', '--val_fraction=0.3', before=before))
    report = json.loads((tmp_path / 'out/report.json').read_text(encoding='utf-8'))
    licences = {name: s['licences'] for name, s in report['sources'].items()}
    assert licences.pop('code').keys() == {'psf'}
    assert licences == {'stdlib': {'gpl': 30}, 'codeparrot': {'gpl': 30}}
    skew = '; '.join(report['card']['skew'])
    assert "code: one project's style" in skew and 'stdlib: ' not in skew and 'codeparrot: ' not in skew
