"""Errors about image files name the file and a remedy."""
import numpy as np
import pytest
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from PIL import Image

from mmspt.datasets import LoadImageFromFile
from mmspt.registry import TRANSFORMS


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize('registry', [TRANSFORMS, MMENGINE_TRANSFORMS], ids=['mmspt', 'mmengine'])
def test_good_png(tmp_path, pixels, registry):
    Image.fromarray(pixels).save(tmp_path / 'good.png')
    transform = registry.build(dict(type='mmspt.LoadImageFromFile'))
    results = transform(dict(img_path=str(tmp_path / 'good.png'), gt_label=3))
    assert type(transform) is LoadImageFromFile
    np.testing.assert_array_equal(results['img'], pixels[..., ::-1])  # OpenCV's BGR, as in MMCV
    assert results['img_shape'] == results['ori_shape'] == (5, 7)
    assert results['gt_label'] == 3


def test_options_reach_mmcv(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / 'good.png')
    results = LoadImageFromFile(to_float32=True, imdecode_backend='pillow')(dict(img_path=str(tmp_path / 'good.png')))
    assert results['img'].dtype == np.float32
    np.testing.assert_array_equal(results['img'], pixels[..., ::-1])


def write_nothing(path, pixels):
    assert not path.exists()


def write_empty(path, pixels):
    path.write_bytes(b'')


def write_garbage(path, pixels):
    path.write_bytes(b'<html>404 Not Found</html>' * 9)


def write_folder(path, pixels):
    path.mkdir()


def write_header_alone(path, pixels):
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:20])


BROKEN = [write_nothing, write_empty, write_garbage, write_folder, write_header_alone]


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize('write', BROKEN)
def test_broken_file(tmp_path, pixels, write, backend):
    path = tmp_path / 'broken.png'
    write(path, pixels)
    with pytest.raises(ValueError, match=rf"must be readable, but '{path}' is not .*fetch it again, or take it off"):
        LoadImageFromFile(imdecode_backend=backend)(dict(img_path=str(path)))


@pytest.mark.parametrize('write', [write_nothing, write_empty])
def test_cause_is_kept(tmp_path, pixels, write):
    write(tmp_path / 'broken.png', pixels)
    with pytest.raises(ValueError, match='readable') as raised:
        LoadImageFromFile()(dict(img_path=str(tmp_path / 'broken.png')))
    assert type(raised.value.__cause__).__name__ in str(raised.value)


def test_ignore_empty_is_mmcvs(tmp_path):
    assert LoadImageFromFile(ignore_empty=True)(dict(img_path=str(tmp_path / 'absent.png'))) is None
