"""One, two and four processes do the same work: same prompts, same losses, and no process waits for another."""
from functools import cache

import pytest
import torch
from safetensors.torch import load_file

from devices import CUDA, DEVICES
from forked import train, train_ranks
from mmspt.evaluation.scalars import read_scalars
from stages import die_at


def run(world_size, job, folder, name, before=None):
    """Train 7 epochs of 12 images in batches of 4 over all processes: initial prompts, losses (mean of the ranks).

    0 processes are one without a launcher.
    """
    arguments = [job.config, '--work-dir', folder / 'run', '--no-validate', '--cfg-options', 'train_cfg.max_epochs=7',
                 'param_scheduler.end=7', f'train_dataloader.batch_size={4 // (world_size or 1)}',
                 f'custom_hooks.0.initializer.type=mmspt.{name}']
    if world_size:
        codes, outputs = train_ranks(world_size, arguments, folder / 'log', before)
    else:
        code, output = train(arguments, folder / 'log')
        codes, outputs = [code], [output]
    assert set(codes) == {0}, outputs
    return (load_file(folder / 'run' / 'initial_prompts.safetensors')['prompts'],
            torch.tensor(list(read_scalars(str(folder / 'run'), 'loss').values())))


@pytest.fixture(scope='module')
def alone(job, tmp_path_factory):
    """Initializer -> the run of one process; computed once each."""
    return cache(lambda name: run(1, job, tmp_path_factory.mktemp('alone'), name))


@pytest.mark.parametrize(('name', 'world_size'), [
    ('RandomSampleInit', 2),
    *(pytest.param(*case, marks=pytest.mark.slow)
      for case in (('KMeansInit', 4), ('MeanPoolInit', 2), ('UniformInit', 2)))])
def test_same_prompts_and_losses(name, world_size, job, alone, tmp_path):
    (prompts, losses), (expected_prompts, expected_losses) = run(world_size, job, tmp_path, name), alone(name)
    assert len(losses) == 21
    torch.testing.assert_close(prompts, expected_prompts, atol=1e-5, rtol=0)
    torch.testing.assert_close(losses, expected_losses, atol=1e-4, rtol=0)


def say_backend():
    """Print what the processes talk by."""
    real = torch.distributed.init_process_group

    def init_process_group(*args, **kwargs):
        real(*args, **kwargs)
        print('backend:', torch.distributed.get_backend(), flush=True)

    torch.distributed.init_process_group = init_process_group


@pytest.mark.parametrize('device', DEVICES)
def test_one_process_in_a_group_of_its_own(device, job, tmp_path, monkeypatch):
    """By gloo, and by NCCL on a GPU."""
    if device == 'cpu':
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    (tmp_path / 'alone').mkdir()
    prompts, losses = run(1, job, tmp_path, 'RandomSampleInit', say_backend)
    expected_prompts, expected_losses = run(0, job, tmp_path / 'alone', 'RandomSampleInit')
    assert f'backend: {"nccl" if device == CUDA else "gloo"}' in (tmp_path / 'log.0').read_text()
    torch.testing.assert_close(prompts, expected_prompts, atol=1e-5, rtol=0)
    torch.testing.assert_close(losses, expected_losses, atol=1e-4, rtol=0)


def test_rank_that_fails_ends_all(job, tmp_path):
    """Its own error is shown, and the others, which did not fail, do not wait for it."""
    codes, outputs = train_ranks(2, [job.config, '--work-dir', tmp_path / 'run'], tmp_path / 'log', die_at, 'tokens', 0,
                                 1, seconds=60)
    assert codes == [1, 1]
    # the forks print a line while they are imported, which a process may put out at its end
    errors = [line for line in outputs[1].splitlines() if 'Error: ' in line]
    assert errors[-1] == 'ZeroDivisionError: an error in the middle of a training'
    assert "prompt initialization failed on another process: {'rank 1': 'ZeroDivisionError" in outputs[0]
