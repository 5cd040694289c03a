"""Findings about splits made by hand, and about images damaged by hand."""
import numpy as np
import pytest
from PIL import Image

from mmspt.datasets.audit.checks import Source, Split, check_labels, check_overlap, check_source, load


def split(labels, name='train', **kwargs):
    """Images named by their places."""
    return Split(name, [(f'{name}/{i}.jpg', label) for i, label in enumerate(labels)], **kwargs)


@pytest.mark.parametrize(('labels', 'classes', 'texts'), [
    ([0, 1, 2], 3, []),
    ([0, 1, 2], None, []),
    ([-1, 0, 1, 2], 3, ['labels run -1..2, but must lie in 0..2: 1 of 4 do not']),
    ([0], 9, ['8 of 9 classes have no image: 1, 2, 3, 4, 5, ...'])])
def test_labels(labels, classes, texts):
    assert [finding.text for finding in check_labels(split(labels, num_classes=classes))] == texts


@pytest.mark.parametrize('every_class', [True, False])
def test_empty_class_is_a_fault_or_a_note(every_class):
    finding, = check_labels(split([0], num_classes=2, every_class=every_class))
    assert finding.note != every_class and bool(finding.remedy) == every_class


def test_overlap_of_each_pair():
    splits = [split([0, 1], 'train'), split([0, 1], 'val'), split([0, 1], 'test')]
    digests = {'train/0.jpg': 'a', 'train/1.jpg': 'b', 'val/0.jpg': 'c', 'val/1.jpg': 'a', 'test/0.jpg': 'b',
               'test/1.jpg': 'c'}
    found = {finding.split: finding for finding in check_overlap(splits, digests)}
    assert found['train/val'].text == "1 of 2 images of 'val' are in 'train' too, 1 with another label"
    assert found['train/val'].files == ['val/1.jpg = train/0.jpg']
    assert found['val/test'].files == ['test/1.jpg = val/0.jpg'] and len(found) == 3
    assert not any(finding.note for finding in found.values())
    assert all(finding.note for finding in check_overlap(splits, digests, known=True))
    assert not list(check_overlap(splits, {}))  # images that could not be decoded are not all the same


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
    assert faults[0]['text'] == '3 images are listed, the published split has 4'
    assert faults[1] == dict(split='train', text='1 of 3 listed images are missing', remedy='unpack it',
                             files=[f'{tmp_path}/1.png'], note=False)
    assert faults[2]['files'] == [f'{tmp_path}/2.png (ValueError: the file is empty)']
    assert calls == [dict(completed=1, total=2), dict(completed=2, total=2)]
    quick, = check_source(Source('mine', [part], [], ''), decode=False)['splits']
    assert quick['unreadable'] is None and quick['status'] == '2 faults'


def test_same_pixels_same_digest(tmp_path):
    """Another format or compression; but not another pixel or another shape."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8))
    picture.save(tmp_path / 'a.png')
    picture.save(tmp_path / 'b.png', compress_level=0)
    picture.save(tmp_path / 'c.bmp')
    Image.frombytes('RGB', (7, 9), picture.tobytes()[::-1]).save(tmp_path / 'd.png')
    Image.frombytes('RGB', (9, 7), picture.tobytes()).save(tmp_path / 'e.png')
    digests = [load(str(tmp_path / name))[1] for name in ('a.png', 'b.png', 'c.bmp', 'd.png', 'e.png')]
    assert digests[0] == digests[1] == digests[2] is not None
    assert len(set(digests[2:])) == 3
