"""Pretraining: what a run writes and depends on, which text it reads, and what never reaches its
weights."""
import functools
import os
import re
import shutil
from pathlib import Path

import numpy as np
import torch
from accidents import accident, before
from conftest import contents, each_is_a_mistake, lift, metrics, mistake, ok
from conftest import (read_json, read_rows, refused, run, same, series, shared_fixture, state,
                      table, train, with_each, write, write_bins)
from pytest import approx

from extras.training import mixture, muon
from extras.text.streaming import Stream
from tokenizer import SPECIAL_TOKENS, Tokenizer

BYTES = Tokenizer.byte(SPECIAL_TOKENS)
# with dropout, so that a step whose randomness came from elsewhere would show
BASE = '--dtype=float32 --dropout=0.1 --learning_rate=1e-2 --max_steps=16'
SHORT = '--max_steps=2 --warmup_steps=1 --dtype=float32 --overwrite'


@shared_fixture
def base(numbers, tmp_path_factory):
    """A run that no test changes, in a folder with a hard name."""
    out = tmp_path_factory.mktemp('runs') / 'a[1] b'
    ok(train(numbers, out, BASE))
    return out


# --- what a run writes ----------------------------------------------------------------------------
def test_a_run_leaves_two_models_a_log_and_figures(base):
    best, last = state(base, 'best.pt'), state(base)            # to use the model, and to go on
    assert best['step'] == last['step'] == 16 and last['optimizer'] and not best['optimizer']
    *rows, step, final = read_rows(base / 'metrics.jsonl')
    assert [row['step'] for row in [*rows, final] if 'val_ppl' in row] == [0, 4, 8, 12, 16]
    assert step['tokens'] == 16 * 256 and step['tok_s'] * step['dt'] == approx(256)
    assert {'memory_mb', 'mfu', 'skipped', 'loss'} <= step.keys()
    assert '--- step 12, val_loss' in (base / 'samples.txt').read_text()


def test_the_held_out_loss_and_its_bits_per_byte_are_those_of_eval_py(numbers):
    """Which test_eval.py computes by hand. Of all blocks of val.bin, as --eval_tokens=0 asks."""
    ok(train(numbers, 'out', SHORT, '--eval_tokens=0'))
    n = (numbers / 'val.bin').stat().st_size // 2 - 1
    ok(run(f'eval.py --device=cpu --ckpt=out --data_dir={numbers} --loss_tokens={n // 32 * 32}'))
    row = read_json('out/eval.json')['tasks']['loss']['trained']
    assert series('out', 'val_loss')[-1] == approx(row['nats'], rel=1e-6)
    assert series('out', 'val_bpb')[-1] == approx(row['bits_per_byte'], rel=1e-6)


# --- what it starts from --------------------------------------------------------------------------
def test_a_run_from_a_folder_has_its_weights_and_shape_and_a_schedule_of_its_own(base, numbers):
    """A setting that says otherwise is refused, also if it is the default; one that nobody gave
    follows."""
    begin = functools.partial(
        run, f'train.py --data_dir={numbers} --out_dir=out --init_from={base} {BASE} --block_size=32 '
        '--batch_size=8 --eval_tokens=2048 --device=cpu')
    mistake(begin('--n_layer=6'), f'{base} & n_layer & 2')
    ok(begin('--max_steps=3 --warmup_steps=2'))
    first, second, *_ = metrics('out')
    assert first['val_loss'] == series(base, 'val_loss')[-1] and second['lr'] == approx(0.5e-2)
    assert state('out')['step'] == 3


# --- its folder -----------------------------------------------------------------------------------
REFUSED = '''
--vocab_size=77 => vocab_size=77 & 320
--n_embd=33 => n_embd=33 & n_head=2
--block_size=9999 => 9999 & train.bin & val.bin & more & tokens
--objective=span --block_size=3 => span
--init_from=nowhere => nowhere
--init_from=resume --out_dir=none => none has no last.pt & --init_from=resume
--device=tpu => tpu & --device=
--shard=fsdp => torchrun
--device=mps => mps & --device=auto
--min_lr=0.02 => min_lr=0.02 & learning_rate=0.01
--dropout=1 => dropout=1
--data_dir='no(where' => no(where & python clean.py & prepare.py --out_dir=NEW'''


def test_a_mistake_is_one_sentence_and_costs_no_run_even_with_overwrite(base, numbers):
    """Nothing is removed before all that can be wrong was looked at, nor by torchrun's restart,
    whose last part is its own, nor where a run has left one checkpoint only."""
    out = shutil.copytree(base, 'run')
    each_is_a_mistake(REFUSED, train, numbers, out, BASE, '--overwrite=True')
    restarts = train(numbers, out, SHORT, env={'TORCHELASTIC_MAX_RESTARTS': '3'})
    mistake(restarts, 'remove --overwrite')
    assert contents(out) == contents(base)
    write('alone/last-1.pt', [])
    mistake(train(numbers, 'alone', BASE), 'alone & --init_from=resume & --overwrite')


# --- data that cannot serve -----------------------------------------------------------------------
def test_data_that_cannot_serve_are_one_sentence(base, numbers):
    ids, begin = np.fromfile(numbers / 'train.bin', np.uint16), functools.partial(train, 'data', 'out')
    # another tokenizer of the same size: the ids fit, the text is another, so no loss would tell
    data = write_bins('data', ids, Tokenizer.byte(SPECIAL_TOKENS[::-1]))
    mistake(begin(f'--init_from={base}'), f'another tokenizer & --tokenizer={base}/tokenizer.json')
    os.truncate('data/train.bin', 4001)                     # a copy that broke off
    mistake(begin(), 'train.bin &  2000  & prepare.py')
    # a stream leaves out what val.bin holds: here everything
    write_bins('data', ids, BYTES, held_out_to=2 ** 64)
    (ids * 0 + 320).tofile('data/val.bin')                  # an id above all
    mistake(begin(), 'data/val.bin & 320')
    ids.tofile('data/val.bin')
    for gone in 'meta.json', 'val.bin':         # without meta.json: as nanoGPT prepares text
        (data / gone).rename('data/meta.pkl')
        mistake(begin(), f'data has no  & {gone} & clean.py & prepare.py --out_dir=NEW')
        (data / 'meta.pkl').rename(data / gone)
    write('text/a.jsonl', [{'text': 'Is it so?'}])
    mistake(begin('--streaming=gone/*.jsonl'), 'streaming=gone/*.jsonl has 0 shards')
    mistake(begin('--streaming=text/a.jsonl'), 'all are held out')


# --- which text a step reads ----------------------------------------------------------------------
epoch_starts = lift('train.py', 'epoch_starts')


def test_an_epoch_visits_every_block_once_in_an_order_and_with_a_shift_of_its_own():
    """A block and its targets stay inside the data."""
    for n_tokens, T in (1009, 10), (12, 10), (2, 1):
        in_order = [k * T for k in range(max(1, n_tokens // T - 1))]
        for number, seed in (0, 0), (10 ** 6, 2 ** 31):
            starts = sorted(epoch_starts(number, n_tokens, T, seed))
            case = f'epoch_starts(epoch={number}, {n_tokens=}, {T=}, {seed=})'
            assert [start - starts[0] for start in starts] == in_order, case
            assert starts[-1] + T < n_tokens, case              # so the last target is inside
    epochs = [epoch_starts(e, 10_001, 50, seed) for seed in (0, 1, 2) for e in range(10)]
    assert len({tuple(starts - min(starts)) for starts in epochs}) == 30        # orders
    assert len({min(starts) for starts in epochs}) > 20     # shifts: of 101; 26 on average


def test_each_epoch_is_shuffled_once():
    """Also while micro-batches alternate between the end of an epoch and the start of the next."""
    starts_of = lift('train.py', 'epoch_starts')
    get_batch = lift('train.py', 'get_batch')
    get_batch.__globals__.update(T=2, batch_size=4, stream=None, batch_transform=None, on_gpu=False,
                                 device='cpu', epoch_starts=starts_of, seed=0)
    for step in range(10):              # 40 sequences, 11 of them in an epoch
        for rows in ([0, 3], [1, 2]):
            get_batch(np.arange(25), np.array(rows), step)
    assert starts_of.cache_info().misses == 4


def test_the_cat_sat_on_the_mat():
    """The lesson's own example: six words in, six targets out, the last of them the end of the
    text. That no word sees those after it, and the loss, are test_model.py's."""
    get_batch = lift('train.py', 'get_batch')
    get_batch.__globals__.update(T=6, batch_size=1, stream=None, batch_transform=None, on_gpu=False,
                                 device='cpu', epoch_starts=epoch_starts, seed=0)
    words = np.array('The cat sat on the mat <EOS>'.split())
    x, y = get_batch(np.arange(7), np.arange(1), 0)
    said = [' '.join(words[row]) for row in (*x.numpy(), *y.numpy())]
    assert said == ['The cat sat on the mat', 'cat sat on the mat <EOS>']


def test_a_run_reads_a_mixture_by_its_passes_and_measures_each_source(numbers):
    """a and b have 3,000 tokens each; b, which is zeros, counts fivefold."""
    ids = np.fromfile(numbers / 'train.bin', np.uint16)[:3000]
    sources = {name: {'tokens': 3000, 'passes': n} for name, n in (('a', 1), ('b', 5))}
    data = write_bins('data', np.concatenate([ids, ids * 0]), BYTES, sources=sources,
                      mixed=False)
    ids.tofile(data / 'val_a.bin')
    (ids * 0).tofile(data / 'val_b.bin')
    count = before('forward', """
        if arguments[0].training:
            print('zeros:', (arguments[1] == 0).float().mean().item())""")
    printed = ok(train(data, 'out', BASE, '--max_steps=24', before=count))
    zeros = [float(part) for part in re.findall('zeros: (.*)', printed)]
    assert np.mean(zeros) == approx(5 / 6, abs=0.1)                 # in train.bin: a half
    both, a, b = (series('out', f'val_{name}loss')[-1] for name in ('', 'a_', 'b_'))
    assert both == approx((a + b) / 2, rel=0.03)


# tokens and weight of each source
MIXTURES = '''
90 50 5000 50
65 1 20000 3
700 80 650 20 3000 5
1000 1 64 9
12345 0.001 500 1
1000 1 65 9 66 3'''


@with_each('mix', table(MIXTURES, None))
def test_what_is_printed_of_a_mixture_is_what_is_read(mix):
    """Counted over two epochs: each token is of its source, and a source that would not fill a
    sequence is refused, with what to do."""
    T = 64
    n_tokens = {f'{i}': int(n) for i, n in enumerate(mix[::2])}
    weights = dict(zip(n_tokens, map(float, mix[1::2])))
    sources = {name: {'tokens': n_tokens[name], 'passes': passes}
               for name, passes in mixture.passes_of(n_tokens, weights).items()}
    if n_tokens['1'] == T:
        refused('source 1 has 64 tokens.*--block_size', mixture.weighted, sources, T)
        return
    of = np.repeat([*sources], [*n_tokens.values()])
    starts = np.concatenate([mixture.weighted(sources, T)(epoch, len(of), T, 1) for epoch in (0, 1)])
    for name, line in zip(sources, mixture.described(sources, len(starts), T).splitlines(), strict=True):
        read = sum((of[start:start + T] == name).sum() for start in starts)
        said, times = re.fullmatch(f'{name}: (.*)% of the tokens, read (.*) times.*', line).groups()
        assert float(said) == approx(100 * read / T / len(starts), abs=0.051)
        assert float(times) == approx(read / n_tokens[name], abs=0.0051)
    assert all(of[start] == of[start + T] for start in starts)


def test_a_stream_is_the_bin_of_its_documents_pass_after_pass():
    """Processes read shards of their own. Damage: test_streaming.py. It goes on: test_resume.py."""
    for name, text in ('a', '1\n2'), ('b', 'kept'), ('c', 'é a'):
        write(f'{name}.jsonl', [{'text': text}])
    for rank, texts in (0, ['1\n2', 'é a']), (1, ['kept'] * 2):
        stream = Stream('.', rank, 2, BYTES, {})
        ids = [id for _ in range(3) for row in stream.take(2, 6) for id in row[:-1]]
        assert BYTES.decode(ids).split('<|endoftext|>')[:4] == texts * 2


def test_losses_of_a_run_in_16_bits_are_those_of_float32(base, numbers):
    for dtype in 'bfloat16', 'float16':
        ok(train(numbers, 'out', BASE, f'--dtype={dtype} --eval_interval=16 --overwrite'))
        assert series('out', 'loss') == approx(series(base, 'loss'), abs=0.02)


# --- the learning rate and the optimizer ----------------------------------------------------------
lr_at = lift('train.py', 'lr_at')


def test_the_schedule_at_its_landmarks():
    # a warm-up; the middle and the end of the cosine; cos(pi/3) = 1/2, cos(2 pi/3) = -1/2
    at = {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 55: 0.55, 100: 0.1, 40: 0.775, 70: 0.325}
    cases = [(wanted, step, 100, 10) for step, wanted in at.items()]
    # without warm-up; all warm-up: the cosine has no length
    for wanted, *steps in *cases, (1.0, 0, 100, 0), (1.0, 5, 5, 5):
        case = 'lr_at(step={}, max_steps={}, warmup_steps={}, learning_rate=1, min_lr=0.1)'.format(*steps)
        assert lr_at(*steps, learning_rate=1.0, min_lr=0.1) == approx(wanted, rel=1e-12), case


def test_muon_is_torchs_bit_for_bit_in_bfloat16(monkeypatch):
    def after_five_steps(make, **how):
        torch.manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(shape)) for shape in ((8, 24), (64, 32))]
        optimizer = make([{'params': params, 'use_muon': True}], lr=3e-3, weight_decay=0.1, **how)
        for _ in range(5):
            for p in params:
                p.grad = torch.randn_like(p)
            optimizer.step()
        return params

    torchs = after_five_steps(torch.optim.Muon, adjust_lr_fn='match_rms_adamw')
    real = muon.orthogonal
    monkeypatch.setattr(muon, 'orthogonal', lambda g: real(g, torch.bfloat16))
    assert same(after_five_steps(muon.Muon), torchs)


@with_each('kind', ['adamw', 'muon'])
def test_weight_decay_acts_on_matrices_only_and_the_embedding_has_its_own_rate_also_after_a_resume(
        numbers, kind):
    """On the gain of a norm it would pull towards 0 what begins at 1. A rate of 0.004 * 9 decays
    each weight by 3.6% a step. Without a gradient nothing else moves."""
    flags = ('--embedding_lr=3 --tie_embeddings=False --learning_rate=4e-3 --min_lr=4e-3 '
             '--warmup_steps=1 --save_interval=1 --weight_decay=9 --dtype=float32')
    still = before('clip', """
        arguments = [*arguments[0]], *arguments[1:]
        for p in arguments[0]:
            p.grad.zero_()""")
    rate_of = lambda name: 0 if 'norm' in name else 12e-3 if name == 'embedding.weight' else 4e-3
    for more in '--max_steps=2', '--init_from=resume --max_steps=3':
        ok(train(numbers, 'out', f'--optimizer={kind}', flags, more, before=still))
        after, earlier = (state('out', name)['model'] for name in ('last.pt', 'last-1.pt'))
        wanted = {name: p * (1 - 9 * rate_of(name)) for name, p in earlier.items()}
        torch.testing.assert_close(after, wanted, rtol=1e-6, atol=0)
        assert 'head.weight' in after


UNUSED = """
import model, torch
real = model.GPT.__init__
def init(self, config):
    real(self, config)
    self.extra = torch.nn.Linear(2, 2)
model.GPT.__init__ = init"""


def test_a_weight_that_forward_does_not_use_and_a_warmup_beyond_the_last_step_are_named(numbers):
    """With several processes, DDP refuses such a weight."""
    flags = '--max_steps=2 --eval_interval=2 --save_interval=2'
    printed = ok(train(numbers, 'out', flags, before=UNUSED))
    assert printed.count('note: no gradient reaches extra.weight, extra.bias, so') == 1
    # TINY warms up for 4 steps
    assert printed.count('note: warmup_steps=4 is above max_steps=2') == 1
    assert 'note:' not in ok(train(numbers, 'used', flags, '--warmup_steps=2'))


# --- accidents ------------------------------------------------------------------------------------
@shared_fixture
def begin(numbers, tmp_path_factory):
    """A run from a model that has learned most, so that its losses are nearly alike. Steps 40 and
    39 are saved; step 40 meets the accident, so its batch has the number 39."""
    start = tmp_path_factory.mktemp('learned') / 'run'
    ok(train(numbers, start, '--max_steps=100 --learning_rate=2e-2 --eval_interval=100'))
    flags = (f'--init_from={start} --max_steps=40 --learning_rate=1e-3 --eval_interval=40 '
             '--save_interval=39 --dtype=float32')
    return lambda out, *more, **how: train(numbers, out, flags, *more, **how)


def skips():
    """The numbers of the steps that train.log says were skipped."""
    return [*map(int, re.findall(r'step (\d+): update skipped', Path('out/train.log').read_text()))]


def test_a_weight_of_any_shape_that_you_add_to_the_model_is_trained(numbers):
    add = """import model, torch
init, backbone = model.GPT.__init__, model.GPT.backbone
def with_more(self, config):
    init(self, config)
    self.more = torch.nn.ParameterList(torch.ones(shape) for shape in ((), (2, 2), (1, 2, 3)))
def use_more(self, *args, **more):
    return backbone(self, *args, **more) * sum(weight.mean() for weight in self.more)
model.GPT.__init__, model.GPT.backbone = with_more, use_more
"""
    ok(train(numbers, 'out', SHORT, before=add))
    weights = state('out')['model']
    assert [bool((weights[f'more.{i}'] == 1).any()) for i in range(3)] == [False] * 3


def test_float16_looks_for_its_scale_and_skips_what_overflows(numbers):
    ok(train(numbers, 'out', '--dtype=float16', before=accident('nan', *range(2, 8))))
    assert state('out')['skipped'] >= 6


@with_each('kind', ['nan', 'badbatch'])
def test_an_accident_costs_one_update_reaches_no_weight_and_is_written_down(begin, kind):
    ok(begin('out', before=accident(kind, 39)))
    after, earlier = state('out'), state('out', 'last-1.pt')
    assert skips() == [40] == [after['step']] and earlier['step'] == 39
    assert all(same(after[part], earlier[part]) for part in ('model', 'optimizer', 'window'))
    assert after['skipped'] == series('out', 'skipped')[-1] == 1 and len(after['window']) == 39
    assert (series('out', 'grad_norm')[-1] is None) == (kind == 'nan')       # JSON has no nan


def test_three_in_a_row_end_the_run_and_its_advice_works(begin):
    """A lower rate; and the checkpoint before, for a run that exploded later than noticed."""
    result = begin('out', '--max_steps=46 --save_interval=4 --spike_z=8',
                   before=accident('badbatch', 40, 41, 42))
    mistake(result, '3 updates in a row were skipped & copy out/last-1.pt to last.pt & --learning_rate & --spike_z=0')
    assert skips() == [41, 42, 43]
    ok(run('train.py --out_dir=out --init_from=resume --learning_rate=1e-4'))
    assert [row['step'] for row in metrics('out') if 'loss' in row] == [*range(1, 47)]


@with_each('error', ["(_ for _ in ()).throw(torch.OutOfMemoryError('CUDA'))",
           'torch.zeros(10 ** 13)'])
def test_when_memory_runs_out_the_last_line_says_what_to_try(numbers, error):
    """What was saved serves."""
    result = train(numbers, 'out', before=before('clip', f'n == 5 and {error}'))
    assert result.returncode == 1 and result.stderr.startswith('Traceback')
    assert re.search('\nerror: out of memory; .*--micro_batch_size.*docs/trouble.md.*\n$', result.stderr)
    assert state('out')['step'] == 4
