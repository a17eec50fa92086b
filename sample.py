r"""
Sampling: a model continues your text, or answers your messages, one token after another.

    python sample.py --ckpt=out/quickstart --prompt=$'def f(x):\n    ' --stop_at=function
    python sample.py --ckpt=out/quickstart --prompt_file=half_written.py        # complete a file
    python sample.py --ckpt=out/quickstart --prompts=prompts.txt --sweep=0,0.5,1.0
    python sample.py --ckpt=out/sft --chat=True         # talk; an empty line ends the chat
    python sample.py --ckpt=out/base,out/sft --serve=8000       # a page, OpenAI's API
    python sample.py --ckpt=out/base,out/sft --export=html      # the page as a file: demo.html

It reads a folder that a trainer wrote, a .pt file in one, or a folder of Hugging Face. You should
see the text appear token by token. write() takes four steps for each of them:

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

A model that was trained to fill gaps (train.py --objective=mlm or span) fills those of the prompt:
--prompt='for i in <|mask|>(10):'. Lines that import extras are doors.
"""
import codecs, contextlib, glob, os, pathlib, random, shlex, sys, time
from typing import Literal
import regex
import torch
from configurator import Mistake, configure, require, typed
from model import GPT, sample
from tokenizer import Tokenizer

# --- settings -------------------------------------------------------------------------------------
ckpt = 'out/base'           # a run's folder or a .pt file in it; for a page several: A,B
prompt = ''                 # text to continue; '' = the start of a document
max_new_tokens = 200        # most tokens of an answer
temperature = 0.8           # 0 = always the most probable token; higher is more varied
top_k = 50                  # sample from the k most probable tokens; 0 = off
top_p = 1.0                 # sample from the fewest that reach probability p; 1 = off
stop_at = ''                # text to stop in front of; function = where an indented body ends
seed = 1337                 # seed of the answers
device = 'auto'             # auto, cpu, cuda, cuda:1, mps
dtype: Literal['float32', 'bfloat16'] = 'float32'       # type of the weights
random_init = False         # True: the same architecture with untrained weights, for comparison
# a file, several texts
prompt_file = ''            # file to continue, exactly as it is
prompts = ''                # file of prompts, one a line: continue each
num_samples = 1             # continuations of each prompt
sweep = ()                  # two temperatures or more, to compare: 0,0.5,1.0
# a chat
chat = False                # True: the prompt is a message; without a prompt, type messages
system = ''                 # instruction that the assistant reads before the chat
# doors to extras/
serve: int | None = None    # port on which to answer this machine's requests; 0 = any
export: Literal['', 'hf', 'gguf', 'html'] = ''          # format; hf, gguf: beside the checkpoint
out = 'demo.html'           # file of --export=html
allow_code_execution = False    # True: --serve and html run answers; read extras/sandbox.py
# The least and the most of some numbers; all others are at least 0.
BOUNDS = {'max_new_tokens': (1, 1e6), 'top_p': (1e-9, 1), 'seed': (0, 2 ** 32 - 1),
          'num_samples': (1, 10000), 'serve': (0, 65535)}


# --- from a prompt to ids, and from ids to text ---------------------------------------------------
def encode(tokenizer, prompt):
    """Return the ids that a model reads of a text or of messages; the ids that may come first, or
    None if any may; and how many bytes of the prompt the first new token writes again. Where `):`
    with a newline is one token, a model has hardly ever read `):` alone. So `f():` is read as `f(`,
    and 2 bytes are written again. Messages end in a token of their own and need none of this."""
    if not isinstance(prompt, str):
        ids, _ = tokenizer.render(prompt, add_generation_prompt=True)   # _: which to learn
        return ids, None, 0
    # begin: <|endoftext|>, as in training; a tokenizer without it starts an empty prompt by `first`
    whole = (tokenizer.begin + tokenizer.encode(prompt)) or tokenizer.first
    ids, allowed = tokenizer.heal(whole) if len(whole) > 1 else (whole, None)
    return ids, allowed, len(tokenizer.decode_bytes(whole[len(ids):]))


def with_question(tokenizer, messages, text, block_size):
    """Return a chat and a user's next message. A quarter of the context is left for the answer: the
    oldest questions go, with their answers. A system message, which comes first, stays."""
    messages = [*messages, {'role': 'user', 'content': text}]
    begin = 1 if messages[0]['role'] == 'system' else 0
    n_tokens = lambda: len(encode(tokenizer, messages)[0])
    while n_tokens() > block_size * 3 // 4 and len(messages) > begin + 1:
        del messages[begin:begin + 2]
    require(n_tokens() < block_size,
            f'the message does not fit into the context of {block_size} tokens; shorten it')
    return messages


def write(model, tokenizer, prompt, max_new_tokens, draw, ends=''):
    """Yield for each token of an answer the text that is certain now, and why the answer ends here:
    'stop', 'length', or '' if it goes on. Half a character waits for its other half: 'é' of two
    tokens is yielded as '', 'é'. What may be the beginning of `ends`, a pattern, waits, too: with
    'END', of 'a E' only 'a ' is certain, until the next token tells whether it is END:
        token      'a'     ' E'    'AT'    'END'
        text       a       a E     a EAT   a EATEND
        yielded    'a'     ' '     'EAT'   '', 'stop'
    prompt: a text or messages, of which the oldest tokens leave a full context. draw(logits (1, V))
    -> the next token (1,)."""
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

    # stop_at=function looks back for a newline, which may be the prompt's last character.
    text = prompt[-1:] if isinstance(prompt, str) else ''
    n_shown = len(text)
    decoder = codecs.getincrementaldecoder('utf-8')('replace')
    idx = torch.tensor([ids], device=model.embedding.weight.device)  # (1, T)
    for t, token in enumerate(model.stream(idx, n, choose, tokenizer.stop)):
        id = token.item()
        why = ''
        if id in tokenizer.stop:
            why = 'stop'
        elif t + 1 == n:
            why = 'length'
        data = b'' if why == 'stop' else tokenizer.decode_bytes([id])
        text += decoder.decode(data[n_again if t == 0 else 0:], bool(why))
        # partial: the end of the text may be the beginning of a match
        found = regex.search(ends, text, pos=n_shown, partial=not why) if ends else None
        if found and not found.partial:
            why = 'stop'
        end = found.start() if found else len(text)
        yield text[n_shown:end], why
        n_shown = end
        if why:
            return


def read_text(path):
    """Return the text of a file, with its ends of lines as they are."""
    try:
        return pathlib.Path(path).read_bytes().decode('utf-8-sig')      # without a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f'{path} is no file of UTF-8 text: {error}') from None


def instead_of(path):
    """Return what to do if there is no model at a path."""
    owner, _, name = path.partition('/')
    if regex.fullmatch(r'[\w.-]+/[\w.-]+', path) and owner != 'out' and not os.path.exists(owner):
        return f'download it, then name its folder: hf download {path} --local-dir={name}'
    there = sorted({os.path.dirname(file) for file in glob.glob('out/*/*.pt')})
    return (f'give one that does: --ckpt={shlex.quote(there[0])} (of {", ".join(there)})' if there
            else 'run: python clean.py && python prepare.py && python train.py')


configure(globals(), BOUNDS)                    # config files and flags replace the settings
require(len(typed & {'prompt', 'prompt_file', 'prompts'}) < 2,
        'give one of --prompt, --prompt_file and --prompts')
require(not {'sweep', 'temperature'} <= typed, 'give one of --sweep and --temperature')
require(all(isinstance(t, int | float) and t >= 0 for t in sweep),
        f'{sweep=} must be temperatures >= 0, such as 0,0.5,1.0')
require(chat or not system, '--system needs --chat=True')
require(len(stop_at) <= 200, '--stop_at must have at most 200 characters')
is_page = serve is not None or export == 'html'
require(is_page or ',' not in ckpt, 'several models need a page; add --serve=8000 or --export=html')

# --- the models -----------------------------------------------------------------------------------
here = ['cpu'] + ['mps'] * torch.backends.mps.is_available() + ['cuda'] * torch.cuda.is_available()
device = here[-1] if device == 'auto' else device
kind, _, number = device.partition(':')         # cuda:1
require(kind in here and f'0{number}'.isdigit(), f'{device=} is not here; try --device=auto')
if kind == 'cuda':
    torch.set_float32_matmul_precision('high')          # TF32 for products that stay float32
    torch.backends.cuda.enable_cudnn_sdp(False)         # it plans anew for each length of a prompt


def open_model(path):
    """Return a model, its tokenizer, and the settings of the run that trained it: {} for a folder
    of Hugging Face."""
    require(os.path.exists(path), f'{path} does not exist; {instead_of(path)}')
    folder = path if os.path.isdir(path) else os.path.dirname(path) or '.'
    require({'.pt', '.safetensors'} & {pathlib.Path(name).suffix for name in os.listdir(folder)},
            f'{path} has no best.pt, last.pt or *.safetensors; {instead_of(path)}')
    beside = f'{folder}/tokenizer.json'
    require(os.path.exists(beside), f"{beside} is missing; copy the run's own file back; of a "
            "Hugging Face model it is in the download, or transformers' AutoTokenizer writes it")
    try:
        model = GPT.load(path)
        tokenizer = Tokenizer.load(beside)
    except ValueError as error:
        raise Mistake(error) from None
    trained = model.saved.get('config', {})
    require('reward_head' not in model.saved, f'{path} is a reward model: it scores answers and '
            'writes none; use the model of sft.py')
    require(trained.get('objective', 'clm') == 'clm' or not (is_page or export), f'{path} fills '
            'gaps; --serve and --export need a model that continues texts')
    require(model.saved.get('tokenizer_hash', tokenizer.hash) == tokenizer.hash,
            f"{beside} is not the tokenizer of {path}; copy the run's own file back")
    if random_init:
        model = GPT(model.config)
    return model.to(device, getattr(torch, dtype)).eval(), tokenizer, trained


torch.manual_seed(seed)         # for untrained weights and for gaps; answers have their own dice
models = {path: open_model(path) for path in ckpt.split(',')}
model, tokenizer, trained = [*models.values()][0]
context = model.config.block_size


# --- what this call does: a page, files for other programs, gaps, a talk, or else texts -----------
def only(call, names):
    """Refuse a flag that this kind of call cannot use: its user would wait for an effect."""
    for name in sorted(typed - {*f'ckpt device dtype {names}'.split()}):
        raise Mistake(f'{call} cannot use --{name}; leave it out')


def draw_by(temperature, seed):
    """Return a function, logits (1, V) -> token (1,). Its random numbers are its own, so that an
    answer is the same whatever else is written. seed: a number or a text. Another rule of sampling
    goes here."""
    dice = random.Random(seed)
    u = lambda logits: logits.new_tensor([dice.random()])       # in [0, 1): which token is drawn
    return lambda logits: sample(logits, temperature, top_k, top_p, u=u(logits))


writing = 'random_init prompt prompt_file max_new_tokens temperature top_k top_p seed'
texts = [read_text(prompt_file) if prompt_file else prompt]
if prompts:
    texts = [line for line in regex.split(r'\r\n?|\n', read_text(prompts)) if line.strip()]
    require(texts, f'{prompts} must hold prompts, one a line')
# A body ends where a line begins in column 0, but not with a closing bracket or a comment.
ends = r'(?<=\n)(?=[^\s#)\]}])' if stop_at == 'function' else regex.escape(stop_at)
history = [{'role': 'system', 'content': system}] if system else []
if trained and chat != ('stage' in trained) and not (is_page or export):
    print(f'hint: {ckpt} continues texts; sft.py --init_from={ckpt} teaches it to answer' if chat
          else f'hint: {ckpt} has learned to answer messages; add --chat=True', file=sys.stderr)

if is_page:
    only('--serve or --export=html', 'serve export out allow_code_execution')
    if export:
        from extras.export import publish_html
        print(publish_html(out, models, allow_code_execution))
    else:
        from extras import server
        server.run(serve, models, encode, write, allow_code_execution)
elif export:
    only('--export=hf or gguf', 'export')
    from extras.export import publish_gguf, publish_hf
    publish = publish_hf if export == 'hf' else publish_gguf
    print(publish(ckpt, model, tokenizer))
elif trained.get('objective', 'clm') != 'clm':
    only('a model that fills gaps', writing)
    from extras import objectives
    try:
        print(objectives.fill(model, tokenizer, texts[0], trained['objective'], max_new_tokens,
                              temperature=temperature, top_k=top_k, top_p=top_p))
    except ValueError as error:
        raise Mistake(error) from None
elif chat and not any(texts):
    only('a talk', f'{writing} stop_at chat system')
    n_turns = 0
    with contextlib.suppress(EOFError, KeyboardInterrupt):      # Ctrl-D, or Ctrl-C at a question
        while question := input('you> ').strip():
            try:
                history = with_question(tokenizer, history, question, context)
            except ValueError as mistake:   # a Mistake, such as a message that is too long
                print(mistake)
                continue
            # A seed for each turn. If all had the same one, all would draw the same numbers.
            n_turns += 1
            draw = draw_by(temperature, f'{seed} {n_turns}')
            reply = ''
            with contextlib.suppress(KeyboardInterrupt):        # ends this answer only
                for piece, _ in write(model, tokenizer, history, max_new_tokens, draw, ends):
                    print(piece, end='', flush=True)
                    reply += piece
            print()
            history.append({'role': 'assistant', 'content': reply})
else:
    only('a text', f'{writing} prompts num_samples sweep stop_at chat system')
    began = time.perf_counter()
    n_tokens = 0
    for text in texts:
        try:
            asked = with_question(tokenizer, history, text, context) if chat else text
            encode(tokenizer, asked)        # refuses it before anything is printed
        except ValueError as error:
            raise Mistake(error) from None
        for t in sweep or [temperature]:
            for i in range(num_samples):
                if prompts or sweep or num_samples > 1:
                    print(f'--- temperature {t:g} ---')
                print(text, end='\n' if chat else '', flush=True)
                draw = draw_by(t, seed + i)
                for piece, _ in write(model, tokenizer, asked, max_new_tokens, draw, ends):
                    print(piece, end='', flush=True)
                    n_tokens += 1
                print()
    ms = 1000 * (time.perf_counter() - began) / n_tokens
    mb = sum(p.nbytes for p in model.parameters()) / 1e6
    print(f'tokens: {n_tokens}, {ms:.1f} ms each, {dtype} on {device}; weights: {mb:.1f} MB',
          file=sys.stderr)
