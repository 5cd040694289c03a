"""The handwritten digits of scikit-learn: real images without a download."""
from typing import Any

import numpy as np
from mmpretrain.datasets import BaseDataset
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedShuffleSplit

from mmspt.registry import DATASETS

SPLIT_SEED = 0
VAL_SIZE, TEST_SIZE = 300, 500


@DATASETS.register_module()
class Digits(BaseDataset):
    """1,797 grey images of 8 x 8 pixels in 10 classes (UCI, Alpaydin and Kaynak 1998; :func:`load_digits`).

    The split is stratified and fixed: 997 'train', 300 'val', 500 'test'. Items hold 'img', (8, 8, 3)
    uint8, so a pipeline starts with Resize, not with loading.

    Args:
        split (str): 'train', 'val' or 'test'.
        images_per_class (int | None): Keep this number of images of each class, for few-shot tasks. Defaults to None.
        **kwargs: Arguments of :class:`mmpretrain.datasets.BaseDataset`.

    Raises:
        ValueError: Another split, or a class has fewer images than asked for.
    """
    METAINFO = {'classes': tuple('0123456789')}

    def __init__(self, split: str = 'train', images_per_class: int | None = None, **kwargs: Any) -> None:
        if split not in ('train', 'val', 'test'):
            raise ValueError(f"split must be 'train', 'val' or 'test', got {split!r}")
        self.split, self.images_per_class = split, images_per_class
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return the items of the split."""
        images, labels = load_digits(return_X_y=True)
        rest, test = _split(np.arange(len(labels)), labels, TEST_SIZE)
        train, val = _split(rest, labels, VAL_SIZE)
        indices = np.sort(dict(train=train, val=val, test=test)[self.split])
        if self.images_per_class is not None:
            fewest = int(np.bincount(labels[indices]).min())
            if not 0 < self.images_per_class <= fewest:
                raise ValueError(f"images_per_class must lie in 1..{fewest}, the smallest class of '{self.split}', got "
                                 f'{self.images_per_class}')
            indices = np.sort(np.concatenate([indices[labels[indices] == c][:self.images_per_class]
                                              for c in range(10)]))
        pixels = (images.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
        return [dict(img=np.repeat(pixels[i, :, :, None], 3, axis=2), img_shape=(8, 8), ori_shape=(8, 8),
                     gt_label=int(labels[i])) for i in indices]


def _split(indices: np.ndarray, labels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    splitter = StratifiedShuffleSplit(1, test_size=size, random_state=SPLIT_SEED)
    first, second = next(splitter.split(indices, labels[indices]))
    return indices[first], indices[second]
