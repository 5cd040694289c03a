"""Each repair: the fault of the stock stack, and that it is gone."""
import os
import pickle
import subprocess
import sys
from importlib.metadata import distributions

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dist import init_dist
from mmengine.logging import HistoryBuffer
from mmengine.optim import AmpOptimWrapper as StockAmpOptimWrapper
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import checkpoint as stock
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors.torch import save_file

from helpers import ROOT, command
from mmspt import repairs
from mmspt.engine.optimizers import AmpOptimWrapper
from mmspt.repairs import init_cpu_distributed

NEW_TORCH = tuple(int(v) for v in torch.__version__.split('.')[:2]) >= (2, 6)
INSTALLED = {distribution.name for distribution in distributions()}
STOCK = 'mmengine' in INSTALLED  # the fork unpickles anything


@pytest.fixture(params=['this torch', 'torch 2.1'])
def _torch_version(request, monkeypatch):
    """Both ways of reading: torch's allow-list, and ours for a torch that has none."""
    if request.param == 'torch 2.1':
        monkeypatch.setattr(torch, '__version__', '2.1.2')


def load(path):
    return CheckpointLoader.load_checkpoint(str(path), map_location='cpu')


def mmengine_checkpoint():
    """What Runner.save_checkpoint writes, buffers of the message hub included."""
    buffer = HistoryBuffer()
    buffer.update(1.5)
    buffer.update(np.float64(2.5))
    return dict(meta=dict(epoch=1, seed=np.int64(3)), state_dict={'weight': torch.arange(3.)},
                message_hub=dict(log_scalars={'train/loss': buffer}, runtime_info=dict(lr=np.float32(0.5))))


@pytest.mark.skipif(not (NEW_TORCH and STOCK), reason='the fault came with torch 2.6; the fork has another')
def test_fault_stock_loader_refuses_mmengines_own_checkpoints(tmp_path):
    torch.save(mmengine_checkpoint(), tmp_path / 'epoch_1.pth')
    with pytest.raises(pickle.UnpicklingError, match='Weights only load failed'):
        stock.load_from_local(str(tmp_path / 'epoch_1.pth'), 'cpu')


@pytest.mark.usefixtures('_torch_version')
@pytest.mark.parametrize('new_format', [True, False])
def test_mmengines_own_checkpoints_are_read(tmp_path, new_format):
    torch.save(mmengine_checkpoint(), tmp_path / 'epoch_1.pth', _use_new_zipfile_serialization=new_format)
    content = load(tmp_path / 'epoch_1.pth')
    assert torch.equal(content['state_dict']['weight'], torch.arange(3.))
    buffer = content['message_hub']['log_scalars']['train/loss']
    assert buffer.mean() == 2. and buffer.current() == 2.5 and buffer.max() == 2.5
    assert content['meta']['seed'] == 3 and content['message_hub']['runtime_info']['lr'] == 0.5


def test_safetensors_are_read(tmp_path):
    save_file({'weight': torch.arange(3.)}, tmp_path / 'a.safetensors')
    assert torch.equal(load(tmp_path / 'a.safetensors')['weight'], torch.arange(3.))


class _Code:
    """A pickle that makes a folder, by a call of its own choice."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.usefixtures('_torch_version')
@pytest.mark.parametrize('attack', ['os.mkdir', 'eval', 'getattr', 'stock class'])
def test_code_in_a_checkpoint_does_not_run(tmp_path, attack):
    planted = tmp_path / 'planted'
    evil = {
        'os.mkdir': _Code(os.mkdir, str(planted)),
        'eval': _Code(eval, f'__import__("os").mkdir({str(planted)!r})'),
        'getattr': _Code(getattr, HistoryBuffer, '__init__'),
        'stock class': Config(dict(a=1)),
    }[attack]
    torch.save(dict(state_dict={'weight': torch.zeros(1)}, extra=evil), tmp_path / 'evil.pth')
    with pytest.raises(RuntimeError, match=r"(?s)evil\.pth' is refused.*safetensors"):
        load(tmp_path / 'evil.pth')
    assert not planted.exists()


def test_fault_stock_unpickles_when_told_to(tmp_path):
    """The attack is real: what the forks of MMEngine do (weights_only=False) runs it."""
    torch.save(dict(extra=_Code(os.mkdir, str(tmp_path / 'planted'))), tmp_path / 'evil.pth')
    torch.load(tmp_path / 'evil.pth', weights_only=False)
    assert (tmp_path / 'planted').exists()


@pytest.mark.usefixtures('_torch_version')
def test_arrays_of_objects_or_fields_are_refused(tmp_path):
    """Raw bytes read as object pointers would crash or worse; both are ordinary NumPy pickles."""
    for name, array in dict(objects=np.array([[], {}], dtype=object), fields=np.zeros(2, dtype=[('a', 'i8')])).items():
        torch.save(dict(extra=array), tmp_path / f'{name}.pth')
        with pytest.raises(RuntimeError, match=rf"{name}\.pth' is refused.*is not part of an MMEngine checkpoint"):
            load(tmp_path / f'{name}.pth')


class _ForgedFields:
    """An int64 dtype whose pickled state claims an object field."""

    def __reduce__(self):
        state = (3, '|', None, ('a', ), {'a': (np.dtype('O'), 0)}, 8, 1, 27)
        return np.dtype, ('i8', False, True), state


@pytest.mark.usefixtures('_torch_version')
def test_forged_dtypes_are_refused(tmp_path):
    torch.save(dict(extra=_ForgedFields()), tmp_path / 'forged.pth')
    with pytest.raises(RuntimeError, match=r"forged\.pth' is refused"):
        load(tmp_path / 'forged.pth')


class _Pickled:
    """Any reduce value."""

    def __init__(self, *reduce):
        self.reduce = reduce

    def __reduce__(self):
        return self.reduce


@pytest.mark.usefixtures('_torch_version')
@pytest.mark.parametrize('reduce', [
    (np.ndarray, ((4, ), 'i8')),
    (np.ndarray, ((4, ), 'O')),
    (np.ndarray, ((4, ), 'i8', bytearray(32))),
    (torch._utils._rebuild_tensor_v2, (1, ), dict(hacked=1)),
], ids=['uninitialized', 'objects', 'foreign memory', 'state of a function'])
def test_arrays_and_functions_are_out_of_a_files_reach(tmp_path, reduce):
    torch.save(dict(extra=_Pickled(*reduce)), tmp_path / 'evil.pth')
    with pytest.raises(RuntimeError, match=r"evil\.pth'.*(is refused|cannot be read)"):
        load(tmp_path / 'evil.pth')
    assert not hasattr(torch._utils._rebuild_tensor_v2, 'hacked')


@pytest.mark.skipif(not NEW_TORCH, reason='the function is not allowed there')
def test_an_array_filled_twice_cannot_free_what_a_tensor_shows(tmp_path):
    content = _Pickled(torch._utils._rebuild_device_tensor_from_numpy,
                       (np.arange(4.), torch.float64, 'cpu', False))
    torch.save(dict(extra=content), tmp_path / 'evil.pth')
    with pytest.raises(RuntimeError, match=r"evil\.pth'.*(is refused|cannot be read)"):
        load(tmp_path / 'evil.pth')


@pytest.mark.usefixtures('_torch_version')
@pytest.mark.parametrize('array', [
    np.zeros((0, 3)), np.array(3.5), np.array([True, False]), np.array(['a', 'bc']), np.asfortranarray(np.eye(3)[:2]),
    np.arange(4, dtype='>i4'), np.arange(6, dtype=np.float16).reshape(2, 3)
], ids=str)
def test_arrays_come_back_as_they_are(tmp_path, array):
    content = dict(meta=dict(values=[array], text=b'', dtype=array.dtype))
    for i in range(2):
        torch.save(content, tmp_path / f'{i}.pth')
        content = load(tmp_path / f'{i}.pth')
    (value, ), dtype = content['meta']['values'], content['meta']['dtype']
    assert type(value) is np.ndarray and value.shape == array.shape and value.dtype == array.dtype
    assert np.array_equal(value, array) and dtype == array.dtype and content['meta']['text'] == b''


@pytest.mark.usefixtures('_torch_version')
def test_torchscript_is_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / 'script.pth'))
    with pytest.raises(RuntimeError, match=r"script\.pth'.*(is refused|cannot be read)"):
        load(tmp_path / 'script.pth')


@pytest.mark.usefixtures('_torch_version')
def test_what_was_read_can_be_saved_and_read_again(tmp_path):
    """A resumed run saves the buffers that it read; a scheduler's static method comes back as itself."""
    content = mmengine_checkpoint() | dict(param_schedulers=[dict(anneal=OneCycleParamScheduler._annealing_linear)])
    for i in range(3):
        torch.save(content, tmp_path / f'{i}.pth')
        content = load(tmp_path / f'{i}.pth')
        content['message_hub']['log_scalars']['train/loss'].update(3.)
    assert list(content['message_hub']['log_scalars']['train/loss'].data[0]) == [1.5, 2.5, 3., 3., 3.]
    assert content['param_schedulers'][0]['anneal'] is OneCycleParamScheduler._annealing_linear


@pytest.mark.usefixtures('_torch_version')
@pytest.mark.parametrize('name', ['cut.pth', 'noise.pth', 'empty.pth', 'noise.safetensors'])
def test_damaged_files_name_themselves_and_a_remedy(tmp_path, name):
    path = tmp_path / name
    torch.save({'weight': torch.zeros(1000)}, path)
    content = dict(cut=path.read_bytes()[:2000], noise=os.urandom(2000), empty=b'')[name.split('.')[0]]
    path.write_bytes(content)
    message = rf'(?s){name}.*(cannot be read|is refused).*(fetch it again|Fetch or copy)'
    with pytest.raises(RuntimeError, match=message):
        load(path)


@pytest.mark.parametrize('path', ['', '/nowhere/weights.pth'])
def test_missing_files(path):
    with pytest.raises(FileNotFoundError, match=f"'{path}' is not a file: give the path"):
        load(path)


def test_a_url_is_fetched_once_and_read_safely(tmp_path, monkeypatch):
    source = tmp_path / 'source.pth'
    torch.save({'weight': torch.arange(3.)}, source)
    fetched = []

    def download(url, path, progress):
        fetched.append(url)
        os.link(source, path)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    for _ in range(2):
        assert torch.equal(load('https://example.org/weights.pth?download=1')['weight'], torch.arange(3.))
    assert fetched == ['https://example.org/weights.pth?download=1']


def test_a_url_without_network_says_where_to_put_the_file(tmp_path, monkeypatch):
    def download(url, path, progress):
        raise OSError('no route to host')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    with pytest.raises(RuntimeError, match=r'weights\.pth.*no route to host.*checkpoints/weights\.pth'):
        load('https://example.org/weights.pth')


def stderr_of(code):
    environment = os.environ | dict(PYTHONPATH=str(ROOT))
    return subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True,
                          check=True).stderr


@pytest.mark.skipif('mmcv-lite' not in INSTALLED, reason='the fault is that of mmcv-lite')
@pytest.mark.parametrize(('first', 'warns'), [('', True), ('import mmspt; ', False)], ids=['stock', 'repaired'])
def test_mmcv_lites_warning_of_an_operator(first, warns):
    assert ('MultiScaleDeformableAttention' in stderr_of(f'{first}import mmcv.cnn.bricks.transformer')) == warns


@pytest.mark.skipif(torch.cuda.is_available(), reason='the fault is that of machines without a GPU')
def test_fault_stock_distributed_start_needs_a_gpu(monkeypatch):
    for key, value in dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='0').items():
        monkeypatch.setenv(key, value)
    with pytest.raises((RuntimeError, AssertionError), match=r'NVIDIA|CUDA'):
        init_dist('pytorch', backend='gloo')


@pytest.mark.parametrize(('launcher', 'cuda'), [('none', False), ('slurm', False), ('pytorch', True)])
def test_distributed_repair_is_a_no_op_where_it_is_not_needed(launcher, cuda, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: cuda)
    cfg = Config(dict(launcher=launcher))
    init_cpu_distributed(cfg)
    assert 'model_wrapper_cfg' not in cfg and not torch.distributed.is_initialized()


@pytest.mark.skipif(torch.cuda.is_available(), reason='the fault is that of machines without a GPU')
def test_fault_stock_mixed_precision_needs_a_gpu():
    with pytest.raises(AssertionError, match='only available training on gpu'):
        StockAmpOptimWrapper(optimizer=torch.optim.SGD([torch.zeros(1)], lr=1.))


@pytest.mark.parametrize('name', ['AmpOptimWrapper', 'mmspt.AmpOptimWrapper', 'mmengine.AmpOptimWrapper'])
def test_mixed_precision_is_ours_by_its_name(name):
    assert OPTIM_WRAPPERS.get(name) is AmpOptimWrapper
    wrapper = OPTIM_WRAPPERS.build(dict(type=name, optimizer=torch.optim.SGD([torch.zeros(1)], lr=1.)))
    assert type(wrapper) is AmpOptimWrapper


def test_another_plug_ins_mixed_precision_stays(monkeypatch):
    class Theirs(AmpOptimWrapper):
        pass

    monkeypatch.setitem(OPTIM_WRAPPERS._module_dict, 'AmpOptimWrapper', Theirs)
    repairs.apply()
    assert OPTIM_WRAPPERS.get('AmpOptimWrapper') is Theirs


def test_repairs_bring_in_no_models():
    """``import mmspt`` stays as light as MMEngine."""
    code = ("import sys, mmspt; print([name for name in sys.modules "
            "if name.startswith(('mmspt.', 'mmpretrain'))])")
    loaded = command(sys.executable, '-W', 'ignore', '-c', code)
    assert "'mmspt.repairs'" in loaded
    assert 'mmpretrain' not in loaded and 'mmspt.models' not in loaded
