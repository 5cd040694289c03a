"""A quiet, seeded environment for every test."""
import os

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before torch reads it

import numpy as np
import pytest
import torch
from mmengine.model import BaseModule
from mmengine.registry import DefaultScope

import mmspt  # noqa: F401


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """Seed, use MMPretrain's scope as every config does, and leave out MMEngine's line for each parameter."""
    torch.manual_seed(0)
    np.random.seed(0)
    monkeypatch.setattr(BaseModule, '_dump_init_info', lambda self: None)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield
