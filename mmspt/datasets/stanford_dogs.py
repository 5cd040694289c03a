"""Stanford Dogs, which MMPretrain lacks."""
from mmspt.registry import DATASETS

from .fine_grained import FineGrained
from .lists import Item
from .mat import read_columns


@DATASETS.register_module()
class StanfordDogs(FineGrained):
    """Stanford Dogs (Khosla et al. 2011): 120 breeds; `Images/`, `train_list.mat`, `test_list.mat`.

    The archive `lists.tar` unpacks into the folder itself; a folder `lists/` is looked into as well.
    """
    KEY = 'dogs'
    VPT_FOLDERS = ('Images', '')

    def read_official(self, split: str) -> list[Item]:
        """One list; the names of the breeds, from the folders' names, go into ``metainfo`` if no label is left out."""
        file = f'{split}_list.mat'
        path = self.join('lists', file) if self.exists('lists', file) else self.join(file)
        rows = read_columns(path, 'file_list', 'labels')
        names = {label - 1: file.split('/')[0].partition('-')[2] for file, label in rows}
        if sorted(names) == list(range(len(names))):
            self._metainfo.setdefault('classes', tuple(names[label] for label in sorted(names)))
        return [(f'Images/{file}', label - 1) for file, label in rows]
