"""SkipBadImages leaves out what cannot be loaded, and is in all else the data set that it wraps."""
import copy
import pickle
from datetime import timedelta

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import DefaultSampler, pseudo_collate
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image
from torch.utils.data import DataLoader

from helpers import make_images, spawn_two
from mmspt.datasets import SkipBadImages
from mmspt.datasets import skip_bad_images as module
from mmspt.datasets.skip_bad_images import find_bad_images
from mmspt.datasets.wrappers import leaves, skip_bad_images, with_skipping, without_skipping
from mmspt.engine.token_loader import SeededImages

PIPELINE = [dict(type='mmspt.LoadImageFromFile', max_pixels=5000), dict(type='Resize', scale=32),
            dict(type='PackInputs')]
DAMAGE = {  # index of the image -> what is done to it, and what is said of it
    1: (lambda path: path.write_bytes(b''), 'ValueError: the file is empty'),
    4: (lambda path: path.write_bytes(path.read_bytes()[:-400]), 'finds no image in it that is whole'),
    5: (lambda path: path.unlink(), 'FileNotFoundError'),
    8: (lambda path: path.write_bytes(b'<html>404</html>'), 'finds no image in it'),
    9: (lambda path: Image.new('1', (80, 90)).save(path), '80 x 90 pixels are over'),
}
KEPT = [0, 2, 3, 6, 7, 10, 11]


def config(root, **kwargs):
    return dict(type='CustomDataset', data_root=str(root), ann_file='list.txt', pipeline=PIPELINE) | kwargs


def make_data(root):
    items = make_images(root, per_class=4)
    (root / 'list.txt').write_text('\n'.join(f'{path} {label}' for path, label in items))
    for index, (spoil, _) in DAMAGE.items():
        spoil(root / items[index][0])
    return [str(root / path) for path, _ in items]


@pytest.fixture
def paths(tmp_path):
    """Paths of twelve images, four for each class; five are damaged."""
    return make_data(tmp_path)


@pytest.fixture
def build(tmp_path):
    def build(**kwargs):
        return DATASETS.build(dict(type='mmspt.SkipBadImages', dataset=config(tmp_path, **kwargs)))
    return build


def labels(dataset):
    return [int(dataset[i]['data_samples'].gt_label) for i in range(len(dataset))]


def test_bad_images_are_left_out(paths, build):
    dataset = build()
    assert len(dataset) == 7
    assert [dataset[i]['data_samples'].img_path for i in range(7)] == [paths[i] for i in KEPT]
    assert labels(dataset) == [i // 4 for i in KEPT]
    assert [path for path, _ in dataset.bad_images] == [paths[i] for i in DAMAGE]
    for (_, reason), (_, expected) in zip(dataset.bad_images, DAMAGE.values(), strict=True):
        assert expected in reason and '\n' not in reason and 'fetch it again' not in reason


def test_the_rest_is_the_data_sets_own(paths, build, tmp_path):
    dataset, plain = build(test_mode=True), DATASETS.build(config(tmp_path))
    assert dataset.metainfo == plain.metainfo and dataset.CLASSES == plain.CLASSES and dataset.test_mode
    assert [dataset.get_cat_ids(i) for i in range(7)] == [[i // 4] for i in KEPT]
    np.testing.assert_array_equal(dataset.get_gt_labels(), [i // 4 for i in KEPT])
    assert dataset.get_data_info(1)['img_path'] == paths[2] and dataset.get_data_info(1)['sample_idx'] == 1
    assert dataset.prepare_data(2)['data_samples'].img_path == paths[3]
    assert len(dataset.pipeline.transforms) == 3
    assert not hasattr(dataset, 'no_such_thing')
    assert sorted(DefaultSampler(dataset, shuffle=True, seed=1)) == list(range(7))
    loader = DataLoader(dataset, batch_size=4, num_workers=1, collate_fn=pseudo_collate)
    assert [sample.img_path for batch in loader for sample in batch['data_samples']] == [paths[i] for i in KEPT]


def test_copies(paths, build):
    for dataset in (copy.deepcopy(build()), pickle.loads(pickle.dumps(build()))):
        assert labels(dataset) == [i // 4 for i in KEPT] and len(dataset.bad_images) == 5


def test_all_bad(paths, build, tmp_path):
    for path in paths:
        (tmp_path / path).write_bytes(b'')
    with pytest.raises(ValueError, match=r"none of the 12 of CustomDataset can, '.*class_0/000\.png' first .*is empty"):
        build()


def test_lazy(paths, tmp_path, monkeypatch):
    """Nothing is read until it is needed, but the classes are known."""
    tried = []
    monkeypatch.setattr(module, 'try_images', lambda dataset, indices: tried.append(len(indices)) or [])
    dataset = SkipBadImages(config(tmp_path, lazy_init=True, metainfo=dict(classes=('a', 'b', 'c'))), lazy_init=True)
    assert dataset.metainfo['classes'] == ('a', 'b', 'c') and not tried
    dataset.full_init()
    dataset.full_init()
    assert tried == [12]


@pytest.mark.parametrize('ask', [len, lambda dataset: len(dataset.get_gt_labels()),
                                 lambda dataset: len(dataset.get_subset(list(range(7)))) and dataset[6] and 7],
                         ids=['len', 'delegated', 'subset'])
def test_lazy_data_set_is_filtered_before_anything_is_asked(paths, tmp_path, ask):
    assert ask(SkipBadImages(config(tmp_path, lazy_init=True), lazy_init=True)) == 7


def test_own_pipeline_decides(paths, build):
    """MMCV's loader takes the large one; without a loader there is nothing to try."""
    dataset = build(pipeline=[dict(type='LoadImageFromFile'), *PIPELINE[1:]])
    assert paths[9] not in [path for path, _ in dataset.bad_images] and len(dataset) == 8
    dataset = build(pipeline=[dict(PIPELINE[0], max_pixels=7200), *PIPELINE[1:]])
    assert paths[9] not in [path for path, _ in dataset.bad_images] and len(dataset) == 8
    dataset = build(pipeline=[dict(PIPELINE[0], ignore_empty=True), *PIPELINE[1:]])
    assert len(dataset) == 7
    assert len(build(pipeline=[])) == 12


@pytest.mark.parametrize(('wrapper', 'length'), [
    (lambda inner: dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[inner]), times=2), 14),
    (lambda inner: dict(type='KFoldDataset', dataset=inner, num_splits=7, fold=2, test_mode=True), 1),
], ids=['repeat of concat', 'fold'])
def test_within_other_wrappers(paths, tmp_path, wrapper, length):
    dataset = DATASETS.build(wrapper(dict(type='mmspt.SkipBadImages', dataset=config(tmp_path))))
    dataset.full_init()
    assert len(dataset) == length and len(labels(dataset)) == length
    assert {path for path, _ in find_bad_images(dataset)} == {paths[i] for i in DAMAGE}


def test_around_other_wrappers(tmp_path, paths):
    good = config(tmp_path)
    with pytest.raises(ValueError, match='got RepeatDataset: put it around each data set within'):
        SkipBadImages(dict(type='RepeatDataset', dataset=good, times=2))


def test_pipeline_can_be_replaced(paths, build):
    """As PromptInitHook(pipeline=...) does, on a copy: the data set itself keeps its own."""
    dataset = build()
    small = [dict(type='mmspt.LoadImageFromFile'), dict(type='Resize', scale=16), dict(type='PackInputs')]
    images = SeededImages(dataset, [0, 3], seed=0, pipeline=small)
    assert [tuple(images[i]['inputs'].shape) for i in range(2)] == [(3, 16, 16)] * 2
    assert images[1]['data_samples'].img_path == paths[KEPT[3]]
    assert tuple(dataset[0]['inputs'].shape) == (3, 32, 32)


def _two_processes(rank, folder):
    """Share the work; then rank 1 fails in two places in turn; then rank 0 alone needs a lazy data set."""
    torch.distributed.init_process_group('gloo', f'file://{folder}/rendezvous', timedelta(seconds=120), 2, rank)
    init_default_scope('mmpretrain')
    tried, try_images = [], module.try_images
    module.try_images = lambda dataset, indices: tried.append(list(indices)) or try_images(dataset, indices)
    dataset = SkipBadImages(config(folder))
    shared = tried[:], dataset.bad_images, [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]

    def fail(*_):
        raise KeyError('only here')

    errors = []
    for place in ('build', 'get_data_info'):
        broken = config(folder, ann_file='absent.txt' if rank and place == 'build' else 'list.txt')
        if place == 'get_data_info':
            broken = DATASETS.build(broken)
            broken.get_data_info = fail if rank else broken.get_data_info
        try:
            SkipBadImages(broken)
        except Exception as error:
            errors.append(f'{type(error).__name__}: {error}')
    lazy, asked = SkipBadImages(config(folder), lazy_init=True), None
    if rank == 0:
        loader = DataLoader(lazy, batch_sampler=[[0, 6]], num_workers=1, collate_fn=pseudo_collate)
        asked = [sample.img_path for batch in loader for sample in batch['data_samples']], len(lazy)
    torch.save([*shared, errors, asked], f'{folder}/{rank}.pt')
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_share_the_work_and_agree(paths, tmp_path):
    """An error on one is an error on all; a lazy data set may be asked on one alone, by a worker too."""
    spawn_two(_two_processes, tmp_path)
    (tried, *first, heard, asked), (tried_too, *second, raised, _) = (
        torch.load(tmp_path / f'{rank}.pt') for rank in range(2))
    assert tried == [list(range(0, 12, 2))] and tried_too == [list(range(1, 12, 2))]
    assert first == second
    bad, kept = first
    assert [path for path, _ in bad] == [paths[i] for i in DAMAGE] and kept == [paths[i] for i in KEPT]
    assert [text.split(':')[0] for text in raised] == ['FileNotFoundError', 'KeyError']
    assert all(f'rank 1: {text}' in line for line, text in zip(heard, raised, strict=True))
    assert all(text.startswith('RuntimeError: all processes must try') for text in heard)
    assert asked == ([paths[KEPT[0]], paths[KEPT[6]]], 7)


def test_worker_waits_for_nobody(paths, build, monkeypatch):
    monkeypatch.setattr(module, 'get_worker_info', object)
    monkeypatch.setattr(module.dist, 'all_gather_object', lambda *_: pytest.fail('a worker is no rank'))
    assert len(build()) == 7


LEAF = dict(type='CustomDataset', data_root='a')
OTHER = dict(type='CustomDataset', data_root='b')
SKIPPED, OTHER_SKIPPED = (dict(type='mmspt.SkipBadImages', dataset=leaf) for leaf in (LEAF, OTHER))
CONFIGS = [  # without, with
    (LEAF, SKIPPED),
    (dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[LEAF, OTHER])),
     dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[SKIPPED, OTHER_SKIPPED]))),
]


@pytest.mark.parametrize('kind', [dict, ConfigDict])
@pytest.mark.parametrize(('plain', 'skipping'), CONFIGS, ids=['leaf', 'repeat of concat'])
def test_configs(plain, skipping, kind):
    plain, skipping = kind(plain), kind(skipping)
    before = copy.deepcopy(plain)
    assert with_skipping(plain) == skipping == with_skipping(skipping)
    assert without_skipping(skipping) == plain == without_skipping(plain) == before
    assert list(leaves(skipping)) == list(leaves(plain))
    assert type(with_skipping(plain)) is kind


def test_half_of_a_config_skips_already():
    half, inner = (dict(type='ConcatDataset', datasets=[first, OTHER]) for first in (SKIPPED, LEAF))
    assert with_skipping(half) == dict(type='ConcatDataset', datasets=[SKIPPED, OTHER_SKIPPED])
    assert without_skipping(half) == inner
    by_class = dict(type=SkipBadImages, dataset=LEAF)
    assert with_skipping(by_class) is by_class and without_skipping(by_class) == LEAF


@pytest.mark.parametrize('wish', [True, False])
def test_loaders_of_a_run(wish):
    cfg = ConfigDict(skip_bad_images=wish, train_dataloader=dict(dataset=LEAF), val_dataloader=None,
                     test_dataloader=dict(dataset=OTHER))
    skip_bad_images(cfg)
    skip_bad_images(cfg)
    expected = (SKIPPED, OTHER_SKIPPED) if wish else (LEAF, OTHER)
    assert (cfg.train_dataloader.dataset, cfg.test_dataloader.dataset) == expected and cfg.val_dataloader is None
