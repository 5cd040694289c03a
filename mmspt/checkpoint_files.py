"""Reading foreign checkpoints: nothing that a file holds is run, and memory stays in proportion to the file.

A file of ``torch.save`` is read into a description first: pickle's own opcodes, fewer of them than torch's
``weights_only=True`` takes, on stand-ins that only take notes. What the result will take in memory is counted on the
way. Storages are read, and tensors made of them, after every size was compared with the file. All versions of torch are
served by the same code. ``torch.load`` itself is not enough: before 2.6 its list cannot be extended by name; every
version lets a file ask for memory by a number (``bytearray(8_000_000_000)``, a tensor larger than its storage), and
compares no check sum; 2.1 reads beyond a record.
"""
import fcntl
import hashlib
import io
import os
import os.path as osp
import pickle
import re
import socket
import struct
import sys
import tempfile
import zipfile
from argparse import Namespace
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

import numpy as np
import torch
from mmengine.fileio import get_file_backend
from mmengine.logging import HistoryBuffer, MMLogger
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.runner import checkpoint as stock

from mmspt.public_checkpoints import PUBLIC_CHECKPOINTS
from mmspt.safetensors_files import PACK_CARD, read_safetensors

_TIMEOUT = 10  # seconds for each address of a server to answer, and for each read
_FETCH = 'give the path of an existing file (init_cfg.checkpoint, load_from or the command line)'
_NUMBER = re.compile(r'[<>=|]?([biufc][0-9]{1,2}|\?|[SU][0-9]{1,9})')
_SPARE = 14 << 20  # bytes that a small file may take beyond twice its size
# bytes that things take at most: measured, and a quarter more
_OPCODE, _OBJECT, _STORAGE, _CONTAINER, _ITEM, _ORDERED = 26, 400, 350, 220, 100, 140
_NAME = 256  # bytes of a module's or object's name
_MOST_VALUES = 2_000_000  # in containers, each counted as often as it is reached
_DIRECTORY, _ENTRY = 2, 580  # for a byte and an entry of a zip file's directory
_MAGIC = 0x1950a86a20f9469cfc6c  # torch.save's before 1.6


def _show(value: Any) -> str:
    """Say in a message: a short text or number as it is, all else by name. The repr of lists in lists may never end."""
    if isinstance(value, (str, bytes)):
        return repr(value[:97])
    if value is None or isinstance(value, (int, float, complex)):  # an opcode holds at most 255 bytes
        return f'{value!r:.99}'
    return f'{getattr(value, "__name__", type(value).__name__):.99}'


class _Dtype:
    """Stand in for ``numpy.dtype``: numbers, booleans and text, never objects or fields, which reach raw memory."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise pickle.UnpicklingError(f'an array of dtype {_show(code)} is not part of an MMEngine checkpoint')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[2:5] != (None, None, None):
            raise pickle.UnpicklingError('an array with fields is not part of an MMEngine checkpoint')
        if state[1] in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(state[1])

    def finish(self) -> np.dtype:
        return self.dtype


class _Array:
    """Stand in for ``numpy.ndarray``; the array is made from a copy of its bytes."""
    shape, dtype, fortran, data = (0, ), _Dtype('f8'), False, b''

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state
        if not isinstance(self.dtype, _Dtype) or not isinstance(self.data, bytes):
            raise pickle.UnpicklingError('an array of objects is not part of an MMEngine checkpoint')

    def finish(self) -> np.ndarray:
        array = np.frombuffer(self.data, self.dtype.dtype) if self.data else np.empty(0, self.dtype.dtype)
        self.data = b''
        return array.reshape(self.shape, order='F' if self.fortran else 'C').copy(order='K')


class _Buffer:
    """Stand in for HistoryBuffer, whose own ``__setstate__`` lets a file change methods of the class."""
    state: dict = {}

    def __setstate__(self, state: dict) -> None:
        self.state = state

    def finish(self) -> HistoryBuffer:
        columns = [self.state.get(name) for name in ('_log_history', '_count_history')]
        length = self.state.get('max_length')
        if not all(isinstance(column, _Array) for column in columns) or type(length) is not int or length < 1:
            raise pickle.UnpicklingError('a HistoryBuffer must hold two arrays and its length')
        values, counts = (column.finish() for column in columns)  # type: ignore[union-attr]
        if values.ndim != 1 or values.shape != counts.shape or (values.dtype.kind + counts.dtype.kind).strip('biuf'):
            raise pickle.UnpicklingError('a HistoryBuffer must hold two rows of as many numbers')
        buffer = HistoryBuffer(max_length=length)
        buffer._log_history, buffer._count_history = values, counts
        return buffer


class _OneCycle:
    """Stand in for OneCycleParamScheduler, of which a checkpoint names static methods alone."""


@dataclass(slots=True)
class _Storage:
    """A storage that the file holds: its name there, its bytes, and the device that it was saved from."""
    key: str
    nbytes: int
    location: str
    dtype: torch.dtype
    content: Any = None  # torch.UntypedStorage, once it was read


@dataclass(slots=True)
class _Tensor:
    """Stand in for a dense tensor that lies within its storage."""
    storage: _Storage
    offset: int
    size: tuple
    stride: tuple
    dtype: torch.dtype
    requires_grad: bool = False
    parameter: bool = False

    def __post_init__(self) -> None:
        whole = (self.offset, *self.size, *self.stride)
        if len(self.size) != len(self.stride) or len(self.size) > 64 or \
                not all(type(number) is int and 0 <= number < 1 << 62 for number in whole):
            raise pickle.UnpicklingError('a tensor must have a size and a stride of whole numbers')
        room, numel, last = self.storage.nbytes // torch.empty(0, dtype=self.dtype).element_size(), 1, self.offset
        for length, step in zip(self.size, self.stride, strict=True):
            numel *= length
            last += max(length - 1, 0) * step
        if numel > room or (numel and last >= room) or self.offset > room:
            raise pickle.UnpicklingError(f'a tensor must lie within its storage, but one of size {self.size!r:.99} and '
                                         f'stride {self.stride!r:.99} has {self.storage.nbytes:,} bytes')

    def finish(self) -> torch.Tensor:
        storage = self.storage.content
        tensor = torch.empty(0, dtype=self.dtype, device=storage.device)
        tensor.set_(storage, self.offset, self.size, self.stride)
        if self.parameter:
            return torch.nn.Parameter(tensor, self.requires_grad)
        return tensor.requires_grad_(self.requires_grad)


def _rebuild_tensor(storage: _Storage, offset: int, size: tuple, stride: tuple, requires_grad: bool = False,
                    hooks: Any = None, metadata: Any = None, dtype: torch.dtype | None = None) -> _Tensor:
    if not isinstance(storage, _Storage) or metadata:
        raise pickle.UnpicklingError('a tensor must be dense, with a storage of its own')
    return _Tensor(storage, offset, tuple(size), tuple(stride), dtype or storage.dtype, bool(requires_grad))


def _rebuild_tensor_v3(storage: _Storage, offset: int, size: tuple, stride: tuple, requires_grad: bool, hooks: Any,
                       dtype: torch.dtype, metadata: Any = None) -> _Tensor:
    if not isinstance(dtype, torch.dtype) or dtype not in _DTYPES:  # tuples in tuples may be hashed for ever
        raise pickle.UnpicklingError(f'a tensor of dtype {_show(dtype)} is not part of an MMEngine checkpoint')
    return _rebuild_tensor(storage, offset, size, stride, requires_grad, hooks, metadata, dtype)


def _rebuild_parameter(data: _Tensor, requires_grad: bool, hooks: Any = None, state: Any = None) -> _Tensor:
    return replace(data, requires_grad=bool(requires_grad), parameter=True)


def _reconstruct(cls: type, shape: tuple, code: bytes) -> _Array:
    return _Array()


def _scalar(dtype: _Dtype, data: bytes) -> np.generic:
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
        raise pickle.UnpicklingError('a scalar object is not part of an MMEngine checkpoint')
    return np.frombuffer(data, dtype.dtype, count=1)[0]


def _no_bytes() -> bytes:
    return b''


def _encode(text: str, encoding: str) -> bytes:
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'the encoding {_show(encoding)} is not part of an MMEngine checkpoint')
    return text.encode('latin1')


def _check_keys(keys: Any) -> Any:
    """Refuse keys that are not plain: tuples in tuples overflow the stack when hashed, great numbers all hash alike."""
    if not all(isinstance(key, (str, bytes, float, type(None))) or (isinstance(key, int) and abs(key) < 1 << 60)
               for key in keys):
        raise pickle.UnpicklingError('a key must be text or a number')
    return keys


def _ordered_dict(pairs: Any = ()) -> OrderedDict:
    return OrderedDict((_check_keys((key, ))[0], value) for key, value in pairs)


def _counter(counts: dict) -> Counter:
    if type(counts) is not dict:
        raise pickle.UnpicklingError('a Counter must be made of a dict')
    return Counter(counts)


def _config_dict(content: Any = None) -> dict:
    """Stand in for MMEngine's ConfigDict, which metainfo from a config holds."""
    if content is not None and type(content) is not dict:
        raise pickle.UnpicklingError('a ConfigDict must be made of a dict')
    return {} if content is None else content


class _Factory:
    """Stand in for what makes a defaultdict's values: it is not called."""


def _default_dict(factory: Any = None) -> dict:
    return {}


def _posix_path(*parts: str) -> PurePosixPath:
    return PurePosixPath(*parts)


def _windows_path(*parts: str) -> PureWindowsPath:
    return PureWindowsPath(*parts)


def _set(items: list) -> set:
    return set(_check_keys(items))


def _size(sizes: tuple) -> torch.Size:
    return torch.Size(sizes)


def _device(kind: str, index: int | None = None) -> torch.device:
    if not isinstance(kind, str) or not isinstance(index, (int, type(None))):
        raise pickle.UnpicklingError('a device must have a name and a number')
    return torch.device(kind if index is None else f'{kind}:{index}')


def _method(cls: type, name: str) -> Any:
    """Stand in for ``getattr``, by which MMEngine's objects pickle their methods, and reach nothing else."""
    if cls is _Buffer and name in ('min', 'max', 'mean', 'current'):
        return None  # the class has its methods
    if cls is _OneCycle and name in ('_annealing_cos', '_annealing_linear'):
        return getattr(OneCycleParamScheduler, name)
    raise pickle.UnpicklingError(f'getattr({_show(cls)}, {_show(name)}) is not part of an MMEngine checkpoint')


_NUMERIC = r'torch\.(bool|bfloat16|(float|complex|u?int)(8|16|32|64|128)(_e\w+)?)'
_DTYPES = {dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)
           and re.fullmatch(_NUMERIC, str(dtype))}
_STORAGES = dict(Double='float64', Float='float32', Half='float16', BFloat16='bfloat16', Long='int64', Int='int32',
                 Short='int16', Char='int8', Byte='uint8', Bool='bool', ComplexDouble='complex128',
                 ComplexFloat='complex64')
# what a checkpoint may name: qualified name -> object given in its place
ALLOWED: dict[str, Any] = {
    '_codecs.encode': _encode,
    'argparse.Namespace': Namespace,
    'builtins.bytes': _no_bytes,  # b'' in pickle protocol 2
    'builtins.complex': complex,
    'builtins.getattr': _method,
    'builtins.set': _set,
    'collections.Counter': _counter,
    'collections.OrderedDict': _ordered_dict,
    'collections.defaultdict': _default_dict,
    **{f'builtins.{name}': _Factory for name in ('bool', 'dict', 'float', 'int', 'list', 'str', 'tuple')},
    'mmengine.config.config.ConfigDict': _config_dict,
    'mmengine.logging.history_buffer.HistoryBuffer': _Buffer,
    'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler': _OneCycle,
    'numpy.dtype': _Dtype,
    'numpy.ndarray': _Array,
    **{f'{core}.multiarray._reconstruct': _reconstruct for core in ('numpy.core', 'numpy._core')},
    **{f'{core}.multiarray.scalar': _scalar for core in ('numpy.core', 'numpy._core')},
    **{f'{module}.{name}': path for module in ('pathlib', 'pathlib._local') for name, path in dict(
        PosixPath=_posix_path, PurePosixPath=_posix_path, WindowsPath=_windows_path,
        PureWindowsPath=_windows_path).items()},
    'torch.Size': _size,
    'torch.device': _device,
    'torch._utils._rebuild_tensor': _rebuild_tensor,
    'torch._utils._rebuild_tensor_v2': _rebuild_tensor,
    'torch._utils._rebuild_tensor_v3': _rebuild_tensor_v3,
    'torch._utils._rebuild_parameter': _rebuild_parameter,
    'torch._utils._rebuild_parameter_with_state': _rebuild_parameter,
    'torch.storage.UntypedStorage': torch.uint8,
    **{f'torch.{module}{name}Storage': getattr(torch, dtype) for name, dtype in _STORAGES.items()
       for module in ('', 'cuda.')},
    **{str(dtype): dtype for dtype in _DTYPES},
}
_CALLED = {_encode, _no_bytes, complex, _method, _set, _counter, _ordered_dict, _Dtype, _reconstruct, _scalar, _size,
           _device, _config_dict, _default_dict, _posix_path, _windows_path, _rebuild_tensor, _rebuild_tensor_v3,
           _rebuild_parameter}
_OPCODES = b''.join((
    pickle.PROTO, pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1,
    pickle.BININT2, pickle.LONG1, pickle.BINFLOAT, pickle.BINUNICODE, pickle.SHORT_BINSTRING, pickle.EMPTY_LIST,
    pickle.EMPTY_DICT, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.BINPUT,
    pickle.LONG_BINPUT, pickle.BINGET, pickle.LONG_BINGET, pickle.GLOBAL, pickle.REDUCE, pickle.NEWOBJ, pickle.BUILD,
    pickle.SETITEM, pickle.SETITEMS, pickle.APPEND, pickle.APPENDS, pickle.BINPERSID))
_COSTS = {pickle.BINPUT: 0, pickle.LONG_BINPUT: 10, pickle.BINUNICODE: 45, pickle.SHORT_BINSTRING: 45, pickle.LONG1: 90,
          pickle.BININT: 65, pickle.BININT2: 65, pickle.BINFLOAT: 65, pickle.MARK: 90, pickle.EMPTY_LIST: 100,
          pickle.EMPTY_DICT: 110} | dict.fromkeys((pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3), 90)
# what a call takes: for the object, and for each item of its arguments
_CALLS = {_rebuild_tensor: (560, 16), _rebuild_tensor_v3: (560, 16), _rebuild_parameter: (560, 16),
          _ordered_dict: (250, 200), _set: (320, 100), _reconstruct: (1000, 100), _config_dict: (0, 0),
          _default_dict: (110, 0)}
_PythonUnpickler: Any = pickle._Unpickler


class _Account:
    """Bytes that a file of ``size`` bytes takes in memory; twice its size and a little are its due."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.left = 2 * size + _SPARE
        self.stored = 0  # bytes of storages

    def charge(self, nbytes: int) -> None:
        self.left -= nbytes
        if self.left < 0:
            raise pickle.UnpicklingError(f'a checkpoint may take twice its size in memory, but this one of '
                                         f'{self.size:,} bytes would take more')


class _Reader(_PythonUnpickler):
    """Python's own unpickler, not C's, without the opcodes that ``torch.save`` does not write.

    Args:
        file (BinaryIO): Is left behind the pickle's end.
        account (_Account): Pays for what is made.
        storages (dict[str, _Storage]): Filled with the storages that the pickle names.
    """
    dispatch = {code: _PythonUnpickler.dispatch[code] for code in _OPCODES}

    def __init__(self, file: BinaryIO, account: _Account, storages: dict[str, _Storage]) -> None:
        super().__init__(file, encoding='utf-8')
        self.read, self.readline = file.read, file.readline
        self.memo: list = []
        self.account = account
        self.storages = storages

    def load(self) -> Any:
        self.stack: list = []
        self.metastack: list = []
        self.append = self.stack.append
        while True:
            code = self.read(1)
            if not code:
                raise EOFError('the file ends within its objects')
            handler = self.dispatch.get(code[0])
            if handler is None:
                raise pickle.UnpicklingError(f'pickle opcode {code!r} is not part of a checkpoint')
            self.account.charge(_COSTS.get(code, _OPCODE))
            try:
                handler(self)
            except pickle._Stop as stop:  # type: ignore[attr-defined]
                return stop.value

    def load_binunicode(self) -> None:
        self._load_text(struct.unpack('<I', self.read(4))[0])

    def load_short_binstring(self) -> None:  # of Python 2
        self._load_text(self.read(1)[0])

    def _load_text(self, length: int) -> None:
        if length > self.account.size:
            raise EOFError('the file ends within a text')
        self.account.charge(2 * length)
        raw = self.read(length)
        # while it is decoded, the bytes, the beginning in one byte a character and the whole in 1, 2 or 4 of them
        highest = 0 if raw.isascii() else max(raw)
        extra = (0 if not highest else 1 if highest < 0xc4 else 2 if highest < 0xf0 else 4) * length
        self.account.charge(extra)
        value = str(raw, 'utf-8')
        self.account.charge(sys.getsizeof(value) - 2 * length - extra)
        self.append(value)

    def load_global(self) -> None:
        lines = self.readline(_NAME), self.readline(_NAME)
        if not all(line.endswith(b'\n') for line in lines):
            raise pickle.UnpicklingError(f'a name must be a line of less than {_NAME} bytes')
        self.append(self.find_class(*(str(line[:-1], 'utf-8') for line in lines)))

    def load_binput(self) -> None:
        self._put(self.read(1)[0])

    def load_long_binput(self) -> None:
        self._put(struct.unpack('<I', self.read(4))[0])

    def _put(self, index: int) -> None:
        """Keep the last value for later. torch.save counts up; a list takes a tenth of a dict."""
        if index > len(self.memo) + 1:  # Python 2 begins with 1
            raise pickle.UnpicklingError('what is kept for later must be numbered in order')
        self.memo += [None] * (index + 1 - len(self.memo))
        self.memo[index] = self.stack[-1]

    def load_reduce(self) -> None:
        args, function = self.stack.pop(), self.stack[-1]
        if type(args) is not tuple or not any(function is called for called in _CALLED):
            raise pickle.UnpicklingError(f'a call of {_show(function)} is not part of an MMEngine checkpoint')
        self._charge(args, *_CALLS.get(function, (_OBJECT, 2 * _ITEM)))
        self.stack[-1] = function(*args)

    def load_newobj(self) -> None:
        args, cls = self.stack.pop(), self.stack[-1]
        if cls not in (_Buffer, Namespace) or args != ():
            raise pickle.UnpicklingError(f'an object of {_show(cls)} is not part of an MMEngine checkpoint')
        self._charge(())
        self.stack[-1] = cls()

    def load_build(self) -> None:
        state, value = self.stack.pop(), self.stack[-1]
        if type(value) is OrderedDict:
            modules = state.get('_metadata', {})
            self.account.charge(400 * len(modules))
            value._metadata = _metadata(modules)  # type: ignore[attr-defined]
        elif type(value) is Namespace and isinstance(state, dict):
            vars(value).update(state)
        elif type(value) in (_Array, _Dtype, _Buffer):
            value.__setstate__(state)
        else:
            raise pickle.UnpicklingError(f'a state for {_show(value)} is not part of an MMEngine checkpoint')
        self._charge(state.values() if isinstance(state, dict) else state)

    def _charge(self, parts: Any, fixed: int = _OBJECT, item: int = _ITEM) -> None:
        self.account.charge(fixed + 16 * len(parts))
        self.account.charge(sum(len(part) * (1 if isinstance(part, (str, bytes)) else item)
                                for part in parts if hasattr(part, '__len__')))

    def pop_mark(self) -> list:
        self.account.charge(-60)  # of what a mark costs, since it is gone
        return super().pop_mark()

    def load_setitem(self) -> None:
        self._set_items([self.stack.pop(-2), self.stack.pop()])

    def load_setitems(self) -> None:
        self._set_items(self.pop_mark())

    def _set_items(self, items: list) -> None:
        if type(self.stack[-1]) not in (dict, OrderedDict, Counter):
            raise pickle.UnpicklingError('items go into dicts alone')
        self.account.charge(len(items) // 2 * (_ORDERED if type(self.stack[-1]) is OrderedDict else _ITEM))
        for key, value in zip(_check_keys(items[::2]), items[1::2], strict=True):
            self.stack[-1][key] = value  # update() of a Counter would count

    def load_append(self) -> None:
        self._extend([self.stack.pop()])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, items: list) -> None:
        if type(self.stack[-1]) is not list:
            raise pickle.UnpicklingError('items are appended to lists alone')
        self.stack[-1].extend(items)

    def find_class(self, module: str, name: str) -> Any:
        module = {'__builtin__': 'builtins'}.get(module, module)  # pickle protocol 2 has Python 2's names
        try:
            return ALLOWED[f'{module}.{name}']
        except KeyError:
            raise pickle.UnpicklingError(f'{module}.{name}'[:200]) from None

    def persistent_load(self, pid: Any) -> _Storage:
        self._charge((), _STORAGE)
        kind, dtype, key, location, numel, *view = pid
        if kind != 'storage' or not isinstance(key, str) or not isinstance(location, str) or location == 'meta' or \
                not isinstance(dtype, torch.dtype) or type(numel) is not int or numel < 0 or view not in ([], [None]):
            raise pickle.UnpicklingError(f'such a storage ({_show(key)}) is not part of an MMEngine checkpoint')
        storage = _Storage(key, numel * torch.empty(0, dtype=dtype).element_size(), location, dtype)
        known = self.storages.get(key)
        if known is None:
            self.storages[key] = storage
            self.account.stored += storage.nbytes
            if self.account.stored > self.account.size:
                raise pickle.UnpicklingError('its storages are larger than the file')
            self.account.charge(storage.nbytes)
            return storage
        if known.nbytes != storage.nbytes or known.dtype != dtype:
            raise pickle.UnpicklingError('a storage is named twice, and not as the same')
        return known

    dispatch.update({
        pickle.BINUNICODE[0]: load_binunicode, pickle.SHORT_BINSTRING[0]: load_short_binstring,
        pickle.GLOBAL[0]: load_global, pickle.BINPUT[0]: load_binput, pickle.LONG_BINPUT[0]: load_long_binput,
        pickle.REDUCE[0]: load_reduce, pickle.NEWOBJ[0]: load_newobj,
        pickle.BUILD[0]: load_build, pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems,
        pickle.APPEND[0]: load_append, pickle.APPENDS[0]: load_appends})


def _metadata(modules: dict) -> OrderedDict:
    """Keep of an OrderedDict's attributes what ``state_dict()`` adds: the version of each module."""
    return OrderedDict((name, {key: version for key, version in module.items() if key == 'version'
                               and type(version) is int}) for name, module in modules.items())


class _Tree:
    """Put values where their stand-ins are. What was shared stays shared; what contains itself is refused."""

    def __init__(self, account: _Account) -> None:
        self.account = account
        self.known: dict[int, Any] = {}  # id -> (stand-in, value, how many values it unfolds to)

    def finish(self, value: Any) -> Any:
        return self._finish(value)[0]

    def _finish(self, value: Any) -> tuple[Any, int]:
        if isinstance(value, _Storage):
            raise pickle.UnpicklingError('a storage without a tensor is not part of an MMEngine checkpoint')
        stands_in = isinstance(value, (_Array, _Dtype, _Buffer, _Tensor))
        if not stands_in and type(value) not in (dict, OrderedDict, Counter, list, tuple, Namespace):
            if isinstance(value, type) or any(value is function for function in _CALLED):
                raise pickle.UnpicklingError('a function is not part of an MMEngine checkpoint')
            return value, 1
        if id(value) in self.known:
            known = self.known[id(value)]
            if known is None:
                raise pickle.UnpicklingError('a container that contains itself is not part of a checkpoint')
            return known[1:]
        self.account.charge(_CONTAINER)
        self.known[id(value)] = None
        result, items = value, 1
        if stands_in:
            result = value.finish()
        elif isinstance(value, (list, tuple)):
            result, items = self._all(value)
            if isinstance(value, list):
                value[:] = result
                result = value
            else:
                result = tuple(result)
        else:
            content = vars(value) if isinstance(value, Namespace) else value
            finished, items = self._all(content.values())
            for key, made in zip(list(content), finished, strict=True):
                content[key] = made
        self.known[id(value)] = (value, result, items)
        return result, items

    def _all(self, values: Any) -> tuple[list, int]:
        finished, items = [], 1
        for value in values:
            made, count = self._finish(value)
            finished.append(made)
            items += count
            if items > _MOST_VALUES:
                raise pickle.UnpicklingError(f'containers must hold at most {_MOST_VALUES:,} values, each counted as '
                                             'often as it is reached')
        return finished, items


def _fill(storage: _Storage, file: BinaryIO, restore: Callable) -> None:
    buffer = torch.empty(storage.nbytes, dtype=torch.uint8)
    view = memoryview(buffer.numpy())  # type: ignore[arg-type]
    while view:
        count = file.readinto(view[:1 << 20])  # type: ignore[attr-defined]
        if not count:
            raise EOFError('the file ends within its weights')
        view = view[count:]
    storage.content = restore(buffer.untyped_storage(), storage.location)


def _read_zip(file: BinaryIO, account: _Account, restore: Callable) -> Any:
    """Read what torch.save writes since 1.6: data.pkl, and each storage as an entry, none of them compressed."""
    file.seek(-min(98, account.size), io.SEEK_END)
    record, locator, end = file.read(56), file.read(20), file.read()
    if end[:4] != b'PK\5\6' or end[20:] != b'\0\0':
        raise zipfile.BadZipFile('the directory at its end is missing')
    size, begin = int.from_bytes(end[12:16], 'little'), account.size - 22
    if locator[:4] == b'PK\6\7':  # of the record that zipfile believes rather than the end
        size, begin = int.from_bytes(record[40:48], 'little'), account.size - 98
        if record[:4] != b'PK\6\6' or int.from_bytes(locator[8:16], 'little') != begin:
            raise zipfile.BadZipFile('the directory at its end is not where it says')
    if size > begin:
        raise zipfile.BadZipFile('the directory at its end is longer than the file')
    account.charge(_DIRECTORY * size)
    file.seek(begin - size)
    account.charge(_ENTRY * file.read(size).count(b'PK\1\2'))
    with zipfile.ZipFile(file) as archive:
        entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
        ends = [entry.header_offset + 30 + entry.compress_size for entry in entries]
        overlap = any(end > entry.header_offset for end, entry in zip(ends, entries[1:], strict=False))
        if overlap or any(entry.compress_type or entry.flag_bits & 1 or entry.compress_size != entry.file_size
                          for entry in entries):
            raise pickle.UnpicklingError('an archive must hold entries that are neither compressed nor overlap')
        names = archive.NameToInfo
        pickles = [name for name in names if re.fullmatch(r'[^/]+/data\.pkl', name)]
        if len(pickles) != 1:
            raise zipfile.BadZipFile(f'an archive must hold one data.pkl, not {len(pickles)}')
        folder = osp.dirname(pickles[0])
        if f'{folder}/constants.pkl' in names:
            raise pickle.UnpicklingError('a TorchScript archive holds code')
        if f'{folder}/byteorder' in names and archive.open(f'{folder}/byteorder').read(9) != b'little':
            raise pickle.UnpicklingError('numbers must have their lowest byte first (byteorder)')
        storages: dict[str, _Storage] = {}
        with io.BufferedReader(archive.open(pickles[0]), 1 << 16) as stream:  # type: ignore[type-var]
            content = _Reader(stream, account, storages).load()
            if stream.read(1):
                raise pickle.UnpicklingError('data.pkl must end with its object')
        for storage in storages.values():
            with archive.open(f'{folder}/data/{storage.key}') as stored:
                if names[f'{folder}/data/{storage.key}'].file_size != storage.nbytes:
                    raise pickle.UnpicklingError(f'storage {_show(storage.key)} must have as many bytes as its tensors '
                                                 f'say ({storage.nbytes:,})')
                _fill(storage, stored, restore)  # type: ignore[arg-type]
    return content


def _read_legacy(file: BinaryIO, account: _Account, restore: Callable) -> Any:
    """Read what torch.save wrote before 1.6: pickles in a row, then the storages."""
    storages: dict[str, _Storage] = {}

    def load() -> Any:
        return _Reader(file, account, storages).load()

    if load() != _MAGIC or load() != 1001:
        raise pickle.UnpicklingError('it does not begin as torch.save begins files')
    if not load()['little_endian']:
        raise pickle.UnpicklingError('numbers must have their lowest byte first (little_endian)')
    content, keys = load(), load()
    if not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        raise pickle.UnpicklingError('its storages must be those that its tensors name')
    for key in keys:
        storage = storages[key]
        numel, = struct.unpack('<q', file.read(8))
        if numel * torch.empty(0, dtype=storage.dtype).element_size() != storage.nbytes:
            raise pickle.UnpicklingError(f'storage {_show(key)} must have as many numbers as its tensors say')
        _fill(storage, file, restore)
    return content


def _read_torch(file: BinaryIO, account: _Account, map_location: Any) -> dict:
    restore = torch.serialization._get_restore_location(map_location)
    start = file.read(4)
    file.seek(0)
    if start == b'PK\3\4':
        content = _read_zip(file, account, restore)
    elif start[:1] == pickle.PROTO:
        content = _read_legacy(file, account, restore)
    else:
        raise ValueError(f'it begins with {start!r}')
    return _check_content(_Tree(account).finish(content))


def _check_content(content: Any) -> dict:
    """Refuse what is no checkpoint, and drop the one entry that MMEngine would run: ``Runner.resume`` evaluates
    ``meta['config']`` as Python. (MMEngine itself writes 'cfg'.)"""
    if not isinstance(content, dict):
        raise ValueError(f'it holds {type(content).__name__}, not a dict')
    states = [content] + [content[name] for name in ('state_dict', 'model') if name in content]
    if 'state_dict' in content and not isinstance(content['state_dict'], dict):
        raise ValueError(f"its 'state_dict' is {type(content['state_dict']).__name__}, not a dict")
    if not isinstance(content.get('meta', {}), dict):
        raise ValueError(f"its 'meta' is {type(content['meta']).__name__}, not a dict")
    for state in states:
        wrong = [key for key in state if not isinstance(key, str)] if isinstance(state, dict) else []
        if wrong:
            raise ValueError(f'its keys must be text, but one is {_show(wrong[0])}')
    wrong = [key for key, value in content.get('state_dict', {}).items()
             if not isinstance(value, torch.Tensor) and not key.endswith('_extra_state')]
    if wrong:
        raise ValueError(f"its 'state_dict' must hold tensors, but {_show(wrong[0])} is none")
    content.get('meta', {}).pop('config', None)
    return content


def _check_pack(names: Collection[str], metadata: Mapping[str, str]) -> None:
    if PACK_CARD in metadata:
        from mmspt.packs.pack import check_header  # knows models, which `import mmspt` does without
        check_header(names, metadata)


def _read(filename: str, map_location: Any, name: str) -> dict:
    account = _Account(osp.getsize(filename))
    try:
        if filename.endswith('.safetensors'):
            tensors, metadata = read_safetensors(filename, map_location, account.charge, _check_pack)
            if PACK_CARD not in metadata:
                return tensors
            from mmspt.packs.pack import Pack
            return Pack.from_file(tensors, metadata).checkpoint_content()
        with open(filename, 'rb') as file:
            return _read_torch(file, account, map_location)
    except pickle.UnpicklingError as error:
        raise RuntimeError(
            f"checkpoint '{name}' is refused: a checkpoint may hold tensors, plain containers and MMEngine's own "
            'objects, and nothing else is unpickled, because unpickling can run code; refused was: '
            f'{error!s:.500}. If the file is damaged, fetch it again; if you trust it, save its '
            'state_dict alone as .safetensors and name that file') from error
    except Exception as error:
        without = ' (if it was saved without check sums, save it again after ' \
            'torch.serialization.set_crc32_options(True))' if 'CRC' in str(error) else ''
        raise RuntimeError(
            f"checkpoint '{name}' ({account.size:,} bytes) cannot be read: it must be a complete file of "
            f'torch.save or safetensors, but {type(error).__name__}: {error!s:.500}. Fetch or copy it '
            f'again{without}') from error


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Bound each wait for a server, unless the program set a bound of its own; ``torch.hub`` takes no argument for it.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds if before is None else before)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _md5(path: str) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, 'rb') as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _hub_path(name: str, folder: str | None = None) -> str:
    return osp.join(folder or osp.join(torch.hub.get_dir(), 'checkpoints'), name)


def _fetch(url: str, path: str, md5: str | None = None, progress: bool = True) -> None:
    """Fetch a file once a machine: the first process does, the others wait for it.

    Raises:
        OSError, HTTPException: It cannot be fetched or written.
        ValueError: Its MD5 does not begin with ``md5``; it is removed.
    """
    os.makedirs(osp.dirname(path), exist_ok=True)
    with open(f'{path}.lock', 'w', encoding='utf-8') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if osp.isfile(path):
            return
        MMLogger.get_current_instance().info(f"fetching {url} to '{path}'")
        unchecked = path if md5 is None else f'{path}.unchecked'
        try:
            with _time_limit(_TIMEOUT):
                torch.hub.download_url_to_file(url, unchecked, progress=progress)  # writes beside and renames
            if md5 is not None:
                found = _md5(unchecked)
                if not found.startswith(md5):
                    raise ValueError(f'its MD5 must begin with {md5}, but is {found}, so it was removed')
                os.replace(unchecked, path)
        finally:
            if unchecked != path and osp.isfile(unchecked):
                os.remove(unchecked)


def find_local(filename: str) -> str:
    """Find the file that a local path stands for.

    A path that is not there, but ends with the name of a public checkpoint, stands for that checkpoint in torch's hub
    folder; it is fetched if it is not there either.

    Args:
        filename (str): A local path.

    Returns:
        str: The path of a file that is there.

    Raises:
        FileNotFoundError: There is none, and none can be fetched; the message says what to put where.
    """
    filename = osp.expanduser(filename)
    if osp.isfile(filename):
        return filename
    public = PUBLIC_CHECKPOINTS.get(osp.basename(filename))
    if public is None:
        raise FileNotFoundError(f"checkpoint '{filename}' is not a file: {_FETCH}")
    path = _hub_path(osp.basename(filename))
    reason = 'without a published hash it is not fetched'
    if public.md5 is not None or osp.isfile(path):
        try:
            if not osp.isfile(path):
                _fetch(public.url, path, public.md5)
            MMLogger.get_current_instance().info(f"checkpoint '{filename}' is not a file: '{path}' takes its place")
            return path
        except (OSError, HTTPException, ValueError) as error:
            reason = f'fetching it failed ({error})'
    known = f' (its MD5 begins with {public.md5})' if public.md5 else ''
    raise FileNotFoundError(
        f"checkpoint '{filename}' is not a file, and {reason}: fetch {public.url}{known} elsewhere and put it at "
        f"'{osp.abspath(filename)}'")


def load_from_local(filename: str, map_location: Any = None) -> dict:
    """Read a checkpoint (``torch.save`` or ``.safetensors``) without running anything that it holds.

    Args:
        filename (str): A local path, or that of a public checkpoint, see :func:`find_local`.
        map_location: As for :func:`torch.load`.

    Returns:
        dict: The checkpoint, without ``meta['config']``.

    Raises:
        FileNotFoundError: No such file, or a folder.
        RuntimeError: The file is damaged or of another format, holds objects other than weights, or would take more
            memory than twice its size.
    """
    filename = find_local(filename)
    return _read(filename, map_location, filename)


def load_from_http(filename: str, map_location: Any = None, model_dir: str | None = None,
                   progress: bool = True) -> dict:
    """Fetch a checkpoint once a machine into torch's hub folder, then read it as :func:`load_from_local` does.

    What comes from the address of a public checkpoint must have its hash.
    """
    path = _hub_path(osp.basename(filename.split('?')[0]), model_dir)
    if not osp.isfile(path):
        md5 = {public.url: public.md5 for public in PUBLIC_CHECKPOINTS.values()}.get(filename)
        try:
            _fetch(filename, path, md5, progress)
        except (OSError, HTTPException, ValueError) as error:
            raise RuntimeError(f"checkpoint '{filename}' cannot be fetched ({error}): check the network, or fetch it "
                               f"elsewhere and put it at '{path}'") from error
    return load_from_local(path, map_location)


def load_from_openmmlab(filename: str, map_location: Any = None) -> dict:
    """Read ``open-mmlab://NAME``, a name that MMEngine knows, as its own loader does; RuntimeError if it does not."""
    name = filename.split('://', 1)[1]
    name = stock.get_deprecated_model_names().get(name, name)
    url = stock.get_external_models().get(name)
    if url is None:
        raise RuntimeError(f"checkpoint '{filename}' must have a name that MMEngine knows "
                           f'(mmengine/hub/openmmlab.json): {_FETCH}')
    if url.startswith(('http://', 'https://')):
        return load_from_http(url, map_location)
    return load_from_local(osp.join(stock._get_mmengine_home(), url), map_location)


def load_from_ceph(filename: str, map_location: Any = None, backend: str = 'petrel') -> dict:
    """Read ``s3://`` and ``petrel://`` through MMEngine's file backend; see :func:`load_from_local`."""
    content = get_file_backend(filename, backend_args=dict(backend=backend)).get(filename)
    with tempfile.NamedTemporaryFile(suffix=osp.splitext(filename)[1]) as file:
        file.write(content)
        file.flush()
        return _read(file.name, map_location, filename)


def load_from_pavi(filename: str, map_location: Any = None) -> dict:
    """Refuse ``pavi://``, whose package is not public."""
    raise RuntimeError(f"checkpoint '{filename}' must be a file or an address that can be read without the package "
                       f'pavi: fetch it, and {_FETCH}')
