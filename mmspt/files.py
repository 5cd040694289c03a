"""Files that are never found half-written."""
import os
import re
from glob import escape, glob
from pathlib import Path
from uuid import uuid4

from mmengine.fileio import LocalBackend as MMEngineLocalBackend


def write_bytes(path: str, content: bytes | memoryview) -> None:
    """Write beside ``path``, see that it has reached the disk, and rename; folders are made, links followed.

    What is there and no regular file (a pipe, a device) is written into.

    Raises:
        OSError: It cannot be written; ``path`` is as it was, and nothing stays beside it.
    """
    path = os.path.realpath(path)
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, 'wb') as file:
            file.write(content)
        return
    # a name of its own: MMEngine lets every process write its metrics to one file
    beside = os.path.join(folder, f'{name[:100]}.{uuid4().hex[:8]}.tmp')
    try:
        with open(beside, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        if os.path.isfile(beside):
            os.remove(beside)
        raise


def clear_unfinished(folder: str) -> None:
    """Remove what :func:`write_bytes` left when its process was killed; none may be writing there."""
    for path in glob(os.path.join(escape(folder), '*.tmp')):
        if re.search(r'\.[0-9a-f]{8}\.tmp$', path):
            os.remove(path)


def write_text(path: str, text: str) -> None:
    """:func:`write_bytes` of UTF-8."""
    write_bytes(path, text.encode())


class LocalBackend(MMEngineLocalBackend):
    """MMEngine's backend of local files; what it puts there is written beside and renamed."""

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        """Write bytes, see :func:`write_bytes`."""
        write_bytes(os.fspath(filepath), obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text, see :func:`write_bytes`."""
        write_bytes(os.fspath(filepath), obj.encode(encoding))
