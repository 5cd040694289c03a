"""Resizing by torch: Pillow's filters on uint8, several times as fast."""
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmcv.image import rescale_size
from mmcv.transforms import Resize as _Resize
from mmpretrain.datasets import RandomResizedCrop as _RandomResizedCrop
from mmpretrain.datasets import ResizeEdge as _ResizeEdge

from mmspt.registry import TRANSFORMS

INTERPOLATIONS = ('bilinear', 'bicubic')
"""That torch computes with antialiasing."""


def resize(image: np.ndarray, size: Sequence[int], interpolation: str = 'bicubic') -> np.ndarray:
    """Resize with antialiasing, as Pillow does: pixels differ from Pillow's by its rounding.

    Args:
        image (np.ndarray): (H, W) or (H, W, C), uint8 or float32, of any strides.
        size (Sequence[int]): (width, height) in pixels, MMCV's order.
        interpolation (str): One of :data:`INTERPOLATIONS`. Defaults to 'bicubic'.

    Returns:
        np.ndarray: (height, width) or (height, width, C), of the same type; the image itself if it has this size.
    """
    if tuple(size) == (image.shape[1], image.shape[0]):
        return image
    if image.dtype not in (np.uint8, np.float32):
        raise ValueError(f"backend='torch' resizes uint8 and float32, got {image.dtype}: set backend='cv2', or "
                         "color_type='color' of the loader")
    if min(image.strides) < 0 or not image.flags.writeable:  # which torch does not take
        image = image.copy()
    # the view (1, C, H, W) is channels-last, which torch resizes without taking the channels apart
    batch = torch.from_numpy(image.reshape(1, *image.shape[:2], -1)).permute(0, 3, 1, 2)
    batch = torch.nn.functional.interpolate(batch, tuple(size[::-1]), mode=interpolation, antialias=True)
    return batch.permute(0, 2, 3, 1).numpy().reshape(size[1], size[0], *image.shape[2:])


class _ByTorch:
    """Let a transform have ``backend='torch'`` beside MMCV's."""
    backend: str
    interpolation: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.by_torch = self.backend == 'torch'
        if self.by_torch and self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"backend='torch' needs interpolation {' or '.join(INTERPOLATIONS)}, got "
                             f"'{self.interpolation}': choose one of them, or backend='pillow'")

    def _resize_img(self, results: dict) -> None:
        """Resize ``results['img']`` to ``results['scale']``, (width, height)."""
        if not self.by_torch:
            return super()._resize_img(results)  # type: ignore[misc]
        height, width = results['img'].shape[:2]
        size = results['scale']
        if hasattr(self, 'keep_ratio'):  # of Resize
            results['keep_ratio'] = self.keep_ratio
            size = rescale_size((width, height), size) if self.keep_ratio else size
        results['img'] = resize(results['img'], size, self.interpolation)
        results.update(img_shape=results['img'].shape[:2], scale_factor=(size[0] / width, size[1] / height))


@TRANSFORMS.register_module()
class Resize(_ByTorch, _Resize):
    """MMCV's Resize; ``backend='torch'`` gives Pillow's pixels (:func:`resize`) sooner. Arguments are MMCV's."""


@TRANSFORMS.register_module()
class ResizeEdge(_ByTorch, _ResizeEdge):
    """MMPretrain's ResizeEdge; ``backend='torch'`` gives Pillow's pixels (:func:`resize`) sooner. Arguments are
    MMPretrain's."""


@TRANSFORMS.register_module()
class RandomResizedCrop(_ByTorch, _RandomResizedCrop):
    """MMPretrain's RandomResizedCrop, whose crops it draws; ``backend='torch'`` gives Pillow's pixels
    (:func:`resize`) sooner. Arguments are MMPretrain's."""

    def transform(self, results: dict) -> dict:
        """Crop and resize ``results['img']``."""
        if not self.by_torch:
            return super().transform(results)
        image = results['img']
        top, left, height, width = self.rand_crop_params(image)
        image = resize(image[top:top + height, left:left + width], self.scale[::-1], self.interpolation)
        results.update(img=image, img_shape=image.shape)
        return results
