"""Read a run's config, of any dialect, and find things in it."""
import inspect
import re
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.utils import get_object_from_string

from .quiet import without_warning

ENDINGS = ('.py', '.yaml', '.yml', '.json')
"""Of the files that MMEngine reads as configs."""
EXPONENT = re.compile(r'[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+')
"""A number that YAML's readers take for text unless it has a point and a sign (1.0e-3)."""
NO_NEWS = 'pkg_resources is deprecated'
"""What setuptools warns of whenever MMEngine looks for a package, as it does for ``_base_ = 'mmspt::...'``."""
HOSTS = ('mmcv', 'mmengine', 'mmpretrain', 'mmspt', 'torch')
"""Packages whose registered names every process knows; other classes keep their import path."""


def read_config(path: str) -> Config:
    """Read a config that names its classes, or imports them (MMEngine's pure-Python configs), or a dumped one.

    Returns:
        Config: Each class is the text under which it is registered ('AdamW', 'mmspt.PromptedViT'); in YAML `1e-3` is a
        number.
    """
    with without_warning(NO_NEWS):
        cfg = Config.fromfile(path)
    content = name_classes(cfg)
    content = _with_exponents(content) if path.endswith(('.yaml', '.yml')) else content
    if not hasattr(cfg, '_imported_names') and content == cfg.to_dict():
        return cfg
    return Config(content, filename=cfg.filename)


def name_classes(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config as nested dicts in which each class, or import path of one, is its registered name."""
    names: dict[Any, str] = {}

    def name(kind: Any) -> Any:
        found = get_object_from_string(kind) if isinstance(kind, str) else kind
        if found is None or inspect.ismodule(found):
            return kind
        if not names:
            names.update(_registered_names(cfg.get('default_scope')))
        path = f'{found.__module__}.{found.__qualname__}'
        return names.get(found, path) if path.partition('.')[0] in HOSTS else kind if isinstance(kind, str) else path

    def plain(value: Any, key: Any = None) -> Any:
        if isinstance(value, Mapping):
            return {inner: plain(part, inner) for inner, part in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(plain(part) for part in value)
        if isinstance(value, torch.dtype):
            return str(value).removeprefix('torch.')
        is_path = isinstance(value, str) and key in ('type', 'constructor') and value.count('.') > 1
        return name(value) if is_path or inspect.isclass(value) or inspect.isfunction(value) else value

    imported = getattr(cfg, '_imported_names', ())
    return {key: plain(value, key) for key, value in cfg.items() if key not in imported}


def _with_exponents(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_exponents(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_exponents(part) for part in value]
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


def _registered_names(default_scope: str | None) -> dict[Any, str]:
    """Class or function -> its name where MMEngine builds in a default scope, with another scope's as a prefix."""
    from mmspt import registry  # which imports the host's, and below all models and data sets
    names: dict[Any, str] = {}
    for own in vars(registry).values():
        chain = [own] if isinstance(own, Registry) else []
        while chain and chain[-1].parent is not None:
            chain.append(chain[-1].parent)
        for place in chain:
            place.import_from_location()
        scopes = [place.scope for place in chain]
        seen = chain[scopes.index(default_scope):] if default_scope in scopes else chain[-1:]
        for place in chain:
            for name, found in place.module_dict.items():
                first = next((inner.module_dict[name] for inner in seen if name in inner.module_dict), None)
                if found not in names or name == found.__name__:
                    names[found] = name if first is found else f'{place.scope}.{name}'
    return names


def type_name(kind: Any) -> str:
    """Return the class name of a config's ``type``, which is text ('mmspt.PromptedViT'), a class or None."""
    if kind is None:
        return 'unknown'
    return kind.rpartition('.')[2] if isinstance(kind, str) else kind.__name__


def find_hook(cfg: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the config of the first hook of a class name, default or custom; empty if there is none."""
    hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])]
    return next((hook for hook in hooks if isinstance(hook, Mapping) and type_name(hook.get('type')) == name), {})
