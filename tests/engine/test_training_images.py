"""Images for the prototypes: the same items whatever loads them."""
import random

import numpy as np
import pytest
import torch
from mmengine import dist
from mmpretrain.models import ClsDataPreprocessor

from helpers import rng_states
from mmspt.datasets import Digits
from mmspt.engine.training_images import SeededImages, choose_images, iterate_images, seeded, share

AUGMENTED = [
    dict(type='RandomResizedCrop', scale=16, crop_ratio_range=(0.3, 1.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ColorJitter', brightness=0.4),
    dict(type='PackInputs'),
]
PLAIN = [dict(type='Resize', scale=12), dict(type='PackInputs')]


@pytest.fixture(scope='module')
def digits():
    return Digits(split='train', images_per_class=2, pipeline=AUGMENTED, serialize_data=False)


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.mark.parametrize('seed', [0, 2**63 - 1, None])
def test_seeded_decides_and_restores(seed):
    """After an error, too; None leaves the numbers as they would have come."""
    draws = []
    for _ in range(2):
        draw()
        states = rng_states()
        with pytest.raises(KeyError), seeded(seed):
            draws.append(draw())
            raise KeyError
        assert rng_states() == states
    assert (draws[0] == draws[1]) == (seed is not None)


@pytest.mark.parametrize('seed', [None, 3])
def test_seeded_leaves_gpus(monkeypatch, seed):
    """``torch.manual_seed`` seeds every GPU as well, and nothing would put those back."""
    seeds = []
    monkeypatch.setattr(torch.cuda, '_is_in_bad_fork', lambda: False)
    for name in ('manual_seed', 'manual_seed_all'):
        monkeypatch.setattr(torch.cuda, name, seeds.append)
    with seeded(seed):
        draw()
    assert seeds == []


def test_choice_depends_on_the_seed_alone():
    states = rng_states()
    chosen = choose_images(40, 100, seed=1)
    assert len(set(chosen)) == 40 and set(chosen) <= set(range(100))
    assert choose_images(100, 100, seed=1) == choose_images(5000, 100, seed=1) == list(range(100))
    assert choose_images(40, 100, seed=1) == choose_images(40, 100, seed=1)
    assert choose_images(40, 100, seed=1) != choose_images(40, 100, seed=2)
    assert rng_states() == states


@pytest.mark.parametrize('num_items, world_size', [(0, 2), (1, 4), (8, 3), (64, 8)])
def test_shares_make_the_whole(monkeypatch, num_items, world_size):
    items, parts = list(range(100, 100 + num_items)), []
    for rank in range(world_size):
        monkeypatch.setattr(dist, 'get_dist_info', lambda group=None, rank=rank: (rank, world_size))
        parts.append(share(items))
    assert [item for part in parts for item in part] == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def load_all(dataset, order, batch_size, num_workers, seed=0):
    """The images that come, by their index in the data set."""
    identity = ClsDataPreprocessor()
    pairs = iterate_images(SeededImages(dataset, order, seed), identity, batch_size, num_workers)
    return {index: image for indices, images in pairs for index, image in zip(indices, images, strict=True)}


@pytest.mark.parametrize(('order', 'batch_size', 'num_workers'), [
    (range(8), 1, 0), ([5, 3, 7, 1, 0, 2, 6, 4], 3, 2), ([2, 5], 8, 0)])
def test_order_batch_size_and_workers_do_not_matter(digits, order, batch_size, num_workers):
    states = rng_states()
    expected, images = load_all(digits, range(8), 4, 0), load_all(digits, order, batch_size, num_workers)
    assert rng_states() == states
    assert list(images) == list(order)
    assert all(torch.equal(image, expected[index]) for index, image in images.items())


def test_seed_and_index_decide_the_augmentation(digits):
    class OneImage:
        """The same image under every index."""

        def __getitem__(self, index):
            return digits[0]

    first, second = (SeededImages(OneImage(), [0, 1], seed)[position]['inputs']
                     for seed, position in [(0, 0), (0, 1)])
    other = SeededImages(OneImage(), [0, 1], 1)[0]['inputs']
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


def test_images_are_normalized(digits):
    images = SeededImages(digits, [3, 1], 0, PLAIN)
    preprocessor = ClsDataPreprocessor(mean=[10., 20., 30.], std=[2., 4., 8.])
    indices, batch = next(iterate_images(images, preprocessor, 2, 0))
    raw = torch.stack([images[0]['inputs'], images[1]['inputs']]).double()
    expected = (raw - torch.tensor([10., 20., 30.])[:, None, None]) / torch.tensor([2., 4., 8.])[:, None, None]
    assert indices == [3, 1] and len(images) == 2
    assert raw.shape == (2, 3, 12, 12) and digits[3]['inputs'].shape == (3, 16, 16), "in place of the data set's"
    torch.testing.assert_close(batch.double(), expected)


def test_own_pipeline_needs_one_to_replace():
    with pytest.raises(ValueError, match=r'needs a data set with a pipeline, got list: leave pipeline=None'):
        SeededImages([1, 2], [0], 0, PLAIN)
