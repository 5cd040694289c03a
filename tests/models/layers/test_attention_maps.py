"""Attention weights against what the concatenated network hands to torch's attention, and against plain loops."""
import math

import mmpretrain.models.utils.attention as stock
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer

from helpers import DATA, tiny_backbone
from mmspt.models.layers.attention_maps import attention_maps

B, N_E, N_P, D, HEADS = 2, 6, 3, 32, 4


def backbone_of(case, **kwargs):
    """A golden case's network with its prompts, and its images."""
    arrays = {key: torch.from_numpy(value) for key, value in np.load(DATA / f'{case}.npz').items()}
    model = MODELS.build(tiny_backbone(case, **kwargs))
    model.init_weights()
    with torch.no_grad():
        model.prompts.tokens.copy_(arrays['prompt'] * 3)  # far from patches, so that they stand out
    return model.eval(), arrays['x']


def random_block(**kwargs):
    torch.manual_seed(0)
    block = TransformerEncoderLayer(D, HEADS, 2 * D, **kwargs)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return block.eval()


@pytest.mark.parametrize('case', ['mae_deep', 'mocov3_shallow'])
def test_the_concatenated_network_asks_the_same(case, monkeypatch):
    model, images = backbone_of(case)
    actual = [attention_maps(layer, read.tokens, read.prompts, model.num_extra_tokens)
              for layer, read in zip(model.layers, model.block_inputs(images), strict=True)]

    concatenated, _ = backbone_of(case, concatenate=True)
    seen = []
    for layer in concatenated.layers:
        def spy(query, key, value, **kwargs):
            seen.append((query, key))
            return stock.scaled_dot_product_attention(query, key, value, **kwargs)
        monkeypatch.setattr(layer.attn, 'scaled_dot_product_attention', spy)
    with torch.no_grad():
        concatenated(images)

    assert len(seen) == len(actual) == 4
    tokens = 1 + 5 + 16
    for maps, (query, key) in zip(actual, seen, strict=True):
        identity = torch.eye(tokens).expand(*query.shape[:2], -1, -1)
        expected = F.scaled_dot_product_attention(query, key, identity)  # values 1 at one key: the weights themselves
        assert maps.shape == (len(images), 4, tokens, tokens)
        torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(('kwargs', 'n', 'shape'), [
    (dict(norm_cfg=dict(type='LN', eps=1e-2)), 1, (N_P, D)), (dict(qkv_bias=False), 0, (B, N_P, D))], ids=str)
def test_plain_loops(kwargs, n, shape):
    block = random_block(**kwargs)
    tokens, prompts = torch.randn(B, n + N_E, D), torch.randn(shape)
    maps = attention_maps(block, tokens, prompts, n)
    assert maps.shape == (B, HEADS, n + N_P + N_E, n + N_P + N_E)
    weight, bias, d = block.attn.qkv.weight.detach(), block.attn.qkv.bias, D // HEADS
    bias = torch.zeros(3 * D) if bias is None else bias.detach()
    for b in range(B):
        own = prompts if prompts.dim() == 2 else prompts[b]
        line = [*tokens[b, :n], *own, *tokens[b, n:]]
        with torch.no_grad():
            line = [block.ln1(token) for token in line]
        for h in range(HEADS):
            rows = slice(h * d, (h + 1) * d)
            queries = [weight[:D][rows] @ token + bias[:D][rows] for token in line]
            keys = [weight[D:2 * D][rows] @ token + bias[D:2 * D][rows] for token in line]
            for q, query in enumerate(queries):
                scores = [math.exp(float(query @ key) / math.sqrt(d)) for key in keys]
                expected = torch.tensor([score / sum(scores) for score in scores])
                torch.testing.assert_close(maps[b, h, q], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64])
def test_rows_sum_to_one_in_fp32_whatever_the_network_computes_in(dtype):
    maps = attention_maps(random_block().to(dtype), torch.randn(B, 1 + N_E, D, dtype=dtype), torch.randn(N_P, D))
    assert maps.dtype == torch.float32 and not maps.requires_grad
    torch.testing.assert_close(maps.sum(-1), torch.ones(B, HEADS, 1 + N_P + N_E))
