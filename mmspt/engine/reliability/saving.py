"""Which weights a checkpoint may hold."""
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mmengine.runner import Runner

from mmspt.models.backbones.frozen_vit import FrozenViT

from ..model import unwrap
from .last_checkpoint import resume_hint


def check_finite_weights(runner: Runner) -> None:
    """Check the trained weights before they are saved.

    Raises:
        FloatingPointError: Some hold NaN or infinity.
    """
    broken = [name for name, weight in unwrap(runner.model).named_parameters()
              if weight.requires_grad and not weight.isfinite().all()]
    if broken:
        raise FloatingPointError(
            f'weights must be finite to be saved, but {", ".join(broken[:6])} hold NaN or infinity after iteration '
            f'{runner.iter}: lower the learning rate (optim_wrapper.optimizer.lr) or clip gradients '
            f'(optim_wrapper.clip_grad); {resume_hint(runner.work_dir)}')


@contextmanager
def without_frozen_weights(runner: Runner) -> Iterator[None]:
    """Leave frozen weights out of checkpoints meanwhile, if a hook of the run has ``save_frozen=False``."""
    with ExitStack() as stack:
        if not all(getattr(hook, 'save_frozen', True) for hook in runner.hooks):
            vits = [module for module in runner.model.modules() if isinstance(module, FrozenViT)]
            if len(vits) == len({id(vit.saved) for vit in vits}):  # otherwise some are copies, whose files may differ
                for vit in vits:
                    stack.enter_context(vit.saved.without_frozen(vit))
        yield
