"""Packs come back as they were written, are small, and every part must fit the others."""
import dataclasses
import json
import pathlib

import pytest
import safetensors
import safetensors.torch
import torch
from mmengine.config import Config

from mmspt.packs.architecture import Architecture
from mmspt.packs.pack import Pack
from mmspt.packs.preprocessing import Preprocessing

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'


def build(card, tensors, dtype=torch.float32):
    """The same pack, made of its parts."""
    prompts = tensors.get('prompts')
    return Pack(
        task=card['task'], classes=tuple(card['classes']), prompts=None if prompts is None else prompts.to(dtype),
        weight=tensors['head.fc.weight'].to(dtype), bias=tensors['head.fc.bias'].to(dtype),
        logit_scale=tensors.get('logit_scale'), gate=tensors.get('gate'),
        backbone=Architecture(**card['backbone'] | dict(img_size=(8, 16), patch_size=(4, 4))),
        fingerprint=torch.frombuffer(bytearray.fromhex(card['fingerprint']), dtype=torch.uint8),
        preprocessing=Preprocessing.from_json(card['preprocessing']), checkpoint=card['checkpoint'],
        recipe=card['recipe'], metrics=card['metrics'], versions=card['versions'])


def assert_equal(one, other):
    for field in dataclasses.fields(Pack):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, torch.Tensor):
            assert a.dtype == b.dtype and torch.equal(a, b), field.name
        else:
            assert a == b and type(a) is type(b), field.name


def deep(card, tensors):
    card.update(task='鳥 🐦', classes=['Zaunkönig', '🦉 \u202e\0\n"\\', 'Zaunkönig'], checkpoint='é.pth')


def linear(card, tensors):
    card['backbone']['num_prompts'] = 0
    del tensors['prompts']


def shallow(card, tensors):
    card['backbone']['prompt_type'] = 'shallow'
    tensors['prompts'] = tensors['prompts'][:1]


def gated(card, tensors):
    shallow(card, tensors)
    tensors.update(gate=torch.tensor([0.1]), logit_scale=torch.tensor([1., 0.5]))


def bare(card, tensors):
    card.update(checkpoint='', recipe='', metrics={}, versions={})
    card['preprocessing'].update(resize=None, mean=None, std=None, to_rgb=False)


@pytest.mark.parametrize(('kind', 'dtype'), [
    (deep, torch.float16), (linear, torch.bfloat16), (gated, torch.float32), (bare, torch.float32)])
def test_saved_and_read(kind, dtype, card, tensors, tmp_path):
    kind(card, tensors)
    pack, path = build(card, tensors, dtype), tmp_path / 'folder' / 'a.safetensors'
    pack.save(path)
    assert_equal(Pack.load(str(path)), pack)
    plain = safetensors.torch.load_file(path)
    assert sorted(plain) == sorted(tensors)
    assert all(torch.equal(plain[name], tensors[name].to(dtype)) for name in tensors)
    with safetensors.safe_open(path, 'pt') as file:
        assert json.loads(file.metadata()['mmspt_pack']) == card
    assert [entry.name for entry in path.parent.iterdir()] == ['a.safetensors']


def test_a_pack_written_by_hand(card, tensors, write):
    """The format is plain JSON and tensors, in any order of keys; version 1 lists the transforms of images."""
    path = write(json.dumps(dict(reversed(card.items())), ensure_ascii=False, indent=3), tensors)
    expected = build(card, tensors)
    assert_equal(Pack.load(path), expected)
    resize = dict(type='Resize', scale=[16, 8], keep_ratio=False, backend='cv2', interpolation='bilinear')
    card |= dict(version=1, preprocessing=dict(
        transforms=[resize], size=[8, 16], mean=[1., 2., 3.], std=[4., 5., 6.], to_rgb=True))
    assert_equal(Pack.load(write(card, tensors)), expected)


def test_version_1_in_half_precision_is_folded_in_single(card, tensors, write):
    """A gate that was rounded again would be another."""
    layers, width = card['backbone']['num_layers'], card['backbone']['embed_dims']
    card['backbone'] |= dict(prompt_type='shallow')
    card |= dict(version=1, preprocessing=dict(
        transforms=[dict(type='Resize', scale=[16, 8], keep_ratio=False, backend='cv2', interpolation='bilinear')],
        size=[8, 16], mean=[1., 2., 3.], std=[4., 5., 6.], to_rgb=True))
    count = card['backbone']['num_prompts']
    logits, temperatures = torch.linspace(-3, 2, layers - 1).half(), torch.linspace(0.3, 3, layers).half()
    tensors = {key: value for key, value in tensors.items() if key.startswith('head')} | {
        'backbone.prompts': torch.ones(1, count, width).half(), 'backbone.gate_logits': logits,
        'backbone.temperatures': temperatures}
    pack = Pack.load(write(card, tensors))
    assert torch.equal(pack.gate, logits.float().sigmoid())
    assert torch.equal(pack.logit_scale, 1 / temperatures.float())


def test_tensors_stand_alone(card, tensors, tmp_path):
    """Views with gradients are saved; what is read is no map of a file that may be written anew."""
    wide, path = torch.randn(8, 6, requires_grad=True), tmp_path / 'a.safetensors'
    pack = build(card, tensors | {'head.fc.weight': wide.T[::2], 'head.fc.bias': wide[0, ::2]})
    assert pack.nbytes == 4 * (48 + 24 + 3)
    pack.save(path)
    loaded = Pack.load(path)
    with open(path, 'r+b') as file:
        file.write(bytes(path.stat().st_size))
    assert torch.equal(loaded.weight, wide.T[::2]) and torch.equal(loaded.bias, wide[0, ::2])
    assert not loaded.weight.requires_grad


def test_cub_on_vit_b_is_small(card, tmp_path):
    config, width = Config.fromfile(CONFIGS / 'spt/vit-b_mae_cub.py'), 768
    card |= dict(classes=[f'{i:03d}.{"Long-tailed Black-throated Warbler " * 2}' for i in range(200)],
                 recipe=config.pretty_text)
    card['backbone'] |= dict(embed_dims=width, num_layers=12, num_heads=12, feedforward_channels=3072, num_prompts=20)
    build(card, {'prompts': torch.randn(12, 20, width), 'head.fc.weight': torch.randn(200, width),
                 'head.fc.bias': torch.zeros(200)}).save(tmp_path / 'cub.safetensors')
    assert (tmp_path / 'cub.safetensors').stat().st_size <= 1_400_000
    assert Pack.load(tmp_path / 'cub.safetensors').recipe == config.pretty_text


MISFITS = {  # changes of the card, its backbone and the tensors; words of the error
    'class names': (dict(classes=['wren', 'crow']), {}, {}, ['head.fc.weight', '2 class names', '(3, 8)']),
    'bias': ({}, {}, {'head.fc.bias': torch.zeros(2)}, ['head.fc.bias', '(3,)', '(2,)']),
    'depth': ({}, dict(num_layers=3), {}, ['prompts', '(3, 3, 8)', '(2, 3, 8)']),
    'no prompts named': ({}, dict(num_prompts=0), {}, ['prompts', 'absent', '(2, 3, 8)']),
    'image size': ({}, dict(img_size=[8, 8]), {}, ['img_size', '(8, 8)', '(8, 16)']),
    'NaN': ({}, {}, {'head.fc.bias': torch.tensor([0., float('nan'), 0.])}, ['head.fc.bias', 'finite', 'NaN']),
    'fp64': ({}, {}, {'head.fc.bias': torch.zeros(3).double()}, ['head.fc.bias', 'float32', 'got torch.float64']),
    'no prompts': ({}, {}, dict(prompts=None), ['prompts']),
    'no weight': ({}, {}, {'head.fc.weight': None}, ['must hold']),
    'another tensor': ({}, {}, {'backbone.cls_token': torch.zeros(3)}, ['must hold', 'backbone.cl']),
}


@pytest.mark.parametrize('misfit', MISFITS)
def test_parts_must_fit(misfit, card, tensors, write):
    other, backbone, changed, words = MISFITS[misfit]
    path = write(card | other | dict(backbone=card['backbone'] | backbone),
                 {name: value for name, value in (tensors | changed).items() if value is not None})
    with pytest.raises(ValueError, match=rf'{path.name}.*: the file is damaged') as caught:
        Pack.load(path)
    assert all(word in str(caught.value) for word in words)
