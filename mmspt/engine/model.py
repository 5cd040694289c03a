"""A model at work: inside its wrappers, its parts, mode, precision and device."""
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import Runner, autocast
from mmpretrain.models import LinearClsHead
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


def check_linear_classifier(model: nn.Module) -> None:
    """Raise ValueError unless a model is a PromptedViT, no neck and a LinearClsHead; see also check_classifier."""
    backbone, neck, head = (getattr(model, part, None) for part in ('backbone', 'neck', 'head'))
    if not isinstance(backbone, PromptedViT) or neck is not None or type(head) is not LinearClsHead:
        raise ValueError(
            'the model must be an ImageClassifier of a mmspt.PromptedViT (num_prompts=0 if there are no prompts), no '
            f'neck and a LinearClsHead, got {type(model).__name__} of {type(backbone).__name__}, '
            f'{type(neck).__name__}, {type(head).__name__}: share its whole checkpoint instead')
    backbone.check_classifier()


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Set eval mode inside, and the earlier mode after."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def autocast_as_trained(runner: Runner, amp: bool | None = None) -> AbstractContextManager:
    """Autocast as the run trains, or as ``amp`` says; the dtype is that of its AmpOptimWrapper, else torch's own."""
    wrapper = runner.optim_wrapper
    mixed = isinstance(wrapper, AmpOptimWrapper)
    if not (mixed if amp is None else amp):
        return nullcontext()
    return autocast(dtype=wrapper.cast_dtype if mixed else None)


def check_device(device: str | torch.device | None) -> torch.device:
    """Return the device; for None the GPU, or the CPU if there is none. ValueError if this machine lacks it."""
    try:
        found = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.empty(0, device=found)
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"the device must be one of this machine, but '{device}' is not "
                         f'({str(error).splitlines()[0]}): leave it out, or say cpu') from error
    return found
