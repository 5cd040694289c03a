"""A folder of images as train, val and test: read, split where no split is there, thinned out, checked."""
import os
import os.path as osp
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import NamedTuple
from unicodedata import normalize

from mmspt.datasets.audit.checks import load
from mmspt.datasets.class_names import compare_names, composed, quote
from mmspt.datasets.custom import EXTENSIONS, scan_folders
from mmspt.datasets.hold_out import hold_out, order
from mmspt.datasets.image_checks import map_in_threads
from mmspt.datasets.lists import DataError, Item, read_items

SPLITS = dict(train=('train', 'training'), val=('val', 'valid', 'validation'), test=('test', 'testing'))
"""Split -> names of its folder or, with .txt, of its list."""
TENTHS = 2
"""How much of the images is held out for test, and of the others for val, where a folder does not say."""
SPLIT_LIKE = re.compile('(train(ing)?|val(id|idation)?|test(ing)?|eval)([ _-]?(set|data|images|split))?', re.IGNORECASE)
"""Names of folders that are hardly classes."""
FEWEST = 5
"""Images of a class that is to be split."""


class Images(NamedTuple):
    """Images of a folder in three splits."""
    root: str
    classes: list[str]
    splits: dict[str, list[Item]]
    """'train', 'val', 'test' -> path below ``root`` and label of each."""
    notes: list[str]
    """What a user should know of them, a sentence each."""

    def count(self, split: str) -> int:
        """Return the number of a split's images."""
        return len(self.splits[split])


def is_image(name: str) -> bool:
    """Tell an image by its name's ending."""
    return name.lower().endswith(EXTENSIONS)


def read_folder(folder: str) -> Images:
    """Read a folder of class folders, of train / val / test folders of these, or of images and lists.

    Lists are ``train.txt``, ``val.txt`` and ``test.txt`` with ``<path> <label>`` a line, paths below the folder or its
    ``images/``. What is missing of val and test is held out of train, by hashes of the paths: the same images on every
    machine, and most of them still when others are added.

    Raises:
        DataError: No such folder, no images, names that differ between splits, one class, or a class that is too small
            to be split.
    """
    root = osp.abspath(osp.expanduser(folder))
    if not osp.isdir(root):
        raise DataError(f"--data must be a folder, but '{root}' is not: correct the path")
    names = sorted(os.listdir(root))
    given = {split: next((name for name in names if name.lower() in known), None) for split, known in SPLITS.items()}
    listed = {split: next((f'{name}.txt' for name in known if f'{name}.txt' in names), None)
              for split, known in SPLITS.items()}
    if listed['train']:
        images = _read_lists(root, {split: name for split, name in listed.items() if name})
    elif given['train'] and _has_class_folders(osp.join(root, given['train'])):
        images = _read_splits(root, {split: name for split, name in given.items() if name})
    else:
        inner = [name for name in names if not name.startswith('.') and osp.isdir(osp.join(root, name))]
        if len(inner) == 1 and any(entry.is_dir() for entry in os.scandir(osp.join(root, inner[0]))):
            images = read_folder(osp.join(root, inner[0]))
            return images._replace(notes=[f"the class folders are those in '{inner[0]}/'", *images.notes])
        images = _read_splits(root, dict(train=''))
        if all(SPLIT_LIKE.fullmatch(name) for name in images.classes):
            raise DataError(f"class folders must be named after classes, but those in '{root}' are "
                            f'{quote(images.classes)}: call them train, val and test, with a folder for each class in '
                            'each')
    if len(images.classes) < 2:
        raise DataError(f"there must be two classes or more, but '{root}' has {quote(images.classes) or 'none'}: give "
                        'a folder with a folder for each class')
    return _split(images)


def _has_class_folders(folder: str) -> bool:
    return bool(scan_folders(folder, is_image)[1])


def _read_splits(root: str, folders: Mapping[str, str]) -> Images:
    """Read class folders; ``folders`` is split -> folder below ``root``."""
    found: dict[str, list[tuple[str, str]]] = {}  # split -> class and path
    notes, classes = [], list[str]()
    for split, folder in folders.items():
        _, images, left_out = scan_folders(osp.join(root, folder), is_image)
        if not images and split == 'train':
            raise DataError(f"class folders must hold images, but those in '{osp.join(root, folder)}' do not (left "
                            f'out: {left_out or "nothing"}): name another folder')
        if not images:
            notes.append(f"'{folder}' is left out, since it has no class folders with images")
            continue
        notes += [f"left out of '{folder or root}': {left_out}"] * bool(left_out)
        paths = [(name, PurePath(folder, name, file).as_posix()) for name, files in images.items() for file in files]
        odd = [path for _, path in paths if not _can_be_listed(path)]
        if odd:
            notes.append(f'{len(odd):,} images of {split} are left out, since a list cannot hold their names '
                         f'({_first([ascii(path) for path in odd])}): rename them')
        found[split] = [(normalize('NFC', name), path) for name, path in paths if _can_be_listed(path)]
        names = composed(list(images))
        classes = classes or names
        differs = compare_names(names, classes)
        if set(names) - set(classes):
            raise DataError(f'{split} must have no class that train lacks, but it {differs}: rename the folders, or '
                            'add images to train')
        notes += [f'{split} {differs}'] * bool(differs)
    labels = {name: label for label, name in enumerate(classes)}
    splits = {split: [(path, labels[name]) for name, path in items] for split, items in found.items()}
    return Images(root, classes, splits, notes)


def _can_be_listed(path: str) -> bool:
    """Whether a line of a list file can name an image: text in UTF-8, one line, no blank at an end."""
    try:
        return path == path.strip() and len(path.splitlines()) == 1 and bool(path.encode())
    except UnicodeEncodeError:
        return False


def _read_lists(root: str, lists: Mapping[str, str]) -> Images:
    splits = {split: read_items(osp.join(root, name)) for split, name in lists.items()}
    if not splits['train']:
        raise DataError(f"a list must name images, but '{osp.join(root, lists['train'])}' is empty: fill it")
    first = splits['train'][0][0]
    below = next((place for place in ('', 'images') if osp.isfile(osp.join(root, place, first))), None)
    if below is None:
        raise DataError(f"a list must name images below its folder or images/, but '{first}' of "
                        f"'{osp.join(root, lists['train'])}' is in neither: correct the paths")
    labels = {label for items in splits.values() for _, label in items}
    trained = {label for _, label in splits['train']}
    if min(labels) < 0 or trained != set(range(max(labels) + 1)):
        wrong = sorted(set(range(max(labels) + 1)) ^ trained | {label for label in labels if label < 0})
        raise DataError('labels must run from 0 without a gap, and train must have them all, but there it is otherwise '
                        f'for {", ".join(map(str, wrong[:5]))}: number the classes anew')
    folders = defaultdict(set)
    for path, label in splits['train']:
        folders[label].add(PurePath(path).parent.name)
    named = [next(iter(names)) if len(names) == 1 else '' for _, names in sorted(folders.items())]
    classes = named if all(named) and len(set(named)) == len(named) else [f'class {label}' for label in sorted(trained)]
    return Images(osp.join(root, below) if below else root, classes, splits, [])


def _split(images: Images) -> Images:
    """Hold out of train what is missing."""
    splits, notes = dict(images.splits), list(images.notes)
    missing = [split for split in ('test', 'val') if not splits.get(split)]
    if missing:
        counts = Counter(label for _, label in splits['train'])
        small = [f'{images.classes[label]} ({counts[label]})' for label in sorted(counts) if counts[label] < FEWEST]
        if small:
            raise DataError(f'a class that is to be split must have at least {FEWEST} images, but '
                            f'{_first(small)} {"has" if len(small) == 1 else "have"} fewer: add images, remove the '
                            'folder, or give folders train, val and test')
        notes.append(f'{" and ".join(missing)} {"are" if len(missing) > 1 else "is"} held out of train, by hashes of '
                     'the paths')
    for split in missing:
        paths, labels = zip(*splits['train'], strict=True)
        held = hold_out(paths, labels, TENTHS)
        splits[split] = [item for item, out in zip(splits['train'], held, strict=True) if out]
        splits['train'] = [item for item, out in zip(splits['train'], held, strict=True) if not out]
    return images._replace(splits={split: splits[split] for split in SPLITS}, notes=notes)


def thin_out(images: Images, sizes: Mapping[str, int]) -> Images:
    """Keep up to ``sizes`` images of a split, as many of each class, by hashes of their paths."""
    splits = {}
    for split, items in images.splits.items():
        members = defaultdict(list)
        for path, label in items:
            members[label].append(path)
        ranked = sorted(((rank, order(path), path) for paths in members.values()
                         for rank, path in enumerate(sorted(paths, key=order))))
        chosen = {path for _, _, path in ranked[:sizes[split]]}
        splits[split] = [item for item in items if item[0] in chosen]
    return images._replace(splits=splits)


def check_images(images: Images, on_image: Callable[[int, int], object]) -> Images:
    """Decode every image once; leave out those that cannot be read, and those of train or val that come again in a
    later split, pixel by pixel.

    Args:
        images (Images): What is to be used.
        on_image (Callable): Called with the numbers of decoded and of all images.

    Raises:
        DataError: A split is left without images, or train without a class.
    """
    paths = [osp.join(images.root, path) for items in images.splits.values() for path, _ in items]
    digests, errors = {}, []
    for done, (path, digest, error) in enumerate(map_in_threads(load, paths), 1):
        if digest:
            digests[path] = digest
        else:
            errors.append(f"'{osp.relpath(path, images.root)}' ({error})")
        on_image(done, len(paths))
    notes = list(images.notes)
    if errors:
        notes.append(f'{len(errors):,} images that cannot be read are left out: {_first(errors)}')
    splits, later = {}, set[str]()
    for split in reversed(images.splits):
        kept = [(path, label) for path, label in images.splits[split] if osp.join(images.root, path) in digests]
        twins = [path for path, _ in kept if digests[osp.join(images.root, path)] in later]
        if twins:
            notes.append(f'{len(twins):,} images of {split} are left out, since a later split has the same pixels: '
                         f'{_first([repr(path) for path in twins])}')
        splits[split] = [item for item in kept if item[0] not in set(twins)]
        later |= {digests[osp.join(images.root, path)] for path, _ in kept}
    trained = {label for _, label in splits['train']}
    absent = [name for label, name in enumerate(images.classes) if label not in trained]
    if absent or not all(splits.values()):
        empty = [split for split, items in splits.items() if not items]
        raise DataError(f'every class must have an image to train on, and every split one at all, but '
                        f'{quote(absent) if absent else quote(empty)} have none that can be used '
                        f'({"; ".join(notes) or "nothing was left out"}): correct the folder')
    return images._replace(splits={split: splits[split] for split in images.splits}, notes=notes)


def _first(texts: Sequence[str]) -> str:
    return ', '.join(texts[:3]) + (f', ... ({len(texts):,})' if len(texts) > 3 else '')


def seconds_to_load(images: Images, number: int = 16) -> float:
    """Return how long one image takes to be read and decoded, on one thread; the mean over some of train."""
    chosen = thin_out(images, dict(train=number, val=0, test=0)).splits['train']
    some = [osp.join(images.root, path) for path, _ in chosen]
    start = time.perf_counter()
    for path in some:
        load(path)
    return (time.perf_counter() - start) / len(some)
