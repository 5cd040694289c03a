#!/usr/bin/env python
"""Classify images by any number of prompt packs on one frozen backbone; the answers are JSON Lines.

    python tools/predict.py photos/ --packs birds.safetensors dogs.safetensors --backbone mae_pretrain_vit_base.pth
    python tools/predict.py --requests jobs.jsonl --packs ... --backbone ... --out answers.jsonl

A line has image, task, class, label, score (softmax) and top (the best classes), or image, task and error. The exit
code is 0 if every image was answered, 1 if some could not be read or nothing could be done. See docs/serving.md.
"""
import argparse
import json
import os
import os.path as osp
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from glob import has_magic, iglob
from typing import TextIO

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from mmspt.engine.start import prepare_process
from mmspt.files import written_atomically
from mmspt.packs.backbone import find_source
from mmspt.packs.pack import Pack
from mmspt.serving.predictor import MultiTaskPredictor, Prediction

SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp')
"""Of the files in folders that are taken for images."""
Request = tuple[str, str]
"""Image and task."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Classify images by prompt packs on one frozen backbone')
    parser.add_argument('images', nargs='*', metavar='IMAGES', help='files, folders (with all below them), or patterns '
                        "such as 'photos/**/*.jpg'")
    parser.add_argument('--packs', nargs='+', required=True, metavar='[NAME=]FILE', help='prompt packs; a NAME takes '
                        "the place of the task's own; a FILE may be hf://ORG/NAME[/FILE]")
    parser.add_argument('--backbone', help="the frozen backbone's checkpoint: a path or an address; by default the "
                        'address that the packs name, if it is on the hub or published')
    parser.add_argument('--tasks', nargs='+', metavar='NAME', help='answer these alone; by default every image is '
                        'answered for every pack')
    parser.add_argument('--requests', metavar='FILE', help='instead of IMAGES: JSON Lines of {"image": ..., "task": '
                        '...}; without a task, all')
    parser.add_argument('--out', metavar='FILE', help='where the answers go; standard output by default')
    parser.add_argument('--batch-size', type=int, default=32, help='default 32')
    parser.add_argument('--topk', type=int, default=5, help='best classes in a line; default 5')
    parser.add_argument('--device', help='where the model computes; the GPU if there is one')
    return parser.parse_args()


def find_images(patterns: Sequence[str]) -> list[str]:
    """Files that paths, folders and patterns name; ValueError if one names none.

    A path that is not there stays: its line will say so.
    """
    images: list[str] = []
    for pattern in patterns:
        found = [pattern] if osp.lexists(pattern) or not has_magic(pattern) else sorted(iglob(pattern, recursive=True))
        listed = [image for path in found for image in (walk(path) if osp.isdir(path) else [path])]
        if not listed:
            raise ValueError(f'IMAGES must name at least one image, but {pattern!r} names none (in folders, '
                             f'{", ".join(SUFFIXES)} are taken): correct it')
        images += listed
    return list(dict.fromkeys(images))  # a pattern finds a folder, and what is in it


def walk(folder: str) -> Iterator[str]:
    """The images in a folder and below, by name; hidden files and folders are no photographs of the user's."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        yield from (osp.join(parent, name) for name in sorted(names)
                    if name.lower().endswith(SUFFIXES) and not name.startswith('.'))


def read_requests(path: str, tasks: Sequence[str]) -> list[Request]:
    """Read images and tasks, all ``tasks`` where a line names none; OSError, or ValueError that names the line."""
    requests: list[Request] = []
    with open(path, encoding='utf-8') as file:
        for number, line in enumerate(file, 1):
            try:
                content = json.loads(line) if line.strip() else None
            except (ValueError, RecursionError) as error:
                raise ValueError(f'a line of --requests must be JSON, but line {number} of {path} is not ({error}): '
                                 'write {"image": "...", "task": "..."}') from error
            if content is None:
                continue
            known = isinstance(content, dict) and set(content) <= {'image', 'task'} and 'image' in content
            if not known or not all(isinstance(value, str) for value in content.values()):
                raise ValueError('a line of --requests must have a text image and may have a text task, but line '
                                 f'{number} of {path} is {line.strip():.200}: write {{"image": "...", "task": "..."}}')
            if content.get('task', tasks[0]) not in tasks:
                raise ValueError(f'a task must be one of {", ".join(map(repr, tasks))}, but line {number} of {path} '
                                 f'has {content["task"]!r}: name its pack among --packs')
            requests += [(content['image'], task) for task in ([content['task']] if 'task' in content else tasks)]
    if not requests:
        raise ValueError(f'--requests must hold at least one line, but {path} has none: write {{"image": "..."}}')
    return requests


def read_packs(given: Sequence[str]) -> dict[str, Pack]:
    """Packs by the names that they are given, else by their own; OSError or ValueError if one cannot be read."""
    packs: dict[str, Pack] = {}
    for entry in given:
        name, _, path = entry.partition('=') if '=' in entry and not osp.exists(entry) else ('', '', entry)
        pack = Pack.load(path)
        name = name or pack.task
        if name in packs:
            raise ValueError(f'packs must have names of their own, but two are called {name!r}: write --packs '
                             f'OTHER={path}')
        packs[name] = pack
    return packs


def to_line(request: Request, answer: Prediction) -> str:
    """One JSON object."""
    image, task = request
    if answer.error is not None:
        return json.dumps(dict(image=image, task=task, error=answer.error))
    top = [{'class': choice.class_name, 'label': choice.label, 'score': round(choice.score, 6)}
           for choice in answer.top]
    return json.dumps(dict(image=image, task=task, **top[0], top=top))


@contextmanager
def open_out(path: str | None, standard: TextIO) -> Iterator[TextIO]:
    """Standard output, or a file that is written atomically; ValueError if it cannot be opened."""
    if path is None:
        yield standard
        return
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open(stack.enter_context(written_atomically(path)), 'w', encoding='utf-8'))
        except OSError as error:
            raise ValueError(f"--out must be a file that can be written, but '{path}' is not ({error.strerror}): name "
                             'another') from error
        yield file


def keep_stdout_pure() -> TextIO:
    """Standard output for the answers alone; what libraries print there goes to standard error from now on."""
    sys.stdout.flush()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), 'w', encoding='utf-8')
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def answer(args: argparse.Namespace, standard: TextIO, console: Console) -> int:
    """Do the work; the number of lines with an error."""
    if bool(args.images) == (args.requests is not None):
        raise ValueError('either IMAGES or --requests must be given, got '
                         f'{"both" if args.images else "neither"}: name images')
    packs = read_packs(args.packs)
    tasks = list(dict.fromkeys(args.tasks or packs))
    unknown = [task for task in tasks if task not in packs]
    if unknown:
        raise ValueError(f'--tasks must be among {", ".join(map(repr, packs))}, got {unknown[0]!r}: name its pack')
    requests = read_requests(args.requests, tasks) if args.requests is not None else [
        (image, task) for image in find_images(args.images) for task in tasks]
    used = {task for _, task in requests}
    backbone = args.backbone or find_source(packs[name] for name in used)
    if backbone is None:
        hints = ', '.join(dict.fromkeys(repr(packs[name].checkpoint)[:200] for name in sorted(used)
                                        if packs[name].checkpoint))
        raise ValueError('--backbone must name the checkpoint that the packs were tuned on'
                         + (f'; they call it {hints}' if hints else '')
                         + '. No file is opened because a pack names it: name it yourself')
    with console.status('reading the backbone') if console.is_terminal else nullcontext():
        predictor = MultiTaskPredictor(backbone, {name: packs[name] for name in packs if name in used},
                                       args.device)
    answers = predictor.stream(requests, args.batch_size, args.topk)
    failed = 0
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with open_out(args.out, standard) as out, \
            Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        for request, prediction in zip(requests, progress.track(answers, len(requests), description='images'),
                                       strict=True):
            failed += prediction.error is not None
            out.write(to_line(request, prediction) + '\n')
            if out is standard:
                out.flush()
    if failed:
        console.print(f'predict: {failed} of {len(requests)} answers are errors; their lines say why', soft_wrap=True)
    if args.out is not None:
        console.print(f'{len(requests)} lines written to {args.out}', soft_wrap=True)
    return failed


def main() -> None:
    args = parse_args()
    console = Console(stderr=True, markup=False, highlight=False)
    standard = keep_stdout_pure()
    prepare_process()
    try:
        code = 1 if answer(args, standard, console) else 0
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, BrokenPipeError):
            code = 141  # as of a process that SIGPIPE ended: who read the answers has had enough
        else:
            console.print(f'predict: {error}', soft_wrap=True)
            code = 1
    except KeyboardInterrupt:
        console.print('predict: interrupted' + ('' if args.out is None else f'; {args.out} was not written'),
                      soft_wrap=True)
        code = 130
    try:
        standard.close()
    except BrokenPipeError:
        code = code or 141
    sys.exit(code)


if __name__ == '__main__':
    main()
