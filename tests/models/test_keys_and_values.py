"""Prompts as keys and values, and as tokens, against the methods written out; kept values, traces and compilation."""
import copy
import os
import shutil
import sysconfig
from pathlib import Path

import pytest
import torch
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from mmengine.utils import digit_version
from mmpretrain.registry import MODELS
from torch.nn import functional

from devices import CUDA, DEVICES, GPU, ON_GPU
from helpers import SMALL
from mmspt.models.layers import prompted_block
from written_out import CASES, METHODS, READERS, LowRank, assert_close, build, gradients, written_out

needs_compiler = pytest.mark.skipif(
    not (shutil.which(os.environ.get('CXX', 'g++')) and Path(sysconfig.get_path('include'), 'Python.h').is_file()),
    reason='inductor needs a C++ compiler and the headers of Python')
on_devices = pytest.mark.parametrize('device', DEVICES)


@pytest.mark.parametrize('concatenate', [False, True])
@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('kwargs', CASES, ids=str)
def test_outputs_and_gradients_of_the_method_written_out(kwargs, method, concatenate):
    net = build(method, concatenate=concatenate, **kwargs).double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected, _ = written_out(net, images, **kwargs)
    their_gradients = {name: gradient.clone() for name, gradient in gradients(net, expected).items()}
    actual = net(images)
    found = gradients(net, actual)
    for a, e in zip(actual, expected, strict=True):
        assert_close(a, e, 1e-10)
    assert {name for name, gradient in found.items() if gradient.any()} == {
        name for name, gradient in their_gradients.items() if gradient.any()}
    for name, gradient in their_gradients.items():
        assert_close(found[name], gradient, 1e-8)
    net.eval()
    for record in (True, False):
        with torch.set_grad_enabled(record):
            for a, e in zip(net(images), expected, strict=True):
                assert_close(a, e, 1e-10)


def test_prompt_dropout_drops_the_same_in_both_forms():
    nets = [build(prompt_drop_rate=0.5, concatenate=concatenate) for concatenate in (False, True)]
    images, outs = torch.randn(2, 3, 32, 32), []
    for net in nets:
        torch.manual_seed(1)
        outs.append(net(images)[0])
    torch.testing.assert_close(*outs, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(outs[0], nets[0].eval()(images)[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(('kwargs', 'expected'), [
    (dict(out_type='cls_token'), [17, 17, 1]),
    (dict(out_type='cls_token', out_indices=[0, 1]), [17, 1]),
    (dict(out_type='cls_token', concatenate=True), [21, 21, 21]),
    (dict(out_type='cls_token', prompt_type='shallow'), [21, 21, 1]),
    (dict(out_type='cls_token', num_prompts=0), [17, 17, 17]),
    (dict(out_type='avg_featmap'), [17, 17, 21]),
    (dict(out_type='avg_featmap', pool_prompts=False), [17, 17, 17]),
    (dict(out_type='featmap', with_cls_token=False), [16, 16, 16]),
], ids=str)
def test_prompts_are_tokens_only_where_their_outputs_are_read(kwargs, expected):
    net, seen = build(**kwargs), []
    for layer in net.layers:
        layer.ffn.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
    net(torch.randn(2, 3, 32, 32))
    with torch.no_grad():
        net.eval()(torch.randn(2, 3, 32, 32))
    assert seen == 2 * expected


@on_devices
@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('kwargs', READERS, ids=str)
def test_activation_checkpointing_of_the_blocks(kwargs, method, device):
    net, images = build(method, **kwargs).to(device), torch.randn(2, 3, 32, 32, device=device)
    expected = net(images)
    their_gradients = gradients(net, expected)
    turn_on_activation_checkpointing(net, [f'layers.{i}' for i in range(3)])
    actual = net(images)
    tolerance = dict(rtol=1e-4, atol=1e-5) if device == CUDA else {}  # attention's backward pass adds in any order
    torch.testing.assert_close((actual, gradients(net, actual)), (expected, their_gradients), **tolerance)


@pytest.mark.parametrize(('method', 'backend', 'device'), [
    ('deep', 'aot_eager', 'cpu'), ('gated', 'aot_eager', 'cpu'),
    pytest.param('gated', 'inductor', 'cpu', marks=[pytest.mark.slow, needs_compiler]),
    *(pytest.param(method, 'inductor', CUDA, marks=[*ON_GPU, needs_compiler]) for method in ('deep', 'gated'))])
def test_compiles_without_a_break(method, backend, device):
    """Two forward passes before a backward pass, as gradient accumulation has them."""
    net, images = build(method, **READERS[1]).to(device), torch.randn(4, 3, 32, 32, device=device)
    expected = net(images)  # warns of random weights, once
    their_gradients = {name: gradient.clone() for name, gradient in gradients(net, expected).items()}
    torch._dynamo.reset()
    # Dynamo of torch 2.6 stumbles over a decorator of mmcv's FFN
    fullgraph = digit_version(torch.__version__) >= digit_version('2.7')
    compiled = torch.compile(net, backend=backend, fullgraph=fullgraph)
    actual = torch.cat([compiled(images[:2])[0], compiled(images[2:])[0]])
    torch.testing.assert_close(actual, expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients(net, [actual]), their_gradients, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(compiled.eval()(images), net.eval()(images), rtol=1e-4, atol=1e-5)


@on_devices
@pytest.mark.parametrize('kwargs', READERS, ids=str)
@torch.no_grad()
def test_a_trace_follows_its_prompts(kwargs, device):
    net, images = build(**kwargs).eval().to(device), torch.randn(2, 3, 32, 32, device=device)
    net(images)  # keys and values are kept from here on, and must not enter the trace as constants
    traced = torch.jit.trace(net, images)
    net.prompts.tokens.mul_(-1.)
    torch.testing.assert_close(traced(images)[0], net(images)[0])


@pytest.mark.parametrize('device', [GPU])
@pytest.mark.parametrize('kwargs', READERS, ids=str)
@torch.no_grad()
def test_a_captured_graph_follows_its_prompts(kwargs, device):
    """A CUDA graph, which replays kernels on the tensors that it saw."""
    net, images = build(**kwargs).eval().to(device), torch.randn(2, 3, 32, 32, device=device)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        net(images)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured, = net(images)
    net.prompts.tokens.mul_(-1.)
    graph.replay()
    torch.testing.assert_close(captured, net(images)[0], rtol=1e-4, atol=1e-5)


def test_shapes_on_the_meta_device():
    with torch.no_grad():
        assert build().eval().to('meta')(torch.empty(2, 3, 32, 32, device='meta'))[0].shape == (2, 32)


@pytest.mark.skipif(digit_version(torch.__version__) < digit_version('2.4'), reason='vmap lacks attention there')
@torch.no_grad()
def test_many_prompts_at_once_by_vmap():
    net, images, many = build().eval(), torch.randn(2, 3, 32, 32), torch.randn(3, 3, 4, 32)
    found = torch.func.vmap(
        lambda prompts: torch.func.functional_call(net, {'prompts.tokens': prompts}, images)[0])(many)
    for prompts, actual in zip(many, found, strict=True):
        net.prompts.tokens.copy_(prompts)
        torch.testing.assert_close(actual, net(images)[0], rtol=1e-4, atol=1e-5)


@on_devices
@pytest.mark.parametrize('method', METHODS)
def test_bf16_autocast_keeps_prompts_and_their_gradients_in_fp32(method, device):
    net, images = build(method).to(device), torch.randn(2, 3, 32, 32, device=device)
    expected = net(images)
    their_gradients = {name: gradient.clone() for name, gradient in gradients(net, expected).items()}
    with torch.autocast(device, torch.bfloat16):
        actual = net(images)
        found = gradients(net, actual)
    assert 1e-5 < (actual[0] - expected[0]).abs().max() / expected[0].abs().max() < 5e-2  # neither fp32 nor noise
    for name, gradient in found.items():
        assert gradient.dtype == net.get_parameter(name).dtype == torch.float32
        assert_close(gradient, their_gradients[name], 0.2)


def test_attention_trains_in_fp32_under_bf16_autocast_on_a_cpu(monkeypatch):
    """Of few keys, and where there are gradients: elsewhere torch's bf16 kernel is as fast. The features are bf16's."""
    net, images, kernel, calls = build(), torch.randn(2, 3, 32, 32), functional.scaled_dot_product_attention, []

    def spy(*heads, **kwargs):
        out = kernel(*heads, **kwargs)
        calls.append({part.dtype for part in (*heads, out)})
        return out

    for layer in net.layers:
        layer.attn.scaled_dot_product_attention = spy
    features = []
    for keys, gradients_too in ((200, True), (200, False), (1, True)):
        monkeypatch.setattr(prompted_block, 'SHORT', keys)
        with torch.autocast('cpu', torch.bfloat16), torch.set_grad_enabled(gradients_too):
            features.append(net(images)[0])
    blocks = len(net.layers)
    assert calls == [{torch.float32}] * blocks + [{torch.bfloat16}] * 2 * blocks
    for feature in features:
        assert feature.dtype == features[1].dtype
        torch.testing.assert_close(feature, features[1], rtol=2e-2, atol=2e-2)


class CountedLN(torch.nn.LayerNorm):
    """Counts calls with N_p rows alone, as prompts have."""
    calls = 0

    def forward(self, x):
        type(self).calls += x.ndim == 2
        return super().forward(x)


@on_devices
def test_evaluation_keeps_keys_and_values_until_the_prompts_change(monkeypatch, device):
    net, other = build().to(device), build(concatenate=True).to(device)
    monkeypatch.setattr(CountedLN, 'calls', 0)
    for layer in net.layers:
        layer.ln1.__class__ = CountedLN
    images = torch.randn(2, 3, 32, 32, device=device)

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
    net(images)[0].sum().backward()
    assert net.prompts.tokens.grad is not None
    net.train(), other.train()
    with torch.no_grad():
        check(21)


@torch.no_grad()
def test_kept_values_follow_to_another_dtype_and_stay_out_of_copies():
    net, images = build().eval(), torch.randn(2, 3, 32, 32)
    expected = net(images)[0]
    copied = copy.deepcopy(net)
    torch.testing.assert_close(net.double()(images.double())[0].float(), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(net.float()(images)[0], expected)
    copied.prompts.tokens.zero_()
    assert not torch.equal(copied(images)[0], expected)
    assert torch.equal(net(images)[0], expected)


@pytest.mark.parametrize('kwargs', READERS, ids=str)
def test_replaced_projections(kwargs):
    nets = [build(concatenate=concatenate, **kwargs) for concatenate in (False, True)]
    for blocks in zip(*(net.layers for net in nets), strict=True):
        low_rank = LowRank(blocks[0].attn.qkv)
        for block in blocks:
            block.attn.qkv = low_rank
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(nets[0](images), nets[1](images), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(nets[0].eval()(images), nets[1].eval()(images), rtol=1e-4, atol=1e-5)
            low_rank.up.mul_(2.)


@pytest.mark.parametrize('kwargs', READERS, ids=str)
@torch.no_grad()
def test_prepared_prompts_serve_a_network_without_any(kwargs):
    """``prepare`` holds the method's tokens, gates and logit scales."""
    net, images = build('gated', **kwargs).eval(), torch.randn(3, 3, 32, 32)
    plain = MODELS.build(dict(type='mmspt.PromptedViT', num_prompts=0, **SMALL, **kwargs)).eval()
    plain.load_state_dict({key: value for key, value in net.state_dict().items() if key in plain.state_dict()})
    like_its_own = 4, 'shallow', net.out_type, net.final_norm, net.pool_prompts
    for reader in (plain.read_as(*like_its_own), net.read_as(*like_its_own)):
        assert not any('gate_logits' in name for name in reader.state_dict())
        torch.testing.assert_close(reader(images, net.prepare(net.prompts())), net(images))
