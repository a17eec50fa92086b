"""
A model that was trained to fill gaps (train.py --objective=mlm or span) fills those of a text.

    python -m extras.models.fill --ckpt=out/mlm --prompt='for i in <|mask|>(10):'

Of mlm, a gap becomes the likeliest token. Of span, it becomes several, always the likeliest next
one. It runs on the CPU, where a single prompt takes a moment.
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
max_new_tokens = 200        # span: most tokens of all gaps


@torch.no_grad()
def fill_spans(model, tokenizer, ids, marks, max_new_tokens):
    """Return the text of ids with its gaps filled. The model reads the prompt in both directions,
    then writes the gaps, each behind its mark, until the last mark."""
    n_prompt = len(ids)
    ids = [*ids, marks[0]]
    room = min(model.config.block_size, n_prompt + 1 + max_new_tokens)
    while len(ids) < room and ids[-1] != marks[-1]:
        mask = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
        mask[:n_prompt, :n_prompt] = True  # (T, T)
        logits, _ = model(torch.tensor([ids]), mask=mask[None, None])
        ids.append(logits[0, -1].argmax().item())
    filled, answer = tokenizer.decode(ids[:n_prompt]), tokenizer.decode(ids[n_prompt:])
    for mark, text in re.findall(r'(<\|span_\d+\|>)((?:(?!<\|span_).)*)', answer, re.DOTALL):
        filled = filled.replace(mark, text)
    return filled


if __name__ == '__main__':
    configure(globals(), {'max_new_tokens': (1, 1e6)})
    require(os.path.exists(ckpt), f'{ckpt} does not exist; train.py --objective=mlm makes one')
    model = GPT.load(ckpt).eval()
    saved = model.saved
    tokenizer = Tokenizer.load(folder_of(ckpt) / 'tokenizer.json', saved.get('tokenizer_hash'))
    objective = saved.get('config', {}).get('objective', 'clm')
    require(objective != 'clm', 'this model continues texts; run: python sample.py')
    texts = prompt.split('<|mask|>')
    require(len(texts) > 1, f'a model trained with objective={objective} fills gaps; mark each in '
            "the prompt with <|mask|>, for instance --prompt='for i in <|mask|>(10):'")
    # <|mask|>, or for span <|span_0|>, <|span_1|>... and one more, which ends the answer
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
