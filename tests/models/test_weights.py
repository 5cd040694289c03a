"""Checkpoints of every known layout arrive bit-equal, through init_cfg and load_from; others are refused."""
import logging
import re

import pytest
import torch
from mmengine.runner.checkpoint import load_checkpoint
from mmpretrain.models.utils import resize_pos_embed
from mmpretrain.registry import MODELS
from safetensors.torch import save_file

from helpers import golden_checkpoint, tiny_backbone

# how timm and FAIR name what MMPretrain names so; written out, not computed by the code under test
BLOCK = {
    'ln1': 'norm1', 'attn.qkv': 'attn.qkv', 'attn.proj': 'attn.proj', 'ln2': 'norm2', 'ffn.layers.0.0': 'mlp.fc1',
    'ffn.layers.1': 'mlp.fc2'
}


def timm_weights(width=64, depth=4, patch=8, tokens=17, seed=0, mlp=4):
    """Random weights of a ViT under timm's names."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.randn(*shape, generator=generator)

    weights = {'cls_token': rand(1, 1, width), 'pos_embed': rand(1, tokens, width),
               'patch_embed.proj.weight': rand(width, 3, patch, patch), 'patch_embed.proj.bias': rand(width),
               'norm.weight': rand(width), 'norm.bias': rand(width)}
    shapes = {'norm1': (width, ), 'attn.qkv': (3 * width, width), 'attn.proj': (width, width), 'norm2': (width, ),
              'mlp.fc1': (mlp * width, width), 'mlp.fc2': (width, mlp * width)}
    for i in range(depth):
        for name, shape in shapes.items():
            weights[f'blocks.{i}.{name}.weight'] = rand(*shape)
            weights[f'blocks.{i}.{name}.bias'] = rand(shape[0])
    return weights


def mmpretrain_weights(timm, norm='ln1'):
    """The same under MMPretrain's names."""
    names = {'cls_token': 'cls_token', 'pos_embed': 'pos_embed'}
    for kind in ('weight', 'bias'):
        names[f'patch_embed.proj.{kind}'] = f'patch_embed.projection.{kind}'
        names[f'norm.{kind}'] = f'{norm}.{kind}'
        for i in range(4):
            for ours, theirs in BLOCK.items():
                names[f'blocks.{i}.{theirs}.{kind}'] = f'layers.{i}.{ours}.{kind}'
    return {names[key]: value for key, value in timm.items()}


def prefixed(prefix, weights):
    return {prefix + key: value for key, value in weights.items()}


# and transformers, as it saves and as it has them in memory since version 5
TRANSFORMERS = {
    'saved': ('encoder.layer', 'attention.attention.{}', ('query', 'key', 'value'), {
        'norm1': 'layernorm_before', 'attn.proj': 'attention.output.dense', 'norm2': 'layernorm_after',
        'mlp.fc1': 'intermediate.dense', 'mlp.fc2': 'output.dense'}),
    'in memory': ('layers', 'attention.{}', ('q_proj', 'k_proj', 'v_proj'), {
        'norm1': 'layernorm_before', 'attn.proj': 'attention.o_proj', 'norm2': 'layernorm_after',
        'mlp.fc1': 'mlp.fc1', 'mlp.fc2': 'mlp.fc2'}),
}


def transformers_weights(timm, form):
    """The same as ViTForImageClassification has them."""
    blocks, attention, parts, names = TRANSFORMERS[form]
    weights = {'embeddings.cls_token': timm['cls_token'], 'embeddings.position_embeddings': timm['pos_embed']}
    for kind in ('weight', 'bias'):
        weights[f'embeddings.patch_embeddings.projection.{kind}'] = timm[f'patch_embed.proj.{kind}']
        weights[f'layernorm.{kind}'] = timm[f'norm.{kind}']
        for i in range(4):
            for own, name in names.items():
                weights[f'{blocks}.{i}.{name}.{kind}'] = timm[f'blocks.{i}.{own}.{kind}']
            for part, value in zip(parts, timm[f'blocks.{i}.attn.qkv.{kind}'].chunk(3), strict=True):
                weights[f'{blocks}.{i}.{attention.format(part)}.{kind}'] = value
    return weights


TIMM = timm_weights()
OURS = mmpretrain_weights(TIMM)
HEAD = {'head.weight': torch.randn(1000, 64), 'head.bias': torch.randn(1000)}
DECODER = {'mask_token': torch.randn(1, 1, 32), 'decoder_embed.weight': torch.randn(32, 64),
           'decoder_blocks.0.norm1.weight': torch.randn(32), 'decoder_pos_embed': torch.randn(1, 17, 32)}
LAYOUTS = {
    'mmpretrain': OURS,
    'mmpretrain classifier': dict(state_dict=prefixed('backbone.', OURS) | {'head.fc.weight': torch.randn(9, 64)},
                                  meta=dict(epoch=1)),
    'mmpretrain mae': dict(state_dict=prefixed('backbone.', OURS) | {'neck.mask_token': torch.randn(1, 1, 8)}),
    'mmpretrain mocov3': dict(state_dict=prefixed('backbone.', OURS) |
                              prefixed('momentum_encoder.module.0.', mmpretrain_weights(timm_weights(seed=1)))),
    'fair mae': dict(model=TIMM),
    'fair mae with decoder': dict(model=TIMM | DECODER, epoch=800),
    'fair mocov3': dict(epoch=300, arch='vit_base', state_dict=prefixed('module.base_encoder.', TIMM | HEAD) |
                        prefixed('module.momentum_encoder.', timm_weights(seed=1)) |
                        {'module.predictor.0.weight': torch.randn(4, 4)}),
    'fair mocov3 linear probe': dict(state_dict=prefixed('module.', TIMM | HEAD)),
    'timm': TIMM | HEAD,
    'dino': dict(student=prefixed('module.backbone.', timm_weights(seed=1)), epoch=100,
                 teacher=prefixed('backbone.', TIMM) | prefixed('head.', HEAD)),
    'transformers': prefixed('vit.', transformers_weights(TIMM, 'saved')) | {'classifier.weight': torch.randn(9, 64)},
    'transformers in memory': transformers_weights(TIMM, 'in memory') | {'pooler.dense.weight': torch.randn(64, 64)},
    'transformers mae': prefixed('vit.', transformers_weights(TIMM, 'saved')) | {
        'decoder.mask_token': torch.randn(1, 1, 32), 'decoder.decoder_embed.weight': torch.randn(32, 64)},
    'dinov2 in chunks of 3': {re.sub(r'^blocks\.(\d)', lambda m: f'blocks.{int(m[1]) // 3}.{m[1]}', key): value
                              for key, value in TIMM.items()},
}


def classifier(init_cfg=None):
    return MODELS.build(dict(
        type='ImageClassifier', backbone=tiny_backbone('mocov3_deep', init_cfg=init_cfg),
        head=dict(type='LinearClsHead', num_classes=7, in_channels=64)))


def assert_holds(backbone, expected):
    state = backbone.state_dict()
    assert set(state) == set(expected) | {'prompts.tokens'}
    assert all(torch.equal(state[key], value) for key, value in expected.items())
    backbone.train()
    backbone(torch.randn(1, 3, 32, 32))  # every frozen weight is accounted for


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('route', ['init_cfg', 'load_from'])
def test_layouts(layout, route, tmp_path, monkeypatch):
    """Without a warning: stock loading warns of every head and norm that it cannot place."""
    path = str(tmp_path / 'weights.pth')
    torch.save(LAYOUTS[layout], path)
    records = []
    monkeypatch.setattr(logging.Logger, 'handle', lambda self, record: records.append(record))
    if route == 'init_cfg':
        # the prefix of MMPretrain's configs is not in the way
        model = classifier(dict(type='Pretrained', checkpoint=path, prefix='backbone.'))
        model.backbone.init_weights()
    else:
        model = classifier()
        model.init_weights()
        load_checkpoint(model, path, map_location='cpu', revise_keys=[(r'^module.', '')])
    warned = [r.getMessage() for r in records if r.levelno >= logging.WARNING]
    assert route == 'load_from' or not warned, warned
    assert_holds(model.backbone, OURS)


def test_safetensors(tmp_path):
    path = str(tmp_path / 'timm.safetensors')
    save_file(TIMM, path)
    backbone = MODELS.build(tiny_backbone('mocov3_deep', init_cfg=dict(type='Pretrained', checkpoint=path)))
    backbone.init_weights()
    assert_holds(backbone, OURS)


def test_a_list_of_init_cfgs_does_not_draw_pos_embed_anew():
    """The stock class re-randomizes pos_embed after loading if init_cfg is a list."""
    checkpoint = golden_checkpoint('mocov3_deep')
    cfg = [dict(type='Pretrained', checkpoint=checkpoint), dict(type='Constant', val=1., layer='LayerNorm')]
    backbone = MODELS.build(tiny_backbone('mocov3_deep', init_cfg=cfg))
    backbone.init_weights()
    expected = torch.load(checkpoint, weights_only=True)['state_dict']['module.base_encoder.pos_embed']
    assert torch.equal(backbone.pos_embed, expected)


def renamed(old, new):
    return {key.replace(old, new) if key.startswith(old) else key: value for key, value in TIMM.items()}


@pytest.mark.parametrize(('weights', 'case', 'kwargs', 'norm'), [
    (mmpretrain_weights(TIMM, 'ln1'), 'mae_deep', {}, 'ln2'),
    (mmpretrain_weights(TIMM, 'ln2'), 'mae_deep', {}, 'ln2'),
    (renamed('norm.', 'fc_norm.'), 'mae_deep', {}, 'ln2'),
    (TIMM, 'mocov3_deep', dict(out_type='raw', final_norm=False), None),
], ids=['ln1', 'ln2', 'fc_norm', 'none'])
def test_final_norm_arrives_where_it_is_read(weights, case, kwargs, norm):
    backbone = MODELS.build(tiny_backbone(case, init_cfg=None, **kwargs))
    backbone.load_state_dict(weights, strict=False)
    expected = mmpretrain_weights(TIMM, str(norm))
    assert_holds(backbone, {key: value for key, value in expected.items() if not key.startswith('None.')})


def test_layer_scale_and_pre_norm_of_timm():
    scale = {f'blocks.{i}.ls{j}.gamma': torch.randn(64) for i in range(4) for j in (1, 2)}
    pre_norm = {'norm_pre.weight': torch.randn(64), 'norm_pre.bias': torch.randn(64)}
    weights = TIMM | scale | pre_norm
    del weights['patch_embed.proj.bias']
    backbone = MODELS.build(tiny_backbone('mocov3_deep', init_cfg=None, layer_scale_init_value=1e-5, pre_norm=True))
    backbone.load_state_dict(weights, strict=False)
    state = backbone.state_dict()
    assert torch.equal(state['layers.2.attn.gamma1.weight'], scale['blocks.2.ls1.gamma'])
    assert torch.equal(state['layers.3.ffn.gamma2.weight'], scale['blocks.3.ls2.gamma'])
    assert torch.equal(state['pre_norm.bias'], pre_norm['norm_pre.bias'])
    backbone.train()(torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize(('dtype', 'with_cls_token'), [
    (torch.float32, True), (torch.float32, False), (torch.float16, True), (torch.bfloat16, True)], ids=str)
def test_position_embeddings_are_resized_in_single_precision(dtype, with_cls_token):
    """Half precision would round them a second time."""
    weights = {key: value.to(dtype) for key, value in TIMM.items()}
    backbone = MODELS.build(tiny_backbone(init_cfg=None, img_size=48, with_cls_token=with_cls_token))
    backbone.load_state_dict(weights, strict=False)
    grid = weights['pos_embed'][:, 1:].float().transpose(1, 2).unflatten(2, (4, 4))  # (1, D, h, w)
    grid = torch.nn.functional.interpolate(grid, size=(6, 6), mode='bicubic', align_corners=False)
    patches = grid.flatten(2).transpose(1, 2)
    expected = torch.cat([weights['pos_embed'][:, :1].float(), patches], 1) if with_cls_token else patches
    assert torch.equal(backbone.pos_embed, expected)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_a_network_resizes_its_positions_in_single_at_least(dtype):
    """For images of another size."""
    backbone = MODELS.build(tiny_backbone(init_cfg=None)).to(dtype)
    backbone.load_state_dict(TIMM, strict=False)
    images, least = torch.zeros(1, 3, 48, 48, dtype=dtype), torch.promote_types(dtype, torch.float32)
    expected = resize_pos_embed(backbone.pos_embed.to(least), (4, 4), (6, 6), 'bicubic', 1).to(dtype)
    tokens, patches, _ = backbone._embed(images)
    assert torch.equal(tokens[:, 1:], patches + expected[:, 1:])


@pytest.mark.parametrize('img_size', [(32, 16), (40, 24), 32], ids=str)
@pytest.mark.parametrize('with_cls_token', [True, False])
def test_a_models_own_grid_is_read_back_as_it_is(img_size, with_cls_token):
    """4 x 2 patches and CLS make 9 rows, which look like a square without CLS."""
    cfg = tiny_backbone(init_cfg=None, img_size=img_size, with_cls_token=with_cls_token)
    one, other = MODELS.build(cfg), MODELS.build(cfg)
    torch.nn.init.normal_(one.pos_embed)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.pos_embed, other.pos_embed)


def test_a_square_with_cls_is_not_taken_for_a_grid_of_as_many_patches():
    """3 x 3 patches and CLS are 10 rows, as are 2 x 5 patches."""
    backbone = MODELS.build(tiny_backbone(init_cfg=None, img_size=(16, 40)))
    weights = timm_weights(tokens=10)
    backbone.load_state_dict(weights, strict=False)
    expected = resize_pos_embed(weights['pos_embed'], (3, 3), (2, 5), 'bicubic', 1)
    assert torch.equal(backbone.pos_embed, expected)


def test_a_grid_that_is_not_square_is_refused():
    """MMEngine would log the mismatch and leave the position embedding random."""
    backbone = MODELS.build(tiny_backbone(init_cfg=None))
    with pytest.raises(ValueError, match=r'the checkpoint has 21 rows, the backbone 4 x 4 patches: set `img_size`'):
        backbone.load_state_dict(timm_weights(tokens=4 * 5 + 1), strict=False)


def test_no_position_for_cls_reads_as_zero():
    backbone = MODELS.build(tiny_backbone(init_cfg=None))
    backbone.load_state_dict(TIMM | {'pos_embed': TIMM['pos_embed'][:, 1:]}, strict=False)
    assert torch.equal(backbone.pos_embed[:, 1:], TIMM['pos_embed'][:, 1:])
    assert backbone.pos_embed[:, 0].abs().max() == 0


@pytest.mark.parametrize(('weights', 'message'), [
    (timm_weights(width=32), r'cls_token is \(1, 1, 32\), the backbone needs \(1, 1, 64\).*arch'),
    (timm_weights(depth=6), 'it has 6, the backbone 4.*num_layers'),
    (timm_weights(patch=4), r'\(64, 3, 4, 4\), the backbone needs \(64, 3, 8, 8\).*patch_size'),
    (timm_weights(mlp=2), r'ffn\.layers\.0\.0\.weight is \(128, 64\).*Set `arch` \(its feedforward_channels\)'),
    (TIMM | {'blocks.0.ls1.gamma': torch.ones(64)}, r'0\.attn\.gamma1\.weight\. Set layer_scale_init_value=1e-5'),
    (TIMM | {'norm_pre.bias': torch.ones(64)}, r'pre_norm\.bias\. Set pre_norm=True$'),
    (TIMM | {'norm_pre.bias': torch.ones(64), 'blocks.0.odd': torch.ones(1)},
     r'No argument creates layers\.0\.odd, it is another network: use a plain ViT'),
    (TIMM | {'register_tokens': torch.ones(1, 4, 64)}, r'it has register_tokens\. Set num_registers to their number'),
    (timm_weights(tokens=18) | {'dist_token': torch.ones(1, 1, 64)}, r'a distillation token.*without distillation'),
    ({'patch_embed.proj.weight': torch.ones(64, 3, 8, 8), 'layers.0.blocks.0.norm1.weight': torch.ones(64)},
     r'stages, such as Swin, Hiera or ConvNeXt \(layers\.0\.blocks\.0\.norm1\.weight\).*use a plain ViT'),
    (TIMM | {'blocks.0.attn.rel_pos_h': torch.ones(7, 16), 'pos_embed': torch.ones(1, 4, 4, 64)}, 'relative positions'),
    (TIMM | {'blocks.0.attn.q_norm.weight': torch.ones(16)}, 'normalized queries and keys'),
    (TIMM | {'blocks.0.mlp.w12.weight': torch.ones(16)}, "MMPretrain's conversion.*swiglu_fused"),
    (TIMM | {'blocks.1.0.norm1.bias': torch.ones(64)}, r'0\.norm1\.bias, blocks\.1\.0\.norm1\.bias stand for the same'),
    (OURS | {'prompts.tokens': torch.zeros(4, 9, 64)}, r'prompts\.tokens is \(4, 9, 64\).*num_prompts'),
    (TIMM | {'norm.bias': torch.full((64, ), torch.nan)}, r'must be finite: ln1\.bias'),
    (OURS | {'ln1.bias': torch.full((64, ), torch.nan).to(torch.float8_e5m2)}, r'must be finite: ln1\.bias'),
    (OURS | {'ln1.bias': torch.zeros(64, dtype=torch.complex64)}, r'must be real numbers: ln1\.bias is torch\.comp'),
    ({'conv1.weight': torch.zeros(3), 'layer1.0.conv1.weight': torch.zeros(3)}, r'layout.*2 keys: conv1\.weight'),
], ids=['width', 'deeper', 'patch', 'mlp', 'layer scale', 'pre-norm', 'unknown', 'registers', 'distilled', 'swin',
        'relative', 'normalized', 'swiglu', 'local chunks', 'prompts', 'nan', 'nan of 8 bits', 'complex', 'layout'])
@pytest.mark.parametrize('route', ['backbone', 'classifier'])
def test_weights_of_another_network_are_refused(weights, message, route, tmp_path):
    if weights.get('ln1.bias', torch.empty(0)).dtype == torch.float8_e5m2 and not hasattr(torch, 'uint16'):
        pytest.skip('an older torch saves no numbers of 8 bits')
    path = str(tmp_path / 'weights.pth')
    torch.save(dict(model=weights), path)
    model = classifier()
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_checkpoint(model if route == 'classifier' else model.backbone, path, map_location='cpu')
    assert all(torch.equal(value, before[key]) for key, value in model.backbone.state_dict().items())


@pytest.mark.parametrize(('kwargs', 'left_out', 'remedy'), [
    (dict(layer_scale_init_value=1e-5), (), 'network without them: set layer_scale_init_value=0$'),
    (dict(pre_norm=True, patch_cfg=dict(bias=True)), (), 'set pre_norm=False$'),
    ({}, ('qkv.bias', 'proj.bias'), r'or incomplete: name another'),
    ({}, ('qkv.bias', ), 'set qkv_bias=False$'),
    ({}, ('cls_token', 'patch_embed.proj.bias'), r"set with_cls_token=False and out_type='avg_featmap', patch_cfg="),
    ({}, ('norm.', ), r'set final_norm=False'),
], ids=str)
def test_what_a_checkpoint_lacks(kwargs, left_out, remedy):
    """By the argument that makes such a network; another checkpoint is no remedy for it."""
    backbone = MODELS.build(tiny_backbone('mocov3_deep', init_cfg=None, **kwargs))
    weights = {key: value for key, value in TIMM.items()
               if not any(key.startswith(part) or key.endswith(f'.{part}') for part in left_out)}
    backbone.load_state_dict(weights, strict=False)
    with pytest.raises(RuntimeError, match=remedy):
        backbone.check_weights()
