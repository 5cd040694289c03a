"""What ``torch.load(weights_only=True)`` must know to read MMEngine's own checkpoints; added by ``import mmspt``.

MMEngine 0.10 calls a bare ``torch.load``, which since torch 2.6 reads weights, plain containers and the objects of a
list. The list lacks what a Runner saves beside the weights, so that ``--resume``, ``load_from`` and ``test.py`` fail.

NumPy's own classes are not added: a file could call ``numpy.ndarray`` to show any bytes as objects, and a forged state
of a dtype ends the process (numpy 2.2). The classes here hold numbers alone; they work together with NumPy's own, which
other packages add.
"""
import argparse
import math
import pickle
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.runner import checkpoint

METHODS = {HistoryBuffer: ('current', 'max', 'mean', 'min'),
           OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear')}
"""Methods that MMEngine's objects pickle by ``getattr``."""


def check(right: bool, what: str) -> None:
    """Raise UnpicklingError unless ``right``."""
    if not right:
        raise pickle.UnpicklingError(f'{what:.200} is not part of an MMEngine checkpoint')


def saved_method(owner: type, name: str) -> Callable:
    """Take the place of ``getattr``: return one of :data:`METHODS`."""
    check(isinstance(owner, type) and name in METHODS.get(owner, ()), f'getattr({owner!r:.99}, {name!r:.99})')
    return getattr(owner, name)


class SavedDtype:
    """Take the place of ``numpy.dtype`` until :func:`number_type`."""
    dtype: np.dtype

    def __new__(cls, code: str, align: bool = False, copy: bool = True) -> Any:
        check(isinstance(code, str) and len(code) < 16, f'a dtype {code!r:.99}')
        dtype = np.dtype(code)
        if dtype.kind != 'O' and type(dtype) in torch.serialization.get_safe_globals():  # another package allows it
            return np.dtype(code, copy=True)
        check(dtype.kind in 'biufc', f'a dtype {code!r:.99}')
        saved = super().__new__(cls)
        saved.dtype = dtype
        return saved

    def __setstate__(self, state: tuple) -> None:
        check(state[2:5] == (None, None, None), 'a dtype with fields')
        self.dtype = self.dtype.newbyteorder(state[1])


def number_type(dtype: Any) -> np.dtype:
    """Return NumPy's dtype for a :class:`SavedDtype`, or for one that NumPy made."""
    dtype = getattr(dtype, 'dtype', dtype)
    allowed = isinstance(dtype, np.dtype) and dtype.kind != 'O' and (
        dtype.kind in 'biufc' or type(dtype) in torch.serialization.get_safe_globals())
    check(allowed, f'an array of {dtype!r:.99}')
    return dtype


class SavedArray(np.ndarray):
    """Take the place of ``numpy.ndarray``; saved again, it is one."""

    def __new__(cls, *args: Any) -> NoReturn:
        raise pickle.UnpicklingError('a call of numpy.ndarray is not part of an MMEngine checkpoint')

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        dtype = number_type(dtype)
        check(isinstance(data, bytes) and all(type(length) is int and length >= 0 for length in shape)
              and len(data) == math.prod(shape) * dtype.itemsize, 'an array of another size than its bytes')
        super().__setstate__((1, shape, dtype, bool(fortran), data))  # type: ignore[arg-type]

    def __reduce__(self) -> Any:
        return self.view(np.ndarray).__reduce__()


def saved_array(owner: type, shape: tuple, code: bytes) -> SavedArray:
    """Take the place of NumPy's ``_reconstruct``; the content follows in the file."""
    return np.empty(0).view(SavedArray)  # type: ignore[arg-type, return-value]


def saved_scalar(dtype: Any, data: bytes) -> np.generic:
    """Take the place of NumPy's ``scalar``."""
    return np.frombuffer(data, number_type(dtype), count=1)[0]


def add_safe_globals() -> None:
    """Add MMEngine's objects, NumPy's numbers and arrays, and the ``Namespace`` of FAIR's and timm's checkpoints."""
    names: dict[str, Any] = {'numpy.dtype': SavedDtype, 'numpy.ndarray': SavedArray}
    for core in ('numpy.core', 'numpy._core'):  # NumPy 1 and 2
        names |= {f'{core}.multiarray._reconstruct': saved_array, f'{core}.multiarray.scalar': saved_scalar}
    for builtins in ('builtins', '__builtin__'):
        names |= {f'{builtins}.getattr': saved_method, f'{builtins}.bytes': bytes}  # bytes: of an empty array
    added = [*METHODS, ConfigDict, argparse.Namespace, SavedDtype, SavedArray,
             *((value, name) for name, value in names.items())]
    if hasattr(checkpoint, 'get_torch_safe_globals'):  # MMEngine's fork adds NumPy's own classes, but not all dtypes
        added += {type(np.dtype(code)) for code in '?bhilqBHILQefdFD'}
    torch.serialization.add_safe_globals(added)
