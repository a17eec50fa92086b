"""A script at the top does its main job in a folder with three files of ours beside it; options are doors."""
import re
import shutil
import subprocess
import sys

import pytest
from conftest import PAID, ROOT, TINY, make_conversations, make_pairs, mistake, ok, read_json, run, save_run
from conftest import series, state, write
from preparing import prose

from model import GPT
from tokenizer import Tokenizer

FILES = ['train.py', 'model.py', 'tokenizer.py', 'configurator.py']
# The process that runs it has imported model and tokenizer of this checkout: it forgets them first.
FORGET = '''
import sys
for name in 'model', 'tokenizer', 'configurator', 'extras':
    sys.modules.pop(name, None)
'''


def copied(folder, *files):
    folder.mkdir()
    for file in files:
        shutil.copy(ROOT / file, folder)
    return folder


# --- a few files in an empty folder -------------------------------------------------------------------------
def test_train_py_trains_accumulates_resumes_and_samples_with_three_files_beside_it(numbers, tmp_path):
    """As one process and as two; those of torchrun itself: test_processes.py."""
    empty = copied(tmp_path / 'empty', *FILES)
    flags = [f'--data_dir={numbers}', *TINY, '--dtype=float32', '--schedule=wsd', '--decay_steps=4']
    begin = lambda out, *more, **how: ok(run(empty / 'train.py', f'--out_dir={out}', *more, cwd=empty,
                                             before=FORGET, **how))
    begin('whole', *flags)
    begin('part', *flags, '--max_steps=8', '--micro_batch_size=2', '--sample_prompt=7 times',
          processes=2)
    assert '\n7 times' in (empty / 'part/samples.txt').read_text(encoding='utf-8')
    begin('part', '--init_from=resume', '--max_steps=12')
    assert series(empty / 'part', 'loss')[:4] == pytest.approx(series(empty / 'whole', 'loss')[:4], abs=1e-6)
    assert state(empty / 'part')['step'] == 12
    for dtype in 'bfloat16', 'float16':
        begin(dtype, *flags, f'--dtype={dtype}')
        assert series(empty / dtype, 'loss') == pytest.approx(series(empty / 'whole', 'loss'), abs=0.02)
    begin('again', *flags, '--decay_steps=1', '--init_from=whole', '--max_steps=2', '--warmup_steps=0')
    assert series(empty / 'again', 'val_loss')[0] == series(empty / 'whole', 'val_loss')[-1]


def test_sample_py_completes_and_chats_and_plot_py_draws(babbler, sft_model, tmp_path):
    """sample.py with three files beside it, plot.py with configurator.py."""
    empty = copied(tmp_path / 'empty', 'sample.py', *FILES[1:])
    sample = lambda *flags: ok(run(empty / 'sample.py', *flags, '--device=cpu', cwd=empty, before=FORGET))
    said = sample(f'--ckpt={babbler}', '--prompt=def f7', '--num_samples=2', '--max_new_tokens=20')
    assert said.count('--- temperature 0.8 ---\ndef f7') == 2
    text = sample(f'--ckpt={babbler}/best.pt', '--prompt=def f7', '--temperature=0', '--max_new_tokens=20')
    assert text.startswith('def f7') and text != said
    assert sample(f'--ckpt={sft_model}', '--chat=True', '--prompt=hi', '--max_new_tokens=9').startswith('hi')

    empty = copied(tmp_path / 'plot', 'plot.py', 'configurator.py')
    rows = [{'step': step, 'loss': 5 - step / 50} for step in range(1, 50)]
    write(empty / 'out/a/metrics.jsonl', rows + [{'step': 49, 'val_loss': 4}])      # and no other file
    printed = ok(run(empty / 'plot.py', '--runs=out/a', cwd=empty, before=FORGET))
    assert 'The validation loss is 4 at step 49.' in printed and (empty / 'dashboard.png').exists()


USE = """
import sandbox, torch
assert tok.decode(ids) == 'def f(x):\\n    return x'
x = torch.tensor([ids])
model(x, x)[1].backward()
torch.optim.AdamW(model.parameters()).step()
assert model.generate(x, 4).shape == (1, len(ids) + 4)
model.save('model.pt', step=3)
assert GPT.load('model.pt').saved['step'] == 3
assert sandbox.run_code('def f(): return 1', 'assert f() == 1').outcome == 'passed'
assert 'extras' not in sys.modules
"""


def test_the_python_of_the_page_works_on_copied_files_and_prepare_py_with_two(tmp_path):
    """The Python of docs/use.md, and more. configurator.py alone: test_configurator.py."""
    here = copied(tmp_path / 'empty', 'prepare.py', *FILES[1:],
                  *(f'extras/{name}.py' for name in ('sandbox', 'trial', 'crossing')))
    (here / 'corpus.txt').write_text('def f(x):\n    return x\n' * 40, encoding='utf-8')
    page = (ROOT / 'docs/use.md').read_text(encoding='utf-8')
    code = next(code for code in re.findall('```python\n(.*?)```', page, re.S) if 'import Tokenizer' in code)
    code = re.sub(".*GPT.load\\('path.*", '', code)
    code = re.sub(r'^(jaccard.*\)) +# (\S+)$', r'assert \1 == \2', code, flags=re.M)
    assert code.count('assert') == 1
    command = [sys.executable, '-I', '-c', f'import sys\nsys.path.insert(0, ".")\n{code}{USE}']
    ok(subprocess.run(command, cwd=here, capture_output=True, text=True))
    two = copied(tmp_path / 'two', 'prepare.py', 'tokenizer.py', 'configurator.py')
    write(two / 'in/a.jsonl', [{'text': prose(i)} for i in range(20)])
    ok(run(two / 'prepare.py', '--source=in', '--tokenizer=byte', '--out_dir=out', cwd=two, before=FORGET))
    assert read_json(two / 'out/meta.json')['tokens']['train'] > 1000


# --- doors --------------------------------------------------------------------------------------------------
DOORS = {           # those of sft.py, dpo.py, rl.py and eval.py: in their tests
    'train.py': {'objectives': '--objective=mlm --objective=span --document_mask=True',
                 'records': '--streaming=shards', 'muon': '--optimizer=muon', 'sharding': '--shard=fsdp',
                 'planner': '--plan=8xH100', 'mixture': '--data_dir=mixed'},
    'prepare.py': {'hub': '--source=shakespeare', 'chats': '--kind=sft', 'audit': '--audit=1',
                   'filters': '--licences=mit --url_block=x --toxic_words=x --decontaminate=x '
                              '--dedup=simhash',
                   'text_quality': '--languages=en --perplexity_reference=x --quality_good=x',
                   'mixture': '--temperature=2', 'records': '--write=text'},
    'sample.py': {'server': '--serve=0', 'export': '--export=html --export=hf --export=gguf',
                  'objectives': '--ckpt=gaps+--prompt=a<|mask|>'}}           # + joins two flags
WITHOUT = ('__pycache__', '.git', '.venv', 'tests', 'docs', 'bench', 'learn')


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A copy of this project, which loses extras/ in the last test."""
    return shutil.copytree(ROOT, tmp_path_factory.mktemp('with') / 'nanoparrot',
                           ignore=shutil.ignore_patterns(*WITHOUT))


@pytest.mark.parametrize('script', DOORS)
def test_a_flag_whose_file_is_gone_ends_in_one_sentence_that_names_it(project, numbers, babbler, tmp_path,
                                                                      script):
    """Also if the whole folder is gone."""
    write(tmp_path / 'shards/a.jsonl', [{'text': f'{i} is a text.'} for i in range(9)])
    data = shutil.copytree(numbers, tmp_path / 'mixed')
    meta = read_json(data / 'meta.json')
    half = {'tokens': meta['tokens']['train'] // 2, 'passes': 1}
    write(data / 'meta.json', [{**meta, 'mixed': False, 'sources': {'a': half, 'b': half}}])
    save_run(tmp_path / 'gaps', GPT.load(babbler), Tokenizer.load(babbler / 'tokenizer.json'),
             config={'objective': 'mlm'})
    flags = {'train.py': [f'--data_dir={numbers}', *TINY, '--out_dir=out'],
             'prepare.py': ['--source=shards', '--mode=raw', '--tokenizer=byte', '--num_workers=1',
                            '--out_dir=out'],
             'sample.py': [f'--ckpt={babbler}']}[script]
    for door, more in DOORS[script].items():
        gone = [project / f'extras/{door}.py'] + [project / 'extras'] * (door == 'mixture')
        for path in gone:
            path.rename(project / 'away')
            for flag in more.split():
                mistake(run(project / script, *flags, *flag.split('+'), cwd=tmp_path, before=FORGET),
                        'copy extras, too', path.stem)
            (project / 'away').rename(path)
    assert not (tmp_path / 'out/meta.json').exists() and not (tmp_path / 'out/config.json').exists()


def test_without_extras_the_whole_pipeline_runs(project, tmp_path):
    """Your text, your chats, your pairs, your reward."""
    shutil.rmtree(project / 'extras')
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
        ok(run(project / script, *flags, cwd=tmp_path, before=FORGET))
    assert (tmp_path / 'base/eval.json').exists() and (tmp_path / 'dashboard.png').exists()
