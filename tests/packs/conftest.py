"""Packs written by hand, with json and safetensors alone, and tuned classifiers to make packs of."""
import json
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

from helpers import tiny_backbone

PIPELINE = [dict(type='mmspt.LoadImageFromFile'), dict(type='Resize', scale=32), dict(type='PackInputs')]
IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)


@pytest.fixture
def card():
    """The card of a pack of a network of 2 blocks, width 8, 3 deep prompts and 3 classes; to be changed."""
    return dict(
        version=2, task='birds', classes=['wren', 'crow', 'owl'], fingerprint='0123456789abcdef' * 4,
        checkpoint='vit.pth',
        backbone=dict(embed_dims=8, num_layers=2, num_heads=2, feedforward_channels=16, img_size=[8, 16],
                      patch_size=[4, 4], in_channels=3, qkv_bias=True, eps=1e-6, pre_norm=False, layer_scale=False,
                      with_cls_token=True, interpolate_mode='bicubic', out_type='cls_token', final_norm=True,
                      num_prompts=3, prompt_type='deep', pool_prompts=True, num_registers=0, activation='GELU',
                      patch_bias=True),
        preprocessing=dict(size=[8, 16], resize=[8, 16], crop=False, interpolation='bilinear', backend='cv2',
                           mean=[1., 2., 3.], std=[4., 5., 6.], to_rgb=True),
        recipe='a = 1\n', metrics={'accuracy/top1': 81.5}, versions=dict(mmspt='0.1'))


@pytest.fixture
def tensors():
    """The tuned weights beside ``card``."""
    generator = torch.Generator().manual_seed(0)
    shapes = {'prompts': (2, 3, 8), 'head.fc.weight': (3, 8), 'head.fc.bias': (3, )}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture
def write(tmp_path):
    """Write a pack of a card (or its text) and tensors; return its path."""

    def write(card, tensors, name='made.safetensors'):
        path = tmp_path / name
        text = card if isinstance(card, str) else json.dumps(card)
        path.write_bytes(safetensors.torch.save(tensors, {'mmspt_pack': text}))
        return path

    return write


@pytest.fixture
def tuned():
    """Build a tuned classifier of the golden cases' size: its ``model``, in eval mode, and ``config``."""

    def tuned(case='mae_deep', classes=3, pipeline=PIPELINE, model=None, seed=0, **backbone):
        config = Config(dict(
            model=dict(type='mmspt.ImageClassifier', backbone=tiny_backbone(case, **backbone), neck=None,
                       head=dict(type='LinearClsHead', num_classes=classes, in_channels=64)) | (model or {}),
            data_preprocessor=IMAGENET, test_dataloader=dict(dataset=dict(type='CustomDataset', pipeline=pipeline))))
        built = MODELS.build(config.model)
        built.init_weights()
        generator = torch.Generator().manual_seed(seed)
        for name, weight in built.named_parameters():
            if name.endswith(('prompts.tokens', 'gate_logits')) or name.startswith('head'):
                weight.detach().normal_(generator=generator)
            elif name.endswith('temperatures'):
                weight.detach().uniform_(0.3, 12., generator=generator)  # some beyond their range
        return SimpleNamespace(model=built.eval(), config=config)

    return tuned
