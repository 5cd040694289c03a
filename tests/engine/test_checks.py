"""Mistakes that are found before the first step."""
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmpretrain.models import ClsDataPreprocessor, LinearClsHead

from mmspt.engine.checks import check_config, check_data_folder, check_labels, check_work_dir


def write(path, text='x'):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_work_dir_is_made_and_left_empty(tmp_path):
    check_work_dir(str(tmp_path / 'a' / 'b'))
    assert list((tmp_path / 'a' / 'b').iterdir()) == []


def test_work_dir_on_a_file(tmp_path):
    path = write(tmp_path / 'file') / 'run'
    with pytest.raises(OSError, match=rf"folder that can be written, got '{path}' .*choose another with --work-dir"):
        check_work_dir(str(path))


@pytest.mark.parametrize('dataset', [
    dict(data_root='there', ann_file='train.txt', data_prefix='images'),
    dict(data_root='there', data_prefix=dict(img_path='images')),
    dict(data_root='~', ann_file='there/train.txt'),
    dict(data_root='s3://bucket', ann_file='train.txt'),
])
def test_data_folder_in_order(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HOME', str(tmp_path))
    write(tmp_path / 'there' / 'images' / '0.png')
    write(tmp_path / 'there' / 'train.txt')
    check_data_folder(dataset, 'train_dataloader')


@pytest.mark.parametrize('changes, error, message', [
    (dict(ann_file='absent.txt'), FileNotFoundError, "'there/absent.txt' does not exist"),
    (dict(data_prefix=dict(img_path='absent')), FileNotFoundError, "'there/absent' does not exist"),
    (dict(data_prefix='empty'), ValueError, "'there/empty' is empty"),
])
def test_missing_or_empty_folder(tmp_path, monkeypatch, changes, error, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / 'there' / 'images' / '0.png')
    (tmp_path / 'there' / 'empty').mkdir()
    dataset = dict(data_root='there', data_prefix='images') | changes
    with pytest.raises(error, match=rf'val_dataloader .*{message}: set val_dataloader\.dataset\.data_root'):
        check_data_folder(dataset, 'val_dataloader')


def test_folders_within_wrappers(tmp_path):
    inner = dict(type='RepeatDataset', dataset=dict(data_root=str(tmp_path / 'absent')))
    with pytest.raises(FileNotFoundError, match='absent'):
        check_data_folder(dict(type='ConcatDataset', datasets=[dict(data_root=str(tmp_path.parent)), inner]), 'train')


def labelled(labels):
    class Labelled(list):

        def get_cat_ids(self, index):
            return [self[index]]

    return Labelled(labels)


def model(num_classes):
    return SimpleNamespace(head=LinearClsHead(num_classes, in_channels=4))


@pytest.mark.parametrize('dataset, net', [
    (labelled([0, 4, 2]), model(5)), ([7, 8], model(5)), (labelled([7]), SimpleNamespace(head=None)),
    (labelled([7]), SimpleNamespace(head=SimpleNamespace(num_classes=2))),
], ids=['fit', 'no-labels', 'no-head', 'head-of-segmentation'])
def test_labels_that_fit_or_cannot_be_checked(dataset, net):
    check_labels(dataset, net)


@pytest.mark.parametrize('labels, num_classes, lowest, highest', [([0, 5], 5, 0, 5), ([-1, 3], 5, -1, 3)])
def test_labels_outside_the_head(labels, num_classes, lowest, highest):
    with pytest.raises(ValueError, match=rf'lie in \[0, {num_classes}\).*from {lowest} to {highest}: '
                       rf'set model\.head\.num_classes={highest + 1}, or start the labels at 0'):
        check_labels(labelled(labels), model(num_classes))


def test_labels_that_count_from_one():
    """Another output is no remedy."""
    with pytest.raises(ValueError, match=r'has labels from 1 to 5: start the labels at 0$'):
        check_labels(labelled([1, 5, 3]), model(5))


@pytest.mark.parametrize('classes', [2, 5])
def test_mixup_for_another_number_of_classes(classes):
    net = model(3)
    net.data_preprocessor = ClsDataPreprocessor(num_classes=classes)
    check_labels(labelled([0, 2]), net)  # read by Mixup alone
    net.data_preprocessor = ClsDataPreprocessor(num_classes=classes, to_onehot=True)
    with pytest.raises(ValueError, match=rf'that of the head, 3, got {classes}'):
        check_labels(labelled([0, 2]), net)


def config(tmp_path, **changes):
    return Config(dict(work_dir=str(tmp_path / 'run'), train_cfg=dict(max_epochs=1), model=dict(
        backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='weights.pth')))) | changes)


def backbone(**kwargs):
    return dict(backbone=kwargs)


@pytest.mark.parametrize('changes', [
    dict(model=backbone(init_cfg=[dict(type='Constant', val=0.)])),
    dict(train_dataloader=None, val_dataloader=dict(dataset=dict(type='mmspt.Digits', split='val'))),
])
def test_config_in_order(tmp_path, changes):
    check_config(config(tmp_path, **changes))
    assert (tmp_path / 'run').is_dir()


def test_testing_needs_no_pretrained_weights_and_no_training_data(tmp_path):
    missing = dict(dataset=dict(type='CustomDataset', data_root=str(tmp_path / 'absent')))
    cfg = config(tmp_path, train_dataloader=missing, val_dataloader=missing,
                 model=backbone(init_cfg=dict(type='Pretrained', checkpoint='')))
    check_config(cfg, 'test')
    with pytest.raises(FileNotFoundError, match='train_dataloader'):
        check_config(cfg)


def test_config_with_an_empty_checkpoint(tmp_path):
    with pytest.raises(ValueError, match=r"init_cfg\.checkpoint must name the pre-trained weights, got '': .*=PATH"):
        check_config(config(tmp_path, model=backbone(init_cfg=dict(type='Pretrained', checkpoint=''))))
