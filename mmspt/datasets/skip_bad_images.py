"""A data set without the images that cannot be loaded."""
from collections.abc import Iterator, Sequence
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmengine import dist
from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger
from mmpretrain.registry import DATASETS as MMPRETRAIN_DATASETS
from rich.progress import track

from mmspt.fail_together import fail_together
from mmspt.registry import DATASETS

from .image_checks import explain, map_in_threads
from .nested_configs import parts

LONG = 2000
"""Number of images from which there is a progress bar."""


@DATASETS.register_module('SkipBadImages')
def build_without_bad_images(dataset: dict | BaseDataset) -> BaseDataset:
    """Build a data set, load every image once and leave out those that raise an error; each process tries a share.

    The loader is the first transform of the data set's own pipeline that is MMCV's LoadImageFromFile or derived from it
    (``mmspt.LoadImageFromFile`` finds the most). Without one nothing is tried.

    Args:
        dataset (dict | BaseDataset): A data set that reads images, or its config; an instance is changed in place.
            Wrappers that join or repeat data sets go around this one.

    Returns:
        BaseDataset: It has ``bad_images``, path and reason of each image left out, in the data set's order.

    Raises:
        ValueError: The data set is none of MMEngine's kind, or has no image that can be loaded.
    """
    rank, world_size = dist.get_dist_info()
    with fail_together('trying images'):
        built = MMPRETRAIN_DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        name = type(built).__name__
        if not isinstance(built, BaseDataset):
            raise ValueError("SkipBadImages needs a data set that reads images itself (MMEngine's BaseDataset), got "
                             f'{name}: put it around each data set within')
        built.full_init()
        count = len(built)
        share = try_images(built, range(rank, count, world_size))
    shares = dist.all_gather_object(share)
    bad = {index: found for share in shares for index, *found in share}
    built.bad_images = [tuple(bad[index]) for index in sorted(bad)]
    if bad:
        first = "'{}' first ({})".format(*built.bad_images[0])
        if len(bad) == count:
            raise ValueError(f'a data set must have images that can be loaded, but none of the {count:,} of {name} '
                             f'can, {first}: fetch them again, or correct the list')
        MMLogger.get_current_instance().warning(
            f'{len(bad):,} of {count:,} images of {name} cannot be loaded and are left out, {first}')
        built.get_subset_([index for index in range(count) if index not in bad])
    return built


def try_images(dataset: BaseDataset, indices: Sequence[int]) -> list[tuple[int, str, str]]:
    """Load images in threads and drop them; return index, path and reason of each that cannot be loaded."""
    load = next((step for step in dataset.pipeline.transforms if isinstance(step, LoadImageFromFile)), None)
    if load is None:
        return []

    def attempt(index: int) -> tuple[int, str, str] | None:
        info = dataset.get_data_info(index)
        path = str(info.get('img_path', f'image {index}'))
        try:
            return None if load(info) is not None else (index, path, 'passed over by ignore_empty=True')
        except Exception as error:  # a damaged file can raise anything in a decoder
            return index, path, explain(error)

    quiet = len(indices) < LONG or not dist.is_main_process()
    attempts = track(map_in_threads(attempt, indices), 'Trying images', len(indices), transient=True, disable=quiet)
    return [bad for bad in attempts if bad is not None]


def find_bad_images(dataset: Any) -> Iterator[tuple[str, str]]:
    """Yield path and reason of each image left out, however deep in wrappers."""
    for part in parts(dataset):
        yield from getattr(part, 'bad_images', ())
