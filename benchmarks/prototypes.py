#!/usr/bin/env python
"""What initial prompts cost: seconds against the forward pass alone, memory, and how good a bounded sample is.

    python benchmarks/prototypes.py --data-root data/flowers17 --ann-file train.txt --data-prefix images
    python benchmarks/prototypes.py --sizes 6800 --inits kmeans ...     # more images than there are: they repeat
    python benchmarks/prototypes.py                                     # without data: crops of two photographs

Each initialization is that of PromptInitHook in a runner of MMEngine: reading, augmenting, forward pass, clustering.
Random sample, mean and max read one batch, however many images there are, VIPAMIN 256 at most. Its parts: 'loader' is
the wait for batches, until they are on the device; 'forward' the way from there to tokens on the CPU; 'prompts' the
rest, such as clustering. The forward pass alone runs before and after on as many images that lie in memory. With
--exact, all tokens of the largest size are kept as well, Lloyd's iterations run on all of them, seeded by k-means++ in
the same way (on another draw: there are more tokens to draw from), and both sets of centres are judged by their inertia
over all tokens.
"""
import argparse
import os.path as osp
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any
from uuid import uuid4

import sklearn.datasets
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS
from rich.console import Console
from rich.progress import track
from torch import Tensor

from measure import arguments, peak_of_process, record, show_table, wait
from mmspt.engine.hooks import PromptInitHook
from mmspt.engine.training_images import TrainingImages
from mmspt.models.backbones import PromptedViT
from mmspt.prompts import KMeansInit
from mmspt.prompts.clustering import BACKENDS
from mmspt.registry import HOOKS, TASK_UTILS
from networks import classifier_config, train_pipeline

STAGES = ('loader', 'forward', 'prompts')
INITS: dict[str, dict[str, Any]] = dict(
    random=dict(type='mmspt.RandomSampleInit'), mean=dict(type='mmspt.MeanPoolInit'),
    max=dict(type='mmspt.MaxPoolInit'), kmeans=dict(type='mmspt.KMeansInit'),
    vipamin=dict(type='mmspt.VIPAMINInit', k=2))  # k does not change the cost


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = arguments('Time initial prompts', 'prototypes')
    parser.add_argument('--data-root', help='folder of images; by default two photographs that come with scikit-learn')
    parser.add_argument('--ann-file', default='', help='list of images in it, as of CustomDataset')
    parser.add_argument('--data-prefix', default='', help='where the list begins')
    parser.add_argument('--checkpoint', help='of the backbone; random weights without')
    parser.add_argument('--prompts', nargs='+', type=int, default=[20])
    parser.add_argument('--sizes', nargs='+', type=int, default=[85, 170, 340, 680], help='numbers of images')
    parser.add_argument('--inits', nargs='+', default=list(INITS), choices=list(INITS))
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--num-workers', type=int, default=2)
    parser.add_argument('--max-memory', type=float, default=0.75, help='GiB of tokens')
    parser.add_argument('--amp', action='store_true', help='forward pass in bf16')
    parser.add_argument('--exact', action='store_true', help='compare with Lloyd on all tokens, kept in memory')
    parser.add_argument('--no-forward', action='store_true', help='leave out the forward pass alone')
    parser.add_argument('--backend', default='auto', choices=BACKENDS, help='of K-means')
    return parser.parse_args(argv)


@TASK_UTILS.register_module()
class KeptTokensInit(KMeansInit):
    """K-means that leaves the tokens behind."""
    tokens: list[Tensor]

    def fill(self, layers: Iterable[Tensor], *args: Any, **kwargs: Any) -> Tensor:
        self.tokens = list(layers)
        return super().fill(self.tokens, *args, **kwargs)


@HOOKS.register_module()
class TimedInitHook(PromptInitHook):
    """PromptInitHook that knows how long it took, and its parts, and how much memory."""
    seconds: float
    parts: dict[str, float]
    peak_bytes: int | None

    def fill(self, *args: Any) -> None:
        self.parts = dict.fromkeys(STAGES, 0.)
        fill = partial(super().fill, *args)

        def timed() -> None:
            start = time.perf_counter()
            fill()
            self.seconds = time.perf_counter() - start

        self.peak_bytes = peak_of_process(timed)
        self.parts['prompts'] = self.seconds - sum(self.parts.values())

    def _images(self, *args: Any) -> TrainingImages:
        """The images, whose reader is timed: waiting for a batch on the device, and what is done with it."""
        images = super()._images(*args)
        read = images.read
        images.read = lambda consume, count=None: read(  # type: ignore[method-assign]
            lambda batches, number: consume(self._timed(batches, images.device), number), count)
        return images

    def _timed(self, batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
        start = time.perf_counter()
        for batch in batches:
            wait(device)
            self.parts['loader'] += time.perf_counter() - start
            start = time.perf_counter()
            yield batch
            wait(device)
            self.parts['forward'] += time.perf_counter() - start
            start = time.perf_counter()
        self.parts['loader'] += time.perf_counter() - start  # its workers end


def dataset_config(args: argparse.Namespace) -> dict:
    """Images as the recipes augment them, repeated until there are enough."""
    dataset = dict(type='CustomDataset', pipeline=train_pipeline(args.img_size), with_label=bool(args.ann_file),
                   ann_file=args.ann_file,
                   data_root=args.data_root or osp.join(osp.dirname(sklearn.datasets.__file__), 'images'),
                   data_prefix=args.data_prefix)
    at_hand = len(DATASETS.build(dataset))
    return dict(type='RepeatDataset', dataset=dataset, times=-(-max(args.sizes) // at_hand))


def build_runner(args: argparse.Namespace, dataset: dict, work_dir: str, num_prompts: int, **hook: Any) -> Runner:
    """A runner of no iteration with the hook."""
    init_cfg = dict(type='Pretrained', checkpoint=args.checkpoint) if args.checkpoint else None
    model = classifier_config(args, 'mae', num_prompts=num_prompts, allow_random_backbone=True, init_cfg=init_cfg)
    optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.))
    if args.amp:
        optim_wrapper |= dict(type='mmspt.AmpOptimWrapper', dtype='bfloat16')
    return Runner.from_cfg(Config(dict(
        default_scope='mmpretrain', work_dir=work_dir, log_level='WARNING', randomness=dict(seed=0),
        data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
        model=model,
        train_dataloader=dict(batch_size=args.batch_size, num_workers=args.num_workers, dataset=dataset,
                              sampler=dict(type='DefaultSampler', shuffle=True)),
        train_cfg=dict(by_epoch=True, max_epochs=0),  # a loop by iterations would start its workers before the hook
        optim_wrapper=optim_wrapper, experiment_name=uuid4().hex,
        custom_hooks=[dict(dict(type='mmspt.TimedInitHook', max_memory=args.max_memory), **hook)])))


def initialize(args: argparse.Namespace, dataset: dict, work_dir: str, init: str, size: int, num_prompts: int,
               **hook: Any) -> tuple[dict[str, Any], TimedInitHook, Tensor]:
    """Run PromptInitHook; return seconds and bytes, the hook, and the prompts (L, N_p, D)."""
    initializer = dict(INITS.get(init, dict(type=f'mmspt.{init}')))
    if init == 'kmeans':
        initializer['backend'] = args.backend
    wanted = TASK_UTILS.get(initializer['type']).images  # a batch or a number, however many there are
    num_images = size if wanted == 'all' else min(size, wanted) if isinstance(wanted, int) else None
    runner = build_runner(args, dataset, work_dir, num_prompts, num_images=num_images,
                          **dict(initializer=initializer) | hook)
    timed = next(hook for hook in runner.hooks if isinstance(hook, TimedInitHook))
    runner.train()
    row = dict(init=init, images=size, read=num_images or min(size, args.batch_size), prompts=num_prompts,
               seconds=timed.seconds, parts=timed.parts, peak_bytes=timed.peak_bytes)
    return row, timed, runner.model.backbone.prompts.tokens.detach().cpu()


def forward_alone(args: argparse.Namespace, backbone: PromptedViT, size: int) -> float:
    """Seconds of the same pass over as many images that lie in memory, whose tokens are dropped."""
    images = torch.randn(args.batch_size, 3, args.img_size, args.img_size, device=get_device())
    device = torch.device(get_device())

    def run(count: int) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=args.amp):
            for _ in backbone.patch_tokens(images[:count], backbone.num_layers):
                pass

    run(args.batch_size)
    wait(device)
    start = time.perf_counter()
    for done in track(range(0, size, args.batch_size), f'forward alone, {size} images', transient=True):
        run(min(args.batch_size, size - done))
    wait(device)
    return time.perf_counter() - start


def inertia(tokens: Tensor, centres: Tensor) -> float:
    """Sum of the squared distances of tokens (N, D) to their nearest centre (K, D)."""
    return sum(float(torch.cdist(part, centres.double()).min(dim=1).values.square().sum())
               for part in (chunk.double() for chunk in tokens.split(8192)))


def compare_exact(args: argparse.Namespace, dataset: dict, work_dir: str, num_prompts: int,
                  centres: Tensor) -> dict[str, Any]:
    """Judge centres of a bounded sample by those of all tokens of the largest size."""
    row, hook, exact = initialize(args, dataset, work_dir, 'KeptTokensInit', max(args.sizes), num_prompts,
                                  max_memory=None)
    assert isinstance(hook.initializer, KeptTokensInit)
    tokens = hook.initializer.tokens
    ratios = [inertia(layer, bounded) / inertia(layer, best) for layer, bounded, best in
              track(list(zip(tokens, centres, exact, strict=True)), 'inertia', transient=True)]
    return dict(row, init='kmeans, all tokens', tokens=len(tokens[0]), ratios=ratios, mean=statistics.mean(ratios))


def measure(args: argparse.Namespace, work_dir: str) -> dict[str, Any]:
    """Time all initializations, between two forward passes alone."""
    dataset, rows, exact = dataset_config(args), list[dict[str, Any]](), []
    backbone = build_runner(args, dataset, work_dir, 1).model.backbone.eval()
    for size in args.sizes:
        before = None if args.no_forward else forward_alone(args, backbone, size)
        for init, count in product(args.inits, args.prompts):
            row, _, prompts = initialize(args, dataset, work_dir, init, size, count)
            rows.append(row)
            if args.exact and init == 'kmeans' and size == max(args.sizes):
                exact.append(compare_exact(args, dataset, work_dir, count, prompts))
        if before is not None:
            mean = (before + forward_alone(args, backbone, size)) / 2
            for row in rows:
                row.setdefault('forward', mean)
    return dict(rows=rows, exact=exact)


def show(content: dict[str, Any], console: Console) -> None:
    """Print the tables."""
    def over_forward(row: dict[str, Any]) -> str:
        return f'{row["seconds"] / row["forward"]:.3f}' if 'forward' in row and row['read'] == row['images'] else ''

    show_table(console, ('initializer', 'prompts', 'images', 'read', 'seconds', '/ forward alone', 'peak MiB'), [
        (row['init'], str(row['prompts']), f'{row["images"]:,}', f'{row["read"]:,}', f'{row["seconds"]:.2f}',
         over_forward(row), f'{row["peak_bytes"] / 2**20:,.0f}' if row['peak_bytes'] is not None else '?')
        for row in content['rows']], 'whole initialization')
    for row in content['exact']:
        console.print(f'{row["prompts"]} prompts: inertia of the bounded sample / of all {row["tokens"]:,} tokens a '
                      f'layer: mean {row["mean"]:.4f}, worst layer {max(row["ratios"]):.4f}')


if __name__ == '__main__':
    record(parse_args(), measure, show)
