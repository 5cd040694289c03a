"""Loading images, with errors that help."""
from mmcv.transforms import LoadImageFromFile as _LoadImageFromFile

from mmspt.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadImageFromFile(_LoadImageFromFile):
    """MMCV's, with the file's name and a remedy in the error about a file that is no image.

    Raises:
        ValueError: The file cannot be read or decoded.
    """

    def transform(self, results: dict) -> dict | None:
        """Add 'img' (H, W, 3) and its shapes to ``results``, which names 'img_path'."""
        if 'img' in results and 'img_path' not in results:  # MMPretrain's inferencers hand over pixels
            return results
        try:
            return super().transform(results)
        except Exception as error:
            raise ValueError(f"every image must be readable, but '{results['img_path']}' is not "
                             f'({type(error).__name__}: {str(error).strip()[:200]}): fetch it again, or take it off '
                             'the data set') from error
