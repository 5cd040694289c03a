"""What block_inputs streams, against what hooks catch at the blocks of the network whose prompts are all tokens."""
import copy

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS

from helpers import SMALL

N_P, WIDTH, PATCH = 4, 32, 8
CASES = [
    dict(out_type='cls_token'),
    dict(out_type='avg_featmap', final_norm=False),
    dict(out_type='avg_featmap', final_norm=False, pool_prompts=False),
    dict(out_type='avg_featmap', final_norm=False, with_cls_token=False),
    dict(out_type='raw', out_indices=[0, 2]),
    dict(pre_norm=True, layer_scale_init_value=0.1),
    dict(prompt_drop_rate=0.5, drop_rate=0.5, drop_path_rate=0.5, frozen=False),
]
PROMPT_TYPES = ['deep', 'shallow']


def build(prompt_type='deep', **kwargs):
    """Both forms of one network, in eval mode: prompts as keys and values, and as tokens."""
    nets = [MODELS.build(dict(type='mmspt.PromptedViT', num_prompts=N_P, prompt_type=prompt_type,
                              allow_random_backbone=True, concatenate=concatenate, **SMALL, **copy.deepcopy(kwargs)))
            for concatenate in (False, True)]
    for parameter in nets[0].parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    nets[1].load_state_dict(nets[0].state_dict())
    return [net.eval() for net in nets]


def caught(net, images):
    """What enters each block, prompts included: (B, n + N_p + N_e, D)."""
    seen = []
    hooks = [layer.register_forward_pre_hook(lambda module, args: seen.append(args[0])) for layer in net.layers]
    with torch.no_grad():
        net(images)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize('concatenate', [False, True])
@pytest.mark.parametrize('prompt_type', PROMPT_TYPES)
@pytest.mark.parametrize('kwargs', CASES, ids=str)
@pytest.mark.parametrize('size', [(32, 32), (48, 24)], ids=str)
def test_what_blocks_read(size, kwargs, prompt_type, concatenate):
    nets = build(prompt_type, **kwargs)
    images = torch.randn(2, 3, *size)
    expected = caught(nets[1], images)
    actual = list(nets[concatenate].block_inputs(images))
    assert len(actual) == len(expected) == 3
    n, num_patches = int(kwargs.get('with_cls_token', True)), size[0] * size[1] // PATCH**2
    for i, (found, tokens) in enumerate(zip(actual, expected, strict=True)):
        assert tokens.shape == (2, n + N_P + num_patches, WIDTH)
        cls, prompts, patches = tokens.split([n, N_P, num_patches], dim=1)
        own = prompt_type == 'deep' or i == 0
        assert found.prompts.shape == ((N_P, WIDTH) if own else (2, N_P, WIDTH))
        torch.testing.assert_close(found.prompts.expand(2, -1, -1), prompts, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found.tokens, torch.cat((cls, patches), dim=1), rtol=1e-5, atol=1e-5)
        if i:
            torch.testing.assert_close(found.patches, patches, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('prompt_type', PROMPT_TYPES)
@pytest.mark.parametrize('kwargs', CASES, ids=str)
def test_first_patches_are_the_bare_embedding(kwargs, prompt_type):
    """Without the position embedding, and before any norm or dropout."""
    net, _ = build(prompt_type, **kwargs)
    images = torch.randn(2, 3, 32, 32)
    projection = net.patch_embed.projection
    embedded = F.conv2d(images, projection.weight, projection.bias, stride=PATCH).flatten(2).transpose(1, 2)
    found = next(net.block_inputs(images))
    torch.testing.assert_close(found.patches, embedded)
    assert not torch.allclose(found.tokens[:, -16:], embedded, atol=0.01)


@pytest.mark.parametrize('prompt_type', PROMPT_TYPES)
def test_prompts_change_what_later_blocks_read(prompt_type):
    net, _ = build(prompt_type)
    images = torch.randn(2, 3, 32, 32)
    before = [inputs.patches for inputs in net.block_inputs(images)]
    with torch.no_grad():
        net.prompts.tokens[0] += 1
    after = [inputs.patches for inputs in net.block_inputs(images)]
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, False]
    for tokens, plain in zip(after[1:], list(net.patch_tokens(images, 3))[1:], strict=True):
        assert not torch.allclose(tokens, plain, atol=1e-4)


def test_no_graph():
    net, _ = build()
    for inputs in net.block_inputs(torch.randn(2, 3, 32, 32)):
        assert torch.is_grad_enabled(), "the caller's own work keeps its gradients"
        assert not inputs.tokens.requires_grad and not inputs.patches.requires_grad and inputs.prompts.grad_fn is None


def test_no_prompts():
    net = MODELS.build(dict(type='mmspt.PromptedViT', num_prompts=0, allow_random_backbone=True, **SMALL))
    with pytest.raises(ValueError, match=r'num_prompts of at least 1, got 0'):
        next(net.block_inputs(torch.randn(2, 3, 32, 32)))
