"""Every recipe of the paper's tasks trains two steps and is tested once, by our tool, on toy data in real layouts."""
import sys
from pathlib import Path

import pytest
from modelindex.load_model_index import load as load_index

import train
from helpers import ROOT, scalars
from layouts import CLASSES, TEST, TRAIN, make_task
from mmspt.datasets.tasks import TASKS
from mmspt.evaluation import read_result

TINY = ['model.backbone.arch._delete_=True', 'model.backbone.arch.embed_dims=32', 'model.backbone.arch.num_layers=2',
        'model.backbone.arch.num_heads=2', 'model.backbone.arch.feedforward_channels=64', 'model.head.in_channels=32',
        'model.backbone.init_cfg=None', 'model.backbone.allow_random_backbone=True']
SHORT = [f'train_dataloader.batch_size={CLASSES * TRAIN // 2}', 'train_dataloader.num_workers=0',
         'test_dataloader.num_workers=0', 'train_cfg.max_epochs=1', 'default_hooks.logger.interval=1']

# 196 patches of 32 features leave no direction that they lack
FEW = {'vipamin': ['custom_hooks.0.num_images=2', 'custom_hooks.0.initializer.lam=0']}


def task_of_file(path):
    """The task that a recipe's file name ends with, None for recipes of other data sets."""
    stem = path.stem.removesuffix('_shallow').removesuffix('_kmeans').removesuffix('_spt')
    task = stem.split('_', 2)[2]
    return task if task in TASKS else None


RECIPES = {model.config: task_of_file(Path(model.config)) for model in load_index(str(ROOT / 'model-index.yml')).models}
RECIPES = {path: task for path, task in RECIPES.items() if task}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """A folder in which `data/` holds all 24 tasks."""
    root = tmp_path_factory.mktemp('recipes')
    for task in TASKS:
        make_task(task, root / 'data')
    return root


@pytest.mark.parametrize('path', RECIPES)
def test_trains_two_steps_and_is_tested(path, root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, 'argv', ['train.py', str(ROOT / path), '--work-dir', str(tmp_path), '--cfg-options',
                                      *TINY, *SHORT, *FEW.get(path.split('/')[1], [])])
    train.main()
    losses = [record['loss'] for record in scalars(tmp_path) if 'loss' in record]
    assert len(losses) == 2 and all(0 < loss < 20 for loss in losses)
    result = read_result(tmp_path / 'result.json')
    assert result.task == RECIPES[path] and result.group == TASKS[result.task].group
    assert result.split == 'test' and result.num_images == CLASSES * TEST and result.finished
    assert 0 <= result.metrics['accuracy/top1'] <= 100
    assert result.trained_on['split'] == 'trainval'


def test_all_tasks_have_recipes():
    assert set(RECIPES.values()) == set(TASKS)
