"""The search's memory: an Optuna study in a SQLite file, which a killed search takes up again."""
import hashlib
import itertools
import json
import os.path as osp
import random
from typing import Any
from urllib.parse import quote

import optuna
from mmengine.config import Config
from optuna import Study

from mmspt.evaluation.description import CACHE

from .space import Parameter

FILE = 'study.db'
RUNNING, FAILED = optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.FAIL
COMPLETE, PRUNED, WAITING = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED,
                             optuna.trial.TrialState.WAITING)


def digest(*content: Any) -> str:
    """Return ten hexadecimal digits: the same for the same content, whatever the order of keywords."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest()[:10]


def identify(cfg: Config, space: list[Parameter], metric: str, amp: str | None) -> str:
    """Return a :func:`digest` of what makes two searches the same: config, space, metric and precision; not
    workers and caches, which depend on the machine."""
    ignored = ('work_dir', 'resume', 'launcher', 'workers')
    settings = {key: _without_machine(value) if key.endswith('_dataloader') else value
                for key, value in cfg.to_dict().items() if key not in ignored}
    return digest(settings, sorted(space, key=lambda parameter: parameter.key), metric, amp)


def _without_machine(part: Any) -> Any:
    """Leave out of a data loader's config what depends on the machine: workers, and the cache of images."""
    if isinstance(part, dict):
        return {key: None if key == 'num_workers' else _without_machine(value) for key, value in part.items()
                if key not in CACHE}
    return [_without_machine(value) for value in part] if isinstance(part, list | tuple) else part


def open_study(folder: str, identity: str, seed: int, startup_trials: int, warmup_epochs: int) -> Study:
    """Create the study in ``folder``, or load it if it is one of the same search.

    Args:
        folder (str): Work directory of the search.
        identity (str): Of :func:`identify`.
        seed (int): Seed of the sampler.
        startup_trials (int): Trials before any is pruned.
        warmup_epochs (int): Epochs of a trial before it may be pruned.

    Raises:
        ValueError: The study in ``folder`` is of another search.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # as a URI, in which no letter of the path has a meaning
    address = f'sqlite:///file:{quote(osp.join(osp.abspath(folder), FILE))}?uri=true'
    storage = optuna.storages.RDBStorage(address, engine_kwargs=dict(connect_args=dict(timeout=60)))
    study = optuna.create_study(storage=storage, study_name='sweep', direction='maximize', load_if_exists=True)
    trials = study.get_trials(deepcopy=False)
    if study.user_attrs.get('identity', None if trials else identity) != identity:
        raise ValueError("a search must go on with the config, space, metric and precision that it began with, but "
                         f"'{folder}' began with others: take these, or another --work-dir")
    study.set_user_attr('identity', identity)
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
