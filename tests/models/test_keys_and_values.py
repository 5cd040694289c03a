"""Prompts as keys and values against prompts as tokens: in every mode of the network, and what is kept in eval mode."""
import copy

import pytest
import torch
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from mmengine.utils import digit_version
from mmpretrain.registry import MODELS

from helpers import SMALL

PATH_CASES = [
    dict(out_type='cls_token'),
    dict(out_type='cls_token', out_indices=[0, 1]),
    dict(out_type='raw', out_indices=[1]),
    dict(out_type='featmap', with_cls_token=False),
    dict(out_type='avg_featmap', final_norm=False),
    dict(out_type='avg_featmap', final_norm=False, out_indices=[0, 1, 2]),
    dict(out_type='avg_featmap', final_norm=False, pool_prompts=False),
    dict(layer_scale_init_value=0.1, pre_norm=True),
    dict(prompt_drop_rate=0.5),
    dict(frozen=False, qkv_bias=False),
]


READERS = [dict(out_type='cls_token'), dict(out_type='avg_featmap', final_norm=False)]


def both_paths(**kwargs):
    """The same network with prompts as keys and values, and with prompts as tokens, in training mode."""
    torch.manual_seed(0)
    nets = [MODELS.build(dict(type='mmspt.PromptedViT', num_prompts=4, allow_random_backbone=True,
                              concatenate=concatenate, **SMALL, **copy.deepcopy(kwargs)))
            for concatenate in (False, True)]
    for parameter in nets[0].parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    nets[1].load_state_dict(nets[0].state_dict())
    return [net.train() for net in nets]


def outputs_and_gradients(net, images, run=None):
    """All outputs, and the gradients of a random linear function of them."""
    torch.manual_seed(1)  # the same dropout
    outs = (net if run is None else run)(images)
    torch.manual_seed(2)
    sum((out * torch.randn_like(out)).sum() for out in outs).backward()
    return list(outs), [p.grad for p in net.parameters() if p.grad is not None]


@pytest.mark.parametrize('prompt_type', ['deep', 'shallow'])
@pytest.mark.parametrize('kwargs', PATH_CASES, ids=str)
def test_keys_and_values_give_what_concatenation_gives(prompt_type, kwargs):
    nets = both_paths(prompt_type=prompt_type, **kwargs)
    images = torch.randn(2, 3, 32, 32)
    (actual, gradients), (expected, their_gradients) = (outputs_and_gradients(net, images) for net in nets)
    for a, e in zip(actual + gradients, expected + their_gradients, strict=True):
        assert (a - e).abs().max() <= 1e-5 * e.abs().max()
    with torch.no_grad():
        for net in nets:
            net.eval()
        for a, e in zip(nets[0](images), nets[1](images), strict=True):
            assert (a - e).abs().max() <= 1e-5 * e.abs().max()


def tokens_seen(net, images):
    """How many tokens enter each block's MLP."""
    seen = []
    hooks = [layer.ffn.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
             for layer in net.layers]
    net(images)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize(('kwargs', 'expected'), [
    (dict(out_type='cls_token'), [17, 17, 1]),
    (dict(out_type='cls_token', out_indices=[0, 1]), [17, 1]),
    (dict(out_type='cls_token', concatenate=True), [21, 21, 21]),
    (dict(out_type='cls_token', prompt_type='shallow'), [21, 21, 1]),
    (dict(out_type='cls_token', num_prompts=0), [17, 17, 17]),
    (dict(out_type='raw'), [17, 17, 17]),
    (dict(out_type='avg_featmap'), [17, 17, 21]),
    (dict(out_type='avg_featmap', pool_prompts=False), [17, 17, 17]),
    (dict(out_type='avg_featmap', out_indices=[0, 2]), [21, 17, 21]),
    (dict(out_type='featmap', with_cls_token=False), [16, 16, 16]),
], ids=str)
@pytest.mark.parametrize('training', [True, False])
def test_prompts_are_tokens_only_where_their_outputs_are_read(kwargs, expected, training):
    net = MODELS.build(dict(dict(type='mmspt.PromptedViT', num_prompts=4, allow_random_backbone=True, **SMALL),
                            **copy.deepcopy(kwargs)))
    with torch.set_grad_enabled(training):
        assert tokens_seen(net.train(training), torch.randn(2, 3, 32, 32)) == expected


@pytest.mark.parametrize('kwargs', PATH_CASES, ids=str)
def test_activation_checkpointing_of_the_blocks(kwargs):
    nets = both_paths(**kwargs)
    nets[1].concatenate, nets[1].shortened = False, True
    turn_on_activation_checkpointing(nets[1], [f'layers.{i}' for i in range(3)])
    images = torch.randn(2, 3, 32, 32)
    (actual, gradients), (expected, their_gradients) = (outputs_and_gradients(net, images) for net in nets)
    for a, e in zip(actual + gradients, expected + their_gradients, strict=True):
        torch.testing.assert_close(a, e)


@pytest.mark.parametrize('kwargs', PATH_CASES, ids=str)
def test_compiles_without_a_break(kwargs):
    nets = both_paths(**kwargs)
    nets[1].concatenate, nets[1].shortened = False, True
    images = torch.randn(2, 3, 32, 32)
    nets[0](images)  # warns of random weights, once
    nets[1](images)
    torch._dynamo.reset()
    # older Dynamo stumbles over a decorator of mmcv's FFN
    fullgraph = digit_version(torch.__version__) >= digit_version('2.4')
    compiled = torch.compile(nets[1], backend='aot_eager', fullgraph=fullgraph)
    actual, gradients = outputs_and_gradients(nets[1], images, compiled)
    expected, their_gradients = outputs_and_gradients(nets[0], images)
    if not kwargs.get('prompt_drop_rate'):  # compiled dropout draws other numbers
        for a, e in zip(actual + gradients, expected + their_gradients, strict=True):
            torch.testing.assert_close(a, e)
    with torch.no_grad():
        for a, e in zip(compiled.eval()(images), nets[0].eval()(images), strict=True):
            torch.testing.assert_close(a, e)


@pytest.mark.parametrize('concatenate', [False, True])
def test_bf16_autocast_keeps_prompts_and_their_gradient_in_fp32(concatenate):
    net, other = both_paths(out_type='cls_token')
    net.concatenate, net.shortened = concatenate, not concatenate
    images = torch.randn(2, 3, 32, 32)
    with torch.autocast('cpu', torch.bfloat16):
        outs, (gradient, ) = outputs_and_gradients(net, images)
    (expected, ), (their_gradient, ) = outputs_and_gradients(other, images)
    assert net.prompts.tokens.dtype == gradient.dtype == torch.float32
    for a, e in ((outs[0], expected), (gradient, their_gradient)):
        difference = (a - e).abs().max() / e.abs().max()
        assert 1e-5 < difference < 5e-2  # neither fp32 nor noise


class CountedLN(torch.nn.LayerNorm):
    """Counts calls with N_p rows alone, as prompts have."""
    calls = 0

    def forward(self, x):
        type(self).calls += x.ndim == 2
        return super().forward(x)


def test_evaluation_keeps_keys_and_values_until_the_prompts_change(monkeypatch):
    net, other = both_paths(out_type='cls_token')
    monkeypatch.setattr(CountedLN, 'calls', 0)
    for layer in net.layers:
        layer.ln1.__class__ = CountedLN
    images = torch.randn(2, 3, 32, 32)

    def check(computed):
        torch.testing.assert_close(net(images), other(images), rtol=1e-5, atol=1e-5)
        assert CountedLN.calls == computed

    net.eval(), other.eval()
    with torch.no_grad():
        check(3)
        check(3)
        for one in (net, other):
            one.prompts.tokens.data.mul_(-1.)
        check(6)
        check(6)
        for one in (net, other):
            one.load_state_dict({'prompts.tokens': torch.ones(3, 4, 32)}, strict=False)
        check(9)
        for one in (net, other):
            one.layers[1].attn.qkv.weight.data.mul_(1.5)
            one.eval()  # a write through .data on a frozen weight leaves no trace
        check(12)
        check(12)
    check(15)  # with gradients nothing is kept
    check(18)
    net(images)[0].sum().backward()
    assert net.prompts.tokens.grad is not None
    net.train(), other.train()
    with torch.no_grad():
        check(24)


def test_what_is_kept_follows_to_another_dtype_and_stays_out_of_copies():
    net, _ = both_paths(out_type='cls_token')
    net.eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = net(images)[0]
        copied = copy.deepcopy(net)
        torch.testing.assert_close(net.double()(images.double())[0].float(), expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(net.float()(images)[0], expected)
        copied.prompts.tokens.zero_()
        assert not torch.equal(copied(images)[0], expected)
        assert torch.equal(net(images)[0], expected)


@pytest.mark.parametrize('kwargs', READERS, ids=str)
@pytest.mark.parametrize('evaluated', [False, True])
def test_a_trace_follows_its_prompts(kwargs, evaluated):
    net, _ = both_paths(**kwargs)
    net.eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        if evaluated:
            net(images)
        traced = torch.jit.trace(net, images)
        net.prompts.tokens.mul_(-1.)
        torch.testing.assert_close(traced(images)[0], net(images)[0])


def test_shapes_on_the_meta_device():
    net, _ = both_paths(out_type='cls_token')
    with torch.no_grad():
        assert net.eval().to('meta')(torch.empty(2, 3, 32, 32, device='meta'))[0].shape == (2, 32)


@pytest.mark.skipif(digit_version(torch.__version__) < digit_version('2.4'), reason='vmap lacks attention there')
def test_many_prompts_at_once_by_vmap():
    net, _ = both_paths(out_type='cls_token')
    images, many = torch.randn(2, 3, 32, 32), torch.randn(3, 3, 4, 32)
    net.eval()
    with torch.no_grad():
        found = torch.func.vmap(
            lambda prompts: torch.func.functional_call(net, {'prompts.tokens': prompts}, images)[0])(many)
        for prompts, actual in zip(many, found, strict=True):
            net.prompts.tokens.copy_(prompts)
            torch.testing.assert_close(actual, net(images)[0], rtol=1e-4, atol=1e-5)


class LowRank(torch.nn.Module):
    """A projection that is not nn.Linear: it has neither weight nor bias of its own."""

    def __init__(self, linear):
        super().__init__()
        self.linear, self.down = linear, torch.nn.Parameter(torch.randn(2, linear.in_features))
        self.up = torch.nn.Parameter(torch.randn(linear.out_features, 2) / 10)

    def forward(self, x):
        return self.linear(x) + x @ self.down.T @ self.up.T


@pytest.mark.parametrize('kwargs', READERS, ids=str)
def test_projections_that_were_replaced(kwargs):
    nets = both_paths(**kwargs)
    for blocks in zip(*(net.layers for net in nets), strict=True):
        low_rank = LowRank(blocks[0].attn.qkv)
        for block in blocks:
            block.attn.qkv = low_rank
    images = torch.randn(2, 3, 32, 32)
    for mode in (True, False):
        torch.testing.assert_close(nets[0].train(mode)(images), nets[1].train(mode)(images), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(nets[0](images), nets[1](images), rtol=1e-4, atol=1e-5)
            low_rank.up.mul_(2.)
