"""Errors of a full or read-only disk that say how to go on."""
import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from .last_checkpoint import resume_hint

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextmanager
def explain_disk_errors(work_dir: str, folder: str | None = None, what: str = 'logs and results') -> Iterator[None]:
    """Add the free space and the last good checkpoint to errors of a full or read-only disk.

    Other errors, and errors that were explained before, pass unchanged.

    Args:
        work_dir (str): The run's work directory, with ``last_checkpoint``.
        folder (str | None): The folder that is written to. Defaults to ``work_dir``.
        what (str): What is written there, for the message. Defaults to 'logs and results'.

    Raises:
        OSError: With the same error number.
    """
    folder = folder or work_dir
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM or isinstance(error.__cause__, OSError):
            raise
        try:
            free = f'{shutil.disk_usage(folder).free / 2**30:.2f} GiB are free there'
        except OSError:
            free = 'the free space there is unknown'
        raise OSError(error.errno, f"{what} must be written to '{folder}', but {error}; {free}; "
                                   f'{resume_hint(work_dir)}. Make room') from error
