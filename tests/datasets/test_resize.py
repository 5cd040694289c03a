"""Resizing by torch gives Pillow's pixels, and the transforms MMPretrain's results but for the rounding."""
import mmpretrain.datasets
import numpy as np
import pytest
import torch
from mmcv.transforms import RandomFlip
from mmcv.transforms import Resize as MMCVResize
from mmengine.dataset import Compose
from PIL import Image
from sklearn.datasets import load_sample_images

from mmspt.datasets import PackInputs, RandomResizedCrop, Resize, ResizeEdge
from mmspt.datasets.resize import resize

PHOTOGRAPHS = load_sample_images().images  # two of (427, 640, 3)
FILTERS = dict(bicubic=Image.Resampling.BICUBIC, bilinear=Image.Resampling.BILINEAR)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize('size', [(224, 224), (341, 256), (900, 700), (64, 300)], ids=str)
@pytest.mark.parametrize('interpolation', FILTERS)
@pytest.mark.parametrize('image', [*PHOTOGRAPHS, noise(90, 70, 3), noise(90, 70), noise(90, 70, 4)],
                         ids=['china', 'flower', 'noise', 'grey', 'four channels'])
def test_pillows_pixels(image, interpolation, size):
    """Larger, smaller, squeezed: 2/255 at most, 0.02/255 in the mean."""
    found = resize(image, size, interpolation)
    expected = np.array(Image.fromarray(image).resize(size, FILTERS[interpolation]))
    if image.shape[2:] == (4, ):  # Pillow weights colours by alpha, so channel by channel
        expected = np.dstack([Image.fromarray(image[..., i]).resize(size, FILTERS[interpolation]) for i in range(4)])
    assert found.dtype == np.uint8 and found.shape == expected.shape
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 2 and difference.mean() < 0.02


@pytest.mark.parametrize('view', [
    lambda image: image[::-1, ::-1], lambda image: image[5:60, 7:69], lambda image: image[..., ::-1],
    lambda image: np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0)])
@pytest.mark.parametrize('writeable', [True, False])
def test_any_array(view, writeable, recwarn):
    image = view(noise(90, 70, 3))
    image.flags.writeable = writeable
    before = image.copy()
    np.testing.assert_array_equal(resize(image, (32, 24)), resize(before, (32, 24)))
    np.testing.assert_array_equal(image, before)
    assert not recwarn.list


def test_nothing_to_do():
    image = noise(90, 70, 3)
    assert resize(image, (70, 90)) is image and resize(image, [90, 70]).shape == (70, 90, 3)


def test_float_images():
    """As uint8, without the rounding."""
    image = PHOTOGRAPHS[0]
    found = resize(image.astype(np.float32), (64, 48), 'bilinear')
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, resize(image, (64, 48), 'bilinear'), atol=1.5)


STOCK = {RandomResizedCrop: mmpretrain.datasets.RandomResizedCrop, ResizeEdge: mmpretrain.datasets.ResizeEdge,
         Resize: MMCVResize}
CASES = [
    (RandomResizedCrop, dict(scale=224)), (RandomResizedCrop, dict(scale=(32, 48), crop_ratio_range=(0.2, 0.5))),
    (RandomResizedCrop, dict(scale=32, aspect_ratio_range=(8., 9.))),  # falls back to the centre
    (ResizeEdge, dict(scale=256)), (ResizeEdge, dict(scale=100, edge='width')), (Resize, dict(scale=(40, 24))),
    (Resize, dict(scale=(40, 24), keep_ratio=True)), (Resize, dict(scale_factor=0.3))]


@pytest.mark.parametrize(('kind', 'arguments'), CASES, ids=str)
@pytest.mark.parametrize('interpolation', FILTERS)
def test_transforms_do_as_the_hosts(kind, arguments, interpolation):
    """The same draws, keys and values, and pixels within 2/255 of those by Pillow."""
    ours = kind(**arguments, backend='torch', interpolation=interpolation)
    theirs = STOCK[kind](**arguments, backend='pillow', interpolation=interpolation)
    for seed, image in enumerate(PHOTOGRAPHS * 3):
        found, expected = {}, {}
        for transform, results in ((ours, found), (theirs, expected)):
            np.random.seed(seed)
            results.update(transform(dict(img=image.copy(), img_shape=image.shape[:2], kept=1)), after=np.random.rand())
        difference = np.abs(found.pop('img').astype(int) - expected.pop('img'))
        assert difference.max() <= 2 and difference.mean() < 0.02
        assert found == expected


@pytest.mark.parametrize('kind', STOCK)
@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_other_backends_are_the_hosts(kind, backend):
    """Without ``backend='torch'`` nothing differs, so that a name found in our scope first changes no run."""
    found = []
    for transform in (kind, STOCK[kind]):
        np.random.seed(0)
        options = {} if backend == 'cv2' else dict(backend=backend, interpolation='lanczos')
        found.append(transform(scale=50, **options)(dict(img=PHOTOGRAPHS[0])))
    np.testing.assert_array_equal(found[0].pop('img'), found[1].pop('img'))
    assert found[0] == found[1]


@pytest.mark.parametrize('kind', STOCK)
def test_unknown_interpolation(kind):
    with pytest.raises(ValueError, match=r"needs interpolation bilinear or bicubic, got 'area': choose .*'pillow'"):
        kind(scale=32, backend='torch', interpolation='area')


@pytest.mark.parametrize('image', [noise(8, 9, 3), noise(8, 9), noise(8, 9, 1), noise(8, 9, 4),
                                   noise(8, 9, 3).astype(np.float32), torch.ones(3, 4, 5), Image.fromarray(
                                       noise(8, 9, 3))], ids=lambda image: type(image).__name__)
@pytest.mark.parametrize('direction', [None, 'horizontal', 'vertical', 'diagonal'])
def test_packing_is_the_hosts(image, direction):
    if direction and isinstance(image, np.ndarray):
        image = RandomFlip(prob=1., direction=direction)(dict(img=image))['img']
    found, expected = (kind(meta_keys=('flip', ))(dict(img=image, gt_label=2, flip=True))
                       for kind in (PackInputs, mmpretrain.datasets.PackInputs))
    assert found['inputs'].dtype == expected['inputs'].dtype
    assert found['inputs'].is_contiguous() == expected['inputs'].is_contiguous()
    assert torch.equal(found['inputs'], expected['inputs'])
    assert found['data_samples'].gt_label == 2 and found['data_samples'].flip


def test_among_transforms_of_others():
    """Arrays like MMPretrain's: OpenCV, flips and colours take them."""
    steps = [dict(type='mmspt.RandomResizedCrop', scale=32, backend='torch'), dict(type='RandomFlip', prob=1.),
             dict(type='ColorJitter', brightness=0.3, hue=0.1), dict(type='RandomErasing', erase_prob=1.),
             dict(type='Rotate', angle=30.), dict(type='mmspt.PackInputs')]
    assert Compose(steps)(dict(img=PHOTOGRAPHS[0], gt_label=1))['inputs'].shape == (3, 32, 32)
