"""prepare.py loses nothing and uses nothing twice: its bins, the split, what clean.py tells it, and
what it refuses."""
import glob
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, contents, each_is_a_mistake, fill, mistake, numbered, ok, read_json, read_rows, run
from conftest import shared, shared_fixture, with_each
from preparing import DOCUMENTS, RAW, clean, documents, kept, prepare, prose, read, write, write_records

from files import lock_folder
from tokenizer import Tokenizer

TEXTS = [prose(i) for i in range(12)]
UNCLEAN = 'this text is not cleaned of duplicates, personal data and markup; run python clean.py --source='


def all_of(out='out'):
    """All documents of both bins, sorted."""
    return sorted(sum(documents(out).values(), []))


@shared_fixture
def prepared(tmp_path_factory):
    """Some files of text, as bins."""
    base = tmp_path_factory.mktemp('prepared')
    prepare(write(base / 'in', DOCUMENTS),
            f'--tokenizer=bpe --vocab_size=400 --val_fraction=0.3 --out_dir={base}/out')
    return base / 'out'


@shared_fixture
def cleaned(tmp_path_factory):
    """What clean.py makes of some lines, with licenses and a benchmark."""
    base = tmp_path_factory.mktemp('cleaned')
    rows = [{'text': text, 'license': 'mit' if i % 2 else 'bsd'} for i, text in enumerate(TEXTS)]
    write_records(base / 'a.jsonl', rows)
    problems = write_records(base / 'problems.jsonl', [{'prompt': prose(99)}])
    clean(base / 'a.jsonl', f'--licenses=mit,bsd --decontaminate={problems} --out_dir={base}/out')
    return base / 'out'


# --- split and bins -------------------------------------------------------------------------------
def test_tiny_shakespeare_has_the_published_sizes():
    said = prepare(shared('tinyshakespeare.txt'), '--tokenizer=char')
    meta = read()[0]
    assert meta['tokens'] == {'train': 1_003_854, 'val': 111_540} and meta['vocab_size'] == 65
    assert meta['cleaned'] is None
    assert said.splitlines()[-1].startswith(UNCLEAN) and '1,003,854' in said


@with_each('name, n', [('one.dat', 50), ('one.txt.gz', 100_000), ('one.jsonl', 50)])
def test_the_bytes_of_a_lone_text_are_its_tokens(name, n):
    text = 'Call (415) 555-2671, ann@uni.edu: naïve 漢字\r\n' * n     # pieces are of 4 million
    data = (json.dumps({'text': text}) if 'jsonl' in name else text).encode()
    fill({name: gzip.compress(data) if 'gz' in name else data})
    prepare(name)
    meta, _, bins = read()
    assert bytes([*bins['train'], *bins['val']]).decode() == text and not meta['held_out_to']
    assert abs(len(bins['val']) / len(text.encode()) - 0.1) < 0.01


def test_the_bins_hold_every_document_once_as_meta_says(prepared):
    (meta, tok, bins), sides = read(prepared), documents(prepared)
    assert all_of(prepared) == sorted(DOCUMENTS)
    assert 6 <= len(sides['val']) <= 30             # 18 of 60 on average, 3.5 sigma
    for side, ids in bins.items():
        assert meta['tokens'][side] == len(ids) and meta['documents'][side] == len(sides[side])
        assert meta['bytes'][side] == sum(len(text.encode()) for text in sides[side])
        assert meta['sha256'][side] == hashlib.sha256(ids).hexdigest()
        assert f'{len(ids):,}' in (prepared / 'report.md').read_text()
    # the tokenizer has seen training documents only
    own, of_all = (Tokenizer.train(texts, 400).hash for texts in (sides['train'], DOCUMENTS))
    assert tok.hash == own != of_all


def test_the_split_follows_from_the_document_alone_and_of_two_one_is_held_out(prepared):
    copies = DOCUMENTS + DOCUMENTS[::3] + TEXTS
    source = write('renamed', copies[::-1], 'z{}.md')
    # with so many tokens that an id needs four bytes: each text ends with the largest
    tok = Tokenizer.byte([*(f'<|{i}|>' for i in range(2 ** 16)), '<|endoftext|>'])
    tok.save('big.json')
    prepare(source, '--val_fraction=0.3 --tokenizer=big.json')
    before, after = documents(prepared), documents()
    for side in ('train', 'val'):
        assert set(before[side]) == set(after[side]) & set(DOCUMENTS)
    assert all_of() == sorted(copies)
    assert not set(after['train']) & set(after['val'])
    prepare(write('two', TEXTS[:2]), out='few')
    assert all(len(texts) == 1 for texts in documents('few').values())


def test_a_long_text_that_is_read_in_pieces_is_one_document_among_others():
    texts = {'a.txt': 'wörter ' * 700_000, 'b.txt': 'short'}
    said = prepare(fill({**texts, 'c.png': b'\xff'}, 'in'))
    assert all_of() == sorted(texts.values()) and 'skipped: .png: 1' in said
    assert 'changed bytes: nothing\n' in said


def test_undecodable_bytes_and_separators_inside_a_line_are_counted_with_their_first_file():
    texts = [f'{prose(i, 200)} ? <|endoftext|> {i}' for i in range(3)]
    said = prepare(fill({f'{i}.txt': text.encode().replace(b'?', b'\xff') for i, text in enumerate(texts)}, 'in'))
    assert all_of() == sorted(text.replace('?', '\ufffd') for text in texts)
    for name in 'undecodable bytes', '<|endoftext|> to plain text':
        assert said.count(f'{name}, first in/0.txt\n') == 1 == said.count(f'{name}, first ')
    assert 'changed bytes: undecodable bytes: 3, <|endoftext|> to plain text: 39\n' in said


def test_a_name_of_any_bytes_is_no_trouble(tmp_path):
    """A folder may be named in Latin-1."""
    folder = tmp_path / os.fsdecode(b'caf\xe9')
    write(folder, TEXTS)
    clean(folder, '--num_workers=1', out=folder / 'clean')
    said = prepare(folder / 'clean', out=folder / 'bins')
    assert all_of(folder / 'bins') == sorted(TEXTS) and 'next: python train.py' in said
    assert os.fsencode(folder) in (folder / 'bins/report.md').read_bytes()
    ok(run(f'tokenizer.py --input={folder} --vocab_size=330 --out={folder}/t.json'))


# --- what clean.py tells --------------------------------------------------------------------------
def test_what_clean_py_wrote_is_known_in_meta_and_another_text_is_refused(cleaned, out):
    out.mkdir()                                         # an empty folder is fine
    command = f'prepare.py --source={cleaned} --out_dir=out --tokenizer=byte'
    said = ok(run(command))
    told = read()[0]['cleaned']
    assert told['licenses'] == {'mit': 6, 'bsd': 6}
    assert told['hash'] == read_json(cleaned / 'meta.json')['sha256']
    assert told['decontaminated']['problems'] == [str(cleaned.with_name('problems.jsonl'))]
    assert said.splitlines()[-1] == 'next: python train.py --data_dir=out'
    assert all_of() == sorted(TEXTS)
    clean(cleaned.with_name('a.jsonl'), '--licenses=bsd,mit --audit=1 --out_dir=moved')
    ok(run(command, '--source=moved'))      # the same text, wherever and however
    clean(cleaned.with_name('a.jsonl'), '--licenses=mit --out_dir=moved')
    mistake(run(command, '--source=moved'), 'has results of & --overwrite')
    prepare('moved')
    assert read()[0]['cleaned']['licenses'] == {'mit': 6} and len(all_of()) == 6


MIX = "sources = {'web': ('web.jsonl', 50), 'code': ('code.jsonl', 15), 'books': ('books.jsonl', 35)}"


@shared_fixture
def mixed(tmp_path_factory):
    """Three sources, as clean.py leaves them."""
    base = tmp_path_factory.mktemp('mixed')
    for name, n in ('web', 200), ('code', 60), ('books', 30):
        rows = [{'text': f'{name} {prose(i, 8)}'} for i in range(n)]
        write_records(base / f'{name}.jsonl', rows)
    for name, mix in ('out', MIX), ('none', re.sub(r'\d+', 'None', MIX)):
        fill({'mix.py': mix}, base)
        ok(run('clean.py', 'mix.py', f'--out_dir={name}', *RAW, cwd=base))
    return base


def test_weights_become_passes_over_sources_that_train_bin_holds_once(mixed):
    fill({'w.py': "weights = {'web': 1, 'code': 1, 'books': 2}"})
    for folder, flag, weights in (
            ('out', '', (50, 15, 35)), ('out', 'w.py', (1, 1, 2)), ('none', '--temperature=5', None)):
        prepare(mixed / folder, flag)
        meta, tok, bins = read()
        sources, end, held_out = meta['sources'], 0, b''
        weights = weights or [s['tokens'] ** (1 / 5) for s in sources.values()]
        for (name, s), weight in zip(sources.items(), weights):
            val = np.fromfile(f'out/val_{name}.bin', meta['dtype'])
            for ids in bins['train'][end:end + s['tokens']], val:
                texts = tok.decode(ids).split('<|endoftext|>')[:-1]
                assert {text.split()[0] for text in texts} == {name}
            part = s['tokens'] * s['passes'] / len(bins['train'])
            assert part == pytest.approx(weight / sum(weights), rel=1e-4)
            end += s['tokens']
            held_out += val.tobytes()
        assert end == len(bins['train']) and held_out == bins['val'].tobytes()
    prepare(mixed / 'web.jsonl')
    assert not glob.glob('out/val_*.bin')                   # stale files go


def test_for_streaming_only_train_bin_is_missing(cleaned):
    for write_ in 'bins', 'val':
        prepare(cleaned, f'--tokenizer=bpe --vocab_size=340 --write={write_} --out_dir={write_}')
    bins, val = map(contents, ('bins', 'val'))
    assert bins.keys() - val.keys() == {'train.bin'}
    assert bins['val.bin'] == val['val.bin'] and bins['tokenizer.json'] == val['tokenizer.json']
    one, other = (json.loads(some['meta.json']) for some in (bins, val))
    assert one['held_out_to'] == other['held_out_to']
    assert other['tokens']['train'] == pytest.approx(one['tokens']['train'], rel=0.2)   # estimated
    hashes = [int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), 'big')
              for text in documents('bins')['val']]
    assert max(hashes) == one['held_out_to']


# --- two at once ----------------------------------------------------------------------------------
@with_each('script', ['clean', 'prepare'])
def test_of_two_runs_at_once_one_is_refused(cleaned, out, script):
    command = f'{script}.py --source={cleaned.with_name("a.jsonl")} --out_dir=out'
    lock = lock_folder(out)             # of this process, until it is released
    mistake(run(command), f"can't write to {out}: another run uses it")
    lock.release()
    ok(run(command))


def test_results_move_into_a_mounted_folder_whose_parent_may_not_be_written(cleaned):
    """As docker -v gives one; a new file system has a folder lost+found."""
    if subprocess.run('unshare -rm true', shell=True, capture_output=True).returncode:
        pytest.skip('needs Linux, where folders may be mounted')
    write_records('x.jsonl', numbered('{"prompt": "what about N", "completion": "a"}', 40))
    commands = [f'{sys.executable} {ROOT}/{command} --overwrite=True' for command in (
        f'clean.py --source={cleaned.with_name("a.jsonl")} --out_dir=m/text',
        'prepare.py --source=m/text --tokenizer=byte --out_dir=m/bins',
        'chats.py --source=x.jsonl --pii=False --out_dir=m/chats')]
    names = 'text', 'bins', 'chats'
    script = ' && '.join([
        'mkdir m no && mount -t tmpfs none m',
        *(f'mkdir m/{name} && mount -t tmpfs none m/{name} && mkdir m/{name}/lost+found' for name in names),
        'mount -o remount,ro m', *commands, *commands, 'cp -r m/* no',
        *(f'! {command.replace("out_dir=m/", "out_dir=m/new_")}' for command in commands)])
    done = subprocess.run(['unshare', '-rm', 'sh', '-c', script], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert [re.findall(r'm/new_\w+', error) for error in errors] == [[f'm/new_{name}'] for name in names]
    assert kept('no/text') == all_of('no/bins') == sorted(TEXTS)
    assert {*os.listdir('no/chats')} == {*'train.jsonl val.jsonl report.json meta.json lost+found'.split()}


# --- what is held out -----------------------------------------------------------------------------
def test_a_long_text_beside_short_ones_is_no_silent_half():
    """Whole texts are held out, so the fraction of the bytes may be another one."""
    texts = [prose(i, 40) for i in range(300)]
    said = prepare(write('in', [prose(0, 9000), *texts[:5]]))
    n = read()[0]['bytes']
    part = n['val'] / (n['train'] + n['val'])
    assert part < 0.05 and f'{part:.1%} of the bytes are held out; if that is far from 10%, split' in said


# --- one reader -----------------------------------------------------------------------------------
PROSE = [f'{prose(i, 9)}\n\n"{prose(i + 50, 9)}"' for i in range(14)]
NINES = '9' * 5000


def said_so(text):
    """The record that clean.py, prepare.py and tokenizer.py read as a text, and chats.py asks."""
    return {'text': text, 'prompt': text, 'completion': 'Yes.'}


def in_quotes(text):
    return '"' + text.replace('"', '""') + '"'


def odd_files():
    """Files that are good, though not everybody reads them: {name: bytes}, and their texts."""
    lines = [json.dumps(said_so(text)) for text in PROSE]
    table = [f'{in_quotes(text)}\t{in_quotes(text)}\tYes.\n' for text in PROSE[6:8]]
    raw = lines[0].replace(PROSE[0][:9], f'{PROSE[0][:9]}\t')
    return {
        'marks.jsonl': f'\ufeff{lines[0]}\n\n\ufeff{lines[1]}\r\n \r\n\0{lines[2]}\n'.encode(),
        'raw.jsonl': f'{raw}\n{lines[3][:-1]}, "idx": {NINES}}}\n{{"id": -{NINES}, {lines[4][1:]}'.encode(),
        'half.jsonl': lines[5].replace(PROSE[5][-2], '\\ud83d').encode(),
        'windows.jsonl': f'{lines[6]}\r\n{lines[7]}\r\n'.encode('utf-16'),
        'quoted.tsv': ''.join(['text\tprompt\tcompletion\n', *table]).replace(PROSE[6][:5], 'Other').encode(),
        'one.json': json.dumps(said_so(PROSE[8]), indent=2).encode(),
        'list.json.gz': gzip.compress(f'[{lines[9]},\n{lines[10]}]'.encode()),
        'mac.csv': f'sep=;\rtext;prompt;completion\r{in_quotes(PROSE[11])};{in_quotes(PROSE[11])};Yes.\r'.encode(),
    }, sorted([*PROSE[:5], PROSE[0][:9] + '\t' + PROSE[0][9:], PROSE[5].replace(PROSE[5][-2], '\ufffd'), *PROSE[6:12],
               'Other' + PROSE[6][5:], PROSE[7]])


DAMAGED = {'twice.csv': ('text,text\na,b\n', 'two columns have the name text'),
           'lfs.jsonl': ('version https://git-lfs.github.com/spec/v1\noid sha256:1\n', 'git lfs pull'),
           'cut.jsonl.gz': (gzip.compress(b'{"text": "a"}' * 99)[:-20], 'Compressed file ended'),
           'list.jsonl': ('[1, 2]\n', 'not a JSON object'), 'pdf.json': ('%PDF-1.7\n', 'looks like a .pdf'),
           'empty.json': ('', 'neither a list')}


def test_the_four_scripts_that_read_text_read_the_same_files_alike_and_say_alike_what_is_damaged():
    good, texts = odd_files()
    source = fill(good | {name: data for name, (data, _) in DAMAGED.items()}, 'in')
    said = [clean(source, *RAW, '--num_workers=1'),
            ok(run('tokenizer.py --input=in --vocab_size=340 --out=t.json')),
            ok(run('chats.py --source=in --out_dir=chats --pii=False --unused=text,idx,id'))]
    assert kept() == texts
    assert Tokenizer.load('t.json').to_json() == Tokenizer.train(texts, 340).to_json()
    asked = [row['messages'][0]['content'] for side in ('train', 'val')
             for row in read_rows(f'chats/{side}.jsonl')]
    assert sorted(asked) == sorted({*texts})        # each once
    for name, (_, why) in DAMAGED.items():
        mistake(run(f'prepare.py --source=in/{name} --out_dir=bins'), name, why)
        assert all(why in printed for printed in said), (name, said)
    arrived = []
    for name in good:
        prepare(source / name, out='bins')
        meta, tok, bins = read('bins')
        parts = [tok.decode([*bins['train'], *bins['val']])]
        arrived += all_of('bins') if meta['held_out_to'] else parts     # a single document is cut
    assert sorted(arrived) == texts


# --- mistakes -------------------------------------------------------------------------------------
# the source and flags, in a folder with what clean.py wrote of three sources, with weights or none
REFUSED = '''
--source=out --temperature=2 => sources without weights
--source=out --write=val weights.py => use --write=bins, or clean again without weights: {'web': ('PATH', None), ...}
--source=out weights.py --temperature=2 => sources without weights
--source=out few.py => must give a positive number
--source=lone.txt --tokenizer=byte --write=val => clean.py --source=lone.txt first, or use --write=bins
--source=lone.txt,lone.jsonl --tokenizer=byte --write=val => a folder of clean.py & --write=bins
--source=lone.txt --tokenizer=gpt2 --gpt2_dir=other => Hash mismatch & other/vocab.bpe
--source=lone.txt --tokenizer=gpt2 --gpt2_dir=nowhere => gpt2's vocabulary could not be read & --gpt2_dir=FOLDER
'''


def test_what_does_not_fit_is_refused(mixed):
    fill({'weights.py': "weights = {'web': 1, 'code': 1, 'books': 2}", 'lone.txt': TEXTS[0],
          'lone.jsonl': json.dumps({'text': TEXTS[1]}),
          'few.py': "weights = {'web': 1, 'code': 1}", 'other/vocab.bpe': 'a b'}, mixed)
    each_is_a_mistake(REFUSED, 'prepare.py --out_dir=no', cwd=mixed)
    said = ok(run('prepare.py --source=none --out_dir=ok --write=val', cwd=mixed))
    assert '--streaming=none/shards' in said.splitlines()[-1] and 'training tokens are estimates' in said
