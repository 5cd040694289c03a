"""Loading images, with errors that help."""
import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile as _LoadImageFromFile
from mmengine import fileio

from mmspt.registry import TRANSFORMS

from .image_checks import check_image, explain


@TRANSFORMS.register_module()
class LoadImageFromFile(_LoadImageFromFile):
    """MMCV's loader with stricter checks, and with errors that name the file and a remedy; arguments are MMCV's.

    The output is (H, W, 3), uint8, BGR by default: 16 bits are scaled to 8, grey and palette become colour, CMYK is
    converted, transparency is dropped. A JPEG that is cut off is an error with every version of OpenCV; so is an image
    of over 178,956,970 pixels, before it is decoded. A TIFF of one channel of 32-bit integers or floats needs
    ``color_type='unchanged'``.

    Raises:
        ValueError: The file cannot be read or decoded; with ``ignore_empty=True`` the result is None instead.
    """
    remedy = 'fetch it again, take it off the data set, or set skip_bad_images=True (docs/data.md)'
    """End of every error message."""

    def transform(self, results: dict) -> dict | None:
        """Add 'img' (H, W, 3) and its shapes to ``results``, which names 'img_path'."""
        if 'img' in results and 'img_path' not in results:  # MMPretrain's inferencers hand over pixels
            return results
        path = results['img_path']
        try:
            image = self._decode(fileio.get(path, backend_args=self.backend_args))
        except Exception as error:
            if self.ignore_empty:
                return None
            raise ValueError(f"every image must be readable, but '{path}' is not ({explain(error)}): "
                             f'{self.remedy}') from error
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _decode(self, content: bytes) -> np.ndarray:
        if not content:
            raise ValueError('the file is empty')
        check_image(content)
        image = mmcv.imfrombytes(content, flag=self.color_type, backend=self.imdecode_backend)
        if image is None:
            raise ValueError(f'{self.imdecode_backend} finds no image in it that is whole and of a known format')
        return image
