"""Each repair: the fault of the stock stack, and that it is gone."""
import pickle
import pkgutil
import subprocess
import sys
from importlib.metadata import distributions
from importlib.util import find_spec

import pytest
import torch
from mmengine.config import Config
from mmengine.dist import init_dist
from mmengine.logging import HistoryBuffer
from mmengine.optim import AmpOptimWrapper as StockAmpOptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import checkpoint as stock
from mmengine.utils.dl_utils import misc

from helpers import command, environment
from mmspt import repairs
from mmspt.engine.optimizers import AmpOptimWrapper
from mmspt.repairs import init_cpu_distributed

NEW_TORCH = tuple(int(v) for v in torch.__version__.split('.')[:2]) >= (2, 6)
INSTALLED = {distribution.name for distribution in distributions()}
STOCK = not hasattr(stock, 'get_torch_safe_globals')  # the fork unpickles anything


@pytest.mark.skipif(not (NEW_TORCH and STOCK), reason='the fault came with torch 2.6; the fork has another')
def test_fault_stock_loader_refuses_mmengines_own_checkpoints(tmp_path):
    torch.save(dict(loss=HistoryBuffer([1.5], [1])), tmp_path / 'epoch_1.pth')
    with pytest.raises(pickle.UnpicklingError, match='Weights only load failed'):
        stock.load_from_local(str(tmp_path / 'epoch_1.pth'), 'cpu')


def stderr_of(code):
    return subprocess.run([sys.executable, '-c', code], env=environment(), capture_output=True, text=True,
                          check=True).stderr


@pytest.mark.skipif('mmcv-lite' not in INSTALLED or not STOCK, reason='the fault is that of mmcv-lite')
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


@pytest.fixture
def without_find_loader(monkeypatch):
    """The standard library of Python 3.14, and MMEngine as it is before the repair."""
    monkeypatch.delattr(pkgutil, 'find_loader', raising=False)
    if hasattr(misc, 'pkgutil'):
        monkeypatch.setattr(misc, 'pkgutil', pkgutil)


@pytest.mark.skipif(not STOCK, reason='the fault is that of stock MMEngine')
@pytest.mark.usefixtures('without_find_loader')
def test_fault_stock_runner_asks_for_what_python_3_14_lacks():
    with pytest.raises(AttributeError, match='find_loader'):
        misc.mmcv_full_available()


@pytest.mark.usefixtures('without_find_loader')
def test_compiled_operators_are_looked_for_on_python_3_14():
    repairs.apply()
    assert misc.mmcv_full_available() == (find_spec('mmcv._ext') is not None)
    assert not hasattr(pkgutil, 'find_loader')


def test_where_python_has_find_loader_it_is_asked(monkeypatch):
    monkeypatch.setattr(pkgutil, 'find_loader', lambda name: name, raising=False)
    if hasattr(misc, 'pkgutil'):
        monkeypatch.setattr(misc, 'pkgutil', pkgutil)
    repairs.apply()
    assert getattr(misc, 'pkgutil', pkgutil) is pkgutil


def test_another_plug_ins_mixed_precision_stays(monkeypatch):
    class Theirs(AmpOptimWrapper):
        pass

    monkeypatch.setitem(OPTIM_WRAPPERS._module_dict, 'AmpOptimWrapper', Theirs)
    repairs.apply()
    assert OPTIM_WRAPPERS.get('AmpOptimWrapper') is Theirs


def test_repairs_bring_in_no_models():
    """``import mmspt`` imports MMPretrain, of which the registries are children, but neither's models."""
    code = ("import sys, mmspt; print([name for name in sys.modules "
            "if name.startswith(('mmspt.', 'mmpretrain'))])")
    loaded = command(sys.executable, '-W', 'ignore', '-c', code)
    assert "'mmspt.repairs'" in loaded
    assert "'mmpretrain.models'" not in loaded and "'mmspt.models'" not in loaded
