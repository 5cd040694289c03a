"""The prompts' keys and values, kept from one image to the next."""
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar('T')


def _state(tensor: Tensor) -> tuple:
    """What changes when a tensor is replaced, or written in place."""
    return id(tensor), tensor.data_ptr(), None if tensor.is_inference() else tensor._version, tensor.dtype


def _autocast_dtype(device_type: str) -> torch.dtype | None:
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None


class PromptCache:
    """Holds what was computed from prompts and frozen weights until one of them changes.

    Prompts are compared by value, weights by address and version (a write through ``weight.data`` does not count: call
    :meth:`clear` after it). Copies and pickles of the cache are empty.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget."""
        # one tuple, put in place at once: threads may share a model. It holds the weights, so that no new one can
        # come to lie at their address
        self._kept: tuple[Tensor, Sequence[Tensor], tuple, Any] | None = None

    def get(self, prompts: Tensor, weights: Sequence[Tensor], compute: Callable[[], T]) -> T:
        """Return ``compute()``, or what it returned for the same prompts and weights under the same autocast.

        Args:
            prompts (Tensor): Any shape.
            weights (Sequence[Tensor]): Whatever else ``compute`` reads.
            compute (Callable): Called without gradient.
        """
        key = (_autocast_dtype(prompts.device.type), prompts.dtype, prompts.device, *map(_state, weights))
        kept = self._kept
        if kept is None or key != kept[2] or not torch.equal(kept[0], prompts):
            with torch.no_grad():
                kept = prompts.detach().clone(), weights, key, compute()
            self._kept = kept
        return kept[3]

    def __deepcopy__(self, memo: dict) -> 'PromptCache':
        return type(self)()

    def __reduce__(self) -> tuple:
        return type(self), ()
