"""
Experiments that take minutes: a claim, the runs that test it, one table.

    python bench/experiments.py                             # the names
    python bench/experiments.py beta2                       # runs it, prints its table
    python bench/experiments.py blocks --seeds=5 --steps=1000 --data=data/quickstart

Each run is train.py on one thread, in a process of its own where bench/blocks.py may replace a class of
model.py: 3 layers, 64 wide, context 64, 8 sequences a step, AdamW at 3e-3. Arms share seeds, so they see the
same sequences in the same order. The column `difference` is paired: its mean over the seeds, and the 95 %
interval by Student's t. If that contains 0, these runs see no difference; larger and longer ones may.
A run that was finished is read from --out again; to repeat it, delete that folder. Needs Linux or macOS.
"""
import argparse
import collections
import hashlib
import json
import math
import multiprocessing
import os
import platform
import sys

os.environ['OMP_NUM_THREADS'] = '1'     # before torch is imported
import blocks as patches                # puts this checkout on the path
import corpora
import numpy as np
import torch

from model import IGNORE, load_checkpoint
from tokenizer import Tokenizer

B, T, RATE = 8, 64, 3e-3
FLAGS = ['--n_layer=3', '--n_head=4', '--n_embd=64', f'--block_size={T}', f'--batch_size={B}', '--device=cpu',
         f'--learning_rate={RATE}', '--eval_tokens=32768', '--num_samples=1', '--sample_tokens=1',
         '--log_interval=1', '--spike_z=0', '--keep=1']
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
SERVER = multiprocessing.get_context('forkserver')      # has imported torch once, and forks for each run
SERVER.set_forkserver_preload(['torch', 'torch._dynamo'])


# --- a run, and what it says --------------------------------------------------------------------------------
def train(a, seed, flags=(), block='ours', data=None):
    """The folder of a finished run. It is named by its settings, so two experiments may share a run."""
    flags = [*FLAGS, f'--max_steps={a.steps}', f'--warmup_steps={a.steps // 10}', f'--seed={seed}',
             f'--eval_interval={a.steps}', f'--save_interval={a.steps}', f'--data_dir={data or a.data}',
             *flags]
    name = hashlib.sha256('\n'.join([block, *flags]).encode()).hexdigest()[:12]
    out = f'{a.out}/{name}'
    if not os.path.exists(f'{out}/done'):
        arguments = [block, f'{corpora.ROOT}/train.py', [*flags, f'--out_dir={out}', '--overwrite=True']]
        process = SERVER.Process(target=patches.run, args=(*arguments, f'{a.out}/{name}.log'))
        process.start()
        process.join()                  # a run that diverges is a result, one that fails is not
        with open(f'{a.out}/{name}.log', encoding='utf-8') as f:
            if process.exitcode and 'updates in a row were skipped' not in f.read():
                sys.exit(f'{block} {" ".join(flags)}: the run failed; see {f.name}')
        with open(f'{out}/done', 'w', encoding='utf-8') as f:
            f.write(f'{block} {" ".join(flags)}\n')
    return out


def measure(out, steps):
    """Of a run: bits per byte at its end (inf if it diverged), the mean training loss of its first quarter,
    the largest rise of its loss, the largest norm of a gradient."""
    with open(f'{out}/metrics.jsonl', encoding='utf-8') as f:
        rows = [json.loads(line) for line in f]
    bits = [row['val_bpb'] for row in rows if 'val_bpb' in row and row['step'] == steps]
    steps_logged = [row for row in rows if 'grad_norm' in row]
    losses = np.array([row['loss'] for row in steps_logged], float)
    norms = np.array([row['grad_norm'] for row in steps_logged], float)
    bits = bits[0] if bits and np.isfinite(losses).all() else math.inf
    return {'bits': bits, 'early': losses[:max(1, steps // 4)].mean(), 'rise': largest_rise(losses),
            'norm': norms.max()}


def largest_rise(losses, window=10):
    """How far the loss, averaged over `window` steps, ever stood above an earlier such average: nats."""
    if len(losses) < window:
        return 0.0
    smooth = np.convolve(losses, np.ones(window) / window, 'valid')
    return float((smooth - np.minimum.accumulate(smooth)).max())


def parameters(out):
    if not os.path.exists(f'{out}/best.pt'):        # diverged before its first evaluation
        return 0
    state = torch.load(f'{out}/best.pt', map_location='cpu', weights_only=True, mmap=True)
    tied = state['model_config']['tie_embeddings']      # then the head is the embedding
    return sum(v.numel() for name, v in state['model'].items() if name != 'head.weight' or not tied)


def interval(values):
    """Mean and half of its 95 % interval (nan for one value)."""
    values = np.array(values, float)
    n = len(values)
    half = T95.get(n - 1, 1.96) * values.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
    return values.mean(), half


def shown(values, digits=3, sign=''):
    if not np.isfinite(values).all():
        return f'diverged in {int((~np.isfinite(values)).sum())} of {len(values)}'
    mean, half = interval(values)
    return f'{mean:{sign}.{digits}f}' + ('' if math.isnan(half) else f' ± {half:.{digits}f}')


def table(head, rows):
    print('| ' + ' | '.join(head) + ' |\n|' + '---|' * len(head))
    for row in rows:
        print('| ' + ' | '.join(map(str, row)) + ' |')


def compare(a, arms, extra=None):
    """Train the arms with every seed and print them beside the first. arms: {label: arguments of train}.
    extra: a column's name, and what it says of a run's folder."""
    found = {}
    for label, arm in arms.items():
        outs = [train(a, seed, **arm) for seed in a.seeds]
        found[label] = [measure(out, a.steps) | {'out': out} for out in outs]
        print(f'{label}: {shown([r["bits"] for r in found[label]])}', file=sys.stderr, flush=True)
    first = np.array([row['bits'] for row in found[next(iter(arms))]])
    lines = []
    for label, rows in found.items():
        column = lambda name: np.array([row[name] for row in rows])
        with np.errstate(invalid='ignore'):
            difference = column('bits') - first
        line = [label, f'{parameters(rows[0]["out"]):,}', shown(column('bits')),
                shown(difference, 3, '+') if label != next(iter(arms)) else '-', shown(column('early'), 2),
                shown(column('rise'), 2), shown(column('norm'), 1)]
        lines.append(line + ([shown([extra[1](row['out']) for row in rows])] if extra else []))
    head = ['', 'parameters', 'val bits per byte', 'difference', 'loss, first quarter', 'largest rise',
            'largest gradient']
    table(head + ([extra[0]] if extra else []), lines)


# --- training: optimizer, warm-up, blocks -------------------------------------------------------------------
def beta2(a):
    """AdamW's beta2 0.95 against 0.99 and 0.999: is 0.999 too slow?"""
    compare(a, {f'beta2 {b}': {'flags': [] if b == 0.95 else [f'--beta2={b}']} for b in (0.95, 0.99, 0.999)})


def warmup(a):
    """Warm-up on and off, at the usual rate and at 3 times that rate."""
    arms = {}
    for times in (1, 3):
        rate = [f'--learning_rate={times * RATE:g}'] if times > 1 else []
        arms[f'warm-up, rate x {times}'] = {'flags': rate}
        arms[f'none, rate x {times}'] = {'flags': [*rate, '--warmup_steps=0']}
    compare(a, arms)


def blocks(a):
    """Our block against LayerNorm, learned positions, GELU, post-norm, and shared keys and values."""
    compare(a, {'ours: RMSNorm, RoPE, SwiGLU, MHA, pre-norm': {},
                'LayerNorm': {'block': 'layernorm'}, 'learned positions': {'block': 'learned'},
                'GELU, as many parameters': {'block': 'gelu'}, 'post-norm': {'block': 'postnorm'},
                '1 key/value head of 4, MLP wider': {'flags': ['--n_kv_head=1', '--n_ffn=224']}})


# --- data: duplicates, secrets ------------------------------------------------------------------------------
@torch.no_grad()
def log_probs(model, rows):
    """Log-probability in nats of each row of ids after its first token, (n,)."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [IGNORE] * (width - len(row)) for row in rows])       # (n, T + 1)
    logits = model(ids[:, :-1].clamp(min=0))[0]                                     # (n, T, V)
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction='none')
    return -losses.sum(1).numpy()


def duplicates(a):
    """As many tokens, of which 0 %, 10 % or 50 % are copies of documents, or of one document."""
    texts, tokenizer = corpora.pieces(a.data)
    ids = [row + [tokenizer.special[corpora.END]] for row in tokenizer.encode_batch(texts)]
    arms = {}
    for label, share, one in (('all different', 0, False), ('10 % copies', 0.1, False),
                              ('50 % copies', 0.5, False), ('10 %: one document', 0.1, True)):
        found, times = corpora.with_copies(ids, a.steps * B * T + T, share, one)
        folder = f'{a.out}/data_{share}_{one}_{a.steps}'
        corpora.write_data(a.data, folder, found)
        arms[f'{label} (the probe {times} times)'] = {'data': folder}
    rows = [ids[0][j:j + T + 1] for j in range(0, len(ids[0]), T)]      # the probe
    n_bytes = len(texts[0].encode())

    def of_first(out):
        model = load_checkpoint(out)[0].eval()
        return -log_probs(model, [row for row in rows if len(row) > 1]).sum() / math.log(2) / n_bytes
    compare(a, arms, ('bits per byte of the probe', of_first))


def exposure(own, others):
    """Carlini et al. (arXiv:1802.08232): log2 of the number of candidates - log2 of the secret's rank among
    them by log-probability. Never seen: 1.4 bits on average; the likeliest of 1,024: 10 bits."""
    rank = 1 + int((np.asarray(others) >= own).sum())
    return math.log2(len(others) + 1) - math.log2(rank)


def canary(a):
    """Secrets planted 1, 10, 100 times: how exposed, if deduplicated, if personal data are hidden?"""
    rng = np.random.default_rng(0)
    texts, tokenizer = corpora.pieces(a.data)
    chars = int(2.5 * a.steps * B * T / 4)              # 4 epochs
    n = int(np.searchsorted(np.cumsum([len(text) for text in texts]), chars))
    documents, secrets = corpora.plant(texts, n, rng)
    os.makedirs(a.out, exist_ok=True)
    source = f'{a.out}/canary_{a.steps}.jsonl'
    with open(source, 'w', encoding='utf-8') as f:
        f.writelines(json.dumps({'text': text}) + '\n' for text in documents)
    lines = []
    for label, flags in (('neither', ['--dedup=none', '--pii=False']),
                         ('deduplicated', ['--dedup=minhash', '--pii=False']),
                         ('personal data hidden', ['--dedup=none', '--pii=True'])):
        folder = f'{a.out}/canary_{a.steps}_{label.replace(" ", "_")}'
        corpora.prepare(f'--source={source}', f'--out_dir={folder}', f'--tokenizer={a.data}/tokenizer.json',
                        '--mode=raw', '--processes=1', '--val_fraction=0.5', *flags)
        both = np.concatenate([corpora.read_ids(folder, side) for side in ('train', 'val')])
        corpora.write_data(a.data, f'{folder}_bins', both)
        found = tokenizer.decode(both.tolist())
        models = [load_checkpoint(train(a, seed, data=f'{folder}_bins'))[0].eval() for seed in a.seeds]
        for (way, k), (start, secret) in secrets.items():
            values, said = [], 0
            others = [corpora.number(rng) for _ in range(1023)]
            rows = tokenizer.encode_batch([start + secret, *(f'{start} {other}\n' for other in others)])
            for model in models:
                scores = np.concatenate([log_probs(model, rows[i:i + 128]) for i in range(0, 1024, 128)])
                values.append(exposure(scores[0], scores[1:]))
                prompt = torch.tensor([tokenizer.encode(start)])
                if secret.strip() in tokenizer.decode(model.generate(prompt, 16, 0)[0].tolist()):
                    said += 1
            left = found.count(secret.strip())
            lines.append([label, way, k, left, shown(values, 1), f'{said} of {len(models)}'])
    table(['corpus', 'secret', 'planted', 'left', 'exposure, bits (10 is the most)', 'said back'], lines)


def bytes_of(a, name, source):
    """A folder with the bytes of a source, as they are."""
    folder = f'{a.out}/bytes_{name}'
    corpora.prepare(f'--source={source}', f'--out_dir={folder}', '--tokenizer=byte', '--mode=raw',
                    '--val_fraction=0.3')
    return folder


def corpus(a):
    """One prompt, models of several corpora: each continues it in the manner of what it has read."""
    prompt = '\nWhen they came back'
    sources = {'stdlib': 'stdlib', 'docs': f'{corpora.ROOT}/docs', 'shakespeare': 'shakespeare'}
    lines = []
    for name, source in sources.items():
        out = train(a, a.seeds[0], data=bytes_of(a, name, source))
        model, tokenizer = load_checkpoint(out)[0].eval(), Tokenizer.load(f'{out}/tokenizer.json')
        torch.manual_seed(0)
        ids = model.generate(torch.tensor([tokenizer.encode(prompt)]), 120, 0.5)[0].tolist()
        lines.append([name, shown([measure(out, a.steps)['bits']]), repr(tokenizer.decode(ids))])
    table(['corpus', 'bits per byte of its own text', f'continues {prompt!r}'], lines)


def domain_bits(out, folder):
    """Bits per byte of a run's last weights on a folder of bytes, whole blocks of the first 40,000."""
    model, ids = load_checkpoint(f'{out}/last.pt')[0].eval(), corpora.read_ids(folder, 'val')[:40_001]
    x, y = (torch.from_numpy(ids[i:i + len(ids) // T * T - T].astype(np.int64)).view(-1, T) for i in (0, 1))
    with torch.no_grad():
        return model(x, y)[1].item() / math.log(2)


def mixture(a):
    """Two domains, mixed from the start or one after the other ("fix it later"), without and with replay."""
    sources = {'code': 'stdlib', 'prose': f'{corpora.ROOT}/docs'}
    parts = {name: bytes_of(a, name, source) for name, source in sources.items()}
    half = argparse.Namespace(**{**vars(a), 'steps': a.steps // 2})
    arms = collections.defaultdict(list)
    for seed in a.seeds:
        replay = f'--replay_dir={parts["code"]}'
        first = train(half, seed, data=parts['code'])
        later = [f'--init_from={first}/last.pt', '--learning_rate=1e-3']
        for name, run, flags in (('mixed from the start', a, [replay, '--replay=0.5']),
                                 ('code, then prose', half, later),
                                 ('code, then prose, a fifth code', half, [*later, replay, '--replay=0.2'])):
            arms[name].append(train(run, seed, flags, data=parts['prose']))
    table(['order', *(f'bits per byte, {name}' for name in parts)],
          [[name, *(shown([domain_bits(out, folder) for out in runs]) for folder in parts.values())]
           for name, runs in arms.items()])


# --- a scaling law ------------------------------------------------------------------------------------------
def fit_power(n, loss):
    """(a, b, alpha) of loss = a + b n^-alpha, a and b >= 0, by least squares: for each alpha of a grid, a and
    b are linear."""
    n, loss = np.asarray(n, float), np.asarray(loss, float)
    best = (math.inf, 0.0, 0.0, 0.0)
    for alpha in np.arange(10, 2001) / 1000:
        x = (n / n[0]) ** -alpha
        b = ((x - x.mean()) * (loss - loss.mean())).sum() / ((x - x.mean()) ** 2).sum()
        a = loss.mean() - b * x.mean()
        if a < 0:                       # the best b without a floor
            a, b = 0.0, (x @ loss) / (x @ x)
        error = ((a + b * x - loss) ** 2).sum()
        if b >= 0 and error < best[0]:
            best = (error, a, b * n[0] ** alpha, alpha)
    return best[1:]


def scaling(a):
    """Five sizes and the power law through them predict a sixth, about twice as large as the fifth."""
    widths = (32, 48, 64, 80, 112, 160)
    runs = {w: [train(a, seed, [f'--n_embd={w}', '--lr_width=64']) for seed in a.seeds] for w in widths}
    n = np.array([parameters(runs[w][0]) for w in widths])
    bits = np.array([[measure(out, a.steps)['bits'] for out in runs[w]] for w in widths])   # (6, seeds)
    low, b, alpha = fit_power(n[:-1], bits[:-1].mean(1))
    law = low + b * n ** -alpha
    table(['width', 'parameters', 'val bits per byte', 'the law', 'law - run'],
          [[w, f'{n[i]:,}', shown(bits[i]), f'{law[i]:.3f}', f'{law[i] - bits[i].mean():+.4f}']
           for i, w in enumerate(widths)])
    flat = bits[-2].mean() - bits[-1].mean()
    print(f'\nbits = {low:.3f} + {b:.3g} N^-{alpha:.3f}, from the first five. The last is predicted with an '
          f'error of {law[-1] - bits[-1].mean():+.4f}; the fifth run as a prediction errs by {flat:+.4f}.')


EXPERIMENTS = {f.__name__: f for f in (beta2, warmup, blocks, duplicates, canary, corpus, mixture, scaling)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('name', nargs='?', choices=EXPERIMENTS)
    parser.add_argument('--seeds', type=int, default=3, help='how many')
    parser.add_argument('--steps', type=int, default=400, help='of each run')
    parser.add_argument('--data', default='data/experiments', help='if missing, prepared')
    parser.add_argument('--out', default='out/experiments', help='a folder for the runs')
    a = parser.parse_args()
    if not a.name:
        print('\n'.join(f'{name:<12}{function.__doc__}' for name, function in EXPERIMENTS.items()))
        return
    if min(a.seeds, a.steps) < 1:
        parser.error(f'--seeds={a.seeds} and --steps={a.steps} must be at least 1')
    a.data, a.out = os.path.abspath(a.data), os.path.abspath(a.out)
    if not os.path.exists(f'{a.data}/meta.json'):
        corpora.prepare(f'--out_dir={a.data}', '--vocab_size=1024')
    print(f'python bench/experiments.py {a.name} --seeds={a.seeds} --steps={a.steps}')
    print(f'{platform.machine()}, one thread, torch {torch.__version__}: {a.steps * B * T:,} tokens a run\n')
    a.seeds = range(1, a.seeds + 1)
    torch.set_num_threads(1)
    EXPERIMENTS[a.name](a)


if __name__ == '__main__':
    main()
