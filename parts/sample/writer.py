"""
Writer: a thread writes for many readers, who come and go.

    writer = Writer(batch, tokenizer, most=64)      # a Batch of decoding.py
    reader = writer.add(prompt, max_tokens=20, seed=1, temperature=0.8)
    piece = reader.pieces.get()     # what is new, until a piece has a finish
    writer.end(reader)              # nobody reads it any more: its row becomes free
"""
import collections, queue, random, threading, traceback
from parts.sample import asking

# finish: None, 'stop', 'length' or 'error'
Piece = collections.namedtuple('Piece', 'text tokens finish')
# data: its bytes. top: pairs (data, log p). offset: the character of the text at which it begins
Token = collections.namedtuple('Token', 'data log_p top offset')


class Reader:
    """Who reads an answer. text: its Text of asking.py."""

    def __init__(self, text):
        self.text = text
        self.pieces = queue.SimpleQueue()
        self.tokens = []            # Tokens that begin behind the text which was passed on

    def take(self, stop):
        """Pass on what the answer's newest id adds. stop: the ids that end an answer."""
        text = self.text
        answer = text.answer
        repeated = text.to_drop     # bytes of the prompt that this id writes again
        decode = lambda id: text.tokenizer.decode_bytes([id])[repeated:]
        if answer.ids[-1] not in stop and decode(answer.ids[-1]):
            log_p = answer.log_probs[-1] if answer.log_probs else None
            top = [(decode(id), value) for id, value in answer.top]
            self.tokens.append(Token(decode(answer.ids[-1]), log_p, top, len(text.text)))
        new = text.take()
        certain = [token for token in self.tokens if token.offset < text.n_certain]
        self.tokens = self.tokens[len(certain):]
        if new or certain or answer.finish:
            self.pieces.put(Piece(new, certain, answer.finish))


class Writer:
    """Writes the answers of a Batch. chat, fills: was the model trained to chat, to fill in the middle? At
    most `most` wait for a row."""

    def __init__(self, batch, tokenizer, chat=False, fills=False, most=64):
        self.batch = batch
        self.tokenizer = tokenizer
        self.chat = chat
        self.fills = fills
        self.most = most
        self.reader_of = {}         # answer of the batch -> its Reader
        self.changed = threading.Condition()
        threading.Thread(target=self.run, daemon=True).start()

    def add(self, prompt, max_tokens, seed, ends=None, stop=(), **how):
        """Queue an answer to a Prompt of asking.py -> its Reader, or queue.Full. The answer ends where the
        context ends. ValueError for a prompt that is empty, or leaves no room."""
        T = self.batch.context
        n = len(prompt.ids)
        if not 0 < n < T:
            raise ValueError(f'the prompt has {n} tokens; the context of {T} needs 1 to {T - 1}')
        room = T - n if prompt.repeated else T + 1 - n      # begin() adds one where an id is repeated
        dice = random.Random(str(seed)).random      # a number would lose its sign
        with self.changed:
            unfinished = [answer for answer in self.reader_of if not answer.finish]
            if len(unfinished) >= self.batch.slots + self.most:
                raise queue.Full
            limit = min(max_tokens, room) + min(1, prompt.repeated)     # the first replaces the prompt's last
            answer = self.batch.add(prompt.ids, limit, dice, allowed=prompt.allowed, **how)
            text = asking.Text(answer, self.tokenizer, prompt, ends, stop)
            self.reader_of[text.answer] = Reader(text)
            self.changed.notify()
            return self.reader_of[text.answer]

    def end(self, reader):
        if not reader.text.answer.finish:
            reader.text.answer.finish = 'gone'

    def run(self):
        """Write for ever. An error ends the answers of this moment, also those that wait."""
        while True:
            with self.changed:
                self.reader_of = {a: reader for a, reader in self.reader_of.items() if not a.finish}
                self.changed.wait_for(lambda: self.batch.queue or self.batch.live)
            try:
                for answer in self.batch.step():
                    self.reader_of[answer].take(self.batch.stop)
            except Exception:       # out of memory, weights that are not finite
                traceback.print_exc()
                with self.changed:
                    for answer, reader in self.reader_of.items():
                        if not answer.finish:
                            answer.finish = 'error'
                            reader.pieces.put(Piece('', [], 'error'))
                    self.batch.clear()
