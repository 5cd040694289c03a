"""Every prompt initializer against torch's pooling, given centres or a closed form."""
import logging
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from safetensors.torch import save_file

from helpers import rng
from mmspt.prompts import (
    FileInit,
    KMeansInit,
    MaxPoolInit,
    MeanPoolInit,
    NormalInit,
    PromptInitializer,
    RandomSampleInit,
    UniformInit,
)
from mmspt.registry import TASK_UTILS

FROM_TOKENS = [RandomSampleInit, MeanPoolInit, MaxPoolInit, KMeansInit]
DRAWN = [RandomSampleInit, KMeansInit, UniformInit, NormalInit]


def make_tokens(num=60, dims=6, seed=1):
    return torch.randn(num, dims, generator=rng(seed))


def network(shape, patch_size=(8, 8), channels=3):
    """What an initializer that reads no tokens asks of a network."""
    return SimpleNamespace(
        prompts=SimpleNamespace(shape=shape), embed_dims=shape[-1], patch_size=patch_size,
        patch_embed=SimpleNamespace(projection=SimpleNamespace(in_channels=channels)))


def fill(initializer, layers, shape, generator):
    """The prompts, of given tokens where the initializer reads some."""
    if initializer.images == 'none':
        return initializer.start(network(shape), None, generator)
    return initializer.fill(layers, shape, generator)


def make_layers(num_layers=3):
    return [make_tokens(seed=10 + i) for i in range(num_layers)]


@pytest.mark.parametrize('cls', [*FROM_TOKENS, UniformInit, NormalInit])
def test_registry_and_shapes(cls):
    built = TASK_UTILS.build(dict(type=f'mmspt.{cls.__name__}'))
    assert type(built) is cls and isinstance(built, PromptInitializer)
    for shape in ((3, 4, 6), (1, 60, 6)):
        for dtype in (torch.float16, torch.float32):
            layers, untouched = ([layer.to(dtype) for layer in make_layers(shape[0])] for _ in range(2))
            prompts = fill(built, layers, shape, rng()).add_(1)
            assert prompts.shape == shape and prompts.dtype == torch.float32 and prompts.isfinite().all()
            assert all(torch.equal(a, b) for a, b in zip(layers, untouched, strict=True))


@pytest.mark.parametrize('cls', DRAWN)
def test_seed_decides_and_layers_draw_independently(cls):
    layers, shape = [make_tokens()] * 3, (3, 4, 6)
    first = fill(cls(), layers, shape, rng(5))
    assert torch.equal(fill(cls(), layers, shape, rng(5)), first)
    assert not torch.allclose(fill(cls(), layers, shape, rng(6)).sort(dim=1).values, first.sort(dim=1).values)
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize('num_prompts', [1, 60])
def test_random_sample_takes_rows_without_replacement(num_prompts):
    tokens = make_tokens()
    prompts = RandomSampleInit()(tokens, num_prompts, rng())
    picked = [[i for i, token in enumerate(tokens) if torch.equal(token, prompt)] for prompt in prompts]
    assert [len(p) for p in picked] == [1] * num_prompts
    assert len({p[0] for p in picked}) == num_prompts


@pytest.mark.parametrize('num_tokens, num_prompts', [(12, 4), (15, 4), (9, 1)])
@pytest.mark.parametrize('cls, torch_pool', [(MeanPoolInit, F.avg_pool1d), (MaxPoolInit, F.max_pool1d)])
def test_pooling(cls, torch_pool, num_tokens, num_prompts):
    tokens = make_tokens(num_tokens, 5).double()
    expected = torch_pool(tokens.T[None], num_tokens // num_prompts)[0].T[:num_prompts]
    torch.testing.assert_close(cls()(tokens, num_prompts, rng()), expected)


# ---------------------------------------------------------------------------------------------- K-means


@pytest.fixture
def logged(monkeypatch):
    """(level, message) of what the current logger gets."""
    lines, logger = [], logging.Logger('current')
    logger.handle = lambda record: lines.append((record.levelname, record.getMessage()))
    monkeypatch.setattr(MMLogger, 'get_current_instance', lambda: logger)
    return lines


def make_corners(scale):
    """Ten tokens around each of four corners, and the corners."""
    corners = scale * torch.tensor([[0., 0., 0.], [0., 9., 0.], [9., 0., 0.], [9., 9., 9.]])
    noise = torch.randn(5, 4, 3, generator=rng(3))
    return (corners + torch.cat([noise, -noise])).flatten(0, 1), corners


@pytest.mark.parametrize('backend, name', [('auto', 'sklearn'), ('torch', 'torch')])
def test_kmeans_finds_each_layer_s_corners(logged, backend, name):
    layers, corners = zip(*(make_corners(scale) for scale in (2, 5)), strict=True)
    prompts = KMeansInit(backend=backend).fill(iter(layers), (2, 4, 3), rng(), 'cpu')
    for found, expected in zip(prompts, corners, strict=True):
        torch.testing.assert_close(found[torch.cdist(expected, found).argmin(dim=1)], expected, rtol=0, atol=1e-4)
    inertia = [float((layer - corner.repeat(10, 1)).square().sum())
               for layer, corner in zip(layers, corners, strict=True)]
    assert logged == [('INFO', f'K-means ({name}), layer {i}: 2 iterations, inertia {inertia[i]:.3e}')
                      for i in range(2)]


def test_kmeans_tells_which_layers_stopped_early(logged):
    layers = [make_tokens(400), make_corners(5)[0].repeat(10, 2), make_tokens(400, seed=2)]
    KMeansInit(max_iter=3).fill(layers, (3, 4, 6), rng())
    warned = [message for level, message in logged if level == 'WARNING']
    assert len(warned) == 1 and 'within max_iter=3 iterations in layers [0, 2]: raise max_iter' in warned[0]


# ---------------------------------------------------------------------------------------------- uniform, normal, file


@pytest.mark.parametrize('patch_size, own, channels, inputs', [
    ((8, 4), None, 3, 3 * 32), ((16, 16), 14, 3, 3 * 196), ((8, 8), None, 1, 64)])
def test_uniform_bound(patch_size, own, channels, inputs):
    """As the network draws its own, whatever its channels."""
    prompts = UniformInit(own).start(network((12, 50, 96), patch_size, channels), None, rng())
    bound = math.sqrt(6 / (inputs + 96))
    assert prompts.shape == (12, 50, 96)
    assert bound * 0.999 < float(prompts.abs().max()) <= bound
    assert float(prompts.std()) == pytest.approx(bound / math.sqrt(3), rel=0.01)
    assert float(prompts.mean()) == pytest.approx(0, abs=0.01 * bound)


def test_normal_moments(std=1.5):
    prompts = NormalInit(std).start(network((12, 50, 96)), None, rng())
    assert float(prompts.std()) == pytest.approx(std, rel=0.01)
    assert float(prompts.mean()) == pytest.approx(0, abs=0.01 * std)
    assert float((prompts.abs() < std).double().mean()) == pytest.approx(0.6827, abs=0.01)


def test_normal_as_long_as_tokens():
    """Each layer by the length of its own tokens, their mean left out of it."""
    layers = [scale * make_tokens(64, dims=96) + shift for scale, shift in ((0.1, 0.), (1., 5.), (30., 0.))]
    initializer = NormalInit('tokens')
    assert (initializer.images, NormalInit().images, NormalInit().std) == ('batch', 'none', 0.02)
    prompts = initializer.fill(layers, (3, 50, 96), rng()).numpy()
    for drawn, tokens in zip(prompts, layers, strict=True):
        length = np.sqrt((np.linalg.norm(tokens.numpy(), axis=1)**2).mean())
        assert np.sqrt((np.linalg.norm(drawn, axis=1)**2).mean()) == pytest.approx(length, rel=0.03)
        assert abs(drawn.mean()) < 0.05 * drawn.std()


def test_sampled_tokens_of_another_length():
    """The same tokens as without it, in the same directions."""
    args = make_layers(), (3, 4, 6)
    scaled = RandomSampleInit(norm=1.5).fill(*args, rng()).numpy()
    drawn = RandomSampleInit().fill(*args, rng()).numpy()
    expected = 1.5 * drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)
    np.testing.assert_allclose(scaled, expected, rtol=1e-5)


@pytest.mark.parametrize(('name', 'key'), [
    ('p.safetensors', ''), ('epoch_1.pth', 'backbone.prompts.tokens'), ('old.pth', 'backbone.prompts')])
def test_file_init_reads(tmp_path, name, key):
    """A file of prompts, or a checkpoint of this version or of earlier ones."""
    prompts = torch.randn(3, 4, 6, generator=rng()).half()
    if key:
        torch.save({'state_dict': {key: prompts, 'head.fc.bias': torch.zeros(3)}, 'meta': {}}, tmp_path / name)
    else:
        save_file({'prompts': prompts}, tmp_path / name)
    init = TASK_UTILS.build(dict(type='mmspt.FileInit', path=str(tmp_path / name)))
    torch.testing.assert_close(init.start(network((3, 4, 6)), None, rng()), prompts.float(), rtol=0, atol=0)


@pytest.mark.parametrize(('content', 'message'), [
    (dict(prompts=torch.zeros(1, 4, 6)), r'= \(3, 4, 6\), .*p\.pth.* gives \(1, 4, 6\): set num_prompts'),
    (dict(prompts=torch.full((3, 4, 6), 1e300, dtype=torch.float64)), r'must be finite, .*p\.pth'),
    (dict(prompts=torch.zeros(3, 4, 6, dtype=torch.int64)),
     r'must be a tensor of floating-point numbers, .*p\.pth.* has torch\.int64: make'),
    (dict(weights=torch.zeros(1)), r"must hold 'prompts'.*p\.pth.*'weights'.*tools/init_prompts\.py"),
], ids=['shape', 'infinite in fp32', 'whole numbers', 'key'])
def test_file_init_refuses(tmp_path, content, message):
    torch.save(content, tmp_path / 'p.pth')
    with pytest.raises(ValueError, match=message):
        FileInit(str(tmp_path / 'p.pth')).start(network((3, 4, 6)), None, rng())


def test_file_init_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'absent\.safetensors.*is not a file: give the path'):
        FileInit(str(tmp_path / 'absent.safetensors')).start(network((3, 4, 6)), None, rng())


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize('cls, kwargs, message', [
    (KMeansInit, dict(max_iter=0), 'max_iter must be a whole number of at least 1, got 0'),
    (KMeansInit, dict(tol=float('nan')), 'tol must be a finite number of at least 0, got nan'),
    (KMeansInit, dict(backend='cuml'), r"one of \('auto', 'sklearn', 'flash', 'torch'\), got 'cuml'"),
    (NormalInit, dict(std='token'), "std must be positive, or 'tokens', got 'token'"),
    (RandomSampleInit, dict(norm='tokens'), "norm must be a positive number or None, got 'tokens'"),
])
def test_options_out_of_range(cls, kwargs, message):
    with pytest.raises(ValueError, match=message):
        cls(**kwargs)


BROKEN = torch.zeros(60, 6)
BROKEN[[3, 40], 2] = torch.tensor([float('nan'), float('inf')])


@pytest.mark.parametrize('layers, shape, message', [
    (make_layers(), (3, 61, 6), r'got 60 tokens for 61 prompts: take more images .* or fewer prompts'),
    ([make_tokens(), BROKEN], (2, 4, 6), 'must be finite, but 2 of 60 hold NaN or infinity: check the checkpoint'),
    ([torch.zeros(4, 15, 6)], (1, 4, 6), r'must have shape \(N, D\), got \(4, 15, 6\): flatten'),
    (make_layers(3), (2, 4, 6), r'= \(2, 4, 6\), \w+ gives \(3, 4, 6\)'),
], ids=['few', 'not finite', 'rank', 'layers'])
@pytest.mark.parametrize('cls', [MeanPoolInit, KMeansInit])
def test_tokens_that_make_no_prompts(cls, layers, shape, message):
    with pytest.raises(ValueError, match=message):
        cls().fill(layers, shape, rng())
