"""Which images each part of a search sees: told from the data sets that its configs build."""
import pytest
from mmengine.config import Config
from mmpretrain.registry import DATASETS

from helpers import make_images
from layouts import make_task
from mmspt.search.splits import TEST, check_overlap, final_config, search_config

PIPELINE = [dict(type='mmspt.LoadImageFromFile')]


def loader(**dataset):
    """Of data sets that are quickly built: serialized ones collect garbage."""
    return dict(batch_size=2, num_workers=0, dataset=dict(pipeline=[], serialize_data=False) | dataset)


def as_config(train, val, test, **extra):
    fields = dict(train_dataloader=train, train_cfg=dict(max_epochs=2), optim_wrapper=dict(optimizer=dict(type='SGD')),
                  val_dataloader=val, test_dataloader=test, default_hooks=dict(result=dict(after_train=False)))
    for name, value in (('val', val), ('test', test)):
        fields |= {f'{name}_cfg': value and dict(), f'{name}_evaluator': value and dict(type='Accuracy')}
    return Config(fields | extra)


@pytest.fixture
def lists(tmp_path):
    """An image folder with three list files of 6, 3 and 3 images; make(part, **keys) is a loader."""
    items = make_images(tmp_path / 'images', per_class=4)
    for name, numbers in (('train', (0, 1)), ('val', (2, )), ('test', (3, ))):
        lines = [f'{path} {label}' for i, (path, label) in enumerate(items) if i % 4 in numbers]
        (tmp_path / f'{name}.txt').write_text('\n'.join(lines) + '\n')

    def make(part, **keys):
        return loader(**dict(type='CustomDataset', data_root=str(tmp_path), data_prefix='images',
                             ann_file=f'{part}.txt') | keys)
    return make


def files(loader):
    dataset = DATASETS.build(loader.dataset)
    return sorted(dataset.get_data_info(i)['img_path'] for i in range(len(dataset)))


def test_list_files(lists):
    cfg = as_config(lists('train', pipeline=PIPELINE), lists('val', test_mode=True), lists('test'))
    before = cfg.to_dict()
    trial, final = search_config(cfg), final_config(cfg)
    assert cfg.to_dict() == before

    assert [len(files(trial[f'{name}_dataloader'])) for name in ('train', 'val')] == [6, 3]
    assert trial.test_dataloader is trial.test_evaluator is trial.test_cfg is None
    assert files(final.train_dataloader) == sorted(files(cfg.train_dataloader) + files(cfg.val_dataloader))
    assert files(final.test_dataloader) == files(cfg.test_dataloader)
    assert final.val_dataloader is final.val_evaluator is final.val_cfg is None
    assert [d.pipeline for d in final.train_dataloader.dataset.datasets] == [PIPELINE, PIPELINE]
    assert 'test_mode' not in final.train_dataloader.dataset.datasets[1]
    assert final.default_hooks.result == dict(type='mmspt.ResultHook', after_train=True)
    check_overlap(trial, final)


@pytest.mark.parametrize(('split', 'own_val'), [('train', True), ('trainval', False)])
def test_the_papers_tasks(tmp_path, split, own_val):
    """Train and val, whatever the config trains on and whether it validates."""
    root = str(make_task('cub', tmp_path))
    train, val, test = (loader(type='mmspt.CUB', data_root=root, split=name) for name in (split, 'val', 'test'))
    cfg = as_config(train, val if own_val else None, test)
    trial, final = search_config(cfg), final_config(cfg)
    assert [d.dataset.split for d in (trial.train_dataloader, trial.val_dataloader)] == ['train', 'val']
    assert [d.dataset.split for d in (final.train_dataloader, final.test_dataloader)] == ['trainval', 'test']
    assert trial.val_evaluator == dict(type='Accuracy') and trial.val_cfg == {}
    assert sorted(files(trial.train_dataloader) + files(trial.val_dataloader)) == files(final.train_dataloader)
    assert not set(files(final.train_dataloader)) & set(files(final.test_dataloader))
    check_overlap(trial, final)


@pytest.mark.parametrize('own_val', [True, False])
def test_a_part_of_a_papers_task(tmp_path, own_val):
    """Few labels: the last runs train on the part and on what validates, not on other images of the whole; a part of
    the test set makes none of val."""
    root = str(make_task('cub', tmp_path))
    train = loader(type='mmspt.CUB', data_root=root, indices=[0, 3, 5])
    val = loader(type='mmspt.CUB', data_root=root, split='val', indices=[1]) if own_val else None
    cfg = as_config(train, val, loader(type='mmspt.CUB', data_root=root, split='test', indices=[0, 2]))
    trial, final = search_config(cfg), final_config(cfg)
    whole = files(Config(loader(type='mmspt.CUB', data_root=root, split='val')))
    assert len(whole) > 1
    assert files(trial.train_dataloader) == files(cfg.train_dataloader) and len(files(trial.train_dataloader)) == 3
    assert files(trial.val_dataloader) == (whole[1:2] if own_val else whole)
    assert files(final.train_dataloader) == sorted(files(trial.train_dataloader) + files(trial.val_dataloader))
    assert files(final.test_dataloader) == files(cfg.test_dataloader) and len(files(cfg.test_dataloader)) == 2
    check_overlap(trial, final)


@pytest.mark.parametrize(('part', 'split'), [('train', 'trainval'), ('val', 'train')])
def test_positions_in_another_split(tmp_path, part, split):
    """They would be other images in the split that a search sets."""
    root = str(make_task('cub', tmp_path))
    parts = {name: loader(type='mmspt.CUB', data_root=root, split=name) for name in ('train', 'val', 'test')}
    parts[part]['dataset'] |= dict(split=split, indices=[0, 1])
    with pytest.raises(ValueError, match=rf"must count in '{part}' .* some of '{split}': set split='{part}'"):
        search_config(as_config(*parts.values()))


def test_what_cannot_be_joined_is_said_before_all_trials(lists):
    """MMEngine joins data sets of the same classes alone."""
    cfg = as_config(lists('train', metainfo=dict(classes=('a', 'b', 'c'))), lists('val'), lists('test'))
    with pytest.raises(ValueError, match='meta information'):
        check_overlap(search_config(cfg), final_config(cfg))


def wrap(kind, inner, **keys):
    return loader() | dict(dataset=dict(type=kind, **keys) | inner)


def test_mmpretrains_own_data_sets_have_no_val(tmp_path):
    """Its CUB knows 'train' and 'test' alone, so a validation set must be named."""
    train, test = (loader(type='CUB', data_root=str(tmp_path), split=name) for name in ('train', 'test'))
    cfg = as_config(train, None, test)
    with pytest.raises(ValueError, match='has no val_dataloader'):
        search_config(cfg)


@pytest.mark.parametrize(('kind', 'keys', 'sees'), [
    ('RepeatDataset', dict(times=3), 27), ('ConcatDataset', {}, 9)])
def test_wrappers(lists, kind, keys, sees):
    """Repeated images are repeated with the validation images; all have the training's pipeline."""
    def wrapped(split, pipeline=PIPELINE):
        inner = lists(split, pipeline=pipeline)['dataset']
        return wrap(kind, dict(datasets=[inner]) if kind == 'ConcatDataset' else dict(dataset=inner), **keys)

    cfg = as_config(wrapped('train'), lists('val'), wrapped('test'))
    trial, final = search_config(cfg), final_config(cfg)
    check_overlap(trial, final)
    seen = files(final.train_dataloader)
    assert len(seen) == sees
    assert set(seen) == {*files(cfg.train_dataloader), *files(cfg.val_dataloader)}
    assert str(final.to_dict()).count('LoadImageFromFile') == 3  # train, val and test

    with pytest.raises(ValueError, match=r"val_dataloader of None reads 'test.txt'"):
        search_config(as_config(lists('train'), wrapped('test'), None))
    with pytest.raises(ValueError, match=r'3 images are in val and in test'):
        same = as_config(lists('train'), wrapped('val'), wrapped('val'))
        check_overlap(search_config(same), final_config(same))


def test_folds(lists):
    """A fold's two parts are one data set, told apart by test_mode alone, which must stay."""
    train, val = (wrap('KFoldDataset', dict(dataset=lists('train')['dataset']), fold=0, num_splits=3, test_mode=mode)
                  for mode in (False, True))
    cfg = as_config(train, val, lists('test'))
    trial, final = search_config(cfg), final_config(cfg)
    check_overlap(trial, final)
    assert files(final.train_dataloader) == files(Config(lists('train')))


@pytest.mark.parametrize('keys', [
    dict(ann_file='test.txt'), dict(data_prefix=dict(img_path='test')), dict(split=['val', 'test'])])
def test_a_test_set_by_name(lists, keys):
    with pytest.raises(ValueError, match=r'val_dataloader of None reads .*test.*put a validation split there'):
        search_config(as_config(lists('train'), lists('val', **keys), lists('test')))


@pytest.mark.parametrize(('text', 'does'), [
    ('TEST', True), ('val_test.txt', True), ('test2', True), ('testlist01.txt', True), ('latest.txt', False),
    ('testament', False)])
def test_names_of_test_sets(text, does):
    assert bool(TEST.search(text)) == does


def test_folders_above_the_data_do_not_count(lists):
    """Nor does a data_root that list files are read from."""
    cfg = search_config(as_config(lists('train', data_root='/srv/test/pets'),
                                  lists('val', ann_file='/srv/test/pets/a/v.txt'), None))
    assert cfg.train_dataloader.dataset.data_root == '/srv/test/pets'


def test_one_image_in_two_splits(lists, tmp_path):
    """Found behind another name of the folder, too."""
    (tmp_path / 'link').symlink_to(tmp_path / 'images')
    cfg = as_config(lists('train'), lists('val'), lists('train', data_prefix='link'))
    with pytest.raises(ValueError, match='6 images are in train and in test'):
        check_overlap(search_config(cfg), final_config(cfg))


def test_what_a_search_cannot_do_without(lists):
    train, val, test = (lists(split) for split in ('train', 'val', 'test'))
    with pytest.raises(ValueError, match='has no val_dataloader: give it one'):
        search_config(as_config(train, None, test))
    with pytest.raises(ValueError, match='has no test_dataloader: give it one, or set --seeds 0'):
        final_config(as_config(train, val, None))
    with pytest.raises(ValueError, match='has no train_cfg, optim_wrapper: add it'):
        search_config(as_config(train, val, test, train_cfg=None, optim_wrapper=None))


def test_a_config_that_resumes_a_run_starts_trials_anew(lists):
    cfg = as_config(lists('train'), lists('val'), lists('test'), resume=True, default_hooks=None)
    assert search_config(cfg).resume is False and final_config(cfg).resume is False
    assert final_config(cfg).default_hooks.result.type == 'mmspt.ResultHook'
