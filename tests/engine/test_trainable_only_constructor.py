"""The same parameter groups as MMEngine's own constructor, without its warnings."""
import logging
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import DefaultOptimWrapperConstructor, build_optim_wrapper
from torch import nn

from mmspt.engine.optimizers import TrainableOnlyOptimWrapperConstructor

SCHEDULE = Path(__file__).parents[2] / 'configs' / '_base_' / 'schedules' / 'spt_100e.py'


class Model(nn.Module):
    """Frozen, trained and half-trained parts under the names that a classifier gives them."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.prompts = nn.Parameter(torch.zeros(2, 3, 4))
        self.backbone.layers = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Conv2d(4, 4, 3, groups=4))
        self.backbone.norm = nn.LayerNorm(4)
        self.backbone.layers.requires_grad_(False)
        self.neck = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
        self.neck[0].weight.requires_grad_(False)
        self.neck[1][0].requires_grad_(False)
        self.head = nn.Module()
        self.head.fc = nn.Linear(4, 5)


def schedule():
    cfg = Config.fromfile(SCHEDULE).optim_wrapper.to_dict()
    constructor, paramwise_cfg = cfg.pop('constructor'), cfg.pop('paramwise_cfg')
    assert constructor == 'mmspt.TrainableOnlyOptimWrapperConstructor'
    return cfg, paramwise_cfg


def groups(optim_wrapper, model):
    """(names, learning rate, weight decay, other options) of every group, in order."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [([names[id(p)] for p in group['params']], {k: v for k, v in group.items() if k != 'params'})
            for group in optim_wrapper.optimizer.param_groups]


def by_parameter(optim_wrapper, model):
    return {name: (options['lr'], options['weight_decay'])
            for names, options in groups(optim_wrapper, model) for name in names}


@pytest.mark.parametrize('paramwise_cfg', [
    schedule()[1],
    dict(norm_decay_mult=0., dwconv_decay_mult=0.3, bias_lr_mult=2.),
    dict(custom_keys={'prompts': dict(lr_mult=10., decay_mult=0.), 'head': dict(lr_mult=0.1)}),
    None,
], ids=['spt', 'norms', 'custom', 'none'])
def test_groups_of_the_default_constructor(paramwise_cfg):
    model, cfg = Model(), schedule()[0]
    expected = DefaultOptimWrapperConstructor(cfg, paramwise_cfg)(model)
    actual = TrainableOnlyOptimWrapperConstructor(cfg, paramwise_cfg)(model)
    assert type(actual.optimizer) is type(expected.optimizer)
    assert groups(actual, model) == groups(expected, model)


def test_decay_of_the_recipe():
    model = Model()
    optim_wrapper = build_optim_wrapper(model, Config.fromfile(SCHEDULE).optim_wrapper)
    assert isinstance(optim_wrapper.optimizer, torch.optim.AdamW)
    assert by_parameter(optim_wrapper, model) == {
        'backbone.prompts': (5e-2, 0.01),
        'backbone.norm.weight': (5e-2, 0.),
        'backbone.norm.bias': (5e-2, 0.),
        'neck.0.bias': (5e-2, 0.),
        'neck.1.1.weight': (5e-2, 0.),
        'neck.1.1.bias': (5e-2, 0.),
        'head.fc.weight': (5e-2, 0.5),
        'head.fc.bias': (5e-2, 0.),
    }


def count_warnings(constructor_class, model, caplog):
    caplog.clear()
    constructor_class(*schedule())(model)
    return sum('is skipped' in record.message for record in caplog.records)


def test_frozen_modules_are_not_warned_about(caplog, monkeypatch):
    def log(message, logger=None, level=logging.INFO):
        logging.getLogger('test').log(level, message)

    monkeypatch.setattr('mmengine.optim.optimizer.default_constructor.print_log', log)
    model = Model()
    # 6 parameters of backbone.layers, 2 of neck.1.0, and neck.0.weight, whose module trains its bias
    assert count_warnings(DefaultOptimWrapperConstructor, model, caplog) == 9
    assert count_warnings(TrainableOnlyOptimWrapperConstructor, model, caplog) == 1


def test_wrapped_model():
    model = Model()
    wrapped = nn.Module()
    wrapped.module = model
    constructor = TrainableOnlyOptimWrapperConstructor(*schedule())
    assert groups(constructor(wrapped), model) == groups(constructor(model), model)


def test_groups_are_plain_dicts():
    """torch.compile of MMEngine's train_step looks into them."""
    wrapper = build_optim_wrapper(Model(), Config.fromfile(SCHEDULE).optim_wrapper)
    assert {type(group) for group in wrapper.optimizer.param_groups} == {dict}
