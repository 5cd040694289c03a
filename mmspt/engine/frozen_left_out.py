"""Checkpoints without the frozen backbone, where the run's CheckpointHook is told to save them so."""
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mmengine.runner import Runner

from mmspt.models.backbones.frozen_vit import FrozenViT


@contextmanager
def frozen_left_out(runner: Runner) -> Iterator[None]:
    """Save without frozen weights meanwhile if a hook of the run has ``save_frozen=False``."""
    with ExitStack() as stack:
        if not all(getattr(hook, 'save_frozen', True) for hook in runner.hooks):
            for module in runner.model.modules():
                if isinstance(module, FrozenViT):
                    stack.enter_context(module.saving.without_frozen(module))
        yield
