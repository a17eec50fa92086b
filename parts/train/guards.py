"""
The guard: it decides which updates reach the weights, and writes down what it refuses.

    guard = Guard(state={}, log=log, spike_z=8.0)
    if guard.allows(step=7, loss=3.2, norm=0.8): ...    # else: log.note(8, 'skip', 'loss nan ...')
"""
import math
import numpy as np
from parts import Mistake


class Guard:
    """Judges every step before its update. A step whose loss or gradient norm is not finite never
    reaches the weights, nor does a spike: one of them is spike_z standard deviations above its mean
    over the last 100 steps.

    state: a checkpoint, or {}. log: its note() writes down what was refused. dtype: float16 finds
    its scale by overflowing, so it may have more refusals in a row.

    `step` counts from 0 and is the number of a batch. After its update the run is at step + 1, so
    its notes have the number step + 1. Log.cut then drops exactly those notes that a resumed run
    will write again."""

    def __init__(self, state, log, dtype='float32', spike_z=0.0):
        self.log = log
        self.patience = 30 if dtype == 'float16' else 3     # refusals in a row that end the run
        self.spike_z = spike_z
        self.window = state.get('window', [])              # [loss, gradient norm] of the last steps
        self.skipped = state.get('skipped', 0)
        self.skipped_in_a_row = 0
        self.updates = 0                                    # since this process began
        self.trouble = ''                                   # why the run cannot continue

    def state(self):
        """Return what a checkpoint keeps."""
        return {'window': self.window, 'skipped': self.skipped}

    def allows(self, step, loss, norm):
        """May the update of this step change the weights? If not, write down why."""
        if not math.isfinite(loss + norm):
            return self.refuse(step, f'loss {loss:.4f}, gradient norm {norm:.4f}: not finite')
        spiked = spike(self.window, loss, norm, self.spike_z)
        if spiked:
            return self.refuse(step, spiked)
        self.skipped_in_a_row = 0
        self.updates += 1
        self.window = [*self.window[-99:], [loss, norm]]
        return True

    def refuse(self, step, why):
        """Write down why a step is skipped. Return False, the answer of allows()."""
        self.note(step, 'skip', f'{why}: update skipped')
        self.skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row >= self.patience:
            self.trouble = (f'{self.skipped_in_a_row} updates in a row were skipped, the last at '
                            f'step {step + 1}: {why}; resume last.pt, or start again if there is '
                            'none, with a lower --learning_rate or --dtype=float32')
            if self.updates == 0:
                raise Mistake(self.trouble)
            self.window = []    # so that a resumed run judges its steps by each other, not by these
        return False

    def note(self, step, event, text):
        """Write down an event, and how to look at its batch. rl.py cannot print one, and of a stream
        --show_batch prints the first."""
        config = self.log.config
        if config.get('show_batch', 'no such setting') is None and not config.get('streaming'):
            text += f' (its batch: --show_batch={step})'
        self.log.note(step + 1, event, text)

def spike(window, loss, norm, limit):
    """Return a text if loss or norm is more than `limit` standard deviations above its mean in
    window, the [loss, norm] of the last steps; otherwise None. Norms vary by factors, so their
    logarithms are compared. After steps that were nearly alike the deviation is tiny, so it counts
    as at least `floor`."""
    if not limit or len(window) < 30:       # the first steps say nothing about the next
        return None
    losses, norms = np.array(window).T
    logs = np.log(np.maximum([*norms, norm], 1e-12))
    for name, now, before, floor in (('loss', loss, losses, 0.01 * losses.mean()),
                                     ('log of the gradient norm', logs[-1], logs[:-1], 0.3)):
        deviations = (now - before.mean()) / max(before.std(), floor)
        if deviations > limit:
            return f'{name} {now:.3g}, {deviations:.0f} deviations above {before.mean():.3g}'
