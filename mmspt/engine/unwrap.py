"""The classifier inside wrappers."""
from typing import Any

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn


def unwrap(model: Any) -> nn.Module:
    """Take off what distributed training and test-time augmentation put around a model."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
