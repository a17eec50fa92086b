"""
Records of rl.py: prompts and answers -> token ids, and what identifies a file.

    x, y = collate([fit_pair([5, 6], [7, 8, 9], T=4)])
"""
import hashlib, os, pathlib
import torch
from model import IGNORE


def digest(path):
    """Return the SHA-256 of a file, or of the weights in a folder of Hugging Face, as text."""
    files = [pathlib.Path(path)]
    if os.path.isdir(path):
        files = sorted(files[0].glob('*.safetensors'))
    return hashlib.sha256(b''.join(file.read_bytes() for file in files)).hexdigest()


def fit_pair(prompt, answer, T):
    """Return prompt and answer, ids, of at most T tokens together. If they are too long, the prompt
    loses its beginning, down to a quarter of the context; only then the answer loses its end."""
    keep = max(T - len(answer), T // 4, 1)
    prompt = prompt[-keep:]
    return prompt, answer[:T - len(prompt)]


def messages_of(prompt):
    """Return the messages of a prompt: itself, or one message of the user if it is text."""
    return prompt if isinstance(prompt, list) else [{'role': 'user', 'content': prompt}]


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
