"""Findings about splits made by hand, and about images damaged by hand."""
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mmspt.datasets.audit.checks import (
    Source,
    Split,
    check_duplicates,
    check_labels,
    check_overlap,
    check_source,
    check_union,
    load,
)


def split(labels, name='train', **kwargs):
    """Images named by their places."""
    return Split(name, [(f'{name}/{i}.jpg', label) for i, label in enumerate(labels)], **kwargs)


@pytest.mark.parametrize(('labels', 'classes', 'texts'), [
    ([0, 1, 2], 3, []),
    ([0, 1, 2], None, []),
    ([1, 2, 3], 3, ['labels run 1..3: they must start at 0']),
    ([-1, 0, 1, 2], 3, ['labels run -1..2, but must lie in 0..2: 1 of 4 do not']),
    ([0], 9, ['8 of 9 classes have no image: 1, 2, 3, 4, 5, ...'])])
def test_labels(labels, classes, texts):
    assert [finding.text for finding in check_labels(split(labels, num_classes=classes))] == texts


@pytest.mark.parametrize('every_class', [True, False])
def test_empty_class_is_a_fault_or_a_note(every_class):
    finding, = check_labels(split([0], num_classes=2, every_class=every_class))
    assert finding.note != every_class and bool(finding.remedy) == every_class


def test_size_and_files_of_wrong_labels():
    size, labels = check_labels(split([0, 5, 1, -2], num_classes=2, size=5394))
    assert size.text == '4 images are listed, the published split has 5,394'
    assert labels.files == ['train/1.jpg', 'train/3.jpg']


def test_overlap_of_each_pair():
    splits = [split([0, 1], 'train'), split([0, 1], 'val'), split([0, 1], 'test')]
    digests = {'train/0.jpg': 'a', 'train/1.jpg': 'b', 'val/0.jpg': 'c', 'val/1.jpg': 'a', 'test/0.jpg': 'b',
               'test/1.jpg': 'c'}
    found = {finding.split: finding for finding in check_overlap(splits, digests)}
    assert found['train/val'].text == "1 of 2 images of 'val' are in 'train' too, 1 with another label"
    assert found['train/val'].files == ['val/1.jpg = train/0.jpg']
    assert found['train/test'].text == "1 of 2 images of 'test' are in 'train' too, 1 with another label"
    assert found['val/test'].files == ['test/1.jpg = val/0.jpg'] and len(found) == 3
    assert not any(finding.note for finding in found.values())
    assert all(finding.note for finding in check_overlap(splits, digests, known=True))
    assert not list(check_overlap(splits, {}))  # images that could not be decoded are not all the same


def test_duplicates_are_a_note():
    finding, = check_duplicates(split([0, 0, 0, 0]), {f'train/{i}.jpg': key for i, key in enumerate('abab')})
    assert finding.note and finding.text == '2 images come more than once'
    assert finding.files == ['train/2.jpg = train/0.jpg', 'train/3.jpg = train/1.jpg']


@pytest.mark.parametrize(('whole', 'text'), [
    ('ba', None), ('ac', '1 are in none of them and 1 of theirs'), ('a', '0 are in none of them and 1')])
def test_union(whole, text):
    union = Split('trainval', [(f'other/{key}.jpg', 0) for key in whole])
    parts = [Split('train', [('a.jpg', 0)]), Split('val', [('b.jpg', 0)])]
    digests = {f'other/{key}.jpg': key for key in 'abc'} | {'a.jpg': 'a', 'b.jpg': 'b'}
    findings = list(check_union(union, parts, digests))
    assert len(findings) == (text is not None) and all(text in finding.text for finding in findings)


def test_files_and_figures(tmp_path):
    """A good, a missing and an empty image of three that should be four."""
    Image.new('RGB', (4, 4)).save(tmp_path / '0.png')
    (tmp_path / '2.png').write_bytes(b'')
    calls = []
    part = Split('train', [(f'{tmp_path}/{i}.png', 1) for i in range(3)], 3, 4)
    report = check_source(Source('mine', [part], [], 'unpack it'), workers=2, on_image=lambda **key: calls.append(key))
    row, = report['splits']
    assert row == dict(split='train', images=2, expected=4, classes=1, expected_classes=3, labels=[1, 1], unreadable=1,
                       status='3 faults')
    faults = [finding for finding in report['findings'] if not finding['note']]
    assert faults[1] == dict(split='train', text='1 of 3 listed images are missing', remedy='unpack it',
                             files=[f'{tmp_path}/1.png'], note=False)
    assert faults[2]['files'] == [f'{tmp_path}/2.png (ValueError: the file is empty)']
    assert calls == [dict(completed=1, total=2), dict(completed=2, total=2)]
    quick, = check_source(Source('mine', [part], [], ''), decode=False)['splits']
    assert quick['unreadable'] is None and quick['status'] == '2 faults'


def test_same_pixels_same_digest(tmp_path):
    """Another format, other metadata, another compression; but not another pixel or another shape."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8))
    note = PngImagePlugin.PngInfo()
    note.add_text('Author', 'someone')
    picture.save(tmp_path / 'a.png')
    picture.save(tmp_path / 'b.png', pnginfo=note, compress_level=0)
    picture.save(tmp_path / 'c.bmp')
    changed = picture.copy()
    changed.putpixel((0, 0), (1, 2, 3))
    changed.save(tmp_path / 'd.png')
    Image.frombytes('RGB', (9, 7), picture.tobytes()).save(tmp_path / 'e.png')
    digests = [load(str(tmp_path / name))[1] for name in ('a.png', 'b.png', 'c.bmp', 'd.png', 'e.png')]
    assert digests[0] == digests[1] == digests[2] is not None
    assert len(set(digests[2:])) == 3
