"""Copies and benchmark problems, planted among files of the standard library: found, and nothing else is."""
import collections
import gzip
import json
import pathlib
import random
import re
import sysconfig

import pytest
from conftest import SHARED, ok, run
from test_funnel import prose
from test_prepare import RAW, documents, read, report, write


def grams(text, n=5):
    words = re.findall(r'\w+', text.lower(), re.A)
    return set(zip(*(words[i:] for i in range(n))))


def similarity(a, b):
    return len(a & b) / len(a | b)


@pytest.fixture(scope='module')
def library():
    """160 files of the standard library, none like another, and the 5-grams of each."""
    root, found = pathlib.Path(sysconfig.get_paths()['stdlib']), {}
    for path in sorted([*root.glob('*.py'), *root.glob('[a-s]*/*.py')]):
        text = path.read_text(encoding='latin-1')
        if 4000 < len(text) < 30_000 and text.isascii() and '-packages' not in str(path):
            mine = grams(text)
            if all(similarity(mine, other) < 0.5 for other in found.values()):
                found[text] = mine
    assert len(found) >= 160
    return dict(list(found.items())[:160])


def edited(text, seed):
    """The text with words changed one by one, until its similarity with what it was is about 0.9."""
    new, r = text, random.Random(seed)
    while similarity(grams(text), grams(new)) > 0.91:
        word = r.choice(list(re.finditer(r'\w+', new)))
        new = f'{new[:word.start()]}other{r.randrange(10 ** 9)}{new[word.end():]}'
    assert similarity(grams(text), grams(new)) > 0.85
    return new


def test_planted_copies_are_found_and_nothing_else(library, tmp_path):
    family = {text: i for i, text in enumerate(library)}        # text: number of what it is a copy of
    texts = list(family)
    family |= {edited(text, i): i for i, text in enumerate(texts[:60])}
    family |= {text.replace('    ', '\t').replace('\n', '\n\n'): family[text] for text in texts[40:80]}
    everything = random.Random(0).sample(sorted(family), len(family))
    source = write(tmp_path / 'files', everything, '{:03}.py')
    for n in (1, 2):
        ok(run('prepare.py', f'--source={source}', f'--out_dir={tmp_path}/{n}', '--tokenizer=byte', *RAW,
               '--dedup=minhash', '--min_similarity=0.8', '--val_fraction=0.4', f'--processes={n}'))
    found = documents(tmp_path / '1')
    assert found == documents(tmp_path / '2')                   # the same ones stay
    kept = collections.defaultdict(list)
    for side, docs in found.items():
        for text in docs:
            kept[family[text]].append((everything.index(text), side))
    alone = [i for i in kept if len(kept[i]) == 1]
    assert len(kept) >= 158                                                         # of 160 distinct ones
    assert len({*alone} & {*range(60)}) >= 57 and {*alone} >= {*range(60, 80)}      # recall 0.95, and 1
    assert sum(len({side for _, side in kept[i]}) > 1 for i in kept) <= 3           # on both sides
    assert all(kept[i][0][0] == min(everything.index(text) for text in family if family[text] == i)
               for i in alone)                                                      # the first one stays
    dropped = {s['name']: s['dropped'] for s in report(tmp_path / '1')['stages'] if s['dropped']}
    assert dropped['exact duplicates'] == {'exact duplicate': 40}
    assert dropped['near duplicates'] == {'near duplicate': 160 - sum(map(len, kept.values())) + 60}


def benchmark_of_our_own(path):
    """164 problems deep in records; returns their texts."""
    prompts = [prose(1000 + i, 40) for i in range(164)]
    records = [json.dumps({'id': 1, 'tests': {'prompt': [prompt]}}) for prompt in prompts]
    path.write_text('\n'.join(records), encoding='utf-8')
    return prompts


@pytest.mark.parametrize('name', ['own.jsonl', 'HumanEval.jsonl.gz'])
def test_planted_benchmark_problems_are_all_found_and_nothing_else(name, library, tmp_path):
    path, innocent = SHARED / name, list(library)[:100]
    if name == 'own.jsonl':
        prompts = benchmark_of_our_own(path := tmp_path / name)
        twelve = [' '.join(prompt.split()[7:19]) for prompt in prompts]
        innocent += [f'{prose(i)} {twelve[i]} {prose(i)}' for i in range(20)]       # one word too few
    elif not path.exists():
        pytest.skip(f'{path} is not here')
    else:
        with gzip.open(path, 'rt', encoding='utf-8') as f:
            prompts = [json.loads(line)['prompt'] for line in f]
    upper = [prompt.upper().replace(' ', '  ') for prompt in prompts[::8]]
    guilty = [f'{prose(i)}\n{upper[i]}\n{prose(i + 99)}' for i in range(20)]
    texts = random.Random(1).sample(innocent + guilty, len(innocent + guilty))
    ok(run('prepare.py', f'--source={write(tmp_path / "files", texts)}', f'--out_dir={tmp_path}/out', *RAW,
           '--tokenizer=byte', f'--decontaminate={path}'))
    found = documents(tmp_path / 'out')
    assert sorted(found['train'] + found['val']) == sorted(innocent)
    assert read(tmp_path / 'out')[0]['decontaminated'] == {
        'problems': {str(path): 164}, 'ngram': 13, 'dropped': 20}
