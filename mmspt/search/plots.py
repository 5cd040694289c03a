"""Optuna's own pictures of a search, as files."""
import os
import os.path as osp
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib
import optuna
from matplotlib import pyplot
from optuna.visualization import matplotlib as pictures

from mmspt.files import written_atomically

from .queue import COMPLETE


def plot(study: optuna.Study, metric: str, folder: str) -> list[str]:
    """Draw history, validations and slices; for two settings or more parallel coordinates and importances.

    Args:
        study (optuna.Study): Nothing is drawn before it has a finished trial.
        metric (str): Name of the value, for the axes.
        folder (str): Where the PNGs go; made if need be.

    Returns:
        list[str]: Their paths.
    """
    finished = study.get_trials(deepcopy=False, states=(COMPLETE, ))
    if not finished:
        return []
    names = dict(target_name=f'validation {metric}')
    jobs: dict[str, tuple[Callable, dict[str, Any]]] = dict(
        history=(pictures.plot_optimization_history, names), validations=(pictures.plot_intermediate_values, {}),
        slices=(pictures.plot_slice, names))
    if len(finished[0].params) > 1:
        jobs['parallel_coordinates'] = pictures.plot_parallel_coordinate, names
        if len({trial.value for trial in finished}) > 1:  # else there is nothing to explain
            jobs['importances'] = pictures.plot_param_importances, names
    os.makedirs(folder, exist_ok=True)
    paths = []
    with matplotlib.rc_context(dict(backend='agg')), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Optuna's, that its pictures are experimental
        study = _shorten(study)
        for job, (draw, options) in jobs.items():
            draw(study, **options)
            figure = pyplot.gcf()
            if job in ('slices', 'parallel_coordinates'):
                figure.set_size_inches(4 * len(finished[0].params), 4.8)
            paths.append(osp.join(folder, f'{job}.png'))
            with written_atomically(paths[-1]) as beside:
                figure.savefig(beside, format='png', bbox_inches='tight')
            pyplot.close(figure)
    return paths


def _shorten(study: optuna.Study) -> optuna.Study:
    """Copy a study with the last parts of its keys as names, if they differ: Optuna cuts long names off."""
    trials = study.get_trials()
    names = {key: key.rpartition('.')[2] for trial in trials for key in trial.params}
    if len(set(names.values())) < len(names):
        return study
    copy = optuna.create_study(direction='maximize')
    for trial in trials:
        trial.params = {names[key]: value for key, value in trial.params.items()}
        trial.distributions = {names[key]: value for key, value in trial.distributions.items()}
        copy.add_trial(trial)
    return copy
