"""Every prompt initializer against a plain loop, torch's pooling or a closed form."""
import logging
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from safetensors.torch import save_file

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
from mmspt.prompts.initializers import max_pool, mean_pool, random_sample
from mmspt.registry import TASK_UTILS

FROM_TOKENS = [RandomSampleInit, MeanPoolInit, MaxPoolInit, KMeansInit]
DRAWN = [RandomSampleInit, KMeansInit, UniformInit, NormalInit]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


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
def test_registry_and_constructor_agree(cls):
    built = TASK_UTILS.build(dict(type=f'mmspt.{cls.__name__}'))
    shape = (3, 4, 6)
    prompts = fill(built, make_layers(), shape, rng())
    assert type(built) is cls and isinstance(built, PromptInitializer)
    assert prompts.shape == shape and prompts.dtype == torch.float32 and prompts.isfinite().all()
    torch.testing.assert_close(prompts, fill(cls(), make_layers(), shape, rng()), rtol=0, atol=0)


@pytest.mark.parametrize('kwargs, attribute', [
    (dict(type='mmspt.KMeansInit', max_iter=7), ('max_iter', 7)),
    (dict(type='mmspt.KMeansInit', tol=0), ('tol', 0)),
    (dict(type='mmspt.KMeansInit', backend='torch'), ('backend', 'torch')),
    (dict(type='mmspt.NormalInit', std=0.5), ('std', 0.5)),
    (dict(type='mmspt.NormalInit', std='tokens'), ('std', 'tokens')),
    (dict(type='mmspt.RandomSampleInit', norm=2.), ('norm', 2.)),
    (dict(type='mmspt.UniformInit', patch_size=4), ('patch_size', 4)),
    (dict(type='mmspt.FileInit', path='a.safetensors'), ('path', 'a.safetensors')),
])
def test_options_reach_the_object(kwargs, attribute):
    assert getattr(TASK_UTILS.build(kwargs), attribute[0]) == attribute[1]


@pytest.mark.parametrize('cls', DRAWN)
def test_seed_decides_and_layers_draw_independently(cls):
    layers, shape = [make_tokens()] * 3, (3, 4, 6)
    first = fill(cls(), layers, shape, rng(5))
    assert torch.equal(fill(cls(), layers, shape, rng(5)), first)
    assert not torch.allclose(fill(cls(), layers, shape, rng(6)).sort(dim=1).values, first.sort(dim=1).values)
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize('cls', FROM_TOKENS)
def test_tokens_are_left_alone(cls):
    layers = make_layers()
    before = [layer.clone() for layer in layers]
    cls().fill(layers, (3, 4, 6), rng()).add_(1)
    assert all(torch.equal(a, b) for a, b in zip(layers, before, strict=True))


# ---------------------------------------------------------------------------------------------- random sample


@pytest.mark.parametrize('num_prompts', [1, 20, 60])
def test_random_sample_takes_rows_without_replacement(num_prompts):
    tokens = make_tokens()
    prompts = RandomSampleInit()(tokens, num_prompts, rng())
    picked = [[i for i, token in enumerate(tokens) if torch.equal(token, prompt)] for prompt in prompts]
    assert [len(p) for p in picked] == [1] * num_prompts
    assert len({p[0] for p in picked}) == num_prompts


def test_random_sample_is_uniform():
    tokens, generator, draws = torch.arange(20.)[:, None], rng(), 2000
    drawn = torch.cat([random_sample(tokens, 5, generator)[:, 0] for _ in range(draws)]).long()
    counts = torch.bincount(drawn, minlength=20).double()
    expected = draws * 5 / 20
    # 19 degrees of freedom: 43.8 is passed once in 1,000 (and less often without replacement)
    assert float(((counts - expected)**2 / expected).sum()) < 43.8


# ---------------------------------------------------------------------------------------------- pooling


@pytest.mark.parametrize('num_tokens, num_prompts', [(12, 4), (15, 4), (9, 1), (392, 20)])
@pytest.mark.parametrize('cls, function, reduce, torch_pool', [
    (MeanPoolInit, mean_pool, lambda rows: sum(rows) / len(rows), F.avg_pool1d),
    (MaxPoolInit, max_pool, max, F.max_pool1d),
])
def test_pooling(cls, function, reduce, torch_pool, num_tokens, num_prompts):
    tokens = make_tokens(num_tokens, 5).double()
    width = num_tokens // num_prompts
    loop = torch.tensor([[reduce([float(tokens[row, d]) for row in range(p * width, (p + 1) * width)])
                          for d in range(5)] for p in range(num_prompts)], dtype=torch.float64)
    pooled = function(tokens, num_prompts, rng())
    torch.testing.assert_close(pooled, loop)
    torch.testing.assert_close(pooled, torch_pool(tokens.T[None], width)[0].T[:num_prompts])
    torch.testing.assert_close(cls()(tokens, num_prompts, rng()), loop)


# ---------------------------------------------------------------------------------------------- K-means


@pytest.fixture
def logged():
    """(level, message) of what the current logger gets."""
    lines, handler = [], logging.Handler()
    handler.emit = lambda record: lines.append((record.levelname, record.getMessage()))
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('INFO')
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


def make_corners(scale):
    """Ten tokens around each of four corners, and the corners."""
    corners = scale * torch.tensor([[0., 0., 0.], [0., 9., 0.], [9., 0., 0.], [9., 9., 9.]])
    noise = torch.randn(5, 4, 3, generator=rng(3))
    return (corners + torch.cat([noise, -noise])).flatten(0, 1), corners


@pytest.mark.parametrize('backend, name', [('auto', 'sklearn'), ('sklearn', 'sklearn'), ('torch', 'torch')])
def test_kmeans_finds_each_layer_s_corners(logged, backend, name):
    layers, corners = zip(*(make_corners(scale) for scale in (2, 5)), strict=True)
    prompts = KMeansInit(backend=backend).fill(iter(layers), (2, 4, 3), rng(), 'cpu')
    for found, expected in zip(prompts, corners, strict=True):
        torch.testing.assert_close(found[torch.cdist(expected, found).argmin(dim=1)], expected, rtol=0, atol=1e-4)
    inertia = [float((layer - corner.repeat(10, 1)).square().sum())
               for layer, corner in zip(layers, corners, strict=True)]
    assert logged == [('INFO', f'K-means ({name}), layer {i}: 2 iterations, inertia {inertia[i]:.3e}')
                      for i in range(2)]


def test_kmeans_called_for_one_layer():
    tokens = make_tokens()
    torch.testing.assert_close(KMeansInit()(tokens, 4, rng()),
                               KMeansInit().fill([tokens], (1, 4, 6), rng())[0], rtol=0, atol=0)


def test_kmeans_tells_which_layers_stopped_early(logged):
    layers = [make_tokens(400), make_corners(5)[0].repeat(10, 2), make_tokens(400, seed=2)]
    KMeansInit(max_iter=3).fill(layers, (3, 4, 6), rng())
    warned = [message for level, message in logged if level == 'WARNING']
    assert len(warned) == 1 and 'within max_iter=3 iterations in layers [0, 2]: raise max_iter' in warned[0]


@pytest.mark.parametrize('kwargs, message', [
    (dict(max_iter=0), 'max_iter must be a whole number of at least 1, got 0'),
    (dict(max_iter=1.5), 'max_iter must be a whole number of at least 1, got 1.5'),
    (dict(max_iter=True), 'max_iter must be a whole number of at least 1, got True'),
    (dict(tol=-1e-3), 'tol must be a finite number of at least 0, got -0.001'),
    (dict(tol=float('nan')), 'tol must be a finite number of at least 0, got nan'),
    (dict(tol='1e-4'), "tol must be a finite number of at least 0, got '1e-4'"),
    (dict(backend='cuml'), r"backend must be one of \('auto', 'sklearn', 'flash', 'torch'\), got 'cuml'"),
])
def test_kmeans_refuses_options(kwargs, message):
    with pytest.raises(ValueError, match=message):
        KMeansInit(**kwargs)


# ---------------------------------------------------------------------------------------------- uniform, normal, file


@pytest.mark.parametrize('patch_size, own, channels, inputs', [
    ((16, 16), None, 3, 3 * 256), ((8, 4), None, 3, 3 * 32), ((16, 16), 14, 3, 3 * 196), ((8, 8), None, 1, 64)])
def test_uniform_bound(patch_size, own, channels, inputs):
    """As the network draws its own, whatever its channels."""
    prompts = UniformInit(own).start(network((12, 50, 96), patch_size, channels), None, rng())
    bound = math.sqrt(6 / (inputs + 96))
    assert prompts.shape == (12, 50, 96)
    assert bound * 0.999 < float(prompts.abs().max()) <= bound
    assert float(prompts.std()) == pytest.approx(bound / math.sqrt(3), rel=0.01)
    assert float(prompts.mean()) == pytest.approx(0, abs=0.01 * bound)


@pytest.mark.parametrize('kwargs, std', [({}, 0.02), (dict(std=1.5), 1.5)])
def test_normal_moments(kwargs, std):
    prompts = NormalInit(**kwargs).start(network((12, 50, 96)), None, rng())
    assert float(prompts.std()) == pytest.approx(std, rel=0.01)
    assert float(prompts.mean()) == pytest.approx(0, abs=0.01 * std)
    assert float((prompts.abs() < std).double().mean()) == pytest.approx(0.6827, abs=0.01)


def test_normal_as_long_as_tokens():
    """Each layer by the length of its own tokens, their mean left out of it."""
    layers = [scale * make_tokens(64, dims=96) + shift for scale, shift in ((0.1, 0.), (1., 5.), (30., 0.))]
    initializer = NormalInit('tokens')
    assert (initializer.images, NormalInit().images) == ('batch', 'none')
    prompts = initializer.fill(layers, (3, 50, 96), rng()).numpy()
    for drawn, tokens in zip(prompts, layers, strict=True):
        length = np.sqrt((np.linalg.norm(tokens.numpy(), axis=1)**2).mean())
        assert np.sqrt((np.linalg.norm(drawn, axis=1)**2).mean()) == pytest.approx(length, rel=0.03)
        assert abs(drawn.mean()) < 0.05 * drawn.std()


@pytest.mark.parametrize('std', [0., -0.1, float('nan'), 'token', None])
def test_normal_refuses_std(std):
    with pytest.raises(ValueError, match=f"std must be positive, or 'tokens', got {std!r}"):
        NormalInit(std)


def test_sampled_tokens_of_another_length():
    """The same tokens as without it, in the same directions."""
    args = make_layers(), (3, 4, 6)
    scaled = RandomSampleInit(norm=1.5).fill(*args, rng()).numpy()
    drawn = RandomSampleInit().fill(*args, rng()).numpy()
    expected = 1.5 * drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)
    np.testing.assert_allclose(scaled, expected, rtol=1e-5)


@pytest.mark.parametrize('norm', [0, -1., float('nan'), float('inf'), 'tokens'])
def test_random_sample_refuses_norms(norm):
    with pytest.raises(ValueError, match=f'norm must be a positive number or None, got {norm!r}'):
        RandomSampleInit(norm)


def write_safetensors(prompts, path):
    save_file({'prompts': prompts}, path)


def write_checkpoint(prompts, path):
    torch.save({'state_dict': {'backbone.prompts.tokens': prompts, 'head.fc.bias': torch.zeros(3)}, 'meta': {}}, path)


def write_old_checkpoint(prompts, path):
    torch.save({'state_dict': {'backbone.prompts': prompts, 'head.fc.bias': torch.zeros(3)}, 'meta': {}}, path)


@pytest.mark.parametrize('write, name', [
    (write_safetensors, 'p.safetensors'), (write_checkpoint, 'epoch_1.pth'), (write_old_checkpoint, 'epoch_1.pth')])
def test_file_init_reads(tmp_path, write, name):
    prompts = torch.randn(3, 4, 6, generator=rng())
    write(prompts, tmp_path / name)
    init = TASK_UTILS.build(dict(type='mmspt.FileInit', path=str(tmp_path / name)))
    torch.testing.assert_close(init.start(network((3, 4, 6)), None, rng()), prompts, rtol=0, atol=0)


def test_file_init_makes_half_precision_float(tmp_path):
    write_safetensors(torch.ones(1, 4, 6, dtype=torch.float16), tmp_path / 'p.safetensors')
    assert FileInit(str(tmp_path / 'p.safetensors')).start(network((1, 4, 6)), None, rng()).dtype == torch.float32


def test_file_init_refuses_another_shape(tmp_path):
    write_safetensors(torch.zeros(1, 4, 6), tmp_path / 'p.safetensors')
    with pytest.raises(ValueError, match=r'= \(3, 4, 6\), .*p\.safetensors.* gives \(1, 4, 6\): set num_prompts'):
        FileInit(str(tmp_path / 'p.safetensors')).start(network((3, 4, 6)), None, rng())


def test_file_init_refuses_nan(tmp_path):
    write_safetensors(torch.full((1, 4, 6), float('nan')), tmp_path / 'p.safetensors')
    with pytest.raises(ValueError, match=r'must be finite, .*p\.safetensors'):
        FileInit(str(tmp_path / 'p.safetensors')).start(network((1, 4, 6)), None, rng())


@pytest.mark.parametrize(('prompts', 'found'), [
    (torch.zeros(1, 4, 6, dtype=torch.int64), r'torch\.int64'), ([0.5], 'list')], ids=str)
def test_file_init_refuses_what_is_no_floating_point_tensor(tmp_path, prompts, found):
    torch.save({'prompts': prompts}, tmp_path / 'p.pth')
    with pytest.raises(ValueError, match=rf'must be a tensor of floating-point numbers, .*p\.pth.* has {found}: make'):
        FileInit(str(tmp_path / 'p.pth')).start(network((1, 4, 6)), None, rng())


def test_file_init_refuses_numbers_too_great_for_single_precision(tmp_path):
    write_safetensors(torch.full((1, 4, 6), 1e300, dtype=torch.float64), tmp_path / 'p.safetensors')
    with pytest.raises(ValueError, match=r'must be finite, .*p\.safetensors'):
        FileInit(str(tmp_path / 'p.safetensors')).start(network((1, 4, 6)), None, rng())


def test_file_init_without_the_key(tmp_path):
    save_file({'weights': torch.zeros(1)}, tmp_path / 'p.safetensors')
    with pytest.raises(ValueError, match=r"must hold 'prompts'.*p\.safetensors.*'weights'.*tools/init_prompts\.py"):
        FileInit(str(tmp_path / 'p.safetensors')).start(network((1, 4, 6)), None, rng())


def test_file_init_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'absent\.safetensors.*is not a file: give the path'):
        FileInit(str(tmp_path / 'absent.safetensors')).start(network((1, 4, 6)), None, rng())


# ---------------------------------------------------------------------------------------------- fill and its errors


@pytest.mark.parametrize('num_layers, num_prompts', [(1, 1), (1, 60), (3, 5)])
@pytest.mark.parametrize('cls', FROM_TOKENS)
def test_fill_shape(cls, num_layers, num_prompts):
    prompts = cls().fill(iter(make_layers(num_layers)), (num_layers, num_prompts, 6), rng())
    assert prompts.shape == (num_layers, num_prompts, 6)


def test_fill_maps_each_layer_to_itself():
    layers = make_layers()
    expected = torch.stack([F.avg_pool1d(layer.T[None], 15)[0].T for layer in layers])
    torch.testing.assert_close(MeanPoolInit().fill(layers, (3, 4, 6), rng()), expected)


def test_fill_gives_fp32_of_half_tokens():
    layers = [layer.half() for layer in make_layers()]
    prompts = RandomSampleInit().fill(layers, (3, 4, 6), rng())
    assert prompts.dtype == torch.float32


@pytest.mark.parametrize('cls', FROM_TOKENS)
def test_fewer_tokens_than_prompts(cls):
    with pytest.raises(ValueError, match=r'got 60 tokens for 61 prompts: take more images .* or fewer prompts'):
        cls().fill(make_layers(), (3, 61, 6), rng())


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('cls', FROM_TOKENS)
def test_tokens_that_are_not_finite(cls, value):
    layers = make_layers()
    layers[1][[3, 40], 2] = value
    with pytest.raises(ValueError, match='must be finite, but 2 of 60 hold NaN or infinity: check the checkpoint'):
        cls().fill(layers, (3, 4, 6), rng())


@pytest.mark.parametrize('shape', [(60, ), (4, 15, 6)])
@pytest.mark.parametrize('cls', FROM_TOKENS)
def test_tokens_of_another_rank(cls, shape):
    with pytest.raises(ValueError, match=rf'must have shape \(N, D\), got \({shape[0]},.*: flatten'):
        cls().fill([torch.zeros(shape)], (1, 4, 6), rng())


def test_wrong_number_of_layers():
    with pytest.raises(ValueError, match=r'= \(2, 4, 6\), RandomSampleInit gives \(3, 4, 6\)'):
        RandomSampleInit().fill(make_layers(3), (2, 4, 6), rng())
