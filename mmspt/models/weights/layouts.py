"""Checkpoints of ViTs in their publishers' key layouts, renamed to MMPretrain's.

Known layouts, told apart by one of their names and what stands before it:

========================  ==================================================  ==============================
publisher                 keys                                                source of the names
========================  ==================================================  ==============================
MMPretrain                ``[backbone.]layers.0.ln1.weight``                  ``VisionTransformer``
FAIR MAE                  ``model: blocks.0.norm1.weight``                    facebookresearch/mae
FAIR MoCo-v3              ``state_dict: module.base_encoder.blocks.0...``     facebookresearch/moco-v3
FAIR DINO, iBOT           ``teacher: backbone.blocks.0...``                   facebookresearch/dino
DINOv2, also in chunks    ``blocks.C.N.norm1.weight``, N counts all blocks    facebookresearch/dinov2
timm                      ``blocks.0.norm1.weight``, ``blocks.0.ls1.gamma``   huggingface/pytorch-image-models
transformers, ViT, MAE    ``vit.encoder.layer.0.layernorm_before.weight``     huggingface/transformers
transformers, DINOv2      ``encoder.layer.0.norm1.weight``                    huggingface/transformers
OpenAI CLIP, OpenCLIP     ``visual.transformer.resblocks.0.ln_1.weight``      openai/CLIP
OpenCLIP, timm's towers   ``visual.trunk.blocks.0.norm1.weight``              mlfoundations/open_clip
transformers, CLIP        ``vision_model.encoder.layers.0.layer_norm1...``    huggingface/transformers
========================  ==================================================  ==============================
"""
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.logging import MMLogger
from torch import Tensor

StateDict = dict[str, Tensor]

# where an encoder may sit in a checkpoint, the most specific first
PREFIXES = (
    'module.base_encoder.', 'base_encoder.', 'teacher.backbone.', 'student.module.backbone.', 'student.backbone.',
    'module.backbone.', 'backbone.', 'vit.', 'dinov2_with_registers.', 'dinov2.', 'module.visual.trunk.',
    'visual.trunk.', 'module.visual.', 'visual.', 'vision_model.', 'module.', '')
CONTAINERS = ('state_dict', 'model', 'teacher', 'student')


class Layout(NamedTuple):
    """How a publisher names an encoder's weights."""
    key: str
    """The one that tells the layout."""
    renames: tuple[tuple[str, str], ...]
    """Regular expressions and replacements, applied in order, that give MMPretrain's names; query, key and value that
    are apart become ``attn.q``, ``attn.k`` and ``attn.v``, which :func:`find_encoder` joins."""
    not_encoder: str = r'head|fc\.|decoder|mask_token|masked_embed|pre_logits|predictor|neck'
    """What pre-training and other tasks' classifiers leave beside an encoder, as a regular expression."""


LAYOUTS = (
    Layout('patch_embed.projection.weight', ()),  # MMPretrain
    Layout('patch_embed.proj.weight', (  # timm, and FAIR's MAE, MoCo-v3 and DINO, which build on it
        (r'^patch_embed\.proj\.', 'patch_embed.projection.'),
        (r'^reg_token$', 'register_tokens'),
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
    Layout('embeddings.patch_embeddings.projection.weight', (  # transformers' ViT, ViT-MAE and DINOv2
        (r'^embeddings\.patch_embeddings\.projection\.', 'patch_embed.projection.'),
        (r'^embeddings\.position_embeddings$', 'pos_embed'),
        (r'^embeddings\.', ''),
        (r'^layernorm\.', 'ln1.'),
        (r'^(encoder\.)?layers?\.', 'layers.'),  # version 5 has other names in memory, and saves the old ones
        (r'^(layers\.\d+)\.(norm1|layernorm_before)\.', r'\1.ln1.'),
        (r'^(layers\.\d+)\.(norm2|layernorm_after)\.', r'\1.ln2.'),
        (r'^(layers\.\d+)\.attention\.(?:attention\.)?(q|k|v)(uery|ey|alue|_proj)\.', r'\1.attn.\2.'),
        (r'^(layers\.\d+)\.attention\.(output\.dense|o_proj)\.', r'\1.attn.proj.'),
        (r'^(layers\.\d+)\.(mlp\.fc1|intermediate\.dense)\.', r'\1.ffn.layers.0.0.'),
        (r'^(layers\.\d+)\.(mlp\.fc2|output\.dense)\.', r'\1.ffn.layers.1.'),
        (r'^(layers\.\d+)\.layer_scale1\.lambda1$', r'\1.attn.gamma1.weight'),
        (r'^(layers\.\d+)\.layer_scale2\.lambda1$', r'\1.ffn.gamma2.weight')),
        r'pooler|classifier|decoder|embeddings\.mask_token'),
    Layout('class_embedding', (  # OpenAI's CLIP and OpenCLIP
        (r'^conv1\.', 'patch_embed.projection.'),
        (r'^class_embedding$', 'cls_token'),
        (r'^positional_embedding$', 'pos_embed'),
        (r'^ln_pre\.', 'pre_norm.'),
        (r'^ln_post\.', 'ln1.'),
        (r'^transformer\.resblocks\.', 'layers.'),
        (r'^(layers\.\d+)\.ln_([12])\.', r'\1.ln\2.'),
        (r'^(layers\.\d+)\.attn\.in_proj_', r'\1.attn.qkv.'),
        (r'^(layers\.\d+)\.attn\.out_proj\.', r'\1.attn.proj.'),
        (r'^(layers\.\d+)\.mlp\.c_fc\.', r'\1.ffn.layers.0.0.'),
        (r'^(layers\.\d+)\.mlp\.c_proj\.', r'\1.ffn.layers.1.'),
        (r'^(layers\.\d+)\.ls_1\.gamma$', r'\1.attn.gamma1.weight'),
        (r'^(layers\.\d+)\.ls_2\.gamma$', r'\1.ffn.gamma2.weight')),
        r'proj$'),
    Layout('embeddings.class_embedding', (  # transformers' CLIP
        (r'^embeddings\.patch_embedding\.', 'patch_embed.projection.'),
        (r'^embeddings\.class_embedding$', 'cls_token'),
        (r'^embeddings\.position_embedding\.weight$', 'pos_embed'),
        (r'^pre_layrnorm\.', 'pre_norm.'),
        (r'^post_layernorm\.', 'ln1.'),
        (r'^encoder\.layers\.', 'layers.'),
        (r'^(layers\.\d+)\.layer_norm([12])\.', r'\1.ln\2.'),
        (r'^(layers\.\d+)\.self_attn\.(q|k|v)_proj\.', r'\1.attn.\2.'),
        (r'^(layers\.\d+)\.self_attn\.out_proj\.', r'\1.attn.proj.'),
        (r'^(layers\.\d+)\.mlp\.fc1\.', r'\1.ffn.layers.0.0.'),
        (r'^(layers\.\d+)\.mlp\.fc2\.', r'\1.ffn.layers.1.')),
        r'embeddings\.position_ids'),
)


PLAIN = 'a plain ViT with absolute positions (of MAE, MoCo-v3, DINO, DINOv2, CLIP, DeiT, timm augreg)'
OTHER_NETWORKS = (
    (r'^dist_token$|distillation_token$', 'a distillation token',
     'the model that was trained without distillation (deit_base_patch16_224, not deit_base_distilled_patch16_224)'),
    (r'(^|\.)(layers|blocks)\.\d+\.(blocks|downsample)\.|(^|\.)stages\.\d+\.|^(blocks|layers)\.\d+\.proj\.',
     'stages, such as Swin, Hiera or ConvNeXt', PLAIN),
    (r'rel(ative)?_pos', 'relative positions, such as BEiT or SAM', PLAIN),
    (r'\.mlp\.fc1_[gx]\.|\.mlp\.(w12|w3|weights_in|weights_out)\.|\.ffn_ln\.', 'SwiGLU under the names of its authors',
     "MMPretrain's conversion (vit-giant-p14_dinov2-pre_3rdparty), with layer_cfgs=dict(ffn_type='swiglu_fused')"),
    (r'\.[qv]_bias$', 'relative or rotary positions, such as BEiT or EVA-02', PLAIN),
    (r'(^|\.)rope|storage_tokens$|^(model\.)?layer\.\d+\.attention\.[qkvo]_proj\.|\.gamma_[12]$',
     'rotary positions, such as EVA-02 or DINOv3', PLAIN),
    (r'(^|\.)attn_pool\.|(^|\.)head\.probe$', 'an attention pool, such as SigLIP', PLAIN),
    (r'\.attn\.[qk]_norm\.', 'normalized queries and keys', PLAIN),
)
"""Weights, what their networks have that :class:`.FrozenViT` lacks, and what to use instead."""


def other_network(keys: Sequence[str]) -> ValueError | None:
    """Return the error for weights of a network of another kind; None if there is none among them."""
    for pattern, what, instead in OTHER_NETWORKS:
        found = [key for key in keys if re.search(pattern, key)]
        if found:
            more = f', ... ({len(found)} in all)' if len(found) > 2 else ''
            return ValueError(f'a checkpoint must be of a plain ViT, but this one is of a network with {what} '
                              f'({", ".join(found[:2])}{more}), which is not supported: use {instead}')
    return None


def unwrap(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the state dict inside a checkpoint that keeps it under 'state_dict' or 'model', else the checkpoint."""
    for container in CONTAINERS:
        if isinstance(checkpoint.get(container), Mapping):
            return checkpoint[container]
    return checkpoint


def find_encoder(checkpoint: Mapping[str, Any], quiet: bool = False) -> StateDict | None:
    """Find a ViT encoder in a checkpoint and name its weights as MMPretrain does; log what is left out.

    Args:
        checkpoint (Mapping[str, Any]): A state dict, or a dict that holds one under 'state_dict', 'model', 'teacher' or
            'student'.
        quiet (bool): Log nothing. Defaults to False.

    Returns:
        dict[str, Tensor] | None: ``cls_token``, ``pos_embed``, ``patch_embed.projection.weight``,
        ``layers.0.ln1.weight``, ..., without heads and decoders; None if no known layout is there.

    Raises:
        ValueError: Two weights of one name.
    """
    checkpoint = unwrap(checkpoint)
    for prefix in PREFIXES:
        for layout in LAYOUTS:
            if f'{prefix}{layout.key}' in checkpoint:
                encoder = {key[len(prefix):]: value for key, value in checkpoint.items()
                           if key.startswith(prefix) and isinstance(value, Tensor)}
                names = {key: _rename(key, layout) for key in encoder if not re.match(layout.not_encoder, key)}
                twice = [key for key, name in names.items() if list(names.values()).count(name) > 1]
                if twice:
                    raise ValueError(f'a checkpoint must hold each weight once, but {", ".join(twice[:4])} stand for '
                                     'the same: name one with a single encoder, whose blocks are counted through')
                left = [key for key in encoder if key not in names]
                left += list(dict.fromkeys(str(key).split('.')[0] for key in checkpoint if not key.startswith(prefix)))
                if left and not quiet:
                    MMLogger.get_current_instance().info('Left out of the checkpoint, as no part of its encoder: '
                                                         f'{", ".join(left[:8])}{", ..." if len(left) > 8 else ""}')
                return _join({name: encoder[key] for key, name in names.items()})
    return None


def _join(encoder: StateDict) -> StateDict:
    """Join query, key and value where all three are there, and give CLS and positions three dimensions."""
    joined = {}
    for name, value in encoder.items():
        part = re.fullmatch(r'(layers\.\d+\.attn\.)(q|k|v)(\.(?:weight|bias))', name)
        names = [f'{part[1]}{letter}{part[3]}' for letter in 'qkv'] if part else []
        if not part or not encoder.keys() >= set(names):
            joined[name] = value
        elif part[2] == 'q':
            joined[f'{part[1]}qkv{part[3]}'] = torch.cat([encoder[own] for own in names])
    for name in ('cls_token', 'pos_embed'):
        if name in joined and joined[name].ndim < 3:
            joined[name] = joined[name].reshape(1, -1, joined[name].shape[-1])
    return joined


def _rename(key: str, layout: Layout) -> str:
    for pattern, replacement in layout.renames:
        key = re.sub(pattern, replacement, key)
    return key


def unknown_layout(state_dict: Mapping[str, Any]) -> ValueError:
    """The error for weights in which :func:`find_encoder` finds nothing."""
    keys = [str(key) for key in unwrap(state_dict)]
    other = other_network(keys)
    if other is not None:
        return other
    if any(key.split('.')[-1] == 'fingerprint' for key in keys):
        return ValueError("a backbone's checkpoint must hold its weights, but this one was saved without the frozen "
                          'ones: name the checkpoint that it was tuned on')
    return ValueError(
        'a checkpoint must hold a ViT in a layout of MMPretrain (layers.0.ln1.weight), FAIR or timm '
        '(blocks.0.norm1.weight), transformers (encoder.layer.0...) or CLIP (visual.transformer.resblocks.0...); this '
        f'one has {len(keys)} keys: {", ".join(keys[:6])}. Convert it, or name another file')
