"""Which data each run sees: trials train on train and validate on val, the last runs train on both and test once."""
import copy
import os.path as osp
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config, ConfigDict
from mmpretrain.registry import DATASETS

from mmspt.config import type_name
from mmspt.datasets.benchmark import BenchmarkTask
from mmspt.datasets.nested_configs import leaves

RULE = 'a search must choose on validation data and never see the test set'
TEST = re.compile(r'(?<![a-z])test(s|ing|set|list)?(?![a-z])', re.IGNORECASE)


def search_config(cfg: Config) -> Config:
    """Make the config of a trial: train on 'train', validate on 'val', no test set at all.

    The paper's tasks (:class:`mmspt.datasets.benchmark.BenchmarkTask`) are given the splits 'train' and 'val', whatever
    they train on otherwise (``indices`` count in 'train'); any other data set needs a ``val_dataloader`` of its own.

    Args:
        cfg (Config): A training config; not changed.

    Raises:
        ValueError: It does not train, there is no validation set, it is a test set by name, or ``indices`` of train or
            val are positions in another split.
    """
    missing = [field for field in ('train_dataloader', 'train_cfg', 'optim_wrapper') if not cfg.get(field)]
    if missing:
        raise ValueError(f'a search must have a config that trains, but {cfg.filename} has no {", ".join(missing)}: '
                         'add it, or take another config')
    cfg = copy.deepcopy(cfg)
    cfg.resume = False  # each trial starts anew
    for field in ('train_dataloader', 'val_dataloader'):
        for leaf in leaves((cfg.get(field) or {}).get('dataset') or {}):
            for name in (str(leaf.get(key)) for key in ('split', 'data_prefix', 'ann_file')):
                # folders above the data set's do not count
                if TEST.search(osp.basename(name) if osp.isabs(name) else name):
                    raise ValueError(f"{RULE}, but {field} of {cfg.filename} reads '{name}': put a validation split "
                                     'there')
    if _has_splits(cfg.train_dataloader.dataset):
        if cfg.get('val_dataloader') is None and cfg.get('test_dataloader') is not None:
            cfg.val_dataloader = copy.deepcopy(cfg.test_dataloader)
            cfg.val_dataloader.dataset.pop('indices', None)
            cfg.val_evaluator = copy.deepcopy(cfg.test_evaluator)
            cfg.val_cfg = dict()
        for split in ('train', 'val'):
            dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset')
            if dataset and _has_splits(dataset):
                own = dataset.get('split', 'train')
                if _is_part(dataset) and own != split:
                    raise ValueError(f"indices must count in '{split}' in a search, but {split}_dataloader of "
                                     f"{cfg.filename} has some of '{own}': set split='{split}' and choose them there")
                dataset.split = split
    if cfg.get('val_dataloader') is None:
        raise ValueError(f'{RULE}, but {cfg.filename} has no val_dataloader: give it one, on images that neither '
                         'train_dataloader nor test_dataloader has')
    cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = None
    if (cfg.get('default_hooks') or {}).get('checkpoint'):
        cfg.default_hooks.checkpoint.update(save_best=None, max_keep_ckpts=1)  # to resume from, nothing else
    # a trial that was killed before its last validation does it when it is resumed
    cfg.default_hooks = dict(cfg.get('default_hooks') or {}, resume=dict(type='mmspt.ResumeHook'))
    return cfg


def final_config(cfg: Config) -> Config:
    """Make the config of the last runs: train on train and val together, no validation, one test at the end.

    Args:
        cfg (Config): A training config; not changed.

    Raises:
        ValueError: There is no test set.
    """
    if cfg.get('test_dataloader') is None:
        raise ValueError(f'the best setting is tested at the end, but {cfg.filename} has no test_dataloader: give it '
                         'one, or set --seeds 0')
    search, cfg = search_config(cfg), copy.deepcopy(cfg)
    cfg.resume = False
    train, test = cfg.train_dataloader.dataset, cfg.test_dataloader.dataset
    if _has_splits(train) and _has_splits(test):
        test.split = 'test'
    if _has_splits(train) and not _is_part(train):
        train.split = 'trainval'
    else:
        cfg.train_dataloader.dataset = _join(search.train_dataloader.dataset, search.val_dataloader.dataset)
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    hooks = dict(cfg.get('default_hooks') or {})
    hooks['result'] = dict(hooks.get('result') or {}, type='mmspt.ResultHook', after_train=True)
    cfg.default_hooks = hooks
    return cfg


def _has_splits(dataset: Mapping[str, Any]) -> bool:
    """Return whether a data set has our splits train, val, trainval and test; MMPretrain's CUB, for one, has no val."""
    cls = DATASETS.get(dataset['type']) if isinstance(dataset.get('type'), str) else dataset.get('type')
    return isinstance(cls, type) and issubclass(cls, BenchmarkTask)


def _is_part(dataset: Mapping[str, Any]) -> bool:
    """Return whether a data set has some images of its split alone."""
    return dataset.get('indices') is not None


def _join(train: ConfigDict, val: ConfigDict) -> ConfigDict:
    """Concatenate two data sets, with the training's pipeline; RepeatDataset of the one goes around both."""
    if type_name(train.type) == 'RepeatDataset':
        return ConfigDict(train, dataset=_join(train.dataset, val))
    val, pipeline = copy.deepcopy(val), next(leaves(train)).get('pipeline')
    for leaf in leaves(val):
        leaf.pop('test_mode', None)
        leaf.pop('pipeline', None)
        if pipeline is not None:
            leaf['pipeline'] = copy.deepcopy(pipeline)
    return ConfigDict(type='ConcatDataset', datasets=[train, val])


def check_overlap(search: Config, final: Config | None) -> None:
    """Build the data sets of a search and of its last runs; no image file may be in two of train, val and test.

    Files are compared by their paths, links followed; ``tools/check_data.py`` compares pixels.

    Args:
        search (Config): Output of :func:`search_config`.
        final (Config | None): Output of :func:`final_config`; None if there is no test.

    Raises:
        ValueError: Two splits have a path in common.
    """
    loaders = dict(train=search.train_dataloader, val=search.val_dataloader)
    if final is not None:
        loaders |= dict(test=final.test_dataloader)
        DATASETS.build(copy.deepcopy(final.train_dataloader.dataset))  # what cannot be joined says so before all trials
    images = {name: set(_images(DATASETS.build(copy.deepcopy(loader.dataset)))) for name, loader in loaders.items()}
    for first, second in (('train', 'val'), ('train', 'test'), ('val', 'test')):
        common = sorted(images.get(first, set()) & images.get(second, set()))
        if common:
            raise ValueError(f"{RULE}, but {len(common):,} images are in {first} and in {second}, '{common[0]}' first: "
                             f'name other lists in {search.filename}')


def _images(dataset: Any) -> Iterator[str]:
    """Yield the files of a data set, links followed; images in memory have none."""
    for index in range(len(dataset)):
        path = dataset.get_data_info(index).get('img_path')
        if path is not None:
            yield path if '://' in path else osp.realpath(path)
