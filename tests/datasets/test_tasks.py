"""The table of tasks against one typed from the papers' tables."""
import pytest

import mmspt.datasets as datasets
from mmspt.datasets.tasks import SPLITS, TASKS, task_of

# classes and images of train, val and test: VPT, table 8
FGVC = dict(
    cub=(200, 5394, 600, 5794), nabirds=(555, 21536, 2393, 24633), flowers102=(102, 1020, 1020, 6149),
    dogs=(120, 10800, 1200, 8580), cars=(196, 7329, 815, 8041))
# classes and test images: VTAB-1k, 800 + 200 images to train on
VTAB = dict(
    cifar=(100, 10000), caltech101=(102, 6084), dtd=(47, 1880), oxford_flowers102=(102, 6149),
    oxford_iiit_pet=(37, 3669), svhn=(10, 26032), sun397=(397, 21750), patch_camelyon=(2, 32768), eurosat=(10, 5400),
    resisc45=(45, 6300), diabetic_retinopathy=(5, 42670), clevr_count=(8, 15000), clevr_dist=(6, 15000),
    dmlab=(6, 22735), kitti=(4, 711), dsprites_loc=(16, 73728), dsprites_ori=(16, 73728), smallnorb_azi=(18, 12150),
    smallnorb_ele=(9, 12150))


def test_sizes_of_the_24_tasks():
    expected = FGVC | {f'vtab_{name}': (classes, 800, 200, test) for name, (classes, test) in VTAB.items()}
    assert list(TASKS) == list(expected)
    for key, (classes, train, val, test) in expected.items():
        assert TASKS[key].num_classes == classes, key
        assert [TASKS[key].sizes[split] for split in SPLITS] == [train, val, train + val, test], key
    groups = [task.group for task in TASKS.values()]
    assert {group: groups.count(group) for group in groups} == dict(FGVC=5, Natural=7, Specialized=4, Structured=8)


@pytest.mark.parametrize('key', ['cub', 'vtab_svhn'])
def test_task_of_a_config(key):
    kind = TASKS[key].dataset
    options = dict(task=key.removeprefix('vtab_')) if key.startswith('vtab_') else {}
    assert task_of(dict(type=f'mmspt.{kind}', **options)) == key
    assert task_of(dict(type=getattr(datasets, kind), **options)) == key


@pytest.mark.parametrize('dataset', [dict(type='CustomDataset'), dict(type='mmspt.VTAB1k', task='other'), dict()])
def test_no_task(dataset):
    assert task_of(dataset) is None
