"""
Answers of a model to many prompts at once, for eval.py.

    write(model, tokenizer, ['def f(x):', 'import '], n=2, max_new_tokens=9)
    # -> [['...', '...'], ['...', '...']]: two answers to each prompt

A prompt is a text, or messages [{'role', 'content'}]. All tokens come from GPT.stream. What is here
turns prompts into ids, forbids some ids, and turns ids into text. It needs model.py beside extras/.
"""
import codecs, math, random, re
import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from model import IGNORE, sample


class Answer:
    """An answer, while it is written. seed: of the random numbers that draw its ids, so that other
    answers in its batch change it by rounding only. ends: a pattern in front of which the answer to
    a text ends. Whoever answers messages knows where to stop."""

    def __init__(self, tokenizer, prompt, n, seed, ends=''):
        self.tokenizer = tokenizer
        self.ends = re.compile(ends) if ends and isinstance(prompt, str) else None
        self.ids, self.allowed, self.n_repeated, self.before = read(tokenizer, prompt)
        self.dice = random.Random(seed)
        # A healed prompt has lost its last token, so the first new one writes that again.
        self.n = n + (self.n_repeated > 0)
        self.text = ''
        self.is_done = False
        self.decode = codecs.getincrementaldecoder('utf-8')('replace').decode

    def append(self, id, t):
        """Take in token t."""
        is_stop = id in self.tokenizer.stop
        self.is_done = is_stop or t + 1 == self.n
        new = b'' if is_stop else self.tokenizer.decode_bytes([id])
        if t == 0:
            new = new[self.n_repeated:]
        self.text += self.decode(new, final=self.is_done)       # it waits for whole characters
        # The prompt's last character may be the newline that a pattern looks back for.
        found = self.ends and self.ends.search(self.before + self.text, len(self.before))
        if found:
            self.text = self.text[:found.start() - len(self.before)]
            self.is_done = True


def read(tokenizer, prompt):
    """Return the ids of a prompt; those that may come first, None = any; how many bytes of the
    prompt the first new token repeats; and the prompt's last character. The last token of a text
    may become a longer one, see Tokenizer.heal: where `):` and a newline are one token, the model
    has hardly ever read `):` alone."""
    if not isinstance(prompt, str):
        return tokenizer.render(prompt, add_generation_prompt=True)[0], None, 0, ''
    whole = tokenizer.begin + tokenizer.encode(prompt) or tokenizer.first
    ids, allowed = tokenizer.heal(whole) if len(whole) > 1 else (whole, None)
    return ids, allowed, len(tokenizer.decode_bytes(whole[len(ids):])), prompt[-1:]


def write(model, tokenizer, prompts, n, ends='', max_new_tokens=256, seed=0, batch_size=16,
          temperature=None, top_k=0, top_p=1.0):
    """Return the texts of n answers to each prompt. temperature=None is 0 for one answer, the
    likeliest, and 0.8 for several, which have to differ."""
    if temperature is None:
        temperature = 0.0 if n == 1 else 0.8
    answers = [[Answer(tokenizer, prompt, max_new_tokens, f'{seed} {i} {j}', ends)
                for j in range(n)] for i, prompt in enumerate(prompts)]
    n_cut = sum(len(few[0].ids) > model.config.block_size for few in answers)
    if n_cut:
        print(f'{n_cut} prompts are longer than the context; the model saw only their ends')
    by_length = sorted(sum(answers, []), key=lambda answer: len(answer.ids))    # less padding
    for i in tqdm(range(0, len(by_length), batch_size), 'answers', disable=None):
        write_batch(model, by_length[i:i + batch_size], temperature, top_k, top_p)
    return [[answer.text for answer in few] for few in answers]


def write_batch(model, answers, temperature, top_k, top_p):
    """Write these answers."""
    never = answers[0].tokenizer.never_in_answers(model.config.vocab_size)
    prompts = [torch.tensor(answer.ids[-model.config.block_size:]) for answer in answers]
    idx = pad_sequence(prompts, batch_first=True, padding_value=IGNORE, padding_side='left')

    def draw(logits, rows, t):
        logits[:, never] = -math.inf
        few = [answers[row] for row in rows.tolist()]
        for row, answer in zip(logits, few if t == 0 else ()):
            if answer.allowed:
                allowed = row[answer.allowed]           # a copy
                row.fill_(-math.inf)
                row[answer.allowed] = allowed
        u = logits.new_tensor([answer.dice.random() for answer in few])
        token = sample(logits, temperature, top_k, top_p, u)
        for i, (answer, id) in enumerate(zip(few, token.tolist())):
            answer.append(id, t)
            if answer.is_done:
                token[i] = IGNORE       # which is a stop here, so the row leaves
        return token

    n = max(answer.n for answer in answers)
    for _ in model.stream(idx.to(model.embedding.weight.device), n, draw, stop=[IGNORE]):
        pass
