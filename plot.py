"""
Two dashboards in one picture: is the engine running, and are we flying to the right place?

    python plot.py --runs=out/quickstart,out/sft --out=both.png     # finished, or still running
    python plot.py --runs=out/mine --reference=other_seeds.jsonl    # bench/curves.py wrote these

Is my loss normal? If a run has the settings of a preset, the curves that we measured with this
preset are behind it in gray. They are in config/curves.

Reads what the trainers and eval.py have written into the folder of each run. Prints a verdict on
the machine and one on the model, with what to do next, and draws the curves of both. Runs of the
same stage share their panels. Compare their losses only if they have the same tokenizer; bits per
byte can be compared between any two.

A run that is still going on is judged and drawn as far as it has come. A resumed run is one curve,
because the trainer drops what it had logged after the checkpoint.

A loss that falls is not yet health: while it falls, a model may repeat itself or solve none of its
problems. So section 1 has rules for what the loss does not show, too.
"""
import glob, math
import numpy as np
from configurator import Mistake, configure, show
from parts.eval import dashboard, run_log

# --- settings -------------------------------------------------------------------------------------
runs = 'out/base'           # folders that trainers wrote, comma-separated
out = 'dashboard.png'       # or .svg, .pdf
reference = ''              # file of curves to draw in gray; '' = those of the preset; or none
config = configure(globals())
if not out.endswith(('.png', '.svg', '.pdf')):
    raise Mistake(f'out={out} must end with .png, .svg or .pdf; try --out=dashboard.png')


# --- 1. rules: when is a run healthy? -------------------------------------------------------------
# A rule that a run breaks yields what is wrong and what to do. Rules read the rows of
# metrics.jsonl, such as {'step': 500, 'loss': 2.1, 'tok_s': 21000.0, 'dt': 0.2, 'data_s': 0.01}.
def column(rows, key):
    """Return the numbers under key, of the rows that have one."""
    return np.array([row[key] for row in rows if key in row], dtype=float)


def median(values):
    """Return the median of the finite values. If there are none it is nan, and as every comparison
    with nan is false, no rule is broken."""
    values = values[np.isfinite(values)]
    return np.median(values) if len(values) else math.nan


def faults_of_machine(train):
    """Yield (what is wrong, what to do) of the machine. train: the rows that have a loss."""
    # Another program or a hot processor slows a run down, and no loss shows it. So the last quarter
    # of the steps is compared with those before, except for the first one, which compiles.
    n_last = max(3, len(train) // 4)
    speed = column(train[1:], 'tok_s')
    before = median(speed[:-n_last])
    now = median(speed[-n_last:])
    if len(speed) > 10 and now < 0.8 * before:
        yield f'throughput fell from {before:,.0f} to {now:,.0f} tok/s', 'stop what else runs'

    # A device that waits for its next batch computes nothing. At first any disk is slow, because
    # the data are in no cache yet, so only the later half of the steps counts.
    later = train[len(train) // 2:]
    waiting = column(later, 'data_s').sum() / max(1e-9, column(later, 'dt').sum())
    if waiting > 0.2:
        yield f'waiting for data takes {waiting:.0%} of time', 'move the data to a fast disk'


def faults_of_loss(train, metrics, config, early):
    """Yield (what is wrong, what to do) of a model that learns from a loss."""
    # The training loss is compared with val_loss below, so both must measure the same. With
    # --nll_weight, the loss of dpo.py has a second part, and preference_loss is without it.
    loss = column(train, 'preference_loss' if 'preference_loss' in train[-1] else 'loss')
    if not np.isfinite([loss[-1], *column(metrics, 'val_loss')[-1:]]).all():
        yield 'the loss is not a number', 'lower learning_rate to a third, keep grad_clip=1.0'

    # After a spike, train.py can go back to its last checkpoint. A strange batch may be the reason
    # for the first time; the second time it is probably the learning rate.
    rollbacks = sum(m.get('event') == 'rollback' for m in metrics)
    if rollbacks >= 2:
        yield f'it was rolled back {rollbacks} times', 'lower learning_rate'

    # While the learning rate still rises, the held-out loss says little.
    if early:
        return
    warmup = config.get('warmup_steps') or 0
    vals = [(m['step'], m['val_loss']) for m in metrics
            if m['step'] > warmup and math.isfinite(m.get('val_loss', math.nan))]
    recent = median(loss[-(len(loss) // 10 + 1):])
    # dpo.py's losses are of pairs, not of tokens, so ln V says nothing about them.
    vocab_size = None if 'loss_type' in config else config.get('vocab_size')
    diagnosis = vals and diagnose(vals, recent, vocab_size, warmup)
    if diagnosis:
        name, why, to_do = diagnosis
        yield f'{why} ({name})', to_do

    # Text that repeats itself is easy to predict, so the loss can be good while samples are bad.
    repeats = median(column(metrics, 'repetition')[-1:])
    if repeats >= 0.9:
        yield f'samples repeat themselves ({repeats:.0%})', 'look for duplicates in the data'


def diagnose(vals, loss, vocab_size, warmup):
    """Return (name, what is wrong, what to do) if something is wrong with the held-out loss, else
    None. vals: (step, validation loss) of each evaluation. loss: of training, now."""
    # A model that knows nothing gives each of V tokens the probability 1 / V, so its loss is ln V,
    # which is 8.3 for 4,096 tokens. Knowing only how often each token occurs usually improves it
    # by more than half a nat, and is learned first.
    step, now = vals[-1]
    ln_v = math.log(vocab_size or math.inf)
    if step >= max(200, 2 * warmup) and now > ln_v - 0.5:
        return 'stuck', f'validation loss {now:.2f} is still near ln V = {ln_v:.2f}', (
            'try a third of the learning rate and three times as much; then give it more data, or '
            'take a larger model')
    if len(vals) < 4:
        return None

    # The loss rises if it does so through four evaluations, or if the last two are both 1% above
    # the best, because one alone may be chance. If the training loss is lower than the best
    # held-out loss, the model learns its text by heart. If not, training itself goes wrong.
    values = [value for _, value in vals]
    best = min(values)
    a, b, c, d = values[-4:]
    rises = a < b < c < d or min(c, d) > 1.01 * best
    if rises and loss < best:
        return 'memorising', 'validation loss rises above the training loss', (
            'more data, fewer epochs or dropout; best.pt is kept')
    if rises:
        return 'drift', 'validation loss rises', (
            'see the data with --show_batch, try --dtype=float32; with dropout, fewer epochs')

    # A loss falls ever slower, but twice the steps should still bring 1%: so the best of the second
    # half has to be that much better than the best of the first.
    half = len(values) // 2
    first, second = min(values[:half]), min(values[half:])
    if second > 0.99 * first:
        return 'plateau', (f'validation loss is flat: {first:.2f} in the first half of the way, '
                           f'{second:.2f} in the second'), 'a higher or lower rate, or other data'


def faults_of_reward(train, held_out, early):
    """Yield (what is wrong, what to do) of a run of rl.py, whose loss is about 0, whatever happens.
    held_out: the rewards of its evaluations."""
    if not np.isfinite(column(train, 'loss')[-1]):
        yield 'the loss is not a number', 'lower learning_rate'

    # An answer teaches only if it earned more, or less, than other answers to its prompt.
    informative = column(train, 'informative')
    if len(train) >= 8 and median(informative[-(len(train) // 4):]) == 0:
        yield ('all answers to a prompt earn the same, so nothing is learned',
               'take easier prompts if the reward is low, harder ones if it is high')

    # The reward has to rise on prompts that are not practiced, unless it began at 0.9 or above:
    # there, little is left to gain. And wherever it began, it must not fall. Up to 0.05 less may be
    # chance: the mean of the 200 rewards of an evaluation, each 0 or 1, has a standard error of up
    # to sqrt(0.25 / 200) = 0.035, and the difference of two such means one of 0.05.
    if not early and len(held_out) and not held_out.any():
        yield ('no held-out answer earned a reward',
               'take easier prompts, or show the model more examples: python sft.py')
    elif not early and len(held_out) > 2:
        first, last = held_out[0], held_out[-1]
        has_not_risen = last <= first < 0.9
        has_fallen = last < first - 0.05
        if has_not_risen or has_fallen:
            yield (f'the held-out reward went from {first:.2f} to {last:.2f}',
                   'use best.pt and read samples.txt; lower learning_rate, or raise it if kl stays '
                   'near 0')


def verdict(metrics, config):
    """Return how the machine does and how the model does, each 'healthy', 'unhealthy' or 'too early
    to tell'; then a sentence: why, and what to do. metrics: the rows and events of a run. config:
    its settings and, if eval.py has asked the model, 'pass@1'; see section 3."""
    train = [m for m in metrics if 'loss' in m]
    too_early = 'too early to tell'
    if not train:
        return too_early, too_early, 'no step is logged. To do: look again soon.'
    step = train[-1]['step']
    max_steps = config.get('max_steps') or step
    # Early are the warm-up, in steps, and a tenth of the run after it.
    early = step <= (config.get('warmup_steps') or 0) + 0.1 * max_steps
    of_machine = list(faults_of_machine(train))
    if config.get('stage') == 'rl':
        of_model = list(faults_of_reward(train, column(metrics, 'val_reward'), early))
        result = f'reward {median(column(train, "reward")[-5:]):.2f}'
    else:
        of_model = list(faults_of_loss(train, metrics, config, early))
        val_loss = column(metrics, 'val_loss')[-1:]
        result = f'validation loss {val_loss[0]:.2f}' if len(val_loss) else 'not evaluated yet'
    # Whatever its loss or its reward is, a model should solve something.
    if 'pass@1' in config:
        result += f', pass@1 {config["pass@1"]:.1%}'
        if not early and config['pass@1'] < 0.0005:         # printed as 0.0%
            of_model.append(('it solves none of the problems (pass@1 0%)',
                             'read samples.jsonl: if the answers have the right form, train longer '
                             'or on easier problems; if not, show it examples (python sft.py)'))

    reasons = [why for why, _ in of_machine + of_model]
    advice = [to_do for _, to_do in of_machine + of_model]
    if of_model:
        model = 'unhealthy'
    else:
        model = too_early if early else 'healthy'
        reasons.append(f'{train[-1]["tok_s"]:,.0f} tok/s, {result}')
        advice.append('let it run' if step < max_steps else next_step(config))
    return 'unhealthy' if of_machine else 'healthy', model, (
        f'{"; ".join(reasons)}. To do: {"; ".join(advice)}.')


def next_step(config):
    """Return what to do after a run that went well."""
    if config.get('objective', 'clm') != 'clm':
        return "see it fill gaps: sample.py --prompt='for i in <|mask|>(10):'"
    if config.get('loss_type') == 'rm':
        return 'let it reward answers: rl.py --reward=FOLDER_OF_THIS_RUN'
    if 'pass@1' in config:
        return 'try the next stage of README.md'
    return 'measure it with eval.py'


# --- 2. panels: what is drawn, and how it looks if all is well ------------------------------------
# A panel is a title, a line of text that is printed below it, and metrics of metrics.jsonl:
#     ('samples', '% pass; thin: parse, repeat', 'pass_rate', 'parse_rate', 'repetition')
# The first metric, pass_rate, becomes a thick line, because it is the one to watch. The others are
# thin, and the text names them behind "thin:". The program looks only at the first character of the
# text: % says that the metrics are fractions, so 0.25 is drawn as 25. The name of a metric may be a
# pattern: val_.+_bpb stands for val_web_bpb, val_code_bpb and whatever else a mixture has.
#
# A vertical line is an event, for instance a spike: the loss of a step, or the logarithm of its
# gradient norm, was more than 8 standard deviations above the mean of the last 100 steps (--spike_z
# and --spike_window of train.py).
# Normal noise passes 4 standard deviations once in 30,000 steps and 8 practically never.
LOSS = ('loss', 'nats per token: falls, ever slower', 'val_loss', 'loss')
GRADIENT = ('gradient norm', 'before it is clipped: few spikes', 'grad_norm')
MODEL = {
    'base': [
        LOSS,
        ('bits per byte', 'falls; thin: by source', 'val_bpb', r'val_.+_bpb'),
        ('samples', '% pass; thin: parse, repeat', 'pass_rate', 'parse_rate', 'repetition'),
        GRADIENT,
        ('update', '% of the weights: about 0.1', 'update_ratio'),
        ('learning rate', 'as planned: up, then down', 'lr')],
    'sft': [
        LOSS,
        ('bits per byte', 'of the base data: a rise is forgetting', 'base_bpb'),
        ('answers that pass', '%: rises', 'pass_rate'),
        GRADIENT],
    'dpo': [
        ('margin', 'lead of the better answer: rises', 'val_margin', 'margin'),
        ('right order', '% of the pairs: rises from 50', 'val_accuracy', 'accuracy'),
        ('preference loss', 'nats: falls, of dpo from ln 2', 'val_loss', 'preference_loss'),
        ('log p - log p_ref', 'of an answer, in nats: near 0', 'val_kl', 'kl')],
    'rl': [
        ('reward', 'mean of the answers: rises', 'val_reward', 'reward'),
        ('informative', '% of prompts that teach: never 0', 'informative'),
        ('length', 'tokens of an answer: steady', 'val_length', 'length'),
        ('entropy', 'nats per token: not 0; thin: KL', 'entropy', 'kl'),
        ('clipped', '% of the tokens: a few', 'clip_fraction')]}
MACHINE = [
    ('step time', 'seconds: flat', 'dt'),
    ('speed', 'tokens per second: flat', 'tok_s'),
    ('memory', 'MB: flat', 'memory_mb'),
    ('waits', '% for data: near 0; thin: evaluation', 'data_share', 'eval_share'),
    ('GPU', '% of its peak: 30 or more', 'mfu'),
    ('skipped', 'updates: none', 'skipped')]

# --- 3. read, judge, draw -------------------------------------------------------------------------
# run_log.read_run() returns a dict with these among others:
#     rows        of metrics.jsonl: [{'step': 10, 'loss': 5.1}, {'step': 20, 'val_loss': 4.9}, ...]
#     events      [{'step': 815, 'event': 'spike', ...}]
#     config      config.json. A warmup_steps below 1, which is a part of max_steps, is already in
#                 steps. If there is an eval.json, 'pass@1' is its result for the latest checkpoint.
all_runs = []
for folder in runs.split(','):
    run = run_log.read_run(folder.strip().rstrip('/'))
    if not run['rows']:
        raise Mistake(f'{run["name"]}/metrics.jsonl is missing or has no complete line yet; '
                      f'make a run: python train.py --out_dir={run["name"]}, or wait a minute')
    machine, model, run['why'] = verdict(run['rows'] + run['events'], run['config'])
    run['health'] = [f'operationally {machine}', f'scientifically {model}']
    all_runs.append(run)
# A reference has "preset", "stage", "metric", "seed", "steps" and "values". If a run changes a
# setting of its preset, its config names no preset, because such a run has another loss.
presets = {run['config'].get('preset') for run in all_runs}
files = [reference] if reference else glob.glob('config/curves/*.jsonl')
references = [curve for path in files for curve in run_log.objects_in(path)
              if 'values' in curve and (reference or curve['preset'] in presets)]
if reference not in ('', 'none') and not references:
    raise Mistake(f'reference={reference} is missing or has no curves; bench/curves.py writes them')
show(config)
for run in all_runs:
    print(f'{run["title"]}: {", ".join(run["health"])}: {run["why"]}')
dashboard.draw(out, all_runs, MODEL, MACHINE, references)
print(f'{out} is written')
