"""The learning rate of MAE, and of SPT's authors: set every iteration, linear from 0, then cosine."""
import math
from typing import Any

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import INF, _ParamScheduler

from mmspt.registry import PARAM_SCHEDULERS


def warmup_cosine(step: float, warmup: float, total: float, peak: float, floor: float) -> float:
    """Learning rate at ``step``: peak * step / warmup, then floor + (peak - floor) * (1 + cos(pi t)) / 2, t in [0, 1].

    Source: facebookresearch/mae, ``util/lr_sched.py``, which SPT's released code uses.
    """
    if step < warmup:
        return peak * step / warmup
    progress = min((step - warmup) / max(total - warmup, 1), 1.)
    return floor + (peak - floor) * 0.5 * (1. + math.cos(math.pi * progress))


@PARAM_SCHEDULERS.register_module()
class WarmupCosineLR(LRSchedulerMixin, _ParamScheduler):
    """:func:`warmup_cosine` as one MMEngine scheduler.

    MMEngine's LinearLR multiplies step by step, so it cannot start from 0, and it reaches the peak one iteration
    early; the closed form has neither fault and does not accumulate rounding.

    Args:
        optimizer (Optimizer or OptimWrapper): Whose rate is scheduled.
        warmup (int): Epochs (iterations if not ``by_epoch``) of linear warm-up. A run that ends before is warmed up
            alone, and :class:`mmspt.GlobalBatchHook` warns. Defaults to 10.
        eta_min (float): Learning rate at the end. Defaults to 1e-8.
        begin, end, last_step, by_epoch, verbose: As in MMEngine, whose runner sets ``end`` to the run's length where
            the config does not; ``convert_to_iter_based=True`` sets the rate at every iteration.

    Raises:
        ValueError: ``end`` is missing or not after ``begin``, or ``warmup`` is negative.
    """

    def __init__(self,
                 optimizer: Any,
                 *,
                 warmup: int = 10,
                 eta_min: float = 1e-8,
                 begin: int = 0,
                 end: int = INF,
                 last_step: int = -1,
                 by_epoch: bool = True,
                 verbose: bool = False) -> None:
        if end >= INF or end <= begin or warmup < 0:
            raise ValueError(f'WarmupCosineLR needs 0 <= warmup and begin < end, got begin={begin}, end={end}, '
                             f'warmup={warmup}: leave `end` out, which is the length of the run then (a run of '
                             'iterations needs by_epoch=False and convert_to_iter_based=False)')
        self.warmup, self.total, self.eta_min = warmup, end - begin, eta_min
        super().__init__(optimizer, begin=begin, end=end, last_step=last_step, by_epoch=by_epoch, verbose=verbose)

    @classmethod
    def build_iter_from_epoch(cls,
                              *args: Any,
                              warmup: int = 10,
                              begin: int = 0,
                              end: int = INF,
                              by_epoch: bool = True,
                              epoch_length: int | None = None,
                              **kwargs: Any) -> 'WarmupCosineLR':
        """Build the scheduler with every length in iterations; called by ``convert_to_iter_based=True``."""
        if not by_epoch or not epoch_length:
            raise ValueError('convert_to_iter_based needs by_epoch=True and at least one batch an epoch, got '
                             f'by_epoch={by_epoch} and {epoch_length} batches: check the size of the training set, '
                             'batch_size and drop_last')
        return cls(*args, warmup=warmup * epoch_length, begin=begin * epoch_length,
                   end=end if end >= INF else end * epoch_length, by_epoch=False, **kwargs)

    def _get_value(self) -> list[float]:
        return [warmup_cosine(self.last_step, self.warmup, self.total, peak, self.eta_min) for peak in self.base_values]

    def load_state_dict(self, state_dict: dict) -> None:
        """Load the saved step; length and floor of the schedule stay as they are configured now.

        So a run that is resumed with another number of epochs follows the new schedule from there.
        """
        kept = {name: value for name, value in vars(self).items()
                if name in ('warmup', 'total', 'eta_min', 'begin', 'end', 'by_epoch', 'base_values')}
        super().load_state_dict({**state_dict, **kept})
        if not self.begin <= self._global_step < self.end:  # another schedule's turn
            return
        self._last_value = self._get_value()
        for group, value in zip(self.optimizer.param_groups, self._last_value, strict=True):
            group[self.param_name] = value
