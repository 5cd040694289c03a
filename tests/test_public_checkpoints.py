"""Public checkpoints that are not there: fetched with their hash checked, or an error that says what to put where."""
import hashlib
import http.server
import re
import socket
import threading
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader

from helpers import ROOT
from mmspt.engine.checks import check_config
from mmspt.public_checkpoints import PUBLIC_CHECKPOINTS, PublicCheckpoint

NAME = 'mae_pretrain_vit_base.pth'
LOADED = dict(weight=torch.arange(3.))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub folder, an empty present folder, and a server on this machine in the place of the public one."""
    torch.save(LOADED, tmp_path / 'source.pth')
    content = (tmp_path / 'source.pth').read_bytes()
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_response(200)
            self.send_header('Content-Length', str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01, ), daemon=True).start()
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    (tmp_path / 'job').mkdir()
    monkeypatch.chdir(tmp_path / 'job')
    url = f'http://127.0.0.1:{server.server_port}/{NAME}'

    def publish(md5, url=url):
        monkeypatch.setitem(PUBLIC_CHECKPOINTS, NAME, PublicCheckpoint(url, md5))

    publish(hashlib.md5(content).hexdigest()[:6])
    yield SimpleNamespace(folder=tmp_path / 'hub' / 'checkpoints', url=url, requests=requests, publish=publish)
    server.shutdown()
    server.server_close()


def files(folder):
    return sorted(path.name for path in folder.glob('*') if path.suffix != '.lock')


def load(path):
    return CheckpointLoader.load_checkpoint(str(path), 'cpu')


def test_hashes_are_those_that_the_authors_publish():
    """The table of the README of MAE, and of Visual Prompt Tuning for MoCo-v3."""
    folder = 'https://dl.fbaipublicfiles.com'
    assert {name: public for name, public in PUBLIC_CHECKPOINTS.items() if public.md5} == {
        'mae_pretrain_vit_base.pth': (f'{folder}/mae/pretrain/mae_pretrain_vit_base.pth', '8cad7c'),
        'mae_pretrain_vit_large.pth': (f'{folder}/mae/pretrain/mae_pretrain_vit_large.pth', 'b8b06e'),
        'mae_pretrain_vit_huge.pth': (f'{folder}/mae/pretrain/mae_pretrain_vit_huge.pth', '9bdbb0'),
        'linear-vit-b-300ep.pth.tar': (f'{folder}/moco-v3/vit-b-300ep/linear-vit-b-300ep.pth.tar', '8f39ce')}


def test_every_checkpoint_of_the_recipes_is_known():
    named = {name for path in (ROOT / 'configs' / '_base_' / 'models').glob('*.py')
             for name in re.findall(r"'checkpoints/([^']+)'", path.read_text())}
    assert named >= set(PUBLIC_CHECKPOINTS)  # and a user's own


def test_fetched_once_into_the_hub_folder(hub):
    for _ in range(2):
        assert torch.equal(load(f'checkpoints/{NAME}')['weight'], LOADED['weight'])
    assert hub.requests == [f'/{NAME}'] and files(hub.folder) == [NAME]


def test_a_file_that_is_there_is_taken_as_it_is(hub, tmp_path):
    torch.save(dict(weight=torch.ones(2)), tmp_path / 'job' / NAME)
    assert torch.equal(load(NAME)['weight'], torch.ones(2))
    assert hub.requests == [] and not hub.folder.exists()


def test_a_wrong_file_is_refused_and_removed(hub):
    hub.publish('000000')
    message = 'its MD5 must begin with 000000, but is [0-9a-f]{32}, so it was removed'
    with pytest.raises(FileNotFoundError, match=message):
        load(f'checkpoints/{NAME}')
    assert files(hub.folder) == []


def without_network(hub):
    """A port that nothing listens to."""
    with socket.socket() as unused:
        unused.bind(('127.0.0.1', 0))
        hub.publish('8cad7c', f'http://127.0.0.1:{unused.getsockname()[1]}/{NAME}')


def message(hub, tmp_path):
    url = re.escape(PUBLIC_CHECKPOINTS[NAME].url)
    return (rf"'checkpoints/{NAME}' is not a file, and fetching it failed \(.*refused.*\): fetch {url} \(its MD5 "
            rf"begins with 8cad7c\) elsewhere and put it at '{tmp_path}/job/checkpoints/{NAME}'")


def test_without_network_the_error_says_what_to_put_where(hub, tmp_path):
    without_network(hub)
    with pytest.raises(FileNotFoundError, match=message(hub, tmp_path)):
        load(f'checkpoints/{NAME}')
    assert files(hub.folder) == []


@pytest.mark.parametrize(('phase', 'options'), [
    ('train', {'model.backbone.init_cfg.checkpoint': f'checkpoints/{NAME}'}),
    ('train', {'model.backbone.init_cfg': [dict(type='Pretrained', checkpoint=f'checkpoints/{NAME}')]}),
    ('test', {'load_from': f'checkpoints/{NAME}'}),
])
def test_tools_see_it_before_anything_is_built(hub, tmp_path, phase, options):
    cfg = Config.fromfile(ROOT / 'configs' / 'spt' / 'vit-xs_mae_digits.py')
    cfg.work_dir = str(tmp_path / 'run')
    cfg.merge_from_dict(options)
    check_config(cfg, phase)
    assert files(hub.folder) == [NAME]
    (hub.folder / NAME).unlink()
    without_network(hub)
    with pytest.raises(FileNotFoundError, match=message(hub, tmp_path)):
        check_config(cfg, phase)


def test_a_test_does_not_need_the_pretrained_weights(hub, tmp_path):
    """They are in the checkpoint that is tested."""
    cfg = Config.fromfile(ROOT / 'configs' / 'spt' / 'vit-xs_mae_digits.py')
    cfg.work_dir = str(tmp_path / 'run')
    cfg.model.backbone.init_cfg.checkpoint = f'checkpoints/{NAME}'
    check_config(cfg, 'test')
    assert hub.requests == []


def test_what_has_no_published_hash_is_not_fetched(hub, tmp_path):
    hub.publish(None)
    with pytest.raises(FileNotFoundError, match=rf"without a published hash.*fetch {hub.url} elsewhere and put it at"):
        load(NAME)
    assert hub.requests == []
