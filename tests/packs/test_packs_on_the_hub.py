"""Packs go up to a hub and come down again, against a server on this machine."""
import io
import json
import re
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml
from huggingface_hub import constants
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader
from mmpretrain import get_model
from PIL import Image
from safetensors.torch import save_file

from helpers import golden_checkpoint, load_tool
from mmspt.hub import local_path
from mmspt.packs.backbone import find_source
from mmspt.packs.image_classifier import ImageClassifier
from mmspt.packs.make import make_pack
from mmspt.packs.pack import Pack

ADDRESS = 'hf://birds/tuned'
VIT = 'hf://facebook/vit-tiny'


def run(monkeypatch, tool, *arguments):
    """Run a tool in this process."""
    monkeypatch.setattr(sys, 'argv', [tool, *map(str, arguments)])
    module = load_tool(tool)
    monkeypatch.setattr(module, 'prepare_process', lambda: None)
    monkeypatch.setattr(module, 'keep_stdout_pure', lambda: io.StringIO(), raising=False)
    module.main()


@pytest.fixture
def local(tuned, tmp_path):
    """A tuned classifier and its pack, which names a backbone on the hub."""
    tuning = tuned()
    tuning.config.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=VIT)
    pack = make_pack(tuning.model, tuning.config, 'wild | birds', ['wren', 'crow', 'owl'], {'accuracy/top1': 81.5})
    pack.save(tmp_path / 'own.safetensors')
    tuning.path = tmp_path / 'own.safetensors'
    return tuning


def test_up_and_down(hub, local, monkeypatch, capsys):
    run(monkeypatch, 'pack', 'push', local.path, ADDRESS)
    assert f'{ADDRESS}/pack.safetensors: ' in capsys.readouterr().out
    assert hub.files['birds/tuned', 'main', 'pack.safetensors'] == local.path.read_bytes()
    own, fetched = Pack.load(local.path), Pack.load(ADDRESS)
    assert fetched.classes == own.classes and torch.equal(fetched.prompts, own.prompts)
    asked = [file for method, *_, file in hub.asked if method == 'HEAD']
    assert asked == ['README.md', 'pack.safetensors']  # nothing else, and nothing twice
    loaded = CheckpointLoader.load_checkpoint(ADDRESS, map_location='cpu', logger='silent')['state_dict']
    assert torch.equal(loaded['head.fc.weight'], own.weight)
    run(monkeypatch, 'pack', 'inspect', ADDRESS)
    assert 'wren, crow, owl' in capsys.readouterr().out


def test_get_model_takes_an_address(hub, local, monkeypatch):
    run(monkeypatch, 'pack', 'push', local.path, ADDRESS)
    config = local.config
    config.model.backbone.init_cfg.checkpoint = str(golden_checkpoint('mae_deep'))
    model = get_model(config, pretrained=ADDRESS)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(images, mode='tensor'), local.model(images, mode='tensor'))


def test_the_card_is_valid_and_says_how(hub, local, monkeypatch, tmp_path, capsys):
    run(monkeypatch, 'pack', 'push', local.path, ADDRESS)
    text = hub.files['birds/tuned', 'main', 'README.md'].decode()
    _, front, body = re.split(r'^---\n', text, maxsplit=2, flags=re.MULTILINE)
    front = yaml.safe_load(front)
    assert front['base_model'] == 'facebook/vit-tiny' and front['pipeline_tag'] == 'image-classification'
    result, = front['model-index'][0]['results']
    assert result['metrics'] == [dict(type='accuracy', name='accuracy/top1', value=81.5)]
    assert f'predict.py photos/ --packs {ADDRESS}\n' in body and 'wren, crow, owl' in body and VIT in body
    assert '| task | wild \\| birds |' in body and 'data_preprocessor' in body  # the recipe
    code = re.search(r'```python\n(.*?)```', body, re.DOTALL)[1]
    weights = {key: value.contiguous() for key, value in torch.load(golden_checkpoint('mae_deep'))['model'].items()}
    save_file(weights, tmp_path / 'made')
    hub.files['facebook/vit-tiny', 'main', 'model.safetensors'] = (tmp_path / 'made').read_bytes()
    Image.effect_noise((40, 40), 60).convert('RGB').save(tmp_path / 'photo.jpg')
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert re.search("class_name='(wren|crow|owl)'", capsys.readouterr().out)


def test_several_packs_in_one_repository(hub, local, monkeypatch):
    for name in ('one', 'sub/two'):
        run(monkeypatch, 'pack', 'push', local.path, f'{ADDRESS}@v1/{name}.safetensors')
    names = {name for repository, revision, name in hub.files if revision == 'v1'}
    assert names == {'one.safetensors', 'README.md', 'sub/two.safetensors', 'sub/two.md'}
    assert f'--packs {ADDRESS}@v1/sub/two.safetensors\n' in hub.files['birds/tuned', 'v1', 'sub/two.md'].decode()
    assert Pack.load(f'{ADDRESS}@v1/sub/two.safetensors').task == 'wild | birds'


def test_predict_fetches_pack_and_backbone(hub, local, monkeypatch, tmp_path):
    run(monkeypatch, 'pack', 'push', local.path, ADDRESS)
    weights = {key: value.contiguous() for key, value in torch.load(golden_checkpoint('mae_deep'))['model'].items()}
    save_file(weights, tmp_path / 'made')
    hub.files['facebook/vit-tiny', 'main', 'model.safetensors'] = (tmp_path / 'made').read_bytes()
    Image.effect_noise((40, 40), 60).convert('RGB').save(tmp_path / 'a.png')
    for number, backbone in enumerate(([], ['--backbone', golden_checkpoint('mae_deep')])):
        out = tmp_path / f'{number}.jsonl'
        with pytest.raises(SystemExit) as ended:
            run(monkeypatch, 'predict', tmp_path / 'a.png', '--packs', f'b={ADDRESS}', '--out', out, *backbone)
        assert ended.value.code == 0
    one, two = (json.loads((tmp_path / f'{number}.jsonl').read_text()) for number in range(2))
    assert one == two and one['class'] in ('wren', 'crow', 'owl')


def test_a_readme_of_somebody_elses_stays(hub, local, monkeypatch):
    hub.files['birds/tuned', 'main', 'README.md'] = b'mine'
    for _ in range(2):
        run(monkeypatch, 'pack', 'push', local.path, ADDRESS)
    assert hub.files['birds/tuned', 'main', 'README.md'] == b'mine'
    assert f'--packs {ADDRESS}\n' in hub.files['birds/tuned', 'main', 'pack.md'].decode()
    run(monkeypatch, 'pack', 'push', local.path, 'hf://birds/other')
    first = hub.files['birds/other', 'main', 'README.md']
    run(monkeypatch, 'pack', 'push', local.path, 'hf://birds/other')
    assert hub.files['birds/other', 'main', 'README.md'] == first
    assert ('birds/other', 'main', 'pack.md') not in hub.files


def test_a_pack_beside_a_whole_model(hub, local, monkeypatch):
    """Offline as online: the address without a file means the model; as a pack it means the pack."""
    hub.files['birds/tuned', 'main', 'model.safetensors'] = local.path.read_bytes()[:0] or b'model'
    run(monkeypatch, 'pack', 'push', local.path, ADDRESS)
    Pack.load(ADDRESS)
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    assert Pack.load(ADDRESS).classes == ('wren', 'crow', 'owl')
    with pytest.raises(OSError, match=r'cannot be .*fetch model\.safetensors or .*\.bin of .* with config\.json'):
        local_path(ADDRESS)
    with pytest.raises(SystemExit, match=r'takes no files .*: unset HF_HUB_OFFLINE'):
        run(monkeypatch, 'pack', 'push', local.path, ADDRESS)


@pytest.mark.parametrize('address', ['timm://x', 'hf://me/one/three', 'hf://me/one/sub/', 'hf://me/one@a/b/x'])
def test_names_that_no_loader_knows(address, hub, local, monkeypatch):
    with pytest.raises(SystemExit, match=r"place must be hf://ORG/NAME\[@BRANCH\]\[/FILE\.safetensors\]"):
        run(monkeypatch, 'pack', 'push', local.path, address)
    assert not hub.files


def test_mean_and_std_of_a_moved_backbone(hub, monkeypatch, tmp_path):
    """A run whose config leaves them to the checkpoint's folder is not exported with those of another folder."""
    given = SimpleNamespace(config=Config(dict(model=dict(type='mmspt.ImageClassifier'))), config_path='c.py',
                            model=object.__new__(ImageClassifier), description=dict(task='x'), folder=str(tmp_path))
    module = load_tool('pack')
    monkeypatch.setattr(module, 'RunFolder', lambda *args, **kwargs: given)
    with pytest.raises(ValueError, match=r"write them into data_preprocessor of 'c\.py', or leave --backbone out"):
        module.export(SimpleNamespace(source=str(tmp_path), backbone='moved.pth', task=None, out=None))


def test_no_place_to_put_it(hub, local, monkeypatch):
    hub.read_only = True
    with pytest.raises(SystemExit, match=r"'hf://birds/tuned' takes no files \(.*log in with a token that may write"):
        run(monkeypatch, 'pack', 'push', local.path, ADDRESS)
    with pytest.raises(SystemExit, match=r'must be hf://ORG/NAME'):
        run(monkeypatch, 'pack', 'push', local.path, 'birds/tuned')
    with pytest.raises(SystemExit, match="'hf://birds/none' cannot be fetched"):
        run(monkeypatch, 'pack', 'inspect', 'hf://birds/none')


@pytest.mark.parametrize(('named', 'source'), [
    ([VIT, VIT], VIT), (['timm://vit_base_patch16_224.mae'], 'timm://vit_base_patch16_224.mae'),
    ([VIT, 'hf://facebook/other'], None), ([VIT, ''], None), (['vit.pth'], None), ([''], None), ([], None),
    (['mae_pretrain_vit_base.pth'], 'https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth'),
    (['https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth'],
     'https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth'),
    (['vit_base_patch16_224.augreg_in21k.safetensors'], None),
    (['https://elsewhere.org/mae_pretrain_vit_base.pth'], None),
    (['/etc/mae_pretrain_vit_base.pth'], None)])
def test_a_source_is_a_hub_or_a_published_address(named, source):
    assert find_source([type('Named', (), dict(checkpoint=name)) for name in named]) == source
