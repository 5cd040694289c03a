"""Say how long a training waits for its data."""
from time import perf_counter
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmspt.datasets.nested_configs import parts
from mmspt.datasets.transforms import reads_files
from mmspt.prompts.threads import process_cores
from mmspt.registry import HOOKS

MUCH = 0.1
"""Share of the time from which the log says what to change."""


@HOOKS.register_module()
class DataTimeHook(Hook):
    """Log once in a run, after its first epoch, what share of the time was spent waiting for data.

    Waiting lasts from the last hook after an iteration to the last hook before the next. The first iteration, in which
    workers start, does not count, nor does validation. From 10 % on the line says which setting to change.
    """
    priority = 'LOWEST'  # other hooks' time is no waiting

    def before_train(self, runner: Runner) -> None:
        """Begin to count."""
        self.count, self.waited, self.whole = 0, 0., 0.

    def before_train_epoch(self, runner: Runner) -> None:
        """Begin to wait."""
        self.since = perf_counter()

    def after_val(self, runner: Runner) -> None:
        """Begin to wait, in a loop that validates between two iterations."""
        self.since = perf_counter()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """End to wait."""
        self.arrived = perf_counter()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Add up; log after as many iterations as an epoch has."""
        now, loader = perf_counter(), runner.train_dataloader
        if self.count:
            self.waited, self.whole = self.waited + self.arrived - self.since, self.whole + now - self.since
        self.count, self.since = self.count + 1, now
        if self.count == max(2, len(loader)):
            advice = f': {advise(loader)}' if self.waited >= MUCH * self.whole else ''
            share = self.waited / max(self.whole, 1e-9)
            runner.logger.info(f'Of the first epoch {share:.1%} was spent waiting for data{advice}')


def advise(loader: DataLoader) -> str:
    """Return the settings that make a loader of training images faster."""
    cores = process_cores()
    pipelines = [getattr(part, 'pipeline', None) for part in parts(loader.dataset)]
    steps = [step for pipeline in pipelines for step in getattr(pipeline, 'transforms', ())]
    options = []
    if loader.num_workers < cores:
        options.append(f'raise train_dataloader.num_workers from {loader.num_workers} (this process has {cores} cores)')
    options += dict.fromkeys(_advise_cache(step) for step in steps if isinstance(step, LoadImageFromFile))
    return ', or '.join(options) or 'use smaller image files, fewer transforms or more cores'


def _advise_cache(step: LoadImageFromFile) -> str:
    kind, cache = getattr(step, 'cache_kind', None), getattr(step, 'cache', None)
    if not reads_files(step):
        return 'copy the images to a local disk (no others are kept in memory)'
    if kind is None:
        return "keep decoded images, if they fit, by dict(type='mmspt.LoadImageFromFile', cache='memory')"
    if cache is None:
        return f"give cache='{kind}' a folder that it can use (its warning at the start says what is wrong)"
    if cache.full:
        return 'give the cache of images more room (its warning says how)'
    return 'wait and see: the first epoch fills the cache of images, later ones read it'
