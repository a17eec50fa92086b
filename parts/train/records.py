"""
Records: lines of JSON -> token ids, and batches of rows of about the same length.

    rows_of_step_7 = Batches(lengths=np.array([3, 9, 4, 8]), batch_size=2, seed=1).of(7)
    train, held_out, identity, summary = open_files('data/pairs', read_pairs, 256, tokenizer, 'dpo')
"""
import hashlib, os, pathlib
import numpy as np
import torch
from model import IGNORE
from parts import Mistake
from parts.prepare import reading
from parts.train import data


def digest(path):
    """Return the SHA-256 of a file, or of the weights in a folder of Hugging Face, as text."""
    files = [pathlib.Path(path)]
    if os.path.isdir(path):
        files = sorted(files[0].glob('*.safetensors'))
    return hashlib.sha256(b''.join(file.read_bytes() for file in files)).hexdigest()


def open_files(data_dir, read, *settings):
    """Return the rows of train.jsonl, the rows of val.jsonl, which are held out, what identifies
    both files, and a line about them for the log. read(path, *settings) -> rows, a line."""
    paths = {name: os.path.join(data_dir, name) for name in ('train.jsonl', 'val.jsonl')}
    (train, summary), (held_out, _) = [read(path, *settings) for path in paths.values()]
    identity = {name: digest(path) for name, path in paths.items()}
    n = f'rows: {len(train):,}, held out: {len(held_out):,}'
    return train, held_out, identity, f'{n}; {summary}'


class Batches:
    """Which of n rows make up a step, (batch_size,): batches.of(step). Each row occurs at most once
    in the `per_epoch` steps of an epoch, with others of about its length, so that little is padded.
    Rows that do not fill a batch are left out. If there are too few for one, some are repeated."""

    def __init__(self, lengths, batch_size, seed):
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.per_epoch = max(1, len(lengths) // batch_size)

    def of(self, step):
        epoch, i = divmod(step, self.per_epoch)
        rows = data.shuffled(len(self.lengths), self.seed, epoch)
        rows = np.resize(rows, (self.per_epoch, self.batch_size))                   # repeats a few
        # 32 batches at a time are sorted by length. The steps visit the batches in random order.
        batch = data.shuffled(self.per_epoch, self.seed, epoch)[i]
        group = rows[batch - batch % 32:][:32].flatten()
        order = np.argsort(self.lengths[group], kind='stable')
        return group[order].reshape(-1, self.batch_size)[batch % 32]


# --- preferences: a prompt, a better and a worse answer -------------------------------------------
def fit_pair(prompt, answer, T):
    """Return prompt and answer, ids, of at most T tokens together. If they are too long, the prompt
    loses its beginning, down to a quarter of the context; only then the answer loses its end."""
    keep = max(T - len(answer), T // 4, 1)
    prompt = prompt[-keep:]
    return prompt, answer[:T - len(prompt)]


def messages_of(prompt):
    """Return the messages of a prompt: itself, or one message of the user if it is text."""
    return prompt if isinstance(prompt, list) else [{'role': 'user', 'content': prompt}]


def to_pair(record, tokenizer):
    """Return the ids of the prompt and of both answers, each with its <|im_end|>; [] for the answer
    that a KTO record does not have."""
    messages = messages_of(record['prompt'])
    prompt = tokenizer.render(messages, add_generation_prompt=True)[0]
    n_newline = len(tokenizer.encode('\n'))      # follows <|im_end|>, and is not trained

    def answer(text):
        ids, _ = tokenizer.render([*messages, {'role': 'assistant', 'content': text}])
        return ids[len(prompt):-n_newline]

    if 'completion' not in record:
        return prompt, answer(record['chosen']), answer(record['rejected'])
    if record['label'] not in (True, False):
        raise Mistake('a label must be true or false')
    only = answer(record['completion'])
    return (prompt, only, []) if record['label'] else (prompt, [], only)


def read_pairs(path, T, tokenizer, loss_type):
    """Return [((prompt, chosen), (prompt, rejected))], all ids, and a line about them. A pair is
    left out if both answers are the same, or are the same where they are cut. data_from: a command
    that makes the file."""
    advice = ('a line needs "prompt", "chosen" and "rejected" (see the top of dpo.py); for pairs, '
              f'run: {data.command_for(os.path.dirname(path), "preference")}')
    whole = reading.read_jsonl(path, lambda record: to_pair(record, tokenizer), advice)
    if loss_type != 'kto' and any([] in answers for _, *answers in whole):
        raise Mistake(f'{path} has answers with a label instead of pairs; --loss_type={loss_type} '
                      'needs pairs, so add --loss_type=kto')
    pairs = []
    n_cut = 0
    for prompt, *answers in whole:
        same = fit_pair(prompt, max(answers, key=len), T)[0]    # one prompt for both
        pair = tuple(fit_pair(same, answer, T) for answer in answers)
        if pair[0][1] != pair[1][1]:
            pairs.append(pair)
            n_cut += len(prompt) + max(map(len, answers)) > T
    if not pairs:
        raise Mistake(f'{path} has no pair of two different answers, or none differs in {T} '
                      'tokens')
    return pairs, (f'cut to {T} tokens: {n_cut}; left out because both answers are the same: '
                   f'{len(whole) - len(pairs)}')


def collate(rows):
    """Return inputs and targets, int64 (N, T), of N prompts with their answers, ids, padded on the
    right. Targets: the answer's tokens, else IGNORE. The inputs end with the answer's last token,
    because a reward model reads its score there."""
    T = max(len(prompt) + len(answer) for prompt, answer in rows)
    x = torch.zeros((len(rows), T), dtype=torch.long)                               # (N, T)
    y = torch.full((len(rows), T), IGNORE)                                          # (N, T)
    for row, (prompt, answer) in enumerate(rows):
        n = len(prompt) + len(answer)
        x[row, :n] = torch.tensor([*prompt, *answer])
        y[row, len(prompt) - 1:n - 1] = torch.tensor(answer)
    return x, y
