"""Training images for the prompts' prototypes: chosen, shared among the processes and augmented by seed alone."""
import copy
import random
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from typing import Any, TypeVar, cast

import numpy as np
import torch
from mmengine import dist
from mmengine.dataset import Compose, pseudo_collate
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from mmspt.fail_together import fail_together
from mmspt.prompts.tokens import derive_seed

from .reliability.worker_signals import ignore_job_signals

T = TypeVar('T')


@contextmanager
def seeded(seed: int | None = None) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's CPU generators inside (None: leave them), and put them back after."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs too
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def choose_images(num_images: int, dataset_size: int, seed: int) -> list[int]:
    """Draw images uniformly, without replacement; in the data set's order if all are wanted."""
    if num_images >= dataset_size:
        return list(range(dataset_size))
    generator = torch.Generator().manual_seed(derive_seed(seed, 'images'))
    return torch.randperm(dataset_size, generator=generator)[:num_images].tolist()


def share(items: Sequence[int]) -> list[int]:
    """This process's contiguous part: parts in the order of ranks make up the whole."""
    rank, world_size = dist.get_dist_info()
    return list(items[rank * len(items) // world_size:(rank + 1) * len(items) // world_size])


class SeededImages(Dataset):
    """Items of a data set whose augmentation depends on (seed, index) alone, not on workers, batches or processes.

    Args:
        dataset (Dataset): The training set.
        indices (Sequence[int]): Which items, in which order.
        seed (int): Seed of the run.
        pipeline (list[dict] | None): Instead of the data set's own.

    Raises:
        ValueError: A pipeline is given for a data set without one of its own (a wrapper).
    """

    def __init__(self, dataset: Any, indices: Sequence[int], seed: int, pipeline: list[dict] | None = None) -> None:
        if pipeline is not None:
            if not hasattr(dataset, 'pipeline'):
                raise ValueError(f'PromptInitHook(pipeline=...) needs a data set with a pipeline, got '
                                 f'{type(dataset).__name__}: leave pipeline=None, or train on the data set it wraps')
            dataset = copy.copy(dataset)
            dataset.pipeline = Compose(pipeline)
        self.dataset, self.indices, self.seed = dataset, indices, seed

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> dict:
        index = self.indices[position]
        with seeded(derive_seed(self.seed, 'augmentation', index)):
            return dict(self.dataset[index], prompt_index=index)


def iterate_images(images: SeededImages, data_preprocessor: Any, batch_size: int,
                   num_workers: int) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yield (indices, normalized images (B, 3, H, W) on the model's device), batch by batch."""
    with seeded():  # the loader draws a base seed for its workers
        loader = iter(DataLoader(images, batch_size, num_workers=num_workers, collate_fn=pseudo_collate,
                                 worker_init_fn=ignore_job_signals))
    for batch in loader:
        indices = [int(i) for i in batch.pop('prompt_index')]
        yield indices, data_preprocessor(batch, training=False)['inputs']


class TrainingImages:
    """The images that an initializer reads, see :class:`mmspt.prompts.tokens.ImageStream`.

    Args:
        dataset (Dataset): The training set.
        data_preprocessor (nn.Module): The model's.
        wanted (int): Images of all processes; at most those at hand.
        batch_size (int): Images a step.
        num_workers (int): Of the loader. Defaults to 0.
        seed (int): Seed of the choice and of augmentation. Defaults to 0.
        pipeline (list[dict] | None): Transforms instead of the data set's own. Defaults to None.
        max_bytes (float | None): Bound on the tokens of all layers. Defaults to None.
        device (torch.device | str): Where the work may be done. Defaults to 'cpu'.
        autocast (Callable): Returns the context to read in. Defaults to none.
        name (str): Of the initializer, for the progress bar. Defaults to ''.
    """

    def __init__(self, dataset: Any, data_preprocessor: Any, wanted: int, batch_size: int, num_workers: int = 0,
                 seed: int = 0, pipeline: list[dict] | None = None, max_bytes: float | None = None,
                 device: torch.device | str = 'cpu',
                 autocast: Callable[[], AbstractContextManager] = nullcontext, name: str = '') -> None:
        self.dataset, self.data_preprocessor, self.pipeline = dataset, data_preprocessor, pipeline
        self.wanted = min(wanted, len(dataset))
        self.own = 0
        self.batch_size, self.num_workers = batch_size, num_workers
        self.seed, self.max_bytes, self.device = seed, max_bytes, torch.device(device)
        self.autocast, self.name = autocast, name

    def read(self, consume: Callable[[Iterable[tuple[list[int], torch.Tensor]], int], T],
             count: int | None = None) -> T:
        """Pass this process's batches of (indices, images (B, 3, H, W)), and their number, to a function.

        Args:
            consume (Callable): Takes the batches, on the model's device, and the number of images; its result is
                returned. If it fails on one process, all raise.
            count (int | None): Images of all processes; None is ``wanted``.
        """
        with fail_together('prompt initialization'):
            chosen = choose_images(self.wanted if count is None else count, len(self.dataset), self.seed)
            mine = share(chosen)
            self.own = len(mine)
            indices = mine or chosen[:1]  # a process without a share looks at one image, to know the shapes
            images = SeededImages(self.dataset, indices, self.seed, self.pipeline)
            batches = iterate_images(images, self.data_preprocessor, self.batch_size, self.num_workers)
            steps = -(-len(indices) // self.batch_size)
            bar = track(batches, f'{self.name}: images', steps, transient=True, disable=not dist.is_main_process())
            with self.autocast(), closing(cast(Generator, bar)) as progress:  # the bar ends even if not all are taken
                result = consume(progress, len(indices))
        return result
