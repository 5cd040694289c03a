"""Decoded images shared by the processes of one machine: a file for each, named after the file it was decoded from."""
import errno
import hashlib
import mmap
import os
import os.path as osp
import re
import stat
import struct
import weakref
from contextlib import suppress

import numpy as np
from mmengine.logging import MMLogger
from torch.utils.data import get_worker_info

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

HEADER = struct.Struct('<3I')
"""Height, width and channels (0: the array has two axes), before the pixels."""
PAGE = 4096
"""Bytes that a byte of the ledger stands for: a file takes whole pages."""
FILE = re.compile(r'[0-9a-f]{32}\.(raw|part)')
MEMORY = '/dev/shm'
REMEDY = "set cache='disk' and a cache_folder that has room and can be written to, a smaller cache_gib, or cache=None"


def open_cache(kind: str | None, gib: float, folder: str | None) -> 'ImageCache | None':
    """Return the cache that a loader's arguments ask for; None, with a warning, where it cannot be made.

    Raises:
        ValueError: Another kind than None, 'memory' and 'disk', 'disk' without a folder, or a bound that is not
            positive.
    """
    if kind not in (None, 'memory', 'disk'):
        raise ValueError(f"cache must be None, 'memory' or 'disk', got {kind!r}: correct it")
    if kind == 'disk' and not folder:
        raise ValueError("cache='disk' needs a folder, got cache_folder=None: name one on a local disk")
    if not gib > 0:
        raise ValueError(f'cache_gib must be positive, got {gib}: give the bound in GiB')
    if kind is None:
        return None
    try:
        if fcntl is None:
            raise OSError(errno.ENOTSUP, "it needs Unix's file locks")
        return ImageCache(folder or _own_folder(), gib, keep=kind == 'disk')
    except OSError as error:
        warn(f"Images are loaded without cache='{kind}' ({error}): {REMEDY}")
        return None


def warn(text: str) -> None:
    """Warn once a data loader; MMEngine's logger drops repetitions."""
    worker = get_worker_info()
    if worker is None or worker.id == 0:
        MMLogger.get_current_instance().warning(text)


class ImageCache:
    """Images (H, W) or (H, W, C), uint8, as files of one folder.

    With a file for each there is no index and no lock: a rename makes an image whole for all processes at once.
    Their sum is bounded by a ledger, to which a writer appends a byte a page before it writes. Users of the folder
    share a lock; whoever finds itself alone at its start removes the half-written files of killed processes.

    Args:
        folder (str): Made if it is missing.
        gib (float): Bound on all files, in GiB.
        keep (bool): Whether files outlive their users; otherwise the last user that ends normally, or the next that
            starts alone, removes all.

    Raises:
        OSError: The folder cannot be written to.
    """

    def __init__(self, folder: str, gib: float, keep: bool) -> None:
        self._arguments = folder, gib, keep
        self.folder, self.pages, self.open = osp.abspath(folder), int(gib * 2**30) // PAGE, True
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._lock = os.open(osp.join(folder, 'lock'), os.O_RDWR | os.O_CREAT, 0o600)
        self._ledger = os.open(osp.join(folder, 'ledger'), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        weakref.finalize(self, _leave, os.getpid(), self._lock, self._ledger, self.folder, keep)
        _tidy_if_alone(self._lock, self._ledger, self.folder, keep)
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def __reduce__(self) -> tuple:
        return ImageCache, self._arguments

    def key(self, path: str, *decoding: object) -> str | None:
        """Return the name of a local file as it is now, decoded in some way; None for anything else."""
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        # ctime changes with the content even if size and date are made those of before
        facts = osp.abspath(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns, decoding
        return hashlib.blake2b(repr(facts).encode(), digest_size=16).hexdigest()

    def get(self, key: str) -> np.ndarray | None:
        """Return an image, or None; what is written into the array stays out of the cache."""
        try:
            with open(self._path(key, '.raw'), 'rb', buffering=0) as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            height, width, channels = HEADER.unpack_from(content)
            shape = (height, width, channels) if channels else (height, width)
            return np.frombuffer(content, np.uint8, offset=HEADER.size).reshape(shape)
        except (OSError, ValueError, struct.error):  # absent, or not of this size
            return None

    def put(self, key: str, image: np.ndarray) -> None:
        """Add an image, unless another process does or the cache is full; a warning instead of an error."""
        if not self.open or image.dtype != np.uint8:
            return
        path, part = self._path(key, '.raw'), self._path(key, '.part')
        try:
            with open(part, 'xb') as file:
                wanted = not osp.exists(path) and self._reserve(-(-(HEADER.size + image.nbytes) // PAGE))
                if wanted:
                    file.write(HEADER.pack(*image.shape[:2], image.shape[2] if image.ndim == 3 else 0))
                    file.write(np.ascontiguousarray(image).data)
            if wanted:
                os.replace(part, path)
            else:
                os.remove(part)
        except FileExistsError:
            return
        except BaseException as error:
            with suppress(OSError):
                os.remove(part)
            if not isinstance(error, OSError):
                raise
            self.open = False
            warn(f'No more images are added to the cache ({error}): {REMEDY}')

    def _path(self, key: str, ending: str) -> str:
        return osp.join(self.folder, key + ending)

    def _reserve(self, pages: int) -> bool:
        """Whether there is room; the ledger is read after the entry too, so that two writers cannot share the last."""
        if os.fstat(self._ledger).st_size + pages <= self.pages:
            os.write(self._ledger, bytes(pages))
            if os.fstat(self._ledger).st_size <= self.pages:
                return True
        self.open = False
        warn(f'The cache of images is full ({self._arguments[1]:g} GiB in {self.folder}), other images are decoded '
             'each time: raise cache_gib')
        return False


def _own_folder() -> str:
    """Return the user's folder in shared memory."""
    folder = osp.join(MEMORY, f'mmspt-{os.getuid()}')
    if osp.lexists(folder) and os.lstat(folder).st_uid != os.getuid():
        raise PermissionError(errno.EPERM, 'it belongs to another user', folder)
    return folder


def _tidy_if_alone(lock: int, ledger: int, folder: str, keep: bool) -> None:
    """Remove half-written files (all, unless ``keep``) and correct the ledger, if nobody else uses the folder."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    pages = 0
    for entry in os.scandir(folder):
        if FILE.fullmatch(entry.name):
            if keep and entry.name.endswith('.raw'):
                pages += -(-entry.stat().st_size // PAGE)
            else:
                os.remove(entry.path)
    os.ftruncate(ledger, pages)


def _leave(process: int, lock: int, ledger: int, folder: str, keep: bool) -> None:
    if process == os.getpid():  # a forked worker shares the lock
        with suppress(OSError):
            _tidy_if_alone(lock, ledger, folder, keep)
        os.close(ledger)
        os.close(lock)
