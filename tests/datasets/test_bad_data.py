"""Damaged data sets: each error gives the rule, what broke it and what to do."""
import numpy as np
import pytest
from scipy.io import savemat

from layouts import as_struct, make_task
from mmspt.datasets.lists import find_missing

REMEDY = r'unpack .* as docs/data.md says; tools/check_data.py'


@pytest.mark.parametrize(('content', 'kind', 'message'), [
    ('images/test/0_4.jpg 0\nimages/nowhere.jpg 1\n', FileNotFoundError,
     r"every listed image must exist, but 1 of 2 do not, '.*images/nowhere.jpg' first"),
    ('images/test/0_4.jpg 10\n', ValueError, r"must lie in \[0, 10\), counted from 0, but that of '.*svhn/.*' is 10"),
    ('images/test/0_4.jpg 0\nimages/test/0_5.jpg\n', ValueError, r"test\.txt:2: a line must .*0_5\.jpg'"),
    ('images/test/0_4.jpg cat\n', ValueError, r"test\.txt:1: a line .*0_4\.jpg cat'"),
    ('', ValueError, "must have images, but the lists give 'test' none")])
def test_list_of_vtab(content, kind, message, tmp_path, tasks):
    root = make_task('vtab_svhn', tmp_path)
    (root / 'svhn/test.txt').write_text(content, encoding='utf-8')
    with pytest.raises(kind, match=f'{message}.*: {REMEDY} vtab_svhn {root} tells more'):
        tasks.build('vtab_svhn', root, 'test')


def test_misspelt_options(benchmarks, tasks, tmp_path):
    with pytest.raises(ValueError, match=r"one of the 19 of VTAB-1k \(cifar, .*did you mean 'oxford_iiit_pet'"):
        tasks.build('vtab_oxford_iiit_pets', tmp_path)
    with pytest.raises(ValueError, match="split must be one of train, val, trainval, test, got 'validation'"):
        tasks.build('cub', benchmarks['cub'], 'validation')
    with pytest.raises(ValueError, match="lists must be 'auto', 'official' or 'vpt', got 'VPT'"):
        tasks.build('cub', benchmarks['cub'], lists='VPT')


@pytest.mark.parametrize(('key', 'images'), [('cub', 'images'), ('vtab_svhn', 'svhn/images')])
def test_images_not_unpacked(key, images, tmp_path, tasks):
    root = make_task(key, tmp_path)
    (root / images).rename(tmp_path / 'elsewhere')
    with pytest.raises(FileNotFoundError, match=rf'every listed image must exist, but 12 of 12 do not.*{REMEDY}'):
        tasks.build(key, root, 'trainval')


@pytest.mark.parametrize(('key', 'file', 'split', 'other'), [
    ('cub', 'image_class_labels.txt', 'test', None), ('flowers102', 'setid.mat', 'test', None),
    ('dogs', 'test_list.mat', 'test', 'trainval'), ('vtab_svhn', 'svhn/val200.txt', 'val', 'train')])
def test_missing_list(key, file, split, other, tmp_path, tasks):
    """It is named; splits with other lists can be read."""
    root = make_task(key, tmp_path)
    (root / file).unlink()
    with pytest.raises(FileNotFoundError, match=rf"all its lists, but '.*{file}' does not exist: {REMEDY}"):
        tasks.build(key, root, split)
    assert other is None or len(tasks.build(key, root, other))


@pytest.mark.parametrize(('file', 'change', 'message'), [
    ('image_class_labels.txt', lambda text: text.split('\n', 1)[1], r"must list the same images, but '1' is in one"),
    ('image_class_labels.txt', lambda text: text.replace('4 1', '4 one'), "invalid literal .* 'one'"),
    ('image_class_labels.txt', lambda text: text.replace('4 1', '4 201'), r'must lie in \[0, 200\).* is 200')])
def test_lists_of_cub(file, change, message, tmp_path, tasks):
    root = make_task('cub', tmp_path)
    (root / file).write_text(change((root / file).read_text()))
    with pytest.raises(ValueError, match=f'{message}.*{REMEDY}'):
        tasks.build('cub', root, 'trainval')


@pytest.mark.parametrize(('key', 'file', 'content'), [
    ('flowers102', 'imagelabels.mat', dict(label=[1, 2])), ('dogs', 'train_list.mat', dict()),
    ('dogs', 'train_list.mat', dict(file_list=np.array(['a/b.jpg', 'a/c.jpg'], dtype=object), labels=[1])),
    ('cars', 'devkit/cars_train_annos.mat', dict(annotations=as_struct([('1.jpg', )], [('fname', object)])))])
def test_mat_files(key, file, content, tmp_path, tasks):
    root = make_task(key, tmp_path)
    savemat(root / file, content)
    with pytest.raises(ValueError, match=rf"'.*{file}' must be a file of MATLAB's with .*: {REMEDY}"):
        tasks.build(key, root, 'train')


def test_what_is_there(tmp_path, monkeypatch):
    (tmp_path / 'a.jpg').write_bytes(b'x')
    (tmp_path / 'b.jpg').symlink_to('a.jpg')
    monkeypatch.chdir(tmp_path)
    there = ['a.jpg', 'b.jpg', f'{tmp_path}/b.jpg', 's3://x/y.jpg']
    assert find_missing([*there, 'c.jpg', 'd/a.jpg']) == ['c.jpg', 'd/a.jpg']
