"""Decoded images shared by the processes of one machine: a file for each, named after the file it was decoded from."""
import errno
import hashlib
import os
import os.path as osp
import re
import stat
import struct
import subprocess
import sys
import time
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
SPARE = 2**30
"""Bytes that stay free, or half of a small file system: data loaders pass batches through shared memory, too."""
FILE = re.compile(r'[0-9a-f]{32}\.(raw|part)|said')
MEMORY = '/dev/shm'
PATIENCE = 10.
"""Seconds to wait for whoever tidies the folder."""
REMEDY = "set cache='disk' and a cache_folder that has room and can be written to, a smaller cache_gib, or cache=None"
SWEEPER = """
import fcntl, os, re, sys, time
folder = sys.argv[1]
sweeper = os.open(os.path.join(folder, 'sweeper'), os.O_RDWR | os.O_CREAT, 0o600)
for attempt in range(40):  # an earlier one may be about to end
    try:
        fcntl.flock(sweeper, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
    except OSError:
        time.sleep(0.05)
else:
    sys.exit()
fcntl.flock(os.open(os.path.join(folder, 'lock'), os.O_RDWR), fcntl.LOCK_EX)  # when the last user is gone
for name in os.listdir(folder):
    if re.fullmatch(sys.argv[2], name):
        os.remove(os.path.join(folder, name))
os.truncate(os.path.join(folder, 'ledger'), 0)
"""


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
    if not 0 < gib < 2**30:
        raise ValueError(f'cache_gib must be positive and finite, got {gib}: give the bound in GiB')
    if kind is None:
        return None
    try:
        if fcntl is None:
            raise OSError(errno.ENOTSUP, "it needs Unix's file locks")
        return ImageCache(kind, gib, folder)
    except OSError as error:
        warn(f"Images are loaded without cache='{kind}' ({error}): {REMEDY}")
        return None


def warn(text: str) -> None:
    """Warn, of the workers of a data loader the first alone."""
    worker = get_worker_info()
    if worker is None or worker.id == 0:
        MMLogger.get_current_instance().warning(text)


class ImageCache:
    """Images (H, W) or (H, W, C), uint8, as files of one folder.

    With a file for each there is no index and no lock on images: a rename makes one whole for all processes at once.
    Their sum is bounded by a ledger, to which a writer appends a byte a page before it writes. All users, and the
    workers that they fork, share a lock. Whoever is alone at its start removes the half-written files of killed
    processes; what is in memory is removed by a process of its own that waits for that lock, however the users end.

    Args:
        kind (str): 'memory' or 'disk'.
        gib (float): Bound on all files, in GiB.
        folder (str | None): The files are in its subfolder ``kind``; None is shared memory.

    Raises:
        OSError: The folder cannot be written to, or others tidy it for too long.
    """

    def __init__(self, kind: str, gib: float, folder: str | None) -> None:
        self._arguments = kind, gib, None if folder is None else osp.abspath(folder)
        self.folder = osp.join(_own_folder() if folder is None else osp.abspath(folder), kind)
        self.kind, self.pages, self.open = kind, int(gib * 2**30) // PAGE, True
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        if folder is None and os.stat(osp.dirname(self.folder)).st_uid != os.getuid():
            raise PermissionError(errno.EPERM, 'it belongs to another user', self.folder)
        self._lock = os.open(osp.join(self.folder, 'lock'), os.O_RDWR | os.O_CREAT, 0o600)
        self._ledger = os.open(osp.join(self.folder, 'ledger'), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        weakref.finalize(self, _close, os.getpid(), self._lock, self._ledger)
        if _locks(self._lock, fcntl.LOCK_EX):
            _tidy(self.folder, self._ledger, kind == 'disk')
        end = time.monotonic() + PATIENCE
        while not _locks(self._lock, fcntl.LOCK_SH):
            if time.monotonic() > end:
                raise TimeoutError(errno.ETIMEDOUT, 'another process tidies it', self.folder)
            time.sleep(0.05)
        if kind == 'memory' and get_worker_info() is None and os.environ.get('LOCAL_RANK', '0') == '0':
            subprocess.Popen([sys.executable, '-S', '-E', '-c', SWEEPER, self.folder, FILE.pattern], cwd='/',
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             start_new_session=True)

    def __reduce__(self) -> tuple:
        return open_cache, self._arguments

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
        """Return an image of the caller's own, or None; a damaged file is removed."""
        path = self._path(key, '.raw')
        try:
            content = np.fromfile(path, np.uint8)
            height, width, channels = HEADER.unpack_from(content.data)
            return content[HEADER.size:].reshape((height, width, channels) if channels else (height, width))
        except OSError:
            return None
        except (ValueError, struct.error):
            with suppress(OSError):
                os.remove(path)
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
                    if self.kind == 'disk':  # a name without its content would outlive a power failure
                        file.flush()
                        os.fsync(file.fileno())
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
            self._end(f'No more images are added to the cache ({error}): {REMEDY}')

    def _path(self, key: str, ending: str) -> str:
        return osp.join(self.folder, key + ending)

    def _reserve(self, pages: int) -> bool:
        """Whether there is room; the ledger is read after the entry too, so that two writers cannot share the last."""
        system = os.statvfs(self.folder)
        spare = min(SPARE, system.f_blocks * system.f_frsize // 2)
        if system.f_bavail * system.f_frsize - pages * PAGE < spare:
            self._end(f'No more images are added to the cache in {self.folder}: {spare / 2**30:.2g} GiB of the file '
                      f'system stay free for others. Give it more room (docker run --shm-size), or {REMEDY}')
            return False
        if os.fstat(self._ledger).st_size + pages <= self.pages:
            os.write(self._ledger, bytes(pages))
            if os.fstat(self._ledger).st_size <= self.pages:
                return True
        self._end(f'The cache of images is full ({self._arguments[1]:g} GiB in {self.folder}), other images are '
                  'decoded each time: raise cache_gib')
        return False

    def _end(self, text: str) -> None:
        """Add no more images; say why, once for all workers and epochs."""
        self.open = False
        try:
            os.close(os.open(osp.join(self.folder, 'said'), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return
        except OSError:  # such as a file system without room
            pass
        warn(text)


def _own_folder() -> str:
    """Return the user's folder in shared memory."""
    folder = osp.join(MEMORY, f'mmspt-{os.getuid()}')
    if osp.lexists(folder) and os.lstat(folder).st_uid != os.getuid():
        raise PermissionError(errno.EPERM, 'it belongs to another user', folder)
    return folder


def _locks(lock: int, kind: int) -> bool:
    """Whether a lock is to be had now."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _tidy(folder: str, ledger: int, keep: bool) -> None:
    """Remove half-written files, all unless ``keep``, and correct the ledger."""
    pages = 0
    for entry in os.scandir(folder):
        if FILE.fullmatch(entry.name):
            if keep and entry.name.endswith('.raw'):
                pages += -(-entry.stat().st_size // PAGE)
            else:
                os.remove(entry.path)
    os.ftruncate(ledger, pages)


def _close(process: int, lock: int, ledger: int) -> None:
    if process == os.getpid():  # forked workers have descriptors of their own, and the lock until they end
        os.close(ledger)
        os.close(lock)
