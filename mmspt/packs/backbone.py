"""The frozen backbone that packs share, built from its checkpoint."""
import math
from dataclasses import replace

from torch import Tensor

from mmspt.checkpoint_schemes import load_file
from mmspt.models import PromptedViT
from mmspt.models.backbones.prompted_vit import OLD_NAMES
from mmspt.models.weights.layouts import find_encoder

from .architecture import Architecture

MAX_PATCHES = 2**16


def load_backbone(architecture: Architecture, checkpoint: str) -> PromptedViT:
    """Build a backbone and load its checkpoint; what is built has the checkpoint's sizes, whatever a pack says.

    Args:
        architecture (Architecture): Of a pack.
        checkpoint (str): Path or address, in any layout of :mod:`mmspt.models.weights.layouts`.

    Returns:
        PromptedViT: Frozen, in eval mode, without prompts.

    Raises:
        FileNotFoundError, RuntimeError: The checkpoint cannot be read.
        ValueError: It is of another architecture.
    """
    encoder = find_encoder(load_file(checkpoint))
    if encoder is None:
        raise ValueError("a backbone's checkpoint must hold a ViT in a layout that mmspt/models/weights/layouts.py "
                         f"lists, but '{checkpoint}' does not: name the one that the pack was tuned on")
    _check_sizes(architecture, encoder, checkpoint)
    vit = replace(architecture, num_prompts=0, prompt_type='deep').build()
    # of a whole tuned checkpoint, the frozen weights alone
    vit.load_state_dict({name: value for name, value in encoder.items()
                         if not vit.is_learnable(OLD_NAMES.get(name, name))})
    vit.check_weights()
    return vit.eval()


def _check_sizes(architecture: Architecture, encoder: dict[str, Tensor], checkpoint: str) -> None:
    depth = len({key.split('.')[1] for key in encoder if key.startswith('layers.')})
    projection, hidden = encoder['patch_embed.projection.weight'], encoder.get('layers.0.ffn.layers.0.0.weight')
    if projection.ndim != 4 or (hidden is not None and hidden.ndim != 2):
        raise ValueError("a backbone's checkpoint must hold a patch embedding of 4 axes and an MLP of 2, "
                         f"'{checkpoint}' has others: it is damaged, use another")
    found = dict(
        embed_dims=projection.shape[0], in_channels=projection.shape[1], patch_size=tuple(projection.shape[2:]),
        num_layers=depth, feedforward_channels=None if hidden is None else hidden.shape[0])
    other = [f'{name} {getattr(architecture, name)} instead of {value}' for name, value in found.items()
             if getattr(architecture, name) != value]
    if other:
        raise ValueError(f"a pack must be of its backbone's sizes, but it has {', '.join(other)} of '{checkpoint}': "
                         'name the checkpoint that the pack was tuned on')
    sides = zip(architecture.img_size, architecture.patch_size, strict=True)
    patches = math.prod(side // patch for side, patch in sides)
    if patches > MAX_PATCHES:
        raise ValueError(f'a backbone must have at most {MAX_PATCHES:,} patches, got {patches:,} (img_size '
                         f'{architecture.img_size}): the pack is damaged or hostile, use another')
