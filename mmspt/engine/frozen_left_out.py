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
            vits = [module for module in runner.model.modules() if isinstance(module, FrozenViT)]
            if len(vits) == len({id(vit.saving) for vit in vits}):  # otherwise some are copies, whose files may differ
                for vit in vits:
                    stack.enter_context(vit.saving.without_frozen(vit))
        yield
