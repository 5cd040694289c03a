"""What a checkpoint says of its network: the arguments that build it."""
import json
import os.path as osp
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .fit import refuse_other_networks
from .layouts import find_encoder, unknown_layout, unwrap

ACTIVATIONS = {'quick_gelu': 'mmpretrain.QuickGELU', 'gelu': 'GELU'}
"""Of transformers' ``hidden_act`` -> as it is registered."""
KNOWN = (  # width, blocks, hidden width, heads
    (192, 12, 768, 3), (384, 12, 1536, 6), (768, 12, 3072, 12), (1024, 24, 4096, 16), (1280, 32, 5120, 16),
    (1408, 40, 6144, 16))
"""Sizes of the published networks: ViT-T, S, B, L, H (DeiT, MAE, DINO, DINOv2, CLIP) and g."""


def read_arguments(checkpoint: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Tell a backbone's arguments from its weights, and from transformers' ``config.json`` beside the file.

    Args:
        checkpoint (Mapping[str, Any]): What the file holds, in a known layout.
        name (str): Its path, for messages and for config.json.

    Returns:
        dict[str, Any]: Arguments of :class:`mmspt.models.PromptedViT`: ``arch`` (sizes), and, where they are not the
        class's defaults, patch_size, in_channels, with_cls_token, num_registers, layer_scale_init_value, pre_norm,
        qkv_bias, patch_cfg, norm_cfg and layer_cfgs.

    Raises:
        ValueError: No ViT of a known layout, another network, or something that its weights do not tell.
    """
    encoder = find_encoder(checkpoint, quiet=True)
    if encoder is None:
        raise unknown_layout(checkpoint)
    refuse_other_networks(encoder, set())
    patch, hidden = encoder['patch_embed.projection.weight'], encoder.get('layers.0.ffn.layers.0.0.weight')
    if hidden is None:
        raise ValueError(f"a checkpoint must hold a ViT with plain MLPs, but '{name}' has none in its first block: "
                         'name another')
    keys, hub = [str(key) for key in unwrap(checkpoint)], _read_hub_config(name)
    depth = 1 + max(int(key.split('.')[1]) for key in encoder if key.startswith('layers.'))
    sizes = patch.shape[0], depth, hidden.shape[0]
    moco = any('base_encoder.' in key for key in keys)
    found: dict[str, Any] = dict(
        arch=dict(zip(('embed_dims', 'num_layers', 'feedforward_channels'), sizes, strict=True),
                  num_heads=hub.get('num_attention_heads') or _heads(sizes, moco, name)),
        patch_size=patch.shape[-1] if patch.shape[-1] == patch.shape[-2] else tuple(patch.shape[-2:]))
    clip = any(key.endswith('class_embedding') for key in keys)
    for value, argument in (
            (patch.shape[1] != 3, dict(in_channels=patch.shape[1])),
            ('cls_token' not in encoder, dict(with_cls_token=False)),
            ('register_tokens' in encoder, dict(num_registers=_rows(encoder.get('register_tokens')))),
            ('layers.0.attn.gamma1.weight' in encoder, dict(layer_scale_init_value=1e-5)),
            ('pre_norm.weight' in encoder, dict(pre_norm=True)),
            ('layers.0.attn.qkv.bias' not in encoder, dict(qkv_bias=False)),
            ('patch_embed.projection.bias' not in encoder, dict(patch_cfg=dict(bias=False))),
            (hub.get('layer_norm_eps') or clip, dict(norm_cfg=dict(type='LN', eps=hub.get('layer_norm_eps', 1e-5))))):
        found |= argument if value else {}
    activation = hub.get('hidden_act', None if clip else 'gelu')
    if activation not in ACTIVATIONS:
        what = f'an activation {activation!r}' if activation else 'CLIP, whose weights do not tell their activation'
        raise ValueError(f"'{name}' is of {what}: set layer_cfgs=dict(act_cfg=dict(type=...)) and arch=... of the "
                         "backbone ('mmpretrain.QuickGELU' for OpenAI's weights, 'GELU' for most others)")
    if activation != 'gelu':
        found['layer_cfgs'] = dict(act_cfg=dict(type=ACTIVATIONS[activation]))
    return found


def _rows(tokens: Tensor | None) -> int:
    return 0 if tokens is None else tokens.shape[1]


def _heads(sizes: tuple[int, int, int], moco: bool, name: str) -> int:
    """Return the number of heads of a published network of these sizes."""
    if moco and sizes == (384, 12, 1536):
        return 12  # MoCo-v3's ViT-S
    heads = next((known[3] for known in KNOWN if known[:3] == sizes), None)
    if heads is None:
        raise ValueError(f"weights do not tell the number of heads, and '{name}' has the sizes of no published ViT "
                         f'(width, blocks, hidden width: {sizes}): set arch=dict(embed_dims={sizes[0]}, '
                         f'num_layers={sizes[1]}, feedforward_channels={sizes[2]}, num_heads=...) of the backbone')
    return heads


def _read_hub_config(name: str) -> dict[str, Any]:
    """Return transformers' config.json beside a file, of the vision tower where there are two; {} if there is none."""
    path = osp.join(osp.dirname(name), 'config.json')
    if '://' in name or not osp.isfile(path):
        return {}
    with open(path, encoding='utf-8') as file:
        content = json.load(file)
    content = content.get('vision_config', content) if isinstance(content, dict) else {}
    return content if 'num_attention_heads' in content else {}
