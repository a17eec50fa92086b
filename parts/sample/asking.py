"""
Asking a model: prompts become ids, and the ids of its answers become text.

    batch = Batch(model, tokenizer.stop)                # of decoding.py
    text = begin(batch, tokenizer, 'def f(x):', 9, random.Random(1).random)
    while not text.answer.finish:
        batch.step()
        print(text.take(), end='')                      # the new characters
    generate(batch, tokenizer, ['def f(x):', 'import '], 1, 9)      # [[(text, ended)], [(text, ended)]], 0
    talk(batch, tokenizer, [], ['Hello', 'Why?'], 9, seed=1)        # prints two answers

A prompt is a text, messages [{'role', 'content'}], or a Prompt. tokenizer: as in tokenizer.py.
"""
import codecs, collections, contextlib, pathlib, random, re
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
    whole = tokenizer.begin + tokenizer.encode(prompt) or tokenizer.first
    ids, allowed = tokenizer.heal(whole) if len(whole) > 1 else (whole, None)
    repeated = len(tokenizer.decode_bytes(whole[len(ids):]))
    return Prompt(ids, allowed, repeated, prompt[-1:])


def between(tokenizer, prefix, suffix, block_size, max_new_tokens):
    """The Prompt whose answer stands between two texts, for a model that fills in the middle; and how many
    tokens it may have: at most a quarter of the context. Each text may keep half of the rest."""
    begin, suffix_follows, middle_follows = [tokenizer.special[f'<|fim_{name}|>']
                                             for name in ('prefix', 'suffix', 'middle')]
    max_new_tokens = min(max_new_tokens, block_size // 4)
    room = block_size - max_new_tokens - 3                              # tokens
    before, after = tokenizer.encode_inside(prefix), tokenizer.encode_inside(suffix)
    after = after[:max(room // 2, room - len(before))]
    before = before[max(0, len(before) + len(after) - room):]
    ids = [begin, *before, suffix_follows, *after, middle_follows]
    return Prompt(ids, None, 0, prefix[-1:]), max_new_tokens


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


class Text:
    """The text of an answer of decoding.py, while that is being written. It ends at a stop id, before the
    first of the texts `stop`, or behind a match of the pattern `ends`."""

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


def begin(batch, tokenizer, prompt, max_new_tokens, dice, ends=None, stop=(), **draw):
    """Queue an answer to a prompt in a Batch -> its Text. dice, draw: as Batch.add() takes them."""
    prompt = encode(tokenizer, prompt)
    limit = max_new_tokens + min(1, prompt.repeated)        # the first id replaces the prompt's last
    answer = batch.add(prompt.ids, limit, dice, allowed=prompt.allowed, **draw)
    return Text(answer, tokenizer, prompt, ends, stop)


def generate(batch, tokenizer, prompts, num_samples, max_new_tokens, seed=0, **how):
    """num_samples pairs (text, ended) for each prompt, and how many prompts were cut. how: see begin()."""
    prompts = [encode(tokenizer, prompt) for prompt in prompts]
    texts = [[] for _ in prompts]
    for i in sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids)):    # similar lengths: together
        for j in range(num_samples):
            dice = random.Random(f'{seed} {i} {j}').random
            texts[i].append(begin(batch, tokenizer, prompts[i], max_new_tokens, dice, **how))
    text_of = {text.answer: text for some in texts for text in some}
    with tqdm(total=len(text_of), desc='samples', disable=None) as bar:
        while batch.queue or batch.live:
            for answer in batch.step():
                text_of[answer].take()
                if answer.finish:
                    bar.update()
    pairs = [[(text.text, text.answer.finish == 'stop') for text in some] for some in texts]
    return pairs, sum(1 for prompt in prompts if len(prompt.ids) > batch.context)


def compare(batch, tokenizer, prompts, temperatures, num_samples, max_new_tokens, seed, **how):
    """Print the answers to each prompt at each temperature, with the same random numbers."""
    answers = []                            # for each temperature, for each prompt: pairs (answer, ended)
    for t in temperatures:
        how['temperature'] = t
        answers.append(generate(batch, tokenizer, prompts, num_samples, max_new_tokens, seed, **how)[0])
    for i, prompt in enumerate(prompts):
        print('-' * 80, prompt if isinstance(prompt, str) else prompt[-1]['content'], sep='\n')
        for t, pairs in zip(temperatures, answers):
            for answer, _ in pairs[i]:
                print(f'--- temperature {t:g}', answer, sep='\n')


def talk(batch, tokenizer, instruction, questions, max_new_tokens, seed, **how):
    """Answer each question after the messages `instruction`. Ctrl-C ends an answer, not the chat."""
    messages = list(instruction)
    for question in questions:
        messages.append({'role': 'user', 'content': question})
        messages = shortened(tokenizer, messages, batch.context)
        dice = random.Random(f'{seed} {len(messages)}').random
        text = begin(batch, tokenizer, messages, max_new_tokens, dice, **how)
        with contextlib.suppress(KeyboardInterrupt):
            while not text.answer.finish:
                batch.step()
                print(text.take(), end='', flush=True)
        batch.clear()                       # the answer may have no end
        print()
        messages.append({'role': 'assistant', 'content': text.text})
