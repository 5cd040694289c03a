"""What fits into the minutes: measured speed, then size, epochs, images and rates that are chosen by it."""
import copy
import heapq
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmpretrain.structures import DataSample

from mmspt.engine.build import build_model
from mmspt.prompts.threads import num_cores

METHODS = ('spt', 'vpt', 'linear')
"""The longest first, so that workers end together."""


"""File of Linux with the processor time of a container: quota and period, or 'max'."""


class Rung(NamedTuple):
    """A choice; the first that fits is taken."""
    grid: int
    """Patches along a side."""
    rates: int
    """Learning rates of each method."""
    epochs: int
    train: int | None
    """Training images at most; None is all. Half as many to choose, and as many to test."""


LADDER = (
    Rung(16, 3, 20, None), Rung(16, 3, 10, None), Rung(12, 3, 10, None), Rung(8, 3, 10, None), Rung(8, 2, 10, None),
    Rung(6, 2, 10, None), Rung(8, 2, 10, 2000), Rung(6, 2, 10, 1000), Rung(4, 2, 10, 1000), Rung(6, 2, 10, 500),
    Rung(4, 2, 10, 500), Rung(4, 2, 10, 250), Rung(4, 1, 10, 250), Rung(4, 1, 8, 120))
LARGEST = 224
"""Pixels."""
FEWEST = 3
"""Training images of a class at least."""
MARGIN = 1.15
"""A run takes longer than the sum of what was measured: logs, checkpoints, a neighbour that uses the same memory."""


class Speed(NamedTuple):
    """Seconds of one worker."""
    train: float
    """A training step with prompts, an image."""
    forward: float
    """A forward pass, an image: what a linear probe and a test take."""
    load: float
    """Reading an image."""
    start: float
    """Starting a run."""
    loaders: int = 0
    """Processes that read images while the network computes; 0: nobody else does."""

    def with_loading(self, step: float) -> float:
        """Return what an image takes that is read, too."""
        return max(step, self.load / self.loaders) if self.loaders else step + self.load


@dataclass(frozen=True)
class Plan:
    """What will be run. ``seconds`` is what it will take, ``sizes`` the numbers of images by split."""
    size: int
    epochs: int
    val_interval: int
    rates: int
    sizes: Mapping[str, int]
    seconds: float

    def describe(self) -> str:
        """Return it in one line."""
        images = ' / '.join(f'{self.sizes[split]:,}' for split in ('train', 'val', 'test'))
        rates = 'one learning rate' if self.rates == 1 else f'{self.rates} learning rates'
        return (f'images of {self.size} x {self.size} pixels, {images} to train, choose and test; {self.epochs} '
                f'epochs; {rates} for each method')


def seconds_of_run(method: str, plan: Plan, speed: Speed) -> float:
    """Return what one training takes on one worker, with its validations."""
    step = speed.with_loading(speed.forward if method == 'linear' else speed.train)
    validations = -(-plan.epochs // plan.val_interval) * plan.sizes['val'] * speed.with_loading(speed.forward)
    return speed.start + MARGIN * (plan.epochs * plan.sizes['train'] * step + validations)


def seconds_of_test(plan: Plan, speed: Speed) -> float:
    """Return what one test takes on one worker."""
    return speed.start + MARGIN * plan.sizes['test'] * speed.with_loading(speed.forward)


def seconds_of_all(plan: Plan, speed: Speed, workers: int) -> float:
    """Return what everything takes: a look at every image, the runs, the tests."""
    runs = {method: [seconds_of_run(method, plan, speed)] * plan.rates for method in METHODS}
    tests = seconds_of_test(plan, speed) * -(-len(METHODS) // workers)
    return sum(plan.sizes.values()) * speed.load + schedule(runs, workers) + tests


def schedule(chains: Mapping[str, Sequence[float]], workers: int) -> float:
    """Return when the last run ends, if a free worker takes the method with the fewest runs that begun.

    Args:
        chains (Mapping[str, Sequence[float]]): Method -> seconds of its runs, which come one after the other.
        workers (int): Runs side by side.
    """
    free, ready = [0.] * workers, dict.fromkeys(chains, 0.)
    begun = dict.fromkeys(chains, 0)
    while left := [method for method in chains if begun[method] < len(chains[method])]:
        begin = max(heapq.heappop(free), min(ready[method] for method in left))
        method = min((method for method in left if ready[method] <= begin),
                     key=lambda method: (begun[method], METHODS.index(method)))
        ready[method] = begin + chains[method][begun[method]]
        begun[method] += 1
        heapq.heappush(free, ready[method])
    return max(ready.values(), default=0.)


def make_plan(counts: Mapping[str, int], classes: int, patch: int, measure: Callable[[int], Speed], workers: int,
              seconds: Callable[[], float]) -> tuple[Plan, Speed]:
    """Choose the first rung of :data:`LADDER` that fits.

    Args:
        counts (Mapping[str, int]): Numbers of images by split.
        classes (int): Number of classes.
        patch (int): Side of a patch in pixels.
        measure (Callable): Size of images in pixels -> speed.
        workers (int): Runs side by side.
        seconds (Callable): What is left; measuring takes some.

    Raises:
        ValueError: None fits.
    """
    smallest = min(rung.grid for rung in LADDER) * patch
    speeds = {smallest: measure(smallest)}
    for rung in LADDER:
        size = min(rung.grid, LARGEST // patch) * patch
        train = min(counts['train'], max(rung.train or counts['train'], FEWEST * classes))
        sizes = dict(train=train, val=min(counts['val'], max(train // 2, classes)),
                     test=min(counts['test'], max(train, classes)))
        plan = Plan(size, rung.epochs, max(1, rung.epochs // 5), rung.rates, sizes, 0.)
        for known in (False, True):
            if known and size not in speeds:
                speeds[size] = measure(size)
            speed = speeds.get(size) or _scaled(speeds[smallest], (size / smallest) ** 2)
            needed = seconds_of_all(plan, speed, workers)
            if needed > seconds():
                break
        else:
            return Plan(**{**vars(plan), 'seconds': needed}), speed
    raise too_little(plan, needed, seconds())


def too_little(plan: Plan, needed: float, left: float) -> ValueError:
    """The error for minutes that do not suffice."""
    return ValueError(f'the least that makes sense takes {needed / 60:.1f} minutes here ({plan.describe()}), but '
                      f'{max(left, 0) / 60:.1f} are left: give more --minutes')


def _scaled(speed: Speed, tokens: float) -> Speed:
    """Guess the speed at ``tokens`` times as many tokens."""
    return speed._replace(train=speed.train * tokens, forward=speed.forward * tokens)


def measure_speed(cfg: Config, load: float, start: float, workers: int, threads: int | None) -> Speed:
    """Take some steps of a config's model, whose weights are loaded as a training loads them; on a CPU of as many
    copies at once as there will be runs, which share its caches.

    Args:
        cfg (Config): With prompts.
        load (float): Seconds for reading an image.
        start (float): Seconds for starting a run.
        workers (int): Runs side by side.
        threads (int | None): Of one worker; None on a GPU.

    Raises:
        OSError, ValueError: The model cannot be built, or its checkpoint does not fill it.
    """
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    before = torch.get_num_threads()
    model = build_model(cfg)
    model.init_weights()
    model.to(device).train()
    copies = [model, *(copy.deepcopy(model) for _ in range(workers - 1 if device.type == 'cpu' else 0))]
    size, batch = cfg.model.backbone.img_size, 16
    inputs = torch.randn(batch, 3, size, size, device=device)
    samples = [DataSample().set_gt_label(0) for _ in range(batch)]

    def train(model: Any) -> None:
        sum(model(inputs, samples, mode='loss').values()).backward()

    def forward(model: Any) -> None:
        with torch.no_grad():
            model(inputs)

    def time_of(step: Callable[[Any], None], model: Any) -> float:
        torch.set_num_threads(threads or before)  # of this thread
        step(model)
        wait()
        began, steps = time.perf_counter(), 0
        while steps < 2 or time.perf_counter() - began < 0.5:
            step(model)
            wait()
            steps += 1
        return (time.perf_counter() - began) / steps / batch

    def wait() -> None:
        if device.type == 'cuda':
            torch.cuda.synchronize()

    loaders = 0 if threads else min(8, (os.cpu_count() or 1) // workers)
    try:
        with ThreadPoolExecutor(len(copies)) as pool:
            times = [max(pool.map(partial(time_of, step), copies)) for step in (train, forward)]
        return Speed(times[0], times[1], load, start, loaders)
    except torch.cuda.OutOfMemoryError:
        return Speed(float('inf'), float('inf'), load, start, loaders)
    finally:
        torch.set_num_threads(before)
        del model, copies
        if device.type == 'cuda':
            torch.cuda.empty_cache()  # the runs need it


def count_workers() -> tuple[int, int | None]:
    """Return how many runs go side by side, and the threads of each: one a GPU, else up to three on the cores."""
    gpus = torch.cuda.device_count()
    if gpus:
        return min(gpus, len(METHODS)), None
    cores = num_cores()
    workers = min(cores, len(METHODS))
    return workers, int(os.environ.get('OMP_NUM_THREADS') or cores // workers)
