"""
What sft.py, dpo.py and rl.py promise alike: a run goes on bit for bit, nothing is lost or replaced, early
ends are sentences, several processes are one, a copied script works alone, mistakes are named.
"""
import pathlib
import re
import shlex
import shutil
import signal
from typing import NamedTuple

import numpy as np
import pytest
import torch
from accidents import accident, before, full_disk, killed_while_saving
from conftest import PAID, ROOT, base_text, contents, lift, machine, make_sft, metrics, mistake, ok, read_json
from conftest import read_rows, run, same, save_run, series, state, torchrun, write
from test_records import mixed_with_thumbs

from model import GPT, GPTConfig
from tokenizer import SPECIAL_TOKENS, Tokenizer

FILES = {'best.pt', 'last.pt', 'config.json', 'data.json', 'metrics.jsonl', 'samples.txt', 'tokenizer.json'}
FLAGS = ('--device=cpu --dtype=float32 --batch_size=4 --max_steps=12 --warmup_steps=0 --eval_interval=5 '
         '--save_interval=4')
OWN = {'sft': '--learning_rate=1e-2 --dropout=0.1 --log_interval=1 --sample_tokens=4',
       'dpo': '--learning_rate=3e-3 --log_interval=1 --sample_tokens=4',
       'rl': '--learning_rate=1e-2 --num_samples=6 --max_new_tokens=8 --eval_prompts=4'}
every_trainer = pytest.mark.parametrize('trainer', OWN, indirect=True)


class Trainer(NamedTuple):
    name: str
    start: pathlib.Path         # its model has dropout, so that lost random state shows
    data: pathlib.Path          # of rl.py: the program that gives rewards

    @property
    def script(self):
        return f'{self.name}.py'

    def given(self, data):
        return f'--reward={data}' if self.name == 'rl' else f'--data_dir={data}'

    def flags(self):
        return f'--init_from={self.start}', self.given(self.data), *FLAGS.split(), *OWN[self.name].split()

    def begin(self, out, *more, **how):
        return run(self.script, f'--out_dir={out}', *self.flags(), *more, **how)

    def resume(self, out):
        """The words of its command; a program must be typed again."""
        typed = [self.given(self.data)] if self.name == 'rl' else []
        return [f'--out_dir={out}', '--init_from=resume', *typed]

    def goes_on(self, out, *more, **how):
        return run(self.script, *self.resume(out), *more, **how)


@pytest.fixture(scope='module')
def trainer(request, conversations, pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    (folder / 'paid.py').write_text(PAID, encoding='utf-8')
    data = {'sft': conversations, 'dpo': pairs, 'rl': folder / 'paid.py'}[request.param]
    return Trainer(request.param, make_sft(folder / 'start', dropout=0.1), data)


@pytest.fixture(scope='module')
def done(trainer, tmp_path_factory):
    """The folder of a run; no test may change it."""
    out = tmp_path_factory.mktemp('done') / 'run'
    ok(trainer.begin(out))
    return out


# --- a run and its folder -----------------------------------------------------------------------------------
KEYS = {'sft': ['trained'], 'dpo': ['preference_loss', 'chosen_logp', 'rejected_logp'],
        'rl': ['reward', 'entropy', 'length', 'sample_s', 'score_s', 'train_s']}


@every_trainer
def test_the_out_dir_is_complete_and_evaluating_changes_nothing(trainer, done, tmp_path):
    assert contents(done).keys() == FILES
    first, second, *_ = read_rows(done / 'metrics.jsonl')
    kind = 'val_reward' if trainer.name == 'rl' else 'val_loss'
    assert {'step', 'tokens', kind} <= first.keys()
    assert {'step', 'tokens', 'loss', 'lr', 'grad_norm', 'dt', 'tok_s', *KEYS[trainer.name]} <= second.keys()
    ok(trainer.begin(tmp_path / 'often', '--eval_interval=1'))
    assert series(tmp_path / 'often', 'loss') == series(done, 'loss')
    assert len(series(tmp_path / 'often', kind)) == 13
    assert ok(run('sample.py', f'--ckpt={done}', '--prompt=7', '--max_new_tokens=5')).startswith('7')


@every_trainer
def test_the_best_model_is_that_of_all_parts_of_a_run_and_never_the_untrained_one(trainer, done, tmp_path):
    kind, best = ('val_reward', max) if trainer.name == 'rl' else ('val_loss', min)
    found = best(series(done, kind)[1:])
    assert found == state(done)['best_val'] == GPT.load(done).saved['best_val']
    out = shutil.copytree(done, tmp_path / 'run')
    ok(trainer.goes_on(out, '--max_steps=14', '--learning_rate=30'))
    assert state(out)['best_val'] == best(series(out, kind)[1:]) == GPT.load(out).saved['best_val']
    if trainer.name != 'rl':
        assert series(out, kind)[-1] > found == state(out)['best_val']
        ok(trainer.begin(tmp_path / 'worse', '--learning_rate=3', '--max_steps=1'))
        untrained, after = series(tmp_path / 'worse', kind)
        assert untrained < after == GPT.load(tmp_path / 'worse').saved['best_val']


@every_trainer
def test_a_run_is_not_replaced_by_accident_nor_what_it_starts_from_at_all(trainer, done, tmp_path):
    before = contents(done)
    mistake(trainer.begin(done), 'has a run', '--init_from=resume', '--overwrite=True')
    mistake(trainer.begin(done, '--overwrite=True', '--warmup_steps=99'), 'warmup_steps')
    for start in done, done / 'last.pt':
        mistake(trainer.begin(done, f'--init_from={start}', '--overwrite=True'), 'has a run', 'elsewhere')
    assert contents(done) == before
    out = shutil.copytree(done, tmp_path / 'run')
    for name in 'notes.md', 'lasting.pt', 'eval.json':
        (out / name).write_text('mine', encoding='utf-8')
    ok(trainer.begin(out, '--overwrite=True', '--max_steps=1'))
    assert contents(out).keys() == FILES | {'notes.md', 'lasting.pt'}       # eval.json was about the old one
    assert len(metrics(out)) == 3


@every_trainer
def test_links_in_a_folder_of_a_stranger_lead_nowhere(trainer, done, tmp_path):
    for name in 'metrics.jsonl', 'samples.txt', 'last.pt.tmp', 'config.json', 'tokenizer.json.tmp':
        foreign = shutil.copytree(done, tmp_path / name)
        victim = shutil.copy(done / 'config.json', tmp_path / f'victim_{name}')
        (foreign / name).unlink(missing_ok=True)
        (foreign / name).symlink_to(victim)
        mistake(trainer.goes_on(foreign, '--max_steps=14'), f'{name} is a link')
        assert victim.read_bytes() == (done / 'config.json').read_bytes()
    out, target = shutil.copytree(done, tmp_path / 'linked'), tmp_path / 'elsewhere.pt'
    (out / 'last.pt').rename(target)
    (out / 'last.pt').symlink_to(target)
    weights = target.read_bytes()
    killed = trainer.goes_on(out, '--max_steps=14', before=accident('kill', 1))
    assert killed.returncode == -signal.SIGKILL and state(out)['step'] == 12        # the link is still there
    ok(trainer.goes_on(out, '--max_steps=14'))
    assert target.read_bytes() == weights and state(out)['step'] == 14


# --- it goes on where it was --------------------------------------------------------------------------------
def assert_same_run(out, straight):
    assert metrics(out) == metrics(straight)
    for file in 'last.pt', 'best.pt':
        a, b = state(out, file), state(straight, file)
        assert [name for name in a | b if not same(a.get(name), b.get(name))] == []
    assert contents(out).keys() == contents(straight).keys()


# what a run must keep beside the weights: adapters, Muon's momentum, replay, KTO's zero point, the reference,
# a reward head, the answers of a step that several updates use
RESUMED = [('sft', '--lora=4 --optimizer=muon --replay=2 --base_dir=BASE --micro_batch_size=3', 1),
           ('dpo', '--loss_type=kto --learning_rate=3e-2 --data_dir=THUMBS', 1),
           ('dpo', '--loss_type=rm --lora=4 --micro_batch_size=3', 1),
           ('rl', '--updates=2 --kl_coef=0.1 --optimizer=muon --micro_batch_size=1', 2)]


@pytest.mark.parametrize('trainer, more, updates', RESUMED, indirect=['trainer'])
def test_a_run_that_was_killed_three_times_is_the_straight_one_bit_for_bit(trainer, more, updates, pairs,
                                                                           tmp_path):
    """Killed before its first interval, while saving, and later. The model that it began with may be gone by
    then, unless it is the reference of a KL."""
    base_text(tmp_path / 'base', 300)
    mixed_with_thumbs(pairs, tmp_path / 'thumbs')
    start = shutil.copytree(trainer.start, tmp_path / 'start')
    more = more.replace('BASE', f'{tmp_path}/base').replace('THUMBS', f'{tmp_path}/thumbs').split()
    more.append(f'--init_from={start}')
    straight, out = tmp_path / 'straight', tmp_path / 'run'
    ok(trainer.begin(straight, *more))
    killed = [trainer.begin(out, *more, before=accident('kill', 2 * updates))]
    assert state(out)['step'] == 0                          # the first save comes before the first step
    if trainer.name != 'rl':
        shutil.rmtree(start)
    killed += [trainer.goes_on(out, before=killed_while_saving(8)),
               trainer.goes_on(out, before=accident('kill', 5 * updates))]
    assert [result.returncode for result in killed] == [-signal.SIGKILL] * 3, killed
    assert state(out)['step'] == 8
    ok(trainer.goes_on(out))
    assert_same_run(out, straight)
    assert read_json(out / 'config.json')['init_from'] == str(start)
    mistake(trainer.goes_on(out), 'max_steps=12', 'step=12')


@pytest.mark.parametrize('name, code', [('SIGINT', 130), ('SIGTERM', 143)])
@every_trainer
def test_a_signal_ends_it_and_the_command_that_it_prints_gives_the_straight_run(trainer, done, name, code,
                                                                                tmp_path):
    out = tmp_path / 'run'
    result = trainer.begin(out, before=before('clip', f'n == 6 and os.kill(os.getpid(), signal.{name})'))
    assert result.returncode == code and 'Traceback' not in result.stderr
    assert trainer.name == 'dpo' or not result.stderr       # its bar, while the reference is read
    [line] = [line for line in result.stdout.splitlines() if line.startswith('stopped; ')]
    assert f'last.pt has step 4; resume: python {trainer.script} --out_dir={out}' in line
    ok(run(*shlex.split(line.partition('resume: python ')[2])))
    assert_same_run(out, done)


OTHER = {'sft': '--optimizer=muon --lora=2 --seed=5 --batch_size=5 --block_size=60',
         'dpo': '--lora=2 --loss_type=ipo --beta=0.2 --block_size=60',
         'rl': '--optimizer=muon --batch_size=5'}


@every_trainer
def test_another_run_is_not_resumed_as_this_one(trainer, done, tmp_path):
    before = contents(done)
    for flag in OTHER[trainer.name].split():
        mistake(trainer.goes_on(done, '--max_steps=14', flag), 'other ', 'settings', flag[2:].split('=')[0])
    moved = tmp_path / trainer.data.name                    # the same data elsewhere, or another first model
    if trainer.name == 'rl':
        shutil.copy(trainer.data, moved)
        (tmp_path / 'other.py').write_text(PAID.replace('/ 8', '/ 4'), encoding='utf-8')
        others = [tmp_path / 'other.py']
    else:
        shutil.copytree(trainer.data, moved)
        others = [shutil.copytree(trainer.data, tmp_path / side) for side in ('train', 'val')]
        for folder in others:
            with open(folder / f'{folder.name}.jsonl', 'a', encoding='utf-8') as file:
                file.write('\n')
    for data in others:
        mistake(trainer.goes_on(done, '--max_steps=14', trainer.given(data)), 'other ', str(data))
    assert contents(done) == before

    out = shutil.copytree(done, tmp_path / 'damaged')
    (out / 'last.pt').write_bytes((out / 'last.pt').read_bytes()[:999])
    mistake(trainer.goes_on(out), 'last.pt', 'start from another model')
    shutil.copy(out / 'best.pt', out / 'last.pt')
    mistake(trainer.goes_on(out), f'is not of {trainer.script}')
    mistake(trainer.goes_on(tmp_path / 'none'), 'last.pt')
    out = shutil.copytree(done, tmp_path / 'more')
    ok(trainer.goes_on(out, '--max_steps=14', trainer.given(moved), '--learning_rate=1e-3'))
    assert series(out, 'loss')[:12] == series(done, 'loss') and state(out)['step'] == 14


def test_a_run_with_replay_goes_on_with_as_much_of_its_base_text_only(sft_model, conversations, tmp_path):
    for name, sentences in ('a', 300), ('b', 400):
        base_text(tmp_path / name, sentences)
    out = tmp_path / 'run'
    ok(run('sft.py', f'--init_from={sft_model}', f'--data_dir={conversations}', f'--out_dir={out}',
           *FLAGS.split(), '--max_steps=1', '--replay=1', f'--base_dir={tmp_path}/a'))
    before = contents(out)
    for flag in f'--base_dir={tmp_path}/b', '--replay=2', '--replay=0':
        mistake(run('sft.py', f'--out_dir={out}', '--init_from=resume', '--max_steps=2', flag),
                'other data or settings', flag[2:].split('=')[0])
    assert contents(out) == before


# --- which examples make up a step --------------------------------------------------------------------------
@pytest.mark.parametrize('n, batch_size', [(2003, 8), (300, 7), (5, 8), (1, 3)])
@pytest.mark.parametrize('script', ['sft.py', 'dpo.py'])
def test_an_epoch_visits_each_row_at_most_once_in_batches_of_about_one_length(script, n, batch_size):
    """Short and long ones come in turn, and epochs and seeds differ."""
    numbers_of = lift(script, 'numbers_of')
    lengths = np.random.default_rng(0).lognormal(4, 1, n).astype(int) + 2
    per_epoch = max(1, n // batch_size)
    epochs = []
    for seed, epoch in ((1, 0), (1, 9), (2, 0)):
        rows = np.array([numbers_of(epoch * per_epoch + i, lengths, batch_size, seed)
                         for i in range(per_epoch)])
        assert rows.shape == (per_epoch, batch_size)
        counts = np.bincount(rows.ravel(), minlength=n)
        assert len(counts) == n and counts.max() == max(1, -(-batch_size // n))     # a few: several times
        epochs.append(rows.tobytes())
    assert len({*epochs}) == (3 if n > 1 else 1)
    if n == 2003:
        n_padded = (lengths[rows].max(1, keepdims=True) - lengths[rows]).sum()
        assert n_padded < 0.2 * lengths[rows].sum()             # 1.2 in any order
        assert 0.4 < (np.diff(lengths[rows].mean(1)) > 0).mean() < 0.6


# --- it ends early ------------------------------------------------------------------------------------------
@every_trainer
def test_what_is_not_finite_ends_it_before_the_weights_and_the_advice_works(trainer, tmp_path):
    out = tmp_path / 'run'
    result = trainer.begin(out, before=accident('nan', 6))
    rate = {'sft': '0.0025', 'dpo': '0.00075', 'rl': '0.0025'}[trainer.name]
    mistake(result, 'step 7', 'nan', 'step 4', f'--learning_rate={rate}')
    assert all(weight.isfinite().all() for weight in state(out)['model'].values())
    ok(run(*shlex.split(re.search('lower rate: python (.*)', result.stderr)[1])))
    assert state(out)['step'] == 12


@every_trainer
def test_a_full_disk_leaves_the_last_checkpoint(trainer, done, tmp_path):
    out = shutil.copytree(done, tmp_path / 'run')
    machine(trainer.goes_on(out, '--max_steps=14', before=full_disk(60_000)), 'disk')
    assert (out / 'last.pt').read_bytes() == (done / 'last.pt').read_bytes()


# --- several processes --------------------------------------------------------------------------------------
COMPARED = {'sft': 'loss grad_norm trained val_loss',
            'dpo': 'loss grad_norm accuracy chosen_reward margin tokens val_loss',
            'rl': 'reward informative used length val_reward entropy kl loss grad_norm'}
# Only every fourth prompt has answers whose rewards differ: often one of the processes has none of them.
SELDOM = PAID.replace('return sum', 'return int(prompt.split()[0]) % 4 == 0 and sum')


@pytest.mark.parametrize('trainer, n, batch_size, more', [
    ('sft', 2, 7, '--dropout=0'), ('sft', 4, 3, '--dropout=0'), ('dpo', 2, 7, '--grad_clip=0.3'),
    ('dpo', 4, 3, '--loss_type=kto --data_dir=THUMBS'), ('dpo', 2, 5, '--loss_type=rm'),
    ('rl', 3, 6, '--updates=2 --kl_coef=0.1 --reward=SELDOM'), ('rl', 4, 3, '--updates=2')],
    indirect=['trainer'])
def test_any_batch_is_shared_by_any_number_of_processes(trainer, n, batch_size, more, sft_model, pairs,
                                                        tmp_path):
    """Of 4 processes and a batch of 3, one has nothing to learn from. The several have micro-batches, too,
    and compute their blocks twice."""
    mixed_with_thumbs(pairs, tmp_path / 'thumbs')
    (tmp_path / 'seldom.py').write_text(SELDOM, encoding='utf-8')
    more = more.replace('THUMBS', f'{tmp_path}/thumbs').replace('SELDOM', f'{tmp_path}/seldom.py').split()
    more += [f'--init_from={sft_model}', f'--batch_size={batch_size}', '--max_steps=3', '--eval_interval=1']
    if trainer.name == 'rl':
        more += ['--max_steps=2', '--learning_rate=1e-3']
    spy = before('clip', f"""
        name = os.environ.get('RANK', 'alone')
        arguments = [*arguments[0]], *arguments[1:]
        if n == 0:
            torch.save([p.grad for p in arguments[0]], f'{tmp_path}/{{name}}')""")
    one, several = tmp_path / 'one', tmp_path / 'several'
    ok(trainer.begin(one, *more, before=spy))
    ok(trainer.begin(several, *more, '--micro_batch_size=1', '--grad_checkpoint=True', before=spy,
                     processes=n))
    for key in COMPARED[trainer.name].split():
        for a, b in zip(series(one, key), series(several, key), strict=True):
            assert a == b if a is None else a == pytest.approx(b, rel=1e-6, abs=2e-6), key
    gradients, shared = (torch.load(tmp_path / name) for name in ('alone', '0'))
    largest = max(grad.abs().max() for grad in gradients)
    assert largest > 1e-3
    for a, b in zip(gradients, shared, strict=True):
        assert (a - b).abs().max() < 1e-6 * max(1, largest)
    weights = state(several)['model']
    assert state(one)['model'].keys() == weights.keys()
    if trainer.name == 'rl':
        for name, weight in state(one)['model'].items():
            torch.testing.assert_close(weight, weights[name], atol=1e-5, rtol=0)


@pytest.mark.parametrize('rank, deed', [(1, 'os.kill(os.getpid(), signal.SIGKILL)'),
                                        (0, 'raise ValueError("a bug")')], ids=['killed', 'a bug'])
@every_trainer
def test_when_a_process_ends_the_others_do_not_wait(trainer, rank, deed, tmp_path):
    accident = before('clip', f"if n == 3 and os.environ['RANK'] == '{rank}': {deed}")
    result = trainer.begin(tmp_path / 'run', processes=2, timeout=60, before=accident)
    assert result.returncode != 0 and 'done' not in result.stdout


# --- copied -------------------------------------------------------------------------------------------------
# The process that runs it has imported the modules of this checkout: it forgets them first.
FORGET = '''
import sys
for name in 'model', 'tokenizer', 'configurator', 'extras':
    sys.modules.pop(name, None)
'''
ALONE = {'sft': [''], 'dpo': [f'--loss_type={kind}' for kind in ('ipo', 'orpo', 'simpo', 'kto')],
         'rl': ['--reward=LINES']}
DOORS = {'sft': {'--lora=2': 'lora', '--optimizer=muon': 'muon', '--base_dir=x': 'mixture'},
         'dpo': {'--lora=2': 'lora', '--loss_type=rm': 'rewards'},
         'rl': {'--optimizer=muon': 'muon', '--reward=problems': 'rewards', '--reward=START': 'rewards'}}


@every_trainer
def test_with_its_three_leaves_alone_it_trains_in_one_and_in_two_processes(trainer, tmp_path):
    """Under torchrun itself; and a flag whose file is not there is told by name."""
    for name in (trainer.script, 'model.py', 'tokenizer.py', 'configurator.py'):
        shutil.copy(ROOT / name, tmp_path)
    script, out = tmp_path / trainer.script, tmp_path / 'run'
    lines = write(tmp_path / 'lines.jsonl', [{'prompt': f'{i}', 'answer': 1} for i in range(20)])
    call = lambda *flags: run(script, *trainer.flags(), *flags, before=FORGET, cwd=tmp_path)
    ok(call(f'--out_dir={out}', '--max_steps=2'))
    ok(torchrun(2, script, *trainer.resume(out), '--max_steps=4', cwd=tmp_path, timeout=300))
    assert len(series(out, 'loss')) == 4
    for i, flag in enumerate(ALONE[trainer.name]):
        ok(call(f'--out_dir={i}', '--max_steps=1', *flag.replace('LINES', str(lines)).split()))
    for flag, file in DOORS[trainer.name].items():
        mistake(call('--out_dir=no', flag.replace('START', str(trainer.start))), 'copy extras, too', file)


# --- mistakes -----------------------------------------------------------------------------------------------
SETTINGS = {
    'all': {'--warmup_steps=13': 'warmup_steps=13|max_steps=12', '--device=tpu': 'tpu|--device=auto'},
    'sft': {'--data_dir=nowhere': 'train.jsonl|--source=FILE|python prepare.py --kind=sft --out_dir=nowhere',
            '--block_size=1': 'train.jsonl|fits into 1 tokens', '--base_dir=nowhere': 'meta.json',
            '--block_size=97': 'block_size=97|96|extras.longer_context', '--replay=2': 'replay=2|--base_dir',
            '--dropout=1': 'dropout', '--init_from=gone': 'gone|run: python train.py'},
    'dpo': {'--beta=0': 'beta=0', '--gamma=2': '--gamma|dpo|simpo', '--beta=1e-300': 'beta=1e-300',
            '--loss_type=orpo --nll_weight=1': '--nll_weight|orpo',
            '--loss_type=rm --nll_weight=1': '--nll_weight|rm', '--loss_type=rm --beta=0.2': '--beta|rm',
            '--loss_type=ipo --label_smoothing=0.1': '--label_smoothing|ipo',
            '--label_smoothing=0.5': 'label_smoothing=0.5', '--epochs=1e15': 'epochs=1000000000000000.0',
            '--block_size=97': 'block_size=97|96|extras.longer_context',
            '--block_size=1': '0 better|1 tokens',
            '--data_dir=nowhere': 'nowhere|--kind=preference', '--init_from=gone': 'gone|python sft.py'},
    'rl': {'--reward=': '--reward= does not|FILE.py|FILE.jsonl|FOLDER|--help', '--updates=0': 'updates=0',
           '--reward=none': 'none does not exist|problems|FILE.py', '--num_samples=1': 'num_samples=1',
           '--temperature=0': 'temperature', '--init_from=gone': 'gone|run: python sft.py',
           '--slots=3': 'no setting slots'}}


@every_trainer
def test_settings_that_cannot_be_are_refused_with_what_to_do(trainer, tmp_path):
    for flags, words in {**SETTINGS['all'], **SETTINGS[trainer.name]}.items():
        mistake(trainer.begin(tmp_path / 'run', *flags.split(), cwd=tmp_path), *words.split('|'))
    assert not (tmp_path / 'run').exists()


@every_trainer
def test_a_model_that_cannot_answer_is_no_start(trainer, tmp_path):
    cases = [('<|im_start|>', {'special': SPECIAL_TOKENS[:1]}), ('mlm', {'causal': False}),
             ('reward model', {'reward_head': torch.zeros(2)}),
             ('tokenizer.json is not', {'tokenizer_hash': 'x'}),
             ({'sft': '--lora=0', 'dpo': '<|im_start|>', 'rl': ''}[trainer.name], {'flag': '--lora=2'})]
    for i, (word, how) in enumerate(cases[:4 + (trainer.name != 'rl')]):
        tokenizer = Tokenizer.byte(how.pop('special', SPECIAL_TOKENS[:4]))
        flags = [how.pop('flag')] if 'flag' in how else []
        config = GPTConfig(tokenizer.vocab_size, 96, 1, 2, 0, 32, causal=how.pop('causal', True))
        model = GPT(config)
        if flags:                           # new rows, as GPT.load gives them to a model of others
            model.embedding.weight.data[-4:] = model.embedding.weight.data[:-4].mean(0)
        save_run(tmp_path / f'{i}', model, tokenizer, **how)
        mistake(trainer.begin(tmp_path / 'run', f'--init_from={tmp_path}/{i}', *flags), word)
    assert not (tmp_path / 'run').exists()


# A good line, and others: what must be said of each, and flags.
BAD = {
    'sft': r'''{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
{"a": 1} => messages
{"messages": null} => messages
[1] => messages
{"messages": "q"} => role
{"messages": [{"role": "user", "content": "q"}, {"role": "wizard", "content": "a"}]} => wizard
{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": null}]} => None''',
    'dpo': r'''{"prompt": "q", "chosen": "a", "rejected": "b"}
{"prompt": ""} => chosen
{"prompt": "q", "completion": "a", "label": true} => for kto
{"prompt": "q", "completion": "a", "label": "false"} => true or false => --loss_type=kto
[1] => TypeError
{"prompt": "q", "chosen": null, "rejected": "b"} => text
{"prompt": "q", "chosen": [1], "rejected": "b"} => text
{"prompt": null, "chosen": "a", "rejected": "b"} => prompt
{"prompt": ["q"], "chosen": "a", "rejected": "b"} => role''',
    'rl': r"""{"prompt": "a", "answer": 1}
{"a": 1} => prompt
[1] => TypeError
{"prompt": "a"} => answer
{"prompt": null, "answer": 1} => 'prompt': None
{"prompt": "a", "answer": null} => None
{"prompt": "b", "answer": ""} => 'answer': ''
{"prompt": "a", "answer": 2} => not as above
{"prompt": "a", "answer": true} => True
{"prompt": "a", "answer": "####"} => ####"""}
ANYWHERE = [('[' * 100_000, 'Recursion'), ('\udcff\udcfe', 'Decode'), ('{', 'JSON')]      # no UTF-8
END = {'sft': ['prepare.py'], 'dpo': ['"chosen"'], 'rl': []}


@every_trainer
def test_a_line_that_cannot_be_used_is_named_by_its_number(trainer, tmp_path):
    good, *bad = BAD[trainer.name].split('\n')
    path = tmp_path / ('lines.jsonl' if trainer.name == 'rl' else 'train.jsonl')
    data = trainer.given(path if trainer.name == 'rl' else tmp_path)
    (tmp_path / 'val.jsonl').write_text(f'{good}\n', encoding='utf-8')
    for line, word, *flags in [*(row.split(' => ') for row in bad), *ANYWHERE]:
        path.write_text(f'{good}\n{line}', encoding='utf-8', errors='surrogateescape')
        mistake(trainer.begin(tmp_path / 'run', data, *flags), f'{path.name}, line 2', word,
                *END[trainer.name])
    nothing = {'sft': ('', 'train.jsonl has no conversation'), 'rl': ('\n \n', '0 others to train on'),
               'dpo': (good.replace('"b"', '"a"'), '0 better and 0 worse')}
    path.write_text(nothing[trainer.name][0], encoding='utf-8')
    mistake(trainer.begin(tmp_path / 'run', data), nothing[trainer.name][1])
    assert not (tmp_path / 'run').exists()
