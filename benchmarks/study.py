#!/usr/bin/env python
"""What docs/results.md says of configs/plans/study.yaml: differences with their intervals, and the picture.

    python benchmarks/study.py work_dirs/plans/study/table.json docs/pictures/study.png

A difference is the mean of those seed by seed (the same order of images; of SPT and VPT the same start of the head,
too), with the 95 % interval of Student's t: of seeds alone, not of another test set, and each row by itself. Epochs:
the first whose validation has 95 % of the run's last. BPT has its recipe's 50 prompts.
"""
import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import mean, stdev
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
PAIRS = (('spt-deep', 'vpt-deep'), ('spt-deep', 'linear'), ('vpt-deep', 'linear'), ('spt-deep', 'full'),
         ('spt-deep', 'bpt-deep'), ('spt-deep-k-means', 'spt-deep'), ('spt-deep-5', 'vpt-deep-5'),
         ('spt-deep-50', 'vpt-deep-50'), ('spt-shallow', 'vpt-shallow'))
SHARES = {10: 'cls/flowers17_10', 30: 'cls/flowers17_30', 100: 'cls/flowers17'}
"""Percent of the labels -> cells."""
Cells = Mapping[str, Mapping[str, Any]]


def accuracies(cell: Mapping[str, Any] | None) -> dict[str, float]:
    """Return a cell's tests by seed; none where it has not ended, or is in no table."""
    return cell['test']['by_seed'] if cell and cell['state'] == 'done' else {}


def epochs(cell: Mapping[str, Any] | None, share: float = 0.95) -> dict[str, float]:
    """Return by seed the first epoch with that share of the last validation."""
    found = {}
    for seed, curve in cell['curves'].items() if cell and cell['state'] == 'done' else ():
        ordered = {int(epoch): value for epoch, value in curve.items()}
        goal = share * ordered[max(ordered)]
        found[seed] = float(min(epoch for epoch, value in ordered.items() if value >= goal))
    return found


def compare(cells: Cells, values: Callable[[Any], dict[str, float]]) -> list[list[str]]:
    """Return a row for each pair of cells that have values of two seeds or more: both means, and the difference."""
    rows = []
    for group in dict.fromkeys(name.rpartition('/')[0] for name in cells):
        for names in PAIRS:
            one, other = (values(cells.get(f'{group}/{name}')) for name in names)
            seeds = sorted(one.keys() & other.keys())
            if len(seeds) > 1:
                pairs = [[found[seed] for seed in seeds] for found in (one, other)]
                ahead = mean(pairs[0]) - mean(pairs[1])
                if len({one[seed] - other[seed] for seed in seeds}) == 1:  # no interval: whole epochs may well agree
                    half, verdict = ' in every seed', 'undecided'
                else:
                    low, high = ttest_rel(*pairs).confidence_interval(0.95)
                    half = f' ± {(high - low) / 2:.1f}'
                    verdict = 'above' if low > 0 else 'below' if high < 0 else 'undecided'
                rows.append([f'{group}: {" - ".join(names)}', *(f'{mean(x):.1f} ± {stdev(x):.1f}' for x in pairs),
                             f'{ahead:+.1f}{half}', str(len(seeds)), verdict])
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
    """Draw the last validation by rate, with those of a cell of more rates."""
    for method, label in METHODS.items():
        found = (cells.get(f'{name}/{method}') for name in (group, f'{group}_rates'))
        values = {_rate(trial['settings']): trial['value'] for cell in found if cell for trial in cell['trials']}
        axes.plot(sorted(values), [values[rate] for rate in sorted(values)], label=label)
    axes.set(title=title, xscale='log', xlabel='learning rate', ylabel='last validation accuracy (%)')
    label_log_axis(axes.xaxis)


def draw_shares(cells: Cells, shares: Sequence[int], axes: Axes) -> None:
    """Draw test accuracy by the share of the labels."""
    for method, label in METHODS.items():
        found = {share: accuracies(cells[f'{SHARES[share]}/{method}']).values() for share in shares}
        points = {share: Spread(mean(values), min(values), max(values)) for share, values in found.items()}
        plot_spread(axes, points, label, 1)
    axes.set(title='Flowers-17, fewer labels', xlabel='labels (%)', ylabel='test accuracy (%)')


def _rate(settings: Mapping[str, float]) -> float:
    return settings['optim_wrapper.optimizer.lr']


def panels(cells: Cells) -> Sequence[Callable[[Axes], None]]:
    """Return what can be drawn so far."""
    drawn: list[Callable[[Axes], None]] = []
    ended = [group for group in dict.fromkeys(name.rpartition('/')[0] for name in cells)
             if all(accuracies(cells.get(f'{group}/{method}')) for method in METHODS)]
    rows = {group: cells[f'{group}/spt-deep']['row'] for group in ended}
    several = len({row['checkpoint_title'] for row in rows.values()}) > 1
    for group, row in rows.items():
        title = row['task_title'] + (f', {row["checkpoint_title"]}' if several else '')
        drawn += [partial(draw, cells, group, title) for draw in (draw_curves, draw_rates)
                  if not group.rpartition('_')[2].isdigit()]  # a share of the labels
    shares = [share for share, group in SHARES.items() if group in ended]
    return [*drawn, partial(draw_shares, cells, shares)] if len(shares) > 1 else drawn


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='What the study says')
    parser.add_argument('table', help='table.json of tools/benchmark.py')
    parser.add_argument('picture', help='PNG to write')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with open(args.table, encoding='utf-8') as file:
        cells = {cell['cell']: cell for cell in json.load(file)['cells']}
    console = Console()
    for title, values in (('Test accuracy (%)', accuracies), ('Epochs to 95 %', epochs)):
        show_table(console, ['cells', 'first', 'second', 'difference', 'seeds', 'so'], compare(cells, values), title)
    with styled():
        save(panels(cells), args.picture, columns=2)


if __name__ == '__main__':
    main()
