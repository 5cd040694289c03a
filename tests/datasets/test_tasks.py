"""The table of tasks against one typed from the papers' tables."""
import pytest

import mmspt.datasets as datasets
from mmspt.datasets.tasks import SPLITS, TASKS, task_of

# name, classes, train, val, test: VPT, table 8
FGVC = dict(
    cub=('CUB-200-2011', 200, 5394, 600, 5794),
    nabirds=('NABirds', 555, 21536, 2393, 24633),
    flowers102=('Oxford Flowers', 102, 1020, 1020, 6149),
    dogs=('Stanford Dogs', 120, 10800, 1200, 8580),
    cars=('Stanford Cars', 196, 7329, 815, 8041))
# classes, test: VTAB-1k, 800 + 200 images to train on
VTAB = dict(
    cifar=(100, 10000), caltech101=(102, 6084), dtd=(47, 1880), oxford_flowers102=(102, 6149),
    oxford_iiit_pet=(37, 3669), svhn=(10, 26032), sun397=(397, 21750), patch_camelyon=(2, 32768), eurosat=(10, 5400),
    resisc45=(45, 6300), diabetic_retinopathy=(5, 42670), clevr_count=(8, 15000), clevr_dist=(6, 15000),
    dmlab=(6, 22735), kitti=(4, 711), dsprites_loc=(16, 73728), dsprites_ori=(16, 73728), smallnorb_azi=(18, 12150),
    smallnorb_ele=(9, 12150))
GROUPS = dict(Natural=7, Specialized=4, Structured=8)


def test_24_tasks_in_the_order_of_the_papers():
    assert list(TASKS) == [*FGVC, *(f'vtab_{folder}' for folder in VTAB)] and len(TASKS) == 24


@pytest.mark.parametrize('key', FGVC)
def test_fine_grained(key):
    name, classes, train, val, test = FGVC[key]
    task = TASKS[key]
    assert (task.name, task.group, task.num_classes) == (name, 'FGVC', classes)
    assert [task.sizes[split] for split in SPLITS] == [train, val, train + val, test]


@pytest.mark.parametrize('folder', VTAB)
def test_vtab(folder):
    task = TASKS[f'vtab_{folder}']
    assert task.num_classes == VTAB[folder][0]
    assert [task.sizes[split] for split in SPLITS] == [800, 200, 1000, VTAB[folder][1]]


def test_groups():
    groups = [task.group for task in TASKS.values()]
    assert {group: groups.count(group) for group in GROUPS} == GROUPS


@pytest.mark.parametrize('key', TASKS)
def test_task_of_a_config(key):
    kind = TASKS[key].dataset
    options = dict(task=key.removeprefix('vtab_')) if key.startswith('vtab_') else {}
    assert task_of(dict(type=f'mmspt.{kind}', **options)) == key
    assert task_of(dict(type=getattr(datasets, kind), **options)) == key


@pytest.mark.parametrize('dataset', [dict(type='CustomDataset'), dict(type='mmspt.VTAB1k', task='other'), dict(),
                                     dict(type='mmspt.VTAB1k')])
def test_no_task(dataset):
    assert task_of(dataset) is None
