"""Say how long a training waits for its data."""
import os
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmspt.datasets.nested_configs import parts
from mmspt.prompts.threads import num_cores
from mmspt.registry import HOOKS

MUCH = 0.1
"""Share of the time from which the log says what to change."""


@HOOKS.register_module()
class DataTimeHook(Hook):
    """Log once in a run, after its first epoch, what share of the time was spent waiting for data.

    The times are those of MMEngine's IterTimerHook; without it nothing is logged. The first iteration, in which workers
    start, does not count. From 10 % on the line says which setting to change.
    """
    priority = 'LOW'  # after IterTimerHook

    def before_train(self, runner: Runner) -> None:
        """Begin to count."""
        self.count = 0

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Log after as many iterations as an epoch has."""
        self.count += 1
        loader, found = runner.train_dataloader, runner.message_hub.log_scalars
        if self.count != max(2, len(loader)) or not {'train/data_time', 'train/time'} <= found.keys():
            return
        waited, whole = (float(found[f'train/{name}'].data[0][1 - self.count:].sum()) for name in ('data_time', 'time'))
        advice = f': {advise(loader)}' if waited >= MUCH * whole else ''
        share = waited / max(whole, 1e-9)
        runner.logger.info(f'Of the first epoch {share:.1%} was spent waiting for data{advice}')


def advise(loader: DataLoader) -> str:
    """Return the settings that make a loader of training images faster."""
    cores = max(1, num_cores() // int(os.environ.get('LOCAL_WORLD_SIZE') or 1))
    pipelines = [getattr(part, 'pipeline', None) for part in parts(loader.dataset)]
    steps = [step for pipeline in pipelines for step in getattr(pipeline, 'transforms', ())]
    options = []
    if loader.num_workers < cores:
        options.append(f'raise train_dataloader.num_workers from {loader.num_workers} (this process has {cores} cores)')
    loading = [step for step in steps if isinstance(step, LoadImageFromFile)]
    if any(getattr(step, 'cache', None) for step in loading):
        options.append('wait and see: the first epoch fills the cache of images, later ones read it')
    elif loading:
        options.append("keep decoded images, if they fit, by dict(type='mmspt.LoadImageFromFile', cache='memory')")
    return ', or '.join(options) or 'use smaller image files, fewer transforms or more cores'
