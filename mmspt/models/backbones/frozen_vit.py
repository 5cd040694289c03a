"""A Vision Transformer whose weights come from a checkpoint, all of them, and stay as they are."""
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from mmengine.logging import MMLogger
from mmengine.model.weight_init import trunc_normal_
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from ..weights.fingerprint import KEY
from ..weights.layouts import find_encoder, unknown_layout
from ..weights.loading import arguments_of, check_classifier, check_filled, has_sizes, plain_init_cfg, prepare
from ..weights.provenance import Provenance, SavedWeights, frozen_weights

CLS_AND_MEAN = 'cls_avg_featmap'
"""The ``out_type`` that MMPretrain's class lacks."""


def feature_dims(embed_dims: int, out_type: str) -> int:
    """Return the width of what a head reads of a network of width D: D, or 2 D."""
    return embed_dims * (2 if out_type == CLS_AND_MEAN else 1)


class FrozenViT(VisionTransformer):
    """MMPretrain's ViT, frozen: the base of networks that add learnable parameters of their own.

    Frozen means no gradient, and eval behaviour (no dropout, no drop path) inside a training step. Checkpoints in every
    layout of :mod:`mmspt.models.weights.layouts` load through ``init_cfg`` and ``load_from``.

    Args:
        frozen (bool): See above; False trains everything. Defaults to True.
        allow_random_backbone (bool): Train although no checkpoint filled some frozen weights. Defaults to False.
        stop_grad_conv1 (bool): MoCoV3ViT's: no gradient for the patch embedding. Defaults to False.
        norm_eval (bool): MoCoV3ViT's: BatchNorm, if any, in eval mode. Defaults to False.
        num_registers (int): R, register tokens (https://arxiv.org/abs/2309.16588) of the pre-training, without
            position, between CLS and what follows. They are frozen, never pooled, and no part of 'featmap'. Defaults to
            None, what the checkpoint has if ``arch`` is not given, else 0.
        out_type (str): MMPretrain's, or 'cls_avg_featmap': CLS, and beside it the mean of the patch tokens, both after
            the final norm, (B, 2 D), as DINOv2's linear probes read it (https://arxiv.org/abs/2304.07193, appendix B).
            Defaults to 'cls_token'.
        init_cfg (dict | list | None): As in MMEngine. Defaults to None.
        **kwargs: Those of :class:`mmpretrain.models.VisionTransformer`. Without ``arch``, or with ``arch=dict(
            num_heads=...)`` alone, they are read from the checkpoint of ``init_cfg`` if it names one, see
            :func:`mmspt.models.weights.architecture.read_arguments`.

    Attributes:
        learnable_modules (tuple[str]): Names of the children that a subclass adds: no pre-training knows their
            parameters, and they follow train and eval mode.
        saved (SavedWeights): Under ``saved.without_frozen(vit)`` state dicts hold a fingerprint instead of the frozen
            weights, which are read from ``init_cfg``'s checkpoint when such a state dict is loaded.

    Raises:
        ValueError: While loading, weights that do not fit; what was tuned on another backbone.
        RuntimeError: At the first training step, frozen weights that no checkpoint filled.
    """
    arch_zoo = {
        **VisionTransformer.arch_zoo,
        **{name: dict(embed_dims=384, num_layers=12, num_heads=12, feedforward_channels=1536)
           for name in ('mocov3-s', 'mocov3-small')},
    }
    OUT_TYPES: ClassVar[set[str]] = VisionTransformer.OUT_TYPES | {CLS_AND_MEAN}
    learnable_modules: ClassVar[tuple[str, ...]] = ()
    img_size: Any  # MMPretrain's class sets it

    def __init__(self,
                 *args: Any,
                 frozen: bool = True,
                 allow_random_backbone: bool = False,
                 stop_grad_conv1: bool = False,
                 norm_eval: bool = False,
                 num_registers: int | None = None,
                 init_cfg: dict | list | None = None,
                 **kwargs: Any) -> None:
        if not has_sizes(args[0] if args else kwargs.get('arch')):
            kwargs = arguments_of(init_cfg, kwargs)
        registers = kwargs.pop('num_registers', 0)
        num_registers = registers if num_registers is None else num_registers
        if isinstance(kwargs.get('out_indices'), (list, tuple)):
            kwargs['out_indices'] = list(kwargs['out_indices'])  # the base class writes into the caller's list
        super().__init__(*args, init_cfg=plain_init_cfg(init_cfg), **kwargs)
        if self.out_type == CLS_AND_MEAN and self.cls_token is None:
            raise ValueError(f"out_type='{CLS_AND_MEAN}' reads CLS, got with_cls_token=False: use 'avg_featmap'")
        self.num_registers = num_registers
        self.num_extra_tokens += num_registers  # what stands before the patches: CLS and registers
        self.register_parameter('register_tokens', nn.Parameter(
            torch.zeros(1, num_registers, self.embed_dims)) if num_registers else None)
        if self.frozen_stages > 0:
            self._freeze_stages()
        self.frozen = frozen
        self.allow_random_backbone = allow_random_backbone
        self.norm_eval = norm_eval
        self.img_size = tuple(self.img_size)
        self._other_sizes: set[tuple[int, int]] = set()  # of images, that were logged
        self.patch_size = tuple(self.patch_embed.projection.kernel_size)
        self.provenance = Provenance()
        self.saved = SavedWeights()
        self._checked = False
        self._register_state_dict_hook(leave_frozen_out)
        if stop_grad_conv1:
            self.patch_embed.projection.requires_grad_(False)
        if frozen:
            self.requires_grad_(False)

    @property
    def feature_dims(self) -> int:
        """Width of what a head reads: D, or 2 D."""
        return feature_dims(self.embed_dims, self.out_type)

    def _format_output(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        if self.out_type == CLS_AND_MEAN:
            return torch.cat((x[:, 0], x[:, self.num_extra_tokens:].mean(dim=1)), dim=1)
        return super()._format_output(x, hw)

    def is_learnable(self, name: str) -> bool:
        """Whether a parameter or module belongs to what a subclass adds."""
        return name.partition('.')[0] in self.learnable_modules

    def reset_learnable(self) -> None:
        """Draw the parameters that a subclass adds."""

    def init_weights(self) -> None:
        """Initialize, then load ``init_cfg``'s checkpoint; what it filled is not touched again.

        The stock class draws ``pos_embed`` anew after loading if ``init_cfg`` is a list, so it is passed by.
        """
        if not self._is_init:
            self.provenance.filled.clear()  # what was loaded before is drawn anew
            self._checked = False
        if not any(self.is_learnable(name) for name in self.provenance.filled):
            self.reset_learnable()
        with self.provenance.reading_init_cfg() as given:
            super(VisionTransformer, self).init_weights()
        if 'pos_embed' not in self.provenance.filled:
            trunc_normal_(self.pos_embed, std=0.02)
        if given:
            whole = self.frozen and given.issuperset(frozen_weights(self))
            self.saved.origin = self.fingerprint() if whole else None
        trained = sum(p.numel() for p in self.parameters() if p.requires_grad)
        total = sum(p.numel() for p in self.parameters())
        MMLogger.get_current_instance().info(
            f'{type(self).__name__}: {trained:,} of {total:,} parameters train ({trained / total:.4%})')

    def train(self, mode: bool = True) -> 'FrozenViT':
        """Set the mode; while frozen, only ``learnable_modules`` follow it."""
        super().train(mode)
        if self.frozen:
            for name, child in self.named_children():
                child.train(mode and self.is_learnable(name))
        elif self.frozen_stages > 0:
            self._freeze_stages()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def _freeze_stages(self) -> None:
        super()._freeze_stages()
        registers = getattr(self, 'register_tokens', None)  # the base class calls this before they are there
        if registers is not None:
            registers.requires_grad_(False)

    def fingerprint(self) -> Tensor:
        """Compute the fingerprint of the frozen weights and of what they are computed with; the learnable do not count.

        The final norm counts under one name, wherever the model reads it, and the position embedding as it came from
        its file: resized numbers depend on the processor. While the weights stay in place, it is computed once.

        Returns:
            Tensor: uint8, (32, ), see :mod:`mmspt.models.weights.fingerprint`.
        """
        return self.provenance.fingerprint(self)

    def check_weights(self) -> None:
        """Make sure that a checkpoint filled every frozen weight; if all train, that it filled all or was not there.

        Raises:
            RuntimeError: Some such weight is still random, and ``allow_random_backbone`` is False.
        """
        if not self._checked:
            check_filled(self)
            self._checked = True

    def check_classifier(self) -> None:
        """Make sure that checkpoints filled the whole classifier around this backbone, unless it has trained since.

        A classifier that was given none is left alone.

        Raises:
            RuntimeError: Head, neck, prompts or frozen weights are random.
        """
        if self.provenance.reports:
            check_classifier(self)

    def _checkpoint_filter(self, state_dict: dict, prefix: str, metadata: dict, strict: bool, missing: list[str],
                           unexpected: list[str], errors: list[str]) -> None:
        """Hook of MMPretrain's classifier: lets ``load_from`` name a bare encoder in any known layout."""
        self.provenance.reports.append((missing, errors))
        if any(key.startswith(f'{prefix}backbone.') for key in state_dict) or not state_dict:
            return
        encoder = find_encoder(state_dict)
        if encoder is not None:
            state_dict.clear()
            state_dict.update({f'{prefix}backbone.{key}': value for key, value in encoder.items()})
        elif not any(key.startswith((f'{prefix}head.', f'{prefix}neck.')) for key in state_dict):
            raise unknown_layout(state_dict)

    def _prepare_pos_embed(self, state_dict: dict, prefix: str, *args: Any, **kwargs: Any) -> None:
        """Hook of the base class, before any of its weights are loaded: rename, resize, refuse, take stock.

        The base class's own part, which resizes, is done by ``fit_position``; its guess of the grid fails on others
        than squares.
        """
        given = {key[len(prefix):]: state_dict.pop(key) for key in list(state_dict) if key.startswith(prefix)}
        state_dict.update({prefix + key: value for key, value in prepare(self, given).items()})
        self._checked = False

    def _rename_learnable(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Give the weights of ``learnable_modules`` the names that they have here."""
        return weights

    def _embed(self, images: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Turn images (B, 3, H, W) into block 1's input (B, n + N_e, D), bare patch tokens (B, N_e, D) and (h, w)."""
        height, width = images.shape[-2:]
        if (height, width) != self.img_size:
            self._note_size(height, width)
        patches, resolution = self.patch_embed(images)
        x = patches
        n = 0 if self.cls_token is None else 1
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        single = self.pos_embed.to(torch.promote_types(self.pos_embed.dtype, torch.float32))  # or double
        position = resize_pos_embed(single, self.patch_resolution, resolution, mode=self.interpolate_mode,
                                    num_extra_tokens=n)
        x = x + position.to(self.pos_embed.dtype)
        if self.register_tokens is not None:
            x = torch.cat((x[:, :n], self.register_tokens.expand(x.shape[0], -1, -1), x[:, n:]), dim=1)
        return self.pre_norm(self.drop_after_pos(x)), patches, resolution

    def _note_size(self, height: int, width: int) -> None:
        """Say once that images have another size than ``img_size``."""
        if (height, width) not in self._other_sizes and len(self._other_sizes) < 3:
            self._other_sizes.add((height, width))
            own = f'{self.img_size[0]} x {self.img_size[1]}'
            MMLogger.get_current_instance().warning(
                f'Images of {height} x {width} pixels (height x width) come to a backbone of img_size {own}, so its '
                f'position embedding is resized for each batch. Unless you mean that, set model.backbone.img_size='
                f'({height}, {width}), or the sizes in the pipelines so that they give {own}')

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


def leave_frozen_out(module: FrozenViT, state: dict, prefix: str, metadata: Any) -> None:
    """Hook for state dicts: replace the frozen weights by the fingerprint, while that is asked for."""
    if module.saved.substitute is not None:
        for name in frozen_weights(module):
            state.pop(prefix + name, None)
        state[prefix + KEY] = module.saved.substitute
