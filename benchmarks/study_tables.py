#!/usr/bin/env python
"""Write the tables of docs/results.md anew from the study's records; study_pictures.py draws its pictures.

    python benchmarks/study_tables.py            # --check: say whether the page is what the records give, write nothing
"""
import argparse
import os.path as osp
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from statistics import fmean
from typing import Any

from rich.console import Console

from mmspt.files import write_text
from study_numbers import (
    RATE,
    Records,
    accuracies,
    best_rates,
    epochs_to,
    epochs_to_own,
    final,
    interval_of_images,
    nmi_ends,
    spread,
    with_interval,
)
from study_plan import BACKBONES, CONTROLS, COUNTS, FULL, METHODS, PAPER, ROOT, TASKS, TEST_IMAGES, Cell, cells
from study_records import best_cells, pack_of, read_all

PAGE = osp.join(ROOT, 'docs', 'results.md')
EMPTY = '·'
RATES = (0.01, 0.03, 0.1, 0.3, 1, 3)
SAME_LENGTH = ('SPT-Deep, random sample', 'VPT-Deep')
"""As long as VPT's prompts in the control *long*, and as short as SPT's in *short*."""
STARTS = ('random sample', 'K-means', 'mean', 'max')
ALL_COUNTS = tuple(sorted((20, *COUNTS)))


def compare(title: str, first: Mapping[str, Any], second: Mapping[str, Any], images: int) -> list[str]:
    """A row: both accuracies, their difference with its interval over seeds, and the interval over test images."""
    a, b = accuracies(first), accuracies(second)
    differences = [x - y for x, y in zip(a, b, strict=True)]
    return [title, spread(a), spread(b), with_interval(differences),
            f'± {interval_of_images([first], [second], images):.2f}']


COMPARED = ('difference, 95 % over seeds', '95 % over test images')


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; the first column is text, the others are numbers."""
    lines = [header, ['---', *['---:'] * (len(header) - 1)], *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def span(values: Sequence[float]) -> str:
    """Lowest and highest, as text; one if they are alike."""
    ends = [f'{end(values):.2f}' for end in (min, max)]
    return ' to '.join(dict.fromkeys(ends))


def accuracy(records: Records, backbone: str) -> str:
    """Test accuracy of every method on every task."""
    rows, planned = [], set(cells())
    for method in METHODS:
        if not any(Cell(backbone, task, method) in planned for task in TASKS):
            continue
        found = [records.get(Cell(backbone, task, method)) for task in TASKS]
        shares = [100 * r['parameters']['trained'] / r['parameters']['total'] for r in found if r]
        share = span(shares) if shares else EMPTY
        rows.append([method, share, *(EMPTY if r is None else spread(accuracies(r)) for r in found)])
    return table(['method', 'parameters that train (%)', *TASKS.values()], rows)


def chosen(records: Records) -> str:
    """What the search chose, its validation, and the hours."""
    rows = []
    for cell, record in records.items():
        best = record['best']['settings']
        edges = [key for key, value in best.items() if len(tried := {
            trial['settings'][key] for trial in record['trials']}) > 2 and value in (min(tried), max(tried))]
        text = ', '.join(f'{key.rpartition(".")[2]} {value:g}{" (edge)" * (key in edges)}'
                         for key, value in best.items())
        rows.append([cell.title, text, f'{record["best"]["validation"]:.2f}', f'{record["seconds"] / 3600:.2f}',
                     str(record['workers']), f'`{cell.command()}`'])
    rows.append(['all', '', '', f'{sum(record["seconds"] for record in records.values()) / 3600:.2f}', '', ''])
    return table(['cell', 'chosen', 'validation (%)', 'hours', 'runs side by side', 'command'], rows)


def packs(records: Records) -> str:
    """The tuned models that lie beside the records, how they are tested, and how to come to them again."""
    rows = []
    for cell in best_cells(records):
        record, path = records[cell], pack_of(cell)
        if osp.isfile(path):
            settings = tuple(f'{key}={value:g}' for key, value in record['best']['settings'].items())
            rows.append([f'`{osp.relpath(path, ROOT)}`', cell.title, f'{accuracies(record)[0]:.2f}',
                         spread(accuracies(record)),
                         f'`{cell.test_command(osp.relpath(path, ROOT))}`',
                         f'`{cell.command(FULL._replace(trials=1, search=settings))}`'])
    return table(['file', 'cell', 'its test accuracy', 'three seeds', 'tested by', 'made again by'], rows)


def advantage(records: Records) -> str:
    """SPT-Deep less VPT-Deep, at each number of prompts."""
    rows = []
    for backbone, task, count, start in product(BACKBONES, TASKS, ALL_COUNTS, STARTS):
        vpt = records.get(Cell(backbone, task, 'VPT-Deep', count))
        spt = records.get(Cell(backbone, task, f'SPT-Deep, {start}', count))
        if vpt and spt:
            title = f'{BACKBONES[backbone]}, {TASKS[task]}, {start}' + (f', {count} prompts' if count != 20 else '')
            ends = [[final(curve) for curve in record['curves'].values()] for record in (spt, vpt)]
            rows.append([*compare(title, spt, vpt, TEST_IMAGES[task]),
                         with_interval([x - y for x, y in zip(*ends, strict=True)]) if len(ends[0]) > 1 else '',
                         *(f'{best_rates(record):.2f}' for record in (spt, vpt))])
    return table(['backbone, task, SPT from', 'SPT-Deep', 'VPT-Deep', *COMPARED, 'on validation, 95 % over seeds',
                  'validation, best three rates: SPT', 'VPT'], rows)


def by_backbone(records: Records) -> str:
    """What SPT gains on VPT under MAE, less what it gains under MoCo-v3."""
    rows = []
    for task, start in product(TASKS, STARTS):
        found = [record for backbone in BACKBONES for method in (f'SPT-Deep, {start}', 'VPT-Deep')
                 if (record := records.get(Cell(backbone, task, method)))]
        if len(found) == 4:
            a, b, c, d = map(accuracies, found)
            gains = [[x - y for x, y in zip(*pair, strict=True)] for pair in ((a, b), (c, d))]
            over_images = interval_of_images([found[0], found[3]], [found[1], found[2]], TEST_IMAGES[task])
            rows.append([f'{TASKS[task]}, {start}', *(f'{fmean(gain):+.2f}' for gain in gains),
                         with_interval([x - y for x, y in zip(*gains, strict=True)]), f'± {over_images:.2f}'])
    return table(['task, SPT from', *(f'gain under {name}' for name in BACKBONES.values()), *COMPARED[-2:]], rows)


def controls(records: Records) -> str:
    """Each control less the method that it was made of, and less the one that shares the other half of what differs."""
    rows = []
    for cell, record in records.items():
        if cell.method not in CONTROLS:
            continue
        origin = cell.method.rpartition(', ')[0]
        halves = {'long': SAME_LENGTH[0], 'short': SAME_LENGTH[1]}.get(cell.method.rpartition(', ')[2])
        for other in (origin, halves):
            if other and (second := records.get(cell._replace(method=other))):
                rows.append(compare(f'{BACKBONES[cell.backbone]}, {TASKS[cell.task]}: {cell.method} - {other}', record,
                                    second, TEST_IMAGES[cell.task]))
    return table(['control - other', 'control', 'other', *COMPARED], rows)


def starts(records: Records) -> str:
    """SPT-Deep from K-means less SPT-Deep from the others."""
    rows = []
    for backbone, task, start in product(BACKBONES, TASKS, STARTS):
        kmeans, other = (records.get(Cell(backbone, task, f'SPT-Deep, {name}')) for name in ('K-means', start))
        if start != 'K-means' and kmeans and other:
            rows.append(compare(f'{BACKBONES[backbone]}, {TASKS[task]}, {start}', kmeans, other, TEST_IMAGES[task]))
    return table(['backbone, task, other start', 'K-means', 'other', *COMPARED], rows)


def full(records: Records) -> str:
    """Prompts less full fine-tuning, with the share of the parameters that train."""
    rows = []
    for cell, record in records.items():
        other = records.get(Cell(cell.backbone, cell.task, 'Full'))
        if other and cell.method in PAPER and 'SPT' in cell.method:
            share = 100 * record['parameters']['trained'] / record['parameters']['total']
            rows.append([*compare(cell.title, record, other, TEST_IMAGES[cell.task]), f'{share:.2f}'])
    return table(['cell', 'prompts', 'Full', *COMPARED, 'parameters that train (%)'], rows)


def rates(records: Records) -> str:
    """Last validation accuracy, and epochs to 95 % of it, at every rate."""
    rows, methods = [], ('Linear', 'VPT-Deep', *(f'SPT-Deep, {start}' for start in STARTS))
    for cell, record in records.items():
        if cell.method not in methods:
            continue
        found = {trial['settings'][RATE]: trial for trial in record['trials'] if trial['value'] is not None}
        rows.append([cell.title, *(
            f'{final(found[rate]["validations"]):.1f}, '
            f'{epochs_to(found[rate]["validations"], 0.95 * final(found[rate]["validations"]))}'
            if rate in found else EMPTY for rate in RATES)])
    return table(['cell', *(f'{rate:g}' for rate in RATES)], rows)


def moved(records: Records) -> str:
    """How far training took the prompts from where they started, and how much they are alike."""
    rows = []
    for cell, record in records.items():
        if record['prompts']:
            means = [fmean(seed[key] for seed in record['prompts'].values())
                     for key in ('before', 'after', 'cosine', 'pairs_before', 'pairs_after')]
            rows.append([cell.title, f'{record["best"]["settings"][RATE]:g}',
                         *(f'{round(value, 2) + 0:.2f}' for value in means)])
    return table(['cell', 'rate', 'length before', 'length after', 'cosine to its start', 'mean cosine of two before',
                  'of two after'], rows)


def convergence(records: Records) -> str:
    """Epochs to 95 % of the own final validation accuracy, and of VPT-Deep's with as many prompts."""
    rows = []
    for cell, record in records.items():
        curves = list(record['curves'].values())
        vpt = records.get(cell._replace(method='VPT-Deep'))
        if len(curves) < 2 or vpt is None:
            continue
        goal = 0.95 * fmean(final(curve) for curve in vpt['curves'].values())
        own, vpts = (epochs_to_own(r) for r in (record, vpt))
        common = [epochs_to(curve, goal) for curve in curves]
        rows.append([cell.title, spread([final(curve) for curve in curves]), ', '.join(map(str, own)),
                     '' if cell.method == 'VPT-Deep' else with_interval(
                         [x - y for x, y in zip(own, vpts, strict=True)]),
                     ', '.join('never' if epoch is None else str(epoch) for epoch in common)])
    return table(['cell', 'final validation (%)', 'epochs to 95 % of it, by seed',
                  'more than VPT-Deep, 95 % over seeds', "epochs to 95 % of VPT-Deep's, by seed"], rows)


def nmi(records: Records) -> str:
    """NMI of prompts and patches before the first step and after the last, times 1000."""
    rows = []
    for cell, record in records.items():
        if record['nmi']:
            before, after = nmi_ends(record)
            vpt = records.get(cell._replace(method='VPT-Deep'))
            other = nmi_ends(vpt)[0] if vpt and cell.method != 'VPT-Deep' and 'Deep' in cell.method else None
            rises = [y - x for x, y in zip(before, after, strict=True)]
            above = [x - y for x, y in zip(before, other, strict=True)] if other else None
            rows.append([cell.title, f'{fmean(before):.2f}', f'{fmean(after):.2f}', with_interval(rises),
                         with_interval(above) if above else ''])
    return table(['cell, 1000 x NMI', 'before', 'after', 'rise, 95 % over seeds', "start minus VPT-Deep's"], rows)


def counts(records: Records) -> str:
    """Test accuracy by number of prompts, and how far it ranges, SPT-Deep's over the numbers that VPT-Deep has too."""
    rows = []
    for backbone, task in product(BACKBONES, TASKS):
        found = {method: {count: record for count in ALL_COUNTS
                          if (record := records.get(Cell(backbone, task, method, count)))}
                 for method in ('VPT-Deep', *(f'SPT-Deep, {start}' for start in STARTS))}
        vpt = found['VPT-Deep']
        for method, own in found.items():
            if len(own) < 2:
                continue
            row = [f'{BACKBONES[backbone]}, {TASKS[task]}: {method}',
                   *(spread(accuracies(own[count])) if count in own else EMPTY for count in ALL_COUNTS)]
            shared = [count for count in own if count in vpt]
            if len(shared) < 2:
                rows.append([*row, '', '', '', ''])
                continue
            ours, theirs = ([each[count] for count in shared] for each in (own, vpt))
            row += [', '.join(map(str, shared)), f'{fmean(ranges(ours)):.2f}']
            if method == 'VPT-Deep':
                rows.append([*row, '', ''])
                continue
            (high, low), (vpt_high, vpt_low) = ends(ours), ends(theirs)
            rows.append([*row,
                         with_interval([x - y for x, y in zip(ranges(theirs), ranges(ours), strict=True)]),
                         f'± {interval_of_images([vpt_high, low], [vpt_low, high], TEST_IMAGES[task]):.2f}'])
    return table(['prompts', *map(str, ALL_COUNTS), 'range over', 'range', "VPT-Deep's less this, 95 % over seeds",
                  COMPARED[-1]], rows)


def ranges(found: Sequence[Mapping[str, Any]]) -> list[float]:
    """Each seed's highest test accuracy less its lowest, over some records."""
    return [max(seed) - min(seed) for seed in zip(*map(accuracies, found), strict=True)]


def ends(found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The record with the highest test accuracy, and that with the lowest, as means over seeds."""
    return [choose(found, key=lambda record: fmean(accuracies(record))) for choose in (max, min)]


def cost(records: Records) -> str:
    """Seconds of the initial prompts beside those of the training."""
    rows = []
    for cell, record in records.items():
        if record['prototypes']:
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
    'advantage': advantage, 'by backbone': by_backbone, 'convergence': convergence, 'rates': rates, 'starts': starts,
    'prompts': counts, 'nmi': nmi, 'full': full, 'cost': cost, 'controls': controls,
    'moved': moved, 'packs': packs, 'empty': empty,
    'chosen': chosen}


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
