"""Processes of the study: one in the terminal, or several side by side; what they took."""
import json
import os
import os.path as osp
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from glob import escape, glob
from typing import Any, NamedTuple

import mmengine
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from mmspt.engine.reliability.last_checkpoint import find_latest
from mmspt.files import write_text
from mmspt.search.processes import TrainProcess, can_resume, end_with_us, worker_environments
from mmspt.search.space import as_options
from study_plan import ROOT
from study_records import HITS

TOOLS = osp.join(ROOT, 'tools')
PREDICTIONS = 'predictions.pkl'
WRITTEN = 30.
"""Seconds between two notes of the time."""


class Failed(RuntimeError):
    """A cell could not be filled."""


class Job(NamedTuple):
    """A process that may run beside others."""
    name: str
    begin: Callable[[dict[str, str]], TrainProcess]
    """Given what the environment has besides ours."""
    finish: Callable[[], None]
    """What is to be done when it has ended well."""
    epoch: Callable[[], int | None] = lambda: None


def run_beside(title: str, jobs: list[Job], workers: int, console: Console, tick: Callable[[], Any]) -> None:
    """Run processes side by side, as many as there are workers, with a line of progress.

    Args:
        title (str): Of that line.
        jobs (list[Job]): Begun in this order.
        workers (int): One job each at a time.
        console (Console): Where the line is.
        tick (Callable): Called twice a second.

    Raises:
        Failed: A process ended with a status other than 0; the others were stopped.
    """
    waiting, running = list(jobs), dict[int, tuple[Job, TrainProcess]]()
    environments = worker_environments(workers)
    columns = (TextColumn('{task.description}'), BarColumn(), TextColumn('{task.fields[text]}', markup=False),
               TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, disable=not jobs) as progress:
            task = progress.add_task(title, total=len(jobs), text='')
            while waiting or running:
                for worker, environment in enumerate(environments):
                    if waiting and worker not in running:
                        job = waiting.pop(0)
                        running[worker] = job, job.begin(environment)
                for worker, (job, process) in list(running.items()):
                    status = process.poll()
                    if status is None:
                        continue
                    del running[worker]
                    process.stop()
                    if status:
                        raise Failed(f'a run ended with {status}; see {process.log}, which ends with\n'
                                     f'{process.tail()}')
                    job.finish()
                    progress.advance(task)
                progress.update(task, text=', '.join(describe(job) for job, _ in running.values()))
                tick()
                time.sleep(0.5 if running else 0)
    finally:
        for _, process in running.values():
            process.stop()


def describe(job: Job) -> str:
    """For the progress line."""
    epoch = job.epoch()
    return job.name if epoch is None else f'{job.name} epoch {epoch}'


def run(command: list[str], environment: dict[str, str], tick: Callable[[], Any] = lambda: None) -> int:
    """Run a tool in this terminal; return its exit status. If we are to stop, it is told to, and ends in order."""
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, start_new_session=True,
                          preexec_fn=end_with_us()) as process:
        try:
            while True:
                try:
                    return process.wait(WRITTEN)
                except subprocess.TimeoutExpired:
                    tick()
        except BaseException:
            process.terminate()
            raise


def start(config: str, settings: dict[str, Any], work_dir: str, environment: dict[str, str]) -> TrainProcess:
    """Begin a run of tools/train.py, or go on with it."""
    command = [sys.executable, osp.join(TOOLS, 'train.py'), config, '--work-dir', work_dir,
               *(['--resume'] if can_resume(work_dir) else []), '--cfg-options', *as_options(settings)]
    return TrainProcess(command, osp.join(work_dir, 'train.txt'), environment, ROOT)


def test(work_dir: str, environment: dict[str, str]) -> TrainProcess:
    """Begin to test a run's last checkpoint; Failed if there is none."""
    checkpoint = find_latest(work_dir)
    if checkpoint is None:
        raise Failed(f"its final run '{work_dir}' must have a checkpoint, but has none: delete the cell's folder, and "
                     'give the same command again')
    config, = glob(osp.join(escape(work_dir), '*.py'))
    command = [sys.executable, osp.join(TOOLS, 'test.py'), config, checkpoint, '--work-dir',
               osp.join(work_dir, 'tested'), '--out', osp.join(work_dir, PREDICTIONS)]
    return TrainProcess(command, osp.join(work_dir, 'test.txt'), environment, ROOT)


def write_hits(work_dir: str) -> None:
    """Keep of the predictions which images were right, as a text of 0 and 1, and delete them: they are large."""
    path = osp.join(work_dir, PREDICTIONS)
    samples = mmengine.load(path)  # our own, just written
    write_text(osp.join(work_dir, HITS), ''.join(
        str(int(sample['pred_label'] == sample['gt_label'])) for sample in samples))
    os.remove(path)


@contextmanager
def clock(path: str) -> Iterator[Callable[[], float]]:
    """Add the seconds inside to those in a file, interrupted or not; gives what tells the sum, and writes it down every
    half minute that it is asked: a kill loses no more."""
    before = 0.
    if osp.isfile(path):
        with open(path, encoding='utf-8') as file:
            before = json.load(file)
    begin = written = time.time()

    def total() -> float:
        nonlocal written
        now = time.time()
        if now - written >= WRITTEN:
            write_text(path, f'{before + now - begin}\n')
            written = now
        return before + now - begin

    try:
        yield total
    finally:
        write_text(path, f'{before + time.time() - begin}\n')
