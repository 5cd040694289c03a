"""Networks of transformers, timm and OpenCLIP, by their own names, put out what their own code does
(tests/data/hub/record.py), and say themselves what they are."""
import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader
from mmpretrain.registry import MODELS
from safetensors.torch import load_file, save_file

from helpers import DATA
from mmspt.engine.launch import name_backbone
from mmspt.models import PromptedViT
from mmspt.models.weights.architecture import read_arguments
from mmspt.models.weights.layouts import find_encoder
from mmspt.models.weights.normalization import compare_normalization, fill_normalization, stated_normalization
from mmspt.packs.image_classifier import ImageClassifier

ARCH = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
SCALED = dict(layer_scale_init_value=1e-5)
CLIP = dict(pre_norm=True, patch_cfg=dict(bias=False), norm_cfg=dict(type='LN', eps=1e-5))
EPS = dict(norm_cfg=dict(type='LN', eps=1e-6))
QUICK = dict(layer_cfgs=dict(act_cfg=dict(type='mmpretrain.QuickGELU')))
FILES = {
    'vit': {}, 'vit_in_memory': {}, 'vit_mae': {}, 'vit_mae_in_memory': {}, 'dinov2': SCALED,
    'dinov2_in_memory': SCALED, 'dinov2_registers': SCALED | dict(num_registers=3),
    'dinov2_registers_in_memory': SCALED | dict(num_registers=3),
    'timm': SCALED, 'timm_reg4': SCALED | dict(num_registers=4), 'timm_clip': CLIP, 'timm_clip_quick': CLIP | QUICK,
    'open_clip': CLIP,
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


KINDS = {file: {key: value for key, value in kwargs.items() if key not in ('layer_cfgs', 'norm_cfg')}
         for file, kwargs in FILES.items()}
HUB = dict(num_attention_heads=2, layer_norm_eps=1e-6, hidden_act='gelu')
"""Of config.json."""


@pytest.mark.parametrize('file', FILES)
def test_a_checkpoint_says_what_its_network_is(file, tmp_path):
    """With config.json beside it, as the hub has it; and the network so built puts out the same."""
    (tmp_path / 'model.safetensors').write_bytes((DATA / 'hub' / f'{file}.safetensors').read_bytes())
    config = HUB | dict(hidden_act='quick_gelu' if FILES[file].get('layer_cfgs') else 'gelu',
                        layer_norm_eps=FILES[file].get('norm_cfg', dict(eps=1e-6))['eps'])
    nested = dict(vision_config=config, text_config={}) if 'clip' in file else config
    (tmp_path / 'config.json').write_text(json.dumps(nested))
    path = str(tmp_path / 'model.safetensors')
    found = read_arguments(load_file(path), path)
    assert found['arch'] == ARCH and found['patch_size'] == 4 and KINDS[file].items() <= found.items()
    assert found.keys() <= {'arch', 'patch_size', 'norm_cfg', 'layer_cfgs', *KINDS[file]}
    vit = PromptedViT(img_size=16, num_prompts=0, out_type='raw', init_cfg=dict(type='Pretrained', checkpoint=path))
    vit.init_weights()
    images, expected = recorded(file)
    with torch.no_grad():
        tokens, = vit.eval()(images)
    if 'mae' not in file:
        torch.testing.assert_close(tokens, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('file', 'config', 'says'), [
    ('vit', None, r'number of heads, .*sizes of no published ViT .*\(16, 2, 32\)\): set arch=dict\(num_heads=\.\.\.\)'),
    ('clip', dict(num_attention_heads=2), "of CLIP, whose weights do not tell their activation: set layer_cfgs"),
    ('clip', HUB | dict(hidden_act='relu'), "of an activation 'relu': set layer_cfgs"),
])
def test_what_weights_do_not_tell_is_asked_for(file, config, says, tmp_path):
    if config is not None:
        (tmp_path / 'config.json').write_text(json.dumps(config))
    with pytest.raises(ValueError, match=says):
        read_arguments(load_file(DATA / 'hub' / f'{file}.safetensors'), str(tmp_path / 'model.safetensors'))


@pytest.mark.parametrize('file', ['open_clip', 'openai_clip', 'timm_clip', 'timm_clip_quick', 'vit'])
def test_what_is_asked_for_can_be_answered(file, tmp_path):
    """And everything else is read all the same."""
    path = DATA / 'hub' / f'{file}.safetensors'
    answers = dict(arch=dict(num_heads=2)) | {key: value for key, value in FILES[file].items() if key == 'layer_cfgs'}
    if 'clip' in file:
        answers.setdefault('layer_cfgs', dict(act_cfg=dict(type='GELU')))
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    vit = PromptedViT(img_size=16, num_prompts=0, out_type='raw', init_cfg=init_cfg, **answers)
    vit.init_weights()
    images, expected = recorded(file)
    with torch.no_grad():
        tokens, = vit.eval()(images)
    torch.testing.assert_close(tokens, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('given', 'says'), [
    (dict(arch=dict(num_heads=4)), r'arch\.num_heads is 4, and .* with 2'),
    (dict(norm_cfg=dict(type='LN', eps=1e-3)), r'norm_cfg\.eps is 0\.001, and .* with 1e-05'),
    (dict(layer_cfgs=dict(act_cfg=dict(type='GELU'))), r"act_cfg\.type is 'GELU', and .* 'mmpretrain\.QuickGELU'"),
])
def test_answers_that_contradict(given, says, tmp_path):
    (tmp_path / 'model.safetensors').write_bytes((DATA / 'hub' / 'clip.safetensors').read_bytes())
    (tmp_path / 'config.json').write_text(json.dumps(dict(
        model_type='clip', vision_config=dict(num_attention_heads=2, hidden_size=16, num_hidden_layers=2))))
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'model.safetensors'))
    with pytest.raises(ValueError, match=says):
        PromptedViT(img_size=16, init_cfg=init_cfg, **given)
    vit = PromptedViT(img_size=16, init_cfg=init_cfg, layer_cfgs=dict(attn_drop_rate=0.1))  # transformers' defaults
    assert type(vit.layers[0].ffn.layers[0][1]).__name__ == 'QuickGELU' and vit.ln1.eps == 1e-5
    assert vit.layers[0].attn.attn_drop == 0.1


def test_a_config_of_another_network_is_left_aside(tmp_path):
    (tmp_path / 'config.json').write_text(json.dumps(HUB | dict(hidden_size=1024, num_hidden_layers=24)))
    path = str(tmp_path / 'model.safetensors')
    with pytest.raises(ValueError, match='number of heads'):
        read_arguments(load_file(DATA / 'hub' / 'vit.safetensors'), path)


def test_an_argument_that_contradicts_the_checkpoint(tmp_path):
    for name in ('model.safetensors', 'config.json'):
        (tmp_path / name).write_bytes((DATA / 'hub' / 'dinov2.safetensors').read_bytes() if 'model' in name
                                      else json.dumps(HUB).encode())
    checkpoint = dict(type='Pretrained', checkpoint=str(tmp_path / 'model.safetensors'))
    for kwargs, says in ((dict(num_registers=2), 'register_tokens'), (dict(patch_size=8, img_size=32), 'patch_size'),
                         (dict(layer_scale_init_value=0.), 'layer_scale_init_value')):
        with pytest.raises((ValueError, RuntimeError), match=says):
            vit = PromptedViT(init_cfg=checkpoint, num_prompts=2, **{'img_size': 16, **kwargs})
            vit.init_weights()
            vit.train()(torch.zeros(1, 3, 16, 16))


def test_the_head_follows(tmp_path):
    (tmp_path / 'config.json').write_text(json.dumps(HUB))
    (tmp_path / 'model.safetensors').write_bytes((DATA / 'hub' / 'vit.safetensors').read_bytes())
    backbone = dict(type='mmspt.PromptedViT', img_size=16, num_prompts=2,
                    init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'model.safetensors')))
    for out_type, width in (('cls_token', 16), ('cls_avg_featmap', 32)):
        model = ImageClassifier(backbone | dict(out_type=out_type), head=dict(type='LinearClsHead', num_classes=3))
        assert model.head.fc.weight.shape == (3, width)
        model.init_weights()
        assert model(torch.zeros(2, 3, 16, 16), mode='tensor').shape == (2, 3)
        with pytest.raises(ValueError, match=f'in_channels must be .* {width} numbers .* got 17: set it so, or leave'):
            ImageClassifier(backbone | dict(out_type=out_type),
                            head=dict(type='LinearClsHead', num_classes=3, in_channels=17))
    with pytest.raises(ValueError, match="'cls_avg_featmap' reads CLS"):
        ImageClassifier(backbone | dict(out_type='cls_avg_featmap', with_cls_token=False))


@pytest.mark.parametrize('missing', [None, 'part', 'index'])
def test_a_model_in_parts(missing, tmp_path):
    """As transformers saves one that is large."""
    weights = load_file(DATA / 'hub' / 'dinov2.safetensors')
    names = sorted(weights)
    parts = {'model-00001-of-00002.safetensors': names[:7], 'model-00002-of-00002.safetensors': names[7:]}
    for part, own in parts.items():
        save_file({name: weights[name] for name in own}, tmp_path / part)
    index = tmp_path / 'model.safetensors.index.json'
    listed = {name: part for part, own in parts.items() for name in own}
    if missing == 'index':
        listed.popitem()
    index.write_text(json.dumps(dict(metadata={}, weight_map=listed)))
    if missing == 'part':
        (tmp_path / 'model-00002-of-00002.safetensors').unlink()
    if missing:
        with pytest.raises(RuntimeError, match=r'index\.json.*[Ff]etch'):
            CheckpointLoader.load_checkpoint(str(index), map_location='cpu', logger='silent')
        return
    loaded = CheckpointLoader.load_checkpoint(str(index), map_location='cpu', logger='silent')
    assert loaded.keys() == weights.keys() and all(torch.equal(loaded[name], weights[name]) for name in weights)


@pytest.mark.parametrize('prefix', ['vit.', 'dinov2.', 'teacher.backbone.', 'student.module.backbone.', 'module.'])
def test_wherever_an_encoder_sits(prefix):
    weights = load_file(DATA / 'hub' / 'dinov2.safetensors')
    expected = find_encoder(weights)
    inside = {f'{prefix}{key}': value for key, value in weights.items()}
    found = find_encoder(inside | {'classifier.weight': torch.ones(2)})
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize('container', ['teacher', 'student', 'model', 'state_dict'])
def test_whatever_holds_it(container):
    weights = {f'backbone.{key}': value for key, value in load_file(DATA / 'hub' / 'timm.safetensors').items()}
    others = {key: torch.zeros_like(value) for key, value in weights.items()}
    content = {'student': others, 'epoch': 3} | {container: weights} | ({'loss': 0} if container == 'student' else {})
    assert torch.equal(find_encoder(content)['cls_token'], weights['backbone.cls_token'])


def test_towers_of_timm_in_open_clip():
    weights = load_file(DATA / 'hub' / 'timm.safetensors')
    found = find_encoder({f'visual.trunk.{key}': value for key, value in weights.items()})
    assert found.keys() == find_encoder(weights).keys()


OTHERS = {  # keys as their publishers name them -> a word of the error
    'rotary': ['embeddings.patch_embeddings.weight', 'layer.0.attention.q_proj.weight', 'rope_embeddings.inv_freq'],
    'DINOv3': ['patch_embed.proj.weight', 'storage_tokens', 'blocks.0.attn.qkv.weight'],
    'BEiT': ['embeddings.patch_embeddings.projection.weight',
             'encoder.layer.0.attention.attention.relative_position_bias.relative_position_bias_table'],
    'SigLIP': ['vision_model.embeddings.patch_embedding.weight', 'vision_model.head.probe'],
    'attention pool': ['patch_embed.proj.weight', 'attn_pool.latent'],
    'Swin': ['swin.embeddings.patch_embeddings.projection.weight', 'swin.encoder.layers.0.blocks.0.output.dense.bias'],
    'Hiera': ['patch_embed.proj.weight', 'pos_embed', 'blocks.2.proj.weight'],
    'ConvNeXt': ['convnextv2.encoder.stages.0.layers.0.dwconv.weight'],
    'EVA': ['patch_embed.proj.weight', 'blocks.0.attn.q_bias'],
    'DINOv3 ': ['patch_embed.proj.weight', 'blocks.0.gamma_1'],
    'SwiGLU ': ['patch_embed.proj.weight', 'blocks.0.mlp.fc1_g.weight'],
    'SwiGLU': ['embeddings.patch_embeddings.projection.weight', 'encoder.layer.0.mlp.weights_in.weight'],
}


@pytest.mark.parametrize('other', OTHERS)
def test_networks_that_are_no_plain_vit_are_refused_by_name(other):
    vit = PromptedViT(arch=ARCH, img_size=16, patch_size=4, num_prompts=0)
    weights = {key: torch.ones(16, 3, 4, 4) if 'patch_emb' in key else torch.ones(16) for key in OTHERS[other]}
    with pytest.raises(ValueError, match=rf'{other.strip()}.*not supported: use'):
        read_arguments(weights, 'model.safetensors')
    with pytest.raises(ValueError, match=rf'{other.strip()}.*not supported: use'):
        vit.load_state_dict(weights, strict=False)


def test_what_is_left_out_is_logged(monkeypatch):
    said = []
    monkeypatch.setattr('mmspt.models.weights.layouts.MMLogger.get_current_instance',
                        lambda: type('Log', (), dict(info=lambda self, text: said.append(text)))())
    find_encoder(load_file(DATA / 'hub' / 'open_clip.safetensors'))
    assert len(said) == 1 and ': proj, ' in said[0] and ', transformer' in said[0]


@pytest.mark.parametrize('fault', ['missing', 'extra', 'shape'])
@pytest.mark.parametrize('file', ['vit', 'dinov2_registers', 'open_clip', 'clip', 'timm_reg4'])
def test_faulty_files_are_named_errors(file, fault, tmp_path):
    """In every layout; the order of keys does not matter."""
    weights = dict(reversed(load_file(DATA / 'hub' / f'{file}.safetensors').items()))
    key = next(name for name in weights if name.endswith(('fc2.weight', 'c_proj.weight', '0.output.dense.weight')))
    if fault == 'missing':
        del weights[key]
    elif fault == 'shape':
        weights[key] = weights[key][:, :-1].contiguous()
    else:
        weights[key.replace('weight', 'odd')] = torch.ones(3)
    save_file(weights, tmp_path / 'model.safetensors')
    kwargs = FILES[file] | dict(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'model.safetensors')))
    vit = PromptedViT(arch=ARCH, img_size=16, patch_size=4, num_prompts=0, **kwargs)
    with pytest.raises((ValueError, RuntimeError), match=r'layers\.[01]\.ffn\.layers\.1\.(weight|odd)'):
        vit.init_weights()
        vit.train()(torch.zeros(1, 3, 16, 16))


WIDE = HUB | dict(hidden_size=16, num_hidden_layers=2)
HALF = dict(image_mean=[0.5] * 3, image_std=[0.25] * 3)


@pytest.mark.parametrize(('files', 'clip', 'mean'), [
    ({}, False, None), ({}, True, [122.771, 116.746, 104.094]),
    ({'config.json': WIDE, 'preprocessor_config.json': HALF}, False, [127.5] * 3),
    ({'preprocessor_config.json': HALF}, False, None),  # of whatever network
    ({'config.json': WIDE | dict(hidden_size=1024), 'preprocessor_config.json': HALF}, False, None),
    ({'config.json': dict(vision_config=WIDE), 'preprocessor_config.json': HALF}, True, [127.5] * 3),
    ({'config.json': dict(num_features=16, pretrained_cfg=dict(mean=[0.5] * 3, std=[0.5] * 3))}, True, [127.5] * 3),
    ({'config.json': WIDE, 'preprocessor_config.json': dict(do_resize=True)}, False, None),
    ({'config.json': WIDE, 'preprocessor_config.json': dict(image_mean=['a', 1, 2], image_std=[1, 1, 1])}, False, None),
])
def test_normalization(files, clip, mean, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    found = stated_normalization(str(tmp_path / 'model.safetensors'), 16, clip)
    assert (found and found[0]) == mean and (found is None or len(found[1]) == 3)


def test_broken_json_is_named(tmp_path):
    (tmp_path / 'config.json').write_text('{')
    with pytest.raises(ValueError, match=r"config\.json' must be JSON, but is not \(.*: fetch it again, or remove it"):
        stated_normalization(str(tmp_path / 'model.safetensors'), 16, False)


@pytest.fixture
def half(tmp_path):
    """A folder with a ViT whose images had another mean."""
    (tmp_path / 'config.json').write_text(json.dumps(WIDE))
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps(HALF))
    (tmp_path / 'model.safetensors').write_bytes((DATA / 'hub' / 'vit.safetensors').read_bytes())
    return dict(type='mmspt.PromptedViT', img_size=16, num_prompts=2,
                init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'model.safetensors')))


HEAD = dict(type='LinearClsHead', num_classes=3)


@pytest.mark.parametrize(('given', 'mean'), [
    ({}, [127.5] * 3), (dict(num_classes=3), [127.5] * 3), (None, [127.5] * 3),
    (dict(mean=[1., 2., 3.], std=[4.] * 3), [1., 2., 3.])])
def test_a_classifier_normalizes_as_its_checkpoint_says(given, mean, half):
    """If it reads the rest from there, too."""
    model = ImageClassifier(half, head=HEAD, data_preprocessor=given)
    assert model.data_preprocessor.mean.flatten().tolist() == mean
    if mean == [127.5] * 3:
        assert model.data_preprocessor.std.flatten().tolist() == [63.75] * 3 and model.data_preprocessor.to_rgb
    explicit = ImageClassifier(half | dict(arch=ARCH, patch_size=4), head=HEAD, data_preprocessor=given)
    assert explicit.data_preprocessor._enable_normalize == (given is not None and 'mean' in given)


def test_what_is_not_filled(half, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('mmspt.models.weights.normalization.MMLogger.get_current_instance',
                        lambda: SimpleNamespace(warning=said.append, log=lambda *args: None))
    with pytest.raises(ValueError, match='to_rgb must be True'):
        ImageClassifier(half, head=HEAD, data_preprocessor=dict(to_rgb=False))
    grey = fill_normalization({}, half, 16, False, channels=1)
    assert grey == {} and not said
    (tmp_path / 'preprocessor_config.json').unlink()
    model = ImageClassifier(half, head=HEAD)
    assert not model.data_preprocessor._enable_normalize and 'not normalized: set data_preprocessor' in said[0]


def test_heads_of_several_blocks(half):
    """As DINO's linear evaluation reads the last blocks side by side."""
    model = ImageClassifier(half | dict(out_indices=[0, 1]), head=HEAD | dict(in_channels=32))
    assert model.head.fc.in_features == 32


@pytest.mark.parametrize(('given', 'stated', 'warns'), [
    (dict(mean=[127.5] * 3, std=[63.75] * 3, to_rgb=True), True, False),
    (dict(mean=[127.5] * 3, std=[63.75] * 3), True, True), (dict(mean=[123.675] * 3, std=[58.] * 3), True, True),
    ({}, True, True), ({}, False, False), (dict(mean=[1., 2., 3.], std=[1.]), True, True),
    (dict(mean=[127.5] * 3, to_rgb=True), True, True), (dict(type='Other'), True, False)])
def test_another_normalization_is_warned_of(given, stated, warns, half, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('mmspt.models.weights.normalization.MMLogger.get_current_instance',
                        lambda: SimpleNamespace(warning=said.append, log=lambda *args: None))
    if not stated:
        (tmp_path / 'preprocessor_config.json').unlink()
    compare_normalization(given, half, 16, clip=False)
    assert bool(said) == warns and all('set data_preprocessor=dict(mean=[127.5, ' in text for text in said)


@pytest.mark.parametrize('kind', ['mmspt.ImageClassifier', 'ImageClassifier'])
@pytest.mark.parametrize('wrapped', [False, True])
def test_config_and_model_normalize_alike(kind, wrapped, half):
    """Whoever builds it: what is written into the config is what the built classifier does, in TTA as well."""
    inner = dict(type=kind, backbone=dict(half), head=dict(HEAD, in_channels=16))
    cfg = Config(dict(model=dict(type='AverageClsScoreTTA', module=inner) if wrapped else inner, data_preprocessor={}))
    built = MODELS.build(dict(copy.deepcopy(inner), data_preprocessor={})).data_preprocessor
    name_backbone(cfg)
    named = cfg.model.module if wrapped else cfg.model
    assert named.backbone.arch.embed_dims == 16
    assert ('mean' in cfg.data_preprocessor) == built._enable_normalize == (kind == 'mmspt.ImageClassifier')
