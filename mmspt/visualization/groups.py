"""Runs put together: seeds of one setting under one name, and their curves with their spread."""
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import NamedTuple, TypeVar

from matplotlib.axes import Axes

from mmspt.evaluation.settings import differing_keys, name_values

from .run_folder import RunFolder

X = TypeVar('X', int, float)
LONGEST = 60
"""Letters of a name in a legend."""


def group_runs(runs: Sequence[RunFolder]) -> dict[str, list[RunFolder]]:
    """Put runs together that differ in nothing but the seed and where files lie.

    Args:
        runs (Sequence[RunFolder]): One or more.

    Returns:
        dict[str, list[RunFolder]]: A short name, of the method and of what sets the setting apart from others of its
        method -> its runs; in the order of ``runs``.
    """
    settings: dict[str, list[RunFolder]] = defaultdict(list)
    for run in runs:
        settings[json.dumps(run.description['recipe'], sort_keys=True, default=str)].append(run)
    named: dict[str, list[RunFolder]] = {}
    for members in settings.values():
        rivals = [other[0] for other in settings.values() if other[0].label == members[0].label]
        name = members[0].label
        if len(rivals) > 1:
            recipes = [rival.description['recipe'] for rival in rivals]
            name = ', '.join([name, *name_values(members[0].description['recipe'], differing_keys(recipes)[:3])])
            name = name if len(name) <= LONGEST else f'{name[:LONGEST - 1]}…'
        if name in named:
            name = f'{name} ({len(named) + 1})'
        named[name] = members
    return named


class Spread(NamedTuple):
    """One point of several seeds' curves."""
    mean: float
    lowest: float
    highest: float


def spread(curves: Sequence[Mapping[X, float]]) -> dict[X, Spread]:
    """Put curves together at the places that all of them have."""
    places = sorted(set.intersection(*(set(curve) for curve in curves)))
    values = {x: [curve[x] for curve in curves] for x in places}
    return {x: Spread(mean(v), min(v), max(v)) for x, v in values.items()}


def plot_spread(axes: Axes, points: Mapping[X, Spread], label: str | None) -> None:
    """Draw the mean as a line and lowest to highest as a band."""
    x = list(points)
    line, = axes.plot(x, [point.mean for point in points.values()], label=label, markevery=max(1, len(x) // 12))
    axes.fill_between(x, [point.lowest for point in points.values()], [point.highest for point in points.values()],
                      color=line.get_color(), alpha=0.2, linewidth=0)


def count_seeds(name: str, members: Sequence[RunFolder]) -> str:
    """The name, with the number of runs where it is more than one."""
    return name if len(members) == 1 else f'{name} ({len(members)} seeds)'
