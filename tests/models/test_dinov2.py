"""A real, publicly distributed ViT-S/14, read in half precision, against what a third party computes with it (ONNX)."""
import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS

from helpers import ROOT

SHARED = ROOT.parent / 'shared'
WEIGHTS, GOLDEN = SHARED / 'data' / 'dinov2_vits14.safetensors', SHARED / 'golden' / 'dinov2.npz'


@pytest.mark.skipif(not (WEIGHTS.is_file() and GOLDEN.is_file()),
                    reason=f'the weights (44 MB) are no part of the repository: {WEIGHTS}')
def test_tokens_of_two_photographs():
    """CLS and patches after the final norm; resized from a grid of 37 x 37 to one of 16 x 16."""
    golden = np.load(GOLDEN)
    model = MODELS.build(dict(
        type='mmspt.PromptedViT', arch='dinov2-small', patch_size=14, img_size=224, layer_scale_init_value=1e-5,
        final_norm=True, num_prompts=0, out_type='raw',
        init_cfg=dict(type='Pretrained', checkpoint=str(WEIGHTS)))).eval()
    model.init_weights()
    images = torch.from_numpy(golden['images']).permute(0, 3, 1, 2).float()  # (2, 3, 224, 224), RGB
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]))
    with torch.no_grad():
        tokens = model((images - mean) / std)[0]  # (2, 257, 384)
    expected = torch.from_numpy(golden['tokens'])
    assert (tokens - expected).abs().max() < 1e-5 * expected.abs().max()
