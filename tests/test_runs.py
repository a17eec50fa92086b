"""A run's folder, its checkpoints and its log; what a run may begin with, or one sentence says what to do."""
import errno
import json
import math
import os
import pickle
import shutil
from unittest.mock import Mock

import pytest
import torch
from accidents import before
from conftest import RUN_FILES, TINY, contents, metrics, mistake, ok, read_json, read_rows, refused, run
from conftest import save_run, train, write

from model import GPT, GPTConfig
from parts.model import checkpoints
from parts.train import runs
from tokenizer import SPECIAL_TOKENS, Tokenizer

RUN = {'config': {}, 'data': {}, 'moments': {'state': {}}, 'tokens': 0}
CONFIG = {'init_from': 'scratch', 'data_dir': 'data/quick', 'max_steps': 10, 'seed': 1}


def small(seed=0, **changes):
    torch.manual_seed(seed)
    return GPT(GPTConfig(**{'vocab_size': 50, 'block_size': 8, 'n_layer': 1, 'n_head': 2, 'n_kv_head': 0,
                            'n_embd': 16, **changes}))


def checkpoint(model=None, **more):
    model = model or small()
    return {'model': model.state_dict(), 'model_config': vars(model.config), **RUN, **more}


def log_of(out, state=None, identity=None, **config):
    return runs.Log({**CONFIG, 'out_dir': str(out), **config}, {'seed': 'command line'}, state or {},
                    Mock(is_main=True), small(), Tokenizer.byte([]), identity or {})


# --- the folder ---------------------------------------------------------------------------------------------
OURS = f'config.json {{"format": "{checkpoints.FORMAT}"}}'
HOLDS = ['already has a run', '--init_from=resume', '--overwrite=True']
NOT_OURS = 'which no run wrote there'


@pytest.mark.parametrize('files, init_from, refusal, overwritten', [
    ([OURS, 'notes.md x'], 'scratch', None, None), ([OURS, 'mine.pt x'], '..', HOLDS, None),
    ([OURS, 'last.pt x'], '.', 'the model that this run starts from', 'the model that'),
    (['best.pt x'], 'scratch', f'has best.pt, {NOT_OURS}', NOT_OURS),
    (['config.json \xff'], 'scratch', f'has config.json, {NOT_OURS}', NOT_OURS)])
def test_a_run_begins_in_a_folder_of_its_own(tmp_path, files, init_from, refusal, overwritten):
    out = tmp_path / 'a[1]'
    out.mkdir()
    for name, _, text in (file.partition(' ') for file in files):
        (out / name).write_text(text, encoding='latin-1')
    for overwrite, words in ((False, refusal), (True, overwritten)):
        check = runs.check_out_dir, str(out), str(out / init_from), overwrite
        refused(words, *check) if words else check[0](*check[1:])


def test_a_new_run_deletes_what_is_known_of_the_one_before_but_no_file_of_others(tmp_path):
    of_others = {'lasting.pt', 'samples.md', 'notes.txt', 'evaluations.txt'}
    for name in RUN_FILES | of_others | {'last.pt.damaged', 'best.pt.tmp', 'samples.jsonl', 'eval.json',
                                         'compare.json'}:
        (tmp_path / name).touch()
    log_of(tmp_path)
    assert {*os.listdir(tmp_path)} == of_others | {'train.log', 'config.json', 'tokenizer.json'}
    assert next(iter(read_json(tmp_path / 'config.json').items())) == ('format', checkpoints.FORMAT)


@pytest.mark.parametrize('place, calls', [('rename', 0), ('lock', 0), ('rename', 1)])
def test_where_a_run_was_killed_as_it_began_another_one_can_begin(data_dir, tmp_path, place, calls):
    kill = before(place, f'if n == {calls}: os.kill(os.getpid(), 9)')
    out = tmp_path / 'run'
    assert train(data_dir, out, '--max_steps=4', before=kill).returncode == -9
    assert {*os.listdir(out)} <= {'config.json', 'config.json.tmp', 'tokenizer.json.tmp', 'train.log'}
    ok(train(data_dir, out, '--max_steps=4'))
    assert {*os.listdir(out)} <= RUN_FILES


def test_two_runs_do_not_write_to_one_folder(data_dir, tmp_path):
    log = log_of(tmp_path)
    before = contents(tmp_path)
    mistake(train(data_dir, tmp_path, '--overwrite=True'), 'another run', str(tmp_path), '--out_dir')
    assert contents(tmp_path) == before
    log.lock.close()                                    # as the system does when a process ends
    ok(train(data_dir, tmp_path, '--max_steps=4'))


def test_commands_that_only_read_work_where_a_run_is(data_dir, base_run, sft_model, pairs):
    tuned = f'--init_from={sft_model}'
    before = contents(base_run)
    for script, *flags in (('train.py', f'--data_dir={data_dir}', *TINY),
                           ('dpo.py', tuned, f'--data_dir={pairs}')):
        assert '--- step 7' in ok(run(script, *flags, f'--out_dir={base_run}', '--show_batch=7')), script
    assert '8 x H100' in ok(run('train.py', *TINY, f'--out_dir={base_run}', '--plan=8xH100'))
    assert contents(base_run) == before


# --- checkpoints --------------------------------------------------------------------------------------------


class Bomb:
    def __reduce__(self):
        return eval, ("__import__('os').mkdir(__import__('os').environ['BOMB'])",)


BOMB = {'x': Bomb()}


def test_a_foreign_file_is_refused_in_one_sentence_and_its_code_never_runs(tmp_path, monkeypatch):
    monkeypatch.setenv('BOMB', str(tmp_path / 'exploded'))
    path = tmp_path / 'a.pt'
    checkpoints.write(str(path), 1, checkpoint())
    whole = path.read_bytes()
    ours = {'format': checkpoints.FORMAT, **checkpoint()}
    for content in (pickle.dumps(BOMB, 2), BOMB, ours | BOMB, [1, 2], {'model': {}, 'iter_num': 3}, b'',
                    whole[:len(whole) // 2], whole[:-1]):
        torch.save(content, path)
        if type(content) is bytes:
            path.write_bytes(content)
        # torch's own advice is to run it
        refused(r'a\.pt is not a readable((?!weights_only|option).)*$', checkpoints.read, str(path))
        assert not (tmp_path / 'exploded').exists(), content
    pickle.loads(pickle.dumps(BOMB, 2))
    assert (tmp_path / 'exploded').exists()             # the bomb is a real one
    refused('no.pt does not exist', checkpoints.find, str(tmp_path / 'no.pt'))
    refused(['best.pt', 'last.pt', 'train.py'], checkpoints.find, str(tmp_path))


def test_the_newest_readable_checkpoint_is_taken_and_only_damage_puts_one_aside(tmp_path, monkeypatch):
    """A damaged one is put aside: else the next save would push a good one out."""
    out = f'{tmp_path}/'                                # as the shell completes it
    save = lambda step, **more: checkpoints.write(f'{out}/last.pt', 2, checkpoint(step=step, **more))
    refused('has no checkpoint', checkpoints.newest, out)
    save(8)
    save(12)
    for error in OSError(errno.EIO, 'an error'), MemoryError(), RuntimeError("can't allocate memory"):
        with monkeypatch.context() as m, pytest.raises(type(error)):
            m.setattr(torch, 'load', Mock(side_effect=error))
            checkpoints.newest(out)
    assert checkpoints.newest(out)['step'] == 12
    (tmp_path / 'last.pt').write_bytes(b'half a file')
    assert checkpoints.newest(out)['step'] == 8
    assert (tmp_path / 'last.pt.damaged').read_bytes() == b'half a file'
    for value in (math.nan, math.inf):
        model = small()
        model.blocks[0].mlp.w_down.weight.data[3, 4] = value
        save(16, model=model)
        refused('the weights blocks.0.mlp.w_down.weight are not finite', checkpoints.read, f'{out}/last.pt')
    save(16, moments=None)
    refused(['last.pt', 'no run to resume', f'--init_from={out}'], checkpoints.newest, out)


@pytest.mark.parametrize('keep, renames', [(1, 0), (2, 0), (2, 1), (3, 2)])
def test_a_save_keeps_so_many_checkpoints_and_wherever_it_ends_one_can_be_resumed(tmp_path, monkeypatch, keep,
                                                                                  renames):
    out, rename = str(tmp_path), os.replace
    save = lambda step: checkpoints.write(f'{out}/last.pt', keep, checkpoint(step=step))
    for step in range(4):
        save(step)
    steps = [checkpoints.read(name)['step'] for name in checkpoints.names_of(out)[:keep]]
    assert steps == [3, 2, 1][:keep] and len(os.listdir(out)) == keep
    left = [rename] * renames                           # then the power fails
    with monkeypatch.context() as m, pytest.raises(IndexError):
        m.setattr(os, 'replace', lambda old, new: left.pop()(old, new))
        save(4)
    assert checkpoints.newest(out)['step'] == checkpoints.read(checkpoints.find(out))['step'] == 3
    save(4)
    assert checkpoints.newest(out)['step'] == 4


# --- settings -----------------------------------------------------------------------------------------------
def test_a_run_that_resumes_keeps_its_settings_and_refuses_others_only_if_they_are_fixed(tmp_path):
    saved = dict.fromkeys(runs.FIXED, 1) | {'init_from': 'base', 'learning_rate': 1e-3, 'max_steps': 4}
    checkpoints.write(f'{tmp_path}/last.pt', 1, checkpoint(step=4, config=saved))
    command = {'out_dir': str(tmp_path), 'init_from': 'resume', 'overwrite': True, 'plan': ''}

    def begin(given):
        config = {**dict.fromkeys(saved, 0), **command, **given}
        runs.take_over_settings(config, dict.fromkeys(given, 'my.py'))
        return config
    own = {**saved, **command, 'init_from': 'base'}
    assert begin({}) == own and begin({'learning_rate': 2, 'seed': 1}) == {**own, 'learning_rate': 2}
    for name in runs.FIXED:
        refused([f'my.py: {name}=5, but', 'has 1;', f'--init_from={tmp_path}'], begin, {name: 5})
    refused(['has a run of train.py'], begin, {'stage': 'sft'})


# --- the model that a run starts from -----------------------------------------------------------------------
def test_another_tokenizer_of_the_same_size_is_refused(data_dir, base_run, tmp_path):
    """The ids are the same, the text is not: no loss would tell."""
    other = shutil.copytree(base_run, tmp_path / 'other')
    tokenizer = read_json(other / 'tokenizer.json')
    vocab = tokenizer['vocab']
    vocab[300], vocab[301] = vocab[301], vocab[300]
    (other / 'tokenizer.json').write_text(json.dumps(tokenizer), encoding='utf-8')
    mistake(run('sample.py', f'--ckpt={other}', '--prompt=def'), 'hash', 'the same ids mean different text',
            f"copy the run's own tokenizer.json back into {other}")
    data = shutil.copytree(data_dir, tmp_path / 'data')
    shutil.copy(other / 'tokenizer.json', data)
    mistake(train(data, tmp_path / 'x'), 'hash', 'tokenizer.json', 'prepare.py again')
    meta = read_json(data / 'meta.json')
    meta['tokenizer_hash'] = Tokenizer.load(data / 'tokenizer.json').hash
    (data / 'meta.json').write_text(json.dumps(meta), encoding='utf-8')
    prepare_it = f'--tokenizer={base_run}/tokenizer.json'
    mistake(train(data, tmp_path / 'x', f'--init_from={base_run}/best.pt'), 'hash', str(data), prepare_it,
            '--extend_vocab=True')
    mistake(run('eval.py', f'--ckpt={base_run}', f'--data_dir={data}'), prepare_it)


def test_a_model_that_cannot_do_it_is_refused(tmp_path):
    tune = lambda: checkpoints.open_to_tune({'init_from': str(tmp_path)}, {})
    sample = lambda: checkpoints.open_to_sample(str(tmp_path), continues=True)
    mlm, plain = {'config': {'objective': 'mlm'}}, ['<|endoftext|>']
    for command, special, config, more, words in (
            (tune, SPECIAL_TOKENS[:4], {'causal': False}, mlm, 'objective=mlm.* use a model of clm'),
            (sample, SPECIAL_TOKENS[:4], {}, mlm, 'objective=mlm fills gaps'),
            (tune, SPECIAL_TOKENS[:4], {}, {'reward_head': torch.zeros(16)}, 'is a reward model'),
            (tune, plain, {}, {}, 'no <.im_start.> .* frame each message')):
        tokenizer = Tokenizer.byte(special)
        save_run(tmp_path, small(vocab_size=tokenizer.vocab_size, **config), tokenizer, **more)
        refused(words, command)
    refused(['block_size=9', 'context of 8 tokens', 'extras.longer_context'], checkpoints.check_context,
            'out', 8, 9)


# --- the log ------------------------------------------------------------------------------------------------
def test_other_data_are_refused_and_the_metrics_behind_the_checkpoint_dropped(tmp_path, capsys):
    """A note has the number of the step on whose way it was made: that of a checkpoint's own step stays."""
    rows = [{'step': 0, 'val_loss': 3}, {'step': 5, 'event': 'skip'}, {'step': 5, 'loss': 2}]
    known = {'meta.json': 'a1', 'train.bin': [9, 'b2']}
    state = checkpoint(step=5, data=known, config={**CONFIG, 'max_steps': 5})
    for identity, word in (({**known, 'meta.json': 'c3'}, 'meta.json'), ({'meta.json': 'a1'}, 'train.bin'),
                           ({**known, 'shards': []}, 'shards')):
        refused([word, 'not the one', '--init_from=FOLDER'], log_of, tmp_path / 'x', state, identity)
    refused('step 5 of max_steps=5; .*--max_steps above 5', log_of, tmp_path / 'x', state, known, max_steps=5)
    assert not (tmp_path / 'x').exists()
    write(tmp_path / 'metrics.jsonl', [*rows, {'step': 6, 'event': 'skip'}, {'step': 6, 'loss': 2}])
    with open(tmp_path / 'metrics.jsonl', 'a') as f:
        f.write('{"step": 3, "lo')                      # the process was killed here
    log_of(tmp_path, state, known)
    assert metrics(tmp_path) == rows
    assert read_rows(tmp_path / 'metrics.jsonl')[-1]['event'] == 'resumed'
    assert 'changed  max_steps: 5 before, 10 now' in ' '.join(capsys.readouterr().out.split('\n'))


def test_the_seconds_of_a_step_are_told_by_part_without_those_of_pauses(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(runs.time, 'time', lambda: clock[0])
    log = log_of(tmp_path)
    log.here.world, log.here.kind = 1, 'cpu'

    def spend(name, seconds):
        with log.timed(name):
            clock[0] += seconds
    for step, tokens in (2, 80), (6, 160):
        spend('sample', 8)
        spend('score', 2)
        with log.timed('eval'):
            clock[0] += 5
            spend('sample', 3)                          # the answers of an evaluation are no part of a step
        log.step(step=step, tokens=tokens, loss=1.0, lr=1.0, grad_norm=1.0)
    keys = 'sample_s', 'score_s', 'dt', 'eval_share', 'tok_s'
    assert [[row[key] for key in keys] for row in read_rows(tmp_path / 'metrics.jsonl')] == [
        [4, 1, 5, 8 / 18, 8], [2, 0.5, 2.5, 16 / 36, 8]]


