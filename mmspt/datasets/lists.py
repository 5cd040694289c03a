"""Read the lists that data sets come with; errors name file, line and remedy."""
import json
import os
import os.path as osp
import re
from collections.abc import Sequence
from typing import Any

from mmengine.fileio import get_file_backend

Item = tuple[str, int]
"""Path of an image and its class, counted from 0."""


def read_text(path: str, remedy: str) -> str:
    """Read a text file.

    Raises:
        FileNotFoundError: It does not exist.
        ValueError: It is empty, or no text.
    """
    backend = get_file_backend(path)
    if not backend.isfile(path):
        raise FileNotFoundError(f"a data set must come with all its lists, but '{path}' does not exist: {remedy}")
    try:
        text = backend.get_text(path).removeprefix('\ufeff')  # Windows' editors put it there
    except UnicodeDecodeError as error:
        raise ValueError(f"a list must be text, but '{path}' is not ({error}): {remedy}") from error
    if not text.strip():
        raise ValueError(f"a list must name something, but '{path}' is empty: {remedy}")
    return text


def read_pairs(path: str, remedy: str) -> dict[str, str]:
    """Read lines of `<key> <value>`, the format of CUB and NABirds, in their order; a value may hold spaces.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A line without a value, or a key that comes twice.
    """
    pairs: dict[str, str] = {}
    for number, line in enumerate(read_text(path, remedy).splitlines(), 1):
        if not line.strip():
            continue
        key, *value = line.strip().split(maxsplit=1)
        if not value:
            raise ValueError(f"a line must be '<key> <value>', but line {number} of '{path}' is {line!r}: {remedy}")
        if key in pairs:
            raise ValueError(f"a key must come once, but '{key}' in line {number} of '{path}' came before: {remedy}")
        pairs[key] = value[0]
    return pairs


def is_label(text: str) -> bool:
    """Return whether a text is a whole number of at most 9 digits; Python itself refuses one of over 4,300."""
    return re.fullmatch('-?[0-9]{1,9}', text) is not None


def read_items(path: str, remedy: str) -> list[Item]:
    """Read lines of `<image path> <label>`, the format of VTAB-1k.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A line with another number of fields, a label that is no whole number.
    """
    items = []
    for number, line in enumerate(read_text(path, remedy).splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 2:
            raise ValueError(f"a line must be '<image path> <label>', two fields without spaces in them, but line "
                             f"{number} of '{path}' has {len(fields)}, {line[:200]!r}: {remedy}")
        if not is_label(fields[1]):
            raise ValueError(f"a label must be a whole number of at most 9 digits, but line {number} of '{path}' has "
                             f"'{fields[1][:200]}': {remedy}")
        items.append((fields[0], int(fields[1])))
    return items


def read_json(path: str, remedy: str) -> dict[str, Any]:
    """Read a JSON object that is not empty.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is not JSON, or no object.
    """
    try:
        content = json.loads(read_text(path, remedy))
    except (ValueError, RecursionError) as error:  # also a number of over 4,300 digits, or too deep
        raise ValueError(f"a list must be valid JSON, but '{path}' is not ({error}): {remedy}") from error
    if not isinstance(content, dict) or not content:
        raise ValueError(f"a list must be a JSON object {{image: class}}, but '{path}' is not: {remedy}")
    return content


def find_missing(paths: Sequence[str]) -> list[str]:
    """Return the paths that are no files, with one listing for each folder; remote files are not looked for."""
    listings: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        if '://' in path:
            continue
        folder, name = osp.split(path)
        if folder not in listings:
            listings[folder] = _files(folder or '.')
        if name not in listings[folder]:
            missing.append(path)
    return missing


def _files(folder: str) -> set[str]:
    if not osp.isdir(folder):
        return set()
    with os.scandir(folder) as entries:  # tells files without a look at each; of a link the target counts
        return {entry.name for entry in entries
                if (osp.isfile(entry.path) if entry.is_symlink() else entry.is_file())}


def check_images(paths: Sequence[str], remedy: str) -> None:
    """Make sure that the images of a list exist.

    Raises:
        FileNotFoundError: Some do not; the message gives their number and the first of them.
    """
    missing = find_missing(paths)
    if missing:
        raise FileNotFoundError(f'every listed image must exist, but {len(missing):,} of {len(paths):,} do not, '
                                f"'{missing[0]}' first: {remedy}")
