"""Made photographs: noise of a natural spectrum as JPEG files, where no data set is at hand."""
import os.path as osp

import cv2
import numpy as np

from mmspt.datasets.image_checks import map_in_threads
from networks import CLASSES

SIDE = 1024
"""Of the noise, which repeats in both directions, in pixels."""


def natural_noise(generator: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """Draw a field (side, side), fp32, of mean 0, deviation 1 and an amplitude of frequency^-1.4.

    So JPEGs of 500 x 666 pixels and quality 92 take 0.11 MB.
    """
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    frequency[0, 0] = np.inf
    field = np.fft.irfft2(np.fft.rfft2(generator.standard_normal((side, side))) / frequency**1.4, (side, side))
    return (field / field.std()).astype(np.float32)


def photograph(fields: list[np.ndarray], index: int, height: int, width: int) -> np.ndarray:
    """Make picture ``index`` (height, width, 3), uint8: brightness and two colours, each cut from a field (S, S)."""
    generator = np.random.default_rng(index)
    brightness, first, second = (
        field.take(np.arange(top, top + height), 0, mode='wrap').take(np.arange(left, left + width), 1, mode='wrap')
        for field, (top, left) in zip(fields, generator.integers(SIDE, size=(3, 2)), strict=True))
    colours = np.stack((first, second, -first), axis=-1)  # (height, width, 3)
    pixels = 45 * brightness[..., None] + 12 * colours + generator.uniform(90, 150, 3)
    return pixels.clip(0, 255).astype(np.uint8)


def write_photographs(folder: str, count: int, height: int, width: int, quality: int = 92) -> int:
    """Write ``count`` JPEGs and their list, ``train.txt``, with labels; return the bytes of all. All cores work."""
    fields = [natural_noise(np.random.default_rng((0, i))) for i in range(3)]

    def write(index: int) -> int:
        content = cv2.imencode('.jpg', photograph(fields, index, height, width), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        content.tofile(osp.join(folder, f'{index:05d}.jpg'))
        return content.nbytes

    total = sum(map_in_threads(write, range(count)))
    with open(osp.join(folder, 'train.txt'), 'w', encoding='ascii') as file:
        file.writelines(f'{index:05d}.jpg {index % CLASSES}\n' for index in range(count))
    return total
