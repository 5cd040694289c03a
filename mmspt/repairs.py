"""Repairs that the stock OpenMMLab stack needs today, installed by ``import mmspt``.

1. MMEngine 0.10 reads every checkpoint with a bare ``torch.load``. Since torch 2.6 that refuses the ``HistoryBuffer``
   in MMEngine's own files (so ``--resume``, ``load_from``, ``test.py`` fail); before, and in the forks, it unpickles
   whatever a file holds. All its loaders are replaced, through MMEngine's own ``CheckpointLoader``, by those of
   ``checkpoint_files.py``, which read tensors, plain containers, MMEngine's own objects and nothing else, and
   ``.safetensors`` too. Where the fault is not, the result is the stock one; what is refused, is refused everywhere.
2. MMEngine's ``init_dist`` and model wrapper assume CUDA; ``init_cpu_distributed`` starts gloo where there is none, and
   does nothing elsewhere.
3. mmcv-lite warns at every start of a compiled operator that nothing here uses; that one warning is not shown.
4. MMEngine's ``AmpOptimWrapper`` refuses the CPU and scales the loss of bfloat16 too. Ours takes its place in the root
   registry, where MMPretrain's ``train.py --amp`` looks; in float16 on a GPU it is the stock one.
5. MMEngine's backend of local files writes over what is there, so that a kill leaves half a checkpoint. Ours, which
   writes beside and renames, takes its place.
6. MMEngine logs a weight of another shape and goes on, so that a prompt pack on a head of other classes would leave a
   random head. For packs this is an error; all else is loaded as ever.
7. MMEngine asks for mmcv's compiled operators by ``pkgutil.find_loader``, which Python 3.14 no longer has, so that no
   ``Runner`` starts. It is given ``importlib.util.find_spec`` instead, and the standard library stays as it is.
"""
import pkgutil
import warnings
from importlib.util import find_spec
from types import SimpleNamespace

import torch
import torch.distributed
from mmengine.config import Config
from mmengine.fileio import register_backend
from mmengine.optim import AmpOptimWrapper as MMEngineAmpOptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from mmengine.utils.dl_utils import misc

from mmspt.checkpoint_files import (
    load_from_ceph,
    load_from_http,
    load_from_local,
    load_from_openmmlab,
    load_from_pavi,
)
from mmspt.engine.optimizers import AmpOptimWrapper
from mmspt.files import LocalBackend
from mmspt.packs.fit import load_state_dict


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
    """Install repairs 1 and 3 to 7; called by ``import mmspt``. Repair 2 is called by the tools, before the Runner."""
    warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``', category=UserWarning)
    # the default runtime leaves it out on purpose, by save_dir=None
    warnings.filterwarnings('ignore', message=r'Failed to add <class .*TensorboardVisBackend', category=UserWarning)
    for prefixes, loader in (('', load_from_local), (('http://', 'https://'), load_from_http),
                             (('open-mmlab://', 'openmmlab://'), load_from_openmmlab), ('pavi://', load_from_pavi),
                             ((r'(\S+\:)?s3://', r'(\S+\:)?petrel://'), load_from_ceph)):
        CheckpointLoader.register_scheme(prefixes=prefixes, loader=loader, force=True)
    checkpoint.load_from_http = load_from_http  # torchvision://, modelzoo:// and mmcls:// call it by its name
    checkpoint.load_state_dict = load_state_dict
    register_backend('local', LocalBackend, force=True, prefixes='')
    if OPTIM_WRAPPERS.get('AmpOptimWrapper') is MMEngineAmpOptimWrapper:  # and not another plug-in's
        OPTIM_WRAPPERS.register_module(name='AmpOptimWrapper', module=AmpOptimWrapper, force=True)
    if not hasattr(pkgutil, 'find_loader') and getattr(misc, 'pkgutil', None) is pkgutil:
        misc.pkgutil = SimpleNamespace(find_loader=find_spec)
