"""Photographs as training meets them, and the pipelines that read them, for benchmarks/loader.py."""
import os
import os.path as osp
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import sklearn.datasets
from mmengine.config import Config
from mmengine.dataset import Compose
from PIL import Image, ImageOps
from torch.utils.data import Dataset

from measure import ROOT

SIZE = 666, 500
"""Of the larger images, in pixels: what CUB's photographs have at most."""
VARIANTS = ('MMPretrain', 'ours', 'ours, cached')


def find(folder: str | None) -> list[str]:
    """Return the paths of all JPEGs below a folder, in order; None: two that scikit-learn has."""
    folder = folder or osp.join(osp.dirname(sklearn.datasets.__file__), 'images')
    return sorted(osp.join(at, name) for at, _, names in os.walk(folder) for name in names
                  if name.lower().endswith(('.jpg', '.jpeg')))


def write(paths: Sequence[str], count: int, folder: str) -> dict[str, list[str]]:
    """Write JPEGs of quality 92; return paths of as many images of each kind.

    Returns:
        dict[str, list[str]]: 'as they are'; 'enlarged' to :data:`SIZE`, and so smooth, which is decoded soon; 'mosaic',
        of that size too, four photographs at about their own size.
    """
    chosen = [paths[i * len(paths) // count] for i in range(count)]
    made: dict[str, list[str]] = {'as they are': chosen, 'enlarged': [], 'mosaic': []}
    for i, path in enumerate(chosen):
        wide = ImageOps.exif_transpose(Image.open(path).convert('RGB'))
        wide = wide if wide.width >= wide.height else wide.rotate(90, expand=True)
        mosaic = Image.new('RGB', SIZE)
        for j in range(4):
            part = Image.open(chosen[(i + j) % count]).convert('RGB')
            place = j % 2 * SIZE[0] // 2, j // 2 * SIZE[1] // 2
            mosaic.paste(ImageOps.fit(part, (SIZE[0] // 2, SIZE[1] // 2), Image.Resampling.BICUBIC), place)
        for kind, image in (('enlarged', wide.resize(SIZE, Image.Resampling.BICUBIC)), ('mosaic', mosaic)):
            made[kind].append(osp.join(folder, f'{kind}_{i:05d}.jpg'))
            image.save(made[kind][-1], quality=92)
    return made


def pipelines(phase: str, size: int, cache_folder: str) -> dict[str, Compose]:
    """Return the recipes' pipeline for 'train' or 'test' at a size in pixels, in :data:`VARIANTS`."""
    recipe = Config.fromfile(osp.join(ROOT, 'configs', '_base_', 'datasets', 'pipelines_224.py'))
    steps = [dict(step) for step in recipe[f'{phase}_pipeline']]
    for step in steps:
        step.update({key: round(step[key] * size / 224) for key in ('scale', 'crop_size') if key in step})
    host = [dict(step, type=step['type'].removeprefix('mmspt.')) for step in steps]
    host[1]['backend'] = 'pillow'
    cached = [dict(steps[0], cache='memory', cache_folder=cache_folder), *steps[1:]]
    return {name: Compose(variant) for name, variant in zip(VARIANTS, (host, steps, cached), strict=True)}


class Photographs(Dataset):
    """Images through a pipeline, repeated until there are enough.

    Args:
        paths (Sequence[str]): Of files.
        pipeline (Compose): With 'inputs' in its results.
        length (int): Number of items.
    """

    def __init__(self, paths: Sequence[str], pipeline: Compose, length: int) -> None:
        self.paths, self.pipeline, self.length = paths, pipeline, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.pipeline(dict(img_path=self.paths[index % len(self.paths)], gt_label=0))


def load(paths: Sequence[str], pipeline: Compose) -> Iterator[dict[str, Any]]:
    """Yield what a pipeline makes of images, with the same random draws in each call."""
    np.random.seed(0)
    for path in paths:
        yield pipeline(dict(img_path=path, gt_label=0))
