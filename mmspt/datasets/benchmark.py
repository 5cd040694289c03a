"""Base class of the data sets of the paper's 24 tasks."""
from abc import abstractmethod
from typing import Any

from mmengine.fileio import get_file_backend
from mmengine.logging import MMLogger
from mmpretrain.datasets import BaseDataset

from .lists import Item, check_images
from .tasks import SPLITS, TASKS


class BenchmarkTask(BaseDataset):
    """A task whose images and classes are known beforehand; subclasses read its lists.

    Args:
        key (str): Key of :data:`mmspt.datasets.tasks.TASKS`.
        data_root (str): The data set's folder.
        split (str): 'train', 'val', 'trainval' or 'test'.
        **kwargs: Arguments of :class:`mmpretrain.datasets.BaseDataset`.

    Raises:
        FileNotFoundError: A list or an image is missing.
        ValueError: Another split, a list that cannot be read or gives the split no image, a label out of range.
    """

    def __init__(self, key: str, data_root: str, split: str, **kwargs: Any) -> None:
        if split not in SPLITS:
            raise ValueError(f'split must be one of {", ".join(SPLITS)}, got {split!r}')
        self.task, self.split = TASKS[key], split
        self.backend = get_file_backend(data_root, enable_singleton=True)
        self.remedy = f'unpack {self.task.name} as docs/data.md says; tools/check_data.py {key} {data_root} tells more'
        super().__init__(ann_file='', data_root=data_root, test_mode=split in ('val', 'test'), **kwargs)

    @abstractmethod
    def read_split(self) -> list[Item]:
        """Read the split's images, paths below ``data_root``, and their labels."""

    def load_data_list(self) -> list[dict]:
        """Read the lists and make sure that each image exists."""
        items = self.read_split()
        if not items:
            raise ValueError(f"a split must have images, but the lists in '{self.data_root}' give '{self.split}' none: "
                             f'{self.remedy}')
        for path, label in items:
            if not 0 <= label < self.task.num_classes:
                raise ValueError(f'a label must lie in [0, {self.task.num_classes}), counted from 0, but that of '
                                 f"'{path}' is {label}: {self.remedy}")
        official, highest = self.METAINFO.get('classes'), max(label for _, label in items)
        if official and self._metainfo['classes'] == official and highest + 1 < len(official):
            del self._metainfo['classes']  # a part numbers its classes anew: these are not their names
        paths = [self.join(path) for path, _ in items]
        check_images(paths, self.remedy)
        if len(items) != self.task.sizes[self.split]:
            MMLogger.get_current_instance().warning(
                f"{self.task.name} has {self.task.sizes[self.split]:,} images in '{self.split}', here are "
                f'{len(items):,}: results do not compare with published ones')
        return [dict(img_path=path, gt_label=label) for path, (_, label) in zip(paths, items, strict=True)]

    def join(self, *parts: str) -> str:
        """Return the path of a file below ``data_root``."""
        return self.backend.join_path(self.data_root, *parts)

    def exists(self, path: str) -> bool:
        """Return whether a file exists."""
        return self.backend.isfile(path)

    def extra_repr(self) -> list[str]:
        """Add task, split and folder to MMEngine's description."""
        return [f'Task: \t{self.task.name}', f'Split: \t{self.split}', f'Root of dataset: \t{self.data_root}']
