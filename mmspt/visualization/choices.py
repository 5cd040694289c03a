"""Which blocks and prompts a picture shows, numbered from 1 on."""
from collections.abc import Sequence

import numpy as np

from .run_folder import RunFolder


def choose(kind: str, numbers: Sequence[int] | None, count: int, most: int, hint: str = '') -> list[int]:
    """Take the numbers asked for, each once, or up to ``most`` of 1, ..., ``count``, spread evenly from first to last.

    Args:
        kind (str): What is numbered, for the error.
        numbers (Sequence[int] | None): What was asked for.
        count (int): The highest number.
        most (int): How many, if nothing was asked for.
        hint (str): Goes into the error. Defaults to nothing.

    Raises:
        ValueError: None, or one outside of 1, ..., ``count``.
    """
    if numbers is None:
        return np.linspace(1, count, min(count, most)).round().astype(int).tolist()
    outside = [number for number in numbers if not 1 <= number <= count]
    if outside or not numbers:
        raise ValueError(f'{kind} must be one or more numbers from 1 to {count}, got '
                         f'{", ".join(map(str, outside)) or "none"}{hint}: choose among these')
    return list(dict.fromkeys(numbers))


def choose_own(run: RunFolder, layers: Sequence[int] | None, most: int) -> list[int]:
    """:func:`choose` among the blocks that have prompts of their own."""
    count = len(run.tuned_prompts)
    hint = ' (only block 1 of a shallow model has prompts of its own)' if count == 1 else ''
    return choose('layers', layers, count, most, hint)
