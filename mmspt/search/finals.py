"""The last runs of a search: the best setting on train and val together, several seeds, each tested once."""
import os.path as osp
import time
from collections.abc import Callable, Sequence
from typing import Any

from mmspt.evaluation import RESULT_FILE, read_result

from .loop import INTERVAL, Launch
from .processes import TrainProcess


def run_finals(launch: Launch, folder: str, settings: dict[str, Any], seeds: Sequence[int],
               environments: Sequence[dict[str, str]],
               on_change: Callable[[int, dict[int, str]], None]) -> dict[int, dict]:
    """Train and test once for each seed; skip the finished runs and resume the killed ones.

    Args:
        launch (Launch): Starts a run.
        folder (str): Parent of the work directories, of this setting and config alone.
        settings (dict): The best setting.
        seeds (Sequence[int]): Seeds of the runs.
        environments (Sequence[dict]): One for each worker.
        on_change (Callable): Called about twice a second with the number of tested runs, and seed -> work directory of
            the running ones.

    Returns:
        dict[int, dict]: Seed -> test metrics.

    Raises:
        RuntimeError: A run failed; the message ends with its output. The results of the others stay.
    """
    tested = read_tested(folder, seeds)
    waiting = [seed for seed in seeds if seed not in tested]
    running: dict[int, tuple[int, TrainProcess]] = {}  # worker -> seed and run
    try:
        while waiting or running:
            for worker, environment in enumerate(environments):
                if waiting and worker not in running:
                    seed = waiting.pop(0)
                    run = launch(settings | {'randomness.seed': seed}, final_dir(folder, seed), environment)
                    running[worker] = seed, run
            for worker, (seed, run) in list(running.items()):
                if run.poll() is not None:
                    del running[worker]
                    run.stop()
                    if seed not in read_tested(folder, [seed]):
                        raise RuntimeError(f'the last run with seed {seed} failed; see {run.log}, which ends with\n'
                                           f'{run.tail()}')
            on_change(len(seeds) - len(waiting) - len(running),
                      {seed: final_dir(folder, seed) for seed, _ in running.values()})
            time.sleep(INTERVAL if running else 0)
    finally:
        for _, run in running.values():
            run.stop()
    return read_tested(folder, seeds)


def final_dir(folder: str, seed: int) -> str:
    """Return the work directory of the last run with a seed."""
    return osp.join(folder, f'seed_{seed}')


def read_tested(folder: str, seeds: Sequence[int]) -> dict[int, dict]:
    """Read seed -> test metrics of the finished last runs."""
    paths = {seed: osp.join(final_dir(folder, seed), RESULT_FILE) for seed in seeds}
    results = {seed: read_result(path) for seed, path in paths.items() if osp.isfile(path)}
    return {seed: result.metrics for seed, result in results.items() if result.finished}
