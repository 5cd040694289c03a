"""Oxford 102 Flowers with the arguments of the other fine-grained data sets."""
from mmspt.registry import DATASETS

from .fine_grained import FineGrained
from .lists import Item
from .mat import read_columns


@DATASETS.register_module()
class Flowers102(FineGrained):
    """Oxford 102 Flowers (Nilsback and Zisserman 2008), with its own validation split.

    `jpg/`, `imagelabels.mat` and `setid.mat`; arguments as :class:`FineGrained`'s.
    """
    KEY = 'flowers102'
    OWN_VAL = True
    VPT_FOLDERS = ('', 'jpg')

    def read_official(self, split: str) -> list[Item]:
        """Image ids of the split from setid.mat, their classes from imagelabels.mat."""
        name = dict(train='trnid', val='valid', test='tstid')[split]
        labels = dict(enumerate(read_columns(self.join('imagelabels.mat'), 'labels'), 1))
        ids = read_columns(self.join('setid.mat'), name)
        return [(f'jpg/image_{i:05d}.jpg', labels[i][0] - 1) for i, in ids]
