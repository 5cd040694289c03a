"""Base class of the five fine-grained data sets (FGVC): splits, and VPT's own lists."""
import os.path as osp
from abc import abstractmethod
from typing import Any

from .benchmark import BenchmarkTask
from .hold_out import hold_out
from .lists import Item, read_json

VPT_LISTS = ('train.json', 'val.json', 'test.json')


class FineGrained(BenchmarkTask):
    """A fine-grained data set in its official folder, with four splits.

    'train' and 'val' make up 'trainval', the official training images. Where the data set has no validation split,
    10 % are held out by the images' names (:func:`mmspt.datasets.hold_out.hold_out`). VPT's own lists
    (`train.json`, `val.json`, `test.json`: {image: class}, https://github.com/KMnP/vpt at 7f3942e) are read instead
    where all three lie in ``data_root``.

    Args:
        data_root (str): The data set's folder.
        split (str): 'train', 'val', 'trainval' or 'test'. Defaults to 'train'.
        lists (str): 'official', 'vpt', or 'auto': VPT's if they are there. Defaults to 'auto'.
        **kwargs: Arguments of :class:`mmpretrain.datasets.BaseDataset`.
    """
    KEY = ''
    """Key of :data:`mmspt.datasets.tasks.TASKS`."""
    OWN_VAL = False
    """Whether the official lists have a validation split."""
    VPT_FOLDERS: tuple[str, ...] = ('', )
    """Folders that the paths in VPT's lists may start from."""

    def __init__(self, data_root: str, split: str = 'train', lists: str = 'auto', **kwargs: Any) -> None:
        if lists not in ('auto', 'official', 'vpt'):
            raise ValueError(f"lists must be 'auto', 'official' or 'vpt', got {lists!r}")
        self.lists = lists
        super().__init__(self.KEY, data_root, split, **kwargs)

    @abstractmethod
    def read_official(self, split: str) -> list[Item]:
        """Read 'train' or 'test', and where ``OWN_VAL`` 'val', from the official lists; paths below ``data_root``."""

    def read_split(self) -> list[Item]:
        """Read the split's lists; hold out a validation split where there is none."""
        vpt = self.reads_vpt()
        read, own_val = (self.read_vpt, True) if vpt else (self.read_official, self.OWN_VAL)
        if self.split == 'test' or (own_val and self.split != 'trainval'):
            return read(self.split)
        items = read('train')
        if self.split == 'trainval':
            return items + read('val') if own_val else items
        held_out = hold_out([path for path, _ in items], [label for _, label in items])
        return [item for item, held in zip(items, held_out, strict=True) if held == (self.split == 'val')]

    def reads_vpt(self) -> bool:
        """Return whether VPT's lists are read; raise FileNotFoundError if only some of them are there."""
        there = [name for name in VPT_LISTS if self.exists(name)]
        if self.lists == 'vpt' or (self.lists == 'auto' and len(there) == len(VPT_LISTS)):
            return True
        if there and self.lists == 'auto':
            missing = ', '.join(name for name in VPT_LISTS if name not in there)
            raise FileNotFoundError(f"VPT's lists must be there together, but '{self.data_root}' has "
                                    f"{', '.join(there)} without {missing}: add it, or set lists='official'")
        return False

    def read_vpt(self, split: str) -> list[Item]:
        """Read 'train', 'val' or 'test' from VPT's lists.

        The classes of train.json are numbered in ascending order for all lists. VPT numbers each list by its own
        classes, so a list that lacks one shifts the labels after it.
        """
        train = read_json(self.join('train.json'))
        content = train if split == 'train' else read_json(self.join(f'{split}.json'))
        if {type(i) for i in train.values()} not in ({int}, {str}):
            raise ValueError('classes must be all whole numbers or all names, but train.json has others')
        labels = {key: label for label, key in enumerate(sorted(set(train.values())))}
        for path, key in content.items():
            if key not in labels:
                raise ValueError(f"a class must occur in train.json, but '{path}' in {split}.json has {key!r}")
        folder = next((f for f in self.VPT_FOLDERS if any(self.exists(f, path) for path in content)),
                      self.VPT_FOLDERS[0])
        return [(osp.join(folder, path), labels[key]) for path, key in content.items()]
