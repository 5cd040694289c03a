"""Mean and standard deviation of the images that a network was trained on."""
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.logging import MMLogger

from mmspt.config import type_name
from mmspt.hub import local_path

from .architecture import read_beside
from .loading import checkpoint_of

IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CLIP_IMAGES = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
"""Mean and standard deviation of pixels from 0 to 1, RGB; of https://github.com/openai/CLIP."""
Values = tuple[list[float], list[float]]


def read_normalization(name: str, clip: bool) -> Values:
    """Return mean and standard deviation of pixels from 0 to 255, RGB.

    Args:
        name (str): Path of a checkpoint; what counts is beside it in ``preprocessor_config.json`` (transformers) or
            ``config.json`` (timm).
        clip (bool): Whether it is a CLIP, whose values are taken where no file says others; else ImageNet's.
    """
    return _stated(name, clip) or _of_bytes(*IMAGENET)


def fill_normalization(data_preprocessor: Mapping[str, Any], backbone: Mapping[str, Any], clip: bool
                       ) -> dict[str, Any]:
    """Return a data preprocessor's arguments, with a checkpoint's mean and std if it has neither.

    Args:
        data_preprocessor (Mapping[str, Any]): As in a config.
        backbone (Mapping[str, Any]): Config of a backbone that reads its checkpoint.
        clip (bool): See :func:`read_normalization`.

    Raises:
        OSError: The checkpoint cannot be fetched.
    """
    checkpoint = checkpoint_of(backbone.get('init_cfg'))
    if checkpoint is None or not _is_plain(data_preprocessor) or {'mean', 'std'} & data_preprocessor.keys():
        return dict(data_preprocessor)
    mean, std = read_normalization(local_path(checkpoint), clip)
    return dict(data_preprocessor, mean=mean, std=std, to_rgb=True)


def compare_normalization(data_preprocessor: Mapping[str, Any], backbone: Mapping[str, Any], clip: bool) -> None:
    """Warn where images are normalized by other values than a checkpoint's publisher says, see
    :func:`fill_normalization`."""
    checkpoint = checkpoint_of(backbone.get('init_cfg'))
    if checkpoint is None or not _is_plain(data_preprocessor):
        return
    try:
        stated = _stated(local_path(checkpoint), clip)
    except (ImportError, OSError, ValueError):  # loading will say so
        return
    given = [list(data_preprocessor.get(key) or []) for key in ('mean', 'std')]
    if stated and (len(given[0]) != 3 or not np.allclose(given, stated, rtol=4e-3)):
        MMLogger.get_current_instance().warning(
            f"'{checkpoint}' was trained on images of mean {stated[0]} and std {stated[1]} (RGB, 0 to 255), but the "
            f'config has mean {given[0] or None} and std {given[1] or None}: unless you mean that, set '
            f'data_preprocessor=dict(mean={stated[0]}, std={stated[1]}, to_rgb=True)')


def _is_plain(data_preprocessor: Mapping[str, Any]) -> bool:
    return type_name(data_preprocessor.get('type', 'ClsDataPreprocessor')) == 'ClsDataPreprocessor'


def _stated(name: str, clip: bool) -> Values | None:
    """Return what the files beside a checkpoint say, else CLIP's; None if nothing is known."""
    found = CLIP_IMAGES if clip else None
    for file in ('config.json', 'preprocessor_config.json'):
        content = read_beside(name, file)
        inner = content.get('pretrained_cfg')
        own = inner if isinstance(inner, dict) else content
        mean, std = (own.get(key) or own.get(f'image_{key}') for key in ('mean', 'std'))
        if isinstance(mean, list) and isinstance(std, list) and len(mean) == len(std) == 3:
            found = mean, std
    return None if found is None else _of_bytes(*found)


def _of_bytes(mean: list[float], std: list[float]) -> Values:
    return [round(255 * value, 3) for value in mean], [round(255 * value, 3) for value in std]
