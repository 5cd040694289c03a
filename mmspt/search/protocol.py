"""Who may see which data: a search trains on train and looks at val, the last runs train on both and see test once."""
import copy
import re
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmpretrain.registry import DATASETS

from mmspt.datasets.tasks import task_of

RULE = 'a search must choose on validation data and never see the test set'


def search_config(cfg: Config) -> Config:
    """Make the config of a trial: train on 'train', validate on 'val', no test set at all.

    The paper's tasks (:mod:`mmspt.datasets.tasks`) are told by their ``split``; any other data set must come with its
    own ``val_dataloader``.

    Args:
        cfg (Config): A training config; is left as it is.

    Raises:
        ValueError: There is no validation set, or it is a test set by name.
    """
    cfg = copy.deepcopy(cfg)
    train = cfg.train_dataloader.dataset
    if task_of(train) is not None:
        if cfg.get('val_dataloader') is None:
            cfg.val_dataloader = copy.deepcopy(cfg.test_dataloader)
            cfg.val_evaluator = copy.deepcopy(cfg.test_evaluator)
            cfg.val_cfg = dict()
        cfg.train_dataloader.dataset.split = 'train'
        cfg.val_dataloader.dataset.split = 'val'
    if cfg.get('val_dataloader') is None:
        raise ValueError(f'{RULE}, but {cfg.filename} has no val_dataloader: give it one, on images that neither '
                         'train_dataloader nor test_dataloader has')
    for field in ('train_dataloader', 'val_dataloader'):
        name = next((text for text in _names(cfg[field].dataset) if _says_test(text)), None)
        if name is not None:
            raise ValueError(f"{RULE}, but {field} of {cfg.filename} reads '{name}': put a validation split there")
    cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = None
    return cfg


def final_config(cfg: Config) -> Config:
    """Make the config of the last runs: train on train and val together, no validation, one test at the end.

    Args:
        cfg (Config): A training config; is left as it is.

    Raises:
        ValueError: There is no test set.
    """
    if cfg.get('test_dataloader') is None:
        raise ValueError(f'the best setting is tested at the end, but {cfg.filename} has no test_dataloader: give it '
                         'one, or set --seeds 0')
    search, cfg = search_config(cfg), copy.deepcopy(cfg)
    train = cfg.train_dataloader.dataset
    if task_of(train) is not None:
        train.split, cfg.test_dataloader.dataset.split = 'trainval', 'test'
    else:
        val = copy.deepcopy(search.val_dataloader.dataset)
        val.pipeline = train.pipeline
        val.pop('test_mode', None)
        cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[train, val])
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    result = dict(cfg.default_hooks.get('result') or {})
    cfg.default_hooks.result = dict(result, type='mmspt.ResultHook', after_train=True)
    return cfg


def check_overlap(cfg: Config) -> None:
    """Build the data sets of a search and of its last runs; no image may be in two of train, val and test.

    Raises:
        ValueError: Two splits have images in common.
    """
    search = search_config(cfg)
    splits = dict(train=search.train_dataloader, val=search.val_dataloader, test=cfg.get('test_dataloader'))
    images = {name: set(_images(DATASETS.build(dict(loader.dataset, pipeline=[]))))
              for name, loader in splits.items() if loader is not None}
    for first, second in (('train', 'val'), ('train', 'test'), ('val', 'test')):
        common = sorted(images.get(first, set()) & images.get(second, set()))
        if common:
            raise ValueError(f"{RULE}, but {len(common):,} images are in {first} and in {second}, '{common[0]}' first: "
                             f'name other lists in {cfg.filename}')


def _images(dataset: Any) -> Iterator[str]:
    for index in range(len(dataset)):
        path = dataset.get_data_info(index).get('img_path')
        if path is not None:
            yield path


def _names(dataset: Any) -> Iterator[str]:
    """All that a data set config says about which part it reads; folders above the data set's own do not count."""
    for key in ('split', 'ann_file', 'data_prefix', 'subset'):
        value = dataset.get(key)
        yield from (str(v) for v in (value.values() if isinstance(value, dict) else [value]) if v)
    for inner in [dataset.get('dataset'), *(dataset.get('datasets') or [])]:
        if isinstance(inner, dict):
            yield from _names(inner)


def _says_test(text: str) -> bool:
    return re.search(r'(?<![a-z])test(ing)?(?![a-z])', text.lower()) is not None
