#!/usr/bin/env python
"""What checkpoints without the frozen backbone save: bytes, and seconds to write, to resume from and to start.

    python benchmarks/checkpoints.py                          # ViT-B/16, 20 deep prompts, 200 classes

Both kinds are written and read by turns in one process, by a runner that has trained for a step, from random weights
which a file holds as a pre-trained checkpoint would. Writing reaches the disk (fsync). The clock of a resumption runs
from the built model to the weights, optimizer and counters in place; both kinds read the backbone's file first, as
every training does.
"""
import argparse
import os
import os.path as osp
import statistics
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from mmpretrain.models import VisionTransformer
from nmi import RandomImages, step
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn
from rich.table import Table
from torch.utils.data import DataLoader

from measure import alternate, ratio, record
from mmspt.models import PromptedViT
from mmspt.models.backbones.frozen_vit import FrozenViT

CLASSES = 200
KINDS = {'whole': True, 'trained only': False}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Time checkpoints',
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--arch', default='base', help="MMPretrain's name of the ViT")
    parser.add_argument('--img-size', type=int, default=224, help='pixels')
    parser.add_argument('--prompts', type=int, default=20)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--out', default='work_dirs/benchmarks/checkpoints.json', help='for the numbers')
    return parser.parse_args()


def build_runner(args: argparse.Namespace, folder: str) -> Runner:
    """A runner that has trained for one step, its backbone from a file."""
    shape: dict[str, Any] = dict(arch=args.arch, img_size=args.img_size, out_type='avg_featmap', final_norm=False)
    source = osp.join(folder, 'backbone.pth')
    torch.save(dict(model=PromptedViT(num_prompts=0, **shape).state_dict()), source)
    backbone = dict(type='mmspt.PromptedViT', num_prompts=args.prompts, **shape,
                    init_cfg=dict(type='Pretrained', checkpoint=source))
    images = RandomImages(2, args.img_size)
    runner = Runner(
        dict(type='ImageClassifier', backbone=backbone,
             head=dict(type='LinearClsHead', num_classes=CLASSES,
                       in_channels=VisionTransformer.arch_zoo[args.arch]['embed_dims'])),
        folder, train_dataloader=DataLoader(images, 2, collate_fn=pseudo_collate),
        train_cfg=dict(by_epoch=False, max_iters=0), default_hooks=dict(checkpoint=None),
        optim_wrapper=dict(constructor='mmspt.TrainableOnlyOptimWrapperConstructor',
                           optimizer=dict(type='AdamW', lr=1e-4)),
        data_preprocessor=dict(num_classes=CLASSES, mean=[127.5] * 3, std=[127.5] * 3), randomness=dict(seed=0),
        log_level='ERROR', default_scope='mmpretrain')
    runner.train()
    step(runner, pseudo_collate([images[0], images[1]]))
    return runner


def save(runner: Runner, kind: str) -> None:
    """Write a checkpoint as the hook does."""
    vit = runner.model.backbone
    assert isinstance(vit, FrozenViT)
    with nullcontext() if KINDS[kind] else vit.saving.without_frozen(vit):
        runner.save_checkpoint(runner.work_dir, f'{kind}.pth')


def resume(runner: Runner, kind: str) -> None:
    """Read it as --resume does."""
    runner.resume(osp.join(runner.work_dir, f'{kind}.pth'), resume_param_scheduler=False)


def initialize(runner: Runner) -> None:
    """Read the backbone's file, as every training does first; with the fingerprint."""
    runner.model.backbone._is_init = False
    runner.model.backbone.init_weights()


def fingerprint(runner: Runner) -> None:
    """Take it anew."""
    runner.model.backbone._mark = None
    runner.model.backbone.fingerprint()


def measure(args: argparse.Namespace, folder: str, console: Console) -> dict[str, Any]:
    """Write and read both kinds by turns."""
    runner = build_runner(args, folder)
    variants = {f'save, {kind}': partial(save, runner, kind) for kind in KINDS} | {
        f'resume, {kind}': partial(resume, runner, kind) for kind in KINDS} | {
        'init_weights': partial(initialize, runner), 'fingerprint': partial(fingerprint, runner)}
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task('checkpoints', total=len(variants) * (args.rounds + 1))
        seconds = alternate(variants, args.rounds, torch.device('cpu'), tick=lambda name: progress.advance(task))
    return dict(
        bytes={kind: os.path.getsize(osp.join(folder, f'{kind}.pth')) for kind in KINDS},
        median={name: statistics.median(values) for name, values in seconds.items()}, seconds=seconds,
        ratio={what: ratio(*(seconds[f'{what}, {kind}'] for kind in KINDS)) for what in ('save', 'resume')})


def show(content: dict[str, Any], console: Console) -> None:
    """Print the table."""
    made, median = content['settings'], content['median']
    table = Table(title=f'{made["arch"]}, {made["img_size"]} px, {made["prompts"]} deep prompts, {CLASSES} classes')
    for heading in ('checkpoint', 'bytes', 'seconds to save', 'seconds to resume'):
        table.add_column(heading, justify='right')
    for kind in KINDS:
        table.add_row(kind, f'{content["bytes"][kind]:,}',
                      *(f'{median[f"{what}, {kind}"]:.3g}' for what in ('save', 'resume')))
    console.print(table)
    console.print(f'init_weights, with the fingerprint: {median["init_weights"]:.3g} s; the fingerprint alone: '
                  f'{median["fingerprint"]:.3g} s')


def main() -> None:
    record(parse_args(), measure, show)


if __name__ == '__main__':
    main()
