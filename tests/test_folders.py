"""A script knows its own folders and refuses those of others, also with --overwrite: a test for every
crossing of the scripts that write folders with the kinds of folders there are."""
import os
import shutil
from pathlib import Path

import pytest
from accidents import before
from conftest import PAID, each_line, fill, make_pairs, mistake, numbered, ok, read_json, refused, run
from conftest import shared_fixture, table, with_each, write

from files import WORK, clear, find_files

STEPS = '--max_steps=2 --batch_size=4 --warmup_steps=0 --device=cpu'
TRAINERS = ['train.py', 'sft.py', 'dpo.py', 'rl.py']
# A script, what it writes, and a command for it: other data than those in the folder of its kind.
COMMANDS = f'''
clean.py cleaned --source=other.jsonl --min_words=0 --num_workers=1
prepare.py tokens --source=other.jsonl --tokenizer=byte
chats.py chats --source=other_chats.jsonl
train.py run --data_dir=tokens --n_layer=1 --n_head=2 --n_embd=16 --block_size=16 {STEPS}
sft.py run --init_from=model --data_dir=chats {STEPS}
dpo.py run --init_from=model --data_dir=pairs {STEPS}
rl.py run --init_from=model --reward=mine.py --num_samples=2 --max_new_tokens=4 {STEPS}
'''.strip().split('\n')
KINDS = {'cleaned': 'cleaned text', 'tokens': 'tokens', 'chats': 'chats', 'run': 'a run', 'hf': 'a model of Hugging Face'}


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@shared_fixture
def place(sft_model, tmp_path_factory):
    """A folder of each kind, and what commands read."""
    base = tmp_path_factory.mktemp('place')
    for name in 'text', 'other':
        write(base / f'{name}.jsonl', [{'text': f'{name} {i} times {i} is {i * i}, a sum of many.'}
                                       for i in range(60)])
        write(base / f'{name}_chats.jsonl', [{'prompt': f'what about {name} {i}', 'completion': 'a'}
                                             for i in range(30)])
    shutil.copytree(sft_model, base / 'model')
    make_pairs(base / 'pairs')
    (base / 'mine.py').write_text(PAID)
    for line in COMMANDS[:4]:
        script, kind, *flags = line.replace('other', 'text').split()
        ok(run(script, *flags, f'--out_dir={kind}', cwd=base))
    for name in 'config.json', 'model.safetensors', 'tokenizer.json', 'README.md':
        write(base / 'hf' / name, [{}])
    write(base / 'mine/meta.json', [])              # of somebody else: no JSON
    return base


# Commands that read paths: NAME is one with all that a comma, a glob or a flag would make another of.
READING = """
clean.py --source=NAMEtext --min_words=0 --num_workers=1 --out_dir=NAMEclean
clean.py --source=NAMEtext/a.jsonl --min_words=0 --num_workers=1 --out_dir=c1 FILTERS
prepare.py --source=NAMEclean --tokenizer=byte --out_dir=NAMEtokens
chats.py --source=NAMEchats.jsonl --out_dir=NAMEchats
tokenizer.py --input=NAMEtext --vocab_size=330 --out=NAMEtok.json
extras.training.tokenizer_report --input=NAMEtext --load=NAMEtok.json --against=NAMEtok.json
train.py --data_dir=NAMEtokens --n_layer=1 --n_head=2 --n_embd=16 --block_size=64 STEPS --out_dir=NAMErun
train.py --data_dir=NAMEtokens --block_size=64 --streaming=NAMEclean/shards --init_from=NAMErun STEPS --out_dir=r1
sft.py --init_from=NAMErun --data_dir=NAMEchats STEPS --out_dir=NAMEsft
eval.py --ckpt=NAMErun --data_dir=NAMEtokens
eval.py --ckpt=NAMErun/best.pt --tasks=own --data=NAMEq.jsonl --max_new_tokens=4 --out=NAMEown/eval.json
extras.tasks.rescore --completions=NAMEown/samples.jsonl
extras.tasks.compare NAMEown NAMEown/samples.jsonl
plot.py --runs=NAMErun --out=NAMEplot.svg
extras.models.export --ckpt=NAMErun --to=html --out=NAMEpage.html
"""


FILTERS = ('--url_block=NAMEhosts --url_allow=NAMEhosts --decontaminate=NAMEproblems.csv --min_bits=0 --max_bits=0 '
           '--perplexity_reference=NAMEtext --quality_good=NAMEtext --quality_bad=NAMEhosts')


def test_a_path_that_exists_is_one_path_in_every_script():
    """Its parts and what its pattern would match are there, too, and are not read."""
    name = ' a [1], b=2* '
    write(f'{name}text/a.jsonl', [
        {'text': f'{i} times {i} is {i * i}, a sum of many and of so few and so on.', 'url': 'a.org'} for i in range(60)])
    write(f'{name}chats.jsonl', numbered('{"prompt": "what about N", "completion": "a"}', 30))
    write(f'{name}q.jsonl', [{'prompt': word, 'regex': '[a-m]'} for word in ('so', 'no')])
    fill({f'{name}hosts': 'spam.com\nshop.net', f'{name}problems.csv': 'question,n\n' + 'one two ' * 9 + ',2\n'})
    for kind in 'text', 'text/a.jsonl', 'clean', 'tokens', 'run':
        for decoy in 'a [1]', f'b=2* {kind}', f' a 1, b=2 {kind}':
            Path(decoy.strip()).mkdir(parents=True, exist_ok=True)
    for line in READING.replace('STEPS', STEPS).replace('FILTERS', FILTERS).strip().split('\n'):
        result = run(*(part.replace('NAME', name) for part in line.split()))
        assert result.returncode == 0, (line, result.stderr)
    assert [read_json(f'{folder}/report.json')['documents'] for folder in (f'{name}clean', 'c1')] == [60, 60]
    assert 'loss' in read_json(f'{name}run/eval.json')['tasks']


NOTHING = """
plot.py --runs=in,no/*
eval.py --ckpt=no/*
train.py --streaming=no/*
clean.py --source=no/*
extras.models.export --ckpt=no/* --out=no.html
clean.py --decontaminate=no/*
clean.py --url_block=no/*
"""


# Files of no results but those in r[1]; links; and sources => what is found there, or what is said
TREE = """
a.txt b/c.md b/d.csv b/e.png home/f.txt g[1]/h.txt g[1]/i/j.txt g1/k.txt r[1]/last.pt r[1]/more/x.jsonl in/metrics.jsonl
w/wiki_00 w/wiki_01 w/wiki_02.png w/a.log.gz w/b.log w/d.LOG w/LICENSE w/c.txt far/f.py e/.hidden/x.py e/node_modules/x.js
e/A.PY e/b.markdown e/c.HTML e/c.rst e/d.tex e/d.org e/d.adoc e/x.c e/a.png e/b.png e/f e/a.pdf e/sub/y.py e/sub/far/z.md
"""
LINKS = """
e/a .
e/sub/up ..
e/far ../far
e/link.py ../far/f.py
"""
FOUND = """
b, a.*,a.txt , ~/*.txt => b/c.md b/d.csv a.txt HOME/f.txt
g[1] => g[1]/h.txt g[1]/i/j.txt
g[1]/h.txt => g[1]/h.txt
g[[]1]/*.txt => g[1]/h.txt
g[12]/* => g1/k.txt
r[1]/more => r[1]/more/x.jsonl
r[1]/more/x.jsonl => r[1]/more/x.jsonl
w/wiki_* => w/wiki_00 w/wiki_01
./w/wiki_0[01] => ./w/wiki_00 ./w/wiki_01
w/*.log.gz => w/a.log.gz
w/*.LOG => w/d.LOG
**/*.log => ./w/b.log
w/* => w/c.txt
w/** => w/c.txt
e => e/A.PY e/b.markdown e/c.HTML e/c.rst e/d.adoc e/d.org e/d.tex e/link.py e/sub/far/z.md e/sub/y.py e/x.c
e/* => e/A.PY e/b.markdown e/c.HTML e/c.rst e/d.adoc e/d.org e/d.tex e/link.py e/x.c
e/sub/** => e/sub/far/z.md e/sub/y.py
e/sub/* => e/sub/y.py
e/**/*.py => e/link.py e/sub/y.py
./e/sub/../**/y.py => ./e/sub/../sub/y.py
"""
NOT_FOUND = """
g[12] => no text at
r[1] => r.1. has a run
a.txt, gone/* => gone/. does not exist
b, gone/* => gone/. does not exist
**/sub/**/y.py => more than one
"""


def test_a_source_has_parts_links_and_patterns_and_what_matches_nothing_is_a_sentence(tmp_path, monkeypatch):
    """A file of any ending is read if it is named, a link to a folder is not. A name may look like a pattern."""
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    fill(dict.fromkeys(TREE.split(), ''))
    for link, to in table(LINKS, None):
        Path(link).symlink_to(to)
    for source, found in table(FOUND.replace('HOME', f'{tmp_path}/home')):
        assert find_files(source)[0] == found.split(), source
    for source, words in table(NOT_FOUND):
        refused(words, find_files, source)
    assert find_files('b, e')[1] == {'.pdf': 1, '.png': 3, 'no extension': 1, 'linked folders': 3, 'node_modules': 1,
                                     'hidden files and folders': 1}
    assert find_files('a.txt,b', max_files=1)[0] == ['a.txt', 'b/c.md']         # of each
    for command in NOTHING.strip().split('\n'):
        result = run(command)
        assert result.returncode == 2 and 'Traceback' not in result.stderr, (command, result.stderr)


def test_a_folder_that_a_command_wrote_is_no_source_of_text_and_is_named(place, tmp_path):
    for kind, words in [*KINDS.items()][1:]:
        for command in 'prepare.py --tokenizer=byte', 'clean.py':
            mistake(run(command, f'--source={kind} --out_dir={tmp_path}/out', cwd=place),
                    f'{kind} has {words}, not text; name a folder of text')
    assert not [*tmp_path.glob('out/[!.]*')]


def test_results_in_a_folder_of_text_are_skipped_wherever_they_are_and_all_that_is_skipped_is_counted(
        place, monkeypatch):
    own = write('in/text.jsonl', [{'text': 'one'}]).resolve()
    n_files = {}
    for kind in KINDS:
        for at in kind, f'out/deep/{kind}':
            folder = shutil.copytree(place / kind, own.parent / at)
            write(folder / 'more/of_it.jsonl', [{'text': 'of a result'}])
        n_files[kind] = len(files(folder))
    # a kill while results were put in place leaves no meta.json
    for name in ('killed/.nanoparrot/new/a.txt killed/shards/00000.jsonl .git/a.txt .notes.md '
                 'node_modules/a.js out/node_modules/b/c.js __pycache__/a.py x.png').split():
        write(own.parent / name, [{'text': 'no'}])
    (own.parent / 'link').symlink_to(place)
    skipped = {f'files of {words}': 2 * n_files[kind] for kind, words in KINDS.items()} | {
        'files of unfinished results': 1, 'hidden files and folders': 3, 'node_modules': 2, '__pycache__': 1,
        '.png': 1, 'linked folders': 1}
    monkeypatch.chdir(own.parent)
    for source in '.', './', '..', f'{own.parent}', '../in/', './**', '../**', '**/*.*':
        found, others = find_files(source)
        assert [os.path.realpath(path) for path in found] == [str(own)], source
        assert others == skipped or source == '**/*.*' and others.items() >= {'node_modules': 2}.items(), source
    # a glob of a level, too; what is named by its path is read
    assert find_files('*')[0] == ['text.jsonl'] and find_files('*')[1]['folders'] == 10
    for pattern in 'out/deep/*/*', 'out/deep/*/*/*', '*/shards/*':
        refused('files of ', find_files, pattern)
    assert not any(path.startswith((*KINDS, 'out')) for path in find_files('*/*')[0])
    assert len(find_files('cleaned')[0]) == len(find_files('cleaned/shards')[0]) == 1
    assert find_files('run/more')[0] == ['run/more/of_it.jsonl'] == find_files('run/more/*')[0]


@with_each('line', COMMANDS, ids=lambda line: line.split()[0])
def test_a_script_replaces_the_folder_of_its_own_kind_and_no_other(line, place, tmp_path):
    script, own, *flags = line.split()
    for kind in [*KINDS] + ['own', 'mine'] * (script not in TRAINERS):
        out = shutil.copytree(place / (own if kind == 'own' else kind), tmp_path / kind)
        if kind == 'own':               # with a file of yours
            (out / 'notes.txt').write_text('mine')
        before = files(out)
        command = lambda *more: run(script, *flags, f'--out_dir={out}', *more, cwd=place)
        if kind == own:
            mistake(command(), str(out), '--overwrite')
        else:
            words = '' if script in TRAINERS else KINDS.get(kind, '')
            mistake(command('--overwrite'), f'{out} has {words} & choose another --out_dir')
        assert files(out) == before, kind
        if kind == own:
            ok(command('--overwrite'))
            assert files(out) != before


@with_each('line', COMMANDS[:3], ids=lambda line: line.split()[0])
def test_at_each_moment_old_results_are_there_or_new_ones_or_none_and_the_command_goes_on(line, place, tmp_path):
    """A copy of the folder before each name changes is what a kill leaves there. meta.json says that all is
    there."""
    script, kind, *flags = line.split()
    out = shutil.copytree(place / kind, tmp_path / 'out')
    copy = before('rename', f"""
        import shutil
        shutil.copytree('{out}', f'{tmp_path}/moment {{n:02}}')""")

    def complete(**how):
        ok(run(script, *flags, f'--out_dir={out} --overwrite', cwd=place, **how))
        return files(out)
    old, new, whole = files(out), complete(before=copy), []
    assert not (out / WORK).exists()
    for n, folder in enumerate(sorted(tmp_path.glob('moment*'))):
        left = {path: data for path, data in files(folder).items() if WORK not in path.parts}
        assert left.items() <= old.items() or left.items() <= new.items(), folder
        whole += [left] * (Path('meta.json') in left)
        if n % 3 == 1:
            shutil.rmtree(out)
            folder.rename(out)
            assert complete() == new
    assert whole and all(left == old != new for left in whole)


def test_a_trainer_says_what_is_no_data_for_it(place):
    """Conversations, pairs, tokens and text: what the folder has, and whose it is."""
    words = {'sft.py': ('not a conversation', 'dpo.py reads pairs and labels', '"prompt": ', '"chosen": '),
             'dpo.py': ('not a pair', 'sft.py reads conversations', '"messages": ')}
    for line, other in (COMMANDS[4], 'pairs'), (COMMANDS[5], 'chats'):
        script, _, *flags = line.split()
        result = run(script, *flags, f'--data_dir={other} --out_dir=new', cwd=place)
        mistake(result, f'{other}/train.jsonl, line 1, is', *words[script])
        for other in 'cleaned', 'tokens':
            result = run(script, *flags, f'--data_dir={other} --out_dir=new', cwd=place)
            mistake(result, f'{other}/train.jsonl is missing & {script} needs')


def test_a_meta_json_of_others_is_no_data_of_a_trainer(place, tmp_path):
    for meta in '', '[1]', '{"name": "x", "dtype": "uint16"}':
        fill({'meta.json': meta, 'val.bin': 'val', 'train.bin': 'train', 'meta.pkl': ''})
        mistake(run(f'train.py --data_dir={tmp_path} --out_dir=new', cwd=place), f'{tmp_path} has no & prepare.py')
    sft = COMMANDS[4].split(' ', 2)[2]
    mistake(run('sft.py', sft, f'--base_dir={tmp_path} --replay=2 --out_dir=new', cwd=place),
            f'{tmp_path} was prepared with another')
    assert not (place / 'new').exists()


def test_advice_leads_to_no_folder_of_others(place):
    for line in COMMANDS[3:]:
        script, _, *flags = line.split()
        if script != 'rl.py':
            result = run(script, *flags, '--data_dir=cleaned --out_dir=new', cwd=place)
            mistake(result, 'cleaned & --out_dir=NEW,  &  --data_dir=NEW')
    mistake(run('eval.py --ckpt=run, run --data_dir=chats', cwd=place),
            'chats has no prepared text & val_loss in metrics.jsonl')


def test_what_a_killed_run_has_left_is_refused_by_the_other_scripts_and_stays(tmp_path):
    write('in/a.jsonl', [{'text': f'{i} and {i + 1}'} for i in range(9)])
    scripts = {'nanoparrot-text-1': 'clean.py --source=in --min_words=0',
               'nanoparrot-data-2': 'prepare.py --source=in --tokenizer=byte',
               'nanoparrot-chats-1': 'chats.py --n_examples=9'}
    for owner, begun in scripts.items():
        work = tmp_path / owner / '.nanoparrot'
        (work / 'shard').mkdir(parents=True)
        write(work / 'meta.json', [{'format': owner}])
        (work / 'shard/half').touch()
        for command in {*scripts.values()} - {begun}:
            mistake(run(*command.split(), f'--out_dir={owner} --overwrite'),
                    'has unfinished results, not from this script')
            assert (work / 'shard/half').exists()
        ok(run(*begun.split(), f'--out_dir={owner}'))


def test_a_kill_while_folders_are_removed_leaves_none_that_looks_whole(tmp_path, monkeypatch):
    for name in 'kept-0', 'kept-1', 'other-0', 'other-1', 'new':
        write(tmp_path / name / 'a', [1])
        write(tmp_path / name / 'b', [2])

    def killed(folder, **_):
        if (folder / 'a').exists():
            (folder / 'a').unlink()
            raise SystemExit
    for keep, left in ('kept', {'kept-0', 'kept-1'}), (None, set()):
        monkeypatch.setattr(shutil, 'rmtree', killed)
        with pytest.raises(SystemExit):
            clear(tmp_path, keep)
        assert all((path / 'a').exists() for path in tmp_path.iterdir() if path.name != 'removed')
        monkeypatch.undo()
        clear(tmp_path, keep)
        assert {path.name for path in tmp_path.iterdir()} == left


# Each command that has --out, and the ending of its file. The last columns of a command are what it
# would need for its work, which is never done.
OUTS = """
eval.py .json --ckpt=model --data_dir=tokens --device=cpu
plot.py .png --runs=run
tokenizer.py .json --input=text.jsonl --vocab_size=400
extras.tasks.compare .json model model
extras.models.export .html --ckpt=model --to=html
extras.models.export .gguf --ckpt=model --to=gguf
extras.models.export /hf --ckpt=model --to=hf
"""


@each_line(OUTS)
def test_an_out_that_cannot_be_written_is_refused_before_the_work(place, tmp_path, line):
    """Below a file, in a folder of the system, and a folder in place of a file: root may not, too."""
    command, ending, *flags = line.split()
    (tmp_path / 'file').write_text('mine')
    (tmp_path / f'x{ending}').mkdir(parents=True)
    for out in f'{tmp_path}/file/x{ending}', f'/proc/x{ending}', f'{tmp_path}/x{ending}':
        exists = ending == '/hf' and out == f'{tmp_path}/x/hf'
        mistake(run(command, *flags, f'--out={out}', cwd=place), 'already exists' if exists else
                f"can't write to {out}:  & choose another --out")
    assert (tmp_path / 'file').read_text() == 'mine'
    assert {path.name for path in tmp_path.iterdir()} == {'file', f'x{ending}'.partition('/')[0]}
