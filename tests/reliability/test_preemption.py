"""SIGTERM: a checkpoint, exit code 75, and with --resume the result of a run that nobody asked to stop."""
import os
import signal
import time
from pathlib import Path

import pytest
from mmengine.runner.checkpoint import CheckpointLoader

from forked import kill_group, start_ranks, start_training, train, train_ranks, wait_for_ranks
from mmspt.engine.hooks import PreemptionHook
from outcomes import check_same
from stages import die_as, die_at, take_time

SAVED = {  # stage -> checkpoint to go on from; None before there is one
    'data': None,
    'tokens': None,
    'first step': 'interrupted.pth',
    'mid-epoch': 'interrupted.pth',
    'file 6 half written': 'epoch_2.pth',
    'validation': 'epoch_2.pth',
    'after the last epoch': 'epoch_4.pth',
    'test': 'epoch_4.pth',
}
FAST = ('tokens', 'mid-epoch', 'validation')


@pytest.mark.parametrize('stage', [
    pytest.param(stage, marks=[] if stage in FAST else [pytest.mark.slow]) for stage in SAVED])
def test_stop_and_go_on(stage, job, undisturbed, tmp_path):
    folder = tmp_path / 'run'
    arguments = [job.config, '--work-dir', folder, '--resume']
    code, output = train(arguments, tmp_path / 'log', die_at, stage, signal.SIGTERM)
    assert code == (-signal.SIGTERM if stage == 'data' else 75), output
    if SAVED[stage]:
        assert (folder / 'last_checkpoint').read_text() == str(folder / SAVED[stage])
        assert 'Asked to stop after iteration' in output.splitlines()[-1]
    else:
        assert not list(folder.glob('*.pth'))
    code, output = train(arguments, tmp_path / 'log')
    assert code == 0, output
    check_same(folder, undisturbed)


@pytest.mark.parametrize('disturbances', [
    [('mid-epoch', signal.SIGTERM), ('next iteration', signal.SIGTERM)],
    pytest.param([('mid-epoch', signal.SIGTERM), ('next epoch', signal.SIGKILL)], marks=pytest.mark.slow),
    pytest.param([('end of an epoch', signal.SIGTERM), ('next epoch', signal.SIGKILL)], marks=pytest.mark.slow),
    pytest.param([('first step', signal.SIGTERM), *[('next iteration', signal.SIGTERM)] * 7], marks=pytest.mark.slow),
], ids=lambda pairs: ', '.join(f'{stage} {number.name}' for stage, number in pairs[:2]))
def test_stopped_again(disturbances, job, undisturbed, tmp_path):
    """A requeued job is often preempted a second time, in the same epoch or the next."""
    arguments = [job.config, '--work-dir', tmp_path / 'run', '--resume']
    for disturbance in disturbances:
        code, output = train(arguments, tmp_path / 'log', die_at, *disturbance)
        assert code == (75 if disturbance[1] == signal.SIGTERM else -9), output
    code, output = train(arguments, tmp_path / 'log')
    assert code == 0, output
    check_same(tmp_path / 'run', undisturbed)


OTHERS = {  # what else a config may have -> (its lines, a stage after which there is no checkpoint yet)
    'averaged weights': ("custom_hooks = _base_.custom_hooks + [dict(type='EMAHook')]\n", 'validation'),
    'accumulated gradients': ('optim_wrapper = dict(accumulative_counts=2)\n', 'next but one iteration'),
    'iterations': ("train_cfg = dict(_delete_=True, by_epoch=False, max_iters=12, val_interval=3)\n"
                   "param_scheduler = dict(by_epoch=False, convert_to_iter_based=False, warmup=3, end=12)\n"
                   "train_dataloader = dict(sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True))\n",
                   'iteration'),
}


@pytest.mark.slow
@pytest.mark.parametrize('other', OTHERS)
def test_stop_of_other_trainings(other, job, tmp_path):
    extra, stage = OTHERS[other]
    by_epoch = other != 'iterations'
    config = tmp_path / 'other.py'
    config.write_text(f"_base_ = {job.config!r}\n{extra}default_hooks = dict(checkpoint=dict(interval=100, "
                      f"by_epoch={by_epoch}, max_keep_ckpts=1, save_best=None))\n")
    weights = []
    for folder, before in ((tmp_path / 'whole', ()), (tmp_path / 'run', (die_at, stage, signal.SIGTERM))):
        arguments = [config, '--work-dir', folder, '--resume']
        code, output = train(arguments, tmp_path / 'log', *before)
        if before:
            assert code == 75 and (folder / 'interrupted.pth').exists(), output
            code, output = train(arguments, tmp_path / 'log')
        assert code == 0, output
        last = CheckpointLoader.load_checkpoint((folder / 'last_checkpoint').read_text())
        weights.append(last['state_dict'] | last.get('ema_state_dict', {}))
    assert len(weights[0]) == len(weights[1])
    for name, weight in weights[0].items():
        assert weight.equal(weights[1][name]), name


def test_weights_that_diverged_are_not_saved(job, undisturbed, tmp_path):
    """They would stand in the way of the good checkpoint."""
    arguments = [job.config, '--work-dir', tmp_path / 'run', '--resume']
    code, output = train(arguments, tmp_path / 'log', break_and_stop)
    assert code == 1 and 'weights must be finite to be saved' in output.splitlines()[-1]
    assert not (tmp_path / 'run' / 'interrupted.pth').exists()
    assert train(arguments, tmp_path / 'log')[0] == 0
    check_same(tmp_path / 'run', undisturbed)


def break_and_stop() -> None:
    from mmengine.hooks import ParamSchedulerHook

    step = ParamSchedulerHook.after_train_iter

    def breaking(self, runner, *args, **kwargs):
        step(self, runner, *args, **kwargs)
        if runner.iter == 7:
            runner.model.backbone.prompts.data.fill_(float('nan'))
            os.kill(os.getpid(), signal.SIGTERM)

    ParamSchedulerHook.after_train_iter = breaking


def wait_for(path: Path, text: str, process) -> None:
    end = time.monotonic() + 60
    while not (path.exists() and text in path.read_text()):
        assert process.exitcode is None and time.monotonic() < end, path.read_text()[-3000:]
        time.sleep(0.01)


def test_loaders_workers_get_the_signal_too(job, undisturbed, tmp_path):
    """As when a cluster asks all processes of a job: a worker that died would end the training before it saved."""
    folder, log = tmp_path / 'run', tmp_path / 'log'
    arguments = [job.config, '--work-dir', folder, '--resume', '--cfg-options', 'train_dataloader.num_workers=2']
    process = start_training(arguments, log, take_time)
    wait_for(log, 'Epoch(train) [1]', process)
    kill_group(process, signal.SIGTERM)
    process.join(30)
    assert process.exitcode == 75, log.read_text()[-3000:]
    assert train(arguments, log)[0] == 0
    check_same(folder, undisturbed)


@pytest.mark.parametrize('number', [signal.SIGKILL, 0], ids=['killed', 'an error'])
def test_workers_do_not_outlive_the_training(number, job, tmp_path):
    """They heed their parent alone; where it dies they go by themselves, and do not hold up the end of a failed run."""
    log = tmp_path / 'log'
    arguments = [job.config, '--work-dir', tmp_path / 'run', '--cfg-options', 'train_dataloader.num_workers=2']
    process = start_training(arguments, log, *([take_time] if number else [die_at, 'mid-epoch', 0]))
    wait_for(log, 'Epoch(train) [1]', process)
    if number:
        os.kill(process.pid, number)
    process.join(20)
    assert process.exitcode == (-number or 1)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError('its workers are still there')


@pytest.mark.slow
@pytest.mark.parametrize('asked', [0, 1, None], ids=['rank 0', 'rank 1', 'all'])
def test_two_processes_agree(asked, job, undisturbed, tmp_path):
    """One rank's signal stops both after the same iteration."""
    folder, log = tmp_path / 'run', tmp_path / 'log'
    arguments = [job.config, '--work-dir', folder, '--resume', '--cfg-options', 'train_dataloader.batch_size=2',
                 'val_dataloader.batch_size=2', 'default_hooks.preemption.agree_every=4']
    processes = start_ranks(2, arguments, log, take_time)
    wait_for(Path(f'{log}.0'), 'Epoch(train) [1]', processes[0])
    for rank, process in enumerate(processes):
        if asked in (rank, None):
            os.kill(process.pid, signal.SIGTERM)
    codes, outputs = wait_for_ranks(processes, log)
    assert codes == [75, 75], outputs
    assert 'Asked to stop after iteration' in outputs[0]
    codes, outputs = train_ranks(2, arguments, log)
    assert codes == [0, 0], outputs
    assert 'Resuming from' in outputs[0]
    assert (folder / 'result.json').exists() and not (folder / 'interrupted.pth').exists()


@pytest.mark.slow
def test_validations_of_unequal_length(job, tmp_path):
    """Three batches on one process and two on the other: they may only meet where both are."""
    log = tmp_path / 'log'
    (tmp_path / 'five.txt').write_text('\n'.join((job.data / 'val.txt').read_text().splitlines()[:5]))
    arguments = [job.config, '--work-dir', tmp_path / 'run', '--cfg-options', 'train_dataloader.batch_size=2',
                 'val_dataloader.batch_size=1', 'val_dataloader.sampler.round_up=False',
                 f'val_dataloader.dataset.ann_file={tmp_path / "five.txt"}', 'default_hooks.preemption.agree_every=1']
    codes, outputs = train_ranks(2, arguments, log, seconds=60)
    assert codes == [0, 0], outputs


@pytest.mark.slow
@pytest.mark.parametrize('rank', [0, 1])
def test_ranks_agree_at_the_end(rank, job, tmp_path):
    arguments = [job.config, '--work-dir', tmp_path / 'run', '--cfg-options', 'train_dataloader.batch_size=2',
                 'default_hooks.preemption.agree_every=1000', 'train_cfg.val_interval=100']
    codes, outputs = train_ranks(2, arguments, tmp_path / 'log', die_as, rank, 'test', signal.SIGTERM, seconds=60)
    assert codes == [75, 75], outputs
    assert (tmp_path / 'run' / 'epoch_4.pth').exists()


@pytest.mark.parametrize(('options', 'message'), [
    (dict(signals='SIGTERM'), "signals must be a list of names such as 'SIGTERM', got 'SIGTERM'"),
    (dict(signals=['TERM']), r"signals must be .* got \['TERM'\]"),
    (dict(agree_every=0), 'agree_every must be a whole number of at least 1, got 0'),
])
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        PreemptionHook(**options)
