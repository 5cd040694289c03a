"""Keep a recipe's global batch, which its rate and epochs were chosen for, on any number of processes."""
import os
from typing import Any

from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from torch import nn

WORLD_SIZE = dict(pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE')
"""Launcher -> the environment variable with the number of processes."""


def world_size_of(launcher: str) -> int:
    """Return the number of processes that a launcher started; known before MMEngine connects them."""
    return int(os.environ.get(WORLD_SIZE.get(launcher, ''), 1))


def batch_of(loader: Any) -> int | None:
    """Return the images a batch of one process; None for a loader without a batch size."""
    return loader.batch_size or getattr(loader.batch_sampler, 'batch_size', None)


def check_last_batch(loader: Any, batch: int, model: Any, max_iters: int) -> None:
    """Check that an epoch has iterations, and that its last batch is not one image where BatchNorm needs two.

    Args:
        loader (DataLoader): Of one process.
        batch (int): Images a batch, see :func:`batch_of`.
        model (ImageClassifier): Its neck and head are searched for BatchNorm1d.
        max_iters (int): Iterations of the run.

    Raises:
        ValueError: Otherwise.
    """
    try:
        images, iterations = len(loader.sampler), len(loader)
    except TypeError:  # a stream
        return
    if not iterations:
        raise ValueError(f'an epoch must have an iteration, but drop_last=True leaves none of {images} images in '
                         f'batches of {batch} (of one process): set train_dataloader.drop_last=False, or a '
                         f'train_dataloader.batch_size of at most {images}')
    endless = isinstance(loader.sampler, InfiniteSampler)
    drops = getattr(loader.batch_sampler, 'drop_last', True)
    last = batch if drops or endless or max_iters < iterations else images % batch or batch
    parts = [(name, getattr(model, name, None)) for name in ('neck', 'head')]
    norms = [f'{part}.{name}'.rstrip('.') for part, module in parts if isinstance(module, nn.Module)
             for name, inner in module.named_modules() if isinstance(inner, nn.BatchNorm1d) and inner.training]
    if last == 1 and norms:
        remedy = 'drop_last=True or another batch_size' if batch > 1 and images > batch else 'batch_size of 2 or more'
        raise ValueError(f"BatchNorm ({norms[0]}) needs two images a batch, but {images} images in batches of {batch} "
                         f'(of one process) leave one alone: set train_dataloader.{remedy}')


def keep_global_batch(cfg: Config, batch_given: bool = False) -> None:
    """Divide a recipe's batch among the processes, in place.

    ``auto_scale_lr.base_batch_size`` is the global batch: images an iteration, of all processes. If
    ``train_dataloader.batch_size`` is the same number, each of W processes gets the W-th part. Any other batch size is
    the user's own, counts per process as in MMPretrain, and stays, as it does with ``auto_scale_lr.enable=True``, where
    MMEngine scales the rate instead. The config in the work directory also has ``auto_scale_lr.divided_among=W``, so
    training it again, on any number of processes, has the recipe's batch again.

    Args:
        cfg (Config): The run's config, ``launcher`` set.
        batch_given (bool): Whether the command line sets the batch size, which then stays. Defaults to False.

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
