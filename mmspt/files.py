"""Write files atomically: whoever looks finds the old content or the new, never half of it."""
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape, glob
from pathlib import Path
from uuid import uuid4

from mmengine.fileio import LocalBackend, register_backend


@contextmanager
def written_atomically(path: str) -> Iterator[str]:
    """Give the path of a file to write, which takes the place of ``path`` in one step when the block ends.

    Folders are made and links followed. A ``path`` that is no regular file (a pipe, a device) is written directly.

    Raises:
        OSError: It cannot be written; ``path`` is as it was, and nothing stays beside it.
    """
    path = os.path.realpath(path)
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    if os.path.exists(path) and not os.path.isfile(path):
        yield path
        return
    # a name of its own: MMEngine lets every process write its metrics to one file
    beside = os.path.join(folder, f'{name[:100]}.{uuid4().hex[:8]}.tmp')
    try:
        yield beside
        with open(beside, 'rb+') as file:  # Windows flushes only what is open for writing
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        if os.path.isfile(beside):
            os.remove(beside)
        raise


def write_bytes(path: str, content: bytes | memoryview) -> None:
    """Write atomically, see :func:`written_atomically`."""
    with written_atomically(path) as beside, open(beside, 'wb') as file:
        file.write(content)


def clear_unfinished(folder: str) -> None:
    """Remove what :func:`written_atomically` left when its process was killed; none may be writing there."""
    for path in glob(os.path.join(escape(folder), '*.tmp')):
        if re.search(r'\.[0-9a-f]{8}\.tmp$', path):
            os.remove(path)


def write_text(path: str, text: str) -> None:
    """:func:`write_bytes` of UTF-8."""
    write_bytes(path, text.encode())


def atomic_backend(folder: str) -> dict | None:
    """Return the ``backend_args`` by which MMEngine writes to a local folder atomically; None for an address."""
    return None if '://' in folder else dict(backend='mmspt')


@register_backend('mmspt')
class AtomicBackend(LocalBackend):
    """MMEngine's backend of local files, which writes atomically."""

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        """Write bytes, see :func:`written_atomically`."""
        write_bytes(os.fspath(filepath), obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text, see :func:`written_atomically`."""
        write_bytes(os.fspath(filepath), obj.encode(encoding))
