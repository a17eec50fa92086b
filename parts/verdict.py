"""
The verdict on a run, from the lines of its metrics.jsonl: does it run well, and does the model improve?

    systems, model, sentence = verdict(metrics, config)     # 'healthy', 'unhealthy' or 'unknown', twice

Copy this file alone: it needs numpy.
"""
import math
import numpy as np


def column(rows, key):
    """The figures under key, of the rows that have one."""
    return np.array([row[key] for row in rows if row.get(key) is not None], dtype=float)


def middle(values, at_least=1, percent=50):
    """The median, nan of fewer than at_least finite values: no comparison with nan is true."""
    values = np.array(values)[np.isfinite(values)]
    return np.percentile(values, percent) if len(values) >= at_least else math.nan


def verdict(metrics, config):
    """(systems, model, sentence): twice 'healthy', 'unhealthy' or 'unknown'; then why, and what to do."""
    more_data = 'more data or dropout=0.1'
    if config.get('stage') == 'dpo':    # its loss has nll_weight's part, val_loss has not; neither knows ln V
        metrics = [m | {'loss': m.get('preference_loss', m['loss'])} if 'loss' in m else m for m in metrics]
        config = config | {'vocab_size': None}
        more_data = 'more data or fewer epochs'
    train, evals = ([m for m in metrics if m.get(key) is not None] for key in ('loss', 'val_loss'))
    if not train:
        return 'unknown', 'unknown', 'too early to tell: no step is logged. To do: look again soon.'
    step, half = train[-1]['step'], len(train) // 2
    max_steps, warmup = config.get('max_steps') or step, config.get('warmup_steps') or 0
    early = step <= warmup + 0.1 * max_steps

    # systems: the last quarter against what came before; the first step compiles, so it does not count
    speed, dt, last = column(train[1:], 'tok_s'), column(train[half + 1:], 'dt'), max(3, len(train) // 4)
    was, now = middle(speed[:-last], 8), middle(speed[-last:])
    slow = middle(dt, 8, percent=90) / middle(dt)
    waiting = column(train[half:], 'data_s').sum() / max(1e-9, column(train[half:], 'dt').sum())
    skips = np.diff(column(train, 'skipped'), prepend=0)[half:]         # in each log interval
    in_a_row = (skips >= 3).any() or ((skips[1:] > 0) & (skips[:-1] > 0)).any()
    evaluating = middle(column(metrics, 'eval_share')[-1:])
    engine = [      # (is it so?, why, what to do)
        (now < 0.8 * was, f'throughput fell from {was:,.0f} to {now:,.0f} tok/s', 'stop what else runs'),
        (slow > 1.5, f'one step in ten takes {slow:.1f} times the usual', 'look at loader and saving'),
        (waiting > 0.2, f'waiting for data takes {waiting:.0%} of time', 'move the data to a fast disk'),
        (not early and evaluating > 0.2, f'evaluating takes {evaluating:.0%}', 'raise eval_interval'),
        (in_a_row, f'{skips.sum():.0f} skips, several in a row', 'lower learning_rate, or grad_clip=1')]

    # model: the validation loss after warm-up where there is enough of it, else the training loss
    loss, warm = column(train, 'loss'), [m for m in train if m['step'] > warmup]
    odd, recent = ~np.isfinite(loss), middle(loss[-max(1, len(loss) // 10):])
    broken = odd[-1] or odd[half:].sum() >= 3 or not np.isfinite(column(evals, 'val_loss')[-1:]).all()
    rollbacks = sum(m.get('event') == 'rollback' and m['step'] > step / 2 for m in metrics)
    ln_v = math.log(config.get('vocab_size') or math.inf)               # what an untrained model has
    after = [m for m in evals if m['step'] > warmup and math.isfinite(m['val_loss'])]
    val = column(after, 'val_loss')
    best = min(after, key=lambda m: m['val_loss'], default={'step': 0, 'val_loss': math.nan})
    rising = len(val) >= 4 and min(val[-2:]) > 1.01 * best['val_loss']
    rose = f'validation loss rose from {best["val_loss"]:.2f} at step {best["step"]:,}'
    fell = recent < 0.99 * middle(
        [m['loss'] for m in train if 0 <= best['step'] - m['step'] < max_steps / 10])
    name, curve = ('validation', val) if len(val) >= 4 else \
        ('training', [middle(part, 2) for part in np.array_split(column(warm, 'loss'), 8)])
    first, second = (min(part) for part in np.array_split(curve, 2))
    norms, update = column(warm, 'grad_norm'), middle(column(warm, 'update_ratio'), 5)
    norm_was, norm_now = middle(norms[:len(norms) // 2], 5), middle(norms[-max(3, len(norms) // 4):])
    repeats = middle(column(evals, 'repetition')[-1:])
    course = [      # the first two at any time, the others when warm-up is some way behind
        (broken, 'the loss is not a number', 'lower learning_rate to a third, keep grad_clip=1.0'),
        (rollbacks >= 2, f'it was rolled back {rollbacks} times', 'lower learning_rate'),
        (recent > ln_v - 0.5, f'the loss, {recent:.2f}, is still near ln V = {ln_v:.2f}: guessing',
         'check the data, the learning-rate schedule, the gradient norms and the size of the model'),
        (rising, rose + (', training loss fell: it is memorising' if fell else ', a slow drift of both'),
         f'use best.pt; {more_data}' if fell else 'check data order; lower learning_rate'),
        (second > 0.99 * first and recent <= ln_v - 0.5 and not rising,
         f'{name} loss is flat: {first:.2f} in the first half of the way, {second:.2f} in the second',
         'raise learning_rate if it is low; else more varied data or a larger model'),
        (norm_now > 3 * norm_was, f'gradient norms grew from {norm_was:.2g} to {norm_now:.2g}',
         'lower learning_rate, keep grad_clip=1.0'),
        (update < 1e-5 or update > 3e-2, f'an update is {update:.0e} of the weights, 1e-3 is usual',
         'raise learning_rate' if update < 1e-5 else 'lower learning_rate'),
        (repeats >= 0.9, f'samples repeat themselves ({repeats:.0%})', 'look for duplicates in the data')
    ][:2 if early else None]
    figure = f'validation loss {val[-1]:.2f}' if len(val) else f'training loss {loss[-1]:.2f}'
    if config.get('stage') == 'rl':         # whose loss is about 0, whatever happens
        course = course_of_rl(train, column(metrics, 'val_reward'))[:2 if early else None]
        figure = f'reward {middle(column(train, "reward")[-5:]):.2f}'

    ill, lost = ([(why, do) for wrong, why, do in checks if wrong] for checks in (engine, course))
    systems = 'unhealthy' if ill else 'healthy'
    model = 'unhealthy' if lost else 'unknown' if early else 'healthy'
    reasons, advice = zip(*ill + lost or [(f'{train[-1]["tok_s"]:,.0f} tok/s, {figure}', 'let it run' if
                          step < max_steps else 'measure it with eval.py and read what it writes')])
    course = 'too early to tell' if model == 'unknown' else model
    return systems, model, (f'operationally {systems}, scientifically {course}: {"; ".join(reasons)}. '
                            f'To do: {"; ".join(advice)}.')


def course_of_rl(train, held_out):
    """What goes wrong in reinforcement learning: (is it so?, why, what to do). held_out: val_reward."""
    last = max(1, len(train) // 4)
    entropy, informative = (column(train, key) for key in ('entropy', 'informative'))
    varied, mixed = middle(entropy[-last:]), middle(informative[-last:])
    were_varied, were_mixed = middle(entropy[:last]), middle(informative[:last])
    best, kept = max(held_out, default=0.0), max(held_out[1:], default=0.0)     # kept in best.pt
    fell = len(held_out) > 1 and best - held_out[-1] > 0.2 * max(abs(held_out))
    return [
        (not np.isfinite(column(train, 'loss')[-1]), 'the loss is not a number', 'lower learning_rate'),
        (len(train) >= 8 and mixed == 0, 'all answers to a prompt earn the same, so nothing is learned',
         'take easier prompts if the reward is low, harder ones if it is high, or a larger num_samples'),
        (fell, f'the held-out reward fell from {best:.2f} to {held_out[-1:].sum():.2f}',
         'use best.pt; lower learning_rate' if kept == best else 'lower learning_rate'),
        (varied < 0.3 * were_varied and mixed < 0.5 * were_mixed, f'a collapse: entropy fell from '
         f'{were_varied:.2g} to {varied:.2g}, informative prompts from {were_mixed:.0%} to {mixed:.0%}',
         'use best.pt; lower learning_rate, or raise kl_coef'),
        (len(held_out) > 2 and kept <= held_out[0] and not fell,
         f'nothing is learned: the held-out reward has not risen above {held_out[:1].sum():.2f}',
         'read samples.txt and the reward; raise learning_rate if clip_fraction and kl stay near 0')]
