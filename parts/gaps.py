"""
Filling gaps: models that were trained to name hidden tokens (mlm) or hidden spans (span).

    ids, marks = with_marks('for i in <|mask|>(10):', tokenizer, 'mlm')
    filled, candidates = fill_tokens(model, ids, marks[0])          # one token for each gap
    text = fill_spans(model, tokenizer, ids, marks, 40, pick)       # a gap of any length

model is a function of ids (B, T) -> (logits (B, T, V), ...), with config.block_size, as our model.py has it.
Copy this file alone: it needs torch.
"""
import re
import torch


def with_marks(prompt, tokenizer, objective):
    """The ids of a prompt with <|mask|> in each gap, and the ids that mark the gaps: <|mask|> again (mlm), or
    <|span_0|>, <|span_1|>... and one more, which ends the answer (span). ValueError if there are too many."""
    texts = prompt.split('<|mask|>')
    n_gaps = len(texts) - 1
    names = ['<|mask|>'] * len(texts)
    if objective == 'span':
        names = [f'<|span_{i}|>' for i in range(len(texts))]
    if names[-1] not in tokenizer.special:
        raise ValueError(f'the prompt has {n_gaps} gaps, more than this tokenizer has marks for')
    marks = [tokenizer.special[name] for name in names]
    ids = []
    for text, mark in zip(texts, marks):
        ids += [*tokenizer.encode(text), mark]
    return ids[:-1], marks


@torch.no_grad()
def fill_tokens(model, ids, mask_id):
    """Each gap is one token, named by what stands on both its sides. Returns the ids with the most probable
    tokens in the gaps, and for each gap its five best as pairs (id, probability)."""
    device = next(model.parameters()).device
    logits = model(torch.tensor([ids], device=device))[0][0]                                # (T, V)
    filled, candidates = list(ids), []
    for i, id in enumerate(ids):
        if id == mask_id:
            p, best = logits[i].softmax(-1).topk(5)
            candidates.append(list(zip(best.tolist(), p.tolist())))
            filled[i] = best[0].item()
    return filled, candidates


@torch.no_grad()
def fill_spans(model, tokenizer, ids, marks, max_new_tokens, pick):
    """The text of ids with its gaps filled. The model sees the whole prompt in both directions, then writes
    the gaps, each behind its mark, until the last mark. pick: logits (1, V) -> id (1,)."""
    device = next(model.parameters()).device
    n_prompt = len(ids)
    ids = [*ids, marks[0]]
    room = min(model.config.block_size, n_prompt + max_new_tokens)
    while len(ids) < room and ids[-1] != marks[-1]:
        mask = torch.ones(len(ids), len(ids), dtype=torch.bool, device=device).tril()
        mask[:n_prompt, :n_prompt] = True                                                   # (T, T)
        logits = model(torch.tensor([ids], device=device), mask=mask[None, None])[0][:, -1]     # (1, V)
        ids.append(pick(logits).item())
    filled, answer = tokenizer.decode(ids[:n_prompt]), tokenizer.decode(ids[n_prompt:])
    for mark, text in re.findall(r'(<\|span_\d+\|>)((?:(?!<\|span_).)*)', answer, re.DOTALL):
        filled = filled.replace(mark, text)
    return filled
