"""Stanford Cars with the arguments of the other fine-grained data sets."""
from mmpretrain.datasets.categories import STANFORDCARS_CATEGORIES

from mmspt.registry import DATASETS

from .fine_grained import FineGrained
from .lists import Item
from .mat import read_columns


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

    def read_official(self, split: str) -> list[Item]:
        """Read whichever layout is there."""
        if self.exists('cars_annos.mat'):
            rows = read_columns(self.join('cars_annos.mat'), 'annotations.relative_im_path', 'annotations.class',
                                'annotations.test')
            return [(path, label - 1) for path, label, test in rows if test == (split == 'test')]
        file = dict(train='cars_train_annos.mat', test='cars_test_annos_withlabels.mat')[split]
        # the labels of the test set are published apart from the devkit
        path = self.join(file) if self.exists(file) else self.join('devkit', file)
        rows = read_columns(path, 'annotations.fname', 'annotations.class')
        return [(f'cars_{split}/{name}', label - 1) for name, label in rows]
