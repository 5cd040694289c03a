"""A validation split for data sets that have none, the same on every machine."""
import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence


def hold_out(names: Sequence[str], labels: Sequence[int], fraction: float = 0.1, seed: int = 0) -> list[bool]:
    """Choose ceil(fraction * N) of N images, from every class its share.

    Each class gives floor(fraction * its size), and the classes with the largest remainders give one more until the
    count is reached (ties by label). Of a class, the images with the smallest SHA-256 of '<seed>:<name>' (UTF-8) are
    taken: no generator, whose stream may change with a library's version, and no order of files.

    Args:
        names (Sequence[str]): Names of the images. The data sets give paths below ``data_root`` with '/' between the
            parts, for example 'images/001.Black_footed_Albatross/x.jpg'. Shape (N, ).
        labels (Sequence[int]): Classes of the images. Shape (N, ).
        fraction (float): Defaults to 0.1, as in VPT (https://arxiv.org/abs/2203.12119, appendix A).
        seed (int): Seed of the split. Defaults to 0.

    Returns:
        list[bool]: True for images that are held out. Shape (N, ).
    """
    classes = defaultdict(list)
    for index, label in enumerate(labels):
        classes[label].append(index)
    share = {label: len(members) * fraction for label, members in classes.items()}
    count = {label: math.floor(value + 1e-9) for label, value in share.items()}
    missing = math.ceil(len(names) * fraction - 1e-9) - sum(count.values())
    by_remainder = sorted(classes, key=lambda label: (-round(share[label] - count[label], 9), label))
    for label in by_remainder[:missing]:
        count[label] += 1
    chosen = {index for label, members in classes.items()
              for index in sorted(members, key=lambda i: _key(names[i], seed))[:count[label]]}
    return [index in chosen for index in range(len(names))]


def _key(name: str, seed: int) -> bytes:
    return hashlib.sha256(f'{seed}:{name}'.encode()).digest()
