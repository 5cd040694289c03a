#!/usr/bin/env python
"""What prompts do to the mean that MAE's head reads, before the first step: how much of it still depends on the image.

    python benchmarks/pooled.py                 # --images 50 --tasks digits_32 --prompts 20: on few, to try it

MAE's head reads LayerNorm(mean of prompts and patch tokens) of the last block. For VPT-Deep, random sample and K-means
of the study (benchmarks/study_plan.py), training images of the task, without augmentation, pass the network with the
prompts that a run of seed 0 starts with.
Variances are over images and summed over features; squares are mean squared lengths. The images' share of what the head
reads is smaller, the less the prompts' outputs depend on them and the longer these are.
"""
import argparse
import math
import os
import os.path as osp
import sys
from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import pseudo_collate
from mmpretrain.registry import DATASETS, MODELS
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader

from measure import record
from mmspt.engine.hooks.prompt_init_hook import FILE_NAME
from study_plan import ROOT, TASKS, Cell
from study_processes import TOOLS, Failed, run

METHODS = ('VPT-Deep', 'SPT-Deep, random sample', 'SPT-Deep, K-means')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Measure what prompts do to the pooled features',
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--tasks', nargs='+', choices=list(TASKS), default=['flowers17_area_32', 'cifar10_1k'])
    parser.add_argument('--prompts', nargs='+', type=int, default=[20, 100], help='numbers of prompts')
    parser.add_argument('--images', type=int, default=200, help='of the training images, spread over the list')
    parser.add_argument('--out', default='work_dirs/benchmarks/pooled.json', help='for the numbers')
    args = parser.parse_args()
    if args.images < 2:
        parser.error(f'--images must be at least 2, as it is their variance that is measured, got {args.images}')
    return args


def mean_of_prompts(pooled: Tensor, patches: Tensor, num_prompts: int, num_patches: int) -> Tensor:
    """The mean of the prompts' outputs, from that of prompts and patches and that of patches alone, each (B, D)."""
    return (pooled * (num_prompts + num_patches) - patches * num_patches) / num_prompts


def describe(pooled: Tensor, patches: Tensor, num_prompts: int, num_patches: int, norm: torch.nn.Module) -> dict[
        str, float]:
    """Variances over images and mean squared lengths of the means, and the head's variance with and without prompts.

    Args:
        pooled (Tensor): Mean of the last block's outputs in the places of prompts and patches, (B, D).
        patches (Tensor): In those of patches alone, (B, D).
        num_prompts (int): N_p.
        num_patches (int): N_e.
        norm (torch.nn.Module): The LayerNorm in front of the head.
    """
    prompts = mean_of_prompts(pooled, patches, num_prompts, num_patches)
    return dict(
        prompts_variance=variance(prompts), prompts_square=float(prompts.square().sum(1).mean()),
        patches_variance=variance(patches), patches_square=float(patches.square().sum(1).mean()),
        head_variance=variance(norm(pooled)), unpooled_head_variance=variance(norm(patches)))


def variance(features: Tensor) -> float:
    """Over images, summed over features; (B, D)."""
    return float(features.var(0).sum())


def read_config(cell: Cell) -> Config:
    """The cell's recipe, with what it changes of it."""
    os.environ.update(cell.environment)
    cfg = Config.fromfile(osp.join(ROOT, cell.config))
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    cfg.merge_from_dict(parser.parse_args(cell.options()).cfg_options)
    return cfg


def initial_prompts(cell: Cell, folder: str) -> Tensor:
    """As a run of this cell starts with seed 0, (L, N_p, D).

    Raises:
        Failed: tools/init_prompts.py did.
    """
    # options() begins with --cfg-options, if there are any
    status = run([sys.executable, osp.join(TOOLS, 'init_prompts.py'), osp.join(ROOT, cell.config), '--work-dir', folder,
                  *cell.options(), *(() if cell.options() else ('--cfg-options', )), 'log_level=ERROR'],
                 cell.environment)
    if status:
        raise Failed(f'tools/init_prompts.py ended with {status}, as said above')
    return load_file(osp.join(folder, FILE_NAME))['prompts']


@torch.no_grad()
def measure_cell(cell: Cell, folder: str, images: int) -> dict[str, float]:
    """Pass the training images through the network with a cell's initial prompts."""
    cfg = read_config(cell)
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor)).eval()
    model.init_weights()
    vit = model.backbone
    vit.prompts.copy_(initial_prompts(cell, folder))
    read: dict[bool, list[Tensor]] = {True: [], False: []}  # whether prompts are pooled -> what the norm reads
    vit.ln2.register_forward_pre_hook(lambda _, inputs: read[vit.pool_prompts].append(inputs[0]))
    dataset = DATASETS.build(dict(cfg.train_dataloader.dataset, pipeline=cfg.val_dataloader.dataset.pipeline))
    chosen = np.linspace(0, len(dataset) - 1, min(images, len(dataset)), dtype=int).tolist()
    for batch in DataLoader(dataset.get_subset(chosen), batch_size=100, collate_fn=pseudo_collate):
        inputs = model.data_preprocessor(batch)['inputs']
        for pool in read:
            vit.pool_prompts = pool
            vit(inputs)
    pooled, patches = (torch.cat(read[pool]) for pool in (True, False))
    return describe(pooled, patches, vit.num_prompts, math.prod(vit.patch_embed.init_out_size), vit.ln2)


def measure(args: argparse.Namespace, folder: str, console: Console) -> dict[str, Any]:
    """All methods and numbers of prompts on all tasks."""
    rows, places = [], list(product(args.tasks, args.prompts, METHODS))
    for task, count, method in track(places, 'prompts', console=console):
        cell = Cell('mae', task, method, count)
        rows.append(dict(task=task, method=method, num_prompts=count) | measure_cell(
            cell, osp.join(folder, cell.name), args.images))
    return dict(rows=rows)


def show(content: Mapping[str, Any], console: Console) -> None:
    """A line each: variances."""
    table = Table('task', 'N_p', 'start', 'prompts', 'patches', 'head', 'patches alone', title='variance over images')
    for row in content['rows']:
        values = (row[f'{key}_variance'] for key in ('prompts', 'patches', 'head', 'unpooled_head'))
        table.add_row(TASKS[row['task']], str(row['num_prompts']), row['method'].removeprefix('SPT-Deep, '),
                      *(f'{value:.1f}' for value in values))
    console.print(table)


if __name__ == '__main__':
    record(parse_args(), measure, show)
