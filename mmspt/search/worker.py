"""A worker: takes runs of a plan, trains them side by side, tells each validation, prunes, tests."""
import contextlib
import math
import os
import os.path as osp
import re
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from glob import escape, glob
from pathlib import Path
from typing import Any, Protocol

from mmengine.config import Config
from optuna.trial import FrozenTrial

from mmspt.engine.checks import check_work_dir
from mmspt.engine.optimizers import warn_of_slow_bfloat16
from mmspt.engine.reliability.last_checkpoint import find_latest
from mmspt.evaluation import RESULT_FILE, read_result, read_scalars
from mmspt.files import write_text

from .cell import Cell, check_files, digest
from .processes import TrainProcess, stop_all
from .queue import COMPLETE, MAX_FAILURES, PRUNED, TEST, TRIAL, Job, Lost, Queue
from .space import as_options
from .storage import patiently

WORKERS = 'configs', '_base_', 'datasets', 'workers.py'
"""Config that says how many workers a data loader has on this machine."""
INTERVAL = 0.5
"""Seconds between two looks at the runs."""
IDLE = 5.
"""Seconds between two looks for a run where there was none."""


class Process(Protocol):
    """What a worker asks of a run, see :class:`mmspt.search.processes.TrainProcess`."""
    log: str

    def poll(self) -> int | None: ...
    def stop(self) -> None: ...
    def tail(self) -> str: ...


Launch = Callable[[Job, str, Mapping[str, str]], Process]
"""(run, work directory, environment) -> process."""


@dataclass
class Running:
    """A run and its process."""
    job: Job
    work_dir: str
    process: Process
    began: float = field(default_factory=time.monotonic)
    value: float | None = None
    """What it ended with: its last validation, or its test."""
    size: int = -1
    """Bytes of its scalars when they were read last."""

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.began

    @property
    def step(self) -> int:
        """The last validated epoch (or iteration); 0 before the first."""
        return max(self.job.reported, default=0)


class Launcher:
    """Starts tools/train.py with a config written in full, so that every run can be repeated by hand.

    Args:
        train (str): Path of tools/train.py.
        folder (str): Work directory of the plan.
        workers (int): Of each run's data loaders, at most.
    """

    def __init__(self, train: str, folder: str, workers: int) -> None:
        self.train, self.folder, self.workers = train, folder, workers

    def __call__(self, job: Job, work_dir: str, environment: Mapping[str, str]) -> TrainProcess:
        cell, final = job.cell, job.stage.kind == TEST
        text = cell.final_config if final else cell.trial_config
        config = osp.join(osp.dirname(work_dir) if final else osp.join(self.folder, cell.name, 'search'),
                          f'{cell.recipe}.py')
        if not osp.isfile(config) or Path(config).read_text(encoding='utf-8') != text:
            write_text(config, str(text))
        settings = job.settings if job.stage.kind == TRIAL else job.settings | {'randomness.seed': job.slot}
        command = [sys.executable, self.train, config, '--work-dir', work_dir,
                   *([f'--amp={cell.amp}'] if cell.amp else []),
                   *(['--resume'] if find_latest(work_dir) is not None else []), '--cfg-options', *as_options(settings),
                   *self._workers(str(text))]
        if cell.amp:
            warn_of_slow_bfloat16()  # the run's own warning is in its log alone
        return TrainProcess(command, osp.join(work_dir, 'train.txt'), dict(environment))

    def _workers(self, config: str) -> list[str]:
        """The config has the workers of the machine that made it."""
        own = re.search(r'^workers = (\d+)$', config, re.MULTILINE)
        return [] if own is None else [f'workers={max(1, min(int(own[1]), self.workers))}']


def loader_workers(root: str, runs: int) -> int:
    """Return the workers that each run's data loaders may have on this machine.

    Args:
        root (str): Folder of ``configs/``, one of which knows this machine.
        runs (int): Side by side.
    """
    return max(1, Config.fromfile(osp.join(root, *WORKERS)).workers // runs)


def work_dir_of(job: Job, folder: str) -> str:
    """Return the work directory of a run below the plan's, named after all that it depends on."""
    cell, below = job.cell, osp.join(folder, job.cell.name)
    if job.stage.kind == TEST:
        return osp.join(final_folder(cell, job.settings, folder), f'seed_{job.slot}')
    name = digest(job.settings, cell.identity)
    return osp.join(below, 'trials', name if job.stage.kind == TRIAL else f'{name}_seed_{job.slot}')


def final_folder(cell: Cell, settings: Mapping[str, Any], folder: str) -> str:
    """Return the folder of a setting's last runs."""
    return osp.join(folder, cell.name, 'final', digest(settings, cell.final_identity))


class Worker:
    """Takes runs from a queue until there are none.

    Args:
        queue (Queue): The plan's.
        launch (Launch): Starts a run.
        folder (str): Work directory of the plan.
        environments (Sequence[Mapping]): One for each run at a time.
        on_end (Callable): Called with a run and how it ended: 'finished', 'pruned', 'failed' or 'lost'.
        keep_checkpoints (bool): Whether trials' checkpoints stay. Defaults to False.
        check (Callable): Called with a cell and a work directory before its first run here; what it raises is why the
            cell is left to other workers. Defaults to :func:`mmspt.search.cell.check_files`.
    """

    def __init__(self, queue: Queue, launch: Launch, folder: str, environments: Sequence[Mapping[str, str]],
                 on_end: Callable[[Running, str], None], keep_checkpoints: bool = False,
                 check: Callable[[Cell, str], None] = check_files) -> None:
        self.queue, self.launch, self.folder, self.environments = queue, launch, folder, environments
        self.on_end, self.keep_checkpoints, self.check = on_end, keep_checkpoints, check
        self.running: dict[int, Running] = {}
        """Place -> its run."""
        self.idle = False
        """Whether the runs that are left are other workers'."""
        self.skipped: dict[str, str] = {}
        """Key -> why this worker cannot run that cell."""
        self._checked: set[str] = set()
        self._failures, self._asked = 0, -math.inf

    def work(self, on_look: Callable[[], None] = lambda: None) -> None:
        """Run what there is, and wait for other workers' runs, which may come back.

        Args:
            on_look (Callable): Called about twice a second.

        Raises:
            RuntimeError: Runs crash here one after the other, or the storage stays away.
        """
        try:
            while self.look():
                on_look()
                time.sleep(INTERVAL)
        finally:
            self.stop()

    def look(self) -> bool:
        """Look after all places once; return whether anything is left to do or to wait for."""
        for lost in patiently(self.queue.beat):
            self._drop(lost)
        for place, running in list(self.running.items()):
            self._look_after(place, running)
        free = [place for place in range(len(self.environments)) if place not in self.running]
        if free and not (self.idle and time.monotonic() - self._asked < min(IDLE, self.queue.interval)):
            self._asked = time.monotonic()
            self.idle = False
            for place in free:
                job = patiently(partial(self.queue.claim, self.skipped))
                if job is None:
                    self.idle = True
                    break
                self._start(place, job)
        return bool(self.running) or not patiently(self._is_over)

    def _is_over(self) -> bool:
        here = self.skipped if self.environments else {}  # who only watches waits for all
        return all(cell.key in self.queue.over or cell.key in here for cell in self.queue.cells())

    def _start(self, place: int, job: Job) -> None:
        work_dir = work_dir_of(job, self.folder)
        check_work_dir(self.folder)  # an error of this machine, not of the cell
        if job.cell.key not in self._checked:
            try:
                self.check(job.cell, self.folder)
            except Exception as error:  # of the data sets' own code, too
                message = self.skipped[job.cell.key] = f'{type(error).__name__}: {error}'
                patiently(partial(self.queue.skip, job, message))
                return
            self._checked.add(job.cell.key)
            if job in patiently(partial(self.queue.beat, True)):  # it took too long
                return
        self.running[place] = Running(job, work_dir, self.launch(job, work_dir, self.environments[place]))

    def _look_after(self, place: int, running: Running) -> None:
        """Report, prune or end a run."""
        job = running.job
        status = running.process.poll()  # before the values are read: after the end no more are added
        size = sum(map(osp.getsize, glob(osp.join(escape(running.work_dir), '*', 'vis_data', 'scalars.json'))))
        values, behind = job.reported, False
        try:
            if job.stage.kind != TEST and size != running.size:
                values, running.size = read_scalars(running.work_dir, job.cell.metric), size
                validated = patiently(partial(self.queue.report, job, values))
                behind = status is None and validated and patiently(partial(self.queue.should_prune, job))
        except Lost:
            self._drop(job)
            return
        if status is None and not behind:
            return
        running.process.stop()
        del self.running[place]
        ended, tell = self._outcome(running, status, values)
        ended = ended if patiently(tell) else 'lost'
        self._failures = self._failures + 1 if ended == 'failed' else 0
        self.on_end(running, ended)
        if job.stage.kind != TEST and not self.keep_checkpoints and ended in ('finished', 'pruned'):
            remove_checkpoints(running.work_dir)
        if self._failures >= 2 * MAX_FAILURES:  # of two cells at least: it is this machine
            raise RuntimeError(f'{self._failures} runs failed one after the other; see {running.process.log}, '
                               f'which ends with\n{running.process.tail()}')

    def _outcome(self, running: Running, status: int | None,
                 values: Mapping[int, float]) -> tuple[str, Callable[[], bool]]:
        """Return how a run ended, and the call that tells the queue."""
        job, queue, metric, seconds = running.job, self.queue, running.job.cell.metric, running.seconds
        tail = f'{running.process.log} on {socket.gethostname()} ends with\n{running.process.tail()}'
        if status:
            return 'failed', partial(queue.fail, job, tail, seconds)
        if job.stage.kind == TEST:
            path = osp.join(running.work_dir, RESULT_FILE)
            result = read_result(path) if osp.isfile(path) else None
            if result is None or not result.finished:
                return 'failed', partial(queue.fail, job, f'it ended without a test; {tail}', seconds)
            if metric not in result.metrics:
                message = (f"what is validated must be tested as well, but the test has no '{metric}', only "
                           f"{', '.join(result.metrics)}: let test_evaluator be what val_evaluator is")
                return 'failed', partial(queue.fail, job, message, seconds, hopeless=True)
            running.value = result.metrics[metric]
            return 'finished', partial(queue.finish, job, running.value, seconds, result=asdict(result))
        if status == 0 and not values:
            message = (f"a trial must validate and log '{metric}', but the finished one in {running.work_dir} did not: "
                       'see its scalars.json for what it logs, and give --metric')
            return 'failed', partial(queue.fail, job, message, seconds, hopeless=True)
        running.value = values[max(values)]
        if status is None or not math.isfinite(running.value):  # Optuna takes no NaN: the worst a run can be
            return 'pruned', partial(queue.prune, job, seconds)
        return 'finished', partial(queue.finish, job, running.value, seconds)

    def _drop(self, job: Job) -> None:
        """Stop a run that was given to another worker."""
        for place, running in list(self.running.items()):
            if running.job is job:
                running.process.stop()
                del self.running[place]
                self.on_end(running, 'lost')

    def stop(self) -> None:
        """End all runs and give them back."""
        stop_all([running.process for running in self.running.values()])
        with contextlib.suppress(RuntimeError):  # the storage is away; others will find that this worker is gone
            for running in self.running.values():
                patiently(partial(self.queue.give_back, running.job, running.seconds), patience=0.)
            self.running.clear()
            patiently(self.queue.leave, patience=0.)


def remove_checkpoints_of(cell: Cell, trials: Sequence[FrozenTrial], folder: str) -> None:
    """Remove what a killed worker may have left of trials that are done.

    Args:
        cell (Cell): Whose they are.
        trials (Sequence[FrozenTrial]): Of its search.
        folder (str): Work directory of the plan.
    """
    for trial in trials:
        if trial.state in (COMPLETE, PRUNED):
            remove_checkpoints(osp.join(folder, cell.name, 'trials', digest(trial.params, cell.identity)))


def remove_checkpoints(work_dir: str) -> None:
    """Remove the checkpoints of a trial that will not be resumed; logs and config stay."""
    for path in glob(osp.join(escape(work_dir), '*.pth')):
        os.remove(path)
