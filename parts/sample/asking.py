"""
Asking a model: prompts become ids, and the ids of its answers become text.

    generate(model, tokenizer, ['def f(x):', 'import '], 1, 9)
    # -> [['...'], ['...']], 0: the answers to each prompt; how many prompts were cut

    answer = begin(tokenizer, 'def f(x):', 9, seed=1)       # one alone, token by token: sample.py
    while not answer.finish:
        answer.append(token, tokenizer.stop)                # that answer.draw(logits) chose
        print(answer.take(), end='')                        # the new characters

A prompt is a text, messages [{'role', 'content'}], or a Prompt. tokenizer: as in tokenizer.py.
Each answer has random numbers of its own, so other answers in a batch change it by rounding only.
"""
import codecs, collections, math, pathlib, random
import regex, torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from model import IGNORE, sample
from parts import Mistake

# ids: the prompt without its healed end. allowed: the ids that may come first, None = any.
# repeated: how many bytes of the prompt the first new token writes again. last: the prompt's last
# character.
Prompt = collections.namedtuple('Prompt', 'ids allowed repeated last', defaults=(None, 0, ''))


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
    return Prompt(ids, allowed, repeated, prompt[-1:])


def with_question(tokenizer, messages, text, block_size):
    """Return a chat and a user's next message, without the oldest questions and answers, so that a
    quarter of the context is left. A system message, which comes first, stays."""
    messages = [*messages, {'role': 'user', 'content': text}]
    begin = 1 if messages[0]['role'] == 'system' else 0
    n_tokens = lambda: len(tokenizer.render(messages, True)[0])
    while n_tokens() > block_size * 3 // 4 and len(messages) > begin + 1:
        del messages[begin:begin + 2]
    if n_tokens() >= block_size:
        raise Mistake(f'the message does not fit into the context of {block_size} tokens; '
                      'shorten it')
    return messages


def end_of(stop_at):
    """Return what a text ends in front of, as find_end() reads it. 'function': a line that begins
    in column 0, but not with a closing bracket or a comment; other text: itself."""
    return r'(?<=\n)(?=[^\s#)\]}])' if stop_at == 'function' else stop_at and [stop_at]


def find_end(ends, text, begin, is_whole):
    """Return where the first of `ends` is in a text, from position `begin` on, and whether all of
    it is there. Unless the text is whole, its last characters may be the beginning of one of them.
    ends: a pattern, or a list of words. 'a stor', ['or', 'ore'] -> 4, True: the text has `or`.
    'a stor', ['story'] -> 2, False, or 6, False if the text is whole."""
    if isinstance(ends, str):
        match = regex.search(ends, text, pos=begin, partial=not is_whole)
        return (match.start(), not match.partial) if match else (len(text), False)
    # A pattern of a long word would take minutes: regex looks for the beginnings of a word of n
    # letters in n^3 steps.
    found = [at for word in ends if (at := text.find(word, begin)) >= 0]
    if found or is_whole:
        return min(found, default=len(text)), bool(found)
    first = max(begin, len(text) - max(map(len, ends)) + 1)
    may_begin = lambda at: any(word.startswith(text[at:]) for word in ends)
    return next(filter(may_begin, range(first, len(text))), len(text)), False


def file_text(path):
    """Return the text of a file, with its ends of lines as they are."""
    try:
        return pathlib.Path(path).read_bytes().decode('utf-8-sig')      # without a byte order mark
    except FileNotFoundError as e:
        raise Mistake(f'{path} does not exist') from e
    except UnicodeDecodeError as e:
        raise Mistake(f'{path} is not UTF-8 text: {e}') from e


def read_prompts(path):
    """Return the prompts in a file: each line that is not blank."""
    prompts = [line for line in file_text(path).splitlines() if line.strip()]
    if not prompts:
        raise Mistake(f'{path} must hold prompts, one a line')
    return prompts


class Answer:
    """An answer, while it is written: the numbers that draw its ids, the ids, and their text.
    finish becomes 'stop' at a stop id or in front of one of `ends` (see find_end), 'length' after
    the last number. A reader who wants no more may set it, too."""

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

    def draw(self, logits, **how):
        """Draw the next id from its logits, (1, V) -> (1,). how: temperature, top_k, top_p."""
        u = logits.new_tensor([self.noise[len(self.ids)]])
        return draw(logits, [self], u=u, **how)

    def append(self, id, stop):
        """Note the next id. stop: the ids that end an answer."""
        self.ids.append(id)
        if id in stop:
            self.finish = 'stop'
        elif len(self.ids) == len(self.noise):
            self.finish = 'length'

    def take(self):
        """Read the newest id. Return the text that is certain now: what may begin one of
        `ends` is held back."""
        new = [] if self.finish == 'stop' else self.ids[-1:]        # a stop id has no text
        repeated = self.prompt.repeated if len(self.ids) == 1 else 0
        data = self.tokenizer.decode_bytes(new)[repeated:]
        self.text += self.decoder.decode(data, final=self.finish is not None)
        end = len(self.text)
        if self.ends:
            # The prompt's last character may be the newline that a pattern looks back for.
            before = self.prompt.last
            end, is_found = find_end(self.ends, before + self.text, len(before) + self.n_certain,
                                     is_whole=self.finish is not None)
            end -= len(before)
            if is_found:
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


def draw(logits, answers, **how):
    """Logits (n, V) -> the next id of each of n Answers, (n,). how: see sample() of model.py."""
    if tokenizer := answers[0].tokenizer:
        logits[:, tokenizer.never_in_answers(logits.shape[1])] = -math.inf
    for i, answer in enumerate(answers):
        if answer.prompt.allowed and not answer.ids:
            allowed = logits[i, answer.prompt.allowed]          # a copy
            logits[i] = -math.inf
            logits[i, answer.prompt.allowed] = allowed
    return sample(logits, **how)


def write(model, answers, stop, slots=16, score=None, **how):
    """Write all answers, `slots` at a time. Yield an answer whenever it has a new id; short prompts
    come first. stop: the ids that end an answer. score(logits (n, V), ids (n,)) -> a tensor (n,
    ...), of which each answer's part is appended to its `scores`. how: temperature, top_k,
    top_p."""
    waiting = sorted(answers, key=lambda answer: len(answer.prompt.ids))
    for first in range(0, len(waiting), slots):
        yield from write_batch(model, waiting[first:first + slots], stop, score, **how)


def write_batch(model, answers, stop, score, **how):
    """GPT.stream for many Answers: shorter prompts begin with padding."""
    device = model.embedding.weight.device
    prompts = [torch.tensor(answer.prompt.ids[-model.config.block_size:]) for answer in answers]
    idx = pad_sequence(prompts, batch_first=True, padding_value=IGNORE, padding_side='left')
    noise = pad_sequence([torch.tensor(answer.noise) for answer in answers], batch_first=True)
    noise = noise.to(device)  # (B, n)
    written = []                # the answers that have a new id

    def choose(logits, rows, t):
        # An answer that has ended at a word, at its length or by its reader gets IGNORE, which is
        # a stop id here, so that its row leaves.
        ids = torch.full_like(rows, IGNORE)  # (b,)
        going = [i for i, row in enumerate(rows.tolist()) if not answers[row].finish]
        written[:] = [answers[row] for row in rows[going].tolist()]
        if written:
            logits = logits[going]
            ids[going] = draw(logits, written, u=noise[rows[going], t], **how)
            scores = score(logits, ids[going]) if score else ids[going]
            for answer, id, value in zip(written, ids[going].tolist(), scores.tolist()):
                answer.append(id, stop)
                answer.scores.append(value)
        return ids

    for _ in model.stream(idx.to(device), noise.shape[1], choose, (IGNORE, *stop)):
        yield from written


def generate(model, tokenizer, prompts, num_samples, max_new_tokens, seed=0, slots=16, ends='',
             **how):
    """Return num_samples answers to each prompt, and how many prompts were cut. ends: see
    find_end(). slots, how: see write()."""
    prompts = [encode(tokenizer, prompt) for prompt in prompts]
    answers = [[begin(tokenizer, prompt, max_new_tokens, f'{seed} {i} {j}', ends)
                for j in range(num_samples)] for i, prompt in enumerate(prompts)]
    with tqdm(total=len(prompts) * num_samples, desc='samples', disable=None) as bar:
        for answer in write(model, sum(answers, []), tokenizer.stop, slots, **how):
            answer.take()
            bar.update(answer.finish is not None)
    n_cut = sum(len(prompt.ids) > model.config.block_size for prompt in prompts)
    return [[answer.text for answer in several] for several in answers], n_cut
