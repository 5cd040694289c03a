#!/usr/bin/env python
"""Say what is wrong with a data set before anything is trained on it: missing lists and images, counts and labels that
differ, images that cannot be read, images of one split in another. Exit status: 0 nothing wrong, 1 something, 2 usage.

    tools/check_data.py TASK [FOLDER]       one of the paper's 24 tasks, or fgvc, vtab, all; docs/data.md lists them
    tools/check_data.py CONFIG              the data sets that a config names
"""
import argparse
import json
import os
import os.path as osp
from difflib import get_close_matches
from functools import partial
from typing import Any

from mmengine.config import DictAction
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mmspt.config import ENDINGS, read_config
from mmspt.datasets.audit.checks import Source, check_source
from mmspt.datasets.audit.sources import read_loaders, read_task
from mmspt.datasets.tasks import FGVC, TASKS, VTAB
from mmspt.files import write_text

FOLDERS = dict(cub='CUB_200_2011', nabirds='nabirds', flowers102='flowers102', dogs='stanford_dogs',
               cars='stanford_cars')
"""Where the recipes look for each data set, below data/."""
GROUPS = dict(fgvc=list(FGVC), vtab=[f'vtab_{task}' for task in VTAB], all=list(TASKS))
SHOWN = 3
"""Files shown of each finding; --json has all."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', metavar='TASK|CONFIG', help=f'{", ".join([*FGVC, *GROUPS])}, vtab_... or a config file')
    parser.add_argument('folder', nargs='?', help="the data set's folder; for vtab the one of all 19, for fgvc and all "
                        'the one above. Defaults to where the recipes look, below data/')
    parser.add_argument('--quick', action='store_true', help='look at lists and file names, decode nothing')
    parser.add_argument('--workers', type=int, default=os.cpu_count(), help='threads that decode. Default: all cores')
    parser.add_argument('--json', metavar='FILE', help='write figures and findings, with all files, to FILE')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override the config: key=value ...')
    args = parser.parse_args()
    is_config = args.what.endswith(ENDINGS)
    if is_config and not osp.isfile(args.what):
        parser.error(f"a config must be a file, but '{args.what}' is not")
    if not is_config and args.what not in TASKS | GROUPS:
        names = [*TASKS, *GROUPS]
        guess = get_close_matches(args.what, names, n=1) or get_close_matches(f'vtab_{args.what}', names, n=1)
        parser.error(f"TASK must be one of {', '.join(names)}, or a config's file name, got '{args.what}'"
                     + (f": did you mean '{guess[0]}'?" if guess else ''))
    if is_config and args.folder:
        parser.error('a config says itself where its data are: leave FOLDER out, or set --cfg-options')
    if not is_config and args.cfg_options:
        parser.error('--cfg-options changes a config, and none is given')
    if args.json and (osp.isdir(args.json) or not osp.isdir(osp.dirname(args.json) or '.')):
        parser.error(f"--json must be a file in a folder that exists, got '{args.json}': make the folder, "
                     'or name a file')
    if args.workers < 1:
        parser.error(f'--workers must be at least 1, got {args.workers}')
    return args


def read_sources(args: argparse.Namespace) -> list[Source]:
    """Read what the command line names."""
    if args.what.endswith(ENDINGS):
        cfg = read_config(args.what)
        cfg.merge_from_dict(args.cfg_options or {})
        return [read_loaders(cfg)]
    if args.what in TASKS and args.folder:
        return [read_task(args.what, args.folder)]
    sources = []
    for key in GROUPS.get(args.what, [args.what]):
        root = args.folder or 'data'
        if key in FGVC:
            root = osp.join(root, FOLDERS[key])
        elif args.what != 'vtab' or not args.folder:
            root = osp.join(root, 'vtab-1k')
        sources.append(read_task(key, root))
    return sources


def show(report: dict[str, Any], console: Console) -> None:
    """Print a table of the splits, then the findings."""
    table = Table(title=report['name'], title_justify='left')
    for column in ('split', 'images', 'classes', 'labels', 'unreadable', 'status'):
        table.add_column(column, justify='left' if column in ('split', 'status') else 'right')
    for row in report['splits']:
        labels = '-' if row['labels'] is None else f'{row["labels"][0]}..{row["labels"][1]}'
        unreadable = 'not looked' if row['unreadable'] is None else f'{row["unreadable"]:,}'
        table.add_row(row['split'], _of(row['images'], row['expected']), _of(row['classes'], row['expected_classes']),
                      labels, unreadable, row['status'], style=None if row['status'] == 'ok' else 'bold')
    if report['splits']:
        console.print(table)
    else:
        console.print(report['name'], markup=False, highlight=False)
    for finding in report['findings']:
        lines = [f'{"note" if finding["note"] else "FAULT"} [{finding["split"]}] {finding["text"]}']
        lines += [f'    {file}' for file in finding['files'][:SHOWN]]
        if len(finding['files']) > SHOWN:
            lines += [f'    ... and {len(finding["files"]) - SHOWN:,} more']
        lines += [f'  -> {finding["remedy"]}'] if finding['remedy'] else []
        console.print('\n'.join(lines), markup=False, highlight=False, soft_wrap=True)
    console.print()


def _of(found: int, expected: int | None) -> str:
    return f'{found:,}' if expected is None else f'{found:,} / {expected:,}'


def main() -> None:
    args = parse_args()
    console = Console()
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    reports = []
    for source in read_sources(args):
        with Progress(*columns, console=console, transient=True) as progress:
            bar = progress.add_task('decoding', total=None, visible=not args.quick)
            reports.append(check_source(source, not args.quick, args.workers, partial(progress.update, bar)))
        show(reports[-1], console)
    if args.json:
        write_text(args.json, json.dumps(reports, indent=1) + '\n')
    faults = sum(not finding['note'] for report in reports for finding in report['findings'])
    console.print(f'{faults:,} fault{"s" * (faults > 1)}' if faults else 'nothing wrong', highlight=False)
    raise SystemExit(1 if faults else 0)


if __name__ == '__main__':
    main()
