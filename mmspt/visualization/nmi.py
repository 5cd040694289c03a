"""NMI of prompts and patches while runs train, from their logs (SPT, https://arxiv.org/abs/2402.02382, figure 2)."""
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from mmspt.evaluation import read_records

from .groups import count_seeds, group_runs, plot_spread, spread
from .picture import Picture, styled
from .run_folder import RunFolder

WIDE = 30.
"""Highest over lowest mean NMI from which on the axes are logarithmic."""
TINY = 1e-6
"""Below this, NMI is rounding; of the highest, what a logarithmic scale still shows."""


class Measurement(NamedTuple):
    """What PromptNMIHook logged at one moment."""
    iteration: int
    layers: tuple[float, ...]
    """NMI of blocks 1, ..., L."""

    @property
    def mean(self) -> float:
        """Over the blocks."""
        return sum(self.layers) / len(self.layers)


def read_nmi(run: RunFolder) -> dict[float, Measurement]:
    """Read a run's measurements, where it was resumed the later ones: epochs done -> measurement.

    Raises:
        ValueError: There are none.
    """
    found = {}
    for record in read_records(run.folder):
        if 'nmi/epoch' in record:
            layers = sorted((key, value) for key, value in record.items() if key.startswith('nmi/layer_'))
            found[float(record['nmi/epoch'])] = Measurement(int(record['step']), tuple(value for _, value in layers))
    if not found:
        run.check_has_prompts()
        hooks = run.config.get('default_hooks') or {}
        replace = 'default_hooks.nmi._delete_=True ' if 'nmi' in hooks and hooks['nmi'] is None else ''
        raise ValueError(f"a run must have NMI in its logs, but '{run.folder}' ({run.label}) has none: train it with "
                         f'PromptNMIHook: python tools/train.py {run.config_path} --work-dir {run.folder}_nmi '
                         f'--cfg-options {replace}default_hooks.nmi.type=mmspt.PromptNMIHook')
    return dict(sorted(found.items()))


def draw_nmi(runs: Sequence[RunFolder]) -> Picture:
    """Draw the mean NMI of each setting over epochs, and below it each setting's NMI by block and epoch.

    Args:
        runs (Sequence[RunFolder]): One or more, of one depth.

    Raises:
        ValueError: A run without NMI in its logs, or runs of different depth.
    """
    logs = {run.folder: read_nmi(run) for run in runs}
    depths = {folder: len(next(iter(log.values())).layers) for folder, log in logs.items()}
    if len(set(depths.values())) > 1:
        listed = ', '.join(f"'{folder}' has {depth}" for folder, depth in depths.items())
        raise ValueError(f'runs must have one depth to stand side by side, but {listed} blocks: draw them apart, '
                         'python tools/analyze.py nmi RUN')
    groups = group_runs(runs)
    points = {name: spread([{epoch: m.mean for epoch, m in logs[run.folder].items()} for run in members])
              for name, members in groups.items()}
    layers = {name: np.array([np.mean([logs[run.folder][epoch].layers for run in members], axis=0)
                              for epoch in points[name]]).T for name, members in groups.items()}  # (L, epochs)
    columns = 2 if len(groups) == 4 else min(len(groups), 3)
    maps = math.ceil(len(groups) / columns)
    with styled():
        figure = Figure(figsize=(max(7., 4.2 * columns), 4.2 + 3.4 * maps))
        grid = figure.add_gridspec(1 + maps, columns, height_ratios=[4.2] + [3.4] * maps)
        top = figure.add_subplot(grid[0, :])
        for name, members in groups.items():
            plot_spread(top, points[name], count_seeds(name, members))
        values = [point.mean for line in points.values() for point in line.values()]
        wide = max(values) > WIDE * max(min(values), TINY)
        top.set(xlabel='epoch', ylabel='NMI, mean over blocks', xlim=(0, None), **(
            dict(yscale='log') if wide else dict(ylim=(0, None))))
        if wide:
            _label(top.yaxis)
        top.legend()
        lowest, highest = (float(limit([limit(table) for table in layers.values()])) for limit in (np.min, np.max))
        norm = LogNorm(max(lowest, highest * TINY), highest, clip=True) if wide else Normalize(0, highest)
        below = []
        for place, (name, table) in enumerate(layers.items()):
            below.append(figure.add_subplot(grid[1 + place // columns, place % columns]))
            mesh = _heat_map(below[-1], list(points[name]), table, norm)
            below[-1].set_title(name, fontsize='medium')
        bar = figure.colorbar(mesh, ax=below, label='NMI')
        if wide:
            _label(bar.ax.yaxis)
    rows = [(name, run.folder, epoch, m.iteration, layer, value) for name, members in groups.items() for run in members
            for epoch, m in logs[run.folder].items()
            for layer, value in [*enumerate(m.layers, 1), ('mean', m.mean)]]
    ends = '; '.join(f'{name}: {line[0].mean:.3g} at first, {line[-1].mean:.3g} at last'
                     for name, line in ((name, list(line.values())) for name, line in points.items()))
    caption = ('Normalized mutual information of the prompts and the patch tokens that a block reads, on training '
               f'images that stay the same; 0 is independence. Above the mean over blocks ({ends}; bands: lowest to '
               'highest seed), below each block.')
    return Picture('nmi', 'Mutual information of prompts and patches', caption, figure,
                   ('setting', 'folder', 'epoch', 'iteration', 'layer', 'nmi'), rows)


def _heat_map(axes: Axes, epochs: list[float], table: np.ndarray, norm: Normalize) -> QuadMesh:
    """Block x epoch, (L, epochs): each measurement fills the time until the next is nearer."""
    middles = [(a + b) / 2 for a, b in pairwise(epochs)]
    mesh = axes.pcolormesh([epochs[0], *middles, max(epochs[-1], epochs[0] + 1e-6)],
                           np.arange(len(table) + 1) + 0.5, np.maximum(table, norm.vmin or 0), norm=norm,
                           rasterized=True)
    axes.set(xlabel='epoch', ylabel='block', yticks=_ticks(len(table)))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(False)
    return mesh


def _label(axis: Axis) -> None:
    """Plain numbers on a logarithmic axis, more than one for each power of ten."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, place: f'{value:g}'))
    axis.set_minor_locator(NullLocator())


def _ticks(depth: int) -> list[int]:
    step = math.ceil(depth / 6)
    return list(range(1, depth + 1, step))
