#!/usr/bin/env python
"""What docs/results.md says of configs/plans/study.yaml: leads with their intervals, epochs, and the picture.

    python benchmarks/study.py work_dirs/plans/study/table.json docs/pictures/study.png

A lead is the mean of the differences seed by seed (the same order of images, the same start of the head), with the 95 %
interval of Student's t. Epochs: the first whose validation has 95 % of the run's last.
"""
import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import mean
from typing import Any

from matplotlib.axes import Axes
from rich.console import Console
from scipy.stats import ttest_rel

from measure import show_table
from mmspt.visualization.groups import Spread, plot_spread, spread
from mmspt.visualization.picture import label_log_axis, styled
from plot import save

METHODS = {'spt-deep': 'SPT-Deep', 'vpt-deep': 'VPT-Deep', 'linear': 'linear probe'}
"""Of the picture, by the last part of a cell's name."""
PAIRS = (('spt-deep', 'vpt-deep'), ('spt-deep', 'linear'), ('spt-deep', 'full'), ('spt-deep', 'bpt-deep'),
         ('spt-deep-k-means', 'spt-deep'), ('spt-deep-5', 'vpt-deep-5'), ('spt-deep-50', 'vpt-deep-50'))
SHARES = {10: 'cls/flowers17_10', 30: 'cls/flowers17_30', 100: 'cls/flowers17'}
"""Percent of the labels -> cells."""
Cells = Mapping[str, Mapping[str, Any]]


def lead(first: Mapping[str, float], second: Mapping[str, float]) -> tuple[float, float, int]:
    """Return how far one is ahead of the other, half the width of the 95 % interval, and the number of seeds."""
    seeds = sorted(first.keys() & second.keys())
    low, high = ttest_rel([first[seed] for seed in seeds], [second[seed] for seed in seeds]).confidence_interval(0.95)
    return (low + high) / 2, (high - low) / 2, len(seeds)


def epochs_to(curve: Mapping[str, float], share: float = 0.95) -> int:
    """Return the first epoch with that share of the last validation."""
    ordered = {int(epoch): value for epoch, value in curve.items()}
    goal = share * ordered[max(ordered)]
    return min(epoch for epoch, value in ordered.items() if value >= goal)


def tests(cells: Cells, name: str) -> dict[str, float]:
    """Return a cell's tests by seed; none where it has not ended."""
    return ((cells.get(name) or {}).get('test') or {}).get('by_seed') or {}


def leads(cells: Cells) -> list[list[str]]:
    """Return a row for each pair of cells that have been tested."""
    rows = []
    for group in dict.fromkeys(name.rpartition('/')[0] for name in cells):
        for first, second in PAIRS:
            one, other = (tests(cells, f'{group}/{method}') for method in (first, second))
            if len(one.keys() & other.keys()) > 1:
                ahead, half, count = lead(one, other)
                verdict = 'ahead' if ahead > half else 'behind' if ahead < -half else 'undecided'
                rows.append([group, f'{first} - {second}', f'{ahead:+.1f} ± {half:.1f}', str(count), verdict])
    return rows


def epochs(cells: Cells) -> list[list[str]]:
    """Return a row for each cell that has curves of several seeds."""
    rows = []
    for name, cell in cells.items():
        counts = [epochs_to(curve) for curve in cell['curves'].values()]
        if len(counts) > 1:
            rows.append([name, ', '.join(map(str, counts)), f'{mean(counts):.1f}'])
    return rows


def draw_curves(cells: Cells, group: str, title: str, axes: Axes) -> None:
    """Draw validation accuracy by epoch, at each method's best rate."""
    for method, label in METHODS.items():
        cell = cells[f'{group}/{method}']
        best = next(trial for trial in cell['trials'] if trial['settings'] == cell['best']['settings'])
        lines = [{int(epoch): value for epoch, value in curve.items()}
                 for curve in list(cell['curves'].values()) or [best['validations']]]
        plot_spread(axes, spread(lines, label), f'{label}, rate {_rate(best["settings"]):g}', len(lines))
    axes.set(title=title, xlabel='epoch', ylabel='validation accuracy (%)')
    axes.legend()


def draw_rates(cells: Cells, group: str, title: str, axes: Axes) -> None:
    """Draw the last validation by rate."""
    for method, label in METHODS.items():
        values = {_rate(trial['settings']): trial['value'] for trial in cells[f'{group}/{method}']['trials']}
        axes.plot(sorted(values), [values[rate] for rate in sorted(values)], label=label)
    axes.set(title=title, xscale='log', xlabel='learning rate', ylabel='last validation accuracy (%)')
    label_log_axis(axes.xaxis)


def draw_shares(cells: Cells, axes: Axes) -> None:
    """Draw test accuracy by the share of the labels."""
    for method, label in METHODS.items():
        found = {share: list(tests(cells, f'{group}/{method}').values()) for share, group in SHARES.items()}
        points = {share: Spread(mean(values), min(values), max(values)) for share, values in found.items() if values}
        plot_spread(axes, points, label, 1)
    axes.set(title='Flowers-17, fewer labels', xlabel='labels (%)', ylabel='test accuracy (%)')


def _rate(settings: Mapping[str, float]) -> float:
    return settings['optim_wrapper.optimizer.lr']


def panels(cells: Cells) -> Sequence[Callable[[Axes], None]]:
    """Return what can be drawn so far."""
    drawn: list[Callable[[Axes], None]] = []
    for group in dict.fromkeys(name.rpartition('/')[0] for name in cells):
        if not group.rpartition('_')[2].isdigit() and all(tests(cells, f'{group}/{method}') for method in METHODS):
            row = cells[f'{group}/spt-deep']['row']
            title = f'{row["task_title"]}, {row["checkpoint_title"]}'
            drawn += [partial(draw, cells, group, title) for draw in (draw_curves, draw_rates)]
    if all(tests(cells, f'{group}/{method}') for group in SHARES.values() for method in METHODS):
        drawn.append(partial(draw_shares, cells))
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description='What the study says')
    parser.add_argument('table', help='table.json of tools/benchmark.py')
    parser.add_argument('picture', help='PNG to write')
    args = parser.parse_args()
    with open(args.table, encoding='utf-8') as file:
        cells = {cell['cell']: cell for cell in json.load(file)['cells']}
    console = Console()
    show_table(console, ['cells', 'lead', 'points', 'seeds', 'so'], leads(cells), 'Leads')
    show_table(console, ['cell', 'epochs to 95 %', 'mean'], epochs(cells), 'Convergence')
    with styled():
        save(panels(cells), args.picture, columns=2)


if __name__ == '__main__':
    main()
