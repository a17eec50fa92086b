"""
The update: optimizers, and the guard that decides which updates reach the weights.

    optimizers = build(model, 'muon', learning_rate=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
    watch = Guard(state, scaler, spike_z=8)     # at each step: event, why = watch.judge(step, loss, norm)

Copy this file alone: it needs torch and numpy.
"""
import math, os, signal, time
import numpy as np
import torch


def build(model, kind, learning_rate, betas, weight_decay, zero1=False, embedding_lr=1.0):
    """A list of optimizers. Weight decay acts on matrices, not on the gains of the norms, which it would pull
    away from 1. kind='muon': Muon for the matrices in blocks, AdamW for the rest, with one learning rate
    (arXiv:2502.16982), times embedding_lr for the embedding. zero1: ZeRO stage 1 (1910.02054)."""
    named = list(model.named_parameters())
    for_muon = [p for name, p in named if kind == 'muon' and 'blocks.' in name and p.dim() == 2]
    own_rate = [p for name, p in named if name == 'embedding.weight' and embedding_lr != 1]
    others = {id(p) for p in for_muon + own_rate}
    matrices = [p for _, p in named if p.dim() >= 2 and id(p) not in others]
    vectors = [p for _, p in named if p.dim() < 2]
    groups = [{'params': matrices, 'weight_decay': weight_decay}, {'params': vectors, 'weight_decay': 0.0}]
    if own_rate:
        groups.append({'params': own_rate, 'weight_decay': weight_decay, 'lr_scale': embedding_lr})
    fused = named[0][1].device.type in ('cpu', 'cuda')
    parts = [(torch.optim.AdamW, groups, {'lr': learning_rate, 'betas': betas, 'fused': fused})]
    if for_muon:
        parts.append((Muon, for_muon, {'lr': learning_rate, 'weight_decay': weight_decay}))

    if zero1 and torch.distributed.is_initialized():
        from torch.distributed.optim import zero_redundancy_optimizer as zero   # costs a second to import
        zero._broadcast_object = broadcast
        return [zero.ZeroRedundancyOptimizer(params, make, **settings) for make, params, settings in parts]
    return [make(params, **settings) for make, params, settings in parts]


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Keller Jordan 2024): equally large in every direction, RMS as AdamW's. As
    torch.optim.Muon(adjust_lr_fn='match_rms_adamw'), but in float32 on a CPU that only emulates bfloat16."""

    def __init__(self, params, lr, weight_decay, momentum=0.95):
        super().__init__(params, {'lr': lr, 'weight_decay': weight_decay, 'momentum': momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            alike = {}                      # shape -> [(matrix, its direction)]
            for p in (p for p in group['params'] if p.grad is not None):
                if not self.state[p]:
                    self.state[p]['momentum_buffer'] = torch.zeros_like(p)
                buffer = self.state[p]['momentum_buffer'].lerp_(p.grad, 1 - group['momentum'])
                direction = p.grad.lerp(buffer, group['momentum'])                  # Nesterov's
                alike.setdefault(p.shape, []).append((p, direction))
            for shape, pairs in alike.items():          # in bfloat16 a stack takes half of the time
                for (p, _), update in zip(pairs, orthogonal(torch.stack([g for _, g in pairs]))):
                    p.mul_(1 - group['lr'] * group['weight_decay'])
                    p.add_(update, alpha=-group['lr'] * 0.2 * math.sqrt(max(shape)))


def orthogonal(g, dtype=None):
    """About U V^T of each matrix U S V^T in g (N, rows, columns), by five Newton-Schulz iterations."""
    native = g.device.type != 'cpu' or getattr(torch.cpu, '_is_avx512_bf16_supported', bool)()
    tall = g.shape[1] > g.shape[2]
    x = (g.mT if tall else g).to(dtype or (torch.bfloat16 if native else torch.float32))
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)            # no singular value is above 1
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.mT if tall else x


def broadcast(value, src_rank, group, device):
    """For ZeRO-1, instead of torch's, which makes a Python number of each byte: minutes for a large model."""
    box = [torch.utils._pytree.tree_map(lambda t: t.cpu() if torch.is_tensor(t) else t, value)]
    torch.distributed.broadcast_object_list(box, src_rank, group, device)
    return box[0]


def states(optimizers):
    """The optimizers' state dicts, for a checkpoint. With ZeRO-1, [] in all processes but the first."""
    zero1 = hasattr(optimizers[0], 'consolidate_state_dict')
    for o in optimizers if zero1 else ():
        o.consolidate_state_dict(to=0)
    return [] if zero1 and torch.distributed.get_rank() > 0 else [o.state_dict() for o in optimizers]


def restore(model, weights, optimizers, optimizer_states):
    """Load weights (if not None) and optimizer states of a checkpoint into a model that may be sharded."""
    def own(value, p):          # under FSDP: this process's part of value
        if not hasattr(p, 'placements') or value.shape != p.shape:
            return value
        from torch.distributed.tensor import distribute_tensor
        return distribute_tensor(value, p.device_mesh, p.placements)

    if weights is not None:
        with torch.no_grad():
            for name, p in model.state_dict().items():
                p.copy_(own(weights[name], p))
    for o, state in zip(optimizers, optimizer_states, strict=True):
        params = [p for group in o.param_groups for p in group['params']]
        moments = {i: {key: own(value, params[i]) for key, value in moment.items()}
                   for i, moment in state['state'].items()}
        groups = [{**before, **{key: now[key] for key in ('betas', 'weight_decay') if key in now}}
                  for before, now in zip(state['param_groups'], o.param_groups)]    # set_lr sets the rate
        o.load_state_dict({**state, 'state': moments, 'param_groups': groups})
        for p, moment in o.optim.state.items() if hasattr(o, 'optim') else ():      # ZeRO-1 puts step on CPU,
            moment.update({key: value.to(p.device) for key, value in moment.items()})   # where fused fails


def probe(model):
    """A matrix that trains, from the middle of the model, to watch: w_down, or with LoRA its A."""
    return [p for p in model.blocks[len(model.blocks) // 2].parameters() if p.requires_grad][-1].detach()


def change(before, after):
    """How far a matrix moved, over its norm: 1e-3 a step is usual, 1e-5 hardly moves, 1e-1 tears apart."""
    ratio = (after - before).norm() / before.norm().clamp(min=1e-12)
    return getattr(ratio, 'full_tensor', lambda: ratio)().item()


def set_lr(optimizers, lr):
    for group in [group for o in optimizers for group in o.param_groups]:
        group['lr'] = lr * group.get('lr_scale', 1.0)


def ends(max_steps, warmup_steps, learning_rate, min_lr, schedule='cosine', decay_steps=0):
    """min_lr (default: learning_rate / 10) and decay_steps (a fifth). ValueError if they do not fit."""
    min_lr = learning_rate / 10 if min_lr is None else min_lr
    if schedule == 'cosine' and decay_steps:
        raise ValueError(f'decay_steps={decay_steps} needs --schedule=wsd; a cosine falls all the way')
    if schedule == 'wsd' and decay_steps == 0:
        decay_steps = min(max_steps // 5, max_steps - warmup_steps)
    if min_lr > learning_rate:
        raise ValueError(f'min_lr={min_lr} must be at most learning_rate={learning_rate}')
    if warmup_steps > max_steps:
        raise ValueError(f'warmup_steps={warmup_steps} must be at most max_steps={max_steps}')
    if decay_steps > max_steps - warmup_steps:
        raise ValueError(f'decay_steps={decay_steps} must be at most {max_steps - warmup_steps = }')
    return min_lr, decay_steps


class Guard:
    """Judges every step before its update. If loss or gradient norm is not finite, the update is skipped. If
    one is spike_z deviations above those of the last steps, that is a spike: skip, roll back, or only log."""

    def __init__(self, state, scaler, spike_z=0.0, spike_window=100, spike_action='skip', inject=''):
        self.spike_z = spike_z
        self.spike_window = spike_window
        self.spike_action = spike_action
        self.patience = 30 if scaler.is_enabled() else 3    # float16 finds its scale by overflowing
        self.window = state.get('window', [])               # [loss, gradient norm] of the last steps
        self.skipped = state.get('skipped', 0)
        self.skipped_in_a_row = 0
        self.has_taken = False                              # an update, since this process began
        self.lr_scale = state.get('lr_scale', 1.0)          # halved by every rollback
        self.bad_steps = set(state.get('bad_steps', []))    # those that led to a rollback: skipped next time
        self.accidents = drills(inject)                     # {step: accident}

    def state(self):        # for the checkpoint
        return {'window': self.window, 'skipped': self.skipped, 'lr_scale': self.lr_scale,
                'bad_steps': sorted(self.bad_steps)}

    def last_loss(self):
        return self.window[-1][0] if self.window else math.inf

    def judge(self, step, loss, norm):
        """('skip', why): it would do harm. ('spike', why): take it, but say so. (None, ''): take it."""
        self.wants_rollback = False
        if not math.isfinite(loss + norm):
            return self.skip(f'loss {loss}, gradient norm {norm}: not finite')
        trouble = spike(self.window, loss, norm, self.spike_z)
        if step in self.bad_steps:
            return self.skip(trouble or 'a step that was rolled back before')
        if trouble and self.spike_action != 'log':
            self.wants_rollback = self.spike_action == 'rollback'
            return self.skip(trouble)
        self.skipped_in_a_row = 0
        self.has_taken = True
        self.window = [*self.window, [loss, norm]][-self.spike_window:]
        return ('spike', trouble) if trouble else (None, '')

    def skip(self, why):
        self.skipped += 1
        self.skipped_in_a_row += 1
        return 'skip', f'{why}: update skipped'

    def trouble(self, step, why, last_path):
        """Why to save and end: too many skips in a row; else ''. ValueError if no update was taken."""
        if self.skipped_in_a_row < self.patience:
            return ''
        text = (f'{self.skipped_in_a_row} updates in a row were skipped, the last at step {step}: {why}; '
                f'resume {last_path} with a lower --learning_rate or --dtype=float32; last-1.pt is older')
        if not self.has_taken:
            raise ValueError(text)
        self.window = []        # so that a resumed run judges its steps by each other, not by these
        return text

    def rolled_back(self, step, then):
        """Remember that `step` led back to the checkpoint `then`."""
        self.bad_steps.add(step)
        self.lr_scale /= 2
        self.window = then['window']

    def spoil_data(self, step, batches, vocab_size):
        """The drill of this step, if it has one: kill this process, wait, or replace the text by noise."""
        accident = self.accidents.get(step)
        if accident == 'kill':
            os.kill(os.getpid(), getattr(signal, 'SIGKILL', signal.SIGTERM))    # Windows has only this one
        if accident == 'slowdata':
            time.sleep(3)
        if accident == 'badbatch':
            for x, y, *_ in batches:
                x.random_(0, vocab_size)
                y.random_(0, vocab_size)

    def spoil_gradient(self, step, model):
        if factor := {'nan': math.nan, 'spike': 1e4}.get(self.accidents.pop(step, None)):
            model.norm.weight.grad.mul_(factor)


def spike(window, loss, norm, limit):
    """A text, if loss or norm is more than `limit` standard deviations above its mean in window, the [loss,
    norm] of the last steps; else None. Norms vary by factors, so their logarithms are compared."""
    if not limit or len(window) < 30:       # the first steps say nothing about the next
        return None
    losses, norms = np.array(window).T
    logs = np.log(np.maximum([*norms, norm], 1e-12))
    for name, now, before, floor in (('loss', loss, losses, 0.01 * losses.mean()),      # floor: of std
                                     ('log of the gradient norm', logs[-1], logs[:-1], 0.3)):
        deviations = (now - before.mean()) / max(before.std(), floor)
        if deviations > limit:
            return f'{name} {now:.3g}, {deviations:.0f} deviations above {before.mean():.3g}'


def diagnose(vals, loss, vocab_size, step, warmup, max_steps):
    """(event, advice), or None. vals: [step, validation loss] of all evaluations. loss: of the last step."""
    ln_v = math.log(vocab_size)             # the loss of a model that knows nothing
    last = [v for _, v in vals[-4:]]
    if step >= max(200, 2 * warmup) and last[-1] > ln_v - 0.5:
        return 'stuck', (f'val_loss {last[-1]:.2f} is still near ln V = {ln_v:.2f}: too little data, a '
                         'learning rate too low or too high (look at gnorm), or a model too small')
    rising = len(last) == 4 and last[0] < last[1] < last[2] < last[3]
    if rising and loss < last[0]:
        return 'memorising', 'val_loss rises above the training loss: more data or dropout; best.pt is kept'
    if rising:
        return 'drift', 'both losses creep up: see the data with --show_batch, or try --dtype=float32'
    if len(last) == 4 and max(last) - min(last) < 0.002 * last[0] and step < 0.8 * max_steps:
        return 'plateau', 'val_loss has not moved for four evaluations: a higher or lower rate, or other data'


def drills(text):
    """'nan@50,kill@120' -> {50: 'nan', 120: 'kill'}"""
    kinds = 'nan', 'spike', 'badbatch', 'slowdata', 'kill'
    found = {}
    for item in filter(None, text.split(',')):
        kind, _, step = item.partition('@')
        if kind not in kinds or not step.isdigit():
            raise ValueError(f'inject={text}: {item!r} must look like nan@50; there are {", ".join(kinds)}')
        found[int(step)] = kind
    return found
