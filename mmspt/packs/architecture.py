"""What a prompted ViT is made of, as plain values: enough to build it again, and no more than that."""
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from mmpretrain.models.utils import LayerScale

from mmspt.models import PromptedViT
from mmspt.models.backbones.prompted_vit import PROMPT_TYPES
from mmspt.models.weights.provenance import frozen_weights, settings

from .rules import BOOL, Rule, check_fields, is_number, one_of, whole

REMEDY = 'correct the recipe and export the pack again'
SIDES = Rule('two whole numbers from 1 to 4,096, height and width', lambda value: (
    isinstance(value, list) and len(value) == 2 and all(type(side) is int and 1 <= side <= 4096 for side in value)))
RULES = dict(
    embed_dims=whole(1, 2**14), num_layers=whole(1, 256), num_heads=whole(1, 2**10),
    feedforward_channels=whole(1, 2**17), img_size=SIDES, patch_size=SIDES, in_channels=whole(1, 64), qkv_bias=BOOL,
    eps=Rule('a number from 0 to 1', lambda value: is_number(value) and 0 <= value <= 1), pre_norm=BOOL,
    layer_scale=BOOL, with_cls_token=BOOL, interpolate_mode=one_of('bicubic', 'bilinear', 'nearest'),
    out_type=one_of('cls_token', 'avg_featmap'), final_norm=BOOL, num_prompts=whole(0, 2**12),
    prompt_type=one_of(*PROMPT_TYPES), pool_prompts=BOOL)


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
        num_prompts, pool_prompts: PromptedViT's.
        prompt_type: 'deep' where every block has prompts of its own, 'shallow' where those of the first travel.

    Raises:
        ValueError: A value against its rule.
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

    def __post_init__(self) -> None:
        check_fields(self.to_json(), RULES, 'a backbone', REMEDY)
        if self.embed_dims % self.num_heads:
            raise ValueError(f'embed_dims must be a multiple of num_heads, got {self.embed_dims} and {self.num_heads}: '
                             f'{REMEDY}')
        if self.out_type == 'cls_token' and not self.with_cls_token:
            raise ValueError(f"out_type='cls_token' needs with_cls_token=true, got false: {REMEDY}")
        if any(side % patch for side, patch in zip(self.img_size, self.patch_size, strict=True)):
            raise ValueError(f'img_size must be whole patches, got {self.img_size} and {self.patch_size}: {REMEDY}')

    @classmethod
    def from_json(cls, content: Any) -> 'Architecture':
        """Read it from JSON's objects; ValueError if anything is missing, unknown or against its rule."""
        if isinstance(content, dict) and content.get('prompt_type') == 'gated':  # in version 1
            content = content | dict(prompt_type='shallow')
        fields = check_fields(content, RULES, 'a backbone', REMEDY)
        return cls(**fields | {name: tuple(fields[name]) for name in ('img_size', 'patch_size')})

    def to_json(self) -> dict[str, Any]:
        """As JSON's objects."""
        return asdict(self) | {name: list(getattr(self, name)) for name in ('img_size', 'patch_size')}

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
            num_prompts=vit.num_prompts, prompt_type=vit.prompt_type, pool_prompts=vit.pool_prompts)
        with torch.device('meta'):
            plain = architecture.build()
        other = _what_acts(vit).items() ^ _what_acts(plain).items()
        if other:
            names = ', '.join(sorted({name for name, _ in other})[:6])
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
            num_prompts=self.num_prompts, prompt_type=self.prompt_type, pool_prompts=self.pool_prompts, **kwargs)

    @property
    def prompts_shape(self) -> tuple[int, int, int] | None:
        """(L, N_p, D) if deep, (1, N_p, D) if shallow, None without prompts."""
        if not self.num_prompts:
            return None
        return self.num_layers if self.prompt_type == 'deep' else 1, self.num_prompts, self.embed_dims


def _what_acts(vit: PromptedViT) -> Mapping[str, str]:
    """Names -> what must agree for two models to compute the same with the same prompts."""
    shapes = {name: str(tuple(value.shape)) for name, value in frozen_weights(vit).items()}
    others = settings(vit) | dict(out_indices=vit.out_indices)
    return shapes | {name: str(value) for name, value in others.items()}
