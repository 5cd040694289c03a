"""What is a picture is read as 8-bit colour, whatever its format; what is damaged is an error that names the file."""
import io
import struct

import cv2
import numpy as np
import pytest
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from PIL import Image

from mmspt.datasets import LoadImageFromFile
from mmspt.datasets.image_checks import check_image


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_good_png(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / 'good.png')
    transform = MMENGINE_TRANSFORMS.build(dict(type='mmspt.LoadImageFromFile'))
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


def load(path, **kwargs):
    return LoadImageFromFile(**kwargs)(dict(img_path=str(path)))['img']


def smooth(height=40, width=56):
    """Colours that change slowly, so that JPEG changes them little; (H, W, 3)."""
    corners = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


RGB = Image.fromarray(smooth())
PALETTE = RGB.quantize(64)
CMYK = Image.fromarray(np.dstack([255 - smooth(), np.full((40, 56), 70, np.uint8)]), 'CMYK')
ALPHA = Image.fromarray(np.dstack([smooth(), np.arange(40 * 56).reshape(40, 56).astype(np.uint8)]))
PICTURES = {  # image, format, options of saving
    'grey': (RGB.convert('L'), 'PNG', {}),
    'grey with alpha': (ALPHA.convert('LA'), 'PNG', {}),
    'alpha': (ALPHA, 'PNG', {}),
    'palette, half-transparent colours': (PALETTE, 'PNG', dict(transparency=bytes(range(64)))),
    'cmyk jpeg': (CMYK, 'JPEG', dict(quality=95)),
    'webp': (RGB, 'WEBP', dict(lossless=True)),
}


@pytest.mark.parametrize('name', PICTURES)
def test_kinds_of_pictures(tmp_path, name):
    """Pillow's RGB, to the rounding of CMYK: its formula and OpenCV's differ by up to 2 of 255."""
    image, kind, options = PICTURES[name]
    (tmp_path / 'picture').write_bytes(encode(image, kind, **options))
    with Image.open(tmp_path / 'picture') as again:
        expected = np.array(again.convert('RGB'))[..., ::-1]
    loaded = load(tmp_path / 'picture')
    assert loaded.dtype == np.uint8 and loaded.shape == expected.shape
    np.testing.assert_allclose(loaded.astype(int), expected, atol=2 if 'cmyk' in name else 0)


@pytest.mark.parametrize(('kind', 'channels'), [('png', 1), ('png', 3), ('tiff', 1)])
def test_16_bits_are_scaled(tmp_path, kind, channels):
    """65,535 becomes 255 and 32,768 grey; clipped, all but the darkest 1/256 would be white."""
    deep = np.random.default_rng(0).integers(0, 2**16, (9, 7, channels), dtype=np.uint16)
    deep[0, :3] = np.array([0, 32768, 65535])[:, None]
    (tmp_path / 'deep').write_bytes(cv2.imencode(f'.{kind}', deep)[1].tobytes())
    loaded = load(tmp_path / 'deep')
    assert loaded.dtype == np.uint8 and loaded.shape == (9, 7, 3)
    np.testing.assert_allclose(loaded, np.broadcast_to(deep / 257, loaded.shape), atol=1)


@pytest.mark.parametrize('dtype', [np.int32, np.float32])
def test_32_bits_are_read_unchanged_or_not_at_all(tmp_path, dtype):
    deep = np.random.default_rng(0).integers(0, 2**30, (9, 7)).astype(dtype)
    (tmp_path / 'deep.tiff').write_bytes(encode(Image.fromarray(deep), 'TIFF'))
    with pytest.raises(ValueError, match='finds no image in it'):
        load(tmp_path / 'deep.tiff')
    unchanged = load(tmp_path / 'deep.tiff', color_type='unchanged')
    np.testing.assert_array_equal(unchanged.squeeze(), deep)


WHOLE_PNG = encode(Image.fromarray(smooth()), 'PNG')
BROKEN = {
    'nothing': None,
    'empty': b'',
    'garbage': b'<html>404 Not Found</html>' * 9,
    'header alone': WHOLE_PNG[:20],
    'damaged': WHOLE_PNG[:len(WHOLE_PNG) // 2] + b'?' + WHOLE_PNG[len(WHOLE_PNG) // 2 + 1:],
}


@pytest.mark.parametrize('kind', BROKEN)
def test_broken_file(tmp_path, kind):
    path = tmp_path / 'broken.png'
    if BROKEN[kind] is not None:
        path.write_bytes(BROKEN[kind])
    message = rf"must be readable, but '{path}' is not .*fetch it again, take it off"
    with pytest.raises(ValueError, match=message) as raised:
        load(path)
    assert type(raised.value.__cause__).__name__ in str(raised.value)


def test_ignore_empty_is_mmcvs(tmp_path):
    assert LoadImageFromFile(ignore_empty=True)(dict(img_path=str(tmp_path / 'absent.png'))) is None


def with_thumbnail(content):
    """Put a whole small JPEG, as cameras do, into a segment of another's header."""
    small = encode(Image.fromarray(smooth(8, 8)), 'JPEG')
    return content[:2] + b'\xff\xe1' + struct.pack('>H', 8 + len(small)) + b'Exif\0\0' + small + content[2:]


WHOLE = {  # JPEGs that end as they should
    'plain': encode(RGB, 'JPEG'),
    'progressive with thumbnail': with_thumbnail(encode(RGB, 'JPEG', progressive=True)),
    'restart markers': encode(RGB, 'JPEG', restart_marker_blocks=2),
    'cmyk': encode(CMYK, 'JPEG'),
}
TRAILERS = {
    'nothing': b'',
    'a start of a scan': b'\xff\xda junk',
    'half a second picture': encode(RGB, 'JPEG')[:-300],
}


@pytest.mark.parametrize(('name', 'after'), [
    ('plain', 'a start of a scan'), ('plain', 'half a second picture'), ('restart markers', 'nothing'),
    ('progressive with thumbnail', 'half a second picture'), ('cmyk', 'nothing')])
def test_whole_jpeg_is_read(tmp_path, name, after):
    """Thumbnails, other pictures and anything else after the end do not count."""
    (tmp_path / 'whole.jpg').write_bytes(WHOLE[name] + TRAILERS[after])
    with Image.open(io.BytesIO(WHOLE[name])) as image:
        expected = np.array(image.convert('RGB'))[..., ::-1]
    np.testing.assert_allclose(load(tmp_path / 'whole.jpg').astype(int), expected, atol=2)


@pytest.mark.parametrize(('name', 'keep'), [
    ('plain', 0.5), ('plain', 0.99), ('progressive with thumbnail', 0.99), ('restart markers', 0.5), ('cmyk', 0.99)])
def test_jpeg_that_is_cut_off(tmp_path, name, keep):
    """OpenCV 4 gives a half-grey picture for most of these, OpenCV 5 none: the check itself must see it."""
    header = WHOLE[name].rfind(b'\xff\xda')
    cut = WHOLE[name][:header + 14 + int(keep * (len(WHOLE[name]) - header - 16))]
    with pytest.raises(OSError, match='truncated'):
        check_image(cut)
    (tmp_path / 'cut.jpg').write_bytes(cut)
    with pytest.raises(ValueError, match=r"'.*cut\.jpg' is not \(OSError: image file is truncated"):
        load(tmp_path / 'cut.jpg')


@pytest.mark.parametrize('kind', ['PNG', 'WEBP', 'TIFF'])
def test_other_format_that_is_cut_off(tmp_path, kind):
    whole = encode(RGB, kind)
    (tmp_path / 'cut').write_bytes(whole[:int(0.8 * len(whole))])
    with pytest.raises(ValueError, match=r"'.*/cut' is not \(.*fetch it again"):
        load(tmp_path / 'cut')


def test_bound_on_pixels(tmp_path):
    """Pillow refuses over 178,956,970 before anything is decoded."""
    Image.new('1', (20_000, 9_000)).save(tmp_path / 'large.png')
    with pytest.raises(ValueError, match=r'DecompressionBombError: Image size \(180000000 pixels\)'):
        load(tmp_path / 'large.png')


@pytest.mark.parametrize(('min_edge', 'factor'), [(None, 1), (400, 1), (200, 2), (101, 2), (100, 4), (50, 8), (1, 8)])
@pytest.mark.parametrize('kind', ['plain', 'cmyk', 'turned', 'two pictures', 'png'])
def test_scaled_decoding(tmp_path, min_edge, factor, kind):
    """A JPEG's pixels are the means of the whole image's, as many at a time as the shorter edge allows."""
    large = Image.fromarray(cv2.resize(smooth(), (560, 400), interpolation=cv2.INTER_CUBIC))
    if kind == 'cmyk':
        large = Image.fromarray(np.dstack([255 - np.array(large), np.full((400, 560), 70, np.uint8)]), 'CMYK')
    turned = Image.Exif()
    turned[0x0112] = 6
    options = {'turned': dict(exif=turned), 'two pictures': dict(save_all=True, append_images=[RGB])}.get(kind, {})
    form = {'png': 'PNG', 'two pictures': 'MPO'}.get(kind, 'JPEG')
    (tmp_path / 'large').write_bytes(encode(large, form, **options))
    factor = 1 if kind == 'png' else factor
    whole = load(tmp_path / 'large')
    results = LoadImageFromFile(min_edge=min_edge)(dict(img_path=str(tmp_path / 'large')))
    height, width = (size // factor for size in whole.shape[:2])
    assert results['img'].shape == (height, width, 3) and (height > width) == (kind == 'turned')
    assert results['img_shape'] == results['ori_shape'] == (height, width)
    means = whole.reshape(height, factor, width, factor, 3).mean((1, 3))
    difference = np.abs(results['img'] - means)
    assert difference.mean() < 1 and difference.max() < 8


def test_scaled_images_are_cached_by_their_size(tmp_path):
    (tmp_path / 'large.jpg').write_bytes(encode(RGB.resize((560, 400)), 'JPEG'))
    shapes = [load(tmp_path / 'large.jpg', cache='disk', cache_folder=str(tmp_path), min_edge=edge).shape
              for edge in (None, 200, None, 100, 200)]
    assert [shape[0] for shape in shapes] == [400, 200, 400, 100, 200]


@pytest.mark.parametrize('options', [
    dict(min_edge=0), dict(min_edge=-1), dict(min_edge='8'), dict(min_edge=True),
    dict(min_edge=8, color_type='grayscale'), dict(min_edge=8, imdecode_backend='pillow')])
def test_scaled_decoding_of_something_else(options):
    with pytest.raises(ValueError, match=r'min_edge must be a positive number of pixels.*or leave min_edge out'):
        LoadImageFromFile(**options)
