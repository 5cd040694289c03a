"""Decoding images to see whether they can be read, and which are the same."""
import hashlib
import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import mmcv
import numpy as np
from mmengine.fileio import get
from PIL import Image, ImageFile

from ..image_file import MAX_PIXELS, explain

BATCH = 1024
SURE = ('JPEG', 'PNG')
"""Formats that OpenCV, with which training decodes, reads wherever Pillow does. Of others it refuses some (TIFF of 32
bits, ICO, PCX), so these are decoded by both, which takes 1.4 to 1.8 times as long."""


class Decoded(NamedTuple):
    """What decoding an image came to: one of the two is set."""
    digest: str | None = None
    """Equal for equal pixels, whatever the format and the metadata."""
    error: str | None = None
    """Why the image cannot be read."""


def decode(path: str) -> Decoded:
    """Decode an image completely; whatever goes wrong becomes ``error``."""
    try:
        content = get(path)
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f'{image.width:,} x {image.height:,} pixels are over {MAX_PIXELS:,}: a decompression '
                                 'bomb?')
            image.load()
            deep = image.mode[0] in 'IF'  # more than 8 bits: conversion would clip
            pixels = image if deep else image.convert('RGB')
            if image.format not in SURE and mmcv.imfrombytes(content) is None:
                raise ValueError(f'OpenCV, with which training decodes, cannot read {image.format} of mode '
                                 f'{image.mode}: save it as PNG')
            return _digest(f'{pixels.mode} {pixels.size}', pixels.tobytes())
    except Exception as error:  # a damaged file can raise anything in a decoder
        return Decoded(error=explain(error))


def digest_pixels(image: np.ndarray) -> Decoded:
    """Digest of an image that a data set holds in memory; not comparable with those of files. Any shape and dtype."""
    return _digest(f'{image.dtype} {image.shape}', image.tobytes())


def _digest(kind: str, content: bytes) -> Decoded:
    digest = hashlib.blake2b(kind.encode(), digest_size=16)
    digest.update(content)
    return Decoded(digest=digest.hexdigest())


def decode_all(paths: Sequence[str], workers: int | None = None,
               on_image: Callable[[], object] = lambda: None) -> dict[str, Decoded]:
    """Decode images in threads; no more than ``workers`` are held in memory at a time.

    Args:
        paths (Sequence[str]): Any number, each decoded once.
        workers (int | None): Number of threads. Defaults to None, the number of cores.
        on_image (Callable): Called after each image. Defaults to doing nothing.

    Returns:
        dict[str, Decoded]: One for each path.
    """
    unique, results = list(dict.fromkeys(paths)), {}
    with _strictly(), ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for start in range(0, len(unique), BATCH):  # a few at a time, so that Ctrl-C is heard
            batch = unique[start:start + BATCH]
            for path, decoded in zip(batch, pool.map(decode, batch), strict=True):
                results[path] = decoded
                on_image()
    return results


@contextmanager
def _strictly() -> Iterator[None]:
    """Let Pillow refuse truncated files, and say nothing of harmless ones."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before
