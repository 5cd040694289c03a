"""Read the lists that data sets come with; errors name the file."""
import json
import os
import os.path as osp
from collections.abc import Sequence
from typing import Any

from mmengine.fileio import BaseStorageBackend, get_file_backend

Item = tuple[str, int]
"""Path of an image and its class, counted from 0."""


def backend_of(path: str) -> BaseStorageBackend:
    """Return MMEngine's backend of an existing list; raise FileNotFoundError without it."""
    backend = get_file_backend(path)
    if not backend.isfile(path):
        raise FileNotFoundError(f"a data set must come with all its lists, but '{path}' does not exist")
    return backend


def read_text(path: str) -> str:
    """Read a text file in UTF-8; the byte order mark of Windows' editors is dropped."""
    return backend_of(path).get_text(path, encoding='utf-8-sig')


def read_rows(path: str) -> list[tuple[str, str]]:
    """Read lines of `<first> <rest>`, the format of CUB, NABirds and VTAB-1k; ``rest`` may hold spaces.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A line without a rest.
    """
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            first, *rest = line.strip().split(maxsplit=1)
            if not rest:
                raise ValueError(f"a line must have two fields, but line {number} of '{path}' is {line[:200]!r}")
            rows.append((first, rest[0]))
    return rows


def read_items(path: str) -> list[Item]:
    """Read lines of `<image path> <label>`; errors as for :func:`read_rows`, and ValueError for a bad label."""
    items = []
    for image, label in read_rows(path):
        try:
            items.append((image, int(label)))
        except ValueError as error:
            raise ValueError(f"a label must be a whole number, but that of '{image}' in '{path}' is "
                             f"'{label[:200]}'") from error
    return items


def read_json(path: str) -> dict[str, Any]:
    """Read a JSON object; raise ValueError for anything else."""
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise ValueError(f"a list must be valid JSON, but '{path}' is not ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"a list must be a JSON object {{image: class}}, but '{path}' is not")
    return content


def find_missing(paths: Sequence[str]) -> list[str]:
    """Return the paths that do not exist, with one listing for each folder; remote files are not looked for."""
    local = [path for path in paths if '://' not in path]
    folders = {osp.dirname(path) for path in local}
    there = {folder: set(os.listdir(folder or '.')) for folder in folders if osp.isdir(folder or '.')}
    return [path for path in local if osp.basename(path) not in there.get(osp.dirname(path), ())]
