"""A Vision Transformer with prompt tokens: VPT (https://arxiv.org/abs/2203.12119), SPT (https://arxiv.org/abs/2402.02382)."""
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmspt.registry import MODELS

from .frozen_vit import FrozenViT

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
class PromptedViT(FrozenViT):
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
    learnable = ('prompts', )
    learnable_modules = ('prompt_drop', )

    def __init__(self,
                 *args: Any,
                 num_prompts: int = 20,
                 prompt_type: str = 'deep',
                 prompt_drop_rate: float = 0.,
                 pool_prompts: bool = True,
                 **kwargs: Any) -> None:
        if not isinstance(num_prompts, int) or num_prompts < 0:
            raise ValueError(f'num_prompts must be a whole number of at least 0, got {num_prompts!r}: '
                             'SPT uses 20 (deep) or 100 (shallow), 0 means no prompts')
        if prompt_type not in PROMPT_TYPES:
            raise ValueError(f'prompt_type must be one of {PROMPT_TYPES}, got {prompt_type!r}')
        if not 0. <= prompt_drop_rate < 1.:
            raise ValueError(f'prompt_drop_rate must lie in [0, 1), got {prompt_drop_rate!r}')
        super().__init__(*args, **kwargs)
        self.num_prompts = num_prompts
        self.prompt_type = prompt_type
        self.pool_prompts = pool_prompts
        self.prompt_drop = nn.Dropout(prompt_drop_rate)
        if num_prompts:
            layers = self.num_layers if prompt_type == 'deep' else 1
            self.prompts: nn.Parameter | None = nn.Parameter(torch.empty(layers, num_prompts, self.embed_dims))
            self.init_learnable()
        else:
            self.register_parameter('prompts', None)

    def init_learnable(self) -> None:
        """Draw VPT's uniform prompts."""
        if self.prompts is not None:
            bound = uniform_bound(self.patch_size, self.embed_dims, self.patch_embed.projection.in_channels)
            nn.init.uniform_(self.prompts, -bound, bound)

    @property
    def has_loaded_prompts(self) -> bool:
        """Whether the prompts came with a checkpoint."""
        return 'prompts' in self._filled

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

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer-wise learning rate decay: prompts are new and span all blocks, so they learn at the full rate."""
        depth, num_layers = super().get_layer_depth(param_name, prefix)
        return (num_layers - 1 if param_name == f'{prefix}prompts' else depth), num_layers
