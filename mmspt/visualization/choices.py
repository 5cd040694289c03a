"""Which blocks and prompts a picture shows, numbered from 1."""
from collections.abc import Sequence

import numpy as np


def choose(kind: str, numbers: Sequence[int] | None, count: int, most: int) -> list[int]:
    """Return the numbers asked for, each once, or up to ``most`` of 1, ..., ``count``, evenly from first to last.

    Raises:
        ValueError: No number, or one outside of 1, ..., ``count``; the message calls them ``kind``.
    """
    if numbers is None:
        return np.linspace(1, count, min(count, most)).round().astype(int).tolist()
    outside = [number for number in numbers if not 1 <= number <= count]
    if outside or not numbers:
        raise ValueError(f'{kind} must be one or more numbers from 1 to {count}, got '
                         f'{", ".join(map(str, outside)) or "none"}: choose among these')
    return list(dict.fromkeys(numbers))
