"""Class names where two lists of them meet: a label means a class only while the lists agree."""
import re
from collections.abc import Mapping, Sequence
from typing import Any
from unicodedata import normalize

from .lists import DataError
from .nested_configs import parts

SPLITS = {'train', 'training', 'val', 'valid', 'validation', 'test'}


def compare_names(names: Sequence[Any], others: Sequence[Any]) -> str:
    """Say how class names differ from others, '' if they do not; composed and decomposed Unicode are the same."""
    own, other = composed(names), composed(others)
    if own == other:
        return ''
    lacks, more = [name for name in other if name not in own], [name for name in own if name not in other]
    found = [f'lacks {quote(lacks)}'] * bool(lacks) + [f'has {quote(more)} besides'] * bool(more)
    return ' and '.join(found) or f'has another order ({quote(own)} instead of {quote(other)})'


def composed(names: Sequence[Any]) -> list[str]:
    """Return names as text in Unicode's composed form: macOS names folders in the decomposed one."""
    return [normalize('NFC', str(name)) for name in names]


def spelled(names: Sequence[Any]) -> list[str]:
    """Return names without what a name for display changes: case, spaces, hyphens, underscores, punctuation."""
    return [re.sub(r'[\W_]+', ' ', name).strip().casefold() for name in composed(names)]


def moved_names(names: Sequence[Any], others: Sequence[Any]) -> list[str]:
    """Return the names that others have at another place, however they are spelled; the rest may be for display."""
    known = spelled(others)
    return [str(names[place]) for place, name in enumerate(spelled(names))
            if name in known and known[place:place + 1] != [name]]


def quote(names: Sequence[str]) -> str:
    """Return the first five names in quotes."""
    return ', '.join(map(repr, names[:5])) + (f', ... ({len(names)})' if len(names) > 5 else '')


def number_folders(folders: Sequence[str], names: Sequence[Any]) -> dict[str, int] | None:
    """Return the label of each class folder by its name, however it is spelled; None if no folder is named (``names``
    are for display)."""
    for form in (composed, spelled):
        places = {name: label for label, name in enumerate(form(names))}
        labels = [places[folder] for folder in form(folders) if folder in places]
        if len(places) == len(names) and len(set(labels)) == len(folders):
            return dict(zip(folders, labels, strict=True))
    unknown = [folder for folder in folders if normalize('NFC', folder) not in composed(names)]
    if len(unknown) == len(folders):
        return None
    raise DataError(f'class folders must be among metainfo.classes, each once, but the folders {quote(folders)} meet '
                    f'the names {quote(composed(names))}: correct metainfo.classes, or rename the folders'
                    + (f' {quote(unknown)}' if unknown else ''))


def names_of(dataset: Any) -> tuple[str, ...]:
    """Return a data set's class names; empty if it has none."""
    meta = getattr(dataset, 'metainfo', None)
    return tuple((meta.get('classes') if isinstance(meta, Mapping) else None) or ())


def check_folders(dataset: Any, train: bool = False) -> None:
    """Check class folders that MMPretrain numbers by their order: hidden ones, and names in another order.

    Args:
        dataset (Any): A data set; without class folders there is nothing to check.
        train (bool): Whether it is trained on, so that one class is too few. Defaults to False.

    Raises:
        DataError: A folder is no class, or the names are not those of the labels.
    """
    for part in parts(dataset):
        folders, names = list(getattr(part, 'folder_to_idx', None) or []), composed(names_of(part))
        if not folders:
            continue
        place = f"'{part.img_prefix}'"
        hidden = [folder for folder in folders if folder.startswith('.')]
        if hidden:
            raise DataError(f'a hidden folder is no class, but MMPretrain takes {quote(hidden)} in {place} for one: '
                            "delete it, or set type='mmspt.CustomDataset', which leaves it out")
        if (train and len(names) == 1) or {folder.lower() for folder in folders} <= SPLITS:
            raise DataError(f'a task must have at least two classes, but the class folders in {place} are '
                            f'{quote(folders)}: set data_root or data_prefix to the folder whose sub-folders are the '
                            'classes')
        if number_folders(folders, names) not in (None, part.folder_to_idx):
            raise DataError(f'MMPretrain numbers the class folders in {place} in the order of their names, but '
                            f'metainfo.classes has {quote(names)}: bring it into the order {quote(sorted(folders))}, '
                            "or set type='mmspt.CustomDataset', whose labels follow metainfo.classes")


def find_folders(dataset: Any) -> dict[str, int]:
    """Return the label of each class folder of a data set."""
    found = [getattr(part, 'folder_to_idx', None) or {} for part in parts(dataset)]
    return {folder: label for folders in found for folder, label in folders.items()}


def follow_names(dataset: Any, names: Sequence[Any], who: str, whose: str) -> str:
    """Let a data set's labels mean the classes of another list, in place.

    A :class:`mmspt.datasets.CustomDataset` of folders is numbered anew if the other list has all its names.

    Args:
        dataset (Any): A data set; one without class names is left alone.
        names (Sequence): The names that count.
        who (str): The data set, for the message ('val').
        whose (str): Owner of the names, for the message ('train').

    Returns:
        str: What differed, '' if nothing did.

    Raises:
        DataError: The names differ otherwise.
    """
    differs = ''
    for part in parts(dataset):
        found = names_of(part)
        difference = compare_names(found, names) if found else ''
        if not difference:
            continue
        differs = differs or difference
        wraps = next(parts(part)) is not part
        if not wraps and not (hasattr(part, 'number_anew') and part.number_anew(names)):
            raise DataError(f'class names must agree, since a label means the class at its place, but {who} '
                            f'{difference}, compared with {whose}: {_remedy(part, found, names)}')
        part._metainfo['classes'] = tuple(names)
    return differs


def _remedy(dataset: Any, found: Sequence[Any], names: Sequence[Any]) -> str:
    if not set(composed(found)) <= set(composed(names)):
        return 'rename or move the classes (metainfo.classes, class folders), so that both have the same'
    if getattr(dataset, 'folder_to_idx', None):
        return "set type='mmspt.CustomDataset' in its data set, whose labels follow the names of the folders"
    return 'give both the same metainfo.classes, in the order of the labels of the list'
