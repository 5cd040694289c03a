"""A config's data sets as :mod:`mmspt.datasets.audit.findings` needs them, read as far as they can be read."""
import os.path as osp
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS

from ..benchmark import BenchmarkTask
from ..lists import Item
from ..tasks import task_of
from .findings import Finding, Split
from .sources import REPEATING, ROLES, Source, as_finding, as_split

REMEDY = "correct data_root, data_prefix or the list, whose lines are '<path> <label>'"


def read_config(cfg: Config) -> Source:
    """Read the data sets of a config's three data loaders; what cannot be read becomes a finding.

    Those need ``get_data_info(index)`` with 'img_path' and 'gt_label', as MMPretrain's have.
    """
    num_classes = (cfg.get('model', {}).get('head') or {}).get('num_classes')
    splits: list[Split] = []
    findings: list[Finding] = []
    seen: list[tuple[str, dict]] = []
    for role in ROLES:
        for dataset in _unwrap((cfg.get(f'{role}_dataloader') or {}).get('dataset')):
            what = {key: value for key, value in dataset.items() if key not in ('pipeline', 'test_mode')}
            if any(config == what for other, config in seen if other == 'val'):
                findings.append(Finding(role, "the same data set as 'val': fine if nothing is chosen by it", note=True))
                continue
            seen.append((role, what))
            try:
                with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
                    splits.append(_read(role, dataset, num_classes))
            except Exception as error:  # any data set class, any error
                findings.append(_explain(role, dataset, error))
    if not seen:
        findings.append(Finding('all', f"a config must name a data set, but '{cfg.filename}' does not",
                                'set train_dataloader.dataset'))
    return Source(str(cfg.filename), splits, findings, REMEDY, repeats=any(task_of(w) in REPEATING for _, w in seen))


def _unwrap(dataset: Any) -> list[dict]:
    """Configs of the data sets inside wrappers."""
    if not isinstance(dataset, dict):
        return []
    inner = [d for d in (dataset.get('dataset'), *(dataset.get('datasets') or [])) if isinstance(d, dict)]
    return [found for d in inner for found in _unwrap(d)] if inner else [dataset]


def _read(name: str, config: dict, num_classes: int | None) -> Split:
    dataset = DATASETS.build(dict(config, pipeline=[], lazy_init=True))
    if isinstance(dataset, BenchmarkTask):  # its lists alone: a missing image is not the end
        dataset.remedy = f'unpack {dataset.task.name} as docs/data.md says'
        return as_split(dataset, name, num_classes)
    dataset.full_init()
    items: list[Item] = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        if 'img_path' not in info or 'gt_label' not in info:
            raise ValueError("a data set must give 'img_path' and 'gt_label' of each image, but "
                             f'{config["type"]} gives {", ".join(info)}')
        items.append((info['img_path'], int(info['gt_label'])))
    if not items:
        raise ValueError(f'a data set must have images, but {config["type"]} has none')
    return Split(name, items, num_classes, every_class=name == 'train')


def _explain(role: str, dataset: dict, error: Exception) -> Finding:
    """Name the first bad line of a list, which MMPretrain's error does not."""
    path = osp.join(dataset.get('data_root') or '', dataset.get('ann_file') or '')
    if dataset.get('type') == 'CustomDataset' and osp.isfile(path):
        with open(path, encoding='utf-8', errors='replace') as file:
            for number, line in enumerate(file, 1):
                _, _, label = line.strip().rpartition(' ')
                if not label.removeprefix('-').isdigit():
                    return Finding(role, f"a line must be '<path> <label>', but line {number} of '{path}' is "
                                         f'{line.strip()[:200]!r}', 'correct it')
    return as_finding(role, error, REMEDY)
