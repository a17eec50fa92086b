"""
Supervised fine-tuning: a base model and conversations -> a model that answers.

    python prepare.py --kind=sft --source=alpaca.json --out_dir=data/sft
    python sft.py --init_from=out/base --data_dir=data/sft
    python sft.py --init_from=resume --out_dir=out/sft --data_dir=data/sft      # resumes

Reads init_from, a folder that train.py wrote (or a Hugging Face folder of a Llama), and data_dir/train.jsonl
and val.jsonl, lines of {"messages": [{"role": "user", "content": ...}, {"role": "assistant", ...}]}. Writes
out_dir as train.py does. Copy this file with configurator, model, tokenizer and parts/.

Loop and loss are those of train.py. One thing is new, the mask: the loss counts only the assistant's words
and the <|im_end|> after them, in every turn. All other tokens are context, with IGNORE as target. A model
that is also trained on the questions learns to ask. Without training on <|im_end|> it never stops. The
decision made here is the form of an answer: the model copies the length and tone of the conversations.

You should see one conversation with its trained parts in [[ ]], a first loss well above the base model's, and
a fall of loss and val_loss within the first hundred steps. If val_loss rises while the loss falls, the model
memorises: use fewer epochs. With base_dir, base_bpb shows how much the model forgets; replay helps.
"""
import functools, itertools, math, os, shlex, sys
import numpy as np
import torch
from configurator import configure, set_by, show
from model import IGNORE, load_checkpoint, save_checkpoint
from parts.model import adapters, planner
from parts.train import checkpoint, devices, guards, journal, optim, processes, records, start
from parts.train import token_bins, validation
from tokenizer import Tokenizer

# --- settings -----------------------------------------------------------------------------------------------
# files
init_from = 'out/base'          # the folder of the model to start from; or resume: continue in out_dir
data_dir = 'data/sft'           # train.jsonl and val.jsonl, from prepare.py --kind=sft
data_from = ''                  # the command that makes data_dir: shown if it is missing
base_dir = ''                   # data of the base model, to measure how much is forgotten; '' = not
replay = 0                      # >= 0: sequences of base_dir beside the conversations of a step
out_dir = 'out/sft'             # where the run writes
overwrite = False               # True: start over in an out_dir that holds a run, and delete that run
# optimisation
epochs = 3.0                    # >= 0: how often each conversation is seen
max_steps = 0                   # >= 0: updates, instead of epochs; 0 = as many as the epochs take
batch_size = 32                 # [1, 2**20]: conversations per step, over all devices and accumulation
micro_batch_size = 0            # >= 0: conversations per device and forward pass; 0 = all
block_size = 0                  # >= 0: tokens of a conversation; 0 = the model's context; longer ones are cut
lora = 0                        # >= 0: rank of the adapters that train instead of the weights; 0 = none
optimizer = 'adamw'             # adamw | muon: Muon for the matrices in the blocks, AdamW for the rest
learning_rate = 3e-4            # >= 0: for millions of parameters; from 100 million on 1e-5 to 5e-5
warmup_steps: int | float = 0.03  # >= 0: steps in which the rate rises; below 1 a share of all steps
weight_decay = 0.0              # >= 0: of matrices only
grad_clip = 1.0                 # >= 0: largest norm of the gradient; 0 = off
dropout = 0.0                   # [0, 1)
# watching
log_interval = 10               # >= 1: steps
eval_interval = 0               # >= 0: steps; 0 = each epoch; also before the first and after the last
eval_conversations = 512        # >= 1: of val.jsonl, the first ones, always the same
eval_tokens = 65_536            # >= 0: of base_dir, at each evaluation
save_interval = 250             # >= 1: steps
sample_tokens = 100             # >= 1: of the answer to the first held-out question, at each evaluation
expect: dict | None = None      # {'val_loss': (4.05, 4.13)}: the run's last line says whether it came
show_batch: int | None = None   # >= 0: print the conversations of this step's batch, train nothing
# machine
device = 'auto'                 # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'                  # auto | float32 | bfloat16 | float16: of matrix products; auto = native
compile = False                 # torch.compile; lengths vary, so it compiles twice
grad_checkpoint = False         # compute each block again in the backward pass: less memory, more time
seed = 1337                     # [0, 2**32)
config = configure(globals())
config['stage'] = 'sft'         # so eval.py will ask this model in conversations

# --- setup: same text in train.py, sft.py, dpo.py, rl.py ---
rank, world, local_rank = processes.ranks()     # one process per device; torchrun starts them
main_process = rank == 0
device, dtype, autocast, scaler = devices.set_up(device, dtype, local_rank)
per_rank, micro_batch_size = processes.per_process(batch_size, micro_batch_size, world)
only_reads = config.get('show_batch') is not None     # then out_dir may hold a run
last_path = start.check_out_dir(out_dir, init_from, overwrite, only_reads)
log = journal.Journal(out_dir, main_process)
timer = journal.Timer()
processes.join(device)
# --- end setup ---

# --- model --------------------------------------------------------------------------------------------------
load = functools.partial(load_checkpoint, device=device)
model, state, tokenizer = start.open_to_tune(init_from, last_path, load, Tokenizer.load)
if lora and tokenizer.vocab_size > model.config.vocab_size:
    raise ValueError(f'lora={lora} cannot train the new rows of <|im_start|> and <|im_end|>; set --lora=0')
model = model.grown(tokenizer.vocab_size).like(dropout=dropout)     # Hugging Face's may lack chat's tokens
adapters.adapt(model, lora, state)
model.grad_checkpoint = grad_checkpoint
block_size = block_size or model.config.block_size
start.check_context(init_from, model.config.block_size, block_size)
pad = tokenizer.special.get('<|pad|>', 0)


# --- data ---------------------------------------------------------------------------------------------------
def collate(rows, pad):
    """Conversations -> inputs and targets, int64 (B, T), T the longest. A target is the next token if it
    is trained, else IGNORE. Padding is on the right, where causal attention does not see it."""
    T = max(len(ids) for ids, _ in rows) - 1
    x = np.full((len(rows), T), pad)                                                # (B, T)
    y = np.full((len(rows), T), IGNORE)                                             # (B, T)
    for row, (ids, mask) in enumerate(rows):
        x[row, :len(ids) - 1] = ids[:-1]
        y[row, :len(ids) - 1] = np.where(mask[1:], ids[1:], IGNORE)
    return x, y


def marked(ids, mask, tokenizer):
    """Text of a conversation, its trained parts in [[ ]]."""
    text = ''
    for is_trained, part in itertools.groupby(zip(ids, mask), key=lambda pair: pair[1]):
        words = tokenizer.decode([i for i, _ in part])      # all at once: a token may be half a character
        text += f'[[{words}]]' if is_trained else words
    return text


paths = [os.path.join(data_dir, f'{side}.jsonl') for side in ('train', 'val')]
command = f'python prepare.py --kind=sft --source=FILE --out_dir={shlex.quote(data_dir)}'
command = data_from if data_dir in data_from else command
conversations, n_empty, n_cut = records.read_conversations(paths[0], block_size, tokenizer, command)
held_out = records.read_conversations(paths[1], block_size, tokenizer, command)[0][:eval_conversations]
lengths = np.array([len(ids) for ids, _ in conversations])              # (n,): tokens
trained = np.array([sum(mask[1:]) for _, mask in conversations])        # (n,): of them are targets
digests = {os.path.basename(path): records.digest(path) for path in paths}
batches = records.Batches(lengths, batch_size, seed)
max_steps = config['max_steps'] = max_steps or max(1, round(epochs * batches.per_epoch))
eval_interval = eval_interval or batches.per_epoch
warmup_steps, *_ = optim.schedule_ends(max_steps, warmup_steps, learning_rate, 0.0)
if replay % world or (replay and not base_dir):
    raise ValueError(f'replay={replay} must be a multiple of the number of processes, {world}, and needs '
                     '--base_dir=FOLDER')
if base_dir:
    sides = ('train', 'val') if replay else ('val',)
    base_meta, base_bins = token_bins.open_bins(base_dir, block_size, sides)
    start.same_tokenizer(init_from, tokenizer.hash, base_dir, base_meta['tokenizer_hash'],
                         f'prepare it with --tokenizer={start.folder_of(init_from)}/tokenizer.json')


def load_batch(step):
    """This process's micro-batches of a step: inputs and targets, (B, T) each."""
    my_rows = batches.of(step)[rank * per_rank:(rank + 1) * per_rank].reshape(-1, micro_batch_size)
    micro_batches = [collate([conversations[j] for j in rows], pad) for rows in my_rows]
    if replay:          # sequences of the base model's data, in which every token is trained
        ids = base_bins['train']
        starts = token_bins.sequence_starts(step, replay, len(ids), block_size, seed)[rank::world]
        for i in range(0, len(starts), micro_batch_size):
            micro_batches.append(token_bins.sequences(ids, starts[i:i + micro_batch_size], block_size))
    return micro_batches


if show_batch is not None:
    for row, j in enumerate(batches.of(show_batch)):
        text = marked(*conversations[j], tokenizer)
        print(f'--- step {show_batch}, conversation {row} of {batch_size}\n{text}')
    sys.exit()

# --- optimizer, resume --------------------------------------------------------------------------------------
optimizers = optim.build(model, optimizer, learning_rate, (0.9, 0.95), weight_decay)
guard = guards.Guard(state, log.note, scaler.is_enabled())
step = state.get('step', 0)
best_val = state.get('best_val', math.inf)
tokens_seen = state.get('tokens', 0)
if state:
    saved = state.get('digests', {'train.jsonl': state.get('conversations')})       # older runs
    fixed = ['optimizer', 'batch_size', 'block_size', 'dropout', 'seed', 'replay', 'eval_conversations']
    start.same_run(last_path, state['config'] | saved, config | digests, [*fixed, *digests])
    optim.restore(optimizers, scaler, state)
processes.same_start(last_path, config | digests | {'step': step})
net = processes.wrap(torch.compile(model) if compile else model, 'ddp', device)


# --- evaluate, save -----------------------------------------------------------------------------------------
def loss_on(its_batches):
    """See validation.loss_of. its_batches: this process's; the sums are of all processes."""
    on_device = ((devices.to_device(batch, device), True) for batch in its_batches)
    return validation.loss_of(model, tokenizer.text_bytes, autocast, processes.all_sum, on_device)


def answer():
    """The first held-out question and the model's answer to it, as text."""
    ids, mask = held_out[0]
    # an answer begins where trained tokens follow context; token 0 may be in one whose start was cut
    first = next(i for i in range(1, len(ids)) if mask[i] > mask[i - 1])
    with autocast:
        out = model.generate(torch.tensor([ids[:first]], device=device), sample_tokens, temperature=0,
                             stop=tokenizer.stop)
    return tokenizer.decode(out[0].tolist())


@timer.pause('eval')
def evaluate():
    global best_val
    own = sorted(held_out, key=lambda row: len(row[0]))[rank::world]        # sorted: little padding
    micro_batches = [own[i:i + micro_batch_size] for i in range(0, len(own), micro_batch_size)]
    val_loss, *_ = loss_on(collate(rows, pad) for rows in micro_batches)
    row = {'val_loss': val_loss, 'val_ppl': math.exp(min(val_loss, 700))}
    if base_dir:                        # how much of the pretraining is left?
        ids, T = base_bins['val'], model.config.block_size
        blocks = token_bins.evaluation_blocks(ids, T, eval_tokens, micro_batch_size, rank, world)
        row['base_bpb'] = loss_on(token_bins.sequences(ids, b, T) for b, counts in blocks if counts)[1]
    log.evaluation(step, max_steps, row)
    if main_process:
        log.say(f'--- step {step}, val_loss {val_loss:.4f}\n{answer()}\n', 'samples.txt')

    if val_loss < best_val and step > 0:
        best_val = val_loss
        save_model(log.path('best.pt'))
    elif val_loss > 1.02 * best_val and guard.last_loss() < best_val:
        log.note(step, 'memorising', f'val_loss {val_loss:.3f} is above its best, {best_val:.3f}, and the '
                 'loss below: fewer epochs, or more conversations; best.pt has kept the best')


def save_model(path, **more):
    if main_process:
        save_checkpoint(path, adapters.merged(model), step=step, best_val=best_val, config=config,
                        tokenizer_hash=tokenizer.hash, digests=digests, **more)


@timer.pause('save')
def save():
    """Write last.pt, with all that resuming needs; the one before becomes last-1.pt."""
    save_model(f'{last_path}.new', tokens=tokens_seen, optimizers=optim.states(optimizers),
               scaler=scaler.state_dict(), lora=adapters.weights_of(model), **guard.state())
    if main_process:
        checkpoint.rotate(last_path, keep=2)


# --- the banner: what is about to happen --------------------------------------------------------------------
config['expect'] = journal.expected(config, set_by)
log.begin(config, state, step, max_steps)
if main_process:
    tokenizer.save(log.path('tokenizer.json'))
log.copy_in(os.path.join(start.folder_of(last_path if state else init_from), 'data.json'))   # the base's
show(config | {'data_from': ''}, log.say)       # a config file's, perhaps for other data
log.say(f'--- one conversation, its trained parts in [[ ]]\n{marked(*conversations[0], tokenizer)}---')
log.row('data', f'conversations: {len(conversations):,}, held out: {len(held_out):,}; tokens: '
        f'{lengths.sum():,}, trained: {trained.sum() / lengths.sum():.1%}; without an answer: {n_empty}; '
        f'cut: {n_cut}')
log.row('model', planner.described(vars(model.config)))
log.row('step', f'conversations: {batch_size}; processes: {world}, '
        f'micro-batches of each: {per_rank // micro_batch_size}, conversations in one: {micro_batch_size}; '
        f'on {device}, in {dtype}')
epochs = max_steps / batches.per_epoch
log.row('plan', optim.described(max_steps, warmup_steps, learning_rate, 0.0, grad_clip))
log.row('epochs', f'{epochs:.2f}; steps of each: {batches.per_epoch:,}')
log.notes(records.unusual(model, learning_rate, 1e-5, 5e-5, len(conversations), epochs))

# --- the loop -----------------------------------------------------------------------------------------------
probe = optim.probe(model)              # one matrix: how far does a step move it?
model.train()
if step == 0:
    evaluate()
timer.restart()
while step < max_steps:
    # the gradient of the mean loss over all trained tokens of the global batch
    torch.manual_seed(processes.noise_seed(seed, step))     # dropout follows from (seed, step, rank)
    lr = optim.cosine(step, max_steps, warmup_steps, learning_rate, 0.0)            # lr_at() of train.py
    optim.set_lr(optimizers, lr)
    with timer.loading():
        micro_batches = load_batch(step)
    rows = batches.of(step)                                                         # (batch_size,)
    n_targets = int(trained[rows].sum()) + replay * block_size                      # of all processes
    loss = 0.0
    for i, (x, y) in enumerate(micro_batches):
        # its share of all targets: of two micro-batches with 30 and 90 trained tokens, the first counts 1/4.
        # With 1/2 each, a token of a short answer would count three times as much
        share = int((y != IGNORE).sum()) / n_targets
        x, y = devices.to_device((x, y), device)                                    # (B, T) each
        with processes.sync_if(net, i == len(micro_batches) - 1):
            with autocast:
                mean = net(x, y)[1]                         # over the targets of this micro-batch
            scaler.scale(mean * (share * world)).backward()     # DDP divides the sum by world: undo that
        loss += mean.detach() * share

    # the update
    norm = optim.unscale_and_clip(optimizers, scaler, net, grad_clip).item()
    loss = processes.all_sum(float(loss))[0]
    before = probe.clone()
    if guard.allows(step, loss, norm):      # no NaN; what it refuses is logged
        optim.step(optimizers, scaler)
    scaler.update()
    processes.clear_gradients(net)
    step += 1
    n_tokens = int(lengths[rows].sum()) + replay * block_size
    tokens_seen += n_tokens
    timer.step(n_tokens)

    # log
    if step % log_interval == 0 or step in (1, max_steps):
        speed = timer.figures(world)
        log.step(max_steps, step=step, tokens=tokens_seen, loss=loss, lr=lr, grad_norm=norm,
                 trained=n_targets, update_ratio=optim.change(before, probe).item(), skipped=guard.skipped,
                 restarts=log.restarts, memory_mb=journal.memory_mb(device), **speed)

    # --- leave: same text in train.py, sft.py, dpo.py ---
    if step % eval_interval == 0 or step == max_steps:
        evaluate()
    stopping = processes.must_stop() or guard.trouble       # the same answer in all processes
    if step % save_interval == 0 or step == max_steps or stopping:
        save()
    if stopping:
        break
    # --- end leave ---

# --- summary ------------------------------------------------------------------------------------------------
log.end(step, max_steps, timer.minutes(), best_val, ['sample.py', f'--ckpt={out_dir}', '--chat=True'])
processes.leave(guard.trouble)
