"""
Another tokenizer for a trained model: the tokens that both tokenizers know keep their embeddings.

    python -m extras.new_vocabulary --init_from=out/base --data_dir=data/mine --out_dir=out/carried
    python train.py --init_from=out/carried --data_dir=data/mine --out_dir=out/mine

    rows = carry_over(weight, old, new)         # (V_old, C) -> (V_new, C): by their tokens

Reads:  the model and the tokenizer in init_from, the tokenizer in data_dir
Writes: out_dir/best.pt and tokenizer.json. The new model knows less than the old one, until it is
        trained: a new token begins as the mean of the tokens that spelled it.
"""
import dataclasses
import torch
from configurator import Mistake, configure
from extras.longer_context import next_command, open_model, write_folder
from model import GPT
from tokenizer import Tokenizer

init_from = 'out/base'          # folder of a model
data_dir = 'data/quickstart'    # folder of data, whose tokenizer the model gets
out_dir = 'out/carried'         # folder to write, which must not exist


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
        elif old.kind == 'char':            # which lacks some characters, and has no bytes
            spelled = [ids[c.encode()] for c in text if c.encode() in ids] or slice(None)
        elif '\ufffd' in text:              # a part of a character: its bytes
            spelled = [ids[bytes([b])] for b in token]
        else:
            spelled = old.encode(text)
        rows.append(weight[spelled].mean(0))
    return torch.stack(rows)


def carried_over(model, old, new):
    """Return a model with the same blocks for another tokenizer's vocabulary."""
    config = dataclasses.replace(model.config, vocab_size=new.vocab_size)
    copy = GPT(config)
    weights = model.state_dict()
    for name in 'embedding.weight', 'head.weight':      # the same rows, if they are tied
        rows = carry_over(weights[name][:model.config.vocab_size], old, new)
        # Rows that only fill the matrix up to a multiple belong to no token.
        n_empty = len(copy.embedding.weight) - len(rows)
        weights[name] = torch.cat((rows, rows.mean(0).expand(n_empty, -1)))
    copy.load_state_dict(weights)
    return copy


if __name__ == '__main__':
    configure(globals())
    model, old = open_model(init_from)
    try:
        new = Tokenizer.load(f'{data_dir}/tokenizer.json')
    except ValueError as error:
        raise Mistake(error) from None
    write_folder(out_dir, carried_over(model, old, new), new, model.saved.get('config', {}))
    n_kept = len({*old.all_bytes} & {*new.all_bytes})
    print(f'{n_kept:,} of {new.vocab_size:,} tokens keep their embedding; next:\n'
          + next_command('train.py', out_dir, data_dir=data_dir,
                         block_size=min(256, model.config.block_size)))
