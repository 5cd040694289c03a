"""Weights that are no numbers are never saved."""
from mmengine.runner import Runner

from .last_checkpoint import last_good
from .unwrap import unwrap


def check_finite_weights(runner: Runner) -> None:
    """Look at the trained weights before they are saved.

    Raises:
        FloatingPointError: Some hold NaN or infinity.
    """
    broken = [name for name, weight in unwrap(runner.model).named_parameters()
              if weight.requires_grad and not weight.isfinite().all()]
    if broken:
        raise FloatingPointError(
            f'weights must be finite to be saved, but {", ".join(broken[:6])} hold NaN or infinity after iteration '
            f'{runner.iter}: lower the learning rate (optim_wrapper.optimizer.lr) or clip gradients '
            f'(optim_wrapper.clip_grad); {last_good(runner.work_dir)}')
