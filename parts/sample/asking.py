"""
Asking a model: prompts become ids, and the ids of its answers become text.

    answer = begin(tokenizer, 'def f(x):', 9, seed=1)
    for piece in pieces(model, answer, temperature=0.8):
        print(piece, end='')                            # the new characters
    generate(model, tokenizer, ['def f(x):', 'import '], 1, 9)
    # -> [[(text, ended)], [(text, ended)]], 0

A prompt is a text, messages [{'role', 'content'}], or a Prompt. tokenizer: as in tokenizer.py.
The randomness of an answer is its own numbers, so it depends on its neighbors by rounding only.
"""
import codecs, collections, math, pathlib, random
import regex, torch
from tqdm import tqdm
from model import IGNORE, sample
from parts import Mistake

# ids: the prompt without its healed end. allowed: the ids that may come first. repeated: how many
# bytes of the prompt the first new token writes again. last: the prompt's last character.
Prompt = collections.namedtuple('Prompt', 'ids allowed repeated last',
                                defaults=(slice(None), 0, ''))


def encode(tokenizer, prompt):
    """Return a prompt as the model reads it. The last token of a text may become a longer one: see
    Tokenizer.heal."""
    if isinstance(prompt, Prompt):
        return prompt
    if not isinstance(prompt, str):
        return Prompt(tokenizer.render(prompt, True)[0])
    whole = tokenizer.begin + tokenizer.encode(prompt) or tokenizer.first
    ids, allowed = tokenizer.heal(whole) if len(whole) > 1 else (whole, None)
    repeated = len(tokenizer.decode_bytes(whole[len(ids):]))
    return Prompt(ids, allowed or slice(None), repeated, prompt[-1:])


def shortened(tokenizer, messages, block_size):
    """Return a chat without its oldest questions and answers, so that a quarter of the context is
    left. A system message, which comes first, stays."""
    begin = 1 if messages[0]['role'] == 'system' else 0
    n_tokens = lambda messages: len(tokenizer.render(messages, True)[0])
    while n_tokens(messages) > block_size * 3 // 4 and len(messages) > begin + 1:
        messages = messages[:begin] + messages[begin + 2:]
    if n_tokens(messages) >= block_size:
        raise Mistake(f'the message does not fit into the context of {block_size} tokens; '
                      'shorten it')
    return messages


def end_of(stop_at):
    """Return the pattern in front of which a text ends. 'function': a line that begins in column 0,
    but not with a closing bracket or a comment; other text: itself."""
    return r'(?<=\n)(?=[^\s#)\]}])' if stop_at == 'function' else regex.escape(stop_at)


def read_prompts(path):
    """Return the prompts in a file: each line that is not blank."""
    prompts = [line for line in file_text(path).removeprefix('\ufeff').splitlines() if line.strip()]
    if not prompts:
        raise Mistake(f'{path} must hold prompts, one a line')
    return prompts


def file_text(path):
    """Return the text of a file, exactly as it is."""
    try:
        return pathlib.Path(path).read_bytes().decode()
    except UnicodeDecodeError as e:
        raise Mistake(f'{path} is not UTF-8 text: {e}') from e


class Answer:
    """An answer, while it is written: the numbers that draw its ids, the ids, and their text.
    finish becomes 'stop' at a stop id or where the pattern `ends` matches, 'length' after the last
    number. A reader who wants no more may set it, too."""

    def __init__(self, prompt, noise, tokenizer=None, ends=''):
        self.prompt = prompt
        self.noise = noise                  # numbers in [0, 1): each draws one id
        self.tokenizer = tokenizer
        self.ends = ends
        self.ids = []
        self.scores = []                    # one for each id: see write()
        self.finish = None
        self.text = ''
        self.n_certain = 0                  # characters that take() has handed out
        # waits for whole characters
        self.decoder = codecs.getincrementaldecoder('utf-8')('replace')

    def take(self):
        """Read the newest id. Return the text that is certain now: what may begin a match of
        `ends` is held back."""
        new = [] if self.finish == 'stop' else self.ids[-1:]        # a stop id has no text
        repeated = self.prompt.repeated if len(self.ids) == 1 else 0
        data = self.tokenizer.decode_bytes(new)[repeated:]
        self.text += self.decoder.decode(data, final=self.finish is not None)
        end = len(self.text)
        if self.ends:
            # The prompt's last character may be the newline that a pattern looks back for.
            before = self.prompt.last
            match = regex.search(self.ends, before + self.text, pos=len(before),
                                 partial=not self.finish)
            if match:
                end = match.start() - len(before)
                if not match.partial:
                    self.text = self.text[:end]
                    self.finish = 'stop'
        piece = self.text[self.n_certain:end]
        self.n_certain = end
        return piece


def begin(tokenizer, prompt, max_new_tokens, seed, ends=''):
    """Return the Answer to a prompt, which nobody has written yet."""
    prompt = encode(tokenizer, prompt)
    dice = random.Random(seed)
    limit = max_new_tokens + min(1, prompt.repeated)    # the first id replaces the prompt's last
    return Answer(prompt, [dice.random() for _ in range(limit)], tokenizer, ends)


def write(model, answers, stop, slots=16, temperature=1.0, top_k=0, top_p=1.0, never=(), score=None,
          look=0):
    """Write all answers, `slots` at a time. Yield an answer whenever it has a new id; short prompts
    come first. never: ids that are not drawn. score(logits (n, V), ids (n,)) -> a tensor (n, ...),
    of which each answer's part is appended to its `scores`. The rest: see model.py."""
    device = model.embedding.weight.device
    never = torch.tensor([*never], dtype=torch.long, device=device)
    waiting = sorted(answers, key=lambda answer: len(answer.prompt.ids))
    for first in range(0, len(waiting), slots):
        batch = waiting[first:first + slots]
        prompts = [answer.prompt.ids[-model.config.block_size:] for answer in batch]
        T = max(len(ids) for ids in prompts)
        rows = [[IGNORE] * (T - len(ids)) + ids for ids in prompts]
        idx = torch.tensor(rows, device=device)  # (B, T)
        n = max(len(answer.noise) for answer in batch)
        noise = torch.tensor([answer.noise + [0] * (n - len(answer.noise)) for answer in batch],
                             dtype=torch.float32, device=device)  # (B, n)
        has_ended = torch.zeros(len(batch), dtype=torch.bool, device=device)  # (B,)
        scores = []

        def draw(logits, rows, i):
            logits[:, never] = -math.inf
            for row, answer in enumerate(batch if i == 0 else ()):
                possible = torch.full_like(logits[row], -math.inf)  # (V,)
                possible[answer.prompt.allowed] = 0
                logits[row] += possible
            ids = sample(logits, temperature, top_k, top_p, noise[rows, i])  # (n,)
            if score:
                found = score(logits, ids)  # (n, ...)
                everyones = found.new_zeros(len(batch), *found.shape[1:])
                everyones[rows] = found
                scores.append(everyones)
            return ids.masked_fill(has_ended[rows], IGNORE)

        for new in model.stream(idx, n, draw, stop, look):  # (B, 1) or (B, 16)
            noted = torch.stack(scores, dim=1) if score else new
            scores.clear()
            for answer, ids, values in zip(batch, new.tolist(), noted.tolist()):
                for id, value in zip(ids, values):
                    if answer.finish:
                        break
                    answer.ids.append(id)
                    answer.scores.append(value)
                    if id in stop:
                        answer.finish = 'stop'
                    elif len(answer.ids) == len(answer.noise):
                        answer.finish = 'length'
                    yield answer
            has_ended = torch.tensor([answer.finish is not None for answer in batch], device=device)


def pieces(model, answer, **how):
    """Write an Answer. Yield the new characters after each id. how: see write()."""
    never = answer.tokenizer.never_in_answers(model.config.vocab_size)
    for _ in write(model, [answer], answer.tokenizer.stop, never=never, **how):
        yield answer.take()


def generate(model, tokenizer, prompts, num_samples, max_new_tokens, seed=0, slots=16, ends='',
             **how):
    """Return num_samples pairs (text, ended) for each prompt, and how many prompts were cut. ends:
    a pattern, in front of which an answer ends. slots, how: see write()."""
    prompts = [encode(tokenizer, prompt) for prompt in prompts]
    answers = [[begin(tokenizer, prompt, max_new_tokens, f'{seed} {i} {j}', ends)
                for j in range(num_samples)] for i, prompt in enumerate(prompts)]
    never = tokenizer.never_in_answers(model.config.vocab_size)
    with tqdm(total=len(prompts) * num_samples, desc='samples', disable=None) as bar:
        for answer in write(model, sum(answers, []), tokenizer.stop, slots, never=never, **how):
            answer.take()
            bar.update(answer.finish is not None)
    pairs = [[(answer.text, answer.finish == 'stop') for answer in several] for several in answers]
    return pairs, sum(len(prompt.ids) > model.config.block_size for prompt in prompts)


def compare(model, tokenizer, prompts, temperatures, num_samples, max_new_tokens, seed, **how):
    """Print the answers to each prompt at each temperature, with the same random numbers."""
    runs = [generate(model, tokenizer, prompts, num_samples, max_new_tokens, seed,
                     temperature=t, **how)[0] for t in temperatures]
    for i, prompt in enumerate(prompts):
        print('-' * 80, prompt if isinstance(prompt, str) else prompt[-1]['content'], sep='\n')
        for t, pairs in zip(temperatures, runs):
            for text, _ in pairs[i]:
                print(f'--- temperature {t:g}', text, sep='\n')
