#!/usr/bin/env python
"""What PromptNMIHook costs: its measurement as a share of the training time between two of them.

    python benchmarks/nmi.py                                  # ViT-B/16, 20 deep prompts, MAE, batches of 32 and 8
    python benchmarks/nmi.py --interval 10 --dtype bfloat16   # more often, and under autocast

Measurements and training steps (forward, backward, optimizer) run by turns in one process, on random weights; the hook
is that of configs/_base_/default_runtime.py unless told otherwise. Steps take images that lie in memory, so a run that
waits for its disk spends a smaller share than is said here. The hook loads its images once, before the first step.
"""
import argparse
import os.path as osp
import statistics
from functools import partial
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from rich.console import Console

from measure import ROOT, alternate, arguments, ratio, record, show_table
from mmspt.engine.hooks.prompt_nmi_hook import IMAGES, PromptNMIHook
from mmspt.engine.model import find_prompted_vit
from networks import build_runner, classifier_config, random_images, step


def parse_args() -> argparse.Namespace:
    default = Config.fromfile(osp.join(ROOT, 'configs', '_base_', 'default_runtime.py')).default_hooks.nmi
    parser = arguments('Time PromptNMIHook', 'nmi')
    parser.add_argument('--prompts', type=int, default=20)
    parser.add_argument('--prompt-type', default='deep', choices=['deep', 'shallow'])
    parser.add_argument('--batch-sizes', nargs='+', type=int, default=[32, 8], help='of training steps')
    parser.add_argument('--interval', type=int, default=default.interval, help='iterations between measurements')
    parser.add_argument('--num-images', type=int, default=default.get('num_images') or IMAGES,
                        help='that are measured')
    parser.add_argument('--dtype', default='float32', choices=['float32', 'bfloat16', 'float16'],
                        help='below float32: AmpOptimWrapper')
    parser.add_argument('--rounds', type=int, default=7)
    return parser.parse_args()


def measure(args: argparse.Namespace, work_dir: str) -> dict[str, Any]:
    """Time measurements and steps of all batch sizes by turns."""
    images = random_images(max(args.num_images, *args.batch_sizes), args.img_size)
    optim_wrapper: dict[str, Any] = dict(optimizer=dict(type='AdamW', lr=1e-4))
    if args.dtype != 'float32':
        optim_wrapper |= dict(type='mmspt.AmpOptimWrapper', dtype=args.dtype)
    runner = build_runner(
        classifier_config(args, 'mae', num_prompts=args.prompts, prompt_type=args.prompt_type,
                          allow_random_backbone=True),
        images, min(args.batch_sizes), work_dir, optim_wrapper=optim_wrapper,
        custom_hooks=[dict(type='mmspt.PromptNMIHook', interval=args.interval, num_images=args.num_images)])
    runner.train()  # no iteration, but the hook loads its images
    hook = next(hook for hook in runner.hooks if isinstance(hook, PromptNMIHook))
    backbone = find_prompted_vit(runner.model)
    assert backbone is not None
    names = {size: f'step of {size}' for size in args.batch_sizes}
    variants = {'measure': partial(hook.measure, runner, backbone)} | {
        name: partial(step, runner, pseudo_collate(images[:size])) for size, name in names.items()}
    seconds = alternate(variants, args.rounds, torch.device(get_device()), title='steps and measurements')
    rows = []
    for size, name in names.items():
        between = [args.interval * value for value in seconds[name]]
        shares = [a / b for a, b in zip(seconds['measure'], between, strict=True)]
        rows.append(dict(batch_size=size, median=statistics.median(seconds[name]), seconds=seconds[name],
                         share=ratio(seconds['measure'], between), least=min(shares), most=max(shares)))
    return dict(images=len(hook._images), measure=dict(median=statistics.median(seconds['measure']),
                                                       seconds=seconds['measure']), steps=rows)


def show(content: dict[str, Any], console: Console) -> None:
    """Print the table."""
    made = content['settings']
    console.print(f'one measurement of {content["images"]} images: {content["measure"]["median"]:.3g} s, every '
                  f'{made["interval"]} iterations')
    show_table(console, ('batch', 'seconds a step', 'share of training', 'least', 'most'), [
        (str(row['batch_size']), f'{row["median"]:.3g}', *(f'{row[key]:.2%}' for key in ('share', 'least', 'most')))
        for row in content['steps']],
        f'{made["arch"]}, {made["img_size"]} px, {made["prompts"]} {made["prompt_type"]} prompts, {made["dtype"]}')


if __name__ == '__main__':
    record(parse_args(), measure, show)
