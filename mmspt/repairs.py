"""Repairs that the stock OpenMMLab stack needs today, installed by ``import mmspt``.

1. MMEngine 0.10 reads every checkpoint with a bare ``torch.load``. Since torch 2.6 that refuses the ``HistoryBuffer``
   in MMEngine's own files (so ``--resume``, ``load_from``, ``test.py`` fail); before, and in the forks, it unpickles
   whatever a file holds. The loaders of local files and of http(s) are replaced, through MMEngine's own
   ``CheckpointLoader``, by one that reads tensors, plain containers, MMEngine's own objects and nothing else, and
   ``.safetensors`` too. Where the fault is not, its result is the stock one; what it refuses, it refuses everywhere.
2. MMEngine's ``init_dist`` and model wrapper assume CUDA; ``init_cpu_distributed`` starts gloo where there is none, and
   does nothing elsewhere.
3. mmcv-lite warns at every start of a compiled operator that nothing here uses; that one warning is not shown.
4. MMEngine's ``AmpOptimWrapper`` refuses the CPU and scales the loss of bfloat16 too. Ours takes its place in the root
   registry, where MMPretrain's ``train.py --amp`` looks; in float16 on a GPU it is the stock one.
"""
import fcntl
import os
import os.path as osp
import pickle
import re
import types
import warnings
import zipfile
from argparse import Namespace
from collections import OrderedDict
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.distributed
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.optim import AmpOptimWrapper as MMEngineAmpOptimWrapper
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner.checkpoint import CheckpointLoader

from mmspt.engine.optimizers import AmpOptimWrapper

_FETCH = 'give the path of an existing file (init_cfg.checkpoint, load_from or the command line)'
_NUMBER = re.compile(r'[<>=|]?([biufc][0-9]{1,2}|\?|[SU][0-9]+)')


class _Dtype:
    """Stand in for ``numpy.dtype``: numbers, booleans and text, never objects or fields, which reach raw memory."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise pickle.UnpicklingError(f'an array of dtype {code!r} is not part of an MMEngine checkpoint')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[2:5] != (None, None, None):
            raise pickle.UnpicklingError('an array with fields is not part of an MMEngine checkpoint')
        if state[1] in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stand in for ``numpy.ndarray`` while a file is read; :func:`_finish` makes the array, from a copy of its bytes.

    A real array must not be in the unpickler's hands: filled twice, it frees memory that a tensor may still show.
    """

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state
        if not isinstance(self.dtype, _Dtype) or not isinstance(self.data, bytes):
            raise pickle.UnpicklingError('an array of objects is not part of an MMEngine checkpoint')

    def finish(self) -> np.ndarray:
        array = np.frombuffer(self.data, self.dtype.dtype) if self.data else np.empty(0, self.dtype.dtype)
        return array.reshape(self.shape, order='F' if self.fortran else 'C').copy(order='K')


class _OneCycle:
    """Stand in for OneCycleParamScheduler, of which a checkpoint names static methods alone."""


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
        raise pickle.UnpicklingError(f'the encoding {encoding!r} is not part of an MMEngine checkpoint')
    return text.encode('latin1')


def _method(cls: type, name: str) -> Any:
    """Stand in for ``getattr``, by which MMEngine's objects pickle their methods, and reach nothing else."""
    if cls is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(HistoryBuffer, name)
    if cls is _OneCycle and name in ('_annealing_cos', '_annealing_linear'):
        return getattr(OneCycleParamScheduler, name)
    raise pickle.UnpicklingError(f'getattr({cls!r}, {name!r}) is not part of an MMEngine checkpoint')


# what MMEngine's checkpoints hold besides tensors and plain containers: qualified name -> object given in its place
ALLOWED: dict[str, Any] = {
    '_codecs.encode': _encode,
    'argparse.Namespace': Namespace,
    'builtins.bytes': _no_bytes,  # b'' in pickle protocol 2
    'builtins.getattr': _method,
    'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
    'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler': _OneCycle,
    'numpy.dtype': _Dtype,
    'numpy.ndarray': _Array,
    **{f'{core}.multiarray._reconstruct': _reconstruct for core in ('numpy.core', 'numpy._core')},
    **{f'{core}.multiarray.scalar': _scalar for core in ('numpy.core', 'numpy._core')},
}


def _finish(value: Any) -> Any:
    """Put arrays and dtypes where their stand-ins are, in containers and in the objects of ALLOWED."""
    if isinstance(value, _Array):
        return value.finish()
    if isinstance(value, _Dtype):
        return value.dtype
    if isinstance(value, dict):
        for key in value:
            value[key] = _finish(value[key])
    elif isinstance(value, list):
        value[:] = [_finish(item) for item in value]
    elif type(value) is tuple:
        return tuple(_finish(item) for item in value)
    elif isinstance(value, (HistoryBuffer, Namespace)):
        _finish(vars(value))
    return value


_PythonUnpickler: Any = pickle._Unpickler


class _AllowListUnpickler(_PythonUnpickler):
    """``weights_only`` with our allow-list, for torch < 2.6, whose own list cannot be extended by name.

    Python's own unpickler, not C's, so that a file can set the state of data alone, never of functions and classes.
    """
    dispatch = _PythonUnpickler.dispatch.copy()

    def load_build(self) -> None:
        if type(self.stack[-2]) not in (OrderedDict, HistoryBuffer, Namespace, _Array, _Dtype):
            raise pickle.UnpicklingError(f'a state for {self.stack[-2]!r} is not part of an MMEngine checkpoint')
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build

    def find_class(self, module: str, name: str) -> Any:
        allowed = {**torch._weights_only_unpickler._get_allowed_globals(), **ALLOWED}
        module = {'__builtin__': 'builtins'}.get(module, module)  # pickle protocol 2 has Python 2's names
        try:
            return allowed[f'{module}.{name}']
        except KeyError:
            raise pickle.UnpicklingError(f'Unsupported global: {module}.{name}') from None


def _torch_load(filename: str, map_location: Any) -> Any:
    if tuple(int(v) for v in torch.__version__.split('.')[:2]) >= (2, 6):
        with torch.serialization.safe_globals([(obj, name) for name, obj in ALLOWED.items()]):
            return _finish(torch.load(filename, map_location=map_location, weights_only=True))
    if zipfile.is_zipfile(filename):
        with zipfile.ZipFile(filename) as archive:
            if any(name.endswith('constants.pkl') for name in archive.namelist()):
                raise pickle.UnpicklingError('a TorchScript archive holds code')  # torch.load would run it
    module = types.ModuleType('mmspt_restricted_pickle')
    vars(module).update(vars(pickle), Unpickler=_AllowListUnpickler,
                        load=lambda f, **kwargs: _AllowListUnpickler(f, **kwargs).load())
    return _finish(torch.load(filename, map_location=map_location, pickle_module=module, weights_only=False))


def load_from_local(filename: str, map_location: Any = None) -> dict:
    """Read a checkpoint (``torch.save`` or ``.safetensors``) without running anything that it holds.

    Args:
        filename (str): A local path.
        map_location: As for :func:`torch.load`.

    Returns:
        dict: The checkpoint.

    Raises:
        FileNotFoundError: No such file, or a folder.
        RuntimeError: The file is truncated or of another format, or holds objects other than weights.
    """
    filename = osp.expanduser(filename)
    if not osp.isfile(filename):
        raise FileNotFoundError(f"checkpoint '{filename}' is not a file: {_FETCH}")
    try:
        if filename.endswith('.safetensors'):
            device = str(map_location) if isinstance(map_location, (str, torch.device)) else 'cpu'
            return safetensors.torch.load_file(filename, device=device)
        return _torch_load(filename, map_location)
    except pickle.UnpicklingError as error:
        raise RuntimeError(
            f"checkpoint '{filename}' is refused: a checkpoint may hold tensors, plain containers and MMEngine's own "
            'objects, and nothing else is unpickled, because unpickling can run code; refused was: '
            f'{_offence(filename, error)}. If the file is damaged, fetch it again; if you trust it, save its '
            'state_dict alone as .safetensors and name that file') from error
    except Exception as error:
        raise RuntimeError(
            f"checkpoint '{filename}' ({osp.getsize(filename):,} bytes) cannot be read: it must be a complete file of "
            f'torch.save or safetensors, but {type(error).__name__}: {error}. Fetch or copy it again') from error


def _offence(filename: str, error: Exception) -> str:
    """Name what was refused: torch's own message advises to unpickle all the same."""
    try:
        names = set(torch.serialization.get_unsafe_globals_in_checkpoint(filename)) - set(ALLOWED)
    except Exception:  # an older torch, or a file too damaged to list
        names = set()
    if names:
        return ', '.join(sorted(names))
    reason = re.search(r'WeightsUnpickler error:\s+(.+)', str(error))
    return reason.group(1) if reason else str(error).strip().splitlines()[0]


def load_from_http(filename: str, map_location: Any = None, model_dir: str | None = None,
                   progress: bool = True) -> dict:
    """Fetch a checkpoint once a machine into torch's hub folder, then read it as :func:`load_from_local` does."""
    folder = model_dir or osp.join(torch.hub.get_dir(), 'checkpoints')
    path = osp.join(folder, osp.basename(filename.split('?')[0]))
    if not osp.isfile(path):
        try:
            os.makedirs(folder, exist_ok=True)
            with open(f'{path}.lock', 'w', encoding='utf-8') as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # the first process fetches, the others find the file
                if not osp.isfile(path):
                    torch.hub.download_url_to_file(filename, path, progress=progress)  # writes beside and renames
        except OSError as error:
            raise RuntimeError(f"checkpoint '{filename}' cannot be fetched ({error}): check the network, or fetch it "
                               f"elsewhere and put it at '{path}'") from error
    return load_from_local(path, map_location)


def init_cpu_distributed(cfg: Config) -> None:
    """Let ``--launcher pytorch`` work without a GPU: start gloo before the Runner, wrap the model without devices.

    Args:
        cfg (Config): The run's config; ``model_wrapper_cfg`` is set in place if it is not there.
    """
    if cfg.get('launcher', 'none') != 'pytorch' or torch.cuda.is_available():
        return
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
    cfg.setdefault('model_wrapper_cfg', dict(
        type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False)))


def apply() -> None:
    """Install repairs 1, 3 and 4; called by ``import mmspt``. Repair 2 is called by the tools, before the Runner."""
    warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``', category=UserWarning)
    # the default runtime leaves it out on purpose, by save_dir=None
    warnings.filterwarnings('ignore', message=r'Failed to add <class .*TensorboardVisBackend', category=UserWarning)
    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), loader=load_from_http, force=True)
    if OPTIM_WRAPPERS.get('AmpOptimWrapper') is MMEngineAmpOptimWrapper:  # and not another plug-in's
        OPTIM_WRAPPERS.register_module(name='AmpOptimWrapper', module=AmpOptimWrapper, force=True)
