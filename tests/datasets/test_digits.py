"""The digits data set against scikit-learn's arrays."""
import numpy as np
import pytest
from sklearn.datasets import load_digits

from mmspt.datasets import Digits

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


def test_splits_are_disjoint_complete_and_always_the_same():
    state = np.random.get_state()[1].tolist()
    indices = {split: sources(make(split)) for split in SIZES}
    assert np.random.get_state()[1].tolist() == state
    assert {split: len(found) for split, found in indices.items()} == SIZES
    assert sorted(index for found in indices.values() for index in found) == list(range(1797))
    np.random.seed(123)
    assert sources(make('train')) == indices['train']


def test_items_are_scikit_learns_and_stratified():
    digits, dataset = load_digits(), make('val')
    for source, item in zip(sources(dataset), items(dataset), strict=True):
        assert item['img'].shape == (8, 8, 3) and item['img'].dtype == np.uint8
        np.testing.assert_allclose(item['img'], np.repeat(digits.images[source][..., None], 3, 2) * 255 / 16, atol=0.5)
        assert item['gt_label'] == digits.target[source]
    overall = np.bincount(digits.target) / 1797
    labels = dataset.get_gt_labels()
    np.testing.assert_allclose(np.bincount(labels, minlength=10) / len(labels), overall, atol=0.005)


@pytest.mark.parametrize('split, images_per_class', [('train', 1), ('val', 29)])
def test_images_per_class(split, images_per_class):
    few = make(split, images_per_class=images_per_class)
    assert np.bincount(few.get_gt_labels()).tolist() == [images_per_class] * 10
    assert set(sources(few)) <= set(sources(make(split)))


@pytest.mark.parametrize(('options', 'message'), [
    (dict(split='training'), "must be 'train', 'val' or 'test', got 'training'"),
    (dict(split='val', images_per_class=30), r"must lie in 1..29, the smallest class of 'val', got 30")])
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
