#!/usr/bin/env python
"""Search settings on train -> val, then train the best on train + val with several seeds and test each once.

Killed, it goes on where it stopped when the same command is given again; so does a search that is given more trials."""
import argparse
import os
import os.path as osp
import signal
import sys
from glob import escape, glob
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.registry import DefaultScope
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mmspt.engine.checks import check_config
from mmspt.search.finals import run_finals
from mmspt.search.lock import locked
from mmspt.search.loop import RunningTrial, search
from mmspt.search.plots import plot
from mmspt.search.processes import TrainProcess, worker_environments
from mmspt.search.protocol import check_overlap, final_config, search_config
from mmspt.search.space import DEFAULT, FORM, as_options, check_keys, describe, parse_space
from mmspt.search.study import Study, best, count, identify, open_study, take_up
from mmspt.search.table import summarize, to_markdown, write
from mmspt.visualization import read_epoch

TRAIN = osp.join(osp.dirname(osp.abspath(__file__)), 'train.py')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Search settings on the validation split')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('--work-dir', help='where the search goes; work_dirs/sweep_<config> by default')
    parser.add_argument('--search', nargs='+', default=list(DEFAULT), metavar='KEY=VALUES',
                        help=f'what to vary: {FORM}; default {" ".join(DEFAULT)}')
    parser.add_argument('--trials', type=int, default=30, help='trials in all, earlier ones counted')
    parser.add_argument('--seeds', type=int, default=3, help='last runs of the best setting; 0: search only')
    parser.add_argument('--workers', type=int, help='runs side by side; one a GPU, or one, by default')
    parser.add_argument('--metric', default='accuracy/top1', help='validated quantity, the higher the better')
    parser.add_argument('--seed', type=int, default=0, help='seed of the search')
    parser.add_argument('--prune-after', type=int, default=5,
                        help='trials that run to their end before others are pruned; a large number: no pruning')
    parser.add_argument('--keep-checkpoints', action='store_true', help="keep the trials' checkpoints")
    parser.add_argument('--amp', nargs='?', const='bfloat16', choices=('bfloat16', 'float16'),
                        help='train in mixed precision; bfloat16 if none is named')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override the config: key=value ...')
    args = parser.parse_args()
    for name, least in (('trials', 1), ('seeds', 0), ('prune_after', 0)):
        if getattr(args, name) < least:
            parser.error(f'--{name.replace("_", "-")} must be at least {least}, got {getattr(args, name)}')
    return args


class Launcher:
    """Starts tools/train.py with a config that is written out in full, so that every run can be repeated by hand."""

    def __init__(self, cfg: Config, folder: str, amp: str | None) -> None:
        os.makedirs(folder, exist_ok=True)
        self.config = osp.join(folder, osp.basename(cfg.filename))
        self.flags = [f'--amp={amp}'] if amp else []
        with open(f'{self.config}.tmp', 'w', encoding='utf-8') as file:
            file.write(cfg.pretty_text)
        os.replace(f'{self.config}.tmp', self.config)

    def __call__(self, settings: dict[str, Any], work_dir: str, environment: dict[str, str]) -> TrainProcess:
        command = [sys.executable, TRAIN, self.config, '--work-dir', work_dir, '--resume', *self.flags, '--cfg-options',
                   *as_options(settings)]
        return TrainProcess(command, osp.join(work_dir, 'train.txt'), environment)


def remove_checkpoints(trial: RunningTrial, ended: str) -> None:
    """Of a trial that will not go on, only logs and config stay."""
    if ended != 'failed':
        for path in glob(osp.join(escape(trial.work_dir), '*.pth')):
            os.remove(path)


def stop(number: int, frame: Any) -> None:
    """SIGTERM ends the runs, as Ctrl-C does."""
    raise SystemExit(128 + number)


class Search:
    """One call of this tool: what it searches, where, and what it shows."""

    def __init__(self, args: argparse.Namespace, console: Console) -> None:
        self.args, self.console = args, console
        self.space = parse_space(args.search)
        cfg = Config.fromfile(args.config)
        if args.cfg_options is not None:
            cfg.merge_from_dict(args.cfg_options)
        self.title = osp.splitext(osp.basename(args.config))[0]
        self.folder = args.work_dir or osp.join('work_dirs', f'sweep_{self.title}')
        self.epochs = cfg.train_cfg.get('max_epochs', 0)
        check_keys(cfg, self.space)
        self.trial_cfg = search_config(cfg)
        self.final_cfg = final_config(cfg) if args.seeds else None
        self.trial_cfg.work_dir = self.folder
        check_config(self.trial_cfg)
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
            check_overlap(cfg)

    def run(self) -> None:
        """Search, test, write."""
        study = open_study(self.folder, identify(self.trial_cfg, self.space, self.args.metric), self.space,
                           self.args.seed, self.args.prune_after, warmup_epochs=self.epochs // 5)
        cut_off = take_up(study)
        if count(study) or cut_off:
            self.console.print(f'Going on with {self.folder}: {count(study)} trials are done, {cut_off} were cut off.')
        environments = worker_environments(self.args.workers)
        columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
                   TextColumn('{task.fields[text]}'), TimeElapsedColumn())
        finals: dict[int, dict] = {}
        with Progress(*columns, console=self.console) as progress:
            chosen = self.find_best(study, environments, progress)
            self.write(study, finals)  # not lost if a last run fails
            if self.final_cfg is not None:
                finals = self.test_best(chosen, environments, progress)
        summary = self.write(study, finals)
        pictures = plot(study, self.space, self.args.metric, osp.join(self.folder, 'plots'))
        self.console.print(Markdown(to_markdown(summary, self.title)))
        self.console.print(f'{self.folder}/results.md, results.json; {len(pictures)} pictures in {self.folder}/plots',
                           soft_wrap=True)

    def find_best(self, study: Study, environments: list[dict[str, str]], progress: Progress) -> dict[str, Any]:
        """Run the trials; return the best setting."""
        task = progress.add_task('trials', total=self.args.trials, completed=count(study), text='')

        def show(running: list[RunningTrial]) -> None:
            found = best(study)
            at = ', '.join(f'#{r.trial.number} epoch {max(r.values, default=0)}/{self.epochs}' for r in running)
            known = f'best {found.value:.2f} ({describe(found.params)}) · ' if found else ''
            progress.update(task, completed=count(study), text=known + at)

        def end(trial: RunningTrial, ended: str) -> None:
            value = f'{trial.values[max(trial.values)]:.2f}' if trial.values else f'see {trial.process.log}'
            progress.console.print(f'trial {trial.trial.number} {ended}: {value}, {describe(trial.settings)}')
            if not self.args.keep_checkpoints:
                remove_checkpoints(trial, ended)

        search(study, self.space, Launcher(self.trial_cfg, osp.join(self.folder, 'search'), self.args.amp),
               osp.join(self.folder, 'trials'), environments, self.args.trials, self.args.metric, show, end)
        progress.update(task, completed=count(study), text='')
        chosen = best(study)
        if chosen is None:
            raise SystemExit(f'no trial ran to its end, so there is no best setting: look into {self.folder}/trials')
        return chosen.params

    def test_best(self, settings: dict[str, Any], environments: list[dict[str, str]],
                  progress: Progress) -> dict[int, dict]:
        """Train the best setting on train + val with each seed, test once; return seed -> metrics."""
        task = progress.add_task('train + val, then test', total=self.args.seeds, text='')

        def show(done: int, running: dict[int, str]) -> None:
            at = ', '.join(f'seed {seed} epoch {read_epoch(work_dir)}/{self.epochs}'
                           for seed, work_dir in running.items())
            progress.update(task, completed=done, text=at)

        folder = osp.join(self.folder, 'final')
        return run_finals(Launcher(self.final_cfg, folder, self.args.amp), folder, settings, range(self.args.seeds),
                          environments, show)

    def write(self, study: Study, finals: dict[int, dict]) -> dict[str, Any]:
        """Write results.json and results.md."""
        summary = summarize(study, self.space, self.args.metric, finals)
        write(summary, self.folder, self.title)
        return summary


def main() -> None:
    args = parse_args()
    signal.signal(signal.SIGTERM, stop)
    job = Search(args, Console())
    with locked(job.folder):
        job.run()


if __name__ == '__main__':
    main()
