"""The probe of the study's checkpoints, on a few made pictures."""
import json
import sys

import numpy as np
import pytest
from mmengine.registry import DefaultScope
from PIL import Image
from safetensors.torch import load_file

import probe
from helpers import ROOT
from mmspt.models import PromptedViT

CLASSES = ['airplane', 'automobile']


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Bright and dark ones, 20 to train on and 6 to test, in place of CIFAR-10."""
    generator, read = np.random.default_rng(0), probe.read_config
    for split, count in (('train', 10), ('test', 3)):
        for label, name in enumerate(CLASSES):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                picture = generator.integers(0, 100, (32, 32, 3)) + 150 * label
                Image.fromarray(picture.astype(np.uint8)).save(tmp_path / split / name / f'{i}.png')

    def config(backbone):
        cfg = read(backbone)
        cfg.test_dataloader.dataset.update(data_root=str(tmp_path), metainfo=dict(classes=CLASSES))
        return cfg

    monkeypatch.setattr(probe, 'read_config', config)
    return tmp_path


def test_end_to_end(pictures, monkeypatch, capfd):
    """Checkpoints, untrained networks and pixels tell bright from dark; --images spreads over the split."""
    out = pictures / 'probe.json'
    monkeypatch.setattr(sys, 'argv', ['probe.py', '--out', str(out), '--images', '16'])
    probe.record(probe.parse_args(), probe.measure, probe.show)
    results = json.loads(out.read_text())['results']
    assert {name: (found['test'], found['width']) for name, found in results.items()} == {
        'MAE': (1., 128), 'untrained, read as MAE': (1., 128), 'MoCo-v3': (1., 128),
        'untrained, read as MoCo-v3': (1., 128), 'pixels': (1., 3072)}
    assert {found['images'] for found in results.values()} == {16}
    assert 'MAE: 100.00 % of the test images' in capfd.readouterr().out


def test_each_checkpoint_has_its_network_untrained():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        models = dict(probe.networks())
    assert list(models) == ['MAE', 'untrained, read as MAE', 'MoCo-v3', 'untrained, read as MoCo-v3']
    mae, untrained, mocov3, untrained_too = (model.backbone.layers[0].attn.qkv.weight for model in models.values())
    for weight, name in ((mae, 'mae'), (mocov3, 'mocov3')):
        stored = load_file(ROOT / 'configs' / 'pretrain' / f'vit-8x128_{name}_cifar10.safetensors')
        assert weight.equal(stored['layers.0.attn.qkv.weight'].float())
    assert untrained.equal(untrained_too) and not any(untrained.equal(weight) for weight in (mae, mocov3))
    for model, out_type in zip(models.values(), 2 * ['avg_featmap'] + 2 * ['cls_token'], strict=True):
        assert isinstance(model.backbone, PromptedViT) and model.backbone.prompts is None
        assert model.backbone.out_type == out_type


def test_strength_is_chosen_off_the_test():
    """The one that fits every tenth training image best, whatever the test says."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(400, 5)).astype(np.float32)
    labels = (features[:, 0] > 0).astype(int)
    found = probe.probe((features[:300], labels[:300]), (features[300:], 1 - labels[300:]))
    assert (found['strength'], found['images']) == (0.1, 300) and found['test'] < 0.2
    assert found['validation'][0.001] < found['validation'][0.01] < found['validation'][0.1] == 1.
