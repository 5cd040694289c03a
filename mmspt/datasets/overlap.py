"""Which images two data sets have in common."""
import hashlib
import os.path as osp
from collections.abc import Callable, Hashable
from functools import cache
from typing import Any

import numpy as np
from mmengine.dataset import ClassBalancedDataset, RepeatDataset
from torch.utils.data import ConcatDataset, Subset

SOURCE = ('data_root', 'ann_file', 'data_prefix', 'split', 'task')


def count_shared(train: Any, test: Any) -> int | None:
    """Count the images of ``test`` that ``train`` reads as well, wrappers and indices applied; no image is decoded.

    Images are files, links followed. Images in memory are the same if their pixels and the names of their sources are.

    Args:
        train, test (Dataset): Built data sets, within RepeatDataset, ConcatDataset, Subset, KFoldDataset and the like.

    Returns:
        int | None: Of them; None if a data set does not tell its images (no ``get_data_info(index)``).
    """
    resolve = cache(osp.realpath)
    read, tested = identify_images(train, resolve), identify_images(test, resolve)
    return None if read is None or tested is None else sum(map(set(read).__contains__, tested))


def identify_images(dataset: Any, resolve: Callable[[str], str] = osp.realpath) -> list[Hashable] | None:
    """Return what identifies each image, in the data set's order; None if it cannot be told."""
    if isinstance(dataset, ConcatDataset):
        parts = [identify_images(part, resolve) for part in dataset.datasets]
        return None if None in parts else [image for part in parts for image in part or []]
    if isinstance(dataset, (RepeatDataset, ClassBalancedDataset, Subset)):
        inner = identify_images(dataset.dataset, resolve)
        if inner is None or isinstance(dataset, RepeatDataset):
            return inner
        indices = dataset.indices if isinstance(dataset, Subset) else dataset.repeat_indices
        return [inner[i % len(inner)] for i in indices]  # of a repeated data set, too
    if not hasattr(dataset, 'get_data_info'):
        return None
    source = type(dataset).__name__, *(str(getattr(dataset, key, None)) for key in SOURCE)
    images = [_identify(dataset.get_data_info(i), source, resolve) for i in range(len(dataset))]
    return None if None in images else images


def _identify(info: dict, source: tuple[str, ...], resolve: Callable[[str], str]) -> Hashable:
    path, pixels = info.get('img_path'), info.get('img')
    if path is not None:
        if '://' in path:
            return path
        folder, name = osp.split(path)
        path = osp.join(resolve(folder), name)
        return osp.realpath(path) if osp.islink(path) else path
    if isinstance(pixels, np.ndarray):
        return *source, pixels.shape, hashlib.sha256(pixels.tobytes()).digest()
    return None
