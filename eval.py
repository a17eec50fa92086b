"""
Evaluation: what a checkpoint is worth, measured on all of the held-out data.

    python eval.py --ckpt=out/quickstart --data_dir=data/quickstart

    loss    of every token of val.bin, in nats per token, perplexity and bits per byte; the same for each
            source that the data were mixed from, and for an untrained model of the same shape

Perplexity is e^nats: the number of equally likely tokens that the model hesitates between. Bits per byte is
nats / ln 2, per byte of text instead of per token, and so comparable between tokenizers, which nats are not.
Special tokens count as loss but not as bytes.

Reads a checkpoint folder and a data folder. Writes eval.json into the checkpoint folder.

You should see an untrained model near ln(vocab_size) nats, and the trained one far below. The line about
contamination says which benchmarks were kept out of the training data; a score on any other may be memory.
"""
import glob, json, math, os, time
import numpy as np
import torch
from tqdm import tqdm
from configurator import configure
from data import open_bins, sequences
from model import GPT, load_checkpoint
from tokenizer import Tokenizer

# --- settings -----------------------------------------------------------------------------------------------
ckpt = 'out/quickstart'     # a folder with best.pt or last.pt, or a .pt file
data_dir = 'data/quickstart' # made by prepare.py, with the checkpoint's tokenizer
tasks = 'loss'              # comma-separated
batch_size = 16             # sequences per forward pass
random_init = True          # measure an untrained model too
device = 'auto'             # auto, cpu, cuda, mps
out: str | None = None      # where the results go; None = eval.json beside the checkpoint
seed = 1337                 # of the untrained model
config = configure(globals())

TASKS = ('loss',)
for task in tasks.split(','):
    if task not in TASKS:
        raise ValueError(f'unknown task {task!r}; there are: {", ".join(TASKS)}')
if batch_size < 1:
    raise ValueError(f'batch_size={batch_size} must be at least 1')
if device == 'auto':
    device = 'cuda' if torch.cuda.is_available() else 'mps' if torch.backends.mps.is_available() else 'cpu'
if device.split(':')[0] not in ('cpu', 'cuda', 'mps'):
    raise ValueError(f'device={device} must be auto, cpu, cuda or mps')

# --- model and data -----------------------------------------------------------------------------------------
model, checkpoint = load_checkpoint(ckpt, device)
meta, bins = open_bins(data_dir, block_size=1)
tokenizer = Tokenizer.load(os.path.join(data_dir, 'tokenizer.json'))
if checkpoint.get('tokenizer_hash', tokenizer.hash) != tokenizer.hash:
    raise ValueError(f'{ckpt} was trained with tokenizer {checkpoint["tokenizer_hash"]}, {data_dir} was made '
                     f'with {tokenizer.hash}; prepare the data with --tokenizer={ckpt}/tokenizer.json')
if meta['tokenizer_hash'] != tokenizer.hash:
    raise ValueError(f'{data_dir}: tokenizer.json has hash {tokenizer.hash}, the bins were made with '
                     f'{meta["tokenizer_hash"]}; run prepare.py again')
objective = checkpoint.get('config', {}).get('objective', 'clm')
if objective != 'clm':
    raise ValueError(f'{ckpt} was trained with objective={objective}, whose loss is of hidden tokens only: '
                     'it is the val_loss that train.py printed; see what the model does with sample.py')
domains = {'val': bins['val']}
for path in sorted(glob.glob(os.path.join(data_dir, 'val_*.bin'))):     # of data mixed from several sources
    if os.path.getsize(path):
        domains[os.path.basename(path)[4:-4]] = np.memmap(path, meta['dtype'], mode='r')
token_bytes = np.array(tokenizer.text_bytes)
folder = ckpt if os.path.isdir(ckpt) else os.path.dirname(ckpt)
stamp, trained_on = None, os.path.join(folder, 'data.json')             # what prepare.py said of the data
if os.path.exists(trained_on):
    with open(trained_on, encoding='utf-8') as f:
        stamp = json.load(f).get('decontaminated')
print('contamination: the training data ' + ('were not checked against any benchmark' if not stamp else
      f'share no {stamp["ngram"]}-gram of words with ' + ', '.join(stamp['problems'])
      + f' ({stamp["dropped"]} documents dropped)'))


@torch.no_grad()
def exact_loss(model, data, T, batch_size):
    """Summed nats of all tokens of data but the first, each predicted once, with the context that its block
    of T gives. The last block is shorter. Returns nats, tokens."""
    model.eval()
    n = len(data) - 1
    starts = range(0, n - n % T, T)
    batches = [starts[i:i + batch_size] for i in range(0, len(starts), batch_size)]
    batches += [[n - n % T]] if n % T else []
    nats = 0.0
    for batch in tqdm(batches, desc='loss', disable=None):
        x, y = (torch.from_numpy(a).to(device) for a in sequences(data, batch, min(T, n - batch[0])))
        nats += model(x, y)[1].item() * y.numel()
    return nats, n


# --- tasks --------------------------------------------------------------------------------------------------
results = {'ckpt': ckpt, 'step': checkpoint.get('step'), 'data_dir': data_dir,
           'data_sha256': meta.get('sha256', {}).get('val'), 'tokenizer_hash': tokenizer.hash,
           'decontaminated': stamp, 'tasks': {}}
models = [('trained', model)]
if random_init:
    torch.manual_seed(seed)
    models.append(('untrained', GPT(model.config).to(device)))
print(f'\n{"":<12}{"data":<12}{"nats/token":>12}{"perplexity":>14}{"bits/byte":>12}{"tokens":>12}'
      f'{"tok/s":>10}')
results['tasks']['loss'] = {}
for name, m in models:
    for domain, data in domains.items() if name == 'trained' else [('val', bins['val'])]:
        start = time.time()
        nats, n = exact_loss(m, data, model.config.block_size, batch_size)
        n_bytes = int(token_bytes[np.asarray(data[1:])].sum())
        row = {'nats': nats / n, 'perplexity': math.exp(min(nats / n, 700)),
               'bits_per_byte': nats / math.log(2) / max(1, n_bytes), 'tokens': n, 'bytes': n_bytes}
        results['tasks']['loss'][name if domain == 'val' else f'{name}_{domain}'] = row
        print(f'{name:<12}{domain[:11]:<12}{row["nats"]:>12.4f}{row["perplexity"]:>14.2f}'
              f'{row["bits_per_byte"]:>12.4f}{n:>12,}{n / (time.time() - start):>10,.0f}')
print(f'(an untrained model should be near ln V = {math.log(model.config.vocab_size):.4f} nats)')

out = out or os.path.join(folder, 'eval.json')
with open(f'{out}.tmp', 'w', encoding='utf-8', newline='\n') as f:
    json.dump(results, f, indent=1)
os.replace(f'{out}.tmp', out)
print(f'\nwritten to {out}; next: python sample.py --ckpt={ckpt}')
