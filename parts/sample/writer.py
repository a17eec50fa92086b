"""
Writer: a thread writes for many readers, who come and go.

    writer = Writer(batch, tokenizer, asking.begin, most=64)    # a Batch of decoding.py; begin() of asking.py
    choices, pieces = writer.add([prompt], max_tokens=20, seed=1, temperature=0.8)
    piece = pieces.get()            # the newest of any of the choices, until each has one with a finish
    writer.end(choices)             # nobody reads them any more: their rows become free

Copy this file alone: it needs the standard library.
"""
import collections, queue, random, threading, traceback

# index: of the choice. finish: None, 'stop', 'length' or 'error'
Piece = collections.namedtuple('Piece', 'index text tokens finish')
# data: its bytes. top: pairs (data, log p). offset: the character of the text at which it begins
Token = collections.namedtuple('Token', 'data log_p top offset')


class Choice:
    """One answer. pieces: a queue. text: its Text of asking.py, as soon as it is being written."""

    def __init__(self, index, prompt, limit, dice, pieces):
        self.index = index
        self.prompt = prompt
        self.limit = limit
        self.dice = dice
        self.pieces = pieces
        self.text = None
        self.gone = False
        self.tokens = []            # Tokens that begin behind the text which was passed on

    def take(self, stop):
        """Pass on what the answer's newest id adds. stop: the ids that end an answer."""
        text = self.text
        answer = text.answer
        repeated = text.to_drop     # bytes of the prompt that this id writes again
        decode = lambda id: text.tokenizer.decode_bytes([id])[repeated:]
        data = b'' if answer.ids[-1] in stop else decode(answer.ids[-1])
        if data:
            log_p = answer.log_probs[-1] if answer.log_probs else None
            top = [(decode(id), value) for id, value in answer.top]
            self.tokens.append(Token(data, log_p, top, len(text.text)))
        if data and repeated:       # begin() allowed one more id, for one that only repeats the prompt
            answer.limit -= 1
            if len(answer.ids) >= answer.limit and not answer.finish:
                answer.finish = 'length'
        new = text.take()
        certain = [token for token in self.tokens if token.offset < text.n_certain]
        self.tokens = self.tokens[len(certain):]
        self.pieces.put(Piece(self.index, new, certain, answer.finish))


class Writer:
    """Writes the answers of a Batch. At most `most` may wait."""

    def __init__(self, batch, tokenizer, begin, most=64):
        self.batch = batch
        self.tokenizer = tokenizer
        self.begin = begin
        self.most = most
        self.waiting = []           # pairs (Choice, how it is to be written)
        self.choice_of = {}         # answer of the batch -> its Choice
        self.changed = threading.Condition()
        threading.Thread(target=self.run, daemon=True).start()

    def add(self, prompts, max_tokens, seed, **how):
        """Queue an answer to each prompt: all, or none and queue.Full. An answer ends where the context ends.
        ValueError for a prompt that is empty, or leaves no room."""
        T = self.batch.context
        pieces = queue.SimpleQueue()
        new = []
        for i, prompt in enumerate(prompts):
            n = len(prompt.ids)
            if not 0 < n < T:
                raise ValueError(f'the prompt has {n} tokens; the context of {T} needs 1 to {T - 1}')
            room = T - n if prompt.repeated else T + 1 - n      # begin() adds one where an id is repeated
            new.append(Choice(i, prompt, min(max_tokens, room), random.Random(f'{seed} {i}').random, pieces))
        with self.changed:
            self.waiting = [pair for pair in self.waiting if not pair[0].gone]
            if len(self.waiting) + len(new) > self.most + self.n_free():
                raise queue.Full
            self.waiting += [(choice, how) for choice in new]
            self.changed.notify()
        return new, pieces

    def n_free(self):
        return self.batch.slots - sum(1 for answer in self.choice_of if not answer.finish)

    def end(self, choices):
        with self.changed:
            for choice in choices:
                choice.gone = True
                if choice.text and not choice.text.answer.finish:
                    choice.text.answer.finish = 'gone'

    def let_in(self):
        """Hand waiting choices to the batch, as many as it has rows."""
        self.choice_of = {answer: choice for answer, choice in self.choice_of.items() if not answer.finish}
        self.waiting = [pair for pair in self.waiting if not pair[0].gone]
        while self.waiting and self.n_free():
            choice, how = self.waiting.pop(0)
            choice.text = self.begin(self.batch, self.tokenizer, choice.prompt, choice.limit, choice.dice,
                                     **how)
            self.choice_of[choice.text.answer] = choice

    def run(self):
        """Write for ever. An error ends the answers that were being written, and nothing else."""
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.waiting or self.batch.live)
                self.let_in()
            try:
                for answer in self.batch.step():
                    self.choice_of[answer].take(self.batch.stop)
            except Exception:       # out of memory, weights that are not finite
                traceback.print_exc()
                for answer, choice in self.choice_of.items():
                    if not answer.finish:
                        answer.finish = 'error'
                        choice.pieces.put(Piece(choice.index, '', [], 'error'))
                self.batch.clear()
