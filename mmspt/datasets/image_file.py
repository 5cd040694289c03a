"""Image files before and while they are decoded: their size, whether they are whole, and what is wrong with them."""
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image, JpegImagePlugin, PngImagePlugin

MAX_PIXELS = 89_478_485
"""Images with more pixels than this are taken for decompression bombs (Pillow's own bound for its warning)."""
JPEG, PNG = b'\xff\xd8', b'\x89PNG\r\n\x1a\n'
BATCH = 256
"""Files handed to the threads at a time, so that Ctrl-C is heard."""


def check_size(content: bytes, max_pixels: int) -> None:
    """Raise ValueError if the header promises more than ``max_pixels``, or is a JPEG's and gives no size.

    Other files whose header cannot be read pass: the decoder says what is wrong with them. Of formats other than JPEG
    and PNG, Pillow itself refuses more than 178,956,970 pixels (DecompressionBombError).
    """
    size = read_size(content)
    if size is None and content.startswith(JPEG):
        raise ValueError('its header is damaged: no size can be found in this JPEG')
    if size is not None and size[0] * size[1] > max_pixels:
        raise ValueError(f'{size[0]:,} x {size[1]:,} pixels are over max_pixels={max_pixels:,}: a decompression bomb?')


def read_size(content: bytes) -> tuple[int, int] | None:
    """Return width and height; None if the header does not give them."""
    file = io.BytesIO(content)
    try:
        # not by Image.open, which has a bound of its own
        if content.startswith(JPEG):
            return JpegImagePlugin.JpegImageFile(file).size
        if content.startswith(PNG):
            return PngImagePlugin.PngImageFile(file).size
        with Image.open(file) as image:
            return image.size
    except Image.DecompressionBombError:
        raise
    except Exception:  # a damaged header can raise anything
        return None


def check_end(content: bytes) -> None:
    """Raise OSError if a JPEG is cut off: OpenCV before 5 fills the missing part with grey and reports nothing.

    A whole JPEG has no start of a scan after the last end of an image, thumbnails and second pictures included.
    Otherwise Pillow decodes it, since only what follows the picture may be cut. A JPEG that lacks its two-byte end
    marker is refused too, by Pillow and by OpenCV 5. Decoders refuse cut-off files of other formats.
    """
    if not content.startswith(JPEG):
        return
    end = content.rfind(b'\xff\xd9')
    if end < 0 or content.find(b'\xff\xda', end) >= 0:
        with Image.open(io.BytesIO(content)) as image:
            image.load()


def is_deep(content: bytes) -> bool:
    """Return whether an image has one channel of more than 8 bits, which Pillow's conversion to RGB clips at 255.

    OpenCV scales 16-bit integers. It refuses 32-bit integers and floats, which have no range to scale from, unless
    ``color_type='unchanged'``.
    """
    with Image.open(io.BytesIO(content)) as image:
        return image.mode[0] in 'IF'


def explain(error: Exception) -> str:
    """Return kind and text of a decoder's error in one line without Pillow's addresses in memory."""
    return f'{type(error).__name__}: {" ".join(str(error).split("<_io.")[0].split())[:200]}'


def map_in_threads(function: Callable[[Any], Any], items: Sequence[Any], workers: int | None = None) -> Iterator[Any]:
    """Yield ``function(item)`` in the order of ``items``, computed in threads (None: as many as cores)."""
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for start in range(0, len(items), BATCH):
            yield from pool.map(function, items[start:start + BATCH])
