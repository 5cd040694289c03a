#!/usr/bin/env python
"""Prompt packs: a tuned model as one small file, without its backbone."""
import argparse
import io
import os.path as osp
import re
import sys

import torch
from mmengine.logging import MMLogger
from rich.console import Console

from mmspt.checkpoint_loaders import load_file
from mmspt.datasets.class_names import moved_names, quote
from mmspt.engine.start import prepare_process
from mmspt.evaluation import RESULT_FILE, read_result
from mmspt.files import write_bytes
from mmspt.hub import PACK, local_path, parse, path_beside, upload
from mmspt.models import PromptedViT
from mmspt.models.weights.fingerprint import to_hex
from mmspt.packs.architecture import Architecture
from mmspt.packs.backbone import check_backbone, find_source, load_backbone, merge
from mmspt.packs.card import describe, model_card
from mmspt.packs.fields import is_number, plain
from mmspt.packs.image_classifier import ImageClassifier
from mmspt.packs.make import make_pack
from mmspt.packs.pack import DTYPES, Pack
from mmspt.visualization.run_folder import RunFolder

PRECISIONS = {str(dtype).removeprefix('torch.'): dtype for dtype in DTYPES}
console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)

    command = commands.add_parser('export', help='make a pack of a training')
    command.add_argument('source', help="a training's work directory (its newest epoch_*.pth counts), or a checkpoint "
                         'in one')
    command.add_argument('--out', help='file to write; TASK.safetensors in the work directory by default')
    command.add_argument('--task', help='name of the task; by default that of its data set')
    command.add_argument('--classes', help='text file with a class name a line, where the data set has none')
    command.add_argument('--dtype', choices=PRECISIONS, default='float32', help='precision of the file')
    command.add_argument('--backbone', help="the frozen backbone's checkpoint, if it is not where the config says")
    command.add_argument('--no-recipe', action='store_true', help="leave the config's text out")
    command.set_defaults(run=export)

    command = commands.add_parser('inspect', help='show packs')
    command.add_argument('packs', nargs='+')
    command.add_argument('--recipe', action='store_true', help='show the config that each was tuned with, too')
    command.set_defaults(run=inspect)

    command = commands.add_parser('verify', help='check packs, and that they were tuned on a backbone')
    command.add_argument('packs', nargs='+')
    command.add_argument('--backbone', help="the backbone's checkpoint: path or address")
    command.set_defaults(run=verify)

    command = commands.add_parser('push', help='put a pack and its model card on the Hugging Face hub')
    command.add_argument('pack')
    command.add_argument('address', help=f'hf://ORG/NAME[@BRANCH][/FILE]; FILE is {PACK} by default')
    command.add_argument('--private', action='store_true', help='if the repository is a new one')
    command.set_defaults(run=push)

    command = commands.add_parser('merge', help='merge a pack and its backbone into a checkpoint of MMPretrain')
    command.add_argument('pack')
    command.add_argument('out', help='file to write (.pth)')
    command.add_argument('--backbone', help="the backbone's checkpoint: path or address; by default the address that "
                         'the pack names, if it names one')
    command.set_defaults(run=merged)
    return parser.parse_args()


def export(args: argparse.Namespace) -> None:
    """Make a pack and show it."""
    whole_run = osp.isdir(args.source)
    run = RunFolder(args.source if whole_run else osp.dirname(args.source) or '.', None if whole_run else args.source,
                    device='cpu', backbone=args.backbone)
    task = args.task or str(run.description['task'])
    out = args.out or osp.join(run.folder, re.sub(r'[^\w.-]+', '_', task) + '.safetensors')
    if not out.endswith('.safetensors'):
        raise ValueError(f"a pack's name must end in .safetensors, by which MMEngine's loaders know it, got '{out}'")
    given = run.config.model.get('data_preprocessor') or run.config.get('data_preprocessor') or {}
    if args.backbone and not {'mean', 'std'} & given.keys() and isinstance(run.model, ImageClassifier):
        raise ValueError("the run's mean and std were read beside the checkpoint that its config names, not beside "
                         f"'{args.backbone}': write them into data_preprocessor of '{run.config_path}', or leave "
                         '--backbone out')
    make_pack(run.model, run.config, task, class_names(args.classes, run), metrics_of(run), PRECISIONS[args.dtype],
              with_recipe=not args.no_recipe).save(out)
    show(out)


def metrics_of(run: RunFolder) -> dict[str, float]:
    """Return the numbers of ``result.json`` if they are of the run's checkpoint."""
    path = osp.join(run.folder, RESULT_FILE)
    result = read_result(path) if osp.isfile(path) else None
    if result is None or result.checkpoint is None:
        return {}
    tested = result.checkpoint if osp.dirname(result.checkpoint) else osp.join(run.folder, result.checkpoint)
    if osp.realpath(tested) != osp.realpath(run.checkpoint):
        return {}
    return {name: value for name, value in result.metrics.items() if is_number(value)}


def class_names(path: str | None, run: RunFolder) -> list[str]:
    """Return class names from a file, else from the checkpoint, else numbers."""
    count = len(run.model.get_parameter('head.fc.bias'))
    meta = load_file(run.checkpoint).get('meta') or {}
    trained = list((meta.get('dataset_meta') or {}).get('classes') or [])
    if path is not None:
        with open(path, encoding='utf-8-sig') as file:
            names = [line.removesuffix('\n') for line in file]
        moved = moved_names(names, trained)
        if moved:
            raise ValueError(f"--classes must name the classes in the order of their labels, but '{path}' has "
                             f'{quote(moved)} at another place than the checkpoint: leave --classes out, or correct '
                             'the file')
    else:
        names = trained
        if not names:
            MMLogger.get_current_instance().warning('The data set gave its classes no names; they are called class 0, '
                                                    'class 1, ...: --classes FILE names them')
            names = [f'class {label}' for label in range(count)]
    if len(names) != count:
        raise ValueError(f"class names must be as many as the head's outputs, {count}, got {len(names)}"
                         f"{f' in {path!r}' if path else ''}: give --classes a file with a name a line")
    return names


def show(path: str) -> Pack:
    """Read and show a pack."""
    pack = Pack.load(path)
    say(f'{path}: {osp.getsize(local_path(path, (PACK, ), ())):,} bytes')
    for name, value in describe(pack).items():
        say(f'  {name:<14} {value}')
    return pack


def say(text: str) -> None:
    """Print text that may come from a stranger."""
    console.print(plain(text))


def inspect(args: argparse.Namespace) -> None:
    """Show packs."""
    for path in args.packs:
        pack = show(path)
        if args.recipe:
            say(pack.recipe)


def verify(args: argparse.Namespace) -> None:
    """Read packs and compare fingerprints."""
    latest: tuple[Architecture, PromptedViT] | None = None
    for path in args.packs:
        pack = Pack.load(path)
        if args.backbone is None:
            say(f'{path}: whole; of the backbone {to_hex(pack.fingerprint)}')
            continue
        if latest is None or latest[0] != pack.backbone:
            latest = pack.backbone, load_backbone(pack.backbone, args.backbone)
        check_backbone(pack, latest[1], path)
        say(f'{path}: whole, and tuned on {args.backbone}')


def push(args: argparse.Namespace) -> None:
    """Put a pack on the hub."""
    pack, place = Pack.load(args.pack), parse(args.address)
    name = place.file or PACK
    if args.address.startswith('timm://') or not name.endswith('.safetensors'):
        raise ValueError("a pack's place must be hf://ORG/NAME[@BRANCH][/FILE.safetensors], BRANCH without a slash, "
                         f"got '{args.address}': correct it, since loaders know a pack by this ending")
    address = f'hf://{place.repository}{f"@{place.revision}" if place.revision else ""}/{name}'
    card = choose_card(address, name)
    with open(local_path(args.pack, (PACK, ), ()), 'rb') as file:
        files = {name: file.read(), card: model_card(pack, address).encode()}
    say(f'{address}: {upload(place, files, f"Add {pack.task}", args.private)}')


def choose_card(address: str, name: str) -> str:
    """Return the name of a pack's card: README.md, unless that is somebody else's, or another pack's."""
    readme = path_beside(f'{address.removesuffix(name)}README.md', 'README.md')
    if readme is None:
        return 'README.md'
    with open(readme, encoding='utf-8') as file:
        own = address.removesuffix(f'/{PACK}') in file.read().split()
    return 'README.md' if own else f'{osp.splitext(name)[0]}.md'


def merged(args: argparse.Namespace) -> None:
    """Write a full checkpoint."""
    if not args.out.endswith('.pth'):
        raise ValueError(f"a full checkpoint's name must end in .pth, got '{args.out}': give another")
    pack, buffer = Pack.load(args.pack), io.BytesIO()
    backbone = args.backbone or find_source([pack])
    if backbone is None:
        raise ValueError(f"--backbone must name the checkpoint that the pack was tuned on; it calls it "
                         f'{pack.checkpoint!r}')
    torch.save(merge(pack, backbone), buffer)
    write_bytes(args.out, buffer.getbuffer())
    say(f'{args.out}: {osp.getsize(args.out):,} bytes')


def main() -> None:
    args = parse_args()
    prepare_process()
    try:
        args.run(args)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        sys.exit(plain(f'{osp.basename(sys.argv[0])}: {error}'))


if __name__ == '__main__':
    main()
