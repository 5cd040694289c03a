"""Leave out a warning of another package for a moment."""
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_warning(message: str) -> Iterator[None]:
    """Do not show warnings that match a pattern at their start, for a block.

    Unlike ``warnings.catch_warnings`` it keeps the filters that packages add when the block imports them.
    """
    warnings.filterwarnings('ignore', message)
    entry = warnings.filters[0]
    try:
        yield
    finally:
        if entry in warnings.filters:
            warnings.filters.remove(entry)  # type: ignore[attr-defined]
