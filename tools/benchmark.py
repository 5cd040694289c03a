#!/usr/bin/env python
"""Work through a plan: every cell a search on train -> val, its best setting on train + val with several seeds.

`benchmark.py PLAN` begins a plan or goes on with it, and shows the table; `benchmark.py worker PLAN` joins it, from any
machine that reaches its storage."""
import argparse
import math
import os.path as osp
import sys
import time
from functools import partial

from mmengine.logging import MMLogger
from rich.console import Console, Group
from rich.live import Live
from rich.progress import track
from rich.table import Table as RichTable
from rich.text import Text

from mmspt.engine.checks import check_work_dir
from mmspt.evaluation.rendering import markdown
from mmspt.search.plan import read_plan
from mmspt.search.plots import plot
from mmspt.search.processes import Stopped, stop_on_signals, worker_environments
from mmspt.search.queue import BEAT, MISSED, Queue
from mmspt.search.space import describe
from mmspt.search.states import State, budgets, read_state
from mmspt.search.storage import FILE, open_storage, patiently
from mmspt.search.summary import write
from mmspt.search.table import progress, write_tables
from mmspt.search.worker import Launcher, Running, Worker, loader_workers, remove_checkpoints_of

TOOLS = osp.dirname(osp.abspath(__file__))
LOOK, WHOLE = 10., 300.
"""Seconds between two looks at what is under way, and at all cells."""
NEXT = 8
"""Waiting cells that are looked at each time: workers take cells in order."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Work through a plan of searches; benchmark.py worker PLAN joins one')
    joins = sys.argv[1:2] == ['worker']
    parser.add_argument('plan', metavar='PLAN', help='path of a plan, such as configs/plans/fgvc.yaml'
                        + ('; its name suffices' if joins else ''))
    parser.add_argument('--work-dir', help='where runs and tables go; work_dirs/plans/<plan> by default')
    parser.add_argument('--storage', help=f"the queue: a database's URL, a path that ends in .journal on a shared file "
                        f'system, or SQLite on a local disk; {FILE} in the work directory by default')
    parser.add_argument('--workers', type=int, help='runs side by side; one a GPU, or one, by default'
                        + ('' if joins else '; 0: none here, wait for those of others'))
    parser.add_argument('--keep-checkpoints', action='store_true', help="keep the trials' checkpoints")
    parser.add_argument('--beat', type=float, default=BEAT, metavar='SECONDS',
                        help=f'between two signs of life, of which a worker may miss {MISSED} (default: %(default)s)')
    if not joins:
        parser.add_argument('--once', action='store_true', help='show and write the table as it is now, and end')
    args = parser.parse_args(sys.argv[1 + joins:])
    args.joins, args.once = joins, not joins and args.once
    if args.workers is not None and args.workers < joins:
        parser.error(f'--workers must be at least {int(joins)}, got {args.workers}')
    if args.beat <= 0:
        parser.error(f'--beat must be above 0, got {args.beat}')
    args.name = osp.splitext(osp.basename(args.plan))[0]
    args.work_dir = args.work_dir or osp.join('work_dirs', 'plans', args.name)
    return args


class Benchmark:
    """One call of this tool."""

    def __init__(self, args: argparse.Namespace, console: Console) -> None:
        self.args, self.console, self.title = args, console, args.name
        self.known: dict[str, State] = {}
        self.looked = self.read_whole = -math.inf
        storage = open_storage(args.storage or osp.join(args.work_dir, FILE), create=not (args.joins or args.once),
                               patience=60. if args.joins else 0.)
        self.queue, self.generation = Queue(storage, args.name, args.beat), None
        check_work_dir(args.work_dir)

    def begin(self) -> None:
        """Read the plan, and queue what it has; a cell that was run under the same definition keeps its runs."""
        plan = read_plan(self.args.plan)
        self.title = plan.title
        cells = list(track(plan.cells(), f'{plan.name}: reading configs', len(plan.entries), console=self.console,
                           transient=True))
        known = self.queue.begun()
        patiently(lambda: self.queue.register(cells, osp.realpath(self.args.work_dir), plan.title))
        kept = len(known & {cell.key for cell in cells})
        if known:
            self.say(f'Going on: {kept} of {len(cells)} cells are as they were, {len(cells) - kept} are new, '
                     f'{len(known) - kept} of before are left out.')

    def states(self, whole: bool = False) -> list[State]:
        """Read the cells: those under way and the next ones; all of them at first, every few minutes, or if asked."""
        whole = whole or time.monotonic() - self.read_whole > WHOLE
        self.read_whole = time.monotonic() if whole else self.read_whole
        found, waiting = [], 0
        cells = patiently(self.queue.cells)
        if self.generation != self.queue.generation:  # another call has begun the plan anew
            self.generation = self.queue.generation
            self.known.clear()
        for cell in cells:
            state = self.known.get(cell.key)
            waiting += state is not None and state.text == 'waits'
            if state is None or state.cell != cell or (
                    not state.over and (whole or state.text != 'waits' or waiting <= NEXT)):
                state = patiently(partial(read_state, self.queue, cell))
                if state.over:
                    self.write(state)
            if state.over:
                self.queue.over.add(cell.key)
            self.known[cell.key] = state
            found.append(state)
        return found

    def write(self, state: State) -> None:
        """Write results and pictures of a cell that is done."""
        folder, cell = osp.join(self.args.work_dir, state.cell.name), state.cell
        if not self.args.keep_checkpoints:
            remove_checkpoints_of(cell, state.trials, self.args.work_dir)
        if write(state.summary(self.args.work_dir), folder, f'{cell.recipe}, {cell.name}'):
            plot(self.queue.study(cell.key), cell.metric, osp.join(folder, 'plots'))

    def run(self) -> None:
        """Work, if there are workers here, and show the plan."""
        environments = worker_environments(self.args.workers) if self.args.workers != 0 else []
        launch = Launcher(osp.join(TOOLS, 'train.py'), self.args.work_dir,
                          loader_workers(osp.dirname(TOOLS), max(1, len(environments))))
        worker = Worker(self.queue, launch, self.args.work_dir, environments, self.end, self.args.keep_checkpoints)
        if self.args.joins:
            patiently(self.queue.cells)
            self.say(f'{self.queue.owner} joins {self.args.name} with {len(environments)} runs side by side.')
            worker.work()
            self.say('\n'.join([*(f'{key} cannot be run here: {why}' for key, why in worker.skipped.items()),
                                'Nothing is left to do.']))
            return
        if not environments:
            self.say('Waits for workers (benchmark.py worker) until all is done; --once shows the table and ends.')
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            def show() -> None:
                if time.monotonic() - self.looked > LOOK:
                    states = self.states()
                    write_tables(states, self.args.work_dir, self.title)
                    self.looked = time.monotonic()
                    live.update(self.view(states), refresh=self.console.is_terminal)

            worker.work(show)
        self.once()
        if worker.skipped:
            raise SystemExit(f'{len(worker.skipped)} cells cannot be run on this machine, see above; the same command '
                             'tries again')

    def once(self) -> None:
        """Write the table, print it."""
        self.title = self.queue.title()
        states = self.states(whole=True)
        tables = write_tables(states, self.args.work_dir, self.title)
        self.console.print(self.view(states, whole=True))
        for table in tables:
            self.say(markdown(table))
        self.say(f'{self.args.work_dir}/table.md, .csv, .json, .html; a folder for each cell')

    def end(self, running: Running, ended: str) -> None:
        """Say how a run ended."""
        job = running.job
        value = '' if running.value is None else f' {running.value:.2f}'
        log = f', see {running.process.log}' if ended == 'failed' else ''
        self.say(f'{job.cell.name}, {job.name} {ended}:{value} {describe(job.settings)}{log}')
        self.looked = -math.inf

    def view(self, states: list[State], whole: bool = False) -> Group:
        """Return the plan as a table for a terminal: what is under way, and as many of the others as fit."""
        room = len(states) if whole else max(5, self.console.height - 8)
        rank = {'failed': 1, 'waits': 2, 'done': 3}
        chosen = sorted(range(len(states)), key=lambda i: (rank.get(states[i].text, 0), i))[:room]
        table = RichTable()
        for name, side in (('cell', 'left'), ('state', 'left'), ('running', 'right'), ('best on val', 'left'),
                           ('test', 'right'), ('hours', 'right')):
            table.add_column(name, justify=side)  # type: ignore[arg-type]
        for i in sorted(chosen):
            state, metric = states[i], states[i].cell.metric
            tests = [test['metrics'][metric] for test in state.tests.values()]
            best = f'{state.best.value:.2f} ({describe(state.best.params)})' if state.best else ''
            table.add_row(*map(Text, (state.cell.name, state.text, str(state.running or ''), best,
                                      f'{sum(tests) / len(tests):.2f}' if tests else '',
                                      f'{state.seconds / 3600:.2f}' if state.seconds else '')))
        hidden = len(states) - len(chosen)
        lines = [progress(states), budgets(states), *([f'{hidden} more cells'] if hidden else []),
                 *(f'{s.cell.name} failed: {s.failure}' for s in states if s.failure and whole)]
        return Group(table, *map(Text, lines))

    def say(self, text: str) -> None:
        """Print a line as it is, however long."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    args = parse_args()
    stop_on_signals()
    MMLogger.get_instance('benchmark', log_level='WARNING')  # MMEngine says of every config which variables it read
    job = Benchmark(args, Console())
    try:
        if args.once:
            job.once()
            return
        if not args.joins:
            job.begin()
        job.run()
    except Stopped:
        job.say('Stopped; what was under way is given back, and the same command goes on.')
        raise


if __name__ == '__main__':
    main()
