"""
A reward model is a GPT with a head that gives an answer a score.

    python dpo.py --loss_type=rm --init_from=out/sft --data_dir=data/pairs --out_dir=out/reward

    add_head(model)             # model.reward_head, a parameter
    score(model, x, y)          # (N,) scores, from inputs and targets (N, T)

A checkpoint has the weights of the GPT under `model` and the head under `reward_head`. People
compare answers, and the loss of dpo.py makes the score of the better one larger (Bradley and Terry
1952; 2203.02155). rl.py can then train a policy to earn such scores. Only their differences have a
meaning: the loss is the same if all scores of a prompt rise by 1.
"""
import torch
import torch.nn as nn
from model import IGNORE


def add_head(model):
    """Give a GPT a head, in place: a linear function of the hidden state. It begins as 0, and so do
    all scores. So the first loss is -log sigmoid(0) = ln 2."""
    model.reward_head = nn.Parameter(model.embedding.weight.new_zeros(1, model.config.n_embd))


def score(model, x, y):
    """Return the scores of N answers, float32 (N,), read at the last token of each. In the first
    row, that is 9 at position 4; an answer ends with <|im_end|>, unless it was cut:

        x    5 6 7 8 9      y    _ 7 8 9 _          (_ is IGNORE)
             5 6 7 4 0           _ 7 4 _ _"""
    position = torch.arange(y.shape[1], device=y.device)                                # (T,)
    last = torch.where(y != IGNORE, position, 0).amax(1) + 1    # (N,): where its target is input
    rows = torch.arange(len(x), device=x.device)                                        # (N,)
    hidden = model.backbone(x)[rows, last]                                              # (N, C)
    return (hidden.float() * model.reward_head).sum(1)      # in float32: autocast would round
