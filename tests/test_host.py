"""``import mmspt`` adds to the host and replaces nothing of it; what the stock stack needs, the tools do."""
import json
import os
import pkgutil
import re
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dist import init_dist
from mmengine.utils.dl_utils import misc

from foreign import IS_FORK
from helpers import command
from mmspt.engine.start import init_cpu_distributed, prepare_process

TOOLS = Path(__file__).parent.parent / 'tools'
COMPARE = """
import json, pkgutil, socket, sys, warnings
import mmengine, mmpretrain, torch
import mmengine.fileio.backends, mmengine.hub, mmengine.optim, mmengine.runner.checkpoint, mmengine.utils.dl_utils.misc
import mmengine.registry.root, mmengine.visualization, mmpretrain.registry
from mmengine.fileio.backends import backends, prefix_to_backends
from mmengine.registry import Registry
from mmengine.runner.checkpoint import CheckpointLoader

HOST = ('mmengine', 'mmpretrain', 'mmcv', 'torch.hub', 'torch.serialization', 'pkgutil', 'socket', 'importlib')


def look():
    '''Place -> object: all that modules of the host hold, and what their tables and registries hold.'''
    seen = {}
    for name in modules:
        for key, value in vars(sys.modules[name]).items():
            seen[f'{name}.{key}'] = value
            if isinstance(value, type) and value.__module__ == name:
                seen |= {f'{name}.{key}.{part}': inner for part, inner in vars(value).items()}
            if isinstance(value, dict) and not key.startswith('__'):
                seen |= {f'{name}.{key}[{part!r}]': inner for part, inner in value.items()}
            if isinstance(value, Registry):
                seen |= {f'{name}.{key} <- {part}': inner for part, inner in value.module_dict.items()}
    seen |= {f'scheme {key}': loader for key, loader in CheckpointLoader._schemes.items()}
    seen |= {f'backend {key}': backend for key, backend in {**backends, **prefix_to_backends}.items()}
    seen |= {f'warning filter {i}': entry for i, entry in enumerate(warnings.filters)}
    return seen


modules = [name for name in sys.modules if name.partition('.')[0] in HOST or name in HOST]
before = look()
import mmspt
after = look()
print(json.dumps(dict(looked=len(before), gone=sorted(before.keys() - after.keys()),
                      replaced=[key for key in before if key in after and after[key] is not before[key]],
                      models=[name for name in sys.modules if name in ('mmpretrain.models', 'mmspt.models')])))
"""


def test_import_replaces_nothing_of_the_host():
    """And brings in no models. MMEngine itself makes its table of loaders anew; the loaders in it are compared, too."""
    found = json.loads(command(sys.executable, '-W', 'ignore', '-c', COMPARE).splitlines()[-1])
    assert found['looked'] > 5000 and found['gone'] == found['models'] == []
    assert found['replaced'] == ['mmengine.runner.checkpoint.CheckpointLoader._schemes']


@pytest.mark.skipif(torch.cuda.is_available(), reason='the fault is that of machines without a GPU')
def test_fault_stock_distributed_start_needs_a_gpu(monkeypatch):
    for key, value in dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='0').items():
        monkeypatch.setenv(key, value)
    with pytest.raises((RuntimeError, AssertionError), match=r'NVIDIA|CUDA'):
        init_dist('pytorch', backend='gloo')


@pytest.mark.parametrize(('launcher', 'cuda'), [('none', False), ('slurm', False), ('pytorch', True)])
def test_gloo_is_not_started_where_it_is_not_needed(launcher, cuda, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: cuda)
    cfg = Config(dict(launcher=launcher))
    init_cpu_distributed(cfg)
    assert 'model_wrapper_cfg' not in cfg and not torch.distributed.is_initialized()


@pytest.fixture
def _process(monkeypatch):
    """Undo what is done to a process."""
    monkeypatch.setattr(os, 'environ', os.environ.copy())
    with warnings.catch_warnings():
        yield


@pytest.mark.skipif(IS_FORK, reason='the fault is that of stock MMEngine')
@pytest.mark.usefixtures('_process')
def test_a_runner_starts_without_find_loader(monkeypatch):
    """The standard library of Python 3.14."""
    monkeypatch.delattr(pkgutil, 'find_loader', raising=False)
    with pytest.raises(AttributeError, match='find_loader'):
        misc.mmcv_full_available()
    prepare_process()
    assert misc.mmcv_full_available() == (find_spec('mmcv._ext') is not None)


@pytest.mark.usefixtures('_process')
def test_a_process_of_the_tools(monkeypatch):
    """Where Python has ``find_loader`` it stays; MMEngine's fork must not unpickle."""
    finder = object()
    monkeypatch.setattr(pkgutil, 'find_loader', finder, raising=False)
    monkeypatch.delenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', raising=False)
    prepare_process()
    assert pkgutil.find_loader is finder
    assert os.environ.get('TORCH_FORCE_WEIGHTS_ONLY_LOAD') == ('1' if IS_FORK else None)


def test_import_keeps_the_filters_that_others_add(tmp_path):
    """Of packages that it imports first, and of modules that a config imports."""
    (tmp_path / 'noisy.py').write_text('import warnings; warnings.filterwarnings("ignore", "of mine")\n')
    (tmp_path / 'mine.py').write_text('custom_imports = dict(imports=["noisy"])\n')
    code = ('{}; import warnings, sys; sys.path.append("."); from mmspt.config import read_config; '
            'read_config("mine.py"); print(sorted(str(f[:3]) for f in warnings.filters))')
    outputs = [command(sys.executable, '-c', code.format(order), cwd=tmp_path) for order in (
        'import mmspt', 'import numpy, torch, mmengine, mmpretrain, mmcv.cnn.bricks.transformer, mmspt')]
    first, last = (next(line for line in text.splitlines() if line.startswith('["')) for text in outputs)
    assert first == last and 'of mine' in first and 'numpy' in first


def test_nothing_foreign_is_said_at_the_start(tmp_path):
    """What a tool prints first is its own: no warning of what it imports, nor of a config on one of ours."""
    (tmp_path / 'mine.py').write_text("_base_ = 'mmspt::spt/vit-b_mae_cub.py'\n")
    code = ('import runpy, warnings; from mmspt.config import read_config; '
            'from mmspt.engine.start import prepare_process; '
            f'runpy.run_path({str(TOOLS / "train.py")!r}); cfg = read_config("mine.py"); prepare_process(); '
            'cfg.fromfile("mine.py"); from mmengine.visualization import Visualizer; '
            'Visualizer.get_instance("x", vis_backends=cfg.vis_backends, save_dir="."); warnings.warn("another")')
    ran = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert re.findall(r'\w*Warning: (.*)', ran.stderr) == ['another']
