"""The whole way through prepare.py: garbage and rubbish in, each loss with its reason, sums that add up."""
import collections
import gzip
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, mistake, ok, run
from test_prepare import RAW, documents, report, write

WORDS = [''.join(random.Random(i).choice('bdfklmnprst') + random.Random(i + j * 1e6).choice('aeiou')
                 for j in range(2, 3 + i % 3)) for i in range(2000)]


def prose(seed, n=60):
    return ' '.join(random.Random(seed).choices(WORDS, k=n)).capitalize() + '.'


def jsonl(*lines):
    """Lines of text become records, bytes stay."""
    return b'\n'.join(x if isinstance(x, bytes) else json.dumps({'text': x}).encode() for x in lines)


def garbage(folder):
    """Write it; returns the texts that are good, and {file: (records lost, line of the first)}."""
    good = [prose(i) for i in range(40)]
    write(folder, good[:30])
    noise = random.Random(0).randbytes(60_000).hex()            # does not compress away
    archive = gzip.compress(jsonl(good[30], noise, noise))
    files = {       # name: bytes, records lost, line of the first
        'mixed.jsonl': (jsonl(good[31], b'{"text": "cut o', good[32], b'{"text": "a raw \0 byte"}', good[33],
                              'x' * 5_000_000, good[34], 'x' * 20_000_000, good[35], b'{"text": "na\xefve"}',
                              b'[1, 2', b'null', b'', 'lone \ud800 surrogate', good[36]), 5, 2),
        'list.json': (json.dumps([{'text': good[37]}, 17, {'title': 'x'}, good[38], None, [good[39]],
                                  {'content': 'in content'}]).encode(), 4, 2),
        'cut.jsonl.gz': (archive[:len(archive) // 2], 1, 2), 'no_archive.txt.gz': (b'x', 1, 1),
        'long.py': (b'x = 1\n' * 170_000, 0, 0), 'utf16.txt': (prose(99).encode('utf-16'), 0, 0),
        '\udce9.txt': (b'\xff', 1, 1), 'nul.txt': (b'a\0b', 0, 0), 'empty.txt': (b'', 0, 0),
        'empty.py.gz': (gzip.compress(b''), 0, 0), 'empty.jsonl': (b'', 0, 0), 'empty.json': (b'', 0, 0),
        'empty.jsonl.gz': (b'', 0, 0)}
    if os.getuid():
        files['secret.txt'] = b'', 1, 1
    for name, (data, *_) in files.items():
        (folder / name).write_bytes(data)
    if os.getuid():
        (folder / 'secret.txt').chmod(0)
    (folder / 'folder.py').mkdir()
    (folder / 'folder.py/inside.md').write_text('inside', encoding='utf-8')
    (folder / 'broken.py').symlink_to('nowhere')
    lost = {name: (n, line) for name, (_, n, line) in files.items() if n}
    return [*good[:39], prose(99), 'in content', 'inside', 'a\0b', 'lone \ufffd surrogate'], lost


def test_garbage_is_counted_with_file_and_line_and_what_is_good_arrives(tmp_path):
    good, lost = garbage(tmp_path / 'files')
    ok(run('prepare.py', f'--source={tmp_path}/files', f'--out_dir={tmp_path}/out', '--tokenizer=byte', *RAW,
           '--audit=100'))
    r, found = report(tmp_path / 'out'), documents(tmp_path / 'out')
    assert collections.Counter(found['train'] + found['val']) == collections.Counter(good)
    assert {os.path.basename(path): (m['records'], int(re.match(r'line (\d+): .', m['first'])[1]))
            for path, m in r['malformed_files'].items()} == lost
    assert r['malformed'] == sum(n for n, _ in lost.values())
    assert r['stages'][0]['dropped'] == {'too long': 3, 'empty': 2}
    assert 'mixed.jsonl: 5, the first at line 2' in (tmp_path / 'out/report.md').read_text(encoding='utf-8')


def test_a_worker_that_is_killed_is_one_line_and_what_is_done_goes_on(tmp_path):
    for i in range(8):
        (tmp_path / f'{i}.jsonl').write_bytes(jsonl(*(prose(j, 500) for j in range(i * 99, i * 99 + 99))))
    flags = [f'--source={tmp_path}', f'--out_dir={tmp_path}/out', '--tokenizer=byte', '--processes=2']
    process = subprocess.Popen([sys.executable, ROOT / 'prepare.py', *flags], text=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    children = pathlib.Path(f'/proc/{process.pid}/task/{process.pid}/children')
    if not children.exists():
        process.kill()
        pytest.skip('no /proc here')
    while not (workers := children.read_text(encoding='utf-8').split()) and process.poll() is None:
        time.sleep(0.002)
    os.kill(int(workers[0]), signal.SIGKILL)        # as a system does whose memory is full
    process.stdout, process.stderr = '', process.communicate(timeout=60)[1]
    mistake(process, 'memory', '--processes=1')
    ok(run('prepare.py', *flags))


def planted(folder):
    """Write good documents and rubbish; returns all texts, and {(stage, reason): those that it must hit}."""
    code = [f'"""{prose(i)}"""\n' + ''.join(f'def {w}(x):\n    y = x + {i}\n    return y\n'
                                            for w in WORDS[i * 9:i * 9 + 9]) for i in range(40)]
    good = [prose(i) + ' zyxkept' * (i < 15) for i in range(60)]
    near = [f'{prose(i + 100, 400)}\n' for i in range(3)]
    rubbish = {
        ('read', 'empty'): ['', ' ', '\n'],
        ('rules', 'short'): [f'zyxgone zyxkept {w}' for w in WORDS[:12]],
        ('rules', 'symbols'): [f'{w} ' + '@#$% ' * 30 for w in WORDS[:7]],
        ('rules', 'repetitive'): [f'{w} ' * 50 for w in WORDS[:6]],
        ('rules', 'does not parse'): [text.replace('(x):', '(x:', 1) for text in code[:8]],
        ('rules', 'few assignments'): ['# none\ndef f(x):\n    return x\n'],
        ('rules', 'long line'): [f'{code[1]}# {"long " * 250}\n'],
        ('exact duplicates', 'exact duplicate'): [text.replace('.', '.\n\n') for text in good[:9]],
        ('near duplicates', 'near duplicate'): [f'{text}one more\n' for text in near]}
    everything = good + near + code + [text for texts in rubbish.values() for text in texts]
    folder.mkdir()
    for i, text in enumerate(everything):
        name = f'{i:03}.py' if text.startswith(('#', '"')) else f'{i:03}.txt'
        (folder / name).write_text(text, encoding='utf-8')
    return everything, rubbish


def test_every_document_is_dropped_for_its_reason_and_the_figures_add_up(tmp_path):
    texts, rubbish = planted(tmp_path / 'files')
    ok(run('prepare.py', f'--source={tmp_path}/files', f'--out_dir={tmp_path}/out', '--tokenizer=byte',
           '--audit=5'))
    r, found = report(tmp_path / 'out'), documents(tmp_path / 'out')
    first, *_ = stages = r['stages']
    dropped = {(s['name'], reason): n for s in stages for reason, n in s['dropped'].items()}
    assert dropped == {key: len(texts) for key, texts in rubbish.items()}
    assert (first['docs_in'], first['bytes_in']) == (len(texts), sum(len(t.encode()) for t in texts))
    left = {'docs_in': len(found['train'] + found['val']), 'bytes_in': sum(r['bytes'].values())}
    for stage, after in zip(stages, [*stages[1:], left]):
        assert stage['docs_in'] - sum(stage['dropped'].values()) == stage['docs_out'] == after['docs_in']
        assert stage['bytes_out'] == after['bytes_in']
    assert left['docs_in'] == 103 and {side: len(docs) for side, docs in found.items()} == r['documents']
    assert left['bytes_in'] == sum(len(text.encode()) for docs in found.values() for text in docs)
    audit, md = ((tmp_path / 'out' / name).read_text(encoding='utf-8') for name in ('audit.md', 'report.md'))
    outside = re.sub('````\n.*?\n````\n', '', audit, flags=re.S)        # the headings, not the samples
    samples = {part.split('\n')[0]: part.count('\n## ') for part in re.split('^# ', outside, flags=re.M)[1:]}
    assert samples == {'kept': 5, **{reason: min(5, n) for (_, reason), n in dropped.items()}}
    vanished, = [line for line in md.split('\n') if 'zyxgone' in line and not line.startswith('|')]
    assert 'zyxkept' not in vanished                                    # 12 documents each were dropped
