"""
Copies of a model with another config.

    copy = like(model, vocab_size=53)           # the same weights; a new row is the mean row

A model has a row for each token in two matrices, the embedding and the head; if they are tied, they
are one matrix. More rows, which belong to no token, may fill it up to a multiple (vocab_multiple).
"""
import dataclasses
import torch


def like(model, **changes):
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
