"""PromptedViT in MMPretrain's classifier against numbers recorded from the authors' released code."""
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from helpers import DATA, tiny_backbone

CASES = ['mae_deep', 'mae_shallow', 'mocov3_deep', 'mocov3_shallow']
SCHEDULE = Config.fromfile(DATA.parents[1] / 'configs' / '_base_' / 'schedules' / 'spt_100e.py')


def golden(case, **kwargs):
    """Arrays of a case, and the classifier that starts where it starts."""
    arrays = {key: torch.from_numpy(value) for key, value in np.load(DATA / f'{case}.npz').items()}
    model = MODELS.build(dict(
        type='ImageClassifier',
        backbone=tiny_backbone(case, **kwargs),
        head=dict(type='LinearClsHead', num_classes=7, in_channels=64)))
    model.init_weights()
    with torch.no_grad():
        model.backbone.prompts.tokens.copy_(arrays['prompt'])
        model.head.fc.weight.copy_(arrays['head_weight'])
        model.head.fc.bias.copy_(arrays['head_bias'])
    return arrays, model.train()


def batch(arrays):
    samples = [DataSample().set_gt_label(int(label)) for label in arrays['y']]
    return dict(inputs=arrays['x'], data_samples=samples)


def assert_close(actual, expected, relative):
    """Largest difference, relative to the largest expected value."""
    assert (actual - expected).abs().max() <= relative * expected.abs().max()


@pytest.mark.parametrize('case', CASES)
def test_layer_tokens(case):
    arrays, model = golden(case)
    model.eval()
    tokens = list(model.backbone.patch_tokens(arrays['x'], 4))
    assert len(tokens) == 4
    for i, layer in enumerate(tokens):
        assert_close(layer, arrays[f'tokens_{i}'], 1e-5)
    layers = len(model.backbone.prompts.tokens)
    first_tokens = torch.stack([layer.flatten(0, 1)[:5] for layer in tokens[:layers]])
    assert_close(first_tokens, arrays['prompt'], 1e-5)


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('concatenate', [False, True], ids=['keys and values', 'concatenation'])
def test_logits_loss_and_gradients(case, concatenate):
    arrays, model = golden(case, concatenate=concatenate)
    assert_close(model(arrays['x']), arrays['logits'], 1e-5)
    with torch.no_grad():
        for _ in range(2):  # computed, then kept
            assert_close(model.eval()(arrays['x']), arrays['logits'], 1e-5)
    model.train()
    loss = model(mode='loss', inputs=arrays['x'], data_samples=batch(arrays)['data_samples'])['loss']
    loss.backward()
    assert_close(loss.detach(), arrays['loss'], 1e-5)
    assert_close(model.backbone.prompts.tokens.grad, arrays['grad_prompt'], 1e-5)
    assert_close(model.head.fc.weight.grad, arrays['grad_head_weight'], 1e-5)
    assert_close(model.head.fc.bias.grad, arrays['grad_head_bias'], 1e-5)
    assert [name for name, p in model.named_parameters() if p.grad is not None] == [
        'backbone.prompts.tokens', 'head.fc.weight', 'head.fc.bias']


@pytest.mark.parametrize('case', CASES)
def test_48_steps_of_the_recipe(case):
    """Through the optimizer wrapper, paramwise_cfg and schedule of configs/_base_, four steps an epoch."""
    arrays, model = golden(case)
    wrapper = build_optim_wrapper(model, SCHEDULE.optim_wrapper)
    cfg = dict(SCHEDULE.param_scheduler, end=SCHEDULE.train_cfg.max_epochs)
    assert cfg.pop('convert_to_iter_based')
    scheduler = PARAM_SCHEDULERS.get(cfg.pop('type')).build_iter_from_epoch(wrapper, epoch_length=4, **cfg)
    rates, losses = [], []
    for _ in range(48):
        rates.append(wrapper.get_lr()['lr'][0])
        data = model.data_preprocessor(batch(arrays), training=True)
        loss = model(**data, mode='loss')['loss']
        wrapper.update_params(loss)
        scheduler.step()
        losses.append(loss.item())
    np.testing.assert_allclose(rates, arrays['lrs'], rtol=1e-12, atol=0)
    np.testing.assert_allclose(losses, arrays['losses'], rtol=1e-3)
    assert_close(model.backbone.prompts.tokens.detach(), arrays['final_prompt'], 1e-3)
    assert_close(model.head.fc.weight.detach(), arrays['final_head_weight'], 1e-3)
    assert_close(model.head.fc.bias.detach(), arrays['final_head_bias'], 1e-3)
