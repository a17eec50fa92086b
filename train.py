"""
Pretraining: a folder of token bins -> a language model.

    python train.py config/quickstart.py                            # minutes on a laptop
    torchrun --nproc_per_node=8 train.py config/codeparrot.py       # eight GPUs, the same program
    python train.py config/quickstart.py --init_from=resume         # resumes; on a CPU, bit for bit
    python train.py config/codeparrot.py --plan=8xH100              # days, memory and cost; trains nothing

It reads data_dir, which prepare.py made, and writes out_dir, a folder that can be zipped and used anywhere.
The decision made here is the objective: it fixes what the model can be used for. You should see a first loss
near ln(vocab_size) and a fast fall. parts/ holds the plumbing and the other objectives: you can skip it.
Two rules make runs exact. The batch of a step follows from (seed, step), with --streaming from the position
in the checkpoint, and dropout from (seed, step, rank): so a resumed run equals an uninterrupted one. And
batch_size counts the sequences of all devices: without dropout and --streaming, 1 and 8 differ by rounding.
"""
import functools, math, sys
import torch
from configurator import configure, set_by, show
from model import GPT, GPTConfig, load_checkpoint, save_checkpoint
from parts.prepare import texts
from parts.model import copies, planner
from parts.train import checkpoint, devices, guards, journal, objectives, optim, processes, start
from parts.train import streams, token_bins, validation
from tokenizer import Tokenizer

# --- settings -----------------------------------------------------------------------------------------------
# files
data_dir = 'data/quickstart'    # made by prepare.py
data_from = ''                  # the command that makes data_dir: shown if it is missing
out_dir = 'out/base'            # where the run writes
init_from = 'scratch'           # scratch, resume (out_dir/last.pt), or a folder: its weights
overwrite = False               # True: delete the run that out_dir holds, and start over
extend_vocab = False            # init_from=FOLDER with another tokenizer: known tokens keep their rows
streaming: str | None = None    # folder or glob of .jsonl(.gz) shards, read instead of train.bin
shuffle = True                  # visit the blocks of train.bin in random order
# objective
objective = 'clm'               # clm | mlm | span: predict the next token, masked tokens, or hidden spans
document_mask = False           # clm: attention stays within a document
# model (GPTConfig in model.py)
n_layer = 6                     # >= 1: blocks
n_head = 6                      # >= 1: query heads, each n_embd / n_head wide; 32 to 128 is usual
n_kv_head = 0                   # >= 0: key/value heads; 0 = n_head; fewer make the cache smaller
n_embd = 192                    # >= 1: width of the residual stream
n_ffn = 0                       # >= 0: hidden width of the MLP; 0 = 8/3 n_embd, to the nearest 64
block_size = 256                # >= 1: context, tokens
rope_theta = 0.0                # >= 0: base of RoPE's wavelengths; 0 = 10,000 or init_from's
rope_scaling = 'none'           # none | linear | llama3: how init_from=FOLDER reaches a longer block_size
vocab_size = 0                  # >= 0: 0 = that of the data's tokenizer; any other is refused
tie_embeddings = True           # one matrix is both embedding and head
vocab_multiple = 1              # [1, 65536]: pads the vocabulary; 64 is fast on GPUs
dropout = 0.0                   # [0, 1): 0.1 to 0.2 when the data are repeated many times
# optimisation
batch_size = 32                 # [1, 2**20]: sequences per step, over all devices and accumulation
micro_batch_size = 0            # >= 0: sequences per device and forward pass; 0 = all
max_steps = 1000                # >= 1: updates
optimizer = 'adamw'             # adamw | muon: Muon for the matrices in the blocks, AdamW for the rest
learning_rate = 1e-3            # >= 0: peak; lower for larger models
embedding_lr = 1.0              # > 0: the embedding (and a tied head) learns at learning_rate times this
min_lr: float | None = None     # >= 0: where the schedule ends; None = learning_rate / 10
warmup_steps: int | float = 0.1  # >= 0: steps of the linear rise; below 1 a share of max_steps
schedule = 'cosine'             # cosine | wsd: wsd warms up, stays, and falls in the last decay_steps
decay_steps = 0                 # >= 0: of wsd; 0 = a fifth of max_steps
weight_decay = 0.1              # >= 0: of matrices only
beta1 = 0.9                     # [0, 1): AdamW's decay of the mean gradient
beta2 = 0.95                    # [0, 1): and of the mean square; 0.95 averages 20 steps, 0.999 a thousand
grad_clip = 1.0                 # >= 0: largest norm of the gradient; 0 = off
# watching
log_interval = 10               # >= 1: steps
eval_interval = 250             # >= 1: steps; also before the first and after the last
eval_tokens = 65_536            # >= 0: validation tokens per evaluation, always the same ones
save_interval = 250             # >= 1: steps
sample_prompt = ''              # continued at each evaluation; '' = the start of a document
sample_tokens = 100             # >= 1: length of a sample
num_samples = 8                 # >= 1: samples per evaluation; samples.txt shows the first one
expect: dict | None = None      # {'val_loss': (4.05, 4.13)}: the run's last line says whether it came
keep = 2                        # >= 1: checkpoints: last.pt, last-1.pt, ...
spike_z = 8.0                   # >= 0: a spike is this many standard deviations above the last; 0 = off
spike_window = 100              # >= 30: the number of last steps that it is compared with
spike_action = 'skip'           # skip | rollback | log: rollback = to last.pt, at half the rate
show_batch: int | None = None   # [0, 2**40): print this step's batch (of a stream the first), train nothing
plan = ''                       # 8xH100, 2xcpu, ...: print memory, days and cost, train nothing
# machine
device = 'auto'                 # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'                  # auto | float32 | bfloat16 | float16: of products; auto: bfloat16 if fast
compile: bool | None = None     # torch.compile; None = on CUDA
shard = 'ddp'                   # ddp | zero1 | fsdp: split nothing, the optimizer's state, or all
grad_checkpoint = False         # compute each block twice: less memory, more time
seed = 1337                     # [0, 2**32)
config = configure(globals())       # config files and flags replace the values above; here they are as a dict

if plan:
    shape = config if init_from in ('scratch', 'resume') else vars(load_checkpoint(init_from)[0].config)
    planner.show(plan, shape, block_size, batch_size, micro_batch_size, max_steps, dtype,
                 f'{data_dir}/meta.json')
    sys.exit()

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

# --- data ---------------------------------------------------------------------------------------------------
meta, bins = token_bins.open_bins(data_dir, block_size, ['val'] if streaming else ['train', 'val'], data_from)
tokenizer = start.tokenizer_of_data(data_dir, meta['tokenizer_hash'], vocab_size, Tokenizer.load)
tokenizer.encode(sample_prompt)                 # raises ValueError if it cannot spell it
is_python = texts.is_python(tokenizer.decode(bins['val'][:100_000].tolist()))
task = objectives.Objective(objective, document_mask, tokenizer, block_size, seed)     # makes x and y
if streaming:                                   # each process reads its own shards
    source = streams.open_stream(streaming, rank, world, data_dir, meta, tokenizer, task.n_text)
else:
    source = token_bins.Blocks(bins['train'], task.n_text, batch_size, seed, shuffle)
val_sets = token_bins.open_sources(data_dir, meta, block_size)      # by source, if the data are a mixture
my_rows = torch.arange(rank * per_rank, (rank + 1) * per_rank).view(-1, micro_batch_size).numpy()   # (n, B)
to_device = functools.partial(devices.to_device, device=device)
loader = token_bins.Loader(source, my_rows, task.apply, to_device, timer.loading, (rank, world))
tokens_per_step = batch_size * block_size
if show_batch is not None:
    loader.show(0 if streaming else show_batch, tokenizer)
    sys.exit()

# --- model: from nothing, from where this run stopped, or from the weights of another -----------------------
torch.manual_seed(seed)
state = {}                              # of the checkpoint that this run resumes
load = functools.partial(load_checkpoint, device='cpu' if shard == 'fsdp' else device)
of_streams = processes.gather(source.hashes) if streaming else []       # {file: hash} of each process
hashes = meta.get('sha256', {})
data_hashes = {'data_sha256': hashes.get('train'), 'val_sha256': hashes.get('val'),
               'streams': len(of_streams), 'shard_sha256': of_streams}
if init_from == 'scratch':
    model = GPT(GPTConfig(
        vocab_size=tokenizer.vocab_size, block_size=block_size, n_layer=n_layer, n_head=n_head,
        n_kv_head=n_kv_head, n_embd=n_embd, n_ffn=n_ffn, dropout=dropout, rope_theta=rope_theta or 1e4,
        causal=objective != 'mlm', vocab_multiple=vocab_multiple, tie_embeddings=tie_embeddings))
elif init_from == 'resume':
    model, state = start.newest(last_path, load)
    fixed = ['stage', 'objective', 'batch_size', 'optimizer', 'embedding_lr', 'seed', 'shuffle', *data_hashes]
    fixed += vars(model.config).keys() - start.SHAPE - {'vocab_size'}       # which the data fix
    start.same_run(last_path, state['config'] | state, config | data_hashes, fixed)
else:
    to_new_vocab = copies.carry_over if extend_vocab else None
    model = start.open_pretrained(init_from, load, Tokenizer.load, tokenizer, data_dir, to_new_vocab)
    longer = start.longer_context(init_from, vars(model.config), block_size, rope_theta, rope_scaling)
    model = model.like(dropout=dropout, causal=objective != 'mlm', vocab_multiple=vocab_multiple, **longer)
start.keep_shape(last_path if state else init_from, vars(model.config), config, set_by)    # and fill config
model.grad_checkpoint = grad_checkpoint
processes.shard(model, shard, dtype, device)        # and move it to the device

# --- optimizer ----------------------------------------------------------------------------------------------
optimizers = optim.build(model, optimizer, learning_rate, (beta1, beta2), weight_decay, shard == 'zero1',
                         embedding_lr)
guard = guards.Guard(state, log.note, scaler.is_enabled(), spike_z, spike_window, spike_action)
step = state.get('step', 0)
best_val = state.get('best_val', math.inf)
processes.same_start(last_path, config | data_hashes | {'step': step})
if state:
    optim.restore(optimizers, scaler, state, processes.own_part)
    loader.seek(state['stream'])
compiling = device.startswith('cuda') if compile is None else compile
net = processes.wrap(torch.compile(model) if compiling else model, shard, device)       # has model's weights
devices.rehearse(net, loader.load(step, 0), autocast, model if compiling else None)     # does a batch fit?
warmup_steps, min_lr, decay_steps = optim.schedule_ends(max_steps, warmup_steps, learning_rate, min_lr,
                                                        schedule == 'wsd', decay_steps)


def lr_at(step, max_steps, warmup_steps, learning_rate, min_lr, schedule='cosine', decay_steps=0):
    """The rate of update `step`, from 0: a linear rise, then half a cosine (arXiv:1608.03983), with 'wsd' a
    late, linear fall (2404.06395). lr_at(step, 100, 10, 1.0, 0.1): 0.1 at 0, 1.0 at 9 and 10, 0.55 at 55."""
    if step < warmup_steps:
        return learning_rate * (step + 1) / warmup_steps
    if schedule == 'wsd':
        fall = max(0.0, 1 - (max_steps - step) / max(1, decay_steps))           # 0, then from 0 to 1
        return learning_rate - (learning_rate - min_lr) * fall
    progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)         # from 0 to 1
    return min_lr + 0.5 * (learning_rate - min_lr) * (1 + math.cos(math.pi * progress))


loss_of = functools.partial(validation.loss_of, model, tokenizer.text_bytes, autocast, processes.all_sum)


@timer.pause('eval')
def evaluate():
    global best_val
    val_loss, val_bpb, accuracy = loss_of(loader.evaluation(bins['val'], eval_tokens))
    more = {'tokens': step * tokens_per_step, 'val_accuracy': accuracy if objective != 'clm' else None}
    if val_sets:
        n = eval_tokens // len(val_sets)
        more['shares'] = source.shares(meta['sources'], step)
        more['val_bpb_by_source'] = {k: loss_of(loader.evaluation(ids, n))[1] for k, ids in val_sets.items()}
    whole_model = processes.unsharded(model, GPT, device)       # puts FSDP's parts together
    if main_process and objective == 'clm':
        torch.manual_seed(seed)         # the same random numbers each time: only the model differs
        with autocast:
            samples = texts.write(whole_model, tokenizer, sample_prompt, num_samples, sample_tokens)
        more |= texts.figures(samples, is_python)
        log.say(f'--- step {step}, val_loss {val_loss:.4f}\n{samples[0]}\n', 'samples.txt')
    row = {'val_loss': val_loss, 'val_ppl': math.exp(min(val_loss, 700)), 'val_bpb': val_bpb}
    log.evaluation(step, max_steps, row, **more)
    if step >= 1000 and val_loss > math.log(model.config.vocab_size) - 0.5:
        log.note(step, 'stuck', 'val_loss is near ln(vocab_size), as if untrained: see docs/trouble.md')
    if val_loss < best_val and step > 0:        # never the untrained model
        best_val = val_loss
        if main_process:
            save_checkpoint(log.path('best.pt'), whole_model, step=step, best_val=best_val, config=config,
                            tokenizer_hash=tokenizer.hash)


@timer.pause('save')
def save():
    """Write last.pt, with all that resuming needs; the one before becomes last-1.pt."""
    whole_model = processes.unsharded(model, GPT, 'cpu')
    moments = processes.gathered(optim.states(optimizers))
    positions = processes.gather(source.position(step)) if streaming else []
    if main_process:
        save_checkpoint(f'{last_path}.new', whole_model, step=step, best_val=best_val, optimizers=moments,
                        scaler=scaler.state_dict(), stream=positions, config=config,
                        tokenizer_hash=tokenizer.hash, **data_hashes, **guard.state())
        checkpoint.rotate(last_path, keep)      # renames it: a crash before this leaves the old one


# --- the banner: what is about to happen --------------------------------------------------------------------
n_bytes = (12 * (keep + 1) + 8) * sum(p.numel() for p in model.parameters())    # of disk
epochs = max_steps * batch_size * task.n_text / max(1, meta['tokens']['train'])
config['expect'] = journal.expected(config, set_by, meta)
log.begin(config, state, step, max_steps, n_bytes)      # last*.pt: 12 a parameter; best.pt and its .tmp: 4
log.copy_in(f'{data_dir}/tokenizer.json', f'{data_dir}/meta.json')
show(config | {'data_from': ''}, log.say)       # a config file's, perhaps for other data
log.row('data', token_bins.described(meta, task.n_text, batch_size, epochs))
log.row('model', planner.described(vars(model.config)))
log.row('step', f'tokens: {batch_size} x {block_size} = {tokens_per_step:,}; processes: {world}, '
        f'micro-batches of each: {len(my_rows)}, sequences in one: {micro_batch_size}; '
        f'on {device}, in {dtype}')
log.row('plan', optim.described(max_steps, warmup_steps, learning_rate, min_lr, grad_clip, decay_steps))
log.notes([*task.packing(bins.get('train', bins['val'])), *token_bins.repeats(meta, epochs, val_sets)])

# --- the loop -----------------------------------------------------------------------------------------------
probe = optim.probe(model)              # one matrix: the log shows how far a step moves it
if step == 0:
    evaluate()
timer.restart()
while step < max_steps:
    # the gradient of the mean loss over all targets of the global batch
    torch.manual_seed(processes.noise_seed(seed, step))     # dropout follows from (seed, step, rank)
    lr = guard.lr_scale * lr_at(step, max_steps, warmup_steps, learning_rate, min_lr, schedule, decay_steps)
    optim.set_lr(optimizers, lr)
    n_targets = max(1, task.n_targets(step, range(batch_size)))     # of the global batch; mlm may have 0
    loss = 0.0
    for i, batch in enumerate(loader.batches(step, max_steps)):
        # this micro-batch's share of all targets: 1/128 if it has 4 of 512 sequences, all scored
        share = task.n_targets(step, my_rows[i]) / n_targets
        with processes.sync_if(net, i == len(my_rows) - 1):     # DDP sums gradients after the last one only
            with autocast:
                mean = net(*batch)[1]                       # over the targets of this micro-batch
            # DDP and FSDP divide the sum of all gradients by world; times world undoes it
            scaler.scale(mean * (share * world)).backward()
        loss += mean.detach() * share

    # the update
    norm = processes.full(optim.unscale_and_clip(optimizers, scaler, net, grad_clip)).item()
    loss = processes.all_sum(float(loss))[0]    # also tells each process of a stop: see must_stop() below
    logs = step + 1 in (1, max_steps) or (step + 1) % log_interval == 0
    before = probe.clone() if logs else None
    if guard.allows(step, loss, norm):          # no NaN, no spike; it logs what it refuses
        optim.step(optimizers, scaler)
    scaler.update()
    processes.clear_gradients(net)
    if guard.wants_rollback and processes.all_have(last_path):
        saved_model, state = load(last_path)
        processes.load_weights(model, saved_model.state_dict())
        del saved_model                         # else the device holds the weights twice
        optim.restore(optimizers, scaler, state, processes.own_part)
        loader.seek(state['stream'])
        step = guard.step_back(step, state)     # to the checkpoint's step, at half the rate
        timer.restart()
        continue
    step += 1
    timer.step(tokens_per_step)

    # log
    if logs:
        speed = timer.figures(world)
        log.step(max_steps, step=step, tokens=step * tokens_per_step, loss=loss, lr=lr, grad_norm=norm,
                 update_ratio=processes.full(optim.change(before, probe)).item(), skipped=guard.skipped,
                 mfu=planner.mfu(vars(model.config), block_size, speed['tok_s_device'], device),
                 comm_share=processes.comm_share(net, len(my_rows)), restarts=log.restarts,
                 memory_mb=journal.memory_mb(device), **speed)

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
log.notes(source.notes())
gap = [] if objective == 'clm' else ['--prompt=a text with a <|mask|> in it']
log.end(step, max_steps, timer.minutes(), best_val, ['sample.py', f'--ckpt={out_dir}', *gap])
processes.leave(guard.trouble)          # with trouble: one line, and exit code 2
