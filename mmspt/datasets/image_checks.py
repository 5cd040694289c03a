"""Image files before and while they are decoded: whether they are whole, and what is wrong with them."""
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image

BATCH = 256
"""Files handed to the threads at a time, so that Ctrl-C is heard."""


def check_image(content: bytes) -> tuple[str | None, int]:
    """Return Pillow's name of an image's format and its shorter edge in pixels.

    Raise Pillow's error for a file that is no image, has over 178,956,970 pixels, or is a JPEG that is cut off.

    The header alone is read: a whole JPEG has no start of a scan after the last end of an image, thumbnails and second
    pictures included. Otherwise Pillow decodes it, since only what follows the picture may be cut: OpenCV before 5
    fills the missing part with grey and reports nothing. Decoders refuse cut-off files of other formats.
    """
    with Image.open(io.BytesIO(content)) as image:
        end = content.rfind(b'\xff\xd9')
        if content.startswith(b'\xff\xd8') and (end < 0 or content.find(b'\xff\xda', end) >= 0):
            image.load()
        return image.format, min(image.size)


def explain(error: Exception) -> str:
    """Return kind and text of a decoder's error, or of its cause, in one line without Pillow's addresses in memory."""
    error = error.__cause__ if isinstance(error.__cause__, Exception) else error
    return f'{type(error).__name__}: {" ".join(str(error).split("<_io.")[0].split())[:200]}'


def map_in_threads(function: Callable[[Any], Any], items: Sequence[Any], workers: int | None = None) -> Iterator[Any]:
    """Yield ``function(item)`` in the order of ``items``, computed in threads (None: as many as cores)."""
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for start in range(0, len(items), BATCH):
            yield from pool.map(function, items[start:start + BATCH])
