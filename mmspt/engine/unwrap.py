"""The classifier inside wrappers, the prompted backbone inside the classifier, and a network in eval mode."""
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

from mmspt.models import PromptedViT


def unwrap(model: Any) -> nn.Module:
    """Return the model inside the wrappers of distributed training and test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def find_prompted_vit(model: nn.Module) -> PromptedViT | None:
    """Return the model's PromptedViT, if it has one."""
    return next((module for module in model.modules() if isinstance(module, PromptedViT)), None)


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Set eval mode inside, and the earlier mode after."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
