"""The search's loop: ask for settings, train, report each validation, prune, tell."""
import math
import os.path as osp
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna

from mmspt.evaluation import read_scalars

from .processes import TrainProcess
from .space import Parameter
from .study import COMPLETE, FAILED, PRUNED, RUNNING, WAITING, count, digest, queue

Launch = Callable[[dict[str, Any], str, dict[str, str]], TrainProcess]
"""(settings, work directory, environment) -> run."""
MAX_REPEATS = 50
"""Draws of settings that were tried before, after which a search ends: there are no others."""
INTERVAL = 0.5
"""Seconds between two looks at the runs."""
MAX_FAILURES = 3
"""Failed trials in a row, after which a search ends: the settings are not what is wrong."""


@dataclass
class RunningTrial:
    """A trial and its run."""
    trial: optuna.Trial
    settings: dict[str, Any]
    work_dir: str
    process: TrainProcess
    values: dict[int, float] = field(default_factory=dict)
    """Step -> validation, as far as they were reported."""

    def report(self, metric: str) -> bool:
        """Report each validation to Optuna once; return whether there was a new one."""
        values = read_scalars(self.work_dir, metric)
        new = sorted(values.keys() - self.values.keys())
        for step in new:
            self.trial.report(values[step], step)
        self.values = values
        return bool(new)


def search(study: optuna.Study, space: list[Parameter], combinations: Sequence[dict[str, Any]], launch: Launch,
           folder: str, environments: Sequence[dict[str, str]], num_trials: int, metric: str,
           on_change: Callable[[list[RunningTrial]], None], on_end: Callable[[RunningTrial, str], None]) -> None:
    """Run trials until ``num_trials`` are done, earlier searches counted, or no new setting is found.

    A setting whose trial failed is not tried again in the same call; the next call tries it again.

    Args:
        study (optuna.Study): Of :func:`mmspt.search.study.open_study`.
        space (list[Parameter]): What varies.
        combinations (Sequence[dict]): Settings to try in this order, of :func:`mmspt.search.study.grid`; if empty, the
            study's sampler chooses.
        launch (Launch): Starts a run.
        folder (str): Parent of the trials' work directories.
        environments (Sequence[dict]): One for each worker.
        num_trials (int): Finished and pruned trials to have in the end.
        metric (str): Validated quantity; a trial's value is its last.
        on_change (Callable): Called about twice a second with the running trials.
        on_end (Callable): Called with a trial and how it ended: 'finished', 'pruned' or 'failed'.

    Raises:
        RuntimeError: Trials fail one after the other (the message ends with the last one's output), or one ends without
            having logged ``metric``.
    """
    running: dict[int, RunningTrial] = {}  # by worker
    failed: list[dict[str, Any]] = []
    in_a_row, exhausted, done = 0, False, count(study)  # the database is asked only after something has happened
    try:
        while True:
            for worker, environment in enumerate(environments):
                current = running.get(worker)
                ended = current and _look_after(study, current, metric)
                if current and not ended:
                    continue
                if current and ended:
                    del running[worker]
                    done = count(study)
                    in_a_row = in_a_row + 1 if ended == 'failed' else 0
                    failed += [current.settings] if ended == 'failed' else []
                    on_end(current, ended)
                    if in_a_row >= MAX_FAILURES:
                        raise RuntimeError(f'{in_a_row} trials failed one after the other; see {current.process.log}, '
                                           f'which ends with\n{current.process.tail()}')
                drawn = None
                if not exhausted and done + len(running) < num_trials:
                    drawn = _draw(study, space, combinations, failed)
                    exhausted = drawn is None
                if drawn is not None:
                    trial, settings = drawn
                    work_dir = osp.join(folder, digest(settings, study.user_attrs['identity']))
                    trial.set_user_attr('work_dir', osp.basename(work_dir))
                    running[worker] = RunningTrial(trial, settings, work_dir, launch(settings, work_dir, environment))
            if not running:
                return
            on_change(list(running.values()))
            time.sleep(INTERVAL)
    finally:
        for current in running.values():
            current.process.stop()


def _draw(study: optuna.Study, space: list[Parameter], combinations: Sequence[dict[str, Any]],
          failed: Sequence[dict[str, Any]]) -> tuple[optuna.Trial, dict[str, Any]] | None:
    """Ask for a trial with settings that were not tried before; return None if there are none."""
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
    """Report, prune or end a trial; return how it ended, None while it runs."""
    status = current.process.poll()  # before the values are read: after the end no more are added
    validated = current.report(metric)
    if status is None and not (validated and current.trial.should_prune()):
        return None
    current.process.stop()
    if status == 0 and not current.values:
        study.tell(current.trial, state=FAILED)
        raise RuntimeError(f"a trial must validate and log '{metric}', but the finished one in {current.work_dir} "
                           'did not: see its scalars.json for what it logs, and give --metric')
    if status:
        study.tell(current.trial, state=FAILED)
        return 'failed'
    value = current.values[max(current.values)]
    if status is None or not math.isfinite(value):  # Optuna takes no NaN: the worst a run can be
        study.tell(current.trial, state=PRUNED)
        return 'pruned'
    study.tell(current.trial, value, state=COMPLETE)
    return 'finished'
