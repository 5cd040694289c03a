"""The arguments that build a prompted ViT again, as plain values."""
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, get_type_hints

import torch
from mmpretrain.models.utils import LayerScale

from mmspt.models import PromptedViT
from mmspt.models.backbones.frozen_vit import CLS_AND_MEAN, feature_dims
from mmspt.models.backbones.prompted_vit import PROMPT_TYPES
from mmspt.models.weights.provenance import frozen_weights, settings

from .fields import check_fields

REMEDY = 'correct the recipe and export the pack again'
ACTIVATIONS = dict(GELU='GELU', QuickGELU='mmpretrain.QuickGELU')
"""Class -> the name under which it is registered."""
CHOICES = dict(out_type=('cls_token', 'avg_featmap', CLS_AND_MEAN), prompt_type=tuple(PROMPT_TYPES),
               interpolate_mode=('bicubic', 'bilinear', 'nearest'), activation=tuple(ACTIVATIONS))


@dataclass(frozen=True)
class Architecture:
    """Arguments of a :class:`mmspt.models.PromptedViT` whose last block feeds a head.

    Args:
        embed_dims, num_layers, num_heads, feedforward_channels: Those of MMPretrain's ``arch``.
        img_size, patch_size: (height, width), pixels.
        in_channels: Of an image.
        qkv_bias, pre_norm, with_cls_token, interpolate_mode, out_type, final_norm: MMPretrain's.
        eps: Of every norm.
        layer_scale: Whether blocks scale what they add.
        num_registers: Register tokens.
        activation: Of the MLPs, 'GELU' or 'QuickGELU'.
        patch_bias: Whether the patch embedding has a bias.
        num_prompts, pool_prompts: PromptedViT's.
        prompt_type: 'deep' where every block has prompts of its own, 'shallow' where those of the first travel.

    Raises:
        ValueError: A value out of its range.
    """
    embed_dims: int
    num_layers: int
    num_heads: int
    feedforward_channels: int
    img_size: tuple[int, int]
    patch_size: tuple[int, int]
    in_channels: int
    qkv_bias: bool
    eps: float
    pre_norm: bool
    layer_scale: bool
    with_cls_token: bool
    interpolate_mode: str
    out_type: str
    final_norm: bool
    num_prompts: int
    prompt_type: str
    pool_prompts: bool
    num_registers: int = 0
    activation: str = 'GELU'
    patch_bias: bool = True

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"a backbone's {name} must be one of {', '.join(choices)}, got "
                                 f'{getattr(self, name)}: {REMEDY}')
        sizes = (self.embed_dims, self.num_layers, self.num_heads, self.feedforward_channels, self.in_channels,
                 *self.img_size, *self.patch_size)
        if min(self.num_prompts, self.num_registers) < 0 or min(sizes) < 1:
            raise ValueError(f"a backbone's sizes must be at least 1, got {asdict(self)}: {REMEDY}")
        if self.embed_dims % self.num_heads:
            raise ValueError(f'embed_dims must be a multiple of num_heads, got {self.embed_dims} and {self.num_heads}: '
                             f'{REMEDY}')
        if self.out_type in ('cls_token', CLS_AND_MEAN) and not self.with_cls_token:
            raise ValueError(f"out_type='{self.out_type}' needs with_cls_token=true, got false: {REMEDY}")
        if any(side % patch for side, patch in zip(self.img_size, self.patch_size, strict=True)):
            raise ValueError(f'img_size must be whole patches, got {self.img_size} and {self.patch_size}: {REMEDY}')

    @classmethod
    def from_json(cls, content: Any) -> 'Architecture':
        """Read what :func:`dataclasses.asdict` gave; ValueError if a field is missing, unknown or wrong."""
        if isinstance(content, dict) and content.get('prompt_type') == 'gated':  # in version 1
            content = content | dict(prompt_type='shallow')
        if isinstance(content, dict):  # earlier packs have none of these
            content = {field.name: field.default for field in fields(cls) if field.default is not MISSING} | content
        return cls(**check_fields(content, get_type_hints(cls), 'a backbone', REMEDY))

    @classmethod
    def from_model(cls, vit: PromptedViT) -> 'Architecture':
        """Read it off a model.

        Raises:
            ValueError: The model has something that these arguments do not say.
        """
        block, projection = vit.layers[0], vit.patch_embed.projection
        architecture = cls(
            embed_dims=vit.embed_dims, num_layers=vit.num_layers, num_heads=block.attn.num_heads,
            feedforward_channels=block.ffn.feedforward_channels, img_size=tuple(vit.img_size),
            patch_size=tuple(vit.patch_size), in_channels=projection.in_channels,
            qkv_bias=block.attn.qkv.bias is not None, eps=block.ln1.eps, pre_norm=hasattr(vit.pre_norm, 'weight'),
            layer_scale=isinstance(block.attn.gamma1, LayerScale), with_cls_token=vit.cls_token is not None,
            interpolate_mode=vit.interpolate_mode, out_type=vit.out_type, final_norm=vit.final_norm,
            num_prompts=vit.num_prompts, prompt_type=vit.prompt_type, pool_prompts=vit.pool_prompts,
            num_registers=vit.num_registers, activation=settings(vit)['activation'],
            patch_bias=projection.bias is not None)
        with torch.device('meta'):
            plain = architecture.build()
        own, built = _what_acts(vit), _what_acts(plain)
        other = sorted(name for name in own | built if own.get(name) != built.get(name))
        if other:
            names = ', '.join(other[:6])
            raise ValueError('a pack can say what PromptedViT makes of its plain arguments (arch, img_size, '
                             f'patch_size, qkv_bias, pre_norm, ...), but this backbone differs in {names}: share its '
                             'whole checkpoint instead')
        return architecture

    def build(self, **kwargs: Any) -> PromptedViT:
        """Build the backbone, with random weights."""
        arch = {name: getattr(self, name) for name in ('embed_dims', 'num_layers', 'num_heads', 'feedforward_channels')}
        return PromptedViT(
            arch=arch, img_size=self.img_size, patch_size=self.patch_size, in_channels=self.in_channels,
            qkv_bias=self.qkv_bias, norm_cfg=dict(type='LN', eps=self.eps), pre_norm=self.pre_norm,
            layer_scale_init_value=1e-5 if self.layer_scale else 0., with_cls_token=self.with_cls_token,
            interpolate_mode=self.interpolate_mode, out_type=self.out_type, final_norm=self.final_norm,
            num_prompts=self.num_prompts, prompt_type=self.prompt_type, pool_prompts=self.pool_prompts,
            num_registers=self.num_registers, patch_cfg=dict(bias=self.patch_bias),
            layer_cfgs=dict(act_cfg=dict(type=ACTIVATIONS[self.activation])), **kwargs)

    @property
    def feature_dims(self) -> int:
        """Width of what the head reads."""
        return feature_dims(self.embed_dims, self.out_type)

    @property
    def prompts_shape(self) -> tuple[int, int, int] | None:
        """(L, N_p, D) if deep, (1, N_p, D) if shallow, None without prompts."""
        if not self.num_prompts:
            return None
        return self.num_layers if self.prompt_type == 'deep' else 1, self.num_prompts, self.embed_dims


def _what_acts(vit: PromptedViT) -> dict[str, Any]:
    """Return by name what must agree for two models to compute the same with the same prompts."""
    return {name: value.shape for name, value in frozen_weights(vit).items()} | settings(vit) | dict(
        out_indices=vit.out_indices)
