"""Training images for the prompts' prototypes: chosen, shared among the processes and augmented by seed alone."""
import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine import dist
from mmengine.dataset import Compose, pseudo_collate
from torch.utils.data import DataLoader, Dataset

from mmspt.prompts.tokens import derive_seed

from .reliability.worker_signals import IgnoreJobSignals


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
                                 worker_init_fn=IgnoreJobSignals()))
    for batch in loader:
        indices = [int(i) for i in batch.pop('prompt_index')]
        yield indices, data_preprocessor(batch, training=False)['inputs']
