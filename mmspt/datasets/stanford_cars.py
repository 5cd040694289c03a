"""Stanford Cars with the arguments of the other fine-grained data sets."""
from mmpretrain.datasets.categories import STANFORDCARS_CATEGORIES

from mmspt.registry import DATASETS

from .fine_grained import FineGrained
from .lists import Item
from .mat import read_mat


@DATASETS.register_module()
class StanfordCars(FineGrained):
    """Stanford Cars (Krause et al. 2013): 196 models, in either official layout.

    `cars_annos.mat` with `car_ims/`, or `cars_train/`, `cars_test/` and `devkit/` with `cars_train_annos.mat` and
    `cars_test_annos_withlabels.mat`. The two number the images differently, so 'train' and 'val' hold other images in
    one than in the other.
    """
    KEY = 'cars'
    METAINFO = dict(classes=STANFORDCARS_CATEGORIES)
    VPT_FOLDERS = ('', 'car_ims')

    def read_official(self) -> dict[str, list[Item]]:
        """Read whichever layout is there."""
        if self.exists(self.join('cars_annos.mat')):
            paths, labels, tests = read_mat(self.join('cars_annos.mat'), self.remedy, *(
                f'annotations.{name}' for name in ('relative_im_path', 'class', 'test')))
            return {split: [(str(p), int(c) - 1) for p, c, t in zip(paths, labels, tests, strict=True) if t == wanted]
                    for split, wanted in (('train', 0), ('test', 1))}
        splits = {}
        for split, file in (('train', 'cars_train_annos.mat'), ('test', 'cars_test_annos_withlabels.mat')):
            path = self.join(file)  # where the labels of the test set are published, and where people put them
            path = path if self.exists(path) else self.join('devkit', file)
            names, labels = read_mat(path, self.remedy, 'annotations.fname', 'annotations.class')
            splits[split] = [(f'cars_{split}/{name}', int(c) - 1) for name, c in zip(names, labels, strict=True)]
        return splits
