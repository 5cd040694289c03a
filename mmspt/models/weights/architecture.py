"""What a checkpoint says of its network: the arguments that build it."""
import json
import os.path as osp
import re
from collections.abc import Mapping
from typing import Any

from mmengine.logging import MMLogger
from mmpretrain.models import VisionTransformer
from torch import Tensor

from mmspt.hub import path_beside

from .fit import refuse_other_networks
from .layouts import PLAIN, find_encoder, unknown_layout, unwrap

ACTIVATIONS = {'quick_gelu': 'mmpretrain.QuickGELU', 'gelu': 'GELU'}
"""Of transformers' ``hidden_act`` -> as it is registered."""
DEFAULTS = {
    'clip_vision_model': dict(num_attention_heads=12, hidden_act='quick_gelu', layer_norm_eps=1e-5),
    'vit': dict(num_attention_heads=12, hidden_act='gelu', layer_norm_eps=1e-12),
    'vit_mae': dict(num_attention_heads=12, hidden_act='gelu', layer_norm_eps=1e-12),
    'dinov2': dict(num_attention_heads=12, hidden_act='gelu', layer_norm_eps=1e-6),
    'dinov2_with_registers': dict(num_attention_heads=12, hidden_act='gelu', layer_norm_eps=1e-6),
}
"""``model_type`` of config.json -> what transformers leaves out of the file where it is so."""


def read_arguments(checkpoint: Mapping[str, Any], name: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Tell a backbone's arguments from its weights, and from transformers' ``config.json`` beside the file.

    Args:
        checkpoint (Mapping[str, Any]): What the file holds, in a known layout.
        name (str): Its path, for messages and for config.json.
        given (Mapping[str, Any] | None): Arguments that were chosen; they answer what weights do not tell. Defaults to
            None.

    Returns:
        dict[str, Any]: Arguments of :class:`mmspt.models.PromptedViT`: ``arch`` (sizes), and, where they are not the
        class's defaults, patch_size, in_channels, with_cls_token, num_registers, layer_scale_init_value, pre_norm,
        qkv_bias, patch_cfg, norm_cfg and layer_cfgs.

    Raises:
        ValueError: No ViT of a known layout, another network, something that its weights do not tell, or a given
            argument that contradicts them.
    """
    given = given or {}
    encoder = find_encoder(checkpoint, quiet=True)
    if encoder is None:
        raise unknown_layout(checkpoint)
    refuse_other_networks(encoder, set())
    patch = encoder['patch_embed.projection.weight']
    hidden, out = (encoder.get(f'layers.0.ffn.layers.{part}.weight') for part in ('0.0', '1'))
    if hidden is None or out is None:
        raise ValueError(f"a checkpoint must hold a ViT with plain MLPs, but '{name}' has none in its first block: "
                         'name another')
    keys = [str(key) for key in unwrap(checkpoint)]
    depth = 1 + max(int(key.split('.')[1]) for key in encoder if key.startswith('layers.'))
    sizes = patch.shape[0], depth, hidden.shape[0]
    if out.shape[1] != hidden.shape[0]:
        raise ValueError(f"a checkpoint must hold a ViT with plain MLPs, but '{name}' has gated ones (SwiGLU): "
                         f'use {PLAIN}')
    hub = _read_hub_config(name, sizes)
    moco = any('base_encoder.' in key for key in keys)
    clip = 'pre_norm.weight' in encoder
    own = given.get('arch') or {}
    heads = _agree('arch.num_heads', own.get('num_heads'), hub.get('num_attention_heads'), name) or _heads(
        sizes, moco, name)
    usual = 1e-5 if clip else 1e-12 if any('.layernorm_before.' in key for key in keys) else None  # transformers' ViT
    eps = _agree('norm_cfg.eps', (given.get('norm_cfg') or {}).get('eps'), hub.get('layer_norm_eps', usual), name)
    layers = given.get('layer_cfgs') or {}
    activation = _agree(
        'layer_cfgs.act_cfg.type', (layers.get('act_cfg') or {}).get('type') if isinstance(layers, Mapping) else 'GELU',
        ACTIVATIONS.get(str(hub.get('hidden_act')), hub.get('hidden_act', None if clip else 'GELU')), name)
    found: dict[str, Any] = dict(
        arch=dict(zip(('embed_dims', 'num_layers', 'feedforward_channels'), sizes, strict=True), num_heads=heads),
        patch_size=patch.shape[-1] if patch.shape[-1] == patch.shape[-2] else tuple(patch.shape[-2:]))
    for value, argument in (
            (patch.shape[1] != 3, dict(in_channels=patch.shape[1])),
            ('cls_token' not in encoder, dict(with_cls_token=False)),
            ('register_tokens' in encoder, dict(num_registers=_rows(encoder.get('register_tokens')))),
            ('layers.0.attn.gamma1.weight' in encoder, dict(layer_scale_init_value=1e-5)),
            (clip, dict(pre_norm=True)),
            ('layers.0.attn.qkv.bias' not in encoder, dict(qkv_bias=False)),
            ('patch_embed.projection.bias' not in encoder, dict(patch_cfg=dict(bias=False))),
            (eps, dict(norm_cfg=dict(type='LN', eps=eps)))):
        found |= argument if value else {}
    if activation not in ACTIVATIONS.values():
        what = f'an activation {activation!r}' if activation else 'CLIP, whose weights do not tell their activation'
        raise ValueError(f"'{name}' is of {what}: set layer_cfgs=dict(act_cfg=dict(type=...)) of the backbone "
                         "('mmpretrain.QuickGELU' for OpenAI's weights, 'GELU' for most others)")
    if activation != 'GELU':
        found['layer_cfgs'] = dict(act_cfg=dict(type=activation))
    return found


def read_beside(name: str, file: str) -> dict[str, Any]:
    """Return the JSON object in a file beside a checkpoint, of a folder or on the hub; {} if there is none.

    Raises:
        ValueError: It is no JSON.
    """
    path = path_beside(name, file)
    if path is None or not osp.isfile(path):
        return {}
    try:
        with open(path, encoding='utf-8') as beside:
            content = json.load(beside)
    except ValueError as error:
        raise ValueError(f"'{path}' must be JSON, but is not ({error}): fetch it again, or remove it") from error
    return content if isinstance(content, dict) else {}


def _agree(argument: str, given: Any, found: Any, name: str) -> Any:
    """Return what was given, else what was found; ValueError if both are there and differ."""
    if None not in (given, found) and given != found:
        raise ValueError(f"arguments must not contradict the checkpoint, but {argument} is {given!r}, and '{name}' is "
                         f'of a network with {found!r}: leave it out, or name another checkpoint')
    return found if given is None else given


def _rows(tokens: Tensor | None) -> int:
    return 0 if tokens is None else tokens.shape[1]


def _heads(sizes: tuple[int, int, int], moco: bool, name: str) -> int:
    """Return the number of heads of a published network of these sizes."""
    if moco and sizes == (384, 12, 1536):
        return 12  # MoCo-v3's ViT-S
    heads = next((zoo['num_heads'] for zoo in VisionTransformer.arch_zoo.values() if sizes == (
        zoo['embed_dims'], zoo['num_layers'], zoo['feedforward_channels'])), None)
    if heads is None:
        raise ValueError(f"weights do not tell the number of heads, and '{name}' has the sizes of no published ViT "
                         f'(width, blocks, hidden width: {sizes}): set arch=dict(num_heads=...) of the backbone')
    return heads


def _read_hub_config(name: str, sizes: tuple[int, int, int]) -> dict[str, Any]:
    """Return transformers' config.json beside a file, of the vision tower where there are two, its defaults filled in;
    {} if there is none, or it is of a network of other sizes."""
    content = read_beside(name, 'config.json')
    if re.search('_rpn_|siglip', str(content.get('architecture'))):  # timm's
        raise ValueError(f"a checkpoint must be of a plain ViT, but '{name}' is of {content['architecture']}, whose "
                         f'blocks compute otherwise: use {PLAIN}')
    tower = content.get('vision_config')
    kind = 'clip_vision_model' if tower is not None and content.get('model_type') == 'clip' else (tower or content).get(
        'model_type')
    if kind not in DEFAULTS and 'num_attention_heads' not in (tower or content):
        return {}
    found = DEFAULTS.get(str(kind), {}) | (tower or content)
    if [found.get(key, size) for key, size in zip(('hidden_size', 'num_hidden_layers'), sizes, strict=False)] != \
            list(sizes[:2]):
        MMLogger.get_current_instance().warning(f"config.json is of another network than '{name}', and is left aside")
        return {}
    return found
