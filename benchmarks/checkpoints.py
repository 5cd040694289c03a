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
from rich.console import Console

from measure import alternate, arguments, ratio, record, show_table
from mmspt.models import PromptedViT
from mmspt.models.backbones.frozen_vit import FrozenViT
from networks import CLASSES, OUTPUTS, build_runner, classifier_config, random_images, step

KINDS = {'whole': True, 'trained only': False}


def parse_args() -> argparse.Namespace:
    parser = arguments('Time checkpoints', 'checkpoints')
    parser.add_argument('--prompts', type=int, default=20)
    parser.add_argument('--rounds', type=int, default=7)
    return parser.parse_args()


def train_once(args: argparse.Namespace, folder: str) -> Runner:
    """Return a runner that has trained for one step, its backbone from a file."""
    source = osp.join(folder, 'backbone.pth')
    torch.save(dict(model=PromptedViT(args.arch, args.img_size, num_prompts=0, **OUTPUTS['mae']).state_dict()), source)
    images = random_images(2, args.img_size)
    runner = build_runner(
        classifier_config(args, 'mae', num_prompts=args.prompts, init_cfg=dict(type='Pretrained', checkpoint=source)),
        images, 2, folder, optim_wrapper=dict(constructor='mmspt.TrainableOnlyOptimWrapperConstructor',
                                              optimizer=dict(type='AdamW', lr=1e-4)))
    runner.train()
    step(runner, pseudo_collate(images))
    return runner


def save(runner: Runner, kind: str) -> None:
    """Write a checkpoint as the hook does."""
    vit = runner.model.backbone
    assert isinstance(vit, FrozenViT)
    with nullcontext() if KINDS[kind] else vit.saved.without_frozen(vit):
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


def measure(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Write and read both kinds by turns."""
    runner = train_once(args, folder)
    variants = {f'save, {kind}': partial(save, runner, kind) for kind in KINDS} | {
        f'resume, {kind}': partial(resume, runner, kind) for kind in KINDS} | {
        'init_weights': partial(initialize, runner), 'fingerprint': partial(fingerprint, runner)}
    seconds = alternate(variants, args.rounds, torch.device('cpu'), title='checkpoints')
    return dict(
        bytes={kind: os.path.getsize(osp.join(folder, f'{kind}.pth')) for kind in KINDS},
        median={name: statistics.median(values) for name, values in seconds.items()}, seconds=seconds,
        ratio={what: ratio(*(seconds[f'{what}, {kind}'] for kind in KINDS)) for what in ('save', 'resume')})


def show(content: dict[str, Any], console: Console) -> None:
    """Print the table."""
    made, median = content['settings'], content['median']
    show_table(console, ('checkpoint', 'bytes', 'seconds to save', 'seconds to resume'), [
        (kind, f'{content["bytes"][kind]:,}', *(f'{median[f"{what}, {kind}"]:.3g}' for what in ('save', 'resume')))
        for kind in KINDS], f'{made["arch"]}, {made["img_size"]} px, {made["prompts"]} deep prompts, {CLASSES} classes')
    console.print(f'init_weights, with the fingerprint: {median["init_weights"]:.3g} s; the fingerprint alone: '
                  f'{median["fingerprint"]:.3g} s')


if __name__ == '__main__':
    record(parse_args(), measure, show)
