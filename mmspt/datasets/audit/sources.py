"""A task's folder or a config's data sets as :mod:`mmspt.datasets.audit.checks` needs them: the lists, as far as they
can be read."""
import copy
import os.path as osp
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS

from ..benchmark import BenchmarkTask
from ..class_names import check_folders, follow_names, names_of
from ..custom import EXTENSIONS, scan_folders
from ..fine_grained import VPT_LISTS, FineGrained
from ..lists import DataError, check_list
from ..nested_configs import leaves, parts, without_skipping
from ..tasks import TASKS, task_of
from .checks import Finding, Source, Split, digest_pixels

ROLES = ('train', 'val', 'test')
REPEATING = ('vtab_dsprites_loc', 'vtab_dsprites_ori')
"""Tasks whose published images repeat: dSprites' first and last orientation are one
(https://github.com/google-deepmind/dsprites-dataset/issues/7)."""
REMEDY = "correct data_root, data_prefix or the list, whose lines are '<path> <label>'"
TESTED = Finding('test', "the test set must not be the validation set too, as it is in many of MMPretrain's own "
                 'configs: the best epoch, or a setting, would be chosen on the test images',
                 'give val_dataloader images of its own, held out of the training images, or set val_dataloader, '
                 'val_cfg and val_evaluator to None')


def read_task(key: str, folder: str) -> Source:
    """Read the splits of one of :data:`TASKS` below ``folder``; what cannot be read becomes a finding."""
    task, folder = TASKS[key], osp.expanduser(folder)
    vpt = all(osp.isfile(osp.join(folder, name)) for name in VPT_LISTS)
    source = Source(f'{task.name} in {folder}' + (", VPT's lists" if vpt else ''), [], [],
                    f'unpack {task.name} as docs/data.md says', repeats=key in REPEATING)
    config: dict[str, Any] = dict(type=f'mmspt.{task.dataset}', data_root=folder, lazy_init=True)
    place = folder
    if key.startswith('vtab_'):
        config['task'] = key.removeprefix('vtab_')
        place = osp.join(folder, config['task'])
    if not osp.isdir(place):
        source.findings.append(Finding('all', f"the folder '{place}' does not exist", source.remedy))
        return source
    for split in ROLES:
        try:
            source.splits.append(_read_lists(DATASETS.build(dict(config, split=split)), split))
        except Exception as error:
            source.findings.append(_as_finding(split, error, source.remedy))
    return source


def _read_lists(dataset: BenchmarkTask, name: str, num_classes: int | None = None) -> Split:
    """Read the lists alone: a missing image is not the end.

    VTAB-1k's 1,000 images need not have all classes, nor need a held-out tenth. The published number of images is
    expected unless fewer classes are.
    """
    items = [(dataset.join(path), label) for path, label in dataset.read_split()]
    whole = dataset.split == 'test' or (isinstance(dataset, FineGrained) and dataset.split != 'val')
    num_classes = num_classes or dataset.task.num_classes
    size = None if num_classes < dataset.task.num_classes else dataset.task.sizes[dataset.split]
    return Split(name, items, num_classes, size, whole)


def read_loaders(cfg: Config) -> Source:
    """Read the data sets of a config's three data loaders; what cannot be read becomes a finding.

    They need ``get_data_info(index)`` with 'gt_label' and 'img_path' or 'img', as MMPretrain's have. Wrappers are built
    whole, so folds and subsets are what a run sees.
    """
    num_classes = (cfg.get('model', {}).get('head') or {}).get('num_classes')
    datasets = {role: (cfg.get(f'{role}_dataloader') or {}).get('dataset') for role in ROLES}
    configs = {role: _bare(config) for role, config in datasets.items() if config}
    tasks = {task_of(leaf) for config in configs.values() for leaf in leaves(config)}
    source = Source(str(cfg.filename), [], [], REMEDY, not tasks.isdisjoint(REPEATING), in_memory={})
    if not configs:
        source.findings.append(Finding('all', f"a config must name a data set, but '{cfg.filename}' does not",
                                       'set train_dataloader.dataset'))
    names: tuple[str, ...] = ()
    for role, config in configs.items():
        if role == 'test' and config == configs.get('val'):
            source.findings.append(TESTED)
            continue
        try:
            with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
                dataset = _build(config)
                found = _check_names(role, dataset, names)
                source.findings.extend(found)
                source.splits.append(_read_dataset(role, dataset, config, num_classes, source.in_memory))
                if role == 'train' and all(finding.note for finding in found):
                    names = source.splits[-1].classes
        except Exception as error:  # any data set class, any error
            source.findings.append(_as_finding(role, error, REMEDY))
    return source


def _bare(config: dict) -> dict:
    """Copy a config so that no image is read when it is built; two roles that differ in pipelines alone become equal.
    """
    config = copy.deepcopy(without_skipping(config))
    for leaf in leaves(config):
        leaf.update(pipeline=[], lazy_init=True)
    return config


def _build(config: dict) -> Any:
    for leaf in leaves(config):
        check_list(leaf)
    dataset = DATASETS.build(copy.deepcopy(config))
    if not _is_task(dataset, config):
        dataset.full_init()
    return dataset


def _is_task(dataset: Any, config: dict) -> bool:
    return isinstance(dataset, BenchmarkTask) and config.get('indices') is None


def _check_names(role: str, dataset: Any, names: tuple[str, ...]) -> list[Finding]:
    """Compare class folders and names as a training does, whose labels follow the training set's ``names``."""
    found = []
    for part in parts(dataset):
        if getattr(part, 'folder_to_idx', None):
            _, images, left_out = scan_folders(part.img_prefix, part.is_valid_file)
            known = scan_folders(part.img_prefix, lambda file: file.lower().endswith(EXTENSIONS))[1]
            missed = sum(map(len, known.values())) - sum(map(len, images.values()))
            if left_out:
                remedy = f"set type='mmspt.CustomDataset', which reads {missed:,} images more" if missed > 0 else ''
                found.append(Finding(role, f"left out of '{part.img_prefix}': {left_out}", remedy, note=not remedy))
    try:
        check_folders(dataset, role == 'train')
        differs = follow_names(dataset, names, role, 'train') if names else ''
    except DataError as error:
        return [*found, Finding(role, str(error))]
    return [*found, Finding(role, f'{role} {differs}, compared with train, whose names its labels follow',
                            note=True)] if differs else found


def _read_dataset(name: str, dataset: Any, config: dict, num_classes: int | None, in_memory: dict[str, str]) -> Split:
    if _is_task(dataset, config):
        return _read_lists(dataset, name, num_classes)
    items: list[tuple[str, Any]] = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        if 'gt_label' not in info or not ('img_path' in info or 'img' in info):
            raise ValueError("a data set must give 'gt_label' and 'img_path' or 'img' of each image, but "
                             f'{config["type"]} gives {", ".join(info)}')
        path = info.get('img_path', f'{name}[{index}]')
        if 'img_path' not in info:
            in_memory[path] = digest_pixels(info['img'])
        label = info['gt_label']
        items.append((path, int(label) if np.ndim(label) == 0 else tuple(sorted(map(int, label)))))
    return Split(name, list(dict.fromkeys(items)), num_classes, every_class=name == 'train', classes=names_of(dataset))


def _as_finding(split: str, error: Exception, remedy: str) -> Finding:
    if isinstance(error, DataError):
        return Finding(split, str(error))
    known = isinstance(error, OSError | ValueError) and str(error)
    return Finding(split, f'{error}' if known else f'{type(error).__name__}: {error}', remedy)
