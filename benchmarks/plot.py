#!/usr/bin/env python
"""Draw the numbers of step.py, or of gpu.py.

    python benchmarks/plot.py benchmarks/results/step_xeon_mae.json docs/pictures/step.png
"""
import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmspt.files import written_atomically

STYLES = {
    'keys and values': ('#0072B2', 'o'), 'concatenation': ('#D55E00', 's'), 'shallow': ('#009E73', '^'),
    'gated': ('#CC79A7', 'D'), 'gated (written out)': ('#E69F00', 'v'), 'bilinear': ('#000000', 'P'),
    'full fine-tuning': ('#555555', ''), 'no prompts (short end)': ('#56B4E9', ''),
}
OUTPUTS = dict(mae='mean of all tokens (MAE)', mocov3='CLS (MoCo-v3)')
LOADER = (('#D55E00', 's'), ('#0072B2', 'o'))
KINDS = dict(step='forward and backward', forward='forward, eval mode')


def draw(variants: Mapping[str, Any], axes: Axes, title: str) -> None:
    """Draw time over the time without prompts, by number of prompts; without the variants that failed."""
    lines: dict[str, dict[int, float]] = {}
    for name, row in variants.items():
        if 'over_none' not in row:
            continue
        path, _, count = name.partition(', ')
        if count:
            lines.setdefault(path, {})[int(count)] = row['over_none']
        elif path in STYLES:
            axes.axhline(row['over_none'], color=STYLES[path][0], linestyle='--', linewidth=1, label=path)
    for path, line in lines.items():
        colour, marker = STYLES[path]
        axes.plot(list(line), list(line.values()), color=colour, marker=marker, markersize=5, linewidth=2, label=path)
    axes.axhline(1., color='black', linewidth=1)
    describe(axes, title, 'prompts', 'time / time without prompts')


def draw_loader(rows: list[dict[str, Any]], axes: Axes, batch: int) -> None:
    """Draw images a second, in the second epoch, by number of workers; and those of steps alone."""
    alone = [row['images_per_second'] for row in rows if row['workers'] is None]
    for cache, (colour, marker) in zip((None, 'memory'), LOADER, strict=True):
        line = {row['workers']: row['epochs'][-1]['images_per_second'] for row in rows if row['cache'] == cache and
                'epochs' in row}
        axes.plot(list(line), list(line.values()), color=colour, marker=marker, label=f'cache: {cache or "none"}')
    for rate in alone:
        axes.axhline(rate, color='black', linewidth=1, label='steps alone')
    axes.set_ylim(bottom=0)
    describe(axes, f'training from JPEGs, batch {batch}', 'workers', 'images a second')


def draw_kmeans(rows: list[dict[str, Any]], axes: Axes) -> None:
    """Draw the seconds of each part, on top of each other."""
    places, bottoms = range(len(rows)), [0.] * len(rows)
    for part, colour in (('loader', '#E69F00'), ('forward', '#56B4E9'), ('prompts', '#009E73')):
        heights = [row['parts'][part] for row in rows]
        axes.barh(places, heights, left=bottoms, color=colour, label='clustering' if part == 'prompts' else part)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    axes.set_yticks(places, [f'{row["backend"]}, {row["prompts"]}' for row in rows])
    axes.invert_yaxis()
    describe(axes, 'K-means', 'seconds', 'backend, prompts')


def describe(axes: Axes, title: str, x: str, y: str) -> None:
    """Write title and labels."""
    axes.set_title(title, fontsize=9)
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)


def draw_gpu(content: Mapping[str, Any], path: str) -> None:
    """Draw the parts that have numbers, a panel for each batch size; nothing is written if none has."""
    parts = {part: [row for row in rows if 'case' not in row] for part, rows in content['parts'].items()}
    steps, loader, kmeans = (parts.get(part, []) for part in ('steps', 'loader', 'kmeans'))
    batches = {part: list(dict.fromkeys(row['batch_size'] for row in parts.get(part, [])))
               for part in ('steps', 'loader')}
    panels: list[Callable[[Axes], None]] = []
    for compiled, batch in product((False, True), batches['steps']):
        chosen = {row['variant']: row for row in steps if (row['batch_size'], row['compiled']) == (batch, compiled)}
        if chosen:
            panels.append(partial(draw, chosen, title=f'step, batch {batch}{", compiled" if compiled else ""}'))
    for batch in batches['loader']:
        panels.append(partial(draw_loader, [row for row in loader if row['batch_size'] == batch], batch=batch))
    if kmeans:
        panels.append(partial(draw_kmeans, kmeans))
    save(panels, path, columns=3)


def save(panels: Sequence[Callable[[Axes], None]], path: str, columns: int, sharey: bool = False) -> None:
    """Draw panels side by side and write the picture; none if there are no panels."""
    if not panels:
        return
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.8 * columns, 3.4 * rows), dpi=120, layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    seen: set[tuple[str, ...]] = set()
    for axes in grid.flat[len(panels):]:
        axes.set_axis_off()
    for panel, axes in zip(panels, grid.flat, strict=False):
        panel(axes)
        labels = tuple(axes.get_legend_handles_labels()[1])
        if labels and labels not in seen:  # once for panels that are alike
            axes.legend(frameon=False, fontsize=8)
            seen.add(labels)
    with written_atomically(path) as beside:
        figure.savefig(beside, format='png')


def main() -> None:
    parser = argparse.ArgumentParser(description='Draw benchmark numbers')
    parser.add_argument('numbers', help='JSON of step.py or gpu.py')
    parser.add_argument('picture', help='PNG to write')
    args = parser.parse_args()
    with open(args.numbers, encoding='utf-8') as file:
        content = json.load(file)
    if 'parts' in content:
        draw_gpu(content, args.picture)
        return
    titles = [f'{OUTPUTS[case["outputs"]]}\n{KINDS[case["kind"]]}, {case["dtype"]}' for case in content['cases']]
    save([partial(draw, case['variants'], title=title) for case, title in zip(content['cases'], titles, strict=True)],
         args.picture, columns=2, sharey=True)


if __name__ == '__main__':
    main()
