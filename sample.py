"""
Sampling: a checkpoint continues text.

    python sample.py --ckpt=out/quickstart --prompt=$'def f(x):\\n    ' --num_samples=4 --stop_at=function
    python sample.py --ckpt=out/quickstart --prompt_file=half_written.py            # complete a file
    python sample.py --ckpt=out/shakespeare_cpu --prompt='ROMEO:' --temperature=0.5
    python sample.py --ckpt=out/shakespeare_cpu --prompt='ROMEO:' --random_init=True    # before it learned
    python sample.py --ckpt=out/mlm --prompt='for i in <|mask|>(10):'       # objective=mlm: a token each
    python sample.py --ckpt=out/span --prompt='def area(<|mask|>): return a * b'    # span: of any length

    python sample.py --ckpt=out/sft --chat=True             # talk with it; an empty line or Ctrl-D ends
    python sample.py --ckpt=out/sft --chat=True --prompt='Write mean(x).'       # one question

Reads a folder that train.py, sft.py or dpo.py wrote. Writes text: the prompt as it was given, then the
continuation, token by token when there is one sample.

A prompt may end anywhere. With the bpe tokenizer `):`, a newline and the indent are one token, so after a
bare `):` the model would be where it has hardly ever been. So the prompt's last token is taken back, and the
first new one must begin with its bytes (token healing).

Generation ends at <|endoftext|>, at <|im_end|>, at stop_at, or after max_new_tokens. Past the model's context
it goes on with the last block_size tokens, more slowly.
"""
import codecs, os, re, sys, time
import torch
from configurator import configure
from model import GPT, load_checkpoint, sample
from tokenizer import Tokenizer

# --- settings -----------------------------------------------------------------------------------------------
ckpt = 'out/quickstart'     # a folder with best.pt or last.pt, or a .pt file, and tokenizer.json beside it
prompt = ''                 # '' = the start of a document
prompt_file: str | None = None      # take the prompt from a file, exactly as it is
num_samples = 1
max_new_tokens = 200
temperature = 0.8           # 0 = always the most probable token; higher is more varied
top_k = 50                  # sample from the k most probable tokens; 0 = off
top_p = 1.0                 # ... and from the fewest of them that reach probability p; 1 = off
stop_at = ''                # function = where an indented body ends; other text = before it first occurs
chat = False                # the prompt is a message to an assistant; without prompt, ask in a dialogue
system: str | None = None   # of a chat: what the assistant is told before it begins
random_init = False         # True: the same architecture with untrained weights, for comparison
device = 'auto'             # auto, cpu, cuda, mps
seed: int | None = 1337     # None = different every time
config = configure(globals())

if max_new_tokens < 1 or num_samples < 1:
    raise ValueError(f'max_new_tokens={max_new_tokens} and num_samples={num_samples} must be at least 1')
if num_samples > 10_000:
    raise ValueError(f'num_samples={num_samples} are too many for one batch; at most 10,000')
if not (temperature >= 0 and top_k >= 0 and 0 < top_p <= 1):
    raise ValueError(f'temperature={temperature} and top_k={top_k} must not be negative, and top_p={top_p} '
                     'must be in (0, 1]; 1 = off')
if chat and (stop_at or num_samples > 1):
    raise ValueError(f'a chat has one answer, which ends itself: --chat=True goes without '
                     f'stop_at={stop_at!r} and num_samples={num_samples}')
if system and not chat:
    raise ValueError('--system is told to an assistant before a chat: it needs --chat=True')
if device == 'auto':
    device = 'cuda' if torch.cuda.is_available() else 'mps' if torch.backends.mps.is_available() else 'cpu'
if device.split(':')[0] not in ('cpu', 'cuda', 'mps'):
    raise ValueError(f'device={device} must be auto, cpu, cuda or mps')
torch.manual_seed(torch.seed() if seed is None else seed)

# --- model and prompt ---------------------------------------------------------------------------------------
model, checkpoint = load_checkpoint(ckpt, device)
if 'reward_head' in checkpoint:
    raise ValueError(f'{ckpt} is a reward model: it scores answers and writes none')
folder = ckpt if os.path.isdir(ckpt) else os.path.dirname(ckpt)
tokenizer = Tokenizer.load(os.path.join(folder, 'tokenizer.json'))
if checkpoint.get('tokenizer_hash', tokenizer.hash) != tokenizer.hash:
    raise ValueError(f'{ckpt} was trained with tokenizer {checkpoint["tokenizer_hash"]}, its tokenizer.json '
                     f'is {tokenizer.hash}')
model = model.grown(tokenizer.vocab_size)       # one of Hugging Face may be without tokens for chat
if random_init:
    model = GPT(model.config).to(device)
if prompt_file is not None:
    if prompt:
        raise ValueError('give --prompt or --prompt_file, not both')
    try:
        with open(prompt_file, encoding='utf-8', newline='') as f:
            prompt = f.read()
    except UnicodeDecodeError as e:
        raise ValueError(f'{prompt_file} is not UTF-8 text: {e}') from e
objective = checkpoint.get('config', {}).get('objective', 'clm')
if objective != 'clm' and '<|mask|>' not in prompt:
    raise ValueError(f'{ckpt} was trained with objective={objective}: it fills gaps; mark each in the '
                     "prompt by <|mask|>, for instance --prompt='for i in <|mask|>(10):'")
ids = tokenizer.encode(prompt)
if len(ids) < model.config.block_size:
    ids = [*tokenizer.begin, *ids]              # training put one before every document
if not ids:
    ids = tokenizer.encode('\n')


def end_of(text):
    """Where stop_at ends this continuation, or None if it goes on."""
    if stop_at == 'function':               # the first line that begins in column 0, closing brackets aside
        found = re.search(r'\n(?=[^\s#)\]}])', text)
        return found.start() + 1 if found else None
    at = text.find(stop_at) if stop_at else -1
    return at if at >= 0 else None


# --- fill gaps, if that is what the model was trained for ---------------------------------------------------
if objective != 'clm':
    texts = [tokenizer.encode(text) for text in prompt.split('<|mask|>')]
    if objective == 'span' and f'<|span_{len(texts) - 1}|>' not in tokenizer.special:
        raise ValueError(f'the prompt has {len(texts) - 1} gaps, more than this tokenizer has marks for')
    marks = [tokenizer.special['<|mask|>' if objective == 'mlm' else f'<|span_{i}|>']
             for i in range(len(texts))]
    ids = [id for text, mark in zip(texts, marks) for id in (*text, mark)][:-1]
    if len(ids) >= model.config.block_size:
        raise ValueError(f'the prompt has {len(ids)} tokens, too many for the context of '
                         f'{model.config.block_size} tokens; shorten it')
    model.eval()
    torch.set_grad_enabled(False)
if objective == 'mlm':          # each gap is one token, named by what stands on both its sides
    logits = model(torch.tensor([ids], device=device))[0][0]                            # (T, V)
    for at in [i for i, id in enumerate(ids) if id == marks[0]]:
        p, best = logits[at].softmax(-1).topk(5)
        print('   '.join(f'{tokenizer.decode([id])!r} {p:.2f}' for id, p in zip(best.tolist(), p)))
        ids[at] = best[0].item()
    print(tokenizer.decode(ids))
    sys.exit()
if objective == 'span':         # the prefix sees itself whole; then come the gaps, each behind its mark
    n_prefix, ids = len(ids), [*ids, marks[0]]
    room = min(model.config.block_size, n_prefix + max_new_tokens)
    while len(ids) < room and ids[-1] != marks[-1]:
        mask = torch.ones(len(ids), len(ids), dtype=torch.bool, device=device).tril()
        mask[:n_prefix, :n_prefix] = True
        logits = model(torch.tensor([ids], device=device), mask=mask[None, None])[0][:, -1]         # (1, V)
        ids.append(sample(logits, temperature, top_k, top_p).item())
    filled, answer = tokenizer.decode(ids[:n_prefix]), tokenizer.decode(ids[n_prefix:])
    for mark, text in re.findall(r'(<\|span_\d+\|>)((?:(?!<\|span_).)*)', answer, re.DOTALL):
        filled = filled.replace(mark, text)
    print(filled)
    sys.exit()

# --- chat ---------------------------------------------------------------------------------------------------
def ask():
    """The next message of the user, '' at the end of the dialogue."""
    try:
        return input('you> ').strip()
    except (EOFError, KeyboardInterrupt):
        print()
        return ''


if chat:
    messages = [{'role': 'system', 'content': system}] if system else []
    begin, question = len(messages), prompt or ask()
    while question:
        messages.append({'role': 'user', 'content': question})
        ids = tokenizer.render(messages, add_generation_prompt=True)[0]
        while len(ids) > model.config.block_size * 3 // 4 and len(messages) > begin + 1:
            del messages[begin:begin + 2]                   # forget the oldest question and its answer
            ids = tokenizer.render(messages, add_generation_prompt=True)[0]
        if len(ids) >= model.config.block_size:
            raise ValueError(f'the message has {len(ids)} tokens, the context of {ckpt} is '
                             f'{model.config.block_size}; shorten it')
        answer, decoder = '', codecs.getincrementaldecoder('utf-8')('replace')
        for tokens in model.stream(torch.tensor([ids], device=device), max_new_tokens, temperature, top_k,
                                   top_p, tokenizer.stop):
            if tokens.item() in tokenizer.stop:
                break
            text = decoder.decode(tokenizer.decode_bytes(tokens.tolist()))
            print(text, end='', flush=True)
            answer += text
        text = decoder.decode(b'', final=True)              # bytes that never became a character
        print(text)
        messages.append({'role': 'assistant', 'content': answer + text})
        question = '' if prompt else ask()
    sys.exit()

# --- generate -----------------------------------------------------------------------------------------------
# Each row is decoded as its bytes arrive: an incremental decoder holds back the first bytes of a character,
# and the screen holds back what might turn out to be the beginning of stop_at.
decoders = [codecs.getincrementaldecoder('utf-8')('replace') for _ in range(num_samples)]
texts, unfinished = [''] * num_samples, set(range(num_samples))
shown, held_back = 0, len(stop_at) - 1 if stop_at not in ('', 'function') else 0
print('-' * 80)
if num_samples == 1:
    print(prompt, end='', flush=True)
start_time, n_tokens = time.time(), 0
first, again = None, 0                      # again: bytes of the prompt that the first new token repeats
if len(ids) > 1:
    whole, (ids, allowed) = ids, tokenizer.heal(ids)
    if allowed is not None:
        first = torch.zeros(model.config.vocab_size, dtype=torch.bool, device=device)       # (V,)
        first[allowed] = True
        again = len(tokenizer.decode_bytes(whole[-1:]))
        max_new_tokens += 1
prompts = torch.tensor([ids] * num_samples, device=device)              # (B, T)
for tokens in model.stream(prompts, max_new_tokens, temperature, top_k, top_p, tokenizer.stop, first):
    for row, token in enumerate(tokens.tolist()):
        if row not in unfinished:
            continue
        n_tokens += 1
        if token not in tokenizer.stop:
            texts[row] += decoders[row].decode(tokenizer.decode_bytes([token])[again:])
        end = end_of(texts[row])
        if end is not None or token in tokenizer.stop:
            texts[row] = texts[row][:end]
            unfinished.discard(row)
    again = 0
    if num_samples == 1:
        ready = max(shown, len(texts[0]) - (held_back if unfinished else 0))
        print(texts[0][shown:ready], end='', flush=True)
        shown = ready
    if not unfinished:
        break
seconds = time.time() - start_time
for row in unfinished:                      # bytes that never became a character
    texts[row] += decoders[row].decode(b'', final=True)
if num_samples == 1:
    print(texts[0][shown:])
else:
    print(f'\n{"-" * 80}\n'.join(prompt + text for text in texts))
print('-' * 80)
print(f'{n_tokens} tokens, {n_tokens / seconds:,.0f} a second', file=sys.stderr)
