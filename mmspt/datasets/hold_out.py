"""A validation split for data sets that have none, the same on every machine."""
import hashlib
from collections import defaultdict
from collections.abc import Sequence


def hold_out(names: Sequence[str], labels: Sequence[int], tenths: int = 1) -> list[bool]:
    """Choose a tenth of N images, rounded up, as VPT does (https://arxiv.org/abs/2203.12119, appendix A), or more.

    Each class gives its tenths, rounded down, and the classes with the largest remainders give one more
    until the count is reached (ties by label). Of a class, the images with the smallest SHA-256 of '0:<name>' (UTF-8)
    are taken: no generator, whose stream may change with a library's version, and no order of files.

    Args:
        names (Sequence[str]): Paths below ``data_root`` with '/' between the parts, for example
            'images/001.Black_footed_Albatross/x.jpg'. Shape (N, ).
        labels (Sequence[int]): Classes of the images. Shape (N, ).
        tenths (int): How much to hold out. Defaults to 1.

    Returns:
        list[bool]: True for images that are held out. Shape (N, ).
    """
    classes = defaultdict(list)
    for name, label in zip(names, labels, strict=True):
        classes[label].append(name)
    count = {label: len(members) * tenths // 10 for label, members in classes.items()}
    missing = -(-len(names) * tenths // 10) - sum(count.values())
    for label in sorted(classes, key=lambda label: (-(len(classes[label]) * tenths % 10), label))[:missing]:
        count[label] += 1
    chosen = {name for label, members in classes.items() for name in sorted(members, key=order)[:count[label]]}
    return [name in chosen for name in names]


def order(name: str) -> bytes:
    """Return what images are sorted by where some of them are chosen."""
    return hashlib.sha256(f'0:{name}'.encode()).digest()
