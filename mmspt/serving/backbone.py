"""The frozen network that all tasks share, taken from a model."""
import torch
from torch import nn

from mmspt.engine.device import check_device
from mmspt.engine.unwrap import find_prompted_vit, unwrap
from mmspt.models import PromptedViT

from .folded import share


def take_backbone(model: nn.Module, device: str | torch.device | None = None) -> PromptedViT:
    """A model's PromptedViT without its prompts, in eval mode; the model is not changed, its weights are shared.

    Args:
        model: A PromptedViT, or MMPretrain's classifier that has one.
        device: None leaves it where it is; on another one the weights are copied.

    Raises:
        ValueError: It has none.
    """
    vit = find_prompted_vit(unwrap(model)) if isinstance(model, nn.Module) else None
    if vit is None:
        raise ValueError("a backbone must be a checkpoint's path, a PromptedViT or a classifier that has one, got "
                         f'{type(model).__name__}: build mmspt.models.PromptedViT with the checkpoint, or name the '
                         'file')
    vit = share(vit).eval()
    vit.prompts = None
    return vit if device is None else vit.to(check_device(device))
