"""
Copies of a model: with another config, with more tokens, for another tokenizer.

    copy = like(model, {'vocab_size': 53})      # the same weights; a new row is the mean row
    rows = carry_over(weight, old, new)         # (V_old, C) -> (V_new, C): by their tokens

A model has a row for each token in two matrices, the embedding and the head; if they are tied, they
are one matrix. More rows, which belong to no token, may fill it up to a multiple (vocab_multiple).
"""
import dataclasses
import torch


def like(model, changes):
    """Return a copy of a model whose config has these changes. New rows, and rows that belong to no
    token, begin as the mean of the other rows."""
    config = dataclasses.replace(model.config, **changes)
    assert model.config.tie_embeddings or not config.tie_embeddings, 'this would lose the head'
    copy = type(model)(config).to(model.embedding.weight)
    weights = model.state_dict()
    n_rows = len(copy.embedding.weight)
    for name in 'embedding.weight', 'head.weight':
        rows = weights[name][:min(model.config.vocab_size, n_rows)]
        weights[name] = torch.cat([rows, rows.mean(0).expand(n_rows - len(rows), -1)])
    copy.load_state_dict(weights)
    return copy


def carry_over(weight, old, new):
    """Return the embedding (V_new, C) for another tokenizer's vocabulary. A token of both keeps its
    row. A new token starts as the mean of the old tokens that spell it. A special token, or an id
    of Hugging Face that no token has, starts as the mean of all rows."""
    ids = {token: i for i, token in enumerate(old.all_bytes)}
    rows = []
    for token in new.all_bytes:
        text = token.decode('utf-8', 'replace')
        if token in ids:
            spelled = [ids[token]]
        elif not token or text in new.special:
            spelled = slice(None)
        elif '\ufffd' in text:              # a part of a character: its bytes
            spelled = [ids[bytes([b])] for b in token]
        else:
            spelled = old.encode(text)
        rows.append(weight[spelled].mean(0))
    return torch.stack(rows)


def carried_over(model, old, new):
    """Return a copy of a model for another tokenizer's vocabulary. See carry_over()."""
    copy = like(model, {'vocab_size': new.vocab_size})
    before, weights = model.state_dict(), copy.state_dict()
    for name in 'embedding.weight', 'head.weight':      # the same rows, if they are tied
        rows = carry_over(before[name][:model.config.vocab_size], old, new)
        weights[name][:len(rows)] = rows
    return copy
