"""Each script does its main job in a folder with at most three files of ours; options are doors."""
import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import FORGET, PAID, ROOT, TINY, each_is_a_mistake, fill, make_conversations, make_pairs
from conftest import ok, python, read_json, run, write

# Each script in turn, from your text, chats, pairs and rewards to a chart.
PIPELINE = f'''
tokenizer.py --input=mine.py --vocab_size=330 --out=own.json
clean.py --source=text --out_dir=clean --min_words=0 --pii=False
prepare.py --source=clean --out_dir=data --vocab_size=400
prepare.py --source=text --out_dir=own --tokenizer=own.json
chats.py --source=talks/train.jsonl --out_dir=chats --pii=False
chats.py --source=liked/train.jsonl --out_dir=pairs --pii=False
chats.py --source=usual.jsonl --out_dir=usual --pii=False
clean.py --source=page.html --out_dir=page --min_words=0 --pii=False
train.py --data_dir=data --out_dir=base {TINY} --block_size=128 --micro_batch_size=4 --eval_interval=12
train.py --out_dir=base --init_from=resume --max_steps=14
sft.py --init_from=base --data_dir=chats --out_dir=sft STEPS
dpo.py --init_from=sft --data_dir=pairs --out_dir=dpo STEPS
dpo.py --init_from=sft --data_dir=pairs --out_dir=orpo STEPS --loss_type=orpo
rl.py --init_from=sft --reward=mine.py --out_dir=rl --num_samples=2 --max_new_tokens=4 STEPS
sample.py --ckpt=base/best.pt --prompt=7 --max_new_tokens=4 --device=cpu
sample.py --ckpt=rl --chat=True --prompt=7 --max_new_tokens=4 --device=cpu
eval.py --ckpt=base --data_dir=data --loss_tokens=500 --device=cpu
eval.py --ckpt=dpo --loss_tokens=500 --device=cpu
eval.py --ckpt=rl --loss_tokens=500 --device=cpu
plot.py --runs=base,sft,dpo,rl
'''.replace('STEPS', '--max_steps=2 --batch_size=4 --warmup_steps=0 --device=cpu')
# What each needs beside it. tokenizer.py, model.py and dedup.py need nothing; the command of the first one
# has settings and reads files.
BESIDE = {**dict.fromkeys(['tokenizer.py', 'chats.py'], ['files.py', 'configurator.py']),
          'plot.py': ['configurator.py'], 'dedup.py': [], 'model.py': [],
          'clean.py': ['files.py', 'dedup.py', 'configurator.py'],
          'prepare.py': ['files.py', 'tokenizer.py', 'configurator.py']}
TRAINERS = 'model.py', 'tokenizer.py', 'configurator.py', 'common.py'
# A flag => the file of extras/ that it needs, where the whole folder is missing.
DOORS = '''
clean.py --source=text --out_dir=no => pii
clean.py --source=text --out_dir=no --pii=False --min_words=0 --decontaminate=mine.py => filters
clean.py --source=text --out_dir=no --pii=False --min_words=0 --languages=en => filters
clean.py --source=t.csv --out_dir=no --pii=False --min_words=0 => formats
clean.py mix.py --out_dir=no --pii=False => mixture
clean.py --source=shakespeare --out_dir=no --pii=False => hub
prepare.py --source=shakespeare --out_dir=no => hub
prepare.py --source=text --out_dir=no --tokenizer=gpt2 => tokenizer_report
prepare.py --source=text --out_dir=no --temperature=2 => mixture
chats.py --source=talks/train.jsonl --out_dir=no => pii
chats.py --source=talks/train.jsonl --out_dir=no --pii=False --prefer=passed => preference_pairs
chats.py --source=t.csv --out_dir=no --pii=False => formats
chats.py --out_dir=no => problems
chats.py --source=odd.jsonl --out_dir=no --pii=False => chat_schemas
train.py --data_dir=data --out_dir=no --objective=mlm => objectives
train.py --data_dir=data --out_dir=no --document_mask=True => objectives
train.py --data_dir=data --out_dir=no --streaming=text/*.jsonl => streaming
train.py --data_dir=data --out_dir=no --optimizer=muon => muon
train.py --data_dir=data --out_dir=no --shard=fsdp => sharding
train.py --data_dir=data --plan=8xH100 => planner
eval.py --ckpt=base --tasks=problems => answers
sft.py --init_from=base --data_dir=chats --out_dir=no --lora=2 => lora
sft.py --init_from=base --data_dir=chats --out_dir=no --base_dir=data => mixture
dpo.py --init_from=sft --data_dir=pairs --out_dir=no --loss_type=rm => rewards
rl.py --init_from=sft --reward=problems --out_dir=no => rewards
'''


# the usual forms of conversations
USUAL = '''[{"messages": [{"role": "user", "content": "q1"}, {"role": "assistant", "content": "a"}]},
{"conversations": [{"from": "human", "value": "q2"}, {"from": "gpt", "value": "a"}]},
{"instruction": "q3", "input": "x", "output": "a"}, {"prompt": "q4", "completion": "a",
"prompt_id": 4, "source": "web"}]'''


def copied(folder, *files):
    folder.mkdir()
    for file in files:
        shutil.copy(ROOT / file, folder)
    return folder


@pytest.fixture
def typed(tmp_path):
    """typed(script, *flags) runs a script that was copied with its few files, beside your data."""
    write('text/a.jsonl', [{'text': f'{i} times {i} is {i * i}, and that is a sum.'} for i in range(300)])
    make_conversations('talks')
    make_pairs('liked')
    fill({'mine.py': PAID, 't.csv': 'text\nabc\n',
                    'page.html': '<p>The sum of one and two is three, and it is so.</p>',
                    'mix.py': "sources = {'a': 'text', 'b': 'mine.py'}"})
    write('odd.jsonl', [{'prompt': 'a', 'context': 'b', 'answer': 'c'}] * 5)
    write('usual.jsonl', json.loads(USUAL) * 3)

    def typed(script, *flags):
        folder = tmp_path / f'of_{script[:-3]}'
        if not folder.exists():
            copied(folder, *{script, *BESIDE.get(script, TRAINERS)})
        return run(folder / script, *flags, before=FORGET)
    return typed


def test_each_script_works_with_its_few_files_and_a_missing_door_is_named(typed):
    said = ''.join(ok(typed(*line.split())) for line in PIPELINE.split('\n')[1:-1])
    assert 'extras/text/markup.py is missing' in said
    assert read_json('usual/report.json')['kept'] == 4       # and 8 copies of these
    assert 'the model memorized four texts' in ok(typed('model.py'))
    assert 'comparing all pairs: the same clusters' in ok(typed('dedup.py'))
    for stage in 'base', 'dpo', 'rl':       # without --data_dir, the base's text: data.json went down the chain
        assert read_json(f'{stage}/eval.json')['settings']['data_dir'] == 'data'
    assert Path('dashboard.png').exists()
    each_is_a_mistake(DOORS.replace('=> ', '=> copy extras/ & '), typed)
    assert not [*Path().glob('no/*.json')]            # nothing that looks like a run or data


BEGIN = """
import sys
sys.path.insert(0, '.')
import model
assert 'torch._dynamo' not in sys.modules
"""
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
"""


def test_the_python_of_the_page_works_on_copied_files_and_no_compiler_is_loaded():
    """The Python of docs/use.md, and more. A compiler would take longer to import than torch."""
    here = copied(Path('empty'), *TRAINERS, 'dedup.py', 'extras/tasks/sandbox.py')
    (here / 'corpus.txt').write_text('def f(x):\n    return x\n' * 40)
    page = (ROOT / 'docs/use.md').read_text()
    code, = [code for code in re.findall('```python\n(.*?)```', page, re.S)
             if 'import Tokenizer' in code]
    code = re.sub(".*GPT.load\\('path.*", '', code)
    code = re.sub(r'^(jaccard.*\)) +# (\S+)$', r'assert \1 == \2', code, flags=re.M)
    code = f'{BEGIN}{code}{USE}'
    ok(python('-I', '-c', code, cwd=here))
