"""
What train.py, sft.py, dpo.py and rl.py promise alike: a run goes on bit for bit, nothing is lost or
replaced, early ends are sentences, several processes are one, mistakes are named.
"""
import collections
import functools
import pathlib
import re
import shutil
import signal
from typing import NamedTuple

import numpy as np
import pytest
import torch
from accidents import SHORT_SAMPLES, accident, before, killed_while_saving
from conftest import PAID, RUN_FILES, base_text, contents, each_is_a_mistake, expect_same_run, fill, lift
from conftest import (make_sft, metrics, mistake, ok, read_rows, run, save_run, series, shared_fixture, state,
                      table, with_each, write)
from test_model import lively
from test_streaming import BYTES, mixed_with_thumbs

from files import lock_folder
from model import GPT, GPTConfig
from tokenizer import SPECIAL_TOKENS, Tokenizer

FLAGS = ('--device=cpu --dtype=float32 --batch_size=4 --max_steps=12 --warmup_steps=0 '
         '--eval_interval=5 --save_interval=4')
OWN = {'train': '--learning_rate=1e-2 --dropout=0.1 --log_interval=1 --block_size=32 --eval_tokens=256',
       'sft': '--learning_rate=1e-2 --dropout=0.1 --log_interval=1',
       'dpo': '--learning_rate=3e-3 --log_interval=1',
       'rl': '--learning_rate=1e-2 --num_samples=6 --max_new_tokens=8 --eval_prompts=4'}
every_trainer = with_each('trainer', OWN, indirect=True)
post_trainers = with_each('trainer', ['sft', 'dpo', 'rl'], indirect=True)


class Trainer(NamedTuple):
    name: str
    start: pathlib.Path         # its model has dropout, so that lost random state shows
    data: pathlib.Path          # a folder; that of rl.py has the program that gives rewards

    def given(self, data):
        return f'--reward={data}/paid.py' if self.name == 'rl' else f'--data_dir={data}'

    def begin(self, out, *more, **how):
        return self.goes_on(out, f'--init_from={self.start}', self.given(self.data),
                            FLAGS, OWN[self.name], *more, **how)

    def goes_on(self, out, *more, **how):
        typed = [self.given(self.data)] if self.name == 'rl' else []    # a program: typed again
        return run(f'{self.name}.py --out_dir={out} --init_from=resume', *typed, *more,
                   **{**how, 'before': SHORT_SAMPLES + how.get('before', '')})


@shared_fixture
def trainer(request, conversations, pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    base_text(folder, 300)
    data = {'sft': conversations, 'dpo': pairs}.get(request.param, folder)
    (folder / 'paid.py').write_text(PAID)
    return Trainer(request.param, make_sft(folder / 'start', dropout=0.1), data)


@shared_fixture
def done(trainer, tmp_path_factory):
    """The folder of a run; no test may change it."""
    out = tmp_path_factory.mktemp('done') / 'a run'
    assert f"--ckpt='{out}'" in ok(trainer.begin(out))      # the next command, for a shell
    return out


# --- a run and its folder -------------------------------------------------------------------------
def files(trainer):
    return RUN_FILES - ({'last-1.pt', 'train.log'} if trainer.name != 'train' else set())


@every_trainer
def test_the_out_dir_is_complete_and_evaluating_changes_nothing(trainer, done):
    assert contents(done).keys() == files(trainer)
    assert {'step', 'loss', 'lr', 'grad_norm'} <= metrics(done)[1].keys()
    ok(trainer.begin('often', '--eval_interval=4'))
    assert series('often', 'loss') == series(done, 'loss')


@every_trainer
def test_the_best_model_is_that_of_all_parts_of_a_run_and_never_the_untrained_one(trainer, done):
    kind, best = ('val_reward', max) if trainer.name == 'rl' else ('val_loss', min)
    shutil.copytree(done, 'more')
    ok(trainer.begin('worse', '--learning_rate=3 --max_steps=1'))
    ok(trainer.goes_on('more', '--learning_rate=30 --max_steps=14'))
    for out in 'worse', 'more':
        found = best(series(out, kind)[1:])
        assert found == state(out)['best_val'] == GPT.load(out).saved['best_val']


@every_trainer
def test_a_run_is_not_replaced_by_accident_nor_what_it_starts_from_at_all(trainer, done, tmp_path):
    before = contents(done)
    mistake(trainer.begin(done), '--init_from=resume & --overwrite')
    mistake(trainer.begin(done, '--overwrite', trainer.given('nowhere')), 'nowhere')
    config = fill({'mine.py': 'overwrite = True\n'}, tmp_path) / 'mine.py'
    for how in 'resume', 'auto':
        both = trainer.begin(done, config, f'--init_from={how}')
        mistake(both, '--init_from=resume resumes & overwrite=True deletes & --overwrite=False')
    mistake(trainer.begin(done, f'--init_from={done}/last.pt --overwrite'), 'another --out_dir')
    assert contents(done) == before
    out = shutil.copytree(done, 'run')
    ok(trainer.goes_on(out, config, '--max_steps=13 --overwrite=False'))
    assert len(series(out, 'loss')) == 13
    # the last three are about the old run
    fill(dict.fromkeys('notes.md lasting.pt eval.json samples.jsonl compare.json'.split(), ''), out)
    ok(trainer.begin(out, '--overwrite --max_steps=1'))
    assert contents(out).keys() == files(trainer) | {'notes.md', 'lasting.pt'}
    assert len(series(out, 'loss')) == 1


@every_trainer
def test_a_folder_that_cannot_be_written_or_that_another_process_writes_to_is_refused(trainer, done,
                                                                                      tmp_path):
    """Before anything is deleted, for new, overwritten and resumed runs. Nothing of a lock stays."""
    out = shutil.copytree(done, tmp_path / 'run')
    lock = lock_folder(out)             # of this process, until it is released
    for result in (trainer.begin(out), trainer.begin(out, '--overwrite'),
                   trainer.goes_on(out, '--max_steps=13')):
        mistake(result, f"can't write to {out}: another run does & choose another --out_dir")
    lock.release()
    mistake(trainer.begin(out), 'has a run')
    assert contents(out) == contents(done)
    fill({'file': 'mine'})
    for place in 'file', 'file/below', '/proc/no', 'x' * 300:
        mistake(trainer.begin(tmp_path / place), f"can't write to {tmp_path / place}: ")
    mistake(trainer.begin('deep/er', trainer.given('nowhere')), 'nowhere')
    assert {path.name for path in tmp_path.iterdir()} == {'run', 'file'}


# --- it goes on where it was ----------------------------------------------------------------------
# what a run must keep beside the weights: adapters, Muon's momentum, replay, KTO's zero point, the
# reference, a reward head; or make again: the answers of a step that several updates use
RESUMED = """
sft | --lora=4 --optimizer=muon --replay=2 --base_dir=BASE --micro_batch_size=3 | 1
dpo | --loss_type=kto --learning_rate=3e-2 --data_dir=THUMBS | 1
dpo | --loss_type=rm --micro_batch_size=3 | 1
rl | --updates=2 --kl_coef=0.1 --optimizer=muon --micro_batch_size=9 | 2"""


@with_each('trainer, more, updates', table(RESUMED, ' | '), indirect=['trainer'])
def test_a_run_that_was_killed_three_times_is_the_straight_one_bit_for_bit(trainer, more, updates, pairs, out):
    """Killed before its first interval, while saving, and later. The model that it began with may
    be gone by then. init_from=auto begins it, resumes it, and leaves a finished run as it is."""
    base_text('BASE', 300)
    mixed_with_thumbs(pairs, 'THUMBS')
    start, straight, updates = shutil.copytree(trainer.start, 'start'), out.with_name('straight'), int(updates)
    more = f'{more} --init_from={start}'
    ok(trainer.begin(straight, more))
    auto = functools.partial(trainer.begin, out, more, '--init_from=auto')
    killed = [auto(before=accident('kill', updates))]
    assert state(out)['step'] == 0                      # the first save comes before the first step
    shutil.rmtree(start)
    killed += [trainer.goes_on(out, before=killed_while_saving(8)),
               trainer.goes_on(out, before=accident('kill', 5 * updates))]
    assert [result.returncode for result in killed] == [-signal.SIGKILL] * 3, killed
    assert state(out)['step'] == 8
    for _ in range(2):
        assert 'done, best val_' in ok(auto())
        expect_same_run(out, straight)
    if '--replay=2' in more:
        base_text('other', 400)
        mistake(trainer.goes_on(out, '--base_dir=other --max_steps=13'), 'must hold the data of')


@every_trainer
def test_settings_come_from_the_checkpoint_unless_they_are_typed_and_each_change_is_printed(
        trainer, done, out):
    """Also by a config file. The same command again changes nothing."""
    shutil.copytree(done, out)
    told = lambda *flags: re.findall('^((?!out_dir)\\w+) .* -> ', ok(trainer.goes_on(out, *flags)),
                                     re.M)
    typed = FLAGS, OWN[trainer.name], trainer.given(trainer.data), '--max_steps=13'
    assert told(*typed) == ['max_steps']
    shutil.copytree(trainer.data, 'moved')
    fill({'preset.py': 'learning_rate = 0.5'})
    assert len(told('preset.py', '--max_steps=14', trainer.given('moved'))) == 3
    assert series(out, 'step')[-1] == 14
    assert state(out)['config']['learning_rate'] == 0.5
    if trainer.name in ('sft', 'dpo'):          # else the max_steps of the run would make it useless
        assert told('--epochs=1.1', trainer.given('moved')) == ['epochs', 'max_steps']
        assert series(out, 'step')[-1] > 14


OTHER = {'train': '--optimizer=muon --document_mask=True --batch_size=2 --seed=5 --block_size=16',
         'sft': '--optimizer=muon --lora=2 --seed=5 --batch_size=5 --block_size=60',
         'dpo': '--loss_type=ipo --beta=0.2 --batch_size=5 --seed=5',
         'rl': '--optimizer=muon --batch_size=5 --num_samples=5 --kl_coef=0.1 --seed=5'}


# what each reads
READ = {'train': 'train.bin val.bin', 'sft': 'train.jsonl val.jsonl',
        'dpo': 'train.jsonl val.jsonl', 'rl': 'paid.py'}


@every_trainer
def test_another_run_is_not_resumed_as_this_one(trainer, done, out):
    before = contents(done)
    for flag in OTHER[trainer.name].split():
        mistake(trainer.goes_on(done, '--max_steps=14', flag),
                f'{flag[2:].partition("=")[0]} cannot change on resume (this run uses ')
    mistake(trainer.goes_on(done, '--max_steps=11'), f'{done} & at step 12, beyond max_steps=11')
    for file in READ[trainer.name].split():
        other = shutil.copytree(trainer.data, f'other {file}')
        text = pathlib.Path(other, file).read_bytes().replace(b' and ', b' or ', 1)
        moved = text[2:] + text[:2] if file.endswith('bin') else text + text.splitlines(True)[0]
        fill({file: moved}, other)
        mistake(trainer.goes_on(done, '--max_steps=14', trainer.given(other)), other)
    assert contents(done) == before
    shutil.copytree(done, out)
    saved = torch.load(out / 'last.pt', weights_only=True)
    saved['config'] |= {'sample_tokens': 4, 'lora_alpha': 1}
    torch.save(saved, out / 'last.pt')
    mistake(trainer.goes_on(out, '--max_steps=14'), "['lora_alpha', 'sample_tokens']")
    saved['config']['stage'] = 'cpo'        # whose settings are others, of course
    torch.save(saved, out / 'last.pt')
    mistake(trainer.goes_on(out, '--max_steps=14'), f'a run of cpo.py & --init_from={out}')


# --- which examples make up a step ----------------------------------------------------------------
@with_each('script', ['sft.py', 'dpo.py'])
def test_an_epoch_visits_each_row_once_in_batches_of_about_one_length(script):
    """Whatever the batch size, also above the number of rows; another epoch in another order. So in
    any number of steps, no row comes twice more often than another."""
    batch_indices = lift(script, 'batch_indices')
    dice = np.random.default_rng(0)
    lengths = dice.lognormal(4, 1, 2005).astype(int) + 2
    for n, batch_size in [(1, 1), (1, 9), (3, 4), (33, 32), (63, 32), (64, 32), (65, 1), (96, 95),
                          (1023, 16), (1025, 8), (2005, 31), *dice.integers(1, 200, (20, 2))]:
        per_epoch = -(-n // batch_size)
        batches = [batch_indices(i, lengths[:n], batch_size, 1) for i in range(3 * per_epoch)]
        sizes = {len(batch) for batch in batches}
        assert max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1, (n, batch_size)
        seen = np.zeros(n, int)
        for i, batch in enumerate(batches, 1):
            np.add.at(seen, batch, 1)
            assert {*seen} <= {(i - 1) // per_epoch, -(-i // per_epoch)}, (n, batch_size, i)
        assert {*seen} == {3}, (n, batch_size)
    epoch = [[batch_indices(i + first, lengths, 8, 1) for i in range(251)] for first in (0, 251)]
    assert sum(len(rows) * lengths[rows].max() for rows in epoch[0]) < 1.2 * lengths.sum()  # 2.2 in
    assert {*epoch[0][0]} != {*epoch[1][0]}                                         # any order


# what a model reads in training, without the padding
SEEN = before('read', """
    for ids in arguments[1].tolist() if torch.is_grad_enabled() else []:
        print('seen:', bytes(min(id, 255) for id in ids).rstrip(bytes(1)))""")
# rows, batch_size, epochs, processes => steps, and how often a row is read, at least and at most
EPOCHS = """
13 4 1 1 => 4 1 1
13 12 1 2 => 2 1 1
13 64 3 4 => 3 3 3
13 5 1.5 1 => 4 1 2
13 1 0.5 2 => 6 0 1
2 4 1 3 => 1 1 1
3 4 20 1 => 20 20 20"""


@with_each('trainer', ['sft', 'dpo'], indirect=True)
def test_a_run_reads_each_row_as_often_as_its_epochs_say(trainer):
    """Counted in the model's input, in all processes; of a pair, both answers. The last line is
    about fewer rows than a batch has."""
    rows = read_rows(trainer.data / 'train.jsonl')
    shutil.copy(trainer.data / 'val.jsonl', '.')
    for line in EPOCHS.strip().splitlines():
        n, batch_size, epochs, processes, _, steps, least, most = line.split()
        path = write('train.jsonl', rows[:int(n)])
        path.write_text(path.read_text().replace('\n', '\n \n\n'))        # blank lines are no rows
        printed = ok(trainer.begin(
            line, f'--data_dir=. --batch_size={batch_size} --max_steps=0 --epochs={epochs} '
            '--micro_batch_size=3 --eval_interval=1000', processes=int(processes), before=SEEN))
        seen = collections.Counter(re.findall('seen: (.*)', printed))
        assert {*seen.values()} == {*range(int(least), int(most) + 1)} - {0}, line
        if least != '0':
            assert len(seen) == int(n) * (2 if trainer.name == 'dpo' else 1)
        assert series(line, 'step')[-1] == int(steps)


# --- it ends early --------------------------------------------------------------------------------
@post_trainers
def test_what_is_not_finite_ends_it_before_the_weights_and_the_advice_works(trainer, out):
    mistake(trainer.begin(out, before=accident('nan', 6)), 'step 7 & nan & --learning_rate')
    assert all(weight.isfinite().all() for weight in state(out)['model'].values())
    assert series(out, 'step')[-1] == 6
    ok(trainer.goes_on(out, '--learning_rate=1e-3'))
    assert state(out)['step'] == 12


# --- several processes ----------------------------------------------------------------------------
# Only every fourth prompt has answers whose rewards differ: often one process has none of them.
SELDOM = PAID.replace('return sum', 'return int(prompt.split()[0]) % 4 == 0 and sum')


# processes, the size of a batch, flags
SHARED = """
sft | 2 | 7 | --dropout=0
dpo | 2 | 7 | --grad_clip=0.3
dpo | 4 | 3 | --loss_type=kto --data_dir=THUMBS
dpo | 2 | 5 | --loss_type=rm
rl | 3 | 6 | --updates=2 --kl_coef=0.1 --reward=SELDOM.py"""


@with_each('trainer, n, batch_size, more', table(SHARED, ' | '), indirect=['trainer'])
def test_any_batch_is_shared_by_any_number_of_processes(trainer, n, batch_size, more, sft_model,
                                                        pairs):
    """Of 4 processes and a batch of 3, one has nothing to learn from. The several have
    micro-batches, too, and compute their blocks twice. A wrong gradient would change its norm, and
    what is measured after the next update."""
    mixed_with_thumbs(pairs, 'THUMBS')
    fill({'SELDOM.py': SELDOM})
    more = (f'{more} --init_from={sft_model} --batch_size={batch_size} --max_steps=3 '
            '--learning_rate=1e-3 --eval_interval=1')
    ok(trainer.begin('one', more))
    ok(trainer.begin('several', more, '--micro_batch_size=1 --grad_checkpoint=True', processes=int(n)))
    for a, b in zip(metrics('one'), metrics('several'), strict=True):
        assert a == pytest.approx(b, rel=1e-6, abs=2e-6)


# --- mistakes -------------------------------------------------------------------------------------
# Flags => the words that name what is wrong, and what to do.
SETTINGS = {'sft': '''--device=tpu => device='tpu' & cuda
--device=cuda => device='cuda' & --device=auto
--data_dir=nowhere => nowhere/train.jsonl & run: python chats.py --source=FILE --out_dir=NEW
--block_size=1 => fits into 1 tokens
--block_size=97 => train.py --init_from= & --block_size=97
--replay=2 => --base_dir
--base_dir=nowhere => meta.json
--dropout=1 => dropout
--init_from=gone => gone & make one: python train.py
--init_from=resume => last.pt''', 'dpo': '''--device=cuda => device='cuda' & --device=auto
--data_dir=nowhere => nowhere/train.jsonl & chats.py --kind=preference --source=FILE --out_dir=NEW
--beta=1e-300 => beta=1e-300
--label_smoothing=0.5 => label_smoothing
--gamma=2 => gamma has no effect & loss_type='dpo' & only with simpo
--loss_type=orpo --nll_weight=1 => nll_weight has no effect
--loss_type=rm --nll_weight=1 => nll_weight has no effect
--loss_type=rm --beta=0.2 => beta has no effect
--init_from=gone => gone & make one: python sft.py
--init_from=resume => last.pt''', 'rl': '''--device=cuda => device='cuda' & --device=auto
--reward=none => reward=none does not exist
--reward=none.py => none.py & not exist
--reward= => --reward
--init_from=resume => last.pt
--updates=0 => updates=0
--num_samples=1 => num_samples=1
--temperature=0 => temperature
--max_new_tokens=96 => --max_new_tokens
--clip_low=0.1 => clip_low & clip
--init_from=gone => gone & make one: python sft.py'''}


@post_trainers
def test_settings_that_cannot_be_are_refused_with_what_to_do(trainer, out):
    each_is_a_mistake(SETTINGS[trainer.name], trainer.begin, out)
    assert not out.exists()


@post_trainers
def test_a_model_that_cannot_answer_is_no_start(trainer, out):
    """One that knows no messages, one of gaps, a reward model, one with a tokenizer of others; for
    LoRA one whose tokens of messages are new."""
    model = GPT(GPTConfig(260, 96, 1, 2, 0, 32))
    model.embedding.weight.data[-4:] = 0.5

    def refused(words, *flags, model=model, tokenizer=BYTES, **more):
        save_run('start', model, tokenizer, **more)
        mistake(trainer.begin(out, '--init_from=start', *flags), words)
    refused('reward model', reward_head=torch.zeros(2))
    refused('tokenizer.json is not', tokenizer_hash='x')
    if trainer.name == 'sft':
        refused('--lora=0', '--lora=2')
    model.config.causal = False
    refused('mlm')
    refused('<|im_start|>', model=lively(vocab_size=257, block_size=96), tokenizer=Tokenizer.byte(SPECIAL_TOKENS[:1]))
    assert not out.exists()
    if trainer.name != 'sft':               # a base model that knows no answers is only said
        save_run('start', lively(vocab_size=260, block_size=96), BYTES, config={'objective': 'clm'})
        printed = ok(trainer.begin(out, '--init_from=start --max_steps=1'))
        assert 'note: start is a base model' in printed


# A good line, and others: what must be said of each, and flags.
BAD = {
    'sft': r'''{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
{"a": 1} => messages
{"messages": null} => NoneType
[1] => TypeError
{"messages": ["hi"]} => not hi
{"messages": [{"role": "user", "content": "q"}, {"role": "wizard", "content": "a"}]} => wizard
{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": null}]} => None''',
    'dpo': r'''{"prompt": "q", "chosen": "a", "rejected": "b"}
{"prompt": ""} => chosen
{"prompt": "q", "completion": "a", "label": true} => chosen
{"prompt": "q", "completion": "a", "label": "false"} => 'false' => --loss_type=kto
[1] => TypeError
{"prompt": "q", "chosen": null, "rejected": "b"} => TypeError
{"prompt": null, "chosen": "a", "rejected": "b"} => NoneType''',
    'rl': r"""{"prompt": "a", "answer": 1}
[1] => not a JSON object
{"a": 1} => no prompt
{"prompt": "a"} => answer
{"prompt": null, "answer": 1} => no prompt
{"prompt": "a", "answer": null} => None
{"prompt": "a", "answer": "####"} => ####"""}
ANYWHERE = '\udcff => line', '{ => JSON'       # no UTF-8


@post_trainers
def test_a_line_that_cannot_be_used_is_named_by_its_number(trainer, out):
    good, *bad = BAD[trainer.name].split('\n')
    file = 'lines.jsonl' if trainer.name == 'rl' else 'train.jsonl'
    place = f'{file}:2' if trainer.name == 'rl' else f'{file}, line 2'
    data = trainer.given('.').replace('paid.py', file)
    for row in [*bad, *ANYWHERE]:
        line, word, *flags = row.split(' => ')
        fill({'val.jsonl': good, file: f'{good}\n{line}'.encode('utf-8', 'surrogateescape')})
        mistake(trainer.begin(out, data, *flags), place, word)
    assert not out.exists()
