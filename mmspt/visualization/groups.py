"""Group runs: seeds of one setting under one name, and their curves with their spread."""
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import NamedTuple, TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmspt.evaluation.settings import differing_keys, name_values

from .run_folder import RunFolder

T = TypeVar('T')
X = TypeVar('X', int, float)
LAST = ('data_preprocessor', 'train.', 'load_from')  # keys that say little in a name
LONGEST = 60
"""Letters of a name in a legend."""


def group_runs(runs: Sequence[RunFolder]) -> dict[str, list[RunFolder]]:
    """Group the runs that differ in nothing but the seed and the places of files, in their order.

    Returns:
        dict[str, list[RunFolder]]: A short name, of the method and of what differs from its other settings -> runs.
    """
    settings: dict[str, list[RunFolder]] = defaultdict(list)
    for run in runs:
        d = run.description
        settings[json.dumps([d['task'], d['recipe']], sort_keys=True, default=str)].append(run)
    several = len({run.description['task'] for run in runs}) > 1
    names = [f'{run.description["task"]}: {run.label}' if several else run.label for run, *_ in settings.values()]
    recipes = [run.description['recipe'] for run, *_ in settings.values()]
    named: dict[str, list[RunFolder]] = {}
    for name, recipe, members in zip(names, recipes, settings.values(), strict=True):
        rivals = [other for rival, other in zip(names, recipes, strict=True) if rival == name]
        if len(rivals) > 1:
            keys = sorted(differing_keys(rivals), key=lambda key: key.startswith(LAST))
            name = ', '.join([name, *name_values(recipe, keys[:3])])
            name = name if len(name) <= LONGEST else f'{name[:LONGEST - 1]}…'
        if name in named:
            name = f'{name} ({len(named) + 1})'
        named[name] = members
    return named


def read_all(runs: Sequence[RunFolder], read: Callable[[RunFolder], T]) -> tuple[dict[RunFolder, T], str]:
    """Return what is read from each run, and a sentence for the caption that names those whose logs lack it.

    Raises:
        ValueError: All lack it.
    """
    found: dict[RunFolder, T] = {}
    errors: dict[str, ValueError] = {}
    for run in runs:
        try:
            found[run] = read(run)
        except ValueError as error:
            errors[run.folder] = error
    if not found:
        raise next(iter(errors.values()))
    return found, f' Left out, since their logs hold none of it yet: {", ".join(errors)}.' if errors else ''


class Spread(NamedTuple):
    """One point of several seeds' curves."""
    mean: float
    lowest: float
    highest: float


def spread(curves: Sequence[Mapping[X, float]], name: str) -> dict[X, Spread]:
    """Return mean and extremes of one setting's curves where all of them have a point; ValueError if nowhere."""
    places = sorted(set.intersection(*(set(curve) for curve in curves)))
    if not places:
        raise ValueError(f"seeds of one setting must have been logged at common moments, but those of '{name}' share "
                         'none: name one of its runs, or train the others on')
    values = {x: [curve[x] for curve in curves] for x in places}
    return {x: Spread(mean(v), min(v), max(v)) for x, v in values.items()}


def name_cut(curves: Sequence[Mapping[X, float]], name: str, unit: str) -> str:
    """Return a sentence for the caption if a setting's line ends early, since one of its seeds does."""
    lasts = [max(curve) for curve in curves]
    return '' if min(lasts) == max(lasts) else f" '{name}' ends at {unit} {min(lasts):g}, the last that all seeds have."


def plot_spread(axes: Axes, points: Mapping[X, Spread], name: str, seeds: int) -> None:
    """Draw a setting's mean as a line and lowest to highest as a band."""
    x = list(points)
    label = name if seeds == 1 else f'{name} ({seeds} seeds)'
    line, = axes.plot(x, [point.mean for point in points.values()], label=label, markevery=max(1, len(x) // 12))
    axes.fill_between(x, [point.lowest for point in points.values()], [point.highest for point in points.values()],
                      color=line.get_color(), alpha=0.2, linewidth=0)


def add_legend(figure: Figure, axes: Axes) -> None:
    """Draw the legend inside the axes if there is room, else below them."""
    labels = axes.get_legend_handles_labels()[1]
    if len(labels) <= 4 and max(map(len, labels)) <= 36:
        axes.legend()
    else:
        add_legend_below(figure, axes)


def add_legend_below(figure: Figure, axes: Axes) -> None:
    """Draw the legend below all axes, in as many columns as fit; the figure grows by its height."""
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, int(9.5 * figure.get_figwidth() / max(map(len, labels))))
    figure.set_figheight(figure.get_figheight() + 0.3 * -(-len(labels) // columns))
    figure.legend(handles, labels, loc='outside lower center', ncols=columns)
