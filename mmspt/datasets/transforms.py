"""Loading images, with errors that help."""
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile as _LoadImageFromFile
from mmengine import fileio
from PIL import __version__ as pillow_version

from mmspt.registry import TRANSFORMS

from .image_cache import open_cache
from .image_checks import check_image, explain

FORMAT = 1
"""Of what is kept in a cache; the next one where decoding changes."""
REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
"""OpenCV's flags by what a JPEG's edges are divided by."""


def reads_files(loader: _LoadImageFromFile) -> bool:
    """Whether a loader's images are local files, so that they can be kept decoded."""
    return (loader.backend_args or {}).get('backend', 'local') == 'local'


@TRANSFORMS.register_module()
class LoadImageFromFile(_LoadImageFromFile):
    """MMCV's loader with stricter checks, errors that name the file and a remedy, and a cache of decoded images.

    The output is (H, W, 3), uint8, BGR by default: 16 bits are scaled to 8, grey and palette become colour, CMYK is
    converted, transparency is dropped. A JPEG that is cut off is an error with every version of OpenCV; so is an image
    of over 178,956,970 pixels, before it is decoded. A TIFF of one channel of 32-bit integers or floats needs
    ``color_type='unchanged'``.

    Args:
        **kwargs: MMCV's.
        cache (str | None): 'memory' keeps decoded images of local files in shared memory while a process uses them,
            'disk' in ``cache_folder`` for good; all workers and processes of the machine share them. Files that change
            are decoded anew. Where there is no room, a warning says so and images are decoded each time. Defaults to
            None.
        cache_gib (float): Bound on the cache, in GiB; it counts what other runs keep there. In memory half of what a
            container may have is a bound, too (cgroup v2). Defaults to 8.
        cache_folder (str | None): Where the cache is; None is shared memory. Defaults to None.
        min_edge (int | None): Decode a JPEG at a half, a quarter or an eighth of its size, the smallest at which its
            shorter edge has at least as many pixels; 'img_shape' and 'ori_shape' are that size. It takes less time
            and gives other pixels than resizing (docs/performance.md). Packs, and MMPretrain's inferencers, which read
            files themselves, decode whole. None decodes whole, too. Defaults to None.

    Raises:
        ValueError: ``min_edge`` is no positive number, or goes with another decoder than OpenCV or other colours than
            'color'. The file cannot be read or decoded (with ``ignore_empty=True`` the result is None instead); for a
            cache's arguments see :func:`mmspt.datasets.image_cache.open_cache`.
    """
    remedy = 'fetch it again, take it off the data set, or set skip_bad_images=True (docs/data.md)'
    """End of every error message."""

    def __init__(self, *args: Any, cache: str | None = None, cache_gib: float = 8., cache_folder: str | None = None,
                 min_edge: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        usual = (self.color_type, self.imdecode_backend) == ('color', 'cv2')
        if min_edge is not None and not (type(min_edge) is int and min_edge > 0 and usual):
            raise ValueError("min_edge must be a positive number of pixels, with color_type='color' and "
                             f"imdecode_backend='cv2', got {min_edge!r}, '{self.color_type}' and "
                             f"'{self.imdecode_backend}': correct them, or leave min_edge out")
        self.min_edge = min_edge
        self.cache_kind, self.cache = cache, open_cache(cache, cache_gib, cache_folder)

    def transform(self, results: dict) -> dict | None:
        """Add 'img' (H, W, 3) and its shapes to ``results``, which names 'img_path'."""
        if 'img' in results and 'img_path' not in results:  # MMPretrain's inferencers hand over pixels
            return results
        path = results['img_path']
        try:
            image = self._load(path)
        except Exception as error:
            if self.ignore_empty:
                return None
            raise ValueError(f"every image must be readable, but '{path}' is not ({explain(error)}): "
                             f'{self.remedy}') from error
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _load(self, path: str) -> np.ndarray:
        cache = self.cache if reads_files(self) else None
        # another decoder, or version of one, may give other pixels
        key = cache and cache.key(path, FORMAT, type(self).__module__, type(self).__qualname__, self.color_type,
                                  self.imdecode_backend, mmcv.image.io.imread_backend, mmcv.__version__,
                                  cv2.__version__, pillow_version, *([self.min_edge] if self.min_edge else []))
        image = cache.get(key) if cache and key else None
        if image is None:
            image = self._decode(fileio.get(path, backend_args=self.backend_args))
            if cache and key:
                cache.put(key, image)
        return image

    def _decode(self, content: bytes) -> np.ndarray:
        if not content:
            raise ValueError('the file is empty')
        kind, edge = check_image(content)
        spare = edge // self.min_edge if self.min_edge is not None and kind in ('JPEG', 'MPO') else 1
        flag = next((REDUCED[factor] for factor in REDUCED if spare >= factor), None)
        if flag is not None:
            image = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
        else:
            image = mmcv.imfrombytes(content, flag=self.color_type, backend=self.imdecode_backend)
        if image is None:
            raise ValueError(f'{self.imdecode_backend} finds no image in it that is whole and of a known format')
        return image
