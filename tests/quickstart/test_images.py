"""A folder of images: read in every form that users have, split, thinned out, checked."""
import os
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mmspt.datasets.lists import DataError
from mmspt.quickstart.images import check_images, read_folder, thin_out

CLASSES = ('daisy', 'Red rose', 'tulip')


def draw(path, seed):
    """Write a photograph of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def make_folder(root, number, classes=CLASSES, first=0):
    """Write ``number`` images in each of some class folders; return the paths below ``root``."""
    for label, name in enumerate(classes):
        for i in range(number):
            draw(root / name / f'{i:03d}.png', first + 1000 * label + i)
    return root


def paths(images, split):
    return {path for path, _ in images.splits[split]}


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / 'flowers', 20)


def test_class_folders_are_split_by_hashes(folder):
    images = read_folder(str(folder))
    assert images.classes == ['Red rose', 'daisy', 'tulip']  # as MMPretrain's CustomDataset numbers them
    assert [images.count(split) for split in ('train', 'val', 'test')] == [38, 10, 12]
    assert len(paths(images, 'train') | paths(images, 'val') | paths(images, 'test')) == 60
    for items in images.splits.values():
        assert all(images.classes[label] == path.split('/')[0] for path, label in items)
        counts = Counter(label for _, label in items)
        assert max(counts.values()) - min(counts.values()) <= 1
    assert any('held out' in note for note in images.notes)
    draw(folder / 'tulip' / 'later.png', 7)  # what is added later moves a few images, not all
    again = read_folder(str(folder))
    assert len(paths(images, 'test') & paths(again, 'test')) >= 11


def test_the_same_split_elsewhere(folder, tmp_path):
    images = read_folder(str(folder))
    shutil.copytree(folder, tmp_path / 'copy')
    assert read_folder(str(tmp_path / 'copy')).splits == images.splits


@pytest.mark.parametrize('names', [('train', 'val', 'test'), ('training', 'validation', 'testing'), ('Train', 'valid')])
def test_folders_of_splits_are_taken_as_they_are(names, tmp_path):
    for place, name in enumerate(names):
        make_folder(tmp_path / name, 10 - place, first=100 * place)
    images = read_folder(str(tmp_path))
    assert len(images.splits['val']) == 27 and all(path.startswith(f'{names[1]}/') for path in paths(images, 'val'))
    if len(names) == 3:
        assert (images.count('train'), images.count('test'), images.notes) == (30, 24, [])
    else:
        assert (images.count('train'), images.count('test')) == (24, 6)
        assert 'test is held out of train' in images.notes[-1]


@pytest.mark.parametrize('place', ['', 'images'])
def test_lists_are_taken_as_they_are(place, tmp_path):
    root = make_folder(tmp_path / 'data' / place, 6)
    labels = {name: label for label, name in enumerate(CLASSES)}  # an order of their own
    for split, numbers in dict(train=range(3), val=(3, ), test=(4, 5)).items():
        (tmp_path / 'data' / f'{split}.txt').write_text(''.join(
            f'{name}/{i:03d}.png {label}\n' for name, label in labels.items() for i in numbers))
    images = read_folder(str(tmp_path / 'data'))
    assert images.root == str(root) and images.classes == list(CLASSES)
    assert [images.count(split) for split in ('train', 'val', 'test')] == [9, 3, 6]
    assert ('Red rose/003.png', 1) in images.splits['val']


def test_a_folder_too_many(tmp_path):
    make_folder(tmp_path / 'data' / 'images', 20)
    images = read_folder(str(tmp_path / 'data'))
    assert images.root == str(tmp_path / 'data' / 'images') and len(images.classes) == 3
    assert "'images/'" in images.notes[0]


@pytest.mark.parametrize('flat', [True, False])
def test_a_test_folder_without_classes_is_held_out(flat, tmp_path):
    """As competitions ship it."""
    make_folder(tmp_path / 'train', 10)
    make_folder(tmp_path / 'val', 4)
    (tmp_path / 'test').mkdir()
    if flat:
        draw(tmp_path / 'test' / 'unknown.png', 5)
    images = read_folder(str(tmp_path))
    assert [images.count(split) for split in ('train', 'val', 'test')] == [24, 12, 6]
    assert images.notes == ["'test' is left out, since it has no class folders with images",
                            'test is held out of train, by hashes of the paths']


def test_a_class_of_trains(tmp_path):
    make_folder(tmp_path, 10, ('bus', 'car', 'train'))
    assert read_folder(str(tmp_path)).classes == ['bus', 'car', 'train']


def test_names_in_composed_and_decomposed_unicode(tmp_path):
    for split, name in (('train', 'Ros\u00e9'), ('val', 'Rose\u0301'), ('test', 'Rose\u0301')):
        make_folder(tmp_path / split, 6, ('daisy', name))
    images = read_folder(str(tmp_path))
    assert images.classes == ['Ros\u00e9', 'daisy'] and images.notes == []
    assert {label for path, label in images.splits['val'] if 'Rose\u0301' in path} == {0}


def test_names_that_no_list_can_hold(folder):
    for name in (b'latin-\xfc.png', b'two\nlines.png', b'blank.png '):
        try:
            shutil.copy(folder / 'daisy' / '000.png', os.fsencode(folder / 'daisy') + b'/' + name)
        except OSError:
            pytest.skip('this file system takes no such names')
    images = read_folder(str(folder))
    assert sum(images.count(split) for split in images.splits) == 60
    assert any('2 images of train are left out, since a list cannot hold their names' in note for note in images.notes)


def test_lists_of_one_flat_folder(tmp_path):
    """The classes cannot be named after it."""
    for i in range(12):
        draw(tmp_path / 'jpg' / f'{i}.png', i)
    for split, numbers in dict(train=range(6), val=range(6, 9), test=range(9, 12)).items():
        (tmp_path / f'{split}.txt').write_text(''.join(f'jpg/{i}.png {i % 3}\n' for i in numbers))
    assert read_folder(str(tmp_path)).classes == ['class 0', 'class 1', 'class 2']


def remove_class(root):
    for split in ('train', 'val', 'test'):
        make_folder(root / split, 6)
    shutil.rmtree(root / 'train' / 'tulip')


def write_list(text):
    def write(root):
        make_folder(root, 6)
        (root / 'train.txt').write_text(text)
    return write


@pytest.mark.parametrize(('make', 'says'), [
    (lambda root: None, 'is not: correct the path'),
    (lambda root: root.mkdir(), 'must hold images'),
    (lambda root: (make_folder(root, 20), [(root / name).rename(root / f'.{name}') for name in CLASSES]), 'hidden'),
    (lambda root: make_folder(root, 20, ('daisy', )), "two classes or more, .* 'daisy'"),
    (lambda root: (make_folder(root, 20), shutil.rmtree(root / 'tulip'), draw(root / 'tulip/1.png', 1)),
     r'at least 5 images, but tulip \(1\) has fewer'),
    (lambda root: [make_folder(root / split / 'daisy', 6, ('a', 'b')) for split in ('training_set', 'test_set')],
     r"named after classes, but those in .* are 'test_set', 'training_set': call them train"),
    (remove_class, "no class that train lacks, but it has 'tulip' besides"),
    (write_list('daisy/000.png one\n'), r'train\.txt:1'),
    (write_list('daisy/000.png 0\ntulip/000.png 2\n'), 'from 0 without a gap.*for 1'),
    (write_list('nowhere.png 0\n'), "'nowhere.png' of .* in neither"),
    (write_list('\n'), 'is empty'),
])
def test_faults(make, says, tmp_path):
    make(tmp_path / 'data')
    with pytest.raises(DataError, match=says):
        read_folder(str(tmp_path / 'data'))


def test_thinned_out_evenly(folder):
    images = read_folder(str(folder))
    few = thin_out(images, dict(train=10, val=3, test=100))
    assert [few.count(split) for split in ('train', 'val', 'test')] == [10, 3, 12]
    assert sorted(Counter(label for _, label in few.splits['train']).values()) == [3, 3, 4]
    assert len({label for _, label in few.splits['val']}) == 3
    assert paths(thin_out(images, dict(train=7, val=3, test=2)), 'train') < paths(few, 'train') < paths(images, 'train')


def test_what_cannot_be_used_is_left_out(folder):
    images = read_folder(str(folder))
    broken, twin, original = images.splits['train'][0][0], images.splits['train'][1][0], images.splits['test'][0][0]
    (folder / broken).write_bytes((folder / broken).read_bytes()[:60])
    shutil.copy(folder / original, folder / twin)
    seen = []
    checked = check_images(images, lambda done, total: seen.append((done, total)))
    assert paths(images, 'train') - paths(checked, 'train') == {broken, twin}
    assert checked.splits['val'] == images.splits['val'] and checked.splits['test'] == images.splits['test']
    assert seen == [(i, 60) for i in range(1, 61)]
    notes = ' '.join(checked.notes)
    assert f"1 images that cannot be read are left out: '{broken}'" in notes
    assert f"1 images of train are left out, since a later split has the same pixels: '{twin}'" in notes


def test_a_class_of_broken_images_is_an_error(folder):
    for path in (folder / 'tulip').iterdir():
        path.write_bytes(b'nothing')
    with pytest.raises(DataError, match=r"'tulip' have none that can be used .*20 images that cannot be read"):
        check_images(read_folder(str(folder)), lambda done, total: None)
