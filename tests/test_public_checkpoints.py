"""Checkpoints by address and public ones: fetched whole and once, or an error that says what to put where."""
import hashlib
import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from safetensors.torch import save_file

from helpers import ROOT
from mmspt.engine.checks import check_config
from mmspt.public_checkpoints import PUBLIC_CHECKPOINTS, PublicCheckpoint

NAME = 'mae_pretrain_vit_base.pth'


class Handler(SimpleHTTPRequestHandler):
    """Takes note of requests, and sends but a part of a file if it is told so."""

    def log_message(self, *args):
        pass

    def copyfile(self, source, outputfile):
        self.server.requests.append(self.path)
        outputfile.write(source.read()[:self.server.sent])


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub folder, an empty present folder, and a server with a file in the place of the public one."""
    root = tmp_path / 'server'
    for folder, value in (('', torch.arange(3.)), ('a', torch.zeros(2)), ('b', torch.ones(2))):
        (root / folder).mkdir()
        for name in (NAME, 'model.pth', 'model-20251129.bin'):
            torch.save(dict(weight=value), root / folder / name)
        save_file(dict(weight=value), root / folder / 'model.safetensors')
    (root / 'page.html').write_text('<html></html>')
    monkeypatch.setenv('no_proxy', '*')
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    (tmp_path / 'job').mkdir()
    monkeypatch.chdir(tmp_path / 'job')
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Handler, directory=str(root)))
    server.requests, server.sent = [], None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f'http://127.0.0.1:{server.server_port}'

    def publish(md5):
        monkeypatch.setitem(PUBLIC_CHECKPOINTS, NAME, PublicCheckpoint(f'{url}/{NAME}', md5))

    md5 = hashlib.md5((root / NAME).read_bytes()).hexdigest()[:6]
    publish(md5)
    yield SimpleNamespace(folder=tmp_path / 'hub' / 'checkpoints', publish=publish, server=server, url=url, root=root,
                          md5=md5)
    server.shutdown()
    server.server_close()
    thread.join()


def files(folder):
    return sorted(path.name for path in folder.glob('*') if path.suffix != '.lock')


def load(path):
    return CheckpointLoader.load_checkpoint(str(path), 'cpu')['weight'].tolist()


@pytest.mark.parametrize('name', ['model.safetensors', 'model.pth', 'model-20251129.bin', 'model.pth?download=1'])
def test_files_of_one_name_stay_apart(hub, name):
    """MMEngine and torch keep them as one file, and equal shapes pass; each is fetched once."""
    for _ in range(2):
        assert [load(f'{hub.url}/{folder}/{name}') for folder in 'ab'] == [[0., 0.], [1., 1.]]
    assert hub.server.requests == [f'/a/{name}', f'/b/{name}'] and len(files(hub.folder)) == 2


@pytest.mark.parametrize('right', [True, False])
def test_a_file_that_torch_has_kept_is_taken_if_it_has_the_digest_of_its_name(hub, right):
    content = (hub.root / 'a' / 'model.pth').read_bytes()
    name = f'model-{hashlib.sha256(content).hexdigest()[:8]}.pth'
    hub.folder.mkdir(parents=True)
    (hub.folder / name).write_bytes(content if right else (hub.root / 'b' / 'model.pth').read_bytes())
    os.rename(hub.root / 'a' / 'model.pth', hub.root / name)
    assert load(f'{hub.url}/{name}') == [0., 0.]
    assert hub.server.requests == ([] if right else [f'/{name}'])


@pytest.mark.parametrize(('path', 'sent', 'message'), [
    ('a/model.pth', 700, r'\(700 of \d+ bytes came\)'), ('page.html', None, r'\(it is a web page.*/resolve/'),
    ('missing.pth', None, r'\(HTTP Error 404')], ids=['cut', 'page', 'missing'])
def test_no_part_of_a_file_is_kept(hub, path, sent, message):
    """A page in place of a file neither."""
    hub.server.sent = sent
    with pytest.raises(OSError, match=f"'{hub.url}/{path}' cannot be fetched {message}.*name another address"):
        load(f'{hub.url}/{path}')
    assert files(hub.folder) == []


def test_a_public_checkpoint_is_fetched_once(hub):
    for path in (f'checkpoints/{NAME}', NAME, f'{hub.url}/{NAME}'):
        assert load(path) == [0., 1., 2.]
    assert hub.server.requests == [f'/{NAME}']


def test_another_file_of_its_name_is_not_taken(hub):
    """Of torch's hub folder; what is named itself is taken as it is."""
    hub.folder.mkdir(parents=True)
    torch.save(dict(weight=torch.ones(2)), hub.folder / NAME)
    assert load(NAME) == [0., 1., 2.]
    torch.save(dict(weight=torch.ones(2)), NAME)
    assert load(NAME) == [1., 1.]


def test_a_public_checkpoint_in_the_hub_folder_is_taken(hub):
    """And nothing is written there: it may be read-only."""
    hub.folder.mkdir(parents=True)
    os.rename(hub.root / NAME, hub.folder / NAME)
    assert load(NAME) == [0., 1., 2.] and hub.server.requests == [] and os.listdir(hub.folder) == [NAME]


@pytest.mark.parametrize('by_url', [False, True])
def test_a_wrong_file_is_refused_and_removed(hub, by_url):
    hub.publish('000000')
    with pytest.raises(OSError, match=r'its MD5 must begin with 000000, but is [0-9a-f]{32}, so it was removed'):
        load(f'{hub.url}/{NAME}' if by_url else f'checkpoints/{NAME}')
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
    (fetched, ) = files(hub.folder)
    (hub.folder / fetched).unlink()
    (hub.root / NAME).unlink()
    message = (rf"'checkpoints/{NAME}' is not a file, and fetching it failed \(.*404.*\): fetch {hub.url}/{NAME} \(its "
               rf"MD5 begins with {hub.md5}\) elsewhere and put it at '{tmp_path}/job/checkpoints/{NAME}'")
    with pytest.raises(FileNotFoundError, match=message):
        check_config(cfg, phase)


def test_a_test_does_not_need_the_pretrained_weights(hub, tmp_path):
    """They are in the checkpoint that is tested."""
    cfg = Config.fromfile(ROOT / 'configs' / 'spt' / 'vit-xs_mae_digits.py')
    cfg.work_dir = str(tmp_path / 'run')
    cfg.model.backbone.init_cfg.checkpoint = f'checkpoints/{NAME}'
    check_config(cfg, 'test')
    assert hub.server.requests == []


def test_what_has_no_published_hash_is_not_fetched(hub):
    hub.publish(None)
    with pytest.raises(FileNotFoundError, match=rf'without a published hash.*fetch {hub.url}/{NAME} elsewhere and put'):
        load(NAME)
    assert hub.server.requests == []
