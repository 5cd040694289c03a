"""MATLAB's files, in which three data sets keep their lists."""
from typing import Any

import numpy as np
from mmengine.fileio import get_file_backend
from scipy.io import loadmat


def read_mat(path: str, remedy: str, *names: str) -> list[np.ndarray]:
    """Read variables (or fields of a struct array, as 'annotations.class'), flattened.

    Args:
        path (str): A file of MATLAB 5 to 7.2.
        remedy (str): What to do about a bad file.
        *names (str): Names of the variables.

    Returns:
        list[np.ndarray]: One array of shape (N, ) each, of numbers or strings.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file cannot be read, or has no such variable.
    """
    backend = get_file_backend(path)
    if not backend.isfile(path):
        raise FileNotFoundError(f"a data set must come with all its lists, but '{path}' does not exist: {remedy}")
    try:
        with backend.get_local_path(path) as local:
            content = loadmat(local, squeeze_me=True)
    except Exception as error:  # scipy raises what the damage leads to
        raise ValueError(f"a list must be a file of MATLAB's, but '{path}' is not ({error}): {remedy}") from error
    return [np.atleast_1d(_lookup(content, name, path, remedy)) for name in names]


def _lookup(content: dict[str, Any], name: str, path: str, remedy: str) -> Any:
    value: Any = content
    for part in name.split('.'):
        fields = value.dtype.names or () if isinstance(value, np.ndarray | np.void) else value
        if part not in fields:
            known = ', '.join(field for field in fields if not field.startswith('__'))
            raise ValueError(f"'{path}' must have '{name}', but has {known}: {remedy}")
        value = value[part]
    return value
