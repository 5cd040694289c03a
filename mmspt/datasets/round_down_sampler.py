"""The same iterations on any number of processes where the last incomplete batch is dropped."""
from collections.abc import Sized

from mmengine.dataset import DefaultSampler

from mmspt.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class RoundDownSampler(DefaultSampler):
    """MMEngine's DefaultSampler without the images that W processes cannot share equally, at most W - 1 an epoch.

    DefaultSampler repeats images until all processes have the same number. With ``drop_last=True`` these can fill one
    batch more than a single process has: 23,929 images in batches of 32 are 747 iterations on one process, 748 on
    eight. Here W processes with batches of B / W have the iterations of one process with batches of B, with the same
    images in each.

    Args:
        dataset (Sized): The data set.
        shuffle (bool): Whether each epoch has an order of its own. Defaults to True.
        seed (int | None): Seed of the order, the same on all processes; None: the run's. Defaults to None.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None) -> None:
        super().__init__(dataset, shuffle=shuffle, seed=seed, round_up=False)
        self.num_samples = len(dataset) // self.world_size
        self.total_size = self.num_samples * self.world_size
