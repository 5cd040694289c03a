"""Repairs that the stock OpenMMLab stack needs today; ``import mmspt`` applies them, each is a no-op where not needed.

1. MMEngine 0.10 reads every local checkpoint with a bare ``torch.load``. Since torch 2.6 that refuses the
   ``HistoryBuffer`` in MMEngine's own files (so ``--resume``, ``load_from``, ``test.py`` fail); before, and in the
   forks, it unpickles whatever a file holds. Both loaders are replaced, through MMEngine's own ``CheckpointLoader``,
   by one that reads weights, MMEngine's buffers and nothing else, and ``.safetensors`` too.
2. MMEngine's ``init_dist`` and model wrapper assume CUDA; ``init_cpu_distributed`` starts gloo where there is none.
"""
import codecs
import os
import os.path as osp
import pickle
import types
from argparse import Namespace
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.distributed
from mmengine import dist
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader

_FETCH = 'give the path of an existing file (init_cfg.checkpoint, load_from or the command line)'


def _history_statistic(cls: type, name: str) -> Any:
    """Stand in for ``getattr``, by which HistoryBuffer pickles its methods, and reach nothing else."""
    if cls is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(cls, name)
    raise pickle.UnpicklingError(f'getattr({cls!r}, {name!r}) is not part of an MMEngine checkpoint')


def _allowed_globals() -> dict[str, Any]:
    """What MMEngine's checkpoints hold besides tensors and plain containers: qualified name -> object."""
    core = np.core if np.lib.NumpyVersion(np.__version__) < '2.0.0' else np._core  # type: ignore[attr-defined]
    allowed: dict[str, Any] = {
        '_codecs.encode': codecs.encode,  # bytes of a NumPy scalar, pickle protocol 2
        'argparse.Namespace': Namespace,
        'builtins.getattr': _history_statistic,
        'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
        'numpy.dtype': np.dtype,
        'numpy.ndarray': np.ndarray,
    }
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed[f'{module}._reconstruct'] = core.multiarray._reconstruct
        allowed[f'{module}.scalar'] = core.multiarray.scalar
    for dtype in map(np.dtype, np.typecodes['AllInteger'] + np.typecodes['Float'] + '?'):
        allowed[f'{type(dtype).__module__}.{type(dtype).__name__}'] = type(dtype)
    return allowed


class _AllowListUnpickler(pickle.Unpickler):
    """``weights_only`` with our allow-list, for torch < 2.6, whose own list cannot be extended by name."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {**torch._weights_only_unpickler._get_allowed_globals(), **_allowed_globals()}
        module = {'__builtin__': 'builtins'}.get(module, module)  # pickle protocol 2 has Python 2's names
        try:
            return allowed[f'{module}.{name}']
        except KeyError:
            raise pickle.UnpicklingError(f'Unsupported global: {module}.{name}') from None


def _torch_load(filename: str, map_location: Any) -> Any:
    if tuple(int(v) for v in torch.__version__.split('.')[:2]) >= (2, 6):
        with torch.serialization.safe_globals([(obj, name) for name, obj in _allowed_globals().items()]):
            return torch.load(filename, map_location=map_location, weights_only=True)
    module = types.ModuleType('mmspt_restricted_pickle')
    vars(module).update(vars(pickle), Unpickler=_AllowListUnpickler,
                        load=lambda f, **kwargs: _AllowListUnpickler(f, **kwargs).load())
    return torch.load(filename, map_location=map_location, pickle_module=module, weights_only=False)


def load_from_local(filename: str, map_location: Any = None) -> dict:
    """Read a checkpoint (``torch.save`` or ``.safetensors``) without running anything that it holds.

    Args:
        filename (str): A local path.
        map_location: As for :func:`torch.load`.

    Returns:
        dict: The checkpoint.

    Raises:
        FileNotFoundError: No such file.
        RuntimeError: The file is truncated or of another format, or holds objects other than weights.
    """
    filename = osp.expanduser(filename)
    if not osp.isfile(filename):
        raise FileNotFoundError(f"checkpoint '{filename}' does not exist: {_FETCH}")
    try:
        if filename.endswith('.safetensors'):
            device = str(map_location) if isinstance(map_location, (str, torch.device)) else 'cpu'
            return safetensors.torch.load_file(filename, device=device)
        return _torch_load(filename, map_location)
    except pickle.UnpicklingError as error:
        raise RuntimeError(
            f"checkpoint '{filename}' is refused: a checkpoint may hold tensors, plain containers and MMEngine's log "
            f'buffers, and nothing else is unpickled, because unpickling can run code. It says: '
            f'{str(error).strip().splitlines()[0]} {_unsafe_globals(filename)}. If it is damaged, fetch it again; '
            'if you trust it, save its state_dict alone as .safetensors and name that file') from error
    except Exception as error:
        raise RuntimeError(
            f"checkpoint '{filename}' ({osp.getsize(filename):,} bytes) cannot be read: it must be a complete file of "
            f'torch.save or safetensors, but {type(error).__name__}: {error}. Fetch or copy it again') from error


def _unsafe_globals(filename: str) -> str:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(filename)
    except Exception:  # an older torch, or a file too damaged to list: the message goes without the names
        return ''
    return f'(it names {", ".join(sorted(set(names) - set(_allowed_globals())))})'


def load_from_http(filename: str, map_location: Any = None, model_dir: str | None = None,
              progress: bool = True) -> dict:
    """Fetch a checkpoint once a machine into torch's hub folder, then read it as :func:`load_from_local` does."""
    folder = model_dir or osp.join(torch.hub.get_dir(), 'checkpoints')
    path = osp.join(folder, osp.basename(filename.split('?')[0]))
    if dist.get_local_rank() == 0 and not osp.isfile(path):
        os.makedirs(folder, exist_ok=True)
        try:
            torch.hub.download_url_to_file(filename, path, progress=progress)
        except OSError as error:
            raise RuntimeError(f"checkpoint '{filename}' cannot be fetched ({error}): check the network, or fetch it "
                               f"elsewhere and put it at '{path}'") from error
    dist.barrier()
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
    """Install repair 1; called by ``import mmspt``. Repair 2 is called by the tools, before the Runner."""
    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), loader=load_from_http, force=True)
