r"""
Sampling: a model continues your text, or answers your messages, one token after another.

    python sample.py --ckpt=out/quickstart --prompt=$'def f(x):\n    ' --stop_at=function
    python sample.py --ckpt=out/quickstart --prompt=@half_written.py --num_samples=4
    python sample.py --ckpt=out/sft --chat=True     # talk; paste what you like; Enter alone ends it

It reads a folder that a trainer wrote, a .pt file in one, or a folder of Hugging Face. You should
see the text appear token by token. An answer takes four steps:

    ids         The prompt becomes tokens. If it ends inside a token, the first new token completes
                it (Answer in tokenizer.py). A chat becomes a single text (Tokenizer.render):
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
import contextlib, os, pathlib, random, re, select, shlex, sys
from typing import Literal
import torch
from configurator import UserError, configure, require
from common import load_model, init_device
from model import GPT, sample
from tokenizer import Answer

with contextlib.suppress(ImportError):      # Windows has none
    import readline     # noqa: F401        so a line that is typed or pasted may be long

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


def shorten(tokenizer, messages, block_size):
    """Return messages that leave a quarter of the context for the answer: the oldest questions go,
    with their answers. A system message, which comes first, and the last message stay."""
    length = lambda: len(tokenizer.render(messages, add_generation_prompt=True)[0])
    begin = 1 if messages[0]['role'] == 'system' else 0
    messages = [*messages]
    while length() > block_size * 3 // 4 and len(messages) > begin + 1:
        del messages[begin:begin + 2]
    require(length() < block_size,
            f'the message does not fit into the context of {block_size} tokens; shorten it')
    return messages


def ask():
    """Return what is typed at a question. The lines of a pasted text, also the empty ones, wait in
    the terminal already, and are one message. Before an empty line ends the chat, we wait longer:
    the rest of a slow paste would be commands to the shell."""
    lines = [input('you> ')]
    while os.name == 'posix' and sys.stdin.isatty() and select.select(
            [sys.stdin], [], [], 0.2 if lines[-1] else 1.0)[0]:         # seconds
        lines.append(input())
    while not lines[-1] and not sys.stdin.isatty():     # a file or a pipe ends at its end
        lines.append(input())
    return '\n'.join(lines).strip()


configure(globals(), BOUNDS)                    # config files and flags replace the settings
require(chat or not system, '--system needs --chat=True')
if prompt.startswith('@'):
    try:            # exactly as it is, to the last newline
        prompt = pathlib.Path(prompt[1:]).expanduser().read_bytes().decode('utf-8-sig')
    except (OSError, ValueError):
        raise UserError(f'--prompt={prompt} must name a file of UTF-8 text; put a text that begins '
                        'with @ into one') from None

# --- the model ------------------------------------------------------------------------------------
torch.manual_seed(seed)         # of untrained weights; answers have their own random numbers
model, tokenizer = load_model(ckpt)
trained = model.saved.get('config', {})         # the settings of the run
require(not chat or 'objective' not in trained, f'{ckpt} is a base model, which has never seen a '
        f'chat; leave --chat out, or teach it: python sft.py --init_from={shlex.quote(ckpt)}')
if chat and 'stage' not in trained:
    print(f'note: nothing says that {ckpt} knows chats; it is asked in ChatML', file=sys.stderr)
if random_init:
    model = GPT(model.config)
_, device, *_ = init_device(device, dtype)          # 'auto' becomes 'cuda:0'
model = model.to(device, getattr(torch, dtype)).eval()
# where an answer ends; function: a line begins in column 0, but not with a bracket or a comment
end = r'(?<=\n)(?=[^\s#)\]}])' if stop_at == 'function' else re.escape(stop_at)


def write(answer, seed):
    """Yield the text of each token of an answer. Its random numbers are its own, so that it is the
    same, whatever else is written. Another rule of sampling goes here."""
    dice = random.Random(seed)          # a number in [0, 1) says which token is drawn

    def draw(logits, rows, t):          # logits (1, V), because stream() gets one prompt
        # Special tokens that only prompts have, such as <|im_start|>, are never drawn.
        logits[:, tokenizer.suppressed_tokens(logits.shape[1], answer.prefix)] = -torch.inf
        return sample(logits, temperature, top_k, top_p, u=logits.new_tensor([dice.random()]))

    idx = torch.tensor([answer.ids], device=device)  # (1, T)
    for token in model.stream(idx, answer.remaining, draw, tokenizer.stop):
        yield answer.append(token.item())
        if not answer.remaining:
            return


# --- a talk, or else answers to one prompt --------------------------------------------------------
messages = [{'role': 'system', 'content': system}] if system else []
if chat and not prompt:
    with contextlib.suppress(EOFError, KeyboardInterrupt):      # Ctrl-D, or Ctrl-C at a question
        for turn, question in enumerate(iter(ask, ''), 1):
            asked = [*messages, {'role': 'user', 'content': question}]
            try:
                messages = shorten(tokenizer, asked, model.config.block_size)
            except ValueError as mistake:       # such as a message that is too long
                print(mistake)
                continue
            # A seed for each turn. If all had the same one, all would draw the same numbers.
            reply, answer = '', Answer(tokenizer, messages, max_new_tokens, end)
            with contextlib.suppress(KeyboardInterrupt):        # ends this answer only
                for piece in write(answer, f'{seed} {turn}'):
                    print(piece, end='', flush=True)
                    reply += piece
            print()
            messages.append({'role': 'assistant', 'content': reply})
else:
    asked = [*messages, {'role': 'user', 'content': prompt}] if chat else prompt
    asked = shorten(tokenizer, asked, model.config.block_size) if chat else asked
    for i in range(num_samples):
        answer = Answer(tokenizer, asked, max_new_tokens, end)
        if i == 0 and len(answer.ids) > model.config.block_size:
            print(f'note: of {len(answer.ids)} tokens the model reads the last '
                  f'{model.config.block_size}', file=sys.stderr)
        if num_samples > 1:
            print(f'--- {i + 1} of {num_samples} ---')
        print(prompt, end='\n' if chat else '', flush=True)
        for piece in write(answer, seed + i):
            print(piece, end='', flush=True)
        print()
