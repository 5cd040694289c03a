"""Checks of a run's files, data and labels before the first step."""
import os
import os.path as osp
import tempfile
from typing import Any

from mmengine.config import Config
from mmpretrain.models import BaseRetriever, ClsHead, MultiLabelClsHead
from torch import nn

from mmspt.datasets.class_names import check_folders, names_of
from mmspt.datasets.lists import check_list
from mmspt.datasets.nested_configs import leaves
from mmspt.models import PromptedViT
from mmspt.packs.preprocessing import Preprocessing
from mmspt.public_checkpoints import PUBLIC_CHECKPOINTS, find_checkpoint

from .optimizers.paramwise import check_paramwise


def check_config(cfg: Config, phase: str = 'train') -> None:
    """Check a run's files before anything is built; download a public checkpoint that is missing.

    Args:
        cfg (Config): The run's config, ``work_dir`` set.
        phase (str): 'train' (checks training and validation data) or 'test'. Defaults to 'train'.

    Raises:
        OSError: The work directory cannot be written.
        FileNotFoundError: A data folder, list file or public checkpoint is missing.
        ValueError: A data folder is empty, a checkpoint is not named, or ``paramwise_cfg`` has an option that its
            constructor does not read.
    """
    check_work_dir(cfg.work_dir)
    for field in ('train_dataloader', 'val_dataloader') if phase == 'train' else ('test_dataloader', ):
        dataset = (cfg.get(field) or {}).get('dataset')
        if isinstance(dataset, dict):
            check_data_folder(dataset, field)
    if phase == 'train':
        check_paramwise(cfg.get('optim_wrapper') or {})
    init_cfg = cfg.model.get('backbone', {}).get('init_cfg') if phase == 'train' else None
    parts = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg or {}]
    for path in (*(part.get('checkpoint') for part in parts), cfg.get('load_from')):
        if path == '':
            raise ValueError("model.backbone.init_cfg.checkpoint must name the pre-trained weights, got '': give "
                             '--cfg-options model.backbone.init_cfg.checkpoint=PATH')
        if path and osp.basename(path) in PUBLIC_CHECKPOINTS and '://' not in path:
            find_checkpoint(path)  # fetches it, or raises FileNotFoundError


def check_work_dir(work_dir: str) -> None:
    """Raise OSError if ``work_dir`` cannot be created or written; remote folders are left to their backend."""
    if '://' in work_dir:
        return
    try:
        os.makedirs(work_dir, exist_ok=True)
        with tempfile.TemporaryFile(dir=work_dir):
            pass
    except OSError as error:
        raise OSError(f"the work directory must be a folder that can be written, got '{work_dir}' ({error}): choose "
                      'another with --work-dir') from error


def check_data_folder(dataset: dict, field: str) -> None:
    """Raise if a folder or list file that a data set config names is missing or empty; remote ones are left alone."""
    remedy = f'set {field}.dataset.data_root (or the `data_root` of the config), see docs/data.md'
    for path in (path for leaf in leaves(dataset) for path in _paths(leaf)):
        if '://' in path:
            continue
        if not osp.exists(path):
            raise FileNotFoundError(f"{field} must read what exists, but '{path}' does not exist: {remedy}")
        if not (os.listdir(path) if osp.isdir(path) else osp.getsize(path)):
            raise ValueError(f"{field} must read images, but '{path}' is empty: {remedy}")
    for leaf in leaves(dataset):
        check_list(leaf)


def _paths(dataset: dict) -> list[str]:
    """The folders and the list file that a data set config names."""
    root, ann_file, prefix = (dataset.get(key) or '' for key in ('data_root', 'ann_file', 'data_prefix'))
    if isinstance(prefix, dict):
        prefix = prefix.get('img_path', '')
    parts = [osp.join(root, part) for part in (ann_file, prefix) if part]
    return [osp.expanduser(path) for path in (root, *parts) if path]  # as MMPretrain does


def labels_of(dataset: Any) -> set[int] | None:
    """Return the labels that occur in a data set; None if it tells none."""
    if not hasattr(dataset, 'get_cat_ids'):
        return set().union(*(labels_of(part) or () for part in getattr(dataset, 'datasets', ()))) or None
    try:
        return {int(label) for index in range(len(dataset)) for label in dataset.get_cat_ids(index)}
    except KeyError:  # images without labels
        return None


def check_labels(dataset: Any, model: Any, train: bool = False) -> set[int]:
    """Check that every class index has an output of the head, and that class folders have the labels of their names.

    Args:
        dataset (BaseDataset): MMPretrain's data set; one without ``get_cat_ids(index)`` is not checked.
        model (ImageClassifier): The model; a retriever, and one whose head is no classification head,
            are not checked.
        train (bool): Whether it is trained on, so that one class is too few. Defaults to False.

    Returns:
        set[int]: The labels that occur; empty if nothing was checked.

    Raises:
        ValueError: A label below 0, or not below ``num_classes``; see also
            :func:`mmspt.datasets.class_names.check_folders`.
    """
    head = getattr(model, 'head', None)
    num_classes = getattr(head, 'num_classes', None)
    if not isinstance(head, ClsHead | MultiLabelClsHead) or num_classes is None or isinstance(model, BaseRetriever):
        return set()
    preprocessor: Any = getattr(model, 'data_preprocessor', None)
    mixed = preprocessor.num_classes if getattr(preprocessor, 'to_onehot', False) else None  # for Mixup and CutMix
    if mixed not in (None, num_classes):
        raise ValueError(f'data_preprocessor.num_classes must be that of the head, {num_classes}, got {mixed}: set '
                         'it so')
    check_folders(dataset, train)
    labels = labels_of(dataset)
    if not labels:
        return set()
    if train and num_classes == 1 and isinstance(head, ClsHead):
        raise ValueError('a task must have at least two classes, but model.head.num_classes is 1: set it to the number '
                         'of classes, and the labels from 0')
    if min(labels) < 0 or max(labels) >= num_classes:
        from_one = min(labels) == 1 and max(labels) == num_classes
        remedy = f'set model.head.num_classes={max(max(labels) + 1, len(names_of(dataset)))}, or ' * (not from_one)
        raise ValueError(
            f'class indices must lie in [0, {num_classes}), the size of the head, but {type(dataset).__name__} has '
            f'labels from {min(labels)} to {max(labels)}: {remedy}start the labels at 0')
    return labels


def check_loaded(checkpoint: dict, model: nn.Module, cfg: Config) -> None:
    """Check what a checkpoint brings to a test: a head and a neck, and of a pack, how it makes inputs of images.

    Raises:
        ValueError: The test's images are made otherwise, or weights would stay random, which MMEngine only logs.
            A :class:`.PromptedViT` looks at these itself, since it renames and fills more.
    """
    meta = checkpoint.get('meta') or {}
    if 'preprocessing' in meta:
        Preprocessing.from_json(meta['preprocessing']).check(cfg)
    if isinstance(getattr(model, 'backbone', None), PromptedViT) or isinstance(model, BaseRetriever):
        return
    state = {name.removeprefix('module.'): value for name, value in checkpoint.get('state_dict', checkpoint).items()}
    random = [name for name, weight in model.named_parameters() if name.startswith(('head.', 'neck.'))
              and getattr(state.get(name), 'shape', None) != weight.shape]
    if random:
        raise ValueError(f'outside training every weight must come from a checkpoint, but this one has no '
                         f'{", ".join(random[:4])} of the shape that the config says: name a checkpoint of a training '
                         'with this config, or the config of the training that wrote this one')
