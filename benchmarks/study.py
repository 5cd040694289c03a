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
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from mmspt.evaluation import read_epoch
from mmspt.files import write_text
from study_plan import FULL, QUICK, ROOT, WATCHED, Budget, Cell, cells, quick_cells
from study_processes import TOOLS, Failed, Job, clock, run, run_beside, start, test, write_hits
from study_records import (
    HITS,
    RESULTS,
    best_cells,
    final_runs,
    gather,
    is_pack_of,
    pack_of,
    packs_of,
    read,
    read_all,
    write,
)

DONE = 'trained.json'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Run the study of docs/results.md')
    parser.add_argument('--quick', action='store_true', help='three methods, two rates, five epochs, one seed')
    parser.add_argument('--only', nargs='+', metavar='TEXT', help='cells whose names hold one of these texts')
    parser.add_argument('--hours', type=float, help='begin no cell after so many hours')
    parser.add_argument('--workers', type=int, help='runs side by side; one a GPU, or one a core, by default')
    parser.add_argument('--work-dir', help='for runs; work_dirs/study, or work_dirs/study_quick, by default')
    parser.add_argument('--list', action='store_true', help='show the cells and what is there of them, run nothing')
    return parser.parse_args()


class Study:
    """One call: which cells, where, and what is shown."""

    def __init__(self, args: argparse.Namespace, console: Console) -> None:
        self.console, self.hours = console, args.hours
        self.budget: Budget = QUICK if args.quick else FULL
        self.folder = osp.abspath(
            args.work_dir or osp.join(ROOT, 'work_dirs', 'study_quick' if args.quick else 'study'))
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
            except (Failed, ValueError) as error:  # a run that diverged, or models that test otherwise, end their cell
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
            status = run(command, cell.environment, seconds)
            if status:
                raise Failed(f'the search ended with {status}: mend what it says above, and give the same command '
                             'again')
            curves = self.watch(cell, work_dir, seconds)
            self.test(work_dir, seconds)
        return gather(cell, self.budget, work_dir, curves, seconds(), self.workers)

    def keep(self) -> None:
        """Put the first seed's model of each task's best cell beside the records, as a pack, if its runs are here, and
        take away that of a cell which is the best no more."""
        records = read_all(self.planned, self.budget, self.results)
        for cell in best_cells(records):
            path, work_dir = pack_of(cell, self.results), osp.join(self.folder, cell.name)
            if not is_pack_of(path, records[cell]):
                if not osp.isfile(osp.join(work_dir, 'results.json')):
                    continue
                os.makedirs(osp.dirname(path), exist_ok=True)
                source = final_runs(work_dir, self.budget)[0]
                if run([sys.executable, osp.join(TOOLS, 'pack.py'), 'export', source, '--out', path,
                        '--task', cell.task], cell.environment):
                    self.say(f'{cell.title}: no pack could be made of {source}, as said above')
                    continue
            for other in packs_of(cell, self.results):
                if other != path:
                    os.remove(other)

    def watch(self, cell: Cell, work_dir: str, tick: Callable[[], float]) -> dict[int, str]:
        """Train the best setting with more seeds as its trial was; return seed -> work directory."""
        with open(osp.join(work_dir, 'results.json'), encoding='utf-8') as file:
            results = json.load(file)
        best = results['best']
        trial = next(trial for trial in results['trials'] if trial['number'] == best['number'])
        folders = {0: osp.join(work_dir, 'trials', trial['work_dir'])}
        if cell.method not in WATCHED:
            return folders
        name, settings = trial['work_dir'], best['settings']  # the name is made of the settings
        config, jobs = osp.join(work_dir, 'search', osp.basename(cell.config)), []
        for seed in range(1, self.budget.seeds):
            folders[seed] = path = osp.join(work_dir, 'curves', name, f'seed_{seed}')
            done = osp.join(path, DONE)
            if not osp.isfile(done):
                jobs.append(Job(f'seed {seed}', partial(start, config, settings | {'randomness.seed': seed}, path),
                                partial(write_text, done, '{}\n'), partial(read_epoch, path)))
        run_beside('validation curves', jobs, self.workers, self.console, tick)
        return folders

    def test(self, work_dir: str, tick: Callable[[], float]) -> None:
        """Test the final models again, image by image: two methods are compared on the same images."""
        jobs = [Job(f'seed {seed}', partial(test, path), partial(write_hits, path))
                for seed, path in final_runs(work_dir, self.budget).items() if not osp.isfile(osp.join(path, HITS))]
        run_beside('tests, image by image', jobs, self.workers, self.console, tick)


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
