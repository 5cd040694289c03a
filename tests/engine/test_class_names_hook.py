"""Runs whose splits, checkpoint and head name their classes differently."""
import shutil
from dataclasses import asdict

import pytest
import torch
from mmengine.runner import Runner
from mmpretrain.models import ImageClassifier

from digit_runs import STOCK, build_runner, log_text
from helpers import make_images
from mmspt.engine.hooks import ClassNamesHook
from mmspt.packs.preprocessing import Preprocessing

LOAD = [dict(type='mmspt.LoadImageFromFile'), dict(type='Resize', scale=16), dict(type='PackInputs')]
EVALUATION = dict(type='Accuracy')


@pytest.fixture
def data(tmp_path):
    """Three classes in three splits."""
    for seed, split in enumerate(('train', 'val', 'test')):
        make_images(tmp_path / split, per_class=2, seed=seed)
    return tmp_path


def runner(data, kind='mmspt.CustomDataset', num_classes=3, options=None, folder='run', dataset=None, **changes):
    """A run of one epoch; ``options`` are those of a split's data set, ``dataset`` is trained on instead."""
    loaders = {split: dict(
        batch_size=6, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(type=kind, data_root=str(data), data_prefix=split, pipeline=LOAD) | (options or {}).get(split, {}))
        for split in ('train', 'val', 'test')}
    loaders['train']['dataset'] = dataset or loaders['train']['dataset']
    built: Runner = build_runner(
        data / folder, num_classes=num_classes, train_dataloader=loaders['train'], val_dataloader=loaders['val'],
        test_dataloader=loaders['test'], val_cfg={}, test_cfg={}, val_evaluator=EVALUATION, test_evaluator=EVALUATION,
        **changes)
    built.register_hook(ClassNamesHook())
    return built


def log(data, folder='run'):
    return log_text(data / folder)


def folders_and_labels(loader):
    infos = map(loader.dataset.get_data_info, range(len(loader.dataset)))
    return {(info['img_path'].split('/')[-2], info['gt_label']) for info in infos}


def names(*numbers):
    return dict(metainfo=dict(classes=[f'class_{i}' for i in numbers]))


def test_validation_that_lacks_a_class_is_numbered_as_training(data):
    shutil.rmtree(data / 'val/class_1')
    run = runner(data)
    run.train()
    assert folders_and_labels(run.val_dataloader) == {('class_0', 0), ('class_2', 2)}
    assert run.val_evaluator.dataset_meta['classes'] == ('class_0', 'class_1', 'class_2')
    assert "val lacks 'class_1', compared with train: its labels follow the names of train" in log(data)


def test_order_of_the_training_set(data):
    """Its names are in the checkpoint, and a later test, or a resumed training without the order, follows them."""
    run = runner(data, options=dict(train=names(2, 0, 1)))
    run.train()
    expected = {('class_2', 0), ('class_0', 1), ('class_1', 2)}
    assert folders_and_labels(run.train_dataloader) == folders_and_labels(run.val_dataloader) == expected
    later = runner(data, folder='test', load_from=str(data / 'run/epoch_1.pth'))
    later.test()
    assert folders_and_labels(later.test_dataloader) == expected
    again = runner(data, resume=True, load_from=str(data / 'run/epoch_1.pth'),
                   train_cfg=dict(by_epoch=True, max_epochs=2))
    again.train()
    assert folders_and_labels(again.train_dataloader) == folders_and_labels(again.val_dataloader) == expected


@pytest.mark.parametrize(('kind', 'change', 'options', 'message'), [
    ('CustomDataset', lambda data: shutil.rmtree(data / 'val/class_1'), {},
     "val lacks 'class_1', compared with train: set type='mmspt.CustomDataset' in its data set"),
    ('CustomDataset', lambda data: (data / 'train/.git').mkdir(), {}, r"takes '\.git' in .*train' for one: delete it"),
    ('CustomDataset', lambda data: None, dict(train=names(1, 0, 2)), 'bring it into the order'),
    ('mmspt.CustomDataset', lambda data: shutil.rmtree(data / 'train/class_0'), {},
     "val has 'class_0' besides, compared with train: rename or move the classes"),
    ('mmspt.CustomDataset', lambda data: (data / 'val/class_1').rename(data / 'val/b'), {},
     "val lacks 'class_1' and has 'b' besides, compared with train"),
    ('mmspt.CustomDataset', lambda data: [shutil.rmtree(data / f'train/class_{i}') for i in (1, 2)], {},
     "at least two classes, but the class folders in .*train' are 'class_0'")])
def test_names_that_differ(kind, change, options, message, data):
    change(data)
    with pytest.raises(ValueError, match=message):
        runner(data, kind, options=options).train()


def test_a_class_renamed_after_training(data):
    runner(data).train()
    (data / 'test/class_1').rename(data / 'test/tulip')
    checkpoint = str(data / 'run/epoch_1.pth')
    with pytest.raises(ValueError, match=r"test lacks 'class_1' and has 'tulip' besides, compared with the check"):
        runner(data, load_from=checkpoint).test()
    runner(data, load_from=checkpoint, options=dict(test=dict(names(0, 1, 2), data_prefix='val'))).test()
    for split in ('train', 'val', 'test'):
        shutil.rmtree(data / split / 'class_0')
        (data / split / ('tulip' if split == 'test' else 'class_1')).rename(data / split / 'new')
    runner(data, folder='finetuned', load_from=checkpoint).train()
    assert 'The weights of load_from were trained on other classes: train lacks' in log(data, 'finetuned')
    with pytest.raises(ValueError, match=r'train lacks .* compared with the checkpoint'):
        runner(data, load_from=checkpoint, resume=True, train_cfg=dict(by_epoch=True, max_epochs=2)).train()


def test_files_that_mmpretrain_passes_over(data):
    (data / 'train/class_1/000.png').rename(data / 'train/class_1/000.webp')
    runner(data, 'CustomDataset').train()
    assert 'passes over in' in log(data) and 'files: 1 .webp' in log(data)


def test_pack_with_numbers_for_names(data):
    """They are no names to compare with."""
    runner(data).train()
    content = torch.load(data / 'run/epoch_1.pth', weights_only=False)
    content['meta']['dataset_meta'] = dict(classes=['class 0', 'class 1', 'class 2'])
    torch.save(content, data / 'numbers.pth')
    runner(data, load_from=str(data / 'numbers.pth')).test()


def test_head_and_labels(data):
    """A head with more outputs than names, and classes that only validation has, are warnings; fewer are an error."""
    for path in (data / 'train/class_1').iterdir():
        path.unlink()
    every = {split: names(0, 1, 2) for split in ('train', 'val', 'test')}
    runner(data, options=every, num_classes=4).train()
    assert 'The head has 4 outputs, but train names 3 classes: set model.head.num_classes=3' in log(data)
    assert "val has images of classes that train has none of: 'class_1'" in log(data)
    with pytest.raises(ValueError, match=r'labels from 0 to 2: set model\.head\.num_classes=3'):
        runner(data, options=every, num_classes=2, folder='two').train()
    with pytest.raises(ValueError, match=r'at least two classes, but model\.head\.num_classes is 1'):
        runner(data, options=every, num_classes=1, folder='one').train()


@pytest.mark.slow
def test_pack_with_names_for_display(data):
    """They may differ, their order may not; its images are compared in every test."""
    run = runner(data)
    run.train()
    content = torch.load(data / 'run/epoch_1.pth', weights_only=False)

    def packed(*classes, **changes):
        tuned = asdict(Preprocessing.from_config(run.cfg, (16, 16)))
        content['meta'].update(dataset_meta=dict(classes=classes), preprocessing=tuned | changes)
        torch.save(content, data / 'pack.pth')
        return runner(data, load_from=str(data / 'pack.pth'), folder='packed')

    packed('Rose', 'Class 1', 'Lily').test()
    assert 'taken to be for display' in log(data, 'packed')
    for classes in (('Class 1', 'Class 0', 'Lily'), ('Rose', 'Lily')):
        with pytest.raises(ValueError, match=r'test lacks .* compared with the checkpoint'):
            packed(*classes).test()
    with pytest.raises(ValueError, match='a pack must be given images as it was tuned, with to_rgb=True'):
        packed('Rose', 'Class 1', 'Lily', to_rgb=True).test()


def test_a_test_set_that_is_built_after_training(data):
    run = runner(data)
    run.train()
    (data / 'test/class_1').rename(data / 'test/tulip')
    with pytest.raises(ValueError, match=r"test lacks 'class_1' and has 'tulip' besides, compared with train"):
        run.test()


def test_folders_of_display_names_have_one_label(data):
    (data / 'val/class_0').rename(data / 'val/zzz')
    display = {split: dict(metainfo=dict(classes=['red', 'green', 'blue'])) for split in ('train', 'val', 'test')}
    with pytest.raises(ValueError, match="one label, but 'class_1' has 1 in train and 0 in val"):
        runner(data, 'CustomDataset', options=display).train()


def test_a_head_of_the_host_that_no_file_filled(data):
    runner(data, model=STOCK | dict(head=dict(type='LinearClsHead', num_classes=3, in_channels=32))).train()
    checkpoint = str(data / 'run/epoch_1.pth')
    for classes in (4, 3):
        head = dict(type='LinearClsHead', num_classes=classes, in_channels=32)
        test = runner(data, load_from=checkpoint, num_classes=classes, model=STOCK | dict(head=head))
        if classes == 3:
            test.test()
        else:
            with pytest.raises(ValueError, match=r'this one has no head\.fc\.weight, head\.fc\.bias of the shape'):
                test.test()


def test_retrievers_have_other_classes_in_validation(data, monkeypatch):
    for path in ('mmspt.engine.hooks.class_names_hook', 'mmspt.engine.checks'):
        monkeypatch.setattr(f'{path}.BaseRetriever', ImageClassifier)
    (data / 'val/class_0').rename(data / 'val/new')
    runner(data).train()


def test_labels_beyond_the_names(data):
    (data / 'list.txt').write_text('val/class_0/000.png 3\n')
    options = {split: names(0, 1, 2) for split in ('train', 'test')}
    runner(data, num_classes=4, options=options | dict(val=names(0, 1, 2) | dict(
        data_prefix='', ann_file='list.txt'))).train()
    assert "val has images of classes that train has none of: '3'" in log(data)


def test_workers_that_read_before_labels_change(data):
    """Those of a run of iterations start with it."""
    runner(data, options=dict(train=names(2, 0, 1))).train()
    run = runner(data, resume=True, load_from=str(data / 'run/epoch_1.pth'),
                 train_cfg=dict(by_epoch=False, max_iters=9))
    run.train_loop.dataloader.num_workers = 1
    with pytest.raises(ValueError, match=r"set its metainfo\.classes to .* 'class_2', 'class_0', 'class_1'"):
        run.train()


def concatenated(data, *folders):
    parts = [dict(type='mmspt.CustomDataset', data_root=str(data), data_prefix=folder, pipeline=LOAD)
             for folder in folders]
    return dict(type='ConcatDataset', datasets=parts, ignore_keys=['classes'])


@pytest.mark.slow
def test_concatenated_data_sets(data):
    """The labels of all follow the names of the first; MMEngine's ignore_keys passes over other names."""
    make_images(data / 'more', per_class=2, seed=7)
    shutil.rmtree(data / 'more/class_0')
    run = runner(data, dataset=concatenated(data, 'train', 'more'))
    run.train()
    assert run.train_dataloader.dataset.datasets[1].folder_to_idx == dict(class_1=1, class_2=2)
    (data / 'more/class_1').rename(data / 'more/tulip')
    with pytest.raises(ValueError, match=r"train lacks .* and has 'tulip' besides, compared with its first data set"):
        runner(data, dataset=concatenated(data, 'train', 'more'), folder='other').train()


def test_classes_without_an_image(data):
    """As where a list counts from 1, and the head was given an output more."""
    (data / 'train.txt').write_text(''.join(f'class_{i}/000.png {i + 1}\n' for i in range(3)))
    runner(data, options=dict(train=dict(ann_file='train.txt')), num_classes=4).train()
    assert "train has no image of 1 of 4 classes: '0'; does its list count from 1? Labels start at 0" in log(data)


def test_validation_on_images_of_the_training(data):
    shutil.copy(data / 'val/class_0/000.png', data / 'train/class_0/val.png')
    (data / 'val/class_1/link.png').symlink_to(data / 'train/class_1/000.png')
    runner(data).train()
    assert 'val has 1 images that train has too' in log(data)


def test_a_class_that_only_the_test_has(data):
    """Named before training; its label is beyond the head, and another output would be no remedy."""
    shutil.copytree(data / 'test/class_1', data / 'test/zinnia')
    with pytest.raises(ValueError, match="test has 'zinnia' besides, compared with train: rename or move"):
        runner(data, default_hooks=dict(result=dict(type='mmspt.ResultHook'))).train()
