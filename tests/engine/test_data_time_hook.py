"""The share of the first epoch that was spent waiting for data, from given times."""
import pickle
import re
from types import SimpleNamespace

import pytest
from mmcv.transforms import LoadImageFromFile as MMCVLoadImageFromFile
from mmengine.dataset import Compose
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS
from torch.utils.data import DataLoader

from digit_runs import STEPS, build_runner, log_text
from helpers import make_images
from mmspt.datasets import LoadImageFromFile, image_cache
from mmspt.engine.hooks.data_time_hook import advise
from mmspt.prompts import threads


class Clock:
    """Stands still but for what :class:`Spend` adds."""
    now = 0.

    def __call__(self):
        return self.now


CLOCK = Clock()


@HOOKS.register_module()
class Spend(Hook):
    """Let seconds pass before an iteration (all that counts as loading), in it, and in other hooks after it and after
    validation."""
    priority = 'VERY_LOW'

    def __init__(self, loading=(0., ), working=(1., ), hooks=0., validation=0.):
        self.loading, self.working, self.hooks, self.validation = loading, working, hooks, validation

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        CLOCK.now += self.loading[runner.iter % len(self.loading)]

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        CLOCK.now += self.working[runner.iter % len(self.working)] + self.hooks

    def after_val_epoch(self, runner, metrics=None):
        CLOCK.now += self.validation

    def after_train_epoch(self, runner):
        CLOCK.now += self.validation


@pytest.fixture
def said(tmp_path, monkeypatch):
    """Return the hook's lines in the log of two epochs of three iterations, or of six iterations; the hook comes first
    in the config."""
    monkeypatch.setattr('mmspt.engine.hooks.data_time_hook.perf_counter', CLOCK)

    def run(name='run', spend=(), **changes):
        build_runner(tmp_path / name, epochs=2, **changes, default_hooks=dict(
            data_time=dict(type='mmspt.DataTimeHook'), spend=dict(type='Spend', **dict(spend)),
            checkpoint=dict(type='CheckpointHook', interval=1))).train()
        return re.findall(r'Of the first epoch (.*)', log_text(tmp_path / name))
    return run


BY_ITERATION = dict(train_cfg=dict(by_epoch=False, max_iters=2 * STEPS))
LOOPS = pytest.mark.parametrize('loop', [{}, BY_ITERATION], ids=['by epoch', 'by iteration'])


@pytest.mark.parametrize(('loading', 'working', 'expected'), [
    ((9., 0., 0., 9.), (1., 1., 1., 9.), '0.0% was spent waiting for data'),  # the first iteration starts workers
    ((9., 0.1, 0., 9.), (1., 0.9, 1., 9.), '5.0% was spent waiting for data'),
    ((0., 0.2, 0.4, 0., 0., 0.), (1., 0.8, 0.6, 1., 1., 1.), '30.0% was spent waiting for data: ')])
@LOOPS
def test_share(said, loading, working, expected, loop):
    line, = said(spend=dict(loading=loading, working=working), **loop)
    assert line.startswith(expected) and line.endswith('data') == (not expected.endswith(': '))


@LOOPS
def test_other_hooks_are_no_waiting(said, loop):
    """As those that measure or save after an iteration; their time is the run's."""
    line, = said(spend=dict(loading=(0.5, ), working=(1., ), hooks=8.5), **loop)
    assert line == '5.0% was spent waiting for data'


@pytest.mark.parametrize('loop', [dict(train_cfg=dict(by_epoch=True, max_epochs=2, val_interval=1)),
                                  dict(train_cfg=dict(by_epoch=False, max_iters=2 * STEPS, val_interval=1))],
                         ids=['by epoch', 'by iteration'])
def test_validation_is_no_waiting(said, loop):
    line, = said(spend=dict(loading=(0.5, ), working=(0.5, ), validation=99.), **loop)
    assert line.startswith('50.0% was')


def test_a_resumed_run_counts_its_own(said, tmp_path):
    assert len(said('first', dict(loading=(0.5, ), working=(0.5, )))) == 1
    line, = said('second', dict(loading=(0.01, ), working=(0.99, )), resume=True,
                 load_from=str(tmp_path / 'first/epoch_1.pth'))
    assert line.startswith('1.0% was')


@pytest.mark.parametrize(('cores', 'processes', 'workers', 'cache', 'expected'), [
    (8, 1, 4, None, r"raise train_dataloader.num_workers from 4 \(this process has 8 cores\), or keep .*'memory'.*"),
    (8, 2, 4, None, r"keep decoded images, if they fit, by dict\(type='mmspt.LoadImageFromFile', cache='memory'\)"),
    (8, 2, 0, 'disk', r'raise .* from 0 \(this process has 4 cores\), or wait and see: .*fills the cache.*'),
    (1, 1, 1, 'disk', 'wait and see: .*fills the cache.*'),
    (1, 1, 1, 'MMCV', "keep decoded images, if they fit, by .*cache='memory'.*")])
def test_advice(tmp_path, monkeypatch, cores, processes, workers, cache, expected):
    """More workers where there are cores, a cache where there is none; the data set may be wrapped."""
    items = make_images(tmp_path, 2)
    (tmp_path / 'list.txt').write_text(''.join(f'{path} {label}\n' for path, label in items))
    load = dict(type='LoadImageFromFile') if cache == 'MMCV' else dict(
        type='mmspt.LoadImageFromFile', cache=cache, cache_folder=cache and str(tmp_path / 'cache'))
    dataset = dict(type='CustomDataset', data_root=str(tmp_path), ann_file='list.txt', pipeline=[load])
    monkeypatch.setattr(threads, 'num_cores', lambda: cores)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', str(processes))
    wrapped = DATASETS.build(dict(type='RepeatDataset', dataset=dataset, times=2))
    assert re.fullmatch(expected, advise(DataLoader(wrapped, num_workers=workers)))


@pytest.fixture
def advice(tmp_path, monkeypatch):
    """Return the advice to a pipeline of one loader, of MMCV or of ours, after it has loaded an image."""
    monkeypatch.setattr(threads, 'num_cores', lambda: 1)
    monkeypatch.setattr(image_cache, 'MEMORY', str(tmp_path))
    (path, _), = make_images(tmp_path, 1, classes=1)

    def advice(kind, **options):
        loader = kind(**options)
        loader(dict(img_path=str(tmp_path / path)))
        return advise(DataLoader(SimpleNamespace(pipeline=Compose([loader])), num_workers=1, sampler=[]))
    return advice


def test_advice_where_the_cache_was_refused(advice, tmp_path, monkeypatch):
    monkeypatch.setattr(image_cache, 'MEMORY', str(tmp_path / 'absent'))
    assert advice(LoadImageFromFile, cache='memory') == (
        "give cache='memory' a folder that it can use (its warning at the start says what is wrong)")


@pytest.mark.parametrize('gib', [2**-20, 2**-29])
def test_advice_where_the_cache_is_full(advice, gib):
    text = advice(LoadImageFromFile, cache='memory', cache_gib=gib)
    assert text == 'give the cache of images more room (its warning says how)'


def test_advice_where_the_cache_is_in_another_process(advice, tmp_path):
    """A worker found it full."""
    loader = LoadImageFromFile(cache='memory', cache_gib=2**-20)
    copied = pickle.loads(pickle.dumps(loader))
    copied(dict(img_path=str(next(tmp_path.rglob('*.png')))))
    text = advise(DataLoader(SimpleNamespace(pipeline=Compose([loader])), num_workers=1, sampler=[]))
    assert text == 'give the cache of images more room (its warning says how)'


@pytest.mark.parametrize('options', [dict(cache='memory'), {}])
@pytest.mark.parametrize('kind', [LoadImageFromFile, MMCVLoadImageFromFile])
def test_advice_where_images_are_remote(advice, kind, options):
    if kind is MMCVLoadImageFromFile:
        options = {}
    text = advice(kind, **options, backend_args=dict(backend='mmspt'))
    assert text == 'copy the images to a local disk (no others are kept in memory)'


def test_images_in_memory_need_no_cache(tmp_path):
    loader = build_runner(tmp_path).train_loop.dataloader
    assert 'cache' not in advise(loader)
