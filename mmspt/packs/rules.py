"""Rules for the fields of a file."""
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """What a value must be, in words and as a test."""
    text: str
    holds: Callable[[Any], bool]


def whole(least: int, most: int) -> Rule:
    """Whole numbers."""
    return Rule(f'a whole number from {least:,} to {most:,}',
                lambda value: type(value) is int and least <= value <= most)


def one_of(*choices: str) -> Rule:
    """One of several words."""
    return Rule(f'one of {", ".join(choices)}', lambda value: isinstance(value, str) and value in choices)


BOOL = Rule('true or false', lambda value: type(value) is bool)
TEXT = Rule('text', lambda value: isinstance(value, str))
NAME = Rule('text of at least one character', lambda value: isinstance(value, str) and value != '')


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that fp64 can hold."""
    return type(value) in (int, float) and abs(value) <= 1e300


def shown(value: Any) -> str:
    """Write a value in at most 100 characters."""
    return reprlib.repr(value)[:100]


def plain(text: str) -> str:
    """Escape what a terminal would take for a command; lines stay."""
    return ''.join(c if c.isprintable() or c == '\n' else ascii(c)[1:-1] for c in text)


def check_fields(content: Any, rules: Mapping[str, Rule], what: str, remedy: str) -> dict[str, Any]:
    """Return a JSON object's fields if their names are those of the rules and their values hold them.

    Raises:
        ValueError: Something is missing, unknown or against its rule.
    """
    if not isinstance(content, dict):
        raise ValueError(f'{what} must be an object, got {shown(content)}: {remedy}')
    for wrong, names in (('must have', set(rules) - set(content)), ('knows no', set(content) - set(rules))):
        if names:
            raise ValueError(f'{what} {wrong} {shown(", ".join(sorted(map(str, names))))}: {remedy}')
    for name, rule in rules.items():
        if not rule.holds(content[name]):
            raise ValueError(f"{what}'s {name} must be {rule.text}, got {shown(content[name])}: {remedy}")
    return content
