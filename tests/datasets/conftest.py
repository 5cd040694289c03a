"""The 24 data sets in their layouts, built once, and their images' classes as their colours tell."""
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from layouts import make_task
from mmspt.datasets.tasks import TASKS
from mmspt.registry import DATASETS


@pytest.fixture(scope='session')
def benchmarks(tmp_path_factory):
    """Folder of each of the 24 tasks; to be read, not written."""
    data = tmp_path_factory.mktemp('benchmarks')
    return {key: make_task(key, data) for key in TASKS}


def build(key, root, split='train', **kwargs):
    """Build a task's data set by its registered name, as a config does."""
    if key.startswith('vtab_'):
        kwargs['task'] = key.removeprefix('vtab_')
    kind = dict(cub='CUB', nabirds='NABirds', flowers102='Flowers102', dogs='StanfordDogs',
                cars='StanfordCars').get(key, 'VTAB1k')
    return DATASETS.build(dict(type=f'mmspt.{kind}', data_root=str(root), split=split, **kwargs))


def items(dataset):
    """(path, label) of each item."""
    return [(info['img_path'], info['gt_label']) for info in map(dataset.get_data_info, range(len(dataset)))]


def colour(path):
    """The class that an image of tests/layouts.py shows."""
    with Image.open(path) as image:
        return int(np.asarray(image).mean(axis=(0, 1)).argmax())


@pytest.fixture
def tasks():
    """The functions above."""
    return SimpleNamespace(build=build, items=items, colour=colour)
