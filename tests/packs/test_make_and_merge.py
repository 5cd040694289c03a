"""A pack of a tuned classifier does what the classifier did: merged, or read by MMPretrain itself; nowhere else."""
import copy
import pickle
import re
from contextlib import nullcontext

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from mmpretrain import get_model
from mmpretrain.registry import MODELS

from helpers import golden_checkpoint, tiny_backbone
from mmspt.packs.backbone import merge
from mmspt.packs.make import make_pack
from mmspt.packs.pack import Pack
from mmspt.packs.preprocessing import Preprocessing

CLASSES = ('wren', 'crow', 'owl')
GATED = dict(prompts=dict(type='mmspt.GatedPrompts'))
KINDS = {  # golden case, arguments of the backbone
    'mean, deep': ('mae_deep', {}),
    'mean of patches': ('mae_deep', dict(pool_prompts=False)),
    'CLS, deep': ('mocov3_deep', {}),
    'CLS, linear': ('mocov3_deep', dict(num_prompts=0)),
    'mean, gated': ('mae_shallow', GATED),
}
HEX = r'\b[0-9a-f]{64}\b'


def images(size=32):
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(9))


@torch.no_grad()
def logits(model):
    return model.eval()(images(), mode='tensor')


def packed(run, **kwargs):
    return make_pack(run.model, run.config, 'birds', CLASSES[:len(run.model.head.fc.bias)], {'accuracy/top1': 70.},
                     **kwargs)


@pytest.fixture(params=KINDS)
def run(request, tuned):
    case, kwargs = KINDS[request.param]
    return tuned(case, **kwargs)


def test_bit_equal(run, tmp_path):
    """Merged or beside its backbone, MMPretrain's classifier gives the tuned model's logits."""
    pack, path = tmp_path / 'birds.safetensors', tmp_path / 'merged.pth'
    packed(run).save(pack)
    whole = merge(Pack.load(pack), run.config.model.backbone.init_cfg.checkpoint)
    expected = run.model.state_dict()
    weights = {name: value for name, value in whole['state_dict'].items() if name in expected}
    assert 'head.fc.weight' in weights and len(weights) >= len(expected) - 3  # gated prompts are folded
    assert all(value.dtype == torch.float32 and torch.equal(value, expected[name]) for name, value in weights.items())
    torch.save(whole, path)
    merged = get_model(run.config, backbone=dict(init_cfg=None))
    load_checkpoint(merged, str(path), map_location='cpu', strict=True)
    merged.backbone.check_weights()
    assert torch.equal(logits(merged), logits(run.model))
    torch.nn.init.zeros_(merged.head.fc.weight)
    load_checkpoint(merged, str(pack), map_location='cpu', strict=True)
    for model in (merged, get_model(run.config, pretrained=str(path)), get_model(run.config, pretrained=str(pack))):
        assert torch.equal(logits(model), logits(run.model))
    assert tuple(model._dataset_meta['classes']) == tuple(whole['meta']['dataset_meta']['classes']) == CLASSES


def test_a_merged_linear_probe_runs_on_the_stock_network(tuned, tmp_path):
    run = tuned('mocov3_deep', num_prompts=0)
    torch.save(merge(packed(run), golden_checkpoint('mocov3_deep')), tmp_path / 'merged.pth')
    backbone = tiny_backbone('mocov3_deep', type='VisionTransformer', init_cfg=None)
    del backbone['num_prompts'], backbone['prompt_type']
    model = MODELS.build(run.config.model.to_dict() | dict(backbone=backbone))
    load_checkpoint(model, str(tmp_path / 'merged.pth'), map_location='cpu', strict=True)
    torch.testing.assert_close(logits(model), logits(run.model), rtol=1e-5, atol=1e-5)


def test_half_precision(tuned, tmp_path):
    run = tuned()
    pack = packed(run, dtype=torch.float16)
    assert pack.prompts.dtype == pack.weight.dtype == pack.bias.dtype == torch.float16
    assert torch.equal(pack.fingerprint, packed(run).fingerprint)
    pack.save(tmp_path / 'half.safetensors')
    model = get_model(run.config, pretrained=str(tmp_path / 'half.safetensors'))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    for name in ('backbone.prompts.tokens', 'head.fc.weight', 'head.fc.bias'):
        run.model.get_parameter(name).data = run.model.get_parameter(name).detach().half().float()
    assert torch.equal(logits(model), logits(run.model))
    run.model.head.fc.weight.detach()[0, 0] = 1e6
    with pytest.raises(ValueError, match=r'head\.fc\.weight must be finite'):
        packed(run, dtype=torch.float16)


def test_the_wrong_backbone_is_refused_by_both_fingerprints(tuned, tmp_path):
    """It differs in one number."""
    run, other = tuned(), str(tmp_path / 'other.pth')
    content = torch.load(golden_checkpoint('mae_deep'), weights_only=True)
    content['model']['blocks.1.mlp.fc1.bias'][7] += 1e-6
    torch.save(content, other)
    pack, path = packed(run), tmp_path / 'a.safetensors'
    pack.save(path)
    init_cfg = dict(type='Pretrained', checkpoint=other)
    backbone = MODELS.build(run.config.model.backbone | dict(init_cfg=init_cfg))
    backbone.init_weights()
    expected = {bytes(mark.tolist()).hex() for mark in (pack.fingerprint, backbone.fingerprint())}
    for use in (lambda: merge(pack, other),
                lambda: get_model(run.config, pretrained=str(path), backbone=dict(init_cfg=init_cfg))):
        with pytest.raises((ValueError, RuntimeError), match='checkpoint that it was tuned on') as caught:
            use()
        assert set(re.findall(HEX, str(caught.value))) == expected and len(expected) == 2


def test_weights_of_load_from_are_not_named_after_init_cfg(tuned):
    """Whoever has the file that is named would be refused."""
    run = tuned()
    with torch.no_grad():
        run.model.backbone.layers[0].ln1.weight.mul_(1.5)
    assert packed(run).checkpoint == ''


@pytest.mark.parametrize('other', [
    dict(num_prompts=7), dict(num_prompts=0), dict(out_type='cls_token', final_norm=True), dict(pool_prompts=False),
    dict(arch=dict(embed_dims=64, num_layers=3, num_heads=4, feedforward_channels=256))], ids=str)
def test_models_that_a_pack_does_not_fit(other, tuned, tmp_path):
    """An error; MMEngine itself would log it and go on with random weights. Of a head PromptInitHook knows more."""
    run = tuned()
    packed(run).save(tmp_path / 'a.safetensors')
    model = get_model(run.config, backbone=other)
    head = model.head.fc.weight.detach().clone()
    with pytest.raises((ValueError, RuntimeError)) as caught:
        load_checkpoint(model, str(tmp_path / 'a.safetensors'), map_location='cpu')
    assert len(str(caught.value)) < 1000
    assert torch.equal(model.head.fc.weight, head)


UNFIT = {  # what a pack cannot hold -> arguments of tuned
    'frozen=False': dict(frozen=False),
    'VisionTransformerClsHead': dict(model=dict(head=dict(type='VisionTransformerClsHead', num_classes=3,
                                                          in_channels=64))),
    'GlobalAveragePooling': dict(model=dict(neck=dict(type='GlobalAveragePooling'))),
    r'\(32, 32\), .* \(24, 40\)': dict(pipeline=[dict(type='Resize', scale=(40, 24)), dict(type='PackInputs')]),
}


@pytest.mark.parametrize('words', UNFIT)
def test_models_that_a_pack_cannot_hold(words, tuned):
    run = tuned(**UNFIT[words])
    with pytest.raises(ValueError, match=rf'(?s)({words}).*: share its whole'):
        make_pack(run.model, run.config, 'birds', CLASSES, {})


def test_the_recipe_tells_nothing_of_the_machine(tuned):
    """It is the config, without run, folders and secrets; the caller's config stays as it is."""
    run = tuned()
    run.config.merge_from_dict(dict(
        work_dir='/home/someone/runs/1', load_from='/home/someone/a.pth', resume=True, launcher='slurm',
        train_dataloader=dict(dataset=dict(type='CustomDataset', data_root='/home/someone/data', ann_file='train.txt')),
        custom_hooks=[dict(type='mmspt.PromptInitHook',
                           initializer=dict(type='mmspt.FileInit', path='/home/someone/prompts.pth'))],
        default_hooks=dict(checkpoint=dict(type='mmspt.CheckpointHook', interval=10, out_dir='/home/someone/out')),
        notes=dict(api_key='SECRET', login=dict(password='SECRET', token='SECRET'), url='file:///home/me/x',
                   num_tokens=7),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01))))
    before = run.config.pretty_text
    pack = packed(run)
    assert run.config.pretty_text == before
    kept = Config.fromstring(pack.recipe, '.py')
    assert kept.optim_wrapper.optimizer.lr == 0.01 and kept.train_dataloader.dataset.ann_file == 'train.txt'
    assert kept.model.backbone.init_cfg.checkpoint == pack.checkpoint == 'mae_deep_pretrain.pth'
    assert kept.custom_hooks[0].initializer.type == 'mmspt.FileInit'
    assert not {'work_dir', 'load_from', 'resume', 'launcher'} & set(kept)
    assert kept.notes == dict(login={}, url='x', num_tokens=7) and 'SECRET' not in pack.recipe
    assert 'someone' not in pack.recipe and golden_checkpoint('mae_deep') not in pack.recipe
    assert packed(run, with_recipe=False).recipe == ''
    run.config.model.backbone.init_cfg = [
        dict(type='Constant', layer='X'),
        dict(type='Pretrained', checkpoint='https://someone:secret@example.org/mae/vit.pth?key=1')]
    assert packed(run).checkpoint == 'https://example.org/mae/vit.pth'
    for address in ('hf://MahmoodLab/UNI/model.safetensors', 'timm://vit_base_patch16_224.mae@v1'):
        run.config.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=address)
        assert packed(run).checkpoint == address  # by which `predict` fetches it


@pytest.mark.parametrize(('img_size', 'size'), [(32, 24), (24, 32), (24, 24)])
def test_images_of_another_size_are_refused(img_size, size, tuned, tmp_path):
    """In eval mode, until training goes on or another checkpoint takes the pack's place."""
    run, path, other = tuned(), str(tmp_path / 'a.safetensors'), str(tmp_path / 'a.pth')
    packed(run).save(path)
    torch.save(run.model.state_dict(), other)
    model = get_model(run.config, pretrained=path, backbone=dict(img_size=img_size))
    with pytest.raises(ValueError, match=r'of 32 x 32 pixels .* 24 x 24: set model\.backbone\.img_size'):
        model(images(size))
    if img_size == 32:
        load_checkpoint(model, other)
        model(images(size))
        load_checkpoint(model, path)
        model.train()(images(size))
        model.eval()(images(size))


OTHER = {  # what differs -> changes of the config
    'mean=(123.675, 116.28, 103.53) (the config (127.5, 127.5, 127.5))': {'data_preprocessor.mean': [127.5] * 3},
    'std=(58.395, 57.12, 57.375) (the config (1.0, 1.0, 1.0))': {'data_preprocessor.std': [1.] * 3},
    'to_rgb=True (the config False)': {'data_preprocessor.to_rgb': False},
    'interpolation=bilinear (the config bicubic)': {'test_dataloader.dataset.pipeline.1.interpolation': 'bicubic'},
    'resize=(32, 32) (the config 36), crop=False (the config True)': {'test_dataloader.dataset.pipeline': [
        dict(type='ResizeEdge', scale=36), dict(type='CenterCrop', crop_size=32), dict(type='PackInputs')]},
}


@pytest.mark.parametrize('words', OTHER)
def test_get_model_refuses_a_recipe_of_other_images(words, tuned, tmp_path):
    """Of one size, so that no shape tells; without its config a model compares the normalization."""
    run, path = tuned(), str(tmp_path / 'a.safetensors')
    packed(run).save(path)
    config = Config(run.config.to_dict())
    config.merge_from_dict(OTHER[words])
    refused = pytest.raises(ValueError, match=re.escape(words) + '.*or classify by mmspt.MultiTaskPredictor')
    with refused:
        get_model(config, pretrained=path)
    model = get_model(config)
    load_checkpoint(model, path)
    for name in ('with its config', 'again', 'without'):
        if name == 'without':
            del model._config
        with refused if name != 'without' or 'data_preprocessor' in str(OTHER[words]) else nullcontext():
            model(images())
    load_checkpoint(model.train(), path)  # training is free
    model(images())
    model.eval()(images())


def test_images_are_compared_once_for_each_pack(tuned, tmp_path, monkeypatch):
    """A copy and what was pickled keep that; the model is saved, and compiled, as MMPretrain's."""
    run, path, asked = tuned(), str(tmp_path / 'a.safetensors'), []
    packed(run).save(path)
    monkeypatch.setattr(Preprocessing, 'check', lambda self, config: asked.append(config))
    model = get_model(run.config, pretrained=path)
    expected = logits(run.model)
    for other in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model)),
                  torch.compile(model, backend='eager', fullgraph=True)):
        assert torch.equal(logits(other), expected)
    assert len(asked) == 1 and asked[0].test_dataloader == run.config.test_dataloader
    load_checkpoint(model, path)
    model.half().eval()
    assert len(asked) == 2
    stock = MODELS.build(run.config.model.to_dict() | dict(type='ImageClassifier'))
    assert list(stock.state_dict()) == list(model.state_dict()) == list(run.model.state_dict())


def test_gates_do_not_load_into_plain_prompts(tuned, tmp_path):
    packed(tuned('mae_shallow', **GATED)).save(tmp_path / 'a.safetensors')
    with pytest.raises(ValueError, match=r"ShallowPrompts holds prompt tokens alone.*type='mmspt.GatedPrompts'"):
        get_model(tuned('mae_shallow').config, pretrained=str(tmp_path / 'a.safetensors'))
