"""
Sampling: a checkpoint continues text.

    python sample.py --ckpt=out/quickstart --prompt=$'def f(x):\\n    ' --num_samples=4 --stop_at=function
    python sample.py --ckpt=out/quickstart --prompt_file=half_written.py            # complete a file
    python sample.py --ckpt=out/shakespeare_cpu --prompt='ROMEO:' --sweep=0,0.5,1   # side by side
    python sample.py --ckpt=out/quickstart --prompts=prompts.txt    # one prompt a line, or .jsonl
    python sample.py --ckpt=out/fim --prompt='def half(x):' --suffix='return y' # fim=0.5: fill in the middle
    python sample.py --ckpt=out/mlm --prompt='for i in <|mask|>(10):'       # objective=mlm: one token a gap
    python sample.py --ckpt=out/span --prompt='def area(<|mask|>): return a * b'    # span: gaps of any length

    python sample.py --ckpt=out/sft --chat=True     # talk; Ctrl-C ends an answer, an empty line the chat
    python sample.py --ckpt=out/sft --chat=True --prompt='Write mean(x).'       # one question
    python sample.py --ckpt=out/sft --serve=8000            # OpenAI's API, and a page at http://127.0.0.1:8000

Reads the folder of a run of train.py, sft.py, dpo.py or rl.py, or of a Hugging Face model. Prints the prompt,
then its continuation as it comes; on stderr, the milliseconds per token and the size of the checkpoint.

A prompt may end anywhere. In the bpe tokenizer `):`, a newline and the indent are one token, so the model has
hardly ever seen a bare `):`. Token healing helps: the prompt's last token is dropped, and the first new token
must begin with the same bytes.

Generation ends at <|endoftext|>, at <|im_end|>, at stop_at, or after max_new_tokens. Past the model's context
it continues from the last block_size tokens, more slowly.
"""
import contextlib, os, sys, time
import torch
from configurator import configure, show
from model import GPT, load_checkpoint, sample
from parts.train import checkpoint, devices, start
from parts.sample import asking, console, gguf_file, model_card, quantize, speculate
from tokenizer import Tokenizer

# --- settings -----------------------------------------------------------------------------------------------
ckpt = 'out/quickstart'     # a folder with best.pt or last.pt, or a .pt file, and tokenizer.json beside it
prompt = ''                 # '' = the start of a document
suffix = ''                 # the text behind the gap; the model must have been trained with --fim
prompt_file: str | None = None      # take the prompt from a file, exactly as it is
prompts: str | None = None  # a file of prompts to compare
sweep = ''                  # temperatures to compare, such as 0,0.5,1.0
num_samples = 1             # [1, 10000]: continuations, in one batch
max_new_tokens = 200        # >= 1: tokens of each
temperature = 0.8           # >= 0: 0 = always the most probable token; higher is more varied
top_k = 50                  # >= 0: sample from the k most probable tokens; 0 = off
top_p = 1.0                 # (0, 1]: ... and from the fewest of them that reach probability p; 1 = off
stop_at = ''                # function = where an indented body ends; other text = before it first occurs
chat = False                # True: the prompt is a message to an assistant; without a prompt, type messages
system: str | None = None   # instruction that the assistant reads before a chat
export: str | None = None   # hf | gguf | gguf-f16 | gguf-q8_0: write the model for other programs instead
random_init = False         # True: the same architecture with untrained weights, for comparison
serve: int | None = None    # [0, 65535]: answer HTTP requests on this port; 0 = a free one
host = '127.0.0.1'          # ... at this address; all but 127.0.0.1 and localhost need a key
compare = ''                # ... with this second checkpoint beside ckpt
device = 'auto'             # auto, cpu, cuda, cuda:1, mps
dtype = 'float32'           # float32 | bfloat16 | float16 | int8: of the weights; see parts/sample/quantize.py
seed: int | None = 1337     # [0, 2**32): None = different every time
config = configure(globals())

console.check(config)
sys.stdout.reconfigure(errors='replace')    # what a terminal cannot show becomes a ?
temperatures = console.temperatures(sweep) if sweep else [temperature]
asked = console.read_prompts(prompts) if prompts is not None else []
device = devices.choose(device, 'float32')[0]

# --- model and prompt ---------------------------------------------------------------------------------------
torch.manual_seed(torch.seed() if seed is None else seed)
load = lambda path: load_checkpoint(path, device)
model, tokenizer, state = start.open_to_sample(ckpt, load, Tokenizer.load, export or serve is not None)
if random_init:
    model = GPT(model.config).to(device)
if export:
    write = model_card.write if export == 'hf' else gguf_file.write
    print(write(start.folder_of(ckpt), model, tokenizer, export, state))
    sys.exit()
model = quantize.convert(model, dtype)
if prompt_file is not None:
    prompt = console.file_text(prompt_file)
objective = state.get('config', {}).get('objective', 'clm')
if suffix and not state.get('config', {}).get('fim'):
    raise ValueError(f'{ckpt} was not trained with --fim=0.5: it cannot see what follows; leave --suffix out')
if (suffix or objective != 'clm') and (sweep or asked):
    raise ValueError('--sweep and --prompts continue texts; to fill gaps, give one --prompt')
if objective != 'clm':
    ids, marks = asking.with_marks(prompt, tokenizer, objective, model.config.block_size)

# --- serve --------------------------------------------------------------------------------------------------
if serve is not None:
    from parts.sample import batching, http_server, openai_api
    loaded = {ckpt: (model, tokenizer, state)}
    if compare:
        second, *beside = start.open_to_sample(compare, load, Tokenizer.load, continues=True)
        loaded[compare] = quantize.convert(second, dtype), *beside
    models = {name: batching.Batch(*found[:2]) for name, found in loaded.items()}
    fills = [name for name, (_, _, state) in loaded.items() if state.get('config', {}).get('fim')]
    http_server.run((host, serve), openai_api.Completions(models, asking.encode, asking.between, fills))
    sys.exit()

# --- fill gaps, if that is what the model was trained for ---------------------------------------------------
show(config)
if objective == 'mlm':
    filled, candidates = asking.fill_tokens(model.eval(), ids, marks[0])
    for best in candidates:
        print('   '.join(f'{tokenizer.decode([id])!r} {p:.2f}' for id, p in best))
    print(tokenizer.decode(filled))
    sys.exit()
if objective == 'span':
    pick = lambda logits: sample(logits, temperature, top_k, top_p)
    print(asking.fill_spans(model.eval(), tokenizer, ids, marks, max_new_tokens, pick))
    sys.exit()


# --- several prompts, several temperatures: side by side ----------------------------------------------------
model = speculate.Lookup(model, dtype)      # one answer at temperature 0 is written sooner, the same one
ends = asking.end_pattern(stop_at)
draw = {'temperature': temperature, 'top_k': top_k, 'top_p': top_p}
messages = [{'role': 'system', 'content': system}] if system else []
if asked or sweep:
    asked = asked or [prompt if prompt or tokenizer.begin else '\n']
    given = [[*messages, {'role': 'user', 'content': text}] for text in asked] if chat else asked
    columns = []                                            # [temperature][prompt][sample]: (text, ended)
    for t in temperatures:
        torch.manual_seed(torch.initial_seed())             # the same random numbers for each
        found, n_cut = asking.generate(model, tokenizer, given, num_samples, max_new_tokens, ends=ends,
                                       **draw | {'temperature': t})
        if chat and n_cut:
            raise ValueError(f'{n_cut} messages are longer than the context of {ckpt}; shorten them')
        columns.append(found)
    console.show_sweep(asked, temperatures, columns)
    sys.exit()

# --- chat ---------------------------------------------------------------------------------------------------
if chat:
    begin = len(messages)               # the system message is never forgotten
    question = prompt or console.question()
    while question:
        messages.append({'role': 'user', 'content': question})
        start = asking.encode(tokenizer, messages)
        while len(start.ids) > model.config.block_size * 3 // 4 and len(messages) > begin + 1:
            del messages[begin:begin + 2]                   # forget the oldest question and its answer
            start = asking.encode(tokenizer, messages)
        if len(start.ids) >= model.config.block_size:
            raise ValueError(f'the message has {len(start.ids)} tokens, the context of {ckpt} is '
                             f'{model.config.block_size}; shorten it')
        shown = 0
        answer = asking.Answer(start, model.config.block_size, max_new_tokens)
        with contextlib.suppress(KeyboardInterrupt):        # Ctrl-C ends this answer, not the chat
            for _ in asking.write(model, tokenizer, [answer], **draw):
                print(answer.text[shown:], end='', flush=True)
                shown = len(answer.text)
        print()
        messages.append({'role': 'assistant', 'content': answer.text})
        question = '' if prompt else console.question()
    sys.exit()

# --- generate -----------------------------------------------------------------------------------------------
start = asking.encode(tokenizer, prompt if prompt or tokenizer.begin else '\n')
if suffix:
    start, max_new_tokens = asking.between(tokenizer, prompt, suffix, model.config.block_size, max_new_tokens)
answers = [asking.Answer(start, model.config.block_size, max_new_tokens) for _ in range(num_samples)]
shown = steps = 0
held_back = len(stop_at) - 1 if stop_at not in ('', 'function') else 0      # the end may be part of stop_at
print('-' * 80)
if num_samples == 1:
    print(prompt, end='', flush=True)
began = time.perf_counter()
for unfinished in asking.write(model, tokenizer, answers, ends, **draw):
    steps += 1
    if num_samples == 1:
        text = answers[0].text
        ready = max(shown, len(text) - (held_back if unfinished else 0))
        print(text[shown:ready], end='', flush=True)
        shown = ready
print(suffix if num_samples == 1 else f'\n{"-" * 80}\n'.join(prompt + a.text + suffix for a in answers))
print('-' * 80)
path = checkpoint.find(ckpt)        # a file, or a folder of Hugging Face's
size = os.path.getsize(path) if os.path.isfile(path) else sum(p.nbytes for p in model.parameters())
ms = 1000 * (time.perf_counter() - began) / max(1, steps)
print(f'{steps} tokens, {ms:.1f} ms each, {dtype} on {device}; {size / 1e6:.1f} MB on disk', file=sys.stderr)
