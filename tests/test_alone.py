"""A script at the top does its main job in a folder with three files of ours beside it; options are doors."""
import shutil

import pytest
from conftest import ROOT, TINY, metrics, mistake, ok, read_json, run, same, save_run, series, state
from conftest import torchrun, write

from model import GPT
from tokenizer import Tokenizer

FILES = ['train.py', 'model.py', 'tokenizer.py', 'configurator.py']
# The process that runs it has imported model and tokenizer of this checkout: it forgets them first.
FORGET = '''
import sys
for name in 'model', 'tokenizer', 'configurator', 'extras', 'parts':
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
DOORS = {'objectives': ['--objective=mlm', '--objective=span', '--document_mask=True'],
         'streaming': ['--streaming=shards'], 'muon': ['--optimizer=muon'], 'sharding': ['--shard=fsdp'],
         'planner': ['--plan=8xH100']}
WITHOUT = ('__pycache__', '.git', '.venv', 'tests', 'docs', 'bench')


@pytest.fixture(scope='module')
def without_extras(tmp_path_factory):
    """This project after rm -r extras parts."""
    folder = tmp_path_factory.mktemp('project') / 'nanoparrot'
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*WITHOUT, 'extras', 'parts', 'learn'))
    return folder


@pytest.mark.parametrize('door', DOORS)
def test_a_flag_whose_file_is_gone_ends_in_one_sentence_that_names_it(without_extras, numbers, tmp_path,
                                                                      door):
    """Also if the folder is there, and the file is not."""
    write(tmp_path / 'shards/a.jsonl', [{'text': 'a'}])
    for there in False, True:
        if there:
            shutil.copytree(without_extras, tmp_path / 'project')
            shutil.copytree(ROOT / 'extras', tmp_path / 'project/extras')
            (tmp_path / f'project/extras/{door}.py').unlink(missing_ok=True)
        script = (tmp_path / 'project' if there else without_extras) / 'train.py'
        for flag in DOORS[door]:
            result = run(script, f'--data_dir={numbers}', f'--out_dir={tmp_path}/out', *TINY, flag,
                         cwd=tmp_path, before=FORGET)
            mistake(result, 'copy extras, too', door)
    assert not (tmp_path / 'out').exists()


def test_a_mixture_without_its_file_is_one_sentence(without_extras, numbers, tmp_path):
    data = shutil.copytree(numbers, tmp_path / 'data')
    meta = read_json(data / 'meta.json')
    half = {'tokens': meta['tokens']['train'] // 2, 'passes': 1}
    write(data / 'meta.json', [{**meta, 'mixed': False, 'sources': {'a': half, 'b': half}}])
    mistake(run(without_extras / 'train.py', f'--data_dir={data}', f'--out_dir={tmp_path}/out', *TINY,
                before=FORGET), 'copy extras, too', 'mixture')


def test_without_extras_the_rest_works(without_extras, numbers, tmp_path):
    ok(run(without_extras / 'train.py', f'--data_dir={numbers}', f'--out_dir={tmp_path}/a', *TINY,
           '--dtype=float32', before=FORGET))
    ok(run('train.py', f'--data_dir={numbers}', f'--out_dir={tmp_path}/b', *TINY, '--dtype=float32'))
    a, b = tmp_path / 'a', tmp_path / 'b'
    assert metrics(a) == metrics(b) and same(state(a), state(b))


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
    for door, flags in {'server': ['--serve=0'], 'html_file': ['--export=html'],
                        'model_card': ['--export=hf'], 'gguf_file': ['--export=gguf'],
                        'gaps': [f'--ckpt={tmp_path}/gaps', '--prompt=a<|mask|>']}.items():
        result = run(without_extras / 'sample.py', f'--ckpt={babbler}', *flags, cwd=tmp_path, before=FORGET)
        mistake(result, 'copy extras, too', door)
