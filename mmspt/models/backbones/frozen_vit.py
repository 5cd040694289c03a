"""A Vision Transformer whose weights come from a checkpoint, all of them, and stay as they are."""
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from mmengine.logging import MMLogger
from mmengine.model.weight_init import PretrainedInit, initialize, trunc_normal_
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from ..fingerprint import KEY, check_mark, fingerprint, show
from ..weights import check_fit, find_encoder, fit_position, place_final_norm, unwrap

PRETRAINED = ('Pretrained', 'mmengine.Pretrained', 'mmpretrain.Pretrained', PretrainedInit)


class Saving:
    """Whether state dicts hold frozen weights. Copies of a model share it, such as an average of its weights.

    Attributes:
        origin (Tensor | None): Fingerprint of the frozen weights that ``init_cfg``'s checkpoint gave; None if it gave
            not all.
        mark (Tensor | None): The fingerprint that stands for them in state dicts at the moment; None while these are
            whole.
    """

    def __init__(self) -> None:
        self.origin: Tensor | None = None
        self.mark: Tensor | None = None
        self._told = False

    def __deepcopy__(self, memo: dict) -> 'Saving':
        return self

    @contextmanager
    def without_frozen(self, vit: 'FrozenViT') -> Iterator[None]:
        """Leave frozen weights out of state dicts meanwhile: a model's, and those of its copies, whose frozen weights
        are the same. Weights that ``init_cfg`` would not bring back stay in."""
        self.mark = self._mark_of(vit)
        try:
            yield
        finally:
            self.mark = None

    def _mark_of(self, vit: 'FrozenViT') -> Tensor | None:
        parameters, frozen = dict(vit.named_parameters()), vit._frozen_weights()
        trained = any(name in parameters and parameters[name].requires_grad for name in frozen)
        if self.origin is None or trained or any(weight.dtype != torch.float32 for weight in frozen.values()):
            return None
        mark = vit.fingerprint()
        if torch.equal(mark, self.origin):
            return mark
        if not self._told:
            self._told = True
            MMLogger.get_current_instance().warning(
                'The frozen weights are not those of init_cfg: checkpoints hold them, too')
        return None


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
        saving (Saving): Under ``saving.without_frozen(vit)`` state dicts leave the frozen weights out: their
            fingerprint stands in their stead, and they are read from ``init_cfg``'s checkpoint when such a state
            dict is loaded.

    Raises:
        ValueError: While loading, weights that do not fit; what was tuned on another backbone.
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
        self.saving = Saving()
        self._filled: set[str] = set()
        self._checked = False
        self._given: set[str] | None = None  # what init_cfg's checkpoint has filled, while it is read
        self._position: tuple[Tensor, Tensor] | None = None  # pos_embed as it was resized, and before
        self._mark: tuple[tuple, Tensor] | None = None  # the fingerprint, and what it was taken of
        self._register_state_dict_hook(leave_frozen_out)
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
        with self._reading_init_cfg() as given:
            super(VisionTransformer, self).init_weights()
        if 'pos_embed' not in self._filled:
            trunc_normal_(self.pos_embed, std=0.02)
        if given:
            whole = self.frozen and given.issuperset(self._frozen_weights())
            self.saving.origin = self.fingerprint() if whole else None
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
        mark = state_dict.pop(prefix + KEY, None)
        if mark is not None and self._given is not None:
            raise _no_backbone()
        if mark is not None:
            self._restore(check_mark(mark))
        given = {key[len(prefix):]: value for key, value in state_dict.items() if key.startswith(prefix)}
        own = self._state()
        encoder = find_encoder(given)
        if encoder is None:
            if given and not any(key in own for key in given):
                raise _unknown_layout(given)
            encoder = given  # a part of our own weights, such as prompts alone
        encoder, resized = fit_position(place_final_norm(encoder, set(own)), tuple(self.patch_embed.init_out_size),
                                        self.with_cls_token, self.interpolate_mode)
        if mark is not None and set(encoder).difference(self.learnable):
            raise ValueError('weights must come with frozen weights or with a fingerprint in their stead, this '
                             'checkpoint has both: use another')
        check_fit(encoder, own, self.num_layers)
        self._filled.update(encoder)
        if resized is not None:
            self._position = encoder['pos_embed'].clone(), resized.clone()
        if self._given is not None:
            self._given.update(encoder)
        self._checked = False
        absent = [name for name in self.learnable if name in own and name not in encoder]
        if absent and encoder:
            if self._given is None:
                MMLogger.get_current_instance().info(
                    f'The checkpoint holds no {", ".join(absent)}: they keep their initial values.')
            encoder.update({name: own[name] for name in absent})
        if mark is not None:
            encoder = {**own, **encoder}
        for key in given:
            del state_dict[prefix + key]
        state_dict.update({prefix + key: value for key, value in encoder.items()})

    def _state(self) -> dict[str, Tensor]:
        """Its whole state dict."""
        state: dict[str, Tensor] = {}
        kept, self.saving = self.saving, Saving()
        try:
            self.state_dict(destination=state)
        finally:
            self.saving = kept
        return state

    def _frozen_weights(self) -> dict[str, Tensor]:
        return {name: value for name, value in self._state().items() if name not in self.learnable}

    @contextmanager
    def _reading_init_cfg(self) -> Iterator[set[str]]:
        """Collect the names of the weights that are filled meanwhile."""
        given: set[str] = set()
        self._given = given
        try:
            yield given
        finally:
            self._given = None

    def fingerprint(self) -> Tensor:
        """Take the fingerprint of the frozen weights and of what they are computed with; the learnable do not count.

        The final norm counts under one name, wherever the model reads it, and the position embedding as it came from
        its file: resized numbers depend on the processor. While the weights stay in place, it is taken once.

        Returns:
            Tensor: uint8, (32, ), see :mod:`mmspt.models.fingerprint`.
        """
        weights = self._frozen_weights()
        counted = not any(weight.is_inference() for weight in weights.values())  # writes to them
        written = tuple((weight.data_ptr(), weight._version if counted else object(), weight.dtype)
                        for weight in weights.values())
        if self._mark is None or self._mark[0] != written:
            if self._position is not None and torch.equal(self._position[0].to(self.pos_embed), self.pos_embed):
                weights['pos_embed'] = self._position[1]
            norms = {name for name in ('ln1', 'ln2') if f'{name}.weight' in weights}
            if len(norms) == 1:
                norm = norms.pop()
                weights = {f'norm.{name[4:]}' if name.startswith(f'{norm}.') else name: weight
                           for name, weight in weights.items()}
            self._mark = written, fingerprint(weights, self._settings())
        return self._mark[1]

    def _settings(self) -> dict[str, Any]:
        """What else changes the numbers: nothing that a shape tells."""
        projection = self.patch_embed.projection
        norms = [module for module in self.modules() if hasattr(module, 'eps')]
        return dict(
            num_heads=_common([block.attn.num_heads for block in self.layers]),
            eps=_common([norm.eps for norm in norms]),
            activation=_common([_activation(block.ffn) for block in self.layers]),
            stride=list(projection.stride), padding=list(projection.padding), dilation=list(projection.dilation))

    def _restore(self, mark: Tensor) -> None:
        """Fill frozen weights that were left out of a state dict, and make sure that they are the right ones."""
        read = not self._filled.issuperset(self._frozen_weights())
        if read:
            configs = self.init_cfg if isinstance(self.init_cfg, (list, tuple)) else [self.init_cfg]
            pretrained = [cfg for cfg in configs if cfg and cfg['type'] == 'Pretrained']
            if not pretrained:
                raise ValueError(f'what was tuned on a frozen backbone needs it (fingerprint {show(mark)}), but the '
                                 "model names none: set model.backbone.init_cfg=dict(type='Pretrained', "
                                 'checkpoint=...) to the checkpoint that it was tuned on')
            with self._reading_init_cfg():
                initialize(self, pretrained)
        own = self.fingerprint()
        if not torch.equal(own, mark):
            raise ValueError('what was tuned on one frozen backbone fits no other: it was tuned on that of fingerprint '
                             f'{show(mark)}, this one has {show(own)}. Name the checkpoint that it was tuned on '
                             '(model.backbone.init_cfg)')
        if read:
            self.saving.origin = mark

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
            x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
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


def leave_frozen_out(module: FrozenViT, state: dict, prefix: str, metadata: Any) -> None:
    """Hook for state dicts: put the fingerprint in place of the frozen weights, while that is asked for."""
    mark = module.saving.mark
    if mark is not None:
        for name in module._frozen_weights():
            state.pop(prefix + name, None)
        state[prefix + KEY] = mark


def _common(values: list) -> Any:
    """The value, if all are one, else all."""
    return values[0] if all(value == values[0] for value in values) else values


def _activation(ffn: Any) -> str:
    """Name of an MLP's activation, and its form if that is not the usual."""
    if not hasattr(ffn, 'layers'):
        return type(ffn).__name__
    activation = ffn.layers[0][1]
    form = getattr(activation, 'approximate', 'none')
    return type(activation).__name__ + (f'({form})' if form != 'none' else '')


def _without_backbone_prefix(init_cfg: Any) -> Any:
    """Drop ``prefix='backbone.'`` of MMPretrain's configs: the layout is recognized with or without it. And give the
    type the one name after which MMEngine fills weights last, so that nothing is drawn anew over them."""
    if isinstance(init_cfg, (list, tuple)):
        return [_without_backbone_prefix(cfg) for cfg in init_cfg]
    if not isinstance(init_cfg, dict) or init_cfg.get('type') not in PRETRAINED:
        return init_cfg
    drop = ('prefix', ) if str(init_cfg.get('prefix')).rstrip('.') == 'backbone' else ()
    return {key: value for key, value in init_cfg.items() if key not in drop} | dict(type='Pretrained')


def _no_backbone() -> ValueError:
    return ValueError("a backbone's checkpoint must hold its weights, but this one was saved without the frozen ones: "
                      'name the checkpoint that it was tuned on')


def _unknown_layout(state_dict: dict) -> ValueError:
    keys = [str(key) for key in unwrap(state_dict)]
    if any(key.split('.')[-1] == KEY for key in keys):
        return _no_backbone()
    return ValueError(
        'a checkpoint must hold a ViT in the layout of MMPretrain (layers.0.ln1.weight), FAIR MAE or timm '
        f'(blocks.0.norm1.weight) or FAIR MoCo-v3 (base_encoder.blocks.0.norm1.weight); this one has {len(keys)} '
        f'keys: {", ".join(keys[:6])}. Convert it, or name another file')
