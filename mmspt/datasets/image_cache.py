"""Decoded images shared by the processes of one machine: a file for each, named after the file it was decoded from."""
import errno
import hashlib
import math
import os
import os.path as osp
import re
import signal
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
FILE = re.compile(r'[0-9a-f]{32}\.(raw|part)|said-\d+')
MEMORY = '/dev/shm'
LIMIT = '/sys/fs/cgroup/memory.max'
"""Bytes that a container may have, or 'max'."""
PATIENCE = 120.
"""Seconds to wait for whoever tidies the folder."""
REMEDY = "set cache='disk' and a cache_folder that has room and can be written to, a smaller cache_gib, or cache=None"
SWEEPER = """
import fcntl, os, re, sys
path = os.path.join(sys.argv[1], 'lock')
lock = os.open(path, os.O_RDWR)
fcntl.flock(lock, fcntl.LOCK_EX)  # when the last user is gone
if os.fstat(lock).st_ino == os.stat(path).st_ino:  # else the folder was removed, and this is another job's
    for name in os.listdir(sys.argv[1]):
        if re.fullmatch(sys.argv[2], name):
            os.remove(os.path.join(sys.argv[1], name))
    os.truncate(os.path.join(sys.argv[1], 'ledger'), 0)
"""
_swept: 'weakref.WeakValueDictionary[str, ImageCache]' = weakref.WeakValueDictionary()
"""By folder, a cache of this process for which a sweeper waits."""


def open_cache(kind: str | None, gib: float, folder: str | None, owner: int | None = None) -> 'ImageCache | None':
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
        return ImageCache(kind, gib, folder, owner)
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
    processes; what is in memory is removed by sweepers, processes that wait for that lock, however the users end.

    Args:
        kind (str): 'memory' or 'disk'.
        gib (float): Bound on all files, in GiB; in memory also half of the container's, where there is a limit.
        folder (str | None): The files are in its subfolder ``kind``; None is shared memory.
        owner (int | None): Of a copy, the process that made the original. Defaults to None.

    Raises:
        OSError: The folder cannot be written to, or others tidy it for too long.
    """

    def __init__(self, kind: str, gib: float, folder: str | None, owner: int | None = None) -> None:
        root = _own_folder() if folder is None else osp.abspath(osp.expanduser(folder))
        self._arguments = kind, gib, folder and root, os.getpid() if owner is None else owner
        self.folder, self.kind, self.open = osp.join(root, kind), kind, True
        self.pages = int(min(gib * 2**30, _half_of_memory() if kind == 'memory' else math.inf)) // PAGE
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        self._lock = self._open('lock', 0)
        self._ledger = self._open('ledger', os.O_APPEND)
        if _locks(self._lock, fcntl.LOCK_EX):
            _tidy(self.folder, self._ledger, kind == 'disk')
        end = time.monotonic() + PATIENCE
        while not _locks(self._lock, fcntl.LOCK_SH):
            if time.monotonic() > end:
                raise TimeoutError(errno.ETIMEDOUT, 'another process tidies it', self.folder)
            time.sleep(0.05)
        first = owner is None and os.environ.get('LOCAL_RANK', '0') == '0'  # a sweeper waits for the other ranks, too
        if kind == 'memory' and first and self.folder not in _swept:
            _swept[self.folder] = self
            _start_sweeper(self.folder)

    def __reduce__(self) -> tuple:
        return open_cache, self._arguments

    @property
    def full(self) -> bool:
        """Whether the log says that images were not kept."""
        return not self.open or osp.exists(self._said)

    def key(self, path: str, *decoding: object) -> str | None:
        """Return the name of a local file as it is now, decoded in some way; None for anything else."""
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        # the inode's date changes with the content even if size and date are made those of before, where there is one;
        # a network's device may have another number at its next mount, and nothing that is on disk would be found
        facts = (osp.abspath(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino,
                 found.st_dev if self.kind == 'memory' else None, decoding)
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
        """Add an image, unless another process does or it has no room; a warning instead of an error."""
        if not self.open or image.dtype != np.uint8:
            return
        path, part = self._path(key, '.raw'), self._path(key, '.part')
        try:
            with open(part, 'xb') as file:
                try:
                    wanted = not osp.exists(path) and self._reserve(HEADER.size + image.nbytes)
                    if wanted:
                        file.write(HEADER.pack(*image.shape[:2], image.shape[2] if image.ndim == 3 else 0))
                        file.write(np.ascontiguousarray(image).data)
                        file.flush()
                        if self.kind == 'disk':  # a name without its content would outlive a power failure
                            os.fsync(file.fileno())
                        os.replace(part, path)
                    else:
                        os.remove(part)
                except BaseException:
                    with suppress(OSError):
                        os.remove(part)
                    raise
        except FileExistsError:
            return
        except OSError as error:
            self.open = False
            self._say(f'No more images are added to the cache ({error}): {REMEDY}')

    def _open(self, name: str, flags: int) -> int:
        """Return a descriptor that is closed with the cache."""
        descriptor = os.open(osp.join(self.folder, name), os.O_RDWR | os.O_CREAT | flags, 0o600)
        weakref.finalize(self, _close, os.getpid(), descriptor)
        return descriptor

    def _path(self, key: str, ending: str) -> str:
        return osp.join(self.folder, key + ending)

    def _reserve(self, size: int) -> bool:
        """Whether there is room; the ledger is read after the entry too, so that two writers cannot share the last."""
        system, pages = os.statvfs(self.folder), -(-size // PAGE)
        spare = min(SPARE, system.f_blocks * system.f_frsize // 2)
        refusal = f'The cache of images in {self.folder} has no room for an image of {size / 2**20:.2g} MiB'
        if system.f_bavail * system.f_frsize - pages * PAGE < spare:
            self._say(f'{refusal}: {spare / 2**30:.2g} GiB of the file system stay free for others. Images without '
                      f'room are decoded each time. Give it more (docker run --shm-size), or {REMEDY}')
            return False
        taken = os.fstat(self._ledger).st_size
        if taken + pages <= self.pages:
            os.write(self._ledger, bytes(pages))
            if os.fstat(self._ledger).st_size <= self.pages:
                return True
        bound = self.pages * PAGE
        self._say(f'{refusal} ({bound / 2**30:.3g} GiB, {taken / max(1, self.pages):.0%} taken): images without room '
                  "are decoded each time. Raise cache_gib; cache='memory' takes at most half of a container's memory")
        return False

    @property
    def _said(self) -> str:
        return osp.join(self.folder, f'said-{self._arguments[-1]}')

    def _say(self, text: str) -> None:
        """Warn once for all workers, loaders and epochs of a process."""
        try:
            os.close(os.open(self._said, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return
        except OSError:  # such as a file system without room: no file tells the others
            warn(text)
        else:
            MMLogger.get_current_instance().warning(text)


def _half_of_memory() -> float:
    """Return half of the bytes that a container may have: its shared memory counts, and beyond it a job is killed."""
    try:
        with open(LIMIT, encoding='ascii') as file:
            return int(file.read()) / 2
    except (OSError, ValueError):  # no container, or 'max'
        return math.inf


def _own_folder() -> str:
    """Return the user's folder in shared memory, and make it."""
    if not osp.isdir(MEMORY):
        raise FileNotFoundError(errno.ENOENT, 'there is no shared memory', MEMORY)
    folder = osp.join(MEMORY, f'mmspt-{os.getuid()}')
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if os.lstat(folder).st_uid != os.getuid():
        raise PermissionError(errno.EPERM, 'it belongs to another user', folder)
    return folder


def _locks(lock: int, kind: int) -> bool:
    """Whether a lock is to be had now."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
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


def _start_sweeper(folder: str) -> None:
    """Start a process that empties the folder when its last user is gone.

    It ignores the signals that a cluster or a terminal sends to all processes of a job, which goes on to save a
    checkpoint.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))  # inherited
    try:
        subprocess.Popen([sys.executable, '-S', '-E', '-c', SWEEPER, folder, FILE.pattern], cwd='/',
                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                         start_new_session=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _close(process: int, descriptor: int) -> None:
    if process == os.getpid():  # forked workers have descriptors of their own, and the lock until they end
        os.close(descriptor)
