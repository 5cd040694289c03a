"""The configs of a quickstart: a base for the folder, and a short one for each method."""
import os.path as osp
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from mmspt.files import write_text
from mmspt.models.weights.normalization import IMAGENET, stated_normalization

from .images import Images
from .plan import Plan

RATES = dict(spt=1e-2, vpt=3e-3, linear=1e-2)
"""Where the search of each method begins: the best on the digits' validation images
(benchmarks/results/quickstart_digits.json)."""
BASE = """\
# Written by tools/quickstart.py; linear.py, vpt.py and spt.py beside it inherit from it:
#     python tools/train.py {folder}/spt.py
#     python tools/sweep.py {folder}/spt.py --trials 30
_base_ = ['mmspt::_base_/models/{model}.py', 'mmspt::_base_/schedules/spt_100e.py', 'mmspt::_base_/default_runtime.py']

pretraining = {pretraining!r}
model = dict(
    backbone=dict(
{backbone}
        init_cfg=dict(checkpoint={checkpoint!r})),
    head=dict(num_classes={num_classes}, in_channels={width}))
data_preprocessor = dict(
    num_classes={num_classes}, mean={mean}, std={std}, to_rgb=True)

train_pipeline = [
    dict(type='mmspt.LoadImageFromFile'),
    dict(type='mmspt.RandomResizedCrop', scale={size}, backend='torch', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmspt.PackInputs'),
]
test_pipeline = [
    dict(type='mmspt.LoadImageFromFile'),
    dict(type='mmspt.ResizeEdge', scale={edge}, edge='short', backend='torch', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size={size}),
    dict(type='mmspt.PackInputs'),
]
data = dict(type='mmspt.CustomDataset', data_root={root!r}, metainfo=dict(classes={classes!r}))
train_dataloader = dict(
    batch_size=32, num_workers={workers}, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**data, ann_file={lists[train]!r}, pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=64, num_workers={workers}, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**data, ann_file={lists[val]!r}, pipeline=test_pipeline))
test_dataloader = dict(
    batch_size=64, num_workers={workers}, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**data, ann_file={lists[test]!r}, pipeline=test_pipeline))
val_evaluator = test_evaluator = dict(type='Accuracy', topk=(1, ))
val_cfg = test_cfg = dict()

optim_wrapper = dict(paramwise_cfg=dict(head_decay=0.01))
param_scheduler = dict(warmup={warmup})
train_cfg = dict(max_epochs={epochs}, val_interval={val_interval})
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=1, save_best=None), nmi=dict(interval=20))
"""
METHOD = """\
_base_ = './base.py'

optim_wrapper = dict(optimizer=dict(lr={rate:g}))
{more}"""
MORE = dict(
    spt='',
    vpt="custom_hooks = [dict(type='mmspt.PromptInitHook', initializer=dict(type='mmspt.UniformInit'))]\n",
    linear='model = dict(backbone=dict(num_prompts=0))\n')


def model_config(bases: str, backbone: Mapping[str, Any], width: int, checkpoint: str, num_classes: int,
                 size: int) -> Config:
    """Return the part of ``base.py`` that says what the model is.

    Args:
        bases (str): The folder configs/_base_/models.
        backbone, width, checkpoint: See :func:`write_configs`.
        num_classes (int): Outputs of the head.
        size (int): Of the images, in pixels.
    """
    cfg = Config.fromfile(osp.join(bases, f'{_base(backbone)}.py'))
    cfg.merge_from_dict(dict(model=dict(
        backbone={**backbone, 'img_size': size, 'init_cfg': dict(type='Pretrained', checkpoint=checkpoint)},
        head=dict(num_classes=num_classes, in_channels=width))))
    return cfg


def _base(backbone: Mapping[str, Any]) -> str:
    return 'vit-b_mae' if backbone['out_type'] == 'avg_featmap' else 'vit-b_mocov3'


def write_configs(folder: str, images: Images, plan: Plan, backbone: Mapping[str, Any], width: int, checkpoint: str,
                  workers: int) -> dict[str, str]:
    """Write lists, ``base.py`` and a config for each method.

    Args:
        folder (str): Where they go.
        images (Images): As they are used.
        plan (Plan): Size and epochs.
        backbone (Mapping[str, Any]): Of :func:`mmspt.quickstart.encoder.backbone_of`.
        width (int): The backbone's.
        checkpoint (str): Its file or address.
        workers (int): Of a data loader.

    Returns:
        dict[str, str]: Method -> path of its config.
    """
    folder = osp.abspath(folder)
    mean, std = stated_normalization(checkpoint, width, 'pre_norm' in backbone) or IMAGENET
    lists = {split: osp.join(folder, f'{split}.txt') for split in images.splits}
    for split, items in images.splits.items():
        write_text(lists[split], ''.join(f'{path} {label}\n' for path, label in items))
    classes = osp.join(folder, 'classes.txt')
    write_text(classes, ''.join(f'{name}\n' for name in images.classes))
    arguments = {**backbone, 'img_size': plan.size}
    write_text(osp.join(folder, 'base.py'), BASE.format(
        folder=shorten(folder), model=_base(backbone),
        pretraining=osp.splitext(osp.basename(checkpoint))[0],
        classes=classes,
        backbone='\n'.join(f'        {name}={value!r},' for name, value in arguments.items()),
        checkpoint=checkpoint, mean=mean, std=std, num_classes=len(images.classes), width=width, size=plan.size,
        edge=round(plan.size * 8 / 7), root=images.root, lists=lists, workers=workers, epochs=plan.epochs,
        warmup=max(1, plan.epochs // 10), val_interval=plan.val_interval))
    paths = {method: osp.join(folder, f'{method}.py') for method in MORE}
    for method, path in paths.items():
        write_text(path, METHOD.format(rate=RATES[method], more=MORE[method]))
    return paths


def shorten(path: str) -> str:
    """Return a path as seen from here, or as it is where it is on another drive."""
    try:
        return osp.relpath(path)
    except ValueError:
        return path
