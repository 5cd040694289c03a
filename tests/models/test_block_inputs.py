"""Tokens that block_inputs streams, against the network written out."""
import pytest
import torch
import torch.nn.functional as F

from written_out import METHODS, build, written_out

CASES = [
    dict(),
    dict(out_type='avg_featmap', final_norm=False, with_cls_token=False),
    dict(out_type='avg_featmap', final_norm=False, num_registers=2),
    dict(out_type='raw', out_indices=[0, 2], pre_norm=True, layer_scale_init_value=0.1),
    dict(prompt_drop_rate=0.5, drop_rate=0.5, drop_path_rate=0.5, frozen=False, concatenate=True),
]


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('kwargs', CASES, ids=str)
@torch.no_grad()
def test_tokens_that_blocks_read(kwargs, method):
    net, images = build(method, **kwargs).eval(), torch.randn(2, 3, 48, 24)
    found, (_, expected) = list(net.block_inputs(images)), written_out(net, images, **kwargs)
    assert len(found) == 3
    projection = net.patch_embed.projection
    embedded = F.conv2d(images, projection.weight, projection.bias, stride=8).flatten(2).transpose(1, 2)
    torch.testing.assert_close(found[0].patches, embedded)  # before position embedding, norm and dropout
    for i, (inputs, (cls, prompts, patches)) in enumerate(zip(found, expected, strict=True)):
        assert inputs.prompts.shape == ((4, 32) if i < len(net.prompts.tokens) else (2, 4, 32))
        torch.testing.assert_close(inputs.prompts.expand(2, -1, -1), prompts, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(inputs.tokens, torch.cat((cls, patches), dim=1), rtol=1e-5, atol=1e-5)
    for inputs, (_, _, patches) in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(inputs.patches, patches, rtol=1e-5, atol=1e-5)


def test_logit_scales_are_inverse_temperatures():
    net = build('gated').eval()
    scales = [inputs.logit_scale for inputs in net.block_inputs(torch.randn(2, 3, 32, 32))]
    torch.testing.assert_close(torch.stack(scales), 1 / net.prompts.temperatures.detach())


def test_no_graph():
    for inputs in build().eval().block_inputs(torch.randn(2, 3, 32, 32)):
        assert torch.is_grad_enabled(), "the caller's own work keeps its gradients"
        assert not inputs.tokens.requires_grad and not inputs.patches.requires_grad and inputs.prompts.grad_fn is None


def test_no_prompts():
    with pytest.raises(ValueError, match=r'num_prompts of at least 1, got 0'):
        next(build(num_prompts=0).block_inputs(torch.randn(2, 3, 32, 32)))
