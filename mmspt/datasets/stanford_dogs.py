"""Stanford Dogs, which MMPretrain lacks."""
from mmspt.registry import DATASETS

from .fine_grained import FineGrained
from .lists import Item
from .mat import read_mat


@DATASETS.register_module()
class StanfordDogs(FineGrained):
    """Stanford Dogs (Khosla et al. 2011): 120 breeds; `Images/`, `train_list.mat`, `test_list.mat`.

    The archive `lists.tar` unpacks into the folder itself; a folder `lists/` is looked into as well.
    """
    KEY = 'dogs'
    VPT_FOLDERS = ('Images', '')

    def read_official(self) -> dict[str, list[Item]]:
        """Both lists; the names of the breeds, from the folders' names, go into ``metainfo``."""
        splits: dict[str, list[Item]] = {}
        names: dict[int, str] = {}
        for split in ('train', 'test'):
            path = self.join(f'{split}_list.mat')
            if not self.exists(path) and self.exists(self.join('lists', f'{split}_list.mat')):
                path = self.join('lists', f'{split}_list.mat')
            files, labels = read_mat(path, self.remedy, 'file_list', 'labels')
            splits[split] = [(f'Images/{file}', int(label) - 1) for file, label in zip(files, labels, strict=True)]
            names |= {label: path.split('/')[1].partition('-')[2] for path, label in splits[split]}
        self._metainfo['classes'] = tuple(names[label] for label in sorted(names))
        return splits
