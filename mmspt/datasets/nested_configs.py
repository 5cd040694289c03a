"""Data sets within others, as configs and built."""
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmspt.config import type_name


def leaves(dataset: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the configs that read data, within RepeatDataset, ConcatDataset and other wrappers, however deep."""
    inner = [dataset.get('dataset'), *(dataset.get('datasets') or [])]
    inner = [config for config in inner if isinstance(config, Mapping)]
    for config in inner:
        yield from leaves(config)
    if not inner:
        yield dataset


def parts(dataset: Any) -> Iterator[Any]:
    """Yield a built data set after those that it wraps, however deep."""
    for part in (getattr(dataset, 'dataset', None), *getattr(dataset, 'datasets', ())):
        if part is not None:
            yield from parts(part)
    yield dataset


def with_skipping(dataset: dict) -> dict:
    """Return the config with ``mmspt.SkipBadImages`` around each of its :func:`leaves` that has none."""
    if _skips(dataset):
        return dataset
    if next(leaves(dataset)) is dataset:
        return type(dataset)(type='mmspt.SkipBadImages', dataset=dataset)
    return _change_inner(dataset, with_skipping)


def without_skipping(dataset: dict) -> dict:
    """Return the config without ``mmspt.SkipBadImages``."""
    return without_skipping(dataset['dataset']) if _skips(dataset) else _change_inner(dataset, without_skipping)


def skip_bad_images(cfg: Any) -> None:
    """Apply :func:`with_skipping` to each data loader of a run's config, in place, if it sets ``skip_bad_images``."""
    if not cfg.get('skip_bad_images'):
        return
    for field in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(field)
        if loader and isinstance(loader.get('dataset'), dict):
            loader['dataset'] = with_skipping(loader['dataset'])


def _skips(dataset: dict) -> bool:
    return type_name(dataset.get('type')) == 'SkipBadImages'


def _change_inner(dataset: dict, change: Callable[[dict], dict]) -> dict:
    changed: dict[str, Any] = {}
    if isinstance(dataset.get('dataset'), dict):
        changed['dataset'] = change(dataset['dataset'])
    if dataset.get('datasets'):
        changed['datasets'] = [change(inner) if isinstance(inner, dict) else inner for inner in dataset['datasets']]
    return type(dataset)(dataset, **changed) if changed else dataset
