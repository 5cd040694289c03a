#!/usr/bin/env python
"""Search settings on train -> val, then train the best on train + val with several seeds and test each once.

A killed search goes on when the same command is given again, and a finished one when it is given more trials."""
import argparse
import copy
import os
import os.path as osp
import signal
import sys
from glob import escape, glob
from typing import Any

from filelock import FileLock, Timeout
from mmengine.config import Config, DictAction
from mmengine.registry import DefaultScope
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mmspt.config import read_config
from mmspt.engine.checks import check_config
from mmspt.engine.launch import add_amp, default_work_dir, merge_options, name_amp, set_workers
from mmspt.engine.reliability.last_checkpoint import find_latest
from mmspt.evaluation import read_epoch
from mmspt.evaluation.description import recipe_of
from mmspt.files import write_text
from mmspt.search.finals import read_tested, run_finals
from mmspt.search.loop import RunningTrial, search
from mmspt.search.plots import plot
from mmspt.search.processes import TrainProcess, worker_environments
from mmspt.search.space import DEFAULT, FIELD, FORM, as_options, describe, read_space
from mmspt.search.splits import check_overlap, final_config, search_config
from mmspt.search.study import COMPLETE, PRUNED, Study, best, count, digest, grid, identify, open_study, take_up
from mmspt.search.summary import summarize, to_markdown, write

BATCH_KEYS = ('train_dataloader.batch_size', 'optim_wrapper.accumulative_counts')
TRAIN = osp.join(osp.dirname(osp.abspath(__file__)), 'train.py')


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


def length(cfg: Config) -> int:
    """Return the number of epochs, or of iterations where a config counts these; validations have the same unit."""
    return cfg.train_cfg.get('max_epochs') or cfg.train_cfg.get('max_iters', 0)


class Launcher:
    """Starts tools/train.py with a config written in full, so that every run can be repeated by hand."""

    def __init__(self, cfg: Config, folder: str, amp: str | None) -> None:
        os.makedirs(folder, exist_ok=True)
        self.config = osp.join(folder, f'{osp.splitext(osp.basename(cfg.filename))[0]}.py')
        self.flags = [f'--amp={amp}'] if amp else []
        write_text(self.config, cfg.pretty_text)

    def __call__(self, settings: dict[str, Any], work_dir: str, environment: dict[str, str]) -> TrainProcess:
        flags = [*self.flags, '--resume'] if find_latest(work_dir) is not None else self.flags
        command = [sys.executable, TRAIN, self.config, '--work-dir', work_dir, *flags, '--cfg-options',
                   *as_options(settings)]
        return TrainProcess(command, osp.join(work_dir, 'train.txt'), environment)


def remove_checkpoints(work_dir: str) -> None:
    """Remove the checkpoints of a trial that will not be resumed; logs and config stay."""
    for path in glob(osp.join(escape(work_dir), '*.pth')):
        os.remove(path)


class Stopped(SystemExit):
    """Ctrl-C or SIGTERM: end the runs, then the search."""


def stop(number: int, frame: Any) -> None:
    """Raise :class:`Stopped`, so that the runs are ended first."""
    raise Stopped(128 + number)


class Search:
    """One call of this tool: space, folder and output."""

    def __init__(self, args: argparse.Namespace, console: Console) -> None:
        self.args, self.console = args, console
        cfg = read_config(args.config)
        merge_options(cfg, args.cfg_options)
        own_space = cfg.pop(FIELD, None)  # the space counts, not where it was given
        self.title = osp.splitext(osp.basename(args.config))[0]
        above, name = osp.split(default_work_dir(args.config))
        self.folder = args.work_dir or osp.join(above, f'sweep_{name}')
        self.trial_cfg = search_config(cfg)
        self.space = read_space(cfg, args.search, own_space)
        self.epochs = cfg.train_cfg.get('max_epochs')
        self.length = length(cfg)
        self.unit = 'epoch' if self.epochs else 'iteration'
        self.final_cfg = final_config(cfg) if args.seeds else None
        self.trial_cfg.work_dir = self.folder
        check_config(self.trial_cfg)
        for parameter in self.space:
            for value in parameter.choices or (parameter.low, ):
                tried = copy.deepcopy(self.trial_cfg)
                tried.merge_from_dict({parameter.key: value})
                check_config(tried)
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
            check_overlap(self.trial_cfg, self.final_cfg)

    def run(self) -> None:
        """Search, test, write."""
        study = open_study(self.folder, identify(self.trial_cfg, self.space, self.args.metric, self.args.amp),
                           self.args.seed, self.args.prune_after, warmup_epochs=self.length // 5)
        cut_off = take_up(study)
        if count(study) or cut_off:
            self.say(f'Going on with {self.folder}: {count(study)} trials are done, {cut_off} were cut off.')
        if not self.args.keep_checkpoints:
            # a killed search may not have removed them
            for trial in study.get_trials(deepcopy=False, states=(COMPLETE, PRUNED)):
                remove_checkpoints(osp.join(self.folder, 'trials', trial.user_attrs['work_dir']))
        environments = worker_environments(self.args.workers)
        for cfg in filter(None, (self.trial_cfg, self.final_cfg)):
            if 'workers' in cfg:  # runs side by side share the cores
                set_workers(cfg, cfg.workers, max(1, cfg.workers // len(environments)))
        columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
                   TextColumn('{task.fields[text]}', markup=False), TimeElapsedColumn())
        with Progress(*columns, console=self.console) as progress:
            chosen = self.find_best(study, environments, progress)
            self.write(study)  # before a last run can fail
            if self.final_cfg is not None:
                self.test_best(chosen, environments, progress)
        summary = self.write(study)
        pictures = plot(study, self.args.metric, osp.join(self.folder, 'plots'))
        self.console.print(Markdown(to_markdown(summary, self.title)))
        self.say(f'{self.folder}/results.md, results.json; {len(pictures)} pictures in {self.folder}/plots')

    def say(self, text: str) -> None:
        """Print a line as it is, however long."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def find_best(self, study: Study, environments: list[dict[str, str]], progress: Progress) -> dict[str, Any]:
        """Run the trials; return the best setting."""
        task = progress.add_task('trials', total=self.args.trials, text='')

        def recall() -> str:  # asks the database, so not at every look
            progress.update(task, completed=count(study))
            found = best(study)
            return f'best {found.value:.2f} ({describe(found.params)}) · ' if found else ''

        known = recall()

        def show(running: list[RunningTrial]) -> None:
            at = ', '.join(f'#{r.trial.number} {self.unit} {max(r.values, default=0)}/{self.length}' for r in running)
            progress.update(task, text=known + at)

        def end(trial: RunningTrial, ended: str) -> None:
            nonlocal known
            known = recall()
            value = f'see {trial.process.log}' if ended == 'failed' else f'{trial.values[max(trial.values)]:.2f}'
            self.say(f'trial {trial.trial.number} {ended}: {value}, {describe(trial.settings)}')
            if not self.args.keep_checkpoints:
                remove_checkpoints(trial.work_dir)
            self.write(study)

        search(study, self.space, grid(self.space, self.args.seed),
               Launcher(self.trial_cfg, osp.join(self.folder, 'search'), self.args.amp),
               osp.join(self.folder, 'trials'), environments, self.args.trials, self.args.metric, show, end)
        progress.update(task, text='')
        chosen = best(study)
        if chosen is None:
            raise SystemExit(f'no trial ran to its end, so there is no best setting: look into {self.folder}/trials')
        return chosen.params

    def test_best(self, settings: dict[str, Any], environments: list[dict[str, str]], progress: Progress) -> None:
        """Train the best setting on train + val with each seed, test once."""
        task = progress.add_task('train + val, then test', total=self.args.seeds, text='')

        def show(done: int, running: dict[int, str]) -> None:
            at = ', '.join(f'seed {seed}' + (f' epoch {read_epoch(work_dir)}/{self.epochs}' if self.epochs else '')
                           for seed, work_dir in running.items())
            progress.update(task, completed=done, text=at)

        folder = self.final_folder(settings)
        run_finals(Launcher(self.final_cfg, folder, self.args.amp), folder, settings, range(self.args.seeds),
                   environments, show)

    def final_folder(self, settings: dict[str, Any]) -> str:
        """Return the folder of a setting's last runs, named after everything that they depend on."""
        identity = identify(self.final_cfg, self.space, self.args.metric, self.args.amp)
        return osp.join(self.folder, 'final', digest(settings, identity))

    def write(self, study: Study) -> dict[str, Any]:
        """Write results.json and results.md: all trials, and the tests of the best setting that are done."""
        chosen, tested, folder = best(study), {}, None
        if chosen is not None and self.final_cfg is not None:
            path = self.final_folder(chosen.params)
            tested, folder = read_tested(path, range(self.args.seeds)), osp.relpath(path, self.folder)
        batches = {parameter.key for parameter in self.space} & set(BATCH_KEYS)  # searched: it differs between trials
        summary = summarize(study, self.space, self.args.metric, tested, folder,
                            None if batches else recipe_of(self.trial_cfg)['global_batch'])
        write(summary, self.folder, self.title)
        return summary


def main() -> None:
    args = parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
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
