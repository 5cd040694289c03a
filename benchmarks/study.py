#!/usr/bin/env python
"""Run the study of docs/results.md: every cell is a search, its best setting's tests, and curves over two more seeds.

    python benchmarks/study.py                       # what is not yet there, in the order of study_plan.py; for days
    python benchmarks/study.py --hours 2 --only mae_flowers17_area_32
    python benchmarks/study.py --quick               # another, small study, in minutes: work_dirs/study_quick

Stopped, it goes on where it was when the same command is given again."""
import argparse
import json
import os
import os.path as osp
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from mmspt.evaluation import read_epoch
from mmspt.files import write_text
from mmspt.search.processes import TrainProcess, can_resume, end_with_us, worker_environments
from mmspt.search.space import as_options
from study_plan import FULL, QUICK, ROOT, WATCHED, Budget, Cell, cells, quick_cells
from study_records import RESULTS, best_cells, gather, is_pack_of, pack_of, read, read_all, write

TOOLS = osp.join(ROOT, 'tools')
DONE = 'trained.json'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Run the study of docs/results.md')
    parser.add_argument('--quick', action='store_true', help='three methods, three rates, five epochs, one seed')
    parser.add_argument('--only', nargs='+', metavar='TEXT', help='cells whose names hold one of these texts')
    parser.add_argument('--hours', type=float, help='begin no cell after so many hours')
    parser.add_argument('--workers', type=int, help='runs side by side; one a GPU, or one a core, by default')
    parser.add_argument('--work-dir', help='for runs; work_dirs/study, or work_dirs/study_quick, by default')
    parser.add_argument('--list', action='store_true', help='show the cells and what is there of them, run nothing')
    return parser.parse_args()


class Failed(RuntimeError):
    """A cell could not be filled."""


class Study:
    """One call: which cells, where, and what is shown."""

    def __init__(self, args: argparse.Namespace, console: Console) -> None:
        self.console, self.hours = console, args.hours
        self.budget: Budget = QUICK if args.quick else FULL
        self.folder = args.work_dir or osp.join(ROOT, 'work_dirs', 'study_quick' if args.quick else 'study')
        self.results = osp.join(self.folder, 'results') if args.quick else RESULTS
        self.workers = args.workers or torch.cuda.device_count() or os.cpu_count() or 1
        self.planned = quick_cells() if args.quick else cells()
        self.cells = [cell for cell in self.planned if not args.only or any(text in cell.name for text in args.only)]
        if not self.cells:
            raise SystemExit(f'--only must name cells, but none of {len(self.planned)} holds {" or ".join(args.only)}: '
                             'see --list')

    def say(self, text: str) -> None:
        """Print a line as it is, however long."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def list(self) -> None:
        """Show every cell."""
        table = Table('cell', 'test accuracy (%)', 'validation (%)', 'hours')
        for cell in self.cells:
            table.add_row(cell.title, *self.show(read(cell, self.budget, self.results)))
        self.console.print(table)

    @staticmethod
    def show(record: dict[str, Any] | None) -> tuple[str, str, str]:
        """Test, validation and hours of a record."""
        if record is None:
            return '', '', ''
        test = record['test']
        spread = '' if test['std'] is None else f' ± {test["std"]:.2f}'
        return f'{test["mean"]:.2f}{spread}', f'{record["best"]["validation"]:.2f}', f'{record["seconds"] / 3600:.2f}'

    def run(self) -> None:
        """Run what is missing."""
        begin, failed = time.time(), list[Cell]()
        self.keep()
        missing = [cell for cell in self.cells if read(cell, self.budget, self.results) is None]
        blocked = sorted({cell.checkpoint for cell in missing if not osp.isfile(cell.checkpoint)})
        before = len(self.cells) - len(missing)
        missing = [cell for cell in missing if cell.checkpoint not in blocked]
        for path in blocked:
            name = osp.splitext(osp.basename(path))[0]
            self.say(f'Cells of {name} stay empty: {osp.relpath(path, ROOT)} is not there; '
                     f'configs/pretrain/{name}.py says on top how it is made.')
        for number, cell in enumerate(missing):
            elapsed = time.time() - begin
            if self.hours is not None and elapsed > self.hours * 3600:
                self.say(f'{self.hours:g} hours are over; {len(missing) - number} cells are left.')
                return
            left = '' if not number else f', about {elapsed / number * (len(missing) - number) / 60:.0f} minutes left'
            self.say(f'[{before + number} of {len(self.cells)} cells done, {elapsed / 60:.0f} minutes{left}] next: '
                     f'{cell.title}')
            try:
                record = self.fill(cell)
            except Failed as error:  # a run that diverged ends its own cell
                failed.append(cell)
                self.say(f'{cell.title}: {error}')
                continue
            write(cell, record, self.results)
            self.keep()
            self.say('{}: test {}, validation {}, {} hours'.format(cell.title, *self.show(record)))
        self.list()
        if failed:
            raise SystemExit(f'{len(failed)} cells failed, as said above: {"; ".join(cell.title for cell in failed)}')

    def fill(self, cell: Cell) -> dict[str, Any]:
        """Search, test and watch one cell."""
        work_dir = osp.join(self.folder, cell.name)
        os.makedirs(work_dir, exist_ok=True)
        with clock(osp.join(work_dir, 'seconds.json')) as seconds:
            command = [sys.executable, osp.join(TOOLS, 'sweep.py'), *cell.arguments(self.budget), '--work-dir',
                       work_dir, '--workers', str(self.workers)]
            status = run(command, cell.environment)
            if status:
                raise Failed(f'the search ended with {status}: mend what it says above, and give the same command '
                             'again')
            curves = self.watch(cell, work_dir)
        return gather(cell, self.budget, work_dir, curves, seconds(), self.workers)

    def keep(self) -> None:
        """Put the first seed's model of each task's best cell beside the records, as a pack, if its runs are here."""
        records = read_all(self.planned, self.budget, self.results)
        for cell in best_cells(records):
            path, summary = pack_of(cell, self.results), osp.join(self.folder, cell.name, 'results.json')
            if is_pack_of(path, records[cell]) or not osp.isfile(summary):
                continue
            with open(summary, encoding='utf-8') as file:
                source = osp.join(osp.dirname(summary), json.load(file)['test']['work_dir'], 'seed_0')
            os.makedirs(osp.dirname(path), exist_ok=True)
            if run([sys.executable, osp.join(TOOLS, 'pack.py'), 'export', source, '--out', path, '--task', cell.task],
                   cell.environment):
                self.say(f'{cell.title}: no pack could be made of {source}, as said above')

    def watch(self, cell: Cell, work_dir: str) -> dict[int, str]:
        """Train the best setting with more seeds as its trial was; return seed -> work directory."""
        with open(osp.join(work_dir, 'results.json'), encoding='utf-8') as file:
            results = json.load(file)
        best = results['best']
        trial = next(trial for trial in results['trials'] if trial['number'] == best['number'])
        folders = {0: osp.join(work_dir, 'trials', trial['work_dir'])}
        if cell.method not in WATCHED:
            return folders
        name = trial['work_dir']  # by the settings
        folders |= {seed: osp.join(work_dir, 'curves', name, f'seed_{seed}') for seed in range(1, self.budget.seeds)}
        config = osp.join(work_dir, 'search', osp.basename(cell.config))
        self.train(config, best['settings'], {seed: path for seed, path in folders.items() if seed})
        return folders

    def train(self, config: str, settings: dict[str, Any], folders: dict[int, str]) -> None:
        """Train with several seeds side by side; what is done is not done again."""
        waiting = [seed for seed, path in folders.items() if not osp.isfile(osp.join(path, DONE))]
        environments = worker_environments(self.workers)
        running: dict[int, tuple[int, TrainProcess]] = {}
        columns = (TextColumn('{task.description}'), BarColumn(), TextColumn('{task.fields[text]}', markup=False),
                   TimeElapsedColumn())
        try:
            with Progress(*columns, console=self.console) as progress:
                task = progress.add_task('validation curves', total=len(waiting), text='')
                while waiting or running:
                    for worker, environment in enumerate(environments):
                        if waiting and worker not in running:
                            seed = waiting.pop(0)
                            running[worker] = seed, start(config, settings | {'randomness.seed': seed}, folders[seed],
                                                          environment)
                    for worker, (seed, process) in list(running.items()):
                        status = process.poll()
                        if status is None:
                            continue
                        del running[worker]
                        process.stop()
                        if status:
                            raise Failed(f'a run ended with {status}; see {process.log}, which ends with\n'
                                         f'{process.tail()}')
                        write_text(osp.join(folders[seed], DONE), '{}\n')
                        progress.advance(task)
                    progress.update(task, text=', '.join(
                        f'seed {seed} epoch {read_epoch(folders[seed])}' for seed, _ in running.values()))
                    time.sleep(0.5 if running else 0)
        finally:
            for _, process in running.values():
                process.stop()


def run(command: list[str], environment: dict[str, str]) -> int:
    """Run a tool in this terminal; return its exit status. If we are to stop, it is told to, and ends in order."""
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, start_new_session=True,
                          preexec_fn=end_with_us()) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            raise


def start(config: str, settings: dict[str, Any], work_dir: str, environment: dict[str, str]) -> TrainProcess:
    """Begin a run of tools/train.py, or go on with it."""
    command = [sys.executable, osp.join(TOOLS, 'train.py'), config, '--work-dir', work_dir,
               *(['--resume'] if can_resume(work_dir) else []), '--cfg-options', *as_options(settings)]
    return TrainProcess(command, osp.join(work_dir, 'train.txt'), environment)


@contextmanager
def clock(path: str) -> Any:
    """Add the seconds inside to those in a file, interrupted or not; gives what tells the sum."""
    before = 0.
    if osp.isfile(path):
        with open(path, encoding='utf-8') as file:
            before = json.load(file)
    begin = time.time()

    def total() -> float:
        return before + time.time() - begin

    try:
        yield total
    finally:
        write_text(path, f'{total()}\n')


def stop(number: int, frame: Any) -> None:
    """Leave, in order: the runs end with the study."""
    raise SystemExit(128 + number)


def main() -> None:
    args = parse_args()
    signal.signal(signal.SIGTERM, stop)
    study = Study(args, Console())
    if args.list:
        study.list()
        return
    try:
        study.run()
    except KeyboardInterrupt:
        study.say('Stopped; the same command goes on from here.')
        raise SystemExit(130) from None


if __name__ == '__main__':
    main()
