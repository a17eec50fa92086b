"""
Answers of a model: to many prompts at once, or to one, piece by piece. eval.py and the commands
export and judge take them from here.

    models = open_models('out/base,out/sft')    # {path: (model, tokenizer, its run's settings)}
    write(model, tokenizer, ['def f(x):', 'import '], n=2, max_new_tokens=9)
    # -> [['...', '...'], ['...', '...']]: two answers to each prompt

A prompt is a text, or messages [{'role', 'content'}]. All tokens come from GPT.stream. What is here
turns prompts into ids, forbids some ids, and turns ids into text.
"""
import codecs, math, os, random
import regex
import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from configurator import require
from model import GPT, IGNORE, sample
from tokenizer import Tokenizer


def open_model(path, device='cpu'):
    """Return the model of a folder or a .pt file, the tokenizer next to it, and the settings of the
    run that trained it; for a folder of Hugging Face {'stage': 'chat'}, or {} without a template.
    device=auto: the fastest one here."""
    here = ['cpu'] + ['mps'] * torch.backends.mps.is_available()
    here += ['cuda'] * torch.cuda.is_available()
    require(device in ('auto', *here), f'{device=} is not here; try --device=auto')
    require(os.path.exists(path), f'{path} does not exist; --ckpt must name the folder of a run')
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    model, tokenizer = GPT.load(path), Tokenizer.load(os.path.join(folder, 'tokenizer.json'))
    require(model.saved.get('tokenizer_hash', tokenizer.hash) == tokenizer.hash,
            f"{folder}/tokenizer.json is not the tokenizer of {path}; copy the run's own file back")
    require('reward_head' not in model.saved, f'{path} is a reward model: it scores answers and '
            'writes none; give the model that it was made of')
    model = model.to(here[-1] if device == 'auto' else device).eval()
    return model, tokenizer, model.saved.get('config', {})


def open_models(paths, device='cpu'):
    """Return {path: open_model(path)} of paths with commas between them, if all continue texts."""
    models = {path: open_model(path, device) for path in paths.split(',')}
    for path, (_, _, trained) in models.items():
        require(trained.get('objective', 'clm') == 'clm',
                f'{path} fills gaps (python -m extras.models.fill): give a model that continues '
                'texts')
    return models


def read(tokenizer, prompt):
    """Return the ids of a prompt; those that may come first, or None if any may; how many bytes of
    the prompt the first new token writes again; and the prompt's last character. The last token of
    a text may become a longer one, see Tokenizer.heal: where `):` and a newline are one token, a
    model has hardly ever read `):` alone."""
    if not isinstance(prompt, str):
        return tokenizer.render(prompt, add_generation_prompt=True)[0], None, 0, ''
    whole = tokenizer.begin + tokenizer.encode(prompt) or tokenizer.first
    ids, allowed = tokenizer.heal(whole) if len(whole) > 1 else (whole, None)
    return ids, allowed, len(tokenizer.decode_bytes(whole[len(ids):])), prompt[-1:]


class Answer:
    """An answer of at most n tokens, while it is written. Its random numbers are its own (seed), so
    other answers of its batch change it by rounding only. ends: a pattern in front of which the
    answer to a text ends, while whoever answers messages knows where to stop. What may be the
    beginning of that end is not certain yet, nor is half a character. With ends='END':

        token    'a'     ' E'    'AT'    'END'
        piece    'a'     ' '     'EAT'   ''      what has become certain
        why      ''      ''      ''      'stop'  or 'length', after n tokens
    """

    def __init__(self, tokenizer, prompt, n, ends='', seed=None):
        self.tokenizer, self.ends, self.dice = tokenizer, ends, random.Random(seed)
        # seen: text with the prompt's last character, which may be the newline before an end
        self.ids, self.allowed, self.n_again, self.seen = read(tokenizer, prompt)
        self.n = n + (self.n_again > 0)     # a healed prompt has lost its last token
        self.n_certain = len(self.seen)
        self.text, self.piece, self.why = '', '', ''
        self.decode = codecs.getincrementaldecoder('utf-8')('replace').decode

    def append(self, id, t):
        """Take in token t."""
        if id in self.tokenizer.stop:
            self.why = 'stop'
        elif t + 1 == self.n:
            self.why = 'length'
        data = b'' if self.why == 'stop' else self.tokenizer.decode_bytes([id])
        self.seen += self.decode(data[self.n_again if t == 0 else 0:], bool(self.why))
        found = None
        if self.ends:       # partial: the text may end with the beginning of a match
            found = regex.search(self.ends, self.seen, pos=self.n_certain, partial=not self.why)
        if found and not found.partial:
            self.why = 'stop'
        end = found.start() if found else len(self.seen)
        self.piece = self.seen[self.n_certain:end]
        self.text += self.piece
        self.n_certain = end


def stream(model, answers, draw):
    """Write these answers at once, and yield after each token. draw(logits (b, V), the b answers
    that go on) -> their next tokens (b,)."""
    never = answers[0].tokenizer.never_in_answers(model.config.vocab_size)
    prompts = [torch.tensor(answer.ids[-model.config.block_size:]) for answer in answers]
    idx = pad_sequence(prompts, batch_first=True, padding_value=IGNORE, padding_side='left')

    def choose(logits, rows, t):
        logits[:, never] = -math.inf
        few = [answers[row] for row in rows.tolist()]
        for row, answer in zip(logits, few if t == 0 else ()):
            if answer.allowed:
                allowed = row[answer.allowed]           # a copy
                row.fill_(-math.inf)
                row[answer.allowed] = allowed
        token = draw(logits, few)
        for i, (answer, id) in enumerate(zip(few, token.tolist())):
            answer.append(id, t)
            if answer.why:
                token[i] = IGNORE       # which is a stop here, so the row leaves
        return token

    n = max(answer.n for answer in answers)
    return model.stream(idx.to(model.embedding.weight.device), n, choose, stop=[IGNORE])


def write(model, tokenizer, prompts, n, ends='', max_new_tokens=256, seed=0, batch_size=16,
          temperature=None, top_k=0, top_p=1.0):
    """Return the texts of n answers to each prompt. temperature=None is 0 for one answer, the
    likeliest, and 0.8 for several, which have to differ."""
    if temperature is None:
        temperature = 0.0 if n == 1 else 0.8
    answers = [[Answer(tokenizer, prompt, max_new_tokens, ends if isinstance(prompt, str) else '',
                       f'{seed} {i} {j}') for j in range(n)] for i, prompt in enumerate(prompts)]
    n_cut = sum(len(few[0].ids) > model.config.block_size for few in answers)
    if n_cut:
        print(f'{n_cut} prompts are longer than the context; the model saw only their ends')
    by_length = sorted(sum(answers, []), key=lambda answer: len(answer.ids))    # less padding

    def draw(logits, few):
        u = logits.new_tensor([answer.dice.random() for answer in few])
        return sample(logits, temperature, top_k, top_p, u)

    for i in tqdm(range(0, len(by_length), batch_size), 'answers', disable=None):
        for _ in stream(model, by_length[i:i + batch_size], draw):
            pass
    return [[answer.text for answer in few] for few in answers]
