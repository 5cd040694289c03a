"""WarmupCosineLR against the authors' recorded rates and an independent closed form."""
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.optim import LinearLR

from mmspt.engine.schedulers import WarmupCosineLR
from mmspt.registry import PARAM_SCHEDULERS

GOLDEN = Path(__file__).parents[1] / 'data' / 'mae_deep.npz'
RECIPE = dict(type='mmspt.WarmupCosineLR', warmup=10, end=100, eta_min=1e-8, by_epoch=True,
              convert_to_iter_based=True)


def make_optimizer(*rates):
    return torch.optim.SGD([dict(params=[torch.nn.Parameter(torch.zeros(1))], lr=rate) for rate in rates], lr=1.)


def build(optimizer, epoch_length=4, **changes):
    """As ``Runner.build_param_scheduler`` does."""
    return PARAM_SCHEDULERS.build(RECIPE | changes, default_args=dict(optimizer=optimizer, epoch_length=epoch_length))


def run(optimizer, scheduler, steps, *others):
    """The rates at which ``steps`` optimizer steps are taken, (steps, groups)."""
    rates = []
    for _ in range(steps):
        rates.append([group['lr'] for group in optimizer.param_groups])
        optimizer.step()
        for one in (scheduler, *others):
            one.step()
    return np.array(rates)


def expected_rates(steps, warmup, total, peak, floor=1e-8):
    """The same curve by interpolation and half angles."""
    t = np.arange(steps, dtype=float)
    cosine = floor + (peak - floor) * np.cos(np.pi / 2 * (t - warmup) / (total - warmup))**2
    return np.where(t < warmup, np.interp(t, [0, warmup], [0, peak]), cosine)


def test_golden_rates():
    optimizer = make_optimizer(5e-2)
    scheduler = build(optimizer)
    assert type(scheduler) is WarmupCosineLR
    np.testing.assert_allclose(run(optimizer, scheduler, 48)[:, 0], np.load(GOLDEN)['lrs'], rtol=0, atol=1e-12)


@pytest.mark.parametrize('warmup, end, epoch_length, floor', [(2, 20, 7, 0.), (0, 5, 3, 1e-3)])
def test_whole_curve_of_several_groups(warmup, end, epoch_length, floor):
    peaks = [5e-2, 1e-3, 1.]
    optimizer = make_optimizer(*peaks)
    scheduler = build(optimizer, epoch_length=epoch_length, warmup=warmup, end=end, eta_min=floor)
    total = end * epoch_length
    rates = run(optimizer, scheduler, total)
    for group, peak in enumerate(peaks):
        np.testing.assert_allclose(rates[:, group], expected_rates(total, warmup * epoch_length, total, peak, floor),
                                   rtol=0, atol=1e-12)


def test_begin_and_end():
    """The curve moves with `begin`, and the rate stays at the end."""
    optimizer = make_optimizer(5e-2)
    rates = run(optimizer, build(optimizer, begin=2, end=22), 100)[:, 0]
    np.testing.assert_allclose(rates[8:88], expected_rates(80, 40, 80, 5e-2), atol=1e-12)
    np.testing.assert_array_equal(rates[88:], rates[87])


@pytest.mark.parametrize('done', [1, 41])
def test_resume(done):
    optimizer = make_optimizer(5e-2, 1e-3)
    scheduler = build(optimizer)
    run(optimizer, scheduler, done)
    states = optimizer.state_dict(), scheduler.state_dict()
    following = run(optimizer, scheduler, 50)

    resumed = make_optimizer(5e-2, 1e-3)
    resumed_scheduler = build(resumed)
    resumed.load_state_dict(states[0])
    resumed_scheduler.load_state_dict(states[1])
    np.testing.assert_array_equal(run(resumed, resumed_scheduler, 50), following)


@pytest.mark.parametrize('changes, values', [
    (dict(begin=100), 'begin=400, end=400, warmup=40'),
    (dict(warmup=-1), 'begin=0, end=400, warmup=-4'),
])
def test_lengths_that_do_not_fit(changes, values):
    with pytest.raises(ValueError, match=f'0 <= warmup and begin < end, .*{values}: leave `end` out'):
        build(make_optimizer(5e-2), **changes)


def test_a_run_that_ends_while_it_warms_up():
    optimizer = make_optimizer(5e-2)
    rates = run(optimizer, build(optimizer, end=2), 8)
    np.testing.assert_allclose(np.ravel(rates), np.arange(8) / 40 * 5e-2, rtol=1e-12)


def test_resumed_before_its_turn():
    """A schedule that begins later leaves the rate to the one whose turn it is."""
    def build():
        optimizer = make_optimizer(1.)
        return (optimizer, LinearLR(optimizer, start_factor=.1, begin=0, end=5, by_epoch=False),
                WarmupCosineLR(optimizer, warmup=1, begin=5, end=12, by_epoch=False))

    optimizer, linear, cosine = build()
    expected = run(optimizer, linear, 11, cosine)
    saved, loaded = build(), build()
    run(saved[0], saved[1], 2, saved[2])
    for one, state in zip(loaded, saved, strict=True):
        one.load_state_dict(state.state_dict())
    np.testing.assert_allclose(run(loaded[0], loaded[1], 9, loaded[2]), expected[2:], rtol=0, atol=1e-12)
