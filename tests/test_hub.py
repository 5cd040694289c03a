"""Addresses on the Hugging Face hub, against a server on this machine and against the cache without one."""
import json
import os
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors.torch import load_file, save_file

from helpers import DATA
from mmspt.hub import Place, local_path, parse
from mmspt.models import PromptedViT

CONFIG = dict(num_attention_heads=2, layer_norm_eps=1e-6, hidden_act='gelu')


def weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(value.shape, generator=generator)
            for name, value in load_file(DATA / 'hub' / 'dinov2.safetensors').items()}


def serve(hub, tmp_path, repository='facebook/dinov2-tiny', revision='main', seed=0, file='model.safetensors'):
    save_file(weights(seed), tmp_path / 'made')
    hub.files[repository, revision, file] = (tmp_path / 'made').read_bytes()
    hub.files[repository, revision, 'config.json'] = json.dumps(CONFIG).encode()


def load(address):
    return CheckpointLoader.load_checkpoint(address, map_location='cpu', logger='silent')


@pytest.mark.parametrize(('address', 'place'), [
    ('hf://facebook/dinov2-small', Place('facebook/dinov2-small', None, None)),
    ('hf://org/name@v1', Place('org/name', 'v1', None)),
    ('hf://org/name@refs/pr/3', Place('org/name', 'refs/pr/3', None)),
    ('hf://org/name@refs/pr/3/sub/x.bin', Place('org/name', 'refs/pr/3', 'sub/x.bin')),
    ('hf://org/name@v1/sub/model.safetensors', Place('org/name', 'v1', 'sub/model.safetensors')),
    ('hf://org/name/open_clip.bin', Place('org/name', None, 'open_clip.bin')),
    ('timm://vit_base_patch16_224.mae', Place('timm/vit_base_patch16_224.mae', None, None)),
])
def test_addresses(address, place):
    assert parse(address) == place


@pytest.mark.parametrize('address', ['hf://name', 'hf://', 'timm://', 'hf:///name'])
def test_no_address(address):
    with pytest.raises(ValueError, match=r'must be hf://ORG/NAME\[@REVISION\]\[/FILE\] or timm://NAME, got'):
        parse(address)


def test_repositories_and_revisions_stay_apart(hub, tmp_path):
    """All of them call their file model.safetensors."""
    places = [('facebook/one', 'main', 1), ('facebook/two', 'main', 2), ('facebook/one', 'v1', 3),
              ('timm/one', 'main', 4)]
    for repository, revision, seed in places:
        serve(hub, tmp_path, repository, revision, seed)
    addresses = ['hf://facebook/one', 'hf://facebook/two', 'hf://facebook/one@v1', 'timm://one']
    for _ in range(2):
        for address, (_, _, seed) in zip(addresses, places, strict=True):
            found, expected = load(address), weights(seed)
            assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_backbone_by_its_address_alone(hub, tmp_path):
    serve(hub, tmp_path)
    vit = PromptedViT(img_size=16, num_prompts=2,
                      init_cfg=dict(type='Pretrained', checkpoint='hf://facebook/dinov2-tiny'))
    vit.init_weights()
    assert (vit.num_layers, vit.embed_dims, vit.layers[0].attn.num_heads) == (2, 16, 2)
    assert torch.equal(vit.cls_token, weights()['embeddings.cls_token'])
    vit.train()(torch.zeros(1, 3, 16, 16))


def test_offline_takes_the_cache(hub, tmp_path, monkeypatch):
    serve(hub, tmp_path)
    path = local_path('hf://facebook/dinov2-tiny')
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    before = len(hub.asked)
    assert local_path('hf://facebook/dinov2-tiny') == path and len(hub.asked) == before
    with pytest.raises(OSError, match=r"(?s)'hf://facebook/other' cannot be fetched.*model\.safetensors or .*"):
        local_path('hf://facebook/other')


def test_offline_what_the_repository_does_not_have_is_known(hub, tmp_path, monkeypatch):
    serve(hub, tmp_path)
    del hub.files['facebook/dinov2-tiny', 'main', 'config.json']
    warned = []
    monkeypatch.setattr('mmspt.hub.MMLogger.get_current_instance', lambda: SimpleNamespace(
        info=lambda text: None, warning=warned.append))
    local_path('hf://facebook/dinov2-tiny')
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    local_path('hf://facebook/dinov2-tiny')
    assert not warned


def test_parts_and_other_names(hub, tmp_path):
    serve(hub, tmp_path, 'org/parts', file='model-1.safetensors')
    listed = dict.fromkeys(weights(), 'model-1.safetensors')
    hub.files['org/parts', 'main', 'model.safetensors.index.json'] = json.dumps(dict(weight_map=listed)).encode()
    assert load('hf://org/parts').keys() == listed.keys()
    serve(hub, tmp_path, 'org/other', seed=5, file='sub/encoder.safetensors')
    found = load('hf://org/other/sub/encoder.safetensors')
    assert torch.equal(found['embeddings.cls_token'], weights(5)['embeddings.cls_token'])


@pytest.mark.parametrize(('address', 'says'), [
    ('hf://facebook/nowhere', 'RepositoryNotFoundError'),
    ('hf://facebook/dinov2-tiny/other.bin', 'EntryNotFoundError.*fetch other.bin of facebook/dinov2-tiny elsewhere')])
def test_what_is_not_there(address, says, hub, tmp_path):
    serve(hub, tmp_path)
    with pytest.raises(OSError, match=f'(?s){address}.*cannot be fetched .*{says}'):
        local_path(address)


def test_a_file_of_another_digest_is_refused(hub, tmp_path):
    serve(hub, tmp_path)
    hub.wrong.add(('facebook/dinov2-tiny', 'main', 'model.safetensors'))
    with pytest.raises(ValueError, match=r'SHA-256 of .* must be 0000.*remove .* and fetch it again'):
        local_path('hf://facebook/dinov2-tiny')


def test_a_link_to_a_link_is_named_by_the_first(hub, tmp_path, monkeypatch):
    """Repositories may share files that are named after another digest."""
    serve(hub, tmp_path)
    fetch = huggingface_hub.hf_hub_download

    def shared(*args, **kwargs):
        path = Path(fetch(*args, **kwargs))
        blob = (path.parent / os.readlink(path)).resolve()
        if not blob.name.startswith('f' * 60):
            moved = blob.with_name('f' * 60 + blob.name[:4])
            blob.rename(moved)
            blob.symlink_to(moved)
        return str(path)

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', shared)
    assert load('hf://facebook/dinov2-tiny').keys() == weights().keys()


def test_config_of_a_file_in_a_folder(hub, tmp_path):
    serve(hub, tmp_path, 'org/nested', file='sub/model.safetensors')
    hub.files['org/nested', 'main', 'sub/config.json'] = hub.files.pop(('org/nested', 'main', 'config.json'))
    path = Path(local_path('hf://org/nested/sub/model.safetensors'))
    assert json.loads((path.parent / 'config.json').read_text()) == CONFIG


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'huggingface_hub', None)
    with pytest.raises(ImportError, match=r"needs the package huggingface_hub .*pip install 'mmspt\[hub\]'"):
        local_path('hf://facebook/dinov2-tiny')
    assert local_path('checkpoints/own.pth') == 'checkpoints/own.pth'
