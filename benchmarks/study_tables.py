#!/usr/bin/env python
"""Write the tables of docs/results.md anew from the study's records, and draw its pictures.

    python benchmarks/study_tables.py            # --check: say whether the page is what the records give, write nothing
"""
import argparse
import math
import os.path as osp
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import fmean, stdev
from typing import Any

from rich.console import Console

from mmspt.files import write_text
from study_plan import BACKBONES, COUNTS, FULL, METHODS, ROOT, TASKS, Cell, cells
from study_records import best_cells, pack_of, read_all

PAGE = osp.join(ROOT, 'docs', 'results.md')
EMPTY = '·'
Records = Mapping[Cell, Mapping[str, Any]]
RATE = 'optim_wrapper.optimizer.lr'


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean and sample standard deviation, as text."""
    text = f'{fmean(values):.{digits}f}'
    return f'{text} ± {stdev(values):.{digits}f}' if len(values) > 1 else text


def tests(record: Mapping[str, Any]) -> list[float]:
    """Test accuracies by seed, in percent."""
    return list(record['test']['by_seed'].values())


def epochs_to(curve: Mapping[str, float], level: float) -> int | None:
    """The first epoch whose validation accuracy is at least ``level``; None if there is none."""
    return next((epoch for epoch, value in sorted((int(key), value) for key, value in curve.items())
                 if value >= level), None)


def final(curve: Mapping[str, float]) -> float:
    """The last epoch's."""
    return curve[max(curve, key=int)]


def difference(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Mean of the first less that of the second, and the standard error of this (Welch's)."""
    error = math.sqrt(stdev(first)**2 / len(first) + stdev(second)**2 / len(second))
    return fmean(first) - fmean(second), error


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; the first column is text, the others are numbers."""
    lines = [header, ['---', *['---:'] * (len(header) - 1)], *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def accuracy(records: Records, backbone: str) -> str:
    """Test accuracy of every method on every task."""
    rows, planned = [], set(cells())
    for method in METHODS:
        if not any(Cell(backbone, task, method) in planned for task in TASKS):
            continue
        found = [records.get(Cell(backbone, task, method)) for task in TASKS]
        share = next((f'{100 * r["parameters"]["trained"] / r["parameters"]["total"]:.2f}' for r in found if r), EMPTY)
        rows.append([method, share, *(EMPTY if r is None else spread(tests(r)) for r in found)])
    return table(['method', 'parameters that train (%)', *TASKS.values()], rows)


def chosen(records: Records) -> str:
    """What the search chose, its validation, and the hours."""
    rows = [[cell.title, f'{r["best"]["settings"][RATE]:g}', f'{r["best"]["validation"]:.2f}',
             f'{r["seconds"] / 3600:.2f}', f'`{cell.command()}`'] for cell, r in records.items()]
    return table(['cell', 'rate', 'validation (%)', 'hours', 'command'], rows)


def packs(records: Records) -> str:
    """The tuned models that lie beside the records, and how to come to them again."""
    rows = []
    for cell in best_cells(records):
        record, path = records[cell], pack_of(cell)
        if osp.isfile(path):
            settings = tuple(f'{key}={value:g}' for key, value in record['best']['settings'].items())
            again = cell.command(FULL._replace(trials=1, search=settings))
            rows.append([f'`{osp.relpath(path, ROOT)}`', cell.title, f'{tests(record)[0]:.2f}', spread(tests(record)),
                         f'`{again}`'])
    return table(['file', 'cell', 'its test accuracy', 'three seeds', 'made again by'], rows)


def advantage(records: Records) -> str:
    """SPT-Deep less VPT-Deep."""
    rows = []
    for backbone in BACKBONES:
        for task in TASKS:
            vpt = records.get(Cell(backbone, task, 'VPT-Deep'))
            for start in ('random sample', 'K-means'):
                spt = records.get(Cell(backbone, task, f'SPT-Deep, {start}'))
                if vpt and spt:
                    mean, error = difference(tests(spt), tests(vpt))
                    rows.append([f'{BACKBONES[backbone]}, {TASKS[task]}, {start}', spread(tests(vpt)),
                                 spread(tests(spt)), f'{mean:+.2f}', f'{error:.2f}'])
    return table(['backbone, task, SPT from', 'VPT-Deep', 'SPT-Deep', 'difference', 'standard error'], rows)


def convergence(records: Records) -> str:
    """Epochs to 95 % of the own final validation accuracy, and of VPT-Deep's."""
    rows = []
    for cell, record in records.items():
        curves = list(record['curves'].values())
        vpt = records.get(Cell(cell.backbone, cell.task, 'VPT-Deep'))
        if cell.num_prompts != 20 or len(curves) < 2 or vpt is None:
            continue
        goal = 0.95 * fmean(final(curve) for curve in vpt['curves'].values())
        own = [epochs_to(curve, 0.95 * final(curve)) for curve in curves]
        common = [epochs_to(curve, goal) for curve in curves]
        rows.append([cell.title, spread([final(curve) for curve in curves]),
                     *(', '.join('never' if epoch is None else str(epoch) for epoch in found)
                       for found in (own, common))])
    return table(['cell', 'final validation (%)', 'epochs to 95 % of it, by seed',
                  "epochs to 95 % of VPT-Deep's, by seed"], rows)


def nmi(records: Records) -> str:
    """NMI of prompts and patches before the first step and after the last."""
    rows = []
    for cell, record in records.items():
        if cell.num_prompts == 20 and record['nmi']:
            series = [sorted((int(step), value) for step, value in values.items()) for values in record['nmi'].values()]
            first, last = (fmean(values[place][1] for values in series) for place in (0, -1))
            rows.append([cell.title, f'{first:.2e}', f'{last:.2e}', f'{last / first:.2f}'])
    return table(['cell', 'before', 'after', 'ratio'], rows)


def counts(records: Records) -> str:
    """Test accuracy by number of prompts."""
    rows = []
    for backbone in BACKBONES:
        for task in TASKS:
            for method in METHODS:
                found = [records.get(Cell(backbone, task, method, count)) for count in sorted((20, *COUNTS))]
                if sum(r is not None for r in found) > 1:
                    rows.append([f'{BACKBONES[backbone]}, {TASKS[task]}: {method}',
                                 *(EMPTY if r is None else spread(tests(r)) for r in found)])
    return table(['prompts', *map(str, sorted((20, *COUNTS)))], rows)


def cost(records: Records) -> str:
    """Seconds of the initial prompts beside those of the training."""
    rows = []
    for cell, record in records.items():
        if record['prototypes'] and cell.num_prompts == 20:
            times = record['prototypes'].values()
            first, rest = (fmean(t[key] for t in times) for key in ('initialization', 'training'))
            rows.append([cell.title, f'{first:.1f}', f'{rest:.0f}', f'{100 * first / rest:.1f}'])
    return table(['cell', 'initial prompts (s)', 'training (s)', 'share (%)'], rows)


def empty(records: Records) -> str:
    """Which cells are still to be run."""
    missing = [cell for cell in cells() if cell not in records]
    done = f'{len(records)} of {len(records) + len(missing)} cells are there.'
    groups: dict[str, list[str]] = {}
    for cell in missing:
        count = '' if cell.num_prompts == 20 else f' with {cell.num_prompts} prompts'
        groups.setdefault(f'{BACKBONES[cell.backbone]}, {TASKS[cell.task]}', []).append(f'{cell.method}{count}')
    lists = [f'* {group}: {"; ".join(methods)}' for group, methods in groups.items()]
    return '\n'.join([done, *(['', 'Empty:', '', *lists] if lists else [])])


TABLES: dict[str, Callable[[Records], str]] = {
    **{f'accuracy {backbone}': partial(accuracy, backbone=backbone) for backbone in BACKBONES},
    'advantage': advantage, 'convergence': convergence, 'prompts': counts, 'nmi': nmi, 'cost': cost, 'empty': empty,
    'packs': packs, 'chosen': chosen}


def fill(page: str, records: Records) -> str:
    """Put each table between its marks, ``<!-- table: NAME -->`` and ``<!-- end -->``.

    Raises:
        ValueError: A mark names no table, or a table has no mark.
    """
    marks = re.findall(r'<!-- table: (.+?) -->', page)
    if sorted(marks) != sorted(TABLES):
        raise ValueError(f'the page must have one mark for each of {", ".join(sorted(TABLES))}, got '
                         f'{", ".join(sorted(marks))}')
    return re.sub(r'<!-- table: (.+?) -->\n.*?<!-- end -->', lambda match: (
        f'<!-- table: {match[1]} -->\n{TABLES[match[1]](records)}\n<!-- end -->'), page, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description='Tables of docs/results.md')
    parser.add_argument('--check', action='store_true', help='write nothing; fail if the page is not up to date')
    args = parser.parse_args()
    with open(PAGE, encoding='utf-8') as file:
        page = file.read()
    records = read_all(cells(), FULL)
    made = fill(page, records)
    if args.check:
        sys.exit(0 if made == page else 'docs/results.md is not what the records give: python '
                 'benchmarks/study_tables.py')
    write_text(PAGE, made)
    Console().print(f'{PAGE}: {len(records)} cells')


if __name__ == '__main__':
    main()
