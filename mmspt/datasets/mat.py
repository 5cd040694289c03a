"""MATLAB's files, in which three data sets keep their lists."""
from typing import Any

import numpy as np
from scipy.io import loadmat

from .lists import backend_of


def read_columns(path: str, *names: str) -> list[tuple]:
    """Read variables of one length as rows.

    Args:
        path (str): A file of MATLAB 5 to 7.2.
        *names (str): Variables, or fields of a struct array ('annotations.fname').

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file cannot be read, a variable is missing or of another length.
    """
    try:
        with backend_of(path).get_local_path(path) as local:
            content = loadmat(local, squeeze_me=True)
        return list(zip(*(_column(content, name) for name in names), strict=True))
    except FileNotFoundError:
        raise
    except Exception as error:  # scipy raises what the damage leads to
        raise ValueError(f"'{path}' must be a file of MATLAB's with {', '.join(names)}, each of one length, but is not "
                         f'({type(error).__name__}: {error})') from error


def _column(content: Any, name: str) -> list:
    for part in name.split('.'):
        content = content[part]
    return np.atleast_1d(content).tolist()
