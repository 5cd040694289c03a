"""A config's data sets as :mod:`mmspt.datasets.audit.findings` needs them, read as far as they can be read."""
import copy
import inspect
import os.path as osp
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS

from ..benchmark import BenchmarkTask
from ..lists import Item, is_label
from ..tasks import TASKS, task_of
from ..wrappers import leaves, without_skipping
from .findings import Finding, Split
from .pixels import Decoded, digest_pixels
from .sources import REPEATING, ROLES, Source, as_finding, as_split

REMEDY = "correct data_root, data_prefix or the list, whose lines are '<path> <label>'"
TESTED = Finding('test', "the test set must not be the validation set too, as it is in many of MMPretrain's own "
                 'configs: the best epoch, or a setting, would be chosen on the test images',
                 'give val_dataloader images of its own, held out of the training images, or set val_dataloader, '
                 'val_cfg and val_evaluator to None')


def read_config(cfg: Config) -> Source:
    """Read the data sets of a config's three data loaders; what cannot be read becomes a finding.

    Those need ``get_data_info(index)`` with 'gt_label' and 'img_path' or 'img', as MMPretrain's have. Wrappers are
    built whole, so folds and subsets are what a run sees; nothing is downloaded.
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
                source.splits.append(_read(role, config, num_classes, source.in_memory))
        except Exception as error:  # any data set class, any error
            source.findings.append(_explain(role, config, error))
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
    """A copy that reads no image when it is built, the same for two roles that differ in their pipelines alone."""
    config = copy.deepcopy(without_skipping(config))
    for leaf in leaves(config):
        leaf.update(pipeline=[], lazy_init=True)
    return config


def _read(name: str, config: dict, num_classes: int | None, in_memory: dict[str, Decoded]) -> Split:
    config = copy.deepcopy(config)
    for leaf in leaves(config):
        if _takes_download(leaf.get('type')):
            leaf['download'] = False
    dataset = DATASETS.build(config)
    if isinstance(dataset, BenchmarkTask) and config.get('indices') is None:
        # its lists alone: a missing image is not the end
        dataset.remedy = f'unpack {dataset.task.name} as docs/data.md says'
        return as_split(dataset, name, num_classes)
    dataset.full_init()
    wrapped = next(leaves(config)) is not config
    first: dict[Decoded, str] = {}
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


def _takes_download(kind: Any) -> bool:
    """Whether a data set class has the argument `download`."""
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    return kind is not None and 'download' in inspect.signature(kind).parameters


def _explain(role: str, config: dict, error: Exception) -> Finding:
    """Name the first bad line of a list, which MMPretrain's error does not."""
    for leaf in leaves(config):
        path = osp.expanduser(osp.join(leaf.get('data_root') or '', leaf.get('ann_file') or ''))
        if leaf.get('type') == 'CustomDataset' and osp.isfile(path):
            with open(path, encoding='utf-8', errors='replace') as file:
                for number, line in enumerate(file, 1):
                    if not is_label(line.strip().rpartition(' ')[2]):
                        return Finding(role, "a line must be '<path> <label>', the label of at most 9 digits, but line "
                                             f"{number} of '{path}' is {line.strip()[:200]!r}", 'correct it')
    return as_finding(role, error, REMEDY)
