"""Trained runs, made once by the commands that a user types; tests must not write into them."""
from types import SimpleNamespace

import pytest

from helpers import make_job, tool

UNIFORM = 'custom_hooks.0.initializer.type=mmspt.UniformInit'
RUNS = {
    'spt': [],
    'spt_seed1': ['randomness.seed=1'],
    'vpt': [UNIFORM],
    'shallow': ['model.backbone.prompt_type=shallow'],
    'linear': ['model.backbone.num_prompts=0'],
}


@pytest.fixture(scope='session')
def runs(tmp_path_factory):
    """Names of RUNS -> work directory, as text, and ``job``; 2 epochs of 3 steps, 4 blocks, 5 prompts, width 64."""
    job = make_job(tmp_path_factory.mktemp('job'))
    folders = {name: str(job.root / 'work_dirs' / name) for name in RUNS}
    for name, options in RUNS.items():
        tool('train.py', job.config, '--work-dir', folders[name], '--cfg-options', 'train_cfg.max_epochs=2',
             'param_scheduler.end=2', 'default_hooks.nmi.interval=3', *options)
    return SimpleNamespace(job=job, **folders)
