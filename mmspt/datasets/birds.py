"""CUB-200-2011 and NABirds, whose lists have one format."""
import re
from abc import abstractmethod

from mmpretrain.datasets.categories import CUB_CATEGORIES

from mmspt.registry import DATASETS

from .fine_grained import FineGrained
from .lists import Item, read_rows


class _Birds(FineGrained):
    VPT_FOLDERS = ('images', '')

    def read_official(self, split: str) -> list[Item]:
        """Read images.txt, image_class_labels.txt and train_test_split.txt, with lines of `<image id> <value>`."""
        names = ('images', 'image_class_labels', 'train_test_split')
        images, classes, trains = (dict(read_rows(self.join(f'{name}.txt'))) for name in names)
        for name, other in zip(names[1:], (classes, trains), strict=True):
            odd = sorted(images.keys() ^ other.keys())
            if odd:
                raise ValueError(f"images.txt and {name}.txt must list the same images, but '{odd[0]}' is in one of "
                                 'them alone')
        labels = self.number_classes(set(classes.values()))
        return [(f'images/{path}', labels[classes[image]]) for image, path in images.items()
                if (trains[image] == '1') == (split == 'train')]

    @abstractmethod
    def number_classes(self, ids: set[str]) -> dict[str, int]:
        """Map class ids to labels; put the classes' names into ``metainfo``."""


@DATASETS.register_module()
class CUB(_Birds):
    """CUB-200-2011: 200 species (Wah et al. 2011), the official archive; see :class:`FineGrained` for the arguments.

    Class names are read from the folder's classes.txt, since a part of the data set has other numbers; without that
    list they are the official 200. MMPretrain's class of the same name always has these, and only 'train' (all 5,994
    images) and 'test'.
    """
    KEY = 'cub'
    METAINFO = dict(classes=CUB_CATEGORIES)

    def number_classes(self, ids: set[str]) -> dict[str, int]:
        """Class ids count from 1; the names come without the number before them."""
        if self._metainfo['classes'] == CUB_CATEGORIES and self.exists('classes.txt'):
            names = dict(read_rows(self.join('classes.txt')))
            known = range(1, min(max(map(int, ids)), self.task.num_classes) + 1)
            self._metainfo['classes'] = tuple(re.sub(r'^\d+\.', '', names.get(str(i), str(i))) for i in known)
        return {i: int(i) - 1 for i in ids}


@DATASETS.register_module()
class NABirds(_Birds):
    """NABirds: 555 visual categories (Van Horn et al. 2015), the official archive; arguments as :class:`FineGrained`'s.

    Of the 1,011 classes in the official hierarchy 555 have images; labels number them in ascending order of their ids.
    """
    KEY = 'nabirds'

    def number_classes(self, ids: set[str]) -> dict[str, int]:
        """Map class ids to their places among the ids that occur."""
        names = dict(read_rows(self.join('classes.txt')))
        ordered = sorted(ids, key=int)
        self._metainfo.setdefault('classes', tuple(names.get(i, i) for i in ordered))
        return {i: label for label, i in enumerate(ordered)}
