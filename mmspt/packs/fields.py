"""Names and types of the fields of a pack's card, which may come from anywhere."""
import reprlib
from collections.abc import Mapping
from types import UnionType
from typing import Any, get_args, get_origin


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that fp64 can hold."""
    return type(value) in (int, float) and abs(value) <= 1e300


def shown(value: Any) -> str:
    """Write a value in at most 100 characters."""
    return reprlib.repr(value)[:100]


def plain(text: str) -> str:
    """Escape what a terminal would take for a command; lines stay."""
    return ''.join(c if c.isprintable() or c == '\n' else ascii(c)[1:-1] for c in text)


def has_type(value: Any, kind: Any) -> bool:
    """Whether a value is of a field's type; floats are finite numbers, and True is no number."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return any(has_type(value, part) for part in parts)
    if origin is tuple:
        parts = parts[:1] * len(value) if isinstance(value, tuple) and parts[-1] is Ellipsis else parts
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(has_type, value, parts))
    if origin is Mapping:
        return isinstance(value, dict) and all(has_type(part, parts[1]) for part in value.values())
    return is_number(value) if kind is float else type(value) is kind


def check_fields(content: Any, types: Mapping[str, Any], what: str, remedy: str) -> dict[str, Any]:
    """Return a JSON object's fields, lists as tuples.

    Args:
        content: The object.
        types: Name -> type of every field.
        what, remedy: For the error.

    Raises:
        ValueError: A field is missing, unknown or of another type.
    """
    if not isinstance(content, dict):
        raise ValueError(f'{what} must be an object, got {shown(content)}: {remedy}')
    for wrong, names in (('must have', set(types) - set(content)), ('knows no', set(content) - set(types))):
        if names:
            raise ValueError(f'{what} {wrong} {shown(", ".join(sorted(map(str, names))))}: {remedy}')
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
    for name, kind in types.items():
        if not has_type(fields[name], kind):
            expected = kind.__name__ if type(kind) is type else kind
            raise ValueError(f"{what}'s {name} must be {expected}, got {shown(content[name])}: {remedy}")
    return fields
