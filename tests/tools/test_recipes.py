"""One recipe of each kind trains two steps and is tested once, by our tool, on toy data in real layouts."""
import sys

import pytest

from helpers import ROOT, load_tool, scalars
from layouts import CLASSES, TEST, TRAIN, make_task
from mmspt.datasets.tasks import TASKS
from mmspt.evaluation import read_result

TINY = ['model.backbone.arch._delete_=True', 'model.backbone.arch.embed_dims=32', 'model.backbone.arch.num_layers=2',
        'model.backbone.arch.num_heads=2', 'model.backbone.arch.feedforward_channels=64', 'model.head.in_channels=32',
        'model.backbone.init_cfg=None', 'model.backbone.allow_random_backbone=True']
SHORT = [f'train_dataloader.batch_size={CLASSES * TRAIN // 2}', 'train_dataloader.num_workers=0',
         'test_dataloader.num_workers=0', 'train_cfg.max_epochs=1', 'default_hooks.logger.interval=1']
# 196 patches of 32 features leave no direction that they lack
FEW = ['custom_hooks.0.num_images=2', 'custom_hooks.0.initializer.lam=0']
THIN = ['model.backbone.prompts.rank=4']  # of 32 features


def run(monkeypatch, config, work_dir, *options):
    """Train by the tool; return the losses."""
    monkeypatch.setattr(sys, 'argv', ['train.py', str(ROOT / config), '--work-dir', str(work_dir), '--cfg-options',
                                      *options])
    load_tool('train').main()
    return [record['loss'] for record in scalars(work_dir) if 'loss' in record]


@pytest.mark.parametrize(('path', 'task', 'options'), [
    ('spt/vit-b_mae_vtab_svhn', 'vtab_svhn', []), ('spt/vit-b_mocov3_cars_shallow', 'cars', []),
    ('vpt/vit-b_mae_nabirds', 'nabirds', []), ('linear/vit-b_sup_flowers102', 'flowers102', []),
    ('finetune/vit-b_mae_dogs', 'dogs', []), ('gatevpt/vit-b_mae_cub', 'cub', []),
    ('vipamin/vit-b_mocov3_cub', 'cub', FEW), ('bpt/vit-b_mae_cars', 'cars', THIN),
    ('bpt/vit-b_sup_cub_shallow', 'cub', THIN)])
def test_trains_two_steps_and_is_tested(path, task, options, tmp_path, monkeypatch):
    make_task(task, tmp_path / 'data')
    monkeypatch.chdir(tmp_path)
    losses = run(monkeypatch, f'configs/{path}.py', tmp_path / 'run', *TINY, *SHORT, *options)
    assert len(losses) == 2 and all(0 < loss < 20 for loss in losses)
    result = read_result(tmp_path / 'run/result.json')
    assert result.task == task and result.group == TASKS[task].group
    assert result.split == 'test' and result.num_images == CLASSES * TEST and result.finished
    assert 0 <= result.metrics['accuracy/top1'] <= 100
    assert result.trained_on['split'] == 'trainval'


def test_pretraining_takes_two_steps(tmp_path, monkeypatch):
    losses = run(monkeypatch, 'configs/pretrain/vit-xs_mae_digits.py', tmp_path, 'train_dataloader.batch_size=10',
                 'train_dataloader.dataset.images_per_class=2', 'train_cfg.max_epochs=1',
                 'default_hooks.logger.interval=1')
    assert len(losses) == 2 and all(0 < loss < 20 for loss in losses)
