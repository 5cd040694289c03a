"""A disk that is full, or may not be written: what to say, and what is still there."""
import errno
import os.path as osp
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from .last_checkpoint import last_good

REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


def explain(error: OSError, folder: str, work_dir: str, what: str) -> OSError:
    """Say what could not be written, how much room there is, and where the run can go on.

    Args:
        error (OSError): What the system said.
        folder (str): Where it should go.
        work_dir (str): The run's, with ``last_checkpoint``.
        what (str): 'a checkpoint', 'a log', ...

    Returns:
        OSError: Of the same kind, to be raised from ``error``.
    """
    try:
        free = f'{shutil.disk_usage(folder).free / 2**30:.2f} GiB are free there'
    except OSError:
        free = 'how much is free there cannot be told'
    return OSError(error.errno, f"{what} must be written, but {error}; {free}; {last_good(work_dir)}. Make room, or "
                                f"give yourself the right to write to '{folder}'")


@contextmanager
def explained(work_dir: str) -> Iterator[None]:
    """Explain what the disk of ``work_dir`` refuses inside; other errors, and those about other files, pass.

    Raises:
        OSError: See :func:`explain`.
    """
    try:
        yield
    except OSError as error:
        inside = osp.join(osp.abspath(work_dir), '')
        elsewhere = error.filename is not None and not osp.abspath(str(error.filename)).startswith(inside)
        unnamed = error.filename is None and error.errno in (errno.EACCES, errno.EPERM)
        if error.errno not in REFUSALS or elsewhere or unnamed or isinstance(error.__cause__, OSError):
            raise
        raise explain(error, work_dir, work_dir, 'logs and results') from error
