r"""
Sample from a model: continue a text, or chat.

    python sample.py --ckpt=out/quickstart --prompt=$'def f(x):\n    ' --stop_at=function
    python sample.py --ckpt=out/quickstart --prompt=@half_written.py --num_samples=4
    python sample.py --ckpt=out/sft --chat=True     # an empty line ends the chat

--ckpt is a run's folder, a .pt file in it, or a Hugging Face folder. You should see the text appear
token by token. Generation has four steps:

    encode      The prompt becomes token ids. Its last token may be the start of a longer one, so
                the first new token replaces it (token healing, Answer in tokenizer.py). A chat
                becomes one text:
                <|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n
    forward     The model runs on the whole prompt once, then on each new token alone, because the
                keys and values of earlier tokens are in a cache (GPT.stream in model.py).
    sample      A token is sampled from softmax(logits / temperature). Temperature 0.5 turns the
                probabilities 0.5 0.3 0.15 0.05 into 0.68 0.25 0.06 0.01, the squares divided by
                their sum. Then top_k=2 keeps the two most probable tokens. top_p=0.9 keeps the
                fewest tokens whose probabilities sum to 0.9: two here, 0.68 + 0.25, but three at
                temperature 1, 0.5 + 0.3 + 0.15. See sample() in model.py.
    stop        An answer ends at <|endoftext|>, at <|im_end|>, before the text stop_at, after
                max_new_tokens, or, in a chat, at Ctrl-C.

python -m extras.models.export exports a model as a web page, to Hugging Face or to GGUF, and
python -m extras.models.fill samples from masked language models. To compare temperatures or
prompts, run sample.py twice: the same seed gives the same random numbers.
"""
import contextlib, os, pathlib, random, re, select, shlex, sys
from typing import Literal
import torch
from configurator import UserError, configure, require
from common import load_model, init_device
from model import GPT, sample
from tokenizer import Answer

with contextlib.suppress(ImportError):      # Windows has none
    import readline     # noqa: F401        allows long input lines

# --- settings -------------------------------------------------------------------------------------
ckpt = 'out/base'           # the model: a run's folder, a .pt file in it, or a Hugging Face folder
prompt = ''                 # text to continue; @FILE = read a file; '' = start a new document
chat = False                # True: the prompt is a message; without a prompt, type messages
system = ''                 # system message of the chat
num_samples = 1             # number of answers to the prompt
max_new_tokens = 200        # maximum length of an answer, in tokens
temperature = 0.8           # 0 = greedy; higher is more varied
top_k = 50                  # sample from the k most probable tokens; 0 = off
top_p = 1.0                 # sample from the fewest tokens whose probabilities sum to p; 1 = off
stop_at = ''                # stop before this text; \n = newline; function = next unindented line
seed = 1337                 # random seed of sampling
random_init = False         # True: the same architecture with untrained weights, for comparison
device: Literal['auto', 'cpu', 'cuda', 'mps'] = 'auto'      # auto: the fastest available device
dtype: Literal['float32', 'bfloat16'] = 'float32'       # dtype of the weights
# {setting: (minimum, maximum)}; all other numeric settings must be at least 0
BOUNDS = {'max_new_tokens': (1, 1e6), 'top_p': (1e-9, 1), 'num_samples': (1, 10000),
          'seed': (0, 2 ** 32 - 1)}


def shorten(tokenizer, messages, block_size):
    """Return messages without the oldest turns, so that a quarter of the context is free for the
    next answer. The system message, which comes first, and the last message are never removed."""
    n_tokens = lambda: len(tokenizer.render(messages, add_generation_prompt=True)[0])
    begin = 1 if messages[0]['role'] == 'system' else 0
    messages = [*messages]
    while n_tokens() > block_size * 3 // 4 and len(messages) > begin + 1:
        del messages[begin:begin + 2]
    require(n_tokens() < block_size,
            f'the message is longer than the context of {block_size} tokens; shorten it')
    return messages


def read_message():
    """Read a message from the terminal. An empty one, '', ends the chat. If more lines are in the
    input buffer, the message was pasted, and may contain empty lines. After an empty line, wait
    longer for more lines, because the shell would execute the rest of a slow paste."""
    lines = [input('you> ')]
    while os.name == 'posix' and sys.stdin.isatty() and select.select(
            [sys.stdin], [], [], 0.2 if lines[-1] else 1.0)[0]:         # seconds
        lines.append(input())
    while not lines[-1] and not sys.stdin.isatty():     # from a file or pipe: skip empty lines
        lines.append(input())
    return '\n'.join(lines).strip()


configure(globals(), BOUNDS)                    # config files and flags override settings
require(chat or not system, '--system needs --chat=True')
if prompt.startswith('@'):
    try:            # not stripped, because a final newline matters
        prompt = pathlib.Path(prompt[1:]).expanduser().read_bytes().decode('utf-8-sig')
    except (OSError, ValueError):
        raise UserError(f'--prompt={prompt} must name a file of UTF-8 text; if your text itself '
                        'begins with @, save it in a file, and pass --prompt=@FILE') from None

# --- the model ------------------------------------------------------------------------------------
torch.manual_seed(seed)         # for untrained weights; generate() has its own generator
model, tokenizer = load_model(ckpt)
run_config = model.saved.get('config', {})         # the settings of the run
require(not chat or 'objective' not in run_config, f'{ckpt} is a base model, not trained on chats; '
        f'omit --chat, or fine-tune it: python sft.py --init_from={shlex.quote(ckpt)}')
if chat and 'stage' not in run_config:
    print(f'note: {ckpt} may not be a chat model; prompts use ChatML', file=sys.stderr)
if random_init:
    model = GPT(model.config)
_, device, *_ = init_device(device, dtype)          # 'auto' becomes 'cuda:0'
model = model.to(device, getattr(torch, dtype)).eval()
stop_at = stop_at.replace(r'\n', '\n')           # the shell passes the \ and n of '\n'
# function: stop before a line that begins in column 0, but not with a bracket or a comment
stop_pattern = r'(?<=\n)(?=[^\s#)\]}])' if stop_at == 'function' else re.escape(stop_at)


def generate(answer, seed):
    """Yield the text of an answer token by token. Each answer has its own random generator, so an
    answer does not depend on earlier ones. To change how tokens are sampled, edit sample_next."""
    rng = random.Random(seed)          # a uniform number in [0, 1) for each token

    def sample_next(logits, rows, t):          # logits (1, V), because stream() gets one prompt
        # Suppress special tokens that occur only in prompts, such as <|im_start|>.
        logits[:, tokenizer.suppressed_tokens(logits.shape[1], answer.prefix)] = -torch.inf
        return sample(logits, temperature, top_k, top_p, u=logits.new_tensor([rng.random()]))

    idx = torch.tensor([answer.ids], device=device)  # (1, T)
    for token in model.stream(idx, answer.remaining, sample_next, tokenizer.stop):
        yield answer.append(token.item())
        if not answer.remaining:
            return


# --- a chat, or answers to one prompt -------------------------------------------------------------
messages = [{'role': 'system', 'content': system}] if system else []
if chat and not prompt:
    with contextlib.suppress(EOFError, KeyboardInterrupt):      # Ctrl-D, or Ctrl-C at the prompt
        for turn, question in enumerate(iter(read_message, ''), 1):
            inputs = [*messages, {'role': 'user', 'content': question}]
            try:
                messages = shorten(tokenizer, inputs, model.config.block_size)
            except ValueError as error:       # for example, the message is too long
                print(error)
                continue
            # A seed for each turn, because one seed would give all turns the same random numbers.
            reply, answer = '', Answer(tokenizer, messages, max_new_tokens, stop_pattern)
            with contextlib.suppress(KeyboardInterrupt):        # ends this answer only
                for piece in generate(answer, f'{seed} {turn}'):
                    print(piece, end='', flush=True)
                    reply += piece
            print()
            messages.append({'role': 'assistant', 'content': reply})
else:
    inputs = [*messages, {'role': 'user', 'content': prompt}] if chat else prompt
    inputs = shorten(tokenizer, inputs, model.config.block_size) if chat else inputs
    for i in range(num_samples):
        answer = Answer(tokenizer, inputs, max_new_tokens, stop_pattern)
        if i == 0 and len(answer.ids) > model.config.block_size:
            print(f'note: the prompt has {len(answer.ids)} tokens; the model reads only the last '
                  f'{model.config.block_size}', file=sys.stderr)
        if num_samples > 1:
            print(f'--- {i + 1} of {num_samples} ---')
        print(prompt, end='\n' if chat else '', flush=True)
        for piece in generate(answer, seed + i):
            print(piece, end='', flush=True)
        print()
