"""
A reward model judges the answers of rl.py: this is RLHF.

    python dpo.py --loss_type=rm --out_dir=out/reward                   # learns to score
    python rl.py --reward=out/reward --kl_coef=0.05                     # learns to earn scores
    python rl.py --reward=out/reward --prompts=FILE.jsonl ...           # asks what its lines ask

A score is a linear function of the model's hidden state at the end of an answer. Higher is better;
only differences between answers to one prompt have a meaning.
"""
import json, pathlib
import torch
from torch.nn.utils.rnn import pad_sequence
from configurator import Mistake
from extras import questions
from model import GPT


def open_scores(path, prompts, tokenizer, device, autocast):
    """Return prompts, judge(prompts, texts), which returns the scores of these texts, and bytes
    that identify both. path: a folder of dpo.py --loss_type=rm. prompts: problems, or a FILE.jsonl
    with {"prompt"} lines."""
    remedy = ('train one: python dpo.py --loss_type=rm --out_dir=out/reward --data_dir=data/pairs')
    try:
        model = GPT.load(path, dropout=0.0).to(device).eval()
    except ValueError as error:
        raise Mistake(f'{error}; {remedy}') from None
    if 'reward_head' not in model.saved:
        raise Mistake(f'{path} is not a reward model, because it has no reward head; {remedy}')
    if model.saved.get('tokenizer_hash') != tokenizer.hash:
        raise Mistake(f'{path} has another tokenizer than the model that is trained; {remedy}')
    head = model.saved.pop('reward_head').to(device).float()                            # (1, C)
    end, T = tokenizer.special['<|im_end|>'], model.config.block_size

    def fit(prompt, text):
        """Return prompt and answer as at most T ids. If they are too long, the prompt loses its
        beginning, down to a quarter of the context; only then the answer loses its end."""
        ids, _ = tokenizer.render(questions.messages_of(prompt), add_generation_prompt=True)
        # The model has seen ended answers only, so one that was cut off counts as if it ended.
        answer = [*tokenizer.encode(text), end]
        ids = ids[-max(T - len(answer), T // 4, 1):]
        return torch.tensor(ids + answer[:T - len(ids)])

    @torch.no_grad()
    def judge(prompts, texts):
        rows = [fit(*case) for case in zip(prompts, texts)]
        scores = []
        for i in range(0, len(rows), 64):
            few = rows[i:i + 64]
            x = pad_sequence(few, batch_first=True).to(device)                          # (B, T)
            last = torch.tensor([len(row) - 1 for row in few], device=device)
            with autocast:
                hidden = model.backbone(x)[torch.arange(len(few), device=device), last]     # (B, C)
            scores += (hidden.float() * head).sum(1).tolist()   # in float32: autocast would round
        return scores

    bits = sum(p.detach().view(torch.int32).sum().item() for p in [*model.parameters(), head])
    return read_prompts(prompts), judge, f'{bits}'.encode()


def read_prompts(source):
    """Return what is asked: texts or messages."""
    if source == 'problems':
        return [question['messages'] for question in
                questions.from_problems(1000, 1, ['review', 'feedback'])]
    try:
        lines = pathlib.Path(source).read_bytes().splitlines()
        return [json.loads(line)['prompt'] for line in lines if line.strip()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Mistake(f'prompts={source} must be problems, or a file with a {{"prompt"}} on each '
                      f'line: {type(error).__name__}: {error}') from None
