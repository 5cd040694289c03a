#!/usr/bin/env python
"""Draw the pictures of docs/results.md from the study's records: python benchmarks/study_pictures.py"""
import io
import json
import os.path as osp
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from functools import reduce
from glob import glob
from itertools import product
from operator import add
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, NullLocator, ScalarFormatter
from rich.console import Console

from mmspt.files import write_bytes
from mmspt.visualization.groups import add_legend_below, count_seeds, plot_spread, spread
from mmspt.visualization.picture import styled
from study_numbers import RATE, Records, accuracies
from study_plan import BACKBONES, COUNTS, FULL, ROOT, TASKS, Cell, cells
from study_records import read_all

FOLDER = osp.join(ROOT, 'docs', 'pictures')
SHOWN = ('Linear', 'Full', 'VPT-Deep', 'SPT-Deep, random sample', 'SPT-Deep, K-means')
Place = tuple[str, str]  # backbone, task
Panels = dict[Place, dict[str, Mapping[str, Any]]]


def panels(records: Records) -> Panels:
    """Backbone and task with records -> method -> record, of those that are shown, with 20 prompts."""
    found = {place: {method: records[cell] for method in SHOWN if (cell := Cell(*place, method)) in records}
             for place in product(BACKBONES, TASKS)}
    return {place: methods for place, methods in found.items() if methods}


def title_of(place: Place) -> str:
    return f'{BACKBONES[place[0]]}, {TASKS[place[1]]}'


def numbers(values: Mapping[str, float]) -> dict[int, float]:
    """A curve with its places as numbers, in order."""
    return dict(sorted((int(x), y) for x, y in values.items()))


def colour(axes: Axes, methods: Iterable[str]) -> None:
    """Let the lines to come have their methods' colours, the same in every picture."""
    styles = list(matplotlib.rcParams['axes.prop_cycle'])
    used = [styles[SHOWN.index(method)] for method in methods]
    axes.set_prop_cycle(reduce(add, (cycler(key, [style[key] for style in used]) for key in used[0])))


def draw_curves(axes: Axes, methods: Mapping[str, Mapping[str, Any]]) -> None:
    """Validation accuracy over epochs, of the chosen rate."""
    colour(axes, methods)
    for method, record in methods.items():
        curves = [numbers(curve) for curve in record['curves'].values()]
        plot_spread(axes, spread(curves, method), count_seeds(method, len(curves)))
    axes.set(xlabel='epoch', ylabel='validation accuracy (%)')
    axes.xaxis.set_major_locator(MultipleLocator(5))


def draw_rates(axes: Axes, methods: Mapping[str, Mapping[str, Any]]) -> None:
    """Last validation accuracy by rate."""
    colour(axes, methods)
    for method, record in methods.items():
        points = sorted((trial['settings'][RATE], trial['value']) for trial in record['trials']
                        if trial['value'] is not None)
        axes.plot(*zip(*points, strict=True), label=method)
    axes.set(xlabel='peak learning rate', ylabel='last validation accuracy (%)', xscale='log')
    rates = sorted({trial['settings'][RATE] for record in methods.values() for trial in record['trials']})
    axes.set_xticks(rates, [f'{rate:g}' for rate in rates], rotation=45)
    axes.xaxis.set_minor_locator(NullLocator())


def draw_nmi(axes: Axes, methods: Mapping[str, Mapping[str, Any]]) -> None:
    """NMI over iterations."""
    measured = {method: record for method, record in methods.items() if record['nmi']}
    colour(axes, measured)
    for method, record in measured.items():
        series = [{x: 1000 * y for x, y in numbers(values).items()} for values in record['nmi'].values()]
        plot_spread(axes, spread(series, method), count_seeds(method, len(series)))
    axes.set(xlabel='iteration', ylabel='1000 x NMI, mean of blocks', yscale='log')
    low, high = axes.get_ylim()
    ticks = [digit * 10**power for power in range(-3, 4) for digit in (1, 2, 5) if low <= digit * 10**power <= high]
    axes.set_yticks(ticks)
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_locator(NullLocator())


def draw_counts(axes: Axes, place: Place, records: Records) -> bool:
    """Test accuracy by number of prompts; whether there are any."""
    drawn = False
    for method in SHOWN[2:]:
        colour(axes, [method])
        found = {cell.num_prompts: accuracies(record) for cell, record in records.items()
                 if (cell.backbone, cell.task, cell.method) == (*place, method)}
        if len(found) > 1:
            places = sorted(found)
            seeds = [{place: found[place][i] for place in places} for i in range(min(map(len, found.values())))]
            plot_spread(axes, spread(seeds, method), count_seeds(method, len(seeds)))
            drawn = True
    axes.set(xlabel='prompts', ylabel='test accuracy (%)', xscale='log')
    ticks = sorted((20, *COUNTS))
    axes.set_xticks(ticks, [str(count) for count in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(0.85 * ticks[0], ticks[-1] / 0.85)
    return drawn


def figure_of(places: Collection[tuple[Hashable, Hashable]]) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each place: a row for each first part, a column for each second, as they come."""
    rows, columns = (list(dict.fromkeys(part)) for part in zip(*places, strict=True))
    figure = Figure(figsize=(5.2 * len(columns), 4. * len(rows)))
    grid = figure.add_gridspec(len(rows), len(columns))
    return figure, [figure.add_subplot(grid[rows.index(row), columns.index(column)]) for row, column in places]


def draw(records: Records) -> Iterator[tuple[str, Figure]]:
    """Name and figure of every picture that the records have numbers for."""
    found = panels(records)
    for name, plot in dict(curves=draw_curves, rates=draw_rates, nmi=draw_nmi).items():
        chosen = {place: methods for place, methods in found.items()
                  if name != 'nmi' or any(record['nmi'] for record in methods.values())}
        if chosen:
            figure, axes = figure_of(chosen)
            for panel, (place, methods) in zip(axes, chosen.items(), strict=True):
                plot(panel, methods)
                panel.set_title(title_of(place))
            add_legend_below(figure, max(axes, key=lambda panel: len(panel.get_legend_handles_labels()[1])))
            yield f'study_{name}', figure
    places = [place for place in found if draw_counts(Figure().subplots(), place, records)]
    if places:
        figure, axes = figure_of(places)  # the trial above drew into another
        for panel, place in zip(axes, places, strict=True):
            draw_counts(panel, place, records)
            panel.set_title(title_of(place))
        add_legend_below(figure, axes[0])
        yield 'study_prompts', figure


def draw_pretraining() -> Iterator[tuple[str, Figure]]:
    """Loss of our own checkpoints, from the logs beside them."""
    paths = sorted(glob(osp.join(ROOT, 'configs', 'pretrain', '*_cifar10.log.json')))
    if paths:
        figure, axes = figure_of([('loss', path) for path in paths])
        for panel, path in zip(axes, paths, strict=True):
            with open(path, encoding='utf-8') as file:
                points = [json.loads(line) for line in file if line.strip()]
            panel.plot([point['step'] for point in points], [point['loss'] for point in points], marker='')
            title = osp.basename(path).removesuffix('.log.json')
            panel.set(xlabel='iteration', ylabel='loss', title=next(
                (name for key, name in BACKBONES.items() if key in title), title))
        yield 'study_pretraining', figure


def main() -> None:
    console = Console()
    with styled():
        for name, figure in (*draw_pretraining(), *draw(read_all(cells(), FULL))):
            path = osp.join(FOLDER, f'{name}.png')
            content = io.BytesIO()
            figure.savefig(content, format='png')
            write_bytes(path, content.getvalue())
            console.print(path, soft_wrap=True)


if __name__ == '__main__':
    main()
