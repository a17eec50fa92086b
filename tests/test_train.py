"""Pretraining: what a run writes and depends on, which text it reads, what never reaches its weights."""
import collections
import functools
import gzip
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from accidents import PLACES, accident, before
from conftest import ROOT, RUN_FILES, TINY, contents, lift, machine, metrics, mistake, ok, read_json
from conftest import read_rows, refused, run, same, series, state, train, write, write_bins
from feedback import attempt, expect, told

from extras import muon
from extras.mixture import weighted
from extras.records import Stream
from model import GPT
from tokenizer import SPECIAL_TOKENS, Tokenizer

BYTES = Tokenizer.byte(SPECIAL_TOKENS)
END = BYTES.special['<|endoftext|>']
# with dropout, so that a step whose randomness came from elsewhere would show
BASE = ['--dtype=float32', '--dropout=0.1', '--learning_rate=1e-2', '--max_steps=16']
SHORT = ['--max_steps=2', '--warmup_steps=1', '--dtype=float32']
OF_OTHERS = {'notes.txt', 'model.safetensors', 'last.pt.old', 'config.json.bak', 'samples.md'}


@pytest.fixture(scope='module')
def base(numbers, tmp_path_factory):
    """A run that no test changes, in a folder with a hard name and files of others, which stay."""
    out = tmp_path_factory.mktemp('runs') / 'a[1] b'
    for name in OF_OTHERS:
        write(out / name, [1])
    ok(train(numbers, out, *BASE))
    for name in OF_OTHERS:
        (out / name).unlink()
    return out


def training(out):
    return [(row['step'], row['loss'], row['grad_norm'], row['lr']) for row in metrics(out) if 'loss' in row]


# --- what a run writes --------------------------------------------------------------------------------------
def test_a_run_leaves_two_models_a_log_and_figures(base, numbers):
    assert {path.name for path in base.iterdir()} - {'.lock'} == RUN_FILES
    best, last = state(base, 'best.pt'), state(base)                # to use the model, and to go on
    assert best['step'] == last['step'] == 16 and last['optimizer'] and not best['optimizer']
    assert best['tokens'] == 16 * 8 * 32 and best['format'] == 'nanoparrot-checkpoint-1'
    assert best['tokenizer_hash'] == Tokenizer.load(numbers / 'tokenizer.json').hash
    assert read_json(base / 'config.json') == {**best['config'], 'out_dir': str(base)}
    assert (base / 'tokenizer.json').read_bytes() == (numbers / 'tokenizer.json').read_bytes()

    log = (base / 'train.log').read_text(encoding='utf-8')
    assert log.count(' lr: ') == 16                     # `grep lr: train.log` is a loss curve
    n = read_json(numbers / 'meta.json')['tokens']['train']
    for words in f'epochs: {16 * 8 * 32 / n:.2f}', f'{math.log(320):.4f}', 'processes: 1 (cpu, float32)':
        assert words in log, words
    rows = read_rows(base / 'metrics.jsonl')
    steps = [row for row in rows if 'loss' in row]
    assert [row['step'] for row in steps] == [*range(1, 17)]
    for row in steps:
        assert row['tokens'] == row['step'] * 8 * 32 and abs(row['tok_s'] * row['dt'] - 256) < 1e-6
        assert 0 <= row['data_s'] < row['dt'] and row['mfu'] is None        # on a CPU, none is claimed
        assert {'lr', 'grad_norm', 'memory_mb', 'skipped'} <= row.keys()
    evaluations = [row for row in rows if 'val_loss' in row]
    assert [row['step'] for row in evaluations] == [0, 4, 8, 12, 16]
    samples = (base / 'samples.txt').read_text(encoding='utf-8')
    for row in evaluations:
        assert row['val_ppl'] == pytest.approx(math.exp(row['val_loss']), rel=1e-12)
        assert f'--- step {row["step"]}, val_loss {row["val_loss"]:.4f}' in samples


def test_bits_per_byte_are_nats_by_hand(numbers, tmp_path):
    """Of all blocks of val.bin, which --eval_tokens=0 asks for; a special token has no bytes. The clock of
    this machine ticks so coarsely that a step takes no time."""
    ok(train(numbers, tmp_path, '--eval_tokens=0', '--max_steps=1', '--warmup_steps=0', '--dtype=float32',
             before='import time; time.perf_counter = lambda: 7.0'))
    model = GPT.load(tmp_path / 'last.pt').eval()
    ids = torch.from_numpy(np.fromfile(numbers / 'val.bin', np.uint16).astype(np.int64))
    n = (len(ids) - 1) // 32
    x, y = ids[:n * 32].view(n, 32), ids[1:n * 32 + 1].view(n, 32)
    with torch.no_grad():
        nats = sum(model(a[None], b[None])[1].item() * 32 for a, b in zip(x, y))
    n_bytes = sum(BYTES.text_bytes[id] for id in y.flatten().tolist())
    assert n_bytes < y.numel()
    assert series(tmp_path, 'val_loss')[-1] == pytest.approx(nats / y.numel(), rel=1e-6)
    assert series(tmp_path, 'val_bpb')[-1] == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-6)


def test_watching_does_not_change_training_but_clipping_and_the_seed_do(base, numbers, tmp_path):
    out = tmp_path / 'run'
    ok(train(numbers, out, *BASE, '--eval_interval=3', '--eval_tokens=64', '--sample_tokens=40',
             '--save_interval=5', '--log_interval=5', '--sample_prompt=import'))
    assert training(out) == [line for line in training(base) if line[0] in (1, 5, 10, 15, 16)]
    assert same(state(out)['model'], state(base)['model'])

    # the logged norm is the one before clipping; --overwrite leaves nothing of the run before
    again = *BASE, '--overwrite=True', '--max_steps=4'
    ok(train(numbers, out, *again, '--grad_clip=0.01'))
    assert training(out)[0] == training(base)[0] and len(training(out)) == 4
    assert series(out, 'loss')[3] != series(base, 'loss')[3]
    ok(train(numbers, out, *again, '--seed=1'))
    assert training(out)[0] != training(base)[0]


# --- what it starts from ------------------------------------------------------------------------------------
def test_a_run_from_a_folder_has_its_weights_and_shape_and_a_schedule_of_its_own(base, numbers, tmp_path):
    """A setting that says otherwise is refused, also if it is the default; one that nobody gave follows."""
    six = tmp_path / 'six.py'
    six.write_text('n_layer = 6\n', encoding='utf-8')
    some = [flag for flag in [*TINY, *BASE] if not flag.startswith('--n_')]
    flags = ['train.py', f'--data_dir={numbers}', *some, f'--out_dir={tmp_path}/out', f'--init_from={base}']
    for flag, words in (('--n_kv_head=1', 'n_kv_head 2'), (six, 'n_layer 2'), ('--n_embd=384', 'n_embd 32'),
                        ('--tie_embeddings=False', 'tie_embeddings True'),
                        ('--block_size=64', 'block_size=64 32 extras.longer_context')):
        mistake(run(*flags, flag), str(base), *words.split())
    assert not (tmp_path / 'out').exists()
    ok(run(*flags, '--max_steps=3', '--warmup_steps=2'))
    first, second = metrics(tmp_path / 'out')[:2]
    assert first['step'] == 0 and first['val_loss'] == series(base, 'val_loss')[-1]
    assert second['step'] == 1 and second['lr'] == pytest.approx(0.5e-2)
    last = state(tmp_path / 'out')
    assert all(moments['step'] == last['step'] == 3 for moments in last['optimizer'].values())   # new ones
    for name in last['config'].keys() & last['model_config'].keys():
        assert last['config'][name] == last['model_config'][name], name


def test_data_tokenizer_and_model_of_an_older_version_serve_and_its_run_is_not_resumed(tmp_path):
    shutil.copytree(ROOT / 'tests/old_run', tmp_path, dirs_exist_ok=True)
    shutil.copy(tmp_path / 'data/val.bin', tmp_path / 'data/train.bin')
    meta = read_json(tmp_path / 'data/meta.json')
    meta['tokens']['train'] = meta['tokens']['val']
    write(tmp_path / 'data/meta.json', [meta])
    before = contents(tmp_path / 'run')
    begin = lambda *flags: run('train.py', '--data_dir=data', '--block_size=32', *flags, cwd=tmp_path)
    mistake(begin('--out_dir=run', '--init_from=resume', '--max_steps=999'), 'run/config.json')
    assert contents(tmp_path / 'run') == before
    ok(begin('--init_from=run', '--out_dir=new', *SHORT, '--batch_size=2', '--device=cpu'))
    said = ok(run('sample.py', '--ckpt=run', '--prompt=def f', '--max_new_tokens=4', cwd=tmp_path))
    assert said.startswith('def f')


# --- its folder ---------------------------------------------------------------------------------------------
def test_a_mistake_is_one_sentence_and_costs_no_run_even_with_overwrite(base, numbers, tmp_path):
    """Nothing is removed before all that can be wrong was looked at."""
    out = shutil.copytree(base, tmp_path / 'run')
    kept = contents(out)
    for flags, words in (
            ('--vocab_size=77', 'vocab_size=77 320'), ('--n_embd=33', 'n_embd=33 n_head=2'),
            ('--n_kv_head=3', 'n_kv_head 3'), ('--block_size=9999', f'9999 {numbers}'),
            ('--objective=span --block_size=3', 'span'), ('--init_from=nowhere', 'nowhere'),
            ('--device=tpu', 'tpu --device=auto'), ('--device=cpu:x', 'cpu:x --device=auto'),
            ('--warmup_steps=17', 'warmup_steps=17 max_steps=16 --warmup_steps=0.1'),
            ('--schedule=wsd --warmup_steps=9 --decay_steps=8', 'decay_steps=8'),
            ('--decay_steps=3', 'decay_steps=3 --schedule=wsd'), ('--schedule=step', 'schedule step wsd'),
            ('--out_dir=', "out_dir='' 'out/base'"), ('--dropout=1', 'dropout=1'),
            ('--learning_rate=nan', "learning_rate='nan'"), ('--batch_size=0', 'batch_size=0'),
            ('--eval_interval=0', 'eval_interval=0'), ('--data_dir=nowhere', 'python prepare.py --source=')):
        mistake(train(numbers, out, *BASE, '--overwrite=True', *flags.split(), cwd=tmp_path), *words.split())
    assert contents(out) == kept
    for out, words in ('/proc/no/x', "'/proc/no'"), (tmp_path / 'file', f'{tmp_path}/file'):
        (tmp_path / 'file').touch()
        machine(train(numbers, out, *BASE), words)


def test_no_run_is_written_over_another(base, numbers, tmp_path):
    """Also where a run has left one file only. The sentence names what to type."""
    for files in RUN_FILES, ['config.json'], ['best.pt'], ['last-1.pt']:
        out = tmp_path / str(len(files)) / files[0] if len(files) == 1 else tmp_path / 'all'
        out.mkdir(parents=True)
        for name in files:
            shutil.copy(base / name, out)
        kept = contents(out)
        for start in 'scratch', base:
            mistake(train(numbers, out, *SHORT, f'--init_from={start}'), str(out), '--init_from=resume',
                    '--overwrite=True')
        assert contents(out) == kept


def test_overwrite_removes_what_a_run_writes_and_no_file_of_others(numbers, tmp_path):
    ours = RUN_FILES | {'last.pt.tmp', 'best.pt.tmp', 'config.json.tmp', 'samples.jsonl', 'eval.json'}
    for name in ours | OF_OTHERS:
        (tmp_path / name).write_bytes(b'old')
    (tmp_path / 'folder').mkdir()
    ok(train(numbers, tmp_path, '--overwrite=True', *SHORT))
    left = {path.name for path in tmp_path.iterdir() if path.is_file() and path.read_bytes()[:3] == b'old'}
    assert left == OF_OTHERS and (tmp_path / 'folder').is_dir()
    assert {*os.listdir(tmp_path)} <= OF_OTHERS | RUN_FILES | {'folder', '.lock'}


def test_overwrite_never_removes_the_model_that_a_run_starts_from(base, numbers, tmp_path):
    """A folder whose name begins alike is another one."""
    out = shutil.copytree(base, tmp_path / 'run')
    (tmp_path / 'link').symlink_to(out)
    (out / 'best').mkdir()
    shutil.copy(out / 'best.pt', out / 'best/best.pt')
    for start in out, out / 'best.pt', out / 'best', tmp_path / 'link', '.':
        result = train(numbers, out, *SHORT, '--overwrite=True', f'--init_from={start}', cwd=out)
        mistake(result, str(out))
    assert all((out / name).read_bytes() == text for name, text in contents(base).items())
    alike = shutil.copytree(base, tmp_path / 'run_2')
    ok(train(numbers, out, *SHORT, '--overwrite=True', f'--init_from={alike}'))


def test_a_link_in_a_folder_leads_no_write_anywhere(base, numbers, tmp_path):
    """A folder of strangers may have links. Neither a resumed run nor a new one writes where they lead: a
    link to a checkpoint is replaced, and any other one is refused on resuming."""
    def linked(*names):
        out = shutil.copytree(base, tmp_path / f'{len(os.listdir(tmp_path))}')
        for name in names:
            victim = tmp_path / f'{out.name}.{name}'
            victim.write_bytes((base / name).read_bytes() if name == 'config.json' else b'precious')
            victims[victim] = victim.read_bytes()
            (out / name).unlink(missing_ok=True)
            (out / name).symlink_to(victim)
        return out

    victims = {}
    weights = ['best.pt', 'last-1.pt']
    writes = sorted(RUN_FILES - {'last.pt', *weights}) + [
        'last.pt.tmp', 'best.pt.tmp', 'config.json.tmp', 'tokenizer.json.tmp', '.lock']
    go_on = '--init_from=resume', '--max_steps=18', '--dtype=float32'
    for name in writes:
        mistake(train(numbers, linked(name), *go_on), f'{name} is a link')
    for names, flags in (weights, go_on), (weights + writes, [*SHORT, '--overwrite=True']):
        out = linked(*names)
        ok(train(numbers, out, *flags))
        assert not any((out / name).is_symlink() for name in RUN_FILES & {*names})
    assert all(victim.read_bytes() == text for victim, text in victims.items())


def test_of_two_runs_in_a_folder_the_second_is_told_and_the_first_goes_on(numbers, tmp_path):
    out = tmp_path / 'run'
    flags = [f'--data_dir={numbers}', f'--out_dir={out}', *TINY, '--max_steps=100000',
             '--eval_interval=100000', '--save_interval=100000']
    first = subprocess.Popen([sys.executable, ROOT / 'train.py', *flags], stdout=subprocess.PIPE, text=True)
    try:
        until = time.time() + 300
        while not (out / 'last.pt').exists() and time.time() < until:
            time.sleep(0.1)
        for more in '--init_from=resume', '--init_from=auto', '--overwrite=True':
            mistake(run('train.py', *flags, more), 'another run', str(out))
        first.terminate()
        printed = first.communicate(timeout=300)[0]
    finally:
        first.kill()
    assert first.returncode == 0 and 'stopped at step' in printed
    assert len(series(out, 'loss')) == state(out)['step']


# --- data that cannot serve ---------------------------------------------------------------------------------
def test_data_that_cannot_serve_are_one_sentence(base, numbers, tmp_path):
    ids = np.fromfile(numbers / 'train.bin', np.uint16)
    data = write_bins(tmp_path / 'data', ids, BYTES)

    def spoiled(*words, start='scratch'):
        mistake(train(data, tmp_path / 'x', f'--init_from={start}'), str(data), *words)
        write_bins(data, ids, BYTES)

    for side in 'train', 'val':                 # ids above the vocabulary index past the end
        for at in 0, -1:
            wrong = ids.copy()
            wrong[at] = BYTES.vocab_size
            wrong.tofile(data / f'{side}.bin')
            spoiled(f'{side}.bin', str(BYTES.vocab_size))
    for n_bytes in 4000, 4001:                  # a copy that broke off
        os.truncate(data / 'train.bin', n_bytes)
        spoiled('train.bin', ' 2000 ', 'prepare.py')
    ids[:32].tofile(data / 'val.bin')           # no target for the last token of a sequence
    spoiled('val.bin', '32')
    (data / 'train.bin').unlink()
    spoiled('train.bin', '--streaming')
    write(data / 'meta.json', [{'config': {'kind': 'sft'}}])
    spoiled('prepare.py')

    # Another tokenizer of the same size: the ids are the same, the text is not, so no loss would tell.
    tokenizer = read_json(data / 'tokenizer.json')
    vocab = tokenizer['vocab']
    vocab[97], vocab[98] = vocab[98], vocab[97]
    (data / 'tokenizer.json').write_text(json.dumps(tokenizer), encoding='utf-8')
    other = Tokenizer.load(data / 'tokenizer.json')
    spoiled('tokenizer.json', 'prepare.py')
    for start in base, base / 'best.pt':
        write_bins(data, ids, other)
        spoiled(str(start), 'tokenizer', 'extras.new_vocabulary', start=start)
    assert not (tmp_path / 'x').exists()


# --- which text a step reads --------------------------------------------------------------------------------
starts_of = lift('train.py', 'starts_of')


def in_epoch(number, n_tokens, T, seed=0, starts_of=starts_of):
    """Where the sequences of an epoch begin, in its order."""
    return [int(start) for start in starts_of(number, n_tokens, T, seed)]


def get_batch(**settings):
    """train.py's function, with the variables that it finds there."""
    function = lift('train.py', 'get_batch')
    usual = {'stream': None, 'hide': None, 'kind': 'cpu', 'device': 'cpu', 'starts_of': starts_of, 'seed': 0}
    function.__globals__.update(usual | settings)
    return function


LITTLE_MEMORY = """
import re, resource
with open('/proc/self/status') as file:
    most = int(re.search(r'VmData:\\s+(\\d+)', file.read())[1]) * 1024 + 10 ** 9
resource.setrlimit(resource.RLIMIT_DATA, (most, most))"""


def test_a_run_on_4_GB_of_ids_takes_less_than_1_GB(numbers, tmp_path):
    data = shutil.copytree(numbers, tmp_path / 'data')
    os.truncate(data / 'train.bin', 4 * 10 ** 9)            # sparse: it takes no disk
    meta = read_json(data / 'meta.json')
    meta['tokens']['train'] = 2 * 10 ** 9
    write(data / 'meta.json', [meta])
    long = '--block_size=1024', '--batch_size=1', '--eval_tokens=1024'
    ok(train(data, tmp_path / 'run', *SHORT, *long, before=LITTLE_MEMORY))


def test_an_epoch_visits_every_block_once_in_an_order_and_with_a_shift_of_its_own():
    """A block and its targets stay inside the data."""
    for n_tokens, T in (1009, 10), (12, 10), (2, 1):
        in_order = [k * T for k in range(max(1, n_tokens // T - 1))]
        for number, seed in (0, 0), (1, 1337), (10 ** 6, 2 ** 31):
            asked = f'{n_tokens} tokens, {T=}, {seed=}: where the sequences of epoch {number} begin'
            starts = attempt(asked, in_order, lambda: sorted(in_epoch(number, n_tokens, T, seed)))
            expect(f'{asked}, sorted, without the shift {starts[0]}', in_order,
                   lambda: [start - starts[0] for start in starts])
            end = starts[-1] + T
            assert end < n_tokens, told(f'{asked}: where the last one ends', end, f'before {n_tokens}')
    epochs = [in_epoch(e, 10_001, 50, seed) for seed in (0, 1, 2) for e in range(10)]
    asked = '10,001 tokens, T=50, the epochs 0 to 9 of the seeds 0, 1 and 2:'
    expect(f'{asked} how many of the 30 orders are different', 30,
           lambda: len({tuple(start - min(starts) for start in starts) for starts in epochs}))
    n_shifts = len({min(starts) for starts in epochs})                  # of 101; 26 on average
    assert n_shifts > 20, told(f'{asked} how many of the 30 shifts are different', n_shifts, 'more than 20')


def test_the_cat_sat_on_the_mat():
    """The lesson's own example: six words in, six targets out, the last of them the end of the text. That no
    word sees those after it, and the loss, are test_model.py's."""
    words = 'The cat sat on the mat <EOS>'.split()
    ids = np.array([sorted(set(words)).index(word) for word in words], dtype=np.uint16)
    x, y = get_batch(T=6, batch_size=1)(ids, np.arange(1), 0)
    said = [' '.join(sorted(set(words))[i] for i in row) for row in (*x, *y)]
    assert said == ['The cat sat on the mat', 'cat sat on the mat <EOS>']


def test_a_step_depends_on_nothing_but_its_number_and_a_large_batch_is_two_small_ones():
    """However its rows are shared out."""
    ids = np.arange(1009, dtype=np.uint16)
    eight, four = (get_batch(T=3, batch_size=n, seed=7) for n in (8, 4))
    for step in 70, 3, 41, 42:                                          # 335 blocks: 41 ends the first epoch
        whole = torch.cat(eight(ids, np.arange(8), step), 1)            # (8, 6)
        rows = [eight(ids, np.arange(*some), step) for some in ((0, 3), (3, 8))]
        small = [four(ids, np.arange(4), 2 * step + half) for half in (0, 1)]
        for parts in rows, small:
            assert torch.equal(whole, torch.cat([torch.cat(part, 1) for part in parts]))


def test_a_source_of_a_mixture_is_read_as_often_as_its_passes_say():
    """Sources of 12, 42 and 82 tokens have 2, 9 and 19 blocks of 4. A part of a pass is another one in each
    epoch. A source that is read once is read as train.py reads a bin."""
    ends = 0, 12, 54, 136
    sources = {name: {'tokens': end - begin, 'passes': passes}
               for name, begin, end, passes in zip('abc', ends, ends[1:], (2.5, 1, 0.5))}
    halves = set()
    for number in range(6):
        starts = in_epoch(number, 136, 4, starts_of=weighted(sources))
        times = [collections.Counter(start for start in starts if begin <= start <= end - 5)
                 for begin, end in zip(ends, ends[1:])]                 # with a target, inside the source
        assert [sorted(counter.values()) for counter in times] == [[2, 3], [1] * 9, [1] * 10]
        assert len(starts) == 5 + 9 + 10
        halves.add(tuple(sorted(times[2])))
    assert len(halves) == 6
    one = weighted({'a': {'tokens': 1009, 'passes': 1}})
    assert sorted(in_epoch(5, 1009, 10, starts_of=one)) == sorted(in_epoch(5, 1009, 10))


def test_a_mixture_is_watched_source_by_source(numbers, tmp_path):
    """a and b have 3,000 tokens each, and b counts fivefold."""
    ids = np.fromfile(numbers / 'train.bin', np.uint16)[:3000]
    sources = {'a': {'tokens': 3000, 'passes': 1}, 'b': {'tokens': 3000, 'passes': 5}}
    data = write_bins(tmp_path / 'data', np.concatenate([ids, ids * 0]), BYTES, sources=sources, mixed=False)
    for name in 'ab':
        (ids * (name == 'a')).tofile(data / f'val_{name}.bin')
    printed = ok(train(data, tmp_path / 'out', *BASE, '--max_steps=24'))
    assert 'a: 16.7% of the tokens, read 1.02 times\n' in printed
    assert 'b: 83.3% of the tokens, read 5.12 times, more than 4: it may be learned by heart' in printed
    last = [series(tmp_path / 'out', f'val_{name}loss')[-1] for name in ('', 'a_', 'b_')]
    assert last[0] == pytest.approx((last[1] + last[2]) / 2, rel=0.03) and last[2] < last[1]


# --- streams ------------------------------------------------------------------------------------------------
def stream_of(pattern, rank=0, world=1, tokenizer=BYTES):
    return Stream(str(pattern), rank, world, tokenizer)


@pytest.mark.parametrize('cut', range(7))
def test_a_stream_is_the_bin_of_its_documents_wherever_it_is_resumed(tmp_path, cut):
    """Empty texts, lines that are no records, and several passes."""
    texts, T, sizes = ['ab', '', 'é\nb', 'a' * 23, 'b a', ''], 3, [1, 4, 2, 1, 3, 4]
    for i in (0, 1):
        lines = ''.join(json.dumps({('text', 'content')[i]: text}) + '\n\nnot json\n' for text in texts[i::2])
        (tmp_path / f'{i}.jsonl').write_text(lines, encoding='utf-8')
    ids = np.array([b for i in (0, 1) for text in texts[i::2] for b in [*text.encode(), END]] * 3)
    stream, at = stream_of(tmp_path), 0
    for i, n in enumerate(sizes):
        if i == cut:                                                    # through JSON, as a checkpoint
            stream, position = stream_of(tmp_path), stream.positions()
            stream.go_to(json.loads(json.dumps(position)))
        expected = [ids[(at + row) * T:(at + row + 1) * T + 1] for row in range(n)]
        assert np.array_equal(stream.take(n, T), expected)
        at += n


def test_processes_read_shards_of_their_own(tmp_path):
    for i in range(3):
        write(tmp_path / f'{i}.jsonl', [{'text': str(i)}])
    assert [stream_of(tmp_path, rank, 2).take(2, 2)[:, 0].tolist() for rank in (0, 1)] == [
        [ord('0'), ord('2')], [ord('1'), ord('1')]]


def test_damaged_shards_cost_what_is_damaged_and_what_cannot_be_a_stream_is_refused(tmp_path):
    (tmp_path / 'a.jsonl.gz').write_bytes(gzip.compress(b'{"text": "kept"}\n')[:-4])
    (tmp_path / 'b.jsonl').write_bytes(b'{"text": 3}\n\xff\xfe\n{"text": "good"}\n[1]\n')
    stream = stream_of(tmp_path)
    for _ in range(2):                                                  # two passes
        assert stream.take(1, 10)[0].tolist()[:-1] == [*b'kept', END, *b'good', END]
    (tmp_path / 'c.jsonl').write_text('\n[1]\n', encoding='utf-8')
    refused('c.jsonl.* no line has a text', stream_of(tmp_path / 'c.jsonl').take, 1, 8)
    for name, more, words in (('nowhere', {}, '--write=text'), ('*', {'world': 4}, 'has 3 shards .*4 in all'),
                              ('*', {'tokenizer': Tokenizer.byte([])}, '<.endoftext.>.*--tokenizer=bpe')):
        refused(words, stream_of, tmp_path / name, **more)


# --- the learning rate and the optimizer --------------------------------------------------------------------
lr_at = lift('train.py', 'lr_at')
exact = functools.partial(pytest.approx, rel=1e-12)         # a handful of roundings in float64


def landmark(expected, step, max_steps, warmup_steps, schedule='cosine', decay_steps=0):
    asked = f'lr_at({step=}, {max_steps=}, {warmup_steps=}, learning_rate=1.0, min_lr=0.1, {schedule=}'
    asked += f', {decay_steps=})' if decay_steps else ')'
    expect(asked, exact(expected), lr_at, step, max_steps, warmup_steps, 1.0, 0.1, schedule, decay_steps)


def test_the_schedule_at_its_landmarks():
    at = {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 55: 0.55, 100: 0.1,         # warm-up; middle and end of the cosine
          40: 0.1 + 0.9 * 0.75, 70: 0.1 + 0.9 * 0.25}                   # cos(pi/3) = 1/2, cos(2 pi/3) = -1/2
    for step, expected in at.items():
        landmark(expected, step, 100, 10)
    landmark(1.0, 0, 100, 0)                            # without warm-up
    landmark(1.0, 5, 5, 5)                              # all warm-up: the cosine has no length
    for step, expected in {0: 0.1, 9: 1.0, 50: 1.0, 80: 1.0, 90: 0.55, 100: 0.1}.items():
        landmark(expected, step, 100, 10, 'wsd', 20)


def test_what_is_not_set_follows_from_the_rest(numbers, tmp_path):
    """Learning rates of runs: the default warm-up fits into any run; min_lr is a tenth; wsd falls in the last
    fifth."""
    def rates(*flags):
        ok(train(numbers, tmp_path, '--overwrite=True', '--learning_rate=1', '--spike_z=0', *flags))
        return series(tmp_path, 'lr')
    tenth = rates('--max_steps=20', '--warmup_steps=0.1')
    assert tenth[:3] == exact([0.5, 1.0, 1.0]) and tenth[-1] == pytest.approx(0.1, abs=0.01)
    wsd = rates('--max_steps=10', '--warmup_steps=2', '--schedule=wsd', '--min_lr=0')
    assert wsd == exact([0.5] + [1.0] * 8 + [0.5])              # the last is 1 of 2 steps from the end


def test_muon_is_torchs_bit_for_bit_in_bfloat16_and_up_to_its_digits_in_float32(monkeypatch):
    shapes = [(8, 8), (24, 8), (8, 24), (64, 32), (1, 5)]
    real = muon.orthogonal

    def after_five_steps(make):
        torch.manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
        optimizer = make(params, lr=3e-3, weight_decay=0.1)
        for _ in range(5):
            for p in params:
                p.grad = torch.randn_like(p)
            optimizer.step()
        return params
    monkeypatch.setattr('.'.join(PLACES['orthogonal']), lambda g: real(g, torch.bfloat16))
    ours = after_five_steps(lambda p, **how: muon.Muon([{'params': p, 'use_muon': True}], **how))
    assert same(ours, after_five_steps(functools.partial(torch.optim.Muon, adjust_lr_fn='match_rms_adamw')))
    for shape in shapes:                    # measured: 0.009 to 0.014, of entries up to 0.87
        g = torch.randn(1, *shape)
        fine, coarse = real(g, torch.float32), real(g, torch.bfloat16).float()
        torch.testing.assert_close(fine, coarse, atol=0.03, rtol=0)


@pytest.mark.parametrize('kind', ['adamw', 'muon'])
def test_weight_decay_acts_on_matrices_only_and_the_embedding_has_its_own_rate_also_after_a_resume(
        numbers, tmp_path, kind):
    """On the gain of a norm it would pull towards 0 what begins at 1. A rate of 0.004 * 9 decays each weight
    by 3.6% a step. Without a gradient nothing else moves."""
    flags = [f'--optimizer={kind}', '--embedding_lr=3', '--tie_embeddings=False', '--learning_rate=4e-3',
             '--min_lr=4e-3', '--warmup_steps=1', '--save_interval=1', '--weight_decay=9', '--dtype=float32']
    still = before('clip', """
        arguments = [*arguments[0]], *arguments[1:]
        for p in arguments[0]:
            p.grad.zero_()""")
    for more in ['--max_steps=2'], ['--init_from=resume', '--max_steps=3']:
        ok(train(numbers, tmp_path / 'run', *flags, *more, before=still))
        after, earlier = (state(tmp_path / 'run', name)['model'] for name in ('last.pt', 'last-1.pt'))
        assert 'head.weight' in after and len(after) > 10
        for name, p in after.items():
            rate = 0 if p.dim() == 1 else 12e-3 if name == 'embedding.weight' else 4e-3
            torch.testing.assert_close(p, earlier[name] * (1 - 9 * rate), rtol=1e-6, atol=0, msg=name)


# --- accidents ----------------------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def begin(numbers, tmp_path_factory):
    """A run from a model that has learned most, so that its losses are nearly alike. Steps 40 and 39 are
    saved; step 40 meets the accident, so its batch has the number 39."""
    start = tmp_path_factory.mktemp('learned') / 'run'
    ok(train(numbers, start, '--max_steps=100', '--learning_rate=2e-2', '--eval_interval=100',
             '--save_interval=100'))
    flags = [f'--init_from={start}', '--max_steps=40', '--learning_rate=1e-3', '--eval_interval=40',
             '--save_interval=39', '--dtype=float32']
    return lambda out, *more, **how: train(numbers, out, *flags, *more, **how)


def skips(out):
    """The numbers of the steps that train.log says were skipped."""
    log = (out / 'train.log').read_text(encoding='utf-8')
    return [int(n) for n in re.findall(r'step (\d+): update skipped', log)]


@pytest.mark.parametrize('kind', ['nan', 'badbatch'])
def test_an_accident_costs_one_update_reaches_no_weight_and_is_written_down(begin, tmp_path, kind):
    ok(begin(tmp_path, before=accident(kind, 39)))
    assert skips(tmp_path) == [40]
    after, earlier = state(tmp_path), state(tmp_path, 'last-1.pt')
    assert (after['step'], earlier['step']) == (40, 39)
    for part in 'model', 'optimizer', 'window':
        assert same(after[part], earlier[part]), part
    assert (after['skipped'], earlier['skipped']) == (1, 0)
    row = [row for row in read_rows(tmp_path / 'metrics.jsonl') if 'loss' in row][-1]
    assert row['skipped'] == 1 and (row['grad_norm'] is None) == (kind == 'nan')     # JSON has no nan
    [line] = re.findall('.*update skipped.*', (tmp_path / 'train.log').read_text(encoding='utf-8'))
    assert ('nan' in line) == (kind == 'nan') and f'{row["loss"]:.4f}' in line


def test_without_a_limit_and_in_the_first_30_updates_a_spike_is_an_update(begin, tmp_path):
    ok(begin(tmp_path / 'spike', '--spike_z=0', before=accident('badbatch', 39)))
    ok(begin(tmp_path / 'first', '--max_steps=24', before=accident('badbatch', 23)))
    assert skips(tmp_path / 'spike') == skips(tmp_path / 'first') == []
    spike = [state(tmp_path / 'spike', name)['model']['norm.weight'] for name in ('last.pt', 'last-1.pt')]
    assert not same(*spike)


def test_a_run_goes_on_after_two_accidents_and_float16_after_more(numbers, tmp_path):
    """float16 overflows on purpose, to find its scale."""
    ok(train(numbers, tmp_path / 'two', '--max_steps=12', before=accident('nan', 2, 5, 6, 8, 9)))
    assert skips(tmp_path / 'two') == [3, 6, 7, 9, 10] and state(tmp_path / 'two')['skipped'] == 5
    ok(train(numbers, tmp_path / 'half', '--dtype=float16', before=accident('nan', *range(2, 8))))
    half = state(tmp_path / 'half')
    assert half['skipped'] >= 6 and half['step'] == 12
    assert all(weight.dtype == torch.float32 for weight in half['model'].values())


@pytest.mark.parametrize('kind, updates, more', [
    ('nan', (0, 1, 2), '--spike_z=8'), ('nan', (5, 6, 7), '--spike_z=0'),
    ('badbatch', (40, 41, 42), '--spike_z=8')])
def test_three_in_a_row_end_the_run_and_its_advice_works_as_it_is_typed(begin, tmp_path, kind, updates, more):
    """A lower rate; and the checkpoint before, for a run that exploded later than it was noticed."""
    result = begin(tmp_path, '--max_steps=46', '--save_interval=4', more, before=accident(kind, *updates))
    mistake(result, '3 updates in a row were skipped', '--learning_rate', 'resume')
    assert skips(tmp_path) == [n + 1 for n in updates]
    assert all(weight.isfinite().all() for weight in state(tmp_path)['model'].values())

    again = f'--out_dir={tmp_path}', '--init_from=resume', '--learning_rate=1e-4'
    ok(run('train.py', *again))
    assert state(tmp_path)['step'] == 46 and series(tmp_path, 'lr')[-2] < 1e-4
    [command] = re.findall(r'cp \S+ \S+', result.stderr)
    subprocess.run(command, shell=True, check=True)
    assert state(tmp_path)['step'] == 44
    ok(run('train.py', *again))
    assert state(tmp_path)['step'] == 46
    assert [row['step'] for row in metrics(tmp_path) if 'loss' in row] == [*range(1, 47)]


def test_a_stop_before_the_first_step_saves_what_a_start_needs(numbers, tmp_path):
    """SIGTERM comes while the untrained model writes its sample."""
    ok(train(numbers, tmp_path, before=before('sample', 'os.kill(os.getpid(), signal.SIGTERM)')))
    assert state(tmp_path)['step'] == 1
