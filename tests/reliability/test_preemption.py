"""SIGTERM: a checkpoint, exit code 75, and with --resume the result of a run that nobody asked to stop."""
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from mmengine.hooks import Hook
from mmengine.runner.checkpoint import CheckpointLoader

from forked import kill_group, start, start_ranks, train, train_ranks, wait_for_ranks
from mmspt.engine.hooks import PreemptionHook
from outcomes import check_same
from stages import die_at, take_time
from toy import toy_runner


@pytest.mark.parametrize(('stages', 'saved'), [
    (['mid-epoch', 'next iteration'], 'interrupted.pth'),  # a requeued job is often preempted a second time
    (['validation'], 'epoch_2.pth'),
    pytest.param(['tokens'], '', marks=pytest.mark.slow),
    pytest.param(['first step', *['next iteration'] * 7], 'interrupted.pth', marks=pytest.mark.slow),
    pytest.param(['test'], 'epoch_4.pth', marks=pytest.mark.slow),
], ids=lambda value: value[0] if isinstance(value, list) else value)
def test_stop_and_go_on(stages, saved, survive):
    line = survive(*[(die_at, stage, signal.SIGTERM) for stage in stages], code=75, last=saved)
    assert ('Asked to stop after iteration' in line) == bool(saved)


OTHERS = {  # other parts of a config -> (its lines, a stage after which there is no checkpoint yet)
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
    code, output = train([config, '--work-dir', tmp_path / 'whole'], tmp_path / 'log')
    assert code == 0, output
    arguments = [config, '--work-dir', tmp_path / 'run', '--resume']
    code, output = train(arguments, tmp_path / 'log', die_at, stage, signal.SIGTERM)
    assert code == 75 and (tmp_path / 'run' / 'interrupted.pth').exists(), output
    code, output = train(arguments, tmp_path / 'log')
    assert code == 0, output
    states = [CheckpointLoader.load_checkpoint((tmp_path / name / 'last_checkpoint').read_text())
              for name in ('whole', 'run')]
    whole, run = ({**state['state_dict'], **state.get('ema_state_dict', {})} for state in states)
    assert set(whole) == set(run)
    assert [name for name in whole if not whole[name].equal(run[name])] == []


class BreakAndStop(Hook):
    """Sets the weights to NaN and sends SIGTERM."""

    def after_train_iter(self, runner, *args, **kwargs):
        runner.model.weight.data.fill_(float('nan'))
        os.kill(os.getpid(), signal.SIGTERM)


def test_weights_that_diverged_are_not_saved(tmp_path):
    """They would replace the good checkpoint."""
    with pytest.raises(FloatingPointError, match='weights must be finite to be saved, but weight hold NaN'):
        toy_runner(tmp_path, [PreemptionHook(), BreakAndStop()]).train()
    assert not list(tmp_path.glob('*.pth')) and not (tmp_path / 'last_checkpoint').exists()


class Fail(Hook):
    """Raises in the first iteration, as often as told."""
    times = 2

    def after_train_iter(self, runner, *args, **kwargs):
        if self.times:
            self.times -= 1
            raise ZeroDivisionError


def test_signals_go_to_the_earlier_handler_after_a_run_that_raised(tmp_path):
    """MMEngine skips after_run then."""
    heard = []

    def earlier(number, frame):
        heard.append(number)

    runner = toy_runner(tmp_path, [PreemptionHook(), Fail()])
    before = signal.signal(signal.SIGTERM, earlier)
    try:
        with pytest.raises(ZeroDivisionError):
            runner.train()
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM] and signal.getsignal(signal.SIGTERM) is earlier
        with pytest.raises(ZeroDivisionError):
            runner.train()
        runner.train()
        assert signal.getsignal(signal.SIGTERM) is earlier
    finally:
        signal.signal(signal.SIGTERM, before)


def wait_for(path: Path, text: str, process) -> None:
    end = time.monotonic() + 60
    while not (path.exists() and text in path.read_text()):
        assert process.exitcode is None and time.monotonic() < end, path.read_text()[-3000:]
        time.sleep(0.01)


def test_a_signal_goes_on_when_the_runner_is_gone():
    """Whatever the interrupted function is called."""
    def train():
        return hook._is_running(sys._getframe())

    hook = PreemptionHook()
    hook._run = lambda: None
    assert not train()


@pytest.mark.parametrize('options', [dict(signals='SIGTERM'), dict(signals=['SIGNOT']), dict(agree_every=0)], ids=str)
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        PreemptionHook(**options)


def test_loaders_workers_get_the_signal_too(job, undisturbed, tmp_path):
    """As when a cluster asks all processes of a job: a worker that died would end the training before it saved."""
    folder, log = tmp_path / 'run', tmp_path / 'log'
    arguments = [job.config, '--work-dir', folder, '--resume', '--cfg-options', 'train_dataloader.num_workers=2']
    process = start('train.py', arguments, log, take_time)
    wait_for(log, 'Epoch(train) [1]', process)
    kill_group(process, signal.SIGTERM)
    process.join(30)
    assert process.exitcode == 75, log.read_text()[-3000:]
    assert train(arguments, log)[0] == 0
    check_same(folder, undisturbed)


def test_workers_do_not_outlive_the_training(job, tmp_path):
    """They end by themselves when their parent is killed."""
    log = tmp_path / 'log'
    arguments = [job.config, '--work-dir', tmp_path / 'run', '--cfg-options', 'train_dataloader.num_workers=2']
    process = start('train.py', arguments, log, take_time)
    wait_for(log, 'Epoch(train) [1]', process)
    os.kill(process.pid, signal.SIGKILL)
    process.join(20)
    assert process.exitcode == -signal.SIGKILL
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError('its workers are still there')


@pytest.mark.slow
def test_two_processes_stop_after_the_same_iteration(job, tmp_path):
    """One rank's signal is enough."""
    folder, log = tmp_path / 'run', tmp_path / 'log'
    arguments = [job.config, '--work-dir', folder, '--resume', '--cfg-options', 'train_dataloader.batch_size=2',
                 'val_dataloader.batch_size=2', 'default_hooks.preemption.agree_every=4']
    processes = start_ranks(2, arguments, log, take_time)
    wait_for(Path(f'{log}.0'), 'Epoch(train) [1]', processes[0])
    os.kill(processes[1].pid, signal.SIGTERM)
    codes, outputs = wait_for_ranks(processes, log)
    assert codes == [75, 75], outputs
    assert 'Asked to stop after iteration' in outputs[0]
    codes, outputs = train_ranks(2, arguments, log)
    assert codes == [0, 0], outputs
    assert 'Resuming from' in outputs[0]
    assert (folder / 'result.json').exists() and not (folder / 'interrupted.pth').exists()
