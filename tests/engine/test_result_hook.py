"""result.json of real runs: after training, after a test, on two processes, and when something is broken."""
import json
from pathlib import Path

import mmpretrain
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from torch.utils.data import DataLoader

from digit_runs import log_text
from forked import train_ranks
from helpers import ROOT, tool
from mmspt.engine.hooks import ResultHook
from mmspt.engine.hooks.result_hook import differences
from mmspt.evaluation.description import recipe_of
from toy import Given, StopAfterOne, toy_runner


def read(folder):
    return json.loads((folder / 'result.json').read_text())


def train(folder, value=50., hook=None, hooks=(), **kwargs):
    toy_runner(folder, [hook or ResultHook(), *hooks], Given(value), **kwargs).train()


def test_after_training(tmp_path):
    train(tmp_path / 'run', randomness=dict(seed=7))
    result = read(tmp_path / 'run')
    assert (result['epoch'], result['max_epochs'], result['finished'], result['seed']) == (2, 2, True, 7)
    assert result['metrics'] == {'accuracy/top1': 50., 'images': 3} and result['num_images'] == 3
    assert result['checkpoint'] == 'epoch_2.pth' and result['versions']['torch'] == torch.__version__
    assert not list((tmp_path / 'run').glob('*.tmp'))


def test_no_test_loader_and_no_test_wanted(tmp_path):
    train(tmp_path / 'none', test=False)
    train(tmp_path / 'off', hook=ResultHook(after_train=False), labels=(0, 9))
    assert not (tmp_path / 'none/result.json').exists() and not (tmp_path / 'off/result.json').exists()


def test_labels_are_checked_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match=r'labels from 0 to 9.*to train without one, set default_hooks\.result'):
        train(tmp_path / 'run', labels=(0, 9))
    assert not list((tmp_path / 'run').glob('*.pth'))


def test_nothing_is_written_without_a_metric(tmp_path):
    train(tmp_path / 'run', float('nan'))
    assert (tmp_path / 'run/epoch_2.pth').exists() and not (tmp_path / 'run/result.json').exists()


def test_a_training_that_was_stopped_early_is_finished(tmp_path):
    train(tmp_path / 'run', hooks=[StopAfterOne()])
    result = read(tmp_path / 'run')
    assert (result['epoch'], result['finished'], result['checkpoint']) == (1, True, 'epoch_1.pth')


class MidwayTest(Hook):
    """A test in the middle of the training."""

    def after_train_epoch(self, runner):
        if runner.epoch == 0:
            runner.test_loop.run()


def test_an_unfinished_test_never_replaces_a_finished_one(tmp_path):
    train(tmp_path / 'run', 60.)
    before = read(tmp_path / 'run')
    train(tmp_path / 'run', 10., hook=ResultHook(after_train=False), hooks=[MidwayTest()])
    assert read(tmp_path / 'run') == before
    assert 'keeps its finished result (epoch 2 of 2' in log_text(tmp_path / 'run')


def test_a_finished_result_of_another_run_is_kept_beside(tmp_path):
    for rate, seed in ((.1, 1), (.1, 1), (.2, 1), (.2, 2)):
        runner = toy_runner(tmp_path, [ResultHook()], Given(100 * rate), randomness=dict(seed=seed))
        runner.cfg.optim_wrapper = dict(optimizer=dict(lr=rate))
        runner.train()
    found = [json.loads((tmp_path / f'result{i}.json').read_text()) for i in ('', '.1', '.2')]
    assert [(result['recipe']['optim_wrapper.optimizer.lr'], result['seed']) for result in found] == [
        (.2, 2), (.1, 1), (.2, 1)]
    assert len(list(tmp_path.glob('result*'))) == 3 and 'which no report counts' in log_text(tmp_path)


@pytest.mark.parametrize(('test', 'shared'), [(range(6, 10), None), (range(4, 10), 2)])
def test_a_fold_is_judged_by_its_images(test, shared, tmp_path):
    """One data set cut by ``indices``: the config's sources agree, the images need not."""
    images = [dict(img=np.full((2, 2), i), gt_label=0) for i in range(10)]
    runner = toy_runner(tmp_path, [ResultHook()])
    for phase, indices in (('train', range(6)), ('test', test)):
        dataset = BaseDataset(lazy_init=True, indices=list(indices), serialize_data=False)
        dataset.load_data_list, dataset.get_cat_ids = lambda: images, lambda index: [0]
        runner.cfg[f'{phase}_dataloader'] = dict(dataset=dict(type='BaseDataset'))
        getattr(runner, f'{phase}_loop').dataloader = DataLoader(dataset, collate_fn=lambda x: torch.ones(len(x), 2))
    runner.train()
    assert read(tmp_path)['trained_on'].get('tested') == shared
    told = f'This run was trained on 2 of the {len(test)} images' in log_text(tmp_path)
    assert told is (shared is not None)


@pytest.mark.parametrize(('changes', 'differ'), [
    ({}, {}), (dict(model=dict(module=dict(backbone=dict(type='A', out_type='raw')))), {}),
    (dict(data_preprocessor=dict(mean=[0.5])), {'data_preprocessor.mean.0': [123., 0.5]}),
    (dict(data_preprocessor=dict(mean=[123.], num_classes=2), optim_wrapper=dict(optimizer=dict(lr=1.))), {}),
    (dict(model=dict(backbone=dict(type='A', out_type='cls_token', drop_path_rate=0.1, init_cfg=dict(type='B')))),
     {'model.backbone.out_type': ['raw', 'cls_token']})])
def test_a_test_in_another_form_than_the_training(changes, differ):
    cfg = dict(data_preprocessor=dict(mean=[123.]), model=dict(backbone=dict(type='A', out_type='raw')))
    assert differences(recipe_of(cfg), Config(cfg | changes)) == differ
    assert differences(None, Config(cfg)) == {}


def test_iterations(tmp_path):
    train(tmp_path / 'run', plan=dict(by_epoch=False, max_iters=3))
    result = read(tmp_path / 'run')
    assert (result['epoch'], result['max_epochs'], result['iteration'], result['max_iters']) == (None, None, 3, 3)
    assert result['finished']


def test_a_test_names_its_checkpoint_and_keeps_a_finished_result(tmp_path):
    """The checkpoint's epoch and seed count, not the test's; a finished training's result stays."""
    run, alone = tmp_path / 'run', tmp_path / 'alone'

    def test(folder, value, epoch):
        toy_runner(folder, [ResultHook()], Given(value), load_from=str(run / f'epoch_{epoch}.pth'),
                   randomness=dict(seed=3)).test()
        result = read(folder)
        return result['epoch'], result['finished'], result['seed'], result['metrics']['accuracy/top1']

    train(run, 60., randomness=dict(seed=7))
    assert [test(run, 10. * epoch, epoch) for epoch in (1, 2)] == [(2, True, 7, 60.)] * 2
    assert read(run)['trained_on'] is not None
    assert [test(alone, 10. * epoch, epoch) for epoch in (1, 2, 1)] == [
        (1, False, 7, 10.), (2, True, 7, 20.), (2, True, 7, 20.)]
    assert read(alone)['trained_on'] is None and read(alone)['checkpoint'] == str(run / 'epoch_2.pth')


def test_the_weights_of_an_average_are_tested(tmp_path):
    """With EMAHook the checkpoint holds the average, and so does what is tested."""
    sums = []

    class Watch(Given):
        def compute_metrics(self, results):
            sums.append(results[0]['weight'])
            return super().compute_metrics(results)

    runner = toy_runner(tmp_path / 'run', [ResultHook(), dict(type='EMAHook', momentum=.5)], Watch())
    runner.train()
    saved = torch.load(tmp_path / 'run/epoch_2.pth', weights_only=False)['state_dict']['weight']
    assert sums == [pytest.approx(saved.sum().item())] and sums[0] != runner.model.weight.sum().item()


CONFIG = """
_base_ = {base!r}
train_cfg = dict(max_epochs=1)
param_scheduler = dict(warmup=1, end=2)
train_dataloader = dict(dataset=dict(images_per_class=8))
pretraining = 'MAE'
"""


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    """A config of the digits' that trains for one epoch of three iterations."""
    path = tmp_path_factory.mktemp('digits') / 'short_digits.py'
    path.write_text(CONFIG.format(base=str(ROOT / 'configs/spt/vit-xs_mae_digits.py')))
    return path


@pytest.fixture(scope='module')
def run(digits):
    """A run of tools/train.py with seed 5."""
    tool('train.py', digits, '--work-dir', digits.parent / 'run', '--cfg-options', 'randomness.seed=5')
    return digits.parent / 'run'


def test_tools_write_the_whole_description(digits, run, tmp_path):
    """tools/train.py, tools/test.py and MMPretrain's own test.py write the same."""
    trained = read(run)
    expected = dict(config='short_digits', task='Digits', group='Other', split='test', num_images=500,
                    trained_on=dict(dataset='Digits', split='train'), method='SPT-Deep', initializer='RandomSampleInit',
                    num_prompts=20, arch='custom', pretraining='MAE', tta=False, seed=5, epoch=1, max_epochs=1,
                    finished=True, checkpoint='epoch_1.pth')
    assert {key: trained[key] for key in expected} == expected
    assert trained['recipe']['optim_wrapper.optimizer.lr'] == 5e-2 and trained['recipe']['global_batch'] == 32

    checkpoint = run / 'epoch_1.pth'
    stock = Path(mmpretrain.__file__).parent / '.mim/tools/test.py'
    for name, script in (('ours', 'test.py'), ('stock', stock)):
        tool(script, digits, checkpoint, '--work-dir', tmp_path / name)
    ours, theirs = read(tmp_path / 'ours'), read(tmp_path / 'stock')
    assert ours == theirs
    assert ours['metrics'] == trained['metrics']
    changed = {key for key in trained if trained[key] != ours[key]}
    assert changed == {'trained_on', 'recipe', 'checkpoint'} and ours['checkpoint'] == str(checkpoint)


def test_the_test_leaves_the_training_as_it_was(digits, run, tmp_path):
    """Same weights with the hook and without."""
    tool('train.py', digits, '--work-dir', tmp_path / 'without', '--cfg-options', 'randomness.seed=5',
         'default_hooks.result.after_train=False')
    states = [torch.load(path / 'epoch_1.pth', weights_only=False)['state_dict']
              for path in (run, tmp_path / 'without')]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert not (tmp_path / 'without/result.json').exists()


def test_two_processes(digits, tmp_path):
    """Every image counts once, one process writes, and the recipe has the global batch."""
    arguments = [digits, '--work-dir', tmp_path / 'two', '--cfg-options', 'train_dataloader.batch_size=16',
                 'test_dataloader.batch_size=33']
    codes, outputs = train_ranks(2, arguments, tmp_path / 'log')
    assert codes == [0, 0], outputs
    result = read(tmp_path / 'two')
    assert result['num_images'] == 500 and result['finished'] and result['recipe']['global_batch'] == 32
    right = result['metrics']['accuracy/top1'] / 100 * 500
    assert right == pytest.approx(round(right), abs=1e-3)


def test_a_broken_test_set_is_known_before_work_is_lost(tmp_path):
    config = tmp_path / 'job.py'
    config.write_text(f"""
_base_ = {str(ROOT / 'configs/spt/vit-xs_mae_digits.py')!r}
test_dataloader = dict(dataset=dict(_delete_=True, type='CustomDataset', data_root={str(tmp_path / 'absent')!r}))
""")
    output = tool('train.py', config, '--work-dir', tmp_path / 'run', fails=True)
    assert 'test_dataloader must read what exists' in output and 'default_hooks.result.after_train=False' in output
    assert not list((tmp_path / 'run').glob('*.safetensors'))
