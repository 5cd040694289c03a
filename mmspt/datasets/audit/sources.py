"""A task's folder as :mod:`mmspt.datasets.audit.findings` needs it: its lists, read as far as they can be read."""
import os.path as osp
from contextlib import suppress
from typing import Any, NamedTuple

from mmspt.registry import DATASETS

from ..benchmark import BenchmarkTask
from ..fine_grained import FineGrained
from ..tasks import TASKS
from ..vtab import LISTS
from .findings import Finding, Split
from .pixels import Decoded

ROLES = ('train', 'val', 'test')
REPEATING = ('vtab_dsprites_loc', 'vtab_dsprites_ori')
"""Tasks whose published images repeat: dSprites' first and last orientation are one
(https://github.com/google-deepmind/dsprites-dataset/issues/7)."""


class Source(NamedTuple):
    """The splits of a data set, and what went wrong while they were read."""
    name: str
    splits: list[Split]
    findings: list[Finding]
    remedy: str
    """What to do about a missing image."""
    union: Split | None = None
    """A list of its own that must hold the first two splits."""
    repeats: bool = False
    in_memory: dict[str, Decoded] = {}
    """Name -> digest of images that are in no file."""


def read_task(key: str, folder: str) -> Source:
    """Read the splits of one of :data:`TASKS` below ``folder``; what cannot be read becomes a finding."""
    remedy = f'unpack {TASKS[key].name} as docs/data.md says'
    folder = folder if '://' in folder else osp.expanduser(folder)
    name, findings = f'{TASKS[key].name} in {folder}', []
    place = osp.join(folder, key.removeprefix('vtab_')) if key.startswith('vtab_') else folder
    if '://' not in place and not osp.isdir(place):
        return Source(name, [], [Finding('all', f"the folder '{place}' does not exist", remedy)], remedy)
    options: dict[str, Any] = {}
    try:
        probe = _open(key, folder, 'train', remedy)
    except Exception as error:  # a remote folder, whose backend may be absent
        return Source(name, [], [as_finding('all', error, 'copy the data set to a local folder')], remedy)
    if isinstance(probe, FineGrained):
        try:
            options['lists'] = 'vpt' if probe.reads_vpt() else 'official'
        except FileNotFoundError as error:
            findings.append(as_finding('all', error, remedy))
            options['lists'] = 'official'
        name += ", VPT's lists" if options['lists'] == 'vpt' else ', official lists'
        if options['lists'] == 'vpt' and _has_official(probe):
            findings.append(Finding('all', "VPT's lists are read, and the official ones, which are there too, are not: "
                                           "lists='official' turns that round", note=True))
    splits, union = [], None
    for split in (*ROLES, 'trainval'):
        dataset = _open(key, folder, split, remedy, **options)
        if split == 'trainval' and (isinstance(probe, FineGrained)
                                    or not dataset.exists(osp.join(place, LISTS[split]))):
            continue
        try:
            read = as_split(dataset, split)
        except (OSError, ValueError) as error:
            findings.append(as_finding(split, error, remedy))
            continue
        if split == 'trainval':
            union = read
        else:
            splits.append(read)
    return Source(name, splits, findings, remedy, union, key in REPEATING)


def _open(key: str, folder: str, split: str, remedy: str, **options: Any) -> BenchmarkTask:
    if key.startswith('vtab_'):
        options['task'] = key.removeprefix('vtab_')
    dataset = DATASETS.build(dict(type=f'mmspt.{TASKS[key].dataset}', data_root=folder, split=split, lazy_init=True,
                                  **options))
    dataset.remedy = remedy
    return dataset


def as_split(dataset: BenchmarkTask, name: str, num_classes: int | None = None) -> Split:
    """Read the lists alone. VTAB-1k's 1,000 images need not have all classes, nor need a held-out tenth. The published
    number of images is expected unless fewer classes are."""
    items = [(dataset.join(path), label) for path, label in dataset.read_split()]
    whole = dataset.split == 'test' or (isinstance(dataset, FineGrained) and dataset.split != 'val')
    num_classes = num_classes or dataset.task.num_classes
    size = None if num_classes < dataset.task.num_classes else dataset.task.sizes[dataset.split]
    return Split(name, items, num_classes, size, whole)


def _has_official(dataset: FineGrained) -> bool:
    with suppress(OSError, ValueError):
        return bool(dataset.read_official('train'))
    return False


def as_finding(split: str, error: Exception, remedy: str) -> Finding:
    """An error as a finding."""
    known = isinstance(error, OSError | ValueError) and str(error)
    text = f'{error}' if known else f'{type(error).__name__}: {error}'
    return Finding(split, text.removesuffix(f': {remedy}'), remedy)
