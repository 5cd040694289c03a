#!/usr/bin/env python
"""Search settings on train -> val, then train the best on train + val with several seeds and test each once.

A killed search goes on when the same command is given again, and a finished one when it is given more trials."""
import argparse
import os.path as osp
import sys

from filelock import FileLock, Timeout
from mmengine.config import DictAction
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mmspt.engine.launch import add_amp, default_work_dir, name_amp
from mmspt.evaluation import read_epoch
from mmspt.search.cell import Budget, check_files, make_cell
from mmspt.search.plots import plot
from mmspt.search.processes import Stopped, stop_on_signals, worker_environments
from mmspt.search.queue import TEST, TRIAL, Queue
from mmspt.search.space import DEFAULT, FIELD, FORM, describe
from mmspt.search.states import State, read_state
from mmspt.search.storage import FILE, open_storage
from mmspt.search.summary import to_markdown, write
from mmspt.search.worker import Launcher, Running, Worker, loader_workers, remove_checkpoints_of

TOOLS = osp.dirname(osp.abspath(__file__))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Search settings on the validation split')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('--work-dir', help='where the search goes; work_dirs/[...]/sweep_<config> by default')
    parser.add_argument('--search', nargs='+', metavar='KEY=VALUES',
                        help=f"what to vary: {FORM}; by default what the config's variable {FIELD} lists, or "
                             f'{" ".join(DEFAULT)} if it has none')
    parser.add_argument('--trials', type=int, default=30, help='trials in all, earlier ones counted')
    parser.add_argument('--seeds', type=int, default=3, help='last runs of the best setting; 0: search only')
    parser.add_argument('--workers', type=int, help='runs side by side; one a GPU, or one, by default')
    parser.add_argument('--metric', default='accuracy/top1', help='validated quantity, the higher the better')
    parser.add_argument('--seed', type=int, default=0, help='seed of the search')
    parser.add_argument('--prune-after', type=int, default=5,
                        help='trials that run to their end before others are pruned; a large number: no pruning')
    parser.add_argument('--keep-checkpoints', action='store_true', help="keep the trials' checkpoints")
    add_amp(parser)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override the config: key=value ...')
    args = parser.parse_args(name_amp(sys.argv[1:]))
    for name, least in (('trials', 1), ('seeds', 0), ('prune_after', 0), ('workers', 1)):
        if getattr(args, name) is not None and getattr(args, name) < least:
            parser.error(f'--{name.replace("_", "-")} must be at least {least}, got {getattr(args, name)}')
    return args


class Search:
    """One call of this tool: a plan of one cell, with its folder and output."""

    def __init__(self, args: argparse.Namespace, console: Console) -> None:
        self.args, self.console = args, console
        self.title = osp.splitext(osp.basename(args.config))[0]
        above, name = osp.split(default_work_dir(args.config))
        self.folder = args.work_dir or osp.join(above, f'sweep_{name}')
        self.cell = make_cell(args.config, args.cfg_options, args.search, '', args.metric, args.amp, args.seed,
                              Budget(args.trials, args.seeds, args.prune_after))
        check_files(self.cell, self.folder)

    def open_queue(self) -> Queue:
        """Open the folder's queue, which has this cell alone.

        Raises:
            ValueError: It is of another search.
        """
        queue = Queue(open_storage(osp.join(self.folder, FILE)), 'sweep')
        others = [name for study in queue.storage.get_all_studies()
                  if not (name := study.study_name).startswith('sweep/')]  # of an earlier version
        if others or queue.begun() - {self.cell.key}:
            raise ValueError('a search must go on with the config, space, metric and precision that it began with, but '
                             f"'{self.folder}' began with others: take these, or another --work-dir")
        queue.register([self.cell])
        return queue

    def run(self) -> None:
        """Search, test, write."""
        queue = self.open_queue()
        cut_off, state = queue.release_lost(alone=True), read_state(queue, self.cell)
        if state.ended or cut_off:
            self.say(f'Going on with {self.folder}: {state.ended} trials are done, {cut_off} were cut off.')
        environments = worker_environments(self.args.workers)
        launch = Launcher(osp.join(TOOLS, 'train.py'), self.folder,
                          loader_workers(osp.dirname(TOOLS), len(environments)))
        columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
                   TextColumn('{task.fields[text]}', markup=False), TimeElapsedColumn())
        with Progress(*columns, console=self.console) as progress:
            tasks = {TRIAL: progress.add_task('trials', total=self.args.trials, text=''),
                     TEST: progress.add_task('train + val, then test', total=self.args.seeds, text='')}

            def end(running: Running, ended: str) -> None:
                nonlocal state
                state = read_state(queue, self.cell)
                if running.job.stage.kind == TRIAL:
                    value = f'see {running.process.log}' if running.value is None else f'{running.value:.2f}'
                    self.say(f'{running.job.name} {ended}: {value}, {describe(running.job.settings)}')
                self.write(state)

            worker = Worker(queue, launch, self.folder, environments, end, self.args.keep_checkpoints)

            def show() -> None:
                for kind, task in tasks.items():
                    own = [running for running in worker.running.values() if running.job.stage.kind == kind]
                    done = state.ended if kind == TRIAL else len(state.tests)
                    best = f'best {state.best.value:.2f} ({describe(state.best.params)})' if state.best else ''
                    at = [self.place(running) for running in own]
                    progress.update(task, completed=done, text=' · '.join(filter(None, [
                        best if kind == TRIAL else '', ', '.join(at)])))

            worker.work(show)
            state = read_state(queue, self.cell)
            show()
        self.write(state)
        if not self.args.keep_checkpoints:
            remove_checkpoints_of(self.cell, state.trials, self.folder)
        if worker.skipped:
            raise RuntimeError(f'the search cannot be run here: {worker.skipped[self.cell.key]}')
        if state.failure is not None:
            raise RuntimeError(f'the search failed: {state.failure}')
        if state.best is None:
            raise SystemExit(f'no trial ran to its end, so there is no best setting: look into {self.folder}/trials')
        pictures = plot(queue.study(self.cell.key), self.args.metric, osp.join(self.folder, 'plots'))
        self.console.print(Markdown(to_markdown(state.summary(self.folder), self.title)))
        self.say(f'{self.folder}/results.md, results.json; {len(pictures)} pictures in {self.folder}/plots')

    def place(self, running: Running) -> str:
        """Say how far a run is."""
        cell, job = self.cell, running.job
        step = running.step if job.stage.kind == TRIAL else read_epoch(running.work_dir)
        name = f'#{job.slot}' if job.stage.kind == TRIAL else f'seed {job.slot}'
        return f'{name} {cell.unit} {step}/{cell.length}'

    def say(self, text: str) -> None:
        """Print a line as it is, however long."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def write(self, state: State) -> None:
        """Write results.json and results.md: all trials, and the tests of the best setting that are done."""
        write(state.summary(self.folder), self.folder, self.title)


def main() -> None:
    args = parse_args()
    stop_on_signals()
    job = Search(args, Console())
    try:
        with FileLock(osp.join(job.folder, 'lock'), timeout=0):  # released when the process ends, however it ends
            job.run()
    except Timeout as error:
        raise SystemExit(f"one search at a time may work in a folder, but another holds '{job.folder}': wait for it, "
                         'or choose another --work-dir') from error
    except Stopped:
        job.say('Stopped; the same command goes on from here.')
        raise


if __name__ == '__main__':
    main()
