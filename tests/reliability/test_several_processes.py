"""One, two and four processes (gloo) do the same work: same prompts, same losses, and few numbers exchanged."""
import json
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from forked import train_ranks
from recorder import record, remove_nothing_unless_first
from stages import die_at

STEPS = 20
IMAGES = dict(RandomSampleInit=4, MeanPoolInit=4, KMeansInit=12, UniformInit=0)
TRAINED = 4 * 5 * 64 + 3 * 64 + 3  # prompts of 4 blocks, and the head


def run(world_size, job, folder, name):
    """Train 7 epochs of 12 images in batches of 4 over all processes: prompts, losses (mean of ranks), exchanges."""
    folder.mkdir(parents=True)
    arguments = [job.config, '--work-dir', folder / 'run', '--no-validate', '--cfg-options', 'train_cfg.max_epochs=7',
                 'param_scheduler.end=7', f'train_dataloader.batch_size={4 // world_size}',
                 f'custom_hooks.0.initializer.type=mmspt.{name}']
    codes, outputs = train_ranks(world_size, arguments, folder / 'log', record, str(folder))
    assert codes == [0] * world_size, outputs
    ranks = [json.loads((folder / f'{rank}.json').read_text()) for rank in range(world_size)]
    return SimpleNamespace(
        prompts=load_file(folder / 'run' / 'initial_prompts.safetensors')['prompts'],
        losses=torch.tensor([rank['losses'] for rank in ranks], dtype=torch.float64).mean(0)[:STEPS],
        ranks=ranks, steps=len(ranks[0]['losses']))


@pytest.fixture(scope='module')
def alone(job, tmp_path_factory):
    """Initializer -> the run of one process; computed once each."""
    return cache(lambda name: run(1, job, tmp_path_factory.mktemp('alone') / 'run', name))


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'world_size'), [
    ('RandomSampleInit', 2), ('KMeansInit', 4), ('MeanPoolInit', 2), ('UniformInit', 2)])
def test_same_prompts_and_losses(name, world_size, job, alone, tmp_path):
    found, expected = run(world_size, job, tmp_path / 'run', name), alone(name)
    assert len(found.losses) == STEPS
    torch.testing.assert_close(found.prompts, expected.prompts, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.losses, expected.losses, atol=1e-4, rtol=0)

    for rank in found.ranks:
        # each step the gradients of prompts and head at once, and the loss; besides, at steps 10 and 20 whether to
        # stop, at the end the NMI of 4 blocks, and in the first step DDP's order of buckets: a few numbers in all
        rank['inside'].remove(['gloo:all_reduce', TRAINED, found.steps])
        assert ['gloo:all_reduce', 1, found.steps + 2] in rank['inside'] and ['gloo:all_reduce', 5, 1] in rank['inside']
        assert sum(size * times for _, size, times in rank['inside']) < 50 + found.steps
        # tokens: once for each of the 4 layers, this rank's share of the images alone, 16 patches of width 64
        share = -(-IMAGES[name] // world_size) * 16 * 64
        gathered = sum(size * times for collective, size, times in rank['outside']
                       if collective == 'gloo:all_gather' and size > 500)
        assert gathered <= 4 * share


def test_rank_that_fails_ends_all(job, tmp_path):
    """Its own error is shown, and the others, which did not fail, do not wait for it."""
    codes, outputs = train_ranks(2, [job.config, '--work-dir', tmp_path / 'run'], tmp_path / 'log', die_at, 'tokens', 0,
                                 1, seconds=60)
    assert codes == [1, 1]
    assert outputs[1].strip().splitlines()[-1] == 'ZeroDivisionError: an error in the middle of a training'
    assert "prompt initialization failed on another process: {'rank 1': 'ZeroDivisionError" in outputs[0]


@pytest.mark.slow
def test_one_process_removes_files(job, tmp_path):
    codes, outputs = train_ranks(2, [job.config, '--work-dir', tmp_path / 'run'], tmp_path / 'log',
                                 remove_nothing_unless_first)
    assert codes == [0, 0], outputs
    assert [path.name for path in sorted((tmp_path / 'run').glob('epoch_*.pth'))] == ['epoch_4.pth']
