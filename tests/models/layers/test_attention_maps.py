"""Attention weights against those of torch's attention in the concatenated network."""
import mmpretrain.models.utils.attention as stock
import pytest
import torch
import torch.nn.functional as F

from mmspt.models.layers.attention_maps import attention_maps
from written_out import build


@pytest.mark.parametrize(('method', 'kwargs'), [
    ('deep', dict()), ('shallow', dict(with_cls_token=False, out_type='featmap', qkv_bias=False)), ('gated', dict())],
    ids=str)
@torch.no_grad()
def test_the_concatenated_network_attends_the_same(method, kwargs, monkeypatch):
    net, images, n = build(method, **kwargs).eval(), torch.randn(2, 3, 32, 32), int(kwargs.get('with_cls_token', True))
    actual = [attention_maps(layer, read.tokens, read.prompts, n, read.logit_scale)
              for layer, read in zip(net.layers, net.block_inputs(images), strict=True)]
    concatenated, seen = build(method, concatenate=True, **kwargs).eval(), []
    for layer in concatenated.layers:
        def spy(query, key, value, **kwargs):
            seen.append((query, key))
            return stock.scaled_dot_product_attention(query, key, value, **kwargs)
        monkeypatch.setattr(layer.attn, 'scaled_dot_product_attention', spy)
    concatenated.shortened = False
    concatenated(images)
    tokens = n + 4 + 16
    for maps, (query, key) in zip(actual, seen, strict=True):
        identity = torch.eye(tokens).expand(*query.shape[:2], -1, -1)
        expected = F.scaled_dot_product_attention(query, key, identity)  # values 1 at one key: the weights themselves
        assert maps.shape == (2, 2, tokens, tokens)
        torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64])
def test_rows_sum_to_one_in_fp32_whatever_the_network_computes_in(dtype):
    net = build().eval().to(dtype)
    maps = attention_maps(net.layers[0], torch.randn(2, 7, 32, dtype=dtype), torch.randn(3, 32))
    assert maps.dtype == torch.float32 and not maps.requires_grad
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 2, 10))
