"""SIGTERM: a checkpoint, exit code 75, and with --resume the result of a run that nobody asked to stop."""
import os
import signal
import time
from pathlib import Path

import pytest

from forked import kill_group, start_ranks, start_training, train, train_ranks, wait_for_ranks
from mmspt.engine.hooks import PreemptionHook
from outcomes import check_same
from stages import die_at

SAVED = {  # stage -> checkpoint to go on from; None before there is one
    'data': None,
    'tokens': None,
    'first step': 'interrupted.pth',
    'mid-epoch': 'interrupted.pth',
    'file 4 half written': 'epoch_2.pth',
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


def wait_for(path: Path, text: str, process) -> None:
    end = time.monotonic() + 60
    while not (path.exists() and text in path.read_text()):
        assert process.exitcode is None and time.monotonic() < end, path.read_text()[-3000:]
        time.sleep(0.01)


def test_loaders_workers_get_the_signal_too(job, undisturbed, tmp_path):
    """As when a cluster asks all processes of a job: a worker that died would end the training before it saved."""
    folder, log = tmp_path / 'run', tmp_path / 'log'
    arguments = [job.config, '--work-dir', folder, '--resume', '--cfg-options', 'train_dataloader.num_workers=2']
    process = start_training(arguments, log)
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
    process = start_training(arguments, log, *([] if number else [die_at, 'mid-epoch', 0]))
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
    processes = start_ranks(2, arguments, log)
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


@pytest.mark.parametrize(('options', 'message'), [
    (dict(signals='SIGTERM'), "signals must be a list of names such as 'SIGTERM', got 'SIGTERM'"),
    (dict(signals=['TERM']), r"signals must be .* got \['TERM'\]"),
    (dict(agree_every=0), 'agree_every must be a whole number of at least 1, got 0'),
])
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        PreemptionHook(**options)
