"""AmpOptimWrapper: what runs in half precision, what stays fp32, and which states it takes."""
import copy
import warnings

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.optim.optimizer import amp_optimizer_wrapper as stock
from mmengine.registry import MODELS, OPTIM_WRAPPERS
from mmpretrain.structures import DataSample
from torch import nn

from devices import CUDA, GPU
from helpers import tiny_backbone
from mmspt.engine.optimizers import AmpOptimWrapper, amp_optim_wrapper

DEVICE = CUDA if torch.cuda.is_available() else 'cpu'
needs_cpu = pytest.mark.skipif(DEVICE != 'cpu', reason='what holds where there is no GPU')
on_a_gpu = pytest.mark.parametrize('device', [GPU])


def make_model():
    torch.manual_seed(0)
    head = dict(type='LinearClsHead', num_classes=3, in_channels=64)
    model = MODELS.build(dict(type='ImageClassifier', backbone=tiny_backbone(), head=head))
    model.init_weights()
    return model.train().to(DEVICE)


def make_wrapper(model, **kwargs):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    return OPTIM_WRAPPERS.build(dict(type='mmspt.AmpOptimWrapper', optimizer=optimizer) | kwargs)


def step(model, wrapper):
    generator = torch.Generator().manual_seed(1)
    batch = dict(inputs=torch.randn(6, 3, 32, 32, generator=generator).to(DEVICE),
                 data_samples=[DataSample().set_gt_label(i % 3).to(DEVICE) for i in range(6)])
    return model.train_step(batch, wrapper)


def dtypes_of_linears(model):
    """The set, filled by later forward passes, of dtypes that the frozen blocks' linear layers return."""
    seen = set()
    for module in model.backbone.layers.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda module, args, output: seen.add(output.dtype))
    return seen


def check_step(expected, **kwargs):
    """One step: the blocks compute in ``expected``, all that is kept is fp32, and what trains moves."""
    model = make_model()
    wrapper, seen, gradients = make_wrapper(model, **kwargs), dtypes_of_linears(model), []
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in trained.values():
        p.register_hook(lambda gradient: gradients.append(gradient.dtype))
    step(model, wrapper)

    assert seen == {expected}
    assert len(trained) > 2 and gradients == [torch.float32] * len(trained)
    state = wrapper.state_dict()['state']
    assert len(state) == len(trained) and {v.dtype for s in state.values() for v in s.values()} == {torch.float32}
    for name, p in model.named_parameters():
        assert p.dtype == torch.float32
        assert torch.equal(p, before[name]) == (name not in trained), name
    return model, wrapper


@needs_cpu
def test_step_on_a_cpu():
    _, wrapper = check_step(torch.bfloat16, loss_scale=512., clip_grad=dict(max_norm=1.))
    assert type(wrapper) is AmpOptimWrapper and isinstance(wrapper, stock.AmpOptimWrapper)
    assert wrapper.cast_dtype == torch.bfloat16 and not wrapper.loss_scaler.is_enabled()


def test_fp32_computes_in_fp32():
    """The oracle of the others sees what it should."""
    check_step(torch.float32, type='OptimWrapper')


@needs_cpu
def test_a_cpu_computes_bfloat16_alone(dtype='float16'):
    with pytest.raises(ValueError, match=r"on a CPU must be bfloat16, got .*: set optim_wrapper\.dtype='bfloat16'"):
        make_wrapper(nn.Linear(2, 2), dtype=dtype)


@needs_cpu
@pytest.mark.parametrize(('mkldnn', 'bfloat16'), [(True, True), (True, False), (False, False)])
def test_a_cpu_without_bfloat16(mkldnn, bfloat16, monkeypatch):
    said = []
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: mkldnn)
    monkeypatch.setattr(torch.ops.mkldnn, '_is_mkldnn_bf16_supported', lambda: bfloat16, raising=False)
    monkeypatch.setattr(MMLogger.get_current_instance(), 'warning', said.append)
    make_wrapper(nn.Linear(2, 2))
    assert ['leave out --amp' in text for text in said] == [True] * (not bfloat16)


@needs_cpu
@pytest.mark.parametrize('scaler', [None, dict(scale=512., growth_factor=2., backoff_factor=0.5, growth_interval=2000,
                                               _growth_tracker=7)], ids=['fp32', 'float16'])
def test_state_of_a_run_in_any_precision(scaler):
    model = make_model()
    saved = make_wrapper(model)
    step(model, saved)
    state = saved.state_dict()
    assert state.pop('loss_scaler') == {}
    if scaler is not None:
        state['loss_scaler'] = scaler
    other = make_model()
    wrapper = make_wrapper(other)
    wrapper.load_state_dict(copy.deepcopy(state))
    loaded = wrapper.state_dict()
    assert loaded['param_groups'] == state['param_groups']
    for key, values in state['state'].items():
        assert all(torch.equal(value, loaded['state'][key][name]) for name, value in values.items())
    step(other, wrapper)


class Scaler:
    """Stands in for GradScaler and keeps its arguments."""

    def __init__(self, **kwargs):
        warnings.warn('`torch.cuda.amp.GradScaler(args...)` is deprecated.', FutureWarning, stacklevel=2)
        self.kwargs, self.loaded = kwargs, None

    def load_state_dict(self, state):
        assert state, 'a scaler at work refuses an empty state'
        self.loaded = state


@pytest.fixture
def _gpu(monkeypatch):
    """As if there were a GPU, for what is decided at construction."""
    monkeypatch.setattr(amp_optim_wrapper, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(stock, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(stock, 'GradScaler', Scaler)
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation=True: True)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'Tesla T4')


@pytest.mark.usefixtures('_gpu')
@pytest.mark.parametrize(('kwargs', 'scaler', 'cast_dtype'), [
    ({}, {}, None),
    (dict(dtype=torch.float16, loss_scale=512.), dict(init_scale=512.), torch.float16),
    (dict(dtype='bfloat16', loss_scale=512.), dict(enabled=False), torch.bfloat16),
], ids=str)
def test_only_float16_is_scaled(kwargs, scaler, cast_dtype, recwarn):
    wrapper = make_wrapper(nn.Linear(2, 2), **kwargs)
    assert wrapper.loss_scaler.kwargs == scaler and wrapper.cast_dtype == cast_dtype
    assert not recwarn.list, "MMEngine's use of the scaler's old name is not the user's affair"


@pytest.mark.usefixtures('_gpu')
@pytest.mark.parametrize('scaler', [{}, dict(scale=512.)], ids=['bfloat16', 'float16'])
def test_float16_goes_on_from_any_precision(scaler):
    model = nn.Linear(2, 2)
    wrapper = make_wrapper(model)
    state = wrapper.optimizer.state_dict()
    wrapper.load_state_dict(state | dict(loss_scaler=scaler))
    assert wrapper.loss_scaler.loaded == (scaler or None)


@pytest.mark.usefixtures('_gpu')
def test_a_gpu_without_bfloat16(monkeypatch):
    """torch counts emulation in, unless told not to."""
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation=True: including_emulation)
    with pytest.raises(ValueError, match=r"Tesla T4 does not: set optim_wrapper\.dtype='float16'"):
        make_wrapper(nn.Linear(2, 2), dtype='bfloat16')
    make_wrapper(nn.Linear(2, 2), dtype='float16')


@on_a_gpu
def test_float16_step(device):
    """A moderate scale first, so that no step is left out."""
    _, wrapper = check_step(torch.float16, dtype='float16', loss_scale=512.)
    assert wrapper.loss_scaler.get_scale() == 512.
    assert wrapper.state_dict()['loss_scaler']['scale'] == 512.


@on_a_gpu
def test_float16_leaves_out_the_steps_that_overflow(device):
    """Each halves the scale, until one fits."""
    model = make_model()
    wrapper = make_wrapper(model, dtype='float16', loss_scale=dict(init_scale=2.**40))
    before, scales = [p.detach().clone() for p in model.parameters()], []
    while all(map(torch.equal, before, model.parameters())):
        scales.append(wrapper.loss_scaler.get_scale())
        step(model, wrapper)
        assert len(scales) < 40, 'no scale fits'
    assert len(scales) > 1 and scales == [2.**(40 - i) for i in range(len(scales))]
    assert wrapper.loss_scaler.get_scale() == scales[-1]
    assert all(p.isfinite().all() for p in model.parameters())


@on_a_gpu
def test_from_bfloat16_to_float16(device):
    model, first = check_step(torch.bfloat16, dtype='bfloat16')
    second = make_wrapper(model, dtype='float16')
    second.load_state_dict(first.state_dict())
    assert second.loss_scaler.is_enabled()
    step(model, second)
