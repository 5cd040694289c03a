"""What the tools do before a Runner is built, each in its own process; ``import mmspt`` does none of it."""
import os
import pkgutil
import warnings
from importlib.util import find_spec

import torch
from mmengine.config import Config
from mmengine.runner import checkpoint

from mmspt.config import NO_NEWS


def prepare_process() -> None:
    """Let this process run on every stack that is supported, and read no file by unpickling it.

    * MMEngine asks for mmcv's compiled operators by ``pkgutil.find_loader``, which Python 3.14 no longer has.
    * MMEngine's fork unpickles a file that ``torch.load(weights_only=True)`` refuses, unless torch is told not to.
    * MMEngine warns of the TensorBoard backend that the default runtime leaves out on purpose, and setuptools of what
      MMEngine asks it for ``_base_ = 'mmspt::...'``.
    """
    if not hasattr(pkgutil, 'find_loader'):
        setattr(pkgutil, 'find_loader', find_spec)  # noqa: B010
    if hasattr(checkpoint, 'get_torch_safe_globals'):  # the fork
        os.environ.setdefault('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
    warnings.filterwarnings('ignore', NO_NEWS)
    warnings.filterwarnings('ignore', 'Failed to add <class .*TensorboardVisBackend', UserWarning)


def init_cpu_distributed(cfg: Config) -> None:
    """Let ``--launcher pytorch`` work without a GPU: start gloo before the Runner, wrap the model without devices.

    MMEngine's ``init_dist`` and model wrapper assume CUDA. With a GPU, nothing is done.

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
