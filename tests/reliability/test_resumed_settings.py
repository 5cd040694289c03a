"""Settings that change beside --resume: obeyed as if they had always been so, or refused by name."""
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from mmspt.engine.hooks import ResultHook, ResumeHook
from mmspt.evaluation import read_result
from toy import toy_runner

COSINE = [dict(type='mmspt.WarmupCosineLR', warmup=1, eta_min=0., convert_to_iter_based=True)]
STEPS = [dict(type='LinearLR', start_factor=0.5, begin=0, end=3, by_epoch=False),
         dict(type='MultiStepLR', milestones=[1, 3], gamma=0.1)]
PLATEAU = [dict(type='ReduceOnPlateauLR', monitor='accuracy', rule='greater')]
ADAM = dict(type='AdamW', lr=0.1, weight_decay=0.3)


class Watch(Hook):
    """Notes rate, decay and betas of each step; ends the run after an epoch."""

    def __init__(self, last=None):
        self.seen, self.last = [], last

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        group = runner.optim_wrapper.param_groups[0]
        self.seen.append((group['lr'], group['weight_decay'], group.get('betas', (0, 0))[0]))

    def after_train_epoch(self, runner):
        runner.train_loop.stop_training = runner.epoch + 1 == self.last


class Strip(Hook):
    """Leaves a checkpoint as MMEngine's own run would have made it."""
    priority = 'LOWEST'

    def __init__(self, *keys):
        self.keys = keys

    def before_save_checkpoint(self, runner, checkpoint):
        checkpoint['meta'].pop('mmspt_recipe')
        for key in self.keys:
            checkpoint.pop(key, None)


def run(folder, scheduler=COSINE, epochs=4, optimizer=ADAM, last=None, strip=None, resume=False, initializer='A',
        batch=2, hooks=()):
    """Train for ``epochs`` of two steps, or up to the epoch ``last``; return what was seen, the weights, the runner."""
    watch, plan = Watch(last), dict(by_epoch=True, max_epochs=epochs)
    runner = toy_runner(folder, [watch, ResumeHook(), *hooks], test=bool(hooks), plan=plan, optimizer=optimizer,
                        resume=resume, param_scheduler=scheduler, default_hooks=dict(checkpoint=dict(
                            type='mmspt.CheckpointHook', interval=1)))
    if strip is not None:
        runner.register_hook(Strip(*strip))
    runner.cfg = Config(dict(
        train_cfg=plan, train_dataloader=dict(batch_size=batch),
        optim_wrapper=dict(optimizer=optimizer), param_scheduler=scheduler, resume=resume,
        custom_hooks=[dict(type='PromptInitHook', initializer=dict(type=initializer))]))
    runner.train()
    return watch.seen, runner.model.weight.detach(), runner


@pytest.mark.parametrize('strip', [None, (), ('param_schedulers', )])
@pytest.mark.parametrize(('scheduler', 'changes', 'named'), [
    (COSINE, dict(optimizer=ADAM | dict(lr=0.02)), 'lr'), (COSINE, dict(epochs=6), 'max_epochs'),
    (COSINE, dict(optimizer=ADAM | dict(weight_decay=0.01, betas=(0.8, 0.99))), 'weight_decay'),
    (COSINE, dict(scheduler=[COSINE[0] | dict(warmup=3)]), 'warmup'),
    (STEPS, dict(optimizer=ADAM | dict(lr=0.02)), 'lr'), (COSINE, dict(scheduler=STEPS), 'type'),
    (STEPS, dict(scheduler=[STEPS[0], STEPS[1] | dict(milestones=[2])]), 'milestones'),
])
def test_obeyed(scheduler, changes, named, strip, tmp_path):
    """From there on rates and decays are those of a run that had the new settings from its start."""
    run(tmp_path / 'run', scheduler, last=2, strip=strip)
    seen, _, runner = run(tmp_path / 'run', **dict(scheduler=scheduler) | changes, resume=True)
    expected, _, _ = run(tmp_path / 'other', **dict(scheduler=scheduler) | changes)
    assert len(seen) == len(expected) - 4
    torch.testing.assert_close(torch.tensor(seen, dtype=torch.float64),
                               torch.tensor(expected[4:], dtype=torch.float64), rtol=1e-12, atol=0)
    if strip is None:
        part, = runner.message_hub.get_info('mmspt_resumed')
        assert (part['epoch'], part['iteration']) == (2, 4)
        assert any(named in key for key in part['changed'])


@pytest.mark.parametrize('scheduler', [COSINE, STEPS])
@pytest.mark.parametrize('strip', [None, ()])
def test_the_same_settings_are_the_same_run(scheduler, strip, tmp_path):
    run(tmp_path / 'run', scheduler, last=2, strip=strip)
    seen, weight, runner = run(tmp_path / 'run', scheduler, resume=True)
    expected, whole, _ = run(tmp_path / 'other', scheduler)
    assert seen == expected[4:] and torch.equal(weight, whole)
    assert runner.message_hub.get_info('mmspt_resumed', None) is None


def test_a_plateau_goes_on_through_a_longer_run(tmp_path):
    run(tmp_path, PLATEAU, last=2)
    seen, _, runner = run(tmp_path, PLATEAU, epochs=6, optimizer=ADAM | dict(weight_decay=0.01), resume=True)
    assert seen == [(0.1, 0.01, 0.9)] * 8
    assert runner.param_schedulers[0].end == 6


def test_a_finished_run_keeps_its_record(tmp_path):
    """Nothing is trained with the other batch."""
    run(tmp_path, hooks=[ResultHook()])
    before = read_result(tmp_path / 'result.json')
    run(tmp_path, hooks=[ResultHook()], batch=1, resume=True)
    after = read_result(tmp_path / 'result.json')
    assert (after.recipe, after.resumed) == (before.recipe, None) and after.recipe['global_batch'] == 2
    assert not (tmp_path / 'result.1.json').exists()


@pytest.mark.parametrize(('changes', 'message'), [
    (dict(optimizer=dict(type='SGD', lr=0.1)), r'of another optimizer \(optim_wrapper.optimizer.type AdamW -> SGD\)'),
    (dict(optimizer=ADAM | dict(type='Adam')), 'AdamW -> Adam'),
    (dict(epochs=1), 'at epoch 2 and the run ends at epoch 1'),
    (dict(epochs=2), r'nothing is left to train \(changed: max_epochs 4 -> 2'),
    (dict(epochs=2, optimizer=ADAM | dict(lr=0.02), strip=()), r'nothing is left to train \(changed: initial_lr 0.1'),
    (dict(scheduler=PLATEAU), 'cannot change rate or schedule where the schedule depends on the metrics so far'),
    (dict(initializer='B'), 'prompts have started'),
    (dict(optimizer=dict(type='SGD', lr=0.1), strip=()), 'of another optimizer, without dampening, momentum, nesterov'),
])
def test_refused(changes, message, tmp_path):
    run(tmp_path, last=2, strip=changes.get('strip'))
    before = sorted(tmp_path.glob('*.pth'))
    with pytest.raises(ValueError, match=f'{message}.*: take this back, or train anew'):
        run(tmp_path, **changes, resume=True)
    assert sorted(tmp_path.glob('*.pth')) == before


def test_other_shapes_are_refused(tmp_path):
    run(tmp_path, last=2)
    checkpoint = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)  # our own
    checkpoint['state_dict']['weight'] = torch.zeros(3)
    torch.save(checkpoint, tmp_path / 'epoch_2.pth')
    with pytest.raises(ValueError, match=r'weight is \(3,\) in the checkpoint, \(2,\) in the model: take this back'):
        run(tmp_path, resume=True)
