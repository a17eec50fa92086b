"""
Gaps: models that name hidden tokens (objective mlm) or write hidden spans (objective span).

    fill(model, tokenizer, 'for i in <|mask|>(10):', 'mlm', 40, pick)       # one token for each <|mask|>
    fill(model, tokenizer, 'def f(<|mask|>): return a', 'span', 40, pick)   # texts of any length

model, tokenizer: as in their files. pick: logits (1, V) -> the id (1,) to write.
"""
import re
import torch


def fill(model, tokenizer, prompt, objective, max_new_tokens, pick):
    """The text of a prompt with its gaps filled."""
    ids, marks = with_marks(prompt, tokenizer, objective, model.config.block_size)
    if objective == 'span':
        return fill_spans(model, tokenizer, ids, marks, max_new_tokens, pick)
    return fill_tokens(model, tokenizer, ids, marks[0])


def with_marks(prompt, tokenizer, objective, block_size):
    """The ids of a prompt with <|mask|> in each gap, and the ids that mark the gaps: <|mask|> (mlm), or
    <|span_0|>, <|span_1|>... and one more, which ends the answer. ValueError: no gap, too many, too long."""
    texts = prompt.split('<|mask|>')
    if len(texts) == 1:
        raise ValueError(f'a model trained with objective={objective} fills gaps; mark each in the prompt '
                         "with <|mask|>, for instance --prompt='for i in <|mask|>(10):'")
    names = [f'<|span_{i}|>' if objective == 'span' else '<|mask|>' for i in range(len(texts))]
    if names[-1] not in tokenizer.special:
        raise ValueError(f'the prompt has {len(texts) - 1} gaps, more than this tokenizer has marks for')
    marks = [tokenizer.special[name] for name in names]
    ids = []
    for text, mark in zip(texts, marks):
        ids += [*tokenizer.encode(text), mark]
    if len(ids) > block_size:
        raise ValueError(f'the prompt has {len(ids) - 1} tokens, too many for the context of {block_size} '
                         'tokens; shorten it')
    return ids[:-1], marks


@torch.no_grad()
def fill_tokens(model, tokenizer, ids, mask_id):
    """A line of the five best tokens for each gap, then the text of ids with the best one in each gap."""
    device = next(model.parameters()).device
    logits = model(torch.tensor([ids], device=device))[0][0]                                # (T, V)
    lines = []
    for i in [i for i, id in enumerate(ids) if id == mask_id]:
        p, best = logits[i].softmax(-1).topk(5)
        lines.append('   '.join(f'{tokenizer.decode([id])!r} {q:.2f}' for id, q in zip(best.tolist(), p)))
        ids = [*ids[:i], best[0].item(), *ids[i + 1:]]
    return '\n'.join([*lines, tokenizer.decode(ids)])


@torch.no_grad()
def fill_spans(model, tokenizer, ids, marks, max_new_tokens, pick):
    """The text of ids with its gaps filled: the model reads the prompt in both directions, then writes the
    gaps, each behind its mark, until the last mark. pick: logits (1, V) -> id (1,)."""
    device = next(model.parameters()).device
    n_prompt = len(ids)
    ids = [*ids, marks[0]]
    room = min(model.config.block_size, n_prompt + 1 + max_new_tokens)
    while len(ids) < room and ids[-1] != marks[-1]:
        mask = torch.ones(len(ids), len(ids), dtype=torch.bool, device=device).tril()
        mask[:n_prompt, :n_prompt] = True                                                   # (T, T)
        logits = model(torch.tensor([ids], device=device), mask=mask[None, None])[0][:, -1]     # (1, V)
        ids.append(pick(logits).item())
    filled, answer = tokenizer.decode(ids[:n_prompt]), tokenizer.decode(ids[n_prompt:])
    for mark, text in re.findall(r'(<\|span_\d+\|>)((?:(?!<\|span_).)*)', answer, re.DOTALL):
        filled = filled.replace(mark, text)
    return filled
