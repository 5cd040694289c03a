"""PromptedViT against the stock class, and what is its own: prompts, freezing, accounting for weights."""
import copy
import logging

import pytest
import torch
from mmengine.logging import MMLogger
from mmpretrain.models import VisionTransformer
from mmpretrain.registry import MODELS

from helpers import SMALL, TINY, tiny_backbone


def pair(num_prompts=0, **kwargs):
    """The stock network and ours with the same random weights, both in eval mode."""
    torch.manual_seed(0)
    stock = VisionTransformer(**SMALL, **copy.deepcopy(kwargs))  # it writes into out_indices
    for parameter in stock.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ours = MODELS.build(dict(type='mmspt.PromptedViT', num_prompts=num_prompts, **SMALL, **kwargs))
    assert ours.load_state_dict(stock.state_dict(), strict=False).missing_keys == []
    stock.eval()  # returns None
    return stock, ours.eval()


@pytest.mark.parametrize('kwargs', [
    dict(out_type='cls_token', pre_norm=True, layer_scale_init_value=0.1),
    dict(out_type='raw', out_indices=[0, -1]),
    dict(out_type='featmap', with_cls_token=False),
    dict(out_type='avg_featmap', final_norm=False),
    dict(patch_cfg=dict(bias=False), layer_cfgs=dict(act_cfg=dict(type='ReLU')), qkv_bias=False, out_type='raw'),
    dict(layer_cfgs=[dict(ffn_type='swiglu_fused')] * 3, out_type='raw', drop_path_rate=0.2),
], ids=str)
@pytest.mark.parametrize('size', [(32, 32), (48, 40)], ids=str)
def test_without_prompts_bit_equal_to_the_stock_class(kwargs, size):
    given = copy.deepcopy(kwargs)
    stock, ours = pair(**kwargs)
    assert kwargs == given, "the caller's list stays as it is"
    images = torch.randn(2, 3, *size)
    expected, actual = stock(images), ours(images)
    assert len(actual) == len(expected) > 0
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


def test_frozen_means_no_gradient_and_eval_behaviour_inside_a_training_step():
    net = MODELS.build(tiny_backbone(drop_rate=0.5, drop_path_rate=0.5))
    net.init_weights()
    assert net.train() is net
    assert [name for name, p in net.named_parameters() if p.requires_grad] == ['prompts.tokens']
    images = torch.randn(2, 3, 32, 32)
    first = net(images)[0]
    first.sum().backward()
    assert net.prompts.tokens.grad is not None and net.layers[0].attn.qkv.weight.grad is None
    assert torch.equal(first, net.eval()(images)[0])


def test_not_frozen_trains_everything_that_mocov3s_arguments_leave():
    net = MODELS.build(tiny_backbone(frozen=False, drop_rate=0.5)).train()
    net.init_weights()
    assert all(p.requires_grad for p in net.parameters())
    images = torch.randn(2, 3, 32, 32)
    assert not torch.equal(net(images)[0], net(images)[0])
    net = MODELS.build(tiny_backbone(frozen=False, stop_grad_conv1=True, frozen_stages=2, norm_eval=True)).train()
    assert not net.patch_embed.projection.weight.requires_grad
    assert not net.layers[1].ffn.layers[1].weight.requires_grad and not net.layers[1].training
    assert net.layers[2].training and net.prompts.tokens.requires_grad


def test_registers_are_frozen_with_the_embedding():
    net = MODELS.build(tiny_backbone(init_cfg=None, num_registers=2, frozen=False, frozen_stages=1))
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert not {'register_tokens', 'cls_token', 'pos_embed'} & trained and 'prompts.tokens' in trained


def test_layer_depth_of_prompts_is_that_of_the_head():
    net = MODELS.build(tiny_backbone())
    assert net.get_layer_depth('backbone.prompts.tokens', 'backbone.') == (5, 6)
    assert net.get_layer_depth('head.fc.weight', 'backbone.') == (5, 6)
    assert net.get_layer_depth('backbone.layers.0.ln1.weight', 'backbone.') == (1, 6)
    assert net.get_layer_depth('backbone.cls_token', 'backbone.') == (0, 6)
    assert net.get_layer_depth('backbone.register_tokens', 'backbone.') == (0, 6)


def test_the_log_says_how_many_parameters_train(monkeypatch):
    lines = []
    monkeypatch.setattr(logging.Logger, 'info', lambda self, message, *args: lines.append(message))
    net = MODELS.build(tiny_backbone())
    net.init_weights()
    total = sum(p.numel() for p in net.parameters())
    assert f'PromptedViT: 1,280 of {total:,} parameters train ({1280 / total:.4%})' in lines


def test_vit_b_has_as_many_trainable_parameters_as_the_paper_counts():
    model = MODELS.build(dict(
        type='ImageClassifier', backbone=dict(type='mmspt.PromptedViT', arch='b'),
        head=dict(type='LinearClsHead', num_classes=200, in_channels=768)))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 12 * 20 * 768 + 769 * 200 == 338_120


@pytest.mark.parametrize(('kwargs', 'missing', 'message'), [
    (dict(), '', r'(?s)5[0-9] of them are random.*cls_token.*init_cfg.*allow_random_backbone'),
    (dict(), 'layers.2.attn', r'4 of them are random: layers\.2\.attn\.qkv\.weight'),
    (dict(frozen=False, stop_grad_conv1=True), '', r'are random.*patch_embed\.projection\.weight'),
    (dict(frozen=False, num_prompts=0), 'layers.2.attn', r'4 of them are random: layers\.2\.attn\.qkv\.weight'),
    (dict(final_norm=True), 'ln2', r'2 of them are random: ln2\.weight, ln2\.bias.*set final_norm=False'),
], ids=str)
def test_random_frozen_weights_are_an_error_before_the_first_step(kwargs, missing, message):
    """All are random (``missing=''``), or a part that the checkpoint lacks."""
    net = MODELS.build(tiny_backbone(init_cfg=None, **kwargs)).train()
    if missing:
        net.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith(missing)}, strict=False)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=message):
            net(torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize('kwargs', [dict(allow_random_backbone=True), dict(frozen=False, num_prompts=0)], ids=str)
def test_random_weights_on_purpose(kwargs):
    """Asked for, or a training from scratch."""
    features, = MODELS.build(tiny_backbone(init_cfg=None, **kwargs)).train()(torch.randn(1, 3, 32, 32))
    assert features.shape == (1, 64) and features.isfinite().all()


def test_initializing_again_keeps_what_a_checkpoint_brought():
    net = MODELS.build(tiny_backbone())
    net.init_weights()
    state = net.state_dict() | {'prompts.tokens': torch.randn(4, 5, 64)}
    net.load_state_dict(state)
    net.init_weights()
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


def test_initializing_after_loading_is_not_taken_for_loaded():
    """MMEngine's first init_weights draws the blocks anew."""
    net = MODELS.build(tiny_backbone(init_cfg=None))
    net.load_state_dict(net.state_dict())
    net.init_weights()
    with pytest.raises(RuntimeError, match='are random'):
        net.train()(torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize(('kwargs', 'message'), [
    (dict(num_prompts=2.5), 'num_prompts must be a whole number .* got 2.5'),
    (dict(prompt_type='depe'), r"prompt_type must be one of \('deep', 'shallow'\), got 'depe'"),
    (dict(prompt_drop_rate=1.), r'prompt_drop_rate must lie in \[0, 1\), got 1.0'),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(tiny_backbone(**kwargs))


def test_patch_tokens_are_those_of_the_stock_network():
    stock, ours = pair(num_prompts=4, out_type='raw', final_norm=False, out_indices=[0, 1])
    images = torch.randn(2, 3, 32, 32)
    tokens = list(ours.patch_tokens(images, 3))
    assert torch.equal(tokens[0], stock.patch_embed(images)[0])
    assert torch.equal(tokens[1], stock(images)[0][:, 1:])
    assert torch.equal(tokens[2], stock(images)[1][:, 1:])
    assert not any(layer.requires_grad for layer in tokens)


def test_deep_copies_load_into_themselves():
    """MMEngine's EMA copies the model before it has its weights; hooks must not stay bound to the original."""
    net = MODELS.build(tiny_backbone(init_cfg=None))
    twin = copy.deepcopy(net)
    twin.load_state_dict(net.state_dict())
    twin.train()(torch.randn(1, 3, 32, 32))
    assert net.provenance.filled == set() and TINY['num_layers'] == len(twin.layers)


def test_images_of_another_size_are_stated_once(monkeypatch):
    """Height before width, in training as well as in what prompts start from."""
    said = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'warning', said.append)
    net = MODELS.build(dict(type='mmspt.PromptedViT', num_prompts=2, allow_random_backbone=True, **SMALL)
                       | dict(img_size=[32, 48]))
    net.train()(torch.randn(1, 3, 32, 48))
    assert len(said) == 1 and 'random' in said[0]
    for _ in range(2):
        next(net.patch_tokens(torch.randn(1, 3, 24, 40), 1))
        net.eval()(torch.randn(1, 3, 24, 40))
    assert len(said) == 2 and 'Images of 24 x 40 pixels' in said[1] and 'img_size 32 x 48' in said[1]
    assert 'model.backbone.img_size=(24, 40)' in said[1]
