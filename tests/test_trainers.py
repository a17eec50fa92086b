"""What dpo.py uses of parts/train: a run's folder, exact resume, the guard, processes."""
import errno
import functools
import math
import os
import pickle
import shutil
import signal
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from accidents import KILLED_WHILE_RENAMING, accident, killed_while_saving, replaced
from conftest import RUN_FILES, assert_same_sums, contents, expect_same_run, make_sft, metrics
from conftest import mistake, ok, read_json
from conftest import read_rows, refused, run, save_run, series, state, thumbs_of, write, write_bins
from feedback import attempt, expect

from model import GPT, GPTConfig
from parts.model import checkpoints
from parts.train import data, guards, optim, runs
from tokenizer import SPECIAL_TOKENS, Tokenizer

BYTES = Tokenizer.byte(SPECIAL_TOKENS)
MUON_IN_FLOAT32 = replaced('native bfloat16', 'return False')


# --- exact resume -------------------------------------------------------------------------------------------
# dropout, so that lost random state would show; saves and evaluations at different steps
STEPS = ['--max_steps=18', '--save_interval=4', '--eval_interval=6', '--warmup_steps=0.2', '--log_interval=1',
         '--learning_rate=1e-2', '--device=cpu', '--dtype=float32']
POST = [*STEPS, '--batch_size=4', '--sample_tokens=4']
CASES = {'dpo': ['--loss_type=kto'],
         'dpo, a reward model': ['--loss_type=rm']}


@pytest.fixture(scope='module')
def start(pairs, tmp_path_factory):
    """The flags of each script but out_dir: data, a model to begin from, sizes."""
    folder = make_sft(tmp_path_factory.mktemp('start') / 'dropout', dropout=0.1)
    return {'dpo': [f'--init_from={folder}', f'--data_dir={pairs}', *POST]}


@pytest.fixture(scope='module')
def straight(start, tmp_path_factory):
    """straight(case) is the folder of a run that nothing disturbs."""
    @functools.cache
    def straight(case):
        out = tmp_path_factory.mktemp('straight') / 'run'
        script = case.split(',')[0]
        ok(run(f'{script}.py', *start[script], *CASES[case], f'--out_dir={out}'))
        return out
    return straight


def data_of(flags):
    return next(flag.removeprefix('--data_dir=') for flag in flags if flag.startswith('--data_dir='))


def step_of(out, file='last.pt'):
    return state(out, file)['step']


@pytest.mark.parametrize('case', CASES)
def test_a_run_stopped_killed_and_killed_while_saving_is_the_straight_run(start, straight, case, tmp_path):
    script = case.split(',')[0]
    out = tmp_path / 'run'
    straight = attempt('a run of 18 steps that nothing disturbs', 'it ends', straight, case)
    # The folder is enough. Relative paths are those of the first command.
    again = lambda **more: run(f'{script}.py', f'--out_dir={out}', '--init_from=resume', **more)

    def end_of(result):
        return 'killed' if result.returncode == -signal.SIGKILL else ok(result) and 'finished'

    printed = ok(run(f'{script}.py', *start[script], *CASES[case], f'--out_dir={out}',
                     before=accident('sigusr1', 5)))
    assert 'stopped at step 6; ' in printed and '--init_from=resume' in printed
    saved = 'the last.pt of a run that a signal stopped after step 6:'
    expect(f'{saved} its step', 6, step_of, out)                            # no step is lost
    assert metrics(out)[-1]['step'] == 6
    expect(f"{saved} has it the optimizer's moments?", True, lambda: bool(state(out)['moments']))
    expect('resumed at step 6, it is killed while it saves step 12', 'killed',
           lambda: end_of(again(before=killed_while_saving(12))))
    expect('killed while it saved step 12: the step in last.pt', 8, step_of, out)
    expect('resumed at step 8, it is killed while it renames last.pt', 'killed',
           lambda: end_of(again(before=KILLED_WHILE_RENAMING)))
    assert not (out / 'last.pt').exists() and step_of(out, 'last-1.pt') == 8
    expect('resumed from last-1.pt at step 8, it is killed at step 14', 'killed',
           lambda: end_of(again(before=accident('kill', 6))))
    assert step_of(out) == 12 and metrics(out)[-1]['step'] == 14            # what comes again is dropped
    last = again()
    printed = attempt('resumed at step 12', 'it ends', ok, last)
    assert 'step 12: resumed' in printed and '  changed  ' not in printed
    assert 'under the reference' not in last.stderr             # its model may have changed since
    expect_same_run(out, straight, 'stopped once and killed three times')


# --- a run goes on as itself or not at all ------------------------------------------------------------------
# {script: (flags that would make another run of it, files of its data)}; test_runs.py has all fixed settings
OTHERS = {'dpo': (['--loss_type=simpo'], ['train.jsonl', 'val.jsonl'])}


@pytest.mark.parametrize('script', OTHERS)
def test_a_run_is_not_overwritten_and_not_resumed_as_another(start, straight, script, tmp_path):
    out = straight(script)
    before = contents(out)
    begin = lambda *flags: run(f'{script}.py', f'--out_dir={out}', *flags, cwd=tmp_path)
    flags = *start[script], *CASES[script]
    mistake(begin(*flags), 'already has a run', '--init_from=resume', '--overwrite=True')
    mistake(begin(*flags, '--overwrite=True', '--warmup_steps=99'), 'warmup_steps')     # and nothing is lost
    settings, files = OTHERS[script]
    for flag in settings:
        mistake(begin('--init_from=resume', '--max_steps=20', flag), flag[2:].split('=')[0])
    for file in files:
        data = shutil.copytree(data_of(flags), tmp_path / file)
        text = (data / file).read_bytes()
        (data / file).write_bytes(text[2:] + text[:2] if file.endswith('.bin') else text + b'\n')
        mistake(begin('--init_from=resume', '--max_steps=20', f'--data_dir={data}'), file)
    assert contents(out) == before


@pytest.mark.parametrize('script', OTHERS)
def test_a_setting_that_may_change_is_said_and_used_and_data_may_move(start, straight, script, tmp_path):
    out = shutil.copytree(straight(script), tmp_path / 'run')
    new = {'max_steps': 30, 'weight_decay': 9.0, 'learning_rate': 0.02, 'log_interval': 3}
    shutil.copytree(data_of(start[script]), tmp_path / 'moved')
    new['data_dir'] = 'moved'
    flags = [f'--{name}={value}' for name, value in new.items()]
    printed = ok(run(f'{script}.py', f'--out_dir={out}', '--init_from=resume', *flags, cwd=tmp_path))
    changed = {line.split()[1].rstrip(':') for line in printed.splitlines() if line.startswith('  changed  ')}
    assert changed == new.keys() and 'before, 9.0 now' in printed
    assert series(out, 'lr')[18] > 5e-3         # the old schedule has ended near 0
    groups = state(out)['moments']['param_groups']
    decays = {9.0, 0.0}
    assert {group['weight_decay'] for group in groups} == decays


# --- the folder ---------------------------------------------------------------------------------------------
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


def test_two_runs_do_not_write_to_one_folder(sft_model, pairs, tmp_path):
    log = log_of(tmp_path)
    before = contents(tmp_path)
    flags = [f'--init_from={sft_model}', f'--data_dir={pairs}', f'--out_dir={tmp_path}', '--max_steps=1',
             '--batch_size=2', '--sample_tokens=4', '--overwrite=True', '--device=cpu']
    mistake(run('dpo.py', *flags), 'another run', str(tmp_path), '--out_dir')
    assert contents(tmp_path) == before
    log.lock.close()                                    # as the system does when a process ends
    ok(run('dpo.py', *flags))


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


# --- the guard ----------------------------------------------------------------------------------------------
def test_what_a_spike_is():
    spike = guards.spike
    window = [[3 + 0.1 * (i % 2), 1.0] for i in range(50)]              # mean 3.05, deviation 0.05
    assert spike(window, 3.4, 1.0, 8) is None and 'loss' in spike(window, 3.5, 1.0, 8)
    assert spike(window, 3.0, 10, 8) is None and 'gradient norm' in spike(window, 3.0, 12, 8)   # e^2.4 = 11
    assert spike(window[:29], 99, 99, 8) is None and spike(window, 99, 99, 0) is None
    assert spike([[3, 0.0]] * 50, 3, 0.0, 8) is None            # a batch in which nothing was scored


def test_the_third_skip_in_a_row_is_trouble_and_says_how_to_resume():
    guard = guards.Guard({'window': [[3.0, 1.0]] * 30}, Mock(), spike_z=8.0)
    assert guard.allows(0, 3.0, 1.0)
    for step, loss, norm in (1, math.nan, 1.0), (2, 3.0, math.inf), (3, 9.0, 1.0):
        assert not guard.trouble and not guard.allows(step, loss, norm)
    assert 'resume' in guard.trouble and 'step 4' in guard.trouble
    # resumed, it judges by what comes now: else it would stop again after three steps, for ever
    assert guards.Guard(guard.state(), Mock(), spike_z=8.0).allows(34, 9.0, 1.0)

    first = guards.Guard({}, Mock())                # no update ever: nothing was saved
    assert not first.allows(0, math.nan, 1.0) and not first.allows(1, 3.0, math.inf)
    refused('3 updates in a row', first.allows, 2, math.nan, 1.0)


# --- rates and groups ---------------------------------------------------------------------------------------
def test_what_is_not_set_follows_from_the_rest_and_what_does_not_fit_is_refused():
    ends = optim.schedule_ends
    assert ends(5, 5, 1.0, None) == (5, 0.1, 0) and ends(200, 0.05, 1.0, 0.0)[:2] == (10, 0.0)
    assert ends(1, 0.05, 1.0, 0.0)[0] == 0              # the default warm-up fits into any run
    assert [ends(200, 10, 1.0, 0.0, n)[2] for n in (0, 190)] == [40, 190]
    assert ends(10, 9, 1.0, 0.0)[2] == 1          # the default fall takes what the warm-up leaves
    for arguments, words in (((5, 6, 1.0, None), '^warmup_steps=6 must be at most max_steps=5; set --'),
                             ((5, 5, 1.0, None, 1), 'decay_steps=1 .* --decay_steps=0'),
                             ((9, 1.5, 1.0, None), '^warmup_steps=1.5 .* a fraction of max_steps'),
                             ((5, 1, 1.0, 2.0), '^min_lr=2')):
        refused(words, ends, *arguments)


def test_weight_decay_acts_on_matrices_only_and_muon_on_those_of_the_blocks():
    """On the gain of a norm it would pull towards 0 what begins at 1; nor on the biases of Qwen2."""
    model = GPT(GPTConfig(32, 8, 1, 2, 0, 8, tie_embeddings=False, qkv_bias=True, qk_norm=True))
    opt = optim.build(model, 'muon', 1e-2, 0.1)
    group_of = {p: group for group in opt.param_groups for p in group['params']}
    for name, p in model.named_parameters():
        assert group_of[p]['weight_decay'] == (0.1 if p.dim() == 2 else 0.0), name
        assert group_of[p].get('use_muon', False) == (p.dim() == 2 and 'blocks' in name), name


# --- processes ---------------------------------------------------------------------------------------------
SHORT = ['--dtype=float32', '--grad_clip=0.3', '--learning_rate=1e-2', '--batch_size=8', '--max_steps=4',
        '--eval_interval=2', '--save_interval=2', '--log_interval=1', '--warmup_steps=2', '--device=cpu']


@pytest.fixture(scope='module')
def flags_of(pairs, sft_model, tmp_path_factory):
    """{case: the flags of a run but for its folder and micro-batch}."""
    folder = tmp_path_factory.mktemp('shared')
    for side in ('train', 'val'):               # every second pair is a thumb
        rows = read_rows(pairs / f'{side}.jsonl')
        rows[1::2] = thumbs_of(rows)[1::2]
        write(folder / f'{side}.jsonl', rows)
    post = [f'--init_from={sft_model}', *SHORT]
    # At 1e-2 the reward model leaps (its loss is 0.52, then 0.69), and rounding grows with it.
    return {'dpo kto': [*post, f'--data_dir={folder}', '--loss_type=kto'],
            'dpo rm': [*post, f'--data_dir={pairs}', '--loss_type=rm', '--learning_rate=3e-3']}


@pytest.mark.parametrize('case', ['dpo kto', 'dpo rm'])
def test_the_trainers_after_it_share_their_batches_too(flags_of, case, tmp_path):
    """A batch at once, and in micro-batches of two processes. Clipping and kto's KL are of the whole batch.
    Of three replayed sequences one process has two. One of the runs computes its blocks twice, which changes
    nothing."""
    for name, n, size in ('one', 1, 0), ('shared', 2, 2):
        ok(run(f'{case.split()[0]}.py', *flags_of[case], f'--out_dir={tmp_path}/{name}',
               f'--micro_batch_size={size}', f'--grad_checkpoint={n > 1}', processes=n,
               before=MUON_IN_FLOAT32))
    assert_same_sums(tmp_path / 'one', tmp_path / 'shared', 2e-5)
    for key in ('val_accuracy', 'base_bpb', 'chosen_reward', 'trained'):
        one, two = (series(tmp_path / name, key) for name in ('one', 'shared'))
        assert one == pytest.approx(two, abs=2e-5), key


# --- bins, for eval.py --------------------------------------------------------------------------------------
def test_a_folder_that_does_not_fit_is_refused(tmp_path):
    made = write_bins(tmp_path, np.arange(100, dtype=np.uint16), BYTES)
    assert all(isinstance(bin, np.memmap) for bin in data.open_bins(made, 8)[1].values())  # of any size
    write(made / 'meta.json', [{'config': {'kind': 'sft'}}])
    refused('has sft data, .*--kind=text', data.open_bins, made, 8)
    assert data.command_for('data/pairs', kind='sft').endswith('sft --source=FILE --out_dir=data/pairs')
    assert data.command_for('data/mine').endswith('prepare.py --source=FILE --out_dir=data/mine')
