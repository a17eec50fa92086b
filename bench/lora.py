"""
LoRA beside full fine-tuning: the memory of a step, and the loss after equal steps.

    python bench/lora.py memory             # SmolLM2-135M's shape, random weights, 2 x 64 tokens
    python bench/lora.py loss --base=out/quickstart --data=data/problems --steps=40 --out=out/lora

memory: each arm is a process of its own; bytes of weights, gradients and moments are counted, the peak is
the process's (getrusage). loss: sft.py with the same steps and conversations, held-out loss after them, and
the mean difference to full fine-tuning over conversations, with a 95 % interval (paired bootstrap).
"""
import argparse, json, os, pathlib, resource, subprocess, sys

import numpy as np
import torch
from rl_controls import difference

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from model import GPT, GPTConfig, IGNORE, load_checkpoint        # noqa: E402
from parts.train import adapters, optim    # noqa: E402
from tokenizer import Tokenizer                                  # noqa: E402

SMOLLM2 = GPTConfig(49152, 2048, 30, 9, 3, 576, 1536, rope_theta=1e5)
ARMS = {'full': ['--lora=0'], 'lora=8': ['--lora=8'],
        'lora=8, rate x 3': ['--lora=8', '--learning_rate=9e-3'],
        'lora=8, AdamW': ['--lora=8', '--optimizer=adamw']}


def step(rank):
    """One step of AdamW; prints one line of JSON."""
    model = GPT(SMOLLM2)
    adapters.adapt(model, rank)
    optimizers = optim.build(model, 'adamw', 1e-4, (0.9, 0.95), 0.0)
    idx = torch.randint(49152, (2, 65))
    model(idx[:, :-1], idx[:, 1:])[1].backward()
    for o in optimizers:
        o.step()
    nbytes = lambda tensors: sum(t.nbytes for t in tensors)
    print(json.dumps({
        'rank': rank, 'weights': nbytes(model.parameters()),
        'trained': sum(p.numel() for p in model.parameters() if p.requires_grad),
        'gradients': nbytes(p.grad for p in model.parameters() if p.grad is not None),
        'moments': nbytes(v for o in optimizers for s in o.state.values() for v in s.values()),
        'peak_mb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def memory():
    for rank in (0, 8, 64):
        said = subprocess.run([sys.executable, __file__, 'step', f'--rank={rank}'], text=True, check=True,
                              stdout=subprocess.PIPE).stdout
        row = json.loads(said)
        mb = {name: row[name] / 1e6 for name in ('weights', 'gradients', 'moments')}
        print(f'rank {rank:2}: trains {row["trained"]:11,}; MB of weights {mb["weights"]:5.0f}, gradients '
              f'{mb["gradients"]:5.1f}, moments {mb["moments"]:6.1f}; peak {row["peak_mb"]:,.0f} MB')


@torch.no_grad()
def losses_of(folder, data, n):
    """Nats per trained token of each of the first n held-out conversations."""
    model, tokenizer = load_checkpoint(folder)[0].eval(), Tokenizer.load(f'{folder}/tokenizer.json')
    found = []
    with open(f'{data}/val.jsonl', encoding='utf-8') as f:
        for line in [*f][:n]:
            ids, mask = tokenizer.render(json.loads(line)['messages'])
            idx = torch.tensor([ids[:model.config.block_size + 1]])
            targets = torch.where(torch.tensor([mask[1:idx.shape[1]]]).bool(), idx[:, 1:], IGNORE)
            found.append(model(idx[:, :-1], targets)[1].item())
    return found


def loss(base, data, steps, out):
    found = {}
    for name, flags in ARMS.items():
        folder = f'{out}/{name.replace("=", "").replace(", rate x ", "_")}'
        command = [sys.executable, str(ROOT / 'sft.py'), f'--init_from={base}', f'--data_dir={data}',
                   f'--out_dir={folder}', '--overwrite=True', f'--max_steps={steps}', '--batch_size=8',
                   '--optimizer=muon', '--learning_rate=3e-3', f'--eval_interval={steps}',
                   '--eval_conversations=16']
        subprocess.run([*command, *flags], check=True, stdout=subprocess.DEVNULL)
        found[name] = losses_of(folder, data, 128)
        mean = sum(found[name]) / len(found[name])
        apart = [b - a for a, b in zip(found['full'], found[name])]
        mean_apart, low, high = difference(np.array(apart))
        sizes = [os.path.getsize(f'{folder}/{file}') / 1e6 for file in ('best.pt', 'last.pt')]
        print(f'{name:25} {mean:.3f} nats per conversation; beside full {mean_apart:+.3f} '
              f'[{low:+.3f}, {high:+.3f}]; best.pt {sizes[0]:.1f} MB, last.pt {sizes[1]:.1f} MB',
              flush=True)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=['memory', 'loss', 'step'])
    parser.add_argument('--rank', type=int, default=0)
    parser.add_argument('--base', default='out/quickstart')
    parser.add_argument('--data', default='data/problems')
    parser.add_argument('--steps', type=int, default=40)
    parser.add_argument('--out', default='out/lora')
    args = parser.parse_args()
    if args.what == 'memory':
        memory()
    elif args.what == 'step':
        step(args.rank)
    else:
        loss(args.base, args.data, args.steps, args.out)
