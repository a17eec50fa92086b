"""
Asking a model: answers to many prompts at a time, gaps filled.

    generate(model, tokenizer, ['def f(x):', 'import '], 1, 9)      # [[(text, ended)], [(text, ended)]], 0
    ids, marks = with_marks('for i in <|mask|>(10):', tokenizer, 'mlm', 256)
    fill_tokens(model, ids, marks[0])           # one token for each gap; fill_spans: of any length

A prompt is a text, messages [{'role', 'content'}], or a Prompt. model, tokenizer: as in their files.
Copy this file alone: it needs torch and tqdm.
"""
import codecs, collections, re
import torch
from tqdm import tqdm

# ids: the prompt without its healed end. allowed: the ids that may come first, None = any. repeated: how many
# bytes of the prompt the first new token writes again. last: the prompt's last character.
Prompt = collections.namedtuple('Prompt', 'ids allowed repeated last')


def encode(tokenizer, prompt):
    """A prompt as the model reads it. The last token of a text may become a longer one: Tokenizer.heal."""
    if isinstance(prompt, Prompt):
        return prompt
    if not isinstance(prompt, str):
        return Prompt(tokenizer.render(prompt, True)[0], None, 0, '')
    whole = tokenizer.begin + tokenizer.encode(prompt)
    ids, allowed = tokenizer.heal(whole) if len(whole) > 1 else (whole, None)
    repeated = len(tokenizer.decode_bytes(whole[len(ids):]))
    return Prompt(ids, allowed, repeated, prompt[-1:])


def between(tokenizer, prefix, suffix, block_size, max_new_tokens):
    """The Prompt whose answer stands between two texts, for a model that was trained with fim (parts/prepare/fim.py),
    and how many tokens that answer may have: at most a quarter of the context. If the texts do not fit into
    the rest, the prefix loses its beginning and the suffix its end; each may keep half of the rest."""
    begin, suffix_follows, middle_follows = [tokenizer.special[f'<|fim_{name}|>']
                                             for name in ('prefix', 'suffix', 'middle')]
    max_new_tokens = min(max_new_tokens, block_size // 4)
    room = block_size - max_new_tokens - 3                              # tokens
    before, after = tokenizer.encode_inside(prefix), tokenizer.encode_inside(suffix)
    after = after[:max(room // 2, room - len(before))]
    before = before[max(0, len(before) + len(after) - room):]
    ids = [begin, *before, suffix_follows, *after, middle_follows]
    return Prompt(ids, None, 0, prefix[-1:]), max_new_tokens


def end_pattern(stop_at):
    """A pattern whose match ends where a text ends, or None. stop_at='function': before a line that begins in
    column 0, but not with a closing bracket or a comment; other text: before it first occurs."""
    if stop_at == 'function':
        return r'\n(?=[^\s#)\]}])'
    return f'(?={re.escape(stop_at)})' if stop_at else None


class Answer:
    """An answer that is being written: its text so far, and whether it is done and ended by itself."""

    def __init__(self, prompt, block_size, max_new_tokens):
        self.prompt = prompt
        self.ids = list(prompt.ids[-block_size:])       # the model sees only the end of a longer prompt
        self.limit = len(self.ids) + max_new_tokens + (1 if prompt.repeated else 0)
        self.decoder = codecs.getincrementaldecoder('utf-8')('replace')     # waits for whole characters
        self.to_drop = prompt.repeated                  # bytes that the first token writes again
        self.text = ''
        self.done = self.ended = False                  # ended: by itself, not at the limit

    def add(self, token, tokenizer, ends):
        """Take the next token. ends: the pattern at which a text ends, or None."""
        self.ids.append(token)
        self.ended = token in tokenizer.stop
        self.done = self.ended or len(self.ids) == self.limit
        new = b'' if self.ended else tokenizer.decode_bytes([token])[self.to_drop:]
        self.text += self.decoder.decode(new, final=self.done)
        self.to_drop = 0
        before = self.prompt.last                       # may be the newline that 'function' looks for
        for end in re.finditer(ends or '(?!)', before + self.text):
            if end.end() >= len(before):
                self.text = self.text[:end.end() - len(before)]
                self.done = self.ended = True
                break


def generate(model, tokenizer, prompts, num_samples, max_new_tokens, batch_size=16, ends=None, **draw):
    """num_samples pairs (text, whether it ended by itself) for each prompt, and how many prompts were longer
    than the context. ends: the pattern at which a text ends. draw: temperature, top_k, top_p."""
    T = model.config.block_size
    answers = []                            # num_samples for each prompt, one prompt after the other
    n_cut = 0
    for prompt in prompts:
        prompt = encode(tokenizer, prompt)
        answers += [Answer(prompt, T, max_new_tokens) for _ in range(num_samples)]
        if len(prompt.ids) > T:
            n_cut += 1

    ordered = sorted(answers, key=lambda answer: len(answer.ids))
    for start in tqdm(range(0, len(ordered), batch_size), desc='samples', disable=None):
        batch = ordered[start:start + batch_size]
        while batch:        # when half of a large batch is done, the rest is cheaper as a smaller one
            enough = len(batch) // 2 if len(batch) >= 8 else 0
            for unfinished in write(model, tokenizer, batch, ends, **draw):
                if unfinished <= enough:
                    break
            batch = [answer for answer in batch if not answer.done]

    pairs = [(answer.text, answer.ended) for answer in answers]
    return [pairs[i:i + num_samples] for i in range(0, len(pairs), num_samples)], n_cut


def write(model, tokenizer, batch, ends=None, **draw):
    """Write the answers of a batch, from where they are. After each token, yield how many are not done."""
    device = next(model.parameters()).device
    T = min(len(answer.ids) for answer in batch)        # no padding: the other ids of longer ones are forced
    x = torch.tensor([answer.ids[:T] for answer in batch], device=device)                   # (B, T)
    forced = [answer.ids[T:] for answer in batch]
    first = torch.ones(len(batch), model.config.vocab_size, dtype=torch.bool)               # (B, V)
    for row, answer in enumerate(batch):
        if answer.to_drop:
            first[row] = False
            first[row, answer.prompt.allowed] = True

    most = max(answer.limit for answer in batch) - T
    stream = model.stream(x, most, stop=tokenizer.stop, first=first.to(device), given=forced, **draw)
    for i, tokens in enumerate(stream):                                                     # (B,)
        for answer, token, known in zip(batch, tokens.tolist(), forced):
            if not answer.done and i >= len(known):
                answer.add(token, tokenizer, ends)
        unfinished = sum(not answer.done for answer in batch)
        yield unfinished
        if not unfinished:
            return


# --- filling gaps: models that name hidden tokens (mlm) or hidden spans (span) ------------------------------
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
def fill_tokens(model, ids, mask_id):
    """The ids with the most probable token in each gap, and for each gap its five best pairs (id, p)."""
    device = next(model.parameters()).device
    logits = model(torch.tensor([ids], device=device))[0][0]                                # (T, V)
    filled = list(ids)
    candidates = []
    for i in [i for i, id in enumerate(ids) if id == mask_id]:
        p, best = logits[i].softmax(-1).topk(5)
        candidates.append(list(zip(best.tolist(), p.tolist())))
        filled[i] = candidates[-1][0][0]
    return filled, candidates


@torch.no_grad()
def fill_spans(model, tokenizer, ids, marks, max_new_tokens, pick):
    """The text of ids with its gaps filled: the model reads the prompt in both directions, then writes the
    gaps, each behind its mark, until the last mark. pick: logits (1, V) -> id (1,)."""
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
