"""Find things in a run's config."""
from collections.abc import Mapping
from typing import Any


def type_name(kind: Any) -> str:
    """Return the class name of a config's ``type``, which is text ('mmspt.PromptedViT'), a class or None."""
    if kind is None:
        return 'unknown'
    return kind.rpartition('.')[2] if isinstance(kind, str) else kind.__name__


def find_hook(cfg: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the config of the first hook of a class name, default or custom; empty if there is none."""
    hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])]
    return next((hook for hook in hooks if isinstance(hook, Mapping) and type_name(hook.get('type')) == name), {})
