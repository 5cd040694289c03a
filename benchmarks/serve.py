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
import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
from typing import Any

import torch
from mmpretrain.models import ImageClassifier
from rich.console import Console
from rich.progress import track
from torch import Tensor

from measure import alternate, arguments, ratio, record, resident, show_table
from mmspt.packs.architecture import Architecture
from mmspt.packs.pack import Pack
from mmspt.packs.preprocessing import Preprocessing
from mmspt.serving.predictor import MultiTaskPredictor
from networks import CLASSES, OUTPUTS, build_classifier

MIXED, ONE, SEPARATE, PLAIN = 'mixed', 'one task', 'separate', 'plain'
TOLERANCE = 1e-5  # of logits, relative to the largest, or to 1


def parse_args() -> argparse.Namespace:
    parser = arguments('Time mixed batches, weigh further tasks', 'serve')
    parser.add_argument('--outputs', nargs='+', default=['mae', 'mocov3'], choices=list(OUTPUTS),
                        help='what feeds the head: the mean of all tokens (mae), or CLS (mocov3)')
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--prompts', type=int, default=20, help='of a task, in each block')
    parser.add_argument('--classes', type=int, default=CLASSES, help='of a task')
    parser.add_argument('--tasks', type=int, default=8, help='in the mixed batch')
    parser.add_argument('--packs', type=int, default=100, help='added to see what the process takes')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--calls', type=int, default=1, help='calls in one measurement')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    return parser.parse_args()


def build(args: argparse.Namespace, outputs: str, **kwargs: Any) -> ImageClassifier:
    """Build a classifier in eval mode."""
    return build_classifier(args, outputs, num_classes=args.classes, num_prompts=args.prompts,
                            allow_random_backbone=True, **kwargs).eval()


def make_packs(args: argparse.Namespace, model: ImageClassifier) -> Iterator[Pack]:
    """Yield random tasks without end, on a model's backbone."""
    vit, mark = model.backbone, model.backbone.fingerprint()
    arch = Architecture.from_model(vit)
    preprocessing = Preprocessing(vit.img_size, resize=vit.img_size, to_rgb=True)
    random = torch.Generator().manual_seed(1)
    for number in count():
        yield Pack(
            task=f'task {number}', classes=tuple(f'class {i}' for i in range(args.classes)), backbone=arch,
            prompts=torch.randn(arch.prompts_shape or (), generator=random) if args.prompts else None,
            weight=torch.randn(args.classes, arch.embed_dims, generator=random) * 0.02,
            bias=torch.randn(args.classes, generator=random) * 0.02, fingerprint=mark, preprocessing=preprocessing)


def put(model: ImageClassifier, pack: Pack) -> None:
    """Give a classifier a task's prompts and head."""
    model.load_state_dict(pack.tuned_weights(), strict=False)


@torch.no_grad()
def largest_difference(model: ImageClassifier, packs: list[Pack], names: list[str], images: Tensor,
                       mixed: list[Tensor]) -> float:
    """Return the largest difference of a mixed batch's logits from the logits of one task at a time, see TOLERANCE."""
    differences = []
    for pack in packs:
        rows = [i for i, name in enumerate(names) if name == pack.task]
        put(model, pack)
        alone = model(images[rows])
        there = torch.stack([mixed[i] for i in rows])
        differences.append(float((alone - there).abs().max() / alone.abs().max().clamp(min=1.)))
    return max(differences)


def weigh(args: argparse.Namespace, model: ImageClassifier, folder: str) -> dict[str, float]:
    """Return the memory of a further task, and the size of a pack's file, in bytes."""
    predictor, packs = MultiTaskPredictor(model), make_packs(args, model)
    pack = next(packs)
    path = os.path.join(folder, 'pack.safetensors')
    pack.save(path)
    predictor.add(pack)
    before = resident()
    for _ in track(range(args.packs), f'{args.packs} more packs', transient=True):
        predictor.add(next(packs))
    after = resident()
    held = predictor.tasks[pack.task].nbytes
    return dict(pack=pack.nbytes, pack_file=os.path.getsize(path), task=held, task_over_pack=held / pack.nbytes,
                packs=args.packs, process_per_task=(after - before) / args.packs,
                process_over_pack=(after - before) / args.packs / pack.nbytes)


def measure_outputs(args: argparse.Namespace, outputs: str, folder: str) -> dict[str, Any]:
    """Time, compare and weigh one kind of output."""
    device = torch.device(args.device)
    model = build(args, outputs)
    packs = list(islice(make_packs(args, model), args.tasks))
    predictor = MultiTaskPredictor(model, packs)
    images = torch.randn(args.batch_size, 3, args.img_size, args.img_size,
                         generator=torch.Generator().manual_seed(2)).to(device)
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

    seconds = alternate({name: partial(clocked, name) for name in variants}, args.rounds, device, args.calls, outputs)
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
        memory=weigh(args, model, folder))


def ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """What the variants cost beside each other."""
    pairs = ((MIXED, ONE), (SEPARATE, MIXED), (ONE, PLAIN))
    return {f'{above} / {below}': ratio(seconds[above], seconds[below]) for above, below in pairs}


def measure(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Measure all kinds of output."""
    return dict(cases=[measure_outputs(args, outputs, folder) for outputs in args.outputs])


def show(content: dict[str, Any], console: Console) -> None:
    """Print the cases as a table."""
    cases = content['cases']
    rows = {f'{name}, ms': [f'{case["median"][name] * 1e3:,.0f}' for case in cases] for name in cases[0]['median']}
    for name in cases[0]['ratios']:
        rows[f'{name} (processor time)'] = [f'{case["ratios"][name]:.3f} ({case["cpu_ratios"][name]:.3f})'
                                            for case in cases]
    for name in ('task_over_pack', 'process_over_pack'):
        rows[f'memory of {name.replace("_over_", " / ")}'] = [f'{case["memory"][name]:.2f}' for case in cases]
    rows['file of a pack, KiB'] = [f'{case["memory"]["pack_file"] / 2**10:,.0f}' for case in cases]
    rows['difference of logits'] = [f'{max(case["difference"].values()):.1e}' for case in cases]
    show_table(console, ('', *(case['outputs'] for case in cases)), [(name, *found) for name, found in rows.items()])


if __name__ == '__main__':
    record(parse_args(), measure, show)
