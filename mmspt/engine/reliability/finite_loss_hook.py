"""Stop a training whose loss is NaN or infinite."""
import math
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmspt.registry import HOOKS

from .last_checkpoint import resume_hint


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Check the loss of every iteration. MMEngine has copied it to the CPU for its log already.

    Raises:
        FloatingPointError: The loss is NaN or infinite. The message has the iteration, the learning rate and the last
            checkpoint, which was saved while the loss was finite.
    """
    priority = 'HIGH'  # after RuntimeInfoHook, which writes the loss into the message hub; before any saving

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        """Raise if the loss of this iteration is not finite."""
        history = runner.message_hub.log_scalars.get('train/loss')
        if history is None or math.isfinite(loss := float(history.current())):
            return
        rates = ', '.join(f'{name} {values[0]:.3g}' for name, values in runner.optim_wrapper.get_lr().items())
        raise FloatingPointError(
            f'the loss must be finite, but it is {loss} in iteration {runner.iter + 1} of {runner.max_iters} (epoch '
            f'{runner.epoch + 1}), learning rate: {rates}; {resume_hint(runner.work_dir)}. Lower the rate '
            '(optim_wrapper.optimizer.lr), clip gradients (optim_wrapper.clip_grad), or train without --amp')
