"""One search at a time in a folder."""
import fcntl
import os.path as osp
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def locked(folder: str) -> Iterator[None]:
    """Hold ``folder``; the system lets go of it when the process ends, however it ends.

    Raises:
        RuntimeError: Another process holds it.
    """
    with open(osp.join(folder, 'lock'), 'a', encoding='utf-8') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(f"one search at a time may work in a folder, but another holds '{folder}': wait for it, "
                               'or choose another --work-dir') from error
        yield
