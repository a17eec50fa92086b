"""
Evaluation: how good a checkpoint is, measured on held-out data. Scores have 95% intervals.

    python eval.py --ckpt=out/quickstart --data_dir=data/quickstart
    python eval.py --ckpt=out/sft --tasks=problems --num_samples=8 --allow_code_execution=True
    python eval.py --ckpt='out/sft/*.pt' --tasks=gsm8k,own --data=gsm8k_test.jsonl,own.jsonl
    python eval.py --ckpt=out/a,out/b --data_dir=data/code,data/prose   # which is better at what
    python eval.py --tasks=compare --ckpt=out/sft --compare=out/dpo --out=out/dpo/compare.json

loss            nats, perplexity and bits per byte of val.bin, and of each source of a mixture
compare         pass@k of two samples.jsonl, whose answers are judged already, and the problems that
                the second model gained and lost
problems        functions that the model writes and we run, n_problems of each of these splits:
                variation (as sft.py shows), feedback_variation (as DPO and RL practice), cell
                (known steps in a combination that no stage shows), family (unseen tasks)
humaneval, mbpp other functions to write, from a file in the layout of HumanEval or MBPP
gsm8k           the last number of the answer must be the one behind #### in the file
own             your questions: {"prompt": "2 + 2?", "regex": "4"}; see docs/measuring.md
judge           questions, such as the first turns of MT-Bench, graded 1 to 10 by a command, --judge

Only loss and compare need no extras/. Choose the measure before you train: of twenty that did not
change, about one leaves its 95% interval by chance, and looks like progress.

eval.py writes eval.json and samples.jsonl (every completion) next to the first checkpoint, in place
of older ones. With --completions=a/samples.jsonl, which must stay, it writes both into a/scored.
"""
import collections, functools, glob, json, math, os, pathlib, re, shlex
from typing import Literal
import numpy as np
import torch
from tqdm import tqdm
from configurator import Mistake, configure, require
from model import GPT
from tokenizer import Tokenizer

TASKS = 'loss', 'problems', 'humaneval', 'mbpp', 'own', 'gsm8k', 'judge', 'compare'

# --- settings -------------------------------------------------------------------------------------
# the first ones to change
ckpt = 'out/base'               # checkpoint: a folder or a .pt file; several: A,B or A/*.pt
tasks = 'loss'                  # names from the list above, comma-separated
data_dir = 'data/quickstart'    # prepared text for the loss; several: A,B
data = ''                       # questions: a .jsonl or .jsonl.gz file; of several tasks: A,B
allow_code_execution = False    # True: run a model's programs; first read extras/sandbox.py
out = ''                        # file for the results; '' = eval.json, see above
# questions
n_problems = 0                  # questions; 0 = 100 of each split, or a whole file
splits = 'variation,feedback_variation,cell,family'     # see the top; also SPLITS in problems.py
problems_seed = 0               # seed of the problems of these splits
completions = ''                # answers to score without a model: {"task_id", "completion"} lines
compare = ''                    # samples.jsonl of a second model, or its folder
judge = ''                      # command that gets JSON on stdin and prints a grade
# answers
num_samples = 1                 # answers to a question
k = '1'                         # answers drawn for pass@k, at most num_samples; several: 1,10,100
temperature: float | None = None    # 0 = the likeliest token; None = 0 for 1 answer, else 0.8
top_k = 0                       # number of likeliest tokens to draw from; 0 = all
top_p = 1.0                     # probability of the likeliest tokens to draw from; 1 = all
max_new_tokens = 256            # tokens of an answer
chat: bool | None = None        # ask in a conversation; None = as the checkpoint was taught
timeout = 3.0                   # seconds for a program
memory_mb = 512                 # MB for a program
# loss
random_init = True              # measure an untrained model, too
loss_tokens = 0                 # tokens to measure, from the beginning; 0 = all
# machine
batch_size = 16                 # sequences per forward pass
device = 'auto'                 # auto, cpu, cuda, cuda:1, mps
dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto'  # for answers; auto = bfloat16 on GPUs
seed = 1337                     # seed of the untrained model and of answers
# The least and the most of some numbers; all others are at least 0.
BOUNDS = {'num_samples': (1, 10000), 'max_new_tokens': (1, 1e6), 'batch_size': (1, 1e6),
          'top_p': (1e-9, 1), 'timeout': (0.01, 86400), 'memory_mb': (1, 1e9),
          'seed': (0, 2 ** 32 - 1)}


# --- 1. what is measured on text; what you add also goes into the dictionary of part 5 ------------
@torch.no_grad()
def exact_loss(model, ids, batch_size):
    """Return (nats, n): the summed loss of the n tokens ids[1:]. Each is predicted once, from its
    block so far. Of 11 ids and blocks of 4, 10 tokens are predicted, in blocks of 4, 4 and 2:

        x   0 1 2 3 | 4 5 6 7 | 8 9         y   1 2 3 4 | 5 6 7 8 | 9 10

    A block sees no other block, so batch_size changes the loss by rounding only."""
    T = model.config.block_size
    n = len(ids) - 1
    cuts = sorted({*range(0, n - n % T, T * batch_size), n - n % T, n})     # batch_size=1: 0 4 8 10
    nats = 0.0
    for begin, end in tqdm([*zip(cuts, cuts[1:])], 'loss', disable=None):
        length = min(T, end - begin)
        some = torch.from_numpy(ids[begin:end + 1].astype(np.int64))
        some = some.to(model.embedding.weight.device)  # (B T + 1,)
        _, loss = model(some[:-1].view(-1, length), some[1:].view(-1, length))
        nats += loss.item() * (end - begin)         # the model returns the mean
    return nats, n


def bits_per_byte(nats, n_bytes):
    """Return the summed loss in bits, for each byte of the text: a loss that can be compared
    between tokenizers. Two models read "the ", 4 bytes. To one it is a single token, of which it is
    rather unsure. The other reads letters, and wavers between two at each of them:

        tokens      p of each   nats a token    summed nats     bits    bits per byte
        "the "      1/16        2.77            2.77            4       1
        t h e " "   1/2         0.69            2.77            4       1

    Both find the text equally likely."""
    return nats / math.log(2) / max(1, n_bytes)


# --- 2. what is measured on answers; what you add goes into summarise() ---------------------------
def pass_at_k(n, c, k):
    """Return the chance that at least one of k completions passes, if k of n are drawn and c of the
    n pass (Chen et al. 2021, arXiv:2107.03374, eq. 1). pass_at_k(4, 1, 2) -> 0.5.
    pass_at_k(10, 3, 5) -> 0.917. With p = 3/10, 1 - (1 - p)^5 would say 0.832. That is too low on
    average, because it may draw a failed answer twice: k different answers are drawn."""
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def mean(numbers):
    return sum(numbers) / max(1, len(numbers))


def interval(scores):
    """Return the 95% interval of a pass rate. scores: of each problem the fraction of its answers
    that pass, 0 to 1.
    interval([1] * 8 + [0] * 2) -> [0.49, 0.94]: ten problems say little. Half of 200 problems gives
    [0.43, 0.57], half of 800 [0.47, 0.53]: four times the problems halve the width."""
    n = max(1, len(scores))
    p = mean(scores)
    # Wilson 1927. A measured rate p is within 1.96 standard errors of the true rate q 95% of the
    # time, and the error is sqrt(q (1 - q) / n). So the interval has each q from which p is that
    # close. Its ends solve (p - q)^2 = w q (1 - q) with w = 1.96^2 / n, a quadratic equation. Of
    # ten problems that all pass, it is [0.72, 1], where the error at p itself would be 0. Fractions
    # such as 0.25 vary less than the 0 and 1 of single answers: it is then a little too wide.
    w = 1.96 ** 2 / n
    half = math.sqrt(w * (p * (1 - p) + w / 4))
    return [max(0.0, (p + w / 2 - half) / (1 + w)), min(1.0, (p + w / 2 + half) / (1 + w))]


def bootstrap(scores):
    """Return the 95% interval of the mean of any scores from 0 to 1: of n scores, n are drawn,
    putting each back, 2,000 times, and 95% of the means lie in the interval. Scores that are all
    alike would get an interval without a width, so for these, and for 0 and 1, see interval()."""
    if set(scores) <= {0, 1} or len(set(scores)) == 1:
        return interval(scores)
    n = len(scores)
    drawn = np.random.default_rng(0).integers(n, size=(2000, n))
    return np.percentile(np.array(scores)[drawn].mean(1), [2.5, 97.5]).tolist()


def paired_difference(before, after):
    """Return [difference, low, high]: how much higher the mean of `after` is, and its 95% interval.
    Two models answered the same problems, and what is hard for one is hard for the other. The
    scores of each lie far apart, so both have wide intervals; the differences lie close together:

        before      0.9     0.5     0.1
        after       1.0     0.7     0.2
        gained      0.1     0.2     0.1"""
    # bootstrap() takes numbers from 0 to 1, so a difference of -1 goes in as 0, and 1 as 1.
    changes = [(1 + b - a) / 2 for a, b in zip(before, after)]
    low, high = [2 * end - 1 for end in bootstrap(changes)]
    if before == after:         # Of n others, up to this fraction may differ, all in one direction.
        high = interval([0] * len(before))[1]
        low = -high
    return [mean(after) - mean(before), low, high]


# A row: {'task': 'problems', 'task_id': 'cell-0/7', 'split': 'cell', 'kind': 'unseen combinations',
# 'prompt': ..., 'completion': ..., 'outcome': 'exception', 'why': 'name', 'ckpt': 'out/sft', ...}
def by_problem(rows):
    """Return {problem: its rows of samples.jsonl} without those that nobody could judge: their
    outcome is infrastructure (the machine failed) or ungraded. Others are passed, judged (by a
    grade), wrong, syntax (no program), exception, timeout and the like. A problem is its name and
    its prompt, because in files without ids one name may mean two questions."""
    problems = collections.defaultdict(list)
    for row in rows:
        if row['outcome'] not in ('infrastructure', 'ungraded'):
            name = f'{row.get("task")} {row["task_id"]}'
            problems[name, str(row.get('prompt'))].append(row)
    return problems


def worth(row):
    """Return what an answer is worth, 0 to 1: whether it passed, or a judge's grade from 1 to 10
    as a fraction of that scale."""
    return (row['score'] - 1) / 9 if 'score' in row else int(row['outcome'] == 'passed')


def summarise(rows, ks):
    """Return pass@k of rows of samples.jsonl, which is the mean over problems with at least k
    judged answers, and the interval of pass@1; or a judge's mean grade and its interval."""
    problems = by_problem(rows).values()
    # what each answer to a problem is worth: [[1, 0, 1, 1], ...]
    groups = [[*map(worth, answers)] for answers in problems]
    means = [*map(mean, groups)]
    outcomes = collections.Counter(row['outcome'] for row in rows)
    failures = collections.Counter(row.get('why', row['outcome']) for row in rows
                                   if row['outcome'] not in ('passed', 'judged'))
    result = {'n': len(groups), 'samples': sum(map(len, groups))}
    if any('score' in row for row in rows):     # 0.5 is the grade 5.5
        low, high = bootstrap(means)
        result |= {'score': 1 + 9 * mean(means), 'interval': [1 + 9 * low, 1 + 9 * high]}
    else:
        for k in ks:
            chances = [pass_at_k(len(few), sum(few), k) for few in groups if len(few) >= k]
            result[f'pass@{k}'] = mean(chances) if chances else None
        result['interval'] = interval(means)
    programs = [row for answers in problems for row in answers if 'preferred' in row]
    if programs:
        result['parse_rate'] = mean([row['outcome'] not in ('syntax', 'empty') for row in programs])
    return result | {'failures': dict(failures.most_common()), 'outcomes': dict(outcomes)}


def compare_samples(before, after):
    """Return what the second of two models gained and lost, of the rows of their samples.jsonl."""
    before, after = by_problem(before), by_problem(after)
    shared = [problem for problem in before if problem in after]
    require(shared, 'the two samples.jsonl have no problem in common: give both the same --tasks')
    a, b = [[mean([*map(worth, rows[problem])]) for problem in shared] for rows in (before, after)]
    names = [name for name, _ in shared]
    # such as practice tasks; rows of older files have none
    kinds = [before[problem][0].get('kind') or after[problem][0].get('kind') for problem in shared]
    gain = {'all': paired_difference(a, b)}
    for kind in dict.fromkeys(filter(None, kinds)):
        some = [i for i, own in enumerate(kinds) if own == kind]
        gain[kind] = paired_difference([a[i] for i in some], [b[i] for i in some])
    return {'n': len(shared), 'a': mean(a), 'b': mean(b), 'interval': gain['all'][1:],
            'gained': [name for name, x, y in zip(names, a, b) if x < y],
            'lost': [name for name, x, y in zip(names, a, b) if x > y], 'gain': gain}


def shown(value):
    """Return how a table shows a value: 0.5 as 0.5000, {'name': 3} as `name 3`, and [] as none."""
    if isinstance(value, dict):
        value = [f'{name} {n}' for name, n in value.items()]
    if isinstance(value, list):
        return ', '.join(map(shown, value)) or 'none'
    return f'{value:.4f}' if isinstance(value, float) else str(value)


def print_table(title, rows):
    """Print rows {name: {head of a column: value}}, with the columns of the first one."""
    first = next(iter(rows.values()))
    width = max(26, *map(len, rows))
    for name, row in {title: dict(zip(first, first)), **rows}.items():
        cells = [f'{shown(row.get(head, "-")):>16}' for head in first if head != 'outcomes']
        print(f'{name:<{width}}', *cells)
    print()


config = configure(globals(), BOUNDS)       # config files and flags replace the settings

# --- 3. what is asked for, and where the results go -----------------------------------------------
all_tasks = [*dict.fromkeys(tasks.split(','))]          # each once
require({*all_tasks} <= {*TASKS}, f'--tasks={tasks}: the tasks are {", ".join(TASKS)}; for '
        'multiple choice and IFEval take lm_eval, see docs/measuring.md')
asking = [task for task in all_tasks if task not in ('loss', 'compare')]
needs_model = not completions and all_tasks != ['compare']
require(bool(judge) == ('judge' in all_tasks) and bool(compare) == ('compare' in all_tasks),
        "--tasks=judge needs --judge='python ask.py', and --tasks=compare --compare=out/dpo")
require(not completions or asking and 'loss' not in all_tasks, f'--tasks={tasks} needs a model, or '
        'grades no answers; leave --completions out')
require(re.fullmatch(r'[1-9]\d{0,8}(,[1-9]\d{0,8})*', k),
        f'--k={k:.80} must be positive integers below a billion, such as 1,10,100')
ks = sorted({1, *map(int, k.split(','))})               # always with 1: the interval is pass@1's
require(completions or not asking or ks[-1] <= num_samples,
        f'pass@{ks[-1]} draws from as many answers or more: --num_samples={ks[-1]}')
paths = [completions] if completions else [
    path for pattern in ckpt.split(',') for path in sorted(glob.glob(pattern)) or [pattern]]
require(len(paths) == 1 or not compare, f'--compare takes one --ckpt, not {ckpt}')


def folder_of(path):
    """Return the folder of a run, given that folder or a file in it."""
    return path if os.path.isdir(path) else os.path.dirname(path)


def samples_in(path):
    """Return the samples.jsonl in a folder, or path itself."""
    return path if path.endswith('.jsonl') else os.path.join(path, 'samples.jsonl')


def read_samples(path):
    """Return the rows of a samples.jsonl, or of the one in a folder: judged answers of a model."""
    path = samples_in(path)
    try:
        rows = [json.loads(line) for line in pathlib.Path(path).read_bytes().splitlines()]
        by_problem(rows)                            # KeyError if a row lacks its outcome
        [_] = {str(row.get('ckpt')) for row in rows}        # ValueError if there are two
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Mistake(f'{path} must have judged answers of one checkpoint, as eval.py writes them: '
                      f'{error!r}') from None
    return rows


def write(path, text):
    """Write a file under a new name, then rename it: two eval.py can't mix what they write."""
    new = pathlib.Path(f'{path}.{os.getpid()}.tmp')
    new.unlink(missing_ok=True)         # it may be a link to somewhere else
    with new.open('x', encoding='utf-8', newline='\n') as f:
        f.write(text)
    new.replace(path)


run_folder = folder_of(paths[0])
out = out or os.path.join(run_folder, 'scored' if completions else '', 'eval.json')
out_folder = os.path.dirname(os.path.abspath(out))
require(out.endswith('.json') and not out.endswith(('config.json', 'data.json', 'tokenizer.json')),
        f'{out=} must end with .json and must not be a file of a run; try --out=eval.json')
inputs = [*data.split(','), completions, compare and samples_in(compare)]
require(not asking or os.path.realpath(samples_in(out_folder)) not in map(os.path.realpath, inputs),
        f'{out=} would replace a file that is read; choose another --out')

report = {'settings': config, 'tasks': {}}      # it becomes eval.json
problems_of, run = {}, None         # without run(), a task that has programs is refused
if allow_code_execution:
    from extras import sandbox
    run = functools.partial(sandbox.run_many, timeout=timeout, memory_mb=memory_mb)
if asking:
    from extras import answers, grading, questions
    problems_of = questions.of_tasks(asking, data, n_problems, problems_seed, splits)
    if completions:
        given = grading.read_answers(completions)
        chat = any(row.get('messages') for row in given) if chat is None else chat
    report['decontaminated'] = questions.contamination(run_folder)     # what was searched for
    # First run answers that are known to be right or wrong: where they are judged otherwise, a
    # verdict says nothing, and the problem is left out.
    problems_of, harness = grading.check(problems_of, run)
    report |= harness

# --- 4. text and models ---------------------------------------------------------------------------
here = ['cpu'] + ['mps'] * torch.backends.mps.is_available() + ['cuda'] * torch.cuda.is_available()
device = here[-1] if device == 'auto' else device
kind, _, number = device.partition(':')         # cuda:1
require(kind in here and f'0{number}'.isdigit(), f'{device=} is not here; try --device=auto')
if kind == 'cuda':
    torch.backends.cuda.enable_cudnn_sdp(False)         # it plans anew for each length of a text
if dtype == 'auto':             # older GPUs only emulate bfloat16, slowly
    is_fast = kind == 'cuda' and torch.cuda.is_bf16_supported(including_emulation=False)
    dtype = 'bfloat16' if is_fast else 'float32'
autocast = torch.autocast(kind, torch.bfloat16, enabled=dtype == 'bfloat16')    # not of the loss


def open_data(folder):
    """Return meta.json and {'val': token ids}, of a mixture also those of each source."""
    files = sorted(pathlib.Path(folder).glob('val*.bin'))
    path = pathlib.Path(folder, 'meta.json')
    require(files and path.exists(), f'{folder} has no prepared text, meta.json and val.bin; run: '
            f'python prepare.py --source=FILE --out_dir={shlex.quote(folder)}')
    meta = json.loads(path.read_bytes())
    bins = {file.stem.removeprefix('val_'): np.memmap(file, meta['dtype'], 'r')
            for file in files if file.stat().st_size > 4}           # bytes: at least two tokens
    require(len(bins.get('val', ())) == meta['tokens']['val'], f'{folder}/val.bin has too few '
            'tokens, or not as many as meta.json says; run prepare.py again')
    return meta, bins


held_out = {folder: open_data(folder) for folder in data_dir.split(',') if 'loss' in all_tasks}
report['data'] = {folder: meta.get('sha256') for folder, (meta, _) in held_out.items()}


@functools.lru_cache(1)
def open_checkpoint(path):
    """Return (model, tokenizer, metadata for eval.json). A single checkpoint stays open for all
    tasks. Several might not fit into memory."""
    if not needs_model:         # the answers are there already
        return None, None, {'ckpt': None, 'step': None, 'chat': chat}
    own = os.path.join(folder_of(path), 'tokenizer.json')
    try:
        model, tokenizer = GPT.load(path).to(device).eval(), Tokenizer.load(own)
    except ValueError as error:
        raise Mistake(error) from None
    trained = model.saved.get('config', {})         # the settings of its training
    require(trained.get('objective', 'clm') == 'clm' and 'reward_head' not in model.saved,
            f'{path} fills gaps (--objective=mlm or span) or is a reward model: it continues no '
            'text; metrics.jsonl says how good it is')
    hashes = {folder: meta['tokenizer_hash'] for folder, (meta, _) in held_out.items()}
    hashes[path] = model.saved.get('tokenizer_hash', tokenizer.hash)
    for source, digest in hashes.items():
        require(digest == tokenizer.hash, f'{source} was made with another tokenizer than {own}; '
                'copy its own one there, or prepare the text with --tokenizer=FILE')
    return model, tokenizer, {          # sft.py, dpo.py and rl.py teach a model to answer
        'ckpt': path, 'step': model.saved.get('step'), 'tokenizer_hash': tokenizer.hash,
        'chat': 'stage' in trained if chat is None else chat}


there = [shlex.quote(os.path.dirname(file)) for file in sorted(glob.glob('out/*/last.pt'))]
advice = (f'give one that does: --ckpt={there[0]}' if there else
          'run: python clean.py && python prepare.py && python train.py')
for path in paths:
    require(completions or os.path.exists(path), f'{path} does not exist; {advice}')
_, _, metadata = open_checkpoint(paths[0])          # what is wrong with it shows now
report |= metadata
os.makedirs(out_folder, exist_ok=True)

# --- 5. the loss of each checkpoint on each text --------------------------------------------------
# The losses have names. 'trained' is a single checkpoint, 'trained_web' its loss on one source of a
# mixture, 'out/a_data/code val' that of one of several checkpoints on one of several folders.
losses = {}
names = paths + ['untrained'] if random_init else paths
for name in names if held_out else []:
    if name in paths:
        model, tokenizer, _ = open_checkpoint(name)
        name = name if len(paths) > 1 else 'trained'
    else:           # it has the last one's shape and tokenizer
        torch.manual_seed(seed)
        model = GPT(model.config).to(device).eval()
    text_bytes = np.array(tokenizer.text_bytes)             # of each token; of specials 0
    for folder, (_, bins) in held_out.items():
        for text, ids in bins.items():
            ids = ids[:loss_tokens + 1] if loss_tokens else ids
            nats, n = exact_loss(model, ids, batch_size)
            n_bytes = int(text_bytes[ids[1:]].sum())
            text = text if len(held_out) == 1 else f'{folder} {text}'
            losses[name if text == 'val' else f'{name}_{text}'] = {
                'nats': nats / n, 'perplexity': math.exp(min(700, nats / n)),
                'bits_per_byte': bits_per_byte(nats, n_bytes), 'tokens': n, 'bytes': n_bytes}
if losses:
    report['tasks']['loss'] = losses
    print_table('loss', losses)

# --- 6. a task: problem -> prompt -> answers -> verdicts -> pass@k --------------------------------
# All problems have one form, see extras/questions.py. This one is from GSM8K: the verdict on an
# answer that ends in 13 is {'outcome': 'passed'}, and on one that ends in 14 {'outcome': 'wrong'}.
# Of a function to complete, 'rules' is [] and 'tests' a program, such as 'assert add(1, 2) == 3'.
#     {'task_id': 'gsm8k/0', 'tests': '', 'entry_point': '', 'solution': '', 'ends': ...,
#      'messages': [{'role': 'user', 'content': 'Janet has 16 eggs and eats 3. How ...?'}],  # chat
#      'prompt': 'Question: Janet has 16 eggs and eats 3. How ...?\nAnswer:',         # base model
#      'rules': [('answer', '16 - 3 = 13\n#### 13')]}      # the answer's last number must be 13
samples = []        # every completion with its outcome, of all tasks and checkpoints


def score(task, problems, path):
    """Return the metadata of a checkpoint, and {'all': its pass@k, ...}, also of each split."""
    model, tokenizer, metadata = open_checkpoint(path)
    # 1. A prompt for each problem
    prompts = [problem['messages' if metadata['chat'] else 'prompt'] for problem in problems]
    # 2. n answers to each prompt, [['yes', 'no'], ...]. `ends`: where those of a base model end.
    if completions:
        texts = grading.given_answers(task, problems, given, ks[-1])
    else:
        try:
            with autocast:
                texts = answers.write(model, tokenizer, prompts, num_samples, problems[0]['ends'],
                                      max_new_tokens, seed, batch_size, temperature, top_k, top_p)
        except ValueError as error:     # of the tokenizer
            raise Mistake(f'{task}: {error}') from None
    # 3. A verdict on each answer: from what its program did, from rules, or from a judge.
    rows = grading.rows_of(task, problems, texts, metadata)
    samples.extend(rows)
    verdicts = grading.verdicts(problems, texts, metadata['chat'], run, judge)
    try:
        for verdict, row in zip(verdicts, tqdm(rows, 'judge', disable=None)):
            row |= verdict
    finally:            # no answer is lost if a judge can't be asked
        write(samples_in(out_folder), ''.join(json.dumps(row) + '\n' for row in samples))
    # 4. pass@k, of all rows and of each split
    parts = {'all': rows}
    for row in rows:
        if row['split']:
            parts.setdefault(row['split'], []).append(row)
    return metadata, {split: summarise(part, ks) for split, part in parts.items()}


for task, problems in problems_of.items():
    scores = [score(task, problems, path) for path in paths]
    scores.sort(key=lambda pair: pair[0]['step'] or 0)
    kinds = {row['split']: row['kind'] for row in samples}      # of 'all' rows there is none
    print_table(task, {
        f'{who["ckpt"] or completions}, step {who["step"]}: {kinds.get(split, "")} {split}': part
        for who, parts in scores for split, part in parts.items()})
    series = []
    for who, parts in scores:
        series.append(parts.pop('all') | who)
        if parts:
            series[-1]['by_split'] = parts
    report['tasks'][task] = series[0] if len(series) == 1 else {'series': series}

# --- 7. two models on the same problems -----------------------------------------------------------
if compare:     # the answers of this run or, if it asked nothing, those next to the checkpoint
    before, after = samples or read_samples(run_folder), read_samples(compare)
    for name, rows in (run_folder, before), (compare, after):
        for task in dict.fromkeys(row.get('task') for row in rows):
            some = [row for row in rows if row.get('task') == task]
            print_table(task or 'judged already', {name: summarise(some, ks)})
    report['tasks']['compare'] = result = compare_samples(before, after)
    print_table('gain', {kind: {'mean': gain[0], 'interval': gain[1:]}
                         for kind, gain in result['gain'].items()})
    for name in 'gained', 'lost':
        print(f'{name}: {shown(result[name])}')

write(out, json.dumps(report, indent=1))
print(f'written to {out}')
if needs_model:
    in_chat = ' --chat=True' if metadata['chat'] else ''
    print(f'next: python sample.py --ckpt={shlex.quote(paths[0])}{in_chat}')
