"""The 24 tasks of the paper: fine-grained classification (FGVC) and VTAB-1k.

Sizes and numbers of classes: VPT (https://arxiv.org/abs/2203.12119), table 8; VTAB (https://arxiv.org/abs/1910.04867).
"""
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmspt.config import type_name

SPLITS = ('train', 'val', 'trainval', 'test')
GROUPS = ('FGVC', 'Natural', 'Specialized', 'Structured')


class Task(NamedTuple):
    """Facts about a task that do not depend on its files."""
    name: str
    """Name in the papers' tables."""
    group: str
    """One of :data:`GROUPS`."""
    dataset: str
    """Registered name of its data set class."""
    num_classes: int
    sizes: dict[str, int]
    """Number of images of each of :data:`SPLITS`."""


def _task(name: str, group: str, dataset: str, num_classes: int, train: int, val: int, test: int) -> Task:
    return Task(name, group, dataset, num_classes, dict(train=train, val=val, trainval=train + val, test=test))


FGVC = {
    'cub': _task('CUB-200-2011', 'FGVC', 'CUB', 200, 5394, 600, 5794),
    'nabirds': _task('NABirds', 'FGVC', 'NABirds', 555, 21536, 2393, 24633),
    'flowers102': _task('Oxford Flowers', 'FGVC', 'Flowers102', 102, 1020, 1020, 6149),
    'dogs': _task('Stanford Dogs', 'FGVC', 'StanfordDogs', 120, 10800, 1200, 8580),
    'cars': _task('Stanford Cars', 'FGVC', 'StanfordCars', 196, 7329, 815, 8041),
}

VTAB = {folder: _task(name, group, 'VTAB1k', classes, 800, 200, test) for folder, name, group, classes, test in (
    ('cifar', 'CIFAR-100', 'Natural', 100, 10000),
    ('caltech101', 'Caltech101', 'Natural', 102, 6084),
    ('dtd', 'DTD', 'Natural', 47, 1880),
    ('oxford_flowers102', 'Flowers102', 'Natural', 102, 6149),
    ('oxford_iiit_pet', 'Pets', 'Natural', 37, 3669),
    ('svhn', 'SVHN', 'Natural', 10, 26032),
    ('sun397', 'SUN397', 'Natural', 397, 21750),
    ('patch_camelyon', 'Patch Camelyon', 'Specialized', 2, 32768),
    ('eurosat', 'EuroSAT', 'Specialized', 10, 5400),
    ('resisc45', 'Resisc45', 'Specialized', 45, 6300),
    ('diabetic_retinopathy', 'Retinopathy', 'Specialized', 5, 42670),
    ('clevr_count', 'Clevr-Count', 'Structured', 8, 15000),
    ('clevr_dist', 'Clevr-Dist', 'Structured', 6, 15000),
    ('dmlab', 'DMLab', 'Structured', 6, 22735),
    ('kitti', 'KITTI-Dist', 'Structured', 4, 711),
    ('dsprites_loc', 'dSprites-Loc', 'Structured', 16, 73728),
    ('dsprites_ori', 'dSprites-Ori', 'Structured', 16, 73728),
    ('smallnorb_azi', 'SmallNORB-Azi', 'Structured', 18, 12150),
    ('smallnorb_ele', 'SmallNORB-Ele', 'Structured', 9, 12150),
)}

TASKS = FGVC | {f'vtab_{folder}': task for folder, task in VTAB.items()}


def task_of(dataset: Mapping[str, Any]) -> str | None:
    """Return the key in :data:`TASKS` of a data set config; None for every other data set."""
    kind = type_name(dataset.get('type'))
    if kind == 'VTAB1k':
        return f"vtab_{dataset['task']}" if dataset.get('task') in VTAB else None
    return next((key for key, task in FGVC.items() if task.dataset == kind), None)
