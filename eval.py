"""
Evaluation: what a checkpoint is worth, counted on held-out data, with confidence intervals.

    python eval.py --ckpt=out/quickstart --data_dir=data/quickstart
    python eval.py --ckpt=out/sft --tasks=problems --num_samples=8 --k=1,8 --allow_code_execution=True
    python eval.py --ckpt='out/sft/*.pt' --tasks=problems --allow_code_execution=True   # over the run
    python eval.py --ckpt=out/sft --tasks=gsm8k,own --data=gsm8k_test.jsonl,my_questions.jsonl
    python eval.py --ckpt=out/a,out/b --data_dir=data/code,data/prose       # which is better at what
    python eval.py --tasks=compare --ckpt=out/sft --compare=out/dpo --out=out/dpo/compare.json

loss            of all val.bin: nats, perplexity, bits per byte; of each source; of an untrained model
problems        functions of parts/eval/problems.py, written by the model and run
humaneval       the same, of a file in HumanEval's layout; mbpp, too
gsm8k           the last number of the answer against the one behind ####
own             yours: {"prompt", "rules", "must_contain", "must_not_contain", "regex", "tests"}
judge           MT-Bench's two turns, graded 1 to 10 by the command --judge
learned         blanks, known words, lines and blocks in generated texts; beside untrained and the corpus
compare         problems gained and lost between two samples.jsonl; a sheet for blind votes; their count

Perplexity, e^nats, is the number of equally likely tokens that the model hesitates between. Bits per byte
can be compared between tokenizers. pass@k: the chance that at least one of k passes. Writes eval.json and
samples.jsonl (every completion) into the checkpoint folder. The decision made here is what progress means.
"""
import collections, glob, json, math, os, re, shlex
import numpy as np
import torch
from tqdm import tqdm
from configurator import configure, show
from model import GPT, load_checkpoint
from parts.prepare import duplicates
from parts.train import checkpoint, machine, records, texts, token_bins
from parts.eval import benchmarks, comparison, grading, problems, sandbox
from parts.sample import asking
from tokenizer import Tokenizer

# --- settings -----------------------------------------------------------------------------------------------
ckpt = 'out/quickstart'         # a folder or a .pt file; several: A,B or A/*.pt
data_dir = 'data/quickstart'    # of loss, learned, overlap; made with ckpt's tokenizer; several: A,B
tasks = 'loss'                  # comma-separated
data: str | None = None         # the benchmark's .jsonl or .jsonl.gz; of several tasks: A,B
completions: str | None = None  # .jsonl of {"task_id", "completion"}: score these, without a model
splits = 'variation,cell,family'    # of problems
n_problems: int | None = None   # >= 1: None = 100 of each split of problems, the whole of a file
problems_seed = 0               # another seed: other problems of these splits
num_samples = 1                 # [1, 10000]: completions per problem; learned: texts, at least 32
k = '1'                         # of pass@k, each at most num_samples: 1,10,100
temperature: float | None = None    # >= 0: None = 0 (the most probable token) for one sample, else 0.8
top_k = 0                       # >= 0: 0 = off
top_p = 1.0                     # (0, 1]: 1 = off
max_new_tokens = 256            # >= 1: tokens of an answer
chat: bool | None = None        # ask in a conversation; None = if the checkpoint was taught to answer
allow_code_execution = False    # True: run a model's programs here; first read parts/eval/sandbox.py
timeout = 3.0                   # (0, 86400]: seconds for a program
memory_mb = 512                 # >= 1: for a program
overlap = 0                     # >= 0: count items with so many words in a row in train.bin; 13; 0 = off
judge = ''                      # a command: JSON on stdin -> a grade on stdout
compare = ''                    # a samples.jsonl or its folder, to set beside that of ckpt
votes = ''                      # filled-in copies of sheet.csv: A,B
batch_size = 16                 # >= 1: sequences per forward pass
random_init = True              # loss, learned: measure an untrained model too
loss_tokens = 0                 # >= 0: loss of the first so many tokens; 0 = of all
device = 'auto'                 # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'                  # auto | float32 | bfloat16: of generation; auto = bfloat16 on GPUs
out: str | None = None          # where the results go; None = eval.json beside the checkpoint
seed = 1337                     # [0, 2**32): of the untrained model, of samples, of the sheet
config = configure(globals())

# --- 1. what is asked ---------------------------------------------------------------------------------------
ANSWERED = *benchmarks.CODE, 'own', 'gsm8k', 'judge'      # the model answers
known = 'loss', *ANSWERED, 'learned', 'compare'
all_tasks = tasks.split(',')
for task in set(all_tasks) - set(known):
    raise ValueError(f'unknown task {task!r}; there are: {", ".join(known)}; {benchmarks.ELSEWHERE}')
answered = [task for task in all_tasks if task in ANSWERED]

if not re.fullmatch(r'[1-9]\d*(,[1-9]\d*)*', k):
    raise ValueError(f'{k=} must be numbers from 1 on, such as 1,10,100')
ks = sorted({1, *map(int, k.split(','))})
if ks[-1] > num_samples and not completions:
    raise ValueError(f'pass@{ks[-1]} needs --num_samples={ks[-1]} or more; num_samples={num_samples}')
for name, its_task in {'compare': 'compare', 'votes': 'compare', 'judge': 'judge'}.items():
    if config[name] and its_task not in all_tasks:
        raise ValueError(f'--{name} is for --tasks={its_task}, not {tasks}')
if 'judge' in all_tasks and (num_samples > 1 or not judge):
    raise ValueError(f'judge takes --num_samples=1, not {num_samples}, and a command, for instance '
                     "--judge='python ask.py'; see docs/measuring.md")

paths = []
for path in ckpt.split(','):                # a folder that exists may look like a pattern
    paths += [path] if os.path.exists(path) else sorted(glob.glob(path)) or [path]
ckpt, *later = paths
if ('compare' in all_tasks and (later or not compare)) or (completions and later):
    raise ValueError(f'{tasks=} takes one ckpt (given: {len(paths)}); compare also needs --compare=out/b')
need_file = [task for task in answered if task != 'problems']
files = data.split(',') if data else []
if len(files) != len(need_file):
    raise ValueError(f'{data=} must name one .jsonl file for each task of {need_file}')

def convert(record):
    """A record of `task`, the present one, as an item. A record that any answer would pass is refused."""
    item = benchmarks.to_item(task, record)
    return item | {'rules': grading.rules_of(task, record)}


items_of = {}                               # task -> its items, see parts/eval/benchmarks.py
for task, path in zip(need_file, files):
    items = records.read_jsonl(path, convert, f'each line is a problem of {task}; see the top of eval.py')
    items_of[task] = benchmarks.identify(task, path, items)[:n_problems]
if 'problems' in answered:
    items = []
    for split in splits.split(','):
        for p in problems.problems(n_problems or 100, problems_seed, split):
            p['asked'] = problems.to_messages(p)[0]['content']
            items.append(benchmarks.to_item('problems', p))
    items_of['problems'] = benchmarks.identify('problems', f'{splits=}', items)
if not allow_code_execution and any(benchmarks.runs(*pair) for pair in items_of.items()):
    raise ValueError("this runs a model's programs; first read parts/eval/sandbox.py, then give "
                     '--allow_code_execution=True')

device, native = machine.choose(device, dtype)
if dtype == 'auto' and device == 'cpu':     # a score should not depend on what the CPU can do
    native = 'float32'
torch.set_float32_matmul_precision('highest')       # and the loss is exact
if temperature is None:
    temperature = 0.0 if num_samples == 1 else 0.8

# --- 2. the model -------------------------------------------------------------------------------------------
def open_bins(source, tokenizer, sides):
    """token_bins.open_bins of a folder, which must have been prepared with this tokenizer."""
    meta, bins = token_bins.open_bins(source, 1, sides)
    checkpoint.same_tokenizer(ckpt, tokenizer.hash, f'{source} (prepare it with --tokenizer={beside})',
                              meta['tokenizer_hash'])
    return meta, bins


folder = ckpt if os.path.isdir(ckpt) and not completions else os.path.dirname(completions or ckpt)
beside = os.path.join(folder, 'tokenizer.json')
model, state, stamp, tokenizer = None, {}, None, None
form = chat                                     # True: the model is asked in a conversation
if {'loss', 'learned'} & set(all_tasks) or (answered and not completions):
    model, state = load_checkpoint(ckpt, device)
    form = benchmarks.form(ckpt, state, chat, all_tasks)
    found = beside if os.path.exists(beside) else f'{data_dir.split(",")[0]}/tokenizer.json'
    tokenizer = Tokenizer.load(found)
    checkpoint.same_tokenizer(ckpt, state.get('tokenizer_hash'), found, tokenizer.hash)

    model = model.grown(tokenizer.vocab_size).eval()        # one of Hugging Face may have no tokens for chat
    stamp = benchmarks.read_stamp(folder)
val_bins = {}
if 'loss' in all_tasks:
    val_bins = {source: open_bins(source, tokenizer, ['val']) for source in data_dir.split(',')}

show(config)
if stamp:
    print(f'contamination: training data share no {stamp["ngram"]}-gram of words with', *stamp['problems'])
elif model:
    print('contamination: the training data were not checked against any benchmark')

results = {'ckpt': None if completions and not model else ckpt, 'completions': completions, 'chat': form,
           'step': state.get('step'), 'data_dir': data_dir, 'decontaminated': stamp,
           'tokenizer_hash': tokenizer and tokenizer.hash, 'tasks': {}}
out = out or os.path.join(folder, 'scored' if completions else '', 'eval.json')
into = os.path.dirname(os.path.abspath(out))
os.makedirs(into, exist_ok=True)


def checkpoints(untrained=False):
    """(name, model, step, form) of each checkpoint, all of one tokenizer, then of an untrained one."""
    yield ckpt, model, state.get('step'), form
    for path in later:
        other, saved = load_checkpoint(path, device)
        checkpoint.same_tokenizer(path, saved.get('tokenizer_hash'), f'{ckpt} (evaluate them one by one)',
                                  tokenizer.hash)
        its_form = benchmarks.form(path, saved, chat, all_tasks)
        yield path, other.grown(tokenizer.vocab_size).eval(), saved.get('step'), its_form
    if untrained:
        torch.manual_seed(seed)
        yield 'untrained', GPT(model.config).to(device), 0, False


def print_row(*cells):
    """A line of a table."""
    line = [f'{cell:.4f}' if isinstance(cell, float) else str(cell) for cell in cells]
    print(f'{line[0][-24:]:<26}' + ''.join(f'{cell:>12}' for cell in line[1:]))


# --- 3. loss, of each checkpoint on each data ---------------------------------------------------------------
@torch.no_grad()
def exact_loss(model, ids, T, batch_size):
    """Summed nats of all ids but the first, each predicted once in its block of T tokens; their number."""
    model.eval()
    n = len(ids) - 1
    whole = range(0, n - n % T, T)
    batches = [whole[i:i + batch_size] for i in range(0, len(whole), batch_size)]
    if n % T:
        batches.append([n - n % T])
    nats = 0.0
    for starts in tqdm(batches, desc='loss', disable=None):
        x, y = token_bins.sequences(ids, starts, min(T, n - starts[0]))                     # (B, T) each
        loss = model(torch.from_numpy(x).to(device), torch.from_numpy(y).to(device))[1]
        nats += loss.item() * y.size
    return nats, n


if 'loss' in all_tasks:
    found = results['tasks']['loss'] = {}
    bpb = collections.defaultdict(dict)             # bpb[checkpoint][data]
    print_row('\nloss', 'data', 'nats/token', 'perplexity', 'bits/byte', 'tokens')
    for path, m, *_ in checkpoints(random_init):
        for source, (meta, bins) in val_bins.items():
            results['data_sha256'] = results.get('data_sha256') or meta.get('sha256', {}).get('val')
            if path != 'untrained':                 # the sources of a mixture, too
                sources = token_bins.open_sources(source, meta, 1)
                bins = bins | {name.removeprefix('val_'): ids for name, ids in sources.items()}
            for where, ids in bins.items():
                ids = ids[:loss_tokens + 1] if loss_tokens else ids
                nats, n = exact_loss(m, ids, m.config.block_size, batch_size)
                n_bytes = int(np.array(tokenizer.text_bytes)[np.asarray(ids[1:])].sum())    # of specials 0
                row = {'nats': nats / n, 'perplexity': math.exp(min(nats / n, 700)),
                       'bits_per_byte': nats / math.log(2) / max(1, n_bytes), 'tokens': n, 'bytes': n_bytes}
                where = f'{source.rstrip("/")} {where}' if ',' in data_dir else where
                name = 'trained' if path == ckpt and not later else path
                found[name if where == 'val' else f'{name}_{where}'] = row
                bpb[path][where] = row['bits_per_byte']
                print_row(name, where, row['nats'], row['perplexity'], row['bits_per_byte'], n)

    print(f'(an untrained model should be near ln V = {math.log(model.config.vocab_size):.4f} nats)')
    for path in later:      # did it get better on one set of data and worse on another?
        gain = {where: 1 - x / bpb[ckpt][where] for where, x in bpb[path].items()}
        best, worst = max(gain, key=gain.get), min(gain, key=gain.get)
        if gain[best] > 0 and gain[worst] < -0.02:
            print(f'warning: over-specialised? {path} has {gain[best]:.1%} fewer bits/byte than {ckpt} on '
                  f'{best}, {-gain[worst]:.1%} more on {worst}; train with some of that, too')

# --- 4. ask, and run ----------------------------------------------------------------------------------------
def generate(model, prompts, n, temperature, ends=None):
    """n pairs (text, whether it ended by itself) for each prompt, and how many prompts were cut."""
    with machine.autocast(device, native):
        return asking.generate(model, tokenizer, prompts, n, max_new_tokens, batch_size, ends,
                               temperature=temperature, top_k=top_k, top_p=top_p)


def ask(model, task, items, in_chat):
    """For each item its answers, pairs as from generate(); and how many prompts were cut. The second question
    of a dialogue follows the answer to the first."""
    ends = None if in_chat else benchmarks.ENDS.get(task)
    answers = [[] for _ in items]
    n_cut = 0
    for turn in range(max(len(item['asked']) for item in items)):
        now = [i for i, item in enumerate(items) if turn < len(item['asked'])]
        prompts = [benchmarks.question(items[i], answers[i])[0 if in_chat else 1] for i in now]
        new, cut = generate(model, prompts, num_samples, temperature, ends)
        n_cut += cut
        for i, pairs in zip(now, new):
            answers[i] += pairs
    return answers, n_cut


execute = lambda jobs: sandbox.run_each(jobs, texts.syntax_error, timeout, memory_mb)

# --- 5. count -----------------------------------------------------------------------------------------------
def pass_at_k(n, c, k):
    """The chance that at least one of k completions passes, if k of n are drawn and c of the n pass:
    1 - C(n-c, k) / C(n, k) (Chen et al. 2021, arXiv:2107.03374, eq. 1). pass_at_k(4, 1, 2) -> 0.5"""
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def summarise(rows, ks):
    """Rows -> pass@k, or the judge's mean score, and more. Rows that could not be judged do not count."""
    outcomes = collections.Counter(row['outcome'] for row in rows)
    groups = collections.defaultdict(list)          # task_id -> of each sample 0 or 1, or the judge's score
    for row in rows:
        if row['outcome'] != 'infrastructure':
            groups[row['task_id']].append(row.get('score', int(row['outcome'] == 'passed')))
    means = [sum(group) / len(group) for group in groups.values()]
    n = sum(len(group) for group in groups.values())
    result = {'n': len(groups), 'samples': n, 'outcomes': dict(outcomes)}
    if any('score' in row for row in rows):
        result['score'] = sum(means) / max(1, len(means))
        return result | {'interval': [10 * x for x in comparison.interval([mean / 10 for mean in means])]}
    for k in ks:
        scores = [pass_at_k(len(group), sum(group), k) for group in groups.values() if len(group) >= k]
        result[f'pass@{k}'] = sum(scores) / max(1, len(scores))
    liked = sum(row['outcome'] == 'passed' and row['preferred'] for row in rows)
    return result | {'interval': comparison.interval(means),
                     'preferred_rate': liked / outcomes['passed'] if outcomes['passed'] else None,
                     'parse_rate': 1 - (outcomes['syntax'] + outcomes['empty']) / max(1, n)}


# --- 6. the tasks that a model answers: check the harness, ask, grade, count --------------------------------
def save():
    """Write samples.jsonl."""
    with open(f'{into}/samples.jsonl', 'w', encoding='utf-8') as f:
        f.writelines(json.dumps(row) + '\n' for row in samples)


samples = []                            # every completion, as samples.jsonl will have it
for task in answered:
    items = items_of[task]
    if overlap:                         # does the training data hold what is asked?
        wanted = {item['task_id']: duplicates.ngrams_of(benchmarks.texts_of(item), overlap) for item in items}
        seen = set()
        for source in data_dir.split(','):
            tok = tokenizer or Tokenizer.load(f'{source}/tokenizer.json')
            ids = open_bins(source, tok, ['train'])[1]['train']
            seen |= duplicates.seen(wanted, texts.text_pieces(ids, tok, overlap), overlap)
    if benchmarks.runs(task, items):
        left_out, loop = benchmarks.check_harness(task, items, execute)     # loop: how an endless one ended
        print('problems left out, as their own solutions fail:', *left_out or ['none'])
        walls = {name: value for name, value in vars(loop).items() if name.endswith('_denied')}
        if not all(walls.values()):
            print('warning: programs run here without all walls, see parts/eval/sandbox.py:', walls)
        results['confined'] = walls
        results['left_out'] = results.get('left_out', []) + left_out
        items = [item for item in items if item['task_id'] not in left_out]

    series = []                         # the result of each checkpoint
    for path, m, step, in_chat in [(None, None, None, form)] if completions else checkpoints():
        torch.manual_seed(seed)         # no task's numbers depend on the one before
        if completions:
            given = records.read_jsonl(completions, dict, 'each line needs a "task_id" and a "completion"')
            answers, n_cut = benchmarks.given_answers(task, items, given, ks[-1]), 0
        else:
            answers, n_cut = ask(m, task, items, in_chat)
        cases = []                      # (item, row of samples.jsonl, conversation before the answer)
        for item, pairs in zip(items, answers):
            cases += [(item, *case) for case in benchmarks.rows_of(task, item, pairs, in_chat)]
        rows = [row for _, row, _ in cases]
        for row in rows:
            row['preferred'] = problems.preferred(row['completion'])    # the way that DPO teaches
            if later:
                row |= {'ckpt': path, 'step': step}
        samples += rows
        save()                          # so that no answer is lost if a judge cannot be asked

        to_run = []                     # (row, what has to be run for it)
        for item, row, messages in tqdm(cases, 'grade', disable=None):
            if row['outcome'] == 'empty':
                continue
            elif task == 'judge':
                grading.judged(item, row, messages, judge)
            elif job := grading.grade(item, row, in_chat):
                to_run.append((row, job))
        for (row, _), result in zip(to_run, execute([job for _, job in to_run])):
            row |= {'outcome': result.outcome, 'message': result.message}
        save()
        lost = [row['message'] for row in rows if row['outcome'] == 'infrastructure']
        if len(lost) > len(rows) / 50:
            raise ValueError(f'no score of {task}: {len(lost)}/{len(rows)} could not be graded: {lost[-1]}')

        first, *others = ['score'] if task == 'judge' else [f'pass@{n}' for n in ks]
        result = summarise(rows, ks)
        result |= {'prompts_cut': n_cut, 'ckpt': path, 'step': step, 'chat': in_chat}
        series.append(result)
        table = {}                      # name of the line -> what it says
        for key in {'problems': ('split', 'family', 'cell'), 'judge': ('turn', 'category')}.get(task, ()):
            names = sorted({row[key] for row in rows}, key=str)
            groups = {str(x): summarise([row for row in rows if row[key] == x], ks) for x in names}
            result[f'by_{key}'] = groups
            table |= {f'{key} {x}': group for x, group in groups.items() if key not in ('family', 'cell')}
        print_row(f'\n{task}', 'n', 'samples', first, '95 % from', 'to', *others, 'parses', 'outcomes')
        for name, row in (table | {'all': result}).items():
            print_row(name, row['n'], row['samples'], row[first], *row['interval'], *(row[x] for x in others),
                      row.get('parse_rate', '-'), row['outcomes'])

        if n_cut:
            print(f'{n_cut} prompts were longer than the context of {m.config.block_size} tokens')
        more = grading.remarks(task, rows, judge)
        result |= more
        print(more or '')
        if overlap:
            fresh = summarise([row for row in rows if row['task_id'] not in seen], ks)
            result['overlap'] = {'words': overlap, 'seen': [id for id in wanted if id in seen],
                                 'too_short': [len(x) for x in wanted.values()].count(0),
                                 'with': result[first], 'without': fresh[first]}
            print(f'{len(seen)} of {len(wanted)} problems have {overlap} words in a row in the training data',
                  *result['overlap']['seen'])
            print_row('without them', fresh['n'], fresh['samples'], fresh[first], *fresh['interval'],
                      *(fresh[x] for x in others))

    results['tasks'][task] = series[-1]
    if later:                           # the run, from its first checkpoint to its last
        series.sort(key=lambda result: result['step'] or 0)
        results['tasks'][task] = {'series': series}
        print_row(f'\n{task}', 'step', first, '95 % from', 'to', *others)
        for result in series:
            print_row(result['ckpt'], result['step'], result[first], *result['interval'],
                      *(result[x] for x in others))

# --- 7. what has been learned, at four levels: characters, words, lines, blocks -----------------------------
if 'learned' in all_tasks:
    n = max(32, num_samples)
    t = 0.8 if config['temperature'] is None else temperature
    found = results['tasks']['learned'] = {}
    bins = open_bins(data_dir.split(',')[0], tokenizer, ['train', 'val'])[1]
    words, beginnings = texts.vocabulary(bins['train'], tokenizer)
    words |= texts.vocabulary(bins['val'], tokenizer)[0]

    for path, m, *_ in checkpoints(random_init):
        torch.manual_seed(seed)
        [pairs], _ = generate(m, ['' if tokenizer.begin else '\n'], n, t)
        found[path] = texts.levels([text for text, _ in pairs], words, beginnings)
    excerpts = texts.excerpts(bins['val'], tokenizer, n, max_new_tokens)
    found['corpus'] = texts.levels(excerpts, words, beginnings)
    print_row(f'\nof {n} texts, share of', *found['corpus'])
    for path, row in found.items():
        print_row(path, *row.values())

# --- 8. two models, problem by problem ----------------------------------------------------------------------
if 'compare' in all_tasks:
    both = []                           # of ckpt, of compare
    for path in (into if samples else folder, compare):
        path = path if path.endswith('.jsonl') else os.path.join(path, 'samples.jsonl')
        rows = records.read_jsonl(path, dict, 'eval.py writes it')
        both.append(comparison.by_problem(rows, path))
    result = comparison.compare(*both) | {'with': compare}
    pairs, sides = comparison.blind(*both, seed)
    result |= comparison.count_votes(pairs, sides, votes.split(',') if votes else [])
    results['tasks']['compare'] = result
    print(comparison.describe(result))
    if not votes:
        comparison.write_sheet(into, pairs, sides)
        print(f'{into}/sheet.csv: vote left, right or tie in copies; then add --votes=A.csv,B.csv')

with open(f'{out}.tmp', 'w', encoding='utf-8', newline='\n') as f:
    json.dump(results, f, indent=1)
os.replace(f'{out}.tmp', out)
writes = model and 'reward_head' not in state
print(f'\nwritten to {out}' + (f'; next: python sample.py --ckpt={shlex.quote(ckpt)}' if writes else ''))
