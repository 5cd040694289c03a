"""--resume where something changed: the number of processes, the place, the number of epochs."""
import shutil
import signal
from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import EpochBasedTrainLoop
from mmengine.runner.checkpoint import CheckpointLoader
from torch.utils.data import DataLoader

from forked import train, train_ranks
from mmspt.engine.hooks import ResumeHook
from mmspt.engine.reliability.last_checkpoint import find_latest
from mmspt.engine.schedulers.warmup_cosine_lr import warmup_cosine
from mmspt.evaluation.scalars import read_scalars
from outcomes import check_same, outcome
from stages import die_at


@pytest.fixture(scope='module')
def halfway(job, tmp_path_factory):
    """A work directory whose run was killed in its third epoch."""
    folder = tmp_path_factory.mktemp('halfway') / 'run'
    code, output = train([job.config, '--work-dir', folder], folder.parent / 'log', die_at, 'in epoch 3')
    assert code == -signal.SIGKILL, output
    assert (folder / 'epoch_2.pth').is_file()
    return folder


def test_copied_work_directory_leaves_the_original_alone(halfway, job, undisturbed, tmp_path):
    """The copy's own checkpoint is taken, and the original's best is not removed for a better one."""
    before = sorted((path.name, path.stat().st_mtime) for path in halfway.iterdir())
    shutil.copytree(halfway, tmp_path / 'copy')
    code, output = train([job.config, '--work-dir', tmp_path / 'copy', '--resume'], tmp_path / 'log')
    assert code == 0, output
    assert f"Resuming from {tmp_path / 'copy' / 'epoch_2.pth'}" in output
    assert sorted((path.name, path.stat().st_mtime) for path in halfway.iterdir()) == before
    check_same(tmp_path / 'copy', undisturbed)


def test_checkpoint_of_mmengines_own_hook_elsewhere(halfway, job, undisturbed, tmp_path):
    """It does not have the length of an epoch; the work directory is another."""
    checkpoint = CheckpointLoader.load_checkpoint(str(halfway / 'epoch_2.pth'))
    del checkpoint['meta']['mmspt_epoch_length']
    torch.save(checkpoint, tmp_path / 'renamed.pth')
    code, output = train([job.config, '--work-dir', tmp_path / 'run', '--resume', tmp_path / 'renamed.pth'],
                         tmp_path / 'log')
    assert code == 0, output
    found = outcome(tmp_path / 'run')
    assert found.metrics == undisturbed.metrics
    assert all(weight.equal(found.weights[name]) for name, weight in undisturbed.weights.items())
    assert found.losses == {step: loss for step, loss in undisturbed.losses.items() if step > 6}


def test_nothing_to_resume_from_and_the_same_seed(job, undisturbed, tmp_path):
    code, output = train([job.config, '--work-dir', tmp_path / 'run', '--resume'], tmp_path / 'log')
    assert code == 0, output
    assert 'the run begins anew' in output
    check_same(tmp_path / 'run', undisturbed)
    first, second = ((folder / 'initial_prompts.safetensors').read_bytes()
                     for folder in (job.root / 'undisturbed', tmp_path / 'run'))
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize('epochs', [3, 6])
def test_another_number_of_epochs(epochs, halfway, job, tmp_path):
    """The rate follows the new schedule from the next iteration on, and the training ends with it."""
    shutil.copytree(halfway, tmp_path / 'run')
    code, output = train([job.config, '--work-dir', tmp_path / 'run', '--resume', '--cfg-options',
                          f'train_cfg.max_epochs={epochs}', f'param_scheduler.end={epochs}'], tmp_path / 'log')
    assert code == 0, output
    rates, peak = read_scalars(str(tmp_path / 'run'), 'lr'), read_scalars(str(halfway), 'lr')[4]
    assert list(rates) == list(range(1, 3 * epochs + 1))
    for step in range(7, 3 * epochs + 1):  # logged with the rate of the step before it was counted
        assert rates[step] == pytest.approx(warmup_cosine(step - 1, 3, 3 * epochs, peak, 1e-8), rel=1e-9)


def start(processes, batch, job, tmp_path, *given):
    """Train or resume on some processes with a batch each; exit codes and the first process's output."""
    arguments = [job.config, '--work-dir', tmp_path / 'run', '--resume', '--cfg-options',
                 f'train_dataloader.batch_size={batch}', 'train_cfg.val_interval=5']
    codes, outputs = train_ranks(processes, arguments, tmp_path / 'log', *given)
    return codes, outputs[0]


@pytest.mark.slow
@pytest.mark.parametrize(('before', 'after'), [(2, 1), (1, 2)])
def test_another_number_of_processes(before, after, job, undisturbed, tmp_path):
    """With the same global batch the weights are the same to rounding."""
    codes, output = start(before, 4 // before, job, tmp_path, die_at, 'in epoch 3', signal.SIGTERM)
    assert codes == [75] * before, output
    codes, output = start(after, 4 // after, job, tmp_path)
    assert codes == [0] * after, output
    found = outcome(tmp_path / 'run').weights
    for name, weight in undisturbed.weights.items():
        torch.testing.assert_close(found[name], weight, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_another_global_batch(job, tmp_path):
    """Epochs and rates go on from the same share of the training."""
    codes, output = start(2, 2, job, tmp_path, die_at, 'in epoch 3', signal.SIGTERM)
    assert codes == [75, 75], output
    codes, output = start(1, 2, job, tmp_path)
    assert codes == [0] and 'Resumed with 6 iterations an epoch instead of 3' in output, output
    meta = CheckpointLoader.load_checkpoint(str(tmp_path / 'run' / 'epoch_4.pth'))['meta']
    assert (meta['epoch'], meta['iter']) == (4, 24)
    rates = read_scalars(str(tmp_path / 'run'), 'lr')
    assert list(rates.values())[-1] == pytest.approx(warmup_cosine(23, 6, 24, 0.05, 1e-8), rel=1e-9)


@pytest.mark.slow
def test_checkpoint_without_a_position(halfway, job, tmp_path):
    checkpoint = CheckpointLoader.load_checkpoint(str(halfway / 'epoch_2.pth'))
    del checkpoint['meta']['epoch']
    torch.save(checkpoint, tmp_path / 'odd.pth')
    code, output = train([job.config, '--work-dir', tmp_path / 'run', '--resume', tmp_path / 'odd.pth'],
                         tmp_path / 'log')
    last = [line for line in output.splitlines() if 'Error: ' in line][-1]
    assert code == 1 and "odd.pth' has no position to resume from (epoch=None, iter=6)" in last


def test_an_epoch_after_one_that_raised_has_all_batches():
    """MMEngine skips after_train_epoch if the epoch raises."""
    loader = DataLoader([0, 1, 2, 3, 4, 5], batch_size=2)
    runner = SimpleNamespace(train_loop=object.__new__(EpochBasedTrainLoop), train_dataloader=loader, epoch=1, iter=4)
    ResumeHook().before_train_epoch(runner)
    assert [batch.tolist() for batch in loader] == [[2, 3], [4, 5]]
    runner.epoch, runner.iter = 2, 6
    ResumeHook().before_train_epoch(runner)
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3], [4, 5]]


def test_the_latest_checkpoint(halfway, tmp_path):
    """In a folder that was moved; one that is cut off is skipped."""
    folder = tmp_path / 'run'
    shutil.copytree(halfway, folder)
    (folder / 'last_checkpoint').write_text('/nowhere/run/epoch_2.pth')
    assert find_latest(str(folder)) == str(folder / 'epoch_2.pth')
    content = (folder / 'epoch_2.pth').read_bytes()
    (folder / 'epoch_11.pth').write_bytes(content)
    (folder / 'epoch_100.pth').write_bytes(content[:-100])
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_100.pth'))
    assert find_latest(str(folder)) == str(folder / 'epoch_11.pth')
    (folder / 'last_checkpoint').write_text('s3://bucket/epoch_3.pth')
    assert find_latest(str(folder)) == 's3://bucket/epoch_3.pth'
    assert find_latest(str(tmp_path)) is None
