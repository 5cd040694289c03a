"""The classifier inside wrappers, and the prompted backbone inside the classifier."""
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
