"""Damaged data sets: each error gives the rule, what broke it and what to do."""
import numpy as np
import pytest
from scipy.io import savemat

from layouts import as_struct, make_task
from mmspt.datasets.lists import find_missing

REMEDY = r'unpack .* as docs/data.md says; tools/check_data.py'
TEXT_LISTS = [  # a file of VTAB-1k's, its new content, the error
    ('images/test/0_4.jpg 0\nimages/nowhere.jpg 1\n', FileNotFoundError,
     r"every listed image must exist, but 1 of 2 do not, '.*images/nowhere.jpg' first"),
    ('images/test/0_4.jpg 10\n', ValueError, r"must lie in \[0, 10\), counted from 0, but that of 'svhn/.*' is 10"),
    ('images/test/0_4.jpg 0\nimages/test/0 5.jpg 0\n', ValueError, r"two fields .* line 2 of '.*test.txt' has 3"),
    ('images/test/0_4.jpg cat\n', ValueError, r"whole number .*, but line 1 of '.*test.txt' has 'cat'"),
    (f'images/test/0_4.jpg {"9" * 5000}\n', ValueError, r"at most 9 digits, but line 1 of '.*test.txt' has '9{200}'"),
    ('', ValueError, r"must name something, but '.*test.txt' is empty"),
]


@pytest.mark.parametrize(('content', 'kind', 'message'), TEXT_LISTS)
def test_list_of_vtab(content, kind, message, tmp_path, tasks):
    root = make_task('vtab_svhn', tmp_path)
    (root / 'svhn/test.txt').write_text(content, encoding='utf-8')
    with pytest.raises(kind, match=f'{message}.*: {REMEDY} vtab_svhn {root} tells more'):
        tasks.build('vtab_svhn', root, 'test')


def test_list_that_is_no_text(tmp_path, tasks):
    root = make_task('vtab_svhn', tmp_path)
    (root / 'svhn/test.txt').write_bytes('images/café.jpg 1\n'.encode('latin-1'))
    with pytest.raises(ValueError, match=rf"must be text, but '.*test.txt' is not .*{REMEDY}"):
        tasks.build('vtab_svhn', root, 'test')


def test_missing_list_of_one_split(tmp_path, tasks):
    """It is named, and the other splits can be read."""
    root = make_task('vtab_svhn', tmp_path)
    (root / 'svhn/val200.txt').unlink()
    with pytest.raises(FileNotFoundError, match=rf"all its lists, but '.*val200.txt' does not exist: {REMEDY}"):
        tasks.build('vtab_svhn', root, 'val')
    assert all(len(tasks.build('vtab_svhn', root, split)) for split in ('train', 'test'))


def test_misspelt_task_lists_the_19(tmp_path, tasks):
    with pytest.raises(ValueError, match="did you mean 'oxford_iiit_pet'") as error:
        tasks.build('vtab_oxford_iiit_pets', tmp_path)
    assert all(name in str(error.value) for name in ('cifar', 'smallnorb_ele', 'dsprites_loc'))
    assert str(error.value).count(', ') >= 18


def test_misspelt_options(benchmarks, tasks):
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


@pytest.mark.parametrize(('key', 'file', 'split'), [
    ('cub', 'image_class_labels.txt', 'test'), ('nabirds', 'classes.txt', 'train'), ('flowers102', 'setid.mat', 'test'),
    ('dogs', 'train_list.mat', 'val'), ('cars', 'devkit/cars_test_annos_withlabels.mat', 'test')])
def test_missing_official_list(key, file, split, tmp_path, tasks):
    root = make_task(key, tmp_path)
    (root / file).unlink()
    with pytest.raises(FileNotFoundError, match=rf"all its lists, but '.*{file}' does not exist: {REMEDY}"):
        tasks.build(key, root, split)


def test_a_missing_test_list_does_not_stop_training(tmp_path, tasks):
    root = make_task('dogs', tmp_path)
    (root / 'test_list.mat').unlink()
    assert len(tasks.build('dogs', root, 'trainval')) == 12


@pytest.mark.parametrize(('file', 'change', 'message'), [
    ('image_class_labels.txt', lambda text: text.split('\n', 1)[1], r"must list the same images, but '1' is in one"),
    ('train_test_split.txt', lambda text: text.replace('3 1', '3 2'), r"must say 0 or 1, but '3' has '2'"),
    ('image_class_labels.txt', lambda text: text.replace('4 1', '4 one'), r'class ids must be whole numbers'),
    ('image_class_labels.txt', lambda text: text.replace('4 1', '4'), r"'<key> <value>', but line 4 of .* is '4'"),
    ('images.txt', lambda text: text + text.splitlines()[0], r"a key must come once, but '1' in line 19"),
    ('image_class_labels.txt', lambda text: text.replace('4 1', '4 201'), r'must lie in \[0, 200\).* is 200'),
])
def test_lists_of_cub(file, change, message, tmp_path, tasks):
    root = make_task('cub', tmp_path)
    (root / file).write_text(change((root / file).read_text()))
    with pytest.raises(ValueError, match=f'{message}.*{REMEDY}'):
        tasks.build('cub', root, 'trainval')


MAT = [  # data set, file, its new content, split, the error
    ('flowers102', 'imagelabels.mat', dict(label=[1, 2]), 'train', r"must have 'labels', but has label"),
    ('flowers102', 'imagelabels.mat', dict(labels=[1, 2]), 'test', r'has 2 and none for number 13 of tstid'),
    ('flowers102', 'imagelabels.mat', dict(labels=[0.5] * 18), 'test', r"'labels' of '.*' must be whole numbers"),
    ('flowers102', 'setid.mat', dict(trnid=[0, 1]), 'train', r'has 18 and none for number 0 of trnid'),
    ('flowers102', 'setid.mat', dict(trnid=[1]), 'val', r"must have 'valid', but has trnid"),
    ('dogs', 'train_list.mat', dict(file_list=np.array(['a/b.jpg', 'a/c.jpg'], dtype=object), labels=[1]), 'train',
     r"must have a 'labels' for each 'file_list', but has 1 for 2"),
    ('dogs', 'train_list.mat', b'', 'train', r"must be a file of MATLAB's"),
    ('cars', 'devkit/cars_train_annos.mat', dict(annotations=as_struct([('1.jpg', )], [('fname', object)])), 'train',
     r"must have 'annotations.class', but has fname"),
]


@pytest.mark.parametrize(('key', 'file', 'content', 'split', 'message'), MAT)
def test_mat_files(key, file, content, split, message, tmp_path, tasks):
    root = make_task(key, tmp_path)
    if isinstance(content, bytes):
        (root / file).write_bytes(content)
    else:
        savemat(root / file, content)
    with pytest.raises(ValueError, match=f'{message}.*{REMEDY}'):
        tasks.build(key, root, split)


def test_split_without_images(tmp_path, tasks):
    root = make_task('flowers102', tmp_path)
    savemat(root / 'setid.mat', dict(trnid=[]))
    with pytest.raises(ValueError, match=f"must have images, but the lists in '{root}' give 'train' none: {REMEDY}"):
        tasks.build('flowers102', root, 'train')


@pytest.mark.parametrize('spoil', [lambda path: path.symlink_to('nowhere'), lambda path: path.mkdir()],
                         ids=['dangling', 'folder'])
def test_what_is_no_file_is_missing(spoil, tmp_path, tasks):
    root = make_task('cub', tmp_path)
    image = next((root / 'images').rglob('0000.jpg'))
    image.unlink()
    spoil(image)
    with pytest.raises(FileNotFoundError, match=f"but 1 of 12 do not, '{image}' first"):
        tasks.build('cub', root, 'trainval')


def test_links_to_images_are_images(tmp_path, monkeypatch):
    (tmp_path / 'a.jpg').write_bytes(b'x')
    (tmp_path / 'b.jpg').symlink_to('a.jpg')
    monkeypatch.chdir(tmp_path)
    assert find_missing(['a.jpg', 'b.jpg', f'{tmp_path}/b.jpg', 'c.jpg']) == ['c.jpg']
