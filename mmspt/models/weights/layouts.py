"""Checkpoints of ViTs in their publishers' key layouts, renamed to MMPretrain's.

Known layouts, told apart by the name of the patch embedding and what stands before it:

=====================  ==================================================  ========================
publisher              keys                                                source of the names
=====================  ==================================================  ========================
MMPretrain             ``[backbone.]layers.0.ln1.weight``                  ``VisionTransformer``
FAIR MAE               ``model: blocks.0.norm1.weight``                    facebookresearch/mae
FAIR MoCo-v3           ``state_dict: module.base_encoder.blocks.0...``     facebookresearch/moco-v3
timm                   ``blocks.0.norm1.weight``, ``blocks.0.ls1.gamma``   huggingface/pytorch-image-models
DINOv2, in chunks      ``blocks.C.N.norm1.weight``, N counts all blocks    facebookresearch/dinov2
=====================  ==================================================  ========================
"""
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

StateDict = dict[str, Tensor]

# where an encoder may sit in a checkpoint, the most specific first
PREFIXES = ('module.base_encoder.', 'base_encoder.', 'module.backbone.', 'backbone.', 'module.', '')
CONTAINERS = ('state_dict', 'model')


class Layout(NamedTuple):
    """How a publisher names an encoder's weights."""
    patch_embed: str
    """The key that tells the layout."""
    renames: tuple[tuple[str, str], ...]
    """Regular expressions and replacements, applied in order, that give MMPretrain's names."""


LAYOUTS = (
    Layout('patch_embed.projection.weight', ()),  # MMPretrain
    Layout('patch_embed.proj.weight', (  # timm, and FAIR's MAE and MoCo-v3, which build on it
        (r'^patch_embed\.proj\.', 'patch_embed.projection.'),
        (r'^norm_pre\.', 'pre_norm.'),
        (r'^norm\.', 'ln1.'),
        (r'^fc_norm\.', 'ln2.'),
        (r'^blocks\.\d+\.(\d+)\.', r'blocks.\1.'),  # DINOv2's chunks
        (r'^blocks\.(\d+)\.norm([12])\.', r'layers.\1.ln\2.'),
        (r'^blocks\.(\d+)\.mlp\.fc1\.', r'layers.\1.ffn.layers.0.0.'),
        (r'^blocks\.(\d+)\.mlp\.fc2\.', r'layers.\1.ffn.layers.1.'),
        (r'^blocks\.(\d+)\.ls1\.gamma$', r'layers.\1.attn.gamma1.weight'),
        (r'^blocks\.(\d+)\.ls2\.gamma$', r'layers.\1.ffn.gamma2.weight'),
        (r'^blocks\.', 'layers.'))),
)
# what pre-training and other tasks' classifiers leave beside an encoder
NOT_ENCODER = re.compile(r'^(head|fc\.|decoder|mask_token|pre_logits|predictor|neck)')


def unwrap(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the state dict inside a checkpoint that keeps it under 'state_dict' or 'model', else the checkpoint."""
    for container in CONTAINERS:
        if isinstance(checkpoint.get(container), Mapping):
            return checkpoint[container]
    return checkpoint


def find_encoder(checkpoint: Mapping[str, Any]) -> StateDict | None:
    """Find a ViT encoder in a checkpoint and name its weights as MMPretrain does.

    Args:
        checkpoint (Mapping[str, Any]): A state dict, or a dict that holds one under 'state_dict' or 'model'.

    Returns:
        dict[str, Tensor] | None: ``cls_token``, ``pos_embed``, ``patch_embed.projection.weight``,
        ``layers.0.ln1.weight``, ..., without heads and decoders; None if no known layout is there.

    Raises:
        ValueError: Two weights of one name.
    """
    checkpoint = unwrap(checkpoint)
    for prefix in PREFIXES:
        for layout in LAYOUTS:
            if f'{prefix}{layout.patch_embed}' in checkpoint:
                encoder = {key[len(prefix):]: value for key, value in checkpoint.items()
                           if key.startswith(prefix) and isinstance(value, Tensor)}
                names = {key: _rename(key, layout) for key in encoder if not NOT_ENCODER.match(key)}
                twice = [key for key, name in names.items() if list(names.values()).count(name) > 1]
                if twice:
                    raise ValueError(f'a checkpoint must hold each weight once, but {", ".join(twice[:4])} stand for '
                                     'the same: name one with a single encoder, whose blocks are counted through')
                return {name: encoder[key] for key, name in names.items()}
    return None


def _rename(key: str, layout: Layout) -> str:
    for pattern, replacement in layout.renames:
        key = re.sub(pattern, replacement, key)
    return key


def unknown_layout(state_dict: Mapping[str, Any]) -> ValueError:
    """The error for weights in which :func:`find_encoder` finds nothing."""
    keys = [str(key) for key in unwrap(state_dict)]
    if any(key.split('.')[-1] == 'fingerprint' for key in keys):
        return ValueError("a backbone's checkpoint must hold its weights, but this one was saved without the frozen "
                          'ones: name the checkpoint that it was tuned on')
    return ValueError(
        'a checkpoint must hold a ViT in the layout of MMPretrain (layers.0.ln1.weight), FAIR MAE or timm '
        f'(blocks.0.norm1.weight) or FAIR MoCo-v3 (base_encoder.blocks.0.norm1.weight); this one has {len(keys)} '
        f'keys: {", ".join(keys[:6])}. Convert it, or name another file')
