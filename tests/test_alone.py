"""A script at the top does its main job in a folder with three files of ours beside it; options are doors."""
import shutil

import pytest
from conftest import PAID, ROOT, TINY, make_conversations, make_pairs, metrics, mistake, ok, read_json, run
from conftest import save_run, series, state, torchrun, write

from model import GPT
from tokenizer import Tokenizer

FILES = ['train.py', 'model.py', 'tokenizer.py', 'configurator.py']
# The process that runs it has imported model and tokenizer of this checkout: it forgets them first.
FORGET = '''
import sys
for name in 'model', 'tokenizer', 'configurator', 'extras':
    sys.modules.pop(name, None)
'''


@pytest.fixture
def empty(tmp_path):
    folder = tmp_path / 'empty'
    folder.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    return folder


def test_train_py_trains_accumulates_resumes_and_samples_with_three_files_beside_it(empty, numbers):
    flags = [f'--data_dir={numbers}', *TINY, '--dtype=float32']
    begin = lambda out, *more, **how: run(empty / 'train.py', f'--out_dir={out}', *more, cwd=empty,
                                          before=FORGET, **how)
    ok(begin('one', *flags))
    ok(begin('two', *flags, '--micro_batch_size=2', '--sample_prompt=7 times', processes=2))
    assert series(empty / 'one', 'loss') == pytest.approx(series(empty / 'two', 'loss'), abs=1e-6)
    assert '\n7 times' in (empty / 'two/samples.txt').read_text(encoding='utf-8')

    ok(begin('part', *flags, '--max_steps=8', '--schedule=wsd', '--decay_steps=4'))
    ok(begin('part', '--init_from=resume', '--max_steps=12'))
    ok(begin('whole', *flags, '--schedule=wsd', '--decay_steps=4'))
    assert series(empty / 'part', 'loss')[:4] == series(empty / 'whole', 'loss')[:4]
    assert state(empty / 'part')['step'] == 12
    for dtype in 'bfloat16', 'float16':
        ok(begin(dtype, *flags, f'--dtype={dtype}'))
        assert series(empty / dtype, 'loss') == pytest.approx(series(empty / 'one', 'loss'), abs=0.02)
    ok(begin('again', *flags, '--init_from=one', '--max_steps=2', '--warmup_steps=0'))
    assert series(empty / 'again', 'val_loss')[0] == series(empty / 'one', 'val_loss')[-1]


def test_so_do_the_two_processes_of_torchrun_itself(empty, numbers):
    flags = [f'--data_dir={numbers}', *TINY, '--dtype=float32']
    ok(run('train.py', *flags, f'--out_dir={empty}/one'))
    two = empty / 'train.py', '--out_dir=two'
    ok(torchrun(2, *two, *flags, '--max_steps=6', cwd=empty))
    ok(torchrun(2, *two, '--init_from=resume', '--max_steps=8', cwd=empty))
    assert [row['step'] for row in metrics(empty / 'two') if 'loss' in row] == [*range(1, 9)]
    assert series(empty / 'two', 'loss')[:5] == pytest.approx(series(empty / 'one', 'loss')[:5], abs=1e-6)


# --- doors --------------------------------------------------------------------------------------------------
DOORS = {           # those of sft.py, dpo.py, rl.py and eval.py: in their tests
    'train.py': {'objectives': '--objective=mlm --objective=span --document_mask=True',
                 'records': '--streaming=shards', 'muon': '--optimizer=muon',
                 'sharding': '--shard=fsdp', 'planner': '--plan=8xH100'},
    'prepare.py': {'hub': '--source=shakespeare', 'chats': '--kind=sft', 'audit': '--audit=1',
                   'filters': '--licences=mit --url_block=x --toxic_words=x --decontaminate=x '
                              '--dedup=simhash',
                   'text_quality': '--languages=en --perplexity_reference=x --quality_good=x',
                   'mixture': '--temperature=2', 'records': '--write=text'}}
WITHOUT = ('__pycache__', '.git', '.venv', 'tests', 'docs', 'bench', 'learn')


def copy_project(folder, *without):
    return shutil.copytree(ROOT, folder / 'nanoparrot', ignore=shutil.ignore_patterns(*WITHOUT, *without))


@pytest.fixture(scope='module')
def without_extras(tmp_path_factory):
    """This project after rm -r extras."""
    return copy_project(tmp_path_factory.mktemp('without'), 'extras')


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    return copy_project(tmp_path_factory.mktemp('with'))


@pytest.mark.parametrize('script, door', [(script, door) for script in DOORS for door in DOORS[script]])
def test_a_flag_whose_file_is_gone_ends_in_one_sentence_that_names_it(without_extras, project, numbers,
                                                                      tmp_path, script, door):
    """Also if the folder is there, and the file is not."""
    write(tmp_path / 'shards/a.jsonl', [{'text': f'{i} is a text.'} for i in range(9)])
    flags = {'train.py': [f'--data_dir={numbers}', *TINY],
             'prepare.py': ['--source=shards', '--mode=raw', '--tokenizer=byte', '--num_workers=1']}[script]
    file = project / f'extras/{door}.py'
    file.rename(project / 'away')
    for flag in DOORS[script][door].split():
        for folder, words in (without_extras, 'extras'), (project, door):
            result = run(folder / script, *flags, '--out_dir=out', flag, cwd=tmp_path, before=FORGET)
            mistake(result, 'copy extras, too', words)
    (project / 'away').rename(file)
    assert not (tmp_path / 'out/meta.json').exists() and not (tmp_path / 'out/config.json').exists()


def test_a_mixture_without_its_file_is_one_sentence(without_extras, numbers, tmp_path):
    data = shutil.copytree(numbers, tmp_path / 'data')
    meta = read_json(data / 'meta.json')
    half = {'tokens': meta['tokens']['train'] // 2, 'passes': 1}
    write(data / 'meta.json', [{**meta, 'mixed': False, 'sources': {'a': half, 'b': half}}])
    mistake(run(without_extras / 'train.py', f'--data_dir={data}', f'--out_dir={tmp_path}/out', *TINY,
                before=FORGET), 'copy extras, too', 'mixture')


def test_without_extras_the_whole_pipeline_runs(without_extras, tmp_path):
    """Your text, your chats, your pairs, your reward."""
    write(tmp_path / 'text/a.jsonl', [{'text': f'{i} times {i} is {i * i}, and that is a sum of {i} numbers.'}
                                      for i in range(200)])
    make_conversations(tmp_path / 'chats')
    make_pairs(tmp_path / 'pairs')
    (tmp_path / 'mine.py').write_text(PAID, encoding='utf-8')
    steps = '--max_steps=2 --batch_size=4 --warmup_steps=0 --sample_tokens=4'
    for line in [
            'prepare.py --source=text --out_dir=data --tokenizer=bpe --vocab_size=400 --min_words=0',
            f'train.py --data_dir=data --out_dir=base {" ".join(TINY)} --block_size=128 --eval_tokens=512',
            f'sft.py --init_from=base --data_dir=chats --out_dir=sft {steps}',
            f'dpo.py --init_from=sft --data_dir=pairs --out_dir=dpo {steps}',
            'rl.py --init_from=sft --reward=mine.py --out_dir=rl --max_steps=2 --warmup_steps=0 '
            '--batch_size=2 --num_samples=2 --max_new_tokens=4 --eval_prompts=2',
            'sample.py --ckpt=rl --chat=True --prompt=7 --max_new_tokens=4',
            'eval.py --ckpt=base --data_dir=data --loss_tokens=500',
            'plot.py --runs=base,sft,dpo,rl']:
        script, *flags = line.split()
        flags += [] if script in ('prepare.py', 'train.py', 'plot.py') else ['--device=cpu']
        ok(run(without_extras / script, *flags, cwd=tmp_path, before=FORGET))
    assert (tmp_path / 'base/eval.json').exists() and (tmp_path / 'dashboard.png').exists()


# --- sample.py and plot.py ----------------------------------------------------------------------------------
def test_sample_py_completes_and_chats_and_plot_py_draws_alone(empty, babbler, sft_model):
    """sample.py with three files beside it, plot.py with configurator.py."""
    for name in 'sample.py', 'plot.py':
        shutil.copy(ROOT / name, empty)
    sample = lambda *flags: ok(run(empty / 'sample.py', *flags, '--device=cpu', cwd=empty, before=FORGET))
    said = sample(f'--ckpt={babbler}', '--prompt=def f7', '--num_samples=2', '--max_new_tokens=20')
    assert said.count('--- temperature 0.8 ---\ndef f7') == 2
    text = sample(f'--ckpt={babbler}/best.pt', '--prompt=def f7', '--temperature=0', '--max_new_tokens=20')
    assert text.startswith('def f7') and text != said
    assert sample(f'--ckpt={sft_model}', '--chat=True', '--prompt=hi', '--max_new_tokens=9').startswith('hi')

    for name in 'model.py', 'tokenizer.py', 'train.py', 'sample.py':
        (empty / name).unlink()
    rows = [{'step': step, 'loss': 5 - step / 50} for step in range(1, 50)]
    write(empty / 'out/a/metrics.jsonl', rows + [{'step': 49, 'val_loss': 4}])      # and no other file
    printed = ok(run(empty / 'plot.py', '--runs=out/a', cwd=empty, before=FORGET))
    assert 'The validation loss is 4 at step 49.' in printed and (empty / 'dashboard.png').exists()


def test_a_door_of_sample_py_whose_file_is_gone_is_one_sentence(without_extras, babbler, tmp_path):
    model = GPT.load(babbler)
    save_run(tmp_path / 'gaps', model, Tokenizer.load(babbler / 'tokenizer.json'),
             config={'objective': 'mlm'})
    for door, *flags in (('server', '--serve=0'), ('export', '--export=html'), ('export', '--export=hf'),
                         ('export', '--export=gguf'),
                         ('objectives', f'--ckpt={tmp_path}/gaps', '--prompt=a<|mask|>')):
        result = run(without_extras / 'sample.py', f'--ckpt={babbler}', *flags, cwd=tmp_path, before=FORGET)
        mistake(result, 'copy extras, too', door)
