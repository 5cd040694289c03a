"""What fits into the minutes."""
from functools import partial

import pytest

from mmspt.prompts import threads
from mmspt.quickstart import plan as plan_module
from mmspt.quickstart.plan import (
    LADDER,
    METHODS,
    Plan,
    Speed,
    make_plan,
    seconds_of_all,
    seconds_of_run,
    seconds_of_test,
)

COUNTS = dict(train=680, val=340, test=340)
SPEED = Speed(train=0.02, forward=0.007, load=0.002, start=15.)
"""Two cores, ViT-S/14, 4 x 4 patches."""


def measure(size, tokens=56):
    factor = (size / tokens) ** 2
    return Speed(SPEED.train * factor, SPEED.forward * factor, SPEED.load, SPEED.start)


def simulate(plan, speed, workers, step=0.5):
    """Let time pass: a free worker takes, of the methods that do not run, the one with the fewest runs behind it."""
    running, done, now = [], dict.fromkeys(METHODS, 0), 0.
    while running or min(done.values()) < plan.rates:
        running = [(method, end) for method, end in running if end > now]
        busy = [method for method, _ in running]
        waiting = [method for method in METHODS if method not in busy and done[method] < plan.rates]
        while waiting and len(running) < workers:
            method = min(waiting, key=lambda method: done[method])
            waiting.remove(method)
            running.append((method, now + seconds_of_run(method, plan, speed)))
            done[method] += 1
        now += step
    tests = [seconds_of_test(plan, speed)] * len(METHODS)
    looking = sum(plan.sizes.values()) * speed.load
    return looking + now + sum(max(tests[i:i + workers]) for i in range(0, len(tests), workers))


@pytest.mark.parametrize('workers', [1, 2, 3])
@pytest.mark.parametrize('minutes', [5, 10, 30, 120, 1000])
def test_what_is_chosen_fits(minutes, workers):
    plan, speed = make_plan(COUNTS, 17, 14, measure, workers, lambda: 60 * minutes)
    assert plan.seconds <= 60 * minutes
    assert simulate(plan, speed, workers) == pytest.approx(plan.seconds, rel=0.01, abs=4)
    assert all(0 < plan.sizes[split] <= COUNTS[split] for split in COUNTS)
    assert plan.sizes['train'] >= 3 * 17 and plan.size % 14 == 0


def test_more_minutes_give_more():
    plans = [make_plan(COUNTS, 17, 14, measure, 2, partial(float, 60 * minutes))[0]
             for minutes in (5, 8, 20, 60, 200, 2000)]
    spent = [plan.seconds for plan in plans]
    assert spent == sorted(spent) and plans[-1].size == 224 and plans[-1].rates == 3
    assert plans[0].rates < plans[-1].rates and plans[0].size < plans[-1].size


def test_loaders_read_while_the_network_computes():
    slow = Speed(train=0.001, forward=0.0005, load=0.02, start=15.)
    assert slow.with_loading(slow.train) == pytest.approx(0.021)
    assert slow._replace(loaders=8).with_loading(slow.train) == pytest.approx(0.0025)
    assert slow._replace(loaders=40).with_loading(slow.train) == pytest.approx(0.001)


@pytest.mark.parametrize(('quota', 'cores', 'given', 'expected'), [
    ('max 100000', 2, None, (2, 1)), ('200000 100000', 64, None, (2, 1)), ('max 100000', 16, None, (3, 5)),
    ('max 100000', 1, None, (1, 1)), ('max 100000', 16, '1', (3, 1)), ('50000 100000', 8, None, (1, 1))])
def test_workers(quota, cores, given, expected, tmp_path, monkeypatch):
    (tmp_path / 'cpu.max').write_text(f'{quota}\n')
    monkeypatch.setattr(threads, 'QUOTA', str(tmp_path / 'cpu.max'))
    monkeypatch.setattr(plan_module.torch.cuda, 'device_count', lambda: 0)
    monkeypatch.setattr(plan_module.os, 'sched_getaffinity', lambda pid: set(range(cores)), raising=False)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    if given:
        monkeypatch.setenv('OMP_NUM_THREADS', given)
    assert plan_module.count_workers() == expected


def test_patches_of_16_stay_within_224_pixels():
    assert make_plan(COUNTS, 17, 16, lambda size: measure(size, 64), 2, lambda: 1e6)[0].size == 224


def test_large_sizes_are_not_measured_without_need():
    measured = []
    plan, _ = make_plan(COUNTS, 17, 14, lambda size: measured.append(size) or measure(size), 2, lambda: 600)
    assert set(measured) == {56, plan.size}


def test_too_few_minutes():
    with pytest.raises(ValueError, match=r'takes \d\.\d minutes here .* 0\.5 are left: give more --minutes'):
        make_plan(COUNTS, 17, 14, measure, 2, lambda: 30)


def test_a_guess_that_was_too_low_is_corrected():
    """The larger network is slower than its tokens say: the next rung is taken."""
    slow = {size: 5. if size > 56 else 1. for size in (56, 84, 112, 168, 224)}
    plan, _ = make_plan(COUNTS, 17, 14, lambda size: Speed(*(slow[size] * x for x in measure(size)[:2]), 0.002, 15.), 2,
                        lambda: 60 * 15)
    assert plan.size == 56 and plan.seconds <= 900


def test_every_rung_says_what_it_is():
    for rung in LADDER:
        plan = Plan(rung.grid * 14, rung.epochs, 2, rung.rates, COUNTS, seconds_of_all(
            Plan(rung.grid * 14, rung.epochs, 2, rung.rates, COUNTS, 0.), SPEED, 2))
        assert f'{rung.epochs} epochs' in plan.describe() and '680 / 340 / 340' in plan.describe()
