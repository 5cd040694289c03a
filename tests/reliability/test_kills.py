"""kill -9 at any moment, then the same command with --resume: the result of a run that nobody killed, to the bit."""
import random
import signal
import time

import pytest
import torch

from forked import kill_group, start, train, train_ranks
from outcomes import check_same, outcome
from stages import die_at

KILLS = 15
FAST = ('mid-epoch', 'file 5 not renamed')
SLOW = ('data', 'tokens', 'initial prompts', 'file 1 not renamed', 'file 2 not renamed', 'file 3 not renamed',
        'file 4 not renamed', 'file 6 not renamed', 'last_checkpoint not written', 'outdated 2 not removed',
        'outdated 4 not removed', 'outdated 5 not removed', 'outdated 6 not removed', 'last validation',
        'best checkpoint', 'after the last epoch', 'test', 'end')


@pytest.mark.parametrize('stage', [*FAST, *(pytest.param(stage, marks=pytest.mark.slow) for stage in SLOW)])
def test_kill_at_stage(stage, survive):
    survive((die_at, stage), code=-signal.SIGKILL)


@pytest.mark.slow
def test_kills_at_random_moments(job, undisturbed, tmp_path):
    """Runs are killed, resumed and killed again, each time after a random share of a run's time, until one ends."""
    moments = random.Random(0)
    begun = time.monotonic()
    assert train([job.config, '--work-dir', tmp_path / 'timed'], tmp_path / 'log')[0] == 0
    whole = time.monotonic() - begun
    kills = runs = 0
    while kills < KILLS:
        folder, ended = tmp_path / f'run_{runs}', False
        while not ended:
            process = start('train.py', [job.config, '--work-dir', folder, '--resume'], tmp_path / 'log')
            process.join(moments.uniform(0.1, 0.9) * whole)
            ended = process.exitcode is not None
            if not ended:
                kill_group(process)
                kills += 1
        assert process.exitcode == 0, (runs, kills, (tmp_path / 'log').read_text()[-3000:])
        check_same(folder, undisturbed)
        runs += 1


@pytest.mark.slow
def test_kill_of_one_of_two_processes(job, undisturbed, tmp_path):
    """The other one does not wait for it, and both go on from the last checkpoint."""
    folder, log = tmp_path / 'run', tmp_path / 'log'
    arguments = [job.config, '--work-dir', folder, '--resume', '--cfg-options', 'train_dataloader.batch_size=2',
                 'train_cfg.val_interval=5']
    codes, _ = train_ranks(2, arguments, log, die_at, 'in epoch 3', signal.SIGKILL, 1, seconds=60)
    assert codes[1] == -signal.SIGKILL and codes[0] not in (0, -signal.SIGKILL)
    codes, outputs = train_ranks(2, arguments, log)
    assert codes == [0, 0], outputs
    assert f"Resuming from {folder / 'epoch_2.pth'}" in outputs[0]
    weights = outcome(folder).weights
    for name, weight in undisturbed.weights.items():
        torch.testing.assert_close(weights[name], weight, atol=1e-4, rtol=0)
