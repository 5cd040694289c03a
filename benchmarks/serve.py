#!/usr/bin/env python
"""What it costs to serve many tasks on one frozen ViT: time of mixed batches, memory of a further task.

    python benchmarks/serve.py --out benchmarks/results/serve_xeon.json       # ViT-B/16, batch 32, 8 tasks
    python benchmarks/serve.py --device cuda --calls 20

The same images go by turns, in one process, through: 'mixed', one batch of all tasks, image by image; 'one task', the
same batch for one of them; 'separate', a batch for each task, one after the other; 'plain', MMPretrain's classifier
with one task's prompts and head. A ratio is the median of the rounds' ratios, of the time that passed and of the
processor's time in this process, which other programs on the machine disturb less. Weights are random.
"""
import argparse
import ctypes
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from mmengine.registry import init_default_scope
from mmpretrain.models import ImageClassifier, VisionTransformer
from mmpretrain.registry import MODELS
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from measure import alternate, machine, ratio, settings, write_json
from mmspt.packs.architecture import Architecture
from mmspt.packs.pack import Pack
from mmspt.packs.preprocessing import Preprocessing
from mmspt.serving.predictor import MultiTaskPredictor

OUTPUTS: dict[str, dict[str, Any]] = dict(
    mae=dict(out_type='avg_featmap', final_norm=False), mocov3=dict(out_type='cls_token'))
MIXED, ONE, SEPARATE, PLAIN = 'mixed', 'one task', 'separate', 'plain'
TOLERANCE = 1e-5  # of logits, relative to the largest, or to 1


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Time mixed batches, weigh further tasks',
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--arch', default='base', help="MMPretrain's name of the ViT")
    parser.add_argument('--img-size', type=int, default=224, help='pixels')
    parser.add_argument('--outputs', nargs='+', default=['mae', 'mocov3'], choices=list(OUTPUTS),
                        help='what feeds the head: the mean of all tokens (mae), or CLS (mocov3)')
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--prompts', type=int, default=20, help='of a task, in each block')
    parser.add_argument('--classes', type=int, default=200, help='of a task')
    parser.add_argument('--tasks', type=int, default=8, help='in the mixed batch')
    parser.add_argument('--packs', type=int, default=100, help='added to see what the process takes')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--calls', type=int, default=1, help='calls in one measurement')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--out', default='work_dirs/benchmarks/serve.json', help='for the numbers')
    return parser.parse_args()


def build(args: argparse.Namespace, outputs: str, **kwargs: Any) -> ImageClassifier:
    """Make a classifier; the weights are random, and the same for each call."""
    torch.manual_seed(0)
    backbone = dict(type='mmspt.PromptedViT', arch=args.arch, img_size=args.img_size, num_prompts=args.prompts,
                    allow_random_backbone=True, **OUTPUTS[outputs], **kwargs)
    width = VisionTransformer.arch_zoo[args.arch]['embed_dims']
    head = dict(type='LinearClsHead', num_classes=args.classes, in_channels=width)
    return MODELS.build(dict(type='ImageClassifier', backbone=backbone, head=head)).to(args.device).eval()


def make_packs(args: argparse.Namespace, model: ImageClassifier) -> Iterator[Pack]:
    """Tasks without end, tuned to nothing, on a model's backbone."""
    vit, mark = model.backbone, model.backbone.fingerprint()
    arch = Architecture.from_model(vit)
    preprocessing = Preprocessing((dict(type='Resize', scale=args.img_size), ), vit.img_size, None, None, True)
    random = torch.Generator().manual_seed(1)
    count = 0
    while True:
        yield Pack(
            task=f'task {count}', classes=tuple(f'class {i}' for i in range(args.classes)), backbone=arch,
            prompts=torch.randn(arch.prompts_shape or (), generator=random) if args.prompts else None,
            weight=torch.randn(args.classes, arch.embed_dims, generator=random) * 0.02,
            bias=torch.randn(args.classes, generator=random) * 0.02, fingerprint=mark, preprocessing=preprocessing)
        count += 1


def resident() -> int:
    """Bytes of main memory that the process holds, what the allocator kept for later given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open('/proc/self/statm', encoding='ascii') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def put(model: ImageClassifier, pack: Pack) -> None:
    """Give a classifier a task's prompts and head."""
    model.load_state_dict({**model.state_dict(), **pack.tensors()})


@torch.no_grad()
def largest_difference(model: ImageClassifier, packs: list[Pack], names: list[str], images: Tensor,
                       mixed: list[Tensor]) -> float:
    """Of a mixed batch's logits from those of a classifier that does one task at a time, see TOLERANCE."""
    differences = []
    for pack in packs:
        rows = [i for i, name in enumerate(names) if name == pack.task]
        put(model, pack)
        alone = model(images[rows])
        there = torch.stack([mixed[i] for i in rows])
        differences.append(float((alone - there).abs().max() / alone.abs().max().clamp(min=1.)))
    return max(differences)


def weigh(args: argparse.Namespace, model: ImageClassifier, progress: Progress) -> dict[str, float]:
    """Memory of a further task, and a pack's file, in bytes."""
    predictor, packs = MultiTaskPredictor(model), make_packs(args, model)
    pack = next(packs)
    with tempfile.TemporaryDirectory() as folder:
        pack.save(os.path.join(folder, 'pack.safetensors'))
        file = os.path.getsize(os.path.join(folder, 'pack.safetensors'))
    predictor.add(pack)
    before = resident()
    for _ in progress.track(range(args.packs), description=f'{args.packs} more packs'):
        predictor.add(next(packs))
    after = resident()
    held = predictor.tasks[pack.task].nbytes
    return dict(pack=pack.nbytes, pack_file=file, task=held, task_over_pack=held / pack.nbytes, packs=args.packs,
                process_per_task=(after - before) / args.packs,
                process_over_pack=(after - before) / args.packs / pack.nbytes)


def measure(args: argparse.Namespace, outputs: str, progress: Progress) -> dict[str, Any]:
    """Time, compare and weigh one kind of output."""
    device = torch.device(args.device)
    model = build(args, outputs)
    source = make_packs(args, model)
    packs = [next(source) for _ in range(args.tasks)]
    predictor = MultiTaskPredictor(model, packs)
    images = torch.randn(args.batch_size, 3, args.img_size, args.img_size, generator=torch.Generator().manual_seed(2))
    images = images.to(device)
    names = [packs[i % len(packs)].task for i in range(args.batch_size)]
    parts = [(pack.task, images[[i for i, name in enumerate(names) if name == pack.task]]) for pack in packs]
    put(model, packs[0])

    def separate() -> None:
        for task, part in parts:
            predictor.logits(part, task)

    def plain() -> None:
        with torch.inference_mode():
            model(images)

    variants: dict[str, Callable[[], Any]] = {
        MIXED: partial(predictor.logits, images, names), ONE: partial(predictor.logits, images, packs[0].task),
        SEPARATE: separate, PLAIN: plain}
    busy: dict[str, list[float]] = {name: [] for name in variants}

    def clocked(name: str) -> None:
        start = time.process_time()
        variants[name]()
        busy[name].append(time.process_time() - start)

    bar = progress.add_task(outputs, total=len(variants) * (args.rounds + 1))
    seconds = alternate({name: partial(clocked, name) for name in variants}, args.rounds, device, args.calls,
                        lambda name: progress.advance(bar))
    progress.remove_task(bar)
    cpu = {name: [sum(times[i:i + args.calls]) / args.calls for i in range(args.calls, len(times), args.calls)]
           for name, times in busy.items()}  # without the calls that warm up

    mixed = predictor.logits(images, names)
    differences = {'plain': largest_difference(model, packs, names, images, mixed),
                   'concatenation': largest_difference(build(args, outputs, concatenate=True), packs, names, images,
                                                       mixed)}
    if max(differences.values()) > TOLERANCE:
        raise RuntimeError(f'a mixed batch must give what each task gives alone, but they differ by {differences}: the '
                           'times mean nothing')
    return dict(
        outputs=outputs, seconds=seconds, median={name: statistics.median(times) for name, times in seconds.items()},
        cpu_seconds=cpu, ratios=ratios(seconds), cpu_ratios=ratios(cpu), difference=differences,
        memory=weigh(args, model, progress))


def ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """What the variants cost beside each other."""
    pairs = ((MIXED, ONE), (SEPARATE, MIXED), (ONE, PLAIN))
    return {f'{above} / {below}': ratio(seconds[above], seconds[below]) for above, below in pairs}


def show(cases: list[dict[str, Any]], console: Console) -> None:
    """Print the cases as a table."""
    table = Table()
    for heading in ('', *(case['outputs'] for case in cases)):
        table.add_column(heading, justify='right' if heading else 'left', no_wrap=True)
    rows = {f'{name}, ms': [f'{case["median"][name] * 1e3:,.0f}' for case in cases] for name in cases[0]['median']}
    for name in cases[0]['ratios']:
        rows[f'{name} (processor time)'] = [f'{case["ratios"][name]:.3f} ({case["cpu_ratios"][name]:.3f})'
                                            for case in cases]
    for name in ('task_over_pack', 'process_over_pack'):
        rows[f'memory of {name.replace("_over_", " / ")}'] = [f'{case["memory"][name]:.2f}' for case in cases]
    rows['file of a pack, KiB'] = [f'{case["memory"]["pack_file"] / 2**10:,.0f}' for case in cases]
    rows['difference of logits'] = [f'{max(case["difference"].values()):.1e}' for case in cases]
    for name, values in rows.items():
        table.add_row(name, *values)
    console.print(table)


def main() -> None:
    args = parse_args()
    init_default_scope('mmpretrain')
    console, cases = Console(), []
    with Progress(console=console, transient=True) as progress:
        for outputs in args.outputs:
            cases.append(measure(args, outputs, progress))
            write_json(dict(machine=machine(torch.device(args.device)), settings=settings(args), cases=cases), args.out)
    show(cases, console)
    console.print(f'written to {args.out}', soft_wrap=True)


if __name__ == '__main__':
    main()
