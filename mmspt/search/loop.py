"""The search's loop: ask for settings, train, report each validation, prune, tell."""
import hashlib
import json
import math
import os.path as osp
import time
from collections.abc import Callable, Sequence
from typing import Any

import optuna

from mmspt.evaluation import read_scalars

from .processes import TrainProcess
from .space import Parameter
from .study import COMPLETE, FAILED, PRUNED, RUNNING, WAITING, count, queue

Launch = Callable[[dict[str, Any], str, dict[str, str]], TrainProcess]
"""(settings, work directory, environment) -> run."""
MAX_REPEATS = 50
"""So many settings drawn that were tried before end a search: there are no others."""
INTERVAL = 0.5
"""Seconds between two looks at the runs."""
MAX_FAILURES = 3
"""So many failed trials in a row end a search: what is wrong is not the settings."""


def name_folder(*content: Any) -> str:
    """A folder's name for settings and whatever else its run depends on: the same for the same."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]


class RunningTrial:
    """A trial and its run."""

    def __init__(self, trial: optuna.Trial, settings: dict[str, Any], work_dir: str, process: TrainProcess) -> None:
        self.trial, self.settings, self.work_dir, self.process = trial, settings, work_dir, process
        self.values: dict[int, float] = {}

    def report(self, metric: str) -> bool:
        """Tell Optuna of each validation once; say whether there was one."""
        values = read_scalars(self.work_dir, metric)
        new = sorted(values.keys() - self.values.keys())
        for epoch in new:
            self.trial.report(values[epoch], epoch)
        self.values = values
        return bool(new)


def search(study: optuna.Study, space: list[Parameter], combinations: Sequence[dict[str, Any]], launch: Launch,
           folder: str, environments: Sequence[dict[str, str]], num_trials: int, metric: str,
           on_change: Callable[[list[RunningTrial]], None], on_end: Callable[[RunningTrial, str], None]) -> None:
    """Run trials until ``num_trials`` are done, those of earlier searches counted, or no new setting is found.

    A setting whose trial failed is not tried again in the same call; the next call tries it again.

    Args:
        study (optuna.Study): Of :func:`mmspt.search.study.open_study`.
        space (list[Parameter]): What varies.
        combinations (Sequence[dict]): Settings to try in this order, of :func:`mmspt.search.study.grid`; if empty, the
            study's sampler chooses.
        launch (Launch): Starts a run.
        folder (str): Where the trials' work directories go.
        environments (Sequence[dict]): One for each worker.
        num_trials (int): Trials to have in the end, finished and pruned together.
        metric (str): Validated quantity; a trial's value is its last.
        on_change (Callable): Called about twice a second with the running trials.
        on_end (Callable): Called with a trial and how it ended.

    Raises:
        RuntimeError: Trials fail one after the other (the message ends with the last one's output), or one ends without
            having logged ``metric``.
    """
    running: list[RunningTrial | None] = [None] * len(environments)
    failed: list[dict[str, Any]] = []
    in_a_row, exhausted, done = 0, False, count(study)  # the database is asked when something has happened
    try:
        while True:
            for worker, current in enumerate(running):
                if current is not None:
                    ended = _look_after(study, current, metric)
                    if ended is None:
                        continue
                    running[worker], done = None, count(study)
                    in_a_row = in_a_row + 1 if ended == 'failed' else 0
                    failed += [current.trial.params] if ended == 'failed' else []
                    on_end(current, ended)
                    if in_a_row >= MAX_FAILURES:
                        raise RuntimeError(f'{in_a_row} trials failed one after the other; see {current.process.log}, '
                                           f'which ends with\n{current.process.tail()}')
                if not exhausted and done + sum(r is not None for r in running) < num_trials:
                    drawn = _draw(study, space, combinations, failed)
                    exhausted = drawn is None
                    if drawn is not None:
                        trial, settings = drawn
                        work_dir = osp.join(folder, name_folder(settings, study.user_attrs.get('identity')))
                        trial.set_user_attr('work_dir', osp.basename(work_dir))
                        running[worker] = RunningTrial(trial, settings, work_dir,
                                                       launch(settings, work_dir, environments[worker]))
            active = [r for r in running if r is not None]
            if not active:
                return
            on_change(active)
            time.sleep(INTERVAL)
    finally:
        for current in running:
            if current is not None:
                current.process.stop()


def _draw(study: optuna.Study, space: list[Parameter], combinations: Sequence[dict[str, Any]],
          failed: Sequence[dict[str, Any]]) -> tuple[optuna.Trial, dict[str, Any]] | None:
    """Ask for a trial with settings that were not tried before; None if there are none."""
    for _ in range(MAX_REPEATS):
        tried = [trial.params for trial in study.get_trials(deepcopy=False, states=(COMPLETE, PRUNED, RUNNING))]
        tried += failed
        if combinations and not study.get_trials(deepcopy=False, states=(WAITING, )):
            settings = next((settings for settings in combinations if settings not in tried), None)
            if settings is None:
                return None
            queue(study, settings)
        trial = study.ask()
        settings = {parameter.key: parameter.suggest(trial) for parameter in space}
        if settings not in tried:
            return trial, settings
        study.tell(trial, state=FAILED)  # drawn again: nothing to learn
    return None


def _look_after(study: optuna.Study, current: RunningTrial, metric: str) -> str | None:
    """Report, prune or end a trial; say how it ended, None while it runs."""
    status = current.process.poll()  # before the values: what is there after the end is all
    validated = current.report(metric)
    if status is None:
        if not validated or not current.trial.should_prune():  # asked of the database, so not at every look
            return None
        current.process.stop()
        study.tell(current.trial, state=PRUNED)
        return 'pruned'
    current.process.stop()
    if status != 0 or not current.values:
        study.tell(current.trial, state=FAILED)
        if status == 0:
            raise RuntimeError(f"a trial must validate and log '{metric}', but the finished one in {current.work_dir} "
                               'did not: see its scalars.json for what it logs, and give --metric')
        return 'failed'
    value = current.values[max(current.values)]
    if not math.isfinite(value):  # Optuna takes none; as hopeless as a run can be
        study.tell(current.trial, state=PRUNED)
        return 'pruned'
    study.tell(current.trial, value, state=COMPLETE)
    return 'finished'
