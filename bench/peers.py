"""
Our speed compared with the usual libraries: training and encoding with a byte-level BPE against
Hugging Face's tokenizers; training steps and greedy generation against transformers' Llama of the
same shape, dtype and threads. Each measurement is a process, and they run one after the other.
Nothing else should run on the machine.

    pip install transformers tokenizers
    python bench/peers.py                       # everything
    python bench/peers.py bpe encode            # some of it: bpe, encode, train, generate
    ROUNDS=1 python bench/peers.py train

For the tokenizers, the text is the standard library with its tests, and the vocabulary 32,768. CPU
seconds count all processes and threads, so they can be compared on a machine with other work, too.
bfloat16 is measured where the processor has it.
"""
import json, math, os, pathlib, resource, subprocess, sys, sysconfig, time
from statistics import median_high as median
import numpy as np
import torch

ROOT = str(pathlib.Path(__file__).resolve().parent.parent)
sys.path.insert(0, ROOT)
from extras.models import hf_tokenizer          # noqa: E402
from extras.tasks import chain_report           # noqa: E402
from extras.training.muon import is_native      # noqa: E402
from model import GPT, GPTConfig                # noqa: E402
from tokenizer import PATTERN, Tokenizer        # noqa: E402

VOCAB = 32_768          # bytes and merges; no special tokens, so that both do the same work
ROUNDS = int(os.environ.get('ROUNDS', 3))
HALF = 'bfloat16'       # also where dtype=auto is float32: a comparison needs the same for both
SHAPES = {'shakespeare_cpu': GPTConfig(65, 64, 4, 4, 0, 128, tie_embeddings=False),
          'quickstart': GPTConfig(4096, 256, 4, 4, 0, 256, tie_embeddings=False),
          'nano': GPTConfig(256, 512, 6, 8, 0, 256, 768),
          'small': GPTConfig(32768, 1024, 12, 12, 0, 768)}
BATCHES = {'train': {'shakespeare_cpu': [12], 'quickstart': [8], 'nano': [2]},
           'generate': {name: [1, 16] for name in ('quickstart', 'nano', 'small')}}


# --- what is timed: a call, and how many bytes or tokens it works on ------------------------------
def python_texts():
    """The .py files of the standard library, with its tests, without those that are not UTF-8."""
    texts = []
    for path in sorted(pathlib.Path(sysconfig.get_paths()['stdlib']).rglob('*.py')):
        if 'site-packages' not in path.parts:
            text = path.read_text(encoding='utf-8', errors='replace')
            texts += [text] if '\ufffd' not in text else []
    return texts


def tokenizing(what, who):
    texts = python_texts()
    size = sum(len(text.encode()) for text in texts)
    train = lambda: Tokenizer.train(iter(texts), VOCAB, special_tokens=(), pattern=PATTERN)
    if who == 'theirs':
        import tokenizers
    if what == 'encode':
        ours = train()
        encode = ours.encode_batch
        if who == 'theirs':
            theirs = tokenizers.Tokenizer.from_str(json.dumps(hf_tokenizer.to_hf_json(ours)))
            encode = lambda batch: [e.ids for e in theirs.encode_batch(
                batch, add_special_tokens=False)]
        encode(['warm up'])                     # builds tables
        return lambda: [encode(texts[i:i + 200]) for i in range(0, len(texts), 200)], size
    if who == 'ours':
        return lambda: train().vocab, size
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    parts = tokenizers.pre_tokenizers
    theirs.pre_tokenizer = parts.Sequence([
        parts.Split(tokenizers.Regex(PATTERN), behavior='isolated'),
        parts.ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCAB, initial_alphabet=parts.ByteLevel.alphabet(), show_progress=False)
    return lambda: theirs.train_from_iterator(texts, trainer), size


def work_of(what, who, c, device, batch, dtype=HALF, compiled=False, prompt=32, new=128):
    """A call, and how many tokens it reads or writes: a training step, or greedy answers of `new`
    tokens to prompts of random ids. c: a GPTConfig. who: ours, or theirs of the same size. batch:
    sequences."""
    torch.manual_seed(0)
    is_ours = who != 'theirs'
    torch.backends.cuda.enable_cudnn_sdp(what == 'train')     # as train.py does
    model = GPT(c).to(device) if is_ours else llama_of(c, device)
    if what == 'train':
        net = torch.compile(model) if compiled else model
        loss = lambda x, y: net(x, y, with_logits=False)[1]         # without logits, as in train.py
        if not is_ours:
            # it shifts the labels
            loss = lambda x, y: net(input_ids=x, labels=x, use_cache=False).loss
        return step_of(model, loss, c, batch, dtype), batch * c.block_size
    model = model.to(getattr(torch, dtype)).eval()
    idx = torch.randint(c.vocab_size, (batch, prompt), device=device)
    write = lambda: model.generate(idx, new, temperature=0)
    if not is_ours:
        write = lambda: model.generate(idx, attention_mask=torch.ones_like(idx), do_sample=False,
                                       pad_token_id=0, max_new_tokens=new, min_new_tokens=new)
    return write, batch * new


def step_of(model, loss_of, c, batch, dtype):
    """A call: a step of train.py with sequences of random ids. loss_of(x, y): a batch's loss."""
    vectors = [p for p in model.parameters() if p.dim() == 1]
    matrices = [p for p in model.parameters() if p.dim() != 1]
    optimizer = torch.optim.AdamW([{'params': matrices}, {'params': vectors, 'weight_decay': 0.0}],
                                  lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    device = next(model.parameters()).device
    text = np.random.default_rng(0).integers(c.vocab_size, size=(batch, c.block_size + 1))

    def step():
        with torch.autocast(device.type, getattr(torch, dtype), enabled=dtype != 'float32'):
            loss = loss_of(*(torch.from_numpy(ids).to(device)
                             for ids in (text[:, :-1], text[:, 1:])))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
        if math.isfinite(norm + loss.item()):
            optimizer.step()
        optimizer.zero_grad()
    return step


def llama_of(c, device):
    """transformers' model of the same size."""
    import transformers
    with torch.device(device):
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(
            vocab_size=c.vocab_size, hidden_size=c.n_embd, intermediate_size=c.n_ffn,
            rms_norm_eps=c.norm_eps, num_hidden_layers=c.n_layer, num_attention_heads=c.n_head,
            max_position_embeddings=c.block_size, tie_word_embeddings=c.tie_embeddings))


# --- who is faster --------------------------------------------------------------------------------
def measured(what, who, shape='', dtype='', batch=0):
    """Return the seconds of one contestant, its CPU seconds, and how much it does in a second."""
    n_calls = 1
    if what in BATCHES:
        work, n = work_of(what, who, SHAPES[shape], 'cpu', int(batch), dtype)
        work()                                  # warm up
        n_calls = 10 if what == 'train' else 1
    else:
        work, n = tokenizing(what, who)
    seconds, before = [], cpu_seconds()
    for _ in range(n_calls):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return {'seconds': median(seconds), 'cpu': (cpu_seconds() - before) / n_calls,
            'rate': n / median(seconds)}


def cpu_seconds():
    """Of this process with its threads, and of those that it started and that have ended."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def compare(job):
    """Run this script for us and for them, round after round (A B A B ...), because machines drift
    while the ratios within a round do not. Print a row for each; theirs has the medians of our rate
    over theirs, and of their CPU seconds over ours."""
    what, *more = job.split()
    rounds = {'ours': [], 'theirs': []}
    for _ in range(ROUNDS):
        for who in rounds:
            run = subprocess.run([sys.executable, __file__, ':'.join([what, who, *more])],
                                 capture_output=True, text=True)
            if run.returncode:                  # it may be not installed
                print(f'{job} {who} failed: {run.stderr.strip().splitlines()[-1]}', flush=True)
            else:
                rounds[who].append(json.loads(run.stdout.splitlines()[-1]))
    for who, rows in rounds.items():
        if rows and rounds['ours']:
            rate, cpu = (median([row[key] for row in rows]) for key in ('rate', 'cpu'))
            ratios = [median([b[key] / a[key] for a, b in zip(rounds['ours'], rows)])
                      for key in ('seconds', 'cpu')]
            print(f'{job:>30}{who:>12}{rate:>14,.0f}{cpu:>10.2f}'
                  + ''.join(f'{ratio:>8.2f}' for ratio in ratios), flush=True)


def main(asked):
    print(chain_report.machine(), 'commit', chain_report.commit())
    print(f'{"tokens/s, or bytes/s of text":>30}{"":>12}{"rate":>14}{"CPU s":>10}{"faster":>8}'
          f'{"of CPU":>8}')
    dtypes = ['float32'] + ['bfloat16'] * is_native(torch.device('cpu'))
    for name in asked or ['bpe', 'encode', *BATCHES]:
        if name not in BATCHES:
            compare(name)
        for shape, batches in BATCHES.get(name, {}).items():
            for batch in batches:
                for dtype in dtypes:
                    compare(f'{name} {shape} {dtype} {batch}')


if __name__ == '__main__':
    if ':' in ''.join(sys.argv[1:2]):
        print(json.dumps(measured(*sys.argv[1].split(':'))))
    elif set(sys.argv[1:]) - {'bpe', 'encode', *BATCHES}:
        print(__doc__)
        sys.exit(0 if '--help' in sys.argv else 2)
    else:
        main(sys.argv[1:])
