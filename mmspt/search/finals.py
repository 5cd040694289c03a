"""The last runs of a search: the best setting on train and val together, several seeds, each tested once."""
import os.path as osp
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from mmspt.evaluation import FILE_NAME, read_result

from .loop import INTERVAL, Launch
from .processes import TrainProcess


def final_dir(folder: str, seed: int) -> str:
    """Work directory of the last run with a seed."""
    return osp.join(folder, f'seed_{seed}')


def run_finals(launch: Launch, folder: str, settings: dict[str, Any], seeds: Sequence[int],
               environments: Sequence[dict[str, str]],
               on_change: Callable[[int, dict[int, str]], None]) -> dict[int, dict]:
    """Train and test once for each seed; what is finished is not done again, what was killed is resumed.

    Args:
        launch (Launch): Starts a run.
        folder (str): Where the work directories go; of this setting and config alone.
        settings (dict): The best setting.
        seeds (Sequence[int]): Seeds of the runs.
        environments (Sequence[dict]): One for each worker.
        on_change (Callable): Called about twice a second with the number of tested ones, and seed -> work directory of
            the running ones.

    Returns:
        dict[int, dict]: Seed -> test metrics.

    Raises:
        RuntimeError: A run failed; the message ends with its output. The others' results stay.
    """
    waiting = [seed for seed in seeds if not _done(folder, seed)]
    running: dict[int, tuple[int, TrainProcess]] = {}
    try:
        while waiting or running:
            for worker, environment in enumerate(environments):
                if waiting and worker not in running:
                    seed = waiting.pop(0)
                    running[worker] = seed, launch(settings | {'randomness.seed': seed},
                                                   final_dir(folder, seed), environment)
            for worker, (seed, process) in list(running.items()):
                if process.poll() is not None:
                    del running[worker]
                    process.stop()
                    if not _done(folder, seed):
                        raise RuntimeError(f'the last run with seed {seed} failed; see {process.log}, which ends with\n'
                                           f'{process.tail()}')
            on_change(len(seeds) - len(waiting) - len(running),
                      {seed: final_dir(folder, seed) for seed, _ in running.values()})
            time.sleep(INTERVAL if running else 0)
    finally:
        for _, process in running.values():
            process.stop()
    return read_tested(folder, seeds)


def read_tested(folder: str, seeds: Sequence[int]) -> dict[int, dict]:
    """Read seed -> test metrics of the last runs that are done."""
    return {seed: read_result(osp.join(final_dir(folder, seed), FILE_NAME)).metrics for seed in seeds
            if _done(folder, seed)}


def _done(folder: str, seed: int) -> bool:
    path = osp.join(final_dir(folder, seed), FILE_NAME)
    return osp.isfile(path) and read_result(path).finished


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation, None for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
