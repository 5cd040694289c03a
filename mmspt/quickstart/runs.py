"""The runs of a quickstart: each method's rates one after the other, the methods side by side, while time is left."""
import json
import os.path as osp
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmspt.evaluation import METRIC, RESULT_FILE, read_epoch, read_result, read_scalars
from mmspt.files import write_text
from mmspt.search.processes import TrainProcess, stop_all

from .plan import METHODS, schedule

RATE_GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.)
DIVERGED = 'the loss must be finite'
"""What :class:`mmspt.engine.reliability.FiniteLossHook` says."""
INTERVAL = 0.5
"""Seconds between two looks at the runs."""


@dataclass(frozen=True)
class Run:
    """One training. It ends with its test if it is ``final``: then nothing is chosen any more."""
    method: str
    rate: float
    seed: int
    final: bool
    folder: str

    @property
    def work_dir(self) -> str:
        """Its work directory."""
        return osp.join(self.folder, f'{self.method}_lr{self.rate:g}_seed{self.seed}')

    @property
    def validations(self) -> dict[int, float]:
        """Epoch -> validation accuracy, percent, as far as it got."""
        return read_scalars(self.work_dir, METRIC)

    @property
    def epoch(self) -> int:
        """The last epoch that was logged; 0 before the first."""
        return read_epoch(self.work_dir)

    @property
    def test(self) -> float | None:
        """Test accuracy in percent; None before its test."""
        path = osp.join(self.work_dir, RESULT_FILE)
        return float(read_result(path).metrics[METRIC]) if osp.isfile(path) else None

    @property
    def seconds(self) -> float | None:
        """What it took, with its starts; None before its end."""
        path = osp.join(self.work_dir, 'seconds.json')
        if not osp.isfile(path):
            return None
        with open(path, encoding='utf-8') as file:
            return float(json.load(file))

    @property
    def diverged(self) -> bool:
        """Whether its loss left the finite numbers."""
        return osp.isfile(osp.join(self.work_dir, 'diverged.txt'))

    def last(self, epochs: int) -> float:
        """Return the last validation of an ended run, below 0 if it diverged."""
        return -1. if self.diverged else self.validations[epochs]

    def checkpoint(self, epochs: int) -> str:
        """Return the path of its last checkpoint."""
        return osp.join(self.work_dir, f'epoch_{epochs}.pth')

    def is_trained(self, epochs: int) -> bool:
        """Return whether it reached its end, with its last validation and, if it is final, its test."""
        return (epochs in self.validations and osp.isfile(self.checkpoint(epochs))
                and (not self.final or self.test is not None))


def next_rate(tried: Mapping[float, float], first: float) -> float:
    """Return the rate to try after others: an untried neighbour of the best, the lower one first.

    Args:
        tried (Mapping[float, float]): Rate -> last validation accuracy.
        first (float): Where to begin.

    Returns:
        float: Of :data:`RATE_GRID`; where both neighbours of the best are known, the best of the rest has its turn.
    """
    if not tried:
        return first
    for rate in sorted(tried, key=lambda rate: -tried[rate]):
        place = min(range(len(RATE_GRID)), key=lambda i: abs(RATE_GRID[i] / rate - 1))
        for neighbour in RATE_GRID[max(place - 1, 0):place] + RATE_GRID[place + 1:place + 2]:
            if neighbour not in tried:
                return neighbour
    return first


@dataclass
class Quickstart:
    """What is run, and how far it is.

    Args:
        configs (Mapping[str, str]): Method -> config.
        first_rates (Mapping[str, float]): Method -> rate to begin with.
        costs (Mapping[str, float]): Method -> seconds of a run, as planned.
        epochs (int): Of each run.
        rates (int): Rates of each method, fewer if the time does not suffice.
        folder (str): Parent of the work directories.
        tools (str): Where train.py and test.py are.
        environments (Sequence[Mapping[str, str]]): One for each worker.
        deadline (float): When all should be done, by ``time.monotonic()``.
        last_seconds (float): What is to be kept for the tests.
        more_seeds (int): Runs of each method's best rate with other seeds, if there is time.
    """
    configs: Mapping[str, str]
    first_rates: Mapping[str, float]
    costs: Mapping[str, float]
    epochs: int
    rates: int
    folder: str
    tools: str
    environments: Sequence[Mapping[str, str]]
    deadline: float
    last_seconds: float = 0.
    more_seeds: int = 0
    runs: list[Run] = field(default_factory=list)
    """All that ended, in that order."""
    rounds: int = 1
    """How many runs of each method there shall be: its rates, then its seeds."""

    def of(self, method: str, seed: int = 0) -> list[Run]:
        """Return a method's ended runs with a seed."""
        return [run for run in self.runs if run.method == method and run.seed == seed]

    def best(self, method: str) -> Run:
        """Return the run whose last validation is the best; of equals, the earlier.

        Raises:
            RuntimeError: None reached its end.
        """
        best = max(self.of(method), key=lambda run: run.last(self.epochs))
        if best.diverged:
            raise RuntimeError(f'the loss of every run of {method} left the finite numbers; see {best.work_dir}/'
                               f'train.txt: lower the rate in {self.configs[method]}, and take a new --work-dir')
        return best

    def finals(self, method: str) -> list[Run]:
        """Return the runs that are tested: the best, and those with its rate and other seeds."""
        others = [run for run in self.runs if run.method == method and run.seed and not run.diverged]
        return [self.best(method), *others]

    def _next(self, method: str) -> Run:
        """Return a method's next run."""
        done = self.of(method)
        if len(done) < self.rates:
            rate = next_rate({run.rate: run.last(self.epochs) for run in done}, self.first_rates[method])
            return Run(method, rate, 0, self.rates == 1, self.folder)
        return Run(method, self.best(method).rate, 1 + self._begun(method) - self.rates, True, self.folder)

    def _begun(self, method: str) -> int:
        return sum(run.method == method for run in self.runs)

    def train(self, on_change: Callable[[Mapping[int, Run]], object]) -> None:
        """Run everything; finished runs of an earlier call count, broken ones go on.

        A further round (a rate or a seed of every method) begins only if it will end in time.

        Args:
            on_change (Callable): Called about twice a second with worker -> run.

        Raises:
            RuntimeError: A run failed; the message ends with its output.
        """
        running: dict[int, tuple[Run, TrainProcess, float]] = {}
        try:
            while True:
                for worker, environment in enumerate(self.environments):
                    if worker in running and running[worker][1].poll() is not None:
                        self._end(*running.pop(worker))
                    run = self._take([run for run, *_ in running.values()]) if worker not in running else None
                    if run is not None:
                        running[worker] = run, self._start(run, environment), time.monotonic()
                if not running:
                    break
                on_change({worker: run for worker, (run, *_) in running.items()})
                time.sleep(INTERVAL)
        finally:
            stop_all([process for _, process, _ in running.values()])
        self.rates = min(self.rates, self.rounds)

    def _take(self, running: Sequence[Run]) -> Run | None:
        """Return the next run to start; None if there is none now."""
        while True:
            busy = {run.method for run in running}
            waiting = [method for method in self.configs if method not in busy and self._begun(method) < self.rounds]
            if waiting:
                run = self._next(min(waiting, key=lambda method: (self._begun(method), METHODS.index(method))))
                if not run.diverged and not run.is_trained(self.epochs):
                    return run
                self.runs.append(run)
            elif self.rounds < self.rates + self.more_seeds and self._another_fits(running):
                self.rounds += 1
            else:
                return None

    def _another_fits(self, running: Sequence[Run]) -> bool:
        """Whether one more run of each method ends in time, if the costs err as they did so far."""
        ended = [run for run in self.runs if run.seconds is not None]
        planned = sum(self.costs[run.method] for run in ended)
        scale = sum(run.seconds or 0. for run in ended) / planned if planned else 1.
        left = {run.method: 1 - min(run.epoch, self.epochs) / self.epochs for run in running}
        chains = {method: [scale * self.costs[method] * part for part in (left.get(method), 1.) if part is not None]
                  for method in self.configs}
        return time.monotonic() + schedule(chains, len(self.environments)) + self.last_seconds <= self.deadline

    def _start(self, run: Run, environment: Mapping[str, str]) -> TrainProcess:
        options = [f'optim_wrapper.optimizer.lr={run.rate:g}', f'randomness.seed={run.seed}',
                   f'default_hooks.result.after_train={run.final}']
        command = [sys.executable, osp.join(self.tools, 'train.py'), self.configs[run.method],
                   '--work-dir', run.work_dir, '--resume', '--cfg-options', *options]
        return TrainProcess(command, osp.join(run.work_dir, 'train.txt'), dict(environment))

    def _end(self, run: Run, process: TrainProcess, began: float) -> None:
        process.stop()
        if not run.is_trained(self.epochs):
            if DIVERGED not in process.tail(40):
                raise RuntimeError(f'a run failed; see {process.log}, which ends with\n{process.tail()}')
            write_text(osp.join(run.work_dir, 'diverged.txt'), process.tail())
        write_text(osp.join(run.work_dir, 'seconds.json'), f'{(run.seconds or 0.) + time.monotonic() - began:.1f}\n')
        self.runs.append(run)

    def test(self, on_change: Callable[[int, int], object]) -> None:
        """Test each method's best run once, if its training did not.

        Args:
            on_change (Callable): Called with the numbers of tested and of all runs.

        Raises:
            RuntimeError: A test failed; the message ends with its output.
        """
        finals = [run for method in self.configs for run in self.finals(method)]
        waiting = [run for run in finals if run.test is None]
        running: dict[int, tuple[Run, TrainProcess]] = {}
        try:
            while waiting or running:
                for worker, environment in enumerate(self.environments):
                    if waiting and worker not in running:
                        run = waiting.pop(0)
                        command = [sys.executable, osp.join(self.tools, 'test.py'), self.configs[run.method],
                                   run.checkpoint(self.epochs), '--work-dir', run.work_dir]
                        running[worker] = run, TrainProcess(command, osp.join(run.work_dir, 'test.txt'),
                                                            dict(environment))
                for worker, (run, process) in list(running.items()):
                    if process.poll() is not None:
                        del running[worker]
                        process.stop()
                        if run.test is None:
                            raise RuntimeError(f'a test failed; see {process.log}, which ends with\n{process.tail()}')
                on_change(len(finals) - len(waiting) - len(running), len(finals))
                time.sleep(INTERVAL if running else 0)
        finally:
            stop_all([process for _, process in running.values()])

    def record(self) -> dict[str, Any]:
        """Return everything that was found, for JSON."""
        return {method: dict(
            rates={f'{run.rate:g}': run.validations for run in self.of(method)}, chosen=self.best(method).rate,
            test={run.seed: run.test for run in self.finals(method)},
            validations={run.seed: run.validations for run in self.finals(method)},
            diverged=[f'{run.rate:g}' for run in self.of(method) if run.diverged],
            seconds={osp.basename(run.work_dir): run.seconds for run in self.runs if run.method == method})
            for method in self.configs}
