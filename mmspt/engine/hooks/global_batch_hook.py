"""Log the global batch of a run, and losses averaged over it; compare the schedule's length with the run's."""
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.optim.scheduler import (
    ConstantParamScheduler,
    CosineAnnealingParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
)
from mmengine.runner import IterBasedTrainLoop, Runner
from mmpretrain.models import ClsDataPreprocessor

from mmspt.registry import HOOKS

from ..global_batch import batch_of, check_last_batch
from ..model import unwrap
from ..schedulers import WarmupCosineLR


@HOOKS.register_module()
class GlobalBatchHook(Hook):
    """Log once how many images an optimizer step takes, and average each iteration's losses over the processes.

    It warns if a cosine schedule is not as long as the run, and if the global batch differs from
    ``auto_scale_lr.base_batch_size``, for which the rate was chosen, and the rate is not scaled. MMEngine
    logs the losses of the first process alone; here the log has the mean over all processes, so it does not depend on
    their number.

    Raises:
        ValueError: An epoch has no iteration, or a batch of one image that a BatchNorm1d of neck or head cannot take.
    """
    priority = 'HIGHEST'  # before RuntimeInfoHook, which writes the losses into the message hub

    def __init__(self) -> None:
        self._compared = False

    def before_train(self, runner: Runner) -> None:
        """Log processes, batch a process, global batch, iterations and rate; warn of what does not fit."""
        warn_of_length(runner)
        processes, batch = dist.get_world_size(), batch_of(runner.train_dataloader)
        if batch is None:
            return
        check_last_batch(runner.train_dataloader, batch, unwrap(runner.model), runner.max_iters)
        accumulated = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        whole = processes * batch * accumulated
        groups = runner.optim_wrapper.param_groups
        rate = max(group.get('initial_lr', group['lr']) for group in groups)
        by_iter = isinstance(runner.train_loop, IterBasedTrainLoop)
        iterations = f'in all: {runner.max_iters}' if by_iter else f'an epoch: {len(runner.train_dataloader)}'
        runner.logger.info(f'Global batch: {whole} (processes: {processes}, batch size: {batch}, accumulated: '
                           f'{accumulated}); iterations {iterations}; rate at its peak: {rate:.3g}')
        scale = runner.auto_scale_lr or {}
        base = scale.get('base_batch_size')
        if base and base != whole and not scale.get('enable'):
            runner.logger.warning(
                f'The global batch is {whole}, {whole / base:.3g} times the {base} that the rate and the number of '
                f'epochs were chosen for. To train as the recipe says, set train_dataloader.batch_size='
                f'{base / processes / accumulated:g}, or scale the rate (--auto-scale-lr). If they were chosen for '
                f'{whole}, set auto_scale_lr.base_batch_size={whole}')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Compare the first batch's normalized pixels with those that pre-training has."""
        preprocessor = getattr(unwrap(runner.model), 'data_preprocessor', None)
        if not self._compared and isinstance(preprocessor, ClsDataPreprocessor):
            warn_of_range(runner, preprocessor(dict(inputs=data_batch['inputs']))['inputs'])
        self._compared = True

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        """Replace the losses of this process by their mean over the processes."""
        if dist.get_world_size() == 1 or not outputs:
            return
        losses = {name: value.detach() for name, value in outputs.items() if isinstance(value, torch.Tensor)}
        dist.all_reduce_dict(losses, op='mean')
        outputs.update(losses)


def warn_of_range(runner: Runner, images: torch.Tensor) -> None:
    """Warn if normalized images are on another scale than [-3, 3], or were normalized twice."""
    low, high = images.min().item(), images.max().item()
    if max(-low, high) > 20 or high - low < 0.1:
        runner.logger.warning(f'The pixels of the first batch lie in [{low:.4g}, {high:.4g}] after normalization; '
                              'pre-training has some [-3, 3]. Set data_preprocessor.mean and std for pixels from 0 to '
                              '255, and normalize once, unless the backbone was trained so')


def warn_of_length(runner: Runner) -> None:
    """Warn if the last cosine of the schedules ends before or after the run, or the run before another one acts."""
    schedulers = runner.param_schedulers if isinstance(runner.param_schedulers, list) else []
    if isinstance(runner.train_loop, IterBasedTrainLoop):
        unit, length, scale = 'iteration', runner.max_iters, 1
    else:
        unit, length, scale = 'epoch', runner.max_epochs, len(runner.train_dataloader)
    cosines = [s for s in schedulers if isinstance(s, (WarmupCosineLR, CosineAnnealingParamScheduler))]
    if unit == 'iteration' and any(s.by_epoch and not getattr(s, 'need_val_args', False) for s in schedulers):
        runner.logger.warning('The rate stays as it is: param_scheduler counts epochs, the run iterations; set '
                              'by_epoch=False there, and all lengths in iterations')
        return
    ends = [(s.begin + getattr(s, 'T_max', s.end - s.begin)) / (1 if s.by_epoch else scale) for s in cosines]
    end = max(ends, default=length)
    if end != length:
        what = 'rate stays as it is then' if end < length else 'rate ends on its way down'
        units = '' if unit == 'epoch' else 'set by_epoch=False and convert_to_iter_based=False, and '
        runner.logger.warning(f'param_scheduler ends at {unit} {end:g}, the training at {unit} {length}, so the '
                              f'{what}: for a schedule as long as the training, {units}leave its `end` (and T_max) '
                              'out, or set them so')
    for s in schedulers:
        milestones = [s.begin + step for step in s.milestones] if isinstance(s, MultiStepParamScheduler) else []
        ramp = [s.end] if isinstance(s, (ConstantParamScheduler, LinearParamScheduler)) else []
        late = [f'{at / (1 if s.by_epoch else scale):g}' for at in (*sorted(milestones), *ramp)
                if at > length * (1 if s.by_epoch else scale)]
        if late:
            runner.logger.warning(f'{type(s).__name__} of param_scheduler acts at {unit} {", ".join(late)}, which the '
                                  f'training never reaches: it ends at {unit} {length}')
        if isinstance(s, WarmupCosineLR) and s.warmup > s.total:
            per = 1 if s.by_epoch else scale
            runner.logger.warning(f'param_scheduler warms up for {s.warmup / per:g} {unit}s, of which the training has '
                                  f'{s.total / per:g}, so the rate stays below its peak: set param_scheduler.warmup')
