"""A classifier that a checkpoint filled in part: it may train, and nothing else."""
import copy

import pytest
import torch
from mmengine.runner import load_checkpoint
from mmpretrain.registry import MODELS

from helpers import golden_checkpoint, tiny_backbone

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
FC = {'head.fc.weight', 'head.fc.bias'}
TOKENS = {'backbone.prompts.tokens'}
NECK = {f'neck.bn.{name}' for name in ('weight', 'bias', 'running_mean', 'running_var')}


def build(**changes):
    head = dict(type='LinearClsHead', num_classes=3, in_channels=64)
    return MODELS.build(dict(type='ImageClassifier', backbone=tiny_backbone('mae_deep'), head=head) | changes)


@pytest.fixture
def files(tmp_path):
    """Checkpoints: whole, without prompts, and of the head alone."""
    model = build()
    model.init_weights()
    whole = model.state_dict()
    parts = dict(whole=whole, linear={k: v for k, v in whole.items() if k not in TOKENS},
                 head={k: v for k, v in whole.items() if k in FC})
    for name, state in parts.items():
        torch.save(dict(state_dict=state), tmp_path / f'{name}.pth')
    return {name: str(tmp_path / f'{name}.pth') for name in parts} | dict(bare=golden_checkpoint('mae_deep'))


CASES = {  # file, changes of the model, names that are random
    'other classes': ('whole', dict(head=dict(type='LinearClsHead', num_classes=5, in_channels=64)), FC),
    'other head': ('whole', dict(head=dict(type='ArcFaceClsHead', num_classes=3, in_channels=64)),
                   {'head.norm_product.weight'}),
    'neck': ('whole', dict(neck=dict(type='ClsBatchNormNeck', input_features=64, affine=True)), NECK),
    'bare backbone': ('bare', {}, FC | TOKENS),
    'no prompts': ('linear', {}, TOKENS),
    'head alone': ('head', {}, {'backbone.pos_embed'}),
}


@pytest.mark.parametrize('case', CASES)
def test_random_weights_are_refused_outside_training(case, files):
    file, changes, names = CASES[case]
    model = build(**changes).eval()
    load_checkpoint(model, files[file], logger='silent')
    average = copy.deepcopy(model)
    for each in (model, average, model):
        with pytest.raises(RuntimeError, match='outside training every weight must come from a checkpoint') as caught:
            each(IMAGES)
        assert all(name in str(caught.value) for name in names)
    assert '(3, 64)' not in str(caught.value) and ('[5, 64]' in str(caught.value)) == (case == 'other classes')


def test_what_fills_the_rest(files):
    """A step of training, further checkpoints, or no head at all; a model that was given none is left alone."""
    build().eval()(IMAGES)
    model = build()
    load_checkpoint(model, files['bare'], logger='silent')
    model.train()(IMAGES)
    model.eval()(IMAGES)
    model = build().eval()
    for file in ('bare', 'head', 'whole', 'head'):
        load_checkpoint(model, files[file], logger='silent')
    model(IMAGES)
    model = build(backbone=tiny_backbone('mae_deep', allow_random_backbone=True)).eval()
    load_checkpoint(model, files['head'], logger='silent')
    with pytest.raises(RuntimeError, match=r'but 1 are random: backbone.prompts.tokens\.'):
        model(IMAGES)
    model = build(head=None, backbone=tiny_backbone('mae_deep', num_prompts=0)).eval()
    load_checkpoint(model, files['bare'], logger='silent')
    assert torch.compile(model, backend='eager', fullgraph=True)(IMAGES)[-1].shape == (2, 64)
