"""
Gaps: models that name hidden tokens (objective mlm) or write hidden spans (objective span).

    fill(model, tokenizer, 'for i in <|mask|>(10):', 'mlm', 40)     # one token for each <|mask|>
    fill(model, tokenizer, 'def f(<|mask|>): return a', 'span', 40)     # texts of any length

model, tokenizer: as in their files. how: temperature, top_k and top_p of the spans.
"""
import re, sys
import torch
from configurator import Mistake
from model import sample


def fill(model, tokenizer, prompt, objective, max_new_tokens, **how):
    """Return the text of a prompt with its gaps filled."""
    ids, marks = with_marks(prompt, tokenizer, objective)
    longest = model.config.block_size - (objective == 'span')       # which writes the gaps after it
    if len(ids) > longest:
        raise Mistake(f'the prompt has {len(ids)} tokens, too many for the context of '
                      f'{model.config.block_size}; shorten it')
    if objective == 'span':
        return fill_spans(model, tokenizer, ids, marks, max_new_tokens, **how)
    return fill_tokens(model, tokenizer, ids, marks[0])


def with_marks(prompt, tokenizer, objective):
    """Return the ids of a prompt with <|mask|> in each gap, and the ids that mark the gaps:
    <|mask|>, or for span <|span_0|>, <|span_1|>... and one more, which ends the answer."""
    texts = prompt.split('<|mask|>')
    if len(texts) == 1:
        raise Mistake(f'a model trained with objective={objective} fills gaps; mark each in the '
                      "prompt with <|mask|>, for instance --prompt='for i in <|mask|>(10):'")
    names = [f'<|span_{i}|>' if objective == 'span' else '<|mask|>' for i in range(len(texts))]
    if names[-1] not in tokenizer.special:
        raise Mistake(f'the prompt has {len(texts) - 1} gaps, more than this tokenizer has marks '
                      'for')
    marks = [tokenizer.special[name] for name in names]
    ids = [id for text, mark in zip(texts, marks) for id in [*tokenizer.encode(text), mark]]
    return ids[:-1], marks


@torch.no_grad()
def fill_tokens(model, tokenizer, ids, mask_id):
    """Return a line of the five best tokens for each gap, then the text with the best ones."""
    device = next(model.parameters()).device
    p, best = model(torch.tensor([ids], device=device))[0][0].softmax(-1).topk(5)  # (T, 5) both
    lines, filled = [], list(ids)
    for i, id in enumerate(ids):
        if id == mask_id:
            filled[i] = best[i, 0].item()
            lines.append('   '.join(f'{tokenizer.decode([id])!r} {q:.2f}'
                                    for id, q in zip(best[i].tolist(), p[i])))
    return '\n'.join([*lines, tokenizer.decode(filled)])


@torch.no_grad()
def fill_spans(model, tokenizer, ids, marks, max_new_tokens, **how):
    """Return the text of ids with its gaps filled. The model reads the prompt in both directions,
    then writes the gaps, each behind its mark, until the last mark."""
    device = next(model.parameters()).device
    n_prompt = len(ids)
    ids = [*ids, marks[0]]
    room = min(model.config.block_size, n_prompt + 1 + max_new_tokens)
    while len(ids) < room and ids[-1] != marks[-1]:
        mask = torch.ones(len(ids), len(ids), dtype=torch.bool, device=device).tril()
        mask[:n_prompt, :n_prompt] = True  # (T, T)
        logits, _ = model(torch.tensor([ids], device=device), mask=mask[None, None])
        ids.append(sample(logits[:, -1], **how).item())
    filled, answer = tokenizer.decode(ids[:n_prompt]), tokenizer.decode(ids[n_prompt:])
    for mark, text in re.findall(r'(<\|span_\d+\|>)((?:(?!<\|span_).)*)', answer, re.DOTALL):
        filled = filled.replace(mark, text)
    if ids[-1] != marks[-1]:
        print('note: the answer is cut off; give a larger --max_new_tokens or a shorter prompt',
              file=sys.stderr)
    return filled
