"""Images that a test shares with the training, against folders whose overlap is known."""
import pytest
from mmpretrain.registry import DATASETS
from torch.utils.data import Subset

from helpers import make_images
from mmspt.datasets.overlap import count_shared


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Three classes of six images; another folder has links to the first image of each class, and copies."""
    folder = tmp_path_factory.mktemp('overlap')
    for name, _ in make_images(folder / 'images', 6):
        linked = folder / 'linked' / name
        linked.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith('000.png'):
            linked.symlink_to(folder / 'images' / name)
        else:
            linked.write_bytes((folder / 'images' / name).read_bytes())
    return folder


def build(root, **changes):
    if 'dataset' in changes:
        changes['dataset'] = dict(type='CustomDataset', data_root=str(root), data_prefix='images',
                                  pipeline=[]) | changes['dataset']
        return DATASETS.build(changes)
    return build(root, type='RepeatDataset', times=1, dataset=changes).dataset


ALL, FIRST, LAST = dict(), dict(indices=list(range(9))), dict(indices=list(range(7, 18)))
FOLD = dict(type='KFoldDataset', num_splits=3, seed=0, dataset={})


@pytest.mark.parametrize(('train', 'test', 'shared'), [
    (ALL, ALL, 18), (FIRST, LAST, 2), (dict(indices=7), LAST, 0), (ALL, dict(data_prefix='linked'), 3),
    (dict(FOLD, fold=1), dict(FOLD, fold=1, test_mode=True), 0), (dict(FOLD, fold=1), dict(FOLD, test_mode=True), 6),
    (dict(type='RepeatDataset', times=1000, dataset=FIRST), LAST, 2),
    (dict(type='ClassBalancedDataset', oversample_thr=.5, dataset=FIRST), LAST, 2),
    (dict(type='mmspt.SkipBadImages', dataset=FIRST), LAST, 2),
])
def test_files(root, train, test, shared):
    assert count_shared(build(root, **train), build(root, **test)) == shared


def test_joined_and_cut(root):
    joined = DATASETS.build(dict(type='ConcatDataset', datasets=[build(root, **FIRST), build(root, indices=[17])]))
    assert count_shared(joined, build(root, **LAST)) == 3
    assert count_shared(Subset(joined, [0, 9]), build(root, **LAST)) == 1
    assert count_shared(Subset(build(root, type='RepeatDataset', times=2, dataset=FIRST), [9, 17]), build(root)) == 2
    assert count_shared([1, 2], build(root)) is None


@pytest.mark.parametrize(('train', 'test', 'shared'), [
    (dict(split='train'), dict(split='test'), 0), (dict(split='test', indices=300), dict(split='test'), 300)])
def test_images_in_memory(train, test, shared):
    digits = [DATASETS.build(dict(type='mmspt.Digits', pipeline=[], **changes)) for changes in (train, test)]
    assert count_shared(*digits) == shared
