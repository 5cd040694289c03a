#!/usr/bin/env python
"""Look at finished and running trainings: NMI, curves, prototypes, attention, tokens, drift, or all on one page. Each
writes PNG, SVG and its numbers as CSV; docs/gallery.md says how to read them."""
import argparse
import os
import os.path as osp
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from rich.console import Console

from mmspt.engine.start import prepare_process
from mmspt.evaluation.work_dirs import walk_runs
from mmspt.files import write_text
from mmspt.visualization import (
    Picture,
    RunFolder,
    draw_attention,
    draw_curves,
    draw_drift,
    draw_nmi,
    draw_prototypes,
    draw_token_map,
    save_picture,
)
from mmspt.visualization.attention import DIRECTIONS
from mmspt.visualization.nearest_patches import METRICS
from mmspt.visualization.page import make_page, slug
from mmspt.visualization.report import draw_all, lay_out
from mmspt.visualization.token_map import METHODS

Draw = Callable[[list[RunFolder], argparse.Namespace], Iterable[Picture]]
PAGE = 'report.html'
WIDTH = 200  # columns where the output is no terminal


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Look at what prompts do; each command writes PNG, SVG and CSV')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument('--out', metavar='FOLDER', help='where the files go; by default the folder `analysis` in the '
                        'run, or in the folder that holds all runs')
    shared.add_argument('--backbone', help="the frozen backbone's checkpoint, if it is not where the config says")
    one = argparse.ArgumentParser(add_help=False, parents=[shared])
    one.add_argument('run', metavar='RUN', help='work directory of a run')
    one.add_argument('--checkpoint', help='the tuned weights; the last epoch_*.pth of the run if not named')
    one.add_argument('--device', help='where the model computes; the GPU if there is one')
    many = argparse.ArgumentParser(add_help=False, parents=[shared])
    many.add_argument('runs', nargs='+', metavar='RUN', help='work directory of a run, or a folder with runs below it')

    def add(name: str, draw: Draw, parent: argparse.ArgumentParser, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, parents=[parent], help=text, description=text)
        command.set_defaults(draw=draw)
        return command

    add('nmi', lambda runs, args: [draw_nmi(with_prompts(runs))], many,
        'NMI of prompts and patches over training')
    add('curves', lambda runs, args: [draw_curves(runs)], many,
        'accuracy and loss, with the spread over seeds')
    command = add('prototypes', lambda runs, args: (
        draw_prototypes(runs[0], layer, args.count, args.context, args.metric, args.prompts, args.num_images)
        for layer in args.layers), one, 'the training patches nearest to each prompt, before and after')
    command.add_argument('--layers', type=int, nargs='+', default=[1], metavar='I', help='blocks, from 1; default 1')
    command.add_argument('--prompts', type=int, nargs='+', metavar='P', help='prompts, from 1; default up to 12')
    command.add_argument('--count', type=int, default=6, help='patches a prompt; default 6')
    command.add_argument('--context', type=int, default=2, help='patches around each patch; default 2')
    command.add_argument('--metric', choices=list(METRICS), default='cosine', help='default cosine')
    command.add_argument('--num-images', type=int, help='training images to look through; default all')
    command = add('attention', lambda runs, args: (
        draw_attention(runs[0], image, args.layers, args.prompts, args.direction) for image in args.images), one,
        'where CLS and each prompt look, over images, by block')
    command.add_argument('images', nargs='+', metavar='IMAGE', help='an image file, or train:N, val:N, test:N for an '
                         'image of the run')
    command.add_argument('--layers', type=int, nargs='+', metavar='I', help='blocks, from 1; default up to 6')
    command.add_argument('--prompts', type=int, nargs='+', metavar='P', help='prompts, from 1; default up to 8')
    command.add_argument('--direction', choices=list(DIRECTIONS), default='looks', help='looks: where a prompt looks; '
                         'read: which patches read the prompt; default looks')
    command = add('tokens', lambda runs, args: [draw_token_map(runs[0], args.layers, args.method)], one,
                  'a map of patches, initial and tuned prompts')
    command.add_argument('--layers', type=int, nargs='+', metavar='I', help='blocks, from 1; default up to 6')
    command.add_argument('--method', choices=list(METHODS), default='pca', help='default pca')
    add('drift', lambda runs, args: [draw_drift(runs[0])], one, "how far each block's prompts moved")
    command = add('report', report, many, 'all of these, settings, environment and results on one HTML page')
    command.add_argument('--images', nargs='+', default=[], metavar='IMAGE', help='for attention; default the first '
                         'two of validation')
    command.add_argument('--num-images', type=int, default=1000, help='training images to look through; default 1000')
    return parser.parse_args()


def with_prompts(runs: list[RunFolder]) -> list[RunFolder]:
    """Return the runs with prompts, or all if none has: a folder may hold a linear probe beside them."""
    return [run for run in runs if run.description['num_prompts']] or runs


def report(runs: list[RunFolder], args: argparse.Namespace) -> Iterator[Picture]:
    """Write the page, and yield its pictures, each in a folder named after its setting."""
    drawn = list(draw_all(runs, args.images, args.num_images))
    title = f'mmspt: {len(runs)} runs' if len(runs) > 1 else f'mmspt: {runs[0].label}'
    write_text(osp.join(args.out, PAGE), make_page(title, lay_out(runs, drawn)))
    for setting, picture in drawn:
        if isinstance(picture, Picture):
            yield replace(picture, name=osp.join(slug(setting), picture.name) if setting else picture.name)


def open_runs(folders: Sequence[str], backbone: str | None) -> list[RunFolder]:
    """Open the runs at and below folders, each once."""
    paths = [path for folder in folders for path in (sorted(path for path, *_ in walk_runs(folder)) or [folder])]
    return [RunFolder(path, backbone=backbone) for path in dict.fromkeys(map(osp.normpath, paths))]


def default_out(runs: Sequence[RunFolder]) -> str:
    """Return the folder `analysis` in the only run, or in the folder that holds all."""
    if len(runs) == 1:
        return osp.join(runs[0].folder, 'analysis')
    common = osp.commonpath([osp.abspath(run.folder) for run in runs])
    inside = osp.relpath(common)
    return osp.join(common if inside.startswith(os.pardir) else inside, 'analysis')


def save(pictures: Iterable[Picture], out: str, console: Console) -> None:
    """Write each picture when it is drawn, and print its caption and paths."""
    names: list[str] = []
    for picture in pictures:
        names.append(picture.name)
        again = names.count(picture.name)  # two images of one name
        unique = replace(picture, name=f'{picture.name}_{again}') if again > 1 else picture
        console.print(picture.caption, soft_wrap=True)
        for path in save_picture(unique, out):
            console.print(f'    {path}', soft_wrap=True)


def main() -> None:
    args = parse_args()
    prepare_process()
    console = Console(width=None if sys.stdout.isatty() else WIDTH, markup=False, highlight=False)
    try:
        runs = [RunFolder(args.run, args.checkpoint, args.device, args.backbone)] if 'run' in args else \
            open_runs(args.runs, args.backbone)
        args.out = args.out or default_out(runs)
        save(args.draw(runs, args), args.out, console)
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        raise SystemExit(f'{args.command}: {error}') from error
    if args.command == 'report':
        console.print(f'the page: {osp.join(args.out, PAGE)}', soft_wrap=True)


if __name__ == '__main__':
    main()
