"""MMEngine's own loader reads what MMEngine and others save, and runs nothing that a file holds."""
import os
from argparse import Namespace

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors.torch import save_file

from foreign import IS_FORK, Call, assert_same, mmengine_checkpoint
from mmspt.checkpoint_loaders import load_file

stock_only = pytest.mark.skipif(IS_FORK, reason="MMEngine's fork adds NumPy's own classes and the whole getattr")


def load(path):
    return CheckpointLoader.load_checkpoint(str(path), map_location='cpu')


@pytest.fixture(autouse=True)
def _never_unpickle(monkeypatch):
    """MMEngine's fork does if it is not told otherwise, as the tools do."""
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')


@pytest.mark.parametrize('new_format', [True, False])
def test_mmengines_own_checkpoints_are_read(tmp_path, new_format):
    """And can be saved and read again; FAIR's hold a Namespace, a run's metainfo may be a ConfigDict."""
    content = expected = mmengine_checkpoint() | dict(
        args=Namespace(lr=0.5), param_schedulers=[dict(anneal=OneCycleParamScheduler._annealing_linear)])
    content['meta']['dataset_meta'] = ConfigDict(names=dict(a='x'), deep=[dict(b=1)])
    for i in range(2):
        torch.save(content, tmp_path / f'{i}.pth', _use_new_zipfile_serialization=new_format)
        content = load(tmp_path / f'{i}.pth')
        assert_same(content, expected)
    assert content['state_dict']._metadata == expected['state_dict']._metadata
    buffer = content['message_hub']['log_scalars']['train/loss']
    assert buffer.mean() == 2. and buffer.current() == 2.5 and buffer.max() == 2.5


OTHERS = {'none': [], 'all': [np.ndarray, np.dtype, np._core.multiarray._reconstruct, np._core.multiarray.scalar,
                              type(np.dtype('f8')), type(np.dtype('i4')), type(np.dtype('f2')), type(np.dtype('?'))]}


@pytest.mark.parametrize('others', OTHERS)
def test_arrays_come_back_as_they_are(tmp_path, others):
    """Also with what other packages have added, which may or may not take the place of ours."""
    content = dict(arrays=[np.zeros((0, 3)), np.array(3.5), np.array([True, False]), np.asfortranarray(np.eye(3)[:2]),
                           np.arange(4, dtype='>i4'), np.arange(6, dtype=np.float16).reshape(2, 3)],
                   numbers=[np.float64(2.5), np.int32(3), np.bool_(True)])
    again = content
    for i in range(2):
        torch.save(again, tmp_path / f'{i}.pth')
        with torch.serialization.safe_globals(OTHERS[others]):
            again = load(tmp_path / f'{i}.pth')
    for found, expected in zip(again['arrays'], content['arrays'], strict=True):
        assert isinstance(found, np.ndarray) and found.dtype == expected.dtype.newbyteorder('=')
        np.testing.assert_array_equal(found, expected)
    assert_same(again['numbers'], content['numbers'])
    assert type(np.append(again['arrays'][1], 1.)) is np.ndarray


def test_text_that_another_package_allows(tmp_path):
    """``import mmspt`` takes nothing from others' files."""
    torch.save(dict(names=np.array(['wren', 'crow'])), tmp_path / 'text.pth')
    with torch.serialization.safe_globals([*OTHERS['all'], type(np.dtype('U1'))]):
        assert torch.load(tmp_path / 'text.pth', weights_only=True)['names'].tolist() == ['wren', 'crow']


class ForgedDtype:
    """Its pickle ends the process in NumPy."""

    def __reduce__(self):
        return np.dtype, ('f8', False, True), (3, '<', None, (None, None), -1, 0)


@pytest.mark.parametrize('attack', ['mkdir', 'eval', 'objects', *(pytest.param(attack, marks=stock_only) for attack in (
    'method', 'memory as objects', 'forged dtype'))])
def test_code_in_a_checkpoint_does_not_run(tmp_path, attack):
    planted, path = tmp_path / 'planted', tmp_path / 'evil.pth'
    evil = {
        'mkdir': Call(os.mkdir, str(planted)),
        'eval': Call(eval, f'__import__("os").mkdir({str(planted)!r})'),
        'method': Call(getattr, HistoryBuffer, '__init__'),
        'memory as objects': Call(np.ndarray, (4, ), 'O', bytearray(32)),
        'objects': np.array([[], {}], dtype=object),
        'forged dtype': ForgedDtype(),
    }[attack]
    torch.save(dict(state_dict={'weight': torch.zeros(1)}, extra=evil), path)
    with pytest.raises(Exception, match='Weights only load failed'):
        load(path)
    with pytest.raises(RuntimeError, match=rf"'{path}' cannot be read"):
        load_file(str(path))
    assert not planted.exists()


@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_safetensors_are_read(tmp_path, device):
    """And copied: what is written into the file later changes nothing."""
    path = tmp_path / 'a.safetensors'
    save_file({'weight': torch.arange(3.)}, path)
    content = CheckpointLoader.load_checkpoint(str(path), map_location=device)
    path.write_bytes(bytes(path.stat().st_size))
    assert content['weight'].device.type == device
    assert device == 'meta' or torch.equal(content['weight'], torch.arange(3.))


def test_files_of_others_and_what_to_do(tmp_path):
    """Torch would say how to unpickle a module, and of JAX's weights that they are damaged."""
    np.savez(tmp_path / 'ViT-B_16.npz', kernel=np.zeros(2))
    torch.save(torch.nn.Linear(2, 2), tmp_path / 'module.pth')
    with pytest.raises(RuntimeError, match=r'holds those of JAX: use .*orig_in21k for imagenet21k/ViT-B_16\.npz'):
        load(tmp_path / 'ViT-B_16.npz')
    with pytest.raises(RuntimeError, match=r'(?s)^((?!weights_only).)*Linear was not.*save the state_dict of what it'):
        load_file(str(tmp_path / 'module.pth'))


def test_missing_files():
    with pytest.raises(FileNotFoundError, match=r"'/nowhere/weights\.safetensors' is not a file: give"):
        load('/nowhere/weights.safetensors')
