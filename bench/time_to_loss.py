"""
Seconds of training until Tiny Shakespeare's validation loss is 1.8857, where nanoGPT's README ends on its CPU
budget (4 layers, 128 wide, context 64, 2,000 steps of 12 x 64 characters), and the loss at the end.

    pip install -r bench/requirements.txt
    python prepare.py --source=shakespeare --tokenizer=char --out_dir=data/shakespeare_char
    OMP_NUM_THREADS=1 python bench/time_to_loss.py data/shakespeare_char

Ours is train.py with config/shakespeare_cpu.py. `short` is the same model in a run made for this loss alone:
240 steps, and a higher rate, which falls linearly. The peer stands for nanoGPT: transformers' GPT-2 of that
shape without dropout, float32, with nanoGPT's AdamW (1e-3, 0.9, 0.99, decay 0.1), schedule and random blocks.
All are judged on the same 20,000 characters every 50 steps, `short` every 10; judging is not counted.
"""
import json
import math
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from peers import ROOT, median
from parts.train.token_bins import open_bins, sequences

TARGET, EVERY, STEPS, T, B = 1.8857, 50, 2000, 64, 12
SHORT = ['--max_steps=240', '--learning_rate=8e-3', '--min_lr=1e-3', '--warmup_steps=10', '--schedule=wsd',
         '--decay_steps=200']


def ours(data_dir, flags=(), every=EVERY):
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([sys.executable, f'{ROOT}/train.py', f'{ROOT}/config/shakespeare_cpu.py',
                        f'--data_dir={data_dir}', f'--out_dir={out}', f'--eval_interval={every}',
                        f'--log_interval={every}', '--num_samples=1', '--sample_tokens=1', *flags],
                       check=True, capture_output=True)
        with open(f'{out}/metrics.jsonl', encoding='utf-8') as f:
            rows = [json.loads(line) for line in f]
    dt = [m['dt'] for m in rows if 'dt' in m and m['step'] % every == 0]
    return [(every * sum(dt[:m['step'] // every]), m['val_loss']) for m in rows if 'val_loss' in m]


def peer(data_dir):
    import transformers
    torch.manual_seed(1337)
    meta, bins = open_bins(data_dir, T)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=meta['vocab_size'], n_positions=T, n_embd=128, n_layer=4, n_head=4, resid_pdrop=0,
        embd_pdrop=0, attn_pdrop=0, use_cache=False))
    decay = [p for p in model.parameters() if p.dim() >= 2]
    other = [p for p in model.parameters() if p.dim() < 2]
    groups = [{'params': decay, 'weight_decay': 0.1}, {'params': other, 'weight_decay': 0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
    blocks = np.linspace(0, (len(bins['val']) - 1) // T - 1, 20_000 // T).astype(np.int64) * T

    def loss_of(data, starts):
        x, y = (torch.from_numpy(np.ascontiguousarray(a)) for a in sequences(data, starts, T))
        return torch.nn.functional.cross_entropy(model(input_ids=x).logits.view(y.numel(), -1), y.reshape(-1))
    series, seconds = [], 0.0
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            with torch.no_grad():
                series.append((seconds, loss_of(bins['val'], blocks).item()))
        began = time.perf_counter()
        t = (step - 100) / (STEPS - 100)
        rate = 1e-3 * (step + 1) / 101 if step < 100 else 1e-4 + 0.45e-3 * (1 + math.cos(math.pi * t))
        for group in optimizer.param_groups:
            group['lr'] = rate
        loss = loss_of(bins['train'], np.random.default_rng(step).integers(0, len(bins['train']) - T - 1, B))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds += time.perf_counter() - began
    return series


if __name__ == '__main__':
    if len(sys.argv) != 2 or not os.path.exists(f'{sys.argv[1]}/meta.json'):
        sys.exit(print(__doc__) or 2)
    runs = {'ours': ours, 'short': lambda data_dir: ours(data_dir, SHORT, 10), 'peer': peer}
    results = {who: [] for who in runs}
    for _ in range(int(os.environ.get('ROUNDS', 2))):
        for who, train in runs.items():
            series = train(sys.argv[1])
            reached = next((seconds for seconds, loss in series if loss <= TARGET), math.inf)
            seconds, loss = series[-1]
            results[who].append((reached, seconds))
            print(f'{who}: {TARGET} after {reached:.1f} s; {loss:.4f} after {seconds:.1f} s', flush=True)
    theirs = results.pop('peer')
    print(f'the peer to {TARGET}: {median([row[0] for row in theirs]):.1f} s')
    for who, rows in results.items():
        seconds = median([row[0] for row in rows])
        sooner = median([q[1] / p[0] for p, q in zip(rows, theirs)])
        print(f"{who} to {TARGET}: {seconds:.1f} s; against the peer's whole run: {sooner:.1f} times sooner")
