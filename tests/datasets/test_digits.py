"""The digits data set against scikit-learn's arrays."""
import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from sklearn.datasets import load_digits

from mmspt.datasets import Digits
from mmspt.registry import DATASETS

SIZES = dict(train=997, val=300, test=500)


def make(split='train', **kwargs):
    return Digits(split=split, pipeline=[], serialize_data=False, **kwargs)


def items(dataset):
    return [dataset.get_data_info(i) for i in range(len(dataset))]


def sources(dataset):
    """Which of scikit-learn's images a data set holds, found by their pixels."""
    pixels = (load_digits().data * (255 / 16)).round().astype(np.uint8)
    lookup = {row.tobytes(): i for i, row in enumerate(pixels)}
    assert len(lookup) == 1797
    return [lookup[item['img'][..., 0].tobytes()] for item in items(dataset)]


@pytest.mark.parametrize('split, size', SIZES.items())
def test_sizes(split, size):
    assert len(make(split)) == size


def test_splits_are_disjoint_and_complete():
    indices = [i for split in SIZES for i in sources(make(split))]
    assert sorted(indices) == list(range(1797))


@pytest.mark.parametrize('split', SIZES)
def test_same_on_every_call(split):
    first = sources(make(split))
    np.random.seed(123)
    assert sources(make(split)) == first


def test_global_generator_is_left_alone():
    state = np.random.get_state()[1].tolist()
    make('train')
    assert np.random.get_state()[1].tolist() == state


@pytest.mark.parametrize('split', SIZES)
def test_split_is_stratified(split):
    labels = make(split).get_gt_labels()
    overall = np.bincount(load_digits().target) / 1797
    np.testing.assert_allclose(np.bincount(labels, minlength=10) / len(labels), overall, atol=0.005)


@pytest.mark.parametrize('split', SIZES)
def test_pixels_and_labels_are_scikit_learns(split):
    digits, dataset = load_digits(), make(split)
    for source, item in zip(sources(dataset), items(dataset), strict=True):
        assert item['img'].shape == (8, 8, 3) and item['img'].dtype == np.uint8
        np.testing.assert_allclose(item['img'], np.repeat(digits.images[source][..., None], 3, 2) * 255 / 16, atol=0.5)
        assert item['gt_label'] == digits.target[source]


def test_full_range_of_brightness():
    pixels = np.stack([item['img'] for item in items(make())])
    assert (pixels.min(), pixels.max()) == (0, 255)


@pytest.mark.parametrize('split, images_per_class', [('train', 1), ('train', 20), ('val', 29), ('test', 48)])
def test_images_per_class(split, images_per_class):
    few = make(split, images_per_class=images_per_class)
    assert np.bincount(few.get_gt_labels()).tolist() == [images_per_class] * 10
    assert set(sources(few)) <= set(sources(make(split)))


def test_more_images_per_class_add_to_fewer():
    assert set(sources(make(images_per_class=5))) < set(sources(make(images_per_class=6)))


@pytest.mark.parametrize('registry', [DATASETS, MMENGINE_DATASETS], ids=['mmspt', 'mmengine'])
def test_registry_and_pipeline(registry):
    pipeline = [dict(type='Resize', scale=16), dict(type='PackInputs')]
    dataset = registry.build(dict(type='mmspt.Digits', split='val', pipeline=pipeline))
    item = dataset[5]
    assert item['inputs'].shape == (3, 16, 16) and item['inputs'].dtype == torch.uint8
    assert item['data_samples'].gt_label.tolist() == [dataset.get_gt_labels()[5]]
    assert list(dataset.CLASSES) == [str(digit) for digit in range(10)]


@pytest.mark.parametrize('split', ['', 'training', None])
def test_unknown_split(split):
    with pytest.raises(ValueError, match=f"must be 'train', 'val' or 'test', got {split!r}"):
        make(split)


@pytest.mark.parametrize('images_per_class', [0, -3])
def test_images_per_class_below_one(images_per_class):
    with pytest.raises(ValueError, match=f'must be at least 1 or None, got {images_per_class}'):
        make(images_per_class=images_per_class)


def test_more_images_per_class_than_there_are():
    """The docstring: ValueError for 'fewer images than asked for' (the val split has 29 to 31 of each class)."""
    with pytest.raises(ValueError, match='1000'):
        make('val', images_per_class=1000)
