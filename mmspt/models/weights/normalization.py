"""Mean and standard deviation of the images that a network was trained on."""
from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
from mmengine.logging import MMLogger

from mmspt.config import type_name
from mmspt.hub import is_address

from .architecture import read_beside
from .loading import checkpoint_of

IMAGENET = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
CLIP_IMAGES = [122.771, 116.746, 104.094], [68.501, 66.632, 70.323]
"""Mean and standard deviation of pixels from 0 to 255, RGB; CLIP's of https://github.com/openai/CLIP."""
Values = tuple[list[float], list[float]]


def stated_normalization(checkpoint: str, width: int, clip: bool) -> Values | None:
    """Return the mean and standard deviation that a checkpoint's publisher states, of pixels from 0 to 255, RGB.

    They stand in ``preprocessor_config.json`` (transformers) or ``config.json`` (timm) of its repository or folder. Of
    a local folder they count only if its ``config.json`` is of a network of this width.

    Args:
        checkpoint (str): Path or address.
        width (int): D.
        clip (bool): Whether it is a CLIP, whose own values are taken where no file says others.

    Returns:
        tuple[list[float], list[float]] | None: None if nothing is stated.

    Raises:
        ValueError: A file that cannot be read.
    """
    found = CLIP_IMAGES if clip else None
    config = read_beside(checkpoint, 'config.json')
    tower = config.get('vision_config')
    own = tower if isinstance(tower, dict) else config
    if not is_address(checkpoint) and width not in (own.get('hidden_size'), own.get('num_features')):
        return found
    inner = config.get('pretrained_cfg')
    timm: dict[str, Any] = inner if isinstance(inner, dict) else {}
    for content in (timm, read_beside(checkpoint, 'preprocessor_config.json')):
        mean, std = (content.get(key) or content.get(f'image_{key}') for key in ('mean', 'std'))
        if _is_colour(mean) and _is_colour(std):
            found = [round(255 * x, 3) for x in mean], [round(255 * x, 3) for x in std]
    return found


def fill_normalization(data_preprocessor: Mapping[str, Any], backbone: Mapping[str, Any], width: int, clip: bool,
                       channels: int = 3) -> dict[str, Any]:
    """Return a data preprocessor's arguments, with the stated mean and std if it has neither.

    Args:
        data_preprocessor (Mapping[str, Any]): As in a config.
        backbone (Mapping[str, Any]): Config of a backbone that reads its checkpoint.
        width, clip: See :func:`stated_normalization`.
        channels (int): Of an image; others than 3 are left alone. Defaults to 3.

    Raises:
        ValueError: ``to_rgb=False``.
    """
    checkpoint = checkpoint_of(backbone.get('init_cfg'))
    if (checkpoint is None or channels != 3 or not _is_plain(data_preprocessor)
            or {'mean', 'std'} & data_preprocessor.keys()):
        return dict(data_preprocessor)
    stated = stated_normalization(checkpoint, width, clip)
    if stated is None:
        MMLogger.get_current_instance().warning(
            f"nothing says which mean and std the images of '{checkpoint}' had, so they are not normalized: set "
            'data_preprocessor=dict(mean=..., std=..., to_rgb=True)')
        return dict(data_preprocessor)
    if not data_preprocessor.get('to_rgb', True):
        raise ValueError(f"data_preprocessor.to_rgb must be True for the mean and std that '{checkpoint}' states, "
                         'which are those of RGB, got False: leave it out, or give mean and std')
    mean, std = stated
    return dict(data_preprocessor, mean=mean, std=std, to_rgb=True)


def compare_normalization(data_preprocessor: Mapping[str, Any], backbone: Mapping[str, Any], width: int,
                          clip: bool) -> None:
    """Warn where images are normalized by other values than stated, see :func:`fill_normalization`."""
    checkpoint = checkpoint_of(backbone.get('init_cfg'))
    stated = None if checkpoint is None or not _is_plain(data_preprocessor) else stated_normalization(
        checkpoint, width, clip)
    if stated is None:
        return
    given = [data_preprocessor.get(key) for key in ('mean', 'std')]
    alike = all(isinstance(own, (list, tuple)) and len(own) == 3 and np.allclose(own, value, rtol=4e-3)
                for own, value in zip(given, stated, strict=True))
    if not alike or not data_preprocessor.get('to_rgb', False):
        order = 'RGB' if data_preprocessor.get('to_rgb', False) else 'BGR'
        MMLogger.get_current_instance().warning(
            f"'{checkpoint}' was trained on images of mean {stated[0]} and std {stated[1]} (RGB, 0 to 255), but the "
            f'config has mean {given[0]} and std {given[1]} ({order}): unless you mean that, set '
            f'data_preprocessor=dict(mean={stated[0]}, std={stated[1]}, to_rgb=True)')


def _is_colour(values: Any) -> TypeGuard[list[float]]:
    return isinstance(values, list) and len(values) == 3 and all(isinstance(x, (int, float)) for x in values)


def _is_plain(data_preprocessor: Mapping[str, Any]) -> bool:
    return type_name(data_preprocessor.get('type', 'ClsDataPreprocessor')) == 'ClsDataPreprocessor'
