"""
Pretraining: a folder of token bins -> a language model.

    python train.py config/quickstart.py                            # minutes on a laptop
    torchrun --nproc_per_node=8 train.py config/codeparrot.py       # eight GPUs, the same program
    python train.py config/quickstart.py --init_from=resume         # resumes; on a CPU, bit for bit
    python train.py config/codeparrot.py --plan=8xH100              # days, memory and cost; trains nothing

Reads data_dir, which prepare.py made. Writes out_dir, a folder to zip and use anywhere (docs/run-folder.md).
The decisions made here are the objective (what the model can be used for) and the machines (--plan, --shard).

You should see a first loss near ln(vocab_size), a fast fall, and a validation loss near the training loss.

Two rules make runs exact. First, the batch and the dropout of a step follow from (seed, step, rank) alone: no
random state is saved, and a resumed run equals an uninterrupted one. Second, batch_size counts the sequences
of a step over all devices and all accumulation. Without dropout, one device and eight give the same training.

parts/ holds the plumbing, which you can skip. Copy this file with configurator, model, tokenizer and parts/.
"""
import functools, math, os, sys
import numpy as np
import torch
from configurator import configure, show
from model import GPT, GPTConfig, load_checkpoint, save_checkpoint
from parts.train import checkpoint, journal, machine, objectives, optim, planner, texts, token_bins
from tokenizer import Tokenizer

# --- settings -----------------------------------------------------------------------------------------------
# files
data_dir = 'data/quickstart'    # made by prepare.py
data_from = ''                  # the command that makes data_dir: errors name it, other data are refused
out_dir = 'out/base'            # where the run writes
init_from = 'scratch'           # scratch, resume (out_dir/last.pt), or a folder: its weights, from step 0
overwrite = False               # True: start over in an out_dir that holds a run, and delete that run
extend_vocab = False            # init_from=FOLDER: carry its weights over to another tokenizer
replay_dir: str | None = None   # earlier data with the same tokenizer, so that the model forgets less of them
replay = 0.1                    # (0, 1): share of each step's sequences that comes from replay_dir
streaming: str | None = None    # folder or glob of .jsonl(.gz) shards, read instead of train.bin
shuffle = True                  # visit the blocks of train.bin in random order; a stream keeps its order
# objective
objective = 'clm'               # clm | mlm | span: predict the next token, masked tokens, or hidden spans
document_mask = False           # clm: attention stays within a document, and positions restart in each
label_smoothing = 0.0           # [0, 1): share of a target's probability that is spread over all tokens
fim = 0.0                       # [0, 1]: clm: share of documents that teach to fill in the middle, say 0.5
focal = 0.0                     # >= 0: loss times (1 - p)^focal: tokens that the model knows well count less
# model (GPTConfig in model.py)
n_layer = 6                     # >= 1: blocks
n_head = 6                      # >= 1: query heads; n_embd / n_head is the head width, 32 to 128 is usual
n_kv_head = 0                   # >= 0: key/value heads; 0 = n_head; fewer make the generation cache smaller
n_embd = 192                    # >= 1: width of the residual stream
n_ffn = 0                       # >= 0: hidden width of the MLP; 0 = 8/3 n_embd, to the nearest 64
block_size = 256                # >= 1: context, tokens
rope_theta = 0.0                # >= 0: base of RoPE's wavelengths; 0 = 10,000, or that of init_from
rope_scaling = 'none'           # none | linear | llama3: how init_from=FOLDER reaches a longer block_size
vocab_size = 0                  # >= 0: 0 = that of the data's tokenizer
tie_embeddings = True           # one matrix is both embedding and head; False: a matrix for each
vocab_multiple = 1              # [1, 65536]: pad the vocabulary to a multiple of this; 64 is fast on GPUs
dropout = 0.0                   # [0, 1): 0.1 to 0.2 when the data are repeated many times
# optimisation
batch_size = 32                 # [1, 2**20]: sequences per step, over all devices and accumulation
micro_batch_size = 0            # >= 0: sequences per device and forward pass; 0 = all; lower saves memory
max_steps = 1000                # >= 1: updates
optimizer = 'adamw'             # adamw | muon: Muon for the matrices in the blocks, AdamW for the rest
learning_rate = 1e-3            # >= 0: peak; the larger the model, the lower
embedding_lr = 1.0              # > 0: times learning_rate, for the embedding (if tied, it is the head, too)
lr_width = 0                    # >= 0: the n_embd for which learning_rate was found; 0 = do not scale it
min_lr: float | None = None     # >= 0: where the schedule ends; None = learning_rate / 10
warmup_steps = 100              # >= 0: linear rise; 1 % to 10 % of max_steps
schedule = 'cosine'             # cosine | wsd: wsd warms up, stays, and falls in the last decay_steps
decay_steps = 0                 # >= 0: of wsd; 0 = a fifth of max_steps
weight_decay = 0.1              # >= 0: of matrices only
beta1 = 0.9                     # [0, 1): AdamW's decay of the mean gradient
beta2 = 0.95                    # [0, 1): and of the mean square; 0.95: over 20 steps, 0.999: 1,000
grad_clip = 1.0                 # >= 0: largest norm of the gradient; 0 = off
# watching
log_interval = 10               # >= 1: steps
eval_interval = 250             # >= 1: steps; also before the first and after the last
eval_tokens = 65_536            # >= 0: validation tokens per evaluation, always the same ones
save_interval = 250             # >= 1: steps
sample_prompt = ''              # continued at each evaluation; '' = the start of a document
sample_tokens = 100             # >= 1: length of a sample
num_samples = 8                 # >= 1: samples.txt shows the first; repetition and parse_rate use all
# safety
save_minutes = 0.0              # >= 0: also save when this much time has passed; 0 = off
keep = 2                        # >= 1: checkpoints: last.pt and, should that be damaged, last-1.pt
spike_z = 8.0                   # >= 0: a spike is so many standard deviations above the last steps; 0 = off
spike_window = 100              # >= 30: how many last steps
spike_action = 'skip'           # skip | rollback | log: rollback = to last.pt, with half the learning rate
inject = ''                     # accidents to practise with: nan@50,spike@80,badbatch@60,slowdata@30,kill@120
show_batch: int | None = None   # [0, 2**40]: print the documents of this step's batch, train nothing
plan = ''                       # 8xH100, 2xcpu, ...: print memory, days and cost, train nothing
# machine
device = 'auto'                 # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'                  # auto | float32 | bfloat16 | float16: of matrix products; auto = native
compile: bool | None = None     # torch.compile; None = on CUDA
shard = 'ddp'                   # ddp | zero1 | fsdp: split nothing, the optimizer's state, or all
grad_checkpoint = False         # keep each block's input and compute the rest again: less memory, more time
seed = 1337                     # [0, 2**32)
config = configure(globals())

if plan:
    known = init_from not in ('scratch', 'resume')      # then the model's shape is that of its checkpoint
    shape = vars(load_checkpoint(init_from)[0].config) if known else config
    planner.show(plan, shape, block_size, batch_size, micro_batch_size, max_steps, f'{data_dir}/meta.json')
    sys.exit()

# --- setup: same text in train.py, sft.py, dpo.py, rl.py ---
rank, world, local_rank = machine.ranks()       # one process per device; torchrun starts them
main_process = rank == 0
device, dtype = machine.choose(device, dtype, local_rank)
autocast = machine.autocast(device, dtype)
scaler = torch.amp.GradScaler(device.split(':')[0], enabled=dtype == 'float16')     # float16's range is small
per_rank, micro_batch_size = machine.shares(batch_size, micro_batch_size, world)    # per process, per pass
oom_advice = machine.OutOfMemoryAdvice(micro_batch_size, per_rank, grad_checkpoint)
last_path = checkpoint.check_out_dir(out_dir, init_from, overwrite)
log = journal.Journal(out_dir, main_process)
machine.join(device)
# --- end setup ---

# --- data ---------------------------------------------------------------------------------------------------
journal.check_data(data_dir, ['meta.json'], data_from)
meta, bins = token_bins.open_bins(data_dir, block_size, ('val',) if streaming else ('train', 'val'))
tokenizer = Tokenizer.load(os.path.join(data_dir, 'tokenizer.json'))
checkpoint.same_tokenizer(f'{data_dir}/meta.json', meta['tokenizer_hash'], 'tokenizer.json', tokenizer.hash)
token_bins.check_tokenizer(data_dir, tokenizer, vocab_size, sample_prompt)
token_bytes = np.array(tokenizer.text_bytes)            # (V,), for bits per byte
task = objectives.Objective(objective, document_mask, tokenizer, block_size, seed)
if fim:                         # prefix and suffix come first, then the middle
    from parts.prepare.fim import Infilling
    infilling = Infilling(fim, objective, tokenizer, seed)
n_train = meta['tokens']['train']
stream, shards = None, []       # shards: of each process, {name: SHA-256}
if streaming:                   # each process reads its own shards
    paths, hashes = token_bins.open_shards(streaming, rank, world, data_dir, meta)
    shards = machine.gather(hashes)
    stream = token_bins.Stream(paths, tokenizer.encode_batch, tokenizer.special, block_size)
else:                           # a mixture has a validation set for each of its sources
    bins |= token_bins.open_sources(data_dir, meta, block_size)
n_replay = 0                    # how many sequences of a step come from replay_dir
if replay_dir is not None:
    n_replay = 0 if streaming else round(batch_size * replay)
    bins['replay'], its_meta = token_bins.open_replay(replay_dir, block_size, n_replay, batch_size)
    checkpoint.same_tokenizer(data_dir, tokenizer.hash, replay_dir, its_meta['tokenizer_hash'])


def starts_of(step):
    """Where the sequences of a step begin, (batch_size,): the first n_replay of them in bins['replay']."""
    if stream:
        return np.arange(batch_size)
    starts = token_bins.sequence_starts(step, batch_size - n_replay, n_train, task.n_text, seed, shuffle)
    if n_replay:
        earlier = token_bins.sequence_starts(step, n_replay, len(bins['replay']), task.n_text, seed, shuffle)
        starts = np.concatenate([earlier, starts])
    return starts


def load_batch(side, starts, step, rows):
    """The arguments of model.forward: inputs and targets, int64 (B, T), perhaps mask and positions. rows:
    numbers of the sequences in the global batch, which seed the hidden tokens. A stream ignores starts."""
    if stream and side == 'train':
        x, y = stream.take(len(starts))                                         # (B, T)
    else:
        its_bins = [bins['replay' if side == 'train' and row < n_replay else side] for row in rows]
        x, y = token_bins.sequences(its_bins, starts, task.n_text)                    # (B, n_text)
    if fim and side == 'train':
        x, y = infilling.apply(x, y, step, rows)                                # (B, T)
    return machine.to_device(task.apply(x, y, step, rows), device)


if show_batch is not None:
    if stream:
        raise ValueError('show_batch: a stream has no batch by number; prepare bins to look at it')
    for row, x in enumerate(load_batch('train', starts_of(show_batch), show_batch, range(batch_size))[0]):
        print(f'--- step {show_batch}, sequence {row} of {batch_size}\n{tokenizer.decode(x.tolist())}')
    sys.exit()

# --- model and optimizer: from nothing, from where this run stopped, or from the weights of another ---------
torch.manual_seed(seed)
step, best_val = 0, math.inf
state = {}                      # of the checkpoint that this run resumes
load = functools.partial(load_checkpoint, device=device if shard == 'ddp' else 'cpu')   # FSDP: too large
if init_from == 'scratch':
    model = GPT(GPTConfig(tokenizer.vocab_size, block_size, n_layer, n_head, n_kv_head, n_embd, n_ffn,
                          dropout, rope_theta or 1e4, causal=objective != 'mlm',
                          vocab_multiple=vocab_multiple, tie_embeddings=tie_embeddings)).to(device)
elif init_from == 'resume':
    model, state = checkpoint.newest(last_path, load)
    checkpoint.check_pretraining(last_path, state, config, meta, shards, world)
    step, best_val = machine.agreed(last_path, state['step'], state['best_val'])
else:                           # the architecture is that of the checkpoint; dropout belongs to this run
    model = checkpoint.pretrained(init_from, load, Tokenizer.load, tokenizer, data_dir, extend_vocab)
    longer = checkpoint.longer_context(init_from, vars(model.config), block_size, rope_theta, rope_scaling)
    model = model.like(dropout=dropout, causal=objective != 'mlm', vocab_multiple=vocab_multiple, **longer)
vocab_size = model.config.vocab_size                    # a model of Hugging Face may have rows to spare
if lr_width:        # a rule of thumb (arXiv:1706.03762, section 5.3); muP (2203.03466) takes no root
    learning_rate *= math.sqrt(lr_width / model.config.n_embd)
min_lr, decay_steps = optim.ends(max_steps, warmup_steps, learning_rate, min_lr, schedule, decay_steps)
model.label_smoothing, model.focal, model.grad_checkpoint = label_smoothing, focal, grad_checkpoint
machine.shard(model, shard, dtype, device)      # if it is fsdp
optimizers = optim.build(model, optimizer, learning_rate, (beta1, beta2), weight_decay, shard == 'zero1',
                         embedding_lr)
if state:
    optim.restore(model, None, optimizers, state.pop('optimizers'))     # None: the model has its weights
    scaler.load_state_dict(state['scaler'] or scaler.state_dict())      # {} without float16
if state and stream:
    stream.seek(state['stream'][rank])
rows = np.arange(micro_batch_size)      # a rehearsal: compile, measure the seconds, see if memory is enough
batch = load_batch('val', rows % (len(bins['val']) - block_size), 0, rows)
net, seconds = machine.compiled(model, compile, batch, autocast, oom_advice, shard)     # DDP, if not fsdp


# --- schedule: same text in train.py, sft.py, dpo.py, rl.py ---
def lr_at(step, max_steps, warmup_steps, learning_rate, min_lr, schedule='cosine', decay_steps=0):
    """The learning rate of update `step`, counted from 0: a linear rise that reaches learning_rate with the
    last warm-up step, then half a cosine down to min_lr at max_steps (SGDR, arXiv:1608.03983, no restarts).
    lr_at(step, 100, 10, 1.0, 0.1): 0.1 at step 0, 1.0 at 9 and 10, 0.55 at 55, 0.1 at 100. schedule='wsd'
    stays at the top and falls linearly in the last decay_steps (WSD, 2404.06395; linear: 2405.18392)."""
    if step < warmup_steps:
        return learning_rate * (step + 1) / warmup_steps
    if schedule == 'wsd':
        t = max(0.0, 1 - (max_steps - step) / max(1, decay_steps))      # 0, then 0 .. 1
        return learning_rate - (learning_rate - min_lr) * t
    t = (step - warmup_steps) / max(1, max_steps - warmup_steps)        # 0 .. 1
    return min_lr + 0.5 * (learning_rate - min_lr) * (1 + math.cos(math.pi * t))
# --- end schedule ---


@torch.no_grad()
def evaluate(side='val', n_tokens=eval_tokens):
    """Nats per token and bits per byte on n_tokens of bins[side]. It draws no random numbers."""
    sums = np.zeros(3)
    model.eval()
    for starts, counts in token_bins.spread(bins[side], block_size, n_tokens, micro_batch_size, rank, world):
        batch = load_batch(side, starts, 2 ** 40, starts)               # the same tokens are hidden each time
        with autocast:
            loss = model(*batch)[1]
        scored = batch[1][batch[1] != objectives.IGNORE].cpu().numpy()
        if counts:          # else this process only takes part in the forward pass, as FSDP needs
            sums += loss.item() * len(scored), len(scored), token_bytes[scored].sum()
    model.train()
    nats, tokens, n_bytes = machine.all_sum(*sums)
    return nats / (tokens or math.nan), nats / math.log(2) / max(1, n_bytes)


# --- the banner: what is about to happen --------------------------------------------------------------------
tokens_per_step = batch_size * block_size
epochs = max_steps * (batch_size - n_replay) * task.n_text / max(1, n_train)
n_parameters = sum(p.numel() for p in model.parameters())
n_forward = per_rank // micro_batch_size
mixture = objectives.Mixture({} if stream else meta, state.get('seen', ()))
watch = optim.Guard(state, scaler, spike_z, spike_window, spike_action, inject)
log.need_space((12 * (keep + 1) + 8) * n_parameters)    # 12 bytes: weight, 2 moments; 8: best.pt, old and new
log.begin(config, state, step, max_steps)
log.keep(os.path.join(data_dir, 'tokenizer.json'))
log.keep(os.path.join(data_dir, 'meta.json'), 'data.json')
show(config, log.say)
log.say(f'  data     {streaming or data_dir}: {n_train:,} tokens to train on, {len(bins["val"]):,} held out')
log.say(f'  model    {n_parameters:,} parameters; vocabulary {vocab_size:,}, ln {math.log(vocab_size):.4f}')
log.say(f'  step     {batch_size} sequences x {block_size} = {tokens_per_step:,} tokens; {world} processes x '
        f'{n_forward} accumulated x {micro_batch_size} sequences at once, on {device}, in {dtype}')
log.say(f'  plan     {max_steps:,} steps = {max_steps * tokens_per_step:,} tokens = {epochs:.2f} epochs; '
        f'about {(max_steps - step) * n_forward * seconds / 60:,.1f} minutes, and the time for evaluating')
log.remarks([*task.packing(bins.get('train', bins['val'])), *mixture.describe(n_train, epochs)])

# --- the loop -----------------------------------------------------------------------------------------------
probe = optim.probe(model)      # how far does a step move it?
is_code = texts.parse_rate(tokenizer.decode(bins['val'][:100_000].tolist()).split('<|endoftext|>')[:4]) >= 0.5
prompt = sample_prompt or tokenizer.begin or [int(bins['val'][0])]     # a text, or ids
vals = state.get('vals', [])     # [step, val_loss] of each evaluation
first_step = step
stopping, trouble = False, ''    # Ctrl-C or a signal asked for the end; why the run cannot continue
timer = journal.Timer()
model.train()
while True:
    # 1. once in a while: evaluate. A resumed run has already evaluated its first step
    if (step % eval_interval == 0 or step == max_steps) and (step > first_step or step == 0) and not trouble:
        with timer.pause('eval'):
            val_loss, val_bpb = evaluate()
            sources = [side for side in bins if side.startswith('val_')]
            by_source = {s.removeprefix('val_'): evaluate(s, eval_tokens // len(sources))[1] for s in sources}
            more = {'shares': mixture.shares(), 'val_bpb_by_source': by_source} if sources else {}
            gpt = machine.unsharded(model, lambda: GPT(model.config).to(device))        # in the first process
            if main_process:
                torch.manual_seed(seed)         # the same random numbers each time: only the model differs
                with autocast:
                    if objective == 'clm':
                        written = texts.samples(gpt, tokenizer, prompt, num_samples, sample_tokens)
                        more |= texts.figures(written, is_code)
                    else:
                        written = objectives.guesses(gpt, load_batch('val', [0], 2 ** 40, [0]), tokenizer)
                log.say(f'--- step {step}, val_loss {val_loss:.4f}\n{written[0]}\n', 'samples.txt')
            figures = {'val_loss': val_loss, 'val_ppl': math.exp(min(val_loss, 700)), 'val_bpb': val_bpb}
            log.evaluation(step, max_steps, figures, tokens=step * tokens_per_step, **more)
            if val_loss < best_val and step > 0:
                best_val = val_loss
                if main_process:
                    save_checkpoint(log.path('best.pt'), gpt, step=step, best_val=best_val, config=config,
                                    tokenizer_hash=tokenizer.hash)
            vals.append([step, val_loss])
            found = optim.diagnose(vals, watch.last_loss(), vocab_size, step, warmup_steps, max_steps)
            if found and objective == 'clm':
                log.note(step, *found)

    # 2. once in a while: save. Leave when all is done or someone asked to stop
    due = save_minutes and machine.all_sum(timer.since_save() > 60 * save_minutes)[0]
    if (step % save_interval == 0 or step == max_steps or stopping or due) and step > first_step:
        with timer.pause('save'):
            gpt = machine.unsharded(model, lambda: GPT(model.config).to(device))
            states = [machine.whole(s) for s in optim.states(optimizers)]
            positions = machine.gather(stream.state) if stream else []
            if main_process:
                save_checkpoint(f'{last_path}.new', gpt, step=step, best_val=best_val, vals=vals,
                                seen=mixture.seen.tolist(), optimizers=states, scaler=scaler.state_dict(),
                                stream=positions, shards=sorted(sum(map(list, shards), [])),
                                tokenizer_hash=tokenizer.hash, data_sha256=meta['sha256']['train'],
                                shard_sha256=shards, config=config, **watch.state())
                checkpoint.rotate(last_path, keep)      # last.pt.new -> last.pt -> last-1.pt
    gpt = states = None     # under FSDP they are copies of all weights and moments
    if step >= max_steps or stopping:
        break

    # 3. the gradient of the mean loss over the whole global batch
    torch.manual_seed((seed * 1_000_003 + step) * 4096 + rank)      # dropout follows from (seed, step, rank)
    lr = watch.lr_scale * lr_at(step, max_steps, warmup_steps, learning_rate, min_lr, schedule, decay_steps)
    optim.set_lr(optimizers, lr)
    starts = starts_of(step)                                        # (batch_size,)
    mine = np.arange(rank * per_rank, (rank + 1) * per_rank).reshape(-1, micro_batch_size)  # (n_forward, B)
    position = stream.state if stream else None
    with timer.part('data'):
        batches = [load_batch('train', starts[rows], step, rows) for rows in mine]
        watch.spoil_data(step, batches, vocab_size)                 # if --inject says so
    n_scored = [task.count(batch[1]) for batch in batches]          # targets that are not IGNORE
    n_all = max(1, machine.all_sum(sum(n_scored))[0])               # over all processes
    loss_sum = 0.0
    for i, (batch, n) in enumerate(zip(batches, n_scored)):
        with machine.sync_if(net, i == len(batches) - 1), oom_advice:
            with autocast:
                loss = net(*batch)[1]
            # this part's share of the mean; times world, because DDP divides the sum over processes by it
            scaler.scale(loss * (n / n_all * world)).backward()
            loss_sum += loss.detach() * n
    if trouble := oom_advice.text:      # this step is not done: save those before it, then leave
        if stream:
            stream.seek(position)
        stopping = True
        continue
    mixture.count(starts[n_replay:])
    watch.spoil_gradient(step, model)

    # --- clip and step: same text in train.py, sft.py, dpo.py, rl.py ---
    for o in optimizers:
        scaler.unscale_(o)
    norm = machine.number(torch.nn.utils.clip_grad_norm_(net.parameters(), grad_clip or math.inf))
    loss_sum, votes = machine.all_sum(float(loss_sum), len(machine.asked))
    loss = loss_sum / n_all     # of the whole global batch
    logging = (step + 1) % log_interval == 0 or step + 1 in (1, max_steps)
    event, text = watch.judge(step, loss, norm)
    if event:
        log.note(step, event, text)
        trouble = watch.trouble(step, text, last_path)
    stopping = votes > 0 or trouble != ''       # all processes, or the others would wait for ever
    before = probe.clone() if logging else None
    if event != 'skip':         # a skipped update (not finite, or a spike) never reaches the weights
        for o in optimizers:
            scaler.step(o)
    scaler.update()
    net.zero_grad(set_to_none=not hasattr(net, 'no_sync'))     # DDP's gradients stay in its buckets
    # --- end clip and step ---

    if watch.wants_rollback and machine.all_sum(os.path.exists(last_path))[0] == world:
        gpt, then = load(last_path)
        optim.restore(model, gpt.state_dict(), optimizers, then['optimizers'])
        watch.rolled_back(step, then)
        log.note(step, 'rollback', f'back to step {then["step"]}, learning rate x {watch.lr_scale:g}')
        step = then['step']
        mixture.seen[:] = then['seen']
        if stream:
            stream.seek(then['stream'][rank])
        timer.restart()
        continue
    step += 1
    timer.step(tokens_per_step)

    # 4. log
    if logging:
        dt = timer.per_step()
        log.step(max_steps, step=step, tokens=step * tokens_per_step, loss=loss, lr=lr, grad_norm=norm, dt=dt,
                 tok_s=tokens_per_step / dt, update_ratio=optim.change(before, probe),
                 mfu=planner.mfu(vars(model.config), block_size, tokens_per_step / dt / world, device),
                 skipped=watch.skipped, restarts=log.restarts, memory_mb=journal.memory_mb(device),
                 comm_share=machine.comm_share(net, dt), **timer.shares(world))
        timer.restart()

# --- summary ------------------------------------------------------------------------------------------------
log.remarks(stream.remarks() if stream else [])
gap = [] if objective == 'clm' else ['--prompt=a text with a <|mask|> in it']
log.end(step, max_steps, timer.minutes(), best_val, ['sample.py', f'--ckpt={out_dir}', *gap])
machine.leave(trouble)
