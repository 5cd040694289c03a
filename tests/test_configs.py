"""Every config parses and builds: model, prompt hook, optimizer groups, schedule."""
import math

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, PARAM_SCHEDULERS, DefaultScope
from mmpretrain.registry import DATASETS, MODELS, TRANSFORMS

from helpers import ROOT

CONFIGS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)
PROMPTED = [path for path in CONFIGS if not path.startswith('configs/pretrain')]


@pytest.mark.parametrize('path', CONFIGS)
def test_builds(path):
    cfg = Config.fromfile(ROOT / path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta' if 'vit-b' in path else 'cpu'):
        model = MODELS.build(cfg.model)
        for hook in cfg.get('custom_hooks', []):
            HOOKS.build(hook)
        for field in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            dataset = (cfg.get(field) or {}).get('dataset', {})
            assert not dataset or DATASETS.get(dataset['type']) is not None
            for transform in dataset.get('pipeline', []):
                assert TRANSFORMS.build(transform) is not None
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        schedulers = cfg.param_scheduler if isinstance(cfg.param_scheduler, list) else [cfg.param_scheduler]
        for scheduler in schedulers:
            scheduler = dict(scheduler)
            scheduler.pop('_scope_', None)
            convert = scheduler.pop('convert_to_iter_based', False)
            cls = PARAM_SCHEDULERS.get(scheduler.pop('type'))
            built = cls.build_iter_from_epoch(wrapper, epoch_length=3, **scheduler) if convert else cls(
                wrapper, **scheduler)
            assert all(math.isfinite(value) for value in built.get_last_value())


@pytest.mark.parametrize('path', PROMPTED)
def test_trains_prompts_and_head_alone(path):
    cfg = Config.fromfile(ROOT / path)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(name == 'backbone.prompts' or name.startswith('head.') for name in trained)
    assert ('backbone.prompts' in trained) == ('linear' not in path)


def groups(path):
    """Parameter name -> (rate, decay) as the config's optimizer wrapper has it."""
    cfg = Config.fromfile(ROOT / path)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: (group['lr'], group['weight_decay'])
            for group in wrapper.optimizer.param_groups for p in group['params'] if p.requires_grad}


@pytest.mark.parametrize('path', ['configs/spt/vit-b_mae_cub.py', 'configs/vpt/vit-b_mae_cub.py'])
def test_the_authors_decay_by_parameter_kind(path):
    assert groups(path) == {
        'backbone.prompts': (5e-2, 0.01), 'head.fc.weight': (5e-2, 0.5), 'head.fc.bias': (5e-2, 0.)}


def test_layer_wise_decay_of_the_stock_config_leaves_prompts_at_the_full_rate():
    assert groups('configs/spt/vit-b_mae_in1k_stock.py') == {
        'backbone.prompts': (2e-3, 0.05), 'head.fc.weight': (2e-3, 0.05), 'head.fc.bias': (2e-3, 0.)}


def test_the_stock_mocov3_config_keeps_its_arguments():
    cfg = Config.fromfile(ROOT / 'configs/spt/vit-b_mocov3_in1k_stock.py')
    assert cfg.model.backbone.stop_grad_conv1 and cfg.model.backbone.frozen_stages == 12
    assert set(groups('configs/spt/vit-b_mocov3_in1k_stock.py')) == {
        'backbone.prompts', 'head.layers.head.weight', 'head.layers.head.bias'}


@pytest.mark.parametrize(('path', 'expected'), [
    ('configs/spt/vit-b_mae_cub.py', (20, 'deep', 'avg_featmap', 200)),
    ('configs/spt/vit-b_mae_cub_shallow.py', (100, 'shallow', 'avg_featmap', 200)),
    ('configs/spt/vit-b_mocov3_cub.py', (20, 'deep', 'cls_token', 200)),
    ('configs/spt/vit-b_mae_flowers17.py', (20, 'deep', 'avg_featmap', 17)),
])
def test_recipes(path, expected):
    cfg = Config.fromfile(ROOT / path)
    backbone = cfg.model.backbone
    assert (backbone.num_prompts, backbone.prompt_type, backbone.out_type, cfg.model.head.num_classes) == expected
    assert cfg.data_preprocessor.num_classes == cfg.model.head.num_classes
    assert cfg.train_dataloader.batch_size == 32 and cfg.train_cfg.max_epochs == 100
