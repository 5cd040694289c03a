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
from mmengine.runner import Runner
from mmpretrain.models import VisionTransformer
from mmpretrain.structures import DataSample
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch.utils.data import DataLoader, Dataset

from measure import alternate, ratio, record
from mmspt.engine.hooks.prompt_nmi_hook import IMAGES, PromptNMIHook
from mmspt.engine.unwrap import find_prompted_vit

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
CLASSES = 200
MEASURE = 'measure'


def parse_args() -> argparse.Namespace:
    default = Config.fromfile(osp.join(ROOT, 'configs', '_base_', 'default_runtime.py')).default_hooks.nmi
    parser = argparse.ArgumentParser(description='Time PromptNMIHook',
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--arch', default='base', help="MMPretrain's name of the ViT")
    parser.add_argument('--img-size', type=int, default=224, help='pixels')
    parser.add_argument('--prompts', type=int, default=20)
    parser.add_argument('--prompt-type', default='deep', choices=['deep', 'shallow'])
    parser.add_argument('--batch-sizes', nargs='+', type=int, default=[32, 8], help='of training steps')
    parser.add_argument('--interval', type=int, default=default.interval, help='iterations between measurements')
    parser.add_argument('--num-images', type=int, default=default.get('num_images') or IMAGES,
                        help='that are measured')
    parser.add_argument('--dtype', default='float32', choices=['float32', 'bfloat16', 'float16'],
                        help='below float32: AmpOptimWrapper')
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--out', default='work_dirs/benchmarks/nmi.json', help='for the numbers')
    return parser.parse_args()


class RandomImages(Dataset):
    """Noise in memory, as it leaves a pipeline."""

    def __init__(self, count: int, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=self.images[index], data_samples=DataSample().set_gt_label(index % CLASSES))


def build_runner(args: argparse.Namespace, images: RandomImages, work_dir: str) -> Runner:
    """A runner of no iteration, which measures once."""
    width = VisionTransformer.arch_zoo[args.arch]['embed_dims']
    backbone = dict(type='mmspt.PromptedViT', arch=args.arch, img_size=args.img_size, num_prompts=args.prompts,
                    prompt_type=args.prompt_type, out_type='avg_featmap', final_norm=False, allow_random_backbone=True)
    optim_wrapper: dict[str, Any] = dict(optimizer=dict(type='AdamW', lr=1e-4))
    if args.dtype != 'float32':
        optim_wrapper |= dict(type='AmpOptimWrapper', dtype=args.dtype)
    loader = DataLoader(images, min(args.batch_sizes), collate_fn=pseudo_collate)
    hook = dict(type='mmspt.PromptNMIHook', interval=args.interval, num_images=args.num_images)
    return Runner(
        dict(type='ImageClassifier', backbone=backbone,
             head=dict(type='LinearClsHead', num_classes=CLASSES, in_channels=width)),
        work_dir, train_dataloader=loader, train_cfg=dict(by_epoch=False, max_iters=0), optim_wrapper=optim_wrapper,
        data_preprocessor=dict(num_classes=CLASSES, mean=[127.5] * 3, std=[127.5] * 3),
        default_hooks=dict(checkpoint=None), custom_hooks=[hook], randomness=dict(seed=0), log_level='WARNING',
        default_scope='mmpretrain')


def step(runner: Runner, batch: dict[str, list]) -> None:
    """Train on one batch, as MMEngine's loops do."""
    runner.model.train()
    runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)


def measure(args: argparse.Namespace, work_dir: str, console: Console) -> dict[str, Any]:
    """Time measurements and steps of all batch sizes by turns."""
    device = torch.device(get_device())
    images = RandomImages(max(args.num_images, *args.batch_sizes), args.img_size)
    runner = build_runner(args, images, work_dir)
    runner.train()
    hook = next(hook for hook in runner.hooks if isinstance(hook, PromptNMIHook))
    backbone = find_prompted_vit(runner.model)
    assert backbone is not None
    names = {size: f'step of {size}' for size in args.batch_sizes}
    variants = {MEASURE: partial(hook.measure, runner, backbone)} | {
        name: partial(step, runner, pseudo_collate([images[i] for i in range(size)])) for size, name in names.items()}
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), TextColumn('elapsed'), console=console,
                  transient=True) as progress:
        task = progress.add_task('steps and measurements', total=len(variants) * (args.rounds + 1))
        seconds = alternate(variants, args.rounds, device, tick=lambda name: progress.advance(task))
    rows = []
    for size, name in names.items():
        between = [args.interval * value for value in seconds[name]]
        shares = [a / b for a, b in zip(seconds[MEASURE], between, strict=True)]
        rows.append(dict(batch_size=size, median=statistics.median(seconds[name]), seconds=seconds[name],
                         share=ratio(seconds[MEASURE], between), least=min(shares), most=max(shares)))
    return dict(images=len(hook._images), measure=dict(median=statistics.median(seconds[MEASURE]),
                                                       seconds=seconds[MEASURE]), steps=rows)


def show(content: dict[str, Any], console: Console) -> None:
    """Print the table."""
    made = content['settings']
    console.print(f'one measurement of {content["images"]} images: {content["measure"]["median"]:.3g} s, every '
                  f'{made["interval"]} iterations')
    table = Table(title=f'{made["arch"]}, {made["img_size"]} px, {made["prompts"]} {made["prompt_type"]} prompts, '
                        f'{made["dtype"]}')
    for heading in ('batch', 'seconds a step', 'share of training', 'least', 'most'):
        table.add_column(heading, justify='right')
    for row in content['steps']:
        table.add_row(str(row['batch_size']), f'{row["median"]:.3g}',
                      *(f'{row[key]:.2%}' for key in ('share', 'least', 'most')))
    console.print(table)


def main() -> None:
    record(parse_args(), measure, show)


if __name__ == '__main__':
    main()
