"""
Fill the gaps of a text with a model that was trained by train.py --objective=mlm or span.

    python -m extras.models.fill --ckpt=out/mlm --prompt='for i in <|mask|>(10):'

An mlm model fills each gap with one token, the most probable one. A span model fills each gap with
several tokens, generated greedily. Both run on the CPU, which is fast enough for one prompt.
"""
import os, re
import torch
from common import folder_of
from configurator import configure, require
from model import GPT
from tokenizer import Tokenizer

# --- settings -------------------------------------------------------------------------------------
ckpt = 'out/base'           # a run's folder or a .pt file in it
prompt = ''                 # text with gaps, <|mask|>
max_new_tokens = 200        # span: maximum number of tokens in all gaps


@torch.no_grad()
def fill_spans(model, tokenizer, ids, sentinels, max_new_tokens):
    """Return the text of ids with its gaps filled. The prompt has bidirectional attention. The
    model generates the text of each gap after its sentinel, until the last sentinel."""
    n_prompt = len(ids)
    ids = [*ids, sentinels[0]]
    max_length = min(model.config.block_size, n_prompt + 1 + max_new_tokens)
    while len(ids) < max_length and ids[-1] != sentinels[-1]:
        mask = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
        mask[:n_prompt, :n_prompt] = True  # (T, T)
        logits, _ = model(torch.tensor([ids]), mask=mask[None, None])
        ids.append(logits[0, -1].argmax().item())
    filled, answer = tokenizer.decode(ids[:n_prompt]), tokenizer.decode(ids[n_prompt:])
    for sentinel, text in re.findall(r'(<\|span_\d+\|>)((?:(?!<\|span_).)*)', answer, re.DOTALL):
        filled = filled.replace(sentinel, text)
    return filled


if __name__ == '__main__':
    configure(globals(), {'max_new_tokens': (1, 1e6)})
    require(os.path.exists(ckpt), f'{ckpt} does not exist; train.py --objective=mlm makes one')
    model = GPT.load(ckpt).eval()
    saved = model.saved
    tokenizer = Tokenizer.load(folder_of(ckpt) / 'tokenizer.json', saved.get('tokenizer_hash'))
    objective = saved.get('config', {}).get('objective', 'clm')
    require(objective != 'clm', f'{ckpt} is a model that continues text; run: python sample.py')
    texts = prompt.split('<|mask|>')
    require(len(texts) > 1, f'a model trained with objective={objective} fills gaps; mark each in '
            "the prompt with <|mask|>, for instance --prompt='for i in <|mask|>(10):'")
    # <|mask|>, or for span <|span_0|>, <|span_1|>, ... and one more, which ends generation
    names = [f'<|span_{i}|>' if objective == 'span' else '<|mask|>' for i in range(len(texts))]
    marks = [tokenizer.special[name] for name in names]
    *ids, _ = [id for text, mark in zip(texts, marks) for id in [*tokenizer.encode(text), mark]]
    require(len(ids) < model.config.block_size, f'the prompt has {len(ids)} tokens, too many for '
            f'the context of {model.config.block_size}; shorten it')
    if objective == 'span':
        print(fill_spans(model, tokenizer, ids, marks, max_new_tokens))
    else:
        best = model(torch.tensor([ids]))[0][0].argmax(-1).tolist()         # (T,)
        print(tokenizer.decode([new if id == marks[0] else id for id, new in zip(ids, best)]))
