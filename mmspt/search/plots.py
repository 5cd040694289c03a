"""Optuna's own pictures of a search, as files."""
import os
import os.path as osp
import warnings
from typing import Any

import matplotlib
import optuna
from optuna.visualization import matplotlib as pictures

from .space import Parameter
from .study import COMPLETE


def plot(study: optuna.Study, space: list[Parameter], metric: str, folder: str) -> list[str]:
    """Draw history, curves of all trials and slices; for two settings or more parallel coordinates and importances.

    Args:
        study (optuna.Study): With a finished trial at least.
        space (list[Parameter]): What it varied.
        metric (str): Name of the value, for the axes.
        folder (str): Where the PNGs go; made if need be.

    Returns:
        list[str]: Their paths.
    """
    finished = study.get_trials(deepcopy=False, states=(COMPLETE, ))
    if not finished:
        return []
    os.makedirs(folder, exist_ok=True)
    keys, name = [parameter.key for parameter in space], f'validation {metric}'
    jobs: dict[str, Any] = dict(history=lambda: pictures.plot_optimization_history(study, target_name=name),
                validations=lambda: pictures.plot_intermediate_values(study),
                slices=lambda: pictures.plot_slice(study, params=keys, target_name=name))
    if len(keys) > 1:
        jobs['parallel_coordinates'] = lambda: pictures.plot_parallel_coordinate(study, params=keys, target_name=name)
        if len({trial.value for trial in finished}) > 1:
            jobs['importances'] = lambda: pictures.plot_param_importances(study, target_name=name)
    paths = []
    with matplotlib.rc_context(dict(backend='agg')), warnings.catch_warnings():
        warnings.simplefilter('ignore', optuna.exceptions.ExperimentalWarning)
        for job, draw in jobs.items():
            axes: Any = draw()
            figure = (axes.ravel()[0] if hasattr(axes, 'ravel') else axes).figure
            paths.append(osp.join(folder, f'{job}.png'))
            figure.savefig(f'{paths[-1]}.tmp', format='png', dpi=120, bbox_inches='tight')
            os.replace(f'{paths[-1]}.tmp', paths[-1])
            matplotlib.pyplot.close(figure)
    return paths
