"""Findings about splits made by hand, and about images damaged by hand."""
import io
import struct
import threading
import zlib

import mmcv
import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from mmspt.datasets.audit import pixels
from mmspt.datasets.audit.findings import (
    Split,
    check_duplicates,
    check_labels,
    check_missing,
    check_overlap,
    check_readable,
    check_size,
    same_images,
    summarize,
)
from mmspt.datasets.audit.pixels import Decoded, decode, decode_all


def split(labels, name='train', **kwargs):
    """Images named by their places."""
    return Split(name, [(f'{name}/{i}.jpg', label) for i, label in enumerate(labels)], **kwargs)


@pytest.mark.parametrize(('labels', 'classes', 'texts'), [
    ([0, 1, 2], 3, []),
    ([0, 1, 2], None, []),
    ([], 3, []),
    ([1, 2, 3], 3, ['labels run 1..3: they must start at 0']),
    ([0, 1, 3], 3, ['labels run 0..3, but must lie in 0..2: 1 of 3 do not']),
    ([-1, 0, 1, 2], 3, ['labels run -1..2, but must lie in 0..2: 1 of 4 do not']),
    ([1, 2], 3, ['1 of 3 classes have no image: 0']),
    ([0], 9, ['8 of 9 classes have no image: 1, 2, 3, 4, 5, ...']),
])
def test_labels(labels, classes, texts):
    assert [finding.text for finding in check_labels(split(labels, num_classes=classes))] == texts


@pytest.mark.parametrize('every_class', [True, False])
def test_empty_class_is_a_fault_or_a_note(every_class):
    finding, = check_labels(split([0], num_classes=2, every_class=every_class))
    assert finding.note != every_class and bool(finding.remedy) == every_class


def test_files_of_wrong_labels():
    finding, = check_labels(split([0, 5, 1, -2], num_classes=2))
    assert finding.files == ['train/1.jpg', 'train/3.jpg']


@pytest.mark.parametrize(('size', 'texts'), [
    (None, []), (2, []), (5394, ['2 images are listed, the published split has 5,394'])])
def test_size(size, texts):
    assert [finding.text for finding in check_size(split([0, 1], size=size))] == texts


def test_missing_and_unreadable():
    three = split([0, 0, 0])
    missing, = check_missing(three, {'train/1.jpg'}, 'unpack it')
    assert missing == ('train', '1 of 3 listed images are missing', 'unpack it', ['train/1.jpg'], False)
    broken, = check_readable(three, {'train/2.jpg': Decoded(error='OSError: truncated'), 'train/0.jpg': Decoded('a')})
    assert broken.text == '1 of 3 images cannot be read' and broken.files == ['train/2.jpg (OSError: truncated)']


def test_overlap_of_each_pair():
    splits = [split([0, 1], 'train'), split([0, 1], 'val'), split([0, 1], 'test')]
    keys = {'train/0.jpg': 'a', 'train/1.jpg': 'b', 'val/0.jpg': 'c', 'val/1.jpg': 'a', 'test/0.jpg': 'b',
            'test/1.jpg': 'c'}
    found = {finding.split: finding for finding in check_overlap(splits, keys)}
    assert found['train/val'].text == "1 of 2 images of 'val' are in 'train' too, 1 with another label"
    assert found['train/val'].files == ['val/1.jpg = train/0.jpg']
    assert found['train/test'].text == "1 of 2 images of 'test' are in 'train' too, 1 with another label"
    assert found['val/test'].files == ['test/1.jpg = val/0.jpg'] and len(found) == 3
    assert not any(finding.note for finding in found.values())
    assert all(finding.note for finding in check_overlap(splits, keys, known=True))


def test_no_overlap_without_keys():
    """Images that could not be decoded have none, and are not all the same for that."""
    assert not list(check_overlap([split([0], 'train'), split([0], 'test')], {}))


def test_duplicates_are_a_note():
    finding, = check_duplicates(split([0, 0, 0, 0]), {f'train/{i}.jpg': key for i, key in enumerate('abab')})
    assert finding.note and finding.text == '2 images come more than once'
    assert finding.files == ['train/2.jpg = train/0.jpg', 'train/3.jpg = train/1.jpg']


@pytest.mark.parametrize(('whole', 'text'), [
    ('ab', None), ('ba', None), ('ac', '1 are in none of them and 1 of theirs'), ('a', '0 are in none of them and 1')])
def test_union(whole, text):
    union = Split('trainval', [(f'other/{key}.jpg', 0) for key in whole])
    parts = [Split('train', [('a.jpg', 0)]), Split('val', [('b.jpg', 0)])]
    keys = {f'other/{key}.jpg': key for key in 'abc'} | {'a.jpg': 'a', 'b.jpg': 'b'}
    findings = list(same_images(union, parts, keys))
    assert len(findings) == (text is not None) and all(text in finding.text for finding in findings)


def test_summary():
    row = summarize(split([1, 2, 2], num_classes=3, size=9), {'train/0.jpg': Decoded(error='x')}, {'train/1.jpg'})
    assert row == dict(split='train', images=2, expected=9, classes=2, expected_classes=3, labels=[1, 2], unreadable=1)
    assert summarize(split([]), None, set())['unreadable'] is summarize(split([]), None, set())['labels'] is None


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8))


def test_same_pixels_same_digest(picture, tmp_path):
    """Another format, other metadata, another compression; but not another pixel or another shape."""
    picture.save(tmp_path / 'a.png')
    note = PngImagePlugin.PngInfo()
    note.add_text('Author', 'someone')
    picture.save(tmp_path / 'b.png', pnginfo=note, compress_level=0)
    picture.save(tmp_path / 'c.bmp')
    changed = picture.copy()
    changed.putpixel((0, 0), (1, 2, 3))
    changed.save(tmp_path / 'd.png')
    Image.frombytes('RGB', (9, 7), picture.tobytes()).save(tmp_path / 'e.png')
    digests = [decode(str(tmp_path / name)).digest for name in ('a.png', 'b.png', 'c.bmp', 'd.png', 'e.png')]
    assert digests[0] == digests[1] == digests[2] is not None
    assert len(set(digests[2:])) == 3


def test_sixteen_bits_are_not_clipped(tmp_path):
    for name, value in (('a', 1000), ('b', 2000)):
        Image.fromarray(np.full((4, 4), value, dtype=np.uint16)).save(tmp_path / f'{name}.png')
    assert decode(str(tmp_path / 'a.png')).digest != decode(str(tmp_path / 'b.png')).digest


def bomb(path):
    """A PNG of a few bytes that claims 100,000 x 100,000 pixels."""
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    header = struct.pack('>IIBBBBB', 100_000, 100_000, 8, 2, 0, 0, 0)
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b'')) + chunk(
        b'IEND', b''))


def half(path, format):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path, format)
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.parametrize(('spoil', 'error'), [
    (lambda path: path.write_bytes(b''), 'UnidentifiedImageError: cannot identify image file'),
    (lambda path: path.write_text('<html>404</html>'), 'UnidentifiedImageError: cannot identify image file'),
    (lambda path: half(path, 'JPEG'), 'truncated'),
    (lambda path: half(path, 'PNG'), 'truncated'),
    (bomb, 'DecompressionBombError'),
    (lambda path: path.mkdir(), 'IsADirectoryError'),
])
@pytest.mark.parametrize('lenient', [False, True])
def test_unreadable(spoil, error, lenient, tmp_path, monkeypatch):
    """Also where another library has told Pillow to put up with truncated files."""
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', lenient)
    path = tmp_path / 'image.jpg'
    spoil(path)
    decoded = decode_all([str(path)])[str(path)]
    assert decoded.digest is None and error in decoded.error
    assert ImageFile.LOAD_TRUNCATED_IMAGES is lenient


def test_more_pixels_than_the_bound(picture, tmp_path, monkeypatch):
    picture.save(tmp_path / 'a.png')
    monkeypatch.setattr(pixels, 'MAX_PIXELS', 62)
    assert '7 x 9 pixels are over 62: a decompression bomb?' in decode(str(tmp_path / 'a.png')).error


def test_threads_decode_each_image_once(picture, tmp_path, monkeypatch):
    names = [str(tmp_path / f'{i}.png') for i in range(12)]
    for i, name in enumerate(names):
        picture.rotate(90 * (i % 4), expand=True).save(name)
    monkeypatch.setattr(pixels, 'BATCH', 5)
    calls, threads = [], set()

    def count():
        calls.append(1)
        threads.add(threading.get_ident())

    results = decode_all(names + names[:3], workers=3, on_image=count)
    assert list(results) == names and len(calls) == 12 and threads == {threading.get_ident()}
    assert len({decoded.digest for decoded in results.values()}) == 4
    assert results == decode_all(names, workers=1)


def test_what_training_cannot_decode(tmp_path):
    """Training decodes with OpenCV, which refuses a TIFF of 32-bit floats and gives a deep PNG 8 bits."""
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / 'a.tif')
    Image.fromarray(np.ones((4, 4), dtype=np.uint8)).save(tmp_path / 'b.tif')
    assert 'OpenCV, with which training decodes, cannot read TIFF of mode F' in decode(str(tmp_path / 'a.tif')).error
    assert decode(str(tmp_path / 'b.tif')).error is None


@pytest.mark.parametrize(('mode', 'format'), [(mode, format) for format, modes in dict(
    JPEG=('L', 'RGB', 'CMYK'), PNG=('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16')).items() for mode in modes])
def test_formats_that_opencv_need_not_check(mode, format):
    """It reads whatever Pillow writes in them."""
    file = io.BytesIO()
    Image.new(mode, (8, 8)).save(file, format)
    assert format in pixels.SURE and mmcv.imfrombytes(file.getvalue()).shape == (8, 8, 3)
