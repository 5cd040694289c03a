"""Base class of the data sets of the paper's 24 tasks."""
from abc import abstractmethod
from typing import Any

from mmengine.fileio import get_file_backend
from mmengine.logging import MMLogger
from mmpretrain.datasets import BaseDataset

from .lists import Item, find_missing
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
        self.key, self.task, self.split = key, TASKS[key], split
        self.backend = get_file_backend(data_root, enable_singleton=True)
        super().__init__(ann_file='', data_root=data_root, test_mode=split in ('val', 'test'), **kwargs)

    @abstractmethod
    def read_split(self) -> list[Item]:
        """Read the split's images, paths below ``data_root``, and their labels."""

    def load_data_list(self) -> list[dict]:
        """Read the lists and make sure that each image exists."""
        try:
            items = self.read_split()
            paths = [self.join(path) for path, _ in items]
            self._check(items, paths)
        except (FileNotFoundError, ValueError) as error:
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
            raise kind(f'{error}: unpack {self.task.name} as docs/data.md says; tools/check_data.py {self.key} '
                       f'{self.data_root} tells more') from error
        official, highest = self.METAINFO.get('classes'), max(label for _, label in items)
        if official and self._metainfo['classes'] == official and highest + 1 < len(official):
            del self._metainfo['classes']  # a part numbers its classes anew: these are not their names
        return [dict(img_path=path, gt_label=label) for path, (_, label) in zip(paths, items, strict=True)]

    def _check(self, items: list[Item], paths: list[str]) -> None:
        if not items:
            raise ValueError(f"a split must have images, but the lists give '{self.split}' none")
        for path, label in items:
            if not 0 <= label < self.task.num_classes:
                raise ValueError(f'a label must lie in [0, {self.task.num_classes}), counted from 0, but that of '
                                 f"'{path}' is {label}")
        missing = find_missing(paths)
        if missing:
            raise FileNotFoundError(f'every listed image must exist, but {len(missing):,} of {len(paths):,} do not, '
                                    f"'{missing[0]}' first")
        if len(items) != self.task.sizes[self.split]:
            MMLogger.get_current_instance().warning(
                f"{self.task.name} has {self.task.sizes[self.split]:,} images in '{self.split}', here are "
                f'{len(items):,}: results do not compare with published ones')

    def join(self, *parts: str) -> str:
        """Return the path of a file below ``data_root``."""
        return self.backend.join_path(self.data_root, *parts)

    def exists(self, *parts: str) -> bool:
        """Return whether a file exists below ``data_root``."""
        return self.backend.isfile(self.join(*parts))

    def extra_repr(self) -> list[str]:
        """Add task, split and folder to MMEngine's description."""
        return [f'Task: \t{self.task.name}', f'Split: \t{self.split}', f'Root of dataset: \t{self.data_root}']
