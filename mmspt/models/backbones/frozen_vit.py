"""A Vision Transformer whose weights come from a checkpoint, all of them, and stay as they are."""
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from mmengine.logging import MMLogger
from mmengine.model.weight_init import trunc_normal_
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from ..weights import check_fit, find_encoder, fit_position, place_final_norm, unwrap


class FrozenViT(VisionTransformer):
    """MMPretrain's ViT, frozen: the base of networks that add learnable parameters of their own.

    Frozen means no gradient, and eval behaviour (no dropout, no drop path) inside a training step. Checkpoints in every
    layout of :mod:`mmspt.models.weights` load through ``init_cfg`` and ``load_from``.

    Args:
        frozen (bool): See above; False trains everything. Defaults to True.
        allow_random_backbone (bool): Train although no checkpoint filled some frozen weights. Defaults to False.
        stop_grad_conv1 (bool): MoCoV3ViT's: no gradient for the patch embedding. Defaults to False.
        norm_eval (bool): MoCoV3ViT's: BatchNorm, if any, in eval mode. Defaults to False.
        init_cfg (dict | list | None): As in MMEngine. Defaults to None.
        **kwargs: Those of :class:`mmpretrain.models.VisionTransformer`.

    Attributes:
        learnable (tuple[str]): Names of the parameters that a subclass adds, which no pre-training knows.
        learnable_modules (tuple[str]): Names of the children that follow train and eval mode nonetheless.

    Raises:
        ValueError: While loading, weights that do not fit.
        RuntimeError: At the first training step, frozen weights that no checkpoint filled.
    """
    arch_zoo = {
        **VisionTransformer.arch_zoo,
        **{name: dict(embed_dims=384, num_layers=12, num_heads=12, feedforward_channels=1536)
           for name in ('mocov3-s', 'mocov3-small')},
    }
    learnable: ClassVar[tuple[str, ...]] = ()
    learnable_modules: ClassVar[tuple[str, ...]] = ()

    def __init__(self,
                 *args: Any,
                 frozen: bool = True,
                 allow_random_backbone: bool = False,
                 stop_grad_conv1: bool = False,
                 norm_eval: bool = False,
                 init_cfg: dict | list | None = None,
                 **kwargs: Any) -> None:
        if isinstance(kwargs.get('out_indices'), (list, tuple)):
            kwargs['out_indices'] = list(kwargs['out_indices'])  # the base class writes into the caller's list
        super().__init__(*args, init_cfg=_without_backbone_prefix(init_cfg), **kwargs)
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

    def init_learnable(self) -> None:
        """Draw the parameters that a subclass adds."""

    def init_weights(self) -> None:
        """Initialize, then load ``init_cfg``'s checkpoint; what it filled is not touched again.

        The stock class draws ``pos_embed`` anew after loading if ``init_cfg`` is a list, so it is passed by.
        """
        if not self._is_init:
            self._filled.clear()  # what was loaded before is drawn anew
            self._checked = False
        if not self._filled.intersection(self.learnable):
            self.init_learnable()
        super(VisionTransformer, self).init_weights()
        if 'pos_embed' not in self._filled:
            trunc_normal_(self.pos_embed, std=0.02)
        trained = sum(p.numel() for p in self.parameters() if p.requires_grad)
        total = sum(p.numel() for p in self.parameters())
        MMLogger.get_current_instance().info(
            f'{type(self).__name__}: {trained:,} of {total:,} parameters train ({trained / total:.4%})')

    def train(self, mode: bool = True) -> 'FrozenViT':
        """Set the mode; while frozen, only ``learnable_modules`` follow it."""
        super().train(mode)
        if self.frozen:
            for name, child in self.named_children():
                child.train(mode and name in self.learnable_modules)
        elif self.frozen_stages > 0:
            self._freeze_stages()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

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
        absent = [name for name in self.learnable if name in own and name not in encoder]
        if absent and encoder:
            MMLogger.get_current_instance().info(
                f'The checkpoint holds no {", ".join(absent)}: they keep their initial values.')
            encoder.update({name: own[name] for name in absent})
        for key in given:
            del state_dict[prefix + key]
        state_dict.update({prefix + key: value for key, value in encoder.items()})

    def check_weights(self) -> None:
        """Make sure that a checkpoint filled every frozen weight; if all train, that it filled all or was not there.

        Raises:
            RuntimeError: Some such weight is still random, and ``allow_random_backbone`` is False.
        """
        if self._checked:
            return
        self._checked = True
        whole = not self.frozen and bool(self._filled - set(self.learnable))
        missing = [name for name, p in self.named_parameters() if name not in self._filled
                   and (not p.requires_grad or (whole and name not in self.learnable))]
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
            f'every {"pre-trained" if whole else "frozen"} weight must come from a checkpoint, but {len(missing)} of '
            f'them are random{hint}: {listed}. '
            "Name one: model.backbone.init_cfg=dict(type='Pretrained', checkpoint=...) or load_from=...; "
            'allow_random_backbone=True trains prompts on a random network')

    def _embed(self, images: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Turn images (B, 3, H, W) into block 1's input (B, n + N_e, D), bare patch tokens (B, N_e, D) and (h, w)."""
        patches, resolution = self.patch_embed(images)
        x = patches
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1)
        x = x + resize_pos_embed(self.pos_embed, self.patch_resolution, resolution, mode=self.interpolate_mode,
                                 num_extra_tokens=self.num_extra_tokens)
        return self.pre_norm(self.drop_after_pos(x)), patches, resolution

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
