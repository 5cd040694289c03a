"""What is wrong with a data set, found before any training: from lists and decoded images to findings."""
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from ..lists import Item
from .pixels import Decoded


class Split(NamedTuple):
    """The images of a split, and what is expected of them."""
    name: str
    items: list[Item]
    """(path as it is opened, label) of each image."""
    num_classes: int | None = None
    """Labels must lie in [0, num_classes); None if that is not known."""
    size: int | None = None
    """Number of images of the published split; None if there is none."""
    every_class: bool = False
    """Whether a class without an image is a fault, not a note."""


class Finding(NamedTuple):
    """Something that is wrong, or worth a note."""
    split: str
    text: str
    remedy: str = ''
    files: list[str] = []
    note: bool = False


def check_labels(split: Split) -> Iterator[Finding]:
    """Labels out of range, or classes without images."""
    if split.num_classes is None or not split.items:
        return
    labels = [label for _, label in split.items]
    low, high = min(labels), max(labels)
    wrong = [path for path, label in split.items if not 0 <= label < split.num_classes]
    if wrong and low == 1 and high == split.num_classes:
        yield Finding(split.name, f'labels run {low}..{high}: they must start at 0', 'subtract 1 from each', wrong)
    elif wrong:
        yield Finding(split.name, f'labels run {low}..{high}, but must lie in 0..{split.num_classes - 1}: '
                      f'{len(wrong):,} of {len(labels):,} do not', 'correct the list, or the number of classes', wrong)
    absent = sorted(set(range(split.num_classes)) - set(labels))
    if absent and not wrong:
        first = ', '.join(map(str, absent[:5])) + (', ...' if len(absent) > 5 else '')
        remedy = 'complete the list, or correct the number of classes'
        if absent[0] == high + 1:  # the first classes are all there
            remedy = f'complete the list; if these {absent[0]:,} classes are meant, say so in a config ' \
                     f'(model.head.num_classes={absent[0]}) and check that'
        yield Finding(split.name, f'{len(absent):,} of {split.num_classes:,} classes have no image: {first}',
                      remedy if split.every_class else '', note=not split.every_class)


def check_size(split: Split) -> Iterator[Finding]:
    """Another number of images than the published split."""
    if split.size is not None and len(split.items) != split.size:
        yield Finding(split.name, f'{len(split.items):,} images are listed, the published split has {split.size:,}',
                      'get the complete lists; results do not compare with published ones')


def check_missing(split: Split, missing: set[str], remedy: str) -> Iterator[Finding]:
    """Listed images that do not exist."""
    files = [path for path, _ in split.items if path in missing]
    if files:
        yield Finding(split.name, f'{len(files):,} of {len(split.items):,} listed images are missing', remedy, files)


def check_readable(split: Split, decoded: Mapping[str, Decoded]) -> Iterator[Finding]:
    """Images that are there and cannot be decoded."""
    files = [path for path, _ in split.items if path in decoded and decoded[path].error]
    if files:
        yield Finding(split.name, f'{len(files):,} of {len(split.items):,} images cannot be read',
                      'fetch them again, or take them off the list', [f'{p} ({decoded[p].error})' for p in files])


def check_overlap(splits: Sequence[Split], keys: Mapping[str, str], known: bool = False) -> Iterator[Finding]:
    """Images of one split in another.

    Args:
        splits (Sequence[Split]): Those that must not share images.
        keys (Mapping[str, str]): Path -> what is equal for equal images; others are passed by.
        known (bool): The published data set repeats images, so it is no fault. Defaults to False.
    """
    for first, second in combinations(splits, 2):
        others = {keys[path]: (path, label) for path, label in first.items if path in keys}
        twins = [(path, label, *others[keys[path]]) for path, label in second.items if keys.get(path) in others]
        if twins:
            differ = sum(label != other for _, label, _, other in twins)
            text = f"{len(twins):,} of {len(second.items):,} images of '{second.name}' are in '{first.name}' too"
            yield Finding(f'{first.name}/{second.name}', text + (f', {differ:,} with another label' if differ else ''),
                          'known of this data set' if known else 'take them off one of the lists',
                          [f'{path} = {other}' for path, _, other, _ in twins], note=known)


def check_duplicates(split: Split, keys: Mapping[str, str]) -> Iterator[Finding]:
    """Images that come twice within a split: a note."""
    first: dict[str, str] = {}
    twins = []
    for path, _ in split.items:
        if path in keys and keys[path] in first:
            twins.append(f'{path} = {first[keys[path]]}')
        elif path in keys:
            first[keys[path]] = path
    if twins:
        yield Finding(split.name, f'{len(twins):,} images come more than once', '', twins, note=True)


def same_images(union: Split, parts: Sequence[Split], keys: Mapping[str, str]) -> Iterator[Finding]:
    """A list that must hold the images of others, and holds different ones."""
    whole = {(keys.get(path, path), label) for path, label in union.items}
    pieces = {(keys.get(path, path), label) for part in parts for path, label in part.items}
    if whole != pieces:
        names = ' and '.join(f"'{part.name}'" for part in parts)
        yield Finding(union.name, f'must hold the images of {names} with their labels, but {len(whole - pieces):,} are '
                      f'in none of them and {len(pieces - whole):,} of theirs are not here', 'get the lists again',
                      [path for path, label in union.items if (keys.get(path, path), label) not in pieces])


def summarize(split: Split, decoded: Mapping[str, Decoded] | None, missing: set[str]) -> dict[str, Any]:
    """The figures of a split, for a row of a table; ``decoded`` is None if nothing was decoded."""
    labels = {label for _, label in split.items}
    errors = None if decoded is None else sum(path in decoded and decoded[path].error is not None
                                              for path, _ in split.items)
    return dict(split=split.name, images=sum(path not in missing for path, _ in split.items), expected=split.size,
                classes=len(labels), expected_classes=split.num_classes,
                labels=[min(labels), max(labels)] if labels else None, unreadable=errors)
