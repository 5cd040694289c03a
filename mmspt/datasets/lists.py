"""Read the lists that data sets come with; errors name the file."""
import json
import os
import os.path as osp
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.fileio import BaseStorageBackend, get_file_backend
from mmpretrain.datasets import CustomDataset as MMPretrainCustomDataset

Item = tuple[str, int]
"""Path of an image and its class, counted from 0."""


class DataError(ValueError):
    """A fault of a data set; the message ends with its remedy."""


def backend_of(path: str) -> BaseStorageBackend:
    """Return MMEngine's backend of a list; raise FileNotFoundError without the list, if it is on this machine."""
    backend = get_file_backend(path)
    if '://' not in path and not backend.isfile(path):
        raise FileNotFoundError(f"a data set must come with all its lists, but '{path}' does not exist")
    return backend


def read_text(path: str) -> str:
    """Read a text file in UTF-8; the byte order mark of Windows' editors is dropped. DataError if it is none."""
    try:
        return backend_of(path).get_text(path, encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise DataError(f"a list must be text in UTF-8, but '{path}' is not ({error}): save it so") from error


def read_rows(path: str) -> list[tuple[str, str]]:
    """Read lines of `<first> <rest>`, the format of CUB and NABirds; ``rest`` may hold spaces.

    Raises:
        FileNotFoundError: No such file.
        DataError: A line without a rest, or no text in UTF-8.
    """
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            first, *rest = line.strip().split(maxsplit=1)
            if not rest:
                raise DataError(f"{path}:{number}: a line must have two fields, but is {line[:200]!r}: complete it")
            rows.append((first, rest[0]))
    return rows


def read_items(path: str, by_mmpretrain: bool = False) -> list[Item]:
    """Read lines of `<image path> <label>`, separated by spaces or a tab; the path may hold spaces.

    Args:
        path (str): A list file. Empty lines and a byte order mark are passed over.
        by_mmpretrain (bool): Whether MMPretrain's CustomDataset will read it, which needs one space, no empty line and
            no byte order mark. Defaults to False.

    Raises:
        FileNotFoundError: No such file.
        DataError: A line that is read otherwise or not at all, with file and line; no text in UTF-8.
    """
    items = []
    lines = read_text(path).removesuffix('\n').split('\n')
    mark = by_mmpretrain and backend_of(path).get_text(path, encoding='utf-8').startswith('\ufeff')
    for number, line in enumerate(map(str.strip, lines), 1):
        image, *rest = line.rsplit(maxsplit=1) or ['']
        if (line or by_mmpretrain) and not (rest and re.fullmatch('-?[0-9]+', rest[0]) and image[-1] not in ',;'):
            raise DataError(f"{path}:{number}: a line must be '<path> <label>' with a whole number as label, but is "
                            f'{line[:200]!r}: {_remedy(line, lines[number:])}')
        if by_mmpretrain and (mark or line.rsplit(' ', 1) != [image, *rest]):
            found = 'a byte order mark' if mark else repr(line[:200])
            raise DataError(f"{path}:{number}: MMPretrain's CustomDataset needs one space before the label and no byte "
                            f"order mark, but here is {found}: set type='mmspt.CustomDataset', which reads it, or save "
                            'the list so')
        if line:
            items.append((image, int(rest[0])))
    return items


def check_list(dataset: Mapping[str, Any]) -> None:
    """Raise DataError for a line of a data set config's list file that MMPretrain's CustomDataset cannot read."""
    path = osp.expanduser(osp.join(dataset.get('data_root') or '', dataset.get('ann_file') or ''))
    if dataset.get('type') in ('CustomDataset', 'mmpretrain.CustomDataset', MMPretrainCustomDataset) \
            and dataset.get('_scope_') != 'mmspt' and osp.isfile(path) and dataset.get('with_label', True):
        read_items(path, by_mmpretrain=True)


def _remedy(line: str, following: list[str]) -> str:
    if not line:
        return "delete it, or set type='mmspt.CustomDataset', which passes it over"
    separator = re.search(r'[,;](?=[^,;]*$)', line)
    if separator:
        return f"put a space instead of '{separator[0]}' before the label, without quotes, and no header line"
    whole = re.search(r'\s(-?[0-9]+)\.0*$', line)
    if whole:
        return f'write {whole[1]}'
    if following and re.search(r'\s-?[0-9]+\s*$', following[0]):
        return 'number its class from 0, or delete the line if it is a header'
    return 'number the classes from 0, in the order of metainfo.classes'


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
