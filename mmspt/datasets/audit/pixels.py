"""Decoding images to see whether they can be read, and which are the same."""
import hashlib
import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

from mmengine.fileio import get
from PIL import Image, ImageFile

MAX_PIXELS = 89_478_485
"""Images with more pixels than this are taken for decompression bombs (Pillow's own bound for its warning)."""
BATCH = 1024


class Decoded(NamedTuple):
    """What decoding an image came to: one of the two is set."""
    digest: str | None = None
    """Equal for equal pixels, whatever the format and the metadata."""
    error: str | None = None
    """Why the image cannot be read."""


def decode(path: str) -> Decoded:
    """Decode an image completely; whatever goes wrong becomes ``error``."""
    try:
        with Image.open(io.BytesIO(get(path))) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f'{image.width:,} x {image.height:,} pixels are over {MAX_PIXELS:,}: a decompression '
                                 'bomb?')
            image.load()
            deep = image.mode[0] in 'IF'  # more than 8 bits: conversion would clip
            pixels = image if deep else image.convert('RGB')
            digest = hashlib.blake2b(f'{pixels.mode} {pixels.size}'.encode(), digest_size=16)
            digest.update(pixels.tobytes())
            return Decoded(digest=digest.hexdigest())
    except Exception as error:  # a damaged file can raise anything in a decoder
        reason = str(error).split('<_io.')[0].strip()[:200]
        return Decoded(error=f'{type(error).__name__}: {reason}')


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
