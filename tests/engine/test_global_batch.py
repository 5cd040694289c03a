"""A recipe's global batch is the same on any number of processes, and the log says what it is."""
import logging
import re
from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmpretrain.models import ClsDataPreprocessor
from torch import nn
from torch.utils.data import DataLoader

from forked import train_ranks
from helpers import ROOT, scalars
from mmspt.datasets import RoundDownSampler
from mmspt.engine.global_batch import check_last_batch, keep_global_batch
from mmspt.engine.hooks import GlobalBatchHook, global_batch_hook
from mmspt.engine.launch import merge_training_args
from toy import toy_runner

DIGITS = f"""
_base_ = '{ROOT}/configs/spt/vit-xs_mae_digits.py'
train_dataloader = dict(
    dataset=dict(images_per_class=19, pipeline={{{{_base_.test_pipeline}}}}),
    sampler=dict(type='mmspt.RoundDownSampler'), drop_last=True)
param_scheduler = dict(warmup=1, end=4)
train_cfg = dict(max_epochs=4)
default_hooks = dict(logger=dict(interval=1), result=dict(after_train=False), nmi=dict(num_images=2))
"""


def config(batch=32, base=32, launcher='pytorch', **scale):
    return Config(dict(launcher=launcher, train_dataloader=dict(batch_size=batch),
                       auto_scale_lr=dict(base_batch_size=base, **scale)))


@pytest.mark.parametrize(('launcher', 'variable', 'processes', 'share'), [
    ('pytorch', 'WORLD_SIZE', 8, 4), ('slurm', 'SLURM_NTASKS', 32, 1), ('mpi', 'OMPI_COMM_WORLD_SIZE', 1, 32)])
def test_the_recipes_batch_is_divided(launcher, variable, processes, share, monkeypatch):
    monkeypatch.setenv(variable, str(processes))
    cfg = config(launcher=launcher)
    keep_global_batch(cfg)
    assert cfg.train_dataloader.batch_size == share


@pytest.mark.parametrize(('processes', 'given', 'batch'), [(1, False, 32), (2, False, 16), (2, True, 4)])
def test_a_divided_config_is_the_recipe_again(processes, given, batch, monkeypatch):
    """What MMEngine writes into the work directory of eight processes, trained again on another number."""
    monkeypatch.setenv('WORLD_SIZE', '8')
    cfg = config()
    keep_global_batch(cfg)
    again = Config.fromstring(cfg.pretty_text, '.py')
    assert again.train_dataloader.batch_size == 4
    monkeypatch.setenv('WORLD_SIZE', str(processes))
    keep_global_batch(again, batch_given=given)
    assert again.train_dataloader.batch_size == batch
    assert ('divided_among' in again.auto_scale_lr) == (processes > 1 and not given)


@pytest.mark.parametrize(('cfg', 'given'), [
    (config(enable=True), False),  # --auto-scale-lr
    (config(), True),  # on the command line
    (config(batch=8), False),  # a user's config
    (Config(dict(launcher='pytorch', train_dataloader=dict(batch_sampler=dict()),
                 auto_scale_lr=dict(base_batch_size=32))), False),
    (Config(dict(launcher='pytorch', auto_scale_lr=dict(base_batch_size=32))), False),  # tests only
])
def test_other_batches_stay(cfg, given, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '3')
    before = cfg.to_dict()
    keep_global_batch(cfg, batch_given=given)
    assert cfg.to_dict() == before


def test_the_error_names_what_divides_and_the_ways_round(monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '6')
    with pytest.raises(ValueError, match=r'batch of 32, .*there are 6: start 1, 2, 4, 8, 16, 32 of them; .*'
                                         r'--auto-scale-lr; .*train_dataloader\.batch_size=N'):
        keep_global_batch(config())


@pytest.mark.parametrize(('size', 'processes'), [(31, 4), (100, 8)])
def test_round_down_sampler(size, processes, monkeypatch):
    """What the processes read in step k is what one process reads, and all have as many steps."""
    whole = list(DefaultSampler(range(size), seed=3))
    steps = [whole[k * 32:(k + 1) * 32] for k in range(size // 32)]
    found = []
    for rank in range(processes):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, processes))
        sampler = RoundDownSampler(range(size), seed=3)
        own, share = list(sampler), 32 // processes
        assert len(own) == len(sampler)
        found.append([own[k * share:(k + 1) * share] for k in range(len(own) // share)])
    assert [sorted(chain(*parts)) for parts in zip(*found, strict=True)] == [sorted(step) for step in steps]


def log(caplog, monkeypatch, processes, batch, base, accumulated=1, enable=False, loop=EpochBasedTrainLoop):
    monkeypatch.setattr(global_batch_hook.dist, 'get_world_size', lambda: processes)
    loader = type('Loader', (), dict(batch_size=batch, batch_sampler=None, sampler=range(999),
                                     __len__=lambda self: 187))()
    runner = SimpleNamespace(
        train_dataloader=loader, train_loop=object.__new__(loop), max_iters=900, max_epochs=4, model=None,
        param_schedulers=None,
        optim_wrapper=SimpleNamespace(param_groups=[dict(lr=0., initial_lr=0.05), dict(lr=0., initial_lr=0.01)],
                                      _accumulative_counts=accumulated),
        auto_scale_lr=dict(base_batch_size=base, enable=enable), logger=logging.getLogger('global batch'))
    with caplog.at_level(logging.INFO, 'global batch'):
        GlobalBatchHook().before_train(runner)
    return caplog.records


@pytest.mark.parametrize(('processes', 'batch', 'options', 'text', 'warning'), [
    (1, 32, {}, 'batch: 32 (processes: 1, batch size: 32, accumulated: 1); iterations an epoch: 187; rate at its peak: '
                '0.05', ''),
    (8, 1, dict(accumulated=4), '32 (processes: 8, batch size: 1, accumulated: 4);', ''),
    (2, 16, dict(loop=IterBasedTrainLoop), 'iterations in all: 900; rate', ''),
    (8, 32, {}, 'batch: 256 (', 'is 256, 8 times the 32 that .* set train_dataloader.batch_size=4, or'),
])
def test_the_log_states_the_batch_once(processes, batch, options, text, warning, caplog, monkeypatch):
    record, *warnings = log(caplog, monkeypatch, processes, batch, 32, **options)
    assert text in record.message and record.levelno == logging.INFO
    assert [other.levelno for other in warnings] == [logging.WARNING] * bool(warning)
    assert re.search(warning, ''.join(other.message for other in warnings))


@pytest.mark.parametrize(('mean', 'std', 'pixels', 'text'), [
    (120., 60., (0., 255.), ''), (0., 255., (0., 255.), ''),
    (0.5, 0.2, (0., 255.), r'lie in \[-2.5, 1272\]'), (None, None, (0., 255.), r'lie in \[0, 255\]'),
    (120., 60., (-2.6, 2.6), r'lie in \[-2.043, -1.957\]')])
def test_normalized_pixels_on_another_scale(mean, std, pixels, text, caplog):
    """Once, before the first step."""
    options = {} if mean is None else dict(mean=[mean] * 3, std=[std] * 3)
    images = torch.linspace(*pixels, 2 * 3 * 16).view(2, 3, 4, 4)
    net = SimpleNamespace(data_preprocessor=ClsDataPreprocessor(**options))
    runner, hook = SimpleNamespace(model=net, logger=logging.getLogger('range')), GlobalBatchHook()
    for step in range(2):
        hook.before_train_iter(runner, step, dict(inputs=images, data_samples=None))
    assert [bool(re.search(text, record.message)) for record in caplog.records] == [True] * bool(text)


def check(images, batch, norm=nn.BatchNorm1d, max_iters=99, sampler=None, **kwargs):
    data = list(range(images))
    loader = DataLoader(data, batch, sampler=sampler and sampler(data), **kwargs)
    model = SimpleNamespace(neck=None, head=nn.Sequential(norm(4), nn.Linear(4, 3)))
    check_last_batch(loader, batch, model, max_iters)


@pytest.mark.parametrize('options', [
    dict(images=18, batch=8), dict(images=17, batch=8, drop_last=True), dict(images=17, batch=8, norm=nn.LayerNorm),
    dict(images=17, batch=8, max_iters=2), dict(images=17, batch=8, sampler=InfiniteSampler),
    dict(images=17, batch=1, norm=nn.LayerNorm)])
def test_batches_that_batch_norm_can_take(options):
    check(**options)


@pytest.mark.parametrize(('options', 'remedy'), [
    (dict(images=17, batch=8), r'head\.0.* 17 images in batches of 8 .*set train_dataloader.drop_last=True or another'),
    (dict(images=17, batch=8, sampler=DefaultSampler), 'drop_last=True or another batch_size'),
    (dict(images=16, batch=1), 'set train_dataloader.batch_size of 2'),
    (dict(images=5, batch=8, drop_last=True, norm=nn.LayerNorm),
     'none of 5 images in .*drop_last=False, or .* at most 5'),
])
def test_batches_of_one_and_epochs_without_a_batch(options, remedy):
    with pytest.raises(ValueError, match=remedy):
        check(**options)


def run(world_size, folder, *flags):
    """Train four epochs; return the log and the records of the steps."""
    folder.mkdir(exist_ok=True)
    (folder / 'mine.py').write_text(DIGITS)
    arguments = [folder / 'mine.py', '--work-dir', folder / 'run', '--no-validate', *flags]
    codes, outputs = train_ranks(world_size, arguments, folder / 'log', seconds=280)
    assert codes == [0] * world_size, outputs[0]
    return outputs[0], [record for record in scalars(folder / 'run') if 'loss' in record]


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    return run(1, tmp_path_factory.mktemp('alone'))[1]


@pytest.mark.slow
@pytest.mark.parametrize('world_size', [2, 8])
def test_same_rates_and_losses_on_any_number_of_processes(world_size, alone, tmp_path):
    """190 images: MMEngine's own sampler gives 8 processes a sixth iteration an epoch."""
    output, found = run(world_size, tmp_path)
    assert len(found) == len(alone) == 20
    for one, several in zip(alone, found, strict=True):
        assert several['lr'] == one['lr'] and several['loss'] == pytest.approx(one['loss'], abs=1e-4)
    assert f'processes: {world_size}, batch size: {32 // world_size}, accumulated: 1); iterations an epoch: 5' in output
    assert output.count('Global batch:') == 1 and 'The global batch is' not in output


def test_the_hook_is_there_without_our_default_runtime(tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = 'mmpretrain::_base_/default_runtime.py'\n")
    arguments = SimpleNamespace(
        launcher='none', work_dir=None, config='mine.py', no_validate=False, amp=None, resume=None, cfg_options=None,
        auto_scale_lr=False, no_pin_memory=False, no_persistent_workers=False)
    cfg = merge_training_args(Config.fromfile(tmp_path / 'mine.py'), arguments)
    assert cfg.default_hooks.global_batch.type == 'mmspt.GlobalBatchHook'
    arguments.auto_scale_lr = True
    with pytest.raises(ValueError, match=r'--auto-scale-lr needs .*dict\(base_batch_size=N\)'):
        merge_training_args(Config.fromfile(tmp_path / 'mine.py'), arguments)


def test_the_rate_is_scaled_if_the_user_says_so(tmp_path):
    output, found = run(2, tmp_path, '--auto-scale-lr', '--cfg-options', 'train_cfg.max_epochs=2')
    assert '64 (processes: 2, batch size: 32, ' in output
    assert max(record['lr'] for record in found) == pytest.approx(0.1)


OURS = dict(type='mmspt.WarmupCosineLR', warmup=1, eta_min=0., convert_to_iter_based=True)
COSINE = dict(type='CosineAnnealingLR', T_max=3, begin=1, by_epoch=True, convert_to_iter_based=True)
ITERATIONS = dict(by_epoch=False, max_iters=6)


@pytest.mark.parametrize(('scheduler', 'plan', 'last', 'said'), [
    # rates at the 6th of 6 steps, two an epoch: 0.1 (1 + cos(pi (5 - 2) / (6 - 2))) / 2, ...
    (OURS, {}, 0.0146447, ''), (OURS | dict(end=3), {}, 0.0146447, ''),
    (OURS | dict(end=5), {}, 0.0691342, 'ends at epoch 5, the training at epoch 3, so the rate ends on its way down'),
    (OURS | dict(end=2), {}, 0.05, 'ends at epoch 2, the training at epoch 3, so the rate stays as it is then'),
    (OURS | dict(warmup=4), {}, 0.0625, 'warms up for 4 epochs, of which the training has 3, so the rate stays below'),
    (COSINE, {}, 0.05, 'ends at epoch 4, the training at epoch 3'), (COSINE | dict(T_max=2), {}, 0.0146447, ''),
    (dict(type='MultiStepLR', milestones=[1]), {}, 0.01, ''),
    (dict(type='MultiStepLR', milestones=[2, 30, 60]), {}, 0.01, 'MultiStepLR .* at epoch 30, 60, .* ends at epoch 3'),
    (dict(type='LinearLR', start_factor=0.1, end=11), {}, 0.028, 'LinearLR .* acts at epoch 11, which .* never'),
    (dict(type='LinearLR', start_factor=0.1, end=2, convert_to_iter_based=True), {}, 0.1, ''),
    (dict(type='LinearLR', start_factor=0.1, end=2), ITERATIONS, 0.01, 'counts epochs, the run iterations'),
    (OURS | dict(by_epoch=False, warmup=2, convert_to_iter_based=False), ITERATIONS, 0.0146447, ''),
    (OURS | dict(end=4), ITERATIONS, 0.05, 'ends at iteration 8, the training at iteration 6.*set by_epoch=False'),
    (dict(type='CosineAnnealingLR', T_max=3), ITERATIONS, 0.1, 'counts epochs, the run iterations; set by_epoch=False'),
])
def test_a_schedule_is_as_long_as_the_run(scheduler, plan, last, said, tmp_path):
    plan = plan or dict(by_epoch=True, max_epochs=3)
    rates = []

    class Rates(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            rates.append(runner.optim_wrapper.get_lr()['lr'][0])

    runner = toy_runner(tmp_path, [Rates(), GlobalBatchHook()], test=False, plan=plan, param_scheduler=scheduler)
    runner.train()
    assert len(rates) == 6 and rates[-1] == pytest.approx(last, rel=1e-4)
    warnings = [line for path in tmp_path.glob('*/*.log') for line in path.read_text().splitlines()
                if 'WARNING - ' in line and 'param_scheduler' in line]
    assert bool(re.search(said, ''.join(warnings))) and bool(said) == bool(warnings)
