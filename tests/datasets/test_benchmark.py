"""All layouts, each split: sizes, classes, and that each image is of the class its label says."""
from collections import Counter

import numpy as np
import pytest

from layouts import CLASSES, make_cars, make_cub, make_vtab
from mmspt.datasets import CUB, StanfordCars
from mmspt.datasets.tasks import FGVC, SPLITS, TASKS

HELD_OUT = dict(train=10, val=2, trainval=12, test=6)  # of 12 training images a tenth, rounded up
SIZES = dict(flowers102=dict(train=6, val=6, trainval=12, test=6)) | {
    key: dict(train=9, val=3, trainval=12, test=6) for key in TASKS if key.startswith('vtab_')}


@pytest.mark.parametrize('key', [*FGVC, 'vtab_svhn', 'vtab_patch_camelyon'])
def test_splits(key, benchmarks, tasks):
    """Sizes and classes of each split; the splits are disjoint, and trainval is train and val."""
    found = {split: tasks.items(tasks.build(key, benchmarks[key], split)) for split in SPLITS}
    for split, items in found.items():
        assert len(items) == SIZES.get(key, HELD_OUT)[split], split
        assert all(type(label) is int and label == tasks.colour(path) for path, label in items)
    classes = Counter([0, 1, 0] if key == 'vtab_patch_camelyon' else range(CLASSES))
    for split in ('trainval', 'test'):
        items = found[split]
        assert Counter(label for _, label in items) == {c: n * len(items) // CLASSES for c, n in classes.items()}
    assert sorted(found['train'] + found['val']) == sorted(found['trainval'])
    paths = [path for split in ('train', 'val', 'test') for path, _ in found[split]]
    assert len(set(paths)) == len(paths) == 18


def test_order_of_the_lists_does_not_matter(tmp_path, tasks):
    make_cub(tmp_path)
    before = tasks.items(tasks.build('cub', tmp_path, 'val'))
    for name in ('images', 'image_class_labels', 'train_test_split'):
        lines = (tmp_path / f'{name}.txt').read_text().splitlines()
        order = np.random.default_rng(len(name)).permutation(len(lines))
        (tmp_path / f'{name}.txt').write_text('\n'.join(lines[i] for i in order) + '\n')
    assert sorted(tasks.items(tasks.build('cub', tmp_path, 'val'))) == sorted(before)


@pytest.mark.parametrize(('layout', 'place', 'split'), [('devkit', '.', 'test'), ('annos', '.', 'train')])
def test_both_layouts_of_cars(layout, place, split, tmp_path, tasks):
    """The list of test labels is published apart from the devkit: beside it is as good as in it."""
    make_cars(tmp_path, layout)
    if layout == 'devkit' and place == '.':
        (tmp_path / 'devkit/cars_test_annos_withlabels.mat').rename(tmp_path / 'cars_test_annos_withlabels.mat')
    found = tasks.items(tasks.build('cars', tmp_path, split))
    assert len(found) == HELD_OUT[split] and all(label == tasks.colour(path) for path, label in found)
    folder = 'car_ims' if layout == 'annos' else f'cars_{"test" if split == "test" else "train"}'
    assert {path.removeprefix(f'{tmp_path}/').split('/')[0] for path, _ in found} == {folder}


def test_vtab_without_the_joint_list(tmp_path, tasks):
    make_vtab(tmp_path, 'svhn')
    before = tasks.items(tasks.build('vtab_svhn', tmp_path, 'trainval'))
    (tmp_path / 'svhn/train800val200.txt').unlink()
    assert tasks.items(tasks.build('vtab_svhn', tmp_path, 'trainval')) == before


def test_byte_order_mark(tmp_path, tasks):
    """Windows' editors begin a file with three bytes that belong to no line."""
    make_vtab(tmp_path, 'svhn')
    path = tmp_path / 'svhn/test.txt'
    path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes())
    assert len(tasks.build('vtab_svhn', tmp_path, 'test')) == 6


def test_names_of_classes(benchmarks, tasks):
    assert tasks.build('nabirds', benchmarks['nabirds']).metainfo['classes'] == (
        'Common Eider (Male)', 'Oak Titmouse', 'Dark-eyed Junco')
    assert tasks.build('dogs', benchmarks['dogs']).metainfo['classes'] == (
        'Chihuahua', 'Japanese_spaniel', 'Maltese_dog')  # three of 120, from their folders


@pytest.mark.parametrize(('key', 'size'), [('cub', 200), ('cars', 196)])
def test_official_names_are_of_all_classes_alone(key, size, benchmarks, tasks, monkeypatch):
    """A part numbers its classes anew, so label 1 is not the second of the official ones."""
    assert 'classes' not in tasks.build(key, benchmarks[key]).metainfo
    cls = dict(cub=CUB, cars=StanfordCars)[key]
    read = cls.read_split
    monkeypatch.setattr(cls, 'read_split', lambda self: [(path, size - 1 - label) for path, label in read(self)])
    assert len(tasks.build(key, benchmarks[key]).metainfo['classes']) == size


def test_names_of_a_part_of_cub_are_those_of_its_own_list(tmp_path, tasks):
    """Three species, numbered anew: label 1 is not the second of the official 200."""
    make_cub(tmp_path)
    (tmp_path / 'classes.txt').write_text('1 001.Black_footed_Albatross\n2 002.Groove_billed_Ani\n3 003.Cardinal\n')
    names = ('Black_footed_Albatross', 'Groove_billed_Ani', 'Cardinal')
    assert tasks.build('cub', tmp_path).metainfo['classes'] == names
    mine = ('albatross', 'ani', 'cardinal')
    assert tasks.build('cub', tmp_path, classes=mine).metainfo['classes'] == mine


def test_description(benchmarks, tasks):
    text = repr(tasks.build('vtab_dtd', benchmarks['vtab_dtd'], 'test'))
    assert 'DTD' in text and 'test' in text and str(benchmarks['vtab_dtd']) in text
