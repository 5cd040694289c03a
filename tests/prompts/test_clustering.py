"""K-means against plain loops, scikit-learn's own, and blobs whose centres are known."""
import os
import sys
import types

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_info

from devices import CUDA, ON_GPU
from helpers import rng
from mmspt.prompts import clustering
from mmspt.prompts import lloyd as lloyd_module
from mmspt.prompts.clustering import choose_backend, kmeans
from mmspt.prompts.lloyd import flash, lloyd
from mmspt.prompts.threads import num_threads

ON_CPU = ['sklearn', 'torch', 'flash']
ON_DEVICES = [*((backend, 'cpu') for backend in ON_CPU),
              *(pytest.param(backend, CUDA, marks=ON_GPU) for backend in ('torch', 'flash'))]


def inertia(points, centres):
    return float(torch.cdist(points.double(), centres.double()).min(dim=1).values.square().sum())


def make_blobs(num_blobs=8, per_blob=40, dims=5):
    """Blobs that cannot be mixed up, shuffled, and their means."""
    generator = np.random.default_rng(3)
    corners = 20. * (np.arange(num_blobs)[:, None] - num_blobs / 2) * np.ones(dims)
    blobs = corners[:, None] + generator.normal(size=(num_blobs, per_blob, dims))
    blobs = blobs.astype(np.float32)
    points = generator.permutation(blobs.reshape(-1, dims))
    return torch.from_numpy(points), torch.from_numpy(blobs.astype(np.float64).mean(axis=1))


def make_layers(num_layers=3, num=400, dims=8):
    """Layers far from the origin, each on another scale."""
    return [(torch.randn(num, dims, generator=rng(i)) + 5) * 10**i for i in range(num_layers)]


def digits():
    return torch.from_numpy(load_digits().data.astype(np.float32))


def standardize(points):
    """In units of one standard deviation about the mean, in float64."""
    points = points.double() - points.double().mean(dim=0)
    return (points / points.square().mean().sqrt()).float()


def fake_flash(calls=None):
    """flash_kmeans 0.3.1's function, its stopping rule and what it returns, on the CPU."""
    def batch_kmeans_Euclid(x, n_clusters, max_iters=100, tol=0.0, init_centroids=None, verbose=False, *,
                            use_heuristic=True):
        if calls is not None:
            calls.append(dict(shape=tuple(x.shape), max_iters=max_iters, tol=tol))
        centroids = init_centroids.view(len(x), n_clusters, x.shape[2])
        done = 0
        while done < max_iters:
            done += 1
            cluster_ids = torch.cdist(x, centroids).argmin(dim=2).int()
            new = centroids.clone()
            for b in range(len(x)):
                for k in range(n_clusters):
                    if (cluster_ids[b] == k).any():  # an empty cluster stays
                        new[b, k] = x[b][cluster_ids[b] == k].mean(dim=0)
            shift = (new - centroids).norm(dim=-1).max()
            if shift < tol:
                break
            centroids = new
        return cluster_ids, centroids, done

    return types.SimpleNamespace(batch_kmeans_Euclid=batch_kmeans_Euclid)


@pytest.fixture(autouse=True)
def flash_on_cpu(request, monkeypatch):
    """backend='flash' runs the stand-in on the CPU, and the package itself on a GPU."""
    if request.node.get_closest_marker('gpu'):
        if request.node.callspec.params['backend'] == 'flash':
            pytest.importorskip('flash_kmeans')
        return
    monkeypatch.setitem(sys.modules, 'flash_kmeans', fake_flash())
    real = clustering.choose_backend
    monkeypatch.setattr(clustering, 'choose_backend', lambda name, device: 'flash' if name == 'flash'
                        else real(name, device))


@pytest.mark.parametrize(('backend', 'device'), ON_DEVICES)
def test_separated_blobs(backend, device):
    points, means = make_blobs(dims=16)  # the least that Triton's products take
    found = kmeans([points, 1000 * points + 7], len(means), rng(), backend=backend, device=device)
    assert found.backend == backend and found.centres.dtype == torch.float32
    means = means[means[:, 0].argsort()]
    for centres, scale, shift in zip(found.centres.double(), (1, 1000), (0, 7), strict=True):
        centres = (centres[centres[:, 0].argsort()] - shift) / scale
        torch.testing.assert_close(centres, means, rtol=0, atol=1e-4)


@pytest.mark.parametrize(('backend', 'device'), ON_DEVICES)
@pytest.mark.parametrize('num_centres', [5, 20])
def test_inertia_of_scikit_learn(monkeypatch, num_centres, backend, device):
    """Although k-means++ looks at a part of the tokens."""
    monkeypatch.setattr(clustering, 'SEEDING_POINTS_PER_CENTRE', 50)
    points = digits()
    expected = KMeans(num_centres, n_init=1, random_state=0).fit(points.numpy()).inertia_
    found = kmeans([points], num_centres, rng(), backend=backend, device=device)
    assert found.centres.shape == (1, num_centres, 64)
    assert inertia(points, found.centres[0]) <= 1.02 * expected
    assert found.inertia == pytest.approx([inertia(points, found.centres[0])], rel=1e-4)


@pytest.mark.parametrize(('backend', 'device'), ON_DEVICES[1:])
@pytest.mark.parametrize('num_centres', [20, 100])
def test_layers_of_tokens_as_scikit_learn(num_centres, backend, device):
    """On a GPU as many tokens, as wide, as a ViT-B gives."""
    layers = make_layers(2, 600, 24) if device == 'cpu' else make_layers(12, 6000, 768)
    expected = kmeans(layers, num_centres, rng(), backend='sklearn')
    found = kmeans(layers, num_centres, rng(), backend=backend, device=device)
    assert found.backend == backend and found.centres.shape == (len(layers), num_centres, layers[0].shape[1])
    assert found.inertia == pytest.approx(expected.inertia, rel=0.01)
    for points, centres, total in zip(layers, found.centres, found.inertia, strict=True):
        assert total == pytest.approx(inertia(points, centres), rel=1e-4)


@pytest.mark.parametrize('max_iter, tol', [(4, 1e-4), (100, 1e-2), (100, 0.)])
def test_torch_takes_the_steps_of_scikit_learn(monkeypatch, max_iter, tol):
    """Chunk by chunk."""
    monkeypatch.setattr(lloyd_module, 'CHUNK_ELEMENTS', 5000)
    points = digits() + 0.1 * torch.randn(1797, 64, generator=rng())  # without ties
    layers = [points, 3 * points + points.roll(5, dims=1)]
    theirs = kmeans(layers, 10, rng(), max_iter, tol, 'sklearn')
    ours = kmeans(layers, 10, rng(), max_iter, tol, 'torch')
    assert ours.iterations == theirs.iterations
    assert ours.inertia == pytest.approx(theirs.inertia, rel=1e-5)
    torch.testing.assert_close(ours.centres, theirs.centres, rtol=1e-4, atol=1e-3)


# ---------------------------------------------------------------------------------------------- the same every time


@pytest.mark.parametrize('backend', ON_CPU)
def test_seed_decides(backend):
    layers = make_layers()
    first, again, other = (kmeans(layers, 10, rng(seed), backend=backend).centres for seed in (1, 1, 2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.allclose(first.sort(dim=1).values, other.sort(dim=1).values)


@pytest.mark.parametrize('backend', ON_CPU)
def test_threads_do_not_matter(monkeypatch, backend):
    layers, before, results = make_layers(5), threadpool_info(), []
    copies = [layer.clone() for layer in layers]
    for threads in (1, 3):
        for name in ('num_threads', 'num_cores'):
            monkeypatch.setattr(clustering, name, lambda threads=threads: threads)
        results.append(kmeans(layers, 6, rng(), backend=backend))
    expected, found = results
    torch.testing.assert_close(found.centres, expected.centres, rtol=1e-6, atol=0)
    assert found.iterations == expected.iterations
    assert threadpool_info() == before
    assert all(torch.equal(a, b) for a, b in zip(layers, copies, strict=True)), 'tokens are left alone'


@pytest.mark.parametrize('threads', [1, 3])
def test_layers_are_taken_lazily(monkeypatch, threads):
    """No more layers are taken than are done or at work."""
    monkeypatch.setattr(clustering, 'num_threads', lambda: threads)
    real, done, most = clustering._fit_layer, [], []

    def fit(*args):
        result = real(*args)
        done.append(1)
        return result

    def layers():
        for taken, tokens in enumerate(make_layers(6), 1):
            most.append(taken - len(done))
            yield tokens

    monkeypatch.setattr(clustering, '_fit_layer', fit)
    assert len(kmeans(layers(), 4, rng()).centres) == 6
    assert max(most) == threads
    monkeypatch.setattr(clustering, 'WORKING_BYTES', 1)  # no room for two layers' copies
    done.clear(), most.clear()
    assert len(kmeans(layers(), 4, rng()).centres) == 6 and max(most) == 1


# ---------------------------------------------------------------------------------------------- odd tokens


@pytest.mark.parametrize('backend', ON_CPU)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64])
def test_other_dtypes(dtype, backend):
    layers = [torch.randn(400, 8, generator=rng(i)).to(dtype).requires_grad_() for i in range(2)]
    found = kmeans(layers, 6, rng(), backend=backend)
    expected = kmeans([layer.detach().float() for layer in layers], 6, rng(), backend=backend)
    assert found.centres.dtype == torch.float32 and not found.centres.requires_grad
    torch.testing.assert_close(found.centres, expected.centres, rtol=0, atol=0)


@pytest.mark.parametrize('method', [lloyd, flash])
def test_empty_clusters_move(method):
    """Two of the starts are far away from all tokens: as scikit-learn, the farthest tokens take their place."""
    points = standardize(torch.cat([make_blobs(4)[0], 50 * torch.ones(1, 5)]))
    starts = torch.cat([points[:2], torch.full((2, 5), 1e3)])
    expected = KMeans(4, init=starts.numpy(), n_init=1, max_iter=100).fit(points.numpy())
    centres, iterations, total = method(points[None], starts[None], 100, 1e-4)
    assert 1 < int(iterations) < 100 and centres.abs().max() < 10
    assert float(total) == pytest.approx(inertia(points, centres[0]), rel=1e-5)
    assert len(torch.cdist(points, centres[0]).argmin(dim=1).unique()) == 4
    same = torch.allclose(centres[0], torch.from_numpy(expected.cluster_centers_), rtol=0, atol=1e-5)
    assert same or method is flash, 'flash-kmeans may end elsewhere'


@pytest.mark.parametrize('backend', ON_CPU)
def test_more_empty_clusters_than_a_cluster_has_tokens(backend):
    """5 places of 20 tokens each and 30 centres: scikit-learn alone puts centres far outside."""
    tokens = torch.randn(5, 8, generator=rng(1)).repeat(20, 1)
    for seed in range(5):
        found = kmeans([tokens], 30, rng(seed), backend=backend)
        assert found.inertia[0] == pytest.approx(0, abs=1e-6)
        assert inertia(tokens, found.centres[0]) == pytest.approx(0, abs=1e-6)
        distances = torch.cdist(found.centres[0], tokens, compute_mode='donot_use_mm_for_euclid_dist')
        assert distances.amin(dim=1).max() < 1e-3


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('points', [torch.eye(3).repeat(5, 1), torch.full((15, 3), 0.1)])
@pytest.mark.parametrize('backend', ON_CPU)
def test_duplicates_are_no_warning(backend, points):
    found = kmeans([points] * 2, 6, rng(), backend=backend)
    assert found.inertia == pytest.approx([0, 0], abs=1e-6)
    assert [inertia(points, centres) for centres in found.centres] == pytest.approx([0, 0], abs=1e-6)


@pytest.mark.filterwarnings('ignore:overflow:RuntimeWarning', 'ignore:invalid value:RuntimeWarning')
@pytest.mark.parametrize('backend', ON_CPU)
@pytest.mark.parametrize('layers, num_centres, message', [
    ([torch.zeros(3, 2)], 4, 'got 4 centres for 3 tokens: take more tokens or fewer centres'),
    ([torch.eye(3), torch.zeros(4, 3)], 2, r'layer 1 has \(4, 3\) and the first \(3, 3\)'),
    ([torch.zeros(2, 3, 4)], 2, r'one shape \(N, D\), layer 0 has \(2, 3, 4\)'),
    ([], 2, 'at least one layer, got none'),
    ([torch.eye(3), torch.eye(3) / 0], 2, 'tokens must be finite, those of layer 1 hold NaN or infinity: check the'),
    ([torch.eye(3), 1e25 * torch.randn(3, 3, generator=rng())], 2, 'finite, those of layer 1 are not: their'),
])
def test_refuses(layers, num_centres, message, backend):
    with pytest.raises(ValueError, match=message):
        kmeans(layers, num_centres, rng(), backend=backend)


# ---------------------------------------------------------------------------------------------- which backend


@pytest.mark.parametrize('backend, device, with_flash, without', [
    ('auto', 'cpu', 'sklearn', 'sklearn'), ('auto', 'cuda', 'flash', 'torch'), ('auto', 'mps', 'torch', 'torch'),
    ('sklearn', 'cuda', 'sklearn', 'sklearn'), ('torch', 'cuda', 'torch', 'torch')])
def test_choice_by_device(monkeypatch, backend, device, with_flash, without):
    for module, expected in ((fake_flash(), with_flash), (None, without)):
        monkeypatch.setitem(sys.modules, 'flash_kmeans', module)
        assert choose_backend(backend, torch.device(device)) == expected


@pytest.mark.parametrize('backend, device, error, message', [
    ('flash', 'cpu', ValueError, "'flash' needs a CUDA device, got 'cpu': set backend='auto' or 'sklearn'"),
    ('flash', 'cuda', ImportError, r"pip install 'mmspt\[gpu\]', or set backend='torch'"),
    ('gpu', 'cpu', ValueError, r"one of \('auto', 'sklearn', 'flash', 'torch'\), got 'gpu'"),
])
def test_backends_that_cannot_work(monkeypatch, backend, device, error, message):
    monkeypatch.setitem(sys.modules, 'flash_kmeans', None)
    with pytest.raises(error, match=message):
        choose_backend(backend, torch.device(device))


def test_threads_are_limited(monkeypatch):
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 3)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {0, 2, 5, 6}, raising=False)
    assert num_threads() == 3
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {4})
    assert num_threads() == 1


def test_flash_does_the_iterations(monkeypatch):
    """All layers in one call, whose bound is so tight that one more iteration in full precision is enough."""
    calls = []
    monkeypatch.setitem(sys.modules, 'flash_kmeans', fake_flash(calls))
    points = torch.stack([standardize(torch.randn(300, 4, generator=rng(i))) for i in range(3)])
    _, iterations, total = flash(points, points[:, :5].clone(), 50, 1e-4)
    assert calls == [dict(shape=(3, 300, 4), max_iters=49, tol=pytest.approx((1e-4 / 5)**0.5))]
    expected = [KMeans(5, init=x[:5].numpy(), n_init=1).fit(x.numpy()).inertia_ for x in points]
    assert total.tolist() == pytest.approx(expected, rel=0.01)
    assert len(set(iterations.tolist())) == 1 and max(iterations) < 50
    calls.clear()
    assert flash(points, points[:, :5].clone(), 1, 0.)[1].tolist() == [1] * 3 and calls == []


def test_flash_that_fails(monkeypatch):
    def broken(*args, **kwargs):
        raise AssertionError('out of resource: shared memory')

    monkeypatch.setitem(sys.modules, 'flash_kmeans', types.SimpleNamespace(batch_kmeans_Euclid=broken))
    with pytest.raises(RuntimeError, match=r"out of resource: shared memory.*set the initializer's backend='torch'"):
        kmeans(make_layers(), 4, rng(), backend='flash')
