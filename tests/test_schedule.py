"""The learning rate: linear warm-up, then half a cosine."""
import math

import pytest
from conftest import lift

from parts.train import optim

lr_at = lift('train.py', 'lr_at')


def exact(*expected):
    return pytest.approx(*expected, rel=1e-12)          # a handful of roundings in float64


def test_warm_up_is_linear_and_reaches_the_peak_with_its_last_step():
    rates = [lr_at(step, 100, 10, 3e-4, 3e-5) for step in range(10)]
    assert rates == exact([3e-5, 6e-5, 9e-5, 1.2e-4, 1.5e-4, 1.8e-4, 2.1e-4, 2.4e-4, 2.7e-4, 3e-4])


def test_closed_form_at_the_landmarks():
    at = {10: 1.0, 55: 0.55, 100: 0.1,                                  # start, middle and end of the cosine
          40: 0.1 + 0.9 * 0.75, 70: 0.1 + 0.9 * 0.25}                   # cos(pi/3) = 1/2, cos(2 pi/3) = -1/2
    for step, expected in at.items():
        assert lr_at(step, 100, 10, 1.0, 0.1) == exact(expected)
    assert lr_at(10_000, 10_000, 1000, 3e-4, 3e-5) == exact(3e-5)


def test_the_three_later_stages_have_the_cosine_of_train():
    for settings in ((100, 10, 1.0, 0.1), (50, 0, 6e-4, 6e-5), (7, 7, 1e-3, 0.0), (1, 0, 1.0, 0.5)):
        for step in range(settings[0] + 1):
            assert optim.cosine(step, *settings) == lr_at(step, *settings)


@pytest.mark.parametrize('max_steps, warmup, peak, low', [
    (100, 10, 1.0, 0.1), (50, 0, 6e-4, 6e-5), (7, 6, 1e-3, 0.0), (1, 0, 1.0, 0.5), (12, 12, 1.0, 0.1),
    (1, 1, 1.0, 0.1)])
def test_whole_schedule(max_steps, warmup, peak, low):
    rates = [lr_at(step, max_steps, warmup, peak, low) for step in range(max_steps)]
    assert all(a < b for a, b in zip(rates[:warmup], rates[1:warmup]))    # rises,
    assert all(a > b for a, b in zip(rates[warmup:], rates[warmup + 1:]))    # then falls,
    assert 0 < min(rates) and max(rates) == exact(peak)    # and meets the peak, no more
    assert all(rate >= low for rate in rates[warmup:])
    for step, rate in enumerate(rates[warmup:]):
        angle = math.pi * step / (max_steps - warmup)
        assert rate == exact(low + (peak - low) * math.cos(angle / 2) ** 2)     # (1 + cos a) / 2 = cos(a/2)^2


def test_without_warm_up_the_first_step_is_the_peak():
    assert lr_at(0, 100, 0, 1.0, 0.1) == 1.0


def test_going_on_past_the_end_divides_by_nothing():
    assert lr_at(5, 5, 5, 1.0, 0.1) == exact(1.0)       # all warm-up: the cosine has no length


@pytest.mark.parametrize('schedule', ['cosine', 'wsd'])
def test_a_run_may_be_all_warm_up_and_no_word_is_said_of_what_was_not_set(schedule):
    wsd = schedule == 'wsd'
    assert optim.schedule_ends(5, 5, 1.0, None, wsd) == (5, 0.1, 0)
    assert optim.schedule_ends(200, 0.05, 1.0, 0.0, wsd)[:2] == (10, 0.0)       # 5 % of the steps
    assert optim.schedule_ends(200, 10, 1.0, 0.0, wsd)[2] == (40 if wsd else 0)
    with pytest.raises(ValueError, match='^warmup_steps=6 must be at most max_steps=5$'):
        optim.schedule_ends(5, 6, 1.0, None, wsd)
    with pytest.raises(ValueError, match='^decay_steps=1 '):
        optim.schedule_ends(5, 5, 1.0, None, wsd, 1)


def test_a_cosine_has_no_last_part_of_its_own():
    with pytest.raises(ValueError, match='^decay_steps=3 needs --schedule=wsd'):
        optim.schedule_ends(9, 1, 1.0, None, False, 3)
