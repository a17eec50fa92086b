"""
Sampling: a checkpoint continues text.

    python sample.py --ckpt=out/quickstart --prompt=$'def f(x):\\n    ' --stop_at=function
    python sample.py --ckpt=out/quickstart --prompt_file=half_written.py        # complete a file
    python sample.py --ckpt=out/quickstart --prompts=prompts.txt --sweep=0,0.5,1
    python sample.py --ckpt=out/mlm --prompt='for i in <|mask|>(10):'   # mlm: one token a gap
    python sample.py --ckpt=out/span --prompt='def area(<|mask|>): return a * b'    # or a text
    python sample.py --ckpt=out/sft --chat=True         # talk; an empty line ends the chat
    python sample.py --ckpt=out/base,out/sft --serve=8000       # a page, OpenAI's API
    python sample.py --ckpt=out/base,out/sft --export=html      # the page as a file: demo.html

Reads the folder of a run, or of a Hugging Face model. How a single answer comes about, in write():

    ids         a text as its tokens; messages as one text with a mark before and behind each of
                them, and behind them the mark that begins an answer (Tokenizer.render)
    logits      the model runs over all of the prompt once, then over each new token; what it has
                computed of earlier ones stays in a cache (GPT.stream in model.py)
    a token     drawn from softmax(logits / temperature), so 0.5 squares the odds: 0.6 and 0.4
                become 0.69 and 0.31. top_k keeps the likeliest, top_p then the fewest that have
                the probability top_p together (sample in model.py)
    the end     <|endoftext|>, <|im_end|>, the text stop_at, max_new_tokens, or Ctrl-C

Its speed and the size of the weights follow on stderr. Where a prompt ends inside a token, the
first new token completes it.
"""
import contextlib, random, sys, time
import torch
from configurator import Mistake, configure, defaults, show
from model import GPT
from parts.eval import questions, sandbox
from parts.model import checkpoints, gguf_file, hf_model
from parts.train import processes
from parts.sample import asking, gaps, html_file, server

# --- settings -------------------------------------------------------------------------------------
ckpt = 'out/base'           # a run's folder or a .pt file in it; for --serve and html several: A,B
prompt = ''                 # '' = the start of a document
prompt_file: str | None = None      # take the prompt from a file, exactly as it is
prompts: str | None = None  # a file of prompts, one a line: continue each
sweep = ()                  # 0,0.5,1.0: ... at each of these temperatures
num_samples = 1             # [1, 10000]: continuations of each prompt
max_new_tokens = 200        # >= 1: tokens of each
temperature = 0.8           # >= 0: 0 = always the most probable token; higher is more varied
top_k = 50                  # >= 0: sample from the k most probable tokens; 0 = off
top_p = 1.0                 # (0, 1]: ... and from the fewest that reach probability p; 1 = off
stop_at = ''                # end before this text; function = where an indented body ends
chat = False                # True: the prompt is a message; without a prompt, type messages
system: str | None = None   # instruction that the assistant reads before a chat
export: str | None = None   # hf | gguf | gguf-f16 | gguf-q8_0 | html: format to write the model in
out = 'demo.html'           # the file of --export=html, which may hold several models: --ckpt=A,B
random_init = False         # True: the same architecture with untrained weights, for comparison
serve: int | None = None    # [0, 65535]: answer this machine's HTTP requests on this port; 0 = any
allow_code_execution = False    # True: --serve and html run answers; read parts/eval/sandbox.py
device = 'auto'             # auto, cpu, cuda, cuda:1, mps
dtype = 'float32'           # float32 | bfloat16: of the weights
seed: int | None = 1337     # [0, 2**32): None = different every time
config = configure(globals())

# --- what excludes what ---------------------------------------------------------------------------
paths = ckpt.split(',')
changed = {name for name in defaults if config[name] != defaults[name]}
shows_page = serve is not None or export == 'html'
writes_here = export is None and serve is None
for_texts = changed - {'ckpt', 'export', 'out', 'serve', 'allow_code_execution', 'device', 'dtype',
                       'seed'}
for is_wrong, sentence in (
        (len(changed & {'prompt', 'prompt_file', 'prompts'}) > 1,
         'give one of --prompt, --prompt_file and --prompts'),
        (chat and changed & {'stop_at', 'num_samples'},
         'a chat has one answer, which ends by itself: leave out --stop_at and --num_samples'),
        (not all(isinstance(t, int | float) and t >= 0 for t in sweep),
         f'{sweep=} must be temperatures >= 0, such as 0,0.5,1.0'),
        (system and not chat, '--system is an instruction before a chat: it needs --chat=True'),
        ((paths[1:] or allow_code_execution) and not shows_page,
         'several models and --allow_code_execution need a page: --serve=8000 or --export=html'),
        ('out' in changed and export != 'html', f'--out={out} needs --export=html'),
        (export and changed & {'serve', 'dtype'},
         '--export writes what was trained (in 16 or 8 bits: gguf-f16, gguf-q8_0); leave out '
         '--serve and --dtype'),
        (for_texts and not writes_here, '--export and --serve write no text here: leave out '
         + ' '.join(f'--{name}' for name in for_texts))):
    if is_wrong:
        raise Mistake(sentence)

# --- texts and models -----------------------------------------------------------------------------
if prompt_file:
    prompt = asking.file_text(prompt_file)
texts = asking.read_prompts(prompts) if prompts else [prompt]
messages = [{'role': 'system', 'content': system}] if system else []
device = processes.choose(device, 'float32')[0]
seed = random.randrange(2 ** 32) if seed is None else seed
torch.manual_seed(seed)     # for gaps, untrained weights
models = {path: checkpoints.open_to_sample(path, device, not writes_here) for path in paths}
for net, _, _ in models.values():
    net.eval().to(getattr(torch, dtype))
model, tokenizer, state = models[paths[0]]
if random_init:
    model = GPT(model.config).to(model.embedding.weight).eval()

trained = state.get('config', {})       # the settings of the run; {} for a Hugging Face model
objective = trained.get('objective', 'clm')
if objective != 'clm' and changed & {'sweep', 'prompts', 'num_samples', 'stop_at', 'chat'}:
    raise Mistake('to fill gaps, give one --prompt; no --sweep, --num_samples, --stop_at, --chat')
if chat and trained and 'stage' not in trained:         # of sft.py, dpo.py or rl.py
    print(f'note: {ckpt} continues texts; sft.py --init_from={ckpt} teaches it to answer',
          file=sys.stderr)
how = {'top_k': top_k, 'top_p': top_p}
ends = asking.end_of(stop_at)
sys.stdout.reconfigure(errors='replace')    # what a terminal cannot show becomes a ?


def write(prompt, seed):
    """Print the answer to a prompt or messages token by token. Return the Answer."""
    # It has prompt.ids, the prompt's tokens; noise, a random number for each token that it may
    # have; ids and text, what is written so far; and finish, why it ended: None until it did.
    answer = asking.begin(tokenizer, prompt, max_new_tokens, seed, ends)
    idx = torch.tensor([answer.prompt.ids], device=device)  # (1, T)
    draw = lambda logits: answer.draw(logits, temperature=temperature, top_k=top_k, top_p=top_p)
    with contextlib.suppress(KeyboardInterrupt):
        for token in model.stream(idx, len(answer.noise), draw):        # (1,)
            answer.append(token.item(), tokenizer.stop)
            print(answer.take(), end='', flush=True)
            if answer.finish:
                break
    return answer


# --- export, serve, or write ----------------------------------------------------------------------
if writes_here:
    show(config)
if shows_page:
    shown = {path: (net, its, 'stage' in about.get('config', {}))
             for path, (net, its, about) in models.items()}
    page = (shown, questions.from_problems(100, 0, ['variation']),
            sandbox.run_code if allow_code_execution else None)
    if export:
        print(html_file.write(out, *page))
    else:
        server.run(serve, *page)
elif export:
    # model.py may have been edited
    hf_model.check_layout(vars(model.config), model.state_dict())
    publish = hf_model.publish if export == 'hf' else gguf_file.write
    print(publish(checkpoints.folder_of(ckpt), model, tokenizer, export, state))
elif objective != 'clm':
    print(gaps.fill(model, tokenizer, prompt, objective, max_new_tokens, temperature=temperature,
                    **how))
elif sweep or prompts or num_samples > 1:
    asked = [[*messages, {'role': 'user', 'content': text}] if chat else text for text in texts]
    asking.compare(model, tokenizer, asked, sweep or [temperature], num_samples, max_new_tokens,
                   seed, ends=ends, **how)
elif chat:
    typed = iter(lambda: input('you> ').strip(), '')        # until an empty line
    with contextlib.suppress(EOFError, KeyboardInterrupt):  # Ctrl-D, or Ctrl-C at `you>`
        for question in [prompt] if prompt else typed:
            messages.append({'role': 'user', 'content': question})
            messages = asking.shortened(tokenizer, messages, model.config.block_size)
            answer = write(messages, f'{seed} {len(messages)}')
            print()
            messages.append({'role': 'assistant', 'content': answer.text})
else:
    print('-' * 80, prompt, sep='\n', end='')
    began = time.perf_counter()
    answer = write(prompt, seed)
    print('\n' + '-' * 80)
    ms = 1000 * (time.perf_counter() - began) / len(answer.ids)
    mb = sum(p.nbytes for p in model.parameters()) / 1e6
    print(f'tokens: {len(answer.ids)}, {ms:.1f} ms each, {dtype} on {device}; weights: {mb:.1f} MB',
          file=sys.stderr)
