"""Oxford 102 Flowers with the arguments of the other fine-grained data sets."""
from mmspt.registry import DATASETS

from .fine_grained import FineGrained
from .lists import Item
from .mat import whole_numbers


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
        labels = whole_numbers(self.join('imagelabels.mat'), self.remedy, 'labels')
        ids = whole_numbers(self.join('setid.mat'), self.remedy, name)
        wrong = next((i for i in ids if not 1 <= i <= len(labels)), None)
        if wrong is not None:
            raise ValueError(f"imagelabels.mat of '{self.data_root}' must have a label for each image of setid.mat, "
                             f'but has {len(labels)} and none for number {wrong} of {name}: {self.remedy}')
        return [(f'jpg/image_{i:05d}.jpg', labels[i - 1] - 1) for i in ids]
