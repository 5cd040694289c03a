"""K-means against scikit-learn's own, and against blobs whose centres are known."""
import warnings

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from mmspt.prompts import KMeansInit
from mmspt.prompts.clustering import SEEDING_POINTS_PER_CENTRE, kmeans


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


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


@pytest.mark.parametrize('seed', range(5))
def test_separated_blobs(seed):
    points, means = make_blobs()
    centres = kmeans(points, len(means), rng(seed)).double()
    centres, means = centres[centres[:, 0].argsort()], means[means[:, 0].argsort()]
    torch.testing.assert_close(centres, means, rtol=0, atol=1e-4)


@pytest.mark.parametrize('num_centres', [5, 20])
def test_inertia_of_scikit_learn(num_centres):
    points = torch.from_numpy(load_digits().data.astype(np.float32))
    expected = KMeans(num_centres, n_init=1, random_state=0).fit(points.numpy()).inertia_
    centres = kmeans(points, num_centres, rng())
    assert centres.shape == (num_centres, 64) and centres.dtype == torch.float32
    assert inertia(points, centres) <= 1.02 * expected


def test_seeding_on_a_subsample():
    """More tokens than the seeding looks at."""
    points = torch.randn(3 * SEEDING_POINTS_PER_CENTRE * 4, 4, generator=rng(1))
    expected = KMeans(4, n_init=3, random_state=0).fit(points.numpy()).inertia_
    assert inertia(points, kmeans(points, 4, rng())) <= 1.02 * expected


def test_centres_are_a_fixed_point():
    """Each centre is the mean of the tokens nearest to it."""
    points = torch.randn(300, 3, generator=rng(2))
    centres = kmeans(points, 6, rng(), max_iter=1000)
    nearest = torch.cdist(points, centres).argmin(dim=1)
    means = torch.stack([points[nearest == k].mean(dim=0) for k in range(6)])
    torch.testing.assert_close(centres, means, rtol=0, atol=0.02)


def test_more_iterations_do_not_hurt():
    points = torch.randn(2000, 8, generator=rng(3))
    one, many = (inertia(points, kmeans(points, 20, rng(), max_iter=n)) for n in (1, 100))
    assert many < one


def test_seed_decides():
    points = torch.randn(400, 8, generator=rng(4))
    torch.testing.assert_close(kmeans(points, 10, rng(1)), kmeans(points, 10, rng(1)), rtol=0, atol=0)
    assert not torch.allclose(kmeans(points, 10, rng(1)).sort(dim=0).values,
                              kmeans(points, 10, rng(2)).sort(dim=0).values)


def test_as_many_centres_as_tokens():
    points = torch.randn(7, 3, generator=rng(5))
    centres = kmeans(points, 7, rng())
    torch.testing.assert_close(centres[centres[:, 0].argsort()], points[points[:, 0].argsort()])


def test_duplicates_are_no_warning():
    points = torch.eye(3).repeat(5, 1)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        centres = kmeans(points, 6, rng())
    assert centres.shape == (6, 3)
    assert inertia(points, centres) == pytest.approx(0, abs=1e-6)


def test_initializer_runs_it_layer_by_layer():
    points, means = make_blobs()
    prompts = KMeansInit().fill([points, points + 1], (2, len(means), 5), (8, 8), rng()).double()
    order = prompts[:, :, 0].argsort(dim=1)[..., None].expand_as(prompts)
    expected = means[means[:, 0].argsort()]
    torch.testing.assert_close(prompts.gather(1, order), torch.stack([expected, expected + 1]), rtol=0, atol=1e-4)
