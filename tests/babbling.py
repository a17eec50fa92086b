"""A model that does not repeat its last token, and its text written one token at a time."""
import shutil

import torch

from model import load_checkpoint, save_checkpoint
from tokenizer import Tokenizer


def make_babbler(folder, run):
    """Large random weights, in the shape and with the tokenizer of a run."""
    model, state = load_checkpoint(run)
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    save_checkpoint(folder / 'best.pt', model, tokenizer_hash=state['tokenizer_hash'], step=12)
    shutil.copy(run / 'tokenizer.json', folder)
    return folder


@torch.no_grad()
def greedy(ckpt, prompt, n):
    """A prompt and its n most probable next tokens, afresh each: one row, no cache. The last token of the
    prompt may become a longer one (healing)."""
    model, tok = load_checkpoint(ckpt)[0].eval(), Tokenizer.load(ckpt / 'tokenizer.json')
    *ids, last = tok.special['<|endoftext|>'], *tok.encode(prompt)
    allowed = [i for i, token in enumerate(tok.vocab) if token.startswith(tok.vocab[last])]
    for i in range(n + 1):
        logits = model(torch.tensor([ids[-model.config.block_size:]]))[0][0, -1, :tok.n_writable]
        ids.append(logits.argmax().item() if i else max(allowed, key=logits.tolist().__getitem__))
        if ids[-1] in (tok.special['<|endoftext|>'], tok.special['<|im_end|>']):
            return tok.decode(ids[1:-1])
    return tok.decode(ids[1:])
