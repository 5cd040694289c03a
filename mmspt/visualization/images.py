"""Images as a run's network sees them, and back to pixels."""
import os.path as osp
import re
from collections.abc import Iterable
from typing import Any

import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from rich.progress import track
from torch import Tensor

from mmspt.datasets.nested_configs import leaves
from mmspt.engine.training_images import SeededImages, iterate_images

from .run_folder import SPLITS, RunFolder

ITEM = re.compile(rf'({"|".join(SPLITS)}):(-?\d+)')
"""An image of the run's data: split and index, from 0."""


def stream_images(run: RunFolder, images: SeededImages, description: str) -> Iterable[tuple[list[int], Tensor]]:
    """Yield (indices, normalized images) by batches of the run's size, behind a progress bar on a terminal."""
    loader = run.config.train_dataloader
    batch_size = loader.get('batch_size') or 32
    batches = iterate_images(images, run.model.data_preprocessor, batch_size, loader.get('num_workers', 0))
    return track(batches, description, -(-len(images) // batch_size), transient=True)


def load_item(run: RunFolder, image: str) -> dict:
    """Load a file, by its path, through the run's test pipeline, or 'train:3', 'val:3', 'test:3' of the run's data.

    Raises:
        ValueError: There is no such file or item, or it is no image.
    """
    item = ITEM.fullmatch(image)
    if item:
        return run.images(item[1], [int(item[2])])[0]
    if not osp.isfile(image):
        raise ValueError(f"an image must be a file, or an item of the run's data, but '{image}' is no file: name one "
                         'that exists, or say test:0')
    loaders = (run.config.get(field) or {} for field in ('test_dataloader', 'val_dataloader'))
    pipeline = next((list(leaf['pipeline']) for loader in loaders for leaf in leaves(loader.get('dataset') or {})
                     if leaf.get('pipeline')), None)
    if pipeline is None:
        raise ValueError(f"an image file needs the pipeline of a test_dataloader or val_dataloader, but the config of "
                         f"'{run.folder}' has none: say train:0")
    with DefaultScope.overwrite_default_scope(run.config.get('default_scope', 'mmpretrain')):
        transform = Compose(pipeline)
        if not any(isinstance(step, LoadImageFromFile) for step in transform.transforms):
            transform = Compose([dict(type='mmspt.LoadImageFromFile'), *pipeline])
        return transform(dict(img_path=image))


def to_pixels(images: Tensor, data_preprocessor: Any) -> Tensor:
    """Undo a data preprocessor's normalization: (B, 3, H, W) to RGB in [0, 1], (B, H, W, 3)."""
    images = images.detach().cpu().float()
    if getattr(data_preprocessor, '_enable_normalize', False):
        images = images * data_preprocessor.std.cpu() + data_preprocessor.mean.cpu()
    if not getattr(data_preprocessor, 'to_rgb', True):
        images = images.flip(1)
    return (images / 255).clamp(0, 1).permute(0, 2, 3, 1)


@torch.no_grad()
def preprocess(items: list[dict], data_preprocessor: Any) -> Tensor:
    """Collate items of a data set and normalize them: (B, 3, H, W)."""
    return data_preprocessor(pseudo_collate(items), training=False)['inputs']
