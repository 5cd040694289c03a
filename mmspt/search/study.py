"""The search's memory: an Optuna study in a SQLite file, which a killed search takes up again."""
import itertools
import os.path as osp
import random
from typing import Any
from urllib.parse import quote

import optuna
from mmengine.config import Config
from optuna import Study

from .space import Parameter

FILE = 'study.db'
RUNNING, FAILED = optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.FAIL
COMPLETE, PRUNED, WAITING = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED,
                             optuna.trial.TrialState.WAITING)


def identify(cfg: Config, space: list[Parameter], metric: str, amp: str | None) -> dict[str, str]:
    """Return what makes two searches the same: config, space, metric and precision, flat and as text."""
    settings = cfg.to_dict()
    for key in ('work_dir', 'resume', 'launcher'):
        settings.pop(key, None)
    flat = {f'config.{key}': value for key, value in _flatten(settings)}
    flat |= {f'space.{p.key}': repr(tuple(p)[1:]) for p in space}
    return flat | dict(metric=metric, amp=str(amp))


def _flatten(value: Any, prefix: str = '') -> list[tuple[str, str]]:
    if isinstance(value, list | tuple) and '{' in repr(value):
        value = {str(index): inner for index, inner in enumerate(value)}  # as text, the order of keywords would count
    if isinstance(value, dict) and value:
        return [pair for key, inner in value.items() for pair in _flatten(inner, f'{prefix}.{key}' if prefix else key)]
    return [(prefix, repr(value))]


def open_study(folder: str, identity: dict[str, str], seed: int, startup_trials: int, warmup_epochs: int) -> Study:
    """Create the study in ``folder``, or load it if it is one of the same search.

    Args:
        folder (str): Work directory of the search.
        identity (dict): Of :func:`identify`.
        seed (int): Seed of the sampler.
        startup_trials (int): Trials before any is pruned.
        warmup_epochs (int): Epochs of a trial before it may be pruned.

    Raises:
        ValueError: The study in ``folder`` is of another search.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = osp.join(osp.abspath(folder), FILE)
    try:
        # as a URI, in which no letter of the path has a meaning
        storage = optuna.storages.RDBStorage(f'sqlite:///file:{quote(path)}?uri=true',
                                             engine_kwargs=dict(connect_args=dict(timeout=60)))
        study = optuna.create_study(storage=storage, study_name='sweep', direction='maximize', load_if_exists=True)
        begun, trials = study.user_attrs.get('identity'), study.get_trials(deepcopy=False)
    except Exception as error:  # SQLAlchemy's, or Optuna's about a file of another version
        raise ValueError(f"a search must find its own database, but '{path}' cannot be read "
                         f'({str(error).strip().splitlines()[0]}): choose another --work-dir') from error
    if begun is None and trials:
        raise ValueError(f"a search must find its own database, but '{path}' holds another's trials: choose another "
                         '--work-dir')
    if begun is None:
        study.set_user_attr('identity', identity)
    elif begun != identity:
        differing = sorted(key for key in begun.keys() | identity.keys() if begun.get(key) != identity.get(key))
        shown = '; '.join(f'{key} was {begun.get(key, "absent")}, is {identity.get(key, "absent")}'
                          for key in differing[:3])
        raise ValueError(f"a search must go on with what it began with, but for '{folder}' {len(differing)} settings "
                         f'differ ({shown}): take the old config and settings, or another --work-dir')
    # the sampler's state is not stored: a search that goes on must not draw the same numbers again
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(trials))
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=startup_trials, n_warmup_steps=warmup_epochs)
    return study


def grid(space: list[Parameter], seed: int) -> list[dict[str, Any]]:
    """Return all combinations of listed values, shuffled; none if a setting has a range: Optuna's TPE draws then."""
    if any(parameter.choices is None for parameter in space):
        return []
    combinations = [dict(zip((p.key for p in space), values, strict=True))
                    for values in itertools.product(*(p.choices or () for p in space))]
    random.Random(seed).shuffle(combinations)
    return combinations


def take_up(study: Study) -> int:
    """Queue the trials that a killed search left running again, with the same settings; return their number."""
    left = study.get_trials(states=(RUNNING, ))
    for trial in left:
        # the search may have been killed before the trial took what was queued for it
        settings = trial.user_attrs.get('queued', {}) | trial.params
        if settings:
            queue(study, settings)  # first, or a kill in between would lose the settings
        study.tell(trial.number, state=FAILED)
    return len(left)


def queue(study: Study, settings: dict[str, Any]) -> None:
    """Let the next trial have these settings."""
    study.enqueue_trial(settings, user_attrs=dict(queued=settings))


def count(study: Study) -> int:
    """Count the trials that are done, by a value or by pruning."""
    return len(study.get_trials(deepcopy=False, states=(COMPLETE, PRUNED)))


def best(study: Study) -> optuna.trial.FrozenTrial | None:
    """The best trial that ran to its end, None before there is one."""
    return study.best_trial if study.get_trials(deepcopy=False, states=(COMPLETE, )) else None
