"""What is wrong with a data set, found before any training: from lists and decoded images to findings."""
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from ..image_checks import explain, map_in_threads
from ..lists import find_missing
from ..transforms import LoadImageFromFile


class Split(NamedTuple):
    """The images of a split, and what is expected of them."""
    name: str
    items: list[tuple[str, Any]]
    """(path as it is opened, label) of each image; a tuple of labels in multi-label sets."""
    num_classes: int | None = None
    """Labels must lie in [0, num_classes); None if that is not known."""
    size: int | None = None
    """Number of images of the published split; None if there is none."""
    every_class: bool = False
    """Whether a class without an image is a fault, not a note."""
    classes: tuple[str, ...] = ()
    """Names of the classes; empty if there are none."""


class Finding(NamedTuple):
    """Something that is wrong, or worth a note."""
    split: str
    text: str
    remedy: str = ''
    files: list[str] = []
    note: bool = False


class Source(NamedTuple):
    """The splits of a data set, and what went wrong while they were read."""
    name: str
    splits: list[Split]
    findings: list[Finding]
    remedy: str
    """What to do about a missing image."""
    repeats: bool = False
    """Whether the published data set repeats images: then an image in two splits is no fault."""
    in_memory: dict[str, str] = {}
    """Name -> digest of images that are in no file."""


def check_source(source: Source, decode: bool = True, workers: int | None = None,
                 on_image: Callable[..., object] = lambda completed, total: None) -> dict[str, Any]:
    """Run every check on a data set.

    Args:
        source (Source): Its splits, as far as they could be read.
        decode (bool): Decode the images, and compare them by their pixels; else by their paths. Defaults to True.
        workers (int | None): Threads that decode. Defaults to None, the number of cores.
        on_image (Callable): Called with ``completed`` and ``total``, numbers of images. Defaults to nothing.

    Returns:
        dict[str, Any]: 'name', 'splits' (a row of figures for each) and 'findings', fit for JSON.
    """
    splits = source.splits
    paths = list(dict.fromkeys(path for split in splits for path, _ in split.items if path not in source.in_memory))
    missing = set(find_missing(paths))
    there = [path for path in paths if path not in missing]
    digests: dict[str, str] = dict(source.in_memory)
    errors: dict[str, str] = {}
    if decode:
        for done, (path, digest, error) in enumerate(map_in_threads(load, there, workers), 1):
            digests |= {path: digest} if digest else {}
            errors |= {path: error} if error else {}
            on_image(completed=done, total=len(there))
    else:
        digests |= {path: path for path in there}
    findings = list(source.findings)
    for split in splits:
        findings += [*check_labels(split), *check_files(split, missing, errors, source.remedy)]
    findings += check_overlap(splits, digests, source.repeats)
    rows = [_figures(split, missing, errors if decode else None, findings) for split in splits]
    return dict(name=source.name, splits=rows, findings=[finding._asdict() for finding in findings])


def load(path: str) -> tuple[str, str | None, str | None]:
    """Load an image as the recipes do; return its path and either the digest of its pixels or the error's text."""
    try:
        return path, digest_pixels(LoadImageFromFile()(dict(img_path=path))['img']), None
    except Exception as error:  # a damaged file can raise anything in a decoder
        return path, None, explain(error)


def digest_pixels(image: np.ndarray) -> str:
    """Hash an image of any shape and dtype: equal for equal pixels, whatever the format and the metadata."""
    digest = hashlib.blake2b(f'{image.dtype} {image.shape}'.encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.hexdigest()


def check_labels(split: Split) -> Iterator[Finding]:
    """Find another number of images than the published one, labels out of range, and classes without images."""
    labels = [label for _, some in split.items for label in each(some)]
    if split.size is not None and len(split.items) != split.size:
        yield Finding(split.name, f'{len(split.items):,} images are listed, the published split has {split.size:,}',
                      'get the complete lists; results do not compare with published ones')
    if split.num_classes is None or not labels:
        return
    low, high = min(labels), max(labels)
    wrong = [path for path, some in split.items if not all(0 <= label < split.num_classes for label in each(some))]
    if wrong:
        yield Finding(split.name, f'labels run {low}..{high}, but must lie in 0..{split.num_classes - 1}: '
                      f'{len(wrong):,} of {len(split.items):,} do not', 'correct the list, or the number of classes',
                      wrong)
    if split.classes and len(split.classes) != split.num_classes:
        yield Finding(split.name, f'{len(split.classes):,} classes are named, model.head.num_classes is '
                      f'{split.num_classes:,}', f'set it to {len(split.classes)} unless it is meant', note=True)
    count = len(split.classes) or split.num_classes
    absent = sorted(set(range(count)) - set(labels))
    if absent and not wrong:
        named = [split.classes[label] if split.classes else str(label) for label in absent[:5]]
        first = ', '.join(named) + (', ...' if len(absent) > 5 else '')
        remedy = 'complete the list, or check a config whose model.head.num_classes is the number that you mean'
        yield Finding(split.name, f'{len(absent):,} of {count:,} classes have no image: {first}',
                      remedy if split.every_class else '', note=not split.every_class)


def each(label: int | tuple[int, ...]) -> tuple[int, ...]:
    """Return an image's labels."""
    return label if isinstance(label, tuple) else (label, )


def check_files(split: Split, missing: set[str], errors: Mapping[str, str], remedy: str) -> Iterator[Finding]:
    """Find listed images that do not exist, and those that cannot be loaded."""
    absent = [path for path, _ in split.items if path in missing]
    if absent:
        yield Finding(split.name, f'{len(absent):,} of {len(split.items):,} listed images are missing', remedy, absent)
    broken = [f'{path} ({errors[path]})' for path, _ in split.items if path in errors]
    if broken:
        yield Finding(split.name, f'{len(broken):,} of {len(split.items):,} images cannot be read',
                      'fetch them again, or take them off the list', broken)


def check_overlap(splits: Sequence[Split], digests: Mapping[str, str], known: bool = False) -> Iterator[Finding]:
    """Find images of one split in another.

    Args:
        splits (Sequence[Split]): Splits that must not share images.
        digests (Mapping[str, str]): Path -> digest; a path without one is passed by.
        known (bool): Whether shared images are a note, since the published data set repeats images.
    """
    for first, second in combinations(splits, 2):
        others = {digests[path]: (path, label) for path, label in first.items if path in digests}
        twins = [(path, label, *others[digests[path]]) for path, label in second.items if digests.get(path) in others]
        if twins:
            differ = sum(label != other for _, label, _, other in twins)
            text = f"{len(twins):,} of {len(second.items):,} images of '{second.name}' are in '{first.name}' too"
            yield Finding(f'{first.name}/{second.name}', text + (f', {differ:,} with another label' if differ else ''),
                          'known of this data set' if known else 'take them off one of the lists',
                          [f'{path} = {other}' for path, _, other, _ in twins], note=known)


def _figures(split: Split, missing: set[str], errors: Mapping[str, str] | None,
             findings: Sequence[Finding]) -> dict[str, Any]:
    """Return a split's row of the table; ``errors`` is None if nothing was decoded."""
    labels = {label for _, some in split.items for label in each(some)}
    faults = sum(split.name in finding.split.split('/') and not finding.note for finding in findings)
    return dict(split=split.name, images=sum(path not in missing for path, _ in split.items), expected=split.size,
                classes=len(labels), expected_classes=split.num_classes,
                labels=[min(labels), max(labels)] if labels else None,
                unreadable=None if errors is None else sum(path in errors for path, _ in split.items),
                status=f'{faults} faults' if faults > 1 else '1 fault' if faults else 'ok')
