"""What a backbone is made of, and the fingerprint by which it is found again."""
import hashlib
import json
from dataclasses import asdict, replace

import pytest
import torch
from mmpretrain.registry import MODELS
from safetensors.torch import save_file

from helpers import TINY, golden_checkpoint, tiny_backbone
from mmspt.models.weights.fingerprint import to_hex
from mmspt.packs.architecture import Architecture
from mmspt.packs.backbone import load_backbone


def backbone(case='mocov3_deep', initialized=True, **kwargs):
    vit = MODELS.build(tiny_backbone(case, **kwargs))
    if initialized:
        vit.init_weights()
    return vit


OTHERS = {  # what a recipe may say
    'shallow': dict(prompt_type='shallow'), 'linear': dict(num_prompts=0),
    'patches only': dict(out_type='avg_featmap', final_norm=False, pool_prompts=False),
    'rectangle, no CLS': dict(img_size=(32, 16), out_type='avg_featmap', with_cls_token=False),
    'patches, grey': dict(patch_size=16, in_channels=1, interpolate_mode='bilinear'),
    'blocks': dict(arch=TINY | dict(num_heads=2, feedforward_channels=128), qkv_bias=False, layer_scale_init_value=0.1,
                   pre_norm=True, norm_cfg=dict(type='LN', eps=1e-5), prompt_drop_rate=0.5, drop_path_rate=0.1),
    'VPT': dict(concatenate=True), 'registers': dict(num_registers=3, layer_scale_init_value=0.1),
    'CLS and mean': dict(num_registers=2, out_type='cls_avg_featmap'),
    'registers, mean': dict(num_registers=2, out_type='avg_featmap', final_norm=False),
    'CLIP': dict(pre_norm=True, patch_cfg=dict(bias=False), layer_cfgs=dict(act_cfg=dict(type='mmpretrain.QuickGELU'))),
}


@pytest.mark.parametrize('other', OTHERS)
def test_a_backbone_is_built_again(other):
    """From JSON; it computes the same with the same weights."""
    vit = backbone(init_cfg=None, **OTHERS[other])
    again = Architecture.from_json(json.loads(json.dumps(asdict(Architecture.from_model(vit)))))
    assert again == Architecture.from_model(vit)
    built = again.build()
    built.load_state_dict(vit.state_dict())
    images = torch.randn(2, vit.patch_embed.projection.in_channels, *vit.img_size)
    tolerance = dict(rtol=1e-4, atol=1e-5) if vit.concatenate else dict(rtol=0, atol=0)  # VPT's way: as good as equal
    torch.testing.assert_close(built.eval()(images)[0], vit.eval()(images)[0], **tolerance)
    assert again.prompts_shape == (None if vit.prompts is None else tuple(vit.prompts.shape))


UNSAID = {  # what a pack has no words for -> a word of the error
    'norm of patches': (dict(patch_cfg=dict(norm_cfg=dict(type='LN'))), 'patch_embed'),
    'activation': (dict(layer_cfgs=dict(act_cfg=dict(type='ReLU'))), 'activation'),
    'heads of one block': (dict(layer_cfgs=[{}, {}, {}, dict(num_heads=8)]), 'num_heads'),
    'layers that are read': (dict(out_indices=[1, 3]), 'out_indices'),
}


@pytest.mark.parametrize('unsaid', UNSAID)
def test_a_backbone_that_a_pack_cannot_say(unsaid):
    kwargs, words = UNSAID[unsaid]
    with pytest.raises(ValueError, match=rf'({words}).*: (share its whole|correct the)'):
        Architecture.from_model(backbone(init_cfg=None, **kwargs))


WRONG = [  # fields, words of the error
    (dict(embed_dims=8.), 'embed_dims must be int, got 8.0'), (dict(qkv_bias=1), 'qkv_bias must be bool'),
    (dict(img_size=[8]), r'img_size must be tuple\[int, int\], got \[8\]'), (dict(init_cfg={}), "knows no 'init_cfg'"),
    (dict(num_prompts=-1), 'sizes must be at least 1'), (dict(num_heads=3), 'multiple of num_heads, got 8 and 3'),
    (dict(patch_size=[4, 9]), 'whole patches'), (dict(with_cls_token=False), 'needs with_cls_token'),
    (dict(prompt_type='DEEP'), 'prompt_type must be one of deep, shallow, got DEEP'),
]


@pytest.mark.parametrize(('fields', 'words'), WRONG, ids=[next(iter(fields)) for fields, _ in WRONG])
def test_what_is_no_architecture(fields, words, card):
    """The error gives the rule, the value and what to do."""
    with pytest.raises(ValueError, match=f'{words}.*: correct the recipe and export the pack again'):
        Architecture.from_json(card['backbone'] | fields)


def ours(vit):
    return {key: value for key, value in vit.state_dict().items() if not key.startswith('prompts')}


def test_the_definition():
    """SHA-256 of JSON: names, shapes and SHA-256 of each weight in little-endian fp32; what else matters."""
    vit = backbone()
    shapes = []
    for name, weight in sorted((name.replace('ln1.', 'norm.') if name.startswith('ln1') else name, weight)
                               for name, weight in ours(vit).items()):
        content = weight.numpy().astype('<f4').tobytes()
        shapes.append([name, list(weight.shape), hashlib.sha256(content).hexdigest()])
    settings = dict(num_heads=4, eps=1e-6, activation='GELU', stride=[8, 8], padding=[0, 0], dilation=[1, 1])
    text = json.dumps([shapes, settings], sort_keys=True)
    mark = vit.fingerprint()
    assert mark.dtype == torch.uint8 and mark.shape == (32, )
    assert to_hex(mark) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize('form', ['fair', 'classifier', 'safetensors'])
def test_one_network_in_many_files(form, tmp_path):
    """Numbers that are exact in fp16 and bf16, in the layouts and precisions of publishers."""

    def exact(weight):
        return weight.clamp(-4, 4).mul(64).round().div(64)

    vit, path = backbone(), tmp_path / f'a.{form}'
    vit.load_state_dict({key: exact(value) for key, value in vit.state_dict().items()})
    theirs = torch.load(golden_checkpoint('mocov3_deep'), weights_only=True)['state_dict']
    if form == 'safetensors':
        save_file({key: value.half() for key, value in ours(vit).items()}, path)
    elif form == 'classifier':
        weights = {f'backbone.{key}': value.bfloat16() for key, value in ours(vit).items()}
        torch.save(dict(state_dict=weights | {'head.fc.weight': torch.ones(9, 64)}), path)
    else:
        strided = {key: exact(value).mT.contiguous().mT for key, value in theirs.items() if value.ndim == 2}
        torch.save(dict(state_dict={key: exact(value) for key, value in theirs.items()} | strided), path)
    read = backbone(init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    assert to_hex(read.fingerprint()) == to_hex(vit.fingerprint())


@pytest.mark.parametrize('other', [
    dict(num_prompts=0), dict(prompt_type='shallow', concatenate=True, drop_rate=0.1, interpolate_mode='bilinear'),
    dict(out_type='avg_featmap', final_norm=False, pool_prompts=False, frozen=False)], ids=str)
def test_the_same_whatever_was_tuned_on_it(other):
    """Wherever the only final norm is read, in training mode and in double precision."""
    expected, vit = to_hex(backbone().fingerprint()), backbone(**other)
    assert to_hex(vit.fingerprint()) == expected == to_hex(vit.train().double().fingerprint())


@pytest.mark.parametrize('write', ['in place', 'load', 'replaced'])
def test_it_is_taken_anew_after_weights_were_written(write):
    """It is kept between calls."""
    vit = backbone()
    before, weight = to_hex(vit.fingerprint()), vit.pos_embed
    if write == 'in place':
        weight.detach().view(-1)[3] += 1e-6
    elif write == 'load':
        vit.load_state_dict(vit.state_dict() | {'pos_embed': weight + 1})
    else:
        weight.data = weight + 1
    fresh = backbone(init_cfg=None)
    fresh.load_state_dict(vit.state_dict())
    assert to_hex(fresh.fingerprint()) == to_hex(vit.fingerprint()) != before


@pytest.mark.parametrize('other', [
    dict(arch=TINY | dict(num_heads=2)), dict(norm_cfg=dict(type='LN', eps=1e-5)),
    dict(layer_cfgs=[{}] * 3 + [dict(act_cfg=dict(type='GELU', approximate='tanh'))])], ids=str)
def test_another_if_the_same_weights_compute_another_thing(other):
    out_type = dict(out_type='avg_featmap', final_norm=False)
    one, two = backbone(**out_type), backbone(**out_type | other)
    images = torch.randn(2, 3, 32, 32)
    two.prompts.tokens.detach().copy_(one.prompts.tokens)
    assert not torch.equal(one.eval()(images)[0], two.eval()(images)[0])  # the case is what it says
    assert to_hex(one.fingerprint()) != to_hex(two.fingerprint())


@pytest.mark.parametrize('img_size', [48, (32, 16)], ids=str)
def test_resized_positions_count_as_their_file_has_them(img_size):
    """Until somebody changes them; loading the same once more is no change."""
    one, two = backbone(), backbone(img_size=img_size)
    assert two.pos_embed.shape != one.pos_embed.shape and to_hex(one.fingerprint()) == to_hex(two.fingerprint())
    two.load_state_dict(two.state_dict())
    assert to_hex(one.fingerprint()) == to_hex(two.fingerprint())
    with torch.no_grad():
        two.pos_embed[0, 1, 0] += 1e-6
    assert to_hex(one.fingerprint()) != to_hex(two.fingerprint())


def test_the_backbone_alone():
    """Of its architecture only."""
    vit, case = backbone(), golden_checkpoint('mocov3_deep')
    for changes, words in ((dict(num_layers=5), 'layers'), (dict(patch_size=(4, 4)), 'patch_embed')):
        with pytest.raises(ValueError, match=rf"(?s)must fit its checkpoint, but '.*' does not \(.*({words})"):
            load_backbone(replace(Architecture.from_model(vit), **changes), case)
    alone = load_backbone(Architecture.from_model(vit), case)
    assert alone.prompts is None and not alone.training and not any(p.requires_grad for p in alone.parameters())
    assert ours(vit).keys() == alone.state_dict().keys()
    assert all(torch.equal(value, ours(vit)[key]) for key, value in alone.state_dict().items())
    assert torch.equal(alone.fingerprint(), vit.fingerprint())


@pytest.mark.parametrize('content', [
    {'backbone.prompts': torch.ones(4, 5, 64)}, {'patch_embed.proj.weight': torch.ones(64, 192)},
    {'patch_embed.proj.weight': torch.ones(64, 3, 8, 8)}], ids=str)
def test_checkpoints_that_are_no_backbone(content, tmp_path):
    torch.save(content, tmp_path / 'other.pth')
    with pytest.raises((ValueError, RuntimeError), match=r'other\.pth'):
        load_backbone(Architecture.from_model(backbone(initialized=False)), str(tmp_path / 'other.pth'))
