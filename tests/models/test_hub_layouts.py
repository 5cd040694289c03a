"""Networks of transformers, timm and OpenCLIP, by their own names, put out what their own code does
(tests/data/hub/record.py)."""
import numpy as np
import pytest
import torch

from helpers import DATA
from mmspt.models import PromptedViT

ARCH = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
SCALED = dict(layer_scale_init_value=1e-5)
CLIP = dict(pre_norm=True, patch_cfg=dict(bias=False), norm_cfg=dict(type='LN', eps=1e-5))
EPS = dict(norm_cfg=dict(type='LN', eps=1e-6))
QUICK = dict(layer_cfgs=dict(act_cfg=dict(type='mmpretrain.QuickGELU')))
FILES = {
    'vit': {}, 'vit_in_memory': {}, 'vit_mae': {}, 'vit_mae_in_memory': {}, 'dinov2': SCALED,
    'dinov2_in_memory': SCALED, 'dinov2_registers': SCALED | dict(num_registers=3),
    'dinov2_registers_in_memory': SCALED | dict(num_registers=3),
    'timm': SCALED, 'timm_reg4': SCALED | dict(num_registers=4), 'timm_clip': CLIP | EPS, 'open_clip': CLIP,
    'openai_clip': CLIP | QUICK, 'clip': CLIP | QUICK | EPS,
}


def build(file, **kwargs):
    init_cfg = dict(type='Pretrained', checkpoint=str(DATA / 'hub' / f'{file}.safetensors'))
    vit = PromptedViT(**{**dict(arch=ARCH, img_size=16, patch_size=4, num_prompts=0, out_type='raw',
                                init_cfg=init_cfg), **FILES[file], **kwargs})
    vit.init_weights()
    return vit


def recorded(file):
    with np.load(DATA / 'hub' / f'{file.removesuffix("_in_memory")}.npz') as content:
        return torch.from_numpy(content['images']), torch.from_numpy(content['tokens'])


@pytest.mark.parametrize('file', FILES)
def test_features(file):
    images, expected = recorded(file)
    with torch.no_grad():
        tokens, = build(file).eval()(images)
    if 'mae' in file:  # its own code shuffles the patches
        tokens, expected = (value.sort(dim=1)[0] for value in (tokens, expected))
    torch.testing.assert_close(tokens, expected, rtol=1e-5, atol=1e-5)
