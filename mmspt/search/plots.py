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

from .study import COMPLETE


def plot(study: optuna.Study, folder: str) -> list[str]:
    """Draw history, validations and slices; for two settings or more parallel coordinates and importances.

    Args:
        study (optuna.Study): Nothing is drawn before it has a finished trial.
        folder (str): Where the PNGs go; made if need be.

    Returns:
        list[str]: Their paths.
    """
    finished = study.get_trials(deepcopy=False, states=(COMPLETE, ))
    if not finished:
        return []
    jobs: dict[str, Callable[[optuna.Study], Any]] = dict(
        history=pictures.plot_optimization_history, validations=pictures.plot_intermediate_values,
        slices=pictures.plot_slice)
    if len(finished[0].params) > 1:
        jobs['parallel_coordinates'] = pictures.plot_parallel_coordinate
        if len({trial.value for trial in finished}) > 1:  # else there is nothing to explain
            jobs['importances'] = pictures.plot_param_importances
    os.makedirs(folder, exist_ok=True)
    paths = []
    with matplotlib.rc_context(dict(backend='agg')), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Optuna's, that its pictures are experimental
        for job, draw in jobs.items():
            draw(study)
            figure = pyplot.gcf()
            if job in ('slices', 'parallel_coordinates'):
                figure.set_size_inches(5 * len(finished[0].params), 4.8)  # room for the names of the settings
            paths.append(osp.join(folder, f'{job}.png'))
            figure.savefig(paths[-1], bbox_inches='tight')
            pyplot.close(figure)
    return paths
