"""CUB-200-2011 and NABirds, whose lists have one format."""
import re

from mmpretrain.datasets.categories import CUB_CATEGORIES

from mmspt.registry import DATASETS

from .fine_grained import FineGrained
from .lists import Item, is_label, read_pairs


class _Birds(FineGrained):
    VPT_FOLDERS = ('images', '')

    def read_official(self, split: str) -> list[Item]:
        """Read images.txt, image_class_labels.txt and train_test_split.txt, with lines of `<image id> <value>`."""
        images, classes, trains = (read_pairs(self.join(f'{name}.txt'), self.remedy)
                                   for name in ('images', 'image_class_labels', 'train_test_split'))
        for other, name in ((classes, 'image_class_labels'), (trains, 'train_test_split')):
            if images.keys() != other.keys():
                odd = sorted(images.keys() ^ other.keys())[0]
                raise ValueError(f"images.txt and {name}.txt of '{self.data_root}' must list the same images, but "
                                 f"'{odd}' is in one of them alone: {self.remedy}")
        labels = self.number_classes(classes)
        wrong = next((image for image, train in trains.items() if train not in ('0', '1')), None)
        if wrong is not None:
            raise ValueError(f"train_test_split.txt of '{self.data_root}' must say 0 or 1, but '{wrong}' has "
                             f"'{trains[wrong]}': {self.remedy}")
        return [(f'images/{path}', labels[classes[image]]) for image, path in images.items()
                if trains[image] == ('1' if split == 'train' else '0')]

    def number_classes(self, classes: dict[str, str]) -> dict[str, int]:
        """Map class ids to labels; ids count from 1."""
        if not all(is_label(i) and i[0] != '-' for i in classes.values()):
            raise ValueError("class ids must be whole numbers of at most 9 digits, but image_class_labels.txt of "
                             f"'{self.data_root}' has others: {self.remedy}")
        return {i: int(i) - 1 for i in classes.values()}


@DATASETS.register_module()
class CUB(_Birds):
    """CUB-200-2011: 200 species (Wah et al. 2011), the official archive; see :class:`FineGrained` for the arguments.

    Class names are read from the folder's classes.txt, since a part of the data set has other numbers; without that
    list they are the official 200. MMPretrain's class of the same name always has these, and only 'train' (all 5,994
    images) and 'test'.
    """
    KEY = 'cub'
    METAINFO = dict(classes=CUB_CATEGORIES)

    def number_classes(self, classes: dict[str, str]) -> dict[str, int]:
        """Map class ids to labels; put the names into ``metainfo``, without the number before them."""
        labels = super().number_classes(classes)
        if self._metainfo['classes'] == CUB_CATEGORIES and self.exists(self.join('classes.txt')):
            names = read_pairs(self.join('classes.txt'), self.remedy)
            ids = [str(label + 1) for label in range(min(max(labels.values()) + 1, self.task.num_classes))]
            self._metainfo['classes'] = tuple(re.sub(r'^\d+\.', '', names.get(i, i)) for i in ids)
        return labels


@DATASETS.register_module()
class NABirds(_Birds):
    """NABirds: 555 visual categories (Van Horn et al. 2015), the official archive; arguments as :class:`FineGrained`'s.

    Of the 1,011 classes in the official hierarchy 555 have images; labels number them in ascending order of their ids.
    """
    KEY = 'nabirds'

    def number_classes(self, classes: dict[str, str]) -> dict[str, int]:
        """Map class ids to their places among the ids that occur; put the names into ``metainfo``."""
        ids = sorted(super().number_classes(classes), key=int)
        names = read_pairs(self.join('classes.txt'), self.remedy)
        self._metainfo.setdefault('classes', tuple(names.get(i, i) for i in ids))
        return {i: label for label, i in enumerate(ids)}
