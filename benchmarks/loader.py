#!/usr/bin/env python
"""What loading costs: MMPretrain's pipeline, ours, and ours with decoded images in memory, by turns in one process.

    python benchmarks/loader.py --data-root data/flowers17 --checkpoint checkpoints/dinov2_vits14.safetensors

Images a second on one core for training and test, for three kinds of images (benchmarks/photographs.py); the parts of
that time; scaled decoding in a test; pixels beside Pillow's; images a second by workers; options of the data loader;
memory of workers; how long a ViT's training waits; and, with a checkpoint, how many photographs a linear probe gets
right by either reader.
"""
import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import Compose, pseudo_collate
from mmengine.logging import MMLogger
from mmpretrain.datasets import PackInputs, RandomResizedCrop
from mmpretrain.registry import MODELS
from rich.console import Console
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader

import mmspt.datasets
from measure import alternate, arguments, ratio, record, show_table
from mmspt.prompts.threads import num_cores
from mmspt.quickstart.encoder import backbone_of
from networks import build_runner, classifier_config, step
from photographs import VARIANTS, Photographs, find, load, pipelines, write

CPU = torch.device('cpu')
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
PARTS = ('core', 'parts', 'scaled', 'workers', 'options', 'memory', 'waiting', 'accuracy')
ONE_CORE = PARTS[:3]


def parse_args() -> argparse.Namespace:
    parser = arguments('Measure what loading images costs', 'loader')
    parser.add_argument('--data-root', help="folder of JPEGs; scikit-learn's two by default")
    parser.add_argument('--checkpoint', help='encoder of the linear probe, which is left out without one')
    parser.add_argument('--only', nargs='+', choices=PARTS, default=PARTS, help='parts to measure')
    parser.add_argument('--probe-size', type=int, default=112, help='pixels that the probe reads')
    parser.add_argument('--tested', type=int, default=1000, help='photographs that the probe is tested on')
    parser.add_argument('--images', type=int, default=256, help='of each kind')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--workers', type=int, nargs='+', default=[1, 2, 4, 8])
    parser.add_argument('--epoch', type=int, default=2048, help='images of an epoch read by workers')
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--steps', type=int, default=8, help='of the training, with the batch of --batch-size')
    parser.set_defaults(device='cpu')
    args = parser.parse_args()
    if args.only == ['accuracy'] and not args.checkpoint:
        parser.error('--only accuracy needs --checkpoint')
    return args


def exhaust(items: Any) -> None:
    """Run through an iterable."""
    deque(items, maxlen=0)


def load_all(paths: Sequence[str], pipeline: Compose) -> None:
    """Load images once."""
    exhaust(load(paths, pipeline))


def speeds(seconds: dict[str, list[float]], images: int) -> dict[str, Any]:
    """Return images a second, and how many times MMPretrain's."""
    return {name: dict(images_per_second=images / statistics.median(times), seconds=times,
                       over_mmpretrain=ratio(seconds['MMPretrain'], times)) for name, times in seconds.items()}


def measure_core(args: argparse.Namespace, kinds: dict[str, list[str]], cache: str) -> list[dict[str, Any]]:
    """One thread in this process: time, and pixels beside MMPretrain's."""
    rows = []
    for kind, paths in kinds.items():
        for phase in ('train', 'test'):
            variants = pipelines(phase, args.img_size, cache)
            seconds = alternate({name: partial(load_all, paths, pipeline) for name, pipeline in variants.items()},
                                args.rounds, CPU, title=f'{kind}, {phase}')
            made = [[item['inputs'] for item in load(paths, variants[name])] for name in ('MMPretrain', 'ours')]
            differences = [(a.int() - b.int()).abs() for a, b in zip(*made, strict=True)]
            rows.append(dict(
                kind=kind, phase=phase, bytes=statistics.mean(map(os.path.getsize, paths)),
                largest_difference=max(int(d.max()) for d in differences),
                mean_difference=statistics.mean(float(d.float().mean()) for d in differences),
                variants=speeds(seconds, len(paths))))
    return rows


def measure_parts(args: argparse.Namespace, paths: Sequence[str]) -> dict[str, float]:
    """Milliseconds an image of the steps of training on one thread."""
    files = [np.fromfile(path, np.uint8) for path in paths]
    images = [np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR)) for file in files]
    options = dict(scale=args.img_size, interpolation='bicubic')
    crops = {name: kind(**options, backend=backend) for name, kind, backend in (
        ('crop and resize, Pillow', RandomResizedCrop, 'pillow'),
        ('crop and resize, torch', mmspt.datasets.RandomResizedCrop, 'torch'))}
    views = [image[:args.img_size, :args.img_size][:, ::1 - 2 * (i % 2)].copy()[:, ::1 - 2 * (i % 2)]
             for i, image in enumerate(images)]  # every other is a flipped view, as RandomFlip makes it

    def crop(transform: Callable) -> None:
        np.random.seed(0)
        for image in images:
            transform(dict(img=image))

    def pack(transform: Callable) -> None:
        for view in views:
            transform(dict(img=view, gt_label=0))

    readers = dict(MMCV=LoadImageFromFile(), ours=mmspt.datasets.LoadImageFromFile())
    work: dict[str, Callable[[], Any]] = {
        f'read and decode, {name}': partial(lambda reader: [reader(dict(img_path=path)) for path in paths], reader)
        for name, reader in readers.items()}
    work['decode'] = lambda: [cv2.imdecode(file, cv2.IMREAD_COLOR) for file in files]
    work |= {name: partial(crop, transform) for name, transform in crops.items()}
    work |= {'pack, MMPretrain': partial(pack, PackInputs()), 'pack, ours': partial(pack, mmspt.datasets.PackInputs())}
    seconds = alternate(work, args.rounds, CPU, title='parts')
    return {name: 1000 * statistics.median(times) / len(paths) for name, times in seconds.items()}


def make_loader(args: argparse.Namespace, paths: Sequence[str], pipeline: Compose, workers: int,
                **options: Any) -> DataLoader:
    """As MMPretrain's tools build it, with persistent workers unless ``options`` say otherwise."""
    return DataLoader(Photographs(paths, pipeline, args.epoch), args.batch_size, shuffle=True, num_workers=workers,
                      collate_fn=pseudo_collate, **dict(persistent_workers=True) | options)


def measure_workers(args: argparse.Namespace, paths: Sequence[str], cache: str) -> list[dict[str, Any]]:
    """Images a second that workers hand over, all cores together; their start is not in it."""
    rows = []
    for workers in args.workers:
        loaders = {name: make_loader(args, paths, pipeline, workers)
                   for name, pipeline in pipelines('train', args.img_size, cache).items()}
        seconds = alternate({name: partial(exhaust, loader) for name, loader in loaders.items()}, args.rounds, CPU,
                            title=f'{workers} workers')
        rows.append(dict(workers=workers, variants=speeds(seconds, args.epoch)))
        del loaders
    return rows


def measure_options(args: argparse.Namespace, paths: Sequence[str], cache: str) -> dict[str, Any]:
    """Seconds of an epoch by options of the loader, with as many workers as cores and cached images."""
    pipeline = pipelines('train', args.img_size, cache)['ours, cached']
    options: dict[str, dict[str, Any]] = {
        'persistent workers': {}, 'workers started anew': dict(persistent_workers=False),
        **{f'prefetch_factor={factor}': dict(prefetch_factor=factor) for factor in (1, 4, 8)}}
    loaders = {name: make_loader(args, paths, pipeline, num_cores(), **option) for name, option in options.items()}
    seconds = alternate({name: partial(exhaust, loader) for name, loader in loaders.items()}, args.rounds, CPU,
                        title='options')
    first = seconds['persistent workers']
    return {name: dict(seconds=times, over_persistent=ratio(times, first)) for name, times in seconds.items()}


def measure_memory(args: argparse.Namespace, paths: Sequence[str], cache: str) -> dict[str, Any]:
    """Bytes of main memory that eight workers hold after an epoch: their share of all (PSS), and their own (USS)."""
    found: dict[str, Any] = {}
    for name, pipeline in pipelines('train', args.img_size, cache).items():
        loader = make_loader(args, paths, pipeline, 8)
        exhaust(loader)
        found[name] = dict(pss=0, uss=0)
        for worker in loader._iterator._workers:  # type: ignore[union-attr]
            with open(f'/proc/{worker.pid}/smaps_rollup', encoding='ascii') as file:
                sizes = {line.split(':')[0]: 1024 * int(line.split()[1]) for line in file if line.endswith('kB\n')}
            found[name]['pss'] += sizes['Pss']
            found[name]['uss'] += sizes['Private_Clean'] + sizes['Private_Dirty']
        del loader
    return dict(workers=found, cache=sum(entry.stat().st_size for entry in os.scandir(os.path.join(cache, 'memory'))),
                cached_over_ours=found['ours, cached']['pss'] / found['ours']['pss'])


def measure_waiting(args: argparse.Namespace, paths: Sequence[str], cache: str, folder: str) -> dict[str, Any]:
    """Share of the time that a training with 20 prompts waits for data, with as many workers as cores.

    The first steps, whose batches the workers fetched ahead during the very first one, do not count.
    """
    ahead = 2 * num_cores()  # DataLoader's prefetch_factor for each worker
    args = argparse.Namespace(**{**vars(args), 'epoch': (1 + ahead + args.steps) * args.batch_size})
    model = classifier_config(args, 'mae', num_prompts=20, allow_random_backbone=True)
    found = {}
    for name, pipeline in pipelines('train', args.img_size, cache).items():
        runner = build_runner(model, [], args.batch_size, os.path.join(folder, name))
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        waited, times, before = 0., 0., 0.
        for i, batch in enumerate(make_loader(args, paths, pipeline, num_cores(), persistent_workers=False)):
            arrived = time.perf_counter()
            step(runner, batch)
            done = time.perf_counter()
            if i > ahead:
                waited, times = waited + arrived - before, times + done - before
            before = done
        found[name] = dict(share=waited / times, seconds_per_step=times / args.steps)
    return dict(batch_size=args.batch_size, workers=num_cores(), fetched_ahead=ahead, variants=found)


@torch.no_grad()
def read_features(network: Any, paths: Sequence[str], pipeline: Compose) -> np.ndarray:
    """Return what a head would read of images, (N, D)."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    images = [item['inputs'].flip(0) for item in load(paths, pipeline)]  # RGB
    return torch.cat([network((torch.stack(images[i:i + 32]).float() - mean) / std)[-1]
                      for i in range(0, len(images), 32)]).numpy()


def read_scaled(pipeline: Compose) -> Compose:
    """Return a test pipeline that decodes only as large as its resizing needs."""
    resize = pipeline.transforms[1]
    return Compose([mmspt.datasets.LoadImageFromFile(min_edge=resize.scale), *pipeline.transforms[1:]])


def measure_scaled(args: argparse.Namespace, kinds: dict[str, list[str]], cache: str) -> list[dict[str, Any]]:
    """One thread, test, at the probe's size: whole and scaled decoding, and pixels of one beside the other's."""
    whole = pipelines('test', args.probe_size, cache)['ours']
    variants = dict(whole=whole, scaled=read_scaled(whole))
    rows = []
    for kind, paths in kinds.items():
        seconds = alternate({name: partial(load_all, paths, pipeline) for name, pipeline in variants.items()},
                            args.rounds, CPU, title=f'{kind}, scaled')
        made = [[item['inputs'].int() for item in load(paths, pipeline)] for pipeline in variants.values()]
        differences = [(a - b).abs().float() for a, b in zip(*made, strict=True)]
        rows.append(dict(
            kind=kind, size=args.probe_size, min_edge=whole.transforms[1].scale, seconds=seconds,
            images_per_second={name: len(paths) / statistics.median(times) for name, times in seconds.items()},
            over_whole=ratio(seconds['whole'], seconds['scaled']),
            mean_difference=statistics.mean(float(d.mean()) for d in differences),
            largest_difference=max(int(d.max()) for d in differences)))
    return rows


def measure_accuracy(args: argparse.Namespace, paths: Sequence[str], cache: str) -> dict[str, Any]:
    """Train a linear probe on features by either reader, and test it on features by the same; folders are classes.

    Both readers give the same crops of the photographs that are not tested, three of each. Scaled decoding is tested
    with the head of 'ours': crops of these photographs are too small for it in training.
    """
    network = MODELS.build(dict(type='mmspt.PromptedViT', num_prompts=0, img_size=args.probe_size, init_cfg=dict(
        type='Pretrained', checkpoint=args.checkpoint), **backbone_of(args.checkpoint)[0]))
    network.init_weights()
    network.eval()
    order = np.random.default_rng(0).permutation(len(paths))
    labels = np.array([os.path.basename(os.path.dirname(path)) for path in paths])
    tested, trained = order[:args.tested], np.repeat(order[args.tested:], 3)
    answers = {}
    phases = {phase: pipelines(phase, args.probe_size, cache) for phase in ('train', 'test')}
    for name in VARIANTS[:2]:
        features = {phase: read_features(network, [paths[i] for i in chosen], phases[phase][name])
                    for phase, chosen in (('train', trained), ('test', tested))}
        head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
        answers[name] = head.fit(features['train'], labels[trained]).predict(features['test'])
    scaled = read_features(network, [paths[i] for i in tested], read_scaled(phases['test']['ours']))
    answers['ours, scaled'] = head.predict(scaled)  # the last head is ours
    return dict(accuracy={name: float((answer == labels[tested]).mean()) for name, answer in answers.items()},
                tested=len(tested), trained=len(trained),
                other_answers=int((answers['ours'] != answers['MMPretrain']).sum()),
                other_answers_scaled=int((answers['ours'] != answers['ours, scaled']).sum()))


def measure(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Measure everything; images and cache lie in folders that are removed."""
    threads = torch.get_num_threads()
    cv2.setNumThreads(0)  # as MMEngine's recipes and workers have it
    paths = find(args.data_root)
    kinds = write(paths, args.images, folder)
    cache = tempfile.mkdtemp(dir='/dev/shm' if os.path.isdir('/dev/shm') else folder)
    user = mmspt.datasets.LoadImageFromFile(cache='memory', cache_folder=cache)  # while it is there, the cache stays
    try:
        large = kinds['enlarged']
        work: dict[str, Callable[[], Any]] = dict(
            core=lambda: measure_core(args, kinds, cache),
            parts=lambda: {kind: measure_parts(args, kinds[kind]) for kind in kinds},
            scaled=lambda: measure_scaled(args, kinds, cache), workers=lambda: measure_workers(args, large, cache),
            options=lambda: measure_options(args, large, cache), memory=lambda: measure_memory(args, large, cache),
            waiting=lambda: measure_waiting(args, large, cache, folder))
        if args.checkpoint:
            work['accuracy'] = lambda: measure_accuracy(args, paths, cache)
        content = {}
        for part in (part for part in work if part in args.only):
            torch.set_num_threads(1 if part in ONE_CORE else threads)
            content[part] = work[part]()
        return content
    finally:
        del user
        shutil.rmtree(cache, ignore_errors=True)


def show(content: dict[str, Any], console: Console) -> None:
    """Print the tables."""
    def cells(variants: dict[str, Any]) -> list[str]:
        return [f'{row["images_per_second"]:.0f}, {row["over_mmpretrain"]:.2f}' for row in variants.values()]

    if core := content.get('core'):
        show_table(console, ['one core', *VARIANTS, 'difference'], [
            [f'{row["kind"]}, {row["phase"]}', *cells(row['variants']),
             f'{row["mean_difference"]:.4f}, {row["largest_difference"]}'] for row in core],
            'images a second, and times MMPretrain; difference of pixels: mean, largest of 255')
    if parts := content.get('parts'):
        show_table(console, ['ms an image', *parts], [
            [name, *(f'{row[name]:.3f}' for row in parts.values())] for name in parts['enlarged']])
    if scaled := content.get('scaled'):
        show_table(console, ['images a second, test', 'whole', 'scaled', 'times', 'difference'], [
            [f'{row["kind"]}, {row["size"]} px', *(f'{speed:.0f}' for speed in row['images_per_second'].values()),
             f'{row["over_whole"]:.2f}', f'{row["mean_difference"]:.2f}, {row["largest_difference"]}']
            for row in scaled])
    if workers := content.get('workers'):
        show_table(console, ['workers', *VARIANTS], [[str(row['workers']), *cells(row['variants'])] for row in workers])
    for name, row in content.get('options', {}).items():
        console.print(f'{name}: {row["over_persistent"]:.3f} of the time')
    for name, row in content.get('memory', {}).get('workers', {}).items():
        console.print(f'8 workers, {name}: PSS {row["pss"] / 2**20:.0f} MiB, USS {row["uss"] / 2**20:.0f} MiB')
    for name, row in content.get('waiting', {}).get('variants', {}).items():
        console.print(f'waiting, {name}: {row["share"]:.2%} of {row["seconds_per_step"]:.2f} s a step')
    for name, accuracy in content.get('accuracy', {}).get('accuracy', {}).items():
        console.print(f'probe, {name}: {accuracy:.2%}')


if __name__ == '__main__':
    MMLogger.get_current_instance().setLevel('WARNING')  # weights that are loaded are no news
    record(parse_args(), measure, show)
