"""How a picture that takes long says so; the bar itself is the tool's."""
from collections.abc import Callable, Iterable

Track = Callable[[Iterable, str, int], Iterable]
"""(items, description, how many) -> the same items, behind a progress bar."""


def untracked(items: Iterable, description: str, total: int) -> Iterable:
    """No progress bar."""
    return items
