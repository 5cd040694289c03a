"""A cache changes no pixel, serves nothing stale, keeps to its bound, and is never in the way."""
import copy
import errno
import io
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import weakref
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS
from PIL import Image
from torch.utils.data import DataLoader, get_worker_info

from helpers import command, environment, make_images
from mmspt.datasets import LoadImageFromFile, image_cache
from mmspt.datasets.image_cache import HEADER, ImageCache

PAGE = 4096


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return dict(exif=exif)


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


RGB = Image.fromarray(noise(40, 56, 3))
FILES = {
    'jpeg': encode(RGB, 'JPEG'),
    'turned': encode(RGB, 'JPEG', **turned(6)),
    'cmyk': encode(Image.fromarray(noise(40, 56, 4), 'CMYK'), 'JPEG'),
    'grey': encode(RGB.convert('L'), 'PNG'),
    'palette': encode(RGB.quantize(16), 'PNG'),
    'alpha': encode(Image.fromarray(noise(40, 56, 4)), 'PNG'),
    '16 bits': cv2.imencode('.png', noise(40, 56, 3, dtype=np.uint16))[1].tobytes(),
    'one pixel': encode(RGB.crop((0, 0, 1, 1)), 'PNG'),
}


@pytest.fixture
def said(monkeypatch):
    """The warnings."""
    texts = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'warning', texts.append)
    return texts


def cached(folder, cache='disk', **kwargs):
    return LoadImageFromFile(cache=cache, cache_folder=str(folder), **kwargs)


def load(loader, path):
    return loader(dict(img_path=str(path)))['img']


def refuse(content):
    raise AssertionError('it was decoded again')


def names(folder, ending='.raw'):
    return {path.name for path in Path(folder).rglob(f'*{ending}')}


def size(folder):
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in Path(folder).rglob('*.raw'))


@pytest.mark.parametrize('options', [{}, dict(color_type='grayscale'), dict(color_type='unchanged'), dict(
    imdecode_backend='pillow'), dict(to_float32=True)], ids=str)
@pytest.mark.parametrize('name', FILES)
def test_same_pixels(tmp_path, name, options, monkeypatch):
    """The first time and the second, which decodes nothing; 16 bits that stay 16 are not kept."""
    (tmp_path / 'image').write_bytes(FILES[name])
    expected = load(LoadImageFromFile(**options), tmp_path / 'image')
    loader = cached(tmp_path / 'cache', **options)
    first = load(loader, tmp_path / 'image')
    kept = not (name == '16 bits' and options.get('color_type') == 'unchanged')
    assert len(names(tmp_path / 'cache')) == kept and not names(tmp_path / 'cache', '.part')
    if kept:
        monkeypatch.setattr(loader, '_decode', refuse)
    for image in (first, load(loader, tmp_path / 'image')):
        assert image.dtype == expected.dtype
        np.testing.assert_array_equal(image, expected)
        image += 1  # what a transform does in place stays its own
    np.testing.assert_array_equal(load(loader, tmp_path / 'image'), expected)


def test_bad_images_are_the_same_errors(tmp_path):
    (tmp_path / 'empty').touch()
    (tmp_path / 'cut').write_bytes(FILES['jpeg'][:-300])
    loader = cached(tmp_path / 'cache')
    for name in ('empty', 'cut', 'absent'):
        for _ in range(2):
            with pytest.raises(ValueError, match=rf"'.*/{name}' is not .*fetch it again"):
                load(loader, tmp_path / name)
    assert not names(tmp_path / 'cache')


def test_options_of_decoding_and_paths_do_not_mix(tmp_path):
    for name in ('grey', 'jpeg'):
        (tmp_path / name).write_bytes(FILES[name])
    for options in ({}, dict(color_type='grayscale'), dict(imdecode_backend='pillow')):
        for name in ('grey', 'jpeg'):
            np.testing.assert_array_equal(load(cached(tmp_path / 'cache', **options), tmp_path / name),
                                          load(LoadImageFromFile(**options), tmp_path / name))
    assert len(names(tmp_path / 'cache')) == 6


def test_loaders_of_one_name_do_not_mix(tmp_path):
    """Of two packages that register a loader of the same name, each with pixels of its own."""
    (tmp_path / 'image').write_bytes(FILES['jpeg'])
    other = type('LoadImageFromFile', (LoadImageFromFile, ), dict(
        __module__='other', _decode=lambda self, content: 255 - LoadImageFromFile._decode(self, content)))
    first = load(cached(tmp_path / 'cache'), tmp_path / 'image')
    second = load(other(cache='disk', cache_folder=str(tmp_path / 'cache')), tmp_path / 'image')
    np.testing.assert_array_equal(second, 255 - first)


@pytest.mark.parametrize(('cache', 'fact', 'same'), [
    ('disk', 'st_ino', False), ('memory', 'st_ino', False), ('memory', 'st_dev', False), ('disk', 'st_dev', True)])
def test_another_file_in_the_same_place(tmp_path, cache, fact, same, monkeypatch):
    """Of the same size and dates, as where a file system keeps no date of the inode. A network's file system may have
    another number at its next mount: what is on disk stays."""
    path, cache = tmp_path / 'image', ImageCache(cache, 1, str(tmp_path))
    path.touch()
    keys = []
    for value in (1, 2):
        with monkeypatch.context() as patch:
            facts = {name: getattr(path.stat(), name) for name in dir(path.stat()) if name.startswith('st_')}
            patch.setattr(os, 'stat', lambda path, facts=facts | {fact: value}: SimpleNamespace(**facts))
            keys.append(cache.key(str(path)))
    assert None not in keys and (keys[0] == keys[1]) == same


def test_a_changed_file_is_decoded_anew(tmp_path, monkeypatch):
    """Also one of the same size whose date was set back; one that was merely read again is not."""
    path, loader = tmp_path / 'image.bmp', cached(tmp_path / 'cache')
    for seed in range(3):
        Image.fromarray(noise(9, 7, 3, seed=seed)).save(path)
        os.utime(path, ns=(10**18, 10**18))
        for _ in range(2):
            np.testing.assert_array_equal(load(loader, path)[..., ::-1], noise(9, 7, 3, seed=seed))
    assert len(names(tmp_path / 'cache')) == 3
    monkeypatch.setattr(loader, '_decode', refuse)
    load(loader, os.path.relpath(path))


@pytest.mark.parametrize('path', ['s3://bucket/image.png', 'http://host/image.png', '/absent', '/dev/null', 'a\0b'])
def test_what_is_no_local_file_has_no_key(tmp_path, path):
    assert ImageCache('disk', 1, str(tmp_path)).key(path) is None


def test_other_backends_are_not_cached(tmp_path, monkeypatch):
    (tmp_path / 'image').write_bytes(FILES['jpeg'])
    loader = cached(tmp_path / 'cache', backend_args=dict(backend='mmspt'))
    load(loader, tmp_path / 'image')
    assert not names(tmp_path / 'cache')
    load(cached(tmp_path / 'cache', backend_args=dict(backend='local')), tmp_path / 'image')
    assert len(names(tmp_path / 'cache')) == 1


@pytest.mark.parametrize('content', [b'', b'short', HEADER.pack(40, 56, 3), HEADER.pack(9, 9, 3) + bytes(9)])
def test_damage_within_the_folder_is_a_miss(tmp_path, content):
    (tmp_path / 'image').write_bytes(FILES['jpeg'])
    loader = cached(tmp_path / 'cache')
    expected = load(loader, tmp_path / 'image')
    kept, = (tmp_path / 'cache').rglob('*.raw')
    kept.write_bytes(content)
    np.testing.assert_array_equal(load(loader, tmp_path / 'image'), expected)
    loader._decode = refuse  # it is whole again
    np.testing.assert_array_equal(load(loader, tmp_path / 'image'), expected)


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(cache='ram'), "cache must be None, 'memory' or 'disk', got 'ram'"),
    (dict(cache='disk'), "cache='disk' needs a folder"),
    (dict(cache='memory', cache_gib=0), 'cache_gib must be positive and finite, got 0'),
    (dict(cache='memory', cache_gib=float('inf')), 'cache_gib must be positive and finite, got inf')])
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LoadImageFromFile(**arguments)


# ------------------------------------------------------------------------------------------------------------- room

def write_images(folder, count):
    """Files whose pixels take a header, 3 pages and less."""
    folder.mkdir(exist_ok=True)
    for i in range(count):
        (folder / f'{i}.png').write_bytes(encode(Image.fromarray(noise(64, 64, 3, seed=i)), 'PNG'))
    return sorted(folder.iterdir())


@pytest.mark.parametrize(('pages', 'kept'), [(3.9, 0), (4, 1), (15, 3), (17, 4), (100, 6)])
def test_bound(tmp_path, said, pages, kept):
    """64 x 64 x 3 bytes are 3 pages, and the header begins a fourth."""
    paths, loader = write_images(tmp_path / 'images', 6), cached(tmp_path / 'cache', cache_gib=pages * PAGE / 2**30)
    for _ in range(2):
        for path in paths:
            np.testing.assert_array_equal(load(loader, path), load(LoadImageFromFile(), path))
    assert len(names(tmp_path / 'cache')) == kept and not names(tmp_path / 'cache', '.part')
    assert size(tmp_path / 'cache') <= pages * PAGE
    assert len(said) == (kept < 6) and all('has no room for an image of 0.012 MiB' in text for text in said)


def test_the_bound_counts_what_is_there(tmp_path, said):
    """Of another run; a larger bound goes on where a smaller one ended."""
    paths = write_images(tmp_path / 'images', 6)
    for pages, kept in ((8, 2), (8, 2), (16, 4), (100, 6)):
        loader = cached(tmp_path / 'cache', cache_gib=pages * PAGE / 2**30)
        for path in paths:
            load(loader, path)
        assert len(names(tmp_path / 'cache')) == kept
        del loader


def test_an_image_that_does_not_fit_is_no_end(tmp_path, said):
    """Smaller ones after it are kept; the warning speaks of it alone, once."""
    Image.fromarray(noise(200, 200, 3)).save(tmp_path / 'large.png')
    paths = write_images(tmp_path / 'images', 6)
    loader = cached(tmp_path / 'cache', cache_gib=24 * PAGE / 2**30)
    for _ in range(2):
        for path in (tmp_path / 'large.png', *paths):
            np.testing.assert_array_equal(load(loader, path), load(LoadImageFromFile(), path))
    assert len(names(tmp_path / 'cache')) == 6
    assert len(said) == 1 and 'has no room for an image of 0.11 MiB' in said[0] and '0% taken' in said[0]


def test_each_run_says_that_the_cache_is_full(tmp_path, said, monkeypatch):
    """Also while another run, or another process of the same, whose log nobody reads, said it; the loaders of one
    process say it once."""
    paths, others = write_images(tmp_path / 'images', 3), []
    for process in (10**7, 10**7 + 1):
        with monkeypatch.context() as patch:
            patch.setattr(os, 'getpid', lambda process=process: process)
            others += [cached(tmp_path / 'cache', cache_gib=5 * PAGE / 2**30) for _ in range(2)]
        for loader in others[-2:]:
            assert not loader.cache.full
        for loader in (*others[-2:], pickle.loads(pickle.dumps(others[-1]))):
            for path in paths:
                load(loader, path)
            assert loader.cache.full
    assert len(said) == 2


@pytest.mark.parametrize(('content', 'kept'), [('max', 6), (f'{16 * PAGE}', 2), (None, 6)])
def test_memory_of_a_container(tmp_path, said, content, kept, monkeypatch):
    """Shared memory counts as the container's: at most half of what it may have."""
    paths, limit = write_images(tmp_path / 'images', 6), tmp_path / 'memory.max'
    if content is not None:
        limit.write_text(f'{content}\n')
    monkeypatch.setattr(image_cache, 'LIMIT', str(limit))
    for cache, count in (('memory', kept), ('disk', 6)):
        loader = cached(tmp_path / 'cache', cache)
        for path in paths:
            load(loader, path)
        assert len(names(tmp_path / 'cache' / cache)) == count
    assert len(said) == (kept < 6)


@pytest.mark.parametrize('cache', ['memory', 'disk'])
def test_a_folder_that_cannot_be_used(tmp_path, said, cache, monkeypatch):
    """One warning, with a remedy, and no cache."""
    (tmp_path / 'image').write_bytes(FILES['jpeg'])

    def read_only(path, flags, *args, _open=os.open, **kwargs):
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return _open(path, flags, *args, **kwargs)
    with monkeypatch.context() as patch:
        patch.setattr(os, 'open', read_only)
        loader = cached(tmp_path, cache)
    assert loader.cache is None and load(loader, tmp_path / 'image').shape == (40, 56, 3)
    assert len(said) == 1 and 'Read-only file system' in said[0] and 'or cache=None' in said[0]
    assert cached(tmp_path / 'image', cache).cache is None and 'Not a directory' in said[1]


def test_a_file_system_without_locks(tmp_path, said, monkeypatch):
    """The reason is said at once."""
    def flock(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    monkeypatch.setattr(image_cache.fcntl, 'flock', flock)
    start = time.monotonic()
    assert cached(tmp_path).cache is None and time.monotonic() - start < 5
    assert len(said) == 1 and 'Function not implemented' in said[0]


def test_nothing_stays_open_where_it_cannot_be_made(tmp_path, said):
    (tmp_path / 'disk' / 'ledger').mkdir(parents=True)
    before = os.listdir('/proc/self/fd')
    assert cached(tmp_path).cache is None and os.listdir('/proc/self/fd') == before


def test_folders_are_the_users_own(tmp_path, monkeypatch):
    """``~`` is the home; nobody else looks into the folders."""
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setattr(image_cache, 'MEMORY', str(tmp_path))
    folders = [Path(LoadImageFromFile(cache=cache, cache_folder=folder).cache.folder)
               for cache, folder in (('disk', '~/mine'), ('memory', None))]
    assert folders == [tmp_path / 'mine' / 'disk', tmp_path / f'mmspt-{os.getuid()}' / 'memory']
    assert all(path.stat().st_mode & 0o777 == 0o700 for path in (*folders, folders[1].parent))


def test_a_file_that_cannot_be_opened_is_another_writers(tmp_path, said, monkeypatch):
    (tmp_path / 'image').write_bytes(FILES['jpeg'])
    loader = cached(tmp_path / 'cache')
    part = tmp_path / 'cache' / 'disk' / 'theirs.part'
    part.touch()

    def refuse(path, *args):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)
    monkeypatch.setattr(image_cache, 'open', refuse, raising=False)
    loader.cache.put('theirs', noise(3, 3, 3))
    assert part.exists() and len(said) == 1 and 'Too many open files' in said[0]


@pytest.mark.parametrize('where', ['missing', 'of another user', 'no locks'])
def test_no_shared_memory(tmp_path, said, where, monkeypatch):
    monkeypatch.setattr(image_cache, 'MEMORY', str(tmp_path / 'absent' if where == 'missing' else tmp_path))
    if where == 'of another user':
        (tmp_path / f'mmspt-{os.getuid() + 1}').mkdir()
        monkeypatch.setattr(os, 'getuid', partial(int, os.getuid() + 1))
    if where == 'no locks':
        monkeypatch.setattr(image_cache, 'fcntl', None)
    assert LoadImageFromFile(cache='memory').cache is None
    assert len(said) == 1 and "without cache='memory'" in said[0] and not (tmp_path / 'absent').exists()


@pytest.mark.parametrize('room', [0, 5, 10_000])
def test_a_full_file_system(tmp_path, said, room, monkeypatch):
    """A warning; nothing half written stays, what is there is read, and other images are decoded."""
    paths = write_images(tmp_path / 'images', 4)
    loader = cached(tmp_path / 'cache')
    load(loader, paths[0])

    @contextmanager
    def open_full(path, mode='r', *args, **kwargs):
        with open(path, mode, *args, **kwargs) as file:
            def write(content):
                file.write(memoryview(content).cast('B')[:room])
                if memoryview(content).nbytes > room:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            yield SimpleNamespace(write=write, flush=file.flush) if mode == 'xb' else file
    monkeypatch.setattr(image_cache, 'open', open_full, raising=False)
    for path in paths:
        np.testing.assert_array_equal(load(loader, path), load(LoadImageFromFile(), path))
    assert len(names(tmp_path / 'cache')) == 1 and not names(tmp_path / 'cache', '.part')
    assert len(said) == 1 and 'No space left on device' in said[0] and 'cache_folder' in said[0]
    monkeypatch.setattr(loader, '_decode', refuse)
    load(loader, paths[0])


# --------------------------------------------------------------------------------------------------------- processes

def fill(folder, paths, start, gib, done):
    """Load all images, with others at the same moment."""
    loader = cached(folder, cache_gib=gib)
    start.wait()
    done.put(all(np.array_equal(load(loader, path), load(LoadImageFromFile(), path)) for path in paths))


@pytest.mark.parametrize(('pages', 'least', 'most'), [(400, 40, 40), (60, 12, 15)])
def test_processes_fill_it_together(tmp_path, pages, least, most):
    """Each image once; the bound holds, though two that come to it together may leave the last room empty."""
    paths, context = write_images(tmp_path / 'images', 40), multiprocessing.get_context('fork')
    start, done = context.Barrier(4), context.Queue()
    processes = [context.Process(target=fill, args=(tmp_path / 'cache', paths, start, pages * PAGE / 2**30, done))
                 for _ in range(4)]
    for process in processes:
        process.start()
    assert all(done.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert least <= len(names(tmp_path / 'cache')) <= most and not names(tmp_path / 'cache', '.part')
    assert size(tmp_path / 'cache') <= pages * PAGE


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('persistent', [False, True])
def test_data_loader(tmp_path, workers, persistent, monkeypatch):
    """What workers add outlives them, up to the last user of the folder; then memory is given back."""
    items = make_images(tmp_path / 'images', 3)
    (tmp_path / 'list.txt').write_text(''.join(f'{path} {label}\n' for path, label in items))
    pipeline = [dict(type='mmspt.LoadImageFromFile', cache='memory'), dict(type='mmspt.PackInputs')]
    monkeypatch.setattr(image_cache, 'MEMORY', str(tmp_path))
    dataset = DATASETS.build(dict(type='CustomDataset', data_root=str(tmp_path / 'images'), ann_file='../list.txt',
                                  pipeline=pipeline))
    loader = DataLoader(dataset, 2, num_workers=workers, persistent_workers=persistent and workers > 0,
                        collate_fn=pseudo_collate)
    folder = tmp_path / f'mmspt-{os.getuid()}' / 'memory'
    assert folder.stat().st_mode & 0o777 == 0o700
    first, second = ([image for batch in loader for image in batch['inputs']] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)) and len(names(folder)) == 9
    other = copy.deepcopy(dataset.pipeline.transforms[0])  # another user
    del loader, dataset
    assert len(names(folder)) == 9
    del other
    assert becomes_empty(folder) and (folder / 'ledger').stat().st_size == 0


class OfOneWorker:
    """Images that worker 1 alone loads."""

    def __init__(self, loader, paths):
        self.loader, self.paths = loader, paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        return i if get_worker_info().id == 0 else int(load(self.loader, self.paths[i]).sum())


def test_whichever_worker_finds_the_cache_full_says_it(tmp_path):
    """Once in all epochs."""
    loader = cached(tmp_path / 'cache', cache_gib=9 * PAGE / 2**30)
    handler = logging.FileHandler(tmp_path / 'log')
    MMLogger.get_current_instance().addHandler(handler)
    try:
        for _ in range(2):
            list(DataLoader(OfOneWorker(loader, write_images(tmp_path / 'images', 12)), 2, num_workers=2))
    finally:
        MMLogger.get_current_instance().removeHandler(handler)
    assert (tmp_path / 'log').read_text().count('has no room') == loader.cache.full == 1


def test_other_processes_by_pickle(tmp_path):
    """As workers are started where there is no fork."""
    (tmp_path / 'image').write_bytes(FILES['jpeg'])
    loader = cached(tmp_path / 'cache')
    expected, again = load(loader, tmp_path / 'image'), pickle.loads(pickle.dumps(loader))
    again._decode = refuse
    np.testing.assert_array_equal(load(again, tmp_path / 'image'), expected)


def becomes_empty(folder):
    """Whether the images are removed within seconds, by the process that waits for the last user."""
    end = time.monotonic() + 20
    while names(folder) or (Path(folder) / 'ledger').stat().st_size:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def use(folder, cache, paths, filled, end):
    """Load images, and go on using the cache until the end is asked for."""
    loader = cached(folder, cache)
    for path in paths:
        load(loader, path)
    filled.set()
    end.wait(60)


class User:
    """A process that uses a cache."""

    def __init__(self, folder, cache, paths=()):
        context = multiprocessing.get_context('fork')
        self.filled, self.stop = context.Event(), context.Event()
        self.process = context.Process(target=use, args=(folder, cache, paths, self.filled, self.stop))
        self.process.start()

    def wait(self):
        assert self.filled.wait(60)
        return self

    def end(self):
        self.stop.set()
        self.process.join(60)
        assert self.process.exitcode == 0

    def kill(self):
        self.process.kill()
        self.process.join(60)


@pytest.mark.parametrize('cache', ['memory', 'disk'])
def test_what_users_leave(tmp_path, cache):
    """Images in memory go with the last user, however it ends; those on disk stay, but for half-written ones."""
    paths, root = write_images(tmp_path / 'images', 3), tmp_path / 'cache'
    folder = root / cache
    first, second = User(root, cache, paths).wait(), User(root, cache).wait()
    first.end()
    time.sleep(0.3)
    assert len(names(folder)) == 3  # the second uses them
    (folder / f'{0:032x}.part').write_bytes(bytes(PAGE))
    (folder / 'notes').touch()
    second.kill()
    if cache == 'memory':
        assert becomes_empty(folder) and not names(folder, '.part')
    third = User(root, cache).wait()
    kept = 0 if cache == 'memory' else 3
    assert len(names(folder)) == kept and not names(folder, '.part')
    assert (folder / 'ledger').stat().st_size * PAGE == size(folder)
    third.end()
    assert len(names(folder)) == kept and (folder / 'notes').exists()


@pytest.fixture
def sweepers(monkeypatch):
    """The sweepers that this process starts."""
    started = []

    def start(*args, **kwargs):
        started.append(subprocess.Popen(*args, **kwargs))
        return started[-1]
    monkeypatch.setattr(image_cache, 'subprocess', SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL))
    return started


def another_job(monkeypatch):
    """Let this process, and its children, act as one without a cache."""
    monkeypatch.setattr(image_cache, '_swept', weakref.WeakValueDictionary(), raising=False)


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGHUP', 'SIGINT', 'SIGKILL'])
def test_a_job_that_is_ended_from_outside(tmp_path, name, sweepers, monkeypatch):
    """A cluster signals all processes of a job: the sweeper outlives what the training outlives, and the other job
    has its own."""
    loader = cached(tmp_path, 'memory')
    sweeper, = sweepers
    sweeper.send_signal(getattr(signal, name))
    another_job(monkeypatch)
    other = User(tmp_path, 'memory', write_images(tmp_path / 'images', 2)).wait()
    assert sweeper.poll() == (-9 if name == 'SIGKILL' else None)
    del loader
    time.sleep(0.3)
    assert len(names(tmp_path)) == 2
    other.end()
    assert becomes_empty(tmp_path / 'memory')


def test_one_sweeper_for_the_loaders_of_a_process(tmp_path, sweepers, monkeypatch):
    """Copies, and the workers that unpickle one, need none; who comes when all are gone does."""
    path, = write_images(tmp_path / 'images', 1)
    loaders = [cached(tmp_path, 'memory') for _ in range(3)]
    loaders.append(copy.deepcopy(loaders[0]))
    another_job(monkeypatch)
    loaders.append(pickle.loads(pickle.dumps(loaders[0])))
    assert len(sweepers) == 1
    load(loaders[-1], path)
    loaders.clear()
    loader = cached(tmp_path, 'memory')
    load(loader, path)
    assert len(sweepers) == 2
    del loader
    assert becomes_empty(tmp_path / 'memory')
    assert [sweeper.wait(20) for sweeper in sweepers] == [0, 0]


def test_the_sweeper_of_a_removed_folder_leaves_the_next(tmp_path, sweepers, monkeypatch):
    paths, first = write_images(tmp_path / 'images', 2), cached(tmp_path, 'memory')
    descriptors = Path(f'/proc/{sweepers[0].pid}/fd')
    while str(tmp_path / 'memory' / 'lock') not in map(os.readlink, descriptors.iterdir()):
        time.sleep(0.05)
    shutil.rmtree(tmp_path / 'memory')
    another_job(monkeypatch)
    second = cached(tmp_path, 'memory')
    for path in paths:
        load(second, path)
    del first
    sweepers[0].wait(20)
    assert len(names(tmp_path)) == 2
    del second
    assert becomes_empty(tmp_path / 'memory')


def keep_alive(seconds):
    time.sleep(seconds)


def test_a_child_without_a_cache_keeps_nobody_waiting(tmp_path):
    """A cache is dropped while a child that was forked meanwhile lives; the next one begins at once."""
    paths = write_images(tmp_path / 'images', 2)
    loader = cached(tmp_path, 'memory')
    child = multiprocessing.get_context('fork').Process(target=keep_alive, args=(30, ))
    child.start()
    del loader
    start = time.monotonic()
    loader = cached(tmp_path, 'memory')
    load(loader, paths[0])
    assert loader.cache is not None and time.monotonic() - start < 5
    child.kill()
    child.join()


@pytest.mark.slow
@pytest.mark.parametrize('end', ['terminate', 'kill'])
def test_workers_and_signals(tmp_path, end):
    """A training that is ended in the middle of an epoch leaves nothing, though its workers were writing."""
    write_images(tmp_path / 'images', 64)
    script = tmp_path / 'job.py'
    script.write_text(f"""
import os
from torch.utils.data import DataLoader, get_worker_info
from mmspt.datasets import LoadImageFromFile
loader = LoadImageFromFile(cache='memory', cache_folder={str(tmp_path / 'cache')!r})
images = [dict(img_path=entry.path) for entry in os.scandir({str(tmp_path / 'images')!r})] * 50
class Images:
    def __len__(self): return len(images)
    def __getitem__(self, i): return int(loader(dict(images[i]))['img'].sum())
for i, batch in enumerate(DataLoader(Images(), 4, num_workers=2)):
    if i == 3: print('going', flush=True)
""")
    process = subprocess.Popen([sys.executable, '-W', 'ignore', script], stdout=subprocess.PIPE, text=True,
                               env=environment())
    assert 'going' in process.stdout.readline()
    assert names(tmp_path / 'cache')
    getattr(process, end)()
    process.wait(30)
    assert becomes_empty(tmp_path / 'cache' / 'memory')


def test_the_two_kinds_do_not_share_files(tmp_path):
    path, = write_images(tmp_path / 'images', 1)
    load(cached(tmp_path / 'cache', 'disk'), path)
    load(cached(tmp_path / 'cache', 'memory'), path)
    assert len(names(tmp_path / 'cache' / 'disk')) == 1


def test_room_for_others_stays(tmp_path, said, monkeypatch):
    """In a small file system half of it: data loaders need shared memory for their batches."""
    paths, system = write_images(tmp_path / 'images', 6), os.statvfs(tmp_path)
    loader = cached(tmp_path / 'cache', 'memory')
    free = [100]

    def statvfs(folder):
        used = size(tmp_path / 'cache') // PAGE
        return SimpleNamespace(f_blocks=100, f_frsize=PAGE, f_bavail=min(free[0], 60) - used, f_bsize=system.f_bsize)
    monkeypatch.setattr(os, 'statvfs', statvfs)
    for _ in range(2):
        for path in paths:
            np.testing.assert_array_equal(load(loader, path), load(LoadImageFromFile(), path))
    assert len(names(tmp_path / 'cache')) == 2  # of 4 pages each: 60 - 8 >= 50
    assert len(said) == 1 and 'stay free for others' in said[0] and '--shm-size' in said[0]


def test_a_process_that_ends_as_they_do(tmp_path):
    """By leaving its last line, with a loader in a module's variable."""
    path, = write_images(tmp_path / 'images', 1)
    output = command(sys.executable, '-W', 'ignore', '-c', f"""
import os
from mmspt.datasets import LoadImageFromFile
load = LoadImageFromFile(cache='memory', cache_folder={str(tmp_path / 'cache')!r})
load(dict(img_path={str(path)!r}))
print(sorted(name[-4:] for name in os.listdir(load.cache.folder)))
""")
    assert '.raw' in output and becomes_empty(tmp_path / 'cache' / 'memory')


@pytest.mark.slow
def test_kills(tmp_path):
    """Whenever they come, only whole images are served, and the next user that is alone tidies the folder."""
    paths, folder = write_images(tmp_path / 'images', 200), tmp_path / 'cache'
    found = []
    for delay in np.linspace(0.001, 0.1, 40):
        users = [User(folder, 'disk', paths) for _ in range(2)]
        time.sleep(delay)
        for user in users:
            user.kill()
        loader = cached(folder)
        found.append(len(names(folder)))
        assert not names(folder, '.part') and (folder / 'disk' / 'ledger').stat().st_size * PAGE == size(folder)
        loader.cache.put = lambda key, image: None  # only what was there
        for path in paths:
            np.testing.assert_array_equal(load(loader, path), load(LoadImageFromFile(), path))
        del loader
    assert sorted(found) == found and found[-1] > found[0]
