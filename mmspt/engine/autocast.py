"""The precision of a run's training, for what hooks compute beside it."""
from contextlib import AbstractContextManager, nullcontext

from mmengine.optim import AmpOptimWrapper
from mmengine.runner import Runner, autocast


def autocast_as_trained(runner: Runner, amp: bool | None = None) -> AbstractContextManager:
    """Autocast with the dtype of the run's AmpOptimWrapper, or torch's own for the device if it has none.

    Args:
        runner (Runner): Has built its optim_wrapper.
        amp (bool | None): Whether at all; None is as the run trains. Defaults to None.
    """
    mixed = isinstance(runner.optim_wrapper, AmpOptimWrapper)
    if not (mixed if amp is None else amp):
        return nullcontext()
    return autocast(dtype=runner.optim_wrapper.cast_dtype if mixed else None)
