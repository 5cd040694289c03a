"""The batch that a recipe's rate and epochs were chosen for, on any number of processes."""
import os
from typing import Any

from mmengine.config import Config

WORLD_SIZE = dict(pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE')
"""Launcher -> the variable in which it tells each process how many there are."""


def world_size_of(launcher: str) -> int:
    """Number of processes that a launcher started; known before MMEngine connects them."""
    return int(os.environ.get(WORLD_SIZE.get(launcher, ''), 1))


def batch_of(loader: Any) -> int | None:
    """Images a batch of one process; None for a loader that does not say."""
    return loader.batch_size or getattr(loader.batch_sampler, 'batch_size', None)


def keep_global_batch(cfg: Config, batch_given: bool = False) -> None:
    """Divide a recipe's batch among the processes, in place.

    ``auto_scale_lr.base_batch_size`` is the global batch: images an iteration, of all processes. A config whose
    ``train_dataloader.batch_size`` is the same number was written for one process, so each of W processes gets the W-th
    part. Any other batch size is the user's own, counts per process as in MMPretrain, and stays, as it does with
    ``auto_scale_lr.enable=True``, where MMEngine scales the rate instead. :class:`mmspt.engine.hooks.GlobalBatchHook`
    logs what came out.

    The config in the work directory has the part, and ``auto_scale_lr.divided_among=W``: trained again, it is the
    recipe's again, on any number of processes.

    Args:
        cfg (Config): The run's config, ``launcher`` set.
        batch_given (bool): Whether the command line names the batch size, which is then obeyed. Defaults to False.

    Raises:
        ValueError: The number of processes does not divide the global batch.
    """
    loader, scale = cfg.get('train_dataloader') or {}, cfg.get('auto_scale_lr') or {}
    divided_among, batch = scale.pop('divided_among', 1), loader.get('batch_size')
    if batch is None or batch_given:
        return
    batch = cfg.train_dataloader.batch_size = batch * divided_among
    processes = world_size_of(cfg.get('launcher', 'none'))
    if processes == 1 or scale.get('enable') or batch != scale.get('base_batch_size'):
        return
    if batch % processes:
        fitting = ', '.join(str(count) for count in range(1, batch + 1) if batch % count == 0)
        raise ValueError(
            f'the number of processes must divide the global batch of {batch}, which the rate was chosen for, but '
            f'there are {processes}: start {fitting} of them; or keep {batch} images a process and scale the rate, '
            'with --auto-scale-lr; or choose the images a process, with --cfg-options train_dataloader.batch_size=N')
    cfg.train_dataloader.batch_size = batch // processes
    cfg.auto_scale_lr.divided_among = processes
