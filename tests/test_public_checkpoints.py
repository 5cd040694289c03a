"""Public checkpoints that are not there: fetched with their hash checked, or an error that says what to put where."""
import hashlib
import shutil
from types import SimpleNamespace
from urllib.error import URLError

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader

from helpers import ROOT
from mmspt.engine.checks import check_config
from mmspt.public_checkpoints import PUBLIC_CHECKPOINTS, PublicCheckpoint

NAME = 'mae_pretrain_vit_base.pth'
URL = f'https://example.org/{NAME}'


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub folder, an empty present folder, and a file in the place of the public one."""
    source, requests = tmp_path / 'source.pth', []
    torch.save(dict(weight=torch.arange(3.)), source)

    def download(url, path):
        requests.append(url)
        if not source.exists():
            raise URLError('no route to host')
        shutil.copy(source, path)

    def publish(md5):
        monkeypatch.setitem(PUBLIC_CHECKPOINTS, NAME, PublicCheckpoint(URL, md5))

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    (tmp_path / 'job').mkdir()
    monkeypatch.chdir(tmp_path / 'job')
    publish(hashlib.md5(source.read_bytes()).hexdigest()[:6])
    return SimpleNamespace(folder=tmp_path / 'hub' / 'checkpoints', requests=requests, publish=publish, source=source)


def files(folder):
    return sorted(path.name for path in folder.glob('*') if path.suffix != '.lock')


def load(path):
    return CheckpointLoader.load_checkpoint(str(path), 'cpu')['weight'].tolist()


def test_fetched_once_into_the_hub_folder(hub):
    for path in (f'checkpoints/{NAME}', NAME):
        assert load(path) == [0., 1., 2.]
    assert hub.requests == [URL] and files(hub.folder) == [NAME]


def test_a_file_that_is_there_is_taken_as_it_is(hub, tmp_path):
    torch.save(dict(weight=torch.ones(2)), tmp_path / 'job' / NAME)
    assert load(NAME) == [1., 1.]
    assert hub.requests == [] and not hub.folder.exists()


def test_a_wrong_file_is_refused_and_removed(hub):
    hub.publish('000000')
    message = 'its MD5 must begin with 000000, but is [0-9a-f]{32}, so it was removed'
    with pytest.raises(FileNotFoundError, match=message):
        load(f'checkpoints/{NAME}')
    assert files(hub.folder) == []


@pytest.mark.parametrize(('phase', 'options'), [
    ('train', {'model.backbone.init_cfg.checkpoint': f'checkpoints/{NAME}'}),
    ('train', {'model.backbone.init_cfg': [dict(type='Pretrained', checkpoint=f'checkpoints/{NAME}')]}),
    ('test', {'load_from': f'checkpoints/{NAME}'}),
])
def test_tools_fetch_it_before_anything_is_built(hub, tmp_path, phase, options):
    """Without a network the error says what to put where."""
    cfg = Config.fromfile(ROOT / 'configs' / 'spt' / 'vit-xs_mae_digits.py')
    cfg.work_dir = str(tmp_path / 'run')
    cfg.merge_from_dict(options)
    check_config(cfg, phase)
    assert files(hub.folder) == [NAME]
    (hub.folder / NAME).unlink()
    hub.source.unlink()
    hub.publish('8cad7c')
    message = (rf"'checkpoints/{NAME}' is not a file, and fetching it failed \(.*no route.*\): fetch {URL} \(its MD5 "
               rf"begins with 8cad7c\) elsewhere and put it at '{tmp_path}/job/checkpoints/{NAME}'")
    with pytest.raises(FileNotFoundError, match=message):
        check_config(cfg, phase)


def test_a_test_does_not_need_the_pretrained_weights(hub, tmp_path):
    """They are in the checkpoint that is tested."""
    cfg = Config.fromfile(ROOT / 'configs' / 'spt' / 'vit-xs_mae_digits.py')
    cfg.work_dir = str(tmp_path / 'run')
    cfg.model.backbone.init_cfg.checkpoint = f'checkpoints/{NAME}'
    check_config(cfg, 'test')
    assert hub.requests == []


def test_what_has_no_published_hash_is_not_fetched(hub):
    hub.publish(None)
    with pytest.raises(FileNotFoundError, match=rf"without a published hash.*fetch {URL} elsewhere and put it at"):
        load(NAME)
    assert hub.requests == []
