"""Pretraining: what a run writes, and what it depends on."""
import math
import re
import runpy
import shlex

import numpy as np
import pytest
import torch
from accidents import replaced
from conftest import ROOT, RUN_FILES, TINY, metrics, mistake, ok, read_json, read_rows, run, same, series
from conftest import state, write_bins

from model import GPT
from extras.problems import problems, to_jsonl
from tokenizer import SPECIAL_TOKENS, Tokenizer

# with dropout, so that a step whose randomness came from elsewhere would show
BASE = [*TINY, '--dtype=float32', '--dropout=0.1', '--learning_rate=1e-2', '--max_steps=16']


def train(data_dir, out, *more):
    ok(run('train.py', f'--data_dir={data_dir}', f'--out_dir={out}', *BASE, *more))
    return out


def training(out):
    return [(m['step'], m['loss'], m['grad_norm'], m['lr']) for m in metrics(out) if 'loss' in m]


@pytest.fixture(scope='module')
def base(numbers, tmp_path_factory):
    return train(numbers, tmp_path_factory.mktemp('runs') / 'base')


def test_out_dir_is_complete(base, numbers):
    assert {p.name for p in base.iterdir()} - {'.lock'} == RUN_FILES
    best, last = state(base, 'best.pt'), state(base)                # to use the model, and to go on
    assert best['step'] == last['step'] == 16 and last['optimizer'] and not best['optimizer']
    assert best['tokens'] == 16 * 8 * 32 and best['format'] == 'nanoparrot-checkpoint-1'
    assert best['tokenizer_hash'] == Tokenizer.load(numbers / 'tokenizer.json').hash
    assert read_json(base / 'config.json') == {**best['config'], 'out_dir': str(base)}
    assert best['config']['max_steps'] == 16
    assert (base / 'samples.txt').read_text(encoding='utf-8').count('--- step') == 5
    assert (base / 'tokenizer.json').read_bytes() == (numbers / 'tokenizer.json').read_bytes()


def test_log_and_metrics_say_the_same(base, numbers):
    log = (base / 'train.log').read_text(encoding='utf-8').splitlines()
    assert sum('lr:' in line for line in log) == 16                     # `grep lr: train.log` is a loss curve
    V = Tokenizer.load(numbers / 'tokenizer.json').vocab_size
    assert any(f'{math.log(V):.4f}' in line for line in log)            # what to expect of the first loss
    lines = read_rows(base / 'metrics.jsonl')
    steps = [m for m in lines if 'loss' in m]
    assert [m['step'] for m in steps] == list(range(1, 17))
    for m in steps:
        assert {'step', 'tokens', 'loss', 'lr', 'grad_norm', 'dt', 'tok_s', 'mfu', 'data_s', 'memory_mb',
                'skipped'} <= m.keys()
        assert m['tokens'] == m['step'] * 8 * 32 and abs(m['tok_s'] * m['dt'] - 256) < 1e-6
        assert 0 <= m['data_s'] < m['dt'] and m['mfu'] is None          # on a CPU, none is claimed
    evaluations = [m for m in lines if 'val_loss' in m]
    assert [m['step'] for m in evaluations] == [0, 4, 8, 12, 16]
    for m in evaluations:
        assert m['val_ppl'] == pytest.approx(math.exp(m['val_loss']), rel=1e-12)
        assert 0 < m['val_bpb'] < 2 * m['val_loss']
    samples = (base / 'samples.txt').read_text(encoding='utf-8')
    assert all(f'--- step {m["step"]}, val_loss {m["val_loss"]:.4f}' in samples for m in evaluations)


def test_bits_per_byte_are_nats_by_hand(numbers, tmp_path):
    """Of all blocks of val.bin, which --eval_tokens=0 asks for; a special token has no bytes."""
    out = train(numbers, tmp_path, '--eval_tokens=0', '--max_steps=1', '--warmup_steps=0')
    tokenizer = Tokenizer.load(numbers / 'tokenizer.json')
    model = GPT.load(out / 'last.pt').eval()
    ids = torch.from_numpy(np.fromfile(numbers / 'val.bin', np.uint16).astype(np.int64))
    n = (len(ids) - 1) // 32
    x, y = ids[:n * 32].view(n, 32), ids[1:n * 32 + 1].view(n, 32)
    with torch.no_grad():
        nats = sum(model(a[None], b[None])[1].item() * 32 for a, b in zip(x, y))
    n_bytes = sum(tokenizer.text_bytes[id] for id in y.flatten().tolist())
    assert n_bytes < y.numel()
    assert series(out, 'val_loss')[-1] == pytest.approx(nats / y.numel(), rel=1e-6)
    assert series(out, 'val_bpb')[-1] == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-6)


def test_a_run_begins_by_saying_what_is_about_to_happen(numbers, tmp_path):
    said = ok(run('train.py', f'--data_dir={numbers}', *TINY, f'--out_dir={tmp_path}', '--max_steps=9',
                  before=replaced('native bfloat16', 'return True')))
    n = read_json(numbers / 'meta.json')['tokens']['train']
    V = Tokenizer.load(numbers / 'tokenizer.json').vocab_size
    for words in (f'--out_dir={tmp_path}', str(n), f'epochs: {9 * 8 * 32 / n:.2f}', f'{math.log(V):.4f}',
                  'processes: 1', 'cpu', 'bfloat16', 'parameters: ', 'n_layer=2'):
        assert words in ' '.join(said.replace(f'{n:,}', str(n)).split()), words


def test_the_defaults_are_those_of_the_lessons():
    update = "optimizer='adamw' beta1=0.9 beta2=0.95 weight_decay=0.1 grad_clip=1.0 min_lr=None"
    for script, flags in (('train.py', update),
                          ('sft.py', 'epochs=3.0 eval_interval=0 grad_clip=1.0'), ('dpo.py', 'beta=None')):
        printed = ok(run(script, '--help'))
        for name, value in (flag.split('=') for flag in flags.split()):
            assert re.search(rf'^\W*{name}\b.*?= ?{value}(?!\w)', printed, re.M), (script, name)


def test_watching_does_not_change_training_but_clipping_and_the_seed_do(base, numbers, tmp_path):
    watched = train(numbers, tmp_path / 'watched', '--eval_interval=3', '--eval_tokens=64',
                    '--sample_tokens=40', '--save_interval=5', '--log_interval=5', '--sample_prompt=import')
    assert training(watched) == [line for line in training(base) if line[0] in (1, 5, 10, 15, 16)]
    assert same(state(watched)['model'], state(base)['model'])

    # the logged norm is the one before clipping; --overwrite leaves nothing of the run before
    tight = train(numbers, watched, '--overwrite=True', '--grad_clip=0.01', '--max_steps=4')
    assert training(tight)[0] == training(base)[0] and len(training(tight)) == 4
    assert series(tight, 'loss')[3] != series(base, 'loss')[3]
    other = train(numbers, watched, '--overwrite=True', '--seed=1', '--max_steps=4')
    assert training(other)[0] != training(base)[0]


def test_half_precision_trains_on_a_cpu_with_float32_weights(base, numbers, tmp_path):
    for dtype in ('bfloat16', 'float16'):
        out = train(numbers, tmp_path / dtype, f'--dtype={dtype}')
        assert all(w.dtype == torch.float32 for w in state(out)['model'].values())
        a, b = series(out, 'loss'), series(base, 'loss')
        assert a != b and a == pytest.approx(b, abs=0.02)   # products rounded to 8 bits, over 16 steps


def test_a_clock_that_ticks_coarsely_divides_by_nothing(base, numbers, tmp_path):
    still = 'import time; time.perf_counter = lambda: 7.0'
    ok(run('train.py', f'--data_dir={numbers}', f'--out_dir={tmp_path}', *BASE, before=still))
    assert training(tmp_path) == training(base)
    assert all(row['tok_s'] is None or row['tok_s'] > 0 for row in read_rows(tmp_path / 'metrics.jsonl')
               if 'loss' in row)


def test_init_from_a_folder_starts_from_its_weights_at_step_0(base, numbers, tmp_path):
    out = train(numbers, tmp_path, f'--init_from={base}', '--dropout=0', '--max_steps=3', '--warmup_steps=2')
    first, second = metrics(out)[:2]
    assert first['step'] == 0 and first['val_loss'] == series(base, 'val_loss')[-1]     # the same model,
    assert second['step'] == 1 and second['lr'] == pytest.approx(0.5e-2)    # on a schedule of its own
    assert state(out)['step'] == 3
    assert all(moments['step'] == 3 for moments in state(out)['optimizer'].values())        # new ones


def test_the_shape_of_a_model_that_is_continued_is_its_own(base, numbers, tmp_path):
    """A setting that says otherwise is refused; one that nobody gave follows the model."""
    some = [flag for flag in BASE if not flag.startswith(('--n_', '--block_size'))]
    flags = ['train.py', f'--data_dir={numbers}', *some, '--block_size=16', f'--out_dir={tmp_path}/out']
    flags += [f'--init_from={base}', '--max_steps=4']
    six = tmp_path / 'six.py'
    six.write_text('n_layer = 6\n', encoding='utf-8')                           # the default
    for flag, words in (('--n_kv_head=1', 'n_kv_head 2'), (six, 'n_layer 2'),
                        ('--n_embd=384', 'n_embd 32'),
                        ('--tie_embeddings=False', 'tie_embeddings True')):
        mistake(run(*flags, flag), str(base), *words.split())
    assert not (tmp_path / 'out').exists()
    ok(run(*flags))
    last = state(tmp_path / 'out')
    for name in 'n_layer', 'n_head', 'n_kv_head', 'n_embd', 'n_ffn', 'vocab_multiple', 'tie_embeddings':
        assert last['config'][name] == last['model_config'][name], name
    assert last['config']['block_size'] == 16


def test_a_shape_that_cannot_be_is_one_sentence(numbers, tmp_path):
    flags = [f'--data_dir={numbers}', *TINY, f'--out_dir={tmp_path}/out']
    for flag, *words in (('--n_head=5', 'n_head', '5'), ('--n_kv_head=3', 'n_kv_head', '3'),
                         ('--block_size=9999', '9999', str(numbers)),
                         ('--vocab_size=77', 'vocab_size', '320'),
                         ('--n_layer=0', 'n_layer', '0'), ('--dropout=1', 'dropout', '1'),
                         ('--learning_rate=nan', 'learning_rate', 'nan'), ('--batch_size=0', 'batch_size'),
                         ('--eval_interval=0', 'eval_interval'), ('--decay_steps=3', 'decay_steps', 'wsd'),
                         ('--schedule=step', 'schedule', 'step', 'wsd'), ('--device=tpu', 'device', 'tpu'),
                         ('--init_from=nowhere', 'nowhere')):
        mistake(run('train.py', *flags, flag), *words)
    assert not (tmp_path / 'out').exists()


# --- a mixture ----------------------------------------------------------------------------------------------
def test_a_mixture_is_watched_source_by_source(tmp_path):
    """train.bin has 3,000 tokens of a and then 3,000 of b, which count threefold."""
    tokenizer = Tokenizer.byte(SPECIAL_TOKENS)
    texts = {'a': 'red green blue ' * 200, 'b': 'one two three ' * 300}
    ids = {name: np.array(tokenizer.encode(text[:3000]), np.uint16) for name, text in texts.items()}
    sources = {'a': {'tokens': 3000, 'passes': 1}, 'b': {'tokens': 3000, 'passes': 3}}
    data = write_bins(tmp_path / 'data', np.concatenate([*ids.values()]), tokenizer, sources=sources,
                      mixed=False)
    for name in 'ab':
        ids[name].tofile(data / f'val_{name}.bin')
    train(data, tmp_path / 'out', '--learning_rate=3e-2', '--max_steps=24')
    said = (tmp_path / 'out/train.log').read_text(encoding='utf-8')
    epochs = 24 * 8 * 32 / 6000
    assert re.findall(r'(\w): ([\d.]+)% of the tokens, read ([\d.]+) times', said) == [
        ('a', '25.0', f'{epochs:.2f}'), ('b', '75.0', f'{3 * epochs:.2f}')]
    for name in 'ab':
        first, *_, last = series(tmp_path / 'out', f'val_{name}_bpb')
        assert last < first
    losses = [series(tmp_path / 'out', f'val_{name}loss')[-1] for name in ('', 'a_', 'b_')]
    assert losses[0] == pytest.approx((losses[1] + losses[2]) / 2, rel=0.03) and losses[2] < losses[1]


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
    missing('dpo.py', 'python sft.py')
    mistake(run('rl.py', cwd=tmp_path), ' run: python sft.py')
    follow('sft.py')
    mistake(run('rl.py', cwd=tmp_path), '--reward= does not exist', 'problems')
    mistake(run('rl.py', '--reward=problems', cwd=tmp_path), 'add --allow_code_execution=True')
    mistake(run('dpo.py', cwd=tmp_path), 'prepare.py --kind=preference')


SMALL = {'train.py': ['--n_layer=1', '--n_head=2', '--n_embd=32', '--batch_size=2', '--max_steps=2',
                      '--warmup_steps=0', '--eval_tokens=64', '--sample_tokens=4', '--compile=False'],
         'sft.py': ['--max_steps=2', '--batch_size=2', '--sample_tokens=4'],
         'dpo.py': ['--max_steps=2', '--batch_size=2', '--sample_tokens=4'],
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
            ('python sft.py --init_from=out/base --data_dir=data/sft --out_dir=out/sft\n', *chats),
            ('=p --out_dir=out/p\n', f'--source={pairs}/train.jsonl', '--kind=preference', '--out_dir=p')):
        printed = make(*flags)
        assert words in printed
        follow(follow(printed, tmp_path), tmp_path)         # train, and sample
    measure = 'python eval.py --ckpt=out/base --data_dir=data/base'
    follow(follow(measure, tmp_path), tmp_path)             # eval, and sample
