#!/usr/bin/env python
"""What BPT starts from, on real weights: the spectrum that it whitens, and what factors of a rank miss of prototypes.

    python benchmarks/bilinear.py --data-root data/flowers17 --runs work_dirs/bpt      # and these runs' accuracies

It counts the directions that hold 99 and 99.99 % of the variance of S (mmspt.prompts.whitening), and takes W S W on the
weakest of them: 1 is whitened. What the best fit misses is a share of the prototypes' norm, mean over blocks.
"""
import argparse
import os.path as osp
from glob import glob
from itertools import product
from typing import Any

import torch
from mmengine.config import Config
from mmpretrain.registry import DATASETS
from rich.console import Console
from torch import Tensor
from torch.nn.functional import pad

from measure import ROOT, arguments, record, show_table
from mmspt.engine.build import build_model
from mmspt.engine.training_images import TrainingImages
from mmspt.evaluation import METRIC, RESULT_FILE, read_result, read_scalars
from mmspt.models.layers.prompted_block import linear_map
from mmspt.models.methods import DeepBilinearPrompts
from mmspt.prompts import KMeansInit, RandomSampleInit, WhitenedInit
from mmspt.prompts.block_means import average, block_inputs, sum_images
from mmspt.prompts.whitening import whitening_matrix

COLUMNS = ('rank_99', 'whitened_99', 'rank_9999', 'weakest', 'whitened_9999', 'off')


def parse_args() -> argparse.Namespace:
    parser = arguments("Look at BPT's start", 'bilinear', network=False)
    parser.add_argument('--config', default='configs/bpt/vit-s_dinov2_flowers17.py')
    parser.add_argument('--data-root', help="of the images; the config's by default")
    parser.add_argument('--sizes', nargs='+', type=int, default=[112, 224], help='pixels; the first for prototypes')
    parser.add_argument('--prompts', nargs='+', type=int, default=[20, 50])
    parser.add_argument('--ranks', nargs='+', type=int, default=[1, 2, 5, 10, 15, 20, 50])
    parser.add_argument('--runs', help='folder of runs')
    return parser.parse_args()


def build(args: argparse.Namespace, size: int, wanted: Any, **prompts: int) -> tuple[Any, TrainingImages]:
    """Return the backbone with its checkpoint, and a stream of training images: a number, 'batch' or 'all'."""
    cfg = Config.fromfile(args.config if osp.exists(args.config) else osp.join(ROOT, args.config))
    cfg.model.backbone.img_size = cfg.train_dataloader.dataset.pipeline[1].scale = size
    cfg.model.backbone.prompts.update(prompts)
    cfg.train_dataloader.dataset.data_root = args.data_root or cfg.train_dataloader.dataset.data_root
    model, dataset = build_model(cfg), DATASETS.build(cfg.train_dataloader.dataset)
    model.eval().init_weights()
    model.backbone.check_weights()
    count = dict(batch=cfg.train_dataloader.batch_size, all=len(dataset)).get(wanted, wanted)
    return model.backbone, TrainingImages(dataset, model.data_preprocessor, count, 32, max_bytes=0.75 * 2**30)


def look(tokens: Tensor, query: Tensor, key: Tensor, eps: float) -> dict[str, Any]:
    """Describe the spectrum of S of one block, relative to its largest value, and W S W on its directions."""
    mixed = query @ key.T @ tokens.T
    s, w = mixed @ mixed.T / len(query), whitening_matrix(tokens, query, key, eps)
    directions, roots, _ = torch.linalg.svd(mixed, full_matrices=True)
    variances = pad(roots.square() / len(query), (0, len(query) - len(roots)))
    held, relative = variances.cumsum(0) / variances.sum(), variances / variances[0]
    rank_99, rank_9999 = (int((held < share).sum()) + 1 for share in (0.99, 0.9999))
    whitened = (directions.T @ w @ s @ w @ directions).diagonal()
    return dict(tokens=len(tokens), rank_99=rank_99, rank_9999=rank_9999, weakest=float(relative[rank_9999 - 1]),
                whitened_99=float(whitened[rank_99 - 1]), whitened_9999=float(whitened[rank_9999 - 1]),
                off=float(whitened[rank_9999:].mean()), relative=dict(enumerate(relative[:20].tolist(), 1)))


def spectra(args: argparse.Namespace, size: int) -> list[dict[str, Any]]:
    """Look at every block, with the images and the constant of WhitenedInit."""
    vit, images = build(args, size, WhitenedInit.images)
    means = average(images, lambda batch: (
        (i, sum_images(x)) for i, (_, x) in enumerate(block_inputs(vit, batch, vit.num_layers))))
    maps = ([linear_map(layer.attn, i)[0].detach().double() for i in (0, 1)] for layer in vit.layers)
    return [dict(size=size, block=i, **look(means[i - 1], query, key, WhitenedInit().eps))
            for i, (query, key) in enumerate(maps, 1)]


def fits(args: argparse.Namespace, initializer: Any, count: int) -> dict[str, Any]:
    """Start factors of every rank from one set of prototypes; return the share that each rank misses."""
    vit, images = build(args, args.sizes[0], initializer.images, num_prompts=count)
    prototypes = initializer.start(vit, images, torch.Generator().manual_seed(0))
    missed, norms = dict[int, float](), prototypes.norm(dim=(1, 2))
    for rank in args.ranks:
        method = DeepBilinearPrompts(count, rank, num_layers=vit.num_layers, embed_dims=vit.embed_dims,
                                     patch_size=vit.patch_size)
        method.reset_parameters()
        method.start_from(prototypes)
        missed[rank] = float(((method().tokens.detach() - prototypes).norm(dim=(1, 2)) / norms).mean())
    return dict(initializer=type(initializer).__name__, prompts=count, missed=missed)


def read_run(folder: str) -> dict[str, Any]:
    """Return what a run was told, and its accuracies in percent: validations by epoch, and the test if it had one."""
    cfg, result = Config.fromfile(glob(f'{folder}/vit*.py')[0]), osp.join(folder, RESULT_FILE)
    return dict(run=osp.basename(folder), optimizer=cfg.optim_wrapper.to_dict(), seed=cfg.randomness.seed,
                start=cfg.custom_hooks[0].initializer.type, validations=read_scalars(folder, METRIC),
                test=read_result(result).metrics[METRIC] if osp.isfile(result) else None)


def measure(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    return dict(eps=WhitenedInit().eps, spectra=[row for size in args.sizes for row in spectra(args, size)],
                fits=[fits(args, *case) for case in product((RandomSampleInit(), KMeansInit()), args.prompts)],
                runs=[read_run(osp.dirname(path)) for path in sorted(glob(f'{args.runs}/*/'))])


def show(content: dict[str, Any], console: Console) -> None:
    show_table(console, ('pixels, block', *COLUMNS), [
        (f'{row["size"]}, {row["block"]}', *(f'{row[key]:.3g}' for key in COLUMNS)) for row in content['spectra']])
    show_table(console, ('missed, %', *map(str, content['fits'][0]['missed'])), [
        (f'{row["initializer"]}, {row["prompts"]}', *(f'{100 * value:.1f}' for value in row['missed'].values()))
        for row in content['fits']])


if __name__ == '__main__':
    record(parse_args(), measure, show)
