r"""
Sampling: a model continues your text, or answers your messages, one token after another.

    python sample.py --ckpt=out/quickstart --prompt=$'def f(x):\n    ' --stop_at=function
    python sample.py --ckpt=out/quickstart --prompt=@half_written.py --num_samples=4
    python sample.py --ckpt=out/sft --chat=True         # talk; an empty line ends the chat

It reads a folder that a trainer wrote, a .pt file in one, or a folder of Hugging Face. You should
see the text appear token by token. An answer takes four steps:

    ids         The prompt becomes tokens. If it ends inside a token, the first new token completes
                it (Tokenizer.heal). A chat becomes a single text (Tokenizer.render), such as
                <|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n
    logits      The model runs over the whole prompt once, and then over each new token alone. What
                it has computed for earlier tokens is in a cache (GPT.stream in model.py).
    a token     It is drawn from softmax(logits / temperature). Of 0.5 0.3 0.15 0.05, temperature
                0.5 makes 0.68 0.25 0.06 0.01, the squares divided by their sum. Only then top_k=2
                keeps the likeliest two, and top_p=0.9 the fewest that have 0.9 together: here two
                as well, 0.68 + 0.25. At temperature 1 it would be three, 0.5 + 0.3 + 0.15. See
                sample() in model.py.
    the end     The answer ends at <|endoftext|>, at <|im_end|>, in front of the text stop_at, after
                max_new_tokens, or, in a talk, at Ctrl-C.

A page, files for other programs, and the gaps of a text have commands of their own: python -m
extras.models.export, extras.models.fill. For two temperatures or prompts, run it twice: the same
seed draws the same random numbers.
"""
import codecs, contextlib, os, pathlib, random, re
from typing import Literal
import torch
from configurator import Mistake, configure, require
from model import GPT, sample
from tokenizer import Tokenizer

# --- settings -------------------------------------------------------------------------------------
ckpt = 'out/base'           # a run's folder, a .pt file in it, or a folder of Hugging Face
prompt = ''                 # text to continue; @FILE = a file; '' = the start of a document
chat = False                # True: the prompt is a message; without a prompt, type messages
system = ''                 # instruction that the assistant reads before the chat
num_samples = 1             # answers to the prompt
max_new_tokens = 200        # most tokens of an answer
temperature = 0.8           # 0 = always the most probable token; higher is more varied
top_k = 50                  # sample from the k most probable tokens; 0 = off
top_p = 1.0                 # sample from the fewest that reach probability p; 1 = off
stop_at = ''                # text to stop in front of; function = where an indented body ends
seed = 1337                 # seed of the answers
random_init = False         # True: the same architecture with untrained weights, for comparison
device: Literal['auto', 'cpu', 'cuda', 'mps'] = 'auto'      # auto: the fastest one that is here
dtype: Literal['float32', 'bfloat16'] = 'float32'       # type of the weights
# The least and the most of some numbers; all others are at least 0.
BOUNDS = {'max_new_tokens': (1, 1e6), 'top_p': (1e-9, 1), 'num_samples': (1, 10000),
          'seed': (0, 2 ** 32 - 1)}


# --- from a prompt to ids, and from ids to text ---------------------------------------------------
def encode(tokenizer, prompt):
    """Return ids, allowed, n_again: what a model reads of a text or of messages; which ids may come
    first, or None if any may; and how many bytes of the prompt the first new token writes again.
    `f():` is read as `f(`, and 2 bytes are written again (Tokenizer.heal). Messages end in a token
    of their own and need none of this."""
    if isinstance(prompt, list):
        ids, _ = tokenizer.render(prompt, add_generation_prompt=True)   # _: the loss mask
        return ids, None, 0
    # begin: [<|endoftext|>], as in training, or []; then an empty prompt becomes `first`, a newline
    whole = (tokenizer.begin + tokenizer.encode(prompt)) or tokenizer.first
    ids, allowed = tokenizer.heal(whole) if len(whole) > 1 else (whole, None)
    return ids, allowed, len(tokenizer.decode_bytes(whole[len(ids):]))


def shorten(tokenizer, messages, block_size):
    """Return messages that leave a quarter of the context for the answer: the oldest questions go,
    with their answers. A system message, which comes first, and the last message stay."""
    begin = 1 if messages[0]['role'] == 'system' else 0
    messages = [*messages]
    while len(encode(tokenizer, messages)[0]) > block_size * 3 // 4 and len(messages) > begin + 1:
        del messages[begin:begin + 2]
    require(len(encode(tokenizer, messages)[0]) < block_size,
            f'the message does not fit into the context of {block_size} tokens; shorten it')
    return messages


def write(model, tokenizer, prompt, max_new_tokens, draw):
    """Yield the text of each token of an answer. Half a character waits for its other half: 'é' of
    two tokens is yielded as '', 'é'. prompt: a text or messages; when the context is full, the
    oldest tokens leave it. draw(logits (1, V)) -> the next token (1,)."""
    ids, allowed, n_again = encode(tokenizer, prompt)
    n = max_new_tokens + (n_again > 0)          # the first one replaces the prompt's last

    def choose(logits, rows, t):    # rows: one, because stream() gets one prompt
        # Special tokens that only prompts have, such as <|im_start|>, are never drawn.
        logits[:, tokenizer.never_in_answers(logits.shape[1])] = -torch.inf
        if t == 0 and allowed:
            first = logits[:, allowed]          # a copy
            logits[:] = -torch.inf
            logits[:, allowed] = first
        return draw(logits)

    decode = codecs.getincrementaldecoder('utf-8')('replace').decode
    idx = torch.tensor([ids], device=model.embedding.weight.device)  # (1, T)
    for t, token in enumerate(model.stream(idx, n, choose, tokenizer.stop)):
        is_end = token.item() in tokenizer.stop
        data = b'' if is_end else tokenizer.decode_bytes(token.tolist())
        yield decode(data[n_again if t == 0 else 0:], final=is_end or t + 1 == n)


def until(stop_at, pieces, text):
    """Yield the pieces of an answer up to the text stop_at. What may be its beginning waits. text:
    the prompt's last character, where a line may begin. With stop_at=END, two characters wait:
        piece      'a'     ' E'    'AT'    'END'
        text       a       a E     a EAT   a EATEND
        yielded    ''      'a'     ' E'    'AT', and END ends it"""
    end, n_waiting = re.escape(stop_at), len(stop_at) - 1
    if stop_at == 'function':   # a line begins in column 0, but not with a bracket or a comment
        end, n_waiting = r'(?<=\n)(?=[^\s#)\]}])', 0
    n_shown = len(text)
    for piece in pieces:
        text += piece
        found = re.compile(end).search(text, n_shown)
        certain = found.start() if found else max(n_shown, len(text) - n_waiting)
        yield text[n_shown:certain]
        n_shown = certain
        if found:
            return
    yield text[n_shown:]


configure(globals(), BOUNDS)                    # config files and flags replace the settings
require(chat or not system, '--system needs --chat=True')
if prompt.startswith('@'):
    try:                                        # exactly as it is, to the last newline
        prompt = pathlib.Path(prompt[1:]).read_bytes().decode('utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f'--prompt={prompt} must name a file of UTF-8 text; put a text that begins '
                      f'with @ into a file: {error}') from None

# --- the model ------------------------------------------------------------------------------------
here = ['cpu'] + ['mps'] * torch.backends.mps.is_available() + ['cuda'] * torch.cuda.is_available()
device = here[-1] if device == 'auto' else device
require(device in here, f'{device=} is not here; try --device=auto')
require(os.path.exists(ckpt), f'{ckpt} does not exist; give the folder of a run or a file in it; '
        'for a first one, run: python clean.py && python prepare.py && python train.py')
folder = ckpt if os.path.isdir(ckpt) else os.path.dirname(ckpt)
torch.manual_seed(seed)         # of untrained weights; answers have their own random numbers
model, tokenizer = GPT.load(ckpt), Tokenizer.load(os.path.join(folder, 'tokenizer.json'))
require(model.saved.get('tokenizer_hash', tokenizer.hash) == tokenizer.hash,
        f"{folder}/tokenizer.json is not the tokenizer of {ckpt}; copy the run's own file back")
require(model.saved.get('config', {}).get('objective', 'clm') == 'clm'
        and 'reward_head' not in model.saved, f'{ckpt} continues no text: it fills gaps (python -m '
        'extras.models.fill) or scores answers')
if random_init:
    model = GPT(model.config)
model = model.to(device, getattr(torch, dtype)).eval()
if device == 'cuda':
    torch.set_float32_matmul_precision('high')          # TF32 for products that stay float32
    torch.backends.cuda.enable_cudnn_sdp(False)         # it plans anew for each length of a prompt


def answer(asked, seed):
    """Yield the pieces of an answer. Its random numbers are its own, so that it is the same,
    whatever else is written. Another rule of sampling goes here."""
    dice = random.Random(seed)          # a number in [0, 1) says which token is drawn
    draw = lambda logits: sample(logits, temperature, top_k, top_p,
                                 u=logits.new_tensor([dice.random()]))
    pieces = write(model, tokenizer, asked, max_new_tokens, draw)
    return until(stop_at, pieces, '' if chat else prompt[-1:]) if stop_at else pieces


# --- a talk, or else answers to one prompt --------------------------------------------------------
messages = [{'role': 'system', 'content': system}] if system else []
if chat and not prompt:
    turn = 0
    with contextlib.suppress(EOFError, KeyboardInterrupt):      # Ctrl-D, or Ctrl-C at a question
        while question := input('you> ').strip():
            asked = [*messages, {'role': 'user', 'content': question}]
            try:
                messages = shorten(tokenizer, asked, model.config.block_size)
            except ValueError as mistake:       # such as a message that is too long
                print(mistake)
                continue
            # A seed for each turn. If all had the same one, all would draw the same numbers.
            turn += 1
            reply = ''
            with contextlib.suppress(KeyboardInterrupt):        # ends this answer only
                for piece in answer(messages, f'{seed} {turn}'):
                    print(piece, end='', flush=True)
                    reply += piece
            print()
            messages.append({'role': 'assistant', 'content': reply})
else:
    asked = [*messages, {'role': 'user', 'content': prompt}] if chat else prompt
    asked = shorten(tokenizer, asked, model.config.block_size) if chat else asked
    for i in range(num_samples):
        if num_samples > 1:
            print(f'--- {i + 1} of {num_samples} ---')
        print(prompt, end='\n' if chat else '', flush=True)
        for piece in answer(asked, seed + i):
            print(piece, end='', flush=True)
        print()
