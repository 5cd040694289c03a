#!/usr/bin/env python
"""Settings of a recipe compared by validation accuracy over seeds: published ones of BPT with those of SPT's recipes.

    python benchmarks/neighbour.py --settings flowers102
    python benchmarks/neighbour.py --compare eps --settings 0.001 --seeds 2

Each run trains on train and is validated on val after its last epoch; no test image is read. A run that ended is not
repeated.
"""
import argparse
import os
import os.path as osp
import subprocess
import sys
from collections.abc import Mapping
from statistics import fmean, stdev
from typing import Any, NamedTuple
from unittest.mock import patch

from mmengine.config import Config
from rich.console import Console
from scipy.stats import t as student

from measure import ROOT, arguments, record, show_table
from mmspt.config import read_config
from mmspt.evaluation import METRIC, read_scalars
from mmspt.files import write_text
from mmspt.search.space import SHORT
from mmspt.search.splits import search_config

RULE = """Fixed before the first run. Every run trains on train; its figure is the accuracy on val after the last epoch;
no test image is read. Compared with the same seeds: the setting that SPT's recipes of a pre-training have (CUB's), and
BPT's published setting of Oxford Flowers for that pre-training, on Flowers-17 with the network of that pre-training.
The published settings are contradicted if, with any of the networks, the mean over seeds of published less CUB's is
below zero by more than half the 95 % interval of these differences (Student's t); else they are not contradicted.
Settings of other tasks are context and decide nothing. Only recipes of a task whose own stand-in ran take over its
setting. With three seeds the interval is wide: 'not contradicted' does not mean 'better'."""
SPT = 'SPT, CUB'
"""The setting that the others are compared with."""


class Comparison(NamedTuple):
    """A recipe and its settings, name -> options; the first is the reference."""
    config: str
    settings: dict[str, dict[str, Any]]
    environment: dict[str, str] = {}
    judged: str | None = None
    """The setting that the rule is about."""


def decays(lr: float, prompt: float, head: float) -> dict[str, Any]:
    return dict(zip(SHORT.values(), (lr, prompt, head), strict=True))


def spt(backbone: str, judged: str, **published: tuple[float, float, float]) -> Comparison:
    settings = {SPT: decays(0.05, 0.01, 0.5)} | {name: decays(*values) for name, values in published.items()}
    environment = dict(MMSPT_BACKBONE=backbone, MMSPT_TASK='flowers17_area_32')
    return Comparison('configs/study/spt.py', settings, environment, judged)


COMPARISONS = {  # published: configs/bpt
    'mae': spt('mae', 'flowers102', flowers102=(0.1, 5e-3, 1.), cub=(0.05, 5e-3, 0.5), nabirds=(0.05, 5e-3, 0.3),
               dogs_cars=(0.05, 5e-3, 0.1)),
    'mocov3': spt('mocov3', 'flowers102', flowers102=(0.05, 1e-3, 0.05), dogs=(0.05, 2e-3, 0.1), cub=(0.05, 5e-3, 0.1)),
    'eps': Comparison('configs/bpt/vit-s_dinov2_digits.py', {
        str(eps): {'custom_hooks.0.initializer.eps': eps} for eps in (1e-5, 1e-3, 1e-7)}),
}


def parse_args() -> argparse.Namespace:
    parser = arguments('Compare settings by validation', 'neighbour', network=False)
    parser.add_argument('--compare', nargs='+', choices=COMPARISONS, default=['mae', 'mocov3'])
    parser.add_argument('--settings', nargs='+', help='names of settings beside the reference; all by default')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--data-root', help="of the images; the recipe's by default")
    parser.add_argument('--runs', default='work_dirs/neighbour', help='folder of runs')
    return parser.parse_args()


def make_config(comparison: Comparison, options: Mapping[str, Any], seed: int, data_root: str | None) -> Config:
    """Return the config of a run: train -> val, validated once, images decoded once."""
    with patch.dict(os.environ, comparison.environment):
        cfg = search_config(read_config(osp.join(ROOT, comparison.config)))
    cfg.pop('search_space', None)
    cfg.merge_from_dict({'randomness.seed': seed, 'train_cfg.val_interval': cfg.train_cfg.max_epochs, **options})
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
        if loader.dataset.pipeline[0].type == 'mmspt.LoadImageFromFile':
            loader.dataset.pipeline[0].cache = 'memory'
        if data_root:
            loader.dataset.data_root = data_root
    return cfg


def run(cfg: Config, work_dir: str) -> float:
    """Train unless that was done; return the last validation accuracy in percent."""
    path, last = osp.join(work_dir, 'recipe.py'), cfg.train_cfg.max_epochs
    if last not in read_scalars(work_dir, METRIC):
        os.makedirs(work_dir, exist_ok=True)
        write_text(path, cfg.pretty_text)
        with open(osp.join(work_dir, 'train.txt'), 'w', encoding='utf-8') as file:
            subprocess.run([sys.executable, osp.join(ROOT, 'tools/train.py'), path, '--work-dir', work_dir], check=True,
                           stdout=file, stderr=subprocess.STDOUT)
    return read_scalars(work_dir, METRIC)[last]


def compare(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Run every setting with every seed, by turns; return accuracies and differences to the reference."""
    comparison = COMPARISONS[name]
    reference, *others = comparison.settings
    names = [reference, *(other for other in others if not args.settings or other in args.settings)]
    accuracies: dict[str, list[float]] = {setting: [] for setting in names}
    for seed in range(args.seeds):
        for setting in names:
            cfg = make_config(comparison, comparison.settings[setting], seed, args.data_root)
            accuracies[setting].append(run(cfg, osp.join(args.runs, f'{name}_{setting}_{seed}'.replace(', ', '_'))))
    rows = {}
    for setting, values in accuracies.items():
        differences = [ours - theirs for ours, theirs in zip(values, accuracies[reference], strict=True)]
        half = float(student.ppf(0.975, len(differences) - 1)) * stdev(differences) / len(differences)**0.5
        rows[setting] = dict(options=comparison.settings[setting], val=dict(enumerate(values)), mean=fmean(values))
        if setting != reference:
            rows[setting] |= dict(difference=fmean(differences), interval=half)
        if setting == comparison.judged:
            rows[setting]['contradicted'] = fmean(differences) < -half
    return dict(config=comparison.config, environment=comparison.environment, reference=reference, settings=rows)


def measure(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    rule = RULE.replace('\n', ' ') if any(COMPARISONS[name].judged for name in args.compare) else None
    return dict(rule=rule, comparisons={name: compare(name, args) for name in args.compare})


def show(content: dict[str, Any], console: Console) -> None:
    for name, row in content['comparisons'].items():
        show_table(console, ('setting', 'mean', 'seeds', 'less the reference', '95 %', 'contradicted'), [
            (setting, f'{values["mean"]:.1f}', ', '.join(f'{value:.1f}' for value in values['val'].values()),
             *(f'{values[key]:+.1f}' if key in values else '' for key in ('difference', 'interval')),
             str(values.get('contradicted', ''))) for setting, values in row['settings'].items()], name)


if __name__ == '__main__':
    record(parse_args(), measure, show)
