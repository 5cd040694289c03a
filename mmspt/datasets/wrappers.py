"""Data set configs within others."""
from collections.abc import Iterator, Mapping
from typing import Any


def leaves(dataset: Mapping[str, Any]) -> Iterator[Any]:
    """The configs that read data, within RepeatDataset, ConcatDataset and other wrappers, however deep."""
    inner = [dataset.get('dataset'), *(dataset.get('datasets') or [])]
    inner = [config for config in inner if isinstance(config, Mapping)]
    for config in inner:
        yield from leaves(config)
    if not inner:
        yield dataset
