"""Oxford 102 Flowers with the arguments of the other fine-grained data sets."""
from mmspt.registry import DATASETS

from .fine_grained import FineGrained
from .lists import Item
from .mat import read_mat


@DATASETS.register_module()
class Flowers102(FineGrained):
    """Oxford 102 Flowers (Nilsback and Zisserman 2008), with its own validation split.

    `jpg/`, `imagelabels.mat` and `setid.mat`; arguments as :class:`FineGrained`'s.
    """
    KEY = 'flowers102'
    VPT_FOLDERS = ('', 'jpg')

    def read_official(self) -> dict[str, list[Item]]:
        """Image ids of each split from setid.mat, their classes from imagelabels.mat."""
        labels, = read_mat(self.join('imagelabels.mat'), self.remedy, 'labels')
        ids = read_mat(self.join('setid.mat'), self.remedy, 'trnid', 'valid', 'tstid')
        highest = max(int(i.max(initial=0)) for i in ids)
        if highest > len(labels):
            raise ValueError(f"imagelabels.mat of '{self.data_root}' must have a label for each image of setid.mat, up "
                             f'to {highest}, but has {len(labels)}: {self.remedy}')
        return {split: [(f'jpg/image_{i:05d}.jpg', int(labels[i - 1]) - 1) for i in split_ids]
                for split, split_ids in zip(('train', 'val', 'test'), ids, strict=True)}
