"""
Evaluation: what a checkpoint is worth, counted on held-out data, with how sure that is.

    python eval.py --ckpt=out/quickstart --data_dir=data/quickstart
    python eval.py --ckpt=out/sft --tasks=problems --num_samples=8 --k=1,8 --allow_code_execution=True
    python eval.py --ckpt=out/sft --tasks=gsm8k,choice --data=gsm8k_test.jsonl,mmlu.jsonl
    python eval.py --ckpt=out/a,out/b --data_dir=data/code,data/prose       # which is better at what
    python eval.py --tasks=compare --ckpt=out/sft --compare=out/dpo         # which have samples.jsonl

loss            of all val.bin: nats, perplexity, bits per byte; of each source; of an untrained model
problems        functions of problems.py, written by the model and run
humaneval, mbpp     the same, of a file in HumanEval's layout
gsm8k           the last number of the answer against the one behind ####
choice          MMLU, ARC, HellaSwag: which of the given answers is most probable
instructions    what a program can check: {"prompt", "rules": [{"kind", "value"}]}; see RULES
own             yours: {"prompt", "must_contain", "must_not_contain", "regex", "tests"}
compare         problems gained and lost between two samples.jsonl; a sheet for blind votes; their count

Perplexity is e^nats: the number of equally likely tokens that the model hesitates between. Bits per byte
is nats / ln 2, per byte of text: unlike nats, comparable between tokenizers. pass@k: the chance that one
of k samples passes. First, references must pass, empty bodies fail, an endless loop be stopped.
Reads a checkpoint folder, a data folder, benchmarks. Writes eval.json, and samples.jsonl (what became
of every completion) into the checkpoint folder; the same from the same seed. You should see an untrained
model near ln(vocab_size) nats, the trained one far below. The line about contamination says which
benchmarks were kept out of the training data; the score on another may be memory.
"""
import collections, csv, glob, gzip, itertools, json, math, os, random, re
import numpy as np
import torch
from tqdm import tqdm
from configurator import configure
from data import open_bins, sequences
from model import GPT, load_checkpoint
from problems import SPLITS, preferred, problems, to_messages
from sandbox import run_many
from tokenizer import Tokenizer

# --- settings -----------------------------------------------------------------------------------------
ckpt = 'out/quickstart'     # a folder with best.pt or last.pt, or a .pt file; for loss: A,B or A/*.pt
data_dir = 'data/quickstart'    # for loss; prepared with the checkpoint's tokenizer; several: A,B
tasks = 'loss'              # comma-separated
data: str | None = None     # the benchmark's .jsonl or .jsonl.gz; of several tasks: A,B
completions: str | None = None      # .jsonl of {"task_id", "completion"}: score these, without a model
splits = 'variation,cell,family'    # of problems
n_problems: int | None = None       # None = 100 of each split of problems, the whole of a file
problems_seed = 0           # others of the same splits
num_samples = 1             # completions per problem
k = '1'                     # of pass@k, each at most num_samples: 1,10,100
temperature: float | None = None    # None = 0 (the most probable token) for one sample, else 0.8
top_k = 0                   # 0 = off
top_p = 1.0                 # 1 = off
max_new_tokens = 256
chat: bool | None = None    # ask in a conversation; None = if sft.py or dpo.py wrote the checkpoint
allow_code_execution = False    # True: run here what a model wrote; read the top of sandbox.py first
timeout = 3.0               # seconds for a program
memory_mb = 512             # for a program
compare = ''                # a samples.jsonl or its folder, to set beside that of ckpt
votes = ''                  # filled-in copies of sheet.csv: A,B
batch_size = 16             # sequences per forward pass
random_init = True          # loss: measure an untrained model too
loss_tokens = 0             # loss: of the first so many tokens; 0 = of all
device = 'auto'             # auto, cpu, cuda, mps
dtype = 'auto'              # of generation: float32, bfloat16; auto = bfloat16 on GPUs
out: str | None = None      # where the results go; None = eval.json beside the checkpoint
seed = 1337                 # of the untrained model, of samples, of the sheet
config = configure(globals())

# --- 1. what is asked ---------------------------------------------------------------------------------
CODE = 'problems', 'humaneval', 'mbpp'
TASKS = 'loss', *CODE, 'gsm8k', 'choice', 'instructions', 'own', 'compare'
tasks = tasks.split(',')
sampled = [task for task in tasks if task not in ('loss', 'compare')]
for name in tasks + splits.split(','):
    if name not in TASKS + SPLITS:
        raise ValueError(f'unknown task or split {name!r}; there are: {", ".join(TASKS + SPLITS)}')
if min(batch_size, num_samples, max_new_tokens) < 1 or not re.fullmatch(r'[1-9]\d*(,[1-9]\d*)*', k):
    raise ValueError(f'{batch_size=}, {num_samples=}, {max_new_tokens=} and each of {k=} must be >= 1')
ks = sorted({1, *map(int, k.split(','))})
if ks[-1] > num_samples and not completions:
    raise ValueError(f'pass@{ks[-1]} needs --num_samples={ks[-1]} or more; num_samples={num_samples}')
need_file = [task for task in sampled if task != 'problems']
files = dict(zip(need_file, data.split(',') if data else []))
if len(files) < len(need_file):
    raise ValueError(f'data={data} must be a .jsonl file for each of: {", ".join(need_file)}')
if {*CODE, 'own'} & {*tasks} and not allow_code_execution:
    raise ValueError('these tasks run programs that a model wrote on this machine; read the top of '
                     'sandbox.py, then give --allow_code_execution=True')
if 'compare' in tasks and not compare or sampled and ckpt.count(','):
    raise ValueError(f'{tasks=} takes one ckpt, and compare a second: --ckpt=out/a --compare=out/b')
if device == 'auto':
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    device = 'mps' if torch.backends.mps.is_available() else device
if device.split(':')[0] not in ('cpu', 'cuda', 'mps') or dtype not in ('auto', 'float32', 'bfloat16'):
    raise ValueError(f'{device=} must be auto, cpu, cuda or mps; {dtype=} auto, float32 or bfloat16')
temperature = (0.0 if num_samples == 1 else 0.8) if temperature is None else temperature


def read_jsonl(path):
    """The objects in a .jsonl or .jsonl.gz file."""
    try:
        with (gzip.open if path.endswith('.gz') else open)(path, 'rt', encoding='utf-8') as f:
            return [dict(json.loads(line)) for line in f if line.strip()]
    except (ValueError, TypeError) as e:
        raise ValueError(f'{path} must have a JSON object on each line: {e}') from e


# --- 2. the model -------------------------------------------------------------------------------------
ckpt, *later = [path for part in ckpt.split(',') for path in sorted(glob.glob(part)) or [part]]
folder = ckpt if os.path.isdir(ckpt) and not completions else os.path.dirname(completions or ckpt)
model, checkpoint, stamp, tokenizer = None, {}, None, None
if 'loss' in tasks or sampled and not completions:
    model, checkpoint = load_checkpoint(ckpt, device)
    model.eval()
    beside = os.path.join(folder, 'tokenizer.json')
    tokenizer = Tokenizer.load(beside if os.path.exists(beside) else f'{data_dir}/tokenizer.json')
    if checkpoint.get('tokenizer_hash', tokenizer.hash) != tokenizer.hash:
        raise ValueError(f'{ckpt} has tokenizer {checkpoint["tokenizer_hash"]}, not {tokenizer.hash} '
                         f'as found; put its own at {beside}')
    begin = [id for name, id in tokenizer.special.items() if name == '<|endoftext|>']     # of documents
    trained = checkpoint.get('config', {})
    chat = trained.get('stage') in ('sft', 'dpo') if chat is None else chat
    if trained.get('objective', 'clm') != 'clm':
        raise ValueError(f'{ckpt} has objective={trained["objective"]}: its loss is the val_loss that '
                         'train.py printed; see what it does with sample.py')
    if os.path.exists(f'{folder}/data.json'):                       # what prepare.py said of the data
        with open(f'{folder}/data.json', encoding='utf-8') as f:
            stamp = json.load(f).get('decontaminated')
    print('contamination: the training data', 'were not checked against any benchmark' if not stamp else
          f'share no {stamp["ngram"]}-gram of words with {", ".join(stamp["problems"])}')
results = {'ckpt': ckpt, 'chat': chat, 'step': checkpoint.get('step'), 'data_dir': data_dir,
           'tokenizer_hash': tokenizer and tokenizer.hash, 'decontaminated': stamp, 'tasks': {}}
out = out or os.path.join(folder, 'scored' if completions else '', 'eval.json')
into = os.path.dirname(os.path.abspath(out))
os.makedirs(into, exist_ok=True)


# --- 3. loss, of each checkpoint on each data ---------------------------------------------------------
@torch.no_grad()
def exact_loss(model, data, T, batch_size):
    """Summed nats of all tokens of data but the first, each predicted once, with the context that its
    block of T gives. The last block is shorter. Returns nats, tokens."""
    model.eval()
    n = len(data) - 1
    starts = range(0, n - n % T, T)
    batches = [starts[i:i + batch_size] for i in range(0, len(starts), batch_size)]
    batches += [[n - n % T]] if n % T else []
    nats = 0.0
    for batch in tqdm(batches, desc='loss', disable=None):
        x, y = (torch.from_numpy(a).to(device) for a in sequences(data, batch, min(T, n - batch[0])))
        nats += model(x, y)[1].item() * y.numel()
    return nats, n


if 'loss' in tasks:
    results['tasks']['loss'], bpb = {}, collections.defaultdict(dict)       # bpb[checkpoint][data]
    print(f'\n{"":<12}{"data":<12}{"nats/token":>12}{"perplexity":>14}{"bits/byte":>12}{"tokens":>12}')
    for path in [ckpt, *later] + ['untrained'] * random_init:
        torch.manual_seed(seed)
        m, said = (model, checkpoint) if path == ckpt else load_checkpoint(path, device) \
            if path != 'untrained' else (GPT(model.config).to(device), {})
        for source in data_dir.split(','):
            meta, bins = open_bins(source, block_size=1)
            if {meta['tokenizer_hash'], said.get('tokenizer_hash', tokenizer.hash)} != {tokenizer.hash}:
                raise ValueError(f'{path} has tokenizer {said.get("tokenizer_hash")}, {source} '
                                 f'{meta["tokenizer_hash"]}; prepare the data with --tokenizer={beside}')
            results['data_sha256'] = results.get('data_sha256') or meta.get('sha256', {}).get('val')
            domains = {'val': bins['val']}
            for file in sorted(glob.glob(f'{source}/val_*.bin')) * (path != 'untrained'):   # of a mix
                if os.path.getsize(file):
                    domains[os.path.basename(file)[4:-4]] = np.memmap(file, meta['dtype'], mode='r')
            for domain, ids in domains.items():
                ids = ids[:loss_tokens + 1] if loss_tokens else ids
                nats, n = exact_loss(m, ids, m.config.block_size, batch_size)
                n_bytes = int(np.array(tokenizer.text_bytes)[np.asarray(ids[1:])].sum())    # specials: 0
                row = {'nats': nats / n, 'tokens': n, 'bytes': n_bytes,
                       'perplexity': math.exp(min(nats / n, 700)),
                       'bits_per_byte': nats / math.log(2) / max(1, n_bytes)}
                name = path if later or path == 'untrained' else 'trained'
                where = domain if ',' not in data_dir else f'{os.path.basename(source)} {domain}'
                results['tasks']['loss'][name if where == 'val' else f'{name}_{where}'] = row
                bpb[path][where] = row['bits_per_byte']
                print(f'{name[-11:]:<12}{where[:11]:<12}{row["nats"]:>12.4f}{row["perplexity"]:>14.2f}'
                      f'{row["bits_per_byte"]:>12.4f}{n:>12,}')
    print(f'(an untrained model should be near ln V = {math.log(model.config.vocab_size):.4f} nats)')
    for path in later:      # better here, worse there: what it was shown cost it what it knew
        gain = {where: 1 - bpb[path][where] / bpb[ckpt][where] for where in bpb[path]}
        best, worst = max(gain, key=gain.get), min(gain, key=gain.get)
        if gain[best] > 0 and gain[worst] < -0.02:
            print(f'warning: over-specialised? {path} has {gain[best]:.1%} fewer bits/byte than {ckpt} '
                  f'on {best}, {-gain[worst]:.1%} more on {worst}; train with some of that, too')


# --- 4. completions -----------------------------------------------------------------------------------
def generate(prompts, ends=None):
    """num_samples texts for each prompt, a text or a conversation. ends: the pattern where a text ends,
    looked for from the prompt's last character on.

    Prompts of equally many tokens share a batch: no padding to get wrong. Once half of a large batch has
    ended, the rest starts again behind what it has: one pass over that, then half the work."""
    stop = [tokenizer.special[x] for x in ('<|endoftext|>', '<|im_end|>') if x in tokenizer.special]
    rows, length = [], lambda row: len(row['ids'])
    for prompt in prompts:
        is_text = isinstance(prompt, str)
        whole = begin + tokenizer.encode(prompt) if is_text else tokenizer.render(prompt, True)[0]
        ids, allowed = tokenizer.heal(whole) if is_text and len(whole) > 1 else (whole, None)
        again = len(tokenizer.decode_bytes(whole[len(ids):]))   # bytes of the prompt that come once more
        first = torch.zeros(model.config.vocab_size, dtype=torch.bool)
        first[slice(None) if allowed is None else allowed] = True
        rows += [{'ids': list(ids), 'limit': len(ids) + max_new_tokens + (again > 0), 'first': first,
                  'again': again, 'last': prompt[-1:] if ends else '', 'bytes': b'', 'text': None}
                 for _ in range(num_samples)]
    batches = []
    for _, same in itertools.groupby(sorted(rows, key=length), length):
        same = list(same)
        batches += [same[i:i + batch_size] for i in range(0, len(same), batch_size)]
    for batch in tqdm(batches, desc='samples', disable=None):
        first = torch.stack([row['first'] for row in batch]).to(device)      # (B, V)
        while batch:
            x = torch.tensor([row['ids'] for row in batch], device=device)      # (B, T)
            for tokens in model.stream(x, max_new_tokens + 1, temperature, top_k, top_p, stop, first):
                for row, token in zip(batch, tokens.tolist()):
                    if row['text'] is not None:
                        continue
                    row['ids'].append(token)
                    row['bytes'] += b'' if token in stop else tokenizer.decode_bytes([token])
                    text = row['bytes'][row['again']:].decode('utf-8', 'replace')
                    end = re.search(ends, row['last'] + text) if ends else None
                    if end:
                        row['text'] = text[:max(0, end.end() - len(row['last']))]
                    elif token in stop or length(row) == row['limit']:
                        row['text'] = text
                n_left = sum(row['text'] is None for row in batch)
                if n_left <= (len(batch) // 2 if len(batch) >= 8 else 0):
                    break
            batch, first = [row for row in batch if row['text'] is None], None
    return [[row['text'] for row in rows[i:i + num_samples]] for i in range(0, len(rows), num_samples)]


@torch.no_grad()
def choose(messages, prompt, options):
    """The number of the option that is most probable behind the question: per byte, so that length is no
    disadvantage, and as it is."""
    context = tokenizer.render(messages, True)[0] if chat else begin + tokenizer.encode(prompt)
    scores = []
    for option in options:
        ids = tokenizer.encode(option if chat else f' {option}')
        x = torch.tensor([(context + ids)[-model.config.block_size - 1:]], device=device)   # (1, T + 1)
        logp = model(x[:, :-1])[0][0, -len(ids):].log_softmax(-1)      # (n, V)
        scores.append(logp.gather(1, x[0, 1:][-len(ids):, None]).sum().item())
    per_byte = [score / len(option.encode()) for score, option in zip(scores, options)]
    return per_byte.index(max(per_byte)), scores.index(max(scores))


# --- 5. answers in words ------------------------------------------------------------------------------
def is_json(text):
    try:
        return json.loads(re.sub(r'^```\w*\n|\n```$', '', text.strip())) is not None
    except ValueError:
        return False


RULES = {'contains': lambda text, value: value.lower() in text.lower(),
         'not_contains': lambda text, value: value.lower() not in text.lower(),
         'starts_with': lambda text, value: text.strip().startswith(value),
         'ends_with': lambda text, value: text.strip().endswith(value),
         'min_words': lambda text, n: len(text.split()) >= n,
         'max_words': lambda text, n: len(text.split()) <= n,
         'lines': lambda text, n: len(text.strip().split('\n')) == n,
         'regex': lambda text, value: re.search(value, text, re.S),
         'json': lambda text, _: is_json(text), 'lowercase': lambda text, _: text == text.lower()}


def last_number(text):
    """The number behind ####, or else the last one: '2 make $1,200.00.' -> 1200.0"""
    found = re.findall(r'-?\d[\d,]*(?:\.\d+)?', text.split('####')[-1])
    return float(found[0 if '####' in text else -1].replace(',', '')) if found else None


# --- 6. counting --------------------------------------------------------------------------------------
def pass_at_k(n, c, k):
    """The chance that one of k completions, drawn from n of which c pass, does: 1 - C(n-c, k) / C(n, k)
    (Chen et al. 2021, arXiv:2107.03374). pass_at_k(4, 1, 2) -> 0.5"""
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def interval(scores):
    """95 % interval of the mean of scores from 0 to 1, one for each problem."""
    n, p, z = max(1, len(scores)), sum(scores) / max(1, len(scores)), 1.96
    if set(scores) <= {0, 1}:           # Wilson 1927: it has a width at 0 and 1, too
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
        return [max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))]
    drawn = np.random.default_rng(0).integers(n, size=(2000, n))        # the bootstrap, over problems
    return np.percentile(np.array(scores)[drawn].mean(1), [2.5, 97.5]).tolist()


def summarise(rows, ks):
    """What rows with task_id and outcome say. `infrastructure` was no answer: it does not count."""
    groups, outcomes = collections.defaultdict(list), collections.Counter(row['outcome'] for row in rows)
    for row in rows:
        groups[row['task_id']] += [row['outcome'] == 'passed'] * (row['outcome'] != 'infrastructure')
    groups = [group for group in groups.values() if group]
    n, result = sum(map(len, groups)), {'n': len(groups), 'samples': sum(map(len, groups))}
    for k in ks:
        scores = [pass_at_k(len(group), sum(group), k) for group in groups if len(group) >= k]
        result[f'pass@{k}'] = sum(scores) / max(1, len(scores))
    taste = sum(row['outcome'] == 'passed' and row['preferred'] for row in rows)
    return result | {'interval': interval([sum(group) / len(group) for group in groups]),
                     'parse_rate': 1 - (outcomes['syntax'] + outcomes['empty']) / max(1, n),
                     'preferred_rate': taste / max(1, outcomes['passed']), 'outcomes': dict(outcomes)}


# --- 7. the sampled tasks: ask, judge, count ----------------------------------------------------------
def execute(jobs):
    """The results of programs; of the same program, asked for several times, the same one."""
    different = list(dict.fromkeys(jobs))
    run = tqdm(run_many(different, timeout, memory_mb), 'run', len(different), disable=None)
    found = dict(zip(different, run))
    return [found[job] for job in jobs]


samples = []                                        # every completion, as samples.jsonl will have it
for task in sampled:
    torch.manual_seed(seed)                         # no task's numbers depend on the one before
    items = read_jsonl(files[task])[:n_problems] if task != 'problems' else \
        [p for split in splits.split(',') for p in problems(n_problems or 100, problems_seed, split)]
    try:
        for i, p in enumerate(items):
            p.setdefault('task_id', f'{task}/{i}')
            ask = p.get('prompt') or p.get('question') or p['ctx']
            if task in CODE:
                ask = f'Complete:\n{ask.rstrip()}' if task in files else to_messages(p)[0]['content']
                p['reference'] = p['prompt'] + p['canonical_solution']
            elif task == 'choice' and isinstance(p.get('choices'), dict):                       # ARC
                p['answer'] = p['choices']['label'].index(p['answerKey'])
                p['choices'] = p['choices']['text']
            if task == 'mbpp':      # its references have any indent; its tests forgot to import math
                indent = re.search(r'^[ \t]+', p['canonical_solution'], re.M)[0]
                p['reference'] = re.sub(r"\n[ \t]*'''", f"\n{indent}'''", p['reference'], count=1)
                p['test'] = 'import math\n' + p['test']
            p['prompt'] = f'Question: {ask}\nAnswer:' if 'question' in p else p.get('prompt', ask)
            p['messages'] = [{'role': 'user', 'content': ask}]
            [RULES[rule['kind']] for rule in p.get('rules', [])]
    except (KeyError, AttributeError, TypeError) as e:
        raise ValueError(f'{files.get(task)}, problem {i + 1}, is no {task}: {e!r}; see the top of '
                         'eval.py') from e

    # can the harness tell right from wrong? Of a benchmark's own solutions, one or 1 % may fail; ours are
    # known to pass (tests/test_problems.py), so that twenty are enough
    if task in (*CODE, 'own'):
        checked = items if task in files else items[::math.ceil(len(items) / 20)]
        right = [(p['reference'], p['test'], p['entry_point']) for p in checked if task in CODE]
        empty = [(p['prompt'] + '    pass\n', *job[1:]) for p, job in zip(checked, right)]
        broken = [i for i, result in enumerate(execute(right)) if result.outcome != 'passed']
        broken = [i for i in broken if execute([right[i]])[0].outcome != 'passed']  # once more, alone
        n_empty = sum(result.outcome == 'passed' for result in execute(empty))
        loop = execute([('while True:\n    pass', 'assert True', '')])[0]
        if len(broken) > max(len(right) > 1, len(right) / 100) or n_empty or loop.outcome != 'timeout':
            raise ValueError(f'no score, for the harness cannot tell right from wrong: {len(broken)} of '
                             f'{len(right)} references fail, {n_empty} empty bodies pass, a loop ends '
                             f'as {loop.outcome!r}; see: python -m pytest tests/test_sandbox.py')
        left_out = [checked[i]['task_id'] for i in broken]
        results |= {'network_denied': loop.network_denied, 'left_out': left_out}
        print('problems left out, as their own solutions fail:', *left_out or ['none'])
        items = [p for p in items if p['task_id'] not in left_out]
    if completions:
        given = collections.defaultdict(list)
        for row in read_jsonl(completions):
            given[row.get('task_id')] += [row.get('completion', '')] * (row.get('task', task) == task)
        answers = [given[p['task_id']] for p in items]
        short = [p['task_id'] for p, texts in zip(items, answers) if len(texts) < ks[-1]]
        if short:
            raise ValueError(f'{completions} has fewer than {ks[-1]} completions of {len(short)} of the '
                             f'{len(items)} problems, such as {short[0]}; add them, or lower --k')
    elif task == 'choice':
        options = [p.get('choices') or p['endings'] for p in items]
        picks = [choose(p['messages'], p['prompt'], texts)
                 for p, texts in zip(tqdm(items, desc='choice', disable=None), options)]
        answers = [[texts[pick]] for texts, (pick, _) in zip(options, picks)]
    else:           # a function ends before the next line in column 0, HumanEval's stop words among them
        ends = {**dict.fromkeys(CODE, r'\n(?=[^\s)\]}])'), 'gsm8k': r'\n(?=Question:)'}.get(task)
        bf16 = dtype == 'bfloat16' or dtype == 'auto' and device.startswith('cuda')
        with torch.autocast(device.split(':')[0], torch.bfloat16, enabled=bf16):
            answers = generate([p['messages'] if chat else p['prompt'] for p in items],
                               None if chat else ends)
    rows, jobs = [], []                             # jobs: (row, program, tests, entry point)
    for i, (p, texts) in enumerate(zip(items, answers)):
        for text in texts:
            row = {x: p.get(x) for x in ('task_id', 'family', 'cell', 'split', 'prompt')}
            row |= {'task': task, 'messages': p['messages'] if chat else None, 'completion': text,
                    'outcome': 'empty', 'message': '', 'preferred': preferred(text)}
            rows.append(row)
            good, fence = False, re.search(r'```\w*\n(.*?)(```|$)', text, re.S)
            before, code = p['prompt'], text
            if chat:                # the code in the answer, behind the imports of the prompt
                before = before[:max(0, before.rfind(f'def {p.get("entry_point")}'))]
                code = fence[1] if fence else text
            if not text.strip():
                continue
            if task in CODE:
                jobs.append((row, before + code, p['test'], p['entry_point']))
            elif task == 'gsm8k':
                good = None is not last_number(text) == last_number(p['answer'])
            elif task == 'choice':
                right = str(p.get('answer', p.get('label')))
                right = 'ABCDEFGHIJ'.index(right) if right in 'ABCDEFGHIJ' else int(right)
                good, row['raw'] = picks[i][0] == right, picks[i][1] == right
            else:
                rules = [(rule['kind'], rule.get('value')) for rule in p.get('rules', [])]
                for key, kind in ('must_contain', 'contains'), ('must_not_contain', 'not_contains'):
                    rules += [(kind, value) for value in p.get(key, [])]
                rules += [('regex', p['regex'])] if 'regex' in p else []
                row['message'] = ', '.join(kind for kind, value in rules if not RULES[kind](text, value))
                good = not row['message']
                if good and 'tests' in p:
                    jobs.append((row, before + code, p['tests'], ''))
            row['outcome'] = 'passed' if good else 'wrong'
    for (row, *_), result in zip(jobs, execute([job[1:] for job in jobs])):
        row.update(outcome=result.outcome, message=result.message)
    samples += rows
    with open(f'{into}/samples.jsonl', 'w', encoding='utf-8') as f:
        f.writelines(json.dumps(row) + '\n' for row in samples)
    n_lost = sum(row['outcome'] == 'infrastructure' for row in rows)
    if n_lost > len(rows) / 50:
        raise ValueError(f'no score of {task}: the machine, not the model, failed {n_lost}/{len(rows)}')
    result = results['tasks'][task] = summarise(rows, ks)
    for key in ('split', 'family', 'cell') * (task == 'problems'):
        result[f'by_{key}'] = {name: summarise([row for row in rows if row[key] == name], ks)
                               for name in sorted({row[key] for row in rows})}
    if task == 'choice':
        result['raw'] = sum(row['raw'] for row in rows) / len(rows)
        result['chance'] = sum(1 / len(texts) for texts in options) / len(options)
        print(f'\nnot divided by the length: {result["raw"]:.3f}; by chance: {result["chance"]:.3f}')
    print(f'\n{task:<12}{"n":>6}{"samples":>9}', *(f'{f"pass@{k}":>9}' for k in ks),
          f'{"95 % of pass@1":>17}{"parses":>8}  outcomes')
    for name, row in [*result.get('by_split', {}).items(), ('all', result)]:
        print(f'{name:<12}{row["n"]:>6}{row["samples"]:>9}', *(f'{row[f"pass@{k}"]:>9.3f}' for k in ks),
              '{:>9.3f} - {:.3f}'.format(*row['interval']) + f'{row["parse_rate"]:>8.3f}  '
              + ', '.join(f'{n} {outcome}' for outcome, n in row['outcomes'].items()))

# --- 8. two models, problem by problem ----------------------------------------------------------------
if 'compare' in tasks:
    sides = collections.defaultdict(list), collections.defaultdict(list)        # problem -> completions
    for side, path in zip(sides, (into if samples else ckpt, compare)):
        for row in read_jsonl(os.path.join(path, 'samples.jsonl') if os.path.isdir(path) else path):
            side[f'{row["task"]} {row["task_id"]}'].append(row)
    shared = [key for key in sides[0] if key in sides[1]]
    if not shared:
        raise ValueError(f'{ckpt} and {compare} have no problem in common; give both the same --tasks')
    a, b = [[sum(row['outcome'] == 'passed' for row in side[key]) / len(side[key]) for key in shared]
            for side in sides]
    gained, lost = [[key for key, x, y in zip(shared, *ab) if x < y] for ab in ((a, b), (b, a))]
    n, m = len(gained) + len(lost), min(len(gained), len(lost))         # McNemar's exact test
    result = results['tasks']['compare'] = {
        'with': compare, 'n': len(shared), 'a': sum(a) / len(a), 'b': sum(b) / len(b), 'gained': gained,
        'lost': lost, 'p': min(1.0, 2 * sum(math.comb(n, i) for i in range(m + 1)) / 2 ** n),
        'interval': [2 * x - 1 for x in interval([(y - x + 1) / 2 for x, y in zip(a, b)])]}
    print('\n{n} problems: {a:.3f} -> {b:.3f}, 95 % interval of the difference {interval[0]:.3f} to '
          '{interval[1]:.3f}, p = {p:.3f}'.format(**result))
    print(f'gained {len(gained)}: {", ".join(gained[:9])}\nlost {len(lost)}: {", ".join(lost[:9])}')
    rng, pairs = random.Random(seed), [[side[key][0] for side in sides] for key in shared]
    pairs = [pair for pair in pairs if pair[0]['completion'] != pair[1]['completion']]
    rng.shuffle(pairs)
    swap = [rng.random() < 0.5 for _ in pairs]          # who votes must not know which is which
    if not votes:
        with open(f'{into}/sheet.csv', 'w', encoding='utf-8', newline='') as f:
            rows = [[i, pair[0]['prompt'], *(pair[s]['completion'] for s in (swap[i], not swap[i])), '']
                    for i, pair in enumerate(pairs)]
            csv.writer(f).writerows([['id', 'prompt', 'left', 'right', 'vote'], *rows])
        with open(f'{into}/key.json', 'w', encoding='utf-8') as f:
            json.dump([{'left': 'ab'[s], 'right': 'ba'[s]} for s in swap], f)
        print(f'{into}/sheet.csv: vote left, right or tie in copies; then add --votes=A.csv,B.csv')
    raters = {'tests': {i: ('tie', 'b', 'a')[(y['outcome'] == 'passed') - (x['outcome'] == 'passed')]
                        for i, (x, y) in enumerate(pairs)}}
    for path in votes.split(',') if votes else ():
        with open(path, encoding='utf-8', newline='') as f:
            said = {int(row['id']): row['vote'].strip().lower() for row in csv.DictReader(f)}
        raters[path] = {i: 'tie' if vote == 'tie' else 'ab'[(vote == 'right') != swap[i]]
                        for i, vote in said.items() if vote in ('left', 'right', 'tie')}
    result |= {'agreement': {}, 'votes': {x: collections.Counter(raters[x].values()) for x in raters}}
    for x, y in itertools.combinations(raters, 2):      # Cohen's kappa (1960): agreement beyond chance
        both = [(raters[x][i], raters[y][i]) for i in raters[x] if i in raters[y]]
        n, agree = max(1, len(both)), sum(u == v for u, v in both) / max(1, len(both))
        chance = sum(u == v for u, _ in both for _, v in both) / n ** 2
        kappa = (agree - chance) / (1 - chance) if chance < 1 else None
        result['agreement'][f'{x}, {y}'] = {'n': len(both), 'agree': agree, 'kappa': kappa}
        print(f'{x} and {y} agree on {agree:.0%} of {len(both)}, kappa {kappa}')

with open(f'{out}.tmp', 'w', encoding='utf-8', newline='\n') as f:
    json.dump(results, f, indent=1)
os.replace(f'{out}.tmp', out)
print(f'\nwritten to {out}; next: python sample.py --ckpt={ckpt}')
