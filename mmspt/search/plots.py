"""Optuna's own pictures of a search, as files."""
import os
import os.path as osp
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import optuna
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from optuna.distributions import CategoricalDistribution
from optuna.visualization import matplotlib as pictures

from .space import Parameter, short_names
from .study import COMPLETE, FAILED, PRUNED

LONGEST = 20
"""Letters of a value on an axis."""


def plot(study: optuna.Study, space: list[Parameter], metric: str, unit: str, folder: str) -> list[str]:
    """Draw history, curves of all trials and slices; for two settings or more parallel coordinates and importances.

    Args:
        study (optuna.Study): Nothing is drawn before it has a finished trial.
        space (list[Parameter]): What it varied.
        metric (str): Name of the value, for the axes.
        unit (str): 'epoch' or 'iteration', in which validations are counted.
        folder (str): Where the PNGs go; made if need be.

    Returns:
        list[str]: Their paths.
    """
    finished = study.get_trials(deepcopy=False, states=(COMPLETE, ))
    if not finished:
        return []
    os.makedirs(folder, exist_ok=True)
    keys, name = list(short_names(space).values()), f'validation {metric}'
    study = rename(study, space)
    jobs: dict[str, Callable[[], Any]] = dict(
        history=lambda: pictures.plot_optimization_history(study, target_name=name),
        validations=lambda: pictures.plot_intermediate_values(study),
        slices=lambda: pictures.plot_slice(study, params=keys, target_name=name))
    if len(keys) > 1:
        jobs['parallel_coordinates'] = lambda: pictures.plot_parallel_coordinate(study, params=keys, target_name=name)
    if len(keys) > 1 and len({trial.value for trial in finished}) > 1:
        jobs['importances'] = lambda: pictures.plot_param_importances(study, target_name=name)
    paths = []
    with matplotlib.rc_context(dict(backend='agg')), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Optuna's about its own experimental pictures
        for job, draw in jobs.items():
            axes: Any = draw()
            figure = (axes.ravel()[0] if hasattr(axes, 'ravel') else axes).figure
            arrange(figure, job, name, unit, len(keys))
            paths.append(osp.join(folder, f'{job}.png'))
            figure.savefig(f'{paths[-1]}.tmp', format='png', dpi=120, bbox_inches='tight')
            os.replace(f'{paths[-1]}.tmp', paths[-1])
            matplotlib.pyplot.close(figure)
    return paths


def rename(study: optuna.Study, space: list[Parameter]) -> optuna.Study:
    """Copy a study with short names and values, which fit on axes; trials keep their numbers."""
    names = short_names(space)
    labels = {p.key: dict(zip(p.choices, _shorten(p.choices), strict=True)) for p in space if p.choices is not None}
    copy = optuna.create_study(direction='maximize')
    for trial in study.get_trials(deepcopy=False):
        if trial.state not in (COMPLETE, PRUNED):
            copy.add_trial(optuna.trial.create_trial(state=FAILED))
            continue
        copy.add_trial(optuna.trial.create_trial(
            state=trial.state, value=trial.value if trial.state == COMPLETE else None,
            params={names[key]: labels[key][value] if key in labels else value for key, value in trial.params.items()},
            distributions={names[key]: CategoricalDistribution(tuple(labels[key].values())) if key in labels else kind
                           for key, kind in trial.distributions.items()},
            intermediate_values=trial.intermediate_values))
    return copy


def _shorten(choices: Sequence[Any]) -> list[Any]:
    """The ends of long texts, such as paths, if they tell them apart."""
    ends = [f'…{c[1 - LONGEST:]}' if isinstance(c, str) and len(c) > LONGEST else c for c in choices]
    return ends if len(set(ends)) == len(ends) else list(choices)


def arrange(figure: Figure, job: str, metric: str, unit: str, count: int) -> None:
    """Give a picture room, and its axes and lines what Optuna leaves unsaid or invisible."""
    figure.set_size_inches(max(7.5, 3.2 * count) if job in ('slices', 'parallel_coordinates') else 7.5, 4.5)
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = axis.get_view_interval()
            if axis.get_scale() == 'log' and high < 100 * low:  # the labels of small ticks would overlap
                axis.set_minor_locator(NullLocator())
                axis.set_major_locator(MaxNLocator(3))
                axis.set_major_formatter(FuncFormatter(lambda value, place: f'{value:.3g}'))
        for lines in axes.collections:
            if job in ('slices', 'parallel_coordinates') and lines.get_array() is not None:
                lines.set_cmap('viridis')  # Optuna's lowest is white
        if job == 'slices' and any('…' in label.get_text() for label in axes.get_xticklabels()):
            axes.tick_params(axis='x', labelrotation=30)
    legend = figure.axes[0].get_legend()
    if job == 'validations':
        figure.axes[0].set(xlabel=unit, ylabel=metric)
        if legend is not None:
            handles, labels = figure.axes[0].get_legend_handles_labels()
            figure.axes[0].legend(handles, labels, bbox_to_anchor=(1.02, 1), loc='upper left', fontsize='small',
                                  ncols=1 + len(labels) // 20)
    elif job == 'importances' and legend is not None:
        legend.remove()  # one kind of bars, and it would hide one
