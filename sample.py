"""
Sampling: a checkpoint continues text.

    python sample.py --ckpt=out/quickstart --prompt=$'def f(x):\\n    ' --num_samples=4 --stop_at=function
    python sample.py --ckpt=out/quickstart --prompt_file=half_written.py            # complete a file
    python sample.py --ckpt=out/quickstart --prompts=prompts.txt --sweep=0,0.5,1    # compare temperatures
    python sample.py --ckpt=out/mlm --prompt='for i in <|mask|>(10):'       # objective=mlm: one token a gap
    python sample.py --ckpt=out/span --prompt='def area(<|mask|>): return a * b'    # span: gaps of any length
    python sample.py --ckpt=out/sft --chat=True     # talk; Ctrl-C ends an answer, an empty line the chat
    python sample.py --ckpt=out/base,out/sft --serve=8000   # a page, OpenAI's API

Reads the folder of a run, or of a Hugging Face model. Prints the prompt and its continuation, a single
one token by token, then its speed and the size of its weights on stderr. It ends at <|endoftext|>, at
<|im_end|>, at stop_at, or after max_new_tokens.

Where a prompt ends inside a token, the first new token completes it.
"""
import contextlib, random, sys, time
import torch
from configurator import configure, defaults, show
from model import GPT, sample
from parts.model import checkpoints, gguf_file, hf_model
from parts.train import processes
from parts.sample import asking, gaps

# --- settings -----------------------------------------------------------------------------------------------
ckpt = 'out/base'           # a run's folder or a .pt file in it; for --serve several: A,B
prompt = ''                 # '' = the start of a document
prompt_file: str | None = None      # take the prompt from a file, exactly as it is
prompts: str | None = None  # a file of prompts, one a line: continue each
sweep = ()                  # 0,0.5,1.0: ... at each of these temperatures
num_samples = 1             # [1, 10000]: continuations, in one batch
max_new_tokens = 200        # >= 1: tokens of each
temperature = 0.8           # >= 0: 0 = always the most probable token; higher is more varied
top_k = 50                  # >= 0: sample from the k most probable tokens; 0 = off
top_p = 1.0                 # (0, 1]: ... and from the fewest of them that reach probability p; 1 = off
stop_at = ''                # end before this text; function = where an indented body ends
chat = False                # True: the prompt is a message to an assistant; without a prompt, type messages
system: str | None = None   # instruction that the assistant reads before a chat
export: str | None = None   # hf | gguf | gguf-f16 | gguf-q8_0: write the model for other programs instead
random_init = False         # True: the same architecture with untrained weights, for comparison
serve: int | None = None    # [0, 65535]: answer this machine's HTTP requests on this port; 0 = a free one
allow_code_execution = False    # True: ... and run answers' tests; read parts/eval/sandbox.py
device = 'auto'             # auto, cpu, cuda, cuda:1, mps
dtype = 'float32'           # float32 | bfloat16: of the weights
seed: int | None = 1337     # [0, 2**32): None = different every time
config = configure(globals())

# --- settings that exclude each other -----------------------------------------------------------------------
if len([text for text in (prompt, prompt_file, prompts) if text]) > 1:
    raise ValueError('give one of --prompt, --prompt_file and --prompts')
excluded = [f'--{name}={config[name]}' for name in ('stop_at', 'num_samples')
            if config[name] != defaults[name]]
if chat and excluded:
    raise ValueError(f'a chat has one answer, which ends by itself: leave out {" and ".join(excluded)}')
if not all(isinstance(number, int | float) and number >= 0 for number in sweep):
    raise ValueError(f'{sweep=} must be temperatures >= 0, such as 0,0.5,1.0')
if system and not chat:
    raise ValueError('--system is an instruction before a chat: it needs --chat=True')
ckpt, *others = ckpt.split(',')
if (others or allow_code_execution) and serve is None:
    raise ValueError('several models and --allow_code_execution need a server: add --serve=8000')
if export and (random_init or serve is not None or dtype != 'float32'):
    raise ValueError('--export writes what was trained (in 16 or 8 bits: gguf-f16, gguf-q8_0); leave out '
                     '--random_init, --serve and --dtype')
read = 'ckpt', 'export', 'serve', 'allow_code_execution', 'random_init', 'device', 'dtype', 'seed'
unread = [f'--{name}' for name in defaults if config[name] != defaults[name] and name not in read]
if unread and (export or serve is not None):
    raise ValueError(f'--export and --serve write no text here: leave out {" ".join(unread)}')

# --- texts and model ----------------------------------------------------------------------------------------
if prompt_file:
    prompt = asking.file_text(prompt_file)
texts = asking.read_prompts(prompts) if prompts else [prompt]
instruction = [{'role': 'system', 'content': system}] if system else []
device = processes.choose(device, 'float32')[0]
seed = random.randrange(2 ** 32) if seed is None else seed
torch.manual_seed(seed)     # for gaps, untrained weights
continues = export is not None or serve is not None
model, tokenizer, state = checkpoints.open_to_sample(ckpt, device, continues)
if random_init:
    model = GPT(model.config).to(device)
model = model.eval().to(getattr(torch, dtype))

objective = state.get('config', {}).get('objective', 'clm')
if chat and 'stage' not in state.get('config', ['stage']):      # of sft.py, dpo.py or rl.py
    print(f'note: {ckpt} continues texts; sft.py --init_from={ckpt} teaches it to answer', file=sys.stderr)
if objective != 'clm' and (sweep or prompts or excluded or chat):
    raise ValueError('to fill gaps, give one --prompt; no --sweep, --num_samples, --stop_at, --chat')
how = {'temperature': temperature, 'top_k': top_k, 'top_p': top_p}
ends = asking.end_of(stop_at)
sys.stdout.reconfigure(errors='replace')    # what a terminal cannot show becomes a ?


# --- continue a text ----------------------------------------------------------------------------------------
def complete():
    """Continue the prompt."""
    encoded = asking.encode(tokenizer, prompt)
    print('-' * 80)
    if num_samples > 1:
        [answers], _ = asking.generate(model, tokenizer, [encoded], num_samples, max_new_tokens, seed,
                                       num_samples, **ends, **how)
        for answer, _ in answers:
            print(prompt + answer, '-' * 80, sep='\n')
        return

    print(prompt, end='', flush=True)
    began = time.perf_counter()
    dice = random.Random(seed).random       # one number in [0, 1) draws one token
    text = asking.begin(tokenizer, encoded, max_new_tokens, dice, **ends)
    for piece in asking.pieces(model, text, **how):
        print(piece, end='', flush=True)
    print('', '-' * 80, sep='\n')

    ms = 1000 * (time.perf_counter() - began) / len(text.answer.ids)
    n = len(text.answer.ids) - min(1, encoded.repeated)         # the first may write the prompt's last again
    mb = sum(p.nbytes for p in model.parameters()) / 1e6
    print(f'tokens: {n}, {ms:.1f} ms each, {dtype} on {device}; weights: {mb:.1f} MB', file=sys.stderr)


# --- or do something else -----------------------------------------------------------------------------------
def serve_requests():
    """OpenAI's API, and a page that asks and judges as eval.py does."""
    from parts.sample import server
    from parts.eval import questions, sandbox
    opened = {path: checkpoints.open_to_sample(path, device, True) for path in others}
    models = {}
    for path, (net, its, about) in ({ckpt: (model, tokenizer, state)} | opened).items():
        models[path] = net.eval().to(getattr(torch, dtype)), its, 'stage' in about.get('config', {})
    items = questions.from_problems(100, 0, ['variation'])
    server.run(serve, models, items, sandbox.run_code if allow_code_execution else None)


if export:
    hf_model.check_layout(vars(model.config), model.state_dict())       # model.py may have been edited
    write = hf_model.publish if export == 'hf' else gguf_file.write
    print(write(checkpoints.folder_of(ckpt), model, tokenizer, export, state))
elif serve is not None:
    serve_requests()
elif objective != 'clm':
    pick = lambda logits: sample(logits, temperature, top_k, top_p)
    filled = gaps.fill(model, tokenizer, prompt, objective, max_new_tokens, pick)
    show(config)
    print(filled)
elif sweep or prompts:
    show(config)
    chats = [[*instruction, {'role': 'user', 'content': text}] for text in texts]
    asking.compare(model, tokenizer, chats if chat else texts, sweep or [temperature], num_samples,
                   max_new_tokens, seed, **ends, **how)
elif chat:
    show(config)
    questions = [prompt] if prompt else iter(lambda: input('you> ').strip(), '')    # until an empty line
    with contextlib.suppress(EOFError, KeyboardInterrupt):      # Ctrl-D, or Ctrl-C at `you>`, ends the chat
        asking.talk(model, tokenizer, instruction, questions, max_new_tokens, seed, **how)
else:
    show(config)
    complete()
