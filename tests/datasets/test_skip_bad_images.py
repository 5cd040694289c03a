"""SkipBadImages leaves out what cannot be loaded; the rest is the data set's own."""
import copy
from datetime import timedelta

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DATASETS, init_default_scope

from helpers import make_images, spawn_two
from mmspt.datasets import skip_bad_images as module
from mmspt.datasets.nested_configs import leaves, skip_bad_images, with_skipping, without_skipping
from mmspt.datasets.skip_bad_images import find_bad_images
from mmspt.engine.training_images import SeededImages

PIPELINE = [dict(type='mmspt.LoadImageFromFile'), dict(type='Resize', scale=32), dict(type='PackInputs')]
DAMAGE = {  # index of the image -> what is done to it, and what is said of it
    1: (lambda path: path.write_bytes(b''), 'ValueError: the file is empty'),
    4: (lambda path: path.write_bytes(path.read_bytes()[:-400]), 'finds no image in it that is whole'),
    5: (lambda path: path.unlink(), 'FileNotFoundError'),
    8: (lambda path: path.write_bytes(b'<html>404</html>'), 'UnidentifiedImageError: cannot identify image file'),
}
KEPT = [0, 2, 3, 6, 7, 9, 10, 11]


def config(root, **kwargs):
    return dict(type='CustomDataset', data_root=str(root), ann_file='list.txt', pipeline=PIPELINE) | kwargs


@pytest.fixture
def paths(tmp_path):
    """Paths of twelve images, four for each class; four are damaged."""
    items = make_images(tmp_path, per_class=4)
    (tmp_path / 'list.txt').write_text('\n'.join(f'{path} {label}' for path, label in items))
    for index, (spoil, _) in DAMAGE.items():
        spoil(tmp_path / items[index][0])
    return [str(tmp_path / path) for path, _ in items]


@pytest.fixture
def build(tmp_path):
    def build(**kwargs):
        return DATASETS.build(dict(type='mmspt.SkipBadImages', dataset=config(tmp_path, **kwargs)))
    return build


def images(dataset):
    return [dataset[i]['data_samples'].img_path for i in range(len(dataset))]


def test_bad_images_are_left_out(paths, build):
    dataset = build()
    assert images(dataset) == [paths[i] for i in KEPT]
    assert dataset.get_gt_labels().tolist() == [i // 4 for i in KEPT]
    assert [path for path, _ in dataset.bad_images] == [paths[i] for i in DAMAGE]
    for (_, reason), (_, expected) in zip(dataset.bad_images, DAMAGE.values(), strict=True):
        assert expected in reason and '\n' not in reason and 'fetch it again' not in reason


def test_all_bad(paths, build, tmp_path):
    for path in paths:
        (tmp_path / path).write_bytes(b'')
    with pytest.raises(ValueError, match=r"none of the 12 of CustomDataset can, '.*class_0/000\.png' first .*is empty"):
        build()


def test_own_pipeline_decides(paths, build):
    """MMCV's loader returns None with ``ignore_empty``; without a loader there is nothing to try."""
    dataset = build(pipeline=[dict(type='LoadImageFromFile', ignore_empty=True), *PIPELINE[1:]])
    assert paths[5] in [path for path, _ in dataset.bad_images]
    assert len(build(pipeline=[])) == 12


@pytest.mark.parametrize(('wrapper', 'length'), [
    (lambda inner: dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[inner]), times=2), 16),
    (lambda inner: dict(type='KFoldDataset', dataset=inner, num_splits=8, fold=2, test_mode=True), 1),
], ids=['repeat of concat', 'fold'])
def test_within_other_wrappers(paths, tmp_path, wrapper, length):
    dataset = DATASETS.build(wrapper(dict(type='mmspt.SkipBadImages', dataset=config(tmp_path))))
    dataset.full_init()
    assert len(images(dataset)) == length
    assert {path for path, _ in find_bad_images(dataset)} == {paths[i] for i in DAMAGE}


def test_around_other_wrappers(tmp_path, paths):
    with pytest.raises(ValueError, match='got RepeatDataset: put it around each data set within'):
        module.build_without_bad_images(dict(type='RepeatDataset', dataset=config(tmp_path), times=2))


def test_pipeline_can_be_replaced(paths, build):
    """As PromptInitHook(pipeline=...) does."""
    small = [dict(type='mmspt.LoadImageFromFile'), dict(type='Resize', scale=16), dict(type='PackInputs')]
    item = SeededImages(build(), [0, 3], seed=0, pipeline=small)[1]
    assert item['inputs'].shape == (3, 16, 16) and item['data_samples'].img_path == paths[KEPT[3]]


def _two_processes(rank, folder):
    torch.distributed.init_process_group('gloo', f'file://{folder}/rendezvous', timedelta(seconds=120), 2, rank)
    init_default_scope('mmpretrain')
    tried, try_images = [], module.try_images
    module.try_images = lambda dataset, indices: tried.append(list(indices)) or try_images(dataset, indices)
    dataset = module.build_without_bad_images(config(folder))
    torch.save([tried, dataset.bad_images, images(dataset)], f'{folder}/{rank}.pt')
    torch.distributed.destroy_process_group()


def test_two_processes_share_the_work_and_agree(paths, tmp_path):
    spawn_two(_two_processes, tmp_path)
    (tried, *first), (tried_too, *second) = (torch.load(tmp_path / f'{rank}.pt') for rank in range(2))
    assert tried == [list(range(0, 12, 2))] and tried_too == [list(range(1, 12, 2))]
    assert first == second
    assert [path for path, _ in first[0]] == [paths[i] for i in DAMAGE] and first[1] == [paths[i] for i in KEPT]


LEAF = dict(type='CustomDataset', data_root='a')
OTHER = dict(type='CustomDataset', data_root='b')
SKIPPED, OTHER_SKIPPED = (dict(type='mmspt.SkipBadImages', dataset=leaf) for leaf in (LEAF, OTHER))


def repeat(*inner):
    return dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=list(inner)))


@pytest.mark.parametrize('kind', [dict, ConfigDict])
@pytest.mark.parametrize(('plain', 'half', 'skipping'), [
    (LEAF, LEAF, SKIPPED), (repeat(LEAF, OTHER), repeat(SKIPPED, OTHER), repeat(SKIPPED, OTHER_SKIPPED))])
def test_configs(plain, half, skipping, kind):
    plain, half, skipping = kind(plain), kind(half), kind(skipping)
    before = copy.deepcopy(plain)
    assert with_skipping(plain) == skipping == with_skipping(skipping) == with_skipping(half)
    assert without_skipping(skipping) == plain == without_skipping(half) == without_skipping(plain) == before
    assert list(leaves(skipping)) == list(leaves(plain))
    assert type(with_skipping(plain)) is kind


@pytest.mark.parametrize('wish', [True, False])
def test_loaders_of_a_run(wish):
    cfg = ConfigDict(skip_bad_images=wish, train_dataloader=dict(dataset=LEAF), val_dataloader=None,
                     test_dataloader=dict(dataset=OTHER))
    skip_bad_images(cfg)
    expected = (SKIPPED, OTHER_SKIPPED) if wish else (LEAF, OTHER)
    assert (cfg.train_dataloader.dataset, cfg.test_dataloader.dataset) == expected and cfg.val_dataloader is None
