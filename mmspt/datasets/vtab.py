"""VTAB-1k in the list layout that is widely shared."""
from difflib import get_close_matches
from typing import Any

from mmspt.registry import DATASETS

from .benchmark import BenchmarkTask
from .lists import Item, read_items
from .tasks import VTAB

LISTS = dict(train='train800.txt', val='val200.txt', trainval='train800val200.txt', test='test.txt')


@DATASETS.register_module()
class VTAB1k(BenchmarkTask):
    """One of the 19 tasks of VTAB-1k (https://arxiv.org/abs/1910.04867): 800 + 200 images to train on, a full test set.

    Reads `<data_root>/<task>/{train800,val200,train800val200,test}.txt` with a line `<image path> <label>` for each
    image, paths below `<data_root>/<task>/`. Needs no TensorFlow.

    Args:
        data_root (str): The folder of all tasks.
        task (str): Name of the task, that is, of its folder.
        split (str): 'train' (800), 'val' (200), 'trainval' (1,000) or 'test'. Defaults to 'train'.
        **kwargs: Arguments of :class:`mmpretrain.datasets.BaseDataset`.
    """

    def __init__(self, data_root: str, task: str, split: str = 'train', **kwargs: Any) -> None:
        if task not in VTAB:
            guess = get_close_matches(str(task), VTAB, n=1)
            raise ValueError(f'task must be one of the 19 of VTAB-1k ({", ".join(VTAB)}), got {task!r}'
                             + (f": did you mean '{guess[0]}'?" if guess else ''))
        self.folder = task
        super().__init__(f'vtab_{task}', data_root, split, **kwargs)

    def read_split(self) -> list[Item]:
        """Read the split's list; without `train800val200.txt` the two that make it up."""
        names = [LISTS[self.split]]
        if self.split == 'trainval' and not self.exists(self.folder, names[0]):
            names = [LISTS['train'], LISTS['val']]
        items = [item for name in names for item in read_items(self.join(self.folder, name))]
        return [(f'{self.folder}/{path}', label) for path, label in items]
