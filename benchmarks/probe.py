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
from mmengine.registry import DefaultScope
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import DATASETS, MODELS
from rich.console import Console
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader

from measure import machine, settings, write_json
from study_plan import BACKBONES, ROOT, Cell

STRENGTHS = (0.001, 0.01, 0.1, 1.)
Split = tuple[np.ndarray, np.ndarray]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Probe the study's checkpoints",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--images', type=int, help='the most of each split, spread over it; all by default')
    parser.add_argument('--out', default='work_dirs/benchmarks/probe.json', help='for the numbers')
    return parser.parse_args()


def read_config(backbone: str) -> Config:
    """The study's linear probe on CIFAR-10."""
    os.environ.update(Cell(backbone, 'cifar10_1k', 'Linear').environment)
    return Config.fromfile(osp.join(ROOT, 'configs', 'study', 'linear.py'))


def networks() -> Iterator[tuple[str, ImageClassifier]]:
    """Name and classifier of each checkpoint, and of its network untrained: CLS and the mean of the patch tokens tell
    differently much of an image from the start."""
    for name, trained in product(BACKBONES, (True, False)):
        cfg = read_config(name)
        if not trained:
            torch.manual_seed(0)
            cfg.model.backbone.update(init_cfg=None, allow_random_backbone=True)
        model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
        model.init_weights()
        yield BACKBONES[name] if trained else f'untrained, read as {BACKBONES[name]}', model.eval()


@torch.no_grad()
def features(model: ImageClassifier, loader: DataLoader, title: str) -> Split:
    """What the head reads (N, D), and labels (N)."""
    found, labels = [], []
    for batch in track(loader, title):
        data = model.data_preprocessor(batch)
        found.append(model.extract_feat(data['inputs'])[-1].float().cpu())
        labels += [int(sample.gt_label) for sample in data['data_samples']]
    return torch.cat(found).numpy(), np.array(labels)


def pixels(loader: DataLoader) -> Split:
    """The images as they are (N, 3072), and labels (N)."""
    batches = list(loader)
    return (np.concatenate([np.stack([image.numpy().ravel() for image in batch['inputs']]) for batch in batches])
            .astype(np.float32), np.array([int(s.gt_label) for batch in batches for s in batch['data_samples']]))


def classifier(strength: float) -> Pipeline:
    """Logistic regression on standardized features."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=200))


def probe(train: Split, test: Split) -> dict[str, Any]:
    """Choose the strength on every tenth training image; test once."""
    held = np.arange(len(train[1])) % 10 == 0
    validated = {strength: float(classifier(strength).fit(train[0][~held], train[1][~held])
                                 .score(train[0][held], train[1][held])) for strength in STRENGTHS}
    best = max(validated, key=lambda strength: validated[strength])
    score = classifier(best).fit(*train).score(*test)
    return dict(strength=best, validation=validated, test=float(score), width=train[0].shape[1], images=len(train[1]))


def main() -> None:
    args, console = parse_args(), Console()
    cfg, results = read_config('mae'), {}
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        loaders = []
        for split in ('train', 'test'):
            dataset = DATASETS.build(dict(cfg.test_dataloader.dataset, data_prefix=split))
            if args.images:
                dataset = dataset.get_subset(np.linspace(0, len(dataset) - 1, args.images, dtype=int).tolist())
            loaders.append(DataLoader(dataset, batch_size=100, collate_fn=pseudo_collate))
        for name, model in networks():
            results[name] = probe(*(features(model, loader, f'{name}, {split}')
                                    for split, loader in zip(('train', 'test'), loaders, strict=True)))
            console.print(f'{name}: {100 * results[name]["test"]:.2f} % of the test images')
        results['pixels'] = probe(*map(pixels, loaders))
        console.print(f'pixels: {100 * results["pixels"]["test"]:.2f} % of the test images')
    write_json(dict(machine=machine(torch.device('cpu')), settings=settings(args), results=results), args.out)


if __name__ == '__main__':
    main()
