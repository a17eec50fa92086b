"""
Hugging Face's tokenizer.json: theirs behind our interface, ours in their form.

    tokenizer = HFTokenizer(open('tokenizer.json', encoding='utf-8').read())
    tokenizer.encode('hi')                          # [5303]
    write('exported', tokenizer, block_size=1024)   # as AutoTokenizer of transformers reads it
"""
import json
import re

from tokenizer import CHAT_TEMPLATE, Tokenizer, from_printable, to_utf8

BEGIN = '<|endoftext|>'             # stands before each document of ours
BODY = "{{ m['content'] }}<|im_end|>"
# what the assistant says between marks, for trl's assistant_only_loss: the tokens of our loss mask
MARKED = ("{% if m['role'] == 'assistant' %}{% generation %}" + BODY + '{% endgeneration %}{% else %}' +
          BODY + "{% endif %}{{ '\\n' }}")
THEIR_ENDS = '<|endoftext|>', '<|end_of_text|>', '</s>', '<eos>'
THEIR_BEGINS = '<|begin_of_text|>', '<s>', '<bos>'


# --- theirs as ours -----------------------------------------------------------------------------------------
class HFTokenizer(Tokenizer):
    """A byte-level BPE or SentencePiece tokenizer, run by Hugging Face's library. The end of a text also has
    the name <|endoftext|>. <|im_start|> and <|im_end|> are added where they are missing; the model needs rows
    for them. all_bytes: b'' for a hole in the vocabulary."""

    def __init__(self, text):
        self.theirs = parse(text)
        form = self.to_json()
        super().__init__('hf', bytes_of(self.theirs.get_vocab(), form))

        self.special = {token['content']: token['id'] for token in form['added_tokens'] if token['special']}
        for id in self.special.values():
            self.text_bytes[id] = 0
        ends = [self.special[name] for name in THEIR_ENDS if name in self.special][:1]
        begins = [self.special[name] for name in THEIR_BEGINS if name in self.special][:1]
        self.begin = begins or ends
        self.first = self.begin or self.first
        self.stop = [*ends, self.special['<|im_end|>']]
        if ends:
            self.special['<|endoftext|>'] = ends[0]
        self.puts_blank_first = self.decode_bytes(self.encode('a')) == b' a'        # SentencePiece does

    def encode(self, text):
        return self.theirs.encode(to_utf8(text).decode(), add_special_tokens=False).ids

    def encode_batch(self, texts):
        texts = [to_utf8(text).decode() for text in texts]
        return [encoded.ids for encoded in self.theirs.encode_batch(texts, add_special_tokens=False)]

    def encode_inside(self, text):
        """The ids of text that does not begin a document. SentencePiece puts a blank before a text: we
        encode a newline and the text, and drop the ids of the blank and the newline."""
        newline = self.encode('\n')
        both = self.encode('\n' + text)
        if self.puts_blank_first and both[:len(newline)] == newline:
            return both[len(newline):]
        return self.encode(text)

    def decode_bytes(self, ids):
        """The bytes of ids. A model may have more rows than there are tokens; such ids have no bytes."""
        return b''.join(self.all_bytes[id] for id in ids if id < len(self.all_bytes))

    def to_json(self):
        return json.loads(self.theirs.to_str())


def import_tokenizers():
    try:
        import tokenizers
    except ImportError:
        raise ValueError("Hugging Face's tokenizers need: pip install tokenizers") from None
    return tokenizers


def parse(text):
    """A tokenizers.Tokenizer to which '</s>' in a user's text is four characters."""
    tokenizers = import_tokenizers()
    try:
        theirs = tokenizers.Tokenizer.from_str(text)
    except Exception as e:                      # tokenizers raises plain Exceptions
        raise ValueError(str(e)) from e
    theirs.encode_special_tokens = True
    theirs.no_padding()
    theirs.no_truncation()
    theirs.add_special_tokens(['<|im_start|>', '<|im_end|>'])
    return theirs


def bytes_of(vocab, form):
    """The bytes of each id. vocab: {token: id}; form: the parsed tokenizer.json."""
    added = {token['id'] for token in form['added_tokens']}
    byte_level = 'ByteLevel' in json.dumps([form['pre_tokenizer'], form['decoder']])
    last = max(vocab, key=vocab.get)
    if vocab[last] > 2 * len(vocab):        # the model would get a row for each id in between
        raise ValueError(f'{last!r:.80} has the id {vocab[last]:,}, but there are {len(vocab):,} tokens')
    all_bytes = [b''] * (vocab[last] + 1)
    for token, id in vocab.items():
        byte = re.fullmatch('<0x([0-9A-F]{2})>', token)             # SentencePiece's way to write one
        if id in added:
            all_bytes[id] = token.encode()
        elif byte_level:
            all_bytes[id] = from_printable(token)
        elif byte:
            all_bytes[id] = bytes.fromhex(byte[1])
        else:
            all_bytes[id] = token.replace('\u2581', ' ').encode()
    return all_bytes


# --- ours as theirs -----------------------------------------------------------------------------------------
def write(folder, tokenizer, block_size):
    """Three files as AutoTokenizer of transformers reads them: the same ids, documents that begin with
    <|endoftext|>, the chat template, and the ids at which generate() stops."""
    form = tokenizer.to_json()
    if tokenizer.kind != 'hf':                  # else it is theirs already
        form = to_their_form(form, tokenizer.special)
    settings = {'tokenizer_class': 'PreTrainedTokenizerFast', 'clean_up_tokenization_spaces': False,
                'model_max_length': block_size}
    generation = {}
    if '<|im_end|>' in tokenizer.special:
        settings['chat_template'] = CHAT_TEMPLATE.replace(f'{BODY}\n', MARKED)
    if tokenizer.begin and tokenizer.stop:
        names = {id: name for name, id in reversed(tokenizer.special.items())}      # the alias is last
        pad = tokenizer.special.get('<|pad|>', tokenizer.stop[0])
        settings |= {'bos_token': names[tokenizer.begin[0]], 'eos_token': names[tokenizer.stop[0]],
                     'pad_token': names[pad]}
        generation = {'bos_token_id': tokenizer.begin[0], 'eos_token_id': tokenizer.stop, 'pad_token_id': pad,
                      'suppress_tokens': tokenizer.never_in_answers() or None}

    files = {'tokenizer': form, 'tokenizer_config': settings, 'generation_config': generation}
    for name, content in files.items():
        with open(f'{folder}/{name}.json', 'w', encoding='utf-8', newline='\n') as f:
            json.dump(content, f, ensure_ascii=False, indent=1)


def to_their_form(ours, special):
    """Our tokenizer's JSON in their form. A merge is any pair of tokens whose union is one, as tiktoken's."""
    tokenizers = import_tokenizers()
    ids = {token: i for i, token in enumerate(ours['vocab'])}
    split = lambda pattern: tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), 'isolated')
    if ours['kind'] == 'char':
        theirs = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token=''))
        theirs.pre_tokenizer = split(r'[\s\S]')         # one character at a time
        theirs.decoder = tokenizers.decoders.Fuse()
    else:
        merges = [(token[:i], token[i:]) for token in ids for i in range(1, len(token))
                  if token[:i] in ids and token[i:] in ids]
        theirs = tokenizers.Tokenizer(tokenizers.models.BPE(ids, merges))
        as_characters = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        theirs.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split(ours['pattern']), as_characters])
        theirs.decoder = tokenizers.decoders.ByteLevel()
    theirs.add_special_tokens([tokenizers.AddedToken(name, normalized=False) for name in special])
    if BEGIN in special:
        theirs.post_processor = tokenizers.processors.TemplateProcessing(
            single=f'{BEGIN} $A', pair=f'{BEGIN} $A $B', special_tokens=[(BEGIN, special[BEGIN])])
    return json.loads(theirs.to_str())
