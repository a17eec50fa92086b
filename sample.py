"""
Sampling: a checkpoint continues text, one token after another.

    python sample.py --ckpt=out/quickstart --prompt=$'def f(x):\\n    ' --stop_at=function
    python sample.py --ckpt=out/quickstart --prompt_file=half_written.py        # complete a file
    python sample.py --ckpt=out/quickstart --prompts=prompts.txt --sweep=0,0.5,1
    python sample.py --ckpt=out/sft --chat=True         # talk; an empty line ends the chat
    python sample.py --ckpt=out/mlm --prompt='for i in <|mask|>(10):'   # a gap is one token
    python sample.py --ckpt=out/span --prompt='def area(<|mask|>): return a * b'    # or any text
    python sample.py --ckpt=out/base,out/sft --serve=8000       # a page, OpenAI's API
    python sample.py --ckpt=out/base,out/sft --export=html      # the page as a file: demo.html

Reads the folder of a run, or of a Hugging Face model. write() writes an answer in four steps:

    ids         The prompt becomes tokens. If it ends inside a token, the first new token completes
                it (Tokenizer.heal). A chat becomes a single text (Tokenizer.render), such as
                <|im_start|>user\\nhi<|im_end|>\\n<|im_start|>assistant\\n
    logits      The model runs over the whole prompt once, and then over each new token alone. What
                it has computed for earlier tokens is in a cache (GPT.stream in model.py).
    a token     It is drawn from softmax(logits / temperature). Of 0.5 0.3 0.15 0.05, temperature
                0.5 makes 0.68 0.25 0.06 0.01, the squares divided by their sum. Only then top_k=2
                keeps the likeliest two, and top_p=0.9 the fewest that have 0.9 together: here two
                as well, 0.68 + 0.25. At temperature 1 it would be three, 0.5 + 0.3 + 0.15. See
                sample() in model.py.
    the end     The answer ends at <|endoftext|>, at <|im_end|>, in front of the text stop_at, after
                max_new_tokens, or at Ctrl-C.
"""
import contextlib, os, sys, time
from typing import Literal
from configurator import Mistake, configure, require, set_by
import torch
from model import GPT
from parts.model import checkpoints, gguf_file
from parts.train import processes
from parts.sample import asking, gaps, html_file, server

# --- settings -------------------------------------------------------------------------------------
ckpt = 'out/base'           # a run's folder or a .pt file in it; for --serve and html several: A,B
prompt = ''                 # text to continue; '' = the start of a document
max_new_tokens = 200        # tokens to write
temperature = 0.8           # 0 = always the most probable token; higher is more varied
top_k = 50                  # sample from the k most probable tokens; 0 = off
top_p = 1.0                 # sample from the fewest that reach probability p; 1 = off
stop_at = ''                # text to stop in front of; function = where an indented body ends
seed = 1337                 # seed of the answers
device = 'auto'             # auto, cpu, cuda, cuda:1, mps
dtype: Literal['float32', 'bfloat16'] = 'float32'  # type of the weights
random_init = False         # True: the same architecture with untrained weights, for comparison
# --- a file, several texts ---
prompt_file: str | None = None      # file to continue, exactly as it is
prompts: str | None = None  # file of prompts, one a line: continue each
num_samples = 1             # continuations of each prompt
sweep = ()                  # two temperatures or more, to compare: 0,0.5,1.0
# --- a chat ---
chat = False                # True: the prompt is a message; without a prompt, type messages
system: str | None = None   # instruction that the assistant reads before the chat
# --- for other programs ---
serve: int | None = None    # port on which to answer this machine's requests; 0 = any
# the format to write the model in
export: Literal['', 'hf', 'gguf', 'gguf-f16', 'gguf-q8_0', 'html'] = ''
out = 'demo.html'           # file of --export=html
allow_code_execution = False    # True: --serve and html run answers; read extras/sandbox.py
# The lowest and the highest value of numbers; any other number must be at least 0.
BOUNDS = {'max_new_tokens': (1, 1e6), 'top_p': (1e-9, 1), 'seed': (0, 2 ** 32 - 1),
          'num_samples': (1, 10000), 'serve': (0, 65535)}
configure(globals(), BOUNDS)

# --- 1. the model ---------------------------------------------------------------------------------
device = processes.choose(device, 'float32')[0]
torch.manual_seed(seed)             # for untrained weights and for gaps
models = {}                         # {path: (model, tokenizer, whether it was taught to chat)}
for path in ckpt.split(','):
    # continues=True refuses a model that fills gaps, because a page and other programs need one
    # that continues texts.
    model, tokenizer, state = checkpoints.open_to_sample(
        path, device, continues=export or serve is not None)
    if random_init:
        model = GPT(model.config).to(device)
    model.eval().to(getattr(torch, dtype))
    trained = state.get('config', {})       # the settings of the run; {} for a Hugging Face model
    models[path] = model, tokenizer, 'stage' in trained         # of sft.py, dpo.py or rl.py
# Only a page asks several models, and it takes them from `models`. Any other call has one path, so
# model, tokenizer, state and trained are those of its only model.
sys.stdout.reconfigure(errors='replace')    # what a terminal cannot show becomes a ?


# --- 2. one token after another -------------------------------------------------------------------
def write(prompt, temperature, seed):
    """Print the answer to a text or to messages token by token. Return the Answer. seed: a number
    or a text, as random.Random takes it."""
    # The Answer has the prompt as ids and, in `noise`, a random number u in [0, 1) for each token
    # that may follow, so there are max_new_tokens of them. They are drawn now, so that an answer is
    # the same whether it is written alone or, as in eval.py, in a batch.
    answer = asking.begin(tokenizer, prompt, max_new_tokens, seed, asking.end_of(stop_at))
    idx = torch.tensor([answer.prompt.ids], device=device)  # (1, T)
    # logits (1, V) -> the next token (1,), from sample() in model.py with the next u. Before that,
    # some tokens get the probability 0: special ones that only prompts have, such as <|im_start|>.
    # If the prompt ends inside a token, as in `pri`, its first new token must begin with pri.
    draw = lambda logits, rows, t: answer.draw(
        logits, temperature=temperature, top_k=top_k, top_p=top_p)
    with contextlib.suppress(KeyboardInterrupt):
        for token in model.stream(idx, len(answer.noise), draw):        # (1,)
            # append() adds the token to answer.ids. It sets `finish` to 'stop' if the token is
            # <|endoftext|> or <|im_end|>, and to 'length' if all of `noise` is used.
            answer.append(token.item(), tokenizer.stop)
            # take() returns the new characters. What may be the beginning of stop_at waits, and so
            # do the bytes of half a character. It sets `finish` to 'stop' in front of stop_at.
            print(answer.take(), end='', flush=True)
            if answer.finish:       # 'stop' or 'length'
                break
    print()
    return answer


# --- 3. what a call can do ------------------------------------------------------------------------
messages = [{'role': 'system', 'content': system}] if system else []
context = model.config.block_size
if prompt_file:
    prompt = asking.file_text(prompt_file)


def write_texts():
    """Continue each prompt, or answer it as a message, at each temperature. Print the speed."""
    began = time.perf_counter()
    n_tokens = 0
    for text in asking.read_prompts(prompts) if prompts else [prompt]:
        asked = asking.with_question(tokenizer, messages, text, context) if chat else text
        for t in sweep or [temperature]:
            for i in range(num_samples):
                if prompts or sweep or num_samples > 1:
                    print(f'--- temperature {t:g} ---')
                print(text, end='\n' if chat else '')
                answer = write(asked, t, seed + i)
                n_tokens += len(answer.ids)
                if not answer.finish:
                    sys.exit(130)       # Ctrl-C
    ms = 1000 * (time.perf_counter() - began) / n_tokens
    mb = sum(p.nbytes for p in model.parameters()) / 1e6
    print(f'tokens: {n_tokens}, {ms:.1f} ms each, {dtype} on {device}; weights: {mb:.1f} MB',
          file=sys.stderr)


def talk():
    """Answer what the user types, until an empty line, Ctrl-D, or Ctrl-C between two answers."""
    history = messages
    n_turns = 0
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while question := input('you> ').strip():
            try:
                history = asking.with_question(tokenizer, history, question, context)
            except ValueError as mistake:       # such as a message that is too long
                print(mistake)
                continue
            # A seed for each turn. If all had the same one, all would draw the same numbers.
            n_turns += 1
            answer = write(history, temperature, f'{seed} {n_turns}')
            history.append({'role': 'assistant', 'content': answer.text})


def fill_gaps():
    """Print the prompt with what the model puts in place of each <|mask|>."""
    print(gaps.fill(model, tokenizer, prompt, trained['objective'], max_new_tokens,
                    temperature=temperature, top_k=top_k, top_p=top_p))


def make_page():
    """Serve a page on which people ask all models, or write it into a file. It offers 100 new
    variations of the example tasks. With --allow_code_execution=True, their tests run the answers:
    the server runs each one when it is written. But a browser runs no Python, so for the file each
    model answers each problem now, and the file has these answers and whether they pass."""
    from extras import questions, sandbox
    problems = questions.from_problems(100, 0, ['variation'])
    run_code = allow_code_execution and sandbox.run_code
    if export:
        require(os.path.isdir(os.path.dirname(out) or '.'), f'--out={out}: its folder is missing')
        print(html_file.write(out, models, problems, run_code))
    else:
        server.run(serve, models, problems, run_code)


def write_model():
    """Write the model in a format of other programs."""
    from extras import hf_model
    publish = hf_model.publish if export == 'hf' else gguf_file.write
    print(publish(checkpoints.folder_of(ckpt), model, tokenizer, export, state))


# --- 4. what this call does -----------------------------------------------------------------------
# A row has the name of a kind of call, whether this call is of that kind, the function that does
# it, and the settings that have an effect. The first row that fits decides. Any other setting would
# change nothing, and the user would not notice, so it is refused.
for_writing = 'ckpt seed device dtype random_init max_new_tokens temperature top_k top_p '
CALLS = [
    ('--serve', serve is not None, make_page, 'ckpt device dtype serve allow_code_execution'),
    ('--export=html', export == 'html', make_page, 'ckpt device export out allow_code_execution'),
    ('--export=hf, gguf, gguf-f16 or gguf-q8_0', export, write_model, 'ckpt device export'),
    ('a text with gaps', trained.get('objective', 'clm') != 'clm', fill_gaps,
     for_writing + 'prompt prompt_file'),
    ('a chat (--chat=True)', chat, write_texts if prompt or prompts else talk,
     for_writing + 'prompt prompt_file prompts sweep chat system'),
    ('a text', True, write_texts,
     for_writing + 'prompt prompt_file prompts sweep num_samples stop_at')]
call, _, function, settings = next(row for row in CALLS if row[1])      # row[1]: is it this kind?
if unused := set_by.keys() - settings.split():
    name = min(unused)
    others = [other for other, *_, its_settings in CALLS if name in its_settings.split()]
    raise Mistake(f'{call} cannot use --{name}; leave it out, or use it with {" or ".join(others)}')
if ',' in ckpt and function != make_page:
    raise Mistake('several models need a page; add --serve=8000 or --export=html')
for names in ['prompt', 'prompt_file', 'prompts'], ['sweep', 'temperature']:
    if len(set_by.keys() & names) > 1:
        raise Mistake(f'give one of --{", --".join(names)}')
if not all(isinstance(t, int | float) and t >= 0 for t in sweep):
    raise Mistake(f'{sweep=} must be temperatures >= 0, such as 0,0.5,1.0')
if chat and trained and 'stage' not in trained:
    print(f'note: {ckpt} continues texts; sft.py --init_from={ckpt} teaches it to answer',
          file=sys.stderr)
function()
