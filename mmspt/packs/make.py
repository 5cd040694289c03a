"""A pack from a tuned classifier."""
import os.path as osp
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

import mmengine
import mmpretrain
import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from mmspt.config import name_classes
from mmspt.engine.model import check_linear_classifier
from mmspt.evaluation.description import CACHE
from mmspt.hub import is_address
from mmspt.models import PromptedViT
from mmspt.version import __version__

from .architecture import Architecture
from .image_classifier import ImageClassifier
from .pack import Pack
from .preprocessing import Preprocessing

PRIVATE = ('work_dir', 'load_from', 'resume', 'launcher', 'workers')
"""Entries of a recipe that concern one run or machine."""
SECRET = re.compile('(api|access).?key|token$|passw|secret|credential', re.IGNORECASE)


def make_pack(model: nn.Module, config: Config, task: str, classes: Sequence[str], metrics: Mapping[str, float],
              dtype: torch.dtype = torch.float32, with_recipe: bool = True) -> Pack:
    """Make a pack of a tuned classifier.

    Args:
        model (nn.Module): See :func:`.check_linear_classifier`; frozen, all weights loaded.
        config (Config): The config that it was tuned with.
        task (str): Name of the task.
        classes (Sequence[str]): Name of each class.
        metrics (Mapping[str, float]): Name -> value, as tested.
        dtype (torch.dtype): Precision of the pack's weights. Defaults to fp32.
        with_recipe (bool): Whether the pack has the config's text. Defaults to True.

    Raises:
        ValueError: The model, or its preprocessing, is of a kind that a pack cannot hold.
    """
    check_linear_classifier(model)
    config = Config(name_classes(config))
    normalization = config.model.get('data_preprocessor') or config.get('data_preprocessor') or ConfigDict()
    if isinstance(model, ImageClassifier) and not {'mean', 'std'} & normalization.keys():
        config.model.data_preprocessor = {**normalization, **model.normalization()}  # it may have read a checkpoint's
    vit = cast(PromptedViT, model.backbone)
    if not vit.frozen:
        raise ValueError('a pack holds what was tuned on a frozen backbone, but this one has frozen=False: share its '
                         'whole checkpoint instead')
    backbone = Architecture.from_model(vit)
    preprocessing = Preprocessing.from_config(config, backbone.img_size)
    if preprocessing.size != backbone.img_size:
        raise ValueError(f"a pack's images must have the backbone's img_size, {backbone.img_size}, but the test "
                         f'pipeline outputs {preprocessing.size} (height, width): share its whole checkpoint instead, '
                         'or train again with equal sizes')

    def kept(weight: Tensor) -> Tensor:
        return weight.detach().to('cpu', dtype)

    with torch.no_grad():
        tokens, *others = (None, None, None) if vit.prompts is None else vit.prompts()
    scale, gate = (part if part is None else part.to('cpu', torch.float32) for part in others)  # small errors add up
    return Pack(
        task=task, classes=tuple(classes), prompts=None if tokens is None else kept(tokens), logit_scale=scale,
        gate=gate,
        weight=kept(model.get_parameter('head.fc.weight')), bias=kept(model.get_parameter('head.fc.bias')),
        backbone=backbone, fingerprint=vit.fingerprint(),
        preprocessing=preprocessing,
        checkpoint=_origin(vit, config), recipe=_recipe(config) if with_recipe else '', metrics=dict(metrics),
        versions=dict(mmspt=__version__, torch=str(torch.__version__), mmengine=mmengine.__version__,
                      mmpretrain=mmpretrain.__version__))


def _origin(vit: PromptedViT, config: Config) -> str:
    """Return the address of the backbone's checkpoint, or its file's name without folders; '' if the weights are, or
    may be, others than ``init_cfg`` names."""
    origin = vit.saved.origin
    other = bool(config.get('load_from')) and not config.get('resume') if origin is None else \
        not torch.equal(origin, vit.fingerprint())
    if other:
        return ''
    given = config.model.backbone.get('init_cfg') or []
    init_cfgs = given if isinstance(given, (list, tuple)) else [given]
    checkpoint = next((cfg['checkpoint'] for cfg in init_cfgs if cfg.get('checkpoint')), '')
    if is_address(checkpoint):
        return checkpoint
    if '://' not in checkpoint:
        return osp.basename(checkpoint)
    address = urlsplit(checkpoint)
    return f'{address.scheme}://{address.hostname or ""}{address.path}'


def _recipe(config: Config) -> str:
    """Return the config's text without private entries."""
    return Config(_public({key: value for key, value in config.to_dict().items() if key not in PRIVATE})).pretty_text


def _public(value: Any) -> Any:
    """Return a part of a config without the folders of paths and without entries that are named as secrets."""
    if isinstance(value, dict):
        return {key: _public(part) for key, part in value.items() if not SECRET.search(str(key)) and key not in CACHE}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_public, value))
    if isinstance(value, str):
        path = value.removeprefix('file://')
        return osp.basename(path.rstrip('/')) if osp.isabs(path) or path.startswith('~') else path
    return value
