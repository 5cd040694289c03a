"""NMI of prompts and patches while runs train, from their logs (SPT, https://arxiv.org/abs/2402.02382, figure 2)."""
import math
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmspt.config import find_hook
from mmspt.evaluation import read_records

from .groups import add_legend, group_runs, name_cut, plot_spread, read_all, spread
from .picture import Picture, label_log_axis, styled
from .run_folder import RunFolder

WIDE = 30.
"""Axes are logarithmic if the highest mean NMI is this many times the lowest; colours also if the highest NMI of a
block is this many times the median, since half of the map would be of one colour."""
TINY = 1e-6
"""NMI below this is rounding; a logarithmic scale goes down to this share of the highest value."""


class Measurement(NamedTuple):
    """A measurement of PromptNMIHook."""
    iteration: int
    layers: tuple[float, ...]  # of blocks 1, ..., L
    mean: float


def read_nmi(run: RunFolder) -> dict[float, Measurement]:
    """Return epochs done -> measurement; ValueError if there is none."""
    found = {}
    for record in read_records(run.folder):
        if 'nmi/epoch' in record:
            layers = tuple(record[key] for key in sorted(record) if key.startswith('nmi/layer_'))
            found[float(record['nmi/epoch'])] = Measurement(int(record['step']), layers, sum(layers) / len(layers))
    if not found:
        run.check_has_prompts()
        raise ValueError(f"a run must have NMI in its logs, but '{run.folder}' ({run.label}) has none: train it with "
                         f'PromptNMIHook: {run.command_to_retrain("nmi")} --cfg-options '
                         'default_hooks.nmi.type=mmspt.PromptNMIHook default_hooks.nmi.interval=50')
    return dict(sorted(found.items()))


def draw_nmi(runs: Sequence[RunFolder]) -> Picture:
    """Draw the mean NMI of each setting over epochs, and below it each setting's NMI by block and epoch.

    Raises:
        ValueError: No run with NMI in its logs, runs of several depths or normalizers, or no finite NMI.
    """
    logs, left_out = read_all(runs, read_nmi)
    runs = list(logs)
    hooks = [find_hook(run.config, 'PromptNMIHook') for run in runs]
    normalizers = [hook.get('normalizer', 'geometric') for hook in hooks]
    depths = [len(next(iter(log.values())).layers) for log in logs.values()]
    for what, values in (('blocks', depths), ('as normalizer', normalizers)):
        if len(set(values)) > 1:
            listed = ', '.join(f"'{run.folder}' has {value} {what}" for run, value in zip(runs, values, strict=True))
            raise ValueError(f'runs must be alike to stand side by side, but {listed}: draw them apart, '
                             'python tools/analyze.py nmi RUN')
    groups = group_runs(runs)
    means = {name: [{epoch: m.mean for epoch, m in logs[run].items()} for run in members]
             for name, members in groups.items()}
    points = {name: spread(lines, name) for name, lines in means.items()}
    layers = {name: np.array([np.mean([logs[run][epoch].layers for run in members], axis=0)
                              for epoch in points[name]]).T for name, members in groups.items()}  # (L, epochs)
    finite = np.concatenate([table[np.isfinite(table)] for table in layers.values()])
    broken = [run.folder for run, log in logs.items() if not all(np.isfinite(m.layers).all() for m in log.values())]
    if not finite.size:
        raise ValueError(f'NMI must be finite somewhere, but it is not in {", ".join(broken)}: the prompts diverged, '
                         'train with a lower learning rate')
    columns = 2 if len(groups) == 4 else min(len(groups), 3)
    maps = math.ceil(len(groups) / columns)
    with styled():
        figure = Figure(figsize=(max(7., 4.2 * columns), 4.2 + 3.4 * maps))
        grid = figure.add_gridspec(1 + maps, columns, height_ratios=[4.2] + [3.4] * maps)
        top = figure.add_subplot(grid[0, :])
        for name, members in groups.items():
            plot_spread(top, points[name], name, len(members))
        shown = [point.mean for line in points.values() for point in line.values() if math.isfinite(point.mean)]
        wide = bool(shown) and max(shown) > WIDE * max(min(shown), TINY)
        top.set(xlabel='epoch', ylabel='NMI, mean over blocks', xlim=(0, None), **(
            dict(yscale='log') if wide else dict(ylim=(0, None))))
        top.xaxis.set_major_locator(MaxNLocator(integer=True))
        if wide:
            label_log_axis(top.yaxis)
        add_legend(figure, top)
        highest = float(finite.max())
        steep = wide or highest > WIDE * max(float(np.median(finite)), TINY)
        norm = LogNorm(max(float(finite.min()), highest * TINY), highest) if steep else Normalize(0, highest)
        below = []
        for place, (name, table) in enumerate(layers.items()):
            below.append(figure.add_subplot(grid[1 + place // columns, place % columns]))
            mesh = _heat_map(below[-1], list(points[name]), table, norm)
            below[-1].set_title(textwrap.fill(name, 30), fontsize='medium')
        bar = figure.colorbar(mesh, ax=below, label='NMI')
        if steep:
            label_log_axis(bar.ax.yaxis)
    rows = [(name, run.folder, epoch, m.iteration, layer, value) for name, members in groups.items() for run in members
            for epoch, m in logs[run].items() for layer, value in [*enumerate(m.layers, 1), ('mean', m.mean)]]
    ends = '; '.join(f'{name}: {line[0].mean:.3g} at first, {line[-1].mean:.3g} at last'
                     for name, line in ((name, list(line.values())) for name, line in points.items()))
    images = hooks[0].get('num_images') or 'up to 16'
    caption = ('Normalized mutual information of the prompts and the patch tokens that a block reads, on training '
               f'images that stay the same ({images}; normalizer: {normalizers[0]}); 0 is independence. Above the mean '
               f'over blocks ({ends}; bands: lowest to highest seed), below each block.'
               + ''.join(name_cut(lines, name, 'epoch') for name, lines in means.items()) + left_out)
    if broken:
        caption += f' Not finite in part, since prompts diverged: {", ".join(broken)}.'
    return Picture('nmi', 'Mutual information of prompts and patches', caption, figure,
                   ('setting', 'folder', 'epoch', 'iteration', 'layer', 'nmi'), rows)


def _heat_map(axes: Axes, epochs: list[float], table: np.ndarray, norm: Normalize) -> QuadMesh:
    """Draw (L, epochs), block by epoch: each measurement fills the time until the next is nearer."""
    middles = [(a + b) / 2 for a, b in pairwise(epochs)]
    mesh = axes.pcolormesh([epochs[0], *middles, max(epochs[-1], epochs[0] + 1e-6)],
                           np.arange(len(table) + 1) + 0.5, np.maximum(table, norm.vmin or 0), norm=norm,
                           rasterized=True)
    axes.set(xlabel='epoch', ylabel='block', yticks=range(1, len(table) + 1, math.ceil(len(table) / 6)))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(False)
    return mesh
