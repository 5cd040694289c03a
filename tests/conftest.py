"""A quiet, seeded environment for every test, and trained runs to look at."""
import os
from types import SimpleNamespace

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before torch reads it
os.environ.setdefault('PYTORCH_NVML_BASED_CUDA_CHECK', '1')  # the other check leaves a fork without its GPU

import mmcv
import mmengine
import mmpretrain
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.registry import DefaultScope

import mmspt  # noqa: F401
from helpers import make_job, tool
from hub_server import serve_hub

RUNS = {
    'spt': [],
    'spt_seed1': ['randomness.seed=1'],
    'vpt': ['custom_hooks.0.initializer.type=mmspt.UniformInit'],
    'shallow': ['model.backbone.prompt_type=shallow'],
    'linear': ['model.backbone.num_prompts=0'],
}


def pytest_report_header():
    """Say which of the two stacks is tested."""
    return ', '.join(f'{module.__name__} {module.__version__}' for module in (torch, mmengine, mmcv, mmpretrain))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """See :func:`hub_server.serve_hub`."""
    with serve_hub(tmp_path / 'cache', monkeypatch) as server:
        yield server


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """Seed, use MMPretrain's scope as every config does, and leave out MMEngine's line for each parameter.

    fp32 is fp32: on a GPU convolutions would round to TF32.
    """
    torch.manual_seed(0)
    np.random.seed(0)
    monkeypatch.setattr(BaseModule, '_dump_init_info', lambda self: None)
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture
def unformatted_configs(monkeypatch):
    """YAPF takes more time than a tiny run."""
    monkeypatch.setattr(Config, 'pretty_text', property(lambda self: ''))


@pytest.fixture(scope='session')
def runs(tmp_path_factory):
    """Names of RUNS -> work directory, as text, and ``job``; 2 epochs of 3 steps, 4 blocks, 5 prompts, width 64.

    Made once by the command that a user types; tests must not write into them.
    """
    job = make_job(tmp_path_factory.mktemp('job'))
    folders = {name: str(job.root / 'work_dirs' / name) for name in RUNS}
    for name, options in RUNS.items():
        tool('train.py', job.config, '--work-dir', folders[name], '--cfg-options', 'train_cfg.max_epochs=2',
             'param_scheduler.end=2', 'default_hooks.nmi.interval=3', *options)
    return SimpleNamespace(job=job, **folders)
