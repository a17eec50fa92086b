"""
Preference optimisation: a model that answers, and pairs of a better and a worse answer -> a model that
prefers the better ones. DPO and its family, and a reward model.

    python dpo.py --init_from=out/sft --data_dir=data/pairs
    python dpo.py --init_from=resume --out_dir=out/dpo --data_dir=data/pairs     # resumes
    python dpo.py --init_from=out/sft --data_dir=data/pairs --loss_type=rm --out_dir=out/reward

Reads init_from, a folder that sft.py wrote, and data_dir/train.jsonl and val.jsonl, lines of {"prompt",
"chosen", "rejected"}; a prompt is text or messages. kto also takes {"prompt", "completion", "label"} lines.
Writes out_dir as train.py does. Copy this file with configurator, model, tokenizer and parts/.
The decision made here is the taste: who says which answer is better?

DPO in four lines. The policy p is the model that trains. The reference p_ref is the same model at the start.
A prompt has a better answer c (chosen) and a worse answer r (rejected):

    reward(c) = beta (log p(c) - log p_ref(c))      # how much likelier c has become
    reward(r) = beta (log p(r) - log p_ref(r))
    margin = reward(c) - reward(r)
    loss = -log sigmoid(margin)                     # small if c has gained more than r

With beta = 0.1, log p_ref = -11 for both, log p(c) = -10 and log p(r) = -12, the rewards are 0.1 and -0.1,
the margin is 0.2 and the loss 0.598. At first, policy and reference are equal: the margin is 0 and val_loss
ln 2 = 0.693. Another value ends the run. The loss of a step is larger: nll_weight adds a term to it.

You should see accuracy and margin rise. Often BOTH rewards fall: the loss asks for a difference only. It
gains as much if the bad answer falls by 5 and the good one by 2 as if the good one rises by 3. They share
most of their tokens, so pushing one pushes the other, and other answers win that nobody compared. nll_weight
holds the good answers up (Pang et al. 2024, arXiv:2404.19733). Try 0 and read samples.txt.
"""
import functools, math, os, shlex, sys
import numpy as np
import torch
import torch.nn.functional as F
from configurator import configure, defaults, set_by, show
from model import IGNORE, load_checkpoint, save_checkpoint
from parts.model import adapters, planner
from parts.train import checkpoint, devices, guards, journal, optim, processes, records, start
from parts.sample import decoding
from tokenizer import Tokenizer

# --- settings -----------------------------------------------------------------------------------------------
# files
init_from = 'out/sft'           # policy and reference: the folder of a run; or resume: continue in out_dir
data_dir = 'data/pairs'         # train.jsonl and val.jsonl, from prepare.py --kind=preference
data_from = ''                  # the command that makes data_dir: shown if it is missing
out_dir = 'out/dpo'             # where the run writes
overwrite = False               # True: start over in an out_dir that holds a run, and delete that run
# the loss
loss_type = 'dpo'               # dpo | ipo | kto | orpo | simpo | rm: rm trains a reward model
beta: float | None = None       # > 0: how much leaving the reference costs; None = 0.1, for simpo 2
label_smoothing = 0.0           # [0, 0.5): dpo: share of pairs that are expected to have swapped labels
gamma = 1.0                     # >= 0: simpo: margin by which the better answer must lead
nll_weight = 1.0                # >= 0: dpo, ipo, kto, simpo: this * -log p(chosen) per token; their papers: 0
# optimisation
epochs = 1.0                    # >= 0: how often each pair is seen
max_steps = 0                   # >= 0: updates, instead of epochs; 0 = as many as the epochs take
batch_size = 32                 # [1, 2**20]: pairs per step, over all devices and accumulation
micro_batch_size = 0            # >= 0: pairs per device and forward pass; 0 = all
block_size = 0                  # >= 0: tokens of prompt and answer; 0 = the model's context; the rest is cut
lora = 0                        # >= 0: rank of the adapters that train instead of the weights; 0 = none
optimizer = 'adamw'             # adamw | muon: Muon for the matrices in the blocks, AdamW for the rest
learning_rate = 3e-5            # >= 0: for millions of parameters; from 100 million on 5e-7 to 5e-6
warmup_steps: int | float = 0.1  # >= 0: steps in which the rate rises; below 1 a share of all steps
weight_decay = 0.0              # >= 0: of matrices only
grad_clip = 1.0                 # >= 0: largest norm of the gradient; 0 = off
# watching
log_interval = 10               # >= 1: steps
eval_interval = 0               # >= 0: steps; 0 = each epoch; also before the first and after the last
eval_pairs = 512                # >= 1: of val.jsonl, the first ones, always the same
save_interval = 250             # >= 1: steps
num_samples = 8                 # >= 1: held-out prompts that are answered at each evaluation: samples.txt
sample_tokens = 100             # >= 1: of an answer, at most
expect: dict | None = None      # {'val_loss': (4.05, 4.13)}: the run's last line says whether it came
show_batch: int | None = None   # >= 0: print the pairs of this step's batch, train nothing
# machine
device = 'auto'                 # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'                  # auto | float32 | bfloat16 | float16: of matrix products; auto = native
compile = False                 # torch.compile; lengths vary, so it compiles twice
grad_checkpoint = False         # compute each block again in the backward pass: less memory, more time
seed = 1337                     # [0, 2**32)
config = configure(globals())
config['stage'] = 'dpo'         # so eval.py will ask this model in conversations
if beta is None:
    beta = config['beta'] = 2.0 if loss_type == 'simpo' else 0.1
for name, its_type in ('label_smoothing', 'dpo'), ('gamma', 'simpo'):
    if config[name] != defaults[name] and loss_type != its_type:
        raise ValueError(f'{name}={config[name]} is for loss_type={its_type}, not {loss_type}')

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


# --- the losses ---------------------------------------------------------------------------------------------
def log_odds(m):
    """log(p / (1 - p)) for p = e^m, shape of m. p = 1 would have infinite odds, so m is at most -1e-30."""
    m = m.clamp(max=-1e-30)
    return m - torch.log(-torch.expm1(m))


def preference_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, chosen_len, rejected_len,
                    loss_type, beta, label_smoothing=0.0, gamma=1.0, kl=0.0):
    """Losses and the rewards of both answers, float32 (B,) each, for B pairs. dpo is explained at the top of
    this file; the others change one thing each.

    policy_*, ref_*: log p of an answer, in nats, summed over its tokens (for rm: its score). *_len: how many
    tokens it has, 0 if a kto record has no such answer. kl: kto's zero point, a number."""
    ratio_chosen = policy_chosen.float() - ref_chosen.float()                   # log (p / p_ref)
    ratio_rejected = policy_rejected.float() - ref_rejected.float()
    mean_chosen = policy_chosen.float() / chosen_len.clamp(min=1)               # log p per token
    mean_rejected = policy_rejected.float() / rejected_len.clamp(min=1)
    chosen = beta * ratio_chosen                                                # the rewards
    rejected = beta * ratio_rejected

    if loss_type == 'dpo':
        # Rafailov et al. 2023, arXiv:2305.18290, eq. 7. Sums over tokens, because p of an answer is a
        # product. label_smoothing: this share of the pairs counts the other way round (cDPO)
        margin = chosen - rejected
        losses = -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)
    elif loss_type == 'ipo':
        # The margin has a target. With dpo it grows for ever if all annotators agree, and beta no longer
        # holds the policy back. Azar et al. 2023, arXiv:2310.12036, eq. 17. As in the paper, log p is the
        # sum over the tokens of an answer. TRL's ipo takes the mean, so its target is for each token: with
        # answers of 20 tokens, our beta of 0.1 asks for the same margin as its 2 (beta times the length)
        losses = (ratio_chosen - ratio_rejected - 1 / (2 * beta)) ** 2
    elif loss_type == 'kto':
        # No pairs: each answer alone should be above or below a zero point (in the paper, beta KL(policy |
        # reference)). A pair's loss is the mean of both. Ethayarajh et al. 2024, arXiv:2402.01306, eq. 8
        has_chosen = (chosen_len > 0).float()
        has_rejected = (rejected_len > 0).float()
        losses = has_chosen * (kl - chosen).sigmoid() + has_rejected * (rejected - kl).sigmoid()
        losses = losses / (has_chosen + has_rejected)
    elif loss_type == 'orpo':
        # No reference: SFT's loss, the first term, takes its place. Means per token: with sums every p
        # would be near 0, where odds and p are the same. Hong et al. 2024, arXiv:2403.07691, eq. 6
        losses = -mean_chosen - beta * F.logsigmoid(log_odds(mean_chosen) - log_odds(mean_rejected))
        chosen = beta * mean_chosen
        rejected = beta * mean_rejected
    elif loss_type == 'simpo':
        # No reference. Means per token, so that a long answer neither loses nor wins by its length; the
        # better one must lead by gamma. Meng et al. 2024, arXiv:2405.14734, eq. 6
        chosen = beta * mean_chosen
        rejected = beta * mean_rejected
        losses = -F.logsigmoid(chosen - rejected - gamma)
    elif loss_type == 'rm':
        # The rewards are the scores. Bradley and Terry 1952; for language models arXiv:2203.02155, eq. 1
        chosen = policy_chosen.float()
        rejected = policy_rejected.float()
        losses = -F.logsigmoid(chosen - rejected)
    else:
        raise ValueError(f'loss_type={loss_type} must be dpo, ipo, kto, orpo, simpo or rm')
    return losses, chosen.detach(), rejected.detach()


def answer_log_probs(logits, y):
    """log p of N answers, float32 (N,), from logits (N, T, V) and targets (N, T): the sum over their tokens.
    Targets that are IGNORE count nothing."""
    nats = F.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=IGNORE, reduction='none')
    return -nats.view_as(y).sum(1)


# --- model --------------------------------------------------------------------------------------------------
load = functools.partial(load_checkpoint, device=device)
needs_reference = loss_type in ('dpo', 'ipo', 'kto')
model, state, tokenizer = start.open_to_tune(init_from, last_path, load, Tokenizer.load)
if tokenizer.vocab_size > model.config.vocab_size:
    raise ValueError(f'{init_from} has never seen <|im_start|> and <|im_end|>; fine-tune it first: python '
                     f'sft.py --init_from={init_from}')
model = model.like(dropout=0.0)         # or policy and reference would differ
model.grad_checkpoint = grad_checkpoint
block_size = block_size or model.config.block_size
start.check_context(init_from, model.config.block_size, block_size)
pad = tokenizer.special.get('<|pad|>', 0)


# --- data ---------------------------------------------------------------------------------------------------
paths = [os.path.join(data_dir, f'{side}.jsonl') for side in ('train', 'val')]
command = f'python prepare.py --kind=preference --source=FILE --out_dir={shlex.quote(data_dir)}'
command = data_from if data_dir in data_from else command
pairs, n_cut, n_same = records.read_pairs(paths[0], block_size, tokenizer, loss_type, command)
held_out = records.read_pairs(paths[1], block_size, tokenizer, loss_type, command)[0][:eval_pairs]
digests = [records.digest(path) for path in paths]
lengths = np.array([records.longest(pair) for pair in pairs])           # (n,): tokens
batches = records.Batches(lengths, batch_size, seed)
max_steps = config['max_steps'] = max_steps or max(1, round(epochs * batches.per_epoch))
eval_interval = eval_interval or batches.per_epoch
warmup_steps, *_ = optim.schedule_ends(max_steps, warmup_steps, learning_rate, 0.0)
if show_batch is not None:
    for row, j in enumerate(batches.of(show_batch)):
        for (prompt, answer), name in zip(pairs[j], ('chosen', 'rejected')):
            print(f'--- step {show_batch}, pair {row} of {batch_size}, {name}')
            print(f'{tokenizer.decode(prompt)}[[{tokenizer.decode(answer)}]]')
    sys.exit()


# --- log p of the answers -----------------------------------------------------------------------------------
def scores_of(net, pairs):
    """log p of the chosen and of the rejected answers (for rm: their scores), and how many tokens each has.
    (2, B) both."""
    x, y = devices.to_device(records.collate_pairs(pairs, pad), device)       # (2 B, T) each
    with autocast:
        scores = net(x, y) if loss_type == 'rm' else answer_log_probs(net(x)[0], y)         # (2 B,)
    return scores.view(2, -1), (y != IGNORE).sum(1).view(2, -1)


@torch.no_grad()
def reference_log_probs(pairs):
    """log p of the answers under the reference, (n, 2). The processes share the work."""
    table = np.zeros((len(pairs), 2))
    order = np.argsort([-records.longest(pair) for pair in pairs], kind='stable')
    my_rows = order[rank::world]            # the longest first: too little memory fails early
    model.eval()
    for i in range(0, len(my_rows), micro_batch_size):
        rows = my_rows[i:i + micro_batch_size]
        table[rows] = scores_of(model, [pairs[j] for j in rows])[0].T.cpu().numpy()         # (B, 2)
    model.train()
    return torch.tensor(processes.all_sum(*table.ravel())).view(-1, 2)   # all other processes have 0


if state:       # with other eval_pairs or another beta, best_val would mean something else
    start.same_run(last_path, {data_dir: state.get('pairs')}, {data_dir: digests}, [data_dir])
    start.same_run(last_path, state['config'], config, ['loss_type', 'optimizer', 'block_size', 'eval_pairs',
                                                        'beta', 'gamma', 'label_smoothing', 'batch_size'])
processes.same_start(last_path, config | {'pairs': digests, 'step': state.get('step', 0)})
# log p under the reference is computed once, before training: so only one model is in memory
if not needs_reference:
    ref = torch.zeros(len(pairs + held_out), 2)
elif state:
    ref = state['ref_log_probs'].cpu()
else:
    if main_process:
        print(f'computing the reference log-probabilities of {len(pairs + held_out):,} pairs', flush=True)
    ref = torch.cat([reference_log_probs(part) for part in (pairs, held_out)])      # (n, 2), float32

# --- policy, optimizer, resume ------------------------------------------------------------------------------
step = state.get('step', 0)
best_val = state.get('best_val', math.inf)
kto_kl = state.get('kto_kl', 0.0)       # kto's zero point, from the step before
adapters.adapt(model, lora, state)
policy = model
if loss_type == 'rm':
    policy = adapters.RewardModel(model)
    if not model.config.tie_embeddings:
        model.head.requires_grad_(False)        # a score does not use it, and DDP would wait for its gradient
    if state:
        policy.score.load_state_dict({'weight': state['reward_head']})
optimizers = optim.build(policy, optimizer, learning_rate, (0.9, 0.95), weight_decay)
if state:
    optim.restore(optimizers, scaler, state)
guard = guards.Guard(state, log.note, scaler.is_enabled())
net = processes.wrap(torch.compile(policy) if compile else policy, 'ddp', device)


# --- what is trained, and what is shown ---------------------------------------------------------------------
FIGURES = ('preference_loss', 'accuracy', 'chosen_reward', 'rejected_reward', 'chosen_logp', 'rejected_logp',
           'kl')


def losses_of(net, pairs, ref):
    """The losses of B pairs, (B,), and sums over them, (9,): FIGURES, chosen answers, rejected answers."""
    scores, n = scores_of(net, pairs)                                               # (2, B) each
    ref = ref.to(device).T                                                          # (2, B)
    losses, chosen, rejected = preference_loss(*scores, *ref, *n, loss_type, beta, label_smoothing, gamma,
                                               kto_kl)
    with torch.no_grad():
        accuracy = 0.5 + 0.5 * (chosen - rejected).sign()                           # a tie is half right
        kl = (ref - scores).sum(0) / (n > 0).sum(0)     # mean of log p_ref - log p over its answers
        sums = torch.stack([losses, accuracy, chosen, rejected, *scores, kl, *(n > 0)]).sum(1)
    if nll_weight and loss_type in ('dpo', 'ipo', 'kto', 'simpo'):
        losses = losses - nll_weight * scores[0] / n[0].clamp(min=1)
    return losses, sums


def figures_of(sums, n_pairs):
    """Means over n_pairs of all processes, or over the answers that exist: kto's may come alone. docs/chat.md
    says when kl is a KL divergence."""
    *totals, n_chosen, n_rejected = processes.all_sum(*sums.tolist())
    n_answers = [max(1, n_chosen), max(1, n_rejected)]
    counts = [n_pairs, n_pairs, *n_answers, *n_answers, n_pairs]           # in the order of FIGURES
    figures = {name: total / n for name, total, n in zip(FIGURES, totals, counts)}
    figures['margin'] = figures['chosen_reward'] - figures['rejected_reward']
    if loss_type == 'rm':
        del figures['chosen_logp'], figures['rejected_logp']
    if not needs_reference:
        del figures['kl']
    return figures


def write_samples(val_loss):
    """Greedy answers to the first held-out prompts, into samples.txt. Returns their mean number of tokens."""
    prompts = [prompt for (prompt, _), _ in held_out[:num_samples]]
    batch = decoding.Batch(model, tokenizer.stop)
    answers = [batch.add(prompt, sample_tokens, dice=None, temperature=0) for prompt in prompts]
    with autocast:
        while batch.queue or batch.live:
            batch.step()
    texts = [tokenizer.decode([*answer.prompt, *answer.ids]) for answer in answers]
    log.say(f'--- step {step}, val_loss {val_loss:.4f}\n' + '\n\n'.join(texts) + '\n', 'samples.txt')
    return sum(len(answer.ids) for answer in answers) / len(answers)


# --- evaluate, save -----------------------------------------------------------------------------------------
@timer.pause('eval')
@torch.no_grad()
def evaluate():
    global best_val
    my_rows = np.arange(len(held_out))[rank::world]
    sums = torch.zeros(len(FIGURES) + 2, device=device)
    model.eval()
    for i in range(0, len(my_rows), micro_batch_size):
        rows = my_rows[i:i + micro_batch_size]
        sums += losses_of(policy, [held_out[j] for j in rows], ref[len(pairs) + rows])[1]
    figures = figures_of(sums, len(held_out))
    val_loss = figures.pop('preference_loss')
    row = {'val_loss': val_loss} | {f'val_{name}': value for name, value in figures.items()}
    if main_process and loss_type != 'rm':
        row['val_response_len'] = write_samples(val_loss)
    model.train()
    log.evaluation(step, max_steps, row)
    if val_loss < best_val and step > 0:
        best_val = val_loss
        save_model(log.path('best.pt'))
    return row


def save_model(path, **more):
    """A GPT, as everywhere, and beside it the reward head."""
    if loss_type == 'rm':
        more['reward_head'] = policy.score.weight.detach()
    if main_process:
        save_checkpoint(path, adapters.merged(model), step=step, best_val=best_val, config=config,
                        tokenizer_hash=tokenizer.hash, pairs=digests, **more)


@timer.pause('save')
def save():
    """Write last.pt, with all that resuming needs; the one before becomes last-1.pt."""
    more = {'ref_log_probs': ref} if needs_reference else {}
    save_model(f'{last_path}.new', kto_kl=kto_kl, optimizers=optim.states(optimizers),
               scaler=scaler.state_dict(), lora=adapters.weights_of(model), **more, **guard.state())
    if main_process:
        checkpoint.rotate(last_path, keep=2)


# --- the banner: what is about to happen --------------------------------------------------------------------
config['expect'] = journal.expected(config, set_by)
log.begin(config, state, step, max_steps)
if main_process:
    tokenizer.save(log.path('tokenizer.json'))
log.copy_in(os.path.join(start.folder_of(last_path if state else init_from), 'data.json'))   # the base's
show(config | {'data_from': ''}, log.say)       # a config file's, perhaps for other data
log.row('data', f'pairs: {len(pairs):,}, held out: {len(held_out):,}; the same answer twice: {n_same}; '
        f'cut to {block_size} tokens: {n_cut}')
log.row('model', planner.described(vars(model.config)))
log.row('step', f'pairs: {batch_size}; processes: {world}, '
        f'micro-batches of each: {per_rank // micro_batch_size}, pairs in one: {micro_batch_size}; '
        f'on {device}, in {dtype}')
epochs = max_steps / batches.per_epoch
log.row('plan', optim.described(max_steps, warmup_steps, learning_rate, 0.0, grad_clip))
log.row('epochs', f'{epochs:.2f}; steps of each: {batches.per_epoch:,}')
log.notes(records.unusual(model, learning_rate, 5e-7, 5e-6, len(pairs), epochs))

# --- the loop -----------------------------------------------------------------------------------------------
probe = optim.probe(model)              # one matrix: how far does a step move it?
model.train()
if step == 0:
    first = evaluate()
    zero, one = torch.zeros(1), torch.ones(1)
    known = preference_loss(zero, zero, zero, zero, one, one, loss_type, beta)[0].item()        # ln 2 for dpo
    # relative if the loss is large (ipo: 25); val_kl counts a tenth: rounding adds up over many tokens
    error = abs(first['val_loss'] - known) / max(1, known) + abs(beta * first.get('val_kl', 0)) / 10
    if needs_reference and not error <= 1e-3:           # not: so nan is refused, too
        raise ValueError(f'the first {loss_type} loss is {first["val_loss"]:.5f} and val_kl is '
                         f'{first["val_kl"]:.4f}, but policy and reference are the same model: {known:.5f} '
                         'and 0 are expected; try --dtype=float32')
timer.restart()
while step < max_steps:
    # the gradient of the mean loss over the pairs of the global batch
    lr = optim.cosine(step, max_steps, warmup_steps, learning_rate, 0.0)            # lr_at() of train.py
    optim.set_lr(optimizers, lr)
    all_rows = batches.of(step)                                                     # (batch_size,)
    my_rows = all_rows[rank * per_rank:(rank + 1) * per_rank].reshape(-1, micro_batch_size)
    loss = 0.0
    sums = torch.zeros(len(FIGURES) + 2, device=device)
    for i, rows in enumerate(my_rows):
        with processes.sync_if(net, i == len(my_rows) - 1):
            losses, its_sums = losses_of(net, [pairs[j] for j in rows], ref[rows])
            share = losses.sum() / batch_size       # every pair of the global batch counts the same
            scaler.scale(share * world).backward()  # DDP divides the sum by world: undo that
        loss += share.detach()
        sums += its_sums

    # the update
    norm = optim.unscale_and_clip(optimizers, scaler, net, grad_clip).item()
    loss = processes.all_sum(float(loss))[0]
    figures = figures_of(sums, batch_size)
    if loss_type == 'kto':
        kto_kl = max(0.0, -beta * figures['kl'])    # of log p - log p_ref; paper: answers to other prompts
    before = probe.clone()
    if guard.allows(step, loss, norm):      # no NaN; what it refuses is logged
        optim.step(optimizers, scaler)
    scaler.update()
    processes.clear_gradients(net)
    step += 1
    timer.step(sum(len(prompt) + len(answer) for j in all_rows for prompt, answer in pairs[j]))

    # log
    if step % log_interval == 0 or step in (1, max_steps):
        speed = timer.figures(world)
        log.step(max_steps, ('accuracy', 'margin'), step=step, loss=loss, lr=lr, grad_norm=norm, **figures,
                 update_ratio=optim.change(before, probe).item(), skipped=guard.skipped,
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
command = ['sample.py', f'--ckpt={out_dir}', '--chat=True'] if loss_type != 'rm' else []
log.end(step, max_steps, timer.minutes(), best_val, command)
processes.leave(guard.trouble)
