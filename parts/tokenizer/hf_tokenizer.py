"""
Hugging Face's tokenizer.json: read as one of our tokenizers, and written from one.

    tokenizer = HFTokenizer(open('tokenizer.json', encoding='utf-8').read())
    tokenizer.encode('hi')                          # [5303]
    write('exported', tokenizer, block_size=1024)   # as AutoTokenizer of transformers reads it

Both are byte-level BPE. SentencePiece (Llama 2, TinyLlama) is not read, because it puts a space
before each text, so that the ids of a text depend on whether a document begins there.
"""
import json
from parts import Mistake
from tokenizer import CHAT_TEMPLATE, Tokenizer, from_printable, to_utf8

# The special tokens that begin and end documents, in Llama 3, and in Qwen, SmolLM2 and ours.
BEGINS = '<|begin_of_text|>', '<|endoftext|>'
ENDS = '<|endoftext|>', '<|end_of_text|>'
# trl's assistant_only_loss trains what is between the marks `generation` and `endgeneration`: the
# tokens of our loss mask.
BODY = "{{ m['content'] }}<|im_end|>"
MARKED = ("{% if m['role'] == 'assistant' %}{% generation %}" + BODY
          + '{% endgeneration %}{% else %}' + BODY + "{% endif %}{{ '\\n' }}")


# --- theirs as ours -------------------------------------------------------------------------------
class HFTokenizer(Tokenizer):
    """A byte-level BPE tokenizer that Hugging Face's library runs. Its end of a text also gets the
    name <|endoftext|>. If <|im_start|> and <|im_end|> are missing, they are added, and the model
    needs rows for them. An id without a token has b'' in all_bytes."""

    def __init__(self, text):
        self.theirs = import_tokenizers().Tokenizer.from_str(text)
        # '<|im_end|>' in a user's text is ten characters.
        self.theirs.encode_special_tokens = True
        self.theirs.no_padding()
        self.theirs.no_truncation()
        self.theirs.add_special_tokens(['<|im_start|>', '<|im_end|>'])
        form = self.to_json()
        if 'ByteLevel' not in json.dumps([form['pre_tokenizer'], form['decoder']]):
            raise Mistake('only byte-level BPE is read, as SmolLM2, Qwen and Llama 3 have it')
        if '"add_prefix_space": true' in json.dumps(form['pre_tokenizer']):
            raise Mistake('add_prefix_space: true puts a space before each text; set it to false')
        added = {token['id'] for token in form['added_tokens']}
        vocab = self.theirs.get_vocab()
        all_bytes = [b''] * (max(vocab.values()) + 1)
        for token, id in vocab.items():
            all_bytes[id] = token.encode() if id in added else from_printable(token)
        super().__init__('hf', all_bytes)

        self.special = {token['content']: token['id'] for token in form['added_tokens']
                        if token['special']}
        for id in self.special.values():
            self.text_bytes[id] = 0
        ends = [self.special[name] for name in ENDS if name in self.special][:1]
        self.begin = [self.special[name] for name in BEGINS if name in self.special][:1]
        self.first = self.begin or self.first
        self.stop = [*ends, self.special['<|im_end|>']]
        if ends:
            self.special['<|endoftext|>'] = ends[0]

    def encode(self, text):
        return self.theirs.encode(to_utf8(text).decode(), add_special_tokens=False).ids

    def encode_batch(self, texts):
        texts = [to_utf8(text).decode() for text in texts]
        encoded = self.theirs.encode_batch(texts, add_special_tokens=False)
        return [one.ids for one in encoded]

    def decode_bytes(self, ids):
        """Return the bytes of ids. A model may have more rows than tokens; those ids have none."""
        return b''.join(self.all_bytes[id] for id in ids if id < len(self.all_bytes))

    def to_json(self):
        return json.loads(self.theirs.to_str())


def import_tokenizers():
    try:
        import tokenizers
    except ImportError:
        raise Mistake("Hugging Face's tokenizers need: pip install tokenizers") from None
    return tokenizers


# --- ours as theirs -------------------------------------------------------------------------------
def write(folder, tokenizer, block_size):
    """Write the three files that AutoTokenizer of transformers reads. They give the same ids,
    documents that begin with <|endoftext|>, the chat template, and the ids at which generate()
    stops."""
    form = tokenizer.to_json()
    if tokenizer.kind != 'hf':                  # else it is theirs already
        form = to_their_form(form, tokenizer.special)
    settings = {'tokenizer_class': 'PreTrainedTokenizerFast', 'clean_up_tokenization_spaces': False,
                'model_max_length': block_size}
    generation = {}
    if '<|im_end|>' in tokenizer.special:
        settings['chat_template'] = CHAT_TEMPLATE.replace(f'{BODY}\n', MARKED)
    if tokenizer.begin and tokenizer.stop:
        names = {id: name for name, id in reversed(tokenizer.special.items())}  # the alias is last
        pad = tokenizer.special.get('<|pad|>', tokenizer.stop[0])
        settings |= {'bos_token': names[tokenizer.begin[0]],
                     'eos_token': names[tokenizer.stop[0]], 'pad_token': names[pad]}
        generation = {'bos_token_id': tokenizer.begin[0], 'eos_token_id': tokenizer.stop,
                      'pad_token_id': pad,
                      'suppress_tokens': tokenizer.never_in_answers() or None}

    files = {'tokenizer': form, 'tokenizer_config': settings, 'generation_config': generation}
    for name, content in files.items():
        with open(f'{folder}/{name}.json', 'w', encoding='utf-8', newline='\n') as f:
            json.dump(content, f, ensure_ascii=False, indent=1)


def pairs_of_tokens(vocab):
    """Return the merges of a vocabulary: any two tokens that make a token, as in tiktoken."""
    known = {*vocab}
    return [(token[:i], token[i:]) for token in vocab for i in range(1, len(token))
            if token[:i] in known and token[i:] in known]


def to_their_form(ours, special):
    """Return our tokenizer's JSON in their form."""
    if ours['kind'] != 'bpe':
        raise Mistake(f'a {ours["kind"]} tokenizer has no form at Hugging Face; export a model of '
                      'bytes or BPE')
    tokenizers = import_tokenizers()
    ids = {token: i for i, token in enumerate(ours['vocab'])}
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(ids, pairs_of_tokens(ids)))
    parts = tokenizers.pre_tokenizers
    theirs.pre_tokenizer = parts.Sequence([
        parts.Split(tokenizers.Regex(ours['pattern']), 'isolated'),
        parts.ByteLevel(add_prefix_space=False, use_regex=False)])
    theirs.decoder = tokenizers.decoders.ByteLevel()
    theirs.add_special_tokens([tokenizers.AddedToken(name, normalized=False) for name in special])
    begin = '<|endoftext|>'
    if begin in special:
        theirs.post_processor = tokenizers.processors.TemplateProcessing(
            single=f'{begin} $A', pair=f'{begin} $A $B', special_tokens=[(begin, special[begin])])
    return json.loads(theirs.to_str())
