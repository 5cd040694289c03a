"""The share of the first epoch that was spent waiting for data, from given times."""
import re

import pytest
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS
from torch.utils.data import DataLoader

from digit_runs import STEPS, build_runner, log_text
from helpers import make_images
from mmspt.engine.hooks.data_time_hook import advise


@HOOKS.register_module()
class GivenTimes(Hook):
    """In IterTimerHook's place: seconds of waiting and of working, by turns."""

    def __init__(self, seconds):
        self.seconds = seconds

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.waited, worked = self.seconds[runner.iter % len(self.seconds)]
        runner.message_hub.update_scalar('train/data_time', self.waited)
        self.time = self.waited + worked

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        runner.message_hub.update_scalar('train/time', self.time)


def said(tmp_path, seconds, **changes):
    """The hook's lines in the log of two epochs of three iterations, and of three for a loop by iterations."""
    timer = seconds and dict(type='GivenTimes', seconds=seconds)
    hooks = dict(timer=timer, checkpoint=dict(type='CheckpointHook', interval=1),
                 data_time=dict(type='mmspt.DataTimeHook'))
    build_runner(tmp_path, epochs=2, default_hooks=hooks, **changes).train()
    return re.findall(r'Of the first epoch (.*)', log_text(tmp_path))


@pytest.mark.parametrize(('seconds', 'expected'), [
    ([(9., 1.), (0., 1.), (0., 1.), (9., 9.)], '0.0% was spent waiting for data'),  # the first iteration starts workers
    ([(9., 1.), (0.1, 0.9), (0.0, 1.), (9., 9.)], '5.0% was spent waiting for data'),
    ([(0., 1.), (0.2, 0.8), (0.4, 0.6), (0., 1.), (0., 1.), (0., 1.)], '30.0% was spent waiting for data: ')])
@pytest.mark.parametrize('by_epoch', [True, False])
def test_share(tmp_path, seconds, expected, by_epoch):
    loop = {} if by_epoch else dict(train_cfg=dict(by_epoch=False, max_iters=2 * STEPS))
    line, = said(tmp_path, seconds, **loop)
    assert line.startswith(expected) and line.endswith('data') == (not expected.endswith(': '))


def test_without_times(tmp_path):
    assert said(tmp_path, None) == []


def test_a_resumed_run_counts_its_own(tmp_path):
    assert len(said(tmp_path / 'first', [(0.5, 0.5)])) == 1
    line, = said(tmp_path / 'second', [(0.01, 0.99)], resume=True, load_from=str(tmp_path / 'first/epoch_1.pth'))
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
    monkeypatch.setattr('mmspt.engine.hooks.data_time_hook.num_cores', lambda: cores)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', str(processes))
    wrapped = DATASETS.build(dict(type='RepeatDataset', dataset=dataset, times=2))
    assert re.fullmatch(expected, advise(DataLoader(wrapped, num_workers=workers)))


def test_images_in_memory_need_no_cache(tmp_path):
    loader = build_runner(tmp_path).train_loop.dataloader
    assert 'cache' not in advise(loader)
