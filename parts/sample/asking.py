"""
Asking a model: prompts become ids, and the ids of its answers become text.

    text = begin(tokenizer, 'def f(x):', 9, random.Random(1).random)
    for piece in pieces(model, text, temperature=0.8):
        print(piece, end='')                            # the new characters
    generate(model, tokenizer, ['def f(x):', 'import '], 1, 9)      # [[(text, ended)], [(text, ended)]], 0
    talk(model, tokenizer, [], ['Hello', 'Why?'], 9, seed=1)        # prints two answers

A prompt is a text, messages [{'role', 'content'}], or a Prompt. tokenizer: as in tokenizer.py.
The randomness of an answer is its own numbers, so it depends on its neighbors by rounding only.
"""
import codecs, collections, contextlib, dataclasses, math, pathlib, random, re
import torch
from tqdm import tqdm
from model import IGNORE, sample

# ids: the prompt without its healed end. allowed: the ids that may come first, None = any. repeated: how many
# bytes of the prompt the first new token writes again. last: the prompt's last character.
Prompt = collections.namedtuple('Prompt', 'ids allowed repeated last')


def encode(tokenizer, prompt):
    """A prompt as the model reads it. The last token of a text may become a longer one: Tokenizer.heal."""
    if isinstance(prompt, Prompt):
        return prompt
    if not isinstance(prompt, str):
        return Prompt(tokenizer.render(prompt, True)[0], None, 0, '')
    whole = tokenizer.begin + tokenizer.encode(prompt) or tokenizer.first
    ids, allowed = tokenizer.heal(whole) if len(whole) > 1 else (whole, None)
    repeated = len(tokenizer.decode_bytes(whole[len(ids):]))
    return Prompt(ids, allowed, repeated, prompt[-1:])


def shortened(tokenizer, messages, block_size):
    """A chat without its oldest questions and answers, so that a quarter of the context is left. A system
    message, which comes first, stays. ValueError if the last question alone does not fit."""
    begin = 1 if messages[0]['role'] == 'system' else 0
    n_tokens = lambda messages: len(tokenizer.render(messages, True)[0])
    while n_tokens(messages) > block_size * 3 // 4 and len(messages) > begin + 1:
        messages = messages[:begin] + messages[begin + 2:]
    if n_tokens(messages) >= block_size:
        raise ValueError(f'the message does not fit into the context of {block_size} tokens; shorten it')
    return messages


def end_of(stop_at):
    """Where a text ends, for begin(). 'function': before a line that begins in column 0, but not with a
    closing bracket or a comment; other text: before it first occurs; '': nowhere."""
    if stop_at == 'function':
        return {'ends': r'\n(?=[^\s#)\]}])'}
    return {'stop': [stop_at] if stop_at else []}


def read_prompts(path):
    """The prompts in a file: each line that is not blank."""
    prompts = [line for line in file_text(path).removeprefix('\ufeff').splitlines() if line.strip()]
    if not prompts:
        raise ValueError(f'{path} must hold prompts, one a line')
    return prompts


def file_text(path):
    """The text of a file, exactly as it is."""
    try:
        return pathlib.Path(path).read_bytes().decode()
    except UnicodeDecodeError as e:
        raise ValueError(f'{path} is not UTF-8 text: {e}') from e


@dataclasses.dataclass(eq=False)
class Answer:
    """What is known of an answer before and while it is written."""
    prompt: Prompt
    noise: list             # numbers in [0, 1): each draws one id, so it has at most so many
    ids: list = dataclasses.field(default_factory=list)
    scores: list = dataclasses.field(default_factory=list)      # of each id: see write()
    finish: str | None = None   # 'stop', 'length', or what a reader sets who wants no more


class Text:
    """The text of an answer, while that is being written. It ends at a stop id, before the first of the
    texts `stop`, or behind a match of the pattern `ends`."""

    def __init__(self, answer, tokenizer, prompt, ends=None, stop=()):
        self.answer = answer
        self.tokenizer = tokenizer
        patterns = [f'(?={re.escape(text)})' for text in stop] + ([ends] if ends else [])
        self.ends = re.compile('|'.join(patterns) or '(?!)')                # (?!) matches nowhere
        self.stop = stop
        self.before = prompt.last           # may be the newline that the pattern looks for
        self.to_drop = prompt.repeated      # bytes of the prompt that the first id writes again
        self.decoder = codecs.getincrementaldecoder('utf-8')('replace')     # waits for whole characters
        self.text = ''
        self.n_certain = 0                  # characters that take() has handed out

    def take(self):
        """Read the answer's newest id -> the text that is certain now. What may begin a stop is held back."""
        answer = self.answer
        new = [] if answer.finish == 'stop' else answer.ids[-1:]        # a stop id has no text
        data = self.tokenizer.decode_bytes(new)[self.to_drop:]
        self.to_drop = 0
        self.text += self.decoder.decode(data, final=answer.finish is not None)
        matches = self.ends.finditer(self.before + self.text)
        places = [match.end() - len(self.before) for match in matches]
        places = [place for place in places if place >= 0]                  # the others are in the prompt
        if places:
            self.text = self.text[:places[0]]
            answer.finish = 'stop'

        begin = self.n_certain
        self.n_certain = len(self.text)
        if not answer.finish:
            beginnings = [stop[:n] for stop in self.stop for n in range(1, len(stop))]
            self.n_certain -= max([len(b) for b in beginnings if self.text.endswith(b)], default=0)
        return self.text[begin:self.n_certain]


def begin(tokenizer, prompt, max_new_tokens, dice, ends=None, stop=()):
    """Return the Text of an answer to a prompt, which nobody has written yet. dice() -> a number in [0, 1).
    ends, stop: see Text."""
    prompt = encode(tokenizer, prompt)
    limit = max_new_tokens + min(1, prompt.repeated)        # the first id replaces the prompt's last
    return Text(Answer(prompt, [dice() for _ in range(limit)]), tokenizer, prompt, ends, stop)


def write(model, answers, stop, slots=16, **how):
    """Write all answers, `slots` at a time. Yield an answer whenever it has a new id; short prompts come
    first. An answer ends at an id of `stop`, at its limit, or when the reader sets its `finish`. how:
    temperature, top_k and top_p as in model.sample; never, the ids that are not drawn; score(logits (n, V),
    ids (n,)) -> a tensor (n, ...), of which each answer's part is appended to its `scores`; and look: after
    how many ids of each answer they are read, None = what suits the device."""
    waiting = sorted(answers, key=lambda answer: len(answer.prompt.ids))
    for first in range(0, len(waiting), slots):
        yield from write_together(model, waiting[first:first + slots], set(stop), **how)


def write_together(model, answers, stop, temperature=1.0, top_k=0, top_p=1.0, never=(), score=None,
                   look=None):
    device = model.embedding.weight.device
    prompts = [answer.prompt.ids[-model.config.block_size:] for answer in answers]
    T = max(len(ids) for ids in prompts)
    idx = torch.tensor([[IGNORE] * (T - len(ids)) + ids for ids in prompts], device=device)     # (B, T)
    n = max(len(answer.noise) for answer in answers)
    noise = torch.tensor([answer.noise + [0] * (n - len(answer.noise)) for answer in answers],
                         dtype=torch.float32, device=device)                                    # (B, n)
    never = torch.tensor(list(never), dtype=torch.long, device=device)
    has_ended = torch.zeros(len(answers), dtype=torch.bool, device=device)                      # (B,)
    columns, scores = [], []        # of the tokens that nobody has looked at yet

    def draw(logits, rows, i):
        logits[:, never] = -math.inf
        for row, answer in enumerate(answers if i == 0 else ()):
            if answer.prompt.allowed is not None:
                possible = logits[row, answer.prompt.allowed]
                logits[row] = -math.inf
                logits[row, answer.prompt.allowed] = possible
        ids = sample(logits, temperature, top_k, top_p, noise[rows, i])                         # (n,)
        if score:
            found = score(logits, ids)                                                          # (n, ...)
            everyones = found.new_zeros(len(answers), *found.shape[1:])
            everyones[rows] = found
            scores.append(everyones)
        return ids.masked_fill(has_ended[rows], IGNORE)

    # A GPU should not wait for Python after each token of a batch. One answer alone is read as it comes.
    look = look or (16 if device.type == 'cuda' and len(answers) > 1 else 1)
    for i, ids in enumerate(model.stream(idx, n, stop=stop, draw=draw, look=look), 1):
        columns.append(ids)
        if i % look and i < n:
            continue
        noted = torch.stack(scores).tolist() if score else columns
        for new, values in zip(torch.stack(columns).tolist(), noted):
            for answer, id, value in zip(answers, new, values):
                if not answer.finish:
                    answer.ids.append(id)
                    if score:
                        answer.scores.append(value)
                    if id in stop:
                        answer.finish = 'stop'
                    elif len(answer.ids) == len(answer.noise):
                        answer.finish = 'length'
                    yield answer
        has_ended = torch.tensor([answer.finish is not None for answer in answers], device=device)
        columns.clear()
        scores.clear()


def pieces(model, text, **how):
    """Write the answer of a Text. Yield the new characters after each id. how: see write()."""
    never = text.tokenizer.never_in_answers(model.config.vocab_size)
    for _ in write(model, [text.answer], text.tokenizer.stop, never=never, **how):
        yield text.take()


def generate(model, tokenizer, prompts, num_samples, max_new_tokens, seed=0, slots=16, ends=None, stop=(),
             **how):
    """num_samples pairs (text, ended) for each prompt, and how many prompts were cut. ends, stop: see Text;
    slots, how: see write()."""
    prompts = [encode(tokenizer, prompt) for prompt in prompts]
    texts = [[begin(tokenizer, prompt, max_new_tokens, random.Random(f'{seed} {i} {j}').random, ends, stop)
              for j in range(num_samples)] for i, prompt in enumerate(prompts)]
    text_of = {text.answer: text for several in texts for text in several}
    never = tokenizer.never_in_answers(model.config.vocab_size)
    with tqdm(total=len(text_of), desc='samples', disable=None) as bar:
        for answer in write(model, text_of, tokenizer.stop, slots, never=never, **how):
            text_of[answer].take()
            if answer.finish:
                bar.update()
    pairs = [[(text.text, text.answer.finish == 'stop') for text in several] for several in texts]
    return pairs, sum(1 for prompt in prompts if len(prompt.ids) > model.config.block_size)


def compare(model, tokenizer, prompts, temperatures, num_samples, max_new_tokens, seed, **how):
    """Print the answers to each prompt at each temperature, with the same random numbers."""
    answers = []                            # for each temperature, for each prompt: pairs (answer, ended)
    for t in temperatures:
        how['temperature'] = t
        answers.append(generate(model, tokenizer, prompts, num_samples, max_new_tokens, seed, **how)[0])
    for i, prompt in enumerate(prompts):
        print('-' * 80, prompt if isinstance(prompt, str) else prompt[-1]['content'], sep='\n')
        for t, pairs in zip(temperatures, answers):
            for answer, _ in pairs[i]:
                print(f'--- temperature {t:g}', answer, sep='\n')


def talk(model, tokenizer, instruction, questions, max_new_tokens, seed, **how):
    """Answer each question after the messages `instruction`. Ctrl-C ends an answer, not the chat."""
    messages = list(instruction)
    for question in questions:
        messages.append({'role': 'user', 'content': question})
        messages = shortened(tokenizer, messages, model.config.block_size)
        dice = random.Random(f'{seed} {len(messages)}').random
        text = begin(tokenizer, messages, max_new_tokens, dice)
        with contextlib.suppress(KeyboardInterrupt):
            for piece in pieces(model, text, **how):
                print(piece, end='', flush=True)
        print()
        messages.append({'role': 'assistant', 'content': text.text})
