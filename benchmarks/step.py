#!/usr/bin/env python
"""What prompts cost in a step of a ViT: as keys and values, by concatenation, and beside full fine-tuning.

    python benchmarks/step.py                                        # ViT-B/16, batch 8, all cases
    python benchmarks/step.py --prompts 20 100 --dtypes float32      # the targets
    python benchmarks/step.py --device cuda --batch-size 128 --dtypes bfloat16 --compile

Variants run by turns in one process; a ratio is the median of the rounds' ratios. 'no prompts' is MMPretrain's own
frozen ViT with a trained head, the gradient carried back to the input of block 1, as deep prompts need it.
"""
import argparse
import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import product
from typing import Any

import torch
from mmcv.cnn.bricks import DropPath
from mmengine.registry import init_default_scope
from mmpretrain.models import ImageClassifier, VisionTransformer
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import Tensor, nn

from measure import alternate, machine, peak_of_tensors, ratio, settings, write_json

OUTPUTS: dict[str, dict[str, Any]] = dict(
    mae=dict(out_type='avg_featmap', final_norm=False), mocov3=dict(out_type='cls_token'))
CLASSES = 200
NONE, FULL = 'no prompts', 'full fine-tuning'
PATHS = dict(deep=('keys and values', 'concatenation'), shallow=('shallow', ))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Time a step', formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--arch', default='base', help="MMPretrain's name of the ViT")
    parser.add_argument('--img-size', type=int, default=224, help='pixels')
    parser.add_argument('--outputs', nargs='+', default=['mae', 'mocov3'], choices=list(OUTPUTS),
                        help='what feeds the head: the mean of all tokens (mae), or CLS (mocov3)')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--prompts', nargs='+', type=int, default=[10, 20, 50, 100, 200])
    parser.add_argument('--types', nargs='+', default=list(PATHS), choices=list(PATHS))
    parser.add_argument('--dtypes', nargs='+', default=['float32', 'bfloat16'],
                        choices=['float32', 'bfloat16', 'float16'], help='below float32: autocast')
    parser.add_argument('--passes', nargs='+', default=['step', 'forward'], choices=['step', 'forward'],
                        help='step: forward and backward while training; forward: eval mode, no gradient')
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--calls', type=int, help='calls in one measurement; by default 1 on a CPU, 20 on a GPU')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--compile', action='store_true', help='torch.compile the backbone')
    parser.add_argument('--out', default='work_dirs/benchmarks/step.json', help='for the numbers')
    return parser.parse_args()


def build(args: argparse.Namespace, outputs: str, **kwargs: Any) -> ImageClassifier:
    """Make a classifier; the weights are random, and the same for each call."""
    torch.manual_seed(0)
    width = VisionTransformer.arch_zoo[args.arch]['embed_dims']
    head = dict(type='LinearClsHead', num_classes=CLASSES, in_channels=width)
    backbone = dict(arch=args.arch, img_size=args.img_size, **OUTPUTS[outputs], **kwargs)
    model = MODELS.build(dict(type='ImageClassifier', backbone=backbone, head=head)).to(args.device)
    if args.compile:
        for name in ('cache_size_limit', 'recompile_limit'):  # of dynamo: each variant is compiled on its own
            if hasattr(torch._dynamo.config, name):
                setattr(torch._dynamo.config, name, 1000)
        for module in model.modules():
            if isinstance(module, DropPath):
                module.drop_prob = float(module.drop_prob)  # MMPretrain's NumPy scalar would break the stock graph
        model.backbone.forward = torch.compile(model.backbone.forward)
    return model


def build_variants(args: argparse.Namespace, outputs: str, training: bool) -> Iterator[tuple[str, nn.Module]]:
    """Yield names and models."""
    model = build(args, outputs, type='VisionTransformer')
    model.backbone.requires_grad_(False)
    model.get_parameter('backbone.pos_embed').requires_grad_(True)  # added to the input of block 1
    yield NONE, model
    if training:
        yield FULL, build(args, outputs, type='VisionTransformer')
    for prompt_type in args.types:
        for path, count in product(PATHS[prompt_type], args.prompts):
            yield f'{path}, {count}', build(
                args, outputs, type='mmspt.PromptedViT', num_prompts=count, prompt_type=prompt_type,
                concatenate=path == 'concatenation', allow_random_backbone=True)


def work(model: nn.Module, training: bool, images: Tensor, samples: list[DataSample],
         precision: Callable[[], AbstractContextManager]) -> Tensor:
    """One step or one forward pass; returns the loss or the scores."""
    if training:
        model.zero_grad(set_to_none=True)
        with precision():
            loss = model(images, samples, mode='loss')['loss']
        loss.backward()
        return loss.detach()
    with torch.no_grad(), precision():
        return model(images)


def check_same_work(results: dict[str, Tensor], prompts: list[int]) -> float:
    """Return the largest relative difference between keys and values and concatenation: they must agree."""
    worst = 0.
    for count in prompts:
        a, b = (results.get(f'{path}, {count}') for path in PATHS['deep'])
        if a is not None and b is not None:
            worst = max(worst, float((a - b).abs().max() / b.abs().max()))
    return worst


def measure(args: argparse.Namespace, outputs: str, dtype: str, kind: str, progress: Progress) -> dict[str, Any]:
    """Time all variants of one case."""
    device, training = torch.device(args.device), kind == 'step'
    torch.manual_seed(1)
    images = torch.randn(args.batch_size, 3, args.img_size, args.img_size, device=device)
    samples = [DataSample().set_gt_label(int(label)).to(device)
               for label in torch.randint(CLASSES, (args.batch_size, ))]
    precision: Callable[[], AbstractContextManager] = nullcontext if dtype == 'float32' else partial(
        torch.autocast, device.type, getattr(torch, dtype))
    variants, results, memory = {}, {}, {}
    for name, model in build_variants(args, outputs, training):
        model.train(training)
        variants[name] = partial(work, model, training, images, samples, precision)
    calls = args.calls or (20 if device.type == 'cuda' else 1)
    task = progress.add_task(f'{outputs}, {dtype}, {kind}', total=len(variants) * (args.rounds + 3))
    for name, call in variants.items():
        torch.manual_seed(2)
        results[name] = call().float()
        progress.advance(task)
    seconds = alternate(variants, args.rounds, device, calls, lambda name: progress.advance(task))
    for name, call in variants.items():
        memory[name] = peak_of_tensors(call, device)
        progress.advance(task)
    progress.remove_task(task)
    rows = {name: dict(median=statistics.median(times), seconds=times, over_none=ratio(times, seconds[NONE]),
                       peak_bytes=memory[name]) for name, times in seconds.items()}
    for count in args.prompts:
        fast, slow = (f'{path}, {count}' for path in PATHS['deep'])
        if slow in rows:
            rows[slow]['over_keys_values'] = ratio(seconds[slow], seconds[fast])
    return dict(outputs=outputs, dtype=dtype, kind=kind, variants=rows,
                difference=check_same_work(results, args.prompts))


def show(case: dict[str, Any], console: Console) -> None:
    """Print one case as a table."""
    table = Table(title=f'{case["outputs"]}, {case["dtype"]}, {case["kind"]}')
    for heading in ('variant', 'ms', '/ no prompts', '/ keys and values', 'peak MiB'):
        table.add_column(heading, justify='left' if heading == 'variant' else 'right')
    for name, row in case['variants'].items():
        table.add_row(name, f'{row["median"] * 1e3:.1f}', f'{row["over_none"]:.3f}',
                      f'{row["over_keys_values"]:.3f}' if 'over_keys_values' in row else '',
                      f'{row["peak_bytes"] / 2**20:,.0f}')
    console.print(table)
    if not math.isnan(case['difference']):
        console.print(f'keys and values against concatenation: outputs differ by {case["difference"]:.1e}, relative')


def main() -> None:
    args = parse_args()
    init_default_scope('mmpretrain')
    console, cases = Console(), []
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), TextColumn('elapsed'), console=console,
                  transient=True) as progress:
        for outputs, kind, dtype in product(args.outputs, args.passes, args.dtypes):
            case = measure(args, outputs, dtype, kind, progress)
            cases.append(case)
            show(case, console)
            write_json(dict(machine=machine(torch.device(args.device)), settings=settings(args), cases=cases), args.out)
    console.print(f'written to {args.out}')


if __name__ == '__main__':
    main()
