#!/usr/bin/env python
"""How good the study's checkpoints are: a linear probe of frozen features on all of CIFAR-10's labels.

    python benchmarks/probe.py                 # --images 2000: on a few, to try it

What the head of the study's linear probe reads (configs/study/linear.py), standardized, into scikit-learn's logistic
regression; its strength is chosen on every tenth training image, and the choice fitted again on all of them. Beside the
checkpoints that are there: their networks untrained, each read as its own, and the pixels themselves.
"""
import argparse
import os
import os.path as osp
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import DATASETS
from rich.console import Console
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader

from measure import arguments, record
from mmspt.engine.build import build_model
from study_plan import BACKBONES, ROOT, Cell

STRENGTHS = (0.001, 0.01, 0.1, 1.)
Split = tuple[np.ndarray, np.ndarray]


def parse_args() -> argparse.Namespace:
    parser = arguments("Probe the study's checkpoints", 'probe', network=False)
    parser.add_argument('--images', type=int, help='the most of each split, spread over it; all by default')
    return parser.parse_args()


def read_config(backbone: str) -> Config:
    """The study's linear probe on CIFAR-10."""
    os.environ.update(Cell(backbone, 'cifar10_1k', 'Linear').environment)
    return Config.fromfile(osp.join(ROOT, 'configs', 'study', 'linear.py'))


def networks() -> Iterator[tuple[str, ImageClassifier]]:
    """Yield name and classifier of each checkpoint, and of its network untrained."""
    for name, trained in product(BACKBONES, (True, False)):
        cfg = read_config(name)
        if not trained:
            torch.manual_seed(0)
            cfg.model.backbone.update(init_cfg=None, allow_random_backbone=True)
        model = build_model(cfg)
        model.init_weights()
        yield BACKBONES[name] if trained else f'untrained, read as {BACKBONES[name]}', model.eval()


@torch.no_grad()
def read(loader: DataLoader, title: str, model: ImageClassifier | None = None) -> Split:
    """Return what the head reads (N, D), or the pixels (N, 3072) if there is no model, and labels (N)."""
    found, labels = [], []
    for batch in track(loader, title, transient=True):
        found.append(torch.stack(batch['inputs']).flatten(1).float() if model is None else
                     model.extract_feat(model.data_preprocessor(batch)['inputs'])[-1].float())
        labels += [int(sample.gt_label) for sample in batch['data_samples']]
    return torch.cat(found).numpy(), np.array(labels)


def probe(train: Split, test: Split) -> dict[str, Any]:
    """Fit a logistic regression; its strength is chosen on every tenth training image. Test once."""
    held = np.arange(len(train[1])) % 10 == 0
    models = {strength: make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=200))
              for strength in STRENGTHS}
    validated = {strength: float(model.fit(train[0][~held], train[1][~held]).score(train[0][held], train[1][held]))
                 for strength, model in models.items()}
    best = max(validated, key=lambda strength: validated[strength])
    score = models[best].fit(*train).score(*test)
    return dict(strength=best, validation=validated, test=float(score), width=train[0].shape[1], images=len(train[1]))


def measure(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Probe checkpoints, untrained networks and pixels."""
    cfg, loaders = read_config('mae'), []
    for split in ('train', 'test'):
        dataset = DATASETS.build(dict(cfg.test_dataloader.dataset, data_prefix=split))
        if args.images:
            dataset = dataset.get_subset(np.linspace(0, len(dataset) - 1, args.images, dtype=int).tolist())
        loaders.append(DataLoader(dataset, batch_size=100, collate_fn=pseudo_collate))
    models = {**dict(networks()), 'pixels': None}
    return dict(results={name: probe(*(read(loader, name, model) for loader in loaders))
                         for name, model in models.items()})


def show(content: dict[str, Any], console: Console) -> None:
    """Print the accuracies."""
    for name, found in content['results'].items():
        console.print(f'{name}: {100 * found["test"]:.2f} % of the test images')


if __name__ == '__main__':
    record(parse_args(), measure, show)
