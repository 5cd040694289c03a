#!/usr/bin/env python
"""What a GPU does, within minutes, without a network: its tests, steps, K-means, and training fed by the loader.

    make gpu                                        # one JSON, one Markdown page, one picture
    python benchmarks/gpu.py --parts steps loader --minutes 5
    CUDA_VISIBLE_DEVICES= python benchmarks/gpu.py --small --device cpu      # without a GPU: does it run at all?

Weights are random, photographs are made (benchmarks/made_photographs.py); ViT-B/16, 224 pixels, bf16. The parts:

* tests: those marked `gpu`; on a CPU one of those that have a twin there.
* steps: benchmarks/step.py in each batch size, and then compiled: milliseconds by turns, and peak memory.
* kmeans: benchmarks/prototypes.py, 12 layers, with each backend: waiting for images, forward pass, clustering. With
  flash-kmeans twice, since it compiles at first.
* loader: epochs of MMEngine's runner with 20 prompts: images a second and the share of time spent waiting for data,
  beside steps on one batch in memory ('alone'). With a cache, the first epoch fills it.

What fails is a row with its error. No case begins after --minutes; what was left out is named. The files are written
after every case.
"""
import argparse
import json
import os
import os.path as osp
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from mmpretrain.models import VisionTransformer
from rich.console import Console

import prototypes
import step
from made_photographs import write_photographs
from measure import ROOT, alternate, first_line, free, machine, markdown_table, settings, show_table
from mmspt.engine.start import prepare_process
from mmspt.files import write_text
from mmspt.models import PromptedViT
from networks import build_runner, classifier_config, random_images, train_pipeline
from networks import step as train_on
from plot import draw_gpu

PARTS = ('tests', 'steps', 'kmeans', 'loader')
SIZES: dict[str, dict[str, Any]] = dict(  # sizes of the work, with a GPU and without
    full=dict(arch='base', img_size=224, prompts=('20', '100'), batches=(128, 32, 512), step_images=1024, rounds=7,
              compile='inductor', images=5994, photograph=(500, 666), fed=(128, 32), workers=(4, 8, 16),
              backends=('torch', 'flash', 'sklearn'), tests=('-m', 'gpu')),
    small=dict(arch='toy', img_size=32, prompts=('2', ), batches=(2, ), step_images=2, rounds=2,
               compile='eager', images=6, photograph=(40, 60), fed=(2, ), workers=(1, ),
               backends=('torch', 'flash'), tests=('-k', 'captured or (kept_values and not slow)')))
TOY = dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64)
Row = dict[str, Any]
Case = tuple[str, str, Callable[[], list[Row]]]
"""Its part, its name, and what measures its rows."""
Table = tuple[str, list[str], list[list[str]], list[str]]
"""Part, header, rows, and what failed."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Measure a GPU')
    parser.add_argument('--parts', nargs='+', default=list(PARTS), choices=PARTS)
    parser.add_argument('--minutes', type=float, default=10., help='no case begins after them (%(default)g)')
    parser.add_argument('--small', action='store_true', help='a tiny network and a few images')
    parser.add_argument('--device', default='cuda', choices=['cuda', 'cpu'])
    parser.add_argument('--out', help='for the numbers, page and picture lie beside; by default '
                                      'benchmarks/results/gpu_DEVICE.json, or work_dirs/benchmarks/gpu_small.json')
    args = parser.parse_args()
    if (args.device == 'cuda') != torch.cuda.is_available():
        parser.error('--device cuda needs a GPU: try --small --device cpu' if args.device == 'cuda' else
                     'MMEngine takes the GPU that is here: set CUDA_VISIBLE_DEVICES= for --device cpu')
    if args.out is None:
        name = torch.cuda.get_device_name() if args.device == 'cuda' else 'cpu'
        args.out = 'work_dirs/benchmarks/gpu_small.json' if args.small else osp.join(
            ROOT, 'benchmarks', 'results', f'gpu_{"_".join(name.lower().split())}.json')
    return args


class Bench:
    """The cases, and what they share.

    Args:
        args (argparse.Namespace): The command line.
        folder (str): For photographs and work directories.
    """

    def __init__(self, args: argparse.Namespace, folder: str) -> None:
        self.args, self.folder = args, folder
        self.patience = max(60., 20 * args.minutes)  # seconds: a third of the time
        self.sizes: dict[str, Any] = SIZES['small' if args.small else 'full']
        self.device = torch.device(args.device)
        self.network = ['--arch', self.sizes['arch'], '--img-size', str(self.sizes['img_size'])]
        self.about_photographs: dict[str, Any] = {}
        self.eager: dict[tuple[int, str], float] = {}  # batch and variant -> seconds of a step

    @cached_property
    def photographs(self) -> str:
        """Folder of the JPEGs, which are made when they are first asked for."""
        folder, start = osp.join(self.folder, 'photographs'), time.perf_counter()
        os.makedirs(folder, exist_ok=True)
        written = write_photographs(folder, self.sizes['images'], *self.sizes['photograph'])
        self.about_photographs.update(images=self.sizes['images'], size=self.sizes['photograph'],
                                      mean_bytes=written / self.sizes['images'], seconds=time.perf_counter() - start)
        return folder

    def cases(self) -> Iterator[Case]:
        """Yield all cases; the longest last."""
        yield 'tests', 'pytest', self.tests
        steps = [('steps', f'batch {batch}{", compiled" if compiled else ""}', partial(self.steps, batch, compiled))
                 for compiled, batch in product((False, True), self.sizes['batches'])]
        yield from steps[:len(steps) // 2]
        for backend, count in product(self.sizes['backends'], self.sizes['prompts']):
            yield 'kmeans', f'{backend}, {count}', partial(self.kmeans, backend, count)
        for batch in self.sizes['fed']:
            alone: list[float] = []  # images a second
            yield 'loader', f'batch {batch}, alone', partial(self.alone, batch, alone)
            gpu = self.device.type == 'cuda'
            ways = [(*way, gpu) for way in product(self.sizes['workers'], (None, 'memory'))]
            for workers, cache, pinned in ways + [(max(self.sizes['workers']), 'memory', False)] * gpu:
                yield ('loader', f'batch {batch}, {workers} workers, cache {cache}{", pinned" if pinned else ""}',
                       partial(self.fed, batch, workers, cache, pinned, alone))
        yield from steps[len(steps) // 2:]

    def tests(self) -> list[Row]:
        """Run the tests that know of devices; a row for each."""
        report, log = osp.join(self.folder, 'tests.xml'), Path(self.folder, 'tests.log')
        files = [str(path) for path in sorted(Path(ROOT, 'tests').rglob('test_*.py'))
                 if 'from devices import' in path.read_text(encoding='utf-8')]
        path = os.pathsep.join(filter(None, (ROOT, os.environ.get('PYTHONPATH'))))
        command = [sys.executable, '-m', 'pytest', '-v', '-p', 'no:cacheprovider', '--junitxml', report]
        end = f'had no end within {self.patience:.0f} s'
        with suppress(subprocess.TimeoutExpired), open(log, 'w', encoding='utf-8') as file:
            subprocess.run([*command, *self.sizes['tests'], *files], cwd=ROOT, env=os.environ | dict(PYTHONPATH=path),
                           stdout=file, stderr=subprocess.STDOUT, check=False, timeout=self.patience)
            end = 'ended early'
        if not osp.exists(report):
            raise RuntimeError(f'pytest {end}, after: {log.read_text(encoding="utf-8").strip().splitlines()[-1]}')
        rows = []
        for case in ET.parse(report).iter('testcase'):
            outcome = next((child for child in case if child.tag in ('failure', 'error', 'skipped')), None)
            row: Row = dict(test=f'{case.get("classname")}::{case.get("name")}',
                            outcome='passed' if outcome is None else outcome.tag,
                            seconds=float(case.get('time', '0')))
            if outcome is not None:
                row['message'] = (outcome.get('message') or '').partition('\n')[0]
            rows.append(row)
        return rows

    def steps(self, batch: int, compiled: bool) -> list[Row]:
        """Time steps by turns; a row for each variant."""
        sizes = self.sizes
        case, = step.measure_cases(step.parse_args([
            *self.network, '--device', self.args.device, '--batch-size', str(batch), '--prompts', *sizes['prompts'],
            '--types', 'deep', '--references', step.NONE, step.FULL, '--dtypes', 'bfloat16',
            '--rounds', str(sizes['rounds']), '--calls', str(max(1, sizes['step_images'] // batch)),
            *(['--compile', sizes['compile']] if compiled else [])]), 'mae', 'step')
        torch._dynamo.reset()
        rows = [dict(batch_size=batch, compiled=compiled, variant=name) | row
                for name, row in case['variants'].items()]
        for row in rows:
            key = batch, row['variant']
            if 'median' in row and not compiled:
                self.eager[key] = row['median']
            elif 'median' in row and key in self.eager:
                row['over_eager'] = row['median'] / self.eager[key]
        try:
            step.check(case)
        except RuntimeError as error:  # the times stay, with this beside them
            rows.append(dict(case=f'batch {batch}{", compiled" if compiled else ""}', error=first_line(error)))
        return rows

    def kmeans(self, backend: str, count: str) -> list[Row]:
        """Time the initialization of so many prompts; twice with flash-kmeans, which compiles at first."""
        sizes = self.sizes
        found = prototypes.measure(prototypes.parse_args([
            *self.network, '--data-root', self.photographs, '--ann-file', 'train.txt', '--sizes', str(sizes['images']),
            '--prompts', *[count] * (2 if backend == 'flash' else 1), '--inits', 'kmeans', '--backend', backend,
            '--batch-size', str(max(sizes['fed'])), '--num-workers', str(max(sizes['workers'])), '--amp'
        ]), tempfile.mkdtemp(dir=self.folder))
        return [dict(backend=backend, **row) for row in found['rows']]

    def runner(self, batch: int, images: Any, **kwargs: Any) -> Any:
        """Build a runner of a network with prompts in bf16."""
        model = classifier_config(argparse.Namespace(**self.sizes), 'mae', allow_random_backbone=True,
                                  num_prompts=int(self.sizes['prompts'][0]))
        return build_runner(model, images, batch, tempfile.mkdtemp(dir=self.folder), optim_wrapper=dict(
            type='mmspt.AmpOptimWrapper', dtype='bfloat16', optimizer=dict(type='AdamW', lr=1e-4)), **kwargs)

    def alone(self, batch: int, rates: list[float]) -> list[Row]:
        """Time steps on one batch in memory; keep images a second, of each round, in ``rates``."""
        images = random_images(batch, self.sizes['img_size'])
        runner = self.runner(batch, images)
        runner.train()  # no iteration, but what builds the optimizer
        data = pseudo_collate(images)
        calls = max(1, self.sizes['step_images'] // batch)
        seconds = alternate({'step': lambda: train_on(runner, data)}, self.sizes['rounds'], self.device, calls)['step']
        rates += [batch / value for value in seconds]
        return [dict(batch_size=batch, workers=None, cache=None, seconds=seconds,
                     images_per_second=statistics.median(rates))]

    def fed(self, batch: int, workers: int, cache: str | None, pinned: bool, alone: list[float]) -> list[Row]:
        """Train two epochs on photographs."""
        row: Row = dict(batch_size=batch, workers=workers, cache=cache, pin_memory=pinned)
        loading = dict(cache=cache) if cache else {}
        dataset = dict(type='CustomDataset', data_root=self.photographs, ann_file='train.txt',
                       pipeline=train_pipeline(self.sizes['img_size'], **loading))
        runner = self.runner(
            batch, dataset, train_cfg=dict(by_epoch=True, max_epochs=2),
            loader=dict(num_workers=workers, persistent_workers=True, pin_memory=pinned))
        runner.train()
        if cache:
            loader = runner.train_dataloader.dataset.pipeline.transforms[0]
            row['cache_state'] = 'refused' if loader.cache is None else 'full' if loader.cache.full else 'used'
        runner.train_dataloader._iterator = None  # ends its workers, for which the garbage collector would wait
        iterations = len(runner.train_dataloader)
        times, waits = (runner.message_hub.get_scalar(f'train/{key}').data[0] for key in ('time', 'data_time'))
        epochs = [slice(start, start + iterations) for start in (0, iterations)]
        row['epochs'] = [dict(seconds=float(times[epoch].sum()), waiting=float(waits[epoch].sum() / times[epoch].sum()),
                              images_per_second=self.sizes['images'] / float(times[epoch].sum())) for epoch in epochs]
        if alone:
            row['over_alone'] = row['epochs'][-1]['images_per_second'] / statistics.median(alone)
        return [row]


def tables(content: dict[str, Any]) -> Iterator[Table]:
    """Yield a table for each part that has rows."""
    for part, rows in content['parts'].items():
        header, name, cells = TABLES[part]
        yield (part, header, [[name(row), *cells(row)] for row in rows if 'error' not in row],
               [f'{row.get("case") or name(row)}: {row["error"]}' for row in rows if 'error' in row])


def mib(row: Row) -> str:
    return '?' if row['peak_bytes'] is None else f'{row["peak_bytes"] / 2**20:,.0f}'


def fed_cells(row: Row) -> list[str]:
    if row['workers'] is None:
        return ['', f'{row["images_per_second"]:,.0f}', '', '', '']
    rates, waiting = ([epoch[key] for epoch in row['epochs']] for key in ('images_per_second', 'waiting'))
    return [*(f'{rate:,.0f}' for rate in rates), f'{row["over_alone"]:.3f}' if 'over_alone' in row else '',
            *(f'{share:.1%}' for share in waiting)]


def cache_cell(row: Row) -> str:
    state = row.get('cache_state', 'used')
    return (f'{row["cache"] or "none"}{"" if state == "used" else f" ({state})"}'
            f'{", pinned" if row["pin_memory"] else ""}')


OVER = ('over_none', 'over_keys_values', 'over_eager')
TABLES: dict[str, tuple[list[str], Callable[[Row], str], Callable[[Row], list[str]]]] = dict(
    tests=(['test', 'outcome', 's'], lambda row: ': '.join(filter(None, (row['test'], row.get('message')))),
           lambda row: [row['outcome'], f'{row["seconds"]:.1f}']),
    steps=(['batch, variant', 'ms', 'images/s', '/ no prompts', '/ keys and values', '/ eager', 'peak MiB'],
           lambda row: f'{row["batch_size"]}{", compiled" if row["compiled"] else ""}, {row["variant"]}',
           lambda row: [f'{row["median"] * 1e3:.1f}', f'{row["batch_size"] / row["median"]:,.0f}',
                        *(f'{row[key]:.3f}' if key in row else '' for key in OVER), mib(row)]),
    kmeans=(['backend, prompts', 's', *prototypes.STAGES, 'forward alone', 'main memory, MiB'],
            lambda row: f'{row["backend"]}, {row["prompts"]}',
            lambda row: [*(f'{value:.2f}' for value in (row['seconds'], *row['parts'].values(), row['forward'])),
                         mib(row)]),
    loader=(['batch, workers, cache', 'images/s, epoch 1', 'epoch 2', '/ alone', 'waiting, epoch 1', 'epoch 2'],
            lambda row: f'{row["batch_size"]}, ' + (
                'alone' if row['workers'] is None else f'{row["workers"]}, {cache_cell(row)}'), fed_cells))


def write(content: dict[str, Any], path: str) -> None:
    """Write the numbers, and the page beside them."""
    write_text(path, json.dumps(content, indent=1) + '\n')
    about = content['machine']
    lines = [f'# {about["gpu"] or about["cpu"]}', f'torch {about["versions"]["torch"]}, {about["date"]}, '
             f'{content["seconds"]:.0f} s']
    if content['photographs']:
        lines[-1] += (', {seconds:.0f} of them to make {images:,} JPEGs of {size} pixels and {mean_bytes:,.0f} '
                      'bytes').format(**content['photographs'])
    if content['skipped']:
        lines.append(f'Left out for lack of time: {"; ".join(content["skipped"])}.')
    for part, header, rows, failed in tables(content):
        lines += [markdown_table(header, rows, part), *(f'* {text}' for text in failed)]
    write_text(f'{osp.splitext(path)[0]}.md', '\n\n'.join(lines) + '\n')


def main() -> None:
    args, start = parse_args(), time.monotonic()
    prepare_process()
    if args.small:
        for network in (VisionTransformer, PromptedViT):
            network.arch_zoo['toy'] = TOY
    console = Console()
    with tempfile.TemporaryDirectory() as folder, DefaultScope.overwrite_default_scope('mmpretrain'):
        bench = Bench(args, folder)
        content: dict[str, Any] = dict(
            machine=machine(bench.device), settings=settings(args) | bench.sizes, photographs=bench.about_photographs,
            parts={part: [] for part in args.parts}, skipped=[], seconds=0.)
        cases = [case for case in bench.cases() if case[0] in args.parts]
        for number, (part, name, measure) in enumerate(cases, 1):
            if time.monotonic() - start >= 60 * args.minutes:
                content['skipped'].append(f'{part}: {name}')
                continue
            console.print(f'{number} of {len(cases)}, {time.monotonic() - start:.0f} s: {part}, {name}')
            try:
                rows = measure()
            except Exception as error:
                rows = [dict(case=name, error=first_line(error))]
            content['parts'][part] += rows
            content['seconds'] = time.monotonic() - start
            write(content, args.out)
            free(bench.device)
        write(content, args.out)
        draw_gpu(content, f'{osp.splitext(args.out)[0]}.png')
    for part, header, lines, failed in tables(content):
        show_table(console, header, lines, part)
        for text in failed:
            console.print(text, markup=False)
    console.print(f'written to {args.out}', soft_wrap=True)


if __name__ == '__main__':
    main()
