"""mmspt.CustomDataset: labels follow names, and what is left out is said; list files are read or refused by line."""
import shutil
from unicodedata import normalize

import pytest
from mmengine.logging import MMLogger

from helpers import make_images
from mmspt.datasets.class_names import check_folders, compare_names, follow_names
from mmspt.datasets.lists import DataError, read_items
from mmspt.registry import DATASETS


def build(root, kind='mmspt.CustomDataset', **kwargs):
    return DATASETS.build(dict(type=kind, data_root=str(root), **kwargs))


def names_by_image(dataset):
    """The folder of each image and the name that its label has."""
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    return {(info['img_path'].split('/')[-2], dataset.metainfo['classes'][info['gt_label']]) for info in infos}


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'warning', lines.append)
    return lines


@pytest.fixture
def root(tmp_path):
    """Three classes of two images."""
    make_images(tmp_path / 'data', per_class=2)
    return tmp_path / 'data'


@pytest.mark.parametrize(('names', 'expected'), [
    (None, {('class_0', 'class_0'), ('class_1', 'class_1'), ('class_2', 'class_2')}),
    (['class_2', 'class_0', 'class_1'], {('class_0', 'class_0'), ('class_1', 'class_1'), ('class_2', 'class_2')}),
    (['z', 'class_2', 'class_0', 'class_1'], {('class_0', 'class_0'), ('class_1', 'class_1'), ('class_2', 'class_2')}),
    (['Class 2', 'class_0', 'CLASS-1'], {('class_2', 'Class 2'), ('class_0', 'class_0'), ('class_1', 'CLASS-1')}),
    (['red', 'green', 'blue'], {('class_0', 'red'), ('class_1', 'green'), ('class_2', 'blue')})])
def test_labels_follow_names(names, expected, root):
    dataset = build(root, metainfo=dict(classes=names) if names else None)
    assert names_by_image(dataset) == expected and len(dataset) == 6


@pytest.mark.parametrize('names', [['class_0', 'class_1', 'blue'], ['red', 'green'], ['class_0', 'class_0', 'class_1']])
def test_names_that_do_not_fit(names, root):
    with pytest.raises(DataError, match=r"'class_2'.*(list the names|correct metainfo\.classes)"):
        build(root, metainfo=dict(classes=names))


def test_what_is_left_out_is_said(root, said):
    """Hidden and empty folders, hidden, strange and misplaced files; upper-case and other endings, links and spaces
    stay."""
    (root / '.ipynb_checkpoints').mkdir()
    (root / 'a_backup').mkdir()
    (root / 'class_0/.cache').mkdir()
    shutil.copy(root / 'class_0/000.png', root / 'class_0/.cache/000.png')
    shutil.copy(root / 'class_0/000.png', root / '000.png')
    (root / 'class_1/notes.txt').touch()
    (root / 'class_1/000.png').rename(root / 'class_1/A B.PNG')
    (root / 'class_2/000.png').rename(root / 'class_2/000.webp')
    shutil.move(root / 'class_2', root.parent / 'elsewhere')
    (root / 'lily of the valley').symlink_to(root.parent / 'elsewhere')
    dataset = build(root)
    assert dataset.metainfo['classes'] == ('class_0', 'class_1', 'lily of the valley')
    assert names_by_image(dataset) == {(name, name) for name in dataset.metainfo['classes']} and len(dataset) == 6
    line, = said
    assert all(part in line for part in (f"Left out of '{root}/'", "folders without images 'a_backup'",
                                         "hidden folders '.ipynb_checkpoints'", '1 .txt', '1 in hidden folders',
                                         '1 beside the class folders'))


def test_folders_without_any_image(root):
    for path in root.rglob('*.png'):
        path.rename(path.with_suffix('.xyz'))
    with pytest.raises(DataError, match=r"class folders must hold images.*left out: .*6 \.xyz"):
        build(root)


@pytest.mark.parametrize(('names', 'text'), [
    (['a', 'b'], ''), (['ä', 'b'], "lacks 'a' and has 'ä' besides"), (['b', 'a'], 'has another order'),
    (['a'], "lacks 'b'"), (['a', 'b', 'c'], "has 'c' besides")])
def test_compare_names(names, text):
    assert compare_names(names, ['a', 'b']).startswith(text) and bool(compare_names(names, ['a', 'b'])) == bool(text)
    assert compare_names([normalize('NFC', 'é')], [normalize('NFD', 'é')]) == ''


@pytest.mark.parametrize('wrap', [None, 'RepeatDataset', 'ClassBalancedDataset', 'KFoldDataset'])
@pytest.mark.parametrize('serialize', [True, False])
def test_a_split_that_lacks_a_class_is_numbered_anew(wrap, serialize, root):
    """Even if its names are decomposed, and more than once."""
    shutil.rmtree(root / 'class_0')
    (root / 'class_1').rename(root / normalize('NFD', 'é'))
    leaf = dict(type='mmspt.CustomDataset', data_root=str(root), serialize_data=serialize)
    more = dict(RepeatDataset=dict(times=2), ClassBalancedDataset=dict(oversample_thr=.1), KFoldDataset=dict(fold=0,
                                                                                                      num_splits=2))
    dataset = DATASETS.build(leaf if wrap is None else dict(type=wrap, dataset=leaf, **more[wrap]))
    names = ['class_2', 'a', normalize('NFC', 'é')]
    assert follow_names(dataset, names, 'val', 'train').startswith("lacks 'a'")
    assert dataset.metainfo['classes'] == tuple(names)
    assert follow_names(dataset, names, 'val', 'train') == ''
    assert {(a, normalize('NFD', b)) for a, b in names_by_image(dataset)} <= {
        ('class_2', 'class_2'), (normalize('NFD', 'é'), normalize('NFD', 'é'))}
    assert follow_names(dataset, ['x', *names], 'val', 'all') and len(dataset)
    with pytest.raises(DataError, match=r"but val has 'a', 'é' besides|but val lacks 'q'"):
        follow_names(dataset, ['x', 'class_2', 'q'], 'val', 'train')


@pytest.mark.parametrize(('change', 'names', 'message'), [
    (lambda root: (root / '.git').mkdir(), None, r"takes '\.git' in .* for one: delete it, or set type='mmspt"),
    (lambda root: None, ['class_1', 'class_0', 'class_2'], "bring it into the order 'class_0', 'class_1', 'class_2'"),
    (lambda root: None, ['Class 1', 'Class 0', 'Class 2'], "bring it into the order 'class_0', 'class_1', 'class_2'"),
    (lambda root: None, ['class_1', 'class_0', 'blue'], "rename the folders 'class_2'"),
    (lambda root: [(root / f'class_{i}').rename(root / name) for i, name in enumerate(('train', 'val', 'test'))], None,
     'set data_root or data_prefix to the folder whose sub-folders are the classes')])
def test_class_folders_of_mmpretrain(change, names, message, root):
    check_folders(build(root, 'CustomDataset'))
    for display in (['red', 'green', 'blue'], ['Class 0', 'class_1', 'CLASS_2']):
        check_folders(build(root, 'CustomDataset', metainfo=dict(classes=display)))
    change(root)
    with pytest.raises(DataError, match=message):
        check_folders(build(root, 'CustomDataset', metainfo=dict(classes=names) if names else None))


def test_one_class_is_asked_about(root):
    check_folders(build(root.parent))
    with pytest.raises(DataError, match=r"at least two classes, but the class folders in .* are 'data'"):
        check_folders(build(root.parent), train=True)


@pytest.mark.parametrize(('lines', 'error'), [
    ('a b/1.jpg 0\nc.jpg  12', None), ('a b/1.jpg\t0\r\n\r\nc.jpg 12\r\n', None), ('\ufeffa b/1.jpg 0\nc.jpg 12', None),
    ('a.jpg 0\nb.jpg,1', r"list\.txt:2: .*is 'b\.jpg,1': put a space instead of ','"),
    ('a.jpg, 0', r"list\.txt:1: .*put a space instead of ','"),
    ('path label\na.jpg 0', r"list\.txt:1: .*delete the line if it is a header"),
    ('a.jpg 0\nb.jpg 1.0', r'list\.txt:2: .*: write 1$'),
    ('a.jpg rose', r'list\.txt:1: .*number the classes from 0, in the order of metainfo\.classes'),
    ('a.jpg', r"list\.txt:1: .*'<path> <label>'"), ('a.jpg 1_0', r'list\.txt:1'), ('b.jpg ²', r'list\.txt:1')])
def test_list_files(lines, error, tmp_path):
    path = tmp_path / 'list.txt'
    path.write_bytes(lines.encode())
    if error:
        with pytest.raises(DataError, match=error):
            read_items(str(path))
        return
    assert read_items(str(path)) == [('a b/1.jpg', 0), ('c.jpg', 12)]
    dataset = build(tmp_path, ann_file='list.txt')
    assert [dataset.get_data_info(i)['gt_label'] for i in range(2)] == [0, 12]
    if lines.startswith('a b/1.jpg 0\n'):
        path.write_text('a b/1.jpg 0\nc.jpg 12')
        read_items(str(path), by_mmpretrain=True)
    else:
        with pytest.raises(DataError, match=r"list\.txt:[12]: .*set type='mmspt\.CustomDataset', which"):
            read_items(str(path), by_mmpretrain=True)


def test_a_list_in_another_encoding(tmp_path):
    (tmp_path / 'list.txt').write_bytes('a.jpg 0'.encode('utf-16'))
    with pytest.raises(DataError, match=r"text in UTF-8, but .*list\.txt' is not .*: save it so"):
        read_items(str(tmp_path / 'list.txt'))
