"""MATLAB's files, in which three data sets keep their lists."""
from typing import Any

import numpy as np
from mmengine.fileio import get_file_backend
from scipy.io import loadmat


def read_columns(path: str, remedy: str, files: str, *numbers: str) -> list[tuple]:
    """Read variables of one length as rows.

    Args:
        path (str): A file of MATLAB 5 to 7.2.
        remedy (str): What to do about a bad file.
        files (str): The variable of file names, or a field of a struct array ('annotations.fname').
        *numbers (str): Variables of whole numbers.

    Returns:
        list[tuple]: A file name and its numbers, for each row.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file cannot be read, a variable is missing, holds something else or is of another length.
    """
    content = _load(path, remedy)
    names = _lookup(content, files, path, remedy)
    columns = [_as_whole(_lookup(content, name, path, remedy), path, remedy, name) for name in numbers]
    for name, column in zip(numbers, columns, strict=True):
        if len(column) != len(names):
            raise ValueError(f"'{path}' must have a '{name}' for each '{files}', but has {len(column)} for "
                             f'{len(names)}: {remedy}')
    return list(zip([str(name) for name in names], *columns, strict=True))


def whole_numbers(path: str, remedy: str, name: str) -> list[int]:
    """Read one variable of whole numbers; arguments and errors as for :func:`read_columns`."""
    return _as_whole(_lookup(_load(path, remedy), name, path, remedy), path, remedy, name)


def _load(path: str, remedy: str) -> dict[str, Any]:
    backend = get_file_backend(path)
    if not backend.isfile(path):
        raise FileNotFoundError(f"a data set must come with all its lists, but '{path}' does not exist: {remedy}")
    try:
        with backend.get_local_path(path) as local:
            return loadmat(local, squeeze_me=True)
    except Exception as error:  # scipy raises what the damage leads to
        raise ValueError(f"a list must be a file of MATLAB's, but '{path}' is not ({error}): {remedy}") from error


def _lookup(content: dict[str, Any], name: str, path: str, remedy: str) -> np.ndarray:
    """Find a variable, or a field of a struct array; return it as (N, )."""
    value: Any = content
    for part in name.split('.'):
        fields = value.dtype.names or () if isinstance(value, np.ndarray | np.void) else value
        if part not in fields:
            known = ', '.join(field for field in fields if not field.startswith('__'))
            raise ValueError(f"'{path}' must have '{name}', but has {known}: {remedy}")
        value = value[part]
    return np.atleast_1d(value)


def _as_whole(values: np.ndarray, path: str, remedy: str, name: str) -> list[int]:
    try:
        whole = [int(value) for value in values]
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"'{name}' of '{path}' must be whole numbers, but is not ({error}): {remedy}") from error
    wrong = next((value for value, number in zip(values, whole, strict=True) if value != number), None)
    if wrong is not None:
        raise ValueError(f"'{name}' of '{path}' must be whole numbers, but has {wrong}: {remedy}")
    return whole
