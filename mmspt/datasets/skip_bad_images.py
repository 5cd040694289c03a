"""A data set without the images that cannot be loaded."""
import copy
from collections.abc import Iterator, Sequence
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmengine import dist
from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger
from mmpretrain.registry import DATASETS as MMPRETRAIN_DATASETS
from rich.progress import track
from torch.utils.data import get_worker_info

from mmspt.registry import DATASETS

from .image_file import explain, map_in_threads

LONG = 2000
"""Number of images from which there is a progress bar."""


@DATASETS.register_module()
class SkipBadImages:
    """Load every image once when the data set is built, and leave out those that raise an error.

    The loader is the first transform of the data set's own pipeline that is MMCV's LoadImageFromFile or derived from it
    (``mmspt.LoadImageFromFile`` finds the most). Without one nothing is tried. All else is the data set's own.

    Each process tries a share of the images, and all leave out the same ones. So all must build the data set, and an
    error on one is an error on all. With ``lazy_init``, and in a data loader's worker, a process tries all images.

    Args:
        dataset (dict | BaseDataset): A data set that reads images, or its config; an instance is changed in place.
            Wrappers that join or repeat data sets go around this one.
        lazy_init (bool): Whether to try the images when they are first needed. Defaults to False.

    Raises:
        ValueError: The data set is none of MMEngine's kind, or has no image that can be loaded.
        RuntimeError: Another process could not build the data set.
    """

    def __init__(self, dataset: Any, lazy_init: bool = False) -> None:
        self.bad_images: list[tuple[str, str]] = []
        """Path and reason of each image left out, in the data set's order."""
        self._fully_initialized = False
        if lazy_init or get_worker_info() is not None:
            self.dataset = build(dataset)
        else:
            self._init_together(dataset)
        if not lazy_init:
            self.full_init()

    def _init_together(self, dataset: Any) -> None:
        """Build and try on all processes; an error on one must not keep the others waiting for it."""
        rank, world_size = dist.get_dist_info()
        share: list[tuple[int, str, str]] = []
        error = None
        try:
            self.dataset = build(dataset)
            self.dataset.full_init()
            share = try_images(self.dataset, range(rank, len(self.dataset), world_size))
        except Exception as raised:
            error = raised
        answers = dist.all_gather_object((share, None if error is None else f'{type(error).__name__}: {error}'))
        if error is not None:
            raise error
        failed = '; '.join(f'rank {rank}: {text}' for rank, (_, text) in enumerate(answers) if text is not None)
        if failed:
            raise RuntimeError(f'all processes must try their images, but another could not build the data set '
                               f'({failed}): see what differs there, for example a folder that is not mounted')
        self._leave_out([found for part, _ in answers for found in part])

    def full_init(self) -> None:
        """Read the lists, try the images, leave out the bad ones; once, and in this process alone."""
        if not self._fully_initialized:
            self.dataset.full_init()
            self._leave_out(try_images(self.dataset, range(len(self.dataset))))

    def _leave_out(self, found: list[tuple[int, str, str]]) -> None:
        count = len(self.dataset)
        bad = {index: (path, reason) for index, path, reason in sorted(found)}
        self.bad_images = list(bad.values())
        if bad:
            first = "'{}' first ({})".format(*self.bad_images[0])
            if len(bad) == count:
                raise ValueError(f'a data set must have images that can be loaded, but none of the {count:,} of '
                                 f'{type(self.dataset).__name__} can, {first}: fetch them again, or correct the list')
            MMLogger.get_current_instance().warning(
                f'{len(bad):,} of {count:,} images of {type(self.dataset).__name__} cannot be loaded and are left out, '
                f'{first}')
            self.dataset.get_subset_([index for index in range(count) if index not in bad])
        self._fully_initialized = True

    @property
    def metainfo(self) -> dict:
        """The data set's meta information; loads nothing."""
        return self.dataset.metainfo

    @property
    def pipeline(self) -> Any:
        """The data set's transforms; setting them leaves copies of this data set unchanged."""
        return self.dataset.pipeline

    @pipeline.setter
    def pipeline(self, pipeline: Any) -> None:
        self.dataset = copy.copy(self.dataset)
        self.dataset.pipeline = pipeline

    def get_subset(self, indices: Sequence[int] | int) -> 'SkipBadImages':
        """Copy with some of the images; see :meth:`mmengine.dataset.BaseDataset.get_subset`."""
        self.full_init()
        other = copy.copy(self)
        other.dataset = self.dataset.get_subset(indices)
        return other

    def __len__(self) -> int:
        self.full_init()
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        self.full_init()
        return self.dataset[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith('_'):
            raise AttributeError(name)
        self.full_init()
        return getattr(self.dataset, name)


def build(dataset: Any) -> BaseDataset:
    """Build a data set from its config, or take it as it is; raise ValueError unless it reads images itself."""
    built = MMPRETRAIN_DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
    if not isinstance(built, BaseDataset):
        raise ValueError("SkipBadImages needs a data set that reads images itself (MMEngine's BaseDataset), got "
                         f'{type(built).__name__}: put it around each data set within')
    return built


def try_images(dataset: BaseDataset, indices: Sequence[int]) -> list[tuple[int, str, str]]:
    """Load images in threads and drop them.

    Args:
        dataset (BaseDataset): Has a pipeline.
        indices (Sequence[int]): Indices of the images.

    Returns:
        list[tuple[int, str, str]]: Index, path and reason of each that cannot be loaded.
    """
    load = next((step for step in dataset.pipeline.transforms if isinstance(step, LoadImageFromFile)), None)
    if load is None:
        return []

    def attempt(index: int) -> tuple[int, str, str] | None:
        info = dataset.get_data_info(index)
        path = str(info.get('img_path', f'image {index}'))
        try:
            return None if load(info) is not None else (index, path, 'passed over by ignore_empty=True')
        except Exception as error:  # a damaged file can raise anything in a decoder
            return index, path, explain(error.__cause__ if isinstance(error.__cause__, Exception) else error)

    quiet = len(indices) < LONG or not dist.is_main_process()
    attempts = track(map_in_threads(attempt, indices), 'Trying images', len(indices), transient=True, disable=quiet)
    return [bad for bad in attempts if bad is not None]


def find_bad_images(dataset: Any) -> Iterator[tuple[str, str]]:
    """Yield path and reason of each image left out, however deep in wrappers."""
    if isinstance(dataset, SkipBadImages):
        yield from dataset.bad_images
    else:
        inner = [getattr(dataset, 'dataset', None), *getattr(dataset, 'datasets', [])]
        for part in inner:
            if part is not None:
                yield from find_bad_images(part)
