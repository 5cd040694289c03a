"""Load checkpoints into a frozen network: what its state-dict hook and its checks do."""
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from mmengine.logging import MMLogger
from mmengine.model.weight_init import initialize
from torch import Tensor

from mmspt.checkpoint_loaders import load_file
from mmspt.config import type_name
from mmspt.hub import local_path

from .architecture import read_arguments
from .fingerprint import KEY, check_fingerprint, to_hex
from .fit import arguments, check_fit, fit_position, place_final_norm, refuse_other_networks
from .layouts import find_encoder, unknown_layout
from .provenance import all_weights, frozen_weights

if TYPE_CHECKING:
    from ..backbones.frozen_vit import FrozenViT

PRETRAINED = ('Pretrained', 'PretrainedInit')  # the registered name and the class's


def plain_init_cfg(init_cfg: Any) -> Any:
    """Drop ``prefix='backbone.'`` of MMPretrain's configs: the layout is recognized with or without it. And give the
    type the one name after which MMEngine fills weights last, so that nothing is drawn anew over them."""
    if isinstance(init_cfg, (list, tuple)):
        return [plain_init_cfg(cfg) for cfg in init_cfg]
    if not isinstance(init_cfg, dict) or type_name(init_cfg.get('type')) not in PRETRAINED:
        return init_cfg
    drop = ('prefix', ) if str(init_cfg.get('prefix')).rstrip('.') == 'backbone' else ()
    return {key: value for key, value in init_cfg.items() if key not in drop} | dict(type='Pretrained')


def checkpoint_of(init_cfg: Any) -> str | None:
    """Return the first checkpoint that an ``init_cfg`` of MMEngine names; None if it names none."""
    for cfg in init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]:
        if isinstance(cfg, Mapping) and type_name(cfg.get('type')) in PRETRAINED and cfg.get('checkpoint'):
            return cfg['checkpoint']
    return None


def has_sizes(arch: Any) -> bool:
    """Whether a backbone's ``arch`` names a network or gives its sizes, so that they are not read from a checkpoint."""
    return isinstance(arch, str) or (isinstance(arch, Mapping) and 'embed_dims' in arch)


def arguments_of(init_cfg: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a backbone's arguments: ``given`` ones, and the others from the first checkpoint that ``init_cfg`` names.

    Raises:
        OSError, RuntimeError: It cannot be read.
        ValueError: See :func:`.read_arguments`.
    """
    checkpoint = checkpoint_of(init_cfg)
    if checkpoint is None:
        return dict(given)
    path = local_path(checkpoint)
    read = read_arguments(load_file(path), path, given)
    for name in ('arch', 'layer_cfgs', 'norm_cfg', 'patch_cfg'):
        if isinstance(given.get(name), Mapping):
            read[name] = {**read.get(name, {}), **given[name]}
    return {**given, **read, **{name: value for name, value in given.items() if not isinstance(value, Mapping)}}


def prepare(vit: 'FrozenViT', given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn what a checkpoint holds for a network into its state dict: rename, resize, refuse, take stock.

    Args:
        vit (FrozenViT): Takes note of what is filled.
        given (dict[str, Tensor]): In any known layout; without frozen weights, a fingerprint stands for them.

    Returns:
        dict[str, Tensor]: By the network's names; what the checkpoint leaves out on purpose keeps its value.

    Raises:
        ValueError: Weights that do not fit.
    """
    provenance, own = vit.provenance, all_weights(vit)
    expected = check_fingerprint(given.pop(KEY)) if KEY in given else None
    if expected is not None and provenance.from_init_cfg is not None:
        raise ValueError("a backbone's checkpoint must hold its weights, but this one was saved without the frozen "
                         'ones: name the checkpoint that it was tuned on')
    given = vit._rename_learnable(given)
    encoder = find_encoder(given)
    if encoder is None:
        if given and not any(key in own for key in given):
            raise unknown_layout(given)
        encoder = given  # a part of the network's own weights, such as prompts alone
    refuse_other_networks(encoder, set(own))
    encoder, resized = fit_position(place_final_norm(encoder, set(own)), tuple(vit.patch_embed.init_out_size),
                                    vit.with_cls_token, vit.interpolate_mode)
    if expected is not None and not all(vit.is_learnable(name) for name in encoder):
        raise ValueError('weights must come with frozen weights or with a fingerprint instead of them, this '
                         'checkpoint has both: use another')
    check_fit(encoder, own, vit.num_layers)
    provenance.fill(encoder, resized)
    absent = [name for name in own if vit.is_learnable(name) and name not in encoder] if encoder else []
    if absent and provenance.from_init_cfg is None:
        MMLogger.get_current_instance().info(
            f'The checkpoint holds no {", ".join(absent)}: they keep their initial values.')
    if expected is None:
        return {**{name: own[name] for name in absent}, **encoder}
    load_frozen(vit, expected)
    return {**own, **encoder}


def load_frozen(vit: 'FrozenViT', expected: Tensor) -> None:
    """Fill the frozen weights that a checkpoint was saved without, and make sure that they are the right ones.

    This happens while the checkpoint is loaded, not later: averages of weights swap tensors among copies of a network,
    and MMPretrain's ``get_model`` and inferencers never call ``init_weights``.

    Args:
        vit (FrozenViT): Its ``init_cfg`` is read unless its frozen weights are filled.
        expected (Tensor): Their fingerprint.

    Raises:
        ValueError: ``init_cfg`` names no checkpoint, or another than that which the weights were tuned on.
    """
    provenance = vit.provenance
    read = not provenance.filled.issuperset(frozen_weights(vit))
    if read:
        configs = vit.init_cfg if isinstance(vit.init_cfg, (list, tuple)) else [vit.init_cfg]
        pretrained = [cfg for cfg in configs if cfg and cfg['type'] == 'Pretrained']
        if not pretrained:
            raise ValueError(f'what was tuned on a frozen backbone needs it (fingerprint {to_hex(expected)}), but the '
                             "model names none: set model.backbone.init_cfg=dict(type='Pretrained', checkpoint=...) "
                             'to the checkpoint that it was tuned on')
        with provenance.reading_init_cfg():
            initialize(vit, pretrained)
    own = provenance.fingerprint(vit)
    if not torch.equal(own, expected):
        raise ValueError('what was tuned on one frozen backbone fits no other: it was tuned on that of fingerprint '
                         f'{to_hex(expected)}, this one has {to_hex(own)}. Name the checkpoint that it was tuned on '
                         '(model.backbone.init_cfg), and its out_type, final_norm and num_heads')
    if read:
        vit.saved.origin = expected


def check_classifier(vit: 'FrozenViT') -> None:
    """Refuse a classifier that its checkpoint filled in part, see :meth:`.FrozenViT.check_classifier`."""
    provenance = vit.provenance
    left = provenance.left_out(vit)
    if left:
        errors = [line for _, errors in provenance.reports for line in errors if line.startswith('size mismatch')]
        shapes = f' ({errors[0].rstrip(".")})' if errors else ''
        raise RuntimeError(
            f'outside training every weight must come from a checkpoint, but {len(left)} are random: '
            f'{", ".join(left[:8])}{", ..." if len(left) > 8 else ""}{shapes}. Name a checkpoint of a training with '
            'this config, or the config of the training that wrote this one; for the features of a bare backbone set '
            'model.head=None and model.backbone.num_prompts=0')
    provenance.reports.clear()


def check_filled(vit: 'FrozenViT') -> None:
    """Refuse a network with random frozen weights, see :meth:`.FrozenViT.check_weights`."""
    missing = vit.provenance.missing(vit)
    if not missing:
        return
    listed = ', '.join(missing[:8]) + (', ...' if len(missing) > 8 else '')
    if vit.allow_random_backbone:
        MMLogger.get_current_instance().warning(
            f'{len(missing)} frozen weights are random and stay so (allow_random_backbone=True): {listed}')
        return
    remedy = "Name one: model.backbone.init_cfg=dict(type='Pretrained', checkpoint=...) or load_from=...; " \
        'allow_random_backbone=True trains prompts on a random network'
    if any(not vit.is_learnable(name) for name in vit.provenance.filled):
        found, rest = arguments(missing, False)
        remedy = 'The checkpoint is of another network or incomplete: name another' if rest else \
            f'The checkpoint is of a network without them: set {", ".join(found)}'
    raise RuntimeError(
        f'every {"frozen" if vit.frozen else "pre-trained"} weight must come from a checkpoint, but {len(missing)} of '
        f'them are random: {listed}. {remedy}')
