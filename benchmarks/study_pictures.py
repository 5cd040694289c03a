#!/usr/bin/env python
"""Draw the pictures of docs/results.md from the study's records: python benchmarks/study_pictures.py"""
import io
import os.path as osp
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import product
from operator import add

import matplotlib
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, NullLocator, ScalarFormatter
from rich.console import Console

from mmspt.files import write_bytes
from mmspt.visualization.groups import add_legend_below, plot_spread, spread
from mmspt.visualization.picture import styled
from study_plan import BACKBONES, ROOT, TASKS, Cell
from study_records import RATE, Record, Records, accuracies, read_records

SHOWN = ('Linear', 'Full', 'VPT-Deep', 'SPT-Deep, random sample', 'SPT-Deep, K-means')
Panel = Mapping[str, Record]  # method -> record of a backbone, a task and 20 prompts


def numbers(values: Mapping[str, float], scale: float = 1.) -> dict[int, float]:
    """Return a curve of a record, scaled, with epochs or iterations as numbers in order."""
    return dict(sorted((int(x), scale * y) for x, y in values.items()))


def colour(axes: Axes, methods: Iterable[str]) -> None:
    """Give the next lines their methods' colours, the same in every picture."""
    styles = list(matplotlib.rcParams['axes.prop_cycle'])
    used = [styles[SHOWN.index(method)] for method in methods]
    axes.set_prop_cycle(reduce(add, (cycler(key, [style[key] for style in used]) for key in used[0])))


def plot_seeds(axes: Axes, method: str, seeds: Sequence[Mapping[int, float]]) -> None:
    """Plot mean, lowest and highest of a method's seeds."""
    colour(axes, [method])
    plot_spread(axes, spread(seeds, method), method, len(seeds))


def mark_numbers(axes: Axes, places: Sequence[float]) -> None:
    """Name these places of a logarithmic x axis, and no others."""
    axes.set_xscale('log')
    axes.set_xticks(places, [f'{place:g}' for place in places], rotation=45)
    axes.xaxis.set_minor_locator(NullLocator())


def draw_curves(axes: Axes, panel: Panel) -> None:
    """Validation accuracy over epochs, of the chosen rate."""
    for method, record in panel.items():
        plot_seeds(axes, method, [numbers(curve) for curve in record['curves'].values()])
    axes.set(xlabel='epoch', ylabel='validation accuracy (%)')
    axes.xaxis.set_major_locator(MultipleLocator(5))


def draw_rates(axes: Axes, panel: Panel) -> None:
    """Last validation accuracy by rate."""
    colour(axes, panel)
    for method, record in panel.items():
        points = sorted((trial['settings'][RATE], trial['value']) for trial in record['trials'])
        axes.plot(*zip(*points, strict=True), label=method)
    axes.set(xlabel='peak learning rate', ylabel='last validation accuracy (%)')
    mark_numbers(axes, sorted({trial['settings'][RATE] for record in panel.values() for trial in record['trials']}))


def draw_nmi(axes: Axes, panel: Panel) -> None:
    """NMI over iterations."""
    for method, record in panel.items():
        if record['nmi']:
            plot_seeds(axes, method, [numbers(values, 1000) for values in record['nmi'].values()])
    axes.set(xlabel='iteration', ylabel='1000 x NMI, mean of blocks', yscale='log')
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in (digit * 10**power for power in range(-3, 4) for digit in (1, 2, 5))
                     if low <= tick <= high])
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_locator(NullLocator())


def draw_counts(axes: Axes, counts: Mapping[str, Mapping[int, Record]]) -> None:
    """Test accuracy by number of prompts."""
    for method, found in counts.items():
        by_seed = zip(*map(accuracies, found.values()), strict=True)
        plot_seeds(axes, method, [dict(zip(found, seed, strict=True)) for seed in by_seed])
    axes.set(xlabel='prompts', ylabel='test accuracy (%)')
    mark_numbers(axes, sorted({count for found in counts.values() for count in found}))


def count_prompts(records: Records, place: tuple[str, str]) -> dict[str, dict[int, Record]]:
    """Return method -> number of prompts -> record, of methods with several numbers."""
    found = {method: {cell.num_prompts: records[cell] for cell in sorted(records, key=lambda cell: cell.num_prompts)
                      if cell[:3] == (*place, method)} for method in SHOWN}
    return {method: counts for method, counts in found.items() if len(counts) > 1}


def draw_grid(panels: Mapping[tuple[str, str], Mapping], draw: Callable[[Axes, Mapping], None]) -> Figure:
    """Draw a panel for each backbone (row) and task (column)."""
    rows, columns = (list(dict.fromkeys(part)) for part in zip(*panels, strict=True))
    figure = Figure(figsize=(5.2 * len(columns), 4. * len(rows)))
    grid = figure.add_gridspec(len(rows), len(columns))
    axes = {place: figure.add_subplot(grid[rows.index(place[0]), columns.index(place[1])]) for place in panels}
    for place, panel in panels.items():
        draw(axes[place], panel)
        axes[place].set_title(f'{BACKBONES[place[0]]}, {TASKS[place[1]]}')
    add_legend_below(figure, max(axes.values(), key=lambda panel: len(panel.get_legend_handles_labels()[1])))
    return figure


def draw_study(records: Records) -> Iterator[tuple[str, Figure]]:
    """Yield name and figure of each picture of the records."""
    places = list(product(BACKBONES, TASKS))
    panels = {place: {method: records[cell] for method in SHOWN if (cell := Cell(*place, method)) in records}
              for place in places}
    panels = {place: panel for place, panel in panels.items() if panel}
    for name, draw in dict(curves=draw_curves, rates=draw_rates, nmi=draw_nmi).items():
        yield f'study_{name}', draw_grid(panels, draw)
    counts = {place: found for place in places if (found := count_prompts(records, place))}
    yield 'study_prompts', draw_grid(counts, draw_counts)


def main() -> None:
    with styled():
        for name, figure in draw_study(read_records()):
            path = osp.join(ROOT, 'docs', 'pictures', f'{name}.png')
            content = io.BytesIO()
            figure.savefig(content, format='png')
            write_bytes(path, content.getvalue())
            Console().print(path, soft_wrap=True)


if __name__ == '__main__':
    main()
