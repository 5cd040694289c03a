"""Images for the prototypes: the same items whatever loads them."""
import random

import numpy as np
import pytest
import torch
from mmengine import dist
from mmpretrain.models import ClsDataPreprocessor

from mmspt.datasets import Digits
from mmspt.engine.token_loader import SeededImages, choose_images, iterate_images, seeded, share

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


def set_rank(monkeypatch, rank, world_size):
    monkeypatch.setattr(dist, 'get_dist_info', lambda group=None: (rank, world_size))


def rng_states():
    """Python's, NumPy's and torch's generator states as values that compare with ==."""
    name, keys, *rest = np.random.get_state()
    return random.getstate(), (name, keys.tolist(), *rest), torch.get_rng_state().tolist()


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


# ---------------------------------------------------------------------------------------------- seeded


@pytest.mark.parametrize('seed', [0, 2**32 + 3, 2**63 - 1])
def test_seeded_decides_and_restores(seed):
    draw()
    before = rng_states()
    draws = []
    for _ in range(2):
        with seeded(seed):
            draws.append(draw())
    assert draws[0] == draws[1]
    assert rng_states() == before


def test_seeded_without_a_seed_leaves_the_generators():
    states = rng_states()
    with seeded():
        assert rng_states() == states
        draw()
    assert rng_states() == states


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


def test_seeded_restores_after_an_error():
    states = rng_states()
    with pytest.raises(KeyError), seeded(3):
        raise KeyError
    assert rng_states() == states


# ---------------------------------------------------------------------------------------------- which images


@pytest.mark.parametrize('num_images', [100, 101, 5000])
def test_all_images_in_order(num_images):
    assert choose_images(num_images, 100, seed=0) == list(range(100))


@pytest.mark.parametrize('num_images', [1, 40, 99])
def test_chosen_images_are_distinct(num_images):
    chosen = choose_images(num_images, 100, seed=0)
    assert len(set(chosen)) == len(chosen) == num_images
    assert set(chosen) <= set(range(100))


def test_choice_depends_on_the_seed_alone():
    states = rng_states()
    assert choose_images(40, 100, seed=1) == choose_images(40, 100, seed=1)
    assert choose_images(40, 100, seed=1) != choose_images(40, 100, seed=2)
    assert rng_states() == states


def test_choice_is_uniform():
    counts = np.bincount([i for seed in range(2000) for i in choose_images(4, 16, seed)], minlength=16)
    # 15 degrees of freedom: 37.7 is passed once in 1,000 (and less often without replacement)
    assert ((counts - 500)**2 / 500).sum() < 37.7


@pytest.mark.parametrize('num_items, world_size', [(0, 2), (1, 1), (1, 4), (7, 2), (8, 3), (9, 8), (64, 8)])
def test_shares_make_the_whole(monkeypatch, num_items, world_size):
    items, parts = list(range(100, 100 + num_items)), []
    for rank in range(world_size):
        set_rank(monkeypatch, rank, world_size)
        parts.append(share(items))
    assert [item for part in parts for item in part] == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


# ---------------------------------------------------------------------------------------------- their augmentation


def load_all(dataset, order, batch_size, num_workers, seed=0):
    """The images that come, by their index in the data set."""
    identity = ClsDataPreprocessor()
    pairs = iterate_images(SeededImages(dataset, order, seed), identity, batch_size, num_workers)
    return {index: image for indices, images in pairs for index, image in zip(indices, images, strict=True)}


@pytest.mark.parametrize('order', [range(8), [5, 3, 7, 1, 0, 2, 6, 4], [2, 5]], ids=['forward', 'mixed', 'few'])
@pytest.mark.parametrize('batch_size', [1, 3, 8])
def test_order_and_batch_size_do_not_matter(digits, order, batch_size):
    draw()
    expected, images = load_all(digits, range(8), 4, 0), load_all(digits, order, batch_size, 0)
    assert list(images) == list(order)
    assert all(torch.equal(image, expected[index]) for index, image in images.items())


def test_workers_do_not_matter(digits):
    expected, images = load_all(digits, range(8), 4, 0), load_all(digits, range(8), 3, 2)
    assert list(images) == list(range(8))
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


@pytest.mark.parametrize('num_workers', [0, 2])
def test_generators_are_left_alone(digits, num_workers):
    states = rng_states()
    load_all(digits, range(4), 2, num_workers)
    assert rng_states() == states


def test_generators_are_left_alone_while_iterating(digits):
    states = rng_states()
    for _ in iterate_images(SeededImages(digits, range(4), 0), ClsDataPreprocessor(), 2, 0):
        assert rng_states() == states


def test_images_are_normalized(digits):
    images = SeededImages(digits, [3, 1], 0, PLAIN)
    preprocessor = ClsDataPreprocessor(mean=[10., 20., 30.], std=[2., 4., 8.])
    indices, batch = next(iterate_images(images, preprocessor, 2, 0))
    raw = torch.stack([images[0]['inputs'], images[1]['inputs']]).double()
    expected = (raw - torch.tensor([10., 20., 30.])[:, None, None]) / torch.tensor([2., 4., 8.])[:, None, None]
    assert indices == [3, 1]
    torch.testing.assert_close(batch.double(), expected)


def test_own_pipeline_replaces_the_data_sets(digits):
    images = SeededImages(digits, [3, 1], 0, PLAIN)
    assert len(images) == 2
    assert images[0]['inputs'].shape == (3, 12, 12) and images[0]['prompt_index'] == 3
    assert digits[3]['inputs'].shape == (3, 16, 16)


def test_own_pipeline_is_deterministic_if_it_says_so(digits):
    first, second = (SeededImages(digits, [3], seed, PLAIN)[0]['inputs'] for seed in (0, 1))
    assert torch.equal(first, second)


def test_own_pipeline_needs_one_to_replace():
    with pytest.raises(ValueError, match=r'needs a data set with a pipeline, got list: leave pipeline=None'):
        SeededImages([1, 2], [0], 0, PLAIN)
