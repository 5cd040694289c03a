"""A Vision Transformer with prompt tokens: VPT (https://arxiv.org/abs/2203.12119), SPT (https://arxiv.org/abs/2402.02382)."""
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.logging import MMLogger
from mmengine.model.weight_init import trunc_normal_
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from mmspt.registry import MODELS

from ..weights import check_fit, find_encoder, fit_position, place_final_norm, unwrap

PROMPT_TYPES = ('deep', 'shallow')


def uniform_bound(patch_size: Sequence[int], embed_dims: int, in_channels: int = 3) -> float:
    """Bound v of VPT's prompts U(-v, v), the Xavier bound of the patch embedding: sqrt(6 / (3 p^2 + D)).

    Args:
        patch_size (Sequence[int]): Height and width of a patch, pixels.
        embed_dims (int): Width D.
        in_channels (int): Channels of an image. Defaults to 3.
    """
    return math.sqrt(6. / (in_channels * math.prod(patch_size) + embed_dims))


@MODELS.register_module()
class PromptedViT(VisionTransformer):
    r"""MMPretrain's ViT, frozen, with learnable prompt tokens between CLS and the patches.

    With L blocks, width D, N_e patch tokens and N_p prompts, block i = 1..L of a deep model computes

    .. math:: [c_i; \_; E_i] = B_i([c_{i-1}; P_{i-1}; E_{i-1}])

    and drops what stands in the prompts' places; a shallow model inserts P_0 once and lets it travel. It takes every
    argument of :class:`mmpretrain.models.VisionTransformer` (and those that MoCoV3ViT adds, so that its configs can
    be inherited) and returns the same output types with the same shapes; prompts are never part of 'raw' and
    'featmap'.

    Args:
        num_prompts (int): N_p; 0 gives the stock network. Defaults to 20.
        prompt_type (str): 'deep' (prompts of its own for every block) or 'shallow' (for the first). Defaults to 'deep'.
        prompt_drop_rate (float): Dropout of prompts while training. Defaults to 0.
        pool_prompts (bool): Under ``out_type='avg_featmap'``, whether the mean takes the prompts' outputs in, as SPT
            does for MAE, or patches only. Defaults to True.
        frozen (bool): Train prompts alone: nothing else has a gradient, and all else stays in eval mode inside a
            training step. Defaults to True.
        allow_random_backbone (bool): Train although no checkpoint filled some frozen weights. Defaults to False.
        stop_grad_conv1 (bool): MoCoV3ViT's: no gradient for the patch embedding. Defaults to False.
        norm_eval (bool): MoCoV3ViT's: BatchNorm, if any, in eval mode. Defaults to False.
        **kwargs: Those of :class:`mmpretrain.models.VisionTransformer`.

    Attributes:
        prompts (Parameter | None): (L, N_p, D) if deep, (1, N_p, D) if shallow, None without prompts. Starts as VPT's
            uniform prompts.

    Raises:
        ValueError: An argument out of its range; while loading, weights that do not fit.
        RuntimeError: At the first training step, frozen weights that no checkpoint filled.
    """
    arch_zoo = {
        **VisionTransformer.arch_zoo,
        **{name: dict(embed_dims=384, num_layers=12, num_heads=12, feedforward_channels=1536)
           for name in ('mocov3-s', 'mocov3-small')},
    }

    def __init__(self,
                 *args: Any,
                 num_prompts: int = 20,
                 prompt_type: str = 'deep',
                 prompt_drop_rate: float = 0.,
                 pool_prompts: bool = True,
                 frozen: bool = True,
                 allow_random_backbone: bool = False,
                 stop_grad_conv1: bool = False,
                 norm_eval: bool = False,
                 init_cfg: dict | list | None = None,
                 **kwargs: Any) -> None:
        if not isinstance(num_prompts, int) or num_prompts < 0:
            raise ValueError(f'num_prompts must be a whole number of at least 0, got {num_prompts!r}: '
                             'SPT uses 20 (deep) or 100 (shallow), 0 means no prompts')
        if prompt_type not in PROMPT_TYPES:
            raise ValueError(f'prompt_type must be one of {PROMPT_TYPES}, got {prompt_type!r}')
        if not 0. <= prompt_drop_rate < 1.:
            raise ValueError(f'prompt_drop_rate must lie in [0, 1), got {prompt_drop_rate!r}')
        if isinstance(kwargs.get('out_indices'), Sequence):
            kwargs['out_indices'] = list(kwargs['out_indices'])  # the base class writes into the caller's list
        super().__init__(*args, init_cfg=_without_backbone_prefix(init_cfg), **kwargs)

        self.num_prompts = num_prompts
        self.prompt_type = prompt_type
        self.pool_prompts = pool_prompts
        self.frozen = frozen
        self.allow_random_backbone = allow_random_backbone
        self.norm_eval = norm_eval
        self.patch_size = tuple(self.patch_embed.projection.kernel_size)
        self._filled: set[str] = set()
        self._checked = False

        if stop_grad_conv1:
            self.patch_embed.projection.requires_grad_(False)
        if frozen:
            self.requires_grad_(False)
        self.prompt_drop = nn.Dropout(prompt_drop_rate)
        if num_prompts:
            layers = self.num_layers if prompt_type == 'deep' else 1
            self.prompts: nn.Parameter | None = nn.Parameter(torch.empty(layers, num_prompts, self.embed_dims))
            self._init_prompts()
        else:
            self.register_parameter('prompts', None)

    def _init_prompts(self) -> None:
        if self.prompts is not None:
            bound = uniform_bound(self.patch_size, self.embed_dims, self.patch_embed.projection.in_channels)
            nn.init.uniform_(self.prompts, -bound, bound)

    def init_weights(self) -> None:
        """Initialize, then load ``init_cfg``'s checkpoint; what it filled is not touched again.

        The base class draws ``pos_embed`` anew after loading if ``init_cfg`` is a list, so it is passed by.
        """
        if not self.has_loaded_prompts:
            self._init_prompts()
        super(VisionTransformer, self).init_weights()
        if 'pos_embed' not in self._filled:
            trunc_normal_(self.pos_embed, std=0.02)
        trained = sum(p.numel() for p in self.parameters() if p.requires_grad)
        total = sum(p.numel() for p in self.parameters())
        MMLogger.get_current_instance().info(
            f'{type(self).__name__}: {trained:,} of {total:,} parameters train ({trained / total:.4%})')

    def train(self, mode: bool = True) -> 'PromptedViT':
        """Set the mode; while frozen, only the prompts' dropout follows it."""
        super().train(mode)
        if self.frozen:
            for name, child in self.named_children():
                child.train(mode and name == 'prompt_drop')
        elif self.frozen_stages > 0:
            self._freeze_stages()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    # ---------------------------------------------------------------------------------------------- weights

    def _checkpoint_filter(self, state_dict: dict, prefix: str, *args: Any) -> None:
        """Hook of MMPretrain's classifier: lets ``load_from`` name a bare encoder in any known layout."""
        if any(key.startswith(f'{prefix}backbone.') for key in state_dict) or not state_dict:
            return
        encoder = find_encoder(state_dict)
        if encoder is not None:
            state_dict.clear()
            state_dict.update({f'{prefix}backbone.{key}': value for key, value in encoder.items()})
        elif not any(key.startswith((f'{prefix}head.', f'{prefix}neck.')) for key in state_dict):
            raise _unknown_layout(state_dict)

    def _prepare_pos_embed(self, state_dict: dict, prefix: str, *args: Any, **kwargs: Any) -> None:
        """Hook of the base class, before any of its weights are loaded: rename, resize, refuse, take stock.

        The base class's own part, which resizes, is done by ``fit_position``; its guess of the grid fails on others
        than squares.
        """
        given = {key[len(prefix):]: value for key, value in state_dict.items() if key.startswith(prefix)}
        own = self.state_dict()
        encoder = find_encoder(given)
        if encoder is None:
            if given and not any(key in own for key in given):
                raise _unknown_layout(given)
            encoder = given  # a part of our own weights, such as prompts alone
        encoder = fit_position(place_final_norm(encoder, set(own)), tuple(self.patch_embed.init_out_size),
                               self.with_cls_token, self.interpolate_mode)
        check_fit(encoder, own, self.num_layers)
        self._filled.update(encoder)
        self._checked = False
        if self.prompts is not None and 'prompts' not in encoder and encoder:
            MMLogger.get_current_instance().info('The checkpoint holds no prompts: they keep their initial values.')
            encoder['prompts'] = self.prompts.detach()
        for key in given:
            del state_dict[prefix + key]
        state_dict.update({prefix + key: value for key, value in encoder.items()})

    @property
    def has_loaded_prompts(self) -> bool:
        """Whether the prompts came with a checkpoint."""
        return 'prompts' in self._filled

    def check_weights(self) -> None:
        """Make sure that a checkpoint filled every frozen weight.

        Raises:
            RuntimeError: Some frozen weight is still random, and ``allow_random_backbone`` is False.
        """
        if self._checked:
            return
        self._checked = True
        missing = [name for name, p in self.named_parameters() if not p.requires_grad and name not in self._filled]
        if not missing:
            return
        listed = ', '.join(missing[:8]) + (', ...' if len(missing) > 8 else '')
        if self.allow_random_backbone:
            MMLogger.get_current_instance().warning(
                f'{len(missing)} frozen weights are random and stay so (allow_random_backbone=True): {listed}')
            return
        self._checked = False
        hint = ' (a model whose mean is read by `ln2` wants final_norm=False)' if 'ln2.weight' in missing and \
            'ln1.weight' in self._filled else ''
        raise RuntimeError(
            f'every frozen weight must come from a checkpoint, but {len(missing)} of them are random{hint}: {listed}. '
            "Name one: model.backbone.init_cfg=dict(type='Pretrained', checkpoint=...) or load_from=...; "
            'allow_random_backbone=True trains prompts on a random network')

    # ---------------------------------------------------------------------------------------------- forward

    def _embed(self, images: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Turn images (B, 3, H, W) into block 1's input (B, n + N_e, D), bare patch tokens (B, N_e, D) and (h, w)."""
        patches, resolution = self.patch_embed(images)
        x = patches
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1)
        x = x + resize_pos_embed(self.pos_embed, self.patch_resolution, resolution, mode=self.interpolate_mode,
                                 num_extra_tokens=self.num_extra_tokens)
        return self.pre_norm(self.drop_after_pos(x)), patches, resolution

    def _set_prompts(self, x: Tensor, block: int) -> Tensor:
        """Put P_block behind CLS, in the place of the prompts of the block before, if any: (B, n + N_p + N_e, D)."""
        assert self.prompts is not None
        n = self.num_extra_tokens
        prompts = self.prompt_drop(self.prompts[block].expand(len(x), -1, -1)).to(x.dtype)
        return torch.cat((x[:, :n], prompts, x[:, n + (self.num_prompts if block else 0):]), dim=1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute features.

        Args:
            x (Tensor): Images, (B, 3, H, W).

        Returns:
            tuple[Tensor]: One for each of ``out_indices``: 'cls_token' and 'avg_featmap' (B, D), 'featmap'
            (B, D, h, w), 'raw' (B, n + N_e, D), n = 1 with CLS.
        """
        if self.training:
            self.check_weights()
        x, _, resolution = self._embed(x)
        outs = []
        for i, layer in enumerate(self.layers):
            if self.prompts is not None and i < len(self.prompts):
                x = self._set_prompts(x, i)
            x = layer(x)
            if i == self.num_layers - 1 and self.final_norm:
                x = self.ln1(x)
            if i in self.out_indices:
                outs.append(self._format_output(x, resolution))
        return tuple(outs)

    def _format_output(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Format a block's output (B, n + N_p + N_e, D), with prompts only where the mean takes them in."""
        if self.num_prompts and not (self.out_type == 'avg_featmap' and self.pool_prompts):
            n = self.num_extra_tokens
            x = torch.cat((x[:, :n], x[:, n + self.num_prompts:]), dim=1)
        return super()._format_output(x, hw)

    @torch.no_grad()
    def patch_tokens(self, images: Tensor, num_layers: int) -> Iterator[Tensor]:
        """Stream E_0, ..., E_{num_layers-1} of the network without prompts, one layer at a time.

        E_0 is the output of the patch embedding without the position embedding, E_i the patch tokens that leave
        block i. The caller sets eval mode.

        Args:
            images (Tensor): (B, 3, H, W).
            num_layers (int): How many layers, at most L.

        Yields:
            Tensor: (B, N_e, D).
        """
        x, patches, _ = self._embed(images)
        yield patches
        for layer in self.layers[:num_layers - 1]:
            x = layer(x)
            yield x[:, self.num_extra_tokens:]

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer-wise learning rate decay: prompts are new and span all blocks, so they learn at the full rate."""
        depth, num_layers = super().get_layer_depth(param_name, prefix)
        return (num_layers - 1 if param_name == f'{prefix}prompts' else depth), num_layers


def _without_backbone_prefix(init_cfg: Any) -> Any:
    """Drop ``prefix='backbone.'`` of MMPretrain's configs: the layout is recognized with or without it."""
    if isinstance(init_cfg, (list, tuple)):
        return [_without_backbone_prefix(cfg) for cfg in init_cfg]
    if isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained' and \
            str(init_cfg.get('prefix')).rstrip('.') == 'backbone':
        return {key: value for key, value in init_cfg.items() if key != 'prefix'}
    return init_cfg


def _unknown_layout(state_dict: dict) -> ValueError:
    keys = [str(key) for key in unwrap(state_dict)]
    return ValueError(
        'a checkpoint must hold a ViT in the layout of MMPretrain (layers.0.ln1.weight), FAIR MAE or timm '
        f'(blocks.0.norm1.weight) or FAIR MoCo-v3 (base_encoder.blocks.0.norm1.weight); this one has {len(keys)} '
        f'keys: {", ".join(keys[:6])}. Convert it, or name another file')
