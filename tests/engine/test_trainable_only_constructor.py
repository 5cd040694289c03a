"""The same parameter groups as MMEngine's own constructor, without its warnings."""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import DefaultOptimWrapperConstructor, build_optim_wrapper
from torch import nn

from mmspt.engine.optimizers import TrainableOnlyOptimWrapperConstructor
from mmspt.engine.optimizers.paramwise import check_paramwise

SCHEDULE = Path(__file__).parents[2] / 'configs' / '_base_' / 'schedules' / 'spt_100e.py'


class Model(nn.Module):
    """Frozen, trained and half-trained parts under a classifier's names."""

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
    schedule()[1] | dict(head_decay=None),
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
    wrapped = nn.Module()
    wrapped.module = model
    optim_wrapper = build_optim_wrapper(wrapped, Config.fromfile(SCHEDULE).optim_wrapper)
    assert isinstance(optim_wrapper.optimizer, torch.optim.AdamW)
    names = ['backbone.prompts', 'backbone.norm.weight', 'backbone.norm.bias', 'neck.0.bias', 'neck.1.1.weight',
             'neck.1.1.bias', 'head.fc.weight', 'head.fc.bias']
    assert by_parameter(optim_wrapper, model) == dict.fromkeys(names, (5e-2, 0.)) | {
        'backbone.prompts': (5e-2, 0.01), 'head.fc.weight': (5e-2, 0.5)}
    assert {type(group) for group in optim_wrapper.optimizer.param_groups} == {dict}  # torch.compile looks into them


def head(paramwise_cfg, weight_decay=0.01, **kwargs):
    """(rate, decay) of the trained parameters, under a decay of 0.01 for the others."""
    model = Model()
    cfg = dict(optimizer=dict(type='AdamW', lr=0.1, weight_decay=weight_decay), **kwargs)
    return by_parameter(TrainableOnlyOptimWrapperConstructor(cfg, paramwise_cfg)(model), model)


def test_head_decay_is_absolute():
    """It leaves parameters of one dimension to the other rules; a key sets the head's rate, not its decay."""
    decays = head(dict(head_decay=3), weight_decay=0.)
    assert {name: decay for name, (_, decay) in decays.items()} == dict.fromkeys(decays, 0.) | {'head.fc.weight': 3}
    keys = {'head': dict(lr_mult=0.5, decay_mult=7.), 'prompts': dict(decay_mult=2.)}
    decays = head(dict(head_decay=3., custom_keys=keys))
    assert decays['head.fc.weight'] == (0.05, 3.) and decays['backbone.prompts'] == (0.1, 0.02)


def test_head_decay_needs_a_head():
    model = Model()
    del model.head
    with pytest.raises(ValueError, match=r'head_decay needs a parameter head\.\*.*Model has none'):
        build_optim_wrapper(model, Config.fromfile(SCHEDULE).optim_wrapper)


@pytest.mark.parametrize('value', [-0.1, '0.5'])
def test_wrong_head_decay(value):
    with pytest.raises(ValueError, match=r'head_decay must be a finite number of at least 0.*got .*: set') as error:
        head(dict(head_decay=value))
    assert repr(value) in str(error.value)


OURS, BY_LAYER = 'mmspt.TrainableOnlyOptimWrapperConstructor', 'LearningRateDecayOptimWrapperConstructor'


@pytest.mark.parametrize(('constructor', 'paramwise_cfg', 'message'), [
    (OURS, dict(head_decy=9), "does not read head_decy=9: write head_decay$"),
    (OURS, dict(head_decy=None), 'write head_decay'), (None, dict(bias_decay_mul=0.), 'write bias_decay_mult'),
    (OURS, dict(layer_decay_rate=0.65), f'take constructor={BY_LAYER}, or set it to None'),
    (BY_LAYER, dict(head_decay=0.5), f'{BY_LAYER} does not read head_decay=0.5: take constructor={OURS}, or set it'),
    (None, dict(head_decay=0.5), 'DefaultOptimWrapperConstructor does not read head_decay'),
    (OURS, dict(custom_keys=dict(prompts=dict(lr_mlt=3))), r"custom_keys\['prompts'\].lr_mlt=3: write lr_mult"),
    (BY_LAYER, dict(custom_keys=dict(head=dict(lr_mult=3))), 'lr_mult=3: leave it out'),
])
def test_options_that_would_do_nothing(constructor, paramwise_cfg, message):
    cfg = dict(optimizer=dict(type='SGD', lr=1.), constructor=constructor, paramwise_cfg=paramwise_cfg)
    with pytest.raises(ValueError, match=message):
        check_paramwise(cfg)
    if constructor == OURS:  # so MMPretrain's tools refuse it too
        with pytest.raises(ValueError, match=message):
            build_optim_wrapper(Model(), cfg)


@pytest.mark.parametrize(('constructor', 'paramwise_cfg'), [
    (BY_LAYER, dict(head_decay=None, layer_decay_rate=0.65, custom_keys={'.ln': dict(decay_mult=0.)})),
    ('MyConstructor', dict(my_option=1)), (OURS, None), (None, dict(custom_keys=dict(bn=dict(lars_exclude=True))))])
def test_options_that_are_read(constructor, paramwise_cfg):
    check_paramwise(dict(constructor=constructor, paramwise_cfg=paramwise_cfg))


def test_keys_of_no_parameter_are_named(monkeypatch):
    said = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'warning', said.append)
    head(dict(custom_keys={'promts': dict(lr_mult=2.), '.neck': dict(lr_mult=2.), 'fc.bias': dict(lr_mult=2.)}))
    assert [text for text in said if 'No parameter has' in text] == [
        "No parameter has 'promts' in its name: these of paramwise_cfg.custom_keys do nothing"]
