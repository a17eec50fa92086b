"""Pretraining: what a run writes, and what it depends on."""
import math
import random
import re
import runpy
import shlex

import pytest
import torch
from accidents import replaced
from conftest import ROOT, RUN_FILES, TINY, metrics, mistake, ok, read_json, read_rows, run, same, series
from conftest import state

from parts.eval.problems import problems, to_jsonl
from parts.model import checkpoints
from parts.prepare import texts
from tokenizer import Tokenizer

# with dropout, so that a step whose randomness came from elsewhere would show
BASE = [*TINY, '--dtype=float32', '--dropout=0.1', '--learning_rate=1e-2', '--max_steps=16']


def train(data_dir, out, *more):
    ok(run('train.py', f'--data_dir={data_dir}', f'--out_dir={out}', *BASE, *more))
    return out


def training(out):
    return [(m['step'], m['loss'], m['grad_norm'], m['lr']) for m in metrics(out) if 'loss' in m]


@pytest.fixture(scope='module')
def base(data_dir, tmp_path_factory):
    return train(data_dir, tmp_path_factory.mktemp('runs') / 'base')


def test_out_dir_is_complete(base, data_dir):
    assert {p.name for p in base.iterdir()} == RUN_FILES
    best, last = state(base, 'best.pt'), state(base)                # to use the model, and to go on
    assert best['step'] == last['step'] == 16 and last['moments'] and not best['moments']
    assert best['tokenizer_hash'] == Tokenizer.load(data_dir / 'tokenizer.json').hash
    config = {'format': checkpoints.FORMAT, **best['config'], 'out_dir': str(base)}
    assert read_json(base / 'config.json') == config and config['max_steps'] == 16
    assert (base / 'samples.txt').read_text(encoding='utf-8').count('--- step') == 5
    assert (base / 'tokenizer.json').read_bytes() == (data_dir / 'tokenizer.json').read_bytes()


def test_log_and_metrics_say_the_same(base):
    log = (base / 'train.log').read_text(encoding='utf-8').splitlines()
    assert sum('lr:' in line for line in log) == 16                     # `grep lr: train.log` is a loss curve
    assert any(f'{math.log(512):.4f}' in line for line in log)          # what to expect of the first loss
    lines = read_rows(base / 'metrics.jsonl')
    steps = [m for m in lines if 'loss' in m]
    assert [m['step'] for m in steps] == list(range(1, 17))
    for m in steps:
        assert {'step', 'tokens', 'loss', 'lr', 'grad_norm', 'dt', 'tok_s'} <= m.keys()
        assert m['tokens'] == m['step'] * 8 * 32 and abs(m['tok_s'] * m['dt'] - 256) < 1e-6
    for m in lines:
        if 'val_loss' in m:
            assert m['val_ppl'] == pytest.approx(math.exp(m['val_loss']), rel=1e-12)
            assert 0 < m['val_bpb'] < m['val_loss']


def test_a_run_begins_by_saying_what_is_about_to_happen(data_dir, tmp_path):
    said = ok(run('train.py', f'--data_dir={data_dir}', *TINY, f'--out_dir={tmp_path}', '--max_steps=9',
                  before=replaced('native bfloat16', 'return True')))
    tokens = read_json(data_dir / 'meta.json')['tokens']
    for words in ('settings that were given: ', f"out_dir='{tmp_path}'", f'tokens: {tokens["train"]:,}, ',
                  'steps an epoch', f'tokens held out: {tokens["val"]:,}', 'blocks: 2, of',
                  'ln(vocab_size=512) = 6.2383', 'processes: 1, on cpu, in bfloat16', 'batch_size=8',
                  'max_steps=9', 'warmup_steps=4'):
        assert words in ' '.join(said.split()), words


def test_the_defaults_are_those_of_the_lessons():
    update = "optimizer='adamw' beta1=0.9 beta2=0.95 weight_decay=0.1 grad_clip=1.0 min_lr=None"
    for script, flags in (('train.py', update),
                          ('sft.py', 'epochs=3.0 eval_interval=0 grad_clip=1.0'), ('dpo.py', 'beta=None')):
        lines = re.findall(r'^(\w+).*? = (\S+)', ok(run(script, '--help')), re.M)
        assert {*flags.split()} <= {f'{name}={default}' for name, default in lines}, script


def test_watching_does_not_change_training_but_clipping_and_the_seed_do(base, data_dir, tmp_path):
    watched = train(data_dir, tmp_path / 'watched', '--eval_interval=3', '--eval_tokens=64',
                    '--sample_tokens=40', '--save_interval=5', '--log_interval=5', '--sample_prompt=import')
    assert training(watched) == [line for line in training(base) if line[0] in (1, 5, 10, 15, 16)]
    assert same(state(watched)['model'], state(base)['model'])

    # the logged norm is the one before clipping; --overwrite leaves nothing of the run before
    tight = train(data_dir, watched, '--overwrite=True', '--grad_clip=0.01', '--max_steps=4')
    assert training(tight)[0] == training(base)[0] and len(training(tight)) == 4
    assert series(tight, 'loss')[3] != series(base, 'loss')[3]
    other = train(data_dir, watched, '--overwrite=True', '--seed=1', '--max_steps=4')
    assert training(other)[0] != training(base)[0]


def test_half_precision_trains_on_a_cpu_with_float32_weights(base, data_dir, tmp_path):
    for dtype in ('bfloat16', 'float16'):
        out = train(data_dir, tmp_path / dtype, f'--dtype={dtype}')
        assert all(w.dtype == torch.float32 for w in state(out)['model'].values())
        a, b = series(out, 'loss'), series(base, 'loss')
        assert a != b and a == pytest.approx(b, abs=0.02)   # products rounded to 8 bits, over 16 steps


def test_init_from_a_folder_starts_from_its_weights_at_step_0(base, data_dir, tmp_path):
    out = train(data_dir, tmp_path, f'--init_from={base}', '--dropout=0', '--max_steps=3', '--warmup_steps=2')
    first, second = metrics(out)[:2]
    assert first['step'] == 0 and first['val_loss'] == series(base, 'val_loss')[-1]     # the same model,
    assert second['step'] == 1 and second['lr'] == pytest.approx(0.5e-2)    # on a schedule of its own
    assert state(out)['step'] == 3
    assert all(moments['step'] == 3 for moments in state(out)['moments']['state'].values())     # new ones


def test_the_shape_of_a_model_that_is_continued_is_its_own(base, data_dir, tmp_path):
    """A setting that says otherwise is refused; one that nobody gave follows the model."""
    some = [flag for flag in BASE if not flag.startswith(('--n_', '--block_size'))]
    flags = ['train.py', f'--data_dir={data_dir}', *some, '--block_size=16', f'--out_dir={tmp_path}/out']
    flags += [f'--init_from={base}', '--max_steps=4']
    six = tmp_path / 'six.py'
    six.write_text('n_layer = 6\n', encoding='utf-8')                           # the default
    for flag, words in ('--n_kv_head=1', 'n_kv_head=2'), (six, 'six.py: n_layer=6 n_layer=2'):
        mistake(run(*flags, flag), str(base), *words.split())
    assert not (tmp_path / 'out').exists()
    ok(run(*flags))
    last = state(tmp_path / 'out')
    shape = {name: last['model_config'][name] for name in checkpoints.SHAPE}
    assert shape.items() <= last['config'].items() and last['config']['block_size'] == 16


# --- what a run says of itself beside its loss --------------------------------------------------------------
def test_a_mixture_is_watched_source_by_source(tmp_path):
    for name, words in (('a', 'red green blue'), ('b', 'one two three four')):
        (tmp_path / name).mkdir()
        dice = random.Random(name)
        for i in range(60):
            text = ' '.join(dice.choices(words.split(), k=200))
            (tmp_path / name / f'{i}.md').write_text(f'{text} {i}\n', encoding='utf-8')
    sources = {name: (f'{tmp_path}/{name}', 0.5) for name in 'ab'}
    (tmp_path / 'mix.py').write_text(f'sources = {sources}\n', encoding='utf-8')
    ok(run('prepare.py', tmp_path / 'mix.py', f'--out_dir={tmp_path}/data', '--tokenizer=byte', '--mode=raw',
           '--dedup=none', '--val_fraction=0.3'))
    said = ok(run('train.py', f'--data_dir={tmp_path}/data', f'--out_dir={tmp_path}/out', *TINY))
    percents = [float(x) for x in re.findall(r': ([\d.]+)% of the tokens, read 0\.\d', said)]
    assert len(percents) == 2 and sum(percents) == pytest.approx(100, abs=0.2) and min(percents) > 40
    for name in 'ab':
        first, *_, last = series(tmp_path / 'out', f'val_{name}_bpb')
        assert last < first
    assert not series(tmp_path / 'out', 'parse_rate') and series(tmp_path / 'out', 'repetition')


def test_repetition_counts_what_a_text_has_had_before_and_parse_rate_judges_whole_statements():
    for words, share in (['a b c d a b c d'], 1 / 5), (['a b c d', 'a b c d'], 0), (['a b', ''], 0):
        assert texts.repetition(words) == pytest.approx(share), words
    for text, parses in (
            ('def f(x):\n    return x\n\ndef g(', 1), ('def f(x:\n    return x\n\ndef', 0), ('x = 1', 0),
            ('import os\nx = [\n    1,\n]\ny', 1), ('', 0), ('x = 1\ntry:\n    x\nexcept E:\n    y', 1),
            ('\0\nx', 0), ('x = ' + '(' * 5000 + '\ny', 0)):
        assert texts.parse_rate([text, 'x = 1\ny']) == (parses + 1) / 2, text[:40]


# --- where data come from -----------------------------------------------------------------------------------
def test_the_command_of_a_preset_leads_to_its_data():
    kinds = {'train.py': 'text', 'sft.py': 'sft', 'dpo.py': 'preference'}
    presets = [path for path in (ROOT / 'config').glob('*.py')
               if '\n_data_from = ' in path.read_text(encoding='utf-8')]
    assert len(presets) > 5
    for path in presets:
        script = re.search(r'(\w+\.py) config/' + path.name, path.read_text(encoding='utf-8'))[1]
        preset = runpy.run_path(str(path))
        commands = [command for command in preset['_data_from'].split(' && ') if 'prepare.py' in command]
        _, program, *words = shlex.split(commands[-1])
        flags = dict(word[2:].split('=', 1) for word in words)
        assert program == 'prepare.py' and flags['out_dir'] == preset['data_dir'], path
        if 'vocab_size' in preset and 'vocab_size' in flags:
            assert int(flags['vocab_size']) == preset['vocab_size'], path
        assert flags.get('kind', 'text') == kinds[script], path
        assert 'source' in flags or script == 'sft.py', path    # never the standard library unsaid


def test_the_defaults_are_a_chain(python_files, tmp_path):
    """Each script reads by default what the one before it wrote, and names it where it is missing."""
    def missing(script, command):
        mistake(run(script, cwd=tmp_path), f' run: {command}')

    def follow(script, *flags):
        return ok(run(script, *SMALL.get(script, []), *flags, cwd=tmp_path))

    missing('train.py', 'python prepare.py')
    follow('prepare.py', f'--source={python_files}/email', '--vocab_size=400')
    for script in ('sample.py', 'eval.py', 'sft.py'):
        missing(script, 'python train.py')
    for script in ('train.py', 'sample.py', 'eval.py'):
        follow(script)
    missing('sft.py', 'python prepare.py --kind=sft')
    follow('prepare.py', '--kind=sft')
    for side, n, split in ('train', 2000, 'train'), ('val', 300, 'validation'):
        written = (tmp_path / f'data/sft/{side}.jsonl').read_text(encoding='utf-8')
        assert written == to_jsonl(problems(n, split=split, with_tests=False))
    for script in ('dpo.py', 'rl.py'):
        missing(script, 'python sft.py')
    follow('sft.py', '--eval_conversations=8')
    mistake(run('rl.py', cwd=tmp_path), 'add --allow_code_execution=True')
    missing('dpo.py', 'python eval.py --ckpt=out/sft')


SMALL = {'train.py': ['--n_layer=1', '--n_head=2', '--n_embd=32', '--batch_size=2', '--max_steps=2',
                      '--warmup_steps=0', '--eval_tokens=64', '--sample_tokens=4', '--compile=False'],
         'sft.py': ['--max_steps=2', '--batch_size=2', '--sample_tokens=4', '--eval_tokens=64'],
         'dpo.py': ['--max_steps=2', '--batch_size=2', '--sample_tokens=4', '--num_samples=1'],
         'sample.py': ['--max_new_tokens=4'], 'eval.py': ['--loss_tokens=64']}


def follow(printed, cwd):
    """Run the last command that a script printed, with flags that make the run small."""
    script, *words = shlex.split(printed.rpartition('python ')[2].partition('\n')[0])
    words = [str(ROOT / word) if word.startswith('config/') else word.rstrip('.') for word in words]
    return ok(run(script, *words, *SMALL[script], '--device=cpu', cwd=cwd, env={'HOME': str(cwd)}))


def test_each_next_command_runs_in_a_folder_of_its_own(python_files, conversations, pairs, tmp_path):
    make = lambda *flags: ok(run('prepare.py', *flags, '--dedup=none', cwd=tmp_path))
    code = f'--source={python_files}/email', '--vocab_size=400'
    chats = f'--source={conversations}/train.jsonl', '--kind=sft', '--out_dir=data/sft'
    for words, *flags in (
            ('--streaming=', *code, '--write=text', '--out_dir=a b'),
            ('--out_dir=out/base\n', *code, '--out_dir=data/base'),
            ('next: python sft.py --data_dir=data/sft --out_dir=out/sft\n', *chats),
            ('=p --out_dir=out/p\n', f'--source={pairs}/train.jsonl', '--kind=preference', '--out_dir=p')):
        printed = make(*flags)
        assert words in printed
        follow(follow(printed, tmp_path), tmp_path)         # train, and sample
    measure = 'python eval.py --ckpt=out/base --data_dir=data/base'
    follow(follow(measure, tmp_path), tmp_path)             # eval, and sample
