#!/usr/bin/env python
"""Draw the numbers of step.py.

    python benchmarks/plot.py benchmarks/results/step_xeon_mae.json docs/pictures/step.png
"""
import argparse
import json
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmspt.files import written_atomically

STYLES = {
    'keys and values': ('#0072B2', 'o'), 'concatenation': ('#D55E00', 's'), 'shallow': ('#009E73', '^'),
    'gated': ('#CC79A7', 'D'), 'gated (written out)': ('#E69F00', 'v'),
    'full fine-tuning': ('#555555', ''), 'no prompts (short end)': ('#56B4E9', ''),
}
OUTPUTS = dict(mae='mean of all tokens (MAE)', mocov3='CLS (MoCo-v3)')
KINDS = dict(step='forward and backward', forward='forward, eval mode')


def draw(case: Mapping[str, Any], axes: Axes) -> None:
    """Draw time over the time without prompts, by number of prompts."""
    lines: dict[str, dict[int, float]] = {}
    for name, row in case['variants'].items():
        path, _, count = name.partition(', ')
        if count:
            lines.setdefault(path, {})[int(count)] = row['over_none']
        elif path in STYLES:
            axes.axhline(row['over_none'], color=STYLES[path][0], linestyle='--', linewidth=1, label=path)
    for path, line in lines.items():
        colour, marker = STYLES[path]
        axes.plot(list(line), list(line.values()), color=colour, marker=marker, markersize=5, linewidth=2, label=path)
    axes.axhline(1., color='black', linewidth=1)
    axes.set_title(f'{OUTPUTS[case["outputs"]]}\n{KINDS[case["kind"]]}, {case["dtype"]}', fontsize=9)
    axes.set(xlabel='prompts', ylabel='time / time without prompts')
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description='Draw benchmark numbers')
    parser.add_argument('numbers', help='JSON of step.py')
    parser.add_argument('picture', help='PNG to write')
    args = parser.parse_args()
    with open(args.numbers, encoding='utf-8') as file:
        cases = json.load(file)['cases']
    columns = min(2, len(cases))
    rows = -(-len(cases) // columns)
    figure = Figure(figsize=(4.8 * columns, 3.4 * rows), dpi=120, layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for case, axes in zip(cases, grid.flat, strict=False):
        draw(case, axes)
    grid[0, 0].legend(frameon=False, fontsize=8)
    with written_atomically(args.picture) as beside:
        figure.savefig(beside, format='png')


if __name__ == '__main__':
    main()
