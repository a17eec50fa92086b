"""A data folder and a checkpoint that older commits wrote are read, resumed, evaluated and fine-tuned."""
import json
import shutil

import pytest
from conftest import ROOT, TIMES, metrics, ok, run

from model import load_checkpoint

SHAPES = {'f0d8c78': '--n_layer=1 --n_head=2 --n_embd=16',
          '162e7de': '--n_layer=2 --n_head=2 --n_kv_head=1 --n_embd=16 --n_ffn=32 --tie_embeddings=True'}
FLAGS = ('--block_size=32 --batch_size=8 --max_steps=12 --warmup_steps=4 --eval_interval=6 --save_interval=6 '
         '--log_interval=1 --eval_tokens=1024 --sample_tokens=8 --num_samples=2 --dropout=0.1 '
         '--learning_rate=1e-2 --device=cpu --dtype=float32').split()


@pytest.fixture(params=SHAPES)
def home(request, tmp_path):
    """A copy of tests/COMMIT: data, a run that was killed at step 7, the metrics of the same run unharmed."""
    shutil.copytree(ROOT / 'tests' / request.param, tmp_path, dirs_exist_ok=True)
    (tmp_path / 'shape').write_text(SHAPES[request.param], encoding='utf-8')
    return tmp_path


def test_a_run_of_before_is_resumed_to_where_it_would_have_arrived(home):
    shape = (home / 'shape').read_text(encoding='utf-8').split()
    assert load_checkpoint(home / 'run/last.pt')[1]['step'] == 6
    ok(run('train.py', '--data_dir=data', '--out_dir=run', *shape, *FLAGS, '--init_from=resume', cwd=home))
    found = metrics(home / 'run')
    with open(home / 'straight.jsonl', encoding='utf-8') as f:
        wanted = [json.loads(line) for line in f]
    assert [row['step'] for row in found] == [row['step'] for row in wanted]
    for row, old in zip(found, wanted):
        for key in old.keys() - {*TIMES}:       # other CPUs sum in another order
            assert row[key] == pytest.approx(old[key], rel=1e-4, abs=1e-6), (row['step'], key)


def test_it_is_evaluated_and_sampled(home):
    said = ok(run('eval.py', '--ckpt=run', '--data_dir=data', '--device=cpu', cwd=home))
    with open(home / 'run/eval.json', encoding='utf-8') as f:
        found = json.load(f)['tasks']['loss']
    assert 'trained' in said and found['trained']['nats'] < found['untrained']['nats'] - 0.5
    assert 'def' in ok(run('sample.py', '--ckpt=run', '--prompt=def f', '--max_new_tokens=4', cwd=home))


def test_it_is_fine_tuned(home):
    chat = {'messages': [{'role': 'user', 'content': 'one'}, {'role': 'assistant', 'content': 'two'}]}
    for side in ('train', 'val'):
        (home / f'{side}.jsonl').write_text(f'{json.dumps(chat)}\n' * 4, encoding='utf-8')
    ok(run('sft.py', '--init_from=run', '--data_dir=.', '--out_dir=sft', '--max_steps=2', '--batch_size=2',
           '--device=cpu', cwd=home))
