"""A task's folder or a config's data sets as :mod:`.checks` needs them: the lists, read as far as they can be read."""
import copy
import inspect
import os.path as osp
from contextlib import suppress

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS

from ..benchmark import BenchmarkTask
from ..fine_grained import FineGrained
from ..lists import Item, is_label
from ..tasks import TASKS, task_of
from ..vtab import LISTS
from ..wrappers import leaves, without_skipping
from .checks import Finding, Source, Split, digest_pixels

ROLES = ('train', 'val', 'test')
REPEATING = ('vtab_dsprites_loc', 'vtab_dsprites_ori')
"""Tasks whose published images repeat: dSprites' first and last orientation are one
(https://github.com/google-deepmind/dsprites-dataset/issues/7)."""
REMEDY = "correct data_root, data_prefix or the list, whose lines are '<path> <label>'"
TESTED = Finding('test', "the test set must not be the validation set too, as it is in many of MMPretrain's own "
                 'configs: the best epoch, or a setting, would be chosen on the test images',
                 'give val_dataloader images of its own, held out of the training images, or set val_dataloader, '
                 'val_cfg and val_evaluator to None')


def read_task(key: str, folder: str) -> Source:
    """Read the splits of one of :data:`TASKS` below ``folder``; what cannot be read becomes a finding."""
    remedy = f'unpack {TASKS[key].name} as docs/data.md says'
    folder = folder if '://' in folder else osp.expanduser(folder)
    source = Source(f'{TASKS[key].name} in {folder}', [], [], remedy, repeats=key in REPEATING)
    vtab = key.startswith('vtab_')
    place = osp.join(folder, key.removeprefix('vtab_')) if vtab else folder
    if '://' not in place and not osp.isdir(place):
        source.findings.append(Finding('all', f"the folder '{place}' does not exist", remedy))
        return source
    options = dict(type=f'mmspt.{TASKS[key].dataset}', data_root=folder, lazy_init=True)
    options |= dict(task=key.removeprefix('vtab_')) if vtab else {}
    try:
        probe = DATASETS.build(dict(options, split='train'))
    except Exception as error:  # a remote folder, whose backend may be absent
        source.findings.append(_as_finding('all', error, 'copy the data set to a local folder'))
        return source
    if not vtab:
        options['lists'] = _choose_lists(probe, source)
        source = source._replace(name=source.name + (
            ", VPT's lists" if options['lists'] == 'vpt' else ', official lists'))
    joint = vtab and probe.exists(osp.join(place, LISTS['trainval']))
    for split in (*ROLES, 'trainval') if joint else ROLES:
        try:
            read = _read_lists(DATASETS.build(dict(options, split=split)), split)
        except (OSError, ValueError) as error:
            source.findings.append(_as_finding(split, error, remedy))
            continue
        if split == 'trainval':
            source = source._replace(union=read)
        else:
            source.splits.append(read)
    return source


def _choose_lists(dataset: FineGrained, source: Source) -> str:
    """Return the kind of lists that ``lists='auto'`` takes, 'official' if it takes none; add what is odd about them."""
    try:
        vpt = dataset.reads_vpt()
    except FileNotFoundError as error:
        source.findings.append(_as_finding('all', error, source.remedy))
        vpt = False
    if vpt:
        with suppress(OSError, ValueError):
            if dataset.read_official('train'):
                source.findings.append(Finding('all', "VPT's lists are read, and the official ones, which are there "
                                               "too, are not: lists='official' turns that round", note=True))
    return 'vpt' if vpt else 'official'


def _read_lists(dataset: BenchmarkTask, name: str, num_classes: int | None = None) -> Split:
    """Read the lists alone: a missing image is not the end.

    VTAB-1k's 1,000 images need not have all classes, nor need a held-out tenth. The published number of images is
    expected unless fewer classes are.
    """
    dataset.remedy = f'unpack {dataset.task.name} as docs/data.md says'
    items = [(dataset.join(path), label) for path, label in dataset.read_split()]
    whole = dataset.split == 'test' or (isinstance(dataset, FineGrained) and dataset.split != 'val')
    num_classes = num_classes or dataset.task.num_classes
    size = None if num_classes < dataset.task.num_classes else dataset.task.sizes[dataset.split]
    return Split(name, items, num_classes, size, whole)


def read_config(cfg: Config) -> Source:
    """Read the data sets of a config's three data loaders; what cannot be read becomes a finding.

    They need ``get_data_info(index)`` with 'gt_label' and 'img_path' or 'img', as MMPretrain's have. Wrappers are built
    whole, so folds and subsets are what a run sees; nothing is downloaded.
    """
    num_classes = (cfg.get('model', {}).get('head') or {}).get('num_classes')
    source = Source(str(cfg.filename), [], [], REMEDY, in_memory={})
    configs: dict[str, dict] = {}
    for role in ROLES:
        config = (cfg.get(f'{role}_dataloader') or {}).get('dataset')
        if isinstance(config, dict):
            configs[role] = _bare(config)
    for role, config in configs.items():
        if role == 'test' and config == configs.get('val'):
            source.findings.append(TESTED)
            continue
        try:
            with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
                source.splits.append(_read_dataset(role, config, num_classes, source.in_memory))
        except Exception as error:  # any data set class, any error
            source.findings.append(_find_bad_line(role, config) or _as_finding(role, error, REMEDY))
    if not configs:
        source.findings.append(Finding('all', f"a config must name a data set, but '{cfg.filename}' does not",
                                       'set train_dataloader.dataset'))
    tasks = {key for config in configs.values() for leaf in leaves(config) if (key := task_of(leaf))}
    for task in (TASKS[key] for key in sorted(tasks)):
        if num_classes and num_classes < task.num_classes:
            source.findings.append(Finding('all', f'a part of {task.name} is meant, since the head has {num_classes:,} '
                                           'classes (model.head.num_classes) and the published data set '
                                           f'{task.num_classes:,}: results do not compare with published ones',
                                           note=True))
    return source._replace(repeats=not tasks.isdisjoint(REPEATING))


def _bare(config: dict) -> dict:
    """Copy a config so that no image is read when it is built; two roles that differ in pipelines alone become equal.
    """
    config = copy.deepcopy(without_skipping(config))
    for leaf in leaves(config):
        leaf.update(pipeline=[], lazy_init=True)
    return config


def _read_dataset(name: str, config: dict, num_classes: int | None, in_memory: dict[str, str]) -> Split:
    config = copy.deepcopy(config)
    for leaf in leaves(config):
        kind = leaf.get('type')
        kind = DATASETS.get(kind) if isinstance(kind, str) else kind
        if kind is not None and 'download' in inspect.signature(kind).parameters:
            leaf['download'] = False
    dataset = DATASETS.build(config)
    if isinstance(dataset, BenchmarkTask) and config.get('indices') is None:
        return _read_lists(dataset, name, num_classes)
    dataset.full_init()
    wrapped = next(leaves(config)) is not config
    first: dict[str, str] = {}
    items: list[Item] = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        if 'gt_label' not in info or not ('img_path' in info or 'img' in info):
            raise ValueError("a data set must give 'gt_label' and 'img_path' or 'img' of each image, but "
                             f'{config["type"]} gives {", ".join(info)}')
        path = info.get('img_path')
        if path is None:
            digest, path = digest_pixels(info['img']), f'{name}[{index}]'
            path = first.setdefault(digest, path) if wrapped else path
            in_memory[path] = digest
        items.append((path, int(info['gt_label'])))
    if not items:
        raise ValueError(f'a data set must have images, but {config["type"]} has none')
    items = list(dict.fromkeys(items)) if wrapped else items  # wrappers repeat images on purpose
    return Split(name, items, num_classes, every_class=name == 'train')


def _find_bad_line(role: str, config: dict) -> Finding | None:
    """Name the first bad line of a list, which MMPretrain's error does not."""
    for leaf in leaves(config):
        path = osp.expanduser(osp.join(leaf.get('data_root') or '', leaf.get('ann_file') or ''))
        if leaf.get('type') == 'CustomDataset' and osp.isfile(path):
            with open(path, encoding='utf-8', errors='replace') as file:
                for number, line in enumerate(file, 1):
                    if not is_label(line.strip().rpartition(' ')[2]):
                        return Finding(role, "a line must be '<path> <label>', the label of at most 9 digits, but line "
                                             f"{number} of '{path}' is {line.strip()[:200]!r}", 'correct it')
    return None


def _as_finding(split: str, error: Exception, remedy: str) -> Finding:
    """Turn an error into a finding."""
    known = isinstance(error, OSError | ValueError) and str(error)
    text = f'{error}' if known else f'{type(error).__name__}: {error}'
    return Finding(split, text.removesuffix(f': {remedy}'), remedy)
